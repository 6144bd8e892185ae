//! Software models of Tesla's number formats, and the random bits of stochastic rounding.
//!
//! The types are described in Tesla's white paper on configurable floating point (2021): an 8-bit
//! format in two flavours ([`CFP8_143`], [`CFP8_152`]), a signed 16-bit one ([`SHP`]) and an
//! unsigned 16-bit one ([`UHP`]). The exponent bias of the first three is a run-time scalar
//! ([`Bias`]) given to every conversion; it is not part of the type. The IEEE-like [`BF16`] and
//! [`F16`] are here as well, because the `half` crate cannot round stochastically.
//!
//! A value with exponent field `E` and mantissa field `M` of `m` bits is
//!
//! ```text
//! E > 0:  (-1)^S * 2^(E - bias) * (1 + M / 2^m)
//! E = 0:  (-1)^S * 2^(1 - bias) * (M / 2^m)          (subnormals and zero)
//! ```
//!
//! What is public and what is chosen here. Confidence tags: T = read in Tesla's text, M = reported
//! of it, P = chosen here because nothing is public.
//!
//! | question | answer | confidence |
//! |---|---|---|
//! | field widths, 6-bit bias 0..=63, cfp8 and shp without Inf and NaN | as above | T |
//! | subnormal scale | `2^(1-bias)`; [`Subnormals::Literal`] reads the printed `2^-bias` | P |
//! | overflow of shp, and its Inf operands | largest magnitude, sign kept | T |
//! | overflow of cfp8, and its Inf operands | the same | M |
//! | NaN operand of cfp8 and shp | largest *positive* value | T clamps, P sign |
//! | nearest rounding: ties | to the even code | P |
//! | uhp: Inf and NaN encodings; subnormal encodings read and written as zero | yes | M |
//! | uhp: finite overflow | largest finite value | P |
//! | uhp: negative operands | zero | P |
//! | stochastic rounding | add noise below the cut, truncate | T that it exists, P how |
//!
//! A NaN has no dependable sign on the hosts this compiler runs on, which is why a clamped NaN is
//! always positive: the result must be the same everywhere.
//!
//! Everything is integer arithmetic on bit patterns. No result depends on the rounding mode of the
//! host or on how it treats subnormals.

mod minifloat;
mod random;

pub use minifloat::{
    BF16, Bias, BiasRule, CFP8_143, CFP8_152, F16, MiniFloat, Overflow, SHP, Subnormals, UHP,
};
pub use random::{RANDOM_BLOCK_WORDS, philox4x64_10, random_bits, random_block};

use half::{bf16, f16};

/// How a conversion to a narrower format rounds.
///
/// The conversions of this module take the noise itself (`Option<u32>`, absent for
/// [`Rounding::NearestEven`]); this is the name of the choice in attributes and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Rounding {
    /// To the nearest value; a tie goes to the code whose last bit is zero.
    #[default]
    NearestEven,
    /// To one of the two neighbours, each with the probability that makes the expected result the
    /// operand, decided by bits from [`random_bits`].
    Stochastic,
}

impl Rounding {
    /// All choices.
    pub const ALL: [Self; 2] = [Self::NearestEven, Self::Stochastic];

    /// The name in text: `nearest-even` or `stochastic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NearestEven => "nearest-even",
            Self::Stochastic => "stochastic",
        }
    }

    /// The inverse of [`Rounding::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

impl std::fmt::Display for Rounding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The value of `bits` in `format`, exactly. See [`MiniFloat::decode`].
pub fn decode(format: &MiniFloat, bits: u16, bias: Bias) -> f32 {
    format.decode(bits, bias)
}

/// `x` rounded to `format`: to nearest even without `noise`, stochastically with it. See
/// [`MiniFloat::encode`].
pub fn encode(format: &MiniFloat, x: f32, bias: Bias, noise: Option<u32>) -> u16 {
    format.encode(x, bias, noise)
}

/// `x` rounded stochastically to bf16 by 32 uniform random bits.
///
/// What lies above the largest finite value rounds to it or to infinity, as the IEEE formats do.
/// NaN stays NaN.
pub fn stochastic_bf16(x: f32, noise: u32) -> bf16 {
    bf16::from_bits(BF16.encode(x, Bias::ZERO, Some(noise)))
}

/// `x` rounded stochastically to f16 by 32 uniform random bits, with the conventions of
/// [`stochastic_bf16`]. Subnormal results are kept.
pub fn stochastic_f16(x: f32, noise: u32) -> f16 {
    f16::from_bits(F16.encode(x, Bias::ZERO, Some(noise)))
}

#[cfg(test)]
mod tests;
