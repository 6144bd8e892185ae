//! Reads the text form of a program, which `print` documents.
//!
//! Every mistake of the text is reported with its place; what the verifier checks (bounds, channels,
//! schedules) is left to it.

mod compute;
mod decl;
mod expr;
mod fields;
mod recipe;
mod schedule;
mod segment;
mod stmt;
mod tensor;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use dojoc_grammar as g;
use dojoc_grammar::{Body, ExprKind, Tree};
use fields::Fields;

use super::{
    DramId, Entry, EntryId, FamilyId, LocId, Place, Program, Region, RegionId, Segment, SegmentId,
    Table, TableId, TensorId,
};
use crate::codes;
use crate::diag::{self, Diagnostic, Diagnostics, Loc};
use crate::graph::closest;
use crate::graph::text::{Exprs, syntax_errors};

/// Where in the text the parts of a program stand, as byte ranges.
pub type SourceMap = BTreeMap<Place, Range<usize>>;

/// Reads a program and where its parts stand in the text.
///
/// # Errors
/// All syntax errors, or if there are none, all unknown names, attributes and malformed
/// declarations.
pub fn parse(text: &str) -> Result<(Program, SourceMap), Diagnostics> {
    let parsed = g::parse(text);
    if !parsed.errors.is_empty() {
        return Err(syntax_errors(&parsed.errors));
    }
    let cx = Context {
        tree: &parsed.tree,
        exprs: Exprs::new(&parsed.tree),
        errors: RefCell::default(),
        symbols: BTreeMap::new(),
        dims: BTreeMap::new(),
        locs: BTreeMap::new(),
    };
    let mut reader = Reader {
        cx,
        program: Program::default(),
        map: SourceMap::new(),
    };
    reader.file();
    let Reader { program, map, cx } = reader;
    let mut errors = cx.errors.into_inner();
    errors.0.extend(cx.exprs.into_errors().0);
    errors.0.sort_by_key(|d| match &d.place {
        Some(diag::Place::Span(span)) => span.start,
        _ => usize::MAX,
    });
    errors.ok((program, map))
}

/// What a symbol names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Symbol {
    Region(RegionId),
    Table(TableId),
    Family(FamilyId),
    Dram(DramId),
    Tensor(TensorId),
    Segment(SegmentId),
    Entry(EntryId),
}

impl Symbol {
    /// What the declaration of a keyword declares, with the id that is next among its kind.
    fn of(keyword: &str, next: &mut [u32; 7]) -> Option<Self> {
        use crate::entity::EntityId as _;
        let mut id = |kind: usize| {
            next[kind] += 1;
            next[kind] as usize - 1
        };
        Some(match keyword {
            "cores" => Self::Region(RegionId::from_index(id(0))),
            "table" => Self::Table(TableId::from_index(id(1))),
            "channel" => Self::Family(FamilyId::from_index(id(2))),
            "dram" => Self::Dram(DramId::from_index(id(3))),
            "input" | "output" | "weight" | "state" | "probe" => {
                Self::Tensor(TensorId::from_index(id(4)))
            }
            "segment" => Self::Segment(SegmentId::from_index(id(5))),
            "entry" => Self::Entry(EntryId::from_index(id(6))),
            _ => return None,
        })
    }

    /// Its kind with an article, for messages.
    fn kind(self) -> &'static str {
        match self {
            Self::Region(_) => "a set of cores",
            Self::Table(_) => "a table",
            Self::Family(_) => "a channel",
            Self::Dram(_) => "a DRAM region",
            Self::Tensor(_) => "a tensor",
            Self::Segment(_) => "a segment",
            Self::Entry(_) => "an entry",
        }
    }

    /// Position of the kind in the order of the program's tables.
    fn order(self) -> usize {
        match self {
            Self::Region(_) => 0,
            Self::Table(_) => 1,
            Self::Family(_) => 2,
            Self::Dram(_) => 3,
            Self::Tensor(_) => 4,
            Self::Segment(_) => 5,
            Self::Entry(_) => 6,
        }
    }
}

/// Words that begin a declaration.
const KEYWORDS: [&str; 11] = [
    "cores", "table", "channel", "dram", "input", "output", "weight", "state", "probe", "segment",
    "entry",
];

/// What all parts of the reader share: the text, its names, and what is wrong with it.
struct Context<'t> {
    tree: &'t Tree,
    exprs: Exprs<'t>,
    errors: RefCell<Diagnostics>,
    symbols: BTreeMap<&'t str, Symbol>,
    dims: BTreeMap<&'t str, u16>,
    locs: BTreeMap<Loc, LocId>,
}

impl<'t> Context<'t> {
    /// Reports a mistake. Gives `None`, as does what cannot be read.
    fn error<T>(&self, code: u16, span: g::Span, message: impl Into<String>) -> Option<T> {
        let diagnostic = Diagnostic::input(code, message).at_span(range(span));
        self.errors.borrow_mut().push(diagnostic);
        None
    }

    fn error_help<T>(
        &self,
        code: u16,
        span: g::Span,
        message: String,
        help: Option<String>,
    ) -> Option<T> {
        let mut diagnostic = Diagnostic::input(code, message).at_span(range(span));
        diagnostic.help = help;
        self.errors.borrow_mut().push(diagnostic);
        None
    }

    fn text(&self, name: &g::Name) -> &'t str {
        &self.tree[name.text]
    }

    /// What a symbol names, if it is of a kind.
    fn symbol<T>(
        &self,
        name: &g::Name,
        kind: &str,
        pick: impl Fn(Symbol) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name);
        match self.symbols.get(text) {
            Some(symbol) => match pick(*symbol) {
                Some(id) => Some(id),
                None => {
                    let found = symbol.kind();
                    let message = format!("expected {kind}, but `@{text}` is {found}");
                    self.error(codes::UNKNOWN_NAME, name.span, message)
                }
            },
            None => {
                let near = self.symbols.iter().filter(|(_, s)| pick(**s).is_some());
                let near = closest(text, near.map(|(name, _)| *name));
                let help = near.map(|near| format!("did you mean `@{near}`?"));
                let message = format!("`@{text}` is not defined: expected {kind}");
                self.error_help(codes::UNKNOWN_NAME, name.span, message, help)
            }
        }
    }

    /// Refuses locations where the program keeps none.
    fn no_loc(&self, locs: g::List<g::Loc>, what: &str) {
        if let Some(loc) = self.tree[locs].first() {
            let message = format!("{what} has no location");
            self.error::<()>(codes::BAD_DECLARATION, loc.span, message);
        }
    }
}

struct Reader<'t> {
    cx: Context<'t>,
    program: Program,
    map: SourceMap,
}

fn range(span: g::Span) -> Range<usize> {
    span.start as usize..span.end as usize
}

impl<'t> Reader<'t> {
    fn file(&mut self) {
        let tree = self.cx.tree;
        let version = super::TEXT_VERSION;
        if let Some(header) = tree.header() {
            let level = self.cx.text(&header.level);
            if level != "program" || header.version > version || header.version == 0 {
                let found = header.version;
                let message =
                    format!("expected `dojo program {version}`, found `dojo {level} {found}`");
                self.cx.error::<()>(codes::BAD_LEVEL, header.span, message);
                return;
            }
        }
        let (item, decls) = match tree.items() {
            [item] if self.cx.text(&item.keyword) == "program" => match item.body {
                Body::Decls(decls) => (item, &tree[decls]),
                _ => {
                    let message = "expected `program @name {machine = ..} { .. }`";
                    self.cx
                        .error::<()>(codes::BAD_DECLARATION, item.span, message);
                    return;
                }
            },
            items => {
                let wrong = items.iter().find(|i| self.cx.text(&i.keyword) != "program");
                let wrong = wrong
                    .or(items.get(1))
                    .map_or(g::Span::default(), |i| i.keyword.span);
                let message = "expected exactly one `program`";
                self.cx.error::<()>(codes::BAD_DECLARATION, wrong, message);
                return;
            }
        };
        self.map.insert(Place::Program, range(item.keyword.span));
        self.header(item);
        let mut found = self.symbols(decls);
        // In the order of the tables, so that references may point forward.
        found.sort_by_key(|(symbol, _)| symbol.order());
        for (symbol, decl) in found {
            self.declaration(symbol, decl);
        }
    }

    fn header(&mut self, item: &g::Decl) {
        self.program.name = self.cx.text(&item.symbol).into();
        self.cx.no_loc(item.locs, "a program");
        let known = ["machine", "fingerprint", "dims"];
        let fields = Fields::new(&self.cx, "a program", item.keyword.span, item.attrs, &known);
        if let Some(machine) = fields.required("machine").and_then(|e| self.cx.string(e)) {
            self.program.machine.name = machine.into();
        }
        if let Some(text) = fields.get("fingerprint") {
            let digits = self.cx.string(text);
            let value = digits
                .filter(|d| d.len() == 32 && d.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|d| u128::from_str_radix(d, 16).ok());
            match value {
                Some(value) => self.program.machine.fingerprint = value,
                None if digits.is_some() => {
                    let message = "a fingerprint has 32 hexadecimal digits";
                    self.cx
                        .error::<()>(codes::BAD_ATTRIBUTE, self.cx.tree[text].span, message);
                }
                None => {}
            }
        }
        let Some(dims) = fields.get("dims") else {
            return;
        };
        let ExprKind::Dict(dims) = self.cx.tree[dims].kind else {
            let message = "expected `{name = largest value, ..}`";
            self.cx
                .error::<()>(codes::BAD_ATTRIBUTE, self.cx.tree[dims].span, message);
            return;
        };
        let mut names = BTreeMap::new();
        for attr in &self.cx.tree[dims] {
            let name = self.cx.text(&attr.key);
            let max = self.cx.uint(attr.value).unwrap_or(1);
            match u16::try_from(self.program.dims.len()) {
                Ok(id) => names.insert(name, id),
                Err(_) => {
                    let message = "there are more than 65,536 run parameters";
                    self.cx
                        .error::<()>(codes::BAD_DECLARATION, attr.span, message);
                    break;
                }
            };
            self.program.dims.push((name.into(), max));
        }
        self.cx.dims = names;
    }

    /// Gives all declarations their ids, so that they may be used before they stand.
    fn symbols(&mut self, decls: &'t [g::Decl]) -> Vec<(Symbol, &'t g::Decl)> {
        let mut next = [0; 7];
        let mut found = vec![];
        for decl in decls {
            let keyword = self.cx.text(&decl.keyword);
            let name = self.cx.text(&decl.symbol);
            if KEYWORDS.contains(&keyword) && self.cx.symbols.contains_key(name) {
                let message = format!("`@{name}` is defined twice");
                self.cx
                    .error::<()>(codes::DUPLICATE_NAME, decl.symbol.span, message);
                continue;
            }
            let Some(symbol) = Symbol::of(keyword, &mut next) else {
                let near = closest(keyword, KEYWORDS.into_iter());
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are: {}", KEYWORDS.join(", ")),
                };
                let message = format!("a program has no declaration `{keyword}`");
                let span = decl.keyword.span;
                self.cx
                    .error_help::<()>(codes::BAD_DECLARATION, span, message, Some(help));
                continue;
            };
            self.cx.symbols.insert(name, symbol);
            found.push((symbol, decl));
        }
        found
    }

    /// Reads a declaration into the table of its kind. Malformed ones leave something behind too, so
    /// that the ids of others are right.
    fn declaration(&mut self, symbol: Symbol, decl: &'t g::Decl) {
        let name: Arc<str> = self.cx.text(&decl.symbol).into();
        self.shape(symbol, decl);
        let place = match symbol {
            Symbol::Region(id) => {
                let boxes = self.cx.boxes(decl).unwrap_or_default();
                self.program.regions.push(Region { name, boxes });
                Place::Region(id)
            }
            Symbol::Table(id) => {
                let values = decl
                    .init
                    .and_then(|init| self.cx.ints(init))
                    .unwrap_or_default();
                self.program.tables.push(Table { name, values });
                Place::Table(id)
            }
            Symbol::Family(id) => {
                let family = self.family(name, decl);
                self.program.families.push(family);
                Place::Family(id)
            }
            Symbol::Dram(id) => {
                let dram = self.cx.dram(name, decl);
                self.program.dram.push(dram);
                Place::Dram(id)
            }
            Symbol::Tensor(id) => {
                let tensor = self.tensor(name, decl);
                self.program.tensors.push(tensor);
                Place::Tensor(id)
            }
            Symbol::Segment(id) => {
                let mut segment = Segment {
                    name,
                    ..Segment::default()
                };
                segment.loc = self.loc(decl.locs);
                if let Body::Func(func) = decl.body {
                    self.segment(id, &mut segment, func);
                }
                self.program.segments.push(segment);
                Place::Segment(id)
            }
            Symbol::Entry(id) => {
                let mut entry = Entry {
                    name,
                    ..Entry::default()
                };
                if let Body::Func(func) = decl.body {
                    self.entry(id, &mut entry, decl, func);
                }
                self.program.entries.push(entry);
                Place::Entry(id)
            }
        };
        let whole = !matches!(decl.body, Body::Func(_));
        let span = if whole { decl.span } else { decl.symbol.span };
        self.map.insert(place, range(span));
    }

    /// Refuses clauses that a declaration of this kind does not have.
    fn shape(&self, symbol: Symbol, decl: &g::Decl) {
        // Whether there are a type, an expression, attributes and a body.
        let (form, expected) = match symbol {
            Symbol::Region(_) => ([false, true, false, false], "cores @name = [box(..), ..]"),
            Symbol::Table(_) => ([false, true, false, false], "table @name = [numbers]"),
            Symbol::Family(_) => (
                [false, false, true, false],
                "channel @name {from = .., to = .., peer = ..}",
            ),
            Symbol::Dram(_) => (
                [false, false, true, false],
                "dram @name {dip = .., bytes = ..}",
            ),
            Symbol::Tensor(_) => match self.cx.text(&decl.keyword) {
                "weight" => (
                    [true, true, true, false],
                    "weight @name : type = [..] {data = ..}",
                ),
                "state" => (
                    [true, true, true, false],
                    "state @name : type = [..] {init = ..}",
                ),
                "output" => ([true, true, false, false], "output @name : type = [..]"),
                "probe" => ([true, true, false, false], "probe @name : type = [..]"),
                _ => ([true, true, false, false], "input @name : type = [..]"),
            },
            Symbol::Segment(_) => ([false, false, false, true], "segment @name(..) { .. }"),
            Symbol::Entry(_) => (
                [false, false, true, true],
                "entry @name() {inputs = .., outputs = ..} { .. }",
            ),
        };
        let body = matches!(decl.body, Body::Func(_));
        let other = matches!(decl.body, Body::Decls(_));
        let attrs = !decl.attrs.is_empty();
        let found = [decl.ty.is_some(), decl.init.is_some(), attrs, body];
        // Missing attributes have a better message of their own.
        let differs = (0..4).any(|k| found[k] != form[k] && !(k == 2 && form[k]));
        if differs || other {
            let message = format!("expected `{expected}`");
            self.cx
                .error::<()>(codes::BAD_DECLARATION, decl.span, message);
        }
        if matches!(
            symbol,
            Symbol::Region(_) | Symbol::Table(_) | Symbol::Dram(_) | Symbol::Entry(_)
        ) {
            self.cx.no_loc(decl.locs, symbol.kind());
        }
    }

    /// The source location of a declaration or statement.
    fn loc(&mut self, locs: g::List<g::Loc>) -> Option<LocId> {
        let tree = self.cx.tree;
        let (first, rest) = tree[locs].split_first()?;
        if let Some(second) = rest.first() {
            let message = "there is at most one location";
            self.cx
                .error::<()>(codes::BAD_DECLARATION, second.span, message);
        }
        let loc = Loc {
            name: first.name.map_or("".into(), |t| tree[t].into()),
            file: first.file.map_or("".into(), |t| tree[t].into()),
            line: first.line.unwrap_or(0),
        };
        let locs = &mut self.program.locs;
        Some(
            *self
                .cx
                .locs
                .entry(loc)
                .or_insert_with_key(|loc| locs.push(loc.clone())),
        )
    }
}
