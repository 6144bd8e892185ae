//! Computes once what is computed several times.
//!
//! Notation: two nodes are *equal* if their ops with attributes, their operands and their regions
//! are; two regions are equal if they are up to the numbers of their values. Every op is a function
//! of its operands (random bits too: they are a hash of seed, step and site), so equal nodes have
//! equal results.
//!
//! Phases: weights of one type with the same place in a file, or the same bytes, become the first
//! of them, in functions and initialisers; then nodes of each region in order become the first that
//! is equal. Regions see nothing from outside, so there is nothing to find between two of them.
//! Where both have a name the first keeps its own and the other is lost; outputs keep theirs.
//!
//! Before: verified. After: no region has two equal nodes. Weights and operands no longer used are
//! left to `dead-code`. Cost: a hash of each node; comparisons of inline weights, also of bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dojoc_ir::diag::Diagnostics;
use dojoc_ir::graph::{
    Function, Module, NodeId, RegionId, StateInit, ValueDef, ValueId, WeightId, WeightSource,
};
use dojoc_ir::ops::Op;
use dojoc_ir::types::Type;
use foldhash::{HashMap, HashMapExt as _};

use super::edit::{forget_names, rewrite};
use crate::pass::{Effect, Pass, PassCx};

/// Merges equal nodes and equal weights.
pub const PASS: Pass<Module> = Pass {
    name: "common-subexpressions",
    doc: "Merges nodes that compute the same, and weights with the same bytes.",
    effect: Effect::Exact,
    run,
};

/// A node in terms that are equal for equal nodes.
#[derive(PartialEq, Eq, Hash)]
struct NodeKey {
    op: Op,
    args: Vec<Local>,
    regions: Vec<RegionKey>,
    results: Vec<Type>,
}

#[derive(PartialEq, Eq, Hash)]
struct RegionKey {
    params: Vec<Type>,
    nodes: Vec<NodeKey>,
    results: Vec<Local>,
}

/// A value as a region sees it.
#[derive(PartialEq, Eq, Hash)]
enum Local {
    /// Of the region in which equal nodes are sought.
    Value(ValueId),
    /// Defined in a region of the node, numbered in order.
    Inner(usize),
    /// A weight or state.
    Source(ValueDef),
}

fn run(mut module: Module, cx: &mut PassCx<'_>) -> Result<Module, Diagnostics> {
    merge_weights(&mut module, cx);
    let mut current = None;
    // Tables of the regions being walked: a region is walked within its owner's.
    let mut known: HashMap<RegionId, HashMap<NodeKey, NodeId>> = HashMap::new();
    rewrite(module, cx, &mut |e, node, cx| {
        if current.as_ref() != Some(&e.func.name) {
            known.clear();
            current = Some(e.func.name.clone());
        }
        let key = node_key(&e.func, node, &BTreeMap::new());
        let table = known.entry(e.region()).or_default();
        if let Some(first) = table.get(&key) {
            if cx.spend() {
                let results = e.func.nodes[*first].results.clone();
                // The names that remain after the results have handed theirs over.
                let regions = e.func.nodes[node].regions.clone();
                let inner: Vec<NodeId> = regions
                    .iter()
                    .flat_map(|r| e.func.regions[*r].nodes.clone())
                    .collect();
                forget_names(&mut e.func, &inner);
                for region in regions {
                    for param in e.func.regions[region].params.clone() {
                        e.func.values[param].name = None;
                    }
                }
                return Ok(Some(results));
            }
        } else {
            table.insert(key, node);
        }
        Ok(None)
    })
}

fn local(func: &Function, value: ValueId, inner: &BTreeMap<ValueId, usize>) -> Local {
    match func.values[value].def {
        def @ (ValueDef::Weight(_) | ValueDef::State(_)) => Local::Source(def),
        _ => inner
            .get(&value)
            .map_or(Local::Value(value), |n| Local::Inner(*n)),
    }
}

fn node_key(func: &Function, node: NodeId, inner: &BTreeMap<ValueId, usize>) -> NodeKey {
    let data = &func.nodes[node];
    NodeKey {
        op: data.op.clone(),
        args: data.args.iter().map(|v| local(func, *v, inner)).collect(),
        regions: data.regions.iter().map(|r| region_key(func, *r)).collect(),
        results: func.types(&data.results),
    }
}

fn region_key(func: &Function, region: RegionId) -> RegionKey {
    let data = &func.regions[region];
    let mut inner = BTreeMap::new();
    for param in &data.params {
        inner.insert(*param, inner.len());
    }
    let mut nodes = vec![];
    for node in &data.nodes {
        nodes.push(node_key(func, *node, &inner));
        for result in &func.nodes[*node].results {
            inner.insert(*result, inner.len());
        }
    }
    RegionKey {
        params: func.types(&data.params),
        nodes,
        results: data
            .results
            .iter()
            .map(|v| local(func, *v, &inner))
            .collect(),
    }
}

/// What identifies the bytes of a weight.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Place(Arc<str>, u64, u64),
    Bytes(Bytes),
}

fn merge_weights(module: &mut Module, cx: &mut PassCx<'_>) {
    let used = used_weights(module);
    let mut known: BTreeMap<(Type, Content), WeightId> = BTreeMap::new();
    let mut first: BTreeMap<WeightId, WeightId> = BTreeMap::new();
    for (id, weight) in module.weights.iter() {
        let content = match (&weight.source, &weight.data) {
            (
                WeightSource::External {
                    file,
                    offset,
                    length,
                },
                _,
            ) => Content::Place(file.clone(), *offset, *length),
            (WeightSource::Inline, Some(data)) => Content::Bytes(data.bytes().clone()),
            (WeightSource::Inline, None) => continue,
        };
        let original = *known.entry((weight.ty.clone(), content)).or_insert(id);
        if original != id && used.contains(&id) && cx.spend() {
            first.insert(id, original);
        }
    }
    if first.is_empty() {
        return;
    }
    for (_, state) in module.states.iter_mut() {
        if let StateInit::Weight(weight) = &mut state.init
            && let Some(original) = first.get(weight)
        {
            *weight = *original;
        }
    }
    for (_, func) in module.functions.iter_mut() {
        for (_, value) in func.values.iter_mut() {
            if let ValueDef::Weight(weight) = &mut value.def
                && let Some(original) = first.get(weight)
            {
                *weight = *original;
            }
        }
    }
}

/// The weights that something refers to.
fn used_weights(module: &Module) -> BTreeSet<WeightId> {
    let values = module.functions.values().flat_map(|f| f.values.values());
    let in_values = values.filter_map(|v| match v.def {
        ValueDef::Weight(weight) => Some(weight),
        _ => None,
    });
    let in_states = module.states.values().filter_map(|s| match s.init {
        StateInit::Weight(weight) => Some(weight),
        StateInit::Zeros => None,
    });
    in_values.chain(in_states).collect()
}
