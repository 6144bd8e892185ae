//! Transposed convolution.

use super::arith::{Arithmetic, add_scaled_scatter, narrowed, widened, with_arithmetic};
use super::conv::{Conv, geometries};
use super::conv_parts::{Counts, Loops, Nest, Parts, read_within, refused, sum_of_products};
use super::conv_weight_grad::ConvWeightGrad;
use super::window::Windows;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError, arity};
use crate::access::{Affine, LoopDim, Read, Tiling, Write};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

op_struct! {
    /// Transposed convolution, the gradient of `conv` with respect to its input, of
    /// `dy [N, O, out..]` with kernels `w [O, C/groups, kernel..]`: every element of dy adds its
    /// kernels to the result `[N, C, size..]`, `dx[n, g*C/groups + c, p*stride + k*dilation -
    /// pad.low] += dy[n, o, p] * w[o, c, k]`, where g is the group of o. What falls outside `size`
    /// is dropped, what nothing reaches is zero; `size` is free, so `pad.high` has no influence.
    ///
    /// 16-bit floats are summed in f32, others in their type; the sum of one element runs over o,
    /// then over k in row-major order.
    ConvTranspose {
        /// Distance at which neighbouring elements of dy add their kernels, per spatial dim.
        stride: Vec<u64>,
        /// What is cut from the start and the end of the result, per spatial dim.
        pad: Vec<(i64, i64)>,
        /// Distance of neighbouring kernel elements, per spatial dim.
        dilation: Vec<u64>,
        /// Number of groups.
        groups: u64,
        /// Spatial extents of the result.
        size: Vec<Dim>,
    }
}

impl ConvTranspose {
    fn parts(&self, dy: &Type, w: &Type) -> Result<Parts<'_>, TypeError> {
        let Self {
            stride,
            pad,
            dilation,
            groups,
            size,
        } = self;
        Parts::transposed(
            Windows {
                stride,
                dilation,
                pad,
            },
            *groups,
            dy,
            w,
            size,
        )
    }
}

impl OpDef for ConvTranspose {
    const NAMES: &'static [&'static str] = &["conv_transpose"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [dy, w] = arity(args)?;
        Ok(vec![self.parts(dy, w)?.x_type(dy.dtype)?])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (dy, w) = (&args[0], &args[1]);
        let parts = self.parts(&dy.ty(), &w.ty()).map_err(refused)?;
        let ty = parts.x_type(dy.dtype()).map_err(refused)?;
        let counts = parts.counts()?;
        let shape = ty.shape.as_const().unwrap_or_default();
        let dx = with_arithmetic!(dy.dtype(), T => {
            Tensor::from_vec(&shape, scatter::<T>(&counts, &widened(dy), &widened(w)))
        });
        Ok(vec![narrowed(&dx, ty.dtype)])
    }

    /// The loops gather: they run over elements of the result, and dy is read where the division by
    /// the stride is exact. So every part of a split owns its elements of the result and reads a
    /// halo of dy, as for `conv`, and no partial sums travel, as they would if the loops ran over
    /// dy and wrote to overlapping places.
    fn tiling(&self, args: &[Type]) -> Tiling {
        let (dy, w) = (&args[0], &args[1]);
        let typed = self.parts(dy, w).and_then(|p| Ok((p.x_type(dy.dtype)?, p)));
        let (ty, parts) = typed.expect("the shape rule accepted the operands");
        let mut nest = Nest::default();
        let n = nest.push(LoopDim::parallel("n", parts.batch.clone()));
        let g = nest.push(LoopDim::parallel("g", Dim::Const(parts.groups)));
        let c = nest.push(LoopDim::parallel("c", parts.c.clone()));
        let input = nest.push_all("i", parts.input.clone(), LoopDim::parallel);
        let o = nest.push(LoopDim::reduction("o", parts.o.clone()));
        let kernel = parts.kernel.iter().map(|k| Dim::Const(*k));
        let kernel = nest.push_all("k", kernel, LoopDim::reduction);
        let at = Loops { n, g, c, o, kernel };
        let met = |d: usize| parts.windows.output_index(d, input[d], at.kernel[d]);
        let reads = [
            read_within(parts.y_index(&at, (0..input.len()).map(met).collect())),
            Read::inside(parts.w_index(&at)),
        ];
        let index = parts.x_index(&at, input.iter().map(|i| Affine::dim(*i)).collect());
        let write = Write {
            component: 0,
            dtype: ty.dtype,
            shape: ty.shape,
            index,
        };
        sum_of_products(nest, reads, dy.dtype, write)
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (dy, w, cotangent) = (cx.args[0], cx.args[1], cx.cotangents[0]);
        let (dy_ty, w_ty) = (cx.b.ty(dy).clone(), cx.b.ty(w).clone());
        let parts = self.parts(&dy_ty, &w_ty)?;
        let pad = parts
            .windows
            .fitted_pad(&parts.input, &parts.kernel, &parts.output)?;
        let Self {
            stride,
            dilation,
            groups,
            ..
        } = self.clone();
        let to_dy = Conv {
            stride: stride.clone(),
            pad: pad.clone(),
            dilation: dilation.clone(),
            groups,
            out: None,
        };
        let to_w = ConvWeightGrad {
            stride,
            pad,
            dilation,
            groups,
            kernel: parts.kernel,
        };
        Ok(vec![
            Some(cx.b.op(to_dy, &[cotangent, w])?),
            Some(cx.b.op(to_w, &[cotangent, dy])?),
        ])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let mut samples: Vec<Sample> = geometries()
            .into_iter()
            .filter_map(|(conv, dtype, x, w)| {
                let [dy] = conv
                    .infer(&[Type::of(dtype, &x), Type::of(dtype, &w)], &[])
                    .ok()?
                    .try_into()
                    .ok()?;
                let Conv {
                    stride,
                    pad,
                    dilation,
                    groups,
                    ..
                } = conv;
                let size = x[2..].iter().map(|d| Dim::Const(*d)).collect();
                let op = ConvTranspose {
                    stride,
                    pad,
                    dilation,
                    groups,
                    size,
                };
                Some(Sample::new(op, &[dy, Type::of(dtype, &w)]))
            })
            .collect();
        // Of 3 elements at stride 2 and a kernel of 3, from the least size to one beyond reach.
        for (size, high) in [(5, 1), (6, 1), (7, 0), (9, 1), (2, 4)] {
            let op = ConvTranspose {
                stride: vec![2],
                pad: vec![(1, high)],
                dilation: vec![1],
                groups: 1,
                size: vec![Dim::Const(size)],
            };
            let args = [
                Type::of(DType::F32, &[1, 2, 3]),
                Type::of(DType::F32, &[2, 2, 3]),
            ];
            samples.push(Sample::new(op, &args));
        }
        samples
    }
}

/// Plane by plane of the result: adds dy, scaled by one kernel element after the other.
fn scatter<T: Arithmetic>(counts: &Counts, dy: &Tensor, w: &Tensor) -> Vec<T> {
    let (dy, w) = (dy.stored::<T>(), w.stored::<T>());
    let Counts {
        batch,
        groups,
        c,
        o,
        input,
        output,
        step,
        ref taps,
    } = *counts;
    let mut dx = vec![T::ZERO; batch * groups * c * input];
    if output == 0 || o == 0 || input == 0 {
        return dx;
    }
    for (plane, sums) in dx.chunks_exact_mut(input).enumerate() {
        let (n, channel) = (plane / (groups * c), plane % (groups * c));
        let (group, channel) = (channel / c, channel % c);
        let first = (n * groups + group) * o;
        let images = dy[first * output..(first + o) * output].chunks_exact(output);
        let kernels = w
            .chunks_exact(taps.len())
            .skip(group * o * c + channel)
            .step_by(c);
        for (image, kernel) in images.zip(kernels) {
            for (factor, segments) in kernel.iter().zip(taps) {
                for s in segments {
                    let image = &image[s.output..s.output + s.len];
                    add_scaled_scatter(&mut sums[s.input..], image, step, *factor);
                }
            }
        }
    }
    dx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_added_at_the_stride_and_cropped_to_size() {
        let transpose = |low: i64, size: u64| {
            let op = ConvTranspose {
                stride: vec![2],
                pad: vec![(low, 0)],
                dilation: vec![1],
                groups: 1,
                size: vec![Dim::Const(size)],
            };
            let dy = Tensor::from_vec(&[1, 1, 2], vec![1f32, 10.0]);
            let w = Tensor::from_vec(&[1, 1, 3], vec![1f32, 2.0, 3.0]);
            let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
            op.eval(&[dy, w], &mut EvalCx::new(&mut none)).unwrap()[0].to_f64s()
        };
        assert_eq!(transpose(0, 5), [1.0, 2.0, 13.0, 20.0, 30.0]);
        assert_eq!(transpose(1, 3), [2.0, 13.0, 20.0]);
        assert_eq!(transpose(-1, 7), [0.0, 1.0, 2.0, 13.0, 20.0, 30.0, 0.0]);
    }

    #[test]
    fn extents_may_be_symbols() {
        let n = Dim::symbol("n", 64);
        let size = n.mul(&Dim::Const(2)).unwrap();
        let op = ConvTranspose {
            stride: vec![2],
            pad: vec![(1, 1)],
            dilation: vec![1],
            groups: 1,
            size: vec![size.clone()],
        };
        let batch = Dim::symbol("b", 8);
        let shape = crate::types::Shape::new([batch.clone(), Dim::Const(3), n]);
        let w = Type::of(DType::F32, &[3, 5, 4]);
        let found = op.infer(&[Type::new(DType::F32, shape), w], &[]).unwrap();
        assert_eq!(found[0].dims(), [batch, Dim::Const(5), size]);
    }
}
