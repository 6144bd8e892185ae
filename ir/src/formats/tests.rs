//! The encoder against an independent model: a table of all values in f64, searched.

use super::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const TESLA: [MiniFloat; 4] = [CFP8_143, CFP8_152, SHP, UHP];

/// Biases worth a slow test in the 16-bit formats.
fn some_biases() -> [Bias; 4] {
    [0, 15, 31, 63].map(|b| Bias::new(b).unwrap())
}

/// The definition of a code's value in f64 arithmetic, which is exact here.
fn model_value(f: &MiniFloat, code: u16, bias: i32) -> f64 {
    let man = f64::from(code & ((1 << f.man_bits()) - 1)) / f64::from(1 << f.man_bits());
    let exp = i32::from(code >> f.man_bits());
    match (exp, f.subnormals()) {
        (0, Subnormals::Gradual) => man * 2f64.powi(1 - bias),
        (0, Subnormals::Literal) => man * 2f64.powi(-bias),
        (0, Subnormals::Flush) => 0.0,
        _ => (1.0 + man) * 2f64.powi(exp - bias),
    }
}

fn bias_of(f: &MiniFloat, bias: Bias) -> i32 {
    match f.bias_rule() {
        BiasRule::Configurable => i32::from(bias.get()),
        BiasRule::Fixed(b) => i32::from(b),
    }
}

/// Values of all finite non-negative codes, ascending; index = code.
fn table(f: &MiniFloat, bias: Bias) -> Vec<f64> {
    // Flushing formats round as if subnormals existed and flush afterwards.
    let f = if f.subnormals() == Subnormals::Flush {
        f.with_subnormals(Subnormals::Gradual)
    } else {
        *f
    };
    (0..=f.max_code())
        .map(|c| model_value(&f, c, bias_of(&f, bias)))
        .collect()
}

/// Nearest code of a non-negative value by search over the table, ties to the even code.
fn model_nearest(f: &MiniFloat, table: &[f64], x: f32) -> u16 {
    let x = f64::from(x);
    let above = table.partition_point(|v| *v < x);
    let code = if above == table.len() {
        above - 1
    } else if above == 0 {
        0
    } else {
        let (down, up) = (x - table[above - 1], table[above] - x);
        if down < up || (down == up && above % 2 == 1) {
            above - 1
        } else {
            above
        }
    };
    if f.subnormals() == Subnormals::Flush && code < 1 << f.man_bits() {
        0
    } else {
        code as u16
    }
}

fn assert_nearest(f: &MiniFloat, table: &[f64], x: f32, bias: Bias) {
    let want = model_nearest(f, table, x);
    assert_eq!(
        f.encode(x, bias, None),
        want,
        "{} bias {bias} x {x:e}",
        f.name()
    );
    let sign = if f.signed() { 1 << (f.bits() - 1) } else { 0 };
    let want = if f.signed() { want | sign } else { 0 };
    assert_eq!(
        f.encode(-x, bias, None),
        want,
        "{} bias {bias} x -{x:e}",
        f.name()
    );
}

fn literal(f: MiniFloat) -> MiniFloat {
    f.with_subnormals(Subnormals::Literal)
}

#[test]
fn published_ranges() {
    let b = |v| Bias::new(v).unwrap();
    for (f, bias, min, max) in [
        (CFP8_143, 0, 2f32.powi(1), 1.875 * 2f32.powi(15)),
        (CFP8_143, 63, 2f32.powi(-62), 1.875 * 2f32.powi(-48)),
        (CFP8_152, 0, 2f32.powi(1), 1.75 * 2f32.powi(31)),
        (CFP8_152, 31, 2f32.powi(-30), 1.75),
        (CFP8_152, 63, 2f32.powi(-62), 1.75 * 2f32.powi(-32)),
        (UHP, 0, 2f32.powi(-30), 2f32.powi(32) - 2f32.powi(21)),
    ] {
        assert_eq!(
            (f.min_normal(b(bias)), f.max_value(b(bias))),
            (min, max),
            "{}",
            f.name()
        );
    }
    assert_eq!(
        [CFP8_143, CFP8_152, SHP, UHP].map(|f| f.bits()),
        [8, 8, 16, 16]
    );
    assert!(Bias::new(64).is_none());
    assert_eq!(Bias::all().count(), 64);
}

#[test]
fn every_code_decodes_to_its_definition_and_encodes_back() {
    for f in [
        CFP8_143,
        CFP8_152,
        SHP,
        UHP,
        literal(CFP8_143),
        literal(CFP8_152),
        literal(SHP),
    ] {
        for bias in Bias::all() {
            if matches!(f.bias_rule(), BiasRule::Fixed(_)) && bias != Bias::ZERO {
                continue;
            }
            let sign = if f.signed() {
                1u16 << (f.bits() - 1)
            } else {
                0
            };
            for code in 0..=f.max_code() {
                let x = f.decode(code, bias);
                assert_eq!(f64::from(x), model_value(&f, code, bias_of(&f, bias)));
                let flushed = f.subnormals() == Subnormals::Flush && code < 1 << f.man_bits();
                let want = if flushed { 0 } else { code };
                for noise in [None, Some(0), Some(u32::MAX), Some(0x9E37_79B9)] {
                    assert_eq!(
                        f.encode(x, bias, noise),
                        want,
                        "{} {code:#x} {bias}",
                        f.name()
                    );
                }
                if f.signed() {
                    let y = f.decode(code | sign, bias);
                    assert_eq!(y.to_bits(), x.to_bits() | 1 << 31);
                    assert_eq!(f.encode(y, bias, None), code | sign);
                }
            }
        }
    }
}

#[test]
fn bits_above_the_width_are_ignored() {
    for code in 0..=255u16 {
        assert_eq!(
            CFP8_152.decode(code | 0xAB00, Bias::MAX),
            CFP8_152.decode(code, Bias::MAX)
        );
    }
}

#[test]
fn nearest_even_at_all_midpoints_of_cfp8() {
    for f in [CFP8_143, CFP8_152, literal(CFP8_143), literal(CFP8_152)] {
        for bias in Bias::all() {
            let table = table(&f, bias);
            for pair in table.windows(2) {
                let mid = (pair[0] + pair[1]) / 2.0;
                let x = mid as f32;
                assert_eq!(f64::from(x), mid);
                for x in [x.next_down(), x, x.next_up()] {
                    assert_nearest(&f, &table, x, bias);
                }
            }
        }
    }
}

#[test]
fn nearest_even_at_all_midpoints_of_the_16_bit_formats() {
    for f in [SHP, UHP, literal(SHP)] {
        for bias in some_biases() {
            let table = table(&f, bias);
            for pair in table.windows(2) {
                let x = ((pair[0] + pair[1]) / 2.0) as f32;
                for x in [x.next_down(), x, x.next_up()] {
                    assert_nearest(&f, &table, x, bias);
                }
            }
        }
    }
}

#[test]
fn nearest_even_on_random_values() {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    for f in [
        CFP8_143,
        CFP8_152,
        SHP,
        UHP,
        literal(CFP8_143),
        literal(SHP),
    ] {
        for bias in some_biases() {
            let table = table(&f, bias);
            for _ in 0..20_000 {
                // Half from all of f32, half from the neighbourhood of the format's range.
                let wide = f32::from_bits(rng.random::<u32>() >> 1);
                let near =
                    f.max_value(bias) * 2f32.powi(-rng.random_range(0..40)) * rng.random::<f32>();
                for x in [wide, near] {
                    if x.is_finite() {
                        assert_nearest(&f, &table, x, bias);
                    }
                }
            }
        }
    }
}

#[test]
fn ieee_formats_agree_with_half() {
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    let check = |bits: u32| {
        let x = f32::from_bits(bits);
        let (a, b) = (
            BF16.encode(x, Bias::ZERO, None),
            F16.encode(x, Bias::ZERO, None),
        );
        if x.is_nan() {
            assert!(bf16::from_bits(a).is_nan() && f16::from_bits(b).is_nan());
        } else {
            assert_eq!(
                (a, b),
                (bf16::from_f32(x).to_bits(), f16::from_f32(x).to_bits()),
                "{x:e}"
            );
        }
    };
    for high in 0..=0xFFFF_u32 {
        for low in [0, 1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF] {
            check(high << 16 | low);
        }
    }
    for _ in 0..200_000 {
        check(rng.random());
    }
    for code in 0..=0xFFFF_u16 {
        let (x, y) = (
            BF16.decode(code, Bias::ZERO),
            bf16::from_bits(code).to_f32(),
        );
        assert!(x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()));
        let (x, y) = (F16.decode(code, Bias::ZERO), f16::from_bits(code).to_f32());
        assert!(x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()));
    }
}

#[test]
fn saturation_and_special_operands() {
    for noise in [None, Some(0), Some(u32::MAX)] {
        for bias in Bias::all() {
            for f in [CFP8_143, CFP8_152, SHP] {
                let (max, sign) = (f.max_code(), 1 << (f.bits() - 1));
                for x in [f.max_value(bias).next_up(), f32::MAX, f32::INFINITY] {
                    assert_eq!(f.encode(x, bias, noise), max);
                    assert_eq!(f.encode(-x, bias, noise), max | sign);
                }
                assert_eq!(f.encode(f32::NAN, bias, noise), max);
                assert_eq!(f.encode(-f32::NAN, bias, noise), max);
                assert_eq!(f.encode(-0.0, bias, noise), sign);
            }
        }
        let uhp = |x| UHP.encode(x, Bias::ZERO, noise);
        assert_eq!(uhp(f32::MAX), UHP.max_code());
        assert_eq!(UHP.decode(uhp(f32::INFINITY), Bias::ZERO), f32::INFINITY);
        assert!(UHP.decode(uhp(f32::NAN), Bias::ZERO).is_nan());
        assert_eq!([uhp(-1.0), uhp(f32::NEG_INFINITY), uhp(-0.0)], [0; 3]);
        assert_eq!(uhp(2f32.powi(-31)), 0, "a subnormal result is flushed");
        assert_eq!(F16.encode(1e6, Bias::ZERO, noise), f16::INFINITY.to_bits());
        assert!(stochastic_bf16(f32::NAN, 7).is_nan());
        assert_eq!(stochastic_f16(f32::NEG_INFINITY, 7), f16::NEG_INFINITY);
    }
}

/// How many of the 2^32 noise values round the magnitude up, by bisection; the test of
/// monotonicity in the noise makes bisection legitimate.
fn ups(f: &MiniFloat, x: f32, bias: Bias) -> u64 {
    let down = f.encode(x, bias, Some(0));
    let (mut lo, mut hi) = (0u64, 1 << 32);
    while lo < hi {
        let mid = (lo + hi) / 2;
        if f.encode(x, bias, Some(mid as u32)) == down {
            lo = mid + 1
        } else {
            hi = mid
        }
    }
    (1 << 32) - lo
}

#[test]
fn stochastic_expectation_is_exact() {
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    for f in [CFP8_143, CFP8_152, SHP, BF16, F16, UHP] {
        for bias in some_biases() {
            let table = table(&f, bias);
            for _ in 0..500 {
                let code = rng.random_range(0..f.max_code());
                // Positions inside the gap that f32 holds exactly.
                let part = f64::from(rng.random_range(0..4096u32)) / 4096.0;
                let (lo, hi) = (table[usize::from(code)], table[usize::from(code) + 1]);
                let x = lo + part * (hi - lo);
                if f64::from(x as f32) != x || (f == UHP && code < 1 << 10) {
                    continue;
                }
                let up = ups(&f, x as f32, bias);
                assert_eq!(up as f64 / 2f64.powi(32), part, "{} {bias} {x:e}", f.name());
            }
        }
    }
}

#[test]
fn stochastic_in_the_hole_of_the_literal_reading() {
    for f in [literal(CFP8_143), literal(CFP8_152), literal(SHP)] {
        let (last, first) = ((1u16 << f.man_bits()) - 1, 1u16 << f.man_bits());
        for bias in some_biases() {
            let (lo, hi) = (
                f64::from(f.decode(last, bias)),
                f64::from(f.decode(first, bias)),
            );
            for i in 1..64 {
                let x = (lo + (hi - lo) * f64::from(i) / 64.0) as f32;
                let exact = (f64::from(x) - lo) / (hi - lo) * 2f64.powi(32);
                assert!((ups(&f, x, bias) as f64 - exact).abs() <= 1.0);
                assert_eq!(f.encode(x, bias, Some(0)), last);
                assert_eq!(f.encode(x, bias, Some(u32::MAX)), first);
            }
        }
    }
}

#[test]
fn stochastic_by_enumeration() {
    // 16 bits are cut from f32 to bf16: every noise value that matters, counted.
    let x = f32::from_bits(0x3F80_1234);
    let one = bf16::ONE.to_bits();
    let mut count = [0u32; 2];
    for noise in 0..=0xFFFF_u32 {
        count[usize::from(stochastic_bf16(x, noise << 16).to_bits() - one)] += 1;
    }
    assert_eq!(count, [0x1_0000 - 0x1234, 0x1234]);
    // To f16 the cut is 13 bits.
    let x = f32::from_bits(0x3F80_0000 | 0x0ABC);
    let ups: u32 = (0..1u32 << 13)
        .map(|n| u32::from(stochastic_f16(x, n << 19).to_bits() - f16::ONE.to_bits()))
        .sum();
    assert_eq!(ups, 0x0ABC);
}

#[test]
fn stochastic_far_below_the_smallest_subnormal() {
    let bias = Bias::ZERO;
    let unit = f64::from(CFP8_152.decode(1, bias));
    for shift in [9, 12, 20, 32, 33, 100] {
        let x = (unit * 2f64.powi(-shift)) as f32;
        let want = if shift <= 32 { 1u64 << (32 - shift) } else { 0 };
        assert_eq!(ups(&CFP8_152, x, bias), want);
        assert_eq!(CFP8_152.encode(x, bias, None), 0);
    }
    let _ = CFP8_152.encode(f32::from_bits(1), Bias::ZERO, Some(u32::MAX));
}

#[test]
fn rounding_is_monotone() {
    let mut rng = Pcg64Mcg::seed_from_u64(4);
    for f in TESLA
        .into_iter()
        .chain([BF16, F16, literal(CFP8_143), literal(SHP)])
    {
        for bias in some_biases() {
            let mut xs: Vec<f32> = (0..3000)
                .map(|_| {
                    f.max_value(bias) * 2f32.powi(-rng.random_range(0..45)) * rng.random::<f32>()
                })
                .filter(|x| x.is_finite())
                .collect();
            xs.sort_by(f32::total_cmp);
            for noise in [None, Some(0), Some(1 << 31), Some(u32::MAX)] {
                // In the operand, at fixed noise.
                assert!(
                    xs.is_sorted_by_key(|x| f.encode(*x, bias, noise)),
                    "{} {bias}",
                    f.name()
                );
            }
            for x in &xs {
                // In the noise, at a fixed operand; and only the two neighbours appear.
                let (down, up) = (
                    f.encode(*x, bias, Some(0)),
                    f.encode(*x, bias, Some(u32::MAX)),
                );
                let noise = rng.random::<u32>();
                let some = f.encode(*x, bias, Some(noise));
                assert!(down <= some && some <= f.encode(*x, bias, Some(noise | noise >> 1)));
                assert!(some == down || some == up);
                assert!(up <= down + 1 || f.subnormals() == Subnormals::Flush);
            }
        }
    }
}

#[test]
fn philox_known_answers() {
    // The vectors published with the Random123 library (tests/kat_vectors).
    let m = u64::MAX;
    for (counter, key, want) in [
        (
            [0; 4],
            [0; 2],
            [
                0x16554d9eca36314c,
                0xdb20fe9d672d0fdc,
                0xd7e772cee186176b,
                0x7e68b68aec7ba23b,
            ],
        ),
        (
            [m; 4],
            [m; 2],
            [
                0x87b092c3013fe90b,
                0x438c3c67be8d0224,
                0x9cc7d7c69cd777b6,
                0xa09caebf594f0ba0,
            ],
        ),
        (
            [
                0x243f6a8885a308d3,
                0x13198a2e03707344,
                0xa4093822299f31d0,
                0x082efa98ec4e6c89,
            ],
            [0x452821e638d01377, 0xbe5466cf34e90c6c],
            [
                0xa528f45403e61d95,
                0x38c72dbd566e9788,
                0xa5a1610e72fd18b5,
                0x57bd43b5e52b7fe6,
            ],
        ),
    ] {
        assert_eq!(philox4x64_10(counter, key), want);
    }
}

#[test]
fn random_bits_depend_on_every_coordinate_and_agree_with_blocks() {
    let (seed, step, site) = (5, 6, 7);
    for index in 0..64 {
        let block = random_block(seed, step, site, index / RANDOM_BLOCK_WORDS);
        assert_eq!(
            random_bits(seed, step, site, index),
            block[index as usize % 8]
        );
    }
    assert_eq!(random_bits(0, 0, 0, 0), 0xca36314c);
    assert_eq!(random_bits(0, 0, 0, 1), 0x16554d9e);
    let base = random_bits(1, 2, 3, 4);
    let high = 1 << 63;
    for other in [
        random_bits(1 | high, 2, 3, 4),
        random_bits(1, 2 | high, 3, 4),
        random_bits(1, 2, 3 | high, 4),
        random_bits(1, 2, 3, 4 | high),
        random_bits(2, 1, 3, 4),
        random_bits(1, 3, 2, 4),
    ] {
        assert_ne!(base, other);
    }
    // Bits are balanced: 64 Ki words, each bit set half the time within 5 sigma.
    let mut ones = [0i64; 32];
    for index in 0..1 << 16 {
        let word = random_bits(9, 0, 0, index);
        for (bit, count) in ones.iter_mut().enumerate() {
            *count += i64::from(word >> bit & 1);
        }
    }
    assert!(ones.iter().all(|c| (c - (1 << 15)).abs() < 640), "{ones:?}");
}

#[test]
fn rounding_names_round_trip() {
    for r in Rounding::ALL {
        assert_eq!(Rounding::from_name(&r.to_string()), Some(r));
    }
    assert_eq!(Rounding::from_name("up"), None);
}
