//! Whether boxes make up a larger one.

/// A box: the first index and the one behind the last, in each dimension.
pub(super) type Part = Vec<(i64, i64)>;

/// What is wrong with a set of boxes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// An element that is in no box.
    Gap(Vec<i64>),
    /// An element that is in two boxes.
    Overlap(Vec<i64>),
    /// The boxes are cut at so many places that it takes too long.
    TooMany,
}

/// Boxes times intervals that are looked at.
const MAX_STEPS: usize = 1 << 24;

/// Whether every element of `[0, shape)` is in one of the boxes, and in one only if they have to be
/// disjoint. Boxes lie within the extents. Cuts the boxes at all boundaries of the first dimension
/// and goes on with those of each interval, so that a regular grid costs no more than sorting it.
pub(super) fn cover(shape: &[i64], mut parts: Vec<Part>, disjoint: bool) -> Result<(), Fault> {
    if shape.contains(&0) {
        return Ok(());
    }
    parts.retain(|part| part.iter().all(|(start, end)| start < end));
    if !disjoint {
        parts.sort_unstable();
        parts.dedup();
    }
    let all: Vec<usize> = (0..parts.len()).collect();
    let mut steps = MAX_STEPS;
    within(shape, &parts, all, &mut Vec::new(), disjoint, &mut steps)
}

fn within(
    shape: &[i64],
    parts: &[Part],
    mut these: Vec<usize>,
    prefix: &mut Vec<i64>,
    disjoint: bool,
    steps: &mut usize,
) -> Result<(), Fault> {
    let d = prefix.len();
    let element = |prefix: &[i64]| {
        let mut element = prefix.to_vec();
        element.resize(shape.len(), 0);
        element
    };
    *steps = steps.checked_sub(these.len() + 1).ok_or(Fault::TooMany)?;
    if these.is_empty() {
        return Err(Fault::Gap(element(prefix)));
    }
    if d == shape.len() {
        return match these.len() {
            1 => Ok(()),
            _ if disjoint => Err(Fault::Overlap(element(prefix))),
            _ => Ok(()),
        };
    }
    these.sort_unstable_by_key(|part| parts[*part][d]);
    let mut cuts: Vec<i64> = these
        .iter()
        .flat_map(|part| [parts[*part][d].0, parts[*part][d].1])
        .chain([0, shape[d]])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut next = 0;
    let mut open: Vec<usize> = Vec::new();
    for cut in &cuts[..cuts.len() - 1] {
        open.retain(|part| parts[*part][d].1 > *cut);
        while let Some(part) = these.get(next).filter(|part| parts[**part][d].0 == *cut) {
            open.push(*part);
            next += 1;
        }
        prefix.push(*cut);
        within(shape, parts, open.clone(), prefix, disjoint, steps)?;
        prefix.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: i64, columns: i64) -> Vec<Part> {
        let part = |at: i64| {
            let (r, c) = (at / columns, at % columns);
            vec![(r * 2, r * 2 + 2), (c * 3, c * 3 + 3)]
        };
        (0..rows * columns).map(part).collect()
    }

    #[test]
    fn grids_gaps_and_overlaps() {
        assert_eq!(cover(&[8, 9], grid(4, 3), true), Ok(()));
        let mut hole = grid(4, 3);
        hole.remove(4);
        assert_eq!(cover(&[8, 9], hole, true), Err(Fault::Gap(vec![2, 3])));
        let mut double = grid(4, 3);
        double.push(vec![(3, 4), (8, 9)]);
        let at = vec![3, 8];
        assert_eq!(
            cover(&[8, 9], double.clone(), true),
            Err(Fault::Overlap(at))
        );
        assert_eq!(cover(&[8, 9], double, false), Ok(()));
        assert_eq!(cover(&[], vec![vec![]], true), Ok(()));
        assert_eq!(cover(&[0, 5], vec![], true), Ok(()));
        assert_eq!(cover(&[5], vec![], true), Err(Fault::Gap(vec![0])));
    }

    #[test]
    fn pinwheels_are_complete() {
        // Five boxes, none of which spans a dimension.
        let parts = vec![
            vec![(0, 1), (0, 2)],
            vec![(0, 2), (2, 3)],
            vec![(2, 3), (1, 3)],
            vec![(1, 3), (0, 1)],
            vec![(1, 2), (1, 2)],
        ];
        assert_eq!(cover(&[3, 3], parts, true), Ok(()));
    }
}
