//! What printer and parser of the text form share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::{Exchange, Flow, route};
use crate::entity::PrimaryMap;
use crate::tiled::{Grid, GridId, Layout};

/// The exchanges that follow from layouts by the rule, each found once.
pub(super) struct Rule<'a> {
    grids: &'a PrimaryMap<GridId, Grid>,
    known: HashMap<(Layout, Layout), Result<Arc<Exchange>, route::Unroutable>>,
}

impl<'a> Rule<'a> {
    pub fn new(grids: &'a PrimaryMap<GridId, Grid>) -> Self {
        Self {
            grids,
            known: HashMap::new(),
        }
    }

    /// See [`route::exchange`].
    pub fn exchange(
        &mut self,
        from: &Layout,
        to: &Layout,
    ) -> &Result<Arc<Exchange>, route::Unroutable> {
        let key = (from.clone(), to.clone());
        let grids = self.grids;
        (self.known.entry(key)).or_insert_with(|| route::exchange(grids, from, to).map(Arc::new))
    }
}

/// What the flows of a stage come to, for elements of `width` bytes: messages and their bytes, bytes
/// copied inside cores, and the most cores that one sends to and that one receives from.
pub(super) fn traffic(flows: &[Flow], width: u64) -> [(&'static str, u64); 5] {
    let (mut count, mut bytes, mut copied) = (0, 0u64, 0u64);
    let mut pairs = BTreeSet::new();
    for flow in flows {
        let moved = flow.elements().saturating_mul(width);
        if flow.from == flow.to {
            copied = copied.saturating_add(moved);
            continue;
        }
        count += 1;
        bytes = bytes.saturating_add(moved);
        pairs.insert((flow.from, flow.to));
    }
    let most = |end: fn(&(u32, u32)) -> u32| {
        let mut peers = BTreeMap::<u32, u64>::new();
        pairs
            .iter()
            .for_each(|pair| *peers.entry(end(pair)).or_default() += 1);
        peers.into_values().max().unwrap_or(0)
    };
    [
        ("flows", count),
        ("bytes", bytes),
        ("copied", copied),
        ("sends", most(|p| p.0)),
        ("receives", most(|p| p.1)),
    ]
}
