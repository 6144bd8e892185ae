//! Scalar functions from which the vector kernels of every tier are compiled.
//!
//! There is one definition of each function. The tiers differ in the instructions that the
//! compiler may use for it, and none of those changes a value: Rust neither reorders nor contracts
//! floating-point operations, and the payload of a NaN, which it leaves open, is made canonical.
//! So they are branch-free (a choice is between two computed values), which lets loops over
//! them be vectorised.
//!
//! Polynomial coefficients are least-maximum fits made for this file, rounded to f32 from the
//! lowest power up with the higher ones fitted again after each rounding.

use super::trig;

const SIGN: u32 = 0x8000_0000;
const EXPONENT: u32 = 0x7F80_0000;
/// Adding this to |x| < 2^22 leaves the integer nearest to x in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;
pub(crate) const CANONICAL_NAN: u32 = 0x7FC0_0000;

/// x, or a zero of its sign if it is subnormal.
#[inline(always)]
pub(crate) fn flush(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & EXPONENT == 0 {
        bits & SIGN
    } else {
        bits
    })
}

/// A result as the rules of the kernels demand it: flushed, and NaN canonical.
#[inline(always)]
pub(crate) fn finish(x: f32) -> f32 {
    let flushed = flush(x).to_bits();
    f32::from_bits(if x.is_nan() { CANONICAL_NAN } else { flushed })
}

/// One step of a bf16 tile product: a * b + c rounded once, with subnormals as zero. a and b have
/// at most 8 significant bits and are not subnormal.
#[inline(always)]
pub(super) fn dot_step(a: f32, b: f32, c: f32) -> f32 {
    // Results below this round to less than 2^-126 when the exponent has no bound. The product is
    // exact in f64, and so is the sum wherever it is close to the limit: c is a multiple of
    // 2^-149 and the limit is not, so the product cannot be tiny there.
    const LIMIT: f64 = f64::from_bits((1023 - 126) << 52) - f64::from_bits((1023 - 151) << 52);
    let c = flush(c);
    let result = a.mul_add(b, c);
    let wide = f64::from(a) * f64::from(b) + f64::from(c);
    let bits = result.to_bits();
    f32::from_bits(if wide.abs() < LIMIT {
        bits & SIGN
    } else {
        bits
    })
}

#[inline(always)]
fn copy_sign(magnitude: f32, sign: f32) -> f32 {
    f32::from_bits(magnitude.to_bits() & !SIGN | sign.to_bits() & SIGN)
}

#[inline(always)]
pub(super) fn poly<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        sum = sum.mul_add(x, coefficients[i]);
    }
    sum
}

/// 2^n for -126 <= n <= 127.
#[inline(always)]
fn exp2_int(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

const LN2_HI: f32 = f32::from_bits(0x3F31_7218);
const LN2_LO: f32 = f32::from_bits(0xB102_E308);

/// (n, e^r - 1) for x = n ln 2 + r with |r| <= ln(2)/2.
#[inline(always)]
fn exp_parts(x: f32) -> (i32, f32) {
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let high = n.mul_add(-LN2_HI, x);
    let r = n.mul_add(-LN2_LO, high);
    // What rounding has cut from r, worth a quarter of an ulp of the result.
    let cut = n.mul_add(-LN2_LO, high - r);
    let q = poly(
        r,
        [0.5, 1.666652e-1, 4.1666422e-2, 8.368815e-3, 1.3938851e-3],
    );
    let integer = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    (integer, r + (r * r).mul_add(q, cut))
}

#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Beyond these every result is infinite or flushed, and the scales stay in range.
    let x = if x < -105.0 { -105.0 } else { x };
    let x = if x > 90.0 { 90.0 } else { x };
    let (n, p) = exp_parts(x);
    let half = n >> 1;
    (1.0 + p) * exp2_int(half) * exp2_int(n.wrapping_sub(half))
}

#[inline(always)]
pub(super) fn log(x: f32) -> f32 {
    const SQRT_HALF: u32 = 0x3F35_04F3;
    let offset = x.to_bits().wrapping_sub(SQRT_HALF) as i32;
    let exponent = (offset >> 23) as f32;
    let f = f32::from_bits((offset as u32 & 0x007F_FFFF).wrapping_add(SQRT_HALF)) - 1.0;
    let r = poly(
        f,
        [
            3.333333e-1,
            -2.500082e-1,
            2.0001242e-1,
            -1.6623409e-1,
            1.4201581e-1,
            -1.3159613e-1,
            1.27622e-1,
            -7.6363996e-2,
        ],
    );
    let tail = (f * f).mul_add(f.mul_add(r, -0.5), exponent * LN2_LO);
    let finite = exponent.mul_add(LN2_HI, f + tail);
    let positive = if x == f32::INFINITY { x } else { finite };
    let result = if x > 0.0 { positive } else { f32::NAN };
    if x == 0.0 { f32::NEG_INFINITY } else { result }
}

#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let t = x.abs();
    // From here on the result rounds to one.
    let t = if t > 9.5 { 9.5 } else { t };
    let (n, p) = exp_parts(t + t);
    let scale = exp2_int(n);
    let e = scale.mul_add(p, scale - 1.0);
    copy_sign(e / (e + 2.0), x)
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let t = x.abs();
    let near = x.mul_add(
        poly(
            x * x,
            [
                1.2837917e-1,
                -3.761263e-1,
                1.1283626e-1,
                -2.685574e-2,
                5.1924605e-3,
                -8.0508046e-4,
                8.002782e-5,
            ],
        ),
        x,
    );
    // 1 - e^-q(t), q being fitted to -log(erfc(t)) up to 4, where the result rounds to one.
    let u = if t > 4.0 { 4.0 } else { t };
    let q = poly(
        u,
        [
            2.429619e-4,
            1.127482,
            6.3750535e-1,
            1.0365037e-1,
            -2.2092413e-2,
            3.0097228e-3,
            -1.9254652e-4,
        ],
    );
    let (n, p) = exp_parts(-q);
    let scale = exp2_int(n);
    let far = copy_sign(1.0 - scale.mul_add(p, scale), x);
    if t < 0.95 { near } else { far }
}

#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let half = 0.5 * x;
    half.mul_add(erf(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    const SLOPE: f32 = 0.797_884_6;
    let inner = (SLOPE * x) * (x * x).mul_add(0.044715, 1.0);
    let half = 0.5 * x;
    half.mul_add(tanh(inner), half)
}

#[inline(always)]
pub(super) fn rsqrt(x: f32) -> f32 {
    1.0 / x.sqrt()
}

#[inline(always)]
pub(super) fn recip(x: f32) -> f32 {
    1.0 / x
}

#[inline(always)]
pub(super) fn neg(x: f32) -> f32 {
    -x
}

#[inline(always)]
pub(super) fn abs(x: f32) -> f32 {
    x.abs()
}

#[inline(always)]
pub(super) fn sqrt(x: f32) -> f32 {
    x.sqrt()
}

#[inline(always)]
pub(super) fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// The sine for |x| < [`trig::LARGE`]; see [`trig`] for the rest.
#[inline(always)]
pub(super) fn sin(x: f32) -> f32 {
    let (quadrant, r) = trig::reduce(x);
    // The polynomial would make +0 of -0.
    let sine = trig::sine_in_quadrant(quadrant, r);
    if x == 0.0 { x } else { sine }
}

/// The cosine for |x| < [`trig::LARGE`].
#[inline(always)]
pub(super) fn cos(x: f32) -> f32 {
    let (quadrant, r) = trig::reduce(x);
    trig::sine_in_quadrant(quadrant.wrapping_add(1), r)
}

/// An integer that orders floats, -0 below +0; NaN is not placed.
#[inline(always)]
pub(super) fn order_key(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The inverse of [`order_key`].
#[inline(always)]
pub(super) fn from_order_key(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) as u32 >> 1) as i32) as u32)
}

#[inline(always)]
pub(crate) fn min(a: f32, b: f32) -> f32 {
    let smaller = if order_key(b) < order_key(a) { b } else { a };
    if a.is_nan() | b.is_nan() {
        f32::NAN
    } else {
        smaller
    }
}

#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    let larger = if order_key(b) > order_key(a) { b } else { a };
    if a.is_nan() | b.is_nan() {
        f32::NAN
    } else {
        larger
    }
}
