//! The search: nodes in order, a few best states, each a choice of layouts for the live values.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use dojoc_ir::access::Tiling;
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::entity::EntityId as _;
use dojoc_ir::graph::{ValueDef, ValueId};
use dojoc_ir::machine::Machine;
use dojoc_ir::ops::Op;
use dojoc_ir::tiled::{Layout, result_layout};
use dojoc_ir::types::Type;

use super::candidates::{self, Candidate};
use super::grids::Grids;
use super::problem::{NodeKind, Problem, Rules};
use super::{TileOptions, traffic};

/// The split of every node (`None` for views and values made where they are used) and the layout of
/// every value that has one.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// By number of node.
    pub nodes: Vec<Option<Rc<Candidate>>>,
    /// By value.
    pub layouts: BTreeMap<ValueId, Layout>,
}

/// Values of nodes without operands up to this size are made where they are used, in bytes.
const SMALL: u64 = 4096;

/// What a step costs beside its work: dispatch and the start of its streams, in cycles.
const STEP: f64 = 60.0;

/// Shared candidates of equal nodes.
type Candidates = Rc<Vec<Rc<Candidate>>>;

/// A number of a distinct layout.
type LayoutNo = u32;

#[derive(Clone)]
struct State {
    cycles: f64,
    live: BTreeMap<ValueId, LayoutNo>,
    history: Option<Rc<Past>>,
}

/// What a state came from: the candidate of the node, and layouts that its choice gave to values.
struct Past {
    before: Option<Rc<Past>>,
    candidate: Option<Rc<Candidate>>,
    given: Vec<(ValueId, LayoutNo)>,
}

struct Search<'p> {
    problem: &'p Problem<'p>,
    machine: &'p Machine,
    options: &'p TileOptions,
    layouts: Vec<Layout>,
    numbers: HashMap<Layout, LayoutNo>,
    own: HashMap<(Op, Vec<Type>, Vec<bool>), Candidates>,
    following: HashMap<(Op, Vec<Type>, usize, LayoutNo), Candidates>,
    estimates: HashMap<(LayoutNo, LayoutNo, u64), (bool, f64)>,
    /// By value: whether it can be had in any layout, see [`is_free`].
    free: Vec<bool>,
}

/// Whether a value can be had in any layout at the place where it is used.
pub(super) fn is_small_source(problem: &Problem<'_>, number: usize) -> bool {
    let node = &problem.function.nodes[problem.nodes[number].id];
    node.args.is_empty()
        && node.results.iter().all(|v| {
            let elements: u64 = problem.shape(*v).iter().product();
            elements.saturating_mul(problem.width(*v)) <= SMALL
        })
}

/// Whether a value can be had in any layout: a weight, or a small value without operands.
fn is_free(problem: &Problem<'_>, value: ValueId) -> bool {
    match problem.function.values[value].def {
        ValueDef::Result(node, _) => {
            let node = &problem.function.nodes[node];
            let is_view = || {
                let tiling = node.op.tiling(&problem.function.types(&node.args));
                matches!(tiling, Tiling::View(_))
            };
            let elements = || problem.shape(value).iter().product::<u64>();
            match node.args.first() {
                None => elements().saturating_mul(problem.width(value)) <= SMALL,
                Some(arg) => is_view() && is_free(problem, *arg),
            }
        }
        ValueDef::Weight(_) => true,
        _ => false,
    }
}

/// Chooses splits and layouts for a function.
///
/// # Errors
/// Pinned splits that are wrong.
pub(super) fn choose(
    problem: &Problem<'_>,
    machine: &Machine,
    grids: &mut Grids,
    options: &TileOptions,
) -> Result<Choice, Diagnostics> {
    let mut search = Search {
        problem,
        machine,
        options,
        layouts: vec![],
        numbers: HashMap::new(),
        own: HashMap::new(),
        following: HashMap::new(),
        estimates: HashMap::new(),
        free: (problem.function.values.ids())
            .map(|value| is_free(problem, value))
            .collect(),
    };
    let mut states = vec![State {
        cycles: 0.0,
        live: BTreeMap::new(),
        history: None,
    }];
    for number in 0..problem.nodes.len() {
        let mut next = vec![];
        for state in &states {
            search.step(state, number, grids, &mut next)?;
        }
        states = prune(next, options.effort);
    }
    let best = states.into_iter().next().ok_or_else(|| {
        Diagnostics::from(Diagnostic::input(
            super::NOT_TILED,
            "no way to split the function was found",
        ))
    })?;
    Ok(search.collect(&best))
}

/// The best states, one for each set of live layouts.
fn prune(mut states: Vec<State>, keep: usize) -> Vec<State> {
    states.sort_by(|a, b| a.cycles.total_cmp(&b.cycles));
    let mut kept: Vec<State> = vec![];
    for state in states {
        if kept.len() == keep {
            break;
        }
        if kept.iter().all(|k| k.live != state.live) {
            kept.push(state);
        }
    }
    kept
}

impl Search<'_> {
    fn number(&mut self, layout: &Layout) -> LayoutNo {
        if let Some(number) = self.numbers.get(layout) {
            return *number;
        }
        let number = self.layouts.len() as LayoutNo;
        self.layouts.push(layout.clone());
        self.numbers.insert(layout.clone(), number);
        number
    }

    /// Adds what can become of a state after one more node.
    fn step(
        &mut self,
        state: &State,
        number: usize,
        grids: &mut Grids,
        next: &mut Vec<State>,
    ) -> Result<(), Diagnostics> {
        let problem = self.problem;
        let node = &problem.function.nodes[problem.nodes[number].id];
        match &problem.nodes[number].kind {
            NodeKind::View => {
                let mut live = state.live.clone();
                let mut given = vec![];
                if let Some(layout) = state.live.get(&node.args[0]) {
                    given.push((node.results[0], *layout));
                }
                live.extend(given.iter().copied());
                self.retire(&mut live, number);
                next.push(State {
                    cycles: state.cycles,
                    live,
                    history: Some(Rc::new(Past {
                        before: state.history.clone(),
                        candidate: None,
                        given,
                    })),
                });
            }
            NodeKind::Step(_) if is_small_source(problem, number) => {
                next.push(State {
                    history: Some(Rc::new(Past {
                        before: state.history.clone(),
                        candidate: None,
                        given: vec![],
                    })),
                    ..state.clone()
                });
            }
            NodeKind::Step(rules) => {
                let pinned =
                    self.options
                        .plan
                        .pinned(problem, number, rules, grids, self.machine)?;
                let candidates = match pinned {
                    Some(candidate) => vec![Rc::new(candidate)],
                    None => self.candidates(state, rules, &node.args, grids),
                };
                for candidate in candidates {
                    if let Some(state) = self.apply(state, number, rules, &candidate, grids) {
                        next.push(state);
                    }
                }
            }
        }
        Ok(())
    }

    fn candidates(
        &mut self,
        state: &State,
        rules: &Rules,
        args: &[ValueId],
        grids: &mut Grids,
    ) -> Vec<Rc<Candidate>> {
        let moves: Vec<bool> = args.iter().map(|v| !self.problem.is_weight(*v)).collect();
        let key = (rules.op.clone(), rules.args.clone(), moves.clone());
        let own = match self.own.get(&key) {
            Some(own) => own.clone(),
            None => {
                let own = candidates::own(rules, &moves, grids, self.machine);
                let own: Rc<Vec<_>> = Rc::new(own.into_iter().map(Rc::new).collect());
                self.own.insert(key, own.clone());
                own
            }
        };
        let mut all: Vec<Rc<Candidate>> = own.to_vec();
        for (operand, value) in args.iter().enumerate() {
            let Some(layout) = state.live.get(value).copied() else {
                continue;
            };
            let key = (rules.op.clone(), rules.args.clone(), operand, layout);
            let following = match self.following.get(&key) {
                Some(following) => following.clone(),
                None => {
                    let layout = &self.layouts[layout as usize];
                    let found = candidates::following(rules, operand, layout, grids, self.machine);
                    let found: Rc<Vec<_>> = Rc::new(found.into_iter().map(Rc::new).collect());
                    self.following.insert(key, found.clone());
                    found
                }
            };
            for candidate in following.iter() {
                let same = |c: &Rc<Candidate>| {
                    c.grid == candidate.grid
                        && c.split == candidate.split
                        && c.rule.loops == candidate.rule.loops
                };
                if !all.iter().any(same) {
                    all.push(candidate.clone());
                }
            }
        }
        all
    }

    /// The state after a node that is split in one way.
    fn apply(
        &mut self,
        state: &State,
        number: usize,
        rules: &Rules,
        candidate: &Rc<Candidate>,
        grids: &Grids,
    ) -> Option<State> {
        let problem = self.problem;
        let node = &problem.function.nodes[problem.nodes[number].id];
        let mut live = state.live.clone();
        let mut given = vec![];
        let mut cycles = state.cycles + candidate.cycles + STEP;
        let mut seen: Vec<ValueId> = vec![];
        for (n, value) in node.args.iter().enumerate() {
            let need = &candidate.needs[n];
            if problem.is_weight(*value) {
                let bytes = traffic::window_elements(need, &grids[need.grid])
                    * problem.width(*value) as f64;
                cycles += bytes * self.options.weight_price;
                continue;
            }
            if self.free[value.index()] {
                continue;
            }
            let need_number = self.number(need);
            match live.get(value).copied() {
                Some(have) => {
                    if seen.contains(value) {
                        continue;
                    }
                    seen.push(*value);
                    cycles += self.reshard(have, need_number, problem.width(*value), grids);
                }
                // An input comes in the layout of its first use.
                None => {
                    let base = traffic::unpadded(need);
                    let base = self.number(&base);
                    live.insert(*value, base);
                    given.push((*value, base));
                }
            }
        }
        for (n, value) in node.results.iter().enumerate() {
            let layout =
                result_layout(&candidate.rule.rule, candidate.grid, &candidate.split, n).ok()?;
            let layout = self.number(&layout);
            live.insert(*value, layout);
            given.push((*value, layout));
        }
        debug_assert_eq!(rules.args.len(), node.args.len());
        self.retire(&mut live, number);
        Some(State {
            cycles,
            live,
            history: Some(Rc::new(Past {
                before: state.history.clone(),
                candidate: Some(candidate.clone()),
                given,
            })),
        })
    }

    fn reshard(&mut self, have: LayoutNo, need: LayoutNo, width: u64, grids: &Grids) -> f64 {
        if have == need {
            return 0.0;
        }
        if let Some((_, cycles)) = self.estimates.get(&(have, need, width)) {
            return *cycles;
        }
        let (from, to) = (&self.layouts[have as usize], &self.layouts[need as usize]);
        let covered = from
            .with_view(&to.view)
            .is_some_and(|l| traffic::covers(&l, to, grids));
        let cycles = if covered {
            0.0
        } else {
            traffic::estimate(from, to, width, grids, self.machine)
        };
        self.estimates
            .insert((have, need, width), (covered, cycles));
        cycles
    }

    /// Forgets values that no later node uses.
    fn retire(&self, live: &mut BTreeMap<ValueId, LayoutNo>, number: usize) {
        live.retain(|value, _| self.problem.last_use[value.index()] > number);
    }

    fn collect(&self, state: &State) -> Choice {
        let mut nodes = vec![];
        let mut layouts = BTreeMap::new();
        let mut at = state.history.clone();
        while let Some(past) = at {
            nodes.push(past.candidate.clone());
            for (value, layout) in &past.given {
                layouts.insert(*value, self.layouts[*layout as usize].clone());
            }
            at = past.before.clone();
        }
        nodes.reverse();
        Choice { nodes, layouts }
    }
}
