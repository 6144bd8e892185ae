//! Compute instructions.

use dojoc_grammar as g;
use dojoc_grammar::Sigil;

use super::fields::all;
use super::segment::Scope;
use super::{Reader, range};
use crate::codes;
use crate::diag::Diagnostic;
use crate::graph::closest;
use crate::program::instr::{self, Ref};
use crate::program::{Affine, Instr, Stmt};

impl<'t> Reader<'t> {
    /// Any statement that has no form of its own.
    pub(super) fn compute(&self, scope: &Scope<'t>, stmt: &g::Stmt) -> Option<Stmt> {
        let (cx, tree) = (&self.cx, self.cx.tree);
        let word = cx.text(&stmt.op);
        let Some(schema) = Instr::schema(word) else {
            return self.unknown(word, stmt);
        };
        // What the schema does not have may be a scalar; which ones there are depends on the rest.
        let in_schema = |a: &g::Attr| schema.iter().any(|spec| spec.name == cx.text(&a.key));
        let (attrs, others): (Vec<g::Attr>, Vec<g::Attr>) =
            tree[stmt.attrs].iter().copied().partition(in_schema);
        let operands = self.compute_operands(scope, stmt);
        let attrs = cx.exprs.attrs(&attrs)?;
        let instr = match Instr::parse(word, &attrs)? {
            Ok(instr) => instr,
            Err(error) => {
                let culprit = tree[stmt.attrs]
                    .iter()
                    .find(|a| cx.text(&a.key) == error.attr);
                let span = culprit.map_or(stmt.op.span, |a| a.span);
                let message = format!("{word}: {}", error.message);
                return cx.error(codes::BAD_ATTRIBUTE, span, message);
            }
        };
        let scalars = self.scalars(scope, stmt, &instr, &others);
        let operands = operands?;
        let roles = instr.roles();
        if roles.len() != operands.len() {
            let names: Vec<&str> = roles.iter().map(|role| role.name).collect();
            let (expected, found) = (roles.len(), operands.len());
            let message = format!(
                "{word}: expected {expected} operands ({}), found {found}",
                names.join(", ")
            );
            return cx.error(codes::BAD_OPERANDS, stmt.span, message);
        }
        Some(Stmt::Compute {
            instr,
            operands,
            scalars: scalars?,
        })
    }

    fn compute_operands(&self, scope: &Scope<'t>, stmt: &g::Stmt) -> Option<Vec<Ref>> {
        let (cx, tree) = (&self.cx, self.cx.tree);
        if (stmt.results.len(), stmt.regions.len(), stmt.types.len()) != (0, 0, 0) {
            let word = cx.text(&stmt.op);
            let message = format!(
                "expected `{word} %to, %from, ..`: an instruction has neither results nor types, \
                 destinations are its first operands"
            );
            return cx.error(codes::BAD_STRUCTURE, stmt.span, message);
        }
        all(&tree[stmt.operands], |operand| match operand.sigil {
            Sigil::Value => self.operand(scope, &operand.name),
            Sigil::Symbol => {
                let message = "operands of a compute instruction are buffers and views";
                cx.error(codes::BAD_STRUCTURE, operand.name.span, message)
            }
        })
    }

    fn scalars(
        &self,
        scope: &Scope<'t>,
        stmt: &g::Stmt,
        instr: &Instr,
        attrs: &[g::Attr],
    ) -> Option<Vec<Affine>> {
        let cx = &self.cx;
        let (word, names) = (instr.mnemonic(), instr.scalars());
        let mut complete = true;
        for attr in attrs {
            let key = cx.text(&attr.key);
            if !names.contains(&key) {
                let schema = Instr::schema(word).unwrap_or_default();
                let mut known: Vec<&str> = schema.iter().map(|spec| spec.name).collect();
                known.extend(&names);
                let help = closest(key, known.iter().copied());
                let help = help.map(|near| format!("did you mean `{near}`?"));
                let has = match known.as_slice() {
                    [] => "it has none".to_owned(),
                    _ => format!("it has {}", known.join(", ")),
                };
                let message = format!("`{word}` has no attribute `{key}`: {has}");
                cx.error_help::<()>(codes::BAD_ATTRIBUTE, attr.span, message, help);
                complete = false;
            }
        }
        let scalar = |name: &&str| match attrs.iter().find(|a| cx.text(&a.key) == *name) {
            Some(attr) => cx.affine(attr.value, &scope.variables),
            None => {
                let message = format!("`{word}` needs the scalar `{name}`");
                cx.error(codes::BAD_ATTRIBUTE, stmt.op.span, message)
            }
        };
        all(&names, scalar).filter(|_| complete)
    }

    fn unknown<T>(&self, word: &str, stmt: &g::Stmt) -> Option<T> {
        let infos = instr::infos();
        let known = infos.iter().map(|info| info.mnemonic).chain(["view"]);
        let mut diagnostic = Diagnostic::input(
            codes::UNKNOWN_OP,
            format!("there is no instruction `{word}`"),
        )
        .at_span(range(stmt.op.span));
        if let Some(near) = closest(word, known) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        } else if ["buffer", "token"].contains(&word) {
            diagnostic =
                diagnostic.help(format!("a `{word}` stands in the segment, not in a stream"));
        }
        self.cx.errors.borrow_mut().push(diagnostic);
        None
    }
}
