//! Sets of cores, channels and DRAM regions.

use std::sync::Arc;

use dojoc_grammar as g;
use dojoc_grammar::ExprKind;

use super::expr::Counters;
use super::fields::{Fields, all};
use super::{Context, Reader};
use crate::codes;
use crate::machine::CoreAddress;
use crate::program::{
    CoreBox, DramRegion, Family, IndexExpr, Route, RouteOverride, RouteRule, Span,
};

impl<'t> Reader<'t> {
    pub(super) fn family(&mut self, name: Arc<str>, decl: &g::Decl) -> Family {
        let loc = self.loc(decl.locs);
        let cx = &self.cx;
        let known = [
            "from",
            "to",
            "ports",
            "peer",
            "peer_port",
            "branches",
            "route",
            "overrides",
        ];
        let fields = Fields::new(cx, "a channel", decl.symbol.span, decl.attrs, &known);
        let region = |key| {
            let id = fields.required(key).and_then(|e| cx.region(e));
            id.unwrap_or_else(|| crate::entity::EntityId::from_index(0))
        };
        let index = |e| cx.index(e, &Counters::default());
        let zero = || IndexExpr::constant(0);
        let rule = fields
            .get("route")
            .and_then(|e| cx.one_of(e, &RouteRule::ALL));
        let overrides = fields.get("overrides").and_then(|e| cx.overrides(e));
        Family {
            name,
            from: region("from"),
            to: region("to"),
            ports: fields.get("ports").and_then(|e| cx.small(e)).unwrap_or(1),
            peer: fields.required("peer").and_then(index).unwrap_or_else(zero),
            peer_port: fields.get("peer_port").and_then(index).unwrap_or_else(zero),
            branches: fields
                .get("branches")
                .and_then(|e| cx.small(e))
                .unwrap_or(1),
            route: Route {
                rule: rule.unwrap_or_default(),
                overrides: overrides.unwrap_or_default(),
            },
            loc,
        }
    }
}

impl<'t> Context<'t> {
    pub(super) fn dram(&self, name: Arc<str>, decl: &g::Decl) -> DramRegion {
        let known = ["owners", "dip", "bytes", "readers"];
        let fields = Fields::new(self, "a DRAM region", decl.symbol.span, decl.attrs, &known);
        let dip = fields
            .required("dip")
            .and_then(|e| self.index(e, &Counters::default()));
        DramRegion {
            name,
            owners: fields.get("owners").and_then(|e| self.region(e)),
            dip: dip.unwrap_or_else(|| IndexExpr::constant(0)),
            bytes: fields
                .required("bytes")
                .and_then(|e| self.uint(e))
                .unwrap_or(0),
            readers: fields
                .get("readers")
                .and_then(|e| self.small(e))
                .unwrap_or(0),
        }
    }

    pub(super) fn boxes(&self, decl: &g::Decl) -> Option<Vec<CoreBox>> {
        all(self.list(decl.init?)?, |item| {
            let message = "expected `box(chips, rows, columns)`";
            let ExprKind::Call { name, args } = self.tree[*item].kind else {
                return self.error(codes::BAD_DECLARATION, self.tree[*item].span, message);
            };
            let [chips, rows, columns] = self.tree[args] else {
                return self.error(codes::BAD_DECLARATION, self.tree[*item].span, message);
            };
            if &self.tree[name] != "box" {
                return self.error(codes::BAD_DECLARATION, self.tree[*item].span, message);
            }
            let [chips, rows, columns] = [chips, rows, columns].map(|e| self.span(e));
            Some(CoreBox {
                chips: chips?,
                rows: rows?,
                columns: columns?,
            })
        })
    }

    /// A number, `[start, count]` or `[start, count, step]`.
    fn span(&self, id: g::ExprId) -> Option<Span> {
        let ExprKind::List(items) = self.tree[id].kind else {
            return self.small(id).map(Span::one);
        };
        match self.tree[items] {
            [start, count] => Some(Span::of(self.small(start)?, self.small(count)?)),
            [start, count, step] => {
                let (start, count) = (self.small(start)?, self.small(count)?);
                let Ok(step) = i32::try_from(self.int(step)?) else {
                    return self.error(
                        codes::BAD_DECLARATION,
                        self.tree[step].span,
                        "a step has 32 bits",
                    );
                };
                Some(Span { start, count, step })
            }
            _ => {
                let message = "expected a number, `[start, count]` or `[start, count, step]`";
                self.error(codes::BAD_DECLARATION, self.tree[id].span, message)
            }
        }
    }

    fn overrides(&self, id: g::ExprId) -> Option<Vec<RouteOverride>> {
        let form = "expected `[sender, port, [[chip, row, column], ..]]`";
        let wrong = |id: g::ExprId| self.error(codes::BAD_ATTRIBUTE, self.tree[id].span, form);
        let site = |id: &g::ExprId| match self.list(*id)? {
            [chip, row, column] => Some(CoreAddress {
                chip: self.small(*chip)?,
                row: self.small(*row)?,
                column: self.small(*column)?,
            }),
            _ => self.error(codes::BAD_ATTRIBUTE, self.tree[*id].span, form),
        };
        let item = |id: &g::ExprId| match self.list(*id)? {
            [sender, port, sites] => Some(RouteOverride {
                sender: self.uint(*sender)?,
                port: self.small(*port)?,
                sites: all(self.list(*sites)?, site)?,
            }),
            _ => wrong(*id),
        };
        all(self.list(id)?, item)
    }
}
