//! What of a core's SRAM is defined from call to call of an entry.

use std::sync::Arc;

use super::intervals::Intervals;
use super::ranges::Ranges;
use super::relocate::Relocation;
use super::shadow::{After, Need};
use crate::program::{SegmentId, TensorId};

/// A call of a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Who {
    /// Position of the call in the schedule.
    pub(super) step: u32,
    /// The segment.
    pub(super) segment: SegmentId,
    /// The number of the call's summary.
    pub(super) summary: u32,
    /// The distance from the bytes of the summary to those of the call.
    pub(super) shift: i64,
}

/// The bytes of tensors that outlive a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lasting {
    /// The tensor.
    pub(super) tensor: TensorId,
    /// Whether it is a weight, which nothing may write.
    pub(super) weight: bool,
}

/// Bytes that are not defined, and who made them so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    /// The bytes.
    pub(super) bytes: (i64, i64),
    /// The write that destroyed them; `None` if they were never written.
    pub(super) by: Option<Who>,
}

/// A write to bytes that outlive a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Damage {
    /// The bytes.
    pub(super) bytes: (i64, i64),
    /// Whose they are.
    pub(super) of: Lasting,
    /// The write.
    pub(super) by: Who,
}

/// The SRAM of a core between calls.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Memory {
    /// Bytes that may be read.
    defined: Ranges,
    /// Bytes that outlive the run, and whose they are; they do not change after the start.
    lasting: Arc<(Ranges, Intervals<Lasting>)>,
    /// Who destroyed bytes, if that is asked for: most programs have no bytes that anyone misses.
    gone: Option<Intervals<Who>>,
}

impl Memory {
    /// An empty one; with `culprits` it knows who destroyed bytes.
    pub(super) fn new(culprits: bool) -> Self {
        Self {
            gone: culprits.then(Intervals::default),
            ..Self::default()
        }
    }

    /// Bytes that may be read from now on.
    pub(super) fn define(&mut self, low: i64, high: i64) {
        self.defined.insert(low, high);
        if let Some(gone) = &mut self.gone {
            gone.remove(low, high);
        }
    }

    fn destroy(&mut self, low: i64, high: i64, by: Who) {
        self.defined.remove(low, high);
        if let Some(gone) = &mut self.gone {
            gone.put(low, high, by);
        }
    }

    /// Bytes of a weight or state.
    pub(super) fn last(&mut self, low: i64, high: i64, of: Lasting) {
        let (bytes, owners) = Arc::make_mut(&mut self.lasting);
        bytes.insert(low, high);
        owners.set(low, high, of);
        self.define(low, high);
    }

    /// The first bytes of `low..high` that are not defined.
    pub(super) fn gap(&self, low: i64, high: i64) -> Option<Gap> {
        let (low, high) = self.defined.gap(low, high)?;
        let mut gone = self.gone.iter().flat_map(|gone| gone.within(low, high));
        let (bytes, by) = match gone.next() {
            Some((start, end, who)) if start == low => ((low, end), Some(*who)),
            Some((start, ..)) => ((low, start), None),
            None => ((low, high), None),
        };
        Some(Gap { bytes, by })
    }

    /// Bytes that may be read.
    pub(super) fn defined(&self) -> &Ranges {
        &self.defined
    }

    /// Whether all bytes of `low..high` outlive the run: they are defined as long as nothing is wrong.
    pub(super) fn lasts(&self, low: i64, high: i64) -> bool {
        self.lasting.0.gap(low, high).is_none()
    }

    /// The first gap in what a call reads, with the read.
    pub(super) fn missing(
        &self,
        needs: &[(i64, i64, Need)],
        there: &Relocation,
    ) -> Option<(Gap, Need)> {
        needs.iter().find_map(|(low, high, need)| {
            let (low, high) = there.actual((*low, *high));
            Some((self.gap(low, high)?, *need))
        })
    }

    /// What a call's writes leave; returns those to bytes that outlive the run and may not be
    /// written: all of weights, those of states whose value is not kept.
    pub(super) fn apply(
        &mut self,
        left: &[(i64, i64, After)],
        there: &Relocation,
        who: Who,
    ) -> Option<Damage> {
        let mut damage = None;
        for (low, high, after) in left {
            let shift = there.shift(*low);
            let (low, high) = (low + shift, high + shift);
            let by = Who { shift, ..who };
            let (bytes, owners) = &*self.lasting;
            if bytes.meets(low, high) {
                for (low, high, of) in owners.within(low, high) {
                    if of.weight || *after == After::Destroyed {
                        let (bytes, of) = ((low, high), *of);
                        damage.get_or_insert(Damage { bytes, of, by });
                    }
                }
            }
            match after {
                After::Unchanged | After::Either => {}
                After::Defined => self.define(low, high),
                After::Destroyed => self.destroy(low, high, by),
            }
        }
        damage
    }
}
