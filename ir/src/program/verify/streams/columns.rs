//! The entries of parameter rows, evaluated once for all cores of a region.

use std::collections::HashMap;
use std::sync::Arc;

use super::facts::Facts;
use crate::program::{
    Coordinate, IndexEnv, IndexExpr, IndexNode, Program, RegionId, SegmentId, Step,
};

/// An entry of a row.
#[derive(Clone, Debug)]
pub(super) enum Column<'p> {
    /// Nothing depends on it.
    Unused,
    /// The same everywhere.
    Value(i64),
    /// By the index of the core in the region; `None` where it has no value.
    OfCore(Arc<[Option<i64>]>),
    /// It depends on repeats or run parameters.
    Varies(&'p IndexExpr),
}

impl Column<'_> {
    /// The value on a core.
    pub(super) fn value(&self, program: &Program, env: &IndexEnv<'_>) -> Option<i64> {
        match self {
            Self::Unused => Some(0),
            Self::Value(value) => Some(*value),
            Self::OfCore(values) => *values.get(usize::try_from(env.index).ok()?)?,
            Self::Varies(expr) => expr.eval(env, &program.tables),
        }
    }
}

/// Columns of a program. Calls of equal layers have equal expressions.
#[derive(Default)]
pub(super) struct Columns<'p> {
    known: HashMap<(RegionId, &'p IndexExpr), Arc<[Option<i64>]>>,
}

impl<'p> Columns<'p> {
    /// The row of a call by its entries; empty for other steps.
    pub(super) fn of(
        &mut self,
        program: &'p Program,
        step: &'p Step,
        facts: impl FnOnce(SegmentId) -> Arc<Facts>,
    ) -> Vec<Column<'p>> {
        let Step::Call {
            segment, on, row, ..
        } = step
        else {
            return Vec::new();
        };
        let facts = facts(*segment);
        let used = |at: usize| facts.params.get(at) == Some(&true);
        let columns = row.iter().enumerate().map(|(at, expr)| match expr {
            _ if !used(at) => Column::Unused,
            expr => self.column(program, *on, expr),
        });
        columns.collect()
    }

    fn column(&mut self, program: &'p Program, on: RegionId, expr: &'p IndexExpr) -> Column<'p> {
        if let Some(value) = expr.as_constant() {
            return Column::Value(value);
        }
        let varies = expr.nodes.iter().any(|node| {
            matches!(
                node,
                IndexNode::Coordinate(Coordinate::Repeat(_) | Coordinate::Dim(_))
            )
        });
        if varies {
            return Column::Varies(expr);
        }
        let values = self.known.entry((on, expr)).or_insert_with(|| {
            let cores = program.regions[on].cores().zip(0..);
            let value = |(core, index)| {
                expr.eval(&IndexEnv::of_core(index, core, &[], &[]), &program.tables)
            };
            cores.map(value).collect()
        });
        Column::OfCore(values.clone())
    }
}
