//! Repetition along dims.

use super::grad::unbroadcast;
use super::movement::{constants, strided};
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError, arity};
use crate::access::{Access, Combine, Expr, LoopDim, Read, Tiling, Write};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::{Tensor, strides};
use crate::types::{DType, Shape, Type};

op_struct! {
    /// Repeats x to exactly the extents `shape`: aligned at the last dim, dims of extent 1 and
    /// dims that x does not have are repeated; the others must be equal.
    Broadcast {
        /// Extents of the result.
        shape: Vec<Dim>,
    }
}

impl OpDef for Broadcast {
    const NAMES: &'static [&'static str] = &["broadcast"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        let shape = Shape::new(self.shape.iter().cloned());
        let fits = shape.rank().checked_sub(x.rank()).is_some_and(|skip| {
            let mut pairs = x.dims().iter().zip(&self.shape[skip..]);
            pairs.all(|(from, to)| from == to || from.is(1))
        });
        if !fits {
            type_error!("{x} does not broadcast to {shape}");
        }
        Ok(vec![Type::new(x.dtype, shape)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, shape) = (&args[0], constants(&self.shape)?);
        let mut steps = vec![0; shape.len() - x.rank()];
        for (extent, stride) in x.shape().iter().zip(strides(x.shape())) {
            steps.push(if *extent == 1 { 0 } else { stride as i64 });
        }
        Ok(vec![strided(x, &shape, 0, &steps)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let result = Type::new(args[0].dtype, Shape::new(self.shape.iter().cloned()));
        let dims = result.dims().iter().enumerate();
        Tiling::Loop(Access {
            dims: dims
                .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()))
                .collect(),
            operands: vec![Read::broadcast(&args[0].shape, result.rank())],
            body: vec![Expr::Operand(0)],
            combine: Combine::Assign,
            results: vec![Write::identity(&result)],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let shape = cx.b.ty(cx.args[0]).shape.clone();
        Ok(vec![Some(unbroadcast(cx.b, cx.cotangents[0], &shape)?)])
    }

    fn samples() -> Vec<Sample> {
        let sample = |dtype, from: &[u64], to: &[u64]| {
            let shape = to.iter().map(|&d| Dim::Const(d)).collect();
            Sample::new(Broadcast { shape }, &[Type::of(dtype, from)])
        };
        vec![
            sample(DType::F32, &[3, 1], &[3, 4]),
            sample(DType::F32, &[1, 3], &[2, 5, 3]),
            sample(DType::Bf16, &[], &[2, 2]),
            sample(DType::I64, &[1], &[0]),
            sample(DType::Bool, &[2, 1], &[2, 1]),
            sample(DType::F32, &[], &[]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_that_do_not_stretch_are_refused() {
        let n = Dim::symbol("n", 8);
        let x = Type::new(DType::F32, Shape::new([n.clone(), Dim::Const(1)]));
        let infer = |shape: &[Dim]| {
            let shape = shape.to_vec();
            Broadcast { shape }.infer(std::slice::from_ref(&x), &[])
        };
        assert!(infer(&[n.clone(), Dim::Const(4)]).is_ok());
        assert!(infer(&[Dim::Const(4), Dim::Const(4)]).is_err());
        assert!(infer(std::slice::from_ref(&n)).is_err(), "a dim is lost");
    }
}
