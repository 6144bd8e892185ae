//! Attention.

use dojoc_ir::attr::F64;
use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Attention, ReduceKind, Softmax};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Type};

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::super::value::onnx_dtype;
use super::heads::{Group, extent_value, merge_heads, split_heads};

pub(super) const OPS: &[OpEntry] = &[onnx("Attention", &[(23, attention)])];

/// What the optional fourth result is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scores {
    /// Scaled products of queries and keys.
    Raw,
    /// With the cap.
    Capped,
    /// With the mask, too.
    Masked,
    /// What the softmax makes of them.
    Softmax,
}

/// The attributes.
struct Form {
    /// Factor of the products.
    scale: Option<f64>,
    /// Bound of the scores; 0 for none.
    softcap: f64,
    /// Whether a query sees no later keys.
    causal: bool,
    /// How many keys before its own position a query sees.
    left: Option<i64>,
    /// How many keys after its own position a query sees.
    right: Option<i64>,
    /// Element type of the softmax.
    precision: Option<DType>,
    scores: Scores,
    /// Heads of queries, and of keys and values, of operands that have no dim for them.
    heads: Option<(u64, u64)>,
}

fn window(cx: &mut NodeCx<'_, '_>, name: &str) -> NodeResult<Option<i64>> {
    match cx.int(name, -1)? {
        -1 => Ok(None),
        // No position is near the limit, so that sums of positions and sizes do not overflow.
        size if size >= 0 => Ok(Some(size.min(i64::MAX / 4))),
        size => Err(NodeError::invalid(format!("`{name}` is {size}"))),
    }
}

fn head_count(cx: &mut NodeCx<'_, '_>, name: &str) -> NodeResult<Option<u64>> {
    match cx.int_opt(name)?.map(u64::try_from) {
        None => Ok(None),
        Some(Ok(count)) if count > 0 => Ok(Some(count)),
        Some(_) => Err(NodeError::invalid(format!("`{name}` is not positive"))),
    }
}

/// The element type that is asked for the softmax.
pub(super) fn softmax_precision(cx: &mut NodeCx<'_, '_>) -> NodeResult<Option<DType>> {
    let Some(number) = cx.int_opt("softmax_precision")? else {
        return Ok(None);
    };
    let dtype = onnx_dtype(i32::try_from(number).unwrap_or(-1))?;
    if !dtype.is_float() {
        return Err(NodeError::invalid(format!(
            "`softmax_precision` is {dtype}"
        )));
    }
    Ok(Some(dtype))
}

/// The factor of the scores of queries `q [.., size]` where the node gives none.
pub(super) fn default_scale(q: &Type) -> NodeResult<f64> {
    match q.dims().last().and_then(Dim::as_const) {
        Some(size) if size > 0 => Ok(1.0 / (size as f64).sqrt()),
        _ => Err(
            NodeError::unsupported("a symbolic head size without `scale`")
                .help("give the attribute `scale`"),
        ),
    }
}

impl Form {
    fn read(cx: &mut NodeCx<'_, '_>) -> NodeResult<Self> {
        let scores = match cx.int("qk_matmul_output_mode", 0)? {
            0 => Scores::Raw,
            1 => Scores::Capped,
            2 => Scores::Masked,
            3 => Scores::Softmax,
            mode => {
                let message = format!("`qk_matmul_output_mode` is {mode}");
                return Err(NodeError::invalid(message));
            }
        };
        let precision = softmax_precision(cx)?;
        let heads = (
            head_count(cx, "q_num_heads")?,
            head_count(cx, "kv_num_heads")?,
        );
        Ok(Self {
            scale: cx.float_opt("scale")?,
            softcap: cx.float("softcap", 0.0)?,
            causal: cx.flag("is_causal", false)?,
            left: window(cx, "left_window_size")?,
            right: window(cx, "right_window_size")?,
            precision,
            scores,
            heads: heads.0.zip(heads.1),
        })
    }
}

/// Queries, keys and values, each `[batch, heads, length, size]`.
struct Operands {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    /// Position of the first query among the keys, where it is the same for the whole batch.
    start: Dim,
    /// Number of keys per batch element, `i64 [B]`.
    lengths: Option<ValueId>,
}

/// What a query sees of the keys: where not, its scores become -inf.
struct Mask {
    /// Additive, broadcasts to `[B, H, S, T]`.
    bias: Option<ValueId>,
    /// Whether "no key behind the own position" is left to the op.
    causal: bool,
}

fn attention(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 7)?;
    let form = Form::read(cx)?;
    let packed = cx.required_type(0)?.rank() == 3;
    let x = operands(cx, &form, packed)?;
    let (q, k) = (cx.ty(x.q), cx.ty(x.k));
    let group = Group::of(&q.shape[1], &k.shape[1])?;
    let scale = match form.scale {
        Some(scale) => scale,
        None => default_scale(&q)?,
    };
    let precision = form.precision.unwrap_or(q.dtype);
    // The op computes 16-bit floats in 32 bits, which no precision that may be asked for exceeds.
    let natural = match q.dtype {
        DType::F64 | DType::F32 => precision == q.dtype,
        _ => precision != DType::F64,
    };
    let whole = natural && !cx.wanted(3) && form.softcap >= 0.0;
    let mask = mask(cx, &form, &x, whole)?;
    let y = if whole {
        let op = Attention {
            scale: F64(scale),
            causal: mask.causal,
            softcap: F64(form.softcap),
        };
        let mut args = vec![x.q, x.k, x.v];
        args.extend(mask.bias);
        cx.op(op, &args)?
    } else {
        spelled_out(cx, &form, &x, &group, scale, mask.bias)?
    };
    let y = if packed { merge_heads(cx, y)? } else { y };
    cx.output(0, y);
    cx.output(1, x.k);
    cx.output(2, x.v);
    Ok(())
}

fn operands(cx: &mut NodeCx<'_, '_>, form: &Form, packed: bool) -> NodeResult<Operands> {
    let mut qkv = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let rank = if packed { 3 } else { 4 };
    if qkv.iter().any(|x| cx.rank(*x) != rank) {
        return Err(NodeError::invalid(
            "the ranks of the operands are not all 3 or all 4",
        ));
    }
    if packed {
        let Some((heads, kv_heads)) = form.heads else {
            let message = "`q_num_heads` and `kv_num_heads` are missing";
            return Err(NodeError::invalid(message));
        };
        for (x, heads) in qkv.iter_mut().zip([heads, kv_heads, kv_heads]) {
            *x = split_heads(cx, *x, heads)?;
        }
    }
    let [q, mut k, mut v] = qkv;
    let mut start = Dim::Const(0);
    match (cx.optional(4)?, cx.optional(5)?) {
        (Some(past_k), Some(past_v)) => {
            if cx.rank(past_k) != 4 || cx.rank(past_v) != 4 {
                return Err(NodeError::invalid(
                    "past keys and values have not four dims",
                ));
            }
            start = cx.dims(past_k)[2].clone();
            k = cx.concat(&[past_k, k], 2)?;
            v = cx.concat(&[past_v, v], 2)?;
        }
        (None, None) => {}
        _ => {
            return Err(NodeError::invalid(
                "past keys and values are not given together",
            ));
        }
    }
    let lengths = match cx.optional(6)? {
        None => None,
        Some(_) if cx.has(4) => {
            let message = "`nonpad_kv_seqlen` and past keys are both given";
            return Err(NodeError::invalid(message));
        }
        Some(lengths) => Some(cx.convert(lengths, DType::I64)?),
    };
    Ok(Operands {
        q,
        k,
        v,
        start,
        lengths,
    })
}

fn and(cx: &mut NodeCx<'_, '_>, a: Option<ValueId>, b: ValueId) -> NodeResult<Option<ValueId>> {
    Ok(Some(match a {
        Some(a) => cx.binary(BinaryFn::And, a, b)?,
        None => b,
    }))
}

fn mask(cx: &mut NodeCx<'_, '_>, form: &Form, x: &Operands, whole: bool) -> NodeResult<Mask> {
    let (q, k) = (cx.ty(x.q), cx.ty(x.k));
    let (rows, keys) = (q.shape[2].clone(), k.shape[2].clone());
    // The op aligns the last query with the last key.
    let aligned = x.lengths.is_none() && x.start.add(&rows).is_some_and(|end| end == keys);
    let causal = form.causal && whole && aligned;
    let mut visible = positions(cx, form, x, form.causal && !causal)?;
    let mut bias = None;
    if let Some(given) = cx.optional(3)? {
        let given = pad_mask(cx, given, &keys)?;
        if cx.dtype(given) == DType::Bool {
            visible = and(cx, visible, given)?;
        } else {
            bias = Some(cx.convert(given, q.dtype)?);
        }
    }
    if let Some(visible) = visible {
        let shown = match bias {
            Some(bias) => bias,
            None => cx.scalar(q.dtype, 0.0)?,
        };
        let hidden = cx.scalar(q.dtype, f64::NEG_INFINITY)?;
        bias = Some(cx.select(visible, shown, hidden)?);
    }
    Ok(Mask { bias, causal })
}

/// Which keys a query sees by their positions: a table that broadcasts to `[B, 1, S, T]`.
fn positions(
    cx: &mut NodeCx<'_, '_>,
    form: &Form,
    x: &Operands,
    causal: bool,
) -> NodeResult<Option<ValueId>> {
    let (q, k) = (cx.ty(x.q), cx.ty(x.k));
    let (rows, keys) = (q.shape[2].clone(), k.shape[2].clone());
    let key = cx.iota(DType::I64, vec![Dim::Const(1), keys], 1)?;
    let lengths = match x.lengths {
        Some(lengths) => Some(cx.unsqueeze(lengths, &[1, 2, 3])?),
        None => None,
    };
    let mut visible = None;
    if causal || form.left.is_some() || form.right.is_some() {
        let query = cx.iota(DType::I64, vec![rows.clone(), Dim::Const(1)], 0)?;
        let start = match lengths {
            Some(lengths) => {
                let rows = extent_value(cx, &rows)?;
                cx.binary(BinaryFn::Sub, lengths, rows)?
            }
            None => extent_value(cx, &x.start)?,
        };
        let query = cx.binary(BinaryFn::Add, query, start)?;
        let bounds = [
            (causal, BinaryFn::Le, 0),
            (form.left.is_some(), BinaryFn::Ge, -form.left.unwrap_or(0)),
            (form.right.is_some(), BinaryFn::Le, form.right.unwrap_or(0)),
        ];
        for (bounded, compare, distance) in bounds {
            if bounded {
                let distance = cx.constant(Tensor::from_vec(&[], vec![distance]));
                let last = cx.binary(BinaryFn::Add, query, distance)?;
                let inside = cx.binary(compare, key, last)?;
                visible = and(cx, visible, inside)?;
            }
        }
    }
    if let Some(lengths) = lengths {
        let inside = cx.binary(BinaryFn::Lt, key, lengths)?;
        visible = and(cx, visible, inside)?;
    }
    Ok(visible)
}

/// A mask that is shorter than the keys hides those that it does not reach.
fn pad_mask(cx: &mut NodeCx<'_, '_>, mask: ValueId, keys: &Dim) -> NodeResult<ValueId> {
    let mut dims = cx.dims(mask);
    let Some(last) = dims.last_mut() else {
        return Ok(mask);
    };
    let missing = keys.sub(last).ok_or_else(bad_extent)?;
    if missing.is(0) {
        return Ok(mask);
    }
    *last = missing;
    let axis = dims.len() - 1;
    let hidden = match cx.dtype(mask) {
        DType::Bool => Scalar::Bool(false),
        dtype => Scalar::from_f64(f64::NEG_INFINITY, dtype),
    };
    let hidden = cx.full(cx.dtype(mask), dims, hidden)?;
    cx.concat(&[mask, hidden], axis)
}

/// The attention step by step, with the roundings of the specification.
fn spelled_out(
    cx: &mut NodeCx<'_, '_>,
    form: &Form,
    x: &Operands,
    group: &Group,
    scale: f64,
    bias: Option<ValueId>,
) -> NodeResult<ValueId> {
    let dtype = cx.dtype(x.q);
    let raw = products(cx, x.q, x.k, group, scale)?;
    let mut capped = raw;
    if form.softcap > 0.0 {
        capped = cx.with_scalar(BinaryFn::Div, capped, form.softcap)?;
        capped = cx.unary(UnaryFn::Tanh, capped)?;
        capped = cx.with_scalar(BinaryFn::Mul, capped, form.softcap)?;
    }
    let masked = match bias {
        Some(bias) => cx.binary(BinaryFn::Add, capped, bias)?,
        None => capped,
    };
    let scores = cx.convert(masked, form.precision.unwrap_or(dtype))?;
    let mut weights = cx.op(Softmax { axis: 3 }, &[scores])?;
    if let Some(bias) = bias {
        // A query that sees no key has the result 0, whatever its scores are.
        let largest = cx.reduce(ReduceKind::Max, bias, &[cx.rank(bias) - 1], true)?;
        let blind = cx.with_scalar(BinaryFn::Eq, largest, f64::NEG_INFINITY)?;
        let zero = cx.scalar(cx.dtype(weights), 0.0)?;
        weights = cx.select(blind, zero, weights)?;
    }
    let weights = cx.convert(weights, dtype)?;
    let shown = match form.scores {
        Scores::Raw => raw,
        Scores::Capped => capped,
        Scores::Masked => masked,
        Scores::Softmax => weights,
    };
    cx.output(3, shown);
    group.contract(cx, weights, x.v, 2)
}

/// The scaled products of queries and keys, `[B, H, S, T]`.
pub(super) fn products(
    cx: &mut NodeCx<'_, '_>,
    q: ValueId,
    k: ValueId,
    group: &Group,
    scale: f64,
) -> NodeResult<ValueId> {
    // Factors for both keep the products of 16-bit floats in range.
    let q = cx.with_scalar(BinaryFn::Mul, q, scale.sqrt())?;
    let k = cx.with_scalar(BinaryFn::Mul, k, scale.sqrt())?;
    group.contract(cx, q, k, 3)
}
