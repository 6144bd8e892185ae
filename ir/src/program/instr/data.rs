//! Data movement inside a core.

use super::check::{Kind, any_layout, strided};
use super::{Access, Cost, InstrDef, InstrInfo, Role, instr_struct};
use crate::attr::{AttrError, AttrSpec, Attrs, Flag, Number};
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::DType;

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
            doc: "y = x",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "copy"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = any_layout(["y", "x"], operands)?;
        y.like(x)?;
        y.written()
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
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
            doc: "y = x with a border",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "pad"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

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

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
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
            doc: "y = x[indices]",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "gather"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

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

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
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
            doc: "y[indices] = updates",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "scatter"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

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

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}
