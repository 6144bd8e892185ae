//! What compute instructions do to bytes.
//!
//! [`execute`] is the meaning of every [`Instr`], over slices of memory. It knows nothing of cores,
//! streams or buffers; executor and sanitizer bring the slices.

mod convert;
mod data;
mod elementwise;
mod matrix;
mod number;
mod reduce;
mod sort;
#[cfg(test)]
mod tests;
mod vector;
mod walk;

use std::sync::Arc;

use dojoc_ir::program::{Instr, ViewType};
use dojoc_ir::types::DType;

use crate::kernels::{self, Kernels};

/// A view with what is asked of it again and again, computed once. All threads read it, so that it
/// must not share a cache line with what one of them writes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct Layout {
    /// The view.
    pub view: ViewType,
    /// [`ViewType::is_dense`].
    pub dense: bool,
    /// The lowest byte that the view touches, relative to its first element.
    pub low: i64,
    /// Bytes from the lowest to the highest.
    pub span: usize,
    /// Number of elements.
    pub elements: usize,
}

impl Layout {
    /// Of a view; `None` where its extent or number of elements overflows.
    pub fn new(view: ViewType) -> Option<Self> {
        let (low, high) = view.extent()?;
        Some(Self {
            dense: view.is_dense(),
            low,
            span: usize::try_from(high.checked_sub(low)?).ok()?,
            elements: usize::try_from(view.elements()).ok()?,
            view,
        })
    }

    /// Bytes of an element.
    pub fn size(&self) -> usize {
        self.view.dtype.bytes() as usize
    }
}

/// The bytes of an operand that is read.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// From the lowest byte of the view on, [`Layout::span`] long, aligned to the element size.
    Slice(&'a [u8]),
    /// Those of the first target, which has the same layout.
    InPlace,
}

/// An operand that is read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its layout.
    pub layout: &'a Layout,
    /// Its bytes.
    pub bytes: Bytes<'a>,
    /// Where packed forms of it are kept, if anywhere.
    pub panels: Option<&'a dyn PanelCache>,
}

/// An operand that is written.
#[derive(Debug)]
pub struct Target<'a> {
    /// Its layout.
    pub layout: &'a Layout,
    /// From the lowest byte of the view on, [`Layout::span`] long, aligned to the element size.
    pub bytes: &'a mut [u8],
}

/// The right operand of a tile product in panels.
#[derive(Debug)]
pub enum Panels {
    /// See [`Kernels::pack_b_f32`].
    F32(crate::kernels::Aligned<f32>),
    /// See [`Kernels::pack_b_bf16`].
    Bf16(crate::kernels::Aligned<half::bf16>),
}

impl Panels {
    /// The memory that they take.
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::F32(panels) => size_of_val(&**panels),
            Self::Bf16(panels) => size_of_val(&**panels),
        };
        bytes as u64
    }
}

/// Which packed form: layout, whether it is transposed, and the exponent bias of cfp8.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PanelKey {
    /// Layout of the operand.
    pub view: ViewType,
    /// Stored with n first.
    pub transposed: bool,
    /// Exponent bias of cfp8 operands.
    pub bias: Option<u8>,
}

/// Keeps packed forms beside the bytes they are made of.
pub trait PanelCache: Sync + std::fmt::Debug {
    /// The packed form, made by `pack` unless it is there.
    fn get(&self, key: &PanelKey, pack: &mut dyn FnMut() -> Panels) -> Arc<Panels>;
}

/// Memory for copies of operands, kept between instructions so that it is allocated once per worker.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// That of the kernels.
    pub kernels: kernels::Scratch,
    /// For parts of rows of operands.
    pub(crate) rows: Vec<u64>,
    /// For panels of operands that are used several times.
    pub(crate) panels: (kernels::Aligned<f32>, kernels::Aligned<half::bf16>),
    /// For codes that are to be decoded.
    pub(crate) codes: Vec<u64>,
    /// For dense copies of whole operands.
    pub(crate) copies: [Vec<u64>; 6],
}

/// What a computation needs beside its operands.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The kernels.
    pub kernels: &'static dyn Kernels,
    /// Memory for copies of operands.
    pub scratch: &'a mut Scratch,
    /// Seed of the run, for stochastic rounding.
    pub seed: u64,
    /// Step of the run, for stochastic rounding.
    pub step: u64,
}

/// Data that an instruction cannot be computed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// An instruction that [`Instr::check`] should have refused.
    #[cold]
    fn undefined(function: &str, dtype: DType) -> Self {
        Self::new(format!("`{function}` is not defined for {dtype}"))
    }

    /// Operands that are not those of [`Instr::roles`].
    #[cold]
    fn operands() -> Self {
        Self::new("the operands are not those of the instruction")
    }
}

/// Carries out an instruction. Operands have passed [`Instr::check`]; `targets` and `sources` are
/// in the order of [`Instr::roles`], targets being those that are written (updated, scattered to),
/// which are not among the sources. Sources do not overlap targets, except by [`Bytes::InPlace`].
///
/// # Errors
/// Data that the instruction refuses, such as an index out of range. Targets may have been written
/// in part.
pub fn execute(
    instr: &Instr,
    targets: &mut [Target<'_>],
    sources: &[Source<'_>],
    scalars: &[i64],
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    match (instr, targets, sources) {
        (Instr::MatMul(i), [c], sources) => matrix::matmul(i, c, sources, scalars, cx),
        (Instr::Map(i), [y], [x]) => vector::map(i, y, x, cx),
        (Instr::Zip(i), [y], sources) => vector::zip(i, y, sources, cx),
        (Instr::MulAdd(_), [y], [a, b, c]) => vector::mul_add(y, [a, b, c], cx),
        (Instr::Clamp(i), [y], [x]) => vector::clamp(i, y, x, cx),
        (Instr::Compare(i), [y], sources) => vector::compare(i, y, sources, cx),
        (Instr::Select(_), [y], [mask, a, b]) => vector::select(y, [mask, a, b], cx),
        (Instr::Fill(i), [y], []) => vector::fill(i, y, cx),
        (Instr::Iota(i), [y], []) => vector::iota(i, y, scalar(scalars, 0), cx),
        (Instr::Reduce(i), [y], [x]) => reduce::reduce(i, y, x, cx),
        (Instr::ArgReduce(i), [y], [x]) => reduce::arg_reduce(i, y, x, cx),
        (Instr::Scan(i), [y], [x]) => reduce::scan(i, y, x, cx),
        (Instr::Convert(i), [y], sources) => convert::convert(i, y, sources, scalars, cx),
        (Instr::Copy(_), [y], [x]) => data::copy(y, x),
        (Instr::Pad(i), [y], [x]) => data::pad(i, y, x, cx),
        (Instr::Gather(i), [y], [x, indices]) => data::gather(i, y, x, indices, cx),
        (Instr::Scatter(i), [y], [updates, indices]) => data::scatter(i, y, updates, indices, cx),
        (Instr::Sort(i), [values, indices], [x]) => {
            sort::sort(*i.descending, values, indices, x, cx)
        }
        (Instr::TopK(i), [values, indices], [x]) => {
            sort::sort(!*i.smallest, values, indices, x, cx)
        }
        _ => Err(Fault::operands()),
    }
}

/// A scalar of the address generators.
fn scalar(scalars: &[i64], position: usize) -> i64 {
    scalars.get(position).copied().unwrap_or(0)
}
