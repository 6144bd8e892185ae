//! Sets of bytes as intervals.

/// Ascending intervals (start, length), neither overlapping nor touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an interval.
    pub(super) fn insert(&mut self, start: u64, len: u64) {
        if len == 0 {
            return;
        }
        let end = start + len;
        let from = self.0.partition_point(|(s, l)| s + l < start);
        let to = self.0.partition_point(|(s, _)| *s <= end).max(from);
        let low = self.0[from..to]
            .first()
            .map_or(start, |(s, _)| start.min(*s));
        let high = self.0[from..to].last().map_or(end, |(s, l)| end.max(s + l));
        self.0.splice(from..to, [(low, high - low)]);
    }

    /// The parts within an interval.
    pub(super) fn within(&self, start: u64, len: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = start + len;
        let from = self.0.partition_point(move |(s, l)| s + l <= start);
        let parts = self.0[from..].iter().take_while(move |(s, _)| *s < end);
        parts.map(move |(s, l)| {
            let (low, high) = (start.max(*s), end.min(s + l));
            (low, high - low)
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_merge() {
        let mut set = Intervals::default();
        for (start, len) in [(10, 5), (30, 5), (20, 2), (15, 5), (40, 0)] {
            set.insert(start, len);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 12), (30, 5)]);
        assert_eq!(set.within(12, 20).collect::<Vec<_>>(), [(12, 10), (30, 2)]);
        set.insert(0, 100);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, 100)]);
        assert_eq!(set.within(100, 5).count(), 0);
    }
}
