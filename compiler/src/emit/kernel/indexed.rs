//! Computations in which the values of an operand say where another is read or written.

use dojoc_ir::access::KernelFn;
use dojoc_ir::attr::{Flag, Number};
use dojoc_ir::program::instr::Instr;
use dojoc_ir::program::instr::data::{Gather, Scatter};
use dojoc_ir::program::instr::vector::{CompareFunction, ZipFunction};
use dojoc_ir::program::{Affine, MAX_VIEW_RANK, Unit};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::types::DType;

use super::assign::{Evaluation, convert};
use super::nest::{Axis, Cx, Place, merged, product, spill, sum, window};
use super::values::{Id, Values};
use super::{BlockDim, Local, LocalTensor, other};
use crate::emit::Unsupported;

/// Emits a kernel.
pub(super) fn emit(
    cx: &mut Cx<'_>,
    function: KernelFn,
    operands: &[LocalTensor],
    results: &[LocalTensor],
) -> Result<(), Unsupported> {
    match (function, operands, results) {
        (KernelFn::Gather { axis }, [x, indices], [y]) => {
            check_axis(x, axis)?;
            let (mut nest, inserted) = (Nest::new(x, axis), indices.shape.len());
            for at in 0..inserted {
                let steps = [y.stride(axis + at)?, 0, indices.stride(at)?];
                nest.places.push(axis_of(indices, at, steps));
            }
            for dim in (0..x.shape.len()).filter(|dim| *dim != axis) {
                let of_y = if dim < axis { dim } else { dim + inserted - 1 };
                nest.inner
                    .push(axis_of(x, dim, [y.stride(of_y)?, x.stride(dim)?, 0]));
            }
            let indices = indices.local.place();
            gather(cx, nest, [&y.local, &x.local], &indices)
        }
        (KernelFn::GatherElements { axis }, [x, indices], [y]) => {
            let nest = elements(x, axis, indices, y, x)?;
            gather(cx, nest, [&y.local, &x.local], &indices.local.place())
        }
        (KernelFn::GatherNd { batch }, [x, indices], [y]) => {
            let counts = indices.shape.len().saturating_sub(1);
            let tuples = Tuples::of(cx, x, indices, batch)?;
            let mut nest = Nest {
                count: tuples.count,
                stride: tuples.stride,
                ..Nest::default()
            };
            for at in 0..counts {
                let of_x = if at < batch { x.stride(at)? } else { 0 };
                let axis = axis_of(indices, at, [y.stride(at)?, of_x, tuples.place.steps[at]]);
                match at < batch {
                    true => nest.around.push(axis),
                    false => nest.places.push(axis),
                }
            }
            for (n, dim) in (batch + tuples.depth..x.shape.len()).enumerate() {
                nest.inner
                    .push(axis_of(x, dim, [y.stride(counts + n)?, x.stride(dim)?, 0]));
            }
            gather(cx, nest, [&y.local, &x.local], &tuples.place)
        }
        (KernelFn::ScatterElements { axis, combine }, [x, indices, updates], [y]) => {
            let add = adds(combine)?;
            copy(cx, y, x)?;
            let nest = elements(y, axis, indices, updates, y)?;
            scatter(
                cx,
                nest,
                add,
                [&updates.local, &y.local],
                &indices.local.place(),
            )
        }
        (KernelFn::ScatterNd { combine }, [x, indices, updates], [y]) => {
            let add = adds(combine)?;
            copy(cx, y, x)?;
            let counts = indices.shape.len().saturating_sub(1);
            let tuples = Tuples::of(cx, y, indices, 0)?;
            let mut nest = Nest {
                count: tuples.count,
                stride: tuples.stride,
                ..Nest::default()
            };
            for at in 0..counts {
                let steps = [updates.stride(at)?, 0, tuples.place.steps[at]];
                nest.places.push(axis_of(indices, at, steps));
            }
            for (n, dim) in (tuples.depth..y.shape.len()).enumerate() {
                let steps = [updates.stride(counts + n)?, y.stride(dim)?, 0];
                nest.inner.push(axis_of(y, dim, steps));
            }
            scatter(cx, nest, add, [&updates.local, &y.local], &tuples.place)
        }
        (KernelFn::TopK { axis, largest }, [x], [values, positions]) => {
            check_axis(x, axis)?;
            other::top_k(cx, (axis, largest), x, values, positions)
        }
        (KernelFn::BitCast, [x], [y]) => {
            let mut from = x.clone();
            from.local.dtype = y.local.dtype;
            copy(cx, y, &from)
        }
        (KernelFn::Encode | KernelFn::Decode, [x, bias], [y]) => other::code(cx, x, bias, y),
        (KernelFn::Other, ..) => Err(Unsupported::new("a computation that only has a reference")),
        _ => Err(Unsupported::new("another number of operands or results")),
    }
}

fn check_axis(x: &LocalTensor, axis: usize) -> Result<(), Unsupported> {
    match axis < x.shape.len() {
        true => Ok(()),
        false => Err(Unsupported::new(format!(
            "axis {axis} of rank {}",
            x.shape.len()
        ))),
    }
}

/// What updates do: add, or replace.
fn adds(combine: Option<BinaryFn>) -> Result<bool, Unsupported> {
    match combine {
        None => Ok(false),
        Some(BinaryFn::Add) => Ok(true),
        Some(f) => Err(Unsupported::new(format!(
            "updates combined by `{}`",
            f.name()
        ))),
    }
}

impl LocalTensor {
    pub(super) fn stride(&self, dim: usize) -> Result<i64, Unsupported> {
        let stride = self.local.strides.get(dim).copied();
        stride.ok_or_else(|| Unsupported::new("an operand of another rank"))
    }
}

impl Local {
    /// The place of element 0, whose steps are the strides.
    pub(super) fn place(&self) -> Place {
        Place {
            buffer: self.buffer,
            dtype: self.dtype,
            offset: self.offset.clone(),
            steps: self.strides.clone(),
        }
    }
}

/// The axis of a dim of a tensor with other steps.
pub(super) fn axis_of(tensor: &LocalTensor, dim: usize, steps: [i64; 3]) -> Axis {
    let (count, max) = tensor.shape[dim].clone();
    Axis {
        count,
        max,
        steps: steps.to_vec(),
    }
}

/// A gather or scatter: dense side, indexed side, indices. Steps of all axes are in this order.
#[derive(Default)]
struct Nest {
    /// Loops around the instruction.
    around: Vec<Axis>,
    /// One index each.
    places: Vec<Axis>,
    /// What is moved for an index.
    inner: Vec<Axis>,
    /// What the indices count: extent and stride in bytes.
    count: (Affine, u64),
    stride: i64,
}

impl Nest {
    fn new(x: &LocalTensor, axis: usize) -> Self {
        let (count, stride) = (x.shape[axis].clone(), x.local.strides[axis]);
        Self {
            count,
            stride,
            ..Self::default()
        }
    }

    /// Makes what is left fit views: (loops, places, inner).
    fn fitted(self) -> (Vec<Axis>, Vec<Axis>, Vec<Axis>) {
        let keep =
            |axes: Vec<Axis>| merged(axes.into_iter().filter(|axis| !axis.is_one()).collect());
        let (mut around, mut places) = (keep(self.around), keep(self.places));
        let mut inner = keep(self.inner);
        // Indices come in order, so the outermost go first.
        let outside = places.len().saturating_sub(MAX_VIEW_RANK);
        around.extend(places.drain(..outside));
        let room = MAX_VIEW_RANK - places.len().max(1);
        let outside = spill(&mut inner, room);
        // Around the indices: an element of the result belongs to one of these iterations.
        (([outside, around].concat()), places, inner)
    }
}

/// The nest in which each index stands for the position of its element along an axis.
fn elements(
    indexed: &LocalTensor,
    axis: usize,
    indices: &LocalTensor,
    dense: &LocalTensor,
    counted: &LocalTensor,
) -> Result<Nest, Unsupported> {
    check_axis(counted, axis)?;
    let mut nest = Nest::new(counted, axis);
    for dim in 0..indices.shape.len() {
        let (of_dense, of_indices) = (dense.stride(dim)?, indices.stride(dim)?);
        match dim == axis {
            true => nest
                .places
                .push(axis_of(indices, dim, [of_dense, 0, of_indices])),
            false => {
                let steps = [of_dense, indexed.stride(dim)?, of_indices];
                nest.around.push(axis_of(indices, dim, steps));
            }
        }
    }
    Ok(nest)
}

fn gather(
    cx: &mut Cx<'_>,
    nest: Nest,
    [y, x]: [&Local; 2],
    indices: &Place,
) -> Result<(), Unsupported> {
    indexed(
        cx,
        nest,
        Gather { fill: None }.into(),
        [&y.place(), &x.place()],
        indices,
        true,
    )
}

fn scatter(
    cx: &mut Cx<'_>,
    nest: Nest,
    add: bool,
    [updates, y]: [&Local; 2],
    indices: &Place,
) -> Result<(), Unsupported> {
    if add && y.dtype == DType::F64 {
        return Err(Unsupported::new("sums of f64"));
    }
    let instr = Scatter {
        add: Flag(add),
        skip: Flag(false),
    };
    indexed(
        cx,
        nest,
        instr.into(),
        [&updates.place(), &y.place()],
        indices,
        false,
    )
}

/// Emits a gather (dense side written) or scatter (indexed side written).
fn indexed(
    cx: &mut Cx<'_>,
    nest: Nest,
    instr: Instr,
    [dense, table]: [&Place; 2],
    indices: &Place,
    gathers: bool,
) -> Result<(), Unsupported> {
    let (count, max) = nest.count.clone();
    let counted = Axis {
        count,
        max,
        steps: vec![0, nest.stride, 0],
    };
    let (loops, places, inner) = nest.fitted();
    let of_dense = [places.as_slice(), &inner].concat();
    let of_table = [&[counted], inner.as_slice()].concat();
    let offsets = vec![
        dense.offset.clone(),
        table.offset.clone(),
        indices.offset.clone(),
    ];
    cx.nest(Unit::Vector, &loops, offsets, &mut |cx, offsets| {
        let dense = window(dense, &offsets[0], &of_dense, 0);
        let table = window(table, &offsets[1], &of_table, 1);
        let indices = window(indices, &offsets[2], &places, 2);
        let operands = match gathers {
            true => [dense, table, indices],
            false => [table, dense, indices],
        };
        let loc = cx.loc;
        cx.seg
            .compute(Unit::Vector, instr.clone(), &operands, Vec::new(), loc);
        Ok(())
    })
}

/// Tuples of indices as single ones.
struct Tuples {
    depth: usize,
    /// What they count.
    count: (Affine, u64),
    stride: i64,
    /// Steps for the dims of the indices but the last.
    place: Place,
}

impl Tuples {
    /// Of dims of x behind the first `batch`. Several indices are combined into one, after negative
    /// ones have been made positive; where one is out of range so is their combination.
    fn of(
        cx: &mut Cx<'_>,
        x: &LocalTensor,
        indices: &LocalTensor,
        batch: usize,
    ) -> Result<Self, Unsupported> {
        let depth = indices
            .shape
            .last()
            .and_then(|(count, _)| count.as_constant());
        let depth = depth.and_then(|depth| usize::try_from(depth).ok());
        let Some(depth) = depth.filter(|depth| (1..=x.shape.len()).contains(&(batch + depth)))
        else {
            return Err(Unsupported::new("tuples of unknown length"));
        };
        let step = indices.stride(indices.shape.len() - 1)?;
        let dims = indices.shape.len() - 1;
        let component = |at: usize| -> Result<Place, Unsupported> {
            let mut place = indices.local.place();
            place.steps.truncate(dims);
            let behind = product(step, at as i64)?;
            place.offset = sum(&place.offset, &Affine::constant(behind))?;
            Ok(place)
        };
        if depth == 1 {
            let (count, stride) = (x.shape[batch].clone(), x.stride(batch)?);
            return Ok(Self {
                depth,
                count,
                stride,
                place: component(0)?,
            });
        }
        if depth == 0 {
            return Err(Unsupported::new("tuples of no index"));
        }
        let block: Vec<BlockDim> = indices.shape[..dims].iter().map(block_dim).collect();
        let mut inner = Cx {
            seg: cx.seg,
            block: &block,
            loc: cx.loc,
        };
        let sources = (0..depth)
            .map(component)
            .collect::<Result<Vec<Place>, Unsupported>>()?;
        let mut values = Values::new(sources.iter().map(|place| place.dtype));
        let (root, total) = flattened(&mut values, x, batch, depth)?;
        let all = inner.all_dims();
        let place = inner.scratch("places", DType::I64, &all)?;
        Evaluation::new(&mut inner, &values, &sources).over(root, &place, &all)?;
        let count = (Affine::constant(total), total as u64);
        Ok(Self {
            depth,
            count,
            stride: x.stride(batch + depth - 1)?,
            place,
        })
    }
}

pub(super) fn block_dim((count, max): &(Affine, u64)) -> BlockDim {
    BlockDim {
        start: Affine::constant(0),
        count: count.clone(),
        max: *max,
    }
}

/// The row-major position of a tuple of indices in dims of x, and how many there are.
fn flattened(
    values: &mut Values,
    x: &LocalTensor,
    batch: usize,
    depth: usize,
) -> Result<(Id, i64), Unsupported> {
    let number = |values: &mut Values, n: i64| values.constant(Number::Int(n.into()), DType::I64);
    let zero = number(values, 0);
    let mut total = 1i64;
    let (mut flat, mut valid) = (zero, None);
    for at in 0..depth {
        let dim = batch + at;
        let Some(count) = x.shape[dim].0.as_constant() else {
            return Err(Unsupported::new(
                "tuples of indices into dims of unknown extents",
            ));
        };
        if at > 0 && x.stride(dim - 1)? != product(x.stride(dim)?, count)? {
            return Err(Unsupported::new(
                "tuples of indices into dims that lie apart",
            ));
        }
        total = product(total, count)?;
        let extent = number(values, count);
        let index = values.source(at);
        let index = values.convert(DType::I64, index)?;
        let below = values.compare(CompareFunction::Lt, index, zero)?;
        let raised = values.zip(ZipFunction::Add, index, extent)?;
        let index = values.select(below, raised, index)?;
        let low = values.compare(CompareFunction::Ge, index, zero)?;
        let high = values.compare(CompareFunction::Lt, index, extent)?;
        let inside = values.zip(ZipFunction::And, low, high)?;
        valid = Some(match valid {
            None => inside,
            Some(valid) => values.zip(ZipFunction::And, valid, inside)?,
        });
        let above = values.zip(ZipFunction::Mul, flat, extent)?;
        flat = match at {
            0 => index,
            _ => values.zip(ZipFunction::Add, above, index)?,
        };
    }
    let beyond = number(values, total);
    match valid {
        Some(valid) => Ok((values.select(valid, flat, beyond)?, total)),
        None => Ok((flat, total)),
    }
}

/// Copies a tensor.
pub(super) fn copy(
    cx: &mut Cx<'_>,
    to: &LocalTensor,
    from: &LocalTensor,
) -> Result<(), Unsupported> {
    let block: Vec<BlockDim> = to.shape.iter().map(block_dim).collect();
    let mut inner = Cx {
        seg: cx.seg,
        block: &block,
        loc: cx.loc,
    };
    let dims = inner.all_dims();
    convert(&mut inner, &to.local.place(), &from.local.place(), &dims)
}
