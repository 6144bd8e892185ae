//! The exact bytes of a view.

use crate::program::ViewType;

/// The most intervals that a view may consist of. Rows of a matrix of a whole SRAM of single
/// elements would be more; nobody needs that.
pub(super) const MAX_RUNS: usize = 1 << 16;

/// The bytes that a view touches, relative to its first byte: half-open intervals, ascending, with
/// gaps between them. A packed view touches whole blocks. `None` if there may be more than
/// [`MAX_RUNS`], or on overflow.
pub(super) fn byte_runs(view: &ViewType) -> Option<Vec<(i64, i64)>> {
    if view.shape.contains(&0) {
        return Some(Vec::new());
    }
    let (rows, columns) = view.packing.block();
    let rank = view.shape.len();
    let mut base = 0i64;
    let mut dims = Vec::with_capacity(rank);
    for (d, (extent, stride)) in view.shape.iter().zip(&view.strides).enumerate() {
        let per_block = match rank - d {
            1 => columns,
            2 => rows,
            _ => 1,
        };
        let last = i64::try_from(extent.div_ceil(per_block) - 1).ok()?;
        if last == 0 || *stride == 0 {
            continue;
        }
        let reach = last.checked_mul(*stride)?;
        base = base.checked_add(reach.min(0))?;
        dims.push((stride.checked_abs()?, last));
    }
    dims.sort_unstable();
    let mut length = i64::try_from(rows * columns * view.dtype.bytes()).ok()?;
    let mut starts = vec![base];
    for (stride, last) in dims {
        if stride <= length && starts.len() == 1 {
            length = length.checked_add(last.checked_mul(stride)?)?;
            continue;
        }
        let count = usize::try_from(last).ok()?.checked_add(1)?;
        if starts.len().checked_mul(count)? > MAX_RUNS {
            return None;
        }
        // The ends are within what was checked above and the view's extent.
        let more = starts.clone();
        for step in 1..count as i64 {
            let shift = step.checked_mul(stride)?;
            for start in &more {
                starts.push(start.checked_add(shift)?);
            }
        }
    }
    starts.sort_unstable();
    let mut runs: Vec<(i64, i64)> = Vec::with_capacity(starts.len());
    for start in starts {
        let end = start.checked_add(length)?;
        match runs.last_mut() {
            Some((_, last)) if *last >= start => *last = end.max(*last),
            _ => runs.push((start, end)),
        }
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Packing;
    use crate::types::DType;

    fn strided(shape: &[u64], strides: &[i64]) -> ViewType {
        ViewType {
            dtype: DType::F32,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            packing: Packing::Strided,
        }
    }

    /// The bytes of every element, one by one.
    fn slow(view: &ViewType) -> Vec<(i64, i64)> {
        let mut bytes = std::collections::BTreeSet::new();
        for flat in 0..view.elements() {
            let mut rest = flat;
            let mut index = vec![0; view.shape.len()];
            for d in (0..view.shape.len()).rev() {
                index[d] = rest % view.shape[d];
                rest /= view.shape[d];
            }
            let at = view.position(&index);
            bytes.extend(at..at + view.dtype.bytes() as i64);
        }
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for byte in bytes {
            match runs.last_mut() {
                Some((_, end)) if *end == byte => *end += 1,
                _ => runs.push((byte, byte + 1)),
            }
        }
        runs
    }

    #[test]
    fn runs_are_the_bytes_of_all_elements() {
        let views = [
            strided(&[], &[]),
            strided(&[3, 0], &[4, 4]),
            strided(&[4, 8], &[32, 4]),
            strided(&[4, 8], &[64, 4]),
            strided(&[4, 8], &[-64, -4]),
            strided(&[8, 4], &[4, 64]),
            strided(&[3, 2, 5], &[40, 0, 8]),
            strided(&[2, 3, 4], &[8, 16, 96]),
            strided(&[5, 5, 3], &[12, 24, 4]),
            strided(&[2, 2, 2, 2, 2], &[4, 100, 12, 52, -8]),
            strided(&[3, 4], &[20, 8]),
        ];
        for view in views {
            assert_eq!(byte_runs(&view), Some(slow(&view)), "{view:?}");
        }
        let packed = ViewType::dense(DType::Bf16, &[10, 6], Packing::Packed8x4).unwrap();
        assert_eq!(byte_runs(&packed), Some(vec![(0, 256)]));
        let columns = strided(&[1 << 17], &[8]);
        assert_eq!(byte_runs(&columns), None);
    }
}
