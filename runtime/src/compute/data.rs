//! Data movement.

use dojoc_ir::program::Packing;
use dojoc_ir::program::instr::data::{Gather, Pad, Scatter};
use dojoc_ir::types::DType;

use super::number::{Float, Int, by_dtype, element};
use super::vector::fill_with;
use super::walk::{
    self, Axis, Nest, axes, bytes_of, dense, dense_axes, typed, typed_mut, with_dense,
};
use super::{Bytes, Cx, Fault, Layout, Source, Target};
use crate::kernels::{Binary, Kernels, Operand};

/// y = x.
pub(super) fn copy(y: &mut Target<'_>, x: &Source<'_>) -> Result<(), Fault> {
    let Bytes::Slice(bytes) = x.bytes else {
        return Ok(());
    };
    if y.layout.dense && x.layout.dense {
        y.bytes.copy_from_slice(bytes);
        return Ok(());
    }
    let nest = Nest::new(
        &y.layout.view.shape,
        [&axes(&y.layout.view)?, &axes(&x.layout.view)?],
    );
    walk::copy(
        y.layout.size() as u64,
        &nest,
        (y.bytes, -y.layout.low),
        (bytes, -x.layout.low),
    )
}

/// y = x with a border.
pub(super) fn pad(
    instr: &Pad,
    y: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let Bytes::Slice(bytes) = x.bytes else {
        // The same layout: there is no border.
        return Ok(());
    };
    let value = instr
        .value
        .map_or([0; 8], |value| element(value, y.layout.view.dtype));
    fill_with(value, y, cx)?;
    let (size, from) = (y.layout.size() as u64, &x.layout.view);
    let inner = |y_axes: &[Axis], y_at: i64, to: &mut [u8]| {
        let moved: i64 = y_axes
            .iter()
            .zip(&instr.low)
            .map(|(a, low)| a.at(*low))
            .sum();
        let nest = Nest::new(&from.shape, [y_axes, &axes(from)?]);
        walk::copy(size, &nest, (to, y_at + moved), (bytes, -x.layout.low))
    };
    if y.layout.view.packing == Packing::Strided {
        return inner(&axes(&y.layout.view)?, -y.layout.low, y.bytes);
    }
    let shape = &y.layout.view.shape;
    with_dense(y, &mut cx.scratch.copies[0], true, |to| {
        inner(&dense_axes(shape, size), 0, to)
    })
}

/// The indices of a gather or scatter, ascending row-major.
enum Indices<'a> {
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'a> Indices<'a> {
    fn of(layout: &Layout, bytes: &'a [u8]) -> Result<Self, Fault> {
        match layout.view.dtype {
            DType::I32 => Ok(Self::I32(typed(bytes)?)),
            DType::I64 => Ok(Self::I64(typed(bytes)?)),
            other => Err(Fault::undefined("an index", other)),
        }
    }

    /// An index with what it stands for among `n` rows, if it is in range.
    fn get(&self, position: usize, n: u64) -> (i64, Option<u64>) {
        let index = match self {
            Self::I32(indices) => indices[position].into(),
            Self::I64(indices) => indices[position],
        };
        let row = if index < 0 {
            n.checked_sub(index.unsigned_abs())
        } else {
            Some(index.unsigned_abs()).filter(|row| *row < n)
        };
        (index, row)
    }
}

#[cold]
fn out_of_range(index: i64, position: usize, n: u64) -> Fault {
    Fault::new(format!(
        "index {index}, element {position} of the indices, is out of the range of {n} rows"
    ))
}

/// Calls `f(place of a row in the indexed operand's order, position of the index)` for all indices:
/// the first number is in bytes by the outer axes of an operand `[j.., inner..]`.
fn for_each_index(
    shape: &[u64],
    outer: &[Axis],
    mut f: impl FnMut(i64, usize) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let nest = Nest::new(shape, [outer, &dense_axes(shape, 1)]);
    let (count, row) = nest.row();
    nest.for_each_row(|at| {
        for i in 0..count as u64 {
            f(at[0] + row[0].at(i), (at[1] + row[1].at(i)) as usize)?;
        }
        Ok(())
    })
}

/// y = x\[indices\].
pub(super) fn gather(
    instr: &Gather,
    y: &mut Target<'_>,
    x: &Source<'_>,
    indices: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let [x_copy, index_copy, ..] = &mut cx.scratch.copies;
    let size = y.layout.size() as u64;
    let found = Indices::of(indices.layout, dense(indices, y.bytes, index_copy)?)?;
    let shape = &x.layout.view.shape;
    let (Some(&n), Some(inner)) = (shape.first(), shape.get(1..)) else {
        return Err(Fault::operands());
    };
    let (x_axes, x_at, x_bytes) = match x.bytes {
        Bytes::Slice(bytes) => (axes(&x.layout.view)?, -x.layout.low, bytes),
        Bytes::InPlace => (dense_axes(shape, size), 0, dense(x, y.bytes, x_copy)?),
    };
    let y_axes = axes(&y.layout.view)?;
    let rank = indices.layout.view.shape.len();
    let nest = Nest::new(inner, [&y_axes[rank..], &x_axes[1..]]);
    let fill_nest = Nest::new(inner, [&y_axes[rank..], &[Axis::plain(0); 5]]);
    let fill = instr
        .fill
        .map(|number| [u64::from_ne_bytes(element(number, y.layout.view.dtype))]);
    for_each_index(
        &indices.layout.view.shape,
        &y_axes[..rank],
        |at, position| {
            let to = (&mut *y.bytes, at - y.layout.low);
            match (found.get(position, n), &fill) {
                ((_, Some(row)), _) => {
                    walk::copy(size, &nest, to, (x_bytes, x_at + x_axes[0].at(row)))
                }
                (_, Some(fill)) => {
                    walk::copy(size, &fill_nest, to, (bytemuck::cast_slice(fill), 0))
                }
                ((index, None), None) => Err(out_of_range(index, position, n)),
            }
        },
    )
}

/// y\[indices\] = updates, or added to it.
pub(super) fn scatter(
    instr: &Scatter,
    y: &mut Target<'_>,
    updates: &Source<'_>,
    indices: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let k = cx.kernels;
    let [update_copy, index_copy, old, new, ..] = &mut cx.scratch.copies;
    let (size, dtype) = (y.layout.size(), y.layout.view.dtype);
    let found = Indices::of(indices.layout, dense(indices, y.bytes, index_copy)?)?;
    let from = dense(updates, y.bytes, update_copy)?;
    let shape = &y.layout.view.shape;
    let (Some(&n), Some(inner)) = (shape.first(), shape.get(1..)) else {
        return Err(Fault::operands());
    };
    let y_axes = axes(&y.layout.view)?;
    let row_axes = dense_axes(inner, size as u64);
    let to_row = Nest::new(inner, [&y_axes[1..], &row_axes[..]]);
    let from_row = Nest::new(inner, [&row_axes[..], &y_axes[1..]]);
    let row_bytes = inner.iter().product::<u64>() as usize * size;
    let (old, new) = (bytes_of(old, row_bytes), bytes_of(new, row_bytes));
    let count = indices.layout.elements;
    for (position, from) in (0..count).map(|p| (p, &from[p * row_bytes..][..row_bytes])) {
        let row = match found.get(position, n) {
            (_, Some(row)) => row,
            _ if *instr.skip => continue,
            (index, None) => return Err(out_of_range(index, position, n)),
        };
        let at = y_axes[0].at(row) - y.layout.low;
        if *instr.add {
            walk::copy(size as u64, &from_row, (old, 0), (y.bytes, at))?;
            add(k, dtype, old, from, new)?;
            walk::copy(size as u64, &to_row, (y.bytes, at), (new, 0))?;
        } else {
            walk::copy(size as u64, &to_row, (y.bytes, at), (from, 0))?;
        }
    }
    Ok(())
}

/// y = a + b.
fn add(k: &dyn Kernels, dtype: DType, a: &[u8], b: &[u8], y: &mut [u8]) -> Result<(), Fault> {
    by_dtype!(dtype,
        float T => {
            T::binary(k, Binary::Add, typed(a)?, Operand::Slice(typed(b)?), typed_mut(y)?);
            Ok(())
        },
        int T => {
            let (a, b, y) = (typed::<T>(a)?, typed::<T>(b)?, typed_mut::<T>(y)?);
            for ((a, b), y) in a.iter().zip(b).zip(y) {
                *y = a.add(*b);
            }
            Ok(())
        },
        _ => Err(Fault::undefined("scatter {add}", dtype)),
    )
}
