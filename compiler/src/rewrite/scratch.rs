//! Small graphs of typed nodes: right sides of rules before they enter an e-graph, and the instances
//! that the soundness harness makes.

use std::collections::BTreeMap;

use dojoc_ir::ops::{Binary, Op, Unary};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::Type;
use egg::Id;

use super::facts::{Facts, Graph, Offline, add_op};
use super::full;

/// A value of a [`Scratch`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Term(pub(super) usize);

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// A value from outside: the number of a class, or of an operand.
    Leaf(usize, Facts),
    /// A node with one result.
    Op(Op, Vec<Term>, Facts),
}

/// A graph under construction; every node is typed as it is added.
#[derive(Clone, Debug)]
pub struct Scratch {
    pub(super) items: Vec<Item>,
    leaves: BTreeMap<usize, Term>,
    offline: Offline,
}

impl Scratch {
    /// An empty graph.
    pub(super) fn new(offline: Offline) -> Self {
        Self {
            items: vec![],
            leaves: BTreeMap::new(),
            offline,
        }
    }

    fn push(&mut self, item: Item) -> Term {
        self.items.push(item);
        Term(self.items.len() - 1)
    }

    /// A value from outside, by its number.
    pub(super) fn leaf(&mut self, number: usize, facts: Facts) -> Term {
        if let Some(term) = self.leaves.get(&number) {
            return *term;
        }
        let term = self.push(Item::Leaf(number, facts));
        self.leaves.insert(number, term);
        term
    }

    /// What is known of a value.
    pub(super) fn facts(&self, term: Term) -> &Facts {
        match &self.items[term.0] {
            Item::Leaf(_, facts) | Item::Op(_, _, facts) => facts,
        }
    }

    /// The type of a value.
    pub fn ty(&self, term: Term) -> &Type {
        &self.facts(term).ty
    }

    /// The extents of a value.
    pub fn dims(&self, term: Term) -> Vec<u64> {
        self.ty(term).shape.as_const().unwrap_or_default()
    }

    /// Adds a node with one result; `None` if the op refuses the operands.
    pub fn op(&mut self, op: impl Into<Op>, args: &[Term]) -> Option<Term> {
        let op = op.into();
        let known: Vec<&Facts> = args.iter().map(|t| self.facts(*t)).collect();
        let mut results = Facts::infer(&op, &known, self.offline)?;
        (results.len() == 1).then(|| self.push(Item::Op(op, args.to_vec(), results.remove(0))))
    }

    /// Adds a function of one value.
    pub fn unary(&mut self, f: UnaryFn, x: Term) -> Option<Term> {
        self.op(Unary(f), &[x])
    }

    /// Adds a function of two values.
    pub fn binary(&mut self, f: BinaryFn, a: Term, b: Term) -> Option<Term> {
        self.op(Binary(f), &[a, b])
    }

    /// Adds a value under other extents.
    pub fn reshape(&mut self, x: Term, shape: &[u64]) -> Option<Term> {
        if self.dims(x) == shape {
            return Some(x);
        }
        let shape = shape.iter().map(|d| (*d).into()).collect();
        self.op(dojoc_ir::ops::Reshape { shape }, &[x])
    }

    /// Adds a value with its dims in another order: dim i of the result is dim `perm[i]`.
    pub fn transpose(&mut self, x: Term, perm: &[usize]) -> Option<Term> {
        if perm.is_sorted() && perm.len() == self.ty(x).rank() {
            return Some(x);
        }
        let perm = perm.to_vec();
        self.op(dojoc_ir::ops::Transpose { perm }, &[x])
    }

    /// Adds a constant scalar of the element type of `like`.
    pub fn scalar(&mut self, like: Term, value: f64) -> Option<Term> {
        let dtype = self.ty(like).dtype;
        let value = Scalar::from_f64(value, dtype);
        self.op(full(&Type::scalar(dtype), value), &[])
    }

    /// Puts the value into an e-graph whose classes the leaves are.
    pub(super) fn insert(&self, root: Term, graph: &mut Graph) -> Option<Id> {
        let mut ids: Vec<Option<Id>> = vec![None; self.items.len()];
        let mut needed = vec![false; self.items.len()];
        needed[root.0] = true;
        for (n, item) in self.items.iter().enumerate().rev() {
            if let (true, Item::Op(_, args, _)) = (needed[n], item) {
                args.iter().for_each(|a| needed[a.0] = true);
            }
        }
        for (n, item) in self.items.iter().enumerate() {
            if !needed[n] {
                continue;
            }
            ids[n] = Some(match item {
                Item::Leaf(class, _) => Id::from(*class),
                Item::Op(op, args, _) => {
                    let args: Option<Vec<Id>> = args.iter().map(|a| ids[a.0]).collect();
                    add_op(graph, op, &args?)?
                }
            });
        }
        ids[root.0]
    }
}
