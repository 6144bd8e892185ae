//! Positions of extrema.

use dojoc_ir::access::{Access, Combine, DimKind, Monoid};
use dojoc_ir::attr::{Flag, Number};
use dojoc_ir::program::instr::reduce::{ArgFunction, ArgReduce, ReduceFunction};
use dojoc_ir::program::instr::vector::ZipFunction;
use dojoc_ir::program::{MAX_VIEW_RANK, Unit};
use dojoc_ir::types::DType;

use super::Local;
use super::assign::{Evaluation, convert, operand_places, result_place};
use super::nest::{Axis, Cx, Place, axes, merged, spill, window};
use super::reduce::{Parts, body_place, check_kept, dims_of};
use super::values::{Source, Values, is_float};
use crate::emit::Unsupported;

/// Emits a reduction to the extreme value and what belongs to its position.
pub(super) fn emit(
    cx: &mut Cx<'_>,
    access: &Access,
    operands: &[Local],
    results: &[Local],
) -> Result<(), Unsupported> {
    let (function, extreme, last, dtype) = match access.combine {
        Combine::Reduce(Monoid::ArgMax { last }, dtype) => {
            (ArgFunction::ArgMax, ReduceFunction::Max, last, dtype)
        }
        Combine::Reduce(Monoid::ArgMin { last }, dtype) => {
            (ArgFunction::ArgMin, ReduceFunction::Min, last, dtype)
        }
        _ => return Err(Unsupported::new("positions of no extreme")),
    };
    let [body, position] = access.body.as_slice() else {
        return Err(Unsupported::new("a position without an expression for it"));
    };
    if !is_float(dtype) && !dtype.is_int() {
        return Err(Unsupported::new(format!(
            "`{}` of {dtype}",
            function.name()
        )));
    }
    let places = operand_places(cx, access, operands)?;
    let kept = dims_of(access, DimKind::Parallel);
    let searched = dims_of(access, DimKind::Reduction);
    let mut x = body_place(cx, body, dtype, &places)?;
    if merged(axes(cx.block, &searched, &[&x])).len() > 1 {
        // The instruction searches one dimension.
        let dense = cx.scratch("row", x.dtype, &cx.all_dims())?;
        let dims = cx.all_dims();
        convert(cx, &dense, &x, &dims)?;
        x = dense;
        if merged(axes(cx.block, &searched, &[&x])).len() > 1 {
            return Err(Unsupported::new(
                "a position in several loops of unknown extents",
            ));
        }
    }
    let found = cx.scratch("found", DType::I64, &kept)?;
    search(
        cx,
        ArgReduce {
            function,
            last: Flag(last),
        },
        &found,
        &x,
        (&kept, &searched),
    )?;
    for (write, local) in access.results.iter().zip(results) {
        let result = result_place(cx, write, local)?;
        check_kept(cx, access, &kept, &result)?;
        if write.component == 0 {
            let identity = Number::Int(0);
            let (kept, summed) = (kept.clone(), searched.clone());
            let parts = Parts {
                function: extreme,
                kept,
                summed,
                identity,
            };
            if result.dtype == x.dtype && parts.emit(cx, &x, &result, false)? {
                continue;
            }
            return Err(Unsupported::new(
                "an extreme of another type than the elements",
            ));
        }
        let mut sources: Vec<Place> = places.clone();
        sources.push(found.clone());
        let mut values = Values::new(places.iter().map(|place| place.dtype));
        values.sources.push(Source { dtype: DType::I64 });
        decode(cx, &mut values, &searched)?;
        let root = values.of(position)?;
        let root = values.convert(write.dtype, root)?;
        Evaluation::new(cx, &values, &sources).over(root, &result, &kept)?;
    }
    Ok(())
}

fn search(
    cx: &mut Cx<'_>,
    instr: ArgReduce,
    found: &Place,
    x: &Place,
    (kept, searched): (&[usize], &[usize]),
) -> Result<(), Unsupported> {
    let mut outer = merged(axes(cx.block, kept, &[found, x]));
    let loops = spill(&mut outer, MAX_VIEW_RANK - 1);
    let row = merged(axes(cx.block, searched, &[found, x])).pop();
    let all = [outer.as_slice(), &[row.unwrap_or_else(|| Axis::one(2))]].concat();
    let offsets = vec![found.offset.clone(), x.offset.clone()];
    cx.nest(Unit::Vector, &loops, offsets, &mut |cx, offsets| {
        let operands = [
            window(found, &offsets[0], &outer, 0),
            window(x, &offsets[1], &all, 1),
        ];
        let loc = cx.loc;
        cx.seg
            .compute(Unit::Vector, instr.clone(), &operands, Vec::new(), loc);
        Ok(())
    })
}

/// Makes the indices of the searched loops values of the position found, the last source: it counts
/// through them row-major.
fn decode(cx: &Cx<'_>, values: &mut Values, searched: &[usize]) -> Result<(), Unsupported> {
    let found = values.source(values.sources.len() - 1);
    let mut inner = 1i64;
    for (at, dim) in searched.iter().enumerate().rev() {
        let index = |values: &mut Values, number: i64| {
            values.constant(Number::Int(number.into()), DType::I64)
        };
        let mut value = found;
        if inner > 1 {
            let divisor = index(values, inner);
            value = values.zip(ZipFunction::Div, value, divisor)?;
        }
        if at > 0 {
            let Some(count) = cx.block[*dim].count.as_constant() else {
                let message = "a position in several loops of unknown extents";
                return Err(Unsupported::new(message));
            };
            let divisor = index(values, count);
            value = values.zip(ZipFunction::Rem, value, divisor)?;
            inner = inner.checked_mul(count).ok_or_else(Unsupported::overflow)?;
        }
        let start = &cx.block[*dim].start;
        if start.as_constant() != Some(0) {
            let offset = values.start(*dim);
            value = values.zip(ZipFunction::Add, value, offset)?;
        }
        values.indices.insert(*dim, value);
    }
    Ok(())
}
