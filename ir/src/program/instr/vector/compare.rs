//! Comparisons, and selection by their results.

use super::super::check::{Kind, strided};
use super::super::cost;
use super::super::sample::{dense, dtypes};
use super::super::{
    Cost, InstrDef, InstrInfo, Role, function_struct, function_text, functions, instr_struct,
    instr_text,
};
use super::{PRICE, SIMD, result_and_first};
use crate::attr::Number;
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::DType;

functions! {
    /// Comparisons; with a NaN operand only `ne` holds.
    CompareFunction {
        /// a = b.
        Eq "eq",
        /// a is not b.
        Ne "ne",
        /// a < b.
        Lt "lt",
        /// a <= b.
        Le "le",
        /// a > b.
        Gt "gt",
        /// a >= b.
        Ge "ge",
    }
}

function_struct! {
    /// `lt y, a, b` and the like: y = 1 where it holds, else 0. y is bool; a and b have its extents
    /// and one element type: f32, bf16, f16, an integer, or bool.
    Compare(CompareFunction) {
        /// The second operand, if it is a number; then there is no operand b.
        value: Option<Number>,
    }
}

impl InstrDef for Compare {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &CompareFunction| InstrInfo {
            mnemonic: function.name(),
            family: "vector",
            doc: function.doc(),
            rules: Self::RULES,
            stands_for: SIMD,
            confidence: Confidence::Inferred,
            cost: PRICE,
        };
        CompareFunction::ALL.iter().map(info).collect()
    }

    function_text!(CompareFunction);

    fn roles(&self) -> Vec<Role> {
        let mut roles = vec![Role::write("y"), Role::read("a")];
        if self.value.is_none() {
            roles.push(Role::read("b"));
        }
        roles
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let (y, a) = result_and_first(self.value, operands)?;
        a.of_kind(&[Kind::Float, Kind::Int, Kind::Bool])?;
        if let Some(value) = self.value {
            a.holds("value", value)?;
        }
        y.of_kind(&[Kind::Bool])?;
        y.shaped_as(a)
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, reads @ ..] = operands else {
            return Cost::default();
        };
        let reads: Vec<&ViewType> = reads.iter().collect();
        let dtype = reads.first().map_or(y.dtype, |a| a.dtype);
        // The comparison, and narrowing its mask to bytes.
        cost::elementwise(machine, dtype, 2.0, y, &reads)
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for &function in CompareFunction::ALL {
            for dtype in dtypes(&[Kind::Float, Kind::Int, Kind::Bool]) {
                let (y, x) = (dense(DType::Bool, &[5, 6]), dense(dtype, &[5, 6]));
                let one = Some(Number::Int(1));
                let pair = vec![y.clone(), x.clone(), x.clone()];
                samples.push((
                    Self {
                        function,
                        value: None,
                    },
                    pair,
                ));
                samples.push((
                    Self {
                        function,
                        value: one,
                    },
                    vec![y, x],
                ));
            }
        }
        samples
    }
}

instr_struct! {
    /// `select y, mask, a, b`: y = a where the bool mask holds, else b. Any element type; bits are
    /// kept.
    Select {}
}

impl InstrDef for Select {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "select",
            family: "vector",
            doc: "y = a where the mask holds, else b.",
            rules: Self::RULES,
            stands_for: "Predicated instructions of the SIMD unit: Tesla mentions predication, not its \
                         form.",
            confidence: Confidence::Inferred,
            cost: "SIMD: two operations per register of bytes, one to widen the mask, one to select. \
                   Loads and stores: one access per vector, or granules of the gather engine.",
        }]
    }

    instr_text!("select");

    fn roles(&self) -> Vec<Role> {
        vec![
            Role::write("y"),
            Role::read("mask"),
            Role::read("a"),
            Role::read("b"),
        ]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, mask, a, b] = strided(["y", "mask", "a", "b"], operands)?;
        mask.of_kind(&[Kind::Bool])?;
        y.written()?;
        y.like(a)?;
        b.like(a)?;
        mask.shaped_as(a)
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, mask, a, b] = operands else {
            return Cost::default();
        };
        // Widening the mask, and the selection.
        cost::moving(machine, 2.0, y, &[mask, a, b])
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let of = |dtype| {
            let x = dense(dtype, &[6, 11]);
            let mask = dense(DType::Bool, &[6, 11]);
            (Self {}, vec![x.clone(), mask, x.clone(), x])
        };
        DType::ALL.iter().map(|(dtype, _)| of(*dtype)).collect()
    }
}
