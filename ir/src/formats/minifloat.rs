//! Small binary floating-point formats: description, exact decoding, rounding encoder.

/// A run-time exponent bias, `0..=63`: Tesla's is an unsigned six-bit scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bias(u8);

impl Bias {
    /// The smallest bias, and what to pass to formats whose bias is fixed.
    pub const ZERO: Self = Self(0);
    /// The largest bias, 63.
    pub const MAX: Self = Self(63);

    /// `None` where `value` exceeds 63.
    pub const fn new(value: u8) -> Option<Self> {
        if value <= Self::MAX.0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The bias as a number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Every bias in ascending order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::MAX.0).map(Self)
    }
}

impl std::fmt::Display for Bias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a format's exponent bias comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BiasRule {
    /// From the scalar operand of the conversion.
    Configurable,
    /// From the format; the operand is ignored.
    Fixed(u8),
}

/// What exponent field zero means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subnormals {
    /// Gradual underflow: `M * 2^(1 - bias - man_bits)`.
    Gradual,
    /// The scale as the white paper prints it: `M * 2^(-bias - man_bits)`. It leaves a hole below
    /// the smallest normal value, in which both roundings act between the hole's two ends.
    Literal,
    /// The encodings exist, but read as zero, and results that would need one become zero.
    Flush,
}

/// What becomes of magnitudes above the largest finite value, and of Inf and NaN operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The format has no Inf and no NaN, its top exponent is an ordinary one. Everything too large
    /// becomes the largest magnitude, and NaN the largest positive value.
    Clamp,
    /// The top exponent encodes Inf and NaN, which are kept; finite operands never become Inf.
    ClampFinite,
    /// As in IEEE 754: finite operands may round to Inf.
    Infinity,
}

/// A binary floating-point format of at most 16 bits: an optional sign bit, then the exponent
/// field, then the mantissa field. Codes are held in the low bits of a `u16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MiniFloat {
    name: &'static str,
    signed: bool,
    exp_bits: u32,
    man_bits: u32,
    bias: BiasRule,
    subnormals: Subnormals,
    overflow: Overflow,
}

/// Tesla's 8-bit format with more precision: sign, 4 exponent bits, 3 mantissa bits.
pub const CFP8_143: MiniFloat = MiniFloat::tesla("cfp8_143", 4, 3);
/// Tesla's 8-bit format with more range: sign, 5 exponent bits, 2 mantissa bits.
pub const CFP8_152: MiniFloat = MiniFloat::tesla("cfp8_152", 5, 2);
/// Tesla's signed half precision: sign, 5 exponent bits, 10 mantissa bits.
pub const SHP: MiniFloat = MiniFloat::tesla("shp", 5, 10);
/// Tesla's unsigned half precision: 6 exponent bits with bias 31, 10 mantissa bits.
pub const UHP: MiniFloat = MiniFloat {
    name: "uhp",
    signed: false,
    exp_bits: 6,
    man_bits: 10,
    bias: BiasRule::Fixed(31),
    subnormals: Subnormals::Flush,
    overflow: Overflow::ClampFinite,
};
/// bfloat16.
pub const BF16: MiniFloat = MiniFloat::ieee("bf16", 8, 7, 127);
/// IEEE binary16.
pub const F16: MiniFloat = MiniFloat::ieee("f16", 5, 10, 15);

/// Significand bits of f32 below the leading one, and the exponent of its smallest subnormal.
const F32_MAN_BITS: u32 = 23;
const F32_MIN_EXP: i32 = -149;

impl MiniFloat {
    const fn tesla(name: &'static str, exp_bits: u32, man_bits: u32) -> Self {
        Self {
            name,
            signed: true,
            exp_bits,
            man_bits,
            bias: BiasRule::Configurable,
            subnormals: Subnormals::Gradual,
            overflow: Overflow::Clamp,
        }
    }

    const fn ieee(name: &'static str, exp_bits: u32, man_bits: u32, bias: u8) -> Self {
        Self {
            name,
            signed: true,
            exp_bits,
            man_bits,
            bias: BiasRule::Fixed(bias),
            subnormals: Subnormals::Gradual,
            overflow: Overflow::Infinity,
        }
    }

    /// The same format with another reading of exponent field zero.
    #[must_use]
    pub const fn with_subnormals(self, subnormals: Subnormals) -> Self {
        Self { subnormals, ..self }
    }

    /// The name in text, such as `cfp8_143`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether there is a sign bit.
    pub const fn signed(&self) -> bool {
        self.signed
    }

    /// Width of the exponent field in bits.
    pub const fn exp_bits(&self) -> u32 {
        self.exp_bits
    }

    /// Width of the mantissa field in bits, without the implied leading one.
    pub const fn man_bits(&self) -> u32 {
        self.man_bits
    }

    /// Width of a code in bits, 8 or 16.
    pub const fn bits(&self) -> u32 {
        self.signed as u32 + self.exp_bits + self.man_bits
    }

    /// Where the bias comes from.
    pub const fn bias_rule(&self) -> BiasRule {
        self.bias
    }

    /// How exponent field zero is read.
    pub const fn subnormals(&self) -> Subnormals {
        self.subnormals
    }

    /// What happens to operands beyond the range.
    pub const fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// The code of the largest finite value.
    pub const fn max_code(&self) -> u16 {
        let all = (1u32 << (self.exp_bits + self.man_bits)) - 1;
        match self.overflow {
            Overflow::Clamp => all as u16,
            Overflow::ClampFinite | Overflow::Infinity => (all - (1 << self.man_bits)) as u16,
        }
    }

    /// The largest finite value under `bias`.
    pub fn max_value(&self, bias: Bias) -> f32 {
        self.decode(self.max_code(), bias)
    }

    /// The smallest positive normal value under `bias`, `2^(1 - bias)`.
    pub fn min_normal(&self, bias: Bias) -> f32 {
        self.decode(1 << self.man_bits, bias)
    }

    fn effective_bias(&self, bias: Bias) -> i32 {
        match self.bias {
            BiasRule::Configurable => i32::from(bias.get()),
            BiasRule::Fixed(fixed) => i32::from(fixed),
        }
    }

    fn sign_code(&self, negative: bool) -> u16 {
        if negative && self.signed {
            1 << (self.exp_bits + self.man_bits)
        } else {
            0
        }
    }

    fn infinity_code(&self) -> u16 {
        self.max_code() + 1
    }

    /// The value of a code; bits above the format's width are ignored.
    ///
    /// Exact: every value of every format under every bias is an f32 (the smallest are 2^-72 in
    /// shp and 2^-133 in bf16; the largest is below 2^128).
    pub fn decode(&self, bits: u16, bias: Bias) -> f32 {
        let negative = self.signed && (bits >> (self.exp_bits + self.man_bits)) & 1 == 1;
        let exponent = i32::from(bits >> self.man_bits) & ((1 << self.exp_bits) - 1);
        let mantissa = u32::from(bits) & ((1 << self.man_bits) - 1);
        let bias = self.effective_bias(bias);
        let quantum = exponent - bias - self.man_bits as i32;
        if exponent == 0 {
            return match self.subnormals {
                Subnormals::Gradual => compose(negative, mantissa, quantum + 1),
                Subnormals::Literal => compose(negative, mantissa, quantum),
                Subnormals::Flush => compose(negative, 0, 0),
            };
        }
        let specials = self.overflow != Overflow::Clamp;
        if specials && exponent == (1 << self.exp_bits) - 1 {
            let payload = mantissa << (F32_MAN_BITS - self.man_bits);
            return f32::from_bits(u32::from(negative) << 31 | 0x7F80_0000 | payload);
        }
        compose(negative, mantissa | 1 << self.man_bits, quantum)
    }

    /// The code of `x`, rounded to nearest even without `noise`, stochastically with it.
    ///
    /// Stochastic rounding adds the top bits of `noise`, as many as are cut off, to the significand
    /// and truncates: larger noise never gives a smaller magnitude, and the expectation over
    /// uniform noise is `x` exactly while at most 32 bits are cut. Where more are cut (magnitudes
    /// far below the smallest subnormal) the bits beyond the 32nd are dropped, which lowers the
    /// probability of rounding up by less than 2^-32.
    pub fn encode(&self, x: f32, bias: Bias, noise: Option<u32>) -> u16 {
        let bits = x.to_bits();
        let negative = bits >> 31 == 1;
        let field = (bits >> F32_MAN_BITS & 0xFF) as i32;
        let fraction = bits & ((1 << F32_MAN_BITS) - 1);
        if field == 0xFF && fraction != 0 {
            return match self.overflow {
                Overflow::Clamp => self.max_code(),
                _ => self.infinity_code() | 1 << (self.man_bits - 1),
            };
        }
        if negative && !self.signed {
            return 0;
        }
        let sign = self.sign_code(negative);
        if field == 0xFF {
            return sign
                | match self.overflow {
                    Overflow::Clamp => self.max_code(),
                    _ => self.infinity_code(),
                };
        }
        let (significand, exponent) = if field == 0 {
            (fraction, F32_MIN_EXP)
        } else {
            (fraction | 1 << F32_MAN_BITS, field - 1 + F32_MIN_EXP)
        };
        if significand == 0 {
            return sign;
        }
        sign | self.round_magnitude(significand, exponent, self.effective_bias(bias), noise)
    }

    /// The code of `significand * 2^exponent`, which is positive and finite.
    fn round_magnitude(
        &self,
        significand: u32,
        exponent: i32,
        bias: i32,
        noise: Option<u32>,
    ) -> u16 {
        let man = self.man_bits as i32;
        let leading = exponent + significand.ilog2() as i32;
        let min_exponent = 1 - bias;
        let code = if leading < min_exponent && self.subnormals == Subnormals::Literal {
            self.round_literal_subnormal(significand, exponent + bias + man, noise)
        } else {
            let binade = leading.max(min_exponent);
            let units = round_units(significand, exponent + man - binade, noise);
            // A carry out of the mantissa moves into the exponent field, which is the next value.
            (((binade - min_exponent) as u64) << man) + units
        };
        if self.subnormals == Subnormals::Flush && code < 1 << man {
            return 0;
        }
        match self.overflow {
            Overflow::Infinity => code.min(u64::from(self.infinity_code())) as u16,
            _ => code.min(u64::from(self.max_code())) as u16,
        }
    }

    /// Rounds below the smallest normal value under [`Subnormals::Literal`]: `significand *
    /// 2^exponent` is in units of the smallest subnormal, of which the smallest normal has
    /// `2^(man_bits + 1)` while the largest subnormal has `2^man_bits - 1`.
    fn round_literal_subnormal(&self, significand: u32, exponent: i32, noise: Option<u32>) -> u64 {
        let last = (1u64 << self.man_bits) - 1;
        let cut = -exponent;
        if cut <= 0 || cut >= 32 || u64::from(significand) >> cut < last {
            return round_units(significand, exponent, noise);
        }
        let distance = u64::from(significand) - (last << cut);
        let gap = (last + 2) << cut;
        let up = match noise {
            // The largest subnormal is odd and the smallest normal even, so a tie goes up.
            None => 2 * distance >= gap,
            Some(noise) => u128::from(noise) * u128::from(gap) >= u128::from(gap - distance) << 32,
        };
        last + u64::from(up)
    }
}

/// `significand * 2^exponent` rounded to an integer.
fn round_units(significand: u32, exponent: i32, noise: Option<u32>) -> u64 {
    let significand = u64::from(significand);
    if exponent >= 0 {
        return significand << exponent;
    }
    let cut = exponent.unsigned_abs();
    match noise {
        // Less than half a unit: a significand has 24 bits.
        None if cut > 24 => 0,
        None => {
            let floor = significand >> cut;
            let rest = significand & ((1 << cut) - 1);
            let half = 1 << (cut - 1);
            floor + u64::from(rest > half || (rest == half && floor & 1 == 1))
        }
        Some(noise) if cut <= 32 => (significand + (u64::from(noise) >> (32 - cut))) >> cut,
        Some(noise) => {
            let kept = significand.checked_shr(cut - 32).unwrap_or(0);
            (kept + u64::from(noise)) >> 32
        }
    }
}

/// `±significand * 2^exponent` as an f32; the caller guarantees that it is one exactly.
fn compose(negative: bool, significand: u32, exponent: i32) -> f32 {
    let sign = u32::from(negative) << 31;
    if significand == 0 {
        return f32::from_bits(sign);
    }
    let leading = exponent + significand.ilog2() as i32;
    if leading < -126 {
        return f32::from_bits(sign | significand << (exponent - F32_MIN_EXP));
    }
    let fraction =
        (significand << (F32_MAN_BITS - significand.ilog2())) & ((1 << F32_MAN_BITS) - 1);
    f32::from_bits(sign | ((leading + 127) as u32) << F32_MAN_BITS | fraction)
}
