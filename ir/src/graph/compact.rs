//! Renumbers a module in the order of its text form.

use std::collections::BTreeMap;

use super::{Function, FunctionBuilder, Module, RegionId, Value, ValueDef, ValueId};
use crate::entity::EntityId as _;

impl Module {
    /// Renumbers values, nodes and regions in the order of the text form, and drops what is not
    /// reachable from a body: the form in which equal modules compare equal.
    pub fn compacted(&self) -> Self {
        let mut module = self.clone();
        for (id, func) in self.functions.iter() {
            module.functions[id] = compact(self, func);
        }
        module
    }
}

fn compact(module: &Module, func: &Function) -> Function {
    let mut b = FunctionBuilder::new(func.name.clone());
    let mut map = BTreeMap::new();
    copy_region(module, func, func.body(), &mut b, &mut map);
    let results: Vec<ValueId> = func
        .results()
        .iter()
        .map(|v| import(module, func, *v, &mut b, &map))
        .collect();
    b.finish(&results, func.outputs.clone())
}

fn import(
    module: &Module,
    func: &Function,
    value: ValueId,
    b: &mut FunctionBuilder,
    map: &BTreeMap<ValueId, ValueId>,
) -> ValueId {
    match func.values[value].def {
        ValueDef::Weight(weight) => b.weight(module, weight),
        ValueDef::State(state) => b.state(module, state),
        _ => map.get(&value).copied().unwrap_or(ValueId::from_index(0)),
    }
}

fn copy_region(
    module: &Module,
    func: &Function,
    region: RegionId,
    b: &mut FunctionBuilder,
    map: &mut BTreeMap<ValueId, ValueId>,
) {
    for param in &func.regions[region].params {
        let Value { ty, name, .. } = &func.values[*param];
        map.insert(*param, b.param(ty.clone(), name.clone()));
    }
    for id in &func.regions[region].nodes {
        let node = &func.nodes[*id];
        let args: Vec<ValueId> = node
            .args
            .iter()
            .map(|v| import(module, func, *v, b, map))
            .collect();
        let mut regions = vec![];
        for inner in &node.regions {
            let new = b.open_region();
            copy_region(module, func, *inner, b, map);
            let results = func.regions[*inner].results.clone();
            let results: Vec<ValueId> = results
                .iter()
                .map(|v| import(module, func, *v, b, map))
                .collect();
            b.close_region(&results);
            regions.push(new);
        }
        b.set_loc(node.loc.clone());
        let results = b.push_node(node.op.clone(), &args, &regions, func.types(&node.results));
        for (old, new) in node.results.iter().zip(results) {
            if let Some(name) = &func.values[*old].name {
                b.set_name(new, name.clone());
            }
            map.insert(*old, new);
        }
    }
}
