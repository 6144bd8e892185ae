//! Host kernels: tile products, vector arithmetic, reductions, conversions, data movement.
//!
//! The arithmetic stands behind one trait, [`Kernels`], with a portable implementation
//! (`"scalar"`), one for AVX2 with FMA (`"avx2"`) and one for AVX-512 (`"avx512"`, which uses the
//! BF16 instructions where they are present and behave as specified here). All of them give **the
//! same bits for all inputs**. [`detect`] picks the fastest; nothing is kept in global state.
//!
//! # Rules for all floating-point arithmetic
//!
//! - **Rounding** is to nearest, ties to even, except where a kernel takes a
//!   [`Rounding::Stochastic`].
//! - **Subnormals are zero.** A subnormal operand counts as a zero of its sign. A result is first
//!   rounded as IEEE 754 says, with gradual underflow, and if it is then below `2^-126` in
//!   magnitude it becomes a zero of its sign. This is done by masks; the floating-point
//!   environment of the host must be the default one and is not changed. Only
//!   [`dot`](self#tile-products) steps differ (below), and f16 results keep their subnormals, which
//!   are normal f32 values.
//! - **NaN results are canonical**: `0x7FC0_0000` in f32, `0x7FC0` in bf16, `0x7E00` in f16. This
//!   holds for conversions too.
//! - **bf16** operands are widened, computed with in f32 and rounded once at the end. A result that
//!   is normal in f32 never becomes subnormal in bf16, because both have the same exponents.
//! - `min` and `max` give NaN if an operand is NaN, and order -0 below +0.
//!
//! Moving data ([`blocks`], `select`, gather and scatter) keeps bit patterns as they are.
//!
//! # Tile products
//!
//! `C[m x n] = A[m x k] * B[k x n]`, optionally added to an earlier C, always accumulated in f32.
//! The order of accumulation is part of the meaning. Element (i, j) starts as `c`, which is zero
//! or the earlier value, and then
//!
//! - **bf16**: for each pair of steps `p = 0, 2, 4, ..`
//!   `c = dot(A[i][p+1], B[p+1][j], c)`, then `c = dot(A[i][p], B[p][j], c)`: the odd step first.
//!   If k is odd, the last pair has zeros (+0) in its odd step. `dot(a, b, c)` is `a * b + c` with
//!   one rounding (fused); subnormal a, b, c count as zero, and the result is replaced by a zero of
//!   its sign if it is below `2^-126` *after rounding to 24 bits with an unbounded exponent*. The
//!   last clause differs from "round, then flush" only for exact values in `[2^-126 - 2^-150,
//!   2^-126 - 2^-151)`. This is what `_mm512_dpbf16_ps` was found to compute on an Intel host.
//!   [`detect`] compares telling cases and does without the instruction where it differs. Where
//!   exponents exclude subnormal values, which they nearly always do, plain fused multiply-adds
//!   give the same bits; tiers use them if they are faster.
//! - **f32**: for each step p in order `c = fma(A[i][p], B[p][j], c)`, rounded as in IEEE 754.
//!   Within the chain subnormal values of c are kept; operands, the earlier C, and the value after
//!   the last step follow the general rules.
//!
//! The [`Epilogue`] follows on the finished value, each step by the general rules.
//!
//! Operands are rows with a stride, transposed rows, or, for B, *panels* prepared by `pack_b_*`:
//! 32 columns wide, f32 as `[n/32][k][32]`, bf16 as `[n/32][k/2][32][2]` where a pair holds two
//! consecutive steps of one column; missing columns and steps are zero. Keep panels in [`Aligned`]
//! memory.
//!
//! # Reductions
//!
//! 32 lanes. Element i goes to lane `i mod 32`; each lane starts with the identity of the
//! operation and combines its elements in ascending order. Then lane l combines with lane `l + h`
//! for `h = 16, 8, 4, 2, 1`, and lane 0 is the result. Sums and products keep subnormal values
//! inside this tree and flush the result.
//!
//! # Functions and their error
//!
//! | function | error at most, against f64 | for |
//! |---|---|---|
//! | add, sub, mul, div, sqrt, fused multiply-add | 0.5 ulp | all |
//! | floor, ceil, round | exact | all |
//! | recip, rsqrt | 0.5 ulp, 1.5 ulp | all |
//! | exp | 7e-8 relative | results that are not flushed |
//! | log | 8e-8 relative | all |
//! | tanh | 1.7e-7 relative | all |
//! | sigmoid | 1.5e-7 relative | x >= -87 |
//! | silu | 1.8e-7 relative | x >= -87 |
//! | erf | 9e-8 relative | all |
//! | gelu, gelu_tanh | 1e-7 times abs(x) | all |
//! | sin, cos | 1.3e-7 relative | all, also huge x |
//!
//! These bounds are tested. An ulp is that of the exact result.

pub mod blocks;
mod convert;
mod elementwise;
mod float;
mod integer;
mod matmul;
mod minifloat;
mod ops;
mod reduce;
mod tier;
mod trig;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub use convert::Draw;
pub use matmul::{
    Activation, Aligned, Epilogue, Lhs, Matmul, Matrix, Output, PANEL, Residual, ResidualValues,
    Rhs, Rounding, Scratch, packed_len_bf16, packed_len_f32, unpack_b_bf16, unpack_b_f32,
};
pub use minifloat::{Cfp8, Cfp8Decoder, decode_minifloat, encode_cfp8, encode_minifloat};
pub use ops::{Binary, Compare, IntBinary, Operand, Reduce, Unary};
pub use tier::Kernels;

pub(crate) use float::{CANONICAL_NAN, finish, flush, max, min};
use tier::Scalar;

/// The fastest kernels that this host can run.
pub fn detect() -> &'static dyn Kernels {
    available().pop().unwrap_or(&Scalar)
}

/// The kernels called `name` (`"scalar"`, `"avx2"`, `"avx512"`), `None` if there are none or this
/// host cannot run them.
pub fn by_name(name: &str) -> Option<&'static dyn Kernels> {
    available().into_iter().find(|k| k.name() == name)
}

/// All kernels that this host can run, the slowest first.
pub fn available() -> Vec<&'static dyn Kernels> {
    let mut found: Vec<&'static dyn Kernels> = vec![&Scalar];
    #[cfg(target_arch = "x86_64")]
    x86::add_available(&mut found);
    found
}
