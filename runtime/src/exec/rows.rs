//! Parameter rows in the form that workers evaluate.

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::program::{Coordinate, IndexEnv, IndexExpr, IndexNode, Table, TableId};

/// An entry of a row. Nearly all are one of the first two, which every core of a call evaluates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// The same for all cores.
    Value(i64),
    /// By index of the core in the region.
    Column(&'a [i64]),
    /// Anything else.
    Formula(&'a IndexExpr),
}

impl<'a> Cell<'a> {
    pub(super) fn new(expr: &'a IndexExpr, tables: &'a PrimaryMap<TableId, Table>) -> Self {
        const INDEX: IndexNode = IndexNode::Coordinate(Coordinate::Index);
        match expr.nodes[..] {
            [IndexNode::Const(value)] => Self::Value(value),
            [INDEX, IndexNode::Table(table, 0)] => match tables.get(table) {
                Some(table) => Self::Column(&table.values),
                None => Self::Formula(expr),
            },
            _ => Self::Formula(expr),
        }
    }

    /// Its value; `None` where it has none.
    #[inline]
    pub(super) fn eval(
        &self,
        env: &IndexEnv<'_>,
        tables: &PrimaryMap<TableId, Table>,
    ) -> Option<i64> {
        match self {
            Self::Value(value) => Some(*value),
            Self::Column(values) => values.get(usize::try_from(env.index).ok()?).copied(),
            Self::Formula(expr) => expr.eval(env, tables),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_worth_what_their_formulas_are() {
        let mut tables = PrimaryMap::new();
        let table = tables.push(Table {
            name: "t".into(),
            values: vec![7, -8, 9],
        });
        let index = IndexExpr::coordinate(Coordinate::Index);
        let row = IndexExpr::coordinate(Coordinate::Row);
        let next = IndexExpr::binary(IndexNode::Add, &index, &IndexExpr::constant(1));
        let exprs = [
            IndexExpr::constant(-3),
            index.clone(),
            IndexExpr::table(table, &index),
            IndexExpr::table(table, &next),
            IndexExpr::table(table, &row),
        ];
        for index in -1..5 {
            let env = IndexEnv {
                index,
                row: 1,
                ..IndexEnv::default()
            };
            for expr in &exprs {
                let cell = Cell::new(expr, &tables);
                assert_eq!(cell.eval(&env, &tables), expr.eval(&env, &tables));
            }
        }
        assert_eq!(Cell::new(&exprs[0], &tables), Cell::Value(-3));
        assert_eq!(Cell::new(&exprs[2], &tables), Cell::Column(&[7, -8, 9]));
        assert!(matches!(Cell::new(&exprs[4], &tables), Cell::Formula(_)));
    }
}
