//! The fast executor: an interpreter of Kahn process networks.
//!
//! The cores of a program share nothing but messages, and every core's streams nothing but tokens, so
//! that the result does not depend on the order in which they run. The executor uses this freedom for
//! speed:
//!
//! - A core runs until all its streams wait (run to block). Then the core goes on that was fed last,
//!   because its operands are still in the host's cache.
//! - Memory is kept as slabs of the bytes that were touched, see `sram`. A message is a reference to
//!   the sender's block; the receiver binds its slot to it, and whoever writes a shared block gets a
//!   copy, or a fresh block if it overwrites all of it. The packed form of a block's content travels
//!   with it.
//! - Weights with the same content share a block, found by its hash, with its packed forms.
//! - Threads own consecutive cores and write to each other only through mailboxes.
//! - What cores share, the code of segments and the steps of roles, exists once; a core that does
//!   nothing takes some sixty bytes.
//!
//! A stream that fails stops; everything else goes on as far as it can, so that also the error of a
//! failing run is the same for all schedules: that of the first core in order of chip, row and
//! column. Only the limits of a run and cancelling stop all cores at once.

mod bind;
mod block;
mod channel;
mod core;
mod cores;
mod decode;
mod dram;
mod fault;
mod intervals;
mod memory;
mod report;
mod rows;
mod shared;
mod sram;
mod stream;
mod team;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind};
use dojoc_ir::machine::{CoreAddress, Machine};
use dojoc_ir::program::{DramId, EntryId, Program};

use self::block::{Account, Pool, Store};
use self::channel::Senders;
use self::core::Core;
use self::cores::{CoreMap, Roles};
use self::decode::Decoded;
use self::dram::Dram;
use self::fault::{Fault, unverified};
use self::intervals::Intervals;
use self::shared::Shared;
use self::sram::{Piece, Sram};
use self::worker::{Kit, Worker};
use crate::codes;
use crate::compute::Layout;
use crate::host::{Engine, Keep, Memory, ProbeSink, ReadMemory, core_name, scatter};
use crate::options::{RunOptions, Stats};

/// The senders of each family, under the run parameters they were computed with.
type AllSenders = Vec<OnceLock<Result<Senders, Fault>>>;

/// The fast executor. See the [module](self).
#[derive(Debug)]
pub struct Executor {
    program: Arc<Program>,
    map: CoreMap,
    segments: Vec<Decoded>,
    /// Number of operands whose layouts depend on the run.
    memos: u32,
    roles: HashMap<EntryId, Roles>,
    senders: AllSenders,
    sender_dims: Vec<i64>,
    cores: Vec<Core>,
    /// Run parameters and workers for which the ports of cores are open.
    ports_for: (Vec<i64>, usize),
    dram: Dram,
    sram_bytes: u32,
    account: Arc<Account>,
    store: Store,
    kits: Vec<Kit>,
    /// Cores per worker in the last run: their blocks come from its pool and go back to it.
    share: usize,
    /// Kept bytes of cores as they were when the run began.
    saved: Vec<(u32, Sram)>,
    limit: u64,
}

impl Executor {
    /// An executor of a verified program. Tensors that are written before the first run may take
    /// `max_bytes`.
    ///
    /// # Errors
    /// A program that the verifier refuses, as far as that shows when it is decoded.
    pub fn new(
        program: Arc<Program>,
        machine: &Machine,
        max_bytes: u64,
    ) -> Result<Self, Diagnostics> {
        let fail = |fault: Fault| Diagnostics::from(fault.diagnostic());
        let map = CoreMap::new(&program).map_err(fail)?;
        // Addresses are kept in 32 bits, with room for a sum of two.
        let sram_bytes = machine.core_sram_bytes().min(1 << 30) as u32;
        let mut memos = 0;
        let mut segments = Vec::new();
        for segment in program.segments.values() {
            let decoded = decode::decode(&program, segment, u64::from(sram_bytes), &mut memos);
            segments.push(decoded.map_err(|(stream, statement, fault)| {
                report::undecodable(&segment.name, stream, statement, &fault)
            })?);
        }
        let account = Arc::<Account>::default();
        account.begin(max_bytes);
        let mut cores = Vec::new();
        cores.resize_with(map.len(), Core::default);
        Ok(Self {
            senders: program.families.ids().map(|_| OnceLock::new()).collect(),
            sender_dims: Vec::new(),
            dram: Dram::new(&program, &account),
            kits: vec![Kit::new(Pool::new(&account))],
            share: map.len().max(1),
            program,
            map,
            segments,
            memos,
            roles: HashMap::new(),
            cores,
            ports_for: (Vec::new(), 0),
            sram_bytes,
            account,
            store: Store::default(),
            saved: Vec::new(),
            limit: max_bytes,
        })
    }

    fn check_limit(&self) -> Result<(), Diagnostic> {
        if !self.account.exceeded() {
            return Ok(());
        }
        let message = format!("the tensors need more than {} bytes of memory", self.limit);
        Err(Diagnostic::new(codes::MEMORY_LIMIT, Kind::Limit, message))
    }

    fn number(&self, core: CoreAddress) -> Result<u32, Diagnostic> {
        let number = self.map.number(core);
        number.ok_or_else(|| unverified(&format!("no region has {}", core_name(core))).diagnostic())
    }

    /// Runs all workers, gives their statistics and the error of the run.
    fn work(
        &mut self,
        entry: EntryId,
        (dims, options): (&[i64], &RunOptions),
        probes: Option<&dyn ProbeSink>,
    ) -> Result<Stats, Diagnostics> {
        let Some(schedule) = self.program.entries.get(entry) else {
            let message = "the program has no such entry";
            return Err(Diagnostic::input(codes::UNKNOWN_ENTRY, message).into());
        };
        if !self.roles.contains_key(&entry) {
            let roles = Roles::new(&self.program, &self.map, schedule);
            let roles = roles.map_err(|fault| fault.diagnostic())?;
            self.roles.insert(entry, roles);
        }
        if self.sender_dims != dims {
            self.senders = self
                .program
                .families
                .ids()
                .map(|_| OnceLock::new())
                .collect();
            self.sender_dims = dims.to_vec();
        }
        let shared = OnceLock::new();
        let wanted = team::size(options.threads, self.map.len());
        let team = team::run(wanted, |workers| {
            // Who is at the other end of a port depends on these, and nothing else of an open port lasts.
            let ports_for = (dims.to_vec(), workers);
            if self.ports_for != ports_for {
                self.cores.iter_mut().for_each(|core| core.ports = None);
                self.ports_for = ports_for;
            }
            while self.kits.len() < workers {
                self.kits.push(Kit::new(Pool::new(&self.account)));
            }
            let shared: &Shared<'_> = shared.get_or_init(|| {
                Shared::new(
                    &self.program,
                    schedule,
                    (&self.map, &self.roles[&entry]),
                    &self.segments,
                    &self.senders,
                    (&self.dram, self.sram_bytes),
                    (dims, options),
                    probes,
                    workers,
                )
            });
            self.share = shared.share;
            let mut rest = self.cores.as_mut_slice();
            let mut first = 0;
            let mut team = Vec::new();
            for (me, kit) in self.kits.iter_mut().take(workers).enumerate() {
                let (cores, others) = rest.split_at_mut(shared.share.min(rest.len()));
                rest = others;
                let count = cores.len() as u32;
                team.push(Worker::new(shared, me, (first, cores), kit, self.memos));
                first += count;
            }
            team
        });
        let mut stats = Stats {
            threads: team.len(),
            ..Stats::default()
        };
        let mut failures = Vec::new();
        for worker in team {
            stats.instructions += worker.stats.instructions;
            stats.calls += worker.stats.calls;
            stats.messages += worker.stats.messages;
            stats.message_bytes += worker.stats.message_bytes;
            stats.flops += worker.stats.flops;
            stats.dram_bytes += worker.stats.dram_bytes;
            stats.compute_nanos += worker.stats.compute_nanos;
            failures.extend(worker.failures);
            self.account.remove(worker.held);
        }
        stats.allocated_bytes = self.account.most();
        let error = shared.get().and_then(|shared| {
            let failed = || report::first_failure(shared, &failures);
            let stuck = || report::deadlock(shared, &self.cores);
            shared.stop_reason().or_else(failed).or_else(stuck)
        });
        error.map_or(Ok(stats), |error| Err(error.into()))
    }
}

impl ReadMemory for Executor {
    fn read(
        &self,
        core: CoreAddress,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic> {
        let number = self.number(core)?;
        let sram = &self.cores[number as usize].sram;
        memory::read_sram(sram, self.sram_bytes, at, layout, out)
    }

    fn read_dram(
        &self,
        dram: DramId,
        instance: u64,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic> {
        memory::read_dram(&self.dram, (dram, instance), at, layout, out)
    }
}

impl Memory for Executor {
    fn write(
        &mut self,
        core: CoreAddress,
        at: u64,
        layout: &Layout,
        data: &Bytes,
        keep: Keep,
    ) -> Result<(), Diagnostic> {
        let number = self.number(core)? as usize;
        let (start, len) = memory::sram_interval(self.sram_bytes, at, layout)?;
        if len == 0 {
            return Ok(());
        }
        let core = &mut self.cores[number];
        let pool = &mut self.kits[number / self.share].pool;
        let size = layout.view.dtype.bytes() as usize;
        if layout.elements * size == len as usize {
            // No gaps: what other cores have been given already is shared.
            let mut image = Vec::new();
            let content: &[u8] = if layout.dense {
                data
            } else {
                image.resize(len as usize, 0);
                scatter(layout, data, &mut image);
                &image
            };
            let phase = start % sram::PHASE;
            let block = self.store.share(content, phase, || {
                let (mut block, at) = Sram::fresh(start, len, pool);
                if let Some(block) = Arc::get_mut(&mut block) {
                    block.bytes_mut()[at as usize..][..content.len()].copy_from_slice(content);
                }
                block
            });
            let piece = Piece {
                block,
                at: phase,
                len,
            };
            core.sram.replace(start, piece, pool);
        } else {
            let image = core.sram.write((start, len), (start, len), pool);
            scatter(layout, data, image);
        }
        if keep != Keep::Run {
            let kept = core.keep.get_or_insert_with(Box::<Intervals>::default);
            kept.insert(u64::from(start), u64::from(len));
        }
        self.check_limit()
    }

    fn write_dram(
        &mut self,
        dram: DramId,
        instance: u64,
        at: u64,
        layout: &Layout,
        data: &Bytes,
        keep: Keep,
    ) -> Result<(), Diagnostic> {
        let start = memory::dram_start(at, layout)?;
        let interval = (start, layout.span as u64);
        {
            let bank = self.dram.bank(dram, instance, interval);
            let mut bank = bank.map_err(|fault| fault.diagnostic())?;
            if layout.dense {
                bank.write(start, data, &self.account);
            } else {
                let mut image = vec![0; layout.span];
                bank.read(start, &mut image);
                scatter(layout, data, &mut image);
                bank.write(start, &image, &self.account);
            }
            if keep != Keep::Run {
                bank.keep(start, layout.span as u64);
            }
        }
        self.check_limit()
    }
}

impl Engine for Executor {
    fn begin(&mut self, options: &RunOptions) {
        self.limit = options.max_bytes;
        self.account.begin(options.max_bytes);
        self.dram.begin();
        let kept = |(number, core): (usize, &Core)| {
            let keep = core.keep.as_ref()?;
            Some((number as u32, core.sram.snapshot(keep)))
        };
        self.saved = self.cores.iter().enumerate().filter_map(kept).collect();
    }

    fn run(
        &mut self,
        entry: EntryId,
        dims: &[i64],
        options: &RunOptions,
        probes: Option<&dyn ProbeSink>,
    ) -> Result<Stats, Diagnostics> {
        let result = self.work(entry, (dims, options), probes);
        for (number, core) in self.cores.iter_mut().enumerate() {
            let pool = &mut self.kits[number / self.share].pool;
            core.active = None;
            core.ready = 0;
            core.queued = false;
            core.done = false;
            let ports = core.ports.as_deref_mut();
            ports.into_iter().for_each(|ports| ports.reset(pool));
        }
        result
    }

    fn end(&mut self, keep: bool) {
        let saved = std::mem::take(&mut self.saved);
        let nothing = Intervals::default();
        for (number, core) in self.cores.iter_mut().enumerate() {
            let pool = &mut self.kits[number / self.share].pool;
            match &core.keep {
                Some(intervals) if keep => core.sram.retain(intervals, pool),
                _ => core.sram.retain(&nothing, pool),
            }
        }
        for (number, mut sram) in saved {
            let number = number as usize;
            let pool = &mut self.kits[number / self.share].pool;
            let core = &mut self.cores[number];
            if !keep {
                std::mem::swap(&mut core.sram, &mut sram);
            }
            sram.clear(pool);
        }
        self.dram.end(keep);
    }
}
