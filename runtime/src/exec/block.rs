//! Blocks of bytes, shared by reference, and the pools they come from.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytemuck::{Pod, Zeroable};

use crate::compute::{PanelCache, PanelKey, Panels};

/// A cache line, which gives blocks their alignment.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u64; 8]);

const LINE: usize = size_of::<Line>();

/// Bytes that start at a multiple of 64, with the packed forms of what is in them. A shared block is
/// not written.
#[derive(Debug)]
pub(super) struct Block {
    lines: Box<[Line]>,
    panels: Mutex<Vec<Kept>>,
}

/// A packed form of what is in a block, on the account as long as it is kept.
#[derive(Debug)]
struct Kept {
    /// Position of the operand's lowest byte.
    at: u32,
    key: PanelKey,
    panels: Arc<Panels>,
    account: Arc<Account>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.account.remove(self.panels.bytes());
    }
}

impl Block {
    fn new(lines: usize) -> Self {
        Self {
            lines: bytemuck::allocation::zeroed_slice_box(lines),
            panels: Mutex::default(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    /// The bytes for writing; packed forms are forgotten.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.panels
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        bytemuck::cast_slice_mut(&mut self.lines)
    }

    fn capacity(&self) -> u64 {
        (self.lines.len() * LINE) as u64
    }
}

/// The packed forms of an operand in a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct PanelsAt<'a> {
    pub block: &'a Block,
    /// Position of the operand's lowest byte.
    pub at: u32,
    pub account: &'a Arc<Account>,
}

impl PanelCache for PanelsAt<'_> {
    fn get(&self, key: &PanelKey, pack: &mut dyn FnMut() -> Panels) -> Arc<Panels> {
        // Whoever else needs the same form waits for it instead of making it again.
        let mut kept = self
            .block
            .panels
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.iter().find(|k| k.at == self.at && k.key == *key) {
            return found.panels.clone();
        }
        let panels = Arc::new(pack());
        self.account.add(panels.bytes());
        kept.push(Kept {
            at: self.at,
            key: key.clone(),
            panels: panels.clone(),
            account: self.account.clone(),
        });
        panels
    }
}

/// How much memory all blocks take with their packed forms.
#[derive(Debug, Default)]
pub(super) struct Account {
    used: AtomicU64,
    most: AtomicU64,
    limit: AtomicU64,
}

impl Account {
    pub(super) fn begin(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed);
        self.most.store(used, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: u64) {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(used, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn exceeded(&self) -> bool {
        self.most() > self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// The class of blocks that hold a number of lines, and how many lines blocks of it have: exact up
/// to 64 lines, then eight classes for each power of two.
fn class(lines: usize) -> (usize, usize) {
    if lines < 64 {
        return (lines, lines);
    }
    let log = lines.ilog2() as usize;
    let eighths = lines.div_ceil(1 << (log - 3));
    (64 + (log - 6) * 8 + (eighths - 8), eighths << (log - 3))
}

/// Blocks of a worker that nobody uses.
#[derive(Debug)]
pub(super) struct Pool {
    pub account: Arc<Account>,
    free: Vec<Vec<Arc<Block>>>,
    held: u64,
    /// More memory was taken than the account allows.
    pub over: bool,
}

/// A pool keeps at most so many bytes.
const MOST_HELD: u64 = 64 << 20;

impl Pool {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self {
            account: account.clone(),
            free: Vec::new(),
            held: 0,
            over: false,
        }
    }

    /// A block of at least so many bytes, of any content, which nobody else has.
    pub(super) fn take(&mut self, bytes: usize) -> Arc<Block> {
        let (class, lines) = class(bytes.div_ceil(LINE).max(1));
        if let Some(block) = self.free.get_mut(class).and_then(Vec::pop) {
            self.held -= block.capacity();
            return block;
        }
        let block = Block::new(lines);
        self.account.add(block.capacity());
        self.over = self.account.exceeded();
        Arc::new(block)
    }

    /// As [`take`](Self::take), with zeros.
    pub(super) fn zeroed(&mut self, bytes: usize) -> Arc<Block> {
        let mut block = self.take(bytes);
        if let Some(block) = Arc::get_mut(&mut block) {
            block.bytes_mut()[..bytes].fill(0);
        }
        block
    }

    /// Takes a reference back; the block is kept for later if it was the last one.
    pub(super) fn give(&mut self, mut block: Arc<Block>) {
        match Arc::get_mut(&mut block) {
            Some(inner) if self.held < MOST_HELD => {
                let lines = inner.lines.len();
                inner.bytes_mut();
                let (class, _) = class(lines);
                if self.free.len() <= class {
                    self.free.resize_with(class + 1, Vec::new);
                }
                self.held += inner.capacity();
                self.free[class].push(block);
            }
            _ => {
                // Of two workers that give the last two references back, one gets the block.
                if let Some(block) = Arc::into_inner(block) {
                    self.account.remove(block.capacity());
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.account.remove(self.held);
    }
}

/// A content hash.
type Hash = [u8; 32];

/// Blocks by content, so that replicas of a weight share one, with its packed forms.
#[derive(Debug, Default)]
pub(super) struct Store {
    known: HashMap<(Hash, u32), Weak<Block>>,
    sweep_at: usize,
}

/// Smaller blocks are not worth a hash.
const LEAST_SHARED: usize = 256;

impl Store {
    /// A block with this content from position `phase` on; `make` is called unless there is one.
    pub(super) fn share(
        &mut self,
        content: &[u8],
        phase: u32,
        make: impl FnOnce() -> Arc<Block>,
    ) -> Arc<Block> {
        if content.len() < LEAST_SHARED {
            return make();
        }
        let key = (*blake3::hash(content).as_bytes(), phase);
        if let Some(block) = self.known.get(&key).and_then(Weak::upgrade) {
            return block;
        }
        let block = make();
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, block| block.strong_count() > 0);
            self.sweep_at = 2 * self.known.len() + 64;
        }
        self.known.insert(key, Arc::downgrade(&block));
        block
    }
}
