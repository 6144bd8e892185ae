//! Conversions between element types.

use dojoc_ir::formats::{RANDOM_BLOCK_WORDS, random_block};
use half::{bf16, f16};

use super::elementwise::Element;
use super::float::{CANONICAL_NAN, finish};

/// Where the random bits of stochastic rounding come from: element i of a slice uses
/// [`random_bits(seed, step, site, index + i)`](dojoc_ir::formats::random_bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run.
    pub step: u64,
    /// The op of the source model that draws.
    pub site: u64,
    /// Row-major index, in the logical tensor, of the first element.
    pub index: u64,
}

impl Draw {
    /// The draw of the element `offset` places further on.
    #[must_use]
    pub const fn advanced(self, offset: u64) -> Self {
        Self {
            index: self.index.wrapping_add(offset),
            ..self
        }
    }

    /// Calls `use_bits(i, bits)` for the first `count` elements.
    pub(super) fn for_each(self, count: usize, mut use_bits: impl FnMut(usize, u32)) {
        let (mut block, mut words) = (None, [0; RANDOM_BLOCK_WORDS as usize]);
        for i in 0..count {
            let index = self.index.wrapping_add(i as u64);
            if block != Some(index / RANDOM_BLOCK_WORDS) {
                block = Some(index / RANDOM_BLOCK_WORDS);
                words = random_block(self.seed, self.step, self.site, index / RANDOM_BLOCK_WORDS);
            }
            use_bits(i, words[(index % RANDOM_BLOCK_WORDS) as usize]);
        }
    }
}

#[inline(always)]
fn same_length(a: usize, b: usize) {
    assert_eq!(a, b, "source and result of a conversion differ in length");
}

#[inline(always)]
fn map<A: Copy, B>(x: &[A], y: &mut [B], f: impl Fn(A) -> B) {
    same_length(x.len(), y.len());
    for (x, y) in x.iter().zip(y) {
        *y = f(*x);
    }
}

#[inline(always)]
pub(super) fn f32_to_bf16(x: &[f32], y: &mut [bf16]) {
    map(x, y, bf16::write);
}

pub(super) fn f32_to_bf16_stochastic(draw: Draw, x: &[f32], y: &mut [bf16]) {
    same_length(x.len(), y.len());
    draw.for_each(x.len(), |i, noise| {
        let bits = finish(x[i]).to_bits();
        // The definition of stochastic rounding for values that are not subnormal. Carries reach
        // infinity; the fractions of infinity and the canonical NaN are zero where they are cut.
        y[i] = bf16::from_bits((bits.wrapping_add(noise >> 16) >> 16) as u16);
    });
}

#[inline(always)]
pub(super) fn bf16_to_f32(x: &[bf16], y: &mut [f32]) {
    map(x, y, |x| f32::write(x.read()));
}

#[inline(always)]
fn narrow_f16(x: f32) -> f16 {
    // Rounds an f32 whose exponent is rebased to that of f16, as integers, for normal results.
    const REBASE: u32 = (127 - 15) << 23;
    // Of 2^-1 the last bit is worth 2^-24, the smallest f16: adding it rounds to such multiples.
    const HALF: u32 = 126 << 23;
    let bits = finish(x).to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let normal = magnitude
        .wrapping_sub(REBASE)
        .wrapping_add(0x0FFF + (magnitude >> 13 & 1))
        >> 13;
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(HALF);
    let finite = if magnitude < 113 << 23 {
        subnormal
    } else {
        normal
    };
    // 65520 is half-way between the largest f16 and the next power of two.
    let bounded = if magnitude >= 65520f32.to_bits() {
        0x7C00
    } else {
        finite
    };
    let code = if magnitude > 0x7F80_0000 {
        0x7E00
    } else {
        bounded
    };
    f16::from_bits((code | bits >> 16 & 0x8000) as u16)
}

#[inline(always)]
fn widen_f16(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let magnitude = bits & 0x7FFF;
    let normal = (magnitude << 13) + ((127 - 15) << 23);
    // An f16 subnormal is its fraction times 2^-24.
    let subnormal = (magnitude as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
    let finite = if magnitude < 0x0400 {
        subnormal
    } else {
        normal
    };
    let value = if magnitude >= 0x7C00 {
        0x7F80_0000
    } else {
        finite
    };
    let signed = value | (bits & 0x8000) << 16;
    f32::from_bits(if magnitude > 0x7C00 {
        CANONICAL_NAN
    } else {
        signed
    })
}

#[inline(always)]
pub(super) fn f32_to_f16(x: &[f32], y: &mut [f16]) {
    map(x, y, narrow_f16);
}

#[inline(always)]
pub(super) fn f16_to_f32(x: &[f16], y: &mut [f32]) {
    map(x, y, widen_f16);
}

#[inline(always)]
pub(super) fn i32_to_f32(x: &[i32], y: &mut [f32]) {
    map(x, y, |x| x as f32);
}

#[inline(always)]
pub(super) fn f32_to_i32(x: &[f32], y: &mut [i32]) {
    same_length(x.len(), y.len());
    const LIMIT: u32 = 2_147_483_648f32.to_bits();
    for (x, y) in x.chunks(64).zip(y.chunks_mut(64)) {
        map(x, y, |x| x as i32);
        let largest = x.iter().fold(0, |m: u32, x| m.max(x.abs().to_bits()));
        if largest >= LIMIT {
            // Out of line of the common case: 128-bit conversions are slow.
            map(x, y, |x| x as i128 as i32);
        }
    }
}

#[inline(always)]
pub(super) fn i8_to_i32(x: &[i8], y: &mut [i32]) {
    map(x, y, i32::from);
}
