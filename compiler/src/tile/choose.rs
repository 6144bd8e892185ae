//! The search: nodes in order, a few best states, each a choice of layouts for the live values.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::entity::EntityId as _;
use dojoc_ir::graph::ValueId;
use dojoc_ir::machine::Machine;
use dojoc_ir::tiled::{Layout, result_layout};

use super::candidates::{self, Candidate};
use super::grids::Grids;
use super::problem::{Node, NodeKind, Problem, Rules};
use super::{Failure, TileOptions, traffic};

/// The split of every node (`None` for views and values made where they are used) and the layout of
/// every value that has one.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// By number of node.
    pub nodes: Vec<Option<Rc<Candidate>>>,
    /// By value.
    pub layouts: BTreeMap<ValueId, Layout>,
    /// What it is predicted to take.
    pub cycles: f64,
}

/// What a step costs beside its work: dispatch and the start of its streams, in cycles.
const STEP: f64 = 60.0;

/// A number of a distinct layout.
type LayoutNo = u32;

/// A candidate with what the search asks of it, found once for all equal nodes.
struct Way {
    candidate: Rc<Candidate>,
    /// By operand.
    needs: Vec<Need>,
    /// Layouts of the results.
    results: Vec<LayoutNo>,
}

/// What a candidate needs of an operand.
struct Need {
    layout: LayoutNo,
    /// The same without elements outside the tensor: what an input of the function comes in.
    base: LayoutNo,
    /// Elements of the largest window.
    elements: f64,
    /// Elements of the tensor in it.
    inside: u64,
}

/// Where a node stands: its rules, which operands move, and the layouts that they have.
type Situation = (u32, Vec<bool>, Vec<Option<LayoutNo>>);

/// Shared ways of equal nodes.
type Ways = Rc<[Rc<Way>]>;

/// Layouts of the live values, by ascending value.
type Live = Vec<(ValueId, LayoutNo)>;

#[derive(Clone)]
struct State {
    cycles: f64,
    /// Bytes of a core that weights of one use take.
    weights: u64,
    live: Live,
    history: Option<Rc<Past>>,
}

/// What a state came from: the candidate of the node, and layouts that its choice gave to values.
struct Past {
    before: Option<Rc<Past>>,
    candidate: Option<Rc<Candidate>>,
    given: Live,
}

/// What a state can become after one more node.
struct Next {
    cycles: f64,
    /// The number of the state.
    from: usize,
    way: Option<Rc<Way>>,
}

/// What searches have found out, whatever the function and the price of weights.
#[derive(Default)]
pub(super) struct Memo {
    layouts: Vec<Layout>,
    numbers: HashMap<Layout, LayoutNo>,
    /// By rules, and which operands move.
    own: HashMap<(u32, Vec<bool>), Ways>,
    /// By rules, operand, and layout of the operand.
    following: HashMap<(u32, usize, LayoutNo), Ways>,
    ways: HashMap<Situation, Ways>,
    estimates: HashMap<(LayoutNo, LayoutNo, u64), f64>,
}

impl Memo {
    fn number(&mut self, layout: &Layout) -> LayoutNo {
        if let Some(number) = self.numbers.get(layout) {
            return *number;
        }
        let number = self.layouts.len() as LayoutNo;
        self.layouts.push(layout.clone());
        self.numbers.insert(layout.clone(), number);
        number
    }

    /// The candidates whose results have layouts.
    fn ways(&mut self, candidates: Vec<Candidate>, grids: &Grids) -> Ways {
        let way = |candidate: Candidate| {
            let Candidate {
                rule, grid, split, ..
            } = &candidate;
            let results = (0..rule.rule.results.len())
                .map(|n| {
                    let layout = result_layout(&rule.rule, *grid, split, n).ok()?;
                    Some(self.number(&layout))
                })
                .collect::<Option<Vec<LayoutNo>>>()?;
            let needs = candidate.needs.iter();
            let needs = needs.map(|need| {
                let window = need.largest_window(&grids[need.grid]);
                let inside = window
                    .iter()
                    .zip(&need.view)
                    .map(|(w, extent)| w.min(extent));
                Need {
                    layout: self.number(need),
                    base: self.number(&traffic::unpadded(need)),
                    elements: traffic::window_elements(need, &grids[need.grid]),
                    inside: inside.product(),
                }
            });
            Some(Rc::new(Way {
                needs: needs.collect(),
                results,
                candidate: Rc::new(candidate),
            }))
        };
        candidates.into_iter().filter_map(way).collect()
    }
}

struct Search<'p> {
    problem: &'p Problem<'p>,
    machine: &'p Machine,
    options: &'p TileOptions,
    memo: &'p mut Memo,
}

/// Chooses splits and layouts for a function.
///
/// # Errors
/// Pinned splits that are wrong; weights that take more memory than the options allow.
pub(super) fn choose(
    problem: &Problem<'_>,
    machine: &Machine,
    (grids, memo): (&mut Grids, &mut Memo),
    options: &TileOptions,
) -> Result<Choice, Failure> {
    let mut search = Search {
        problem,
        machine,
        options,
        memo,
    };
    let mut states = vec![State {
        cycles: 0.0,
        weights: 0,
        live: vec![],
        history: None,
    }];
    for number in 0..problem.nodes.len() {
        let mut next = vec![];
        for (from, state) in states.iter().enumerate() {
            search.step(from, state, number, grids, &mut next)?;
        }
        states = search.best(&states, number, next);
        let least = states.iter().map(|state| state.weights).min().unwrap_or(0);
        if options.memory.is_some_and(|memory| least > memory) {
            return Err(Failure::Full(least));
        }
    }
    let best = states.into_iter().next().ok_or_else(|| {
        Diagnostics::from(Diagnostic::input(
            super::NOT_TILED,
            "no way to split the function was found",
        ))
    })?;
    Ok(search.collect(&best))
}

/// The layout of a live value.
fn layout_of(live: &Live, value: ValueId) -> Option<LayoutNo> {
    let at = live.binary_search_by_key(&value, |(v, _)| *v).ok()?;
    Some(live[at].1)
}

impl Search<'_> {
    /// Adds what can become of a state after one more node.
    fn step(
        &mut self,
        from: usize,
        state: &State,
        number: usize,
        grids: &mut Grids,
        next: &mut Vec<Next>,
    ) -> Result<(), Diagnostics> {
        let problem = self.problem;
        let node = &problem.function.nodes[problem.nodes[number].id];
        let rules = match &problem.nodes[number].kind {
            NodeKind::Step(rules) if !problem.is_small_source(number) => rules,
            _ => {
                next.push(Next {
                    cycles: state.cycles,
                    from,
                    way: None,
                });
                return Ok(());
            }
        };
        let plan = &self.options.plan;
        let pinned = plan.pinned(problem, number, rules, grids, self.machine)?;
        let ways = match pinned {
            Some(candidate) => self.memo.ways(vec![candidate], grids),
            None => self.known(state, rules, &node.args, grids),
        };
        for way in ways.iter() {
            next.push(Next {
                cycles: self.cycles(state, &node.args, way, grids),
                from,
                way: Some(way.clone()),
            });
        }
        Ok(())
    }

    /// The ways of a node by itself, and as its operands are split.
    fn known(&mut self, state: &State, rules: &Rules, args: &[ValueId], grids: &mut Grids) -> Ways {
        let moves: Vec<bool> = args.iter().map(|v| !self.problem.is_weight(*v)).collect();
        let layouts: Vec<Option<LayoutNo>> =
            (args.iter().map(|v| layout_of(&state.live, *v))).collect();
        let key = (rules.id, moves, layouts);
        if let Some(ways) = self.memo.ways.get(&key) {
            return ways.clone();
        }
        let place = (rules.id, key.1.clone());
        let own = match self.memo.own.get(&place) {
            Some(own) => own.clone(),
            None => {
                let own = candidates::own(rules, &key.1, grids, self.machine);
                let own = self.memo.ways(own, grids);
                self.memo.own.insert(place, own.clone());
                own
            }
        };
        let mut all = own.to_vec();
        for (operand, layout) in key.2.iter().enumerate() {
            let Some(layout) = *layout else {
                continue;
            };
            let place = (rules.id, operand, layout);
            let following = match self.memo.following.get(&place) {
                Some(following) => following.clone(),
                None => {
                    let layout = &self.memo.layouts[layout as usize];
                    let found = candidates::following(rules, operand, layout, grids, self.machine);
                    let found = self.memo.ways(found, grids);
                    self.memo.following.insert(place, found.clone());
                    found
                }
            };
            for way in following.iter() {
                let (grid, split) = (way.candidate.grid, &way.candidate.split);
                let loops = &way.candidate.rule.loops;
                let same = |other: &Rc<Way>| {
                    let c = &other.candidate;
                    c.grid == grid && c.split == *split && c.rule.loops == *loops
                };
                if !all.iter().any(same) {
                    all.push(way.clone());
                }
            }
        }
        let all: Ways = all.into();
        self.memo.ways.insert(key, all.clone());
        all
    }

    /// Cycles until a node is done that is split in one way.
    fn cycles(&mut self, state: &State, args: &[ValueId], way: &Way, grids: &Grids) -> f64 {
        let problem = self.problem;
        let mut cycles = state.cycles + way.candidate.cycles + STEP;
        for (n, (value, need)) in args.iter().zip(&way.needs).enumerate() {
            if problem.is_weight(*value) {
                let bytes = need.elements * problem.width(*value) as f64;
                cycles += bytes * self.options.weight_price;
                continue;
            }
            if self.problem.free[value.index()] {
                continue;
            }
            // An operand that a node has twice is moved once; an input comes as its first use has it.
            let before = args[..n].iter().position(|v| v == value);
            let have = match layout_of(&state.live, *value) {
                Some(_) if before.is_some() => continue,
                Some(have) => have,
                None => match before {
                    Some(first) => way.needs[first].base,
                    None => continue,
                },
            };
            cycles += self.reshard(have, need.layout, problem.width(*value), grids);
        }
        cycles
    }

    /// The best states after a node, one for each set of live layouts.
    fn best(&self, states: &[State], number: usize, mut next: Vec<Next>) -> Vec<State> {
        next.sort_by(|a, b| a.cycles.total_cmp(&b.cycles));
        let mut kept: Vec<State> = vec![];
        for next in next {
            if kept.len() == self.options.effort {
                break;
            }
            let (live, given) = self.live_after(&states[next.from], number, next.way.as_deref());
            if kept.iter().all(|k| k.live != live) {
                let node = &self.problem.nodes[number];
                let way = next.way.as_deref();
                kept.push(State {
                    cycles: next.cycles,
                    weights: states[next.from].weights + way.map_or(0, |w| self.weights(node, w)),
                    live,
                    history: Some(Rc::new(Past {
                        before: states[next.from].history.clone(),
                        candidate: next.way.map(|way| way.candidate.clone()),
                        given,
                    })),
                });
            }
        }
        kept
    }

    /// Bytes that the weights which only this node uses take on a core.
    fn weights(&self, node: &Node, way: &Way) -> u64 {
        let args = &self.problem.function.nodes[node.id].args;
        let alone = args.iter().zip(&way.needs).filter(|(value, _)| {
            self.problem.is_weight(**value) && self.problem.uses[value.index()] == 1
        });
        alone
            .map(|(value, need)| need.inside.saturating_mul(self.problem.width(*value)))
            .fold(0, u64::saturating_add)
    }

    /// The layouts of the values that live after a node, and those that it has given.
    fn live_after(&self, state: &State, number: usize, way: Option<&Way>) -> (Live, Live) {
        let problem = self.problem;
        let node = &problem.function.nodes[problem.nodes[number].id];
        let mut given: Live = vec![];
        match (&problem.nodes[number].kind, way) {
            (NodeKind::View, _) => {
                let layout = layout_of(&state.live, node.args[0]);
                given.extend(layout.map(|layout| (node.results[0], layout)));
            }
            (NodeKind::Step(_), Some(way)) => {
                for (value, need) in node.args.iter().zip(&way.needs) {
                    let has = problem.is_weight(*value)
                        || self.problem.free[value.index()]
                        || layout_of(&state.live, *value).is_some()
                        || given.iter().any(|(v, _)| v == value);
                    if !has {
                        given.push((*value, need.base));
                    }
                }
                given.extend(
                    node.results
                        .iter()
                        .copied()
                        .zip(way.results.iter().copied()),
                );
            }
            (NodeKind::Step(_), None) => {}
        }
        let mut live = state.live.clone();
        for (value, layout) in &given {
            match live.binary_search_by_key(value, |(v, _)| *v) {
                Ok(at) => live[at].1 = *layout,
                Err(at) => live.insert(at, (*value, *layout)),
            }
        }
        // Values that no later node uses are forgotten.
        live.retain(|(value, _)| problem.last_use[value.index()] > number);
        (live, given)
    }

    fn reshard(&mut self, have: LayoutNo, need: LayoutNo, width: u64, grids: &Grids) -> f64 {
        if have == need {
            return 0.0;
        }
        if let Some(cycles) = self.memo.estimates.get(&(have, need, width)) {
            return *cycles;
        }
        let (from, to) = (
            &self.memo.layouts[have as usize],
            &self.memo.layouts[need as usize],
        );
        let covered = from
            .with_view(&to.view)
            .is_some_and(|l| traffic::covers(&l, to, grids));
        let cycles = if covered {
            0.0
        } else {
            traffic::estimate(from, to, width, grids, self.machine)
        };
        self.memo.estimates.insert((have, need, width), cycles);
        cycles
    }

    fn collect(&self, state: &State) -> Choice {
        let mut nodes = vec![];
        let mut layouts = BTreeMap::new();
        let mut at = state.history.clone();
        while let Some(past) = at {
            nodes.push(past.candidate.clone());
            for (value, layout) in &past.given {
                layouts.insert(*value, self.memo.layouts[*layout as usize].clone());
            }
            at = past.before.clone();
        }
        nodes.reverse();
        Choice {
            nodes,
            layouts,
            cycles: state.cycles,
        }
    }
}
