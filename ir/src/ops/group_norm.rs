//! Normalisation over groups of channels.

use super::compose::{check_dtype, check_epsilon, check_float, expand, rounded};
use super::norm::Norm;
use super::{
    EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Reshape, Sample, Tolerance, TypeError, arity,
};
use crate::access::Tiling;
use crate::attr::F64;
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::tensor::Tensor;
use crate::types::{DType, Shape, Type};

op_struct! {
    /// `out = (x - mean) / sqrt(variance + epsilon) * scale + bias`, mean and (population) variance
    /// being taken, for each n, over one group of channels and all that follows. Operands
    /// `(x: [N, C, ..], scale: [C], bias: [C])`; as many groups as channels is instance
    /// normalisation. Scale and bias have the element type of x or, for 16-bit floats, f32, in
    /// which those are computed.
    GroupNorm {
        /// Number of groups; it divides the number of channels.
        groups: u64,
        /// Added to the variance.
        epsilon: F64,
    }
}

impl GroupNorm {
    /// The shapes `[N, groups, C / groups, ..]` of x and `[groups, C / groups, 1..]` of the scale.
    fn shapes(&self, x: &Type) -> Result<[Vec<Dim>; 2], TypeError> {
        let [n, channels, spatial @ ..] = x.dims() else {
            type_error!("expected at least two dims, found {x}");
        };
        let inside = match channels.as_const() {
            Some(c) => (c.checked_rem(self.groups) == Some(0)).then(|| Dim::Const(c / self.groups)),
            None => (self.groups == 1).then(|| channels.clone()),
        };
        let Some(inside) = inside else {
            type_error!("{channels} channels do not make {} groups", self.groups);
        };
        let group = [Dim::Const(self.groups), inside];
        let whole = [n.clone()].into_iter().chain(group.clone());
        let ones = spatial.iter().map(|_| Dim::Const(1));
        Ok([
            whole.chain(spatial.iter().cloned()).collect(),
            group.into_iter().chain(ones).collect(),
        ])
    }

    /// The dims of the grouped x over which statistics are taken, for an x of rank `rank`.
    fn axes(rank: usize) -> Vec<usize> {
        (2..=rank).collect()
    }

    /// Calls `build` with the normalisation and the operands as groups, scale and bias broadcasting
    /// to x.
    fn grouped<T>(
        &self,
        b: &mut FunctionBuilder,
        args: &[ValueId],
        build: impl FnOnce(&mut FunctionBuilder, Norm<'_>, &[ValueId]) -> Result<T, TypeError>,
    ) -> Result<T, TypeError> {
        let x = b.ty(args[0]).clone();
        let [whole, channels] = self.shapes(&x)?;
        let shapes = [whole, channels.clone(), channels];
        let args = (args.iter().zip(shapes))
            .map(|(arg, shape)| b.op(Reshape { shape }, &[*arg]))
            .collect::<Result<Vec<_>, _>>()?;
        let axes = Self::axes(x.rank());
        let norm = Norm {
            axes: &axes,
            epsilon: self.epsilon.0,
            centred: true,
        };
        build(b, norm, &args)
    }
}

impl OpDef for GroupNorm {
    const NAMES: &'static [&'static str] = &["group_norm"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, scale, bias] = arity(args)?;
        check_float(x)?;
        check_epsilon(self.epsilon.0)?;
        self.shapes(x)?;
        for operand in [scale, bias] {
            check_dtype(operand, x)?;
            if operand.dims() != [x.shape[1].clone()] {
                type_error!("expected one element per channel of {x}, found {operand}");
            }
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let [whole, _] = (self.shapes(&x.ty())).map_err(|e| EvalError::value(e.0))?;
        let shape = Shape::new(whole).as_const().unwrap_or_default();
        let axes = Self::axes(x.rank());
        let norm = Norm {
            axes: &axes,
            epsilon: self.epsilon.0,
            centred: true,
        };
        let mut values = norm.eval(&shape, x.to_f64s());
        let channels = x.shape()[1] as usize;
        let size = x.shape()[2..].iter().product::<u64>() as usize;
        for (position, value) in values.iter_mut().enumerate() {
            let channel = position / size % channels;
            *value = *value * args[1].get(channel).to_f64() + args[2].get(channel).to_f64();
        }
        Ok(vec![rounded(x.dtype(), x.shape(), values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        expand(args, |b, inputs| {
            let result = self.grouped(b, inputs, |b, norm, args| {
                norm.expand(b, args[0], args[1], Some(args[2]))
            })?;
            let shape = args[0].dims().to_vec();
            b.op(Reshape { shape }, &[result])
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let dy = cx.cotangents[0];
        let grads = self.grouped(cx.b, cx.args, |b, norm, args| {
            let shape = b.ty(args[0]).dims().to_vec();
            let dy = b.op(Reshape { shape }, &[dy])?;
            norm.grad(b, [args[0], args[1], dy], Some(args[2]))
        })?;
        (grads.into_iter().zip(cx.args))
            .map(|(grad, arg)| {
                let shape = cx.b.ty(*arg).dims().to_vec();
                let back = |grad| cx.b.op(Reshape { shape }, &[grad]);
                Ok(grad.map(back).transpose()?)
            })
            .collect()
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(8.0)
    }

    fn samples() -> Vec<Sample> {
        let norm = |dtype, groups, shape: &[u64]| {
            let op = GroupNorm {
                groups,
                epsilon: F64(1e-3),
            };
            let channels = Type::of(dtype, &shape[1..2]);
            Sample::new(op, &[Type::of(dtype, shape), channels.clone(), channels])
        };
        vec![
            norm(DType::F32, 2, &[2, 4, 3]),
            norm(DType::F32, 1, &[2, 3, 2, 2]),
            norm(DType::F32, 3, &[1, 3, 2, 3]),
            norm(DType::F32, 2, &[3, 6]),
            norm(DType::F32, 2, &[2, 4, 0]),
            norm(DType::F32, 2, &[0, 4, 3]),
            norm(DType::F64, 2, &[1, 4, 1, 5]),
            norm(DType::Bf16, 2, &[2, 4, 5]),
            norm(DType::F16, 4, &[2, 4, 5]),
        ]
    }
}
