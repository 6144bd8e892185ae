//! A machine as text: the readable report, the canonical form and its hash.

use std::fmt::Write;

use super::{Boundary, Confidence, Machine, Precision};

/// One line of the report: figure, value, unit, source, confidence, note.
type Row = [String; 6];

impl Machine {
    /// Every figure with unit, source and confidence, the derived totals, and legends of the
    /// confidence tags and source keys. Lines are for reading, not for parsing.
    pub fn describe(&self) -> String {
        let mut out = format!("machine {}\n", self.name);
        if !self.summary.is_empty() {
            let _ = writeln!(out, "{}", self.summary);
        }
        let sections: Vec<(&str, Vec<Row>)> = self
            .figures()
            .into_iter()
            .map(|(key, title, rows)| {
                let rows = rows
                    .into_iter()
                    .map(|row| {
                        [
                            format!("{key}.{}", row.spec.key),
                            row.value.text().replace('"', ""),
                            row.spec.unit.to_owned(),
                            row.sources.join(" "),
                            row.confidence.tag().to_owned(),
                            row.note.unwrap_or_default().to_owned(),
                        ]
                    })
                    .collect();
                (title, rows)
            })
            .collect();
        let header = ["figure", "value", "unit", "source", "conf", "note"].map(str::to_owned);
        let all = || sections.iter().flat_map(|(_, rows)| rows).chain([&header]);
        // One long list must not push all other columns aside.
        let widths: Vec<usize> = (0..5)
            .map(|i| {
                all()
                    .map(|row| row[i].chars().count().min(28))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        write_row(&mut out, &header, &widths);
        for (title, rows) in &sections {
            let _ = writeln!(out, "\n{title}");
            for row in rows {
                write_row(&mut out, row, &widths);
            }
        }
        self.describe_totals(&mut out);
        self.describe_defects(&mut out);
        out.push_str("\nConfidence\n");
        for confidence in Confidence::ALL {
            let _ = writeln!(out, "  {:<3} {}", confidence.tag(), confidence.meaning());
        }
        out.push_str("\nSources\n");
        let width = self
            .sources
            .keys()
            .map(|key| key.chars().count())
            .max()
            .unwrap_or(0);
        for (key, title) in &self.sources {
            let _ = writeln!(out, "  {key:<width$} {title}");
        }
        out
    }

    fn describe_totals(&self, out: &mut String) {
        let (rows, columns) = self.chip_grid();
        out.push_str("\nDerived\n");
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<34} {value}");
        };
        line("cores", grouped(self.cores()));
        line(
            "chips",
            format!("{} ({rows} x {columns})", grouped(self.chips())),
        );
        if self.tile.is_some() {
            line("tiles", grouped(self.tiles()));
        }
        if self.tray.is_some() {
            line("trays", grouped(self.trays()));
        }
        line("separate meshes", grouped(self.planes()));
        line("SRAM", bytes(self.sram_bytes()));
        if self.dip.is_some() {
            line("interface processors", grouped(self.dips()));
            line("memory behind them", bytes(self.hbm_bytes()));
        }
        for precision in Precision::ALL {
            let (core, chip, all) = (
                self.core_peak_flops(precision),
                self.chip_peak_flops(precision),
                self.peak_flops(precision),
            );
            line(
                &format!("peak {} (core, chip, machine)", precision.name()),
                format!("{}, {}, {}", flops(core), flops(chip), flops(all)),
            );
        }
        let clock = self.core.clock.value;
        line(
            "SRAM read, write per core",
            format!(
                "{} GB/s, {} GB/s",
                self.sram_read_bytes_per_cycle() as f64 * clock,
                self.sram_write_bytes_per_cycle() as f64 * clock
            ),
        );
        line(
            "mesh link, one direction",
            format!("{} GB/s", self.link_bandwidth()),
        );
        for (name, boundary) in [
            ("chip edge inside a tile", Boundary::Chip),
            ("chip edge of a tile", Boundary::Tile),
        ] {
            if self.tile.is_some() || boundary == Boundary::Chip {
                line(
                    name,
                    format!(
                        "{} beats/cycle, {} ns to cross",
                        self.edge_beats(boundary),
                        f64::from(self.crossing_cycles(boundary)) / clock
                    ),
                );
            }
        }
        line("fingerprint", format!("{:032x}", self.fingerprint()));
    }

    fn describe_defects(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\nDefects: {} of {} sites of a chip have a live core; {} chips have explicit lists",
            self.noc.enabled.value,
            self.sites_per_chip(),
            self.explicit_defects.len()
        );
        if let Some(dead) = self.dead_sites(0).filter(|dead| !dead.is_empty()) {
            let sites: Vec<String> = dead.iter().map(|(r, c)| format!("({r}, {c})")).collect();
            let _ = writeln!(out, "  chip 0 lacks {}", sites.join(" "));
        }
    }

    /// What determines behaviour, in a form where the order, comments and provenance of the file do
    /// not matter: one `section.key = value unit` line per figure, then the defect lists. Equal
    /// texts mean equal machines.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        for (key, _, rows) in self.figures() {
            for row in rows {
                let line = format!(
                    "{key}.{} = {} {}",
                    row.spec.key,
                    row.value.text(),
                    row.spec.unit
                );
                let _ = writeln!(out, "{}", line.trim_end());
            }
        }
        for (chip, sites) in &self.explicit_defects {
            let sites: Vec<String> = sites.iter().map(|(r, c)| format!("[{r}, {c}]")).collect();
            let _ = writeln!(out, "defects {chip} = [{}]", sites.join(", "));
        }
        out
    }

    /// FNV-1a (128 bits) of [`Machine::canonical`]: stable over versions of the compiler as long as
    /// no figure is added. To recognise a machine, not to guard against forgery.
    pub fn fingerprint(&self) -> u128 {
        fnv1a(self.canonical().as_bytes())
    }
}

/// The hash of Fowler, Noll and Vo with their 128-bit parameters.
pub(super) fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
    })
}

fn write_row(out: &mut String, row: &Row, widths: &[usize]) {
    let mut line = String::from(" ");
    for (cell, width) in row.iter().zip(widths.iter().chain([&0])) {
        let _ = write!(line, " {cell:<width$} ");
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// `1062000` as `1,062,000`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn scaled(value: f64, unit: &str) -> String {
    let steps = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ];
    let (scale, prefix) = steps
        .into_iter()
        .find(|(scale, _)| value >= *scale)
        .unwrap_or((1.0, ""));
    format!("{:.4} {prefix}{unit}", value / scale)
}

fn bytes(n: u64) -> String {
    format!("{} ({} B)", scaled(n as f64, "B"), grouped(n))
}

fn flops(rate: f64) -> String {
    if rate == 0.0 {
        "none".to_owned()
    } else {
        scaled(rate, "FLOP/s")
    }
}
