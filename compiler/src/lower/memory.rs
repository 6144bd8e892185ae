//! What to say where a model does not fit: which tensors fill which core, and what would help.

use std::collections::BTreeSet;
use std::sync::Arc;

use dojoc_ir::access::DimKind;
use dojoc_ir::diag::{Diagnostic, Kind, Loc};
use dojoc_ir::machine::Machine;
use dojoc_ir::mesh::Schedule;
use dojoc_ir::tiled::{Function, Module, Step, StepRule, Stmt, ValueDef, ValueId, coalesced};
use dojoc_ir::types::DType;

use crate::graph::precision::multiplied;
use crate::place::sram::Item;
use crate::tile::DOES_NOT_FIT;

/// A schedule whose buffers have sizes and lives: those of `roots`, then temporaries.
pub(super) struct Memory<'a> {
    pub module: &'a Module,
    pub function: &'a Function,
    pub schedule: &'a Schedule,
    pub roots: &'a [ValueId],
    pub items: &'a [Item],
    pub machine: &'a Machine,
}

/// Tensors that a report names.
const NAMED: usize = 5;

impl Memory<'_> {
    /// What is wrong with a schedule that takes `bytes`.
    pub fn report(&self, bytes: u64) -> Diagnostic {
        let size = self.machine.core_sram_bytes();
        let end = self.items.iter().map(|i| i.live.end).max().unwrap_or(0);
        let total = |step: &usize| self.at(*step).map(|(_, i)| i.bytes).sum::<u64>();
        // The first of the worst steps.
        let worst = (0..end).rev().max_by_key(total).unwrap_or(0);
        let mut live: Vec<(usize, &Item)> = self.at(worst).filter(|(_, i)| i.bytes > 0).collect();
        live.sort_by_key(|(n, item)| (std::cmp::Reverse(item.bytes), *n));
        let mut message = format!(
            "`{}` does not fit: core {} of {} needs {bytes} bytes",
            self.function.name,
            self.core(&live),
            self.machine.name,
        );
        if let Some(loc) = self.loc(worst) {
            message.push_str(&format!(" at `{}`", loc.name));
        }
        message.push_str(&format!(
            ", {} more than its {size}",
            bytes.saturating_sub(size)
        ));
        let mut report = Diagnostic::new(DOES_NOT_FIT, Kind::Limit, message);
        for (n, item) in live.iter().take(NAMED) {
            report = report.note(match self.roots.get(*n) {
                Some(value) => self.share(*value, item.bytes),
                None => format!("temporaries: {} bytes", item.bytes),
            });
        }
        if let Some(rest) = live.get(NAMED..).filter(|rest| !rest.is_empty()) {
            let sum: u64 = rest.iter().map(|(_, i)| i.bytes).sum();
            report = report.note(format!("{} more: {sum} bytes", rest.len()));
        }
        let weights = self.weight_bytes();
        let cores = self.schedule.places.len() as u64;
        if weights > size.saturating_mul(cores) {
            report = report.note(format!(
                "all weights take {weights} bytes, more than the {} of {cores} cores together",
                size.saturating_mul(cores)
            ));
        }
        let remedies = self.remedies(&live);
        if !remedies.is_empty() {
            report = report.help(remedies.join("; "));
        }
        report
    }

    /// What is alive at a step, with its number.
    fn at(&self, step: usize) -> impl Iterator<Item = (usize, &Item)> {
        let items = self.items.iter().enumerate();
        items.filter(move |(_, item)| item.live.contains(&step))
    }

    /// Every core of a grid has the same buffers: the first core of the grid of the largest.
    fn core(&self, live: &[(usize, &Item)]) -> String {
        let largest = live.iter().find_map(|(n, _)| self.roots.get(*n));
        let first = largest.map_or(0, |value| {
            self.module.grids[self.function.values[*value].layout.grid].first
        });
        let place = usize::try_from(first).ok();
        let place = place.and_then(|first| self.schedule.places.get(first));
        place.map_or_else(|| first.to_string(), ToString::to_string)
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        let stmts = self.function.bodies[self.function.body()].stmts.iter();
        stmts.flat_map(|stmt| match stmt {
            Stmt::Group(group) => group.steps.as_slice(),
            _ => &[],
        })
    }

    /// The node of the user's model that a statement comes from.
    fn loc(&self, stmt: usize) -> Option<&Arc<Loc>> {
        match self.function.bodies[self.function.body()].stmts.get(stmt)? {
            Stmt::Group(group) => group.steps.iter().find_map(|step| step.loc.as_ref()),
            Stmt::Reshard(reshard) => reshard.loc.as_ref(),
            Stmt::View { loc, .. } => loc.as_ref(),
            Stmt::Repeat(repeat) => repeat.loc.as_ref(),
        }
    }

    /// The value that a value is a copy or a view of.
    fn source(&self, mut value: ValueId) -> ValueId {
        let stmts = &self.function.bodies[self.function.body()].stmts;
        loop {
            let from = stmts.iter().find_map(|stmt| match stmt {
                Stmt::Reshard(reshard) if reshard.output == value => Some(reshard.input),
                Stmt::View { input, output, .. } if *output == value => Some(*input),
                _ => None,
            });
            match from {
                Some(from) => value = from,
                None => return value,
            }
        }
    }

    /// A value as people know it.
    fn name(&self, value: ValueId) -> String {
        let source = self.source(value);
        let data = &self.function.values[source];
        let own = || match &data.name {
            Some(name) => format!("`{name}`"),
            None => {
                let makes = |step: &&Step| step.results.contains(&source);
                let loc = self.steps().find(makes).and_then(|s| s.loc.as_ref());
                loc.map_or_else(
                    || format!("`{source}`"),
                    |loc| format!("the result of `{}`", loc.name),
                )
            }
        };
        let name = match data.def {
            ValueDef::Weight(weight) => format!("weight `{}`", self.module.weights[weight].name),
            ValueDef::State(state) => format!("state `{}`", self.module.states[state].name),
            ValueDef::Param(..) => format!("input {}", own()),
            ValueDef::Stmt(_) => own(),
        };
        match source == value {
            true => name,
            false => format!("a copy of {name}"),
        }
    }

    /// In how many parts a value lies on the cores of its grid.
    fn parts(&self, value: ValueId) -> u64 {
        let layout = &self.function.values[value].layout;
        let grid = &self.module.grids[layout.grid];
        let axes = layout.splits.iter().flat_map(|split| &split.axes);
        axes.map(|axis| grid.axes[*axis].size).product()
    }

    fn share(&self, value: ValueId, bytes: u64) -> String {
        let ty = &self.function.values[value].ty;
        let name = self.name(value);
        let whole = ty.max_bytes().unwrap_or(u64::MAX);
        match self.parts(value) {
            1 => format!("{name}: {ty}, whole: {bytes} bytes"),
            parts => format!("{name}: {ty} in {parts} parts: {bytes} of {whole} bytes"),
        }
    }

    /// Bytes of all weights, each once.
    fn weight_bytes(&self) -> u64 {
        let values = self.function.values.values();
        let weights: BTreeSet<_> = values
            .filter_map(|value| match value.def {
                ValueDef::Weight(weight) => Some(weight),
                _ => None,
            })
            .collect();
        let bytes = |weight| self.module.weights[weight].ty.max_bytes().unwrap_or(0);
        weights.into_iter().map(bytes).sum()
    }

    /// What would help, each with what it changes.
    fn remedies(&self, live: &[(usize, &Item)]) -> Vec<String> {
        let values: Vec<(ValueId, u64)> = (live.iter())
            .filter_map(|(n, item)| Some((*self.roots.get(*n)?, item.bytes)))
            .collect();
        [
            self.narrower(&values),
            self.smaller_batch(&values),
            self.finer_split(&values),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn is_weight(&self, value: ValueId) -> bool {
        matches!(
            self.function.values[self.source(value)].def,
            ValueDef::Weight(_)
        )
    }

    /// Weights that are multiplied in f32 could be half as large.
    fn narrower(&self, live: &[(ValueId, u64)]) -> Option<String> {
        let mut multiplying = BTreeSet::new();
        for step in self.steps() {
            let types: Vec<_> = (step.args.iter())
                .map(|v| self.function.values[*v].ty.clone())
                .collect();
            for n in multiplied(&step.op, &types) {
                if types[n].dtype == DType::F32 && self.is_weight(step.args[n]) {
                    multiplying.insert(self.source(step.args[n]));
                }
            }
        }
        let bytes: u64 = (live.iter())
            .filter(|(value, _)| multiplying.contains(&self.source(*value)))
            .map(|(_, bytes)| bytes / 2)
            .sum();
        (bytes > 0).then(|| {
            format!("`--precision bf16` halves weights that are multiplied: {bytes} bytes less")
        })
    }

    /// Values grow with the batch, weights do not.
    fn smaller_batch(&self, live: &[(ValueId, u64)]) -> Option<String> {
        let body = &self.function.bodies[self.function.body()];
        let first = |value: &ValueId| {
            self.function.values[*value]
                .ty
                .shape
                .as_const()?
                .first()
                .copied()
        };
        let batch = body.params.first().and_then(first)?;
        let all = body.params.iter().all(|value| first(value) == Some(batch));
        let bytes: u64 = (live.iter())
            .filter(|(value, _)| !self.is_weight(*value))
            .map(|(_, bytes)| bytes)
            .sum();
        (all && batch > 1 && bytes > 0).then(|| {
            format!(
                "a batch smaller than {batch} makes what is not a weight smaller, {bytes} bytes of this"
            )
        })
    }

    /// The largest value, where a loop that walks it could be split over more cores.
    fn finer_split(&self, live: &[(ValueId, u64)]) -> Option<String> {
        let (largest, bytes) = live.first()?;
        let cores = self.schedule.places.len() as u64;
        let parts = self.parts(*largest);
        // Steps may use it through a view.
        let is = |value: &ValueId| {
            let alias = self.schedule.storage.get(value).and_then(|s| s.alias);
            alias.unwrap_or(*value) == *largest
        };
        let touches = |step: &&Step| step.args.iter().chain(&step.results).any(is);
        let step = self.steps().find(touches)?;
        let name = step
            .results
            .iter()
            .find_map(|v| self.function.values[*v].name.as_deref());
        let name = name.or_else(|| step.loc.as_ref().map(|loc| &*loc.name))?;
        let types = |values: &[ValueId]| {
            values
                .iter()
                .map(|v| self.function.values[*v].ty.clone())
                .collect::<Vec<_>>()
        };
        let (args, results) = (types(&step.args), types(&step.results));
        let rule = coalesced(&step.op, &args, &results, &step.loops).ok()?;
        let StepRule::Loop(access) = &rule.rule else {
            return None;
        };
        let operands = access.operands.iter().map(|read| &read.index);
        let written = access.results.iter().map(|write| &write.index);
        let values = step.args.iter().chain(&step.results);
        let (_, index) = values
            .zip(operands.chain(written))
            .find(|(value, _)| is(value))?;
        let (extents, names) = (rule.extents(), rule.names());
        let loops: Vec<usize> = (0..extents.len())
            .filter(|d| extents[*d] > 1 && access.dims[*d].kind == DimKind::Parallel)
            .filter(|d| rule.is_splittable(*d))
            .filter(|d| index.iter().any(|i| i.terms.iter().any(|(l, _)| l == d)))
            .collect();
        let most = loops
            .iter()
            .fold(1u64, |n, d| n.saturating_mul(extents[*d]));
        let most = most.min(cores);
        if most < 2 * parts.max(1) {
            return None;
        }
        let loops: Vec<String> = (loops.iter())
            .map(|d| format!("`{}` of {}", names[*d], extents[*d]))
            .collect();
        Some(format!(
            "`--plan` can split {} at `{name}` into up to {most} parts instead of {parts}: about {} bytes each \
             (loops {})",
            self.name(*largest),
            (bytes * parts).div_ceil(most),
            loops.join(", ")
        ))
    }
}
