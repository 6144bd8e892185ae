//! Any rule on a block, in chunks of points: positions by strides, bodies by columns.
//!
//! One loop runs innermost, along which positions are a start and a step. Which one does not matter
//! for the result: the points that meet in one element of a result come in the order of the rule.

use std::ops::Range;

use super::block::{Block, Job, advance, clip};
use super::column::{Column, OUTSIDE, Points, Source, Values};
use super::{Access, Affine, Combine, DimKind, Expr, Monoid, Outside};
use crate::scalar::Scalar;
use crate::tensor::strides;
use crate::types::DType;

/// Points that are computed at a time.
const CHUNK: usize = 1024;

/// One dim of an index map.
struct MapDim {
    terms: Vec<(usize, i64)>,
    offset: i64,
    div: i64,
    /// The indices that are inside.
    inside: Range<i64>,
    /// Index of the first element of the block.
    start: i64,
    /// Elements of the block from one index to the next.
    stride: i64,
}

/// Where an index map leads in a block.
struct Map {
    dims: Vec<MapDim>,
}

impl Map {
    /// The map into a block of the given start and extents; indices outside of `inside` lead nowhere.
    fn new(index: &[Affine], inside: &[Range<i64>], start: &[i64], shape: &[u64]) -> Option<Self> {
        let dims = index
            .iter()
            .zip(inside)
            .zip(start.iter().zip(strides(shape)))
            .map(|((affine, inside), (start, stride))| {
                Some(MapDim {
                    terms: affine.terms.clone(),
                    offset: affine.offset.as_constant()?,
                    div: i64::try_from(affine.div.max(1)).ok()?,
                    inside: inside.clone(),
                    start: *start,
                    stride: i64::try_from(stride).ok()?,
                })
            });
        Some(Self {
            dims: dims.collect::<Option<_>>()?,
        })
    }

    /// The positions of `count` points from `point` on along the loop `inner`.
    fn row(&self, point: &[i64], inner: usize, count: usize, out: &mut Vec<usize>) {
        let mut valid = 0..count as i64;
        let (mut position, mut step) = (0i64, 0i64);
        for dim in &self.dims {
            let (at, along) = dim.numerator(point, inner);
            if dim.div > 1 {
                out.extend((0..count as i64).map(|i| self.locate(point, inner, i)));
                return;
            }
            let [low, end] = [dim.inside.start, dim.inside.end].map(|i| i.saturating_sub(at));
            let range = match along {
                0 if low <= 0 && end > 0 => valid.clone(),
                0 => 0..0,
                c if c > 0 => ceil_div(low, c)..ceil_div(end, c),
                c => {
                    ceil_div(end.saturating_neg().saturating_add(1), -c)
                        ..ceil_div(low.saturating_neg().saturating_add(1), -c)
                }
            };
            valid = valid.start.max(range.start)..valid.end.min(range.end);
            // Far outside these may wrap; the valid positions are small.
            position = position.wrapping_add(at.wrapping_sub(dim.start).wrapping_mul(dim.stride));
            step = along.wrapping_mul(dim.stride).wrapping_add(step);
        }
        let first = out.len();
        out.resize(first + count, OUTSIDE);
        for i in valid {
            out[first + i as usize] = position.wrapping_add(i.wrapping_mul(step)) as usize;
        }
    }

    /// The position of one point, `along` iterations of `inner` from `point`.
    fn locate(&self, point: &[i64], inner: usize, along: i64) -> usize {
        let mut position = 0;
        for dim in &self.dims {
            let (at, step) = dim.numerator(point, inner);
            let sum = at + along * step;
            if sum.rem_euclid(dim.div) != 0 || !dim.inside.contains(&(sum / dim.div)) {
                return OUTSIDE;
            }
            position += (sum / dim.div - dim.start) * dim.stride;
        }
        position as usize
    }
}

fn ceil_div(a: i64, b: i64) -> i64 {
    -a.saturating_neg().div_euclid(b)
}

impl MapDim {
    /// The sum before the division at a point, and what the loop `inner` adds to it. Boxes have been
    /// computed before with checks, so neither overflows.
    fn numerator(&self, point: &[i64], inner: usize) -> (i64, i64) {
        let (mut sum, mut step) = (self.offset, 0);
        for (dim, coefficient) in &self.terms {
            sum += coefficient * point[*dim];
            if *dim == inner {
                step = *coefficient;
            }
        }
        (sum, step)
    }
}

/// The loop that runs innermost: the longest of those for which that changes no order that matters.
/// A loop that alone decides an index of every result may move, as no two of its iterations meet.
fn innermost(access: &Access, ranges: &[Range<u64>]) -> usize {
    let alone = |dim: usize| {
        access.dims[dim].kind == DimKind::Parallel
            && access.results.iter().all(|write| {
                let decides = |a: &Affine| matches!(a.terms[..], [(d, c)] if d == dim && c != 0);
                write.index.iter().any(decides)
            })
    };
    let last = ranges.len().saturating_sub(1);
    (0..ranges.len())
        .filter(|dim| *dim == last || alone(*dim))
        .max_by_key(|dim| ranges[*dim].end - ranges[*dim].start)
        .unwrap_or(last)
}

fn used_indices(expr: &Expr, used: &mut [bool]) {
    match expr {
        Expr::Index(dim, _) => used[*dim] = true,
        Expr::Operand(_) | Expr::Const(..) => {}
        Expr::Unary(_, _, x) | Expr::Convert(_, x) => used_indices(x, used),
        Expr::Binary(_, _, args) => args.iter().for_each(|e| used_indices(e, used)),
        Expr::Select(args) | Expr::RandomBits(_, args) => {
            args.iter().for_each(|e| used_indices(e, used));
        }
        Expr::FirstOf(options) => options.iter().for_each(|e| used_indices(e, used)),
    }
}

/// Positions of a chunk of points.
struct Chunk {
    count: usize,
    operands: Vec<Vec<usize>>,
    results: Vec<Vec<usize>>,
    indices: Vec<Vec<u64>>,
    /// Which carried state a point has, for scans.
    states: Vec<usize>,
}

struct Evaluation<'a> {
    job: &'a Job<'a>,
    sources: Vec<Source<'a>>,
    operand_maps: Vec<Map>,
    result_maps: Vec<Map>,
    state_map: Map,
    used: Vec<bool>,
    cells: Vec<Cells>,
    carried: Vec<Option<Vec<Scalar>>>,
}

/// The elements of one result as they are combined.
struct Cells {
    components: Vec<Option<Column>>,
    written: Vec<bool>,
}

/// The results.
pub(super) fn evaluate(job: &Job<'_>) -> Result<Vec<Block>, String> {
    let mut evaluation = Evaluation::new(job).ok_or("a block is too large to address")?;
    evaluation.run()?;
    evaluation.finish()
}

impl<'a> Evaluation<'a> {
    fn new(job: &'a Job<'a>) -> Option<Self> {
        let access = job.access;
        let all = |shape: &[u64]| clip(&vec![i64::MIN..i64::MAX; shape.len()], shape);
        let operand_maps = access
            .operands
            .iter()
            .zip(job.operands)
            .zip(job.shapes)
            .map(|((read, block), shape)| {
                Map::new(&read.index, &all(shape), &block.start, block.data.shape())
            });
        let operand_maps = operand_maps.collect::<Option<Vec<_>>>()?;
        let result_maps = access
            .results
            .iter()
            .zip(&job.writes)
            .map(|(write, bounds)| {
                let start: Vec<i64> = bounds.iter().map(|r| r.start).collect();
                Map::new(&write.index, bounds, &start, &extents(bounds))
            });
        let result_maps = result_maps.collect::<Option<Vec<_>>>()?;
        let (state_map, states) = state_map(job)?;
        let cells = job.writes.iter().map(|bounds| {
            let count = extents(bounds).iter().product::<u64>() as usize;
            Cells::new(&access.combine, access.body.len(), count)
        });
        let mut used = vec![false; job.ranges.len()];
        access.body.iter().for_each(|e| used_indices(e, &mut used));
        Some(Self {
            job,
            sources: job.operands.iter().map(|b| Source::new(&b.data)).collect(),
            operand_maps,
            result_maps,
            state_map,
            used,
            cells: cells.collect(),
            carried: vec![None; states],
        })
    }

    fn run(&mut self) -> Result<(), String> {
        if self.job.ranges.iter().any(Range::is_empty) {
            return Ok(());
        }
        let bounds: Vec<Range<i64>> = self
            .job
            .ranges
            .iter()
            .map(|r| r.start as i64..r.end as i64)
            .collect();
        let inner = innermost(self.job.access, self.job.ranges);
        let length = bounds.get(inner).map_or(1, |r| (r.end - r.start) as usize);
        // The loop along rows stays at its start.
        let mut outer = bounds.clone();
        if let Some(range) = outer.get_mut(inner) {
            range.end = range.start + 1;
        }
        let mut point: Vec<i64> = bounds.iter().map(|r| r.start).collect();
        let mut chunk = self.empty_chunk();
        loop {
            let mut done = 0;
            while done < length {
                let count = (length - done).min(CHUNK - chunk.count);
                if let Some(at) = point.get_mut(inner) {
                    *at = outer[inner].start + done as i64;
                }
                self.push_row(&mut chunk, &point, inner, count);
                done += count;
                if chunk.count == CHUNK {
                    self.compute(&chunk)?;
                    chunk = self.empty_chunk();
                }
            }
            if let Some(at) = point.get_mut(inner) {
                *at = outer[inner].start;
            }
            if !advance(&mut point, &outer) {
                return self.compute(&chunk);
            }
        }
    }

    fn empty_chunk(&self) -> Chunk {
        Chunk {
            count: 0,
            operands: vec![vec![]; self.operand_maps.len()],
            results: vec![vec![]; self.result_maps.len()],
            indices: vec![vec![]; self.used.len()],
            states: vec![],
        }
    }

    fn push_row(&self, chunk: &mut Chunk, point: &[i64], inner: usize, count: usize) {
        for (map, positions) in self.operand_maps.iter().zip(&mut chunk.operands) {
            map.row(point, inner, count, positions);
        }
        for (map, positions) in self.result_maps.iter().zip(&mut chunk.results) {
            map.row(point, inner, count, positions);
        }
        if !self.carried.is_empty() {
            self.state_map.row(point, inner, count, &mut chunk.states);
        }
        for (dim, (used, indices)) in self.used.iter().zip(&mut chunk.indices).enumerate() {
            if *used {
                let first = point[dim] as u64;
                let step = u64::from(dim == inner);
                indices.extend((0..count as u64).map(|i| first + i * step));
            }
        }
        chunk.count += count;
    }

    fn compute(&mut self, chunk: &Chunk) -> Result<(), String> {
        let access = self.job.access;
        let read = |((read, source), (block, positions)): (
            (&super::Read, &Source<'_>),
            (&Block, &Vec<usize>),
        )| {
            let dtype = block.data.dtype();
            let fill = match read.outside {
                Outside::Fill(fill) => Some(fill.to_scalar(dtype)),
                Outside::Nothing | Outside::Never => None,
            };
            source.read(positions, fill, Scalar::zero(dtype))
        };
        for (number, (read, positions)) in access.operands.iter().zip(&chunk.operands).enumerate() {
            if read.outside == Outside::Never && positions.contains(&OUTSIDE) {
                return Err(format!("operand {number} is read outside"));
            }
        }
        let blocks = self.job.operands.iter().zip(&chunk.operands);
        let points = Points {
            count: chunk.count,
            reads: access
                .operands
                .iter()
                .zip(&self.sources)
                .zip(blocks)
                .map(read)
                .collect(),
            indices: chunk.indices.clone(),
        };
        let mut values: Vec<Values> = access.body.iter().map(|e| e.columns(&points)).collect();
        let mut results = chunk.results.clone();
        // A point without a value of every component contributes nothing.
        let missing: Vec<usize> = (0..chunk.count)
            .filter(|point| !values.iter().all(|v| v.has(*point)))
            .collect();
        for positions in &mut results {
            missing.iter().for_each(|point| positions[*point] = OUTSIDE);
        }
        if let Combine::Scan {
            monoid,
            dtype,
            exclusive,
        } = &access.combine
        {
            values = self.scan(chunk, &values, *monoid, *dtype, *exclusive);
        }
        for (cells, positions) in self.cells.iter_mut().zip(&results) {
            match &access.combine {
                Combine::Reduce(monoid, dtype) => {
                    cells.reduce(*monoid, *dtype, positions, &values);
                }
                Combine::Assign | Combine::Scan { .. } => cells.assign(positions, &values)?,
            }
        }
        Ok(())
    }

    /// Replaces values by the running combination.
    fn scan(
        &mut self,
        chunk: &Chunk,
        values: &[Values],
        monoid: Monoid,
        dtype: DType,
        exclusive: bool,
    ) -> Vec<Values> {
        let mut out = values.to_vec();
        for (point, state) in chunk.states.iter().enumerate() {
            if !values.iter().all(|v| v.has(point)) {
                continue;
            }
            let value: Vec<Scalar> = values.iter().map(|v| v.column.get(point)).collect();
            let slot = &mut self.carried[*state];
            let before = slot.take().unwrap_or_else(|| monoid.identity(dtype));
            let after = monoid.combine(dtype, &before, &value);
            let written = if exclusive { &before } else { &after };
            for (out, value) in out.iter_mut().zip(written) {
                out.column.set(point, *value);
            }
            *slot = Some(after);
        }
        out
    }

    fn finish(self) -> Result<Vec<Block>, String> {
        let access = self.job.access;
        let results = access.results.iter().zip(&self.job.writes).zip(self.cells);
        results
            .map(|((write, bounds), mut cells)| {
                let shape = extents(bounds);
                if !matches!(access.combine, Combine::Reduce(..)) && cells.written.contains(&false)
                {
                    return Err("an element is not written".to_owned());
                }
                let column = cells
                    .components
                    .get_mut(write.component)
                    .ok_or_else(|| format!("there is no component {}", write.component))?
                    .take()
                    .unwrap_or(Column::Any(vec![]));
                Ok(Block {
                    start: bounds.iter().map(|r| r.start).collect(),
                    data: column.into_tensor(write.dtype, &shape),
                })
            })
            .collect()
    }
}

fn extents(bounds: &[Range<i64>]) -> Vec<u64> {
    bounds.iter().map(|r| r.end.abs_diff(r.start)).collect()
}

/// Numbers the carried states of a scan, one per point of the loops that are not sequential, and how
/// many there are; none for other rules.
fn state_map(job: &Job<'_>) -> Option<(Map, usize)> {
    let access = job.access;
    if !matches!(access.combine, Combine::Scan { .. }) {
        return Some((Map { dims: vec![] }, 0));
    }
    let free: Vec<usize> = (0..job.ranges.len())
        .filter(|d| access.dims[*d].kind != DimKind::Sequential)
        .collect();
    let index: Vec<Affine> = free.iter().map(|d| Affine::dim(*d)).collect();
    let bounds: Vec<Range<i64>> = free
        .iter()
        .map(|d| job.ranges[*d].start as i64..job.ranges[*d].end as i64)
        .collect();
    let start: Vec<i64> = bounds.iter().map(|r| r.start).collect();
    let shape = extents(&bounds);
    let count = shape
        .iter()
        .try_fold(1u64, |n, extent| n.checked_mul(*extent))?;
    Some((
        Map::new(&index, &bounds, &start, &shape)?,
        usize::try_from(count).ok()?,
    ))
}

impl Cells {
    fn new(combine: &Combine, arity: usize, count: usize) -> Self {
        let components = match combine {
            Combine::Reduce(monoid, dtype) => monoid
                .identity(*dtype)
                .into_iter()
                .map(|value| Some(Column::splat(value, count)))
                .collect(),
            // Made with the first value, whose kind it has.
            Combine::Assign | Combine::Scan { .. } => vec![None; arity],
        };
        Self {
            components,
            written: vec![false; count],
        }
    }

    fn assign(&mut self, positions: &[usize], values: &[Values]) -> Result<(), String> {
        let count = self.written.len();
        for position in positions.iter().filter(|p| **p != OUTSIDE) {
            if std::mem::replace(&mut self.written[*position], true) {
                return Err(format!("two points write the element {position}"));
            }
        }
        for (slot, values) in self.components.iter_mut().zip(values) {
            let reached = positions.iter().enumerate().filter(|(_, p)| **p != OUTSIDE);
            for (point, position) in reached {
                let value = values.column.get(point);
                slot.get_or_insert_with(|| Column::splat(value, count))
                    .set(*position, value);
            }
        }
        Ok(())
    }

    fn reduce(&mut self, monoid: Monoid, dtype: DType, positions: &[usize], values: &[Values]) {
        let reached = || positions.iter().enumerate().filter(|(_, p)| **p != OUTSIDE);
        if let (Monoid::Sum, DType::F32, [Some(Column::F32(sums))], [values]) =
            (monoid, dtype, self.components.as_mut_slice(), values)
            && let Column::F32(terms) = &values.column
        {
            for (point, position) in reached() {
                sums[*position] += terms[point];
            }
            return;
        }
        for (point, position) in reached() {
            let right: Vec<Scalar> = values.iter().map(|v| v.column.get(point)).collect();
            let first = !std::mem::replace(&mut self.written[*position], true);
            // The identity of pairs has an index, which must not win against an equal value.
            let combined = if first && monoid.arity() == 2 {
                right
            } else {
                let components = self.components.iter().flatten();
                let left: Vec<Scalar> = components.map(|c| c.get(*position)).collect();
                monoid.combine(dtype, &left, &right)
            };
            for (slot, value) in self.components.iter_mut().flatten().zip(combined) {
                slot.set(*position, value);
            }
        }
    }
}
