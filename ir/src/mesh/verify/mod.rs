//! Checks a module. The rules, beside those of the TILED module that it schedules:
//!
//! - every core of a grid has a place, no two cores have the same, and with [`verify_on`] the places
//!   are live cores of the machine;
//! - every value lies in memory that its windows fit into, with [`verify_on`] in that of a core;
//! - its life holds every statement that makes or uses it, so that nothing else has its bytes;
//! - values that live at the same time on the same core lie apart, scratch memory does too;
//! - a view has the bytes of its value, and nothing else has those of another one;
//! - every reshard has one exchange, whose flows bring every core its block, each element once, from
//!   cores that have it, over at most 64 peers at a time.

mod exchange;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use super::{Entity, Module, Schedule, SourceMap, Storage};
use crate::codes;
use crate::diag::{Diagnostic, Diagnostics, Kind, Place};
use crate::level::{self, Level};
use crate::machine::Machine;
use crate::program::ViewType;
use crate::tiled::{self, AxisLevel, FuncId, Function, Stmt, ValueDef, ValueId};

/// Bytes at multiples of which values and scratch memory begin.
pub const ALIGNMENT: u64 = 64;

/// A broken rule.
pub type Violation = level::Violation<Entity>;

impl Violation {
    /// The violation as a diagnostic: placed in the text if `map` knows the entity, else at the
    /// node of the user's model. What breaks a rule here is not the user's model but its mapping,
    /// which is ours unless it was written by hand.
    pub fn into_diagnostic(self, module: &Module, map: &SourceMap) -> Diagnostic {
        if let Entity::Tiled(entity) = self.entity {
            let violation = tiled::Violation {
                entity,
                code: self.code,
                message: self.message,
            };
            let spans = map.iter().filter_map(|(entity, span)| match entity {
                Entity::Tiled(entity) => Some((*entity, span.clone())),
                _ => None,
            });
            return violation.into_diagnostic(&module.tiled, &spans.collect());
        }
        let diagnostic = Diagnostic::new(self.code, Kind::Input, self.message);
        let span = match self.entity {
            // A run of places stands under its first core.
            Entity::Place(func, _) => (map.range(Entity::Place(func, 0)..=self.entity))
                .next_back()
                .map(|(_, span)| span),
            entity => map.get(&entity),
        };
        match span {
            Some(span) => diagnostic.at_span(span.clone()),
            None => match place(module, self.entity) {
                Some(place) => diagnostic.at(place),
                None => diagnostic,
            },
        }
    }
}

/// The node of the user's model that an entity comes from.
fn place(module: &Module, entity: Entity) -> Option<Place> {
    let (func, at) = match entity {
        Entity::Exchange(func, at) => (func, module.schedules.get(func)?.exchanges.get(at)?.0),
        Entity::Scratch(func, at) => (func, module.schedules.get(func)?.scratch.get(at)?.0),
        Entity::Storage(func, value) => {
            let function = module.tiled.functions.get(func)?;
            let body = function.bodies.get(function.body())?;
            let at = body
                .stmts
                .iter()
                .position(|s| made_by(s).contains(&value))?;
            (func, at)
        }
        Entity::Tiled(_) | Entity::Schedule(_) | Entity::Place(..) => return None,
    };
    let function = module.tiled.functions.get(func)?;
    let loc = match function.bodies.get(function.body())?.stmts.get(at)? {
        Stmt::Group(group) => group.steps.first()?.loc.clone(),
        Stmt::Reshard(reshard) => reshard.loc.clone(),
        Stmt::View { loc, .. } => loc.clone(),
        Stmt::Repeat(repeat) => repeat.loc.clone(),
    };
    loc.map(Place::Node)
}

impl Level for Module {
    const NAME: &'static str = "mesh";

    fn parse(text: &str) -> Result<Self, Diagnostics> {
        super::parse(text).map(|(module, _)| module)
    }

    fn verify(&self) -> Result<(), Diagnostics> {
        diagnostics(self, verify(self), &SourceMap::new())
    }
}

/// Violations as diagnostics.
///
/// # Errors
/// If there are any.
pub fn diagnostics(
    module: &Module,
    violations: Vec<Violation>,
    map: &SourceMap,
) -> Result<(), Diagnostics> {
    let violations = violations.into_iter();
    Diagnostics(violations.map(|v| v.into_diagnostic(module, map)).collect()).ok(())
}

/// All broken rules of a module, in order of the module. If its TILED module breaks any, only these.
pub fn verify(module: &Module) -> Vec<Violation> {
    schedules(module, tiled::verify(&module.tiled), None)
}

/// As [`verify`], and that places and memory exist on a machine.
pub fn verify_on(module: &Module, machine: &Machine) -> Vec<Violation> {
    let of_tiled = tiled::verify_on(&module.tiled, machine);
    schedules(module, of_tiled, Some(machine))
}

fn schedules(
    module: &Module,
    of_tiled: Vec<tiled::Violation>,
    machine: Option<&Machine>,
) -> Vec<Violation> {
    if !of_tiled.is_empty() {
        let here = |v: tiled::Violation| Violation {
            entity: Entity::Tiled(v.entity),
            code: v.code,
            message: v.message,
        };
        return of_tiled.into_iter().map(here).collect();
    }
    let mut violations = vec![];
    for (id, function) in module.tiled.functions.iter() {
        let mut v = Verifier {
            module,
            id,
            function,
            machine,
            violations: vec![],
        };
        match module.schedules.get(id) {
            Some(schedule) => v.schedule(schedule),
            None => {
                let message = format!("function `{}` has no schedule", function.name);
                v.report(Entity::Schedule(id), codes::CORRUPT, message);
            }
        }
        violations.append(&mut v.violations);
    }
    violations
}

/// Values that a statement makes.
fn made_by(stmt: &Stmt) -> Vec<ValueId> {
    tiled::operands_and_results(stmt).1
}

struct Verifier<'a> {
    module: &'a Module,
    id: FuncId,
    function: &'a Function,
    machine: Option<&'a Machine>,
    violations: Vec<Violation>,
}

impl<'a> Verifier<'a> {
    fn report(&mut self, entity: Entity, code: u16, message: impl Into<String>) {
        self.violations.push(Violation {
            entity,
            code,
            message: message.into(),
        });
    }

    fn storage_error(&mut self, value: ValueId, code: u16, message: impl fmt::Display) {
        let message = format!("{}: {message}", self.name(value));
        self.report(Entity::Storage(self.id, value), code, message);
    }

    /// A value in messages.
    fn name(&self, value: ValueId) -> String {
        match self
            .function
            .values
            .get(value)
            .and_then(|v| v.name.as_ref())
        {
            Some(name) => format!("`{name}`"),
            None => format!(
                "the unnamed value {}",
                value.to_string().trim_start_matches('%')
            ),
        }
    }

    fn schedule(&mut self, schedule: &'a Schedule) {
        let body = self.function.body();
        let stmts = &self.function.bodies[body].stmts;
        if let Some(at) = stmts.iter().position(|s| matches!(s, Stmt::Repeat(_))) {
            let entity = Entity::Tiled(tiled::Entity::Stmt(self.id, body, at));
            let message = "values of loops have no places yet";
            return self.report(entity, codes::BAD_STORAGE, message);
        }
        self.places(schedule);
        let before = self.violations.len();
        for (value, storage) in &schedule.storage {
            self.storage(*value, storage);
        }
        for value in self.function.values.ids() {
            if !schedule.storage.contains_key(&value) {
                self.storage_error(value, codes::BAD_STORAGE, "it lies nowhere");
            }
        }
        self.scratch(schedule);
        // What lies nowhere or overflows has no place beside others.
        if self.violations.len() == before {
            self.lives(schedule);
            self.aliases(schedule);
            self.overlaps(schedule);
        }
        self.exchanges(schedule);
    }

    /// Numbers of the cores of a value.
    fn cores(&self, value: ValueId) -> Range<u64> {
        let grid = &self.module.tiled.grids[self.function.values[value].layout.grid];
        grid.first..grid.first.saturating_add(grid.size())
    }

    fn places(&mut self, schedule: &Schedule) {
        let mut seen = BTreeMap::new();
        for (core, place) in schedule.places.iter().enumerate() {
            let entity = Entity::Place(self.id, core);
            if let Some(other) = seen.insert(*place, core) {
                let message = format!("cores {other} and {core} are both at {place}");
                self.report(entity, codes::BAD_PLACE, message);
            }
            if let Some(machine) = self.machine.filter(|m| !m.is_live(*place)) {
                let message = format!(
                    "core {core} is at {place}, where {} has no live core",
                    machine.name
                );
                self.report(entity, codes::BAD_PLACE, message);
            }
        }
        let used: BTreeSet<_> = self
            .function
            .values
            .values()
            .map(|v| v.layout.grid)
            .collect();
        for id in used {
            let grid = &self.module.tiled.grids[id];
            let entity = Entity::Schedule(self.id);
            if grid
                .axes
                .iter()
                .any(|a| a.level != AxisLevel::Core && a.size > 1)
            {
                let message = format!(
                    "grid `{}` has several chips, which have no places yet",
                    grid.name
                );
                self.report(entity, codes::BAD_PLACE, message);
            }
            let end = grid.first.saturating_add(grid.size());
            if end > schedule.places.len() as u64 {
                let count = schedule.places.len();
                let message = format!(
                    "grid `{}` has cores up to number {end}, of which {count} have places",
                    grid.name
                );
                self.report(entity, codes::BAD_PLACE, message);
            }
        }
    }

    /// A value's memory by itself.
    fn storage(&mut self, value: ValueId, storage: &Storage) {
        let Some(data) = self.function.values.get(value) else {
            let message = format!("{value} lies somewhere but does not exist");
            return self.report(Entity::Schedule(self.id), codes::CORRUPT, message);
        };
        if !storage.address.is_multiple_of(ALIGNMENT) {
            let message = format!("address {} is no multiple of {ALIGNMENT}", storage.address);
            self.storage_error(value, codes::BAD_STORAGE, message);
        }
        let grid = &self.module.tiled.grids[data.layout.grid];
        let window = data.layout.largest_window(grid);
        if storage.strides.len() != window.len() {
            let message = format!(
                "{} strides for {} dims",
                storage.strides.len(),
                window.len()
            );
            return self.storage_error(value, codes::BAD_STORAGE, message);
        }
        let view = ViewType {
            dtype: data.ty.dtype,
            shape: window,
            strides: storage.strides.clone(),
            packing: data.layout.packing,
        };
        if !view.shape.contains(&0) {
            match view.extent() {
                Some((0, end)) if end.unsigned_abs() <= storage.bytes => {}
                extent => {
                    let bytes = storage.bytes;
                    let needed = match extent {
                        Some((first, end)) => format!("bytes {first} to {end}"),
                        None => "more bytes than can be counted".into(),
                    };
                    let message = format!(
                        "a window of {:?} takes {needed} of its {bytes} bytes",
                        view.shape
                    );
                    self.storage_error(value, codes::BAD_STORAGE, message);
                }
            }
            if !view.distinct_places() {
                let message = format!(
                    "strides {:?} give elements of a window of {:?} the same bytes",
                    storage.strides, view.shape
                );
                self.storage_error(value, codes::BAD_STORAGE, message);
            }
        }
        self.fits(
            Entity::Storage(self.id, value),
            &self.name(value),
            storage.address,
            storage.bytes,
        );
    }

    fn fits(&mut self, entity: Entity, what: &str, address: u64, bytes: u64) {
        let size = self.machine.map_or(u64::MAX >> 1, Machine::core_sram_bytes);
        let end = address.saturating_add(bytes);
        if end > size {
            let message = format!("{what} ends at byte {end}, a core has {size}");
            self.report(entity, codes::BEYOND_SRAM, message);
        }
    }

    fn scratch(&mut self, schedule: &Schedule) {
        let stmts = self.function.bodies[self.function.body()].stmts.len();
        let mut seen = BTreeSet::new();
        for (number, (at, address, bytes)) in schedule.scratch.iter().enumerate() {
            let entity = Entity::Scratch(self.id, number);
            let mut wrong = |message: String| self.report(entity, codes::BAD_SCRATCH, message);
            if *at >= stmts {
                wrong(format!("there is no statement {at}, the body has {stmts}"));
            }
            if !seen.insert(*at) {
                wrong(format!("statement {at} has scratch memory already"));
            }
            if !address.is_multiple_of(ALIGNMENT) {
                wrong(format!("address {address} is no multiple of {ALIGNMENT}"));
            }
            let what = format!("scratch memory of statement {at}");
            self.fits(entity, &what, *address, *bytes);
        }
    }

    /// That lives hold all that happens to the values.
    fn lives(&mut self, schedule: &Schedule) {
        let body = &self.function.bodies[self.function.body()];
        let end = body.stmts.len() + 1;
        let mut needed = BTreeMap::<ValueId, Range<usize>>::new();
        let mut need = |value: ValueId, at: Range<usize>| {
            let range = needed.entry(value).or_insert_with(|| at.clone());
            *range = range.start.min(at.start)..range.end.max(at.end);
        };
        for (value, data) in self.function.values.iter() {
            match data.def {
                ValueDef::Param(..) => need(value, 0..1),
                // They are there when a run begins and when the next one does.
                ValueDef::Weight(_) | ValueDef::State(_) => need(value, 0..end),
                ValueDef::Stmt(_) => {}
            }
        }
        for (at, stmt) in body.stmts.iter().enumerate() {
            let (used, made) = tiled::operands_and_results(stmt);
            used.into_iter()
                .chain(made)
                .for_each(|v| need(v, at..at + 1));
        }
        body.results.iter().for_each(|v| need(*v, end - 1..end));
        for (value, storage) in &schedule.storage {
            if let Some(root) = storage.alias {
                need(root, storage.live.clone());
            }
            if storage.live.end > end {
                let message = format!(
                    "it lives until {}, the body ends at {end}",
                    storage.live.end
                );
                self.storage_error(*value, codes::DEAD_VALUE, message);
            }
        }
        for (value, range) in needed {
            let Some(live) = schedule.storage.get(&value).map(|s| &s.live) else {
                continue;
            };
            if range.start < live.start || live.end < range.end {
                let message = format!("it is needed in statements {range:?} and lives in {live:?}");
                self.storage_error(value, codes::DEAD_VALUE, message);
            }
        }
    }

    /// That views, and nothing else, have the bytes of what they are views of.
    fn aliases(&mut self, schedule: &Schedule) {
        let body = &self.function.bodies[self.function.body()];
        let mut roots = BTreeMap::<ValueId, ValueId>::new();
        for stmt in &body.stmts {
            if let Stmt::View { input, output, .. } = stmt {
                let root = roots.get(input).copied().unwrap_or(*input);
                roots.insert(*output, root);
            }
        }
        for (value, storage) in &schedule.storage {
            let root = roots.get(value).copied();
            if storage.alias != root {
                let say = |v: Option<ValueId>| {
                    v.map_or("its own".into(), |v| format!("those of {}", self.name(v)))
                };
                let message = format!(
                    "its bytes are {}, by the views {}",
                    say(storage.alias),
                    say(root)
                );
                self.storage_error(*value, codes::BAD_ALIAS, message);
                continue;
            }
            let Some((root, of)) = root.and_then(|r| Some((r, schedule.storage.get(&r)?))) else {
                continue;
            };
            if storage.address != of.address || storage.bytes > of.bytes {
                let message = format!(
                    "its {} bytes at {} are not those of {}, {} at {}",
                    storage.bytes,
                    storage.address,
                    self.name(root),
                    of.bytes,
                    of.address
                );
                self.storage_error(*value, codes::BAD_ALIAS, message);
            }
        }
    }

    /// That what lives together lies apart.
    fn overlaps(&mut self, schedule: &Schedule) {
        struct Item {
            entity: Entity,
            name: String,
            live: Range<usize>,
            bytes: Range<u64>,
            cores: Range<u64>,
        }
        let roots = schedule.storage.iter().filter(|(_, s)| s.alias.is_none());
        let values = roots.map(|(value, storage)| Item {
            entity: Entity::Storage(self.id, *value),
            name: self.name(*value),
            live: storage.live.clone(),
            bytes: storage.address..storage.address + storage.bytes,
            cores: self.cores(*value),
        });
        let scratch = schedule.scratch.iter().enumerate();
        let scratch = scratch.map(|(number, (at, address, bytes))| Item {
            entity: Entity::Scratch(self.id, number),
            name: format!("scratch memory of statement {at}"),
            live: *at..*at + 1,
            bytes: *address..*address + *bytes,
            cores: 0..u64::MAX,
        });
        let mut items: Vec<Item> = values.chain(scratch).collect();
        items.retain(|item| !item.live.is_empty() && !item.bytes.is_empty());
        items.sort_by_key(|item| (item.bytes.start, item.live.start));
        for (n, a) in items.iter().enumerate() {
            let above = items[n + 1..]
                .iter()
                .take_while(|b| b.bytes.start < a.bytes.end);
            let apart = |x: &Range<u64>, y: &Range<u64>| x.end <= y.start || y.end <= x.start;
            for b in above {
                let together = a.live.start < b.live.end && b.live.start < a.live.end;
                if !together || apart(&a.cores, &b.cores) {
                    continue;
                }
                let statement = a.live.start.max(b.live.start);
                let core = a.cores.start.max(b.cores.start);
                let message = format!(
                    "at statement {statement} {} (bytes {:?}) and {} (bytes {:?}) overlap on core {core}",
                    a.name, a.bytes, b.name, b.bytes
                );
                self.report(b.entity, codes::SHARED_BYTES, message);
            }
        }
    }
}
