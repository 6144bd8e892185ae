//! MESH: a tiled function on the cores of a machine. Logical cores have places, every transfer is a
//! flow from core to core in a stage, every value an address and a lifetime.
//!
//! A [`Module`] is a TILED module and a [`Schedule`] for each of its functions. The statements of the
//! function happen in their order; a statement of a schedule refers to one of them.
//!
//! - [`Schedule::places`] gives logical core `n` of every grid (counted from the grid's first one) a
//!   live core of the machine. So one embedding serves all grids of a function.
//! - [`Storage`] is where a value lies: at the same address on all cores of its grid. A core holds the
//!   window of its block (see [`Layout::window`](crate::tiled::Layout::window)) row-major with the
//!   strides of the largest window, so that all cores share one layout of bytes. Elements of the
//!   window that are outside the tensor hold `fill`.
//! - An [`Exchange`] carries out one reshard: *stages* of [`Flow`]s. Flows of one stage are independent
//!   of each other; those of the next stage may send on what has arrived. Every element of every
//!   core's block arrives exactly once (or is copied from the core's own block of the input, a flow
//!   from a core to itself). A core has at most 64 peers in a stage, in each direction.
//!
//! # Text
//!
//! The text of a module is that of its TILED module with a `schedule` behind each function: runs of
//! places, values, exchanges, scratch memory. An exchange that follows from the two layouts by the
//! rule of [`route::exchange`] is written as what its stages come to, which reading checks: its flows
//! are a function of the layouts, and a model has a hundred thousand of them, so a list would say
//! nothing more and hide the rest. Any other exchange (by hand, or of another router) lists its flows.

pub mod eval;
mod parse;
mod print;
pub mod route;
mod text;
mod verify;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub use parse::{SourceMap, parse};
pub use verify::{ALIGNMENT, Violation, diagnostics, verify, verify_on};

use crate::attr::Number;
use crate::entity::PrimaryMap;
use crate::machine::CoreAddress;
use crate::program::RouteRule;
use crate::tiled::{self, FuncId, ValueId};

/// Version of the text form.
pub const TEXT_VERSION: u32 = 1;

/// Peers that a core may have open in one direction at a time.
pub const MAX_PEERS: usize = 64;

/// A tiled model on a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// The model.
    pub tiled: tiled::Module,
    /// A schedule for each function.
    pub schedules: PrimaryMap<FuncId, Schedule>,
}

/// Where and when the statements of a function happen.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Schedule {
    /// Live cores of the machine in the order of the logical cores.
    pub places: Vec<CoreAddress>,
    /// How messages travel.
    pub route: RouteRule,
    /// Where values lie.
    pub storage: BTreeMap<ValueId, Storage>,
    /// The transfers of each reshard of the body, by the position of its statement. Reshards between
    /// the same layouts share them.
    pub exchanges: Vec<(usize, Arc<Exchange>)>,
    /// Scratch memory of statements (staging, temporaries), by the position of the statement:
    /// address and bytes.
    pub scratch: Vec<(usize, u64, u64)>,
}

/// Where a value lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// Address of the first byte, a multiple of 64, on every core of the value's grid.
    pub address: u64,
    /// Bytes on the core that needs most.
    pub bytes: u64,
    /// Distances in bytes between neighbours in each dim of the layout's view.
    pub strides: Vec<i64>,
    /// Statements of the body during which its bytes are its own: at least from the first one that
    /// makes or reads it to the last one. Statements that are emitted as one piece of code overlap in
    /// time, so a value of one of them lives during all of them.
    pub live: Range<usize>,
    /// The value that it shares its bytes with, if it is a view of another one.
    pub alias: Option<ValueId>,
    /// What elements of windows hold that lie outside the tensor, where something reads them.
    pub fill: Option<Number>,
}

/// The transfers of a reshard.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Exchange {
    /// Extents under which flows see the tensor: a common refinement of the views of the two
    /// layouts (all elements in one dim, where they have none).
    pub view: Vec<u64>,
    /// The stages.
    pub stages: Vec<Vec<Flow>>,
}

/// A box of a tensor that one core sends to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Number of the sending core.
    pub from: u32,
    /// Number of the receiving core; the same for a copy inside a core.
    pub to: u32,
    /// First index in each dim of [`Exchange::view`].
    pub start: Vec<u64>,
    /// Extents.
    pub size: Vec<u64>,
    /// Whether the sender takes it from its own block of the *output*, which it has from an earlier
    /// stage, and not from its block of the input.
    pub forwarded: bool,
}

/// A part of a module that a message can be about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Entity {
    /// A part of the model.
    Tiled(tiled::Entity),
    /// The schedule of a function.
    Schedule(FuncId),
    /// The place of a logical core; text maps have the first core of each run.
    Place(FuncId, usize),
    /// The memory of a value.
    Storage(FuncId, ValueId),
    /// An exchange, by position.
    Exchange(FuncId, usize),
    /// Scratch memory, by position.
    Scratch(FuncId, usize),
}

impl Schedule {
    /// The transfers of the reshard that a statement is.
    pub fn exchange(&self, stmt: usize) -> Option<&Arc<Exchange>> {
        let mut exchanges = self.exchanges.iter();
        let (_, exchange) = exchanges.find(|(at, _)| *at == stmt)?;
        Some(exchange)
    }

    /// The value whose bytes a value is: itself, unless it is a view.
    pub fn root_of(&self, value: ValueId) -> ValueId {
        let storage = self.storage.get(&value);
        storage.and_then(|s| s.alias).unwrap_or(value)
    }

    /// Address and bytes of the scratch memory of a statement.
    pub fn scratch_of(&self, stmt: usize) -> Option<(u64, u64)> {
        let mut scratch = self.scratch.iter();
        let (_, address, bytes) = scratch.find(|(at, ..)| *at == stmt)?;
        Some((*address, *bytes))
    }

    /// Bytes from address 0 to the end of the highest value or scratch memory.
    pub fn sram_bytes(&self) -> u64 {
        let values = self.storage.values().map(|s| (s.address, s.bytes));
        let scratch = self.scratch.iter().map(|(_, at, bytes)| (*at, *bytes));
        let ends = values
            .chain(scratch)
            .map(|(at, bytes)| at.saturating_add(bytes));
        ends.max().unwrap_or(0)
    }
}

impl Flow {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.size
            .iter()
            .fold(1, |n, extent| n.saturating_mul(*extent))
    }
}

impl Module {
    /// Name of the model.
    pub fn name(&self) -> &Arc<str> {
        &self.tiled.name
    }
}

#[cfg(test)]
mod tests;
