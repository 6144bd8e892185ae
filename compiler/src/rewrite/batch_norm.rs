//! Batch normalisation with constant statistics: `out = x * factor[c] + shift[c]`, and the
//! contraction before it takes the factor into its weights.

use dojoc_ir::graph::{NodeId, ValueId};
use dojoc_ir::ops::{BatchNorm, Binary, Convert, Dot, Op, TypeError};
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::tensor::{Tensor, strides};
use dojoc_ir::types::{DType, Type};

use crate::graph::{Editor, as_constant};

/// A batch normalisation as a factor and a shift per channel.
pub(crate) struct Affine {
    x: ValueId,
    axis: usize,
    factor: Vec<f64>,
    shift: Vec<f64>,
}

/// A contraction with constant weights that makes the normalised value.
pub(crate) struct Producer {
    node: NodeId,
    /// Which operand the weights are.
    weight: usize,
    scaled: Tensor,
    /// A constant that is added between the two, per channel.
    bias: Option<Vec<f64>>,
}

/// The node as a factor and a shift, if it is a batch normalisation with constant statistics.
pub(crate) fn affine(e: &Editor<'_>, node: NodeId) -> Option<Affine> {
    let data = &e.func.nodes[node];
    let Op::BatchNorm(BatchNorm { axis, epsilon }) = &data.op else {
        return None;
    };
    let channels = |n: usize| {
        let tensor = as_constant(e.module, &e.func, data.args[n], u64::MAX)?;
        Some(tensor.to_f64s())
    };
    let (scale, bias, mean, variance) = (channels(1)?, channels(2)?, channels(3)?, channels(4)?);
    let roots = variance.iter().map(|v| (v + epsilon.0).sqrt());
    let factor: Vec<f64> = scale.iter().zip(roots).map(|(s, root)| s / root).collect();
    let parts = bias.iter().zip(&mean).zip(&factor);
    let shift: Vec<f64> = parts.map(|((b, m), f)| b - m * f).collect();
    // A channel that divides by zero is left as it is.
    let finite = factor.iter().chain(&shift).all(|x| x.is_finite());
    finite.then(|| Affine {
        x: data.args[0],
        axis: *axis,
        factor,
        shift,
    })
}

/// The elements of a constant by index along `axis` of a value of type `like`, if it varies along
/// nothing else.
fn per_channel(tensor: &Tensor, like: &Type, axis: usize) -> Option<Vec<f64>> {
    let channels = like.shape[axis].as_const()?;
    let skipped = like.rank().checked_sub(tensor.rank())?;
    let mut extents = tensor.shape().iter().enumerate();
    if extents.any(|(dim, extent)| dim + skipped != axis && *extent != 1) {
        return None;
    }
    let values = tensor.to_f64s();
    match values.len() as u64 {
        n if n == channels => Some(values),
        1 => Some(vec![values[0]; channels as usize]),
        _ => None,
    }
}

/// Multiplies each element of a weight by the factor of the channel that `channel` gives for its
/// row-major position.
fn scale(weight: &Tensor, factor: &[f64], channel: impl Fn(u64) -> u64) -> Tensor {
    let dtype = weight.dtype();
    let scaled = weight.scalars().enumerate().map(|(position, value)| {
        let factor = factor[channel(position as u64) as usize];
        Scalar::F64(value.to_f64() * factor).convert(dtype)
    });
    Tensor::from_scalars(dtype, weight.shape(), scaled)
}

/// The contraction whose result, used once, is normalised; `limit` bounds its weights in bytes.
pub(crate) fn producer(e: &Editor<'_>, norm: &Affine, limit: u64) -> Option<Producer> {
    let constant = |value| as_constant(e.module, &e.func, value, limit);
    if e.uses(norm.x) != 1 {
        return None;
    }
    let mut made = norm.x;
    let mut bias = None;
    if let (Op::Binary(Binary(BinaryFn::Add)), &[a, b]) = e.op_of(made)? {
        let (x, c) = if constant(b).is_some() {
            (a, b)
        } else {
            (b, a)
        };
        if e.func.ty(x) != e.func.ty(made) || e.uses(x) != 1 {
            return None;
        }
        bias = Some(per_channel(&constant(c)?, e.func.ty(made), norm.axis)?);
        made = x;
    }
    let (node, _) = e.producer(made)?;
    let (op, args) = e.op_of(made)?;
    let along = |weight: &Tensor, dim: usize| {
        let (stride, extent) = (strides(weight.shape())[dim], weight.shape()[dim]);
        scale(weight, &norm.factor, |position| position / stride % extent)
    };
    let (weight, scaled) = match op {
        Op::Conv(_) if norm.axis == 1 => (1, along(&constant(args[1])?, 0)),
        Op::ConvTranspose(conv) if norm.axis == 1 => {
            let weight = constant(args[1])?;
            let (shape, strides) = (weight.shape().to_vec(), strides(weight.shape()));
            let per_group = shape[0] / conv.groups;
            let channel = |position: u64| {
                let (o, c) = (position / strides[0], position / strides[1] % shape[1]);
                o / per_group * shape[1] + c
            };
            (1, scale(&weight, &norm.factor, channel))
        }
        Op::Dot(dot) => {
            let ranks = [e.func.ty(args[0]).rank(), e.func.ty(args[1]).rank()];
            let (weight, dim) = free_dim(dot, ranks, norm.axis)?;
            (weight, along(&constant(args[weight])?, dim))
        }
        _ => return None,
    };
    Some(Producer {
        node,
        weight,
        scaled,
        bias,
    })
}

/// Which operand of a contraction has a dim of the result for itself, and as which of its dims.
fn free_dim(dot: &Dot, ranks: [usize; 2], axis: usize) -> Option<(usize, usize)> {
    let free = |operand: usize| -> Vec<usize> {
        let pairs = dot.batch.iter().chain(&dot.contract);
        let used: Vec<usize> = pairs
            .map(|p| if operand == 0 { p.0 } else { p.1 })
            .collect();
        (0..ranks[operand]).filter(|d| !used.contains(d)).collect()
    };
    let position = axis.checked_sub(dot.batch.len())?;
    let (left, right) = (free(0), free(1));
    match left.get(position) {
        Some(dim) => Some((0, *dim)),
        None => Some((1, *right.get(position - left.len())?)),
    }
}

/// A constant per channel that broadcasts to a value of type `like`.
fn along_axis(e: &mut Editor<'_>, name: &str, values: &[f64], like: &Type, axis: usize) -> ValueId {
    let mut shape = vec![1; like.rank() - axis];
    shape[0] = values.len() as u64;
    let scalars = values.iter().map(|v| Scalar::from_f64(*v, like.dtype));
    e.add_weight(name, Tensor::from_scalars(like.dtype, &shape, scalars))
}

/// Builds `contraction(x, scaled weights) + shift` and returns its value.
///
/// # Errors
/// None for a verified graph.
pub(crate) fn fold(
    e: &mut Editor<'_>,
    node: NodeId,
    norm: &Affine,
    producer: Producer,
) -> Result<ValueId, TypeError> {
    let name = e.name_for(e.func.nodes[node].results[0]);
    let data = e.func.nodes[producer.node].clone();
    let mut args = data.args;
    args[producer.weight] = e.add_weight(&format!("{name}.weight"), producer.scaled);
    e.at(producer.node);
    let made = e.emit(data.op, &args)?;
    e.at(node);
    let biased = |(n, shift): (usize, &f64)| match &producer.bias {
        Some(bias) => shift + bias[n] * norm.factor[n],
        None => *shift,
    };
    let shift: Vec<f64> = norm.shift.iter().enumerate().map(biased).collect();
    let ty = e.func.ty(made).clone();
    let shift = along_axis(e, &format!("{name}.bias"), &shift, &ty, norm.axis);
    e.emit(Binary(BinaryFn::Add), &[made, shift])
}

/// Builds `x * factor + shift`, in f32 where x is narrower, and returns its value.
///
/// # Errors
/// None for a verified graph.
pub(crate) fn expand(
    e: &mut Editor<'_>,
    node: NodeId,
    norm: &Affine,
) -> Result<ValueId, TypeError> {
    fn cast(e: &mut Editor<'_>, x: ValueId, to: DType) -> Result<ValueId, TypeError> {
        if e.func.ty(x).dtype == to {
            return Ok(x);
        }
        e.emit(
            Convert {
                to,
                saturate: false,
            },
            &[x],
        )
    }
    let name = e.name_for(e.func.nodes[node].results[0]);
    let ty = e.func.ty(norm.x).clone();
    let wide = if ty.dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    let wide_ty = ty.with_dtype(wide);
    let x = cast(e, norm.x, wide)?;
    let factor = along_axis(
        e,
        &format!("{name}.factor"),
        &norm.factor,
        &wide_ty,
        norm.axis,
    );
    let product = e.emit(Binary(BinaryFn::Mul), &[x, factor])?;
    let shift = along_axis(e, &format!("{name}.bias"), &norm.shift, &wide_ty, norm.axis);
    let sum = e.emit(Binary(BinaryFn::Add), &[product, shift])?;
    cast(e, sum, ty.dtype)
}
