//! The interpreter: runs a function on a model of every core's memory, byte by byte.
//!
//! The block of a value lies at the value's address in the memory of each core of its grid. A step
//! reads the blocks of its operands there, computes what [TILED](crate::tiled::eval) says and writes
//! its results; an exchange moves the bytes that its flows say, stage by stage. So a value that lies
//! where another one does, dies too early or does not arrive gives wrong numbers: bytes are
//! rubbish ([`RUBBISH`]) until something is written to them, and again when the life of a value begins and
//! ends. Steps take elements outside of a tensor from the rule of the op, which the `fill` of a value's
//! memory stands for.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Flow, Module, Schedule, Storage};
use crate::codes;
use crate::diag::{Diagnostic, Kind};
use crate::graph::eval::{States, weight_data};
use crate::program::{Packing, ViewType};
use crate::tensor::{Tensor, unravel};
use crate::tiled::eval::{self as blocks, Options};
use crate::tiled::spread::{Blocks, extents, key, runs};
use crate::tiled::{FuncId, Function, Group, Layout, Reshard, Stmt, ValueDef, ValueId};
use crate::types::DType;

/// What bytes hold that nothing has written: NaN as a float.
pub const RUBBISH: u8 = 0xff;

/// Bytes of all cores together that a run may take.
const MAX_BYTES: u64 = 1 << 34;

type Outcome<T> = Result<T, Box<Diagnostic>>;

/// Runs a function of a verified module on whole inputs in the function's order, gives the whole
/// outputs and updates the states that outputs alias. On an error the states are unchanged.
///
/// # Errors
/// Inputs that do not fit, values that an op cannot take, memory that a core does not have, replicas
/// that differ, loops, cancellation.
pub fn run(
    module: &Module,
    func: FuncId,
    inputs: &[Tensor],
    states: &mut States,
    options: Options<'_>,
) -> Outcome<Vec<Tensor>> {
    let function = &module.tiled.functions[func];
    blocks::check_inputs(function, inputs)?;
    let Some(schedule) = module.schedules.get(func) else {
        let message = format!("function `{}` has no schedule", function.name);
        return Err(Box::new(Diagnostic::new(
            codes::CORRUPT,
            Kind::Bug,
            message,
        )));
    };
    let mut run = Run {
        module,
        function,
        schedule,
        memory: memory(schedule)?,
        options,
    };
    let results = run.start(inputs, states)?;
    for (output, tensor) in function.outputs.iter().zip(&results) {
        if let Some(state) = output.aliases {
            states[state] = tensor.clone();
        }
    }
    Ok(results)
}

/// The memory of every core as far as it is used.
fn memory(schedule: &Schedule) -> Outcome<Vec<Vec<u8>>> {
    let bytes = schedule.sram_bytes();
    let cores = schedule.places.len();
    if bytes.saturating_mul(cores as u64) > MAX_BYTES {
        let message = format!("{cores} cores of {bytes} bytes are more than a run may take");
        return Err(Box::new(Diagnostic::new(
            codes::BEYOND_SRAM,
            Kind::Limit,
            message,
        )));
    }
    Ok(vec![vec![RUBBISH; bytes as usize]; cores])
}

struct Run<'a, 'o> {
    module: &'a Module,
    function: &'a Function,
    schedule: &'a Schedule,
    /// By number of the core.
    memory: Vec<Vec<u8>>,
    options: Options<'o>,
}

/// Where a value lies on a core.
struct Cells<'a> {
    layout: &'a Layout,
    storage: &'a Storage,
    window: Vec<Range<i64>>,
    view: ViewType,
}

impl Cells<'_> {
    /// The byte of an element, by its index under the view of the layout; `None` outside of the window.
    fn at(&self, index: &[u64]) -> Option<usize> {
        let dims = index.iter().zip(&self.window);
        let inside = dims.map(|(i, range)| {
            let i = i64::try_from(*i).ok()?;
            (range.contains(&i)).then(|| i.abs_diff(range.start))
        });
        let position = self.view.position(&inside.collect::<Option<Vec<u64>>>()?);
        let at = self.storage.address.checked_add_signed(position)?;
        usize::try_from(at).ok()
    }

    /// The bytes of elements that follow each other in the tensor, from its element `flat` on, as
    /// ranges of addresses.
    fn ranges(&self, flat: usize, length: usize) -> Outcome<Vec<Range<usize>>> {
        let width = self.view.dtype.bytes() as usize;
        let row = self.layout.view.last().map_or(1, |extent| *extent as usize);
        let beside = self.view.packing == Packing::Strided
            && self.view.strides.last().is_none_or(|s| *s == width as i64);
        let (mut at, end) = (flat, flat + length);
        let mut ranges = vec![];
        while at < end {
            let count = match beside {
                true => (row - at % row).min(end - at),
                false => 1,
            };
            let index = unravel(at as u64, &self.layout.view);
            let last = unravel((at + count - 1) as u64, &self.layout.view);
            let (Some(start), Some(_)) = (self.at(&index), self.at(&last)) else {
                let message = format!("the core has no place for the element {index:?}");
                return Err(Box::new(Diagnostic::input(codes::BAD_FLOW, message)));
            };
            ranges.push(start..start + count * width);
            at += count;
        }
        Ok(ranges)
    }
}

impl<'a> Run<'a, '_> {
    fn start(&mut self, inputs: &[Tensor], states: &States) -> Outcome<Vec<Tensor>> {
        let function = self.function;
        let body = &function.bodies[function.body()];
        for (value, tensor) in body.params.iter().zip(inputs) {
            self.load(*value, tensor)?;
        }
        for (value, data) in function.values.iter() {
            match data.def {
                ValueDef::Weight(weight) => {
                    let tensor = weight_data(&self.module.tiled.weights[weight])?;
                    self.load(value, &tensor)?;
                }
                ValueDef::State(state) => self.load(value, &states[state])?,
                ValueDef::Param(..) | ValueDef::Stmt(_) => {}
            }
        }
        for (at, stmt) in body.stmts.iter().enumerate() {
            blocks::check_cancelled(&self.options)?;
            self.pass(at)?;
            self.scratch(at)?;
            let made = match stmt {
                Stmt::Group(group) => self.group(group)?,
                Stmt::Reshard(reshard) => self.reshard(at, reshard)?,
                // The bytes are there already.
                Stmt::View { output, .. } => vec![*output],
                Stmt::Repeat(_) => {
                    let message = "values of loops have no places yet";
                    let diagnostic =
                        Diagnostic::new(codes::BAD_STORAGE, Kind::Unsupported, message);
                    return Err(Box::new(diagnostic));
                }
            };
            self.scratch(at)?;
            for value in made {
                self.observe(value)?;
            }
        }
        self.pass(body.stmts.len())?;
        let whole = |value: &ValueId| {
            let found = self.read(*value)?;
            blocks::whole(&self.module.tiled, function, *value, &found)
        };
        body.results.iter().map(whole).collect()
    }

    /// Writes a whole tensor as the blocks of a value.
    fn load(&mut self, value: ValueId, tensor: &Tensor) -> Outcome<()> {
        let layout = &self.function.values[value].layout;
        let found = blocks::spread(&self.module.tiled, layout, tensor)?;
        self.write(value, &found)?;
        self.observe(value)
    }

    fn observe(&mut self, value: ValueId) -> Outcome<()> {
        if self.options.observe.is_none() {
            return Ok(());
        }
        let found = self.read(value)?;
        let whole = blocks::whole(&self.module.tiled, self.function, value, &found);
        match (whole, &mut self.options.observe) {
            (Ok(tensor), Some(observe)) => observe(value, &tensor),
            // A layout for one step may leave elements out.
            (Err(diagnostic), _) if diagnostic.code.0 != codes::NOT_HELD => return Err(diagnostic),
            _ => {}
        }
        Ok(())
    }

    /// The time before a statement: bytes whose value begins or ends to live there are rubbish.
    fn pass(&mut self, at: usize) -> Outcome<()> {
        let schedule = self.schedule;
        for (value, storage) in &schedule.storage {
            // What is there before the first statement was written before.
            let begins = storage.live.start == at && at > 0;
            if storage.alias.is_some() || !(begins || storage.live.end == at) {
                continue;
            }
            let start = storage.address as usize;
            let bytes = start..start.saturating_add(storage.bytes as usize);
            for core in self.cores(*value) {
                self.bytes(core, bytes.clone())?.fill(RUBBISH);
            }
        }
        Ok(())
    }

    /// What a statement needs for itself is rubbish before and after it.
    fn scratch(&mut self, stmt: usize) -> Outcome<()> {
        let schedule = self.schedule;
        for (_, address, bytes) in schedule.scratch.iter().filter(|(at, ..)| *at == stmt) {
            let start = *address as usize;
            for core in 0..self.memory.len() as u64 {
                self.bytes(core, start..start.saturating_add(*bytes as usize))?
                    .fill(RUBBISH);
            }
        }
        Ok(())
    }

    /// Numbers of the cores of a value.
    fn cores(&self, value: ValueId) -> Range<u64> {
        let grid = &self.module.tiled.grids[self.function.values[value].layout.grid];
        grid.first..grid.first + grid.size()
    }

    fn bytes(&mut self, core: u64, range: Range<usize>) -> Outcome<&mut [u8]> {
        let memory = self.memory.get_mut(core as usize);
        let bytes = memory.and_then(|m| m.get_mut(range.clone()));
        bytes.ok_or_else(|| no_bytes(core, &range))
    }

    /// Where a value lies on a core, by the core's number.
    fn cells(&self, value: ValueId, core: u64) -> Outcome<Cells<'a>> {
        let (function, schedule) = (self.function, self.schedule);
        let data = &function.values[value];
        let grid = &self.module.tiled.grids[data.layout.grid];
        let index = core.checked_sub(grid.first).filter(|n| *n < grid.size());
        let storage = schedule.storage.get(&value);
        let (Some(index), Some(storage)) = (index, storage) else {
            let message = format!("{value} has no place on core {core}");
            return Err(Box::new(Diagnostic::input(codes::BAD_STORAGE, message)));
        };
        let window = data.layout.window(grid, &grid.coordinates(index));
        Ok(Cells {
            layout: &data.layout,
            storage,
            view: ViewType {
                dtype: data.ty.dtype,
                shape: window.iter().map(|r| r.start.abs_diff(r.end)).collect(),
                strides: storage.strides.clone(),
                packing: data.layout.packing,
            },
            window,
        })
    }

    /// The blocks of a value, from memory. Those of one box with the same bytes are one tensor, so
    /// that what is computed from them is computed once.
    fn read(&self, value: ValueId) -> Outcome<Blocks> {
        let data = &self.function.values[value];
        let grid = &self.module.tiled.grids[data.layout.grid];
        let mut known = BTreeMap::<_, Tensor>::new();
        let mut found = vec![];
        for core in self.cores(value) {
            let cells = self.cells(value, core)?;
            let bounds = data
                .layout
                .block(grid, &grid.coordinates(core - grid.first));
            let mut bytes = vec![];
            for run in runs(&bounds, &data.layout.view) {
                self.take(core, &cells, run.start, run.length, &mut bytes)?;
            }
            let key = key(&bounds);
            let same = known.get(&key).filter(|t| t.bytes()[..] == bytes[..]);
            let block = match same {
                Some(tensor) => tensor.clone(),
                None => tensor(data.ty.dtype, &extents(&bounds), bytes)?,
            };
            known.insert(key, block.clone());
            found.push(block);
        }
        Ok(found)
    }

    /// Appends elements that follow each other in the tensor.
    fn take(
        &self,
        core: u64,
        cells: &Cells<'_>,
        flat: usize,
        length: usize,
        bytes: &mut Vec<u8>,
    ) -> Outcome<()> {
        let memory = self
            .memory
            .get(core as usize)
            .map_or(&[][..], Vec::as_slice);
        for range in cells.ranges(flat, length)? {
            let part = memory.get(range.clone());
            bytes.extend_from_slice(part.ok_or_else(|| no_bytes(core, &range))?);
        }
        Ok(())
    }

    /// Writes elements that follow each other in the tensor.
    fn put(&mut self, core: u64, cells: &Cells<'_>, flat: usize, bytes: &[u8]) -> Outcome<()> {
        let width = cells.view.dtype.bytes() as usize;
        let mut rest = bytes;
        for range in cells.ranges(flat, bytes.len() / width)? {
            let (part, after) = rest.split_at(range.len());
            self.bytes(core, range)?.copy_from_slice(part);
            rest = after;
        }
        Ok(())
    }

    fn write(&mut self, value: ValueId, found: &Blocks) -> Outcome<()> {
        let data = &self.function.values[value];
        let grid = &self.module.tiled.grids[data.layout.grid];
        let width = data.ty.dtype.bytes() as usize;
        for (core, block) in self.cores(value).zip(found) {
            let cells = self.cells(value, core)?;
            let bounds = data
                .layout
                .block(grid, &grid.coordinates(core - grid.first));
            for run in runs(&bounds, &data.layout.view) {
                let bytes = &block.bytes()[run.offset * width..][..run.length * width];
                self.put(core, &cells, run.start, bytes)?;
            }
        }
        Ok(())
    }

    fn group(&mut self, group: &Group) -> Outcome<Vec<ValueId>> {
        let mut made = vec![];
        for step in &group.steps {
            let args = step.args.iter().map(|v| self.read(*v));
            let args = args.collect::<Outcome<Vec<Blocks>>>()?;
            let results = blocks::step(&self.module.tiled, self.function, group, step, &args)?;
            for (value, found) in step.results.iter().zip(&results) {
                self.write(*value, found)?;
                made.push(*value);
            }
        }
        Ok(made)
    }

    fn reshard(&mut self, at: usize, reshard: &Reshard) -> Outcome<Vec<ValueId>> {
        let schedule = self.schedule;
        self.fill(reshard.output)?;
        let exchange = schedule.exchange(at);
        for flows in exchange.map_or(&[][..], |exchange| &exchange.stages) {
            let view = exchange.map_or(&[][..], |exchange| &exchange.view);
            // All messages of a stage leave before any arrives.
            let messages = flows.iter().map(|flow| self.message(reshard, flow, view));
            let messages = messages.collect::<Outcome<Vec<_>>>()?;
            for (flow, message) in flows.iter().zip(messages) {
                let core = u64::from(flow.to);
                let cells = self.cells(reshard.output, core)?;
                for (flat, bytes) in message {
                    self.put(core, &cells, flat, &bytes)?;
                }
            }
        }
        Ok(vec![reshard.output])
    }

    /// What a flow carries: runs of elements with their positions in the tensor.
    fn message(
        &self,
        reshard: &Reshard,
        flow: &Flow,
        view: &[u64],
    ) -> Outcome<Vec<(usize, Vec<u8>)>> {
        let value = match flow.forwarded {
            true => reshard.output,
            false => reshard.input,
        };
        let core = u64::from(flow.from);
        let cells = self.cells(value, core)?;
        let pairs = flow.start.iter().zip(&flow.size);
        let bounds: Vec<Range<u64>> = pairs.map(|(s, n)| *s..s.saturating_add(*n)).collect();
        let inside = bounds.iter().zip(view).all(|(r, extent)| r.end <= *extent);
        if bounds.len() != view.len() || !inside {
            let message = format!("the box {bounds:?} does not lie in {view:?}");
            return Err(Box::new(Diagnostic::input(codes::BAD_FLOW, message)));
        }
        let mut message = vec![];
        for run in runs(&bounds, view) {
            let mut bytes = vec![];
            self.take(core, &cells, run.start, run.length, &mut bytes)?;
            message.push((run.start, bytes));
        }
        Ok(message)
    }

    /// Writes what windows hold outside of the tensor.
    fn fill(&mut self, value: ValueId) -> Outcome<()> {
        let (function, schedule) = (self.function, self.schedule);
        let Some(storage) = schedule.storage.get(&value) else {
            return Ok(());
        };
        let Some(fill) = storage.fill else {
            return Ok(());
        };
        let data = &function.values[value];
        let element = Tensor::scalar(data.ty.dtype, fill.to_scalar(data.ty.dtype));
        for core in self.cores(value) {
            let cells = self.cells(value, core)?;
            let window = &cells.window;
            let outside = |index: &Vec<u64>| {
                let mut dims = index.iter().zip(window).zip(&data.layout.view);
                dims.any(|((i, range), extent)| {
                    let at = range.start.saturating_add_unsigned(*i);
                    u64::try_from(at).map_or(true, |at| at >= *extent)
                })
            };
            for index in crate::tensor::indices(&cells.view.shape).filter(outside) {
                let position = cells.view.position(&index);
                let start = storage.address.saturating_add_signed(position) as usize;
                let bytes = element.bytes();
                self.bytes(core, start..start.saturating_add(bytes.len()))?
                    .copy_from_slice(bytes);
            }
        }
        Ok(())
    }
}

fn no_bytes(core: u64, range: &Range<usize>) -> Box<Diagnostic> {
    let message = format!("core {core} has no bytes {range:?}");
    Box::new(Diagnostic::input(codes::BEYOND_SRAM, message))
}

fn tensor(dtype: DType, shape: &[u64], bytes: Vec<u8>) -> Outcome<Tensor> {
    Tensor::from_bytes(dtype, shape, bytes.into()).map_err(|error| {
        Box::new(Diagnostic::new(
            codes::CORRUPT,
            Kind::Bug,
            error.to_string(),
        ))
    })
}
