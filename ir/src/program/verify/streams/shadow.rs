//! What is known of every byte of a core's SRAM during the abstract run of a call.

use super::finding::{Findings, Problem};
use super::intervals::Intervals;
use super::order::{At, Clock, Event, MAX_STREAMS, is_before};
use crate::program::{BufferId, BufferRole, Segment};

/// Whose content a byte holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    /// What was there when the call began.
    Initial,
    /// What was written through a buffer.
    Of(BufferId),
    /// The byte belongs to the network, which will write it.
    Posted(BufferId),
}

/// The state of some bytes.
#[derive(Clone, PartialEq, Debug)]
struct Cell {
    /// What they hold.
    content: Content,
    /// The last write, `post` and `recv` included.
    writer: Option<Event>,
    /// The last read of each stream since then.
    readers: [Option<Event>; MAX_STREAMS],
}

const UNTOUCHED: Cell = Cell {
    content: Content::Initial,
    writer: None,
    readers: [None; MAX_STREAMS],
};

/// How a write changes owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Write {
    /// An ordinary write.
    Value,
    /// The slot goes to the network.
    Post,
    /// The slot comes back.
    Receive,
}

/// Who accesses memory, and what it knows.
pub(super) struct Actor<'a> {
    /// This execution of the statement.
    pub(super) event: Event,
    /// The clock of its stream.
    pub(super) clock: &'a Clock,
    /// Through which buffer.
    pub(super) buffer: BufferId,
}

/// Bytes that a call reads before it writes them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Need {
    /// The first statement that does.
    pub(super) at: At,
    /// Through which buffer.
    pub(super) buffer: BufferId,
}

/// What bytes hold after a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum After {
    /// What they held before.
    Unchanged,
    /// A value that is kept.
    Defined,
    /// A value that is kept, or what they held before.
    Either,
    /// Nothing that may be read.
    Destroyed,
}

/// Bytes after a call, and who wrote them last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Left {
    /// What they hold.
    pub(super) after: After,
    /// The last write; meaningless for unchanged bytes.
    pub(super) at: At,
}

/// Which bytes were last written by whom.
pub(super) type Version = Vec<(i64, i64, Option<(u8, u32)>)>;

/// The state of all bytes.
#[derive(Default)]
pub(super) struct Shadow {
    cells: Intervals<Cell>,
    /// Reads of what was there before.
    pub(super) needs: Intervals<Need>,
}

impl Shadow {
    /// A read of `low..high`; returns its cost in steps.
    pub(super) fn read(
        &mut self,
        (low, high): (i64, i64),
        role: BufferRole,
        actor: &Actor<'_>,
        findings: &mut Findings,
    ) -> u64 {
        let (event, buffer) = (actor.event, actor.buffer);
        let needs = &mut self.needs;
        self.cells.visit(low, high, &UNTOUCHED, |low, high, cell| {
            let bytes = (low, high);
            let writer = cell.writer.map(|writer| writer.at);
            let race = cell.writer.filter(|w| !is_before(*w, actor.clock));
            match cell.content {
                Content::Posted(_) => {
                    findings.add(event.at, writer, Problem::Owned { bytes, buffer });
                }
                _ if race.is_some() => {
                    let problem = Problem::Race {
                        bytes,
                        other_writes: true,
                        writes: false,
                    };
                    findings.add(event.at, writer, problem);
                }
                Content::Of(owner) if owner != buffer => {
                    let problem = Problem::Reused {
                        bytes,
                        buffer,
                        owner,
                    };
                    findings.add(event.at, writer, problem);
                }
                Content::Initial if role.live_in() => {
                    if cell.readers == UNTOUCHED.readers {
                        let at = event.at;
                        needs.set(low, high, Need { at, buffer });
                    }
                }
                Content::Initial => {
                    findings.add(event.at, None, Problem::Uninitialised { bytes, buffer });
                }
                Content::Of(_) => {}
            }
            cell.readers[usize::from(event.at.stream)] = Some(event);
        })
    }

    /// A write of `low..high`; returns its cost in steps.
    pub(super) fn write(
        &mut self,
        (low, high): (i64, i64),
        write: Write,
        actor: &Actor<'_>,
        findings: &mut Findings,
    ) -> u64 {
        let (event, buffer) = (actor.event, actor.buffer);
        let mut steps = 1;
        for (low, high, cell) in self.cells.within(low, high) {
            steps += 1;
            let bytes = (low, high);
            if matches!(cell.content, Content::Posted(_)) {
                if write != Write::Receive {
                    let other = cell.writer.map(|writer| writer.at);
                    findings.add(event.at, other, Problem::Owned { bytes, buffer });
                }
                continue;
            }
            let readers = cell.readers.iter().map(|reader| (reader, false));
            for (other, other_writes) in readers.chain([(&cell.writer, true)]) {
                let Some(other) = other.filter(|other| !is_before(*other, actor.clock)) else {
                    continue;
                };
                let problem = Problem::Race {
                    bytes,
                    other_writes,
                    writes: true,
                };
                findings.add(event.at, Some(other.at), problem);
            }
        }
        let content = match write {
            Write::Value | Write::Receive => Content::Of(buffer),
            Write::Post => Content::Posted(buffer),
        };
        let cell = Cell {
            content,
            writer: Some(event),
            readers: [None; MAX_STREAMS],
        };
        self.cells.set(low, high, cell);
        steps
    }

    /// Adds what identifies the content of some bytes.
    pub(super) fn version(&self, (low, high): (i64, i64), version: &mut Version) {
        version.extend(self.cells.within(low, high).map(|(low, high, cell)| {
            let writer = cell.writer.map(|writer| (writer.at.stream, writer.time));
            (low, high, writer)
        }));
    }

    /// What all bytes hold after the call.
    pub(super) fn left(&self, segment: &Segment) -> Intervals<Left> {
        let written = self.cells.iter().filter_map(|(low, high, cell)| {
            let (Some(writer), Content::Of(buffer) | Content::Posted(buffer)) =
                (cell.writer, cell.content)
            else {
                return None;
            };
            let kept =
                matches!(cell.content, Content::Of(_)) && segment.buffers[buffer].role.live_out();
            let after = if kept {
                After::Defined
            } else {
                After::Destroyed
            };
            let at = writer.at;
            Some((low, high, Left { after, at }))
        });
        written.collect()
    }
}

/// What bytes hold after a call that may go either way.
pub(super) fn either(a: &Intervals<Left>, b: &Intervals<Left>) -> Intervals<Left> {
    let unchanged = Left {
        after: After::Unchanged,
        at: At { stream: 0, inst: 0 },
    };
    let ends = a.iter().chain(b.iter());
    let (low, high) = ends.fold((i64::MAX, i64::MIN), |(low, high), (start, end, _)| {
        (low.min(start), high.max(end))
    });
    let (mut both, mut b) = (a.clone(), b.clone());
    both.visit(low, high, &unchanged, |_, _, _| ());
    b.visit(low, high, &unchanged, |_, _, _| ());
    for (low, high, other) in b.iter() {
        both.visit(low, high, &unchanged, |_, _, left| {
            let writer = if left.after == After::Unchanged {
                other.at
            } else {
                left.at
            };
            (left.after, left.at) = match (left.after, other.after) {
                (x, y) if x == y => (x, writer),
                (After::Destroyed, _) => (After::Destroyed, left.at),
                (_, After::Destroyed) => (After::Destroyed, other.at),
                _ => (After::Either, writer),
            };
        });
    }
    both.join();
    both
}
