//! Tile products.

use super::check::{Arg, Checked, any_layout};
use super::sample::{dense, packed};
use super::vector::MapFunction;
use super::{Access, Cost, InstrDef, InstrInfo, Role, instr_struct, instr_text, product};
use crate::attr::Flag;
use crate::attr_enum;
use crate::machine::{Confidence, Machine};
use crate::program::{Packing, ViewType};
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

impl Activation {
    /// The vector instruction that computes it.
    pub fn function(self) -> MapFunction {
        match self {
            Self::Relu => MapFunction::Relu,
            Self::Gelu => MapFunction::Gelu,
            Self::GeluTanh => MapFunction::GeluTanh,
            Self::Silu => MapFunction::Silu,
            Self::Tanh => MapFunction::Tanh,
            Self::Sigmoid => MapFunction::Sigmoid,
        }
    }

    /// SIMD operations on a register.
    pub(super) fn operations(self) -> f64 {
        self.function().operations()
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
            doc: "C = A B with sums in f32, then bias, residual, activation and rounding.",
            rules: Self::RULES,
            stands_for: "A loop over steps of the matrix unit, 8 x 8 outputs by 4 products each: the \
                         unit, its bf16 and 8-bit operands and its rate of 256 multiply-adds per \
                         cycle are Tesla's figures. That its sums stay in f32 accumulators, and how \
                         many of them there are, is proposed; f32 operands run in the SIMD unit at \
                         the rate Tesla states for them, and so does the epilogue.",
            confidence: Confidence::StatedSecondHand,
            cost: "Matrix unit: ceil(m/rows) ceil(n/columns) ceil(k/depth) steps, and for each macro \
                   tile (as many blocks as there are accumulators) the unit's latency and the read of \
                   one block, and its write when accumulating. Loads: each block of A and B once per \
                   macro tile, one access per load port width if it is packed as the unit reads it, \
                   else in granules of the gather engine; one shuffle per block if transposed. SIMD: \
                   registers of all accumulators in and out, plus the epilogue's operations per \
                   register. Operands that the unit does not take: m k ceil(n/lanes) SIMD operations.",
        }]
    }

    instr_text!("mm");

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

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        product::cost(self, operands, machine)
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = layouts();
        // Behind the plainest of all, which stays the first.
        samples.splice(1..1, epilogues());
        samples
    }
}

/// A product without anything optional.
fn plain() -> MatMul {
    MatMul {
        transpose_a: Flag(false),
        transpose_b: Flag(false),
        split: None,
        accumulate: Flag(false),
        bias: Flag(false),
        activation: None,
        residual: None,
        sums: Flag(false),
        cfp8: Flag(false),
        stochastic: None,
    }
}

/// Samples of element types, layouts and dimensions.
fn layouts() -> Vec<(MatMul, Vec<ViewType>)> {
    let mut samples = Vec::new();
    let one = || dense(DType::U8, &[1]);
    for (a, b, c) in [
        (DType::Bf16, DType::Bf16, DType::F32),
        (DType::Bf16, DType::Bf16, DType::Bf16),
        (DType::F32, DType::F32, DType::F32),
        (DType::F32, DType::F32, DType::Bf16),
        (DType::Cfp8E4M3, DType::Cfp8E4M3, DType::F32),
        (DType::Cfp8E4M3, DType::Cfp8E5M2, DType::Bf16),
        (DType::Cfp8E5M2, DType::Cfp8E5M2, DType::F32),
    ] {
        for (transpose_a, transpose_b) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            for (pack_a, pack_b) in [
                (Packing::Strided, Packing::Strided),
                (Packing::Packed8x4, Packing::Packed4x8),
                (Packing::Packed4x8, Packing::Packed8x4),
            ] {
                let cfp8 = a.bytes() == 1;
                let product = MatMul {
                    transpose_a: Flag(transpose_a),
                    transpose_b: Flag(transpose_b),
                    cfp8: Flag(cfp8),
                    ..plain()
                };
                let of_a = if transpose_a { [40, 24] } else { [24, 40] };
                let of_b = if transpose_b { [32, 40] } else { [40, 32] };
                let mut operands = vec![
                    dense(c, &[24, 32]),
                    packed(a, &of_a, pack_a),
                    packed(b, &of_b, pack_b),
                ];
                if cfp8 {
                    operands.extend([one(), one()]);
                }
                samples.push((product, operands));
            }
        }
    }
    // A convolution: overlapping rows of 3 x 3 windows in an image 10 wide with 8 channels.
    let mut windows = dense(DType::Bf16, &[6, 8, 3, 24]);
    windows.strides = vec![160, 16, 160, 2];
    let convolution = MatMul {
        split: Some(2),
        ..plain()
    };
    let operands = vec![
        dense(DType::F32, &[6, 8, 16]),
        windows,
        dense(DType::Bf16, &[3, 3, 8, 16]),
    ];
    samples.push((convolution, operands));
    // A vector by a matrix.
    let row = MatMul {
        split: Some(0),
        ..plain()
    };
    let operands = vec![
        dense(DType::F32, &[48]),
        dense(DType::Bf16, &[64]),
        dense(DType::Bf16, &[64, 48]),
    ];
    samples.push((row, operands));
    samples
}

/// Samples of what happens to the sums.
fn epilogues() -> Vec<(MatMul, Vec<ViewType>)> {
    let mut samples = Vec::new();
    let mut sample = |product: MatMul, c: DType, rest: Vec<ViewType>| {
        let mut operands = vec![
            dense(c, &[16, 48]),
            dense(DType::Bf16, &[16, 64]),
            dense(DType::Bf16, &[64, 48]),
        ];
        operands.extend(rest);
        samples.push((product, operands));
    };
    let accumulate = MatMul {
        accumulate: Flag(true),
        ..plain()
    };
    sample(accumulate.clone(), DType::F32, Vec::new());
    let sums = MatMul {
        sums: Flag(true),
        ..accumulate
    };
    sample(sums, DType::Bf16, vec![dense(DType::F32, &[16, 48])]);
    for activation in [
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
    ] {
        let all = MatMul {
            bias: Flag(true),
            activation: Some(activation),
            residual: Some(ResidualPlace::Before),
            stochastic: Some(3),
            ..plain()
        };
        let rest = vec![dense(DType::F32, &[48]), dense(DType::Bf16, &[16, 48])];
        sample(all, DType::Bf16, rest);
    }
    let after = MatMul {
        activation: Some(Activation::Relu),
        residual: Some(ResidualPlace::After),
        ..plain()
    };
    sample(after, DType::F32, vec![dense(DType::F32, &[16, 48])]);
    samples
}
