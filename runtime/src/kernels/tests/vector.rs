//! Vector kernels: tiers against each other, and the portable one against direct definitions.

use super::*;
use crate::kernels::blocks::{self, Block};

/// Lengths that end in every position of a vector, and places that are not aligned.
fn shapes() -> impl Iterator<Item = (usize, usize)> {
    (1..=70)
        .map(|len| (len, len % 5))
        .chain([(128, 1), (300, 3), (1100, 2)])
}

#[test]
fn unary_kernels_agree_between_tiers() {
    let mut rng = rng(1);
    for op in Unary::ALL {
        for (len, offset) in shapes() {
            let x = any_slice(&mut rng, len + offset);
            let x = &x[offset..];
            let mut expected = vec![0.0; len];
            reference().unary_f32(*op, x, &mut expected);
            let x16 = any_bf16_slice(&mut rng, len + offset);
            let x16 = &x16[offset..];
            let mut expected16 = vec![bf16::ZERO; len];
            reference().unary_bf16(*op, x16, &mut expected16);
            for k in others() {
                let mut y = vec![0.0; len];
                k.unary_f32(*op, x, &mut y);
                assert_eq!(bits(&y), bits(&expected), "{k:?} {op:?} {x:?}");
                let mut y = x.to_vec();
                k.unary_in_place_f32(*op, &mut y);
                assert_eq!(bits(&y), bits(&expected), "{k:?} {op:?} in place");
                let mut y = vec![bf16::ZERO; len];
                k.unary_bf16(*op, x16, &mut y);
                assert_eq!(bits16(&y), bits16(&expected16), "{k:?} {op:?} {x16:?}");
                let mut y = x16.to_vec();
                k.unary_in_place_bf16(*op, &mut y);
                assert_eq!(bits16(&y), bits16(&expected16), "{k:?} {op:?} in place");
            }
        }
    }
}

/// Many operands: a step through all codes of f32 that is not a multiple of a power of two.
#[test]
fn unary_kernels_agree_on_a_sample_of_all_floats() {
    let x: Vec<f32> = (0..=u32::MAX).step_by(40_009).map(f32::from_bits).collect();
    let mut expected = vec![0.0; x.len()];
    let mut y = expected.clone();
    for op in Unary::ALL {
        reference().unary_f32(*op, &x, &mut expected);
        for k in others() {
            k.unary_f32(*op, &x, &mut y);
            let differs = (0..x.len()).find(|&i| y[i].to_bits() != expected[i].to_bits());
            assert_eq!(
                differs.map(|i| (x[i], y[i], expected[i])),
                None,
                "{k:?} {op:?}"
            );
        }
    }
}

/// All codes of bf16.
#[test]
fn unary_kernels_on_bf16_round_the_f32_result_once() {
    let codes: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    let wide: Vec<f32> = codes.iter().map(|x| x.to_f32()).collect();
    for op in Unary::ALL {
        let mut y = vec![0.0; wide.len()];
        reference().unary_f32(*op, &wide, &mut y);
        let expected: Vec<u16> = y.iter().map(|y| bf16::from_f32(*y).to_bits()).collect();
        let mut narrow = vec![bf16::ZERO; codes.len()];
        for k in available() {
            k.unary_bf16(*op, &codes, &mut narrow);
            assert_eq!(bits16(&narrow), expected, "{k:?} {op:?}");
        }
    }
}

fn model_binary(op: Binary, a: f32, b: f32) -> f32 {
    let (a, b) = (flushed(a), flushed(b));
    let zeros = a == 0.0 && b == 0.0;
    let nan = a.is_nan() || b.is_nan();
    finished(match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min | Binary::Max if nan => f32::NAN,
        Binary::Min if zeros => f32::from_bits(a.to_bits() | b.to_bits()),
        Binary::Max if zeros => f32::from_bits(a.to_bits() & b.to_bits()),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
    })
}

#[test]
fn binary_kernels_agree_between_tiers_and_with_their_definition() {
    let mut rng = rng(2);
    for op in Binary::ALL {
        for (len, offset) in shapes() {
            let (a, b) = (any_slice(&mut rng, len + offset), any_slice(&mut rng, len));
            let a = &a[offset..];
            let a16: Vec<bf16> = a
                .iter()
                .map(|x| bf16::from_bits((x.to_bits() >> 16) as u16))
                .collect();
            let b16 = any_bf16_slice(&mut rng, len);
            for slices in [true, false] {
                let expected: Vec<f32> = (0..len)
                    .map(|i| model_binary(*op, a[i], if slices { b[i] } else { b[0] }))
                    .collect();
                let expected16: Vec<u16> = (0..len)
                    .map(|i| if slices { b16[i] } else { b16[0] })
                    .zip(&a16)
                    .map(|(b, a)| model_binary(*op, a.to_f32(), b.to_f32()))
                    .map(|y| bf16::from_f32(y).to_bits())
                    .collect();
                let operand = if slices {
                    Operand::Slice(&b[..])
                } else {
                    Operand::Scalar(b[0])
                };
                let operand16 = if slices {
                    Operand::Slice(&b16[..])
                } else {
                    Operand::Scalar(b16[0])
                };
                for k in available() {
                    let mut y = vec![0.0; len];
                    k.binary_f32(*op, a, operand, &mut y);
                    assert_eq!(bits(&y), bits(&expected), "{k:?} {op:?} {a:?} {b:?}");
                    let mut y = a.to_vec();
                    k.binary_in_place_f32(*op, &mut y, operand);
                    assert_eq!(bits(&y), bits(&expected), "{k:?} {op:?} in place");
                    let mut y = vec![bf16::ZERO; len];
                    k.binary_bf16(*op, &a16, operand16, &mut y);
                    assert_eq!(bits16(&y), expected16, "{k:?} {op:?} bf16");
                    let mut y = a16.clone();
                    k.binary_in_place_bf16(*op, &mut y, operand16);
                    assert_eq!(bits16(&y), expected16, "{k:?} {op:?} bf16 in place");
                }
            }
        }
    }
}

#[test]
fn fused_and_clamping_kernels_follow_their_definitions() {
    let mut rng = rng(3);
    for (len, _) in shapes() {
        let [a, b, c] = [0; 3].map(|_| any_slice(&mut rng, len));
        let [a16, b16, c16] = [0; 3].map(|_| any_bf16_slice(&mut rng, len));
        let (low, high) = (any_f32(&mut rng), any_f32(&mut rng));
        let fused = |a: f32, b: f32, c: f32| finished(flushed(a).mul_add(flushed(b), flushed(c)));
        let clamped = |x| model_binary(Binary::Min, model_binary(Binary::Max, x, low), high);
        let narrow = |x: f32| bf16::from_f32(x).to_bits();
        for k in available() {
            let mut y = vec![0.0; len];
            k.mul_add_f32(&a, &b, &c, &mut y);
            let expected: Vec<f32> = (0..len).map(|i| fused(a[i], b[i], c[i])).collect();
            assert_eq!(bits(&y), bits(&expected), "{k:?} mul_add");
            let mut y = c.clone();
            k.axpy_f32(low, &a, &mut y);
            let expected: Vec<f32> = (0..len).map(|i| fused(low, a[i], c[i])).collect();
            assert_eq!(bits(&y), bits(&expected), "{k:?} axpy");
            let mut y = vec![0.0; len];
            k.clamp_f32(low, high, &a, &mut y);
            let expected: Vec<f32> = a.iter().map(|x| clamped(*x)).collect();
            assert_eq!(bits(&y), bits(&expected), "{k:?} clamp {low} {high}");

            let mut y = vec![bf16::ZERO; len];
            k.mul_add_bf16(&a16, &b16, &c16, &mut y);
            let expected: Vec<u16> = (0..len)
                .map(|i| narrow(fused(a16[i].to_f32(), b16[i].to_f32(), c16[i].to_f32())))
                .collect();
            assert_eq!(bits16(&y), expected, "{k:?} mul_add bf16");
            let mut y = c16.clone();
            k.axpy_bf16(low, &a16, &mut y);
            let expected: Vec<u16> = (0..len)
                .map(|i| narrow(fused(low, a16[i].to_f32(), c16[i].to_f32())))
                .collect();
            assert_eq!(bits16(&y), expected, "{k:?} axpy bf16");
            k.clamp_bf16(low, high, &a16, &mut y);
            let expected: Vec<u16> = a16.iter().map(|x| narrow(clamped(x.to_f32()))).collect();
            assert_eq!(bits16(&y), expected, "{k:?} clamp bf16");
        }
    }
}

#[test]
fn comparison_and_selection_follow_their_definitions() {
    let mut rng = rng(4);
    for op in Compare::ALL {
        let holds = |a: f32, b: f32| match op {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            Compare::Ge => a >= b,
        };
        for (len, _) in shapes() {
            let (a, mut b) = (any_slice(&mut rng, len), any_slice(&mut rng, len));
            for i in (0..len).step_by(3) {
                b[i] = a[i];
            }
            let model = |b: &dyn Fn(usize) -> f32| -> Vec<u8> {
                (0..len)
                    .map(|i| u8::from(holds(flushed(a[i]), flushed(b(i)))))
                    .collect()
            };
            let by_slice = model(&|i| b[i]);
            let by_scalar = model(&|_| b[0]);
            let a16: Vec<bf16> = a
                .iter()
                .map(|x| bf16::from_bits((x.to_bits() >> 16) as u16))
                .collect();
            let by_itself: Vec<u8> = a16
                .iter()
                .map(|x| flushed(x.to_f32()))
                .map(|x| u8::from(holds(x, x)))
                .collect();
            for k in available() {
                let mut y = vec![9; len];
                k.compare_f32(*op, &a, Operand::Slice(&b), &mut y);
                assert_eq!(y, by_slice, "{k:?} {op:?}");
                k.compare_f32(*op, &a, Operand::Scalar(b[0]), &mut y);
                assert_eq!(y, by_scalar, "{k:?} {op:?}");
                k.compare_bf16(*op, &a16, Operand::Slice(&a16), &mut y);
                assert_eq!(y, by_itself, "{k:?} {op:?}");

                let mask: Vec<u8> = by_slice.iter().map(|m| m * 2).collect();
                let mut chosen = vec![0.0; len];
                k.select_f32(&mask, &a, &b, &mut chosen);
                let pick = |i: usize| if mask[i] != 0 { a[i] } else { b[i] };
                let expected: Vec<u32> = (0..len).map(|i| pick(i).to_bits()).collect();
                assert_eq!(bits(&chosen), expected, "{k:?} select keeps bits");
                let wide: Vec<i64> = (0..len as i64).collect();
                let minus: Vec<i64> = wide.iter().map(|x| -x).collect();
                let mut chosen = vec![0; len];
                k.select_i64(&mask, &wide, &minus, &mut chosen);
                assert!(
                    (0..len).all(|i| chosen[i] == if mask[i] != 0 { wide[i] } else { minus[i] })
                );
            }
        }
    }
}

/// The order of the module's page, by recursion over the lanes.
fn model_reduce(op: Reduce, x: &[f32]) -> f32 {
    let combine = |a: f32, b: f32| match op {
        Reduce::Sum => a + b,
        Reduce::Prod => a * b,
        Reduce::Min => model_binary(Binary::Min, a, b),
        Reduce::Max => model_binary(Binary::Max, a, b),
    };
    let identity = match op {
        Reduce::Sum => 0.0,
        Reduce::Prod => 1.0,
        Reduce::Min => f32::INFINITY,
        Reduce::Max => f32::NEG_INFINITY,
    };
    let mut lanes = vec![identity; 32];
    for (i, x) in x.iter().enumerate() {
        lanes[i % 32] = combine(lanes[i % 32], flushed(*x));
    }
    while lanes.len() > 1 {
        let high = lanes.split_off(lanes.len() / 2);
        for (l, h) in lanes.iter_mut().zip(high) {
            *l = combine(*l, h);
        }
    }
    finished(lanes[0])
}

#[test]
fn reductions_follow_the_stated_order() {
    let mut rng = rng(5);
    for op in Reduce::ALL {
        for (len, offset) in shapes().chain([(0, 0)]) {
            for special in [true, false] {
                let mut draw = || {
                    if special {
                        any_f32(&mut rng)
                    } else {
                        ordinary(&mut rng)
                    }
                };
                let x: Vec<f32> = (0..len + offset).map(|_| draw()).collect();
                let x = &x[offset..];
                let x16: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
                let wide: Vec<f32> = x16.iter().map(|x| x.to_f32()).collect();
                for k in available() {
                    let y = k.reduce_f32(*op, x);
                    assert_eq!(
                        y.to_bits(),
                        model_reduce(*op, x).to_bits(),
                        "{k:?} {op:?} {x:?}"
                    );
                    let y = k.reduce_bf16(*op, &x16);
                    assert_eq!(
                        y.to_bits(),
                        model_reduce(*op, &wide).to_bits(),
                        "{k:?} {op:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn integers_wrap_and_compare() {
    let mut rng = rng(6);
    for (len, _) in shapes() {
        let a: Vec<i64> = (0..len).map(|_| rng.random()).collect();
        let b: Vec<i64> = (0..len)
            .map(|i| if i % 4 == 0 { a[i] } else { rng.random() })
            .collect();
        let (a32, b32): (Vec<i32>, Vec<i32>) = (
            a.iter().map(|x| *x as i32).collect(),
            b.iter().map(|x| *x as i32).collect(),
        );
        for k in available() {
            for op in IntBinary::ALL {
                // In 128 bits nothing wraps but by the final conversion.
                let model = |a: i128, b: i128| match op {
                    IntBinary::Add => a + b,
                    IntBinary::Sub => a - b,
                    IntBinary::Mul => a.wrapping_mul(b),
                    IntBinary::Min => a.min(b),
                    IntBinary::Max => a.max(b),
                };
                let mut y = vec![0; len];
                k.binary_i64(*op, &a, Operand::Slice(&b), &mut y);
                assert!(
                    (0..len).all(|i| y[i] == model(a[i].into(), b[i].into()) as i64),
                    "{k:?} {op:?}"
                );
                k.binary_i64(*op, &a, Operand::Scalar(b[0]), &mut y);
                assert!(
                    (0..len).all(|i| y[i] == model(a[i].into(), b[0].into()) as i64),
                    "{k:?} {op:?}"
                );
                let mut y = vec![0; len];
                k.binary_i32(*op, &a32, Operand::Slice(&b32), &mut y);
                assert!(
                    (0..len).all(|i| y[i] == model(a32[i].into(), b32[i].into()) as i32),
                    "{k:?} {op:?}"
                );
            }
            for op in Compare::ALL {
                let model = |a: i64, b: i64| match op {
                    Compare::Eq => a == b,
                    Compare::Ne => a != b,
                    Compare::Lt => a < b,
                    Compare::Le => a <= b,
                    Compare::Gt => a > b,
                    Compare::Ge => a >= b,
                };
                let mut y = vec![9; len];
                k.compare_i64(*op, &a, Operand::Slice(&b), &mut y);
                assert!(
                    (0..len).all(|i| y[i] == u8::from(model(a[i], b[i]))),
                    "{k:?} {op:?}"
                );
                k.compare_i32(*op, &a32, Operand::Scalar(b32[0]), &mut y);
                assert!((0..len).all(|i| y[i] == u8::from(model(a32[i].into(), b32[0].into()))));
            }
        }
    }
}

#[test]
fn blocks_move_to_their_places() {
    for (rows, cols) in [(0, 3), (3, 0), (1, 1), (1, 9), (17, 5), (33, 40)] {
        let source = Block {
            rows,
            cols,
            stride: cols + 3,
        };
        let from: Vec<u32> = (0..(rows * source.stride) as u32 + 5).collect();
        let at = |i: usize, j: usize| from[i * source.stride + j];

        let target = Block {
            rows,
            cols,
            stride: cols + 1,
        };
        let mut to = vec![u32::MAX; rows * target.stride + 1];
        blocks::copy(&from, source, &mut to, target);
        let padded = Block {
            rows: rows + 3,
            cols: cols + 4,
            stride: cols + 6,
        };
        let mut wide = vec![u32::MAX; padded.rows * padded.stride];
        blocks::pad(&from, source, &mut wide, padded, (1, 3), 77);
        for i in 0..padded.rows {
            for j in 0..padded.stride {
                let inside = (1..=rows).contains(&i) && (3..cols + 3).contains(&j);
                let expected = if inside {
                    at(i - 1, j - 3)
                } else if j < padded.cols {
                    77
                } else {
                    u32::MAX
                };
                assert_eq!(wide[i * padded.stride + j], expected, "pad {i} {j}");
            }
        }
        let across = Block {
            rows: cols,
            cols: rows,
            stride: rows + 2,
        };
        let mut turned = vec![u32::MAX; cols * across.stride];
        blocks::transpose(&from, source, &mut turned, across);
        for i in 0..rows {
            assert_eq!(
                to[i * target.stride + cols],
                u32::MAX,
                "nothing between rows"
            );
            for j in 0..cols {
                assert_eq!(to[i * target.stride + j], at(i, j));
                assert_eq!(turned[j * across.stride + i], at(i, j));
            }
        }
        if rows == 0 || cols == 0 {
            continue;
        }
        let order: Vec<u32> = (0..rows as u32 + 2)
            .map(|i| (i * 7) % rows as u32)
            .collect();
        let picked = Block::dense(order.len(), cols);
        let mut gathered = vec![0; picked.span()];
        blocks::gather_rows(&from, source, &order, &mut gathered, picked);
        let mut scattered = vec![u32::MAX; target.span()];
        blocks::scatter_rows(&gathered, picked, &order, &mut scattered, target);
        for (i, row) in blocks::rows(&gathered, picked).enumerate() {
            assert_eq!(row, &from[order[i] as usize * source.stride..][..cols]);
        }
        for i in order {
            let row = &scattered[i as usize * target.stride..][..cols];
            assert_eq!(row, &from[i as usize * source.stride..][..cols]);
        }
    }
}
