//! Elements at regular distances.

use super::movement::{constants, may_reach, strided};
use super::{EvalCx, EvalError, OpDef, Sample, TypeError, arity};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Read, Tiling, Write};
use crate::dim::{Dim, Poly};
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::{Tensor, strides};
use crate::types::{DType, Shape, Type};

op_struct! {
    /// Elements at regular distances: `out[i_0, i_1, ..] = x[start_0 + i_0 * step_0, ..]` for
    /// every dim of x. With a negative step `start` is the last element that is taken.
    ///
    /// All elements must be inside x, unless there are none. Where symbols keep that from being
    /// known it is checked when they have values.
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
                        end.add(&Poly::constant(1))
                            .and_then(|count| extent.sub(&count))
                            .is_none_or(|room| room.bounds().1 >= 0)
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
}
