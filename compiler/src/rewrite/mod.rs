//! Rewrite rules: with the importers, the only code that knows ops by name.

pub(crate) mod batch_norm;
pub(crate) mod identities;

use dojoc_ir::ops::{Full, Op};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::types::Type;

/// The op that gives a tensor of a type whose elements are all `value`.
pub(crate) fn full(ty: &Type, value: Scalar) -> Op {
    let full = Full {
        dtype: ty.dtype,
        shape: ty.dims().to_vec(),
        value: value.into(),
    };
    full.into()
}
