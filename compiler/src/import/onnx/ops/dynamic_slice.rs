//! Slices whose place is known at run time only.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::{ValueDef, ValueId};
use dojoc_ir::ops::{Compress, Gather, Op};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};

/// How many nodes are followed to see how two positions relate.
const MAX_STEPS: usize = 16;

/// A position as another one plus a constant: `x[i : i + 2]` has bounds with one base.
fn base_and_offset(cx: &NodeCx<'_, '_>, mut value: ValueId) -> (ValueId, i128) {
    let mut offset = 0;
    for _ in 0..MAX_STEPS {
        let func = cx.imp.b.func();
        let ValueDef::Result(node, _) = func.values[value].def else {
            break;
        };
        let node = &func.nodes[node];
        let constant = |value: ValueId| cx.const_of(value).map(|t| t.get(0).to_int());
        let (next, more) = match (&node.op, &node.args[..]) {
            // All values here have one element, which stays the same.
            (Op::Reshape(_), [x]) => (*x, 0),
            (Op::Binary(op), [a, b]) if op.0 == BinaryFn::Add => match (constant(*a), constant(*b))
            {
                (_, Some(more)) => (*a, more),
                (Some(more), None) => (*b, more),
                (None, None) => break,
            },
            (Op::Binary(op), [a, b]) if op.0 == BinaryFn::Sub => match constant(*b) {
                Some(less) => (*a, -less),
                None => break,
            },
            _ => break,
        };
        if func.values[next].ty.shape.max_elements() != Some(1) {
            break;
        }
        value = next;
        offset += more;
    }
    (value, offset)
}

/// A Slice of which the axes and steps are constants, the bounds not.
pub(super) fn slice(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let (x, starts, ends) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let count = match cx.dims(starts)[..] {
        [Dim::Const(count)] if cx.dims(ends) == [Dim::Const(count)] => count,
        _ => return Err(NodeError::invalid("the starts and ends differ in length")),
    };
    let axes = cx.optional_ints(3, "the axes")?;
    let axes = axes.unwrap_or_else(|| (0..i64::try_from(count).unwrap_or(0)).collect());
    let axes = cx.axes(&axes, cx.rank(x))?;
    let steps = cx.optional_ints(4, "the steps")?.unwrap_or_default();
    if steps.iter().any(|step| *step != 1) {
        return Err(
            NodeError::unsupported("a step with bounds that are computed at run time")
                .help("a step of 1, or bounds that are constants"),
        );
    }
    let mut y = x;
    for (position, axis) in (0..count).zip(axes) {
        let start = cx.slice(starts, 0, position, 1)?;
        let end = cx.slice(ends, 0, position, 1)?;
        y = part(cx, y, axis, [start, end])?;
    }
    cx.output(0, y);
    Ok(())
}

/// Part of a dim from `start` to before `end`, which have one element each.
///
/// Where both are known to be a constant apart, that many elements are taken, and a place beyond
/// the dim is an error of the run, where ONNX takes fewer. Otherwise the extent of the result is
/// data-dependent, and at most that of the dim.
fn part(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    axis: usize,
    bounds: [ValueId; 2],
) -> NodeResult<ValueId> {
    let mut scalars = [x; 2];
    for (scalar, bound) in scalars.iter_mut().zip(bounds) {
        let bound = cx.reshape_to(bound, &[])?;
        *scalar = cx.convert(bound, DType::I64)?;
    }
    let [start, end] = scalars;
    let ((base, low), (other, high)) = (base_and_offset(cx, start), base_and_offset(cx, end));
    if base == other
        && let Ok(size) = u64::try_from(high - low)
    {
        let steps = cx.iota(DType::I64, vec![Dim::Const(size)], 0)?;
        let indices = cx.binary(BinaryFn::Add, steps, start)?;
        return cx.op(Gather { axis }, &[x, indices]);
    }
    let dim = cx.dims(x)[axis].clone();
    let extent = cx.data_extent(0, Some(dim.max_extent()))?;
    let count = match dim.as_const() {
        Some(count) => cx.scalar(DType::I64, count as f64)?,
        None => cx.imp.count_ones(dim.clone(), DType::I64, true)?,
    };
    let position = cx.iota(DType::I64, vec![dim], 0)?;
    let mut inside = None;
    for (f, bound) in [(BinaryFn::Ge, start), (BinaryFn::Lt, end)] {
        // A negative bound counts from the end.
        let negative = cx.with_scalar(BinaryFn::Lt, bound, 0.0)?;
        let from_end = cx.binary(BinaryFn::Add, bound, count)?;
        let bound = cx.select(negative, from_end, bound)?;
        let fits = cx.binary(f, position, bound)?;
        inside = Some(match inside {
            Some(inside) => cx.binary(BinaryFn::And, inside, fits)?,
            None => fits,
        });
    }
    let Some(inside) = inside else {
        return Err(NodeError::invalid("no bounds"));
    };
    cx.op(Compress { axis, extent }, &[x, inside])
}
