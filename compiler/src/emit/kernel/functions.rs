//! Functions that no instruction computes, as sequences.
//!
//! Sequences of f32 are within a few roundings of the function; 16-bit floats are widened and
//! rounded once.

use dojoc_ir::attr::Number;
use dojoc_ir::program::instr::vector::{CompareFunction, MapFunction, ZipFunction};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::types::DType;

use super::values::{Id, Values, float, is_float};
use crate::emit::Unsupported;

type Made = Result<Id, Unsupported>;

/// Coefficients of the polynomial of `asin(x) = x + x z P(z)`, `z = x^2 <= 1/4`, highest first; S. L.
/// Moshier's Cephes library, `asinf`.
const ASIN: [f64; 5] = [
    4.216_319_904_8e-2,
    2.418_131_104_9e-2,
    4.547_002_599_8e-2,
    7.495_300_268_6e-2,
    1.666_675_242_2e-1,
];

/// Coefficients of `atan(x) = x + x z P(z)`, `z = x^2`, for `x <= tan(pi / 8)`, highest first; Cephes,
/// `atanf`.
const ATAN: [f64; 4] = [
    8.053_744_495_38e-2,
    -1.387_768_560_32e-1,
    1.997_771_064_78e-1,
    -3.333_294_915_39e-1,
];

impl Values {
    /// A function of one value that is a sequence of instructions.
    pub(super) fn unary_sequence(&mut self, f: UnaryFn, x: Id) -> Made {
        let dtype = self.dtype(x);
        let integral = dtype.is_int() && f == UnaryFn::Sign;
        if !(is_float(dtype) || integral) {
            return Err(Unsupported::new(format!("`{}` of {dtype}", f.name())));
        }
        match f {
            UnaryFn::Sign => return self.sign(x),
            UnaryFn::Trunc => return self.trunc(x),
            UnaryFn::IsNan => return self.compare(CompareFunction::Ne, x, x),
            UnaryFn::IsInf => {
                let (size, infinity) = (
                    self.map(MapFunction::Abs, x)?,
                    self.constant(float(f64::INFINITY), dtype),
                );
                return self.compare(CompareFunction::Eq, size, infinity);
            }
            _ => {}
        }
        let wide = self.convert(DType::F32, x)?;
        let y = match f {
            UnaryFn::Log1p => self.log1p(wide)?,
            UnaryFn::Expm1 => self.expm1(wide)?,
            UnaryFn::Tan => {
                let (sin, cos) = (
                    self.map(MapFunction::Sin, wide)?,
                    self.map(MapFunction::Cos, wide)?,
                );
                self.zip(ZipFunction::Div, sin, cos)?
            }
            UnaryFn::Asin => self.odd(wide, Self::asin_of_positive)?,
            UnaryFn::Acos => self.acos(wide)?,
            UnaryFn::Atan => self.odd(wide, Self::atan_of_positive)?,
            UnaryFn::Sinh => self.odd(wide, Self::sinh_of_positive)?,
            UnaryFn::Cosh => self.cosh(wide)?,
            UnaryFn::Asinh => self.odd(wide, Self::asinh_of_positive)?,
            UnaryFn::Acosh => self.acosh(wide)?,
            UnaryFn::Atanh => self.atanh(wide)?,
            other => return Err(Unsupported::new(format!("`{}`", other.name()))),
        };
        self.convert(dtype, y)
    }

    /// A function of two values that is a sequence of instructions.
    pub(super) fn binary_sequence(&mut self, f: BinaryFn, a: Id, b: Id) -> Made {
        let dtype = self.dtype(a);
        match f {
            BinaryFn::Pow if dtype.is_int() => self.int_pow(a, b),
            BinaryFn::Mod if dtype.is_int() => {
                let rest = self.zip(ZipFunction::Rem, a, b)?;
                self.mod_of_rem(rest, b)
            }
            BinaryFn::Rem | BinaryFn::Mod if is_float(dtype) => {
                let (wide_a, wide_b) = (self.convert(DType::F32, a)?, self.convert(DType::F32, b)?);
                let mut rest = self.float_rem(wide_a, wide_b)?;
                if f == BinaryFn::Mod {
                    rest = self.mod_of_rem(rest, wide_b)?;
                }
                self.convert(dtype, rest)
            }
            other => Err(Unsupported::new(format!("`{}` of {dtype}", other.name()))),
        }
    }

    fn number(&mut self, value: f64) -> Id {
        self.constant(float(value), DType::F32)
    }

    fn like(&mut self, value: i64, x: Id) -> Id {
        let dtype = self.dtype(x);
        self.constant(Number::Int(value.into()), dtype)
    }

    fn plus(&mut self, x: Id, value: f64) -> Made {
        let value = self.number(value);
        self.zip(ZipFunction::Add, x, value)
    }

    fn times(&mut self, x: Id, value: f64) -> Made {
        let value = self.number(value);
        self.zip(ZipFunction::Mul, x, value)
    }

    fn is_above(&mut self, x: Id, value: f64) -> Made {
        let dtype = self.dtype(x);
        let value = self.constant(float(value), dtype);
        self.compare(CompareFunction::Gt, x, value)
    }

    fn is_negative(&mut self, x: Id) -> Made {
        let zero = self.like(0, x);
        self.compare(CompareFunction::Lt, x, zero)
    }

    fn sign(&mut self, x: Id) -> Made {
        let (zero, one) = (self.like(0, x), self.like(1, x));
        let mut rest = x;
        if self.dtype(x).int_range().is_none_or(|(low, _)| low < 0) {
            let (below, minus) = (self.is_negative(x)?, self.like(-1, x));
            rest = self.select(below, minus, x)?;
        }
        let above = self.compare(CompareFunction::Gt, x, zero)?;
        self.select(above, one, rest)
    }

    fn trunc(&mut self, x: Id) -> Made {
        let (up, down) = (
            self.map(MapFunction::Ceil, x)?,
            self.map(MapFunction::Floor, x)?,
        );
        let below = self.is_negative(x)?;
        self.select(below, up, down)
    }

    /// An odd function that is 0 at 0 from its values for positive numbers; it keeps the sign of zeros.
    fn odd(&mut self, x: Id, f: fn(&mut Self, Id) -> Made) -> Made {
        let size = self.map(MapFunction::Abs, x)?;
        let y = f(self, size)?;
        let (below, minus) = (self.is_negative(x)?, self.map(MapFunction::Neg, y)?);
        let (zero, signed) = (self.like(0, x), self.select(below, minus, y)?);
        let itself = self.compare(CompareFunction::Eq, x, zero)?;
        self.select(itself, x, signed)
    }

    /// `log(u) x / (u - 1)` with `u = 1 + x`: the error of u cancels. x itself where u is 1 or infinite.
    fn log1p(&mut self, x: Id) -> Made {
        let u = self.plus(x, 1.0)?;
        let (log, less) = (self.map(MapFunction::Log, u)?, self.plus(u, -1.0)?);
        let ratio = self.zip(ZipFunction::Div, x, less)?;
        let y = self.zip(ZipFunction::Mul, log, ratio)?;
        let (one, infinity) = (self.number(1.0), self.number(f64::INFINITY));
        let tiny = self.compare(CompareFunction::Eq, u, one)?;
        let huge = self.compare(CompareFunction::Eq, u, infinity)?;
        let itself = self.zip(ZipFunction::Or, tiny, huge)?;
        self.select(itself, x, y)
    }

    /// `(u - 1) x / log(u)` with `u = exp(x)`; x where u is 1, -1 where u - 1 is, u where it is infinite.
    fn expm1(&mut self, x: Id) -> Made {
        let u = self.map(MapFunction::Exp, x)?;
        let (log, less) = (self.map(MapFunction::Log, u)?, self.plus(u, -1.0)?);
        let ratio = self.zip(ZipFunction::Div, x, log)?;
        let y = self.zip(ZipFunction::Mul, less, ratio)?;
        let (one, minus, infinity) = (
            self.number(1.0),
            self.number(-1.0),
            self.number(f64::INFINITY),
        );
        let lowest = self.compare(CompareFunction::Eq, less, minus)?;
        let y = self.select(lowest, minus, y)?;
        let huge = self.compare(CompareFunction::Eq, u, infinity)?;
        let y = self.select(huge, u, y)?;
        let tiny = self.compare(CompareFunction::Eq, u, one)?;
        self.select(tiny, x, y)
    }

    /// A polynomial by Horner's rule, highest coefficient first.
    fn polynomial(&mut self, z: Id, coefficients: &[f64]) -> Made {
        let mut sum = self.number(0.0);
        for (at, coefficient) in coefficients.iter().enumerate() {
            let coefficient = self.number(*coefficient);
            sum = match at {
                0 => coefficient,
                _ => self.mul_add([sum, z, coefficient])?,
            };
        }
        Ok(sum)
    }

    /// `x + x z P(z)`.
    fn series(&mut self, x: Id, z: Id, coefficients: &[f64]) -> Made {
        let p = self.polynomial(z, coefficients)?;
        let factor = self.zip(ZipFunction::Mul, p, z)?;
        self.mul_add([factor, x, x])
    }

    /// Above 1/2 by `asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2))`.
    fn asin_of_positive(&mut self, x: Id) -> Made {
        let (large, y, root) = self.asin_parts(x)?;
        let twice = self.times(root, -2.0)?;
        let reflected = self.plus(twice, std::f64::consts::FRAC_PI_2)?;
        self.select(large, reflected, y)
    }

    /// Whether x is above 1/2, `asin(x)` where it is not, and `asin(sqrt((1 - x) / 2))` where it is.
    fn asin_parts(&mut self, x: Id) -> Result<(Id, Id, Id), Unsupported> {
        let large = self.is_above(x, 0.5)?;
        let rest = self.times(x, -0.5)?;
        let half = self.plus(rest, 0.5)?;
        let square = self.zip(ZipFunction::Mul, x, x)?;
        let z = self.select(large, half, square)?;
        let root = self.map(MapFunction::Sqrt, half)?;
        let argument = self.select(large, root, x)?;
        let y = self.series(argument, z, &ASIN)?;
        Ok((large, y, y))
    }

    fn acos(&mut self, x: Id) -> Made {
        let size = self.map(MapFunction::Abs, x)?;
        let (large, y, root) = self.asin_parts(size)?;
        let below = self.is_negative(x)?;
        // Near 1, twice the angle of the half; near -1, the rest of pi.
        let twice = self.times(root, 2.0)?;
        let minus = self.map(MapFunction::Neg, twice)?;
        let rest = self.plus(minus, std::f64::consts::PI)?;
        let outer = self.select(below, rest, twice)?;
        let minus = self.map(MapFunction::Neg, y)?;
        let signed = self.select(below, y, minus)?;
        let inner = self.plus(signed, std::f64::consts::FRAC_PI_2)?;
        self.select(large, outer, inner)
    }

    /// By the angles 0, pi/4 and pi/2, whichever is nearest.
    fn atan_of_positive(&mut self, x: Id) -> Made {
        let steep = self.is_above(x, 1.0 + std::f64::consts::SQRT_2)?;
        let middle = self.is_above(x, std::f64::consts::SQRT_2 - 1.0)?;
        let inverse = self.map(MapFunction::Recip, x)?;
        let minus = self.map(MapFunction::Neg, inverse)?;
        let (less, more) = (self.plus(x, -1.0)?, self.plus(x, 1.0)?);
        let turned = self.zip(ZipFunction::Div, less, more)?;
        let argument = self.select(middle, turned, x)?;
        let argument = self.select(steep, minus, argument)?;
        let z = self.zip(ZipFunction::Mul, argument, argument)?;
        let y = self.series(argument, z, &ATAN)?;
        let (none, quarter, half) = (
            self.number(0.0),
            self.number(std::f64::consts::FRAC_PI_4),
            self.number(std::f64::consts::FRAC_PI_2),
        );
        let angle = self.select(middle, quarter, none)?;
        let angle = self.select(steep, half, angle)?;
        self.zip(ZipFunction::Add, angle, y)
    }

    /// `(u + u / (u + 1)) / 2` with `u = exp(x) - 1`.
    fn sinh_of_positive(&mut self, x: Id) -> Made {
        let u = self.expm1(x)?;
        let more = self.plus(u, 1.0)?;
        let ratio = self.zip(ZipFunction::Div, u, more)?;
        let sum = self.zip(ZipFunction::Add, u, ratio)?;
        let y = self.times(sum, 0.5)?;
        let infinity = self.number(f64::INFINITY);
        let huge = self.compare(CompareFunction::Eq, u, infinity)?;
        self.select(huge, u, y)
    }

    fn cosh(&mut self, x: Id) -> Made {
        let size = self.map(MapFunction::Abs, x)?;
        let u = self.map(MapFunction::Exp, size)?;
        let inverse = self.map(MapFunction::Recip, u)?;
        let sum = self.zip(ZipFunction::Add, u, inverse)?;
        self.times(sum, 0.5)
    }

    /// The logarithm of 2x where x is so large that its square would not fit, else `y`.
    fn unless_large(&mut self, x: Id, y: Id) -> Made {
        let log = self.map(MapFunction::Log, x)?;
        let log = self.plus(log, std::f64::consts::LN_2)?;
        let large = self.is_above(x, 1e9)?;
        self.select(large, log, y)
    }

    /// `log1p(x + x^2 / (1 + sqrt(x^2 + 1)))`.
    fn asinh_of_positive(&mut self, x: Id) -> Made {
        let square = self.zip(ZipFunction::Mul, x, x)?;
        let more = self.plus(square, 1.0)?;
        let root = self.map(MapFunction::Sqrt, more)?;
        let divisor = self.plus(root, 1.0)?;
        let ratio = self.zip(ZipFunction::Div, square, divisor)?;
        let sum = self.zip(ZipFunction::Add, x, ratio)?;
        let y = self.log1p(sum)?;
        self.unless_large(x, y)
    }

    /// `log1p(t + sqrt(2 t + t^2))` with `t = x - 1`.
    fn acosh(&mut self, x: Id) -> Made {
        let t = self.plus(x, -1.0)?;
        let more = self.plus(t, 2.0)?;
        let product = self.zip(ZipFunction::Mul, t, more)?;
        let root = self.map(MapFunction::Sqrt, product)?;
        let sum = self.zip(ZipFunction::Add, t, root)?;
        let y = self.log1p(sum)?;
        self.unless_large(x, y)
    }

    /// `log1p(2 x / (1 - x)) / 2`.
    fn atanh(&mut self, x: Id) -> Made {
        let minus = self.map(MapFunction::Neg, x)?;
        let (twice, rest) = (self.times(x, 2.0)?, self.plus(minus, 1.0)?);
        let ratio = self.zip(ZipFunction::Div, twice, rest)?;
        let log = self.log1p(ratio)?;
        self.times(log, 0.5)
    }

    /// By squaring, one step for every bit of the exponent that can be set.
    fn int_pow(&mut self, base: Id, exponent: Id) -> Made {
        let dtype = self.dtype(base);
        let (low, high) = dtype.int_range().unwrap_or((0, 1));
        let bits = 128 - high.leading_zeros();
        let (zero, one) = (self.like(0, base), self.like(1, base));
        let (mut y, mut square) = (one, base);
        for bit in 0..bits {
            let mask = self.constant(Number::Int(1 << bit), dtype);
            let part = self.zip(ZipFunction::And, exponent, mask)?;
            let set = self.compare(CompareFunction::Ne, part, zero)?;
            let product = self.zip(ZipFunction::Mul, y, square)?;
            y = self.select(set, product, y)?;
            square = self.zip(ZipFunction::Mul, square, square)?;
        }
        if low == 0 {
            return Ok(y);
        }
        // Of a negative exponent: powers of 1 and -1 are what they are for its low bits, others zero.
        let size = self.map(MapFunction::Abs, base)?;
        let unit = self.compare(CompareFunction::Eq, size, one)?;
        let below = self.is_negative(exponent)?;
        let odd = self.zip(ZipFunction::And, exponent, one)?;
        let odd = self.compare(CompareFunction::Ne, odd, zero)?;
        let power = self.select(odd, base, one)?;
        let fraction = self.select(unit, power, zero)?;
        self.select(below, fraction, y)
    }

    /// The remainder with the sign of the divisor, from the one with the sign of the dividend.
    fn mod_of_rem(&mut self, rest: Id, b: Id) -> Made {
        let zero = self.like(0, rest);
        let some = self.compare(CompareFunction::Ne, rest, zero)?;
        let (below, b_below) = (self.is_negative(rest)?, self.is_negative(b)?);
        let differ = self.zip(ZipFunction::Xor, below, b_below)?;
        let wrong = self.zip(ZipFunction::And, some, differ)?;
        let moved = self.zip(ZipFunction::Add, rest, b)?;
        self.select(wrong, moved, rest)
    }

    /// `a - trunc(a / b) b`, rounded once, and corrected where the quotient was rounded to the next
    /// integer: exact for quotients below 2^23.
    fn float_rem(&mut self, a: Id, b: Id) -> Made {
        let quotient = self.zip(ZipFunction::Div, a, b)?;
        let whole = self.trunc(quotient)?;
        let minus = self.map(MapFunction::Neg, whole)?;
        let rest = self.mul_add([minus, b, a])?;
        let size = self.map(MapFunction::Abs, b)?;
        let (a_below, minus_size) = (self.is_negative(a)?, self.map(MapFunction::Neg, size)?);
        let step = self.select(a_below, minus_size, size)?;
        let zero = self.number(0.0);
        let some = self.compare(CompareFunction::Ne, rest, zero)?;
        let below = self.is_negative(rest)?;
        let differ = self.zip(ZipFunction::Xor, below, a_below)?;
        let wrong = self.zip(ZipFunction::And, some, differ)?;
        let raised = self.zip(ZipFunction::Add, rest, step)?;
        let rest = self.select(wrong, raised, rest)?;
        let far = self.map(MapFunction::Abs, rest)?;
        let beyond = self.compare(CompareFunction::Ge, far, size)?;
        let lowered = self.zip(ZipFunction::Sub, rest, step)?;
        let rest = self.select(beyond, lowered, rest)?;
        // Of a finite number by an infinite one it is the number.
        let infinity = self.number(f64::INFINITY);
        let (b_huge, a_size) = (
            self.compare(CompareFunction::Eq, size, infinity)?,
            self.map(MapFunction::Abs, a)?,
        );
        let finite = self.compare(CompareFunction::Lt, a_size, infinity)?;
        let itself = self.zip(ZipFunction::And, b_huge, finite)?;
        self.select(itself, a, rest)
    }
}
