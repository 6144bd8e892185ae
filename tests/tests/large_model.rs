//! A model with 2 GB of weights is imported without reading them.

use std::fs::{self, File};

use bytes::Bytes;
use dojoc_compiler::import::onnx::wire::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use dojoc_compiler::import::onnx::{ImportOptions, import_file};
use dojoc_ir::graph::WeightSource;
use prost::Message as _;

const LAYERS: u64 = 32;
const WIDTH: u64 = 4096;

fn entry(key: &str, value: impl ToString) -> StringStringEntryProto {
    StringStringEntryProto {
        key: key.into(),
        value: value.to_string(),
    }
}

fn float_input(name: &str, dims: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension};
    let dim = dims.iter().map(|d| Dimension {
        value: Some(dimension::Value::DimValue(*d)),
        ..Dimension::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: 1,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    let ty = TypeProto {
        value: Some(type_proto::Value::TensorType(tensor)),
        ..TypeProto::default()
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(ty),
        ..ValueInfoProto::default()
    }
}

/// A chain of matrix products with external weights of 64 MiB each.
fn model() -> ModelProto {
    let bytes = WIDTH * WIDTH * 4;
    let weight = |n: u64| TensorProto {
        name: format!("w{n}"),
        dims: vec![WIDTH as i64, WIDTH as i64],
        data_type: 1,
        data_location: 1,
        external_data: vec![
            entry("location", "weights.bin"),
            entry("offset", n * bytes),
            entry("length", bytes),
        ],
        ..TensorProto::default()
    };
    let node = |n: u64| NodeProto {
        op_type: "MatMul".into(),
        name: format!("layer {n}"),
        input: vec![format!("x{n}"), format!("w{n}")],
        output: vec![format!("x{}", n + 1)],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: "large".into(),
        node: (0..LAYERS).map(node).collect(),
        initializer: (0..LAYERS).map(weight).collect(),
        input: vec![float_input("x0", &[1, WIDTH as i64])],
        output: vec![float_input(&format!("x{LAYERS}"), &[1, WIDTH as i64])],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// Resident bytes of the mappings of a file, and of anonymous memory, as Linux counts them.
fn resident(file: &str) -> (u64, u64) {
    let maps = fs::read_to_string("/proc/self/smaps").expect("Linux");
    let (mut of_file, mut anonymous, mut mapped, mut inside) = (0, 0, false, false);
    for line in maps.lines() {
        let kilobytes = |line: &str| -> u64 {
            line.split_whitespace()
                .nth(1)
                .and_then(|n| n.parse().ok())
                .unwrap_or(0)
        };
        if line
            .split_whitespace()
            .next()
            .is_some_and(|w| w.contains('-'))
        {
            inside = line.ends_with(file);
            mapped |= inside;
        } else if line.starts_with("Rss:") && inside {
            of_file += kilobytes(line) << 10;
        } else if line.starts_with("Anonymous:") {
            anonymous += kilobytes(line) << 10;
        }
    }
    assert!(mapped, "{file} is not mapped");
    (of_file, anonymous)
}

#[test]
fn importing_touches_no_weight() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let weights = File::create(dir.path().join("weights.bin")).expect("a file");
    weights
        .set_len(LAYERS * WIDTH * WIDTH * 4)
        .expect("a sparse file");
    let path = dir.path().join("model.onnx");
    fs::write(&path, Bytes::from(model().encode_to_vec())).expect("the model is written");

    let imported = import_file(&path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let module = imported.module;
    assert_eq!(module.weights.len() as u64, LAYERS);
    for weight in module.weights.values() {
        assert!(
            matches!(weight.source, WeightSource::External { .. }),
            "{}",
            weight.name
        );
        assert!(weight.data.is_some(), "{}", weight.name);
    }
    let text = module.to_string();
    assert!(text.len() < 64 << 10, "the text has {} bytes", text.len());
    if cfg!(target_os = "linux") {
        let (of_file, anonymous) = resident("weights.bin");
        assert_eq!(of_file, 0, "bytes of weights in memory");
        assert!(
            anonymous < 200 << 20,
            "{anonymous} bytes of anonymous memory"
        );
    }
}
