//! Field numbers, zero-copy decoding, hostile input, the corpus.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::io::{SourceFile, offset_in};

/// A model in which every declared field occurs, written by the onnx 1.23 Python package. Each
/// string is the path of its field, such as `graph.node.op_type`; each number is the sum of that
/// path's bytes. Fields of a message that has occurred before are left out, and enumerations are 1.
const EVERY_FIELD: &[u8] = include_bytes!("every_field.onnx");
const LEAVES: usize = 177;

#[test]
fn every_field_has_its_number() {
    let model = ModelProto::decode(EVERY_FIELD).unwrap();
    let (mut path, mut leaves) = (Vec::<String>::new(), 0);
    for line in format!("{model:#?}").lines() {
        let line = line.trim().trim_end_matches(',');
        let (field, value) = match line.split_once(": ") {
            Some((field, value)) if !line.starts_with('"') => {
                (field.trim_start_matches("r#").to_owned(), value)
            }
            _ => (String::new(), line),
        };
        if let Some(open) = value.strip_suffix(['{', '[', '(']) {
            // A choice, `value: Some(TensorType(`, has the name of the case.
            let case = matches!(
                open,
                "TensorType" | "SequenceType" | "MapType" | "OpaqueType"
            ) || matches!(
                open,
                "SparseTensorType" | "OptionalType" | "DimValue" | "DimParam"
            );
            let choice = field == "value" && open == "Some";
            path.push(match (case, choice) {
                (true, _) => snake(open),
                (_, true) => String::new(),
                _ => field,
            });
            continue;
        }
        if let "}" | "]" | ")" = value {
            path.pop();
            continue;
        }
        let absent = ["\"\"", "b\"\"", "0", "None", "[]", "Undefined", "Default"];
        if absent.contains(&value) {
            continue;
        }
        leaves += 1;
        path.push(field);
        let here: Vec<_> = path
            .iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect();
        path.pop();
        let here = here.join(".");
        let sum: u32 = here.bytes().map(u32::from).sum();
        if here.ends_with("type") && matches!(value, "Float") || value == "External" {
            continue;
        }
        let text = value.trim_start_matches('b').trim_matches('"');
        let packed = here.ends_with("float_data") || here.ends_with("double_data");
        let matches = match packed {
            true => text == packed_debug(&here, sum),
            false => text == here || value.parse() == Ok(f64::from(sum)),
        };
        assert!(matches, "{here} has the value {value}");
    }
    assert_eq!(leaves, LEAVES);
    let same = ModelProto::decode(Bytes::from(model.encode_to_vec())).unwrap();
    assert_eq!(same, model);
}

fn snake(camel: &str) -> String {
    let mut snake = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// How a single packed number is shown by `Bytes`' debug output.
fn packed_debug(path: &str, value: u32) -> String {
    let bytes = match path.ends_with("float_data") {
        true => Bytes::copy_from_slice(&(value as f32).to_le_bytes()),
        false => Bytes::copy_from_slice(&f64::from(value).to_le_bytes()),
    };
    format!("{bytes:?}")
        .trim_start_matches('b')
        .trim_matches('"')
        .to_owned()
}

fn floats(values: &[f32]) -> Bytes {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect::<Vec<_>>()
        .into()
}

/// A graph of one node with one weight in each of the fields that are not copied.
fn small_model() -> ModelProto {
    let values = floats(&[1.5, -2.0, 3.25]);
    let weight = |name: &str| TensorProto {
        name: name.to_owned(),
        dims: vec![3],
        data_type: DataType::Float as i32,
        ..Default::default()
    };
    let body = GraphProto {
        name: "body".to_owned(),
        ..Default::default()
    };
    let node = NodeProto {
        input: vec!["x".to_owned(), "raw".to_owned()],
        output: vec!["y".to_owned()],
        name: "add".to_owned(),
        op_type: "Add".to_owned(),
        attribute: vec![AttributeProto {
            name: "then".to_owned(),
            r#type: AttributeType::Graph as i32,
            g: Some(Box::new(body)),
            ints: vec![1, -1],
            ..Default::default()
        }],
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![node],
        initializer: vec![
            TensorProto {
                raw_data: values.clone(),
                ..weight("raw")
            },
            TensorProto {
                float_data: vec![values.clone()],
                ..weight("float")
            },
            TensorProto {
                double_data: vec![values],
                ..weight("double")
            },
        ],
        ..Default::default()
    };
    ModelProto {
        ir_version: 14,
        graph: Some(graph),
        ..Default::default()
    }
}

#[test]
fn weights_are_slices_of_the_mapped_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, small_model().encode_to_vec()).unwrap();
    let file = SourceFile::open(&path).unwrap();
    let model = ModelProto::decode(file.bytes.clone()).unwrap();
    let [raw, float, double] = &model.graph.as_ref().unwrap().initializer[..] else {
        panic!("three weights")
    };
    for part in [&raw.raw_data, &float.float_data[0], &double.double_data[0]] {
        let offset = offset_in(&file.bytes, part).expect("a slice of the file") as usize;
        assert_eq!(
            file.bytes[offset..offset + 12],
            floats(&[1.5, -2.0, 3.25])[..]
        );
    }
    assert_eq!(
        offset_in(&file.bytes, &Bytes::copy_from_slice(&raw.raw_data)),
        None
    );
    // The map lives as long as what was cut from it.
    let kept = raw.raw_data.clone();
    drop((model, file));
    assert_eq!(kept, floats(&[1.5, -2.0, 3.25]));
}

#[test]
fn unpacked_floats_are_an_error_and_unpacked_integers_are_not() {
    // Field 4 with wire type 5 (four bytes): one unpacked float.
    let error = TensorProto::decode(&[0x25, 0, 0, 0x80, 0x3f][..]).unwrap_err();
    assert!(error.to_string().contains("float_data"), "{error}");
    // Field 7: 5 unpacked, then 6 and 7 packed.
    let tensor = TensorProto::decode(&[0x38, 5, 0x3a, 2, 6, 7][..]).unwrap();
    assert_eq!(tensor.int64_data, [5, 6, 7]);
}

#[test]
fn nesting_is_bounded() {
    let mut tp = TypeProto::default();
    for _ in 0..200 {
        let elem_type = Some(Box::new(tp));
        let value = Some(type_proto::Value::SequenceType(type_proto::Sequence {
            elem_type,
        }));
        tp = TypeProto {
            value,
            denotation: String::new(),
        };
    }
    let error = TypeProto::decode(Bytes::from(tp.encode_to_vec())).unwrap_err();
    assert!(error.to_string().contains("recursion"), "{error}");
}

#[test]
fn damaged_models_never_panic() {
    let good = small_model().encode_to_vec();
    let mut refused = 0;
    for len in 0..good.len() {
        let cut = Bytes::copy_from_slice(&good[..len]);
        refused += usize::from(ModelProto::decode(cut).is_err());
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..1 + random % 3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bit = random as usize % (bad.len() * 8);
            bad[bit / 8] ^= 1 << (bit % 8);
        }
        refused += usize::from(ModelProto::decode(Bytes::from(bad)).is_err());
    }
    assert!(refused > good.len());
}

/// Files of the corpus with this extension; none, and a message, where it is not installed.
#[expect(clippy::print_stderr, reason = "a test says that it had nothing to do")]
pub(crate) fn corpus(extension: &str) -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = workspace
        .ancestors()
        .map(|at| at.join("shared/corpus"))
        .find(|at| at.is_dir());
    if folder.is_none() {
        eprintln!("skipped: there is no folder shared/corpus beside or above the workspace");
    }
    let (mut folders, mut files) = (Vec::from_iter(folder), Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_corpus_model_decodes() {
    for path in corpus("onnx") {
        let file = SourceFile::open(&path).unwrap();
        let model = ModelProto::decode(file.bytes.clone())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let graph = model.graph.expect("a graph");
        assert!(
            model.ir_version > 0 && !model.opset_import.is_empty(),
            "{}",
            path.display()
        );
        assert!(!graph.output.is_empty(), "{}", path.display());
        for raw in graph.initializer.iter().map(|tensor| &tensor.raw_data) {
            assert!(raw.is_empty() || offset_in(&file.bytes, raw).is_some());
        }
    }
}
