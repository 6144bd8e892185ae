//! What it takes to bring operands to the matrix unit, about: for a choice between layouts.
//!
//! The unit takes blocks of 8 x 4 elements of A and 4 x 8 of B. A block that lies in memory as the
//! unit takes it is one access; any other is gathered in pieces. A block is fetched again for every
//! macro tile, which has as many blocks of results as there are accumulators.

use super::super::nest::{Axis, size};
use dojoc_ir::types::DType;

/// Rows (of A and the result), columns, and steps of the sum in a block.
pub(super) const BLOCK: (f64, f64, f64) = (8.0, 8.0, 4.0);
/// Shapes of a macro tile, in blocks.
const TILES: [(f64, f64); 3] = [(2.0, 2.0), (1.0, 4.0), (4.0, 1.0)];
/// Elements of a block of an operand.
const ELEMENTS: f64 = 32.0;
/// Cycles of the access to a block that needs no gathering.
const ACCESS: f64 = 0.5;

/// An operand of a tile product.
pub(super) struct Side {
    /// Axes that are rows of A or columns of B; the last of them in memory first.
    pub free: Vec<Axis>,
    /// Summed axes.
    pub summed: Vec<Axis>,
    /// Which of an axis' steps are the operand's.
    pub which: usize,
    pub dtype: DType,
    /// Whether blocks may span several free axes, or else only the last.
    pub packs_outer: bool,
    /// The largest operand that is rearranged in scratch memory, in bytes.
    pub limit: f64,
}

/// How an operand is read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Reading {
    /// The free axis is the innermost of the view.
    pub free_inside: bool,
    /// Blocks are rearranged in scratch memory first.
    pub packed: bool,
    /// Cycles to gather a block.
    per_block: f64,
    /// Cycles to rearrange a block.
    before: f64,
}

/// Iterations of axes together, at most.
pub(super) fn count(axes: &[Axis]) -> f64 {
    axes.iter().map(|axis| axis.max as f64).product()
}

impl Side {
    /// Neighbouring elements along the last axis.
    fn run(&self, axes: &[Axis]) -> f64 {
        match axes.last() {
            Some(axis) if axis.steps[self.which] == size(self.dtype) => axis.max as f64,
            _ => 1.0,
        }
    }

    /// The ways to read it, those without rearranging first.
    fn readings(&self) -> Vec<Reading> {
        let ways = [false, true].map(|free_inside| {
            let (axes, width) = match free_inside {
                false => (&self.summed, 4.0),
                true => (&self.free, 8.0),
            };
            let run = self.run(axes);
            let pieces = ELEMENTS / run.min(width);
            let way = Reading {
                free_inside,
                packed: false,
                per_block: pieces,
                before: 0.0,
            };
            let apart = self.summed.len() == 1 && !self.free.is_empty();
            let outer = self.free.len() == 1 || (self.packs_outer && !free_inside);
            let bytes = count(&self.free) * count(&self.summed) * self.dtype.bytes() as f64;
            let fits = apart && outer && run >= width && bytes <= self.limit;
            let packed = fits.then_some(Reading {
                packed: true,
                per_block: ACCESS,
                before: ELEMENTS / width + 2.0,
                ..way
            });
            (way, packed)
        });
        let plain = ways.iter().map(|(way, _)| *way);
        plain
            .chain(ways.iter().filter_map(|(_, packed)| *packed))
            .collect()
    }
}

/// How A and B are read at least cost, and the cycles of a product, with those of the matrix unit.
pub(super) fn best(a: &Side, b: &Side) -> (Reading, Reading, f64) {
    let (rows, columns) = (count(&a.free), count(&b.free));
    let blocks = (
        (rows / BLOCK.0).ceil(),
        (columns / BLOCK.1).ceil(),
        (count(&a.summed) / BLOCK.2).ceil(),
    );
    let (of_a, of_b) = (blocks.0 * blocks.2, blocks.1 * blocks.2);
    let steps = blocks.0 * blocks.1 * blocks.2;
    let mut best: Option<(Reading, Reading, f64)> = None;
    for read_a in a.readings() {
        for read_b in b.readings() {
            let fetches = TILES.map(|(high, wide)| {
                let (high, wide) = (high.min(blocks.0), wide.min(blocks.1));
                let sweeps = ((blocks.1 / wide).ceil(), (blocks.0 / high).ceil());
                sweeps.0 * of_a * read_a.per_block + sweeps.1 * of_b * read_b.per_block
            });
            let fetch = fetches.into_iter().fold(f64::INFINITY, f64::min);
            let cycles = steps.max(fetch) + of_a * read_a.before + of_b * read_b.before;
            if best.is_none_or(|(.., least)| cycles < least) {
                best = Some((read_a, read_b, cycles));
            }
        }
    }
    best.unwrap_or_else(|| {
        let plain = Reading {
            free_inside: false,
            packed: false,
            per_block: 0.0,
            before: 0.0,
        };
        (plain, plain, steps)
    })
}
