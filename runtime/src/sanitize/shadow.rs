//! What is known about every byte of a memory: intervals of equal knowledge.

use std::collections::BTreeMap;
use std::ops::Range;

use dojoc_ir::program::{BufferId, SegmentId};

use crate::host::Keep;

/// Most streams of a core.
pub const STREAMS: usize = 4;

/// A vector clock over the streams of a call.
pub type Clock = [u32; STREAMS];

/// A statement that was carried out in some call of a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The segment.
    pub segment: SegmentId,
    /// Position of the stream in it.
    pub stream: u8,
    /// Position of the statement.
    pub inst: u32,
    /// The stream's own clock.
    pub time: u32,
}

impl Mark {
    /// Segment, stream and statement.
    pub fn place(&self) -> (SegmentId, u32, u32) {
        (self.segment, u32::from(self.stream), self.inst)
    }

    /// Whether it happened before what a stream with this clock does now.
    pub fn before(&self, stream: u8, clock: &Clock) -> bool {
        self.stream == stream || self.time <= clock[usize::from(self.stream)]
    }
}

/// Whether bytes have a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Content {
    /// Never written.
    #[default]
    Never,
    /// Belonged to a buffer that did not outlive its call.
    Gone(SegmentId, BufferId),
    /// Defined.
    There,
}

/// What is known about a byte. Marks are those of the call with the number `call`; if another call
/// runs they count as absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Whether it has a meaning.
    pub content: Content,
    /// Whose it is beyond the run.
    pub keep: Option<Keep>,
    /// The call that the marks below belong to.
    pub call: u32,
    /// The `post` since which it belongs to the network.
    pub posted: Option<Mark>,
    /// The last write and the buffer it went through.
    pub write: Option<(Mark, Option<BufferId>)>,
    /// The last reads since then, one for each stream.
    pub reads: [Option<Mark>; STREAMS],
}

impl Cell {
    /// Forgets the marks of other calls.
    pub fn enter(&mut self, call: u32) {
        if self.call != call {
            self.call = call;
            self.write = None;
            self.reads = [None; STREAMS];
        }
    }

    /// The last write, if it is of this call.
    pub fn written(&self, call: u32) -> Option<(Mark, Option<BufferId>)> {
        self.write.filter(|_| self.call == call)
    }
}

/// Cells of a memory. Bytes without an interval have [`Cell::default`].
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    /// End and cell by start; intervals do not overlap.
    map: BTreeMap<u64, (u64, Cell)>,
}

impl Shadow {
    /// Intervals in order.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, &Cell)> {
        self.map
            .iter()
            .map(|(start, (end, cell))| (*start..*end, cell))
    }

    /// Intervals that have bytes of `range`, in order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, &Cell)> {
        let before = self.map.range(..=range.start).next_back();
        let first = before.map_or(range.start, |(start, _)| *start);
        self.map
            .range(first..range.end.max(first))
            .map(|(start, (end, cell))| (*start..*end, cell))
            .filter(move |(interval, _)| interval.end > range.start)
    }

    /// Calls `change` for all bytes of `range`, an interval of equal cells at a time, in ascending
    /// order. What it returns ends the walk.
    ///
    /// # Errors
    /// What `change` returns.
    pub fn update<E>(
        &mut self,
        range: Range<u64>,
        mut change: impl FnMut(Range<u64>, &mut Cell) -> Result<(), E>,
    ) -> Result<(), E> {
        if range.is_empty() {
            return Ok(());
        }
        self.split(range.start);
        self.split(range.end);
        let mut at = range.start;
        while at < range.end {
            let next = self.map.range(at..range.end).next();
            let (start, end) = match next {
                Some((start, (end, _))) if *start == at => (at, *end),
                Some((start, _)) => (at, *start),
                None => (at, range.end),
            };
            let (_, cell) = self.map.entry(start).or_insert((end, Cell::default()));
            change(start..end, cell)?;
            at = end;
        }
        self.merge(range);
        Ok(())
    }

    /// Makes `at` a border between intervals.
    fn split(&mut self, at: u64) {
        let Some((start, (end, cell))) = self.map.range_mut(..at).next_back() else {
            return;
        };
        if *start < at && at < *end {
            let right = (*end, cell.clone());
            *end = at;
            self.map.insert(at, right);
        }
    }

    /// Joins equal neighbours in and around `range`.
    fn merge(&mut self, range: Range<u64>) {
        let before = self.map.range(..range.start).next_back();
        let mut at = before.map_or(range.start, |(start, _)| *start);
        while at <= range.end {
            let Some((end, cell)) = self.map.get(&at) else {
                match self.map.range(at..=range.end).next() {
                    Some((next, _)) => at = *next,
                    None => return,
                }
                continue;
            };
            let end = *end;
            let joined = match self.map.get(&end) {
                Some((far, next)) if next == cell => Some(*far),
                _ => None,
            };
            match joined {
                Some(far) => {
                    self.map.remove(&end);
                    if let Some((end, _)) = self.map.get_mut(&at) {
                        *end = far;
                    }
                }
                None => at = end,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn set(shadow: &mut Shadow, range: Range<u64>, content: Content) {
        let done: Result<(), Infallible> = shadow.update(range, |_, cell| {
            cell.content = content;
            Ok(())
        });
        done.unwrap();
    }

    #[test]
    fn intervals_split_and_join() {
        let mut shadow = Shadow::default();
        set(&mut shadow, 10..20, Content::There);
        set(&mut shadow, 20..30, Content::There);
        assert_eq!(shadow.iter().count(), 1);
        set(&mut shadow, 12..14, Content::Never);
        let found: Vec<_> = shadow.iter().map(|(r, c)| (r, c.content)).collect();
        let expected = [
            (10..12, Content::There),
            (12..14, Content::Never),
            (14..30, Content::There),
        ];
        assert_eq!(found, expected);
        set(&mut shadow, 5..35, Content::There);
        let ranges: Vec<_> = shadow.iter().map(|(range, _)| range).collect();
        assert_eq!(ranges, std::iter::once(5..35).collect::<Vec<_>>());
    }

    #[test]
    fn agrees_with_a_cell_per_byte() {
        let mut shadow = Shadow::default();
        let mut bytes = vec![Content::Never; 64];
        for step in 0..500u64 {
            let a = step * 37 % 64;
            let b = (step * step + 11) % 65;
            let content = [Content::There, Content::Never][(step % 3 % 2) as usize];
            set(&mut shadow, a.min(b)..a.max(b), content);
            bytes[a.min(b) as usize..a.max(b) as usize].fill(content);
            for (at, expected) in bytes.iter().enumerate() {
                let at = at as u64;
                let found = shadow.iter().find(|(r, _)| r.contains(&at));
                let found = found.map_or(Content::Never, |(_, c)| c.content);
                assert_eq!(found, *expected, "byte {at} in step {step}");
            }
        }
    }
}
