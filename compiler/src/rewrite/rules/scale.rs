//! Factors and summands before and after contractions, and among themselves.

use dojoc_ir::ops::{Broadcast, Dot};
use dojoc_ir::scalar::BinaryFn;

use super::super::generate::Gen;
use super::super::rule::{Condition, Family, Fp, Match, RuleSpec};
use super::super::scratch::{Scratch, Term};
use super::matmul::{
    ALONG_COLUMNS, LINEAR, LINEAR_PART, any_dot, dot, linear_dot, linear_operands, operands, rank,
};
use super::{condition, is_float, one_element, padded, trimmed};

/// Whether the rows of the left operand stay where they are in the result: batch dims first, then
/// free dims, and one free dim of the right operand instead of the last.
fn keeps_rows(dot: &Dot, left: usize, right: usize) -> bool {
    let batch = dot.batch.len();
    let leading = dot.batch.iter().enumerate().all(|(n, (l, _))| n == *l);
    leading
        && batch < left
        && right == batch + 2
        && dot.contract.len() == 1
        && dot.contract[0].0 == left - 1
}

const LIGHT: Condition = condition("w and the other operand are weights", |m| {
    Some(m.weight("?w") && m.weight("?s"))
});

const WEIGHTS: Condition = condition("c and s are weights", |m| {
    Some(m.weight("?c") && m.weight("?s"))
});

const ONE: Condition = condition("s has one element", |m| one_element(m, "?s"));

const ROWS_STAY: Condition = condition("the rows of x stay in their place", |m| {
    Some(keeps_rows(&dot(m)?, m.result()?.rank(), rank(m, "?w")?))
});

const ONE_PER_ROW: Condition = condition("the last extent of s is 1", |m| {
    Some(m.dims("?s")?.last().is_none_or(|d| *d == 1))
});

/// The rules.
pub(super) const RULES: &[RuleSpec] = &[
    RuleSpec {
        name: "scalar-out-of-dot",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x * s) . w = (x . w) * s",
        patterns: &[
            "(dot ?b ?c ?o (mul ?x ?s) ?w)",
            "(dot ?b ?c ?o (mul ?s ?x) ?w)",
        ],
        conditions: &[ONE],
        guards: &[],
        build: |m, s| {
            let (x, w, scale) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
            let product = s.op(dot(m)?, &[x, w])?;
            let scale = trimmed(s, scale)?;
            s.binary(BinaryFn::Mul, product, scale)
        },
        generate: |g| {
            let (x, w) = operands(g);
            let dims = g.dims_of(x);
            let small = g.broadcast(&dims);
            let s = g.leaf(&small);
            let y = g.either(BinaryFn::Mul, x, s)?;
            let dot = any_dot(g, y, w);
            g.op(dot, &[y, w])
        },
    },
    RuleSpec {
        name: "scalar-into-dot",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x . w) * s = x . (w * s) = (x * s) . w",
        patterns: &[
            "(mul (dot ?b ?c ?o ?x ?w) ?s)",
            "(mul ?s (dot ?b ?c ?o ?x ?w))",
            "(mul (dot ?b ?c ?o ?v ?y) ?s)",
        ],
        conditions: &[ONE],
        guards: &[condition("s is a weight", |m| Some(m.weight("?s")))],
        build: |m, s| {
            let scale = m.var("?s", s)?;
            let scale = trimmed(s, scale)?;
            if let Some(v) = m.var("?v", s) {
                let (v, y) = (s.binary(BinaryFn::Mul, v, scale)?, m.var("?y", s)?);
                return s.op(dot(m)?, &[v, y]);
            }
            let (x, w) = (m.var("?x", s)?, m.var("?w", s)?);
            let w = s.binary(BinaryFn::Mul, w, scale)?;
            s.op(dot(m)?, &[x, w])
        },
        generate: |g| {
            let (x, w) = operands(g);
            let dot = any_dot(g, x, w);
            let y = g.op(dot, &[x, w])?;
            let dims = g.dims_of(y);
            let small = g.broadcast(&dims);
            let s = g.leaf(&small);
            g.either(BinaryFn::Mul, y, s)
        },
    },
    RuleSpec {
        name: "columns-scaled",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x . w) * s = x . (w * s), s per column",
        patterns: &[
            "(mul (dot ?b ?c ?o ?x ?w) ?s)",
            "(mul ?s (dot ?b ?c ?o ?x ?w))",
        ],
        conditions: &[LINEAR, ALONG_COLUMNS],
        guards: &[LIGHT],
        build: |m, s| {
            let (x, w, scale) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
            let scale = trimmed(s, scale)?;
            let w = s.binary(BinaryFn::Mul, w, scale)?;
            s.op(dot(m)?, &[x, w])
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
            let dims = g.dims_of(y);
            let small = g.along(&dims, dims.len().checked_sub(1)?);
            let s = g.leaf(&small);
            g.either(BinaryFn::Mul, y, s)
        },
    },
    RuleSpec {
        name: "gain-into-matrix",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x * s) . w = x . (s' * w), s along the contracted dim",
        patterns: &[
            "(dot ?b ?c ?o (mul ?x ?s) ?w)",
            "(dot ?b ?c ?o (mul ?s ?x) ?w)",
        ],
        conditions: &[LINEAR_PART, ALONG_COLUMNS],
        guards: &[LIGHT],
        build: |m, s| {
            let (x, w, scale) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
            let scale = trimmed(s, scale)?;
            let row = padded(&s.dims(scale), 2)?;
            let row = s.reshape(scale, &row)?;
            let column = s.transpose(row, &[1, 0])?;
            let w = s.binary(BinaryFn::Mul, column, w)?;
            s.op(dot(m)?, &[x, w])
        },
        generate: |g| before_linear(g, BinaryFn::Mul),
    },
    RuleSpec {
        name: "shift-through-matrix",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x + s) . w = x . w + s . w",
        patterns: &[
            "(dot ?b ?c ?o (add ?x ?s) ?w)",
            "(dot ?b ?c ?o (add ?s ?x) ?w)",
        ],
        conditions: &[LINEAR_PART],
        guards: &[LIGHT],
        build: |m, s| {
            let (x, w, shift) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
            let mut rows = s.dims(shift);
            rows.pop();
            rows.push(*s.dims(w).first()?);
            let last = rows.len() - 1;
            let shape = rows.into_iter().map(Into::into).collect();
            let rows = s.op(Broadcast { shape }, &[shift])?;
            let (contract, out) = (vec![(last, 0)], m.attr("?o")?);
            let shift = s.op(
                Dot {
                    batch: vec![],
                    contract,
                    out,
                },
                &[rows, w],
            )?;
            let product = s.op(dot(m)?, &[x, w])?;
            s.binary(BinaryFn::Add, product, shift)
        },
        generate: |g| before_linear(g, BinaryFn::Add),
    },
    RuleSpec {
        name: "divide-late",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x / s) . w = (x . w) / s, s per row",
        patterns: &["(dot ?b ?c ?o (div ?x ?s) ?w)"],
        conditions: &[
            ROWS_STAY,
            ONE_PER_ROW,
            condition("integers do not round", |m| is_float(m, "?x")),
        ],
        guards: &[],
        build: |m, s| row_factor(m, s, BinaryFn::Div),
        generate: |g| scaled_rows(g, BinaryFn::Div),
    },
    RuleSpec {
        name: "scale-late",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x * s) . w = (x . w) * s, s per row",
        patterns: &[
            "(dot ?b ?c ?o (mul ?x ?s) ?w)",
            "(dot ?b ?c ?o (mul ?s ?x) ?w)",
        ],
        conditions: &[ROWS_STAY, ONE_PER_ROW],
        guards: &[],
        build: |m, s| row_factor(m, s, BinaryFn::Mul),
        generate: |g| scaled_rows(g, BinaryFn::Mul),
    },
    RuleSpec {
        name: "sum-of-weights",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x + c) + s = x + (c + s)",
        patterns: &[
            "(add (add ?x ?c) ?s)",
            "(add (add ?c ?x) ?s)",
            "(add ?s (add ?x ?c))",
            "(add ?s (add ?c ?x))",
        ],
        conditions: &[],
        guards: &[WEIGHTS],
        build: |m, s| regrouped(m, s, BinaryFn::Add),
        generate: |g| chain(g, BinaryFn::Add),
    },
    RuleSpec {
        name: "product-of-weights",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x * c) * s = x * (c * s)",
        patterns: &[
            "(mul (mul ?x ?c) ?s)",
            "(mul (mul ?c ?x) ?s)",
            "(mul ?s (mul ?x ?c))",
            "(mul ?s (mul ?c ?x))",
        ],
        conditions: &[],
        guards: &[WEIGHTS],
        build: |m, s| regrouped(m, s, BinaryFn::Mul),
        generate: |g| chain(g, BinaryFn::Mul),
    },
    RuleSpec {
        name: "scale-of-sum",
        family: Family::Matmul,
        fp: Fp::Reassoc,
        doc: "(x + c) * s = x * s + c * s",
        patterns: &["(mul (add ?x ?c) ?s)", "(mul ?s (add ?x ?c))"],
        conditions: &[],
        guards: &[WEIGHTS],
        build: |m, s| {
            let (x, c, scale) = (m.var("?x", s)?, m.var("?c", s)?, m.var("?s", s)?);
            let x = s.binary(BinaryFn::Mul, x, scale)?;
            let c = s.binary(BinaryFn::Mul, c, scale)?;
            s.binary(BinaryFn::Add, x, c)
        },
        generate: |g| {
            let (x, s) = shifted(g, BinaryFn::Add)?;
            g.either(BinaryFn::Mul, x, s)
        },
    },
];

fn row_factor(m: &Match<'_>, s: &mut Scratch, f: BinaryFn) -> Option<Term> {
    let (x, w, factor) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
    let product = s.op(dot(m)?, &[x, w])?;
    s.binary(f, product, factor)
}

fn regrouped(m: &Match<'_>, s: &mut Scratch, f: BinaryFn) -> Option<Term> {
    let (x, c, last) = (m.var("?x", s)?, m.var("?c", s)?, m.var("?s", s)?);
    let both = s.binary(f, c, last)?;
    s.binary(f, x, both)
}

/// A value with something applied to it, and another operand that broadcasts to it.
fn shifted(g: &mut Gen, f: BinaryFn) -> Option<(Term, Term)> {
    let dims = g.shape(0, 4);
    let (x, small) = (g.leaf(&dims), g.broadcast(&dims));
    let c = g.leaf(&small);
    let sum = g.either(f, x, c)?;
    let small = g.broadcast(&dims);
    Some((sum, g.leaf(&small)))
}

fn chain(g: &mut Gen, f: BinaryFn) -> Option<Term> {
    let (x, s) = shifted(g, f)?;
    g.either(f, x, s)
}

/// Rows, something applied to them, and a matrix.
fn before_linear(g: &mut Gen, f: BinaryFn) -> Option<Term> {
    let (x, w) = if g.once_in(4) {
        operands(g)
    } else {
        linear_operands(g)
    };
    let dims = g.dims_of(x);
    let small = g.along(&dims, dims.len().checked_sub(1)?);
    let s = g.leaf(&small);
    let y = g.either(f, x, s)?;
    let dot = linear_dot(g, y, w);
    g.op(dot, &[y, w])
}

/// Rows, scaled by a factor each, and matrices, batched or not.
fn scaled_rows(g: &mut Gen, f: BinaryFn) -> Option<Term> {
    let dims = g.shape(1, 4);
    let x = g.leaf(&dims);
    let mut rows = dims.clone();
    *rows.last_mut()? = 1;
    let small = g.broadcast(&dims);
    let skip = g.below(rows.len());
    let small = if g.once_in(3) {
        small
    } else {
        rows[skip..].to_vec()
    };
    let s = g.leaf(&small);
    let y = g.binary(f, x, s)?;
    let batch = if dims.len() > 2 && g.once_in(2) {
        1 + g.below(dims.len() - 2)
    } else {
        0
    };
    let mut right = dims[..batch].to_vec();
    right.push(*dims.last()?);
    right.push(g.dim());
    let w = g.leaf(&right);
    if g.once_in(3) {
        let dot = any_dot(g, y, w);
        return g.op(dot, &[y, w]);
    }
    let batch: Vec<(usize, usize)> = (0..batch).map(|d| (d, d)).collect();
    let contract = vec![(dims.len() - 1, batch.len())];
    g.op(
        Dot {
            batch,
            contract,
            out: None,
        },
        &[y, w],
    )
}
