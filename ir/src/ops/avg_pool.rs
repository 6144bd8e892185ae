//! Averages over sliding windows.

use super::arith::{narrowed, widened};
use super::dot::{accumulator, convert};
use super::reduce_window::{Pool, geometries};
use super::window::Windows;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError, arity};
use crate::access::Tiling;
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::{BinaryFn, Scalar};
use crate::tensor::{Tensor, indices};
use crate::types::{DType, Shape, Type};

op_struct! {
    /// The average over windows that slide over the last `window.len()` dims: the sum of the
    /// elements of x that a window sees (as `reduce_window` has it), divided by how many elements of
    /// the window lie in x or in that part of the padding that `counted` covers. With `counted` of
    /// zeros the average is over elements of x alone, with `counted = pad` over the whole window;
    /// in between it leaves out padding that only rounds the number of windows up. A window of which
    /// nothing counts gives NaN.
    ///
    /// 16-bit floats are summed and divided in f32 and rounded once.
    AvgPool {
        /// Number of elements of a window along each of the last dims.
        window: Vec<u64>,
        /// Distance of neighbouring windows.
        stride: Vec<u64>,
        /// Distance of neighbouring elements of a window.
        dilation: Vec<u64>,
        /// Padding before and after; negative pads cut.
        pad: Vec<(i64, i64)>,
        /// How far before and after x positions count in the divisor.
        counted: Vec<(i64, i64)>,
    }
}

impl AvgPool {
    fn pool(&self, x: &Type) -> Result<Pool<'_>, TypeError> {
        let Self {
            window,
            stride,
            dilation,
            pad,
            ..
        } = self;
        let pool = Pool::new(
            Windows {
                stride,
                dilation,
                pad,
            },
            window,
            x,
        )?;
        if self.counted.len() != window.len() {
            type_error!(
                "`counted` has {} entries for {} dims",
                self.counted.len(),
                window.len()
            );
        }
        Windows {
            pad: &self.counted,
            ..pool.windows
        }
        .check(window.len())?;
        self.counted_extents(&pool)?;
        if !self.counts_all() {
            Windows {
                pad: &self.uncounted(),
                ..pool.windows
            }
            .check(window.len())?;
        }
        Ok(pool)
    }

    /// The extents of what counts.
    fn counted_extents(&self, pool: &Pool<'_>) -> Result<Vec<Dim>, TypeError> {
        let pairs = pool.trailing().iter().zip(&self.counted);
        pairs
            .map(|(extent, (low, high))| match extent.offset(low + high) {
                Some(extent) => Ok(extent),
                None => type_error!("{extent} extended by ({low}, {high}) is no extent"),
            })
            .collect()
    }

    /// Whether every element of every window counts.
    fn counts_all(&self) -> bool {
        let pairs = self.pad.iter().zip(&self.counted);
        pairs
            .into_iter()
            .all(|(pad, counted)| counted.0 >= pad.0 && counted.1 >= pad.1)
    }

    /// The part of the padding that does not count.
    fn uncounted(&self) -> Vec<(i64, i64)> {
        let pads = self.pad.iter().zip(&self.counted);
        pads.map(|(pad, counted)| (pad.0 - counted.0, pad.1 - counted.1))
            .collect()
    }

    /// `value`, one per window, divided by how many elements of the window count.
    fn divided(
        &self,
        b: &mut FunctionBuilder,
        pool: &Pool<'_>,
        value: ValueId,
    ) -> Result<ValueId, TypeError> {
        let dtype = b.ty(value).dtype;
        let divisor = if self.counts_all() {
            b.scalar(dtype, self.window.iter().map(|w| *w as f64).product())
        } else {
            let shape = Shape::new(self.counted_extents(pool)?);
            let ones = b.full(dtype, &shape, Scalar::one(dtype));
            b.op(pool.sums(self.uncounted()), &[ones])?
        };
        b.op(BinaryFn::Div, &[value, divisor])
    }
}

impl OpDef for AvgPool {
    const NAMES: &'static [&'static str] = &["avg_pool"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        if !x.dtype.is_float() {
            type_error!("expected floats, found {}", x.dtype);
        }
        Ok(vec![self.pool(x)?.result(x.dtype)])
    }

    fn eval(&self, args: &[Tensor], cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let pool = self.pool(&x.ty()).map_err(|e| EvalError::value(e.0))?;
        let sums = pool
            .sums(self.pad.clone())
            .eval(&[widened(x)], cx)?
            .swap_remove(0);
        let extents: Vec<u64> = pool.output.iter().filter_map(Dim::as_const).collect();
        let input: Vec<u64> = pool.trailing().iter().filter_map(Dim::as_const).collect();
        let count = |(d, p): (usize, &u64)| {
            let (low, high) = self.counted[d];
            let counted = (-low, input[d] as i64 + high);
            pool.windows.seen(d, *p, self.window[d], counted) as f64
        };
        let counts: Vec<f64> = indices(&extents)
            .map(|p| p.iter().enumerate().map(count).product())
            .collect();
        let dtype = sums.dtype();
        let averages = sums.scalars().enumerate().map(|(n, sum)| {
            let count = Scalar::from_f64(counts[n % counts.len()], dtype);
            BinaryFn::Div.apply(sum, count, dtype)
        });
        let averages = Tensor::from_scalars(dtype, sums.shape(), averages);
        Ok(vec![narrowed(&averages, x.dtype())])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let ty = &args[0];
        let build = || {
            let pool = self.pool(ty)?;
            let mut b = FunctionBuilder::new("avg_pool");
            let x = b.param(ty.clone(), None);
            let wide = convert(&mut b, x, accumulator(ty.dtype))?;
            let sums = b.op(pool.sums(self.pad.clone()), &[wide])?;
            let averages = self.divided(&mut b, &pool, sums)?;
            let averages = convert(&mut b, averages, ty.dtype)?;
            Ok::<_, TypeError>(b.finish_unnamed(&[averages]))
        };
        Tiling::Expand(build().expect("the shape rule accepted the operand"))
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let ty = cx.b.ty(cx.args[0]).clone();
        let pool = self.pool(&ty)?;
        let dy = convert(cx.b, cx.cotangents[0], accumulator(ty.dtype))?;
        let shares = self.divided(cx.b, &pool, dy)?;
        let dx = pool.spread(cx.b, shares)?;
        Ok(vec![Some(convert(cx.b, dx, ty.dtype)?)])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let mut samples = vec![];
        for geometry in geometries() {
            let x = geometry.x(DType::F32);
            let none = vec![(0, 0); geometry.pad.len()];
            // As when the number of windows is rounded up: padding counts, but not all at the end.
            let some = geometry
                .pad
                .iter()
                .map(|(low, high)| (*low, high - 1))
                .collect();
            for counted in [none, geometry.pad.clone(), some] {
                let op = AvgPool {
                    window: geometry.window.clone(),
                    stride: geometry.stride.clone(),
                    dilation: geometry.dilation.clone(),
                    pad: geometry.pad.clone(),
                    counted,
                };
                if op.infer(std::slice::from_ref(&x), &[]).is_ok() {
                    samples.push(Sample::new(op, std::slice::from_ref(&x)));
                }
            }
        }
        for dtype in [DType::F64, DType::Bf16, DType::F16] {
            let op = AvgPool {
                window: vec![3, 2],
                stride: vec![2, 2],
                dilation: vec![1, 1],
                pad: vec![(1, 1), (0, 1)],
                counted: vec![(1, 1), (0, 0)],
            };
            samples.push(Sample::new(op, &[Type::of(dtype, &[2, 5, 5])]));
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn average(pad: (i64, i64), counted: (i64, i64)) -> Vec<f64> {
        let op = AvgPool {
            window: vec![3],
            stride: vec![2],
            dilation: vec![1],
            pad: vec![pad],
            counted: vec![counted],
        };
        let x = Tensor::from_vec(&[1, 4], vec![6f64, 12.0, 18.0, 24.0]);
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
        op.eval(&[x], &mut EvalCx::new(&mut none)).unwrap()[0].to_f64s()
    }

    #[test]
    fn the_divisor_counts_what_counted_covers() {
        assert_eq!(average((1, 0), (0, 0)), [9.0, 18.0]);
        assert_eq!(average((1, 0), (1, 0)), [6.0, 18.0]);
        // One more window, of which the last element is there only to round up.
        assert_eq!(average((1, 2), (0, 0)), [9.0, 18.0, 24.0]);
        assert_eq!(average((1, 2), (1, 1)), [6.0, 18.0, 12.0]);
        assert_eq!(average((1, 2), (1, 2)), [6.0, 18.0, 8.0]);
        assert!(average((3, 0), (0, 0))[0].is_nan());
    }

    #[test]
    fn a_divisor_is_a_constant_where_all_counts() {
        let mut op = AvgPool {
            window: vec![2, 2],
            stride: vec![1, 1],
            dilation: vec![1, 1],
            pad: vec![(0, 1), (-1, 0)],
            counted: vec![(0, 1), (0, 0)],
        };
        let x = [Type::of(DType::F32, &[3, 4, 5])];
        let nodes = |op: &AvgPool| match op.tiling(&x) {
            Tiling::Expand(func) => func.nodes.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(nodes(&op), 3, "sum, divisor, division");
        op.counted[0].1 = 0;
        assert_eq!(nodes(&op), 4, "the divisor is a sum of ones");
        op.counted.pop();
        assert!(op.infer(&x, &[]).is_err());
        op.counted = vec![(0, -5), (0, 0)];
        assert!(op.infer(&x, &[]).is_err());
    }
}
