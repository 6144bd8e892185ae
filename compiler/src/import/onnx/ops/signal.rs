//! Signal processing: Fourier transforms as products with constant matrices, windows, filter banks.

use std::f64::consts::TAU;

use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Dot, Gather};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::super::value::onnx_dtype;
use super::shared::{const_extent, limited, numbers, wide};

pub(super) const OPS: &[OpEntry] = &[
    onnx("DFT", &[(17, dft)]),
    onnx("STFT", &[(17, stft)]),
    onnx("HannWindow", &[(17, |cx| window(cx, &[0.5, -0.5]))]),
    onnx(
        "HammingWindow",
        &[(17, |cx| window(cx, &[25.0 / 46.0, -21.0 / 46.0]))],
    ),
    onnx(
        "BlackmanWindow",
        &[(17, |cx| window(cx, &[0.42, -0.5, 0.08]))],
    ),
    onnx("MelWeightMatrix", &[(17, mel_weight_matrix)]),
];

/// Largest number of elements of the matrix of a transform.
const MAX_MATRIX: u64 = 1 << 24;

/// A discrete Fourier transform along one dim.
struct Transform {
    /// Number of points.
    length: u64,
    inverse: bool,
    /// Forward: only the first half of the frequencies is given. Inverse: only it is there, and
    /// the result is real.
    onesided: bool,
}

impl Transform {
    /// The matrix `[inputs, parts, outputs, result parts]` for this many inputs with this many
    /// parts, real and imaginary.
    fn matrix(&self, inputs: u64, parts: u64) -> (Vec<f64>, [u64; 4]) {
        let length = self.length.max(1);
        let half = self.length / 2 + 1;
        let outputs = if self.onesided && !self.inverse {
            half
        } else {
            self.length
        };
        let result_parts = if self.onesided && self.inverse { 1 } else { 2 };
        let mut values = vec![];
        for input in 0..inputs {
            // A frequency that has a mirror image stands for both.
            let mirrored = self.onesided && self.inverse && input > 0 && 2 * input != self.length;
            let scale = match self.inverse {
                true if mirrored => 2.0 / length as f64,
                true => 1.0 / length as f64,
                false => 1.0,
            };
            for part in 0..parts {
                for output in 0..outputs {
                    // The product is reduced before it becomes an angle, to keep it exact.
                    let turn = (u128::from(input) * u128::from(output)) % u128::from(length);
                    let angle = TAU * turn as f64 / length as f64;
                    let sine = if self.inverse {
                        angle.sin()
                    } else {
                        -angle.sin()
                    };
                    let (real, imaginary) = match part {
                        0 => (angle.cos(), sine),
                        _ => (-sine, angle.cos()),
                    };
                    values.push(real * scale);
                    if result_parts == 2 {
                        values.push(imaginary * scale);
                    }
                }
            }
        }
        (values, [inputs, parts, outputs, result_parts])
    }

    /// Transforms a dim of `x [.., parts]`.
    fn apply(&self, cx: &mut NodeCx<'_, '_>, x: ValueId, axis: usize) -> NodeResult<ValueId> {
        let last = cx.rank(x) - 1;
        let parts = const_extent(cx, x, last)?;
        if !(1..=2).contains(&parts) || axis == last {
            let message = format!("{} has not one or two parts in its last dim", cx.ty(x));
            return Err(NodeError::invalid(message));
        }
        let extent = const_extent(cx, x, axis)?;
        // What is beyond is cut off, what is missing is zero and adds nothing.
        let most = match self.onesided && self.inverse {
            true => self.length / 2 + 1,
            false => self.length,
        };
        let inputs = extent.min(most);
        if u128::from(inputs) * u128::from(self.length) * 4 > u128::from(MAX_MATRIX) {
            let message = format!("a transform of {} points", self.length);
            return Err(NodeError::unsupported(message).help("at most 2048 points"));
        }
        let dtype = cx.dtype(x);
        let x = cx.convert(x, wide(dtype))?;
        let x = cx.slice(x, axis, 0, inputs)?;
        let (values, shape) = self.matrix(inputs, parts);
        let matrix = numbers(cx, wide(dtype), &shape, values);
        let dot = Dot {
            batch: vec![],
            contract: vec![(axis, 0), (last, 1)],
            out: None,
        };
        let y = cx.op(dot, &[x, matrix])?;
        // The new dim is the last but one.
        let mut perm: Vec<usize> = (0..=last).collect();
        let moved = perm.remove(last - 1);
        perm.insert(axis, moved);
        let y = cx.transpose(y, &perm)?;
        cx.convert(y, dtype)
    }
}

/// A number of an operand that is one constant.
fn number(cx: &mut NodeCx<'_, '_>, index: usize, what: &str) -> NodeResult<i64> {
    match cx.require_ints(index, what)?[..] {
        [number] => Ok(number),
        _ => Err(NodeError::invalid(format!("{what} is not one number"))),
    }
}

fn dft(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 3)?;
    let x = cx.input(0)?;
    let axis = match cx.version {
        ..20 => cx.int("axis", 1)?,
        _ if cx.has(2) => number(cx, 2, "the axis")?,
        _ => -2,
    };
    let axis = cx.axis(axis, cx.rank(x))?;
    let inverse = cx.flag("inverse", false)?;
    let onesided = cx.flag("onesided", false)?;
    let length = match cx.has(1) {
        true => u64::try_from(number(cx, 1, "the length")?).map_err(|_| bad_extent())?,
        false => {
            let extent = const_extent(cx, x, axis)?;
            match inverse && onesided {
                true => 2 * extent.saturating_sub(1),
                false => extent,
            }
        }
    };
    let transform = Transform {
        length,
        inverse,
        onesided,
    };
    let y = transform.apply(cx, x, axis)?;
    cx.output(0, y);
    Ok(())
}

/// Transforms of overlapping frames.
fn stft(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 4)?;
    let x = cx.input(0)?;
    if cx.rank(x) != 3 {
        return Err(NodeError::invalid(format!("the signal is {}", cx.ty(x))));
    }
    let step = number(cx, 1, "the step")?;
    let length = const_extent(cx, x, 1)? as i64;
    let window = cx.optional(2)?;
    let frame = match (cx.has(3), window) {
        (true, _) => number(cx, 3, "the frame length")?,
        (false, Some(window)) => const_extent(cx, window, 0)? as i64,
        (false, None) => length,
    };
    let onesided = cx.flag("onesided", true)?;
    if step < 1 || !(1..=length).contains(&frame) {
        let message = format!("frames of {frame} at a distance of {step}, of {length} samples");
        return Err(NodeError::invalid(message));
    }
    let frames = 1 + (length - frame) / step;
    limited([frames as u64, frame as u64])?;
    let places = (0..frames)
        .flat_map(|f| (0..frame).map(move |n| f * step + n))
        .collect();
    let places = cx.constant(Tensor::from_vec(&[frames as u64, frame as u64], places));
    let mut y = cx.op(Gather { axis: 1 }, &[x, places])?;
    if let Some(window) = window {
        let window = cx.unsqueeze(window, &[1])?;
        y = cx.binary(BinaryFn::Mul, y, window)?;
    }
    let transform = Transform {
        length: frame as u64,
        inverse: false,
        onesided,
    };
    let y = transform.apply(cx, y, 2)?;
    cx.output(0, y);
    Ok(())
}

fn output_type(cx: &mut NodeCx<'_, '_>) -> NodeResult<DType> {
    let number = cx.int("output_datatype", 1)?;
    onnx_dtype(i32::try_from(number).unwrap_or(-1))
}

/// `sum over k of coefficients[k] * cos(2 pi k n / period)`.
fn window(cx: &mut NodeCx<'_, '_>, coefficients: &[f64]) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let size = number(cx, 0, "the size")?;
    let dtype = output_type(cx)?;
    let periodic = cx.flag("periodic", true)?;
    let size = u64::try_from(size)
        .ok()
        .filter(|s| *s < 1 << 24)
        .ok_or_else(bad_extent)?;
    let period = if periodic {
        size
    } else {
        size.saturating_sub(1).max(1)
    };
    let value = |n: u64| {
        let angle = TAU * n as f64 / period as f64;
        let terms = coefficients.iter().enumerate();
        terms.map(|(k, c)| c * (angle * k as f64).cos()).sum()
    };
    let values = (0..size).map(value);
    let y = numbers(cx, dtype, &[size], values);
    cx.output(0, y);
    Ok(())
}

/// Triangular filters `[frequencies, filters]` whose corners are equally spaced on the mel scale.
fn mel_weight_matrix(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(5, 5)?;
    let dtype = output_type(cx)?;
    let mut counts = vec![];
    for (index, what) in ["the number of filters", "the length", "the sample rate"]
        .into_iter()
        .enumerate()
    {
        let count = number(cx, index, what)?;
        counts.push(count.clamp(0, 1 << 24) as u64);
    }
    let mut edges = vec![];
    for (index, what) in [(3, "the lower edge"), (4, "the upper edge")] {
        match cx.const_floats(index).as_deref() {
            Some([edge]) => edges.push(*edge),
            _ => return Err(cx.needs_constant(index, what)),
        }
    }
    let (filters, rate) = (counts[0], counts[2] as f64);
    let bins = counts[1] / 2 + 1;
    limited([bins, filters])?;
    let mel = |hertz: f64| 2595.0 * (hertz / 700.0).ln_1p() / std::f64::consts::LN_10;
    let (low, high) = (mel(edges[0]), mel(edges[1]));
    let step = (high - low) / (filters + 2) as f64;
    let corner = |n: u64| {
        let mel = low + n as f64 * step;
        let hertz = 700.0 * (mel / 2595.0 * std::f64::consts::LN_10).exp_m1();
        ((counts[1] + 1) as f64 * hertz / rate).floor()
    };
    let mut values = vec![0.0; (bins * filters) as usize];
    for filter in 0..filters {
        let [left, centre, right] = [0, 1, 2].map(|n| corner(filter + n));
        for bin in 0..bins {
            let place = bin as f64;
            let rising = if centre > left {
                (place - left) / (centre - left)
            } else {
                1.0
            };
            let falling = (right - place) / (right - centre);
            values[(bin * filters + filter) as usize] = match place {
                p if p == centre => 1.0,
                p if p >= left && p < centre => rising,
                p if p > centre && p < right => falling,
                _ => 0.0,
            };
        }
    }
    let y = numbers(cx, dtype, &[bins, filters], values);
    cx.output(0, y);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverse_undoes_a_transform() {
        for length in [1, 4, 5] {
            let matrix = |inverse, inputs, parts, onesided| {
                let transform = Transform {
                    length,
                    inverse,
                    onesided,
                };
                transform.matrix(inputs, parts)
            };
            for onesided in [false, true] {
                let (there, [n, _, frequencies, _]) = matrix(false, length, 1, onesided);
                let (back, [_, _, m, parts]) = matrix(true, frequencies, 2, onesided);
                assert_eq!((n, m), (length, length));
                let inner = (frequencies * 2) as usize;
                for from in 0..n as usize {
                    for to in 0..m as usize {
                        let column = |k: usize| back[(k * m as usize + to) * parts as usize];
                        let sum: f64 = (0..inner)
                            .map(|k| there[from * inner + k] * column(k))
                            .sum();
                        let expected = if from == to { 1.0 } else { 0.0 };
                        assert!(
                            (sum - expected).abs() < 1e-12,
                            "{length} {from} {to}: {sum}"
                        );
                    }
                }
            }
        }
    }
}
