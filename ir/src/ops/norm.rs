//! Normalisations over dims of one tensor: layer, root-mean-square and group.

use super::compose::{
    cast, check_broadcasts, check_epsilon, check_float, expand, mean, offsets, others, rounded,
    widen,
};
use super::grad::unbroadcast;
use super::{
    EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError, arity,
    broadcast_position, check_axes,
};
use crate::access::Tiling;
use crate::attr::F64;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::{BinaryFn, UnaryFn};
use crate::tensor::{Tensor, indices};
use crate::types::{DType, Type};

op_struct! {
    /// `out = (x - mean) / sqrt(variance + epsilon) * scale + bias`, mean and (population) variance
    /// being taken over some dims. Operands `(x, scale, bias)`; scale and bias broadcast to x, of
    /// its element type or, for 16-bit floats, f32. 16-bit floats are computed in f32.
    LayerNorm {
        /// The dims over which mean and variance are taken.
        axes: Vec<usize>,
        /// Added to the variance.
        epsilon: F64,
    }
}

op_struct! {
    /// `out = x / sqrt(mean of x^2 + epsilon) * scale`, the mean being taken over some dims.
    /// Operands `(x, scale)`; scale broadcasts to x, of its element type or, for 16-bit floats,
    /// f32. 16-bit floats are computed in f32.
    RmsNorm {
        /// The dims over which the mean is taken.
        axes: Vec<usize>,
        /// Added to the mean square.
        epsilon: F64,
    }
}

/// What layer and root-mean-square norms share.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    /// The dims over which statistics are taken.
    pub(crate) axes: &'a [usize],
    /// Added to the mean square.
    pub(crate) epsilon: f64,
    /// Whether the mean is subtracted first.
    pub(crate) centred: bool,
}

/// The parts of a normalisation that its gradient needs.
struct Normalised {
    /// The normalised values.
    values: ValueId,
    /// `1 / sqrt(variance + epsilon)`.
    factor: ValueId,
}

impl Norm<'_> {
    fn infer(self, x: &Type, others: &[Type]) -> Result<Vec<Type>, TypeError> {
        check_float(x)?;
        check_axes(self.axes, x)?;
        check_epsilon(self.epsilon)?;
        for operand in others {
            check_broadcasts(operand, x)?;
        }
        Ok(vec![x.clone()])
    }

    /// The normalised values.
    pub(crate) fn eval(self, shape: &[u64], mut values: Vec<f64>) -> Vec<f64> {
        let inside = offsets(shape, self.axes);
        let count = inside.len() as f64;
        for start in offsets(shape, &others(shape.len(), self.axes)) {
            let group = || inside.iter().map(|step| start + step);
            if self.centred {
                let mean = group().map(|at| values[at]).sum::<f64>() / count;
                group().for_each(|at| values[at] -= mean);
            }
            let square = group().map(|at| values[at].powi(2)).sum::<f64>() / count;
            let root = (square + self.epsilon).sqrt();
            group().for_each(|at| values[at] /= root);
        }
        values
    }

    /// Builds the normalisation of an `x` in its accumulator type.
    fn build(self, b: &mut FunctionBuilder, x: ValueId) -> Result<Normalised, TypeError> {
        let centred = if self.centred {
            let mean = mean(b, x, self.axes)?;
            b.op(BinaryFn::Sub, &[x, mean])?
        } else {
            x
        };
        let squares = b.op(BinaryFn::Mul, &[centred, centred])?;
        let variance = mean(b, squares, self.axes)?;
        let epsilon = b.scalar(b.ty(x).dtype, self.epsilon);
        let sum = b.op(BinaryFn::Add, &[variance, epsilon])?;
        let factor = b.op(UnaryFn::Rsqrt, &[sum])?;
        let values = b.op(BinaryFn::Mul, &[centred, factor])?;
        Ok(Normalised { values, factor })
    }

    /// Builds the normalised, scaled and shifted values; the result has the element type of `x`.
    pub(crate) fn expand(
        self,
        b: &mut FunctionBuilder,
        x: ValueId,
        scale: ValueId,
        bias: Option<ValueId>,
    ) -> Result<ValueId, TypeError> {
        let dtype = b.ty(x).dtype;
        let wide = widen(b, x)?;
        let values = self.build(b, wide)?.values;
        let scale = widen(b, scale)?;
        let mut result = b.op(BinaryFn::Mul, &[values, scale])?;
        if let Some(bias) = bias {
            let bias = widen(b, bias)?;
            result = b.op(BinaryFn::Add, &[result, bias])?;
        }
        cast(b, result, dtype)
    }

    /// Builds the gradients with respect to x, scale and bias, each of the type of its operand.
    ///
    /// With n the normalised values, r the factor and g = dy * scale:
    /// `dx = r * (g - mean(g) - n * mean(g * n))`, without mean(g) if not centred;
    /// `dscale = sum of dy * n`; `dbias = sum of dy`.
    pub(crate) fn grad(
        self,
        b: &mut FunctionBuilder,
        [x, scale, dy]: [ValueId; 3],
        bias: Option<ValueId>,
    ) -> Result<Grads, TypeError> {
        let dtype = b.ty(x).dtype;
        let (scale_ty, bias_ty) = (b.ty(scale).clone(), bias.map(|bias| b.ty(bias).clone()));
        let wide = widen(b, x)?;
        let Normalised { values, factor } = self.build(b, wide)?;
        let dy = widen(b, dy)?;
        let scale = widen(b, scale)?;
        let g = b.op(BinaryFn::Mul, &[dy, scale])?;
        let along = b.op(BinaryFn::Mul, &[g, values])?;
        let along = mean(b, along, self.axes)?;
        let along = b.op(BinaryFn::Mul, &[values, along])?;
        let mut dx = b.op(BinaryFn::Sub, &[g, along])?;
        if self.centred {
            let mean = mean(b, g, self.axes)?;
            dx = b.op(BinaryFn::Sub, &[dx, mean])?;
        }
        let dx = b.op(BinaryFn::Mul, &[dx, factor])?;
        let dx = cast(b, dx, dtype)?;
        let dscale = b.op(BinaryFn::Mul, &[dy, values])?;
        let dscale = unbroadcast(b, dscale, &scale_ty.shape)?;
        let mut grads = vec![Some(dx), Some(cast(b, dscale, scale_ty.dtype)?)];
        if let Some(ty) = bias_ty {
            let dbias = unbroadcast(b, dy, &ty.shape)?;
            grads.push(Some(cast(b, dbias, ty.dtype)?));
        }
        Ok(grads)
    }
}

/// `values[i] * scale[i] + bias[i]`, scale and bias broadcasting to `shape`.
fn scaled(shape: &[u64], values: &mut [f64], scale: &Tensor, bias: Option<&Tensor>) {
    for (index, value) in indices(shape).zip(values) {
        let at = |t: &Tensor| t.get(broadcast_position(&index, t.shape())).to_f64();
        *value = *value * at(scale) + bias.map_or(0.0, at);
    }
}

impl LayerNorm {
    fn norm(&self) -> Norm<'_> {
        Norm {
            axes: &self.axes,
            epsilon: self.epsilon.0,
            centred: true,
        }
    }
}

impl OpDef for LayerNorm {
    const NAMES: &'static [&'static str] = &["layer_norm"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, ..] = arity::<3>(args)?;
        self.norm().infer(x, &args[1..])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let mut values = self.norm().eval(x.shape(), x.to_f64s());
        scaled(x.shape(), &mut values, &args[1], Some(&args[2]));
        Ok(vec![rounded(x.dtype(), x.shape(), values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        expand(args, |b, inputs| {
            self.norm().expand(b, inputs[0], inputs[1], Some(inputs[2]))
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let operands = [cx.args[0], cx.args[1], cx.cotangents[0]];
        Ok(self.norm().grad(cx.b, operands, Some(cx.args[2]))?)
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(8.0)
    }

    fn samples() -> Vec<Sample> {
        let norm = |dtype, shape: &[u64], axes: &[usize], scale: &[u64], bias: &[u64]| {
            let op = LayerNorm {
                axes: axes.to_vec(),
                epsilon: F64(1e-5),
            };
            let args = [shape, scale, bias].map(|shape| Type::of(dtype, shape));
            Sample::new(op, &args)
        };
        let mut mixed = norm(DType::Bf16, &[3, 16], &[1], &[16], &[16]);
        mixed.args[1].ty = Type::of(DType::F32, &[16]);
        mixed.args[2].ty = Type::of(DType::F32, &[16]);
        vec![
            norm(DType::F32, &[3, 8], &[1], &[8], &[8]),
            norm(DType::F32, &[2, 3, 4], &[2, 1], &[3, 4], &[4]),
            norm(DType::F32, &[2, 6, 3], &[1], &[6, 1], &[2, 1, 1]),
            norm(DType::F32, &[5], &[0], &[], &[1]),
            norm(DType::F32, &[4, 1], &[1], &[1], &[1]),
            norm(DType::F32, &[4, 0], &[1], &[0], &[1]),
            norm(DType::F32, &[0, 4], &[1], &[4], &[4]),
            norm(DType::F64, &[3, 8], &[1], &[8], &[8]),
            norm(DType::Bf16, &[3, 16], &[1], &[16], &[16]),
            norm(DType::F16, &[3, 16], &[1], &[16], &[16]),
            mixed,
        ]
    }
}

impl RmsNorm {
    fn norm(&self) -> Norm<'_> {
        Norm {
            axes: &self.axes,
            epsilon: self.epsilon.0,
            centred: false,
        }
    }
}

impl OpDef for RmsNorm {
    const NAMES: &'static [&'static str] = &["rms_norm"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, scale] = arity(args)?;
        self.norm().infer(x, std::slice::from_ref(scale))
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let mut values = self.norm().eval(x.shape(), x.to_f64s());
        scaled(x.shape(), &mut values, &args[1], None);
        Ok(vec![rounded(x.dtype(), x.shape(), values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        expand(args, |b, inputs| {
            self.norm().expand(b, inputs[0], inputs[1], None)
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let operands = [cx.args[0], cx.args[1], cx.cotangents[0]];
        Ok(self.norm().grad(cx.b, operands, None)?)
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(8.0)
    }

    fn samples() -> Vec<Sample> {
        let norm = |dtype, shape: &[u64], axes: &[usize], scale: &[u64]| {
            let op = RmsNorm {
                axes: axes.to_vec(),
                epsilon: F64(1e-6),
            };
            Sample::new(op, &[Type::of(dtype, shape), Type::of(dtype, scale)])
        };
        vec![
            norm(DType::F32, &[3, 8], &[1], &[8]),
            norm(DType::F32, &[2, 3, 4], &[0, 2], &[2, 1, 4]),
            norm(DType::F32, &[4, 1], &[1], &[]),
            norm(DType::F32, &[4, 0], &[1], &[0]),
            norm(DType::F32, &[0, 4], &[1], &[4]),
            norm(DType::F64, &[7], &[0], &[7]),
            norm(DType::Bf16, &[3, 16], &[1], &[16]),
            norm(DType::F16, &[3, 16], &[1], &[16]),
        ]
    }
}
