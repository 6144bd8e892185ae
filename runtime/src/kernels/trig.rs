//! Argument reduction and polynomials of sine and cosine.

use super::float::{ROUND, poly};

/// From this magnitude on [`reduce`] is not accurate and [`reduce_large`] takes over.
pub(super) const LARGE: f32 = 131_072.0;

/// pi/2 as a sum of three floats, the rest is below 2^-76.
const HALF_PI: [f32; 3] = [
    f32::from_bits(0x3FC9_0FDB),
    f32::from_bits(0xB33B_BD2E),
    f32::from_bits(0xA6F7_2CED),
];

/// 256 bits of 2/pi after the binary point.
const TWO_OVER_PI: [u64; 4] = [
    0xA2F9_836E_4E44_1529,
    0xFC27_57D1_F534_DDC0,
    0xDB62_9599_3C43_9041,
    0xFE51_63AB_DEBB_C561,
];

/// (q, r) with x = q * pi/2 + r, |r| <= pi/4 (nearly), q modulo 2^32, for |x| < [`LARGE`].
///
/// The first product is subtracted exactly, since the difference is a multiple of 2^-24 and at most
/// one.
#[inline(always)]
pub(super) fn reduce(x: f32) -> (u32, f32) {
    let shifted = x.mul_add(std::f32::consts::FRAC_2_PI, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-HALF_PI[0], x);
    let r = n.mul_add(-HALF_PI[1], r);
    let r = n.mul_add(-HALF_PI[2], r);
    (shifted.to_bits().wrapping_sub(ROUND.to_bits()), r)
}

/// sin(r + quadrant * pi/2).
#[inline(always)]
pub(super) fn sine_in_quadrant(quadrant: u32, r: f32) -> f32 {
    let z = r * r;
    let sine = (r * z).mul_add(poly(z, [-1.6666655e-1, 8.332191e-3, -1.9518599e-4]), r);
    let cosine = (z * z).mul_add(
        poly(z, [4.1666646e-2, -1.3887301e-3, 2.4430668e-5]),
        z.mul_add(-0.5, 1.0),
    );
    let value = if quadrant & 1 == 0 { sine } else { cosine };
    f32::from_bits(value.to_bits() ^ (quadrant & 2) << 30)
}

/// [`reduce`] for finite |x| >= [`LARGE`], after M. Payne and R. Hanek, "Radian reduction for
/// trigonometric functions", SIGNUM Newsletter 18(1), 1983: only the bits of 2/pi matter that
/// survive modulo 4.
fn reduce_large(x: f32) -> (u32, f32) {
    let bits = x.to_bits();
    let significand = u128::from(bits & 0x007F_FFFF | 0x0080_0000);
    // |x| = significand * 2^exponent, exponent being -6..=104.
    let exponent = (bits >> 23 & 0xFF) as i32 - 150;
    let high = u128::from(TWO_OVER_PI[0]) << 64 | u128::from(TWO_OVER_PI[1]);
    let low = u128::from(TWO_OVER_PI[2]) << 64 | u128::from(TWO_OVER_PI[3]);
    // The first bit of the window has weight 2 after multiplication by 2^exponent.
    let window = match exponent - 2 {
        skip @ ..=0 => high >> -skip,
        skip => high << skip | low >> (128 - skip),
    };
    // Two bits of quadrant, then its fraction.
    let turn = significand.wrapping_mul(window);
    let quadrant = (turn >> 126) as u32 + (turn >> 125 & 1) as u32;
    let fraction = ((turn << 2) as i128 >> 64) as i64;
    let r = fraction as f64 * f64::from_bits((1023 - 64) << 52) * std::f64::consts::FRAC_PI_2;
    if x < 0.0 {
        (quadrant.wrapping_neg(), -r as f32)
    } else {
        (quadrant, r as f32)
    }
}

/// sin(x + shift * pi/2) for |x| >= [`LARGE`], infinities and NaN.
pub(super) fn sine_large(x: f32, shift: u32) -> f32 {
    if !x.is_finite() {
        return f32::NAN;
    }
    let (quadrant, r) = reduce_large(x);
    sine_in_quadrant(quadrant.wrapping_add(shift), r)
}
