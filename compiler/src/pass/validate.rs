//! Compares the values of a module before and after every pass.
//!
//! The same inputs are run through the module before the first pass and after each one, and values
//! are compared at the outputs of functions and at values of function bodies that have a name both
//! before and after. The first pass after which a value is outside its bound is named.
//!
//! - After an exact pass every value must have the bits that it had before the pass. A NaN may be
//!   any NaN.
//! - After a bounded pass floats are compared with an evaluation of the original module in f64
//!   ([`widen`]), if it can be made, else with the values before the pass. A value may be as far
//!   off as twice what it was before the pass, plus [`SLACK`] times its accumulated roundings. Those
//!   are the largest sum, over all paths from an input, of what each op declares
//!   ([`Tolerance`](dojoc_ir::ops::Tolerance), at least one rounding of the narrowest type in it),
//!   times the largest magnitude on the path. That is not a proof (a cancellation may amplify what a
//!   sum of roundings does not), but wrong arithmetic is far outside of it. Integers and truth
//!   values that depend on floats may jump, and are not compared; all others must be equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind};
use dojoc_ir::dim::{Bindings, Dim};
use dojoc_ir::formats::random_bits;
use dojoc_ir::graph::{FuncId, Function, Module, NodeId, RegionId, ValueDef, ValueId, eval};
use dojoc_ir::ops::Tolerance;
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{Class, DType};

use super::widen::{widen, widened};
use super::{Effect, NOT_VALIDATED, VALUES_DIFFER};

/// Factor between accumulated roundings and the bound.
pub const SLACK: f64 = 16.0;

/// Iterations that the roundings of a loop are counted for.
const ITERATIONS: f64 = 64.0;

/// Symbols are at most this long in random inputs.
const SYMBOL_EXTENT: u64 = 3;

/// What values a validation runs on.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// Inputs of the main function; random ones for every function where there are none.
    pub inputs: Option<Vec<Tensor>>,
    /// Seed of random inputs.
    pub seed: u64,
    /// Largest size in bytes of the tensors alive at one time.
    pub max_bytes: Option<u64>,
}

/// A value that can be compared, of one function.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Point {
    Named(Arc<str>),
    Output(usize),
}

/// What a run of one function gave.
#[derive(Default)]
struct Snapshot {
    values: BTreeMap<Point, Tensor>,
    /// Largest rounding that may have accumulated at each point, as an absolute difference.
    slack: BTreeMap<Point, f64>,
}

struct Case {
    func: Arc<str>,
    inputs: Vec<Tensor>,
    reference: Option<Snapshot>,
    before: Snapshot,
}

/// Compares the values of a module with those it had before.
pub struct Validator {
    cases: Vec<Case>,
    max_bytes: Option<u64>,
    /// What could not be compared.
    pub warnings: Diagnostics,
}

impl Validator {
    /// Runs a module that no pass has changed yet.
    pub fn new(validation: Validation, module: &Module) -> Self {
        let mut validator = Self {
            cases: vec![],
            max_bytes: validation.max_bytes,
            warnings: Diagnostics::default(),
        };
        let wide = widen(module, DType::F64);
        let chosen: Vec<(FuncId, Vec<Tensor>)> = match (&validation.inputs, module.main()) {
            (Some(inputs), Some(main)) => vec![(main, inputs.clone())],
            _ => {
                let ids = module.functions.ids();
                ids.map(|id| (id, random_inputs(&module.functions[id], validation.seed)))
                    .collect()
            }
        };
        for (id, inputs) in chosen {
            let func = module.functions[id].name.clone();
            match snapshot(module, id, &inputs, validation.max_bytes) {
                Ok(before) => {
                    let reference = wide.as_ref().and_then(|wide| {
                        let inputs: Vec<Tensor> =
                            inputs.iter().map(|t| widened(t, DType::F64)).collect();
                        snapshot(wide, id, &inputs, validation.max_bytes).ok()
                    });
                    validator.cases.push(Case {
                        func,
                        inputs,
                        reference,
                        before,
                    });
                }
                Err(reason) => {
                    let message = format!("function `{func}` is not validated: it does not run");
                    let diagnostic = Diagnostic::input(NOT_VALIDATED, message);
                    validator.warnings.push(diagnostic.note(reason.to_string()));
                }
            }
        }
        validator
    }

    /// Runs the module after a pass and compares.
    ///
    /// # Errors
    /// The first value outside its bound.
    pub fn check(
        &mut self,
        pass: &str,
        effect: Effect,
        module: &Module,
    ) -> Result<(), Box<Diagnostic>> {
        let wrong = |message: String| Box::new(Diagnostic::new(VALUES_DIFFER, Kind::Bug, message));
        for case in &mut self.cases {
            let Some(id) = module.function(&case.func) else {
                return Err(wrong(format!(
                    "pass `{pass}` removed function `{}`",
                    case.func
                )));
            };
            let after = snapshot(module, id, &case.inputs, self.max_bytes).map_err(|reason| {
                let func = &case.func;
                wrong(format!(
                    "after pass `{pass}` function `{func}` no longer runs"
                ))
                .note(reason.to_string())
            })?;
            for (point, value) in &after.values {
                let Some(before) = case.before.values.get(point) else {
                    continue;
                };
                let difference = match effect {
                    Effect::Exact => exact_difference(before, value),
                    Effect::Bounded => {
                        let reference = case.reference.as_ref().and_then(|r| r.values.get(point));
                        let slack = |s: &Snapshot| s.slack.get(point).copied().unwrap_or(0.0);
                        let slack = slack(&after).max(slack(&case.before));
                        bounded_difference(reference, before, value, slack)
                    }
                };
                if let Some(difference) = difference {
                    let place = match point {
                        Point::Named(name) => format!("value `%{name}`"),
                        Point::Output(n) => {
                            let output = module.functions[id].outputs.get(*n);
                            format!("output `{}`", output.map_or("", |o| &o.name))
                        }
                    };
                    return Err(wrong(format!(
                        "pass `{pass}` changed {place} of function `{}`: {difference}",
                        case.func
                    )));
                }
            }
            case.before = after;
        }
        Ok(())
    }
}

fn is_nan(value: Scalar) -> bool {
    value.to_f64().is_nan()
}

/// Where two tensors differ in more than which NaN they have.
fn exact_difference(before: &Tensor, after: &Tensor) -> Option<String> {
    if before == after {
        return None;
    }
    if before.ty() != after.ty() {
        return Some(format!("it was {} and is {}", before.ty(), after.ty()));
    }
    let float = before.dtype().is_float();
    let same = |x: Scalar, y: Scalar| match (x, y) {
        _ if float && is_nan(x) => is_nan(y),
        (Scalar::F32(x), Scalar::F32(y)) => x.to_bits() == y.to_bits(),
        (Scalar::F64(x), Scalar::F64(y)) => x.to_bits() == y.to_bits(),
        _ => x == y,
    };
    let mut pairs = before.scalars().zip(after.scalars()).enumerate();
    let (position, (x, y)) = pairs.find(|(_, (x, y))| !same(*x, *y))?;
    Some(format!("element {position} was {x:?} and is {y:?}"))
}

fn bounded_difference(
    reference: Option<&Tensor>,
    before: &Tensor,
    after: &Tensor,
    slack: f64,
) -> Option<String> {
    if before.shape() != after.shape() {
        return Some(format!("it was {} and is {}", before.ty(), after.ty()));
    }
    if !before.dtype().is_float() {
        return (slack == 0.0)
            .then(|| exact_difference(before, after))
            .flatten();
    }
    let expected = reference
        .filter(|r| r.shape() == after.shape())
        .unwrap_or(before);
    for (position, ((e, x), y)) in expected
        .scalars()
        .zip(before.scalars())
        .zip(after.scalars())
        .enumerate()
    {
        let (e, x, y) = (e.to_f64(), x.to_f64(), y.to_f64());
        let allowed = 2.0 * (x - e).abs() + SLACK * slack;
        let same = y == e || (y.is_nan() && e.is_nan()) || y == x || (y.is_nan() && x.is_nan());
        // A bound that is no number allows nothing, so that no difference hides behind it.
        let within = (y - e).abs() <= allowed;
        if !same && !within {
            return Some(format!(
                "element {position} is {y}, {e} is expected and a difference of {allowed:e} allowed"
            ));
        }
    }
    None
}

/// Runs a function and keeps what can be compared.
fn snapshot(
    module: &Module,
    id: FuncId,
    inputs: &[Tensor],
    max_bytes: Option<u64>,
) -> Result<Snapshot, Box<Diagnostic>> {
    let func = &module.functions[id];
    let mut states = eval::initial_states(module)?;
    let mut magnitudes: BTreeMap<ValueId, f64> = BTreeMap::new();
    let mut named: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let mut observe = |value: ValueId, tensor: &Tensor| {
        magnitudes.insert(value, magnitude(tensor));
        if func.values[value].name.is_some() {
            named.insert(value, tensor.clone());
        }
    };
    let options = eval::Options {
        max_bytes,
        observe: Some(&mut observe),
        ..eval::Options::default()
    };
    let results = eval::run(module, id, inputs, &mut states, options)?;
    let slack = accumulate(module, func, &magnitudes);
    let slack_of = |value: &ValueId| slack.get(value).map_or(0.0, |(sum, scale)| sum * scale);
    let mut snapshot = Snapshot::default();
    for (value, tensor) in named {
        if let Some(name) = &func.values[value].name {
            let point = Point::Named(name.clone());
            snapshot.slack.insert(point.clone(), slack_of(&value));
            snapshot.values.insert(point, tensor);
        }
    }
    for (position, (value, tensor)) in func.results().iter().zip(results).enumerate() {
        let point = Point::Output(position);
        snapshot.slack.insert(point.clone(), slack_of(value));
        snapshot.values.insert(point, tensor);
    }
    Ok(snapshot)
}

/// The largest finite magnitude in a tensor of floats.
fn magnitude(tensor: &Tensor) -> f64 {
    if !tensor.dtype().is_float() {
        return 0.0;
    }
    let finite = tensor
        .scalars()
        .map(|s| s.to_f64().abs())
        .filter(|x| x.is_finite());
    finite.fold(0.0, f64::max)
}

/// For every value of a body the largest sum of relative roundings on a path from an input, and the
/// largest magnitude on such a path.
fn accumulate(
    module: &Module,
    func: &Function,
    magnitudes: &BTreeMap<ValueId, f64>,
) -> BTreeMap<ValueId, (f64, f64)> {
    let mut slack: BTreeMap<ValueId, (f64, f64)> = BTreeMap::new();
    let of = |value: ValueId, slack: &BTreeMap<ValueId, (f64, f64)>| match slack.get(&value) {
        Some(known) => *known,
        None => {
            let data = match func.values[value].def {
                ValueDef::Weight(weight) => module.weights[weight].data.as_ref(),
                _ => None,
            };
            let own = magnitudes.get(&value).copied();
            let rounding = unit(func.ty(value).dtype);
            (rounding, own.or(data.map(magnitude)).unwrap_or(0.0))
        }
    };
    for node in &func.regions[func.body()].nodes {
        let data = &func.nodes[*node];
        let (mut sum, mut scale) = (0.0f64, 0.0f64);
        for arg in &data.args {
            let (s, m) = of(*arg, &slack);
            sum = sum.max(s);
            scale = scale.max(m);
        }
        sum += roundings(func, *node, 0);
        for result in &data.results {
            let own = magnitudes.get(result).copied().unwrap_or(0.0);
            slack.insert(*result, (sum, scale.max(own)));
        }
    }
    for value in func.results() {
        let own = of(*value, &slack);
        slack.entry(*value).or_insert(own);
    }
    slack
}

/// The rounding of a float type, relative to a value; 0 for other types.
fn unit(dtype: DType) -> f64 {
    Tolerance::Roundings(1.0).relative(dtype)
}

/// The relative roundings of one node.
fn roundings(func: &Function, node: NodeId, depth: usize) -> f64 {
    let data = &func.nodes[node];
    let values = data.args.iter().chain(&data.results);
    let rounding = values.map(|v| unit(func.ty(*v).dtype)).fold(0.0, f64::max);
    let declared = match data.op.tolerance() {
        Tolerance::Exact => 1.0,
        Tolerance::Roundings(n) => n.max(1.0),
    };
    let region = |region: &RegionId| -> f64 {
        let nodes = func.regions[*region].nodes.iter();
        nodes.map(|n| roundings(func, *n, depth + 1)).sum()
    };
    let regions: f64 = data.regions.iter().map(region).sum();
    rounding * declared
        + if depth == 0 {
            ITERATIONS * regions
        } else {
            regions
        }
}

/// Random inputs of a function: floats between -1 and 1, integers between 0 and 3, symbols of
/// extent 3 or their bound.
fn random_inputs(func: &Function, seed: u64) -> Vec<Tensor> {
    let mut bindings = Bindings::new();
    for value in func.inputs() {
        for dim in func.ty(*value).dims() {
            if let Dim::Expr(poly) = dim {
                poly.for_each_symbol(&mut |name, max| {
                    bindings.insert(name.clone(), max.min(SYMBOL_EXTENT));
                });
            }
        }
    }
    let inputs = func.inputs().iter().enumerate();
    inputs
        .map(|(position, value)| {
            let ty = func.ty(*value);
            let shape = ty.shape.eval(&bindings).unwrap_or_default();
            let count = shape.iter().product::<u64>();
            let values = (0..count).map(|index| {
                let bits = random_bits(seed, 0, position as u64, index);
                match ty.dtype.class() {
                    Class::Float => {
                        Scalar::from_f64(f64::from(bits) / 2f64.powi(31) - 1.0, ty.dtype)
                    }
                    Class::Configurable => Scalar::F32(1.0),
                    _ => Scalar::Int((bits >> 30).into()).convert(ty.dtype),
                }
            });
            Tensor::from_scalars(ty.dtype, &shape, values)
        })
        .collect()
}
