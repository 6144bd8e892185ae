//! The soundness harness: both sides of every rule are evaluated on generated instances.
//!
//! An instance becomes an e-graph in which every class has one node, and so one value. Wherever the
//! rule matches and applies, its right side is evaluated and compared with what was matched. Guards
//! are off: they are about use, not truth. Integers must agree exactly, f64 to 1e-9, f32 bit for bit
//! where the rule says so and within the roundings of the sums otherwise.
//!
//! `DOJOC_RULE_INSTANCES` is the number of instances of a rule and kind, for long runs.

mod composition;
mod fuzz;
mod wrong;

use std::collections::BTreeMap;

use dojoc_ir::formats::random_bits;
use dojoc_ir::ops::{EvalCx, EvalError, Op};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Type};
use egg::Id;

use super::facts::{Graph, Knowledge, Offline, add_op};
use super::generate::{Extents, Gen};
use super::node::Node;
use super::rule::{Fp, Rule, RuleSpec};
use super::rules;
use super::scratch::{Item, Scratch, Term};

/// No bound on what is computed when compiling.
pub(super) const OFFLINE: Offline = Offline {
    bytes: u64::MAX,
    points: u64::MAX,
};

/// Applications that a rule must have had.
const FIRINGS: usize = 50;

/// What trials found.
#[derive(Default)]
struct Outcome {
    fired: usize,
    failures: Vec<String>,
}

/// A tensor of values in which neither zeros nor equal neighbours hide mistakes.
pub(super) fn values(ty: &Type, seed: u64) -> Tensor {
    let shape = ty.shape.as_const().unwrap();
    let count: u64 = shape.iter().product();
    let scalars = (0..count).map(|n| {
        let bits = random_bits(seed, 1, 0, n);
        if ty.dtype.is_float() {
            let magnitude = 0.25 + f64::from(bits >> 9) / f64::from(1u32 << 23) * 1.75;
            let sign = if bits & 1 == 0 { 1.0 } else { -1.0 };
            Scalar::from_f64(magnitude * sign, ty.dtype)
        } else {
            Scalar::Int(i128::from(bits % 11) - 5).wrap(ty.dtype)
        }
    });
    Tensor::from_scalars(ty.dtype, &shape, scalars.collect::<Vec<_>>())
}

pub(super) fn eval(op: &Op, args: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
    op.eval(args, &mut EvalCx::new(&mut none))
}

fn magnitude(tensor: &Tensor) -> f64 {
    let values = tensor.scalars().map(|s| s.to_f64().abs());
    values.filter(|x| x.is_finite()).fold(0.0, f64::max)
}

/// Every value of a scratch graph. `None` where an op can not take the values.
fn evaluate(scratch: &Scratch, leaf: &dyn Fn(usize) -> Tensor) -> Option<Vec<Tensor>> {
    let mut tensors: Vec<Tensor> = vec![];
    for item in &scratch.items {
        tensors.push(match item {
            Item::Leaf(number, _) => leaf(*number),
            Item::Op(op, args, _) => {
                let args: Vec<Tensor> = args.iter().map(|a| tensors[a.0].clone()).collect();
                eval(op, &args).ok()?.remove(0)
            }
        });
    }
    Some(tensors)
}

/// Where two tensors that should be equal are not.
fn difference(expected: &Tensor, found: &Tensor, fp: Fp, largest: f64) -> Option<String> {
    if expected.ty() != found.ty() {
        return Some(format!("{} became {}", expected.ty(), found.ty()));
    }
    let dtype = expected.dtype();
    let scale = magnitude(expected);
    let allowed = match (fp, dtype) {
        (Fp::Exact, _) => 0.0,
        (Fp::Reassoc, DType::F64) => (1e-9 * scale).max(1e-13 * largest),
        (Fp::Reassoc, DType::F32) => 256.0 * f64::from(f32::EPSILON) * largest,
        _ => 0.0,
    };
    for (n, (x, y)) in expected.scalars().zip(found.scalars()).enumerate() {
        let same = match (x, y) {
            (Scalar::F32(x), Scalar::F32(y)) if fp == Fp::Exact => x.to_bits() == y.to_bits(),
            (Scalar::F64(x), Scalar::F64(y)) if fp == Fp::Exact => x.to_bits() == y.to_bits(),
            _ => x == y,
        };
        let (x, y) = (x.to_f64(), y.to_f64());
        let near = (x - y).abs() <= allowed || (x.is_nan() && y.is_nan());
        if !(same || near) {
            return Some(format!(
                "element {n} is {y}, {x} is right, of {}",
                expected.ty()
            ));
        }
    }
    None
}

/// Applies a rule wherever it matches an instance, with one condition left out if `dropped` says so.
fn trial(rule: &Rule, scratch: &Scratch, dropped: Option<usize>, seed: u64, outcome: &mut Outcome) {
    let mut leaves = BTreeMap::new();
    for item in &scratch.items {
        if let Item::Leaf(number, facts) = item {
            leaves.insert(*number, facts.clone());
        }
    }
    let tensor = |number: usize| values(&leaves[&number].ty, seed * 64 + number as u64);
    let Some(tensors) = evaluate(scratch, &tensor) else {
        return;
    };
    let mut graph = Graph::new(Knowledge::new(leaves.values().cloned().collect(), OFFLINE));
    let mut ids: Vec<Id> = vec![];
    for item in &scratch.items {
        ids.push(match item {
            Item::Leaf(number, _) => graph.add(Node::Leaf(*number as u32)),
            Item::Op(op, args, _) => {
                let args: Vec<Id> = args.iter().map(|a| ids[a.0]).collect();
                add_op(&mut graph, op, &args).unwrap()
            }
        });
    }
    graph.rebuild();
    assert_eq!(graph.analysis.errors, Vec::<String>::new());
    let known: BTreeMap<Id, Tensor> = ids
        .iter()
        .zip(&tensors)
        .map(|(id, t)| (graph.find(*id), t.clone()))
        .collect();
    let left = tensors.iter().map(magnitude).fold(0.0, f64::max);
    for found in rule.search(&graph) {
        let Some(expected) = known.get(&graph.find(found.class)) else {
            continue;
        };
        let Some((right, root)) = rule.right_side(&graph, &found, dropped, false) else {
            continue;
        };
        let finite = expected.scalars().all(|s| s.to_f64().is_finite());
        if rule.spec.fp == Fp::Reassoc && !finite {
            continue;
        }
        let leaf = |class: usize| known[&graph.find(Id::from(class))].clone();
        let Some(right_side) = evaluate(&right, &leaf) else {
            outcome
                .failures
                .push(format!("{}: the right side fails", rule.spec.name));
            continue;
        };
        outcome.fired += 1;
        let largest = right_side.iter().map(magnitude).fold(left, f64::max);
        if let Some(text) = difference(expected, &right_side[root.0], rule.spec.fp, largest) {
            let nodes: Vec<String> = scratch
                .items
                .iter()
                .map(|item| match item {
                    Item::Leaf(n, f) => format!("leaf {n} {}", f.ty),
                    Item::Op(op, args, f) => format!("{op:?} {args:?} {}", f.ty),
                })
                .collect();
            outcome.failures.push(format!(
                "{}: {text}\n  {}",
                rule.spec.name,
                nodes.join("\n  ")
            ));
        }
    }
}

/// Number of instances of one rule, for each element type and way of drawing extents.
fn instances() -> u64 {
    let wanted = std::env::var("DOJOC_RULE_INSTANCES").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(60)
}

/// A way to make an instance for a rule.
type Make<'a> = dyn Fn(&mut Gen) -> Option<Term> + 'a;

fn run(rule: &Rule, make: &Make<'_>, dropped: Option<usize>, count: u64, stop: bool) -> Outcome {
    let mut outcome = Outcome::default();
    for seed in 0..count {
        for (n, dtype) in [DType::I64, DType::F64, DType::F32].into_iter().enumerate() {
            for (m, extents) in Extents::ALL.into_iter().enumerate() {
                let seed = seed * 16 + (n * 4 + m) as u64;
                let mut g = Gen::new(seed, dtype, extents);
                if make(&mut g).is_some() {
                    trial(rule, &g.finish(), dropped, seed, &mut outcome);
                }
                if stop && !outcome.failures.is_empty() {
                    return outcome;
                }
            }
        }
    }
    outcome
}

/// What is wrong with a rule: wrong values, too few firings, conditions without which nothing
/// happens.
fn verdict(spec: RuleSpec) -> Vec<String> {
    let rule = Rule::new(spec).unwrap();
    let own = run(&rule, &spec.generate, None, instances(), false);
    let mut problems: Vec<String> = own.failures.into_iter().take(2).collect();
    if own.fired < FIRINGS {
        problems.push(format!("{}: fired {} times only", spec.name, own.fired));
    }
    let anywhere = run(
        &rule,
        &|g| fuzz::instance(&spec, g),
        None,
        instances() * 2,
        true,
    );
    problems.extend(anywhere.failures);
    for (n, condition) in spec.conditions.iter().enumerate() {
        let fails = |make: &Make<'_>| {
            let outcome = run(&rule, make, Some(n), instances() * 20, true);
            !outcome.failures.is_empty()
        };
        if !fails(&spec.generate) && !fails(&|g| fuzz::instance(&spec, g)) {
            let name = condition.name;
            problems.push(format!(
                "{}: without \"{name}\" nothing goes wrong",
                spec.name
            ));
        }
    }
    problems
}

#[test]
fn every_rule_is_sound_and_needs_its_conditions() {
    let all = rules::all();
    assert!(all.len() >= 20);
    let chosen = std::env::var("DOJOC_RULE").ok();
    let specs = all
        .into_iter()
        .filter(|s| chosen.as_deref().is_none_or(|c| c == s.name));
    let problems: Vec<String> = specs.flat_map(verdict).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn names_are_unique_and_documented() {
    let mut names: Vec<&str> = rules::all().iter().map(|r| r.name).collect();
    assert!(rules::all().iter().all(|r| !r.doc.is_empty()));
    names.sort_unstable();
    assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
}
