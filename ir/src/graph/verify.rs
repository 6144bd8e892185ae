//! Checks a module. The rules:
//!
//! - weights and states have constant extents and unique names; a weight's source has exactly the
//!   bytes of its type; a state's initialiser has the state's type;
//! - functions have unique names, and values unique names in their function;
//! - every node belongs to one region and every region to one node; regions nest at most 32 deep;
//! - a value is used after its definition and in the region that defines it, weights and states
//!   anywhere;
//! - every op accepts its operands and regions, and its results have the types that its shape rule
//!   gives;
//! - outputs are as many as the body's results; one that aliases a state has its type, and no
//!   state is aliased twice;
//! - symbols have the bounds that the module declares; ranks and sizes can be addressed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashSet, HashSetExt as _};

use super::parse::MAX_DEPTH;
use super::print::node_line;
use super::{
    FuncId, Function, Module, NodeId, RegionId, SourceMap, StateId, StateInit, ValueDef, ValueId,
    WeightId, WeightSource,
};
use crate::codes;
use crate::diag::{Diagnostic, Diagnostics, Kind, Place};
use crate::dim::Dim;
use crate::entity::EntityId;
use crate::level::{self, Level};
use crate::ops::Op;
use crate::types::Type;

/// A part of a module that a message can be about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Entity {
    /// A weight.
    Weight(WeightId),
    /// A state.
    State(StateId),
    /// A function.
    Func(FuncId),
    /// A node of a function.
    Node(FuncId, NodeId),
}

/// A broken rule.
pub type Violation = level::Violation<Entity>;

impl Violation {
    /// The violation as a diagnostic: placed in the text if `map` knows the entity, else at the
    /// node of the user's model, with the printed node as a note.
    pub fn into_diagnostic(self, module: &Module, map: &SourceMap) -> Diagnostic {
        let kind = if self.code == codes::CORRUPT {
            Kind::Bug
        } else {
            Kind::Input
        };
        let diagnostic = Diagnostic::new(self.code, kind, self.message);
        if let Some(span) = map.get(&self.entity) {
            return diagnostic.at_span(span.clone());
        }
        match self.entity {
            Entity::Node(func, node) => {
                let func = &module.functions[func];
                let diagnostic = diagnostic.note(node_line(module, func, node));
                match func.nodes.get(node).and_then(|n| n.loc.clone()) {
                    Some(loc) => diagnostic.at(Place::Node(loc)),
                    None => diagnostic,
                }
            }
            Entity::Func(func) => {
                diagnostic.note(format!("function `{}`", module.functions[func].name))
            }
            Entity::Weight(w) => diagnostic.note(format!("weight `{}`", module.weights[w].name)),
            Entity::State(s) => diagnostic.note(format!("state `{}`", module.states[s].name)),
        }
    }
}

impl Level for Module {
    const NAME: &'static str = "graph";

    fn parse(text: &str) -> Result<Self, Diagnostics> {
        super::parse(text).map(|(module, _)| module)
    }

    fn verify(&self) -> Result<(), Diagnostics> {
        let map = SourceMap::new();
        let violations = verify(self)
            .into_iter()
            .map(|v| v.into_diagnostic(self, &map));
        Diagnostics(violations.collect()).ok(())
    }
}

/// All broken rules of a module, in order of the module.
pub fn verify(module: &Module) -> Vec<Violation> {
    let mut v = Verifier {
        module,
        violations: vec![],
    };
    v.declarations();
    let mut names = HashSet::new();
    for (id, func) in module.functions.iter() {
        if !names.insert(&func.name) {
            v.report(
                Entity::Func(id),
                codes::DUPLICATE_NAME,
                format!("function `{}` is defined twice", func.name),
            );
        }
        v.function(id, func);
    }
    v.violations
}

/// What the walk over a function has come to.
struct Seen<'f> {
    /// By value: the region in which it is defined.
    defined: Vec<Option<RegionId>>,
    /// Nodes with nothing wrong: their ops, numbers of operands, types of operands and results.
    sound: HashSet<(&'f Op, usize, Vec<&'f Type>)>,
}

struct Verifier<'a> {
    module: &'a Module,
    violations: Vec<Violation>,
}

impl Verifier<'_> {
    fn report(&mut self, entity: Entity, code: u16, message: impl Into<String>) {
        self.violations.push(Violation {
            entity,
            code,
            message: message.into(),
        });
    }

    fn declarations(&mut self) {
        let module = self.module;
        let mut names = HashSet::new();
        for (id, weight) in module.weights.iter() {
            let entity = Entity::Weight(id);
            if !names.insert(&weight.name) {
                self.report(
                    entity,
                    codes::DUPLICATE_NAME,
                    format!("`@{}` is defined twice", weight.name),
                );
            }
            self.ty(entity, &weight.ty);
            if weight.ty.shape.as_const().is_none() {
                let message = format!("a weight has constant extents, found {}", weight.ty);
                self.report(entity, codes::WEIGHT_MISMATCH, message);
                continue;
            }
            let bytes = weight.ty.max_bytes();
            let found = match (&weight.source, &weight.data) {
                (WeightSource::External { length, .. }, _) => Some(*length),
                (WeightSource::Inline, Some(data)) => Some(data.bytes().len() as u64),
                (WeightSource::Inline, None) => None,
            };
            if found != bytes {
                let message = match found {
                    Some(found) => {
                        let needed = bytes.map_or("too many".into(), |b| b.to_string());
                        format!("{} needs {needed} bytes, its source has {found}", weight.ty)
                    }
                    None => format!("an inline weight of type {} has no data", weight.ty),
                };
                self.report(entity, codes::WEIGHT_MISMATCH, message);
            }
            if weight
                .data
                .as_ref()
                .is_some_and(|data| data.ty() != weight.ty)
            {
                let found = weight
                    .data
                    .as_ref()
                    .map(|d| d.ty().to_string())
                    .unwrap_or_default();
                let message = format!("the weight is {}, its data {found}", weight.ty);
                self.report(entity, codes::WEIGHT_MISMATCH, message);
            }
        }
        for (id, state) in module.states.iter() {
            let entity = Entity::State(id);
            if !names.insert(&state.name) {
                self.report(
                    entity,
                    codes::DUPLICATE_NAME,
                    format!("`@{}` is defined twice", state.name),
                );
            }
            self.ty(entity, &state.ty);
            if state.ty.shape.as_const().is_none() {
                let message = format!("a state has constant extents, found {}", state.ty);
                self.report(entity, codes::STATE_MISMATCH, message);
            }
            if let StateInit::Weight(weight) = state.init {
                match module.weights.get(weight) {
                    Some(weight) if weight.ty == state.ty => {}
                    Some(weight) => {
                        let message =
                            format!("the state is {}, its initialiser {}", state.ty, weight.ty);
                        self.report(entity, codes::STATE_MISMATCH, message);
                    }
                    None => self.report(entity, codes::CORRUPT, "the initialiser does not exist"),
                }
            }
        }
    }

    fn ty(&mut self, entity: Entity, ty: &Type) {
        if !ty.addressable() {
            self.report(
                entity,
                codes::TOO_LARGE,
                format!("{ty} is too large to address"),
            );
        }
        for dim in ty.dims() {
            self.dim(entity, dim);
        }
    }

    fn dim(&mut self, entity: Entity, dim: &Dim) {
        let Dim::Expr(poly) = dim else { return };
        let mut found: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        poly.for_each_symbol(&mut |name, max| {
            found.insert(name.clone(), max);
        });
        for (name, max) in found {
            if self.module.dims.get(&name) != Some(&max) {
                let message = match self.module.dims.get(&name) {
                    Some(declared) => {
                        format!("symbol `{name}` has the bound {max}, declared is {declared}")
                    }
                    None => format!("symbol `{name}` is not declared in the module's `dims`"),
                };
                self.report(entity, codes::DIM_MISMATCH, message);
            }
        }
    }

    fn function(&mut self, id: FuncId, func: &Function) {
        if !self.consistent(id, func) {
            return;
        }
        let mut names = HashSet::new();
        for value in func.values.values() {
            if let Some(name) = &value.name
                && !names.insert(name)
            {
                let message = format!("value `%{name}` is defined twice");
                self.report(Entity::Func(id), codes::DUPLICATE_NAME, message);
            }
        }
        for input in func.inputs() {
            self.ty(Entity::Func(id), func.ty(*input));
        }
        let mut seen = Seen {
            defined: vec![None; func.values.len()],
            sound: HashSet::new(),
        };
        self.region(id, func, (func.body(), 0), &mut seen);
        self.outputs(id, func);
    }

    fn outputs(&mut self, id: FuncId, func: &Function) {
        let entity = Entity::Func(id);
        if func.outputs.len() != func.results().len() {
            let (found, expected) = (func.results().len(), func.outputs.len());
            let message = format!("{found} values are returned for {expected} outputs");
            self.report(entity, codes::OUTPUT_MISMATCH, message);
            return;
        }
        let mut updated = BTreeSet::new();
        for (output, value) in func.outputs.iter().zip(func.results()) {
            let Some(state) = output.aliases else {
                continue;
            };
            let Some(data) = self.module.states.get(state) else {
                self.report(
                    entity,
                    codes::CORRUPT,
                    "an output aliases a state that does not exist",
                );
                continue;
            };
            if data.ty != *func.ty(*value) {
                let message = format!(
                    "output `{}` is {}, the state `{}` that it aliases {}",
                    output.name,
                    func.ty(*value),
                    data.name,
                    data.ty
                );
                self.report(entity, codes::OUTPUT_MISMATCH, message);
            }
            if !updated.insert(state) {
                let message = format!("state `{}` is updated by two outputs", data.name);
                self.report(entity, codes::OUTPUT_MISMATCH, message);
            }
        }
    }

    /// Checks that the tables refer to each other as they should, so that the rest may index them.
    fn consistent(&mut self, id: FuncId, func: &Function) -> bool {
        let before = self.violations.len();
        let entity = Entity::Func(id);
        let mut region_owners = vec![0; func.regions.len()];
        let mut node_owners = vec![0; func.nodes.len()];
        for region in func.regions.values() {
            for node in &region.nodes {
                match node_owners.get_mut(node.index()) {
                    Some(count) => *count += 1,
                    None => self.report(entity, codes::CORRUPT, format!("{node} does not exist")),
                }
            }
            for value in region.params.iter().chain(&region.results) {
                self.exists(entity, func, *value);
            }
        }
        for (node, data) in func.nodes.iter() {
            let entity = Entity::Node(id, node);
            for region in &data.regions {
                match region_owners.get_mut(region.index()) {
                    Some(count) => *count += 1,
                    None => self.report(entity, codes::CORRUPT, format!("{region} does not exist")),
                }
            }
            for value in data.args.iter().chain(&data.results) {
                self.exists(entity, func, *value);
            }
            for (position, value) in data.results.iter().enumerate() {
                let def = func.values.get(*value).map(|v| v.def);
                if def.is_some_and(|def| def != ValueDef::Result(node, position as u32)) {
                    let message = format!("{value} is not result {position} of {node}");
                    self.report(entity, codes::CORRUPT, message);
                }
            }
        }
        for (region, data) in func.regions.iter() {
            for (position, value) in data.params.iter().enumerate() {
                let def = func.values.get(*value).map(|v| v.def);
                if def.is_some_and(|def| def != ValueDef::Param(region, position as u32)) {
                    let message = format!("{value} is not parameter {position} of {region}");
                    self.report(entity, codes::CORRUPT, message);
                }
            }
        }
        let body_is_owned = region_owners.first().is_none_or(|owners| *owners != 0);
        if body_is_owned
            || region_owners.iter().any(|owners| *owners > 1)
            || node_owners.iter().any(|owners| *owners > 1)
        {
            self.report(entity, codes::CORRUPT, "a node or region has two owners");
        }
        self.violations.len() == before
    }

    fn exists(&mut self, entity: Entity, func: &Function, value: ValueId) {
        let known = match func.values.get(value).map(|v| v.def) {
            None => false,
            Some(ValueDef::Weight(weight)) => self.module.weights.get(weight).is_some(),
            Some(ValueDef::State(state)) => self.module.states.get(state).is_some(),
            Some(_) => true,
        };
        if !known {
            self.report(entity, codes::CORRUPT, format!("{value} does not exist"));
        }
    }

    /// Checks a region, so many deep.
    fn region<'f>(
        &mut self,
        id: FuncId,
        func: &'f Function,
        (region, depth): (RegionId, usize),
        seen: &mut Seen<'f>,
    ) {
        for param in &func.regions[region].params {
            seen.defined[param.index()] = Some(region);
        }
        let nodes = &func.regions[region].nodes;
        for node in nodes {
            let entity = Entity::Node(id, *node);
            let data = &func.nodes[*node];
            for value in &data.args {
                self.visible(entity, func, (region, &seen.defined), *value);
            }
            if depth >= MAX_DEPTH && !data.regions.is_empty() {
                let message = format!("regions are nested more than {MAX_DEPTH} deep");
                self.report(entity, codes::TOO_DEEP, message);
                continue;
            }
            for inner in &data.regions {
                self.region(id, func, (*inner, depth + 1), seen);
            }
            self.typed(entity, func, *node, seen);
            for result in &data.results {
                seen.defined[result.index()] = Some(region);
            }
        }
        for value in &func.regions[region].results {
            self.visible(Entity::Func(id), func, (region, &seen.defined), *value);
        }
    }

    fn visible(
        &mut self,
        entity: Entity,
        func: &Function,
        (region, defined): (RegionId, &[Option<RegionId>]),
        value: ValueId,
    ) {
        let data = &func.values[value];
        let global = matches!(data.def, ValueDef::Weight(_) | ValueDef::State(_));
        if !global && defined[value.index()] != Some(region) {
            let name = data
                .name
                .as_ref()
                .map_or(value.to_string(), |n| format!("%{n}"));
            let message = format!("`{name}` is used where it is not defined");
            self.report(entity, codes::DOMINANCE, message);
        }
    }

    /// Checks the types of a node. Nodes of the same op and types are checked once if nothing is wrong.
    fn typed<'f>(&mut self, entity: Entity, func: &'f Function, node: NodeId, seen: &mut Seen<'f>) {
        let data = &func.nodes[node];
        let types = data.args.iter().chain(&data.results);
        let key = (
            &data.op,
            data.args.len(),
            types.map(|value| func.ty(*value)).collect(),
        );
        if data.regions.is_empty() && seen.sound.contains(&key) {
            return;
        }
        let before = self.violations.len();
        self.node(entity, func, node);
        if self.violations.len() == before {
            seen.sound.insert(key);
        }
    }

    fn node(&mut self, entity: Entity, func: &Function, node: NodeId) {
        let data = &func.nodes[node];
        let name = data.op.name();
        data.op.for_each_dim(&mut |dim| self.dim(entity, dim));
        for result in &data.results {
            self.ty(entity, func.ty(*result));
        }
        match data
            .op
            .infer(&func.types(&data.args), &func.region_types(node))
        {
            Err(error) => self.report(entity, codes::TYPE_RULE, format!("{name}: {error}")),
            Ok(types) => {
                let found = func.types(&data.results);
                if types != found {
                    let list = |types: &[Type]| match types {
                        [] => "nothing".to_owned(),
                        _ => types
                            .iter()
                            .map(Type::to_string)
                            .collect::<Vec<_>>()
                            .join(", "),
                    };
                    let message = format!(
                        "{name} gives {}, but {} is written",
                        list(&types),
                        list(&found)
                    );
                    self.report(entity, codes::TYPE_MISMATCH, message);
                }
            }
        }
    }
}
