//! Messages over a whole entry: what is sent on a channel is what is received at its other end, in
//! number, sizes and order.
//!
//! One family is looked at at a time, one entry at a time. Within a call, cores with the same values
//! of the parameters that matter do the same, so each such class is followed once. What a channel
//! end does over the whole entry is a number: the position of its sequence in a table of distinct
//! ones. So a million cores cost a few bytes each.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use foldhash::{HashMap, HashMapExt as _};

use super::super::{
    Entry, EntryId, FamilyId, IndexEnv, IndexExpr, Place, Program, RegionId, SegmentId, Step, Stmt,
    Var,
};
use super::channels::{Channels, Positions};
use super::rows::advance;
use super::trace::{End, Follower, Node, Seq, Sequences, Subject, Trouble, tree, variables};
use super::{Context, Violation, core_name};
use crate::codes;

/// Combinations of values of run parameters that are checked one by one; more are undecided.
const MAX_COMBINATIONS: u64 = 1 << 10;
/// Iterations followed for one class of cores.
const MAX_ITERATIONS: u64 = 1 << 20;
/// Channel ends of one family.
const MAX_ENDS: u64 = 1 << 26;

pub(super) fn check(cx: &mut Context<'_>, all: &[Channels]) {
    let program = cx.program;
    let mut positions = Positions::new();
    for (id, entry) in program.entries.iter() {
        for (family, channels) in program.families.ids().zip(all) {
            let uses = Uses::new(program, Subject::Family(family), &|_, _, _| false);
            let steps = entry.steps.iter();
            let relevant = steps.filter(|step| {
                matches!(step, Step::Call { segment, .. } if uses.segments.contains_key(segment))
            });
            if relevant.count() == 0 {
                continue;
            }
            for dims in dim_values(cx, Place::Entry(id), &uses.dims(program, entry)) {
                if !one(cx, &mut positions, (id, family), channels, &uses, &dims) {
                    break;
                }
            }
        }
    }
}

/// How a segment uses a subject: a tree per stream.
pub(super) struct Use<'p> {
    pub streams: Vec<Vec<Node<'p>>>,
    /// Parameters that matter.
    pub params: Vec<u16>,
    vias: Vec<Option<FamilyId>>,
}

/// How segments use a subject.
pub(super) struct Uses<'p> {
    pub segments: BTreeMap<SegmentId, Use<'p>>,
}

impl<'p> Uses<'p> {
    /// `guarded` tells which loads stand between acquire and release.
    pub fn new(
        program: &'p Program,
        subject: Subject,
        guarded: &dyn Fn(SegmentId, u32, u32) -> bool,
    ) -> Self {
        let mut segments = BTreeMap::new();
        for (id, segment) in program.segments.iter() {
            let streams: Vec<_> = (0..segment.streams.len())
                .map(|s| tree(program, id, s, subject, &|at| guarded(id, s as u32, at)))
                .collect();
            if streams.iter().all(Vec::is_empty) {
                continue;
            }
            let mut vars = BTreeSet::new();
            streams.iter().for_each(|nodes| variables(nodes, &mut vars));
            let params = vars.iter().filter_map(|var| match var {
                Var::Param(param) => Some(*param),
                _ => None,
            });
            let mut vias = vec![None; segment.registers.len()];
            for inst in segment.streams.iter().flat_map(|s| &s.code) {
                if let Stmt::Count { register, via, .. } = &inst.stmt {
                    vias[usize::from(*register)] = *via;
                }
            }
            segments.insert(
                id,
                Use {
                    params: params.collect(),
                    streams,
                    vias,
                },
            );
        }
        Self { segments }
    }

    /// Run parameters that decide what the calls of an entry do.
    pub fn dims(&self, program: &Program, entry: &Entry) -> BTreeSet<u16> {
        let mut dims = BTreeSet::new();
        for step in &entry.steps {
            let Step::Call { segment, row, .. } = step else {
                continue;
            };
            let Some(used) = self.segments.get(segment) else {
                continue;
            };
            let mut vars = BTreeSet::new();
            used.streams
                .iter()
                .for_each(|nodes| variables(nodes, &mut vars));
            dims.extend(vars.iter().filter_map(|var| match var {
                Var::Dim(dim) => Some(*dim),
                _ => None,
            }));
            for param in &used.params {
                for dim in 0..program.dims.len() as u16 {
                    if row[usize::from(*param)].uses_dim(dim) {
                        dims.insert(dim);
                    }
                }
            }
        }
        dims
    }
}

/// All values of the run parameters, of which those in `used` vary. Nothing, and a report at `place`,
/// if there are too many.
pub(super) fn dim_values(
    cx: &mut Context<'_>,
    place: Place,
    used: &BTreeSet<u16>,
) -> Vec<Vec<i64>> {
    let dims = cx.program.dims.iter().enumerate();
    let limits: Vec<(i64, i64)> = dims
        .map(|(dim, (_, maximum))| {
            let varies = used.contains(&(dim as u16));
            let maximum = i64::try_from(*maximum).unwrap_or(i64::MAX);
            (1, if varies { maximum } else { 1 })
        })
        .collect();
    let count = limits
        .iter()
        .fold(1u64, |n, (_, high)| n.saturating_mul(high.unsigned_abs()));
    if count > MAX_COMBINATIONS {
        let message = format!("there are {count} values of run parameters to check");
        let help = "lower the maxima of run parameters that counts, sizes, offsets or shards use";
        cx.report(Violation::new(codes::UNDECIDED, place, message).help(help));
        return Vec::new();
    }
    let mut digits = vec![1; limits.len()];
    let mut all = Vec::new();
    loop {
        all.push(digits.clone());
        if !advance(&mut digits, &limits) {
            return all;
        }
    }
}

/// Distinct sequences by number; 0 is the empty one.
struct Table {
    list: Vec<Seq>,
    index: HashMap<Seq, u32>,
    /// By the first one: what it becomes with a second one behind it. There are few of them.
    joined: Vec<BTreeMap<u32, u32>>,
}

impl Table {
    fn new() -> Self {
        Self {
            list: vec![Seq::EMPTY],
            index: HashMap::from_iter([(Seq::EMPTY, 0)]),
            joined: vec![BTreeMap::new()],
        }
    }

    fn number(&mut self, seq: Seq) -> u32 {
        *self.index.entry(seq).or_insert_with(|| {
            self.list.push(seq);
            self.joined.push(BTreeMap::new());
            self.list.len() as u32 - 1
        })
    }

    fn join(&mut self, a: u32, b: u32) -> u32 {
        if a == 0 {
            return b;
        }
        if let Some(known) = self.joined[a as usize].get(&b) {
            return *known;
        }
        let joined = self.list[a as usize].then(self.list[b as usize]);
        let number = self.number(joined);
        self.joined[a as usize].insert(b, number);
        number
    }
}

/// Sequence numbers of all ends of a family: by sender and port, by receiver and port.
struct Ends {
    sent: Vec<u32>,
    received: Vec<u32>,
}

/// Sequence numbers of what a core does in a call, by end and port.
type Class = Rc<Vec<(End, usize, u32)>>;

/// What a call adds to the ends of a family: whether to those of senders, which, and what; equal
/// additions are neighbours.
type Added = Rc<Vec<(bool, usize, u32)>>;

struct Run<'c, 'p> {
    cx: &'c mut Context<'p>,
    positions: &'c mut Positions,
    entry: EntryId,
    family: FamilyId,
    channels: &'c Channels,
    uses: &'c Uses<'p>,
    dims: &'c [i64],
    table: Table,
    /// Ports of a sender and of a receiver.
    ports: (usize, usize),
    classes: HashMap<(SegmentId, Vec<i64>), Option<Class>>,
    /// What calls outside of repeats add, by the entries of their rows that matter.
    calls: HashMap<(SegmentId, RegionId, Vec<&'p IndexExpr>), Added>,
}

/// Compares all channels of a family over an entry; false if something was wrong.
fn one<'p>(
    cx: &mut Context<'p>,
    positions: &mut Positions,
    (entry, family): (EntryId, FamilyId),
    channels: &Channels,
    uses: &Uses<'p>,
    dims: &[i64],
) -> bool {
    let program = cx.program;
    let highest = channels.incoming.iter().fold(0, |all, mask| all | mask);
    let ports = (
        program.families[family].ports as usize,
        64 - highest.leading_zeros() as usize,
    );
    let (senders, receivers) = (channels.outgoing.len(), channels.incoming.len());
    if (senders * ports.0 + receivers * ports.1) as u64 > MAX_ENDS {
        let message = format!("has more than {MAX_ENDS} channel ends to compare");
        let violation = Violation::new(codes::UNDECIDED, Place::Family(family), message);
        cx.report(violation.help("split the family"));
        return false;
    }
    let mut run = Run {
        cx,
        positions,
        entry,
        family,
        channels,
        uses,
        dims,
        table: Table::new(),
        ports,
        classes: HashMap::new(),
        calls: HashMap::new(),
    };
    let mut ends = run.no_ends();
    let steps = program.entries[entry].steps.len();
    if run.steps(0..steps, &mut Vec::new(), &mut ends).is_none() {
        return false;
    }
    run.compare(&ends)
}

impl<'p> Run<'_, 'p> {
    fn no_ends(&self) -> Ends {
        Ends {
            sent: vec![0; self.channels.outgoing.len() * self.ports.0],
            received: vec![0; self.channels.incoming.len() * self.ports.1],
        }
    }

    /// Adds what steps do; `None` if something is wrong, which is reported.
    fn steps(
        &mut self,
        range: std::ops::Range<usize>,
        counters: &mut Vec<i64>,
        ends: &mut Ends,
    ) -> Option<()> {
        let program = self.cx.program;
        let steps = &program.entries[self.entry].steps;
        let mut at = range.start;
        while at < range.end {
            match &steps[at] {
                Step::Probe(_) => {}
                Step::Call { segment, .. } => {
                    if self.uses.segments.contains_key(segment) {
                        self.call(at, counters, ends)?;
                    }
                }
                Step::Repeat { count, len, .. } => {
                    let body = at + 1..at + 1 + *len as usize;
                    at = body.end - 1;
                    self.repeat(*count, body, counters, ends)?;
                }
            }
            at += 1;
        }
        Some(())
    }

    fn repeat(
        &mut self,
        count: u64,
        body: std::ops::Range<usize>,
        counters: &mut Vec<i64>,
        ends: &mut Ends,
    ) -> Option<()> {
        let program = self.cx.program;
        let steps = &program.entries[self.entry].steps[body.clone()];
        let relevant = |step: &&Step| matches!(step, Step::Call { segment, .. } if self.uses.segments.contains_key(segment));
        if count == 0 || !steps.iter().any(|step| relevant(&step)) {
            return Some(());
        }
        let depth = counters.len() as u8;
        let varies = steps.iter().filter(relevant).any(|step| match step {
            Step::Call { segment, row, .. } => {
                let params = &self.uses.segments[segment].params;
                params
                    .iter()
                    .any(|param| row[usize::from(*param)].uses_repeat(depth))
            }
            _ => false,
        });
        if varies {
            for counter in 0..count {
                counters.push(counter as i64);
                self.steps(body.clone(), counters, ends)?;
                counters.pop();
            }
            return Some(());
        }
        let mut once = self.no_ends();
        counters.push(0);
        self.steps(body, counters, &mut once)?;
        counters.pop();
        let mut powers: HashMap<u32, u32> = HashMap::new();
        for (all, body) in [
            (&mut ends.sent, &once.sent),
            (&mut ends.received, &once.received),
        ] {
            for (all, body) in all.iter_mut().zip(body).filter(|(_, body)| **body != 0) {
                let power = match powers.get(body) {
                    Some(power) => *power,
                    None => {
                        let seq = self.table.list[*body as usize].times(count);
                        let power = self.table.number(seq);
                        powers.insert(*body, power);
                        power
                    }
                };
                *all = self.table.join(*all, power);
            }
        }
        Some(())
    }

    fn call(&mut self, at: usize, counters: &[i64], ends: &mut Ends) -> Option<()> {
        let program = self.cx.program;
        let Step::Call {
            segment, on, row, ..
        } = &program.entries[self.entry].steps[at]
        else {
            return Some(());
        };
        let params = self.uses.segments[segment].params.iter();
        let relevant = params.map(|param| &row[usize::from(*param)]).collect();
        // Calls of equal layers add the same.
        let key = (*segment, *on, relevant);
        let known = self.calls.get(&key).filter(|_| counters.is_empty());
        let added = match known.cloned() {
            Some(known) => known,
            None => {
                let added = Rc::new(self.added(at, (*segment, *on), row, counters)?);
                if counters.is_empty() {
                    self.calls.insert(key, added.clone());
                }
                added
            }
        };
        // Ends to which the same is added mostly had the same.
        let mut last = (0, 0, 0);
        for (sent, slot, seq) in added.iter() {
            let list = if *sent {
                &mut ends.sent
            } else {
                &mut ends.received
            };
            if (last.0, last.1) != (list[*slot], *seq) {
                last = (list[*slot], *seq, self.table.join(list[*slot], *seq));
            }
            list[*slot] = last.2;
        }
        Some(())
    }

    /// What a call adds to the ends; `None` if something is wrong, which is reported.
    fn added(
        &mut self,
        at: usize,
        (segment, on): (SegmentId, RegionId),
        row: &'p [IndexExpr],
        counters: &[i64],
    ) -> Option<Vec<(bool, usize, u32)>> {
        let program = self.cx.program;
        let mut added = Vec::new();
        let place = Place::Step(self.entry, at as u32);
        let region = &program.regions[on];
        if !self.cx.spend(region.len(), place) {
            return None;
        }
        let family = &program.families[self.family];
        let senders = self.positions.of(self.cx, on, family.from);
        let receivers = self.positions.of(self.cx, on, family.to);
        let params = &self.uses.segments[&segment].params;
        let mut values = vec![0; params.len()];
        let mut class = None;
        let varies: Vec<bool> = params
            .iter()
            .map(|param| row[usize::from(*param)].depends_on_core())
            .collect();
        for (index, core) in region.cores().enumerate() {
            let mut changed = index == 0;
            let env = IndexEnv::of_core(index as u64, core, counters, self.dims);
            for (slot, param) in params.iter().enumerate() {
                if !varies[slot] && index > 0 {
                    continue;
                }
                let Some(value) = row[usize::from(*param)].eval(&env, &program.tables) else {
                    // Said where rows are enumerated.
                    self.cx.rows_of(segment, &[*param]);
                    return None;
                };
                changed |= values[slot] != value;
                values[slot] = value;
            }
            if changed {
                class = Some(self.class(segment, params, &values, place)?);
            }
            let Some(class) = &class else { continue };
            for (end, port, seq) in class.iter() {
                let sends = matches!(end, End::Send);
                let (position, ports, masks) = match sends {
                    true => (senders[index], self.ports.0, &self.channels.outgoing),
                    false => (receivers[index], self.ports.1, &self.channels.incoming),
                };
                let mask = masks.get(position as usize).copied().unwrap_or(0);
                if mask >> port & 1 == 0 {
                    let (verb, noun) = match end {
                        End::Send => ("sends on", "outgoing"),
                        _ => ("receives from", "incoming"),
                    };
                    let name = &program.segments[segment].name;
                    let message = format!(
                        "core {} runs segment @{name}, which {verb} @{} at port {port}, but has no \
                         {noun} channel there",
                        core_name(core),
                        family.name
                    );
                    self.cx
                        .report(Violation::new(codes::BAD_CHANNEL, place, message));
                    return None;
                }
                added.push((sends, position as usize * ports + port, *seq));
            }
        }
        added.sort_by_key(|(sends, _, seq)| (*sends, *seq));
        Some(added)
    }

    /// What cores with these values of the parameters that matter do.
    fn class(
        &mut self,
        segment: SegmentId,
        params: &[u16],
        values: &[i64],
        place: Place,
    ) -> Option<Class> {
        let key = (segment, values.to_vec());
        if let Some(known) = self.classes.get(&key) {
            return known.clone();
        }
        let sequences = follow(
            self.cx,
            &self.uses.segments[&segment],
            (segment, params, values, self.dims),
            place,
        );
        let name = &self.cx.program.families[self.family].name;
        let mut list = Vec::new();
        for ((end, port), seq) in sequences.iter().flatten() {
            let Some(port) = usize::try_from(*port).ok().filter(|port| *port < 64) else {
                let message = format!(
                    "segment @{} uses port {port} of @{name}, ports are 0 to 63",
                    self.cx.program.segments[segment].name
                );
                self.cx
                    .report(Violation::new(codes::BAD_CHANNEL, place, message));
                self.classes.insert(key, None);
                return None;
            };
            list.push((*end, port, self.table.number(*seq)));
        }
        let class = sequences.map(|_| Rc::new(list));
        self.classes.insert(key, class.clone());
        class
    }

    /// Reports channels whose ends do not agree; true if all do.
    fn compare(&mut self, ends: &Ends) -> bool {
        let mut bad: Option<(usize, usize, usize, u32, u32)> = None;
        let mut count = 0u64;
        for sender in 0..self.channels.outgoing.len() {
            for port in 0..self.ports.0 {
                let sent = ends.sent[sender * self.ports.0 + port];
                for (receiver, receiver_port) in self.channels.receivers(sender, port) {
                    let received = ends.received[receiver * self.ports.1 + receiver_port];
                    if sent != received {
                        count += 1;
                        bad.get_or_insert((sender, port, receiver, sent, received));
                    }
                }
            }
        }
        let Some((sender, port, receiver, sent, received)) = bad else {
            return true;
        };
        let program = self.cx.program;
        let family = &program.families[self.family];
        let core = |region, index: usize| {
            let region: &super::super::Region = &program.regions[region];
            region.get(index as u64).map(core_name).unwrap_or_default()
        };
        let (from, to) = (core(family.from, sender), core(family.to, receiver));
        let [a, b] = [sent, received].map(|seq| self.table.list[seq as usize]);
        let what = if a.messages != b.messages {
            format!(
                "{} messages are sent, {} are received",
                a.messages, b.messages
            )
        } else if a.bytes != b.bytes {
            format!(
                "{} messages with {} bytes are sent, with {} bytes received",
                a.messages, a.bytes, b.bytes
            )
        } else {
            format!(
                "{} messages are sent and received, but their sizes differ in order",
                a.messages
            )
        };
        let name = &program.entries[self.entry].name;
        let mut violation = Violation::new(
            codes::CHANNEL_BALANCE,
            Place::Family(self.family),
            format!("in entry @{name}, from port {port} of core {from} to core {to}, {what}"),
        );
        for (verb, at) in [(End::Send, &from), (End::Receive, &to)] {
            let users = self.users(verb);
            if !users.is_empty() {
                let verb = if verb == End::Send {
                    "sends"
                } else {
                    "receives"
                };
                violation = violation.note(format!("{users} {verb} on core {at} or others"));
            }
        }
        if count > 1 {
            violation = violation.note(format!("{count} channels of the family are like this"));
        }
        for (dim, (name, _)) in program.dims.iter().enumerate() {
            if self.dims[dim] > 1 {
                violation = violation.note(format!("with {name} = {}", self.dims[dim]));
            }
        }
        self.cx.report(violation);
        false
    }

    /// Segments of the entry that use one end of the family.
    fn users(&self, end: End) -> String {
        let uses_end = |used: &Use<'_>| {
            used.streams
                .iter()
                .any(|nodes| nodes.iter().any(|node| has_end(node, end)))
        };
        let program = self.cx.program;
        let mut names = Vec::new();
        for step in &program.entries[self.entry].steps {
            if let Step::Call { segment, .. } = step
                && self.uses.segments.get(segment).is_some_and(uses_end)
            {
                let name = format!("segment @{}", program.segments[*segment].name);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names.join(", ")
    }
}

fn has_end(node: &Node<'_>, wanted: End) -> bool {
    match node {
        Node::Op { end, .. } => *end == wanted,
        Node::Loop { body, .. } => body.iter().any(|node| has_end(node, wanted)),
    }
}

/// What one call does on a core with these values of parameters, all streams together. `None` if it
/// cannot be told, which is reported, here or by another rule.
pub(super) fn follow(
    cx: &mut Context<'_>,
    used: &Use<'_>,
    (segment, params, values, dims): (SegmentId, &[u16], &[i64], &[i64]),
    place: Place,
) -> Option<Sequences> {
    let declared = &cx.program.segments[segment];
    let mut follower = Follower {
        vias: &used.vias,
        budget: MAX_ITERATIONS,
        params: vec![0; declared.params.len()],
        dims: dims.to_vec(),
        loops: vec![0; super::super::MAX_LOOP_DEPTH],
    };
    for (param, value) in params.iter().zip(values) {
        follower.params[usize::from(*param)] = *value;
    }
    let mut all = Sequences::new();
    for nodes in &used.streams {
        let before = follower.budget;
        let result = follower.follow(nodes);
        if !cx.spend(before - follower.budget, place) {
            return None;
        }
        let trouble = match result {
            Ok(sequences) => {
                let ordered = |end: End| matches!(end, End::Send | End::Receive);
                let clash = sequences
                    .keys()
                    .find(|key| ordered(key.0) && all.contains_key(key))
                    .copied();
                for (key, seq) in sequences {
                    let known = all.entry(key).or_insert(Seq::EMPTY);
                    *known = known.then(seq);
                }
                let Some((end, port)) = clash else { continue };
                let verb = if end == End::Send {
                    "send on"
                } else {
                    "receive from"
                };
                let name = &declared.name;
                format!("two streams of segment @{name} {verb} port {port} of the same family")
            }
            Err(Trouble::Broken) => return None,
            Err(Trouble::TooLong) => format!(
                "the messages of segment @{} take more than {MAX_ITERATIONS} iterations to follow",
                declared.name
            ),
            Err(Trouble::Unknown) => format!(
                "in segment @{}, ports or sizes depend on the counter of a loop whose count is a \
                 register",
                declared.name
            ),
        };
        let help = "use each port of a family in one stream, with sizes and ports that stay the \
                    same in long loops";
        cx.report(Violation::new(codes::UNDECIDED, place, trouble).help(help));
        return None;
    }
    Some(all)
}
