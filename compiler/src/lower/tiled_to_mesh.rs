//! TILED to MESH: places, flows, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use dojoc_ir::attr::Number;
use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Place};
use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::machine::{CoreAddress, Machine};
use dojoc_ir::mesh::{Exchange, Schedule, Storage};
use dojoc_ir::program::{Packing, RouteRule, dense_strides};
use dojoc_ir::tiled::{
    FuncId, Function, Grid, GridId, Layout, Module, Reshard, StepRule, Stmt, ValueDef, ValueId,
    coalesced,
};
use dojoc_ir::types::DType;
use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

use super::memory::Memory;
use super::mesh_to_program::Plans;
use super::{phases, refused, unsupported};
use crate::emit::compute::{LastUses, phase};
use crate::emit::exchange::{Planned, Side, Transfer};
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
    plans: HashMap<ExchangeOf, Arc<Planned>>,
    /// Scratch memory is known once code is there.
    code: ProgramBuilder,
}

/// What the plan of an exchange depends on: storage follows from the layouts.
type ExchangeOf = ((Layout, Layout), DType);

/// An exchange with its plan for one element type.
type Found = (Arc<Exchange>, Arc<Planned>);

/// An exchange that is being looked for.
struct Wanted<'a> {
    reshard: &'a Reshard,
    key: &'a ExchangeOf,
    /// If the same layouts were met before.
    exchange: Option<Arc<Exchange>>,
    found: OnceLock<Result<Found, Diagnostics>>,
}

impl Wanted<'_> {
    fn find(&self, grids: &PrimaryMap<GridId, Grid>, storage: &BTreeMap<ValueId, Storage>) {
        self.found.get_or_init(|| {
            let ((from, to), dtype) = self.key;
            let loc = self.reshard.loc.as_ref();
            let exchange = match &self.exchange {
                Some(known) => known.clone(),
                None => Arc::new(exchange(grids, from, to).map_err(|cause| {
                    let message = cause.to_string();
                    let diagnostic = Diagnostic::new(NO_EXCHANGE, Kind::Unsupported, message);
                    match loc {
                        Some(loc) => diagnostic.at(Place::Node(loc.clone())),
                        None => diagnostic,
                    }
                })?),
            };
            let side = |layout, value| Side {
                layout,
                storage: &storage[&value],
            };
            let transfer = Transfer {
                grids,
                exchange: &exchange,
                from: side(from, self.reshard.input),
                to: side(to, self.reshard.output),
                dtype: *dtype,
            };
            let plan = transfer.planned().map_err(|e| unsupported(&e, loc))?;
            Ok((exchange, Arc::new(plan)))
        });
    }
}

impl<'m> Placer<'m> {
    /// Nothing is known yet.
    pub fn new(machine: &'m Machine) -> Self {
        let (places, route) = (snake(machine, 0).unwrap_or_default(), RouteRule::default());
        Self {
            machine,
            exchanges: HashMap::new(),
            plans: HashMap::new(),
            code: ProgramBuilder::new("", machine, places.clone(), route),
            places,
        }
    }

    /// Places a model: the schedule of each function, and the plans of its exchanges.
    ///
    /// # Errors
    /// Reshards that no exchange carries out, steps that there are no instructions for, and values
    /// that do not fit into memory.
    pub fn place(
        &mut self,
        tiled: &Module,
        check: Check,
    ) -> Result<(PrimaryMap<FuncId, Schedule>, Vec<Plans>), Failure> {
        let (mut schedules, mut plans) = (PrimaryMap::new(), vec![]);
        for function in tiled.functions.values() {
            let (schedule, of_function) = self.schedule(tiled, function, check)?;
            schedules.push(schedule);
            plans.push(of_function);
        }
        Ok((schedules, plans))
    }

    fn schedule(
        &mut self,
        module: &Module,
        function: &Function,
        check: Check,
    ) -> Result<(Schedule, Plans), Failure> {
        let machine = self.machine;
        let mut schedule = Schedule {
            places: self.places.clone(),
            ..Schedule::default()
        };
        schedule.storage = storage(module, function)?;
        let stmts = function.bodies[function.body()].stmts.len();
        let live = live_bytes(stmts, &schedule);
        let most = live.iter().copied().max().unwrap_or(0);
        if check != Check::Whole && most > machine.core_sram_bytes() {
            return Err(Failure::Full(most));
        }
        borders(function, &mut schedule)?;
        let (needs, plans) = self.needs(module, function, &mut schedule, (&live, check))?;
        assign(module, function, &mut schedule, &needs, (machine, check))?;
        Ok((schedule, plans))
    }

    /// The scratch memory of each phase in bytes, by its first statement, and the plans of exchanges, which
    /// become known to the schedule. Addresses do not change the code.
    fn needs(
        &mut self,
        module: &Module,
        function: &Function,
        schedule: &mut Schedule,
        (live, check): (&[u64], Check),
    ) -> Result<(Vec<(usize, u64)>, Plans), Failure> {
        let body = &function.bodies[function.body()];
        let memory = (check == Check::Early).then(|| self.machine.core_sram_bytes());
        // Whatever the addresses: the rest need not be known where only this is asked.
        let enough = |at: usize, bytes: u64| match (live[at].saturating_add(bytes), memory) {
            (least, Some(memory)) if least > memory => Err(Failure::Full(least)),
            _ => Ok((at, bytes)),
        };
        let reshards = body.stmts.iter().enumerate().filter_map(|(at, stmt)| {
            let Stmt::Reshard(reshard) = stmt else {
                return None;
            };
            let [from, to] = [reshard.input, reshard.output].map(|v| &function.values[v]);
            let key: ExchangeOf = ((from.layout.clone(), to.layout.clone()), from.ty.dtype);
            Some((at, reshard, key))
        });
        let reshards: Vec<(usize, &Reshard, ExchangeOf)> = reshards.collect();
        let mut wanted: Vec<Wanted<'_>> = vec![];
        let mut seen = HashSet::new();
        for (_, reshard, key) in &reshards {
            if !self.plans.contains_key(key) && seen.insert(key) {
                wanted.push(Wanted {
                    reshard,
                    key,
                    exchange: self.exchanges.get(&key.0).cloned(),
                    found: OnceLock::new(),
                });
            }
        }
        let (grids, storage) = (&module.grids, &schedule.storage);
        let stop = &AtomicBool::new(false);
        let code = &mut self.code;
        let needs = rayon::in_place_scope(|scope| {
            for wanted in &wanted {
                scope.spawn(move |_| {
                    if !stop.load(Ordering::Relaxed) {
                        wanted.find(grids, storage);
                    }
                });
            }
            let needs = of_steps(code, module, function, schedule);
            let needs =
                needs.and_then(|list| list.into_iter().map(|(a, b)| enough(a, b)).collect());
            stop.store(needs.is_err(), Ordering::Relaxed);
            needs
        });
        let mut needs: Vec<(usize, u64)> = needs?;
        for wanted in wanted {
            if let Some(found) = wanted.found.into_inner() {
                let (exchange, plan) = found?;
                let (layouts, _) = wanted.key;
                self.exchanges.entry(layouts.clone()).or_insert(exchange);
                self.plans.insert(wanted.key.clone(), plan);
            }
        }
        let mut plans = vec![];
        for (at, _, key) in reshards {
            let (exchange, plan) = (&self.exchanges[&key.0], &self.plans[&key]);
            needs.push(enough(at, plan.scratch_bytes())?);
            schedule.exchanges.push((at, exchange.clone()));
            plans.push((at, plan.clone()));
        }
        needs.sort_unstable();
        Ok((needs, plans))
    }
}

/// The scratch memory of each phase of steps in bytes, by its first statement.
fn of_steps(
    code: &mut ProgramBuilder,
    module: &Module,
    function: &Function,
    schedule: &Schedule,
) -> Result<Vec<(usize, u64)>, Failure> {
    let body = &function.bodies[function.body()];
    let last_uses = LastUses::of(body);
    let mut needs = vec![];
    for range in phases(body) {
        match &body.stmts[range.start] {
            Stmt::Reshard(_) => {}
            Stmt::Repeat(repeat) => {
                let cause = crate::emit::Unsupported::new("loops over distributed values");
                return Err(unsupported(&cause, repeat.loc.as_ref()).into());
            }
            _ => {
                let (at, uses) = (range.start, (&[][..], &last_uses));
                let phase = phase(code, module, function, schedule, range, uses);
                needs.push((at, phase.map_err(|e| refused(&e))?.scratch_bytes()));
            }
        }
    }
    Ok(needs)
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
            let has_border = |value: &ValueId| {
                let Layout { splits, view, .. } = &function.values[*value].layout;
                let mut dims = splits.iter().zip(view);
                resharded.contains(value) && dims.any(|(split, extent)| !split.is_plain(*extent))
            };
            if !step.args.iter().any(has_border) {
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
                if has_border(value) {
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
    let (addresses, high) = allocate(&items, machine.core_sram_bytes());
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
