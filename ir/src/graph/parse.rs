//! Reads the text form of a module.
//!
//! Every mistake of the text is reported with its place; what the verifier checks (types,
//! dominance across regions, sizes) is left to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use dojoc_grammar as g;
use dojoc_grammar::{Body, ExprKind, NameKind, Sigil, Tree};

use super::declare::{Declarations, range};
use super::text::{name_key, syntax_errors};
use super::verify::Entity;
use super::{FuncId, FunctionBuilder, Module, Output, ValueDef, ValueId};
use crate::codes;
use crate::diag::{Diagnostics, Loc};
use crate::ops::Op;
use crate::types::{DType, Type};

/// Where in the text the parts of a module stand, as byte ranges.
pub type SourceMap = BTreeMap<Entity, Range<usize>>;

/// Regions nested deeper than this are refused.
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
    let mut reader = Reader {
        tree: &parsed.tree,
        decls: Declarations::new(&parsed.tree),
        module: Module::default(),
        map: SourceMap::new(),
    };
    reader.file();
    let Reader {
        module, map, decls, ..
    } = reader;
    decls.into_errors().ok((module, map))
}

struct Reader<'t> {
    tree: &'t Tree,
    decls: Declarations<'t>,
    module: Module,
    map: SourceMap,
}

/// The values of one function by name, as they come into scope.
#[derive(Default)]
struct Scope<'t> {
    values: BTreeMap<(bool, &'t str), ValueId>,
    /// Values whose type is not known because of a mistake that is reported already.
    untyped: BTreeSet<ValueId>,
}

impl<'t> Reader<'t> {
    fn error(&mut self, code: u16, span: g::Span, message: impl Into<String>) {
        self.decls.error(code, span, message);
    }

    fn file(&mut self) {
        let tree = self.tree;
        if let Some(header) = tree.header() {
            let level = &tree[header.level.text];
            if level != "graph" || header.version > super::TEXT_VERSION || header.version == 0 {
                let message = format!(
                    "expected `dojo graph {}`, found `dojo {level} {}`",
                    super::TEXT_VERSION,
                    header.version
                );
                self.error(codes::BAD_LEVEL, header.span, message);
                return;
            }
        }
        let [item] = tree.items() else {
            let span = tree.items().get(1).map_or(g::Span::default(), |d| d.span);
            self.error(
                codes::BAD_DECLARATION,
                span,
                "expected exactly one `module`",
            );
            return;
        };
        let Body::Decls(decls) = item.body else {
            self.error(
                codes::BAD_DECLARATION,
                item.span,
                "expected `module @name { ... }`",
            );
            return;
        };
        if &tree[item.keyword.text] != "module" {
            self.error(
                codes::BAD_DECLARATION,
                item.keyword.span,
                "expected `module`",
            );
        }
        self.module.name = tree[item.symbol.text].into();
        for attr in &tree[item.attrs] {
            match (&tree[attr.key.text], tree[attr.value].kind) {
                ("dims", ExprKind::Dict(dims)) => self.dims(&tree[dims]),
                (key, _) => {
                    let message = format!("a module has no attribute `{key}`: it has dims");
                    self.error(codes::BAD_DECLARATION, attr.span, message);
                }
            }
        }
        self.decls.exprs.set_dims(self.module.dims.clone());
        let decls = &tree[decls];
        let is_func = |d: &&g::Decl| &tree[d.keyword.text] == "func";
        for decl in decls.iter().filter(|d| !is_func(d)) {
            self.decls.declaration(decl, "`weight`, `state` or `func`");
        }
        self.module.weights = std::mem::take(&mut self.decls.weights);
        self.module.states = std::mem::take(&mut self.decls.states);
        self.map.append(&mut self.decls.map);
        let mut names = BTreeSet::new();
        for decl in decls.iter().filter(is_func) {
            let name = &tree[decl.symbol.text];
            if !names.insert(name) {
                let message = format!("function `{name}` is defined twice");
                self.error(codes::DUPLICATE_NAME, decl.symbol.span, message);
            }
            self.function(decl);
        }
    }

    fn dims(&mut self, attrs: &[g::Attr]) {
        for attr in attrs {
            let bound = match self.tree[attr.value].kind {
                ExprKind::Int(max) => u64::try_from(max).ok(),
                _ => None,
            };
            match bound {
                Some(max) => {
                    self.module
                        .dims
                        .insert(self.tree[attr.key.text].into(), max);
                }
                None => self.error(
                    codes::BAD_DECLARATION,
                    attr.span,
                    "expected `symbol = bound`",
                ),
            }
        }
    }

    fn function(&mut self, decl: &g::Decl) {
        let tree = self.tree;
        let Body::Func(func) = decl.body else {
            let message = "expected `func @name(inputs) -> (outputs) { ... }`";
            return self.error(codes::BAD_DECLARATION, decl.span, message);
        };
        let id: FuncId = self.module.functions.next_id();
        self.map.insert(Entity::Func(id), range(decl.symbol.span));
        let mut b = FunctionBuilder::new(&tree[decl.symbol.text]);
        let mut scope = Scope::default();
        self.params(&mut b, &mut scope, &tree[func.params]);
        let results = self.body(
            id,
            &mut b,
            &mut scope,
            &tree[func.stmts],
            "return",
            decl.span,
            0,
        );
        let mut outputs = vec![];
        let declared = &tree[func.results];
        let reported = results.is_none();
        let results = results.unwrap_or_default();
        if !reported && results.len() != declared.len() {
            let (found, expected) = (results.len(), declared.len());
            let message = format!("{found} values are returned for {expected} declared outputs");
            self.error(codes::OUTPUT_MISMATCH, decl.symbol.span, message);
        }
        for (position, param) in declared.iter().enumerate() {
            let ty = self.decls.exprs.ty(param.ty);
            if let (Some(ty), Some(value)) = (ty, results.get(position))
                && !scope.untyped.contains(value)
                && ty != *b.ty(*value)
            {
                let message = format!(
                    "the output is declared {ty}, but {} is returned",
                    b.ty(*value)
                );
                self.error(codes::OUTPUT_MISMATCH, param.span, message);
            }
            let aliases =
                param
                    .aliases
                    .and_then(|name| match self.decls.symbols.get(&tree[name.text]) {
                        Some(ValueDef::State(state)) => Some(*state),
                        _ => {
                            let message = format!("there is no state `@{}`", &tree[name.text]);
                            self.error(codes::UNKNOWN_NAME, name.span, message);
                            None
                        }
                    });
            outputs.push(Output {
                name: tree[param.name.text].into(),
                aliases,
            });
        }
        self.module.functions.push(b.finish(&results, outputs));
    }

    fn params(&mut self, b: &mut FunctionBuilder, scope: &mut Scope<'t>, params: &[g::Param]) {
        for param in params {
            let ty = self.decls.exprs.ty(param.ty);
            let untyped = ty.is_none();
            let value = b.param(ty.unwrap_or(Type::scalar(DType::Bool)), None);
            if untyped {
                scope.untyped.insert(value);
            }
            self.define(b, scope, &param.name, value);
        }
    }

    fn define(
        &mut self,
        b: &mut FunctionBuilder,
        scope: &mut Scope<'t>,
        name: &g::Name,
        value: ValueId,
    ) {
        let text = &self.tree[name.text];
        if !matches!(name.kind, NameKind::Number(_)) {
            b.set_name(value, text);
        }
        if scope.values.insert(name_key(name, text), value).is_some() {
            let message = format!("value `%{text}` is defined twice");
            self.error(codes::DUPLICATE_NAME, name.span, message);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call site each for bodies and regions"
    )]
    fn body(
        &mut self,
        func: FuncId,
        b: &mut FunctionBuilder,
        scope: &mut Scope<'t>,
        stmts: &[g::Stmt],
        end: &str,
        owner: g::Span,
        depth: usize,
    ) -> Option<Vec<ValueId>> {
        let mut results = None;
        for (position, stmt) in stmts.iter().enumerate() {
            let op = &self.tree[stmt.op.text];
            if op != "return" && op != "yield" {
                self.statement(func, b, scope, stmt, depth);
                continue;
            }
            if op != end {
                let message = format!("`{op}` does not belong here: a `{end}` ends this region");
                self.error(codes::BAD_STRUCTURE, stmt.span, message);
            } else if let Some(next) = stmts.get(position + 1) {
                let message = format!("nothing may follow the `{end}` that ends this region");
                self.error(codes::BAD_STRUCTURE, next.span, message);
            }
            let expected = self.tree[stmt.operands].len();
            let found = self.operands(b, scope, stmt);
            // An unknown operand is reported; which of the others stands where is not known then.
            results = Some((found.len() == expected).then_some(found));
        }
        if results.is_none() {
            let message = format!("expected `{end}` at the end");
            self.error(codes::BAD_STRUCTURE, owner, message);
        }
        results.flatten()
    }

    fn operands(
        &mut self,
        b: &mut FunctionBuilder,
        scope: &Scope<'t>,
        stmt: &g::Stmt,
    ) -> Vec<ValueId> {
        let tree = self.tree;
        let mut values = vec![];
        for operand in &tree[stmt.operands] {
            let text = &tree[operand.name.text];
            let found = match operand.sigil {
                Sigil::Value => scope.values.get(&name_key(&operand.name, text)).copied(),
                Sigil::Symbol => match self.decls.symbols.get(text) {
                    Some(ValueDef::Weight(w)) => Some(b.weight(&self.module, *w)),
                    Some(ValueDef::State(s)) => Some(b.state(&self.module, *s)),
                    _ => None,
                },
            };
            match found {
                Some(value) => values.push(value),
                None => {
                    let sigil = if operand.sigil == Sigil::Value {
                        "%"
                    } else {
                        "@"
                    };
                    let message = format!("`{sigil}{text}` is not defined here");
                    self.error(codes::UNKNOWN_NAME, operand.name.span, message);
                }
            }
        }
        values
    }

    fn statement(
        &mut self,
        func: FuncId,
        b: &mut FunctionBuilder,
        scope: &mut Scope<'t>,
        stmt: &g::Stmt,
        depth: usize,
    ) {
        let tree = self.tree;
        let op = self.decls.op(&stmt.op, &tree[stmt.attrs]);
        let args = self.operands(b, scope, stmt);
        let mut regions = vec![];
        for region in &tree[stmt.regions] {
            if depth >= MAX_DEPTH {
                let message = format!("regions are nested more than {MAX_DEPTH} deep");
                self.error(codes::TOO_DEEP, region.span, message);
                break;
            }
            let id = b.open_region();
            // Regions see nothing from outside.
            let mut inner = Scope::default();
            self.params(b, &mut inner, &tree[region.params]);
            let stmts = &tree[region.stmts];
            let results = self.body(func, b, &mut inner, stmts, "yield", region.span, depth + 1);
            b.close_region(&results.unwrap_or_default());
            regions.push(id);
        }
        let types: Vec<Type> = tree[stmt.types]
            .iter()
            .filter_map(|ty| self.decls.exprs.ty(*ty))
            .collect();
        let names = &tree[stmt.results];
        if names.len() != tree[stmt.types].len() {
            let message = format!(
                "{} results, but {} types",
                names.len(),
                tree[stmt.types].len()
            );
            self.error(codes::BAD_STRUCTURE, stmt.span, message);
        }
        b.set_loc(tree[stmt.locs].first().map(|loc| {
            Arc::new(Loc {
                name: loc.name.map_or("".into(), |t| tree[t].into()),
                file: loc.file.map_or("".into(), |t| tree[t].into()),
                line: loc.line.unwrap_or(0),
            })
        }));
        if types.len() != names.len() {
            // The results still come into scope, so that their uses are not reported too.
            for name in names {
                let stand_in = b.push_node(stand_in(), &[], &[], vec![Type::scalar(DType::Bool)]);
                scope.untyped.insert(stand_in[0]);
                self.define(b, scope, name, stand_in[0]);
            }
            return;
        }
        let op = op.unwrap_or_else(stand_in);
        let node = b.func().nodes.next_id();
        let results = b.push_node(op, &args, &regions, types);
        self.map.insert(Entity::Node(func, node), range(stmt.span));
        for (name, value) in names.iter().zip(results) {
            self.define(b, scope, name, value);
        }
    }
}

fn stand_in() -> Op {
    crate::ops::Full {
        dtype: DType::Bool,
        shape: vec![],
        value: crate::attr::Number::Int(0),
    }
    .into()
}
