//! The ONNX importer.

pub mod wire;
