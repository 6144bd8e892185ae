//! Entries and their schedules.

use dojoc_grammar as g;
use dojoc_grammar::Sigil;

use super::expr::Counters;
use super::fields::{Fields, all};
use super::{Reader, Symbol, range};
use crate::codes;
use crate::program::{Entry, EntryId, MAX_LOOP_DEPTH, Place, Step};

impl<'t> Reader<'t> {
    pub(super) fn entry(&mut self, id: EntryId, entry: &mut Entry, decl: &g::Decl, func: g::Func) {
        let cx = &self.cx;
        let known = ["inputs", "outputs"];
        let fields = Fields::new(cx, "an entry", decl.symbol.span, decl.attrs, &known);
        let tensors = |key| {
            fields
                .required(key)
                .and_then(|e| cx.tensors_of(e))
                .unwrap_or_default()
        };
        entry.inputs = tensors("inputs");
        entry.outputs = tensors("outputs");
        if !func.params.is_empty() || !func.results.is_empty() {
            let message = "an entry has no parameters and results: expected `entry @name() { .. }`";
            cx.error::<()>(codes::BAD_DECLARATION, decl.symbol.span, message);
        }
        self.steps(id, entry, func.stmts, &mut Counters::default());
    }

    fn steps(
        &mut self,
        id: EntryId,
        entry: &mut Entry,
        stmts: g::List<g::Stmt>,
        counters: &mut Counters<'t>,
    ) {
        for stmt in &self.cx.tree[stmts] {
            self.map
                .insert(Place::Step(id, entry.steps.len() as u32), range(stmt.span));
            match self.cx.text(&stmt.op) {
                "call" => self.call(entry, stmt, counters),
                "repeat" => self.repeat(id, entry, stmt, counters),
                "probe" => {
                    self.step_shape(stmt, true, "probe @name", 0);
                    self.cx.no_loc(stmt.locs, "`probe`");
                    Fields::new(&self.cx, "`probe`", stmt.op.span, stmt.attrs, &[]);
                    let tensor = self.step_symbol(stmt, "a tensor", |symbol| match symbol {
                        Symbol::Tensor(id) => Some(id),
                        _ => None,
                    });
                    entry.steps.extend(tensor.map(Step::Probe));
                }
                word => {
                    let near = crate::graph::closest(word, ["call", "repeat", "probe"].into_iter());
                    let help = near.map(|near| format!("did you mean `{near}`?"));
                    let message =
                        format!("a schedule has no step `{word}`: it has call, repeat, probe");
                    self.cx
                        .error_help::<()>(codes::UNKNOWN_OP, stmt.op.span, message, help);
                }
            }
        }
    }

    fn call(&mut self, entry: &mut Entry, stmt: &g::Stmt, counters: &Counters<'t>) {
        self.step_shape(stmt, true, "call @segment {on = @cores, row = [..]}", 0);
        let loc = self.loc(stmt.locs);
        let cx = &self.cx;
        let fields = Fields::new(cx, "`call`", stmt.op.span, stmt.attrs, &["on", "row"]);
        let segment = self.step_symbol(stmt, "a segment", |symbol| match symbol {
            Symbol::Segment(id) => Some(id),
            _ => None,
        });
        let on = fields.required("on").and_then(|e| cx.region(e));
        let row = fields
            .required("row")
            .and_then(|e| all(cx.list(e)?, |e| cx.index(*e, counters)));
        if let (Some(segment), Some(on), Some(row)) = (segment, on, row) {
            entry.steps.push(Step::Call {
                segment,
                on,
                row,
                loc,
            });
        }
    }

    fn repeat(
        &mut self,
        id: EntryId,
        entry: &mut Entry,
        stmt: &g::Stmt,
        counters: &mut Counters<'t>,
    ) {
        let form = "repeat {count = n} ({ ^(%l : index) .. })";
        self.step_shape(stmt, false, form, 1);
        self.cx.no_loc(stmt.locs, "`repeat`");
        let fields = Fields::new(&self.cx, "`repeat`", stmt.op.span, stmt.attrs, &["count"]);
        let count = fields
            .required("count")
            .and_then(|e| self.cx.uint(e))
            .unwrap_or(0);
        let Some((name, body)) = self.counted_region(stmt, form) else {
            return;
        };
        if counters.0.contains(&name) {
            let message = format!("`%{name}` is defined twice");
            self.cx
                .error::<()>(codes::DUPLICATE_NAME, stmt.span, message);
        }
        if counters.0.len() == MAX_LOOP_DEPTH {
            let message = format!("repeats are nested at most {MAX_LOOP_DEPTH} deep");
            self.cx
                .error::<()>(codes::BAD_STRUCTURE, stmt.op.span, message);
            return;
        }
        let at = entry.steps.len();
        entry.steps.push(Step::Repeat {
            name: name.into(),
            count,
            len: 0,
        });
        counters.0.push(name);
        self.steps(id, entry, body, counters);
        counters.0.pop();
        let body = (entry.steps.len() - at - 1) as u32;
        if let Some(Step::Repeat { len, .. }) = entry.steps.get_mut(at) {
            *len = body;
        }
    }

    /// Name of the counter and body of a loop with one region and one parameter.
    pub(super) fn counted_region(
        &self,
        stmt: &g::Stmt,
        form: &str,
    ) -> Option<(&'t str, g::List<g::Stmt>)> {
        let tree = self.cx.tree;
        // A wrong number of regions is reported with the shape of the statement.
        let [region] = &tree[stmt.regions] else {
            return None;
        };
        let [param] = &tree[region.params] else {
            let message = format!("expected one counter: `{form}`");
            return self.cx.error(codes::BAD_STRUCTURE, region.span, message);
        };
        self.param(param)?;
        Some((self.cx.text(&param.name), region.stmts))
    }

    /// A parameter or counter, which is of the type `index` and nothing else.
    pub(super) fn param(&self, param: &g::Param) -> Option<&'t str> {
        let tree = self.cx.tree;
        let is_index = tree
            .ty(param.ty)
            .is_some_and(|ty| ty.name == "index" && ty.args.is_none() && ty.layout.is_none());
        let plain = param.aliases.is_none() && param.attrs.is_empty() && param.locs.is_empty();
        if !is_index || !plain {
            let name = self.cx.text(&param.name);
            let message = format!("expected `%{name} : index`");
            return self.cx.error(codes::BAD_STRUCTURE, param.span, message);
        }
        Some(self.cx.text(&param.name))
    }

    fn step_shape(&self, stmt: &g::Stmt, operand: bool, form: &str, regions: usize) {
        let tree = self.cx.tree;
        let operands = match (&tree[stmt.operands], operand) {
            ([one], true) => one.sigil == Sigil::Symbol,
            (found, false) => found.is_empty(),
            _ => false,
        };
        let plain = stmt.results.is_empty() && stmt.types.is_empty();
        if !operands || !plain || stmt.regions.len() != regions {
            self.cx.error::<()>(
                codes::BAD_STRUCTURE,
                stmt.span,
                format!("expected `{form}`"),
            );
        }
    }

    fn step_symbol<T>(
        &self,
        stmt: &g::Stmt,
        kind: &str,
        pick: impl Fn(Symbol) -> Option<T>,
    ) -> Option<T> {
        match &self.cx.tree[stmt.operands] {
            [operand] if operand.sigil == Sigil::Symbol => {
                self.cx.symbol(&operand.name, kind, pick)
            }
            _ => None,
        }
    }
}
