//! A folder of small files in which the command runs.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its folder has failed"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use dojoc_compiler::import::onnx::wire::tensor_shape_proto::{Dimension, dimension};
use dojoc_compiler::import::onnx::wire::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};
use prost::Message as _;

/// `y = x + w` with weight [10, 20]; rows of x are fixed at two.
pub const ADD: &str = r#"dojo graph 1

module @add {
  weight @w : f32[2] = dense([10.0, 20.0])

  func @main(%x : f32[2, 2]) -> (%y : f32[2, 2]) {
    %b = broadcast @w {shape = [2, 2]} : f32[2, 2]
    %y = add %x, %b : f32[2, 2]
    return %y
  }
}
"#;

/// What the command did.
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A folder.
pub struct Lab(tempfile::TempDir);

impl Lab {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The text of a file.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Runs the command in the folder.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    /// Runs the command in the folder with standard input.
    pub fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = command(self.0.path(), args).spawn().unwrap();
        // The command may not read all of it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The command, all its streams piped.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dojoc"));
    command
        .args(args)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Ran {
    /// Standard output of a run that must have succeeded without a word.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// Standard error of a run that must have failed without output.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        self.err
    }
}

fn value(name: &str, dims: &[&str]) -> ValueInfoProto {
    let dim = |dim: &&str| Dimension {
        value: Some(match dim.parse() {
            Ok(extent) => dimension::Value::DimValue(extent),
            Err(_) => dimension::Value::DimParam((*dim).to_owned()),
        }),
        ..Dimension::default()
    };
    let shape = TensorShapeProto {
        dim: dims.iter().map(dim).collect(),
    };
    let tensor = type_proto::Tensor {
        elem_type: 1,
        shape: Some(shape),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// An ONNX model `y = op(x)` of opset 18, for each of the ops a node and an output y0, y1...
pub fn onnx(ops: &[&str], dims: &[&str]) -> Vec<u8> {
    let node = |(index, op): (usize, &&str)| NodeProto {
        input: vec!["x".to_owned()],
        output: vec![format!("y{index}")],
        name: format!("node{index}"),
        op_type: (*op).to_owned(),
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: "small".to_owned(),
        node: ops.iter().enumerate().map(node).collect(),
        input: vec![value("x", dims)],
        output: (0..ops.len())
            .map(|i| value(&format!("y{i}"), dims))
            .collect(),
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 18,
            ..OperatorSetIdProto::default()
        }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

/// An ONNX tensor of floats.
pub fn tensor(name: &str, shape: &[i64], values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensor = TensorProto {
        dims: shape.to_vec(),
        data_type: 1,
        name: name.to_owned(),
        raw_data: Bytes::from(bytes),
        ..TensorProto::default()
    };
    tensor.encode_to_vec()
}
