//! Tests over the samples of all ops.

mod blocks;
mod common;
mod hostile;
mod ops;
mod text;
