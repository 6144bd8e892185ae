//! Tile products: operands, the loop over blocks, and the ways without a bf16 instruction.

mod aligned;
mod epilogue;
mod pack;
mod types;

pub use aligned::Aligned;
pub(super) use pack::{pack_b_bf16, pack_b_f32};
pub use pack::{packed_len_bf16, packed_len_f32, unpack_b_bf16, unpack_b_f32};
pub use types::{
    Activation, Epilogue, Lhs, Matmul, Matrix, Output, Residual, ResidualValues, Rhs, Rounding,
    Scratch,
};

use half::bf16;

use super::elementwise::Element;
use super::float::{dot_step, finish};
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

/// One way to compute blocks: calls the kernel of the right size.
trait Blocks<A, B> {
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, A, B>);
}

/// The tier's f32 blocks.
struct F32Blocks<T>(T);

impl<T: Tier> Blocks<f32, f32> for F32Blocks<T> {
    #[inline(always)]
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, f32, f32>) {
        self.0.f32_block::<ROWS, HALVES>(block);
    }
}

/// The tier's blocks of pairs.
struct PairBlocks<T>(T);

impl<T: Tier> Blocks<f32, bf16> for PairBlocks<T> {
    #[inline(always)]
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, f32, bf16>) {
        self.0.pair_block::<ROWS, HALVES>(block);
    }
}

/// The tier's blocks by a bf16 instruction.
struct DotBlocks<T>(T);

impl<T: Tier> Blocks<bf16, bf16> for DotBlocks<T> {
    #[inline(always)]
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, bf16, bf16>) {
        self.0.dot_block::<ROWS, HALVES>(block);
    }
}

/// bf16 steps one by one, with every rule of [`dot_step`].
struct StepBlocks;

impl Blocks<bf16, bf16> for StepBlocks {
    #[inline(always)]
    fn block<const ROWS: usize, const HALVES: usize>(&self, block: TileBlock<'_, bf16, bf16>) {
        for i in 0..ROWS {
            let a = &block.a[i * block.a_stride..][..block.k];
            let c = &mut block.c[i * block.c_stride..][..HALF * HALVES];
            if !block.accumulate {
                c.fill(0.0);
            }
            for (a, b) in a.chunks(2).zip(block.panel.chunks(2 * PANEL)) {
                let (even, odd) = (a[0].read(), a.get(1).map_or(0.0, |x| x.read()));
                for (c, b) in c.iter_mut().zip(b.chunks_exact(2)) {
                    *c = dot_step(even, b[0].read(), dot_step(odd, b[1].read(), *c));
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
fn call<A, B, K: Blocks<A, B>>(kernel: &K, rows: usize, width: usize, block: TileBlock<'_, A, B>) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match (rows, width > HALF) {
                $(($rows, true) => kernel.block::<$rows, 2>(block),
                  ($rows, false) => kernel.block::<$rows, 1>(block),)*
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
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, E> {
    /// Where the first row starts.
    pub data: &'a [E],
    /// From row to row.
    pub stride: usize,
    /// Steps, or pairs of them.
    pub k: usize,
}

/// Computes the columns of one panel for all rows, with the epilogue.
#[inline(always)]
fn panel_product<A, B, K: Blocks<A, B>, P>(
    product: &Matmul<'_, P>,
    output: &mut Output<'_>,
    first_column: usize,
    rows: &Rows<'_, A>,
    panel: &[B],
    (blocks, max_rows): (&K, usize),
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
fn prepare_a<'a, E: Element + Default>(
    product: &Matmul<'a, E>,
    copy: &'a mut Aligned<E>,
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
    if !a.transposed && !must_copy(&a.data[..a.stride * (m - 1) + k]) {
        return Rows {
            data: a.data,
            stride: a.stride,
            k,
        };
    }
    let copy = copy.of_len(m * k);
    pack::rows_of_a(a, m, k, copy);
    Rows {
        data: copy,
        stride: k,
        k,
    }
}

#[inline(always)]
pub(super) fn matmul_f32<T: Tier>(
    tier: T,
    product: &Matmul<'_, f32>,
    mut output: Output<'_>,
    scratch: &mut Scratch,
) {
    let len = packed_len_f32(product.k, product.n);
    product.check(&output, len);
    if product.m == 0 || product.n == 0 {
        return;
    }
    let rows = prepare_a(product, &mut scratch.a_f32, |x| tier.any_subnormal(x));
    let panels = match product.b {
        Rhs::Packed(panels) => panels,
        b => {
            let panels = scratch.b_f32.of_len(len);
            pack_b_f32(b, product.k, product.n, panels);
            panels
        }
    };
    for first_column in (0..product.n).step_by(PANEL) {
        let panel = &panels[first_column * product.k..][..PANEL * product.k];
        let blocks = (&F32Blocks(tier), T::MAX_ROWS);
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
    let len = packed_len_bf16(product.k, product.n);
    product.check(&output, len);
    if product.m == 0 || product.n == 0 {
        return;
    }
    let rows = prepare_a(product, &mut scratch.a_bf16, |_| false);
    let panels = match product.b {
        Rhs::Packed(panels) => panels,
        b => {
            let panels = scratch.b_bf16.of_len(len);
            pack_b_bf16(b, product.k, product.n, panels);
            panels
        }
    };
    let steps = product.k.next_multiple_of(2);
    let mut least_a = SUBNORMAL;
    let mut pair_rows = Rows {
        data: &[],
        stride: steps,
        k: steps / 2,
    };
    if tier.prefers_pairs(product.m, product.n) && product.k > 0 {
        let split = scratch.a_f32.of_len(product.m * steps);
        least_a = tier.split_pairs(rows, product.m, split);
        pair_rows.data = split;
    }
    for first_column in (0..product.n).step_by(PANEL) {
        let panel = &panels[first_column * steps..][..PANEL * steps];
        let pairs_are_exact = least_a > SUBNORMAL
            && never_subnormal(
                least_a,
                least_magnitude(panel),
                output.least_earlier(product.m, (first_column, product.n)),
            );
        if pairs_are_exact {
            let blocks = (&PairBlocks(tier), T::MAX_ROWS);
            panel_product(
                product,
                &mut output,
                first_column,
                &pair_rows,
                panel,
                blocks,
            );
        } else if tier.has_dot() && product.k > 0 {
            let blocks = (&DotBlocks(tier), T::MAX_ROWS);
            panel_product(product, &mut output, first_column, &rows, panel, blocks);
        } else {
            let blocks = (&StepBlocks, MAX_BLOCK_ROWS);
            panel_product(product, &mut output, first_column, &rows, panel, blocks);
        }
    }
}

/// The largest magnitude of a subnormal bf16, as its code.
const SUBNORMAL: u16 = 0x007F;

/// The least magnitude of the nonzero elements, as its code; the largest code if there are none.
#[inline(always)]
fn least_magnitude(x: &[bf16]) -> u16 {
    // Zero wraps to the largest number. This form is three instructions for a vector.
    let less_one = x.iter().fold(u16::MAX, |least, x| {
        least.min((x.to_bits() & 0x7FFF).wrapping_sub(1))
    });
    less_one.saturating_add(1)
}

/// Whether a product of bf16 can have no subnormal operand and no subnormal partial sum, so that
/// [`dot_step`] is a plain fused multiply-add. The arguments are the least magnitudes of nonzero
/// values, as codes, for c of the upper half.
///
/// A product of normal bf16 with exponent fields ea and eb is a multiple of `2^(ea + eb - 254 -
/// 14)`, a normal f32 with field ec one of `2^(ec - 127 - 23)`. If those are multiples of `2^-126`,
/// so is every partial sum, as rounding keeps multiples: it is zero or at least `2^-126`.
fn never_subnormal(least_a: u16, least_b: u16, least_c: u16) -> bool {
    let (ea, eb, ec) = (least_a >> 7, least_b >> 7, least_c >> 7);
    ea > 0 && eb > 0 && ea + eb >= 254 + 14 - 126 && ec >= 127 + 23 - 126
}

/// See [`Tier::split_pairs`].
#[inline(always)]
pub(super) fn split_pairs(rows: Rows<'_, bf16>, m: usize, to: &mut [f32]) -> u16 {
    let pairs = rows.k.div_ceil(2);
    let widen = |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
    let mut least = u16::MAX;
    for (i, to) in to.chunks_exact_mut(2 * pairs).take(m).enumerate() {
        let row = &rows.data[i * rows.stride..][..rows.k];
        least = least.min(least_magnitude(row));
        let row = row.chunks_exact(2);
        let (odd, even) = to.split_at_mut(pairs);
        if let [last] = row.remainder() {
            odd[pairs - 1] = 0.0;
            even[pairs - 1] = widen(*last);
        }
        for ((pair, odd), even) in row.zip(odd).zip(even) {
            *odd = widen(pair[1]);
            *even = widen(pair[0]);
        }
    }
    least
}

impl Output<'_> {
    /// The least magnitude of the nonzero values to which the columns of a panel are added, as the
    /// upper half of its code; zero if one is subnormal.
    #[inline(always)]
    fn least_earlier(&self, m: usize, (first_column, n): (usize, usize)) -> u16 {
        let Some(earlier) = self.earlier() else {
            return u16::MAX;
        };
        let width = PANEL.min(n - first_column);
        let less_one = (0..m).fold(u32::MAX, |least, i| {
            let row = &earlier.data[i * earlier.stride + first_column..][..width];
            row.iter().fold(least, |least, x| {
                least.min((x.to_bits() & 0x7FFF_FFFF).wrapping_sub(1))
            })
        });
        (less_one.saturating_add(1) >> 16) as u16
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
            to[..width].copy_from_slice(row);
        }
        true
    }
}
