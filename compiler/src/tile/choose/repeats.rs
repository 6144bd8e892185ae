//! Equal layers: where nodes repeat, and the search has come to states that differ from those one
//! round before in nothing but which values live, the next rounds are chosen as the last one was.

use std::rc::Rc;

use dojoc_ir::entity::EntityId as _;
use dojoc_ir::graph::ValueId;
use foldhash::{HashMap, HashMapExt as _};

use super::super::problem::{NodeKind, Problem};
use super::{Candidate, Live, Past, State};

/// Nodes by which a round is recognised.
const WINDOW: usize = 8;
/// Cycles by which states may lie apart differently from round to round, relative to those of a
/// round: sums of floats are rounded.
const ROUNDING: f64 = 1e-9;

/// The numbers of a window's nodes by their rules.
type Window = [u32; WINDOW];

/// What a search knows of rounds.
pub(super) struct Repeats<'p> {
    problem: &'p Problem<'p>,
    /// By node: the number of its rules; 0 for views.
    kinds: Vec<u32>,
    /// By value: the node that makes it and which result it is.
    made: Vec<Option<(usize, u32)>>,
    /// The last node of each window so far.
    windows: HashMap<Window, usize>,
    /// By node: the states after it, if the search has been there.
    states: Vec<Option<Rc<[State]>>>,
    /// Nodes of the round that is followed, and how many nodes in a row are as those one round before.
    round: Option<(usize, usize)>,
}

/// What became of a live value one round later.
#[derive(Clone, Copy)]
enum Later {
    /// It lives on.
    Same,
    /// The value that the node one round later makes took its place.
    Next,
}

impl<'p> Repeats<'p> {
    /// Nothing has been searched yet.
    pub fn new(problem: &'p Problem<'p>) -> Self {
        let mut made = vec![None; problem.function.values.len()];
        for (number, node) in problem.nodes.iter().enumerate() {
            let results = &problem.function.nodes[node.id].results;
            for (result, at) in results.iter().zip(0..) {
                made[result.index()] = Some((number, at));
            }
        }
        let kind = |kind: &NodeKind| match kind {
            NodeKind::View => 0,
            NodeKind::Step(rules) => rules.id + 1,
        };
        Self {
            problem,
            kinds: problem.nodes.iter().map(|node| kind(&node.kind)).collect(),
            made,
            windows: HashMap::new(),
            states: vec![None; problem.nodes.len()],
            round: None,
        }
    }

    /// Takes note of the states after a node. If the next rounds are as the last one, calls `least` with
    /// the least bytes of weights after each of them and gives the last node of them and the states
    /// behind it.
    ///
    /// # Errors
    /// Those of `least`.
    pub fn after<E>(
        &mut self,
        number: usize,
        states: &Rc<[State]>,
        least: impl Fn(u64) -> Result<(), E>,
    ) -> Result<Option<(usize, Vec<State>)>, E> {
        self.states[number] = Some(states.clone());
        self.follow(number);
        let Some((nodes, _)) = self.round.filter(|(nodes, equal)| equal >= nodes) else {
            return Ok(None);
        };
        let Some(before) = self.states[number - nodes].clone() else {
            return Ok(None);
        };
        let Some(later) = self.later(&before, states, nodes) else {
            return Ok(None);
        };
        let Some(last) = last_round(&before, states, nodes) else {
            return Ok(None);
        };
        let ahead = (number + 1..self.kinds.len()).take_while(|n| self.alike(*n, n - nodes));
        let rounds = ahead.count() / nodes;
        self.round = None;
        if rounds == 0 {
            return Ok(None);
        }
        let cycles = states[0].cycles - before[0].cycles;
        let mut now = states.to_vec();
        for _ in 0..rounds {
            let next = last.iter().zip(states.iter()).zip(&now);
            let next = next.map(|(((from, candidates), state), here)| State {
                cycles: here.cycles + cycles,
                weights: now[*from].weights + (state.weights - before[*from].weights),
                live: vec![],
                history: Some(Rc::new(Past::Round {
                    before: now[*from].history.clone(),
                    candidates: candidates.clone(),
                })),
            });
            now = next.collect();
            least(now.iter().map(|state| state.weights).min().unwrap_or(0))?;
        }
        for ((state, old), later) in now.iter_mut().zip(states.iter()).zip(later) {
            let live = old.live.iter().zip(later).map(|((value, layout), later)| {
                let value = match later {
                    Later::Same => Some(*value),
                    Later::Next => self.shifted(*value, rounds * nodes),
                };
                Some((value?, *layout))
            });
            let Some(mut live) = live.collect::<Option<Live>>() else {
                return Ok(None);
            };
            live.sort_unstable_by_key(|(value, _)| *value);
            state.live = live;
        }
        Ok(Some((number + rounds * nodes, now)))
    }

    /// Follows the round that ends at a node, or looks for one.
    fn follow(&mut self, number: usize) {
        self.round = match self.round {
            Some((nodes, equal)) if self.alike(number, number - nodes) => Some((nodes, equal + 1)),
            _ => None,
        };
        let Some(first) = (number + 1).checked_sub(WINDOW) else {
            return;
        };
        let Ok(window) = Window::try_from(&self.kinds[first..=number]) else {
            return;
        };
        let before = self.windows.insert(window, number);
        if let (None, Some(before)) = (self.round, before)
            && self.alike(number, before)
        {
            self.round = Some((number - before, 1));
        }
    }

    /// Whether two nodes are split alike in equal situations, and leave equal situations behind.
    fn alike(&self, a: usize, b: usize) -> bool {
        let problem = self.problem;
        let [x, y] = [a, b].map(|n| &problem.function.nodes[problem.nodes[n].id]);
        // How long a value lives on from a node.
        let life = |value: ValueId, number: usize| match problem.last_use[value.index()] {
            usize::MAX => None,
            last => Some(last.saturating_sub(number)),
        };
        let same_arg = |at: usize| {
            let (v, w) = (x.args[at], y.args[at]);
            let first = |args: &[ValueId]| args.iter().position(|other| *other == args[at]);
            if first(&x.args) != first(&y.args)
                || problem.free[v.index()] != problem.free[w.index()]
                || problem.is_weight(v) != problem.is_weight(w)
            {
                return false;
            }
            if problem.is_weight(v) {
                return (problem.uses[v.index()] == 1) == (problem.uses[w.index()] == 1);
            }
            match (self.made[v.index()], self.made[w.index()]) {
                _ if v == w => problem.last_use[v.index()] > a,
                (Some((m, i)), Some((n, j))) => {
                    a - m == b - n && i == j && life(v, a) == life(w, b)
                }
                _ => false,
            }
        };
        self.kinds[a] == self.kinds[b]
            && x.args.len() == y.args.len()
            && (0..x.args.len()).all(same_arg)
            && x.results.len() == y.results.len()
            && (x.results.iter().zip(&y.results)).all(|(v, w)| life(*v, a) == life(*w, b))
    }

    /// The value that the node so many nodes later makes.
    fn shifted(&self, value: ValueId, nodes: usize) -> Option<ValueId> {
        let (number, at) = self.made[value.index()]?;
        let node = self.problem.nodes.get(number + nodes)?;
        let results = &self.problem.function.nodes[node.id].results;
        results.get(at as usize).copied()
    }

    /// What became of the live values, by state; `None` if the states differ in more.
    fn later(&self, before: &[State], after: &[State], nodes: usize) -> Option<Vec<Vec<Later>>> {
        if before.len() != after.len() {
            return None;
        }
        let round = after.first()?.cycles - before.first()?.cycles;
        let above = |state: &State, all: &[State]| state.cycles - all[0].cycles;
        let mut later = vec![];
        for (old, new) in before.iter().zip(after) {
            let apart = above(old, before) - above(new, after);
            if apart.is_nan() || apart.abs() > ROUNDING * round || old.live.len() != new.live.len()
            {
                return None;
            }
            // In the order of the new values.
            let mut of_state = vec![None; new.live.len()];
            for (value, layout) in &old.live {
                let find = |value: ValueId| {
                    let at = new.live.binary_search_by_key(&value, |(v, _)| *v).ok()?;
                    (new.live[at].1 == *layout).then_some(at)
                };
                let next = self.shifted(*value, nodes).and_then(find);
                let (at, what) = match next {
                    Some(at) => (at, Later::Next),
                    None => (find(*value)?, Later::Same),
                };
                of_state[at] = Some(what);
            }
            later.push(of_state.into_iter().collect::<Option<Vec<_>>>()?);
        }
        Some(later)
    }
}

/// Candidates of the nodes of a round, in order.
type Candidates = Rc<[Option<Rc<Candidate>>]>;

/// By state, which one of those a round before it came from and by which candidates; `None` if it came
/// from none of them.
fn last_round(before: &[State], after: &[State], nodes: usize) -> Option<Vec<(usize, Candidates)>> {
    let of = |state: &State| {
        let mut candidates = Vec::with_capacity(nodes);
        let mut at = state.history.as_ref();
        for _ in 0..nodes {
            let Past::Node {
                before, candidate, ..
            } = &**at?
            else {
                return None;
            };
            candidates.push(candidate.clone());
            at = before.as_ref();
        }
        candidates.reverse();
        let same = |old: &State| match (&old.history, at) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        Some((before.iter().position(same)?, candidates.into()))
    };
    after.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use dojoc_ir::graph::Module;
    use dojoc_ir::level::Level as _;
    use dojoc_ir::machine::Machine;

    use super::super::super::TileOptions;
    use super::super::super::grids::Grids;
    use super::super::super::problem::Known;
    use super::super::{Choice, Failure, Memo, Search};
    use super::*;

    /// Layers with a value that all of them use, and a sum with what came before each; the layers that
    /// `odd` names have another activation.
    fn model(layers: usize, odd: &[usize]) -> Module {
        use std::fmt::Write as _;
        let (mut weights, mut nodes) = (String::new(), String::new());
        nodes += "    %mask = exp %m : f32[40, 48]\n";
        let mut x = String::from("%x");
        for n in 0..layers {
            let op = if odd.contains(&n) { "exp" } else { "tanh" };
            let zeros = "00".repeat(4 * 48 * 48);
            let _ = writeln!(weights, "  weight @w{n} : f32[48, 48] = hex(\"{zeros}\")");
            let _ = writeln!(
                nodes,
                "    %d{n} = dot {x}, @w{n} {{batch = [], contract = [[1, 0]]}} : f32[40, 48]\n\
                 \x20   %v{n} = reshape %d{n} {{shape = [1, 40, 48]}} : f32[1, 40, 48]\n\
                 \x20   %t{n} = {op} %v{n} : f32[1, 40, 48]\n\
                 \x20   %u{n} = reshape %t{n} {{shape = [40, 48]}} : f32[40, 48]\n\
                 \x20   %p{n} = mul %u{n}, %mask : f32[40, 48]\n\
                 \x20   %r{n} = add %p{n}, {x} : f32[40, 48]"
            );
            x = format!("%r{n}");
        }
        let text = format!(
            "dojo graph 1\n\nmodule @layers {{\n{weights}\n  func @main(%x : f32[40, 48], %m : f32[40, 48]) \
             -> (%out : f32[40, 48]) {{\n{nodes}    return {x}\n  }}\n}}\n"
        );
        Module::parse(&text).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The choice of a search, and how many rounds it has not looked at.
    fn search(
        module: &Module,
        options: &TileOptions,
        with_repeats: bool,
    ) -> Result<(Choice, usize), Failure> {
        let text = Machine::builtin("mesh4x4").unwrap();
        let machine = Machine::parse(text, "mesh4x4").unwrap();
        let mut known = Known::default();
        let function = module.functions.values().next().unwrap();
        let problem = Problem::of(function, &mut known)?;
        let (mut grids, mut memo) = (Grids::new(&machine, None), Memo::default());
        let mut search = Search {
            problem: &problem,
            machine: &machine,
            options,
            memo: &mut memo,
        };
        let repeats = with_repeats.then(|| Repeats::new(&problem));
        let states = search.states(&mut grids, repeats)?;
        let mut rounds = 0;
        let mut at = states[0].history.as_ref();
        while let Some(past) = at {
            at = match &**past {
                Past::Node { before, .. } => before.as_ref(),
                Past::Round { before, .. } => {
                    rounds += 1;
                    before.as_ref()
                }
            };
        }
        Ok((search.collect(&states[0]), rounds))
    }

    fn assert_same(a: &Choice, b: &Choice) {
        assert_eq!(a.nodes.len(), b.nodes.len());
        for (a, b) in a.nodes.iter().zip(&b.nodes) {
            let of = |c: &Option<Rc<Candidate>>| {
                c.as_ref()
                    .map(|c| (c.grid, c.split.clone(), c.rule.loops.clone()))
            };
            assert_eq!(of(a), of(b));
        }
        assert!((a.cycles - b.cycles).abs() <= 1e-9 * a.cycles);
    }

    #[test]
    fn rounds_are_split_as_if_they_were_searched() {
        for (layers, odd, least) in [
            (3, &[][..], 0),
            (12, &[], 4),
            (20, &[9], 6),
            (20, &[0, 19], 6),
        ] {
            let module = model(layers, odd);
            for price in [0.0, 0.2] {
                let options = TileOptions {
                    weight_price: price,
                    ..TileOptions::default()
                };
                let (whole, none) = search(&module, &options, false).unwrap();
                let (quick, rounds) = search(&module, &options, true).unwrap();
                assert_eq!(none, 0);
                assert!(rounds >= least, "{rounds} of {layers} layers");
                assert_same(&whole, &quick);
                // What every round adds to memory counts.
                let options = TileOptions {
                    memory: Some(layers as u64 * 48 * 48 / 4),
                    ..options
                };
                let full = |with| matches!(search(&module, &options, with), Err(Failure::Full(_)));
                assert_eq!(full(false), full(true));
            }
        }
        let options = TileOptions {
            memory: Some(10 * 48 * 48 * 4 / 16),
            ..TileOptions::default()
        };
        let module = model(30, &[]);
        assert!(matches!(
            search(&module, &options, true),
            Err(Failure::Full(_))
        ));
    }
}
