//! Statements with what encloses them.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::super::{Affine, Place, Program, Segment, SegmentId, Stmt, Unit, Var};
use super::{Context, Scope, Violation};
use crate::codes;

/// Something in effect at a statement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Frame<'p> {
    /// An enclosing loop with this count.
    Loop(&'p Affine),
    /// A register that was set, with its largest value.
    Register(u16, u64),
}

/// A statement with its surroundings.
#[derive(Clone, Debug)]
pub(super) struct Site<'p> {
    pub segment: SegmentId,
    pub stream: u32,
    pub at: u32,
    pub unit: Unit,
    pub stmt: &'p Stmt,
    /// Enclosing loops and registers, in the order of the text.
    pub frames: Rc<Vec<Frame<'p>>>,
}

impl<'p> Site<'p> {
    /// Its place.
    pub fn place(&self) -> Place {
        Place::Inst(self.segment, self.stream, self.at)
    }

    /// The values of variables here, from those at the start of the stream.
    pub fn scope(&self, mut scope: Scope) -> Scope {
        for frame in self.frames.iter() {
            match frame {
                Frame::Loop(count) => scope = scope.enter(count),
                Frame::Register(register, max) => scope.set_register(*register, *max),
            }
        }
        scope
    }

    /// Parameters that decide whether the statement runs, how often, and the value of expressions.
    pub fn params<'e>(&self, exprs: impl IntoIterator<Item = &'e Affine>) -> Vec<u16> {
        let mut params = Vec::new();
        let mut add = |expr: &Affine| {
            params.extend(expr.terms.iter().filter_map(|(var, _)| match var {
                Var::Param(param) => Some(*param),
                _ => None,
            }));
        };
        for frame in self.frames.iter() {
            if let Frame::Loop(count) = frame {
                add(count);
            }
        }
        exprs.into_iter().for_each(add);
        params.sort_unstable();
        params.dedup();
        params
    }
}

/// All statements of a segment in order.
pub(super) fn sites(program: &Program, id: SegmentId) -> Vec<Site<'_>> {
    let mut all = Vec::new();
    for (stream, declared) in program.segments[id].streams.iter().enumerate() {
        let mut open: Vec<(usize, Rc<Vec<Frame<'_>>>)> = vec![(usize::MAX, Rc::default())];
        for (at, inst) in declared.code.iter().enumerate() {
            while open.len() > 1 && open.last().is_some_and(|(end, _)| *end <= at) {
                open.pop();
            }
            let frames = open
                .last()
                .map(|(_, frames)| frames.clone())
                .unwrap_or_default();
            let mut inner = frames.clone();
            all.push(Site {
                segment: id,
                stream: stream as u32,
                at: at as u32,
                unit: declared.unit,
                stmt: &inst.stmt,
                frames,
            });
            match &inst.stmt {
                Stmt::Loop { count, len, .. } => {
                    Rc::make_mut(&mut inner).push(Frame::Loop(count));
                    open.push((at + 1 + *len as usize, inner));
                }
                Stmt::Count { register, max, .. } => {
                    Rc::make_mut(&mut inner).push(Frame::Register(*register, *max));
                    if let Some(last) = open.last_mut() {
                        last.1 = inner;
                    }
                }
                _ => {}
            }
        }
    }
    all
}

impl Context<'_> {
    /// Checks something for all rows of a segment, which `params` distinguish. `check` gets the
    /// variables at the start of a stream and says what is wrong. It is asked for the hull of all rows
    /// first: what holds there holds for every row. Only if that fails, rows are taken one by one.
    pub fn for_rows(
        &mut self,
        segment: SegmentId,
        place: Place,
        params: &[u16],
        check: &mut dyn FnMut(&Scope) -> Option<Violation>,
    ) {
        let program = self.program;
        let declared: &Segment = &program.segments[segment];
        let mut hull = vec![(0, 0); declared.params.len()];
        for param in params {
            // It is never called, or has too many rows, which is reported.
            let Some(range) = self.range_of(segment, *param) else {
                return;
            };
            hull[usize::from(*param)] = range;
        }
        if check(&Scope::of_ranges(program, declared, hull)).is_none() {
            return;
        }
        let Some(rows) = self.rows_of(segment, params) else {
            return;
        };
        for row in rows.iter() {
            if !self.spend(1, place) {
                return;
            }
            if let Some(mut violation) = check(&Scope::of_row(program, declared, params, row)) {
                violation.message.push_str(", ");
                violation.message.push_str(&self.example(row));
                self.report(violation);
                return;
            }
        }
    }

    /// Takes a part of the work that the verifier may do in all; false, with a violation, if nothing
    /// is left.
    pub fn spend(&mut self, work: u64, place: Place) -> bool {
        let rest = self.work.checked_sub(work);
        if let Some(rest) = rest.filter(|_| !self.cancel.load(Ordering::Relaxed)) {
            self.work = rest;
            return true;
        }
        if !self.exhausted {
            self.exhausted = true;
            let message = "the rules take more steps to prove than the verifier is willing to do";
            let help = "let fewer parameters differ between cores, or call with fewer cores";
            self.report(Violation::new(codes::UNDECIDED, place, message).help(help));
        }
        false
    }
}
