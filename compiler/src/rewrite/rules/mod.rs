//! The rules, by theme.

mod conv;
mod matmul;
mod norm;
mod scale;
mod structure;

use super::rule::{Condition, Match, RuleSpec};
use super::scratch::{Scratch, Term};

/// All rules, in the order in which they are applied.
pub fn all() -> Vec<RuleSpec> {
    let themes = [
        structure::RULES,
        matmul::RULES,
        scale::RULES,
        conv::RULES,
        norm::RULES,
    ];
    themes.into_iter().flatten().copied().collect()
}

/// A condition, for tables.
const fn condition(name: &'static str, holds: fn(&Match<'_>) -> Option<bool>) -> Condition {
    Condition { name, holds }
}

/// Whether a variable has one element.
fn one_element(m: &Match<'_>, var: &str) -> Option<bool> {
    Some(m.dims(var)?.iter().all(|d| *d == 1))
}

/// Whether a variable, broadcast to `rank` dims, varies along `axis` alone.
fn only_along(m: &Match<'_>, var: &str, rank: usize, axis: usize) -> Option<bool> {
    let dims = m.dims(var)?;
    let skip = rank.checked_sub(dims.len())?;
    let mut others = dims.iter().enumerate().filter(|(n, _)| n + skip != axis);
    Some(others.all(|(_, d)| *d == 1))
}

/// Whether a variable has a floating-point type.
fn is_float(m: &Match<'_>, var: &str) -> Option<bool> {
    Some(m.ty(var)?.dtype.is_float())
}

/// The extents of `dims` with ones in front, so that there are `rank`.
fn padded(dims: &[u64], rank: usize) -> Option<Vec<u64>> {
    let mut out = vec![1; rank.checked_sub(dims.len())?];
    out.extend(dims);
    Some(out)
}

/// A value without its leading extents of one.
fn trimmed(s: &mut Scratch, x: Term) -> Option<Term> {
    let dims = s.dims(x);
    let from = dims.iter().position(|d| *d != 1).unwrap_or(dims.len());
    s.reshape(x, &dims[from..])
}
