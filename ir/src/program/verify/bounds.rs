//! Bounds and alignment of buffers and views.

use super::super::{Affine, BufferId, Place, SegmentId, Stmt, View, ViewId};
use super::walk::{Site, sites};
use super::{Context, Scope, Violation};
use crate::codes;

/// Buffers start at multiples of this, in bytes: a beat of the network and a port of SRAM.
const BUFFER_ALIGNMENT: i64 = 64;

pub(super) fn check(cx: &mut Context<'_>) {
    let program = cx.program;
    for (id, segment) in program.segments.iter() {
        for buffer in segment.buffers.ids() {
            check_buffer(cx, id, buffer);
        }
        for site in sites(program, id) {
            if let Stmt::View(view) = site.stmt {
                check_view(cx, &site, *view);
            }
        }
    }
}

fn check_buffer(cx: &mut Context<'_>, segment: SegmentId, id: BufferId) {
    let buffer = &cx.program.segments[segment].buffers[id];
    let place = Place::Buffer(segment, id);
    let sram = cx.machine.core_sram_bytes() as i64;
    let bytes = i64::try_from(buffer.bytes()).unwrap_or(i64::MAX);
    let params: Vec<u16> = param_terms([&buffer.at]);
    let mut check = |scope: &Scope| {
        let Some((low, high)) = scope.bounds(&buffer.at) else {
            let message = "the address exceeds 64 bits";
            return Some(Violation::new(codes::SRAM_EXCEEDED, place, message));
        };
        if low < 0 {
            let message = format!("starts {} bytes before address 0", low.unsigned_abs());
            return Some(Violation::new(codes::SRAM_EXCEEDED, place, message));
        }
        let end = high.saturating_add(bytes);
        if end > sram {
            let message = format!(
                "its {bytes} bytes at address {high} exceed the SRAM of {sram} bytes by {}",
                end - sram
            );
            return Some(Violation::new(codes::SRAM_EXCEEDED, place, message));
        }
        if !aligned(scope, &buffer.at, BUFFER_ALIGNMENT) {
            let message =
                format!("starts at address {low}, which is not a multiple of {BUFFER_ALIGNMENT}");
            return Some(Violation::new(codes::MISALIGNED, place, message));
        }
        None
    };
    cx.for_rows(segment, place, &params, &mut check);
}

fn param_terms<'e>(exprs: impl IntoIterator<Item = &'e Affine>) -> Vec<u16> {
    let mut params: Vec<u16> = exprs
        .into_iter()
        .flat_map(|expr| &expr.terms)
        .filter_map(|(var, _)| match var {
            super::super::Var::Param(param) => Some(*param),
            _ => None,
        })
        .collect();
    params.sort_unstable();
    params.dedup();
    params
}

/// Whether all values of an expression are multiples of a positive number.
fn aligned(scope: &Scope, expr: &Affine, unit: i64) -> bool {
    let mut rest = expr.constant.rem_euclid(unit);
    for (var, coefficient) in &expr.terms {
        match scope.range(*var) {
            Some((low, high)) if low == high => {
                // Both factors are below the unit, which is at most 64.
                rest += low.rem_euclid(unit) * coefficient.rem_euclid(unit);
            }
            _ if coefficient % unit != 0 => return false,
            _ => {}
        }
    }
    rest % unit == 0
}

fn check_view(cx: &mut Context<'_>, site: &Site<'_>, id: ViewId) {
    let segment = &cx.program.segments[site.segment];
    let view = &segment.views[id];
    let buffer = &segment.buffers[view.buffer];
    let place = site.place();
    let size = view.dtype.bytes() as i64;
    let room = i64::try_from(buffer.bytes()).unwrap_or(i64::MAX);
    if let Some(stride) = view.strides.iter().find(|stride| **stride % size != 0) {
        let message = format!(
            "view %{} has a stride of {stride} bytes, which is no multiple of {} bytes",
            view.name, size
        );
        cx.report(Violation::new(codes::MISALIGNED, place, message));
        return;
    }
    let params = site.params(view.shape.iter().chain([&view.offset]));
    let mut check = |scope: &Scope| {
        let mut scope = site.scope(scope.clone());
        if scope.is_dead() {
            return None;
        }
        if let Some(violation) = check_extents(&scope, view, place) {
            return Some(violation);
        }
        // Without elements a view touches nothing.
        view.shape.iter().for_each(|e| scope.require_positive(e));
        if scope.is_dead() {
            return None;
        }
        if !aligned(&scope, &view.offset, size) {
            let message = format!(
                "view %{} starts at bytes that are not multiples of its element size, {size}",
                view.name
            );
            return Some(Violation::new(codes::MISALIGNED, place, message));
        }
        let reach = reach(&scope, &view.offset, &Layout::of(view));
        match reach {
            Some((low, high)) if low >= 0 && high <= room => None,
            Some((low, high)) => {
                let by = high.saturating_sub(room).max(low.saturating_neg());
                let message = format!(
                    "view %{} reaches bytes {low} to {high} of buffer %{}, which has {room}: {by} \
                     too many",
                    view.name, buffer.name
                );
                Some(Violation::new(codes::OUT_OF_BOUNDS, place, message))
            }
            None => {
                let message = format!("view %{} reaches beyond 64 bits", view.name);
                Some(Violation::new(codes::OUT_OF_BOUNDS, place, message))
            }
        }
    };
    cx.for_rows(site.segment, place, &params, &mut check);
}

fn check_extents(scope: &Scope, view: &View, place: Place) -> Option<Violation> {
    for (d, extent) in view.shape.iter().enumerate() {
        let message = match scope.bounds(extent) {
            Some((low, _)) if low >= 0 => continue,
            Some((low, _)) => format!("extent {d} of view %{} can be {low}", view.name),
            None => format!("extent {d} of view %{} exceeds 64 bits", view.name),
        };
        return Some(Violation::new(codes::BAD_OPERANDS, place, message));
    }
    None
}

/// What decides which bytes elements lie at.
pub(super) struct Layout<'v> {
    /// Extents.
    pub shape: &'v [Affine],
    /// Strides in bytes.
    pub strides: &'v [i64],
    /// Rows and columns of a block.
    pub block: (u64, u64),
    /// Bytes of an element.
    pub size: u64,
}

impl<'v> Layout<'v> {
    fn of(view: &'v View) -> Self {
        Self {
            shape: &view.shape,
            strides: &view.strides,
            block: view.packing.block(),
            size: view.dtype.bytes(),
        }
    }
}

/// The first byte and the one behind the last that a layout at an offset can touch, for extents that
/// are at least 1. Exact for extents that are not rounded up to blocks; `None` on overflow.
pub(super) fn reach(scope: &Scope, offset: &Affine, layout: &Layout<'_>) -> Option<(i64, i64)> {
    let (mut low, mut high) = (offset.clone(), offset.clone());
    let rank = layout.shape.len();
    for (d, (extent, stride)) in layout.shape.iter().zip(layout.strides).enumerate() {
        let per_block = match rank - d {
            1 => layout.block.1,
            2 => layout.block.0,
            _ => 1,
        };
        let last = extent.add(&Affine::constant(-1))?;
        let last = if per_block == 1 {
            last
        } else {
            // Rounding is not affine: the largest block number counts.
            let (_, most) = scope.bounds(&last)?;
            Affine::constant(most.div_euclid(per_block as i64))
        };
        let end = last.scale(*stride)?;
        if *stride > 0 {
            high = high.add(&end)?;
        } else {
            low = low.add(&end)?;
        }
    }
    let unit = i64::try_from(layout.block.0 * layout.block.1 * layout.size).ok()?;
    Some((
        scope.bounds(&low)?.0,
        scope.bounds(&high)?.1.checked_add(unit)?,
    ))
}
