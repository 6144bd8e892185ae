//! Sorting and selection.

use super::check::{Kind, last_dimension, strided};
use super::cost::{Meter, tree_depth};
use super::sample::{dense, dtypes};
use super::{Cost, InstrDef, InstrInfo, Role, instr_struct, instr_text};
use crate::attr::Flag;
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::DType;

/// Scalar operations of a step of a sort: compare, select, and move a key and its position.
const STEP: f64 = 4.0;

/// The price of `steps` for every element of x.
fn on_scalar_side(machine: &Machine, x: &ViewType, results: &[&ViewType], steps: f64) -> Cost {
    // All elements pass through scalar registers, whatever their type.
    let mut meter = Meter::on_scalars(machine);
    meter.read(x);
    meter.on_scalar_side(STEP * steps, x.elements());
    for y in results {
        meter.write(y);
    }
    meter.finish()
}

instr_struct! {
    /// `sort values, indices, x`: x sorted along its last dimension, stable, and the positions (i32 or
    /// i64) where the elements were. NaN counts as the largest, -0 as equal to +0. f32, bf16,
    /// f16 and integers.
    Sort {
        /// From the largest to the smallest.
        descending: Flag,
    }
}

impl InstrDef for Sort {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "sort",
            family: "sort",
            doc: "x sorted along its last dimension, stable, with the positions where elements were.",
            rules: Self::RULES,
            stands_for: "A merge sort on the scalar side, which is 4 wide with two integer units. Nothing is \
                         public about sorting on a core.",
            confidence: Confidence::Proposed,
            cost: "Scalar side: four operations per element and level of the merge, over the integer units. \
                   Loads and stores of all elements through the scalar path.",
        }]
    }

    instr_text!("sort");

    fn roles(&self) -> Vec<Role> {
        vec![
            Role::write("values"),
            Role::write("indices"),
            Role::read("x"),
        ]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [values, indices, x] = strided(["values", "indices", "x"], operands)?;
        let (_, n) = last_dimension(x)?;
        x.of_kind(&[Kind::Float, Kind::Int])?;
        indices.positions(n)?;
        values.like(x)?;
        indices.shaped_as(x)?;
        values.written()?;
        indices.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [values, indices, x] = operands else {
            return Cost::default();
        };
        let n = x.shape.last().copied().unwrap_or(1);
        // Every level of a merge sort moves each element once.
        on_scalar_side(machine, x, &[values, indices], tree_depth(n))
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for dtype in dtypes(&[Kind::Float, Kind::Int]) {
            for (descending, positions) in [(false, DType::I32), (true, DType::I64)] {
                let x = dense(dtype, &[2, 50]);
                let operands = vec![x.clone(), dense(positions, &[2, 50]), x];
                samples.push((
                    Self {
                        descending: Flag(descending),
                    },
                    operands,
                ));
            }
        }
        samples
    }
}

instr_struct! {
    /// `topk values, indices, x`: the first k elements of x sorted along its last dimension, and their
    /// positions (i32 or i64); k is the last extent of the results, at most that of x. The rules of
    /// `sort`.
    TopK {
        /// The smallest instead of the largest.
        smallest: Flag,
    }
}

impl InstrDef for TopK {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "topk",
            family: "sort",
            doc: "The k largest (or smallest) of x along its last dimension, with their positions.",
            rules: Self::RULES,
            stands_for: "A heap on the scalar side, which is 4 wide with two integer units. Nothing is public \
                         about selection on a core.",
            confidence: Confidence::Proposed,
            cost: "Scalar side: four operations per element and level of a heap of k, at worst. Loads and \
                   stores through the scalar path.",
        }]
    }

    instr_text!("topk");

    fn roles(&self) -> Vec<Role> {
        vec![
            Role::write("values"),
            Role::write("indices"),
            Role::read("x"),
        ]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [values, indices, x] = strided(["values", "indices", "x"], operands)?;
        let (outer, n) = last_dimension(x)?;
        x.of_kind(&[Kind::Float, Kind::Int])?;
        indices.positions(n)?;
        values.typed_as(x)?;
        let k = values.shape().last().copied().unwrap_or(0);
        if k > n {
            return Err(format!(
                "selects {k} of {n} elements along the last dimension of `x`"
            ));
        }
        let shape = outer.iter().copied().chain([k]);
        values.shaped(shape, "those of `x` but for the last")?;
        indices.shaped_as(values)?;
        values.written()?;
        indices.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [values, indices, x] = operands else {
            return Cost::default();
        };
        let k = values.shape.last().copied().unwrap_or(1);
        // Each element is compared with the least of a heap of k, and sinks through it at worst.
        on_scalar_side(machine, x, &[values, indices], 1.0 + tree_depth(k))
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for dtype in dtypes(&[Kind::Float, Kind::Int]) {
            for (smallest, positions) in [(false, DType::I64), (true, DType::I32)] {
                let operands = vec![
                    dense(dtype, &[2, 5]),
                    dense(positions, &[2, 5]),
                    dense(dtype, &[2, 50]),
                ];
                samples.push((
                    Self {
                        smallest: Flag(smallest),
                    },
                    operands,
                ));
            }
        }
        samples
    }
}
