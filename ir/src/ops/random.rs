//! Random bits that depend on what is drawn and not on who draws.

use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Reshape, Sample, TypeError, arity};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Read, Tiling, Write};
use crate::dim::Dim;
use crate::formats::random_bits;
use crate::graph::{FunctionBuilder, RegionType};
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::{DType, Shape, Type};

op_struct! {
    /// Uniform random bits: `random_bits {shape = [2, 3], site = 7} %seed, %step : u32[2, 3]`.
    ///
    /// The element at row-major index i is `random_bits(seed, step, site, i)`, a pure function of
    /// the seed of the run (u64), its step (u64), the place that draws and the element, by the
    /// counter-based generator Philox4x64-10. However the tensor is split, the bits are the same.
    RandomBits {
        /// Extents.
        shape: Vec<Dim>,
        /// Which of the places that draw with one seed this is.
        site: u64,
    }
}

impl RandomBits {
    fn result(&self) -> Type {
        Type::new(DType::U32, Shape::new(self.shape.iter().cloned()))
    }

    /// The same bits in one dim of `count` elements, then in the shape.
    fn flat_then_reshape(&self, args: &[Type], count: Dim) -> Result<Tiling, TypeError> {
        let mut b = FunctionBuilder::new("random_bits");
        let operands: Vec<_> = args.iter().map(|ty| b.param(ty.clone(), None)).collect();
        let flat = RandomBits {
            shape: vec![count],
            site: self.site,
        };
        let flat = b.op(flat, &operands)?;
        let shaped = b.op(
            Reshape {
                shape: self.shape.clone(),
            },
            &[flat],
        )?;
        Ok(Tiling::Expand(b.finish_unnamed(&[shaped])))
    }
}

impl OpDef for RandomBits {
    const NAMES: &'static [&'static str] = &["random_bits"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [seed, step] = arity(args)?;
        for (name, ty) in [("seed", seed), ("step", step)] {
            if *ty != Type::scalar(DType::U64) {
                type_error!("the {name} must be u64[], found {ty}");
            }
        }
        if self.result().shape.elements().is_none() {
            type_error!("{} has more elements than 64 bits count", self.result());
        }
        Ok(vec![self.result()])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let Some(shape) = self.result().shape.as_const() else {
            return Err(EvalError::value("the shape is symbolic"));
        };
        let [seed, step] = [0, 1].map(|operand| args[operand].get(0).to_int() as u64);
        let count = shape.iter().product::<u64>();
        let bits: Vec<u32> = (0..count)
            .map(|i| random_bits(seed, step, self.site, i))
            .collect();
        Ok(vec![Tensor::from_vec(&shape, bits)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let ty = self.result();
        let count = ty.shape.elements().unwrap_or(Dim::Const(0));
        if ty.rank() != 1
            && let Ok(tiling) = self.flat_then_reshape(args, count.clone())
        {
            return tiling;
        }
        let draw = [
            Expr::Operand(0),
            Expr::Operand(1),
            Expr::Index(0, DType::U64),
        ];
        Tiling::Loop(Access {
            dims: vec![LoopDim::parallel("i", count)],
            operands: vec![Read::inside(vec![]), Read::inside(vec![])],
            body: vec![Expr::RandomBits(self.site, Box::new(draw))],
            combine: Combine::Assign,
            results: vec![Write {
                index: vec![Affine::dim(0)],
                ..Write::identity(&ty)
            }],
        })
    }

    fn grad(&self, _cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        Ok(vec![None, None])
    }

    fn samples() -> Vec<Sample> {
        let draw = |shape: &[u64], site, seed: u64, step: u64| {
            let shape = shape.iter().map(|&d| Dim::Const(d)).collect();
            let scalar = |x: u64| Tensor::scalar(DType::U64, Scalar::Int(x.into()));
            let args = [Type::scalar(DType::U64), Type::scalar(DType::U64)];
            Sample::new(RandomBits { shape, site }, &args)
                .given(0, scalar(seed))
                .given(1, scalar(step))
        };
        vec![
            draw(&[37], 7, 1, 2),
            draw(&[2, 3, 5], u64::MAX, u64::MAX, 1 << 63),
            draw(&[], 0, 0, 0),
            draw(&[1], 3, 9, 9),
            draw(&[4, 0], 0, 5, 0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    #[test]
    fn elements_are_numbered_in_row_major_order_and_all_coordinates_count() {
        let run = |shape: &[u64], site, seed: u64, step: u64| {
            let shape = shape.iter().map(|&d| Dim::Const(d)).collect();
            let args = [seed, step].map(|x| Tensor::scalar(DType::U64, Scalar::Int(x.into())));
            let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
            let op = Op::from(RandomBits { shape, site });
            op.eval(&args, &mut EvalCx::new(&mut none))
                .unwrap()
                .remove(0)
        };
        let base = run(&[3, 4], 1, 2, 3);
        assert_eq!(base.get(7).to_int(), random_bits(2, 3, 1, 7).into());
        assert_eq!(base.bytes(), run(&[12], 1, 2, 3).bytes());
        for other in [
            run(&[3, 4], 2, 2, 3),
            run(&[3, 4], 1, 3, 3),
            run(&[3, 4], 1, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }
}
