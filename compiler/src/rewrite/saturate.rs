//! Equality saturation of regions: what a region becomes, found once for all equal ones.

use std::collections::BTreeMap;

use dojoc_ir::attr::Number;
use dojoc_ir::graph::{Function, FunctionBuilder, Module, ValueId, Weight, WeightSource};
use dojoc_ir::ops::{Op, TypeError};
use dojoc_ir::types::Type;
use egg::Id;

use super::cost::{Candidate, NodeCost};
use super::extract::{Choice, Flat, Proposal};
use super::facts::{Facts, Graph, Knowledge, Offline, add_op, op_of};
use super::node::Node;
use super::region::{Key, Local};
use super::rule::{Growth, Limits, Rule, saturate};

/// A region as an e-graph.
pub(super) struct Space {
    pub graph: Graph,
    pub root: Id,
    /// The class of every local value, as it was added.
    pub classes: BTreeMap<Local, Id>,
    /// The e-node of every class that the input has, as it was added; the first in order.
    inputs: Vec<(Id, Node)>,
}

/// A node of what a region becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub op: Op,
    pub args: Vec<Local>,
    /// Number of results.
    pub results: usize,
    /// The node of the region that it stands for, or that it was derived from.
    pub origin: usize,
    /// Whether it is computed when compiling.
    pub weight: bool,
    /// The value of all its elements.
    pub splat: Option<Number>,
}

/// What a region becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Nodes in order; [`Local::Result`] numbers them.
    pub steps: Vec<Step>,
    /// The values that are used outside.
    pub outputs: Vec<Local>,
    /// Which value of the region is which value of the plan.
    pub same: Vec<(Local, Local)>,
    /// Cycles before and after.
    pub cycles: (f64, f64),
}

/// What saturation of one region did.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegionStats {
    /// Nodes of the region.
    pub nodes: usize,
    /// Nodes of the e-graph.
    pub enodes: usize,
    /// Rounds of rules.
    pub rounds: usize,
    /// Rules that found something new.
    pub applied: usize,
    /// Cycles before, by the prices that were given.
    pub before: f64,
    /// Cycles after.
    pub after: f64,
}

/// A form is taken if it is cheaper by this part.
const WORTH: f64 = 1e-3;

impl Space {
    /// The e-graph of a region; `None` for a region that can not be typed.
    pub fn new(key: &Key, offline: Offline) -> Option<Self> {
        let leaf = |leaf: &super::region::LeafKey| Facts {
            ty: leaf.ty.clone(),
            weight: leaf.weight,
            splat: leaf.splat.map(|s| s.to_scalar(leaf.ty.dtype)),
            non_negative: leaf
                .splat
                .is_some_and(|s| s.to_scalar(leaf.ty.dtype).to_f64() >= 0.0),
        };
        let leaves: Vec<Facts> = key.leaves.iter().map(leaf).collect();
        let mut graph = Graph::new(Knowledge::new(leaves, offline));
        let (mut classes, mut inputs) = (BTreeMap::new(), vec![]);
        for n in 0..key.leaves.len() {
            let node = Node::Leaf(u32::try_from(n).ok()?);
            let id = graph.add(node.clone());
            inputs.push((id, node));
            classes.insert(Local::Leaf(n), id);
        }
        for (n, (op, args, results)) in key.nodes.iter().enumerate() {
            let args: Option<Vec<Id>> = args.iter().map(|a| classes.get(a).copied()).collect();
            let id = add_op(&mut graph, op, &args?)?;
            inputs.push((id, graph.id_to_node(id).clone()));
            if results.len() == 1 {
                classes.insert(Local::Result(n, 0), id);
                continue;
            }
            for position in 0..results.len() {
                let node = Node::Proj(u16::try_from(position).ok()?, id);
                let value = graph.add(node.clone());
                inputs.push((value, node));
                classes.insert(Local::Result(n, position), value);
            }
        }
        let outputs: Option<Vec<Id>> = key
            .outputs
            .iter()
            .map(|o| classes.get(o).copied())
            .collect();
        let tuple = Node::Tuple(outputs?.into());
        let root = graph.add(tuple.clone());
        inputs.push((root, tuple));
        graph.rebuild();
        Some(Self {
            graph,
            root,
            classes,
            inputs,
        })
    }

    /// The choice that is the input: for every class the first of its nodes.
    pub fn original(&self, flat: &Flat) -> Choice {
        let mut choice: Choice = vec![None; flat.classes.len()];
        for (id, node) in &self.inputs {
            let Some(class) = flat.index.get(&self.graph.find(*id)) else {
                continue;
            };
            if choice[*class].is_some() {
                continue;
            }
            let mut wanted = node.clone();
            for child in egg::Language::children_mut(&mut wanted) {
                *child = self.graph.find(*child);
            }
            let nodes = &flat.classes[*class].nodes;
            choice[*class] = nodes.iter().position(|n| n.node == wanted);
        }
        // What weights are computed from does not matter to costs: the shortest way.
        let short = flat.cheapest_trees();
        for (class, data) in flat.classes.iter().enumerate() {
            if data.weight {
                choice[class] = short[class];
            }
        }
        choice
    }

    /// The nodes of a choice, in order.
    pub fn plan(&self, key: &Key, flat: &Flat, choice: &Choice) -> Option<Plan> {
        let origins = self.origins(key, flat);
        let mut at: BTreeMap<usize, Local> = BTreeMap::new();
        let mut steps: Vec<Step> = vec![];
        let mut outputs = vec![];
        for class in flat.full_order(choice)? {
            let data = &flat.classes[class];
            let chosen = &data.nodes[choice[class]?];
            let below = |c: &usize| at.get(c).copied();
            let local = match &chosen.node {
                Node::Leaf(leaf) => Local::Leaf(*leaf as usize),
                Node::Proj(position, _) => match below(chosen.children.first()?)? {
                    Local::Result(step, _) => Local::Result(step, usize::from(*position)),
                    Local::Leaf(_) => return None,
                },
                Node::Op(kind, children) => {
                    let args: Option<Vec<Local>> = chosen.children.iter().map(below).collect();
                    let (results, splat) = match &self.graph[data.id].data {
                        super::facts::Data::Values(all) => (all.len(), None),
                        super::facts::Data::Value(facts) => (1, facts.splat),
                        _ => return None,
                    };
                    steps.push(Step {
                        op: op_of(&self.graph, *kind, children)?,
                        args: args?,
                        results,
                        origin: origins.get(&class).copied().unwrap_or(0),
                        weight: data.weight,
                        splat: splat.map(Number::from),
                    });
                    Local::Result(steps.len() - 1, 0)
                }
                Node::Tuple(_) => {
                    outputs = chosen.children.iter().map(below).collect::<Option<_>>()?;
                    continue;
                }
                Node::Attr(_) => return None,
            };
            at.insert(class, local);
        }
        let mut same = vec![];
        for (local, id) in &self.classes {
            let class = flat.index.get(&self.graph.find(*id))?;
            if let (Local::Result(..), Some(now)) = (local, at.get(class)) {
                same.push((*local, *now));
            }
        }
        Some(Plan {
            steps,
            outputs,
            same,
            cycles: (0.0, 0.0),
        })
    }

    /// For every class the node of the region that it stands for, or that the rule matched that made
    /// it.
    fn origins(&self, key: &Key, flat: &Flat) -> BTreeMap<usize, usize> {
        let mut origins = BTreeMap::new();
        for (local, id) in &self.classes {
            if let (Local::Result(node, _), Some(class)) =
                (local, flat.index.get(&self.graph.find(*id)))
            {
                origins.entry(*class).or_insert(*node);
            }
        }
        for (made, matched) in &self.graph.analysis.born {
            let class = |id: &Id| flat.index.get(&self.graph.find(*id)).copied();
            let (Some(made), Some(matched)) = (class(made), class(matched)) else {
                continue;
            };
            if let Some(origin) = origins.get(&matched).copied() {
                origins.entry(made).or_insert(origin);
            }
        }
        debug_assert!(origins.values().all(|n| *n < key.nodes.len()));
        origins
    }
}

/// What a region becomes, if that is cheaper, and what was done to find it.
pub(super) fn optimise(
    key: &Key,
    rules: &[Rule],
    prices: &dyn NodeCost,
    offline: Offline,
    limits: Limits,
) -> (Option<Plan>, RegionStats) {
    let mut stats = RegionStats {
        nodes: key.nodes.len(),
        ..RegionStats::default()
    };
    let Some(mut space) = Space::new(key, offline) else {
        return (None, stats);
    };
    let growth: Growth = saturate(&mut space.graph, rules, limits);
    stats.enodes = space.graph.total_size();
    (stats.rounds, stats.applied) = (growth.rounds, growth.applied);
    // An equality that can not be is a defect of a rule: nothing is taken from such an e-graph.
    if !space.graph.analysis.errors.is_empty() {
        return (None, stats);
    }
    let resident: Vec<bool> = key.leaves.iter().map(|l| l.resident).collect();
    let flat = Flat::new(&space.graph, space.root, &resident, prices);
    let original = space.original(&flat);
    let Some(before) = flat.cost(&original) else {
        return (None, stats);
    };
    (stats.before, stats.after) = (before, before);
    let proposals = flat.proposals(&original);
    let better: Vec<&Proposal> = proposals
        .iter()
        .filter(|p| p.cost < before * (1.0 - WORTH))
        .collect();
    if better.is_empty() {
        return (None, stats);
    }
    let mut plans: Vec<(f64, Plan)> = vec![];
    for proposal in better {
        if let Some(plan) = space.plan(key, &flat, &proposal.choice) {
            plans.push((proposal.cost, plan));
        }
    }
    // The region as it is stands last: it is a form like the others.
    plans.extend(space.plan(key, &flat, &original).map(|plan| (before, plan)));
    let taken = arbitrate(key, &plans, prices);
    let Some((after, mut plan)) = plans.into_iter().nth(taken) else {
        return (None, stats);
    };
    if after >= before {
        return (None, stats);
    }
    stats.after = after;
    plan.cycles = (before, after);
    (Some(plan), stats)
}

fn arbitrate(key: &Key, plans: &[(f64, Plan)], prices: &dyn NodeCost) -> usize {
    let mut candidates = vec![];
    for (cycles, plan) in plans {
        match model(key, plan) {
            Ok(model) => candidates.push(Candidate {
                cycles: *cycles,
                model,
            }),
            Err(_) => return 0,
        }
    }
    prices.arbitrate(&candidates).min(plans.len() - 1)
}

/// A plan as a model of its own: what is at hand when compiling are its weights, of which nobody
/// knows the bytes.
///
/// # Errors
/// What an op has against its operands: a defect of a rule.
fn model(key: &Key, plan: &Plan) -> Result<Module, TypeError> {
    let mut module = Module::default();
    let func = function(key, plan, Some(&mut module))?;
    module.functions.push(func);
    Ok(module)
}

/// A plan as a function of the values from outside; those that are at hand are weights of a module,
/// if there is one.
///
/// # Errors
/// What an op has against its operands: a defect of a rule.
pub(super) fn function(
    key: &Key,
    plan: &Plan,
    mut module: Option<&mut Module>,
) -> Result<Function, TypeError> {
    let mut b = FunctionBuilder::new("region");
    let mut leaves: Vec<ValueId> = vec![];
    for leaf in &key.leaves {
        leaves.push(match &mut module {
            Some(module) if leaf.weight => weight(&mut b, module, leaf.ty.clone()),
            _ => b.param(leaf.ty.clone(), None),
        });
    }
    let mut results: Vec<Vec<ValueId>> = vec![];
    let value = |local: &Local, results: &[Vec<ValueId>]| match local {
        Local::Leaf(n) => leaves.get(*n).copied(),
        Local::Result(n, position) => results.get(*n)?.get(*position).copied(),
    };
    let missing = || TypeError::new("a value is missing");
    for step in &plan.steps {
        let args: Option<Vec<ValueId>> = step.args.iter().map(|a| value(a, &results)).collect();
        let args = args.ok_or_else(missing)?;
        results.push(match &mut module {
            Some(module) if step.weight => {
                let types: Vec<Type> = args.iter().map(|v| b.ty(*v).clone()).collect();
                let types = step.op.infer(&types, &[])?.into_iter();
                types.map(|ty| weight(&mut b, module, ty)).collect()
            }
            _ => b.node(step.op.clone(), &args)?,
        });
    }
    let outputs: Option<Vec<ValueId>> = plan.outputs.iter().map(|o| value(o, &results)).collect();
    Ok(b.finish_unnamed(&outputs.ok_or_else(missing)?))
}

/// One more weight of a module.
fn weight(b: &mut FunctionBuilder, module: &mut Module, ty: Type) -> ValueId {
    let id = module.weights.push(Weight {
        name: format!("w{}", module.weights.len()).into(),
        ty,
        source: WeightSource::Inline,
        data: None,
    });
    b.weight(module, id)
}
