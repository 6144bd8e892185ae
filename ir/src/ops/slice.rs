//! Elements at regular distances.

use super::movement::{constants, may_reach, strided};
use super::{
    Concat, EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Pad, Sample, TypeError, arity,
};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Read, Tiling, Write};
use crate::dim::{Dim, Poly};
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, strides};
use crate::types::{DType, Shape, Type};

op_struct! {
    /// Elements at regular distances: `out[i_0, i_1, ..] = x[start_0 + i_0 * step_0, ..]` for
    /// every dim of x. With a negative step `start` is the last element that is taken.
    ///
    /// All elements must be inside x, unless there are none. Where symbols keep that from being
    /// known it is checked when they have values. A step other than 1 and -1 over a symbolic size
    /// has no gradient.
    Slice {
        /// First index per dim.
        start: Vec<Dim>,
        /// Extents of the result.
        size: Vec<Dim>,
        /// Distance per dim; not zero.
        step: Vec<i64>,
    }
}

impl Slice {
    /// `size` elements from `start` along one dim, everything along the others.
    pub fn along(x: &Type, axis: usize, start: Dim, size: Dim) -> Self {
        let mut slice = Self {
            start: vec![Dim::Const(0); x.rank()],
            size: x.dims().to_vec(),
            step: vec![1; x.rank()],
        };
        slice.start[axis] = start;
        slice.size[axis] = size;
        slice
    }

    /// The first and last index taken along a dim, `None` if they do not fit 64 bits.
    fn ends(&self, axis: usize) -> Option<(Poly, Poly)> {
        let first = self.start[axis].to_poly()?;
        let steps = self.size[axis].to_poly()?.sub(&Poly::constant(1))?;
        let last = first.add(&steps.mul(&Poly::constant(self.step[axis]))?)?;
        Some((first, last))
    }
}

impl Slice {
    /// What is before and after the elements taken along a dim of `extent`, in ascending order of
    /// indices. For one element or none the step is of no account.
    fn margins(&self, axis: usize, extent: &Dim) -> Option<(Dim, Dim)> {
        let (size, step) = (&self.size[axis], self.step[axis]);
        if size.is(0) {
            return Some((extent.clone(), Dim::Const(0)));
        }
        // With a larger distance, a symbolic size of zero would leave margins that do not add up.
        if size.as_const().is_none() && step.unsigned_abs() != 1 {
            return None;
        }
        let (first, last) = self.ends(axis)?;
        let (low, high) = if step < 0 {
            (last, first)
        } else {
            (first, last)
        };
        let after = extent.to_poly()?.sub(&high)?.sub(&Poly::constant(1))?;
        Some((Dim::from_poly(low)?, Dim::from_poly(after)?))
    }

    /// `grad` with the order reversed along dims of negative step.
    fn ascending(&self, b: &mut FunctionBuilder, grad: ValueId) -> Result<ValueId, TypeError> {
        if self.step.iter().all(|step| *step > 0) {
            return Ok(grad);
        }
        let mut reverse = Slice {
            start: vec![Dim::Const(0); self.size.len()],
            size: self.size.clone(),
            step: vec![1; self.size.len()],
        };
        for (axis, size) in self.size.iter().enumerate() {
            if self.step[axis] < 0 && !size.is(0) {
                let Some(last) = size.offset(-1) else {
                    type_error!("the extent {size} does not fit 64 bits");
                };
                reverse.start[axis] = last;
                reverse.step[axis] = -1;
            }
        }
        b.op(reverse, &[grad])
    }
}

impl OpDef for Slice {
    const NAMES: &'static [&'static str] = &["slice"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        let counts = [self.start.len(), self.size.len(), self.step.len()];
        if counts != [x.rank(); 3] {
            type_error!("start, size and step have {counts:?} entries for {x}");
        }
        for (axis, extent) in x.dims().iter().enumerate() {
            let (start, size, step) = (&self.start[axis], &self.size[axis], self.step[axis]);
            if step == 0 {
                type_error!("the step along dim {axis} is zero");
            }
            let Some(ends) = self.ends(axis) else {
                type_error!("indices along dim {axis} do not fit 64 bits");
            };
            // A symbolic size may be zero, and then nothing is out of range.
            let some = size.to_poly().is_some_and(|p| p.bounds().0 > 0);
            let inside = |end: Poly| {
                end.bounds().1 >= 0
                    && extent.to_poly().is_none_or(|extent| {
                        extent.sub(&end).is_none_or(|room| room.bounds().1 > 0)
                    })
            };
            if some && !(inside(ends.0) && inside(ends.1)) {
                type_error!(
                    "{size} elements from {start} in steps of {step} are not inside dim {axis} of {x}"
                );
            }
            if step.unsigned_abs() == 1 && !may_reach(size, extent) {
                type_error!("{size} elements are more than dim {axis} of {x} has");
            }
        }
        Ok(vec![Type::new(
            x.dtype,
            Shape::new(self.size.iter().cloned()),
        )])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, shape) = (&args[0], constants(&self.size)?);
        let start = constants(&self.start)?;
        let strides = strides(x.shape()).into_iter().map(|s| s as i64);
        let (mut base, mut steps) = (0, vec![]);
        if shape.iter().product::<u64>() > 0 {
            for ((stride, start), step) in strides.zip(start).zip(&self.step) {
                base += start as i64 * stride;
                // A step that is never taken may be too large to be multiplied.
                steps.push(stride.saturating_mul(*step));
            }
        }
        Ok(vec![strided(x, &shape, base, &steps)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let result = Type::new(args[0].dtype, Shape::new(self.size.iter().cloned()));
        let dims = result.dims().iter().enumerate();
        let index = self.start.iter().zip(&self.step).enumerate();
        let index = index.map(|(axis, (start, step))| Affine {
            offset: start.to_poly().unwrap_or_default(),
            ..Affine::new(&[(axis, *step)], 0)
        });
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
        let x = cx.b.ty(cx.args[0]).clone();
        let mut grad = self.ascending(cx.b, cx.cotangents[0])?;
        let mut pad = Pad::around(&vec![(0, 0); x.rank()]);
        let mut symbolic = vec![];
        for (axis, extent) in x.dims().iter().enumerate() {
            let Some((low, high)) = self.margins(axis, extent) else {
                let message = "a step over a symbolic extent has no gradient";
                return Err(TypeError::new(message).into());
            };
            // A distance that no two elements have may be too large for a padding.
            if self.size[axis].max_extent() > 1 {
                pad.interior[axis] = self.step[axis].unsigned_abs() - 1;
            }
            match (low.as_const(), high.as_const()) {
                (Some(low), Some(high)) => {
                    (pad.low[axis], pad.high[axis]) = (low as i64, high as i64)
                }
                _ => symbolic.push((axis, low, high)),
            }
        }
        let zero = cx.b.scalar(x.dtype, 0.0);
        grad = cx.b.op(pad, &[grad, zero])?;
        for (axis, low, high) in symbolic {
            let mut margin = |extent: Dim| {
                let mut dims = cx.b.ty(grad).dims().to_vec();
                dims[axis] = extent;
                cx.b.full(x.dtype, &Shape::new(dims), Scalar::zero(x.dtype))
            };
            let parts = [margin(low), grad, margin(high)];
            grad = cx.b.op(Concat { axis }, &parts)?;
        }
        Ok(vec![Some(grad)])
    }

    fn samples() -> Vec<Sample> {
        let sample = |dtype, shape: &[u64], slices: &[(u64, u64, i64)]| {
            let slice = Slice {
                start: slices.iter().map(|s| Dim::Const(s.0)).collect(),
                size: slices.iter().map(|s| Dim::Const(s.1)).collect(),
                step: slices.iter().map(|s| s.2).collect(),
            };
            Sample::new(slice, &[Type::of(dtype, shape)])
        };
        vec![
            sample(DType::F32, &[4, 5], &[(1, 2, 1), (0, 5, 1)]),
            sample(DType::F32, &[7, 4], &[(1, 3, 2), (3, 4, -1)]),
            sample(DType::F32, &[9], &[(8, 3, -3)]),
            sample(DType::F32, &[9], &[(7, 3, -3)]),
            sample(DType::Bf16, &[2, 6], &[(1, 1, 1), (0, 2, 4)]),
            sample(DType::I64, &[5], &[(4, 1, 1000)]),
            sample(DType::Bool, &[3, 3], &[(3, 0, 1), (2, 3, -1)]),
            sample(DType::F32, &[3, 0], &[(0, 3, 1), (0, 0, -2)]),
            sample(DType::U8, &[], &[]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(extent: Dim, start: Dim, size: Dim, step: i64) -> Result<Vec<Type>, TypeError> {
        let slice = Slice {
            start: vec![start],
            size: vec![size],
            step: vec![step],
        };
        slice.infer(&[Type::new(DType::F32, Shape::new([extent]))], &[])
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let constant = |extent, start, size, step| {
            infer(
                Dim::Const(extent),
                Dim::Const(start),
                Dim::Const(size),
                step,
            )
            .is_ok()
        };
        assert!(constant(5, 4, 5, -1));
        assert!(!constant(5, 4, 6, -1), "before the first");
        assert!(!constant(5, 5, 1, -1), "after the last");
        assert!(!constant(5, 1, 3, 2));
        assert!(!constant(5, 0, 1, 0));
        assert!(constant(5, 9, 0, 1), "nothing is taken");
        assert!(!constant(5, i64::MAX as u64, 1, 1), "the last index of all");
        assert!(!constant(5, 1, u64::MAX, 1));
        assert!(!constant(5, 1, 2, i64::MIN));
    }

    #[test]
    fn symbolic_ranges_are_refused_only_when_they_can_not_fit() {
        let n = Dim::symbol("n", 8);
        let c = Dim::Const;
        assert!(infer(n.clone(), c(1), n.offset(-1).unwrap(), 1).is_ok());
        assert!(infer(n.clone(), n.offset(-1).unwrap(), n.clone(), -1).is_ok());
        assert!(infer(n.clone(), c(0), c(9), 1).is_err(), "n is at most 8");
        assert!(infer(n.clone(), c(0), n.offset(1).unwrap(), 1).is_err());
        assert!(infer(n.clone(), n.clone(), c(1), 1).is_err());
    }

    #[test]
    fn the_gradient_of_a_symbolic_range_has_the_type_of_the_operand() {
        let n = Dim::symbol("n", 8);
        let c = Dim::Const;
        let slices = [
            (c(1), n.offset(-3).unwrap(), 1),
            (n.offset(-1).unwrap(), n.clone(), -1),
            (n.offset(-2).unwrap(), c(2), 1),
            (c(0), c(2), 3),
        ];
        for (start, size, step) in slices {
            let mut b = FunctionBuilder::new("f");
            let ty = Type::new(DType::F32, Shape::new([n.clone()]));
            let x = b.param(ty.clone(), None);
            let slice = Slice {
                start: vec![start],
                size: vec![size],
                step: vec![step],
            };
            let result = b.op(slice.clone(), &[x]).unwrap();
            let mut cx = GradCx {
                b: &mut b,
                args: &[x],
                results: &[result],
                cotangents: &[result],
            };
            let grads = slice.grad(&mut cx).unwrap();
            assert_eq!(*b.ty(grads[0].unwrap()), ty, "{slice:?}");
            let func = b.finish_unnamed(&[grads[0].unwrap()]);
            let input = Tensor::from_vec(&[6], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
            let output = crate::graph::eval::run_function(&func, std::slice::from_ref(&input));
            // Taking the result for its own cotangent puts every element taken back in its place.
            let back = output.unwrap()[0].to_f64s();
            let taken = back
                .iter()
                .zip(input.to_f64s())
                .all(|(a, b)| *a == b || *a == 0.0);
            assert!(
                taken && back.iter().any(|x| *x != 0.0),
                "{slice:?}: {back:?}"
            );
        }
    }
}
