//! What a tile product is given.

use half::bf16;

use super::Aligned;
use crate::kernels::convert::Draw;
use crate::kernels::ops::Unary;

/// Rows of a matrix at a distance of `stride` elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrix<'a, E> {
    /// The elements; (i, j) is at `i * stride + j`.
    pub data: &'a [E],
    /// Elements from row to row.
    pub stride: usize,
}

/// Whether `rows` rows of `cols` elements at a distance of `stride` fit `len` elements.
fn fits(len: usize, stride: usize, rows: usize, cols: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * stride + cols <= len
}

/// The left operand, A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lhs<'a, E> {
    /// The elements.
    pub data: &'a [E],
    /// Elements from stored row to stored row. Rows may overlap, as those of a convolution do.
    pub stride: usize,
    /// Stored rows are columns of A: `k` rows of `m` elements. Costs a copy.
    pub transposed: bool,
}

/// The right operand, B.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rhs<'a, E> {
    /// `k` rows of `n` elements. Costs a copy.
    Rows(Matrix<'a, E>),
    /// Transposed: `n` rows of `k` elements. Costs a copy.
    Columns(Matrix<'a, E>),
    /// Panels made by `pack_b_f32` or `pack_b_bf16`.
    Packed(&'a [E]),
}

/// A tile product with its epilogue: `m x k` times `k x n`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matmul<'a, E> {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// The left operand.
    pub a: Lhs<'a, E>,
    /// The right operand.
    pub b: Rhs<'a, E>,
    /// What happens to the sums before they are stored.
    pub epilogue: Epilogue<'a>,
}

/// A function applied to every sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// The value itself.
    #[default]
    None,
    /// [`Unary::Relu`].
    Relu,
    /// [`Unary::Gelu`], by the error function.
    Gelu,
    /// [`Unary::GeluTanh`].
    GeluTanh,
    /// [`Unary::Silu`].
    Silu,
    /// [`Unary::Tanh`].
    Tanh,
    /// [`Unary::Sigmoid`].
    Sigmoid,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Relu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Silu,
        Self::Tanh,
        Self::Sigmoid,
    ];

    /// The vector kernel that computes it.
    pub const fn unary(self) -> Option<Unary> {
        match self {
            Self::None => None,
            Self::Relu => Some(Unary::Relu),
            Self::Gelu => Some(Unary::Gelu),
            Self::GeluTanh => Some(Unary::GeluTanh),
            Self::Silu => Some(Unary::Silu),
            Self::Tanh => Some(Unary::Tanh),
            Self::Sigmoid => Some(Unary::Sigmoid),
        }
    }
}

/// The values of a residual connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResidualValues<'a> {
    /// `m x n` in f32.
    F32(Matrix<'a, f32>),
    /// `m x n` in bf16.
    Bf16(Matrix<'a, bf16>),
}

/// A matrix that is added to the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual<'a> {
    /// What is added.
    pub values: ResidualValues<'a>,
    /// Added before the activation (as residual networks of convolutions do) rather than after it.
    pub before_activation: bool,
}

/// What happens to a sum: `+ bias`, `+ residual` if it comes first, activation, `+ residual` if it
/// comes last, rounding to the type of the output. Each step is one operation in f32.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Epilogue<'a> {
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// The activation.
    pub activation: Activation,
    /// The residual.
    pub residual: Option<Residual<'a>>,
}

impl Epilogue<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.bias.is_none() && self.activation == Activation::None && self.residual.is_none()
    }
}

/// How results are rounded to bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rounding {
    /// To nearest, ties to even.
    #[default]
    NearestEven,
    /// Stochastically: element (i, j) uses the draw of the first element advanced by `i * row + j`.
    Stochastic {
        /// The draw of element (0, 0).
        draw: Draw,
        /// Elements of the logical tensor from row to row of C.
        row: u64,
    },
}

/// Where C goes, and what it is added to.
#[derive(Debug, PartialEq)]
pub enum Output<'a> {
    /// f32.
    F32 {
        /// `m` rows of `n` elements.
        data: &'a mut [f32],
        /// Elements from row to row, at least n.
        stride: usize,
        /// Start from what is there instead of zero.
        accumulate: bool,
    },
    /// bf16.
    Bf16 {
        /// `m` rows of `n` elements.
        data: &'a mut [bf16],
        /// Elements from row to row, at least n.
        stride: usize,
        /// Sums to start from instead of zero, `m x n`.
        earlier: Option<Matrix<'a, f32>>,
        /// The rounding.
        rounding: Rounding,
    },
}

impl Output<'_> {
    pub(super) fn earlier(&self) -> Option<Matrix<'_, f32>> {
        match self {
            Self::F32 {
                data,
                stride,
                accumulate: true,
            } => Some(Matrix {
                data,
                stride: *stride,
            }),
            Self::F32 { .. } => None,
            Self::Bf16 { earlier, .. } => *earlier,
        }
    }
}

impl<E> Matmul<'_, E> {
    /// Panics if a view exceeds its slice.
    pub(super) fn check(&self, output: &Output<'_>, packed_len: usize) {
        let (m, n, k) = (self.m, self.n, self.k);
        let (a_rows, a_cols) = if self.a.transposed { (k, m) } else { (m, k) };
        assert!(
            fits(self.a.data.len(), self.a.stride, a_rows, a_cols),
            "A exceeds its slice"
        );
        let b_fits = match &self.b {
            Rhs::Rows(b) => fits(b.data.len(), b.stride, k, n),
            Rhs::Columns(b) => fits(b.data.len(), b.stride, n, k),
            Rhs::Packed(panels) => panels.len() >= packed_len,
        };
        assert!(b_fits, "B exceeds its slice");
        let (len, stride) = match output {
            Output::F32 { data, stride, .. } => (data.len(), *stride),
            Output::Bf16 { data, stride, .. } => (data.len(), *stride),
        };
        assert!(fits(len, stride, m, n), "C exceeds its slice");
        assert!(m < 2 || stride >= n, "rows of C overlap");
        if let Some(earlier) = output.earlier() {
            let fits = fits(earlier.data.len(), earlier.stride, m, n);
            assert!(fits, "earlier sums exceed their slice");
        }
        if let Some(bias) = self.epilogue.bias {
            assert!(bias.len() >= n, "bias is shorter than a row");
        }
        if let Some(residual) = self.epilogue.residual {
            let (len, stride) = match residual.values {
                ResidualValues::F32(r) => (r.data.len(), r.stride),
                ResidualValues::Bf16(r) => (r.data.len(), r.stride),
            };
            assert!(fits(len, stride, m, n), "residual exceeds its slice");
        }
    }
}

/// Memory for copies of operands, kept between products so that it is allocated once per worker.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    pub(super) a_f32: Aligned<f32>,
    pub(super) b_f32: Aligned<f32>,
    pub(super) a_bf16: Aligned<bf16>,
    pub(super) b_bf16: Aligned<bf16>,
}
