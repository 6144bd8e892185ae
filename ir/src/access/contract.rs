//! Sums of products over parts of two operands, as a contraction of packed panels.
//!
//! Taken for a rule whose body is the product of two operands in the accumulating type, combined by
//! a sum, read and written through maps without division. Points at which an operand lies outside
//! contribute nothing; here they contribute a product with zero, which leaves a sum as it is where
//! the other factors are finite. A sum is never -0, because it starts at +0.

use std::ops::Range;

use super::block::{Block, Job, covers, volume};
use super::{Access, Affine, Combine, DimKind, Expr, Monoid, Outside};
use crate::ops::accumulator;
use crate::ops::arith::{Arithmetic, narrowed, widened, with_arithmetic};
use crate::ops::products::{Side, sums_of_products};
use crate::scalar::BinaryFn;
use crate::tensor::{Tensor, strides};
use crate::types::{Class, DType};

/// The type in which the products of the two operands are summed, if the rule is of that kind.
fn summed_in(access: &Access) -> Option<DType> {
    let (Combine::Reduce(Monoid::Sum, acc), [Expr::Binary(BinaryFn::Mul, dtype, factors)]) =
        (&access.combine, access.body.as_slice())
    else {
        return None;
    };
    let operand = |factor: &Expr| match factor {
        Expr::Operand(n) => Some(*n),
        Expr::Convert(to, inner) if to == acc => match **inner {
            Expr::Operand(n) => Some(n),
            _ => None,
        },
        _ => None,
    };
    let both = (operand(&factors[0])?, operand(&factors[1])?);
    (dtype == acc && both == (0, 1) && access.operands.len() == 2).then_some(*acc)
}

/// The loops of a contraction by what they do.
#[derive(Default)]
struct Roles {
    batch: Vec<usize>,
    rows: Vec<usize>,
    columns: Vec<usize>,
    contracted: Vec<usize>,
}

fn occurs(index: &[Affine], dim: usize) -> bool {
    index
        .iter()
        .any(|a| a.terms.iter().any(|(d, c)| *d == dim && *c != 0))
}

/// `None` if a loop is none of these.
fn roles(access: &Access) -> Option<Roles> {
    let mut roles = Roles::default();
    for (dim, info) in access.dims.iter().enumerate() {
        let [left, right] = [0, 1].map(|n| occurs(&access.operands[n].index, dim));
        match info.kind {
            DimKind::Reduction if occurs(&access.results[0].index, dim) => return None,
            DimKind::Reduction => roles.contracted.push(dim),
            DimKind::Parallel if left && right => roles.batch.push(dim),
            DimKind::Parallel if right => roles.columns.push(dim),
            DimKind::Parallel => roles.rows.push(dim),
            DimKind::Sequential => return None,
        }
    }
    Some(roles)
}

/// A row-major box as the loops walk through it.
struct Walk<'a> {
    ranges: &'a [Range<u64>],
    /// The lowest position that is reached if the loops are independent.
    base: usize,
    /// What one iteration of each loop adds.
    steps: Vec<i64>,
}

impl<'a> Walk<'a> {
    /// `None` if the box is too large to address.
    fn new(index: &[Affine], bounds: &[Range<i64>], ranges: &'a [Range<u64>]) -> Option<Self> {
        let (mut base, mut steps) = (0i64, vec![0i64; ranges.len()]);
        for ((affine, range), stride) in index.iter().zip(bounds).zip(strides(&extents(bounds))) {
            let stride = i64::try_from(stride).ok()?;
            let offset = affine.offset.as_constant()?.checked_sub(range.start)?;
            base = base.checked_add(offset.checked_mul(stride)?)?;
            for (dim, coefficient) in &affine.terms {
                steps[*dim] = steps[*dim].checked_add(coefficient.checked_mul(stride)?)?;
            }
        }
        for (range, step) in ranges.iter().zip(&steps) {
            let lowest = if *step < 0 {
                range.end - 1
            } else {
                range.start
            };
            base = base.checked_add(step.checked_mul(i64::try_from(lowest).ok()?)?)?;
        }
        let base = usize::try_from(base).ok()?;
        Some(Self {
            ranges,
            base,
            steps,
        })
    }

    /// What the iterations of some loops add to the lowest position, in their order.
    fn offsets(&self, loops: &[usize]) -> Vec<usize> {
        let mut offsets = vec![0usize];
        for dim in loops {
            let count = (self.ranges[*dim].end - self.ranges[*dim].start) as usize;
            let step = self.steps[*dim];
            let size = step.unsigned_abs() as usize;
            let one = |i: usize| size * if step < 0 { count - 1 - i } else { i };
            offsets = offsets
                .iter()
                .flat_map(|base| (0..count).map(move |i| base + one(i)))
                .collect();
        }
        offsets
    }
}

fn extents(bounds: &[Range<i64>]) -> Vec<u64> {
    bounds.iter().map(|r| r.end.abs_diff(r.start)).collect()
}

/// The elements of a box of an operand in the accumulating type, zeros outside of the tensor, and
/// whether there are such zeros.
fn padded(job: &Job<'_>, operand: usize) -> Result<(Tensor, bool), String> {
    let (block, bounds) = (&job.operands[operand], &job.reads[operand]);
    let whole = super::block::clip(bounds, &job.shapes[operand]);
    let outside = !covers(&whole, bounds);
    let inside = Block::gather(block.data.dtype(), bounds, [&block.part(&whole)?])?;
    Ok((widened(&inside.data), outside))
}

/// Whether a product with zero is zero for all elements.
fn annihilates<T: Arithmetic>(elements: &[T]) -> bool {
    elements.iter().all(|x| !x.times(T::ZERO).undefined())
}

/// The results, or `None` if the rule or the place of the blocks is not of the kind that is computed
/// here.
pub(super) fn evaluate(job: &Job<'_>) -> Result<Option<Vec<Block>>, String> {
    let access = job.access;
    let Some(acc) = summed_in(access) else {
        return Ok(None);
    };
    let fits = |block: &Block| {
        let dtype = block.data.dtype();
        matches!(dtype.class(), Class::Int { .. } | Class::Float) && accumulator(dtype) == acc
    };
    let [write] = access.results.as_slice() else {
        return Ok(None);
    };
    let maps = access.operands.iter().map(|r| &r.index);
    let plain = maps.chain([&write.index]).flatten().all(|a| a.div == 1);
    let fills = access
        .operands
        .iter()
        .any(|r| matches!(r.outside, Outside::Fill(_)));
    if !plain || fills || write.component != 0 || !job.operands.iter().all(fits) {
        return Ok(None);
    }
    // Holes between what is read, as of wide dilations, are not worth a copy.
    let points: u128 = job
        .ranges
        .iter()
        .map(|r| u128::from(r.end - r.start))
        .product();
    let held = job
        .operands
        .iter()
        .map(|b| b.data.len() as u128)
        .sum::<u128>();
    if points == 0 || job.reads.iter().any(|b| volume(b) > 4 * (points + held)) {
        return Ok(None);
    }
    let (Some(roles), Some(reached)) = (
        roles(access),
        super::block::result_box(access, 0, job.ranges),
    ) else {
        return Ok(None);
    };
    if reached != job.writes[0] {
        return Ok(None);
    }
    let result = with_arithmetic!(acc, T => contract::<T>(job, &roles)?);
    Ok(result.map(|data| {
        vec![Block {
            start: job.writes[0].iter().map(|r| r.start).collect(),
            data: narrowed(&data, write.dtype),
        }]
    }))
}

fn contract<T: Arithmetic>(job: &Job<'_>, roles: &Roles) -> Result<Option<Tensor>, String> {
    let (access, ranges) = (job.access, job.ranges);
    let write = &access.results[0];
    let walk = |index: &[Affine], bounds: &[Range<i64>]| Walk::new(index, bounds, ranges);
    let (Some(left), Some(right), Some(out)) = (
        walk(&access.operands[0].index, &job.reads[0]),
        walk(&access.operands[1].index, &job.reads[1]),
        walk(&write.index, &job.writes[0]),
    ) else {
        return Ok(None);
    };
    let ([mut rows, mut columns], mut sides) = (
        [&roles.rows, &roles.columns],
        [(&left, padded(job, 0)?), (&right, padded(job, 1)?)],
    );
    let (a, b) = (sides[0].1.0.stored::<T>(), sides[1].1.0.stored::<T>());
    if (sides[0].1.1 && !annihilates(&b)) || (sides[1].1.1 && !annihilates(&a)) {
        return Ok(None);
    }
    drop((a, b));
    // The longer side lies along the vectors.
    if left.offsets(rows).len() > right.offsets(columns).len() {
        std::mem::swap(&mut rows, &mut columns);
        sides.swap(0, 1);
    }
    let [(left, (left_data, _)), (right, (right_data, _))] = &sides;
    let (a, b) = (left_data.stored::<T>(), right_data.stored::<T>());
    let [out_batch, out_rows, out_columns] = [&roles.batch, rows, columns].map(|d| out.offsets(d));
    let shape = extents(&job.writes[0]);
    let mut sums = vec![T::ZERO; shape.iter().product::<u64>() as usize];
    if !distinct(
        sums.len().saturating_sub(out.base),
        [&out_batch, &out_rows, &out_columns],
    ) {
        return Ok(None);
    }
    let (a_free, a_k) = (left.offsets(rows), left.offsets(&roles.contracted));
    let (b_free, b_k) = (right.offsets(columns), right.offsets(&roles.contracted));
    let (a_batch, b_batch) = (left.offsets(&roles.batch), right.offsets(&roles.batch));
    for ((a_base, b_base), out_base) in a_batch.iter().zip(&b_batch).zip(&out_batch) {
        let out_base = out.base + out_base;
        let left_side = Side {
            elements: &a[left.base + a_base..],
            free: &a_free,
            contracted: &a_k,
        };
        let right_side = Side {
            elements: &b[right.base + b_base..],
            free: &b_free,
            contracted: &b_k,
        };
        sums_of_products(&left_side, &right_side, |row, first, values| {
            for (value, column) in values.iter().zip(&out_columns[first..]) {
                sums[out_base + out_rows[row] + column] = *value;
            }
        });
    }
    Ok(Some(Tensor::from_vec(&shape, sums)))
}

/// Whether no two sums of offsets, one of each list, are the same position below `count`.
fn distinct(count: usize, lists: [&[usize]; 3]) -> bool {
    let mut taken = vec![false; count];
    let [batch, rows, columns] = lists;
    batch.iter().all(|base| {
        rows.iter().all(|row| {
            columns.iter().all(|column| {
                taken
                    .get_mut(base + row + column)
                    .is_some_and(|slot| !std::mem::replace(slot, true))
            })
        })
    })
}
