//! The PROGRAM level: what the machine runs.
//!
//! A *program* describes the code and data of up to a million cores without naming each of them.
//!
//! # Cores, parameter rows, segments, schedules
//!
//! - A [`Region`] is an ordered set of cores, described by strided boxes. Whatever differs from core
//!   to core is an [`IndexExpr`] over the core's index in a region, its coordinates, and tables.
//! - A [`Segment`] is the code of one role: up to four *streams*, as a core has four threads, one
//!   for the matrix unit, one for the vector unit, two for communication. Cores that differ in
//!   numbers only share it; the numbers are the *parameter row* of a call.
//! - An [`Entry`] is something a user can run. Its *schedule* is a list of steps: `call` runs a
//!   segment on all cores of a region, each with its row. A core runs the calls of the regions it
//!   belongs to, in order; there is no barrier between the calls of different cores. A call ends on
//!   a core when all its streams have ended there.
//!
//! # Memory
//!
//! - A segment names intervals of SRAM, [`Buffer`]s, at addresses that depend on parameters only.
//!   Operands of instructions are buffers or [`View`]s of them. At any time a byte belongs to at
//!   most one buffer: reading through one buffer what was last written through another one of the
//!   same call is an error, and so is reading what was never written.
//! - [`TensorDecl`]s say which bytes of which cores (or of which DRAM region) hold which part of an
//!   input, output, weight or state. Inputs are written by the host before an entry starts, outputs
//!   are read after it ended. Weights are written when the program is loaded, by a [`Recipe`] that
//!   refers to the user's files. States are written once and keep their bytes between runs; other
//!   bytes do not survive a run.
//! - A [`DramRegion`] has one instance for each core of a region, its *owner*. The owner writes it
//!   in *epochs*: `dram.begin` waits until all readers have released the last one, `dram.commit`
//!   publishes. A reader's `dram.acquire` waits for the next epoch, `dram.release` gives it back.
//!   A region without owners is written by the host and only read.
//!
//! # Streams and tokens
//!
//! Instructions of one stream happen in order. Streams of a core meet only at *tokens*, counting
//! semaphores with one signalling and one waiting stream: the n-th `wait` waits for the n-th
//! `signal`. In a call there are as many of one as of the other. Two accesses to the same byte from
//! different streams, one of them a write, must be ordered by tokens.
//!
//! # Channels
//!
//! A [`Family`] of channels connects cores of one region with cores of another by a rule. Each
//! channel has one sender (a core and a *port*) and, unless the machine multicasts, one receiver.
//! Credits start at zero. `post` gives a buffer to the channel as the next slot; `send` waits for a
//! slot and sends the elements of a view, row-major and dense; `recv` waits until the oldest slot is
//! filled and gives it back to the core; `relay` is a `recv` whose message is sent on. Between
//! `post` and `recv` the slot belongs to the network. The n-th message fills the n-th slot and must
//! have its size. Within a call of a segment, every slot posted is received.
//!
//! # Control
//!
//! Loops are counted. A count, like every address, extent and port, is an [`Affine`] expression over
//! the parameter row, run parameters, counters of enclosing loops, and *uniform registers*. Data can
//! enter control in one way: `count` reads a register from SRAM. If channel operations depend on
//! it, the value must be *uniform*: the verifier requires that it was delivered by the channel
//! family that the instruction names, so that all endpoints hold the same number.
//!
//! All this makes the program a Kahn process network: results depend on nothing but the inputs.

mod affine;
pub mod container;
mod index;
pub mod instr;
mod level;
mod number;
pub mod parse;
mod print;
pub mod recipe;
mod region;
#[cfg(test)]
mod text_tests;
pub mod verify;
mod view;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use affine::{Affine, Env, Var};
pub use index::{Coordinate, IndexEnv, IndexExpr, IndexNode, MAX_INDEX_NODES};
pub use instr::{Instr, Stmt};
pub use parse::{SourceMap, parse};
pub use print::inst_line;
pub use recipe::{Recipe, RecipeNode, Sources};
pub use region::{CoreBox, Region, Span};
pub use view::{Buffer, BufferRole, MAX_VIEW_RANK, Packing, View, ViewType, dense_strides};

use crate::diag::Loc;
use crate::entity;
use crate::entity::PrimaryMap;
use crate::types::DType;

/// Version of the text form and of the meaning of the level.
pub const TEXT_VERSION: u32 = 1;

/// Loops of a stream may be nested this deep, and so may `repeat`s of a schedule.
pub const MAX_LOOP_DEPTH: usize = 8;

entity! {
    /// A set of cores.
    RegionId "region",
    /// A table of numbers.
    TableId "table",
    /// A channel family.
    FamilyId "channel",
    /// A DRAM region.
    DramId "dram",
    /// An input, output, weight, state or probe.
    TensorId "tensor",
    /// A segment.
    SegmentId "segment",
    /// An entry point.
    EntryId "entry",
    /// A source location.
    LocId "loc",
    /// A buffer of a segment.
    BufferId "buffer",
    /// A view of a segment.
    ViewId "view",
    /// A token of a segment.
    TokenId "token",
}

/// A program. See the [module](self).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: Arc<str>,
    /// The machine it is made for.
    pub machine: MachineRef,
    /// Run parameters: name and largest value. A run may choose any value from 1 to the largest.
    pub dims: Vec<(Arc<str>, u64)>,
    /// Core sets.
    pub regions: PrimaryMap<RegionId, Region>,
    /// Tables.
    pub tables: PrimaryMap<TableId, Table>,
    /// Channel families.
    pub families: PrimaryMap<FamilyId, Family>,
    /// DRAM regions.
    pub dram: PrimaryMap<DramId, DramRegion>,
    /// Tensors.
    pub tensors: PrimaryMap<TensorId, TensorDecl>,
    /// Segments.
    pub segments: PrimaryMap<SegmentId, Segment>,
    /// Entry points.
    pub entries: PrimaryMap<EntryId, Entry>,
    /// Source locations, without repetition.
    pub locs: PrimaryMap<LocId, Loc>,
}

/// Which machine a program is made for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct MachineRef {
    /// Name of the description.
    pub name: Arc<str>,
    /// [`Machine::fingerprint`](crate::machine::Machine::fingerprint) of the description; zero in
    /// hand-written programs, which then fit any machine of that name.
    pub fingerprint: u128,
}

/// Numbers that no formula gives, such as a permutation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Its name, unique in the program.
    pub name: Arc<str>,
    /// The numbers.
    pub values: Vec<i64>,
}

/// A family of channels: every core of `from` has `ports` outgoing channels.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Family {
    /// Its name, unique in the program.
    pub name: Arc<str>,
    /// Senders.
    pub from: RegionId,
    /// Receivers.
    pub to: RegionId,
    /// Channels of each sender, numbered from 0; at most 64.
    pub ports: u32,
    /// Index in `to` of the receiver, over the coordinates of the sender (`i` is its index in
    /// `from`), the port `p` and the branch `k`. A negative value means that there is no such
    /// channel (or branch).
    pub peer: IndexExpr,
    /// Port at the receiver, over the same coordinates.
    pub peer_port: IndexExpr,
    /// Receivers of one channel, `k` counting from 0; more than one only where the machine's
    /// routers multicast.
    pub branches: u32,
    /// How messages travel.
    pub route: Route,
    /// Where it comes from.
    pub loc: Option<LocId>,
}

/// The path of messages over the mesh.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Route {
    /// The rule.
    pub rule: RouteRule,
    /// Exceptions, ascending by sender and port.
    pub overrides: Vec<RouteOverride>,
}

/// A rule for routes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum RouteRule {
    /// Along the row first, then along the column.
    #[default]
    Xy,
    /// Along the column first, then along the row.
    Yx,
}

impl RouteRule {
    /// All of them with their names in text.
    pub const ALL: [(Self, &'static str); 2] = [(Self::Xy, "xy"), (Self::Yx, "yx")];
}

/// The explicit route of one channel.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct RouteOverride {
    /// Index of the sender in `from`.
    pub sender: u64,
    /// Port of the sender.
    pub port: u32,
    /// Every site on the way, sender and receiver included; neighbours follow each other.
    pub sites: Vec<crate::machine::CoreAddress>,
}

/// Memory behind the interface processors.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DramRegion {
    /// Its name, unique in the program.
    pub name: Arc<str>,
    /// Owners; each has an instance of its own. Without owners there is one instance, written by
    /// the host.
    pub owners: Option<RegionId>,
    /// The interface processor that serves an instance, over the owner's coordinates.
    pub dip: IndexExpr,
    /// Bytes of an instance.
    pub bytes: u64,
    /// How many `dram.release` of other cores end an epoch of an instance.
    pub readers: u32,
}

/// A tensor that the host sees.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TensorDecl {
    /// Its name, unique in the program: that of the user's model.
    pub name: Arc<str>,
    /// What it is.
    pub kind: TensorKind,
    /// Element type of what lies in memory.
    pub dtype: DType,
    /// Extents, which may depend on run parameters.
    pub shape: Vec<Affine>,
    /// Where its parts lie.
    pub shards: Vec<Shard>,
    /// Where it comes from.
    pub loc: Option<LocId>,
}

/// What a tensor is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum TensorKind {
    /// Written by the host before a run.
    Input,
    /// Read by the host after a run. Shards are disjoint and cover the tensor.
    Output,
    /// Written when the program is loaded, never changed.
    Weight(Recipe),
    /// Written when the program is loaded, kept between runs. Shards that hold the same element are
    /// replicas and must hold the same bits after every run.
    State(StateInit),
    /// An intermediate value that the host may ask for, at the `probe` steps of a schedule.
    Probe,
}

/// The first value of a state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum StateInit {
    /// Zeros.
    Zeros,
    /// The value of a recipe.
    Recipe(Recipe),
}

/// Parts of a tensor on the cores of a region: each core holds one box of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Shard {
    /// Where.
    pub home: Home,
    /// Start and extent of the box in each dimension of the tensor, over the coordinates of the
    /// core. An empty box means that the core holds nothing.
    pub slice: Vec<(IndexExpr, IndexExpr)>,
    /// Strides in bytes of the box in memory.
    pub strides: Vec<i64>,
    /// Packing of the box in memory.
    pub packing: Packing,
}

/// Where a shard lies.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Home {
    /// In the SRAM of each core of the region, at an address over its coordinates.
    Sram {
        /// The cores.
        on: RegionId,
        /// Address of the first byte.
        at: IndexExpr,
    },
    /// In every instance of a DRAM region, at an address over the coordinates of the owner.
    Dram {
        /// The DRAM region.
        dram: DramId,
        /// Offset of the first byte.
        at: IndexExpr,
    },
}

/// Code of one role.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Segment {
    /// Its name, unique in the program.
    pub name: Arc<str>,
    /// Names of the entries of the parameter row.
    pub params: Vec<Arc<str>>,
    /// Buffers.
    pub buffers: PrimaryMap<BufferId, Buffer>,
    /// Views of all streams.
    pub views: PrimaryMap<ViewId, View>,
    /// Names of tokens.
    pub tokens: PrimaryMap<TokenId, Arc<str>>,
    /// Names of uniform registers.
    pub registers: Vec<Arc<str>>,
    /// The streams in order of their units, at most one of each.
    pub streams: Vec<Stream>,
    /// Where it comes from.
    pub loc: Option<LocId>,
}

/// What a stream drives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Unit {
    /// The matrix unit: tile products, and local data movement and conversions around them.
    Matrix,
    /// The vector unit: everything but tile products.
    Vector,
    /// Transfers.
    Comm0,
    /// Transfers.
    Comm1,
}

impl Unit {
    /// All of them with their names in text.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Matrix, "matrix"),
        (Self::Vector, "vector"),
        (Self::Comm0, "comm0"),
        (Self::Comm1, "comm1"),
    ];
}

/// The instructions of one thread of a core.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// What it drives.
    pub unit: Unit,
    /// Statements; the body of a loop follows it, see [`Stmt::Loop`].
    pub code: Vec<Inst>,
}

/// A statement with its place in the source.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Inst {
    /// The statement.
    pub stmt: Stmt,
    /// The op of the user's model it belongs to.
    pub loc: Option<LocId>,
}

/// Something that can be run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, unique in the program.
    pub name: Arc<str>,
    /// Inputs, in the order of the signature.
    pub inputs: Vec<TensorId>,
    /// Outputs, in the order of the signature.
    pub outputs: Vec<TensorId>,
    /// The schedule; the body of a repeat follows it, see [`Step::Repeat`].
    pub steps: Vec<Step>,
}

/// A step of a schedule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Runs a segment on all cores of a region.
    Call {
        /// The segment.
        segment: SegmentId,
        /// The cores.
        on: RegionId,
        /// The parameter row of a core, over its coordinates and the counters of repeats.
        row: Vec<IndexExpr>,
        /// Where it comes from.
        loc: Option<LocId>,
    },
    /// Runs the next `len` steps `count` times.
    Repeat {
        /// Name of the counter.
        name: Arc<str>,
        /// How often.
        count: u64,
        /// How many steps.
        len: u32,
    },
    /// The host may read a probe here.
    Probe(TensorId),
}

/// A part of a program that messages refer to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// The program as a whole.
    Program,
    /// A region.
    Region(RegionId),
    /// A table.
    Table(TableId),
    /// A channel family.
    Family(FamilyId),
    /// A DRAM region.
    Dram(DramId),
    /// A tensor.
    Tensor(TensorId),
    /// A segment.
    Segment(SegmentId),
    /// A buffer of a segment.
    Buffer(SegmentId, BufferId),
    /// A statement: segment, position of the stream, position in its code. View definitions are
    /// statements too.
    Inst(SegmentId, u32, u32),
    /// An entry.
    Entry(EntryId),
    /// A step of a schedule, by its position.
    Step(EntryId, u32),
}

impl Program {
    /// The entity of a name, by walking the table.
    pub fn entry(&self, name: &str) -> Option<EntryId> {
        self.entries
            .iter()
            .find(|(_, e)| &*e.name == name)
            .map(|(id, _)| id)
    }

    /// The tensor of a name, by walking the table.
    pub fn tensor(&self, name: &str) -> Option<TensorId> {
        self.tensors
            .iter()
            .find(|(_, t)| &*t.name == name)
            .map(|(id, _)| id)
    }
}

impl Segment {
    /// The buffer that an operand is, or is a window of.
    pub fn buffer_of(&self, operand: instr::Ref) -> Option<BufferId> {
        match operand {
            instr::Ref::Buffer(buffer) => Some(buffer),
            instr::Ref::View(view) => self.views.get(view).map(|view| view.buffer),
        }
    }

    /// An operand's layout and its first byte in SRAM; `None` where it does not exist, overflows or
    /// has a negative extent.
    pub fn resolve(&self, operand: instr::Ref, env: &Env<'_>) -> Option<(i64, ViewType)> {
        let buffer = self.buffers.get(self.buffer_of(operand)?)?;
        let at = buffer.at.eval(env)?;
        match operand {
            instr::Ref::Buffer(_) => Some((at, buffer.view_type()?)),
            instr::Ref::View(view) => {
                let view = &self.views[view];
                let at = at.checked_add(view.offset.eval(env)?)?;
                Some((at, view.view_type(env)?))
            }
        }
    }
}
