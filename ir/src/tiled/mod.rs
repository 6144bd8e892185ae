//! TILED: every op split over a logical grid of cores, every tensor distributed by a layout, every
//! movement of data explicit. Cores have grid coordinates, not places: placing is MESH's business.
//!
//! # Grids
//!
//! A [`Grid`] is a set of cores with coordinates along named [`Axis`]es, first axis slowest. An axis
//! belongs to a level of the machine's hierarchy (core, chip, tile), which says what kind of links
//! it crosses; axes of higher levels come first. Core-level axes number cores of one chip: their
//! product is at most the cores of a chip.
//! The cores of a grid are a run of the machine's live cores: [`Grid::first`] is the number, on each
//! chip, of the one with coordinates zero. So grids of one region overlap, and grids of two
//! regions (layers side by side) do not.
//!
//! # Layouts
//!
//! A [`Layout`] says which elements each core of a grid holds. It looks at the tensor under the
//! extents [`Layout::view`], which have the same elements in the same row-major order as the
//! tensor's shape: merging dims there is how a *linearised* group of dims (`n*h*w`) is split as one. Each
//! view dim has a [`Split`]: the axes that split it, in order (major first). Its blocks are balanced
//! in units: of `extent` iterations in units of `unit`, `U = ceil(extent / unit)` units over `p`
//! positions, position `c` has the iterations from `floor(c * U / p) * unit` to
//! `min(floor((c + 1) * U / p) * unit, extent)`. So two blocks differ by at most one unit. An
//! iteration range `a..b` that is not empty stands for the elements from `stride * a - low` to
//! `stride * (b - 1) + 1 + high`, both clipped to the view's extent; an empty one for none. For a
//! plain split `stride` is 1, `low` and `high` (the *halo*) are 0 and `extent` is the view's extent.
//! A dim without axes is the same on every core; it is whole if it is plain.
//!
//! Axes that split nothing and are not pending are *replicated*: cores that differ in them alone
//! hold the same bits. Along a *pending* axis each core holds a contribution to every element of
//! its block, and the value is their combination by a monoid, in the order of the axis.
//!
//! # Functions
//!
//! A [`Function`] is a list of statements over distributed values in SSA form:
//!
//! - [`Stmt::Group`]: structured steps on one grid which share their spatial split, a fused group. A
//!   [`Step`] is an op of GRAPH with a split of its loops: dims of its tiling rule, after
//!   [`coalesced`] merged those that all operands and results walk as one. On each core a split
//!   dim runs over its block (the rule above, `stride` 1), any other over its whole extent. An operand's
//!   layout must give every core the part of the operand that its iterations read, a result's layout is
//!   [`result_layout`]. Nothing moves between cores inside a group.
//! - [`Stmt::Reshard`]: another layout of the same value; this is the only statement that moves data
//!   between cores. What it is as a collective is told by [`Reshard::kind`].
//! - [`Stmt::View`]: the same elements under another shape, or another view of the same shape
//!   ([`Layout::with_view`]): every core keeps its bytes.
//! - [`Stmt::Repeat`]: a counted loop whose carried values have the same layout on every iteration.
//!
//! Weights are distributed by recipes when a program is loaded, so a weight value may have any
//! layout; a `reshard` of a weight gathers it just in time.

pub mod eval;
mod layout;
pub(crate) mod parse;
pub(crate) mod print;
pub(crate) mod spread;
mod step;
pub(crate) mod text;
mod verify;

use std::sync::Arc;

pub use layout::{BlockRange, Layout, Pending, Split};
pub use parse::{SourceMap, parse};
pub use step::{Coalesced, StepRule, block, coalesced, result_layout, step_rule, widest_loops};
pub(crate) use verify::operands_and_results;
pub use verify::{Entity, Violation, verify, verify_on};

use crate::diag::Loc;
use crate::entity;
use crate::entity::PrimaryMap;
use crate::graph;
use crate::ops::Op;
use crate::types::Type;

/// Version of the text form.
pub const TEXT_VERSION: u32 = 1;

entity! {
    /// A grid of a module.
    GridId "grid",
    /// A function of a module.
    FuncId "func",
    /// A value of a function.
    ValueId "%",
    /// A body of statements.
    BodyId "body",
}

/// A model, tiled for a machine.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Module {
    /// Name, as in the user's model.
    pub name: Arc<str>,
    /// Name of the machine it is tiled for.
    pub machine: Arc<str>,
    /// Logical grids.
    pub grids: PrimaryMap<GridId, Grid>,
    /// Constants, as in GRAPH.
    pub weights: PrimaryMap<graph::WeightId, graph::Weight>,
    /// Values that live between runs, as in GRAPH.
    pub states: PrimaryMap<graph::StateId, graph::State>,
    /// Functions.
    pub functions: PrimaryMap<FuncId, Function>,
}

/// A logical grid of cores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Name, unique in the module.
    pub name: Arc<str>,
    /// Number, on each chip, of the live core with core-level coordinates zero.
    pub first: u64,
    /// The axes, slowest first.
    pub axes: Vec<Axis>,
}

/// An axis of a [`Grid`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// Name, unique in the grid.
    pub name: Arc<str>,
    /// Number of positions, at least 1.
    pub size: u64,
    /// What neighbours along it are.
    pub level: AxisLevel,
}

/// Level of the machine's hierarchy that an axis runs over: its class of bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AxisLevel {
    /// Tiles of the machine.
    Tile,
    /// Chips of a tile.
    Chip,
    /// Cores of a chip.
    Core,
}

impl AxisLevel {
    /// All of them with their names in text.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Tile, "tile"),
        (Self::Chip, "chip"),
        (Self::Core, "core"),
    ];
}

/// A function over distributed values.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Name, unique in the module.
    pub name: Arc<str>,
    /// All values.
    pub values: PrimaryMap<ValueId, Value>,
    /// All bodies; body 0 is that of the function: its parameters are the inputs, its results the
    /// outputs.
    pub bodies: PrimaryMap<BodyId, Body>,
    /// Name and aliased state of every output, in the order of the body's results.
    pub outputs: Vec<graph::Output>,
}

/// A list of statements.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Body {
    /// Parameters.
    pub params: Vec<ValueId>,
    /// Statements, each after those whose results it uses.
    pub stmts: Vec<Stmt>,
    /// Results.
    pub results: Vec<ValueId>,
}

/// A distributed tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Element type and extents, which are constants.
    pub ty: Type,
    /// Who holds what.
    pub layout: Layout,
    /// Where it is defined.
    pub def: ValueDef,
    /// Name, as in the user's model; several values (reshards of one) may share it.
    pub name: Option<Arc<str>>,
}

/// Where a value is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueDef {
    /// A parameter of a body.
    Param(BodyId, u32),
    /// A weight of the module, in this value's layout.
    Weight(graph::WeightId),
    /// A state of the module, in this value's layout.
    State(graph::StateId),
    /// A statement of a body.
    Stmt(BodyId),
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// Computes.
    Group(Group),
    /// Moves data between cores.
    Reshard(Reshard),
    /// Gives the same blocks another shape.
    View {
        /// The value.
        input: ValueId,
        /// The same elements in the same places.
        output: ValueId,
        /// Where it comes from.
        loc: Option<Arc<Loc>>,
    },
    /// Runs a body a number of times.
    Repeat(Repeat),
}

/// Steps that share a grid and nothing between which data moves.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The cores.
    pub grid: GridId,
    /// What they compute, in order.
    pub steps: Vec<Step>,
}

/// An op, split over a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The op; its tiling rule is a loop nest or a kernel.
    pub op: Op,
    /// Operands.
    pub args: Vec<ValueId>,
    /// Results.
    pub results: Vec<ValueId>,
    /// Which loops of the op's rule are merged, see [`coalesced`]; empty for kernels.
    pub loops: Vec<std::ops::Range<usize>>,
    /// Spatial factors: loops, by their position in the merged rule (of a kernel: splittable dims),
    /// that are split, by ascending position.
    pub split: Vec<LoopSplit>,
    /// Temporal factors, outermost first; empty if a core computes its block at once.
    pub temporal: Vec<Temporal>,
    /// Where it comes from.
    pub loc: Option<Arc<Loc>>,
}

/// A loop that is split over cores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoopSplit {
    /// Position of the loop.
    pub dim: usize,
    /// Axes of the grid, by position, major first.
    pub axes: Vec<usize>,
    /// Blocks are balanced in units of this many iterations.
    pub unit: u64,
}

/// A loop over time: a core computes its block in equal steps, between which an operand moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Temporal {
    /// Position of the loop that is cut.
    pub dim: usize,
    /// Number of parts.
    pub steps: u64,
    /// Operand that shifts by one position between steps, and the axis it shifts along; `None` if
    /// all parts are at the core.
    pub shift: Option<(usize, usize)>,
}

/// Another layout of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshard {
    /// The value.
    pub input: ValueId,
    /// The same value in another layout.
    pub output: ValueId,
    /// Where it comes from.
    pub loc: Option<Arc<Loc>>,
}

/// A counted loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeat {
    /// Number of iterations.
    pub count: u64,
    /// First values of the carried values.
    pub inits: Vec<ValueId>,
    /// The body: its parameters are the carried values, its results their next values, of the same
    /// types and layouts.
    pub body: BodyId,
    /// Last values of the carried values.
    pub results: Vec<ValueId>,
    /// Where it comes from.
    pub loc: Option<Arc<Loc>>,
}

/// What a [`Reshard`] is as a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReshardKind {
    /// Every core keeps a part of what it has.
    Slice,
    /// Blocks are put together: split axes become replicated.
    AllGather,
    /// Pending contributions are combined, all cores get the result.
    AllReduce,
    /// Pending contributions are combined, each core gets a part of the result.
    ReduceScatter,
    /// Blocks grow by elements of their neighbours.
    Halo,
    /// The split moves from one dim to another.
    AllToAll,
    /// Anything else, such as a move to another grid.
    Redistribute,
}

impl Grid {
    /// Number of cores.
    pub fn size(&self) -> u64 {
        self.axes.iter().map(|a| a.size).product()
    }

    /// Coordinates of the core of a number; numbers count the coordinates, first axis slowest.
    pub fn coordinates(&self, core: u64) -> Vec<u64> {
        let mut rest = core;
        let mut coordinates = vec![0; self.axes.len()];
        for (slot, axis) in coordinates.iter_mut().zip(&self.axes).rev() {
            *slot = rest % axis.size;
            rest /= axis.size;
        }
        coordinates
    }
}

impl Reshard {
    /// What it is as a collective, told from the layouts.
    pub fn kind(&self, function: &Function) -> ReshardKind {
        layout::reshard_kind(
            &function.values[self.input].layout,
            &function.values[self.output].layout,
        )
    }
}

impl Function {
    /// The body of the function.
    pub fn body(&self) -> BodyId {
        use crate::entity::EntityId as _;
        BodyId::from_index(0)
    }
}

#[cfg(test)]
mod tests;
