//! Computations on whole rows, and formats whose values need an exponent bias.

use dojoc_ir::attr::Flag;
use dojoc_ir::program::instr::convert::Convert;
use dojoc_ir::program::instr::sort::TopK;
use dojoc_ir::program::{Affine, MAX_VIEW_RANK, Unit};
use dojoc_ir::types::DType;

use super::assign::conversion;
use super::indexed::{axis_of, block_dim, copy};
use super::nest::{Axis, Cx, Place, merged, spill, window};
use super::{BlockDim, Local, LocalTensor};
use crate::emit::Unsupported;

/// Emits the selection of the first elements in order, and of their positions.
pub(super) fn top_k(
    cx: &mut Cx<'_>,
    (axis, largest): (usize, bool),
    x: &LocalTensor,
    values: &LocalTensor,
    positions: &LocalTensor,
) -> Result<(), Unsupported> {
    let dtype = x.local.dtype;
    if dtype == DType::F64 {
        return Err(Unsupported::new("`topk` of f64"));
    }
    // Truth values are ordered as the numbers 0 and 1.
    let number = |cx: &mut Cx<'_>, tensor: &LocalTensor| -> Result<LocalTensor, Unsupported> {
        if dtype != DType::Bool {
            return Ok(tensor.clone());
        }
        let block: Vec<BlockDim> = tensor.shape.iter().map(block_dim).collect();
        let mut inner = Cx {
            seg: cx.seg,
            block: &block,
            loc: cx.loc,
        };
        let dims = inner.all_dims();
        let place = inner.scratch("number", DType::U8, &dims)?;
        let local = Local {
            buffer: place.buffer,
            dtype: DType::U8,
            offset: place.offset,
            strides: place.steps,
            valid: None,
        };
        Ok(LocalTensor {
            local,
            shape: tensor.shape.clone(),
        })
    };
    let (from, to) = (number(cx, x)?, number(cx, values)?);
    if dtype == DType::Bool {
        copy(cx, &from, x)?;
    }
    let tensors = [&to, positions, &from];
    let mut outer = Vec::new();
    for dim in (0..x.shape.len()).filter(|dim| *dim != axis) {
        let steps = [to.stride(dim)?, positions.stride(dim)?, from.stride(dim)?];
        outer.push(axis_of(x, dim, steps));
    }
    outer.retain(|axis| !axis.is_one());
    let mut outer = merged(outer);
    let loops = spill(&mut outer, MAX_VIEW_RANK - 1);
    let row = |tensor: &LocalTensor| -> Result<Vec<Axis>, Unsupported> {
        let stride = tensor.stride(axis)?;
        Ok([outer.as_slice(), &[axis_of(tensor, axis, [stride; 3])]].concat())
    };
    let rows = [row(&to)?, row(positions)?, row(&from)?];
    let places = tensors.map(|tensor| tensor.local.place());
    let offsets = places.iter().map(|place| place.offset.clone()).collect();
    let instr = TopK {
        smallest: Flag(!largest),
    };
    cx.nest(Unit::Vector, &loops, offsets, &mut |cx, offsets| {
        let operand = |which: usize| window(&places[which], &offsets[which], &rows[which], which);
        let (operands, loc) = ([operand(0), operand(1), operand(2)], cx.loc);
        cx.seg
            .compute(Unit::Vector, instr.clone(), &operands, Vec::new(), loc);
        Ok(())
    })?;
    match dtype {
        DType::Bool => copy(cx, values, &to),
        _ => Ok(()),
    }
}

/// Encodes or decodes a configurable format.
pub(super) fn code(
    cx: &mut Cx<'_>,
    x: &LocalTensor,
    bias: &LocalTensor,
    y: &LocalTensor,
) -> Result<(), Unsupported> {
    let uhp = [x, y].iter().any(|tensor| tensor.local.dtype == DType::Uhp);
    let codes = |dtype: DType| !dtype.is_float();
    for tensor in [x, y] {
        let dtype = tensor.local.dtype;
        if !codes(dtype) && !matches!(dtype, DType::F32 | DType::Bf16) {
            return Err(Unsupported::new(format!("codes of {dtype}")));
        }
    }
    if [x, y].iter().all(|tensor| !codes(tensor.local.dtype)) {
        return Err(Unsupported::new(
            "a rounding between formats of fixed meaning",
        ));
    }
    let one = [Axis::one(1)];
    let from = bias.local.place();
    let narrow = cx.seg.scratch("bias", DType::U8, &[1]);
    let narrow = Place {
        buffer: narrow,
        dtype: DType::U8,
        offset: Affine::constant(0),
        steps: Vec::new(),
    };
    let block: Vec<BlockDim> = y.shape.iter().map(block_dim).collect();
    let (to, source) = (y.local.place(), x.local.place());
    if uhp {
        let mut inner = Cx {
            seg: cx.seg,
            block: &block,
            loc: cx.loc,
        };
        let dims = inner.all_dims();
        return inner.pointwise(conversion(), &[&to, &source], &dims);
    }
    let wide = [
        window(&narrow, &narrow.offset, &one, 0),
        window(&from, &from.offset, &one, 0),
    ];
    cx.seg
        .compute(Unit::Vector, conversion(), &wide, Vec::new(), cx.loc);
    let mut axes: Vec<Axis> = (0..y.shape.len())
        .map(|dim| Ok(axis_of(y, dim, [y.stride(dim)?, x.stride(dim)?, 0])))
        .collect::<Result<_, Unsupported>>()?;
    axes.retain(|axis| !axis.is_one());
    let mut axes = merged(axes);
    let loops = spill(&mut axes, MAX_VIEW_RANK);
    let instr = Convert {
        bias: Flag(true),
        stochastic: None,
    };
    let offsets = vec![
        to.offset.clone(),
        source.offset.clone(),
        narrow.offset.clone(),
    ];
    cx.nest(Unit::Vector, &loops, offsets, &mut |cx, offsets| {
        let operands = [
            window(&to, &offsets[0], &axes, 0),
            window(&source, &offsets[1], &axes, 1),
            window(&narrow, &offsets[2], &one, 0),
        ];
        let loc = cx.loc;
        cx.seg
            .compute(Unit::Vector, instr.clone(), &operands, Vec::new(), loc);
        Ok(())
    })
}
