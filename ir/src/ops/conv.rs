//! Convolution, and what it shares with its gradients.

use super::arith::{Arithmetic, add_scaled_gather, narrowed, widened, with_arithmetic};
use super::conv_transpose::ConvTranspose;
use super::conv_weight_grad::ConvWeightGrad;
use super::dot::accumulator;
use super::window::{Segment, Windows};
use super::{
    EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError, arity,
};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Monoid, Outside, Read, Tiling, Write};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::BinaryFn;
use crate::tensor::Tensor;
use crate::types::{Class, DType, Shape, Type};

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
    }
}

/// The operand and result extents of a convolution, whichever of them is sought.
pub(crate) struct Parts<'a> {
    pub windows: Windows<'a>,
    pub groups: u64,
    pub batch: Dim,
    /// Channels of x per group.
    pub c: Dim,
    /// Channels of y per group.
    pub o: Dim,
    pub input: Vec<Dim>,
    pub kernel: Vec<u64>,
    pub output: Vec<Dim>,
}

/// The loops of a convolution, as positions in a nest.
pub(crate) struct Loops {
    pub n: usize,
    pub g: usize,
    pub c: usize,
    pub o: usize,
    pub kernel: Vec<usize>,
}

/// A loop nest being built.
#[derive(Default)]
pub(crate) struct Nest(pub Vec<LoopDim>);

impl Nest {
    pub fn push(&mut self, dim: LoopDim) -> usize {
        self.0.push(dim);
        self.0.len() - 1
    }

    pub fn push_all(
        &mut self,
        name: &str,
        extents: impl IntoIterator<Item = Dim>,
        kind: fn(String, Dim) -> LoopDim,
    ) -> Vec<usize> {
        let extents = extents.into_iter().enumerate();
        extents.map(|(d, extent)| self.push(kind(format!("{name}{d}"), extent))).collect()
    }
}

/// Checks the element types of a product of two operands.
fn check_operands(a: &Type, b: &Type) -> Result<(), TypeError> {
    if a.dtype != b.dtype {
        type_error!("operands have different element types: {a} and {b}");
    }
    if !matches!(a.dtype.class(), Class::Int { .. } | Class::Float) {
        type_error!("expected integers or floats, found {}", a.dtype);
    }
    if a.rank() < 2 || a.rank() != b.rank() {
        type_error!("expected two operands of one rank of at least 2, found {a} and {b}");
    }
    Ok(())
}

/// The channels of one group.
fn per_group(channels: &Dim, groups: u64) -> Result<Dim, TypeError> {
    match channels.as_const() {
        Some(count) if groups > 0 && count % groups == 0 => Ok(Dim::Const(count / groups)),
        None if groups == 1 => Ok(channels.clone()),
        _ => type_error!("{channels} channels can not be split into {groups} groups"),
    }
}

/// The kernel extents at the end of a weight's type.
fn kernel_extents(w: &Type) -> Result<Vec<u64>, TypeError> {
    let extents: Option<Vec<u64>> = w.dims()[2..].iter().map(Dim::as_const).collect();
    match extents {
        Some(extents) if !extents.contains(&0) => Ok(extents),
        _ => type_error!("the kernel extents of {w} are not constants of at least 1"),
    }
}

impl<'a> Parts<'a> {
    /// The parts of `Conv`: the number of windows is computed.
    pub fn forward(
        windows: Windows<'a>,
        groups: u64,
        x: &Type,
        w: &Type,
    ) -> Result<Self, TypeError> {
        check_operands(x, w)?;
        windows.check(x.rank() - 2)?;
        let kernel = kernel_extents(w)?;
        let (c, o) = (per_group(&x.shape[1], groups)?, per_group(&w.shape[0], groups)?);
        if c != w.shape[1] {
            type_error!("kernels {w} do not match {c} channels per group of {x}");
        }
        let input = x.dims()[2..].to_vec();
        let output = windows.extents(&input, &kernel)?;
        Ok(Self { windows, groups, batch: x.shape[0].clone(), c, o, input, kernel, output })
    }

    /// The parts of `ConvTranspose`: the image's extents are given.
    pub fn transposed(
        windows: Windows<'a>,
        groups: u64,
        dy: &Type,
        w: &Type,
        size: &[Dim],
    ) -> Result<Self, TypeError> {
        check_operands(dy, w)?;
        windows.check(dy.rank() - 2)?;
        if size.len() != dy.rank() - 2 {
            type_error!("`size` has {} entries for {} spatial dims", size.len(), dy.rank() - 2);
        }
        let kernel = kernel_extents(w)?;
        let o = per_group(&dy.shape[1], groups)?;
        if dy.shape[1] != w.shape[0] {
            type_error!("kernels {w} do not match the channels of {dy}");
        }
        Ok(Self {
            windows,
            groups,
            batch: dy.shape[0].clone(),
            c: w.shape[1].clone(),
            o,
            input: size.to_vec(),
            kernel,
            output: dy.dims()[2..].to_vec(),
        })
    }

    /// The parts of `ConvWeightGrad`: the kernel's extents are given.
    pub fn weight_grad(
        windows: Windows<'a>,
        groups: u64,
        x: &Type,
        dy: &Type,
        kernel: &[u64],
    ) -> Result<Self, TypeError> {
        check_operands(x, dy)?;
        windows.check(x.rank() - 2)?;
        if kernel.len() != x.rank() - 2 || kernel.contains(&0) {
            type_error!("`kernel` is {kernel:?} for {} spatial dims", x.rank() - 2);
        }
        if x.shape[0] != dy.shape[0] {
            type_error!("operands have different batches: {x} and {dy}");
        }
        Ok(Self {
            windows,
            groups,
            batch: x.shape[0].clone(),
            c: per_group(&x.shape[1], groups)?,
            o: per_group(&dy.shape[1], groups)?,
            input: x.dims()[2..].to_vec(),
            kernel: kernel.to_vec(),
            output: dy.dims()[2..].to_vec(),
        })
    }

    fn channels(&self, per_group: &Dim) -> Result<Dim, TypeError> {
        match per_group.mul(&Dim::Const(self.groups)) {
            Some(channels) => Ok(channels),
            None => type_error!("{per_group} channels by {} groups are too many", self.groups),
        }
    }

    /// The type of x.
    pub fn x_type(&self, dtype: DType) -> Result<Type, TypeError> {
        let head = [self.batch.clone(), self.channels(&self.c)?];
        Ok(Type::new(dtype, Shape::new(head.into_iter().chain(self.input.iter().cloned()))))
    }

    /// The type of y.
    pub fn y_type(&self, dtype: DType) -> Result<Type, TypeError> {
        let head = [self.batch.clone(), self.channels(&self.o)?];
        Ok(Type::new(dtype, Shape::new(head.into_iter().chain(self.output.iter().cloned()))))
    }

    /// The type of w.
    pub fn w_type(&self, dtype: DType) -> Result<Type, TypeError> {
        let head = [self.channels(&self.o)?, self.c.clone()];
        let kernel = self.kernel.iter().map(|k| Dim::Const(*k));
        Ok(Type::new(dtype, Shape::new(head.into_iter().chain(kernel))))
    }

    /// The channel `within` the group of the loop `g`, of `per_group` channels each.
    fn channel(&self, per_group: &Dim, g: usize, within: usize) -> Affine {
        match per_group.as_const().map(i64::try_from) {
            Some(Ok(count)) if self.groups > 1 => Affine::new(&[(g, count), (within, 1)], 0),
            _ => Affine::dim(within),
        }
    }

    /// The index of x, with the given spatial part.
    pub fn x_index(&self, at: &Loops, spatial: Vec<Affine>) -> Vec<Affine> {
        let head = [Affine::dim(at.n), self.channel(&self.c, at.g, at.c)];
        head.into_iter().chain(spatial).collect()
    }

    /// The index of y, with the given spatial part.
    pub fn y_index(&self, at: &Loops, spatial: Vec<Affine>) -> Vec<Affine> {
        let head = [Affine::dim(at.n), self.channel(&self.o, at.g, at.o)];
        head.into_iter().chain(spatial).collect()
    }

    /// The index of w.
    pub fn w_index(&self, at: &Loops) -> Vec<Affine> {
        let head = [self.channel(&self.o, at.g, at.o), Affine::dim(at.c)];
        head.into_iter().chain(at.kernel.iter().map(|k| Affine::dim(*k))).collect()
    }

    /// The spatial part of x's index where the windows of the loops `output` meet it.
    pub fn met(&self, at: &Loops, output: &[usize]) -> Vec<Affine> {
        (0..output.len()).map(|d| self.windows.input_index(d, output[d], at.kernel[d])).collect()
    }
}

/// The rule of a sum of products of two operands.
pub(crate) fn sum_of_products(nest: Nest, reads: [Read; 2], dtype: DType, write: Write) -> Tiling {
    let acc = accumulator(dtype);
    let operand = |n| Expr::Convert(acc, Box::new(Expr::Operand(n)));
    Tiling::Loop(Access {
        dims: nest.0,
        operands: reads.into(),
        body: vec![Expr::binary(BinaryFn::Mul, acc, operand(0), operand(1))],
        combine: Combine::Reduce(Monoid::Sum, acc),
        results: vec![write],
    })
}

/// A read of which some points lie outside and then contribute nothing.
pub(crate) fn read_within(index: Vec<Affine>) -> Read {
    Read { index, outside: Outside::Nothing }
}

/// The extents of a convolution of concrete tensors.
pub(crate) struct Counts {
    pub batch: usize,
    pub groups: usize,
    pub c: usize,
    pub o: usize,
    /// Elements of one channel of x.
    pub input: usize,
    /// Elements of one channel of y.
    pub output: usize,
    /// Distance of neighbouring elements of a [`Segment`] in x.
    pub step: usize,
    /// Where each kernel position meets the input.
    pub taps: Vec<Vec<Segment>>,
}

impl Parts<'_> {
    /// The extents, all of which are constants when an op is evaluated.
    pub fn counts(&self) -> Result<Counts, EvalError> {
        let constant = |dim: &Dim| {
            dim.as_const().ok_or_else(|| EvalError::value(format!("extent {dim} is symbolic")))
        };
        let input: Vec<u64> = self.input.iter().map(constant).collect::<Result<_, _>>()?;
        let output: Vec<u64> = self.output.iter().map(constant).collect::<Result<_, _>>()?;
        Ok(Counts {
            batch: constant(&self.batch)? as usize,
            groups: self.groups as usize,
            c: constant(&self.c)? as usize,
            o: constant(&self.o)? as usize,
            input: input.iter().product::<u64>() as usize,
            output: output.iter().product::<u64>() as usize,
            step: self.windows.step(),
            taps: self.windows.taps(&input, &self.kernel, &output),
        })
    }
}

/// The error of an evaluation whose operands the shape rule would refuse.
pub(crate) fn refused(error: TypeError) -> EvalError {
    EvalError::value(error.0)
}

impl Conv {
    fn parts(&self, x: &Type, w: &Type) -> Result<Parts<'_>, TypeError> {
        let Self { stride, pad, dilation, groups } = self;
        Parts::forward(Windows { stride, dilation, pad }, *groups, x, w)
    }
}

impl OpDef for Conv {
    const NAMES: &'static [&'static str] = &["conv"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, w] = arity(args)?;
        Ok(vec![self.parts(x, w)?.y_type(x.dtype)?])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, w) = (&args[0], &args[1]);
        let parts = self.parts(&x.ty(), &w.ty()).map_err(refused)?;
        let ty = parts.y_type(x.dtype()).map_err(refused)?;
        let counts = parts.counts()?;
        let shape = ty.shape.as_const().unwrap_or_default();
        let y = with_arithmetic!(x.dtype(), T => {
            Tensor::from_vec(&shape, convolve::<T>(&counts, &widened(x), &widened(w)))
        });
        Ok(vec![narrowed(&y, ty.dtype)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (x, w) = (&args[0], &args[1]);
        let typed = self.parts(x, w).and_then(|p| Ok((p.y_type(x.dtype)?, p)));
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
        let write = Write { component: 0, dtype: ty.dtype, shape: ty.shape, index };
        sum_of_products(nest, reads, x.dtype, write)
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (x, w, dy) = (cx.args[0], cx.args[1], cx.cotangents[0]);
        let (x_ty, w_ty) = (cx.b.ty(x).clone(), cx.b.ty(w).clone());
        let parts = self.parts(&x_ty, &w_ty)?;
        let Self { stride, pad, dilation, groups } = self.clone();
        let to_x = ConvTranspose {
            stride: stride.clone(),
            pad: pad.clone(),
            dilation: dilation.clone(),
            groups,
            size: parts.input,
        };
        let to_w = ConvWeightGrad { stride, pad, dilation, groups, kernel: parts.kernel };
        Ok(vec![Some(cx.b.op(to_x, &[dy, w])?), Some(cx.b.op(to_w, &[x, dy])?)])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        geometries()
            .into_iter()
            .map(|(op, dtype, x, w)| {
                Sample::new(op, &[Type::of(dtype, &x), Type::of(dtype, &w)])
            })
            .collect()
    }
}

/// Convolutions of all kinds with the extents of x and w: samples of the whole family.
pub(crate) fn geometries() -> Vec<(Conv, DType, Vec<u64>, Vec<u64>)> {
    let conv = |stride: &[u64], pad: &[(i64, i64)], dilation: &[u64], groups| Conv {
        stride: stride.into(),
        pad: pad.into(),
        dilation: dilation.into(),
        groups,
    };
    let same = || conv(&[1, 1], &[(1, 1), (1, 1)], &[1, 1], 1);
    let f32s = |op: Conv, x: &[u64], w: &[u64]| (op, DType::F32, x.to_vec(), w.to_vec());
    let mut all = vec![
        f32s(same(), &[2, 3, 4, 5], &[4, 3, 3, 3]),
        // Pointwise, and strided pointwise.
        f32s(conv(&[1, 1], &[(0, 0); 2], &[1, 1], 1), &[2, 3, 2, 3], &[2, 3, 1, 1]),
        f32s(conv(&[2, 2], &[(0, 0); 2], &[1, 1], 1), &[1, 2, 4, 5], &[2, 2, 1, 1]),
        // Strides, dilations and pads that differ between dims and sides.
        f32s(conv(&[2, 3], &[(1, 0), (0, 2)], &[1, 2], 1), &[1, 2, 5, 7], &[3, 2, 2, 3]),
        f32s(conv(&[1, 2], &[(-1, 2), (1, -2)], &[2, 1], 1), &[1, 2, 6, 7], &[2, 2, 2, 3]),
        // A stride above the kernel leaves elements out; the last may meet no window.
        f32s(conv(&[3, 4], &[(0, 1), (1, 0)], &[1, 1], 1), &[1, 2, 7, 8], &[2, 2, 2, 2]),
        // More padding than kernel: windows that see nothing.
        f32s(conv(&[1], &[(3, 2)], &[1], 1), &[1, 2, 3], &[2, 2, 2]),
        // A dilated kernel wider than the image.
        f32s(conv(&[1], &[(4, 4)], &[4], 1), &[1, 1, 3], &[2, 1, 3]),
        // Groups, depthwise, and depthwise with a multiplier.
        f32s(conv(&[1], &[(1, 1)], &[1], 2), &[2, 4, 5], &[6, 2, 3]),
        f32s(conv(&[1, 1], &[(1, 1); 2], &[1, 1], 3), &[2, 3, 4, 4], &[3, 1, 3, 3]),
        f32s(conv(&[2, 2], &[(0, 1); 2], &[1, 1], 2), &[1, 2, 5, 5], &[4, 1, 3, 3]),
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
    for dtype in [DType::F64, DType::Bf16, DType::F16, DType::I32, DType::I8, DType::U8] {
        all.push((same(), dtype, vec![1, 2, 3, 4], vec![2, 2, 3, 3]));
    }
    all
}

/// Plane by plane of y: adds the contribution of one kernel element after the other, so that every
/// element of y is summed in the order that the op's documentation states.
fn convolve<T: Arithmetic>(counts: &Counts, x: &Tensor, w: &Tensor) -> Vec<T> {
    let (x, w) = (x.stored::<T>(), w.stored::<T>());
    let Counts { batch, groups, c, o, input, output, step, ref taps } = *counts;
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

    fn eval(op: &impl OpDef, args: &[Tensor]) -> Tensor {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
        op.eval(args, &mut EvalCx::new(&mut none)).unwrap().remove(0)
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
            let samples = O::samples().into_iter().filter(|s| s.args[0].ty.dtype == DType::F32);
            let mut compared = 0;
            for sample in samples {
                let types: Vec<Type> = sample.args.iter().map(|a| a.ty.clone()).collect();
                let args: Vec<Tensor> = types.iter().map(rough).collect();
                let Tiling::Loop(access) = sample.op.tiling(&types) else { panic!("not a loop") };
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
        let conv = Conv { stride: vec![1], pad: vec![(1, 1)], dilation: vec![1], groups: 1 };
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
        };
        let (x_shape, w_shape) = ([2u64, 4, 5, 4], [4u64, 2, 2, 2]);
        let x = rough(&Type::of(DType::F32, &x_shape)).convert(DType::F64);
        let w = rough(&Type::of(DType::F32, &w_shape)).convert(DType::F64);
        let y = eval(&op, &[x.clone(), w.clone()]);
        assert_eq!(y.shape(), [2, 4, 3, 3]);
        let at = |t: &Tensor, index: [u64; 4]| t.get(crate::tensor::ravel(&index, t.shape()) as usize);
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
}
