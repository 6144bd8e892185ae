//! Choice of one node per class: several heuristics, the cheapest result by its true cost as a
//! directed graph, and never one that is dearer than the input.
//!
//! Tree costs count shared values again and again, and are meaningless on residual nets; greedy sets
//! and area flow each miss what the other finds. All of them only propose; what counts is
//! [`Flat::cost`], where every chosen node is paid once. Ties go to the lower number of a class or
//! node, so the result is a function of the e-graph.

use std::collections::{BTreeMap, VecDeque};

use egg::Id;

use super::cost::NodeCost;
use super::facts::{Data, Graph, facts, op_of};
use super::node::Node;

/// For each class the position of the node that is taken; unused classes may have any.
pub(super) type Choice = Vec<Option<usize>>;

/// Added to the cost of every node, so that what costs nothing is not added.
const EPSILON: f64 = 1e-3;

/// Greedy sets are tried up to this many nodes: they are quadratic.
const SETS_LIMIT: usize = 5_000;

/// Evaluations of whole choices that local improvement may make.
const LOCAL_LIMIT: usize = 8_000;

/// What doing without a class counts, of those: it goes over the e-graph several times.
const WITHOUT: usize = 4;

/// How many proposals are kept.
const PROPOSALS: usize = 4;

/// One node of a class.
#[derive(Debug)]
pub(super) struct FlatNode {
    pub node: Node,
    /// Classes of the operands.
    pub children: Vec<usize>,
    /// Cycles.
    cost: f64,
}

/// One class of values.
#[derive(Debug)]
pub(super) struct FlatClass {
    pub id: Id,
    pub nodes: Vec<FlatNode>,
    /// Whether it is computed when compiling: then the class has a price and its nodes have none.
    pub weight: bool,
    price: f64,
}

/// An e-graph as arrays.
#[derive(Debug)]
pub(super) struct Flat {
    pub classes: Vec<FlatClass>,
    pub index: BTreeMap<Id, usize>,
    pub root: usize,
}

/// A choice with its cost.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal {
    pub cost: f64,
    pub choice: Choice,
}

impl Flat {
    /// The classes of an e-graph. `resident` are the leaves that stay on the machine in any case.
    pub fn new(graph: &Graph, root: Id, resident: &[bool], prices: &dyn NodeCost) -> Self {
        let mut ids: Vec<Id> = graph.classes().map(|class| class.id).collect();
        ids.retain(|id| !matches!(graph[*id].data, Data::Attr(_)));
        ids.sort_unstable();
        let index: BTreeMap<Id, usize> = ids.iter().enumerate().map(|(n, id)| (*id, n)).collect();
        let class = |id: &Id| {
            let known = facts(graph, *id);
            let weight = known.is_some_and(|f| f.weight);
            let stays = |node: &Node| match node {
                Node::Leaf(leaf) => resident.get(*leaf as usize) == Some(&true),
                _ => false,
            };
            let free = known.is_none_or(|f| f.splat.is_some()) || graph[*id].iter().any(stays);
            let price = match known {
                Some(f) if weight && !free => prices.weight(&f.ty),
                _ => 0.0,
            };
            let mut nodes: Vec<FlatNode> = graph[*id]
                .iter()
                .map(|node| FlatNode {
                    children: node
                        .operands()
                        .iter()
                        .filter_map(|c| index.get(&graph.find(*c)).copied())
                        .collect(),
                    cost: match node {
                        Node::Leaf(_) => EPSILON / 2.0,
                        _ if weight => EPSILON,
                        _ => price_of(graph, *id, node, prices) + EPSILON,
                    },
                    node: node.clone(),
                })
                .collect();
            if weight {
                nodes.retain(|n| offline(graph, &n.node));
            }
            nodes.sort_by(|a, b| a.node.cmp(&b.node));
            FlatClass {
                id: *id,
                nodes,
                weight,
                price,
            }
        };
        let classes = ids.iter().map(class).collect();
        let root = index.get(&graph.find(root)).copied().unwrap_or(0);
        Self {
            classes,
            index,
            root,
        }
    }

    /// What a choice costs: every node that the root needs once. `None` if it goes in circles or
    /// lacks a node.
    pub fn cost(&self, choice: &Choice) -> Option<f64> {
        let mut total = 0.0;
        for class in self.order(choice)? {
            let data = &self.classes[class];
            total += match data.weight {
                true => data.price + EPSILON,
                false => data.nodes[choice[class]?].cost,
            };
        }
        Some(total)
    }

    /// The classes that the root needs, operands first. What is computed when compiling is the end:
    /// its operands are not among them.
    pub fn order(&self, choice: &Choice) -> Option<Vec<usize>> {
        self.walk(choice, false)
    }

    /// The same with what weights are computed from.
    pub fn full_order(&self, choice: &Choice) -> Option<Vec<usize>> {
        self.walk(choice, true)
    }

    fn walk(&self, choice: &Choice, inside: bool) -> Option<Vec<usize>> {
        let mut state = vec![0u8; self.classes.len()];
        let mut order = vec![];
        let mut stack = vec![(self.root, 0usize)];
        state[self.root] = 1;
        while let Some((class, at)) = stack.pop() {
            let data = &self.classes[class];
            let node = &data.nodes[choice[class]?];
            let end = data.weight && !inside;
            match node.children.get(at).filter(|_| !end) {
                Some(child) => {
                    stack.push((class, at + 1));
                    match state[*child] {
                        0 => {
                            state[*child] = 1;
                            stack.push((*child, 0));
                        }
                        1 => return None,
                        _ => {}
                    }
                }
                None => {
                    state[class] = 2;
                    order.push(class);
                }
            }
        }
        Some(order)
    }

    /// The cheapest choices found, at most four, the cheapest first, none dearer than `original`.
    pub fn proposals(&self, original: &Choice) -> Vec<Proposal> {
        let mut found: Vec<Proposal> = vec![];
        let mut add = |choice: Choice| {
            if let Some(cost) = self.cost(&choice) {
                found.push(Proposal { cost, choice });
            }
        };
        add(original.clone());
        let cheap = self.cheapest_trees();
        let references = self.references(&cheap);
        add(cheap);
        if self.classes.iter().map(|c| c.nodes.len()).sum::<usize>() <= SETS_LIMIT {
            add(self.greedy_sets());
        }
        let mut flow = self.area_flow(&references);
        for _ in 0..3 {
            let references = self.references(&flow);
            add(flow);
            flow = self.area_flow(&references);
        }
        add(flow);
        let best = cheapest(&found).cloned();
        if let Some(best) = best {
            found.push(self.improved(best));
        }
        found.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        found.dedup_by(|a, b| self.chosen(&a.choice) == self.chosen(&b.choice));
        found.truncate(PROPOSALS);
        found
    }

    /// What a choice takes of all it could.
    pub fn chosen(&self, choice: &Choice) -> Option<BTreeMap<usize, Option<usize>>> {
        let order = self.order(choice)?;
        Some(
            order
                .into_iter()
                .map(|class| (class, choice[class]))
                .collect(),
        )
    }

    /// For every class the node that is cheapest as a tree.
    pub fn cheapest_trees(&self) -> Choice {
        self.bottom_up(&|class, node| self.classes[class].nodes[node].cost)
    }

    /// The same with other costs of (class, node). Classes that are computed when compiling take the
    /// node of the fewest steps.
    pub fn bottom_up(&self, cost: &dyn Fn(usize, usize) -> f64) -> Choice {
        self.trees(cost, &|class| self.classes[class].price)
    }

    /// The same with other prices of weights.
    fn trees(&self, cost: &dyn Fn(usize, usize) -> f64, price: &dyn Fn(usize) -> f64) -> Choice {
        let mut best = vec![f64::INFINITY; self.classes.len()];
        let mut choice: Choice = vec![None; self.classes.len()];
        self.settle(|class| {
            let own = &self.classes[class];
            let mut changed = false;
            for (n, node) in own.nodes.iter().enumerate() {
                let below = |c: &usize| match self.classes[*c].weight && !own.weight {
                    true if best[*c].is_finite() => price(*c),
                    _ => best[*c],
                };
                let total = cost(class, n) + node.children.iter().map(below).sum::<f64>();
                if total < best[class] {
                    best[class] = total;
                    choice[class] = Some(n);
                    changed = true;
                }
            }
            changed
        });
        choice
    }

    /// Improves all classes, and again those above a class that got better, until none does.
    fn settle(&self, mut improve: impl FnMut(usize) -> bool) {
        let parents = self.parents();
        let mut queue: VecDeque<usize> = (0..self.classes.len()).collect();
        let mut queued = vec![true; self.classes.len()];
        while let Some(class) = queue.pop_front() {
            queued[class] = false;
            if !improve(class) {
                continue;
            }
            for parent in &parents[class] {
                if !std::mem::replace(&mut queued[*parent], true) {
                    queue.push_back(*parent);
                }
            }
        }
    }

    fn parents(&self) -> Vec<Vec<usize>> {
        let mut parents = vec![vec![]; self.classes.len()];
        for (class, data) in self.classes.iter().enumerate() {
            for child in data.nodes.iter().flat_map(|n| &n.children) {
                if parents[*child].last() != Some(&class) {
                    parents[*child].push(class);
                }
            }
        }
        parents
    }

    /// For every class the node whose set of needed classes is cheapest, sets being those of the
    /// choices so far.
    fn greedy_sets(&self) -> Choice {
        type Set = BTreeMap<usize, f64>;
        // Weights are decided on their own; here they are ends.
        let mut choice = self.cheapest_trees();
        let mut best: Vec<Option<(f64, Set)>> = vec![None; self.classes.len()];
        self.settle(|class| {
            let data = &self.classes[class];
            let mut changed = false;
            if data.weight {
                if best[class].is_none() && choice[class].is_some() {
                    let own = data.price + EPSILON;
                    best[class] = Some((own, Set::from([(class, own)])));
                    changed = true;
                }
            } else {
                for (n, node) in data.nodes.iter().enumerate() {
                    let Some((total, set)) = union(class, node, &best) else {
                        continue;
                    };
                    if best[class]
                        .as_ref()
                        .is_none_or(|(old, _)| total < *old - 1e-9)
                    {
                        best[class] = Some((total, set));
                        choice[class] = Some(n);
                        changed = true;
                    }
                }
            }
            changed
        });
        choice
    }

    /// How often every class is an operand under a choice, at least once.
    fn references(&self, choice: &Choice) -> Vec<f64> {
        let mut count = vec![0.0f64; self.classes.len()];
        for class in self.order(choice).unwrap_or_default() {
            let data = &self.classes[class];
            let node = choice[class].filter(|_| !data.weight);
            for child in node.into_iter().flat_map(|n| &data.nodes[n].children) {
                count[*child] += 1.0;
            }
        }
        count.into_iter().map(|n| n.max(1.0)).collect()
    }

    /// As a tree, but what is used several times is paid in shares.
    fn area_flow(&self, references: &[f64]) -> Choice {
        let mut flow = vec![f64::INFINITY; self.classes.len()];
        let mut choice = self.cheapest_trees();
        // Shares may fall as operands get cheaper; a bound keeps cycles of shares from going on.
        for _ in 0..64 {
            let mut changed = false;
            for (class, data) in self.classes.iter().enumerate() {
                if data.weight {
                    flow[class] = (data.price + EPSILON) / references[class];
                    continue;
                }
                for (n, node) in data.nodes.iter().enumerate() {
                    let below: f64 = node.children.iter().map(|c| flow[*c]).sum();
                    let total = (node.cost + below) / references[class];
                    if total < flow[class] - 1e-9 {
                        flow[class] = total;
                        choice[class] = Some(n);
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        choice
    }

    /// Switches single classes, and does without single ones, as long as that makes the whole
    /// cheaper.
    fn improved(&self, mut best: Proposal) -> Proposal {
        let mut left = LOCAL_LIMIT;
        let take = |choice: Choice, best: &mut Proposal| {
            let cost = self.cost(&choice).filter(|cost| *cost < best.cost - 1e-9);
            if let Some(cost) = cost {
                *best = Proposal { cost, choice };
            }
        };
        loop {
            let before = best.cost;
            for class in self.order(&best.choice).unwrap_or_default() {
                if self.classes[class].weight || class == self.root {
                    continue;
                }
                for n in 0..self.classes[class].nodes.len() {
                    if best.choice[class] == Some(n) || left == 0 {
                        continue;
                    }
                    left -= 1;
                    let mut choice = best.choice.clone();
                    choice[class] = Some(n);
                    take(choice, &mut best);
                }
                if left >= WITHOUT {
                    left -= WITHOUT;
                    take(self.without(class, &best.choice), &mut best);
                }
            }
            if left == 0 || best.cost >= before - 1e-9 {
                return best;
            }
        }
    }

    /// A choice that does not need a class, and of the others prefers those that are needed anyway:
    /// all users of the class switch together.
    fn without(&self, class: usize, choice: &Choice) -> Choice {
        let mut needed = vec![false; self.classes.len()];
        for class in self.order(choice).unwrap_or_default() {
            needed[class] = true;
        }
        let cost = |c: usize, n: usize| match c == class {
            true => f64::INFINITY,
            false if needed[c] && choice[c] == Some(n) => EPSILON,
            false => self.classes[c].nodes[n].cost,
        };
        let price = |c: usize| match needed[c] {
            true => EPSILON,
            false => self.classes[c].price,
        };
        self.trees(&cost, &price)
    }
}

fn cheapest(found: &[Proposal]) -> Option<&Proposal> {
    found.iter().min_by(|a, b| a.cost.total_cmp(&b.cost))
}

/// The classes that a node needs, itself included, with their costs; `None` if an operand has none
/// yet or needs the class itself.
fn union(
    class: usize,
    node: &FlatNode,
    best: &[Option<(f64, BTreeMap<usize, f64>)>],
) -> Option<(f64, BTreeMap<usize, f64>)> {
    let mut set = BTreeMap::new();
    for child in &node.children {
        let (_, below) = best[*child].as_ref()?;
        if below.contains_key(&class) {
            return None;
        }
        set.extend(below.iter().map(|(c, cost)| (*c, *cost)));
    }
    set.insert(class, node.cost);
    Some((set.values().sum(), set))
}

/// Whether a node of a class that can be computed when compiling can be computed then.
fn offline(graph: &Graph, node: &Node) -> bool {
    let weight = |id: &Id| facts(graph, *id).is_some_and(|f| f.weight);
    match node {
        Node::Leaf(leaf) => graph.analysis.leaves[*leaf as usize].weight,
        Node::Proj(..) | Node::Tuple(_) => false,
        other => other.operands().iter().all(weight),
    }
}

/// Cycles of one node.
fn price_of(graph: &Graph, class: Id, node: &Node, prices: &dyn NodeCost) -> f64 {
    let Node::Op(kind, children) = node else {
        return 0.0;
    };
    let types = |data: &Data| match data {
        Data::Value(f) => vec![f.ty.clone()],
        Data::Values(all) => all.iter().map(|f| f.ty.clone()).collect(),
        Data::Attr(_) | Data::Nothing => vec![],
    };
    let args: Option<Vec<_>> = node
        .operands()
        .iter()
        .map(|c| Some(facts(graph, *c)?.ty.clone()))
        .collect();
    match (op_of(graph, *kind, children), args) {
        (Some(op), Some(args)) => prices.node(&op, &args, &types(&graph[class].data)),
        _ => f64::INFINITY,
    }
}
