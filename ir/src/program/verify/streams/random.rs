//! The abstract run against an obvious one: every event of a small random segment in a graph, all
//! that happened before it, and every byte of every pair of accesses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::call::{Call, summarise};
use super::facts::Facts;
use crate::codes;
use crate::entity::EntityId;
use crate::program::instr::{Access, Ref, data, vector};
use crate::program::{
    Affine, Buffer, BufferId, BufferRole, Env, FamilyId, Inst, Packing, Program, Segment, Stmt,
    Stream, TokenId, Unit, Var, View,
};
use crate::types::DType;

const STREAMS: usize = 3;

fn pick<T: Copy>(rng: &mut Pcg64Mcg, list: &[T]) -> T {
    list[rng.random_range(0..list.len())]
}

/// Overlapping buffers with views, the last of which depend on a loop counter.
fn memory(rng: &mut Pcg64Mcg, segment: &mut Segment) -> [Vec<Ref>; 2] {
    let mut refs = [Vec::new(), Vec::new()];
    let spread = rng.random_range(8..20);
    for index in 0..3 {
        let role = pick(rng, &BufferRole::ALL).0;
        let buffer = segment.buffers.push(Buffer {
            name: format!("b{index}").into(),
            at: Affine::constant(index * spread),
            dtype: DType::U8,
            shape: vec![16],
            packing: Packing::Strided,
            role,
            loc: None,
        });
        refs[0].push(Ref::Buffer(buffer));
        for (offset, step, strides) in [(0, 0, [4, 1]), (2, 0, [8, 4]), (1, 2, [4, -1])] {
            let offset = Affine {
                constant: offset,
                terms: Vec::from_iter((step != 0).then_some((Var::Loop(0), step))),
            };
            let view = segment.views.push(View {
                name: "v".into(),
                buffer,
                offset,
                dtype: DType::U8,
                shape: vec![Affine::constant(2), Affine::constant(2)],
                strides: strides.to_vec(),
                packing: Packing::Strided,
            });
            refs[usize::from(step != 0)].push(Ref::View(view));
        }
    }
    refs
}

fn compute(rng: &mut Pcg64Mcg, refs: &[Ref]) -> Stmt {
    if rng.random_bool(0.6) {
        Stmt::Compute {
            instr: vector::Iota { axis: 0, step: 1 }.into(),
            operands: vec![pick(rng, refs)],
            scalars: vec![Affine::default()],
        }
    } else {
        Stmt::Compute {
            instr: data::Copy {}.into(),
            operands: vec![pick(rng, refs), pick(rng, refs)],
            scalars: Vec::new(),
        }
    }
}

/// A segment that ends, with balanced tokens and slots: made along one of its executions.
fn segment(rng: &mut Pcg64Mcg) -> Segment {
    let mut segment = Segment::default();
    let [plain, moving] = memory(rng, &mut segment);
    let all: Vec<Ref> = plain.iter().chain(&moving).copied().collect();
    let mut code: Vec<Vec<Stmt>> = vec![Vec::new(); STREAMS];
    // Token t leads from stream t / 2 to one of the two others.
    let tokens: Vec<(usize, usize)> = (0..6).map(|t| (t / 2, (t / 2 + 1 + t % 2) % 3)).collect();
    tokens.iter().for_each(|_| {
        segment.tokens.push("t".into());
    });
    let mut pending = [0; 6];
    let mut slots: Vec<VecDeque<Ref>> = vec![VecDeque::new(); 2];
    let family = FamilyId::from_index(0);
    let receive = |port: usize, slot| Stmt::Receive {
        family,
        port: Affine::constant(port as i64),
        slot,
    };
    let sync = rng.random_range(0..9);
    // In half of the segments one stream hands over to the next, so that most are free of races.
    let hand_over = rng.random_bool(0.5);
    let mut current = 0;
    for _ in 0..rng.random_range(4..24) {
        let stream = rng.random_range(0..STREAMS);
        if hand_over {
            if stream != current {
                let token = current * 2 + usize::from(stream != (current + 1) % 3);
                code[current].push(Stmt::Signal(TokenId::from_index(token)));
                code[stream].push(Stmt::Wait(TokenId::from_index(token)));
            }
            current = stream;
        }
        let token = rng.random_range(0..6);
        let count = pick(rng, &[1, 1, 1, 2, 3]);
        let wrap = |code: &mut Vec<Stmt>, body: Vec<Stmt>| {
            if count > 1 {
                code.push(Stmt::Loop {
                    name: "i".into(),
                    count: Affine::constant(count),
                    len: body.len() as u32,
                });
            }
            code.extend(body);
        };
        let refs = if count > 1 { &all } else { &plain };
        match rng.random_range(0..12) {
            kind if kind < sync && !hand_over => {
                let (from, to) = tokens[token];
                if pending[token] >= count && rng.random_bool(0.7) {
                    pending[token] -= count;
                    wrap(&mut code[to], vec![Stmt::Wait(TokenId::from_index(token))]);
                } else {
                    pending[token] += count;
                    let signal = Stmt::Signal(TokenId::from_index(token));
                    let body = vec![compute(rng, refs), signal];
                    wrap(&mut code[from], body);
                }
            }
            9 => {
                let port = rng.random_range(0..2);
                // The last one leaves room for a race of two posting streams.
                let poster = if port == 0 && !hand_over { 0 } else { stream };
                let slot = pick(rng, &plain);
                slots[port].push_back(slot);
                code[poster].push(Stmt::Post {
                    family,
                    port: Affine::constant(port as i64),
                    slot,
                });
            }
            10 => {
                let port = rng.random_range(0..2);
                if let Some(slot) = slots[port].pop_front() {
                    let receiver = if hand_over { stream } else { 1 };
                    code[receiver].push(receive(port, slot));
                }
            }
            _ => wrap(&mut code[stream], vec![compute(rng, refs)]),
        }
    }
    for (token, count) in pending.into_iter().enumerate() {
        let wait = Stmt::Wait(TokenId::from_index(token));
        code[tokens[token].1].extend((0..count).map(|_| wait.clone()));
    }
    let receiver = if hand_over { current } else { 1 };
    for (port, slots) in slots.into_iter().enumerate() {
        code[receiver].extend(slots.into_iter().map(|slot| receive(port, slot)));
    }
    for (stream, code) in code.into_iter().enumerate() {
        let code = code.into_iter().map(|stmt| Inst { stmt, loc: None });
        segment.streams.push(Stream {
            unit: Unit::ALL[stream].0,
            code: code.collect(),
        });
    }
    segment
}

/// Takes one statement out.
fn damage(rng: &mut Pcg64Mcg, segment: &mut Segment) {
    let stream = rng.random_range(0..STREAMS);
    let code = &mut segment.streams[stream].code;
    let sync: Vec<usize> = (0..code.len())
        .filter(|at| !matches!(code[*at].stmt, Stmt::Compute { .. } | Stmt::Loop { .. }))
        .collect();
    if !sync.is_empty() {
        // Another statement takes its place, so that loops keep their lengths.
        let at = pick(rng, &sync);
        code[at].stmt = Stmt::View(crate::program::ViewId::from_index(0));
    }
}

/// One executed statement.
struct Event<'s> {
    stream: usize,
    stmt: &'s Stmt,
    counter: i64,
    before: BTreeSet<usize>,
}

fn bytes(segment: &Segment, of: Ref, counter: i64) -> (BufferId, BTreeSet<i64>) {
    let env = Env {
        loops: &[counter],
        ..Env::default()
    };
    let (at, view) = segment.resolve(of, &env).unwrap();
    let mut all = BTreeSet::new();
    match view.shape[..] {
        [n] => all.extend((0..n).map(|i| at + view.position(&[i]))),
        [n, m] => {
            let index = (0..n).flat_map(|i| (0..m).map(move |j| [i, j]));
            all.extend(index.map(|index| at + view.position(&index)));
        }
        _ => panic!("views have one or two dimensions"),
    }
    (segment.buffer_of(of).unwrap(), all)
}

/// All (operand, writes) of a statement.
fn accesses(stmt: &Stmt) -> Vec<(Ref, bool)> {
    match stmt {
        Stmt::Compute {
            instr, operands, ..
        } => instr
            .roles()
            .iter()
            .zip(operands)
            .map(|(role, operand)| (*operand, role.access == Access::Write))
            .collect(),
        Stmt::Post { slot, .. } | Stmt::Receive { slot, .. } => vec![(*slot, true)],
        _ => Vec::new(),
    }
}

fn unrolled(stream: &Stream) -> VecDeque<(&Stmt, i64)> {
    let mut flat = VecDeque::new();
    let mut at = 0;
    while let Some(inst) = stream.code.get(at) {
        if let Stmt::Loop { count, len, .. } = &inst.stmt {
            let body = at + 1..at + 1 + *len as usize;
            for counter in 0..count.constant {
                let stmts = stream.code[body.clone()].iter();
                flat.extend(stmts.map(|inst| (&inst.stmt, counter)));
            }
            at = body.end;
        } else {
            flat.push_back((&inst.stmt, 0));
            at += 1;
        }
    }
    flat
}

/// One execution, statements of streams alternating, with what is before each.
fn execution<'s>(segment: &'s Segment, found: &mut BTreeSet<u16>) -> Vec<Event<'s>> {
    let mut events: Vec<Event<'_>> = Vec::new();
    let mut streams: Vec<_> = segment.streams.iter().map(unrolled).collect();
    let mut last: Vec<Option<usize>> = vec![None; STREAMS];
    let mut signals: BTreeMap<TokenId, VecDeque<usize>> = BTreeMap::new();
    let mut posts: BTreeMap<i64, VecDeque<(usize, Ref)>> = BTreeMap::new();
    loop {
        let mut moved = false;
        for stream in (0..STREAMS).rev() {
            let Some((stmt, counter)) = streams[stream].front().copied() else {
                continue;
            };
            let mut edges: Vec<usize> = last[stream].into_iter().collect();
            match stmt {
                Stmt::Wait(token) => match signals.get_mut(token).and_then(VecDeque::pop_front) {
                    Some(signal) => edges.push(signal),
                    None => continue,
                },
                Stmt::Receive { port, slot, .. } => {
                    let queue = posts.get_mut(&port.constant);
                    match queue.and_then(VecDeque::pop_front) {
                        Some((post, posted)) => {
                            edges.push(post);
                            let same = |of| segment.resolve(of, &Env::default());
                            if same(posted) != same(*slot)
                                || segment.buffer_of(posted) != segment.buffer_of(*slot)
                            {
                                found.insert(codes::CHANNEL_BALANCE);
                            }
                        }
                        None => continue,
                    }
                }
                Stmt::Signal(token) => signals.entry(*token).or_default().push_back(events.len()),
                Stmt::Post { port, slot, .. } => posts
                    .entry(port.constant)
                    .or_default()
                    .push_back((events.len(), *slot)),
                _ => {}
            }
            streams[stream].pop_front();
            let mut before: BTreeSet<usize> = edges.iter().copied().collect();
            for edge in edges {
                before.extend(&events[edge].before);
            }
            last[stream] = Some(events.len());
            events.push(Event {
                stream,
                stmt,
                counter,
                before,
            });
            moved = true;
        }
        if !moved {
            break;
        }
    }
    for (stmt, _) in streams.iter().filter_map(VecDeque::front) {
        found.insert(match stmt {
            Stmt::Wait(_) => codes::TOKEN_BALANCE,
            _ => codes::CHANNEL_BALANCE,
        });
    }
    if streams.iter().all(VecDeque::is_empty) {
        if signals.values().any(|queue| !queue.is_empty()) {
            found.insert(codes::TOKEN_BALANCE);
        }
        if posts.values().any(|queue| !queue.is_empty()) {
            found.insert(codes::CHANNEL_BALANCE);
        }
    }
    events
}

fn has_race(segment: &Segment, events: &[Event<'_>]) -> bool {
    let pairs = (0..events.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    pairs.into_iter().any(|(a, b)| {
        let (x, y) = (&events[a], &events[b]);
        if x.stream == y.stream || y.before.contains(&a) {
            return false;
        }
        if let (Stmt::Post { port: p, .. }, Stmt::Post { port: q, .. }) = (x.stmt, y.stmt)
            && p == q
        {
            return true;
        }
        if let (Stmt::Receive { port: p, .. }, Stmt::Receive { port: q, .. }) = (x.stmt, y.stmt)
            && p == q
        {
            return true;
        }
        accesses(x.stmt).into_iter().any(|(p, p_writes)| {
            let (_, p) = bytes(segment, p, x.counter);
            accesses(y.stmt).into_iter().any(|(q, q_writes)| {
                let (_, q) = bytes(segment, q, y.counter);
                (p_writes || q_writes) && !p.is_disjoint(&q)
            })
        })
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Holds {
    Nothing,
    Of(BufferId),
    Posted,
}

/// Rules of content, along one execution of a segment without races.
fn contents(segment: &Segment, events: &[Event<'_>], found: &mut BTreeSet<u16>) {
    let mut holds: BTreeMap<i64, Holds> = BTreeMap::new();
    let mut posted: BTreeMap<i64, VecDeque<Ref>> = BTreeMap::new();
    for event in events {
        let mut accesses = accesses(event.stmt);
        accesses.sort_by_key(|(_, writes)| *writes);
        match event.stmt {
            Stmt::Post { port, slot, .. } => {
                posted.entry(port.constant).or_default().push_back(*slot);
            }
            // What was posted comes back.
            Stmt::Receive { port, .. } => {
                let queue = posted.get_mut(&port.constant).unwrap();
                accesses = vec![(queue.pop_front().unwrap(), true)];
            }
            _ => {}
        }
        for (operand, writes) in accesses {
            let (buffer, bytes) = bytes(segment, operand, event.counter);
            let live = segment.buffers[buffer].role.live_in();
            for byte in bytes {
                let held = *holds.get(&byte).unwrap_or(&Holds::Nothing);
                let is_receive = matches!(event.stmt, Stmt::Receive { .. });
                match held {
                    Holds::Posted if !is_receive => drop(found.insert(codes::SLOT_OWNED)),
                    Holds::Of(owner) if !writes && owner != buffer => {
                        found.insert(codes::SLOT_REUSED);
                    }
                    Holds::Nothing if !writes && !live => {
                        found.insert(codes::UNINITIALISED);
                    }
                    _ => {}
                }
                if writes {
                    let now = match event.stmt {
                        Stmt::Post { .. } => Holds::Posted,
                        _ => Holds::Of(buffer),
                    };
                    holds.insert(byte, now);
                }
            }
        }
    }
}

#[test]
fn random_segments_agree_with_an_obvious_model() {
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let program = Program::default();
    let (mut races, mut clean, mut kinds) = (0, 0, BTreeMap::new());
    for round in 0..4000 {
        let mut segment = segment(&mut rng);
        if rng.random_bool(0.15) {
            damage(&mut rng, &mut segment);
        }
        let facts = Facts::new(&program, &segment);
        let call = Call {
            segment: &segment,
            facts: &facts,
            params: &[],
            dims: &[],
            cancel: &AtomicBool::new(false),
        };
        let mut budget = 1 << 20;
        let summary = summarise(&call, &mut budget);
        let found: BTreeSet<u16> = summary.findings.all.keys().map(|key| key.0).collect();
        let mut expected = BTreeSet::new();
        let events = execution(&segment, &mut expected);
        if has_race(&segment, &events) {
            races += 1;
            let races = [codes::STREAM_RACE, codes::SLOT_OWNED];
            let seen = races.iter().any(|code| found.contains(code));
            assert!(seen, "round {round}: a race is missed\n{segment:#?}");
            continue;
        }
        contents(&segment, &events, &mut expected);
        assert_eq!(found, expected, "round {round}\n{segment:#?}");
        clean += usize::from(found.is_empty());
        for code in found {
            *kinds.entry(code).or_insert(0) += 1;
        }
    }
    // The generator makes enough of everything.
    assert!(races > 500 && clean > 100, "{races} races, {clean} clean");
    for code in [
        codes::SLOT_REUSED,
        codes::UNINITIALISED,
        codes::SLOT_OWNED,
        codes::TOKEN_BALANCE,
        codes::CHANNEL_BALANCE,
    ] {
        assert!(kinds.get(&code).is_some_and(|n| *n > 20), "{kinds:?}");
    }
}
