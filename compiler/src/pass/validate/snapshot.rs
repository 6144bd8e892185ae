//! The values of one run of a GRAPH function, with the roundings that may have accumulated in each.

use std::collections::BTreeMap;
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Loc};
use dojoc_ir::graph::{FuncId, Function, Module, NodeId, RegionId, ValueDef, ValueId, eval};
use dojoc_ir::ops::Tolerance;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::Validation;

/// Iterations that the roundings of a loop are counted for.
const ITERATIONS: f64 = 64.0;

/// A value that can be compared, of one function.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Point {
    /// A value of the body, by its name.
    Named(Arc<str>),
    /// An output, by its position.
    Output(usize),
}

/// The value of a point.
#[derive(Clone, Debug)]
pub struct Record {
    pub point: Point,
    pub value: Tensor,
    /// Largest rounding that may have accumulated, as an absolute difference.
    pub slack: f64,
    /// The node of the user's model that computes it.
    pub loc: Option<Arc<Loc>>,
}

/// What a run of one function gave, in the order in which it was computed.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    records: Vec<Record>,
    index: BTreeMap<Point, usize>,
}

impl Snapshot {
    fn push(&mut self, record: Record) {
        self.index.insert(record.point.clone(), self.records.len());
        self.records.push(record);
    }

    /// All values.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The value of a point.
    pub fn get(&self, point: &Point) -> Option<&Record> {
        Some(&self.records[*self.index.get(point)?])
    }

    /// Forgets what another snapshot does not have.
    pub fn retain(&mut self, other: &Self) {
        let records = std::mem::take(self).records;
        for record in records {
            if other.index.contains_key(&record.point) {
                self.push(record);
            }
        }
    }
}

/// Runs a function and keeps what can be compared.
pub fn snapshot(
    module: &Module,
    id: FuncId,
    inputs: &[Tensor],
    options: &Validation,
) -> Result<Snapshot, Box<Diagnostic>> {
    let func = &module.functions[id];
    let mut states = eval::initial_states(module)?;
    let mut magnitudes: BTreeMap<ValueId, f64> = BTreeMap::new();
    let mut named: Vec<(Arc<str>, ValueId, Tensor)> = vec![];
    let mut observe = |value: ValueId, tensor: &Tensor| {
        magnitudes.insert(value, magnitude(tensor));
        if let Some(name) = &func.values[value].name {
            named.push((name.clone(), value, tensor.clone()));
        }
    };
    let limits = eval::Options {
        max_bytes: options.max_bytes,
        cancel: options.cancel.as_deref(),
        observe: Some(&mut observe),
    };
    let results = eval::run(module, id, inputs, &mut states, limits)?;
    let slack = accumulate(module, func, &magnitudes);
    let named = named
        .into_iter()
        .map(|(name, value, tensor)| (Point::Named(name), value, tensor));
    let outputs = func.results().iter().zip(results).enumerate();
    let outputs = outputs.map(|(n, (value, tensor))| (Point::Output(n), *value, tensor));
    let mut snapshot = Snapshot::default();
    for (point, value, tensor) in named.chain(outputs) {
        let loc = match func.values[value].def {
            ValueDef::Result(node, _) => func.nodes[node].loc.clone(),
            _ => None,
        };
        snapshot.push(Record {
            point,
            value: tensor,
            slack: slack.get(&value).map_or(0.0, |(sum, scale)| sum * scale),
            loc,
        });
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
