//! Tensors side by side.

use super::Slice;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError, check_axis};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Outside, Read, Tiling, Write};
use crate::dim::{Dim, Poly};
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::{Element, Tensor};
use crate::types::{DType, Shape, Type};
use crate::with_element;

op_struct! {
    /// One or more tensors side by side along a dim: the result holds the first operand, then the
    /// second and so on. All other extents are equal.
    Concat {
        /// The dim.
        axis: usize,
    }
}

impl Concat {
    fn result(&self, args: &[Type]) -> Result<Type, TypeError> {
        let Some(first) = args.first() else {
            type_error!("expected at least one operand");
        };
        check_axis(self.axis, first)?;
        let mut extent = Dim::Const(0);
        for ty in args {
            let same = |d: usize| d == self.axis || ty.shape[d] == first.shape[d];
            if ty.dtype != first.dtype || ty.rank() != first.rank() {
                type_error!("{first} and {ty} have different element types or ranks");
            }
            if !(0..ty.rank()).all(same) {
                type_error!("{first} and {ty} differ outside dim {}", self.axis);
            }
            extent = match extent.add(&ty.shape[self.axis]) {
                Some(sum) => sum,
                None => type_error!("the extent of the result does not fit 64 bits"),
            };
        }
        let mut dims = first.dims().to_vec();
        dims[self.axis] = extent;
        Ok(Type::new(first.dtype, Shape::new(dims)))
    }
}

impl OpDef for Concat {
    const NAMES: &'static [&'static str] = &["concat"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        Ok(vec![self.result(args)?])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let mut shape = args[0].shape().to_vec();
        shape[self.axis] = args.iter().map(|x| x.shape()[self.axis]).sum();
        let outer: u64 = shape[..self.axis].iter().product();
        fn join<T: Element>(args: &[Tensor], outer: usize, shape: &[u64]) -> Tensor {
            let parts: Vec<_> = args.iter().map(|x| x.stored::<T>()).collect();
            let mut data = Vec::with_capacity(shape.iter().product::<u64>() as usize);
            for row in 0..outer {
                for part in &parts {
                    let length = part.len() / outer;
                    data.extend_from_slice(&part[row * length..(row + 1) * length]);
                }
            }
            Tensor::from_stored(args[0].dtype(), shape, data)
        }
        Ok(vec![with_element!(args[0].dtype(), T => {
            join::<T>(args, outer as usize, &shape)
        })])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        // The shape rule has accepted the operands, so the fallback is never used.
        let result = self.result(args).unwrap_or_else(|_| args[0].clone());
        let dims = result.dims().iter().enumerate();
        let mut offset = Poly::default();
        let mut operands = vec![];
        for ty in args {
            let mut index: Vec<Affine> = (0..ty.rank()).map(Affine::dim).collect();
            index[self.axis].offset = offset.clone();
            let outside = Outside::Nothing;
            operands.push(Read { index, outside });
            let extent = ty.shape[self.axis].to_poly().unwrap_or_default();
            offset = offset.sub(&extent).unwrap_or_default();
        }
        Tiling::Loop(Access {
            dims: dims
                .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()))
                .collect(),
            operands,
            body: vec![Expr::FirstOf((0..args.len()).map(Expr::Operand).collect())],
            combine: Combine::Assign,
            results: vec![Write::identity(&result)],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let mut at = Dim::Const(0);
        let mut grads = vec![];
        for arg in cx.args {
            let size = cx.b.ty(*arg).dims().to_vec();
            let mut start = vec![Dim::Const(0); size.len()];
            start[self.axis] = at.clone();
            let extent = &size[self.axis];
            at = match at.add(extent) {
                Some(end) => end,
                None => return Err(TypeError::new("an offset does not fit 64 bits").into()),
            };
            let step = vec![1; size.len()];
            let slice = Slice { start, size, step };
            grads.push(Some(cx.b.op(slice, &[cx.cotangents[0]])?));
        }
        Ok(grads)
    }

    fn samples() -> Vec<Sample> {
        let sample = |axis, dtype, shapes: &[&[u64]]| {
            let types: Vec<Type> = shapes.iter().map(|s| Type::of(dtype, s)).collect();
            Sample::new(Concat { axis }, &types)
        };
        vec![
            sample(0, DType::F32, &[&[2, 3], &[1, 3], &[4, 3]]),
            sample(1, DType::F32, &[&[2, 3, 2], &[2, 1, 2]]),
            sample(2, DType::Bf16, &[&[2, 1, 2], &[2, 1, 3]]),
            sample(0, DType::I64, &[&[0], &[3], &[0]]),
            sample(1, DType::Bool, &[&[2, 2]]),
            sample(0, DType::F32, &[&[2, 0], &[3, 0]]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_extents_add_up() {
        let n = Dim::symbol("n", 8);
        let x = Type::new(DType::F32, Shape::new([n.clone(), Dim::Const(2)]));
        let y = Type::of(DType::F32, &[3, 2]);
        let concat = |axis, args: &[Type]| Concat { axis }.infer(args, &[]);
        let result = concat(0, &[x.clone(), y.clone(), x.clone()]).unwrap();
        assert_eq!(result[0].to_string(), "f32[2*n + 3, 2]");
        assert!(concat(1, &[x.clone(), y]).is_err(), "n is not 3");
        assert!(concat(0, &[]).is_err());
        assert!(concat(2, &[x]).is_err());
    }
}
