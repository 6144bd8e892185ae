//! Which elements the cores of a grid hold together, and boxes under different views.

use std::ops::Range;

use super::super::layout::balanced;
use super::{Grid, Layout};
use crate::tiled::Split;

/// The elements of a dim that some core holds, as disjoint ranges in ascending order.
fn held(split: &Split, extent: u64, grid: &Grid) -> Vec<Range<u64>> {
    // Blocks without gaps need not be listed: they are balanced over all elements.
    let seamless = split.stride == 1 && split.low >= 0 && split.high >= 0 && split.extent == extent;
    if seamless {
        return Vec::from_iter((extent > 0).then_some(0..extent));
    }
    let count: u64 = split.axes.iter().map(|a| grid.axes[*a].size).product();
    let blocks = (0..count).map(|at| balanced(split.extent, split.unit, count, at));
    let mut ranges: Vec<Range<u64>> = blocks
        .map(|iterations| split.elements_of(extent, &iterations))
        .filter(|r| !r.is_empty())
        .collect();
    ranges.sort_by_key(|r| r.start);
    let mut joined: Vec<Range<u64>> = vec![];
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn is_empty(layout: &Layout) -> bool {
    layout.view.contains(&0)
}

/// Whether every element is on some core.
pub(super) fn is_complete(layout: &Layout, grid: &Grid) -> bool {
    let whole =
        |(split, extent): (&Split, &u64)| held(split, *extent, grid).first() == Some(&(0..*extent));
    is_empty(layout) || layout.splits.iter().zip(&layout.view).all(whole)
}

/// That what the cores of one layout get is held by cores of the other.
pub(super) fn resharded(from: (&Layout, &Grid), to: (&Layout, &Grid)) -> Result<(), String> {
    if is_complete(from.0, from.1) || from.0.same_places(to.0) {
        return Ok(());
    }
    if from.0.view != to.0.view {
        return Err("the input holds a part of its elements, under another view".into());
    }
    let pairs = from.0.splits.iter().zip(&to.0.splits);
    for (dim, ((source, target), extent)) in pairs.zip(&from.0.view).enumerate() {
        let source = held(source, *extent, from.1);
        let within = |r: &Range<u64>| source.iter().any(|s| s.start <= r.start && r.end <= s.end);
        if let Some(range) = held(target, *extent, to.1).iter().find(|r| !within(r)) {
            return Err(format!("no core holds all of {range:?} of dim {dim}"));
        }
    }
    Ok(())
}

/// A smallest box under the view `to` that has all elements of a box under the view `from`; both
/// views have the same elements in the same order. Where dims of neither are products of dims of the
/// other it may be larger than the smallest.
pub(super) fn under(bounds: &[Range<u64>], from: &[u64], to: &[u64]) -> Vec<Range<u64>> {
    if from == to {
        return bounds.to_vec();
    }
    if bounds.iter().any(Range::is_empty) {
        return vec![0..0; to.len()];
    }
    let mut result = vec![];
    for (source, target) in groups(from, to) {
        let linear = |pick: fn(&Range<u64>) -> u64| {
            let dims = source.clone().map(|d| (pick(&bounds[d]), from[d]));
            dims.fold(0, |at, (index, extent)| at * extent + index)
        };
        let (first, last) = (linear(|r| r.start), linear(|r| r.end - 1));
        let shape = &to[target];
        let (low, high) = (
            crate::tensor::unravel(first, shape),
            crate::tensor::unravel(last, shape),
        );
        let mut cut = false;
        for ((low, high), extent) in low.iter().zip(&high).zip(shape) {
            result.push(if cut { 0..*extent } else { *low..*high + 1 });
            cut |= low != high;
        }
    }
    result
}

/// Runs of dims of two views with the same numbers of elements, as short as possible.
fn groups(from: &[u64], to: &[u64]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut groups: Vec<(Range<usize>, Range<usize>)> = vec![];
    let (mut i, mut j) = (0, 0);
    while i < from.len() && j < to.len() {
        let (first, second) = (i, j);
        let (mut a, mut b) = (from[i], to[j]);
        i += 1;
        j += 1;
        while a != b {
            if a < b && i < from.len() {
                a = a.saturating_mul(from[i]);
                i += 1;
            } else if a > b && j < to.len() {
                b = b.saturating_mul(to[j]);
                j += 1;
            } else {
                break;
            }
        }
        groups.push((first..i, second..j));
    }
    // What is left has one element.
    match groups.last_mut() {
        Some(last) => {
            last.0.end = from.len();
            last.1.end = to.len();
        }
        None => groups.push((0..from.len(), 0..to.len())),
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_move_between_views() {
        fn one(range: Range<u64>) -> Vec<Range<u64>> {
            vec![range]
        }
        assert_eq!(under(&[2..4, 0..8], &[4, 8], &[32]), one(16..32));
        assert_eq!(under(&[1..2, 3..5], &[4, 8], &[32]), one(11..13));
        assert_eq!(under(&one(10..20), &[32], &[4, 8]), [1..3, 0..8]);
        assert_eq!(under(&one(9..11), &[32], &[4, 8]), [1..2, 1..3]);
        assert_eq!(
            under(&[1..2, 2..3], &[3, 4], &[1, 3, 1, 4, 1]),
            [0..1, 1..2, 0..1, 2..3, 0..1]
        );
        assert_eq!(under(&[0..1, 1..3], &[1, 3], &[3]), one(1..3));
        assert_eq!(under(&[], &[], &[1, 1]), [0..1, 0..1]);
        assert_eq!(under(&[1..3, 2..2], &[4, 8], &[32]), one(0..0));
    }
}
