//! Scalar values and the scalar functions from which element-wise ops, reductions and the bodies
//! of tiling rules are made.
//!
//! Arithmetic follows the element type: integers wrap at their width, 16-bit floats are computed
//! in `f32` and rounded once per operation, `f32` and `f64` are computed as they are.

use std::cmp::Ordering;

use crate::types::{Class, DType};

/// One element of a tensor, in the form in which it is computed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// An integer of any width.
    Int(i128),
    /// A float of at most 32 bits.
    F32(f32),
    /// A float of 64 bits.
    F64(f64),
}

impl Scalar {
    /// Zero of `dtype`.
    pub fn zero(dtype: DType) -> Self {
        Self::from_f64(0.0, dtype)
    }

    /// One of `dtype`.
    pub fn one(dtype: DType) -> Self {
        Self::from_f64(1.0, dtype)
    }

    /// `value` as an element of `dtype`: rounded to nearest for floats, truncated for integers.
    pub fn from_f64(value: f64, dtype: DType) -> Self {
        match dtype.class() {
            Class::Bool => Scalar::Bool(value != 0.0),
            Class::Int { .. } => Scalar::Int(value as i128).wrap(dtype),
            Class::Float | Class::Configurable if dtype == DType::F64 => Scalar::F64(value),
            Class::Float | Class::Configurable => Scalar::F32(value as f32).round_to(dtype),
        }
    }

    /// The value as `f64` (integers beyond 53 bits are rounded).
    pub fn to_f64(self) -> f64 {
        match self {
            Scalar::Bool(b) => f64::from(u8::from(b)),
            Scalar::Int(i) => i as f64,
            Scalar::F32(x) => f64::from(x),
            Scalar::F64(x) => x,
        }
    }

    /// The value as an integer; floats are truncated towards zero, NaN is zero.
    pub fn to_int(self) -> i128 {
        match self {
            Scalar::Bool(b) => i128::from(b),
            Scalar::Int(i) => i,
            Scalar::F32(x) => x as i128,
            Scalar::F64(x) => x as i128,
        }
    }

    /// The value as a truth value: anything but zero is true.
    pub fn to_bool(self) -> bool {
        match self {
            Scalar::Bool(b) => b,
            Scalar::Int(i) => i != 0,
            Scalar::F32(x) => x != 0.0,
            Scalar::F64(x) => x != 0.0,
        }
    }

    /// An integer reduced modulo the width of `dtype`.
    pub fn wrap(self, dtype: DType) -> Self {
        let Scalar::Int(value) = self else {
            return self;
        };
        let bits = dtype.bytes() * 8;
        let low = value & ((1i128 << bits) - 1);
        let negative = dtype.class() == (Class::Int { signed: true }) && low >> (bits - 1) != 0;
        Scalar::Int(if negative { low - (1i128 << bits) } else { low })
    }

    /// A float rounded to the precision of `dtype`; other values are unchanged.
    pub fn round_to(self, dtype: DType) -> Self {
        match (self, dtype) {
            (Scalar::F32(x), DType::F16) => Scalar::F32(half::f16::from_f32(x).to_f32()),
            (Scalar::F32(x), DType::Bf16) => Scalar::F32(half::bf16::from_f32(x).to_f32()),
            _ => self,
        }
    }

    /// The result of an operation brought back into `dtype`.
    fn finish(self, dtype: DType) -> Self {
        self.wrap(dtype).round_to(dtype)
    }

    /// The value converted to `dtype` as `convert` does it: floats to integers truncate and wrap,
    /// floats to floats round to nearest even, anything non-zero is true.
    pub fn convert(self, dtype: DType) -> Self {
        match dtype.class() {
            Class::Bool => Scalar::Bool(self.to_bool()),
            Class::Int { .. } => Scalar::Int(self.to_int()).wrap(dtype),
            Class::Float | Class::Configurable => match self {
                // Double rounding through f32 would not be round-to-nearest.
                Scalar::F64(x) if dtype == DType::F16 => {
                    Scalar::F32(half::f16::from_f64(x).to_f32())
                }
                Scalar::F64(x) if dtype == DType::Bf16 => {
                    Scalar::F32(half::bf16::from_f64(x).to_f32())
                }
                Scalar::Int(i) if dtype == DType::F32 => Scalar::F32(i as f32),
                Scalar::F32(x) if dtype != DType::F64 => Scalar::F32(x).round_to(dtype),
                other => Scalar::from_f64(other.to_f64(), dtype),
            },
        }
    }
}

/// What element types a scalar function takes and gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// Floats to the same type.
    Float,
    /// Integers and floats to the same type.
    Number,
    /// Integers to the same type.
    Int,
    /// Integers and bool to the same type.
    Bits,
    /// Numbers to bool.
    CompareNumber,
    /// Any type of fixed meaning to bool.
    CompareAny,
    /// Floats to bool.
    FloatToBool,
    /// Any type of fixed meaning to the same type.
    Any,
}

impl Domain {
    /// The result type for operands of `dtype`, `None` if they are not in the domain.
    pub fn result(self, dtype: DType) -> Option<DType> {
        let class = dtype.class();
        let int = matches!(class, Class::Int { .. });
        let float = class == Class::Float;
        let ok = match self {
            Domain::Float | Domain::FloatToBool => float,
            Domain::Number | Domain::CompareNumber => int || float,
            Domain::Int => int,
            Domain::Bits => int || class == Class::Bool,
            Domain::Any | Domain::CompareAny => class != Class::Configurable,
        };
        let to_bool = matches!(
            self,
            Domain::CompareNumber | Domain::CompareAny | Domain::FloatToBool
        );
        ok.then_some(if to_bool { DType::Bool } else { dtype })
    }

    /// What the domain takes, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Domain::Float | Domain::FloatToBool => "floats",
            Domain::Number | Domain::CompareNumber => "integers or floats",
            Domain::Int => "integers",
            Domain::Bits => "integers or bool",
            Domain::Any | Domain::CompareAny => "bool, integers or floats",
        }
    }
}

macro_rules! scalar_fns {
    ($(#[$meta:meta])* $enum:ident { $($variant:ident $name:literal $domain:ident $doc:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $enum { $(#[doc = $doc] $variant,)+ }

        impl $enum {
            /// Every function with its name.
            pub const ALL: &'static [$enum] = &[$($enum::$variant,)+];
            /// The names in the order of `ALL`.
            pub const NAMES: &'static [&'static str] = &[$($name,)+];

            /// The mnemonic in the text form.
            pub fn name(self) -> &'static str {
                match self { $($enum::$variant => $name,)+ }
            }

            /// What it computes.
            pub fn doc(self) -> &'static str {
                match self { $($enum::$variant => $doc,)+ }
            }

            /// The element types it takes and gives.
            pub fn domain(self) -> Domain {
                match self { $($enum::$variant => Domain::$domain,)+ }
            }

            /// The function of a mnemonic.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|f| f.name() == name)
            }
        }
    };
}

scalar_fns! {
    /// Scalar functions of one operand.
    UnaryFn {
        Abs "abs" Number "|x|; the least signed integer stays as it is.";
        Neg "neg" Number "-x, wrapping for integers.";
        Sign "sign" Number "-1, 0 or 1 by the sign of x; NaN stays NaN.";
        Floor "floor" Float "Largest integer not above x.";
        Ceil "ceil" Float "Smallest integer not below x.";
        Round "round" Float "Nearest integer, ties to even.";
        Trunc "trunc" Float "Integer part, towards zero.";
        Exp "exp" Float "e to the power x.";
        Log "log" Float "Natural logarithm.";
        Log1p "log1p" Float "log(1 + x), accurate near zero.";
        Expm1 "expm1" Float "exp(x) - 1, accurate near zero.";
        Sqrt "sqrt" Float "Square root.";
        Rsqrt "rsqrt" Float "1 / sqrt(x).";
        Recip "recip" Float "1 / x.";
        Sin "sin" Float "Sine of x in radians.";
        Cos "cos" Float "Cosine of x in radians.";
        Tan "tan" Float "Tangent of x in radians.";
        Asin "asin" Float "Inverse sine.";
        Acos "acos" Float "Inverse cosine.";
        Atan "atan" Float "Inverse tangent.";
        Sinh "sinh" Float "Hyperbolic sine.";
        Cosh "cosh" Float "Hyperbolic cosine.";
        Tanh "tanh" Float "Hyperbolic tangent.";
        Asinh "asinh" Float "Inverse hyperbolic sine.";
        Acosh "acosh" Float "Inverse hyperbolic cosine.";
        Atanh "atanh" Float "Inverse hyperbolic tangent.";
        Erf "erf" Float "Error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.";
        Sigmoid "sigmoid" Float "1 / (1 + exp(-x)), without overflow for large |x|.";
        Not "not" Bits "Complement: logical for bool, bit by bit for integers.";
        IsNan "is_nan" FloatToBool "Whether x is NaN.";
        IsInf "is_inf" FloatToBool "Whether x is an infinity of either sign.";
    }
}

scalar_fns! {
    /// Scalar functions of two operands of one type.
    BinaryFn {
        Add "add" Number "a + b.";
        Sub "sub" Number "a - b.";
        Mul "mul" Number "a * b.";
        Div "div" Number "a / b; integers truncate towards zero, and a division by zero is zero.";
        Pow "pow" Number "a to the power b; integers by repeated squaring, a negative exponent truncates.";
        Max "max" Number "The larger; NaN if either is NaN; of two zeros the positive one.";
        Min "min" Number "The smaller; NaN if either is NaN; of two zeros the negative one.";
        Rem "rem" Number "Remainder with the sign of a; by zero it is zero for integers.";
        Mod "mod" Number "Remainder with the sign of b; by zero it is zero for integers.";
        And "and" Bits "Conjunction: logical for bool, bit by bit for integers.";
        Or "or" Bits "Disjunction: logical for bool, bit by bit for integers.";
        Xor "xor" Bits "Exclusive or: logical for bool, bit by bit for integers.";
        Shl "shl" Int "a shifted left by b bits; zero for b out of range.";
        Shr "shr" Int "a shifted right by b bits, filling with the sign; b out of range is as the width.";
        Eq "eq" CompareAny "Whether a equals b.";
        Ne "ne" CompareAny "Whether a differs from b.";
        Lt "lt" CompareNumber "Whether a is less than b.";
        Le "le" CompareNumber "Whether a is at most b.";
        Gt "gt" CompareNumber "Whether a is greater than b.";
        Ge "ge" CompareNumber "Whether a is at least b.";
    }
}

trait Float: Copy + PartialOrd {
    fn unary(self, f: UnaryFn) -> Option<Self>;
    fn binary(self, f: BinaryFn, b: Self) -> Option<Self>;
}

macro_rules! impl_float {
    ($ty:ty, $erf:path) => {
        impl Float for $ty {
            fn unary(self, f: UnaryFn) -> Option<Self> {
                let x = self;
                Some(match f {
                    UnaryFn::Abs => x.abs(),
                    UnaryFn::Neg => -x,
                    UnaryFn::Sign if x.is_nan() || x == 0.0 => x,
                    UnaryFn::Sign => x.signum(),
                    UnaryFn::Floor => x.floor(),
                    UnaryFn::Ceil => x.ceil(),
                    UnaryFn::Round => x.round_ties_even(),
                    UnaryFn::Trunc => x.trunc(),
                    UnaryFn::Exp => x.exp(),
                    UnaryFn::Log => x.ln(),
                    UnaryFn::Log1p => x.ln_1p(),
                    UnaryFn::Expm1 => x.exp_m1(),
                    UnaryFn::Sqrt => x.sqrt(),
                    UnaryFn::Rsqrt => 1.0 / x.sqrt(),
                    UnaryFn::Recip => 1.0 / x,
                    UnaryFn::Sin => x.sin(),
                    UnaryFn::Cos => x.cos(),
                    UnaryFn::Tan => x.tan(),
                    UnaryFn::Asin => x.asin(),
                    UnaryFn::Acos => x.acos(),
                    UnaryFn::Atan => x.atan(),
                    UnaryFn::Sinh => x.sinh(),
                    UnaryFn::Cosh => x.cosh(),
                    UnaryFn::Tanh => x.tanh(),
                    UnaryFn::Asinh => x.asinh(),
                    UnaryFn::Acosh => x.acosh(),
                    UnaryFn::Atanh => x.atanh(),
                    UnaryFn::Erf => $erf(x),
                    UnaryFn::Sigmoid if x >= 0.0 => 1.0 / (1.0 + (-x).exp()),
                    UnaryFn::Sigmoid => x.exp() / (1.0 + x.exp()),
                    UnaryFn::Not | UnaryFn::IsNan | UnaryFn::IsInf => return None,
                })
            }

            fn binary(self, f: BinaryFn, b: Self) -> Option<Self> {
                let a = self;
                Some(match f {
                    BinaryFn::Add => a + b,
                    BinaryFn::Sub => a - b,
                    BinaryFn::Mul => a * b,
                    BinaryFn::Div => a / b,
                    BinaryFn::Pow => a.powf(b),
                    BinaryFn::Max | BinaryFn::Min if a.is_nan() || b.is_nan() => <$ty>::NAN,
                    // Of zeros of different sign the positive one is the larger.
                    BinaryFn::Max if a == b && a.is_sign_negative() => b,
                    BinaryFn::Max => {
                        if a >= b {
                            a
                        } else {
                            b
                        }
                    }
                    BinaryFn::Min if a == b && a.is_sign_positive() => b,
                    BinaryFn::Min => {
                        if a <= b {
                            a
                        } else {
                            b
                        }
                    }
                    BinaryFn::Rem => a % b,
                    BinaryFn::Mod => match a % b {
                        // A zero has the sign of b, as any other remainder.
                        rest if rest == 0.0 => rest.copysign(b),
                        rest if (rest < 0.0) != (b < 0.0) => rest + b,
                        rest => rest,
                    },
                    _ => return None,
                })
            }
        }
    };
}
impl_float!(f32, libm::erff);
impl_float!(f64, libm::erf);

fn compare(f: BinaryFn, order: Option<Ordering>) -> Option<bool> {
    Some(match f {
        BinaryFn::Eq => order == Some(Ordering::Equal),
        BinaryFn::Ne => order != Some(Ordering::Equal),
        BinaryFn::Lt => order == Some(Ordering::Less),
        BinaryFn::Le => order.is_some_and(Ordering::is_le),
        BinaryFn::Gt => order == Some(Ordering::Greater),
        BinaryFn::Ge => order.is_some_and(Ordering::is_ge),
        _ => return None,
    })
}

fn int_pow(base: i128, exponent: i128, dtype: DType) -> i128 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut rest) = (Scalar::Int(1), Scalar::Int(base), exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result = Scalar::Int(result.to_int().wrapping_mul(square.to_int())).wrap(dtype);
        }
        square = Scalar::Int(square.to_int().wrapping_mul(square.to_int())).wrap(dtype);
        rest >>= 1;
    }
    result.to_int()
}

impl UnaryFn {
    /// Applies the function to an element of `dtype`. Operands outside [`UnaryFn::domain`] come
    /// back unchanged; the shape rule has refused them before.
    pub fn apply(self, x: Scalar, dtype: DType) -> Scalar {
        let result = match (self, x) {
            (UnaryFn::Not, Scalar::Bool(b)) => Some(Scalar::Bool(!b)),
            (UnaryFn::Not, Scalar::Int(i)) => Some(Scalar::Int(!i)),
            (UnaryFn::Abs, Scalar::Int(i)) => Some(Scalar::Int(i.abs())),
            (UnaryFn::Neg, Scalar::Int(i)) => Some(Scalar::Int(-i)),
            (UnaryFn::Sign, Scalar::Int(i)) => Some(Scalar::Int(i.signum())),
            (UnaryFn::IsNan, x) => return Scalar::Bool(x.to_f64().is_nan()),
            (UnaryFn::IsInf, x) => return Scalar::Bool(x.to_f64().is_infinite()),
            (f, Scalar::F32(x)) => x.unary(f).map(Scalar::F32),
            (f, Scalar::F64(x)) => x.unary(f).map(Scalar::F64),
            _ => None,
        };
        result.unwrap_or(x).finish(dtype)
    }
}

impl BinaryFn {
    /// Applies the function to two elements of `dtype`. Operands outside [`BinaryFn::domain`] give
    /// the first; the shape rule has refused them before.
    pub fn apply(self, a: Scalar, b: Scalar, dtype: DType) -> Scalar {
        use BinaryFn::*;
        let ordering = match (a, b) {
            (Scalar::Bool(a), Scalar::Bool(b)) => Some(a.cmp(&b)),
            (Scalar::Int(a), Scalar::Int(b)) => Some(a.cmp(&b)),
            (Scalar::F32(a), Scalar::F32(b)) => a.partial_cmp(&b),
            _ => a.to_f64().partial_cmp(&b.to_f64()),
        };
        if let Some(truth) = compare(self, ordering) {
            return Scalar::Bool(truth);
        }
        let result = match (a, b) {
            (Scalar::Bool(a), Scalar::Bool(b)) => match self {
                And => Some(Scalar::Bool(a & b)),
                Or => Some(Scalar::Bool(a | b)),
                Xor => Some(Scalar::Bool(a ^ b)),
                _ => None,
            },
            (Scalar::Int(a), Scalar::Int(b)) => self.apply_int(a, b, dtype).map(Scalar::Int),
            (Scalar::F32(a), Scalar::F32(b)) => a.binary(self, b).map(Scalar::F32),
            (Scalar::F64(a), Scalar::F64(b)) => a.binary(self, b).map(Scalar::F64),
            _ => None,
        };
        result.unwrap_or(a).finish(dtype)
    }

    fn apply_int(self, a: i128, b: i128, dtype: DType) -> Option<i128> {
        let bits = i128::from(dtype.bytes() * 8);
        Some(match self {
            BinaryFn::Add => a + b,
            BinaryFn::Sub => a - b,
            BinaryFn::Mul => a.wrapping_mul(b),
            BinaryFn::Div | BinaryFn::Rem | BinaryFn::Mod if b == 0 => 0,
            BinaryFn::Div => a / b,
            BinaryFn::Rem => a % b,
            BinaryFn::Mod => (a % b + b) % b,
            BinaryFn::Pow => int_pow(a, b, dtype),
            BinaryFn::Max => a.max(b),
            BinaryFn::Min => a.min(b),
            BinaryFn::And => a & b,
            BinaryFn::Or => a | b,
            BinaryFn::Xor => a ^ b,
            BinaryFn::Shl if !(0..bits).contains(&b) => 0,
            BinaryFn::Shl => a << b,
            BinaryFn::Shr if !(0..bits).contains(&b) => a >> (bits - 1) >> 1,
            BinaryFn::Shr => a >> b,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(f: BinaryFn, a: i128, b: i128, dtype: DType) -> i128 {
        f.apply(Scalar::Int(a), Scalar::Int(b), dtype).to_int()
    }

    #[test]
    fn integers_wrap_at_their_width() {
        assert_eq!(int(BinaryFn::Add, 127, 1, DType::I8), -128);
        assert_eq!(int(BinaryFn::Sub, 0, 1, DType::U64), u64::MAX.into());
        assert_eq!(
            int(BinaryFn::Mul, u64::MAX.into(), u64::MAX.into(), DType::U64),
            1,
            "(-1)^2 modulo 2^64"
        );
        assert_eq!(int(BinaryFn::Pow, 3, 5, DType::U8), 243);
        assert_eq!(int(BinaryFn::Shl, 1, 64, DType::U64), 0);
        assert_eq!(int(BinaryFn::Shr, -8, 99, DType::I32), -1);
        assert_eq!(
            UnaryFn::Not.apply(Scalar::Int(1), DType::U8),
            Scalar::Int(254)
        );
        assert_eq!(
            UnaryFn::Abs.apply(Scalar::Int(-128), DType::I8),
            Scalar::Int(-128)
        );
    }

    #[test]
    fn remainders_have_the_sign_they_say() {
        for (a, b, rem, modulo) in [
            (7, 3, 1, 1),
            (-7, 3, -1, 2),
            (7, -3, 1, -2),
            (-7, -3, -1, -1),
        ] {
            assert_eq!(int(BinaryFn::Rem, a, b, DType::I32), rem);
            assert_eq!(int(BinaryFn::Mod, a, b, DType::I32), modulo);
            let (x, y) = (Scalar::F64(a as f64), Scalar::F64(b as f64));
            assert_eq!(
                BinaryFn::Rem.apply(x, y, DType::F64),
                Scalar::F64(rem as f64)
            );
            assert_eq!(
                BinaryFn::Mod.apply(x, y, DType::F64),
                Scalar::F64(modulo as f64)
            );
        }
    }

    #[test]
    fn zero_remainders_have_the_sign_of_the_divisor() {
        let modulo =
            |a: f32, b: f32| BinaryFn::Mod.apply(Scalar::F32(a), Scalar::F32(b), DType::F32);
        assert!(modulo(4.0, -2.0).to_f64().is_sign_negative());
        assert!(modulo(-4.0, 2.0).to_f64().is_sign_positive());
        assert_eq!(modulo(-1.0, f32::INFINITY).to_f64(), f64::INFINITY);
        assert_eq!(modulo(1.0, f32::INFINITY).to_f64(), 1.0);
        assert!(modulo(1.0, 0.0).to_f64().is_nan());
    }

    #[test]
    fn nan_is_contagious_in_max_and_unordered_in_comparison() {
        let (nan, one) = (Scalar::F32(f32::NAN), Scalar::F32(1.0));
        assert!(BinaryFn::Max.apply(nan, one, DType::F32).to_f64().is_nan());
        assert!(BinaryFn::Min.apply(one, nan, DType::F32).to_f64().is_nan());
        assert_eq!(
            BinaryFn::Ge.apply(nan, nan, DType::F32),
            Scalar::Bool(false)
        );
        assert_eq!(BinaryFn::Ne.apply(nan, nan, DType::F32), Scalar::Bool(true));
        let (zero, minus) = (Scalar::F32(0.0), Scalar::F32(-0.0));
        for (a, b) in [(zero, minus), (minus, zero)] {
            let sign = |f: BinaryFn| f.apply(a, b, DType::F32).to_f64().is_sign_negative();
            assert!(!sign(BinaryFn::Max) && sign(BinaryFn::Min));
        }
    }

    #[test]
    fn narrow_floats_round_once_per_operation() {
        let x = Scalar::from_f64(1.0, DType::Bf16);
        let tiny = Scalar::from_f64(1.0 / 512.0, DType::Bf16);
        assert_eq!(BinaryFn::Add.apply(x, tiny, DType::Bf16), x);
        assert_eq!(
            Scalar::F64(65519.9).convert(DType::F16),
            Scalar::F32(65504.0)
        );
    }
}
