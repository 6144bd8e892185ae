//! Types, extents and attribute values of the text form, as any level writes them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use dojoc_grammar as g;
use dojoc_grammar::{BinaryOp, ExprId, ExprKind, NameKind, Tree};

use crate::attr::{Attr, Attrs, F64};
use crate::codes;
use crate::diag::{Diagnostic, Diagnostics};
use crate::dim::{Dim, Poly};
use crate::scalar::Scalar;
use crate::types::{Class, DType, MAX_RANK, Shape, Type};

/// Expressions nested deeper than this are refused.
const MAX_DEPTH: usize = 64;

/// What distinguishes values: `%4` is a number, `%"4"` a name.
pub(crate) fn name_key<'t>(name: &g::Name, text: &'t str) -> (bool, &'t str) {
    (matches!(name.kind, NameKind::Number(_)), text)
}

/// Syntax errors as diagnostics.
pub(crate) fn syntax_errors(errors: &[g::SyntaxError]) -> Diagnostics {
    let convert = |e: &g::SyntaxError| {
        let span = e.span.start as usize..e.span.end as usize;
        let diagnostic = Diagnostic::input(e.code, e.message.clone()).at_span(span);
        match &e.help {
            Some(help) => diagnostic.help(help.clone()),
            None => diagnostic,
        }
    };
    Diagnostics(errors.iter().map(convert).collect())
}

/// A layout as it is written behind a type: its name and entries.
pub(crate) type WrittenLayout<'t> = (&'t str, &'t [g::Attr]);

/// Reads expressions of one tree and collects what is wrong with them.
pub(crate) struct Exprs<'t> {
    tree: &'t Tree,
    dims: BTreeMap<Arc<str>, u64>,
    errors: RefCell<Diagnostics>,
}

impl<'t> Exprs<'t> {
    pub fn new(tree: &'t Tree) -> Self {
        Self {
            tree,
            dims: BTreeMap::new(),
            errors: RefCell::default(),
        }
    }

    /// Sets the symbols and their bounds.
    pub fn set_dims(&mut self, dims: BTreeMap<Arc<str>, u64>) {
        self.dims = dims;
    }

    pub fn error_count(&self) -> usize {
        self.errors.borrow().0.len()
    }

    pub fn into_errors(self) -> Diagnostics {
        self.errors.into_inner()
    }

    fn error<T>(&self, code: u16, id: ExprId, message: impl Into<String>) -> Option<T> {
        let span = self.tree[id].span;
        let diagnostic = Diagnostic::input(code, message);
        let diagnostic = diagnostic.at_span(span.start as usize..span.end as usize);
        self.errors.borrow_mut().push(diagnostic);
        None
    }

    /// A tensor type.
    pub fn ty(&self, id: ExprId) -> Option<Type> {
        let (ty, layout) = self.laid_out_ty(id)?;
        match layout {
            Some(_) => self.error(codes::BAD_TYPE, id, "types of this level have no layout"),
            None => Some(ty),
        }
    }

    /// A tensor type and its layout, name and entries, if it has one.
    pub fn laid_out_ty(&self, id: ExprId) -> Option<(Type, Option<WrittenLayout<'t>>)> {
        let Some(ty) = self.tree.ty(id) else {
            return self.error(
                codes::BAD_TYPE,
                id,
                "expected a tensor type such as `f32[2, 3]`",
            );
        };
        let Some(dtype) = DType::parse(ty.name) else {
            return self.error(
                codes::BAD_TYPE,
                id,
                format!("there is no element type `{}`", ty.name),
            );
        };
        let Some(args) = ty.args else {
            let message = format!("expected extents: `{dtype}[]` is a scalar");
            return self.error(codes::BAD_TYPE, id, message);
        };
        if args.len() > MAX_RANK {
            let message = format!("the rank is at most {MAX_RANK}, found {}", args.len());
            return self.error(codes::BAD_TYPE, id, message);
        }
        let dims: Option<Vec<Dim>> = args.iter().map(|arg| self.dim(*arg)).collect();
        Some((Type::new(dtype, Shape::new(dims?)), ty.layout))
    }

    fn dim(&self, id: ExprId) -> Option<Dim> {
        if let ExprKind::Uint(value) = self.tree[id].kind {
            return Some(Dim::Const(value));
        }
        let before = self.error_count();
        let poly = self.poly(id, 0);
        if self.error_count() > before {
            return None;
        }
        match poly.and_then(Dim::from_poly) {
            Some(dim) => Some(dim),
            None => self.error(codes::BAD_TYPE, id, "an extent is negative or overflows"),
        }
    }

    fn symbol(&self, id: ExprId) -> Option<&str> {
        match self.tree[id].kind {
            ExprKind::Ident(name) => Some(&self.tree[name]),
            ExprKind::Call { name, args } if &self.tree[name] == "sym" => {
                match self.tree[args].first().map(|a| self.tree[*a].kind) {
                    Some(ExprKind::Str(text)) if args.len() == 1 => Some(&self.tree[text]),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// An integer expression over symbols; `None` without an error on overflow.
    fn poly(&self, id: ExprId, depth: usize) -> Option<Poly> {
        if depth > MAX_DEPTH {
            return self.error(codes::BAD_TYPE, id, "the expression is nested too deeply");
        }
        if let Some(name) = self.symbol(id) {
            return match self.dims.get(name) {
                Some(max) => Some(Poly::symbol(name, *max)),
                None => self.error(
                    codes::UNKNOWN_NAME,
                    id,
                    format!("symbol `{name}` is not declared in the module's `dims`"),
                ),
            };
        }
        let poly = |id| self.poly(id, depth + 1);
        match self.tree[id].kind {
            ExprKind::Int(value) => Some(Poly::constant(value)),
            ExprKind::Neg(x) => poly(x)?.mul(&Poly::constant(-1)),
            ExprKind::Binary {
                op: BinaryOp::Le,
                lhs,
                rhs,
            } => self.bounded(id, lhs, rhs),
            ExprKind::Binary { op, lhs, rhs } => {
                let (a, b) = (poly(lhs)?, poly(rhs)?);
                match op {
                    BinaryOp::Add => a.add(&b),
                    BinaryOp::Sub => a.sub(&b),
                    BinaryOp::Mul => a.mul(&b),
                    BinaryOp::Div | BinaryOp::Le => a.floor_div(&b),
                }
            }
            ExprKind::Call { name, args } => {
                let args = &self.tree[args];
                let [a, b] = args else {
                    return self.error(codes::BAD_TYPE, id, "expected two arguments");
                };
                let (a, b) = (poly(*a)?, poly(*b)?);
                match &self.tree[name] {
                    "floor_div" => a.floor_div(&b),
                    "max" => Some(a.larger(&b)),
                    "min" => Some(a.smaller(&b)),
                    other => self.error(
                        codes::BAD_TYPE,
                        id,
                        format!("expected floor_div, max, min or sym, found `{other}`"),
                    ),
                }
            }
            _ => self.error(codes::BAD_TYPE, id, "expected an extent"),
        }
    }

    fn bounded(&self, id: ExprId, symbol: ExprId, bound: ExprId) -> Option<Poly> {
        let (Some(name), ExprKind::Int(max)) = (self.symbol(symbol), self.tree[bound].kind) else {
            return self.error(codes::BAD_TYPE, id, "expected `symbol<=bound`");
        };
        match self.dims.get(name) {
            Some(declared) if u64::try_from(max) == Ok(*declared) => {
                Some(Poly::symbol(name, *declared))
            }
            Some(declared) => {
                let message = format!("symbol `{name}` is declared with the bound {declared}");
                self.error(codes::DIM_MISMATCH, id, message)
            }
            None => {
                let message = format!("symbol `{name}` is not declared in the module's `dims`");
                self.error(codes::UNKNOWN_NAME, id, message)
            }
        }
    }

    /// An element of a constant.
    pub fn scalar(&self, id: ExprId, dtype: DType) -> Option<Scalar> {
        let value = match (self.tree[id].kind, dtype.class()) {
            (ExprKind::Bool(b), Class::Bool) => Some(Scalar::Bool(b)),
            (ExprKind::Int(i), Class::Int { .. }) => Some(Scalar::Int(i.into())),
            (ExprKind::Uint(i), Class::Int { .. }) => Some(Scalar::Int(i.into())),
            (ExprKind::Float(x), Class::Float) => Some(Scalar::F64(x).convert(dtype)),
            (ExprKind::Int(i), Class::Float) => Some(Scalar::F64(i as f64).convert(dtype)),
            _ => None,
        };
        let fits = |s: &Scalar| match dtype.int_range() {
            Some((low, high)) => low <= s.to_int() && s.to_int() <= high,
            None => true,
        };
        match value.filter(fits) {
            Some(value) => Some(value),
            None => self.error(
                codes::BAD_DECLARATION,
                id,
                format!("expected a value of {dtype}"),
            ),
        }
    }

    /// The attributes of a statement; `None` after reporting what is wrong with them.
    pub fn attrs(&self, attrs: &[g::Attr]) -> Option<Attrs> {
        let mut result = Attrs::default();
        let mut complete = true;
        for attr in attrs {
            match self.attr(attr.value, 0) {
                Some(value) => result.push(&self.tree[attr.key.text], value),
                None => complete = false,
            }
        }
        complete.then_some(result)
    }

    fn attr(&self, id: ExprId, depth: usize) -> Option<Attr> {
        if depth > MAX_DEPTH {
            return self.error(
                codes::BAD_ATTRIBUTE,
                id,
                "the attribute is nested too deeply",
            );
        }
        match self.tree[id].kind {
            ExprKind::Int(i) => Some(Attr::Int(i.into())),
            ExprKind::Uint(i) => Some(Attr::Int(i.into())),
            ExprKind::Float(x) => Some(Attr::Float(F64(x))),
            ExprKind::FloatBits { bits, width: 64 } => Some(Attr::Float(F64(f64::from_bits(bits)))),
            ExprKind::Bool(b) => Some(Attr::Bool(b)),
            ExprKind::Str(text) => Some(Attr::Str(self.tree[text].into())),
            ExprKind::Ident(name) if DType::parse(&self.tree[name]).is_some() => {
                DType::parse(&self.tree[name]).map(Attr::DType)
            }
            ExprKind::List(items) => {
                let items = self.tree[items]
                    .iter()
                    .map(|item| self.attr(*item, depth + 1));
                items.collect::<Option<Vec<Attr>>>().map(Attr::List)
            }
            ExprKind::Ident(_)
            | ExprKind::Call { .. }
            | ExprKind::Neg(_)
            | ExprKind::Binary { .. } => self.dim(id).map(|dim| match dim {
                Dim::Const(value) => Attr::Int(value.into()),
                dim => Attr::Dim(dim),
            }),
            _ => self.error(
                codes::BAD_ATTRIBUTE,
                id,
                "this can not be an attribute of an op",
            ),
        }
    }
}
