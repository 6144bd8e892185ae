//! MESH to PROGRAM: tensors, one call for each phase, the entry.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind};
use dojoc_ir::graph;
use dojoc_ir::machine::Machine;
use dojoc_ir::mesh::{Module, Schedule};
use dojoc_ir::program::{Entry, Home, IndexExpr, Program, Shard, Step, TensorId, TensorKind};
use dojoc_ir::tiled::{Function, Layout, Stmt, Value, ValueDef, ValueId};

use super::{phases, refused, unsupported};
use crate::emit::Unsupported;
use crate::emit::compute::{LastUses, phase};
use crate::emit::exchange::{Side, emit_exchange};
use crate::emit::program::ProgramBuilder;
use crate::emit::shards::shards;
use crate::emit::tensors::{declare, recipe, state_init};
use crate::tile::NOT_TILED;

/// What users decide about emission.
#[derive(Clone, Debug, Default)]
pub struct ProgramOptions {
    /// Names of values that can be read as probes, each under its shape or the view of its layout.
    pub probes: BTreeSet<Arc<str>>,
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
            inputs.push(self.tensor(*value, name, TensorKind::Input)?);
        }
        self.sources()?;
        let mut probed = BTreeSet::new();
        for range in phases(body) {
            let probes = self.probes(range.clone(), options, &mut probed);
            self.phase(range, &probes)?;
            for value in probes {
                let tensor = self.probe(value)?;
                self.cx.steps.push(Step::Probe(tensor));
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
            outputs.push(self.tensor(*value, output.name.clone(), TensorKind::Output)?);
        }
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

    /// Declares a value as a tensor under its own shape.
    fn tensor(
        &mut self,
        value: ValueId,
        name: Arc<str>,
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
            None,
        ))
    }

    /// Declares a value as a probe: under its own shape, or under the view that its layout splits where
    /// that is cut in a way that the value's own dims cannot say.
    fn probe(&mut self, value: ValueId) -> Result<TensorId, Diagnostics> {
        let data = &self.function.values[value];
        let own = data.ty.shape.as_const().unwrap_or_default();
        let name = self.unique(&data.name.clone().unwrap_or_default());
        let (shape, shards) = match self.shards(value, &own, true) {
            Ok(shards) => (own, shards),
            Err(_) => {
                let view = data.layout.view.clone();
                let shards = self.shards(value, &view, true)?;
                (view, shards)
            }
        };
        let (kind, dtype) = (TensorKind::Probe, data.ty.dtype);
        Ok(declare(self.cx, name, kind, dtype, &shape, shards, None))
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

    /// Weights and states, in each layout that they have.
    fn sources(&mut self) -> Result<(), Diagnostics> {
        let tiled = &self.module.tiled;
        let failed = |e: Unsupported| unsupported(&e, None);
        for (id, value) in self.function.values.iter() {
            let Value { layout, ty, .. } = value;
            match value.def {
                ValueDef::Weight(weight) => {
                    let weight = &tiled.weights[weight];
                    let name = self.unique(&weight.name);
                    let recipe = recipe(weight, &layout.view).map_err(failed)?;
                    let shards = self.shards(id, &layout.view, false)?;
                    let kind = TensorKind::Weight(recipe);
                    declare(self.cx, name, kind, ty.dtype, &layout.view, shards, None);
                }
                ValueDef::State(state) => {
                    let state = &tiled.states[state];
                    let init = state_init(&state.init, || match state.init {
                        graph::StateInit::Weight(weight) => Some(tiled.weights[weight].clone()),
                        graph::StateInit::Zeros => None,
                    });
                    let kind = TensorKind::State(init.map_err(failed)?);
                    let shape = ty.shape.as_const().unwrap_or_default();
                    let name = self.unique(&state.name);
                    let shards = self.shards(id, &shape, false)?;
                    declare(self.cx, name, kind, ty.dtype, &shape, shards, None);
                }
                ValueDef::Param(..) | ValueDef::Stmt(_) => {}
            }
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
                let grids = &self.module.tiled.grids;
                let (from, to) = (of(reshard.input), of(reshard.output));
                emit_exchange(self.cx, grids, exchange, from, to, dtype, scratch, loc)
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

    /// The values that a phase makes and that the host wants to read after it.
    fn probes(
        &self,
        range: std::ops::Range<usize>,
        options: &ProgramOptions,
        probed: &mut BTreeSet<Arc<str>>,
    ) -> Vec<ValueId> {
        if options.probes.is_empty() {
            return vec![];
        }
        let body = &self.function.bodies[self.function.body()];
        let made = body.stmts[range].iter().filter_map(|stmt| match stmt {
            Stmt::Group(group) => {
                Some(group.steps.iter().flat_map(|s| s.results.clone()).collect())
            }
            Stmt::View { output, .. } => Some(vec![*output]),
            _ => None,
        });
        let wanted = made.flatten().collect::<Vec<ValueId>>().into_iter();
        wanted
            .filter(|value| {
                let name = &self.function.values[*value].name;
                name.as_ref()
                    .is_some_and(|n| options.probes.contains(n) && probed.insert(n.clone()))
            })
            .collect()
    }
}
