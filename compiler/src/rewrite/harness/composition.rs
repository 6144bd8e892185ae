//! Rules together, and the choice among forms: random graphs made of the instances of several rules
//! are saturated, and random forms of them evaluated.

use std::collections::BTreeMap;

use dojoc_ir::formats::random_bits;
use dojoc_ir::graph::eval::run_function;
use dojoc_ir::machine::Machine;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::cost::{Candidate, NodeCost, Roofline};
use super::super::extract::Flat;
use super::super::generate::{Extents, Gen};
use super::super::region::{Key, LeafKey, Local};
use super::super::rule::{Fp, Limits, RULES, saturate};
use super::super::rules;
use super::super::saturate::{Plan, Space, function, optimise};
use super::super::scratch::{Item, Scratch, Term};
use super::{OFFLINE, difference, evaluate, magnitude, values};

const LIMITS: Limits = Limits {
    nodes: 2_000,
    rounds: 4,
};

/// Random forms that are evaluated of each graph.
const FORMS: u64 = 20;

/// A graph, its values, and the values that are used outside.
struct Case {
    key: Key,
    inputs: Vec<Tensor>,
    expected: Vec<Tensor>,
    largest: f64,
}

fn case(seed: u64, dtype: DType, extents: Extents) -> Option<Case> {
    let all = rules::all();
    let mut g = Gen::new(seed, dtype, extents);
    let mut roots: Vec<Term> = vec![];
    for _ in 0..6 {
        let rule = g.below(all.len());
        roots.extend((all[rule].generate)(&mut g));
        g.reuse();
    }
    let scratch = g.finish();
    let inputs = inputs(&scratch, seed);
    let tensors = evaluate(&scratch, &|n| inputs[n].clone())?;
    // Forms may differ where the values are no numbers.
    let finite = |t: &Tensor| t.scalars().all(|s| s.to_f64().is_finite());
    if roots.is_empty() || !tensors.iter().all(finite) {
        return None;
    }
    let expected = roots.iter().map(|r| tensors[r.0].clone()).collect();
    let largest = tensors.iter().map(magnitude).fold(0.0, f64::max);
    let key = key(&scratch, &roots, seed);
    Some(Case {
        key,
        inputs,
        expected,
        largest,
    })
}

fn inputs(scratch: &Scratch, seed: u64) -> Vec<Tensor> {
    let mut found = BTreeMap::new();
    for item in &scratch.items {
        if let Item::Leaf(n, facts) = item {
            found.insert(*n, values(&facts.ty, seed * 64 + *n as u64));
        }
    }
    found.into_values().collect()
}

/// The graph as a region; about half of its operands are weights.
fn key(scratch: &Scratch, roots: &[Term], seed: u64) -> Key {
    let (mut leaves, mut nodes, mut locals) = (BTreeMap::new(), vec![], vec![]);
    for item in &scratch.items {
        locals.push(match item {
            Item::Leaf(n, facts) => {
                let bits = random_bits(seed, 2, 0, *n as u64);
                leaves.insert(
                    *n,
                    LeafKey {
                        ty: facts.ty.clone(),
                        weight: bits & 1 == 0,
                        resident: bits & 6 == 0,
                        splat: None,
                    },
                );
                Local::Leaf(*n)
            }
            Item::Op(op, args, facts) => {
                let args = args.iter().map(|a: &Term| locals[a.0]).collect();
                nodes.push((op.clone(), args, vec![facts.ty.clone()]));
                Local::Result(nodes.len() - 1, 0)
            }
        });
    }
    Key {
        leaves: leaves.into_values().collect(),
        nodes,
        outputs: roots.iter().map(|r| locals[r.0]).collect(),
    }
}

fn agrees(case: &Case, plan: &Plan) -> Result<(), String> {
    let func = function(&case.key, plan, None).map_err(|e| e.to_string())?;
    let found = run_function(&func, &case.inputs).map_err(|e| e.to_string())?;
    for (expected, found) in case.expected.iter().zip(&found) {
        // What is added up in between may be larger than anything in the original.
        if let Some(text) = difference(expected, found, Fp::Reassoc, case.largest * 1e4) {
            return Err(text);
        }
    }
    Ok(())
}

fn machine() -> Machine {
    Machine::parse(Machine::builtin("d1").unwrap(), "d1").unwrap()
}

fn sweep(mut each: impl FnMut(u64, &Case)) -> usize {
    let wanted = std::env::var("DOJOC_RULE_GRAPHS").ok();
    let count: u64 = wanted.and_then(|n| n.parse().ok()).unwrap_or(40);
    let mut cases = 0;
    for seed in 0..count {
        for dtype in [DType::F64, DType::I64] {
            for extents in Extents::ALL {
                if let Some(case) = case(seed, dtype, extents) {
                    each(seed, &case);
                    cases += 1;
                }
            }
        }
    }
    cases
}

#[test]
fn random_forms_of_random_graphs_have_the_same_values() {
    let machine = machine();
    let rules = RULES.as_ref().unwrap();
    let (mut forms, mut applied) = (0, 0);
    let cases = sweep(|seed, case| {
        let mut space = Space::new(&case.key, OFFLINE).unwrap();
        applied += saturate(&mut space.graph, rules, LIMITS).applied;
        assert_eq!(
            space.graph.analysis.errors,
            Vec::<String>::new(),
            "seed {seed}"
        );
        let flat = Flat::new(&space.graph, space.root, &[], &Roofline::new(&machine));
        for form in 0..FORMS {
            let cost = |class: usize, node: usize| {
                let index = (class * 1000 + node) as u64;
                1.0 + f64::from(random_bits(seed, form, 3, index) % 1000)
            };
            let choice = flat.bottom_up(&cost);
            let plan = space.plan(&case.key, &flat, &choice).unwrap();
            if let Err(text) = agrees(case, &plan) {
                panic!(
                    "seed {seed}, form {form}: {text}\n{:#?}\n{plan:#?}",
                    case.key
                );
            }
            forms += 1;
        }
    });
    assert!(
        cases > 100 && forms > 2000 && applied > 1000,
        "{cases} {forms} {applied}"
    );
}

/// Prices that prefer the last of the new forms.
struct Last<'m>(Roofline<'m>);

impl NodeCost for Last<'_> {
    fn node(
        &self,
        op: &dojoc_ir::ops::Op,
        args: &[dojoc_ir::types::Type],
        results: &[dojoc_ir::types::Type],
    ) -> f64 {
        self.0.node(op, args, results)
    }
    fn weight(&self, ty: &dojoc_ir::types::Type) -> f64 {
        self.0.weight(ty)
    }
    fn arbitrate(&self, candidates: &[Candidate]) -> usize {
        assert!(candidates.len() <= 5 && candidates.is_sorted_by(|a, b| a.cycles <= b.cycles));
        candidates.len() - 2
    }
}

#[test]
fn what_is_taken_is_never_dearer_and_has_the_same_values() {
    let machine = machine();
    let rules = RULES.as_ref().unwrap();
    let mut better = 0;
    sweep(|seed, case| {
        let prices = Roofline::new(&machine);
        let (plan, stats) = optimise(&case.key, rules, &prices, OFFLINE, LIMITS);
        assert!(
            stats.before > 0.0 && stats.after <= stats.before,
            "seed {seed}: {stats:?}"
        );
        let (last, _) = optimise(&case.key, rules, &Last(prices), OFFLINE, LIMITS);
        for plan in [plan, last].into_iter().flatten() {
            better += 1;
            if let Err(text) = agrees(case, &plan) {
                panic!("seed {seed}: {text}\n{:#?}\n{plan:#?}", case.key);
            }
        }
    });
    assert!(better > 40, "{better}");
}

#[test]
fn the_result_depends_on_the_input_alone() {
    let machine = machine();
    let rules = RULES.as_ref().unwrap();
    let mut compared = 0;
    sweep(|seed, case| {
        if seed > 4 {
            return;
        }
        let prices = Roofline::new(&machine);
        let find = || optimise(&case.key, rules, &prices, OFFLINE, LIMITS).0;
        let here = find();
        let there = std::thread::scope(|s| s.spawn(find).join().unwrap());
        assert_eq!(here, there);
        compared += usize::from(here.is_some());
    });
    assert!(compared > 3, "{compared}");
}
