//! Order between the streams of a core.

/// A statement: position of its stream in the segment, and position in the stream's code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct At {
    /// The stream.
    pub(super) stream: u8,
    /// The statement.
    pub(super) inst: u32,
}

/// One execution of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Event {
    /// The statement.
    pub(super) at: At,
    /// How many statements its stream had executed, this one included.
    pub(super) time: u32,
}

/// The most streams a segment may have.
pub(super) const MAX_STREAMS: usize = 4;

/// A vector clock: for each stream, the time of its last event that happened before.
pub(super) type Clock = [u32; MAX_STREAMS];

/// Whether an event happened before everything that a stream with this clock does next.
pub(super) fn is_before(event: Event, clock: &Clock) -> bool {
    event.time <= clock[usize::from(event.at.stream)]
}

/// Makes `clock` know what `other` knows.
pub(super) fn learn(clock: &mut Clock, other: &Clock) {
    for (mine, theirs) in clock.iter_mut().zip(other) {
        *mine = (*mine).max(*theirs);
    }
}
