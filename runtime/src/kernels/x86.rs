//! The tiers of x86-64: detection, and the blocks of their tile products.

use std::arch::x86_64::*;

use half::bf16;

use super::float::{dot_step, finish};
use super::tier::{BlockBf16, BlockF32, Kernels, Tier};

/// AVX2 with FMA. Made only where both are present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

/// AVX-512 F, BW, DQ and VL, with AVX2 and FMA. Made only where all are present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512 {
    /// AVX512_BF16 is present and computes what is specified.
    dot: bool,
}

/// Adds what this host can run, the slowest first.
pub(super) fn add_available(found: &mut Vec<&'static dyn Kernels>) {
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        found.push(&Avx2(()));
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: short-circuiting calls it only where the features are present.
            if is_x86_feature_detected!("avx512bf16") && unsafe { dot_is_as_specified() } {
                found.push(&Avx512 { dot: true });
            } else {
                found.push(&Avx512 { dot: false });
            }
        }
    }
}

/// The AVX-512 kernels as they are on hosts without a bf16 instruction, for tests.
#[cfg(test)]
pub(super) fn avx512_without_dot() -> Option<&'static dyn Kernels> {
    let has = super::by_name("avx512").is_some();
    has.then_some(&Avx512 { dot: false })
}

/// Cases (a1, b1, a0, b0, c) that tell fused from separate rounding, with products that alone
/// would overflow or underflow, subnormal operands and results, and results that reach `2^-126`
/// by rounding with a bounded exponent only.
const TELLING: [[f32; 5]; 8] = [
    [P100, -P100, P100, 1.0, f32::INFINITY],
    [P64, P64, 1.0, 0.0, -P127],
    [-M75, M75, 0.0, 0.0, M126],
    [M75, M75, 0.0, 0.0, M126],
    [M75, -M75 * 1.5, M75, M75, -M126],
    [M75, M64, M75, M64, 1.0],
    [M126 / 2.0, P100, 1.0, M126 / 4.0, M126 / 8.0],
    [1.0, M126, -1.0, M126 * 1.5, 0.0],
];
const P127: f32 = f32::from_bits((127 + 127) << 23);
const P100: f32 = f32::from_bits((127 + 100) << 23);
const P64: f32 = f32::from_bits((127 + 64) << 23);
const M64: f32 = f32::from_bits((127 - 64) << 23);
const M75: f32 = f32::from_bits((127 - 75) << 23);
const M126: f32 = f32::from_bits(1 << 23);

/// Whether the bf16 instruction agrees with [`dot_step`] on [`TELLING`] cases.
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_is_as_specified() -> bool {
    TELLING.iter().all(|&[a1, b1, a0, b0, c]| {
        let pair = |odd: f32, even: f32| {
            // All cases are exact in bf16.
            let bits = odd.to_bits() & 0xFFFF_0000 | even.to_bits() >> 16;
            bits as i32
        };
        let (a, b) = (
            _mm512_set1_epi32(pair(a1, a0)),
            _mm512_set1_epi32(pair(b1, b0)),
        );
        // SAFETY: vectors of the same size without invalid bit patterns.
        let (a, b) = unsafe { (as_bf16(a), as_bf16(b)) };
        let found = _mm512_cvtss_f32(_mm512_dpbf16_ps(_mm512_set1_ps(c), a, b));
        let flush = super::float::flush;
        let odd = dot_step(flush(a1), flush(b1), c);
        let expected = dot_step(flush(a0), flush(b0), odd);
        finish(found).to_bits() == finish(expected).to_bits()
    })
}

/// The same bits as the operand type of the bf16 instruction.
///
/// # Safety
/// None needed; both types are 64 bytes of any pattern.
#[inline(always)]
unsafe fn as_bf16(x: __m512i) -> __m512bh {
    // SAFETY: same size, no invalid bit patterns.
    unsafe { std::mem::transmute(x) }
}

/// Finishes the elements of a block after its stores, out of line: rarely needed.
#[cold]
#[inline(never)]
fn finish_stored(c: &mut [f32], stride: usize, rows: usize, width: usize) {
    for i in 0..rows {
        for c in &mut c[i * stride..][..width] {
            *c = finish(*c);
        }
    }
}

impl Tier for Avx512 {
    const MAX_ROWS: usize = 12;

    #[inline(always)]
    fn f32_block<const ROWS: usize, const HALVES: usize>(self, block: BlockF32<'_>) {
        // SAFETY: the type is made only where these features have been detected.
        unsafe { f32_block_512::<ROWS, HALVES>(block) }
    }

    #[inline(always)]
    fn has_bf16_dot(self) -> bool {
        self.dot
    }

    #[inline(always)]
    fn bf16_block<const ROWS: usize, const HALVES: usize>(self, block: BlockBf16<'_>) {
        assert!(self.dot, "called without the instruction");
        // SAFETY: `dot` is set only where the features have been detected.
        unsafe { bf16_block_512::<ROWS, HALVES>(block) }
    }
}

#[target_feature(enable = "avx512f,avx512dq")]
fn f32_block_512<const ROWS: usize, const HALVES: usize>(block: BlockF32<'_>) {
    const SUBNORMAL: i32 = 0x20;
    const SUBNORMAL_OR_NAN: i32 = 0x20 | 0x01 | 0x80;
    block.check(ROWS, 16 * HALVES, block.k, 32);
    let sign = _mm512_set1_ps(-0.0);
    let mut sums = [[_mm512_setzero_ps(); HALVES]; ROWS];
    if block.accumulate {
        for (i, row) in sums.iter_mut().enumerate() {
            for (h, sum) in row.iter_mut().enumerate() {
                // SAFETY: `check` has compared the block with the length of `c`.
                let c =
                    unsafe { _mm512_loadu_ps(block.c.as_ptr().add(i * block.c_stride + 16 * h)) };
                *sum = _mm512_mask_and_ps(c, _mm512_fpclass_ps_mask::<SUBNORMAL>(c), c, sign);
            }
        }
    }
    let mut a = block.a.as_ptr();
    let mut b = block.panel.as_ptr();
    for _ in 0..block.k {
        // SAFETY: `check` has compared k steps with the lengths of `panel` and of the rows of `a`;
        // the pointers are at step p, and past the end only after the last one.
        unsafe {
            let mut columns = [_mm512_setzero_ps(); HALVES];
            for (h, column) in columns.iter_mut().enumerate() {
                *column = _mm512_loadu_ps(b.add(16 * h));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i * block.a_stride));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(x, column, *sum);
                }
            }
            a = a.wrapping_add(1);
            b = b.wrapping_add(32);
        }
    }
    let mut unfinished = 0;
    for (i, row) in sums.iter().enumerate() {
        for (h, sum) in row.iter().enumerate() {
            unfinished |= _mm512_fpclass_ps_mask::<SUBNORMAL_OR_NAN>(*sum);
            // SAFETY: as for the loads.
            unsafe {
                _mm512_storeu_ps(block.c.as_mut_ptr().add(i * block.c_stride + 16 * h), *sum)
            };
        }
    }
    if unfinished != 0 {
        finish_stored(block.c, block.c_stride, ROWS, 16 * HALVES);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_block_512<const ROWS: usize, const HALVES: usize>(block: BlockBf16<'_>) {
    assert!(block.k > 0, "without steps subnormal sums would stay");
    block.check(ROWS, 16 * HALVES, block.k.div_ceil(2), 64);
    let mut sums = [[_mm512_setzero_ps(); HALVES]; ROWS];
    if block.accumulate {
        for (i, row) in sums.iter_mut().enumerate() {
            for (h, sum) in row.iter_mut().enumerate() {
                // SAFETY: `check` has compared the block with the length of `c`.
                *sum =
                    unsafe { _mm512_loadu_ps(block.c.as_ptr().add(i * block.c_stride + 16 * h)) };
            }
        }
    }
    let mut a = block.a.as_ptr();
    let mut b = block.panel.as_ptr();
    for _ in 0..block.k / 2 {
        // SAFETY: `check` has compared k/2 pairs with the lengths of `panel` and of the rows of
        // `a`; the pointers are at a pair, and past the end only after the last one.
        unsafe {
            step::<ROWS, HALVES>(&mut sums, b, |i| {
                a.add(i * block.a_stride).cast::<i32>().read_unaligned()
            });
        }
        a = a.wrapping_add(2);
        b = b.wrapping_add(64);
    }
    if block.k % 2 == 1 {
        // SAFETY: as above; of the last pair only the even element is read.
        unsafe {
            step::<ROWS, HALVES>(&mut sums, b, |i| {
                i32::from((*a.add(i * block.a_stride)).to_bits())
            });
        }
    }
    // NaN persists, so one test of the final sums is enough, two sums at a time.
    let mut ordered = 0xFFFF;
    for (i, row) in sums.iter().enumerate() {
        ordered = _mm512_mask_cmp_ps_mask::<_CMP_ORD_Q>(ordered, row[0], row[HALVES - 1]);
        for (h, sum) in row.iter().enumerate() {
            // SAFETY: as for the loads.
            unsafe {
                _mm512_storeu_ps(block.c.as_mut_ptr().add(i * block.c_stride + 16 * h), *sum)
            };
        }
    }
    if ordered != 0xFFFF {
        finish_stored(block.c, block.c_stride, ROWS, 16 * HALVES);
    }
}

/// One pair of steps.
///
/// # Safety
/// `b` has `32 * HALVES` elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn step<const ROWS: usize, const HALVES: usize>(
    sums: &mut [[__m512; HALVES]; ROWS],
    b: *const bf16,
    pair_of_row: impl Fn(usize) -> i32,
) {
    let mut columns = [_mm512_setzero_si512(); HALVES];
    for (h, column) in columns.iter_mut().enumerate() {
        // SAFETY: the caller's duty.
        *column = unsafe { _mm512_loadu_si512(b.add(32 * h).cast()) };
    }
    for (i, row) in sums.iter_mut().enumerate() {
        let x = _mm512_set1_epi32(pair_of_row(i));
        for (sum, column) in row.iter_mut().zip(columns) {
            // SAFETY: `as_bf16` demands nothing.
            *sum = unsafe { _mm512_dpbf16_ps(*sum, as_bf16(x), as_bf16(column)) };
        }
    }
}

impl Tier for Avx2 {
    const MAX_ROWS: usize = 6;

    #[inline(always)]
    fn f32_block<const ROWS: usize, const HALVES: usize>(self, mut block: BlockF32<'_>) {
        block.check(ROWS, 16 * HALVES, block.k, 32);
        for h in 0..HALVES {
            // SAFETY: the type is made only where these features have been detected.
            unsafe { f32_half_256::<ROWS>(&mut block, 16 * h) }
        }
    }
}

/// Sixteen columns from `column` on. The block has been checked.
#[target_feature(enable = "avx2,fma")]
fn f32_half_256<const ROWS: usize>(block: &mut BlockF32<'_>, column: usize) {
    block.check(ROWS, column + 16, block.k, 32);
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    if block.accumulate {
        for (i, row) in sums.iter_mut().enumerate() {
            for (h, sum) in row.iter_mut().enumerate() {
                let at = i * block.c_stride + column + 8 * h;
                // SAFETY: `check` has compared the block with the length of `c`.
                *sum = flush_256(unsafe { _mm256_loadu_ps(block.c.as_ptr().add(at)) });
            }
        }
    }
    let mut a = block.a.as_ptr();
    let mut b = block.panel.as_ptr().wrapping_add(column);
    for _ in 0..block.k {
        // SAFETY: `check` has compared k steps with the lengths of `panel` and of the rows of `a`;
        // the pointers are at step p, and past the end only after the last one.
        unsafe {
            let columns = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
            for (i, row) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.add(i * block.a_stride));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = _mm256_fmadd_ps(x, column, *sum);
                }
            }
        }
        a = a.wrapping_add(1);
        b = b.wrapping_add(32);
    }
    for (i, row) in sums.iter().enumerate() {
        for (h, sum) in row.iter().enumerate() {
            let at = i * block.c_stride + column + 8 * h;
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(*sum, *sum);
            let canonical = _mm256_set1_ps(f32::from_bits(super::float::CANONICAL_NAN));
            let finished = _mm256_blendv_ps(flush_256(*sum), canonical, nan);
            // SAFETY: as for the loads.
            unsafe { _mm256_storeu_ps(block.c.as_mut_ptr().add(at), finished) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn flush_256(x: __m256) -> __m256 {
    let bits = _mm256_castps_si256(x);
    let exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7F80_0000));
    let subnormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    let magnitude = _mm256_and_si256(subnormal, _mm256_set1_epi32(0x7FFF_FFFF));
    _mm256_castsi256_ps(_mm256_andnot_si256(magnitude, bits))
}
