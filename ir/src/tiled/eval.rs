//! The interpreter: runs a function as the cores of its grids would, block by block.
//!
//! Every value is a list of blocks, one per core. A step computes each core's block of its results
//! from what that core holds and nothing else. A reshard puts blocks together, checking that every
//! element that is needed is held and that those who hold one element agree bit for bit, and cuts
//! them anew. Contributions along pending axes are combined in the order in which the layout lists the
//! axes, along each from position 0 on, in the element type of the value.
//!
//! A temporal factor that shifts operand `o` along an axis of `n` positions has `n` steps. At time
//! `t` a core at position `c` works on part `(c + t) mod n` of its block of the loop (balanced in
//! single iterations), with the block of the operand that the core at position `(c + t) mod n` holds.
//! Parts of a reduction are combined in order of time, in the element type of the result.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::spread::{Blocks, Fault, Whole, combine, combined, extents, key, reviewed, signed};
use super::step::{Coalesced, StepRule, block, coalesced};
use super::verify::kernel_reads;
use super::{
    BodyId, FuncId, Function, Grid, GridId, Group, Layout, Module, Repeat, Step, Stmt, ValueDef,
    ValueId,
};
use crate::access::block::{Block, clip, evaluate, operand_box};
use crate::access::{Access, Combine, DimKind, Kernel};
use crate::codes;
use crate::diag::{Diagnostic, Kind, Loc, Place};
use crate::graph::eval::{States, first_values, weight_data};
use crate::ops::{EvalCx, EvalError, Op};
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::Type;

/// Called with a value of the function's body and its whole tensor.
pub type Observe<'a> = dyn FnMut(ValueId, &Tensor) + 'a;

/// Observers of a run.
#[derive(Default)]
pub struct Options<'a> {
    /// Set from outside to stop the run.
    pub cancel: Option<&'a AtomicBool>,
    /// Called with every value of the function's body as it is computed, put together; not with
    /// values of which the cores hold a part.
    pub observe: Option<&'a mut Observe<'a>>,
}

/// The states before the first run.
///
/// # Errors
/// When a weight that initialises a state has no bytes at hand.
pub fn initial_states(module: &Module) -> Result<States, Box<Diagnostic>> {
    first_values(&module.weights, &module.states)
}

/// Runs a function of a verified module on whole inputs in the function's order, gives the whole
/// outputs and updates the states that outputs alias. On an error the states are unchanged.
///
/// # Errors
/// Inputs that do not fit, values that an op cannot take, an element that is needed where no core
/// holds it, replicas that differ, cancellation.
pub fn run(
    module: &Module,
    func: FuncId,
    inputs: &[Tensor],
    states: &mut States,
    options: Options<'_>,
) -> Result<Vec<Tensor>, Box<Diagnostic>> {
    let function = &module.functions[func];
    check_inputs(function, inputs)?;
    let results = Run {
        module,
        function,
        states,
        options,
    }
    .start(inputs)?;
    for (output, tensor) in function.outputs.iter().zip(&results) {
        if let Some(state) = output.aliases {
            states[state] = tensor.clone();
        }
    }
    Ok(results)
}

pub(crate) fn check_inputs(function: &Function, inputs: &[Tensor]) -> Result<(), Box<Diagnostic>> {
    let params = &function.bodies[function.body()].params;
    let wrong = |message: String| Box::new(Diagnostic::input(codes::WRONG_INPUTS, message));
    if params.len() != inputs.len() {
        return Err(wrong(format!(
            "function `{}` has {} inputs, {} were given",
            function.name,
            params.len(),
            inputs.len()
        )));
    }
    for (position, (value, tensor)) in params.iter().zip(inputs).enumerate() {
        let value = &function.values[*value];
        if value.ty != tensor.ty() {
            let name = value.name.clone();
            let name = name.unwrap_or_else(|| position.to_string().into());
            return Err(wrong(format!(
                "input `{name}` is {}, {} was given",
                value.ty,
                tensor.ty()
            )));
        }
    }
    Ok(())
}

struct Run<'a, 'o> {
    module: &'a Module,
    function: &'a Function,
    states: &'a States,
    options: Options<'o>,
}

/// Values that are alive.
type Env = BTreeMap<ValueId, Blocks>;

type Outcome<T> = Result<T, Box<Diagnostic>>;

fn fault(fault: Fault) -> Box<Diagnostic> {
    Box::new(match fault {
        Fault::NotHeld(message) => Diagnostic::input(codes::NOT_HELD, message),
        Fault::Differ(message) => Diagnostic::input(codes::REPLICAS_DIFFER, message),
        Fault::Other(message) => Diagnostic::new(codes::CORRUPT, Kind::Bug, message),
    })
}

/// The diagnostic at the place of a statement.
fn placed(loc: Option<&Arc<Loc>>, what: &str) -> impl Fn(Box<Diagnostic>) -> Box<Diagnostic> {
    let (loc, what) = (loc.cloned(), what.to_owned());
    move |mut diagnostic| {
        if diagnostic.place.is_none() {
            diagnostic.message = format!("{what}: {}", diagnostic.message);
            diagnostic.place = loc.clone().map(Place::Node);
        }
        diagnostic
    }
}

impl Run<'_, '_> {
    fn start(&mut self, inputs: &[Tensor]) -> Outcome<Vec<Tensor>> {
        let function = self.function;
        let body = &function.bodies[function.body()];
        let args = body.params.iter().zip(inputs).map(|(value, tensor)| {
            let layout = &function.values[*value].layout;
            self.spread(layout, tensor)
        });
        let args = args.collect::<Outcome<Vec<Blocks>>>()?;
        let results = self.body(function.body(), args)?;
        let whole = |(value, blocks): (&ValueId, Blocks)| self.whole(*value, &blocks);
        body.results.iter().zip(results).map(whole).collect()
    }

    fn grid(&self, id: GridId) -> &Grid {
        &self.module.grids[id]
    }

    /// The blocks of a layout of a tensor.
    fn spread(&self, layout: &Layout, tensor: &Tensor) -> Outcome<Blocks> {
        spread(self.module, layout, tensor)
    }

    /// The whole tensor of a value.
    fn whole(&self, value: ValueId, blocks: &Blocks) -> Outcome<Tensor> {
        whole(self.module, self.function, value, blocks)
    }

    fn body(&mut self, id: BodyId, args: Vec<Blocks>) -> Outcome<Vec<Blocks>> {
        let body = &self.function.bodies[id];
        let mut env = Env::new();
        for (param, arg) in body.params.iter().zip(args) {
            self.define(id, &mut env, *param, arg)?;
        }
        self.check_cancelled()?;
        let last_uses = last_uses(self.function, id);
        for (position, stmt) in body.stmts.iter().enumerate() {
            self.check_cancelled()?;
            self.stmt(id, stmt, &mut env)?;
            for value in last_uses.get(&position).into_iter().flatten() {
                env.remove(value);
            }
        }
        let value = |v: &ValueId| self.value(*v, &mut env);
        body.results.iter().map(value).collect()
    }

    fn check_cancelled(&self) -> Outcome<()> {
        check_cancelled(&self.options)
    }

    fn define(
        &mut self,
        body: BodyId,
        env: &mut Env,
        value: ValueId,
        blocks: Blocks,
    ) -> Outcome<()> {
        if body == self.function.body() && self.options.observe.is_some() {
            match self.whole(value, &blocks) {
                Ok(tensor) => {
                    if let Some(observe) = &mut self.options.observe {
                        observe(value, &tensor);
                    }
                }
                // A layout for one step may leave elements out.
                Err(diagnostic) if diagnostic.code.0 == codes::NOT_HELD => {}
                Err(diagnostic) => return Err(diagnostic),
            }
        }
        env.insert(value, blocks);
        Ok(())
    }

    /// The blocks of a value; those of weights and states are cut on their first use in a body.
    fn value(&self, value: ValueId, env: &mut Env) -> Outcome<Blocks> {
        if let Some(blocks) = env.get(&value) {
            return Ok(blocks.clone());
        }
        let data = &self.function.values[value];
        let tensor = match data.def {
            ValueDef::Weight(weight) => Some(weight_data(&self.module.weights[weight])?),
            ValueDef::State(state) => self.states.get(state).cloned(),
            ValueDef::Param(..) | ValueDef::Stmt(_) => None,
        };
        let Some(tensor) = tensor else {
            let message = format!("value {value} is not defined where it is used");
            return Err(Box::new(Diagnostic::new(
                codes::CORRUPT,
                Kind::Bug,
                message,
            )));
        };
        let blocks = self.spread(&data.layout, &tensor)?;
        env.insert(value, blocks.clone());
        Ok(blocks)
    }

    fn stmt(&mut self, body: BodyId, stmt: &Stmt, env: &mut Env) -> Outcome<()> {
        match stmt {
            Stmt::Group(group) => self.group(body, group, env),
            Stmt::Reshard(reshard) => {
                let input = self.value(reshard.input, env)?;
                let place = placed(reshard.loc.as_ref(), "reshard");
                let output = self
                    .reshard((reshard.input, reshard.output), input)
                    .map_err(place)?;
                self.define(body, env, reshard.output, output)
            }
            Stmt::View { input, output, .. } => {
                let mut blocks = self.value(*input, env)?;
                let layout = |v: ValueId| &self.function.values[v].layout;
                if layout(*input).view != layout(*output).view {
                    // The verifier has made sure that nothing moves.
                    blocks = self.reshard((*input, *output), blocks)?;
                }
                self.define(body, env, *output, blocks)
            }
            Stmt::Repeat(repeat) => {
                let results = self.repeat(repeat, env)?;
                for (value, blocks) in repeat.results.iter().zip(results) {
                    self.define(body, env, *value, blocks)?;
                }
                Ok(())
            }
        }
    }

    fn repeat(&mut self, repeat: &Repeat, env: &mut Env) -> Outcome<Vec<Blocks>> {
        let inits = repeat.inits.iter().map(|v| self.value(*v, env));
        let mut carried = inits.collect::<Outcome<Vec<Blocks>>>()?;
        for _ in 0..repeat.count {
            carried = self.body(repeat.body, carried)?;
        }
        Ok(carried)
    }

    fn reshard(&self, between: (ValueId, ValueId), mut blocks: Blocks) -> Outcome<Blocks> {
        let values = &self.function.values;
        let (from, to) = (&values[between.0], &values[between.1]);
        let (from_grid, to_grid) = (self.grid(from.layout.grid), self.grid(to.layout.grid));
        if from.layout.same_places(&to.layout) {
            return Ok(blocks);
        }
        // Contributions may stay apart along some axes; everything else then happens within each
        // of their positions.
        let stays = |axis: usize| to.layout.pending.iter().any(|p| p.axis == axis);
        for pending in from.layout.pending.iter().filter(|p| !stays(p.axis)) {
            blocks = combined(&blocks, from_grid, *pending);
        }
        let position = |grid: &Grid, core: u64| -> Vec<u64> {
            let at = grid.coordinates(core);
            to.layout.pending.iter().map(|p| at[p.axis]).collect()
        };
        let mut parts = BTreeMap::<Vec<u64>, Vec<u64>>::new();
        for core in 0..from_grid.size() {
            parts
                .entry(position(from_grid, core))
                .or_default()
                .push(core);
        }
        let mut wholes = BTreeMap::new();
        for (at, cores) in parts {
            let cores = cores.into_iter();
            let whole = Whole::assemble(from.ty.dtype, &from.layout, from_grid, &blocks, cores);
            wholes.insert(at, (whole.map_err(fault)?, BTreeMap::new()));
        }
        let cut = |core: u64| {
            let bounds = to.layout.block(to_grid, &to_grid.coordinates(core));
            let missing = || fault(Fault::Other("contributions are not held".into()));
            let (whole, known) = wholes
                .get_mut(&position(to_grid, core))
                .ok_or_else(missing)?;
            whole.block(&to.layout, &bounds, known).map_err(fault)
        };
        (0..to_grid.size()).map(cut).collect()
    }

    fn group(&mut self, body: BodyId, group: &Group, env: &mut Env) -> Outcome<()> {
        for step in &group.steps {
            let args = step.args.iter().map(|v| self.value(*v, env));
            let args = args.collect::<Outcome<Vec<Blocks>>>()?;
            let place = placed(step.loc.as_ref(), step.op.name());
            let results = self.step(group, step, &args).map_err(place)?;
            for (value, blocks) in step.results.iter().zip(results) {
                self.define(body, env, *value, blocks)?;
            }
        }
        Ok(())
    }

    /// The blocks of each result.
    fn step(&self, group: &Group, step: &Step, args: &[Blocks]) -> Outcome<Vec<Blocks>> {
        let types = |values: &[ValueId]| -> Vec<Type> {
            let ty = |v: &ValueId| self.function.values[*v].ty.clone();
            values.iter().map(ty).collect()
        };
        let rule = coalesced(
            &step.op,
            &types(&step.args),
            &types(&step.results),
            &step.loops,
        );
        let wrong = |m: String| Box::new(Diagnostic::input(codes::BAD_STEP, m));
        let mut work = StepWork {
            run: self,
            step,
            rule: &rule.map_err(wrong)?,
            grid: self.grid(group.grid),
            args,
            done: BTreeMap::new(),
        };
        let mut results = vec![Blocks::new(); step.results.len()];
        for core in 0..work.grid.size() {
            let blocks = work.core(core)?;
            for (all, block) in results.iter_mut().zip(blocks) {
                all.push(block);
            }
        }
        Ok(results)
    }
}

/// An error if the run was stopped from outside.
pub(crate) fn check_cancelled(options: &Options<'_>) -> Outcome<()> {
    match options.cancel {
        Some(flag) if flag.load(Ordering::Relaxed) => Err(Box::new(Diagnostic::input(
            codes::CANCELLED,
            "the run was cancelled",
        ))),
        _ => Ok(()),
    }
}

/// The blocks of a layout of a tensor.
pub(crate) fn spread(module: &Module, layout: &Layout, tensor: &Tensor) -> Outcome<Blocks> {
    let whole = Whole::of(tensor);
    whole.cut(layout, &module.grids[layout.grid]).map_err(fault)
}

/// The whole tensor of a value from its blocks.
pub(crate) fn whole(
    module: &Module,
    function: &Function,
    value: ValueId,
    blocks: &Blocks,
) -> Outcome<Tensor> {
    let data = &function.values[value];
    let grid = &module.grids[data.layout.grid];
    let mut blocks = blocks.clone();
    for pending in &data.layout.pending {
        blocks = combined(&blocks, grid, *pending);
    }
    let cores = 0..grid.size();
    let whole = Whole::assemble(data.ty.dtype, &data.layout, grid, &blocks, cores);
    let shape = data.ty.shape.as_const().unwrap_or_default();
    whole.and_then(|w| w.tensor(&shape)).map_err(fault)
}

/// The blocks of each result of a step, from those of its operands.
pub(crate) fn step(
    module: &Module,
    function: &Function,
    group: &Group,
    step: &Step,
    args: &[Blocks],
) -> Outcome<Vec<Blocks>> {
    let run = Run {
        module,
        function,
        states: &States::new(),
        options: Options::default(),
    };
    let place = placed(step.loc.as_ref(), step.op.name());
    run.step(group, step, args).map_err(place)
}

/// For every statement of a body, the values that nothing behind it needs.
fn last_uses(function: &Function, body: BodyId) -> BTreeMap<usize, Vec<ValueId>> {
    let body = &function.bodies[body];
    let mut last = BTreeMap::new();
    for (position, stmt) in body.stmts.iter().enumerate() {
        let mut used = |values: &[ValueId]| {
            values.iter().for_each(|v| {
                last.insert(*v, position);
            });
        };
        match stmt {
            Stmt::Group(group) => group.steps.iter().for_each(|step| {
                used(&step.args);
                used(&step.results);
            }),
            Stmt::Reshard(r) => used(&[r.input, r.output]),
            Stmt::View { input, output, .. } => used(&[*input, *output]),
            Stmt::Repeat(r) => {
                used(&r.inits);
                used(&r.results);
            }
        }
    }
    for value in &body.results {
        last.remove(value);
    }
    let mut by_stmt = BTreeMap::<usize, Vec<ValueId>>::new();
    for (value, position) in last {
        by_stmt.entry(position).or_default().push(value);
    }
    by_stmt
}

/// What decides the outcome of a step on a core: its iterations and the operands' blocks, by their
/// memory and box. Cores that agree in it compute the same, so one of them does.
type WorkKey = (Vec<(u64, u64)>, Vec<(usize, Vec<(u64, u64)>)>);

/// A step under way.
struct StepWork<'a, 'o> {
    run: &'a Run<'a, 'o>,
    step: &'a Step,
    rule: &'a Coalesced,
    grid: &'a Grid,
    args: &'a [Blocks],
    done: BTreeMap<WorkKey, Vec<Tensor>>,
}

/// Iterations that a core computes at one time, and the core whose block it reads of each operand.
struct Part {
    ranges: Vec<Range<u64>>,
    sources: Vec<u64>,
}

impl StepWork<'_, '_> {
    fn layout(&self, value: ValueId) -> &Layout {
        &self.run.function.values[value].layout
    }

    fn core(&mut self, core: u64) -> Outcome<Vec<Tensor>> {
        let at = self.grid.coordinates(core);
        let ranges = block(self.rule, self.grid, &self.step.split, &at);
        let parts = self.parts(core, &at, &ranges)?;
        let mut operands = vec![];
        for part in &parts {
            for ((value, blocks), source) in self.step.args.iter().zip(self.args).zip(&part.sources)
            {
                let coordinates = self.grid.coordinates(*source);
                let bounds = self.layout(*value).block(self.grid, &coordinates);
                let memory = blocks[*source as usize].bytes().as_ptr() as usize;
                operands.push((memory, key(&bounds)));
            }
        }
        let work = (key(&ranges), operands);
        if let Some(results) = self.done.get(&work) {
            return Ok(results.clone());
        }
        let results = self.compute(&at, &parts).map_err(|mut diagnostic| {
            diagnostic.notes.push(format!("on the core at {at:?}"));
            diagnostic
        })?;
        self.done.insert(work, results.clone());
        Ok(results)
    }

    /// The parts in which a core computes its block, in order of time.
    fn parts(&self, core: u64, at: &[u64], ranges: &[Range<u64>]) -> Outcome<Vec<Part>> {
        let here = vec![core; self.args.len()];
        let shift = self
            .step
            .temporal
            .iter()
            .find_map(|t| Some((t.dim, t.shift?)));
        let Some((dim, (operand, axis))) = shift else {
            return Ok(vec![Part {
                ranges: ranges.to_vec(),
                sources: here,
            }]);
        };
        let size = self.grid.axes[axis].size;
        let stride: u64 = self.grid.axes[axis + 1..].iter().map(|a| a.size).product();
        let part = |time: u64| {
            let position = (at[axis] + time) % size;
            let mut part = Part {
                ranges: ranges.to_vec(),
                sources: here.clone(),
            };
            part.ranges[dim] = part_of(&ranges[dim], size, position);
            part.sources[operand] = core - at[axis] * stride + position * stride;
            part
        };
        Ok((0..size).map(part).collect())
    }

    /// The boxes of the results on the core at `at`.
    fn result_bounds(&self, at: &[u64]) -> Vec<Vec<Range<u64>>> {
        let bounds = |v: &ValueId| self.layout(*v).block(self.grid, at);
        self.step.results.iter().map(bounds).collect()
    }

    fn compute(&self, at: &[u64], parts: &[Part]) -> Outcome<Vec<Tensor>> {
        let bounds = self.result_bounds(at);
        let types: Vec<_> = self
            .step
            .results
            .iter()
            .map(|v| self.run.function.values[*v].ty.dtype)
            .collect();
        if bounds.iter().all(|b| b.iter().any(Range::is_empty)) {
            let empty = types.iter().zip(&bounds);
            return Ok(empty
                .map(|(dtype, b)| Tensor::splat(*dtype, &extents(b), Scalar::zero(*dtype)))
                .collect());
        }
        let mut found: Option<Vec<Block>> = None;
        for part in parts {
            let blocks = match &self.rule.rule {
                StepRule::Loop(access) => self.nest(access, part)?,
                StepRule::Kernel(kernel) => self.kernel(kernel, part, &bounds)?,
            };
            found = Some(match found {
                None => blocks,
                Some(before) => self.joined(before, blocks)?,
            });
        }
        let found = found.unwrap_or_default();
        let results = found.into_iter().zip(&bounds).zip(types);
        results
            .map(|((block, bounds), dtype)| {
                if block.bounds() != signed(bounds) || block.data.dtype() != dtype {
                    let message = format!(
                        "the core computes {} elements at {:?}, its layout says {bounds:?} of {dtype}",
                        block.data.ty(),
                        block.start
                    );
                    return Err(Box::new(Diagnostic::input(codes::RESULT_LAYOUT, message)));
                }
                Ok(block.data)
            })
            .collect()
    }

    /// The part of an operand within `bounds` under the extents that the rule sees.
    fn operand(&self, number: usize, source: u64, bounds: &[Range<u64>]) -> Outcome<Block> {
        let layout = self.layout(self.step.args[number]);
        let held = layout.block(self.grid, &self.grid.coordinates(source));
        let data = &self.args[number][source as usize];
        let view = &self.rule.operands[number];
        if layout.view == *view {
            return Ok(Block {
                start: held.iter().map(|r| r.start as i64).collect(),
                data: data.clone(),
            });
        }
        Ok(Block {
            start: bounds.iter().map(|r| r.start as i64).collect(),
            data: reviewed(data, &held, &layout.view, bounds, view).map_err(fault)?,
        })
    }

    fn nest(&self, access: &Access, part: &Part) -> Outcome<Vec<Block>> {
        let wrong = |m: String| Box::new(Diagnostic::input(codes::OPERAND_LAYOUT, m));
        let mut operands = vec![];
        for (number, view) in self.rule.operands.iter().enumerate() {
            let read = operand_box(access, number, &part.ranges)
                .ok_or_else(|| wrong(format!("operand {number} has no constant index")))?;
            let read: Vec<Range<u64>> = clip(&read, view)
                .iter()
                .map(|r| r.start.unsigned_abs()..r.end.unsigned_abs())
                .collect();
            operands.push(self.operand(number, part.sources[number], &read)?);
        }
        evaluate(access, &part.ranges, &operands, &self.rule.operands).map_err(wrong)
    }

    fn kernel(
        &self,
        kernel: &Kernel,
        part: &Part,
        bounds: &[Vec<Range<u64>>],
    ) -> Outcome<Vec<Block>> {
        let mut args = vec![];
        for (number, shape) in self.rule.operands.iter().enumerate() {
            let read = kernel_reads(kernel, shape, &part.ranges, number);
            let held = self.operand(number, part.sources[number], &read)?;
            let block = held.part(&signed(&read));
            let wrong = |m: String| Box::new(Diagnostic::input(codes::OPERAND_LAYOUT, m));
            args.push(block.map_err(wrong)?.data);
        }
        let results = eval(&self.step.op, &args)
            .map_err(|e| Box::new(Diagnostic::input(e.code, e.message)))?;
        let start = |b: &Vec<Range<u64>>| b.iter().map(|r| r.start as i64).collect();
        Ok(results
            .into_iter()
            .zip(bounds)
            .map(|(data, bounds)| Block {
                start: start(bounds),
                data,
            })
            .collect())
    }

    /// The results of parts of the iterations together with those of a later part.
    fn joined(&self, before: Vec<Block>, later: Vec<Block>) -> Outcome<Vec<Block>> {
        let reduced = self.step.temporal.iter().find(|t| t.shift.is_some());
        let monoid = match (&self.rule.rule, reduced) {
            (StepRule::Loop(access), Some(temporal))
                if access.dims[temporal.dim].kind == DimKind::Reduction =>
            {
                match &access.combine {
                    Combine::Reduce(monoid, _) => Some(*monoid),
                    Combine::Assign | Combine::Scan { .. } => None,
                }
            }
            _ => None,
        };
        let pairs = before.into_iter().zip(later);
        let join = |(a, b): (Block, Block)| match monoid {
            Some(monoid) => Ok(Block {
                data: combine(monoid, &a.data, &b.data),
                start: a.start,
            }),
            None => beside(&a, &b),
        };
        let wrong = |m: String| Box::new(Diagnostic::input(codes::BAD_TEMPORAL, m));
        pairs.map(|pair| join(pair).map_err(wrong)).collect()
    }
}

/// The smallest block that holds two.
fn beside(a: &Block, b: &Block) -> Result<Block, String> {
    if a.data.is_empty() {
        return Ok(b.clone());
    }
    if b.data.is_empty() {
        return Ok(a.clone());
    }
    let pairs = a.bounds().into_iter().zip(b.bounds());
    let hull: Vec<Range<i64>> = pairs
        .map(|(a, b)| a.start.min(b.start)..a.end.max(b.end))
        .collect();
    Block::gather(a.data.dtype(), &hull, [a, b])
}

/// Part `at` of a range cut into `count` parts of lengths that differ by at most one.
pub(super) fn part_of(range: &Range<u64>, count: u64, at: u64) -> Range<u64> {
    let length = range.end - range.start;
    let part = super::layout::balanced(length, 1, count, at);
    range.start + part.start..range.start + part.end
}

fn eval(op: &Op, args: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    let types: Vec<Type> = args.iter().map(Tensor::ty).collect();
    op.infer(&types, &[]).map_err(|e| EvalError::value(e.0))?;
    let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("a step has no regions"));
    op.eval(args, &mut EvalCx::new(&mut none))
}
