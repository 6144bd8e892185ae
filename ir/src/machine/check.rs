//! Contradictions between figures that are each in range.
//!
//! - threads: compute and communication threads fit the threads, as do the decoding ones;
//! - issue: the units of a side can be issued to;
//! - registers: SIMD lanes fit a vector register;
//! - memory: the size fits the address and is whole rows of banks;
//! - mesh: live cores fit the grid, buffers hold a beat, packets hold one;
//! - levels: none stands without the one below, and the total stays countable;
//! - interface processors: their sides are free of other trays;
//! - defects: chips and sites exist, every chip keeps a core.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::{BAD_DEFECT, INCONSISTENT, MISSING, MachineError};
use super::{Machine, Plane, Side};

/// Most sites a machine may have, so that cores can be counted in 32 bits.
const MAX_SITES: u64 = 1 << 31;

struct Checker<'m> {
    machine: &'m Machine,
    spans: &'m BTreeMap<String, Range<usize>>,
    errors: Vec<MachineError>,
}

/// All contradictions of `machine`. `spans` says where the file states figures, by `section.key`,
/// and `defect_spans` where it lists a chip's defects.
pub(super) fn check(
    machine: &Machine,
    spans: &BTreeMap<String, Range<usize>>,
    defect_spans: &BTreeMap<u32, Range<usize>>,
) -> Vec<MachineError> {
    let mut checker = Checker {
        machine,
        spans,
        errors: Vec::new(),
    };
    checker.core();
    checker.memory();
    checker.mesh();
    if checker.levels() {
        checker.dips();
        checker.defects(defect_spans);
    }
    checker.errors
}

impl Checker<'_> {
    /// Reports at the first of `figures` that the file itself states.
    fn require(&mut self, holds: bool, figures: &[&str], message: impl FnOnce() -> String) -> bool {
        if !holds {
            let span = figures
                .iter()
                .find_map(|figure| self.spans.get(*figure).cloned());
            let message = message();
            self.errors.push(MachineError {
                code: INCONSISTENT,
                span,
                message,
            });
        }
        holds
    }

    fn core(&mut self) {
        let (core, simd, matrix) = (&self.machine.core, &self.machine.simd, &self.machine.matrix);
        let (compute, communication, threads) = (
            core.compute_threads.value,
            core.communication_threads.value,
            core.threads.value,
        );
        self.require(
            compute + communication <= threads,
            &["core.compute_threads", "core.communication_threads", "core.threads"],
            || {
                format!(
                    "{compute} compute and {communication} communication threads do not fit {threads} threads"
                )
            },
        );
        let decoding = core.decode_threads.value;
        self.require(
            decoding <= threads,
            &["core.decode_threads", "core.threads"],
            || format!("{decoding} of {threads} threads cannot decode"),
        );
        let (scalar, issue) = (
            core.integer_alus.value + core.address_units.value,
            core.scalar_issue.value,
        );
        self.require(
            scalar <= issue,
            &[
                "core.integer_alus",
                "core.address_units",
                "core.scalar_issue",
            ],
            || format!("{scalar} scalar units cannot be fed by {issue} instructions per cycle"),
        );
        let (vector, issue) = (
            simd.pipes.value + matrix.units.value,
            core.vector_issue.value,
        );
        self.require(
            vector <= issue,
            &["simd.pipes", "matrix.units", "core.vector_issue"],
            || {
                format!(
                    "{vector} SIMD and matrix units cannot be fed by {issue} instructions per cycle"
                )
            },
        );
        let register = core.vector_register_width.value;
        for (name, lanes, bytes) in [
            ("simd.f32_lanes", simd.f32_lanes.value, 4),
            ("simd.i32_lanes", simd.i32_lanes.value, 4),
            ("simd.bf16_lanes", simd.bf16_lanes.value, 2),
            ("simd.f16_lanes", simd.f16_lanes.value, 2),
            ("simd.cfp8_lanes", simd.cfp8_lanes.value, 1),
        ] {
            self.require(lanes * bytes <= register, &[name, "core.vector_register_width"], || {
                format!("{lanes} lanes of {bytes} B (`{name}`) do not fit a register of {register} B")
            });
        }
    }

    fn memory(&mut self) {
        let sram = &self.machine.sram;
        let (size, width) = (sram.size.value, sram.address_width.value);
        self.require(
            u128::from(size) <= 1 << width,
            &["sram.size", "sram.address_width"],
            || format!("{size} B of SRAM need more than {width} address bits"),
        );
        let row = u64::from(sram.banks.value) * u64::from(sram.bank_width.value);
        self.require(
            size.is_multiple_of(row),
            &["sram.size", "sram.banks", "sram.bank_width"],
            || format!("{size} B of SRAM are not whole rows of {row} B over all banks"),
        );
    }

    fn mesh(&mut self) {
        let noc = &self.machine.noc;
        let (rows, columns, enabled) = (noc.rows.value, noc.columns.value, noc.enabled.value);
        self.require(
            u64::from(enabled) <= self.machine.sites_per_chip(),
            &["noc.enabled", "noc.rows", "noc.columns"],
            || format!("{enabled} live cores do not fit {rows} x {columns} sites"),
        );
        let (request, data) = (noc.request_packet.value, noc.data_packet.value);
        self.require(
            request <= data,
            &["noc.request_packet", "noc.data_packet"],
            || format!("a request of {request} beats is longer than the longest packet, {data}"),
        );
        let remote = self.machine.sync.remote_operation.value;
        self.require(
            remote <= data,
            &["sync.remote_operation", "noc.data_packet"],
            || {
                format!(
                    "a remote semaphore operation of {remote} beats is longer than a packet, {data}"
                )
            },
        );
    }

    /// Whether the geometry can be counted at all.
    fn levels(&mut self) -> bool {
        let m = self.machine;
        let chain = [
            ("tile", m.tile.is_some()),
            ("tray", m.tray.is_some()),
            ("cabinet", m.cabinet.is_some()),
            ("exapod", m.exapod.is_some()),
        ];
        for pair in chain.windows(2) {
            let ((lower, has_lower), (upper, has_upper)) = (pair[0], pair[1]);
            if has_upper && !has_lower {
                let message = format!("[{upper}] needs [{lower}]");
                self.errors.push(MachineError {
                    code: MISSING,
                    span: None,
                    message,
                });
            }
        }
        let seamless = m
            .exapod
            .as_ref()
            .is_none_or(|e| e.plane.value == Plane::Seamless);
        if !seamless && m.zplane.is_none() {
            let message = "cabinets joined by the Z-plane need [zplane]".to_owned();
            self.errors.push(MachineError {
                code: MISSING,
                span: None,
                message,
            });
        }
        if m.zplane.is_some() && m.dip.is_none() {
            let message = "[zplane] needs [dip]".to_owned();
            self.errors.push(MachineError {
                code: MISSING,
                span: None,
                message,
            });
        }
        let sites = m.sites();
        let sizes = [
            "exapod.cabinets",
            "cabinet.rows",
            "tray.rows",
            "tile.rows",
            "noc.rows",
        ];
        self.require(sites <= MAX_SITES, &sizes, || {
            format!("{sites} sites in all; {MAX_SITES} at most can be addressed")
        })
    }

    fn dips(&mut self) {
        let m = self.machine;
        let Some(dip) = &m.dip else { return };
        let (rows, columns) = m
            .cabinet
            .as_ref()
            .map_or((1, 1), |c| (c.rows.value, c.columns.value));
        let chained = m
            .exapod
            .as_ref()
            .is_some_and(|e| e.plane.value == Plane::Seamless && e.cabinets.value > 1);
        for side in &dip.sides.value {
            let taken = match side {
                Side::North | Side::South => rows > 1 || chained,
                Side::East | Side::West => columns > 1,
            };
            self.require(
                !taken,
                &["dip.sides", "cabinet.rows", "cabinet.columns"],
                || {
                    format!(
                        "interface processors cannot sit in the {}: another tray does",
                        side.name()
                    )
                },
            );
        }
    }

    fn defects(&mut self, spans: &BTreeMap<u32, Range<usize>>) {
        let m = self.machine;
        let (rows, columns) = (m.noc.rows.value, m.noc.columns.value);
        let mut report = |chip: &u32, message: String| {
            let span = spans.get(chip).cloned();
            self.errors.push(MachineError {
                code: BAD_DEFECT,
                span,
                message,
            });
        };
        for (chip, sites) in &m.explicit_defects {
            if u64::from(*chip) >= m.chips() {
                report(
                    chip,
                    format!("there is no chip {chip}; the machine has {}", m.chips()),
                );
            }
            for (row, column) in sites {
                if *row >= rows || *column >= columns {
                    let message =
                        format!("chip {chip} has no site ({row}, {column}): {rows} x {columns}");
                    report(chip, message);
                }
            }
            if sites.len() as u64 >= m.sites_per_chip() {
                report(chip, format!("chip {chip} would have no core left"));
            }
        }
    }
}
