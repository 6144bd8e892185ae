//! Calls that differ only in where their buffers lie share a summary.
//!
//! What a call does depends on the addresses of its buffers only through which of them share bytes.
//! So buffers that overlap stay together as one group, and every group is moved to a place of its
//! own, far from the others. Calls of equal layers then have one summary, whose bytes are moved back
//! where it is used.

use crate::program::{Segment, Var};

/// Distance between groups: more bytes than a core has.
const SPACING: i64 = 1 << 40;

/// The parameter that is a buffer's address and nothing else, and the buffer's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Base {
    /// The parameter.
    pub(super) param: usize,
    /// Bytes of the buffer.
    bytes: i64,
}

/// The bases of all buffers, by buffer; `None` unless each has a parameter of its own as its
/// address, which nothing else uses. `used` are the parameters that matter elsewhere.
pub(super) fn bases(segment: &Segment, used: &[bool]) -> Option<Vec<Base>> {
    let mut taken = used.to_vec();
    let base = |buffer: &crate::program::Buffer| {
        let [(Var::Param(param), 1)] = buffer.at.terms[..] else {
            return None;
        };
        let taken = taken.get_mut(usize::from(param))?;
        let bytes = i64::try_from(buffer.bytes()).ok()?;
        let is_base = buffer.at.constant == 0 && bytes < SPACING;
        (is_base && !std::mem::replace(taken, true)).then_some(Base {
            param: usize::from(param),
            bytes,
        })
    };
    segment.buffers.values().map(base).collect()
}

/// Where the groups of a call's buffers lie: the distance from the place of each in the summary.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Relocation {
    shifts: Vec<i64>,
}

impl Relocation {
    /// Moves the groups of buffers, whose addresses are in a parameter row, to their places in the
    /// summary. A row that cannot be moved stays.
    pub(super) fn apply(bases: &[Base], row: &mut [i64]) -> Self {
        let at = |base: &Base| row.get(base.param).copied();
        let ends = bases
            .iter()
            .map(|base| Some((at(base)?, at(base)?.checked_add(base.bytes)?)));
        let Some(ends) = ends.collect::<Option<Vec<(i64, i64)>>>() else {
            return Self::default();
        };
        let mut order: Vec<usize> = (0..bases.len()).collect();
        order.sort_unstable_by_key(|n| ends[*n]);
        // The groups in the order of their addresses, as lists of buffers.
        let mut groups: Vec<(i64, i64, Vec<usize>)> = Vec::new();
        for n in order {
            let (low, high) = ends[n];
            match groups.last_mut() {
                Some((_, end, members)) if low < *end => {
                    *end = high.max(*end);
                    members.push(n);
                }
                _ => groups.push((low, high, vec![n])),
            }
        }
        // Their places follow from the buffers alone.
        groups.sort_unstable_by_key(|(_, _, members)| members.iter().min().copied());
        let mut shifts = Vec::with_capacity(groups.len());
        for (place, (low, _, members)) in (0i64..).zip(groups) {
            let Some(shift) = place
                .checked_mul(SPACING)
                .and_then(|to| low.checked_sub(to))
            else {
                return Self::default();
            };
            for n in members {
                row[bases[n].param] = ends[n].0 - shift;
            }
            shifts.push(shift);
        }
        Self { shifts }
    }

    /// The distance from a byte of the summary to that of the call.
    pub(super) fn shift(&self, byte: i64) -> i64 {
        let shift = Self::group(byte).and_then(|group| self.shifts.get(group));
        shift.copied().unwrap_or(0)
    }

    /// The group of a byte of the summary.
    pub(super) fn group(byte: i64) -> Option<usize> {
        usize::try_from(byte.div_euclid(SPACING)).ok()
    }

    /// The groups that two relocations of the same buffers have at different places.
    pub(super) fn moved(one: &Self, other: &Self) -> Vec<usize> {
        let groups = one.shifts.len().max(other.shifts.len());
        let differ = |group: &usize| one.shifts.get(*group) != other.shifts.get(*group);
        (0..groups).filter(differ).collect()
    }

    /// An interval of the summary where the call has it.
    pub(super) fn actual(&self, (low, high): (i64, i64)) -> (i64, i64) {
        let shift = self.shift(low);
        (low + shift, high + shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_move_and_keep_their_form() {
        let bases = [(0, 64), (2, 32), (3, 16)].map(|(param, bytes)| Base { param, bytes });
        let mut row = [256, 7, 100, 110];
        let there = Relocation::apply(&bases, &mut row);
        assert_eq!(row, [0, 7, SPACING, SPACING + 10]);
        assert_eq!(there.actual((5, 8)), (261, 264));
        assert_eq!(there.actual((SPACING + 10, SPACING + 12)), (110, 112));
        // Elsewhere, but with the same overlap, in another order.
        let mut other = [0, 7, 1000, 1010];
        Relocation::apply(&bases, &mut other);
        assert_eq!(other, row);
        assert_eq!(Relocation::moved(&there, &there), []);
        let elsewhere = Relocation::apply(&bases, &mut [256, 7, 300, 310]);
        assert_eq!(Relocation::moved(&there, &elsewhere), [1]);
        assert_eq!(Relocation::group(SPACING + 10), Some(1));
        // Another overlap is another call.
        let mut other = [0, 7, 1000, 1016];
        Relocation::apply(&bases, &mut other);
        assert_ne!(other, row);
        let mut other = [70, 7, 100, 110];
        Relocation::apply(&bases, &mut other);
        assert_eq!(other, [0, 7, 30, 40]);
    }
}
