//! Reads the text form of a module.
//!
//! Every mistake of the text is reported with its place; what the verifier checks (types,
//! dominance across regions, sizes) is left to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dojoc_grammar as g;
use dojoc_grammar::{Body, ExprId, ExprKind, NameKind, Sigil, Tree};

use super::text::{Exprs, name_key, syntax_errors};
use super::verify::Entity;
use super::{
    FuncId, FunctionBuilder, Module, Output, State, StateInit, ValueDef, ValueId, Weight,
    WeightSource,
};
use crate::codes;
use crate::diag::{Diagnostic, Diagnostics, Loc};
use crate::ops::Op;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::{Class, DType, Type};

/// Where in the text the parts of a module stand, as byte ranges.
pub type SourceMap = BTreeMap<Entity, Range<usize>>;

/// Regions nested deeper than this are refused.
pub(super) const MAX_DEPTH: usize = 32;

/// Constants of more bytes than this are not written as `dense(value)`: a short text must not take
/// all memory.
const MAX_DENSE: u64 = 1 << 30;

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
        exprs: Exprs::new(&parsed.tree),
        tree: &parsed.tree,
        module: Module::default(),
        map: SourceMap::new(),
        errors: Diagnostics::default(),
        symbols: BTreeMap::new(),
    };
    reader.file();
    let Reader {
        module,
        map,
        mut errors,
        exprs,
        ..
    } = reader;
    errors.0.extend(exprs.into_errors().0);
    errors.0.sort_by_key(|d| match &d.place {
        Some(crate::diag::Place::Span(span)) => span.start,
        _ => usize::MAX,
    });
    errors.ok((module, map))
}

struct Reader<'t> {
    tree: &'t Tree,
    exprs: Exprs<'t>,
    module: Module,
    map: SourceMap,
    errors: Diagnostics,
    /// Weights and states by name.
    symbols: BTreeMap<&'t str, ValueDef>,
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
        self.errors
            .push(Diagnostic::input(code, message).at_span(range(span)));
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
        self.exprs.set_dims(self.module.dims.clone());
        let decls = &tree[decls];
        let is_func = |d: &&g::Decl| &tree[d.keyword.text] == "func";
        for decl in decls.iter().filter(|d| !is_func(d)) {
            self.declaration(decl);
        }
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

    fn declaration(&mut self, decl: &g::Decl) {
        let name = &self.tree[decl.symbol.text];
        let keyword = &self.tree[decl.keyword.text];
        let (Some(ty), Some(init), Body::None) = (decl.ty, decl.init, decl.body) else {
            let message = format!("expected `{keyword} @name : type = value`");
            return self.error(codes::BAD_DECLARATION, decl.span, message);
        };
        let Some(ty) = self.exprs.ty(ty) else { return };
        if self.symbols.contains_key(name) {
            let message = format!("`@{name}` is defined twice");
            return self.error(codes::DUPLICATE_NAME, decl.symbol.span, message);
        }
        let def = match keyword {
            "weight" => self.weight(decl, name, ty, init),
            "state" => self.state(decl, name, ty, init),
            _ => {
                let message = format!("expected `weight`, `state` or `func`, found `{keyword}`");
                return self.error(codes::BAD_DECLARATION, decl.keyword.span, message);
            }
        };
        if let Some(def) = def {
            self.symbols.insert(name, def);
        }
    }

    fn weight(&mut self, decl: &g::Decl, name: &str, ty: Type, init: ExprId) -> Option<ValueDef> {
        let span = self.tree[init].span;
        let ExprKind::Call { name: form, args } = self.tree[init].kind else {
            let message = "expected `external(...)`, `dense(...)` or `hex(...)`";
            self.error(codes::BAD_DECLARATION, span, message);
            return None;
        };
        let (form, args) = (&self.tree[form], &self.tree[args]);
        let kinds: Vec<ExprKind> = args.iter().map(|a| self.tree[*a].kind).collect();
        let (source, data) = match (form, kinds.as_slice()) {
            (
                "external",
                [
                    ExprKind::Str(file),
                    ExprKind::Int(offset),
                    ExprKind::Int(length),
                ],
            ) if *offset >= 0 && *length >= 0 => {
                let (offset, length) = (*offset as u64, *length as u64);
                (
                    WeightSource::External {
                        file: self.tree[*file].into(),
                        offset,
                        length,
                    },
                    None,
                )
            }
            ("dense", [_]) => (WeightSource::Inline, Some(self.dense(&ty, args[0])?)),
            ("hex", [ExprKind::Str(text)]) => {
                let tensor = hex_tensor(&ty, &self.tree[*text]);
                if let Err(message) = &tensor {
                    self.error(codes::WEIGHT_MISMATCH, span, message.clone());
                }
                (WeightSource::Inline, Some(tensor.ok()?))
            }
            _ => {
                let message = "expected `external(\"file\", offset, length)`, `dense(...)` or \
                               `hex(\"...\")`";
                self.error(codes::BAD_DECLARATION, span, message);
                return None;
            }
        };
        let id = self.module.weights.push(Weight {
            name: name.into(),
            ty,
            source,
            data,
        });
        self.map.insert(Entity::Weight(id), range(decl.span));
        Some(ValueDef::Weight(id))
    }

    fn dense(&mut self, ty: &Type, value: ExprId) -> Option<Tensor> {
        let span = self.tree[value].span;
        let Some(shape) = ty.shape.as_const() else {
            self.error(
                codes::WEIGHT_MISMATCH,
                span,
                format!("a constant can not be {ty}"),
            );
            return None;
        };
        let count = ty
            .max_bytes()
            .filter(|bytes| *bytes <= MAX_DENSE && ty.addressable())
            .and(ty.shape.max_elements());
        let Some(count) = count.filter(|_| ty.dtype.class() != Class::Configurable) else {
            self.error(
                codes::WEIGHT_MISMATCH,
                span,
                format!("{ty} can not be written out"),
            );
            return None;
        };
        let items: Vec<ExprId> = match self.tree[value].kind {
            ExprKind::List(items) => self.tree[items].to_vec(),
            _ => vec![value],
        };
        let splat = !matches!(self.tree[value].kind, ExprKind::List(_));
        let values: Option<Vec<Scalar>> = items
            .iter()
            .map(|item| self.exprs.scalar(*item, ty.dtype))
            .collect();
        let values = values?;
        if splat {
            return Some(Tensor::splat(ty.dtype, &shape, values[0]));
        }
        if values.len() as u64 != count {
            let message = format!("{ty} has {count} elements, found {}", values.len());
            self.error(codes::WEIGHT_MISMATCH, span, message);
            return None;
        }
        Some(Tensor::from_scalars(ty.dtype, &shape, values))
    }

    fn state(&mut self, decl: &g::Decl, name: &str, ty: Type, init: ExprId) -> Option<ValueDef> {
        let span = self.tree[init].span;
        let init = match self.tree[init].kind {
            ExprKind::Ident(word) if &self.tree[word] == "zeros" => StateInit::Zeros,
            ExprKind::Symbol(weight) => match self.symbols.get(&self.tree[weight.text]) {
                Some(ValueDef::Weight(weight)) => StateInit::Weight(*weight),
                _ => {
                    let message = format!("there is no weight `@{}`", &self.tree[weight.text]);
                    self.error(codes::UNKNOWN_NAME, span, message);
                    return None;
                }
            },
            _ => {
                self.error(
                    codes::BAD_DECLARATION,
                    span,
                    "expected `zeros` or `@weight`",
                );
                return None;
            }
        };
        let id = self.module.states.push(State {
            name: name.into(),
            ty,
            init,
        });
        self.map.insert(Entity::State(id), range(decl.span));
        Some(ValueDef::State(id))
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
            let ty = self.exprs.ty(param.ty);
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
            let aliases = param
                .aliases
                .and_then(|name| match self.symbols.get(&tree[name.text]) {
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
            let ty = self.exprs.ty(param.ty);
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
                Sigil::Symbol => match self.symbols.get(text) {
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
        let op = self.op(stmt);
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
            .filter_map(|ty| self.exprs.ty(*ty))
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

    fn op(&mut self, stmt: &g::Stmt) -> Option<Op> {
        let name = &self.tree[stmt.op.text];
        let attrs = self.exprs.attrs(&self.tree[stmt.attrs])?;
        match Op::parse(name, &attrs) {
            Some(Ok(op)) => Some(op),
            Some(Err(error)) => {
                let culprit = self.tree[stmt.attrs]
                    .iter()
                    .find(|a| self.tree[a.key.text] == *error.attr)
                    .map_or(stmt.op.span, |a| a.span);
                self.error(
                    codes::BAD_ATTRIBUTE,
                    culprit,
                    format!("{name}: {}", error.message),
                );
                None
            }
            None => {
                let near = closest(name, Op::names());
                let mut diagnostic =
                    Diagnostic::input(codes::UNKNOWN_OP, format!("there is no op `{name}`"))
                        .at_span(range(stmt.op.span));
                if let Some(near) = near {
                    diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
                }
                self.errors.push(diagnostic);
                None
            }
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

fn range(span: g::Span) -> Range<usize> {
    span.start as usize..span.end as usize
}

/// Edit distance of the first 64 letters of a name from another one.
fn distance(name: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in name.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The known name with the smallest edit distance, if it is close.
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = name.chars().count() / 3 + 1;
    known
        .map(|k| (distance(name, k), k))
        .filter(|(d, _)| *d <= allowed)
        .min()
        .map(|(_, k)| k)
}

/// The known names that are close to a name or contain it, the closest first; at most `most`.
pub fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let allowed = name.chars().count() / 3 + 1;
    let mut found: Vec<(usize, &str)> = known
        .map(|k| (distance(name, k), k))
        .filter(|(d, k)| *d <= allowed || !name.is_empty() && k.contains(name))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(most).map(|(_, k)| k).collect()
}

fn hex_tensor(ty: &Type, text: &str) -> Result<Tensor, String> {
    let shape = ty
        .shape
        .as_const()
        .ok_or_else(|| format!("a constant can not be {ty}"))?;
    let digit = |byte: u8| (byte as char).to_digit(16).map(|d| d as u8);
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    let bytes = bytes.ok_or("expected an even number of hexadecimal digits")?;
    Tensor::from_bytes(ty.dtype, &shape, Bytes::from(bytes)).map_err(|e| format!("{ty}: {e}"))
}
