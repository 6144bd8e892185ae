//! What the tables of a program say about each other, without a machine and without arithmetic.
//!
//! Every id belongs to its table, bodies are nested, lists have their lengths, expressions have the
//! variables of their place, names are unique, and sizes are such that later checks may walk them.

mod code;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{
    Affine, Coordinate, Home, IndexExpr, IndexNode, MAX_LOOP_DEPTH, MAX_VIEW_RANK, Place, Program,
    Recipe, RegionId, Shard, StateInit, Step, TensorDecl, TensorId, TensorKind, Var,
};
use super::Violation;
use crate::codes;

/// The most statements of a program, over all streams.
pub const MAX_STATEMENTS: usize = 1 << 20;
/// The most entries of any other table: regions, families, tensors, buffers of a segment, steps.
pub const MAX_TABLE: usize = 1 << 16;
/// The most numbers in all tables of a program, and boxes in all regions.
pub const MAX_NUMBERS: usize = 1 << 24;
/// The most parameters of a segment, run parameters of a program, registers of a segment.
pub const MAX_VARIABLES: usize = 1 << 12;
/// The most cores of a region; a machine may have fewer.
pub const MAX_CORES: u64 = 1 << 24;
/// The most ports of a core in one family.
pub const MAX_PORTS: u32 = 64;
/// The most receivers of a channel.
pub const MAX_BRANCHES: u32 = 1 << 16;
/// The most dimensions of a tensor.
pub const MAX_TENSOR_RANK: usize = MAX_VIEW_RANK;
/// Violations after which the check stops.
const MAX_FOUND: usize = 100;

/// Checks the tables of a program. If this finds nothing, every id, body, expression and list of the
/// program may be used without further checks. Never panics, whatever was decoded.
pub fn structure(program: &Program) -> Vec<Violation> {
    let mut checker = Checker {
        program,
        found: Vec::new(),
    };
    checker.tables();
    if checker.found.is_empty() {
        checker.names();
        checker.regions();
        checker.families();
        checker.dram();
        for (id, tensor) in program.tensors.iter() {
            checker.tensor(id, tensor);
        }
        for (id, segment) in program.segments.iter() {
            code::check(&mut checker, id, segment);
        }
        checker.entries();
    }
    checker.found.truncate(MAX_FOUND);
    checker.found
}

pub(super) struct Checker<'p> {
    program: &'p Program,
    found: Vec<Violation>,
}

/// Coordinates that an index expression may have.
#[derive(Clone, Copy, Default)]
struct Allowed {
    channel: bool,
    repeats: usize,
    dims: bool,
}

impl Checker<'_> {
    fn fail(&mut self, place: Place, message: impl Into<String>) {
        if self.found.len() < MAX_FOUND {
            self.found
                .push(Violation::new(codes::PROGRAM_MALFORMED, place, message));
        }
    }

    fn tables(&mut self) {
        let program = self.program;
        let mut statements = 0usize;
        for (id, segment) in program.segments.iter() {
            let place = Place::Segment(id);
            let counts = [
                (segment.buffers.len(), MAX_TABLE, "buffers"),
                (segment.tokens.len(), MAX_TABLE, "tokens"),
                (segment.views.len(), MAX_STATEMENTS, "views"),
                (segment.params.len(), MAX_VARIABLES, "parameters"),
                (segment.registers.len(), MAX_VARIABLES, "registers"),
            ];
            for (count, max, what) in counts {
                if count > max {
                    self.fail(
                        place,
                        format!("has {count} {what}, at most {max} are allowed"),
                    );
                }
            }
            statements += segment.streams.iter().map(|s| s.code.len()).sum::<usize>();
        }
        let steps = program.entries.values().map(|e| e.steps.len()).sum();
        let numbers = program.tables.values().map(|t| t.values.len()).sum();
        let boxes = program.regions.values().map(|r| r.boxes.len()).sum();
        let counts = [
            (program.regions.len(), MAX_TABLE, "regions"),
            (program.tables.len(), MAX_TABLE, "tables"),
            (program.families.len(), MAX_TABLE, "channel families"),
            (program.dram.len(), MAX_TABLE, "dram regions"),
            (program.tensors.len(), MAX_TABLE, "tensors"),
            (program.segments.len(), MAX_TABLE, "segments"),
            (program.entries.len(), MAX_TABLE, "entries"),
            (program.dims.len(), MAX_VARIABLES, "run parameters"),
            (statements, MAX_STATEMENTS, "statements"),
            (steps, MAX_TABLE, "steps"),
            (numbers, MAX_NUMBERS, "numbers in tables"),
            (boxes, MAX_NUMBERS, "boxes of cores"),
        ];
        for (count, max, what) in counts {
            if count > max {
                let message = format!("the program has {count} {what}, at most {max} are allowed");
                self.fail(Place::Program, message);
            }
        }
        for (name, max) in &program.dims {
            if *max == 0 || i64::try_from(*max).is_err() {
                let message = format!("run parameter {name} has the largest value {max}");
                self.fail(Place::Program, message);
            }
        }
    }

    fn names(&mut self) {
        let program = self.program;
        let mut symbols = BTreeSet::new();
        let regions = program
            .regions
            .iter()
            .map(|(id, x)| (Place::Region(id), &x.name));
        let tables = program
            .tables
            .iter()
            .map(|(id, x)| (Place::Table(id), &x.name));
        let families = program
            .families
            .iter()
            .map(|(id, x)| (Place::Family(id), &x.name));
        let dram = program
            .dram
            .iter()
            .map(|(id, x)| (Place::Dram(id), &x.name));
        let tensors = program
            .tensors
            .iter()
            .map(|(id, x)| (Place::Tensor(id), &x.name));
        let segments = program
            .segments
            .iter()
            .map(|(id, x)| (Place::Segment(id), &x.name));
        let entries = program
            .entries
            .iter()
            .map(|(id, x)| (Place::Entry(id), &x.name));
        let all = regions.chain(tables).chain(families).chain(dram);
        for (place, name) in all.chain(tensors).chain(segments).chain(entries) {
            if !symbols.insert(name) {
                self.fail(place, format!("the name @{name} is taken"));
            }
        }
        let mut dims = BTreeSet::new();
        for (name, _) in &program.dims {
            let reserved = ["i", "chip", "row", "column", "p", "k", "index"];
            if reserved.contains(&&**name) {
                let message = format!("{name} cannot be the name of a run parameter");
                self.fail(Place::Program, message);
            }
            if !dims.insert(name) {
                self.fail(
                    Place::Program,
                    format!("there are two run parameters {name}"),
                );
            }
        }
    }

    fn regions(&mut self) {
        for (id, region) in self.program.regions.iter() {
            if region.len() > MAX_CORES {
                let message = format!(
                    "has {} cores, at most {MAX_CORES} are allowed",
                    region.len()
                );
                self.fail(Place::Region(id), message);
            }
        }
    }

    fn region(&mut self, place: Place, id: RegionId) {
        if self.program.regions.get(id).is_none() {
            self.fail(place, "refers to cores that are not declared");
        }
    }

    /// Whether an index expression is a tree in postorder with coordinates of its place.
    fn index(&mut self, place: Place, what: &str, expr: &IndexExpr, allowed: Allowed) {
        let tree = expr.is_well_formed(&self.program.tables) && {
            let mut waiting: Vec<u32> = Vec::new();
            let ordered = expr.nodes.iter().enumerate().all(|(at, node)| {
                let fits = match *node {
                    IndexNode::Const(_) | IndexNode::Coordinate(_) => true,
                    IndexNode::Add(a, b)
                    | IndexNode::Sub(a, b)
                    | IndexNode::Mul(a, b)
                    | IndexNode::Div(a, b)
                    | IndexNode::Mod(a, b)
                    | IndexNode::Min(a, b)
                    | IndexNode::Max(a, b) => waiting.pop() == Some(b) && waiting.pop() == Some(a),
                    IndexNode::Table(_, a) => waiting.pop() == Some(a),
                };
                waiting.push(at as u32);
                fits
            });
            ordered && waiting.len() == 1
        };
        if !tree {
            self.fail(place, format!("{what} is not a tree in postorder"));
            return;
        }
        for node in &expr.nodes {
            let IndexNode::Coordinate(coordinate) = node else {
                continue;
            };
            let known = match *coordinate {
                Coordinate::Index | Coordinate::Chip | Coordinate::Row | Coordinate::Column => true,
                Coordinate::Port | Coordinate::Branch => allowed.channel,
                Coordinate::Repeat(depth) => usize::from(depth) < allowed.repeats,
                Coordinate::Dim(dim) => allowed.dims && usize::from(dim) < self.program.dims.len(),
            };
            if !known {
                let message = format!("{what} has a coordinate that does not exist here");
                self.fail(place, message);
                return;
            }
        }
    }

    /// Whether an affine expression is canonical and has known variables only.
    fn affine(&mut self, place: Place, what: &str, expr: &Affine, known: impl Fn(Var) -> bool) {
        let canonical = expr.terms.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && expr.terms.iter().all(|(_, coefficient)| *coefficient != 0);
        if !canonical {
            self.fail(place, format!("{what} is not in canonical form"));
        }
        if !expr.terms.iter().all(|(var, _)| known(*var)) {
            let message = format!("{what} has a variable that does not exist here");
            self.fail(place, message);
        }
    }

    fn families(&mut self) {
        let allowed = Allowed {
            channel: true,
            ..Allowed::default()
        };
        for (id, family) in self.program.families.iter() {
            let place = Place::Family(id);
            self.region(place, family.from);
            self.region(place, family.to);
            self.index(place, "the peer", &family.peer, allowed);
            self.index(place, "the peer's port", &family.peer_port, allowed);
            let limits = [
                (family.ports, MAX_PORTS, "ports"),
                (family.branches, MAX_BRANCHES, "branches"),
            ];
            for (count, max, what) in limits {
                if count == 0 || count > max {
                    let message = format!("has {count} {what}, from 1 to {max} are allowed");
                    let violation = Violation::new(codes::BAD_CHANNEL, place, message);
                    self.found.push(violation);
                }
            }
            self.loc(place, family.loc);
        }
    }

    fn dram(&mut self) {
        for (id, dram) in self.program.dram.iter() {
            let place = Place::Dram(id);
            if let Some(owners) = dram.owners {
                self.region(place, owners);
            }
            self.index(
                place,
                "the interface processor",
                &dram.dip,
                Allowed::default(),
            );
            if i64::try_from(dram.bytes).is_err() {
                self.fail(
                    place,
                    format!("has {} bytes, too many to address", dram.bytes),
                );
            }
        }
    }

    fn tensor(&mut self, id: TensorId, tensor: &TensorDecl) {
        let place = Place::Tensor(id);
        let resident = matches!(tensor.kind, TensorKind::Weight(_) | TensorKind::State(_));
        let rank = tensor.shape.len();
        if rank > MAX_TENSOR_RANK {
            let message = format!("has rank {rank}, at most {MAX_TENSOR_RANK} is allowed");
            self.fail(place, message);
        }
        let dims = self.program.dims.len();
        for extent in &tensor.shape {
            self.affine(place, "an extent", extent, |var| match var {
                Var::Dim(dim) => !resident && usize::from(dim) < dims,
                _ => false,
            });
        }
        let allowed = Allowed {
            dims: !resident,
            ..Allowed::default()
        };
        for shard in &tensor.shards {
            self.shard(place, shard, rank, allowed);
        }
        if let TensorKind::Weight(recipe) | TensorKind::State(StateInit::Recipe(recipe)) =
            &tensor.kind
        {
            self.recipe(place, recipe);
        }
        self.loc(place, tensor.loc);
    }

    fn shard(&mut self, place: Place, shard: &Shard, rank: usize, allowed: Allowed) {
        match &shard.home {
            Home::Sram { on, at } => {
                self.region(place, *on);
                self.index(place, "the address of a shard", at, allowed);
            }
            Home::Dram { dram, at } => {
                if self.program.dram.get(*dram).is_none() {
                    self.fail(place, "a shard lies in a dram region that is not declared");
                }
                self.index(place, "the offset of a shard", at, allowed);
            }
        }
        if shard.slice.len() != rank || shard.strides.len() != rank {
            let (slices, strides) = (shard.slice.len(), shard.strides.len());
            let message = format!(
                "a shard has {slices} slices and {strides} strides, the tensor has rank {rank}"
            );
            self.fail(place, message);
        }
        if shard.packing.block() != (1, 1) && rank < 2 {
            self.fail(place, format!("a shard of rank {rank} cannot be packed"));
        }
        for (start, extent) in &shard.slice {
            self.index(place, "the start of a slice", start, allowed);
            self.index(place, "the extent of a slice", extent, allowed);
        }
    }

    /// Ids of recipes; whether their types fit is another rule.
    fn recipe(&mut self, place: Place, recipe: &Recipe) {
        if let Err(why) = recipe.check_tree() {
            self.fail(place, format!("the recipe is malformed: {why}"));
        }
    }

    fn loc(&mut self, place: Place, loc: Option<super::LocId>) {
        if loc.is_some_and(|loc| self.program.locs.get(loc).is_none()) {
            self.fail(place, "the source location does not exist");
        }
    }

    fn entries(&mut self) {
        for (id, entry) in self.program.entries.iter() {
            for tensor in entry.inputs.iter().chain(&entry.outputs) {
                if self.program.tensors.get(*tensor).is_none() {
                    self.fail(Place::Entry(id), "refers to a tensor that is not declared");
                }
            }
            // Positions behind the bodies of enclosing repeats, with their counters.
            let mut open: Vec<(usize, &Arc<str>)> = Vec::new();
            for (at, step) in entry.steps.iter().enumerate() {
                while open.last().is_some_and(|(end, _)| *end <= at) {
                    open.pop();
                }
                let place = Place::Step(id, at as u32);
                match step {
                    Step::Probe(tensor) => {
                        if self.program.tensors.get(*tensor).is_none() {
                            self.fail(place, "refers to a tensor that is not declared");
                        }
                    }
                    Step::Repeat { name, len, .. } => {
                        let end = at + 1 + *len as usize;
                        let limit = open.last().map_or(entry.steps.len(), |(end, _)| *end);
                        if end > limit {
                            self.fail(place, "the body reaches behind the end of what encloses it");
                            break;
                        }
                        if open.len() >= MAX_LOOP_DEPTH {
                            let message = format!("is nested deeper than {MAX_LOOP_DEPTH}");
                            self.fail(place, message);
                            break;
                        }
                        if open.iter().any(|(_, outer)| *outer == name) {
                            self.fail(place, format!("the name %{name} is taken"));
                        }
                        open.push((end, name));
                    }
                    Step::Call { .. } => self.call(place, step, open.len()),
                }
            }
        }
    }

    fn call(&mut self, place: Place, step: &Step, repeats: usize) {
        let Step::Call {
            segment,
            on,
            row,
            loc,
        } = step
        else {
            return;
        };
        self.region(place, *on);
        self.loc(place, *loc);
        let Some(segment) = self.program.segments.get(*segment) else {
            self.fail(place, "calls a segment that is not declared");
            return;
        };
        if segment.params.len() != row.len() {
            let message = format!(
                "segment @{} has {} parameters, the row has {}",
                segment.name,
                segment.params.len(),
                row.len()
            );
            self.found
                .push(Violation::new(codes::BAD_SCHEDULE, place, message));
        }
        let allowed = Allowed {
            repeats,
            dims: true,
            ..Allowed::default()
        };
        for expr in row {
            self.index(place, "an entry of the row", expr, allowed);
        }
    }
}
