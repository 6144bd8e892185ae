//! Scaled dot-product attention.

use super::compose::{cast, check_broadcasts, check_float, expand, extent, reduce, rounded, widen};
use super::dot::accumulator;
use super::grad::unbroadcast;
use super::{
    Dot, EvalCx, EvalError, GradCx, Grads, Iota, NoGrad, OpDef, ReduceKind, Reshape, Sample,
    Select, Tolerance, TypeError, broadcast_position,
};
use crate::access::Tiling;
use crate::attr::F64;
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::{BinaryFn, UnaryFn};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, Type};

op_struct! {
    /// `out[b, h, s] = sum over t of w[b, h, s, t] * v[b, h / g, t]`: scaled dot-product attention,
    /// w being the softmax over t of the scores `cap(scale * q[b, h, s] . k[b, h / g, t]) + mask`.
    ///
    /// Operands `(q: [B, H, S, D], k: [B, K, T, D], v: [B, K, T, E])` and optionally an additive
    /// mask that broadcasts to `[B, H, S, T]`; the result is `[B, H, S, E]`. H is a multiple of K:
    /// g = H / K consecutive heads of q share one of k and v. `cap(x)` is `softcap * tanh(x /
    /// softcap)`, and comes before the mask so that -inf masks.
    ///
    /// A query that sees no key (all masked, or T = 0) gives 0 and not NaN. 16-bit floats: scores
    /// and softmax are computed in f32; the expansion rounds the weights to the element type, which
    /// is what a contraction takes, and sums in f32.
    Attention {
        /// Factor of the scores, usually `1 / sqrt(D)`.
        scale: F64,
        /// Whether query s sees only the keys t with `t <= s + (T - S)`: queries are the last S
        /// positions of T.
        causal: bool,
        /// Bound of the scores' magnitude; 0 for none.
        softcap: F64,
    }
}

/// The extents of an attention.
struct Extents {
    /// `[B, H, S, T]`.
    scores: [Dim; 4],
    /// K.
    heads: Dim,
    /// g.
    group: u64,
}

impl Extents {
    fn of(q: &Type, k: &Type, v: &Type) -> Result<Self, TypeError> {
        let ([b, h, s, d], [kb, kh, t, kd], [vb, vh, vt, _]) = (q.dims(), k.dims(), v.dims())
        else {
            type_error!("expected four dims each, found {q}, {k} and {v}");
        };
        if kb != b || vb != b || kd != d || vh != kh || vt != t {
            type_error!("the extents of {q}, {k} and {v} do not go together");
        }
        let group = match (h.as_const(), kh.as_const()) {
            _ if h == kh => 1,
            (Some(h), Some(kh)) if h.checked_rem(kh) == Some(0) => h / kh,
            _ => type_error!("the heads of {q} are not a multiple of those of {k}"),
        };
        Ok(Self {
            scores: [b.clone(), h.clone(), s.clone(), t.clone()],
            heads: kh.clone(),
            group,
        })
    }

    /// `[B, H, S, X]` as `[B, K, g, S, X]`, or as it is if heads are not shared.
    fn split(&self, b: &mut FunctionBuilder, x: ValueId) -> Result<ValueId, TypeError> {
        if self.group == 1 {
            return Ok(x);
        }
        let last = b.ty(x).shape[3].clone();
        let [batch, _, rows, _] = self.scores.clone();
        let shape = vec![
            batch,
            self.heads.clone(),
            Dim::Const(self.group),
            rows,
            last,
        ];
        b.op(Reshape { shape }, &[x])
    }

    /// The inverse of [`split`](Self::split).
    fn join(&self, b: &mut FunctionBuilder, x: ValueId) -> Result<ValueId, TypeError> {
        if self.group == 1 {
            return Ok(x);
        }
        let last = b.ty(x).shape[4].clone();
        let [batch, heads, rows, _] = self.scores.clone();
        let shape = vec![batch, heads, rows, last];
        b.op(Reshape { shape }, &[x])
    }

    /// Contracts the last dim of the split `x` with dim `axis` of a `y` of shape `[B, K, T, X]`,
    /// and joins the result to `[B, H, S, ..]` in the accumulator type.
    fn contract_last(
        &self,
        b: &mut FunctionBuilder,
        x: ValueId,
        y: ValueId,
        axis: usize,
    ) -> Result<ValueId, TypeError> {
        let x = self.split(b, x)?;
        let last = b.ty(x).rank() - 1;
        let result = self.contract(b, x, y, vec![(last, axis)])?;
        self.join(b, result)
    }

    /// Contracts the queries (and the heads that share a key) of `x` and `y`, both of shape
    /// `[B, H, S, ..]`: `[B, K, ..]` in the accumulator type.
    fn contract_queries(
        &self,
        b: &mut FunctionBuilder,
        x: ValueId,
        y: ValueId,
    ) -> Result<ValueId, TypeError> {
        let (x, y) = (self.split(b, x)?, self.split(b, y)?);
        let rows = (2..b.ty(x).rank() - 1).map(|d| (d, d)).collect();
        self.contract(b, x, y, rows)
    }

    fn contract(
        &self,
        b: &mut FunctionBuilder,
        x: ValueId,
        y: ValueId,
        contract: Vec<(usize, usize)>,
    ) -> Result<ValueId, TypeError> {
        let dot = Dot {
            batch: vec![(0, 0), (1, 1)],
            contract,
            out: Some(accumulator(b.ty(x).dtype)),
        };
        b.op(dot, &[x, y])
    }
}

/// The softmax of an attention, in the accumulator type and of shape `[B, H, S, T]`.
struct Weights {
    values: ValueId,
    /// The derivative of the cap at the scores.
    slope: Option<ValueId>,
}

impl Attention {
    fn weights(
        &self,
        b: &mut FunctionBuilder,
        args: &[ValueId],
        extents: &Extents,
    ) -> Result<Weights, TypeError> {
        let products = extents.contract_last(b, args[0], args[1], 3)?;
        let dtype = b.ty(products).dtype;
        let scale = b.scalar(dtype, self.scale.0);
        let mut scores = b.op(BinaryFn::Mul, &[products, scale])?;
        let mut slope = None;
        if self.softcap.0 != 0.0 {
            let cap = b.scalar(dtype, self.softcap.0);
            let ratio = b.op(BinaryFn::Div, &[scores, cap])?;
            let tanh = b.op(UnaryFn::Tanh, &[ratio])?;
            scores = b.op(BinaryFn::Mul, &[tanh, cap])?;
            let square = b.op(BinaryFn::Mul, &[tanh, tanh])?;
            let one = b.scalar(dtype, 1.0);
            slope = Some(b.op(BinaryFn::Sub, &[one, square])?);
        }
        if let Some(mask) = args.get(3) {
            let mask = widen(b, *mask)?;
            scores = b.op(BinaryFn::Add, &[scores, mask])?;
        }
        let hidden = b.scalar(dtype, f64::NEG_INFINITY);
        if self.causal {
            let visible = visible(b, &extents.scores[2], &extents.scores[3])?;
            scores = b.op(Select {}, &[visible, scores, hidden])?;
        }
        // Where all is masked the largest is -inf and the sum 0: neither may be used.
        let largest = reduce(b, ReduceKind::Max, scores, &[3])?;
        let masked = b.op(BinaryFn::Eq, &[largest, hidden])?;
        let (zero, one) = (b.scalar(dtype, 0.0), b.scalar(dtype, 1.0));
        let largest = b.op(Select {}, &[masked, zero, largest])?;
        let distance = b.op(BinaryFn::Sub, &[scores, largest])?;
        let exp = b.op(UnaryFn::Exp, &[distance])?;
        let sum = reduce(b, ReduceKind::Sum, exp, &[3])?;
        let sum = b.op(Select {}, &[masked, one, sum])?;
        let values = b.op(BinaryFn::Div, &[exp, sum])?;
        Ok(Weights { values, slope })
    }

    /// The weights of the keys for one query; `scores` are those of `q . k`.
    fn softmax(&self, scores: &mut [f64], visible: i64, mask: impl Fn(usize) -> f64) {
        for (t, score) in scores.iter_mut().enumerate() {
            *score *= self.scale.0;
            if self.softcap.0 != 0.0 {
                *score = self.softcap.0 * (*score / self.softcap.0).tanh();
            }
            *score += mask(t);
            if self.causal && t as i64 > visible {
                *score = f64::NEG_INFINITY;
            }
        }
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if scores.iter().all(|s| *s == f64::NEG_INFINITY) {
            return scores.fill(0.0);
        }
        scores.iter_mut().for_each(|s| *s = (*s - largest).exp());
        let sum: f64 = scores.iter().sum();
        scores.iter_mut().for_each(|s| *s /= sum);
    }
}

/// Builds the table `[S, T]` of what a causal attention sees.
fn visible(b: &mut FunctionBuilder, s: &Dim, t: &Dim) -> Result<ValueId, TypeError> {
    let position = |shape: [&Dim; 2], axis| Iota {
        dtype: DType::I64,
        shape: shape.map(Dim::clone).to_vec(),
        axis,
    };
    let mut query = b.op(position([s, &Dim::Const(1)], 0), &[])?;
    let key = b.op(position([&Dim::Const(1), t], 1), &[])?;
    if s != t {
        let (s, t) = (extent(b, s, DType::I64)?, extent(b, t, DType::I64)?);
        let before = b.op(BinaryFn::Sub, &[t, s])?;
        query = b.op(BinaryFn::Add, &[query, before])?;
    }
    b.op(BinaryFn::Le, &[key, query])
}

impl OpDef for Attention {
    const NAMES: &'static [&'static str] = &["attention"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let ([q, k, v] | [q, k, v, _]) = args else {
            type_error!("expected 3 or 4 operands, found {}", args.len());
        };
        check_float(q)?;
        if k.dtype != q.dtype || v.dtype != q.dtype {
            type_error!("operands have different element types: {q}, {k} and {v}");
        }
        if !(self.softcap.0 >= 0.0 && self.softcap.0.is_finite()) {
            type_error!(
                "softcap has to be finite and not negative, found {}",
                self.softcap.0
            );
        }
        let [b, h, s, t] = Extents::of(q, k, v)?.scores;
        if let Some(mask) = args.get(3) {
            let scores = [b.clone(), h.clone(), s.clone(), t];
            check_broadcasts(mask, &Type::new(q.dtype, Shape::new(scores)))?;
        }
        let shape = Shape::new([b, h, s, v.shape[3].clone()]);
        Ok(vec![Type::new(q.dtype, shape)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let [q, k, v] = [0, 1, 2].map(|n| args[n].to_f64s());
        let (q_shape, v_shape) = (args[0].shape(), args[2].shape());
        let [batch, heads, rows, depth] = [0, 1, 2, 3].map(|d| q_shape[d]);
        let [kv_heads, keys, width] = [1, 2, 3].map(|d| v_shape[d]);
        // The elements of row `at` of a matrix of the given width.
        let row = |at: u64, width: u64| (at * width) as usize..((at + 1) * width) as usize;
        let mut out = vec![];
        for (n, h, s) in
            (0..batch).flat_map(|n| (0..heads).flat_map(move |h| (0..rows).map(move |s| (n, h, s))))
        {
            let shared = n * kv_heads + h / (heads / kv_heads);
            let query = &q[row((n * heads + h) * rows + s, depth)];
            let mut weights: Vec<f64> = (0..keys)
                .map(|t| {
                    let key = &k[row(shared * keys + t, depth)];
                    query.iter().zip(key).map(|(a, b)| a * b).sum()
                })
                .collect();
            let mask = |t: usize| {
                args.get(3).map_or(0.0, |mask| {
                    let index = [n, h, s, t as u64];
                    mask.get(broadcast_position(&index, mask.shape())).to_f64()
                })
            };
            let visible = s as i64 + keys as i64 - rows as i64;
            self.softmax(&mut weights, visible, mask);
            let mut result = vec![0.0; width as usize];
            for (t, weight) in (0..keys).zip(&weights) {
                let value = &v[row(shared * keys + t, width)];
                result
                    .iter_mut()
                    .zip(value)
                    .for_each(|(sum, x)| *sum += weight * x);
            }
            out.extend(result);
        }
        Ok(vec![rounded(
            args[0].dtype(),
            &[batch, heads, rows, width],
            out,
        )])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        expand(args, |b, inputs| {
            let extents = Extents::of(&args[0], &args[1], &args[2])?;
            let weights = self.weights(b, inputs, &extents)?.values;
            let weights = cast(b, weights, args[0].dtype)?;
            let result = extents.contract_last(b, weights, inputs[2], 2)?;
            cast(b, result, args[0].dtype)
        })
    }

    /// With w the weights: `dv = w . dy` over the queries, `dw = dy . v`, `ds = w * (dw - sum of
    /// dw * w)`, which is the gradient of the mask; through cap and scale `dx`, then `dq = dx . k`
    /// and `dk = dx . q` over the queries.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let b = &mut *cx.b;
        let types = b.func().types(cx.args);
        let dtype = types[0].dtype;
        let extents = Extents::of(&types[0], &types[1], &types[2])?;
        let dy = cx.cotangents[0];
        let weights = self.weights(b, cx.args, &extents)?;
        let rounded = cast(b, weights.values, dtype)?;
        let dv = extents.contract_queries(b, rounded, dy)?;
        let dw = extents.contract_last(b, dy, cx.args[2], 3)?;
        let product = b.op(BinaryFn::Mul, &[dw, weights.values])?;
        let sum = reduce(b, ReduceKind::Sum, product, &[3])?;
        let difference = b.op(BinaryFn::Sub, &[dw, sum])?;
        let ds = b.op(BinaryFn::Mul, &[weights.values, difference])?;
        let scale = b.scalar(b.ty(ds).dtype, self.scale.0);
        let mut dx = b.op(BinaryFn::Mul, &[ds, scale])?;
        if let Some(slope) = weights.slope {
            dx = b.op(BinaryFn::Mul, &[dx, slope])?;
        }
        let dx = cast(b, dx, dtype)?;
        let dq = extents.contract_last(b, dx, cx.args[1], 2)?;
        let dk = extents.contract_queries(b, dx, cx.args[0])?;
        let mut grads = vec![];
        for grad in [dq, dk, dv] {
            grads.push(Some(cast(b, grad, dtype)?));
        }
        if let Some(mask) = types.get(3) {
            let dmask = unbroadcast(b, ds, &mask.shape)?;
            grads.push(Some(cast(b, dmask, mask.dtype)?));
        }
        Ok(grads)
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(8.0)
    }

    fn samples() -> Vec<Sample> {
        let base = Attention {
            scale: F64(0.5),
            causal: false,
            softcap: F64(0.0),
        };
        let causal = Attention {
            causal: true,
            ..base.clone()
        };
        let capped = Attention {
            softcap: F64(1.5),
            ..causal.clone()
        };
        // Extents: B, H, K, S, T, D, E.
        let attend = |op: &Attention, dtype, extents: [u64; 7], mask: Option<&[u64]>| {
            let [b, h, k, s, t, d, e] = extents;
            let mut args = vec![
                Type::of(dtype, &[b, h, s, d]),
                Type::of(dtype, &[b, k, t, d]),
                Type::of(dtype, &[b, k, t, e]),
            ];
            args.extend(mask.map(|shape| Type::of(dtype, shape)));
            Sample::new(op.clone(), &args)
        };
        let grouped = [2, 4, 2, 3, 5, 4, 3];
        // The second query is masked altogether.
        let mut hidden = vec![0f32; 6];
        hidden[2] = f32::NEG_INFINITY;
        hidden[3..].fill(f32::NEG_INFINITY);
        let hidden = Tensor::from_vec(&[2, 3], hidden);
        let mut samples = vec![
            attend(&base, DType::F32, [2, 2, 2, 3, 5, 4, 3], None),
            attend(&causal, DType::F32, [1, 2, 2, 4, 4, 2, 2], None),
            attend(&causal, DType::F32, [1, 1, 1, 4, 2, 2, 2], None),
            attend(&causal, DType::F32, [1, 2, 1, 1, 4, 2, 2], None),
            attend(&base, DType::F32, [1, 2, 1, 2, 3, 2, 2], Some(&[2, 3])).given(3, hidden),
            attend(&base, DType::F32, grouped, Some(&[2, 1, 3, 5])),
            attend(&capped, DType::F32, grouped, Some(&[4, 1, 5])),
            attend(&base, DType::F32, [1, 2, 2, 3, 0, 2, 2], None),
            attend(&base, DType::F32, [1, 2, 2, 0, 3, 2, 2], None),
            attend(&base, DType::F32, [1, 1, 1, 1, 1, 1, 1], None),
        ];
        for dtype in [DType::F64, DType::Bf16, DType::F16] {
            samples.push(attend(&capped, dtype, grouped, Some(&[3, 5])));
        }
        let mut wide_mask = attend(&causal, DType::Bf16, grouped, Some(&[1, 1, 1, 5]));
        wide_mask.args[3].ty = Type::of(DType::F32, &[1, 1, 1, 5]);
        samples.push(wide_mask);
        samples
    }
}
