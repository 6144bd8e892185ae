//! Data movement inside a core.

use super::check::{Kind, any_layout, strided};
use super::cost::{self, Meter, Runs};
use super::sample::{columns, dense, dtypes, packed};
use super::{Access, Cost, InstrDef, InstrInfo, Role, instr_struct, instr_text};
use crate::attr::{Flag, Number};
use crate::machine::{Confidence, Machine};
use crate::program::{Packing, ViewType};
use crate::types::{Class, DType};

/// Scalar operations that make an address of an index: the sign, the limits, the product.
const INDEXING: f64 = 4.0;

fn read_indices(meter: &mut Meter<'_>, indices: &ViewType) {
    meter.read_scalars(indices);
    meter.on_scalar_side(INDEXING, indices.elements());
}

/// The parts of `table` that indices choose, taken to lie apart.
fn rows(table: &ViewType, indices: &ViewType) -> ViewType {
    let inner = table.shape.get(1..).unwrap_or_default();
    let strides = table.strides.get(1..).unwrap_or_default();
    ViewType {
        dtype: table.dtype,
        shape: [&[indices.elements()], inner].concat(),
        // A distance that is never that of neighbours.
        strides: [&[i64::MAX], strides].concat(),
        packing: Packing::Strided,
    }
}

instr_struct! {
    /// `copy y, x`: y = x element by element, bits kept. Same extents and element type, any layouts:
    /// transposition is a view with permuted strides, repacking a view with another packing.
    Copy {}
}

impl InstrDef for Copy {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "copy",
            family: "data",
            doc: "y = x element by element, in another layout if the views differ.",
            rules: Self::RULES,
            stands_for: "Vector loads and stores, the gather engine with its pieces of 8 and 16 bytes, and \
                         the shuffle and transpose instructions of Tesla's list.",
            confidence: Confidence::StatedSecondHand,
            cost: "Loads: one access per load port width of neighbouring bytes, or granules of the gather \
                   engine where pieces are shorter. Stores: one access per piece of neighbouring bytes. \
                   A packed view is taken whole blocks at a time where the other is packed alike.",
        }]
    }

    instr_text!("copy");

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = any_layout(["y", "x"], operands)?;
        y.like(x)?;
        y.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x] = operands else {
            return Cost::default();
        };
        let mut meter = Meter::moves(machine);
        let same = x.packing == y.packing;
        meter.read_runs(x, Runs::of(x, same), 1.0);
        if y.packing == Packing::Strided {
            meter.write(y);
        } else {
            meter.write_runs(y, Runs::of(y, same || x.packing == Packing::Strided));
        }
        meter.finish()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let all = DType::ALL.iter().map(|(dtype, _)| *dtype);
        let mut samples: Vec<(Self, Vec<ViewType>)> = all
            .map(|dtype| {
                (
                    Self {},
                    vec![dense(dtype, &[16, 12]), columns(dtype, 16, 12)],
                )
            })
            .collect();
        for (to, _) in Packing::ALL {
            for (from, _) in Packing::ALL {
                let view = |packing| packed(DType::Bf16, &[2, 12, 20], packing);
                samples.push((Self {}, vec![view(to), view(from)]));
            }
        }
        samples
    }
}

instr_struct! {
    /// `pad y, x`: x with `low[d]` elements before and `high[d]` behind it in each dimension, all
    /// `value`. Any element type; one of configurable meaning has no `value`, its border is code 0.
    Pad {
        /// Elements before.
        low: Vec<u64>,
        /// Elements behind.
        high: Vec<u64>,
        /// The number; 0 if not given.
        value: Option<Number>,
    }
}

impl InstrDef for Pad {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "pad",
            family: "data",
            doc: "y = x with a border of one value.",
            rules: Self::RULES,
            stands_for: "Padding is in Tesla's list of instructions, for two dimensions even implicitly as \
                         data is read; a view in SRAM with its border is our form of it.",
            confidence: Confidence::StatedSecondHand,
            cost: "SIMD: one operation per vector of y. Loads of x, stores of y.",
        }]
    }

    instr_text!("pad");

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = strided(["y", "x"], operands)?;
        y.typed_as(x)?;
        for (name, border) in [("low", &self.low), ("high", &self.high)] {
            if border.len() != x.rank() {
                let (rank, found) = (x.rank(), border.len());
                return Err(format!(
                    "needs a `{name}` for each of the {rank} dimensions, found {found}"
                ));
            }
        }
        if let Some(value) = self.value {
            y.holds("value", value)?;
        }
        let borders = self.low.iter().zip(&self.high);
        let shape = x
            .shape()
            .iter()
            .zip(borders)
            .map(|(extent, (low, high))| extent.saturating_add(*low).saturating_add(*high));
        y.shaped(shape, "those of `x` with the border")?;
        y.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x] = operands else {
            return Cost::default();
        };
        // Borders and elements are blended in registers.
        cost::moving(machine, 1.0, y, &[x])
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let all = DType::ALL.iter().map(|(dtype, _)| *dtype);
        all.map(|dtype| {
            let fixed = dtype.class() != Class::Configurable;
            let pad = Self {
                low: vec![0, 1, 2],
                high: vec![0, 2, 1],
                value: fixed.then_some(Number::Int(1)),
            };
            (
                pad,
                vec![dense(dtype, &[2, 8, 9]), dense(dtype, &[2, 5, 6])],
            )
        })
        .collect()
    }
}

instr_struct! {
    /// `gather y, x, indices`: y[j.., inner..] = x[indices[j..], inner..]. x is `[n, inner..]`, indices is
    /// i32 or i64 `[j..]` (of any rank, also 0), y is `[j.., inner..]`. A negative index counts from the
    /// end. An index out of range ends the run with an error, or gives `fill`.
    Gather {
        /// What is read out of range.
        fill: Option<Number>,
    }
}

impl InstrDef for Gather {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "gather",
            family: "data",
            doc: "y = x[indices]: rows of x in the order of the indices.",
            rules: Self::RULES,
            stands_for: "The gather engine, which takes pieces of 8 and 16 bytes, with addresses made by \
                         the integer side.",
            confidence: Confidence::Stated,
            cost: "Scalar side: four operations per index. Loads: indices through the scalar path, each \
                   row of x by accesses as wide as a load port or by granules. Stores of y.",
        }]
    }

    instr_text!("gather");

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x"), Role::read("indices")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x, indices] = strided(["y", "x", "indices"], operands)?;
        x.rank_at_least(1)?;
        y.typed_as(x)?;
        indices.of_type(&[DType::I32, DType::I64])?;
        if let Some(fill) = self.fill {
            y.holds("fill", fill)?;
        }
        let shape = indices.shape().iter().chain(&x.shape()[1..]).copied();
        y.shaped(shape, "those of `indices` and the inner ones of `x`")?;
        y.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x, indices] = operands else {
            return Cost::default();
        };
        let mut meter = Meter::moves(machine);
        read_indices(&mut meter, indices);
        meter.read(&rows(x, indices));
        meter.write(y);
        meter.finish()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for (dtype, _) in DType::ALL {
            let fixed = dtype.class() != Class::Configurable;
            let fill = fixed.then_some(Number::Int(0));
            let vectors = vec![
                dense(dtype, &[3, 4, 10]),
                dense(dtype, &[100, 10]),
                dense(DType::I32, &[3, 4]),
            ];
            let one = vec![
                dense(dtype, &[10]),
                dense(dtype, &[100, 10]),
                dense(DType::I64, &[]),
            ];
            samples.push((Self { fill }, vectors));
            samples.push((Self { fill: None }, one));
        }
        samples
    }
}

instr_struct! {
    /// `scatter y, updates, indices`: y[indices[j..], inner..] = updates[j.., inner..] in ascending order of
    /// j, so that the last one wins; or added to what is there (f32, bf16 and f16 in f32 rounded per
    /// addition, integers wrapping). y is `[n, inner..]`. A negative index counts from the end. An index
    /// out of range ends the run with an error, or is skipped.
    Scatter {
        /// Add instead of replacing.
        add: Flag,
        /// Skip what is out of range.
        skip: Flag,
    }
}

impl InstrDef for Scatter {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "scatter",
            family: "data",
            doc: "y[indices] = updates, or += updates, in the order of the indices.",
            rules: Self::RULES,
            stands_for: "Stores to addresses made by the integer side; no scatter engine is mentioned \
                         anywhere.",
            confidence: Confidence::Proposed,
            cost: "Scalar side: four operations per index. Loads: indices through the scalar path and \
                   updates. Stores: one access per piece of a row. When adding, rows of y are loaded too, \
                   and one SIMD operation is applied to each vector.",
        }]
    }

    instr_text!("scatter");

    fn roles(&self) -> Vec<Role> {
        vec![
            Role {
                name: "y",
                access: Access::Scatter,
            },
            Role::read("updates"),
            Role::read("indices"),
        ]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, updates, indices] = strided(["y", "updates", "indices"], operands)?;
        y.rank_at_least(1)?;
        updates.typed_as(y)?;
        if *self.add {
            y.of_kind(&[Kind::Float, Kind::Int])?;
        }
        indices.of_type(&[DType::I32, DType::I64])?;
        let shape = indices.shape().iter().chain(&y.shape()[1..]).copied();
        updates.shaped(shape, "those of `indices` and the inner ones of `y`")?;
        y.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, updates, indices] = operands else {
            return Cost::default();
        };
        let mut meter = if *self.add {
            Meter::new(machine, y.dtype)
        } else {
            Meter::moves(machine)
        };
        read_indices(&mut meter, indices);
        meter.read(updates);
        let places = rows(y, indices);
        if *self.add {
            meter.read(&places);
            meter.compute(1.0, updates.elements(), y.dtype);
        }
        meter.write(&places);
        meter.finish()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for (dtype, _) in DType::ALL {
            let operands = vec![
                dense(dtype, &[100, 6]),
                dense(dtype, &[8, 6]),
                dense(DType::I64, &[8]),
            ];
            let scatter = |add, skip| Self {
                add: Flag(add),
                skip: Flag(skip),
            };
            samples.push((scatter(false, true), operands.clone()));
            if dtypes(&[Kind::Float, Kind::Int]).any(|d| d == dtype) {
                samples.push((scatter(true, false), operands));
            }
        }
        samples
    }
}
