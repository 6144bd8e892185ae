//! Drops what no output depends on, and gives the constants that remain their names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dojoc_ir::entity::{PrimaryMap, SecondaryMap};
use dojoc_ir::graph::{
    Function, Module, Node, NodeId, Region, RegionId, Value, ValueDef, ValueId, Weight, WeightId,
};

/// What remains.
struct Live {
    values: SecondaryMap<ValueId, bool>,
    nodes: SecondaryMap<NodeId, bool>,
    regions: SecondaryMap<RegionId, bool>,
}

fn live(func: &Function) -> Live {
    let mut live = Live {
        values: SecondaryMap::new(false),
        nodes: SecondaryMap::new(false),
        regions: SecondaryMap::new(false),
    };
    let mut open: Vec<ValueId> = vec![];
    let keep_region = |region: RegionId, live: &mut Live, open: &mut Vec<ValueId>| {
        live.regions.set(region, true);
        open.extend(
            func.regions[region]
                .params
                .iter()
                .chain(&func.regions[region].results),
        );
    };
    keep_region(func.body(), &mut live, &mut open);
    while let Some(value) = open.pop() {
        if live.values[value] {
            continue;
        }
        live.values.set(value, true);
        let ValueDef::Result(node, _) = func.values[value].def else {
            continue;
        };
        if live.nodes[node] {
            continue;
        }
        live.nodes.set(node, true);
        let data = &func.nodes[node];
        open.extend(data.args.iter().chain(&data.results));
        for region in &data.regions {
            keep_region(*region, &mut live, &mut open);
        }
    }
    live
}

/// The function without dead nodes; the weights of the module that it does not use are dropped,
/// and the others get unique names.
pub(super) fn sweep(module: &mut Module, func: &Function) -> Function {
    let live = live(func);
    let mut new_values: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut new_nodes: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    let mut new_regions: BTreeMap<RegionId, RegionId> = BTreeMap::new();
    let mut count = PrimaryMap::<ValueId, ()>::new();
    for value in func.values.ids().filter(|v| live.values[*v]) {
        new_values.insert(value, count.push(()));
    }
    let mut count = PrimaryMap::<NodeId, ()>::new();
    for node in func.nodes.ids().filter(|n| live.nodes[*n]) {
        new_nodes.insert(node, count.push(()));
    }
    let mut count = PrimaryMap::<RegionId, ()>::new();
    for region in func.regions.ids().filter(|r| live.regions[*r]) {
        new_regions.insert(region, count.push(()));
    }
    let map =
        |values: &[ValueId]| -> Vec<ValueId> { values.iter().map(|v| new_values[v]).collect() };

    let mut weights = Weights::new(std::mem::take(&mut module.weights));
    let mut result = Function::new(func.name.clone());
    result.outputs.clone_from(&func.outputs);
    for (id, value) in func.values.iter().filter(|(v, _)| live.values[*v]) {
        let def = match value.def {
            ValueDef::Param(region, position) => ValueDef::Param(new_regions[&region], position),
            ValueDef::Result(node, position) => ValueDef::Result(new_nodes[&node], position),
            ValueDef::Weight(weight) => ValueDef::Weight(weights.keep(weight)),
            ValueDef::State(state) => ValueDef::State(state),
        };
        let pushed = result.values.push(Value {
            ty: value.ty.clone(),
            def,
            name: value.name.clone(),
        });
        debug_assert_eq!(pushed, new_values[&id]);
    }
    for (_, node) in func.nodes.iter().filter(|(n, _)| live.nodes[*n]) {
        result.nodes.push(Node {
            op: node.op.clone(),
            args: map(&node.args),
            results: map(&node.results),
            regions: node.regions.iter().map(|r| new_regions[r]).collect(),
            loc: node.loc.clone(),
        });
    }
    result.regions = PrimaryMap::new();
    for (_, region) in func.regions.iter().filter(|(r, _)| live.regions[*r]) {
        result.regions.push(Region {
            params: map(&region.params),
            nodes: region
                .nodes
                .iter()
                .filter_map(|n| new_nodes.get(n).copied())
                .collect(),
            results: map(&region.results),
        });
    }
    module.weights = weights.kept;
    drop_dims(module, &result);
    result
}

/// Drops the symbols that no type mentions any more.
fn drop_dims(module: &mut Module, func: &Function) {
    let mut used: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut visit = |dim: &dojoc_ir::dim::Dim| {
        if let dojoc_ir::dim::Dim::Expr(poly) = dim {
            poly.for_each_symbol(&mut |name, _| {
                used.insert(name.clone());
            });
        }
    };
    for value in func.values.values() {
        value.ty.dims().iter().for_each(&mut visit);
    }
    for node in func.nodes.values() {
        node.op.for_each_dim(&mut visit);
    }
    module.dims.retain(|name, _| used.contains(name));
}

/// The weights that are kept, in order of first use.
struct Weights {
    old: PrimaryMap<WeightId, Weight>,
    kept: PrimaryMap<WeightId, Weight>,
    ids: BTreeMap<WeightId, WeightId>,
    names: BTreeSet<Arc<str>>,
    /// The next number to try behind a name that is taken.
    numbers: BTreeMap<Arc<str>, u64>,
}

impl Weights {
    fn new(old: PrimaryMap<WeightId, Weight>) -> Self {
        Self {
            old,
            kept: PrimaryMap::new(),
            ids: BTreeMap::new(),
            names: BTreeSet::new(),
            numbers: BTreeMap::new(),
        }
    }

    fn keep(&mut self, id: WeightId) -> WeightId {
        if let Some(kept) = self.ids.get(&id) {
            return *kept;
        }
        let mut weight = self.old[id].clone();
        let base = weight.name.clone();
        while !self.names.insert(weight.name.clone()) {
            let number = self.numbers.entry(base.clone()).or_insert(0);
            *number += 1;
            weight.name = format!("{base}.{number}").into();
        }
        let kept = self.kept.push(weight);
        self.ids.insert(id, kept);
        kept
    }
}
