//! The text form of a program: assembly.
//!
//! The syntax is that of all levels (GRAMMAR.md); this page gives the words of this one. Reading
//! back what was printed gives an equal program: tables are in the order of the text, views and
//! registers in the order of their definitions, locations in that of their first mention
//! ([`Program::number`] brings a program into this order). Printing never fails: what does not exist
//! prints as `?`.
//!
//! ```text
//! dojo program 1
//!
//! program @demo {machine = "mesh4x4", dims = {batch = 8}} {
//!   cores @ring = [box(0, [0, 4], [0, 4])]
//!   table @next = [1, 2, 3, 0]
//!   channel @right {from = @ring, to = @ring, peer = mod(i + 1, 16)}
//!   dram @cache {owners = @ring, dip = 0, bytes = 4096, readers = 1}
//!   input @x : f32[16, 256] = [{on = @ring, at = 0, slice = [[i, 1], [0, 256]]}]
//!   state @s : f32[4] = [{dram = @cache, at = 0, slice = [[0, 4]]}] {init = zeros}
//!
//!   segment @scale(%first : index) {
//!     %a = buffer {at = 64*%first, role = "inout"} : f32[256]
//!     vector (
//!       { ^()
//!         for {count = 4} (
//!           { ^(%i : index)
//!             %v = view %a {offset = 256*%i} : f32[64]
//!             mul %v, %v, %v
//!           }
//!         )
//!       }
//!     )
//!   }
//!
//!   entry @main() {inputs = [@x], outputs = []} {
//!     repeat {count = 24} (
//!       { ^(%l : index)
//!         call @scale {on = @ring, row = [at(@next, mod(%l + i, 4))]}
//!       }
//!     )
//!   }
//! }
//! ```
//!
//! # Declarations
//!
//! All share one set of names. They may stand in any order, and behind their uses.
//!
//! - `program @name {machine = "name", fingerprint = "..", dims = {..}}` holds all others. The
//!   fingerprint has 32 hexadecimal digits; without it the program fits any machine of that name.
//! - `cores @name = [box(chips, rows, columns), ..]`: each is a number, `[start, count]` or
//!   `[start, count, step]`.
//! - `table @name = [numbers]`
//! - `channel @name {from, to, peer}`; optional are `ports` (1), `peer_port` (0), `branches` (1),
//!   `route` (`"xy"` or `"yx"`), `overrides`, a list of
//!   `[sender, port, [[chip, row, column], ..]]`.
//! - `dram @name {dip, bytes}`; optional are `owners` and `readers` (0).
//! - `input`, `output`, `weight`, `state`, `probe` `@name : type = [shards]`. A shard is
//!   `{on = @cores, at, slice}` or `{dram = @region, at, slice}` with optional `packing` and
//!   `strides`; without strides it is dense, and all extents of the slice are numbers. A slice has
//!   `[start, extent]` for each dimension. A weight has `{data = recipe}`, a state `{init = zeros}`
//!   or `{init = recipe}`.
//! - `segment @name(%param : index, ..) { .. }` and `entry @name() {inputs, outputs} { .. }`.
//!
//! # Expressions
//!
//! *Index expressions* describe parameter rows, peers, ports of peers, places of shards and `dip`
//! for all cores at once: the words `i chip row column p k`, run parameters, counters of repeats
//! (`%l`), numbers, `+ - * /` (division rounds down), `mod(a, b)`, `min(a, b)`, `max(a, b)`,
//! `at(@table, a)`; `-a` is `0 - a`.
//!
//! *Affine expressions* are those of segments, where an address, offset, extent, count, port, owner
//! or scalar stands: parameters, counters and registers (`%n`), run parameters, numbers, `+ -`, and
//! `*` with a number on one side at least.
//!
//! A run parameter whose name is not a word, or is one of the words above, is written
//! `sym("name")`.
//!
//! *Recipes* are `file("path", offset, type)`, `inline(type, "hex")`, `splat(type, number)`,
//! `slice(r, [starts], [sizes])`, `permute(r, [order])`, `reshape(r, [extents])`,
//! `concat(axis, r, ..)`, `pad(r, [low], [high], number)`, `scale(r, factors, axis)`,
//! `convert(r, type)`.
//!
//! # Segments
//!
//! - `%b = buffer {at = address} : type`, optional `role` (`"scratch"`, `"in"`, `"out"`, `"inout"`)
//!   and `packing` (`"strided"`, `"packed8x4"`, `"packed4x8"`); `%t = token`.
//! - `matrix`, `vector`, `comm0` and `comm1`, each with one region, are the streams.
//! - `%v = view %b {offset, strides, packing} : type`, all optional: offset 0, dense. Strides may be
//!   absent if the extents are numbers. A view is visible up to the end of the body it stands in,
//!   and so is a register.
//! - `for {count = n} ({ ^(%i : index) .. })` and `%n = count %v {max = m, via = @channel}`, `via`
//!   optional.
//! - Transfers, tokens and DRAM as the families of [`instr`](super::instr) document them. `port`,
//!   `to_port`, `owner` and `offset` are 0 and `strides` dense where absent.
//! - Everything else is a compute instruction: operands, destinations first, and attributes, which
//!   include its scalars as affine expressions.
//!
//! Names of parameters, buffers, tokens, views, registers and counters differ; counters of loops of
//! which none holds the other may have the same.
//!
//! # Entries
//!
//! `call @segment {on = @cores, row = [..]}`, `repeat {count = n} ({ ^(%l : index) .. })`,
//! `probe @name`.
//!
//! Channels, tensors, segments, buffers, statements of streams and calls may end with one
//! `loc("node", "file":line)`.

mod expr;
mod segment;

use std::fmt;

use dojoc_grammar::{quote, quote_name};
pub(super) use expr::COORDINATES;
use expr::{affine, constant_type, ints, recipe, region_name, symbol};
pub use segment::inst_line;
pub(super) use segment::operand_type;

use super::{
    DramRegion, Entry, Family, Home, LocId, Packing, Program, Region, RouteRule, Shard, Span,
    StateInit, Step, TensorDecl, TensorKind, dense_strides,
};
use crate::dim::format_symbol;
use crate::types::DType;

/// Bodies nested deeper than this are indented no further.
const MAX_INDENT: usize = 32;

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "dojo program {}\n", super::TEXT_VERSION)?;
        let mut attrs = vec![format!("machine = {}", quote(&self.machine.name))];
        if self.machine.fingerprint != 0 {
            attrs.push(format!(
                "fingerprint = \"{:032x}\"",
                self.machine.fingerprint
            ));
        }
        if !self.dims.is_empty() {
            let dims = self.dims.iter();
            let dims: Vec<String> = dims
                .map(|(n, max)| format!("{} = {max}", quote_name(n)))
                .collect();
            attrs.push(format!("dims = {{{}}}", dims.join(", ")));
        }
        writeln!(
            f,
            "program @{} {{{}}} {{",
            quote_name(&self.name),
            attrs.join(", ")
        )?;
        self.declarations(f)?;
        for segment in self.segments.values() {
            writeln!(f)?;
            segment::print(self, segment, f)?;
        }
        for entry in self.entries.values() {
            writeln!(f)?;
            self.entry_text(entry, f)?;
        }
        writeln!(f, "}}")
    }
}

/// `loc("node", "file":line)` with a space before it, or nothing.
fn loc_clause(program: &Program, id: Option<LocId>) -> String {
    let Some(id) = id else { return String::new() };
    match program.locs.get(id) {
        Some(loc) if loc.file.is_empty() && loc.line == 0 => format!(" loc({})", quote(&loc.name)),
        Some(loc) => {
            let (name, file) = (quote(&loc.name), quote(&loc.file));
            format!(" loc({name}, {file}:{})", loc.line)
        }
        None => " loc(?)".into(),
    }
}

/// The word of a value in a list like [`Packing::ALL`].
fn word<T: PartialEq>(all: &[(T, &'static str)], value: &T) -> &'static str {
    all.iter()
        .find(|(v, _)| v == value)
        .map_or("?", |(_, word)| word)
}

fn span_text(span: Span) -> String {
    let Span { start, count, step } = span;
    match (count, step) {
        (1, 1) => format!("{start}"),
        (_, 1) => format!("[{start}, {count}]"),
        _ => format!("[{start}, {count}, {step}]"),
    }
}

impl Program {
    fn declarations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Region { name, boxes } in self.regions.values() {
            let boxes: Vec<String> = boxes
                .iter()
                .map(|b| {
                    let [chips, rows, columns] = [b.chips, b.rows, b.columns].map(span_text);
                    format!("box({chips}, {rows}, {columns})")
                })
                .collect();
            writeln!(f, "  cores @{} = [{}]", quote_name(name), boxes.join(", "))?;
        }
        for table in self.tables.values() {
            writeln!(
                f,
                "  table @{} = {}",
                quote_name(&table.name),
                ints(&table.values)
            )?;
        }
        for family in self.families.values() {
            self.family_text(family, f)?;
        }
        for DramRegion {
            name,
            owners,
            dip,
            bytes,
            readers,
        } in self.dram.values()
        {
            let mut attrs = vec![];
            if let Some(owners) = owners {
                attrs.push(format!("owners = {}", region_name(self, *owners)));
            }
            attrs.push(format!("dip = {}", expr::index(self, dip, &[])));
            attrs.push(format!("bytes = {bytes}"));
            if *readers != 0 {
                attrs.push(format!("readers = {readers}"));
            }
            writeln!(f, "  dram @{} {{{}}}", quote_name(name), attrs.join(", "))?;
        }
        for tensor in self.tensors.values() {
            self.tensor_text(tensor, f)?;
        }
        Ok(())
    }

    fn family_text(&self, family: &Family, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut attrs = vec![
            format!("from = {}", region_name(self, family.from)),
            format!("to = {}", region_name(self, family.to)),
        ];
        if family.ports != 1 {
            attrs.push(format!("ports = {}", family.ports));
        }
        attrs.push(format!("peer = {}", expr::index(self, &family.peer, &[])));
        if family.peer_port.as_constant() != Some(0) {
            attrs.push(format!(
                "peer_port = {}",
                expr::index(self, &family.peer_port, &[])
            ));
        }
        if family.branches != 1 {
            attrs.push(format!("branches = {}", family.branches));
        }
        if family.route.rule != RouteRule::Xy {
            attrs.push(format!(
                "route = \"{}\"",
                word(&RouteRule::ALL, &family.route.rule)
            ));
        }
        if !family.route.overrides.is_empty() {
            let overrides = family.route.overrides.iter().map(|o| {
                let sites = o.sites.iter();
                let sites = sites.map(|s| format!("[{}, {}, {}]", s.chip, s.row, s.column));
                let sites: Vec<String> = sites.collect();
                format!("[{}, {}, [{}]]", o.sender, o.port, sites.join(", "))
            });
            let overrides: Vec<String> = overrides.collect();
            attrs.push(format!("overrides = [{}]", overrides.join(", ")));
        }
        let loc = loc_clause(self, family.loc);
        writeln!(
            f,
            "  channel @{} {{{}}}{loc}",
            quote_name(&family.name),
            attrs.join(", ")
        )
    }

    fn tensor_text(&self, tensor: &TensorDecl, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keyword, attrs) = match &tensor.kind {
            TensorKind::Input => ("input", String::new()),
            TensorKind::Output => ("output", String::new()),
            TensorKind::Weight(data) => ("weight", format!(" {{data = {}}}", recipe(data))),
            TensorKind::State(StateInit::Zeros) => ("state", " {init = zeros}".into()),
            TensorKind::State(StateInit::Recipe(data)) => {
                ("state", format!(" {{init = {}}}", recipe(data)))
            }
            TensorKind::Probe => ("probe", String::new()),
        };
        let extents: Vec<String> = tensor
            .shape
            .iter()
            .map(|extent| affine(self, None, &[], extent))
            .collect();
        let shards: Vec<String> = tensor
            .shards
            .iter()
            .map(|shard| self.shard_text(shard, tensor.dtype))
            .collect();
        writeln!(
            f,
            "  {keyword} @{} : {}[{}] = [{}]{attrs}{}",
            quote_name(&tensor.name),
            tensor.dtype,
            extents.join(", "),
            shards.join(", "),
            loc_clause(self, tensor.loc),
        )
    }

    fn shard_text(&self, shard: &Shard, dtype: DType) -> String {
        let index = |e| expr::index(self, e, &[]);
        let (home, at) = match &shard.home {
            Home::Sram { on, at } => (format!("on = {}", region_name(self, *on)), at),
            Home::Dram { dram, at } => {
                let name = self.dram.get(*dram).map(|d| &*d.name);
                (format!("dram = {}", symbol(name)), at)
            }
        };
        let slice = shard.slice.iter();
        let slice: Vec<String> = slice
            .map(|(start, extent)| format!("[{}, {}]", index(start), index(extent)))
            .collect();
        let mut text = format!(
            "{{{home}, at = {}, slice = [{}]",
            index(at),
            slice.join(", ")
        );
        let extents = shard.slice.iter().map(|(_, extent)| extent.as_constant());
        let extents = extents.map(|extent| u64::try_from(extent?).ok()).collect();
        text += &layout_attrs(dtype, extents, &shard.strides, shard.packing);
        text + "}"
    }

    fn entry_text(&self, entry: &Entry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensor = |id| symbol(self.tensors.get(id).map(|t| &*t.name));
        let tensors = |ids: &[_]| {
            ids.iter()
                .map(|id| tensor(*id))
                .collect::<Vec<_>>()
                .join(", ")
        };
        writeln!(
            f,
            "  entry @{}() {{inputs = [{}], outputs = [{}]}} {{",
            quote_name(&entry.name),
            tensors(&entry.inputs),
            tensors(&entry.outputs)
        )?;
        // Counters of the repeats around a step with the step behind their body.
        let mut open: Vec<(&str, usize)> = vec![];
        for (at, step) in entry.steps.iter().enumerate() {
            close(&mut open, at, f)?;
            let indent = indentation(open.len());
            match step {
                Step::Call {
                    segment,
                    on,
                    row,
                    loc,
                } => {
                    let names: Vec<&str> = open.iter().map(|(name, _)| *name).collect();
                    let row: Vec<String> =
                        row.iter().map(|e| expr::index(self, e, &names)).collect();
                    let segment = symbol(self.segments.get(*segment).map(|s| &*s.name));
                    let on = region_name(self, *on);
                    let loc = loc_clause(self, *loc);
                    writeln!(
                        f,
                        "{indent}call {segment} {{on = {on}, row = [{}]}}{loc}",
                        row.join(", ")
                    )?;
                }
                Step::Repeat { name, count, len } => {
                    writeln!(f, "{indent}repeat {{count = {count}}} (")?;
                    writeln!(f, "{indent}  {{ ^(%{} : index)", quote_name(name))?;
                    open.push((name, end_of(at, *len, open.last(), entry.steps.len())));
                }
                Step::Probe(id) => writeln!(f, "{indent}probe {}", tensor(*id))?,
            }
        }
        close(&mut open, entry.steps.len(), f)?;
        writeln!(f, "  }}")
    }
}

/// Where the body of a loop ends, which is not behind that of the loop around it.
fn end_of(at: usize, len: u32, outer: Option<&(&str, usize)>, total: usize) -> usize {
    let limit = outer.map_or(total, |(_, end)| *end);
    (at + 1).saturating_add(len as usize).min(limit)
}

/// Closes the repeats whose body ends before step `at`.
fn close(open: &mut Vec<(&str, usize)>, at: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    while open.last().is_some_and(|(_, end)| *end <= at) {
        open.pop();
        let indent = indentation(open.len());
        writeln!(f, "{indent}  }}\n{indent})")?;
    }
    Ok(())
}

/// Spaces before a statement in `depth` loops of a segment's or entry's body.
fn indentation(depth: usize) -> String {
    "    ".repeat(1 + depth.min(MAX_INDENT))
}

/// `, strides = [..], packing = ".."` as far as they cannot be left out.
fn layout_attrs(
    dtype: DType,
    shape: Option<Vec<u64>>,
    strides: &[i64],
    packing: Packing,
) -> String {
    let mut text = String::new();
    if !is_default(dtype, shape, strides, packing) {
        text += &format!(", strides = {}", ints(strides));
    }
    if packing != Packing::Strided {
        text += &format!(", packing = \"{}\"", word(&Packing::ALL, &packing));
    }
    text
}

/// Whether these are the strides of a text without strides.
fn is_default(dtype: DType, shape: Option<Vec<u64>>, strides: &[i64], packing: Packing) -> bool {
    let dense = shape.and_then(|shape| dense_strides(dtype, &shape, packing));
    dense.is_some_and(|dense| dense == strides)
}
