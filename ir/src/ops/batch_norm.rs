//! Normalisation by given statistics.

use super::compose::{
    cast, check_dtype, check_epsilon, check_float, expand, others, rounded, widen,
};
use super::{
    EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Reduce, ReduceKind, Reshape, Sample,
    Tolerance, TypeError, arity, check_axis,
};
use crate::access::Tiling;
use crate::attr::F64;
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::{BinaryFn, UnaryFn};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

op_struct! {
    /// `out = (x - mean[c]) / sqrt(variance[c] + epsilon) * scale[c] + bias[c]`, c being the index
    /// along one dim of x of extent C: batch normalisation with statistics that are known. Operands
    /// `(x, scale, bias, mean, variance)`, all but x of shape `[C]` and of the element type of x
    /// or, for 16-bit floats, f32, in which those are computed.
    BatchNorm {
        /// The dim of x that the other operands belong to.
        axis: usize,
        /// Added to the variance.
        epsilon: F64,
    }
}

/// The statistics in the accumulator type, as the formulas need them.
struct Parts {
    /// `x - mean`, of the shape of x.
    centred: ValueId,
    /// `scale`, of shape `[C]`.
    scale: ValueId,
    /// `1 / sqrt(variance + epsilon)`, of shape `[C]`.
    root: ValueId,
    /// `scale * root`, of a shape that broadcasts to x.
    factor: ValueId,
}

impl BatchNorm {
    /// A value of shape `[C]` with dims of extent 1 behind, so that it broadcasts to x.
    fn along(
        &self,
        b: &mut FunctionBuilder,
        value: ValueId,
        rank: usize,
    ) -> Result<ValueId, TypeError> {
        let mut shape = b.ty(value).dims().to_vec();
        shape.resize(rank - self.axis, Dim::Const(1));
        b.op(Reshape { shape }, &[value])
    }

    fn parts(&self, b: &mut FunctionBuilder, args: &[ValueId]) -> Result<Parts, TypeError> {
        let rank = b.ty(args[0]).rank();
        let x = widen(b, args[0])?;
        let scale = widen(b, args[1])?;
        let mean = widen(b, args[3])?;
        let variance = widen(b, args[4])?;
        let mean = self.along(b, mean, rank)?;
        let centred = b.op(BinaryFn::Sub, &[x, mean])?;
        let epsilon = b.scalar(b.ty(variance).dtype, self.epsilon.0);
        let sum = b.op(BinaryFn::Add, &[variance, epsilon])?;
        let root = b.op(UnaryFn::Rsqrt, &[sum])?;
        let factor = b.op(BinaryFn::Mul, &[scale, root])?;
        let factor = self.along(b, factor, rank)?;
        Ok(Parts {
            centred,
            scale,
            root,
            factor,
        })
    }

    /// Sums over all dims but that of the channels.
    fn sum(&self, b: &mut FunctionBuilder, value: ValueId) -> Result<ValueId, TypeError> {
        let sum = Reduce {
            kind: ReduceKind::Sum,
            axes: others(b.ty(value).rank(), &[self.axis]),
            keep: false,
        };
        b.op(sum, &[value])
    }
}

impl OpDef for BatchNorm {
    const NAMES: &'static [&'static str] = &["batch_norm"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, ..] = arity::<5>(args)?;
        check_float(x)?;
        check_axis(self.axis, x)?;
        check_epsilon(self.epsilon.0)?;
        for operand in &args[1..] {
            check_dtype(operand, x)?;
            if operand.dims() != [x.shape[self.axis].clone()] {
                let axis = self.axis;
                type_error!("expected one element per index of dim {axis} of {x}, found {operand}");
            }
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let channels = x.shape()[self.axis] as usize;
        let size = x.shape()[self.axis + 1..].iter().product::<u64>() as usize;
        let normalise = |(position, value): (usize, f64)| {
            let [scale, bias, mean, variance] =
                [1, 2, 3, 4].map(|n| args[n].get(position / size % channels).to_f64());
            (value - mean) / (variance + self.epsilon.0).sqrt() * scale + bias
        };
        let values = x.to_f64s().into_iter().enumerate().map(normalise).collect();
        Ok(vec![rounded(x.dtype(), x.shape(), values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        expand(args, |b, inputs| {
            let parts = self.parts(b, inputs)?;
            let bias = widen(b, inputs[2])?;
            let bias = self.along(b, bias, args[0].rank())?;
            let scaled = b.op(BinaryFn::Mul, &[parts.centred, parts.factor])?;
            let result = b.op(BinaryFn::Add, &[scaled, bias])?;
            cast(b, result, args[0].dtype)
        })
    }

    /// With r = 1 / sqrt(variance + epsilon), c = x - mean, D = sum of dy, P = sum of dy * c:
    /// `dx = dy * scale * r`, `dscale = P * r`, `dbias = D`, `dmean = -D * scale * r`,
    /// `dvariance = -P * scale * r^3 / 2`.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let dtypes: Vec<DType> = cx.args.iter().map(|arg| cx.b.ty(*arg).dtype).collect();
        let b = &mut *cx.b;
        let parts = self.parts(b, cx.args)?;
        let dy = widen(b, cx.cotangents[0])?;
        let dx = b.op(BinaryFn::Mul, &[dy, parts.factor])?;
        let product = b.op(BinaryFn::Mul, &[dy, parts.centred])?;
        let product = self.sum(b, product)?;
        let dscale = b.op(BinaryFn::Mul, &[product, parts.root])?;
        let dbias = self.sum(b, dy)?;
        let factor = b.op(BinaryFn::Mul, &[parts.scale, parts.root])?;
        let dmean = b.op(BinaryFn::Mul, &[dbias, factor])?;
        let dmean = b.op(UnaryFn::Neg, &[dmean])?;
        let square = b.op(BinaryFn::Mul, &[parts.root, factor])?;
        let half = b.scalar(b.ty(square).dtype, -0.5);
        let square = b.op(BinaryFn::Mul, &[square, half])?;
        let dvariance = b.op(BinaryFn::Mul, &[dscale, square])?;
        [dx, dscale, dbias, dmean, dvariance]
            .into_iter()
            .zip(dtypes)
            .map(|(grad, dtype)| Ok(Some(cast(b, grad, dtype)?)))
            .collect()
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let norm = |dtype, shape: &[u64], axis: usize| {
            let op = BatchNorm {
                axis,
                epsilon: F64(1e-5),
            };
            let channels = Type::of(dtype, &[shape[axis]]);
            let mut args = vec![Type::of(dtype, shape)];
            args.resize(5, channels);
            Sample::new(op, &args).range(4, 0.25, 2.0)
        };
        let mut mixed = norm(DType::Bf16, &[2, 3, 4], 1);
        for arg in &mut mixed.args[1..] {
            arg.ty = arg.ty.with_dtype(DType::F32);
        }
        vec![
            norm(DType::F32, &[2, 3, 2, 2], 1),
            norm(DType::F32, &[2, 2, 3], 2),
            norm(DType::F32, &[3], 0),
            norm(DType::F32, &[4, 1, 2], 1),
            norm(DType::F32, &[2, 3, 0], 1),
            norm(DType::F32, &[2, 0], 1),
            norm(DType::F64, &[2, 3], 1),
            norm(DType::F16, &[2, 3, 4], 1),
            mixed,
        ]
    }
}
