//! Movement of elements, and what commutes with it.

use dojoc_ir::ops::{Concat, Pad, Reduce, ReduceKind, Slice, Transpose};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};

use super::super::generate::Gen;
use super::super::rule::{Family, Fp, Match, RuleSpec};
use super::super::scratch::{Scratch, Term};
use super::{condition, one_element, padded, trimmed};

/// The rules.
pub(super) const RULES: &[RuleSpec] = &[
    RuleSpec {
        name: "unary-of-transpose",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "f(transpose(x)) = transpose(f(x)), f element by element",
        patterns: &["({unary} (transpose ?perm ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            let y = s.unary(m.unary()?, x)?;
            s.transpose(y, &perm(m, "?perm")?)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, order) = (g.leaf(&dims), g.perm(dims.len()));
            let (t, f) = (g.transpose(x, order)?, g.any_unary());
            g.unary(f, t)
        },
    },
    RuleSpec {
        name: "transpose-of-unary",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "transpose(f(x)) = f(transpose(x)), f element by element",
        patterns: &["(transpose ?perm ({unary} ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            let t = s.transpose(x, &perm(m, "?perm")?)?;
            s.unary(m.unary()?, t)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, f) = (g.leaf(&dims), g.any_unary());
            let (y, order) = (g.unary(f, x)?, g.perm(dims.len()));
            g.transpose(y, order)
        },
    },
    RuleSpec {
        name: "binary-of-transposes",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "f(transpose(a), transpose(b)) = transpose(f(a, b)), both in the same order",
        patterns: &["({binary} (transpose ?perm ?a) (transpose ?perm ?b))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let (a, b) = (m.var("?a", s)?, m.var("?b", s)?);
            let y = s.binary(m.binary()?, a, b)?;
            s.transpose(y, &perm(m, "?perm")?)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let small = g.broadcast(&dims);
            let small = if g.once_in(3) { small } else { dims.clone() };
            let (a, b) = (g.leaf(&dims), g.leaf(&small));
            let order = g.perm(dims.len());
            let other = if g.once_in(3) {
                g.perm(dims.len())
            } else {
                order.clone()
            };
            let (a, b) = (g.transpose(a, order)?, g.transpose(b, other)?);
            let f = g.any_binary();
            g.binary(f, a, b)
        },
    },
    RuleSpec {
        name: "binary-of-transpose-and-weight",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "f(transpose(a), c) = transpose(f(a, c moved back))",
        patterns: &[
            "({binary} (transpose ?perm ?a) ?c)",
            "({binary} ?d (transpose ?perm ?a))",
        ],
        conditions: &[],
        guards: &[condition("the other operand is a weight", |m| {
            Some(m.weight("?c") || m.weight("?d"))
        })],
        build: |m, s| {
            let order = perm(m, "?perm")?;
            let back = Transpose {
                perm: order.clone(),
            }
            .inverse()
            .perm;
            let a = m.var("?a", s)?;
            let left = m.var("?d", s);
            let other = left.or_else(|| m.var("?c", s))?;
            let wide = padded(&s.dims(other), order.len())?;
            let other = s.reshape(other, &wide)?;
            let other = s.transpose(other, &back)?;
            let (l, r) = if left.is_some() {
                (other, a)
            } else {
                (a, other)
            };
            let y = s.binary(m.binary()?, l, r)?;
            s.transpose(y, &order)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let order = g.perm(dims.len());
            let turned: Vec<u64> = order.iter().map(|d| dims[*d]).collect();
            let small = g.broadcast(&turned);
            let (a, c) = (g.leaf(&dims), g.leaf(&small));
            let (t, f) = (g.transpose(a, order)?, g.any_binary());
            g.either(f, t, c)
        },
    },
    RuleSpec {
        name: "transpose-of-transpose",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "transpose(transpose(x)) = one transpose",
        patterns: &["(transpose ?outer (transpose ?inner ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let (outer, inner) = (perm(m, "?outer")?, perm(m, "?inner")?);
            let x = m.var("?x", s)?;
            let both: Option<Vec<usize>> = outer.iter().map(|d| inner.get(*d).copied()).collect();
            s.transpose(x, &both?)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let x = g.leaf(&dims);
            let (p, q) = (g.perm(dims.len()), g.perm(dims.len()));
            let t = g.transpose(x, p)?;
            g.transpose(t, q)
        },
    },
    RuleSpec {
        name: "transpose-of-nothing",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "transpose(x) = x",
        patterns: &["(transpose ?perm ?x)"],
        conditions: &[condition("the dims keep their order", |m| {
            Some(perm(m, "?perm")?.is_sorted())
        })],
        guards: &[],
        build: |m, s| m.var("?x", s),
        generate: |g| {
            let dims = g.shape(1, 4);
            let order = g.perm(dims.len());
            let order = if g.once_in(2) {
                order
            } else {
                (0..dims.len()).collect()
            };
            let x = g.leaf(&dims);
            g.transpose(x, order)
        },
    },
    RuleSpec {
        name: "transpose-as-reshape",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "transpose(x) = reshape(x)",
        patterns: &["(transpose ?perm ?x)"],
        conditions: &[condition("only extents of one change places", |m| {
            let dims = m.dims("?x")?;
            let order = perm(m, "?perm")?;
            Some(order.iter().filter(|d| dims[**d] != 1).is_sorted())
        })],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            s.reshape(x, &m.result()?.shape.as_const()?)
        },
        generate: |g| {
            let mut dims = g.shape(2, 4);
            let one = g.below(dims.len());
            dims[one] = 1;
            let order = g.perm(dims.len());
            let x = g.leaf(&dims);
            g.transpose(x, order)
        },
    },
    RuleSpec {
        name: "reshape-of-reshape",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "reshape(reshape(x)) = one reshape, or none",
        patterns: &["(reshape ?shape (reshape ?other ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            s.reshape(x, &m.result()?.shape.as_const()?)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let x = g.leaf(&dims);
            let first = g.regroup(&dims);
            let y = g.reshape(x, &first)?;
            let second = g.regroup(&dims);
            g.reshape(y, &second)
        },
    },
    RuleSpec {
        name: "reshape-of-unary",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "reshape(f(x)) = f(reshape(x)), f element by element",
        patterns: &["(reshape ?shape ({unary} ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            let y = s.reshape(x, &m.result()?.shape.as_const()?)?;
            s.unary(m.unary()?, y)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, f) = (g.leaf(&dims), g.any_unary());
            let y = g.unary(f, x)?;
            let shape = g.regroup(&dims);
            g.reshape(y, &shape)
        },
    },
    RuleSpec {
        name: "binary-of-reshape-and-scalar",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "f(reshape(x), c) = reshape(f(x, c))",
        patterns: &["({binary} (reshape ?shape ?x) ?c)"],
        conditions: &[condition("c has one element", |m| one_element(m, "?c"))],
        guards: &[],
        build: |m, s| {
            let (x, c) = (m.var("?x", s)?, m.var("?c", s)?);
            let c = trimmed(s, c)?;
            let y = s.binary(m.binary()?, x, c)?;
            s.reshape(y, &m.result()?.shape.as_const()?)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let x = g.leaf(&dims);
            let shape = g.regroup(&dims);
            let y = g.reshape(x, &shape)?;
            let small = g.broadcast(&shape);
            let (c, f) = (g.leaf(&small), g.any_binary());
            g.binary(f, y, c)
        },
    },
    RuleSpec {
        name: "slice-of-unary",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "slice(f(x)) = f(slice(x)), f element by element",
        patterns: &["(slice ?start ?size ?step ({unary} ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            let y = s.op(range(m, "?start", "?size", "?step")?, &[x])?;
            s.unary(m.unary()?, y)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, f) = (g.leaf(&dims), g.any_unary());
            let y = g.unary(f, x)?;
            part(g, y)
        },
    },
    RuleSpec {
        name: "slice-of-transpose",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "slice(transpose(x)) = transpose(slice(x))",
        patterns: &["(slice ?start ?size ?step (transpose ?perm ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let order = perm(m, "?perm")?;
            let back = Transpose {
                perm: order.clone(),
            }
            .inverse()
            .perm;
            let x = m.var("?x", s)?;
            let turned = range(m, "?start", "?size", "?step")?;
            let slice = Slice {
                start: back.iter().map(|d| turned.start[*d].clone()).collect(),
                size: back.iter().map(|d| turned.size[*d].clone()).collect(),
                step: back.iter().map(|d| turned.step[*d]).collect(),
            };
            let y = s.op(slice, &[x])?;
            s.transpose(y, &order)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, order) = (g.leaf(&dims), g.perm(dims.len()));
            let y = g.transpose(x, order)?;
            part(g, y)
        },
    },
    RuleSpec {
        name: "slice-of-slice",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "slice(slice(x)) = one slice",
        patterns: &["(slice ?start ?size ?step (slice ?start1 ?size1 ?step1 ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let x = m.var("?x", s)?;
            let (outer, inner) = (
                m.numbers("?start")?.into_iter().zip(m.numbers("?step")?),
                m.numbers("?start1")?.into_iter().zip(m.numbers("?step1")?),
            );
            let (mut start, mut step) = (vec![], vec![]);
            for ((from, by), (from1, by1)) in outer.zip(inner) {
                start.push(
                    u64::try_from(from.checked_mul(by1)?.checked_add(from1)?)
                        .ok()?
                        .into(),
                );
                step.push(by.checked_mul(by1)?);
            }
            let size = range(m, "?start", "?size", "?step")?.size;
            s.op(Slice { start, size, step }, &[x])
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let x = g.leaf(&dims);
            let y = part(g, x)?;
            part(g, y)
        },
    },
    RuleSpec {
        name: "slice-of-concat",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "slice(concat(a, b, ..)) = slice(a), if it takes nothing else",
        patterns: &[
            "(slice ?start ?size ?step (concat ?axis ?a ?b))",
            "(slice ?start ?size ?step (concat ?axis ?a ?b ?c))",
        ],
        conditions: &[],
        guards: &[],
        build: slice_of_concat,
        generate: |g| {
            let dims = g.shape(1, 4);
            let axis = g.below(dims.len());
            let count = 2 + g.below(2);
            let mut parts = vec![];
            for _ in 0..count {
                let mut own = dims.clone();
                own[axis] = 1 + g.below(4) as u64;
                parts.push(g.leaf(&own));
            }
            let y = g.op(Concat { axis }, &parts)?;
            part(g, y)
        },
    },
    RuleSpec {
        name: "concat-of-slices",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "concat(slice(x), slice(x)) = one slice",
        patterns: &[
            "(concat ?axis (slice ?start ?size ?step ?x) (slice ?start1 ?size1 ?step1 ?x))",
        ],
        conditions: &[
            condition("the second begins where the first ends", |m| {
                let axis: usize = m.attr("?axis")?;
                let [a, n, b] = ["?start", "?size", "?start1"].map(|v| m.numbers(v));
                Some(a?.get(axis)? + n?.get(axis)? == *b?.get(axis)?)
            }),
            condition("both take the same of the other dims", |m| {
                let axis: usize = m.attr("?axis")?;
                let (a, b) = (m.numbers("?start")?, m.numbers("?start1")?);
                let mut pairs = a.iter().zip(&b).enumerate();
                Some(pairs.all(|(d, (a, b))| d == axis || a == b))
            }),
            condition("both take every element", |m| {
                let ones = |var: &str| Some(m.numbers(var)?.iter().all(|s| *s == 1));
                Some(ones("?step")? && ones("?step1")?)
            }),
        ],
        guards: &[],
        build: |m, s| {
            let axis: usize = m.attr("?axis")?;
            let first = range(m, "?start", "?size", "?step")?;
            let second = range(m, "?start1", "?size1", "?step1")?;
            let x = m.var("?x", s)?;
            let mut size = first.size.clone();
            *size.get_mut(axis)? = first.size.get(axis)?.add(second.size.get(axis)?)?;
            let step = vec![1; size.len()];
            s.op(
                Slice {
                    start: first.start,
                    size,
                    step,
                },
                &[x],
            )
        },
        generate: concat_of_slices,
    },
    RuleSpec {
        name: "concat-of-unary",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "concat(f(a), f(b)) = f(concat(a, b)), f element by element",
        patterns: &["(concat ?axis ({unary} ?a) ({unary} ?b))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let args = [m.var("?a", s)?, m.var("?b", s)?];
            let y = s.op(
                Concat {
                    axis: m.attr("?axis")?,
                },
                &args,
            )?;
            s.unary(m.unary()?, y)
        },
        generate: |g| {
            let (dims, other, axis) = beside(g);
            let (a, b, f) = (g.leaf(&dims), g.leaf(&other), g.any_unary());
            let (a, b) = (g.unary(f, a)?, g.unary(f, b)?);
            g.op(Concat { axis }, &[a, b])
        },
    },
    RuleSpec {
        name: "concat-of-binary",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "concat(f(a, b), f(c, d)) = f(concat(a, c), concat(b, d)), f element by element",
        patterns: &["(concat ?axis ({binary} ?a ?b) ({binary} ?c ?d))"],
        conditions: &[],
        guards: &[condition("the second operands are weights", |m| {
            Some(m.weight("?b") && m.weight("?d"))
        })],
        build: |m, s| {
            let axis: usize = m.attr("?axis")?;
            let left = [m.var("?a", s)?, m.var("?c", s)?];
            let right = [m.var("?b", s)?, m.var("?d", s)?];
            let (left, right) = (
                s.op(Concat { axis }, &left)?,
                s.op(Concat { axis }, &right)?,
            );
            s.binary(m.binary()?, left, right)
        },
        generate: |g| {
            let (dims, other, axis) = beside(g);
            let (small, small1) = (g.broadcast(&dims), g.broadcast(&other));
            let whole = g.once_in(2);
            let (small, small1) = if whole {
                (dims.clone(), other.clone())
            } else {
                (small, small1)
            };
            let f = g.any_binary();
            let (a, b) = (g.leaf(&dims), g.leaf(&small));
            let first = g.binary(f, a, b)?;
            let (c, d) = (g.leaf(&other), g.leaf(&small1));
            let second = g.binary(f, c, d)?;
            g.op(Concat { axis }, &[first, second])
        },
    },
    RuleSpec {
        name: "slice-of-pad",
        family: Family::Structure,
        fp: Fp::Exact,
        doc: "slice(pad(x)) = x",
        patterns: &["(slice ?start ?size ?step (pad ?low ?high ?interior ?x ?v))"],
        conditions: &[
            condition("the slice begins with x", |m| {
                Some(m.numbers("?start")? == m.numbers("?low")?)
            }),
            condition("nothing is between the elements", |m| {
                Some(m.numbers("?interior")?.iter().all(|n| *n == 0))
            }),
            condition("every element is taken", |m| {
                Some(m.numbers("?step")?.iter().all(|n| *n == 1))
            }),
        ],
        guards: &[],
        build: |m, s| m.var("?x", s),
        generate: slice_of_pad,
    },
    RuleSpec {
        name: "reduce-of-transpose",
        family: Family::Structure,
        fp: Fp::Reassoc,
        doc: "reduce(transpose(x)) = reduce(x), what is left being transposed",
        patterns: &["(reduce ?kind ?axes ?keep (transpose ?perm ?x))"],
        conditions: &[],
        guards: &[],
        build: |m, s| {
            let (order, axes) = (perm(m, "?perm")?, m.attr::<Vec<usize>>("?axes")?);
            let x = m.var("?x", s)?;
            let moved: Option<Vec<usize>> = axes.iter().map(|a| order.get(*a).copied()).collect();
            let moved = moved?;
            let keep = m.attr("?keep")?;
            let y = s.op(
                Reduce {
                    kind: m.attr("?kind")?,
                    axes: moved.clone(),
                    keep,
                },
                &[x],
            )?;
            if keep {
                return s.transpose(y, &order);
            }
            // The dims that are left, in the order of x and in that of the transposed value.
            let left: Vec<usize> = (0..order.len()).filter(|d| !moved.contains(d)).collect();
            let wanted = order.iter().filter(|d| !moved.contains(d));
            let at: Option<Vec<usize>> = wanted.map(|d| left.iter().position(|l| l == d)).collect();
            s.transpose(y, &at?)
        },
        generate: |g| {
            let dims = g.shape(1, 4);
            let (x, order) = (g.leaf(&dims), g.perm(dims.len()));
            let y = g.transpose(x, order)?;
            let (axes, kind) = (g.axes(dims.len()), any_kind(g));
            let keep = g.once_in(2);
            g.op(Reduce { kind, axes, keep }, &[y])
        },
    },
    RuleSpec {
        name: "reduce-of-reduce",
        family: Family::Structure,
        fp: Fp::Reassoc,
        doc: "reduce(reduce(x)) = one reduction over all the dims",
        patterns: &["(reduce ?kind ?axes ?keep (reduce ?kind1 ?axes1 ?keep1 ?x))"],
        conditions: &[condition("both combine in the same way", |m| {
            Some(m.raw("?kind")? == m.raw("?kind1")?)
        })],
        guards: &[],
        build: |m, s| {
            let (outer, inner) = (
                m.attr::<Vec<usize>>("?axes")?,
                m.attr::<Vec<usize>>("?axes1")?,
            );
            let (keep, kept) = (m.attr("?keep")?, m.attr::<bool>("?keep1")?);
            let x = m.var("?x", s)?;
            let rank = s.ty(x).rank();
            let left: Vec<usize> = (0..rank).filter(|d| kept || !inner.contains(d)).collect();
            let mut axes = inner.clone();
            for axis in outer {
                let axis = *left.get(axis)?;
                if !axes.contains(&axis) {
                    axes.push(axis);
                }
            }
            s.op(
                Reduce {
                    kind: m.attr("?kind")?,
                    axes,
                    keep,
                },
                &[x],
            )
        },
        generate: |g| {
            let dims = g.shape(2, 4);
            let x = g.leaf(&dims);
            let (kind, axes, keep) = (any_kind(g), g.axes(dims.len()), g.once_in(2));
            let y = g.op(Reduce { kind, axes, keep }, &[x])?;
            let rank = g.dims_of(y).len();
            let other = any_kind(g);
            let kind = if g.once_in(3) { other } else { kind };
            let keep = if g.once_in(3) { g.once_in(2) } else { keep };
            let axes = if rank == 0 { vec![] } else { g.axes(rank) };
            g.op(Reduce { kind, axes, keep }, &[y])
        },
    },
    RuleSpec {
        name: "max-of-non-negative",
        family: Family::Structure,
        // A negative zero would become a positive one.
        fp: Fp::Reassoc,
        doc: "max(x, c) = x",
        patterns: &["(max ?x ?c)", "(max ?c ?x)"],
        conditions: &[
            condition("c is at most zero", |m| {
                Some(m.splat("?c")?.to_f64() <= 0.0)
            }),
            condition("x is not negative", |m| Some(m.non_negative("?x"))),
        ],
        guards: &[],
        build: |m, s| m.var("?x", s),
        generate: |g| {
            let dims = g.shape(0, 4);
            let x = g.leaf(&dims);
            let f = g.pick(&[UnaryFn::Abs, UnaryFn::Sigmoid, UnaryFn::Exp, UnaryFn::Neg]);
            let zero = g.constant(&[], 0.0)?;
            let x = if g.once_in(3) {
                g.either(BinaryFn::Max, x, zero)?
            } else {
                g.unary(f, x)?
            };
            let value = g.pick(&[0.0, 0.0, -1.0, 1.0]);
            let small = g.broadcast(&dims);
            let c = g.constant(&small, value)?;
            g.either(BinaryFn::Max, x, c)
        },
    },
];

/// The order of dims that a variable is bound to.
pub(super) fn perm(m: &Match<'_>, var: &str) -> Option<Vec<usize>> {
    m.attr(var)
}

/// The slice that three variables are the attributes of.
fn range(m: &Match<'_>, start: &str, size: &str, step: &str) -> Option<Slice> {
    Some(Slice {
        start: m.attr(start)?,
        size: m.attr(size)?,
        step: m.attr(step)?,
    })
}

fn slice_of_concat(m: &Match<'_>, s: &mut Scratch) -> Option<Term> {
    let axis: usize = m.attr("?axis")?;
    let mut slice = range(m, "?start", "?size", "?step")?;
    let mut first = i64::try_from(slice.start.get(axis)?.as_const()?).ok()?;
    let (size, step) = (slice.size.get(axis)?.as_const()?, *slice.step.get(axis)?);
    let last = first.checked_add(step.checked_mul(i64::try_from(size).ok()?.checked_sub(1)?)?)?;
    let (low, high) = (first.min(last), first.max(last));
    let mut begin = 0;
    for var in ["?a", "?b", "?c"] {
        let operand = m.var(var, s)?;
        let end = begin + i64::try_from(*s.dims(operand).get(axis)?).ok()?;
        if begin <= low && high < end {
            first -= begin;
            slice.start[axis] = u64::try_from(first).ok()?.into();
            return s.op(slice, &[operand]);
        }
        begin = end;
    }
    None
}

fn any_kind(g: &mut Gen) -> ReduceKind {
    use ReduceKind::{Max, Min, Prod, Sum};
    g.pick(&[Sum, Sum, Prod, Max, Min])
}

/// Adds a slice of a value.
fn part(g: &mut Gen, x: Term) -> Option<Term> {
    let (mut start, mut size, mut step) = (vec![], vec![], vec![]);
    for d in g.dims_of(x) {
        let d = d as usize;
        let by = if g.once_in(4) { 2 } else { 1 };
        let from = g.below(d);
        let count = 1 + g.below((d - from).div_ceil(by));
        if g.once_in(5) {
            start.push(((from + (count - 1) * by) as u64).into());
            step.push(-(by as i64));
        } else {
            start.push((from as u64).into());
            step.push(by as i64);
        }
        size.push((count as u64).into());
    }
    g.op(Slice { start, size, step }, &[x])
}

/// Extents of two tensors that stand side by side along a dim.
fn beside(g: &mut Gen) -> (Vec<u64>, Vec<u64>, usize) {
    let dims = g.shape(1, 4);
    let axis = g.below(dims.len());
    let mut other = dims.clone();
    if g.once_in(2) {
        other[axis] = 1 + g.below(3) as u64;
    }
    (dims, other, axis)
}

fn concat_of_slices(g: &mut Gen) -> Option<Term> {
    let mut dims = g.shape(1, 3);
    let axis = g.below(dims.len());
    dims[axis] += 4;
    let x = g.leaf(&dims);
    let mut pieces = vec![];
    let sizes = [1 + g.below(2), 1 + g.below(2)];
    let mut from = g.below(2);
    let others: Vec<(u64, u64)> = dims
        .iter()
        .map(|d| {
            let start = g.below(*d as usize) as u64;
            (start, 1 + g.below((d - start) as usize) as u64)
        })
        .collect();
    for size in sizes {
        let (mut start, mut extent) = (vec![], vec![]);
        let mut step = vec![1i64; dims.len()];
        for (d, (o, n)) in others.iter().enumerate() {
            let moved = g.once_in(6) && o + n < dims[d];
            start.push(if d == axis {
                from as u64
            } else {
                o + u64::from(moved)
            });
            extent.push(if d == axis { size as u64 } else { *n });
        }
        if g.once_in(4) && size == 2 && from as u64 + 2 < dims[axis] {
            step[axis] = 2;
        }
        let slice = Slice {
            start: start.into_iter().map(Into::into).collect(),
            size: extent.into_iter().map(Into::into).collect(),
            step,
        };
        pieces.push(g.op(slice, &[x])?);
        from += size + usize::from(g.once_in(4));
    }
    g.op(Concat { axis }, &pieces)
}

fn slice_of_pad(g: &mut Gen) -> Option<Term> {
    let dims = g.shape(1, 4);
    let x = g.leaf(&dims);
    let amounts = |g: &mut Gen| -> Vec<i64> { dims.iter().map(|_| g.below(3) as i64).collect() };
    let (low, high) = (amounts(g), amounts(g));
    let between = g.once_in(4);
    let interior: Vec<u64> = dims
        .iter()
        .map(|_| if between { g.below(2) as u64 } else { 0 })
        .collect();
    let value = g.leaf(&[]);
    let padded = g.op(
        Pad {
            low: low.clone(),
            high,
            interior,
        },
        &[x, value],
    )?;
    let extents = g.dims_of(padded);
    let shifted = g.once_in(3);
    let (mut start, mut step) = (vec![], vec![]);
    for (d, n) in dims.iter().enumerate() {
        let most = extents[d] - n;
        let other = g.below(most as usize + 1) as u64;
        start.push(if shifted { other } else { low[d] as u64 }.into());
        let wide = g.once_in(6) && low[d] as u64 + 2 * (n - 1) < extents[d];
        step.push(if wide { 2 } else { 1 });
    }
    let size = dims.iter().map(|d| (*d).into()).collect();
    g.op(Slice { start, size, step }, &[padded])
}
