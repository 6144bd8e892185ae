//! The state of a core in a run.

use dojoc_ir::program::DramId;

use super::channel::Ports;
use super::intervals::Intervals;
use super::sram::Sram;

/// A core. There may be a million, so that everything but this is allocated when it is used.
#[derive(Debug, Default)]
pub(super) struct Core {
    pub sram: Sram,
    pub ports: Option<Box<Ports>>,
    /// Where it is, while it is between start and end of its schedule and not being run.
    pub active: Option<Box<Active>>,
    /// What is kept between runs.
    pub keep: Option<Box<Intervals>>,
    /// Streams that may go on, a bit for each.
    pub ready: u8,
    /// On the list of runnable cores, or being run.
    pub queued: bool,
    /// Ran its whole schedule.
    pub done: bool,
}

/// A repeat that a core is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    /// First step of the body, and the one behind its last.
    pub body: (u32, u32),
    pub count: u64,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    /// Has ended.
    #[default]
    Ended,
    /// Has statements left.
    Running,
    /// Failed and will not go on.
    Failed,
}

/// A stream of a core.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StreamState {
    pub pc: u32,
    pub progress: Progress,
    /// The relay at `pc` has its message and waits for a slot to send it to.
    pub received: bool,
}

/// Where a core is in its schedule, and the call that it is in.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// The next step of its role.
    pub next: u32,
    pub repeats: Vec<Repeat>,
    /// Counters of the repeats.
    pub counters: Vec<i64>,
    pub in_call: bool,
    /// Step of the entry that is the call.
    pub step: u32,
    pub segment: u32,
    pub streams: [StreamState; 4],
    /// The frames of the streams, one after the other.
    pub frames: Vec<i64>,
    /// Addresses and bytes of the buffers.
    pub buffers: Vec<(u32, u32)>,
    /// Tokens and the streams that wait for them.
    pub tokens: Vec<(u32, u8)>,
    /// Epochs acquired of instances.
    pub acquired: Vec<(DramId, u64, u64)>,
}

impl Active {
    /// Makes it as new, without giving memory back.
    pub(super) fn clear(&mut self) {
        self.next = 0;
        self.repeats.clear();
        self.counters.clear();
        self.in_call = false;
        self.acquired.clear();
    }
}
