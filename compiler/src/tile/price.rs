//! What forms of a part of a model cost, as the search sees it.

use dojoc_ir::graph::Module;
use dojoc_ir::machine::Machine;
use dojoc_ir::ops::Op;
use dojoc_ir::types::Type;

use super::{TileOptions, Tiler};
use crate::pass::{Run, RunOptions};
use crate::pipeline;
use crate::rewrite::cost::{Candidate, NodeCost, Roofline};

/// Prices for equality saturation: bounds of single ops propose forms, and the search for splits and
/// layouts decides which of them to take, if any.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'m> {
    machine: &'m Machine,
    bounds: Roofline<'m>,
}

impl<'m> Planner<'m> {
    /// The prices on one chip of a machine.
    pub fn new(machine: &'m Machine) -> Self {
        Self {
            machine,
            bounds: Roofline::new(machine),
        }
    }

    /// Cycles of each form; `None` if the search knows none of them.
    fn cycles(&self, candidates: &[Candidate]) -> Option<Vec<f64>> {
        let mut all = Module::default();
        for candidate in candidates {
            let options = RunOptions {
                verify: false,
                ..RunOptions::default()
            };
            let passes = pipeline::LOWER.iter().map(|step| step.pass);
            let lowered = Run::new(options)
                .graph(passes, candidate.model.clone())
                .ok()?;
            // The search knows weights by their types in functions, so that tables are not needed.
            all.functions
                .push(lowered.functions.values().next()?.clone());
        }
        let mut tiler = Tiler::new(&all, self.machine, Some(1)).ok()?;
        Some(tiler.cycles(&TileOptions::default()))
    }
}

impl NodeCost for Planner<'_> {
    fn node(&self, op: &Op, args: &[Type], results: &[Type]) -> f64 {
        self.bounds.node(op, args, results)
    }

    fn weight(&self, ty: &Type) -> f64 {
        self.bounds.weight(ty)
    }

    fn arbitrate(&self, candidates: &[Candidate]) -> usize {
        let Some(cycles) = self.cycles(candidates) else {
            return 0;
        };
        let best = (0..cycles.len()).min_by(|a, b| cycles[*a].total_cmp(&cycles[*b]));
        best.unwrap_or(0)
    }
}
