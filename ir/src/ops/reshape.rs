//! The same elements under other extents.

use super::movement::{constants, may_equal};
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError, arity};
use crate::access::{Tiling, View};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::Tensor;
use crate::types::{DType, Shape, Type};

op_struct! {
    /// The elements of x in the same row-major order under the extents `shape`:
    /// `reshape {shape = [6, 4]} %x`.
    ///
    /// The number of elements must be that of x. Where symbols keep that from being known it is
    /// checked when they have values.
    Reshape {
        /// Extents of the result.
        shape: Vec<Dim>,
    }
}

impl OpDef for Reshape {
    const NAMES: &'static [&'static str] = &["reshape"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        let shape = Shape::new(self.shape.iter().cloned());
        let (Some(before), Some(after)) = (x.shape.elements(), shape.elements()) else {
            type_error!("{x} or {shape} has more elements than 64 bits count");
        };
        if !may_equal(&before, &after) {
            type_error!("{x} has {before} elements, {shape} has {after}");
        }
        Ok(vec![Type::new(x.dtype, shape)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let shape = constants(&self.shape)?;
        Ok(vec![args[0].reshape(&shape)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        Tiling::View(View::of(args[0].dims(), &self.shape))
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let shape = cx.b.ty(cx.args[0]).dims().to_vec();
        Ok(vec![Some(cx.b.op(Reshape { shape }, &[cx.cotangents[0]])?)])
    }

    fn samples() -> Vec<Sample> {
        let sample = |dtype, from: &[u64], to: &[u64]| {
            let shape = to.iter().map(|&d| Dim::Const(d)).collect();
            Sample::new(Reshape { shape }, &[Type::of(dtype, from)])
        };
        vec![
            sample(DType::F32, &[2, 3, 4], &[6, 4]),
            sample(DType::F32, &[6, 4], &[8, 3]),
            sample(DType::I64, &[4, 6], &[2, 12]),
            sample(DType::Bf16, &[3, 4], &[3, 2, 1, 2]),
            sample(DType::Bool, &[1, 5, 1], &[5]),
            sample(DType::F32, &[], &[1, 1]),
            sample(DType::U8, &[1], &[]),
            sample(DType::F32, &[2, 6, 4, 5], &[2, 8, 3, 5]),
            sample(DType::F32, &[0, 3], &[5, 0]),
            sample(DType::F32, &[12], &[12]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_trusted_only_where_they_can_fit() {
        let n = Dim::symbol("n", 64);
        let x = Type::new(DType::F32, Shape::new([n.clone(), Dim::Const(4)]));
        let infer = |shape: Vec<Dim>| Reshape { shape }.infer(std::slice::from_ref(&x), &[]);
        assert!(infer(vec![Dim::Const(2), n.mul(&Dim::Const(2)).unwrap()]).is_ok());
        assert!(infer(vec![n.floor_div(&Dim::Const(2)).unwrap(), Dim::Const(8)]).is_ok());
        assert!(
            infer(vec![Dim::Const(300)]).is_err(),
            "there are at most 256"
        );
        let more = n.mul(&Dim::Const(4)).unwrap().offset(1).unwrap();
        assert!(infer(vec![more]).is_err());
    }
}
