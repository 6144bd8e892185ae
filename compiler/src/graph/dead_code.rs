//! Removes what has no influence on any output.
//!
//! Notation: a node is *live* if one of its results is used by a live node, or is a result of a
//! region that a live node owns or of a body; or if it gives a symbol its value (`nonzero` and its
//! like) that a live node's types or attributes mention. Nothing but outputs has an effect.
//!
//! Phases: mark live nodes of each function until nothing changes; remove the others from the last
//! to the first, so that wherever fuel ends no operand is missing; remove weights that no function
//! and no state refers to, then states that no function reads and no output updates. Inputs,
//! outputs and functions stay: they are the module's interface. So do parameters of regions.
//!
//! Before: verified. After: every node is live, every weight and state is referred to.
//! Cost: number of operands, times the nesting of data-dependent symbols.

use std::collections::BTreeSet;
use std::sync::Arc;

use dojoc_ir::diag::Diagnostics;
use dojoc_ir::dim::Dim;
use dojoc_ir::entity::{PrimaryMap, SecondaryMap};
use dojoc_ir::graph::{
    Function, Module, NodeId, RegionId, StateId, StateInit, ValueDef, ValueId, WeightId,
};

use foldhash::{HashSet, HashSetExt as _};

use super::edit::forget_names;
use crate::pass::{Effect, Pass, PassCx};

/// Removes nodes, weights and states without influence.
pub const PASS: Pass<Module> = Pass {
    name: "dead-code",
    doc: "Removes nodes, weights and states that no output depends on.",
    effect: Effect::Exact,
    run,
};

fn run(mut module: Module, cx: &mut PassCx<'_>) -> Result<Module, Diagnostics> {
    for (_, func) in module.functions.iter_mut() {
        cx.check_cancelled()?;
        let live = live_nodes(func);
        let body = func.body();
        sweep(func, body, &live, cx);
    }
    remove_states(&mut module, cx);
    remove_weights(&mut module, cx);
    Ok(module)
}

fn symbols_of<'a>(dims: impl IntoIterator<Item = &'a Dim>, found: &mut BTreeSet<Arc<str>>) {
    for dim in dims {
        if let Dim::Expr(poly) = dim {
            poly.for_each_symbol(&mut |name, _| {
                found.insert(name.clone());
            });
        }
    }
}

/// The symbols that the types and attributes of a node mention.
fn mentioned(func: &Function, node: NodeId) -> BTreeSet<Arc<str>> {
    let mut found = BTreeSet::new();
    let data = &func.nodes[node];
    for value in &data.results {
        symbols_of(func.ty(*value).dims(), &mut found);
    }
    data.op
        .for_each_dim(&mut |dim| symbols_of([dim], &mut found));
    found
}

/// The symbols that a node gives their values: those of its results that its operands lack.
fn defined(func: &Function, node: NodeId) -> BTreeSet<Arc<str>> {
    let (mut results, mut operands) = (BTreeSet::new(), BTreeSet::new());
    let data = &func.nodes[node];
    for value in &data.results {
        symbols_of(func.ty(*value).dims(), &mut results);
    }
    for value in &data.args {
        symbols_of(func.ty(*value).dims(), &mut operands);
    }
    results.difference(&operands).cloned().collect()
}

struct Marker<'a> {
    func: &'a Function,
    live: SecondaryMap<NodeId, bool>,
    symbols: BTreeSet<Arc<str>>,
    work: Vec<NodeId>,
}

impl Marker<'_> {
    fn node(&mut self, node: NodeId) {
        if !std::mem::replace(self.live.get_mut(node), true) {
            self.work.push(node);
        }
    }

    fn value(&mut self, value: ValueId) {
        if let ValueDef::Result(node, _) = self.func.values[value].def {
            self.node(node);
        }
    }

    fn drain(&mut self) {
        while let Some(node) = self.work.pop() {
            let data = &self.func.nodes[node];
            data.args.iter().for_each(|v| self.value(*v));
            for region in &data.regions {
                self.func.regions[*region]
                    .results
                    .iter()
                    .for_each(|v| self.value(*v));
            }
            self.symbols.extend(mentioned(self.func, node));
        }
    }
}

fn live_nodes(func: &Function) -> SecondaryMap<NodeId, bool> {
    let mut marker = Marker {
        func,
        live: SecondaryMap::new(false),
        symbols: BTreeSet::new(),
        work: vec![],
    };
    func.results().iter().for_each(|v| marker.value(*v));
    let definers: Vec<(NodeId, BTreeSet<Arc<str>>)> = func
        .walk()
        .into_iter()
        .map(|node| (node, defined(func, node)))
        .filter(|(_, symbols)| !symbols.is_empty())
        .collect();
    // The regions of a node that is kept for a symbol are live with their results.
    loop {
        marker.drain();
        let wanted = definers
            .iter()
            .find(|(node, s)| !marker.live[*node] && !s.is_disjoint(&marker.symbols));
        match wanted {
            Some((node, _)) => marker.node(*node),
            None => return marker.live,
        }
    }
}

/// Removes the nodes of a region that are not live, last first.
fn sweep(
    func: &mut Function,
    region: RegionId,
    live: &SecondaryMap<NodeId, bool>,
    cx: &mut PassCx<'_>,
) {
    let nodes = func.regions[region].nodes.clone();
    let mut kept = vec![];
    for node in nodes.into_iter().rev() {
        if !live[node] && cx.spend() {
            forget_names(func, &[node]);
            continue;
        }
        kept.push(node);
        for inner in func.nodes[node].regions.clone() {
            if live[node] {
                sweep(func, inner, live, cx);
            }
        }
    }
    kept.reverse();
    func.regions[region].nodes = kept;
}

/// The weights and states that the values of the functions refer to, where they are reachable.
fn sources(module: &Module) -> HashSet<ValueDef> {
    let mut found = HashSet::new();
    for func in module.functions.values() {
        let mut note = |value: &ValueId| {
            let def = func.values[*value].def;
            if matches!(def, ValueDef::Weight(_) | ValueDef::State(_)) {
                found.insert(def);
            }
        };
        func.results().iter().for_each(&mut note);
        for node in func.walk() {
            let node = &func.nodes[node];
            node.args.iter().for_each(&mut note);
            for region in &node.regions {
                func.regions[*region].results.iter().for_each(&mut note);
            }
        }
    }
    found
}

fn remove_states(module: &mut Module, cx: &mut PassCx<'_>) {
    if module.states.is_empty() {
        return;
    }
    let mut used = sources(module);
    for output in module.functions.values().flat_map(|f| &f.outputs) {
        used.extend(output.aliases.map(ValueDef::State));
    }
    let mut map: PrimaryMap<StateId, Option<StateId>> = PrimaryMap::new();
    let mut states = PrimaryMap::new();
    for (id, state) in module.states.iter() {
        let gone = !used.contains(&ValueDef::State(id)) && cx.spend();
        map.push((!gone).then(|| states.push(state.clone())));
    }
    module.states = states;
    for (_, func) in module.functions.iter_mut() {
        for output in &mut func.outputs {
            output.aliases = output.aliases.and_then(|id| map[id]);
        }
    }
    renumber(module, |def| match def {
        ValueDef::State(id) => map[id].map(ValueDef::State),
        other => Some(other),
    });
}

fn remove_weights(module: &mut Module, cx: &mut PassCx<'_>) {
    let mut used = sources(module);
    for state in module.states.values() {
        if let StateInit::Weight(weight) = state.init {
            used.insert(ValueDef::Weight(weight));
        }
    }
    let mut map: PrimaryMap<WeightId, Option<WeightId>> = PrimaryMap::new();
    let mut weights = PrimaryMap::new();
    for (id, weight) in module.weights.iter() {
        let gone = !used.contains(&ValueDef::Weight(id)) && cx.spend();
        map.push((!gone).then(|| weights.push(weight.clone())));
    }
    if weights.len() == module.weights.len() {
        return;
    }
    module.weights = weights;
    for (_, state) in module.states.iter_mut() {
        if let StateInit::Weight(id) = state.init
            && let Some(new) = map[id]
        {
            state.init = StateInit::Weight(new);
        }
    }
    renumber(module, |def| match def {
        ValueDef::Weight(id) => map[id].map(ValueDef::Weight),
        other => Some(other),
    });
}

/// Renumbers what values refer to. Values of removed weights and states are unreachable; they take
/// the place of a parameter, which only the tables see.
fn renumber(module: &mut Module, new: impl Fn(ValueDef) -> Option<ValueDef>) {
    for (_, func) in module.functions.iter_mut() {
        let body = func.body();
        for (_, value) in func.values.iter_mut() {
            value.def = new(value.def).unwrap_or(ValueDef::Param(body, 0));
        }
    }
}
