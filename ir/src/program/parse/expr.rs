//! Index expressions, affine expressions and types.

use std::collections::BTreeMap;

use dojoc_grammar as g;
use dojoc_grammar::{BinaryOp, ExprId, ExprKind};

use super::fields::all;
use super::{Context, Symbol};
use crate::codes;
use crate::program::print::COORDINATES;
use crate::program::{Affine, Coordinate, IndexExpr, IndexNode, MAX_INDEX_NODES, Var};
use crate::types::DType;

/// Expressions nested deeper than this are refused.
pub(super) const MAX_DEPTH: usize = 256;

/// Extents of a type may be at most this many; the verifier knows tighter limits.
const MAX_RANK: usize = 16;

/// Counters of the repeats around an index expression, by name.
#[derive(Default)]
pub(super) struct Counters<'t>(pub Vec<&'t str>);

/// The variables of an affine expression, by name.
pub(super) type Variables<'t> = BTreeMap<&'t str, Var>;

impl<'t> Context<'t> {
    /// An index expression.
    pub(super) fn index(&self, id: ExprId, counters: &Counters<'t>) -> Option<IndexExpr> {
        let mut nodes = vec![];
        self.index_nodes(id, counters, &mut nodes, 0)?;
        if nodes.len() > MAX_INDEX_NODES {
            let message = format!("an index expression has at most {MAX_INDEX_NODES} parts");
            return self.error(codes::BAD_DECLARATION, self.tree[id].span, message);
        }
        Some(IndexExpr { nodes })
    }

    /// Appends the nodes of an expression and returns the position of the last.
    fn index_nodes(
        &self,
        id: ExprId,
        counters: &Counters<'t>,
        nodes: &mut Vec<IndexNode>,
        depth: usize,
    ) -> Option<u32> {
        let span = self.tree[id].span;
        if depth > MAX_DEPTH {
            return self.error(
                codes::BAD_DECLARATION,
                span,
                "the expression is nested too deeply",
            );
        }
        let node = match self.tree[id].kind {
            ExprKind::Int(value) => IndexNode::Const(value),
            ExprKind::Value(name) => {
                let text = self.text(&name);
                let Some(depth) = counters.0.iter().position(|counter| *counter == text) else {
                    let message = format!("there is no counter `%{text}` of a repeat here");
                    return self.error(codes::UNKNOWN_NAME, span, message);
                };
                // Repeats are nested at most eight deep.
                IndexNode::Coordinate(Coordinate::Repeat(depth as u8))
            }
            ExprKind::Ident(word) => {
                let word = &self.tree[word];
                match COORDINATES.iter().find(|(_, name)| *name == word) {
                    Some((coordinate, _)) => IndexNode::Coordinate(*coordinate),
                    None => IndexNode::Coordinate(Coordinate::Dim(self.dim(id, word)?)),
                }
            }
            ExprKind::Neg(of) => {
                nodes.push(IndexNode::Const(0));
                let zero = nodes.len() as u32 - 1;
                IndexNode::Sub(zero, self.index_nodes(of, counters, nodes, depth + 1)?)
            }
            ExprKind::Binary { op, lhs, rhs } => {
                let make = match op {
                    BinaryOp::Add => IndexNode::Add,
                    BinaryOp::Sub => IndexNode::Sub,
                    BinaryOp::Mul => IndexNode::Mul,
                    BinaryOp::Div => IndexNode::Div,
                    BinaryOp::Le => {
                        let message = "an index expression has no `<=`";
                        return self.error(codes::BAD_DECLARATION, span, message);
                    }
                };
                let a = self.index_nodes(lhs, counters, nodes, depth + 1);
                let b = self.index_nodes(rhs, counters, nodes, depth + 1);
                make(a?, b?)
            }
            ExprKind::Call { name, args } => {
                return self.index_call(
                    id,
                    &self.tree[name],
                    &self.tree[args],
                    counters,
                    nodes,
                    depth,
                );
            }
            _ => {
                let message = "expected an index expression, such as `64*i + 3`";
                return self.error(codes::BAD_DECLARATION, span, message);
            }
        };
        nodes.push(node);
        Some(nodes.len() as u32 - 1)
    }

    fn index_call(
        &self,
        id: ExprId,
        name: &str,
        args: &[ExprId],
        counters: &Counters<'t>,
        nodes: &mut Vec<IndexNode>,
        depth: usize,
    ) -> Option<u32> {
        let span = self.tree[id].span;
        let node = match (name, args) {
            ("sym", [arg]) => {
                let name = self.string(*arg)?;
                IndexNode::Coordinate(Coordinate::Dim(self.dim(id, name)?))
            }
            ("mod" | "min" | "max", [a, b]) => {
                let a = self.index_nodes(*a, counters, nodes, depth + 1);
                let b = self.index_nodes(*b, counters, nodes, depth + 1);
                let (a, b) = (a?, b?);
                match name {
                    "mod" => IndexNode::Mod(a, b),
                    "min" => IndexNode::Min(a, b),
                    _ => IndexNode::Max(a, b),
                }
            }
            ("at", [table, a]) => {
                let ExprKind::Symbol(symbol) = self.tree[*table].kind else {
                    let message = "expected `at(@table, index)`";
                    return self.error(codes::BAD_DECLARATION, span, message);
                };
                let table = self.symbol(&symbol, "a table", |symbol| match symbol {
                    Symbol::Table(id) => Some(id),
                    _ => None,
                })?;
                IndexNode::Table(table, self.index_nodes(*a, counters, nodes, depth + 1)?)
            }
            _ => {
                let message = format!(
                    "expected `mod(a, b)`, `min(a, b)`, `max(a, b)`, `at(@table, a)` or \
                     `sym(\"name\")`, found `{name}` of {} arguments",
                    args.len()
                );
                return self.error(codes::BAD_DECLARATION, span, message);
            }
        };
        nodes.push(node);
        Some(nodes.len() as u32 - 1)
    }

    /// A run parameter.
    fn dim(&self, id: ExprId, name: &str) -> Option<u16> {
        let found = self.dims.get(name).copied();
        if found.is_none() {
            let message = format!("run parameter `{name}` is not declared in the program's `dims`");
            return self.error(codes::UNKNOWN_NAME, self.tree[id].span, message);
        }
        found
    }

    /// An affine expression.
    pub(super) fn affine(&self, id: ExprId, variables: &Variables<'t>) -> Option<Affine> {
        self.affine_at(id, variables, 0)
    }

    fn affine_at(&self, id: ExprId, variables: &Variables<'t>, depth: usize) -> Option<Affine> {
        let span = self.tree[id].span;
        if depth > MAX_DEPTH {
            return self.error(
                codes::BAD_DECLARATION,
                span,
                "the expression is nested too deeply",
            );
        }
        let get = |id| self.affine_at(id, variables, depth + 1);
        let value = match self.tree[id].kind {
            ExprKind::Int(value) => Some(Affine::constant(value)),
            ExprKind::Value(name) => {
                return Some(Affine::var(self.variable(&name, variables)?));
            }
            ExprKind::Ident(word) => {
                return Some(Affine::var(Var::Dim(self.dim(id, &self.tree[word])?)));
            }
            ExprKind::Call { name, args } if &self.tree[name] == "sym" && args.len() == 1 => {
                let name = self.string(self.tree[args][0])?;
                return Some(Affine::var(Var::Dim(self.dim(id, name)?)));
            }
            ExprKind::Neg(of) => get(of)?.scale(-1),
            ExprKind::Binary {
                op: BinaryOp::Add,
                lhs,
                rhs,
            } => {
                let (a, b) = (get(lhs), get(rhs));
                a?.add(&b?)
            }
            ExprKind::Binary {
                op: BinaryOp::Sub,
                lhs,
                rhs,
            } => {
                let (a, b) = (get(lhs), get(rhs));
                let (a, b) = (a?, b?);
                b.scale(-1).and_then(|b| a.add(&b))
            }
            ExprKind::Binary {
                op: BinaryOp::Mul,
                lhs,
                rhs,
            } => {
                let (a, b) = (get(lhs), get(rhs));
                let (a, b) = (a?, b?);
                match (a.as_constant(), b.as_constant()) {
                    (Some(factor), _) => b.scale(factor),
                    (_, Some(factor)) => a.scale(factor),
                    _ => {
                        let message = "one side of a product must be a number: address generators \
                                       are linear";
                        return self.error(codes::BAD_DECLARATION, span, message);
                    }
                }
            }
            _ => {
                let message = "expected sums of variables times numbers, such as `64*%i + 3`";
                return self.error(codes::BAD_DECLARATION, span, message);
            }
        };
        match value {
            Some(value) => Some(value),
            None => self.error(
                codes::BAD_DECLARATION,
                span,
                "the expression exceeds 64 bits",
            ),
        }
    }

    fn variable(&self, name: &g::Name, variables: &Variables<'t>) -> Option<Var> {
        let text = self.text(name);
        let found = variables.get(text).copied();
        if found.is_none() {
            let near = crate::graph::closest(text, variables.keys().copied());
            let help = near.map(|near| format!("did you mean `%{near}`?"));
            let message = format!("there is no parameter, counter or register `%{text}` here");
            return self.error_help(codes::UNKNOWN_NAME, name.span, message, help);
        }
        found
    }

    /// Element type and extents of a type.
    fn ty_parts(&self, id: ExprId) -> Option<(DType, &'t [ExprId])> {
        let span = self.tree[id].span;
        let Some(ty) = self.tree.ty(id) else {
            let message = "expected a tensor type such as `f32[2, 3]`";
            return self.error(codes::BAD_TYPE, span, message);
        };
        let Some(dtype) = DType::parse(ty.name) else {
            let message = format!("there is no element type `{}`", ty.name);
            return self.error(codes::BAD_TYPE, span, message);
        };
        let Some(args) = ty.args else {
            let message = format!("expected extents: `{dtype}[]` is a scalar");
            return self.error(codes::BAD_TYPE, span, message);
        };
        if ty.layout.is_some() {
            return self.error(codes::BAD_TYPE, span, "types of this level have no layout");
        }
        if args.len() > MAX_RANK {
            let message = format!("the rank is at most {MAX_RANK}, found {}", args.len());
            return self.error(codes::BAD_TYPE, span, message);
        }
        Some((dtype, args))
    }

    /// A type whose extents are numbers.
    pub(super) fn constant_type(&self, id: ExprId) -> Option<(DType, Vec<u64>)> {
        let (dtype, args) = self.ty_parts(id)?;
        let extent = |arg: &ExprId| match self.tree[*arg].kind {
            ExprKind::Int(value) if value >= 0 => Some(value as u64),
            ExprKind::Uint(value) => Some(value),
            _ => {
                let message = "these extents are numbers";
                self.error(codes::BAD_TYPE, self.tree[*arg].span, message)
            }
        };
        Some((dtype, all(args, extent)?))
    }

    /// A type whose extents are affine expressions.
    pub(super) fn affine_type(
        &self,
        id: ExprId,
        variables: &Variables<'t>,
    ) -> Option<(DType, Vec<Affine>)> {
        let (dtype, args) = self.ty_parts(id)?;
        let extents = all(args, |arg| self.affine(*arg, variables))?;
        Some((dtype, extents))
    }
}
