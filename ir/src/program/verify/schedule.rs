//! Entries: rows have values; inputs, outputs and probes are of their kind.

use super::super::{Entry, EntryId, Place, Step, TensorId, TensorKind};
use super::{Context, Violation};
use crate::codes;

pub(super) fn check(cx: &mut Context<'_>) {
    let program = cx.program;
    for (id, segment) in program.segments.iter() {
        for param in 0..segment.params.len() as u16 {
            // Whether or not anything depends on it, every entry of a row has a value.
            cx.range_of(id, param);
        }
    }
    for (id, entry) in program.entries.iter() {
        signature(cx, id, entry);
        for (at, step) in entry.steps.iter().enumerate() {
            if let Step::Probe(tensor) = step {
                let declared = &program.tensors[*tensor];
                if !matches!(declared.kind, TensorKind::Probe) {
                    let place = Place::Step(id, at as u32);
                    let message =
                        format!("@{} is {}, not a probe", declared.name, kind(cx, *tensor));
                    cx.report(Violation::new(codes::BAD_SCHEDULE, place, message));
                }
            }
        }
    }
}

fn kind(cx: &Context<'_>, tensor: TensorId) -> &'static str {
    match cx.program.tensors[tensor].kind {
        TensorKind::Input => "an input",
        TensorKind::Output => "an output",
        TensorKind::Weight(_) => "a weight",
        TensorKind::State(_) => "a state",
        TensorKind::Probe => "a probe",
    }
}

fn signature(cx: &mut Context<'_>, id: EntryId, entry: &Entry) {
    for (list, what) in [(&entry.inputs, "input"), (&entry.outputs, "output")] {
        let mut seen = std::collections::BTreeSet::new();
        for tensor in list {
            let declared = &cx.program.tensors[*tensor];
            let fits = match declared.kind {
                TensorKind::Input => what == "input",
                TensorKind::Output => what == "output",
                _ => false,
            };
            if !fits {
                let message = format!(
                    "@{} is listed as {what}, but is {}",
                    declared.name,
                    kind(cx, *tensor)
                );
                cx.report(Violation::new(
                    codes::BAD_SCHEDULE,
                    Place::Entry(id),
                    message,
                ));
            }
            if !seen.insert(*tensor) {
                let message = format!("{what} @{} is listed twice", declared.name);
                cx.report(Violation::new(
                    codes::BAD_SCHEDULE,
                    Place::Entry(id),
                    message,
                ));
            }
        }
    }
}
