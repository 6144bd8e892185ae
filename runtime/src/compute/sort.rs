//! Sorting and selection.

use dojoc_ir::types::DType;

use super::number::{Float, Int, by_dtype};
use super::walk::{dense, typed, typed_mut, with_dense};
use super::{Cx, Fault, Source, Target};
use crate::kernels::flush;

const SIGN: u64 = 1 << 63;

/// A number in the order of a float: zeros are equal, NaN is the greatest.
fn float_key<T: Float>(x: T) -> u64 {
    let x = flush(x.widen());
    let key = if x.is_nan() {
        i32::MAX
    } else if x == 0.0 {
        0
    } else {
        let bits = x.to_bits() as i32;
        bits ^ ((bits >> 31) as u32 >> 1) as i32
    };
    i64::from(key) as u64 ^ SIGN
}

/// A number in the order of an integer.
fn int_key<T: Int>(x: T) -> u64 {
    if T::LEAST < T::ZERO {
        x.to_i128() as u64 ^ SIGN
    } else {
        x.to_i128() as u64
    }
}

/// The first elements of x sorted along the last dimension, as many as `values` has, and their
/// positions.
pub(super) fn sort(
    descending: bool,
    values: &mut Target<'_>,
    indices: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let dtype = x.layout.view.dtype;
    let extent = |shape: &[u64]| shape.last().copied().unwrap_or(1) as usize;
    let n = extent(&x.layout.view.shape);
    let kept = extent(&values.layout.view.shape);
    let [x_copy, value_copy, index_copy, ..] = &mut cx.scratch.copies;
    let x = dense(x, values.bytes, x_copy)?;
    if n == 0 || kept == 0 {
        return Ok(());
    }
    let index_type = indices.layout.view.dtype;
    with_dense(values, value_copy, false, |values| {
        with_dense(indices, index_copy, false, |indices| {
            let put: &mut dyn FnMut(usize, usize) = match index_type {
                DType::I32 => {
                    let indices = typed_mut::<i32>(indices)?;
                    &mut |at, position| indices[at] = position as i32
                }
                DType::I64 => {
                    let indices = typed_mut::<i64>(indices)?;
                    &mut |at, position| indices[at] = position as i64
                }
                other => return Err(Fault::undefined("a position", other)),
            };
            by_dtype!(dtype,
                float T => {
                    let rows = (typed::<T>(x)?, typed_mut(values)?);
                    sort_rows(rows, (n, kept), descending, float_key, put);
                    Ok(())
                },
                int T => {
                    let rows = (typed::<T>(x)?, typed_mut(values)?);
                    sort_rows(rows, (n, kept), descending, int_key, put);
                    Ok(())
                },
                _ => Err(Fault::undefined("sort", dtype)),
            )
        })
    })
}

fn sort_rows<T: Copy>(
    (x, values): (&[T], &mut [T]),
    (n, kept): (usize, usize),
    descending: bool,
    key: impl Fn(T) -> u64,
    put: &mut dyn FnMut(usize, usize),
) {
    let mut order: Vec<(u64, usize)> = Vec::with_capacity(n);
    for (row, (x, values)) in x
        .chunks_exact(n)
        .zip(values.chunks_exact_mut(kept))
        .enumerate()
    {
        order.clear();
        order.extend(x.iter().enumerate().map(|(i, x)| {
            let key = key(*x);
            (if descending { !key } else { key }, i)
        }));
        // Positions break ties, which makes it stable.
        if kept < n {
            order.select_nth_unstable(kept);
        }
        let first = &mut order[..kept.min(n)];
        first.sort_unstable();
        for (i, ((_, position), value)) in first.iter().zip(values).enumerate() {
            *value = x[*position];
            put(row * kept + i, *position);
        }
    }
}
