//! Conversions against `half`, the formats of the IR, and plain casts.

use dojoc_ir::formats::{Bias, CFP8_143, SHP, UHP, random_bits, stochastic_bf16};
use half::f16;

use super::*;

/// Floats around every rounding boundary of the 16-bit formats: each code's value, its halfway
/// points, and their neighbours; and a sample of all floats.
fn telling_floats() -> Vec<f32> {
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(65_537).map(f32::from_bits).collect();
    for code in 0..=u16::MAX {
        let wide = u32::from(code) << 16;
        for low in [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF] {
            x.push(f32::from_bits(wide | low));
        }
        let half = f16::from_bits(code).to_f32().to_bits();
        for offset in [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF] {
            x.push(f32::from_bits(half.wrapping_add(offset)));
        }
    }
    for exponent in 0..30 {
        // Halfway between f16 subnormals.
        let unit = 2f32.powi(-25 + exponent);
        x.extend([unit, unit * 3.0, unit * 1.000_001, unit * 2.999_999]);
    }
    x.extend([65519.996, 65520.0, 65504.0, f32::MAX]);
    x
}

#[test]
fn nearest_conversions_to_16_bits_agree_with_half() {
    let x = telling_floats();
    let expected: Vec<u16> = x
        .iter()
        .map(|x| bf16::from_f32(finished(*x)).to_bits())
        .collect();
    let expected16: Vec<u16> = x
        .iter()
        .map(|x| f16::from_f32_const(finished(*x)).to_bits())
        .collect();
    for k in available() {
        let mut y = vec![bf16::ZERO; x.len()];
        k.f32_to_bf16(&x, &mut y);
        let wrong = (0..x.len()).find(|&i| y[i].to_bits() != expected[i]);
        assert_eq!(wrong.map(|i| (x[i], y[i])), None, "{k:?}");
        let mut y = vec![f16::ZERO; x.len()];
        k.f32_to_f16(&x, &mut y);
        let wrong = (0..x.len()).find(|&i| y[i].to_bits() != expected16[i]);
        assert_eq!(wrong.map(|i| (x[i], y[i], expected16[i])), None, "{k:?}");
    }
}

#[test]
fn all_codes_of_16_bits_widen_exactly() {
    let codes: Vec<u16> = (0..=u16::MAX).collect();
    let narrow: Vec<bf16> = codes.iter().map(|c| bf16::from_bits(*c)).collect();
    let half: Vec<f16> = codes.iter().map(|c| f16::from_bits(*c)).collect();
    for k in available() {
        let mut y = vec![0.0; codes.len()];
        k.bf16_to_f32(&narrow, &mut y);
        assert!((0..codes.len()).all(|i| y[i].to_bits() == finished(narrow[i].to_f32()).to_bits()));
        k.f16_to_f32(&half, &mut y);
        let wrong = (0..codes.len())
            .find(|&i| y[i].to_bits() != finished(half[i].to_f32_const()).to_bits());
        assert_eq!(wrong, None, "{k:?}");
    }
}

#[test]
fn stochastic_rounding_draws_by_logical_index() {
    let mut rng = rng(7);
    let x = any_slice(&mut rng, 300);
    let draw = Draw {
        seed: 5,
        step: 6,
        site: 7,
        index: 1003,
    };
    let noise = |i: usize| random_bits(5, 6, 7, 1003 + i as u64);
    let expected: Vec<u16> = (0..x.len())
        .map(|i| match finished(x[i]) {
            nan if nan.is_nan() => 0x7FC0,
            x => stochastic_bf16(x, noise(i)).to_bits(),
        })
        .collect();
    for k in available() {
        let mut y = vec![bf16::ZERO; x.len()];
        k.f32_to_bf16_stochastic(draw, &x, &mut y);
        assert_eq!(bits16(&y), expected, "{k:?}");
        // Parts give the same as the whole.
        k.f32_to_bf16_stochastic(draw.advanced(37), &x[37..], &mut y[37..]);
        assert_eq!(bits16(&y), expected, "{k:?}");
    }
    let mut codes = vec![0; x.len()];
    let bias = Bias::new(20).unwrap();
    encode_minifloat(&SHP, bias, Some(draw), &x, &mut codes);
    let expected = |i: usize| SHP.encode(finished(x[i]), bias, Some(noise(i)));
    assert!((0..x.len()).all(|i| codes[i] == expected(i)));
}

#[test]
fn cfp8_decodes_exactly_to_bf16_under_every_bias() {
    let codes: Vec<u8> = (0..=255).collect();
    for format in [Cfp8::E4M3, Cfp8::E5M2] {
        for bias in Bias::all() {
            let decoder = Cfp8Decoder::new(format, bias);
            for k in available() {
                let mut y = vec![bf16::ZERO; codes.len()];
                k.cfp8_to_bf16(decoder, &codes, &mut y);
                for (code, y) in codes.iter().zip(y) {
                    let expected = format.format().decode(u16::from(*code), bias);
                    assert_eq!(
                        y.to_f32().to_bits(),
                        expected.to_bits(),
                        "{k:?} {format:?} {bias} {code}"
                    );
                    assert!(
                        y == bf16::ZERO || y.is_normal(),
                        "no rule about subnormals applies"
                    );
                }
            }
        }
    }
}

#[test]
fn configurable_formats_convert_by_their_definition() {
    let mut rng = rng(8);
    let x = any_slice(&mut rng, 500);
    let bias = Bias::new(12).unwrap();
    let mut bytes = vec![0; x.len()];
    encode_cfp8(Cfp8::E4M3, bias, None, &x, &mut bytes);
    for format in [SHP, UHP] {
        let mut codes = vec![0; x.len()];
        encode_minifloat(&format, bias, None, &x, &mut codes);
        let mut back = vec![0.0; x.len()];
        decode_minifloat(&format, bias, &codes, &mut back);
        for i in 0..x.len() {
            assert_eq!(codes[i], format.encode(finished(x[i]), bias, None));
            assert_eq!(
                back[i].to_bits(),
                finished(format.decode(codes[i], bias)).to_bits()
            );
            let byte = CFP8_143.encode(finished(x[i]), bias, None);
            assert_eq!(u16::from(bytes[i]), byte);
        }
    }
}

#[test]
fn integers_convert_as_the_convert_op_does() {
    let mut rng = rng(9);
    let x = any_slice(&mut rng, 1000);
    let small: Vec<f32> = (0..200).map(|i| i as f32 - 99.5).collect();
    let ints: Vec<i32> = (0..1000).map(|_| rng.random()).collect();
    let bytes: Vec<i8> = (-128..=127).collect();
    for k in available() {
        for x in [&x, &small] {
            let mut y = vec![0; x.len()];
            k.f32_to_i32(x, &mut y);
            assert!((0..x.len()).all(|i| y[i] == x[i] as i128 as i32), "{k:?}");
        }
        let mut y = vec![0.0; ints.len()];
        k.i32_to_f32(&ints, &mut y);
        assert!(
            (0..ints.len()).all(|i| y[i] == (f64::from(ints[i])) as f32),
            "{k:?}"
        );
        let mut y = vec![0; bytes.len()];
        k.i8_to_i32(&bytes, &mut y);
        assert!(
            (0..bytes.len()).all(|i| y[i] == i32::from(bytes[i])),
            "{k:?}"
        );
    }
}
