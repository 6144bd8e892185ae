//! Boxes of indices, and views of one tensor that refine each other.

use std::ops::Range;

/// A box of indices, not empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Part {
    /// First index in each dim.
    pub start: Vec<u64>,
    /// Extents.
    pub size: Vec<u64>,
}

impl Part {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.size.iter().product()
    }

    fn end(&self, dim: usize) -> u64 {
        self.start[dim] + self.size[dim]
    }

    /// What both have, if anything.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let dims = || 0..self.start.len();
        let low = |d: usize| self.start[d].max(other.start[d]);
        let high = |d: usize| self.end(d).min(other.end(d));
        dims().all(|d| low(d) < high(d)).then(|| Self {
            start: dims().map(low).collect(),
            size: dims().map(|d| high(d) - low(d)).collect(),
        })
    }

    /// Disjoint boxes of what it has and `other`, which lies inside of it, has not.
    pub fn without(&self, other: &Self) -> Vec<Self> {
        let mut rest = self.clone();
        let mut parts = vec![];
        for d in 0..self.start.len() {
            let mut cut = |from: u64, to: u64| {
                if from < to {
                    let mut part = rest.clone();
                    (part.start[d], part.size[d]) = (from, to - from);
                    parts.push(part);
                }
            };
            cut(self.start[d], other.start[d]);
            cut(other.end(d), self.end(d));
            (rest.start[d], rest.size[d]) = (other.start[d], other.size[d]);
        }
        parts
    }

    /// About `count` boxes of the same elements, cut along one dim.
    pub fn pieces(&self, count: u64) -> Vec<Self> {
        let dims = self.size.iter().enumerate();
        let enough = dims.clone().find(|(_, size)| **size >= count);
        // The first of the longest ones.
        let longest = || dims.rev().max_by_key(|(_, size)| **size);
        let Some((d, size)) = enough.or_else(longest) else {
            return vec![self.clone()];
        };
        let count = count.clamp(1, *size);
        let bound = |k: u64| (u128::from(k) * u128::from(*size) / u128::from(count)) as u64;
        let piece = |k: u64| {
            let mut part = self.clone();
            part.start[d] += bound(k);
            part.size[d] = bound(k + 1) - bound(k);
            part
        };
        (0..count).map(piece).collect()
    }
}

/// Joins boxes, which are disjoint, where neighbours make a box. Sorted by their starts.
pub fn merged(mut parts: Vec<Part>) -> Vec<Part> {
    let rank = parts.first().map_or(0, |part| part.start.len());
    let mut before = usize::MAX;
    while parts.len() > 1 && parts.len() < before {
        before = parts.len();
        for d in (0..rank).rev() {
            // Neighbours along a dim are neighbours in the list if the dim is the last in order.
            let rotated = |part: &Part| {
                let mut key = (part.start.clone(), part.size.clone());
                key.0[d] = 0;
                key.1[d] = 0;
                (key, part.start[d])
            };
            parts.sort_by_cached_key(rotated);
            let mut list: Vec<Part> = Vec::with_capacity(parts.len());
            for next in parts {
                match list.last_mut() {
                    Some(last) if continues(last, &next, d) => last.size[d] += next.size[d],
                    _ => list.push(next),
                }
            }
            parts = list;
        }
    }
    parts.sort();
    parts
}

fn continues(last: &Part, next: &Part, dim: usize) -> bool {
    last.end(dim) == next.start[dim]
        && (0..last.start.len())
            .filter(|d| *d != dim)
            .all(|d| (last.start[d], last.size[d]) == (next.start[d], next.size[d]))
}

/// Extents that refine both views of one tensor: each dim of a view is a product of consecutive
/// ones of them. Where there are none, dims of both views that have the same product are one dim.
/// Dims of extent 1 are left out. `None` if the views have different numbers of elements.
pub fn refine(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let extents = |view: &[u64]| -> Vec<u64> { view.iter().copied().filter(|e| *e != 1).collect() };
    let (a, b) = (extents(a), extents(b));
    if a.contains(&0) || b.contains(&0) {
        return (a.contains(&0) && b.contains(&0)).then(|| vec![0]);
    }
    let mut refined = vec![];
    for (x, y) in equal_products(&a, &b)? {
        match factors(&a[x.clone()], &b[y]) {
            Some(factors) => refined.extend(factors),
            None => refined.push(a[x].iter().product()),
        }
    }
    Some(refined)
}

/// The shortest runs of both lists, which have no 0 and no 1, with the same products.
fn equal_products(a: &[u64], b: &[u64]) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    let mut runs = vec![];
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (i0, j0) = (i, j);
        let (mut x, mut y) = (u128::from(a[i]), u128::from(b[j]));
        while x != y {
            if x < y {
                i += 1;
                x = x.checked_mul(u128::from(*a.get(i)?))?;
            } else {
                j += 1;
                y = y.checked_mul(u128::from(*b.get(j)?))?;
            }
        }
        (i, j) = (i + 1, j + 1);
        runs.push((i0..i, j0..j));
    }
    (i == a.len() && j == b.len()).then_some(runs)
}

/// Factors of the extents of both lists, whose products are the same.
fn factors(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let (mut a, mut b) = (a.iter().copied(), b.iter().copied());
    let (mut x, mut y) = (a.next()?, b.next()?);
    let mut factors = vec![];
    loop {
        let factor = x.min(y);
        if x.max(y) % factor != 0 {
            return None;
        }
        factors.push(factor);
        (x, y) = (x / factor, y / factor);
        if x == 1 {
            x = a.next().unwrap_or(1);
        }
        if y == 1 {
            y = b.next().unwrap_or(1);
        }
        if x == 1 && y == 1 {
            return Some(factors);
        }
    }
}

/// Which dims of a view stand for which ones of a refinement of [`refine`]: one for several, or
/// several for one. Dims of extent 1 are not among them.
pub fn storage_dims(view: &[u64], refined: &[u64]) -> Option<Vec<(Vec<usize>, Range<usize>)>> {
    let dims: Vec<usize> = (0..view.len()).filter(|d| view[*d] != 1).collect();
    let extents: Vec<u64> = dims.iter().map(|d| view[*d]).collect();
    let runs = equal_products(&extents, refined)?.into_iter();
    let runs: Vec<_> = runs.map(|(x, y)| (dims[x].to_vec(), y)).collect();
    runs.iter()
        .all(|(x, y)| x.len() == 1 || y.len() == 1)
        .then_some(runs)
}

/// A block of a view as disjoint boxes of a refinement. `None` if it is more than `limit` boxes, or
/// the view is not refined.
pub fn parts_of(
    block: &[Range<u64>],
    view: &[u64],
    refined: &[u64],
    limit: usize,
) -> Option<Vec<Part>> {
    let mut parts = vec![Part {
        start: vec![],
        size: vec![],
    }];
    if block.iter().any(Range::is_empty) {
        return Some(vec![]);
    }
    for (dims, run) in storage_dims(view, refined)? {
        let boxes = match dims.as_slice() {
            [dim] => boxes_of_range(&block[*dim], &refined[run]),
            dims => runs_of_box(dims.iter().map(|d| (&block[*d], view[*d])), limit)?,
        };
        if parts.len().saturating_mul(boxes.len()) > limit {
            return None;
        }
        let product = |part: &Part| {
            let boxes = boxes.iter().map(|b| Part {
                start: [&*part.start, &*b.start].concat(),
                size: [&*part.size, &*b.size].concat(),
            });
            boxes.collect::<Vec<_>>()
        };
        parts = parts.iter().flat_map(product).collect();
    }
    Some(parts)
}

/// Boxes over factors of an extent that a range of it, which is not empty, consists of.
pub fn boxes_of_range(range: &Range<u64>, factors: &[u64]) -> Vec<Part> {
    let Some((_, inner)) = factors.split_first() else {
        return vec![];
    };
    let whole = inner.iter().product::<u64>();
    let plain = |start: u64, end: u64| Part {
        start: std::iter::once(start)
            .chain(inner.iter().map(|_| 0))
            .collect(),
        size: std::iter::once(end - start)
            .chain(inner.iter().copied())
            .collect(),
    };
    let (mut low, high) = (range.start / whole, range.end / whole);
    let (head, tail) = (range.start % whole, range.end % whole);
    let mut parts = vec![];
    let within = |at: u64, range: Range<u64>| {
        let boxes = boxes_of_range(&range, inner).into_iter();
        boxes.map(move |b| Part {
            start: [&[at], &*b.start].concat(),
            size: [&[1], &*b.size].concat(),
        })
    };
    if low == high {
        return within(low, head..tail).collect();
    }
    if head > 0 {
        parts.extend(within(low, head..whole));
        low += 1;
    }
    if low < high {
        parts.push(plain(low, high));
    }
    if tail > 0 {
        parts.extend(within(high, 0..tail));
    }
    parts
}

/// Runs of flat elements that a box, given as ranges with the extents of their dims, consists of.
fn runs_of_box<'a>(
    dims: impl DoubleEndedIterator<Item = (&'a Range<u64>, u64)>,
    limit: usize,
) -> Option<Vec<Part>> {
    // From the inside: runs within what the dims so far are together.
    let mut runs: Vec<Range<u64>> = std::iter::once(0..1).collect();
    let mut whole = 1u64;
    for (range, extent) in dims.rev() {
        if runs.len() == 1 && runs[0] == (0..whole) {
            runs[0] = range.start * whole..range.end * whole;
        } else {
            let count = usize::try_from(range.end - range.start).ok()?;
            if runs.len().saturating_mul(count) > limit {
                return None;
            }
            let moved = |at: u64| {
                runs.iter()
                    .map(move |r| r.start + at * whole..r.end + at * whole)
            };
            runs = range.clone().flat_map(moved).collect();
        }
        whole *= extent;
    }
    let part = |run: Range<u64>| Part {
        start: vec![run.start],
        size: vec![run.end - run.start],
    };
    Some(runs.into_iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn flat(part: &Part, view: &[u64]) -> Vec<u64> {
        let mut all = vec![0];
        for (d, extent) in view.iter().enumerate() {
            let next = |at: &u64| {
                let at = at * extent + part.start[d];
                at..at + part.size[d]
            };
            all = all.iter().flat_map(next).collect();
        }
        all
    }

    #[test]
    fn views_refine_each_other() {
        assert_eq!(refine(&[6], &[2, 3]), Some(vec![2, 3]));
        assert_eq!(refine(&[4, 6], &[8, 3]), Some(vec![4, 2, 3]));
        assert_eq!(refine(&[1, 6, 1, 4], &[24, 1]), Some(vec![6, 4]));
        assert_eq!(refine(&[5, 6, 4, 7], &[5, 8, 3, 7]), Some(vec![5, 24, 7]));
        assert_eq!(refine(&[6, 4], &[8, 4]), None);
        assert_eq!(refine(&[1], &[]), Some(vec![]));
        assert_eq!(refine(&[0, 4], &[8, 0]), Some(vec![0]));
        assert_eq!(storage_dims(&[1, 24], &[6, 4]), Some(vec![(vec![1], 0..2)]));
        assert_eq!(
            storage_dims(&[6, 1, 4], &[24]),
            Some(vec![(vec![0, 2], 0..1)])
        );
    }

    #[test]
    fn blocks_become_boxes_of_the_same_elements() {
        let views: [(&[u64], &[u64]); 4] = [
            (&[24], &[2, 3, 4]),
            (&[4, 6], &[24]),
            (&[3, 1, 8], &[3, 2, 4]),
            (&[2, 3, 4], &[24]),
        ];
        for (view, refined) in views {
            let whole = Part {
                start: vec![0; view.len()],
                size: view.to_vec(),
            };
            for low in flat(&whole, view) {
                for high in flat(&whole, view) {
                    let mut block = vec![];
                    let (mut low, mut high) = (low, high);
                    for extent in view.iter().rev() {
                        let (a, b) = (low % extent, high % extent);
                        block.insert(0, a.min(b)..a.max(b) + 1);
                        (low, high) = (low / extent, high / extent);
                    }
                    let start = block.iter().map(|r| r.start).collect();
                    let size = block.iter().map(|r| r.end - r.start).collect();
                    let want = flat(&Part { start, size }, view);
                    let parts = parts_of(&block, view, refined, 100).unwrap();
                    let mut found: Vec<u64> = parts.iter().flat_map(|p| flat(p, refined)).collect();
                    found.sort_unstable();
                    assert_eq!(found, want, "{block:?} of {view:?} over {refined:?}");
                }
            }
        }
        assert_eq!(parts_of(&[0..4, 1..3], &[4, 6], &[24], 3), None);
    }

    #[test]
    fn what_is_cut_merges_again() {
        let view = [6, 5, 4];
        let whole = Part {
            start: vec![0; 3],
            size: view.to_vec(),
        };
        let inner = Part {
            start: vec![1, 2, 0],
            size: vec![3, 1, 4],
        };
        let mut parts = whole.without(&inner);
        let elements: Vec<u64> = parts.iter().flat_map(|p| flat(p, &view)).collect();
        let distinct: BTreeSet<u64> = elements.iter().copied().collect();
        assert_eq!((elements.len(), distinct.len()), (120 - 12, 120 - 12));
        assert!(flat(&inner, &view).iter().all(|e| !distinct.contains(e)));
        parts.push(inner);
        assert_eq!(merged(parts), std::slice::from_ref(&whole));
        let pieces: Vec<Part> = whole.pieces(4).iter().flat_map(|p| p.pieces(5)).collect();
        assert_eq!(pieces.len(), 20);
        assert_eq!(merged(pieces), std::slice::from_ref(&whole));
        assert_eq!(whole.pieces(50).len(), 6);
    }
}
