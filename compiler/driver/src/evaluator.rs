//! The reference interpreter over named inputs, states and probes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dojoc_ir::diag::Diagnostic;
use dojoc_ir::graph::eval::{self, States};
use dojoc_ir::graph::{FuncId, Function, ValueDef, ValueId, closest};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Type};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;

use crate::codes;
use crate::error::{Error, Result};
use crate::module::{Module, Signature};
use crate::tensor::TensorView;

/// Tensors by name, in the order of the function's outputs or of the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedTensors(pub Vec<(Arc<str>, Tensor)>);

impl NamedTensors {
    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(n, _)| &**n == name).map(|(_, t)| t)
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (&**name, tensor))
    }
}

/// What a run gave.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Run {
    /// The function's outputs.
    pub outputs: NamedTensors,
    /// The values that were asked for by [`Evaluator::probe`].
    pub probes: NamedTensors,
}

/// Runs one function of a module op by op, as the ops' definitions say: slow, and what every other
/// way of running it is compared with. Holds the module's states between runs.
#[derive(Clone, Debug)]
pub struct Evaluator {
    module: Module,
    func: FuncId,
    states: States,
    probes: Vec<(Arc<str>, ValueId)>,
    max_bytes: Option<u64>,
    cancel: Option<Arc<AtomicBool>>,
}

impl Evaluator {
    /// An evaluator of a function, by default `main` or else the first, with the states as the
    /// module initialises them.
    ///
    /// # Errors
    /// When there is no such function, or the bytes of a weight are not at hand.
    pub fn new(module: &Module, entry: Option<&str>) -> Result<Self> {
        let func = module.function(entry)?;
        module.missing().clone().ok(())?;
        Ok(Self {
            states: eval::initial_states(module.graph())?,
            module: module.clone(),
            func,
            probes: vec![],
            max_bytes: None,
            cancel: None,
        })
    }

    /// The same with a limit to the total size of the tensors that are alive at one time.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// The same with a flag that stops a run when it is set.
    #[must_use]
    pub fn cancel(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancel = Some(flag);
        self
    }

    fn function(&self) -> &Function {
        &self.module.graph().functions[self.func]
    }

    /// Asks for values of the function's body at every run: by the name of the value, or by the
    /// name of the node of the user's model that computes it.
    ///
    /// # Errors
    /// When there is no such value.
    pub fn probe(&mut self, name: &str) -> Result<()> {
        let func = self.function();
        let in_body = |value: ValueId| match func.values[value].def {
            ValueDef::Param(region, _) => region == func.body(),
            ValueDef::Result(node, _) => func.regions[func.body()].nodes.contains(&node),
            ValueDef::Weight(_) | ValueDef::State(_) => false,
        };
        let named = func
            .values
            .iter()
            .filter(|(id, v)| v.name.is_some() && in_body(*id));
        let mut found: Vec<(Arc<str>, ValueId)> = named
            .filter(|(_, value)| value.name.as_deref() == Some(name))
            .map(|(id, _)| (Arc::from(name), id))
            .collect();
        let body = &func.regions[func.body()].nodes;
        if found.is_empty() {
            // A node may have become several; the last of them computes what it computed.
            let node = body.iter().rev().map(|node| &func.nodes[*node]);
            let mut node = node.filter(|n| n.loc.as_ref().is_some_and(|l| &*l.name == name));
            for (position, value) in node
                .next()
                .into_iter()
                .flat_map(|n| n.results.iter().enumerate())
            {
                let name = match position {
                    0 => Arc::from(name),
                    _ => Arc::from(format!("{name}.{position}")),
                };
                found.push((name, *value));
            }
        }
        if !found.is_empty() {
            self.probes.extend(found);
            return Ok(());
        }
        let values = func.values.iter().filter(|(id, _)| in_body(*id));
        let values = values.filter_map(|(_, v)| v.name.as_deref());
        let nodes = body
            .iter()
            .filter_map(|n| Some(&*func.nodes[*n].loc.as_ref()?.name));
        let message = format!("function `{}` computes no value `{name}`", func.name);
        let diagnostic = Diagnostic::input(codes::UNKNOWN_WORD, message);
        Err(match closest(name, values.chain(nodes)) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None => diagnostic.help("`dojoc compile --emit graph` shows all names"),
        }
        .into())
    }

    /// The current value of every state, by name.
    pub fn states(&self) -> NamedTensors {
        let states = self.module.graph().states.values();
        let values = self.states.values();
        NamedTensors(
            states
                .zip(values)
                .map(|(s, t)| (s.name.clone(), t.clone()))
                .collect(),
        )
    }

    /// Sets a state.
    ///
    /// # Errors
    /// When there is none of this name, or it has another type.
    pub fn set_state(&mut self, name: &str, value: TensorView<'_>) -> Result<()> {
        let graph = self.module.graph();
        let Some(id) = graph.state(name) else {
            let names: Vec<&str> = graph.states.values().map(|s| &*s.name).collect();
            let message = format!("the model has no state `{name}`");
            let help = match names.is_empty() {
                true => "it has no states".to_owned(),
                false => format!("there are: {}", names.join(", ")),
            };
            return Err(Diagnostic::input(codes::BAD_STATE, message)
                .help(help)
                .into());
        };
        let tensor = value.to_tensor();
        let ty = &graph.states[id].ty;
        if tensor.ty() != *ty {
            let message = format!("state `{name}` is {ty}, {} was given", tensor.ty());
            return Err(Error::input(codes::BAD_STATE, message));
        }
        self.states[id] = tensor;
        Ok(())
    }

    /// Runs the function and updates the states that its outputs alias. On an error the states are
    /// as they were.
    ///
    /// # Errors
    /// Inputs that are missing, unknown, given twice or of the wrong type; values that an op cannot
    /// take; limits; cancellation.
    pub fn run(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Run> {
        let func = self.function();
        let names: Vec<Arc<str>> = (0..func.inputs().len())
            .map(|i| func.input_name(i))
            .collect();
        let mut given = BTreeMap::new();
        for (name, view) in inputs {
            if !names.iter().any(|n| &**n == *name) {
                return Err(no_input(&func.name, name, &names));
            }
            if given.insert(*name, view).is_some() {
                let message = format!("input `{name}` is given twice");
                return Err(Error::input(codes::BAD_INPUTS, message));
            }
        }
        let missing: Vec<&str> = names
            .iter()
            .map(|n| &**n)
            .filter(|n| !given.contains_key(n))
            .collect();
        if !missing.is_empty() {
            let plural = if missing.len() == 1 { "" } else { "s" };
            let message = format!("no value for input{plural} `{}`", missing.join("`, `"));
            return Err(Error::input(codes::BAD_INPUTS, message));
        }
        let tensors: Vec<Tensor> = names.iter().map(|n| given[&**n].to_tensor()).collect();
        self.run_in_order(&tensors)
    }

    /// As [`run`](Self::run), with one tensor per input in the function's order.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_in_order(&mut self, inputs: &[Tensor]) -> Result<Run> {
        let mut seen = BTreeMap::new();
        let mut observe = |value: ValueId, tensor: &Tensor| {
            if self.probes.iter().any(|(_, probe)| *probe == value) {
                seen.insert(value, tensor.clone());
            }
        };
        let options = eval::Options {
            max_bytes: self.max_bytes,
            cancel: self.cancel.as_deref(),
            observe: Some(&mut observe),
        };
        let graph = self.module.graph();
        let results = eval::run(graph, self.func, inputs, &mut self.states, options)?;
        let outputs = graph.functions[self.func].outputs.iter().zip(results);
        let probes = self.probes.iter();
        Ok(Run {
            outputs: NamedTensors(outputs.map(|(o, t)| (o.name.clone(), t)).collect()),
            probes: NamedTensors(
                probes
                    .filter_map(|(name, value)| Some((name.clone(), seen.get(value)?.clone())))
                    .collect(),
            ),
        })
    }

    /// Random inputs of the function's types: floats between -1 and 1, integers and truth values 0
    /// or 1 (so that indices and masks are valid), symbolic extents at their bound. The same seed
    /// gives the same values everywhere.
    pub fn random_inputs(&self, seed: u64) -> NamedTensors {
        let func = self.function();
        let inputs = func.inputs().iter().enumerate();
        random(
            inputs.map(|(position, value)| (func.input_name(position), func.ty(*value))),
            seed,
        )
    }
}

impl Signature {
    /// Random inputs, as [`Evaluator::random_inputs`] gives them.
    pub fn random_inputs(&self, seed: u64) -> NamedTensors {
        let inputs = self.inputs.iter();
        random(inputs.map(|port| (port.name.clone(), &port.ty)), seed)
    }
}

fn random<'t>(inputs: impl Iterator<Item = (Arc<str>, &'t Type)>, seed: u64) -> NamedTensors {
    let mut rng = Pcg64::seed_from_u64(seed);
    let inputs = inputs.map(|(name, ty)| {
        let shape: Vec<u64> = ty.dims().iter().map(|d| d.max_extent()).collect();
        let count = shape.iter().product::<u64>();
        let values = (0..count).map(|_| match ty.dtype {
            DType::F64 => Scalar::F64(rng.random_range(-1.0..1.0)),
            dtype if dtype.is_float() => Scalar::F32(rng.random_range(-1.0..1.0)),
            _ => Scalar::Int(i128::from(rng.random_range(0..2u8))),
        });
        let tensor = Tensor::from_scalars(ty.dtype, &shape, values);
        (name, tensor)
    });
    NamedTensors(inputs.collect())
}

fn no_input(func: &str, name: &str, names: &[Arc<str>]) -> Error {
    let message = format!("function `{func}` has no input `{name}`");
    let diagnostic = Diagnostic::input(codes::BAD_INPUTS, message);
    let known = names.iter().map(|n| &**n);
    match (closest(name, known.clone()), names.is_empty()) {
        (Some(near), _) => diagnostic.help(format!("did you mean `{near}`?")),
        (None, true) => diagnostic.help("it has no inputs"),
        (None, false) => diagnostic.help(format!(
            "there are: {}",
            known.collect::<Vec<_>>().join(", ")
        )),
    }
    .into()
}
