//! MESH to PROGRAM: tensors, one call for each phase, the entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Loc};
use dojoc_ir::graph;
use dojoc_ir::machine::Machine;
use dojoc_ir::mesh::{Module, Schedule};
use dojoc_ir::program::{Entry, Home, IndexExpr, Program, Shard, Step, TensorId, TensorKind};
use dojoc_ir::tiled::{Body, Function, Layout, Stmt, ValueDef, ValueId};
use foldhash::{HashMap, HashMapExt as _};

use super::{phases, refused, unsupported};
use crate::emit::Unsupported;
use crate::emit::compute::{LastUses, phase};
use crate::emit::exchange::{Planned, Side, Transfer, emit_exchange};
use crate::emit::program::ProgramBuilder;
use crate::emit::shards::shards;
use crate::emit::tensors::{declare, recipe, state_init};
use crate::tile::NOT_TILED;

/// What users decide about emission.
#[derive(Clone, Debug, Default)]
pub struct ProgramOptions {
    /// Values that can be read as probes, each under its shape or the view of its layout.
    pub probes: Probes,
}

/// Named values that the host can read while a program runs. They cost a declaration each and nothing
/// of the machine: a value lies at its place until the code that makes it has ended, wanted or not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Probes {
    /// Every one.
    #[default]
    All,
    /// None.
    None,
    /// Those of these names, and those that the ops of these names make.
    Named(BTreeSet<Arc<str>>),
}

impl Probes {
    fn has(&self, name: &Arc<str>, op: Option<&Arc<Loc>>) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Named(names) => {
                names.contains(name) || op.is_some_and(|loc| names.contains(&loc.name))
            }
        }
    }
}

/// Emits the program of a placed model: an entry for each function.
///
/// # Errors
/// What there are no instructions for.
pub fn mesh_to_program(
    module: &Module,
    machine: &Machine,
    options: &ProgramOptions,
) -> Result<Program, Diagnostics> {
    planned_to_program(module, machine, options, &[])
}

/// The exchanges of a function that are planned already, by the position of their statements.
pub(super) type Plans = Vec<(usize, Arc<Planned>)>;

/// As [`mesh_to_program`], with plans for exchanges by function.
pub(super) fn planned_to_program(
    module: &Module,
    machine: &Machine,
    options: &ProgramOptions,
    plans: &[Plans],
) -> Result<Program, Diagnostics> {
    let mut functions = module.tiled.functions.iter();
    let Some((id, function)) = functions.next() else {
        let places = dojoc_ir::machine::CoreAddress {
            chip: 0,
            row: 0,
            column: 0,
        };
        let cx = ProgramBuilder::new(
            module.name().clone(),
            machine,
            vec![places],
            Default::default(),
        );
        return Ok(cx.finish());
    };
    if functions.next().is_some() {
        let message =
            "a program of several functions is not emitted yet; choose one with `--entry`";
        return Err(Diagnostic::new(NOT_TILED, Kind::Unsupported, message).into());
    }
    let schedule = &module.schedules[id];
    let mut cx = ProgramBuilder::new(
        module.name().clone(),
        machine,
        schedule.places.clone(),
        schedule.route,
    );
    let mut emitter = Emitter {
        cx: &mut cx,
        module,
        function,
        schedule,
        plans: plans.first().map_or(&[], |plans| &plans[..]),
        names: BTreeSet::from([function.name.clone()]),
        last_uses: LastUses::of(&function.bodies[function.body()]),
        shards: HashMap::new(),
    };
    let entry = emitter.run(options)?;
    let steps = std::mem::take(&mut cx.steps);
    cx.program.entries.push(Entry { steps, ..entry });
    Ok(cx.finish())
}

struct Emitter<'a> {
    cx: &'a mut ProgramBuilder,
    module: &'a Module,
    function: &'a Function,
    schedule: &'a Schedule,
    plans: &'a [(usize, Arc<Planned>)],
    names: BTreeSet<Arc<str>>,
    last_uses: LastUses,
    /// Shards that are known, where all of a tensor lie at its address.
    shards: HashMap<ShardsKey<'a>, Vec<Shard>>,
}

/// What shards depend on beside their address: layout, strides, shape of the tensor, and whether all
/// replicas are meant.
type ShardsKey<'a> = (&'a Layout, &'a [i64], Vec<u64>, bool);

/// A shard at another address; `None` beyond 63 bits.
fn at(shard: &Shard, address: u64) -> Option<Shard> {
    let mut shard = shard.clone();
    if let Home::Sram { at, .. } = &mut shard.home {
        *at = IndexExpr::constant(i64::try_from(address).ok()?);
    }
    Some(shard)
}

impl Emitter<'_> {
    fn run(&mut self, options: &ProgramOptions) -> Result<Entry, Diagnostics> {
        let body = &self.function.bodies[self.function.body()];
        let mut inputs = vec![];
        for (position, value) in body.params.iter().enumerate() {
            let name = self.function.values[*value].name.clone();
            let name = name.unwrap_or_else(|| position.to_string().into());
            inputs.push(self.tensor(*value, (name, None), TensorKind::Input)?);
        }
        self.states()?;
        let ops = ops(body);
        let mut probed = self.known_names();
        for range in phases(body) {
            let probes = self.probes(range.clone(), options, &ops, &mut probed);
            self.phase(range, &probes)?;
            for value in probes {
                if let Some(tensor) = self.probe(value, ops.get(&value).copied()) {
                    self.cx.steps.push(Step::Probe(tensor));
                }
            }
        }
        let mut outputs = vec![];
        for (output, value) in self.function.outputs.iter().zip(&body.results) {
            if output.aliases.is_some() {
                let message = format!(
                    "the output `{}` updates a state, which is not emitted yet",
                    output.name
                );
                return Err(Diagnostic::new(NOT_TILED, Kind::Unsupported, message).into());
            }
            let name = (output.name.clone(), ops.get(value).copied());
            outputs.push(self.tensor(*value, name, TensorKind::Output)?);
        }
        self.weights()?;
        Ok(Entry {
            name: self.function.name.clone(),
            inputs,
            outputs,
            steps: vec![],
        })
    }

    /// A name that no tensor has yet.
    fn unique(&mut self, name: &str) -> Arc<str> {
        let mut unique: Arc<str> = name.into();
        let mut number = 1;
        while !self.names.insert(unique.clone()) {
            number += 1;
            unique = format!("{name}@{number}").into();
        }
        unique
    }

    /// Declares a value as a tensor under its own shape. It is the result of `op`.
    fn tensor(
        &mut self,
        value: ValueId,
        (name, op): (Arc<str>, Option<&Arc<Loc>>),
        kind: TensorKind,
    ) -> Result<TensorId, Diagnostics> {
        let data = &self.function.values[value];
        let shape = data.ty.shape.as_const().unwrap_or_default();
        let once = !matches!(kind, TensorKind::Input);
        let name = self.unique(&name);
        let shards = self.shards(value, &shape, once)?;
        Ok(declare(
            self.cx,
            name,
            kind,
            data.ty.dtype,
            &shape,
            shards,
            op.map(|loc| &**loc),
        ))
    }

    /// Declares a value as a probe: under its own shape, or under the view that its layout splits where
    /// that is cut in a way that the value's own dims cannot say. `None` if neither can be said.
    fn probe(&mut self, value: ValueId, op: Option<&Arc<Loc>>) -> Option<TensorId> {
        let data = &self.function.values[value];
        let own = data.ty.shape.as_const().unwrap_or_default();
        let (shape, shards) = match self.shards(value, &own, true) {
            Ok(shards) => (own, shards),
            Err(_) => {
                let view = data.layout.view.clone();
                let shards = self.shards(value, &view, true).ok()?;
                (view, shards)
            }
        };
        let name = self.unique(&data.name.clone().unwrap_or_default());
        let (kind, dtype) = (TensorKind::Probe, data.ty.dtype);
        let loc = op.map(|loc| &**loc);
        Some(declare(self.cx, name, kind, dtype, &shape, shards, loc))
    }

    fn shards(
        &mut self,
        value: ValueId,
        shape: &[u64],
        once: bool,
    ) -> Result<Vec<Shard>, Diagnostics> {
        let layout = &self.function.values[value].layout;
        let storage = self.schedule.storage.get(&value);
        let storage = storage
            .ok_or_else(|| unsupported(&Unsupported::new("a value without memory"), None))?;
        let key = (layout, &storage.strides[..], shape.to_vec(), !once);
        if let Some(known) = self.shards.get(&key) {
            let moved: Option<Vec<Shard>> = known.iter().map(|s| at(s, storage.address)).collect();
            return moved.ok_or_else(|| unsupported(&Unsupported::overflow(), None));
        }
        let grids = &self.module.tiled.grids;
        let made = shards(self.cx, grids, layout, storage, shape, !once);
        let made = made.map_err(|e| unsupported(&e, None))?;
        let first = i64::try_from(storage.address).ok();
        let in_one_place = made.iter().all(|shard| match &shard.home {
            Home::Sram { at, .. } => at.as_constant() == first,
            Home::Dram { .. } => false,
        });
        if in_one_place {
            self.shards.insert(key, made.clone());
        }
        Ok(made)
    }

    /// Weights, in each layout that they have. Their names give way to those of values.
    fn weights(&mut self) -> Result<(), Diagnostics> {
        for (id, value) in self.function.values.iter() {
            let ValueDef::Weight(weight) = value.def else {
                continue;
            };
            let weight = &self.module.tiled.weights[weight];
            let name = self.unique(&weight.name);
            let view = &value.layout.view;
            let recipe = recipe(weight, view).map_err(|e| unsupported(&e, None))?;
            let shards = self.shards(id, view, false)?;
            let (kind, dtype) = (TensorKind::Weight(recipe), value.ty.dtype);
            declare(self.cx, name, kind, dtype, view, shards, None);
        }
        Ok(())
    }

    fn states(&mut self) -> Result<(), Diagnostics> {
        let tiled = &self.module.tiled;
        for (id, value) in self.function.values.iter() {
            let ValueDef::State(state) = value.def else {
                continue;
            };
            let state = &tiled.states[state];
            let init = state_init(&state.init, || match state.init {
                graph::StateInit::Weight(weight) => Some(tiled.weights[weight].clone()),
                graph::StateInit::Zeros => None,
            });
            let kind = TensorKind::State(init.map_err(|e| unsupported(&e, None))?);
            let shape = value.ty.shape.as_const().unwrap_or_default();
            let name = self.unique(&state.name);
            let shards = self.shards(id, &shape, false)?;
            declare(self.cx, name, kind, value.ty.dtype, &shape, shards, None);
        }
        Ok(())
    }

    fn phase(
        &mut self,
        range: std::ops::Range<usize>,
        kept: &[ValueId],
    ) -> Result<(), Diagnostics> {
        let body = &self.function.bodies[self.function.body()];
        let scratch = self.schedule.scratch_of(range.start);
        let scratch = scratch.map_or(0, |(address, _)| address);
        match &body.stmts[range.start] {
            Stmt::Reshard(reshard) => {
                let Some(exchange) = self.schedule.exchange(range.start) else {
                    return Ok(());
                };
                let schedule = self.schedule;
                let of = |v: ValueId| Side {
                    layout: &self.function.values[v].layout,
                    storage: &schedule.storage[&v],
                };
                let dtype = self.function.values[reshard.input].ty.dtype;
                let loc = reshard.loc.as_ref().map(|loc| self.cx.loc(loc));
                let transfer = Transfer {
                    grids: &self.module.tiled.grids,
                    exchange,
                    from: of(reshard.input),
                    to: of(reshard.output),
                    dtype,
                };
                let plan = self.plans.binary_search_by_key(&range.start, |(at, _)| *at);
                let plan = plan.ok().map(|n| &*self.plans[n].1);
                emit_exchange(self.cx, &transfer, plan, scratch, loc)
                    .map_err(|e| unsupported(&e, reshard.loc.as_ref()))
            }
            _ => {
                let tiled = &self.module.tiled;
                let uses = (kept, &self.last_uses);
                let code = phase(self.cx, tiled, self.function, self.schedule, range, uses);
                let code = code.map_err(|e| refused(&e))?;
                code.call(self.cx, self.schedule, scratch)
                    .map_err(|e| unsupported(&e, None))
            }
        }
    }

    /// Names of what the host sees in any case, and of what is there before anything is computed: views
    /// of these are not told apart from them.
    fn known_names(&self) -> BTreeSet<Arc<str>> {
        let outputs = self.function.outputs.iter().map(|output| &output.name);
        let values = self.function.values.values();
        let given = values.filter(|value| !matches!(value.def, ValueDef::Stmt(_)));
        let given = given.filter_map(|value| value.name.as_ref());
        outputs.chain(given).cloned().collect()
    }

    /// The values that a phase makes and that the host wants to read after it. The first value of a name
    /// is meant; others are the same in other layouts.
    fn probes(
        &self,
        range: std::ops::Range<usize>,
        options: &ProgramOptions,
        ops: &Ops<'_>,
        probed: &mut BTreeSet<Arc<str>>,
    ) -> Vec<ValueId> {
        let body = &self.function.bodies[self.function.body()];
        let made = body.stmts[range].iter().flat_map(|stmt| match stmt {
            Stmt::Group(group) => group.steps.iter().flat_map(|s| s.results.clone()).collect(),
            Stmt::View { output, .. } => vec![*output],
            Stmt::Reshard(_) | Stmt::Repeat(_) => vec![],
        });
        made.filter(|value| {
            let data = &self.function.values[*value];
            let op = ops.get(value).copied();
            data.layout.pending.is_empty()
                && data
                    .name
                    .as_ref()
                    .is_some_and(|name| options.probes.has(name, op) && probed.insert(name.clone()))
        })
        .collect()
    }
}

/// The ops of the user's model that make values.
type Ops<'a> = BTreeMap<ValueId, &'a Arc<Loc>>;

/// Which op each value of a body is a result of; what is resharded is the same value.
fn ops(body: &Body) -> Ops<'_> {
    let mut ops = Ops::new();
    for stmt in &body.stmts {
        match stmt {
            Stmt::Group(group) => {
                for step in &group.steps {
                    let results = step.results.iter();
                    ops.extend(results.filter_map(|value| Some((*value, step.loc.as_ref()?))));
                }
            }
            Stmt::View { output, loc, .. } => {
                ops.extend(loc.as_ref().map(|loc| (*output, loc)));
            }
            Stmt::Reshard(reshard) => {
                if let Some(op) = ops.get(&reshard.input).copied() {
                    ops.insert(reshard.output, op);
                }
            }
            Stmt::Repeat(_) => {}
        }
    }
    ops
}
