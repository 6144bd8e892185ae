//! The syntax tree: flat vectors of nodes that refer to each other by index.
//!
//! Nothing here is boxed, so neither building nor dropping a tree recurses. A [`Tree`] is indexed
//! with what its nodes hold: `&tree[stmt.operands]` is a slice, `&tree[stmt.op.text]` a `&str`,
//! `&tree[expr]` an [`Expr`]. Statements of a body lie side by side, so an explicit stack of
//! [`List<Stmt>`] walks a function and its regions.

use std::marker::PhantomData;
use std::ops::{Index, Range};

/// Byte range of the source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl From<Span> for Range<u32> {
    fn from(span: Span) -> Self {
        span.start..span.end
    }
}

/// A piece of text: a range of the source, or of the unescaped strings kept beside it.
/// `&tree[text]` is the `&str`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) unescaped: bool,
}

/// Consecutive nodes of one kind; `&tree[list]` is the slice.
pub struct List<T> {
    start: u32,
    len: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> List<T> {
    pub(crate) fn new(start: usize, len: usize) -> Self {
        List {
            start: start as u32,
            len: len as u32,
            of: PhantomData,
        }
    }

    /// How many nodes it has.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    pub(crate) fn start(self) -> u32 {
        self.start
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T> Default for List<T> {
    fn default() -> Self {
        List::new(0, 0)
    }
}

impl<T> std::fmt::Debug for List<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.range())
    }
}

/// How a name was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// Without quotes: `%x`, `@fc.w`, `add`.
    Bare,
    /// In quotes; [`Name::text`] is the unescaped inside. `%"4"` is a name, `%4` a number.
    Quoted,
    /// A value number, `%12`.
    Number(u32),
}

/// A name without its sigil.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Where it stands, with the sigil and quotes.
    pub span: Span,
    /// The unescaped name, without sigil and quotes.
    pub text: Text,
    /// How it was written.
    pub kind: NameKind,
}

/// First line of a file: `dojo graph 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The whole header.
    pub span: Span,
    /// Name of the level, such as `graph`.
    pub level: Name,
    /// Version of the level's text form.
    pub version: u32,
}

/// A declaration: `KEYWORD @symbol ...`.
#[derive(Debug, Clone, Copy)]
pub struct Decl {
    /// From the keyword to the end of the body or of the last `loc`.
    pub span: Span,
    /// First word, such as `weight` or `func`; the grammar knows none of them.
    pub keyword: Name,
    /// What it declares.
    pub symbol: Name,
    /// Type after `:`.
    pub ty: Option<ExprId>,
    /// Expression after `=`.
    pub init: Option<ExprId>,
    /// Attributes.
    pub attrs: List<Attr>,
    /// Source locations.
    pub locs: List<Loc>,
    /// What stands in braces.
    pub body: Body,
}

/// What a declaration holds in braces.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// No braces.
    None,
    /// Declarations, as in `module @m { ... }`.
    Decls(List<Decl>),
    /// A signature and statements, as in `func @f(...) -> (...) { ... }`.
    Func(Func),
}

/// Signature and statements of a function.
#[derive(Debug, Clone, Copy)]
pub struct Func {
    /// Parameters.
    pub params: List<Param>,
    /// Results after `->`.
    pub results: List<Param>,
    /// Statements of the body.
    pub stmts: List<Stmt>,
}

/// A parameter or result of a function, or a parameter of a region.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// From the name to the last clause.
    pub span: Span,
    /// Its value name.
    pub name: Name,
    /// Its type.
    pub ty: ExprId,
    /// Symbol after `aliases`.
    pub aliases: Option<Name>,
    /// Attributes.
    pub attrs: List<Attr>,
    /// Source locations.
    pub locs: List<Loc>,
}

/// A statement: `results = op operands {attrs} (regions) : types loc(...)`.
#[derive(Debug, Clone, Copy)]
pub struct Stmt {
    /// From the first result or the op to the last clause.
    pub span: Span,
    /// Values it defines.
    pub results: List<Name>,
    /// Name of the op, maybe with dots.
    pub op: Name,
    /// Operands.
    pub operands: List<Operand>,
    /// Attributes.
    pub attrs: List<Attr>,
    /// Regions.
    pub regions: List<Region>,
    /// Types after `:`.
    pub types: List<ExprId>,
    /// Source locations, one for each node it comes from.
    pub locs: List<Loc>,
}

/// What an operand refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sigil {
    /// A value, `%x`.
    Value,
    /// A symbol, `@w`.
    Symbol,
}

/// An operand of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    /// Value or symbol.
    pub sigil: Sigil,
    /// Its name.
    pub name: Name,
}

/// A region argument of a statement: `{ ^(params) statements }`.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// With its braces.
    pub span: Span,
    /// Parameters.
    pub params: List<Param>,
    /// Statements.
    pub stmts: List<Stmt>,
}

/// An entry of an attribute dictionary: `key = value`.
#[derive(Debug, Clone, Copy)]
pub struct Attr {
    /// From key to value.
    pub span: Span,
    /// The key, bare or quoted.
    pub key: Name,
    /// The value.
    pub value: ExprId,
}

/// A source location: `loc("node", "file":line:column)`.
#[derive(Debug, Clone, Copy)]
pub struct Loc {
    /// The whole clause.
    pub span: Span,
    /// Name of the node in the source model.
    pub name: Option<Text>,
    /// Source file.
    pub file: Option<Text>,
    /// Line in that file (or whatever number its importer counts).
    pub line: Option<u32>,
    /// Column in that line.
    pub column: Option<u32>,
}

/// Index of an [`Expr`]; `&tree[id]` is the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExprId(pub(crate) u32);

/// An attribute value, initialiser, type or dimension.
#[derive(Debug, Clone, Copy)]
pub struct Expr {
    /// Where it stands; parentheses around it are not part of it.
    pub span: Span,
    /// What it is.
    pub kind: ExprKind,
}

/// Kinds of [`Expr`].
#[derive(Debug, Clone, Copy)]
pub enum ExprKind {
    /// Integer between -2^63 and 2^63-1; a minus sign before a literal is part of it.
    Int(i64),
    /// Integer between 2^63 and 2^64-1.
    Uint(u64),
    /// Decimal float, `inf` or `nan`.
    Float(f64),
    /// Exact bits of a float, `0f7fc00001`, with 2, 4, 8 or 16 hexadecimal digits.
    FloatBits {
        /// The bits.
        bits: u64,
        /// Width in bits: 8, 16, 32 or 64.
        width: u8,
    },
    /// String.
    Str(Text),
    /// `true` or `false`.
    Bool(bool),
    /// A word, such as `f32`, `n`, `zeros`.
    Ident(Text),
    /// `%x`
    Value(Name),
    /// `@w`
    Symbol(Name),
    /// `[a, b]`
    List(List<ExprId>),
    /// `{k = v}`
    Dict(List<Attr>),
    /// `f(a, b)`
    Call {
        /// Its name.
        name: Text,
        /// Its arguments.
        args: List<ExprId>,
    },
    /// `f32[a, b]`
    Index {
        /// Its name.
        name: Text,
        /// What stands in brackets.
        args: List<ExprId>,
    },
    /// `f32[8, 8] @ tiled{k = v}`
    Layout {
        /// The type before `@`: an [`ExprKind::Ident`] or [`ExprKind::Index`].
        ty: ExprId,
        /// Name of the layout.
        name: Text,
        /// Its attributes.
        attrs: List<Attr>,
    },
    /// `-a` where `a` is not a number.
    Neg(ExprId),
    /// `a + b` and the like.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// Left side.
        lhs: ExprId,
        /// Right side.
        rhs: ExprId,
    },
}

/// Infix operators, from the loosest to the tightest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    /// `<=`: a name and its bound; does not chain.
    Le,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
}

/// A type taken apart, see [`Tree::ty`].
#[derive(Debug, Clone, Copy)]
pub struct Type<'t> {
    /// Where it stands.
    pub span: Span,
    /// Its name, such as `f32`.
    pub name: &'t str,
    /// What stands in brackets, `None` without brackets.
    pub args: Option<&'t [ExprId]>,
    /// Name and attributes after `@`.
    pub layout: Option<(&'t str, &'t [Attr])>,
}

/// A syntax tree. With errors it holds what could be read.
#[derive(Debug, Default)]
pub struct Tree {
    pub(crate) source: String,
    pub(crate) unescaped: String,
    pub(crate) header: Option<Header>,
    pub(crate) items: List<Decl>,
    pub(crate) decls: Vec<Decl>,
    pub(crate) stmts: Vec<Stmt>,
    pub(crate) regions: Vec<Region>,
    pub(crate) params: Vec<Param>,
    pub(crate) operands: Vec<Operand>,
    pub(crate) names: Vec<Name>,
    pub(crate) attrs: Vec<Attr>,
    pub(crate) locs: Vec<Loc>,
    pub(crate) exprs: Vec<Expr>,
    pub(crate) expr_lists: Vec<ExprId>,
}

impl Tree {
    /// The text that was read.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The header, `None` when it was missing or wrong.
    pub fn header(&self) -> Option<Header> {
        self.header
    }

    /// The declarations at the top of the file.
    pub fn items(&self) -> &[Decl] {
        &self[self.items]
    }

    /// Reads an expression as a type: a name, brackets and layout. `None` for any other kind of
    /// expression; never for what stands where the grammar wants a type.
    pub fn ty(&self, id: ExprId) -> Option<Type<'_>> {
        let Expr { span, kind } = self[id];
        match kind {
            ExprKind::Ident(name) => Some(Type {
                span,
                name: &self[name],
                args: None,
                layout: None,
            }),
            ExprKind::Index { name, args } => Some(Type {
                span,
                name: &self[name],
                args: Some(&self[args]),
                layout: None,
            }),
            ExprKind::Layout { ty, name, attrs } => {
                // The grammar builds layouts on a name or brackets only, so this goes one level down.
                let layout = Some((&self[name], &self[attrs]));
                match self[ty].kind {
                    ExprKind::Layout { .. } => None,
                    _ => self.ty(ty).map(|inner| Type {
                        span,
                        layout,
                        ..inner
                    }),
                }
            }
            _ => None,
        }
    }
}

impl Index<Text> for Tree {
    type Output = str;

    fn index(&self, text: Text) -> &str {
        let from = if text.unescaped {
            &self.unescaped
        } else {
            &self.source
        };
        &from[text.start as usize..text.end as usize]
    }
}

impl Index<ExprId> for Tree {
    type Output = Expr;

    fn index(&self, id: ExprId) -> &Expr {
        &self.exprs[id.0 as usize]
    }
}

macro_rules! index_lists {
    ($($field:ident: $node:ty),*) => {$(
        impl Index<List<$node>> for Tree {
            type Output = [$node];

            fn index(&self, list: List<$node>) -> &[$node] {
                &self.$field[list.range()]
            }
        }
    )*};
}

index_lists! {
    decls: Decl, stmts: Stmt, regions: Region, params: Param, operands: Operand, names: Name,
    attrs: Attr, locs: Loc, expr_lists: ExprId
}
