//! Reduction over sliding windows, and what it shares with the other poolings.

use super::arith::{Arithmetic, narrowed, widened, with_arithmetic};
use super::dot::{accumulator, convert};
use super::window::{Segment, Windows};
use super::{
    ArgMaxWindow, ConvTranspose, EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, ReduceKind,
    Reshape, Sample, ScatterElements, ScatterKind, Select, Tolerance, TypeError, arity,
};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Outside, Read, Tiling, Write};
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::{BinaryFn, Scalar, UnaryFn};
use crate::tensor::Tensor;
use crate::types::{Class, DType, Shape, Type};

op_struct! {
    /// Combines the elements in windows that slide over the last `window.len()` dims: along each of
    /// them `out[p] = combination over w of x[p*stride + w*dilation - pad.low]`, and there are
    /// `floor((extent + pad.low + pad.high - dilation*(window - 1) - 1) / stride) + 1` windows. The
    /// dims before stay as they are.
    ///
    /// Padding contributes nothing: a window that sees only padding gives the identity (0, 1, or the
    /// least or greatest value). The elements are combined in row-major order of the window; 16-bit
    /// floats are accumulated in f32 and rounded at the end, integers wrap. For bool, max is "any"
    /// and min is "all".
    ReduceWindow {
        /// How elements are combined.
        kind: ReduceKind,
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

/// The windows of a pooling and the type that they slide over.
pub(crate) struct Pool<'a> {
    pub windows: Windows<'a>,
    pub window: &'a [u64],
    pub x: Type,
    /// Number of windows along each of the last dims.
    pub output: Vec<Dim>,
}

impl<'a> Pool<'a> {
    pub fn new(windows: Windows<'a>, window: &'a [u64], x: &Type) -> Result<Self, TypeError> {
        if window.len() > x.rank() {
            type_error!("a window of {} dims does not slide over {x}", window.len());
        }
        if window.contains(&0) {
            type_error!("a window of {window:?} is empty");
        }
        windows.check(window.len())?;
        let output = windows.extents(&x.dims()[x.rank() - window.len()..], window)?;
        Ok(Self {
            windows,
            window,
            x: x.clone(),
            output,
        })
    }

    /// The dims before the windows.
    pub fn leading(&self) -> &[Dim] {
        &self.x.dims()[..self.x.rank() - self.window.len()]
    }

    /// The dims that the windows slide over.
    pub fn trailing(&self) -> &[Dim] {
        &self.x.dims()[self.x.rank() - self.window.len()..]
    }

    /// The type of the result.
    pub fn result(&self, dtype: DType) -> Type {
        Type::new(
            dtype,
            Shape::new(self.leading().iter().chain(&self.output).cloned()),
        )
    }

    /// The loops (leading dims, windows, elements of the window), the position of the first loop
    /// over elements, and the read of x.
    pub fn loops(&self) -> (Vec<LoopDim>, usize, Read) {
        let rank = self.leading().len();
        let first = rank + self.window.len();
        let name = |d: usize| {
            if d < rank {
                format!("d{d}")
            } else {
                format!("p{}", d - rank)
            }
        };
        let result = self.leading().iter().chain(&self.output).enumerate();
        let mut dims: Vec<LoopDim> = result
            .map(|(d, extent)| LoopDim::parallel(name(d), extent.clone()))
            .collect();
        let window = self.window.iter().enumerate();
        dims.extend(window.map(|(d, w)| LoopDim::reduction(format!("w{d}"), Dim::Const(*w))));
        let windows =
            (0..self.window.len()).map(|d| self.windows.input_index(d, rank + d, first + d));
        let index = (0..rank).map(Affine::dim).chain(windows).collect();
        (
            dims,
            first,
            Read {
                index,
                outside: Outside::Nothing,
            },
        )
    }

    /// For each element of a window, where it meets the input; and the numbers of elements of one
    /// plane of x and of the result, which is all that an evaluation needs.
    pub fn planes(&self) -> (Vec<Vec<Segment>>, usize, usize) {
        let constant =
            |dims: &[Dim]| -> Vec<u64> { dims.iter().filter_map(Dim::as_const).collect() };
        let (input, output) = (constant(self.trailing()), constant(&self.output));
        let count = |extents: &[u64]| extents.iter().product::<u64>() as usize;
        (
            self.windows.taps(&input, self.window, &output),
            count(&input),
            count(&output),
        )
    }

    /// Number of planes.
    pub fn plane_count(&self) -> usize {
        self.leading()
            .iter()
            .filter_map(Dim::as_const)
            .product::<u64>() as usize
    }

    fn elements(dims: &[Dim]) -> Result<Dim, TypeError> {
        match Shape::new(dims.iter().cloned()).elements() {
            Some(count) => Ok(count),
            None => type_error!("{} has too many elements", Shape::new(dims.iter().cloned())),
        }
    }

    /// Adds every element of `dy` (one per window) to all elements of x that its window sees: the
    /// gradient of the sum.
    pub fn spread(&self, b: &mut FunctionBuilder, dy: ValueId) -> Result<ValueId, TypeError> {
        let planes = Self::elements(self.leading())?;
        let head = [planes, Dim::Const(1)];
        let shape = head
            .into_iter()
            .chain(self.output.iter().cloned())
            .collect();
        let images = b.op(Reshape { shape }, &[dy])?;
        let dtype = b.ty(dy).dtype;
        let kernel = [1, 1]
            .into_iter()
            .chain(self.window.iter().copied())
            .map(Dim::Const);
        let ones = b.full(dtype, &Shape::new(kernel), Scalar::one(dtype));
        let op = ConvTranspose {
            stride: self.windows.stride.to_vec(),
            pad: self.windows.pad.to_vec(),
            dilation: self.windows.dilation.to_vec(),
            groups: 1,
            size: self.trailing().to_vec(),
        };
        let spread = b.op(op, &[images, ones])?;
        b.op(
            Reshape {
                shape: self.x.dims().to_vec(),
            },
            &[spread],
        )
    }

    /// Adds every element of `dy` (one per window) to the element of x that `indices` names: the
    /// gradient of the extreme.
    pub fn scatter(
        &self,
        b: &mut FunctionBuilder,
        dy: ValueId,
        indices: ValueId,
    ) -> Result<ValueId, TypeError> {
        let dtype = b.ty(dy).dtype;
        let wide = accumulator(dtype);
        if self.x.shape.max_elements() == Some(0) {
            return Ok(b.full(dtype, &self.x.shape, Scalar::zero(dtype)));
        }
        let (planes, size) = (
            Self::elements(self.leading())?,
            Self::elements(self.trailing())?,
        );
        let mut updates = convert(b, dy, wide)?;
        if self.some_see_nothing() {
            // Their index stands for no element.
            let ones = b.full(
                wide,
                &Shape::new(self.trailing().iter().cloned()),
                Scalar::one(wide),
            );
            let seen = b.op(self.sums(self.windows.pad.to_vec()), &[ones])?;
            let zero = b.scalar(wide, 0.0);
            let any = b.op(BinaryFn::Gt, &[seen, zero])?;
            updates = b.op(Select {}, &[any, updates, zero])?;
        }
        let flat = Reshape {
            shape: vec![planes.clone(), Self::elements(&self.output)?],
        };
        let updates = b.op(flat.clone(), &[updates])?;
        let indices = b.op(flat, &[indices])?;
        let zeros = b.full(wide, &Shape::new([planes, size]), Scalar::zero(wide));
        let add = ScatterElements {
            axis: 1,
            combine: ScatterKind::Add,
        };
        let sums = b.op(add, &[zeros, indices, updates])?;
        let sums = b.op(
            Reshape {
                shape: self.x.dims().to_vec(),
            },
            &[sums],
        )?;
        convert(b, sums, dtype)
    }

    /// The sum over the same windows with another padding.
    pub fn sums(&self, pad: Vec<(i64, i64)>) -> ReduceWindow {
        ReduceWindow {
            kind: ReduceKind::Sum,
            window: self.window.to_vec(),
            stride: self.windows.stride.to_vec(),
            dilation: self.windows.dilation.to_vec(),
            pad,
        }
    }

    /// Whether there may be windows that see only padding.
    fn some_see_nothing(&self) -> bool {
        (0..self.window.len()).any(|d| match (&self.trailing()[d], &self.output[d]) {
            (Dim::Const(input), Dim::Const(output)) => (0..*output)
                .any(|p| self.windows.seen(d, p, self.window[d], (0, *input as i64)) == 0),
            _ => true,
        })
    }
}

impl ReduceWindow {
    fn pool(&self, x: &Type) -> Result<Pool<'_>, TypeError> {
        let Self {
            window,
            stride,
            dilation,
            pad,
            ..
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
}

impl OpDef for ReduceWindow {
    const NAMES: &'static [&'static str] = &["reduce_window"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        self.kind.check(x.dtype)?;
        Ok(vec![self.pool(x)?.result(x.dtype)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let pool = self.pool(&x.ty()).map_err(|e| EvalError::value(e.0))?;
        let shape = pool.result(x.dtype()).shape.as_const().unwrap_or_default();
        let y = with_arithmetic!(x.dtype(), T => {
            Tensor::from_vec(&shape, combine::<T>(&pool, &widened(x), self.kind))
        });
        Ok(vec![narrowed(&y, x.dtype())])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let x = &args[0];
        let pool = self.pool(x).expect("the shape rule accepted the operand");
        let acc = accumulator(x.dtype);
        let (dims, _, read) = pool.loops();
        Tiling::Loop(Access {
            dims,
            operands: vec![read],
            body: vec![Expr::Convert(acc, Box::new(Expr::Operand(0)))],
            combine: Combine::Reduce(self.kind.monoid(), acc),
            results: vec![Write::identity(&pool.result(x.dtype))],
        })
    }

    /// The gradient of an extreme goes to the first element that has it.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (x, dy) = (cx.args[0], cx.cotangents[0]);
        let ty = cx.b.ty(x).clone();
        if ty.dtype.class() != Class::Float {
            return Ok(vec![None]);
        }
        let pool = self.pool(&ty)?;
        let searched = match self.kind {
            ReduceKind::Sum => return Ok(vec![Some(pool.spread(cx.b, dy)?)]),
            ReduceKind::Prod => return Err(NoGrad::NoRule),
            ReduceKind::Max => x,
            ReduceKind::Min => cx.b.op(UnaryFn::Neg, &[x])?,
        };
        let Self {
            window,
            stride,
            dilation,
            pad,
            ..
        } = self.clone();
        let extremes = cx.b.node(
            ArgMaxWindow {
                window,
                stride,
                dilation,
                pad,
            },
            &[searched],
        )?;
        Ok(vec![Some(pool.scatter(cx.b, dy, extremes[1])?)])
    }

    fn tolerance(&self) -> Tolerance {
        match self.kind {
            ReduceKind::Sum | ReduceKind::Prod => Tolerance::Roundings(4.0),
            ReduceKind::Max | ReduceKind::Min => Tolerance::Exact,
        }
    }

    fn samples() -> Vec<Sample> {
        let mut samples = vec![];
        for kind in [
            ReduceKind::Sum,
            ReduceKind::Prod,
            ReduceKind::Max,
            ReduceKind::Min,
        ] {
            let extreme = matches!(kind, ReduceKind::Max | ReduceKind::Min);
            let distinct = |sample: Sample| if extreme { sample.distinct(0) } else { sample };
            for geometry in geometries() {
                let sample = Sample::new(geometry.reduce(kind), &[geometry.x(DType::F32)]);
                samples.push(distinct(sample));
            }
            let mut dtypes = vec![DType::F64, DType::Bf16, DType::F16, DType::I32, DType::U8];
            if extreme {
                dtypes.push(DType::Bool);
            }
            for dtype in dtypes {
                let geometry = &geometries()[1];
                let sample = Sample::new(geometry.reduce(kind), &[geometry.x(dtype)]);
                samples.push(if dtype.is_float() {
                    distinct(sample)
                } else {
                    sample
                });
            }
        }
        samples
    }
}

/// Combines plane by plane, one element of all windows after the other.
fn combine<T: Arithmetic>(pool: &Pool<'_>, x: &Tensor, kind: ReduceKind) -> Vec<T> {
    let (identity, f): (T, fn(T, T) -> T) = match kind {
        ReduceKind::Sum => (T::ZERO, T::plus),
        ReduceKind::Prod => (T::ONE, T::times),
        ReduceKind::Max => (T::LEAST, T::larger),
        ReduceKind::Min => (T::GREATEST, T::smaller),
    };
    let x = x.stored::<T>();
    let (taps, input, output) = pool.planes();
    let step = pool.windows.step();
    let mut y = vec![identity; pool.plane_count() * output];
    if input == 0 || output == 0 {
        return y;
    }
    for (results, image) in y.chunks_exact_mut(output).zip(x.chunks_exact(input)) {
        for s in taps.iter().flatten() {
            let met = image[s.input..].iter().step_by(step);
            for (result, x) in results[s.output..s.output + s.len].iter_mut().zip(met) {
                *result = f(*result, *x);
            }
        }
    }
    y
}

/// Windows over a tensor: samples of all poolings.
pub(crate) struct Geometry {
    pub x: Vec<u64>,
    pub window: Vec<u64>,
    pub stride: Vec<u64>,
    pub dilation: Vec<u64>,
    pub pad: Vec<(i64, i64)>,
}

impl Geometry {
    pub fn x(&self, dtype: DType) -> Type {
        Type::of(dtype, &self.x)
    }

    fn reduce(&self, kind: ReduceKind) -> ReduceWindow {
        ReduceWindow {
            kind,
            window: self.window.clone(),
            stride: self.stride.clone(),
            dilation: self.dilation.clone(),
            pad: self.pad.clone(),
        }
    }
}

/// Windows of all kinds.
pub(crate) fn geometries() -> Vec<Geometry> {
    let make = |x: &[u64], window: &[u64], stride: &[u64], dilation: &[u64], pad: &[(i64, i64)]| {
        Geometry {
            x: x.into(),
            window: window.into(),
            stride: stride.into(),
            dilation: dilation.into(),
            pad: pad.into(),
        }
    };
    vec![
        make(&[2, 1, 4, 4], &[2, 2], &[2, 2], &[1, 1], &[(0, 0); 2]),
        // Overlapping windows with padding on all sides.
        make(&[1, 2, 4, 5], &[3, 3], &[2, 2], &[1, 1], &[(1, 1); 2]),
        make(&[1, 5, 6], &[2, 3], &[1, 2], &[2, 1], &[(0, 1), (2, 0)]),
        make(&[2, 7], &[3], &[1], &[2], &[(-1, 2)]),
        // A stride above the window; the last dim is not reached by all of it.
        make(&[1, 8], &[2], &[3], &[1], &[(0, -1)]),
        // Windows that see only padding.
        make(&[1, 2, 3], &[2], &[1], &[1], &[(3, 2)]),
        make(
            &[1, 3, 3, 4],
            &[2, 2, 2],
            &[1, 2, 2],
            &[1, 1, 1],
            &[(0, 0), (1, 0), (0, 0)],
        ),
        // No dims, no planes, no windows.
        make(&[3], &[], &[], &[], &[]),
        make(&[0, 4], &[2], &[1], &[1], &[(0, 0)]),
        make(&[2, 1], &[2], &[1], &[1], &[(0, 0)]),
    ]
}
