//! Messages.

use std::sync::Arc;

use dojoc_ir::codes::{SLOT_OWNED, SLOT_REUSED, STREAM_RACE, UNINITIALISED};
use dojoc_ir::diag::{Diagnostic, Place};
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{BufferId, Inst, Program, SegmentId, Unit};

use super::Where;
use super::memory::{Conflict, Found};
use super::shadow::Mark;
use crate::host::core_name;

/// A memory in a message.
pub fn place_name(program: &Program, place: Where) -> String {
    match place {
        Where::Sram(core) => format!("the SRAM of {}", core_name(core)),
        Where::Dram(dram, instance) => {
            let name = program.dram.get(dram).map_or("?", |d| &*d.name);
            format!("instance {instance} of @{name}")
        }
    }
}

fn inst<'p>(program: &'p Program, mark: &Mark) -> Option<&'p Inst> {
    let segment = program.segments.get(mark.segment)?;
    let stream = segment.streams.get(usize::from(mark.stream))?;
    stream.code.get(mark.inst as usize)
}

/// A statement in a message: core, segment, stream, the statement as text.
pub fn statement(program: &Program, core: CoreAddress, mark: &Mark) -> String {
    let segment = program.segments.get(mark.segment);
    let name = segment.map_or("?", |s| &*s.name);
    let unit = segment.and_then(|s| s.streams.get(usize::from(mark.stream)));
    let unit = unit.and_then(|stream| Unit::ALL.iter().find(|(unit, _)| *unit == stream.unit));
    let unit = unit.map_or("?", |(_, name)| name);
    let stream = u32::from(mark.stream);
    let text = dojoc_ir::program::inst_line(program, mark.segment, stream, mark.inst);
    format!(
        "{}, segment @{name}, {unit} stream, `{text}`",
        core_name(core)
    )
}

/// The name of a buffer.
fn buffer_name(program: &Program, segment: SegmentId, buffer: BufferId) -> String {
    let segment = program.segments.get(segment);
    let name = segment
        .and_then(|s| s.buffers.get(buffer))
        .map(|b| &*b.name);
    format!("%{}", name.unwrap_or("?"))
}

/// An error of a statement, at the node of the user's model that it belongs to.
pub fn fault(
    program: &Program,
    core: CoreAddress,
    mark: &Mark,
    code: u16,
    what: &str,
) -> Diagnostic {
    let message = format!("{}: {what}", statement(program, core, mark));
    let diagnostic = Diagnostic::input(code, message);
    let loc = inst(program, mark)
        .and_then(|inst| inst.loc)
        .or_else(|| program.segments.get(mark.segment)?.loc);
    match loc.and_then(|loc| program.locs.get(loc)) {
        Some(loc) => diagnostic.at(Place::Node(Arc::new(loc.clone()))),
        None => diagnostic,
    }
}

/// Another statement as a note.
pub fn note(program: &Program, core: CoreAddress, mark: &Mark, what: &str) -> String {
    let place = inst(program, mark)
        .and_then(|inst| program.locs.get(inst.loc?))
        .map_or_else(String::new, |loc| format!(" at {loc}"));
    format!("{what} {}{place}", statement(program, core, mark))
}

/// A forbidden access of a statement to an operand.
pub fn conflict(
    program: &Program,
    core: CoreAddress,
    mark: &Mark,
    operand: &str,
    place: Where,
    found: Found,
) -> Diagnostic {
    let byte = found.byte;
    let here = format!("byte {byte} of {}", place_name(program, place));
    let fault = |code, what: String| fault(program, core, mark, code, &what);
    match found.conflict {
        Conflict::Never => fault(
            UNINITIALISED,
            format!("reads {operand}, but {here} was never written"),
        ),
        Conflict::Gone(segment, buffer) => {
            let name = buffer_name(program, segment, buffer);
            let of = program.segments.get(segment).map_or("?", |s| &*s.name);
            fault(
                UNINITIALISED,
                format!(
                    "reads {operand}, but {here} belonged to buffer {name} of an earlier call of \
                     @{of}, whose role does not keep it"
                ),
            )
            .help("give that buffer the role \"out\" or \"inout\"")
        }
        Conflict::Old => fault(
            UNINITIALISED,
            format!(
                "reads {operand}, but {here} was not written in this call, and the role of the \
                 buffer does not say that an earlier one left content"
            ),
        )
        .help("give the buffer the role \"in\" or \"inout\""),
        Conflict::Reused(other, buffer) => {
            let name = buffer_name(program, other.segment, buffer);
            fault(
                SLOT_REUSED,
                format!("reads {operand}, but {here} was written through buffer {name}"),
            )
            .note(note(program, core, &other, "written by"))
            .help("buffers that are in use at the same time need addresses of their own")
        }
        Conflict::Race { other, write } => {
            let verb = if write { "written by" } else { "read by" };
            fault(
                STREAM_RACE,
                format!(
                    "accesses {operand}, and no token orders that after another access of {here}"
                ),
            )
            .note(note(program, core, &other, verb))
            .help("add a token: `signal` behind the one, `wait` before the other")
        }
        Conflict::Owned(post) => fault(
            SLOT_OWNED,
            format!("uses {operand}, but {here} belongs to the network"),
        )
        .note(note(program, core, &post, "posted by"))
        .help("wait for the message with `recv` first"),
        Conflict::Weight => fault(
            SLOT_REUSED,
            format!("writes {operand}, but {here} holds a weight, which runs must not change"),
        ),
    }
}

/// The host reads bytes without meaning.
pub fn host_reads(program: &Program, place: Where, found: Found) -> Diagnostic {
    let (byte, place) = (found.byte, place_name(program, place));
    let why = match found.conflict {
        Conflict::Gone(segment, buffer) => format!(
            "belonged to buffer {} of a call of @{}, whose role does not keep it",
            buffer_name(program, segment, buffer),
            program.segments.get(segment).map_or("?", |s| &*s.name)
        ),
        _ => "was never written".into(),
    };
    let message = format!("the host reads byte {byte} of {place}, but it {why}");
    Diagnostic::input(UNINITIALISED, message)
}
