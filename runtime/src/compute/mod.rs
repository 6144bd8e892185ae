//! What compute instructions do to bytes.
//!
//! [`execute`] is the meaning of every [`Instr`], over slices of memory. It knows nothing of cores,
//! streams or buffers; executor and sanitizer bring the slices.

use std::sync::Arc;

use dojoc_ir::program::{Instr, ViewType};

use crate::kernels::{self, Kernels};

/// A view with what is asked of it again and again, computed once.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// For dense copies of whole operands.
    pub(crate) copies: [Vec<u64>; 4],
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
    let _ = (instr, targets, sources, scalars, cx);
    Err(Fault {
        message: "not written yet".into(),
    })
}
