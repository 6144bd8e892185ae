//! One run: cores with their schedules and streams, and the choice of who goes next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use dojoc_ir::codes::{BAD_SCHEDULE, CANCELLED, CHANNEL_BALANCE, SLOT_REUSED, TOKEN_BALANCE};
use dojoc_ir::diag::{Diagnostic, Kind};
use dojoc_ir::formats::random_bits;
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{EntryId, Env, IndexEnv, Program, SegmentId, Step};

use super::channel::{Channels, EndId, Here};
use super::dram::Instances;
use super::report::{fault, note};
use super::shadow::{Clock, Mark, STREAMS};
use super::{Image, Where, deadlock, read_defined};
use crate::codes::STEP_LIMIT;
use crate::compute::{Layout, Scratch};
use crate::host::{ProbeSink, ReadMemory, Statement, core_name};
use crate::kernels::{self, Kernels};
use crate::options::{RunOptions, Stats};

/// What a stream waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Wait {
    /// A token of its core.
    Token(usize, usize),
    /// A message for a receiving end.
    Message(EndId),
    /// A slot at a receiving end.
    Slot(EndId),
    /// That readers release an instance.
    Readers(usize),
    /// The next epoch of an instance.
    Epoch(usize),
}

/// A stream of a core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamRef {
    /// Position of the core.
    pub core: usize,
    /// Position of the stream.
    pub stream: usize,
}

/// A loop that a stream is in.
#[derive(Clone, Copy, Debug)]
pub struct LoopState {
    /// First statement of the body.
    pub start: usize,
    /// The one behind the body.
    pub end: usize,
    /// Iterations that follow this one.
    pub left: i64,
}

/// A stream during a call.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// Position of the next statement.
    pub at: usize,
    /// Loops around it, outermost first.
    pub loops: Vec<LoopState>,
    /// Their counters.
    pub counters: Vec<i64>,
    /// What it knows of the streams.
    pub clock: Clock,
    /// The receiving half of the `relay` at `at` is done.
    pub relaying: bool,
    /// What it waits for.
    pub waits: Option<Wait>,
    /// It has ended.
    pub ended: bool,
}

/// A token during a call.
#[derive(Clone, Debug, Default)]
pub struct Token {
    /// Clocks of signals that no wait has taken.
    pub pending: VecDeque<Clock>,
    /// The last signal.
    pub signal: Option<Mark>,
    /// The last wait.
    pub wait: Option<Mark>,
}

/// A call on a core.
#[derive(Clone, Debug)]
pub struct Call {
    /// The segment.
    pub segment: SegmentId,
    /// Its parameter row.
    pub row: Vec<i64>,
    /// Uniform registers that have a value.
    pub registers: Vec<Option<i64>>,
    /// Its streams.
    pub threads: Vec<Thread>,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Slots that are posted and not received: receiving end and the `post`.
    pub slots: Vec<(EndId, Mark)>,
}

/// A core during a run.
#[derive(Clone, Debug)]
pub struct Core {
    /// Where it is.
    pub address: CoreAddress,
    /// Position in the schedule.
    pub step: usize,
    /// Repeats around it: first step, the one behind, iterations that follow.
    repeats: Vec<LoopState>,
    /// Their counters.
    counters: Vec<i64>,
    /// The call that runs.
    pub call: Option<Call>,
    /// Calls so far.
    pub calls: u32,
}

/// A run.
pub struct Run<'a> {
    /// The program.
    pub program: &'a Program,
    /// Bytes of a core's SRAM.
    pub sram_bytes: u64,
    /// Memory.
    pub image: &'a mut Image,
    /// Limit of it.
    pub max_bytes: u64,
    /// The schedule.
    entry: EntryId,
    /// Run parameters.
    pub dims: &'a [i64],
    /// What was asked for.
    pub options: &'a RunOptions,
    probes: Option<&'a dyn ProbeSink>,
    /// Cores that take part.
    pub cores: Vec<Core>,
    /// Their positions.
    pub positions: HashMap<CoreAddress, usize>,
    /// Channels.
    pub channels: Channels,
    /// DRAM instances.
    pub instances: Instances,
    ready: Vec<StreamRef>,
    waiting: BTreeMap<Wait, Vec<StreamRef>>,
    /// What was done.
    pub stats: Stats,
    steps: u64,
    draws: u64,
    /// Arithmetic.
    pub kernels: &'static dyn Kernels,
    /// Memory of kernels.
    pub scratch: Scratch,
}

/// Seed and step of random bits.
impl Run<'_> {
    /// Seed of the run.
    pub fn seed(&self) -> (u64, u64) {
        (self.options.seed, self.options.step)
    }
}

/// Runs an entry.
///
/// # Errors
/// The first rule that is broken, deadlock, or a limit.
pub fn run(
    program: &Program,
    sram_bytes: u64,
    image: &mut Image,
    entry: EntryId,
    dims: &[i64],
    options: &RunOptions,
    probes: Option<&dyn ProbeSink>,
) -> Result<Stats, Diagnostic> {
    let mut members = BTreeSet::new();
    for step in &program.entries[entry].steps {
        if let Step::Call { on, .. } = step {
            members.extend(program.regions[*on].cores());
        }
    }
    let cores: Vec<Core> = members.into_iter().map(Core::new).collect();
    let positions = cores.iter().enumerate().map(|(i, core)| (core.address, i));
    let mut run = Run {
        program,
        sram_bytes,
        max_bytes: options.max_bytes,
        entry,
        dims,
        options,
        probes,
        positions: positions.collect(),
        channels: Channels::default(),
        instances: Instances::default(),
        ready: Vec::new(),
        waiting: BTreeMap::new(),
        stats: Stats::default(),
        steps: 0,
        draws: 0,
        kernels: kernels::by_name("scalar").unwrap_or(options.kernels),
        scratch: Scratch::default(),
        image,
        cores,
    };
    // Who is ready last goes first.
    for core in (0..run.cores.len()).rev() {
        run.advance(core)?;
    }
    run.schedule()?;
    run.instances.check_ended(program)?;
    run.stats.allocated_bytes = run.image.allocated;
    run.stats.threads = 1;
    Ok(run.stats)
}

impl Core {
    fn new(address: CoreAddress) -> Self {
        Self {
            address,
            step: 0,
            repeats: Vec::new(),
            counters: Vec::new(),
            call: None,
            calls: 0,
        }
    }

    /// Whether its schedule has ended.
    pub fn ended(&self) -> bool {
        self.call.is_none()
    }
}

/// Memory of a core as a probe sees it.
pub struct View<'a> {
    /// The program.
    pub program: &'a Program,
    /// All memories.
    pub image: &'a Image,
    /// Whether bytes without meaning are zeros, instead of errors.
    pub lenient: bool,
}

impl ReadMemory for View<'_> {
    fn read(
        &self,
        core: CoreAddress,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic> {
        let place = Where::Sram(core);
        if self.lenient {
            if let Some(memory) = self.image.get(place) {
                memory.meant(at, layout, out);
            }
            return Ok(());
        }
        read_defined(self.program, self.image, place, at, layout, out)
    }

    fn read_dram(
        &self,
        dram: dojoc_ir::program::DramId,
        instance: u64,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic> {
        let place = Where::Dram(dram, instance);
        read_defined(self.program, self.image, place, at, layout, out)
    }
}

impl Run<'_> {
    /// Runs streams until all have ended.
    fn schedule(&mut self) -> Result<(), Diagnostic> {
        while !self.ready.is_empty() {
            let at = match self.options.shuffle {
                None => self.ready.len() - 1,
                Some(seed) => {
                    self.draws += 1;
                    let draw = u64::from(random_bits(seed, 0, 0, self.draws));
                    ((draw * self.ready.len() as u64) >> 32) as usize
                }
            };
            let stream = self.ready.swap_remove(at);
            self.go(stream)?;
        }
        if self.cores.iter().any(|core| !core.ended()) {
            return Err(deadlock::report(self));
        }
        Ok(())
    }

    /// Carries out statements of a stream until it waits or ends; one only in a random schedule.
    fn go(&mut self, stream: StreamRef) -> Result<(), Diagnostic> {
        loop {
            self.count_step()?;
            match self.step(stream)? {
                Progress::Ended => return self.end_stream(stream),
                Progress::Waits(wait) => {
                    self.thread(stream).waits = Some(wait);
                    self.waiting.entry(wait).or_default().push(stream);
                    return Ok(());
                }
                Progress::Done if self.options.shuffle.is_some() => {
                    self.ready.push(stream);
                    return Ok(());
                }
                Progress::Done => {}
            }
        }
    }

    /// Counts against the limit of steps, and looks whether the run is cancelled.
    pub fn count_step(&mut self) -> Result<(), Diagnostic> {
        self.steps += 1;
        if self.steps > self.options.max_steps {
            let limit = self.options.max_steps;
            let message = format!("the run took more than {limit} steps");
            return Err(Diagnostic::new(STEP_LIMIT, Kind::Limit, message));
        }
        let cancel = self.options.cancel.as_ref();
        if cancel.is_some_and(|c| c.load(std::sync::atomic::Ordering::Relaxed)) {
            return Err(Diagnostic::input(CANCELLED, "the run was cancelled"));
        }
        Ok(())
    }

    /// Everyone who waits for it may try again.
    pub fn wake(&mut self, wait: Wait) {
        for stream in self.waiting.remove(&wait).unwrap_or_default() {
            self.thread(stream).waits = None;
            self.ready.push(stream);
        }
    }

    /// The state of a stream that runs.
    ///
    /// # Panics
    /// When its core is between calls.
    pub fn thread(&mut self, stream: StreamRef) -> &mut Thread {
        let call = self.cores[stream.core].call.as_mut();
        &mut call.expect("a stream belongs to a call").threads[stream.stream]
    }

    /// The call of a core that runs.
    ///
    /// # Panics
    /// When its core is between calls.
    pub fn call(&self, core: usize) -> &Call {
        let call = self.cores[core].call.as_ref();
        call.expect("a stream belongs to a call")
    }

    /// As [`call`](Self::call).
    pub fn call_mut(&mut self, core: usize) -> &mut Call {
        let call = self.cores[core].call.as_mut();
        call.expect("a stream belongs to a call")
    }

    /// A stream has ended; with the last one its call ends.
    fn end_stream(&mut self, stream: StreamRef) -> Result<(), Diagnostic> {
        self.thread(stream).ended = true;
        if !self.call(stream.core).threads.iter().all(|t| t.ended) {
            return Ok(());
        }
        self.end_call(stream.core)?;
        self.advance(stream.core)
    }

    /// Checks what must hold at the end of a call, and lets go what it does not keep.
    fn end_call(&mut self, core: usize) -> Result<(), Diagnostic> {
        let address = self.cores[core].address;
        let number = self.cores[core].calls;
        let Some(call) = self.cores[core].call.take() else {
            return Ok(());
        };
        if let Some(sink) = self.followed(call.segment) {
            sink.end_call(call.segment, address);
        }
        let segment = &self.program.segments[call.segment];
        if let Some((_, post)) = call.slots.first() {
            let what = "the call ends before the slot is received";
            return Err(fault(self.program, address, post, CHANNEL_BALANCE, what));
        }
        for (token, name) in call.tokens.iter().zip(segment.tokens.values()) {
            if token.pending.is_empty() {
                continue;
            }
            let count = token.pending.len();
            let what =
                format!("the call ends with {count} signals of %{name} that none waited for");
            let Some(signal) = token.signal else { continue };
            let mut found = fault(self.program, address, &signal, TOKEN_BALANCE, &what);
            if let Some(wait) = &token.wait {
                found = found.note(note(self.program, address, wait, "the last wait:"));
            }
            return Err(found);
        }
        self.expire_buffers(address, number, &call)
    }

    /// Content of buffers that do not outlive their call is gone.
    fn expire_buffers(
        &mut self,
        address: CoreAddress,
        number: u32,
        call: &Call,
    ) -> Result<(), Diagnostic> {
        let segment = &self.program.segments[call.segment];
        let Some(memory) = self.image.cores.get_mut(&address) else {
            return Ok(());
        };
        let env = Env {
            params: &call.row,
            dims: self.dims,
            ..Default::default()
        };
        for (id, buffer) in segment.buffers.iter() {
            if buffer.role.live_out() {
                continue;
            }
            let start = buffer.at.eval(&env).and_then(|at| u64::try_from(at).ok());
            let range = start.and_then(|s| Some(s..s.checked_add(buffer.bytes())?));
            // Without a place it was not used, or that was reported.
            let Some(range) = range.filter(|r| r.end <= self.sram_bytes) else {
                continue;
            };
            let destroyed = memory.expire(range, number, call.segment, id);
            if let Some((byte, mark)) = destroyed {
                let what = format!(
                    "writes byte {byte}, which holds a state, through buffer %{}, whose role does \
                     not keep it",
                    buffer.name
                );
                let found = fault(self.program, address, &mark, SLOT_REUSED, &what);
                return Err(found.help("give the buffer the role \"out\" or \"inout\""));
            }
        }
        Ok(())
    }

    /// Goes on with the schedule of a core up to its next call, or its end.
    fn advance(&mut self, core: usize) -> Result<(), Diagnostic> {
        let steps = &self.program.entries[self.entry].steps;
        loop {
            self.count_step()?;
            let c = &mut self.cores[core];
            while let Some(top) = c.repeats.last_mut()
                && c.step == top.end
            {
                if top.left > 0 {
                    top.left -= 1;
                    c.step = top.start;
                    if let Some(counter) = c.counters.last_mut() {
                        *counter += 1;
                    }
                    break;
                }
                c.repeats.pop();
                c.counters.pop();
            }
            let Some(step) = steps.get(c.step) else {
                return Ok(());
            };
            c.step += 1;
            match step {
                Step::Repeat { count, len, .. } => {
                    let end = c.step.saturating_add(*len as usize);
                    if *count == 0 || *len == 0 {
                        c.step = end;
                        continue;
                    }
                    c.repeats.push(LoopState {
                        start: c.step,
                        end,
                        left: i64::try_from(count - 1).unwrap_or(i64::MAX),
                    });
                    c.counters.push(0);
                }
                Step::Probe(probe) => {
                    let Some(sink) = self.probes else { continue };
                    let address = c.address;
                    let view = View {
                        program: self.program,
                        image: self.image,
                        lenient: false,
                    };
                    let held = sink.capture(*probe, address, &view)?;
                    self.image.charge(held, self.max_bytes)?;
                }
                Step::Call {
                    segment, on, row, ..
                } => {
                    let Some(index) = self.program.regions[*on].position(c.address) else {
                        continue;
                    };
                    if self.start_call(core, *segment, index, row)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Starts a call; false if it has nothing to do.
    fn start_call(
        &mut self,
        core: usize,
        segment: SegmentId,
        index: u64,
        row: &[dojoc_ir::program::IndexExpr],
    ) -> Result<bool, Diagnostic> {
        let program = self.program;
        let c = &mut self.cores[core];
        let env = IndexEnv {
            index: index as i64,
            chip: c.address.chip.into(),
            row: c.address.row.into(),
            column: c.address.column.into(),
            repeats: &c.counters,
            dims: self.dims,
            ..IndexEnv::default()
        };
        let row: Option<Vec<i64>> = row.iter().map(|e| e.eval(&env, &program.tables)).collect();
        let code = &program.segments[segment];
        let Some(row) = row.filter(|row| row.len() == code.params.len()) else {
            let message = format!(
                "{}: the parameter row of a call of @{} cannot be computed",
                core_name(c.address),
                code.name
            );
            return Err(Diagnostic::input(BAD_SCHEDULE, message));
        };
        c.calls += 1;
        self.stats.calls += 1;
        let thread = |stream| {
            let mut clock = [0; STREAMS];
            clock[stream] = 1;
            Thread {
                clock,
                ..Thread::default()
            }
        };
        let streams = code.streams.len().min(STREAMS);
        c.call = Some(Call {
            segment,
            row,
            registers: vec![None; code.registers.len()],
            threads: (0..streams).map(thread).collect(),
            tokens: vec![Token::default(); code.tokens.len()],
            slots: Vec::new(),
        });
        if streams == 0 {
            self.end_call(core)?;
            return Ok(false);
        }
        self.show_begin(core, segment)?;
        for stream in (0..streams).rev() {
            self.ready.push(StreamRef { core, stream });
        }
        Ok(true)
    }
}

impl Run<'_> {
    /// The sink of probes, if it follows the calls of a segment.
    fn followed(&self, segment: SegmentId) -> Option<&dyn ProbeSink> {
        self.probes.filter(|sink| sink.follows(segment))
    }

    /// Shows the sink of probes that a call has begun.
    fn show_begin(&mut self, core: usize, segment: SegmentId) -> Result<(), Diagnostic> {
        let Some(sink) = self.followed(segment) else {
            return Ok(());
        };
        let env = Env {
            params: &self.call(core).row,
            dims: self.dims,
            ..Env::default()
        };
        let view = View {
            program: self.program,
            image: self.image,
            lenient: true,
        };
        let held = sink.begin_call(segment, self.cores[core].address, &env, &view)?;
        self.image.charge(held, self.max_bytes)
    }

    /// Shows the sink of probes what a statement did.
    ///
    /// # Errors
    /// What the sink returns, and the limit of memory.
    pub fn show(&mut self, here: &Here) -> Result<(), Diagnostic> {
        let Mark {
            segment,
            stream,
            inst: at,
            ..
        } = here.mark;
        let Some(sink) = self.followed(segment) else {
            return Ok(());
        };
        let statement = Statement {
            segment,
            stream: stream.into(),
            at,
        };
        let view = View {
            program: self.program,
            image: self.image,
            lenient: false,
        };
        let held = self.with_env(here, |env| sink.done(statement, here.core, env, &view))?;
        self.image.charge(held, self.max_bytes)
    }
}

/// What became of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It is done.
    Done,
    /// It must wait.
    Waits(Wait),
    /// There is none: the stream has ended.
    Ended,
}
