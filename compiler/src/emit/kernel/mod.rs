//! Instructions for a block of a loop nest whose data is in the SRAM of one core.
//!
//! What is emitted follows from the structure of the [`Access`] alone: sums of products of two
//! operands become tile products, other reductions and running combinations the instructions of that
//! name, everything else vector instructions over strided views. Windows, broadcasts and
//! transpositions are views; only operands of tile products that would be gathered again and again
//! are put into blocks first.

mod arg;
mod assign;
mod contract;
mod functions;
mod indexed;
mod nest;
mod other;
mod reduce;
#[cfg(test)]
mod tests;
mod values;

use dojoc_ir::access::{self, Access, Combine, KernelFn, Monoid, Outside};
use dojoc_ir::attr::{Number, number_fits};
use dojoc_ir::machine::Machine;
use dojoc_ir::program::{Affine, BufferId, BufferRole, LocId, Packing, dense_strides};
use dojoc_ir::types::{DType, Type};

use super::Unsupported;
use super::builder::SegmentBuilder;
use nest::Cx;

/// One loop of the block that a core computes.
#[derive(Clone, PartialEq, Debug)]
pub struct BlockDim {
    /// Global index of the first iteration, over parameters.
    pub start: Affine,
    /// Number of iterations, over parameters; at least 1. A core without work does not run the code.
    pub count: Affine,
    /// The largest count.
    pub max: u64,
}

/// An operand or result in SRAM: the box of the tensor that the block touches.
///
/// Element 0 of the box in a dim of the tensor is the least index that the block reads: along
/// `sum of c_k * d_k + offset`, loops with `c_k >= 0` are at their start and others at their end.
/// Where the index map has a divisor, the box is in the coordinates of the *numerator*: elements of
/// the tensor lie `div` apart, and what is between them holds the fill value (for convolutions, a
/// dilated operand with zeros between).
///
/// Out-of-range elements are part of the box and hold the value that [`fill_value`] names, unless
/// `valid` says which points are in range.
#[derive(Clone, PartialEq, Debug)]
pub struct Local {
    /// The buffer.
    pub buffer: BufferId,
    /// Element type.
    pub dtype: DType,
    /// Byte of element 0 of the box, from the start of the buffer.
    pub offset: Affine,
    /// Strides in bytes, one for each dim of the tensor.
    pub strides: Vec<i64>,
    /// For each loop the part of the block (start relative to that of the block, count) at which the
    /// operand is in range. The box is then that of this part alone: its element 0 is the least
    /// index that this part reads. `None` if every point of the block can be read.
    pub valid: Option<Vec<(Affine, Affine)>>,
}

/// An operand or result of a [kernel](emit_kernel): its box in SRAM with the extents.
#[derive(Clone, PartialEq, Debug)]
pub struct LocalTensor {
    /// Where its elements lie.
    pub local: Local,
    /// Extents over parameters, and the largest, one for each dim of the tensor.
    pub shape: Vec<(Affine, u64)>,
}

/// What elements outside of an operand must hold so that reading them as any other is right; `None`
/// if none are read, or if [`Local::valid`] has to say where the operand is in range.
///
/// # Errors
/// The operand may be outside in a form that no value stands for.
pub fn fill_value(access: &Access, operand: usize) -> Result<Option<Number>, Unsupported> {
    values::fill_value(access, operand)
}

/// Emits the instructions that compute a block of a loop nest: for every point of `block`, from
/// `operands` to `results`.
///
/// Results hold only the parts of reductions that the block contains: a block of a split reduction
/// is a partial result. A running combination cannot be split along its sequential loop.
///
/// # Errors
/// What of the access there is no instruction for. What was emitted until then is useless.
pub fn emit(
    access: &Access,
    block: &[BlockDim],
    operands: &[Local],
    results: &[Local],
    seg: &mut SegmentBuilder,
    loc: Option<LocId>,
) -> Result<(), Unsupported> {
    let counts = (
        access.dims.len(),
        access.operands.len(),
        access.results.len(),
    );
    if counts != (block.len(), operands.len(), results.len()) {
        let found = (block.len(), operands.len(), results.len());
        let message =
            format!("loops, operands and results are {counts:?}, the block has {found:?}");
        return Err(Unsupported::new(message));
    }
    let mut cx = Cx { seg, block, loc };
    match &access.combine {
        Combine::Assign => assign::emit(&mut cx, access, operands, results),
        Combine::Reduce(Monoid::ArgMax { .. } | Monoid::ArgMin { .. }, _) => {
            arg::emit(&mut cx, access, operands, results)
        }
        Combine::Reduce(..) => {
            if contract::emit(&mut cx, access, operands, results)? {
                return Ok(());
            }
            reduce::emit(&mut cx, access, operands, results)
        }
        Combine::Scan { .. } => reduce::emit_scan(&mut cx, access, operands, results),
    }
}

/// Emits the instructions of a computation that is no loop nest, for the parts of its operands that a
/// core holds: whole, or split along dims that [`access::Kernel`] names.
///
/// # Errors
/// What of it there is no instruction for. What was emitted until then is useless.
pub fn emit_kernel(
    function: KernelFn,
    operands: &[LocalTensor],
    results: &[LocalTensor],
    seg: &mut SegmentBuilder,
    loc: Option<LocId>,
) -> Result<(), Unsupported> {
    let block = &[];
    indexed::emit(&mut Cx { seg, block, loc }, function, operands, results)
}

/// Whether [`emit_kernel`] has instructions for a computation on tensors of these types, without
/// emitting them.
///
/// # Errors
/// What `emit_kernel` would say.
pub fn supports_kernel(
    function: KernelFn,
    operands: &[Type],
    results: &[Type],
) -> Result<(), Unsupported> {
    trial_kernel(function, operands, results).map(|_| ())
}

/// What [`emit_kernel`] makes of dense tensors of these types: those of the parts that a core holds.
///
/// # Errors
/// What `emit_kernel` would say.
pub fn estimate_kernel(
    function: KernelFn,
    operands: &[Type],
    results: &[Type],
    machine: &Machine,
) -> Result<Estimate, Unsupported> {
    trial_kernel(function, operands, results).map(|seg| Estimate::of(&seg, machine))
}

fn trial_kernel(
    function: KernelFn,
    operands: &[Type],
    results: &[Type],
) -> Result<SegmentBuilder, Unsupported> {
    let mut seg = SegmentBuilder::new("trial", None);
    let mut local = |ty: &Type| {
        let dims: Vec<u64> = ty.dims().iter().map(|dim| dim.max_extent()).collect();
        let strides = dense_strides(ty.dtype, &dims, Packing::Strided);
        let buffer = seg.buffer("x", ty.dtype, &[1], BufferRole::InOut, None);
        let local = Local {
            buffer,
            dtype: ty.dtype,
            offset: Affine::constant(0),
            strides: strides.ok_or_else(Unsupported::overflow)?,
            valid: None,
        };
        let extent = |max: &u64| Ok((Affine::constant(nest::signed(*max)?), *max));
        let shape = dims
            .iter()
            .map(extent)
            .collect::<Result<_, Unsupported>>()?;
        Ok(LocalTensor { local, shape })
    };
    let operands = operands.iter().map(&mut local);
    let operands = operands.collect::<Result<Vec<LocalTensor>, Unsupported>>()?;
    let results = results.iter().map(&mut local);
    let results = results.collect::<Result<Vec<LocalTensor>, Unsupported>>()?;
    emit_kernel(function, &operands, &results, &mut seg, None)?;
    Ok(seg)
}

/// What a block takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// Cycles of its instructions, one after the other.
    pub cycles: f64,
    /// Bytes of scratch memory that are needed at once.
    pub scratch: u64,
}

impl Estimate {
    fn of(seg: &SegmentBuilder, machine: &Machine) -> Self {
        let (cycles, scratch) = (seg.cycles(machine, &[]), seg.scratch_peak());
        Self { cycles, scratch }
    }
}

/// What [`emit`] makes of a block of these extents with dense operands and results in memory.
///
/// # Errors
/// What `emit` would say.
pub fn estimate(
    access: &Access,
    extents: &[u64],
    dtypes: &[DType],
    machine: &Machine,
) -> Result<Estimate, Unsupported> {
    trial(access, extents, dtypes).map(|seg| Estimate::of(&seg, machine))
}

/// Whether [`emit`] has instructions for a loop nest with operands of these element types, without
/// emitting them.
///
/// # Errors
/// What `emit` would say.
pub fn supports(access: &Access, dtypes: &[DType]) -> Result<(), Unsupported> {
    let extents = access
        .dims
        .iter()
        .map(|dim| dim.extent.max_extent().min(TRIED));
    trial(access, &extents.collect::<Vec<u64>>(), dtypes).map(|_| ())
}

/// Extents of the block that [`supports`] tries: whether there are instructions does not depend on
/// them.
const TRIED: u64 = 3;

/// A block of these extents with dense operands and results.
fn trial(
    access: &Access,
    extents: &[u64],
    dtypes: &[DType],
) -> Result<SegmentBuilder, Unsupported> {
    if dtypes.len() != access.operands.len() || extents.len() != access.dims.len() {
        let found = (extents.len(), dtypes.len());
        let message = format!("{found:?} extents and element types for other loops and operands");
        return Err(Unsupported::new(message));
    }
    let zero = || Affine::constant(0);
    let block = extents.iter().map(|max| {
        let (start, count) = (zero(), Affine::constant(nest::signed(*max)?));
        Ok(BlockDim {
            start,
            count,
            max: *max,
        })
    });
    let block = block.collect::<Result<Vec<BlockDim>, Unsupported>>()?;
    let mut seg = SegmentBuilder::new("trial", None);
    let mut local = |dtype: DType, index: &[access::Affine]| {
        let strides = trial_strides(index, &block, dtype)?;
        let buffer = seg.buffer("x", dtype, &[1], BufferRole::InOut, None);
        Ok(Local {
            buffer,
            dtype,
            offset: zero(),
            strides,
            valid: None,
        })
    };
    let mut operands = Vec::new();
    for (number, (read, dtype)) in access.operands.iter().zip(dtypes).enumerate() {
        let local = local(*dtype, &read.index)?;
        let fill = fill_value(access, number)?;
        if let Some(fill) = fill
            && !number_fits(fill, *dtype)
        {
            return Err(Unsupported::new(format!("{fill} as an element of {dtype}")));
        }
        let partial = read.outside != Outside::Never && fill.is_none();
        let parts = block.iter().map(|dim| (zero(), dim.count.clone()));
        let valid = partial.then(|| parts.collect());
        operands.push(Local { valid, ..local });
    }
    let results = access.results.iter();
    let results = results.map(|write| local(write.dtype, &write.index));
    let results = results.collect::<Result<Vec<Local>, Unsupported>>()?;
    emit(access, &block, &operands, &results, &mut seg, None)?;
    Ok(seg)
}

/// Strides of a dense box that a block touches.
fn trial_strides(
    index: &[access::Affine],
    block: &[BlockDim],
    dtype: DType,
) -> Result<Vec<i64>, Unsupported> {
    let mut step = nest::size(dtype);
    let mut strides = vec![0; index.len()];
    for (stride, map) in strides.iter_mut().zip(index).rev() {
        *stride = step;
        let mut extent = 1i64;
        for (dim, coefficient) in &map.terms {
            let last = nest::signed(block[*dim].max.saturating_sub(1))?;
            let reach = nest::product(coefficient.saturating_abs(), last)?;
            extent = extent
                .checked_add(reach)
                .ok_or_else(Unsupported::overflow)?;
        }
        step = nest::product(step, extent)?;
    }
    Ok(strides)
}
