//! The maximum in sliding windows and its position.

use super::arith::{Arithmetic, narrowed, widened, with_arithmetic};
use super::reduce_window::{Geometry, Pool, geometries};
use super::window::Windows;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError, arity};
use crate::access::{Access, Combine, Expr, Monoid, Tiling, Write};
use crate::attr::Number;
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::BinaryFn;
use crate::tensor::Tensor;
use crate::types::{Class, DType, Type};

op_struct! {
    /// The largest element in windows that slide over the last `window.len()` dims, as
    /// `reduce_window` with `max` has it, and as second result (i64) where it is: the row-major
    /// position within those dims of x, without the padding. The first of equals counts, and the
    /// first NaN wins over every number. Where a window sees only padding, the result is the least
    /// value and the index is 0.
    ///
    /// All but the first of those dims have constant extents.
    ArgMaxWindow {
        /// Number of elements of a window along each of the last dims.
        window: Vec<u64>,
        /// Distance of neighbouring windows.
        stride: Vec<u64>,
        /// Distance of neighbouring elements of a window.
        dilation: Vec<u64>,
        /// Padding before and after; negative pads cut.
        pad: Vec<(i64, i64)>,
    }
}

impl ArgMaxWindow {
    fn pool(&self, x: &Type) -> Result<Pool<'_>, TypeError> {
        let Self {
            window,
            stride,
            dilation,
            pad,
        } = self;
        Pool::new(
            Windows {
                stride,
                dilation,
                pad,
            },
            window,
            x,
        )
    }

    /// The distance of neighbouring elements along each of the last dims.
    fn distances(&self, pool: &Pool<'_>) -> Result<Vec<i64>, TypeError> {
        let mut distances = vec![1i64; self.window.len()];
        for d in (1..self.window.len()).rev() {
            let extent = pool.trailing()[d]
                .as_const()
                .and_then(|e| i64::try_from(e).ok());
            match extent.and_then(|extent| distances[d].checked_mul(extent)) {
                Some(distance) => distances[d - 1] = distance,
                None => type_error!("position within {} needs constant extents", pool.x),
            }
        }
        Ok(distances)
    }

    /// The position of the element of x at a point of the loops, those over elements of the window
    /// beginning at `first`.
    fn position(&self, rank: usize, first: usize, distances: &[i64]) -> Expr {
        let number = |value: i128| Expr::Const(Number::Int(value), DType::I64);
        let (mut sum, mut offset) = (None, 0);
        for (d, distance) in distances.iter().map(|d| i128::from(*d)).enumerate() {
            offset -= i128::from(self.pad[d].0) * distance;
            let scaled = [(rank + d, self.stride[d]), (first + d, self.dilation[d])];
            for (dim, scale) in scaled {
                let index = Expr::Index(dim, DType::I64);
                let factor = number(i128::from(scale) * distance);
                let term = Expr::binary(BinaryFn::Mul, DType::I64, index, factor);
                sum = Some(match sum {
                    Some(sum) => Expr::binary(BinaryFn::Add, DType::I64, sum, term),
                    None => term,
                });
            }
        }
        match sum {
            Some(sum) => Expr::binary(BinaryFn::Add, DType::I64, sum, number(offset)),
            None => number(0),
        }
    }
}

impl OpDef for ArgMaxWindow {
    const NAMES: &'static [&'static str] = &["arg_max_window"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        if !matches!(x.dtype.class(), Class::Int { .. } | Class::Float) {
            type_error!("expected integers or floats, found {}", x.dtype);
        }
        let pool = self.pool(x)?;
        self.distances(&pool)?;
        Ok(vec![pool.result(x.dtype), pool.result(DType::I64)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let pool = self.pool(&x.ty()).map_err(|e| EvalError::value(e.0))?;
        let shape = pool.result(x.dtype()).shape.as_const().unwrap_or_default();
        Ok(with_arithmetic!(x.dtype(), T => {
            let (values, positions) = search::<T>(&pool, &widened(x));
            vec![
                narrowed(&Tensor::from_vec(&shape, values), x.dtype()),
                Tensor::from_vec(&shape, positions),
            ]
        }))
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let x = &args[0];
        let typed = self.pool(x).and_then(|p| Ok((self.distances(&p)?, p)));
        let (distances, pool) = typed.expect("the shape rule accepted the operand");
        let (dims, first, read) = pool.loops();
        let position = self.position(pool.leading().len(), first, &distances);
        let write = |component, dtype| Write {
            component,
            ..Write::identity(&pool.result(dtype))
        };
        Tiling::Loop(Access {
            dims,
            operands: vec![read],
            body: vec![Expr::Operand(0), position],
            combine: Combine::Reduce(Monoid::ArgMax { last: false }, x.dtype),
            results: vec![write(0, x.dtype), write(1, DType::I64)],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let ty = cx.b.ty(cx.args[0]).clone();
        if ty.dtype.class() != Class::Float {
            return Ok(vec![None]);
        }
        let pool = self.pool(&ty)?;
        Ok(vec![Some(pool.scatter(
            cx.b,
            cx.cotangents[0],
            cx.results[1],
        )?)])
    }

    fn samples() -> Vec<Sample> {
        let op = |index: usize| {
            let geometry = geometries().swap_remove(index);
            let x = geometry.x.clone();
            let Geometry {
                window,
                stride,
                dilation,
                pad,
                ..
            } = geometry;
            (
                ArgMaxWindow {
                    window,
                    stride,
                    dilation,
                    pad,
                },
                x,
            )
        };
        let mut samples: Vec<Sample> = (0..geometries().len())
            .map(|index| {
                let (op, x) = op(index);
                Sample::new(op, &[Type::of(DType::F32, &x)]).distinct(0)
            })
            .collect();
        for dtype in [DType::F64, DType::Bf16, DType::I32, DType::U8] {
            let (op, x) = op(1);
            samples.push(Sample::new(op, &[Type::of(dtype, &x)]).distinct(0));
        }
        // Equals, among them the least value there is; and NaN.
        let ties = |values: &[f32]| {
            let op = ArgMaxWindow {
                window: vec![3],
                stride: vec![1],
                dilation: vec![1],
                pad: vec![(1, 3)],
            };
            let x = Tensor::from_vec(&[values.len() as u64], values.to_vec());
            Sample::new(op, &[x.ty()]).given(0, x).no_grad()
        };
        samples.push(ties(&[1.0, 1.0, 0.0, -0.0, 1.0, 1.0]));
        samples.push(ties(&[f32::NEG_INFINITY; 6]));
        samples.push(ties(&[1.0, f32::NAN, 2.0, f32::NAN, 3.0, f32::INFINITY]));
        samples
    }
}

/// Searches plane by plane, one element of all windows after the other.
fn search<T: Arithmetic>(pool: &Pool<'_>, x: &Tensor) -> (Vec<T>, Vec<i64>) {
    const NOTHING: i64 = -1;
    let x = x.stored::<T>();
    let (taps, input, output) = pool.planes();
    let step = pool.windows.step();
    let count = pool.plane_count() * output;
    let (mut values, mut positions) = (vec![T::LEAST; count], vec![NOTHING; count]);
    if input > 0 && output > 0 {
        for (plane, image) in x.chunks_exact(input).enumerate() {
            for s in taps.iter().flatten() {
                let first = plane * output + s.output;
                let best = values[first..][..s.len]
                    .iter_mut()
                    .zip(&mut positions[first..]);
                let met = (s.input..).step_by(step);
                for ((value, position), at) in best.zip(met) {
                    let next = image[at];
                    let better = next > *value || (next.undefined() && !value.undefined());
                    if better || *position == NOTHING {
                        (*value, *position) = (next, at as i64);
                    }
                }
            }
        }
    }
    positions.iter_mut().for_each(|p| *p = (*p).max(0));
    (values, positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(op: &ArgMaxWindow, x: Tensor) -> (Vec<f64>, Vec<i64>) {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
        let found = op.eval(&[x], &mut EvalCx::new(&mut none)).unwrap();
        (found[0].to_f64s(), found[1].to_i64s())
    }

    #[test]
    fn positions_are_those_in_the_unpadded_plane() {
        let op = ArgMaxWindow {
            window: vec![2, 2],
            stride: vec![2, 2],
            dilation: vec![1, 2],
            pad: vec![(1, 0), (1, 1)],
        };
        let x = Tensor::from_vec(&[2, 3, 3], (0..18).map(|n| (n * 7 % 18) as f32).collect());
        // [[0, 7, 14], [3, 10, 17], [6, 13, 2]] and [[9, 16, 5], [12, 1, 8], [15, 4, 11]]
        let (values, positions) = find(&op, x);
        assert_eq!(values, [7.0, 7.0, 13.0, 13.0, 16.0, 16.0, 4.0, 4.0]);
        assert_eq!(positions, [1, 1, 7, 7, 1, 1, 7, 7]);
    }

    #[test]
    fn the_first_of_equals_and_the_first_nan_win() {
        let op = ArgMaxWindow {
            window: vec![3],
            stride: vec![3],
            dilation: vec![1],
            pad: vec![(0, 3)],
        };
        let low = f32::NEG_INFINITY;
        let values = vec![1.0, 2.0, 2.0, low, low, low, 5.0, f32::NAN, f32::NAN];
        let (values, positions) = find(&op, Tensor::from_vec(&[9], values));
        assert_eq!(positions, [1, 3, 7, 0]);
        assert!(values[2].is_nan());
        assert_eq!((values[0], values[3]), (2.0, f64::NEG_INFINITY));
    }

    #[test]
    fn strides_of_positions_must_be_known() {
        let op = ArgMaxWindow {
            window: vec![1, 1],
            stride: vec![1, 1],
            dilation: vec![1, 1],
            pad: vec![(0, 0); 2],
        };
        let n = crate::dim::Dim::symbol("n", 9);
        let ty = |dims: [&crate::dim::Dim; 2]| {
            Type::new(
                DType::F32,
                crate::types::Shape::new(dims.into_iter().cloned()),
            )
        };
        let four = crate::dim::Dim::Const(4);
        assert!(op.infer(&[ty([&n, &four])], &[]).is_ok());
        assert!(op.infer(&[ty([&four, &n])], &[]).is_err());
    }
}
