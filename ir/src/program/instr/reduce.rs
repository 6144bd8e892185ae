//! Reductions, scans, positions of extrema.

use super::check::{Kind, last_dimension, strided};
use super::cost::{Meter, lanes, tree_depth};
use super::sample::{dense, dtypes};
use super::{Access, Cost, InstrDef, InstrInfo, Role, function_struct, function_text, functions};
use crate::attr::Flag;
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::DType;

/// Elements of the last `dims` dimensions, and of the others.
fn split_inner(x: &ViewType, dims: usize) -> (u64, u64) {
    let (outer, inner) = x.shape.split_at(x.shape.len().saturating_sub(dims));
    let product = |dims: &[u64]| dims.iter().fold(1u64, |n, d| n.saturating_mul(*d));
    (product(inner), product(outer))
}

functions! {
    /// Reductions.
    ReduceFunction {
        /// The sum; 0 of nothing.
        Sum "reduce.sum",
        /// The product; 1 of nothing.
        Prod "reduce.prod",
        /// The smallest, as `min`; the largest number (Inf) of nothing.
        Min "reduce.min",
        /// The largest, as `max`; the smallest number (-Inf) of nothing.
        Max "reduce.max",
        /// All, for bool; 1 of nothing.
        And "reduce.and",
        /// Any, for bool; 0 of nothing.
        Or "reduce.or",
    }
}

function_struct! {
    /// `reduce.sum y, x` and the like: y `[outer..]` is the reduction of x `[outer.., inner..]` over its
    /// last `dims` dimensions, at least one, counted row-major. x is f32, bf16, f16, an integer
    /// (wrapping) or, for `and` and `or`, bool; y has the same type, or is f32 where x is bf16 or f16. Computed in f32 for
    /// 16-bit floats and rounded once. The order of combination is that of the runtime's `kernels`:
    /// 32 lanes, then a tree. With `accumulate`, y is combined with the result: `f(y, result)`.
    Reduce(ReduceFunction) {
        /// How many of the innermost dimensions are reduced.
        dims: usize,
        /// Combine with what y holds.
        accumulate: Flag,
    }
}

impl InstrDef for Reduce {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &ReduceFunction| InstrInfo {
            mnemonic: function.name(),
            family: "reduce",
            doc: function.doc(),
            rules: Self::RULES,
            stands_for: "Vector instructions over the view, then shuffles and operations that halve a register \
                         until one lane is left. Shuffles are in Tesla's list of instructions; reductions \
                         within a register are not mentioned.",
            confidence: Confidence::Proposed,
            cost: "SIMD: one operation per vector of x (two for 16-bit floats, which are widened), and for \
                   each element of y as many as the tree over the lanes is deep, which is also the \
                   latency. Scalar side for types without lanes. Loads of x, loads and stores of y.",
        };
        ReduceFunction::ALL.iter().map(info).collect()
    }

    function_text!(ReduceFunction);

    fn roles(&self) -> Vec<Role> {
        let access = if *self.accumulate {
            Access::Update
        } else {
            Access::Write
        };
        vec![Role { name: "y", access }, Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = strided(["y", "x"], operands)?;
        let kept = x.rank().checked_sub(self.dims).filter(|_| self.dims > 0);
        let Some(kept) = kept else {
            let (dims, rank) = (self.dims, x.rank());
            return Err(format!(
                "reduces {dims} dimensions of `x`, which has {rank}"
            ));
        };
        x.of_kind(match self.function {
            ReduceFunction::And | ReduceFunction::Or => &[Kind::Bool],
            _ => &[Kind::Float, Kind::Int],
        })?;
        let widened = y.ty.dtype == DType::F32 && matches!(x.ty.dtype, DType::Bf16 | DType::F16);
        if !widened {
            y.typed_as(x)?;
        }
        y.shaped(
            x.shape()[..kept].iter().copied(),
            "those of `x` that are kept",
        )?;
        y.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x] = operands else {
            return Cost::default();
        };
        let mut meter = Meter::new(machine, x.dtype);
        meter.read(x);
        let (operations, dtype) = match x.dtype {
            // Widened; the sums stay in f32.
            DType::Bf16 | DType::F16 => (2.0, DType::F32),
            other => (1.0, other),
        };
        meter.compute(operations, x.elements(), dtype);
        let (inner, outer) = split_inner(x, self.dims);
        let depth = tree_depth(inner.min(lanes(dtype, machine).unwrap_or(1)));
        let last = if *self.accumulate { 1.0 } else { 0.0 };
        meter.vector_or_scalar(outer as f64 * (depth + last));
        meter.chain(depth + last);
        meter.other_vectors();
        if *self.accumulate {
            meter.read(y);
        }
        meter.write(y);
        meter.finish()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for &function in ReduceFunction::ALL {
            let kinds: &[Kind] = match function {
                ReduceFunction::And | ReduceFunction::Or => &[Kind::Bool],
                _ => &[Kind::Float, Kind::Int],
            };
            for dtype in dtypes(kinds) {
                for (dims, accumulate) in [(1, false), (2, true)] {
                    let reduce = Self {
                        function,
                        dims,
                        accumulate: Flag(accumulate),
                    };
                    let shape = [3, 4, 50];
                    let y = dense(dtype, &shape[..3 - dims]);
                    samples.push((reduce, vec![y, dense(dtype, &shape)]));
                }
            }
        }
        let function = ReduceFunction::Sum;
        let widened = Self {
            function,
            dims: 1,
            accumulate: Flag(false),
        };
        let operands = vec![dense(DType::F32, &[4]), dense(DType::Bf16, &[4, 64])];
        samples.push((widened, operands));
        samples
    }
}

functions! {
    /// Positions of extrema.
    ArgFunction {
        /// Position of the largest; the first NaN if there is one.
        ArgMax "argmax",
        /// Position of the smallest; the first NaN if there is one.
        ArgMin "argmin",
    }
}

function_struct! {
    /// `argmax y, x`: y `[outer..]`, i32 or i64, is the position of the extremum of x `[outer.., n]` along
    /// its last dimension, n > 0; the first of several equal ones, or the last. f32,
    /// bf16, f16 and integers.
    ArgReduce(ArgFunction) {
        /// Take the last of several equal ones.
        last: Flag,
    }
}

impl InstrDef for ArgReduce {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &ArgFunction| InstrInfo {
            mnemonic: function.name(),
            family: "reduce",
            doc: function.doc(),
            rules: Self::RULES,
            stands_for: "Vector comparisons that carry positions along, then a tree over the lanes.",
            confidence: Confidence::Proposed,
            cost: "As a reduction with three operations for each: compare, select the value, select the \
                   position.",
        };
        ArgFunction::ALL.iter().map(info).collect()
    }

    function_text!(ArgFunction);

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = strided(["y", "x"], operands)?;
        let (y_shape, n) = last_dimension(x)?;
        x.of_kind(&[Kind::Float, Kind::Int])?;
        if n == 0 {
            return Err("needs at least one element along the last dimension of `x`".into());
        }
        y.positions(n)?;
        y.shaped(y_shape.iter().copied(), "those of `x` but the last")?;
        y.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x] = operands else {
            return Cost::default();
        };
        let mut meter = Meter::new(machine, x.dtype);
        meter.read(x);
        let (operations, dtype) = match x.dtype {
            DType::Bf16 | DType::F16 => (1.0, DType::F32),
            other => (0.0, other),
        };
        // A comparison and two selections, for values and positions.
        meter.compute(operations + 3.0, x.elements(), dtype);
        let (inner, outer) = split_inner(x, 1);
        let depth = tree_depth(inner.min(lanes(dtype, machine).unwrap_or(1)));
        meter.vector_or_scalar(3.0 * outer as f64 * depth);
        meter.chain(3.0 * depth);
        meter.other_vectors();
        meter.write(y);
        meter.finish()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for &function in ArgFunction::ALL {
            for dtype in dtypes(&[Kind::Float, Kind::Int]) {
                for (last, positions) in [(false, DType::I32), (true, DType::I64)] {
                    let operands = vec![dense(positions, &[4]), dense(dtype, &[4, 30])];
                    samples.push((
                        Self {
                            function,
                            last: Flag(last),
                        },
                        operands,
                    ));
                }
            }
        }
        samples
    }
}

functions! {
    /// Running reductions.
    ScanFunction {
        /// Running sum.
        Sum "scan.sum",
        /// Running product.
        Prod "scan.prod",
        /// Running maximum, as `max`.
        Max "scan.max",
        /// Running minimum, as `min`.
        Min "scan.min",
    }
}

function_struct! {
    /// `scan.sum y, x`: y[.., i] combines x[.., 0..=i] in ascending order. Same extents and type,
    /// f32, bf16, f16 and integers; 16-bit floats are carried in f32 and rounded for each element.
    Scan(ScanFunction) {
        /// Leave out element i itself, starting from the identity.
        exclusive: Flag,
        /// From the last element to the first.
        reverse: Flag,
    }
}

impl InstrDef for Scan {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &ScanFunction| InstrInfo {
            mnemonic: function.name(),
            family: "reduce",
            doc: function.doc(),
            rules: Self::RULES,
            stands_for: "Vector instructions that step along rows, one row per lane.",
            confidence: Confidence::Proposed,
            cost: "SIMD: one operation (three for 16-bit floats) per element of a row and vector of rows; \
                   the latency is that of a row's elements one after another. Loads and stores of the \
                   views.",
        };
        ScanFunction::ALL.iter().map(info).collect()
    }

    function_text!(ScanFunction);

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = strided(["y", "x"], operands)?;
        x.of_kind(&[Kind::Float, Kind::Int])?;
        x.rank_at_least(1)?;
        y.like(x)?;
        y.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x] = operands else {
            return Cost::default();
        };
        let mut meter = Meter::new(machine, x.dtype);
        meter.read(x);
        meter.write(y);
        meter.other_vectors();
        let (operations, dtype) = match x.dtype {
            DType::Bf16 | DType::F16 => (3.0, DType::F32),
            other => (1.0, other),
        };
        // Rows are independent of each other and take the lanes; elements of a row follow each other.
        let (inner, outer) = split_inner(x, 1);
        let together = lanes(dtype, machine).unwrap_or(1);
        let vectors = inner as f64 * outer.div_ceil(together) as f64;
        meter.vector_or_scalar(operations * vectors);
        meter.chain(inner as f64);
        meter.finish()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for &function in ScanFunction::ALL {
            for dtype in dtypes(&[Kind::Float, Kind::Int]) {
                for (exclusive, reverse) in [(false, false), (true, true)] {
                    let scan = Self {
                        function,
                        exclusive: Flag(exclusive),
                        reverse: Flag(reverse),
                    };
                    samples.push((scan, vec![dense(dtype, &[3, 21]); 2]));
                }
            }
        }
        samples
    }
}
