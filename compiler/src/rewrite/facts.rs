//! What is known of every class of an e-graph: type, whether it can be computed before the run,
//! the one value of all its elements, its sign.

use dojoc_ir::ops::{Binary, Full, Op, ReduceKind, Unary};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::Type;
use egg::{Analysis, DidMerge, EGraph, Id};

use super::cost::points;
use super::full;
use super::node::{AttrId, AttrTable, Node, OpKind};
use crate::graph::draws_random_bits;

/// What is known of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Its type.
    pub ty: Type,
    /// Whether it depends on weights alone and is small enough to be computed when compiling.
    pub weight: bool,
    /// The value of all its elements, if they have one.
    pub splat: Option<Scalar>,
    /// Whether no element is below zero (it may be NaN, or a zero of either sign).
    pub non_negative: bool,
}

/// Bounds of what is computed when compiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// Largest result, in bytes.
    pub bytes: u64,
    /// Largest number of points of the loops of one node.
    pub points: u64,
}

impl Facts {
    /// The facts of the results of a node without regions; `None` if the op refuses the operands, or
    /// the extents of a result are unknown or zero.
    pub fn infer(op: &Op, args: &[&Facts], offline: Offline) -> Option<Vec<Facts>> {
        let types: Vec<Type> = args.iter().map(|f| f.ty.clone()).collect();
        let results = op.infer(&types, &[]).ok()?;
        if results.iter().any(|ty| !Self::sized(ty)) {
            return None;
        }
        let small = |ty: &Type| ty.max_bytes().is_some_and(|bytes| bytes <= offline.bytes);
        let weight = args.iter().all(|f| f.weight)
            && results.iter().all(small)
            && points(op, &types).is_some_and(|points| points <= offline.points)
            && !draws_random_bits(op, &types);
        let one = results.len() == 1;
        let splat = one.then(|| splat(op, args)).flatten();
        let non_negative = one && non_negative(op, args, splat);
        let facts = results.into_iter().map(|ty| Facts {
            ty,
            weight,
            splat,
            non_negative,
        });
        Some(facts.collect())
    }

    /// Whether the extents of a type are known and none is zero.
    pub fn sized(ty: &Type) -> bool {
        ty.shape
            .as_const()
            .is_some_and(|shape| !shape.contains(&0) && ty.addressable())
    }
}

/// The value of all elements of a result.
fn splat(op: &Op, args: &[&Facts]) -> Option<Scalar> {
    let same = || args.first()?.splat;
    match (op, args) {
        (Op::Full(Full { dtype, value, .. }), _) => Some(value.to_scalar(*dtype)),
        (Op::Unary(Unary(f)), [x]) => Some(f.apply(x.splat?, x.ty.dtype)),
        (Op::Binary(Binary(f)), [a, b]) => Some(f.apply(a.splat?, b.splat?, a.ty.dtype)),
        (Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_) | Op::Slice(_), _) => same(),
        _ => None,
    }
}

fn non_negative(op: &Op, args: &[&Facts], splat: Option<Scalar>) -> bool {
    let arg = |n: usize| args.get(n).is_some_and(|f| f.non_negative);
    if let Some(value) = splat {
        return value.to_f64() >= 0.0;
    }
    let float = args.first().is_some_and(|f| f.ty.dtype.is_float());
    match op {
        Op::Unary(Unary(f)) => match f {
            UnaryFn::Exp | UnaryFn::Sqrt | UnaryFn::Rsqrt | UnaryFn::Sigmoid => true,
            UnaryFn::Abs => float,
            _ => false,
        },
        Op::Binary(Binary(f)) => match f {
            BinaryFn::Add | BinaryFn::Mul | BinaryFn::Div => float && arg(0) && arg(1),
            BinaryFn::Max => arg(0) || arg(1),
            BinaryFn::Min => arg(0) && arg(1),
            _ => false,
        },
        Op::Softmax(_) => true,
        Op::Reduce(reduce) => match reduce.kind {
            ReduceKind::Sum | ReduceKind::Prod => float && arg(0),
            ReduceKind::Max | ReduceKind::Min => arg(0),
        },
        Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_) | Op::Slice(_) => arg(0),
        Op::Concat(_) => args.iter().all(|f| f.non_negative),
        _ => false,
    }
}

/// What a class stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// An attribute.
    Attr(AttrId),
    /// A value.
    Value(Facts),
    /// The results of an op that has several.
    Values(Vec<Facts>),
    /// The root, or a node that could not be typed (which is an error).
    Nothing,
}

/// The analysis, and the tables of one e-graph.
#[derive(Clone, Debug)]
pub(super) struct Knowledge {
    /// The attributes.
    pub attrs: AttrTable,
    /// The values from outside.
    pub leaves: Vec<Facts>,
    /// Bounds of what counts as a weight.
    pub offline: Offline,
    /// Equalities that can not be: defects of rules.
    pub errors: Vec<String>,
    /// The class whose match is being replaced.
    pub matched: Option<Id>,
    /// Classes that rules made: (class, what was matched).
    pub born: Vec<(Id, Id)>,
}

/// An e-graph of tensors.
pub(super) type Graph = EGraph<Node, Knowledge>;

impl Knowledge {
    /// The analysis of an e-graph with these leaves.
    pub fn new(leaves: Vec<Facts>, offline: Offline) -> Self {
        Self {
            attrs: AttrTable::default(),
            leaves,
            offline,
            errors: vec![],
            matched: None,
            born: vec![],
        }
    }
}

/// The facts of a class that stands for one value.
pub(super) fn facts(graph: &Graph, class: Id) -> Option<&Facts> {
    match &graph[class].data {
        Data::Value(facts) => Some(facts),
        _ => None,
    }
}

/// The op of a node of the graph.
pub(super) fn op_of(graph: &Graph, kind: OpKind, children: &[Id]) -> Option<Op> {
    let attr = |id: &Id| match graph[*id].data {
        Data::Attr(attr) => Some(attr),
        _ => None,
    };
    let attrs: Option<Vec<AttrId>> = children[..kind.attrs().len()].iter().map(attr).collect();
    graph.analysis.attrs.op(kind, &attrs?)
}

/// Adds an op without regions and returns its class.
pub(super) fn add_op(graph: &mut Graph, op: &Op, args: &[Id]) -> Option<Id> {
    let kind = OpKind::of(op.name())?;
    let attrs = graph.analysis.attrs.attrs_of(op);
    let mut children: Vec<Id> = attrs
        .into_iter()
        .map(|attr| graph.add(Node::Attr(attr)))
        .collect();
    children.extend(args);
    Some(graph.add(Node::Op(kind, children.into())))
}

fn make(graph: &Graph, node: &Node) -> Option<Data> {
    Some(match node {
        Node::Attr(attr) => Data::Attr(*attr),
        Node::Leaf(leaf) => Data::Value(graph.analysis.leaves.get(*leaf as usize)?.clone()),
        Node::Tuple(_) => Data::Nothing,
        Node::Proj(position, of) => match &graph[*of].data {
            Data::Values(facts) => Data::Value(facts.get(usize::from(*position))?.clone()),
            _ => return None,
        },
        Node::Op(kind, children) => {
            let op = op_of(graph, *kind, children)?;
            let args: Option<Vec<&Facts>> =
                node.operands().iter().map(|c| facts(graph, *c)).collect();
            let mut results = Facts::infer(&op, &args?, graph.analysis.offline)?;
            if results.len() == 1 {
                Data::Value(results.remove(0))
            } else {
                Data::Values(results)
            }
        }
    })
}

impl Analysis<Node> for Knowledge {
    type Data = Data;

    fn make(graph: &mut Graph, node: &Node, id: Id) -> Data {
        if let Some(matched) = graph.analysis.matched {
            graph.analysis.born.push((id, matched));
        }
        match make(graph, node) {
            Some(data) => data,
            None => {
                let message = format!("a node can not be typed: {node:?}");
                graph.analysis.errors.push(message);
                Data::Nothing
            }
        }
    }

    fn merge(&mut self, to: &mut Data, from: Data) -> DidMerge {
        let before = to.clone();
        match (&mut *to, &from) {
            (Data::Value(a), Data::Value(b)) if a.ty == b.ty => {
                a.weight |= b.weight;
                a.non_negative |= b.non_negative;
                a.splat = a.splat.or(b.splat);
            }
            (a, b) if *a == *b => {}
            (a, b) => self.errors.push(format!("{a:?} was made equal to {b:?}")),
        }
        DidMerge(*to != before, *to != from)
    }

    /// A value whose elements are all equal is also the constant.
    fn modify(graph: &mut Graph, id: Id) {
        let Some(known) = facts(graph, id) else {
            return;
        };
        let Some(value) = known.splat.filter(|v| !v.to_f64().is_nan()) else {
            return;
        };
        let op = full(&known.ty, value);
        let constant = |node: &Node| matches!(node, Node::Op(kind, _) if kind.name() == op.name());
        if op.infer(&[], &[]).is_err() || graph[id].iter().any(constant) {
            return;
        }
        if let Some(constant) = add_op(graph, &op, &[]) {
            graph.union(id, constant);
        }
    }
}
