//! What a run can be asked for and what it reports.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dojoc_ir::diag::Diagnostic;
use dojoc_ir::program::{Place, SegmentId, SourceMap};

use crate::kernels::{self, Kernels};

/// Options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Worker threads; 0 means as many as the host can run at once. At most one a core works, and not many
    /// more than the host can run at once; fewer if the host refuses to start them.
    pub threads: usize,
    /// Arithmetic.
    pub kernels: &'static dyn Kernels,
    /// Seed of random bits (dropout, stochastic rounding).
    pub seed: u64,
    /// Number of the training step, which random bits depend on.
    pub step: u64,
    /// Values of run parameters by name; the others have their largest value.
    pub dims: Vec<(Arc<str>, u64)>,
    /// Limit of the memory that the executor allocates for the program's bytes, for right operands of tile
    /// products in the form that kernels read, and for the values of probes.
    pub max_bytes: u64,
    /// Limit of the statements carried out by all cores together.
    pub max_steps: u64,
    /// Ends the run when it becomes true.
    pub cancel: Option<Arc<AtomicBool>>,
    /// Values to be read, by name. The first of these that the program has is meant:
    ///
    /// 1. a declared probe: its parts are put together at every `probe` step; an input; an output,
    ///    which is among the outputs;
    /// 2. the name of an op of the user's model: declared probes and outputs that it gives. In a
    ///    program without values of a model: core by core, the buffers that come from the op and
    ///    what instructions that come from it write to other buffers, but for code that only brings
    ///    operands, and for temporaries where something else is left;
    /// 3. `SEGMENT.BUFFER`: that buffer, core by core.
    ///
    /// A buffer has a value for each call of its segment that writes it, or that begins with content
    /// in it: what was last written through it in the call, so that it does not matter what its
    /// bytes are used for later. Elements that were not written have the content from before the
    /// call if the buffer's role is `in` or `inout`, else they are zeros.
    pub probes: Vec<Arc<str>>,
    /// Seed of a random schedule, for tests: results do not depend on it.
    pub shuffle: Option<u64>,
    /// Measure the time that instructions compute, see [`Stats::compute_nanos`]. Two looks at the
    /// clock an instruction.
    pub time_compute: bool,
    /// Where the statements of the program are in the text that it was read from: places of what goes wrong
    /// in them.
    pub spans: Option<Arc<SourceMap>>,
    /// Run with the sanitizer, which finds uses of memory that the rules of the level forbid. Slow.
    pub sanitize: bool,
}

impl RunOptions {
    /// With the statement as its place, if the program was read from text.
    pub(crate) fn locate(
        &self,
        found: Diagnostic,
        (segment, stream, at): (SegmentId, u32, u32),
    ) -> Diagnostic {
        let spans = self.spans.as_deref();
        match spans.and_then(|spans| spans.get(&Place::Inst(segment, stream, at))) {
            Some(span) => found.at_span(span.clone()),
            None => found,
        }
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            kernels: kernels::detect(),
            seed: 0,
            step: 0,
            dims: Vec::new(),
            max_bytes: u64::MAX,
            max_steps: u64::MAX,
            cancel: None,
            probes: Vec::new(),
            shuffle: None,
            time_compute: false,
            spans: None,
            sanitize: false,
        }
    }
}

/// What a run did. Everything but `threads`, `allocated_bytes` and `compute_nanos` is the same for every
/// number of threads and every schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Statements carried out, without view definitions and loops.
    pub instructions: u64,
    /// Calls of segments, counted once per core.
    pub calls: u64,
    /// Messages sent, a multicast once per receiver.
    pub messages: u64,
    /// Bytes of their elements.
    pub message_bytes: u64,
    /// Floating-point operations of tile products: two per step of a sum.
    pub flops: u64,
    /// Bytes loaded from and stored to DRAM regions.
    pub dram_bytes: u64,
    /// Most bytes of program memory that were allocated on the host at one time.
    pub allocated_bytes: u64,
    /// Nanoseconds that all threads together spent in instructions that compute, that is not in
    /// messages, DRAM, tokens and loops, if [`RunOptions::time_compute`] asks for it; else 0. The
    /// sanitizer does not measure it.
    pub compute_nanos: u64,
    /// Threads that worked.
    pub threads: usize,
}
