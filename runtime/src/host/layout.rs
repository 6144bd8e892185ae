//! Between dense boxes and laid out bytes.

use bytes::Bytes;
use dojoc_ir::program::Packing;

use crate::compute::Layout;

/// Runs of elements that lie side by side both in a dense box and in its layout, in row-major order:
/// calls `visit(dense byte, layout byte from its lowest, bytes)`.
pub(crate) fn runs(layout: &Layout, mut visit: impl FnMut(usize, usize, usize)) {
    let view = &layout.view;
    let size = view.dtype.bytes() as usize;
    if layout.elements == 0 {
        return;
    }
    if layout.dense {
        visit(0, 0, layout.elements * size);
        return;
    }
    let Some((columns, outer)) = view.shape.split_last() else {
        visit(0, 0, size);
        return;
    };
    let side_by_side = match view.packing {
        Packing::Strided if view.strides.last() == Some(&(size as i64)) => *columns,
        Packing::Strided => 1,
        packed => packed.block().1,
    };
    let mut index = vec![0u64; view.shape.len()];
    let last = outer.len();
    let mut dense = 0;
    loop {
        let mut column = 0;
        while column < *columns {
            let count = side_by_side.min(columns - column);
            index[last] = column;
            let at = view.position(&index) - layout.low;
            let bytes = count as usize * size;
            visit(dense, at as usize, bytes);
            dense += bytes;
            column += count;
        }
        // The next row, like an odometer.
        let mut d = last;
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < outer[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

/// Lays dense elements out: `image` begins with the layout's lowest byte. Gaps are left as they are.
///
/// # Panics
/// When a slice is shorter than the layout says.
pub fn scatter(layout: &Layout, dense: &[u8], image: &mut [u8]) {
    runs(layout, |from, to, bytes| {
        image[to..to + bytes].copy_from_slice(&dense[from..from + bytes]);
    });
}

/// The inverse of [`scatter`].
///
/// # Panics
/// When a slice is shorter than the layout says.
pub fn gather(layout: &Layout, image: &[u8], dense: &mut [u8]) {
    runs(layout, |to, from, bytes| {
        dense[to..to + bytes].copy_from_slice(&image[from..from + bytes]);
    });
}

/// Calls `visit(first byte in the tensor, first byte in the box, bytes)` for the rows of a box of a
/// dense tensor whose elements have `size` bytes. The box lies within `shape`.
pub(super) fn box_rows(
    shape: &[u64],
    start: &[u64],
    extents: &[u64],
    size: usize,
    mut visit: impl FnMut(usize, usize, usize),
) {
    if extents.contains(&0) {
        return;
    }
    // Whole trailing dimensions make one row.
    let mut inner = shape.len();
    let mut row = size as u64;
    while inner > 0 {
        inner -= 1;
        row *= extents[inner];
        if extents[inner] != shape[inner] {
            break;
        }
    }
    let mut strides = vec![size as u64; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    let first: u64 = start.iter().zip(&strides).map(|(i, s)| i * s).sum();
    let mut index = vec![0u64; inner];
    let mut to = 0usize;
    loop {
        let from: u64 = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
        visit((first + from) as usize, to, row as usize);
        to += row as usize;
        let mut d = inner;
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < extents[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

/// A box of a dense tensor, dense; shared where it lies side by side in the tensor.
///
/// # Panics
/// When the box does not lie within the tensor, or `data` is shorter than the tensor.
pub fn slice_box(
    data: &Bytes,
    shape: &[u64],
    start: &[u64],
    extents: &[u64],
    size: usize,
) -> Bytes {
    let bytes = extents.iter().product::<u64>() as usize * size;
    let mut out = Vec::new();
    let mut shared = None;
    box_rows(shape, start, extents, size, |from, _, row| {
        if row == bytes {
            shared = Some(data.slice(from..from + row));
        } else {
            if out.is_empty() {
                out.reserve_exact(bytes);
            }
            out.extend_from_slice(&data[from..from + row]);
        }
    });
    shared.unwrap_or_else(|| Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use dojoc_ir::program::ViewType;
    use dojoc_ir::types::DType;

    use super::*;

    #[test]
    fn layouts_are_inverse_both_ways() {
        let views = [
            ViewType::dense(DType::U16, &[10, 6], Packing::Packed8x4).unwrap(),
            ViewType::dense(DType::U8, &[3, 5, 9], Packing::Packed4x8).unwrap(),
            ViewType::dense(DType::F32, &[7], Packing::Packed8x4).unwrap(),
            ViewType::dense(DType::F32, &[], Packing::Strided).unwrap(),
            ViewType {
                dtype: DType::F32,
                shape: vec![3, 4],
                strides: vec![-64, 4],
                packing: Packing::Strided,
            },
            ViewType {
                dtype: DType::U16,
                shape: vec![2, 3, 4],
                strides: vec![2, 40, 6],
                packing: Packing::Strided,
            },
        ];
        for view in views {
            let layout = Layout::new(view).unwrap();
            let bytes = layout.elements * layout.view.dtype.bytes() as usize;
            let dense: Vec<u8> = (0..bytes).map(|b| b as u8).collect();
            let mut image = vec![0xEE; layout.span];
            scatter(&layout, &dense, &mut image);
            let size = layout.view.dtype.bytes() as usize;
            let indices = dojoc_ir::tensor::indices(&layout.view.shape);
            for (i, index) in indices.enumerate() {
                let at = (layout.view.position(&index) - layout.low) as usize;
                assert_eq!(image[at..at + size], dense[i * size..][..size], "{index:?}");
            }
            let mut back = vec![0; bytes];
            gather(&layout, &image, &mut back);
            assert_eq!(back, dense);
        }
    }

    #[test]
    fn boxes_are_cut_out() {
        let data = Bytes::from((0..24u8).collect::<Vec<_>>());
        let cut = |start: &[u64], extents: &[u64]| slice_box(&data, &[2, 3, 4], start, extents, 1);
        assert_eq!(cut(&[1, 1, 2], &[1, 2, 2]).as_ref(), [18, 19, 22, 23]);
        assert_eq!(
            cut(&[0, 2, 1], &[2, 1, 3]).as_ref(),
            [9, 10, 11, 21, 22, 23]
        );
        let whole = cut(&[1, 0, 0], &[1, 3, 4]);
        assert_eq!(whole.as_ptr(), data[12..].as_ptr());
        assert!(cut(&[0, 0, 0], &[2, 0, 4]).is_empty());
        assert_eq!(slice_box(&data.slice(3..4), &[], &[], &[], 1).as_ref(), [3]);
    }
}
