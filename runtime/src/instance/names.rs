//! What the name of a probe stands for.

use std::collections::{BTreeMap, BTreeSet};

use dojoc_ir::diag::Diagnostic;
use dojoc_ir::graph::near;
use dojoc_ir::program::instr::{Instr, Ref, Stmt};
use dojoc_ir::program::{
    Buffer, BufferId, EntryId, LocId, Program, Segment, SegmentId, Step, TensorDecl, TensorId,
    TensorKind,
};

use super::inputs::list;
use crate::codes::UNKNOWN_TENSOR;

/// Near names that a message gives at most.
const MOST_NEAR: usize = 5;
/// Values that a message lists at most.
const MOST_SHOWN: usize = 20;

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// Declared probes, inputs or outputs.
    Tensors(Vec<TensorId>),
    /// Buffers of segments that the entry calls.
    Buffers(Vec<Selection>),
}

/// A buffer with statements that write it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// The segment.
    pub segment: SegmentId,
    /// Its buffer.
    pub buffer: BufferId,
    /// The buffer itself is meant, not what some statements write to it.
    pub whole: bool,
    /// Position of the stream, of the statement in its code, and what that writes of the buffer.
    pub writes: Vec<(u32, u32, Ref)>,
}

/// What a name stands for in an entry: a declared probe, input or output, or those that are results
/// of the op of that name in the user's model; else the buffers that come from the op, and what its
/// instructions write; else the buffer `SEGMENT.BUFFER`.
///
/// Instructions of a compiled model do not tell: equal layers share them, and they come from the ops of
/// the first. So an op of it without a declared value has none.
///
/// # Errors
/// [`UNKNOWN_TENSOR`] where there is nothing of that name in the entry.
pub fn resolve(program: &Program, entry: EntryId, name: &str) -> Result<Named, Diagnostic> {
    let is = |loc: Option<LocId>| source(program, loc) == Some(name);
    let is_path = |segment: &Segment, buffer: &Buffer| is_path(name, segment, buffer);
    let of_entry = || visible(program, entry);
    if let Some((id, _)) = of_entry().find(|(_, decl)| &*decl.name == name) {
        return Ok(Named::Tensors(vec![id]));
    }
    let from: Vec<TensorId> = of_entry()
        .filter(|(_, decl)| is(decl.loc))
        .map(|(id, _)| id)
        .collect();
    if !from.is_empty() {
        return Ok(Named::Tensors(from));
    }
    let mut buffers = vec![];
    if !has_values(program) {
        buffers = results(program, select(program, |_, buffer| is(buffer.loc), is));
    }
    if buffers.is_empty() {
        buffers = select(program, is_path, |_| false);
    }
    if buffers.is_empty() {
        return Err(unknown(program, entry, name));
    }
    let called: BTreeSet<SegmentId> = called(program, entry).collect();
    buffers.retain(|found| called.contains(&found.segment));
    if buffers.is_empty() {
        let entry = &program.entries[entry].name;
        let message = format!("entry @{entry} does not run the code that computes `{name}`");
        return Err(Diagnostic::input(UNKNOWN_TENSOR, message));
    }
    Ok(Named::Buffers(buffers))
}

/// Declared probes, and inputs and outputs of an entry.
fn visible(program: &Program, entry: EntryId) -> impl Iterator<Item = (TensorId, &TensorDecl)> {
    let entry = &program.entries[entry];
    program.tensors.iter().filter(|(id, decl)| match decl.kind {
        TensorKind::Probe => true,
        TensorKind::Input => entry.inputs.contains(id),
        TensorKind::Output => entry.outputs.contains(id),
        TensorKind::Weight(_) | TensorKind::State(_) => false,
    })
}

/// Whether this is the program of a model, made for a machine and with its values declared as probes.
fn has_values(program: &Program) -> bool {
    let mut tensors = program.tensors.values();
    program.machine.fingerprint != 0
        && tensors.any(|decl| decl.kind == TensorKind::Probe && decl.loc.is_some())
}

/// What of the buffers of an op holds its results: not those of code that only brings its operands
/// (copies, borders) where another one computes, and not temporaries where calls leave something.
fn results(program: &Program, mut found: Vec<Selection>) -> Vec<Selection> {
    let computes = |selection: &Selection| {
        let code = &program.segments[selection.segment].streams;
        selection.writes.iter().any(|(stream, at, _)| {
            let stmt = &code[*stream as usize].code[*at as usize].stmt;
            matches!(stmt, Stmt::Compute { instr, .. }
                if !matches!(instr, Instr::Copy(_) | Instr::Fill(_)))
        })
    };
    let computing: BTreeSet<SegmentId> = (found.iter())
        .filter(|selection| computes(selection))
        .map(|selection| selection.segment)
        .collect();
    if !computing.is_empty() {
        found.retain(|selection| computing.contains(&selection.segment));
    }
    let stays = |selection: &Selection| {
        let buffer = &program.segments[selection.segment].buffers[selection.buffer];
        buffer.role.live_out()
    };
    if found.iter().any(stays) {
        found.retain(stays);
    }
    found
}

/// The name of the op of the user's model.
fn source(program: &Program, loc: Option<LocId>) -> Option<&str> {
    Some(&*program.locs.get(loc?)?.name)
}

/// Whether a name is `SEGMENT.BUFFER`.
fn is_path(name: &str, segment: &Segment, buffer: &Buffer) -> bool {
    let rest = name.strip_prefix(&*segment.name);
    let rest = rest.and_then(|rest| rest.strip_prefix('.'));
    rest == Some(&*buffer.name)
}

/// Segments that an entry calls.
fn called(program: &Program, entry: EntryId) -> impl Iterator<Item = SegmentId> {
    let steps = program.entries[entry].steps.iter();
    steps.filter_map(|step| match step {
        Step::Call { segment, .. } => Some(*segment),
        Step::Repeat { .. } | Step::Probe(_) => None,
    })
}

/// Calls `visit` with stream, statement, source, operand and buffer of everything that statements
/// of a segment write.
fn each_write(segment: &Segment, mut visit: impl FnMut(u32, u32, Option<LocId>, Ref, BufferId)) {
    for (stream, code) in segment.streams.iter().enumerate() {
        for (at, inst) in code.code.iter().enumerate() {
            for operand in inst.stmt.writes() {
                if let Some(buffer) = segment.buffer_of(operand) {
                    visit(stream as u32, at as u32, inst.loc, operand, buffer);
                }
            }
        }
    }
}

/// The buffers that are meant, and those that statements of a source write.
fn select(
    program: &Program,
    is_meant: impl Fn(&Segment, &Buffer) -> bool,
    is_source: impl Fn(Option<LocId>) -> bool,
) -> Vec<Selection> {
    let mut found = Vec::new();
    for (id, segment) in program.segments.iter() {
        let selection = |buffer, whole| Selection {
            segment: id,
            buffer,
            whole,
            writes: Vec::new(),
        };
        let mut here: BTreeMap<BufferId, Selection> = BTreeMap::new();
        for (buffer, decl) in segment.buffers.iter() {
            if is_meant(segment, decl) {
                here.insert(buffer, selection(buffer, true));
            }
        }
        each_write(segment, |stream, at, loc, operand, buffer| {
            if is_source(loc) {
                let found = here.entry(buffer);
                found.or_insert_with(|| selection(buffer, false));
            }
            if let Some(found) = here.get_mut(&buffer)
                && (found.whole || is_source(loc))
            {
                found.writes.push((stream, at, operand));
            }
        });
        found.extend(here.into_values());
    }
    found
}

/// The error for a name that stands for nothing.
fn unknown(program: &Program, entry: EntryId, name: &str) -> Diagnostic {
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut probes = Vec::new();
    let mut add = |loc| known.extend(source(program, loc).map(str::to_owned));
    for (_, decl) in visible(program, entry) {
        add(decl.loc);
        probes.push(&*decl.name);
    }
    let compiled = has_values(program);
    if !compiled {
        for segment in program.segments.values() {
            each_write(segment, |_, _, loc, _, _| add(loc));
            segment.buffers.values().for_each(|buffer| add(buffer.loc));
        }
    }
    known.extend(probes.iter().map(|name| (*name).to_owned()));
    for segment in program.segments.values() {
        let buffers = segment.buffers.values();
        known.extend(buffers.map(|buffer| format!("{}.{}", segment.name, buffer.name)));
    }
    let shown = list(&probes[..probes.len().min(MOST_SHOWN)]);
    let note = match probes.len().saturating_sub(MOST_SHOWN) {
        0 => format!("it has {shown}"),
        more => format!("it has {shown} and {more} more"),
    };
    let hint = "`dojoc dis` shows source names and buffers, which are SEGMENT.BUFFER here";
    let error = |message: String| {
        let found = Diagnostic::input(UNKNOWN_TENSOR, message);
        let found = found.note(note);
        match compiled {
            true => found.note(
                "values that were merged with others or computed in another form are not in a program",
            ),
            false => found.note(hint),
        }
    };
    let is_source = program.locs.values().any(|loc| &*loc.name == name);
    let found = match (is_source, compiled) {
        (true, true) => error(format!("no result of `{name}` is left in the program")),
        (true, false) => return error(format!("nothing of `{name}` is written to SRAM")),
        (false, _) => error(format!(
            "the program has no value, source name or buffer `{name}`"
        )),
    };
    let close = near(name, known.iter().map(String::as_str), MOST_NEAR);
    match close.as_slice() {
        [] => found,
        names => {
            let names: Vec<String> = names.iter().map(|near| format!("`{near}`")).collect();
            found.help(format!("did you mean {}?", names.join(" or ")))
        }
    }
}
