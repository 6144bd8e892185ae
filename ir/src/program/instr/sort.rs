//! Sorting and selection.

use super::check::{Kind, last_dimension, strided};
use super::{Cost, InstrDef, InstrInfo, Role, instr_struct};
use crate::attr::{AttrError, AttrSpec, Attrs, Flag};
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;

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
            doc: "x sorted, with positions",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "sort"
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

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
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
            doc: "The k largest of x, with positions",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "topk"
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

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}
