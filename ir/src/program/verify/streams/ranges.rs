//! Sets of bytes.

/// A set of bytes as disjoint half-open ranges that do not touch.
///
/// There are few of them, so a sorted list is searched and changed faster than a tree.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Ranges {
    /// Ascending.
    list: Vec<(i64, i64)>,
}

impl Ranges {
    /// Adds `low..high`.
    pub(super) fn insert(&mut self, low: i64, high: i64) {
        if low >= high {
            return;
        }
        let first = self.list.partition_point(|(_, end)| *end < low);
        let met = self.met(first, |start| start <= high);
        if met == 0 {
            self.list.insert(first, (low, high));
            return;
        }
        // What it meets becomes a part of it.
        let end = self.list[first + met - 1].1.max(high);
        let range = &mut self.list[first];
        *range = (range.0.min(low), end);
        if met > 1 {
            self.list.drain(first + 1..first + met);
        }
    }

    /// Takes `low..high` away.
    pub(super) fn remove(&mut self, low: i64, high: i64) {
        if low >= high {
            return;
        }
        let first = self.list.partition_point(|(_, end)| *end <= low);
        let met = self.met(first, |start| start < high);
        if met == 0 {
            return;
        }
        let (start, end) = (self.list[first].0, self.list[first + met - 1].1);
        let below = (start < low).then_some((start, low));
        let above = (end > high).then_some((high, end));
        self.list
            .splice(first..first + met, below.into_iter().chain(above));
    }

    /// How many ranges from `first` on start early enough: mostly none or one.
    fn met(&self, first: usize, early: impl Fn(i64) -> bool) -> usize {
        let rest = self.list[first..].iter();
        rest.take_while(|(start, _)| early(*start)).count()
    }

    /// Whether a byte of `low..high` is in the set.
    pub(super) fn meets(&self, low: i64, high: i64) -> bool {
        let next = self.list.partition_point(|(_, end)| *end <= low);
        low < high && self.list.get(next).is_some_and(|(start, _)| *start < high)
    }

    /// The first bytes of `low..high` that are not in the set.
    pub(super) fn gap(&self, low: i64, high: i64) -> Option<(i64, i64)> {
        let next = self.list.partition_point(|(_, end)| *end <= low);
        let mut rest = self.list[next..].iter().copied().peekable();
        let start = match rest.next_if(|(start, _)| *start <= low) {
            Some((_, end)) => end,
            None => low,
        };
        let end = rest.peek().map_or(high, |(start, _)| high.min(*start));
        (start < high).then_some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn they_are_as_a_list_of_bytes() {
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(7);
        let (mut ranges, mut bytes) = (Ranges::default(), [false; 40]);
        for _ in 0..20_000 {
            let (low, len) = (rng.random_range(0..38i64), rng.random_range(0..9));
            let high = (low + len).min(40);
            let there = rng.random_range(0..2) == 0;
            match there {
                true => ranges.insert(low, high),
                false => ranges.remove(low, high),
            }
            bytes[low as usize..high as usize].fill(there);
            let mut expected = Vec::new();
            for at in 0..40 {
                if bytes[at] && (at == 0 || !bytes[at - 1]) {
                    let end = bytes[at..].iter().position(|b| !b);
                    expected.push((at as i64, end.map_or(40, |n| (at + n) as i64)));
                }
            }
            assert_eq!(ranges.list, expected);
            let (low, high) = (rng.random_range(0..20), rng.random_range(20..40));
            let gap = (low..high).find(|at| !bytes[*at as usize]).map(|start| {
                let end = (start..high).find(|at| bytes[*at as usize]);
                (start, end.unwrap_or(high))
            });
            assert_eq!(ranges.gap(low, high), gap);
            let (low, high) = (rng.random_range(0..38), rng.random_range(0..38));
            let meets = (low..high).any(|at| bytes[at as usize]);
            assert_eq!(ranges.meets(low, high), meets);
        }
    }
}
