//! Instances of DRAM regions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use dojoc_ir::entity::EntityId;
use dojoc_ir::program::{DramId, Program};

use super::block::Account;
use super::fault::{Fault, unverified};
use super::intervals::Intervals;

/// Bytes of a page, the unit in which an instance is allocated.
const PAGE: u64 = 1 << 16;

type Page = Arc<Vec<u8>>;

/// One instance. Bytes never written are zero and take no memory.
#[derive(Debug, Default)]
pub(super) struct Bank {
    pages: BTreeMap<u64, Page>,
    /// Pages that a run wrote.
    dirty: BTreeSet<u64>,
    /// What is kept between runs.
    keep: Intervals,
    /// Pages with kept bytes as they were when the run began.
    saved: Option<BTreeMap<u64, Page>>,
    /// Epochs published.
    pub committed: u64,
    /// How often the last epoch was given back.
    pub released: u32,
    /// The owner may write.
    pub open: bool,
    /// Cores and streams that wait for this instance.
    pub waiting: Vec<(u32, u8)>,
}

impl Bank {
    /// Copies bytes out.
    pub(super) fn read(&self, at: u64, to: &mut [u8]) {
        each_page(at, to.len(), |page, inside, range| {
            match self.pages.get(&page) {
                Some(bytes) => to[range.clone()].copy_from_slice(&bytes[inside..][..range.len()]),
                None => to[range].fill(0),
            }
        });
    }

    /// Copies bytes in.
    pub(super) fn write(&mut self, at: u64, from: &[u8], account: &Account) {
        each_page(at, from.len(), |page, inside, range| {
            let bytes = self.pages.entry(page).or_insert_with(|| {
                account.add(PAGE);
                Arc::new(vec![0; PAGE as usize])
            });
            if Arc::get_mut(bytes).is_none() {
                account.add(PAGE);
            }
            Arc::make_mut(bytes)[inside..][..range.len()].copy_from_slice(&from[range]);
            self.dirty.insert(page);
        });
    }

    pub(super) fn keep(&mut self, at: u64, len: u64) {
        self.keep.insert(at, len);
    }

    fn begin(&mut self) {
        self.dirty.clear();
        if !self.keep.is_empty() {
            self.saved = Some(self.pages.clone());
        }
    }

    fn end(&mut self, keep: bool, account: &Account) {
        let dirty = std::mem::take(&mut self.dirty);
        let saved = self.saved.take().unwrap_or_default();
        for page in dirty {
            let now = self.pages.remove(&page);
            let before = saved.get(&page);
            account.remove(PAGE * (u64::from(now.is_some()) + u64::from(before.is_some())));
            let from = if keep { now.as_ref() } else { before };
            let mut kept: Option<Vec<u8>> = None;
            if let Some(from) = from {
                for (start, len) in self.keep.within(page * PAGE, PAGE) {
                    let range = (start % PAGE) as usize..(start % PAGE + len) as usize;
                    let to = kept.get_or_insert_with(|| vec![0; PAGE as usize]);
                    to[range.clone()].copy_from_slice(&from[range]);
                }
            }
            if let Some(kept) = kept {
                account.add(PAGE);
                self.pages.insert(page, Arc::new(kept));
            }
        }
        // Epochs are those of a run.
        self.committed = 0;
        self.released = 0;
        self.open = false;
        self.waiting.clear();
    }
}

/// Calls `visit(page, first byte in it, range of the bytes)` for an interval.
fn each_page(at: u64, len: usize, mut visit: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let address = at + done as u64;
        let inside = (address % PAGE) as usize;
        let count = (PAGE as usize - inside).min(len - done);
        visit(address / PAGE, inside, done..done + count);
        done += count;
    }
}

/// All instances of all DRAM regions.
#[derive(Debug)]
pub(super) struct Dram {
    banks: Vec<Vec<OnceLock<Box<Mutex<Bank>>>>>,
    bytes: Vec<u64>,
    pub account: Arc<Account>,
}

impl Dram {
    pub(super) fn new(program: &Program, account: &Arc<Account>) -> Self {
        let instances = |dram: &dojoc_ir::program::DramRegion| {
            let owners = dram.owners.and_then(|owners| program.regions.get(owners));
            let count = owners.map_or(1, dojoc_ir::program::Region::len);
            (0..count).map(|_| OnceLock::new()).collect()
        };
        Self {
            banks: program.dram.values().map(instances).collect(),
            bytes: program.dram.values().map(|dram| dram.bytes).collect(),
            account: account.clone(),
        }
    }

    /// An instance, after a check that an interval lies in it.
    pub(super) fn bank(
        &self,
        dram: DramId,
        instance: u64,
        interval: (u64, u64),
    ) -> Result<MutexGuard<'_, Bank>, Fault> {
        let banks = self.banks.get(dram.index());
        let bank = banks.and_then(|banks| banks.get(usize::try_from(instance).ok()?));
        let bank = bank.ok_or_else(|| unverified("a DRAM region has no such instance"))?;
        let end = interval.0.checked_add(interval.1);
        if end.is_none_or(|end| end > self.bytes[dram.index()]) {
            return Err(unverified("a transfer leaves its DRAM region"));
        }
        let bank = bank.get_or_init(Box::default);
        Ok(bank.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn each(&mut self, mut visit: impl FnMut(&mut Bank, &Account)) {
        for bank in self
            .banks
            .iter_mut()
            .flatten()
            .filter_map(OnceLock::get_mut)
        {
            let bank = bank.get_mut().unwrap_or_else(PoisonError::into_inner);
            visit(bank, &self.account);
        }
    }

    pub(super) fn begin(&mut self) {
        self.each(|bank, _| bank.begin());
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.each(|bank, account| bank.end(keep, account));
    }
}
