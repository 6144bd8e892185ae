//! Stretches of a schedule that say the same again and again, as equal layers do.

use foldhash::{HashMap, HashMapExt as _};

use super::relocate::Relocation;
use super::walk::Row;

/// Steps that repeat: `count` times `len` of them, from `start` on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Repetition {
    pub(super) start: usize,
    /// Steps of one round.
    pub(super) len: usize,
    /// Rounds, at least three.
    pub(super) count: usize,
    /// Calls that have some of their bytes elsewhere than one round before, ascending, with the groups
    /// of buffers that are elsewhere.
    pub(super) moved: Vec<(usize, Vec<usize>)>,
}

impl Repetition {
    /// The first step behind it.
    pub(super) fn end(&self) -> usize {
        self.start + self.len * self.count
    }

    /// The round that begins with a step.
    pub(super) fn round(&self, step: usize) -> Option<usize> {
        let from = step.checked_sub(self.start)?;
        (from.is_multiple_of(self.len) && step < self.end()).then_some(from / self.len)
    }
}

/// Distances at which steps repeat that are tried: the most frequent ones.
const MOST_DISTANCES: usize = 4;

/// Stretches of steps that agree with those one round before, ascending and disjoint, of the round
/// length that covers the most. `signs` says by step what it does, but for the places of a call's
/// buffers; `None` agrees with nothing.
pub(super) fn find(signs: &[Option<u32>], calls: &[Option<Row<'_>>]) -> Vec<Repetition> {
    let mut last: HashMap<u32, usize> = HashMap::new();
    let mut distances: HashMap<usize, usize> = HashMap::new();
    for (at, sign) in signs.iter().enumerate() {
        if let Some(sign) = sign
            && let Some(before) = last.insert(*sign, at)
        {
            *distances.entry(at - before).or_default() += 1;
        }
    }
    let mut distances: Vec<(usize, usize)> = distances.into_iter().collect();
    distances.sort_unstable_by_key(|(len, times)| (std::cmp::Reverse(*times), *len));
    distances.truncate(MOST_DISTANCES);
    let covered = |found: &Vec<Repetition>| -> usize {
        let skipped = found.iter().map(|r| r.len * (r.count - 2));
        skipped.sum()
    };
    let found = distances.iter().map(|(len, _)| of_length(signs, *len));
    let mut best = found.max_by_key(covered).unwrap_or_default();
    for repetition in &mut best {
        let later = repetition.start + repetition.len..repetition.end();
        repetition.moved = later
            .filter_map(|at| {
                let there = |at: usize| calls.get(at)?.as_ref()?.resolved.as_ref();
                let groups =
                    Relocation::moved(&there(at)?.there, &there(at - repetition.len)?.there);
                (!groups.is_empty()).then_some((at, groups))
            })
            .collect();
    }
    best
}

/// The stretches with one length of a round.
fn of_length(signs: &[Option<u32>], len: usize) -> Vec<Repetition> {
    let mut found = Vec::new();
    let mut start = 0;
    let agrees = |at: usize| signs[at].is_some() && signs[at] == signs[at - len];
    while start + len < signs.len() {
        let run = (start + len..signs.len()).take_while(|at| agrees(*at));
        let run = run.count();
        let count = 1 + run / len;
        if count < 3 {
            start += run.max(1);
            continue;
        }
        let repetition = Repetition {
            start,
            len,
            count,
            moved: Vec::new(),
        };
        start = repetition.end();
        found.push(repetition);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(text: &str) -> Vec<(usize, usize, usize)> {
        let signs: Vec<Option<u32>> = text
            .chars()
            .map(|c| (c != '.').then_some(u32::from(c)))
            .collect();
        let found = find(&signs, &[]).into_iter();
        found.map(|r| (r.start, r.len, r.count)).collect()
    }

    #[test]
    fn they_are_found() {
        assert_eq!(rounds(""), []);
        assert_eq!(rounds("abcabd"), []);
        assert_eq!(rounds("abab"), []);
        assert_eq!(rounds("xabababy"), [(1, 2, 3)]);
        assert_eq!(rounds("xyabcabcabcabcaz"), [(2, 3, 4)]);
        assert_eq!(rounds("ab.ab.ab.ab."), []);
        // Two stretches with a step between them, the second in another order.
        assert_eq!(rounds("abababab-babababa"), [(0, 2, 4), (9, 2, 4)]);
        // The length that leaves the fewest steps to follow.
        assert_eq!(rounds("aaabaaabaaabaaabaaab"), [(0, 4, 5)]);
    }

    #[test]
    fn rounds_begin_where_they_begin() {
        let repetition = Repetition {
            start: 3,
            len: 4,
            count: 3,
            moved: vec![],
        };
        let rounds: Vec<_> = (0..16).map(|step| repetition.round(step)).collect();
        let begins = [(3, 0), (7, 1), (11, 2)];
        for (step, round) in rounds.iter().enumerate() {
            let expected = begins.iter().find(|(at, _)| *at == step).map(|(_, n)| *n);
            assert_eq!(*round, expected);
        }
        assert_eq!(repetition.end(), 15);
    }
}
