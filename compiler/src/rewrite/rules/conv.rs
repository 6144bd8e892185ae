//! Convolutions.

use dojoc_ir::ops::{Broadcast, Concat, Conv, Dot, Pad};
use dojoc_ir::scalar::BinaryFn;

use super::super::generate::Gen;
use super::super::rule::{Condition, Family, Fp, Match, RuleSpec};
use super::super::scratch::{Scratch, Term};
use super::{condition, only_along};

/// The convolution that the variables are the attributes of.
fn conv(m: &Match<'_>) -> Option<Conv> {
    Some(Conv {
        stride: m.attr("?stride")?,
        pad: m.attr("?pad")?,
        dilation: m.attr("?dilation")?,
        groups: m.attr("?groups")?,
        out: m.attr("?o")?,
    })
}

const UNPADDED: Condition = condition("nothing is padded or cut", |m| {
    Some(
        m.attr::<Vec<(i64, i64)>>("?pad")?
            .iter()
            .all(|p| *p == (0, 0)),
    )
});

const PER_CHANNEL: Condition = condition("s varies along the channels only", |m| {
    only_along(m, "?s", m.result()?.rank(), 1)
});

const WEIGHTS: Condition = condition("w and s are weights", |m| {
    Some(m.weight("?w") && m.weight("?s"))
});

const BOTH: Condition = condition("v and w are weights", |m| {
    Some(m.weight("?v") && m.weight("?w"))
});

/// The rules.
pub(super) const RULES: &[RuleSpec] = &[
    RuleSpec {
        name: "pointwise-conv-as-dot",
        family: Family::Conv,
        fp: Fp::Exact,
        doc: "conv(x, w) = channels of x . w, for kernels of one element",
        patterns: &["(conv ?stride ?pad ?dilation ?groups ?o ?x ?w)"],
        conditions: &[UNPADDED],
        guards: &[condition("w is a weight", |m| Some(m.weight("?w")))],
        build: |m, s| {
            let (x, w) = (m.var("?x", s)?, m.var("?w", s)?);
            let kernel = s.dims(w);
            let rank = kernel.len();
            let w = s.reshape(w, kernel.get(..2)?)?;
            let dot = Dot {
                batch: vec![],
                contract: vec![(1, 1)],
                out: m.attr("?o")?,
            };
            let product = s.op(dot, &[x, w])?;
            let channels = (0..1).chain([rank.checked_sub(1)?]).chain(1..rank - 1);
            let order: Vec<usize> = channels.collect();
            s.transpose(product, &order)
        },
        generate: |g| {
            let (mut conv, x, w) = any_conv(g, true);
            if g.once_in(2) {
                conv.stride.iter_mut().for_each(|s| *s = 1);
            }
            g.op(conv, &[x, w])
        },
    },
    RuleSpec {
        name: "pad-into-conv",
        family: Family::Conv,
        fp: Fp::Exact,
        doc: "conv(pad(x), w) = conv(x, w) with more padding",
        patterns: &["(conv ?stride ?pad ?dilation ?groups ?o (pad ?low ?high ?interior ?x ?v) ?w)"],
        conditions: &[
            condition("zeros are put around", |m| {
                Some(m.splat("?v")?.to_f64() == 0.0)
            }),
            condition("nothing is put between the elements", |m| {
                Some(m.numbers("?interior")?.iter().all(|n| *n == 0))
            }),
            condition("nothing is cut", |m| {
                let some = |var: &str| Some(m.numbers(var)?.iter().all(|n| *n >= 0));
                Some(
                    some("?low")?
                        && some("?high")?
                        && m.attr::<Vec<(i64, i64)>>("?pad")?
                            .iter()
                            .all(|(l, h)| *l >= 0 && *h >= 0),
                )
            }),
        ],
        guards: &[],
        build: |m, s| {
            let (low, high) = (m.numbers("?low")?, m.numbers("?high")?);
            let (x, w) = (m.var("?x", s)?, m.var("?w", s)?);
            let mut conv = conv(m)?;
            for (pad, (l, h)) in conv.pad.iter_mut().zip(low.iter().zip(&high).skip(2)) {
                *pad = (pad.0.checked_add(*l)?, pad.1.checked_add(*h)?);
            }
            s.op(conv, &[x, w])
        },
        generate: pad_and_conv,
    },
    RuleSpec {
        name: "conv-scaled",
        family: Family::Conv,
        fp: Fp::Reassoc,
        doc: "conv(x, w) * s = conv(x, w * s), s per channel of the result",
        patterns: &[
            "(mul (conv ?stride ?pad ?dilation ?groups ?o ?x ?w) ?s)",
            "(mul ?s (conv ?stride ?pad ?dilation ?groups ?o ?x ?w))",
        ],
        conditions: &[PER_CHANNEL],
        guards: &[WEIGHTS],
        build: |m, s| {
            let (x, w, scale) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
            let rank = s.ty(w).rank();
            let scale = first_dims(s, scale, rank)?;
            let w = s.binary(BinaryFn::Mul, w, scale)?;
            s.op(conv(m)?, &[x, w])
        },
        generate: |g| {
            let (conv, x, w) = any_conv(g, false);
            let y = g.op(conv, &[x, w])?;
            let dims = g.dims_of(y);
            let small = g.along(&dims, 1);
            let s = g.leaf(&small);
            g.either(BinaryFn::Mul, y, s)
        },
    },
    RuleSpec {
        name: "sum-of-convs",
        family: Family::Conv,
        fp: Fp::Reassoc,
        doc: "conv(x, v) + conv(x, w) = conv(x, v + w), of kernels of one size",
        patterns: &[
            "(add (conv ?stride ?pad ?dilation ?groups ?o ?x ?v) (conv ?stride ?pad ?dilation ?groups ?o ?x ?w))",
        ],
        conditions: &[condition("v and w have one shape", |m| {
            Some(m.dims("?v")? == m.dims("?w")?)
        })],
        guards: &[BOTH],
        build: |m, s| {
            let (x, v, w) = (m.var("?x", s)?, m.var("?v", s)?, m.var("?w", s)?);
            let sum = s.binary(BinaryFn::Add, v, w)?;
            s.op(conv(m)?, &[x, sum])
        },
        generate: |g| {
            let (conv, x, v) = any_conv(g, false);
            let mut kernel = g.dims_of(v);
            let at = g.below(kernel.len());
            if g.once_in(3) {
                kernel[at] = g.dim();
            }
            let w = g.leaf(&kernel);
            let (a, b) = (g.op(conv.clone(), &[x, v])?, g.op(conv, &[x, w])?);
            g.either(BinaryFn::Add, a, b)
        },
    },
    RuleSpec {
        name: "concat-of-convs",
        family: Family::Conv,
        fp: Fp::Exact,
        doc: "concat(conv(x, v), conv(x, w)) = conv(x, concat(v, w)), channels beside channels",
        patterns: &[
            "(concat ?axis (conv ?stride ?pad ?dilation ?groups ?o ?x ?v) (conv ?stride ?pad ?dilation ?groups ?o ?x ?w))",
        ],
        conditions: &[condition("there is one group", |m| {
            Some(m.attr::<u64>("?groups")? == 1)
        })],
        guards: &[BOTH],
        build: |m, s| {
            let (x, v, w) = (m.var("?x", s)?, m.var("?v", s)?, m.var("?w", s)?);
            let both = s.op(Concat { axis: 0 }, &[v, w])?;
            s.op(conv(m)?, &[x, both])
        },
        generate: |g| {
            let (conv, x, v) = any_conv(g, false);
            let mut kernel = g.dims_of(v);
            kernel[0] = conv.groups * (1 + g.below(2) as u64);
            let w = g.leaf(&kernel);
            let (a, b) = (g.op(conv.clone(), &[x, v])?, g.op(conv, &[x, w])?);
            let rank = g.dims_of(a).len();
            let axis = if g.once_in(4) { g.below(rank) } else { 1 };
            g.op(Concat { axis }, &[a, b])
        },
    },
    RuleSpec {
        name: "shift-through-conv",
        family: Family::Conv,
        fp: Fp::Reassoc,
        doc: "conv(x + s, w) = conv(x, w) + conv(s, w), s per channel",
        patterns: &[
            "(conv ?stride ?pad ?dilation ?groups ?o (add ?x ?s) ?w)",
            "(conv ?stride ?pad ?dilation ?groups ?o (add ?s ?x) ?w)",
        ],
        conditions: &[UNPADDED, PER_CHANNEL],
        guards: &[WEIGHTS],
        build: |m, s| {
            let (x, w, shift) = (m.var("?x", s)?, m.var("?w", s)?, m.var("?s", s)?);
            let conv = conv(m)?;
            let product = s.op(conv.clone(), &[x, w])?;
            // The window of one result, wherever it lies.
            let mut window = s.dims(x);
            *window.first_mut()? = 1;
            let kernel = s.dims(w);
            for (n, d) in conv.dilation.iter().enumerate() {
                *window.get_mut(n + 2)? = (kernel.get(n + 2)? - 1) * d + 1;
            }
            let shift = spread(s, shift, &window)?;
            let shift = s.op(conv, &[shift, w])?;
            s.binary(BinaryFn::Add, product, shift)
        },
        generate: |g| {
            let (conv, x, w) = any_conv(g, false);
            let dims = g.dims_of(x);
            let small = g.along(&dims, 1);
            let s = g.leaf(&small);
            let y = g.either(BinaryFn::Add, x, s)?;
            g.op(conv, &[y, w])
        },
    },
];

/// A value per channel `[C, 1..]`, as a factor of kernels: its channels as the first of `rank` dims.
/// Extents that do not belong there stay.
fn first_dims(s: &mut Scratch, x: Term, rank: usize) -> Option<Term> {
    let mut dims = s.dims(x);
    let channels = dims.len() + 1 == rank || (dims.len() == rank && dims.first() == Some(&1));
    if dims.len() == rank && channels {
        dims.remove(0);
    }
    if channels {
        dims.insert(1.min(dims.len()), 1);
        return s.reshape(x, &dims);
    }
    Some(x)
}

/// A value over a window. Extents that neither fit nor are 1 are cut, so that only conditions keep a
/// value that varies within the window away.
fn spread(s: &mut Scratch, x: Term, window: &[u64]) -> Option<Term> {
    let dims = s.dims(x);
    let skip = window.len().checked_sub(dims.len())?;
    let size: Vec<u64> = dims
        .iter()
        .zip(&window[skip..])
        .map(|(d, w)| *d.min(w))
        .collect();
    let slice = dojoc_ir::ops::Slice {
        start: vec![0.into(); dims.len()],
        step: vec![1; dims.len()],
        size: size.iter().map(|d| (*d).into()).collect(),
    };
    let x = if size == dims { x } else { s.op(slice, &[x])? };
    let shape = window.iter().map(|d| (*d).into()).collect();
    s.op(Broadcast { shape }, &[x])
}

/// A convolution of an image; with `point`, mostly of kernels of one element.
fn any_conv(g: &mut Gen, point: bool) -> (Conv, Term, Term) {
    let spatial = 1 + g.below(2);
    let groups = g.pick(&[1, 1, 1, 2, 3]) as u64;
    let (batch, per_group, out) = (g.dim(), g.dim(), g.dim());
    let (per_group, out) = if g.once_in(2) {
        (per_group, per_group)
    } else {
        (per_group, out)
    };
    let point = point && !g.once_in(4);
    let (mut image, mut kernel) = (
        vec![batch, per_group * groups],
        vec![out * groups, per_group],
    );
    let (mut stride, mut pad, mut dilation) = (vec![], vec![], vec![]);
    let plain = g.once_in(2);
    for _ in 0..spatial {
        image.push(2 + g.dim());
        kernel.push(if point { 1 } else { 1 + g.below(2) as u64 });
        stride.push(if g.once_in(3) { 2 } else { 1 });
        dilation.push(if g.once_in(4) { 2 } else { 1 });
        pad.push(if plain {
            (0, 0)
        } else {
            g.pick(&[(0, 0), (1, 1), (0, 1), (1, -1), (2, 1)])
        });
    }
    let conv = Conv {
        stride,
        pad,
        dilation,
        groups,
        out: None,
    };
    (conv, g.leaf(&image), g.leaf(&kernel))
}

fn pad_and_conv(g: &mut Gen) -> Option<Term> {
    let (mut conv, x, w) = any_conv(g, false);
    if g.once_in(2) {
        conv.stride.iter_mut().for_each(|s| *s = 4);
    }
    let rank = g.dims_of(x).len();
    let cut = g.once_in(3);
    let amounts = |g: &mut Gen| -> Vec<i64> {
        let mut amounts = vec![0, 0];
        for _ in 2..rank {
            amounts.push(if cut {
                g.pick(&[-1, 0, 1, 2])
            } else {
                g.below(3) as i64
            });
        }
        amounts
    };
    let (low, high) = (amounts(g), amounts(g));
    let mut interior = vec![0; rank];
    if g.once_in(4) {
        interior[2 + g.below(rank - 2)] = 1;
    }
    let value = if g.once_in(3) {
        g.leaf(&[])
    } else {
        g.constant(&[], 0.0)?
    };
    let padded = g.op(
        Pad {
            low,
            high,
            interior,
        },
        &[x, value],
    )?;
    g.op(conv, &[padded, w])
}
