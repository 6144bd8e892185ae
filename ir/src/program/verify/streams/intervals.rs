//! Maps from byte intervals to values.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// Disjoint half-open intervals of bytes, each with a value. Bytes may have none.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Intervals<T> {
    /// By first byte: the byte behind the last, and the value.
    map: BTreeMap<i64, (i64, T)>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self {
            map: BTreeMap::new(),
        }
    }
}

impl<T> FromIterator<(i64, i64, T)> for Intervals<T> {
    /// Intervals that do not meet.
    fn from_iter<I: IntoIterator<Item = (i64, i64, T)>>(intervals: I) -> Self {
        let intervals = intervals.into_iter();
        Self {
            map: intervals
                .map(|(low, high, value)| (low, (high, value)))
                .collect(),
        }
    }
}

impl<T: Clone> Intervals<T> {
    /// All intervals, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, i64, &T)> {
        self.map
            .iter()
            .map(|(low, (high, value))| (*low, *high, value))
    }

    /// Those that meet `low..high`, cut to it, ascending.
    pub(super) fn within(&self, low: i64, high: i64) -> impl Iterator<Item = (i64, i64, &T)> {
        let before = self.map.range(..low).next_back();
        let before = before.filter(|(_, (end, _))| *end > low && low < high);
        before
            .into_iter()
            .chain(self.map.range(low..high.max(low)))
            .map(move |(start, (end, value))| ((*start).max(low), (*end).min(high), value))
    }

    /// Makes `at` a border of intervals.
    fn split(&mut self, at: i64) {
        let Some((_, (end, value))) = self.map.range_mut(..at).next_back() else {
            return;
        };
        if *end > at {
            let upper = (*end, value.clone());
            *end = at;
            self.map.insert(at, upper);
        }
    }

    /// Shows every interval within `low..high` to `change`, where bytes without value appear as
    /// intervals with the value `default`. Returns how many intervals that were.
    pub(super) fn visit(
        &mut self,
        low: i64,
        high: i64,
        default: &T,
        mut change: impl FnMut(i64, i64, &mut T),
    ) -> u64 {
        if low >= high {
            return 0;
        }
        if let Some((start, (end, value))) = self.map.range_mut(..=low).next_back()
            && *start == low
            && *end == high
        {
            change(low, high, value);
            return 1;
        }
        self.split(low);
        self.split(high);
        self.fill(low, high, default);
        let mut count = 0;
        for (start, (end, value)) in self.map.range_mut(low..high) {
            change(*start, *end, value);
            count += 1;
        }
        count
    }

    /// Gives `default` to the bytes of `low..high` that have no value. `low` is no inner byte of an
    /// interval.
    fn fill(&mut self, low: i64, high: i64, default: &T) {
        let mut gaps = Vec::new();
        let mut at = low;
        for (start, (end, _)) in self.map.range(low..high) {
            if *start > at {
                gaps.push((at, *start));
            }
            at = *end;
        }
        if at < high {
            gaps.push((at, high));
        }
        for (start, end) in gaps {
            self.map.insert(start, (end, default.clone()));
        }
    }

    /// Gives one value to all bytes of `low..high`.
    pub(super) fn set(&mut self, low: i64, high: i64, value: T) {
        if low >= high {
            return;
        }
        // Most writes go to bytes without value, or to those of one interval again.
        match self.map.range_mut(..high).next_back() {
            Some((start, (end, old))) if *start == low && *end == high => {
                *old = value;
                return;
            }
            Some((_, (end, _))) if *end > low => self.remove(low, high),
            _ => {}
        }
        self.map.insert(low, (high, value));
    }

    /// Takes the values of all bytes of `low..high` away.
    pub(super) fn remove(&mut self, low: i64, high: i64) {
        if low >= high {
            return;
        }
        self.split(low);
        self.split(high);
        // One interval is the common case.
        while let Some(start) = self.map.range(low..high).next().map(|(start, _)| *start) {
            self.map.remove(&start);
        }
    }
}

impl<T: Clone + PartialEq> Intervals<T> {
    /// Gives one value to all bytes of `low..high`, as one interval with neighbours of equal value:
    /// maps that are only changed so are equal if their bytes have equal values.
    pub(super) fn put(&mut self, low: i64, high: i64, value: T) {
        if low >= high {
            return;
        }
        let (mut low, mut high) = (low, high);
        if let Some((start, (end, old))) = self.map.range(..low).next_back()
            && *end >= low
            && *old == value
        {
            (low, high) = (*start, high.max(*end));
        }
        if let Some((_, (end, old))) = self.map.range(low..=high).next_back()
            && *end > high
            && *old == value
        {
            high = *end;
        }
        self.set(low, high, value);
    }

    /// Joins neighbours of equal value.
    pub(super) fn join(&mut self) {
        let mut at = self.map.first_key_value().map(|(start, _)| *start);
        while let Some(start) = at {
            let (end, value) = self.map[&start].clone();
            match self.map.range((Excluded(start), Unbounded)).next() {
                Some((next, (next_end, next_value))) if *next == end && *next_value == value => {
                    let (next, next_end) = (*next, *next_end);
                    self.map.remove(&next);
                    self.map.insert(start, (next_end, value));
                }
                next => at = next.map(|(next, _)| *next),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(map: &Intervals<u8>) -> Vec<(i64, i64, u8)> {
        map.iter()
            .map(|(low, high, value)| (low, high, *value))
            .collect()
    }

    #[test]
    fn intervals_split_fill_and_join() {
        let mut map = Intervals::default();
        map.set(10, 20, 1);
        map.set(14, 16, 2);
        assert_eq!(list(&map), [(10, 14, 1), (14, 16, 2), (16, 20, 1)]);
        let seen: Vec<_> = map.within(12, 15).map(|(a, b, v)| (a, b, *v)).collect();
        assert_eq!(seen, [(12, 14, 1), (14, 15, 2)]);
        assert_eq!(map.within(20, 30).count(), 0);
        assert_eq!(map.within(12, 12).count(), 0);
        let count = map.visit(5, 15, &0, |_, _, value| *value += 10);
        assert_eq!(count, 3);
        let expected = [
            (5, 10, 10),
            (10, 14, 11),
            (14, 15, 12),
            (15, 16, 2),
            (16, 20, 1),
        ];
        assert_eq!(list(&map), expected);
        map.remove(0, 15);
        map.set(15, 16, 1);
        map.join();
        assert_eq!(list(&map), [(15, 20, 1)]);
        map.set(7, 7, 9);
        assert_eq!(map.iter().count(), 1);
    }
}
