//! What the workers of a run share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use dojoc_ir::diag::Diagnostic;
use dojoc_ir::entity::EntityId;
use dojoc_ir::program::{Entry, FamilyId, Program, SegmentId};

use super::block::Account;
use super::channel::Senders;
use super::cores::{CoreMap, Roles};
use super::decode::Decoded;
use super::dram::Dram;
use super::fault::{Fault, unverified};
use super::sram::Piece;
use crate::codes;
use crate::host::ProbeSink;
use crate::options::RunOptions;

/// What one worker tells another.
#[derive(Debug)]
pub(super) enum Mail {
    /// A message for a core's port of a family.
    Message {
        to: u32,
        family: FamilyId,
        port: u32,
        piece: Piece,
    },
    /// A slot of `from` for a message of a core's port of a family.
    Credit {
        to: u32,
        family: FamilyId,
        port: u32,
        from: u32,
    },
    /// Streams of a core may go on.
    Wake { to: u32, streams: u8 },
}

#[derive(Debug, Default)]
struct Mailbox {
    mail: Mutex<Vec<Mail>>,
    /// Whether there is mail, to be asked without the lock.
    filled: AtomicBool,
}

/// Who has nothing to do.
#[derive(Debug, Default)]
struct Idle {
    workers: usize,
    /// All had nothing to do at once, so that nobody will ever have.
    over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the workers of a run share.
pub(super) struct Shared<'a> {
    pub program: &'a Program,
    pub entry: &'a Entry,
    pub map: &'a CoreMap,
    pub roles: &'a Roles,
    pub segments: &'a [Decoded],
    pub senders: &'a [OnceLock<Result<Senders, Fault>>],
    pub dram: &'a Dram,
    pub dims: &'a [i64],
    pub options: &'a RunOptions,
    pub probes: Option<&'a dyn ProbeSink>,
    pub account: &'a Arc<Account>,
    pub sram_bytes: u32,
    /// Cores of a worker; they are consecutive.
    pub share: usize,
    mailboxes: Vec<Mailbox>,
    idle: Mutex<Idle>,
    wake: Condvar,
    steps: AtomicU64,
    stop: AtomicBool,
}

impl<'a> Shared<'a> {
    #[expect(clippy::too_many_arguments, reason = "the parts of an executor, once")]
    pub(super) fn new(
        program: &'a Program,
        entry: &'a Entry,
        (map, roles): (&'a CoreMap, &'a Roles),
        segments: &'a [Decoded],
        senders: &'a [OnceLock<Result<Senders, Fault>>],
        (dram, sram_bytes): (&'a Dram, u32),
        (dims, options): (&'a [i64], &'a RunOptions),
        probes: Option<&'a dyn ProbeSink>,
        workers: usize,
    ) -> Self {
        Self {
            program,
            entry,
            map,
            roles,
            segments,
            senders,
            dram,
            dims,
            options,
            probes,
            account: &dram.account,
            sram_bytes,
            share: map.len().div_ceil(workers).max(1),
            mailboxes: (0..workers).map(|_| Mailbox::default()).collect(),
            idle: Mutex::default(),
            wake: Condvar::new(),
            steps: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// The sink of probes, if it follows the calls of a segment.
    pub(super) fn followed(&self, segment: u32) -> Option<&'a dyn ProbeSink> {
        let segment = SegmentId::from_index(segment as usize);
        self.probes.filter(|sink| sink.follows(segment))
    }

    pub(super) fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    /// Counts statements. Says whether the run must stop.
    pub(super) fn count(&self, steps: u64) -> bool {
        let before = self.steps.fetch_add(steps, Ordering::Relaxed);
        let cancelled = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        if before.saturating_add(steps) > self.options.max_steps
            || self.account.exceeded()
            || self.options.cancel.as_ref().is_some_and(cancelled)
        {
            self.halt();
        }
        self.stopped()
    }

    /// Lets all workers stop.
    pub(super) fn halt(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let _idle = lock(&self.idle);
        self.wake.notify_all();
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Why the run was stopped, if it was.
    pub(super) fn stop_reason(&self) -> Option<Diagnostic> {
        if self.steps.load(Ordering::Relaxed) > self.options.max_steps {
            let limit = self.options.max_steps;
            let message = format!("the run was stopped after {limit} statements");
            return Some(Diagnostic::new(
                codes::STEP_LIMIT,
                dojoc_ir::diag::Kind::Limit,
                message,
            ));
        }
        if !self.stopped() {
            return None;
        }
        if self.account.exceeded() {
            let limit = self.options.max_bytes;
            return Some(Diagnostic::new(
                codes::MEMORY_LIMIT,
                dojoc_ir::diag::Kind::Limit,
                format!("the run needs more than {limit} bytes of memory"),
            ));
        }
        Some(Diagnostic::input(
            dojoc_ir::codes::CANCELLED,
            "the run was cancelled",
        ))
    }

    /// The senders of a family.
    pub(super) fn senders(&self, family: FamilyId) -> Result<&Senders, Fault> {
        let found = self.senders.get(family.index());
        let found = found.ok_or_else(|| unverified("there is no such channel family"))?;
        let made = found.get_or_init(|| Senders::new(self.program, self.map, (family, self.dims)));
        made.as_ref().map_err(Clone::clone)
    }

    /// Sends mail to a worker; `mail` is empty then.
    pub(super) fn send(&self, worker: usize, mail: &mut Vec<Mail>) {
        let mailbox = &self.mailboxes[worker];
        {
            let mut held = lock(&mailbox.mail);
            held.append(mail);
            mailbox.filled.store(true, Ordering::Release);
        }
        let idle = lock(&self.idle);
        if idle.workers > 0 {
            self.wake.notify_all();
        }
    }

    /// The mail of a worker.
    pub(super) fn receive(&self, worker: usize, into: &mut Vec<Mail>) {
        let mailbox = &self.mailboxes[worker];
        if mailbox.filled.load(Ordering::Acquire) {
            let mut held = lock(&mailbox.mail);
            mailbox.filled.store(false, Ordering::Relaxed);
            into.append(&mut held);
        }
    }

    /// Waits for mail. Says whether there is any; there will never be any otherwise, or the run was
    /// stopped.
    pub(super) fn wait(&self, worker: usize) -> bool {
        let mut idle = lock(&self.idle);
        idle.workers += 1;
        loop {
            if self.stopped() || idle.over {
                // Whoever still waits must see it.
                idle.over = true;
                self.wake.notify_all();
                return false;
            }
            if self.has_mail(worker) {
                idle.workers -= 1;
                return true;
            }
            if idle.workers == self.workers() && (0..self.workers()).all(|w| !self.has_mail(w)) {
                idle.over = true;
                continue;
            }
            idle = self.wake.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn has_mail(&self, worker: usize) -> bool {
        self.mailboxes[worker].filled.load(Ordering::Acquire)
    }
}
