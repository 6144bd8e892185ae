//! Rules that look right: the harness must reject every one of them.

use dojoc_ir::attr::F64;
use dojoc_ir::ops::{Dot, LayerNorm, Reduce, ReduceKind, Softmax};
use dojoc_ir::scalar::BinaryFn;

use super::super::rule::{Family, Fp, Match, Rule, RuleSpec};
use super::super::rules;
use super::super::scratch::{Scratch, Term};
use super::{fuzz, run};

fn dot(m: &Match<'_>) -> Option<Dot> {
    Some(Dot {
        batch: m.attr("?b")?,
        contract: m.attr("?c")?,
        out: m.attr("?o")?,
    })
}

fn times(m: &Match<'_>, s: &mut Scratch, f: BinaryFn) -> Option<Term> {
    let (x, w, z) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
    let product = s.op(dot(m)?, &[x, w])?;
    s.binary(f, product, z)
}

const BASE: RuleSpec = RuleSpec {
    name: "",
    family: Family::Structure,
    fp: Fp::Reassoc,
    doc: "wrong",
    patterns: &[],
    conditions: &[],
    guards: &[],
    build: |_, _| None,
    generate: |_| None,
};

/// The wrong rules, with the right one whose instances they are tried on.
fn all() -> Vec<(&'static str, RuleSpec)> {
    vec![
        (
            "conv-scaled",
            RuleSpec {
                name: "a factor per channel of the result meets the channels of the image",
                patterns: &["(mul (conv ?stride ?pad ?dilation ?groups ?o ?x ?w) ?s)"],
                build: |m, s| {
                    let (x, w, scale) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
                    let w = s.binary(BinaryFn::Mul, w, scale)?;
                    let conv = dojoc_ir::ops::Conv {
                        stride: m.attr("?stride")?,
                        pad: m.attr("?pad")?,
                        dilation: m.attr("?dilation")?,
                        groups: m.attr("?groups")?,
                        out: m.attr("?o")?,
                    };
                    s.op(conv, &[x, w])
                },
                ..BASE
            },
        ),
        (
            "gain-into-matrix",
            RuleSpec {
                name: "a factor per element of the rows goes into the matrix",
                patterns: &["(dot ?b ?c ?o (mul ?x ?s) ?w)"],
                build: |m, s| {
                    let (x, w, scale) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
                    let scale = s.transpose(scale, &[1, 0])?;
                    let w = s.binary(BinaryFn::Mul, scale, w)?;
                    s.op(dot(m)?, &[x, w])
                },
                ..BASE
            },
        ),
        (
            "divide-late",
            RuleSpec {
                name: "any divisor waits until after the contraction",
                patterns: &["(dot ?b ?c ?o (div ?x ?s) ?w)"],
                build: |m, s| times(m, s, BinaryFn::Div),
                ..BASE
            },
        ),
        (
            "scale-late",
            RuleSpec {
                name: "any factor waits until after the contraction",
                patterns: &["(dot ?b ?c ?o (mul ?x ?s) ?w)"],
                build: |m, s| times(m, s, BinaryFn::Mul),
                ..BASE
            },
        ),
        (
            "transpose-of-dot",
            RuleSpec {
                name: "any transposed product is the product the other way round",
                patterns: &["(transpose ?perm (dot ?b ?c ?o ?x ?y))"],
                build: |m, s| {
                    let old = dot(m)?;
                    let turn =
                        |p: Vec<(usize, usize)>| p.into_iter().map(|(l, r)| (r, l)).collect();
                    let new = Dot {
                        batch: turn(old.batch),
                        contract: turn(old.contract),
                        out: old.out,
                    };
                    let args = [m.var("?y", s)?, m.var("?x", s)?];
                    s.op(new, &args)
                },
                ..BASE
            },
        ),
        (
            "transpose-of-transpose",
            RuleSpec {
                name: "two orders are composed the wrong way round",
                patterns: &["(transpose ?outer (transpose ?inner ?x))"],
                build: |m, s| {
                    let outer: Vec<usize> = m.attr("?outer")?;
                    let inner: Vec<usize> = m.attr("?inner")?;
                    let x = m.var("?x", s)?;
                    let both: Vec<usize> = inner.iter().map(|d| outer[*d]).collect();
                    s.transpose(x, &both)
                },
                ..BASE
            },
        ),
        (
            "transpose-as-reshape",
            RuleSpec {
                name: "every transposition is a reshape",
                patterns: &["(transpose ?perm ?x)"],
                build: |m, s| {
                    let x = m.var("?x", s)?;
                    s.reshape(x, &m.result()?.shape.as_const()?)
                },
                ..BASE
            },
        ),
        (
            "scale-of-sum",
            RuleSpec {
                name: "a maximum distributes over a sum",
                patterns: &["(max (add ?x ?c) ?s)"],
                build: |m, s| {
                    let (x, c, z) = (m.var("?x", s)?, m.var("?c", s)?, m.var("?s", s)?);
                    let (x, c) = (
                        s.binary(BinaryFn::Max, x, z)?,
                        s.binary(BinaryFn::Max, c, z)?,
                    );
                    s.binary(BinaryFn::Add, x, c)
                },
                ..BASE
            },
        ),
        (
            "scale-of-sum",
            RuleSpec {
                name: "a division of integers distributes over a sum",
                patterns: &["(div (add ?x ?c) ?s)"],
                build: |m, s| {
                    let (x, c, z) = (m.var("?x", s)?, m.var("?c", s)?, m.var("?s", s)?);
                    let (x, c) = (
                        s.binary(BinaryFn::Div, x, z)?,
                        s.binary(BinaryFn::Div, c, z)?,
                    );
                    s.binary(BinaryFn::Add, x, c)
                },
                ..BASE
            },
        ),
        (
            "scale-of-sum",
            RuleSpec {
                name: "a sum in another order has the same bits",
                fp: Fp::Exact,
                patterns: &["(add (add ?x ?y) ?z)"],
                build: |m, s| {
                    let (x, y, z) = (m.var("?x", s)?, m.var("?y", s)?, m.var("?z", s)?);
                    let y = s.binary(BinaryFn::Add, y, z)?;
                    s.binary(BinaryFn::Add, x, y)
                },
                ..BASE
            },
        ),
        (
            "softmax-written-out",
            RuleSpec {
                name: "softmax does not see what is added",
                patterns: &["(softmax ?axis (add ?x ?c))"],
                build: |m, s| {
                    let x = m.var("?x", s)?;
                    s.op(
                        Softmax {
                            axis: m.attr("?axis")?,
                        },
                        &[x],
                    )
                },
                ..BASE
            },
        ),
        (
            "layer-norm-without-gain",
            RuleSpec {
                name: "a normalisation does not see a factor",
                patterns: &["(layer_norm ?axes ?e (mul ?x ?c) ?s ?t)"],
                build: |m, s| {
                    let args = [m.var("?x", s)?, m.var("?s", s)?, m.var("?t", s)?];
                    let epsilon: F64 = m.attr("?e")?;
                    s.op(
                        LayerNorm {
                            axes: m.attr("?axes")?,
                            epsilon,
                        },
                        &args,
                    )
                },
                ..BASE
            },
        ),
        (
            "reduce-of-reduce",
            RuleSpec {
                name: "every reduction of a sum is a sum of reductions",
                patterns: &["(reduce ?kind ?axes ?keep (add ?x ?y))"],
                build: |m, s| {
                    let (x, y) = (m.var("?x", s)?, m.var("?y", s)?);
                    let kind: ReduceKind = m.attr("?kind")?;
                    let reduce = Reduce {
                        kind,
                        axes: m.attr("?axes")?,
                        keep: m.attr("?keep")?,
                    };
                    let (x, y) = (s.op(reduce.clone(), &[x])?, s.op(reduce, &[y])?);
                    s.binary(BinaryFn::Add, x, y)
                },
                ..BASE
            },
        ),
        (
            "slice-of-concat",
            RuleSpec {
                name: "a slice of a concatenation is one of its first operand",
                patterns: &["(slice ?start ?size ?step (concat ?axis ?a ?b))"],
                build: |m, s| {
                    let a = m.var("?a", s)?;
                    let slice = dojoc_ir::ops::Slice {
                        start: vec![0.into(); s.dims(a).len()],
                        size: m.attr("?size")?,
                        step: m.attr("?step")?,
                    };
                    s.op(slice, &[a])
                },
                ..BASE
            },
        ),
    ]
}

#[test]
fn wrong_rules_are_rejected() {
    let right = rules::all();
    let all = all();
    assert!(all.len() >= 10);
    for (model, spec) in all {
        let model = right.iter().find(|r| r.name == model).unwrap();
        let rule = Rule::new(spec).unwrap();
        let own = run(&rule, &model.generate, None, 1000, true);
        let anywhere = run(&rule, &|g| fuzz::instance(&spec, g), None, 1000, true);
        let failures = own.failures.len() + anywhere.failures.len();
        assert!(failures > 0, "{} was not rejected", spec.name);
    }
}
