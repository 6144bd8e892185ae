//! The MESH level as a report for people. It is a summary: flows are counted, not listed.

use std::fmt;
use std::fmt::Write as _;

use super::{Exchange, Module, Schedule};
use crate::machine::CoreAddress;
use crate::program::RouteRule;
use crate::tiled::{Function, Stmt, ValueDef, ValueId};

impl fmt::Display for Module {
    /// Places, storage and exchanges of every function.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.tiled.machine;
        writeln!(f, "mesh @{} {{machine = \"{machine}\"}}", self.name())?;
        for (id, function) in self.tiled.functions.iter() {
            writeln!(f, "\nfunc @{}", function.name)?;
            match self.schedules.get(id) {
                Some(schedule) => write_schedule(f, function, schedule)?,
                None => writeln!(f, "  not placed")?,
            }
        }
        Ok(())
    }
}

fn write_schedule(
    f: &mut fmt::Formatter<'_>,
    function: &Function,
    schedule: &Schedule,
) -> fmt::Result {
    let route = RouteRule::ALL
        .iter()
        .find(|(rule, _)| *rule == schedule.route);
    let route = route.map_or("", |(_, name)| name);
    writeln!(
        f,
        "  places: {} cores, messages go {route}",
        schedule.places.len()
    )?;
    for (number, run) in runs(&schedule.places) {
        let (first, last) = (run[0], run[run.len() - 1]);
        match run.len() {
            1 => writeln!(f, "    {number}: {first}")?,
            n => writeln!(f, "    {number}..{}: {first} to {last}", number + n)?,
        }
    }
    write_storage(f, function, schedule)?;
    write_exchanges(f, function, schedule)
}

/// Logical cores whose places are neighbours at one distance in a row or column, with the number of
/// the first of them.
fn runs(places: &[CoreAddress]) -> Vec<(usize, &[CoreAddress])> {
    let step = |at: usize| {
        let (a, b) = (places[at], places[at + 1]);
        let rows = i64::from(b.row) - i64::from(a.row);
        let columns = i64::from(b.column) - i64::from(a.column);
        let in_line = a.chip == b.chip && (rows == 0 || columns == 0);
        in_line.then_some((rows, columns))
    };
    let mut runs = vec![];
    let mut start = 0;
    while start < places.len() {
        let mut end = start + 1;
        let first = (end < places.len()).then(|| step(start)).flatten();
        while first.is_some() && end < places.len() && step(end - 1) == first {
            end += 1;
        }
        // Two cores in a line are the end of one run and the start of the next.
        if end == start + 2 && end < places.len() {
            end = start + 1;
        }
        runs.push((start, &places[start..end]));
        start = end;
    }
    runs
}

fn name(function: &Function, value: ValueId) -> String {
    match &function.values[value].name {
        Some(name) => format!("{value} {name}"),
        None => value.to_string(),
    }
}

/// Lines whose cells are padded to columns; all columns but the first are numbers.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match n {
                0 => write!(line, "    {cell:<width$}")?,
                _ => write!(line, "  {cell:>width$}")?,
            }
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn write_storage(
    f: &mut fmt::Formatter<'_>,
    function: &Function,
    schedule: &Schedule,
) -> fmt::Result {
    let end = |at: u64, bytes: u64| at.saturating_add(bytes);
    let values = schedule.storage.values().map(|s| end(s.address, s.bytes));
    let scratch = schedule.scratch.iter().map(|(_, at, n)| end(*at, *n));
    let high = values.chain(scratch).max().unwrap_or(0);
    writeln!(f, "  storage: {high} bytes of a core")?;
    let mut rows = vec![cells([
        "value", "kind", "address", "bytes", "lives", "alias", "fill",
    ])];
    for (value, storage) in &schedule.storage {
        let kind = match function.values[*value].def {
            ValueDef::Param(..) => "input",
            ValueDef::Weight(_) => "weight",
            ValueDef::State(_) => "state",
            ValueDef::Stmt(_) => "value",
        };
        rows.push(vec![
            name(function, *value),
            kind.to_owned(),
            storage.address.to_string(),
            storage.bytes.to_string(),
            format!("{}..{}", storage.live.start, storage.live.end),
            storage.alias.map_or_else(String::new, |v| v.to_string()),
            storage
                .fill
                .map_or_else(String::new, |fill| fill.to_string()),
        ]);
    }
    for (at, address, bytes) in schedule.scratch.iter().filter(|(.., bytes)| *bytes > 0) {
        rows.push(vec![
            format!("of statement {at}"),
            "scratch".to_owned(),
            address.to_string(),
            bytes.to_string(),
        ]);
    }
    write_table(f, &rows)
}

/// What the flows of a stage come to.
#[derive(Default)]
struct Traffic {
    flows: u64,
    bytes: u64,
    copies: u64,
    /// Most cores that one core sends to, and most that one receives from.
    sends: u64,
    receives: u64,
}

fn traffic(exchange: &Exchange, stage: usize, width: u64) -> Traffic {
    use std::collections::BTreeMap;
    let mut traffic = Traffic::default();
    let (mut to, mut from) = (BTreeMap::<u32, u64>::new(), BTreeMap::<u32, u64>::new());
    let mut pairs = std::collections::BTreeSet::new();
    for flow in &exchange.stages[stage] {
        let bytes = flow.elements().saturating_mul(width);
        if flow.from == flow.to {
            traffic.copies = traffic.copies.saturating_add(bytes);
            continue;
        }
        traffic.flows += 1;
        traffic.bytes = traffic.bytes.saturating_add(bytes);
        if pairs.insert((flow.from, flow.to)) {
            *to.entry(flow.from).or_default() += 1;
            *from.entry(flow.to).or_default() += 1;
        }
    }
    traffic.sends = to.values().copied().max().unwrap_or(0);
    traffic.receives = from.values().copied().max().unwrap_or(0);
    traffic
}

fn write_exchanges(
    f: &mut fmt::Formatter<'_>,
    function: &Function,
    schedule: &Schedule,
) -> fmt::Result {
    writeln!(f, "  exchanges: {}", schedule.exchanges.len())?;
    if schedule.exchanges.is_empty() {
        return Ok(());
    }
    let mut rows = vec![cells([
        "value",
        "kind",
        "statement",
        "stage",
        "flows",
        "bytes",
        "copied",
        "sends to",
        "receives from",
    ])];
    let body = &function.bodies[function.body()];
    for (at, exchange) in &schedule.exchanges {
        let Some(Stmt::Reshard(reshard)) = body.stmts.get(*at) else {
            continue;
        };
        let width = function.values[reshard.input].ty.dtype.bytes();
        let kind = format!("{:?}", reshard.kind(function));
        for stage in 0..exchange.stages.len() {
            let traffic = traffic(exchange, stage, width);
            rows.push(vec![
                name(function, reshard.output),
                kind.clone(),
                at.to_string(),
                stage.to_string(),
                traffic.flows.to_string(),
                traffic.bytes.to_string(),
                traffic.copies.to_string(),
                traffic.sends.to_string(),
                traffic.receives.to_string(),
            ]);
        }
    }
    write_table(f, &rows)
}
