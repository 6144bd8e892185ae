//! Text of every IR level to a syntax tree, and to canonical text.
//!
//! One syntax serves all levels: this crate knows no op, type, level or keyword of a declaration.
//! GRAMMAR.md beside this crate shows every construct; in short:
//!
//! - A file is a header, `dojo LEVEL VERSION`, and declarations. `//` starts a comment.
//! - A declaration is a word and a symbol, `weight @w`, then clauses: `: type`, `= expression`,
//!   `{key = value}`, `loc(...)`. Instead of type and expression it may have a body in braces: of
//!   declarations, or, when a parameter list follows the symbol, of statements.
//! - A statement is `%a, %b = op %x, @w {key = value} ({ ^(%p : f32[]) ... }) : f32[2], i64[] loc("n")`,
//!   where everything but the op may be absent. A region in its parentheses holds statements again.
//! - An expression is a number, string, boolean, word, value, symbol, list, dictionary, call
//!   `f(a)`, bracketed word `f32[2, n]` or arithmetic with `<=` as the loosest operator, so a
//!   bounded dimension is `n<=128`. A type is a word with optional brackets and optional layout
//!   `@ name{key = value}`, and so also an expression.
//! - Nothing ends a statement and line breaks mean nothing: a word that follows a finished clause
//!   begins the next statement, and so does a list of values that runs into `=`.
//!
//! [`parse`] reads a file into a [`Tree`]; errors of all kinds are collected, with a span and a code
//! of [`CODES`] each, and an error in one statement hides none in another.
//!
//! ```
//! use dojoc_grammar::{Body, parse};
//!
//! let parsed = parse("dojo graph 1  func @f(%x : f32[4]) -> (%y : f32[4]) { %y = relu %x : f32[4] }");
//! assert!(parsed.errors.is_empty());
//! let tree = &parsed.tree;
//! let Body::Func(func) = tree.items()[0].body else { panic!("a function has a signature") };
//! let mut stack = vec![func.stmts];
//! while let Some(stmts) = stack.pop() {
//!     for stmt in &tree[stmts] {
//!         assert_eq!(&tree[stmt.op.text], "relu");
//!         stack.extend(tree[stmt.regions].iter().map(|region| region.stmts));
//!     }
//! }
//! ```

mod builder;
mod error;
mod format;
mod outline;
mod parse;
mod text;
mod token;
mod tree;

pub use error::{CODES, MAX_ERRORS, SyntaxError};
pub use format::{WIDTH, format};
pub use parse::{Parsed, parse};
pub use text::{name_needs_quotes, quote, quote_name};
pub use tree::{
    Attr, BinaryOp, Body, Decl, Expr, ExprId, ExprKind, Func, Header, List, Loc, Name, NameKind,
    Operand, Param, Region, Sigil, Span, Stmt, Text, Tree, Type,
};

/// Brackets, and the operators of one expression, nest at most this deep.
pub const MAX_NESTING: usize = 1000;

lalrpop_util::lalrpop_mod!(
    #[expect(
        clippy::all,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used,
        reason = "generated code"
    )]
    generated,
    "/dojo.rs"
);
