//! What the statements pushed so far cost.

use dojoc_ir::machine::Machine;
use dojoc_ir::program::instr::{Ref, control};
use dojoc_ir::program::{Env, Stmt, ViewType};

use super::SegmentBuilder;

impl SegmentBuilder {
    /// Cycles of the compute instructions and loops pushed so far on a core with this parameter row,
    /// each instruction alone and one after the other. Transfers, tokens and DRAM are not counted;
    /// neither is a statement whose extents need a run parameter or register.
    pub fn cycles(&self, machine: &Machine, params: &[i64]) -> f64 {
        let streams = self.streams.values();
        streams
            .map(|stream| self.stream_cycles(stream, machine, params))
            .sum()
    }

    fn stream_cycles(&self, stream: &super::Growing, machine: &Machine, params: &[i64]) -> f64 {
        let mut total = 0.0;
        // Enclosing loops: where they end, and how often all of them together run.
        let mut open: Vec<(usize, f64)> = Vec::new();
        for (at, inst) in stream.code.iter().enumerate() {
            open.retain(|(end, _)| *end > at);
            let times = open.last().map_or(1.0, |(_, times)| *times);
            let loops = vec![0; open.len()];
            let env = Env {
                params,
                loops: &loops,
                ..Env::default()
            };
            match &inst.stmt {
                Stmt::Loop { count, len, .. } => {
                    let count = count.eval(&env).map_or(0.0, |count| count.max(0) as f64);
                    total += times * count * control::iteration_cost(machine).alone(machine);
                    open.push((at + 1 + *len as usize, times * count));
                }
                Stmt::Compute {
                    instr, operands, ..
                } => {
                    let types = operands
                        .iter()
                        .map(|operand| self.view_type(*operand, &env));
                    let types: Option<Vec<ViewType>> = types.collect();
                    let cost = types.map(|types| instr.cost(&types, machine).alone(machine));
                    total += times * cost.unwrap_or(0.0);
                }
                _ => {}
            }
        }
        total
    }

    fn view_type(&self, operand: Ref, env: &Env<'_>) -> Option<ViewType> {
        match operand {
            Ref::Buffer(buffer) => self.buffers.get(buffer)?.view_type(),
            Ref::View(view) => self.views.get(view)?.view_type(env),
        }
    }
}
