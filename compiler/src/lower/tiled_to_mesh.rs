//! TILED to MESH: places, flows, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use dojoc_ir::attr::Number;
use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind};
use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::machine::{CoreAddress, Machine};
use dojoc_ir::mesh::{Exchange, Schedule, Storage};
use dojoc_ir::program::{Packing, RouteRule, dense_strides};
use dojoc_ir::tiled::{
    FuncId, Function, Layout, Module, Reshard, StepRule, Stmt, ValueDef, ValueId, coalesced,
};
use dojoc_ir::types::DType;
use foldhash::{HashMap, HashMapExt as _};

use super::memory::Memory;
use super::{phases, refused, unsupported};
use crate::emit::compute::{LastUses, phase};
use crate::emit::exchange::{Side, scratch_bytes};
use crate::emit::kernel;
use crate::emit::program::ProgramBuilder;
use crate::place::snake;
use crate::place::sram::{Item, allocate};
use crate::route::exchange;
use crate::tile::{DOES_NOT_FIT, Failure, NO_EXCHANGE};

/// When memory is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Check {
    /// As early as possible: while layouts are chosen, then without scratch memory, which takes longer
    /// to find. Most models that do not fit are too large without it.
    Early,
    /// Without scratch memory, then with it.
    Values,
    /// Once, with all that is needed; what does not fit is reported with what would help.
    Whole,
}

/// Places tiled models on the first chip of a machine, one after the other. Models whose grids have the
/// same ids share what is found.
pub(super) struct Placer<'m> {
    machine: &'m Machine,
    places: Vec<CoreAddress>,
    exchanges: HashMap<(Layout, Layout), Arc<Exchange>>,
    /// Scratch memory of exchanges in bytes.
    staged: HashMap<(Layout, Layout, DType), u64>,
    /// Scratch memory is known once code is there.
    code: ProgramBuilder,
}

impl<'m> Placer<'m> {
    /// Nothing is known yet.
    pub fn new(machine: &'m Machine) -> Self {
        let (places, route) = (snake(machine, 0).unwrap_or_default(), RouteRule::default());
        Self {
            machine,
            exchanges: HashMap::new(),
            staged: HashMap::new(),
            code: ProgramBuilder::new("", machine, places.clone(), route),
            places,
        }
    }

    /// Places a model.
    ///
    /// # Errors
    /// Reshards that no exchange carries out, steps that there are no instructions for, and values
    /// that do not fit into memory.
    pub fn place(
        &mut self,
        tiled: &Module,
        check: Check,
    ) -> Result<PrimaryMap<FuncId, Schedule>, Failure> {
        let mut schedules = PrimaryMap::new();
        for function in tiled.functions.values() {
            schedules.push(schedule(self, tiled, function, check)?);
        }
        Ok(schedules)
    }

    /// The exchange of a reshard.
    fn exchange(
        &mut self,
        module: &Module,
        function: &Function,
        reshard: &Reshard,
    ) -> Result<Arc<Exchange>, Diagnostics> {
        let layouts = [reshard.input, reshard.output].map(|v| &function.values[v].layout);
        let key = (layouts[0].clone(), layouts[1].clone());
        if let Some(found) = self.exchanges.get(&key) {
            return Ok(found.clone());
        }
        let found = exchange(&module.grids, layouts[0], layouts[1]).map_err(|cause| {
            let message = format!("{cause}");
            let diagnostic = Diagnostic::new(NO_EXCHANGE, Kind::Unsupported, message);
            match &reshard.loc {
                Some(loc) => diagnostic.at(dojoc_ir::diag::Place::Node(loc.clone())),
                None => diagnostic,
            }
        })?;
        let found = Arc::new(found);
        self.exchanges.insert(key, found.clone());
        Ok(found)
    }
}

fn schedule(
    placer: &mut Placer<'_>,
    module: &Module,
    function: &Function,
    check: Check,
) -> Result<Schedule, Failure> {
    let machine = placer.machine;
    let body = &function.bodies[function.body()];
    let mut schedule = Schedule {
        places: placer.places.clone(),
        ..Schedule::default()
    };
    schedule.storage = storage(module, function)?;
    if check != Check::Whole {
        assign(module, function, &mut schedule, &[], (machine, check))?;
    }
    borders(function, &mut schedule)?;
    // Addresses do not change the code.
    let mut needs: Vec<(usize, u64)> = vec![];
    let last_uses = LastUses::of(body);
    let live = live_bytes(body.stmts.len(), &schedule);
    for range in phases(body) {
        let bytes = match &body.stmts[range.start] {
            Stmt::Reshard(reshard) => {
                let exchange = placer.exchange(module, function, reshard)?;
                schedule.exchanges.push((range.start, exchange.clone()));
                let exchange = &*exchange;
                let of = |v: ValueId| Side {
                    layout: &function.values[v].layout,
                    storage: &schedule.storage[&v],
                };
                let dtype = function.values[reshard.input].ty.dtype;
                let (from, to) = (of(reshard.input), of(reshard.output));
                // Storage follows from the layouts.
                let key = (from.layout.clone(), to.layout.clone(), dtype);
                match placer.staged.get(&key) {
                    Some(bytes) => *bytes,
                    None => {
                        let bytes = scratch_bytes(&module.grids, exchange, from, to, dtype)
                            .map_err(|e| unsupported(&e, reshard.loc.as_ref()))?;
                        placer.staged.insert(key, bytes);
                        bytes
                    }
                }
            }
            Stmt::Repeat(repeat) => {
                let cause = crate::emit::Unsupported::new("loops over distributed values");
                return Err(unsupported(&cause, repeat.loc.as_ref()).into());
            }
            _ => {
                let uses = (&[][..], &last_uses);
                let phase = phase(
                    &mut placer.code,
                    module,
                    function,
                    &schedule,
                    range.clone(),
                    uses,
                );
                phase.map_err(|e| refused(&e))?.scratch_bytes()
            }
        };
        // Whatever the addresses: the rest need not be known where only this is asked.
        let least = live[range.start].saturating_add(bytes);
        if check == Check::Early && least > machine.core_sram_bytes() {
            return Err(Failure::Full(least));
        }
        needs.push((range.start, bytes));
    }
    assign(module, function, &mut schedule, &needs, (machine, check))?;
    Ok(schedule)
}

/// Bytes of the values that live at each statement.
fn live_bytes(stmts: usize, schedule: &Schedule) -> Vec<u64> {
    let mut changes = vec![0i128; stmts + 2];
    for storage in schedule.storage.values() {
        if storage.alias.is_none() {
            changes[storage.live.start.min(stmts)] += i128::from(storage.bytes);
            changes[storage.live.end.min(stmts)] -= i128::from(storage.bytes);
        }
    }
    let mut live = 0;
    let totals = changes.iter().map(|change| {
        live += change;
        u64::try_from(live).unwrap_or(u64::MAX)
    });
    totals.collect()
}

/// The phase that a statement is in.
fn phase_of(phases: &[Range<usize>], at: usize) -> Range<usize> {
    let next = phases.partition_point(|phase| phase.end <= at);
    let phase = phases.get(next).filter(|phase| phase.contains(&at));
    phase.cloned().unwrap_or(at..at + 1)
}

/// Where values lie, without addresses: bytes, strides, lives.
fn storage(
    module: &Module,
    function: &Function,
) -> Result<BTreeMap<ValueId, Storage>, Diagnostics> {
    let body = &function.bodies[function.body()];
    let end = body.stmts.len() + 1;
    let mut storage: BTreeMap<ValueId, Storage> = BTreeMap::new();
    let make = |value: ValueId, live: Range<usize>, alias: Option<ValueId>| {
        let data = &function.values[value];
        let extents = data.layout.largest_window(&module.grids[data.layout.grid]);
        let dtype = data.ty.dtype;
        let strides = dense_strides(dtype, &extents, Packing::Strided);
        let bytes = extents
            .iter()
            .try_fold(dtype.bytes(), |n, e| n.checked_mul(*e));
        let (Some(strides), Some(bytes)) = (strides, bytes) else {
            let name = data.name.as_deref().unwrap_or("?");
            let message = format!("`{name}` has more bytes on a core than can be counted");
            return Err(Diagnostics::from(Diagnostic::new(
                DOES_NOT_FIT,
                Kind::Limit,
                message,
            )));
        };
        Ok(Storage {
            address: 0,
            bytes,
            strides,
            live,
            alias,
            fill: None,
        })
    };
    for (id, value) in function.values.iter() {
        // What the host writes is there from the start; weights and states stay.
        match value.def {
            ValueDef::Param(..) => storage.insert(id, make(id, 0..1, None)?),
            ValueDef::Weight(_) | ValueDef::State(_) => storage.insert(id, make(id, 0..end, None)?),
            ValueDef::Stmt(_) => None,
        };
    }
    let ranges = phases(body);
    let phase_of = |at: usize| phase_of(&ranges, at);
    let mut uses: Vec<(ValueId, usize)> = vec![];
    for (at, stmt) in body.stmts.iter().enumerate() {
        let phase = phase_of(at);
        let define = |storage: &mut BTreeMap<ValueId, Storage>, value, alias| {
            make(value, phase.start..phase.end, alias).map(|made| storage.insert(value, made))
        };
        match stmt {
            Stmt::Group(group) => {
                for step in &group.steps {
                    uses.extend(step.args.iter().map(|v| (*v, phase.end)));
                    for result in &step.results {
                        define(&mut storage, *result, None)?;
                    }
                }
            }
            Stmt::Reshard(reshard) => {
                uses.push((reshard.input, phase.end));
                define(&mut storage, reshard.output, None)?;
            }
            Stmt::View { input, output, .. } => {
                let root = storage.get(input).and_then(|s| s.alias).unwrap_or(*input);
                define(&mut storage, *output, Some(root))?;
            }
            Stmt::Repeat(repeat) => {
                for result in &repeat.results {
                    define(&mut storage, *result, None)?;
                }
            }
        }
    }
    uses.extend(body.results.iter().map(|v| (*v, end)));
    for (value, until) in uses {
        let root = storage.get(&value).and_then(|s| s.alias).unwrap_or(value);
        for id in [value, root] {
            if let Some(storage) = storage.get_mut(&id) {
                storage.live.end = storage.live.end.max(until);
            }
        }
    }
    // A view of a view is the same bytes, so both live as long.
    for stmt in body.stmts.iter().rev() {
        let Stmt::View { input, output, .. } = stmt else {
            continue;
        };
        let until = storage.get(output).map_or(0, |view| view.live.end);
        if let Some(viewed) = storage.get_mut(input) {
            viewed.live.end = viewed.live.end.max(until);
        }
    }
    Ok(storage)
}

/// What borders of windows hold, as the steps that read them need it.
fn borders(function: &Function, schedule: &mut Schedule) -> Result<(), Diagnostics> {
    let body = &function.bodies[function.body()];
    let resharded: BTreeSet<ValueId> = (body.stmts.iter())
        .filter_map(|stmt| match stmt {
            Stmt::Reshard(reshard) => Some(reshard.output),
            _ => None,
        })
        .collect();
    for stmt in &body.stmts {
        let Stmt::Group(group) = stmt else { continue };
        for step in &group.steps {
            let types = |values: &[ValueId]| {
                values
                    .iter()
                    .map(|v| function.values[*v].ty.clone())
                    .collect::<Vec<_>>()
            };
            if !step.args.iter().any(|v| resharded.contains(v)) {
                continue;
            }
            let refuse = |e: crate::emit::Unsupported| unsupported(&e, step.loc.as_ref());
            let rule = coalesced(
                &step.op,
                &types(&step.args),
                &types(&step.results),
                &step.loops,
            );
            let rule = rule.map_err(|e| refuse(crate::emit::Unsupported::new(e)))?;
            let StepRule::Loop(access) = &rule.rule else {
                continue;
            };
            for (n, value) in step.args.iter().enumerate() {
                if resharded.contains(value) {
                    let fill: Option<Number> = kernel::fill_value(access, n).map_err(refuse)?;
                    if let (Some(storage), Some(fill)) = (schedule.storage.get_mut(value), fill) {
                        storage.fill = Some(fill);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Gives values and scratch memory their addresses.
fn assign(
    module: &Module,
    function: &Function,
    schedule: &mut Schedule,
    needs: &[(usize, u64)],
    (machine, check): (&Machine, Check),
) -> Result<(), Failure> {
    let body = &function.bodies[function.body()];
    let ranges = phases(body);
    let roots: Vec<ValueId> = schedule
        .storage
        .iter()
        .filter(|(_, s)| s.alias.is_none())
        .map(|(id, _)| *id)
        .collect();
    let mut items: Vec<Item> = (roots.iter())
        .map(|id| Item {
            bytes: schedule.storage[id].bytes,
            live: schedule.storage[id].live.clone(),
        })
        .collect();
    for (at, bytes) in needs {
        items.push(Item {
            bytes: *bytes,
            live: phase_of(&ranges, *at),
        });
    }
    let (addresses, high) = allocate(&items);
    if high > machine.core_sram_bytes() {
        let memory = Memory {
            module,
            function,
            schedule,
            roots: &roots,
            items: &items,
            machine,
        };
        return Err(match check {
            Check::Early | Check::Values => Failure::Full(high),
            Check::Whole => Failure::Found(memory.report(high).into()),
        });
    }
    for (id, address) in roots.iter().zip(&addresses) {
        if let Some(storage) = schedule.storage.get_mut(id) {
            storage.address = *address;
        }
    }
    let of_roots: BTreeMap<ValueId, u64> = roots
        .iter()
        .copied()
        .zip(addresses.iter().copied())
        .collect();
    for storage in schedule.storage.values_mut() {
        if let Some(root) = storage.alias {
            storage.address = of_roots.get(&root).copied().unwrap_or(0);
        }
    }
    for ((at, bytes), address) in needs.iter().zip(&addresses[roots.len()..]) {
        if *bytes > 0 {
            schedule.scratch.push((*at, *address, *bytes));
        }
    }
    Ok(())
}
