//! AVX-512, with and without BF16.

use std::arch::x86_64::*;

use half::bf16;

use crate::kernels::float::{dot_step, finish, flush};
use crate::kernels::matmul::Rows;
use crate::kernels::tier::{BlockBf16, BlockF32, BlockPairs, Kernels, Tier, TileBlock};

/// AVX-512 F, BW, DQ and VL, with AVX2 and FMA. Made only where all are present.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Avx512 {
    /// AVX512_BF16 is present and computes what is specified.
    dot: bool,
    /// The bf16 instruction is slower than the two multiply-adds that it replaces.
    slow_dot: bool,
}

/// `intel`: who made the processor. Intel's execute a 512-bit bf16 instruction every other cycle
/// and two multiply-adds each cycle (measured on one with AMX); AMD's two of either.
pub(super) fn detect(intel: bool) -> Option<&'static dyn Kernels> {
    let present = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    // SAFETY: short-circuiting calls it only where the features are present.
    let dot = present && is_x86_feature_detected!("avx512bf16") && unsafe { dot_is_as_specified() };
    let found = VARIANTS
        .iter()
        .find(|k| k.dot == dot && k.slow_dot == (dot && intel));
    present.then_some(found? as &dyn Kernels)
}

static VARIANTS: [Avx512; 3] = [
    Avx512 {
        dot: false,
        slow_dot: false,
    },
    Avx512 {
        dot: true,
        slow_dot: true,
    },
    Avx512 {
        dot: true,
        slow_dot: false,
    },
];

/// The variants that this host can run.
#[cfg(test)]
pub(super) fn variants() -> Vec<&'static dyn Kernels> {
    if detect(false).is_none() {
        return vec![];
    }
    // SAFETY: as in `detect`.
    let dot = is_x86_feature_detected!("avx512bf16") && unsafe { dot_is_as_specified() };
    let runnable = VARIANTS.iter().filter(|k| dot || !k.dot);
    runnable.map(|k| k as &dyn Kernels).collect()
}

const fn power(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << 23)
}

/// Cases (a1, b1, a0, b0, c), exact in bf16 but for c, that tell fused from separate rounding: with
/// products that alone would overflow or underflow, subnormal operands and results, and results
/// that reach `2^-126` by rounding with a bounded exponent only.
const TELLING: [[f32; 5]; 8] = [
    [power(100), -power(100), power(100), 1.0, f32::INFINITY],
    [power(64), power(64), 1.0, 0.0, -power(127)],
    [-power(-75), power(-75), 0.0, 0.0, power(-126)],
    [power(-75), power(-75), 0.0, 0.0, power(-126)],
    [
        power(-75),
        -power(-75) * 1.5,
        power(-75),
        power(-75),
        -power(-126),
    ],
    [power(-75), power(-64), power(-75), power(-64), 1.0],
    [
        power(-126) / 2.0,
        power(100),
        1.0,
        power(-126) / 4.0,
        power(-126) / 8.0,
    ],
    [1.0, power(-126), -1.0, power(-126) * 1.5, 0.0],
];

/// Whether the bf16 instruction agrees with [`dot_step`] on the [`TELLING`] cases.
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_is_as_specified() -> bool {
    TELLING.iter().all(|&[a1, b1, a0, b0, c]| {
        let pair = |odd: f32, even: f32| {
            let bits = odd.to_bits() & 0xFFFF_0000 | even.to_bits() >> 16;
            as_bf16(_mm512_set1_epi32(bits as i32))
        };
        let found = _mm512_dpbf16_ps(_mm512_set1_ps(c), pair(a1, a0), pair(b1, b0));
        let odd = dot_step(flush(a1), flush(b1), c);
        let expected = dot_step(flush(a0), flush(b0), odd);
        finish(_mm512_cvtss_f32(found)).to_bits() == finish(expected).to_bits()
    })
}

/// The same bits as the operand type of the bf16 instruction.
#[inline]
#[target_feature(enable = "avx512f")]
fn as_bf16(x: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes of any pattern.
    unsafe { std::mem::transmute(x) }
}

impl Tier for Avx512 {
    const MAX_ROWS: usize = 12;
    const HAS_PAIRS: bool = true;

    #[inline(always)]
    fn f32_block<const ROWS: usize, const HALVES: usize>(self, block: BlockF32<'_>) {
        // SAFETY: the type is made only where these features have been detected.
        unsafe { f32_block::<ROWS, HALVES>(block) }
    }

    #[inline(always)]
    fn pair_block<const ROWS: usize, const HALVES: usize>(self, block: BlockPairs<'_>) {
        // SAFETY: the type is made only where these features have been detected.
        unsafe { pair_block::<ROWS, HALVES>(block) }
    }

    #[inline(always)]
    fn has_dot(self) -> bool {
        self.dot
    }

    #[inline(always)]
    fn prefers_pairs(self, m: usize, n: usize) -> bool {
        // Pairs cost a look at each operand; small products do not repay that.
        !self.dot || self.slow_dot && m >= PAIRS_FROM.0 && n >= PAIRS_FROM.1
    }

    #[inline(always)]
    fn split_pairs(self, a: Rows<'_, bf16>, m: usize, to: &mut [f32]) -> u16 {
        // SAFETY: the type is made only where these features have been detected.
        unsafe { split_pairs(a, m, to) }
    }

    #[inline(always)]
    fn dot_block<const ROWS: usize, const HALVES: usize>(self, block: BlockBf16<'_>) {
        assert!(self.dot, "called without the instruction");
        // SAFETY: `dot` is set only where the features have been detected.
        unsafe { dot_block::<ROWS, HALVES>(block) }
    }

    #[inline(always)]
    fn any_subnormal(self, x: &[f32]) -> bool {
        // SAFETY: the type is made only where these features have been detected.
        unsafe { any_subnormal(x) }
    }
}

const SUBNORMAL: i32 = 0x20;
const SUBNORMAL_OR_NAN: i32 = SUBNORMAL | 0x01 | 0x80;

/// Rows and columns of C from which on pairs are faster than slow bf16 instructions.
const PAIRS_FROM: (usize, usize) = (24, 32);

#[target_feature(enable = "avx512f,avx512bw")]
fn split_pairs(rows: Rows<'_, bf16>, m: usize, to: &mut [f32]) -> u16 {
    let pairs = rows.k.div_ceil(2);
    assert!(m > 0 && rows.data.len() >= (m - 1) * rows.stride + rows.k);
    assert!(to.len() >= 2 * pairs * m);
    let odd = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
    let magnitude = _mm512_set1_epi16(0x7FFF);
    let minus_one = _mm512_set1_epi16(-1);
    let mut least_less_one = minus_one;
    for i in 0..m {
        for first in (0..pairs).step_by(16) {
            let elements = (rows.k - 2 * first).min(32);
            let loaded = u32::MAX >> (32 - elements);
            let stored = u16::MAX >> (16 - elements.div_ceil(2));
            // SAFETY: the masks leave out what is beyond the row, and rows have been compared with
            // the lengths of the slices.
            unsafe {
                let from = rows.data.as_ptr().add(i * rows.stride + 2 * first);
                let x = _mm512_maskz_loadu_epi16(loaded, from.cast());
                let to = to.as_mut_ptr().add(2 * pairs * i + first);
                _mm512_mask_storeu_epi32(to.cast(), stored, _mm512_and_si512(x, odd));
                let even = _mm512_slli_epi32::<16>(x);
                _mm512_mask_storeu_epi32(to.add(pairs).cast(), stored, even);
                let less_one = _mm512_add_epi16(_mm512_and_si512(x, magnitude), minus_one);
                least_less_one = _mm512_min_epu16(least_less_one, less_one);
            }
        }
    }
    let mut lanes = [0u16; 32];
    // SAFETY: the array has the size of the vector.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), least_less_one) };
    lanes.into_iter().fold(u16::MAX, u16::min).saturating_add(1)
}

#[target_feature(enable = "avx512f,avx512dq")]
fn any_subnormal(x: &[f32]) -> bool {
    let mut found = 0;
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        // SAFETY: the chunk has 16 elements.
        let x = unsafe { _mm512_loadu_ps(chunk.as_ptr()) };
        found |= _mm512_fpclass_ps_mask::<SUBNORMAL>(x);
    }
    found != 0 || chunks.remainder().iter().any(|x| x.is_subnormal())
}

type Sums<const ROWS: usize, const HALVES: usize> = [[__m512; HALVES]; ROWS];

/// What a block starts with. It has been checked.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn load<A, B, const ROWS: usize, const HALVES: usize>(
    block: &TileBlock<'_, A, B>,
) -> Sums<ROWS, HALVES> {
    let mut sums = [[_mm512_setzero_ps(); HALVES]; ROWS];
    if block.accumulate {
        let sign = _mm512_set1_ps(-0.0);
        for (i, row) in sums.iter_mut().enumerate() {
            for (h, sum) in row.iter_mut().enumerate() {
                let at = i * block.c_stride + 16 * h;
                // SAFETY: `check` has compared the block with the length of `c`.
                let c = unsafe { _mm512_loadu_ps(block.c.as_ptr().add(at)) };
                *sum = _mm512_mask_and_ps(c, _mm512_fpclass_ps_mask::<SUBNORMAL>(c), c, sign);
            }
        }
    }
    sums
}

/// Stores what [`load`] has begun.
#[inline]
#[target_feature(enable = "avx512f")]
fn store<A, B, const ROWS: usize, const HALVES: usize>(
    block: &mut TileBlock<'_, A, B>,
    sums: &Sums<ROWS, HALVES>,
) {
    for (i, row) in sums.iter().enumerate() {
        for (h, sum) in row.iter().enumerate() {
            let at = i * block.c_stride + 16 * h;
            // SAFETY: `check` has compared the block with the length of `c`.
            unsafe { _mm512_storeu_ps(block.c.as_mut_ptr().add(at), *sum) };
        }
    }
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

/// `sums[i] += a[i * stride] * columns`.
///
/// # Safety
/// `a` points to the first of `ROWS` elements that are `stride` apart.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn step<const ROWS: usize, const HALVES: usize>(
    sums: &mut Sums<ROWS, HALVES>,
    a: *const f32,
    stride: usize,
    columns: [__m512; HALVES],
) {
    for (i, row) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's duty.
        let x = _mm512_set1_ps(unsafe { *a.add(i * stride) });
        for (sum, column) in row.iter_mut().zip(columns) {
            *sum = _mm512_fmadd_ps(x, column, *sum);
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq")]
fn f32_block<const ROWS: usize, const HALVES: usize>(mut block: BlockF32<'_>) {
    block.check(ROWS, block.k, 16 * HALVES, 32);
    let mut sums = load::<_, _, ROWS, HALVES>(&block);
    let (mut a, mut b) = (block.a.as_ptr(), block.panel.as_ptr());
    for _ in 0..block.k {
        // SAFETY: `check` has compared k steps with the lengths of `panel` and of the rows of `a`;
        // the pointers are at a step, and past the end only after the last one.
        unsafe {
            let mut columns = [_mm512_setzero_ps(); HALVES];
            for (h, column) in columns.iter_mut().enumerate() {
                *column = _mm512_loadu_ps(b.add(16 * h));
            }
            step(&mut sums, a, block.a_stride, columns);
        }
        a = a.wrapping_add(1);
        b = b.wrapping_add(32);
    }
    let mut unfinished = 0;
    for sum in sums.as_flattened() {
        unfinished |= _mm512_fpclass_ps_mask::<SUBNORMAL_OR_NAN>(*sum);
    }
    store(&mut block, &sums);
    if unfinished != 0 {
        finish_stored(block.c, block.c_stride, ROWS, 16 * HALVES);
    }
}

/// Loads the pairs of one step.
///
/// # Safety
/// `b` has `32 * HALVES` elements.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_pairs<const HALVES: usize>(b: *const bf16) -> [__m512i; HALVES] {
    let mut pairs = [_mm512_setzero_si512(); HALVES];
    for (h, pair) in pairs.iter_mut().enumerate() {
        // SAFETY: the caller's duty.
        *pair = unsafe { _mm512_loadu_si512(b.add(32 * h).cast()) };
    }
    pairs
}

#[target_feature(enable = "avx512f,avx512dq")]
fn pair_block<const ROWS: usize, const HALVES: usize>(block: BlockPairs<'_>) {
    block.check(ROWS, 2 * block.k, 32 * HALVES, 64);
    let mut sums = load::<_, _, ROWS, HALVES>(&block);
    let (mut a, mut b) = (block.a.as_ptr(), block.panel.as_ptr());
    let odd = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
    for _ in 0..block.k {
        // SAFETY: `check` has compared k pairs with the lengths of `panel` and of the rows of `a`,
        // which hold k odd elements before the even ones; the pointers are at a pair, and past the
        // end only after the last one.
        unsafe {
            let pairs = load_pairs::<HALVES>(b);
            let columns = pairs.map(|x| _mm512_castsi512_ps(_mm512_and_si512(x, odd)));
            step(&mut sums, a, block.a_stride, columns);
            let columns = pairs.map(|x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)));
            step(&mut sums, a.add(block.k), block.a_stride, columns);
        }
        a = a.wrapping_add(1);
        b = b.wrapping_add(64);
    }
    store_ordered(block, &sums);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
fn dot_block<const ROWS: usize, const HALVES: usize>(block: BlockBf16<'_>) {
    assert!(block.k > 0, "without steps subnormal sums would stay");
    block.check(ROWS, block.k, 32 * HALVES, 64);
    let mut sums = load::<_, _, ROWS, HALVES>(&block);
    let (mut a, mut b) = (block.a.as_ptr(), block.panel.as_ptr());
    for _ in 0..block.k / 2 {
        // SAFETY: `check` has compared k/2 pairs with the lengths of `panel` and of the rows of
        // `a`; the pointers are at a pair, and past the end only after the last one.
        unsafe {
            let columns = load_pairs::<HALVES>(b);
            dot_step_of_rows(&mut sums, columns, |i| {
                a.add(i * block.a_stride).cast::<i32>().read_unaligned()
            });
        }
        a = a.wrapping_add(2);
        b = b.wrapping_add(64);
    }
    if block.k % 2 == 1 {
        // SAFETY: as above; of the last pair only the even element is read.
        unsafe {
            let columns = load_pairs::<HALVES>(b);
            dot_step_of_rows(&mut sums, columns, |i| {
                i32::from((*a.add(i * block.a_stride)).to_bits())
            });
        }
    }
    store_ordered(block, &sums);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_step_of_rows<const ROWS: usize, const HALVES: usize>(
    sums: &mut Sums<ROWS, HALVES>,
    columns: [__m512i; HALVES],
    pair_of_row: impl Fn(usize) -> i32,
) {
    for (i, row) in sums.iter_mut().enumerate() {
        let x = as_bf16(_mm512_set1_epi32(pair_of_row(i)));
        for (sum, column) in row.iter_mut().zip(columns) {
            *sum = _mm512_dpbf16_ps(*sum, x, as_bf16(column));
        }
    }
}

/// Stores sums that are not subnormal. NaN persists through all steps, so one test at the end is
/// enough, two sums at a time.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_ordered<A, B, const ROWS: usize, const HALVES: usize>(
    mut block: TileBlock<'_, A, B>,
    sums: &Sums<ROWS, HALVES>,
) {
    let mut ordered = 0xFFFF;
    for row in sums {
        ordered = _mm512_mask_cmp_ps_mask::<_CMP_ORD_Q>(ordered, row[0], row[HALVES - 1]);
    }
    store(&mut block, sums);
    if ordered != 0xFFFF {
        finish_stored(block.c, block.c_stride, ROWS, 16 * HALVES);
    }
}
