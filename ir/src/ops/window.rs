//! Windows that slide over the spatial dims of a tensor: what convolution and pooling share.
//!
//! Along one dim, window position `o` and kernel position `k` meet the input at
//! `o * stride + k * dilation - pad.0`; there is nothing to meet where that is outside.

use super::TypeError;
use crate::access::Affine;
use crate::dim::{Dim, Poly};
use crate::tensor::{indices, ravel};

/// Strides, dilations and pads beyond this are refused, so that positions do not overflow.
const LIMIT: u64 = 1 << 31;

/// The attributes of windows, one entry per spatial dim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows<'a> {
    /// Distance of neighbouring windows.
    pub stride: &'a [u64],
    /// Distance of neighbouring elements of one window.
    pub dilation: &'a [u64],
    /// Extent of the padding before and after the input; negative pads cut the input.
    pub pad: &'a [(i64, i64)],
}

/// Consecutive window positions along the last dim, at which one kernel position meets the input:
/// position `output + i` in row-major order meets `input + i * stride` of the last dim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    /// Row-major position of the first window.
    pub output: usize,
    /// Row-major position of the input element that it meets.
    pub input: usize,
    /// Number of windows.
    pub len: usize,
}

/// The quotient rounded up, for a positive divisor.
fn ceil_div(a: i128, by: i128) -> i128 {
    a.div_euclid(by) + i128::from(a.rem_euclid(by) != 0)
}

impl Windows<'_> {
    /// Checks that there is one attribute for each of `rank` dims and that they are in range.
    pub fn check(&self, rank: usize) -> Result<(), TypeError> {
        for (name, len) in [
            ("stride", self.stride.len()),
            ("dilation", self.dilation.len()),
            ("pad", self.pad.len()),
        ] {
            if len != rank {
                type_error!("`{name}` has {len} entries for {rank} spatial dims");
            }
        }
        for (name, values) in [("stride", self.stride), ("dilation", self.dilation)] {
            if let Some(value) = values.iter().find(|v| !(1..LIMIT).contains(v)) {
                type_error!("`{name}` holds {value}, it must be from 1 to {}", LIMIT - 1);
            }
        }
        let mut pads = self.pad.iter().flat_map(|(low, high)| [low, high]);
        if let Some(value) = pads.find(|p| p.unsigned_abs() >= LIMIT) {
            type_error!("`pad` holds {value}, its magnitude must be below {LIMIT}");
        }
        Ok(())
    }

    /// Extent along `dim` of a window whose elements are `dilation` apart.
    fn span(&self, dim: usize, kernel: u64) -> Option<i64> {
        let steps = kernel.checked_sub(1)?.checked_mul(self.dilation[dim])?;
        i64::try_from(steps.checked_add(1)?).ok()
    }

    /// Number of windows along each dim: `floor((input + pads - span) / stride) + 1`.
    pub fn extents(&self, input: &[Dim], kernel: &[u64]) -> Result<Vec<Dim>, TypeError> {
        let extent = |dim: usize| {
            let (low, high) = self.pad[dim];
            let span = self.span(dim, kernel[dim])?;
            let room = Poly::constant(low.checked_add(high)?.checked_sub(span)?);
            let stride = Poly::constant(i64::try_from(self.stride[dim]).ok()?);
            let count = input[dim].to_poly()?.add(&room)?.floor_div(&stride)?;
            Dim::from_poly(count.add(&Poly::constant(1))?)
        };
        (0..input.len())
            .map(|dim| match extent(dim) {
                Some(extent) => Ok(extent),
                None => type_error!(
                    "a window of {} elements, {} apart, does not fit into spatial dim {dim} of \
                     extent {} padded by {:?}",
                    kernel[dim],
                    self.dilation[dim],
                    input[dim],
                    self.pad[dim]
                ),
            })
            .collect()
    }

    /// The padding with which there are `output` windows: the same before the input, and after it
    /// whatever is needed.
    pub fn fitted_pad(
        &self,
        input: &[Dim],
        kernel: &[u64],
        output: &[Dim],
    ) -> Result<Vec<(i64, i64)>, TypeError> {
        if self
            .extents(input, kernel)
            .is_ok_and(|extents| extents == output)
        {
            return Ok(self.pad.to_vec());
        }
        let high = |dim: usize| {
            let stride = Poly::constant(i64::try_from(self.stride[dim]).ok()?);
            let last = output[dim]
                .to_poly()?
                .sub(&Poly::constant(1))?
                .mul(&stride)?;
            let room = self.span(dim, kernel[dim])?.checked_sub(self.pad[dim].0)?;
            last.add(&Poly::constant(room))?
                .sub(&input[dim].to_poly()?)?
                .as_constant()
        };
        (0..input.len())
            .map(|dim| match high(dim) {
                Some(high) => Ok((self.pad[dim].0, high)),
                None => type_error!(
                    "no constant padding of extent {} has {} windows",
                    input[dim],
                    output[dim]
                ),
            })
            .collect()
    }

    /// The input position that the loops `output` and `kernel` meet along `dim`.
    pub fn input_index(&self, dim: usize, output: usize, kernel: usize) -> Affine {
        let terms = [
            (output, self.stride[dim] as i64),
            (kernel, self.dilation[dim] as i64),
        ];
        Affine::new(&terms, -self.pad[dim].0)
    }

    /// The window position along `dim` at which the kernel position of the loop `kernel` meets the
    /// input position of the loop `input`.
    pub fn output_index(&self, dim: usize, input: usize, kernel: usize) -> Affine {
        let terms = [(input, 1), (kernel, -(self.dilation[dim] as i64))];
        Affine::new(&terms, self.pad[dim].0).divided(self.stride[dim])
    }

    /// The stride along the last dim, which is that of [`Segment`]s.
    pub fn step(&self) -> usize {
        self.stride.last().map_or(1, |s| *s as usize)
    }

    /// How many of the `kernel` elements of window `at` along `dim` meet positions in the half-open
    /// range.
    pub fn seen(&self, dim: usize, at: u64, kernel: u64, (first, end): (i64, i64)) -> u64 {
        let start = i128::from(at) * i128::from(self.stride[dim]) - i128::from(self.pad[dim].0);
        let dilation = i128::from(self.dilation[dim]);
        let before = |position: i64| ceil_div(i128::from(position) - start, dilation);
        let clamp = |k: i128| k.clamp(0, kernel.into()) as u64;
        clamp(before(end)).saturating_sub(clamp(before(first)))
    }

    /// The windows `first..end` along `dim` at which kernel position `k` meets the input.
    fn range(&self, dim: usize, k: u64, input: u64, output: u64) -> (u64, u64) {
        let stride = i128::from(self.stride[dim]);
        let offset = i128::from(k) * i128::from(self.dilation[dim]) - i128::from(self.pad[dim].0);
        let clamp = |a: i128| a.clamp(0, output.into()) as u64;
        (
            clamp(ceil_div(-offset, stride)),
            clamp(ceil_div(i128::from(input) - offset, stride)),
        )
    }

    /// For each kernel position in row-major order, where it meets the input.
    pub fn taps(&self, input: &[u64], kernel: &[u64], output: &[u64]) -> Vec<Vec<Segment>> {
        indices(kernel)
            .map(|k| self.segments(&k, input, output))
            .collect()
    }

    fn segments(&self, k: &[u64], input: &[u64], output: &[u64]) -> Vec<Segment> {
        let ranges: Vec<(u64, u64)> = (0..input.len())
            .map(|d| self.range(d, k[d], input[d], output[d]))
            .collect();
        let counts: Vec<u64> = ranges
            .iter()
            .map(|(first, end)| end.saturating_sub(*first))
            .collect();
        let (rows, len) = match counts.split_last() {
            Some((len, rows)) => (rows, *len as usize),
            None => (&[][..], 1),
        };
        let mut segments: Vec<Segment> = vec![];
        if len == 0 {
            return segments;
        }
        for row in indices(rows) {
            let at: Vec<u64> = ranges
                .iter()
                .enumerate()
                .map(|(d, r)| r.0 + row.get(d).unwrap_or(&0))
                .collect();
            let met = |d: usize| {
                let position = i128::from(at[d]) * i128::from(self.stride[d])
                    + i128::from(k[d]) * i128::from(self.dilation[d])
                    - i128::from(self.pad[d].0);
                position as u64
            };
            let met: Vec<u64> = (0..input.len()).map(met).collect();
            let next = Segment {
                output: ravel(&at, output) as usize,
                input: ravel(&met, input) as usize,
                len,
            };
            // Rows that follow each other on both sides are one: all of them for a kernel of 1.
            match segments.last_mut() {
                Some(last)
                    if self.step() == 1
                        && last.output + last.len == next.output
                        && last.input + last.len == next.input =>
                {
                    last.len += len;
                }
                _ => segments.push(next),
            }
        }
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_the_points_inside() {
        let windows = Windows {
            stride: &[2, 3],
            dilation: &[1, 2],
            pad: &[(1, 0), (-1, 4)],
        };
        let (input, kernel) = ([5u64, 9], [3u64, 2]);
        let dims = input.map(Dim::Const);
        let output: Vec<u64> = windows
            .extents(&dims, &kernel)
            .unwrap()
            .iter()
            .map(|d| d.as_const().unwrap())
            .collect();
        assert_eq!(output, [2, 4]);
        let taps = windows.taps(&input, &kernel, &output);
        for (k, segments) in indices(&kernel).zip(&taps) {
            let mut expected = vec![];
            for at in indices(&output) {
                let y = at[0] as i64 * 2 + k[0] as i64 - 1;
                let x = at[1] as i64 * 3 + k[1] as i64 * 2 + 1;
                if (0..5).contains(&y) && (0..9).contains(&x) {
                    expected.push((ravel(&at, &output) as usize, (y * 9 + x) as usize));
                }
            }
            let found: Vec<(usize, usize)> = segments
                .iter()
                .flat_map(|s| (0..s.len).map(|i| (s.output + i, s.input + i * 3)))
                .collect();
            assert_eq!(found, expected, "{k:?}");
        }
    }

    #[test]
    fn a_pointwise_kernel_is_one_segment() {
        let windows = Windows {
            stride: &[1, 1],
            dilation: &[1, 1],
            pad: &[(0, 0); 2],
        };
        let taps = windows.taps(&[4, 5], &[1, 1], &[4, 5]);
        assert_eq!(
            taps,
            [[Segment {
                output: 0,
                input: 0,
                len: 20
            }]]
        );
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        let extents = |input, kernel, stride| {
            Windows {
                stride: &[stride],
                dilation: &[2],
                pad: &[(0, 0)],
            }
            .extents(&[Dim::Const(input)], &[kernel])
        };
        assert_eq!(extents(5, 3, 1), Ok(vec![Dim::Const(1)]));
        assert_eq!(extents(4, 3, 1), Ok(vec![Dim::Const(0)]));
        assert!(extents(3, 3, 1).is_err());
        let symbolic = Windows {
            stride: &[2],
            dilation: &[1],
            pad: &[(1, 1)],
        };
        let found = symbolic.extents(&[Dim::symbol("n", 9)], &[3]).unwrap();
        assert_eq!(found[0].to_string(), "floor_div(n - 1, 2) + 1");
        assert_eq!(found[0].max_extent(), 5);
        let narrow = Windows {
            stride: &[1],
            dilation: &[1],
            pad: &[(0, 1 << 31)],
        };
        assert!(narrow.check(1).is_err());
        assert!(
            Windows {
                stride: &[0],
                ..narrow
            }
            .check(1)
            .is_err()
        );
    }
}
