//! Contractions.

use dojoc_ir::ops::{Concat, Dot};
use dojoc_ir::scalar::BinaryFn;

use super::super::generate::Gen;
use super::super::rule::{Condition, Family, Fp, Match, RuleSpec};
use super::super::scratch::{Scratch, Term};
use super::structure::perm;
use super::{condition, only_along};

/// The contraction that the variables `?b`, `?c` and `?o` are the attributes of.
pub(super) fn dot(m: &Match<'_>) -> Option<Dot> {
    numbered(m, ["?b", "?c", "?o"])
}

fn numbered(m: &Match<'_>, vars: [&str; 3]) -> Option<Dot> {
    Some(Dot {
        batch: m.attr(vars[0])?,
        contract: m.attr(vars[1])?,
        out: m.attr(vars[2])?,
    })
}

/// Whether a contraction is rows times a matrix: the last dim of the left operand, of that rank, with
/// the first of a right operand of rank 2.
fn is_linear(dot: &Dot, left: usize, right: usize) -> bool {
    dot.batch.is_empty() && left > 0 && dot.contract == [(left - 1, 0)] && right == 2
}

pub(super) fn rank(m: &Match<'_>, var: &str) -> Option<usize> {
    Some(m.ty(var)?.rank())
}

/// `?x` times `?w`, and a value added or multiplied before.
pub(super) const LINEAR: Condition =
    condition("the last dim of x meets the first of a matrix w", |m| {
        Some(is_linear(&dot(m)?, rank(m, "?x")?, rank(m, "?w")?))
    });

pub(super) const ALONG_COLUMNS: Condition = condition("s varies along the last dim only", |m| {
    let rank = m.result()?.rank();
    only_along(m, "?s", rank, rank.checked_sub(1)?)
});

/// The same where x is a part of the left operand, which has as many dims as the result.
pub(super) const LINEAR_PART: Condition =
    condition("the last dim of x meets the first of a matrix w", |m| {
        Some(is_linear(&dot(m)?, m.result()?.rank(), rank(m, "?w")?))
    });

/// The rules.
pub(super) const RULES: &[RuleSpec] = &[
    RuleSpec {
        name: "dot-of-transpose",
        family: Family::Matmul,
        fp: Fp::Exact,
        doc: "transpose(x) . y = x . y along other dims, what is left being transposed",
        patterns: &[
            "(dot ?b ?c ?o (transpose ?perm ?x) ?y)",
            "(dot ?b ?c ?o ?u (transpose ?perm ?v))",
        ],
        conditions: &[],
        guards: &[],
        build: dot_of_transpose,
        generate: |g| {
            let (x, y) = operands(g);
            let (x, left) = if g.once_in(2) {
                (turned(g, x)?, true)
            } else {
                (x, false)
            };
            let y = if left { y } else { turned(g, y)? };
            let dot = any_dot(g, x, y);
            g.op(dot, &[x, y])
        },
    },
    RuleSpec {
        name: "transpose-of-dot",
        family: Family::Matmul,
        fp: Fp::Exact,
        doc: "transpose(x . y) = y . x",
        patterns: &["(transpose ?perm (dot ?b ?c ?o ?x ?y))"],
        conditions: &[condition("the free dims of x and y change places", |m| {
            let (dot, left, right) = (dot(m)?, rank(m, "?x")?, rank(m, "?y")?);
            let (batch, used) = (dot.batch.len(), dot.batch.len() + dot.contract.len());
            let (m_dims, n_dims) = (left.checked_sub(used)?, right.checked_sub(used)?);
            let swapped = (0..batch)
                .chain(batch + m_dims..batch + m_dims + n_dims)
                .chain(batch..batch + m_dims);
            Some(swapped.eq(perm(m, "?perm")?))
        })],
        guards: &[],
        build: |m, s| {
            let old = dot(m)?;
            let turn =
                |pairs: Vec<(usize, usize)>| pairs.into_iter().map(|(l, r)| (r, l)).collect();
            let new = Dot {
                batch: turn(old.batch),
                contract: turn(old.contract),
                out: old.out,
            };
            let args = [m.var("?y", s)?, m.var("?x", s)?];
            s.op(new, &args)
        },
        generate: |g| {
            let (x, y) = operands(g);
            let (left, right) = (g.dims_of(x).len(), g.dims_of(y).len());
            let dot = any_dot(g, x, y);
            let (batch, used) = (dot.batch.len(), dot.batch.len() + dot.contract.len());
            let result = g.op(dot, &[x, y])?;
            let rank = g.dims_of(result).len();
            let (m, n) = (left - used, right - used);
            let swapped = (0..batch)
                .chain(batch + m..batch + m + n)
                .chain(batch..batch + m);
            let order = if g.once_in(3) {
                g.perm(rank)
            } else {
                swapped.collect()
            };
            g.transpose(result, order)
        },
    },
    RuleSpec {
        name: "dot-to-the-right",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x . v) . w = x . (v . w)",
        patterns: &["(dot ?b ?c ?o (dot ?b1 ?c1 ?o ?x ?v) ?w)"],
        conditions: &[
            condition("x . v is rows times a matrix", |m| {
                let inner = numbered(m, ["?b1", "?c1", "?o"])?;
                Some(is_linear(&inner, rank(m, "?x")?, rank(m, "?v")?))
            }),
            condition("(x . v) . w is rows times a matrix", |m| {
                Some(is_linear(&dot(m)?, rank(m, "?x")?, rank(m, "?w")?))
            }),
        ],
        guards: &[condition("v and w are weights", |m| {
            Some(m.weight("?v") && m.weight("?w"))
        })],
        build: |m, s| {
            let (x, v, w) = (m.var("?x", s)?, m.var("?v", s)?, m.var("?w", s)?);
            let out = m.attr("?o")?;
            let product = s.op(
                Dot {
                    out,
                    ..Dot::matmul(2)
                },
                &[v, w],
            )?;
            s.op(
                Dot {
                    out,
                    ..numbered(m, ["?b1", "?c1", "?o"])?
                },
                &[x, product],
            )
        },
        generate: |g| {
            let (x, v) = linear_operands(g);
            let inner = linear_dot(g, x, v);
            let y = g.op(inner, &[x, v])?;
            let k = g.dims_of(y).last().copied()?;
            let n = g.dim();
            let w = g.leaf(&[k, n]);
            let outer = linear_dot(g, y, w);
            g.op(outer, &[y, w])
        },
    },
    RuleSpec {
        name: "sum-of-dots-of-one-left",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "x . v + x . w = x . (v + w)",
        patterns: &["(add (dot ?b ?c ?o ?x ?v) (dot ?b ?c ?o ?x ?w))"],
        conditions: &[condition("v and w have one shape", |m| {
            Some(m.dims("?v")? == m.dims("?w")?)
        })],
        guards: &[condition("v and w are weights", |m| {
            Some(m.weight("?v") && m.weight("?w"))
        })],
        build: |m, s| {
            let (x, v, w) = (m.var("?x", s)?, m.var("?v", s)?, m.var("?w", s)?);
            let sum = s.binary(BinaryFn::Add, v, w)?;
            s.op(dot(m)?, &[x, sum])
        },
        generate: |g| {
            let (x, v) = operands(g);
            let w = resembling(g, v);
            let dot = any_dot(g, x, v);
            let (a, b) = (g.op(dot.clone(), &[x, v])?, g.op(dot, &[x, w])?);
            g.either(BinaryFn::Add, a, b)
        },
    },
    RuleSpec {
        name: "sum-of-dots-of-one-right",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "x . w + y . w = (x + y) . w",
        patterns: &["(add (dot ?b ?c ?o ?x ?w) (dot ?b ?c ?o ?y ?w))"],
        conditions: &[condition("x and y have one shape", |m| {
            Some(m.dims("?x")? == m.dims("?y")?)
        })],
        guards: &[],
        build: |m, s| {
            let (x, y, w) = (m.var("?x", s)?, m.var("?y", s)?, m.var("?w", s)?);
            let sum = s.binary(BinaryFn::Add, x, y)?;
            s.op(dot(m)?, &[sum, w])
        },
        generate: |g| {
            let (x, w) = operands(g);
            let y = resembling(g, x);
            let dot = any_dot(g, x, w);
            let (a, b) = (g.op(dot.clone(), &[x, w])?, g.op(dot, &[y, w])?);
            g.either(BinaryFn::Add, a, b)
        },
    },
    RuleSpec {
        name: "concat-of-dots",
        family: Family::Matmul,
        fp: Fp::Exact,
        doc: "concat(x . v, x . w) = x . concat(v, w)",
        patterns: &["(concat ?axis (dot ?b ?c ?o ?x ?v) (dot ?b ?c ?o ?x ?w))"],
        conditions: &[],
        guards: &[condition("v and w are weights", |m| {
            Some(m.weight("?v") && m.weight("?w"))
        })],
        build: |m, s| {
            let (x, v, w) = (m.var("?x", s)?, m.var("?v", s)?, m.var("?w", s)?);
            let axis = s.ty(v).rank().checked_sub(1)?;
            let both = s.op(Concat { axis }, &[v, w])?;
            s.op(dot(m)?, &[x, both])
        },
        generate: |g| {
            let (x, v) = if g.once_in(3) {
                operands(g)
            } else {
                linear_operands(g)
            };
            let dot = if g.once_in(3) {
                any_dot(g, x, v)
            } else {
                linear_dot(g, x, v)
            };
            let mut dims = g.dims_of(v);
            if g.once_in(2)
                && let Some(last) = dims.last_mut()
            {
                *last = g.dim();
            }
            let w = g.leaf(&dims);
            let (a, b) = (g.op(dot.clone(), &[x, v])?, g.op(dot, &[x, w])?);
            let rank = g.dims_of(a).len();
            let axis = if g.once_in(4) {
                g.below(rank.max(1))
            } else {
                rank.checked_sub(1)?
            };
            g.op(Concat { axis }, &[a, b])
        },
    },
    RuleSpec {
        name: "dot-of-reshape",
        family: Family::Matmul,
        fp: Fp::Exact,
        doc: "reshape(x) . w = reshape(x . w), rows being grouped in another way",
        patterns: &["(dot ?b ?c ?o (reshape ?shape ?y) ?w)"],
        conditions: &[LINEAR_PART],
        guards: &[],
        build: |m, s| {
            let (y, w) = (m.var("?y", s)?, m.var("?w", s)?);
            let last = s.ty(y).rank().checked_sub(1)?;
            let product = s.op(
                Dot {
                    batch: vec![],
                    contract: vec![(last, 0)],
                    out: m.attr("?o")?,
                },
                &[y, w],
            )?;
            s.reshape(product, &m.result()?.shape.as_const()?)
        },
        generate: |g| {
            let (x, w) = linear_operands(g);
            let x = rows_regrouped(g, x)?;
            let dot = linear_dot(g, x, w);
            g.op(dot, &[x, w])
        },
    },
    RuleSpec {
        name: "reshape-of-dot",
        family: Family::Matmul,
        fp: Fp::Exact,
        doc: "reshape(x . w) = reshape(x) . w, rows being grouped in another way",
        patterns: &["(reshape ?shape (dot ?b ?c ?o ?x ?w))"],
        conditions: &[LINEAR],
        guards: &[],
        build: |m, s| {
            let (x, w) = (m.var("?x", s)?, m.var("?w", s)?);
            let mut rows = m.result()?.shape.as_const()?;
            *rows.last_mut()? = *s.dims(x).last()?;
            let x = s.reshape(x, &rows)?;
            let contract = vec![(rows.len() - 1, 0)];
            s.op(
                Dot {
                    batch: vec![],
                    contract,
                    out: m.attr("?o")?,
                },
                &[x, w],
            )
        },
        generate: |g| {
            let (x, w) = if g.once_in(3) {
                operands(g)
            } else {
                linear_operands(g)
            };
            let dot = if g.once_in(3) {
                any_dot(g, x, w)
            } else {
                linear_dot(g, x, w)
            };
            let y = g.op(dot, &[x, w])?;
            if g.once_in(3) {
                let dims = g.dims_of(y);
                let shape = g.regroup(&dims);
                return g.reshape(y, &shape);
            }
            rows_regrouped(g, y)
        },
    },
    RuleSpec {
        name: "sum-of-reshape-and-row",
        family: Family::Matmul,
        fp: Fp::Exact,
        doc: "reshape(x) + s = reshape(x + s)",
        patterns: &[
            "(add (reshape ?shape ?x) ?s)",
            "(add ?s (reshape ?shape ?x))",
        ],
        conditions: &[ALONG_COLUMNS],
        guards: &[condition("s is a weight", |m| Some(m.weight("?s")))],
        build: |m, s| {
            let (x, row) = (m.var("?x", s)?, m.var("?s", s)?);
            let sum = s.binary(BinaryFn::Add, x, row)?;
            s.reshape(sum, &m.result()?.shape.as_const()?)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let x = g.leaf(&dims);
            let y = if g.once_in(2) {
                let shape = g.regroup(&dims);
                g.reshape(x, &shape)?
            } else {
                rows_regrouped(g, x)?
            };
            let dims = g.dims_of(y);
            let small = g.along(&dims, dims.len().checked_sub(1)?);
            let s = g.leaf(&small);
            g.either(BinaryFn::Add, y, s)
        },
    },
];

fn dot_of_transpose(m: &Match<'_>, s: &mut Scratch) -> Option<Term> {
    let order = perm(m, "?perm")?;
    let old = dot(m)?;
    let left = m.var("?x", s).is_some();
    let moved = |pairs: &[(usize, usize)]| -> Option<Vec<(usize, usize)>> {
        let pair = |(l, r): &(usize, usize)| match left {
            true => Some((*order.get(*l)?, *r)),
            false => Some((*l, *order.get(*r)?)),
        };
        pairs.iter().map(pair).collect()
    };
    let new = Dot {
        batch: moved(&old.batch)?,
        contract: moved(&old.contract)?,
        out: old.out,
    };
    let own = |pair: &(usize, usize)| if left { pair.0 } else { pair.1 };
    let used: Vec<usize> = new.batch.iter().chain(&new.contract).map(own).collect();
    // The free dims as the result had them, and as it has them now: in the order of the operand.
    let wanted: Vec<usize> = order
        .iter()
        .copied()
        .filter(|d| !used.contains(d))
        .collect();
    let mut sorted = wanted.clone();
    sorted.sort_unstable();
    let args = match left {
        true => [m.var("?x", s)?, m.var("?y", s)?],
        false => [m.var("?u", s)?, m.var("?v", s)?],
    };
    let batch = new.batch.len();
    let product = s.op(new, &args)?;
    let rank = s.ty(product).rank();
    let first = if left {
        batch
    } else {
        rank.checked_sub(wanted.len())?
    };
    let mut back: Vec<usize> = (0..rank).collect();
    for (n, dim) in wanted.iter().enumerate() {
        back[first + n] = first + sorted.iter().position(|d| d == dim)?;
    }
    s.transpose(product, &back)
}

/// Two operands that have an extent or more in common.
pub(super) fn operands(g: &mut Gen) -> (Term, Term) {
    let dims = g.shape(1, 3);
    let order = g.perm(dims.len());
    let mut other: Vec<u64> = order.iter().map(|d| dims[*d]).collect();
    for d in &mut other {
        if g.once_in(3) {
            *d = g.dim();
        }
    }
    if g.once_in(2) && other.len() < 3 {
        other.push(g.dim());
    }
    (g.leaf(&dims), g.leaf(&other))
}

/// A contraction of two operands along dims of equal extent, of which some are batched.
pub(super) fn any_dot(g: &mut Gen, x: Term, y: Term) -> Dot {
    let (left, right) = (g.dims_of(x), g.dims_of(y));
    let (mut batch, mut contract, mut used) = (vec![], vec![], vec![]);
    for l in g.perm(left.len()) {
        let fits: Vec<usize> = (0..right.len())
            .filter(|r| right[*r] == left[l] && !used.contains(r))
            .collect();
        if fits.is_empty() || (!contract.is_empty() && g.once_in(2)) {
            continue;
        }
        let r = g.pick(&fits);
        used.push(r);
        if !contract.is_empty() && g.once_in(2) {
            batch.push((l, r));
        } else {
            contract.push((l, r));
        }
    }
    Dot {
        batch,
        contract,
        out: None,
    }
}

/// Rows and a matrix.
pub(super) fn linear_operands(g: &mut Gen) -> (Term, Term) {
    let dims = g.shape(1, 3);
    let k = dims.last().copied().unwrap_or(1);
    let n = g.dim();
    (g.leaf(&dims), g.leaf(&[k, n]))
}

/// The last dim with the first; seldom another that fits.
pub(super) fn linear_dot(g: &mut Gen, x: Term, w: Term) -> Dot {
    if g.once_in(4) {
        return any_dot(g, x, w);
    }
    let last = g.dims_of(x).len().saturating_sub(1);
    Dot {
        batch: vec![],
        contract: vec![(last, 0)],
        out: None,
    }
}

fn turned(g: &mut Gen, x: Term) -> Option<Term> {
    let order = g.perm(g.dims_of(x).len());
    g.transpose(x, order)
}

/// An operand of the shape of another, or of one that broadcasts to it.
fn resembling(g: &mut Gen, x: Term) -> Term {
    let dims = g.dims_of(x);
    let small = g.broadcast(&dims);
    let whole = g.once_in(2);
    g.leaf(if whole { &dims } else { &small })
}

/// The value with all dims but the last in other groups.
fn rows_regrouped(g: &mut Gen, x: Term) -> Option<Term> {
    let dims = g.dims_of(x);
    let (last, rows) = dims.split_last()?;
    let mut shape = g.regroup(rows);
    shape.push(*last);
    g.reshape(x, &shape)
}
