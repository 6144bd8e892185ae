//! Conversions between element types.

use super::{Cost, InstrDef, InstrInfo, Role, instr_struct};
use crate::attr::{AttrError, AttrSpec, Attrs, Flag};
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;

instr_struct! {
    /// `convert y, x, [bias]`: y = x in the element type of y, same extents. As the `convert` op of GRAPH:
    /// to nearest even between floats, towards zero and wrapping from floats to integers, not-zero to
    /// bool. To or from cfp8 and shp there is a `u8` view of one element with the exponent bias, and
    /// the other side is f32 or bf16; uhp has none. Subnormals and NaN are as the runtime's `kernels`
    /// state.
    Convert {
        /// There is a `bias` operand.
        bias: Flag,
        /// Round stochastically, with random bits of this site: the op of the source model. y is
        /// bf16, f16, cfp8, shp or uhp, x is f32. Element i, counted row-major, has the logical index
        /// `index + i` of the scalar.
        stochastic: Option<u64>,
    }
}

impl InstrDef for Convert {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "convert",
            family: "convert",
            doc: "y = x in another element type",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "convert"
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
        let mut roles = vec![Role::write("y"), Role::read("x")];
        if *self.bias {
            roles.push(Role::read("bias"));
        }
        roles
    }

    fn scalars(&self) -> Vec<&'static str> {
        if self.stochastic.is_some() {
            vec!["index"]
        } else {
            Vec::new()
        }
    }

    fn check(&self, _operands: &[ViewType]) -> Result<(), String> {
        Ok(())
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}
