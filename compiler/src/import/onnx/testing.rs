//! Builds small models for tests, imports them, and runs the result with the reference interpreter.

use std::collections::BTreeMap;

use dojoc_ir::diag::Diagnostics;
use dojoc_ir::graph::eval::{Options, initial_states, run};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;
use prost::Message as _;

use super::wire::{
    AttributeProto, AttributeType, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use super::{ImportOptions, Imported, import_bytes};

/// The number of an element type in ONNX.
pub(super) fn onnx_number(dtype: DType) -> i32 {
    let ty = match dtype {
        DType::Bool => DataType::Bool,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::F16 => DataType::Float16,
        DType::Bf16 => DataType::Bfloat16,
        DType::F64 => DataType::Double,
        _ => DataType::Float,
    };
    ty as i32
}

/// A constant of a model.
pub(super) fn tensor_proto(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: tensor.shape().iter().map(|d| *d as i64).collect(),
        data_type: onnx_number(tensor.dtype()),
        raw_data: tensor.bytes().clone(),
        ..Default::default()
    }
}

/// A tensor of 32-bit floats.
pub(super) fn f32s(shape: &[u64], values: &[f32]) -> Tensor {
    Tensor::from_vec(shape, values.to_vec())
}

/// A vector of 64-bit integers.
pub(super) fn i64s(values: &[i64]) -> Tensor {
    Tensor::from_vec(&[values.len() as u64], values.to_vec())
}

/// A scalar 64-bit integer.
pub(super) fn i64_scalar(value: i64) -> Tensor {
    Tensor::from_vec(&[], vec![value])
}

/// The value of an attribute.
pub(super) trait AttrValue {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType;
}
impl AttrValue for i64 {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType {
        attribute.i = Some(self);
        AttributeType::Int
    }
}
impl AttrValue for f32 {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType {
        attribute.f = Some(self);
        AttributeType::Float
    }
}
impl AttrValue for &str {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType {
        attribute.s = Some(bytes::Bytes::copy_from_slice(self.as_bytes()));
        AttributeType::String
    }
}
impl AttrValue for &[i64] {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType {
        attribute.ints = self.to_vec();
        AttributeType::Ints
    }
}
impl AttrValue for &[f32] {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType {
        attribute.floats = self.to_vec();
        AttributeType::Floats
    }
}
impl AttrValue for &[&str] {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType {
        let bytes = |text: &&str| bytes::Bytes::copy_from_slice(text.as_bytes());
        attribute.strings = self.iter().map(bytes).collect();
        AttributeType::Strings
    }
}
impl AttrValue for &Tensor {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType {
        attribute.t = Some(Box::new(tensor_proto("", self)));
        AttributeType::Tensor
    }
}
impl AttrValue for GraphProto {
    fn fill(self, attribute: &mut AttributeProto) -> AttributeType {
        attribute.g = Some(Box::new(self));
        AttributeType::Graph
    }
}

/// A named attribute: `attr("axis", 1i64)`.
pub(super) fn attr(name: &str, value: impl AttrValue) -> AttributeProto {
    let mut attribute = AttributeProto {
        name: name.into(),
        ..Default::default()
    };
    attribute.r#type = value.fill(&mut attribute) as i32;
    attribute
}

/// A node: `node("Add", &["x", "y"], &["z"], vec![])`. Its name is its first output behind `n_`.
pub(super) fn node(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: Vec<AttributeProto>,
) -> NodeProto {
    let (domain, op) = op.rsplit_once("::").unwrap_or(("", op));
    NodeProto {
        op_type: op.into(),
        domain: domain.into(),
        name: format!("n_{}", outputs.first().unwrap_or(&"")),
        input: inputs.iter().map(|s| (*s).to_owned()).collect(),
        output: outputs.iter().map(|s| (*s).to_owned()).collect(),
        attribute: attributes,
        ..Default::default()
    }
}

/// A typed name. Extents are numbers, names, or empty for unknown.
pub(super) fn value_info(name: &str, dtype: DType, dims: &[&str]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |text: &&str| Dimension {
        value: match text.parse() {
            Ok(extent) => Some(Value::DimValue(extent)),
            Err(_) if text.is_empty() => None,
            Err(_) => Some(Value::DimParam((*text).to_owned())),
        },
        denotation: String::new(),
    };
    let tensor = type_proto::Tensor {
        elem_type: onnx_number(dtype),
        shape: Some(TensorShapeProto {
            dim: dims.iter().map(dim).collect(),
        }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            denotation: String::new(),
        }),
        ..Default::default()
    }
}

/// A name without a type.
pub(super) fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        ..Default::default()
    }
}

/// A model being built.
#[derive(Clone)]
pub(super) struct TestModel {
    pub(super) proto: ModelProto,
    pub(super) options: ImportOptions,
}

impl TestModel {
    /// An empty model of an operator set.
    pub(super) fn new(opset: i64) -> Self {
        let proto = ModelProto {
            ir_version: 10,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: opset,
            }],
            graph: Some(GraphProto {
                name: "test".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        Self {
            proto,
            options: ImportOptions::default(),
        }
    }

    pub(super) fn graph(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().unwrap()
    }

    pub(super) fn domain(mut self, domain: &str, version: i64) -> Self {
        self.proto.opset_import.push(OperatorSetIdProto {
            domain: domain.into(),
            version,
        });
        self
    }

    pub(super) fn input(mut self, name: &str, dtype: DType, dims: &[&str]) -> Self {
        self.graph().input.push(value_info(name, dtype, dims));
        self
    }

    pub(super) fn init(mut self, name: &str, tensor: &Tensor) -> Self {
        self.graph().initializer.push(tensor_proto(name, tensor));
        self
    }

    pub(super) fn node(
        mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Self {
        self.graph()
            .node
            .push(node(op, inputs, outputs, attributes));
        self
    }

    pub(super) fn output(mut self, name: &str) -> Self {
        self.graph().output.push(untyped(name));
        self
    }

    pub(super) fn import(&self) -> Result<Imported, Diagnostics> {
        import_bytes("test.onnx", self.proto.encode_to_vec(), &self.options)
    }

    /// Imports the model and runs it.
    pub(super) fn run(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        let imported = self.import().unwrap_or_else(|e| panic!("{e}"));
        run_module(&imported, inputs)
    }

    /// The text of the diagnostics of an import that fails.
    pub(super) fn errors(&self) -> String {
        self.import()
            .expect_err("the import should fail")
            .to_string()
    }
}

/// Runs an imported model.
pub(super) fn run_module(imported: &Imported, inputs: &[Tensor]) -> Vec<Tensor> {
    let module = &imported.module;
    let mut states = initial_states(module).unwrap();
    let main = module.main().unwrap();
    run(module, main, inputs, &mut states, Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Imports and runs a model of one node. Operands are inputs where `None` stands before the value's
/// name in `constants`; the others are constants of the model.
pub(super) fn run_node(
    opset: i64,
    op: &str,
    operands: &[&Tensor],
    constants: &[usize],
    attributes: Vec<AttributeProto>,
) -> Tensor {
    let mut model = TestModel::new(opset);
    let mut inputs = vec![];
    let names: Vec<String> = (0..operands.len()).map(|n| format!("x{n}")).collect();
    for (index, tensor) in operands.iter().enumerate() {
        if constants.contains(&index) {
            model = model.init(&names[index], tensor);
        } else {
            let dims: Vec<String> = tensor.shape().iter().map(u64::to_string).collect();
            let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
            model = model.input(&names[index], tensor.dtype(), &dims);
            inputs.push((*tensor).clone());
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let results = model
        .node(op, &names, &["y"], attributes)
        .output("y")
        .run(&inputs);
    results[0].clone()
}

/// Numbers of all nodes of a module by mnemonic.
pub(super) fn op_counts(imported: &Imported) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for func in imported.module.functions.values() {
        for node in func.walk() {
            *counts.entry(func.nodes[node].op.name()).or_default() += 1;
        }
    }
    counts
}
