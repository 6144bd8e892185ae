//! Reductions and running combinations.

use dojoc_ir::access::{Access, Combine, DimKind, Expr, Monoid};
use dojoc_ir::attr::{Flag, Number};
use dojoc_ir::program::instr::reduce::{Reduce, ReduceFunction, Scan, ScanFunction};
use dojoc_ir::program::instr::vector::{Zip, ZipFunction};
use dojoc_ir::program::{MAX_VIEW_RANK, Unit};
use dojoc_ir::types::DType;

use super::Local;
use super::assign::{Evaluation, convert, fill, operand_places, result_place};
use super::nest::{Axis, Cx, Place, axes, merged, size, spill, window};
use super::values::{Values, is_float};
use crate::emit::Unsupported;

/// Loops of a kind.
pub(super) fn dims_of(access: &Access, kind: DimKind) -> Vec<usize> {
    let dims = access.dims.iter().enumerate();
    dims.filter(|(_, dim)| dim.kind == kind)
        .map(|(at, _)| at)
        .collect()
}

/// The name of a monoid in messages.
fn monoid_name(monoid: Monoid) -> &'static str {
    match monoid {
        Monoid::Sum => "sum",
        Monoid::Prod => "product",
        Monoid::Max => "maximum",
        Monoid::Min => "minimum",
        Monoid::ArgMax { .. } => "position of the maximum",
        Monoid::ArgMin { .. } => "position of the minimum",
    }
}

fn function(monoid: Monoid, dtype: DType) -> Result<ReduceFunction, Unsupported> {
    Ok(match monoid {
        Monoid::Max if dtype == DType::Bool => ReduceFunction::Or,
        Monoid::Min if dtype == DType::Bool => ReduceFunction::And,
        _ if !is_float(dtype) && !dtype.is_int() => return Err(no_function(monoid, dtype)),
        Monoid::Sum => ReduceFunction::Sum,
        Monoid::Prod => ReduceFunction::Prod,
        Monoid::Max => ReduceFunction::Max,
        Monoid::Min => ReduceFunction::Min,
        Monoid::ArgMax { .. } | Monoid::ArgMin { .. } => return Err(no_function(monoid, dtype)),
    })
}

fn no_function(monoid: Monoid, dtype: DType) -> Unsupported {
    Unsupported::new(format!("the {} of {dtype}", monoid_name(monoid)))
}

/// The same combination of two values.
fn zip_function(function: ReduceFunction) -> ZipFunction {
    match function {
        ReduceFunction::Sum => ZipFunction::Add,
        ReduceFunction::Prod => ZipFunction::Mul,
        ReduceFunction::Min => ZipFunction::Min,
        ReduceFunction::Max => ZipFunction::Max,
        ReduceFunction::And => ZipFunction::And,
        ReduceFunction::Or => ZipFunction::Or,
    }
}

/// Where the values of a body lie: those of an operand that is only widened are read as they are,
/// since instructions widen 16-bit floats themselves.
pub(super) fn body_place(
    cx: &mut Cx<'_>,
    body: &Expr,
    dtype: DType,
    places: &[Place],
) -> Result<Place, Unsupported> {
    let mut values = Values::new(places.iter().map(|place| place.dtype));
    if let Expr::Convert(to, x) = body
        && let Expr::Operand(operand) = **x
        && *to == DType::F32
        && is_float(places[operand].dtype)
    {
        return Ok(places[operand].clone());
    }
    let root = values.of(body)?;
    let root = values.convert(dtype, root)?;
    Evaluation::new(cx, &values, places).place(root)
}

/// Emits a reduction.
pub(super) fn emit(
    cx: &mut Cx<'_>,
    access: &Access,
    operands: &[Local],
    results: &[Local],
) -> Result<(), Unsupported> {
    let Combine::Reduce(monoid, dtype) = access.combine else {
        return Err(Unsupported::new("a reduction without a monoid"));
    };
    let places = operand_places(cx, access, operands)?;
    let ([body], [write], [local]) = (access.body.as_slice(), access.results.as_slice(), results)
    else {
        return Err(Unsupported::new("a reduction of several values at once"));
    };
    let function = function(monoid, dtype)?;
    let result = result_place(cx, write, local)?;
    let x = body_place(cx, body, dtype, &places)?;
    let kept = dims_of(access, DimKind::Parallel);
    check_kept(cx, access, &kept, &result)?;
    let summed = dims_of(access, DimKind::Reduction);
    let parts = Parts {
        function,
        kept,
        summed,
        identity: monoid.identity(dtype)[0].into(),
    };
    let direct = result.dtype == x.dtype || (result.dtype == DType::F32 && is_float(x.dtype));
    if parts.along_lanes(cx, &x, &result) {
        return parts.by_lanes(cx, &x, &result, dtype);
    }
    if direct && parts.emit(cx, &x, &result, false)? {
        return Ok(());
    }
    // Through f32 (or the type of the reduction), rounded once.
    let sums = cx.scratch("sums", dtype, &parts.kept)?;
    parts.emit(cx, &x, &sums, true)?;
    convert(cx, &result, &sums, &parts.kept)
}

/// Every parallel loop must have its elements in the result.
pub(super) fn check_kept(
    cx: &Cx<'_>,
    access: &Access,
    kept: &[usize],
    result: &Place,
) -> Result<(), Unsupported> {
    let lost = |dim: &&usize| !result.varies(**dim) && cx.block[**dim].max > 1;
    match kept.iter().find(lost) {
        None => Ok(()),
        Some(dim) => {
            let name = &access.dims[*dim].name;
            Err(Unsupported::new(format!(
                "a result without the parallel loop `{name}`"
            )))
        }
    }
}

/// A reduction of a value over some loops.
pub(super) struct Parts {
    pub function: ReduceFunction,
    pub kept: Vec<usize>,
    pub summed: Vec<usize>,
    pub identity: Number,
}

impl Parts {
    /// Whether lanes are better filled by elements of the result than by those that are combined:
    /// neighbours in memory belong to different results, or few are combined.
    fn along_lanes(&self, cx: &Cx<'_>, x: &Place, y: &Place) -> bool {
        let count = |dims: &[usize]| {
            dims.iter()
                .map(|dim| cx.block[*dim].max as f64)
                .product::<f64>()
        };
        let (kept, summed) = (count(&self.kept), count(&self.summed));
        let beside = |dims: &[usize]| {
            let mut steps = axes(cx.block, dims, &[x])
                .into_iter()
                .map(|axis| axis.steps[0]);
            steps.any(|step| step.unsigned_abs() == x.dtype.bytes())
        };
        let lanes = 64.0 / x.dtype.bytes() as f64;
        let dense = beside(&self.kept) && y.dtype.bytes() <= 4;
        let by_lanes = summed * (20.0 + (kept / lanes).ceil());
        let along_rows =
            kept * 5.0 + kept * summed / if beside(&self.summed) { lanes } else { 4.0 };
        kept > 1.0 && dense && by_lanes < along_rows
    }

    /// Combines slices of x into the result one after the other.
    fn by_lanes(
        &self,
        cx: &mut Cx<'_>,
        x: &Place,
        result: &Place,
        dtype: DType,
    ) -> Result<(), Unsupported> {
        let exact = !matches!(self.function, ReduceFunction::Sum | ReduceFunction::Prod);
        let carried = if exact { x.dtype } else { dtype };
        let y = match result.dtype == carried {
            true => result.clone(),
            false => cx.scratch("sums", carried, &self.kept)?,
        };
        fill(cx, &y, self.identity, &self.kept)?;
        let term = match x.dtype == carried {
            true => None,
            false => Some(cx.scratch("term", carried, &self.kept)?),
        };
        let mut places = vec![&y, x];
        places.extend(&term);
        let mut kept = axes(cx.block, &self.kept, &places);
        kept.sort_by_key(|axis| std::cmp::Reverse(axis.steps[0].unsigned_abs()));
        let mut kept = merged(kept);
        let mut loops = spill(&mut kept, MAX_VIEW_RANK);
        loops.extend(merged(axes(cx.block, &self.summed, &places)));
        if kept.is_empty() {
            kept.push(Axis::one(places.len()));
        }
        let offsets = places.iter().map(|place| place.offset.clone()).collect();
        let zip = Zip {
            function: zip_function(self.function),
            value: None,
        };
        cx.nest(Unit::Vector, &loops, offsets, &mut |cx, offsets| {
            let at = |which: usize| window(places[which], &offsets[which], &kept, which);
            let (y, mut x) = (at(0), at(1));
            let loc = cx.loc;
            if places.len() > 2 {
                let convert = super::assign::conversion();
                cx.seg
                    .compute(Unit::Vector, convert, &[at(2), x], Vec::new(), loc);
                x = at(2);
            }
            cx.seg.compute(
                Unit::Vector,
                zip.clone(),
                &[y.clone(), y, x],
                Vec::new(),
                loc,
            );
            Ok(())
        })?;
        match &y == result {
            true => Ok(()),
            false => convert(cx, result, &y, &self.kept),
        }
    }

    /// Emits the instruction with loops for what it has no room for. Where that needs to accumulate
    /// onto a 16-bit result, nothing is emitted unless `force` says that the result is not one; false
    /// then.
    pub fn emit(
        &self,
        cx: &mut Cx<'_>,
        x: &Place,
        y: &Place,
        force: bool,
    ) -> Result<bool, Unsupported> {
        let mut outer = axes(cx.block, &self.kept, &[y, x]);
        outer.sort_by_key(|axis| std::cmp::Reverse(axis.steps[0].unsigned_abs()));
        let mut outer = merged(outer);
        let mut inner = axes(cx.block, &self.summed, &[y, x]);
        inner.sort_by_key(|axis| std::cmp::Reverse(axis.steps[1].unsigned_abs()));
        let mut inner = merged(inner);
        if inner.is_empty() {
            inner.push(Axis::one(2));
        }
        let accumulated = spill(&mut inner, MAX_VIEW_RANK);
        if !accumulated.is_empty() && !force && is_float(y.dtype) && size(y.dtype) < 4 {
            return Ok(false);
        }
        let mut loops = spill(&mut outer, MAX_VIEW_RANK - inner.len());
        let accumulate = Flag(!accumulated.is_empty());
        if *accumulate {
            fill(cx, y, self.identity, &self.kept)?;
        }
        loops.extend(accumulated);
        let offsets = vec![y.offset.clone(), x.offset.clone()];
        let instr = Reduce {
            function: self.function,
            dims: inner.len(),
            accumulate,
        };
        let all = [outer.as_slice(), &inner].concat();
        cx.nest(Unit::Vector, &loops, offsets, &mut |cx, offsets| {
            let operands = [
                window(y, &offsets[0], &outer, 0),
                window(x, &offsets[1], &all, 1),
            ];
            let loc = cx.loc;
            cx.seg
                .compute(Unit::Vector, instr.clone(), &operands, Vec::new(), loc);
            Ok(())
        })?;
        Ok(true)
    }
}

/// Emits a running combination.
pub(super) fn emit_scan(
    cx: &mut Cx<'_>,
    access: &Access,
    operands: &[Local],
    results: &[Local],
) -> Result<(), Unsupported> {
    let Combine::Scan {
        monoid,
        dtype,
        exclusive,
    } = access.combine
    else {
        return Err(Unsupported::new("a running combination without a monoid"));
    };
    if !is_float(dtype) && !dtype.is_int() {
        return Err(Unsupported::new(format!(
            "the running {} of {dtype}",
            monoid_name(monoid)
        )));
    }
    let function = match monoid {
        Monoid::Sum => ScanFunction::Sum,
        Monoid::Prod => ScanFunction::Prod,
        Monoid::Max => ScanFunction::Max,
        Monoid::Min => ScanFunction::Min,
        Monoid::ArgMax { .. } | Monoid::ArgMin { .. } => {
            return Err(Unsupported::new(format!(
                "the running {}",
                monoid_name(monoid)
            )));
        }
    };
    let places = operand_places(cx, access, operands)?;
    let ([body], [write], [local]) = (access.body.as_slice(), access.results.as_slice(), results)
    else {
        return Err(Unsupported::new(
            "a running combination of several values at once",
        ));
    };
    let result = result_place(cx, write, local)?;
    let mut kept = dims_of(access, DimKind::Parallel);
    let sequential = dims_of(access, DimKind::Sequential);
    let [along] = sequential.as_slice() else {
        return Err(Unsupported::new(
            "a running combination along several loops",
        ));
    };
    let x = body_place(cx, body, dtype, &places)?;
    kept.push(*along);
    check_kept(cx, access, &kept, &result)?;
    kept.pop();
    let y = match result.dtype == x.dtype {
        true => result.clone(),
        false => cx.scratch("running", x.dtype, &cx.all_dims())?,
    };
    let mut outer = merged(axes(cx.block, &kept, &[&y, &x]));
    let loops = spill(&mut outer, MAX_VIEW_RANK - 1);
    let row = axes(cx.block, &[*along], &[&y, &x]).pop();
    outer.push(row.unwrap_or_else(|| Axis::one(2)));
    let offsets = vec![y.offset.clone(), x.offset.clone()];
    let instr = Scan {
        function,
        exclusive: Flag(exclusive),
        reverse: Flag(false),
    };
    cx.nest(Unit::Vector, &loops, offsets, &mut |cx, offsets| {
        let operands = [
            window(&y, &offsets[0], &outer, 0),
            window(&x, &offsets[1], &outer, 1),
        ];
        let loc = cx.loc;
        cx.seg
            .compute(Unit::Vector, instr.clone(), &operands, Vec::new(), loc);
        Ok(())
    })?;
    match y == result {
        true => Ok(()),
        false => {
            let dims = cx.all_dims();
            convert(cx, &result, &y, &dims)
        }
    }
}
