//! Loops over slices: one for each shape of operands, compiled for every tier and function.

use half::bf16;

use super::float::{self, finish, flush};
use super::ops::{Binary, Compare, Operand, Unary};
use super::trig;

/// An element type that is computed with in f32.
pub(super) trait Element: Copy {
    /// The value, subnormals as zero.
    fn read(self) -> f32;
    /// A result, finished and rounded.
    fn write(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn read(self) -> f32 {
        flush(self)
    }

    #[inline(always)]
    fn write(value: f32) -> Self {
        finish(value)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn read(self) -> f32 {
        flush(f32::from_bits(u32::from(self.to_bits()) << 16))
    }

    #[inline(always)]
    fn write(value: f32) -> Self {
        let bits = finish(value).to_bits();
        // Half of the last kept bit, less one if that bit is even. Carries move into the exponent,
        // which makes infinity of what is too large. The canonical NaN has no bits to cut.
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
        bf16::from_bits((rounded >> 16) as u16)
    }
}

#[inline(always)]
fn same_length(a: usize, b: usize) {
    assert_eq!(a, b, "operands of a vector operation differ in length");
}

#[inline(always)]
fn map<E: Element>(x: &[E], y: &mut [E], f: impl Fn(f32) -> f32) {
    for (x, y) in x.iter().zip(y) {
        *y = E::write(f(x.read()));
    }
}

/// How many elements of a trigonometric function are computed before looking for large ones.
const TRIG_CHUNK: usize = 128;

#[inline(always)]
fn map_trig<E: Element>(x: &[E], y: &mut [E], f: impl Fn(f32) -> f32 + Copy, shift: u32) {
    for (x, y) in x.chunks(TRIG_CHUNK).zip(y.chunks_mut(TRIG_CHUNK)) {
        map(x, y, f);
        let largest = x
            .iter()
            .fold(0, |m: u32, x| m.max(x.read().abs().to_bits()));
        if largest >= trig::LARGE.to_bits() {
            patch_large(x, y, shift);
        }
    }
}

#[cold]
#[inline(never)]
fn patch_large<E: Element>(x: &[E], y: &mut [E], shift: u32) {
    for (x, y) in x.iter().zip(y) {
        let x = x.read();
        if x.abs().to_bits() >= trig::LARGE.to_bits() {
            *y = E::write(trig::sine_large(x, shift));
        }
    }
}

#[inline(always)]
pub(super) fn unary<E: Element>(op: Unary, x: &[E], y: &mut [E]) {
    same_length(x.len(), y.len());
    match op {
        Unary::Neg => map(x, y, float::neg),
        Unary::Abs => map(x, y, float::abs),
        Unary::Relu => map(x, y, float::relu),
        Unary::Exp => map(x, y, float::exp),
        Unary::Log => map(x, y, float::log),
        Unary::Tanh => map(x, y, float::tanh),
        Unary::Sigmoid => map(x, y, float::sigmoid),
        Unary::Silu => map(x, y, float::silu),
        Unary::Erf => map(x, y, float::erf),
        Unary::Gelu => map(x, y, float::gelu),
        Unary::GeluTanh => map(x, y, float::gelu_tanh),
        Unary::Rsqrt => map(x, y, float::rsqrt),
        Unary::Sqrt => map(x, y, float::sqrt),
        Unary::Recip => map(x, y, float::recip),
        Unary::Sin => map_trig(x, y, float::sin, 0),
        Unary::Cos => map_trig(x, y, float::cos, 1),
        Unary::Floor => map(x, y, f32::floor),
        Unary::Ceil => map(x, y, f32::ceil),
        Unary::Round => map(x, y, f32::round_ties_even),
    }
}

/// How many elements an operation in place copies at a time: a small part of the L1 cache.
const IN_PLACE_CHUNK: usize = 512;

#[inline(always)]
pub(super) fn unary_in_place<E: Element>(op: Unary, x: &mut [E]) {
    let mut copy = [E::write(0.0); IN_PLACE_CHUNK];
    for y in x.chunks_mut(IN_PLACE_CHUNK) {
        let copy = &mut copy[..y.len()];
        copy.copy_from_slice(y);
        unary(op, copy, y);
    }
}

#[inline(always)]
fn zip<E: Element>(a: &[E], b: Operand<'_, E>, y: &mut [E], f: impl Fn(f32, f32) -> f32) {
    match b {
        Operand::Slice(b) => {
            for ((a, b), y) in a.iter().zip(b).zip(y) {
                *y = E::write(f(a.read(), b.read()));
            }
        }
        Operand::Scalar(b) => {
            let b = b.read();
            for (a, y) in a.iter().zip(y) {
                *y = E::write(f(a.read(), b));
            }
        }
    }
}

#[inline(always)]
pub(super) fn binary<E: Element>(op: Binary, a: &[E], b: Operand<'_, E>, y: &mut [E]) {
    same_length(a.len(), y.len());
    if let Operand::Slice(b) = b {
        same_length(a.len(), b.len());
    }
    match op {
        Binary::Add => zip(a, b, y, |a, b| a + b),
        Binary::Sub => zip(a, b, y, |a, b| a - b),
        Binary::Mul => zip(a, b, y, |a, b| a * b),
        Binary::Div => zip(a, b, y, |a, b| a / b),
        Binary::Min => zip(a, b, y, float::min),
        Binary::Max => zip(a, b, y, float::max),
    }
}

#[inline(always)]
fn zip_in_place<E: Element>(a: &mut [E], b: Operand<'_, E>, f: impl Fn(f32, f32) -> f32) {
    match b {
        Operand::Slice(b) => {
            for (a, b) in a.iter_mut().zip(b) {
                *a = E::write(f(a.read(), b.read()));
            }
        }
        Operand::Scalar(b) => {
            let b = b.read();
            for a in a {
                *a = E::write(f(a.read(), b));
            }
        }
    }
}

#[inline(always)]
pub(super) fn binary_in_place<E: Element>(op: Binary, a: &mut [E], b: Operand<'_, E>) {
    if let Operand::Slice(b) = b {
        same_length(a.len(), b.len());
    }
    match op {
        Binary::Add => zip_in_place(a, b, |a, b| a + b),
        Binary::Sub => zip_in_place(a, b, |a, b| a - b),
        Binary::Mul => zip_in_place(a, b, |a, b| a * b),
        Binary::Div => zip_in_place(a, b, |a, b| a / b),
        Binary::Min => zip_in_place(a, b, float::min),
        Binary::Max => zip_in_place(a, b, float::max),
    }
}

#[inline(always)]
pub(super) fn axpy<E: Element>(alpha: f32, x: &[E], y: &mut [E]) {
    same_length(x.len(), y.len());
    let alpha = flush(alpha);
    for (x, y) in x.iter().zip(y) {
        *y = E::write(alpha.mul_add(x.read(), y.read()));
    }
}

#[inline(always)]
pub(super) fn mul_add<E: Element>(a: &[E], b: &[E], c: &[E], y: &mut [E]) {
    same_length(a.len(), y.len());
    same_length(b.len(), y.len());
    same_length(c.len(), y.len());
    for (((a, b), c), y) in a.iter().zip(b).zip(c).zip(y) {
        *y = E::write(a.read().mul_add(b.read(), c.read()));
    }
}

#[inline(always)]
pub(super) fn clamp<E: Element>(low: f32, high: f32, x: &[E], y: &mut [E]) {
    same_length(x.len(), y.len());
    let (low, high) = (flush(low), flush(high));
    map(x, y, |x| float::min(float::max(x, low), high));
}

#[inline(always)]
fn zip_compare<E: Element>(a: &[E], b: Operand<'_, E>, y: &mut [u8], f: impl Fn(f32, f32) -> bool) {
    match b {
        Operand::Slice(b) => {
            for ((a, b), y) in a.iter().zip(b).zip(y) {
                *y = u8::from(f(a.read(), b.read()));
            }
        }
        Operand::Scalar(b) => {
            let b = b.read();
            for (a, y) in a.iter().zip(y) {
                *y = u8::from(f(a.read(), b));
            }
        }
    }
}

#[inline(always)]
pub(super) fn compare<E: Element>(op: Compare, a: &[E], b: Operand<'_, E>, y: &mut [u8]) {
    same_length(a.len(), y.len());
    if let Operand::Slice(b) = b {
        same_length(a.len(), b.len());
    }
    match op {
        Compare::Eq => zip_compare(a, b, y, |a, b| a == b),
        Compare::Ne => zip_compare(a, b, y, |a, b| a != b),
        Compare::Lt => zip_compare(a, b, y, |a, b| a < b),
        Compare::Le => zip_compare(a, b, y, |a, b| a <= b),
        Compare::Gt => zip_compare(a, b, y, |a, b| a > b),
        Compare::Ge => zip_compare(a, b, y, |a, b| a >= b),
    }
}

#[inline(always)]
pub(super) fn select<T: Copy>(mask: &[u8], a: &[T], b: &[T], y: &mut [T]) {
    same_length(mask.len(), y.len());
    same_length(a.len(), y.len());
    same_length(b.len(), y.len());
    for (((m, a), b), y) in mask.iter().zip(a).zip(b).zip(y) {
        *y = if *m != 0 { *a } else { *b };
    }
}
