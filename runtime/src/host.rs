//! How the host reads and writes the memory of a program: traits that executors implement, and the
//! walk over the shards of a tensor.
//!
//! Data crosses the border *dense*: the elements of a box, row-major, little-endian, without gaps.
//! An executor lays them out as the shard's [`Layout`] says; [`scatter`] and [`gather`] do that on
//! slices.

mod layout;
mod place;
mod walk;

use bytes::Bytes;
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{DramId, EntryId, Env, SegmentId, TensorId};

pub(crate) use layout::runs;
pub use layout::{gather, scatter, slice_box};
pub use place::{Assembly, MakeBox, collect, place, place_with, read_piece};
pub use walk::{Home, Piece, core_name, shape_of, walk};

use crate::compute::Layout;
use crate::options::{RunOptions, Stats};

/// How long what the host writes lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// As long as the program is loaded; the program does not change it.
    Weight,
    /// As long as the program is loaded; runs change it.
    State,
    /// Until the run ends.
    Run,
}

/// Memory that the host can read.
pub trait ReadMemory {
    /// Reads a box of a core's SRAM. `at` is the address of its first element. `out` has
    /// `layout.elements` times the element size and becomes dense. Bytes that were never written
    /// are zeros.
    ///
    /// # Errors
    /// For a place outside the memory; the sanitizer also for bytes that were never written.
    fn read(
        &self,
        core: CoreAddress,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic>;

    /// Reads a box of an instance of a DRAM region: that of the owner with this index, or instance 0
    /// of a region without owners.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_dram(
        &self,
        dram: DramId,
        instance: u64,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic>;
}

/// Memory that the host can read and write.
pub trait Memory: ReadMemory {
    /// Writes a box of a core's SRAM. `data` is dense. Cores that get the same box in one call of
    /// [`place`] get clones of one `data`, so that memory can be shared between them.
    ///
    /// # Errors
    /// For a place outside the memory, and where the limit of memory is exceeded.
    fn write(
        &mut self,
        core: CoreAddress,
        at: u64,
        layout: &Layout,
        data: &Bytes,
        keep: Keep,
    ) -> Result<(), Diagnostic>;

    /// Writes a box of an instance of a DRAM region.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn write_dram(
        &mut self,
        dram: DramId,
        instance: u64,
        at: u64,
        layout: &Layout,
        data: &Bytes,
        keep: Keep,
    ) -> Result<(), Diagnostic>;
}

/// A statement of a program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Statement {
    /// The segment.
    pub segment: SegmentId,
    /// Position of its stream.
    pub stream: u32,
    /// Position in the stream's code.
    pub at: u32,
}

/// Takes the values of probes during a run.
///
/// What its functions return counts against the limit of memory of the run: the bytes that the sink
/// has taken and will hold until the run has ended. `memory` can be asked for the SRAM of the
/// core that they are called for and for its own DRAM instances. Errors end the run.
pub trait ProbeSink: Sync {
    /// Called when a core reaches a `probe` step of its schedule, in the order in which the core
    /// reaches them.
    ///
    /// # Errors
    /// What ends the run.
    fn capture(
        &self,
        probe: TensorId,
        core: CoreAddress,
        memory: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic>;

    /// Whether the functions below are to be called for the calls of a segment.
    fn follows(&self, segment: SegmentId) -> bool;

    /// A call has begun on a core, and no statement of it was carried out. `env` has its parameter
    /// row; bytes of `memory` that have no meaning are anything.
    ///
    /// # Errors
    /// What ends the run.
    fn begin_call(
        &self,
        segment: SegmentId,
        core: CoreAddress,
        env: &Env<'_>,
        memory: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic>;

    /// A core has carried out a statement that is neither a loop nor the definition of a view.
    /// `env` has the values that it was carried out with, but for the register that it sets.
    ///
    /// # Errors
    /// What ends the run.
    fn done(
        &self,
        statement: Statement,
        core: CoreAddress,
        env: &Env<'_>,
        memory: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic>;

    /// The call of a core has ended.
    fn end_call(&self, segment: SegmentId, core: CoreAddress);
}

/// What runs a program. The life of an engine:
///
/// 1. weights and first states are written ([`Keep::Weight`], [`Keep::State`]);
/// 2. for each run: [`begin`](Self::begin), inputs are written ([`Keep::Run`]),
///    [`run`](Self::run), outputs are read, [`end`](Self::end);
/// 3. between runs states may be read and written.
pub trait Engine: Memory + Send {
    /// Begins a run. From here on [`end`](Self::end) can bring states back to what they are now.
    fn begin(&mut self, options: &RunOptions);

    /// Runs the schedule of an entry to its end. `dims` are the values of the run parameters in
    /// order of their declaration.
    ///
    /// # Errors
    /// Whatever ends the run early.
    fn run(
        &mut self,
        entry: EntryId,
        dims: &[i64],
        options: &RunOptions,
        probes: Option<&dyn ProbeSink>,
    ) -> Result<Stats, Diagnostics>;

    /// Ends a run, successful or not. States keep the bytes that the program gave them if `keep`,
    /// else those they had at [`begin`](Self::begin); everything else that the run wrote is
    /// forgotten.
    fn end(&mut self, keep: bool);
}
