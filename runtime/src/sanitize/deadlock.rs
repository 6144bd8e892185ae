//! The message of a deadlock: who waits for whom.

use dojoc_ir::diag::{Diagnostic, Place};
use dojoc_ir::program::{Family, FamilyId, Inst, Stmt, TokenId};

use super::launch::{Run, StreamRef, Wait};
use super::report::statement;
use super::shadow::Mark;
use crate::codes::DEADLOCK;
use crate::host::core_name;

/// Streams that are named in a message, at most.
const MAX_SHOWN: usize = 32;

/// Who must act before a stream can go on.
enum Next {
    /// That stream.
    Stream(StreamRef),
    /// Nobody can: the reason.
    Nobody(String),
}

/// The error of a run in which nobody can go on.
pub fn report(run: &Run<'_>) -> Diagnostic {
    let mut chain: Vec<StreamRef> = Vec::new();
    let mut next = waiting(run).next();
    let mut reason = None;
    let mut cycle = 0;
    while let Some(stream) = next.take() {
        if let Some(first) = chain.iter().position(|s| *s == stream) {
            cycle = first;
            break;
        }
        chain.push(stream);
        match after(run, stream) {
            Next::Stream(other) => next = Some(other),
            Next::Nobody(why) => reason = Some(why),
        }
    }
    let stuck = waiting(run).count();
    let what = match &reason {
        Some(_) => "waits for what never comes",
        None => "waits for itself",
    };
    let shown = &chain[cycle..];
    let message = format!("the program {what}: {stuck} streams cannot go on");
    let mut found = Diagnostic::input(DEADLOCK, message);
    for stream in shown.iter().take(MAX_SHOWN) {
        found = found.note(line(run, *stream));
    }
    if shown.len() > MAX_SHOWN {
        found = found.note(format!("and {} more", shown.len() - MAX_SHOWN));
    }
    found = match (reason, shown.first()) {
        (Some(reason), _) => found.note(reason),
        (None, Some(first)) if shown.len() > 1 => {
            let core = core_name(run.cores[first.core].address);
            found.note(format!("which waits for the first of these, on {core}"))
        }
        _ => found,
    };
    let loc = shown.iter().find_map(|s| {
        let inst = instruction(run, *s)?;
        run.program.locs.get(inst.loc?)
    });
    let found = match loc {
        Some(loc) => found.at(Place::Node(loc.clone().into())),
        None => found,
    };
    match shown.first().and_then(|stream| mark(run, *stream)) {
        Some(mark) => run.options.locate(found, mark.place()),
        None => found,
    }
}

/// Streams that wait, in order.
fn waiting<'r>(run: &'r Run<'_>) -> impl Iterator<Item = StreamRef> + 'r {
    run.cores.iter().enumerate().flat_map(|(core, state)| {
        let threads = state.call.iter().flat_map(|call| &call.threads);
        let waits = threads.enumerate().filter(|(_, t)| t.waits.is_some());
        waits.map(move |(stream, _)| StreamRef { core, stream })
    })
}

fn instruction<'r>(run: &'r Run<'_>, stream: StreamRef) -> Option<&'r Inst> {
    let call = run.cores[stream.core].call.as_ref()?;
    let code = &run.program.segments[call.segment].streams[stream.stream].code;
    code.get(call.threads[stream.stream].at)
}

/// The statement at which a stream waits.
fn mark(run: &Run<'_>, stream: StreamRef) -> Option<Mark> {
    let call = run.cores[stream.core].call.as_ref()?;
    Some(Mark {
        segment: call.segment,
        stream: stream.stream as u8,
        inst: call.threads[stream.stream].at as u32,
        time: 0,
    })
}

/// A stream with the statement at which it waits.
fn line(run: &Run<'_>, stream: StreamRef) -> String {
    let core = &run.cores[stream.core];
    let (Some(call), Some(mark)) = (&core.call, mark(run, stream)) else {
        return core_name(core.address);
    };
    let thread = &call.threads[stream.stream];
    let for_what = match thread.waits {
        Some(Wait::Token(..)) => "waits for a signal",
        Some(Wait::Message(_)) => "waits for a message",
        Some(Wait::Slot(_)) => "waits for a slot at the receiver",
        Some(Wait::Readers(_)) => "waits for readers to release the last epoch",
        Some(Wait::Epoch(_)) => "waits for the next epoch",
        None => "can go on",
    };
    let node = instruction(run, stream)
        .and_then(|inst| run.program.locs.get(inst.loc?))
        .map_or_else(String::new, |loc| format!(" at {loc}"));
    format!(
        "{} {for_what}{node}",
        statement(run.program, core.address, &mark)
    )
}

/// Who must act before a stream can go on.
fn after(run: &Run<'_>, stream: StreamRef) -> Next {
    let wait = run.cores[stream.core]
        .call
        .as_ref()
        .and_then(|call| call.threads[stream.stream].waits);
    let channel = |end: usize| {
        let end = &run.channels.ends[end];
        (end, &run.program.families[end.family])
    };
    match wait {
        None => Next::Nobody("which can go on: a defect of the sanitizer".into()),
        Some(Wait::Token(core, token)) => {
            let who = format!(
                "but no stream of {} signals that",
                core_name(run.cores[core].address)
            );
            let signals = |stmt: &Stmt| signals(stmt, token);
            // A token is one of a call: a later call cannot help.
            let streams =
                (0..run.call(core).threads.len()).map(|stream| StreamRef { core, stream });
            let waits = |s: &StreamRef| run.call(core).threads[s.stream].waits.is_some();
            let mut signalling = streams.filter(|s| {
                waits(s) && code(run, *s).is_some_and(|c| c.iter().any(|i| signals(&i.stmt)))
            });
            signalling.next().map_or(Next::Nobody(who), Next::Stream)
        }
        Some(Wait::Message(at)) => {
            let (end, family) = channel(at);
            let sends = |stmt: &Stmt| sends(stmt, end.family);
            at_core(run, end.sender, "send on", family, sends)
        }
        Some(Wait::Slot(at)) => {
            let (end, family) = channel(at);
            let takes = |stmt: &Stmt| receives(stmt, end.family);
            at_core(run, end.receiver, "post to", family, takes)
        }
        Some(Wait::Epoch(at)) => match run.instances.all[at].owner {
            Some(owner) => match run.positions.get(&owner) {
                Some(core) => {
                    let who = format!("but {} publishes no further epoch", core_name(owner));
                    find(run, *core, who, |stmt| {
                        matches!(stmt, Stmt::DramBegin(_) | Stmt::DramCommit(_))
                    })
                }
                None => Next::Nobody(format!("but {} does not run", core_name(owner))),
            },
            None => Next::Nobody("but the region has no owner who could write it".into()),
        },
        Some(Wait::Readers(at)) => {
            let dram = run.instances.all[at].dram;
            let reads = |stmt: &Stmt| match stmt {
                Stmt::DramAcquire { dram: other, .. } | Stmt::DramRelease { dram: other, .. } => {
                    *other == dram
                }
                _ => false,
            };
            let readers = waiting(run).find(|s| {
                *s != stream
                    && code(run, *s).is_some_and(|code| code.iter().any(|i| reads(&i.stmt)))
            });
            match readers {
                Some(reader) => Next::Stream(reader),
                None => Next::Nobody("but no core releases it".into()),
            }
        }
    }
}

fn signals(stmt: &Stmt, token: usize) -> bool {
    use dojoc_ir::entity::EntityId;
    matches!(stmt, Stmt::Signal(other) if TokenId::from_index(token) == *other)
}

fn sends(stmt: &Stmt, family: FamilyId) -> bool {
    match stmt {
        Stmt::Send { family: other, .. } | Stmt::Relay { to: other, .. } => *other == family,
        _ => false,
    }
}

fn receives(stmt: &Stmt, family: FamilyId) -> bool {
    matches!(stmt, Stmt::Post { family: other, .. } if *other == family)
}

fn code<'r>(run: &'r Run<'_>, stream: StreamRef) -> Option<&'r [Inst]> {
    let call = run.cores[stream.core].call.as_ref()?;
    let segment = &run.program.segments[call.segment];
    Some(&segment.streams[stream.stream].code)
}

/// The stream of the other end of a channel that must act.
fn at_core(
    run: &Run<'_>,
    core: dojoc_ir::machine::CoreAddress,
    verb: &str,
    family: &Family,
    acts: impl Fn(&Stmt) -> bool,
) -> Next {
    let name = core_name(core);
    match run.positions.get(&core) {
        None => Next::Nobody(format!("but {name} does not run")),
        Some(position) => {
            let who = format!("but {name} has ended and will not {verb} @{}", family.name);
            find(run, *position, who, acts)
        }
    }
}

/// The stream of a core that must act: the one whose code does it, else, as a later call may, any
/// that waits.
fn find(run: &Run<'_>, core: usize, nobody: String, acts: impl Fn(&Stmt) -> bool) -> Next {
    let Some(call) = &run.cores[core].call else {
        return Next::Nobody(nobody);
    };
    let streams = || (0..call.threads.len()).map(|stream| StreamRef { core, stream });
    let waits = |s: &StreamRef| call.threads[s.stream].waits.is_some();
    let does = |s: &StreamRef| code(run, *s).is_some_and(|c| c.iter().any(|i| acts(&i.stmt)));
    let found = streams().filter(waits).find(does);
    match found.or_else(|| streams().find(waits)) {
        Some(stream) => Next::Stream(stream),
        None => Next::Nobody(nobody),
    }
}
