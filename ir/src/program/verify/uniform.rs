//! Uniform control: what decides whether a transfer happens is the same number at all its ends.
//!
//! Constants, parameters, run parameters and loop counters are fixed by the program. A register is
//! uniform if it was read from exactly the bytes that its stream last received through the family it
//! names, or sent through it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::instr::Ref;
use super::super::{Affine, BufferId, Env, FamilyId, Place, Segment, SegmentId, Stmt, Var};
use super::walk::{Frame, Site, sites};
use super::{Context, Violation};
use crate::codes;

/// Families that deliver the registers of the loops around a statement, outermost first.
type Control = Vec<FamilyId>;

/// Ends of a family under loops with registers, with an example each.
#[derive(Default)]
struct Ends {
    sends: BTreeMap<Control, Place>,
    receives: BTreeMap<Control, Place>,
}

pub(super) fn check(cx: &mut Context<'_>) {
    let program = cx.program;
    let mut ends: BTreeMap<FamilyId, Ends> = BTreeMap::new();
    for (id, segment) in program.segments.iter() {
        let mut judge = Judge {
            segment,
            id,
            counts: counts(segment),
            judged: BTreeSet::new(),
        };
        for site in sites(program, id) {
            judge.site(cx, &site, &mut ends);
        }
    }
    for (family, ends) in ends {
        both_ends(cx, family, &ends);
    }
}

/// Sends under a register loop have receives under one of the same family, and the other way round.
fn both_ends(cx: &mut Context<'_>, family: FamilyId, ends: &Ends) {
    let pairs = [
        (&ends.sends, &ends.receives, "sent", "received"),
        (&ends.receives, &ends.sends, "received", "sent"),
    ];
    for (these, those, verb, other) in pairs {
        for (control, place) in these {
            if control.is_empty() || those.contains_key(control) || those.is_empty() {
                continue;
            }
            let name = |family: &FamilyId| format!("@{}", cx.program.families[*family].name);
            let vias: Vec<String> = control.iter().map(name).collect();
            let message = format!(
                "messages of @{} are {verb} in loops counted by {}, but nowhere {other} in such loops",
                cx.program.families[family].name,
                vias.join(", ")
            );
            cx.report(Violation::new(codes::NON_UNIFORM, *place, message));
        }
    }
}

/// Where registers are read: stream and position.
fn counts(segment: &Segment) -> BTreeMap<u16, (usize, usize)> {
    let mut counts = BTreeMap::new();
    for (s, stream) in segment.streams.iter().enumerate() {
        for (at, inst) in stream.code.iter().enumerate() {
            if let Stmt::Count { register, .. } = &inst.stmt {
                counts.insert(*register, (s, at));
            }
        }
    }
    counts
}

fn registers(expr: &Affine) -> impl Iterator<Item = u16> {
    expr.terms.iter().filter_map(|(var, _)| match var {
        Var::Register(register) => Some(*register),
        _ => None,
    })
}

struct Judge<'p> {
    segment: &'p Segment,
    id: SegmentId,
    counts: BTreeMap<u16, (usize, usize)>,
    judged: BTreeSet<u16>,
}

impl Judge<'_> {
    fn site(&mut self, cx: &mut Context<'_>, site: &Site<'_>, ends: &mut BTreeMap<FamilyId, Ends>) {
        // What chooses the other end, and the operand whose size is that of a message.
        let (choices, message): (Vec<&Affine>, Option<Ref>) = match site.stmt {
            Stmt::Post { port, slot, .. } | Stmt::Receive { port, slot, .. } => {
                (vec![port], Some(*slot))
            }
            Stmt::Send { port, from, .. } => (vec![port], Some(*from)),
            Stmt::Relay {
                port,
                slot,
                to_port,
                ..
            } => (vec![port, to_port], Some(*slot)),
            Stmt::DramAcquire { owner, .. } | Stmt::DramRelease { owner, .. } => {
                (vec![owner], None)
            }
            Stmt::DramBegin(_) | Stmt::DramCommit(_) => (Vec::new(), None),
            _ => return,
        };
        let word = site.stmt.mnemonic();
        if let Some(register) = choices.iter().find_map(|expr| registers(expr).next()) {
            let message = format!(
                "`{word}` goes to a port or owner that depends on register %{}",
                self.segment.registers[usize::from(register)]
            );
            let violation = Violation::new(codes::NON_UNIFORM, site.place(), message);
            cx.report(violation.help("use all ports, under loops whose counts are uniform"));
        }
        let mut control = Control::new();
        for frame in site.frames.iter() {
            if let Frame::Loop(count) = frame {
                for register in registers(count) {
                    let what = "stands in a loop whose count depends on";
                    control.extend(self.uniform(cx, site, register, what));
                }
            }
        }
        if let Some(Ref::View(view)) = message {
            for register in self.segment.views[view].shape.iter().flat_map(registers) {
                let what = "has a message whose size depends on";
                self.uniform(cx, site, register, what);
            }
        }
        let place = site.place();
        match site.stmt {
            Stmt::Send { family, .. } => {
                let ends = ends.entry(*family).or_default();
                ends.sends.entry(control).or_insert(place);
            }
            Stmt::Receive { family, .. } => {
                let ends = ends.entry(*family).or_default();
                ends.receives.entry(control).or_insert(place);
            }
            Stmt::Relay { family, to, .. } => {
                let incoming = ends.entry(*family).or_default();
                incoming.receives.entry(control.clone()).or_insert(place);
                let outgoing = ends.entry(*to).or_default();
                outgoing.sends.entry(control).or_insert(place);
            }
            _ => {}
        }
    }

    /// The family that delivered a register; reports it if there is none.
    fn uniform(
        &mut self,
        cx: &mut Context<'_>,
        site: &Site<'_>,
        register: u16,
        what: &str,
    ) -> Option<FamilyId> {
        let (stream, at) = *self.counts.get(&register)?;
        let Stmt::Count { via, from, .. } = &self.segment.streams[stream].code[at].stmt else {
            return None;
        };
        let name = &self.segment.registers[usize::from(register)];
        let Some(via) = *via else {
            let message = format!(
                "`{}` {what} register %{name}, which may differ between cores",
                site.stmt.mnemonic()
            );
            let help = "deliver the value to all members by a channel and name its family in `via`";
            cx.report(Violation::new(codes::NON_UNIFORM, site.place(), message).help(help));
            return None;
        };
        if self.judged.insert(register)
            && let Err(why) = origin(self.segment, stream, at, *from, via)
        {
            let family = &cx.program.families[via].name;
            let message =
                format!("register %{name} is not proved to hold what @{family} delivered: {why}");
            let place = Place::Inst(self.id, stream as u32, at as u32);
            let help =
                "receive the value into a slot of its own and read it from there, in one stream";
            cx.report(Violation::new(codes::NON_UNIFORM, place, message).help(help));
        }
        Some(via)
    }
}

/// Whether the operand of a `count` is what its stream last received or sent through `via`.
fn origin(
    segment: &Segment,
    stream: usize,
    at: usize,
    from: Ref,
    via: FamilyId,
) -> Result<(), String> {
    let code = &segment.streams[stream].code;
    let loops = |position: usize| -> Vec<(usize, usize)> {
        code.iter()
            .enumerate()
            .filter_map(|(start, inst)| match &inst.stmt {
                Stmt::Loop { len, .. } => Some((start, start + 1 + *len as usize)),
                _ => None,
            })
            .filter(|(start, end)| *start < position && position < *end)
            .collect()
    };
    let around = loops(at);
    let untouched = |range: std::ops::Range<usize>| {
        let touched = range.into_iter().find(|other| {
            *other != at && writes(&code[*other].stmt).any(|operand| meet(segment, operand, from))
        });
        match touched {
            Some(other) => Err(format!(
                "`{}` (statement {other} of the stream) writes these bytes",
                code[other].stmt.mnemonic()
            )),
            None => Ok(()),
        }
    };
    for before in (0..at).rev() {
        let delivered = match &code[before].stmt {
            Stmt::Receive { family, slot, .. } if *family == via => *slot,
            Stmt::Send { family, from, .. } if *family == via => *from,
            Stmt::Relay {
                family, slot, to, ..
            } if *family == via || *to == via => *slot,
            _ => continue,
        };
        if !same(segment, delivered, from) {
            return Err("the last message of the family is another view".into());
        }
        let outer = loops(before);
        if !outer.iter().all(|enclosing| around.contains(enclosing)) {
            return Err("the last message of the family is in another loop".into());
        }
        untouched(before + 1..at)?;
        // In loops that the message is not in, statements behind come before the next reading.
        if let Some((start, end)) = around.iter().find(|enclosing| !outer.contains(enclosing)) {
            untouched(start + 1..*end)?;
        }
        return Ok(());
    }
    Err("nothing is received or sent through the family before".into())
}

/// Operands that a statement writes or gives away.
fn writes(stmt: &Stmt) -> impl Iterator<Item = Ref> {
    let posted = match stmt {
        Stmt::Post { slot, .. } => Some(*slot),
        _ => None,
    };
    stmt.writes().into_iter().chain(posted)
}

/// Buffer, offset, and the range of bytes if it is known.
type Window = (BufferId, Affine, Option<(i64, i64)>);

/// The window that an operand is.
fn window(segment: &Segment, operand: Ref) -> Option<Window> {
    match operand {
        Ref::Buffer(buffer) => {
            let bytes = segment.buffers[buffer].bytes() as i64;
            Some((buffer, Affine::default(), Some((0, bytes))))
        }
        Ref::View(view) => {
            let view = &segment.views[view];
            let range = view.offset.as_constant().and_then(|offset| {
                let (low, high) = view.view_type(&Env::default())?.extent()?;
                Some((offset.checked_add(low)?, offset.checked_add(high)?))
            });
            Some((view.buffer, view.offset.clone(), range))
        }
    }
}

/// Whether two operands may have bytes in common, in one buffer.
fn meet(segment: &Segment, a: Ref, b: Ref) -> bool {
    let (Some(a), Some(b)) = (window(segment, a), window(segment, b)) else {
        return true;
    };
    a.0 == b.0
        && match (a.2, b.2) {
            (Some(a), Some(b)) => a.0 < b.1 && b.0 < a.1,
            _ => true,
        }
}

/// Whether a message and the single element that `count` reads are the same bytes.
fn same(segment: &Segment, message: Ref, element: Ref) -> bool {
    if message == element {
        return true;
    }
    let bytes = |operand: Ref| match operand {
        Ref::Buffer(buffer) => segment.buffers[buffer].view_type().map(|ty| ty.bytes()),
        Ref::View(view) => {
            let ty = segment.views[view].view_type(&Env::default());
            ty.map(|ty| ty.bytes())
        }
    };
    match (window(segment, message), window(segment, element)) {
        (Some(a), Some(b)) => {
            a.0 == b.0 && a.1 == b.1 && bytes(message).is_some() && bytes(message) == bytes(element)
        }
        _ => false,
    }
}
