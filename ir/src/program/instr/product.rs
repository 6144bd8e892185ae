//! The price of tile products.
//!
//! Assumptions beside those of [`cost`](super::cost):
//!
//! - The matrix unit works on a *macro tile* of as many output blocks as it has accumulators, in the
//!   shape that needs the fewest loads, through all steps of k. A block of an operand is loaded once
//!   per macro tile and step and used for all of its row or column; nothing is kept from one macro
//!   tile to the next.
//! - Between macro tiles the unit waits for its last results and for one block to be read (and, if
//!   earlier values are accumulated onto, for one to be written); the other blocks overlap.
//! - A block that lies in memory as the unit reads it takes as many accesses as its bytes fill. Any
//!   other is gathered in pieces. Where rows and columns are exchanged, a shuffle follows.
//! - Operands that the unit does not take are multiplied by the SIMD unit: vectors along n, sums in
//!   registers, each element of A broadcast as it is loaded.

use super::Cost;
use super::cost::{Meter, Runs, byte_lanes, lanes};
use super::matrix::{Activation, MatMul};
use crate::machine::{Machine, Operand};
use crate::program::{Packing, ViewType};
use crate::types::DType;

/// Rows, steps and columns.
#[derive(Clone, Copy)]
struct Extents {
    m: u64,
    k: u64,
    n: u64,
}

/// What it takes to read all blocks of an operand once.
#[derive(Clone, Copy, Default)]
struct Fetch {
    accesses: f64,
    pieces: f64,
    blocks: f64,
    shuffles: f64,
}

impl Fetch {
    fn cycles(self, machine: &Machine) -> f64 {
        self.accesses / f64::from(machine.sram.load_ports.value)
            + self.pieces / f64::from(machine.gather.rate.value)
    }
}

/// What comes out of the arithmetic: how many registers of results, and the part of a row of C that
/// lies in neighbouring registers.
struct Results {
    registers: f64,
    columns: u64,
    row_tiles: u64,
}

/// The price of a product.
pub(super) fn cost(instr: &MatMul, operands: &[ViewType], machine: &Machine) -> Cost {
    let [c, a, b, rest @ ..] = operands else {
        return Cost::default();
    };
    let Ok(product) = instr.product(a, b) else {
        return Cost::default();
    };
    let x = Extents {
        m: product.m.iter().fold(1, |m, d| m.saturating_mul(*d)),
        k: product.k,
        n: product.n,
    };
    let mut meter = Meter::moves(machine);
    if x.m == 0 || x.n == 0 {
        return meter.finish();
    }
    let operand = match a.dtype {
        DType::F32 => Operand::F32,
        DType::Bf16 => Operand::Bf16,
        _ => Operand::Cfp8,
    };
    let results = if machine.matrix.operands.value.contains(&operand) {
        on_matrix_unit(instr, x, a, b, machine, &mut meter)
    } else {
        on_simd_unit(instr, x, a, b, machine, &mut meter)
    };
    epilogue(instr, c, rest, &results, &mut meter);
    let own = Runs::of(c, true);
    let elements = match c.packing {
        Packing::Strided => own.elements.min(results.columns),
        _ => own.elements,
    };
    let covered = own.count.saturating_mul(own.elements);
    let bytes = elements.saturating_mul(c.dtype.bytes());
    let runs = Runs {
        count: covered.div_ceil(elements.max(1)),
        elements,
        bytes,
        step: bytes,
    };
    meter.write_runs(c, runs);
    meter.finish()
}

fn on_matrix_unit(
    instr: &MatMul,
    x: Extents,
    a: &ViewType,
    b: &ViewType,
    machine: &Machine,
    meter: &mut Meter<'_>,
) -> Results {
    let unit = &machine.matrix;
    let (rows, columns, depth) = (
        u64::from(unit.rows.value),
        u64::from(unit.columns.value),
        u64::from(unit.depth.value),
    );
    let (mb, nb, kb) = (
        x.m.div_ceil(rows),
        x.n.div_ceil(columns),
        x.k.div_ceil(depth),
    );
    // Sizes of a block as it lies in memory, and whether rows and columns must be exchanged.
    let a_block = if *instr.transpose_a {
        (depth, rows)
    } else {
        (rows, depth)
    };
    let b_block = if *instr.transpose_b {
        (columns, depth)
    } else {
        (depth, columns)
    };
    let of_a = fetch(a, mb * kb, a_block, *instr.transpose_a, machine);
    let of_b = fetch(b, nb * kb, b_block, *instr.transpose_b, machine);
    let accumulators = u64::from(unit.accumulators.value);
    let shapes = (1..=accumulators.min(mb)).map(|r| (r, (accumulators / r).min(nb)));
    let sweeps = |(r, s): (u64, u64)| (nb.div_ceil(s) as f64, mb.div_ceil(r) as f64);
    let price = |shape| {
        let (for_a, for_b) = sweeps(shape);
        for_a * of_a.cycles(machine) + for_b * of_b.cycles(machine)
    };
    let best = shapes
        .min_by(|x, y| price(*x).total_cmp(&price(*y)))
        .unwrap_or((1, 1));
    let (for_a, for_b) = sweeps(best);
    for (fetch, times) in [(of_a, for_a), (of_b, for_b)] {
        meter.load_accesses(fetch.accesses * times);
        if fetch.pieces > 0.0 {
            meter.gathered(fetch.pieces * times, fetch.blocks * times);
        }
        meter.vector_operations(fetch.shuffles * times);
    }
    let block_bits = rows * columns * u64::from(unit.accumulator_width.value);
    let register_bits = 8 * u64::from(machine.core.vector_register_width.value);
    let per_block = block_bits.div_ceil(register_bits) as f64;
    let transfer = per_block / f64::from(machine.simd.pipes.value);
    let reloads = if *instr.accumulate { 1.0 } else { 0.0 };
    let step = machine.matrix_step_cycles((best.0 * best.1) as u32);
    let stall = f64::from(unit.latency.value) + (1.0 + reloads) * transfer;
    let steps = mb as f64 * nb as f64 * kb as f64;
    let tiles = for_a * for_b;
    meter.matrix((steps * step + tiles * stall) / f64::from(unit.units.value));
    let registers = mb as f64 * nb as f64 * per_block;
    meter.vector_operations((1.0 + reloads) * registers);
    Results {
        registers,
        columns: best.1 * columns,
        row_tiles: mb.div_ceil(best.0),
    }
}

/// How the blocks of an operand come from memory, `block` being their rows and columns there.
fn fetch(
    view: &ViewType,
    blocks: u64,
    block: (u64, u64),
    exchanged: bool,
    machine: &Machine,
) -> Fetch {
    let size = view.dtype.bytes();
    let port = u64::from(machine.sram.load_port.value);
    let elements = block.0 * block.1;
    let shuffles = if exchanged { blocks as f64 } else { 0.0 };
    let runs = Runs::of(view, false);
    let run = match view.packing {
        Packing::Strided if runs.bytes == runs.elements * size => runs.elements,
        Packing::Strided => 1,
        packing => packing.block().1,
    };
    let in_place = match view.packing {
        Packing::Strided => view.shape.last() == Some(&block.1) && run >= elements,
        packing => packing.block() == block,
    };
    if in_place {
        let bytes = elements * size;
        let adjacent = view.packing == Packing::Strided
            || view
                .strides
                .last()
                .is_some_and(|s| s.unsigned_abs() == bytes);
        let accesses = if adjacent {
            (blocks as f64 * bytes as f64 / port as f64).ceil()
        } else {
            blocks as f64 * bytes.div_ceil(port) as f64
        };
        return Fetch {
            accesses,
            shuffles,
            ..Fetch::default()
        };
    }
    let granule = machine.gather.granules.value.iter().copied().max();
    let granule = u64::from(granule.unwrap_or(1));
    let piece = run.clamp(1, block.1);
    let pieces = elements.div_ceil(piece) * (piece * size).div_ceil(granule);
    Fetch {
        pieces: blocks as f64 * pieces as f64,
        blocks: blocks as f64,
        shuffles,
        accesses: 0.0,
    }
}

fn on_simd_unit(
    instr: &MatMul,
    x: Extents,
    a: &ViewType,
    b: &ViewType,
    machine: &Machine,
    meter: &mut Meter<'_>,
) -> Results {
    let dtype = if a.dtype == DType::F32 {
        DType::F32
    } else {
        DType::Bf16
    };
    let width = lanes(dtype, machine).unwrap_or(1);
    let vectors = x.n.div_ceil(width);
    // One register holds the element of A, one per vector the row of B, the rest are sums.
    let registers = u64::from(machine.core.vector_registers.value);
    let shapes = (1..=registers.min(x.m)).map(|r| {
        let s = (registers.saturating_sub(1) / (r + 1)).clamp(1, vectors);
        (r, s)
    });
    let accesses = |(r, s): (u64, u64)| {
        x.m as f64 * vectors.div_ceil(s) as f64 + vectors as f64 * x.m.div_ceil(r) as f64
    };
    let best = shapes
        .min_by(|x, y| accesses(*x).total_cmp(&accesses(*y)))
        .unwrap_or((1, 1));
    let (m, k) = (x.m as f64, x.k as f64);
    let row_tiles = x.m.div_ceil(best.0);
    meter.load_accesses(m * k * vectors.div_ceil(best.1) as f64);
    let runs = Runs::of(b, false);
    let along_n = !*instr.transpose_b && runs.bytes > b.dtype.bytes();
    let rows_of_b = row_tiles as f64 * k * vectors as f64;
    if along_n {
        meter.load_accesses(rows_of_b);
    } else {
        meter.gathered(row_tiles as f64 * k * x.n as f64, rows_of_b);
    }
    if a.dtype.bytes() == 1 {
        let converted = x.k.saturating_mul(x.m.saturating_add(x.n));
        meter.in_lanes(1.0, converted, byte_lanes(a.dtype, machine));
    }
    // A sum can take its next product only after the latency of the last one.
    let independent = (best.0 * best.1) as f64;
    let spacing = (f64::from(machine.simd.latency.value) / independent).max(1.0);
    meter.vector_operations(m * k * vectors as f64 * spacing);
    Results {
        registers: m * vectors as f64,
        columns: best.1 * width,
        row_tiles,
    }
}

/// Reads what is added to the sums and applies the epilogue to the registers of results.
fn epilogue(
    instr: &MatMul,
    c: &ViewType,
    rest: &[ViewType],
    results: &Results,
    meter: &mut Meter<'_>,
) {
    let mut rest = rest.iter();
    let mut operations = 0.0;
    if *instr.sums {
        if let Some(sums) = rest.next() {
            meter.read_runs(sums, Runs::of(sums, true), 1.0);
        }
    } else if *instr.accumulate {
        meter.read_runs(c, Runs::of(c, true), 1.0);
    }
    if *instr.bias {
        if let Some(bias) = rest.next() {
            meter.read_times(bias, results.row_tiles as f64);
        }
        operations += 1.0;
    }
    if instr.residual.is_some()
        && let Some(residual) = rest.next()
    {
        meter.read_runs(residual, Runs::of(residual, true), 1.0);
        let widened = residual.dtype != DType::F32;
        operations += if widened { 2.0 } else { 1.0 };
    }
    operations += instr.activation.map_or(0.0, Activation::operations);
    if c.dtype == DType::Bf16 {
        operations += if instr.stochastic.is_some() { 2.0 } else { 1.0 };
    }
    meter.vector_operations(operations * results.registers);
}
