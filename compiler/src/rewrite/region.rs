//! Cuts functions into regions that are optimised on their own, and names equal ones alike.
//!
//! A region is a run of consecutive nodes, so that putting it back in its place keeps the order of
//! definitions and uses. Cuts lie where few values are alive: between layers that is one, the
//! residual stream. Where the same ops recur, cuts recur with them, so that equal layers give equal
//! keys. Nodes with regions of their own, and nodes of unknown or empty extents, are in no region.

use std::collections::BTreeMap;
use std::ops::Range;

use dojoc_ir::attr::Number;
use dojoc_ir::graph::{Function, Module, NodeId, RegionId, ValueDef, ValueId};
use dojoc_ir::ops::Op;
use dojoc_ir::types::Type;

use super::facts::{Facts, Offline};
use crate::graph::{as_constant, splat};

/// Nodes of a region, at least, unless it is a layer that recurs or there are no more.
const LEAST: usize = 50;

/// Nodes of a region, at most.
const MOST: usize = 400;

/// Nodes of a layer that recurs, at least.
const LAYER: usize = 16;

/// Nodes after a cut that are compared to find cuts that recur.
const WINDOW: usize = 10;

/// A run of nodes.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The nodes, in order.
    pub nodes: Vec<NodeId>,
    /// Values from outside, in the order of their first use.
    pub leaves: Vec<ValueId>,
    /// Values that are used outside, in order of definition.
    pub outputs: Vec<ValueId>,
}

/// A value as a region sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Local {
    /// A value from outside.
    Leaf(usize),
    /// A result of a node of the region.
    Result(usize, usize),
}

/// A region without names: equal for equal layers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub leaves: Vec<LeafKey>,
    pub nodes: Vec<(Op, Vec<Local>, Vec<Type>)>,
    pub outputs: Vec<Local>,
}

/// What is known of a value from outside.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LeafKey {
    pub ty: Type,
    /// Whether its value is at hand when compiling.
    pub weight: bool,
    /// Whether it is a weight that is also used elsewhere.
    pub resident: bool,
    /// The value of all its elements.
    pub splat: Option<Number>,
}

/// The uses of every value of a function: how often, and where last among the nodes of a list.
fn last_uses(func: &Function, nodes: &[NodeId], region: RegionId) -> BTreeMap<ValueId, usize> {
    let mut last = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for arg in &func.nodes[*node].args {
            last.insert(*arg, at);
        }
    }
    for value in &func.regions[region].results {
        last.insert(*value, nodes.len());
    }
    last
}

/// Whether a node may be rewritten.
fn plain(func: &Function, node: NodeId) -> bool {
    let data = &func.nodes[node];
    let values = data.args.iter().chain(&data.results);
    data.regions.is_empty()
        && !data.results.is_empty()
        && values.map(|v| func.ty(*v)).all(Facts::sized)
}

/// The regions of a list of nodes, in order.
pub(super) fn pieces(func: &Function, region: RegionId) -> Vec<Piece> {
    let nodes = &func.regions[region].nodes;
    let last = last_uses(func, nodes, region);
    let mut out = vec![];
    let mut start = 0;
    while start < nodes.len() {
        let rest = nodes[start..].iter();
        let length = rest.take_while(|n| plain(func, **n)).count();
        for range in cuts(func, nodes, start..start + length, &last) {
            out.push(piece(func, nodes, range, &last));
        }
        start += length.max(1);
    }
    out
}

/// Number of values that are alive before each node of a run, counting those made in it.
fn alive(
    func: &Function,
    nodes: &[NodeId],
    run: &Range<usize>,
    last: &BTreeMap<ValueId, usize>,
) -> Vec<usize> {
    let mut change = vec![0i64; run.len() + 2];
    for (at, node) in nodes[run.clone()].iter().enumerate() {
        let data = &func.nodes[*node];
        if data.args.is_empty() {
            continue;
        }
        for value in &data.results {
            let Some(end) = last.get(value) else { continue };
            change[at + 1] += 1;
            change[(*end).min(run.end) - run.start + 1] -= 1;
        }
    }
    let mut count = 0;
    change
        .iter()
        .map(|c| {
            count += c;
            count.max(0) as usize
        })
        .collect()
}

/// Where a run of nodes is cut: half-open ranges that cover it.
fn cuts(
    func: &Function,
    nodes: &[NodeId],
    run: Range<usize>,
    last: &BTreeMap<ValueId, usize>,
) -> Vec<Range<usize>> {
    let alive = alive(func, nodes, &run, last);
    let layers = layers(func, &nodes[run.clone()], &alive);
    let mut out = vec![];
    let mut from = 0;
    while from < run.len() {
        let recurring = layers
            .iter()
            .find(|at| **at > from && (from == 0 || **at >= from + LAYER));
        let end = match recurring {
            Some(at) if at - from <= MOST => *at,
            _ if run.len() - from <= MOST && layers.contains(&from) => run.len(),
            _ if run.len() - from <= LEAST => run.len(),
            _ => {
                let most = run.len().min(from + MOST);
                let candidates = from + LEAST..=most;
                candidates
                    .min_by_key(|at| (alive[*at], *at))
                    .unwrap_or(most)
            }
        };
        out.push(run.start + from..run.start + end);
        from = end;
    }
    out
}

/// Positions between layers that recur: where few values are alive and the next nodes are those of
/// another such position. Empty if there are none.
fn layers(func: &Function, nodes: &[NodeId], alive: &[usize]) -> Vec<usize> {
    let sign = |node: &NodeId| {
        let data = &func.nodes[*node];
        (&data.op, func.types(&data.results))
    };
    let mut windows: BTreeMap<Vec<_>, Vec<usize>> = BTreeMap::new();
    for at in 0..nodes.len().saturating_sub(WINDOW) {
        let near = at.saturating_sub(LAYER)..(at + LAYER).min(nodes.len());
        let least = alive[near].iter().skip(usize::from(at == 0)).min();
        if at > 0 && least.is_some_and(|least| alive[at] > *least) {
            continue;
        }
        let window = nodes[at..at + WINDOW].iter().map(sign).collect();
        windows.entry(window).or_default().push(at);
    }
    let spaced = |all: &Vec<usize>| {
        all.len() > 1
            && all
                .windows(2)
                .all(|w| (LAYER..=MOST).contains(&(w[1] - w[0])))
    };
    let recurring = windows.into_values().filter(spaced);
    recurring
        .max_by_key(|all| (all.len(), std::cmp::Reverse(all[0])))
        .unwrap_or_default()
}

fn piece(
    func: &Function,
    nodes: &[NodeId],
    range: Range<usize>,
    last: &BTreeMap<ValueId, usize>,
) -> Piece {
    let own: Vec<NodeId> = nodes[range.clone()].to_vec();
    let (mut leaves, mut outputs) = (vec![], vec![]);
    let inside = |value: ValueId| match func.values[value].def {
        ValueDef::Result(node, _) => own.contains(&node),
        _ => false,
    };
    for node in &own {
        for arg in &func.nodes[*node].args {
            if !inside(*arg) && !leaves.contains(arg) {
                leaves.push(*arg);
            }
        }
        for value in &func.nodes[*node].results {
            if last.get(value).is_some_and(|at| *at >= range.end) {
                outputs.push(*value);
            }
        }
    }
    Piece {
        nodes: own,
        leaves,
        outputs,
    }
}

/// How often weights are used in all functions of a module.
pub(super) fn weight_uses(module: &Module) -> BTreeMap<ValueDef, usize> {
    let mut uses = BTreeMap::new();
    for func in module.functions.values() {
        for node in func.nodes.values() {
            for arg in &node.args {
                if let def @ ValueDef::Weight(_) = func.values[*arg].def {
                    *uses.entry(def).or_insert(0) += 1;
                }
            }
        }
        for region in func.regions.values() {
            for value in &region.results {
                if let def @ ValueDef::Weight(_) = func.values[*value].def {
                    *uses.entry(def).or_insert(0) += 1;
                }
            }
        }
    }
    uses
}

/// The region without names.
pub(super) fn key(
    module: &Module,
    func: &Function,
    piece: &Piece,
    uses: &BTreeMap<ValueDef, usize>,
    offline: Offline,
) -> Key {
    let mut locals: BTreeMap<ValueId, Local> = BTreeMap::new();
    for (n, leaf) in piece.leaves.iter().enumerate() {
        locals.insert(*leaf, Local::Leaf(n));
    }
    let mut inside: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut nodes = vec![];
    for (n, node) in piece.nodes.iter().enumerate() {
        let data = &func.nodes[*node];
        for arg in &data.args {
            *inside.entry(*arg).or_insert(0) += 1;
        }
        let args = data.args.iter().filter_map(|v| locals.get(v).copied());
        nodes.push((data.op.clone(), args.collect(), func.types(&data.results)));
        for (position, value) in data.results.iter().enumerate() {
            locals.insert(*value, Local::Result(n, position));
        }
    }
    let leaf = |value: &ValueId| {
        let def = func.values[*value].def;
        let all = uses.get(&def).copied().unwrap_or(0);
        LeafKey {
            ty: func.ty(*value).clone(),
            weight: as_constant(module, func, *value, offline.bytes).is_some(),
            resident: all > inside.get(value).copied().unwrap_or(0),
            splat: splat(module, func, *value).map(Number::from),
        }
    };
    Key {
        leaves: piece.leaves.iter().map(leaf).collect(),
        nodes,
        outputs: piece
            .outputs
            .iter()
            .filter_map(|v| locals.get(v).copied())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use dojoc_ir::graph::FunctionBuilder;
    use dojoc_ir::ops::{Dot, Softmax};
    use dojoc_ir::scalar::{BinaryFn, UnaryFn};
    use dojoc_ir::tensor::Tensor;
    use dojoc_ir::types::DType;

    use super::*;
    use dojoc_ir::graph::Weight;

    const OFFLINE: Offline = Offline {
        bytes: 1 << 20,
        points: 1 << 20,
    };

    /// A residual net of equal layers with weights of their own.
    fn layers(count: usize) -> Module {
        let mut module = Module::default();
        let mut b = FunctionBuilder::new("main");
        let ty = Type::of(DType::F32, &[4, 8]);
        let mut x = b.param(ty, None);
        for layer in 0..count {
            let start = x;
            for part in 0..4 {
                let values = (0..64).map(|n| (n + layer * 7 + part) as f32).collect();
                let data = Tensor::from_vec::<f32>(&[8, 8], values);
                let name = format!("w{layer}.{part}");
                let weight = module.weights.push(Weight::inline(name, data));
                let w = b.weight(&module, weight);
                let y = b.op(Dot::matmul(2), &[x, w]).unwrap();
                let f = [UnaryFn::Tanh, UnaryFn::Exp, UnaryFn::Abs, UnaryFn::Neg][part];
                let y = b.op(dojoc_ir::ops::Unary(f), &[y]).unwrap();
                let y = b.op(Softmax { axis: 1 }, &[y]).unwrap();
                let y = b.op(dojoc_ir::ops::Binary(BinaryFn::Mul), &[y, x]).unwrap();
                x = b.op(dojoc_ir::ops::Binary(BinaryFn::Sub), &[y, x]).unwrap();
            }
            x = b
                .op(dojoc_ir::ops::Binary(BinaryFn::Add), &[x, start])
                .unwrap();
        }
        module.functions.push(b.finish_unnamed(&[x]));
        module
    }

    #[test]
    fn equal_layers_have_equal_keys() {
        let module = layers(12);
        let func = module.functions.values().next().unwrap();
        let pieces = pieces(func, func.body());
        let uses = weight_uses(&module);
        let keys = pieces.iter().map(|p| key(&module, func, p, &uses, OFFLINE));
        let distinct: std::collections::BTreeSet<Key> = keys.collect();
        assert!(
            pieces.len() >= 12 && distinct.len() <= 2,
            "{} of {}",
            distinct.len(),
            pieces.len()
        );
        let covered: Vec<NodeId> = pieces.iter().flat_map(|p| p.nodes.clone()).collect();
        assert_eq!(covered, func.regions[func.body()].nodes);
        for piece in &pieces[1..] {
            assert_eq!(piece.outputs.len(), 1, "cut where one value is alive");
        }
    }

    #[test]
    fn weights_used_elsewhere_and_other_values_give_other_keys() {
        let mut module = layers(2);
        let keys = |module: &Module| -> Vec<Key> {
            let func = module.functions.values().next().unwrap();
            let uses = weight_uses(module);
            let pieces = pieces(func, func.body());
            pieces
                .iter()
                .map(|p| key(module, func, p, &uses, OFFLINE))
                .collect()
        };
        let before = keys(&module);
        let first = module.weights.ids().next().unwrap();
        module.weights[first].data = Some(Tensor::from_vec::<f32>(&[8, 8], vec![1.0; 64]));
        let after = keys(&module);
        assert_ne!(before[0], after[0]);
        assert!(after[0].leaves.iter().any(|l| l.splat.is_some()));
    }
}
