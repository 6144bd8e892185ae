//! Sums of products of elements at listed positions: contractions of any layout.

use super::arith::Arithmetic;

/// Rows of the result that are computed together.
const ROWS: usize = 4;

/// Columns of the result that are computed together.
const LANES: usize = 8;

/// One side of a contraction: the elements of index `i` start at `free[i]` and the one that meets
/// contracted index `k` lies `contracted[k]` further.
pub(crate) struct Side<'a, T> {
    /// Where the elements lie.
    pub elements: &'a [T],
    /// The position of every index that stays.
    pub free: &'a [usize],
    /// The offset of every index that is summed over, in the order of summation.
    pub contracted: &'a [usize],
}

/// `sum over k of left[row, k] * right[column, k]` for all rows and columns, each summed in the
/// order of k from zero. Calls `write(row, first column, sums)` with some neighbouring columns of a
/// row at a time.
pub(crate) fn sums_of_products<T: Arithmetic>(
    left: &Side<'_, T>,
    right: &Side<'_, T>,
    mut write: impl FnMut(usize, usize, &[T]),
) {
    let rows = left.free.len();
    let blocks: Vec<Vec<[T; ROWS]>> = left
        .free
        .chunks(ROWS)
        .map(|free| packed(left, free))
        .collect();
    for (panel, lanes) in right.free.chunks(LANES).enumerate() {
        let y: Vec<[T; LANES]> = packed(right, lanes);
        for (block, x) in blocks.iter().enumerate() {
            let sums = outer_products(x, &y);
            for (row, sums) in sums.iter().enumerate().take(rows - block * ROWS) {
                write(block * ROWS + row, panel * LANES, &sums[..lanes.len()]);
            }
        }
    }
}

/// For every contracted index, the elements of up to `N` free indices side by side; zeros where
/// there are fewer.
fn packed<T: Arithmetic, const N: usize>(side: &Side<'_, T>, free: &[usize]) -> Vec<[T; N]> {
    let pack = |k: &usize| {
        let mut values = [T::ZERO; N];
        for (value, first) in values.iter_mut().zip(free) {
            *value = side.elements[first + k];
        }
        values
    };
    side.contracted.iter().map(pack).collect()
}

/// `sum over k of x[k][row] * y[k][lane]`, in order of k.
fn outer_products<T: Arithmetic>(x: &[[T; ROWS]], y: &[[T; LANES]]) -> [[T; LANES]; ROWS] {
    let mut sums = [[T::ZERO; LANES]; ROWS];
    for (x, y) in x.iter().zip(y) {
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, y) in sums.iter_mut().zip(y) {
                *sum = sum.plus(x.times(*y));
            }
        }
    }
    sums
}
