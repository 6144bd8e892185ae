//! Tile products.

use super::check::{Arg, Checked, any_layout};
use super::{Access, Cost, InstrDef, InstrInfo, Role, instr_struct};
use crate::attr::{AttrError, AttrSpec, Attrs, Flag};
use crate::attr_enum;
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::DType;

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
    /// transposed, where `split` still counts those of m; there is at least one dimension of k. B is `[k.., n]`, or `[n, k..]` if
    /// transposed. C, `sums` and `residual` are `[m.., n]` with the dimensions of m as A has them.
    /// Only the products of the k extents of A and B must agree. So a convolution is one product
    /// per kernel row over overlapping rows, or one product over a 5-dimensional view. A, B, C, `sums`
    /// and `residual` may be packed.
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

/// Extents of a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Product<'a> {
    /// Dimensions of m, as A has them.
    pub m: &'a [u64],
    /// Steps of the reduction.
    pub k: u64,
    /// Columns.
    pub n: u64,
}

impl MatMul {
    /// Extents of the product of operands of these types.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the instruction.
    pub fn product<'a>(&self, a: &'a ViewType, b: &'a ViewType) -> Result<Product<'a>, String> {
        let (rank, split) = (a.shape.len(), self.split.unwrap_or(1));
        if split >= rank {
            return Err(format!(
                "needs a dimension of k in `a` beside {split} of m, found {rank} dimensions"
            ));
        }
        let (m, a_k) = if *self.transpose_a {
            let (k, m) = a.shape.split_at(rank - split);
            (m, k)
        } else {
            a.shape.split_at(split)
        };
        let parts = if *self.transpose_b {
            b.shape.split_first()
        } else {
            b.shape.split_last()
        };
        let Some((n, b_k)) = parts.filter(|(_, k)| !k.is_empty()) else {
            let rank = b.shape.len();
            return Err(format!(
                "needs dimensions of k and one of n in `b`, found {rank} dimensions"
            ));
        };
        let steps = |dims: &[u64]| dims.iter().fold(1u64, |k, d| k.saturating_mul(*d));
        let (k, found) = (steps(a_k), steps(b_k));
        if k != found {
            return Err(format!(
                "needs as many steps of k in `b` as in `a`, {k} (extents {a_k:?}), found {found} \
                 (extents {b_k:?})"
            ));
        }
        Ok(Product { m, k, n: *n })
    }

    fn check_types(&self, c: Arg<'_>, a: Arg<'_>, b: Arg<'_>) -> Checked {
        c.of_type(&[DType::F32, DType::Bf16])?;
        if *self.cfp8 {
            let cfp8 = [DType::Cfp8E4M3, DType::Cfp8E5M2];
            a.of_type(&cfp8)?;
            b.of_type(&cfp8)?;
        } else {
            a.of_type(&[DType::Bf16, DType::F32])?;
            b.typed_as(a)?;
        }
        let narrow = c.ty.dtype == DType::Bf16;
        match (*self.accumulate, *self.sums) {
            (true, false) if narrow => {
                Err("accumulates onto a bf16 `c` and so needs `sums`, an operand in f32".into())
            }
            (false, true) => Err("has an operand `sums` without `accumulate`".into()),
            (true, true) if !narrow => {
                Err("accumulates onto `c` itself, which is f32, and takes no `sums`".into())
            }
            _ if self.stochastic.is_some() && !narrow => {
                Err("rounds stochastically, which an f32 `c` does not need: it takes bf16".into())
            }
            _ => Ok(()),
        }
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

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let (products, rest) = operands
            .split_at_checked(3)
            .ok_or_else(|| format!("has at least 3 operands, found {}", operands.len()))?;
        let [c, a, b] = any_layout(["c", "a", "b"], products)?;
        self.check_types(c, a, b)?;
        let dims = self.product(a.ty, b.ty)?;
        let shape = || dims.m.iter().copied().chain([dims.n]);
        c.shaped(shape(), "m of `a` and n of `b`")?;
        c.written()?;
        let mut rest = rest.iter();
        let mut next = |name| match rest.next() {
            Some(ty) => Arg { name, ty }.sound(),
            None => Err(format!("needs an operand `{name}`")),
        };
        if *self.sums {
            let sums = next("sums")?;
            sums.of_type(&[DType::F32])?;
            sums.shaped_as(c)?;
        }
        if *self.bias {
            let bias = next("bias")?;
            bias.strided()?;
            bias.of_type(&[DType::F32])?;
            bias.shaped([dims.n], "n of `b`")?;
        }
        if self.residual.is_some() {
            let residual = next("residual")?;
            residual.of_type(&[DType::F32, DType::Bf16])?;
            residual.shaped_as(c)?;
        }
        if *self.cfp8 {
            for name in ["bias_a", "bias_b"] {
                let bias = next(name)?;
                bias.strided()?;
                bias.of_type(&[DType::U8])?;
                bias.one_element()?;
            }
        }
        match rest.len() {
            0 => Ok(()),
            more => Err(format!("has {more} operands too many")),
        }
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}
