//! Reads the text form of a module.
//!
//! Every mistake of the text is reported with its place; what the verifier checks (layouts, splits,
//! dominance) is left to it.

mod group;
mod layout;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use dojoc_grammar as g;
use dojoc_grammar::{ExprId, ExprKind, NameKind, Sigil, Tree};

use layout::Written;

use super::text::{RESHARD_KINDS, name_of, named};
use super::verify::Entity;
use super::{
    Axis, AxisLevel, Body, BodyId, FuncId, Function, Grid, GridId, Layout, Module, Repeat, Reshard,
    Stmt, Value, ValueDef, ValueId,
};
use crate::codes;
use crate::diag::{Diagnostics, Loc};
use crate::entity::{EntityId as _, PrimaryMap};
use crate::graph;
use crate::graph::declare::{Declarations, range};
use crate::graph::text::{name_key, syntax_errors};
use crate::types::{DType, Type};

/// Where in the text the parts of a module stand, as byte ranges.
pub type SourceMap = BTreeMap<Entity, Range<usize>>;

/// Loops nested deeper than this are refused.
pub(super) const MAX_DEPTH: usize = 32;

/// Reads a module and where its parts stand in the text.
///
/// # Errors
/// All syntax errors, or if there are none, all unknown names, attributes and malformed
/// declarations.
pub fn parse(text: &str) -> Result<(Module, SourceMap), Diagnostics> {
    let parsed = g::parse(text);
    if !parsed.errors.is_empty() {
        return Err(syntax_errors(&parsed.errors));
    }
    let mut reader = Reader::new(&parsed.tree, ("tiled", super::TEXT_VERSION), None);
    reader.file();
    let Reader {
        module, map, decls, ..
    } = reader;
    decls.into_errors().ok((module, map))
}

/// Reads a module, also as the part of a level that says more about its functions.
pub(crate) struct Reader<'t> {
    pub tree: &'t Tree,
    pub decls: Declarations<'t>,
    pub module: Module,
    pub map: SourceMap,
    /// The values of each function that are seen in its body, by name.
    pub scopes: PrimaryMap<FuncId, Scope<'t>>,
    /// Declarations of the word that only the level knows.
    pub others: Vec<&'t g::Decl>,
    level: (&'static str, u32),
    other: Option<&'static str>,
}
/// The values that a body sees by name.
#[derive(Clone, Default)]
pub(crate) struct Scope<'t> {
    values: BTreeMap<(bool, &'t str), ValueId>,
}

impl<'t> Scope<'t> {
    /// The value of a name.
    pub fn value(&self, tree: &'t Tree, name: &g::Name) -> Option<ValueId> {
        self.values.get(&name_key(name, &tree[name.text])).copied()
    }
}

/// A function as it is read.
struct Reading<'t> {
    id: FuncId,
    values: PrimaryMap<ValueId, Value>,
    bodies: PrimaryMap<BodyId, Body>,
    /// Values of weights and states, which all bodies see.
    constants: Scope<'t>,
    /// Values whose type is not known because of a mistake that is reported already.
    untyped: BTreeSet<ValueId>,
}

impl<'t> Reader<'t> {
    /// A reader of a text under the header of a level, which may know one more declaration.
    pub fn new(tree: &'t Tree, level: (&'static str, u32), other: Option<&'static str>) -> Self {
        Self {
            tree,
            decls: Declarations::new(tree),
            module: Module::default(),
            map: SourceMap::new(),
            scopes: PrimaryMap::new(),
            others: vec![],
            level,
            other,
        }
    }

    pub fn error(&mut self, code: u16, span: g::Span, message: impl Into<String>) {
        self.decls.error(code, span, message);
    }

    /// Reports what is wrong with an expression; always `None`.
    pub fn wrong<T>(&mut self, id: ExprId, message: impl Into<String>) -> Option<T> {
        let span = self.tree[id].span;
        self.error(codes::BAD_DECLARATION, span, message);
        None
    }

    /// Reads the text; what is found to be wrong is in `decls`.
    pub fn file(&mut self) {
        let tree = self.tree;
        if let Some(header) = tree.header() {
            let (level, version) = self.level;
            let found = &tree[header.level.text];
            if found != level || header.version > version || header.version == 0 {
                let message = format!(
                    "expected `dojo {level} {version}`, found `dojo {found} {}`",
                    header.version
                );
                return self.error(codes::BAD_LEVEL, header.span, message);
            }
        }
        let (item, g::Body::Decls(decls)) = (match tree.items() {
            [item] => (item, item.body),
            items => {
                let span = items.get(1).map_or(g::Span::default(), |d| d.span);
                return self.error(
                    codes::BAD_DECLARATION,
                    span,
                    "expected exactly one `module`",
                );
            }
        }) else {
            let span = tree.items()[0].span;
            let message = "expected `module @name {machine = \"...\"} { ... }`";
            return self.error(codes::BAD_DECLARATION, span, message);
        };
        if &tree[item.keyword.text] != "module" {
            let span = item.keyword.span;
            self.error(codes::BAD_DECLARATION, span, "expected `module`");
        }
        self.module.name = tree[item.symbol.text].into();
        for attr in &tree[item.attrs] {
            match (&tree[attr.key.text], tree[attr.value].kind) {
                ("machine", ExprKind::Str(name)) => self.module.machine = tree[name].into(),
                (key, _) => {
                    let message = format!("a module has no attribute `{key}` of this kind");
                    self.error(codes::BAD_DECLARATION, attr.span, message);
                }
            }
        }
        self.declarations(&tree[decls]);
    }

    fn declarations(&mut self, decls: &'t [g::Decl]) {
        let tree = self.tree;
        let mut names = BTreeSet::new();
        let keyword = |d: &g::Decl| &tree[d.keyword.text];
        for decl in decls {
            match keyword(decl) {
                "grid" => self.grid(decl),
                "func" => {
                    let name = &tree[decl.symbol.text];
                    if !names.insert(name) {
                        let message = format!("function `{name}` is defined twice");
                        self.error(codes::DUPLICATE_NAME, decl.symbol.span, message);
                    }
                }
                word if Some(word) == self.other => self.others.push(decl),
                _ => {
                    let others = self.other.map_or(String::new(), |o| format!(", `{o}`"));
                    let expected = format!("`grid`, `weight`, `state`{others} or `func`");
                    self.decls.declaration(decl, &expected);
                }
            }
        }
        self.module.weights = std::mem::take(&mut self.decls.weights);
        self.module.states = std::mem::take(&mut self.decls.states);
        for (entity, span) in std::mem::take(&mut self.decls.map) {
            let entity = match entity {
                graph::Entity::Weight(weight) => Entity::Weight(weight),
                graph::Entity::State(state) => Entity::State(state),
                graph::Entity::Func(_) | graph::Entity::Node(..) => continue,
            };
            self.map.insert(entity, span);
        }
        for decl in decls.iter().filter(|d| keyword(d) == "func") {
            self.function(decl);
        }
    }

    fn grid(&mut self, decl: &g::Decl) {
        let tree = self.tree;
        let name = &tree[decl.symbol.text];
        let mut grid = Grid {
            name: name.into(),
            first: 0,
            axes: vec![],
        };
        if self.module.grids.values().any(|g| g.name == grid.name) {
            let message = format!("grid `@{name}` is defined twice");
            self.error(codes::DUPLICATE_NAME, decl.symbol.span, message);
        }
        let plain = decl.ty.is_none() && decl.init.is_none();
        if !plain || !matches!(decl.body, g::Body::None) {
            let message = "expected `grid @name {first = 0, axes = {a = core(4)}}`";
            self.error(codes::BAD_DECLARATION, decl.span, message);
        }
        for attr in &tree[decl.attrs] {
            match (&tree[attr.key.text], tree[attr.value].kind) {
                ("first", _) => grid.first = self.count(attr.value).unwrap_or(0),
                ("axes", ExprKind::Dict(axes)) => {
                    for axis in &tree[axes] {
                        // A broken axis still has a name, so that its uses are not reported too.
                        let read = self.axis(axis).unwrap_or_else(|| Axis {
                            name: tree[axis.key.text].into(),
                            size: 1,
                            level: AxisLevel::Core,
                        });
                        grid.axes.push(read);
                    }
                }
                (key, _) => {
                    let message = format!("a grid has no attribute `{key}` of this kind");
                    self.error(codes::BAD_DECLARATION, attr.span, message);
                }
            }
        }
        let id = self.module.grids.push(grid);
        self.map.insert(Entity::Grid(id), range(decl.span));
    }

    fn axis(&mut self, attr: &g::Attr) -> Option<Axis> {
        let tree = self.tree;
        if let ExprKind::Call { name, args } = tree[attr.value].kind
            && let Some(level) = named(&AxisLevel::ALL, &tree[name])
            && let [size] = &tree[args]
        {
            return Some(Axis {
                name: tree[attr.key.text].into(),
                size: self.count(*size)?,
                level,
            });
        }
        self.wrong(attr.value, "expected `tile(n)`, `chip(n)` or `core(n)`")
    }

    fn function(&mut self, decl: &'t g::Decl) {
        let tree = self.tree;
        let g::Body::Func(func) = decl.body else {
            let message = "expected `func @name(inputs) -> (outputs) { ... }`";
            return self.error(codes::BAD_DECLARATION, decl.span, message);
        };
        let id = self.module.functions.next_id();
        self.map.insert(Entity::Func(id), range(decl.symbol.span));
        let mut r = Reading {
            id,
            values: PrimaryMap::new(),
            bodies: PrimaryMap::new(),
            constants: Scope::default(),
            untyped: BTreeSet::new(),
        };
        let body = r.bodies.push(Body::default());
        let mut scope = Scope::default();
        self.params(&mut r, &mut scope, body, &tree[func.params]);
        let stmts = &tree[func.stmts];
        let complete = self.body(&mut r, &mut scope, body, stmts, "return", decl.span, 0);
        let results = r.bodies[body].results.clone();
        let declared = &tree[func.results];
        if complete && results.len() != declared.len() {
            let (found, expected) = (results.len(), declared.len());
            let message = format!("{found} values are returned for {expected} declared outputs");
            self.error(codes::OUTPUT_MISMATCH, decl.symbol.span, message);
        }
        let outputs = declared.iter().enumerate();
        let outputs = outputs
            .map(|(position, param)| self.output(&r, param, results.get(position).copied()))
            .collect();
        self.scopes.push(scope);
        self.module.functions.push(Function {
            name: tree[decl.symbol.text].into(),
            values: r.values,
            bodies: r.bodies,
            outputs,
        });
    }

    fn output(
        &mut self,
        r: &Reading<'t>,
        param: &g::Param,
        value: Option<ValueId>,
    ) -> graph::Output {
        let tree = self.tree;
        let written = self.ty(param.ty);
        if let (Some(written), Some(value)) = (written, value)
            && !r.untyped.contains(&value)
            && (&written.ty, &written.layout) != (&r.values[value].ty, &r.values[value].layout)
        {
            let message = "the output is declared with another type or layout than is returned";
            self.error(codes::OUTPUT_MISMATCH, param.span, message);
        }
        let aliases =
            param
                .aliases
                .and_then(|name| match self.decls.symbols.get(&tree[name.text]) {
                    Some(graph::ValueDef::State(state)) => Some(*state),
                    _ => {
                        let message = format!("there is no state `@{}`", &tree[name.text]);
                        self.error(codes::UNKNOWN_NAME, name.span, message);
                        None
                    }
                });
        graph::Output {
            name: tree[param.name.text].into(),
            aliases,
        }
    }

    fn params(
        &mut self,
        r: &mut Reading<'t>,
        scope: &mut Scope<'t>,
        body: BodyId,
        params: &[g::Param],
    ) {
        for (position, param) in params.iter().enumerate() {
            let def = ValueDef::Param(body, position as u32);
            let value = self.define(r, scope, &param.name, Some(param.ty), def);
            r.bodies[body].params.push(value);
        }
    }

    /// A new value under a name.
    fn define(
        &mut self,
        r: &mut Reading<'t>,
        scope: &mut Scope<'t>,
        name: &g::Name,
        ty: Option<ExprId>,
        def: ValueDef,
    ) -> ValueId {
        let text = &self.tree[name.text];
        let written = ty.and_then(|ty| self.ty(ty));
        let untyped = written.is_none();
        let written = written.unwrap_or_else(|| Written {
            ty: Type::scalar(DType::Bool),
            layout: Layout::replicated(GridId::from_index(0), &[]),
            name: None,
        });
        let numbered = matches!(name.kind, NameKind::Number(_));
        let value = r.values.push(Value {
            ty: written.ty,
            layout: written.layout,
            def,
            name: written.name.or((!numbered).then(|| text.into())),
        });
        if untyped {
            r.untyped.insert(value);
        }
        if scope.values.insert(name_key(name, text), value).is_some() {
            let message = format!("value `%{text}` is defined twice");
            self.error(codes::DUPLICATE_NAME, name.span, message);
        }
        value
    }

    /// The statements of a body; `false` if its end is missing or broken.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site each for functions and loops"
    )]
    fn body(
        &mut self,
        r: &mut Reading<'t>,
        scope: &mut Scope<'t>,
        body: BodyId,
        stmts: &'t [g::Stmt],
        end: &str,
        owner: g::Span,
        depth: usize,
    ) -> bool {
        let tree = self.tree;
        let mut complete = false;
        for (position, stmt) in stmts.iter().enumerate() {
            let word = &tree[stmt.op.text];
            if word == "return" || word == "yield" {
                if word != end {
                    let message = format!("`{word}` does not belong here: a `{end}` ends this");
                    self.error(codes::BAD_STRUCTURE, stmt.span, message);
                } else if let Some(next) = stmts.get(position + 1) {
                    let message = format!("nothing may follow the `{end}`");
                    self.error(codes::BAD_STRUCTURE, next.span, message);
                }
                r.bodies[body].results = self.operands(scope, stmt);
                complete = r.bodies[body].results.len() == stmt.operands.len();
                continue;
            }
            let number = r.bodies[body].stmts.len();
            if let Some(read) = self.stmt(r, scope, body, stmt, depth) {
                let entity = Entity::Stmt(r.id, body, number);
                self.map.insert(entity, range(stmt.span));
                r.bodies[body].stmts.push(read);
            }
        }
        if !stmts.iter().any(|s| &tree[s.op.text] == end) {
            let message = format!("expected `{end}` at the end");
            self.error(codes::BAD_STRUCTURE, owner, message);
        }
        complete
    }

    fn operands(&mut self, scope: &Scope<'t>, stmt: &g::Stmt) -> Vec<ValueId> {
        let tree = self.tree;
        let mut values = vec![];
        for operand in &tree[stmt.operands] {
            let text = &tree[operand.name.text];
            let found = match operand.sigil {
                Sigil::Value => scope.value(tree, &operand.name),
                Sigil::Symbol => None,
            };
            match found {
                Some(value) => values.push(value),
                None => {
                    let sigil = match operand.sigil {
                        Sigil::Value => "%",
                        Sigil::Symbol => "@",
                    };
                    let message = format!("`{sigil}{text}` is not a value that is defined here");
                    self.error(codes::UNKNOWN_NAME, operand.name.span, message);
                }
            }
        }
        values
    }

    fn loc(&self, stmt: &g::Stmt) -> Option<Arc<Loc>> {
        let tree = self.tree;
        tree[stmt.locs].first().map(|loc| {
            Arc::new(Loc {
                name: loc.name.map_or("".into(), |t| tree[t].into()),
                file: loc.file.map_or("".into(), |t| tree[t].into()),
                line: loc.line.unwrap_or(0),
            })
        })
    }

    /// Defines the results of a statement; they come into scope even if their types are wrong.
    fn results(
        &mut self,
        r: &mut Reading<'t>,
        scope: &mut Scope<'t>,
        body: BodyId,
        stmt: &g::Stmt,
    ) -> Vec<ValueId> {
        let tree = self.tree;
        let (names, types) = (&tree[stmt.results], &tree[stmt.types]);
        if names.len() != types.len() {
            let message = format!("{} results, but {} types", names.len(), types.len());
            self.error(codes::BAD_STRUCTURE, stmt.span, message);
        }
        let one = |(n, name): (usize, &g::Name)| {
            self.define(r, scope, name, types.get(n).copied(), ValueDef::Stmt(body))
        };
        names.iter().enumerate().map(one).collect()
    }

    fn stmt(
        &mut self,
        r: &mut Reading<'t>,
        scope: &mut Scope<'t>,
        body: BodyId,
        stmt: &'t g::Stmt,
        depth: usize,
    ) -> Option<Stmt> {
        let tree = self.tree;
        let loc = self.loc(stmt);
        match &tree[stmt.op.text] {
            "weight" | "state" => {
                self.constant(r, scope, stmt, depth);
                None
            }
            "group" => self.group(r, scope, body, stmt),
            "repeat" => self.repeat(r, scope, body, stmt, depth),
            word @ ("reshard" | "view") => {
                let inputs = self.operands(scope, stmt);
                let broken = inputs.len() != stmt.operands.len();
                let outputs = self.results(r, scope, body, stmt);
                let (&[input], &[output]) = (&*inputs, &*outputs) else {
                    if !broken {
                        let message = format!("`{word}` has one operand and one result");
                        self.error(codes::BAD_STRUCTURE, stmt.span, message);
                    }
                    return None;
                };
                if word == "view" {
                    return Some(Stmt::View { input, output, loc });
                }
                let reshard = Reshard { input, output, loc };
                self.kind(r, &reshard, stmt);
                Some(Stmt::Reshard(reshard))
            }
            word => {
                let message = format!(
                    "expected `group`, `reshard`, `view` or `repeat`, found `{word}`: ops stand in \
                     a `group`"
                );
                self.error(codes::BAD_STRUCTURE, stmt.op.span, message);
                self.results(r, scope, body, stmt);
                None
            }
        }
    }

    /// The kind of a reshard follows from the layouts; where it is written it has to be right.
    fn kind(&mut self, r: &Reading<'t>, reshard: &Reshard, stmt: &g::Stmt) {
        let tree = self.tree;
        let ends = [reshard.input, reshard.output];
        let known = !ends.iter().any(|v| r.untyped.contains(v));
        let layouts = ends.map(|v| &r.values[v].layout);
        let kind = super::layout::reshard_kind(layouts[0], layouts[1]);
        for attr in &tree[stmt.attrs] {
            let word = self.word(attr.value).and_then(|w| named(&RESHARD_KINDS, w));
            let message = match (&tree[attr.key.text], word) {
                ("kind", Some(word)) if word == kind || !known => continue,
                ("kind", Some(_)) => {
                    let kind = name_of(&RESHARD_KINDS, &kind);
                    format!("by its layouts this is `{kind}`")
                }
                _ => "a `reshard` has `kind`, a collective".into(),
            };
            self.error(codes::BAD_RESHARD, attr.span, message);
        }
    }

    /// `%w = weight @w : type`: a weight or state as a value.
    fn constant(
        &mut self,
        r: &mut Reading<'t>,
        scope: &mut Scope<'t>,
        stmt: &g::Stmt,
        depth: usize,
    ) {
        let tree = self.tree;
        let word = &tree[stmt.op.text];
        let (&[operand], &[name]) = (&tree[stmt.operands], &tree[stmt.results]) else {
            let message = format!("expected `%x = {word} @x : type`");
            return self.error(codes::BAD_STRUCTURE, stmt.span, message);
        };
        if depth > 0 {
            let message = format!("a `{word}` stands in the body of the function");
            self.error(codes::BAD_STRUCTURE, stmt.span, message);
        }
        let text = &tree[operand.name.text];
        let def = match (word, self.decls.symbols.get(text)) {
            ("weight", Some(graph::ValueDef::Weight(weight))) => Some(ValueDef::Weight(*weight)),
            ("state", Some(graph::ValueDef::State(state))) => Some(ValueDef::State(*state)),
            _ => None,
        };
        if def.is_none() {
            let message = format!("there is no {word} `@{text}`");
            self.error(codes::UNKNOWN_NAME, operand.name.span, message);
        }
        let def = def.unwrap_or(ValueDef::Stmt(BodyId::from_index(0)));
        let ty = tree[stmt.types].first().copied();
        if stmt.types.len() != 1 {
            self.error(codes::BAD_STRUCTURE, stmt.span, "expected one type");
        }
        let value = self.define(r, scope, &name, ty, def);
        r.constants
            .values
            .insert(name_key(&name, &tree[name.text]), value);
    }

    fn repeat(
        &mut self,
        r: &mut Reading<'t>,
        scope: &mut Scope<'t>,
        body: BodyId,
        stmt: &'t g::Stmt,
        depth: usize,
    ) -> Option<Stmt> {
        let tree = self.tree;
        let inits = self.operands(scope, stmt);
        let mut count = None;
        for attr in &tree[stmt.attrs] {
            match &tree[attr.key.text] {
                "count" => count = self.count(attr.value),
                key => {
                    let message = format!("a `repeat` has no attribute `{key}`");
                    self.error(codes::BAD_ATTRIBUTE, attr.span, message);
                }
            }
        }
        if !tree[stmt.attrs]
            .iter()
            .any(|a| &tree[a.key.text] == "count")
        {
            self.error(codes::BAD_ATTRIBUTE, stmt.span, "expected `count`");
        }
        // Numbers of values follow the text: the results stand before the body.
        let results = self.results(r, scope, body, stmt);
        let [region] = &tree[stmt.regions] else {
            self.error(codes::BAD_STRUCTURE, stmt.span, "expected one body");
            return None;
        };
        if depth >= MAX_DEPTH {
            let message = format!("loops are nested more than {MAX_DEPTH} deep");
            self.error(codes::TOO_DEEP, region.span, message);
            return None;
        }
        let inner = r.bodies.push(Body::default());
        // A body sees its parameters, weights and states.
        let mut scope = r.constants.clone();
        self.params(r, &mut scope, inner, &tree[region.params]);
        let stmts = &tree[region.stmts];
        self.body(r, &mut scope, inner, stmts, "yield", region.span, depth + 1);
        Some(Stmt::Repeat(Repeat {
            count: count?,
            inits,
            body: inner,
            results,
            loc: self.loc(stmt),
        }))
    }
}
