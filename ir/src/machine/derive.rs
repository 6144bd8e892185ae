//! Quantities that follow from the figures: geometry, totals, rates.

use super::{Machine, Operand, Plane, Side, StorageFormat, SubnormalScale};
use crate::formats::{BF16, CFP8_143, CFP8_152, F16, MiniFloat, SHP, Subnormals, UHP};

/// The place of a core.
#[derive(
    Clone, Copy, Debug, serde::Serialize, serde::Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub struct CoreAddress {
    /// Chip, numbered as in [`Machine::chip_grid`].
    pub chip: u32,
    /// Row on the chip, 0 in the north.
    pub row: u32,
    /// Column on the chip, 0 in the west.
    pub column: u32,
}

impl std::fmt::Display for CoreAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({}, {}, {})", self.chip, self.row, self.column)
    }
}

/// What lies between two neighbouring chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Boundary {
    /// A chip edge inside a tile.
    Chip,
    /// The boundary of a tile.
    Tile,
}

/// Arithmetic that peak rates are stated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// bf16 operands.
    Bf16,
    /// cfp8 operands.
    Cfp8,
    /// f16 operands.
    F16,
    /// f32 operands.
    F32,
}

impl Precision {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Bf16, Self::Cfp8, Self::F16, Self::F32];

    /// The name in text.
    pub const fn name(self) -> &'static str {
        self.operand().name()
    }

    const fn operand(self) -> Operand {
        match self {
            Self::Bf16 => Operand::Bf16,
            Self::Cfp8 => Operand::Cfp8,
            Self::F16 => Operand::F16,
            Self::F32 => Operand::F32,
        }
    }
}

/// Geometry and counts.
impl Machine {
    /// Sites of a chip, with a core or without.
    pub fn sites_per_chip(&self) -> u64 {
        u64::from(self.noc.rows.value) * u64::from(self.noc.columns.value)
    }

    /// Tiles in one tray, 1 where there is no tray.
    pub fn tiles_per_tray(&self) -> u64 {
        self.tray
            .as_ref()
            .map_or(1, |t| u64::from(t.rows.value) * u64::from(t.columns.value))
    }

    /// Chips in one tile, 1 where there is no tile.
    pub fn chips_per_tile(&self) -> u64 {
        self.tile
            .as_ref()
            .map_or(1, |t| u64::from(t.rows.value) * u64::from(t.columns.value))
    }

    fn tile_shape(&self) -> (u32, u32) {
        self.tile
            .as_ref()
            .map_or((1, 1), |t| (t.rows.value, t.columns.value))
    }

    fn tray_shape(&self) -> (u32, u32) {
        self.tray
            .as_ref()
            .map_or((1, 1), |t| (t.rows.value, t.columns.value))
    }

    fn cabinet_shape(&self) -> (u32, u32) {
        self.cabinet
            .as_ref()
            .map_or((1, 1), |c| (c.rows.value, c.columns.value))
    }

    /// Cabinets, 1 where there is no ExaPOD.
    pub fn cabinets(&self) -> u64 {
        self.exapod
            .as_ref()
            .map_or(1, |e| u64::from(e.cabinets.value))
    }

    /// Trays in all, 1 where there is no tray.
    pub fn trays(&self) -> u64 {
        let (rows, columns) = self.cabinet_shape();
        self.cabinets() * u64::from(rows) * u64::from(columns)
    }

    /// Tiles in all, 1 where there is no tile.
    pub fn tiles(&self) -> u64 {
        self.trays() * self.tiles_per_tray()
    }

    /// Chips in all.
    pub fn chips(&self) -> u64 {
        self.tiles() * self.chips_per_tile()
    }

    /// Sites in all.
    pub fn sites(&self) -> u64 {
        self.chips() * self.sites_per_chip()
    }

    /// Live cores in all, explicit defect lists considered.
    pub fn cores(&self) -> u64 {
        let listed = self.explicit_defects.len() as u64;
        let dead: u64 = self
            .explicit_defects
            .values()
            .map(|sites| sites.len() as u64)
            .sum();
        (self.chips() - listed) * u64::from(self.noc.enabled.value) + listed * self.sites_per_chip()
            - dead
    }

    /// Live cores of one chip; `None` where there is no such chip.
    pub fn cores_of_chip(&self, chip: u32) -> Option<u64> {
        if u64::from(chip) >= self.chips() {
            return None;
        }
        Some(match self.explicit_defects.get(&chip) {
            Some(dead) => self.sites_per_chip() - dead.len() as u64,
            None => u64::from(self.noc.enabled.value),
        })
    }

    /// Rows and columns of the rectangle that *all* chips are numbered over, row by row.
    ///
    /// It spans the planes, see [`Machine::planes`].
    pub fn chip_grid(&self) -> (u64, u64) {
        let (tile, tray, cabinet) = (self.tile_shape(), self.tray_shape(), self.cabinet_shape());
        let rows = u64::from(tile.0) * u64::from(tray.0) * u64::from(cabinet.0) * self.cabinets();
        let columns = u64::from(tile.1) * u64::from(tray.1) * u64::from(cabinet.1);
        (rows, columns)
    }

    /// Number of meshes that only the Z-plane joins; each has an equal share of the chip rows.
    pub fn planes(&self) -> u64 {
        match &self.exapod {
            Some(exapod) if exapod.plane.value == Plane::ZPlane => self.cabinets(),
            _ => 1,
        }
    }

    /// Row and column of a chip in [`Machine::chip_grid`]; `None` where there is no such chip.
    pub fn chip_position(&self, chip: u32) -> Option<(u64, u64)> {
        let (rows, columns) = self.chip_grid();
        let position = (u64::from(chip) / columns, u64::from(chip) % columns);
        (position.0 < rows).then_some(position)
    }

    /// The chip at a row and column of [`Machine::chip_grid`]; `None` outside it.
    pub fn chip_at(&self, row: u64, column: u64) -> Option<u32> {
        let (rows, columns) = self.chip_grid();
        if row >= rows || column >= columns {
            return None;
        }
        u32::try_from(row * columns + column).ok()
    }

    /// What lies between two chips; `None` unless they are neighbours on one mesh.
    pub fn boundary(&self, a: u32, b: u32) -> Option<Boundary> {
        let (a, b) = (self.chip_position(a)?, self.chip_position(b)?);
        let plane_rows = self.chip_grid().0 / self.planes();
        let neighbours = a.0.abs_diff(b.0) + a.1.abs_diff(b.1) == 1;
        if !neighbours || a.0 / plane_rows != b.0 / plane_rows {
            return None;
        }
        let (rows, columns) = self.tile_shape();
        let tile = |p: (u64, u64)| (p.0 / u64::from(rows), p.1 / u64::from(columns));
        Some(if tile(a) == tile(b) {
            Boundary::Chip
        } else {
            Boundary::Tile
        })
    }

    /// The chip each interface processor hangs on, in order of their numbers: tray by tray, side by
    /// side as listed, along the side from north or west. Empty without interface processors.
    pub fn dip_chips(&self) -> Vec<u32> {
        let Some(dip) = &self.dip else {
            return Vec::new();
        };
        let (tile, tray) = (self.tile_shape(), self.tray_shape());
        let (height, width) = (
            u64::from(tile.0) * u64::from(tray.0),
            u64::from(tile.1) * u64::from(tray.1),
        );
        let across = u64::from(self.cabinet_shape().1);
        let mut chips = Vec::new();
        for number in 0..self.trays() {
            let (top, left) = (number / across * height, number % across * width);
            for side in &dip.sides.value {
                let length = match side {
                    Side::North | Side::South => width,
                    Side::East | Side::West => height,
                };
                for i in 0..length {
                    let (row, column) = match side {
                        Side::North => (top, left + i),
                        Side::South => (top + height - 1, left + i),
                        Side::West => (top + i, left),
                        Side::East => (top + i, left + width - 1),
                    };
                    let chip = self.chip_at(row, column);
                    chips.extend(chip.into_iter().flat_map(|c| {
                        std::iter::repeat_n(c, dip.per_boundary_chip.value as usize)
                    }));
                }
            }
        }
        chips
    }

    /// Interface processors in all.
    pub fn dips(&self) -> u64 {
        let Some(dip) = &self.dip else { return 0 };
        let (tile, tray) = (self.tile_shape(), self.tray_shape());
        let per_tray: u64 = dip
            .sides
            .value
            .iter()
            .map(|side| match side {
                Side::North | Side::South => u64::from(tile.1) * u64::from(tray.1),
                Side::East | Side::West => u64::from(tile.0) * u64::from(tray.0),
            })
            .sum();
        self.trays() * per_tray * u64::from(dip.per_boundary_chip.value)
    }
}

/// Rates and capacities.
impl Machine {
    /// Cycles per second.
    pub fn cycles_per_second(&self) -> f64 {
        self.core.clock.value * 1e9
    }

    /// The duration of `cycles` in seconds.
    pub fn seconds(&self, cycles: u64) -> f64 {
        cycles as f64 / self.cycles_per_second()
    }

    /// The duration of `microseconds` in cycles, rounded up.
    pub fn cycles(&self, microseconds: f64) -> u64 {
        (microseconds * self.core.clock.value * 1e3).ceil() as u64
    }

    /// Multiply-accumulates of one step of one matrix unit.
    pub fn macs_per_step(&self) -> u64 {
        u64::from(self.matrix.rows.value)
            * u64::from(self.matrix.columns.value)
            * u64::from(self.matrix.depth.value)
    }

    /// Floating-point operations of one core per cycle at most; a multiply-accumulate counts two.
    ///
    /// From the matrix unit where it takes such operands, else from the SIMD unit; 0 where neither
    /// computes with them.
    pub fn core_flops_per_cycle(&self, precision: Precision) -> f64 {
        let matrix = &self.matrix;
        if matrix.operands.value.contains(&precision.operand()) {
            return (2 * self.macs_per_step() * u64::from(matrix.units.value)) as f64
                / f64::from(matrix.interval.value);
        }
        let simd = &self.simd;
        let lanes = match precision {
            Precision::Bf16 => simd.bf16_lanes.value,
            Precision::F16 => simd.f16_lanes.value,
            Precision::F32 => simd.f32_lanes.value,
            Precision::Cfp8 if simd.cfp8_arithmetic.value => simd.cfp8_lanes.value,
            Precision::Cfp8 => 0,
        };
        f64::from(2 * lanes * simd.pipes.value)
    }

    /// Peak of one core in FLOP/s.
    pub fn core_peak_flops(&self, precision: Precision) -> f64 {
        self.core_flops_per_cycle(precision) * self.cycles_per_second()
    }

    /// Peak of one chip with the default number of live cores, in FLOP/s.
    pub fn chip_peak_flops(&self, precision: Precision) -> f64 {
        self.core_peak_flops(precision) * f64::from(self.noc.enabled.value)
    }

    /// Peak of the whole machine in FLOP/s.
    pub fn peak_flops(&self, precision: Precision) -> f64 {
        self.core_peak_flops(precision) * self.cores() as f64
    }

    /// Local memory of one core in bytes.
    pub fn core_sram_bytes(&self) -> u64 {
        self.sram.size.value
    }

    /// Local memory of all live cores in bytes.
    pub fn sram_bytes(&self) -> u64 {
        self.cores() * self.core_sram_bytes()
    }

    /// Memory behind the interface processors in bytes.
    pub fn hbm_bytes(&self) -> u64 {
        self.dip
            .as_ref()
            .map_or(0, |dip| self.dips() * (dip.hbm.value * 1e9) as u64)
    }

    /// What SRAM can deliver, to the core and the mesh together, in bytes per cycle.
    pub fn sram_read_bytes_per_cycle(&self) -> u64 {
        let s = &self.sram;
        u64::from(s.load_ports.value) * u64::from(s.load_port.value)
            + u64::from(s.scalar_read.value)
            + u64::from(s.network_read.value)
    }

    /// What SRAM can take, from the core and the mesh together, in bytes per cycle.
    pub fn sram_write_bytes_per_cycle(&self) -> u64 {
        let s = &self.sram;
        u64::from(s.store_ports.value) * u64::from(s.store_port.value)
            + u64::from(s.scalar_write.value)
            + u64::from(s.network_write.value)
    }

    /// Beats per cycle that a rate in GB/s amounts to.
    pub fn beats_per_cycle(&self, gigabytes_per_second: f64) -> f64 {
        gigabytes_per_second / self.core.clock.value / f64::from(self.noc.beat.value)
    }

    /// Bandwidth of a mesh link in one direction, in GB/s.
    pub fn link_bandwidth(&self) -> f64 {
        f64::from(self.noc.link.value) * self.core.clock.value
    }

    /// Beats per cycle and direction over a whole chip edge at a boundary. On a machine without
    /// tiles, every boundary counts as a chip edge.
    pub fn edge_beats(&self, boundary: Boundary) -> f64 {
        self.beats_per_cycle(match (boundary, &self.tile) {
            (Boundary::Tile, Some(tile)) => tile.chip_edge.value,
            _ => self.chip.edge.value,
        })
    }

    /// Cycles to cross a boundary, without hops on either side.
    pub fn crossing_cycles(&self, boundary: Boundary) -> u32 {
        match (boundary, &self.tile) {
            (Boundary::Tile, Some(tile)) => tile.crossing.value,
            _ => self.chip.crossing.value,
        }
    }

    /// Cycles between the starts of two matrix steps while `blocks` output blocks are accumulated in
    /// turn: a block's own steps must keep the forwarding distance.
    pub fn matrix_step_cycles(&self, blocks: u32) -> f64 {
        let m = &self.matrix;
        let blocks = blocks.clamp(1, m.accumulators.value);
        f64::from(m.interval.value).max(f64::from(m.accumulate_forward.value) / f64::from(blocks))
    }

    /// The software model of a format, with this machine's reading of its subnormals; `None` for
    /// f32, which needs no model. Does not ask whether the machine stores the format.
    pub fn format(&self, format: StorageFormat) -> Option<MiniFloat> {
        let subnormals = match self.formats.subnormal_scale.value {
            SubnormalScale::Gradual => Subnormals::Gradual,
            SubnormalScale::Literal => Subnormals::Literal,
        };
        match format {
            StorageFormat::Cfp8143 => Some(CFP8_143.with_subnormals(subnormals)),
            StorageFormat::Cfp8152 => Some(CFP8_152.with_subnormals(subnormals)),
            StorageFormat::Shp => Some(SHP.with_subnormals(subnormals)),
            StorageFormat::Uhp => Some(UHP),
            StorageFormat::Bf16 => Some(BF16),
            StorageFormat::F16 => Some(F16),
            StorageFormat::F32 => None,
        }
    }
}
