//! Files in and out: model files with their external weights, and tensors as `.pb`, `.npy`,
//! `.npz` and `.safetensors`.
//!
//! - Input files are memory-mapped, and what they hold is handed on as slices of the map: a weight
//!   is read from disk when somebody looks at its values, not before.
//! - Output files appear whole or not at all ([`atomic`]).
//! - Every failure is an [`IoError`] with a code from `D0500` to `D0549` ([`CODES`]). Malformed
//!   files give errors, never panics, and memory stays within a small multiple of the file's size
//!   (for compressed archives, of what the compression method can expand to).
//!
//! Nothing here knows the compiler's IR: tensors are [`RawTensor`]s.

pub mod atomic;
mod error;
pub mod npy;
pub mod npz;
pub mod onnx_tensor;
mod raw;
pub mod safetensors;
pub mod source;

pub use error::{CODES, IoError, code};
pub use raw::{RawDType, RawTensor, RawTensorSource, TensorData, element_count};
pub use source::{ModelFiles, SourceFile, offset_in};
