//! Sets of bytes.

use std::collections::BTreeMap;

/// A set of bytes as disjoint half-open ranges that do not touch.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Ranges {
    /// By first byte: the byte behind the last.
    map: BTreeMap<i64, i64>,
}

impl Ranges {
    /// Adds `low..high`.
    pub(super) fn insert(&mut self, low: i64, high: i64) {
        if low >= high {
            return;
        }
        let (mut low, mut high) = (low, high);
        if let Some((start, end)) = self.map.range(..=low).next_back()
            && *end >= low
        {
            if *end >= high {
                return;
            }
            low = *start;
        }
        // What follows and meets it becomes a part of it.
        while let Some((start, end)) = self.map.range(low..=high).next_back() {
            let (start, end) = (*start, *end);
            high = high.max(end);
            if start == low {
                break;
            }
            self.map.remove(&start);
        }
        self.map.insert(low, high);
    }

    /// Takes `low..high` away.
    pub(super) fn remove(&mut self, low: i64, high: i64) {
        if low >= high {
            return;
        }
        while let Some((start, end)) = self.map.range_mut(..high).next_back() {
            let (first, last) = (*start, *end);
            if last <= low {
                return;
            }
            if first < low {
                *end = low;
            } else {
                self.map.remove(&first);
            }
            if last > high {
                self.map.insert(high, last);
            }
        }
    }

    /// Whether a byte of `low..high` is in the set.
    pub(super) fn meets(&self, low: i64, high: i64) -> bool {
        let before = self.map.range(..high).next_back();
        low < high && before.is_some_and(|(_, end)| *end > low)
    }

    /// The first bytes of `low..high` that are not in the set.
    pub(super) fn gap(&self, low: i64, high: i64) -> Option<(i64, i64)> {
        let before = self.map.range(..=low).next_back();
        let start = before.map_or(low, |(_, end)| low.max(*end));
        if start >= high {
            return None;
        }
        let next = self.map.range(start..high).next();
        Some((start, next.map_or(high, |(start, _)| *start)))
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
            let mut expected = BTreeMap::new();
            for at in 0..40 {
                if bytes[at] && (at == 0 || !bytes[at - 1]) {
                    let end = bytes[at..].iter().position(|b| !b);
                    expected.insert(at as i64, end.map_or(40, |n| (at + n) as i64));
                }
            }
            assert_eq!(ranges.map, expected);
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
