//! Statements of streams.

use dojoc_grammar as g;
use dojoc_grammar::Sigil;

use super::fields::Fields;
use super::segment::{Named, Scope};
use super::{Reader, range};
use crate::codes;
use crate::entity::EntityId as _;
use crate::graph::closest;
use crate::program::instr::Ref;
use crate::program::print::operand_type;
use crate::program::{
    Affine, BufferId, DramId, FamilyId, Inst, MAX_LOOP_DEPTH, Packing, Place, Segment, SegmentId,
    Stmt, TokenId, Var, View, dense_strides,
};
use crate::types::DType;

/// How a statement that is not a compute instruction is written.
struct Form {
    word: &'static str,
    operands: &'static [Sigil],
    attrs: &'static [&'static str],
    usage: &'static str,
}

const fn form(
    word: &'static str,
    operands: &'static [Sigil],
    attrs: &'static [&'static str],
    usage: &'static str,
) -> Form {
    Form {
        word,
        operands,
        attrs,
        usage,
    }
}

const S: Sigil = Sigil::Symbol;
const V: Sigil = Sigil::Value;

const FORMS: [Form; 12] = [
    form("post", &[S, V], &["port"], "post @channel, %slot"),
    form("send", &[S, V], &["port"], "send @channel, %view"),
    form("recv", &[S, V], &["port"], "recv @channel, %slot"),
    form(
        "relay",
        &[S, V, S],
        &["port", "to_port"],
        "relay @channel, %slot, @to",
    ),
    form("signal", &[V], &[], "signal %token"),
    form("wait", &[V], &[], "wait %token"),
    form("dram.begin", &[S], &[], "dram.begin @region"),
    form("dram.commit", &[S], &[], "dram.commit @region"),
    form(
        "dram.acquire",
        &[S],
        &["owner"],
        "dram.acquire @region {owner = i}",
    ),
    form(
        "dram.release",
        &[S],
        &["owner"],
        "dram.release @region {owner = i}",
    ),
    form(
        "dram.load",
        &[V, S],
        &["owner", "offset", "strides"],
        "dram.load %view, @region {offset = bytes}",
    ),
    form(
        "dram.store",
        &[S, V],
        &["offset", "strides"],
        "dram.store @region, %view {offset = bytes}",
    ),
];

/// A stream under construction: its segment and its position in it.
type Stream = (SegmentId, u32);

impl<'t> Reader<'t> {
    /// Appends the statements of a body; what they define is hidden behind it.
    pub(super) fn body(
        &mut self,
        stream: Stream,
        segment: &mut Segment,
        scope: &mut Scope<'t>,
        stmts: g::List<g::Stmt>,
        code: &mut Vec<Inst>,
    ) {
        let mark = scope.mark();
        for stmt in &self.cx.tree[stmts] {
            let place = Place::Inst(stream.0, stream.1, code.len() as u32);
            let loc = self.loc(stmt.locs);
            let word = self.cx.text(&stmt.op);
            if word == "for" {
                self.map.insert(place, range(stmt.op.span));
                self.counted_loop(stream, segment, scope, stmt, (loc, code));
                continue;
            }
            self.map.insert(place, range(stmt.span));
            let found = match word {
                "view" => self.view(segment, scope, stmt),
                "count" => self.count(segment, scope, stmt),
                _ => match FORMS.iter().find(|form| form.word == word) {
                    Some(form) => self.structural(segment, scope, stmt, form),
                    None => self.compute(scope, stmt),
                },
            };
            code.extend(found.map(|stmt| Inst { stmt, loc }));
        }
        scope.close(mark);
    }

    fn counted_loop(
        &mut self,
        stream: Stream,
        segment: &mut Segment,
        scope: &mut Scope<'t>,
        stmt: &g::Stmt,
        (loc, code): (Option<crate::program::LocId>, &mut Vec<Inst>),
    ) {
        let usage = "for {count = n} ({ ^(%i : index) .. })";
        self.expect(stmt, &[], (0, 1, 0), usage);
        let fields = Fields::new(&self.cx, "`for`", stmt.op.span, stmt.attrs, &["count"]);
        let count = fields
            .required("count")
            .and_then(|e| self.cx.affine(e, &scope.variables));
        let Some((name, body)) = self.counted_region(stmt, usage) else {
            return;
        };
        if scope.depth == MAX_LOOP_DEPTH {
            let message = format!("loops are nested at most {MAX_LOOP_DEPTH} deep");
            self.cx
                .error::<()>(codes::BAD_STRUCTURE, stmt.op.span, message);
            return;
        }
        let at = code.len();
        let count = count.unwrap_or_default();
        code.push(Inst {
            stmt: Stmt::Loop {
                name: name.into(),
                count,
                len: 0,
            },
            loc,
        });
        let mark = scope.mark();
        if !scope.define(name, Named::Var(Var::Loop(scope.depth as u8))) {
            let message = format!("`%{name}` is defined twice");
            self.cx
                .error::<()>(codes::DUPLICATE_NAME, stmt.span, message);
        }
        scope.depth += 1;
        self.body(stream, segment, scope, body, code);
        scope.depth -= 1;
        scope.close(mark);
        let body = (code.len() - at - 1) as u32;
        if let Some(Inst {
            stmt: Stmt::Loop { len, .. },
            ..
        }) = code.get_mut(at)
        {
            *len = body;
        }
    }

    /// Reports if a statement does not have these operands, and as many results, regions and types.
    fn expect(
        &self,
        stmt: &g::Stmt,
        operands: &[Sigil],
        (results, regions, types): (usize, usize, usize),
        usage: &str,
    ) -> Option<()> {
        let found = self.cx.tree[stmt.operands]
            .iter()
            .map(|operand| operand.sigil);
        let counts = (stmt.results.len(), stmt.regions.len(), stmt.types.len());
        if !found.eq(operands.iter().copied()) || counts != (results, regions, types) {
            let message = format!("expected `{usage}`");
            return self.cx.error(codes::BAD_STRUCTURE, stmt.span, message);
        }
        Some(())
    }

    fn view(
        &mut self,
        segment: &mut Segment,
        scope: &mut Scope<'t>,
        stmt: &g::Stmt,
    ) -> Option<Stmt> {
        let view = self.view_parts(scope, stmt);
        // Without a name there is nothing that later statements could refer to.
        let name = self.cx.tree[stmt.results].first()?;
        let text = self.cx.text(name);
        let view = view.unwrap_or_else(|| View {
            name: text.into(),
            buffer: BufferId::from_index(0),
            offset: Affine::default(),
            dtype: DType::F32,
            shape: vec![],
            strides: vec![],
            packing: Packing::Strided,
        });
        let id = segment.views.push(view);
        self.define(scope, name, Named::View(id));
        Some(Stmt::View(id))
    }

    fn view_parts(&self, scope: &Scope<'t>, stmt: &g::Stmt) -> Option<View> {
        let (cx, tree) = (&self.cx, self.cx.tree);
        let known = ["offset", "strides", "packing"];
        let fields = Fields::new(cx, "a view", stmt.op.span, stmt.attrs, &known);
        self.expect(
            stmt,
            &[V],
            (1, 0, 1),
            "%name = view %buffer {offset = bytes} : type",
        )?;
        let of = &tree[stmt.operands][0].name;
        let buffer = match self.named(scope, of, "a buffer", |named| {
            matches!(named, Named::Buffer(_))
        })? {
            Named::Buffer(buffer) => buffer,
            _ => return None,
        };
        let offset = match fields.get("offset") {
            Some(offset) => cx.affine(offset, &scope.variables)?,
            None => Affine::default(),
        };
        let packing = match fields.get("packing") {
            Some(packing) => cx.one_of(packing, &Packing::ALL)?,
            None => Packing::Strided,
        };
        let (dtype, shape) = cx.affine_type(tree[stmt.types][0], &scope.variables)?;
        let strides = match fields.get("strides") {
            Some(strides) => cx.ints(strides)?,
            None => {
                let extents = shape.iter().map(|e| u64::try_from(e.as_constant()?).ok());
                let extents = extents.collect::<Option<Vec<u64>>>();
                match extents.and_then(|extents| dense_strides(dtype, &extents, packing)) {
                    Some(dense) => dense,
                    None => {
                        let message = "without `strides` all extents of a view are numbers";
                        return cx.error(codes::BAD_STRUCTURE, stmt.span, message);
                    }
                }
            }
        };
        let name = tree[stmt.results]
            .first()
            .map_or("", |name| cx.text(name))
            .into();
        Some(View {
            name,
            buffer,
            offset,
            dtype,
            shape,
            strides,
            packing,
        })
    }

    fn count(
        &mut self,
        segment: &mut Segment,
        scope: &mut Scope<'t>,
        stmt: &g::Stmt,
    ) -> Option<Stmt> {
        let cx = &self.cx;
        let fields = Fields::new(cx, "`count`", stmt.op.span, stmt.attrs, &["max", "via"]);
        let usage = "%register = count %view {max = m}";
        let shape = self.expect(stmt, &[V], (1, 0, 0), usage);
        let max = fields.required("max").and_then(|e| cx.uint(e));
        let via = fields.get("via").map(|e| cx.family_of(e));
        let from = shape.and_then(|()| self.operand(scope, &cx.tree[stmt.operands][0].name));
        let name = cx.tree[stmt.results].first()?;
        let Ok(register) = u16::try_from(segment.registers.len()) else {
            let message = "there are more than 65,536 registers";
            return cx.error(codes::BAD_STRUCTURE, stmt.span, message);
        };
        segment.registers.push(cx.text(name).into());
        self.define(scope, name, Named::Var(Var::Register(register)));
        let via = match via {
            Some(via) => Some(via?),
            None => None,
        };
        Some(Stmt::Count {
            register,
            from: from?,
            max: max?,
            via,
        })
    }

    fn structural(
        &self,
        segment: &Segment,
        scope: &Scope<'t>,
        stmt: &g::Stmt,
        form: &Form,
    ) -> Option<Stmt> {
        let cx = &self.cx;
        let owner = format!("`{}`", form.word);
        let fields = Fields::new(cx, &owner, stmt.op.span, stmt.attrs, form.attrs);
        self.expect(stmt, form.operands, (0, 0, 0), form.usage)?;
        let number = |key| match fields.get(key) {
            Some(e) => cx.affine(e, &scope.variables),
            None => Some(Affine::default()),
        };
        let operands = &cx.tree[stmt.operands];
        let view = |at: usize| self.operand(scope, &operands[at].name);
        let strides = |of: Ref| match fields.get("strides") {
            Some(strides) => cx.ints(strides),
            None => {
                let dense = operand_type(segment, of)
                    .and_then(|(dtype, shape)| dense_strides(dtype, &shape, Packing::Strided));
                dense.or_else(|| {
                    let message = "without `strides` all extents of the view are numbers";
                    cx.error(codes::BAD_STRUCTURE, stmt.span, message)
                })
            }
        };
        let family = |at: usize| self.family_operand(&operands[at].name);
        let dram = |at: usize| self.dram_operand(&operands[at].name);
        let token = || self.token(scope, &operands[0].name);
        Some(match form.word {
            "post" => {
                let (family, slot) = (family(0), view(1));
                Stmt::Post {
                    family: family?,
                    port: number("port")?,
                    slot: slot?,
                }
            }
            "send" => {
                let (family, from) = (family(0), view(1));
                Stmt::Send {
                    family: family?,
                    port: number("port")?,
                    from: from?,
                }
            }
            "recv" => {
                let (family, slot) = (family(0), view(1));
                Stmt::Receive {
                    family: family?,
                    port: number("port")?,
                    slot: slot?,
                }
            }
            "relay" => {
                let (incoming, slot, to) = (family(0), view(1), family(2));
                let (port, to_port) = (number("port"), number("to_port"));
                Stmt::Relay {
                    family: incoming?,
                    port: port?,
                    slot: slot?,
                    to: to?,
                    to_port: to_port?,
                }
            }
            "signal" => Stmt::Signal(token()?),
            "wait" => Stmt::Wait(token()?),
            "dram.begin" => Stmt::DramBegin(dram(0)?),
            "dram.commit" => Stmt::DramCommit(dram(0)?),
            "dram.acquire" => Stmt::DramAcquire {
                dram: dram(0)?,
                owner: number("owner")?,
            },
            "dram.release" => Stmt::DramRelease {
                dram: dram(0)?,
                owner: number("owner")?,
            },
            "dram.load" => {
                let (to, dram) = (view(0), dram(1));
                let (owner, offset) = (number("owner"), number("offset"));
                let (to, dram) = (to?, dram?);
                Stmt::DramLoad {
                    dram,
                    owner: owner?,
                    offset: offset?,
                    strides: strides(to)?,
                    to,
                }
            }
            _ => {
                let (dram, from) = (dram(0), view(1));
                let offset = number("offset");
                let (dram, from) = (dram?, from?);
                Stmt::DramStore {
                    dram,
                    offset: offset?,
                    strides: strides(from)?,
                    from,
                }
            }
        })
    }

    /// What a name stands for, if it is of the kind wanted.
    fn named(
        &self,
        scope: &Scope<'t>,
        name: &g::Name,
        kind: &str,
        pick: impl Fn(Named) -> bool + Copy,
    ) -> Option<Named> {
        let text = self.cx.text(name);
        match scope.get(text) {
            Some(named) if pick(named) => Some(named),
            Some(named) => {
                let message = format!("expected {kind}, but `%{text}` is {}", named.kind());
                self.cx.error(codes::UNKNOWN_NAME, name.span, message)
            }
            None => {
                let near = closest(text, scope.names(pick));
                let help = near.map(|near| format!("did you mean `%{near}`?"));
                let message = format!("there is no `%{text}` here");
                self.cx
                    .error_help(codes::UNKNOWN_NAME, name.span, message, help)
            }
        }
    }

    pub(super) fn operand(&self, scope: &Scope<'t>, name: &g::Name) -> Option<Ref> {
        let pick = |named| matches!(named, Named::Buffer(_) | Named::View(_));
        match self.named(scope, name, "a buffer or view", pick)? {
            Named::Buffer(buffer) => Some(Ref::Buffer(buffer)),
            Named::View(view) => Some(Ref::View(view)),
            _ => None,
        }
    }

    fn token(&self, scope: &Scope<'t>, name: &g::Name) -> Option<TokenId> {
        match self.named(scope, name, "a token", |named| {
            matches!(named, Named::Token(_))
        })? {
            Named::Token(token) => Some(token),
            _ => None,
        }
    }

    fn family_operand(&self, name: &g::Name) -> Option<FamilyId> {
        self.cx.symbol(name, "a channel", |symbol| match symbol {
            super::Symbol::Family(id) => Some(id),
            _ => None,
        })
    }

    fn dram_operand(&self, name: &g::Name) -> Option<DramId> {
        self.cx
            .symbol(name, "a DRAM region", |symbol| match symbol {
                super::Symbol::Dram(id) => Some(id),
                _ => None,
            })
    }
}
