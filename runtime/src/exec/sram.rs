//! The SRAM of a core: slabs of bytes at addresses.
//!
//! Only what was touched exists. Every byte is in at most one slab; bytes in none are zero. Slabs
//! share blocks with messages and with other cores, and are copied when they are written (copy on
//! write).

use std::sync::Arc;

use super::block::{Block, Pool};
use super::intervals::Intervals;

/// Addresses and block positions agree modulo this, the largest element size, so that what is
/// aligned in SRAM is aligned on the host.
pub(super) const PHASE: u32 = 8;

/// Bytes in a block.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub block: Arc<Block>,
    /// Position of the first.
    pub at: u32,
    pub len: u32,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.block.bytes()[self.at as usize..][..self.len as usize]
    }
}

/// Bytes at an address.
#[derive(Clone, Debug)]
pub(super) struct Slab {
    pub start: u32,
    pub len: u32,
    /// Position of the first byte in the block.
    pub at: u32,
    /// `None` only while an instruction writes it.
    pub block: Option<Arc<Block>>,
}

impl Slab {
    pub(super) fn end(&self) -> u32 {
        self.start + self.len
    }

    fn holds(&self, start: u32, len: u32) -> bool {
        self.start <= start && start + len <= self.end()
    }

    /// Position in the block of an address.
    pub(super) fn position(&self, address: u32) -> u32 {
        self.at + (address - self.start)
    }

    fn bytes(&self) -> &[u8] {
        let bytes = self.block.as_ref().map_or(&[][..], |block| block.bytes());
        bytes
            .get(self.at as usize..)
            .and_then(|bytes| bytes.get(..self.len as usize))
            .unwrap_or(&[])
    }
}

/// The touched bytes of a core. Addresses and lengths fit the size of an SRAM, which the caller
/// checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Sram {
    /// Ascending, not empty, not overlapping.
    slabs: Vec<Slab>,
}

/// An interval that does not lie in one slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing;

impl Sram {
    pub(super) fn slab(&self, index: usize) -> &Slab {
        &self.slabs[index]
    }

    pub(super) fn slab_mut(&mut self, index: usize) -> &mut Slab {
        &mut self.slabs[index]
    }

    /// The slab that holds an interval.
    pub(super) fn find(&self, start: u32, len: u32) -> Result<usize, Missing> {
        let behind = if self.slabs.len() <= 8 {
            let upto = self.slabs.iter().take_while(|slab| slab.start <= start);
            upto.count()
        } else {
            self.slabs.partition_point(|slab| slab.start <= start)
        };
        let index = behind.checked_sub(1).ok_or(Missing)?;
        let slab = &self.slabs[index];
        if slab.holds(start, len) {
            Ok(index)
        } else {
            Err(Missing)
        }
    }

    /// Indices of the slabs that have bytes of an interval.
    fn overlapping(&self, start: u32, len: u32) -> std::ops::Range<usize> {
        let from = self.slabs.partition_point(|slab| slab.end() <= start);
        let to = self.slabs.partition_point(|slab| slab.start < start + len);
        from..to.max(from)
    }

    /// Makes one slab of an interval, which is not empty, with the content that is there and zeros
    /// elsewhere. Gives its index.
    pub(super) fn join(&mut self, start: u32, len: u32, pool: &mut Pool) -> usize {
        let at = start % PHASE;
        let mut block = pool.zeroed((at + len) as usize);
        if let Some(block) = Arc::get_mut(&mut block) {
            let bytes = block.bytes_mut();
            self.copy_out(start, &mut bytes[at as usize..][..len as usize]);
        }
        self.replace(start, Piece { block, at, len }, pool)
    }

    /// Copies an interval out; bytes in no slab are left as they are.
    fn copy_out(&self, start: u32, to: &mut [u8]) {
        let len = to.len() as u32;
        for slab in &self.slabs[self.overlapping(start, len)] {
            let (low, high) = (slab.start.max(start), slab.end().min(start + len));
            let from = &slab.bytes()[(low - slab.start) as usize..][..(high - low) as usize];
            to[(low - start) as usize..][..from.len()].copy_from_slice(from);
        }
    }

    /// The bytes of an interval, copied to `spare` unless one slab holds them.
    pub(super) fn read<'a>(&'a self, start: u32, len: u32, spare: &'a mut Vec<u8>) -> &'a [u8] {
        if let Ok(index) = self.find(start, len) {
            let slab = &self.slabs[index];
            return &slab.bytes()[(start - slab.start) as usize..][..len as usize];
        }
        spare.clear();
        spare.resize(len as usize, 0);
        self.copy_out(start, spare);
        spare
    }

    /// Whether a piece can lie at an address without being copied.
    pub(super) fn fits(start: u32, piece: &Piece) -> bool {
        start % PHASE == piece.at % PHASE
    }

    /// Whether an interval can be a slab of its own without splitting a larger one.
    pub(super) fn bindable(&self, start: u32, len: u32) -> bool {
        match self.find(start, len) {
            Ok(index) => self.slabs[index].len == len,
            Err(Missing) => true,
        }
    }

    /// Puts a piece at an address; it [`fits`](Self::fits) there. What other slabs hold of these
    /// bytes is gone. Gives the index of the slab.
    pub(super) fn replace(&mut self, start: u32, piece: Piece, pool: &mut Pool) -> usize {
        let len = piece.len;
        let slab = Slab {
            start,
            len,
            at: piece.at,
            block: Some(piece.block),
        };
        let range = self.overlapping(start, len);
        if range.len() == 1
            && let old = &mut self.slabs[range.start]
            && (old.start, old.len) == (start, len)
        {
            let old = std::mem::replace(old, slab);
            give(old, pool);
            return range.start;
        }
        let index = self.cut(start, len, pool);
        self.slabs.insert(index, slab);
        index
    }

    /// Removes an interval. Gives the index at which a slab of it would stand.
    pub(super) fn cut(&mut self, start: u32, len: u32, pool: &mut Pool) -> usize {
        let range = self.overlapping(start, len);
        if range.is_empty() {
            return range.start;
        }
        let mut rest = [None, None];
        if let Some(first) = self.slabs.get(range.start)
            && first.start < start
        {
            let mut part = first.clone();
            part.len = start - first.start;
            rest[0] = Some(part);
        }
        if let Some(last) = self.slabs.get(range.end - 1)
            && last.end() > start + len
        {
            let mut part = last.clone();
            let shift = start + len - last.start;
            part.start += shift;
            part.at += shift;
            part.len -= shift;
            rest[1] = Some(part);
        }
        let index = range.start + usize::from(rest[0].is_some());
        for old in self.slabs.splice(range, rest.into_iter().flatten()) {
            give(old, pool);
        }
        index
    }

    /// Makes the block of a slab one that nobody else has, with the same content.
    pub(super) fn own(&mut self, index: usize, pool: &mut Pool) {
        let slab = &mut self.slabs[index];
        let Some(block) = &mut slab.block else {
            return;
        };
        if is_alone(block) {
            return;
        }
        let at = slab.start % PHASE;
        let len = slab.len as usize;
        let mut copy = pool.take(at as usize + len);
        if let Some(to) = Arc::get_mut(&mut copy) {
            let from = &block.bytes()[slab.at as usize..][..len];
            to.bytes_mut()[at as usize..][..len].copy_from_slice(from);
        }
        pool.give(std::mem::replace(block, copy));
        slab.at = at;
    }

    /// The bytes of an interval for writing, made one slab unless they are in one. `home` is an
    /// interval around it that is worth a slab. What is written is read-modify-write.
    pub(super) fn write(
        &mut self,
        (start, len): (u32, u32),
        home: (u32, u32),
        pool: &mut Pool,
    ) -> &mut [u8] {
        let index = self.place((start, len), home, pool);
        self.own(index, pool);
        let slab = &mut self.slabs[index];
        let at = slab.position(start) as usize;
        let block = slab.block.as_mut().and_then(Arc::get_mut);
        block.map_or(&mut [][..], |block| {
            &mut block.bytes_mut()[at..][..len as usize]
        })
    }

    /// The slab that holds an interval; made, for the whole of `home` if the interval is in it,
    /// unless there is one.
    pub(super) fn place(
        &mut self,
        (start, len): (u32, u32),
        home: (u32, u32),
        pool: &mut Pool,
    ) -> usize {
        if let Ok(index) = self.find(start, len) {
            return index;
        }
        let inside = home.0 <= start && start + len <= home.0 + home.1;
        let (start, len) = if inside { home } else { (start, len) };
        self.join(start, len, pool)
    }

    /// A fresh block for an interval that is written as a whole, and the position of its first byte.
    pub(super) fn fresh(start: u32, len: u32, pool: &mut Pool) -> (Arc<Block>, u32) {
        let at = start % PHASE;
        (pool.take((at + len) as usize), at)
    }

    /// An interval as a piece: shared if it is the whole of a slab, else copied.
    pub(super) fn share(&self, start: u32, len: u32) -> Option<Piece> {
        let slab = &self.slabs[self.find(start, len).ok()?];
        if (slab.start, slab.len) != (start, len) {
            return None;
        }
        Some(Piece {
            block: slab.block.clone()?,
            at: slab.at,
            len,
        })
    }

    /// Drops all bytes outside the intervals.
    pub(super) fn retain(&mut self, intervals: &Intervals, pool: &mut Pool) {
        if self.slabs.is_empty() {
            return;
        }
        let mut from = 0;
        let ends = intervals
            .iter()
            .map(|(start, len)| (start as u32, len as u32));
        for (start, len) in ends.chain([(u32::MAX, 0)]) {
            if start > from {
                self.cut(from, start - from, pool);
            }
            from = start.saturating_add(len);
        }
        if self.slabs.is_empty() {
            self.slabs = Vec::new();
        }
    }

    /// The same bytes within the intervals, shared.
    pub(super) fn snapshot(&self, intervals: &Intervals) -> Self {
        let mut slabs = Vec::new();
        for (start, len) in intervals.iter() {
            let (start, len) = (start as u32, len as u32);
            for slab in &self.slabs[self.overlapping(start, len)] {
                let (low, high) = (slab.start.max(start), slab.end().min(start + len));
                slabs.push(Slab {
                    start: low,
                    len: high - low,
                    at: slab.position(low),
                    block: slab.block.clone(),
                });
            }
        }
        Self { slabs }
    }

    /// Gives all blocks back.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        for slab in std::mem::take(&mut self.slabs) {
            give(slab, pool);
        }
    }
}

/// Whether nobody else has a block. As only who has a block can give it to others, it stays so.
pub(super) fn is_alone(block: &Arc<Block>) -> bool {
    Arc::strong_count(block) == 1 && Arc::weak_count(block) == 0
}

fn give(slab: Slab, pool: &mut Pool) {
    if let Some(block) = slab.block {
        pool.give(block);
    }
}

#[cfg(test)]
mod tests;
