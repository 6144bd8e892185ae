//! The summaries of all calls, numbered, and which of them every call has on every core.
//!
//! Calls of equal layers differ only in where their buffers lie, which mostly is the same on all
//! cores. So the summaries of a call are found for all cores at once, by what else is in its
//! parameter row, and calls that agree in that share the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::{HashMap, HashMapExt as _};
use rayon::prelude::*;

use super::call::{Call, Summary, summarise};
use super::columns::{Column, Columns};
use super::facts::Facts;
use super::relocate::Relocation;
use super::shadow::{After, Need};
use crate::program::{IndexEnv, Program, RegionId, SegmentId};

/// What calls with one summary share: the segment, and what of the parameter row and of the run
/// parameters matters.
pub(super) type Key = (SegmentId, Vec<i64>, Vec<i64>);

/// What the memory of a core sees of a summary.
type Effect = (SegmentId, Vec<(i64, i64, Need)>, Vec<(i64, i64, After)>);

/// A call whose row depends on no repeat and no run parameter.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// The number of the table of its summaries.
    pub(super) table: u32,
    /// Where the call has its bytes, unless the table says that by core.
    pub(super) there: Relocation,
}

/// The summaries of a call by index of the core in the region.
struct Table {
    /// `None` where the row has no value.
    numbers: Vec<Option<u32>>,
    /// Where the call has its bytes, if that depends on the core.
    there: Option<Vec<Relocation>>,
}

/// A summary, when it is known.
struct Entry {
    key: Key,
    /// Made ahead, which nothing has asked for yet.
    prepared: Option<Summary>,
    /// In use.
    summary: Option<Arc<Summary>>,
    effect: u32,
}

/// The summaries of a program.
pub(super) struct Summaries<'p> {
    /// Set from outside to stop.
    cancel: &'p AtomicBool,
    numbers: HashMap<Key, u32>,
    entries: Vec<Entry>,
    effects: HashMap<Effect, u32>,
    effect_count: u32,
    known: HashMap<(SegmentId, RegionId, Vec<Column<'p>>, Vec<i64>), u32>,
    tables: Vec<Table>,
}

/// The key of a call's summary, and where the call has its bytes; `None` where the row has no value.
pub(super) fn key(
    segment: SegmentId,
    facts: &Facts,
    row: impl Iterator<Item = Option<i64>>,
    dims: &[i64],
) -> Option<(Key, Relocation)> {
    let mut params: Vec<i64> = row.collect::<Option<_>>()?;
    let there = match &facts.bases {
        Some(bases) => Relocation::apply(bases, &mut params),
        None => Relocation::default(),
    };
    Some(((segment, params, facts.used_dims(dims)), there))
}

impl<'p> Summaries<'p> {
    /// None.
    pub(super) fn new(cancel: &'p AtomicBool) -> Self {
        Self {
            cancel,
            numbers: HashMap::new(),
            entries: Vec::new(),
            effects: HashMap::new(),
            effect_count: 0,
            known: HashMap::new(),
            tables: Vec::new(),
        }
    }

    /// The number of the summary with a key.
    pub(super) fn number(&mut self, key: Key) -> u32 {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.entries.len() as u32;
        self.entries.push(Entry {
            key: key.clone(),
            prepared: None,
            summary: None,
            effect: self.effect_count,
        });
        self.effect_count += 1;
        self.numbers.insert(key, number);
        number
    }

    /// The key of a summary.
    pub(super) fn key(&self, number: u32) -> &Key {
        &self.entries[number as usize].key
    }

    /// A summary that is in use.
    pub(super) fn get(&self, number: u32) -> Option<&Arc<Summary>> {
        self.entries.get(number as usize)?.summary.as_ref()
    }

    /// A summary that was made ahead, of a call that ends and breaks no rule.
    pub(super) fn sound(&self, number: u32) -> Option<&Summary> {
        let entry = self.entries.get(number as usize)?;
        let summary = entry.summary.as_deref().or(entry.prepared.as_ref())?;
        (summary.ends && summary.findings.all.is_empty()).then_some(summary)
    }

    /// Puts a summary in use. Unless it was made ahead it is made now, and its steps come off the
    /// budget.
    pub(super) fn make(
        &mut self,
        program: &Program,
        facts: &Facts,
        number: u32,
        budget: &mut u64,
    ) -> Arc<Summary> {
        let entry = &mut self.entries[number as usize];
        let summary = match entry.prepared.take() {
            Some(summary) => summary,
            None => summarise(&call(program, facts, &entry.key, self.cancel), budget),
        };
        entry.summary.insert(Arc::new(summary)).clone()
    }

    /// Finds the summaries of a call on all cores of its region; `None` if its row depends on
    /// repeats or run parameters. Adds how many evaluations that took.
    pub(super) fn resolve(
        &mut self,
        program: &Program,
        (segment, on, facts): (SegmentId, RegionId, &Facts),
        row: &[Column<'p>],
        columns: &Columns<'p>,
        dims: &[i64],
        evaluations: &mut u64,
    ) -> Option<Resolved> {
        if row.iter().any(|column| matches!(column, Column::Varies(_))) {
            return None;
        }
        let (mut row, mut there) = (row.to_vec(), Relocation::default());
        let bases = facts.bases.as_deref().unwrap_or_default();
        let fixed = |column: &Column<'_>| match column {
            Column::Value(value) => *value,
            _ => 0,
        };
        let moved = bases
            .iter()
            .all(|base| matches!(row.get(base.param), Some(Column::Value(_))));
        if moved {
            let mut values: Vec<i64> = row.iter().map(fixed).collect();
            there = Relocation::apply(bases, &mut values);
            for base in bases {
                row[base.param] = Column::Value(values[base.param]);
            }
        }
        let place = (segment, on, row, facts.used_dims(dims));
        if let Some(table) = self.known.get(&place) {
            let table = *table;
            return Some(Resolved { table, there });
        }
        let row = &place.2;
        let (mut numbers, mut theirs) = (Vec::new(), Vec::new());
        for (core, index) in program.regions[on].cores().zip(0..) {
            let env = IndexEnv::of_core(index, core, &[], dims);
            let values = row
                .iter()
                .map(|column| columns.value(*column, program, &env));
            let found = match moved {
                true => {
                    let params: Option<Vec<i64>> = values.collect();
                    params.map(|p| ((segment, p, place.3.clone()), Relocation::default()))
                }
                false => key(segment, facts, values, dims),
            };
            *evaluations += row.len() as u64;
            numbers.push(found.as_ref().map(|(key, _)| self.number(key.clone())));
            theirs.push(found.map(|(_, there)| there).unwrap_or_default());
        }
        let table = self.tables.len() as u32;
        self.tables.push(Table {
            numbers,
            there: (!moved).then_some(theirs),
        });
        self.known.insert(place, table);
        Some(Resolved { table, there })
    }

    /// The number of a call's summary on a core, by its index in the region, and where the call has
    /// its bytes; `None` where the row has no value.
    pub(super) fn on_core<'a>(
        &'a self,
        call: &'a Resolved,
        index: u64,
    ) -> Option<(u32, &'a Relocation)> {
        let (table, index) = (
            &self.tables[call.table as usize],
            usize::try_from(index).ok()?,
        );
        let there = match &table.there {
            Some(there) => there.get(index)?,
            None => &call.there,
        };
        Some(((*table.numbers.get(index)?)?, there))
    }

    /// Makes all summaries that are not known, in parallel, and finds which have the same effect. Their
    /// steps come off the budget. If they take all of it, none is made: each will be when it is asked
    /// for.
    pub(super) fn prepare(
        &mut self,
        program: &Program,
        facts: &BTreeMap<SegmentId, Arc<Facts>>,
        budget: &mut u64,
    ) {
        let all = *budget;
        let spent = AtomicU64::new(0);
        let make = |entry: &Entry| {
            if entry.summary.is_some() || entry.prepared.is_some() {
                return None;
            }
            let left = all.checked_sub(spent.load(Ordering::Relaxed))?;
            let facts = facts.get(&entry.key.0)?;
            let call = call(program, facts, &entry.key, self.cancel);
            let summary = summarise(&call, &mut left.clone());
            spent.fetch_add(summary.steps, Ordering::Relaxed);
            Some(summary)
        };
        let made: Vec<Option<Summary>> = self.entries.par_iter().map(make).collect();
        let Some(left) = all.checked_sub(spent.into_inner()).filter(|left| *left > 0) else {
            return;
        };
        *budget = left;
        for (entry, summary) in self.entries.iter_mut().zip(made) {
            let Some(summary) = summary else {
                continue;
            };
            // One that is reported is on its own, so that its report names the first core that has it.
            if summary.ends && summary.findings.all.is_empty() {
                let effect = (entry.key.0, summary.needs.clone(), summary.left.clone());
                entry.effect = *self.effects.entry(effect).or_insert(entry.effect);
            }
            entry.prepared = Some(summary);
        }
    }

    /// A number that two summaries share only if the memory of a core sees no difference.
    pub(super) fn effect(&self, number: u32) -> u32 {
        self.entries[number as usize].effect
    }
}

/// The call with a key.
fn call<'a>(
    program: &'a Program,
    facts: &'a Facts,
    key: &'a Key,
    cancel: &'a AtomicBool,
) -> Call<'a> {
    Call {
        segment: &program.segments[key.0],
        facts,
        params: &key.1,
        dims: &key.2,
        cancel,
    }
}
