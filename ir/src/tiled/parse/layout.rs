//! Types with layouts.

use std::sync::Arc;

use dojoc_grammar as g;
use dojoc_grammar::{ExprId, ExprKind};

use super::Reader;
use crate::codes;
use crate::program::Packing;
use crate::tiled::text::{MONOIDS, named};
use crate::tiled::{GridId, Layout, Pending, Split};
use crate::types::Type;

/// The type of a value as it is written.
pub(super) struct Written {
    pub ty: Type,
    pub layout: Layout,
    pub name: Option<Arc<str>>,
}

impl<'t> Reader<'t> {
    /// A whole number that is not negative.
    pub fn count(&mut self, id: ExprId) -> Option<u64> {
        match self.tree[id].kind {
            ExprKind::Int(i) if i >= 0 => Some(i.unsigned_abs()),
            ExprKind::Uint(i) => Some(i),
            _ => self.wrong(id, "expected a whole number"),
        }
    }

    pub fn signed(&mut self, id: ExprId) -> Option<i64> {
        match self.tree[id].kind {
            ExprKind::Int(i) => Some(i),
            _ => self.wrong(id, "expected an integer"),
        }
    }

    pub fn position(&mut self, id: ExprId) -> Option<usize> {
        usize::try_from(self.count(id)?).ok()
    }

    pub fn list(&mut self, id: ExprId) -> Option<&'t [ExprId]> {
        match self.tree[id].kind {
            ExprKind::List(items) => Some(&self.tree[items]),
            _ => self.wrong(id, "expected a list"),
        }
    }

    pub fn word(&self, id: ExprId) -> Option<&'t str> {
        match self.tree[id].kind {
            ExprKind::Ident(name) | ExprKind::Str(name) => Some(&self.tree[name]),
            _ => None,
        }
    }

    /// The position of the axis of a name.
    pub(super) fn axis_of(&mut self, grid: GridId, name: &str, span: g::Span) -> Option<usize> {
        let axes = self.module.grids.get(grid).map(|g| &g.axes)?;
        let found = axes.iter().position(|a| &*a.name == name);
        if found.is_none() {
            let grid = self.module.grids[grid].name.clone();
            let message = format!("grid `@{grid}` has no axis `{name}`");
            self.error(codes::UNKNOWN_NAME, span, message);
        }
        found
    }

    pub(super) fn axis_at(&mut self, grid: GridId, id: ExprId) -> Option<usize> {
        let Some(name) = self.word(id) else {
            return self.wrong(id, "expected the name of an axis");
        };
        self.axis_of(grid, name, self.tree[id].span)
    }

    pub(super) fn axes(&mut self, grid: GridId, id: ExprId) -> Option<Vec<usize>> {
        let items = self.list(id)?;
        items.iter().map(|item| self.axis_at(grid, *item)).collect()
    }

    pub(super) fn grid_of(&mut self, name: &g::Name) -> Option<GridId> {
        let text = &self.tree[name.text];
        let grids = &self.module.grids;
        let found = grids.ids().find(|id| &*grids[*id].name == text);
        if found.is_none() {
            let message = format!("there is no grid `@{text}`");
            self.error(codes::UNKNOWN_NAME, name.span, message);
        }
        found
    }

    pub(super) fn ty(&mut self, id: ExprId) -> Option<Written> {
        let (ty, layout) = self.decls.exprs.laid_out_ty(id)?;
        let Some(("on", entries)) = layout else {
            let message = format!("expected a layout: `{ty} @ on{{grid = @g}}`");
            let span = self.tree[id].span;
            self.error(codes::BAD_TYPE, span, message);
            return None;
        };
        let Some(shape) = ty.shape.as_const() else {
            let span = self.tree[id].span;
            self.error(codes::BAD_TYPE, span, "extents are constants at this level");
            return None;
        };
        let (layout, name) = self.layout(id, &shape, entries)?;
        Some(Written { ty, layout, name })
    }

    pub(super) fn layout(
        &mut self,
        id: ExprId,
        shape: &[u64],
        entries: &'t [g::Attr],
    ) -> Option<(Layout, Option<Arc<str>>)> {
        let tree = self.tree;
        let grid = entries.iter().find(|e| &tree[e.key.text] == "grid");
        let Some(ExprKind::Symbol(grid)) = grid.map(|e| tree[e.value].kind) else {
            return self.wrong(id, "expected `grid = @name` in the layout");
        };
        let grid = self.grid_of(&grid)?;
        let mut layout = Layout::replicated(grid, shape);
        let mut name = None;
        for entry in entries {
            match (&tree[entry.key.text], tree[entry.value].kind) {
                ("grid", _) => {}
                ("name", ExprKind::Str(text)) => name = Some(tree[text].into()),
                ("dims", ExprKind::List(dims)) => {
                    let dims = tree[dims].iter().map(|d| self.split(grid, *d));
                    (layout.view, layout.splits) =
                        dims.collect::<Option<Vec<_>>>()?.into_iter().unzip();
                }
                ("pending", ExprKind::Dict(axes)) => {
                    let axes = tree[axes].iter().map(|a| self.pending(grid, a));
                    layout.pending = axes.collect::<Option<_>>()?;
                }
                ("packing", ExprKind::Ident(word))
                    if named(&Packing::ALL, &tree[word]).is_some() =>
                {
                    layout.packing = named(&Packing::ALL, &tree[word]).unwrap_or_default();
                }
                ("micro_batch", _) => {
                    let number = self.count(entry.value)?;
                    let Ok(number) = u32::try_from(number) else {
                        return self.wrong(entry.value, "the number is too large");
                    };
                    layout.micro_batch = Some(number);
                }
                (key, _) => {
                    let message = format!("a layout has no entry `{key}` of this kind");
                    self.error(codes::BAD_DECLARATION, entry.span, message);
                    return None;
                }
            }
        }
        Some((layout, name))
    }

    /// A dim of a layout: its extent, or `split(extent, [axes], {of, unit, stride, low, high})`.
    pub(super) fn split(&mut self, grid: GridId, id: ExprId) -> Option<(u64, Split)> {
        let tree = self.tree;
        let ExprKind::Call { name, args } = tree[id].kind else {
            let extent = self.count(id)?;
            return Some((extent, Split::whole(extent)));
        };
        let (extent, axes, entries) = match (&tree[name], &tree[args]) {
            ("split", [extent, axes]) => (*extent, *axes, &[][..]),
            ("split", [extent, axes, more]) => match tree[*more].kind {
                ExprKind::Dict(entries) => (*extent, *axes, &tree[entries]),
                _ => return self.wrong(*more, "expected a dictionary"),
            },
            _ => return self.wrong(id, "expected an extent or `split(extent, [axes])`"),
        };
        let extent = self.count(extent)?;
        let mut split = Split::over(self.axes(grid, axes)?, extent, 1);
        for entry in entries {
            match &tree[entry.key.text] {
                "of" => split.extent = self.count(entry.value)?,
                "unit" => split.unit = self.count(entry.value)?,
                "stride" => split.stride = self.count(entry.value)?,
                "low" => split.low = self.signed(entry.value)?,
                "high" => split.high = self.signed(entry.value)?,
                key => return self.wrong(entry.value, format!("a split has no entry `{key}`")),
            }
        }
        Some((extent, split))
    }

    pub(super) fn pending(&mut self, grid: GridId, attr: &g::Attr) -> Option<Pending> {
        let tree = self.tree;
        let axis = self.axis_of(grid, &tree[attr.key.text], attr.key.span)?;
        let monoid = self.word(attr.value).and_then(|w| named(&MONOIDS, w));
        match monoid {
            Some(monoid) => Some(Pending { axis, monoid }),
            None => self.wrong(attr.value, "expected a combination such as `sum` or `max`"),
        }
    }
}
