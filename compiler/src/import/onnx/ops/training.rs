//! Optimizers, from the domain `ai.onnx.preview.training`.

use dojoc_ir::graph::ValueId;
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, other};

const DOMAIN: &str = "ai.onnx.preview.training";

pub(super) const OPS: &[OpEntry] = &[
    other(DOMAIN, "Momentum", &[(1, momentum)]),
    other(DOMAIN, "Adam", &[(1, adam)]),
    other(DOMAIN, "Adagrad", &[(1, adagrad)]),
];

fn float_required(cx: &mut NodeCx<'_, '_>, name: &str) -> NodeResult<f64> {
    cx.float_opt(name)?
        .ok_or_else(|| NodeError::invalid(format!("attribute `{name}` is missing")))
}

/// The operands are the learning rate, the number of updates so far, then `kinds` lists of tensors
/// of the same length: the tensors to optimize, their gradients, and what the optimizer remembers.
/// `update` gives for the n-th of each the new tensor and the new memories; the results are lists
/// of these.
fn each(
    cx: &mut NodeCx<'_, '_>,
    kinds: usize,
    mut update: impl FnMut(&mut NodeCx<'_, '_>, &[ValueId]) -> NodeResult<Vec<ValueId>>,
) -> NodeResult {
    let inputs = cx.all_inputs()?;
    let tensors = inputs.get(2..).unwrap_or_default();
    if tensors.is_empty() || tensors.len() % kinds != 0 {
        let found = inputs.len();
        let message = format!("expected 2 and a multiple of {kinds} operands, found {found}");
        return Err(NodeError::invalid(message));
    }
    let count = tensors.len() / kinds;
    for index in 0..count {
        let own: Vec<ValueId> = (0..kinds)
            .map(|kind| tensors[kind * count + index])
            .collect();
        for (kind, value) in update(cx, &own)?.into_iter().enumerate() {
            cx.output(kind * count + index, value);
        }
    }
    Ok(())
}

/// The gradient with that of the penalty on the size of the tensor.
fn regularized(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    gradient: ValueId,
    coefficient: f64,
) -> NodeResult<ValueId> {
    let penalty = cx.with_scalar(BinaryFn::Mul, x, coefficient)?;
    cx.binary(BinaryFn::Add, penalty, gradient)
}

/// `a * x + b * y`.
fn blend(
    cx: &mut NodeCx<'_, '_>,
    (a, x): (f64, ValueId),
    (b, y): (f64, ValueId),
) -> NodeResult<ValueId> {
    let x = cx.with_scalar(BinaryFn::Mul, x, a)?;
    let y = cx.with_scalar(BinaryFn::Mul, y, b)?;
    cx.binary(BinaryFn::Add, x, y)
}

/// `x - rate * step`, the rate in the element type of `x`.
fn descend(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    rate: ValueId,
    step: ValueId,
) -> NodeResult<ValueId> {
    let rate = cx.convert(rate, cx.dtype(x))?;
    let distance = cx.binary(BinaryFn::Mul, rate, step)?;
    cx.binary(BinaryFn::Sub, x, distance)
}

/// The learning rate and the number of updates so far, as scalars.
fn schedule(cx: &mut NodeCx<'_, '_>) -> NodeResult<(ValueId, ValueId)> {
    let (rate, count) = (cx.input(0)?, cx.input(1)?);
    Ok((cx.reshape_to(rate, &[])?, cx.reshape_to(count, &[])?))
}

fn momentum(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let alpha = float_required(cx, "alpha")?;
    let beta = float_required(cx, "beta")?;
    let coefficient = float_required(cx, "norm_coefficient")?;
    let nesterov = match cx.string("mode", "")?.as_str() {
        "standard" => false,
        "nesterov" => true,
        mode => return Err(NodeError::invalid(format!("`mode` is `{mode}`"))),
    };
    let (rate, count) = schedule(cx)?;
    let started = cx.with_scalar(BinaryFn::Gt, count, 0.0)?;
    each(cx, 3, |cx, own| {
        let (x, gradient, velocity) = (own[0], own[1], own[2]);
        let gradient = regularized(cx, x, gradient, coefficient)?;
        // The first gradient counts in full.
        let later = cx.scalar(cx.dtype(x), beta)?;
        let first = cx.scalar(cx.dtype(x), 1.0)?;
        let share = cx.select(started, later, first)?;
        let kept = cx.with_scalar(BinaryFn::Mul, velocity, alpha)?;
        let added = cx.binary(BinaryFn::Mul, share, gradient)?;
        let velocity = cx.binary(BinaryFn::Add, kept, added)?;
        let step = match nesterov {
            true => blend(cx, (1.0, gradient), (alpha, velocity))?,
            false => velocity,
        };
        Ok(vec![descend(cx, x, rate, step)?, velocity])
    })
}

/// `1 - base ^ exponent`.
fn remaining(cx: &mut NodeCx<'_, '_>, base: f64, exponent: ValueId) -> NodeResult<ValueId> {
    let dtype = cx.dtype(exponent);
    let (base, one) = (cx.scalar(dtype, base)?, cx.scalar(dtype, 1.0)?);
    let power = cx.binary(BinaryFn::Pow, base, exponent)?;
    cx.binary(BinaryFn::Sub, one, power)
}

fn adam(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let alpha = cx.float("alpha", 0.9)?;
    let beta = cx.float("beta", 0.999)?;
    let epsilon = cx.float("epsilon", 1e-6)?;
    let coefficient = cx.float("norm_coefficient", 0.0)?;
    let after = cx.float("norm_coefficient_post", 0.0)?;
    let (rate, count) = schedule(cx)?;
    let started = cx.with_scalar(BinaryFn::Gt, count, 0.0)?;
    // 1 - beta ^ t loses digits near 1.
    let exponent = cx.convert(count, DType::F64)?;
    let second = remaining(cx, beta, exponent)?;
    let second = cx.unary(UnaryFn::Sqrt, second)?;
    let first = remaining(cx, alpha, exponent)?;
    let plain = cx.convert(rate, DType::F64)?;
    let corrected = cx.binary(BinaryFn::Mul, plain, second)?;
    let corrected = cx.binary(BinaryFn::Div, corrected, first)?;
    let rate = cx.select(started, corrected, plain)?;
    each(cx, 4, |cx, own| {
        let (x, gradient, mean, square) = (own[0], own[1], own[2], own[3]);
        let gradient = regularized(cx, x, gradient, coefficient)?;
        let mean = blend(cx, (alpha, mean), (1.0 - alpha, gradient))?;
        let energy = cx.binary(BinaryFn::Mul, gradient, gradient)?;
        let square = blend(cx, (beta, square), (1.0 - beta, energy))?;
        let root = cx.unary(UnaryFn::Sqrt, square)?;
        let root = cx.with_scalar(BinaryFn::Add, root, epsilon)?;
        let step = cx.binary(BinaryFn::Div, mean, root)?;
        let mut x = descend(cx, x, rate, step)?;
        if after != 0.0 {
            x = cx.with_scalar(BinaryFn::Mul, x, 1.0 - after)?;
        }
        Ok(vec![x, mean, square])
    })
}

fn adagrad(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let decay = cx.float("decay_factor", 0.0)?;
    let epsilon = cx.float("epsilon", 1e-6)?;
    let coefficient = cx.float("norm_coefficient", 0.0)?;
    let (rate, count) = schedule(cx)?;
    let count = cx.convert(count, cx.dtype(rate))?;
    let slowed = cx.with_scalar(BinaryFn::Mul, count, decay)?;
    let slowed = cx.with_scalar(BinaryFn::Add, slowed, 1.0)?;
    let rate = cx.binary(BinaryFn::Div, rate, slowed)?;
    each(cx, 3, |cx, own| {
        let (x, gradient, square) = (own[0], own[1], own[2]);
        let gradient = regularized(cx, x, gradient, coefficient)?;
        let energy = cx.binary(BinaryFn::Mul, gradient, gradient)?;
        let square = cx.binary(BinaryFn::Add, square, energy)?;
        let root = cx.unary(UnaryFn::Sqrt, square)?;
        let root = cx.with_scalar(BinaryFn::Add, root, epsilon)?;
        let step = cx.binary(BinaryFn::Div, gradient, root)?;
        Ok(vec![descend(cx, x, rate, step)?, square])
    })
}
