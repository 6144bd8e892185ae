//! The grids in use, each once.

use std::collections::BTreeMap;

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::machine::Machine;
use dojoc_ir::tiled::{Axis, AxisLevel, Grid, GridId};

/// The grids of a module, by the levels and sizes of their axes.
#[derive(Debug)]
pub(super) struct Grids {
    list: PrimaryMap<GridId, Grid>,
    by_axes: BTreeMap<Vec<(AxisLevel, u64)>, GridId>,
    tiles: u64,
    chips: u64,
    cores: u64,
}

impl Grids {
    /// No grids yet, on the chips of a machine, or on the first `chips` of them.
    pub fn new(machine: &Machine, chips: Option<u64>) -> Self {
        let chips = chips.unwrap_or(u64::MAX).clamp(1, machine.chips());
        let of_tile = chips.min(machine.chips_per_tile());
        let tiles = (chips / of_tile).max(1);
        let cores = |chip: u64| machine.cores_of_chip(u32::try_from(chip).ok()?);
        Self {
            list: PrimaryMap::new(),
            by_axes: BTreeMap::new(),
            tiles,
            chips: of_tile,
            // Core-level axes number cores of every chip alike.
            cores: (0..tiles * of_tile).filter_map(cores).min().unwrap_or(1),
        }
    }

    /// Number of cores of a chip that a grid may have.
    pub fn cores(&self) -> u64 {
        self.cores
    }

    /// The levels above cores that a grid may extend over, and over how much of each.
    pub fn upper(&self) -> impl Iterator<Item = (AxisLevel, u64)> {
        let levels = [(AxisLevel::Tile, self.tiles), (AxisLevel::Chip, self.chips)];
        levels.into_iter().filter(|(_, size)| *size > 1)
    }

    /// How many of a level a grid may extend over.
    pub fn most(&self, level: AxisLevel) -> u64 {
        match level {
            AxisLevel::Tile => self.tiles,
            AxisLevel::Chip => self.chips,
            AxisLevel::Core => self.cores,
        }
    }

    /// The grid of one core.
    pub fn one(&mut self) -> GridId {
        self.of(&[])
    }

    /// The grid with these axes, those of higher levels first, of which those above 1 count.
    pub fn of(&mut self, axes: &[(AxisLevel, u64)]) -> GridId {
        let axes: Vec<(AxisLevel, u64)> = axes.iter().copied().filter(|a| a.1 > 1).collect();
        if let Some(id) = self.by_axes.get(&axes) {
            return *id;
        }
        let id = self.list.push(Grid {
            name: grid_name(&axes).into(),
            first: 0,
            axes: named(&axes),
        });
        self.by_axes.insert(axes, id);
        id
    }

    /// All grids.
    pub fn list(&self) -> &PrimaryMap<GridId, Grid> {
        &self.list
    }
}

/// As `t2_c5_g16x22`: sizes level by level.
fn grid_name(axes: &[(AxisLevel, u64)]) -> String {
    let letters = [
        (AxisLevel::Tile, 't'),
        (AxisLevel::Chip, 'c'),
        (AxisLevel::Core, 'g'),
    ];
    let parts = letters.iter().filter_map(|(level, letter)| {
        let sizes = axes.iter().filter(|a| a.0 == *level);
        let sizes: Vec<String> = sizes.map(|a| a.1.to_string()).collect();
        (!sizes.is_empty()).then(|| format!("{letter}{}", sizes.join("x")))
    });
    let parts: Vec<String> = parts.collect();
    match parts.is_empty() {
        true => "one".into(),
        false => parts.join("_"),
    }
}

/// Axes of cores are `a`, `b`, ...; those above have the names of their levels.
fn named(axes: &[(AxisLevel, u64)]) -> Vec<Axis> {
    let mut letters = 'a'..='z';
    let mut count = BTreeMap::new();
    let name = |level: AxisLevel| {
        let text = AxisLevel::ALL.iter().find(|(l, _)| *l == level);
        text.map_or("", |(_, name)| *name)
    };
    (axes.iter())
        .map(|(level, size)| {
            let number = count.entry(*level).and_modify(|n| *n += 1).or_insert(0);
            let name = match (level, *number) {
                (AxisLevel::Core, n) => match letters.next() {
                    Some(letter) => letter.to_string(),
                    None => format!("core{n}"),
                },
                (level, 0) => name(*level).to_owned(),
                (level, n) => format!("{}{n}", name(*level)),
            };
            Axis {
                name: name.into(),
                size: *size,
                level: *level,
            }
        })
        .collect()
}

impl std::ops::Index<GridId> for Grids {
    type Output = Grid;

    fn index(&self, id: GridId) -> &Grid {
        &self.list[id]
    }
}
