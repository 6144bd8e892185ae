//! Tile products: operands, the loop over blocks, and the ways without a bf16 instruction.

mod epilogue;
mod pack;
mod types;

pub(super) use pack::{pack_b_bf16, pack_b_f32};
pub use pack::{packed_len_bf16, packed_len_f32, unpack_b_bf16, unpack_b_f32};
pub use types::{
    Activation, Epilogue, Lhs, Matmul, Matrix, Output, Residual, ResidualValues, Rhs, Rounding,
    Scratch,
};

use half::bf16;

use super::elementwise::Element;
use super::float::{dot_step, finish, flush};
use super::tier::{Tier, TileBlock};
use epilogue::finish_block;

/// Columns of a panel.
pub const PANEL: usize = 32;

/// A panel's columns are computed in halves, so that 16 or fewer cost half.
const HALF: usize = PANEL / 2;

/// The most rows that any tier has in a block.
const MAX_BLOCK_ROWS: usize = 12;

/// Where block results go before an epilogue.
type Staging = [f32; MAX_BLOCK_ROWS * PANEL];

/// One way to compute blocks: calls the tier's kernel of the right size.
trait Blocks<E> {
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, E>);
}

/// The tier's f32 blocks.
struct F32Blocks<T>(T);

impl<T: Tier> Blocks<f32> for F32Blocks<T> {
    #[inline(always)]
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, f32>) {
        self.0.f32_block::<ROWS, HALVES>(block);
    }
}

/// The tier's bf16 blocks.
struct DotBlocks<T>(T);

impl<T: Tier> Blocks<bf16> for DotBlocks<T> {
    #[inline(always)]
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, bf16>) {
        self.0.bf16_block::<ROWS, HALVES>(block);
    }
}

/// bf16 steps one by one on widened operands, with every rule of [`dot_step`].
struct StepBlocks;

impl Blocks<f32> for StepBlocks {
    #[inline(always)]
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, f32>) {
        for i in 0..ROWS {
            let a = &block.a[i * block.a_stride..][..block.k];
            let c = &mut block.c[i * block.c_stride..][..HALF * HALVES];
            if !block.accumulate {
                c.fill(0.0);
            }
            for (a, b) in a.iter().zip(block.panel.chunks(PANEL)) {
                for (c, b) in c.iter_mut().zip(b) {
                    *c = dot_step(*a, *b, *c);
                }
            }
            for c in c {
                *c = finish(*c);
            }
        }
    }
}

/// Calls the kernel for `rows` rows and `width` columns (at most a panel).
#[inline(always)]
fn call<E, B: Blocks<E>>(blocks: &B, rows: usize, width: usize, block: TileBlock<'_, E>) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match (rows, width > HALF) {
                $(($rows, true) => blocks.block::<$rows, 2>(block),
                  ($rows, false) => blocks.block::<$rows, 1>(block),)*
                _ => unreachable!("a block has 1 to 12 rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// The largest number of rows per block that spreads `m` rows evenly over the fewest blocks.
fn block_rows(m: usize, largest: usize) -> usize {
    m.div_ceil(m.div_ceil(largest))
}

/// Rows of A as the blocks read them.
struct Rows<'a, E> {
    data: &'a [E],
    stride: usize,
    k: usize,
}

/// Computes the columns of one panel for all rows, with the epilogue.
#[inline(always)]
fn panel_product<E, B: Blocks<E>, P>(
    product: &Matmul<'_, P>,
    output: &mut Output<'_>,
    first_column: usize,
    rows: &Rows<'_, E>,
    panel: &[E],
    (blocks, max_rows): (&B, usize),
) {
    let width = PANEL.min(product.n - first_column);
    let whole = width == PANEL || width == HALF;
    let step = block_rows(product.m, max_rows);
    for top in (0..product.m).step_by(step) {
        let count = step.min(product.m - top);
        let a = &rows.data[top * rows.stride..];
        if let Output::F32 {
            data,
            stride,
            accumulate,
        } = output
            && whole
            && product.epilogue.is_empty()
        {
            let block = TileBlock {
                a,
                a_stride: rows.stride,
                k: rows.k,
                panel,
                c: &mut data[top * *stride + first_column..],
                c_stride: *stride,
                accumulate: *accumulate,
            };
            call(blocks, count, width, block);
            continue;
        }
        let mut staging: Staging = [0.0; MAX_BLOCK_ROWS * PANEL];
        let accumulate = output.load_earlier(&mut staging, (top, count), (first_column, width));
        let block = TileBlock {
            a,
            a_stride: rows.stride,
            k: rows.k,
            panel,
            c: &mut staging,
            c_stride: PANEL,
            accumulate,
        };
        call(blocks, count, width, block);
        finish_block(
            &product.epilogue,
            output,
            &mut staging,
            (top, count),
            (first_column, width),
        );
    }
}

/// The rows of A, transposed or flushed into `copy` if need be.
#[inline(always)]
fn prepare_a<'a, E: Element>(
    product: &Matmul<'a, E>,
    copy: &'a mut Vec<E>,
    must_copy: impl Fn(&[E]) -> bool,
) -> Rows<'a, E> {
    let (m, k, a) = (product.m, product.k, product.a);
    if k == 0 {
        // The view need not hold any rows.
        return Rows {
            data: &[],
            stride: 0,
            k,
        };
    }
    if !a.transposed {
        let used = a.stride * (m - 1) + k;
        if !must_copy(&a.data[..used]) {
            return Rows {
                data: a.data,
                stride: a.stride,
                k,
            };
        }
    }
    copy.clear();
    copy.resize(m * k, E::write(0.0));
    pack::rows_of_a(a, m, k, copy);
    Rows {
        data: copy,
        stride: k,
        k,
    }
}

#[inline(always)]
fn any_subnormal(x: &[f32]) -> bool {
    x.iter().fold(false, |any, x| {
        let magnitude = x.to_bits() & 0x7FFF_FFFF;
        any | (magnitude.wrapping_sub(1) < 0x007F_FFFF)
    })
}

#[inline(always)]
pub(super) fn matmul_f32<T: Tier>(
    tier: T,
    product: &Matmul<'_, f32>,
    mut output: Output<'_>,
    scratch: &mut Scratch,
) {
    product.check(&output, packed_len_f32(product.k, product.n));
    if product.m == 0 || product.n == 0 {
        return;
    }
    let rows = prepare_a(product, &mut scratch.a_f32, any_subnormal);
    let panels = match product.b {
        Rhs::Packed(panels) => panels,
        b => {
            scratch.b_f32.clear();
            scratch
                .b_f32
                .resize(packed_len_f32(product.k, product.n), 0.0);
            pack_b_f32(b, product.k, product.n, &mut scratch.b_f32);
            &scratch.b_f32
        }
    };
    let blocks = F32Blocks(tier);
    for first_column in (0..product.n).step_by(PANEL) {
        let panel = &panels[first_column * product.k..][..PANEL * product.k];
        let blocks = (&blocks, T::MAX_ROWS);
        panel_product(product, &mut output, first_column, &rows, panel, blocks);
    }
}

#[inline(always)]
pub(super) fn matmul_bf16<T: Tier>(
    tier: T,
    product: &Matmul<'_, bf16>,
    mut output: Output<'_>,
    scratch: &mut Scratch,
) {
    product.check(&output, packed_len_bf16(product.k, product.n));
    if product.m == 0 || product.n == 0 {
        return;
    }
    let rows = prepare_a(product, &mut scratch.a_bf16, |_| false);
    let panels = match product.b {
        Rhs::Packed(panels) => panels,
        b => {
            scratch.b_bf16.clear();
            let len = packed_len_bf16(product.k, product.n);
            scratch.b_bf16.resize(len, bf16::ZERO);
            pack_b_bf16(b, product.k, product.n, &mut scratch.b_bf16);
            &scratch.b_bf16
        }
    };
    let steps = product.k.next_multiple_of(2);
    let panel_of = |first_column| &panels[first_column * steps..][..PANEL * steps];
    if tier.has_bf16_dot() && product.k > 0 {
        let blocks = (&DotBlocks(tier), T::MAX_ROWS);
        for first_column in (0..product.n).step_by(PANEL) {
            let panel = panel_of(first_column);
            panel_product(product, &mut output, first_column, &rows, panel, blocks);
        }
        return;
    }
    let least_a = widen_rows(&rows, product.m, &mut scratch.a_f32);
    let rows = Rows {
        data: &scratch.a_f32,
        stride: steps,
        k: steps,
    };
    for first_column in (0..product.n).step_by(PANEL) {
        let least_b = widen_panel(panel_of(first_column), &mut scratch.b_f32);
        let panel = &scratch.b_f32;
        let earlier = output.least_earlier(product.m, (first_column, product.n));
        if T::WIDENS && never_subnormal(least_a, least_b, earlier) {
            let blocks = (&F32Blocks(tier), T::MAX_ROWS);
            panel_product(product, &mut output, first_column, &rows, panel, blocks);
        } else {
            let blocks = (&StepBlocks, MAX_BLOCK_ROWS);
            panel_product(product, &mut output, first_column, &rows, panel, blocks);
        }
    }
}

/// Whether no step of a bf16 product can have a subnormal result, so that [`dot_step`] is a plain
/// fused multiply-add. The arguments are the least exponent fields of the nonzero values.
///
/// A product of bf16 values with fields ea and eb is a multiple of `2^(ea + eb - 254 - 14)`, an f32 with
/// field ec one of `2^(ec - 127 - 23)`. If those are multiples of `2^-126`, so is every partial sum, as
/// rounding keeps multiples: it is zero or at least `2^-126`.
fn never_subnormal(least_a: u32, least_b: u32, least_c: u32) -> bool {
    least_a + least_b >= 254 + 14 - 126 && least_c >= 127 + 23 - 126
}

/// The larger of any exponent field, for values without any nonzero one.
const NO_EXPONENT: u32 = 255;

/// The exponent field of x, [`NO_EXPONENT`] for zero.
#[inline(always)]
fn exponent_field(x: f32) -> u32 {
    let field = x.to_bits() >> 23 & 0xFF;
    if x == 0.0 { NO_EXPONENT } else { field }
}

/// Widens rows of A with the steps of each pair swapped, which is the order of accumulation. Gives
/// the least exponent field of a nonzero value.
#[inline(always)]
fn widen_rows(rows: &Rows<'_, bf16>, m: usize, to: &mut Vec<f32>) -> u32 {
    let steps = rows.k.next_multiple_of(2);
    to.clear();
    to.resize(m * steps, 0.0);
    if steps == 0 {
        return NO_EXPONENT;
    }
    let mut least = NO_EXPONENT;
    for (i, to) in to.chunks_mut(steps).enumerate() {
        let row = &rows.data[i * rows.stride..][..rows.k];
        for (pair, to) in row.chunks(2).zip(to.chunks_mut(2)) {
            to[1] = pair[0].read();
            to[0] = pair.get(1).map_or(0.0, |x| x.read());
            least = least.min(exponent_field(to[0])).min(exponent_field(to[1]));
        }
    }
    least
}

/// Widens a panel of pairs to an f32 panel in the order of accumulation. Gives the least exponent
/// field of a nonzero value.
#[inline(always)]
fn widen_panel(panel: &[bf16], to: &mut Vec<f32>) -> u32 {
    to.clear();
    to.resize(panel.len(), 0.0);
    let mut least = NO_EXPONENT;
    for (pairs, to) in panel
        .chunks_exact(2 * PANEL)
        .zip(to.chunks_exact_mut(2 * PANEL))
    {
        let (odd, even) = to.split_at_mut(PANEL);
        for ((pair, odd), even) in pairs.chunks_exact(2).zip(odd).zip(even) {
            *even = pair[0].read();
            *odd = pair[1].read();
            least = least.min(exponent_field(*even)).min(exponent_field(*odd));
        }
    }
    least
}

impl Output<'_> {
    /// The least exponent field of the nonzero values to which the columns from the first to the
    /// last of a panel are added; zero if one is subnormal.
    #[inline(always)]
    fn least_earlier(&self, m: usize, (first_column, n): (usize, usize)) -> u32 {
        let Some(earlier) = self.earlier() else {
            return NO_EXPONENT;
        };
        let width = PANEL.min(n - first_column);
        (0..m).fold(NO_EXPONENT, |least, i| {
            let row = &earlier.data[i * earlier.stride + first_column..][..width];
            row.iter().fold(least, |l, x| l.min(exponent_field(*x)))
        })
    }

    /// Copies what the block is added to into `staging` and says whether there is anything.
    #[inline(always)]
    fn load_earlier(
        &self,
        staging: &mut Staging,
        (top, count): (usize, usize),
        (first_column, width): (usize, usize),
    ) -> bool {
        let Some(earlier) = self.earlier() else {
            return false;
        };
        for (i, to) in staging.chunks_mut(PANEL).take(count).enumerate() {
            let row = &earlier.data[(top + i) * earlier.stride + first_column..][..width];
            for (to, x) in to.iter_mut().zip(row) {
                *to = flush(*x);
            }
        }
        true
    }
}
