//! Vector functions against f64.

use super::*;

/// erf by its Taylor series near zero and by a continued fraction for erfc elsewhere, in f64.
fn erf(x: f64) -> f64 {
    let t = x.abs();
    if t < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut fraction = 0.0;
    for n in (1..120).rev() {
        fraction = f64::from(n) / 2.0 / (t + fraction);
    }
    let erfc = (-t * t).exp() / (t + fraction) * std::f64::consts::FRAC_2_SQRT_PI / 2.0;
    (1.0 - erfc).copysign(x)
}

fn exact(op: Unary, x: f64) -> f64 {
    let slope = (2.0 / std::f64::consts::PI).sqrt();
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Relu => x.max(0.0),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Erf => erf(x),
        Unary::Gelu => x * 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::GeluTanh => x * 0.5 * (1.0 + (slope * (x + 0.044715 * x.powi(3))).tanh()),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Sqrt => x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
    }
}

/// How an error is measured.
enum Measure {
    /// Relative to the exact result.
    Relative(f64),
    /// In units of the last place of the exact result.
    Ulps(f64),
    /// Relative to the operand.
    OfOperand(f64),
}

/// Operands spread evenly over the codes of f32 from `low` to `high`, which have the same sign.
fn spread(low: f32, high: f32, count: u32) -> impl Iterator<Item = f32> {
    let (a, b) = (low.to_bits(), high.to_bits());
    let (a, b) = (a.min(b), a.max(b));
    let step = ((b - a) / count).max(1);
    (a..=b).step_by(step as usize).map(f32::from_bits)
}

fn check(op: Unary, ranges: &[(f32, f32)], measure: &Measure) {
    let mut worst = (0.0, 0.0);
    for &(low, high) in ranges {
        let x: Vec<f32> = spread(low, high, 150_000).collect();
        let mut y = vec![0.0; x.len()];
        detect().unary_f32(op, &x, &mut y);
        for (x, y) in x.iter().zip(y) {
            let exact = exact(op, f64::from(*x));
            if exact.abs() < f64::from(f32::MIN_POSITIVE) * 1.000_001
                || exact.abs() > f64::from(f32::MAX)
            {
                assert!(
                    y == 0.0 || y.is_infinite() || y.abs() < 1.2e-38,
                    "{op:?}({x}) = {y}"
                );
                continue;
            }
            let error = (f64::from(y) - exact).abs();
            let scaled = match measure {
                Measure::Relative(_) => error / exact.abs(),
                Measure::Ulps(_) => error / 2f64.powf(exact.abs().log2().floor() - 23.0),
                Measure::OfOperand(_) => error / f64::from(x.abs()),
            };
            if scaled > worst.0 || scaled.is_nan() {
                worst = (scaled, *x);
            }
        }
    }
    let (Measure::Relative(bound) | Measure::Ulps(bound) | Measure::OfOperand(bound)) = *measure;
    assert!(
        worst.0 <= bound,
        "{op:?}: error {:e} at {:e}, {:?}",
        worst.0,
        worst.1,
        ranges
    );
}

const POSITIVE: (f32, f32) = (f32::MIN_POSITIVE, f32::MAX);
const NEGATIVE: (f32, f32) = (-f32::MIN_POSITIVE, f32::MIN);
const ALL: [(f32, f32); 2] = [POSITIVE, NEGATIVE];

#[test]
fn functions_keep_their_error_bounds() {
    use Measure::*;
    check(Unary::Neg, &ALL, &Ulps(0.0));
    check(Unary::Abs, &ALL, &Ulps(0.0));
    check(Unary::Floor, &ALL, &Ulps(0.0));
    check(Unary::Ceil, &ALL, &Ulps(0.0));
    check(Unary::Round, &ALL, &Ulps(0.0));
    check(Unary::Relu, &ALL, &Ulps(0.0));
    check(Unary::Sqrt, &[POSITIVE], &Ulps(0.5));
    check(Unary::Recip, &ALL, &Ulps(0.5));
    check(Unary::Rsqrt, &[POSITIVE], &Ulps(1.5));
    check(
        Unary::Exp,
        &[POSITIVE, NEGATIVE, (0.01, 88.7), (-0.01, -87.3)],
        &Relative(7e-8),
    );
    check(Unary::Log, &[POSITIVE, (0.5, 2.0)], &Relative(8e-8));
    check(
        Unary::Tanh,
        &[POSITIVE, NEGATIVE, (0.01, 10.0)],
        &Relative(1.7e-7),
    );
    check(
        Unary::Sigmoid,
        &[POSITIVE, (-1e-30, -87.0), (-0.01, -87.0)],
        &Relative(1.5e-7),
    );
    check(
        Unary::Silu,
        &[POSITIVE, (-1e-30, -87.0), (-0.01, -87.0)],
        &Relative(1.8e-7),
    );
    check(
        Unary::Erf,
        &[POSITIVE, NEGATIVE, (0.01, 5.0)],
        &Relative(9e-8),
    );
    check(
        Unary::Gelu,
        &[POSITIVE, NEGATIVE, (0.01, 7.0), (-0.01, -7.0)],
        &OfOperand(1e-7),
    );
    check(
        Unary::GeluTanh,
        &[POSITIVE, NEGATIVE, (0.01, 7.0), (-0.01, -7.0)],
        &OfOperand(1e-7),
    );
    check(
        Unary::Sin,
        &[POSITIVE, NEGATIVE, (0.01, 2e5)],
        &Relative(1.3e-7),
    );
    check(
        Unary::Cos,
        &[POSITIVE, NEGATIVE, (0.01, 2e5)],
        &Relative(1.3e-7),
    );
}

#[test]
fn functions_have_their_special_values() {
    use std::f32::consts::FRAC_PI_2;
    let inf = f32::INFINITY;
    let cases = [
        (Unary::Relu, -0.0, 0.0),
        (Unary::Relu, -inf, 0.0),
        (Unary::Exp, -inf, 0.0),
        (Unary::Exp, inf, inf),
        (Unary::Exp, -87.34, 0.0),
        (Unary::Exp, 0.0, 1.0),
        (Unary::Log, 0.0, -inf),
        (Unary::Log, -0.0, -inf),
        (Unary::Log, 1e-40, -inf),
        (Unary::Log, inf, inf),
        (Unary::Log, 1.0, 0.0),
        (Unary::Log, -1.0, f32::NAN),
        (Unary::Log, -inf, f32::NAN),
        (Unary::Tanh, inf, 1.0),
        (Unary::Tanh, -inf, -1.0),
        (Unary::Tanh, -0.0, -0.0),
        (Unary::Sigmoid, inf, 1.0),
        (Unary::Sigmoid, -inf, 0.0),
        (Unary::Silu, inf, inf),
        (Unary::Silu, -inf, f32::NAN),
        (Unary::Erf, inf, 1.0),
        (Unary::Erf, -inf, -1.0),
        (Unary::Erf, -0.0, -0.0),
        (Unary::Gelu, inf, inf),
        (Unary::Gelu, -inf, f32::NAN),
        (Unary::Gelu, -20.0, 0.0),
        (Unary::Rsqrt, 0.0, inf),
        (Unary::Rsqrt, -0.0, -inf),
        (Unary::Rsqrt, 1e-40, inf),
        (Unary::Rsqrt, inf, 0.0),
        (Unary::Rsqrt, -1.0, f32::NAN),
        (Unary::Sqrt, -1.0, f32::NAN),
        (Unary::Sqrt, -0.0, -0.0),
        (Unary::Recip, -0.0, -inf),
        (Unary::Recip, 1e38, 0.0),
        (Unary::Sin, -0.0, -0.0),
        (Unary::Sin, FRAC_PI_2, 1.0),
        (Unary::Sin, inf, f32::NAN),
        (Unary::Cos, -inf, f32::NAN),
        (Unary::Cos, -0.0, 1.0),
        (Unary::Neg, 1e-40, -0.0),
    ];
    for (op, x, expected) in cases {
        let mut y = [7.0];
        reference().unary_f32(op, &[x], &mut y);
        assert_eq!(
            y[0].to_bits(),
            finished(expected).to_bits(),
            "{op:?}({x}) = {}",
            y[0]
        );
    }
    for op in Unary::ALL {
        for nan in [0x7F80_0001, 0xFFC0_0001] {
            let mut y = [7.0];
            reference().unary_f32(*op, &[f32::from_bits(nan)], &mut y);
            assert_eq!(y[0].to_bits(), 0x7FC0_0000, "{op:?} of NaN");
        }
    }
}
