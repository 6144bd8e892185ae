//! Loops over views of any layout.

use bytemuck::Pod;
use dojoc_ir::program::{MAX_VIEW_RANK, ViewType};

use super::{Bytes, Fault, Layout, Source, Target};

/// How a dimension advances: index i is at `(i / block) * stride + (i % block) * inner` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Bytes from index to index, or from block to block.
    pub stride: i64,
    /// Bytes inside a block.
    pub inner: i64,
    /// Indices of a block; 1 without blocks.
    pub block: u64,
}

impl Axis {
    /// A dimension without blocks.
    pub const fn plain(stride: i64) -> Self {
        Self {
            stride,
            inner: 0,
            block: 1,
        }
    }

    /// Where an index is.
    pub fn at(self, i: u64) -> i64 {
        if self.block == 1 {
            i as i64 * self.stride
        } else {
            (i / self.block) as i64 * self.stride + (i % self.block) as i64 * self.inner
        }
    }

    fn is_plain(self) -> bool {
        self.block == 1
    }
}

impl Default for Axis {
    fn default() -> Self {
        Self::plain(0)
    }
}

/// The dimensions of a view, outermost first.
pub(super) type Axes = [Axis; MAX_VIEW_RANK];

/// The axes of a view, of which as many count as it has dimensions.
///
/// # Errors
/// If elements would not be aligned to their size, or there are too many dimensions.
pub(super) fn axes(view: &ViewType) -> Result<Axes, Fault> {
    let size = view.dtype.bytes() as i64;
    let rank = view.shape.len();
    if rank > MAX_VIEW_RANK || view.strides.len() != rank {
        return Err(Fault::new(format!("a view has {rank} dimensions")));
    }
    let (rows, columns) = view.packing.block();
    let mut axes = Axes::default();
    for (d, axis) in axes.iter_mut().enumerate().take(rank) {
        let (block, inner) = match rank - d {
            1 => (columns, size),
            2 => (rows, columns as i64 * size),
            _ => (1, 0),
        };
        let stride = view.strides[d];
        *axis = if view.shape[d] <= block {
            // Inside one block; an extent of 1 goes nowhere.
            Axis::plain(if block == 1 { 0 } else { inner })
        } else if stride % size != 0 {
            return Err(Fault::new(format!(
                "a stride of {stride} bytes is not a multiple of the element size, {size}"
            )));
        } else {
            Axis {
                stride,
                inner,
                block,
            }
        };
    }
    Ok(axes)
}

/// The axes of a dense row-major arrangement.
pub(super) fn dense_axes(shape: &[u64], size: u64) -> Axes {
    let mut axes = Axes::default();
    let mut step = size as i64;
    for (axis, extent) in axes.iter_mut().zip(shape).take(shape.len()).rev() {
        *axis = Axis::plain(step);
        step *= *extent as i64;
    }
    axes
}

/// A loop nest over the elements of several operands of equal extents, with as few dimensions as
/// they allow. The innermost dimension is the *row*.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nest<const N: usize> {
    /// Number of dimensions, at least 1.
    rank: usize,
    /// Where the first element of every operand is.
    start: i64,
    /// Extents, innermost first.
    extents: [u64; MAX_VIEW_RANK],
    /// Axes of the operands, innermost first.
    axes: [[Axis; N]; MAX_VIEW_RANK],
}

impl<const N: usize> Nest<N> {
    /// Of axes that are given outermost first, at least one for each extent.
    pub fn new(shape: &[u64], operands: [&[Axis]; N]) -> Self {
        let mut nest = Self {
            rank: 0,
            start: 0,
            extents: [1; MAX_VIEW_RANK],
            axes: [[Axis::plain(0); N]; MAX_VIEW_RANK],
        };
        for d in (0..shape.len()).rev() {
            if shape[d] == 1 {
                continue;
            }
            let axes = operands.map(|axes| axes[d]);
            if nest.rank > 0 && nest.merges(&axes) {
                nest.extents[nest.rank - 1] *= shape[d];
            } else {
                nest.extents[nest.rank] = shape[d];
                nest.axes[nest.rank] = axes;
                nest.rank += 1;
            }
        }
        nest.rank = nest.rank.max(1);
        nest
    }

    /// Whether there is no more than one row.
    pub fn is_row(&self) -> bool {
        self.rank == 1
    }

    /// With another position of the first elements.
    pub fn starting_at(self, start: i64) -> Self {
        Self { start, ..self }
    }

    /// Whether a dimension continues the outermost one so far in all operands.
    fn merges(&self, axes: &[Axis; N]) -> bool {
        let extent = self.extents[self.rank - 1] as i64;
        let inner = &self.axes[self.rank - 1];
        axes.iter().zip(inner).all(|(outer, inner)| {
            outer.is_plain() && inner.is_plain() && outer.stride == inner.stride * extent
        })
    }

    /// Length of a row, and how the operands advance along it.
    pub fn row(&self) -> (usize, &[Axis; N]) {
        (self.extents[0] as usize, &self.axes[0])
    }

    /// Calls `f` with the positions of the operands at the start of every row, in bytes, in
    /// row-major order; not at all without elements.
    ///
    /// # Errors
    /// The first of `f`.
    pub fn for_each_row(
        &self,
        mut f: impl FnMut([i64; N]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.extents[..self.rank].contains(&0) {
            return Ok(());
        }
        let mut index = [0u64; MAX_VIEW_RANK];
        let mut at = [self.start; N];
        loop {
            f(at)?;
            let mut d = 1;
            loop {
                if d >= self.rank {
                    return Ok(());
                }
                let (old, next) = (index[d], index[d] + 1);
                let new = if next < self.extents[d] { next } else { 0 };
                for (at, axis) in at.iter_mut().zip(&self.axes[d]) {
                    *at += axis.at(new) - axis.at(old);
                }
                index[d] = new;
                if new != 0 {
                    break;
                }
                d += 1;
            }
        }
    }
}

/// Calls `f(position, stride, count)` for the evenly spaced runs of part of a row.
fn runs(axis: Axis, start: usize, count: usize, mut f: impl FnMut(i64, i64, usize)) {
    if axis.is_plain() {
        return f(axis.at(start as u64), axis.stride, count);
    }
    let (mut i, end) = (start as u64, (start + count) as u64);
    while i < end {
        let run = (axis.block - i % axis.block).min(end - i);
        f(axis.at(i), axis.inner, run as usize);
        i += run;
    }
}

/// Copies elements `start..` of a row whose first element is at `at`.
pub(super) fn gather_row<T: Pod>(from: &[T], at: i64, axis: Axis, start: usize, to: &mut [T]) {
    let size = size_of::<T>() as i64;
    let mut done = 0;
    runs(axis, start, to.len(), |position, stride, count| {
        let first = (at + position) / size;
        let to = &mut to[done..done + count];
        match stride / size {
            1 => to.copy_from_slice(&from[first as usize..][..count]),
            0 => to.fill(from[first as usize]),
            step => {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = from[(first + i as i64 * step) as usize];
                }
            }
        }
        done += count;
    });
}

/// The reverse of [`gather_row`].
pub(super) fn scatter_row<T: Pod>(from: &[T], at: i64, axis: Axis, start: usize, to: &mut [T]) {
    let size = size_of::<T>() as i64;
    let mut done = 0;
    runs(axis, start, from.len(), |position, stride, count| {
        let first = (at + position) / size;
        let from = &from[done..done + count];
        match stride / size {
            1 => to[first as usize..][..count].copy_from_slice(from),
            step => {
                for (i, from) in from.iter().enumerate() {
                    to[(first + i as i64 * step) as usize] = *from;
                }
            }
        }
        done += count;
    });
}

/// Runs `$body` with `$t` as the unsigned integer of `$size` bytes.
macro_rules! by_size {
    ($size:expr, $t:ident => $body:expr) => {
        match $size {
            1 => {
                type $t = u8;
                $body
            }
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            _ => {
                type $t = u64;
                $body
            }
        }
    };
}
pub(super) use by_size;

/// Copies elements of `size` bytes. Operand 0 of the nest is the target; both are slices with the
/// position of the first element in them, in bytes.
///
/// # Errors
/// If a slice is not aligned.
pub(super) fn copy(
    size: u64,
    nest: &Nest<2>,
    (to, to_at): (&mut [u8], i64),
    (from, from_at): (&[u8], i64),
) -> Result<(), Fault> {
    by_size!(size, T => {
        copy_typed::<T>(nest, (typed_mut(to)?, to_at), (typed(from)?, from_at))
    })
}

fn copy_typed<T: Pod>(
    nest: &Nest<2>,
    (to, to_at): (&mut [T], i64),
    (from, from_at): (&[T], i64),
) -> Result<(), Fault> {
    let size = size_of::<T>() as i64;
    let (count, [to_axis, from_axis]) = nest.row();
    nest.for_each_row(|at| {
        let (to_at, from_at) = (to_at + at[0], from_at + at[1]);
        if *to_axis == Axis::plain(size) {
            let to = &mut to[(to_at / size) as usize..][..count];
            gather_row(from, from_at, *from_axis, 0, to);
        } else if *from_axis == Axis::plain(size) {
            let from = &from[(from_at / size) as usize..][..count];
            scatter_row(from, to_at, *to_axis, 0, to);
        } else {
            for i in 0..count as u64 {
                let x = from[((from_at + from_axis.at(i)) / size) as usize];
                to[((to_at + to_axis.at(i)) / size) as usize] = x;
            }
        }
        Ok(())
    })
}

/// Elements of a type.
///
/// # Errors
/// If the bytes are not aligned.
pub(super) fn typed<T: Pod>(bytes: &[u8]) -> Result<&[T], Fault> {
    if bytes.is_empty() {
        // Nothing may be anywhere.
        return Ok(&[]);
    }
    bytemuck::try_cast_slice(bytes).map_err(|_| misaligned())
}

/// Elements of a type, for writing.
///
/// # Errors
/// If the bytes are not aligned.
pub(super) fn typed_mut<T: Pod>(bytes: &mut [u8]) -> Result<&mut [T], Fault> {
    if bytes.is_empty() {
        return Ok(&mut []);
    }
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| misaligned())
}

#[cold]
fn misaligned() -> Fault {
    Fault::new("the bytes of an operand are not aligned to its element size")
}

/// `len` bytes of scratch memory, of any value.
pub(super) fn bytes_of(memory: &mut Vec<u64>, len: usize) -> &mut [u8] {
    let words = len.div_ceil(8);
    if memory.len() < words {
        memory.resize(words, 0);
    }
    &mut bytemuck::cast_slice_mut(memory)[..len]
}

/// Writes the elements of a view to `to`, dense and row-major.
///
/// # Errors
/// If the view is not aligned.
pub(super) fn pack(layout: &Layout, bytes: &[u8], to: &mut [u8]) -> Result<(), Fault> {
    if layout.dense {
        to.copy_from_slice(bytes);
        return Ok(());
    }
    let view = &layout.view;
    let size = view.dtype.bytes();
    let nest = Nest::new(&view.shape, [&dense_axes(&view.shape, size), &axes(view)?]);
    copy(size, &nest, (to, 0), (bytes, -layout.low))
}

/// Writes dense row-major elements to those of a view.
///
/// # Errors
/// If the view is not aligned.
pub(super) fn unpack(layout: &Layout, from: &[u8], bytes: &mut [u8]) -> Result<(), Fault> {
    if layout.dense {
        bytes.copy_from_slice(from);
        return Ok(());
    }
    let view = &layout.view;
    let size = view.dtype.bytes();
    let nest = Nest::new(&view.shape, [&axes(view)?, &dense_axes(&view.shape, size)]);
    copy(size, &nest, (bytes, -layout.low), (from, 0))
}

/// The bytes of a source, whether or not it is the target as well.
pub(super) fn bytes_in<'a>(source: &Source<'a>, target: &'a [u8]) -> &'a [u8] {
    match source.bytes {
        Bytes::Slice(bytes) => bytes,
        Bytes::InPlace => target,
    }
}

/// The elements of a source, dense and row-major: where they are if that is how they lie, else
/// copied to `copy`. `target` holds the bytes of the first target.
///
/// # Errors
/// If the view is not aligned.
pub(super) fn dense<'a>(
    source: &Source<'a>,
    target: &[u8],
    copy: &'a mut Vec<u64>,
) -> Result<&'a [u8], Fault> {
    let bytes = match source.bytes {
        Bytes::Slice(bytes) if source.layout.dense => return Ok(bytes),
        Bytes::Slice(bytes) => bytes,
        Bytes::InPlace => target,
    };
    let copy = bytes_of(copy, source.layout.elements * source.layout.size());
    pack(source.layout, bytes, copy)?;
    Ok(copy)
}

/// Calls `f` with the elements of a target, dense and row-major, and writes them back if they are a
/// copy. What is in them is the target's content if `keep`, else anything.
///
/// # Errors
/// Those of `f`, and a view that is not aligned.
pub(super) fn with_dense(
    y: &mut Target<'_>,
    copy: &mut Vec<u64>,
    keep: bool,
    f: impl FnOnce(&mut [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if y.layout.dense {
        return f(y.bytes);
    }
    let copy = bytes_of(copy, y.layout.elements * y.layout.size());
    if keep {
        pack(y.layout, y.bytes, copy)?;
    }
    f(copy)?;
    unpack(y.layout, copy, y.bytes)
}
