//! Groups and their steps.

use dojoc_grammar as g;
use dojoc_grammar::{ExprId, ExprKind};

use super::{Reader, Reading, Scope};
use crate::codes;
use crate::graph::declare::range;
use crate::tiled::verify::Entity;
use crate::tiled::{BodyId, GridId, Group, LoopSplit, Step, Stmt, Temporal};

impl<'t> Reader<'t> {
    pub(super) fn group(
        &mut self,
        r: &mut Reading<'t>,
        scope: &mut Scope<'t>,
        body: BodyId,
        stmt: &'t g::Stmt,
    ) -> Option<Stmt> {
        let tree = self.tree;
        let ([operand], [region]) = (&tree[stmt.operands], &tree[stmt.regions]) else {
            let message = "expected `group @grid ({ ^() steps yield })`";
            self.error(codes::BAD_STRUCTURE, stmt.span, message);
            return None;
        };
        let grid = self.grid_of(&operand.name);
        let mut steps = vec![];
        let number = r.bodies[body].stmts.len();
        let inner = &tree[region.stmts];
        for (position, step) in inner.iter().enumerate() {
            if &tree[step.op.text] == "yield" && position + 1 == inner.len() {
                continue;
            }
            let entity = Entity::Step(r.id, body, number, steps.len());
            let args = self.operands(scope, step);
            let read = grid.and_then(|grid| self.step(step, grid));
            let results = self.results(r, scope, body, step);
            if let Some(read) = read {
                self.map.insert(entity, range(step.span));
                steps.push(Step {
                    args,
                    results,
                    ..read
                });
            }
        }
        let ends = inner.last().is_some_and(|s| &tree[s.op.text] == "yield");
        if !ends || !region.params.is_empty() {
            let message = "the steps of a `group` have no parameters and end with `yield`";
            self.error(codes::BAD_STRUCTURE, region.span, message);
        }
        Some(Stmt::Group(Group { grid: grid?, steps }))
    }

    /// A step without operands and results.
    pub(super) fn step(&mut self, stmt: &g::Stmt, grid: GridId) -> Option<Step> {
        let tree = self.tree;
        let is_tile = |a: &&g::Attr| &tree[a.key.text] == "tile";
        let attrs = &tree[stmt.attrs];
        let plain: Vec<g::Attr> = attrs.iter().filter(|a| !is_tile(a)).copied().collect();
        let mut step = Step {
            op: self.decls.op(&stmt.op, &plain)?,
            args: vec![],
            results: vec![],
            loops: vec![],
            split: vec![],
            temporal: vec![],
            loc: self.loc(stmt),
        };
        let Some(tile) = attrs.iter().find(is_tile) else {
            return Some(step);
        };
        let ExprKind::Dict(entries) = tree[tile.value].kind else {
            return self.wrong(
                tile.value,
                "expected `{loops = .., split = .., temporal = ..}`",
            );
        };
        for entry in &tree[entries] {
            let items = self.list(entry.value)?;
            match &tree[entry.key.text] {
                "loops" => {
                    for item in items {
                        let first = step.loops.last().map_or(0, |r| r.end);
                        let end = first.checked_add(self.position(*item)?);
                        let Some(end) = end else {
                            return self.wrong(*item, "the number is too large");
                        };
                        step.loops.push(first..end);
                    }
                }
                "split" => {
                    let items = items.iter().map(|item| self.loop_split(grid, *item));
                    step.split = items.collect::<Option<_>>()?;
                }
                "temporal" => {
                    let items = items.iter().map(|item| self.temporal(grid, *item));
                    step.temporal = items.collect::<Option<_>>()?;
                }
                key => return self.wrong(entry.value, format!("`tile` has no entry `{key}`")),
            }
        }
        Some(step)
    }

    pub(super) fn loop_split(&mut self, grid: GridId, id: ExprId) -> Option<LoopSplit> {
        let tree = self.tree;
        if let ExprKind::Call { name, args } = tree[id].kind
            && &tree[name] == "loop"
            && let [dim, axes, unit @ ..] = &tree[args]
            && unit.len() <= 1
        {
            return Some(LoopSplit {
                dim: self.position(*dim)?,
                axes: self.axes(grid, *axes)?,
                unit: match unit.first() {
                    Some(unit) => self.count(*unit)?,
                    None => 1,
                },
            });
        }
        self.wrong(
            id,
            "expected `loop(position, [axes])` or `loop(position, [axes], unit)`",
        )
    }

    pub(super) fn temporal(&mut self, grid: GridId, id: ExprId) -> Option<Temporal> {
        let tree = self.tree;
        if let ExprKind::Call { name, args } = tree[id].kind
            && &tree[name] == "cut"
            && let [dim, steps, shift @ ..] = &tree[args]
            && let [] | [_, _] = shift
        {
            return Some(Temporal {
                dim: self.position(*dim)?,
                steps: self.count(*steps)?,
                shift: match shift {
                    [operand, axis] => Some((self.position(*operand)?, self.axis_at(grid, *axis)?)),
                    _ => None,
                },
            });
        }
        self.wrong(
            id,
            "expected `cut(position, steps)` or `cut(position, steps, operand, axis)`",
        )
    }
}
