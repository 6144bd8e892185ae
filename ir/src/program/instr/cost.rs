//! What the prices of instructions have in common.
//!
//! The machine's figures come from its file. What is counted here are instructions of a core: how
//! many accesses a view takes, how many vectors, how many operations per vector a function needs.
//!
//! Assumptions, none of them public:
//!
//! - A vector holds elements that lie side by side. It does not cross the end of a *run* (what lies
//!   contiguously in row-major order), so that short runs leave lanes idle.
//! - Where runs are so short that the gather engine is faster than one access for each of them, it
//!   fills whole vectors; it takes its largest granule per run or part of it. There is no such
//!   engine for stores.
//! - An element that repeats (stride zero in the innermost dimensions) is loaded once per
//!   repetition and broadcast on its way.
//! - Two accesses to the same bank do not happen in one cycle: runs whose distance keeps them in
//!   one bank use one load port.
//! - Types without SIMD lanes are computed with element by element on the scalar side, through its
//!   own path to SRAM.

use super::Cost;
use crate::machine::Machine;
use crate::program::{Packing, ViewType};
use crate::types::DType;

/// SIMD operations of a division or a square root, for which there is no unit: an estimate, two
/// Newton steps, a correction.
pub(super) const DIVISION: f64 = 8.0;

/// Scalar operations of a division of integers without a divider: shift, compare and subtract for
/// every second bit.
pub(super) const SCALAR_DIVISION: f64 = 96.0;

/// SIMD operations of an integer division: by way of a reciprocal in f32, with corrections.
pub(super) const INTEGER_DIVISION: f64 = 16.0;

/// Vector lanes that compute with a type; `None` if only the scalar side does. Narrow integers are
/// widened on their way.
pub(super) fn lanes(dtype: DType, machine: &Machine) -> Option<u64> {
    let simd = &machine.simd;
    let lanes = match dtype {
        DType::F32 => simd.f32_lanes.value,
        DType::Bf16 => simd.bf16_lanes.value,
        DType::F16 => simd.f16_lanes.value,
        DType::U8 | DType::I8 | DType::U16 | DType::I16 | DType::U32 | DType::I32 => {
            simd.i32_lanes.value
        }
        DType::Cfp8E4M3 | DType::Cfp8E5M2 => simd.cfp8_lanes.value,
        // Bits and codes need no arithmetic: the width of a register counts.
        DType::Bool | DType::Shp | DType::Uhp => {
            machine.core.vector_register_width.value / dtype.bytes() as u32
        }
        DType::U64 | DType::I64 | DType::F64 => return None,
    };
    Some(u64::from(lanes))
}

/// Lanes for operations on bits, whatever they mean.
pub(super) fn byte_lanes(dtype: DType, machine: &Machine) -> u64 {
    (u64::from(machine.core.vector_register_width.value) / dtype.bytes()).max(1)
}

/// How a view lies in memory: equal pieces of neighbouring bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Runs {
    /// How many.
    pub count: u64,
    /// Elements of one.
    pub elements: u64,
    /// Bytes that one touches: fewer than its elements have where one repeats.
    pub bytes: u64,
    /// Bytes from one to the next.
    pub step: u64,
}

impl Runs {
    /// Of a view. A packed one is taken block by block in the order of its blocks with
    /// `whole_blocks`, and else row by row of each block.
    pub fn of(view: &ViewType, whole_blocks: bool) -> Self {
        let size = view.dtype.bytes();
        let (rows, columns) = view.packing.block();
        let rank = view.shape.len();
        let packed = view.packing != Packing::Strided;
        if packed && !whole_blocks {
            let columns_of_blocks = view.shape[rank - 1].div_ceil(columns);
            let outer = view.shape[..rank - 1].iter();
            return Self {
                count: outer.fold(columns_of_blocks, |n, d| n.saturating_mul(*d)),
                elements: columns,
                bytes: columns * size,
                step: columns * size,
            };
        }
        let unit = rows * columns;
        let mut runs = Self {
            count: 1,
            elements: unit,
            bytes: unit * size,
            step: unit * size,
        };
        let mut repeats = None;
        for d in (0..rank).rev() {
            let extent = match rank - d {
                1 => view.shape[d].div_ceil(columns),
                2 => view.shape[d].div_ceil(rows),
                _ => view.shape[d],
            };
            let stride = view.strides[d].unsigned_abs();
            if extent == 1 {
                continue;
            }
            let joins = runs.count == 1
                && match repeats {
                    None => stride == 0 || stride == runs.bytes,
                    Some(true) => stride == 0,
                    Some(false) => stride == runs.bytes,
                };
            if joins {
                repeats = Some(stride == 0);
                runs.elements = runs.elements.saturating_mul(extent);
                if stride != 0 {
                    runs.bytes = runs.bytes.saturating_mul(extent);
                }
            } else {
                if runs.count == 1 {
                    runs.step = stride;
                }
                // A dimension of extent 0 makes the whole empty.
                runs.count = runs.count.saturating_mul(extent);
            }
            if extent == 0 {
                runs.count = 0;
                break;
            }
        }
        runs
    }
}

/// Adds up what an instruction occupies.
pub(super) struct Meter<'m> {
    machine: &'m Machine,
    cost: Cost,
    /// Vector and scalar accesses, which the address units make.
    accesses: f64,
    /// Vector operations, which the vector scheduler issues.
    operations: f64,
    /// Elements between the ends of vectors.
    run: u64,
    /// Whether elements go through the scalar side.
    scalar: bool,
}

impl<'m> Meter<'m> {
    /// For an instruction that computes with elements of this type.
    pub fn new(machine: &'m Machine, computes: DType) -> Self {
        Self {
            scalar: lanes(computes, machine).is_none(),
            ..Self::moves(machine)
        }
    }

    /// For an instruction that moves bits only.
    pub fn moves(machine: &'m Machine) -> Self {
        Self {
            machine,
            cost: Cost::default(),
            accesses: 0.0,
            operations: 0.0,
            run: u64::MAX,
            scalar: false,
        }
    }

    /// For an instruction whose elements all go through the scalar side.
    pub fn on_scalars(machine: &'m Machine) -> Self {
        Self {
            scalar: true,
            ..Self::moves(machine)
        }
    }

    /// Reads all elements of a view one by one, whatever else is done in vectors.
    pub fn read_scalars(&mut self, view: &ViewType) {
        let scalar = std::mem::replace(&mut self.scalar, true);
        self.read(view);
        self.scalar = scalar;
    }

    /// Reads all elements of a view once.
    pub fn read(&mut self, view: &ViewType) {
        self.read_runs(view, Runs::of(view, false), 1.0);
    }

    /// Reads all elements of a view several times.
    pub fn read_times(&mut self, view: &ViewType, times: f64) {
        self.read_runs(view, Runs::of(view, false), times);
    }

    /// Reads a view several times, `runs` being how.
    pub fn read_runs(&mut self, view: &ViewType, runs: Runs, times: f64) {
        let sram = &self.machine.sram;
        if runs.count == 0 {
            return;
        }
        if self.scalar {
            let path = u64::from(sram.scalar_read.value);
            let elements = view.elements() as f64 * times;
            self.cost.load += elements * view.dtype.bytes().div_ceil(path) as f64;
            self.accesses += elements;
            return;
        }
        let count = runs.count as f64 * times;
        let by_port = runs.bytes.div_ceil(sram.load_port.value.into()) as f64;
        match self.gather(runs) {
            Some(pieces) => {
                self.cost.load += count * pieces / f64::from(self.machine.gather.rate.value);
                let vector = f64::from(self.machine.core.vector_register_width.value);
                self.accesses += (count * runs.bytes as f64 / vector).ceil();
            }
            None => {
                self.cost.load += count * by_port / f64::from(self.load_ports(runs));
                self.accesses += count * by_port;
                self.run = self.run.min(runs.elements);
            }
        }
    }

    /// Granules of a run, where gathering is no slower than an access per run.
    fn gather(&self, runs: Runs) -> Option<f64> {
        let gather = &self.machine.gather;
        let granule = gather.granules.value.iter().copied().max()?;
        let pieces = runs.bytes.div_ceil(granule.into()) as f64;
        let by_port = runs
            .bytes
            .div_ceil(self.machine.sram.load_port.value.into()) as f64;
        let faster = pieces <= by_port * f64::from(gather.rate.value);
        let repeats = runs.bytes < runs.elements;
        (runs.count > 1 && faster && !repeats).then_some(pieces)
    }

    /// Load ports that can work at once on such runs.
    fn load_ports(&self, runs: Runs) -> u32 {
        let sram = &self.machine.sram;
        let width = u64::from(sram.bank_width.value);
        if runs.count == 1 || runs.bytes > width {
            return sram.load_ports.value;
        }
        let around = u64::from(sram.banks.value) * width;
        if runs.step.is_multiple_of(around) {
            1
        } else {
            sram.load_ports.value
        }
    }

    /// Writes all elements of a view, in the vectors that the operands read so far allow.
    pub fn write(&mut self, view: &ViewType) {
        let runs = Runs::of(view, false);
        let size = view.dtype.bytes();
        let elements = runs.elements.min(self.run);
        self.write_runs(
            view,
            Runs {
                count: if runs.count == 0 {
                    0
                } else {
                    view.elements().div_ceil(elements)
                },
                elements,
                bytes: elements.saturating_mul(size),
                step: runs.step,
            },
        );
    }

    /// Writes a view, `runs` being how.
    pub fn write_runs(&mut self, view: &ViewType, runs: Runs) {
        let sram = &self.machine.sram;
        if runs.count == 0 {
            return;
        }
        if self.scalar {
            let path = u64::from(sram.scalar_write.value);
            let elements = view.elements() as f64;
            self.cost.store += elements * view.dtype.bytes().div_ceil(path) as f64;
            self.accesses += elements;
            return;
        }
        let port = u64::from(sram.store_port.value);
        let accesses = runs.count as f64 * runs.bytes.div_ceil(port) as f64;
        self.cost.store += accesses / f64::from(sram.store_ports.value);
        self.accesses += accesses;
        self.run = self.run.min(runs.elements);
    }

    /// Applies `operations` to each of `elements` elements, in the lanes of a type.
    pub fn compute(&mut self, operations: f64, elements: u64, dtype: DType) {
        match lanes(dtype, self.machine) {
            Some(lanes) if !self.scalar => self.in_lanes(operations, elements, lanes),
            _ => self.on_scalar_side(operations, elements),
        }
    }

    /// Applies `operations` to each of `elements` elements, so many at a time.
    pub fn in_lanes(&mut self, operations: f64, elements: u64, lanes: u64) {
        let run = self.run.max(1);
        let vectors = if run >= elements {
            elements.div_ceil(lanes) as f64
        } else {
            (elements / run) as f64 * run.div_ceil(lanes) as f64
                + (elements % run).div_ceil(lanes) as f64
        };
        self.vector_operations(operations * vectors);
    }

    /// Adds operations on whole vectors, or on single elements where the scalar side computes.
    pub fn vector_or_scalar(&mut self, operations: f64) {
        if self.scalar {
            self.cost.scalar += operations / f64::from(self.machine.core.integer_alus.value);
        } else {
            self.vector_operations(operations);
        }
    }

    /// Adds operations on whole vectors.
    pub fn vector_operations(&mut self, operations: f64) {
        self.cost.simd += operations / f64::from(self.machine.simd.pipes.value);
        self.operations += operations;
    }

    /// Applies `operations` to each of `elements` elements, one by one.
    pub fn on_scalar_side(&mut self, operations: f64, elements: u64) {
        let units = f64::from(self.machine.core.integer_alus.value);
        self.cost.scalar += operations * elements as f64 / units;
    }

    /// Adds cycles of the matrix unit.
    pub fn matrix(&mut self, cycles: f64) {
        self.cost.matrix += cycles;
    }

    /// Adds accesses of a load port, each as wide as it at most.
    pub fn load_accesses(&mut self, accesses: f64) {
        self.cost.load += accesses / f64::from(self.machine.sram.load_ports.value);
        self.accesses += accesses;
    }

    /// Adds pieces of the gather engine, which fill so many vectors.
    pub fn gathered(&mut self, pieces: f64, vectors: f64) {
        self.cost.load += pieces / f64::from(self.machine.gather.rate.value);
        self.accesses += vectors;
    }

    /// Forgets where vectors end, for a part of an instruction with other operands.
    pub fn other_vectors(&mut self) {
        self.run = u64::MAX;
    }

    /// Operations that wait for each other, so many after another.
    pub fn chain(&mut self, operations: f64) {
        let step = if self.scalar {
            1.0
        } else {
            f64::from(self.machine.simd.latency.value)
        };
        self.cost.latency += operations * step;
    }

    /// The sum. Accesses go through the address units, vector operations through the vector
    /// scheduler, and the instruction itself through the front end.
    pub fn finish(self) -> Cost {
        let core = &self.machine.core;
        let issue = (self.accesses / f64::from(core.address_units.value))
            .max(self.operations / f64::from(core.vector_issue.value))
            .max(1.0 / f64::from(core.decode.value));
        let mut latency = self.cost.latency + f64::from(self.machine.sram.latency.value);
        if self.operations > 0.0 {
            latency += f64::from(self.machine.simd.latency.value);
        }
        Cost {
            issue,
            latency,
            ..self.cost
        }
    }
}

/// The price of `operations` on each element of `reads`, in vectors or, for a type without lanes,
/// one by one, with one result.
pub(super) fn elementwise(
    machine: &Machine,
    computes: DType,
    operations: f64,
    y: &ViewType,
    reads: &[&ViewType],
) -> Cost {
    let mut meter = Meter::new(machine, computes);
    for view in reads {
        meter.read(view);
    }
    meter.write(y);
    meter.compute(operations, y.elements(), computes);
    meter.finish()
}

/// As [`elementwise`] for functions that are computed in f32 whatever the type: 16-bit floats are
/// converted before and after.
pub(super) fn in_f32(operations: f64, operands: usize, dtype: DType) -> (f64, DType) {
    match dtype {
        DType::Bf16 | DType::F16 => (operations + operands as f64 + 1.0, DType::F32),
        other => (operations, other),
    }
}

/// The price of moving bits with `operations` on each vector.
pub(super) fn moving(
    machine: &Machine,
    operations: f64,
    y: &ViewType,
    reads: &[&ViewType],
) -> Cost {
    let mut meter = Meter::moves(machine);
    for view in reads {
        meter.read(view);
    }
    meter.write(y);
    meter.in_lanes(operations, y.elements(), byte_lanes(y.dtype, machine));
    meter.finish()
}

/// Steps of a binary tree over `n` things.
pub(super) fn tree_depth(n: u64) -> f64 {
    f64::from(u64::BITS - n.saturating_sub(1).leading_zeros())
}

/// The price of a statement that only passes through the front end.
pub(super) fn front_end(machine: &Machine) -> Cost {
    Cost {
        issue: 1.0 / f64::from(machine.core.decode.value),
        ..Cost::default()
    }
}
