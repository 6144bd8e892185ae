//! What the block of a core costs, from the rule and the machine alone.

use dojoc_ir::access::{Access, Combine, DimKind, Expr, Monoid};
use dojoc_ir::machine::{Machine, Precision};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::tiled::{Coalesced, StepRule};
use dojoc_ir::types::{DType, Type};

/// Cycles for the block of a core with `extents` iterations of each loop.
pub(super) fn block_cycles(
    rule: &Coalesced,
    args: &[Type],
    extents: &[u64],
    machine: &Machine,
) -> f64 {
    let product = |dims: &[u64]| dims.iter().map(|d| *d as f64).product::<f64>();
    match &rule.rule {
        StepRule::Kernel(_) => {
            // Data move at a vector per cycle at best; a kernel touches its results and operands.
            let elements: f64 = rule.results.iter().map(|r| product(r)).sum();
            let share = product(extents) / product(&rule.extents()).max(1.0);
            elements * share.min(1.0)
        }
        StepRule::Loop(access) => match contraction(access) {
            Some(_) => contraction_cycles(access, args, extents, machine),
            None => {
                let dtype = args.first().map_or(DType::F32, |ty| ty.dtype);
                let lanes = lanes(dtype, machine);
                let operations: f64 = access.body.iter().map(operations).sum::<f64>().max(1.0);
                // The innermost loop ends a vector.
                let inner = extents.last().map_or(1.0, |e| *e as f64);
                let padded = (inner / lanes).ceil() * lanes / inner.max(1.0);
                product(extents) * padded * (operations + 1.0) / lanes
            }
        },
    }
}

fn lanes(dtype: DType, machine: &Machine) -> f64 {
    let simd = &machine.simd;
    f64::from(match dtype {
        DType::Bf16 => simd.bf16_lanes.value,
        DType::F16 => simd.f16_lanes.value,
        DType::F32 => simd.f32_lanes.value,
        DType::I32 | DType::U32 => simd.i32_lanes.value,
        _ => 1,
    })
}

/// The operands that a rule multiplies and sums, if it is a contraction.
pub(super) fn contraction(access: &Access) -> Option<(usize, usize)> {
    fn operand(expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Operand(n) => Some(*n),
            Expr::Convert(_, x) => operand(x),
            _ => None,
        }
    }
    let Combine::Reduce(Monoid::Sum, _) = access.combine else {
        return None;
    };
    match access.body.as_slice() {
        [Expr::Binary(BinaryFn::Mul, _, args)] => Some((operand(&args[0])?, operand(&args[1])?)),
        _ => None,
    }
}

/// Loops of a contraction: rows (only in the first operand), columns (only in the second), sums, and
/// those in both and in the result.
#[derive(Debug, Default)]
pub(super) struct Roles {
    /// Only in the first operand.
    pub rows: Vec<usize>,
    /// Only in the second operand.
    pub columns: Vec<usize>,
    /// Reduced.
    pub sums: Vec<usize>,
    /// The rest.
    pub batch: Vec<usize>,
}

pub(super) fn roles(access: &Access, (a, b): (usize, usize)) -> Roles {
    let uses = |operand: usize, d: usize| {
        access.operands[operand]
            .index
            .iter()
            .any(|i| i.terms.iter().any(|(l, _)| *l == d))
    };
    let mut roles = Roles::default();
    for (d, dim) in access.dims.iter().enumerate() {
        match (dim.kind, uses(a, d), uses(b, d)) {
            (DimKind::Parallel, true, false) => roles.rows.push(d),
            (DimKind::Parallel, false, true) => roles.columns.push(d),
            (DimKind::Reduction, true, true) => roles.sums.push(d),
            _ => roles.batch.push(d),
        }
    }
    roles
}

fn contraction_cycles(access: &Access, args: &[Type], extents: &[u64], machine: &Machine) -> f64 {
    let Some((a, b)) = contraction(access) else {
        return 0.0;
    };
    let roles = roles(access, (a, b));
    let product = |dims: &[usize]| dims.iter().map(|d| extents[*d] as f64).product::<f64>();
    let (m, n, k) = (
        product(&roles.rows),
        product(&roles.columns),
        product(&roles.sums),
    );
    let batch = product(&roles.batch);
    let narrow = |n: usize| args.get(n).is_some_and(|ty| ty.dtype.bytes() <= 2);
    let matrix = &machine.matrix;
    let (rows, columns) = (
        f64::from(matrix.rows.value),
        f64::from(matrix.columns.value),
    );
    let depth = f64::from(matrix.depth.value);
    // A product with a single row or column per sum runs on the SIMD unit, f32 operands always do.
    let simd = machine.core_flops_per_cycle(Precision::F32) / 2.0;
    let padded = |x: f64, unit: f64| (x / unit).ceil() * unit;
    if narrow(a) && narrow(b) {
        let steps = (m / rows).ceil() * (n / columns).ceil() * (k / depth).ceil();
        let blocks = (m / rows).ceil() * (n / columns).ceil();
        batch
            * (steps
                + blocks / f64::from(matrix.accumulators.value) * f64::from(matrix.latency.value))
    } else if m == 1.0 || n == 1.0 {
        batch * padded(m * n, simd) * k / simd
    } else {
        batch * padded(m, rows) * padded(n, columns) * k / simd
    }
}

/// Operations per iteration; transcendental functions are sequences.
fn operations(expr: &Expr) -> f64 {
    match expr {
        Expr::Operand(_) | Expr::Const(..) | Expr::Index(..) => 0.0,
        Expr::Unary(_, _, x) => 12.0 + operations(x),
        Expr::Convert(_, x) => 1.0 + operations(x),
        Expr::Binary(f, _, args) => {
            let own = match f {
                BinaryFn::Div => 8.0,
                BinaryFn::Pow => 48.0,
                _ => 1.0,
            };
            own + args.iter().map(operations).sum::<f64>()
        }
        Expr::Select(args) => 1.0 + args.iter().map(operations).sum::<f64>(),
        Expr::RandomBits(_, args) => 20.0 + args.iter().map(operations).sum::<f64>(),
        Expr::FirstOf(options) => options.iter().map(operations).sum(),
    }
}
