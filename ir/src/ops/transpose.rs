//! Permutation of dims.

use super::movement::strided;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError};
use super::{arity, check_axes};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Read, Tiling, Write};
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::{Tensor, strides};
use crate::types::{DType, Shape, Type};

op_struct! {
    /// Permutes dims: dim i of the result is dim `perm[i]` of x,
    /// `out[i_0, i_1, ..] = x[j]` where `j[perm[d]] = i_d`.
    Transpose {
        /// For every dim of the result the dim of x that it is; each dim of x once.
        perm: Vec<usize>,
    }
}

impl Transpose {
    /// The permutation that undoes this one.
    pub fn inverse(&self) -> Self {
        let mut perm = vec![0; self.perm.len()];
        for (to, from) in self.perm.iter().enumerate() {
            perm[*from] = to;
        }
        Self { perm }
    }

    /// The permutation that moves dim `from` to position `to` and keeps the order of the others.
    pub(crate) fn moving(rank: usize, from: usize, to: usize) -> Self {
        let mut perm: Vec<usize> = (0..rank).filter(|d| *d != from).collect();
        perm.insert(to, from);
        Self { perm }
    }

    fn result(&self, x: &Type) -> Type {
        let dims = self.perm.iter().map(|d| x.shape[*d].clone());
        Type::new(x.dtype, Shape::new(dims))
    }
}

impl OpDef for Transpose {
    const NAMES: &'static [&'static str] = &["transpose"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        if self.perm.len() != x.rank() {
            type_error!(
                "{} dims are permuted, {x} has {}",
                self.perm.len(),
                x.rank()
            );
        }
        check_axes(&self.perm, x)?;
        Ok(vec![self.result(x)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let strides = strides(x.shape());
        let shape: Vec<u64> = self.perm.iter().map(|d| x.shape()[*d]).collect();
        let steps: Vec<i64> = self.perm.iter().map(|d| strides[*d] as i64).collect();
        Ok(vec![strided(x, &shape, 0, &steps)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let result = self.result(&args[0]);
        let dims = result.dims().iter().enumerate();
        let index = self.inverse().perm.into_iter().map(Affine::dim);
        Tiling::Loop(Access {
            dims: dims
                .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()))
                .collect(),
            operands: vec![Read::inside(index.collect())],
            body: vec![Expr::Operand(0)],
            combine: Combine::Assign,
            results: vec![Write::identity(&result)],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        Ok(vec![Some(cx.b.op(self.inverse(), &[cx.cotangents[0]])?)])
    }

    fn samples() -> Vec<Sample> {
        let sample = |dtype, shape: &[u64], perm: &[usize]| {
            let perm = perm.to_vec();
            Sample::new(Transpose { perm }, &[Type::of(dtype, shape)])
        };
        vec![
            sample(DType::F32, &[2, 3], &[1, 0]),
            sample(DType::F32, &[2, 3, 4], &[2, 0, 1]),
            sample(DType::Bf16, &[2, 1, 3, 2], &[0, 3, 1, 2]),
            sample(DType::I64, &[3, 0], &[1, 0]),
            sample(DType::Bool, &[], &[]),
            sample(DType::Cfp8E4M3, &[4, 2], &[1, 0]),
        ]
    }
}
