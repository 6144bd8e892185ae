//! Messages about runs that failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Place};
use dojoc_ir::entity::EntityId;
use dojoc_ir::program::{DramId, SegmentId, Unit, inst_line};

use super::core::{Active, Core, Progress};
use super::decode::{Action, Code};
use super::fault::{Fault, unverified};
use super::shared::Shared;
use crate::codes;
use crate::host::core_name;

/// A fault with its place.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub core: u32,
    /// Step of the entry.
    pub step: Option<u32>,
    /// Segment, stream and statement.
    pub at: Option<(u32, u32, u32)>,
    pub fault: Fault,
}

impl Failure {
    /// The first in an order that does not depend on the schedule.
    fn key(&self) -> (u32, Option<u32>, Option<(u32, u32, u32)>) {
        (self.core, self.step, self.at)
    }

    fn diagnostic(&self, shared: &Shared<'_>) -> Diagnostic {
        let core = core_name(shared.map.address(self.core));
        let Some((segment, stream, place)) = self.at else {
            let mut diagnostic = self.fault.diagnostic();
            diagnostic.message = format!("{core}: {}", diagnostic.message);
            return diagnostic;
        };
        let mut diagnostic = self.fault.diagnostic();
        let what = instruction(shared, segment, stream, place);
        diagnostic.message = format!("{core}, {what}: {}", diagnostic.message);
        located(diagnostic, shared, (segment, stream, place))
    }
}

/// The failure that ends the run. All cores went on as far as they could after it, so that the set
/// of failures does not depend on the schedule.
pub(super) fn first_failure(shared: &Shared<'_>, failures: &[Failure]) -> Option<Diagnostic> {
    let first = failures.iter().min_by_key(|failure| failure.key())?;
    let diagnostic = first.diagnostic(shared);
    let others = failures.iter().filter(|f| f.key() != first.key()).count();
    Some(match others {
        0 => diagnostic,
        1 => diagnostic.note("one further core or stream failed"),
        n => diagnostic.note(format!("{n} further cores or streams failed")),
    })
}

fn located(
    diagnostic: Diagnostic,
    shared: &Shared<'_>,
    (segment, stream, place): (u32, u32, u32),
) -> Diagnostic {
    let id = SegmentId::from_index(segment as usize);
    let segment = shared.program.segments.get(id);
    let code = segment.and_then(|s| s.streams.get(stream as usize));
    let loc = code.and_then(|s| s.code.get(place as usize)?.loc);
    let diagnostic = match loc.and_then(|loc| shared.program.locs.get(loc)) {
        Some(loc) => diagnostic.at(Place::Node(Arc::new(loc.clone()))),
        None => diagnostic,
    };
    shared.options.locate(diagnostic, (id, stream, place))
}

/// Segment, stream and statement in words.
fn instruction(shared: &Shared<'_>, segment: u32, stream_at: u32, place: u32) -> String {
    let id = SegmentId::from_index(segment as usize);
    let found = shared.program.segments.get(id);
    let Some((segment, stream)) = found.and_then(|s| Some((s, s.streams.get(stream_at as usize)?)))
    else {
        return "an unknown instruction".into();
    };
    let unit = Unit::ALL.iter().find(|(unit, _)| *unit == stream.unit);
    let unit = unit.map_or("?", |(_, name)| name);
    let Some(inst) = stream.code.get(place as usize) else {
        return format!("the {unit} stream of @{}", segment.name);
    };
    let text = inst_line(shared.program, id, stream_at, place);
    let mut what = format!("`{text}` in the {unit} stream of @{}", segment.name);
    if let Some(loc) = inst.loc.and_then(|loc| shared.program.locs.get(loc)) {
        what.push_str(&format!(", from {loc}"));
    }
    what
}

/// What a stream waits for.
struct Waiting {
    /// Segment, stream and statement.
    at: (u32, u32, u32),
    what: String,
    /// Cores that could end the wait.
    on: Vec<u32>,
}

/// A stream that has not ended.
struct Running<'a> {
    active: &'a Active,
    stream: usize,
    code: &'a Code,
    frame: &'a [i64],
}

/// The streams of the call that a core is in.
fn running<'a>(shared: &Shared<'a>, core: &'a Core) -> Vec<Running<'a>> {
    let Some(active) = core.active.as_deref().filter(|active| active.in_call) else {
        return Vec::new();
    };
    let Some(segment) = shared.segments.get(active.segment as usize) else {
        return Vec::new();
    };
    let streams = segment.streams.iter().enumerate();
    streams
        .filter(|(stream, _)| active.streams[*stream].progress == Progress::Running)
        .map(|(stream, code)| Running {
            active,
            stream,
            code,
            frame: &active.frames[stream * segment.frame..][..segment.frame],
        })
        .collect()
}

/// Cores in calls that read an instance of a DRAM region.
type Readers = BTreeMap<(DramId, u64), Vec<u32>>;

fn readers(shared: &Shared<'_>, cores: &[Core]) -> Readers {
    let mut readers = Readers::new();
    if shared.program.dram.is_empty() {
        return readers;
    }
    for (number, core) in cores.iter().enumerate() {
        for Running { code, frame, .. } in running(shared, core) {
            for op in &code.ops {
                let (Action::DramAcquire(dram, owner) | Action::DramRelease(dram, owner)) = op
                else {
                    continue;
                };
                let instance = owner.eval(frame).ok().and_then(|i| u64::try_from(i).ok());
                if let Some(instance) = instance {
                    let readers = readers.entry((*dram, instance)).or_default();
                    if readers.last() != Some(&(number as u32)) {
                        readers.push(number as u32);
                    }
                }
            }
        }
    }
    readers
}

/// The streams of a core that wait.
fn waits(shared: &Shared<'_>, readers: &Readers, number: u32, core: &Core) -> Vec<Waiting> {
    running(shared, core)
        .into_iter()
        .filter_map(|waiting| {
            let (active, stream) = (waiting.active, waiting.stream);
            let (code, frame) = (waiting.code, waiting.frame);
            let state = &active.streams[stream];
            let op = code.ops.get(state.pc as usize)?;
            let on = (number, core, active);
            let (what, on) = wait((shared, readers), on, op, frame, state.received);
            let at = (
                active.segment,
                stream as u32,
                code.places[state.pc as usize],
            );
            Some(Waiting { at, what, on })
        })
        .collect()
}

fn wait(
    (shared, readers): (&Shared<'_>, &Readers),
    (number, core, active): (u32, &Core, &Active),
    op: &Action,
    frame: &[i64],
    received: bool,
) -> (String, Vec<u32>) {
    let name = |id| shared.program.families.get(id).map_or("?", |f| &*f.name);
    let message = |channel: &super::decode::Channel| {
        let port = channel.port.eval(frame).unwrap_or(0) as u32;
        let sender = shared
            .senders(channel.family)
            .and_then(|s| s.of(number, port));
        let on: Vec<u32> = sender.iter().map(|(core, _)| *core).collect();
        let from = on.first().map(|core| shared.map.address(*core));
        let from = from.map_or(String::new(), |core| format!(" from {}", core_name(core)));
        let what = format!(
            "a message{from} through @{} port {port}",
            name(channel.family)
        );
        (what, on)
    };
    let slot = |channel: &super::decode::Channel| {
        let port = channel.port.eval(frame).unwrap_or(0) as u32;
        let ports = core.ports.as_deref();
        let out = ports.and_then(|p| Some(&p.outs[p.out(channel.family, port)?]));
        let peers = out.into_iter().flat_map(|out| out.peers());
        let on: Vec<u32> = peers.filter(|p| p.credits == 0).map(|p| p.core).collect();
        let at = on.first().map(|core| shared.map.address(*core));
        let at = at.map_or(String::new(), |core| format!(" at {}", core_name(core)));
        let what = format!("a slot{at} of @{} port {port}", name(channel.family));
        (what, on)
    };
    let owner = |dram, index: u64| {
        let owners = shared.program.dram.get(dram)?.owners?;
        let core = shared.program.regions.get(owners)?.get(index)?;
        shared.map.number(core)
    };
    match op {
        Action::Receive(end) => message(&end.0),
        Action::Send(end) => slot(&end.0),
        Action::Relay(ends) if received => slot(&ends.2),
        Action::Relay(ends) => message(&ends.0),
        Action::Wait(token) => {
            let segment = shared
                .program
                .segments
                .values()
                .nth(active.segment as usize);
            let name = segment.and_then(|s| s.tokens.values().nth(*token as usize));
            let name = name.map_or("?", |name| &**name);
            (format!("token %{name}"), vec![number])
        }
        Action::DramAcquire(dram, index) => {
            let index = index.eval(frame).ok().and_then(|i| u64::try_from(i).ok());
            let on = index.and_then(|index| owner(*dram, index));
            ("the next epoch".into(), on.into_iter().collect())
        }
        Action::DramBegin(dram) => {
            let owners = shared.program.dram.get(*dram).and_then(|dram| dram.owners);
            let own = owners.and_then(|on| shared.map.index(shared.program, on, number));
            let on = own.and_then(|own| readers.get(&(*dram, own))).cloned();
            let what = "the readers of the last epoch to release it";
            (what.into(), on.unwrap_or_default())
        }
        _ => ("something".into(), Vec::new()),
    }
}

/// The most lines of a report.
const MOST_LINES: usize = 16;

/// The report of a run in which cores have not ended; `None` if all have.
pub(super) fn deadlock(shared: &Shared<'_>, cores: &[Core]) -> Option<Diagnostic> {
    let stuck: Vec<u32> = (0..cores.len() as u32)
        .filter(|core| !cores[*core as usize].done)
        .collect();
    let first = *stuck.first()?;
    let readers = readers(shared, cores);
    let waits = |core: u32| waits(shared, &readers, core, &cores[core as usize]);
    // Walk from the first core that waits along what it waits for, depth first, to find a cycle.
    let mut state: BTreeMap<u32, Walk> = BTreeMap::new();
    let mut path: Vec<u32> = Vec::new();
    let mut longest: Vec<u32> = vec![first];
    let mut cycle: Option<Vec<u32>> = None;
    'starts: for start in &stuck {
        if state.contains_key(start) {
            continue;
        }
        let mut stack = vec![(*start, false)];
        while let Some((core, leave)) = stack.pop() {
            if leave {
                state.insert(core, Walk::Left);
                path.pop();
                continue;
            }
            match state.get(&core) {
                Some(Walk::Left) => continue,
                Some(Walk::Open) => {
                    let from = path.iter().position(|c| *c == core).unwrap_or(0);
                    cycle = Some(path[from..].to_vec());
                    break 'starts;
                }
                None => {}
            }
            state.insert(core, Walk::Open);
            path.push(core);
            if path.len() > longest.len() && longest[0] == path[0] {
                longest.clone_from(&path);
            }
            stack.push((core, true));
            let waits = waits(core);
            // A token leads to the other streams of the core, which are looked at anyway.
            let on = waits
                .iter()
                .flat_map(|wait| &wait.on)
                .filter(|on| **on != core);
            stack.extend(on.map(|on| (*on, false)));
        }
    }
    let count = stuck.len();
    let (is_cycle, path) = match cycle {
        Some(path) => (true, path),
        None => (false, longest),
    };
    let message = match (is_cycle, path.len()) {
        (true, n) => {
            format!("{count} cores cannot go on: {n} of them wait for each other in a cycle")
        }
        (false, _) => format!("{count} cores cannot go on: they wait for what never comes"),
    };
    let mut diagnostic = Diagnostic::input(codes::DEADLOCK, message);
    let mut place = None;
    for (at, core) in path.iter().enumerate() {
        let next = path.get(at + 1).or(path.first().filter(|_| is_cycle));
        let waits = waits(*core);
        let leads = |wait: &&Waiting| next.is_none_or(|next| wait.on.contains(next));
        let tokens = waits.iter().filter(|wait| wait.on == [*core]);
        let along = waits.iter().filter(leads).filter(|wait| wait.on != [*core]);
        for wait in along.chain(tokens).take(1) {
            if diagnostic.notes.len() == MOST_LINES {
                break;
            }
            let (segment, stream, statement) = wait.at;
            place.get_or_insert(wait.at);
            diagnostic.notes.push(format!(
                "{}: {} waits for {}",
                core_name(shared.map.address(*core)),
                instruction(shared, segment, stream, statement),
                wait.what
            ));
        }
    }
    if path.len() > MOST_LINES {
        let rest = path.len() - MOST_LINES;
        diagnostic
            .notes
            .push(format!("and so on, {rest} further cores"));
    }
    if let Some(last) = path.last().filter(|_| !is_cycle) {
        let ended = waits(*last);
        let ended = ended.iter().flat_map(|wait| &wait.on);
        let ended: Option<&u32> = ended.clone().find(|on| cores[**on as usize].done);
        if let Some(core) = ended {
            let core = core_name(shared.map.address(*core));
            diagnostic
                .notes
                .push(format!("{core} has ended its schedule"));
        }
    }
    Some(match place {
        Some(at) => located(diagnostic, shared, at),
        None => diagnostic,
    })
}

/// How far the walk over waiting cores is with one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Walk {
    Open,
    Left,
}

/// A segment that cannot be decoded.
pub(super) fn undecodable(name: &str, stream: u32, statement: u32, fault: &Fault) -> Diagnostic {
    let message = format!(
        "segment @{name}, stream {stream}, statement {statement}: {}",
        fault.message
    );
    unverified(&message).diagnostic()
}
