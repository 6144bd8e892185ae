//! Handlers: one function per operator, in files by theme.
//!
//! **To add an operator**: write `fn name(cx: &mut NodeCx<'_, '_>) -> NodeResult` in the file of
//! its theme and add a line `onnx("Name", &[(1, name)])` to that file's `OPS`; a new file gets a
//! line in [`ALL`]. A handler
//!
//! 1. reads attributes with `cx.int("axis", -1)?`, `cx.floats("scales")?` and the like; what it
//!    does not read is reported to the user as not supported, what may be ignored goes to
//!    `cx.ignore_attrs`;
//! 2. reads operands: `cx.input(0)?` is a value, `cx.optional(2)?` may be absent,
//!    `cx.require_ints(1, "axes")?` must be known at import;
//! 3. builds nodes with `cx.op(Transpose { perm }, &[x])?` and the helpers of `build.rs`;
//! 4. gives results: `cx.output(0, y)`.
//!
//! One handler serves all versions and looks at `cx.version` where they differ; `(13, other)` in
//! the list sets another handler from version 13 on. Folding, symbolic extents, names and
//! locations are the framework's business. Errors: `NodeError::invalid` where the model is wrong,
//! `NodeError::unsupported(..).help(closest supported form)` where we are.

mod activation;
mod attention;
mod basic;
mod choice;
mod control;
mod conv;
mod dynamic_slice;
mod einsum;
mod elementwise;
mod flex_attention;
#[cfg(test)]
mod form_tests;
mod grid;
mod heads;
mod layout;
mod linalg;
mod linear_attention;
mod losses;
mod matmul;
mod movement;
mod nonlinear;
mod norm;
mod normalization;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod sampling;
mod scan;
mod scatter;
#[cfg(test)]
mod sequence_tests;
mod shared;
mod signal;
mod training;
mod window;

#[cfg(test)]
mod tests;

use super::table::OpEntry;

/// The operators of all files.
pub(super) const ALL: &[&[OpEntry]] = &[
    attention::OPS,
    basic::OPS,
    choice::OPS,
    control::OPS,
    conv::OPS,
    einsum::OPS,
    elementwise::OPS,
    flex_attention::OPS,
    grid::OPS,
    heads::OPS,
    layout::OPS,
    linalg::OPS,
    linear_attention::OPS,
    losses::OPS,
    matmul::OPS,
    movement::OPS,
    nonlinear::OPS,
    norm::OPS,
    normalization::OPS,
    pool::OPS,
    quantize::OPS,
    recurrent::OPS,
    reduce::OPS,
    resize::OPS,
    scatter::OPS,
    signal::OPS,
    training::OPS,
];

/// First element and number of elements of a slice with a constant `step` of a dim of `extent`,
/// clamped as ONNX (and Python) clamp; `None` for a step of zero.
pub(super) fn slice_range(start: i64, end: i64, step: i64, extent: u64) -> Option<(i64, u64)> {
    let extent = i128::from(extent);
    let (start, end, step) = (i128::from(start), i128::from(end), i128::from(step));
    let from_front = |x: i128| if x < 0 { x + extent } else { x };
    let (low, high) = if step > 0 {
        (0, extent)
    } else {
        (-1, extent - 1)
    };
    let start = from_front(start).clamp(0, high.max(0));
    let end = from_front(end).clamp(low, high);
    let span = match step {
        0 => return None,
        _ if step > 0 => (end - start + step - 1) / step,
        _ if extent == 0 => 0,
        _ => (start - end - step - 1) / -step,
    };
    let start = i64::try_from(start).ok()?;
    Some((start, u64::try_from(span.max(0)).ok()?))
}
