//! Softmax and its logarithm.

use super::compose::{cast, check_float, expand, offsets, others, reduce, rounded, widen};
use super::{
    EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, ReduceKind, Sample, Tolerance, TypeError,
    arity, check_axis,
};
use crate::access::Tiling;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::{BinaryFn, UnaryFn};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

op_struct! {
    /// Shares along one dim: `out[i] = exp(x[i] - m) / sum over j of exp(x[j] - m)`, where m is the
    /// largest x. 16-bit floats are computed in f32. Where all are -inf the result is NaN.
    Softmax {
        /// The dim whose shares add up to 1.
        axis: usize,
    }
}

op_struct! {
    /// The logarithm of `softmax`, without its rounding to zero: `out[i] = x[i] - m - log(sum over
    /// j of exp(x[j] - m))`, where m is the largest x. 16-bit floats are computed in f32.
    LogSoftmax {
        /// The dim along which exp of the result adds up to 1.
        axis: usize,
    }
}

fn infer(axis: usize, args: &[Type]) -> Result<Vec<Type>, TypeError> {
    let [x] = arity(args)?;
    check_float(x)?;
    check_axis(axis, x)?;
    Ok(vec![x.clone()])
}

/// Replaces every line of `x` along `axis` by what `f` makes of it, its largest element and the sum
/// of the exponentials of the distances from that.
fn lines(x: &Tensor, axis: usize, f: impl Fn(f64, f64, f64) -> f64) -> Vec<Tensor> {
    let mut values = x.to_f64s();
    let along = offsets(x.shape(), &[axis]);
    for start in offsets(x.shape(), &others(x.rank(), &[axis])) {
        let line = || along.iter().map(|step| start + step);
        let largest = line()
            .map(|at| values[at])
            .fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = line().map(|at| (values[at] - largest).exp()).sum();
        for at in line() {
            values[at] = f(values[at], largest, sum);
        }
    }
    vec![rounded(x.dtype(), x.shape(), values)]
}

/// The distances from the largest element along `axis` and the sum of their exponentials.
fn distances(
    b: &mut FunctionBuilder,
    x: ValueId,
    axis: usize,
) -> Result<(ValueId, ValueId, ValueId), TypeError> {
    let x = widen(b, x)?;
    let largest = reduce(b, ReduceKind::Max, x, &[axis])?;
    let distance = b.op(BinaryFn::Sub, &[x, largest])?;
    let exp = b.op(UnaryFn::Exp, &[distance])?;
    let sum = reduce(b, ReduceKind::Sum, exp, &[axis])?;
    Ok((distance, exp, sum))
}

fn sample_args() -> Vec<(Type, usize)> {
    let float = |shape: &[u64], axis| (Type::of(DType::F32, shape), axis);
    let mut args = vec![
        float(&[2, 3, 4], 2),
        float(&[2, 3, 4], 1),
        float(&[5, 2], 0),
        float(&[1], 0),
        float(&[3, 1], 1),
        float(&[3, 0], 1),
        float(&[0, 3], 1),
    ];
    for dtype in [DType::F64, DType::Bf16, DType::F16] {
        args.push((Type::of(dtype, &[3, 7]), 1));
    }
    args
}

/// Large values, a masked one, and a line that is masked altogether.
fn extreme() -> Tensor {
    const MASKED: f32 = f32::NEG_INFINITY;
    let values = vec![
        1e30, 1e30, -1e30, 0.0, MASKED, 100.0, MASKED, MASKED, MASKED,
    ];
    Tensor::from_vec(&[3, 3], values)
}

impl OpDef for Softmax {
    const NAMES: &'static [&'static str] = &["softmax"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        infer(self.axis, args)
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let share = |x: f64, largest: f64, sum| (x - largest).exp() / sum;
        Ok(lines(&args[0], self.axis, share))
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        expand(args, |b, inputs| {
            let (_, exp, sum) = distances(b, inputs[0], self.axis)?;
            let shares = b.op(BinaryFn::Div, &[exp, sum])?;
            cast(b, shares, args[0].dtype)
        })
    }

    /// `dx = y * (dy - sum of dy * y)`.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let b = &mut *cx.b;
        let dtype = b.ty(cx.args[0]).dtype;
        let y = widen(b, cx.results[0])?;
        let dy = widen(b, cx.cotangents[0])?;
        let product = b.op(BinaryFn::Mul, &[dy, y])?;
        let sum = reduce(b, ReduceKind::Sum, product, &[self.axis])?;
        let difference = b.op(BinaryFn::Sub, &[dy, sum])?;
        let dx = b.op(BinaryFn::Mul, &[y, difference])?;
        Ok(vec![Some(cast(b, dx, dtype)?)])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let mut samples: Vec<Sample> = (sample_args().into_iter())
            .map(|(ty, axis)| Sample::new(Softmax { axis }, &[ty]))
            .collect();
        let ty = Type::of(DType::F32, &[3, 3]);
        let masked = Sample::new(Softmax { axis: 1 }, &[ty]).given(0, extreme());
        samples.push(masked.no_grad());
        samples
    }
}

impl OpDef for LogSoftmax {
    const NAMES: &'static [&'static str] = &["log_softmax"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        infer(self.axis, args)
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let log = |x: f64, largest: f64, sum: f64| x - largest - sum.ln();
        Ok(lines(&args[0], self.axis, log))
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        expand(args, |b, inputs| {
            let (distance, _, sum) = distances(b, inputs[0], self.axis)?;
            let log = b.op(UnaryFn::Log, &[sum])?;
            let result = b.op(BinaryFn::Sub, &[distance, log])?;
            cast(b, result, args[0].dtype)
        })
    }

    /// `dx = dy - exp(y) * sum of dy`.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let b = &mut *cx.b;
        let dtype = b.ty(cx.args[0]).dtype;
        let y = widen(b, cx.results[0])?;
        let dy = widen(b, cx.cotangents[0])?;
        let shares = b.op(UnaryFn::Exp, &[y])?;
        let sum = reduce(b, ReduceKind::Sum, dy, &[self.axis])?;
        let product = b.op(BinaryFn::Mul, &[shares, sum])?;
        let dx = b.op(BinaryFn::Sub, &[dy, product])?;
        Ok(vec![Some(cast(b, dx, dtype)?)])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let mut samples: Vec<Sample> = (sample_args().into_iter())
            .map(|(ty, axis)| Sample::new(LogSoftmax { axis }, &[ty]))
            .collect();
        let ty = Type::of(DType::F32, &[3, 3]);
        let masked = Sample::new(LogSoftmax { axis: 1 }, &[ty]).given(0, extreme());
        samples.push(masked.no_grad());
        samples
    }
}
