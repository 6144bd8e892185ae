//! Model files in, graph out.

pub mod onnx;
