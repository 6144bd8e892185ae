//! The grids in use, each once.

use std::collections::BTreeMap;

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::machine::Machine;
use dojoc_ir::tiled::{Axis, AxisLevel, Grid, GridId};

/// The grids of a module, by the sizes of their axes.
#[derive(Debug)]
pub(super) struct Grids {
    list: PrimaryMap<GridId, Grid>,
    by_sizes: BTreeMap<Vec<u64>, GridId>,
    cores: u64,
}

impl Grids {
    /// No grids yet, on the cores of the first chip.
    pub fn new(machine: &Machine) -> Self {
        Self {
            list: PrimaryMap::new(),
            by_sizes: BTreeMap::new(),
            cores: machine.cores_of_chip(0).unwrap_or(1),
        }
    }

    /// Number of cores that a grid may have.
    pub fn cores(&self) -> u64 {
        self.cores
    }

    /// The grid with core-level axes of these sizes, of which those above 1 count.
    pub fn of(&mut self, sizes: &[u64]) -> GridId {
        let sizes: Vec<u64> = sizes.iter().copied().filter(|s| *s > 1).collect();
        if let Some(id) = self.by_sizes.get(&sizes) {
            return *id;
        }
        let text: Vec<String> = sizes.iter().map(u64::to_string).collect();
        let name = if text.is_empty() {
            "one".into()
        } else {
            format!("g{}", text.join("x"))
        };
        let axes = (sizes.iter().zip('a'..='z'))
            .map(|(size, name)| Axis {
                name: name.to_string().into(),
                size: *size,
                level: AxisLevel::Core,
            })
            .collect();
        let id = self.list.push(Grid {
            name: name.into(),
            first: 0,
            axes,
        });
        self.by_sizes.insert(sizes, id);
        id
    }

    /// All grids.
    pub fn into_list(self) -> PrimaryMap<GridId, Grid> {
        self.list
    }
}

impl std::ops::Index<GridId> for Grids {
    type Output = Grid;

    fn index(&self, id: GridId) -> &Grid {
        &self.list[id]
    }
}
