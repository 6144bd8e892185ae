//! The rules of steps.

use std::collections::BTreeSet;
use std::ops::Range;

use super::coverage::under;
use super::{Entity, Verifier};
use crate::access::block::{clip, operand_box, show};
use crate::access::{DimKind, Kernel};
use crate::codes;
use crate::ops::Op;
use crate::tiled::eval::part_of;
use crate::tiled::print::format_layout;
use crate::tiled::spread::signed;
use crate::tiled::step::{Coalesced, StepRule, block, coalesced, result_layout};
use crate::tiled::{Function, Grid, GridId, Group, Layout, LoopSplit, Step, Temporal, ValueId};
use crate::types::Type;

/// All that the rules of a step look at: the op, its loops, how they are split in space and time, the
/// grid, and types and layouts of operands and results.
pub(super) type Key<'a> = (
    &'a Op,
    &'a [Range<usize>],
    &'a [LoopSplit],
    &'a [Temporal],
    GridId,
    [Vec<(&'a Type, &'a Layout)>; 2],
);

impl<'a> Verifier<'a> {
    /// A step of a group.
    pub(super) fn step(
        &mut self,
        entity: Entity,
        function: &'a Function,
        group: &Group,
        step: &'a Step,
    ) {
        let of = |values: &[ValueId]| -> Vec<(&'a Type, &'a Layout)> {
            let value = |v: &ValueId| (&function.values[*v].ty, &function.values[*v].layout);
            values.iter().map(value).collect()
        };
        let key = (
            &step.op,
            &step.loops[..],
            &step.split[..],
            &step.temporal[..],
            group.grid,
            [of(&step.args), of(&step.results)],
        );
        if self.sound.contains(&key) {
            return;
        }
        let before = self.violations.len();
        self.check(entity, function, group, step);
        if self.violations.len() == before {
            self.sound.insert(key);
        }
    }

    fn check(&mut self, entity: Entity, function: &Function, group: &Group, step: &Step) {
        let types = |values: &[ValueId]| -> Vec<Type> {
            let ty = |v: &ValueId| function.values[*v].ty.clone();
            values.iter().map(ty).collect()
        };
        let (args, results) = (types(&step.args), types(&step.results));
        let name = step.op.name();
        match step.op.infer(&args, &[]) {
            Err(error) => {
                return self.report(entity, codes::TYPE_RULE, format!("{name}: {error}"));
            }
            Ok(expected) if expected != results => {
                let list = |types: &[Type]| {
                    let types: Vec<String> = types.iter().map(Type::to_string).collect();
                    types.join(", ")
                };
                let (expected, found) = (list(&expected), list(&results));
                let message = format!("{name} gives {expected}, but {found} is written");
                return self.report(entity, codes::TYPE_MISMATCH, message);
            }
            Ok(_) => {}
        }
        let rule = match coalesced(&step.op, &args, &results, &step.loops) {
            Ok(rule) => rule,
            Err(error) => {
                return self.report(entity, codes::BAD_STEP, format!("{name}: {error}"));
            }
        };
        let grid = &self.module.grids[group.grid];
        let before = self.violations.len();
        self.split(entity, &rule, grid, step);
        self.temporal(entity, &rule, grid, step);
        if self.violations.len() > before {
            return;
        }
        for number in 0..step.args.len() {
            self.operand(entity, function, group, step, &rule, number);
        }
        for (number, value) in step.results.iter().enumerate() {
            let found = &function.values[*value].layout;
            let message = match result_layout(&rule, group.grid, &step.split, number) {
                Err(error) => error,
                Ok(expected) if !found.same_places(&expected) => {
                    let shape = function.values[*value].ty.shape.as_const();
                    let shape = shape.unwrap_or_default();
                    let text = |layout| format_layout(self.module, layout, &shape);
                    let (expected, found) = (text(&expected), text(found));
                    format!("result {number} comes out {expected}, but {found} is written")
                }
                Ok(_) => continue,
            };
            self.report(entity, codes::RESULT_LAYOUT, format!("{name}: {message}"));
        }
    }

    fn split(&mut self, entity: Entity, rule: &Coalesced, grid: &Grid, step: &Step) {
        let names = rule.names();
        let mut used = BTreeSet::new();
        let mut last = None;
        for split in &step.split {
            let Some(name) = names.get(split.dim) else {
                let message = format!("there is no loop {}: there are {}", split.dim, names.len());
                self.report(entity, codes::BAD_STEP, message);
                continue;
            };
            if last.is_some_and(|last| split.dim <= last) {
                let message = "split loops stand in ascending order";
                self.report(entity, codes::BAD_STEP, message);
            }
            last = Some(split.dim);
            if !rule.is_splittable(split.dim) {
                let message = format!("loop `{name}` cannot be split");
                self.report(entity, codes::BAD_STEP, message);
            }
            if split.unit == 0 || split.axes.is_empty() {
                let message = format!("loop `{name}` is split over no axes, or in units of zero");
                self.report(entity, codes::BAD_STEP, message);
            }
            for axis in &split.axes {
                if *axis >= grid.axes.len() || !used.insert(*axis) {
                    let message = format!("axis {axis} does not exist or splits two loops");
                    self.report(entity, codes::BAD_STEP, message);
                }
            }
        }
    }

    fn temporal(&mut self, entity: Entity, rule: &Coalesced, grid: &Grid, step: &Step) {
        let mut wrong = |message: String| self.report(entity, codes::BAD_TEMPORAL, message);
        let count = rule.names().len();
        for temporal in &step.temporal {
            if temporal.dim >= count || temporal.steps == 0 {
                let (dim, steps) = (temporal.dim, temporal.steps);
                wrong(format!("loop {dim} of {count} in {steps} parts"));
            }
        }
        let mut shifts = step.temporal.iter().filter_map(|t| Some((t, t.shift?)));
        let Some((temporal, (operand, axis))) = shifts.next() else {
            return;
        };
        if shifts.next().is_some() {
            wrong("two operands shift".into());
        }
        if operand >= step.args.len() || axis >= grid.axes.len() {
            return wrong(format!("there is no operand {operand} or axis {axis}"));
        }
        if grid.axes[axis].size != temporal.steps {
            let size = grid.axes[axis].size;
            wrong(format!(
                "{} parts go around {size} positions",
                temporal.steps
            ));
        }
        if step.split.iter().any(|s| s.axes.contains(&axis)) {
            let name = &grid.axes[axis].name;
            wrong(format!("axis `{name}` splits a loop as well"));
        }
        let StepRule::Loop(access) = &rule.rule else {
            return wrong("operands of a kernel do not shift".into());
        };
        if access
            .dims
            .get(temporal.dim)
            .is_some_and(|d| d.kind == DimKind::Sequential)
        {
            wrong("a loop with a carried state is not computed in turn".into());
        }
    }

    /// That every core holds what it reads of an operand.
    fn operand(
        &mut self,
        entity: Entity,
        function: &Function,
        group: &Group,
        step: &Step,
        rule: &Coalesced,
        number: usize,
    ) {
        let layout = &function.values[step.args[number]].layout;
        let name = step.op.name();
        if layout.grid != group.grid {
            let message = format!("{name}: operand {number} is on another grid");
            return self.report(entity, codes::OPERAND_LAYOUT, message);
        }
        if !layout.pending.is_empty() {
            let message = format!("{name}: operand {number} is pending");
            return self.report(entity, codes::BAD_PENDING, message);
        }
        let grid = &self.module.grids[group.grid];
        for at in coordinates(grid, &axes_that_matter(layout, step)) {
            let ranges = block(rule, grid, &step.split, &at);
            for (ranges, source) in turns(grid, step, number, &at, ranges) {
                let Some(read) = reads(rule, &ranges, number) else {
                    let message = format!("{name}: operand {number} has no constant index");
                    return self.report(entity, codes::OPERAND_LAYOUT, message);
                };
                let needed = under(&read, &rule.operands[number], &layout.view);
                let held = layout.block(grid, &source);
                let fits =
                    |(n, h): (&Range<u64>, &Range<u64>)| h.start <= n.start && n.end <= h.end;
                let empty = needed.iter().any(Range::is_empty);
                if !empty && !needed.iter().zip(&held).all(fits) {
                    let message = format!(
                        "{name}: the core at {at:?} reads {} of operand {number}, {} is held at \
                         {source:?}",
                        show(&signed(&needed)),
                        show(&signed(&held))
                    );
                    return self.report(entity, codes::OPERAND_LAYOUT, message);
                }
            }
        }
    }
}

/// The iterations that read an operand at one time, and the coordinates of the core whose block they
/// read: all at once, or turn by turn if it shifts or the loop is cut by another operand's shift.
fn turns(
    grid: &Grid,
    step: &Step,
    number: usize,
    at: &[u64],
    ranges: Vec<Range<u64>>,
) -> Vec<(Vec<Range<u64>>, Vec<u64>)> {
    let shift = step.temporal.iter().find_map(|t| Some((t.dim, t.shift?)));
    let Some((dim, (operand, axis))) = shift.filter(|(_, (operand, _))| *operand == number) else {
        return vec![(ranges, at.to_vec())];
    };
    debug_assert_eq!(operand, number);
    let size = grid.axes[axis].size;
    let turn = |position: u64| {
        let (mut ranges, mut source) = (ranges.clone(), at.to_vec());
        ranges[dim] = part_of(&ranges[dim], size, position);
        source[axis] = position;
        (ranges, source)
    };
    (0..size).map(turn).collect()
}

/// What iterations read of an operand, under the extents that the rule sees.
fn reads(rule: &Coalesced, ranges: &[Range<u64>], number: usize) -> Option<Vec<Range<u64>>> {
    let view = &rule.operands[number];
    match &rule.rule {
        StepRule::Kernel(kernel) => Some(kernel_reads(kernel, view, ranges, number)),
        StepRule::Loop(access) => {
            let read = clip(&operand_box(access, number, ranges)?, view);
            let unsigned = |r: &Range<i64>| r.start.unsigned_abs()..r.end.unsigned_abs();
            Some(read.iter().map(unsigned).collect())
        }
    }
}

/// What parts of a kernel's splittable dims read of an operand.
pub(in crate::tiled) fn kernel_reads(
    kernel: &Kernel,
    shape: &[u64],
    ranges: &[Range<u64>],
    number: usize,
) -> Vec<Range<u64>> {
    let mut read: Vec<Range<u64>> = shape.iter().map(|e| 0..*e).collect();
    for (dim, range) in kernel.dims.iter().zip(ranges) {
        if let Some(axis) = dim.operands[number] {
            read[axis] = range.clone();
        }
    }
    read
}

/// Axes along which what is read or held differs.
fn axes_that_matter(layout: &Layout, step: &Step) -> BTreeSet<usize> {
    let split = step.split.iter().flat_map(|s| &s.axes);
    let held = layout.splits.iter().flat_map(|s| &s.axes);
    split.chain(held).copied().collect()
}

/// The cores of a grid that differ along some axes, at position 0 of all others.
fn coordinates(grid: &Grid, axes: &BTreeSet<usize>) -> impl Iterator<Item = Vec<u64>> {
    let size =
        |(n, axis): (usize, &crate::tiled::Axis)| if axes.contains(&n) { axis.size } else { 1 };
    let sizes: Vec<u64> = grid.axes.iter().enumerate().map(size).collect();
    crate::tensor::indices(&sizes)
}
