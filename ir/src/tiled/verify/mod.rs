//! Checks a module. The rules:
//!
//! - weights and states are as in GRAPH; names of grids, weights, states, functions are unique;
//! - grids are well formed, and with [`verify_on`] their cores exist on the machine;
//! - every layout is well formed and has the elements of its tensor;
//! - a value is defined once, and used after its definition in the body that defines it; weights and
//!   states anywhere;
//! - every op accepts its operands, and its results have the types that its shape rule gives;
//! - a step's loops, spatial and temporal factors fit its rule; on every core the operands' blocks hold
//!   what the core's iterations read; results have the layout that follows from the split;
//! - reshards keep the value, views keep the blocks, loops carry fixed types and layouts;
//! - what is pending is combined before it is used; outputs are whole.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashSet, HashSetExt as _};

use super::parse::SourceMap;
use super::print::{step_line, stmt_line};
use super::{
    AxisLevel, BodyId, FuncId, Function, Grid, GridId, Layout, Module, Stmt, Value, ValueDef,
    ValueId,
};
use crate::codes;
use crate::diag::{Diagnostic, Diagnostics, Kind, Place};
use crate::entity::EntityId as _;
use crate::graph;
use crate::level::{self, Level};
use crate::machine::Machine;
use crate::types::MAX_RANK;

mod coverage;
mod step;

pub(super) use step::kernel_reads;

/// The most cores of a grid; the largest machines have a sixteenth of them.
const MAX_CORES: u64 = 1 << 24;

/// A part of a module that a message can be about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Entity {
    /// A grid.
    Grid(GridId),
    /// A weight.
    Weight(graph::WeightId),
    /// A state.
    State(graph::StateId),
    /// A function.
    Func(FuncId),
    /// A statement of a body, by position.
    Stmt(FuncId, BodyId, usize),
    /// A step of a group, by the positions of both.
    Step(FuncId, BodyId, usize, usize),
}

/// A broken rule.
pub type Violation = level::Violation<Entity>;

impl Violation {
    /// The violation as a diagnostic: placed in the text if `map` knows the entity, else at the
    /// node of the user's model, with the printed statement as a note.
    pub fn into_diagnostic(self, module: &Module, map: &SourceMap) -> Diagnostic {
        let kind = match self.code {
            codes::CORRUPT => Kind::Bug,
            _ => Kind::Input,
        };
        let diagnostic = Diagnostic::new(self.code, kind, self.message);
        if let Some(span) = map.get(&self.entity) {
            return diagnostic.at_span(span.clone());
        }
        let (note, loc) = describe(module, self.entity);
        let diagnostic = diagnostic.note(note);
        match loc {
            Some(loc) => diagnostic.at(Place::Node(loc)),
            None => diagnostic,
        }
    }
}

/// An entity in a note, and where it comes from.
fn describe(module: &Module, entity: Entity) -> (String, Option<std::sync::Arc<crate::diag::Loc>>) {
    let stmt = |func: FuncId, body: BodyId, at: usize| {
        let function = &module.functions[func];
        Some((function, function.bodies.get(body)?.stmts.get(at)?))
    };
    match entity {
        Entity::Grid(id) => (format!("grid `{}`", module.grids[id].name), None),
        Entity::Weight(id) => (format!("weight `{}`", module.weights[id].name), None),
        Entity::State(id) => (format!("state `{}`", module.states[id].name), None),
        Entity::Func(id) => (format!("function `{}`", module.functions[id].name), None),
        Entity::Stmt(func, body, at) => match stmt(func, body, at) {
            Some((function, stmt)) => {
                let loc = match stmt {
                    Stmt::Group(group) => group.steps.first().and_then(|s| s.loc.clone()),
                    Stmt::Reshard(reshard) => reshard.loc.clone(),
                    Stmt::View { loc, .. } => loc.clone(),
                    Stmt::Repeat(repeat) => repeat.loc.clone(),
                };
                (stmt_line(module, function, stmt), loc)
            }
            None => ("a statement".into(), None),
        },
        Entity::Step(func, body, at, step) => match stmt(func, body, at) {
            Some((function, Stmt::Group(group))) if step < group.steps.len() => {
                let step = &group.steps[step];
                (step_line(module, function, group, step), step.loc.clone())
            }
            _ => ("a step".into(), None),
        },
    }
}

impl Level for Module {
    const NAME: &'static str = "tiled";

    fn parse(text: &str) -> Result<Self, Diagnostics> {
        super::parse(text).map(|(module, _)| module)
    }

    fn verify(&self) -> Result<(), Diagnostics> {
        let map = SourceMap::new();
        let violations = verify(self).into_iter();
        Diagnostics(violations.map(|v| v.into_diagnostic(self, &map)).collect()).ok(())
    }
}

/// All broken rules of a module, in order of the module.
pub fn verify(module: &Module) -> Vec<Violation> {
    let mut v = Verifier {
        module,
        violations: vec![],
        sound: HashSet::new(),
    };
    v.declarations();
    // The rest asks grids for their cores.
    if !v.grids() {
        return v.violations;
    }
    let mut names = BTreeSet::new();
    for (id, function) in module.functions.iter() {
        if !names.insert(&function.name) {
            let message = format!("function `{}` is defined twice", function.name);
            v.report(Entity::Func(id), codes::DUPLICATE_NAME, message);
        }
        if v.is_consistent(id, function) {
            v.function(id, function);
        }
    }
    v.violations
}

/// As [`verify`], and that the grids exist on a machine.
pub fn verify_on(module: &Module, machine: &Machine) -> Vec<Violation> {
    let mut v = Verifier {
        module,
        violations: verify(module),
        sound: HashSet::new(),
    };
    for (id, grid) in module.grids.iter() {
        let size = |level: AxisLevel| -> u128 {
            let axes = grid.axes.iter().filter(|a| a.level == level);
            axes.map(|a| u128::from(a.size)).product()
        };
        let chips = size(AxisLevel::Tile) * size(AxisLevel::Chip);
        if chips > u128::from(machine.chips()) {
            let message = format!(
                "it needs {chips} chips, the machine has {}",
                machine.chips()
            );
            v.report(Entity::Grid(id), codes::BAD_GRID, message);
            continue;
        }
        let needed = u128::from(grid.first) + size(AxisLevel::Core);
        let live = (0..chips).map(|c| machine.cores_of_chip(c as u32).unwrap_or(0));
        let live = live.min().unwrap_or(0);
        if needed > u128::from(live) {
            let message =
                format!("it needs cores up to number {needed}, a chip has {live} live ones");
            v.report(Entity::Grid(id), codes::BAD_GRID, message);
        }
    }
    v.violations
}

struct Verifier<'a> {
    module: &'a Module,
    violations: Vec<Violation>,
    /// Steps without violations: those of equal layers are checked once.
    sound: HashSet<step::Key<'a>>,
}

impl<'a> Verifier<'a> {
    fn report(&mut self, entity: Entity, code: u16, message: impl Into<String>) {
        self.violations.push(Violation {
            entity,
            code,
            message: message.into(),
        });
    }

    fn grid(&self, layout: &Layout) -> &'a Grid {
        &self.module.grids[layout.grid]
    }

    /// Weights and states, by the rules of GRAPH.
    fn declarations(&mut self) {
        let tables = graph::Module {
            weights: self.module.weights.clone(),
            states: self.module.states.clone(),
            ..graph::Module::default()
        };
        for violation in graph::verify(&tables) {
            let entity = match violation.entity {
                graph::Entity::Weight(weight) => Entity::Weight(weight),
                graph::Entity::State(state) => Entity::State(state),
                graph::Entity::Func(_) | graph::Entity::Node(..) => continue,
            };
            self.report(entity, violation.code, violation.message);
        }
    }

    fn grids(&mut self) -> bool {
        let before = self.violations.len();
        let mut names = BTreeSet::new();
        for (id, grid) in self.module.grids.iter() {
            let entity = Entity::Grid(id);
            if !names.insert(&grid.name) {
                let message = format!("grid `{}` is defined twice", grid.name);
                self.report(entity, codes::DUPLICATE_NAME, message);
            }
            let mut axes = BTreeSet::new();
            for axis in &grid.axes {
                if !axes.insert(&axis.name) {
                    let message = format!("axis `{}` is defined twice", axis.name);
                    self.report(entity, codes::BAD_GRID, message);
                }
                if axis.size == 0 {
                    let message = format!("axis `{}` has no positions", axis.name);
                    self.report(entity, codes::BAD_GRID, message);
                }
            }
            if !grid.axes.is_sorted_by_key(|a| a.level) {
                let message = "axes of tiles come first, then those of chips, then those of cores";
                self.report(entity, codes::BAD_GRID, message);
            }
            let size = grid
                .axes
                .iter()
                .try_fold(1u64, |n, a| n.checked_mul(a.size));
            if size.is_none_or(|size| size > MAX_CORES) {
                let message = format!("it has more than {MAX_CORES} cores");
                self.report(entity, codes::BAD_GRID, message);
            }
        }
        self.violations.len() == before
    }

    /// Checks that the tables refer to each other as they should, so that the rest may index them.
    fn is_consistent(&mut self, id: FuncId, function: &Function) -> bool {
        let before = self.violations.len();
        let entity = Entity::Func(id);
        if function.bodies.is_empty() {
            self.report(entity, codes::CORRUPT, "the function has no body");
            return false;
        }
        for (value, data) in function.values.iter() {
            let module = self.module;
            let known = match data.def {
                ValueDef::Weight(weight) => module.weights.get(weight).is_some(),
                ValueDef::State(state) => module.states.get(state).is_some(),
                ValueDef::Param(body, _) | ValueDef::Stmt(body) => {
                    function.bodies.get(body).is_some()
                }
            };
            if !known || module.grids.get(data.layout.grid).is_none() {
                let message = format!("the grid or definition of {value} does not exist");
                self.report(entity, codes::CORRUPT, message);
            }
        }
        let mut defined = BTreeMap::new();
        let mut owners = vec![0u32; function.bodies.len()];
        owners[0] = 1;
        for (body, data) in function.bodies.iter() {
            for (position, param) in data.params.iter().enumerate() {
                defined
                    .entry(*param)
                    .or_insert_with(Vec::new)
                    .push(ValueDef::Param(body, position as u32));
            }
            for stmt in &data.stmts {
                if let Stmt::Group(group) = stmt
                    && self.module.grids.get(group.grid).is_none()
                {
                    self.report(
                        entity,
                        codes::CORRUPT,
                        format!("{} does not exist", group.grid),
                    );
                }
                if let Stmt::Repeat(repeat) = stmt {
                    match owners.get_mut(repeat.body.index()) {
                        Some(count) => *count += 1,
                        None => {
                            let message = format!("{} does not exist", repeat.body);
                            self.report(entity, codes::CORRUPT, message);
                        }
                    }
                }
                let (used, made) = operands_and_results(stmt);
                for value in used.iter().chain(&made) {
                    self.exists(entity, function, *value);
                }
                for value in made {
                    let definitions: &mut Vec<ValueDef> = defined.entry(value).or_default();
                    definitions.push(ValueDef::Stmt(body));
                }
            }
            for value in data.params.iter().chain(&data.results) {
                self.exists(entity, function, *value);
            }
        }
        if owners.iter().any(|count| *count > 1) {
            self.report(entity, codes::BAD_REPEAT, "a body belongs to two loops");
        }
        for (value, definitions) in defined {
            let def = function.values.get(value).map(|v| v.def);
            if def.is_some_and(|def| definitions != [def]) {
                let message = format!("{value} is not defined once, where it says");
                self.report(entity, codes::CORRUPT, message);
            }
        }
        self.violations.len() == before
    }

    fn exists(&mut self, entity: Entity, function: &Function, value: ValueId) {
        if function.values.get(value).is_none() {
            self.report(entity, codes::CORRUPT, format!("{value} does not exist"));
        }
    }

    fn function(&mut self, id: FuncId, function: &'a Function) {
        let before = self.violations.len();
        let places = places(id, function);
        for (value, data) in function.values.iter() {
            let entity = places.get(&value).copied().unwrap_or(Entity::Func(id));
            self.layout(entity, data);
            self.constant(entity, data);
        }
        // Blocks of a malformed layout cannot be asked for.
        if self.violations.len() > before {
            return;
        }
        self.body(id, function, function.body(), 0);
        self.outputs(id, function);
    }

    /// A layout by itself and with the type of its value.
    fn layout(&mut self, entity: Entity, value: &Value) {
        let (layout, ty) = (&value.layout, &value.ty);
        let grid = self.grid(layout);
        let Some(elements) = ty.shape.as_const().filter(|_| ty.addressable()) else {
            let message = format!("{ty} has extents that are symbolic or too large");
            return self.report(entity, codes::TOO_LARGE, message);
        };
        let product = |extents: &[u64]| extents.iter().try_fold(1u64, |n, e| n.checked_mul(*e));
        if layout.view.len() != layout.splits.len() || layout.view.len() > MAX_RANK {
            let message = format!(
                "a view of {} dims with {} splits",
                layout.view.len(),
                layout.splits.len()
            );
            self.report(entity, codes::BAD_LAYOUT, message);
        }
        if product(&layout.view) != product(&elements) {
            let message = format!("the view {:?} has not the elements of {ty}", layout.view);
            self.report(entity, codes::BAD_LAYOUT, message);
        }
        if layout.splits.iter().any(|s| s.unit == 0 || s.stride == 0) {
            let message = "a split has a unit or stride of zero";
            self.report(entity, codes::BAD_LAYOUT, message);
        }
        let split = layout.splits.iter().flat_map(|s| s.axes.iter().copied());
        let mut used = BTreeSet::new();
        for axis in split.chain(layout.pending.iter().map(|p| p.axis)) {
            match grid.axes.get(axis) {
                None => {
                    let message = format!("grid `{}` has no axis {axis}", grid.name);
                    self.report(entity, codes::BAD_LAYOUT, message);
                }
                Some(data) if !used.insert(axis) => {
                    let message = format!("axis `{}` is used twice", data.name);
                    self.report(entity, codes::BAD_LAYOUT, message);
                }
                Some(_) => {}
            }
        }
        if !layout.pending.is_sorted_by_key(|p| p.axis) {
            let message = "pending axes stand in ascending order";
            self.report(entity, codes::BAD_LAYOUT, message);
        }
        if layout.pending.iter().any(|p| p.monoid.arity() != 1) {
            let message = "pairs of value and index cannot be pending";
            self.report(entity, codes::BAD_PENDING, message);
        }
    }

    /// What comes from outside has its type and is a value, not contributions.
    fn constant(&mut self, entity: Entity, value: &Value) {
        let module = self.module;
        let declared = match value.def {
            ValueDef::Weight(weight) => Some(&module.weights[weight].ty),
            ValueDef::State(state) => Some(&module.states[state].ty),
            ValueDef::Param(body, _) if body.index() == 0 => None,
            ValueDef::Param(..) | ValueDef::Stmt(_) => return,
        };
        if let Some(ty) = declared.filter(|ty| **ty != value.ty) {
            let message = format!("a value of {} is declared as {ty}", value.ty);
            self.report(entity, codes::TYPE_MISMATCH, message);
        }
        if !value.layout.pending.is_empty() {
            let message = "an input, weight or state cannot be pending";
            self.report(entity, codes::BAD_PENDING, message);
        }
    }

    fn body(&mut self, id: FuncId, function: &'a Function, body: BodyId, depth: usize) {
        let data = &function.bodies[body];
        let mut defined: BTreeSet<ValueId> = data.params.iter().copied().collect();
        for (position, stmt) in data.stmts.iter().enumerate() {
            let entity = Entity::Stmt(id, body, position);
            match stmt {
                Stmt::Group(group) => {
                    for (number, step) in group.steps.iter().enumerate() {
                        let entity = Entity::Step(id, body, position, number);
                        self.visible(entity, function, &defined, &step.args);
                        self.step(entity, function, group, step);
                        defined.extend(&step.results);
                    }
                    continue;
                }
                Stmt::Reshard(reshard) => {
                    self.reshard(entity, function, reshard.input, reshard.output);
                }
                Stmt::View { input, output, .. } => self.view(entity, function, *input, *output),
                Stmt::Repeat(repeat) => {
                    self.repeat(entity, function, repeat);
                    if depth >= super::parse::MAX_DEPTH {
                        let message = format!("loops are nested more than {depth} deep");
                        self.report(entity, codes::TOO_DEEP, message);
                    } else {
                        self.body(id, function, repeat.body, depth + 1);
                    }
                }
            }
            let (used, made) = operands_and_results(stmt);
            self.visible(entity, function, &defined, &used);
            defined.extend(made);
        }
        self.visible(Entity::Func(id), function, &defined, &data.results);
    }

    fn visible(
        &mut self,
        entity: Entity,
        function: &Function,
        defined: &BTreeSet<ValueId>,
        values: &[ValueId],
    ) {
        for value in values {
            let data = &function.values[*value];
            let global = matches!(data.def, ValueDef::Weight(_) | ValueDef::State(_));
            if !global && !defined.contains(value) {
                let name = data.name.as_ref();
                let name = name.map_or(value.to_string(), |n| format!("%{n}"));
                let message = format!("`{name}` is used where it is not defined");
                self.report(entity, codes::DOMINANCE, message);
            }
        }
    }

    fn reshard(&mut self, entity: Entity, function: &Function, input: ValueId, output: ValueId) {
        let (from, to) = (&function.values[input], &function.values[output]);
        if from.ty != to.ty {
            let message = format!("{} becomes {}", from.ty, to.ty);
            return self.report(entity, codes::BAD_RESHARD, message);
        }
        let kept = |p| from.layout.grid == to.layout.grid && from.layout.pending.contains(p);
        if !to.layout.pending.iter().all(kept) {
            let message = "the result is pending where the input is not, or by another combination";
            self.report(entity, codes::BAD_RESHARD, message);
        }
        let grids = (self.grid(&from.layout), self.grid(&to.layout));
        if let Err(message) = coverage::resharded((&from.layout, grids.0), (&to.layout, grids.1)) {
            self.report(entity, codes::BAD_RESHARD, message);
        }
    }

    fn view(&mut self, entity: Entity, function: &Function, input: ValueId, output: ValueId) {
        let (from, to) = (&function.values[input], &function.values[output]);
        if from.ty.dtype != to.ty.dtype {
            let message = format!("{} becomes {}", from.ty, to.ty);
            self.report(entity, codes::BAD_VIEW, message);
        }
        if from.layout.with_view(&to.layout.view).as_ref() != Some(&to.layout) {
            let message = "the result has another layout";
            self.report(entity, codes::BAD_VIEW, message);
        }
    }

    fn repeat(&mut self, entity: Entity, function: &Function, repeat: &super::Repeat) {
        let body = &function.bodies[repeat.body];
        let lists = [&body.params, &body.results, &repeat.results];
        let count = repeat.inits.len();
        if lists.iter().any(|list| list.len() != count) {
            let message = format!(
                "{count} first values, {} parameters, {} results of the body, {} last values",
                body.params.len(),
                body.results.len(),
                repeat.results.len()
            );
            return self.report(entity, codes::BAD_REPEAT, message);
        }
        for (position, init) in repeat.inits.iter().enumerate() {
            let first = &function.values[*init];
            let others = lists.map(|list| &function.values[list[position]]);
            if others.iter().any(|v| v.ty != first.ty) {
                let message = format!("carried value {position} changes its type");
                self.report(entity, codes::BAD_REPEAT, message);
            } else if others.iter().any(|v| v.layout != first.layout) {
                let message = format!("carried value {position} changes its layout");
                self.report(entity, codes::BAD_REPEAT, message);
            }
        }
    }

    fn outputs(&mut self, id: FuncId, function: &Function) {
        let entity = Entity::Func(id);
        let results = &function.bodies[function.body()].results;
        if results.len() != function.outputs.len() {
            let (found, expected) = (results.len(), function.outputs.len());
            let message = format!("{found} values are returned for {expected} outputs");
            return self.report(entity, codes::OUTPUT_MISMATCH, message);
        }
        let mut updated = BTreeSet::new();
        for (output, value) in function.outputs.iter().zip(results) {
            let (name, data) = (&output.name, &function.values[*value]);
            if !data.layout.pending.is_empty() {
                let message = format!("output `{name}` is pending");
                self.report(entity, codes::BAD_PENDING, message);
            }
            if !coverage::is_complete(&data.layout, self.grid(&data.layout)) {
                let message = format!("some elements of output `{name}` are on no core");
                self.report(entity, codes::NOT_HELD, message);
            }
            let Some(state) = output.aliases else {
                continue;
            };
            let Some(declared) = self.module.states.get(state) else {
                let message = format!("output `{name}` aliases a state that does not exist");
                self.report(entity, codes::CORRUPT, message);
                continue;
            };
            if declared.ty != data.ty {
                let message = format!(
                    "output `{name}` is {}, the state `{}` that it aliases {}",
                    data.ty, declared.name, declared.ty
                );
                self.report(entity, codes::OUTPUT_MISMATCH, message);
            }
            if !updated.insert(state) {
                let message = format!("state `{}` is updated by two outputs", declared.name);
                self.report(entity, codes::OUTPUT_MISMATCH, message);
            }
            let mut reads = function.values.values();
            if reads.any(|v| v.def == ValueDef::State(state) && v.layout != data.layout) {
                let message = format!(
                    "output `{name}` has another layout than the state `{}` is read in",
                    declared.name
                );
                self.report(entity, codes::OUTPUT_MISMATCH, message);
            }
        }
    }
}

/// Operands and results of a statement.
pub(crate) fn operands_and_results(stmt: &Stmt) -> (Vec<ValueId>, Vec<ValueId>) {
    match stmt {
        Stmt::Group(group) => (
            group.steps.iter().flat_map(|s| s.args.clone()).collect(),
            group.steps.iter().flat_map(|s| s.results.clone()).collect(),
        ),
        Stmt::Reshard(reshard) => (vec![reshard.input], vec![reshard.output]),
        Stmt::View { input, output, .. } => (vec![*input], vec![*output]),
        Stmt::Repeat(repeat) => (repeat.inits.clone(), repeat.results.clone()),
    }
}

/// The statement or step that defines each value.
fn places(id: FuncId, function: &Function) -> BTreeMap<ValueId, Entity> {
    let mut places = BTreeMap::new();
    for (body, data) in function.bodies.iter() {
        for (position, stmt) in data.stmts.iter().enumerate() {
            if let Stmt::Group(group) = stmt {
                for (number, step) in group.steps.iter().enumerate() {
                    let entity = Entity::Step(id, body, position, number);
                    places.extend(step.results.iter().map(|v| (*v, entity)));
                }
            } else {
                let entity = Entity::Stmt(id, body, position);
                let (_, made) = operands_and_results(stmt);
                places.extend(made.into_iter().map(|v| (v, entity)));
            }
        }
    }
    places
}
