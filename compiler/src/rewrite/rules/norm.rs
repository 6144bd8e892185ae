//! Normalisations, softmax, activations, and what is written out of them.

use dojoc_ir::attr::F64;
use dojoc_ir::ops::{Gelu, GeluKind, LayerNorm, Reduce, ReduceKind, RmsNorm, Softmax};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};

use super::super::generate::Gen;
use super::super::rule::{Condition, Family, Fp, Match, RuleSpec};
use super::super::scratch::Term;
use super::{condition, is_float};

/// Whether all elements of a variable are this number, rounded to its element type.
fn is_number(m: &Match<'_>, var: &str, number: f64) -> Option<bool> {
    let dtype = m.ty(var)?.dtype;
    Some(m.splat(var)?.to_f64() == Scalar::from_f64(number, dtype).to_f64())
}

const SUMS: Condition = condition("the outer reduction is a sum", |m| {
    Some(m.attr::<ReduceKind>("?kind")? == ReduceKind::Sum)
});

const KEEPS: Condition = condition("reduced dims stay", |m| m.attr("?keep"));

const COUNT: Condition = condition("n is the number of elements", |m| {
    let dims = m.dims("?x")?;
    let axes: Vec<usize> = m.attr("?axes")?;
    let extents: Option<Vec<u64>> = axes.iter().map(|a| dims.get(*a).copied()).collect();
    is_number(m, "?n", extents?.iter().product::<u64>() as f64)
});

const HALF: Condition = condition("half is a half", |m| is_number(m, "?half", 0.5));
const ONE: Condition = condition("one is one", |m| is_number(m, "?one", 1.0));

/// `x - mean`, as patterns write it.
macro_rules! centred {
    () => {
        "(sub ?x (div (reduce ?kind ?axes ?keep ?x) ?n))"
    };
}

/// The rules.
pub(super) const RULES: &[RuleSpec] = &[
    RuleSpec {
        name: "softmax-written-out",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "softmax(x) = e / sum(e), e = exp(x - max(x))",
        patterns: &["(softmax ?axis ?x)"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            let axes: Vec<usize> = vec![m.attr("?axis")?];
            let reduce = |kind| Reduce {
                kind,
                axes: axes.clone(),
                keep: true,
            };
            let most = s.op(reduce(ReduceKind::Max), &[x])?;
            let difference = s.binary(BinaryFn::Sub, x, most)?;
            let e = s.unary(UnaryFn::Exp, difference)?;
            let sum = s.op(reduce(ReduceKind::Sum), &[e])?;
            s.binary(BinaryFn::Div, e, sum)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let x = g.leaf(&dims);
            let axis = g.below(dims.len());
            g.op(Softmax { axis }, &[x])
        },
    },
    RuleSpec {
        name: "softmax",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "e / sum(e) = softmax(x), e = exp(x - max(x))",
        patterns: &["(div (exp (sub ?x (reduce ?most ?axes ?keep ?x))) \
                     (reduce ?kind ?axes ?keep (exp (sub ?x (reduce ?most ?axes ?keep ?x)))))"],
        conditions: &[
            SUMS,
            KEEPS,
            condition("one dim is reduced", |m| {
                Some(m.attr::<Vec<usize>>("?axes")?.len() == 1)
            }),
        ],
        guards: &[condition("exp does not overflow", |m| {
            Some(m.attr::<ReduceKind>("?most")? == ReduceKind::Max)
        })],
        build: |m, s| {
            let axis = *m.attr::<Vec<usize>>("?axes")?.first()?;
            let x = m.var("?x", s)?;
            s.op(Softmax { axis }, &[x])
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let x = g.leaf(&dims);
            let axes = if g.once_in(4) {
                g.axes(dims.len())
            } else {
                vec![g.below(dims.len())]
            };
            let keep = !g.once_in(4);
            let kind = g.pick(&[ReduceKind::Sum, ReduceKind::Sum, ReduceKind::Max]);
            let reduce = |kind| Reduce {
                kind,
                axes: axes.clone(),
                keep,
            };
            let most = g.op(reduce(ReduceKind::Max), &[x])?;
            let difference = g.binary(BinaryFn::Sub, x, most)?;
            let e = g.unary(UnaryFn::Exp, difference)?;
            let sum = g.op(reduce(kind), &[e])?;
            g.binary(BinaryFn::Div, e, sum)
        },
    },
    RuleSpec {
        name: "layer-norm-without-gain",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "layer_norm(x, s, t) = layer_norm(x, 1, 0) * s + t",
        patterns: &["(layer_norm ?axes ?epsilon ?x ?s ?t)"],
        conditions: &[],
        guards: &[
            condition("s and t are weights", |m| {
                Some(m.weight("?s") && m.weight("?t"))
            }),
            condition("there is a gain or a shift", |m| {
                let plain = is_number(m, "?s", 1.0) == Some(true);
                Some(!plain || is_number(m, "?t", 0.0) != Some(true))
            }),
        ],
        build: |m, s| {
            let norm = LayerNorm {
                axes: m.attr("?axes")?,
                epsilon: m.attr("?epsilon")?,
            };
            let (x, gain, shift) = (m.var("?x", s)?, m.var("?s", s)?, m.var("?t", s)?);
            let (one, zero) = (s.scalar(gain, 1.0)?, s.scalar(shift, 0.0)?);
            let y = s.op(norm, &[x, one, zero])?;
            let y = s.binary(BinaryFn::Mul, y, gain)?;
            s.binary(BinaryFn::Add, y, shift)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, axes) = (g.leaf(&dims), g.axes(dims.len()));
            let (small, other) = (g.broadcast(&dims), g.broadcast(&dims));
            let (s, t) = (g.leaf(&small), g.leaf(&other));
            g.op(
                LayerNorm {
                    axes,
                    epsilon: F64(0.125),
                },
                &[x, s, t],
            )
        },
    },
    RuleSpec {
        name: "layer-norm-with-gain",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "layer_norm(x, 1, 0) * s + t = layer_norm(x, s, t)",
        patterns: &["(add (mul (layer_norm ?axes ?epsilon ?x ?one ?zero) ?s) ?t)"],
        conditions: &[
            ONE,
            condition("zero is zero", |m| is_number(m, "?zero", 0.0)),
        ],
        guards: &[],
        build: |m, s| {
            let norm = LayerNorm {
                axes: m.attr("?axes")?,
                epsilon: m.attr("?epsilon")?,
            };
            let args = [m.var("?x", s)?, m.var("?s", s)?, m.var("?t", s)?];
            s.op(norm, &args)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, axes) = (g.leaf(&dims), g.axes(dims.len()));
            let (one, zero) = (g.pick(&[1.0, 1.0, 1.0, 2.0]), g.pick(&[0.0, 0.0, 0.0, 1.0]));
            let (one, zero) = (g.constant(&[], one)?, g.constant(&[], zero)?);
            let y = g.op(
                LayerNorm {
                    axes,
                    epsilon: F64(0.125),
                },
                &[x, one, zero],
            )?;
            let (small, other) = (g.broadcast(&dims), g.broadcast(&dims));
            let (s, t) = (g.leaf(&small), g.leaf(&other));
            let y = g.binary(BinaryFn::Mul, y, s)?;
            g.binary(BinaryFn::Add, y, t)
        },
    },
    RuleSpec {
        name: "layer-norm",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "d / sqrt(mean(d^2) + epsilon) = layer_norm(x, 1, 0), d = x - mean(x)",
        patterns: &[
            concat!(
                "(div ",
                centred!(),
                " (sqrt (add (div (reduce ?kind ?axes ?keep (pow ",
                centred!(),
                " ?two)) ?n) ?e)))"
            ),
            concat!(
                "(div ",
                centred!(),
                " (sqrt (add (div (reduce ?kind ?axes ?keep (mul ",
                centred!(),
                " ",
                centred!(),
                ")) ?n) ?e)))"
            ),
            concat!(
                "(mul ",
                centred!(),
                " (rsqrt (add (div (reduce ?kind ?axes ?keep (mul ",
                centred!(),
                " ",
                centred!(),
                ")) ?n) ?e)))"
            ),
        ],
        conditions: &[
            SUMS,
            KEEPS,
            COUNT,
            condition("the power is two", |m| match m.ty("?two") {
                Some(_) => is_number(m, "?two", 2.0),
                None => Some(true),
            }),
        ],
        guards: &[],
        build: |m, s| {
            let epsilon = F64(m.splat("?e")?.to_f64());
            let norm = LayerNorm {
                axes: m.attr("?axes")?,
                epsilon,
            };
            let x = m.var("?x", s)?;
            let (one, zero) = (s.scalar(x, 1.0)?, s.scalar(x, 0.0)?);
            s.op(norm, &[x, one, zero])
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, axes) = (g.leaf(&dims), g.axes(dims.len()));
            let keep = !g.once_in(4);
            let kind = g.pick(&[
                ReduceKind::Sum,
                ReduceKind::Sum,
                ReduceKind::Sum,
                ReduceKind::Max,
            ]);
            let reduce = Reduce {
                kind,
                axes: axes.clone(),
                keep,
            };
            let count: u64 = axes.iter().map(|a| dims[*a]).product();
            let n = if g.once_in(4) { 2.5 } else { count as f64 };
            let n = g.constant(&[], n)?;
            let sum = g.op(reduce.clone(), &[x])?;
            let mean = g.binary(BinaryFn::Div, sum, n)?;
            let d = g.binary(BinaryFn::Sub, x, mean)?;
            let form = g.below(3);
            let square = if form == 0 {
                let two = g.pick(&[2.0, 2.0, 2.0, 4.0]);
                let two = g.constant(&[], two)?;
                g.binary(BinaryFn::Pow, d, two)?
            } else {
                g.binary(BinaryFn::Mul, d, d)?
            };
            let sum = g.op(reduce, &[square])?;
            let variance = g.binary(BinaryFn::Div, sum, n)?;
            let epsilon = g.constant(&[], 0.125)?;
            let sum = g.binary(BinaryFn::Add, variance, epsilon)?;
            if form == 2 {
                let root = g.unary(UnaryFn::Rsqrt, sum)?;
                return g.binary(BinaryFn::Mul, d, root);
            }
            let root = g.unary(UnaryFn::Sqrt, sum)?;
            g.binary(BinaryFn::Div, d, root)
        },
    },
    RuleSpec {
        name: "rms-norm-as-factor",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "rms_norm(x, s) = x * s * f, f = 1 / sqrt(mean(x^2) + epsilon)",
        patterns: &["(rms_norm ?axes ?epsilon ?x ?s)"],
        conditions: &[],
        guards: &[condition("s is a weight", |m| Some(m.weight("?s")))],
        build: |m, s| {
            let (x, gain) = (m.var("?x", s)?, m.var("?s", s)?);
            let axes: Vec<usize> = m.attr("?axes")?;
            let dims = s.dims(x);
            let extents: Option<Vec<u64>> = axes.iter().map(|a| dims.get(*a).copied()).collect();
            let count = extents?.iter().product::<u64>() as f64;
            let square = s.binary(BinaryFn::Mul, x, x)?;
            let sum = s.op(
                Reduce {
                    kind: ReduceKind::Sum,
                    axes,
                    keep: true,
                },
                &[square],
            )?;
            let n = s.scalar(x, count)?;
            let mean = s.binary(BinaryFn::Div, sum, n)?;
            let epsilon = m.attr::<F64>("?epsilon")?.0;
            let epsilon = s.scalar(x, epsilon)?;
            let sum = s.binary(BinaryFn::Add, mean, epsilon)?;
            let factor = s.unary(UnaryFn::Rsqrt, sum)?;
            let y = s.binary(BinaryFn::Mul, x, gain)?;
            s.binary(BinaryFn::Mul, y, factor)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, axes) = (g.leaf(&dims), g.axes(dims.len()));
            let small = g.broadcast(&dims);
            let s = g.leaf(&small);
            g.op(
                RmsNorm {
                    axes,
                    epsilon: F64(0.125),
                },
                &[x, s],
            )
        },
    },
    RuleSpec {
        name: "gelu",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "x * (erf(x / sqrt(2)) + 1) / 2 = gelu(x)",
        patterns: &[
            "(mul (mul ?x (add (erf (div ?x ?root)) ?one)) ?half)",
            "(mul (mul ?x ?half) (add (erf (div ?x ?root)) ?one))",
        ],
        conditions: &[
            HALF,
            ONE,
            condition("root is the root of two", |m| {
                is_number(m, "?root", std::f64::consts::SQRT_2)
            }),
        ],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            s.op(
                Gelu {
                    approximate: GeluKind::Erf,
                },
                &[x],
            )
        },
        generate: |g| {
            let dims = g.shape(0, 4);
            let x = g.leaf(&dims);
            let root = g.pick(&[std::f64::consts::SQRT_2, std::f64::consts::SQRT_2, 2.0]);
            let (root, one, half) = (g.constant(&[], root)?, near(g, 1.0)?, near(g, 0.5)?);
            let y = g.binary(BinaryFn::Div, x, root)?;
            let y = g.unary(UnaryFn::Erf, y)?;
            let y = g.binary(BinaryFn::Add, y, one)?;
            if g.once_in(2) {
                let x = g.binary(BinaryFn::Mul, x, half)?;
                return g.binary(BinaryFn::Mul, x, y);
            }
            let y = g.binary(BinaryFn::Mul, x, y)?;
            g.binary(BinaryFn::Mul, y, half)
        },
    },
    RuleSpec {
        name: "gelu-by-tanh",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "x / 2 * (tanh((x + a * x^3) * b) + 1) = gelu(x), approximated",
        patterns: &[
            "(mul (mul ?x ?half) (add (tanh (mul (add ?x (mul (pow ?x ?three) ?a)) ?f)) ?one))",
        ],
        conditions: &[
            HALF,
            ONE,
            condition("three is three", |m| is_number(m, "?three", 3.0)),
            condition("a is that of the approximation", |m| {
                is_number(m, "?a", 0.044715)
            }),
            condition("b is the root of 2 / pi", |m| is_number(m, "?f", ROOT)),
        ],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            s.op(
                Gelu {
                    approximate: GeluKind::Tanh,
                },
                &[x],
            )
        },
        generate: |g| {
            let dims = g.shape(0, 4);
            let x = g.leaf(&dims);
            let (three, a) = (near(g, 3.0)?, near(g, 0.044715)?);
            let (f, one, half) = (near(g, ROOT)?, near(g, 1.0)?, near(g, 0.5)?);
            let y = g.binary(BinaryFn::Pow, x, three)?;
            let y = g.binary(BinaryFn::Mul, y, a)?;
            let y = g.binary(BinaryFn::Add, x, y)?;
            let y = g.binary(BinaryFn::Mul, y, f)?;
            let y = g.unary(UnaryFn::Tanh, y)?;
            let y = g.binary(BinaryFn::Add, y, one)?;
            let x = g.binary(BinaryFn::Mul, x, half)?;
            g.binary(BinaryFn::Mul, x, y)
        },
    },
    RuleSpec {
        name: "square",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "x ^ 2 = x * x",
        patterns: &["(pow ?x ?two)"],
        conditions: &[condition("the power is two", |m| is_number(m, "?two", 2.0))],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            s.binary(BinaryFn::Mul, x, x)
        },
        generate: |g| {
            let dims = g.shape(0, 4);
            let (x, small) = (g.leaf(&dims), g.broadcast(&dims));
            let two = g.pick(&[2.0, 2.0, 3.0]);
            let two = g.constant(&small, two)?;
            g.binary(BinaryFn::Pow, x, two)
        },
    },
    RuleSpec {
        name: "quotient-as-product",
        family: Family::Norm,
        fp: Fp::Reassoc,
        doc: "x / c = x * (1 / c)",
        patterns: &["(div ?x ?c)"],
        conditions: &[condition("integers do not round", |m| is_float(m, "?x"))],
        guards: &[condition("1 / c is an ordinary number", |m| {
            Some((1e-30..1e30).contains(&m.splat("?c")?.to_f64().abs()))
        })],
        build: |m, s| {
            let c = m.var("?c", s)?;
            let inverse = 1.0 / m.splat("?c")?.to_f64();
            let inverse = s.scalar(c, inverse)?;
            let x = m.var("?x", s)?;
            s.binary(BinaryFn::Mul, x, inverse)
        },
        generate: |g| {
            let dims = g.shape(0, 4);
            let (x, small) = (g.leaf(&dims), g.broadcast(&dims));
            let value = g.pick(&[2.0, 3.0, -5.0, 8.0]);
            let c = g.constant(&small, value)?;
            g.binary(BinaryFn::Div, x, c)
        },
    },
];

/// `sqrt(2 / pi)`.
const ROOT: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;

/// A constant, seldom a wrong one.
fn near(g: &mut Gen, value: f64) -> Option<Term> {
    let value = if g.once_in(8) { value + 1.0 } else { value };
    g.constant(&[], value)
}
