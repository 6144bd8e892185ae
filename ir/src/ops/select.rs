//! Choice between two tensors, element by element.

use super::grad::unbroadcast;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError, arity};
use super::{broadcast_extents, broadcast_positions};
use crate::access::{Access, Combine, Expr, LoopDim, Read, Tiling, Write};
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::{DType, Type, broadcast_shapes};

op_struct! {
    /// `out[i] = a[i] if cond[i], else b[i]`: `select %cond, %a, %b : f32[4, 3]`. The condition is
    /// bool, a and b have one element type (any); shapes broadcast, aligned at the last dim. The
    /// element that is not chosen has no influence, not even as NaN.
    Select {}
}

fn result(args: &[Type]) -> Option<Type> {
    let shape = broadcast_shapes(args.iter().map(|ty| &ty.shape))?;
    Some(Type::new(args[1].dtype, shape))
}

impl OpDef for Select {
    const NAMES: &'static [&'static str] = &["select"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [cond, a, b] = arity(args)?;
        if cond.dtype != DType::Bool {
            type_error!("the condition must be bool, found {cond}");
        }
        if a.dtype != b.dtype {
            type_error!("operands have different element types: {a} and {b}");
        }
        match result(args) {
            Some(ty) => Ok(vec![ty]),
            None => type_error!("shapes do not broadcast: {cond}, {a} and {b}"),
        }
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (cond, a, b) = (&args[0], &args[1], &args[2]);
        let shape = broadcast_extents(&broadcast_extents(cond.shape(), a.shape()), b.shape());
        let at = |x: &Tensor| broadcast_positions(x.shape(), &shape);
        let positions = at(cond).into_iter().zip(at(a)).zip(at(b));
        let values = positions.map(|((c, i), j)| {
            if cond.get(c).to_bool() {
                a.get(i)
            } else {
                b.get(j)
            }
        });
        Ok(vec![Tensor::from_scalars(a.dtype(), &shape, values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let result = result(args).unwrap_or_else(|| args[1].clone());
        let dims = result.dims().iter().enumerate();
        let choice = [Expr::Operand(0), Expr::Operand(1), Expr::Operand(2)];
        Tiling::Loop(Access {
            dims: dims
                .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()))
                .collect(),
            operands: args
                .iter()
                .map(|ty| Read::broadcast(&ty.shape, result.rank()))
                .collect(),
            body: vec![Expr::Select(Box::new(choice))],
            combine: Combine::Assign,
            results: vec![Write::identity(&result)],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (cond, g) = (cx.args[0], cx.cotangents[0]);
        let ty = cx.b.ty(g).clone();
        if !ty.dtype.is_float() {
            return Ok(vec![None; 3]);
        }
        let zero = cx.b.scalar(ty.dtype, 0.0);
        let mut grads = vec![None];
        for (operand, choice) in [(1, [cond, g, zero]), (2, [cond, zero, g])] {
            let shape = cx.b.ty(cx.args[operand]).shape.clone();
            let full = cx.b.op(Select {}, &choice)?;
            grads.push(Some(unbroadcast(cx.b, full, &shape)?));
        }
        Ok(grads)
    }

    fn samples() -> Vec<Sample> {
        let select = |dtype, cond: &[u64], a: &[u64], b: &[u64]| {
            let args = [
                Type::of(DType::Bool, cond),
                Type::of(dtype, a),
                Type::of(dtype, b),
            ];
            Sample::new(Select {}, &args)
        };
        let mut samples: Vec<Sample> = [
            DType::F32,
            DType::Bf16,
            DType::F16,
            DType::F64,
            DType::I8,
            DType::U64,
            DType::Bool,
        ]
        .into_iter()
        .map(|dtype| select(dtype, &[2, 3], &[2, 3], &[2, 3]))
        .collect();
        samples.extend([
            select(DType::F32, &[3, 1], &[2, 1, 1], &[4]),
            select(DType::F32, &[], &[2, 1], &[]),
            select(DType::F32, &[2, 2], &[], &[1, 1, 1]),
            select(DType::I32, &[1], &[0], &[]),
            select(DType::Cfp8E4M3, &[4], &[4], &[4]),
            select(DType::F32, &[2], &[2], &[2])
                .given(
                    0,
                    Tensor::from_scalars(DType::Bool, &[2], [true, false].map(Scalar::Bool)),
                )
                .given(1, Tensor::from_vec(&[2], vec![1.0, f32::NAN]))
                .no_grad(),
        ]);
        samples
    }
}
