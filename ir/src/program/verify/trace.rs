//! What a stream does on channels and DRAM regions: a tree of loops around the statements in question,
//! and the sequence of messages it stands for.

use std::collections::{BTreeMap, BTreeSet};

use super::super::instr::Ref;
use super::super::{Affine, DramId, Env, FamilyId, Program, SegmentId, Stmt, Var};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Subject {
    Family(FamilyId),
    Dram(DramId),
}

/// One end of a channel, or a kind of access to an instance of a DRAM region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum End {
    /// Messages sent through a port.
    Send,
    /// Messages received at a port.
    Receive,
    /// `dram.begin`; the number is 0.
    Begin,
    /// `dram.commit`; the number is 0.
    Commit,
    /// `dram.store`; the number is 0.
    Store,
    /// `dram.acquire` of an owner.
    Acquire,
    /// `dram.release` of an owner.
    Release,
    /// `dram.load` from an owner that was not acquired.
    LoadOwn,
}

/// A loop or a statement.
#[derive(Clone, Debug)]
pub(super) enum Node<'p> {
    Loop {
        count: &'p Affine,
        depth: u8,
        /// Whether anything inside depends on the counter.
        varies: bool,
        body: Vec<Node<'p>>,
    },
    Op {
        end: End,
        number: &'p Affine,
        size: Option<Size<'p>>,
    },
}

/// The size of a message: bytes of an element, and extents.
#[derive(Clone, Debug)]
pub(super) enum Size<'p> {
    Known(u64),
    Extents(u64, &'p [Affine]),
}

const ZERO: &Affine = &Affine {
    constant: 0,
    terms: Vec::new(),
};

/// The statements of a stream that concern `subject`. `guarded` tells which loads stand between
/// acquire and release.
pub(super) fn tree<'p>(
    program: &'p Program,
    segment: SegmentId,
    stream: usize,
    subject: Subject,
    guarded: &dyn Fn(u32) -> bool,
) -> Vec<Node<'p>> {
    let segment = &program.segments[segment];
    let code = &segment.streams[stream].code;
    let size = |operand: Ref| match operand {
        Ref::Buffer(buffer) => segment.buffers[buffer]
            .view_type()
            .map(|ty| Size::Known(ty.bytes())),
        Ref::View(view) => {
            let view = &segment.views[view];
            Some(Size::Extents(view.dtype.bytes(), &view.shape))
        }
    };
    // Bodies under construction: position behind them, their loop, their nodes.
    let mut open: Vec<(usize, Option<&'p Affine>, Vec<Node<'p>>)> =
        vec![(code.len(), None, Vec::new())];
    for (at, inst) in code.iter().enumerate() {
        close(&mut open, at);
        let mut ops: Vec<Node<'p>> = Vec::new();
        let mut op = |subject_of: Subject, end, number, size| {
            if subject_of == subject {
                ops.push(Node::Op { end, number, size });
            }
        };
        match &inst.stmt {
            Stmt::Loop { count, len, .. } => {
                open.push((at + 1 + *len as usize, Some(count), Vec::new()));
            }
            Stmt::Send { family, port, from } => {
                op(Subject::Family(*family), End::Send, port, size(*from));
            }
            Stmt::Receive { family, port, slot } => {
                op(Subject::Family(*family), End::Receive, port, size(*slot));
            }
            Stmt::Relay {
                family,
                port,
                slot,
                to,
                to_port,
            } => {
                op(Subject::Family(*family), End::Receive, port, size(*slot));
                op(Subject::Family(*to), End::Send, to_port, size(*slot));
            }
            Stmt::DramBegin(dram) => op(Subject::Dram(*dram), End::Begin, ZERO, None),
            Stmt::DramCommit(dram) => op(Subject::Dram(*dram), End::Commit, ZERO, None),
            Stmt::DramStore { dram, .. } => op(Subject::Dram(*dram), End::Store, ZERO, None),
            Stmt::DramAcquire { dram, owner } => {
                op(Subject::Dram(*dram), End::Acquire, owner, None);
            }
            Stmt::DramRelease { dram, owner } => {
                op(Subject::Dram(*dram), End::Release, owner, None);
            }
            Stmt::DramLoad { dram, owner, .. } if !guarded(at as u32) => {
                op(Subject::Dram(*dram), End::LoadOwn, owner, None);
            }
            _ => {}
        }
        if let Some((_, _, nodes)) = open.last_mut() {
            nodes.extend(ops);
        }
    }
    close(&mut open, usize::MAX);
    open.pop().map(|(_, _, nodes)| nodes).unwrap_or_default()
}

/// Ends all bodies that end at a position; the outermost stays.
fn close<'p>(open: &mut Vec<(usize, Option<&'p Affine>, Vec<Node<'p>>)>, at: usize) {
    while open.len() > 1 && open.last().is_some_and(|(end, _, _)| *end <= at) {
        let depth = (open.len() - 2) as u8;
        let Some((_, Some(count), body)) = open.pop() else {
            return;
        };
        if body.is_empty() {
            continue;
        }
        let varies = body.iter().any(|node| mentions(node, Var::Loop(depth)));
        if let Some((_, _, outer)) = open.last_mut() {
            outer.push(Node::Loop {
                count,
                depth,
                varies,
                body,
            });
        }
    }
}

fn exprs<'p>(node: &Node<'p>) -> Vec<&'p Affine> {
    match node {
        Node::Loop { count, .. } => vec![count],
        Node::Op { number, size, .. } => {
            let mut all = vec![*number];
            if let Some(Size::Extents(_, extents)) = size {
                all.extend(extents.iter());
            }
            all
        }
    }
}

fn mentions(node: &Node<'_>, var: Var) -> bool {
    let here = exprs(node)
        .iter()
        .any(|expr| expr.terms.iter().any(|(v, _)| *v == var));
    here || match node {
        Node::Loop { body, .. } => body.iter().any(|node| mentions(node, var)),
        Node::Op { .. } => false,
    }
}

/// All variables of a tree.
pub(super) fn variables(nodes: &[Node<'_>], into: &mut BTreeSet<Var>) {
    for node in nodes {
        let exprs = exprs(node);
        into.extend(
            exprs
                .iter()
                .flat_map(|e| e.terms.iter().map(|(var, _)| *var)),
        );
        if let Node::Loop { body, .. } = node {
            variables(body, into);
        }
    }
}

/// A sequence of messages: how many, their bytes, and a fingerprint of their sizes in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Seq {
    pub messages: u64,
    pub bytes: u64,
    hash: [u64; 2],
    power: [u64; 2],
}

/// The Mersenne prime 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;
/// Bases of the two polynomial fingerprints: digits of pi and e.
const BASES: [u64; 2] = [0x0243_f6a8_885a_308d, 0x02b7_e151_628a_ed2a];

fn multiply(a: u64, b: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64
}

impl Seq {
    pub const EMPTY: Self = Self {
        messages: 0,
        bytes: 0,
        hash: [0; 2],
        power: [1; 2],
    };

    /// One message.
    fn message(bytes: u64, mark: u64) -> Self {
        Self {
            messages: 1,
            bytes,
            hash: [mark % PRIME, mark.rotate_left(32) % PRIME],
            power: BASES,
        }
    }

    /// This sequence, then the other.
    pub fn then(self, next: Self) -> Self {
        let join = |i: usize| (multiply(self.hash[i], next.power[i]) + next.hash[i]) % PRIME;
        let power = |i: usize| multiply(self.power[i], next.power[i]);
        Self {
            messages: self.messages.saturating_add(next.messages),
            bytes: self.bytes.saturating_add(next.bytes),
            hash: [join(0), join(1)],
            power: [power(0), power(1)],
        }
    }

    /// This sequence so many times.
    pub fn times(self, mut count: u64) -> Self {
        let (mut result, mut square) = (Self::EMPTY, self);
        while count > 0 {
            if count & 1 == 1 {
                result = result.then(square);
            }
            square = square.then(square);
            count >>= 1;
        }
        result
    }

    /// This sequence as often as a register says: known by what the register means.
    fn symbolic(self, meaning: u64) -> Self {
        let hash = |i: usize| mix(mix(self.hash[i] ^ mix(self.power[i])) ^ meaning);
        Self {
            hash: [hash(0) % PRIME, hash(1) % PRIME],
            power: BASES,
            ..self
        }
    }
}

fn mix(mut x: u64) -> u64 {
    // The finaliser of splitmix64.
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Why a tree has no sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// Too many iterations to follow.
    TooLong,
    /// Sizes or ports inside a loop depend on its counter, and its count on a register.
    Unknown,
    /// Another rule is broken, and reported: a value overflows or is not uniform.
    Broken,
}

/// Sequences by end and port (or owner).
pub(super) type Sequences = BTreeMap<(End, i64), Seq>;

/// Ends of one kind that a core may use in one call.
const MAX_ENDS: usize = 1 << 16;

/// Follows trees.
pub(super) struct Follower<'p> {
    /// The family that delivers each register.
    pub vias: &'p [Option<FamilyId>],
    /// Iterations and statements it may still take.
    pub budget: u64,
    pub params: Vec<i64>,
    pub dims: Vec<i64>,
    pub loops: Vec<i64>,
}

impl Follower<'_> {
    /// The sequences of a body.
    pub fn follow(&mut self, nodes: &[Node<'_>]) -> Result<Sequences, Trouble> {
        let mut all = Sequences::new();
        self.follow_into(nodes, &mut all)?;
        Ok(all)
    }

    fn follow_into(&mut self, nodes: &[Node<'_>], all: &mut Sequences) -> Result<(), Trouble> {
        for node in nodes {
            self.budget = self.budget.checked_sub(1).ok_or(Trouble::TooLong)?;
            match node {
                Node::Op { end, number, size } => {
                    let (number, meaning) = self.value(number)?;
                    if meaning != 0 {
                        return Err(Trouble::Broken);
                    }
                    let message = match size {
                        None => Seq::message(0, 1),
                        Some(Size::Known(bytes)) => Seq::message(*bytes, mix(bytes ^ 1)),
                        Some(Size::Extents(bytes, extents)) => self.message(*bytes, extents)?,
                    };
                    let seq = all.entry((*end, number)).or_insert(Seq::EMPTY);
                    *seq = seq.then(message);
                    if all.len() > MAX_ENDS {
                        return Err(Trouble::TooLong);
                    }
                }
                Node::Loop {
                    count,
                    depth,
                    varies,
                    body,
                } => self.enter(count, usize::from(*depth), *varies, body, all)?,
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        count: &Affine,
        depth: usize,
        varies: bool,
        body: &[Node<'_>],
        all: &mut Sequences,
    ) -> Result<(), Trouble> {
        let (count, meaning) = self.value(count)?;
        if meaning != 0 {
            if varies {
                return Err(Trouble::Unknown);
            }
            let meaning = mix(meaning ^ mix(count as u64));
            for (end, seq) in self.follow(body)? {
                let known = all.entry(end).or_insert(Seq::EMPTY);
                *known = known.then(seq.symbolic(meaning));
            }
            return Ok(());
        }
        if count <= 0 {
            return Ok(());
        }
        if !varies {
            for (end, seq) in self.follow(body)? {
                let known = all.entry(end).or_insert(Seq::EMPTY);
                *known = known.then(seq.times(count.unsigned_abs()));
            }
            return Ok(());
        }
        for counter in 0..count {
            self.budget = self.budget.checked_sub(1).ok_or(Trouble::TooLong)?;
            self.loops[depth] = counter;
            self.follow_into(body, all)?;
        }
        self.loops[depth] = 0;
        Ok(())
    }

    /// The value of an expression with all registers 0, and a fingerprint of what registers add, 0 if
    /// there are none.
    fn value(&self, expr: &Affine) -> Result<(i64, u64), Trouble> {
        let registers = vec![0; self.vias.len()];
        let env = Env {
            params: &self.params,
            dims: &self.dims,
            loops: &self.loops,
            registers: &registers,
        };
        let value = expr.eval(&env).ok_or(Trouble::Broken)?;
        let mut meaning = 0;
        for (var, coefficient) in &expr.terms {
            if let Var::Register(register) = var {
                let via = self.vias.get(usize::from(*register)).copied().flatten();
                let via = via.ok_or(Trouble::Broken)?;
                let via = crate::entity::EntityId::index(via) as u64;
                // A sum, as registers of one family are in no order between segments.
                meaning = mix(mix(via + 1) ^ *coefficient as u64).wrapping_add(meaning) | 1;
            }
        }
        Ok((value, meaning))
    }

    fn message(&self, element: u64, extents: &[Affine]) -> Result<Seq, Trouble> {
        let (mut bytes, mut symbol) = (element, 0u64);
        for extent in extents {
            let (value, meaning) = self.value(extent)?;
            let value = u64::try_from(value).map_err(|_| Trouble::Broken)?;
            if meaning == 0 {
                bytes = bytes.saturating_mul(value);
            } else {
                symbol = mix(symbol ^ mix(meaning ^ mix(value)));
            }
        }
        Ok(Seq::message(bytes, mix(bytes ^ 1) ^ symbol))
    }
}
