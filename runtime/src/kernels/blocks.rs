//! Movement of two-dimensional blocks. Bit patterns are kept; the element type is any.
//!
//! A block is described by its rows, its columns and the distance between the starts of its rows in
//! elements; element (i, j) is at `i * stride + j`. These functions serve every tier: copies of
//! rows are the C library's.
//!
//! All of them panic if a slice is too short for its block or an index is out of range: a verified
//! program has neither.

/// Shape and row distance of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of rows.
    pub rows: usize,
    /// Number of elements in a row.
    pub cols: usize,
    /// Elements from the start of one row to the start of the next.
    pub stride: usize,
}

impl Block {
    /// A block without gaps.
    pub const fn dense(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            stride: cols,
        }
    }

    /// Elements from the first to the last one, inclusive.
    pub const fn span(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            0
        } else {
            (self.rows - 1) * self.stride + self.cols
        }
    }
}

/// The rows of a block, for applying a vector kernel to each.
pub fn rows<T>(data: &[T], block: Block) -> impl Iterator<Item = &[T]> {
    assert!(data.len() >= block.span(), "block exceeds its slice");
    (0..block.rows).map(move |i| match block.cols {
        0 => &data[..0],
        cols => &data[i * block.stride..][..cols],
    })
}

/// The rows of a block for writing; they must not overlap.
pub fn rows_mut<T>(data: &mut [T], block: Block) -> impl Iterator<Item = &mut [T]> {
    assert!(data.len() >= block.span(), "block exceeds its slice");
    assert!(block.rows < 2 || block.stride >= block.cols, "rows overlap");
    let used = block.span();
    data[..used]
        .chunks_mut(block.stride.max(1))
        .map(move |row| &mut row[..block.cols])
}

/// Copies a block; both have the same shape.
pub fn copy<T: Copy>(from: &[T], source: Block, to: &mut [T], target: Block) {
    assert_eq!(
        (source.rows, source.cols),
        (target.rows, target.cols),
        "shapes differ"
    );
    for (x, y) in rows(from, source).zip(rows_mut(to, target)) {
        y.copy_from_slice(x);
    }
}

/// Copies a block into a larger one, `top` rows and `left` columns from its corner, and fills the
/// rest with `fill`.
pub fn pad<T: Copy>(
    from: &[T],
    source: Block,
    to: &mut [T],
    target: Block,
    (top, left): (usize, usize),
    fill: T,
) {
    assert!(
        top + source.rows <= target.rows && left + source.cols <= target.cols,
        "the padded block does not fit"
    );
    for (i, y) in rows_mut(to, target).enumerate() {
        if i < top || i >= top + source.rows || source.cols == 0 {
            y.fill(fill);
        } else {
            let x = &from[(i - top) * source.stride..][..source.cols];
            y[..left].fill(fill);
            y[left..left + source.cols].copy_from_slice(x);
            y[left + source.cols..].fill(fill);
        }
    }
}

/// Side of the squares in which a transposition proceeds: their rows fit the L1 cache.
const TRANSPOSE_SQUARE: usize = 16;

/// Writes the transpose of a block: `target` has `source.cols` rows of `source.rows` elements.
pub fn transpose<T: Copy>(from: &[T], source: Block, to: &mut [T], target: Block) {
    assert_eq!(
        (source.rows, source.cols),
        (target.cols, target.rows),
        "shapes differ"
    );
    assert!(from.len() >= source.span(), "block exceeds its slice");
    assert!(to.len() >= target.span(), "block exceeds its slice");
    for top in (0..source.rows).step_by(TRANSPOSE_SQUARE) {
        let height = TRANSPOSE_SQUARE.min(source.rows - top);
        for left in (0..source.cols).step_by(TRANSPOSE_SQUARE) {
            let width = TRANSPOSE_SQUARE.min(source.cols - left);
            for j in left..left + width {
                let y = &mut to[j * target.stride + top..][..height];
                for (i, y) in (top..).zip(y) {
                    *y = from[i * source.stride + j];
                }
            }
        }
    }
}

/// Copies row `indices[i]` of `source` to row i of `target`, for all i.
pub fn gather_rows<T: Copy>(
    from: &[T],
    source: Block,
    indices: &[u32],
    to: &mut [T],
    target: Block,
) {
    assert_eq!(indices.len(), target.rows, "one index per row");
    assert_eq!(source.cols, target.cols, "rows differ in length");
    for (index, y) in indices.iter().zip(rows_mut(to, target)) {
        assert!((*index as usize) < source.rows, "index out of range");
        if y.is_empty() {
            continue;
        }
        y.copy_from_slice(&from[*index as usize * source.stride..][..source.cols]);
    }
}

/// Copies row i of `source` to row `indices[i]` of `target`, in ascending order of i: of equal
/// indices the last wins.
pub fn scatter_rows<T: Copy>(
    from: &[T],
    source: Block,
    indices: &[u32],
    to: &mut [T],
    target: Block,
) {
    assert_eq!(indices.len(), source.rows, "one index per row");
    assert_eq!(source.cols, target.cols, "rows differ in length");
    for (x, index) in rows(from, source).zip(indices) {
        assert!((*index as usize) < target.rows, "index out of range");
        if x.is_empty() {
            continue;
        }
        to[*index as usize * target.stride..][..target.cols].copy_from_slice(x);
    }
}
