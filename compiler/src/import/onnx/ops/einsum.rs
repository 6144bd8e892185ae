//! Einsum: sums of products over named dims.

use std::collections::BTreeMap;

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Dot, GatherElements, ReduceKind};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};

pub(super) const OPS: &[OpEntry] = &[onnx("Einsum", &[(12, einsum)])];

/// The name of a dim.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Label {
    /// A dim that an ellipsis stands for, counted from its end.
    Ellipsis(usize),
    Letter(char),
}

/// A tensor whose dims have names.
#[derive(Clone)]
struct Named {
    value: ValueId,
    labels: Vec<Label>,
}

/// The names of an operand's dims before and behind its ellipsis, if there is one.
#[derive(Debug, PartialEq)]
struct Term {
    before: Vec<char>,
    behind: Option<Vec<char>>,
}

impl Term {
    fn parse(text: &str) -> NodeResult<Self> {
        let letters = |part: &str| -> NodeResult<Vec<char>> {
            if let Some(wrong) = part.chars().find(|c| !c.is_ascii_alphabetic()) {
                return Err(NodeError::invalid(format!("`{wrong}` in the equation")));
            }
            Ok(part.chars().collect())
        };
        Ok(match text.split_once("...") {
            None => Self {
                before: letters(text)?,
                behind: None,
            },
            Some((before, behind)) => Self {
                before: letters(before)?,
                behind: Some(letters(behind)?),
            },
        })
    }

    /// The names, the ellipsis standing for `extra` dims.
    fn labels(&self, extra: usize) -> Vec<Label> {
        let mut labels: Vec<Label> = self.before.iter().copied().map(Label::Letter).collect();
        if let Some(behind) = &self.behind {
            labels.extend((0..extra).rev().map(Label::Ellipsis));
            labels.extend(behind.iter().copied().map(Label::Letter));
        }
        labels
    }

    fn letters(&self) -> impl Iterator<Item = char> {
        self.before
            .iter()
            .chain(self.behind.iter().flatten())
            .copied()
    }
}

/// The terms of an equation, and the result's if it is written.
fn parse(equation: &str) -> NodeResult<(Vec<Term>, Option<Term>)> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (operands, result) = match equation.split_once("->") {
        None => (equation.as_str(), None),
        Some((operands, result)) => (operands, Some(Term::parse(result)?)),
    };
    let terms = operands
        .split(',')
        .map(Term::parse)
        .collect::<NodeResult<_>>()?;
    Ok((terms, result))
}

/// The result where the equation names none: the dims of ellipses, then the letters that occur
/// once, in order of the alphabet.
fn implicit(terms: &[Term], extra: usize) -> Vec<Label> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for letter in terms.iter().flat_map(Term::letters) {
        *counts.entry(letter).or_default() += 1;
    }
    let mut labels: Vec<Label> = (0..extra).rev().map(Label::Ellipsis).collect();
    let once = counts.into_iter().filter(|(_, count)| *count == 1);
    labels.extend(once.map(|(letter, _)| Label::Letter(letter)));
    labels
}

fn einsum(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let equation = cx.string_opt("equation")?;
    let equation = equation.ok_or_else(|| NodeError::invalid("`equation` is missing"))?;
    let (terms, result) = parse(&equation)?;
    let inputs = cx.all_inputs()?;
    if terms.len() != inputs.len() {
        let (named, found) = (terms.len(), inputs.len());
        let message = format!("the equation is of {named} operands, there are {found}");
        return Err(NodeError::invalid(message));
    }
    let mut operands = vec![];
    let mut extra = 0;
    for (term, value) in terms.iter().zip(inputs) {
        let rank = cx.rank(value);
        let under_ellipsis = rank.checked_sub(term.letters().count());
        let Some(here) = under_ellipsis.filter(|n| *n == 0 || term.behind.is_some()) else {
            let message = format!("`{equation}` does not name the dims of {}", cx.ty(value));
            return Err(NodeError::invalid(message));
        };
        extra = extra.max(here);
        let labels = term.labels(here);
        operands.push(diagonals(cx, Named { value, labels })?);
    }
    let wanted = match &result {
        Some(term) => term.labels(extra),
        None => implicit(&terms, extra),
    };
    for (position, label) in wanted.iter().enumerate() {
        let known = operands
            .iter()
            .any(|operand| operand.labels.contains(label));
        if !known || wanted[..position].contains(label) {
            let message = format!("the result of `{equation}` names a dim twice or a new one");
            return Err(NodeError::invalid(message));
        }
    }
    let mut operands = operands.into_iter();
    let mut y = operands
        .next()
        .ok_or_else(|| NodeError::invalid("there is no operand"))?;
    while let Some(next) = operands.next() {
        let later = |label: &Label| {
            wanted.contains(label) || operands.clone().any(|o| o.labels.contains(label))
        };
        y = combine(cx, y, next, &later)?;
    }
    y = sum_out(cx, y, &|label| wanted.contains(label))?;
    let place = |label: &Label| y.labels.iter().position(|l| l == label);
    let perm: Option<Vec<usize>> = wanted.iter().map(place).collect();
    let perm = perm.ok_or_else(|| NodeError::invalid("a dim of the result is missing"))?;
    let y = cx.transpose(y.value, &perm)?;
    cx.output(0, y);
    Ok(())
}

/// Where a name occurs more than once, the elements at which these dims have the same index.
fn diagonals(cx: &mut NodeCx<'_, '_>, x: Named) -> NodeResult<Named> {
    let Named {
        mut value,
        mut labels,
    } = x;
    while let Some((first, second)) = repeated(&labels) {
        let mut dims = cx.dims(value);
        if dims[first] != dims[second] {
            let message = format!("dims {first} and {second} of {} differ", cx.ty(value));
            return Err(NodeError::invalid(message));
        }
        dims[second] = Dim::Const(1);
        let index = cx.iota(DType::I64, dims, first)?;
        value = cx.op(GatherElements { axis: second }, &[value, index])?;
        value = cx.squeeze(value, &[second])?;
        labels.remove(second);
    }
    Ok(Named { value, labels })
}

/// The first two dims of one name.
fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    labels.iter().enumerate().find_map(|(second, label)| {
        let first = labels[..second].iter().position(|l| l == label)?;
        Some((first, second))
    })
}

/// Sums over the dims that are not kept.
fn sum_out(cx: &mut NodeCx<'_, '_>, x: Named, keep: &dyn Fn(&Label) -> bool) -> NodeResult<Named> {
    let gone = |label: &Label| !keep(label);
    let axes: Vec<usize> = (0..x.labels.len())
        .filter(|n| gone(&x.labels[*n]))
        .collect();
    if axes.is_empty() {
        return Ok(x);
    }
    let value = cx.reduce(ReduceKind::Sum, x.value, &axes, false)?;
    let labels = x.labels.into_iter().filter(keep).collect();
    Ok(Named { value, labels })
}

/// Drops dims of extent 1 that have another extent in `other`: there the product repeats them.
fn drop_repeated(cx: &mut NodeCx<'_, '_>, x: Named, other: &Named) -> NodeResult<Named> {
    let (dims, extents) = (cx.dims(x.value), cx.dims(other.value));
    let repeats = |axis: usize| {
        let theirs = other.labels.iter().position(|l| *l == x.labels[axis]);
        dims[axis].is(1) && theirs.is_some_and(|theirs| !extents[theirs].is(1))
    };
    let axes: Vec<usize> = (0..dims.len()).filter(|n| repeats(*n)).collect();
    let value = cx.squeeze(x.value, &axes)?;
    let kept = x
        .labels
        .iter()
        .enumerate()
        .filter(|(n, _)| !axes.contains(n));
    Ok(Named {
        value,
        labels: kept.map(|(_, label)| *label).collect(),
    })
}

/// The product of two tensors, summed over the dims that are not needed later.
fn combine(
    cx: &mut NodeCx<'_, '_>,
    a: Named,
    b: Named,
    later: &dyn Fn(&Label) -> bool,
) -> NodeResult<Named> {
    let (a, b) = (drop_repeated(cx, a.clone(), &b)?, drop_repeated(cx, b, &a)?);
    let a_labels = a.labels.clone();
    let a = sum_out(cx, a, &|label| later(label) || b.labels.contains(label))?;
    let b = sum_out(cx, b, &|label| later(label) || a_labels.contains(label))?;
    let (mut batch, mut contract) = (vec![], vec![]);
    let mut labels = vec![];
    for (left, label) in a.labels.iter().enumerate() {
        let Some(right) = b.labels.iter().position(|l| l == label) else {
            continue;
        };
        if later(label) {
            batch.push((left, right));
            labels.push(*label);
        } else {
            contract.push((left, right));
        }
    }
    let (of_a, of_b): (Vec<usize>, Vec<usize>) = batch.iter().copied().unzip();
    let free = |x: &Named, other: &Named| -> Vec<usize> {
        let own = |n: &usize| !other.labels.contains(&x.labels[*n]);
        (0..x.labels.len()).filter(own).collect()
    };
    let (free_a, free_b) = (free(&a, &b), free(&b, &a));
    labels.extend(free_a.iter().map(|n| a.labels[*n]));
    labels.extend(free_b.iter().map(|n| b.labels[*n]));
    let value = if contract.is_empty() {
        // No sum: a product that broadcasts.
        let x = cx.transpose(a.value, &[of_a, free_a].concat())?;
        let y = cx.transpose(b.value, &[of_b, free_b.clone()].concat())?;
        let ones: Vec<usize> = (cx.rank(x)..cx.rank(x) + free_b.len()).collect();
        let x = cx.unsqueeze(x, &ones)?;
        let ones: Vec<usize> = (batch.len()..cx.rank(x) - free_b.len()).collect();
        let y = cx.unsqueeze(y, &ones)?;
        cx.binary(BinaryFn::Mul, x, y)?
    } else {
        cx.op(
            Dot {
                batch,
                contract,
                out: None,
            },
            &[a.value, b.value],
        )?
    };
    Ok(Named { value, labels })
}
