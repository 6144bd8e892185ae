//! Convolution.

use super::arith::{Arithmetic, add_scaled_gather, narrowed, widened, with_arithmetic};
use super::conv_parts::{Counts, Loops, Nest, Parts, read_within, refused, sum_of_products};
use super::conv_transpose::ConvTranspose;
use super::conv_weight_grad::ConvWeightGrad;
use super::dot::{convert, result_dtype};
use super::window::Windows;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError, arity};
use crate::access::{Affine, LoopDim, Read, Tiling, Write};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

op_struct! {
    /// Convolution (as networks use the word: the kernel is not mirrored) of images
    /// `x [N, C, spatial..]` with kernels `w [O, C/groups, kernel..]`:
    /// `y[n, o, p] = sum over c, k of x[n, g*C/groups + c, p*stride + k*dilation - pad.low] *
    /// w[o, c, k]`, where g is the group of o. Padding contributes nothing. The result is
    /// `[N, O, out..]` with `out = floor((spatial + pad.low + pad.high - dilation*(kernel - 1) - 1) /
    /// stride) + 1`; there may be any number of spatial dims, none included.
    ///
    /// 16-bit floats are summed in f32, others in their type; the sum runs over c, then over k in
    /// row-major order.
    Conv {
        /// Distance of neighbouring windows, per spatial dim.
        stride: Vec<u64>,
        /// Padding before and after the image, per spatial dim; negative pads cut it.
        pad: Vec<(i64, i64)>,
        /// Distance of neighbouring kernel elements, per spatial dim.
        dilation: Vec<u64>,
        /// Number of groups; each sees its own channels of x and makes its own channels of y.
        groups: u64,
        /// Element type of the result, that of the operands if absent; 16-bit floats may give f32.
        out: Option<DType>,
    }
}

impl Conv {
    fn parts(&self, x: &Type, w: &Type) -> Result<Parts<'_>, TypeError> {
        let Self {
            stride,
            pad,
            dilation,
            groups,
            ..
        } = self;
        Parts::forward(
            Windows {
                stride,
                dilation,
                pad,
            },
            *groups,
            x,
            w,
        )
    }
}

impl OpDef for Conv {
    const NAMES: &'static [&'static str] = &["conv"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, w] = arity(args)?;
        let out = result_dtype(self.out, x.dtype)?;
        Ok(vec![self.parts(x, w)?.y_type(out)?])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, w) = (&args[0], &args[1]);
        let parts = self.parts(&x.ty(), &w.ty()).map_err(refused)?;
        let ty = parts
            .y_type(self.out.unwrap_or(x.dtype()))
            .map_err(refused)?;
        let counts = parts.counts()?;
        let shape = ty.shape.as_const().unwrap_or_default();
        let y = with_arithmetic!(x.dtype(), T => {
            Tensor::from_vec(&shape, convolve::<T>(&counts, &widened(x), &widened(w)))
        });
        Ok(vec![narrowed(&y, ty.dtype)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (x, w) = (&args[0], &args[1]);
        let typed = self
            .parts(x, w)
            .and_then(|p| Ok((p.y_type(self.out.unwrap_or(x.dtype))?, p)));
        let (ty, parts) = typed.expect("the shape rule accepted the operands");
        let mut nest = Nest::default();
        let n = nest.push(LoopDim::parallel("n", parts.batch.clone()));
        let g = nest.push(LoopDim::parallel("g", Dim::Const(parts.groups)));
        let o = nest.push(LoopDim::parallel("o", parts.o.clone()));
        let output = nest.push_all("p", parts.output.clone(), LoopDim::parallel);
        let c = nest.push(LoopDim::reduction("c", parts.c.clone()));
        let kernel = parts.kernel.iter().map(|k| Dim::Const(*k));
        let kernel = nest.push_all("k", kernel, LoopDim::reduction);
        let at = Loops { n, g, c, o, kernel };
        let reads = [
            read_within(parts.x_index(&at, parts.met(&at, &output))),
            Read::inside(parts.w_index(&at)),
        ];
        let spatial = output.iter().map(|p| Affine::dim(*p)).collect();
        let index = parts.y_index(&at, spatial);
        let write = Write {
            component: 0,
            dtype: ty.dtype,
            shape: ty.shape,
            index,
        };
        sum_of_products(nest, reads, x.dtype, write)
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (x, w) = (cx.args[0], cx.args[1]);
        let (x_ty, w_ty) = (cx.b.ty(x).clone(), cx.b.ty(w).clone());
        let dy = convert(cx.b, cx.cotangents[0], x_ty.dtype)?;
        let parts = self.parts(&x_ty, &w_ty)?;
        let Self {
            stride,
            pad,
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
        let to_w = ConvWeightGrad {
            stride,
            pad,
            dilation,
            groups,
            kernel: parts.kernel,
        };
        Ok(vec![
            Some(cx.b.op(to_x, &[dy, w])?),
            Some(cx.b.op(to_w, &[x, dy])?),
        ])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let mut samples: Vec<Sample> = geometries()
            .into_iter()
            .map(|(op, dtype, x, w)| Sample::new(op, &[Type::of(dtype, &x), Type::of(dtype, &w)]))
            .collect();
        for (op, dtype, x, w) in geometries().into_iter().take(2) {
            let op = Conv {
                out: Some(DType::F32),
                ..op
            };
            for dtype in [dtype, DType::Bf16] {
                let args = [Type::of(dtype, &x), Type::of(dtype, &w)];
                samples.push(Sample::new(op.clone(), &args));
            }
        }
        samples
    }
}

/// Convolutions of all kinds with the extents of x and w: samples of the whole family.
pub(crate) fn geometries() -> Vec<(Conv, DType, Vec<u64>, Vec<u64>)> {
    let conv = |stride: &[u64], pad: &[(i64, i64)], dilation: &[u64], groups| Conv {
        stride: stride.into(),
        pad: pad.into(),
        dilation: dilation.into(),
        groups,
        out: None,
    };
    let same = || conv(&[1, 1], &[(1, 1), (1, 1)], &[1, 1], 1);
    let f32s = |op: Conv, x: &[u64], w: &[u64]| (op, DType::F32, x.to_vec(), w.to_vec());
    let mut all = vec![
        f32s(same(), &[2, 3, 4, 5], &[4, 3, 3, 3]),
        // Pointwise, and strided pointwise.
        f32s(
            conv(&[1, 1], &[(0, 0); 2], &[1, 1], 1),
            &[2, 3, 2, 3],
            &[2, 3, 1, 1],
        ),
        f32s(
            conv(&[2, 2], &[(0, 0); 2], &[1, 1], 1),
            &[1, 2, 4, 5],
            &[2, 2, 1, 1],
        ),
        // Strides, dilations and pads that differ between dims and sides.
        f32s(
            conv(&[2, 3], &[(1, 0), (0, 2)], &[1, 2], 1),
            &[1, 2, 5, 7],
            &[3, 2, 2, 3],
        ),
        f32s(
            conv(&[1, 2], &[(-1, 2), (1, -2)], &[2, 1], 1),
            &[1, 2, 6, 7],
            &[2, 2, 2, 3],
        ),
        // A stride above the kernel leaves elements out; the last may meet no window.
        f32s(
            conv(&[3, 4], &[(0, 1), (1, 0)], &[1, 1], 1),
            &[1, 2, 7, 8],
            &[2, 2, 2, 2],
        ),
        // More padding than kernel: windows that see nothing.
        f32s(conv(&[1], &[(3, 2)], &[1], 1), &[1, 2, 3], &[2, 2, 2]),
        // A dilated kernel wider than the image.
        f32s(conv(&[1], &[(4, 4)], &[4], 1), &[1, 1, 3], &[2, 1, 3]),
        // Groups, depthwise, and depthwise with a multiplier.
        f32s(conv(&[1], &[(1, 1)], &[1], 2), &[2, 4, 5], &[6, 2, 3]),
        f32s(
            conv(&[1, 1], &[(1, 1); 2], &[1, 1], 3),
            &[2, 3, 4, 4],
            &[3, 1, 3, 3],
        ),
        f32s(
            conv(&[2, 2], &[(0, 1); 2], &[1, 1], 2),
            &[1, 2, 5, 5],
            &[4, 1, 3, 3],
        ),
        // Three spatial dims, and none.
        f32s(
            conv(&[1, 2, 1], &[(1, 0), (0, 1), (1, 1)], &[1, 1, 2], 1),
            &[1, 2, 3, 4, 4],
            &[2, 2, 2, 2, 2],
        ),
        f32s(conv(&[], &[], &[], 1), &[3, 4], &[2, 4]),
        // Nothing in the batch, no channels, no windows.
        f32s(same(), &[0, 2, 3, 3], &[2, 2, 3, 3]),
        f32s(conv(&[1], &[(0, 0)], &[1], 1), &[1, 0, 4], &[2, 0, 3]),
        f32s(conv(&[1], &[(0, 0)], &[1], 1), &[1, 2, 2], &[2, 2, 3]),
    ];
    for dtype in [
        DType::F64,
        DType::Bf16,
        DType::F16,
        DType::I32,
        DType::I8,
        DType::U8,
    ] {
        all.push((same(), dtype, vec![1, 2, 3, 4], vec![2, 2, 3, 3]));
    }
    all
}

/// Plane by plane of y: adds the contribution of one kernel element after the other, so that every
/// element of y is summed in the order that the op's documentation states.
fn convolve<T: Arithmetic>(counts: &Counts, x: &Tensor, w: &Tensor) -> Vec<T> {
    let (x, w) = (x.stored::<T>(), w.stored::<T>());
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
    let mut y = vec![T::ZERO; batch * groups * o * output];
    if output == 0 || c == 0 || input == 0 {
        return y;
    }
    for (plane, sums) in y.chunks_exact_mut(output).enumerate() {
        let (n, channel) = (plane / (groups * o), plane % (groups * o));
        let first = (n * groups + channel / o) * c;
        let images = x[first * input..(first + c) * input].chunks_exact(input);
        let kernels = w[channel * c * taps.len()..].chunks_exact(taps.len());
        for (image, kernel) in images.zip(kernels) {
            for (factor, segments) in kernel.iter().zip(taps) {
                for s in segments {
                    let sums = &mut sums[s.output..s.output + s.len];
                    add_scaled_gather(sums, &image[s.input..], step, *factor);
                }
            }
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::interpret;
    use crate::tensor::indices;
    use crate::types::Shape;

    fn eval(op: &impl OpDef, args: &[Tensor]) -> Tensor {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
        op.eval(args, &mut EvalCx::new(&mut none))
            .unwrap()
            .remove(0)
    }

    /// Values whose sum depends on the order of its terms.
    fn rough(ty: &Type) -> Tensor {
        let shape = ty.shape.as_const().unwrap();
        let count = shape.iter().product::<u64>();
        let values = (0..count).map(|n| (n as f32 * 0.7391).sin() * (n as f32 * 1.37).cos().exp());
        Tensor::from_vec(&shape, values.collect::<Vec<f32>>())
    }

    #[test]
    fn the_order_of_summation_is_that_of_the_rule() {
        fn check<O: OpDef>() -> usize {
            let samples = O::samples()
                .into_iter()
                .filter(|s| s.args[0].ty.dtype == DType::F32);
            let mut compared = 0;
            for sample in samples {
                let types: Vec<Type> = sample.args.iter().map(|a| a.ty.clone()).collect();
                let args: Vec<Tensor> = types.iter().map(rough).collect();
                let Tiling::Loop(access) = sample.op.tiling(&types) else {
                    panic!("not a loop")
                };
                let expected = interpret(&access, &args).unwrap();
                let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
                let found = sample.op.eval(&args, &mut EvalCx::new(&mut none)).unwrap();
                assert_eq!(found, expected, "{:?}", sample.op);
                compared += found[0].len();
            }
            compared
        }
        assert!(check::<Conv>() > 300);
        assert!(check::<ConvTranspose>() > 300);
        assert!(check::<ConvWeightGrad>() > 100);
    }

    #[test]
    fn padding_is_not_multiplied() {
        let conv = Conv {
            stride: vec![1],
            pad: vec![(1, 1)],
            dilation: vec![1],
            groups: 1,
            out: None,
        };
        let x = Tensor::from_vec(&[1, 1, 2], vec![1f32, 2.0]);
        let w = Tensor::from_vec(&[1, 1, 3], vec![f32::INFINITY, 1.0, 10.0]);
        let y = eval(&conv, &[x, w]);
        assert_eq!(y.to_f64s(), [21.0, f64::INFINITY]);
    }

    #[test]
    fn sums_are_those_of_the_definition() {
        let op = Conv {
            stride: vec![2, 1],
            pad: vec![(1, 0), (0, 1)],
            dilation: vec![1, 2],
            groups: 2,
            out: None,
        };
        let (x_shape, w_shape) = ([2u64, 4, 5, 4], [4u64, 2, 2, 2]);
        let x = rough(&Type::of(DType::F32, &x_shape)).convert(DType::F64);
        let w = rough(&Type::of(DType::F32, &w_shape)).convert(DType::F64);
        let y = eval(&op, &[x.clone(), w.clone()]);
        assert_eq!(y.shape(), [2, 4, 3, 3]);
        let at =
            |t: &Tensor, index: [u64; 4]| t.get(crate::tensor::ravel(&index, t.shape()) as usize);
        for (position, p) in indices(y.shape()).enumerate() {
            let mut sum = 0.0;
            for k in indices(&w_shape[1..]) {
                let (row, column) = (p[2] * 2 + k[1], p[3] + k[2] * 2);
                if (1..=5).contains(&row) && column < 4 {
                    let x = at(&x, [p[0], p[1] / 2 * 2 + k[0], row - 1, column]);
                    sum += x.to_f64() * at(&w, [p[1], k[0], k[1], k[2]]).to_f64();
                }
            }
            assert!((y.get(position).to_f64() - sum).abs() < 1e-12, "{p:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let conv = |stride: &[u64], groups| Conv {
            stride: stride.into(),
            pad: vec![(0, 0); stride.len()],
            dilation: vec![1; stride.len()],
            groups,
            out: None,
        };
        let x = Type::of(DType::F32, &[2, 4, 9]);
        let refused = |op: Conv, w: Type| op.infer(&[x.clone(), w], &[]).is_err();
        let w = |dims: &[u64]| Type::of(DType::F32, dims);
        assert!(!refused(conv(&[1], 2), w(&[6, 2, 3])));
        assert!(refused(conv(&[1], 0), w(&[6, 4, 3])));
        assert!(
            refused(conv(&[1], 3), w(&[6, 2, 3])),
            "4 channels in 3 groups"
        );
        assert!(
            refused(conv(&[1], 2), w(&[5, 2, 3])),
            "5 results in 2 groups"
        );
        assert!(
            refused(conv(&[1], 2), w(&[6, 4, 3])),
            "kernels of another group size"
        );
        assert!(refused(conv(&[1], 2), w(&[6, 2, 0])), "an empty kernel");
        assert!(
            refused(conv(&[1], 2), w(&[6, 2, 12])),
            "a kernel beyond the image"
        );
        assert!(
            refused(conv(&[1, 1], 2), w(&[6, 2, 3])),
            "strides of two dims"
        );
        assert!(refused(conv(&[1], 2), w(&[6, 2])), "another rank");
        assert!(
            refused(conv(&[1], 2), Type::of(DType::Bf16, &[6, 2, 3])),
            "another type"
        );
    }

    #[test]
    fn the_batch_may_be_a_symbol() {
        let conv = Conv {
            stride: vec![2],
            pad: vec![(1, 1)],
            dilation: vec![1],
            groups: 1,
            out: None,
        };
        let dims = [Dim::symbol("b", 8), Dim::Const(3), Dim::symbol("n", 64)];
        let x = Type::new(DType::F32, Shape::new(dims));
        let y = conv
            .infer(&[x, Type::of(DType::F32, &[5, 3, 3])], &[])
            .unwrap();
        assert_eq!(y[0].to_string(), "f32[b<=8, 5, floor_div(n - 1, 2) + 1]");
    }
}
