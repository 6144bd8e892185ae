//! Recurrences that handlers build: an IR `Scan` whose body is Rust code, not a graph of the model.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::{ValueDef, ValueId};
use dojoc_ir::ops::Scan;
use dojoc_ir::types::{Shape, Type};

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::NodeResult;

/// The operands of a recurrence.
pub(super) struct Recurrence<'a> {
    /// Values carried from step to step: what the first step gets.
    pub(super) start: &'a [ValueId],
    /// Sequences, scanned along their first dim.
    pub(super) sequences: &'a [ValueId],
    /// Values that every step sees.
    pub(super) constants: &'a [ValueId],
    /// Number of steps.
    pub(super) length: Dim,
}

/// What a step works with; see [`Recurrence`].
pub(super) struct Step {
    pub(super) carried: Vec<ValueId>,
    pub(super) slices: Vec<ValueId>,
    pub(super) constants: Vec<ValueId>,
}

/// Builds the recurrence. `body` builds one step and gives the carried values, which keep their
/// types, then the values to stack. The results are the carried values after the last step, then
/// the stacked ones.
pub(super) fn scan(
    cx: &mut NodeCx<'_, '_>,
    recurrence: &Recurrence<'_>,
    body: impl FnOnce(&mut NodeCx<'_, '_>, &Step) -> NodeResult<Vec<ValueId>>,
) -> NodeResult<Vec<ValueId>> {
    let Recurrence {
        start,
        sequences,
        constants,
        length,
    } = recurrence;
    // Weights are visible in regions as they are.
    let visible = |cx: &NodeCx<'_, '_>, value: ValueId| {
        matches!(cx.imp.b.func().values[value].def, ValueDef::Weight(_))
    };
    let captured = |cx: &NodeCx<'_, '_>, value: &ValueId| !visible(cx, *value);
    let captures: Vec<ValueId> = constants
        .iter()
        .copied()
        .filter(|value| captured(cx, value))
        .collect();
    let mut rows = vec![];
    for sequence in *sequences {
        let ty = cx.ty(*sequence);
        let (_, dims) = ty.dims().split_first().ok_or_else(bad_extent)?;
        rows.push(Type::new(ty.dtype, Shape::new(dims.iter().cloned())));
    }
    let types = |cx: &NodeCx<'_, '_>, values: &[ValueId]| -> Vec<Type> {
        values.iter().map(|value| cx.ty(*value)).collect()
    };
    let (carried_types, capture_types) = (types(cx, start), types(cx, &captures));
    let region = cx.imp.b.open_region();
    let mut params = |types: Vec<Type>| -> Vec<ValueId> {
        types
            .into_iter()
            .map(|ty| cx.imp.b.param(ty, None))
            .collect()
    };
    let carried = params(carried_types);
    let slices = params(rows);
    let mut inner = params(capture_types).into_iter();
    let constants = constants
        .iter()
        .map(|value| {
            if visible(cx, *value) {
                Some(*value)
            } else {
                inner.next()
            }
        })
        .collect::<Option<_>>()
        .unwrap_or_default();
    let outcome = body(
        cx,
        &Step {
            carried,
            slices,
            constants,
        },
    );
    // Also after an error, so that what follows goes to the region around.
    cx.imp
        .b
        .close_region(outcome.as_deref().unwrap_or_default());
    outcome?;
    let mut args = start.to_vec();
    args.extend_from_slice(sequences);
    args.extend(captures);
    let op = Scan {
        carried: start.len(),
        sequences: sequences.len(),
        length: length.clone(),
    };
    cx.imp.emit(op, &args, &[region])
}
