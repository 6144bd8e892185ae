//! Every tier against the portable one, the portable one against obvious models.

mod accuracy;
mod convert;
mod matmul;
mod vector;

use half::bf16;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;

/// Every implementation to be compared with the portable one, also those that detection would not
/// choose here.
fn others() -> Vec<&'static dyn Kernels> {
    let mut all = available();
    all.remove(0);
    #[cfg(target_arch = "x86_64")]
    all.extend(x86::avx512_variants());
    all
}

fn reference() -> &'static dyn Kernels {
    by_name("scalar").unwrap()
}

fn rng(seed: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed)
}

/// Floats that break careless kernels.
const SPECIAL: [u32; 24] = [
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x007F_FFFF,
    0x807F_FFFF,
    0x0080_0000,
    0x8080_0000,
    0x0080_0001,
    0x7F80_0000,
    0xFF80_0000,
    0x7FC0_0000,
    0xFFC0_1234,
    0x7F80_0001,
    0xFFFF_FFFF,
    0x7F7F_FFFF,
    0xFF7F_FFFF,
    0x3F80_0000,
    0xBF80_0000,
    0x4B00_0001,
    0x4F00_0000,
    0xCF00_0001,
    0x4800_0000,
    0x7149_F2CA,
];

/// A float of one of several kinds: any bits, special, of moderate size, tiny.
fn any_f32(rng: &mut impl Rng) -> f32 {
    let bits: u32 = rng.random();
    match rng.random_range(0..8) {
        0 | 1 => f32::from_bits(bits),
        2 => f32::from_bits(SPECIAL[bits as usize % SPECIAL.len()]),
        3 => f32::from_bits(bits & 0x807F_FFFF | (bits >> 3 & 3) << 23),
        _ => ordinary(rng),
    }
}

/// A float between -8 and 8.
fn ordinary(rng: &mut impl Rng) -> f32 {
    rng.random_range(-8.0..8.0)
}

fn any_slice(rng: &mut impl Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| any_f32(rng)).collect()
}

fn any_bf16(rng: &mut impl Rng) -> bf16 {
    bf16::from_bits((any_f32(rng).to_bits() >> 16) as u16)
}

fn any_bf16_slice(rng: &mut impl Rng, len: usize) -> Vec<bf16> {
    (0..len).map(|_| any_bf16(rng)).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn bits16(x: &[bf16]) -> Vec<u16> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The general rules for results, said once more.
fn finished(x: f32) -> f32 {
    if x.is_nan() {
        f32::from_bits(0x7FC0_0000)
    } else if x.abs() < f32::MIN_POSITIVE {
        0f32.copysign(x)
    } else {
        x
    }
}

/// A subnormal operand as zero.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

#[test]
fn tiers_have_names_and_an_order() {
    let names: Vec<_> = available().iter().map(|k| k.name()).collect();
    assert_eq!(names, ["scalar", "avx2", "avx512"][..names.len()]);
    assert_eq!(detect().name(), *names.last().unwrap());
    for name in names {
        assert_eq!(by_name(name).unwrap().name(), name);
    }
    assert!(by_name("avx").is_none());
}
