//! From GRAPH to TILED: how every op is split, and which layout every value has.
//!
//! - `problem`: a function as nodes that are loop nests, kernels or views, read from tiling rules.
//! - `candidates`: ways to split one node, alone (`candidates::own`) or as its operands are split
//!   already (`candidates::following`); `cost` prices the work of a core's block.
//! - `choose`: a beam search over the nodes in order, with the layouts of live values as state, so
//!   that what one node would gain is weighed against the reshards it causes.
//! - `build`: the chosen splits as a TILED function with explicit reshards.
//! - [`Planner`]: the prices of the search, for those who choose among forms of a part of a model.
//! - [`plan`]: the decisions as a text that people read, edit and give back.

mod build;
mod candidates;
mod choose;
mod cost;
mod grids;
pub mod plan;
mod price;
mod problem;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};

use dojoc_ir::diag::{CodeInfo, Diagnostic, Diagnostics, Kind};
use dojoc_ir::graph;
use dojoc_ir::machine::Machine;
use dojoc_ir::tiled;

pub use plan::Plan;
pub use price::Planner;

/// An op that cannot be tiled.
pub const NOT_TILED: u16 = 430;
/// Extents that are not constants.
pub const NOT_CONSTANT: u16 = 431;
/// A plan that does not fit the model.
pub const BAD_PLAN: u16 = 432;
/// Something that does not fit into memory.
pub const DOES_NOT_FIT: u16 = 433;
/// A reshard that no scheme of exchanges covers.
pub const NO_EXCHANGE: u16 = 434;
/// A plan over several chips.
pub const SEVERAL_CHIPS: u16 = 435;

/// The codes of tiling and placing with their long forms.
pub const CODES: &[CodeInfo] = &[
    CodeInfo {
        code: NOT_TILED,
        title: "An op cannot be compiled for the machine",
        explanation: "The op has no loop nest or kernel that the machine's instructions can carry out: its \
                      result depends on data in its shape, it is structured control flow, or it computes \
                      on a type for which a core has no instructions (f64). The reference interpreter \
                      (`dojoc eval`) runs it.",
    },
    CodeInfo {
        code: NOT_CONSTANT,
        title: "An extent is not a constant",
        explanation: "Tiling needs to know all extents. Bind symbolic dims with `--dim NAME=N`.",
    },
    CodeInfo {
        code: BAD_PLAN,
        title: "A plan file does not fit the model",
        explanation: "A plan file pins decisions of the mapper by the names of nodes. The message names the \
                      entry and what is wrong with it: no such node, no such loop, more parts than \
                      cores, or a loop that cannot be split. `--emit plan` prints the plan that was \
                      chosen, as a start.",
    },
    CodeInfo {
        code: DOES_NOT_FIT,
        title: "The model does not fit into the memory of the cores",
        explanation: "After all ways to lay out weights and values have been tried, a core needs more bytes \
                      than it has. The message is about the attempt that came closest: which core, at which \
                      node of the model, how many bytes too many, and the tensors that take most. It \
                      names what would help and what that changes: `--precision bf16`, a smaller batch, a \
                      finer split of a node with `--plan`.",
    },
    CodeInfo {
        code: NO_EXCHANGE,
        title: "A layout cannot be changed into another one",
        explanation: "A core may have at most 64 open peers, and no scheme of stages was found that moves \
                      this value between the two layouts that the message names. Pin another split of \
                      one of the two ops with `--plan`.",
    },
    CodeInfo {
        code: SEVERAL_CHIPS,
        title: "A plan over several chips has no routes",
        explanation: "On a machine of several chips ops are split over all of them where that is predicted to be \
                      faster; `--emit tiled` and `--emit plan` print the result. Placing, routing and emission \
                      know one chip. `--chips 1` plans for one chip.",
    },
];

/// What users decide about tiling.
#[derive(Clone, Debug)]
pub struct TileOptions {
    /// States that the beam search keeps.
    pub effort: usize,
    /// Pinned decisions.
    pub plan: Plan,
    /// Price of a byte of weights in SRAM, in cycles: above 0, splits that replicate weights less
    /// are preferred.
    pub weight_price: f64,
    /// Weights of which a core needs more bytes than this and that are replicated, are kept once
    /// among the cores that need the same part, and gathered just in time.
    pub gather_above: Option<u64>,
    /// Plan for this many chips at most, not for all of the machine.
    pub chips: Option<u64>,
    /// Bytes of a core: splits whose weights alone take more are given up.
    pub memory: Option<u64>,
}

/// Why a model has no plan or no place.
#[derive(Debug)]
pub enum Failure {
    /// A core would need at least so many bytes, more than it may; other splits may take less.
    Full(u64),
    /// Anything else.
    Found(Diagnostics),
}

impl From<Diagnostics> for Failure {
    fn from(found: Diagnostics) -> Self {
        Self::Found(found)
    }
}

impl From<Failure> for Diagnostics {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(needed) => {
                let message = format!("a core needs {needed} bytes, more than it has");
                Diagnostic::new(DOES_NOT_FIT, Kind::Limit, message).into()
            }
            Failure::Found(found) => found,
        }
    }
}

impl Default for TileOptions {
    fn default() -> Self {
        Self {
            effort: 6,
            plan: Plan::default(),
            weight_price: 0.0,
            gather_above: None,
            chips: None,
            memory: None,
        }
    }
}

/// A tiled model and the decisions that led to it.
#[derive(Clone, Debug)]
pub struct Tiled {
    /// The model.
    pub module: tiled::Module,
    /// The decisions.
    pub plan: Plan,
}

/// Tiles every function of a model for the chips of a machine. The model has been through
/// [`expand`](crate::graph::expand).
///
/// # Errors
/// Ops that cannot be tiled, all together; extents that are not constants; pinned decisions that
/// do not fit.
pub fn tile(
    module: &graph::Module,
    machine: &Machine,
    options: &TileOptions,
) -> Result<Tiled, Diagnostics> {
    let mut tiler = Tiler::new(module, machine, options.chips)?;
    let (mut module, choices) = tiler.tile(options).map_err(Diagnostics::from)?;
    keep_used(&mut module);
    let plan = tiler.plan(&choices);
    Ok(Tiled { module, plan })
}

/// What was chosen for the functions of a model, in their order.
#[derive(Debug)]
pub struct Choices(Vec<choose::Choice>);

/// Tiles a model again and again, with other prices: what does not depend on them is found once.
pub struct Tiler<'m> {
    module: &'m graph::Module,
    machine: &'m Machine,
    grids: grids::Grids,
    functions: Vec<problem::Problem<'m>>,
    memo: choose::Memo,
}

impl<'m> Tiler<'m> {
    /// Reads the rules of a model, for at most so many chips.
    ///
    /// # Errors
    /// Ops that cannot be tiled, all together; extents that are not constants.
    pub fn new(
        module: &'m graph::Module,
        machine: &'m Machine,
        chips: Option<u64>,
    ) -> Result<Self, Diagnostics> {
        let mut known = problem::Known::default();
        let functions = module.functions.values();
        let functions = functions.map(|f| problem::Problem::of(f, &mut known));
        Ok(Self {
            module,
            machine,
            grids: grids::Grids::new(machine, chips),
            functions: functions.collect::<Result<_, Diagnostics>>()?,
            memo: choose::Memo::default(),
        })
    }

    /// As [`tile`], for the chips that [`Tiler::new`] was told. The module has the grids of all searches so
    /// far, each under one id for good; [`keep_used`] takes those away that it does not need.
    ///
    /// # Errors
    /// Pinned decisions that do not fit; weights that take more memory than the options allow.
    pub fn tile(&mut self, options: &TileOptions) -> Result<(tiled::Module, Choices), Failure> {
        let mut out = tiled::Module {
            name: self.module.name.clone(),
            machine: self.machine.name.as_str().into(),
            weights: self.module.weights.clone(),
            states: self.module.states.clone(),
            ..tiled::Module::default()
        };
        let mut choices = vec![];
        let (grids, memo) = (&mut self.grids, &mut self.memo);
        for problem in &self.functions {
            options.plan.check(problem)?;
            let choice = choose::choose(problem, self.machine, (grids, memo), options)?;
            let function = build::build(problem, &choice, grids, options)?;
            out.functions.push(function);
            choices.push(choice);
        }
        out.grids = grids.list().clone();
        Ok((out, Choices(choices)))
    }

    /// The decisions of [`Self::tile`] as people read and edit them.
    pub fn plan(&self, choices: &Choices) -> Plan {
        let mut plan = Plan::default();
        for (problem, choice) in self.functions.iter().zip(&choices.0) {
            plan.add(problem, choice, &self.grids);
        }
        plan
    }

    /// Cycles that the search predicts for each function; infinite where it finds no way.
    fn cycles(&mut self, options: &TileOptions) -> Vec<f64> {
        let (grids, memo) = (&mut self.grids, &mut self.memo);
        let cycles = self.functions.iter().map(|problem| {
            let choice = choose::choose(problem, self.machine, (grids, memo), options);
            choice.map_or(f64::INFINITY, |choice| choice.cycles)
        });
        cycles.collect()
    }
}

/// The grids that values and groups of a module are on.
pub fn used_grids(module: &tiled::Module) -> BTreeSet<tiled::GridId> {
    let mut used = BTreeSet::new();
    for function in module.functions.values() {
        used.extend(function.values.values().map(|v| v.layout.grid));
        for stmt in function.bodies.values().flat_map(|b| &b.stmts) {
            if let tiled::Stmt::Group(group) = stmt {
                used.insert(group.grid);
            }
        }
    }
    used
}

/// Takes grids away that nothing in a module is on, and numbers the others anew.
pub fn keep_used(module: &mut tiled::Module) {
    let used = used_grids(module);
    let all = std::mem::take(&mut module.grids);
    let kept: BTreeMap<_, _> = (used.into_iter())
        .map(|id| (id, module.grids.push(all[id].clone())))
        .collect();
    for function in module.functions.iter_mut().map(|(_, f)| f) {
        for (_, value) in function.values.iter_mut() {
            value.layout.grid = kept[&value.layout.grid];
        }
        for stmt in function.bodies.iter_mut().flat_map(|(_, b)| &mut b.stmts) {
            if let tiled::Stmt::Group(group) = stmt {
                group.grid = kept[&group.grid];
            }
        }
    }
}
