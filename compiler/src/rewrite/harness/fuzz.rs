//! Instances of any pattern, made without knowing what the rule is about: operands of any shapes that
//! the ops accept.

use std::collections::BTreeMap;

use dojoc_ir::attr::{Attr, Attrs, F64};
use dojoc_ir::ops::{Concat, Conv, Dot, Gelu, GeluKind, LayerNorm, Op, Pad, Reduce, ReduceKind};
use dojoc_ir::ops::{Reshape, RmsNorm, Slice, Softmax, Transpose};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};

use super::super::generate::Gen;
use super::super::node::OpKind;
use super::super::rule::RuleSpec;
use super::super::scratch::Term;

/// A pattern as text says it.
enum Tree {
    Var(String),
    Op(String, Vec<Tree>),
}

fn parse(text: &str) -> Tree {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut stack: Vec<Vec<Tree>> = vec![vec![]];
    for word in words {
        match word {
            "(" => stack.push(vec![]),
            ")" => {
                let mut items = stack.pop().unwrap();
                let Tree::Var(name) = items.remove(0) else {
                    panic!("an op without a name")
                };
                stack.last_mut().unwrap().push(Tree::Op(name, items));
            }
            word => stack.last_mut().unwrap().push(Tree::Var(word.to_owned())),
        }
    }
    stack.pop().unwrap().remove(0)
}

#[derive(Default)]
struct Bound {
    values: BTreeMap<String, Term>,
    attrs: BTreeMap<String, Option<Attr>>,
}

/// An instance of one of the patterns of a rule.
pub(super) fn instance(spec: &RuleSpec, g: &mut Gen) -> Option<Term> {
    let text = g.pick(spec.patterns);
    let unary = g.any_unary().name();
    let binary = g.any_binary().name();
    let text = text.replace("{unary}", unary).replace("{binary}", binary);
    build(&parse(&text), g, &mut Bound::default())
}

fn build(tree: &Tree, g: &mut Gen, bound: &mut Bound) -> Option<Term> {
    let (name, children) = match tree {
        Tree::Var(name) => {
            return match bound.values.get(name) {
                Some(term) => Some(*term),
                None => {
                    let dims = g.shape(0, 4);
                    Some(variable(name, &dims, g, bound))
                }
            };
        }
        Tree::Op(name, children) => (name, children),
    };
    let attrs = OpKind::of(name)?.attrs();
    let (own, operands) = children.split_at(attrs.len());
    let mut terms: Vec<Option<Term>> = vec![];
    for operand in operands {
        terms.push(match operand {
            Tree::Var(name) => bound.values.get(name).copied(),
            Tree::Op(..) => Some(build(operand, g, bound)?),
        });
    }
    let model = terms.iter().flatten().next().copied();
    for (term, operand) in terms.iter_mut().zip(operands) {
        if let (None, Tree::Var(name)) = (&term, operand) {
            let dims = match model {
                Some(model) => like(&g.dims_of(model), name_of(tree), g),
                None => g.shape(1, 4),
            };
            *term = Some(variable(name, &dims, g, bound));
        }
    }
    // Operands without a model are like the first.
    let args: Vec<Term> = terms.into_iter().flatten().collect();
    let op = any_op(name, &args, g)?;
    let drawn = op.attrs();
    let mut fixed = Attrs::default();
    for (attr, var) in attrs.iter().zip(own) {
        let Tree::Var(var) = var else { return None };
        let value = bound
            .attrs
            .entry(var.clone())
            .or_insert_with(|| drawn.get(attr).cloned());
        if let Some(value) = value {
            fixed.push(attr, value.clone());
        }
    }
    g.op(Op::parse(name, &fixed)?.ok()?, &args)
}

fn name_of(tree: &Tree) -> &str {
    match tree {
        Tree::Var(name) | Tree::Op(name, _) => name,
    }
}

fn variable(name: &str, dims: &[u64], g: &mut Gen, bound: &mut Bound) -> Term {
    let constant = match g.below(4) {
        0 => {
            let value = g.pick(&[0.0, 1.0, 2.0, 0.5, 3.0, -1.0]);
            g.constant(dims, value)
        }
        _ => None,
    };
    let term = constant.unwrap_or_else(|| g.leaf(dims));
    bound.values.insert(name.to_owned(), term);
    term
}

/// Extents that an op may accept beside others.
fn like(dims: &[u64], op: &str, g: &mut Gen) -> Vec<u64> {
    if op == "pad" {
        return vec![];
    }
    if op == "conv" {
        let mut kernel: Vec<u64> = dims.iter().map(|_| 1 + g.below(2) as u64).collect();
        if let [out, channels, ..] = &mut kernel[..] {
            *out = g.dim();
            *channels = dims[1];
        }
        return kernel;
    }
    match g.below(5) {
        0 => g.broadcast(dims),
        1 => {
            let order = g.perm(dims.len());
            order.iter().map(|d| dims[*d]).collect()
        }
        2 => {
            let mut other = dims.to_vec();
            other.reverse();
            if let Some(last) = other.last_mut() {
                *last = g.dim();
            }
            other
        }
        3 => {
            let mut other = dims.to_vec();
            if !other.is_empty() {
                let at = g.below(other.len());
                other[at] = 1;
            }
            other
        }
        _ => dims.to_vec(),
    }
}

/// An op of a mnemonic with attributes that mostly fit its operands.
fn any_op(name: &str, args: &[Term], g: &mut Gen) -> Option<Op> {
    let dims: Vec<Vec<u64>> = args.iter().map(|a| g.dims_of(*a)).collect();
    let first = dims.first().cloned().unwrap_or_default();
    let rank = first.len();
    if let Some(f) = UnaryFn::parse(name) {
        return Some(dojoc_ir::ops::Unary(f).into());
    }
    if let Some(f) = BinaryFn::parse(name) {
        return Some(dojoc_ir::ops::Binary(f).into());
    }
    let axes = |g: &mut Gen| if rank == 0 { vec![] } else { g.axes(rank) };
    let axis = |g: &mut Gen| g.below(rank.max(1));
    Some(match name {
        "transpose" => Transpose { perm: g.perm(rank) }.into(),
        "reshape" => {
            let shape = g.regroup(&first);
            Reshape {
                shape: shape.into_iter().map(Into::into).collect(),
            }
            .into()
        }
        "slice" => {
            let (mut start, mut size) = (vec![], vec![]);
            for d in &first {
                let from = g.below(*d as usize) as u64;
                start.push(from.into());
                size.push((1 + g.below((d - from) as usize) as u64).into());
            }
            Slice {
                start,
                size,
                step: vec![1; rank],
            }
            .into()
        }
        "pad" => {
            let amounts = |g: &mut Gen| first.iter().map(|_| g.pick(&[0, 0, 1, -1])).collect();
            let (low, high) = (amounts(g), amounts(g));
            let interior = first.iter().map(|_| u64::from(g.once_in(5))).collect();
            Pad {
                low,
                high,
                interior,
            }
            .into()
        }
        "concat" => Concat { axis: axis(g) }.into(),
        "reduce" => {
            use ReduceKind::{Max, Min, Prod, Sum};
            let (kind, keep) = (g.pick(&[Sum, Sum, Prod, Max, Min]), g.once_in(2));
            Reduce {
                kind,
                axes: axes(g),
                keep,
            }
            .into()
        }
        "softmax" => Softmax { axis: axis(g) }.into(),
        "layer_norm" => LayerNorm {
            axes: axes(g),
            epsilon: F64(0.5),
        }
        .into(),
        "rms_norm" => RmsNorm {
            axes: axes(g),
            epsilon: F64(0.5),
        }
        .into(),
        "gelu" => Gelu {
            approximate: GeluKind::Erf,
        }
        .into(),
        "dot" => {
            let right = dims.get(1)?;
            let (mut batch, mut contract, mut used) = (vec![], vec![], vec![]);
            for l in g.perm(rank) {
                let fits = |r: &usize| right[*r] == first[l] && !used.contains(r);
                let fits: Vec<usize> = (0..right.len()).filter(fits).collect();
                if fits.is_empty() || g.once_in(2) {
                    continue;
                }
                let r = g.pick(&fits);
                used.push(r);
                if g.once_in(3) {
                    batch.push((l, r))
                } else {
                    contract.push((l, r))
                }
            }
            Dot {
                batch,
                contract,
                out: None,
            }
            .into()
        }
        "conv" => {
            let spatial = rank.checked_sub(2)?;
            let draw = |g: &mut Gen, from: &[u64]| (0..spatial).map(|_| g.pick(from)).collect();
            let (stride, dilation) = (draw(g, &[1, 1, 2, 3]), draw(g, &[1, 1, 2]));
            let pad = (0..spatial)
                .map(|_| g.pick(&[(0, 0), (0, 0), (1, 1), (1, -1)]))
                .collect();
            Conv {
                stride,
                pad,
                dilation,
                groups: 1,
                out: None,
            }
            .into()
        }
        _ => return None,
    })
}
