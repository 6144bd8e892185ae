//! Sets of cores.

use serde::{Deserialize, Serialize};

use crate::machine::CoreAddress;

/// `count` numbers from `start` on at a distance of `step`, which may be negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
    /// From one to the next; not zero if there are several.
    pub step: i32,
}

impl Span {
    /// One number.
    pub fn one(at: u32) -> Self {
        Self {
            start: at,
            count: 1,
            step: 1,
        }
    }

    /// `count` consecutive numbers.
    pub fn of(start: u32, count: u32) -> Self {
        Self {
            start,
            count,
            step: 1,
        }
    }

    /// The number at a position; `None` outside, and where it is not a 32-bit number.
    pub fn get(&self, position: u32) -> Option<u32> {
        if position >= self.count {
            return None;
        }
        let value = i64::from(self.start) + i64::from(position) * i64::from(self.step);
        u32::try_from(value).ok()
    }

    /// The position of a number.
    pub fn position(&self, value: u32) -> Option<u32> {
        let distance = i64::from(value) - i64::from(self.start);
        let position = match i64::from(self.step) {
            0 => 0,
            step if distance % step == 0 => distance / step,
            _ => return None,
        };
        let position = u32::try_from(position).ok()?;
        (self.get(position) == Some(value)).then_some(position)
    }
}

/// A strided box of cores: all combinations of chips, rows and columns, in this order, columns
/// fastest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CoreBox {
    /// Chips.
    pub chips: Span,
    /// Rows on each of them.
    pub rows: Span,
    /// Columns of each of these.
    pub columns: Span,
}

impl CoreBox {
    /// How many cores it has.
    pub fn len(&self) -> u64 {
        // Three factors of 32 bits exceed 64 only for boxes that no machine holds.
        u64::from(self.chips.count)
            .saturating_mul(u64::from(self.rows.count))
            .saturating_mul(u64::from(self.columns.count))
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The core at a position.
    pub fn get(&self, position: u64) -> Option<CoreAddress> {
        if position >= self.len() {
            return None;
        }
        let (rows, columns) = (u64::from(self.rows.count), u64::from(self.columns.count));
        Some(CoreAddress {
            chip: self.chips.get((position / (rows * columns)) as u32)?,
            row: self.rows.get((position / columns % rows) as u32)?,
            column: self.columns.get((position % columns) as u32)?,
        })
    }

    /// The position of a core.
    pub fn position(&self, core: CoreAddress) -> Option<u64> {
        let chip = u64::from(self.chips.position(core.chip)?);
        let row = u64::from(self.rows.position(core.row)?);
        let column = u64::from(self.columns.position(core.column)?);
        Some((chip * u64::from(self.rows.count) + row) * u64::from(self.columns.count) + column)
    }
}

/// An ordered set of cores, described by boxes that do not overlap. The position of a core in it is
/// its *index*.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Region {
    /// Its name, unique in the program.
    pub name: std::sync::Arc<str>,
    /// The boxes in order.
    pub boxes: Vec<CoreBox>,
}

impl Region {
    /// How many cores it has.
    pub fn len(&self) -> u64 {
        self.boxes
            .iter()
            .fold(0, |sum, b| sum.saturating_add(b.len()))
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The core at an index.
    pub fn get(&self, mut index: u64) -> Option<CoreAddress> {
        for b in &self.boxes {
            if index < b.len() {
                return b.get(index);
            }
            index -= b.len();
        }
        None
    }

    /// The index of a core, by the first box that has it.
    pub fn position(&self, core: CoreAddress) -> Option<u64> {
        let mut before = 0u64;
        for b in &self.boxes {
            if let Some(position) = b.position(core) {
                return Some(before + position);
            }
            before += b.len();
        }
        None
    }

    /// All cores in order. Check [`Region::len`] before walking a region of unknown origin.
    pub fn cores(&self) -> impl Iterator<Item = CoreAddress> + '_ {
        self.boxes
            .iter()
            .flat_map(|b| (0..b.len()).filter_map(|position| b.get(position)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_inverse_to_cores() {
        let region = Region {
            name: "snake".into(),
            boxes: vec![
                CoreBox {
                    chips: Span::one(0),
                    rows: Span::one(0),
                    columns: Span::of(0, 4),
                },
                CoreBox {
                    chips: Span::of(0, 2),
                    rows: Span::of(1, 2),
                    columns: Span {
                        start: 3,
                        count: 2,
                        step: -2,
                    },
                },
            ],
        };
        assert_eq!(region.len(), 12);
        for (index, core) in region.cores().enumerate() {
            assert_eq!(region.position(core), Some(index as u64));
            assert_eq!(region.get(index as u64), Some(core));
        }
        assert_eq!(region.get(4).map(|c| (c.row, c.column)), Some((1, 3)));
        assert_eq!(region.get(12), None);
        let other = CoreAddress {
            chip: 0,
            row: 1,
            column: 2,
        };
        assert_eq!(region.position(other), None);
    }
}
