//! Tile products.

use super::{Access, Cost, InstrDef, InstrInfo, Role, instr_struct};
use crate::attr::{AttrError, AttrSpec, Attrs, Flag};
use crate::attr_enum;
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;

attr_enum! {
    /// A function applied to every finished sum.
    Activation {
        /// max(x, 0).
        Relu "relu",
        /// x/2 * (1 + erf(x / sqrt 2)).
        Gelu "gelu",
        /// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
        GeluTanh "gelu_tanh",
        /// x / (1 + e^-x).
        Silu "silu",
        /// Hyperbolic tangent.
        Tanh "tanh",
        /// 1 / (1 + e^-x).
        Sigmoid "sigmoid",
    }
}

attr_enum! {
    /// Where the residual operand is added.
    ResidualPlace {
        /// Before the activation.
        Before "before",
        /// After it.
        After "after",
    }
}

instr_struct! {
    /// `mm c, a, b, [sums], [bias], [residual], [bias_a], [bias_b]`: C = A B, accumulated in f32,
    /// then the epilogue: `+ bias`, `+ residual` if before, activation, `+ residual` if after,
    /// rounding to the type of C.
    ///
    /// A is `[m.., k..]` with `split` dimensions of m (1 if not given), or `[k.., m..]` if
    /// transposed, where `split` still counts those of m. B is `[k.., n]`, or `[n, k..]` if
    /// transposed. C, `sums` and `residual` are `[m.., n]` with the dimensions of m as A has them.
    /// Only the products of the k extents of A and B must agree. So a convolution is one product
    /// per kernel row over overlapping rows, or one product over a 5-dimensional view.
    ///
    /// Operand types: A and B both bf16; or each of the cfp8 formats, with a `u8` view of one
    /// element each, `bias_a` and `bias_b`, for the exponent bias; or both f32. C is f32 or bf16.
    /// `bias` is f32 `[n]`; `residual` is f32 or bf16. `accumulate`: an f32 C starts from its
    /// earlier values, a bf16 C from the f32 operand `sums`, which is there in this case only.
    ///
    /// The order of accumulation is part of the meaning. With k counted row-major over the k
    /// dimensions of A: bf16 and cfp8 (converted to bf16 first, exactly) take pairs of steps, the odd
    /// one first; f32 takes steps in order. Every step is a fused multiply-add in f32, subnormal
    /// values are zero. The runtime's `kernels` module states it to the bit.
    MatMul {
        /// A is stored with the k dimensions first.
        transpose_a: Flag,
        /// B is stored with n first.
        transpose_b: Flag,
        /// Dimensions of A that make up m; 1 if not given.
        split: Option<usize>,
        /// Start from earlier values instead of zero.
        accumulate: Flag,
        /// There is a `bias` operand.
        bias: Flag,
        /// Function of the sums.
        activation: Option<Activation>,
        /// There is a `residual` operand.
        residual: Option<ResidualPlace>,
        /// There is a `sums` operand: C is bf16 and accumulates onto it.
        sums: Flag,
        /// A and B are cfp8 and there are operands with their exponent biases.
        cfp8: Flag,
        /// Round to bf16 stochastically, with random bits of this site: the op of the source model.
        /// Element (i, j) of C, i counted row-major over the m dimensions, has the logical index
        /// `index + i * row + j` of the scalars.
        stochastic: Option<u64>,
    }
}

impl InstrDef for MatMul {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "mm",
            family: "matrix",
            doc: "Tile product",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "mm"
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
        let c = if *self.accumulate && !*self.sums {
            Access::Update
        } else {
            Access::Write
        };
        let mut roles = vec![
            Role {
                name: "c",
                access: c,
            },
            Role::read("a"),
            Role::read("b"),
        ];
        let optional = [
            (*self.sums, "sums"),
            (*self.bias, "bias"),
            (self.residual.is_some(), "residual"),
            (*self.cfp8, "bias_a"),
            (*self.cfp8, "bias_b"),
        ];
        roles.extend(
            optional
                .iter()
                .filter(|(there, _)| *there)
                .map(|(_, name)| Role::read(name)),
        );
        roles
    }

    fn scalars(&self) -> Vec<&'static str> {
        if self.stochastic.is_some() {
            vec!["index", "row"]
        } else {
            Vec::new()
        }
    }

    fn needs_matrix(&self) -> bool {
        true
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
