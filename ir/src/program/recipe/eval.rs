//! Evaluation of a box of a recipe.
//!
//! The box that is asked for is pushed down from the value to the leaves, so that every node is
//! evaluated for no more than what is needed of it, and only those bytes of files are read:
//!
//! - slice, permute, concat, pad, scale and convert map boxes to boxes exactly;
//! - of a reshape, dimensions are grouped as shortly as they have equal products (an unchanged
//!   dimension is a group of its own). In a group the box spans a range of row-major positions, and
//!   the operand's box is the smallest one around this range. So splitting or joining dimensions
//!   reads at most the rows in which the range begins and ends too much; a box that is narrow in an
//!   inner dimension of a group takes all of the range.
//!
//! Memory is checked before anything is read. There is no recursion, however deep the tree is.

use bytes::Bytes;

use super::infer::{NodeType, bytes};
use super::{Recipe, RecipeNode, Sources};
use crate::access::View;
use crate::codes;
use crate::diag::{Diagnostic, Kind};
use crate::dim::Dim;
use crate::ops::strided;
use crate::scalar::BinaryFn;
use crate::tensor::{Tensor, ravel, strides, unravel};
use crate::types::DType;

/// A box with at least one element.
#[derive(Clone, PartialEq, Debug)]
struct Part {
    starts: Vec<u64>,
    sizes: Vec<u64>,
}

/// The elements of the recipe's value from `starts` on, `sizes` in each dimension. At most
/// `max_bytes` are alive at one time, files that are mapped included.
///
/// # Errors
/// [`codes::BAD_RECIPE`] for a malformed recipe or a box outside its value,
/// [`codes::OUT_OF_MEMORY`] above the limit, and what `sources` says.
pub fn eval_slice(
    recipe: &Recipe,
    starts: &[u64],
    sizes: &[u64],
    sources: &dyn Sources,
    max_bytes: u64,
) -> Result<Tensor, Diagnostic> {
    let bad = |why: String| {
        Diagnostic::input(codes::BAD_RECIPE, format!("the recipe is malformed: {why}"))
    };
    let types = recipe.types().map_err(bad)?;
    let Some((dtype, shape)) = types.last() else {
        return Err(bad("it is empty".into()));
    };
    let inside = |d: usize| {
        starts[d]
            .checked_add(sizes[d])
            .is_some_and(|end| end <= shape[d])
    };
    if starts.len() != shape.len() || sizes.len() != shape.len() || !(0..shape.len()).all(inside) {
        return Err(bad(format!(
            "its value of extents {shape:?} has no box of {sizes:?} elements at {starts:?}"
        )));
    }
    if sizes.contains(&0) {
        return empty(*dtype, sizes);
    }
    let mut parts: Vec<Option<Part>> = vec![None; types.len()];
    parts[types.len() - 1] = Some(Part {
        starts: starts.to_vec(),
        sizes: sizes.to_vec(),
    });
    for at in (0..types.len()).rev() {
        if let Some(part) = parts[at].take() {
            push_down(&recipe.nodes[at], &part, &types, &mut parts);
            parts[at] = Some(part);
        }
    }
    check_memory(recipe, &types, &parts, max_bytes)?;
    let mut values: Vec<Option<Tensor>> = vec![None; types.len()];
    for (at, node) in recipe.nodes.iter().enumerate() {
        if let Some(part) = &parts[at] {
            let operands: Vec<Operand> = node
                .operands()
                .into_iter()
                .map(|o| o as usize)
                .map(|o| Operand {
                    shape: &types[o].1,
                    part: parts[o].as_ref(),
                    value: values[o].take(),
                })
                .collect();
            values[at] = Some(compute(node, &types[at], part, operands, sources)?);
        }
    }
    match values.pop().flatten() {
        Some(value) => Ok(value),
        None => empty(*dtype, sizes),
    }
}

fn empty(dtype: DType, sizes: &[u64]) -> Result<Tensor, Diagnostic> {
    tensor(dtype, sizes, Bytes::new())
}

fn tensor(dtype: DType, shape: &[u64], data: Bytes) -> Result<Tensor, Diagnostic> {
    Tensor::from_bytes(dtype, shape, data)
        .map_err(|error| Diagnostic::new(codes::CORRUPT, Kind::Bug, error.to_string()))
}

/// Boxes of the operands that a box of the node needs.
fn push_down(node: &RecipeNode, part: &Part, types: &[NodeType], parts: &mut [Option<Part>]) {
    match node {
        RecipeNode::File { .. } | RecipeNode::Inline { .. } | RecipeNode::Splat { .. } => {}
        RecipeNode::Slice { of, starts, .. } => {
            let starts = starts.iter().zip(&part.starts).map(|(a, b)| a + b);
            parts[*of as usize] = Some(Part {
                starts: starts.collect(),
                sizes: part.sizes.clone(),
            });
        }
        RecipeNode::Permute { of, order } => {
            let mut turned = part.clone();
            for (d, from) in order.iter().enumerate() {
                turned.starts[*from as usize] = part.starts[d];
                turned.sizes[*from as usize] = part.sizes[d];
            }
            parts[*of as usize] = Some(turned);
        }
        RecipeNode::Reshape { of, shape } => {
            parts[*of as usize] = Some(around(&types[*of as usize].1, shape, part));
        }
        RecipeNode::Concat { of, axis } => {
            let axis = *axis as usize;
            let mut before = 0;
            for o in of {
                let extent = types[*o as usize].1[axis];
                parts[*o as usize] = shifted(part, axis, before, extent);
                before += extent;
            }
        }
        RecipeNode::Pad { of, low, .. } => {
            let extents = &types[*of as usize].1;
            let inner = (0..extents.len()).try_fold(part.clone(), |part, d| {
                shifted(&part, d, low[d], extents[d])
            });
            parts[*of as usize] = inner;
        }
        RecipeNode::Scale { of, by, axis } => {
            let axis = *axis as usize;
            parts[*by as usize] = Some(Part {
                starts: vec![part.starts[axis]],
                sizes: vec![part.sizes[axis]],
            });
            parts[*of as usize] = Some(part.clone());
        }
        RecipeNode::Convert { of, .. } => parts[*of as usize] = Some(part.clone()),
    }
}

/// What lies, along a dimension, within the `extent` elements from `before` on, counted from there;
/// `None` if nothing does.
fn shifted(part: &Part, axis: usize, before: u64, extent: u64) -> Option<Part> {
    let (start, end) = (part.starts[axis], part.starts[axis] + part.sizes[axis]);
    let low = start.max(before);
    let high = end.min(before + extent);
    let mut inner = part.clone();
    inner.sizes[axis] = high.checked_sub(low).filter(|size| *size > 0)?;
    inner.starts[axis] = low - before;
    Some(inner)
}

/// The smallest box of the operand of a reshape, group by group, that holds a box of its result.
fn around(from: &[u64], to: &[u64], part: &Part) -> Part {
    let dims = |shape: &[u64]| -> Vec<Dim> { shape.iter().map(|d| Dim::Const(*d)).collect() };
    let mut all = Part {
        starts: vec![0; from.len()],
        sizes: vec![1; from.len()],
    };
    for group in View::of(&dims(from), &dims(to)).groups {
        let (inner, outer) = (group.input, group.output);
        let starts = &part.starts[outer.clone()];
        let ends = starts.iter().zip(&part.sizes[outer.clone()]);
        let ends: Vec<u64> = ends.map(|(start, size)| start + size - 1).collect();
        let low = unravel(ravel(starts, &to[outer.clone()]), &from[inner.clone()]);
        let high = unravel(ravel(&ends, &to[outer]), &from[inner.clone()]);
        let mut whole = false;
        for (at, d) in inner.enumerate() {
            if whole {
                all.sizes[d] = from[d];
            } else {
                all.starts[d] = low[at];
                all.sizes[d] = high[at] - low[at] + 1;
                whole = low[at] != high[at];
            }
        }
    }
    all
}

/// Refuses a box whose values would take more than `max_bytes` at some time.
fn check_memory(
    recipe: &Recipe,
    types: &[NodeType],
    parts: &[Option<Part>],
    max_bytes: u64,
) -> Result<(), Diagnostic> {
    let size = |at: usize| {
        let part = parts[at].as_ref();
        part.map_or(0, |part| bytes(types[at].0, &part.sizes))
    };
    let mut live = 0u64;
    for (at, node) in recipe.nodes.iter().enumerate() {
        live = live.saturating_add(size(at));
        if live > max_bytes {
            let message = format!(
                "evaluating a weight recipe needs more than {max_bytes} bytes at its `{}` step",
                node.mnemonic()
            );
            return Err(Diagnostic::new(codes::OUT_OF_MEMORY, Kind::Limit, message));
        }
        for operand in node.operands() {
            live -= size(operand as usize);
        }
    }
    Ok(())
}

/// An operand with its whole extents and the box of it that was evaluated, if any of it is needed.
struct Operand<'a> {
    shape: &'a [u64],
    part: Option<&'a Part>,
    value: Option<Tensor>,
}

fn compute(
    node: &RecipeNode,
    (dtype, shape): &NodeType,
    part: &Part,
    mut operands: Vec<Operand<'_>>,
    sources: &dyn Sources,
) -> Result<Tensor, Diagnostic> {
    let mut operand = |at: usize| -> Result<Tensor, Diagnostic> {
        let value = operands
            .get_mut(at)
            .and_then(|operand| operand.value.take());
        value.ok_or_else(|| {
            Diagnostic::new(codes::CORRUPT, Kind::Bug, "a recipe's value is missing")
        })
    };
    let dtype = *dtype;
    match node {
        RecipeNode::File { file, offset, .. } => {
            let read = |at: u64, length: u64| {
                let data = sources.read(file, offset + at, length)?;
                if data.len() as u64 == length {
                    return Ok(data);
                }
                let message = format!(
                    "of `{file}`, {length} bytes at {} were asked for and {} were found",
                    offset + at,
                    data.len()
                );
                Err(Diagnostic::input(codes::NO_DATA, message))
            };
            leaf(dtype, shape, part, read)
        }
        RecipeNode::Inline { data, .. } => leaf(dtype, shape, part, |at, length| {
            Ok(data.slice(at as usize..(at + length) as usize))
        }),
        RecipeNode::Splat { value, .. } => {
            Ok(Tensor::splat(dtype, &part.sizes, value.to_scalar(dtype)))
        }
        RecipeNode::Slice { .. } => operand(0),
        RecipeNode::Permute { order, .. } => {
            let value = operand(0)?;
            let from = strides(value.shape());
            let steps: Vec<i64> = order.iter().map(|d| from[*d as usize] as i64).collect();
            Ok(strided(&value, &part.sizes, 0, &steps))
        }
        RecipeNode::Reshape { .. } => {
            let value = operand(0)?;
            let source = operands.first().and_then(|o| Some((o.shape, o.part?)));
            Ok(reshape(&value, source, shape, part))
        }
        RecipeNode::Concat { axis, .. } => {
            let mut out = vec![0; bytes(dtype, &part.sizes) as usize];
            let mut at = vec![0; shape.len()];
            for operand in operands.into_iter().filter_map(|operand| operand.value) {
                place(&mut out, &part.sizes, &at, &operand);
                at[*axis as usize] += operand.shape()[*axis as usize];
            }
            tensor(dtype, &part.sizes, out.into())
        }
        RecipeNode::Pad { low, value, .. } => {
            let fill = Tensor::scalar(dtype, value.to_scalar(dtype));
            let count = part.sizes.iter().product::<u64>() as usize;
            let mut out = fill.bytes().repeat(count);
            if let Some(Operand {
                value: Some(inner), ..
            }) = operands.first()
            {
                let at = low.iter().zip(&part.starts);
                let at: Vec<u64> = at.map(|(low, start)| low.saturating_sub(*start)).collect();
                place(&mut out, &part.sizes, &at, inner);
            }
            tensor(dtype, &part.sizes, out.into())
        }
        RecipeNode::Scale { axis, .. } => {
            let (value, factors) = (operand(0)?, operand(1)?);
            let step = strides(&part.sizes)[*axis as usize] as usize;
            let extent = part.sizes[*axis as usize] as usize;
            let scaled = value.scalars().enumerate().map(|(at, x)| {
                let factor = factors.get(at / step % extent);
                BinaryFn::Mul.apply(x, factor, dtype)
            });
            Ok(Tensor::from_scalars(dtype, &part.sizes, scaled))
        }
        RecipeNode::Convert { to, .. } => Ok(operand(0)?.convert(*to)),
    }
}

/// A box of row-major bytes, by reading runs that lie side by side. Bytes of `bool` become 0 or 1.
fn leaf(
    dtype: DType,
    shape: &[u64],
    part: &Part,
    read: impl Fn(u64, u64) -> Result<Bytes, Diagnostic>,
) -> Result<Tensor, Diagnostic> {
    // Dimensions behind `split` are whole, so that elements of dimension `split` are side by side.
    let whole = |d: usize| part.sizes[d] == shape[d];
    let split = (0..shape.len()).rev().find(|d| !whole(*d)).unwrap_or(0);
    let (outer, inner) = part.sizes.split_at(split);
    let length = bytes(dtype, inner);
    let position = |index: u64| {
        let mut at = part.starts.clone();
        for (at, offset) in at.iter_mut().zip(unravel(index, outer)) {
            *at += offset;
        }
        ravel(&at, shape) * dtype.bytes()
    };
    let count = outer.iter().product::<u64>();
    let data = if count == 1 {
        read(position(0), length)?
    } else {
        let mut data = Vec::with_capacity(bytes(dtype, &part.sizes) as usize);
        for index in 0..count {
            data.extend_from_slice(&read(position(index), length)?);
        }
        data.into()
    };
    let data = if dtype == DType::Bool && data.iter().any(|b| *b > 1) {
        data.iter().map(|b| u8::from(*b != 0)).collect()
    } else {
        data
    };
    tensor(dtype, &part.sizes, data)
}

/// The elements of a reshape's box, picked from the box of its operand.
fn reshape(value: &Tensor, source: Option<(&[u64], &Part)>, shape: &[u64], part: &Part) -> Tensor {
    let count = part.sizes.iter().product::<u64>();
    // A box around the range that has no more elements than the range is the range itself.
    let Some((from, around)) = source.filter(|_| value.len() as u64 != count) else {
        return value.reshape(&part.sizes);
    };
    let positions = (0..count).map(|index| {
        let index = unravel(index, &part.sizes);
        let index: Vec<u64> = index.iter().zip(&part.starts).map(|(i, s)| i + s).collect();
        let index = unravel(ravel(&index, shape), from);
        let inside: Vec<u64> = index
            .iter()
            .zip(&around.starts)
            .map(|(i, s)| i - s)
            .collect();
        Some(ravel(&inside, &around.sizes) as usize)
    });
    let fill = crate::scalar::Scalar::Int(0);
    value.select(&part.sizes, positions, fill)
}

/// Copies a tensor into the bytes of a larger one, at an index.
fn place(out: &mut [u8], shape: &[u64], at: &[u64], part: &Tensor) {
    let size = part.dtype().bytes();
    let (outer, row) = match part.shape().split_last() {
        Some((row, outer)) => (outer, *row),
        None => (&[][..], 1),
    };
    let length = (row * size) as usize;
    for (index, row) in part.bytes().chunks_exact(length.max(1)).enumerate() {
        let mut to = at.to_vec();
        for (to, offset) in to.iter_mut().zip(unravel(index as u64, outer)) {
            *to += offset;
        }
        let start = (ravel(&to, shape) * size) as usize;
        out[start..start + length].copy_from_slice(row);
    }
}
