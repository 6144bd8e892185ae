//! The trait of the kernels and its implementations for the tiers.

use half::{bf16, f16};

use super::convert::{self, Draw};
use super::matmul::{self, Matmul, Output, Rhs, Rows, Scratch};
use super::minifloat::{self, Cfp8Decoder};
use super::ops::{Binary, Compare, IntBinary, Operand, Reduce, Unary};
use super::{elementwise, integer, reduce};

/// What a tier must provide itself: the inner blocks of tile products. All else is compiled from
/// one definition.
///
/// A block is `ROWS x (16 * HALVES)` elements of C. Implementations check the lengths by
/// [`TileBlock::check`].
pub(super) trait Tier: Copy {
    /// The largest `ROWS`, at most 12.
    const MAX_ROWS: usize;
    /// Whether there is [`Tier::pair_block`].
    const HAS_PAIRS: bool = false;

    /// `c (+)= a * panel` in f32 by the rules of the module. Operands are not subnormal (the
    /// caller's duty), c may be.
    fn f32_block<const ROWS: usize, const HALVES: usize>(self, block: BlockF32<'_>);

    /// The same for `k` pairs of bf16 by plain multiply-adds. The caller has made sure that no
    /// operand, no c and no partial sum is subnormal.
    fn pair_block<const ROWS: usize, const HALVES: usize>(self, _block: BlockPairs<'_>) {
        unreachable!("asked for by `HAS_PAIRS` only");
    }

    /// Whether there is [`Tier::dot_block`] on this host.
    fn has_dot(self) -> bool {
        false
    }

    /// Whether [`Tier::pair_block`] is to be used where it can, for `m x n` products.
    fn prefers_pairs(self, _m: usize, _n: usize) -> bool {
        Self::HAS_PAIRS
    }

    /// The same for `k` steps of bf16, k not being zero, by an instruction for pairs.
    fn dot_block<const ROWS: usize, const HALVES: usize>(self, _block: BlockBf16<'_>) {
        unreachable!("asked for by `has_dot` only");
    }

    /// Writes rows of A as [`BlockPairs`] has them to `to`, dense, and gives the least magnitude of
    /// the nonzero elements as its code (the largest code if all are zero).
    #[inline(always)]
    fn split_pairs(self, a: Rows<'_, bf16>, m: usize, to: &mut [f32]) -> u16 {
        matmul::split_pairs(a, m, to)
    }

    /// Whether an element is subnormal.
    #[inline(always)]
    fn any_subnormal(self, x: &[f32]) -> bool {
        // Zero wraps to the largest number, and a least element is quickly found.
        let less_one = x.iter().fold(u32::MAX, |least, x| {
            least.min((x.to_bits() & 0x7FFF_FFFF).wrapping_sub(1))
        });
        less_one < 0x007F_FFFF
    }
}

/// Operands of a block; see [`Tier`].
pub(super) struct TileBlock<'a, A, B> {
    /// The block's rows of A.
    pub a: &'a [A],
    /// From row to row.
    pub a_stride: usize,
    /// Steps, or pairs of steps.
    pub k: usize,
    /// A panel, from the block's first column on.
    pub panel: &'a [B],
    /// From the block's first element on.
    pub c: &'a mut [f32],
    /// From row to row.
    pub c_stride: usize,
    /// Whether c is added to.
    pub accumulate: bool,
}

/// f32 steps.
pub(super) type BlockF32<'a> = TileBlock<'a, f32, f32>;
/// bf16 steps, with panels of pairs.
pub(super) type BlockBf16<'a> = TileBlock<'a, bf16, bf16>;
/// Pairs of bf16 steps; a row of A holds the `k` odd elements, then the `k` even ones.
pub(super) type BlockPairs<'a> = TileBlock<'a, f32, bf16>;

impl<A, B> TileBlock<'_, A, B> {
    /// Panics unless the slices hold `rows` rows of A with `a_len` elements, panel rows of
    /// `panel_row` elements for these, of which `panel_used` are used (as many, or twice as
    /// many, as columns of C).
    #[inline(always)]
    pub fn check(&self, rows: usize, a_len: usize, panel_used: usize, panel_row: usize) {
        let per_row = panel_row / 32;
        let steps = a_len.div_ceil(per_row);
        assert!(self.a.len() >= (rows - 1) * self.a_stride + a_len);
        assert!(steps == 0 || self.panel.len() >= (steps - 1) * panel_row + panel_used);
        assert!(self.c.len() >= (rows - 1) * self.c_stride + panel_used / per_row);
    }
}

/// Declares [`Kernels`] and the macro that implements it for a tier, from one list. `plain`
/// kernels are generic code, `tiered` ones take the tier as well.
macro_rules! kernels {
    (
        plain { $($(#[$pdoc:meta])* fn $pname:ident($($parg:ident: $pty:ty),* $(,)?) $(-> $pret:ty)? = $pbody:path;)* }
        tiered { $($(#[$tdoc:meta])* fn $tname:ident($($targ:ident: $tty:ty),* $(,)?) = $tbody:path;)* }
    ) => {
        /// One implementation of all arithmetic. See the [module](super) for what the functions
        /// compute, to the bit.
        ///
        /// All functions panic if slices that should be equally long are not, or if a view
        /// exceeds its slice: a verified program has neither.
        pub trait Kernels: Send + Sync + std::fmt::Debug {
            /// `"scalar"`, `"avx2"` or `"avx512"`.
            fn name(&self) -> &'static str;
            $($(#[$pdoc])* fn $pname(&self, $($parg: $pty),*) $(-> $pret)?;)*
            $($(#[$tdoc])* fn $tname(&self, $($targ: $tty),*);)*
        }

        impl Kernels for Scalar {
            fn name(&self) -> &'static str {
                "scalar"
            }

            $(fn $pname(&self, $($parg: $pty),*) $(-> $pret)? {
                $pbody($($parg),*)
            })*

            $(fn $tname(&self, $($targ: $tty),*) {
                $tbody(*self, $($targ),*)
            })*
        }

        #[cfg(target_arch = "x86_64")]
        impl Kernels for super::x86::Avx2 {
            fn name(&self) -> &'static str {
                "avx2"
            }

            $(fn $pname(&self, $($parg: $pty),*) $(-> $pret)? {
                #[target_feature(enable = "avx2,fma")]
                fn inner($($parg: $pty),*) $(-> $pret)? {
                    $pbody($($parg),*)
                }
                // SAFETY: the type is made only where these features have been detected.
                unsafe { inner($($parg),*) }
            })*

            $(fn $tname(&self, $($targ: $tty),*) {
                #[target_feature(enable = "avx2,fma")]
                fn inner(tier: super::x86::Avx2, $($targ: $tty),*) {
                    $tbody(tier, $($targ),*)
                }
                // SAFETY: the type is made only where these features have been detected.
                unsafe { inner(*self, $($targ),*) }
            })*
        }

        #[cfg(target_arch = "x86_64")]
        impl Kernels for super::x86::Avx512 {
            fn name(&self) -> &'static str {
                "avx512"
            }

            $(fn $pname(&self, $($parg: $pty),*) $(-> $pret)? {
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn inner($($parg: $pty),*) $(-> $pret)? {
                    $pbody($($parg),*)
                }
                // SAFETY: the type is made only where these features have been detected.
                unsafe { inner($($parg),*) }
            })*

            $(fn $tname(&self, $($targ: $tty),*) {
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn inner(tier: super::x86::Avx512, $($targ: $tty),*) {
                    $tbody(tier, $($targ),*)
                }
                // SAFETY: the type is made only where these features have been detected.
                unsafe { inner(*self, $($targ),*) }
            })*
        }
    };
}

kernels! {
    plain {
        /// y = op(x).
        fn unary_f32(op: Unary, x: &[f32], y: &mut [f32]) = elementwise::unary;
        /// y = op(x) in bf16.
        fn unary_bf16(op: Unary, x: &[bf16], y: &mut [bf16]) = elementwise::unary;
        /// x = op(x).
        fn unary_in_place_f32(op: Unary, x: &mut [f32]) = elementwise::unary_in_place;
        /// x = op(x) in bf16.
        fn unary_in_place_bf16(op: Unary, x: &mut [bf16]) = elementwise::unary_in_place;
        /// y = op(a, b).
        fn binary_f32(op: Binary, a: &[f32], b: Operand<'_, f32>, y: &mut [f32]) = elementwise::binary;
        /// y = op(a, b) in bf16.
        fn binary_bf16(op: Binary, a: &[bf16], b: Operand<'_, bf16>, y: &mut [bf16]) = elementwise::binary;
        /// a = op(a, b).
        fn binary_in_place_f32(op: Binary, a: &mut [f32], b: Operand<'_, f32>) = elementwise::binary_in_place;
        /// a = op(a, b) in bf16.
        fn binary_in_place_bf16(op: Binary, a: &mut [bf16], b: Operand<'_, bf16>) = elementwise::binary_in_place;
        /// y = alpha * x + y, rounded once.
        fn axpy_f32(alpha: f32, x: &[f32], y: &mut [f32]) = elementwise::axpy;
        /// y = alpha * x + y in bf16, with alpha in f32.
        fn axpy_bf16(alpha: f32, x: &[bf16], y: &mut [bf16]) = elementwise::axpy;
        /// y = a * b + c, rounded once.
        fn mul_add_f32(a: &[f32], b: &[f32], c: &[f32], y: &mut [f32]) = elementwise::mul_add;
        /// y = a * b + c in bf16: rounded to f32, then to bf16.
        fn mul_add_bf16(a: &[bf16], b: &[bf16], c: &[bf16], y: &mut [bf16]) = elementwise::mul_add;
        /// y = min(max(x, low), high).
        fn clamp_f32(low: f32, high: f32, x: &[f32], y: &mut [f32]) = elementwise::clamp;
        /// y = min(max(x, low), high) in bf16, with limits in f32.
        fn clamp_bf16(low: f32, high: f32, x: &[bf16], y: &mut [bf16]) = elementwise::clamp;
        /// y = 1 where op(a, b) holds, else 0.
        fn compare_f32(op: Compare, a: &[f32], b: Operand<'_, f32>, y: &mut [u8]) = elementwise::compare;
        /// y = 1 where op(a, b) holds, else 0.
        fn compare_bf16(op: Compare, a: &[bf16], b: Operand<'_, bf16>, y: &mut [u8]) = elementwise::compare;
        /// y = a where the mask is not 0, else b; bits are kept.
        fn select_f32(mask: &[u8], a: &[f32], b: &[f32], y: &mut [f32]) = elementwise::select;
        /// y = a where the mask is not 0, else b; bits are kept.
        fn select_bf16(mask: &[u8], a: &[bf16], b: &[bf16], y: &mut [bf16]) = elementwise::select;
        /// y = a where the mask is not 0, else b.
        fn select_i32(mask: &[u8], a: &[i32], b: &[i32], y: &mut [i32]) = elementwise::select;
        /// y = a where the mask is not 0, else b.
        fn select_i64(mask: &[u8], a: &[i64], b: &[i64], y: &mut [i64]) = elementwise::select;
        /// One value of all elements.
        fn reduce_f32(op: Reduce, x: &[f32]) -> f32 = reduce::reduce;
        /// One value of all elements, computed and returned in f32.
        fn reduce_bf16(op: Reduce, x: &[bf16]) -> f32 = reduce::reduce;
        /// y = op(a, b).
        fn binary_i32(op: IntBinary, a: &[i32], b: Operand<'_, i32>, y: &mut [i32]) = integer::binary;
        /// y = op(a, b).
        fn binary_i64(op: IntBinary, a: &[i64], b: Operand<'_, i64>, y: &mut [i64]) = integer::binary;
        /// y = 1 where op(a, b) holds, else 0.
        fn compare_i32(op: Compare, a: &[i32], b: Operand<'_, i32>, y: &mut [u8]) = integer::compare;
        /// y = 1 where op(a, b) holds, else 0.
        fn compare_i64(op: Compare, a: &[i64], b: Operand<'_, i64>, y: &mut [u8]) = integer::compare;
        /// Rounds to nearest even.
        fn f32_to_bf16(x: &[f32], y: &mut [bf16]) = convert::f32_to_bf16;
        /// Rounds stochastically, by [`dojoc_ir::formats::stochastic_bf16`] after the general
        /// rules.
        fn f32_to_bf16_stochastic(draw: Draw, x: &[f32], y: &mut [bf16]) = convert::f32_to_bf16_stochastic;
        /// Exact.
        fn bf16_to_f32(x: &[bf16], y: &mut [f32]) = convert::bf16_to_f32;
        /// Rounds to nearest even; f16 subnormals are kept.
        fn f32_to_f16(x: &[f32], y: &mut [f16]) = convert::f32_to_f16;
        /// Exact; f16 subnormals are kept.
        fn f16_to_f32(x: &[f16], y: &mut [f32]) = convert::f16_to_f32;
        /// Rounds to nearest even.
        fn i32_to_f32(x: &[i32], y: &mut [f32]) = convert::i32_to_f32;
        /// Truncates towards zero; out of range as the `convert` op of the IR does it: the low bits
        /// of a 128-bit integer, to which larger values saturate; NaN gives 0.
        fn f32_to_i32(x: &[f32], y: &mut [i32]) = convert::f32_to_i32;
        /// Extends the sign.
        fn i8_to_i32(x: &[i8], y: &mut [i32]) = convert::i8_to_i32;
        /// Exact; see [`Cfp8Decoder`].
        fn cfp8_to_bf16(decoder: Cfp8Decoder, x: &[u8], y: &mut [bf16]) = minifloat::cfp8_to_bf16;
        /// Packs B, `k x n`, into panels; subnormals become zero. `panels` holds
        /// [`packed_len_f32(k, n)`](super::packed_len_f32) elements.
        fn pack_b_f32(b: Rhs<'_, f32>, k: usize, n: usize, panels: &mut [f32]) = matmul::pack_b_f32;
        /// Packs B, `k x n`, into panels of pairs. `panels` holds
        /// [`packed_len_bf16(k, n)`](super::packed_len_bf16) elements.
        fn pack_b_bf16(b: Rhs<'_, bf16>, k: usize, n: usize, panels: &mut [bf16]) = matmul::pack_b_bf16;
    }
    tiered {
        /// A tile product of f32 operands with its epilogue.
        fn matmul_f32(product: &Matmul<'_, f32>, output: Output<'_>, scratch: &mut Scratch) = matmul::matmul_f32;
        /// A tile product of bf16 operands with its epilogue.
        fn matmul_bf16(product: &Matmul<'_, bf16>, output: Output<'_>, scratch: &mut Scratch) = matmul::matmul_bf16;
    }
}

/// Portable code without intrinsics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalar;

impl Tier for Scalar {
    const MAX_ROWS: usize = 4;

    fn f32_block<const ROWS: usize, const HALVES: usize>(self, block: BlockF32<'_>) {
        let width = 16 * HALVES;
        block.check(ROWS, block.k, width, 32);
        for i in 0..ROWS {
            let c = &mut block.c[i * block.c_stride..][..width];
            for (j, c) in c.iter_mut().enumerate() {
                let mut sum = if block.accumulate {
                    super::float::flush(*c)
                } else {
                    0.0
                };
                for p in 0..block.k {
                    sum = block.a[i * block.a_stride + p].mul_add(block.panel[p * 32 + j], sum);
                }
                *c = super::float::finish(sum);
            }
        }
    }
}
