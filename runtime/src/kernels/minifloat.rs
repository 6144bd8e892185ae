//! Tesla's configurable formats: cfp8 operands of tile products, and conversions by the
//! definitions in [`dojoc_ir::formats`].

use dojoc_ir::formats::{Bias, CFP8_143, CFP8_152, MiniFloat};
use half::bf16;

use super::convert::Draw;
use super::float::finish;

/// Which of the two 8-bit formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cfp8 {
    /// 4 exponent bits, 3 mantissa bits.
    E4M3,
    /// 5 exponent bits, 2 mantissa bits.
    E5M2,
}

impl Cfp8 {
    /// The description of the format.
    pub const fn format(self) -> &'static MiniFloat {
        match self {
            Self::E4M3 => &CFP8_143,
            Self::E5M2 => &CFP8_152,
        }
    }
}

/// Decodes cfp8 under one bias to bf16.
///
/// Exact for every bias: values have at most 4 significant bits and lie, in magnitude, between
/// `2^-65` (the smallest subnormal under bias 63) and `2^32`, well inside the normal range of bf16.
/// shp and uhp have 11 significant bits and do not fit: they go through [`decode_minifloat`] to
/// f32, and their tile products are f32 products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cfp8Decoder {
    man_bits: u32,
    /// What to add to a code's fields, shifted to their place in an f32, to rebase the exponent.
    rebase: u32,
    /// The value of the smallest subnormal.
    unit: f32,
}

impl Cfp8Decoder {
    /// The decoder of `format` under `bias`.
    pub fn new(format: Cfp8, bias: Bias) -> Self {
        let description = format.format();
        Self {
            man_bits: description.man_bits(),
            rebase: (127 - u32::from(bias.get())) << 23,
            unit: description.decode(1, bias),
        }
    }

    #[inline(always)]
    fn decode_one(self, code: u8) -> bf16 {
        let magnitude = u32::from(code) & 0x7F;
        let normal = (magnitude << (23 - self.man_bits)).wrapping_add(self.rebase);
        let subnormal = (magnitude as f32 * self.unit).to_bits();
        let value = if magnitude >> self.man_bits == 0 {
            subnormal
        } else {
            normal
        };
        bf16::from_bits((value >> 16) as u16 | (u16::from(code) & 0x80) << 8)
    }
}

#[inline(always)]
pub(super) fn cfp8_to_bf16(decoder: Cfp8Decoder, x: &[u8], y: &mut [bf16]) {
    assert_eq!(
        x.len(),
        y.len(),
        "source and result of a conversion differ in length"
    );
    for (x, y) in x.iter().zip(y) {
        *y = decoder.decode_one(*x);
    }
}

/// Decodes codes of any configurable format to f32, exactly except that subnormal f32 are zero and
/// NaN is canonical.
///
/// # Panics
/// If the slices differ in length.
pub fn decode_minifloat(format: &MiniFloat, bias: Bias, x: &[u16], y: &mut [f32]) {
    assert_eq!(
        x.len(),
        y.len(),
        "source and result of a conversion differ in length"
    );
    for (x, y) in x.iter().zip(y) {
        *y = finish(format.decode(*x, bias));
    }
}

fn encode_with(
    format: &MiniFloat,
    bias: Bias,
    draw: Option<Draw>,
    x: &[f32],
    mut store: impl FnMut(usize, u16),
) {
    match draw {
        None => {
            for (i, x) in x.iter().enumerate() {
                store(i, format.encode(finish(*x), bias, None));
            }
        }
        Some(draw) => draw.for_each(x.len(), |i, noise| {
            store(i, format.encode(finish(x[i]), bias, Some(noise)));
        }),
    }
}

/// Rounds f32 (subnormals as zero) to codes of any configurable format, to nearest even without
/// `draw` and stochastically with it.
///
/// # Panics
/// If the slices differ in length.
pub fn encode_minifloat(
    format: &MiniFloat,
    bias: Bias,
    draw: Option<Draw>,
    x: &[f32],
    y: &mut [u16],
) {
    assert_eq!(
        x.len(),
        y.len(),
        "source and result of a conversion differ in length"
    );
    encode_with(format, bias, draw, x, |i, code| y[i] = code);
}

/// [`encode_minifloat`] to the bytes of a cfp8 format.
///
/// # Panics
/// If the slices differ in length.
pub fn encode_cfp8(format: Cfp8, bias: Bias, draw: Option<Draw>, x: &[f32], y: &mut [u8]) {
    assert_eq!(
        x.len(),
        y.len(),
        "source and result of a conversion differ in length"
    );
    encode_with(format.format(), bias, draw, x, |i, code| y[i] = code as u8);
}
