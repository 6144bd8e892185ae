//! Attention that the model modifies, from the domain `ai.onnx.preview`.

use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::Softmax;
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, other};
use super::super::value::Operand;
use super::attention::{default_scale, products, softmax_precision};
use super::heads::Group;

pub(super) const OPS: &[OpEntry] = &[other(
    "ai.onnx.preview",
    "FlexAttention",
    &[(1, flex_attention)],
)];

/// Attention whose scores and weights pass through graphs of the node.
fn flex_attention(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    if [q, k, v].iter().any(|x| cx.rank(*x) != 4) {
        return Err(NodeError::invalid("the operands have not four dims"));
    }
    let (ty, result) = (cx.ty(q), cx.dtype(v));
    let group = Group::of(&ty.shape[1], &cx.dims(k)[1])?;
    let scale = match cx.float_opt("scale")? {
        Some(scale) => scale,
        None => default_scale(&ty)?,
    };
    let wide = if ty.dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    let precision = softmax_precision(cx)?.unwrap_or(wide);
    let scores = products(cx, q, k, &group, scale)?;
    let scores = cx.convert(scores, precision)?;
    let scores = modified(cx, "score_mod", scores)?;
    let weights = cx.op(Softmax { axis: 3 }, &[scores])?;
    let weights = modified(cx, "prob_mod", weights)?;
    let v = cx.convert(v, precision)?;
    let y = group.contract(cx, weights, v, 2)?;
    let y = cx.convert(y, result)?;
    cx.output(0, y);
    Ok(())
}

/// What the graph of this attribute makes of a value, if there is one.
fn modified(cx: &mut NodeCx<'_, '_>, name: &str, x: ValueId) -> NodeResult<ValueId> {
    if !cx.has_attr(name) {
        return Ok(x);
    }
    let graph = cx.graph(name)?;
    let results = cx.inline(graph, vec![Operand::Value(x)])?;
    let [result] = results.as_slice() else {
        return Err(NodeError::invalid(format!("`{name}` has not one output")));
    };
    let y = cx.imp.materialize(result)?;
    if cx.ty(y) != cx.ty(x) {
        let (before, after) = (cx.ty(x), cx.ty(y));
        return Err(NodeError::invalid(format!(
            "`{name}` makes {after} of {before}"
        )));
    }
    Ok(y)
}
