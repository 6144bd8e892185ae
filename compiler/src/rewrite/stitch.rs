//! What all regions of a module become, and how that is put into their places.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dojoc_ir::entity::EntityId as _;
use dojoc_ir::graph::{Function, Module, NodeId, RegionId, ValueId};
use dojoc_ir::ops::{EvalCx, EvalError, TypeError};
use dojoc_ir::tensor::Tensor;

use super::cost::NodeCost;
use super::facts::Offline;
use super::region::{Key, Local, Piece, key, pieces, weight_uses};
use super::rule::{Limits, RULES};
use super::saturate::{Plan, RegionStats, optimise};
use crate::graph::{Editor, as_constant};

/// A region and what it becomes.
struct Planned {
    piece: Piece,
    plan: Arc<Plan>,
}

/// What saturation found for a module.
pub(crate) struct Plans {
    /// By function and first node of a region.
    planned: BTreeMap<(Arc<str>, NodeId), Planned>,
    /// What every distinct region did, with the number of regions that are equal to it.
    pub stats: Vec<(RegionStats, usize)>,
}

/// Bounds of a saturation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub offline: Offline,
    pub limits: Limits,
}

impl Plans {
    /// Saturates every region of a module that is not equal to one before.
    ///
    /// # Errors
    /// A rule whose pattern is none: our defect.
    pub fn new(
        module: &Module,
        prices: &dyn NodeCost,
        bounds: Bounds,
        check: &dyn Fn() -> Result<(), dojoc_ir::diag::Diagnostics>,
    ) -> Result<Self, PlanError> {
        let rules = RULES.as_ref().map_err(|e| PlanError::Rule(e.clone()))?;
        let uses = weight_uses(module);
        let mut known: BTreeMap<Key, (Option<Arc<Plan>>, usize)> = BTreeMap::new();
        let (mut planned, mut stats) = (BTreeMap::new(), Vec::<(RegionStats, usize)>::new());
        for func in module.functions.values() {
            for region in reachable(func) {
                for piece in pieces(func, region) {
                    check().map_err(PlanError::Cancelled)?;
                    let key = key(module, func, &piece, &uses, bounds.offline);
                    let plan = match known.get(&key) {
                        Some((plan, n)) => {
                            stats[*n].1 += 1;
                            plan.clone()
                        }
                        None => {
                            let (plan, found) =
                                optimise(&key, rules, prices, bounds.offline, bounds.limits);
                            let plan = plan.map(Arc::new);
                            known.insert(key, (plan.clone(), stats.len()));
                            stats.push((found, 1));
                            plan
                        }
                    };
                    if let Some(plan) = plan {
                        let at = (func.name.clone(), piece.nodes[0]);
                        planned.insert(at, Planned { piece, plan });
                    }
                }
            }
        }
        Ok(Self { planned, stats })
    }
}

/// Why there is no plan.
pub(crate) enum PlanError {
    /// A rule is broken.
    Rule(String),
    /// The compilation was cancelled.
    Cancelled(dojoc_ir::diag::Diagnostics),
}

/// The regions of a function that its body leads to.
fn reachable(func: &Function) -> Vec<RegionId> {
    let mut found = BTreeSet::from([func.body().index()]);
    for node in func.walk() {
        found.extend(func.nodes[node].regions.iter().map(|r| r.index()));
    }
    found.into_iter().map(RegionId::from_index).collect()
}

/// Puts plans into their places, as an editor walks over a module.
pub(crate) struct Stitch<'p> {
    plans: &'p Plans,
    offline: Offline,
    /// Bytes of weights that may still be made.
    left: u64,
    /// The values that replace the results of a node.
    values: BTreeMap<NodeId, Vec<ValueId>>,
}

impl<'p> Stitch<'p> {
    /// Nothing has been replaced yet.
    pub fn new(plans: &'p Plans, offline: Offline, total_bytes: u64) -> Self {
        Self {
            plans,
            offline,
            left: total_bytes,
            values: BTreeMap::new(),
        }
    }

    /// What replaces a node. At the first node of a region that is replaced, its nodes are added, if
    /// `spend` allows it.
    ///
    /// # Errors
    /// What an op has against its operands: a defect of a rule.
    pub fn visit(
        &mut self,
        e: &mut Editor<'_>,
        node: NodeId,
        spend: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Vec<ValueId>>, TypeError> {
        let at = (e.func.name.clone(), node);
        if let Some(planned) = self.plans.planned.get(&at) {
            self.values.clear();
            let leaves: Vec<ValueId> = planned.piece.leaves.iter().map(|v| e.resolve(*v)).collect();
            if let Some(weights) = self.weights(e, &planned.plan, &leaves)
                && spend()
            {
                self.place(e, planned, &leaves, weights)?;
            }
        }
        Ok(self.values.remove(&node))
    }

    /// The tensors of the steps that are computed when compiling and used by others; `None` if one
    /// can not be computed or there are too many bytes of them.
    fn weights(
        &mut self,
        e: &Editor<'_>,
        plan: &Plan,
        leaves: &[ValueId],
    ) -> Option<BTreeMap<usize, Tensor>> {
        let mut needed = BTreeSet::new();
        let used = plan
            .steps
            .iter()
            .filter(|s| !s.weight)
            .flat_map(|s| &s.args);
        for local in used.chain(&plan.outputs) {
            if let Local::Result(step, _) = local
                && plan.steps[*step].weight
                && plan.steps[*step].splat.is_none()
            {
                needed.insert(*step);
            }
        }
        let mut known: BTreeMap<Local, Tensor> = BTreeMap::new();
        let mut wanted = needed.clone();
        for (n, step) in plan.steps.iter().enumerate().rev() {
            if wanted.contains(&n) {
                wanted.extend(step.args.iter().filter_map(|a| match a {
                    Local::Result(inner, _) => Some(*inner),
                    Local::Leaf(_) => None,
                }));
            }
        }
        for n in &wanted {
            let step = &plan.steps[*n];
            let mut args = vec![];
            for local in &step.args {
                let tensor = match (local, known.get(local)) {
                    (_, Some(tensor)) => tensor.clone(),
                    (Local::Leaf(leaf), None) => {
                        as_constant(e.module, &e.func, *leaves.get(*leaf)?, self.offline.bytes)?
                    }
                    (Local::Result(..), None) => return None,
                };
                known.insert(*local, tensor.clone());
                args.push(tensor);
            }
            let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
            let results = step.op.eval(&args, &mut EvalCx::new(&mut none)).ok()?;
            for (position, tensor) in results.into_iter().enumerate() {
                known.insert(Local::Result(*n, position), tensor);
            }
        }
        let mut made = BTreeMap::new();
        for step in needed {
            made.insert(step, known.remove(&Local::Result(step, 0))?);
        }
        let bytes: u64 = made.values().map(|t| t.bytes().len() as u64).sum();
        self.left = self.left.checked_sub(bytes)?;
        Some(made)
    }

    fn place(
        &mut self,
        e: &mut Editor<'_>,
        planned: &Planned,
        leaves: &[ValueId],
        mut weights: BTreeMap<usize, Tensor>,
    ) -> Result<(), TypeError> {
        let Planned { piece, plan } = planned;
        let mut made: Vec<Option<Vec<ValueId>>> = vec![];
        let find = |local: &Local, made: &[Option<Vec<ValueId>>]| match local {
            Local::Leaf(n) => leaves.get(*n).copied(),
            Local::Result(n, position) => made.get(*n)?.as_ref()?.get(*position).copied(),
        };
        for (n, step) in plan.steps.iter().enumerate() {
            let origin = piece
                .nodes
                .get(step.origin)
                .copied()
                .unwrap_or(piece.nodes[0]);
            e.at(origin);
            if let Some(tensor) = weights.remove(&n) {
                let name = e.name_for(e.func.nodes[origin].results[0]);
                made.push(Some(vec![e.add_weight(&name, tensor)]));
                continue;
            }
            let args: Option<Vec<ValueId>> = step.args.iter().map(|a| find(a, &made)).collect();
            // What only weights are made from is not there.
            let wanted = !step.weight || step.splat.is_some();
            made.push(match args.filter(|_| wanted) {
                Some(args) => Some(e.emit_all(step.op.clone(), &args)?),
                None => None,
            });
        }
        let now: BTreeMap<Local, ValueId> = plan
            .same
            .iter()
            .filter_map(|(old, new)| Some((*old, find(new, &made)?)))
            .collect();
        for (n, node) in piece.nodes.iter().enumerate() {
            let count = e.func.nodes[*node].results.len();
            let values = (0..count).map(|p| now.get(&Local::Result(n, p)).copied());
            if let Some(values) = values.collect::<Option<Vec<ValueId>>>() {
                self.values.insert(*node, values);
            }
        }
        Ok(())
    }
}
