//! The text form of a module. Printing never fails, not even on IR that breaks its rules.

use std::fmt;

use super::text::{Rule, traffic};
use super::{Exchange, Flow, Module, Schedule, Storage};
use crate::machine::CoreAddress;
use crate::program::RouteRule;
use crate::tiled::print::{Printer, list, write_module};
use crate::tiled::text::name_of;
use crate::tiled::{Function, Stmt};

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rule = Rule::new(&self.tiled.grids);
        let header = ("mesh", super::TEXT_VERSION);
        write_module(f, &self.tiled, header, |f, id, values| {
            let function = &self.tiled.functions[id];
            let Some(schedule) = self.schedules.get(id) else {
                return Ok(());
            };
            Writer {
                function,
                schedule,
                values,
            }
            .schedule(f, &mut rule)
        })
    }
}

struct Writer<'a> {
    function: &'a Function,
    schedule: &'a Schedule,
    values: &'a Printer<'a>,
}

impl Writer<'_> {
    fn schedule(&self, f: &mut fmt::Formatter<'_>, rule: &mut Rule<'_>) -> fmt::Result {
        let schedule = self.schedule;
        let name = dojoc_grammar::quote_name(&self.function.name);
        let route = name_of(&RouteRule::ALL, &schedule.route);
        let bytes = schedule.sram_bytes();
        writeln!(
            f,
            "\n  schedule @{name}() {{route = {route}, bytes = {bytes}}} {{"
        )?;
        for (first, run) in runs(&schedule.places) {
            writeln!(f, "    {}", format_run(first, run))?;
        }
        for value in self.values.order() {
            if let Some(storage) = schedule.storage.get(value) {
                let storage = self.storage(storage);
                writeln!(f, "    value {} {{{storage}}}", self.values.value(*value))?;
            }
        }
        for (at, exchange) in &schedule.exchanges {
            self.exchange(f, *at, exchange, rule)?;
        }
        for (at, address, bytes) in &schedule.scratch {
            writeln!(
                f,
                "    scratch {{stmt = {at}, address = {address}, bytes = {bytes}}}"
            )?;
        }
        writeln!(f, "  }}")
    }

    fn storage(&self, storage: &Storage) -> String {
        let mut text = format!(
            "address = {}, bytes = {}, strides = {}, live = [{}, {}]",
            storage.address,
            storage.bytes,
            list(storage.strides.iter().map(i64::to_string)),
            storage.live.start,
            storage.live.end
        );
        if let Some(alias) = storage.alias {
            text += &format!(", alias = {}", self.values.value(alias));
        }
        if let Some(fill) = storage.fill {
            text += &format!(", fill = {fill}");
        }
        text
    }

    fn exchange(
        &self,
        f: &mut fmt::Formatter<'_>,
        at: usize,
        exchange: &Exchange,
        rule: &mut Rule<'_>,
    ) -> fmt::Result {
        let body = self.function.bodies.get(self.function.body());
        let reshard = match body.and_then(|b| b.stmts.get(at)) {
            Some(Stmt::Reshard(reshard)) => Some(reshard),
            _ => None,
        };
        let known = |v| self.function.values.get(v);
        let ends = reshard.and_then(|r| Some((known(r.input)?, known(r.output)?)));
        let output = reshard.map_or(String::new(), |r| {
            format!(" {}", self.values.value(r.output))
        });
        if let Some((from, to)) = ends
            && rule.exchange(&from.layout, &to.layout).as_deref() == Ok(exchange)
        {
            let width = from.ty.dtype.bytes();
            let stages = exchange.stages.iter().map(|flows| {
                let entries = traffic(flows, width).map(|(key, n)| format!("{key} = {n}"));
                format!("{{{}}}", entries.join(", "))
            });
            let stages = list(stages);
            return writeln!(f, "    exchange{output} {{stmt = {at}, stages = {stages}}}");
        }
        let view = list(exchange.view.iter().map(u64::to_string));
        writeln!(f, "    exchange{output} {{stmt = {at}, view = {view}}}")?;
        for flows in &exchange.stages {
            let flows = list(flows.iter().map(format_flow));
            writeln!(f, "    stage {{flows = {flows}}}")?;
        }
        Ok(())
    }
}

fn format_flow(flow: &Flow) -> String {
    let word = if flow.forwarded { "forward" } else { "send" };
    let numbers = |of: &[u64]| list(of.iter().map(u64::to_string));
    let (start, size) = (numbers(&flow.start), numbers(&flow.size));
    format!("{word}({}, {}, {start}, {size})", flow.from, flow.to)
}

fn format_run(first: usize, run: &[CoreAddress]) -> String {
    let at = |core: &CoreAddress| format!("[{}, {}, {}]", core.chip, core.row, core.column);
    let start = at(&run[0]);
    match run {
        [_] => format!("place {{core = {first}, at = {start}}}"),
        [.., last] => {
            let end = first + run.len() - 1;
            format!(
                "place {{core = {first}, at = {start}, last = {end}, to = {}}}",
                at(last)
            )
        }
        [] => String::new(),
    }
}

/// Logical cores whose places are neighbours in a row or column of a chip, with the number of the
/// first of them.
fn runs(places: &[CoreAddress]) -> Vec<(usize, &[CoreAddress])> {
    let mut runs = vec![];
    let mut start = 0;
    while start < places.len() {
        let mut end = start + 1;
        let step = |at: usize| step(places[at], places[at + 1]);
        let first = (end < places.len()).then(|| step(start)).flatten();
        while first.is_some() && end < places.len() && step(end - 1) == first {
            end += 1;
        }
        runs.push((start, &places[start..end]));
        start = end;
    }
    runs
}

/// The way from a core to its neighbour, in rows and columns.
fn step(a: CoreAddress, b: CoreAddress) -> Option<(i64, i64)> {
    let rows = i64::from(b.row) - i64::from(a.row);
    let columns = i64::from(b.column) - i64::from(a.column);
    (a.chip == b.chip && rows.abs() + columns.abs() == 1).then_some((rows, columns))
}
