//! Attention heads: helpers of the operators that have them, and rotary embeddings.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Dot, Gather, Slice};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};

pub(super) const OPS: &[OpEntry] = &[onnx("RotaryEmbedding", &[(23, rotary_embedding)])];

/// How many heads of queries share one of keys and values.
pub(super) struct Group {
    heads: Dim,
    kv_heads: Dim,
    size: u64,
}

impl Group {
    /// The first must be a multiple of the second.
    pub(super) fn of(heads: &Dim, kv_heads: &Dim) -> NodeResult<Self> {
        let (heads, kv_heads) = (heads.clone(), kv_heads.clone());
        let size = match (heads.as_const(), kv_heads.as_const()) {
            _ if heads == kv_heads => 1,
            (Some(h), Some(k)) if h.checked_rem(k) == Some(0) => h / k,
            _ => {
                let message = format!("{heads} heads of queries share {kv_heads} of keys");
                return Err(NodeError::invalid(message));
            }
        };
        Ok(Self {
            heads,
            kv_heads,
            size,
        })
    }

    /// `[B, H, ..]` as `[B, K, H / K, ..]`, or as it is if heads are not shared.
    pub(super) fn split(&self, cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
        if self.size == 1 {
            return Ok(x);
        }
        let mut dims = cx.dims(x);
        dims[1] = self.kv_heads.clone();
        dims.insert(2, Dim::Const(self.size));
        cx.reshape(x, dims)
    }

    /// The inverse of [`split`](Self::split).
    pub(super) fn join(&self, cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
        if self.size == 1 {
            return Ok(x);
        }
        let mut dims = cx.dims(x);
        dims.remove(2);
        dims[1] = self.heads.clone();
        cx.reshape(x, dims)
    }

    /// Contracts the last dim of `x [B, H, S, X]` with a dim of `y [B, K, ..]`: `[B, H, S, ..]`.
    pub(super) fn contract(
        &self,
        cx: &mut NodeCx<'_, '_>,
        x: ValueId,
        y: ValueId,
        axis: usize,
    ) -> NodeResult<ValueId> {
        let x = self.split(cx, x)?;
        let dot = Dot {
            batch: vec![(0, 0), (1, 1)],
            contract: vec![(cx.rank(x) - 1, axis)],
            out: None,
        };
        let result = cx.op(dot, &[x, y])?;
        self.join(cx, result)
    }
}

/// `[B, S, heads * size]` as `[B, S, heads, size]`.
pub(super) fn unpack_heads(cx: &mut NodeCx<'_, '_>, x: ValueId, heads: u64) -> NodeResult<ValueId> {
    let mut dims = cx.dims(x);
    let last = dims.pop().ok_or_else(bad_extent)?;
    if last
        .as_const()
        .is_some_and(|n| n.checked_rem(heads) != Some(0))
    {
        let message = format!("{last} elements do not divide among {heads} heads");
        return Err(NodeError::invalid(message));
    }
    let heads = Dim::Const(heads);
    let size = last.floor_div(&heads).ok_or_else(bad_extent)?;
    dims.extend([heads, size]);
    cx.reshape(x, dims)
}

/// `[B, S, heads * size]` as `[B, heads, S, size]`.
pub(super) fn split_heads(cx: &mut NodeCx<'_, '_>, x: ValueId, heads: u64) -> NodeResult<ValueId> {
    let x = unpack_heads(cx, x, heads)?;
    cx.swap_dims(x, 1, 2)
}

/// The inverse of [`split_heads`].
pub(super) fn merge_heads(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
    let x = cx.swap_dims(x, 1, 2)?;
    let dims = cx.dims(x);
    let [batch, length, heads, size] = dims.as_slice() else {
        return Err(NodeError::invalid("expected four dims"));
    };
    let width = heads.mul(size).ok_or_else(bad_extent)?;
    cx.reshape(x, vec![batch.clone(), length.clone(), width])
}

/// An extent as a scalar `i64`.
pub(super) fn extent_value(cx: &mut NodeCx<'_, '_>, dim: &Dim) -> NodeResult<ValueId> {
    match dim.as_const() {
        Some(extent) => cx.scalar(DType::I64, extent as f64),
        None => cx.imp.count_ones(dim.clone(), DType::I64, true),
    }
}

/// Turns pairs of elements by the angles whose cosines and sines are given.
fn rotary_embedding(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 4)?;
    let interleaved = cx.flag("interleaved", false)?;
    let rotated = cx.int("rotary_embedding_dim", 0)?;
    let heads = cx.int("num_heads", 0)?;
    let x = cx.input(0)?;
    let given = cx.dims(x);
    // Tokens are dim 1 of packed heads, and dim 2 behind heads that have a dim.
    let (x, head_axis) = match (given.len(), u64::try_from(heads)) {
        (3, Ok(heads)) if heads > 0 => (unpack_heads(cx, x, heads)?, 2),
        (3, _) => return Err(NodeError::invalid("`num_heads` is missing")),
        (4, _) => (x, 1),
        (rank, _) => return Err(NodeError::invalid(format!("the operand has {rank} dims"))),
    };
    let dims = cx.dims(x);
    let Some(size) = dims[3].as_const() else {
        return Err(NodeError::unsupported("a symbolic head size"));
    };
    let rotated = match u64::try_from(rotated) {
        Ok(0) => size,
        Ok(rotated) if rotated <= size => rotated,
        _ => {
            let message = format!("`rotary_embedding_dim` is {rotated} for heads of {size}");
            return Err(NodeError::invalid(message));
        }
    };
    if rotated % 2 != 0 {
        return Err(NodeError::invalid(format!(
            "{rotated} elements are rotated in pairs"
        )));
    }
    let half = rotated / 2;
    let mut tables = [cx.input(1)?, cx.input(2)?];
    let places = cx.optional(3)?;
    for table in &mut tables {
        if let Some(places) = places {
            *table = cx.op(Gather { axis: 0 }, &[*table, places])?;
        }
        if cx.rank(*table) != 3 || !cx.dims(*table)[2].is(half) {
            let message = format!("a table of {} does not fit {half} pairs", cx.ty(*table));
            return Err(NodeError::invalid(message));
        }
        *table = cx.unsqueeze(*table, &[head_axis])?;
    }
    let [cos, sin] = tables;
    let turned = cx.slice(x, 3, 0, rotated)?;
    let (a, b) = if interleaved {
        (
            every_other(cx, turned, 0, half)?,
            every_other(cx, turned, 1, half)?,
        )
    } else {
        (
            cx.slice(turned, 3, 0, half)?,
            cx.slice(turned, 3, half, half)?,
        )
    };
    let mut product = |x, y| cx.binary(BinaryFn::Mul, x, y);
    let products = [
        product(cos, a)?,
        product(sin, b)?,
        product(sin, a)?,
        product(cos, b)?,
    ];
    let real = cx.binary(BinaryFn::Sub, products[0], products[1])?;
    let imaginary = cx.binary(BinaryFn::Add, products[2], products[3])?;
    let mut y = if interleaved {
        let pair = [cx.unsqueeze(real, &[4])?, cx.unsqueeze(imaginary, &[4])?];
        let pairs = cx.concat(&pair, 4)?;
        let mut dims = dims.clone();
        dims[3] = Dim::Const(rotated);
        cx.reshape(pairs, dims)?
    } else {
        cx.concat(&[real, imaginary], 3)?
    };
    if rotated < size {
        let rest = cx.slice(x, 3, rotated, size - rotated)?;
        y = cx.concat(&[y, rest], 3)?;
    }
    let y = cx.reshape(y, given)?;
    cx.output(0, y);
    Ok(())
}

/// `count` elements of the last of four dims, beginning with `start`, each second one.
fn every_other(cx: &mut NodeCx<'_, '_>, x: ValueId, start: u64, count: u64) -> NodeResult<ValueId> {
    let mut slice = Slice::along(&cx.ty(x), 3, Dim::Const(start), Dim::Const(count));
    slice.step[3] = 2;
    cx.op(slice, &[x])
}
