//! What a step reads and writes: tiling rules with merged loops, and the layouts that follow.

use std::ops::Range;

use super::{Grid, GridId, Layout, LoopSplit, Pending, Split};
use crate::access::{Access, Affine, Combine, DimKind, Expr, Kernel, LoopDim, Tiling};
use crate::dim::Dim;
use crate::ops::Op;
use crate::types::Type;

/// The rule of a step.
#[derive(Clone, Debug)]
pub enum StepRule {
    /// A loop nest, whose operands and results are indexed under the views of [`Coalesced`].
    Loop(Access),
    /// A kernel, on tensors under their own shapes.
    Kernel(Kernel),
}

/// A rule with loops merged, and the extents under which it sees its tensors.
#[derive(Clone, Debug)]
pub struct Coalesced {
    /// The rule.
    pub rule: StepRule,
    /// Extents of each operand: dims that are walked by one merged loop are one, and dims of one
    /// element that are not indexed are left out.
    pub operands: Vec<Vec<u64>>,
    /// The same of each result.
    pub results: Vec<Vec<u64>>,
}

/// The rule of an op that can be a step: a loop nest or a kernel.
///
/// # Errors
/// What is in the way, for ops of other rules.
pub fn step_rule(op: &Op, args: &[Type]) -> Result<StepRule, String> {
    let name = op.name();
    match op.tiling(args) {
        Tiling::Loop(access) => Ok(StepRule::Loop(access)),
        Tiling::Kernel(kernel) => Ok(StepRule::Kernel(kernel)),
        Tiling::Expand(_) => Err(format!("`{name}` is tiled through its expansion")),
        Tiling::View(_) => Err(format!("`{name}` is a view")),
        Tiling::Control => Err(format!("`{name}` is tiled through its regions")),
    }
}

fn constants(ty: &Type) -> Result<Vec<u64>, String> {
    (ty.shape.as_const()).ok_or_else(|| format!("extents of {ty} are not constant"))
}

/// Extents of the loops of a rule.
fn extents(access: &Access) -> Result<Vec<u64>, String> {
    let constant = |d: &LoopDim| {
        let extent = d.extent.as_const();
        extent.ok_or_else(|| format!("loop `{}` has no constant extent", d.name))
    };
    access.dims.iter().map(constant).collect()
}

/// The rule of an op with its loops merged as `loops` says: ranges of consecutive loops, which
/// together are all of them. Kernels have no loops to merge: `loops` is empty.
///
/// # Errors
/// What is in the way: symbolic extents, or loops that an operand or result does not walk as one.
pub fn coalesced(
    op: &Op,
    args: &[Type],
    results: &[Type],
    loops: &[Range<usize>],
) -> Result<Coalesced, String> {
    let shapes = |types: &[Type]| types.iter().map(constants).collect::<Result<Vec<_>, _>>();
    let (args_shapes, result_shapes) = (shapes(args)?, shapes(results)?);
    match step_rule(op, args)? {
        StepRule::Kernel(kernel) if loops.is_empty() => Ok(Coalesced {
            rule: StepRule::Kernel(kernel),
            operands: args_shapes,
            results: result_shapes,
        }),
        StepRule::Kernel(_) => Err(format!("`{}` has no loops to merge", op.name())),
        StepRule::Loop(access) => merge(access, args_shapes, result_shapes, loops),
    }
}

/// The fewest loops into which those of a rule can be merged; empty for a kernel.
///
/// # Errors
/// Those of [`coalesced`].
pub fn widest_loops(op: &Op, args: &[Type], results: &[Type]) -> Result<Vec<Range<usize>>, String> {
    let StepRule::Loop(access) = step_rule(op, args)? else {
        return Ok(vec![]);
    };
    let shapes = |types: &[Type]| types.iter().map(constants).collect::<Result<Vec<_>, _>>();
    let (args, results) = (shapes(args)?, shapes(results)?);
    let extents = extents(&access)?;
    let mut loops: Vec<Range<usize>> = vec![];
    for d in 0..extents.len() {
        if let Some(last) = loops.last_mut() {
            let wider = last.start..d + 1;
            if is_mergeable(&access, &extents, &args, &results, &wider) {
                *last = wider;
                continue;
            }
        }
        loops.push(d..d + 1);
    }
    Ok(loops)
}

/// Whether an index is that of a loop and nothing else.
fn is_dim(affine: &Affine, dim: usize) -> bool {
    affine.div == 1 && affine.offset.as_constant() == Some(0) && affine.terms == [(dim, 1)]
}

fn uses(affine: &Affine, dim: usize) -> bool {
    affine.terms.iter().any(|(d, c)| *d == dim && *c != 0)
}

fn body_uses_index(expr: &Expr, dims: &Range<usize>) -> bool {
    match expr {
        Expr::Index(dim, _) => dims.contains(dim),
        Expr::Operand(_) | Expr::Const(..) => false,
        Expr::Unary(_, _, x) | Expr::Convert(_, x) => body_uses_index(x, dims),
        Expr::Binary(_, _, args) => args.iter().any(|e| body_uses_index(e, dims)),
        Expr::Select(args) | Expr::RandomBits(_, args) => {
            args.iter().any(|e| body_uses_index(e, dims))
        }
        Expr::FirstOf(options) => options.iter().any(|e| body_uses_index(e, dims)),
    }
}

/// All index maps of a rule, each with the extents of its tensor.
fn maps<'a>(
    access: &'a Access,
    args: &'a [Vec<u64>],
    results: &'a [Vec<u64>],
) -> impl Iterator<Item = (&'a [Affine], &'a [u64])> {
    let reads = access.operands.iter().map(|r| r.index.as_slice());
    let writes = access.results.iter().map(|w| w.index.as_slice());
    let shapes = args.iter().chain(results).map(Vec::as_slice);
    reads.chain(writes).zip(shapes)
}

/// Whether everything walks the loops of a range as one: the tensor dims of those that have more
/// than one iteration are neighbours, walked in full and in order.
fn is_mergeable(
    access: &Access,
    extents: &[u64],
    args: &[Vec<u64>],
    results: &[Vec<u64>],
    range: &Range<usize>,
) -> bool {
    let real: Vec<usize> = range.clone().filter(|d| extents[*d] != 1).collect();
    if range.len() > 1 && access.body.iter().any(|e| body_uses_index(e, range)) {
        return false;
    }
    if real.len() < 2 {
        return true;
    }
    let kind = access.dims[real[0]].kind;
    if kind == DimKind::Sequential || real.iter().any(|d| access.dims[*d].kind != kind) {
        return false;
    }
    maps(access, args, results).all(|(index, shape)| {
        let kept: Vec<usize> = (0..index.len())
            .filter(|t| shape[*t] != 1 || index[*t].terms.iter().any(|(d, _)| extents[*d] != 1))
            .collect();
        let touched: Vec<usize> = (0..kept.len())
            .filter(|at| real.iter().any(|d| uses(&index[kept[*at]], *d)))
            .collect();
        let Some(first) = touched.first() else {
            return true;
        };
        touched.len() == real.len()
            && real.iter().enumerate().all(|(n, d)| {
                kept.get(first + n).is_some_and(|t| {
                    is_dim(&without_unit_loops(&index[*t], extents), *d) && shape[*t] == extents[*d]
                })
            })
    })
}

/// An index without the loops of one iteration.
fn without_unit_loops(affine: &Affine, extents: &[u64]) -> Affine {
    let mut affine = affine.clone();
    affine.terms.retain(|(d, c)| extents[*d] != 1 && *c != 0);
    affine
}

/// Merges loops and the tensor dims they walk.
fn merge(
    mut access: Access,
    args: Vec<Vec<u64>>,
    results: Vec<Vec<u64>>,
    loops: &[Range<usize>],
) -> Result<Coalesced, String> {
    let extents = extents(&access)?;
    let mut next = 0;
    for range in loops {
        if range.start != next || range.is_empty() {
            return Err("merged loops are not consecutive".into());
        }
        next = range.end;
    }
    if next != extents.len() {
        return Err(format!("has {} loops, found {next}", extents.len()));
    }
    for range in loops {
        if !is_mergeable(&access, &extents, &args, &results, range) {
            let names: Vec<&str> = access.dims[range.clone()]
                .iter()
                .map(|d| &*d.name)
                .collect();
            return Err(format!("loops {} are not walked as one", names.join(", ")));
        }
    }
    let group_of = |dim: usize| loops.iter().position(|r| r.contains(&dim)).unwrap_or(0);
    // The dim of a merged range that stands for it: the last one that has iterations.
    let last_of: Vec<Option<usize>> = loops
        .iter()
        .map(|r| r.clone().rev().find(|d| extents[*d] != 1))
        .collect();
    let merge_map = |index: &[Affine], shape: &[u64]| {
        let mut merged = vec![];
        let mut view: Vec<u64> = vec![];
        let mut factor = 1;
        for (affine, extent) in index.iter().zip(shape) {
            let mut affine = without_unit_loops(affine, &extents);
            if *extent == 1 && affine.terms.is_empty() && affine.offset.as_constant() == Some(0) {
                continue;
            }
            // All but the last dim of a merged run only contribute their extent.
            let inner = affine
                .terms
                .first()
                .is_some_and(|(d, _)| last_of[group_of(*d)] != Some(*d) && is_dim(&affine, *d));
            factor *= extent;
            if inner {
                continue;
            }
            for (dim, _) in &mut affine.terms {
                *dim = group_of(*dim);
            }
            merged.push(affine);
            view.push(factor);
            factor = 1;
        }
        (merged, view)
    };
    let mut operands = vec![];
    for (read, shape) in access.operands.iter_mut().zip(&args) {
        let (index, view) = merge_map(&read.index, shape);
        read.index = index;
        operands.push(view);
    }
    let mut written = vec![];
    for (write, shape) in access.results.iter_mut().zip(&results) {
        let (index, view) = merge_map(&write.index, shape);
        write.index = index;
        write.shape = crate::types::Shape::of(&view);
        written.push(view);
    }
    for expr in &mut access.body {
        renumber(expr, &group_of);
    }
    access.dims = loops
        .iter()
        .map(|r| merged_dim(&access.dims[r.clone()], &extents[r.clone()]))
        .collect();
    Ok(Coalesced {
        rule: StepRule::Loop(access),
        operands,
        results: written,
    })
}

fn merged_dim(dims: &[LoopDim], extents: &[u64]) -> LoopDim {
    let real = || dims.iter().zip(extents).filter(|(_, e)| **e != 1);
    let names: Vec<&str> = real().map(|(d, _)| &*d.name).collect();
    let name = if names.is_empty() {
        dims[0].name.clone()
    } else {
        names.join("*")
    };
    LoopDim {
        name,
        extent: Dim::Const(extents.iter().product()),
        kind: real().next().map_or(dims[0].kind, |(d, _)| d.kind),
    }
}

fn renumber(expr: &mut Expr, group_of: &impl Fn(usize) -> usize) {
    match expr {
        Expr::Index(dim, _) => *dim = group_of(*dim),
        Expr::Operand(_) | Expr::Const(..) => {}
        Expr::Unary(_, _, x) | Expr::Convert(_, x) => renumber(x, group_of),
        Expr::Binary(_, _, args) => args.iter_mut().for_each(|e| renumber(e, group_of)),
        Expr::Select(args) | Expr::RandomBits(_, args) => {
            args.iter_mut().for_each(|e| renumber(e, group_of));
        }
        Expr::FirstOf(options) => options.iter_mut().for_each(|e| renumber(e, group_of)),
    }
}

impl Coalesced {
    /// Extents of the loops (of a kernel: of its splittable dims).
    pub fn extents(&self) -> Vec<u64> {
        match &self.rule {
            StepRule::Loop(access) => {
                let extent = |d: &LoopDim| d.extent.as_const().unwrap_or(0);
                access.dims.iter().map(extent).collect()
            }
            StepRule::Kernel(kernel) => (kernel.dims.iter())
                .map(|d| {
                    let of_operand = d.operands.iter().zip(&self.operands);
                    let of_operand = of_operand.filter_map(|(dim, shape)| Some(shape[(*dim)?]));
                    let of_result = d.results.iter().zip(&self.results).map(|(d, s)| s[*d]);
                    of_operand.chain(of_result).next().unwrap_or(1)
                })
                .collect(),
        }
    }

    /// Names of the loops (of a kernel: of its splittable dims).
    pub fn names(&self) -> Vec<&str> {
        match &self.rule {
            StepRule::Loop(access) => access.dims.iter().map(|d| &*d.name).collect(),
            StepRule::Kernel(kernel) => kernel.dims.iter().map(|d| &*d.name).collect(),
        }
    }

    /// Whether a loop may be split over cores with what [`result_layout`] can express: a reduction,
    /// or a parallel loop that is a dim of every result by itself.
    pub fn is_splittable(&self, dim: usize) -> bool {
        match &self.rule {
            StepRule::Kernel(_) => true,
            StepRule::Loop(access) => match access.dims[dim].kind {
                DimKind::Sequential => false,
                DimKind::Reduction => {
                    matches!(&access.combine, Combine::Reduce(monoid, _) if monoid.arity() == 1)
                }
                DimKind::Parallel => (access.results.iter()).all(|w| {
                    w.index.iter().filter(|a| is_dim(a, dim)).count() == 1
                        && w.index.iter().filter(|a| uses(a, dim)).count() == 1
                }),
            },
        }
    }

    /// The layout that an operand needs: what the iterations of each core read, as a box.
    pub fn operand_layout(&self, grid: GridId, split: &[LoopSplit], operand: usize) -> Layout {
        let view = &self.operands[operand];
        let mut layout = Layout::replicated(grid, view);
        let splits = match &self.rule {
            StepRule::Kernel(kernel) => {
                for s in split {
                    if let Some(t) = kernel.dims[s.dim].operands[operand] {
                        layout.splits[t] = Split::over(s.axes.clone(), view[t], s.unit);
                    }
                }
                return layout;
            }
            StepRule::Loop(access) => {
                let extents = self.extents();
                let of_dim = |affine: &Affine, extent: &u64| {
                    let whole = Split::whole(*extent);
                    window(affine, &extents, split).map_or(whole.clone(), |s| {
                        let same = s.axes.is_empty() && s.window_of(&(0..1)) == (0..*extent as i64);
                        if same { whole } else { s }
                    })
                };
                let index = &access.operands[operand].index;
                index.iter().zip(view).map(|(a, e)| of_dim(a, e)).collect()
            }
        };
        layout.splits = splits;
        layout
    }
}

/// The elements of a tensor dim that the iterations of each core read, where they follow at most one
/// split loop, by a positive step; `None` where that does not say it.
fn window(affine: &Affine, extents: &[u64], split: &[LoopSplit]) -> Option<Split> {
    let of = |dim: usize| split.iter().find(|s| s.dim == dim);
    let mut followed = affine.terms.iter().filter(|(d, _)| of(*d).is_some());
    let first = followed.next();
    let stride = first.map_or(1, |(_, stride)| *stride);
    if followed.next().is_some() || affine.div != 1 || stride < 1 {
        return None;
    }
    let offset = affine.offset.as_constant()?;
    let (mut low, mut high) = (offset, offset);
    for (d, c) in &affine.terms {
        if Some(*d) != first.map(|(dim, _)| *dim) {
            let reach = c.checked_mul(i64::try_from(extents[*d].checked_sub(1)?).ok()?)?;
            low = low.checked_add(reach.min(0))?;
            high = high.checked_add(reach.max(0))?;
        }
    }
    let split = first.and_then(|(dim, _)| Some((of(*dim)?, extents[*dim])));
    let (axes, extent, unit) = split.map_or((vec![], 1, 1), |(s, extent)| {
        (s.axes.clone(), extent, s.unit)
    });
    Some(Split {
        axes,
        extent,
        unit,
        stride: stride.unsigned_abs(),
        low: low.checked_neg()?,
        high,
    })
}

/// The layout of a result of a step: its dims are split as their loops are; along the axes of split
/// reductions it is pending.
///
/// # Errors
/// A loop that is split but cannot be.
pub fn result_layout(
    rule: &Coalesced,
    grid: GridId,
    split: &[LoopSplit],
    result: usize,
) -> Result<Layout, String> {
    let view = &rule.results[result];
    let mut layout = Layout::replicated(grid, view);
    for s in split {
        if !rule.is_splittable(s.dim) {
            return Err(format!("loop `{}` cannot be split", rule.names()[s.dim]));
        }
        match &rule.rule {
            StepRule::Kernel(kernel) => {
                let t = kernel.dims[s.dim].results[result];
                layout.splits[t] = Split::over(s.axes.clone(), view[t], s.unit);
            }
            StepRule::Loop(access) => match (access.dims[s.dim].kind, &access.combine) {
                (DimKind::Reduction, Combine::Reduce(monoid, _)) => {
                    let pending = |axis: &usize| Pending {
                        axis: *axis,
                        monoid: *monoid,
                    };
                    layout.pending.extend(s.axes.iter().map(pending));
                }
                _ => {
                    let index = &access.results[result].index;
                    if let Some(t) = index.iter().position(|a| is_dim(a, s.dim)) {
                        layout.splits[t] = Split::over(s.axes.clone(), view[t], s.unit);
                    }
                }
            },
        }
    }
    layout.pending.sort_by_key(|p| p.axis);
    Ok(layout)
}

/// Iterations of every loop on the core at `coordinates`.
pub fn block(
    rule: &Coalesced,
    grid: &Grid,
    split: &[LoopSplit],
    coordinates: &[u64],
) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = rule.extents().into_iter().map(|e| 0..e).collect();
    for s in split {
        let extent = ranges[s.dim].end;
        let over = Split::over(s.axes.clone(), extent, s.unit);
        ranges[s.dim] = over.iterations(grid, coordinates);
    }
    ranges
}
