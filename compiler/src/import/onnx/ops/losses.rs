//! Losses of classifications.

use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Gather, GatherElements, LogSoftmax, ReduceKind};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};

pub(super) const OPS: &[OpEntry] = &[
    onnx(
        "NegativeLogLikelihoodLoss",
        &[(12, negative_log_likelihood)],
    ),
    onnx("SoftmaxCrossEntropyLoss", &[(12, softmax_cross_entropy)]),
];

fn negative_log_likelihood(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let x = cx.input(0)?;
    let loss = loss(cx, x)?;
    cx.output(0, loss);
    Ok(())
}

fn softmax_cross_entropy(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let x = cx.input(0)?;
    let x = cx.op(LogSoftmax { axis: 1 }, &[x])?;
    let loss = loss(cx, x)?;
    cx.output(0, loss);
    cx.output(1, x);
    Ok(())
}

/// The loss of logarithms of probabilities `x [N, C, d..]` for the targets `[N, d..]`.
fn loss(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
    cx.expect_inputs(2, 3)?;
    let reduction = cx.string("reduction", "mean")?;
    let ignored = cx.int_opt("ignore_index")?;
    let mut target = cx.input(1)?;
    let dtype = cx.dtype(x);
    if cx.rank(x) < 2 || cx.rank(target) + 1 != cx.rank(x) {
        let (x, target) = (cx.ty(x), cx.ty(target));
        return Err(NodeError::invalid(format!(
            "targets {target} do not fit scores {x}"
        )));
    }
    target = cx.convert(target, DType::I64)?;
    let skip = match ignored {
        None => None,
        Some(ignored) => {
            let ignored = cx.constant(Tensor::from_vec(&[], vec![ignored]));
            let skip = cx.binary(BinaryFn::Eq, target, ignored)?;
            // The class that is ignored need not exist.
            let any = cx.scalar(DType::I64, 0.0)?;
            target = cx.select(skip, any, target)?;
            Some(skip)
        }
    };
    let index = cx.unsqueeze(target, &[1])?;
    let picked = cx.op(GatherElements { axis: 1 }, &[x, index])?;
    let picked = cx.squeeze(picked, &[1])?;
    let mut loss = cx.unary(UnaryFn::Neg, picked)?;
    let mut weights = match cx.optional(2)? {
        None => None,
        Some(weights) => Some(cx.op(Gather { axis: 0 }, &[weights, target])?),
    };
    let zero = cx.scalar(dtype, 0.0)?;
    if let Some(skip) = skip {
        let counted = match weights {
            Some(weights) => weights,
            None => cx.scalar(dtype, 1.0)?,
        };
        weights = Some(cx.select(skip, zero, counted)?);
    }
    if let Some(weights) = weights {
        loss = cx.binary(BinaryFn::Mul, loss, weights)?;
    }
    if let Some(skip) = skip {
        // Also where the score is not finite.
        loss = cx.select(skip, zero, loss)?;
    }
    let all: Vec<usize> = (0..cx.rank(loss)).collect();
    match (reduction.as_str(), weights) {
        ("none", _) => Ok(loss),
        ("sum", _) => cx.reduce(ReduceKind::Sum, loss, &all, false),
        ("mean", None) => cx.mean(loss, &all, false),
        ("mean", Some(weights)) => {
            let sum = cx.reduce(ReduceKind::Sum, loss, &all, false)?;
            let total = cx.reduce(ReduceKind::Sum, weights, &all, false)?;
            cx.binary(BinaryFn::Div, sum, total)
        }
        (other, _) => Err(NodeError::invalid(format!("`reduction` is `{other}`"))),
    }
}
