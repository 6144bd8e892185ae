//! Tests over the samples of all ops.

mod common;
mod ops;
mod text;
