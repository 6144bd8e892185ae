//! Reads the text form of a module.
//!
//! Every mistake of the text is reported with its place; what the verifier checks is left to it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use dojoc_grammar as g;
use dojoc_grammar::{ExprId, ExprKind, Tree};

use super::text::{Rule, traffic};
use super::{Entity, Exchange, Flow, Module, Schedule, Storage};
use crate::attr::{AttrField as _, Number};
use crate::codes;
use crate::diag::Diagnostics;
use crate::entity::PrimaryMap;
use crate::graph::declare::range;
use crate::graph::text::syntax_errors;
use crate::machine::CoreAddress;
use crate::program::RouteRule;
use crate::tiled::parse::{Reader as TiledReader, Scope};
use crate::tiled::text::named;
use crate::tiled::{self, FuncId, Stmt, ValueId};

/// Where in the text the parts of a module stand, as byte ranges.
pub type SourceMap = BTreeMap<Entity, Range<usize>>;

/// The most cores of a schedule, about twice those of the largest machine.
const MAX_PLACES: usize = 1 << 21;

/// Reads a module and where its parts stand in the text.
///
/// # Errors
/// All syntax errors, or if there are none, all unknown names and attributes, malformed
/// declarations, and exchanges that do not follow from the layouts as they say.
pub fn parse(text: &str) -> Result<(Module, SourceMap), Diagnostics> {
    let parsed = g::parse(text);
    if !parsed.errors.is_empty() {
        return Err(syntax_errors(&parsed.errors));
    }
    let header = ("mesh", super::TEXT_VERSION);
    let mut reader = Reader {
        tree: &parsed.tree,
        tiled: TiledReader::new(&parsed.tree, header, Some("schedule")),
        map: SourceMap::new(),
    };
    reader.tiled.file();
    let tiled_map = std::mem::take(&mut reader.tiled.map).into_iter();
    reader
        .map
        .extend(tiled_map.map(|(entity, span)| (Entity::Tiled(entity), span)));
    let schedules = reader.schedules();
    let Reader { tiled, map, .. } = reader;
    let module = Module {
        tiled: tiled.module,
        schedules,
    };
    tiled.decls.into_errors().ok((module, map))
}

struct Reader<'t> {
    tree: &'t Tree,
    tiled: TiledReader<'t>,
    map: SourceMap,
}

/// A schedule as it is read.
struct Reading<'t> {
    id: FuncId,
    scope: Scope<'t>,
    schedule: Schedule,
    /// Exchanges that follow from the layouts, by position, with what is said of their stages.
    by_rule: Vec<(usize, g::Span, Option<ExprId>)>,
}

impl<'t> Reader<'t> {
    fn wrong<T>(&mut self, id: ExprId, message: impl Into<String>) -> Option<T> {
        self.tiled.wrong(id, message)
    }

    fn error<T>(&mut self, code: u16, span: g::Span, message: impl Into<String>) -> Option<T> {
        self.tiled.error(code, span, message);
        None
    }

    fn schedules(&mut self) -> PrimaryMap<FuncId, Schedule> {
        let tree = self.tree;
        let mut found = BTreeMap::new();
        let mut by_rule = vec![];
        for decl in std::mem::take(&mut self.tiled.others) {
            let name = &tree[decl.symbol.text];
            let functions = &self.tiled.module.functions;
            let Some(id) = functions.ids().find(|id| &*functions[*id].name == name) else {
                let message = format!("there is no function `@{name}`");
                self.tiled
                    .error(codes::UNKNOWN_NAME, decl.symbol.span, message);
                continue;
            };
            let Some(read) = self.schedule(id, decl) else {
                continue;
            };
            self.map
                .insert(Entity::Schedule(id), range(decl.symbol.span));
            by_rule.extend(
                read.by_rule
                    .into_iter()
                    .map(|(at, span, stages)| (id, at, span, stages)),
            );
            if found.insert(id, read.schedule).is_some() {
                let message = format!("`@{name}` has two schedules");
                self.tiled
                    .error(codes::DUPLICATE_NAME, decl.symbol.span, message);
            }
        }
        // What is not read right has no flows.
        if self.tiled.decls.error_count() == 0 {
            self.follow(&mut found, by_rule);
        }
        let mut schedules = PrimaryMap::new();
        let functions: Vec<_> = self.tiled.module.functions.ids().collect();
        for id in functions {
            match found.remove(&id) {
                Some(schedule) => {
                    schedules.push(schedule);
                }
                None => {
                    let name = self.tiled.module.functions[id].name.clone();
                    let span = self.map.get(&Entity::Tiled(tiled::Entity::Func(id)));
                    let span = span.map_or(g::Span::default(), |s| g::Span {
                        start: s.start as u32,
                        end: s.end as u32,
                    });
                    let message = format!("function `@{name}` has no schedule");
                    self.tiled.error(codes::BAD_STRUCTURE, span, message);
                }
            }
        }
        schedules
    }

    /// Finds the flows of exchanges that are given by the layouts.
    fn follow(
        &mut self,
        found: &mut BTreeMap<FuncId, Schedule>,
        by_rule: Vec<(FuncId, usize, g::Span, Option<ExprId>)>,
    ) {
        let tree = self.tree;
        let module = std::mem::take(&mut self.tiled.module);
        let mut rule = Rule::new(&module.grids);
        for (id, at, span, stages) in by_rule {
            let function = &module.functions[id];
            let Some(schedule) = found.get_mut(&id) else {
                continue;
            };
            let Some((stmt, slot)) = schedule.exchanges.get_mut(at) else {
                continue;
            };
            let Some(Stmt::Reshard(reshard)) = function.bodies[function.body()].stmts.get(*stmt)
            else {
                let message = "the statement is not a reshard, so nothing gives its flows";
                self.tiled.error(codes::BAD_EXCHANGE, span, message);
                continue;
            };
            let (from, to) = (
                &function.values[reshard.input],
                &function.values[reshard.output],
            );
            match rule.exchange(&from.layout, &to.layout) {
                Ok(exchange) => *slot = exchange.clone(),
                Err(cause) => {
                    self.tiled
                        .error(codes::BAD_EXCHANGE, span, cause.to_string());
                    continue;
                }
            }
            let Some(stages) = stages else { continue };
            let items = self.tiled.list(stages).unwrap_or_default();
            if items.len() != slot.stages.len() {
                let (count, written) = (slot.stages.len(), items.len());
                let message = format!("by the layouts it has {count} stages, not {written}");
                self.tiled
                    .error(codes::BAD_EXCHANGE, tree[stages].span, message);
                continue;
            }
            for (item, flows) in items.iter().zip(&slot.stages) {
                self.told(*item, traffic(flows, from.ty.dtype.bytes()));
            }
        }
        self.tiled.module = module;
    }

    /// What is said of a stage has to be right.
    fn told(&mut self, item: ExprId, traffic: [(&'static str, u64); 5]) -> Option<()> {
        let tree = self.tree;
        let ExprKind::Dict(entries) = tree[item].kind else {
            return self.wrong(item, "expected `{flows = .., bytes = ..}`");
        };
        for entry in &tree[entries] {
            let key = &tree[entry.key.text];
            let Some((_, right)) = traffic.iter().find(|(k, _)| *k == key) else {
                return self.wrong(entry.value, format!("nothing of a stage is called `{key}`"));
            };
            let written = self.tiled.count(entry.value)?;
            if written != *right {
                let message = format!("by the layouts `{key}` is {right}");
                return self.error(codes::BAD_EXCHANGE, entry.span, message);
            }
        }
        Some(())
    }

    fn schedule(&mut self, id: FuncId, decl: &g::Decl) -> Option<Reading<'t>> {
        let tree = self.tree;
        let signature = match decl.body {
            g::Body::Func(func) if func.params.is_empty() && func.results.is_empty() => Some(func),
            _ => None,
        };
        let Some(func) = signature else {
            let message = "expected `schedule @name() { ... }`";
            return self.error(codes::BAD_DECLARATION, decl.span, message);
        };
        let mut r = Reading {
            id,
            scope: self.tiled.scopes[id].clone(),
            schedule: Schedule::default(),
            by_rule: vec![],
        };
        // Its statements come first: `bytes` is what they come to.
        for stmt in &tree[func.stmts] {
            self.stmt(&mut r, stmt);
        }
        for attr in &tree[decl.attrs] {
            match &tree[attr.key.text] {
                "route" => match self
                    .tiled
                    .word(attr.value)
                    .and_then(|w| named(&RouteRule::ALL, w))
                {
                    Some(route) => r.schedule.route = route,
                    None => self
                        .wrong(attr.value, "expected `xy` or `yx`")
                        .unwrap_or(()),
                },
                "bytes" => {
                    let right = r.schedule.sram_bytes();
                    if self.tiled.count(attr.value).is_some_and(|n| n != right) {
                        let message = format!("values and scratch memory take {right} bytes");
                        self.tiled.error(codes::BAD_STORAGE, attr.span, message);
                    }
                }
                key => {
                    let message = format!("a schedule has no attribute `{key}`");
                    self.tiled.error(codes::BAD_DECLARATION, attr.span, message);
                }
            }
        }
        Some(r)
    }

    fn stmt(&mut self, r: &mut Reading<'t>, stmt: &'t g::Stmt) -> Option<()> {
        let tree = self.tree;
        let bare = stmt.results.is_empty() && stmt.regions.is_empty() && stmt.types.is_empty();
        let word = &tree[stmt.op.text];
        let most = usize::from(matches!(word, "value" | "exchange"));
        if !bare || stmt.operands.len() > most || !stmt.locs.is_empty() {
            let message = format!("expected `{word}` with attributes alone");
            return self.error(codes::BAD_STRUCTURE, stmt.span, message);
        }
        match word {
            "place" => self.place(r, stmt),
            "value" => self.value(r, stmt),
            "exchange" => self.exchange(r, stmt),
            "stage" => self.stage(r, stmt),
            "scratch" => {
                let [at, address, bytes] = self.fields(stmt, ["stmt", "address", "bytes"], [])?.0;
                let entity = Entity::Scratch(r.id, r.schedule.scratch.len());
                self.map.insert(entity, range(stmt.span));
                let at = self.tiled.position(at)?;
                let (address, bytes) = (self.tiled.count(address)?, self.tiled.count(bytes)?);
                r.schedule.scratch.push((at, address, bytes));
                Some(())
            }
            word => {
                let message = format!(
                    "expected `place`, `value`, `exchange`, `stage` or `scratch`, found `{word}`"
                );
                self.error(codes::BAD_STRUCTURE, stmt.op.span, message)
            }
        }
    }

    /// The values of attributes that a statement must have, and of those that it may have.
    fn fields<const N: usize, const M: usize>(
        &mut self,
        stmt: &g::Stmt,
        needed: [&str; N],
        more: [&str; M],
    ) -> Option<([ExprId; N], [Option<ExprId>; M])> {
        let tree = self.tree;
        let attrs = &tree[stmt.attrs];
        let mut seen = vec![];
        for attr in attrs {
            let key = &tree[attr.key.text];
            let known = needed.contains(&key) || more.contains(&key);
            if !known || seen.contains(&key) {
                let word = &tree[stmt.op.text];
                let message = format!("`{word}` has no attribute `{key}`, or has it twice");
                return self.error(codes::BAD_ATTRIBUTE, attr.span, message);
            }
            seen.push(key);
        }
        let of = |key: &str| {
            attrs
                .iter()
                .find(|a| &tree[a.key.text] == key)
                .map(|a| a.value)
        };
        let mut values = vec![];
        for key in needed {
            match of(key) {
                Some(value) => values.push(value),
                None => {
                    let message = format!("expected `{key}`");
                    return self.error(codes::BAD_ATTRIBUTE, stmt.span, message);
                }
            }
        }
        Some((values.try_into().ok()?, more.map(of)))
    }

    fn counts(&mut self, id: ExprId) -> Option<Vec<u64>> {
        let items = self.tiled.list(id)?;
        items.iter().map(|item| self.tiled.count(*item)).collect()
    }

    fn site(&mut self, id: ExprId) -> Option<CoreAddress> {
        let numbers = self.counts(id)?;
        let numbers: Option<Vec<u32>> = numbers.iter().map(|n| u32::try_from(*n).ok()).collect();
        match numbers.as_deref() {
            Some(&[chip, row, column]) => Some(CoreAddress { chip, row, column }),
            _ => self.wrong(id, "expected `[chip, row, column]`"),
        }
    }

    /// A core's place, or those of neighbours in a row or column.
    fn place(&mut self, r: &mut Reading<'t>, stmt: &g::Stmt) -> Option<()> {
        let ([core, at], [last, to]) = self.fields(stmt, ["core", "at"], ["last", "to"])?;
        let first = self.tiled.position(core)?;
        if first != r.schedule.places.len() {
            let message = format!("the next core is {}", r.schedule.places.len());
            return self.wrong(core, message);
        }
        self.map
            .insert(Entity::Place(r.id, first), range(stmt.span));
        let mut site = self.site(at)?;
        r.schedule.places.push(site);
        let (last, to) = match (last, to) {
            (None, None) => return Some(()),
            (Some(last), Some(to)) => (last, to),
            _ => return self.wrong(at, "`last` and `to` belong together"),
        };
        let (count, end) = (self.tiled.position(last)?, self.site(to)?);
        let count = count.checked_sub(first).filter(|n| *n < MAX_PLACES);
        let hops = site.row.abs_diff(end.row) as usize + site.column.abs_diff(end.column) as usize;
        let in_line = site.row == end.row || site.column == end.column;
        if count != Some(hops) || !in_line || site.chip != end.chip {
            return self.wrong(to, "a run is of neighbours in a row or column of a chip");
        }
        if r.schedule.places.len() + hops > MAX_PLACES {
            return self.wrong(last, format!("a schedule has at most {MAX_PLACES} cores"));
        }
        let toward = |from: u32, to: u32| match from.cmp(&to) {
            std::cmp::Ordering::Less => from + 1,
            std::cmp::Ordering::Equal => from,
            std::cmp::Ordering::Greater => from - 1,
        };
        for _ in 0..hops {
            site.row = toward(site.row, end.row);
            site.column = toward(site.column, end.column);
            r.schedule.places.push(site);
        }
        Some(())
    }

    fn operand(&mut self, r: &Reading<'t>, name: &g::Name) -> Option<ValueId> {
        let found = r.scope.value(self.tree, name);
        if found.is_none() {
            let text = &self.tree[name.text];
            let message = format!("the function has no value `%{text}`");
            return self.error(codes::UNKNOWN_NAME, name.span, message);
        }
        found
    }

    fn value(&mut self, r: &mut Reading<'t>, stmt: &g::Stmt) -> Option<()> {
        let tree = self.tree;
        let [operand] = &tree[stmt.operands] else {
            return self.error(codes::BAD_STRUCTURE, stmt.span, "expected `value %x {..}`");
        };
        let value = self.operand(r, &operand.name)?;
        let needed = ["address", "bytes", "strides", "live"];
        let ([address, bytes, strides, live], [alias, fill]) =
            self.fields(stmt, needed, ["alias", "fill"])?;
        let strides = self.tiled.list(strides)?;
        let strides = strides
            .iter()
            .map(|item| self.tiled.signed(*item))
            .collect::<Option<_>>()?;
        let live = match self.counts(live)?.as_slice() {
            [start, end] => usize::try_from(*start).ok()?..usize::try_from(*end).ok()?,
            _ => return self.wrong(live, "expected `[first, end]`"),
        };
        let alias = match alias.map(|id| (id, tree[id].kind)) {
            None => None,
            Some((_, ExprKind::Value(name))) => Some(self.operand(r, &name)?),
            Some((id, _)) => return self.wrong(id, "expected a value"),
        };
        let fill = match fill {
            None => None,
            Some(id) => Some(self.number(stmt, id)?),
        };
        let storage = Storage {
            address: self.tiled.count(address)?,
            bytes: self.tiled.count(bytes)?,
            strides,
            live,
            alias,
            fill,
        };
        self.map
            .insert(Entity::Storage(r.id, value), range(stmt.span));
        if r.schedule.storage.insert(value, storage).is_some() {
            let name = &tree[operand.name.text];
            let message = format!("value `%{name}` lies at two places");
            return self.error(codes::DUPLICATE_NAME, stmt.span, message);
        }
        Some(())
    }

    fn number(&mut self, stmt: &g::Stmt, id: ExprId) -> Option<Number> {
        let tree = self.tree;
        let attr = tree[stmt.attrs].iter().find(|a| a.value == id)?;
        let read = self.tiled.decls.exprs.attrs(std::slice::from_ref(attr))?;
        match Number::from_attr(read.get(&tree[attr.key.text])) {
            Ok(number) => Some(number),
            Err(message) => self.wrong(id, message),
        }
    }

    fn exchange(&mut self, r: &mut Reading<'t>, stmt: &g::Stmt) -> Option<()> {
        let tree = self.tree;
        let ([at], [view, stages]) = self.fields(stmt, ["stmt"], ["view", "stages"])?;
        let at = self.tiled.position(at)?;
        if let [operand] = &tree[stmt.operands] {
            let value = self.operand(r, &operand.name)?;
            let function = &self.tiled.module.functions[r.id];
            let made = match function.bodies[function.body()].stmts.get(at) {
                Some(Stmt::Reshard(reshard)) => Some(reshard.output),
                _ => None,
            };
            if made != Some(value) {
                let name = &tree[operand.name.text];
                let message = format!("statement {at} is not the reshard that makes `%{name}`");
                return self.error(codes::BAD_EXCHANGE, stmt.span, message);
            }
        }
        let position = r.schedule.exchanges.len();
        self.map
            .insert(Entity::Exchange(r.id, position), range(stmt.span));
        let mut exchange = Exchange::default();
        match (view, stages) {
            (Some(view), None) => exchange.view = self.counts(view)?,
            (Some(view), Some(_)) => {
                return self.wrong(view, "an exchange has a `view` and `stage`s, or `stages`");
            }
            (None, stages) => r.by_rule.push((position, stmt.span, stages)),
        }
        r.schedule.exchanges.push((at, exchange.into()));
        Some(())
    }

    /// Flows of the exchange before.
    fn stage(&mut self, r: &mut Reading<'t>, stmt: &g::Stmt) -> Option<()> {
        let ([flows], []) = self.fields(stmt, ["flows"], [])?;
        let items = self.tiled.list(flows)?;
        let flows = items
            .iter()
            .map(|item| self.flow(*item))
            .collect::<Option<Vec<_>>>()?;
        let last = r.schedule.exchanges.len().checked_sub(1);
        let follows = r.by_rule.last().is_some_and(|(at, ..)| Some(*at) == last);
        match r.schedule.exchanges.last_mut() {
            Some((_, exchange)) if !follows => Arc::make_mut(exchange).stages.push(flows),
            _ => {
                let message = "a `stage` stands behind an `exchange` with a `view`";
                return self.error(codes::BAD_STRUCTURE, stmt.span, message);
            }
        }
        Some(())
    }

    fn flow(&mut self, id: ExprId) -> Option<Flow> {
        let tree = self.tree;
        if let ExprKind::Call { name, args } = tree[id].kind
            && let word @ ("send" | "forward") = &tree[name]
            && let [from, to, start, size] = &tree[args]
        {
            let (from_core, to_core) = (self.tiled.count(*from)?, self.tiled.count(*to)?);
            let (start, size) = (self.counts(*start)?, self.counts(*size)?);
            let number = |n: u64| u32::try_from(n).ok();
            if let (Some(from), Some(to)) = (number(from_core), number(to_core)) {
                return Some(Flow {
                    from,
                    to,
                    start,
                    size,
                    forwarded: word == "forward",
                });
            }
        }
        self.wrong(
            id,
            "expected `send(from, to, [start], [size])` or `forward(..)`",
        )
    }
}
