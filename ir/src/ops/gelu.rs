//! The Gaussian error linear unit.

use std::f64::consts::{FRAC_1_PI, FRAC_1_SQRT_2, SQRT_2};

use super::compose::{cast, check_float, expand, rounded, widen};
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError, arity};
use crate::access::Tiling;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::scalar::{BinaryFn, UnaryFn};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use crate::{attr_enum, op_struct};

attr_enum! {
    /// How the normal distribution in `gelu` is computed.
    GeluKind {
        /// Exactly, by the error function.
        Erf "erf",
        /// `tanh(sqrt(2/pi) * (x + 0.044715 x^3))` in place of the error function.
        Tanh "tanh",
    }
}

op_struct! {
    /// `x * P(x)`, P being the cumulative normal distribution: `x/2 * (1 + erf(x / sqrt(2)))` or
    /// its approximation (Hendrycks and Gimpel 2016). 16-bit floats are computed in f32.
    Gelu {
        /// How P is computed.
        approximate: GeluKind,
    }
}

/// Coefficient of the cube in the approximation.
const CUBE: f64 = 0.044715;

/// `sqrt(2/pi)`.
fn slope() -> f64 {
    SQRT_2 * FRAC_1_PI.sqrt()
}

/// Builds `x * c`.
fn scaled(b: &mut FunctionBuilder, x: ValueId, c: f64) -> Result<ValueId, TypeError> {
    let c = b.scalar(b.ty(x).dtype, c);
    b.op(BinaryFn::Mul, &[x, c])
}

/// Builds `x + c`.
fn shifted(b: &mut FunctionBuilder, x: ValueId, c: f64) -> Result<ValueId, TypeError> {
    let c = b.scalar(b.ty(x).dtype, c);
    b.op(BinaryFn::Add, &[x, c])
}

impl Gelu {
    /// Builds the function s for which `P(x) = (1 + s(x)) / 2`.
    fn sigmoid(&self, b: &mut FunctionBuilder, x: ValueId) -> Result<ValueId, TypeError> {
        match self.approximate {
            GeluKind::Erf => {
                let x = scaled(b, x, FRAC_1_SQRT_2)?;
                b.op(UnaryFn::Erf, &[x])
            }
            GeluKind::Tanh => {
                let square = b.op(BinaryFn::Mul, &[x, x])?;
                let cubic = scaled(b, square, CUBE)?;
                let factor = shifted(b, cubic, 1.0)?;
                let inner = b.op(BinaryFn::Mul, &[x, factor])?;
                let inner = scaled(b, inner, slope())?;
                b.op(UnaryFn::Tanh, &[inner])
            }
        }
    }

    /// Builds the derivative of P.
    fn density(
        &self,
        b: &mut FunctionBuilder,
        x: ValueId,
        sigmoid: ValueId,
    ) -> Result<ValueId, TypeError> {
        let square = b.op(BinaryFn::Mul, &[x, x])?;
        match self.approximate {
            GeluKind::Erf => {
                let exponent = scaled(b, square, -0.5)?;
                let exp = b.op(UnaryFn::Exp, &[exponent])?;
                scaled(b, exp, slope() / 2.0)
            }
            GeluKind::Tanh => {
                let inner = scaled(b, square, 3.0 * CUBE * slope() / 2.0)?;
                let inner = shifted(b, inner, slope() / 2.0)?;
                let tanh_square = b.op(BinaryFn::Mul, &[sigmoid, sigmoid])?;
                let outer = scaled(b, tanh_square, -1.0)?;
                let outer = shifted(b, outer, 1.0)?;
                b.op(BinaryFn::Mul, &[inner, outer])
            }
        }
    }
}

impl OpDef for Gelu {
    const NAMES: &'static [&'static str] = &["gelu"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        check_float(x)?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let gelu = |x: f64| {
            let sigmoid = match self.approximate {
                GeluKind::Erf => libm::erf(x / SQRT_2),
                GeluKind::Tanh => (slope() * (x + CUBE * x.powi(3))).tanh(),
            };
            x * (0.5 * (1.0 + sigmoid))
        };
        let x = &args[0];
        let values = x.to_f64s().into_iter().map(gelu).collect();
        Ok(vec![rounded(x.dtype(), x.shape(), values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        expand(args, |b, inputs| {
            let x = widen(b, inputs[0])?;
            let sigmoid = self.sigmoid(b, x)?;
            let twice = shifted(b, sigmoid, 1.0)?;
            let distribution = scaled(b, twice, 0.5)?;
            let result = b.op(BinaryFn::Mul, &[x, distribution])?;
            cast(b, result, args[0].dtype)
        })
    }

    /// `dx = dy * (P(x) + x * P'(x))`.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let b = &mut *cx.b;
        let dtype = b.ty(cx.args[0]).dtype;
        let x = widen(b, cx.args[0])?;
        let dy = widen(b, cx.cotangents[0])?;
        let sigmoid = self.sigmoid(b, x)?;
        let density = self.density(b, x, sigmoid)?;
        let twice = shifted(b, sigmoid, 1.0)?;
        let distribution = scaled(b, twice, 0.5)?;
        let moved = b.op(BinaryFn::Mul, &[x, density])?;
        let slope = b.op(BinaryFn::Add, &[distribution, moved])?;
        let dx = b.op(BinaryFn::Mul, &[dy, slope])?;
        Ok(vec![Some(cast(b, dx, dtype)?)])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let mut samples = vec![];
        for approximate in [GeluKind::Erf, GeluKind::Tanh] {
            let gelu = |dtype, shape: &[u64]| {
                Sample::new(Gelu { approximate }, &[Type::of(dtype, shape)]).range(0, -4.0, 4.0)
            };
            samples.extend([
                gelu(DType::F32, &[3, 5]),
                gelu(DType::F32, &[]),
                gelu(DType::F32, &[2, 0]),
                gelu(DType::F64, &[4]),
                gelu(DType::Bf16, &[8]),
                gelu(DType::F16, &[8]),
            ]);
            let far = Tensor::from_vec(&[4], vec![1e4f32, -1e4, f32::INFINITY, 0.0]);
            samples.push(gelu(DType::F32, &[4]).given(0, far).no_grad());
        }
        samples
    }
}
