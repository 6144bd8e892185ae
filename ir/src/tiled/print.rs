//! The text form of a module.
//!
//! A value prints under its name if it is the first of that name in the text, else under a number, and
//! then its name stands in its layout. Printing never fails, not even on IR that breaks its rules: what
//! does not exist prints as `?`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use dojoc_grammar::{quote, quote_name};

use super::text::{MONOIDS, RESHARD_KINDS, name_of};
use super::{
    AxisLevel, Body, BodyId, FuncId, Function, Grid, Group, Layout, Module, Split, Step, Stmt,
    Temporal, ValueDef, ValueId,
};
use crate::diag::Loc;
use crate::graph::print::{DisplayState, DisplayWeight, format_loc};
use crate::program::Packing;

/// Loops nested deeper than this print as `...`; the verifier refuses them.
const MAX_DEPTH: usize = 64;

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_module(f, self, ("tiled", super::TEXT_VERSION), |_, _, _| Ok(()))
    }
}

/// Prints a module under the header of a level, with what the level says behind each function.
pub(crate) fn write_module(
    f: &mut fmt::Formatter<'_>,
    module: &Module,
    (level, version): (&str, u32),
    mut behind: impl FnMut(&mut fmt::Formatter<'_>, FuncId, &Printer<'_>) -> fmt::Result,
) -> fmt::Result {
    writeln!(f, "dojo {level} {version}\n")?;
    let name = quote_name(&module.name);
    let machine = quote(&module.machine);
    writeln!(f, "module @{name} {{machine = {machine}}} {{")?;
    for grid in module.grids.values() {
        writeln!(f, "  {}", format_grid(grid))?;
    }
    for weight in module.weights.values() {
        writeln!(f, "  {}", DisplayWeight(weight))?;
    }
    for state in module.states.values() {
        writeln!(f, "  {}", DisplayState(&module.weights, state))?;
    }
    let declared = module.grids.len() + module.weights.len() + module.states.len();
    for (position, (id, function)) in module.functions.iter().enumerate() {
        if position + declared > 0 {
            writeln!(f)?;
        }
        let printer = Printer::new(module, function);
        printer.function(f)?;
        behind(f, id, &printer)?;
    }
    writeln!(f, "}}")
}

fn format_grid(grid: &Grid) -> String {
    let axis = |a: &super::Axis| {
        let level = name_of(&AxisLevel::ALL, &a.level);
        format!("{} = {level}({})", quote_name(&a.name), a.size)
    };
    let axes: Vec<String> = grid.axes.iter().map(axis).collect();
    format!(
        "grid @{} {{first = {}, axes = {{{}}}}}",
        quote_name(&grid.name),
        grid.first,
        axes.join(", ")
    )
}

/// A word in an expression: bare where it reads back as one.
fn word(name: &str) -> String {
    if ["dojo", "loc", "aliases", "true", "false", "inf", "nan"].contains(&name) {
        return quote(name);
    }
    quote_name(name).into_owned()
}

/// A list in brackets.
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

fn axis_name(grid: Option<&Grid>, axis: usize) -> String {
    let axis = grid.and_then(|g| g.axes.get(axis));
    axis.map_or("?".into(), |a| word(&a.name))
}

fn axis_names(grid: Option<&Grid>, axes: &[usize]) -> String {
    list(axes.iter().map(|a| axis_name(grid, *a)))
}

fn format_split(split: &Split, extent: u64, grid: Option<&Grid>) -> String {
    if *split == Split::whole(extent) {
        return extent.to_string();
    }
    let plain = Split::over(split.axes.clone(), extent, 1);
    let mut more = vec![];
    if split.extent != plain.extent {
        more.push(format!("of = {}", split.extent));
    }
    if split.unit != plain.unit {
        more.push(format!("unit = {}", split.unit));
    }
    if split.stride != plain.stride {
        more.push(format!("stride = {}", split.stride));
    }
    if split.low != plain.low {
        more.push(format!("low = {}", split.low));
    }
    if split.high != plain.high {
        more.push(format!("high = {}", split.high));
    }
    let more = match more.as_slice() {
        [] => String::new(),
        _ => format!(", {{{}}}", more.join(", ")),
    };
    format!("split({extent}, {}{more})", axis_names(grid, &split.axes))
}

/// Prints a layout of a tensor of extents `shape`, for messages and in types.
pub(super) fn format_layout(module: &Module, layout: &Layout, shape: &[u64]) -> String {
    format!("on{{{}}}", layout_entries(module, layout, shape).join(", "))
}

fn layout_entries(module: &Module, layout: &Layout, shape: &[u64]) -> Vec<String> {
    let grid = module.grids.get(layout.grid);
    let name = grid.map_or("?".into(), |g| quote_name(&g.name).into_owned());
    let mut entries = vec![format!("grid = @{name}")];
    let whole = Layout::replicated(layout.grid, shape);
    if (&layout.view, &layout.splits) != (&whole.view, &whole.splits) {
        let dims = layout.splits.iter().zip(&layout.view);
        let dims = list(dims.map(|(split, extent)| format_split(split, *extent, grid)));
        entries.push(format!("dims = {dims}"));
    }
    if !layout.pending.is_empty() {
        let pending = layout.pending.iter().map(|p| {
            let name = grid.and_then(|g| g.axes.get(p.axis));
            let name = name.map_or("?".into(), |a| quote_name(&a.name).into_owned());
            format!("{name} = {}", name_of(&MONOIDS, &p.monoid))
        });
        let pending: Vec<String> = pending.collect();
        entries.push(format!("pending = {{{}}}", pending.join(", ")));
    }
    if layout.packing != Packing::default() {
        entries.push(format!(
            "packing = {}",
            name_of(&Packing::ALL, &layout.packing)
        ));
    }
    if let Some(number) = layout.micro_batch {
        entries.push(format!("micro_batch = {number}"));
    }
    entries
}

/// How the values of a function are written.
pub(crate) struct Printer<'a> {
    module: &'a Module,
    function: &'a Function,
    /// How every value is written, without the sigil.
    keys: BTreeMap<ValueId, String>,
    taken: BTreeSet<&'a str>,
    /// Values that are the first of their name.
    named: BTreeSet<ValueId>,
    /// Values in order of the text.
    order: Vec<ValueId>,
    next: u32,
}

impl<'a> Printer<'a> {
    fn new(module: &'a Module, function: &'a Function) -> Self {
        let mut printer = Self {
            module,
            function,
            keys: BTreeMap::new(),
            taken: BTreeSet::new(),
            named: BTreeSet::new(),
            order: vec![],
            next: 0,
        };
        let body = function.bodies.get(function.body());
        printer.number(body.map_or(&[], |b| &b.params));
        printer.number(&printer.constants());
        printer.number_body(function.body(), 0);
        printer
    }

    /// Values of weights and states.
    fn constants(&self) -> Vec<ValueId> {
        let constant = |def: ValueDef| matches!(def, ValueDef::Weight(_) | ValueDef::State(_));
        let values = self.function.values.iter();
        values
            .filter(|(_, v)| constant(v.def))
            .map(|(id, _)| id)
            .collect()
    }

    fn number(&mut self, values: &[ValueId]) {
        for id in values {
            let Some(value) = self.function.values.get(*id) else {
                continue;
            };
            if self.keys.contains_key(id) {
                continue;
            }
            let key = match &value.name {
                Some(name) if self.taken.insert(name) => {
                    self.named.insert(*id);
                    quote_name(name).into_owned()
                }
                _ => {
                    self.next += 1;
                    (self.next - 1).to_string()
                }
            };
            self.keys.insert(*id, key);
            self.order.push(*id);
        }
    }

    fn number_body(&mut self, id: BodyId, depth: usize) {
        let function = self.function;
        let (Some(body), true) = (function.bodies.get(id), depth <= MAX_DEPTH) else {
            return;
        };
        if depth > 0 {
            self.number(&body.params);
        }
        for stmt in &body.stmts {
            match stmt {
                Stmt::Group(group) => group.steps.iter().for_each(|s| self.number(&s.results)),
                Stmt::Reshard(reshard) => self.number(&[reshard.output]),
                Stmt::View { output, .. } => self.number(&[*output]),
                Stmt::Repeat(repeat) => {
                    self.number(&repeat.results);
                    self.number_body(repeat.body, depth + 1);
                }
            }
        }
    }

    /// All values, in the order in which the text defines them.
    pub(crate) fn order(&self) -> &[ValueId] {
        &self.order
    }

    /// A value as the text calls it.
    pub(crate) fn value(&self, id: ValueId) -> String {
        format!("%{}", self.keys.get(&id).map_or("?", |key| key))
    }

    fn values(&self, values: &[ValueId]) -> String {
        let values: Vec<String> = values.iter().map(|v| self.value(*v)).collect();
        values.join(", ")
    }

    fn operands(&self, values: &[ValueId]) -> String {
        if values.is_empty() {
            String::new()
        } else {
            format!(" {}", self.values(values))
        }
    }

    /// Type and layout; with the value's name where the text does not give it, if `defining`.
    fn ty(&self, id: ValueId, defining: bool) -> String {
        let Some(value) = self.function.values.get(id) else {
            return "?".into();
        };
        let shape = value.ty.shape.as_const().unwrap_or_default();
        let mut entries = layout_entries(self.module, &value.layout, &shape);
        if let (Some(name), true) = (&value.name, defining && !self.named.contains(&id)) {
            entries.push(format!("name = {}", quote(name)));
        }
        format!("{} @ on{{{}}}", value.ty, entries.join(", "))
    }

    fn types(&self, values: &[ValueId]) -> String {
        let types: Vec<String> = values.iter().map(|v| self.ty(*v, true)).collect();
        types.join(", ")
    }

    fn params(&self, values: &[ValueId]) -> String {
        let one = |v: &ValueId| format!("{} : {}", self.value(*v), self.ty(*v, true));
        values.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn function(&self, f: &mut impl fmt::Write) -> fmt::Result {
        let function = self.function;
        let empty = Body::default();
        let body = function.bodies.get(function.body()).unwrap_or(&empty);
        let name = quote_name(&function.name);
        write!(f, "  func @{name}({}) -> (", self.params(&body.params))?;
        for (position, output) in function.outputs.iter().enumerate() {
            let ty = body.results.get(position);
            let ty = ty.map_or("?".into(), |v| self.ty(*v, false));
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}%{} : {ty}", quote_name(&output.name))?;
            if let Some(state) = output.aliases {
                let name = self.module.states.get(state).map_or("?", |s| &s.name);
                write!(f, " aliases @{}", quote_name(name))?;
            }
        }
        writeln!(f, ") {{")?;
        for id in self.constants() {
            let (word, name) = match self.function.values[id].def {
                ValueDef::Weight(w) => ("weight", self.module.weights.get(w).map(|w| &w.name)),
                ValueDef::State(s) => ("state", self.module.states.get(s).map(|s| &s.name)),
                ValueDef::Param(..) | ValueDef::Stmt(_) => ("?", None),
            };
            let name = name.map_or("?".into(), |n| quote_name(n));
            let value = self.value(id);
            writeln!(f, "    {value} = {word} @{name} : {}", self.ty(id, true))?;
        }
        for stmt in &body.stmts {
            self.stmt(f, stmt, 2)?;
        }
        writeln!(f, "    return{}", self.operands(&body.results))?;
        writeln!(f, "  }}")
    }

    fn stmt(&self, f: &mut impl fmt::Write, stmt: &Stmt, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        match stmt {
            Stmt::Group(group) => self.group(f, group, depth),
            Stmt::Reshard(reshard) => {
                let known = [reshard.input, reshard.output];
                let known = known.iter().all(|v| self.function.values.get(*v).is_some());
                let kind = known.then(|| reshard.kind(self.function));
                let kind = kind.map_or("?", |k| name_of(&RESHARD_KINDS, &k));
                let (input, output) = (self.value(reshard.input), self.value(reshard.output));
                write!(f, "{indent}{output} = reshard {input} {{kind = {kind}}}")?;
                self.end(f, &[reshard.output], reshard.loc.as_ref())
            }
            Stmt::View { input, output, loc } => {
                let (input, name) = (self.value(*input), self.value(*output));
                write!(f, "{indent}{name} = view {input}")?;
                self.end(f, &[*output], loc.as_ref())
            }
            Stmt::Repeat(repeat) => {
                write!(f, "{indent}")?;
                if !repeat.results.is_empty() {
                    write!(f, "{} = ", self.values(&repeat.results))?;
                }
                let inits = self.operands(&repeat.inits);
                writeln!(f, "repeat{inits} {{count = {}}} (", repeat.count)?;
                self.body(f, repeat.body, depth + 1)?;
                write!(f, "{indent})")?;
                self.end(f, &repeat.results, repeat.loc.as_ref())
            }
        }
    }

    fn body(&self, f: &mut impl fmt::Write, id: BodyId, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let (Some(body), true) = (self.function.bodies.get(id), depth <= MAX_DEPTH) else {
            return writeln!(f, "{indent}...");
        };
        writeln!(f, "{indent}{{ ^({})", self.params(&body.params))?;
        for stmt in &body.stmts {
            self.stmt(f, stmt, depth + 1)?;
        }
        writeln!(f, "{indent}  yield{}", self.operands(&body.results))?;
        writeln!(f, "{indent}}}")
    }

    /// Types and location of a statement.
    fn end(
        &self,
        f: &mut impl fmt::Write,
        results: &[ValueId],
        loc: Option<&Arc<Loc>>,
    ) -> fmt::Result {
        if !results.is_empty() {
            write!(f, " : {}", self.types(results))?;
        }
        if let Some(loc) = loc {
            write!(f, " {}", format_loc(loc))?;
        }
        writeln!(f)
    }

    fn group(&self, f: &mut impl fmt::Write, group: &Group, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let grid = self.module.grids.get(group.grid);
        let name = grid.map_or("?".into(), |g| quote_name(&g.name));
        writeln!(f, "{indent}group @{name} (")?;
        writeln!(f, "{indent}  {{ ^()")?;
        for step in &group.steps {
            write!(f, "{indent}    ")?;
            self.step(f, step, grid)?;
        }
        writeln!(f, "{indent}    yield")?;
        writeln!(f, "{indent}  }}")?;
        writeln!(f, "{indent})")
    }

    fn step(&self, f: &mut impl fmt::Write, step: &Step, grid: Option<&Grid>) -> fmt::Result {
        if !step.results.is_empty() {
            write!(f, "{} = ", self.values(&step.results))?;
        }
        write!(f, "{}{}", step.op.name(), self.operands(&step.args))?;
        let attrs = step.op.attrs();
        let mut entries: Vec<String> = attrs
            .0
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        if let Some(tile) = format_tile(step, grid) {
            entries.push(tile);
        }
        if !entries.is_empty() {
            write!(f, " {{{}}}", entries.join(", "))?;
        }
        self.end(f, &step.results, step.loc.as_ref())
    }
}

/// How a step is split: the sizes of its merged loops, its spatial and its temporal factors.
fn format_tile(step: &Step, grid: Option<&Grid>) -> Option<String> {
    let mut entries = vec![];
    if !step.loops.is_empty() {
        let size = |r: &std::ops::Range<usize>| r.end.saturating_sub(r.start).to_string();
        entries.push(format!("loops = {}", list(step.loops.iter().map(size))));
    }
    if !step.split.is_empty() {
        let split = step.split.iter().map(|s| {
            let unit = match s.unit {
                1 => String::new(),
                unit => format!(", {unit}"),
            };
            format!("loop({}, {}{unit})", s.dim, axis_names(grid, &s.axes))
        });
        entries.push(format!("split = {}", list(split)));
    }
    if !step.temporal.is_empty() {
        let temporal = step.temporal.iter().map(|t: &Temporal| match t.shift {
            None => format!("cut({}, {})", t.dim, t.steps),
            Some((operand, axis)) => {
                let axis = axis_name(grid, axis);
                format!("cut({}, {}, {operand}, {axis})", t.dim, t.steps)
            }
        });
        entries.push(format!("temporal = {}", list(temporal)));
    }
    (!entries.is_empty()).then(|| format!("tile = {{{}}}", entries.join(", ")))
}

/// Prints one statement as its first line, for messages.
pub(super) fn stmt_line(module: &Module, function: &Function, stmt: &Stmt) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = Printer::new(module, function).stmt(&mut text, stmt, 0);
    text.lines().next().unwrap_or_default().to_owned()
}

/// Prints one step, for messages.
pub(super) fn step_line(
    module: &Module,
    function: &Function,
    group: &Group,
    step: &Step,
) -> String {
    let mut text = String::new();
    let grid = module.grids.get(group.grid);
    let _ = Printer::new(module, function).step(&mut text, step, grid);
    text.trim().to_owned()
}
