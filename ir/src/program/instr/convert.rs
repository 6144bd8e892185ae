//! Conversions between element types.

use super::check::{Arg, Checked, strided};
use super::{Cost, InstrDef, InstrInfo, Role, instr_struct};
use crate::attr::{AttrError, AttrSpec, Attrs, Flag};
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::{Class, DType};

instr_struct! {
    /// `convert y, x, [bias]`: y = x in the element type of y, same extents. As the `convert` op of GRAPH:
    /// to nearest even between floats, towards zero and wrapping from floats to integers, not-zero to
    /// bool. To or from cfp8 and shp there is a `u8` view of one element with the exponent bias, from 0
    /// to 63; uhp has none; the other side of all these is f32 or bf16. Subnormals and NaN are as the runtime's `kernels`
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

/// Element types that stochastic rounding leads to.
const ROUNDED: [DType; 6] = [
    DType::Bf16,
    DType::F16,
    DType::Cfp8E4M3,
    DType::Cfp8E5M2,
    DType::Shp,
    DType::Uhp,
];

impl Convert {
    fn check_types(&self, y: Arg<'_>, x: Arg<'_>) -> Checked {
        let configurable = |arg: Arg<'_>| arg.ty.dtype.class() == Class::Configurable;
        if configurable(y) {
            x.of_type(&[DType::F32, DType::Bf16])?;
        } else if configurable(x) {
            y.of_type(&[DType::F32, DType::Bf16])?;
        }
        let biased = |arg: Arg<'_>| configurable(arg) && arg.ty.dtype != DType::Uhp;
        match (biased(y) || biased(x), *self.bias) {
            (true, false) => {
                let dtype = if biased(y) { y.ty.dtype } else { x.ty.dtype };
                return Err(format!(
                    "needs an operand `bias` to convert from or to {dtype}"
                ));
            }
            (false, true) => {
                return Err(format!(
                    "has an operand `bias`, but neither {} nor {} has a configurable bias",
                    x.ty.dtype, y.ty.dtype
                ));
            }
            _ => {}
        }
        if self.stochastic.is_some() {
            y.of_type(&ROUNDED)?;
            x.of_type(&[DType::F32])?;
        }
        Ok(())
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

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let (y, x) = if *self.bias {
            let [y, x, bias] = strided(["y", "x", "bias"], operands)?;
            bias.of_type(&[DType::U8])?;
            bias.one_element()?;
            (y, x)
        } else {
            let [y, x] = strided(["y", "x"], operands)?;
            (y, x)
        };
        y.shaped_as(x)?;
        self.check_types(y, x)?;
        y.written()
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}
