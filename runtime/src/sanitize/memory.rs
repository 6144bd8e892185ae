//! The bytes of one core or DRAM instance, with their shadow.

use std::convert::Infallible;
use std::ops::Range;

use dojoc_ir::program::{BufferId, Packing, SegmentId};

use super::shadow::{Cell, Clock, Content, Mark, Shadow};
use crate::compute::Layout;
use crate::host::{Keep, gather, scatter};

/// An access by a statement.
#[derive(Clone, Debug)]
pub struct Access {
    /// The statement.
    pub mark: Mark,
    /// The clock of its stream.
    pub clock: Clock,
    /// Number of the call on its core, from 1.
    pub call: u32,
    /// The buffer it goes through, and whether that holds content from before the call; `None` in
    /// DRAM.
    pub buffer: Option<(BufferId, bool)>,
}

/// Why an access is forbidden.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// Never written.
    Never,
    /// From a buffer of an earlier call that did not outlive it.
    Gone(SegmentId, BufferId),
    /// Written before the call, and the buffer does not hold what was before.
    Old,
    /// Last written through another buffer.
    Reused(Mark, BufferId),
    /// Another stream's access, not ordered by tokens.
    Race {
        /// The earlier one.
        other: Mark,
        /// Whether that was a write.
        write: bool,
    },
    /// Belongs to the network since this `post`.
    Owned(Mark),
    /// Bytes of a weight are written.
    Weight,
}

/// A forbidden access with the first byte where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Why.
    pub conflict: Conflict,
    /// First byte.
    pub byte: u64,
}

/// Bytes that exist up to the highest one ever used.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    bytes: Vec<u8>,
    shadow: Shadow,
}

/// The byte ranges of the elements of a view at `at`; broadcast elements once.
fn ranges(at: u64, layout: &Layout, mut visit: impl FnMut(Range<u64>) -> bool) {
    let mut view = layout.view.clone();
    let packed = match view.packing {
        Packing::Strided => 0,
        _ => 2.min(view.shape.len()),
    };
    let outer = view.shape.len() - packed;
    for d in 0..outer {
        if view.strides[d] == 0 {
            view.shape[d] = view.shape[d].min(1);
        }
    }
    let Some(once) = Layout::new(view) else {
        return;
    };
    let low = at.wrapping_add_signed(once.low);
    let mut go = true;
    crate::host::runs(&once, |_, from, bytes| {
        if go {
            let from = low + from as u64;
            go = visit(from..from + bytes as u64);
        }
    });
}

impl Memory {
    /// Bytes that are allocated.
    pub fn allocated(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes that must be allocated for a view.
    pub fn needed(at: u64, layout: &Layout) -> u64 {
        at.wrapping_add_signed(layout.low) + layout.span as u64
    }

    /// Allocates the bytes below `end`.
    pub fn grow(&mut self, end: u64) {
        if self.bytes.len() < end as usize {
            self.bytes.resize(end as usize, 0);
        }
    }

    /// From the lowest byte of the view on, [`Layout::span`] bytes; the view lies in what is
    /// allocated.
    pub fn image(&self, at: u64, layout: &Layout) -> &[u8] {
        let low = at.wrapping_add_signed(layout.low) as usize;
        &self.bytes[low..low + layout.span]
    }

    fn image_mut(&mut self, at: u64, layout: &Layout) -> &mut [u8] {
        let low = at.wrapping_add_signed(layout.low) as usize;
        &mut self.bytes[low..low + layout.span]
    }

    /// The elements of a view, dense.
    pub fn dense(&self, at: u64, layout: &Layout) -> Vec<u8> {
        let mut out = vec![0; layout.elements * layout.view.dtype.bytes() as usize];
        gather(layout, self.image(at, layout), &mut out);
        out
    }

    /// Sets the elements of a view.
    pub fn set_dense(&mut self, at: u64, layout: &Layout, dense: &[u8]) {
        scatter(layout, dense, self.image_mut(at, layout));
    }

    /// Sets the elements of a view from an image of it, and nothing between them.
    pub fn set_image(&mut self, at: u64, layout: &Layout, image: &[u8]) {
        let mut dense = vec![0; layout.elements * layout.view.dtype.bytes() as usize];
        gather(layout, image, &mut dense);
        self.set_dense(at, layout, &dense);
    }

    /// Applies `change` to the shadow of all elements of a view.
    fn visit(
        &mut self,
        at: u64,
        layout: &Layout,
        mut change: impl FnMut(&mut Cell) -> Result<(), Conflict>,
    ) -> Result<(), Found> {
        let mut result = Ok(());
        ranges(at, layout, |range| {
            result = self.shadow.update(range, |range, cell| {
                change(cell).map_err(|conflict| Found {
                    conflict,
                    byte: range.start,
                })
            });
            result.is_ok()
        });
        result
    }

    /// Checks and records that a statement reads a view.
    ///
    /// # Errors
    /// The first byte that may not be read.
    pub fn read(&mut self, at: u64, layout: &Layout, access: &Access) -> Result<(), Found> {
        self.visit(at, layout, |cell| check_read(cell, access))
    }

    /// Checks and records that a statement writes a view. The bytes are set by others.
    ///
    /// # Errors
    /// The first byte that may not be written.
    pub fn write(&mut self, at: u64, layout: &Layout, access: &Access) -> Result<(), Found> {
        self.visit(at, layout, |cell| {
            check_write(cell, access)?;
            cell.write = Some((access.mark, access.buffer.map(|(buffer, _)| buffer)));
            cell.content = Content::There;
            Ok(())
        })
    }

    /// Checks and records that a view is given to the network.
    ///
    /// # Errors
    /// The first byte that may not be given.
    pub fn post(&mut self, at: u64, layout: &Layout, access: &Access) -> Result<(), Found> {
        self.visit(at, layout, |cell| {
            check_write(cell, access)?;
            cell.posted = Some(access.mark);
            cell.content = Content::Never;
            Ok(())
        })
    }

    /// Records that a view came back from the network with a message.
    pub fn receive(&mut self, at: u64, layout: &Layout, access: &Access) {
        let done = self.visit(at, layout, |cell| {
            cell.enter(access.call);
            cell.posted = None;
            cell.content = Content::There;
            cell.write = Some((access.mark, access.buffer.map(|(buffer, _)| buffer)));
            Ok(())
        });
        debug_assert_eq!(done, Ok(()));
    }

    /// The end of a call for a buffer that does not outlive it: what was written through it is gone.
    /// Returns the first byte of a state that this destroys, with the write.
    pub fn expire(
        &mut self,
        range: Range<u64>,
        call: u32,
        segment: SegmentId,
        buffer: BufferId,
    ) -> Option<(u64, Mark)> {
        let mut destroyed = None;
        let done: Result<(), Infallible> = self.shadow.update(range, |range, cell| {
            let Some((mark, through)) = cell.written(call) else {
                return Ok(());
            };
            if through == Some(buffer) && cell.content == Content::There {
                cell.content = Content::Gone(segment, buffer);
                if cell.keep == Some(Keep::State) && destroyed.is_none() {
                    destroyed = Some((range.start, mark));
                }
            }
            Ok(())
        });
        let Ok(()) = done;
        destroyed
    }

    /// The host writes a view.
    pub fn host_write(&mut self, at: u64, layout: &Layout, dense: &[u8], keep: Keep) {
        self.set_dense(at, layout, dense);
        let done = self.visit(at, layout, |cell| {
            *cell = Cell {
                content: Content::There,
                keep: (keep != Keep::Run).then_some(keep),
                ..Cell::default()
            };
            Ok(())
        });
        debug_assert_eq!(done, Ok(()));
    }

    /// The elements of a view, dense; bytes without meaning are zeros.
    pub fn meant(&self, at: u64, layout: &Layout, out: &mut [u8]) {
        let low = at.wrapping_add_signed(layout.low);
        let mut image = vec![0; layout.span];
        let range = low..low.saturating_add(layout.span as u64);
        for (interval, cell) in self.shadow.overlapping(range.clone()) {
            if interval.start >= range.end {
                break;
            }
            if cell.content != Content::There || cell.posted.is_some() {
                continue;
            }
            let (from, to) = (interval.start.max(low), interval.end.min(range.end));
            let bytes = &self.bytes[from as usize..to as usize];
            image[(from - low) as usize..(to - low) as usize].copy_from_slice(bytes);
        }
        gather(layout, &image, out);
    }

    /// The first byte of a view without meaning, and why.
    pub fn undefined(&self, at: u64, layout: &Layout) -> Option<Found> {
        let mut found = None;
        ranges(at, layout, |range| {
            found = self.undefined_in(range);
            found.is_none()
        });
        found
    }

    fn undefined_in(&self, range: Range<u64>) -> Option<Found> {
        let mut at = range.start;
        for (interval, cell) in self.shadow.overlapping(range.clone()) {
            let conflict = match cell.content {
                _ if interval.start > at || cell.posted.is_some() => Conflict::Never,
                Content::There => {
                    at = interval.end;
                    continue;
                }
                Content::Never => Conflict::Never,
                Content::Gone(segment, buffer) => Conflict::Gone(segment, buffer),
            };
            return Some(Found { conflict, byte: at });
        }
        (at < range.end).then_some(Found {
            conflict: Conflict::Never,
            byte: at,
        })
    }

    /// Takes over the bytes of states from a memory of the same place after a run.
    pub fn keep_states(&mut self, run: &Self) {
        for (range, cell) in run.shadow.iter() {
            if cell.keep != Some(Keep::State) {
                continue;
            }
            self.grow(range.end);
            let bytes = range.start as usize..range.end as usize;
            self.bytes[bytes.clone()].copy_from_slice(&run.bytes[bytes]);
            let kept = Cell {
                content: cell.content,
                keep: cell.keep,
                ..Cell::default()
            };
            let done: Result<(), Infallible> = self.shadow.update(range, |_, cell| {
                cell.clone_from(&kept);
                Ok(())
            });
            let Ok(()) = done;
        }
    }
}

fn check_read(cell: &mut Cell, access: &Access) -> Result<(), Conflict> {
    cell.enter(access.call);
    if let Some(post) = cell.posted {
        return Err(Conflict::Owned(post));
    }
    match cell.content {
        Content::Never => return Err(Conflict::Never),
        Content::Gone(segment, buffer) => return Err(Conflict::Gone(segment, buffer)),
        Content::There => {}
    }
    let through = access.buffer.map(|(buffer, _)| buffer);
    match cell.write {
        Some((other, Some(buffer))) if through.is_some_and(|b| b != buffer) => {
            return Err(Conflict::Reused(other, buffer));
        }
        Some((other, _)) if !other.before(access.mark.stream, &access.clock) => {
            return Err(Conflict::Race { other, write: true });
        }
        None if matches!(access.buffer, Some((_, false))) => return Err(Conflict::Old),
        _ => {}
    }
    cell.reads[usize::from(access.mark.stream)] = Some(access.mark);
    Ok(())
}

fn check_write(cell: &mut Cell, access: &Access) -> Result<(), Conflict> {
    cell.enter(access.call);
    if let Some(post) = cell.posted {
        return Err(Conflict::Owned(post));
    }
    if cell.keep == Some(Keep::Weight) {
        return Err(Conflict::Weight);
    }
    let unordered = |mark: &Mark| !mark.before(access.mark.stream, &access.clock);
    if let Some((other, _)) = cell.write
        && unordered(&other)
    {
        return Err(Conflict::Race { other, write: true });
    }
    if let Some(other) = cell.reads.iter().flatten().find(|mark| unordered(mark)) {
        return Err(Conflict::Race {
            other: *other,
            write: false,
        });
    }
    cell.reads = Default::default();
    Ok(())
}
