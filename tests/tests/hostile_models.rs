//! Damaged models: whatever is in the file, the importer, the passes and the interpreter end with
//! a result or an error.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use dojoc_compiler::import::onnx::wire::tensor_shape_proto::{Dimension, dimension};
use dojoc_compiler::import::onnx::wire::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use dojoc_compiler::import::onnx::{DimBinding, ImportOptions, import_bytes};
use dojoc_compiler::pass::{Pass, Run, RunOptions};
use dojoc_compiler::pipeline;
use dojoc_ir::diag::Kind;
use dojoc_ir::graph::{Module, eval};
use dojoc_ir::level::Level as _;
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use prost::Message as _;

const EXTENTS: [i64; 8] = [0, -1, 1, 3, 1 << 31, 1 << 40, 1 << 62, i64::MAX];
const NUMBERS: [i64; 8] = [0, 1, -1, 2, 1 << 40, 1 << 62, i64::MAX, i64::MIN];

/// Largest total size of values for which a model is run.
const MAX_RUN_BYTES: u64 = 1 << 20;

/// The 64-bit mixing generator of Steele, Lea and Flood (2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a mut [T]) -> Option<&'a mut T> {
        let index = self.below(from.len());
        from.get_mut(index)
    }
}

fn input(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|extent| Dimension {
        value: Some(dimension::Value::DimValue(*extent)),
        ..Dimension::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: 1,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: 7,
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: 2,
        i: Some(value),
        ..AttributeProto::default()
    }
}

/// One node on an input `x` and constants.
fn model(
    op: &str,
    x: &[i64],
    constants: &[(&[i64], &[i64])],
    attribute: Vec<AttributeProto>,
) -> ModelProto {
    let mut names = vec!["x".to_owned()];
    let mut initializer = vec![];
    for (position, (dims, values)) in constants.iter().enumerate() {
        let name = format!("c{position}");
        names.push(name.clone());
        initializer.push(TensorProto {
            name,
            dims: dims.to_vec(),
            data_type: 7,
            raw_data: Bytes::from_iter(values.iter().flat_map(|v| v.to_le_bytes())),
            ..TensorProto::default()
        });
    }
    let node = NodeProto {
        op_type: op.into(),
        input: names,
        output: vec!["y".into()],
        attribute,
        ..NodeProto::default()
    };
    let output = ValueInfoProto {
        name: "y".into(),
        ..ValueInfoProto::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..OperatorSetIdProto::default()
        }],
        graph: Some(GraphProto {
            node: vec![node],
            input: vec![input("x", x)],
            output: vec![output],
            initializer,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

fn seeds() -> Vec<ModelProto> {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/model.onnx");
    let digits = fs::read(digits).expect("the example is there");
    let image = [1, 2, 6, 6];
    let window = || {
        vec![
            ints("kernel_shape", &[2, 2]),
            ints("strides", &[2, 1]),
            ints("pads", &[0, 1, 0, 1]),
        ]
    };
    vec![
        ModelProto::decode(Bytes::from(digits)).expect("the example is a model"),
        model("MaxPool", &image, &[], window()),
        model("AveragePool", &image, &[], window()),
        model("Reshape", &image, &[(&[2], &[0, -1])], vec![]),
        model("Expand", &[1, 3], &[(&[3], &[2, 4, 3])], vec![]),
        model("Tile", &[2, 3], &[(&[2], &[2, 2])], vec![]),
        model("Pad", &[2, 3], &[(&[4], &[0, 1, 2, 0])], vec![]),
        model("Gather", &[4, 3], &[(&[2], &[1, -1])], vec![int("axis", 0)]),
        model("Trilu", &[4, 4], &[(&[], &[1])], vec![int("upper", 1)]),
        model("Split", &[6, 2], &[(&[1], &[6])], vec![int("axis", 0)]),
        model(
            "DepthToSpace",
            &[1, 8, 2, 2],
            &[],
            vec![int("blocksize", 2)],
        ),
        model("CumSum", &[3, 3], &[(&[], &[1])], vec![int("reverse", 1)]),
        model(
            "Slice",
            &[5, 6],
            &[(&[1], &[1]), (&[1], &[4]), (&[1], &[0]), (&[1], &[2])],
            vec![],
        ),
        model("Transpose", &image, &[], vec![ints("perm", &[0, 2, 3, 1])]),
    ]
}

fn damage_node(node: &mut NodeProto, random: &mut Random) {
    let number = NUMBERS[random.below(NUMBERS.len())];
    match random.below(4) {
        0 => {
            node.input.pop();
        }
        1 => node.input.reverse(),
        _ => {
            let Some(attribute) = random.pick(&mut node.attribute) else {
                return;
            };
            if let Some(value) = &mut attribute.i {
                *value = number;
            } else if let Some(value) = random.pick(&mut attribute.ints) {
                *value = number;
            }
        }
    }
}

fn damage_tensor(tensor: &mut TensorProto, random: &mut Random) {
    match random.below(3) {
        0 => {
            if let Some(extent) = random.pick(&mut tensor.dims) {
                *extent = EXTENTS[random.below(EXTENTS.len())];
            }
        }
        1 => tensor.data_type = random.below(24) as i32,
        _ if tensor.data_type == 7 => {
            let count = tensor.raw_data.len() / 8;
            let numbers = (0..count).map(|_| NUMBERS[random.below(NUMBERS.len())]);
            tensor.raw_data = numbers.flat_map(i64::to_le_bytes).collect();
        }
        _ => {}
    }
}

fn damage(model: &mut ModelProto, random: &mut Random) {
    let Some(graph) = &mut model.graph else {
        return;
    };
    match random.below(8) {
        0..=2 => {
            if let Some(node) = random.pick(&mut graph.node) {
                damage_node(node, random);
            }
        }
        3 | 4 => {
            if let Some(tensor) = random.pick(&mut graph.initializer) {
                damage_tensor(tensor, random);
            }
        }
        5 => model.opset_import[0].version = random.below(41) as i64,
        _ => {
            let ty = random
                .pick(&mut graph.input)
                .and_then(|i| i.r#type.as_mut());
            if let Some(type_proto::Value::TensorType(tensor)) = ty.and_then(|t| t.value.as_mut())
                && let Some(shape) = &mut tensor.shape
                && let Some(dim) = random.pick(&mut shape.dim)
            {
                let extent = EXTENTS[random.below(EXTENTS.len())];
                dim.value = Some(dimension::Value::DimValue(extent));
            }
        }
    }
}

fn runs(module: &Module) -> bool {
    let values = module.functions.values().flat_map(|f| f.values.values());
    let mut sizes = values.map(|v| v.ty.max_bytes());
    let total = sizes.try_fold(0u64, |total, size| total.checked_add(size?));
    total.is_some_and(|total| total <= MAX_RUN_BYTES)
}

fn evaluate(module: &Module) -> Option<()> {
    let main = module.main()?;
    let func = &module.functions[main];
    let zeros = func.inputs().iter().map(|value| {
        let ty = func.ty(*value);
        let shape = ty.shape.as_const()?;
        Some(Tensor::splat(ty.dtype, &shape, Scalar::Int(0)))
    });
    let inputs = zeros.collect::<Option<Vec<_>>>()?;
    let mut states = eval::initial_states(module).ok()?;
    let options = eval::Options {
        max_bytes: Some(64 << 20),
        ..eval::Options::default()
    };
    let error = eval::run(module, main, &inputs, &mut states, options).err();
    assert!(error.is_none_or(|e| e.kind != Kind::Bug));
    Some(())
}

/// Whether the model could be imported. What is imported is sound.
fn survives(bytes: Vec<u8>) -> bool {
    let bytes = bytes::Bytes::from(bytes);
    let import = |options: &ImportOptions| import_bytes("m", bytes.clone(), options);
    let result = import(&ImportOptions::default()).or_else(|errors| {
        assert!(errors.0.iter().all(|e| e.kind != Kind::Bug), "{errors}");
        // The digits model leaves its batch open.
        let mut options = ImportOptions::default();
        options.dims.insert("N".into(), DimBinding::Exact(2));
        import(&options)
    });
    let imported = match result {
        Ok(imported) => imported,
        Err(errors) => {
            assert!(errors.0.iter().all(|e| e.kind != Kind::Bug), "{errors}");
            return false;
        }
    };
    let module = imported.module;
    module.verify().unwrap_or_else(|e| panic!("{e}\n{module}"));
    if runs(&module) {
        let passes: Vec<&Pass<Module>> = pipeline::GRAPH.iter().map(|step| step.pass).collect();
        let compiled = Run::new(RunOptions::default()).graph(passes, module.clone());
        let compiled = compiled.unwrap_or_else(|e| panic!("{e}\n{module}"));
        evaluate(&module);
        evaluate(&compiled);
    }
    true
}

#[test]
fn damaged_models_end_in_a_result_or_an_error() {
    let mut random = Random(1);
    let (mut imported, mut refused) = (0, 0);
    for model in seeds() {
        let first = model
            .graph
            .as_ref()
            .and_then(|g| g.node.first())
            .map(|n| n.op_type.clone());
        assert!(
            survives(model.encode_to_vec()),
            "the model that starts with {first:?}"
        );
        for _ in 0..60 {
            let mut damaged = model.clone();
            for _ in 0..=random.below(2) {
                damage(&mut damaged, &mut random);
            }
            *(if survives(damaged.encode_to_vec()) {
                &mut imported
            } else {
                &mut refused
            }) += 1;
        }
    }
    assert!(imported > 100 && refused > 100, "{imported} and {refused}");
}

#[test]
fn damaged_bytes_end_in_a_result_or_an_error() {
    let mut random = Random(2);
    for model in seeds() {
        let bytes = model.encode_to_vec();
        for _ in 0..60 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(3) {
                let position = random.below(damaged.len());
                damaged[position] ^= 1 << random.below(8);
            }
            if random.below(8) == 0 {
                damaged.truncate(random.below(bytes.len()));
            }
            survives(damaged);
        }
    }
}

#[test]
fn empty_tensors_have_no_huge_extents() {
    // No element, but positions in it would not fit.
    let unaddressable = model("Relu", &[0, 1 << 62], &[], vec![]);
    let error = import_bytes(
        "m",
        unaddressable.encode_to_vec(),
        &ImportOptions::default(),
    );
    assert_eq!(error.expect_err("it is too large").0[0].kind, Kind::Limit);
    // The positions of no element are none, however large the extents beside the empty one.
    let empty = model("Trilu", &[1 << 40, 0, 5], &[(&[], &[1])], vec![]);
    assert!(survives(empty.encode_to_vec()));
}
