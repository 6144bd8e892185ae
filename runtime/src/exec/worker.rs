//! A worker: runs the cores of its share until nothing can go on.

use std::sync::Arc;

use dojoc_ir::entity::EntityId;
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{DramId, IndexEnv, SegmentId, Step};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::block::Pool;
use super::core::{Active, Core, Progress, Repeat, StreamState};
use super::cores::RoleStep;
use super::fault::{Fault, unverified};
use super::report::Failure;
use super::rows::Cell;
use super::shared::{Mail, Shared};
use super::stream::Stop;
use crate::compute::{Layout, Scratch};
use crate::host::ReadMemory;
use crate::options::Stats;

/// Statements between looks at what all workers share.
pub(super) const FUEL: u32 = 1024;

/// What a worker keeps from run to run.
#[derive(Debug)]
pub(super) struct Kit {
    pub pool: Pool,
    pub scratch: Scratch,
    /// Copies of operands.
    pub copies: [Vec<u64>; super::decode::MAX_OPERANDS],
    /// Copies of messages and of bytes of DRAM.
    pub bytes: Vec<u8>,
    /// Unused states of calls.
    #[expect(clippy::vec_box, reason = "they move between here and cores as boxes")]
    pub actives: Vec<Box<Active>>,
}

impl Kit {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            scratch: Scratch::default(),
            copies: Default::default(),
            bytes: Vec::new(),
            actives: Vec::new(),
        }
    }
}

/// The last layouts of an operand whose extents depend on the run, the last first.
#[derive(Clone, Debug, Default)]
pub(super) struct Memo {
    layouts: Vec<([i64; 5], Arc<Layout>)>,
}

impl Memo {
    /// Cores of a call mostly have one of a few extents.
    const MOST: usize = 4;

    pub(super) fn get(&mut self, extents: &[i64; 5]) -> Option<Arc<Layout>> {
        let at = self.layouts.iter().position(|(e, _)| e == extents)?;
        self.layouts[..=at].rotate_right(1);
        Some(self.layouts[0].1.clone())
    }

    pub(super) fn put(&mut self, extents: [i64; 5], layout: Arc<Layout>) {
        self.layouts.truncate(Self::MOST - 1);
        self.layouts.insert(0, (extents, layout));
    }
}

/// A worker.
pub(super) struct Worker<'a> {
    pub shared: &'a Shared<'a>,
    pub kit: &'a mut Kit,
    pub me: usize,
    /// Number of its first core.
    pub first: u32,
    pub cores: &'a mut [Core],
    /// Its cores that can go on; the last goes first.
    runnable: Vec<u32>,
    /// The next of its cores that has not begun.
    next: u32,
    outgoing: Vec<Vec<Mail>>,
    incoming: Vec<Mail>,
    pub memos: Vec<Memo>,
    /// By step of the entry, the row of a call, once it was needed.
    rows: Vec<Option<Vec<Cell<'a>>>>,
    pub fuel: u32,
    pub stats: Stats,
    /// Bytes that the sink of probes holds.
    pub held: u64,
    pub failures: Vec<Failure>,
    random: Option<Pcg64>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        shared: &'a Shared<'a>,
        me: usize,
        (first, cores): (u32, &'a mut [Core]),
        kit: &'a mut Kit,
        memos: u32,
    ) -> Self {
        let seed = |seed: u64| Pcg64::seed_from_u64(seed.wrapping_add(me as u64));
        Self {
            shared,
            kit,
            me,
            first,
            next: first,
            runnable: Vec::new(),
            outgoing: (0..shared.workers()).map(|_| Vec::new()).collect(),
            incoming: Vec::new(),
            rows: vec![None; shared.entry.steps.len()],
            memos: vec![Memo::default(); memos as usize],
            fuel: FUEL,
            stats: Stats::default(),
            held: 0,
            failures: Vec::new(),
            random: shared.options.shuffle.map(seed),
            cores,
        }
    }

    /// Runs until no core of any worker can go on.
    pub(super) fn run(&mut self) {
        if self.random.is_some() {
            let end = self.first + self.cores.len() as u32;
            for core in std::mem::replace(&mut self.next, end)..end {
                self.enqueue(core);
            }
        }
        loop {
            if self.shared.stopped() {
                break;
            }
            self.deliver_mail();
            if let Some(core) = self.pick() {
                self.run_core(core);
                self.flush();
            } else if !self.shared.wait(self.me) {
                break;
            }
        }
        self.shared.count(u64::from(FUEL - self.fuel));
    }

    fn pick(&mut self) -> Option<u32> {
        if let Some(random) = &mut self.random
            && !self.runnable.is_empty()
        {
            let at = random.random_range(0..self.runnable.len());
            return Some(self.runnable.swap_remove(at));
        }
        if let Some(core) = self.runnable.pop() {
            return Some(core);
        }
        let end = self.first + self.cores.len() as u32;
        if self.next < end {
            self.next += 1;
            let core = self.next - 1;
            self.core(core).queued = true;
            return Some(core);
        }
        None
    }

    /// How many statements a stream may run at a time in a random schedule.
    pub(super) fn quantum(&mut self) -> u32 {
        self.random
            .as_mut()
            .map_or(u32::MAX, |random| random.random_range(1..=8))
    }

    /// The state of one of its cores.
    pub(super) fn core(&mut self, number: u32) -> &mut Core {
        &mut self.cores[(number - self.first) as usize]
    }

    /// The worker of a core.
    pub(super) fn owner(&self, core: u32) -> usize {
        core as usize / self.shared.share
    }

    pub(super) fn mail(&mut self, to: u32, mail: Mail) {
        let owner = self.owner(to);
        self.outgoing[owner].push(mail);
    }

    fn flush(&mut self) {
        for (worker, mail) in self.outgoing.iter_mut().enumerate() {
            if !mail.is_empty() {
                self.shared.send(worker, mail);
            }
        }
    }

    fn deliver_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.incoming);
        self.shared.receive(self.me, &mut mail);
        for mail in mail.drain(..) {
            match mail {
                Mail::Message {
                    to,
                    family,
                    port,
                    piece,
                } => {
                    self.deliver(to, (family, port), None, piece);
                }
                Mail::Credit {
                    to,
                    family,
                    port,
                    from,
                } => {
                    if let Err(fault) = self.credit(to, (family, port), None, from) {
                        self.fail(to, &Active::default(), None, fault);
                    }
                }
                Mail::Wake { to, streams } => self.wake(to, streams),
            }
        }
        self.incoming = mail;
    }

    fn enqueue(&mut self, core: u32) {
        let state = self.core(core);
        if !std::mem::replace(&mut state.queued, true) {
            self.runnable.push(core);
        }
    }

    /// Lets streams of one of its cores go on.
    pub(super) fn wake(&mut self, core: u32, streams: u8) {
        if streams != 0 {
            self.core(core).ready |= streams;
            self.enqueue(core);
        }
    }

    /// Notes a fault of a stream.
    pub(super) fn fail(
        &mut self,
        core: u32,
        active: &Active,
        at: Option<(u32, u32)>,
        fault: Fault,
    ) {
        self.failures.push(Failure {
            core,
            step: active.in_call.then_some(active.step),
            at: at.map(|(stream, place)| (active.segment, stream, place)),
            fault,
        });
    }

    fn run_core(&mut self, number: u32) {
        let mut active = match self.core(number).active.take() {
            Some(active) => active,
            None => {
                let mut active = self.kit.actives.pop().unwrap_or_default();
                active.clear();
                active
            }
        };
        loop {
            if active.in_call {
                if self.run_streams(number, &mut active) {
                    self.end_call(number, &mut active);
                    continue;
                }
            } else {
                match self.next_step(number, &mut active) {
                    Ok(true) => continue,
                    Ok(false) => {
                        let core = self.core(number);
                        core.done = true;
                        core.queued = false;
                        self.kit.actives.push(active);
                        return;
                    }
                    Err(fault) => {
                        // A core that cannot begin a call does nothing more.
                        self.fail(number, &active, None, fault);
                        active.in_call = true;
                        active.streams = [StreamState::default(); 4];
                        active.streams[0].progress = Progress::Failed;
                        self.core(number).ready = 0;
                    }
                }
            }
            let core = self.core(number);
            core.active = Some(active);
            core.queued = false;
            if core.ready != 0 {
                self.enqueue(number);
            }
            return;
        }
    }

    /// Runs the streams of a call as far as they can go. Says whether the call has ended.
    fn run_streams(&mut self, number: u32, active: &mut Active) -> bool {
        loop {
            let ready = self.core(number).ready;
            if ready == 0 || self.shared.stopped() {
                break;
            }
            let mut stream = ready.trailing_zeros();
            if let Some(random) = &mut self.random {
                let skip = random.random_range(0..ready.count_ones());
                let rest = (0..skip).fold(ready, |ready, _| ready & (ready - 1));
                stream = rest.trailing_zeros();
            }
            self.core(number).ready &= !(1 << stream);
            match self.run_stream(number, active, stream as usize) {
                Stop::Ended => active.streams[stream as usize].progress = Progress::Ended,
                Stop::Blocked => {}
                Stop::Yielded => {
                    self.core(number).ready |= 1 << stream;
                    let leave = self.random.as_mut().is_some_and(|r| r.random());
                    if leave {
                        break;
                    }
                }
                Stop::Failed(fault) => {
                    let state = &mut active.streams[stream as usize];
                    state.progress = Progress::Failed;
                    let code = &self.shared.segments[active.segment as usize].streams;
                    let place = code[stream as usize].places[state.pc as usize];
                    self.fail(number, active, Some((stream, place)), fault);
                }
            }
        }
        active
            .streams
            .iter()
            .all(|stream| stream.progress == Progress::Ended)
    }

    /// Takes the next step of a core's schedule. Says whether there was one.
    fn next_step(&mut self, number: u32, active: &mut Active) -> Result<bool, Fault> {
        let shared = self.shared;
        let steps = &shared.roles.steps[shared.roles.of[number as usize] as usize];
        loop {
            while let Some(repeat) = active.repeats.last()
                && active.next == repeat.body.1
                && let Some(counter) = active.counters.last_mut()
            {
                *counter += 1;
                if *counter as u64 == repeat.count {
                    active.repeats.pop();
                    active.counters.pop();
                } else {
                    active.next = repeat.body.0;
                }
            }
            let Some(step) = steps.get(active.next as usize) else {
                return Ok(false);
            };
            active.next += 1;
            match *step {
                RoleStep::Repeat { count, end } => {
                    active.repeats.push(Repeat {
                        body: (active.next, end),
                        count,
                    });
                    active.counters.push(0);
                }
                RoleStep::Call(step) => {
                    self.begin_call(number, active, step)?;
                    return Ok(true);
                }
                RoleStep::Probe(step) => {
                    if let (Some(sink), Some(Step::Probe(tensor))) =
                        (shared.probes, shared.entry.steps.get(step as usize))
                    {
                        let view = View::new(self, number);
                        let core = shared.map.address(number);
                        let held = sink.capture(*tensor, core, &view)?;
                        self.charge(held);
                    }
                    self.burn();
                }
            }
        }
    }

    /// Counts bytes that a sink of probes holds until the run has ended.
    pub(super) fn charge(&mut self, bytes: u64) {
        if bytes > 0 {
            self.held += bytes;
            self.shared.account.add(bytes);
            self.kit.pool.over = self.shared.account.exceeded();
        }
    }

    /// Counts a statement that is not one of a stream.
    fn burn(&mut self) {
        if self.fuel == 0 {
            self.refuel();
        }
        self.fuel -= 1;
    }

    /// Tells the others how many statements were carried out. Says whether the run must stop.
    pub(super) fn refuel(&mut self) -> bool {
        let burnt = FUEL - self.fuel;
        self.fuel = FUEL;
        self.shared.count(u64::from(burnt))
    }

    fn begin_call(&mut self, number: u32, active: &mut Active, step: u32) -> Result<(), Fault> {
        let shared = self.shared;
        self.burn();
        active.step = step;
        let Some(Step::Call {
            segment: id,
            on,
            row,
            ..
        }) = shared.entry.steps.get(step as usize)
        else {
            return Err(unverified("a schedule is malformed"));
        };
        let at = id.index();
        let segment = shared.segments.get(at);
        let segment = segment.ok_or_else(|| unverified("a call names no segment"))?;
        active.segment = at as u32;
        active.frames.clear();
        active
            .frames
            .resize(segment.frame * segment.streams.len(), 0);
        if row.len() != segment.params {
            return Err(unverified("a call has another row than its segment takes"));
        }
        if !active.frames.is_empty() {
            let core = shared.map.address(number);
            let index = shared.map.index(shared.program, *on, number);
            let env = IndexEnv {
                index: index.map_or(0, |index| index as i64),
                chip: i64::from(core.chip),
                row: i64::from(core.row),
                column: i64::from(core.column),
                port: 0,
                branch: 0,
                repeats: &active.counters,
                dims: shared.dims,
            };
            let (first, others) = active.frames.split_at_mut(segment.frame);
            let tables = &shared.program.tables;
            let cells = self.rows[step as usize]
                .get_or_insert_with(|| row.iter().map(|expr| Cell::new(expr, tables)).collect());
            for (slot, cell) in first.iter_mut().zip(cells) {
                let value = cell.eval(&env, tables);
                *slot = value.ok_or_else(|| unverified("a row cannot be computed"))?;
            }
            first[row.len()..][..shared.dims.len()].copy_from_slice(shared.dims);
            for frame in others.chunks_exact_mut(segment.frame) {
                frame.copy_from_slice(first);
            }
        }
        active.buffers.clear();
        for buffer in &segment.buffers {
            let frame = active.frames.get(..segment.frame).unwrap_or(&[]);
            let at = buffer.at.eval(frame)?;
            let end = at.checked_add(i64::from(buffer.bytes));
            let inside = end.is_some_and(|end| at >= 0 && end <= i64::from(shared.sram_bytes));
            if !inside {
                return Err(unverified("a buffer leaves the SRAM"));
            }
            active.buffers.push((at as u32, buffer.bytes));
        }
        active.tokens.clear();
        active.tokens.resize(segment.tokens, (0, 0));
        active.streams = [StreamState::default(); 4];
        for state in &mut active.streams[..segment.streams.len()] {
            state.progress = Progress::Running;
        }
        if let Some(sink) = shared.followed(active.segment)
            && !active.frames.is_empty()
        {
            let env = segment.env(&active.frames[..segment.frame], shared.dims.len());
            let core = shared.map.address(number);
            let held = sink.begin_call(*id, core, &env, &View::new(self, number))?;
            self.charge(held);
        }
        active.in_call = true;
        self.core(number).ready = ((1u16 << segment.streams.len()) - 1) as u8;
        self.stats.calls += 1;
        Ok(())
    }

    fn end_call(&mut self, number: u32, active: &mut Active) {
        active.in_call = false;
        if let Some(sink) = self.shared.followed(active.segment) {
            let segment = SegmentId::from_index(active.segment as usize);
            sink.end_call(segment, self.shared.map.address(number));
        }
        let segment = &self.shared.segments[active.segment as usize];
        let core = &mut self.cores[(number - self.first) as usize];
        let interval = |at: usize| {
            let (start, len) = active.buffers[at];
            (start, start + len)
        };
        for (at, buffer) in segment.buffers.iter().enumerate() {
            let (start, end) = interval(at);
            // What another buffer leaves there stays.
            let overlaps = |other: usize| {
                let (low, high) = interval(other);
                segment.buffers[other].live_out && low < end && start < high
            };
            if buffer.scratch && start < end && !(0..segment.buffers.len()).any(overlaps) {
                core.sram.cut(start, end - start, &mut self.kit.pool);
            }
        }
    }
}

/// What the sink of a probe sees: the SRAM of a core and its own DRAM instances.
pub(super) struct View<'a, 'w> {
    worker: &'a Worker<'w>,
    number: u32,
}

impl<'a, 'w> View<'a, 'w> {
    /// Of one of a worker's cores.
    pub(super) fn new(worker: &'a Worker<'w>, number: u32) -> Self {
        Self { worker, number }
    }
}

impl ReadMemory for View<'_, '_> {
    fn read(
        &self,
        core: CoreAddress,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), dojoc_ir::diag::Diagnostic> {
        let shared = self.worker.shared;
        if shared.map.number(core) != Some(self.number) {
            return Err(unverified("a probe reads another core").diagnostic());
        }
        let state = &self.worker.cores[(self.number - self.worker.first) as usize];
        super::memory::read_sram(&state.sram, shared.sram_bytes, at, layout, out)
    }

    fn read_dram(
        &self,
        dram: DramId,
        instance: u64,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), dojoc_ir::diag::Diagnostic> {
        super::memory::read_dram(self.worker.shared.dram, (dram, instance), at, layout, out)
    }
}
