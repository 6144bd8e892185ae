//! Proves that a program keeps the rules of the level, before anything runs.
//!
//! [`structure`] looks at the tables alone: ids, nesting, names, lengths. What passes it may be
//! indexed freely. [`verify`] adds all rules that need a machine or arithmetic: every rule holds for
//! every core, every value of the run parameters, every iteration. What can be neither proved
//! nor refuted is an error too ([`codes::UNDECIDED`]).
//!
//! Nothing walks cores one by one where a few classes of them will do: a rule about a statement is
//! checked for the distinct values of the parameters it uses ([`RowClasses`]) and for whole ranges
//! of loop counters ([`Scope`]).

mod balance;
mod bounds;
mod channels;
mod cover;
mod dram;
mod operands;
mod placement;
mod regions;
mod routes;
mod rows;
mod schedule;
mod scope;
mod streams;
mod structure;
mod trace;
mod uniform;
mod walk;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use rows::{Call, Row, RowClasses};
pub use scope::{Point, Scope};
pub use structure::structure;

use super::{Inst, LocId, Place, Program, SegmentId};
use crate::codes;
use crate::diag::{self, Diagnostic, Kind};
use crate::machine::{CoreAddress, Machine};

/// A rule that a program breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The rule.
    pub code: u16,
    /// Where.
    pub place: Place,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Further facts.
    pub notes: Vec<String>,
    /// What would help.
    pub help: Option<String>,
}

impl Violation {
    /// A violation without notes and help.
    pub fn new(code: u16, place: Place, message: impl Into<String>) -> Self {
        Self {
            code,
            place,
            message: message.into(),
            notes: Vec::new(),
            help: None,
        }
    }

    /// The same with a further fact.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The violation as the user sees it: at its place in the text if `spans` has one, else at the
    /// node of the user's model, if there is one. The message begins with the segment, stream and
    /// statement; where it is about code, a core that runs it is named.
    pub fn into_diagnostic(
        self,
        program: &Program,
        spans: Option<&BTreeMap<Place, Range<usize>>>,
    ) -> Diagnostic {
        let kind = match self.code {
            codes::UNDECIDED => Kind::Limit,
            _ => Kind::Input,
        };
        let message = match describe(program, self.place) {
            Some(prefix) => format!("{prefix}: {}", self.message),
            None => self.message,
        };
        let mut diagnostic = Diagnostic::new(self.code, kind, message);
        let span = spans.and_then(|spans| spans.get(&self.place));
        diagnostic.place = match span {
            Some(span) => Some(diag::Place::Span(span.clone())),
            None => loc_of(program, self.place)
                .and_then(|loc| program.locs.get(loc))
                .map(|loc| diag::Place::Node(Arc::new(loc.clone()))),
        };
        diagnostic.notes = self.notes;
        diagnostic.help = self.help;
        let names_a_core = |text: &String| text.contains("core (chip");
        if !names_a_core(&diagnostic.message) && !diagnostic.notes.iter().any(names_a_core) {
            let core = first_core(program, self.place);
            let note = core.map(|core| format!("on core {}", core_name(core)));
            diagnostic.notes.extend(note);
        }
        diagnostic
    }
}

/// The first core that runs the code at a place; `None` for what is not code, and for code that
/// nothing calls.
fn first_core(program: &Program, place: Place) -> Option<CoreAddress> {
    let (Place::Inst(wanted, ..) | Place::Buffer(wanted, _)) = place else {
        return None;
    };
    let steps = program.entries.values().flat_map(|entry| &entry.steps);
    let mut calls = steps.filter_map(|step| match step {
        super::Step::Call { segment, on, .. } if *segment == wanted => Some(*on),
        _ => None,
    });
    program.regions.get(calls.next()?)?.get(0)
}

/// A core as messages name it.
pub(crate) fn core_name(core: CoreAddress) -> String {
    let CoreAddress { chip, row, column } = core;
    format!("(chip {chip}, row {row}, column {column})")
}

fn inst_at(program: &Program, segment: SegmentId, stream: u32, at: u32) -> Option<&Inst> {
    let segment = program.segments.get(segment)?;
    segment.streams.get(stream as usize)?.code.get(at as usize)
}

/// The name of a place in front of a message; `None` for the program.
pub(super) fn describe(program: &Program, place: Place) -> Option<String> {
    let named = |what: &str, name: Option<&Arc<str>>| {
        Some(format!("{what} @{}", name.map_or("?", |name| &**name)))
    };
    let segment_name = |id| program.segments.get(id).map(|s| &s.name);
    match place {
        Place::Program => None,
        Place::Region(id) => named("cores", program.regions.get(id).map(|x| &x.name)),
        Place::Table(id) => named("table", program.tables.get(id).map(|x| &x.name)),
        Place::Family(id) => named("channel", program.families.get(id).map(|x| &x.name)),
        Place::Dram(id) => named("dram", program.dram.get(id).map(|x| &x.name)),
        Place::Tensor(id) => named("tensor", program.tensors.get(id).map(|x| &x.name)),
        Place::Segment(id) => named("segment", segment_name(id)),
        Place::Buffer(segment, buffer) => {
            let of = named("segment", segment_name(segment))?;
            let buffer = program.segments.get(segment)?.buffers.get(buffer)?;
            Some(format!("{of}, buffer %{}", buffer.name))
        }
        Place::Inst(segment, stream, at) => {
            let of = named("segment", segment_name(segment))?;
            let unit = program.segments.get(segment)?.streams.get(stream as usize);
            let unit = unit.map_or("?", |stream| unit_name(stream.unit));
            inst_at(program, segment, stream, at)?;
            let line = super::inst_line(program, segment, stream, at);
            Some(format!("{of}, {unit} stream, `{line}`"))
        }
        Place::Entry(id) => named("entry", program.entries.get(id).map(|x| &x.name)),
        Place::Step(id, at) => {
            let of = named("entry", program.entries.get(id).map(|x| &x.name))?;
            Some(format!("{of}, step {at}"))
        }
    }
}

/// The name of a unit in text.
pub(super) fn unit_name(unit: super::Unit) -> &'static str {
    super::Unit::ALL
        .iter()
        .find(|(other, _)| *other == unit)
        .map_or("?", |(_, name)| name)
}

fn loc_of(program: &Program, place: Place) -> Option<LocId> {
    match place {
        Place::Inst(segment, stream, at) => inst_at(program, segment, stream, at)
            .and_then(|inst| inst.loc)
            .or_else(|| program.segments.get(segment)?.loc),
        Place::Segment(segment) => program.segments.get(segment)?.loc,
        Place::Buffer(segment, buffer) => program.segments.get(segment)?.buffers.get(buffer)?.loc,
        Place::Family(family) => program.families.get(family)?.loc,
        Place::Tensor(tensor) => program.tensors.get(tensor)?.loc,
        Place::Step(entry, at) => match program.entries.get(entry)?.steps.get(at as usize)? {
            super::Step::Call { loc, .. } => *loc,
            _ => None,
        },
        _ => None,
    }
}

/// Checks all rules of the level. Violations come in the order of the checks, within each in the
/// order of the program.
pub fn verify(program: &Program, machine: &Machine) -> Vec<Violation> {
    verify_until(program, machine, &AtomicBool::new(false))
}

/// As [`verify`]; once `cancel` is set it gives up, with [`codes::CANCELLED`] alone.
pub fn verify_until(program: &Program, machine: &Machine, cancel: &AtomicBool) -> Vec<Violation> {
    let found = all_rules(program, machine, cancel);
    if cancel.load(Ordering::Relaxed) {
        let message = "the verification was cancelled";
        return vec![Violation::new(codes::CANCELLED, Place::Program, message)];
    }
    found
}

fn all_rules(program: &Program, machine: &Machine, cancel: &AtomicBool) -> Vec<Violation> {
    let found = structure(program);
    if !found.is_empty() {
        return found;
    }
    let mut cx = Context::new(program, machine, cancel);
    regions::check(&mut cx);
    if cx.has(codes::BAD_REGION) || cx.has(codes::MACHINE_MISMATCH) {
        return cx.reports.finish();
    }
    // The proof of memory takes longer than everything else together: this thread begins with it, also
    // where another one has something else to do first.
    let reports = cx.reports;
    let (memory, mut reports) = rayon::join(
        || streams::check(program, cancel),
        || all_but_memory(program, machine, cancel, reports),
    );
    memory.into_iter().for_each(|found| reports.add(found));
    reports.finish()
}

/// Checks of programs whose regions lie on the machine, but for those of memory.
fn all_but_memory(
    program: &Program,
    machine: &Machine,
    cancel: &AtomicBool,
    reports: Reports,
) -> Reports {
    let mut cx = Context {
        reports,
        ..Context::new(program, machine, cancel)
    };
    schedule::check(&mut cx);
    placement::check(&mut cx);
    bounds::check(&mut cx);
    operands::check(&mut cx);
    if let Some(channels) = channels::check(&mut cx) {
        routes::check(&mut cx, &channels);
        balance::check(&mut cx, &channels);
    }
    uniform::check(&mut cx);
    dram::check(&mut cx);
    cx.reports
}

/// Violations of one rule that are reported; the rest are counted.
const MAX_PER_RULE: usize = 100;

/// Steps of all checks together, see [`Context::spend`]. A step is an evaluation or so.
const MAX_WORK: u64 = 1 << 26;

/// What was found.
#[derive(Default)]
struct Reports {
    found: Vec<Violation>,
    counts: BTreeMap<u16, usize>,
}

impl Reports {
    /// Adds a violation; beyond [`MAX_PER_RULE`] of one code it is counted only.
    fn add(&mut self, violation: Violation) {
        let count = self.counts.entry(violation.code).or_default();
        *count += 1;
        if *count <= MAX_PER_RULE {
            self.found.push(violation);
        }
    }

    /// All violations, and how many there are beyond those.
    fn finish(self) -> Vec<Violation> {
        let mut found = self.found;
        for (code, count) in self.counts {
            if count > MAX_PER_RULE {
                let more = count - MAX_PER_RULE;
                let message = format!("{more} more violations of this rule");
                found.push(Violation::new(code, Place::Program, message));
            }
        }
        found
    }
}

/// What the checks share.
pub(super) struct Context<'p> {
    /// The program.
    pub program: &'p Program,
    /// The machine.
    pub machine: &'p Machine,
    /// Distinct parameter rows.
    pub rows: RowClasses<'p>,
    reports: Reports,
    cancel: &'p AtomicBool,
    work: u64,
    exhausted: bool,
}

impl<'p> Context<'p> {
    /// Nothing found yet.
    pub fn new(program: &'p Program, machine: &'p Machine, cancel: &'p AtomicBool) -> Self {
        Self {
            program,
            machine,
            rows: RowClasses::new(program),
            reports: Reports::default(),
            cancel,
            work: MAX_WORK,
            exhausted: false,
        }
    }

    /// Adds a violation; beyond [`MAX_PER_RULE`] of one code it is counted only.
    pub fn report(&mut self, violation: Violation) {
        self.reports.add(violation);
    }

    /// Whether a rule is broken already.
    pub fn has(&self, code: u16) -> bool {
        self.reports.counts.contains_key(&code)
    }

    /// The distinct rows of a segment, projected on some parameters; `None` if there are too many,
    /// which is reported.
    pub fn rows_of(&mut self, segment: SegmentId, params: &[u16]) -> Option<std::rc::Rc<Vec<Row>>> {
        let rows = self.rows.project(segment, params);
        for violation in self.rows.take_errors() {
            self.report(violation);
        }
        rows
    }

    /// The least and greatest value of a parameter; `None` if the segment is never called or has too
    /// many rows. Rows without value are reported.
    pub fn range_of(&mut self, segment: SegmentId, param: u16) -> Option<(i64, i64)> {
        let range = self.rows.range(segment, param);
        for violation in self.rows.take_errors() {
            self.report(violation);
        }
        range
    }

    /// An example of who has a row, for messages: "on core (chip 0, row 3, column 2)".
    pub fn example(&self, row: &Row) -> String {
        self.rows.example(row)
    }
}

#[cfg(test)]
mod tests;
