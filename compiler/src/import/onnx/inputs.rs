//! Types of the model's inputs: what it declares, and what the caller says about it.

use std::collections::{BTreeMap, BTreeSet};

use dojoc_ir::diag::{Diagnostic, Kind};
use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::types::{DType, Shape, Type};

use super::builder::{Importer, check_size};
use super::codes;
use super::options::DimBinding;
use super::problems::{NodeError, NodeResult};
use super::value::{Operand, Slot, onnx_dtype};
use super::wire::tensor_shape_proto::dimension::Value as DimValue;
use super::wire::{GraphProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

/// A declared extent.
enum Declared<'m> {
    Known(u64),
    Named(&'m str),
    Unknown,
}

fn declared(shape: &TensorShapeProto) -> impl Iterator<Item = Declared<'_>> {
    shape.dim.iter().map(|dim| match &dim.value {
        Some(DimValue::DimValue(extent)) => match u64::try_from(*extent) {
            Ok(extent) => Declared::Known(extent),
            // Some exporters write -1 for what they do not know.
            Err(_) => Declared::Unknown,
        },
        Some(DimValue::DimParam(name)) if !name.is_empty() => Declared::Named(name),
        _ => Declared::Unknown,
    })
}

/// Element type and shape of a declared tensor.
fn tensor_type<'m>(
    name: &str,
    ty: Option<&'m TypeProto>,
) -> NodeResult<(DType, Option<&'m TensorShapeProto>)> {
    let kind = match ty.and_then(|ty| ty.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => {
            let dtype = onnx_dtype(tensor.elem_type).map_err(|e| e.about(name))?;
            return Ok((dtype, tensor.shape.as_ref()));
        }
        None => {
            let message = format!("input `{name}` has no type");
            return Err(NodeError::new(codes::NO_SHAPE, Kind::Input, message).complete());
        }
        Some(type_proto::Value::SequenceType(_)) => "a sequence",
        Some(type_proto::Value::MapType(_)) => "a map",
        Some(type_proto::Value::OpaqueType(_)) => "opaque",
        Some(type_proto::Value::SparseTensorType(_)) => "a sparse tensor",
        Some(type_proto::Value::OptionalType(_)) => "an optional value",
    };
    let message = format!("input `{name}` is {kind}");
    Err(NodeError::new(codes::UNSUPPORTED_KIND, Kind::Unsupported, message).complete())
}

fn conflict(message: String) -> NodeError {
    NodeError::new(codes::SHAPE_CONFLICT, Kind::Input, message).complete()
}

/// The inputs of a graph that are not constants.
fn real_inputs(graph: &GraphProto) -> Vec<&ValueInfoProto> {
    let constants: BTreeSet<&str> = graph
        .initializer
        .iter()
        .map(|t| t.name.as_str())
        .chain(
            graph
                .sparse_initializer
                .iter()
                .filter_map(|s| Some(s.values.as_ref()?.name.as_str())),
        )
        .collect();
    let inputs = graph.input.iter();
    inputs
        .filter(|i| !constants.contains(i.name.as_str()))
        .collect()
}

impl<'m> Importer<'m> {
    /// Makes the parameters of the function. Inputs that are constants of the graph, as before IR
    /// version 4, are no parameters.
    pub(super) fn define_inputs(&mut self, graph: &'m GraphProto) {
        let inputs = real_inputs(graph);
        let given = self.given_shapes(&inputs);
        let bindings = self.implied_bindings(&inputs, &given);
        let mut unbound = vec![];
        for (input, given) in inputs.into_iter().zip(given) {
            let slot = match self.input_type(input, given.as_deref(), &bindings, &mut unbound) {
                Ok(Some(ty)) => {
                    let name = self.unique_name(&input.name);
                    let value = self.b.param(ty, Some(name));
                    self.know_constant(input, value);
                    Slot::Operand(Operand::Value(value))
                }
                Ok(None) => Slot::Poisoned,
                Err(error) => {
                    self.problems.add(error, None);
                    Slot::Poisoned
                }
            };
            self.define(&input.name, slot);
        }
        if !unbound.is_empty() {
            let message = match unbound.len() {
                1 => "1 dimension of the inputs has no extent".to_owned(),
                n => format!("{n} dimensions of the inputs have no extent"),
            };
            let mut diagnostic = Diagnostic::input(codes::UNBOUND_DIM, message);
            let mut flags = vec![];
            for (dim, input, axis) in unbound {
                diagnostic =
                    diagnostic.note(format!("`{dim}` is dimension {axis} of input `{input}`"));
                flags.push(format!("--dim {dim}=EXTENT"));
            }
            flags.truncate(8);
            let help = format!("give each an extent or a bound (<=): {}", flags.join(" "));
            self.problems.push(diagnostic.help(help));
        }
    }

    fn know_constant(&mut self, input: &ValueInfoProto, value: ValueId) {
        let Some(tensor) = self.options.constant_inputs.get(&input.name) else {
            return;
        };
        if tensor.ty() == *self.b.ty(value) {
            self.known.insert(value, tensor.clone());
        } else {
            let message = format!(
                "the value given for input `{}` is {}, the model has {}",
                input.name,
                tensor.ty(),
                self.b.ty(value)
            );
            self.problems.add(conflict(message), None);
        }
    }

    /// The shapes that the caller gives, for each input.
    fn given_shapes(&self, inputs: &[&ValueInfoProto]) -> Vec<Option<Vec<u64>>> {
        let options = self.options;
        let by_name = |name: &str| inputs.iter().any(|i| i.name == name);
        let shape_of = |position: usize, input: &ValueInfoProto| {
            if let Some(shape) = options.shapes.get(&input.name) {
                return Some(shape.clone());
            }
            if let Some(tensor) = options.constant_inputs.get(&input.name) {
                return Some(tensor.shape().to_vec());
            }
            let named = options
                .bind_from_inputs
                .iter()
                .find(|g| g.name.as_deref() == Some(input.name.as_str()));
            let placed = options
                .bind_from_inputs
                .get(position)
                .filter(|g| g.name.as_deref().is_none_or(|name| !by_name(name)));
            named.or(placed).map(|g| g.shape.clone())
        };
        let inputs = inputs.iter().enumerate();
        inputs
            .map(|(position, input)| shape_of(position, input))
            .collect()
    }

    /// Extents of symbolic dimensions that follow from the given shapes.
    fn implied_bindings(
        &mut self,
        inputs: &[&'m ValueInfoProto],
        given: &[Option<Vec<u64>>],
    ) -> BTreeMap<&'m str, u64> {
        let mut bindings = BTreeMap::new();
        for (input, given) in inputs.iter().zip(given) {
            let (Ok((_, Some(shape))), Some(given)) =
                (tensor_type(&input.name, input.r#type.as_ref()), given)
            else {
                continue;
            };
            for (dim, extent) in declared(shape).zip(given) {
                let Declared::Named(name) = dim else { continue };
                let first = *bindings.entry(name).or_insert(*extent);
                if first != *extent {
                    let message = format!(
                        "dimension `{name}` would be {first} and {extent} by the given shapes"
                    );
                    self.problems.add(conflict(message), None);
                }
            }
        }
        bindings
    }

    /// The type of an input, `None` if a dimension is not known, which `unbound` lists.
    fn input_type(
        &mut self,
        input: &'m ValueInfoProto,
        given: Option<&[u64]>,
        bindings: &BTreeMap<&'m str, u64>,
        unbound: &mut Vec<(String, String, usize)>,
    ) -> NodeResult<Option<Type>> {
        let name = &input.name;
        let (dtype, shape) = tensor_type(name, input.r#type.as_ref())?;
        let Some(shape) = shape else {
            let Some(given) = given else {
                let message = format!("input `{name}` has no shape");
                let error = NodeError::new(codes::NO_SHAPE, Kind::Input, message).complete();
                return Err(error.help(format!("give one: --shape {name}=AxBxC")));
            };
            let ty = Type::of(dtype, given);
            check_size(&ty)?;
            return Ok(Some(ty));
        };
        if let Some(given) = given
            && given.len() != shape.dim.len()
        {
            return Err(conflict(format!(
                "input `{name}` has rank {}, the given shape has {}",
                shape.dim.len(),
                given.len()
            )));
        }
        let mut dims = vec![];
        let mut complete = true;
        for (axis, dim) in declared(shape).enumerate() {
            let given = given.map(|g| g[axis]);
            let symbol = match dim {
                Declared::Known(extent) => {
                    if given.is_some_and(|given| given != extent) {
                        return Err(conflict(format!(
                            "dimension {axis} of input `{name}` is {extent}, the given shape has {}",
                            given.unwrap_or_default()
                        )));
                    }
                    dims.push(Dim::Const(extent));
                    continue;
                }
                Declared::Named(symbol) => symbol.to_owned(),
                Declared::Unknown => format!("{name}.{axis}"),
            };
            let implied = given.or_else(|| bindings.get(symbol.as_str()).copied());
            match (self.options.dims.get(&symbol).copied(), implied) {
                (Some(DimBinding::Exact(extent)), Some(implied)) if extent != implied => {
                    return Err(conflict(format!(
                        "dimension `{symbol}` of input `{name}` is {implied} by the given shapes, \
                         but bound to {extent}"
                    )));
                }
                (Some(DimBinding::Exact(extent)), _) => dims.push(Dim::Const(extent)),
                (Some(DimBinding::AtMost(max)), _) => {
                    self.module.dims.insert(symbol.as_str().into(), max);
                    dims.push(Dim::symbol(&symbol, max));
                }
                (None, Some(implied)) => dims.push(Dim::Const(implied)),
                (None, None) => {
                    complete = false;
                    if !unbound.iter().any(|(known, _, _)| *known == symbol) {
                        unbound.push((symbol, name.clone(), axis));
                    }
                }
            }
        }
        if !complete {
            return Ok(None);
        }
        let ty = Type::new(dtype, Shape::new(dims));
        check_size(&ty)?;
        Ok(Some(ty))
    }

    /// Warns where the type of an output is not what the model declares.
    pub(super) fn check_declared(&mut self, value: ValueId, output: &ValueInfoProto) {
        let Some(type_proto::Value::TensorType(tensor)) =
            output.r#type.as_ref().and_then(|ty| ty.value.as_ref())
        else {
            return;
        };
        let ty = self.b.ty(value);
        let same_dtype =
            tensor.elem_type == 0 || onnx_dtype(tensor.elem_type).is_ok_and(|d| d == ty.dtype);
        let same_shape = tensor.shape.as_ref().is_none_or(|shape| {
            shape.dim.len() == ty.rank()
                && declared(shape)
                    .zip(ty.dims())
                    .all(|(declared, dim)| match (declared, dim) {
                        (Declared::Known(extent), Dim::Const(found)) => extent == *found,
                        _ => true,
                    })
        });
        if same_dtype && same_shape {
            return;
        }
        let message = format!(
            "output `{}` is {ty}, the model declares another type",
            output.name
        );
        self.warnings
            .push(Diagnostic::input(codes::OUTPUT_TYPE, message));
    }

    /// Reports options about names that the model does not have.
    pub(super) fn check_option_names(&mut self, graph: &GraphProto) {
        let inputs = real_inputs(graph);
        let names: BTreeSet<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
        let mut dims: BTreeSet<String> = BTreeSet::new();
        for input in &inputs {
            let Ok((_, Some(shape))) = tensor_type(&input.name, input.r#type.as_ref()) else {
                continue;
            };
            for (axis, dim) in declared(shape).enumerate() {
                dims.insert(match dim {
                    Declared::Known(_) => continue,
                    Declared::Named(name) => name.to_owned(),
                    Declared::Unknown => format!("{}.{axis}", input.name),
                });
            }
        }
        let mut complain = |flag: &str, name: &str, known: String| {
            let message = format!("{flag} names `{name}`, which the model does not have");
            let error = NodeError::new(codes::UNKNOWN_NAME, Kind::Input, message).complete();
            self.problems
                .add(error.help(format!("there are: {known}")), None);
        };
        let listed = |names: Vec<&str>| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        for name in self.options.dims.keys().filter(|n| !dims.contains(*n)) {
            complain(
                "--dim",
                name,
                listed(dims.iter().map(String::as_str).collect()),
            );
        }
        for name in self
            .options
            .shapes
            .keys()
            .filter(|n| !names.contains(n.as_str()))
        {
            complain("--shape", name, listed(names.iter().copied().collect()));
        }
    }
}
