//! Segments: buffers, tokens, streams and what is visible where.

use std::collections::BTreeMap;

use dojoc_grammar as g;

use super::expr::Variables;
use super::fields::Fields;
use super::{Reader, range};
use crate::codes;
use crate::program::{
    Affine, Buffer, BufferId, BufferRole, Inst, Packing, Place, Segment, SegmentId, Stream,
    TokenId, Unit, Var, ViewId,
};

/// What a value of a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// A parameter, counter or register.
    Var(Var),
    Buffer(BufferId),
    View(ViewId),
    Token(TokenId),
}

impl Named {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Var(Var::Register(_)) => "a register",
            Self::Var(Var::Loop(_)) => "a counter",
            Self::Var(_) => "a parameter",
            Self::Buffer(_) => "a buffer",
            Self::View(_) => "a view",
            Self::Token(_) => "a token",
        }
    }
}

/// The names of a segment.
#[derive(Default)]
pub(super) struct Scope<'t> {
    /// What is visible.
    names: BTreeMap<&'t str, Named>,
    /// The same for those that affine expressions may use.
    pub variables: Variables<'t>,
    /// All that were defined, with whether as a counter.
    taken: BTreeMap<&'t str, bool>,
    /// What bodies around this place have defined, in order.
    log: Vec<&'t str>,
    /// Loops around this place.
    pub depth: usize,
}

impl<'t> Scope<'t> {
    pub fn get(&self, name: &str) -> Option<Named> {
        self.names.get(name).copied()
    }

    /// All visible names of a kind that `pick` accepts.
    pub fn names(&self, pick: impl Fn(Named) -> bool) -> impl Iterator<Item = &'t str> {
        self.names
            .iter()
            .filter(move |(_, named)| pick(**named))
            .map(|(name, _)| *name)
    }

    /// Makes a name visible; `false` if it stands for something else already.
    pub fn define(&mut self, name: &'t str, named: Named) -> bool {
        let counter = matches!(named, Named::Var(Var::Loop(_)));
        let both_counters = counter && self.taken.get(name) == Some(&true);
        if self.names.contains_key(name) || (self.taken.contains_key(name) && !both_counters) {
            return false;
        }
        self.taken.insert(name, counter);
        self.names.insert(name, named);
        if let Named::Var(var) = named {
            self.variables.insert(name, var);
        }
        self.log.push(name);
        true
    }

    pub fn mark(&self) -> usize {
        self.log.len()
    }

    /// Hides what was defined since `mark`.
    pub fn close(&mut self, mark: usize) {
        for name in self.log.drain(mark..) {
            self.names.remove(name);
            self.variables.remove(name);
        }
    }
}

impl<'t> Reader<'t> {
    pub(super) fn segment(&mut self, id: SegmentId, segment: &mut Segment, func: g::Func) {
        let tree = self.cx.tree;
        let mut scope = Scope::default();
        for (at, param) in tree[func.params].iter().enumerate() {
            let name = self.cx.text(&param.name);
            self.param(param);
            segment.params.push(name.into());
            match u16::try_from(at) {
                Ok(at) => self.define(&mut scope, &param.name, Named::Var(Var::Param(at))),
                Err(_) => {
                    let message = "there are more than 65,536 parameters";
                    self.cx
                        .error::<()>(codes::BAD_STRUCTURE, param.span, message);
                    return;
                }
            }
        }
        if let Some(result) = tree[func.results].first() {
            let message = "a segment has no results";
            self.cx
                .error::<()>(codes::BAD_STRUCTURE, result.span, message);
        }
        let mut streams = vec![];
        for stmt in &tree[func.stmts] {
            let word = self.cx.text(&stmt.op);
            match Unit::ALL.iter().find(|(_, name)| *name == word) {
                Some((unit, _)) => streams.push((*unit, stmt)),
                None => self.member(id, segment, &mut scope, stmt),
            }
        }
        // The order of the text does not matter, so that equal programs are equal.
        streams.sort_by_key(|(unit, _)| *unit);
        for (unit, stmt) in streams {
            self.stream(id, segment, &mut scope, unit, stmt);
        }
    }

    fn stream(
        &mut self,
        id: SegmentId,
        segment: &mut Segment,
        scope: &mut Scope<'t>,
        unit: Unit,
        stmt: &g::Stmt,
    ) {
        let tree = self.cx.tree;
        let word = self.cx.text(&stmt.op);
        if segment.streams.last().is_some_and(|last| last.unit == unit) {
            let message = format!("there are two streams `{word}`");
            self.cx
                .error::<()>(codes::DUPLICATE_NAME, stmt.op.span, message);
        }
        Fields::new(&self.cx, "a stream", stmt.op.span, stmt.attrs, &[]);
        self.cx.no_loc(stmt.locs, "a stream");
        let plain = [stmt.results.len(), stmt.operands.len(), stmt.types.len()] == [0; 3];
        let region = match &tree[stmt.regions] {
            [region] if plain && region.params.is_empty() => region,
            _ => {
                let message = format!("expected `{word} ({{ ^() .. }})`");
                self.cx
                    .error::<()>(codes::BAD_STRUCTURE, stmt.span, message);
                return;
            }
        };
        let stream = segment.streams.len() as u32;
        segment.streams.push(Stream { unit, code: vec![] });
        let mut code: Vec<Inst> = vec![];
        self.body((id, stream), segment, scope, region.stmts, &mut code);
        if let Some(last) = segment.streams.last_mut() {
            last.code = code;
        }
    }

    /// A buffer or token.
    fn member(
        &mut self,
        id: SegmentId,
        segment: &mut Segment,
        scope: &mut Scope<'t>,
        stmt: &g::Stmt,
    ) {
        let tree = self.cx.tree;
        let names = &tree[stmt.results];
        match (self.cx.text(&stmt.op), names) {
            ("buffer", [name]) => {
                let buffer = self.buffer(scope, stmt);
                let at = segment.buffers.push(buffer);
                self.map.insert(Place::Buffer(id, at), range(stmt.span));
                self.define(scope, name, Named::Buffer(at));
            }
            ("token", [name]) => {
                self.cx.no_loc(stmt.locs, "a token");
                Fields::new(&self.cx, "a token", stmt.op.span, stmt.attrs, &[]);
                let rest = [stmt.operands.len(), stmt.regions.len(), stmt.types.len()];
                if rest != [0; 3] {
                    let message = "expected `%name = token`";
                    self.cx
                        .error::<()>(codes::BAD_STRUCTURE, stmt.span, message);
                }
                let at = segment.tokens.push(self.cx.text(name).into());
                self.define(scope, name, Named::Token(at));
            }
            ("buffer" | "token", _) => {
                let word = self.cx.text(&stmt.op);
                let message = format!("expected `%name = {word}`");
                self.cx
                    .error::<()>(codes::BAD_STRUCTURE, stmt.span, message);
            }
            (word, _) => {
                let known = ["buffer", "token", "matrix", "vector", "comm0", "comm1"];
                let near = crate::graph::closest(word, known.into_iter());
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "instructions stand in the streams of a segment".to_owned(),
                };
                let message = format!("a segment has no `{word}`: it has {}", known.join(", "));
                self.cx
                    .error_help::<()>(codes::UNKNOWN_OP, stmt.op.span, message, Some(help));
                // What it should have defined is not reported again.
                for name in names {
                    let stand_in = Named::Buffer(segment.buffers.next_id());
                    scope.define(self.cx.text(name), stand_in);
                }
            }
        }
    }

    fn buffer(&mut self, scope: &Scope<'t>, stmt: &g::Stmt) -> Buffer {
        let loc = self.loc(stmt.locs);
        let (cx, tree) = (&self.cx, self.cx.tree);
        let known = ["at", "role", "packing"];
        let fields = Fields::new(cx, "a buffer", stmt.op.span, stmt.attrs, &known);
        let ty = match &tree[stmt.types] {
            [ty] if stmt.operands.is_empty() && stmt.regions.is_empty() => cx.constant_type(*ty),
            _ => {
                let message = "expected `%name = buffer {at = address} : type`";
                cx.error(codes::BAD_STRUCTURE, stmt.span, message)
            }
        };
        let (dtype, shape) = ty.unwrap_or((crate::types::DType::F32, vec![]));
        let at = fields
            .required("at")
            .and_then(|e| cx.affine(e, &scope.variables));
        let role = fields
            .get("role")
            .and_then(|e| cx.one_of(e, &BufferRole::ALL));
        let packing = fields
            .get("packing")
            .and_then(|e| cx.one_of(e, &Packing::ALL));
        Buffer {
            name: tree[stmt.results]
                .first()
                .map_or("", |name| cx.text(name))
                .into(),
            at: at.unwrap_or_else(|| Affine::constant(0)),
            dtype,
            shape,
            packing: packing.unwrap_or_default(),
            role: role.unwrap_or_default(),
            loc,
        }
    }

    /// Defines a name and reports if it is defined already.
    pub(super) fn define(&self, scope: &mut Scope<'t>, name: &g::Name, named: Named) {
        let text = self.cx.text(name);
        if !scope.define(text, named) {
            let message = format!("`%{text}` is defined twice");
            self.cx
                .error::<()>(codes::DUPLICATE_NAME, name.span, message);
        }
    }
}
