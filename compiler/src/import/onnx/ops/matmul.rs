//! Matrix products.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::Dot;
use dojoc_ir::scalar::BinaryFn;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::conv::wide;

pub(super) const OPS: &[OpEntry] = &[onnx("MatMul", &[(1, matmul)]), onnx("Gemm", &[(1, gemm)])];

fn matmul(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let y = product(cx, a, b)?;
    cx.output(0, y);
    Ok(())
}

/// The product as `numpy.matmul` defines it: vectors are rows or columns, and the dims before the
/// last two broadcast. Where all of these are on one side they are rows, so that nothing is copied.
pub(super) fn product(cx: &mut NodeCx<'_, '_>, a: ValueId, b: ValueId) -> NodeResult<ValueId> {
    let (left, right) = (cx.dims(a), cx.dims(b));
    if left.is_empty() || right.is_empty() {
        return Err(NodeError::invalid("a scalar has no matrix product"));
    }
    let contract = |l: usize, r: usize| vec![(l, r)];
    if right.len() <= 2 {
        // The rows of the left operand are all of its dims but the last.
        let dot = Dot {
            batch: vec![],
            contract: contract(left.len() - 1, 0),
            out: None,
        };
        return cx.op(dot, &[a, b]);
    }
    if left.len() == 1 {
        let batch = right.len() - 2;
        let dot = Dot {
            batch: vec![],
            contract: contract(0, batch),
            out: None,
        };
        return cx.op(dot, &[a, b]);
    }
    let rank = left.len().max(right.len());
    let pad = |dims: &[Dim]| [vec![Dim::Const(1); rank - dims.len()], dims.to_vec()].concat();
    let (mut left, mut right) = (pad(&left), pad(&right));
    let (mut a, mut b) = (cx.reshape(a, left.clone())?, cx.reshape(b, right.clone())?);
    for axis in 0..rank - 2 {
        let (l, r) = (left[axis].clone(), right[axis].clone());
        if l.is(1) {
            left[axis] = r;
        } else if r.is(1) {
            right[axis] = l;
        } else if l != r {
            let (a, b) = (cx.ty(a), cx.ty(b));
            return Err(NodeError::invalid(format!("{a} and {b} do not broadcast")));
        }
    }
    a = cx.broadcast(a, left)?;
    b = cx.broadcast(b, right)?;
    cx.op(Dot::matmul(rank), &[a, b])
}

/// `alpha * A' B' + beta * C`.
fn gemm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 3)?;
    // Before operator set 7 broadcasting had to be asked for.
    cx.ignore_attrs(&["broadcast"]);
    let (left, right) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let (alpha, beta) = (cx.float("alpha", 1.0)?, cx.float("beta", 1.0)?);
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    if cx.rank(a) != 2 || cx.rank(b) != 2 {
        return Err(NodeError::invalid("the operands are not matrices"));
    }
    // With more to do 16-bit floats are rounded once, at the end.
    let dtype = cx.dtype(a);
    let simple = alpha == 1.0 && !(cx.has(2) && beta != 0.0);
    let wide = wide(dtype).filter(|_| !simple);
    let dot = Dot {
        batch: vec![],
        contract: vec![(if left { 0 } else { 1 }, if right { 1 } else { 0 })],
        out: wide,
    };
    let mut y = cx.op(dot, &[a, b])?;
    if alpha != 1.0 {
        y = cx.with_scalar(BinaryFn::Mul, y, alpha)?;
    }
    if let Some(mut c) = cx.optional(2)?
        && beta != 0.0
    {
        if let Some(wide) = wide {
            c = cx.convert(c, wide)?;
        }
        if beta != 1.0 {
            c = cx.with_scalar(BinaryFn::Mul, c, beta)?;
        }
        let shape = cx.dims(y);
        y = cx.binary(BinaryFn::Add, y, c)?;
        if cx.dims(y) != shape {
            return Err(NodeError::invalid("C does not broadcast to the product"));
        }
    }
    let y = cx.convert(y, dtype)?;
    cx.output(0, y);
    Ok(())
}
