//! The order in which the text form numbers what has no name there.

use std::collections::BTreeMap;

use super::instr::Ref;
use super::{LocId, Program, Segment, Step, Stmt, ViewId};

impl Program {
    /// Numbers views and source locations in the order in which they stand in the text form, so that
    /// reading back what was printed gives an equal program, and the same file. Locations that nothing
    /// comes from are gone, and so are views without a definition.
    pub fn number(&mut self) {
        let known = std::mem::take(&mut self.locs);
        let mut numbers: BTreeMap<LocId, LocId> = BTreeMap::new();
        let locs = &mut self.locs;
        let mut visit = |loc: &mut Option<LocId>| {
            if let Some(id) = loc
                && let Some(known) = known.get(*id)
            {
                let number = numbers.entry(*id);
                *id = *number.or_insert_with(|| locs.push(known.clone()));
            }
        };
        for (_, family) in self.families.iter_mut() {
            visit(&mut family.loc);
        }
        for (_, tensor) in self.tensors.iter_mut() {
            visit(&mut tensor.loc);
        }
        for (_, segment) in self.segments.iter_mut() {
            segment.number_views();
            visit(&mut segment.loc);
            for (_, buffer) in segment.buffers.iter_mut() {
                visit(&mut buffer.loc);
            }
            let code = segment.streams.iter_mut().flat_map(|s| &mut s.code);
            code.for_each(|inst| visit(&mut inst.loc));
        }
        for (_, entry) in self.entries.iter_mut() {
            for step in &mut entry.steps {
                if let Step::Call { loc, .. } = step {
                    visit(loc);
                }
            }
        }
    }
}

impl Segment {
    fn number_views(&mut self) {
        let known = std::mem::take(&mut self.views);
        let mut numbers: BTreeMap<ViewId, ViewId> = BTreeMap::new();
        let code = || self.streams.iter().flat_map(|stream| &stream.code);
        for inst in code() {
            if let Stmt::View(id) = inst.stmt
                && let Some(known) = known.get(id)
            {
                let views = &mut self.views;
                let number = numbers.entry(id);
                number.or_insert_with(|| views.push(known.clone()));
            }
        }
        let renumber = |id: &mut ViewId| {
            if let Some(number) = numbers.get(id) {
                *id = *number;
            }
        };
        for inst in self.streams.iter_mut().flat_map(|s| &mut s.code) {
            if let Stmt::View(id) = &mut inst.stmt {
                renumber(id);
            }
            for operand in inst.stmt.operands_mut() {
                if let Ref::View(id) = operand {
                    renumber(id);
                }
            }
        }
    }
}
