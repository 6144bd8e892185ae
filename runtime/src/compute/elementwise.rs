//! The loop of all instructions whose operands have the same extents.

use bytemuck::Pod;

use super::walk::{
    Axes, Axis, Nest, axes, by_size, bytes_in, bytes_of, gather_row, scatter_row, typed, typed_mut,
};
use super::{Bytes, Fault, Scratch, Source, Target};
use crate::kernels::Operand;

/// Elements that are copied to scratch memory at a time: a small part of the L1 cache.
const CHUNK: usize = 512;

/// The most operands of an instruction, its target among them.
const OPERANDS: usize = 4;

/// Part of an operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chunk<'a> {
    /// One element per element of the target.
    Slice(&'a [u8]),
    /// One element for all.
    Splat(&'a [u8]),
}

impl<'a> Chunk<'a> {
    /// The elements; of a splat, the only one.
    pub fn slice<T: Pod>(self) -> Result<&'a [T], Fault> {
        match self {
            Self::Slice(bytes) | Self::Splat(bytes) => typed(bytes),
        }
    }

    /// As an operand of a kernel.
    pub fn operand<T: Pod>(self) -> Result<Operand<'a, T>, Fault> {
        Ok(match self {
            Self::Slice(bytes) => Operand::Slice(typed(bytes)?),
            Self::Splat(bytes) => Operand::Scalar(typed(bytes)?[0]),
        })
    }
}

/// What is computed of parts of equal lengths: the target, then the sources.
pub(super) type Body<'f, const N: usize> =
    dyn FnMut(&mut [u8], [Chunk<'_>; N]) -> Result<(), Fault> + 'f;

/// Calls `f` for parts of the operands that cover all elements, in any order. Only the source with the number
/// `splat` is ever given as [`Chunk::Splat`].
///
/// # Errors
/// Those of `f`, and views that are not aligned.
#[inline]
pub(super) fn each<const N: usize>(
    y: &mut Target<'_>,
    x: [&Source<'_>; N],
    splat: usize,
    scratch: &mut Scratch,
    mut f: impl FnMut(&mut [u8], [Chunk<'_>; N]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut chunks = [Chunk::Slice(&[]); N];
    let mut dense = y.layout.dense;
    for (chunk, x) in chunks.iter_mut().zip(x) {
        match x.bytes {
            Bytes::Slice(bytes) => *chunk = Chunk::Slice(bytes),
            Bytes::InPlace => dense = false,
        }
        dense &= x.layout.dense;
    }
    if dense {
        return f(y.bytes, chunks);
    }
    each_row(nest_of(y, &x)?, (y, x), splat, scratch, &mut f)
}

/// [`each`] in row-major order.
///
/// # Errors
/// As for [`each`].
pub(super) fn each_in_order<const N: usize>(
    y: &mut Target<'_>,
    x: [&Source<'_>; N],
    scratch: &mut Scratch,
    mut f: impl FnMut(&mut [u8], [Chunk<'_>; N]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    each_row(ordered_nest(y, &x)?, (y, x), usize::MAX, scratch, &mut f)
}

/// [`each`] in general.
fn each_row<const N: usize>(
    nest: Nest<OPERANDS>,
    (y, x): (&mut Target<'_>, [&Source<'_>; N]),
    splat: usize,
    scratch: &mut Scratch,
    f: &mut Body<'_, N>,
) -> Result<(), Fault> {
    let (len, axes) = nest.row();
    let y_size = y.layout.size();
    let y_direct = axes[0] == Axis::plain(y_size as i64);
    let direct = |i: usize| {
        let x: &Source<'_> = x[i];
        let slice = matches!(x.bytes, Bytes::Slice(_));
        let size = x.layout.size() as i64;
        slice && (axes[i + 1] == Axis::plain(size) || i == splat && axes[i + 1] == Axis::plain(0))
    };
    let step = if y_direct && (0..N).all(direct) {
        len.max(1)
    } else {
        CHUNK
    };
    let memory = bytes_of(&mut scratch.rows, OPERANDS * CHUNK * 8);
    let (y_memory, x_memory) = memory.split_at_mut(CHUNK * 8);
    nest.for_each_row(|at| {
        for start in (0..len).step_by(step) {
            let count = step.min(len - start);
            let mut chunks = [Chunk::Slice(&[]); N];
            for (i, buffer) in x_memory.chunks_mut(CHUNK * 8).enumerate().take(N) {
                let (size, axis) = (x[i].layout.size(), axes[i + 1]);
                let bytes = bytes_in(x[i], y.bytes);
                let first = at[i + 1] - x[i].layout.low;
                chunks[i] = if direct(i) {
                    let from = &bytes_from(x[i], first + axis.at(start as u64))?;
                    if axis.stride == 0 {
                        Chunk::Splat(&from[..size])
                    } else {
                        Chunk::Slice(&from[..count * size])
                    }
                } else {
                    let buffer = &mut buffer[..count * size];
                    by_size!(size, T => {
                        gather_row::<T>(typed(bytes)?, first, axis, start, typed_mut(buffer)?);
                    });
                    Chunk::Slice(buffer)
                };
            }
            let first = at[0] - y.layout.low;
            if y_direct {
                let first = (first + axes[0].at(start as u64)) as usize;
                f(&mut y.bytes[first..][..count * y_size], chunks)?;
            } else {
                let buffer = &mut y_memory[..count * y_size];
                f(buffer, chunks)?;
                by_size!(y_size, T => {
                    scatter_row::<T>(typed(buffer)?, first, axes[0], start, typed_mut(y.bytes)?);
                });
            }
        }
        Ok(())
    })
}

/// The bytes of a source from a position on.
fn bytes_from<'a>(x: &Source<'a>, at: i64) -> Result<&'a [u8], Fault> {
    match x.bytes {
        Bytes::Slice(bytes) => Ok(&bytes[at as usize..]),
        Bytes::InPlace => Err(Fault::new("an operand in place is not read directly")),
    }
}

/// The loop over all elements, operand 0 being the target. Views that arrange their elements in the
/// same way without gaps are one row, whatever the order.
fn nest_of<const N: usize>(y: &Target<'_>, x: &[&Source<'_>; N]) -> Result<Nest<OPERANDS>, Fault> {
    let (layout, view) = (y.layout, &y.layout.view);
    let same = |x: &&Source<'_>| {
        let other = &x.layout.view;
        other.strides == view.strides
            && other.packing == view.packing
            && other.dtype.bytes() == view.dtype.bytes()
    };
    if layout.span == layout.elements * layout.size() && x.iter().all(same) {
        // Positions count from the lowest byte.
        let low = Axis::plain(layout.size() as i64);
        return Ok(Nest::new(&[layout.elements as u64], [&[low]; OPERANDS]).starting_at(layout.low));
    }
    ordered_nest(y, x)
}

fn ordered_nest<const N: usize>(
    y: &Target<'_>,
    x: &[&Source<'_>; N],
) -> Result<Nest<OPERANDS>, Fault> {
    let view = &y.layout.view;
    let mut all = [Axes::default(); OPERANDS];
    all[0] = axes(view)?;
    for (to, x) in all[1..].iter_mut().zip(x) {
        *to = axes(&x.layout.view)?;
    }
    Ok(Nest::new(&view.shape, all.each_ref().map(|axes| &axes[..])))
}
