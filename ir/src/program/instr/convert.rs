//! Conversions between element types.

use super::check::{Arg, Checked, strided};
use super::cost::{self, Meter, lanes};
use super::sample::dense;
use super::{Cost, InstrDef, InstrInfo, Role, instr_struct, instr_text};
use crate::attr::Flag;
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

/// Scalar operations of a conversion from or to a 64-bit type: taking it apart, shifting, rounding,
/// putting it together.
const EMULATED: f64 = 12.0;

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
            doc: "y = x in another element type, rounded to nearest or stochastically.",
            rules: Self::RULES,
            stands_for: "The conversions of the SIMD unit: Tesla's list of instructions has conversion \
                         and stochastic rounding, and its formats are described as storage that is \
                         converted for arithmetic. Where the random bits come from is not public.",
            confidence: Confidence::StatedSecondHand,
            cost: "SIMD: one operation (two with stochastic rounding, for the random bits) per vector of \
                   the narrower number of lanes of both types. From or to 64-bit types: twelve scalar \
                   operations per element. Loads and stores of the views.",
        }]
    }

    instr_text!("convert");

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

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x, ..] = operands else {
            return Cost::default();
        };
        let without_lanes = [x, y]
            .into_iter()
            .find(|view| lanes(view.dtype, machine).is_none());
        if let Some(wide) = without_lanes {
            return cost::elementwise(machine, wide.dtype, EMULATED, y, &[x]);
        }
        let mut meter = Meter::moves(machine);
        meter.read(x);
        meter.write(y);
        let width = [x, y].map(|view| lanes(view.dtype, machine).unwrap_or(1));
        let operations = if self.stochastic.is_some() { 2.0 } else { 1.0 };
        meter.in_lanes(operations, y.elements(), width[0].min(width[1]));
        meter.finish()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        let mut sample = |from: DType, to: DType, stochastic: Option<u64>| {
            let biased = |dtype: DType| dtype.class() == Class::Configurable && dtype != DType::Uhp;
            let bias = biased(from) || biased(to);
            let mut operands = vec![dense(to, &[4, 18]), dense(from, &[4, 18])];
            if bias {
                operands.push(dense(DType::U8, &[1]));
            }
            let convert = Self {
                bias: Flag(bias),
                stochastic,
            };
            samples.push((convert, operands));
        };
        for (from, _) in DType::ALL {
            for (to, _) in DType::ALL {
                let mut classes = [from, to].map(|dtype| dtype.class() == Class::Configurable);
                classes.sort_unstable();
                let other = if from.class() == Class::Configurable {
                    to
                } else {
                    from
                };
                match classes {
                    [false, false] => sample(from, to, None),
                    [false, true] if matches!(other, DType::F32 | DType::Bf16) => {
                        sample(from, to, None)
                    }
                    _ => {}
                }
            }
        }
        for to in ROUNDED {
            sample(DType::F32, to, Some(7));
        }
        samples
    }
}
