//! What of a segment matters to the analysis.

use super::finding::{Findings, Problem};
use super::order::At;
use super::relocate::{Base, Relocation, bases};
use crate::entity::EntityId;
use crate::program::instr::{Access, Ref};
use crate::program::{Affine, IndexExpr, Program, Segment, Stmt, Var};

/// Facts about the text of a segment, whatever its parameters.
pub(super) struct Facts {
    /// SRAM accesses of every statement, by stream and position, in the order of the operands.
    pub(super) accesses: Vec<Vec<Vec<(Ref, Access)>>>,
    /// Which parameters addresses, extents, counts and ports depend on.
    pub(super) params: Vec<bool>,
    /// The same for run parameters.
    pub(super) dims: Vec<bool>,
    /// The same for registers.
    pub(super) registers: Vec<bool>,
    /// Where buffers lie, if that is all that their parameters say.
    pub(super) bases: Option<Vec<Base>>,
    /// Tokens with several signalling or waiting streams.
    pub(super) findings: Findings,
}

impl Facts {
    /// Collects them in one walk.
    pub(super) fn new(program: &Program, segment: &Segment) -> Self {
        let mut facts = Self {
            accesses: Vec::new(),
            params: vec![false; segment.params.len()],
            dims: vec![false; program.dims.len()],
            registers: vec![false; segment.registers.len()],
            bases: None,
            findings: Findings::default(),
        };
        for view in segment.views.iter().map(|(_, view)| view) {
            facts.depend_on(&view.offset);
            view.shape.iter().for_each(|extent| facts.depend_on(extent));
        }
        for stream in &segment.streams {
            let stmts = stream.code.iter().map(|inst| &inst.stmt);
            stmts.clone().for_each(|stmt| facts.control(stmt));
            facts.accesses.push(stmts.map(accesses).collect());
        }
        facts.bases = bases(segment, &facts.params);
        for buffer in segment.buffers.values() {
            facts.depend_on(&buffer.at);
        }
        facts.tokens(segment);
        facts
    }

    /// The entries of a row that matter.
    pub(super) fn relevant<'e>(
        &self,
        row: &'e [IndexExpr],
    ) -> impl Iterator<Item = &'e IndexExpr> + use<'e> {
        let used = self.params.clone();
        let pairs = row.iter().zip(used);
        pairs.filter(|(_, used)| *used).map(|(expr, _)| expr)
    }

    /// Run parameters with 0 for those that do not matter.
    pub(super) fn used_dims(&self, dims: &[i64]) -> Vec<i64> {
        let dims = dims.iter().zip(&self.dims);
        dims.map(|(value, used)| if *used { *value } else { 0 })
            .collect()
    }

    /// The value of a parameter of a call, from that in the key of its summary.
    pub(super) fn address(&self, param: usize, value: i64, there: &Relocation) -> i64 {
        let mut bases = self.bases.iter().flatten();
        match bases.any(|base| base.param == param) {
            true => value + there.shift(value),
            false => value,
        }
    }

    fn depend_on(&mut self, expr: &Affine) {
        for (var, _) in &expr.terms {
            let (list, index) = match var {
                Var::Param(i) => (&mut self.params, *i),
                Var::Dim(i) => (&mut self.dims, *i),
                Var::Register(i) => (&mut self.registers, *i),
                Var::Loop(_) => continue,
            };
            if let Some(used) = list.get_mut(usize::from(index)) {
                *used = true;
            }
        }
    }

    fn control(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Post { port, .. } | Stmt::Send { port, .. } | Stmt::Receive { port, .. } => {
                self.depend_on(port);
            }
            Stmt::Relay { port, to_port, .. } => {
                self.depend_on(port);
                self.depend_on(to_port);
            }
            Stmt::Loop { count, .. } => self.depend_on(count),
            _ => {}
        }
    }

    /// Finds tokens that several streams signal or wait for.
    fn tokens(&mut self, segment: &Segment) {
        for signals in [true, false] {
            let mut first: Vec<Option<At>> = vec![None; segment.tokens.len()];
            for (stream, code) in segment.streams.iter().enumerate() {
                for (inst, found) in code.code.iter().enumerate() {
                    let token = match found.stmt {
                        Stmt::Signal(token) if signals => token,
                        Stmt::Wait(token) if !signals => token,
                        _ => continue,
                    };
                    let at = At {
                        stream: stream as u8,
                        inst: inst as u32,
                    };
                    match first[token.index()] {
                        None => first[token.index()] = Some(at),
                        Some(other) if other.stream != at.stream => {
                            let problem = Problem::TokenShared { token, signals };
                            self.findings.add(at, Some(other), problem);
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }
}

/// The SRAM accesses of a statement. `post` and `recv` are not among them: they change owners.
fn accesses(stmt: &Stmt) -> Vec<(Ref, Access)> {
    match stmt {
        Stmt::Compute {
            instr, operands, ..
        } => operands
            .iter()
            .zip(instr.roles())
            .map(|(operand, role)| (*operand, role.access))
            .collect(),
        Stmt::Send { from, .. } | Stmt::DramStore { from, .. } | Stmt::Count { from, .. } => {
            vec![(*from, Access::Read)]
        }
        Stmt::DramLoad { to, .. } => vec![(*to, Access::Write)],
        _ => Vec::new(),
    }
}
