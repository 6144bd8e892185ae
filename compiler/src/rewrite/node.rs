//! The language of e-graphs, derived from the list of ops: every mnemonic is an operator, its
//! children are one leaf per attribute of the op's schema, in order, and then the operands.
//!
//! Attributes, and values that come from outside a region, are numbers into tables that belong to one
//! e-graph and are filled in the order of the input, so that numbers do not depend on threads.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use dojoc_ir::attr::{Attr, Attrs};
use dojoc_ir::ops::Op;
use egg::{FromOp, Id, Language};

/// A mnemonic with its attributes.
struct Mnemonic {
    name: &'static str,
    attrs: Vec<&'static str>,
}

static MNEMONICS: LazyLock<Vec<Mnemonic>> = LazyLock::new(|| {
    let schema = |name| Op::schema(name).unwrap_or_default();
    let attrs = |name| schema(name).iter().map(|a| a.name).collect();
    Op::names()
        .map(|name| Mnemonic {
            name,
            attrs: attrs(name),
        })
        .collect()
});

/// A mnemonic by its position in the list of ops.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct OpKind(u16);

impl OpKind {
    /// The mnemonic of a name.
    pub fn of(name: &str) -> Option<Self> {
        let position = MNEMONICS.iter().position(|m| m.name == name)?;
        u16::try_from(position).ok().map(Self)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        MNEMONICS[usize::from(self.0)].name
    }

    /// The names of the attributes, in the order of the schema.
    pub fn attrs(self) -> &'static [&'static str] {
        &MNEMONICS[usize::from(self.0)].attrs
    }
}

/// The value of an attribute, or its absence, as a position in an [`AttrTable`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct AttrId(u32);

/// The attributes of one e-graph.
#[derive(Clone, Debug, Default)]
pub(super) struct AttrTable {
    values: Vec<Option<Attr>>,
    known: BTreeMap<Option<Attr>, AttrId>,
}

impl AttrTable {
    /// The number of a value; `None` is an optional attribute that is left out.
    pub fn intern(&mut self, value: Option<&Attr>) -> AttrId {
        let value = value.cloned();
        if let Some(id) = self.known.get(&value) {
            return *id;
        }
        let id = AttrId(self.values.len() as u32);
        self.values.push(value.clone());
        self.known.insert(value, id);
        id
    }

    /// The value of a number.
    pub fn get(&self, id: AttrId) -> Option<&Attr> {
        self.values.get(id.0 as usize)?.as_ref()
    }

    /// The op of a mnemonic with these attributes; `None` if they do not fit it.
    pub fn op(&self, kind: OpKind, attrs: &[AttrId]) -> Option<Op> {
        let mut named = Attrs::default();
        for (name, id) in kind.attrs().iter().zip(attrs) {
            if let Some(value) = self.get(*id) {
                named.push(name, value.clone());
            }
        }
        Op::parse(kind.name(), &named)?.ok()
    }

    /// The attributes of an op, one per entry of the schema.
    pub fn attrs_of(&mut self, op: &Op) -> Vec<AttrId> {
        let attrs = op.attrs();
        let names = OpKind::of(op.name()).map_or(&[][..], OpKind::attrs);
        names.iter().map(|n| self.intern(attrs.get(n))).collect()
    }
}

/// A node of an e-graph.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Node {
    /// An op: its attributes, then its operands.
    Op(OpKind, Box<[Id]>),
    /// An attribute.
    Attr(AttrId),
    /// A value that is computed outside.
    Leaf(u32),
    /// One result of an op that has several.
    Proj(u16, Id),
    /// All values that are used outside: the root.
    Tuple(Box<[Id]>),
}

impl Node {
    /// The operands of an op, without its attributes; of another node its children.
    pub fn operands(&self) -> &[Id] {
        match self {
            Node::Op(kind, children) => &children[kind.attrs().len()..],
            other => other.children(),
        }
    }
}

/// What two nodes must have in common for the same pattern to match both.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Shape {
    Op(OpKind, usize),
    Attr(AttrId),
    Leaf(u32),
    Proj(u16),
    Tuple(usize),
}

impl Language for Node {
    type Discriminant = Shape;

    fn discriminant(&self) -> Shape {
        match self {
            Node::Op(kind, children) => Shape::Op(*kind, children.len()),
            Node::Attr(attr) => Shape::Attr(*attr),
            Node::Leaf(leaf) => Shape::Leaf(*leaf),
            Node::Proj(position, _) => Shape::Proj(*position),
            Node::Tuple(children) => Shape::Tuple(children.len()),
        }
    }

    fn matches(&self, other: &Self) -> bool {
        self.discriminant() == other.discriminant()
    }

    fn children(&self) -> &[Id] {
        match self {
            Node::Op(_, children) | Node::Tuple(children) => children,
            Node::Proj(_, child) => std::slice::from_ref(child),
            Node::Attr(_) | Node::Leaf(_) => &[],
        }
    }

    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Node::Op(_, children) | Node::Tuple(children) => children,
            Node::Proj(_, child) => std::slice::from_mut(child),
            Node::Attr(_) | Node::Leaf(_) => &mut [],
        }
    }
}

/// Patterns name ops only: attributes and operands in them are variables.
impl FromOp for Node {
    type Error = String;

    fn from_op(name: &str, children: Vec<Id>) -> Result<Self, String> {
        let kind = OpKind::of(name).ok_or_else(|| format!("there is no op `{name}`"))?;
        let attrs = kind.attrs().len();
        if children.len() < attrs {
            return Err(format!("`{name}` has {attrs} attributes"));
        }
        Ok(Node::Op(kind, children.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_survives_the_way_through_the_language() {
        let mut table = AttrTable::default();
        let mut ops = 0;
        for sample in Op::samples() {
            let attrs = table.attrs_of(&sample.op);
            let kind = OpKind::of(sample.op.name()).unwrap();
            assert_eq!(attrs.len(), kind.attrs().len());
            assert_eq!(table.op(kind, &attrs), Some(sample.op));
            ops += 1;
        }
        assert!(ops > 200, "{ops}");
    }

    #[test]
    fn patterns_refuse_what_is_no_op() {
        type Pattern = egg::Pattern<Node>;
        assert!("(transpose ?perm ?x)".parse::<Pattern>().is_ok());
        assert!("(transpose)".parse::<Pattern>().is_err());
        assert!("(no_such_op ?x)".parse::<Pattern>().is_err());
    }
}
