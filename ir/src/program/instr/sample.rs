//! Operand types for the samples of instructions.

use super::check::Kind;
use crate::program::{Packing, ViewType, dense_strides};
use crate::types::DType;

/// A dense view without packing.
pub(super) fn dense(dtype: DType, shape: &[u64]) -> ViewType {
    packed(dtype, shape, Packing::Strided)
}

/// A dense view.
pub(super) fn packed(dtype: DType, shape: &[u64], packing: Packing) -> ViewType {
    ViewType {
        dtype,
        shape: shape.to_vec(),
        strides: dense_strides(dtype, shape, packing).unwrap_or_default(),
        packing,
    }
}

/// A matrix that lies column by column.
pub(super) fn columns(dtype: DType, rows: u64, columns: u64) -> ViewType {
    let mut view = dense(dtype, &[columns, rows]);
    view.shape.reverse();
    view.strides.reverse();
    view
}

/// All element types of these kinds.
pub(super) fn dtypes(kinds: &[Kind]) -> impl Iterator<Item = DType> {
    let all = DType::ALL.iter().map(|(dtype, _)| *dtype);
    all.filter(|dtype| kinds.iter().any(|kind| kind.has(*dtype)))
}
