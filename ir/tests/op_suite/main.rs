//! Tests over the samples of all ops.

mod common;
mod hostile;
mod ops;
mod text;
