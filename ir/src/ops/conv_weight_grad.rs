//! The gradient of a convolution with respect to its kernels.

use super::arith::{Arithmetic, narrowed, widened, with_arithmetic};
use super::conv::{Conv, geometries};
use super::conv_parts::{Counts, Loops, Nest, Parts, read_within, refused, sum_of_products};
use super::conv_transpose::ConvTranspose;
use super::window::Windows;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError, arity};
use crate::access::{Affine, LoopDim, Read, Tiling, Write};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::Tensor;
use crate::types::Type;

op_struct! {
    /// The gradient of `conv` with respect to its kernels, from `x [N, C, spatial..]` and
    /// `dy [N, O, out..]`: `dw[o, c, k] = sum over n, p of x[n, g*C/groups + c, p*stride +
    /// k*dilation - pad.low] * dy[n, o, p]`, where g is the group of o. The result is
    /// `[O, C/groups, kernel..]`. Padding contributes nothing, and as the extents of dy are given,
    /// `pad.high` has no influence.
    ///
    /// 16-bit floats are summed in f32, others in their type; the sum runs over n, then over p in
    /// row-major order.
    ConvWeightGrad {
        /// Distance of neighbouring windows, per spatial dim.
        stride: Vec<u64>,
        /// Padding before and after the image, per spatial dim.
        pad: Vec<(i64, i64)>,
        /// Distance of neighbouring kernel elements, per spatial dim.
        dilation: Vec<u64>,
        /// Number of groups.
        groups: u64,
        /// Spatial extents of the kernels.
        kernel: Vec<u64>,
    }
}

impl ConvWeightGrad {
    fn parts(&self, x: &Type, dy: &Type) -> Result<Parts<'_>, TypeError> {
        let Self {
            stride,
            pad,
            dilation,
            groups,
            kernel,
        } = self;
        Parts::weight_grad(
            Windows {
                stride,
                dilation,
                pad,
            },
            *groups,
            x,
            dy,
            kernel,
        )
    }
}

impl OpDef for ConvWeightGrad {
    const NAMES: &'static [&'static str] = &["conv_weight_grad"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, dy] = arity(args)?;
        Ok(vec![self.parts(x, dy)?.w_type(x.dtype)?])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, dy) = (&args[0], &args[1]);
        let parts = self.parts(&x.ty(), &dy.ty()).map_err(refused)?;
        let ty = parts.w_type(x.dtype()).map_err(refused)?;
        let counts = parts.counts()?;
        let shape = ty.shape.as_const().unwrap_or_default();
        let dw = with_arithmetic!(x.dtype(), T => {
            Tensor::from_vec(&shape, correlate::<T>(&counts, &widened(x), &widened(dy)))
        });
        Ok(vec![narrowed(&dw, ty.dtype)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (x, dy) = (&args[0], &args[1]);
        let typed = self.parts(x, dy).and_then(|p| Ok((p.w_type(x.dtype)?, p)));
        let (ty, parts) = typed.expect("the shape rule accepted the operands");
        let mut nest = Nest::default();
        let g = nest.push(LoopDim::parallel("g", Dim::Const(parts.groups)));
        let o = nest.push(LoopDim::parallel("o", parts.o.clone()));
        let c = nest.push(LoopDim::parallel("c", parts.c.clone()));
        let kernel = parts.kernel.iter().map(|k| Dim::Const(*k));
        let kernel = nest.push_all("k", kernel, LoopDim::parallel);
        let n = nest.push(LoopDim::reduction("n", parts.batch.clone()));
        let output = nest.push_all("p", parts.output.clone(), LoopDim::reduction);
        let at = Loops { n, g, c, o, kernel };
        let spatial = output.iter().map(|p| Affine::dim(*p)).collect();
        let reads = [
            read_within(parts.x_index(&at, parts.met(&at, &output))),
            Read::inside(parts.y_index(&at, spatial)),
        ];
        let index = parts.w_index(&at);
        let write = Write {
            component: 0,
            dtype: ty.dtype,
            shape: ty.shape,
            index,
        };
        sum_of_products(nest, reads, x.dtype, write)
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (x, dy, cotangent) = (cx.args[0], cx.args[1], cx.cotangents[0]);
        let (x_ty, dy_ty) = (cx.b.ty(x).clone(), cx.b.ty(dy).clone());
        let parts = self.parts(&x_ty, &dy_ty)?;
        let pad = parts
            .windows
            .fitted_pad(&parts.input, &parts.kernel, &parts.output)?;
        let Self {
            stride,
            dilation,
            groups,
            ..
        } = self.clone();
        let to_x = ConvTranspose {
            stride: stride.clone(),
            pad: pad.clone(),
            dilation: dilation.clone(),
            groups,
            size: parts.input,
        };
        let to_dy = Conv {
            stride,
            pad,
            dilation,
            groups,
            out: None,
        };
        Ok(vec![
            Some(cx.b.op(to_x, &[dy, cotangent])?),
            Some(cx.b.op(to_dy, &[x, cotangent])?),
        ])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        geometries()
            .into_iter()
            .filter_map(|(conv, dtype, x, w)| {
                let types = [Type::of(dtype, &x), Type::of(dtype, &w)];
                let [dy] = conv.infer(&types, &[]).ok()?.try_into().ok()?;
                let Conv {
                    stride,
                    pad,
                    dilation,
                    groups,
                    ..
                } = conv;
                let kernel = w[2..].to_vec();
                let op = ConvWeightGrad {
                    stride,
                    pad,
                    dilation,
                    groups,
                    kernel,
                };
                Some(Sample::new(op, &[types[0].clone(), dy]))
            })
            .collect()
    }
}

/// Result channels that are summed side by side: their sums do not wait for one another.
const BLOCK: usize = 16;

/// Kernel element by kernel element, for a block of result channels at a time.
fn correlate<T: Arithmetic>(counts: &Counts, x: &Tensor, dy: &Tensor) -> Vec<T> {
    let (x, dy) = (x.stored::<T>(), dy.stored::<T>());
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
    let mut dw = vec![T::ZERO; groups * o * c * taps.len()];
    // dy of the block with the channels innermost: [n, p, channel].
    let mut block = vec![[T::ZERO; BLOCK]; batch * output];
    for group in 0..groups {
        for first in (0..o).step_by(BLOCK) {
            let width = BLOCK.min(o - first);
            for n in 0..batch {
                for lane in 0..width {
                    let channel = (n * groups + group) * o + first + lane;
                    let plane = &dy[channel * output..][..output];
                    for (slot, value) in block[n * output..].iter_mut().zip(plane) {
                        slot[lane] = *value;
                    }
                }
            }
            for channel in 0..c {
                for (tap, segments) in taps.iter().enumerate() {
                    let mut sums = [T::ZERO; BLOCK];
                    for n in 0..batch {
                        let image = &x[((n * groups + group) * c + channel) * input..][..input];
                        for s in segments {
                            let block = &block[n * output + s.output..][..s.len];
                            add_products(&mut sums, &image[s.input..], step, block);
                        }
                    }
                    for (lane, sum) in sums[..width].iter().enumerate() {
                        let o = group * o + first + lane;
                        dw[(o * c + channel) * taps.len() + tap] = *sum;
                    }
                }
            }
        }
    }
    dw
}

/// `sums[lane] += x[i * step] * block[i][lane]`, in order of i.
fn add_products<T: Arithmetic>(sums: &mut [T; BLOCK], x: &[T], step: usize, block: &[[T; BLOCK]]) {
    let mut local = *sums;
    for (x, block) in x.iter().step_by(step).zip(block) {
        for (sum, y) in local.iter_mut().zip(block) {
            *sum = sum.plus(x.times(*y));
        }
    }
    *sums = local;
}
