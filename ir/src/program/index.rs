//! Expressions over the coordinates of a core: how parameter rows, peers and shards are described
//! for all cores of a region at once.

use serde::{Deserialize, Serialize};

use super::{Table, TableId};
use crate::entity::PrimaryMap;
use crate::machine::CoreAddress;

/// A coordinate. Which ones there are depends on where the expression stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Coordinate {
    /// `i`: position of the core in the region, counted from 0.
    Index,
    /// `chip`: number of the core's chip.
    Chip,
    /// `row`: row of the core on its chip.
    Row,
    /// `column`: column of the core on its chip.
    Column,
    /// `p`: port of the sender, in the peer map of a channel family.
    Port,
    /// `k`: which of several receivers, in the peer map of a channel family.
    Branch,
    /// The counter of the enclosing `repeat` of a schedule at this depth; 0 is the outermost.
    Repeat(u8),
    /// A run parameter, by its position in [`Program::dims`](super::Program::dims).
    Dim(u16),
}

/// A node of an [`IndexExpr`]; operands are positions of earlier nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum IndexNode {
    /// A number.
    Const(i64),
    /// A coordinate.
    Coordinate(Coordinate),
    /// Sum.
    Add(u32, u32),
    /// Difference.
    Sub(u32, u32),
    /// Product.
    Mul(u32, u32),
    /// Quotient rounded towards minus infinity; the divisor must be positive.
    Div(u32, u32),
    /// Remainder of that division, never negative.
    Mod(u32, u32),
    /// The smaller.
    Min(u32, u32),
    /// The larger.
    Max(u32, u32),
    /// Entry of a table.
    Table(TableId, u32),
}

/// An integer expression, as nodes in an order in which operands come first. The last node is the
/// value. Flat, so that no input can make it recurse.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct IndexExpr {
    /// The nodes.
    pub nodes: Vec<IndexNode>,
}

/// Values of the coordinates.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexEnv<'a> {
    /// [`Coordinate::Index`].
    pub index: i64,
    /// [`Coordinate::Chip`].
    pub chip: i64,
    /// [`Coordinate::Row`].
    pub row: i64,
    /// [`Coordinate::Column`].
    pub column: i64,
    /// [`Coordinate::Port`].
    pub port: i64,
    /// [`Coordinate::Branch`].
    pub branch: i64,
    /// [`Coordinate::Repeat`], outermost first.
    pub repeats: &'a [i64],
    /// [`Coordinate::Dim`].
    pub dims: &'a [i64],
}

impl<'a> IndexEnv<'a> {
    /// The coordinates of a core at a position of a region.
    pub fn of_core(index: u64, core: CoreAddress, repeats: &'a [i64], dims: &'a [i64]) -> Self {
        Self {
            index: index as i64,
            chip: core.chip.into(),
            row: core.row.into(),
            column: core.column.into(),
            repeats,
            dims,
            ..Self::default()
        }
    }
}

/// The most nodes an expression may have.
pub const MAX_INDEX_NODES: usize = 256;

impl IndexExpr {
    /// A number.
    pub fn constant(value: i64) -> Self {
        Self {
            nodes: vec![IndexNode::Const(value)],
        }
    }

    /// A coordinate.
    pub fn coordinate(coordinate: Coordinate) -> Self {
        Self {
            nodes: vec![IndexNode::Coordinate(coordinate)],
        }
    }

    /// Two expressions under one node.
    pub fn binary(make: fn(u32, u32) -> IndexNode, a: &Self, b: &Self) -> Self {
        let mut nodes = a.nodes.clone();
        let offset = nodes.len() as u32;
        let shift = |x: u32| x + offset;
        nodes.extend(b.nodes.iter().map(|node| match *node {
            IndexNode::Const(_) | IndexNode::Coordinate(_) => *node,
            IndexNode::Add(a, b) => IndexNode::Add(shift(a), shift(b)),
            IndexNode::Sub(a, b) => IndexNode::Sub(shift(a), shift(b)),
            IndexNode::Mul(a, b) => IndexNode::Mul(shift(a), shift(b)),
            IndexNode::Div(a, b) => IndexNode::Div(shift(a), shift(b)),
            IndexNode::Mod(a, b) => IndexNode::Mod(shift(a), shift(b)),
            IndexNode::Min(a, b) => IndexNode::Min(shift(a), shift(b)),
            IndexNode::Max(a, b) => IndexNode::Max(shift(a), shift(b)),
            IndexNode::Table(table, at) => IndexNode::Table(table, shift(at)),
        }));
        let last = nodes.len() as u32 - 1;
        nodes.push(make(offset - 1, last));
        Self { nodes }
    }

    /// An entry of a table.
    pub fn table(table: TableId, at: &Self) -> Self {
        let mut nodes = at.nodes.clone();
        nodes.push(IndexNode::Table(table, nodes.len() as u32 - 1));
        Self { nodes }
    }

    /// The value, if it is a number and nothing else.
    pub fn as_constant(&self) -> Option<i64> {
        match self.nodes.as_slice() {
            [IndexNode::Const(value)] => Some(*value),
            _ => None,
        }
    }

    /// Whether tables exist, there are at most [`MAX_INDEX_NODES`] nodes, and they are a tree in
    /// postorder: operands come first, and each node but the last is the operand of one other.
    pub fn is_well_formed(&self, tables: &PrimaryMap<TableId, Table>) -> bool {
        if !(1..=MAX_INDEX_NODES).contains(&self.nodes.len()) {
            return false;
        }
        // Nodes that no other node has taken yet.
        let mut open: Vec<u32> = vec![];
        for (at, node) in self.nodes.iter().enumerate() {
            let fits = match *node {
                IndexNode::Const(_) | IndexNode::Coordinate(_) => true,
                IndexNode::Add(a, b)
                | IndexNode::Sub(a, b)
                | IndexNode::Mul(a, b)
                | IndexNode::Div(a, b)
                | IndexNode::Mod(a, b)
                | IndexNode::Min(a, b)
                | IndexNode::Max(a, b) => open.pop() == Some(b) && open.pop() == Some(a),
                IndexNode::Table(table, a) => open.pop() == Some(a) && tables.get(table).is_some(),
            };
            if !fits {
                return false;
            }
            open.push(at as u32);
        }
        open.len() == 1
    }

    /// Whether the value may differ between cores of a region (or ports or branches of a family).
    pub fn depends_on_core(&self) -> bool {
        self.nodes.iter().any(|node| {
            matches!(
                node,
                IndexNode::Coordinate(
                    Coordinate::Index
                        | Coordinate::Chip
                        | Coordinate::Row
                        | Coordinate::Column
                        | Coordinate::Port
                        | Coordinate::Branch
                )
            )
        })
    }

    /// Whether the counter of the enclosing `repeat` at a depth occurs.
    pub fn uses_repeat(&self, depth: u8) -> bool {
        self.nodes
            .contains(&IndexNode::Coordinate(Coordinate::Repeat(depth)))
    }

    /// Whether a run parameter occurs.
    pub fn uses_dim(&self, dim: u16) -> bool {
        self.nodes
            .contains(&IndexNode::Coordinate(Coordinate::Dim(dim)))
    }

    /// The value; `None` on overflow, for a divisor that is not positive, for a place outside a
    /// table, and for a coordinate that `env` lacks.
    pub fn eval(&self, env: &IndexEnv<'_>, tables: &PrimaryMap<TableId, Table>) -> Option<i64> {
        // Nearly all expressions are short.
        let mut small = [0i64; 16];
        let mut large;
        let values: &mut [i64] = if self.nodes.len() <= small.len() {
            &mut small
        } else {
            large = vec![0; self.nodes.len()];
            &mut large
        };
        for (at, node) in self.nodes.iter().enumerate() {
            let get = |x: u32| values.get(x as usize).copied();
            values[at] = match *node {
                IndexNode::Const(value) => value,
                IndexNode::Coordinate(coordinate) => match coordinate {
                    Coordinate::Index => env.index,
                    Coordinate::Chip => env.chip,
                    Coordinate::Row => env.row,
                    Coordinate::Column => env.column,
                    Coordinate::Port => env.port,
                    Coordinate::Branch => env.branch,
                    Coordinate::Repeat(depth) => *env.repeats.get(usize::from(depth))?,
                    Coordinate::Dim(dim) => *env.dims.get(usize::from(dim))?,
                },
                IndexNode::Add(a, b) => get(a)?.checked_add(get(b)?)?,
                IndexNode::Sub(a, b) => get(a)?.checked_sub(get(b)?)?,
                IndexNode::Mul(a, b) => get(a)?.checked_mul(get(b)?)?,
                IndexNode::Div(a, b) => {
                    let by = get(b).filter(|by| *by > 0)?;
                    get(a)?.div_euclid(by)
                }
                IndexNode::Mod(a, b) => {
                    let by = get(b).filter(|by| *by > 0)?;
                    get(a)?.rem_euclid(by)
                }
                IndexNode::Min(a, b) => get(a)?.min(get(b)?),
                IndexNode::Max(a, b) => get(a)?.max(get(b)?),
                IndexNode::Table(table, a) => {
                    let at = usize::try_from(get(a)?).ok()?;
                    *tables.get(table)?.values.get(at)?
                }
            };
        }
        values[..self.nodes.len()].last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluates_and_refuses() {
        let mut tables = PrimaryMap::new();
        let table = tables.push(Table {
            name: "t".into(),
            values: vec![5, 6],
        });
        let i = IndexExpr::coordinate(Coordinate::Index);
        let next = IndexExpr::binary(IndexNode::Add, &i, &IndexExpr::constant(1));
        let ring = IndexExpr::binary(IndexNode::Mod, &next, &IndexExpr::constant(2));
        let entry = IndexExpr::table(table, &ring);
        assert!(entry.is_well_formed(&tables) && entry.depends_on_core());
        let at = |index| IndexEnv {
            index,
            ..IndexEnv::default()
        };
        assert_eq!(entry.eval(&at(0), &tables), Some(6));
        assert_eq!(entry.eval(&at(3), &tables), Some(5));
        let outside = IndexExpr::table(table, &i);
        assert_eq!(outside.eval(&at(2), &tables), None);
        let by_zero = IndexExpr::binary(IndexNode::Div, &i, &IndexExpr::constant(0));
        assert_eq!(by_zero.eval(&at(2), &tables), None);
        let cyclic = IndexExpr {
            nodes: vec![IndexNode::Add(0, 0)],
        };
        assert!(!cyclic.is_well_formed(&tables));
        let shared = IndexExpr {
            nodes: vec![IndexNode::Const(1), IndexNode::Add(0, 0)],
        };
        assert!(!shared.is_well_formed(&tables));
    }
}
