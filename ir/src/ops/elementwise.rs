//! Element-wise ops of one and two operands, one line each in the tables of [`crate::scalar`].

use super::arity;
use super::grad::{Formula, unbroadcast};
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, Op, OpDef, Sample, Tolerance, TypeError};
use crate::access::{Access, Combine, Expr, LoopDim, Read, Tiling, Write};
use crate::attr::{AttrError, AttrSpec, Attrs, OpFields, refuse_unknown};
use crate::graph::{RegionType, ValueId};
use crate::scalar::{BinaryFn, Domain, Scalar, UnaryFn};
use crate::tensor::{Tensor, ravel, strides};
use crate::types::{DType, Type, broadcast_shapes};

/// An element-wise op of one operand: `exp %x : f32[4]`. The result has the operand's shape.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Unary(pub UnaryFn);

/// An element-wise op of two operands of one element type: `add %a, %b : f32[4, 3]`. Shapes
/// broadcast: aligned at the last dim, an extent of 1 stretches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Binary(pub BinaryFn);

macro_rules! family_fields {
    ($($op:ident $fns:ident $suffix:literal),+) => {$(
        impl OpFields for $op {
            fn doc(name: &str) -> String {
                $fns::parse(name).map_or(String::new(), |f| format!("{} {}", f.doc(), $suffix))
            }
            fn schema() -> Vec<AttrSpec> {
                vec![]
            }
            fn parse_fields(name: &str, attrs: &Attrs) -> Result<Self, AttrError> {
                refuse_unknown(attrs, &[])?;
                $fns::parse(name).map($op).ok_or_else(|| AttrError {
                    attr: String::new(),
                    message: format!("there is no op `{name}`"),
                })
            }
            fn to_attrs(&self) -> Attrs {
                Attrs::default()
            }
        }
    )+};
}
family_fields!(
    Unary UnaryFn "Element by element.",
    Binary BinaryFn "Element by element; shapes broadcast, aligned at the last dim."
);

fn checked(domain: Domain, dtype: DType) -> Result<DType, TypeError> {
    match domain.result(dtype) {
        Some(result) => Ok(result),
        None => type_error!("expected {}, found {dtype}", domain.describe()),
    }
}

fn element_wise(args: &[Type], result: &Type, body: Expr) -> Tiling {
    let rank = result.rank();
    let dims = result
        .dims()
        .iter()
        .enumerate()
        .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()));
    Tiling::Loop(Access {
        dims: dims.collect(),
        operands: args
            .iter()
            .map(|ty| Read::broadcast(&ty.shape, rank))
            .collect(),
        body: vec![body],
        combine: Combine::Assign,
        results: vec![Write::identity(result)],
    })
}

/// The element types that the samples of a domain use.
fn sample_dtypes(domain: Domain) -> Vec<DType> {
    [
        DType::F32,
        DType::Bf16,
        DType::F16,
        DType::I8,
        DType::U64,
        DType::Bool,
    ]
    .into_iter()
    .filter(|dtype| domain.result(*dtype).is_some())
    .collect()
}

/// Values at the ends of the range of `dtype` and around zero, as a row or a column.
fn special(dtype: DType, row: bool) -> Tensor {
    let values = match dtype.int_range() {
        Some((low, high)) => [low, low + 1, -1, 0, 1, 7, 8, high].map(Scalar::Int),
        None => {
            let inf = f64::INFINITY;
            let values = [f64::NAN, inf, -inf, 0.0, -0.0, 1e-40, -1.5, 3e38];
            values.map(|value| Scalar::from_f64(value, dtype))
        }
    };
    let count = values.len() as u64;
    let shape = if row { [1, count] } else { [count, 1] };
    Tensor::from_scalars(dtype, &shape, values)
}

impl OpDef for Unary {
    const NAMES: &'static [&'static str] = UnaryFn::NAMES;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        Ok(vec![x.with_dtype(checked(self.0.domain(), x.dtype)?)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let dtype = self.0.domain().result(x.dtype()).unwrap_or(x.dtype());
        let values = x.scalars().map(|s| self.0.apply(s, x.dtype()));
        Ok(vec![Tensor::from_scalars(dtype, x.shape(), values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let dtype = args[0].dtype;
        let result = args[0].with_dtype(self.0.domain().result(dtype).unwrap_or(dtype));
        element_wise(args, &result, Expr::unary(self.0, dtype, Expr::Operand(0)))
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let dtype = cx.b.ty(cx.args[0]).dtype;
        if !dtype.is_float() {
            return Ok(vec![None]);
        }
        let mut m = Formula::new(cx.b, dtype);
        let grad = unary_grad(self.0, &mut m, cx.args[0], cx.results[0], cx.cotangents[0])?;
        Ok(vec![grad])
    }

    fn samples() -> Vec<Sample> {
        let mut samples = vec![];
        for &f in UnaryFn::ALL {
            for dtype in sample_dtypes(f.domain()) {
                let sample = Sample::new(Unary(f), &[Type::of(dtype, &[2, 3])]);
                samples.push(match f {
                    UnaryFn::Log | UnaryFn::Sqrt | UnaryFn::Rsqrt | UnaryFn::Recip => {
                        sample.range(0, 0.25, 4.0)
                    }
                    UnaryFn::Log1p | UnaryFn::Asin | UnaryFn::Acos | UnaryFn::Atanh => {
                        sample.range(0, -0.75, 0.75)
                    }
                    UnaryFn::Acosh => sample.range(0, 1.25, 4.0),
                    UnaryFn::Tan => sample.range(0, -1.0, 1.0),
                    UnaryFn::Abs
                    | UnaryFn::Sign
                    | UnaryFn::Floor
                    | UnaryFn::Ceil
                    | UnaryFn::Round
                    | UnaryFn::Trunc
                        if dtype.is_float() =>
                    {
                        sample.range(0, 0.125, 0.375)
                    }
                    _ => sample,
                });
            }
        }
        for (f, dtype) in UnaryFn::ALL
            .iter()
            .flat_map(|f| [(*f, DType::F32), (*f, DType::I8)])
        {
            if f.domain().result(dtype).is_some() {
                let x = special(dtype, true);
                samples.push(Sample::new(Unary(f), &[x.ty()]).given(0, x).no_grad());
            }
        }
        samples.push(Sample::new(
            Unary(UnaryFn::Exp),
            &[Type::scalar(DType::F64)],
        ));
        samples.push(Sample::new(
            Unary(UnaryFn::Neg),
            &[Type::of(DType::I64, &[3, 0])],
        ));
        samples
    }
}

impl OpDef for Binary {
    const NAMES: &'static [&'static str] = BinaryFn::NAMES;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [a, b] = arity(args)?;
        if a.dtype != b.dtype {
            type_error!("operands have different element types: {a} and {b}");
        }
        let Some(shape) = broadcast_shapes([&a.shape, &b.shape]) else {
            type_error!("shapes do not broadcast: {a} and {b}");
        };
        Ok(vec![Type::new(checked(self.0.domain(), a.dtype)?, shape)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (a, b) = (&args[0], &args[1]);
        let dtype = self.0.domain().result(a.dtype()).unwrap_or(a.dtype());
        if a.shape() == b.shape() {
            let values = a
                .scalars()
                .zip(b.scalars())
                .map(|(x, y)| self.0.apply(x, y, a.dtype()));
            return Ok(vec![Tensor::from_scalars(dtype, a.shape(), values)]);
        }
        let shape = broadcast_extents(a.shape(), b.shape());
        let at = |x: &Tensor| broadcast_positions(x.shape(), &shape);
        let values = at(a)
            .into_iter()
            .zip(at(b))
            .map(|(i, j)| self.0.apply(a.get(i), b.get(j), a.dtype()));
        Ok(vec![Tensor::from_scalars(dtype, &shape, values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let dtype = args[0].dtype;
        let shape = broadcast_shapes([&args[0].shape, &args[1].shape]);
        let result = Type::new(
            self.0.domain().result(dtype).unwrap_or(dtype),
            shape.unwrap_or_else(|| args[0].shape.clone()),
        );
        let body = Expr::binary(self.0, dtype, Expr::Operand(0), Expr::Operand(1));
        element_wise(args, &result, body)
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let [a, b] = [cx.args[0], cx.args[1]];
        let dtype = cx.b.ty(a).dtype;
        if !dtype.is_float() {
            return Ok(vec![None, None]);
        }
        let mut m = Formula::new(cx.b, dtype);
        let grads = binary_grad(self.0, &mut m, [a, b], cx.results[0], cx.cotangents[0])?;
        let mut reduced = vec![];
        for (operand, grad) in [a, b].into_iter().zip(grads) {
            let shape = cx.b.ty(operand).shape.clone();
            reduced.push(
                grad.map(|grad| unbroadcast(cx.b, grad, &shape))
                    .transpose()?,
            );
        }
        Ok(reduced)
    }

    fn samples() -> Vec<Sample> {
        let mut samples = vec![];
        for &f in BinaryFn::ALL {
            for dtype in sample_dtypes(f.domain()) {
                let pair = |a: &[u64], b: &[u64]| {
                    let sample = Sample::new(Binary(f), &[Type::of(dtype, a), Type::of(dtype, b)]);
                    match f {
                        BinaryFn::Pow if dtype.is_float() => {
                            sample.range(0, 0.25, 2.0).range(1, -2.0, 2.0)
                        }
                        BinaryFn::Pow => sample.range(1, 0.0, 3.0),
                        BinaryFn::Div if dtype.is_float() => sample.range(1, 0.5, 2.0),
                        BinaryFn::Rem | BinaryFn::Mod if dtype.is_float() => {
                            sample.range(0, 4.25, 4.75).range(1, 3.0, 4.0)
                        }
                        BinaryFn::Max | BinaryFn::Min => sample.distinct(0).range(1, 0.1, 0.2),
                        _ => sample,
                    }
                };
                samples.push(pair(&[2, 3], &[2, 3]));
                samples.push(pair(&[2, 1, 3], &[4, 1]));
            }
            for dtype in [DType::F32, DType::I8] {
                if f.domain().result(dtype).is_some() {
                    let (a, b) = (special(dtype, false), special(dtype, true));
                    let sample = Sample::new(Binary(f), &[a.ty(), b.ty()]);
                    samples.push(sample.given(0, a).given(1, b).no_grad());
                }
            }
            let dtype = if f.domain().result(DType::F32).is_some() {
                DType::F32
            } else {
                DType::I32
            };
            let empty = [Type::of(dtype, &[1, 2]), Type::of(dtype, &[0, 1])];
            samples.push(Sample::new(Binary(f), &empty));
        }
        samples
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact
    }
}

/// The gradient of `y = f(x)` for floats, given that of y (`g`); `None` where f is constant in
/// pieces.
fn unary_grad(
    f: UnaryFn,
    m: &mut Formula<'_>,
    x: ValueId,
    y: ValueId,
    g: ValueId,
) -> Result<Option<ValueId>, TypeError> {
    Ok(Some(match f {
        UnaryFn::Abs => {
            let sign = m.unary(UnaryFn::Sign, x)?;
            m.mul(g, sign)?
        }
        UnaryFn::Neg => m.neg(g)?,
        UnaryFn::Exp => m.mul(g, y)?,
        UnaryFn::Log => m.div(g, x)?,
        UnaryFn::Log1p => {
            let shifted = m.plus(x, 1.0)?;
            m.div(g, shifted)?
        }
        UnaryFn::Expm1 => {
            let exp = m.plus(y, 1.0)?;
            m.mul(g, exp)?
        }
        UnaryFn::Sqrt => {
            let half = m.times(g, 0.5)?;
            m.div(half, y)?
        }
        UnaryFn::Rsqrt => {
            let slope = m.div(y, x)?;
            let slope = m.times(slope, -0.5)?;
            m.mul(g, slope)?
        }
        UnaryFn::Recip => {
            let square = m.mul(y, y)?;
            let product = m.mul(g, square)?;
            m.neg(product)?
        }
        UnaryFn::Sin => {
            let cos = m.unary(UnaryFn::Cos, x)?;
            m.mul(g, cos)?
        }
        UnaryFn::Cos => {
            let sin = m.unary(UnaryFn::Sin, x)?;
            let product = m.mul(g, sin)?;
            m.neg(product)?
        }
        UnaryFn::Tan => {
            let square = m.mul(y, y)?;
            let slope = m.plus(square, 1.0)?;
            m.mul(g, slope)?
        }
        UnaryFn::Asin | UnaryFn::Acos => {
            let square = m.mul(x, x)?;
            let rest = m.one_minus(square)?;
            let root = m.unary(UnaryFn::Sqrt, rest)?;
            let grad = m.div(g, root)?;
            if f == UnaryFn::Asin {
                grad
            } else {
                m.neg(grad)?
            }
        }
        UnaryFn::Atan => {
            let square = m.mul(x, x)?;
            let divisor = m.plus(square, 1.0)?;
            m.div(g, divisor)?
        }
        UnaryFn::Sinh => {
            let cosh = m.unary(UnaryFn::Cosh, x)?;
            m.mul(g, cosh)?
        }
        UnaryFn::Cosh => {
            let sinh = m.unary(UnaryFn::Sinh, x)?;
            m.mul(g, sinh)?
        }
        UnaryFn::Tanh => {
            let square = m.mul(y, y)?;
            let slope = m.one_minus(square)?;
            m.mul(g, slope)?
        }
        UnaryFn::Asinh | UnaryFn::Acosh => {
            let square = m.mul(x, x)?;
            let sum = m.plus(square, if f == UnaryFn::Asinh { 1.0 } else { -1.0 })?;
            let root = m.unary(UnaryFn::Sqrt, sum)?;
            m.div(g, root)?
        }
        UnaryFn::Atanh => {
            let square = m.mul(x, x)?;
            let divisor = m.one_minus(square)?;
            m.div(g, divisor)?
        }
        UnaryFn::Erf => {
            let square = m.mul(x, x)?;
            let exponent = m.neg(square)?;
            let bell = m.unary(UnaryFn::Exp, exponent)?;
            let slope = m.times(bell, std::f64::consts::FRAC_2_SQRT_PI)?;
            m.mul(g, slope)?
        }
        UnaryFn::Sigmoid => {
            let rest = m.one_minus(y)?;
            let slope = m.mul(y, rest)?;
            m.mul(g, slope)?
        }
        UnaryFn::Sign | UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round | UnaryFn::Trunc => {
            return Ok(None);
        }
        UnaryFn::Not | UnaryFn::IsNan | UnaryFn::IsInf => return Ok(None),
    }))
}

/// The gradients of `y = f(a, b)` for floats, given that of y (`g`), in the shape of y. Where a
/// maximum or minimum is a tie, each operand gets half. The exponent of a power has no influence
/// at the base 0, whose logarithm is infinite, and no base has influence at the exponent 0.
fn binary_grad(
    f: BinaryFn,
    m: &mut Formula<'_>,
    [a, b]: [ValueId; 2],
    y: ValueId,
    g: ValueId,
) -> Result<[Option<ValueId>; 2], TypeError> {
    let [ga, gb] = match f {
        BinaryFn::Add => [g, g],
        BinaryFn::Sub => [g, m.neg(g)?],
        BinaryFn::Mul => [m.mul(g, b)?, m.mul(g, a)?],
        BinaryFn::Div => {
            let ga = m.div(g, b)?;
            let product = m.mul(ga, y)?;
            [ga, m.neg(product)?]
        }
        BinaryFn::Pow => {
            let zero = m.number(0.0);
            let lower = m.plus(b, -1.0)?;
            let power = m.binary(BinaryFn::Pow, a, lower)?;
            let slope = m.mul(b, power)?;
            let slope = m.select((BinaryFn::Eq, b, zero), zero, slope)?;
            let log = m.unary(UnaryFn::Log, a)?;
            let growth = m.mul(y, log)?;
            let growth = m.select((BinaryFn::Eq, a, zero), zero, growth)?;
            [m.mul(g, slope)?, m.mul(g, growth)?]
        }
        BinaryFn::Max | BinaryFn::Min => {
            let zero = m.number(0.0);
            let half = m.times(g, 0.5)?;
            let wins = if f == BinaryFn::Max {
                BinaryFn::Gt
            } else {
                BinaryFn::Lt
            };
            let mut share = |one, other| {
                let tied = m.select((BinaryFn::Eq, one, other), half, zero)?;
                m.select((wins, one, other), g, tied)
            };
            [share(a, b)?, share(b, a)?]
        }
        BinaryFn::Rem | BinaryFn::Mod => {
            let quotient = m.div(a, b)?;
            let round = if f == BinaryFn::Rem {
                UnaryFn::Trunc
            } else {
                UnaryFn::Floor
            };
            let whole = m.unary(round, quotient)?;
            let product = m.mul(g, whole)?;
            [g, m.neg(product)?]
        }
        BinaryFn::And | BinaryFn::Or | BinaryFn::Xor | BinaryFn::Shl | BinaryFn::Shr => {
            return Ok([None, None]);
        }
        BinaryFn::Eq | BinaryFn::Ne | BinaryFn::Lt | BinaryFn::Le | BinaryFn::Gt | BinaryFn::Ge => {
            return Ok([None, None]);
        }
    };
    Ok([Some(ga), Some(gb)])
}

/// The extents that two shapes broadcast to, when the shape rule has accepted them.
pub(crate) fn broadcast_extents(a: &[u64], b: &[u64]) -> Vec<u64> {
    let rank = a.len().max(b.len());
    let at = |shape: &[u64], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or(1, |axis| shape[axis])
    };
    (0..rank)
        .map(|axis| {
            if at(a, axis) == 1 {
                at(b, axis)
            } else {
                at(a, axis)
            }
        })
        .collect()
}

/// The row-major position in an operand of `shape` that broadcasts to `index`.
pub(crate) fn broadcast_position(index: &[u64], shape: &[u64]) -> usize {
    let skip = index.len() - shape.len();
    let own: Vec<u64> = index[skip..]
        .iter()
        .zip(shape)
        .map(|(i, d)| if *d == 1 { 0 } else { *i })
        .collect();
    ravel(&own, shape) as usize
}

/// For each index of `shape` in row-major order, the sum of `step * index`.
pub(crate) fn strided_positions(shape: &[u64], steps: &[u64]) -> Vec<usize> {
    // Large extents before one of zero must not be spelled out.
    if shape.contains(&0) {
        return vec![];
    }
    let mut positions = vec![0];
    for (extent, step) in shape.iter().zip(steps) {
        let along = |start: &usize| {
            let start = *start;
            (0..*extent).map(move |i| start + (i * step) as usize)
        };
        positions = positions.iter().flat_map(along).collect();
    }
    positions
}

/// For each element of `result` in row-major order, the position in an operand of `shape` that
/// broadcasts to it.
pub(crate) fn broadcast_positions(shape: &[u64], result: &[u64]) -> Vec<usize> {
    let mut steps = vec![0; result.len() - shape.len()];
    let own = shape.iter().zip(strides(shape));
    steps.extend(own.map(|(extent, step)| if *extent == 1 { 0 } else { step }));
    strided_positions(result, &steps)
}

impl From<UnaryFn> for Op {
    fn from(f: UnaryFn) -> Self {
        Op::Unary(Unary(f))
    }
}

impl From<BinaryFn> for Op {
    fn from(f: BinaryFn) -> Self {
        Op::Binary(Binary(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::FunctionBuilder;
    use crate::graph::eval::run_function;

    /// The gradients of `f` at pairs of values, for the gradient 1 of each result.
    fn slopes(f: BinaryFn, a: &[f64], b: &[f64]) -> [Vec<f64>; 2] {
        let [a, b] = [a, b].map(|x| Tensor::from_vec(&[x.len() as u64], x.to_vec()));
        let mut builder = FunctionBuilder::new("slopes");
        let args = [&a, &b].map(|x| builder.param(x.ty(), None));
        let y = builder.op(f, &args).unwrap();
        let one = builder.scalar(DType::F64, 1.0);
        let zero = builder.full(DType::F64, &a.ty().shape, Scalar::F64(0.0));
        let g = builder.op(BinaryFn::Add, &[zero, one]).unwrap();
        let mut cx = GradCx {
            b: &mut builder,
            args: &args,
            results: &[y],
            cotangents: &[g],
        };
        let grads = Binary(f).grad(&mut cx).unwrap();
        let func = builder.finish_unnamed(&grads.into_iter().flatten().collect::<Vec<_>>());
        let results = run_function(&func, &[a, b]).unwrap();
        [results[0].to_f64s(), results[1].to_f64s()]
    }

    #[test]
    fn ties_share_the_gradient_of_an_extreme() {
        let (a, b) = ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]);
        let [low, high] = [vec![0.0, 0.5, 1.0], vec![1.0, 0.5, 0.0]];
        assert_eq!(slopes(BinaryFn::Max, &a, &b), [low.clone(), high.clone()]);
        assert_eq!(slopes(BinaryFn::Min, &a, &b), [high, low]);
    }

    #[test]
    fn powers_have_finite_gradients_at_zero() {
        // x^2 at 0, x^0 at 0, and the square of a negative number, whose logarithm is not real.
        let [base, exponent] = slopes(BinaryFn::Pow, &[0.0, 0.0, -3.0], &[2.0, 0.0, 2.0]);
        assert_eq!(base, [0.0, 0.0, -6.0]);
        assert_eq!(exponent[..2], [0.0, 0.0]);
        assert!(exponent[2].is_nan());
    }

    #[test]
    fn broadcasting_reads_each_operand_where_numpy_does() {
        assert_eq!(
            broadcast_positions(&[2, 1], &[3, 2, 2]),
            [0, 0, 1, 1].repeat(3)
        );
        assert_eq!(broadcast_positions(&[], &[2, 2]), [0; 4]);
        assert_eq!(broadcast_positions(&[1], &[0]), [0; 0]);
        assert_eq!(strided_positions(&[2, 3], &[1, 10]), [0, 10, 20, 1, 11, 21]);
    }
}
