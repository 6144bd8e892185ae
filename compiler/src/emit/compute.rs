//! The segment of a phase: groups of steps between which no data moves, all on one grid.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use dojoc_ir::access::{Access, Affine as Index, Expr, Kernel, Outside};
use dojoc_ir::diag::Loc;
use dojoc_ir::entity::EntityId as _;
use dojoc_ir::mesh::Schedule;
use dojoc_ir::ops::Op;
use dojoc_ir::program::{Affine, BufferId, BufferRole, LocId};
use dojoc_ir::tiled::{
    Body, Coalesced, Function, Grid, GridId, Layout, LoopSplit, Module, Step, StepRule, Stmt,
    Temporal, ValueId, block, coalesced,
};
use dojoc_ir::types::Type;

use super::Unsupported;
use super::builder::SegmentBuilder;
use super::kernel::{self, BlockDim, Local, LocalTensor};
use super::program::{ProgramBuilder, Slot, Template};
use crate::place::sram;

/// What there are no instructions for, and where.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub cause: Unsupported,
    /// Mnemonic of the op.
    pub op: &'static str,
    /// The node of the model.
    pub loc: Option<Arc<Loc>>,
}

/// The code of a phase, without addresses: all phases of one [`PhaseKey`] share it.
#[derive(Debug)]
pub(super) struct PhaseCode {
    /// `None` if there is nothing to do: views alone.
    template: Option<Template>,
    scratch_bytes: u64,
}

/// A phase: its code, and the values that are its buffers.
pub struct Phase {
    code: Rc<PhaseCode>,
    values: Vec<ValueId>,
    loc: Option<LocId>,
}

/// What the code of a phase is made from, its values numbered in the order in which they appear.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(super) struct PhaseKey {
    grid: GridId,
    values: Vec<ValueKey>,
    steps: Vec<StepKey>,
}

/// What matters of a value.
#[derive(PartialEq, Eq, Hash, Debug)]
struct ValueKey {
    ty: Type,
    layout: Layout,
    /// Bytes and strides in memory.
    storage: Option<(u64, Vec<i64>)>,
    /// The number of the value whose bytes these are.
    root: usize,
    role: BufferRole,
}

/// What matters of a step.
#[derive(PartialEq, Eq, Hash, Debug)]
struct StepKey {
    op: Op,
    args: Vec<usize>,
    results: Vec<usize>,
    loops: Vec<Range<usize>>,
    split: Vec<LoopSplit>,
    temporal: Vec<Temporal>,
}

/// Numbers that differ from core to core, as entries of the parameter row.
struct Params {
    rows: Vec<Vec<i64>>,
}

impl Params {
    /// The number of every core, as a constant or an entry of the row.
    fn affine(&mut self, seg: &mut SegmentBuilder, values: Vec<i64>) -> Affine {
        if let Some(first) = values.first()
            && values.iter().all(|v| v == first)
        {
            return Affine::constant(*first);
        }
        let position = self
            .rows
            .iter()
            .position(|row| *row == values)
            .unwrap_or_else(|| {
                self.rows.push(values);
                self.rows.len() - 1
            });
        Affine::var(seg.param(&format!("p{position}")))
    }
}

/// Emits a phase: the statements `stmts` of the body, which are groups on one grid and views. The
/// values `kept` can be read after it like those that later phases use, of which `last` is the list.
///
/// # Errors
/// The first step that there are no instructions for.
pub fn phase(
    cx: &mut ProgramBuilder,
    module: &Module,
    function: &Function,
    schedule: &Schedule,
    stmts: Range<usize>,
    (kept, last): (&[ValueId], &LastUses),
) -> Result<Phase, Refused> {
    let body = &function.bodies[function.body()];
    let groups = || {
        body.stmts[stmts.clone()]
            .iter()
            .filter_map(|stmt| match stmt {
                Stmt::Group(group) => Some(group),
                _ => None,
            })
    };
    let grid_id = groups().next().map_or(GridId::from_index(0), |g| g.grid);
    let steps: Vec<&Step> = groups().flat_map(|g| &g.steps).collect();
    let first = steps.first();
    let loc = first
        .and_then(|step| step.loc.as_ref())
        .map(|loc| cx.loc(loc));
    let uses = Uses {
        made: steps.iter().flat_map(|s| s.results.clone()).collect(),
        last,
        end: stmts.end,
        kept: kept
            .iter()
            .flat_map(|v| [*v, schedule.root_of(*v)])
            .collect(),
    };
    let (key, values) = key(function, schedule, grid_id, &steps, &uses);
    if let Some(code) = cx.phases.get(&key) {
        let code = code.clone();
        return Ok(Phase { code, values, loc });
    }
    let name = first.map_or("empty", |step| step.op.name());
    let grid = &module.grids[grid_id];
    let mut emitter = Emitter {
        cx,
        function,
        schedule,
        grid,
        uses,
        seg: SegmentBuilder::new(name, loc),
        params: Params { rows: vec![] },
        buffers: BTreeMap::new(),
    };
    for step in &steps {
        emitter.step(step).map_err(|cause| Refused {
            cause,
            op: step.op.name(),
            loc: step.loc.clone(),
        })?;
    }
    let code = emitter.finish(&values).map_err(|cause| Refused {
        cause,
        op: name,
        loc: first.and_then(|step| step.loc.clone()),
    })?;
    let code = Rc::new(code);
    cx.phases.insert(key, code.clone());
    Ok(Phase { code, values, loc })
}

/// The key of a phase, and its values by number.
fn key(
    function: &Function,
    schedule: &Schedule,
    grid: GridId,
    steps: &[&Step],
    uses: &Uses<'_>,
) -> (PhaseKey, Vec<ValueId>) {
    let mut numbers: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut values: Vec<ValueId> = vec![];
    let mut number = |value: ValueId| {
        *numbers.entry(value).or_insert_with(|| {
            values.push(value);
            values.len() - 1
        })
    };
    let mut list = vec![];
    for step in steps {
        let mut all = |values: &[ValueId]| -> Vec<usize> {
            (values.iter())
                .map(|value| {
                    number(schedule.root_of(*value));
                    number(*value)
                })
                .collect()
        };
        list.push(StepKey {
            op: step.op.clone(),
            args: all(&step.args),
            results: all(&step.results),
            loops: step.loops.clone(),
            split: step.split.clone(),
            temporal: step.temporal.clone(),
        });
    }
    let of = |value: &ValueId| {
        let data = &function.values[*value];
        let storage = schedule.storage.get(value);
        let root = schedule.root_of(*value);
        ValueKey {
            ty: data.ty.clone(),
            layout: data.layout.clone(),
            storage: storage.map(|s| (s.bytes, s.strides.clone())),
            root: numbers[&root],
            role: uses.role(root),
        }
    };
    let key = PhaseKey {
        grid,
        values: values.iter().map(of).collect(),
        steps: list,
    };
    (key, values)
}

impl Phase {
    /// Bytes of scratch memory.
    pub fn scratch_bytes(&self) -> u64 {
        self.code.scratch_bytes
    }

    /// Adds the call with the addresses of the schedule. Scratch memory begins at `scratch`.
    ///
    /// # Errors
    /// An address beyond 63 bits.
    pub fn call(
        &self,
        cx: &mut ProgramBuilder,
        schedule: &Schedule,
        scratch: u64,
    ) -> Result<(), Unsupported> {
        let Some(template) = &self.code.template else {
            return Ok(());
        };
        let address = |value| schedule.storage.get(value).map_or(0, |s| s.address);
        let addresses: Vec<u64> = self.values.iter().map(address).collect();
        cx.call(template, &addresses, scratch, self.loc)
    }
}

/// Where values of a body are used last.
#[derive(Debug)]
pub struct LastUses {
    /// By value that is no view: the number of statements up to the last one that uses it, or a view
    /// of it.
    ends: BTreeMap<ValueId, usize>,
}

impl LastUses {
    /// Reads a body.
    pub fn of(body: &Body) -> Self {
        let mut views: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut ends: BTreeMap<ValueId, usize> = BTreeMap::new();
        for (at, stmt) in body.stmts.iter().enumerate() {
            let root = |value: &ValueId| views.get(value).copied().unwrap_or(*value);
            match stmt {
                Stmt::View { input, output, .. } => {
                    let root = root(input);
                    views.insert(*output, root);
                }
                Stmt::Reshard(reshard) => {
                    ends.insert(root(&reshard.input), at + 1);
                }
                Stmt::Group(group) => {
                    let args = group.steps.iter().flat_map(|s| &s.args);
                    ends.extend(args.map(|value| (root(value), at + 1)));
                }
                Stmt::Repeat(repeat) => {
                    ends.extend(repeat.inits.iter().map(|value| (root(value), at + 1)));
                }
            }
        }
        for value in &body.results {
            let root = views.get(value).copied().unwrap_or(*value);
            ends.insert(root, usize::MAX);
        }
        Self { ends }
    }
}

/// Which values a phase makes, and which of them are used elsewhere.
struct Uses<'a> {
    made: Vec<ValueId>,
    last: &'a LastUses,
    /// The statement behind the phase.
    end: usize,
    /// Values that are read after it in any case, and the values that these are views of.
    kept: Vec<ValueId>,
}

impl Uses<'_> {
    fn role(&self, root: ValueId) -> BufferRole {
        let later = self.last.ends.get(&root).is_some_and(|at| *at > self.end);
        match (
            self.made.contains(&root),
            later || self.kept.contains(&root),
        ) {
            (false, _) => BufferRole::In,
            (true, true) => BufferRole::Out,
            (true, false) => BufferRole::Scratch,
        }
    }
}

struct Emitter<'a> {
    cx: &'a mut ProgramBuilder,
    function: &'a Function,
    schedule: &'a Schedule,
    grid: &'a Grid,
    uses: Uses<'a>,
    seg: SegmentBuilder,
    params: Params,
    buffers: BTreeMap<ValueId, BufferId>,
}

impl Emitter<'_> {
    /// The code, where values have these numbers.
    fn finish(self, values: &[ValueId]) -> Result<PhaseCode, Unsupported> {
        let Self {
            cx,
            grid,
            seg,
            params,
            buffers,
            ..
        } = self;
        if seg.position() == 0 {
            return Ok(PhaseCode {
                template: None,
                scratch_bytes: 0,
            });
        }
        let own: BTreeMap<BufferId, ValueId> = buffers.into_iter().map(|(v, b)| (b, v)).collect();
        let mut lives = seg.scratch_lives();
        lives.retain(|life| !own.contains_key(&life.buffer));
        let items: Vec<sram::Item> = (lives.iter())
            .map(|life| sram::Item {
                bytes: life.bytes,
                live: life.first..life.last + 1,
            })
            .collect();
        let (addresses, scratch_bytes) = sram::allocate(&items, u64::MAX);
        let slot = |buffer: BufferId| {
            let value = own
                .get(&buffer)
                .and_then(|root| values.iter().position(|v| v == root));
            let scratch = lives.iter().position(|life| life.buffer == buffer);
            match (value, scratch) {
                (Some(n), _) => Slot::Value(n),
                // A scratch buffer without a use lies anywhere.
                (None, at) => Slot::Scratch(at.map_or(0, |n| addresses[n])),
            }
        };
        let cores = usize::try_from(grid.size()).unwrap_or(usize::MAX);
        let region = cx.region(0, cores)?;
        let rows = params.rows.iter();
        let row = rows
            .map(|values| super::fit::fit(values, &mut cx.tables))
            .collect();
        let template = Some(cx.template(seg.finish()?, region, row, slot));
        Ok(PhaseCode {
            template,
            scratch_bytes,
        })
    }

    fn buffer(&mut self, value: ValueId) -> Result<BufferId, Unsupported> {
        let storage = self.schedule.storage.get(&value);
        let root = storage.and_then(|s| s.alias).unwrap_or(value);
        if let Some(buffer) = self.buffers.get(&root) {
            return Ok(*buffer);
        }
        let data = &self.function.values[root];
        let elements =
            self.schedule.storage.get(&root).map_or(0, |s| s.bytes) / data.ty.dtype.bytes();
        let role = self.uses.role(root);
        // Segments of equal layers are shared, so names do not tell whose values these are.
        let name = format!("v{}", self.buffers.len());
        let loc = None;
        let buffer = self
            .seg
            .buffer(&name, data.ty.dtype, &[elements], role, loc);
        self.buffers.insert(root, buffer);
        Ok(buffer)
    }

    fn cores(&self) -> impl Iterator<Item = Vec<u64>> + use<'_> {
        (0..self.grid.size()).map(|core| self.grid.coordinates(core))
    }

    fn step(&mut self, step: &Step) -> Result<(), Unsupported> {
        let types = |values: &[ValueId]| {
            values
                .iter()
                .map(|v| self.function.values[*v].ty.clone())
                .collect::<Vec<_>>()
        };
        let rule = coalesced(
            &step.op,
            &types(&step.args),
            &types(&step.results),
            &step.loops,
        )
        .map_err(Unsupported::new)?;
        let loc = step.loc.as_ref().map(|loc| self.cx.loc(loc));
        let ranges: Vec<Vec<Range<u64>>> = self
            .cores()
            .map(|at| block(&rule, self.grid, &step.split, &at))
            .collect();
        match &rule.rule {
            StepRule::Loop(access) => self.loops(step, access, &ranges, loc),
            StepRule::Kernel(kernel) => self.kernel(step, kernel, &rule, &ranges, loc),
        }
    }

    fn loops(
        &mut self,
        step: &Step,
        access: &Access,
        ranges: &[Vec<Range<u64>>],
        loc: Option<LocId>,
    ) -> Result<(), Unsupported> {
        let indexed = access.body.iter().any(uses_index);
        let mut dims = vec![];
        for d in 0..access.dims.len() {
            let counts: Vec<i64> = ranges.iter().map(|r| length(&r[d])).collect();
            let max = counts.iter().copied().max().unwrap_or(0).unsigned_abs();
            let start = if indexed {
                let starts = ranges.iter().map(|r| r[d].start as i64).collect();
                self.params.affine(&mut self.seg, starts)
            } else {
                Affine::constant(0)
            };
            let count = self.params.affine(&mut self.seg, counts);
            dims.push(BlockDim { start, count, max });
        }
        let mut operands = vec![];
        for (n, value) in step.args.iter().enumerate() {
            let read = &access.operands[n];
            // Kernels take such operands with room between their elements, which no layout gives them.
            if read.index.iter().any(|map| map.div != 1) {
                return Err(Unsupported::new(
                    "elements that lie between those of an operand",
                ));
            }
            let partial =
                read.outside != Outside::Never && kernel::fill_value(access, n)?.is_none();
            let shape = self.function.values[*value].layout.view.clone();
            let parts: Option<Vec<Vec<Range<u64>>>> = partial
                .then(|| {
                    ranges
                        .iter()
                        .map(|r| in_range(&read.index, &shape, r))
                        .collect()
                })
                .transpose()?;
            let local = self.local(*value, &read.index, parts.as_deref().unwrap_or(ranges))?;
            let valid = match parts {
                None => None,
                Some(parts) => {
                    let mut valid = vec![];
                    for d in 0..access.dims.len() {
                        let starts = (parts.iter().zip(ranges))
                            .map(|(part, all)| part[d].start as i64 - all[d].start as i64)
                            .collect();
                        let counts = parts.iter().map(|part| length(&part[d])).collect();
                        let start = self.params.affine(&mut self.seg, starts);
                        valid.push((start, self.params.affine(&mut self.seg, counts)));
                    }
                    Some(valid)
                }
            };
            operands.push(Local { valid, ..local });
        }
        let mut results = vec![];
        for (n, value) in step.results.iter().enumerate() {
            results.push(self.local(*value, &access.results[n].index, ranges)?);
        }
        kernel::emit(access, &dims, &operands, &results, &mut self.seg, loc)
    }

    /// Where the part of a value lies that iterations touch.
    fn local(
        &mut self,
        value: ValueId,
        index: &[Index],
        ranges: &[Vec<Range<u64>>],
    ) -> Result<Local, Unsupported> {
        let buffer = self.buffer(value)?;
        let layout = &self.function.values[value].layout;
        let strides = self.strides(value)?;
        let mut offsets = vec![];
        for (at, ranges) in self.cores().zip(ranges) {
            let window = layout.window(self.grid, &at);
            let mut offset = 0i64;
            if ranges.iter().all(|r| !r.is_empty()) {
                for ((map, window), stride) in index.iter().zip(&window).zip(&strides) {
                    let least = least(map, ranges)?;
                    let distance = least
                        .checked_sub(window.start)
                        .and_then(|d| d.checked_mul(*stride));
                    offset = (distance.and_then(|d| offset.checked_add(d)))
                        .ok_or_else(Unsupported::overflow)?;
                }
            }
            offsets.push(offset);
        }
        let offset = self.params.affine(&mut self.seg, offsets);
        Ok(Local {
            buffer,
            dtype: self.function.values[value].ty.dtype,
            offset,
            strides,
            valid: None,
        })
    }

    fn strides(&self, value: ValueId) -> Result<Vec<i64>, Unsupported> {
        let storage = self.schedule.storage.get(&value);
        storage
            .map(|s| s.strides.clone())
            .ok_or_else(|| Unsupported::new("a value without memory"))
    }

    fn kernel(
        &mut self,
        step: &Step,
        kernel: &Kernel,
        rule: &Coalesced,
        ranges: &[Vec<Range<u64>>],
        loc: Option<LocId>,
    ) -> Result<(), Unsupported> {
        let mut tensors = vec![];
        let operands = rule.operands.iter().enumerate().map(|(n, shape)| {
            let dims: Vec<Option<usize>> = (0..shape.len())
                .map(|t| kernel.dims.iter().position(|d| d.operands[n] == Some(t)))
                .collect();
            (step.args[n], shape, dims)
        });
        let results = rule.results.iter().enumerate().map(|(n, shape)| {
            let dims: Vec<Option<usize>> = (0..shape.len())
                .map(|t| kernel.dims.iter().position(|d| d.results[n] == t))
                .collect();
            (step.results[n], shape, dims)
        });
        for (value, shape, dims) in operands.chain(results).collect::<Vec<_>>() {
            let boxes: Vec<Vec<Range<u64>>> = (ranges.iter())
                .map(|ranges| {
                    let of = |(t, extent): (usize, &u64)| match dims[t] {
                        Some(d) => ranges[d].clone(),
                        None => 0..*extent,
                    };
                    shape.iter().enumerate().map(of).collect()
                })
                .collect();
            let identity: Vec<Index> = (0..shape.len()).map(Index::dim).collect();
            let local = self.local(value, &identity, &boxes)?;
            let mut extents = vec![];
            for t in 0..shape.len() {
                let counts: Vec<i64> = boxes.iter().map(|b| length(&b[t])).collect();
                let max = counts.iter().copied().max().unwrap_or(0).unsigned_abs();
                extents.push((self.params.affine(&mut self.seg, counts), max));
            }
            tensors.push(LocalTensor {
                local,
                shape: extents,
            });
        }
        let (operands, results) = tensors.split_at(step.args.len());
        kernel::emit_kernel(kernel.function, operands, results, &mut self.seg, loc)
    }
}

fn length(range: &Range<u64>) -> i64 {
    i64::try_from(range.end.saturating_sub(range.start)).unwrap_or(i64::MAX)
}

fn uses_index(expr: &Expr) -> bool {
    match expr {
        Expr::Index(..) => true,
        Expr::Operand(_) | Expr::Const(..) => false,
        Expr::Unary(_, _, x) | Expr::Convert(_, x) => uses_index(x),
        Expr::Binary(_, _, args) => args.iter().any(uses_index),
        Expr::Select(args) | Expr::RandomBits(_, args) => args.iter().any(uses_index),
        Expr::FirstOf(options) => options.iter().any(uses_index),
    }
}

/// The least index that iterations read in one dim, with a divisor left out.
fn least(map: &Index, ranges: &[Range<u64>]) -> Result<i64, Unsupported> {
    let symbolic = || Unsupported::new("an index depends on a symbolic extent");
    let mut sum = i128::from(map.offset.as_constant().ok_or_else(symbolic)?);
    for (d, c) in &map.terms {
        let range = &ranges[*d];
        let ends = [range.start, range.end.saturating_sub(1)];
        let at = if *c >= 0 { ends[0] } else { ends[1] };
        sum += i128::from(*c) * i128::from(at);
    }
    i64::try_from(sum).map_err(|_| Unsupported::overflow())
}

/// The iterations at which an operand is in range; of all loops none, if there are none.
fn in_range(
    index: &[Index],
    shape: &[u64],
    ranges: &[Range<u64>],
) -> Result<Vec<Range<u64>>, Unsupported> {
    let mut part: Vec<Range<i64>> = (ranges.iter())
        .map(|r| r.start as i64..r.end as i64)
        .collect();
    for (map, extent) in index.iter().zip(shape) {
        let extent = i64::try_from(*extent).map_err(|_| Unsupported::overflow())?;
        let offset = map.offset.as_constant();
        let offset =
            offset.ok_or_else(|| Unsupported::new("an index depends on a symbolic extent"))?;
        match map.terms[..] {
            [] if (0..extent).contains(&offset) => {}
            [] => return Ok(ranges.iter().map(|r| r.start..r.start).collect()),
            [(d, c)] if c > 0 && map.div == 1 => {
                let first = (-offset).div_euclid(c) + i64::from((-offset).rem_euclid(c) != 0);
                let last = (extent - 1 - offset).div_euclid(c);
                part[d].start = part[d].start.max(first);
                part[d].end = part[d].end.min(last + 1);
            }
            // A read that is inside wherever the loops are does not cut anything off.
            _ => {
                let whole: Vec<Range<u64>> = ranges.to_vec();
                let low = least(map, &whole)?;
                let reach: i64 = (map.terms.iter())
                    .map(|(d, c)| c.abs() * (length(&whole[*d]) - 1).max(0))
                    .sum();
                if map.div != 1 || low < 0 || low + reach >= extent {
                    return Err(Unsupported::new(
                        "reads that are partly outside along several loops",
                    ));
                }
            }
        }
    }
    if part.iter().any(|r| r.start >= r.end) {
        return Ok(ranges.iter().map(|r| r.start..r.start).collect());
    }
    Ok(part
        .into_iter()
        .map(|r| r.start as u64..r.end as u64)
        .collect())
}
