//! AVX2 with FMA.

use std::arch::x86_64::*;

use crate::kernels::float::CANONICAL_NAN;
use crate::kernels::tier::{BlockF32, BlockPairs, Kernels, Tier, TileBlock};

/// Made only where AVX2 and FMA are present.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Avx2(());

pub(super) fn detect() -> Option<&'static dyn Kernels> {
    let present = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    present.then_some(&Avx2(()))
}

impl Tier for Avx2 {
    const MAX_ROWS: usize = 6;
    const HAS_PAIRS: bool = true;

    #[inline(always)]
    fn f32_block<const ROWS: usize, const HALVES: usize>(self, mut block: BlockF32<'_>) {
        for h in 0..HALVES {
            // SAFETY: the type is made only where these features have been detected.
            unsafe { f32_half::<ROWS>(&mut block, 16 * h) }
        }
    }

    #[inline(always)]
    fn pair_block<const ROWS: usize, const HALVES: usize>(self, mut block: BlockPairs<'_>) {
        for h in 0..HALVES {
            // SAFETY: the type is made only where these features have been detected.
            unsafe { pair_half::<ROWS>(&mut block, 16 * h) }
        }
    }
}

/// Sixteen columns of a block.
type Sums<const ROWS: usize> = [[__m256; 2]; ROWS];

/// What the sixteen columns from `column` on start with. The block has been checked.
#[inline]
#[target_feature(enable = "avx2")]
fn load<A, B, const ROWS: usize>(block: &TileBlock<'_, A, B>, column: usize) -> Sums<ROWS> {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    if block.accumulate {
        for (i, sums) in sums.iter_mut().enumerate() {
            let row = &block.c[i * block.c_stride + column..][..16];
            for (part, sum) in row.chunks_exact(8).zip(sums) {
                // SAFETY: the part has eight elements.
                *sum = flush(unsafe { _mm256_loadu_ps(part.as_ptr()) });
            }
        }
    }
    sums
}

/// Finishes and stores what [`load`] has begun.
#[inline]
#[target_feature(enable = "avx2")]
fn store<A, B, const ROWS: usize>(
    block: &mut TileBlock<'_, A, B>,
    column: usize,
    sums: &Sums<ROWS>,
) {
    let canonical = _mm256_set1_ps(f32::from_bits(CANONICAL_NAN));
    for (i, sums) in sums.iter().enumerate() {
        let row = &mut block.c[i * block.c_stride + column..][..16];
        for (part, sum) in row.chunks_exact_mut(8).zip(sums) {
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(*sum, *sum);
            let finished = _mm256_blendv_ps(flush(*sum), canonical, nan);
            // SAFETY: the part has eight elements.
            unsafe { _mm256_storeu_ps(part.as_mut_ptr(), finished) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn flush(x: __m256) -> __m256 {
    let bits = _mm256_castps_si256(x);
    let exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7F80_0000));
    let subnormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    let magnitude = _mm256_and_si256(subnormal, _mm256_set1_epi32(0x7FFF_FFFF));
    _mm256_castsi256_ps(_mm256_andnot_si256(magnitude, bits))
}

/// `sums[i] += a[i * stride] * columns`.
///
/// # Safety
/// `a` points to the first of `ROWS` elements that are `stride` apart.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn step<const ROWS: usize>(
    sums: &mut Sums<ROWS>,
    a: *const f32,
    stride: usize,
    columns: [__m256; 2],
) {
    for (i, row) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's duty.
        let x = _mm256_set1_ps(unsafe { *a.add(i * stride) });
        for (sum, column) in row.iter_mut().zip(columns) {
            *sum = _mm256_fmadd_ps(x, column, *sum);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn f32_half<const ROWS: usize>(block: &mut BlockF32<'_>, column: usize) {
    block.check(ROWS, block.k, column + 16, 32);
    let mut sums = load::<_, _, ROWS>(block, column);
    let (mut a, mut b) = (block.a.as_ptr(), block.panel.as_ptr().wrapping_add(column));
    for _ in 0..block.k {
        // SAFETY: `check` has compared k steps with the lengths of `panel` and of the rows of `a`;
        // the pointers are at a step, and past the end only after the last one.
        unsafe {
            let columns = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
            step(&mut sums, a, block.a_stride, columns);
        }
        a = a.wrapping_add(1);
        b = b.wrapping_add(32);
    }
    store(block, column, &sums);
}

#[target_feature(enable = "avx2,fma")]
fn pair_half<const ROWS: usize>(block: &mut BlockPairs<'_>, column: usize) {
    block.check(ROWS, 2 * block.k, 2 * column + 32, 64);
    let mut sums = load::<_, _, ROWS>(block, column);
    let mut a = block.a.as_ptr();
    let mut b = block.panel.as_ptr().wrapping_add(2 * column);
    let odd = _mm256_set1_epi32(0xFFFF_0000_u32 as i32);
    for _ in 0..block.k {
        // SAFETY: `check` has compared k pairs with the lengths of `panel` and of the rows of `a`,
        // which hold k odd elements before the even ones; the pointers are at a pair, and past the
        // end only after the last one.
        unsafe {
            let pairs = [
                _mm256_loadu_si256(b.cast()),
                _mm256_loadu_si256(b.add(16).cast()),
            ];
            let columns = pairs.map(|x| _mm256_castsi256_ps(_mm256_and_si256(x, odd)));
            step(&mut sums, a, block.a_stride, columns);
            let columns = pairs.map(|x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)));
            step(&mut sums, a.add(block.k), block.a_stride, columns);
        }
        a = a.wrapping_add(1);
        b = b.wrapping_add(64);
    }
    store(block, column, &sums);
}
