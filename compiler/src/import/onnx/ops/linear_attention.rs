//! Linear attention and the causal convolution that goes with it.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Conv, Dot, Slice};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::heads::{Group, unpack_heads};
use super::scan::{Recurrence, Step, scan};

pub(super) const OPS: &[OpEntry] = &[
    onnx("LinearAttention", &[(27, linear_attention)]),
    onnx("CausalConvWithState", &[(27, causal_conv)]),
];

fn heads(cx: &mut NodeCx<'_, '_>, name: &str) -> NodeResult<u64> {
    match u64::try_from(cx.int_required(name)?) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(NodeError::invalid(format!("`{name}` is not positive"))),
    }
}

/// An operand with packed heads as `[S, B, heads, size]` in 32-bit floats.
fn steps(cx: &mut NodeCx<'_, '_>, index: usize, heads: u64) -> NodeResult<ValueId> {
    let x = cx.input(index)?;
    if cx.rank(x) != 3 {
        return Err(NodeError::invalid(format!(
            "operand {index} has not three dims"
        )));
    }
    let x = unpack_heads(cx, x, heads)?;
    let x = cx.swap_dims(x, 0, 1)?;
    cx.convert(x, DType::F32)
}

/// The recurrence of the operator, step by step in 32-bit floats.
fn linear_attention(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 6)?;
    // How an implementation blocks the sequence.
    cx.ignore_attrs(&["chunk_size"]);
    let rule = cx.string("update_rule", "gated_delta")?;
    let (gated, delta) = match rule.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        _ => return Err(NodeError::invalid(format!("`update_rule` is `{rule}`"))),
    };
    for (index, name, used) in [(4, "decay", gated), (5, "beta", delta)] {
        if cx.has(index) != used {
            let verb = if used { "needs" } else { "takes no" };
            return Err(NodeError::invalid(format!(
                "the update rule `{rule}` {verb} {name}"
            )));
        }
    }
    let (q_heads, kv_heads) = (heads(cx, "q_num_heads")?, heads(cx, "kv_num_heads")?);
    let dtype = cx.required_type(0)?.dtype;
    let q = steps(cx, 0, q_heads)?;
    let mut sequences = vec![q, steps(cx, 1, kv_heads)?, steps(cx, 2, kv_heads)?];
    let dims = cx.dims(sequences[0]);
    let (length, batch, size) = (dims[0].clone(), dims[1].clone(), dims[3].clone());
    let scale = match cx.float("scale", 0.0)? {
        0.0 => match size.as_const() {
            Some(size) if size > 0 => 1.0 / (size as f64).sqrt(),
            _ => {
                return Err(NodeError::unsupported(
                    "a symbolic head size without `scale`",
                ));
            }
        },
        scale => scale,
    };
    if gated {
        // One decay per head, or one per element of its keys.
        sequences.push(steps(cx, 4, kv_heads)?);
    }
    if delta {
        let per_head = cx
            .required_type(5)?
            .dims()
            .last()
            .is_some_and(|d| d.is(kv_heads));
        sequences.push(steps(cx, 5, if per_head { kv_heads } else { 1 })?);
    }
    let (start, state_dtype) = match cx.optional(3)? {
        Some(state) => (cx.convert(state, DType::F32)?, cx.dtype(state)),
        None => {
            let width = cx.dims(sequences[2])[3].clone();
            let shape = vec![batch, Dim::Const(kv_heads), size, width];
            (cx.full(DType::F32, shape, Scalar::F32(0.0))?, dtype)
        }
    };
    let group = Group::of(&Dim::Const(q_heads), &Dim::Const(kv_heads))?;
    let recurrence = Recurrence {
        start: &[start],
        sequences: &sequences,
        constants: &[],
        length,
    };
    let results = scan(cx, &recurrence, |cx, step| {
        let rule = Rule {
            gated,
            delta,
            scale,
        };
        rule.step(cx, step, &group)
    })?;
    let state = cx.convert(results[0], state_dtype)?;
    // [S, B, H, D] as [B, S, H * D].
    let y = cx.swap_dims(results[1], 0, 1)?;
    let y = cx.convert(y, dtype)?;
    let dims = cx.dims(y);
    let width = dims[2].mul(&dims[3]).ok_or_else(bad_extent)?;
    let y = cx.reshape(y, vec![dims[0].clone(), dims[1].clone(), width])?;
    cx.output(0, y);
    cx.output(1, state);
    Ok(())
}

/// The update rule.
struct Rule {
    /// Whether the state decays.
    gated: bool,
    /// Whether what the state knows of a key is taken off its value.
    delta: bool,
    scale: f64,
}

impl Rule {
    /// State `[B, K, D, E]`; q `[B, H, D]`, k `[B, K, D]`, v `[B, K, E]`, decay `[B, K, D or 1]`,
    /// beta `[B, K or 1, 1]`.
    fn step(
        &self,
        cx: &mut NodeCx<'_, '_>,
        step: &Step,
        group: &Group,
    ) -> NodeResult<Vec<ValueId>> {
        let mut state = step.carried[0];
        let (q, k, mut v) = (step.slices[0], step.slices[1], step.slices[2]);
        let mut gates = step.slices[3..].iter().copied();
        if self.gated
            && let Some(decay) = gates.next()
        {
            let factor = cx.unary(UnaryFn::Exp, decay)?;
            let factor = cx.unsqueeze(factor, &[3])?;
            state = cx.binary(BinaryFn::Mul, state, factor)?;
        }
        let per_head = vec![(0, 0), (1, 1)];
        if self.delta
            && let Some(beta) = gates.next()
        {
            let recall = Dot {
                batch: per_head.clone(),
                contract: vec![(2, 2)],
                out: None,
            };
            let known = cx.op(recall, &[k, state])?;
            let news = cx.binary(BinaryFn::Sub, v, known)?;
            v = cx.binary(BinaryFn::Mul, beta, news)?;
        }
        let (column, row) = (cx.unsqueeze(k, &[3])?, cx.unsqueeze(v, &[2])?);
        let product = cx.binary(BinaryFn::Mul, column, row)?;
        state = cx.binary(BinaryFn::Add, state, product)?;
        // Shared heads are a dim of their own: [B, K, H / K, D].
        let q = group.split(cx, q)?;
        let read = Dot {
            batch: per_head,
            contract: vec![(cx.rank(q) - 1, 2)],
            out: None,
        };
        let y = cx.op(read, &[q, state])?;
        let y = group.join(cx, y)?;
        let y = cx.with_scalar(BinaryFn::Mul, y, self.scale)?;
        Ok(vec![state, y])
    }
}

/// A convolution per channel that sees the present and the past, the past before the sequence being
/// a state.
fn causal_conv(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 4)?;
    let activation = cx.string("activation", "none")?;
    if !["none", "silu", "swish"].contains(&activation.as_str()) {
        return Err(NodeError::invalid(format!(
            "`activation` is `{activation}`"
        )));
    }
    let (x, weight) = (cx.input(0)?, cx.input(1)?);
    let (dims, kernel) = (cx.dims(x), cx.dims(weight));
    let ([batch, channels, length], [_, _, width]) = (dims.as_slice(), kernel.as_slice()) else {
        return Err(NodeError::invalid("the operands have not three dims"));
    };
    let Some(groups) = channels.as_const() else {
        return Err(NodeError::unsupported("a symbolic number of channels"));
    };
    let Some(before) = width.as_const().and_then(|width| width.checked_sub(1)) else {
        return Err(NodeError::unsupported(format!(
            "a kernel of {width} elements"
        )));
    };
    let dtype = cx.dtype(x);
    let past = match cx.optional(3)? {
        Some(past) => past,
        None => {
            let shape = vec![batch.clone(), channels.clone(), Dim::Const(before)];
            cx.full(dtype, shape, Scalar::zero(dtype))?
        }
    };
    let all = cx.concat(&[past, x], 2)?;
    let conv = Conv {
        stride: vec![1],
        pad: vec![(0, 0)],
        dilation: vec![1],
        groups,
        out: None,
    };
    let mut y = cx.op(conv, &[all, weight])?;
    if let Some(bias) = cx.optional(2)? {
        let bias = cx.unsqueeze(bias, &[1])?;
        y = cx.binary(BinaryFn::Add, y, bias)?;
    }
    if activation != "none" {
        let wide = if dtype == DType::F64 {
            DType::F64
        } else {
            DType::F32
        };
        let gate = cx.convert(y, wide)?;
        let sigmoid = cx.unary(UnaryFn::Sigmoid, gate)?;
        let product = cx.binary(BinaryFn::Mul, gate, sigmoid)?;
        y = cx.convert(product, dtype)?;
    }
    let last = Slice::along(&cx.ty(all), 2, length.clone(), Dim::Const(before));
    let state = cx.op(last, &[all])?;
    cx.output(0, y);
    cx.output(1, state);
    Ok(())
}
