//! Operands with their values: where a view lies now.

use dojoc_ir::codes::{MISALIGNED, OUT_OF_BOUNDS, SRAM_EXCEEDED};
use dojoc_ir::program::instr::Ref;
use dojoc_ir::program::{BufferId, Env, Segment};

use crate::compute::Layout;

/// An operand for one execution of a statement.
#[derive(Clone, Debug)]
pub struct Operand {
    /// Its text.
    pub name: String,
    /// The buffer.
    pub buffer: BufferId,
    /// Whether the buffer holds content from before the call.
    pub live_in: bool,
    /// Address of the first element.
    pub at: u64,
    /// Extents and layout.
    pub layout: Layout,
}

/// Buffers begin at multiples of this many bytes.
const ALIGNMENT: i64 = 64;

/// Most elements of an operand: with strides of zero a small buffer can have more than a run could
/// ever visit.
const MAX_ELEMENTS: u64 = 1 << 32;

/// Where an operand lies.
///
/// # Errors
/// Code and text of the rule that it breaks.
pub fn resolve(
    segment: &Segment,
    operand: Ref,
    env: &Env<'_>,
    sram_bytes: u64,
) -> Result<Operand, (u16, String)> {
    let missing = || (OUT_OF_BOUNDS, "has an operand that does not exist".into());
    let id = segment.buffer_of(operand).ok_or_else(missing)?;
    let buffer = segment.buffers.get(id).ok_or_else(missing)?;
    let name = match operand {
        Ref::Buffer(_) => format!("%{}", buffer.name),
        Ref::View(view) => format!("%{}", segment.views[view].name),
    };
    let overflows = || {
        let what = format!("{name} has a negative extent, or its place overflows");
        (OUT_OF_BOUNDS, what)
    };
    let start = buffer.at.eval(env).ok_or_else(overflows)?;
    if start < 0 || start % ALIGNMENT != 0 {
        let what = format!(
            "buffer %{} starts at {start}, not at a multiple of 64",
            buffer.name
        );
        return Err((MISALIGNED, what));
    }
    let bytes = buffer.bytes();
    if (start as u64)
        .checked_add(bytes)
        .is_none_or(|end| end > sram_bytes)
    {
        let what = format!(
            "buffer %{} has {bytes} bytes at {start}, the SRAM {sram_bytes}",
            buffer.name
        );
        return Err((SRAM_EXCEEDED, what));
    }
    let (at, view) = segment.resolve(operand, env).ok_or_else(overflows)?;
    let size = view.dtype.bytes() as i64;
    if view.strides.len() != view.shape.len() {
        return Err((OUT_OF_BOUNDS, format!("{name} has strides of another rank")));
    }
    if at % size != 0 || view.strides.iter().any(|stride| stride % size != 0) {
        let what = format!("{name} is not aligned to its elements of {size} bytes");
        return Err((MISALIGNED, what));
    }
    let offset = at - start;
    let inside = view.extent().is_some_and(|(low, high)| {
        let reach = offset.checked_add(low).zip(offset.checked_add(high));
        reach.is_some_and(|(low, high)| low >= 0 && high as u64 <= bytes)
    });
    if !inside || view.elements() > MAX_ELEMENTS {
        let what = format!(
            "{name} of extents {:?} at byte {offset} reaches outside the {bytes} bytes of buffer %{}",
            view.shape, buffer.name
        );
        return Err((OUT_OF_BOUNDS, what));
    }
    Ok(Operand {
        buffer: id,
        live_in: buffer.role.live_in(),
        at: at as u64,
        layout: Layout::new(view).ok_or_else(overflows)?,
        name,
    })
}
