//! The search: nodes in order, a few best states, each a choice of layouts for the live values.

mod repeats;

use std::collections::BTreeMap;
use std::rc::Rc;

use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::entity::EntityId as _;
use dojoc_ir::graph::ValueId;
use dojoc_ir::machine::Machine;
use dojoc_ir::tiled::{Layout, result_layout};
use dojoc_ir::types::Type;
use foldhash::HashMap;

use super::candidates::{self, Candidate};
use super::grids::Grids;
use super::problem::{Node, NodeKind, Problem, Rules};
use super::{Failure, TileOptions, traffic};
use repeats::Repeats;

/// The split of every node (`None` for views and values made where they are used) and the layout of
/// every value that has one.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// By number of node.
    pub nodes: Vec<Option<Rc<Candidate>>>,
    /// By value; all inputs that are used have one.
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
}

/// What a search knows of an operand when it comes to a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Operand {
    weight: bool,
    /// Whether it can be had in any layout.
    free: bool,
    layout: Option<LayoutNo>,
    /// The position of the same value among the operands before.
    first: Option<usize>,
}

/// Shared ways of equal nodes.
type Ways = Rc<[Rc<Way>]>;

/// The ways of nodes in equal situations, cheapest first, with their cycles: work, weights and
/// reshards. `None` where nothing is to decide.
type Ranked = Rc<[(f64, Option<Rc<Way>>)]>;

/// Where a node stands: its rules, what is known of its operands, and the price of weights (its bits).
type Situation = (u32, Vec<Operand>, u64);

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

/// What a state came from.
enum Past {
    /// A node: its candidate, and layouts that its choice gave to values.
    Node {
        before: Option<Rc<Past>>,
        candidate: Option<Rc<Candidate>>,
        given: Live,
    },
    /// Nodes in order that were split like those of the round before.
    Round {
        before: Option<Rc<Past>>,
        candidates: Rc<[Option<Rc<Candidate>>]>,
    },
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
    ranked: HashMap<Situation, Ranked>,
    estimates: HashMap<(LayoutNo, LayoutNo, u64), f64>,
    /// Bytes of a weight between its uses, by layout, bytes of an element, and the limit above which it is
    /// gathered.
    resting: HashMap<(LayoutNo, u64, Option<u64>), u64>,
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
            let needs = needs.map(|need| Need {
                layout: self.number(need),
                base: self.number(&traffic::unpadded(need)),
                elements: traffic::window_elements(need, &grids[need.grid]),
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
    // A plan may pin one round and not the next.
    let repeats = options.plan.is_empty().then(|| Repeats::new(problem));
    let states = search.states(grids, repeats)?;
    let best = states.first().ok_or_else(|| {
        Diagnostics::from(Diagnostic::input(
            super::NOT_TILED,
            "no way to split the function was found",
        ))
    })?;
    Ok(search.collect(best))
}

/// The layout of a live value.
fn layout_of(live: &Live, value: ValueId) -> Option<LayoutNo> {
    let at = live.binary_search_by_key(&value, |(v, _)| *v).ok()?;
    Some(live[at].1)
}

impl<'p> Search<'p> {
    /// The best states after all nodes.
    fn states(
        &mut self,
        grids: &mut Grids,
        mut repeats: Option<Repeats<'p>>,
    ) -> Result<Rc<[State]>, Failure> {
        let memory = self.options.memory;
        let enough = |least: u64| match memory {
            Some(memory) if least > memory => Err(Failure::Full(least)),
            _ => Ok(()),
        };
        let start = State {
            cycles: 0.0,
            weights: 0,
            live: vec![],
            history: None,
        };
        let mut states: Rc<[State]> = Rc::new([start]);
        let mut number = 0;
        while number < self.problem.nodes.len() {
            let ranked = states.iter().map(|state| self.ranked(state, number, grids));
            let ranked = ranked.collect::<Result<Vec<Ranked>, _>>()?;
            states = self.best(&states, number, &ranked, grids).into();
            enough(states.iter().map(|state| state.weights).min().unwrap_or(0))?;
            if let Some(repeats) = &mut repeats
                && let Some((last, after)) = repeats.after(number, &states, enough)?
            {
                (number, states) = (last, after.into());
            }
            number += 1;
        }
        Ok(states)
    }

    /// What can become of a state after one more node.
    fn ranked(
        &mut self,
        state: &State,
        number: usize,
        grids: &mut Grids,
    ) -> Result<Ranked, Diagnostics> {
        let problem = self.problem;
        let rules = match &problem.nodes[number].kind {
            NodeKind::Step(rules) if !problem.is_small_source(number) => rules,
            _ => return Ok(Rc::new([(0.0, None)])),
        };
        let args = &problem.function.nodes[problem.nodes[number].id].args;
        let operands: Vec<Operand> = args
            .iter()
            .enumerate()
            .map(|(n, value)| Operand {
                weight: problem.is_weight(*value),
                free: problem.free[value.index()],
                layout: layout_of(&state.live, *value),
                first: args[..n].iter().position(|v| v == value),
            })
            .collect();
        let plan = &self.options.plan;
        if let Some(pinned) = plan.pinned(problem, number, rules, grids, self.machine)? {
            let ways = self.memo.ways(vec![pinned], grids);
            return Ok(self.rank(&ways, &operands, rules, grids));
        }
        let key = (rules.id, operands, self.options.weight_price.to_bits());
        if let Some(ranked) = self.memo.ranked.get(&key) {
            return Ok(ranked.clone());
        }
        let ways = self.ways(rules, &key.1, grids);
        let ranked = self.rank(&ways, &key.1, rules, grids);
        self.memo.ranked.insert(key, ranked.clone());
        Ok(ranked)
    }

    /// Ways with their cycles, cheapest first.
    fn rank(&mut self, ways: &Ways, operands: &[Operand], rules: &Rules, grids: &Grids) -> Ranked {
        let mut ranked: Vec<(f64, Option<Rc<Way>>)> = ways
            .iter()
            .map(|way| {
                let cycles = self.cycles(operands, &rules.args, way, grids);
                (cycles, Some(way.clone()))
            })
            .collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        ranked.into()
    }

    /// The ways of a node by itself, and as its operands are split.
    fn ways(&mut self, rules: &Rules, operands: &[Operand], grids: &mut Grids) -> Ways {
        let moves: Vec<bool> = operands.iter().map(|operand| !operand.weight).collect();
        let place = (rules.id, moves);
        let own = match self.memo.own.get(&place) {
            Some(own) => own.clone(),
            None => {
                let own = candidates::own(rules, &place.1, grids, self.machine);
                let own = self.memo.ways(own, grids);
                self.memo.own.insert(place, own.clone());
                own
            }
        };
        let mut all = own.to_vec();
        for (number, operand) in operands.iter().enumerate() {
            let Some(layout) = operand.layout else {
                continue;
            };
            let place = (rules.id, number, layout);
            let following = match self.memo.following.get(&place) {
                Some(following) => following.clone(),
                None => {
                    let layout = &self.memo.layouts[layout as usize];
                    let found = candidates::following(rules, number, layout, grids, self.machine);
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
        all.into()
    }

    /// Cycles of a node that is split in one way: its work and what its operands cost.
    fn cycles(&mut self, operands: &[Operand], types: &[Type], way: &Way, grids: &Grids) -> f64 {
        let mut cycles = way.candidate.cycles + STEP;
        for ((operand, ty), need) in operands.iter().zip(types).zip(&way.needs) {
            let width = ty.dtype.bytes();
            if operand.weight {
                let bytes = need.elements * width as f64;
                cycles += bytes * self.options.weight_price;
                continue;
            }
            if operand.free {
                continue;
            }
            // An operand that a node has twice is moved once; an input comes as its first use has it.
            let have = match (operand.layout, operand.first) {
                (Some(_), Some(_)) | (None, None) => continue,
                (Some(have), None) => have,
                (None, Some(first)) => way.needs[first].base,
            };
            cycles += self.reshard(have, need.layout, width, grids);
        }
        cycles
    }

    /// The best states after a node, one for each set of live layouts: `ranked` has what can become
    /// of each state.
    fn best(
        &mut self,
        states: &[State],
        number: usize,
        ranked: &[Ranked],
        grids: &Grids,
    ) -> Vec<State> {
        let node = &self.problem.nodes[number];
        let mut kept: Vec<State> = vec![];
        let mut taken = vec![0; states.len()];
        while kept.len() < self.options.effort {
            // Each list ascends, so the least of all is the first that is left of one of them.
            let firsts = taken.iter().enumerate().filter_map(|(from, at)| {
                let (cycles, way) = ranked[from].get(*at)?;
                Some((states[from].cycles + cycles, from, way))
            });
            let Some((cycles, from, way)) = firsts.min_by(|a, b| a.0.total_cmp(&b.0)) else {
                break;
            };
            taken[from] += 1;
            let way = way.as_deref();
            let (live, given) = self.live_after(&states[from], number, way);
            if kept.iter().all(|k| k.live != live) {
                kept.push(State {
                    cycles,
                    weights: states[from].weights + way.map_or(0, |w| self.weights(node, w, grids)),
                    live,
                    history: Some(Rc::new(Past::Node {
                        before: states[from].history.clone(),
                        candidate: way.map(|way| way.candidate.clone()),
                        given,
                    })),
                });
            }
        }
        kept
    }

    /// Bytes that the weights which only this node uses take on a core.
    fn weights(&mut self, node: &Node, way: &Way, grids: &Grids) -> u64 {
        let (problem, limit) = (self.problem, self.options.gather_above);
        let args = &problem.function.nodes[node.id].args;
        let alone = args
            .iter()
            .zip(&way.needs)
            .filter(|(value, _)| problem.is_weight(**value) && problem.uses[value.index()] == 1);
        let bytes = alone.map(|(value, need)| {
            let width = problem.width(*value);
            let (known, layouts) = (&mut self.memo.resting, &self.memo.layouts);
            *known.entry((need.base, width, limit)).or_insert_with(|| {
                let layout = layouts[need.base as usize].clone();
                let layout = traffic::at_rest(layout, width, limit, grids);
                let window = layout.largest_window(&grids[layout.grid]);
                let inside = window.iter().zip(&layout.view).map(|(w, e)| w.min(e));
                inside.product::<u64>().saturating_mul(width)
            })
        });
        bytes.fold(0, u64::saturating_add)
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
        let mut at = state.history.as_ref();
        while let Some(past) = at {
            at = match &**past {
                Past::Node {
                    before,
                    candidate,
                    given,
                } => {
                    nodes.push(candidate.clone());
                    for (value, layout) in given {
                        layouts.insert(*value, self.memo.layouts[*layout as usize].clone());
                    }
                    before.as_ref()
                }
                Past::Round { before, candidates } => {
                    nodes.extend(candidates.iter().rev().cloned());
                    before.as_ref()
                }
            };
        }
        nodes.reverse();
        Choice {
            nodes,
            layouts,
            cycles: state.cycles,
        }
    }
}
