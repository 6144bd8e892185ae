//! The structure of segments: buffers, views, streams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::super::instr::Ref;
use super::super::super::{
    Affine, BufferId, DramId, FamilyId, MAX_LOOP_DEPTH, MAX_VIEW_RANK, Place, Segment, SegmentId,
    Stmt, TokenId, Var, ViewId,
};
use super::Checker;

/// What is defined where a statement stands.
struct Body {
    /// Position behind the body.
    end: usize,
    /// Name of the counter; the body of a stream has none.
    counter: Option<Arc<str>>,
    views: BTreeSet<ViewId>,
    registers: BTreeSet<u16>,
}

pub(super) fn check(checker: &mut Checker<'_>, id: SegmentId, segment: &Segment) {
    let place = Place::Segment(id);
    checker.loc(place, segment.loc);
    let before = checker.found.len();
    declarations(checker, id, segment);
    if checker.found.len() > before {
        return;
    }
    if !segment
        .streams
        .windows(2)
        .all(|pair| pair[0].unit < pair[1].unit)
    {
        checker.fail(
            place,
            "streams are not in the order of their units, one of each",
        );
    }
    let mut code = Code {
        checker,
        id,
        segment,
        names: names(segment),
        defined: BTreeMap::new(),
        counted: BTreeMap::new(),
    };
    for stream in 0..segment.streams.len() {
        code.stream(stream);
    }
    let (defined, counted) = (code.defined, code.counted);
    for (view, declared) in segment.views.iter() {
        let times = defined.get(&view).copied().unwrap_or(0);
        if times != 1 {
            let name = &declared.name;
            checker.fail(place, format!("view %{name} is defined {times} times"));
        }
    }
    for (register, name) in segment.registers.iter().enumerate() {
        let times = counted.get(&(register as u16)).copied().unwrap_or(0);
        if times != 1 {
            checker.fail(place, format!("register %{name} is defined {times} times"));
        }
    }
}

/// All names of a segment but those of loop counters.
fn names(segment: &Segment) -> BTreeSet<&Arc<str>> {
    let buffers = segment.buffers.values().map(|b| &b.name);
    let views = segment.views.values().map(|v| &v.name);
    let registers = segment.registers.iter();
    let all = segment.params.iter().chain(buffers).chain(views);
    all.chain(segment.tokens.values())
        .chain(registers)
        .collect()
}

fn declarations(checker: &mut Checker<'_>, id: SegmentId, segment: &Segment) {
    let place = Place::Segment(id);
    let count = segment.params.len()
        + segment.buffers.len()
        + segment.views.len()
        + segment.tokens.len()
        + segment.registers.len();
    if names(segment).len() != count {
        checker.fail(
            place,
            "two of its parameters, buffers, views, tokens, registers have one name",
        );
    }
    let params = segment.params.len();
    for (at, buffer) in segment.buffers.iter() {
        let place = Place::Buffer(id, at);
        checker.loc(place, buffer.loc);
        checker.affine(
            place,
            "the address",
            &buffer.at,
            |var| matches!(var, Var::Param(p) if usize::from(p) < params),
        );
        rank(checker, place, buffer.shape.len(), buffer.packing.block());
        if buffer.view_type().and_then(|view| view.extent()).is_none() {
            checker.fail(place, "is too large to address");
        }
    }
    for view in segment.views.values() {
        if segment.buffers.get(view.buffer).is_none() {
            checker.fail(place, format!("view %{} is of no buffer", view.name));
        }
        rank(checker, place, view.shape.len(), view.packing.block());
        if view.shape.len() != view.strides.len() {
            let (extents, strides) = (view.shape.len(), view.strides.len());
            let name = &view.name;
            let message = format!("view %{name} has {extents} extents and {strides} strides");
            checker.fail(place, message);
        }
    }
}

fn rank(checker: &mut Checker<'_>, place: Place, rank: usize, block: (u64, u64)) {
    if rank > MAX_VIEW_RANK {
        checker.fail(
            place,
            format!("has rank {rank}, at most {MAX_VIEW_RANK} is allowed"),
        );
    }
    if block != (1, 1) && rank < 2 {
        checker.fail(place, format!("has rank {rank} and cannot be packed"));
    }
}

struct Code<'c, 'p> {
    checker: &'c mut Checker<'p>,
    id: SegmentId,
    segment: &'c Segment,
    names: BTreeSet<&'c Arc<str>>,
    defined: BTreeMap<ViewId, u32>,
    counted: BTreeMap<u16, u32>,
}

impl Code<'_, '_> {
    fn stream(&mut self, at: usize) {
        let code = &self.segment.streams[at].code;
        let mut bodies = vec![Body {
            end: code.len(),
            counter: None,
            views: BTreeSet::new(),
            registers: BTreeSet::new(),
        }];
        for (position, inst) in code.iter().enumerate() {
            while bodies.len() > 1 && bodies.last().is_some_and(|body| body.end <= position) {
                bodies.pop();
            }
            let place = Place::Inst(self.id, at as u32, position as u32);
            self.checker.loc(place, inst.loc);
            if !self.statement(place, &inst.stmt, position, &mut bodies) {
                return;
            }
        }
    }

    /// False if what follows makes no sense any more.
    fn statement(
        &mut self,
        place: Place,
        stmt: &Stmt,
        position: usize,
        bodies: &mut Vec<Body>,
    ) -> bool {
        match stmt {
            Stmt::View(view) => self.view(place, *view, bodies),
            Stmt::Compute {
                instr,
                operands,
                scalars,
            } => {
                let (expected, scalar_names) = (instr.roles().len(), instr.scalars());
                if operands.len() != expected {
                    let message = format!("has {} operands instead of {expected}", operands.len());
                    self.checker.fail(place, message);
                }
                if scalars.len() != scalar_names.len() {
                    let (found, expected) = (scalars.len(), scalar_names.len());
                    let message = format!("has {found} scalars instead of {expected}");
                    self.checker.fail(place, message);
                }
                for operand in operands {
                    self.operand(place, *operand, bodies);
                }
                for scalar in scalars {
                    self.affine(place, "a scalar", scalar, bodies);
                }
            }
            Stmt::Post { family, port, slot } | Stmt::Receive { family, port, slot } => {
                self.channel(place, *family, port, bodies);
                self.operand(place, *slot, bodies);
            }
            Stmt::Send { family, port, from } => {
                self.channel(place, *family, port, bodies);
                self.operand(place, *from, bodies);
            }
            Stmt::Relay {
                family,
                port,
                slot,
                to,
                to_port,
            } => {
                self.channel(place, *family, port, bodies);
                self.channel(place, *to, to_port, bodies);
                self.operand(place, *slot, bodies);
            }
            Stmt::Signal(token) | Stmt::Wait(token) => self.token(place, *token),
            Stmt::DramBegin(dram) | Stmt::DramCommit(dram) => self.dram(place, *dram),
            Stmt::DramAcquire { dram, owner } | Stmt::DramRelease { dram, owner } => {
                self.dram(place, *dram);
                self.affine(place, "the owner", owner, bodies);
            }
            Stmt::DramLoad {
                dram,
                owner,
                offset,
                strides,
                to,
            } => {
                self.affine(place, "the owner", owner, bodies);
                self.dram_access(place, *dram, offset, strides, *to, bodies);
            }
            Stmt::DramStore {
                dram,
                offset,
                strides,
                from,
            } => self.dram_access(place, *dram, offset, strides, *from, bodies),
            Stmt::Loop { name, count, len } => {
                return self.enter(place, (name, count, *len as usize), position, bodies);
            }
            Stmt::Count {
                register,
                from,
                via,
                ..
            } => {
                self.operand(place, *from, bodies);
                if let Some(via) = via {
                    self.family(place, *via);
                }
                if usize::from(*register) >= self.segment.registers.len() {
                    self.checker.fail(place, "the register is not declared");
                }
                *self.counted.entry(*register).or_default() += 1;
                if let Some(body) = bodies.last_mut() {
                    body.registers.insert(*register);
                }
            }
        }
        true
    }

    fn enter(
        &mut self,
        place: Place,
        (name, count, len): (&Arc<str>, &Affine, usize),
        position: usize,
        bodies: &mut Vec<Body>,
    ) -> bool {
        self.affine(place, "the count", count, bodies);
        let end = position + 1 + len;
        if bodies.last().is_some_and(|body| end > body.end) {
            let message = "the body reaches behind the end of what encloses it";
            self.checker.fail(place, message);
            return false;
        }
        if bodies.len() > MAX_LOOP_DEPTH {
            let message = format!("is nested deeper than {MAX_LOOP_DEPTH}");
            self.checker.fail(place, message);
            return false;
        }
        let taken = bodies
            .iter()
            .any(|body| body.counter.as_ref() == Some(name));
        if taken || self.names.contains(name) {
            self.checker
                .fail(place, format!("the name %{name} is taken"));
        }
        bodies.push(Body {
            end,
            counter: Some(name.clone()),
            views: BTreeSet::new(),
            registers: BTreeSet::new(),
        });
        true
    }

    fn view(&mut self, place: Place, id: ViewId, bodies: &mut [Body]) {
        let Some(view) = self.segment.views.get(id) else {
            self.checker.fail(place, "the view is not declared");
            return;
        };
        self.affine(place, "the offset", &view.offset, bodies);
        for extent in &view.shape {
            self.affine(place, "an extent", extent, bodies);
        }
        *self.defined.entry(id).or_default() += 1;
        if let Some(body) = bodies.last_mut() {
            body.views.insert(id);
        }
    }

    fn operand(&mut self, place: Place, operand: Ref, bodies: &[Body]) {
        match operand {
            Ref::Buffer(buffer) => self.buffer(place, buffer),
            Ref::View(view) => {
                let Some(declared) = self.segment.views.get(view) else {
                    self.checker.fail(place, "an operand is not declared");
                    return;
                };
                if !bodies.iter().any(|body| body.views.contains(&view)) {
                    let message = format!("view %{} is not defined here", declared.name);
                    self.checker.fail(place, message);
                }
            }
        }
    }

    fn buffer(&mut self, place: Place, buffer: BufferId) {
        if self.segment.buffers.get(buffer).is_none() {
            self.checker.fail(place, "an operand is not declared");
        }
    }

    fn family(&mut self, place: Place, family: FamilyId) {
        if self.checker.program.families.get(family).is_none() {
            self.checker
                .fail(place, "the channel family is not declared");
        }
    }

    fn channel(&mut self, place: Place, family: FamilyId, port: &Affine, bodies: &[Body]) {
        self.family(place, family);
        self.affine(place, "the port", port, bodies);
    }

    fn token(&mut self, place: Place, token: TokenId) {
        if self.segment.tokens.get(token).is_none() {
            self.checker.fail(place, "the token is not declared");
        }
    }

    fn dram(&mut self, place: Place, dram: DramId) {
        if self.checker.program.dram.get(dram).is_none() {
            self.checker.fail(place, "the dram region is not declared");
        }
    }

    fn dram_access(
        &mut self,
        place: Place,
        dram: DramId,
        offset: &Affine,
        strides: &[i64],
        operand: Ref,
        bodies: &[Body],
    ) {
        self.dram(place, dram);
        self.affine(place, "the offset", offset, bodies);
        self.operand(place, operand, bodies);
        let rank = match operand {
            Ref::Buffer(buffer) => self.segment.buffers.get(buffer).map(|b| b.shape.len()),
            Ref::View(view) => self.segment.views.get(view).map(|v| v.shape.len()),
        };
        if rank.is_some_and(|rank| rank != strides.len()) {
            let message = format!(
                "has {} strides for an operand of another rank",
                strides.len()
            );
            self.checker.fail(place, message);
        }
    }

    fn affine(&mut self, place: Place, what: &str, expr: &Affine, bodies: &[Body]) {
        let (params, dims) = (self.segment.params.len(), self.checker.program.dims.len());
        self.checker.affine(place, what, expr, |var| match var {
            Var::Param(p) => usize::from(p) < params,
            Var::Dim(d) => usize::from(d) < dims,
            Var::Loop(depth) => usize::from(depth) + 1 < bodies.len(),
            Var::Register(r) => bodies.iter().any(|body| body.registers.contains(&r)),
        });
    }
}
