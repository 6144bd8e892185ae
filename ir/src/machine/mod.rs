//! The machine as data: every figure of a Dojo-like mesh with its unit, source and confidence.
//!
//! No constant of the machine stands in code. A [`Machine`] is read from TOML
//! ([`Machine::parse`]); five are built in ([`BUILTIN`]), and a file may start from one of them
//! with `base = "d1"` and restate single figures:
//!
//! ```toml
//! base = "d1"
//! summary = "D1 with the wider reading of the mesh links"
//!
//! [sources]
//! ours = "our experiment of March"
//!
//! [noc]
//! link = { value = 256, unit = "B/cycle", source = "ours", confidence = "P" }
//!
//! [[defects]]                 # replaces the default mask of this chip
//! chip = 0
//! dead = [[0, 3], [17, 19]]   # [row, column]
//! ```
//!
//! # Geometry and addresses
//!
//! A core is addressed as (chip, row, column); row 0 is in the north, column 0 in the west, and
//! *which* side of the chip is called north is arbitrary. Chips form a rectangle
//! ([`Machine::chip_grid`]) and are numbered row by row over it. A machine can consist of several
//! such rectangles that only the Z-plane joins ([`Machine::planes`]); they are stacked north to
//! south in the numbering.
//!
//! Units: GB = 1e9 bytes. A bandwidth is per direction. Where a figure is a physical rate (GB/s) and
//! a program needs beats per cycle, a method derives them.

mod check;
mod defects;
mod derive;
mod describe;
mod error;
mod figure;
mod read;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

pub use derive::{Boundary, CoreAddress, Precision};
pub use error::MachineError;
pub use figure::{Confidence, Datum, Figure, FigureRow, FigureSpec};
pub use schema::{
    Arbitration, Cabinet, Chip, Core, DeadRouter, Dip, ExaPod, Formats, Gather, Harvest, Matrix,
    Multicast, Noc, Operand, Ordering, Plane, RoundingMode, Routing, Side, Simd, Sram,
    StorageFormat, SubnormalScale, Sync, Tile, Tray, ZPlane,
};

use schema::Section;

/// The built-in machines, smallest first: name and TOML text.
///
/// `mesh4x4` is for teaching and tests; `d1` is one chip, `tile` 5 x 5 of them, `tray` 2 x 3 tiles
/// and `exapod` 20 trays. Each starts from the one before it, so that a figure stands in one place.
pub const BUILTIN: &[(&str, &str)] = &[
    ("mesh4x4", include_str!("../../machines/mesh4x4.toml")),
    ("d1", include_str!("../../machines/d1.toml")),
    ("tile", include_str!("../../machines/tile.toml")),
    ("tray", include_str!("../../machines/tray.toml")),
    ("exapod", include_str!("../../machines/exapod.toml")),
];

macro_rules! machine {
    ($($(#[doc = $doc:literal])+ $field:ident: $ty:ident $kind:ident,)+) => {
        /// A machine description, read and checked. See the [module](self).
        #[derive(Clone, Debug, PartialEq)]
        pub struct Machine {
            /// The name it was parsed under.
            pub name: String,
            /// What it is, in one line; may be empty.
            pub summary: String,
            $($(#[doc = $doc])+ pub $field: machine!(@type $ty $kind),)+
            /// Sites without a core by chip, (row, column). Other chips have the mask that
            /// [`Machine::dead_sites`] draws.
            pub explicit_defects: BTreeMap<u32, BTreeSet<(u32, u32)>>,
            /// Titles of the sources by key.
            pub sources: BTreeMap<String, String>,
        }

        impl Machine {
            /// Reads a machine description and checks it.
            ///
            /// `name` is what reports call the machine. Bases are looked up among [`BUILTIN`] only;
            /// nothing is read from disk.
            ///
            /// # Errors
            /// All problems of the text together, in the order of their places: D0600 to D0611, see
            /// [`MachineError::CODES`]. Contradictions between figures (D0608) and the defect lists
            /// are looked for once the figures themselves are sound.
            pub fn parse(text: &str, name: &str) -> Result<Self, Vec<MachineError>> {
                let mut reader = read::Reader::new(text)?;
                reader.check_top_level(&[$($ty::KEY,)+]);
                let summary = reader.summary();
                $(let $field = reader.$kind::<$ty>();)+
                let (explicit_defects, defect_spans) = reader.defects();
                let machine = (|| Some(Self {
                    name: name.to_owned(),
                    summary,
                    $($field: machine!(@take $field $kind),)+
                    explicit_defects,
                    sources: reader.sources.clone(),
                }))();
                let mut errors = std::mem::take(&mut reader.errors);
                match machine {
                    Some(machine) if errors.is_empty() => {
                        errors = check::check(&machine, &reader.spans, &defect_spans);
                        if errors.is_empty() {
                            return Ok(machine);
                        }
                    }
                    _ => {}
                }
                errors.sort_by_key(|e| (e.span.is_none(), e.span.as_ref().map(|s| s.start), e.code));
                Err(errors)
            }

            /// All figures by section: (key, title, rows). Sections the machine lacks are left out.
            pub fn figures(&self) -> Vec<(&'static str, &'static str, Vec<FigureRow<'_>>)> {
                [$(machine!(@rows self.$field, $ty $kind),)+].into_iter().flatten().collect()
            }
        }
    };
    (@type $ty:ident required) => { $ty };
    (@type $ty:ident optional) => { Option<$ty> };
    (@take $field:ident required) => { $field? };
    (@take $field:ident optional) => { $field };
    (@rows $value:expr, $ty:ident required) => {
        Some(($ty::KEY, $ty::TITLE, $value.rows()))
    };
    (@rows $value:expr, $ty:ident optional) => {
        $value.as_ref().map(|section| ($ty::KEY, $ty::TITLE, section.rows()))
    };
}

machine! {
    /// Front end, scalar side, registers.
    core: Core required,
    /// Matrix unit.
    matrix: Matrix required,
    /// SIMD unit.
    simd: Simd required,
    /// Local memory.
    sram: Sram required,
    /// Gather engine.
    gather: Gather required,
    /// Semaphores and transfers.
    sync: Sync required,
    /// The mesh of one chip.
    noc: Noc required,
    /// Sites without a core.
    harvest: Harvest required,
    /// Edges of a chip.
    chip: Chip required,
    /// Number formats.
    formats: Formats required,
    /// Tile; without it the machine is one chip.
    tile: Tile optional,
    /// Interface processors; without them inputs and outputs live in SRAM.
    dip: Dip optional,
    /// Network between interface processors.
    zplane: ZPlane optional,
    /// Tray; without it the machine is at most one tile.
    tray: Tray optional,
    /// Cabinet; without it the machine is at most one tray.
    cabinet: Cabinet optional,
    /// Installation; without it the machine is at most one cabinet.
    exapod: ExaPod optional,
}

impl Machine {
    /// The TOML text of a built-in machine, `None` if there is none of that name.
    pub fn builtin(name: &str) -> Option<&'static str> {
        BUILTIN
            .iter()
            .find(|(builtin, _)| *builtin == name)
            .map(|(_, text)| *text)
    }
}

#[cfg(test)]
mod tests;
