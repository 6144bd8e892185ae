//! The reference interpreter: runs a function op by op with each op's `eval`.
//!
//! Slow and obvious on purpose. Weights are read where they lie; a value is dropped after its last
//! use.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    FuncId, Function, Module, NodeId, RegionId, RegionType, State, StateInit, ValueDef, ValueId,
    Weight, WeightId,
};
use crate::codes;
use crate::diag::{Diagnostic, Kind, Place};
use crate::dim::{Bindings, Dim};
use crate::entity::PrimaryMap;
use crate::graph::StateId;
use crate::ops::{EvalCx, EvalError};
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::{Shape, Type};

/// Called with a value and its tensor.
pub type Observe<'a> = dyn FnMut(ValueId, &Tensor) + 'a;

/// Limits and observers of a run.
#[derive(Default)]
pub struct Options<'a> {
    /// Largest total size in bytes of the tensors alive at one time; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Set from outside to stop the run.
    pub cancel: Option<&'a AtomicBool>,
    /// Called with every value of the function's body as it is computed.
    pub observe: Option<&'a mut Observe<'a>>,
}

/// The current value of every state of a module.
pub type States = PrimaryMap<StateId, Tensor>;

/// The states before the first run.
///
/// # Errors
/// When a weight that initialises a state has no bytes at hand.
pub fn initial_states(module: &Module) -> Result<States, Box<Diagnostic>> {
    first_values(&module.weights, &module.states)
}

/// As [`initial_states`] for the tables of any level.
pub(crate) fn first_values(
    weights: &PrimaryMap<WeightId, Weight>,
    states: &PrimaryMap<StateId, State>,
) -> Result<States, Box<Diagnostic>> {
    let mut values = States::new();
    for state in states.values() {
        values.push(match state.init {
            StateInit::Zeros => zeros(state)?,
            StateInit::Weight(weight) => weight_data(&weights[weight])?,
        });
    }
    Ok(values)
}

/// Zeros of a state's type; an error where the memory for them is refused.
fn zeros(state: &State) -> Result<Tensor, Box<Diagnostic>> {
    let ty = &state.ty;
    let mut bytes = Vec::<u8>::new();
    let tensor = ty.shape.as_const().and_then(|shape| {
        let size = usize::try_from(ty.max_bytes()?).ok()?;
        bytes.try_reserve_exact(size).ok()?;
        bytes.resize(size, 0);
        Tensor::from_bytes(ty.dtype, &shape, bytes.into()).ok()
    });
    tensor.ok_or_else(|| {
        let message = format!("there is no memory for state `{}` of type {ty}", state.name);
        Box::new(Diagnostic::new(codes::OUT_OF_MEMORY, Kind::Limit, message))
    })
}

/// The bytes of a weight.
pub(crate) fn weight_data(weight: &Weight) -> Result<Tensor, Box<Diagnostic>> {
    weight.data.clone().ok_or_else(|| {
        let message = format!("the bytes of weight `{}` are not at hand", weight.name);
        Box::new(Diagnostic::input(codes::NO_DATA, message))
    })
}

/// Runs a function of a verified module on inputs in the function's order, and updates the states
/// that outputs alias. On an error the states are unchanged.
///
/// # Errors
/// Inputs that do not fit, values that an op cannot take, limits, cancellation. Memory that the
/// operating system refuses is not caught: set [`Options::max_bytes`].
pub fn run(
    module: &Module,
    func: FuncId,
    inputs: &[Tensor],
    states: &mut States,
    options: Options<'_>,
) -> Result<Vec<Tensor>, Box<Diagnostic>> {
    let func = &module.functions[func];
    let results = {
        let before: &States = states;
        let mut run = Run {
            module: Some(module),
            states: Some(before),
            func,
            options,
            live: 0,
        };
        run.start(inputs)?
    };
    for (output, tensor) in func.outputs.iter().zip(&results) {
        if let Some(state) = output.aliases {
            states[state] = tensor.clone();
        }
    }
    Ok(results)
}

/// Runs a function that reads neither weights nor states, such as an op's expansion.
///
/// # Errors
/// As for [`run`].
pub fn run_function(func: &Function, inputs: &[Tensor]) -> Result<Vec<Tensor>, Box<Diagnostic>> {
    let options = Options::default();
    Run {
        module: None,
        states: None,
        func,
        options,
        live: 0,
    }
    .start(inputs)
}

/// Extents of symbols as the inputs have them.
///
/// # Errors
/// Inputs that do not fit their types.
pub fn bind_inputs(func: &Function, inputs: &[Tensor]) -> Result<Bindings, Box<Diagnostic>> {
    let wrong = |message: String| Box::new(Diagnostic::input(codes::WRONG_INPUTS, message));
    if inputs.len() != func.inputs().len() {
        return Err(wrong(format!(
            "function `{}` has {} inputs, {} were given",
            func.name,
            func.inputs().len(),
            inputs.len()
        )));
    }
    let mut bindings = Bindings::new();
    for (position, (value, tensor)) in func.inputs().iter().zip(inputs).enumerate() {
        let ty = func.ty(*value);
        if !bind_type(ty, tensor, &mut bindings) {
            let name = func.input_name(position);
            return Err(wrong(format!(
                "input `{name}` is {ty}, {} was given",
                tensor.ty()
            )));
        }
    }
    Ok(bindings)
}

/// Binds the symbols of `ty` that are still unbound to the extents of `tensor`, and tells whether
/// the tensor is of the type.
fn bind_type(ty: &Type, tensor: &Tensor, bindings: &mut Bindings) -> bool {
    if ty.dtype != tensor.dtype() || ty.rank() != tensor.rank() {
        return false;
    }
    for (dim, extent) in ty.dims().iter().zip(tensor.shape()) {
        if let Some((name, max)) = symbol(dim) {
            if *extent > max {
                return false;
            }
            bindings.entry(name).or_insert(*extent);
        }
    }
    ty.dims()
        .iter()
        .zip(tensor.shape())
        .all(|(dim, extent)| dim.eval(bindings) == Some(*extent))
}

fn symbol(dim: &Dim) -> Option<(std::sync::Arc<str>, u64)> {
    match dim {
        Dim::Expr(poly) => poly.as_symbol().map(|(name, max)| (name.clone(), max)),
        Dim::Const(_) => None,
    }
}

/// The results of these types, if none has an element. Such a node is not executed: `[2147483648, 0]`
/// has two thousand million rows to go through and nothing to compute.
fn without_elements(types: &[Type]) -> Option<Vec<Tensor>> {
    let empty = |ty: &Type| {
        let shape = ty.shape.as_const().filter(|shape| shape.contains(&0))?;
        Some(Tensor::splat(ty.dtype, &shape, Scalar::Int(0)))
    };
    types.iter().map(empty).collect()
}

struct Run<'a, 'o> {
    module: Option<&'a Module>,
    states: Option<&'a States>,
    func: &'a Function,
    options: Options<'o>,
    /// Bytes of the tensors alive.
    live: u64,
}

type Env = BTreeMap<ValueId, Tensor>;

impl Run<'_, '_> {
    fn start(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Box<Diagnostic>> {
        let bindings = bind_inputs(self.func, inputs)?;
        self.region(self.func.body(), inputs, bindings)
    }

    fn region(
        &mut self,
        region: RegionId,
        args: &[Tensor],
        mut bindings: Bindings,
    ) -> Result<Vec<Tensor>, Box<Diagnostic>> {
        let func = self.func;
        let region_data = &func.regions[region];
        let mut env = Env::new();
        for (param, arg) in region_data.params.iter().zip(args) {
            bind_type(func.ty(*param), arg, &mut bindings);
            self.observe(region, *param, arg);
            env.insert(*param, arg.clone());
        }
        // A loop whose body has no nodes has to end as well.
        self.check_cancelled()?;
        let last_uses = self.last_uses(region);
        for node in &region_data.nodes {
            self.check_cancelled()?;
            let results = self.node(*node, &env, &bindings)?;
            for (value, tensor) in func.nodes[*node].results.iter().zip(results) {
                if !bind_type(func.ty(*value), &tensor, &mut bindings) {
                    let (expected, found) = (func.ty(*value), tensor.ty());
                    let message = format!("a result of {expected} came out as {found}");
                    return Err(self.error(*node, codes::BAD_VALUE, Kind::Input, message));
                }
                self.observe(region, *value, &tensor);
                self.live += tensor.bytes().len() as u64;
                env.insert(*value, tensor);
            }
            for value in last_uses.get(node).into_iter().flatten() {
                if let Some(tensor) = env.remove(value) {
                    self.live = self.live.saturating_sub(tensor.bytes().len() as u64);
                }
            }
        }
        region_data
            .results
            .iter()
            .map(|value| self.value(*value, &env))
            .collect()
    }

    fn check_cancelled(&self) -> Result<(), Box<Diagnostic>> {
        match self.options.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Box::new(Diagnostic::input(
                codes::CANCELLED,
                "the run was cancelled",
            ))),
            _ => Ok(()),
        }
    }

    fn observe(&mut self, region: RegionId, value: ValueId, tensor: &Tensor) {
        if region == self.func.body()
            && let Some(observe) = &mut self.options.observe
        {
            observe(value, tensor);
        }
    }

    /// For every node of a region, the values that no later node and no result needs.
    fn last_uses(&self, region: RegionId) -> BTreeMap<NodeId, Vec<ValueId>> {
        let region = &self.func.regions[region];
        let mut last = BTreeMap::new();
        for node in &region.nodes {
            let data = &self.func.nodes[*node];
            for value in data.results.iter().chain(&data.args) {
                last.insert(*value, *node);
            }
        }
        for value in &region.results {
            last.remove(value);
        }
        let mut by_node = BTreeMap::<NodeId, Vec<ValueId>>::new();
        for (value, node) in last {
            by_node.entry(node).or_default().push(value);
        }
        by_node
    }

    fn value(&self, value: ValueId, env: &Env) -> Result<Tensor, Box<Diagnostic>> {
        let missing = || {
            let message = format!("value {value} is not defined where it is used");
            Box::new(Diagnostic::new(codes::CORRUPT, Kind::Bug, message))
        };
        match (self.func.values[value].def, self.module, self.states) {
            (ValueDef::Weight(weight), Some(module), _) => weight_data(&module.weights[weight]),
            (ValueDef::State(state), _, Some(states)) => {
                states.get(state).cloned().ok_or_else(missing)
            }
            _ => env.get(&value).cloned().ok_or_else(missing),
        }
    }

    fn error(&self, node: NodeId, code: u16, kind: Kind, message: String) -> Box<Diagnostic> {
        let data = &self.func.nodes[node];
        let message = format!("{}: {message}", data.op.name());
        let diagnostic = Diagnostic::new(code, kind, message);
        Box::new(match &data.loc {
            Some(loc) => diagnostic.at(Place::Node(loc.clone())),
            None => diagnostic,
        })
    }

    fn node(
        &mut self,
        node: NodeId,
        env: &Env,
        bindings: &Bindings,
    ) -> Result<Vec<Tensor>, Box<Diagnostic>> {
        let data = &self.func.nodes[node];
        let args: Vec<Tensor> = data
            .args
            .iter()
            .map(|value| self.value(*value, env))
            .collect::<Result<_, _>>()?;
        let Some(op) = data.op.bind(bindings) else {
            let message = "a symbol in the attributes has no value".to_owned();
            return Err(self.error(node, codes::BAD_VALUE, Kind::Input, message));
        };
        let regions = self.bound_regions(node, bindings);
        let types = self.check_memory(node, &args, &op, &regions)?;
        if data.regions.is_empty()
            && let Some(results) = without_elements(&types)
        {
            return Ok(results);
        }
        let mut failure = None;
        let result = {
            let mut call = |index: usize, args: &[Tensor]| {
                let region = data.regions.get(index).copied();
                let region = region.ok_or_else(|| EvalError::value("there is no such region"))?;
                self.region(region, args, bindings.clone())
                    .map_err(|diagnostic| {
                        let error = EvalError {
                            code: diagnostic.code.0,
                            message: String::new(),
                        };
                        failure.get_or_insert(diagnostic);
                        error
                    })
            };
            op.eval(&args, &mut EvalCx::new(&mut call).with_regions(regions))
        };
        // An error inside a region has its own place; it is not wrapped.
        result.map_err(|error| match failure {
            Some(diagnostic) => diagnostic,
            None => self.error(node, error.code, Kind::Input, error.message),
        })
    }

    /// The types of a node's regions with the symbols replaced that have values.
    fn bound_regions(&self, node: NodeId, bindings: &Bindings) -> Vec<RegionType> {
        let bind_dim = |dim: &Dim| dim.eval(bindings).map_or_else(|| dim.clone(), Dim::Const);
        let bind = |types: Vec<Type>| -> Vec<Type> {
            types
                .into_iter()
                .map(|ty| Type::new(ty.dtype, Shape::new(ty.dims().iter().map(bind_dim))))
                .collect()
        };
        self.func
            .region_types(node)
            .into_iter()
            .map(|r| RegionType {
                params: bind(r.params),
                results: bind(r.results),
            })
            .collect()
    }

    /// The types of a node's results. Refuses a node whose operands do not fit or whose results
    /// would exceed the memory limit, before anything is allocated.
    fn check_memory(
        &self,
        node: NodeId,
        args: &[Tensor],
        op: &crate::ops::Op,
        regions: &[RegionType],
    ) -> Result<Vec<Type>, Box<Diagnostic>> {
        let types: Vec<Type> = args.iter().map(Tensor::ty).collect();
        let results = op
            .infer(&types, regions)
            .map_err(|e| self.error(node, codes::BAD_VALUE, Kind::Input, e.0))?;
        let needed = results.iter().try_fold(self.live, |n, ty| {
            n.checked_add(ty.max_bytes().filter(|_| ty.addressable())?)
        });
        let limit = self.options.max_bytes.unwrap_or(i64::MAX as u64);
        match needed {
            Some(bytes) if bytes <= limit => Ok(results),
            _ => {
                let results: Vec<String> = results.iter().map(Type::to_string).collect();
                let message = format!(
                    "with the result {} more than {limit} bytes are needed at one time",
                    results.join(", ")
                );
                Err(self.error(node, codes::OUT_OF_MEMORY, Kind::Limit, message))
            }
        }
    }
}
