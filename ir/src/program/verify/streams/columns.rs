//! The entries of parameter rows, evaluated once for all cores of a region.

use foldhash::HashMap;

use super::facts::Facts;
use crate::program::{Coordinate, IndexEnv, IndexExpr, IndexNode, Program, RegionId};

/// An entry of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Column<'p> {
    /// Nothing depends on it.
    Unused,
    /// The same everywhere.
    Value(i64),
    /// It depends on the core: the number of its values.
    OfCore(u32),
    /// It depends on repeats or run parameters.
    Varies(&'p IndexExpr),
}

/// Columns of a program. Calls of equal layers have equal expressions.
#[derive(Default)]
pub(super) struct Columns<'p> {
    known: HashMap<(RegionId, &'p IndexExpr), u32>,
    /// By number and index of the core in the region; `None` where there is no value.
    values: Vec<Vec<Option<i64>>>,
}

impl<'p> Columns<'p> {
    /// The row of a call by its entries. Adds how many evaluations that took.
    pub(super) fn of(
        &mut self,
        program: &'p Program,
        on: RegionId,
        row: &'p [IndexExpr],
        facts: &Facts,
        evaluations: &mut u64,
    ) -> Vec<Column<'p>> {
        let used = |at: usize| facts.params.get(at) == Some(&true);
        let columns = row.iter().enumerate().map(|(at, expr)| match used(at) {
            true => self.column(program, on, expr, evaluations),
            false => Column::Unused,
        });
        columns.collect()
    }

    fn column(
        &mut self,
        program: &'p Program,
        on: RegionId,
        expr: &'p IndexExpr,
        evaluations: &mut u64,
    ) -> Column<'p> {
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
        let number = self.known.entry((on, expr)).or_insert_with(|| {
            let region = &program.regions[on];
            let value = |(core, index)| {
                expr.eval(&IndexEnv::of_core(index, core, &[], &[]), &program.tables)
            };
            self.values
                .push(region.cores().zip(0..).map(value).collect());
            *evaluations += region.len();
            self.values.len() as u32 - 1
        });
        Column::OfCore(*number)
    }

    /// The value of a column on a core.
    pub(super) fn value(
        &self,
        column: Column<'_>,
        program: &Program,
        env: &IndexEnv<'_>,
    ) -> Option<i64> {
        match column {
            Column::Unused => Some(0),
            Column::Value(value) => Some(value),
            Column::OfCore(number) => {
                let values = &self.values[number as usize];
                *values.get(usize::try_from(env.index).ok()?)?
            }
            Column::Varies(expr) => expr.eval(env, &program.tables),
        }
    }
}
