//! The built-in machines against the published totals, inheritance, defects, reports.

mod errors;

use std::collections::BTreeSet;

use super::*;
use crate::formats::{CFP8_143, F16, SHP, Subnormals, UHP, random_bits};

fn builtin(name: &str) -> Machine {
    let text = Machine::builtin(name).unwrap();
    Machine::parse(text, name).unwrap_or_else(|errors| panic!("{name}: {errors:#?}"))
}

/// The D1 text with one passage replaced.
fn d1_with(from: &str, to: &str) -> String {
    let text = Machine::builtin("d1").unwrap();
    assert_eq!(text.matches(from).count(), 1, "`{from}` must stand once");
    text.replace(from, to)
}

/// A file on top of a base.
fn on(base: &str, rest: &str) -> String {
    format!("base = \"{base}\"\n[sources]\nours = \"us\"\n{rest}")
}

fn figure(key: &str, value: &str, unit: &str) -> String {
    format!(
        "{key} = {{ value = {value}, unit = \"{unit}\", source = \"ours\", confidence = \"P\" }}\n"
    )
}

#[test]
fn builtin_machines_have_the_published_totals() {
    let counts = |m: &Machine| (m.cores(), m.chips(), m.tiles(), m.trays(), m.dips());
    assert_eq!(counts(&builtin("mesh4x4")), (16, 1, 1, 1, 0));
    assert_eq!(counts(&builtin("d1")), (354, 1, 1, 1, 0));
    assert_eq!(counts(&builtin("tile")), (8_850, 25, 1, 1, 10));
    assert_eq!(counts(&builtin("tray")), (53_100, 150, 6, 1, 20));
    assert_eq!(counts(&builtin("exapod")), (1_062_000, 3_000, 120, 20, 400));
}

#[test]
fn peak_rates_follow_from_the_units() {
    let d1 = builtin("d1");
    assert_eq!(d1.core_flops_per_cycle(Precision::Bf16), 512.0);
    assert_eq!(d1.core_peak_flops(Precision::Bf16), 1.024e12);
    assert_eq!((d1.chip_peak_flops(Precision::Bf16) / 1e12).floor(), 362.0);
    assert_eq!(
        d1.chip_peak_flops(Precision::Cfp8),
        d1.chip_peak_flops(Precision::Bf16)
    );
    assert_eq!(
        (d1.chip_peak_flops(Precision::F32) / 1e11).floor() / 10.0,
        22.6
    );
    assert_eq!(d1.core_flops_per_cycle(Precision::F16), 64.0);
    let tile = builtin("tile");
    assert_eq!((tile.peak_flops(Precision::Bf16) / 1e15).floor(), 9.0);
    let exapod = builtin("exapod");
    assert_eq!(
        (exapod.peak_flops(Precision::Bf16) / 1e17).round() / 10.0,
        1.1
    );
}

#[test]
fn bandwidths_and_memories_match_what_is_stated() {
    let d1 = builtin("d1");
    assert_eq!(d1.sram_read_bytes_per_cycle() as f64 * 2.0, 400.0);
    assert_eq!(d1.sram_write_bytes_per_cycle() as f64 * 2.0, 272.0);
    assert_eq!(d1.link_bandwidth(), 128.0);
    assert_eq!(d1.edge_beats(Boundary::Chip), 15.75);
    assert_eq!(d1.sram_bytes(), 354 * 1_310_720);
    assert_eq!(d1.hbm_bytes(), 0);
    let tile = builtin("tile");
    assert_eq!(tile.edge_beats(Boundary::Tile), 7.03125);
    assert_eq!(tile.crossing_cycles(Boundary::Chip), 180);
    assert_eq!(tile.crossing_cycles(Boundary::Tile), 500);
    assert_eq!(builtin("tray").hbm_bytes(), 640_000_000_000);
    assert_eq!(builtin("exapod").hbm_bytes(), 12_800_000_000_000);
    assert_eq!(d1.seconds(200), 1e-7);
    assert_eq!(d1.cycles(1.0), 2000);
}

#[test]
fn matrix_steps_keep_the_forwarding_distance() {
    let d1 = builtin("d1");
    assert_eq!(d1.matrix_step_cycles(1), 1.0);
    let slow = figure("accumulate_forward", "8", "cycles");
    let slow = Machine::parse(&on("d1", &format!("[matrix]\n{slow}")), "slow").unwrap();
    assert_eq!(slow.matrix_step_cycles(1), 8.0);
    assert_eq!(slow.matrix_step_cycles(4), 2.0);
    assert_eq!(
        slow.matrix_step_cycles(9),
        2.0,
        "there are four accumulators"
    );
}

#[test]
fn chips_have_places_and_boundaries() {
    let tray = builtin("tray");
    assert_eq!(tray.chip_grid(), (10, 15));
    assert_eq!(tray.chip_position(16), Some((1, 1)));
    assert_eq!(tray.chip_at(1, 1), Some(16));
    assert_eq!((tray.chip_at(10, 0), tray.chip_position(150)), (None, None));
    assert_eq!(tray.boundary(0, 1), Some(Boundary::Chip));
    assert_eq!(tray.boundary(4, 5), Some(Boundary::Tile));
    assert_eq!(tray.boundary(60, 75), Some(Boundary::Tile));
    assert_eq!(tray.boundary(0, 2), None);
    assert_eq!(
        tray.boundary(14, 15),
        None,
        "consecutive numbers in different rows"
    );
    let exapod = builtin("exapod");
    assert_eq!((exapod.chip_grid(), exapod.planes()), ((200, 15), 10));
    let south_of = |row: u64| {
        (
            exapod.chip_at(row, 0).unwrap(),
            exapod.chip_at(row + 1, 0).unwrap(),
        )
    };
    let (a, b) = south_of(9);
    assert_eq!(
        exapod.boundary(a, b),
        Some(Boundary::Tile),
        "between trays of a cabinet"
    );
    let (a, b) = south_of(19);
    assert_eq!(exapod.boundary(a, b), None, "between cabinets");
    let text = on(
        "exapod",
        "[exapod]\nplane = { value = \"seamless\", source = \"ours\", confidence = \"P\" }",
    );
    let seamless = Machine::parse(&text, "seamless").unwrap();
    assert_eq!(seamless.planes(), 1);
    assert_eq!(seamless.boundary(a, b), Some(Boundary::Tile));
}

#[test]
fn interface_processors_sit_at_the_row_ends() {
    let tray = builtin("tray");
    let chips = tray.dip_chips();
    assert_eq!(chips.len() as u64, tray.dips());
    assert_eq!(chips[..10], (0..10).map(|row| row * 15).collect::<Vec<_>>());
    assert_eq!(
        chips[10..],
        (0..10).map(|row| row * 15 + 14).collect::<Vec<_>>()
    );
    let exapod = builtin("exapod");
    let chips = exapod.dip_chips();
    assert_eq!(chips.len(), 400);
    assert_eq!(chips.iter().collect::<BTreeSet<_>>().len(), 400);
    assert!(chips.iter().all(|c| c % 15 == 0 || c % 15 == 14));
    assert!(builtin("d1").dip_chips().is_empty());
}

#[test]
fn the_default_mask_is_seeded_per_chip() {
    let tile = builtin("tile");
    let masks: Vec<_> = (0..25).map(|chip| tile.dead_sites(chip).unwrap()).collect();
    for (chip, mask) in masks.iter().enumerate() {
        assert_eq!(mask.len(), 6);
        assert!(mask.iter().all(|(row, column)| *row < 18 && *column < 20));
        let live = tile.live_cores(chip as u32).unwrap();
        assert_eq!(live.len(), 354);
        assert!(live.is_sorted());
        assert!(
            live.iter()
                .all(|c| tile.is_live(*c) && !mask.contains(&(c.row, c.column)))
        );
    }
    assert!(
        masks.iter().collect::<BTreeSet<_>>().len() > 20,
        "each chip has its own map"
    );
    assert_eq!(masks[0], builtin("d1").dead_sites(0).unwrap());
    assert_eq!(tile.dead_sites(25), None);
    // The first draw by hand: 355 candidates, since the sample grows from the back.
    let first = (u64::from(random_bits(1, 0, 0, 0)) * 355) >> 32;
    assert!(masks[0].contains(&((first / 20) as u32, (first % 20) as u32)));
    let reseeded = on(
        "d1",
        "[harvest]\nseed = { value = 2, source = \"ours\", confidence = \"P\" }",
    );
    let reseeded = Machine::parse(&reseeded, "reseeded").unwrap();
    assert_ne!(reseeded.dead_sites(0).unwrap(), masks[0]);
    assert!(builtin("mesh4x4").dead_sites(0).unwrap().is_empty());
}

#[test]
fn the_default_mask_reaches_every_site() {
    let exapod = builtin("exapod");
    let mut hits = vec![0u32; 360];
    for chip in 0..3000 {
        for (row, column) in exapod.dead_sites(chip).unwrap() {
            hits[(row * 20 + column) as usize] += 1;
        }
    }
    // 18,000 holes over 360 sites: 50 each on average, standard deviation 7.
    assert!(hits.iter().all(|h| (15..=85).contains(h)), "{hits:?}");
}

#[test]
fn explicit_defects_replace_the_mask_of_their_chip() {
    let text = on(
        "tile",
        "[[defects]]\nchip = 3\ndead = [[0, 0], [17, 19]]\n[[defects]]\nchip = 4\ndead = []",
    );
    let m = Machine::parse(&text, "test").unwrap();
    assert_eq!(m.dead_sites(3).unwrap(), BTreeSet::from([(0, 0), (17, 19)]));
    assert!(m.dead_sites(4).unwrap().is_empty());
    assert_eq!(m.dead_sites(5), builtin("tile").dead_sites(5));
    assert_eq!(m.cores(), 23 * 354 + 358 + 360);
    assert_eq!(
        (m.cores_of_chip(3), m.cores_of_chip(5), m.cores_of_chip(25)),
        (Some(358), Some(354), None)
    );
    assert!(!m.is_live(CoreAddress {
        chip: 3,
        row: 0,
        column: 0
    }));
    assert!(!m.is_live(CoreAddress {
        chip: 4,
        row: 18,
        column: 0
    }));
    assert_ne!(m.fingerprint(), builtin("tile").fingerprint());
}

#[test]
fn a_file_restates_single_figures_of_its_base() {
    let text = on(
        "tile",
        &format!("[noc]\n{}", figure("link", "256", "B/cycle")),
    );
    let m = Machine::parse(&text, "wide").unwrap();
    assert_eq!(m.link_bandwidth(), 512.0);
    assert_eq!(m.noc.link.sources, ["ours"]);
    assert_eq!(m.noc.rows, builtin("d1").noc.rows);
    assert_eq!((m.cores(), m.summary.as_str()), (8_850, ""));
}

#[test]
fn shared_figures_stand_in_one_place() {
    for (name, text) in BUILTIN.iter().filter(|(name, _)| *name != "d1") {
        let table: toml::Table = text.parse().unwrap();
        let base = builtin(table["base"].as_str().unwrap());
        let own = builtin(name);
        for (section, _, rows) in own.figures() {
            let Some(stated) = table.get(section).and_then(|s| s.as_table()) else {
                continue;
            };
            for row in rows.iter().filter(|row| stated.contains_key(row.spec.key)) {
                let inherited = base.figures().into_iter().find(|(key, ..)| *key == section);
                let same = inherited.is_some_and(|(_, _, rows)| {
                    rows.iter()
                        .any(|b| b.spec.key == row.spec.key && b.value.text() == row.value.text())
                });
                assert!(!same, "{name} repeats {section}.{}", row.spec.key);
            }
        }
    }
}

#[test]
fn the_fingerprint_ignores_order_comments_and_provenance() {
    let d1 = builtin("d1");
    let table: toml::Table = Machine::builtin("d1").unwrap().parse().unwrap();
    // Serialising sorts the keys and drops the comments.
    let reordered = toml::to_string(&table).unwrap();
    let same = Machine::parse(&reordered, "other").unwrap();
    assert_eq!(
        (same.canonical(), same.fingerprint()),
        (d1.canonical(), d1.fingerprint())
    );
    let sourced = d1_with(
        "hop = { value = 1, unit = \"cycles\", source = [\"NT\", \"SA\"], confidence = \"T2\" }",
        "hop = { value = 1, unit = \"cycles\", source = \"proposal\", confidence = \"P\" } # why",
    );
    assert_eq!(
        Machine::parse(&sourced, "x").unwrap().fingerprint(),
        d1.fingerprint()
    );
    let whole = d1_with("clock = { value = 2.0,", "clock = { value = 2,");
    assert_eq!(
        Machine::parse(&whole, "x").unwrap().fingerprint(),
        d1.fingerprint()
    );
    let faster = d1_with("clock = { value = 2.0,", "clock = { value = 2.0001,");
    assert_ne!(
        Machine::parse(&faster, "x").unwrap().fingerprint(),
        d1.fingerprint()
    );
    assert!(d1.canonical().contains("\nnoc.hop = 1 cycles\n"));
    assert!(d1.canonical().contains("\ncore.icache_coherent = false\n"));
    // Published: FNV-1a, 128 bits, of the text "a".
    assert_eq!(
        describe::fnv1a(b"a"),
        0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964
    );
    let all: BTreeSet<u128> = BUILTIN
        .iter()
        .map(|(name, _)| builtin(name).fingerprint())
        .collect();
    assert_eq!(all.len(), BUILTIN.len());
}

#[test]
fn the_report_shows_figures_totals_and_legends() {
    let text = builtin("exapod").describe();
    let line = |start: &str| {
        text.lines()
            .find(|l| l.trim_start().starts_with(start))
            .unwrap_or_else(|| panic!("{start}: {text}"))
    };
    let words = |start: &str| {
        line(start)
            .split_whitespace()
            .take(6)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words("core.clock"), "core.clock 2.0 GHz UA CC T2");
    assert_eq!(words("noc.enabled"), "noc.enabled 354 sites MIC UA T");
    assert!(line("matrix.operands").contains("[bf16, cfp8]"));
    assert!(
        line("noc.link ").contains("would be 256"),
        "notes are shown"
    );
    assert!(line("cores ").ends_with("1,062,000"));
    assert!(line("chips ").ends_with("3,000 (200 x 15)"));
    assert!(line("peak bf16").contains("1.0240 TFLOP/s, 362.4960 TFLOP/s, 1.0875 EFLOP/s"));
    assert!(line("chip edge of a tile").contains("7.03125 beats/cycle, 250 ns"));
    assert!(line("P ").contains("nothing public"));
    assert!(line("MIC ").contains("IEEE Micro"));
    assert!(line("fingerprint").ends_with(&format!("{:032x}", builtin("exapod").fingerprint())));
    let small = builtin("mesh4x4").describe();
    assert!(small.contains("invented for tests") && !small.contains("Interface processors"));
    assert!(
        small.lines().all(|l| l.trim_end() == l),
        "no trailing blanks"
    );
}

#[test]
fn every_builtin_figure_has_a_known_source_and_every_source_is_used() {
    let mut used = BTreeSet::new();
    let mut listed = BTreeSet::new();
    for (name, _) in BUILTIN {
        let m = builtin(name);
        for (section, _, rows) in m.figures() {
            for row in rows {
                assert!(!row.sources.is_empty(), "{section}.{}", row.spec.key);
                used.extend(row.sources.to_vec());
                if row.sources == ["proposal"] {
                    assert_eq!(
                        row.confidence,
                        Confidence::Proposed,
                        "{section}.{}",
                        row.spec.key
                    );
                }
            }
        }
        listed.extend(m.sources.into_keys());
    }
    assert_eq!(used, listed);
}

#[test]
fn formats_come_with_the_machines_reading_of_subnormals() {
    let d1 = builtin("d1");
    assert_eq!(d1.format(StorageFormat::Cfp8143), Some(CFP8_143));
    assert_eq!(d1.format(StorageFormat::F32), None);
    let text = "[formats]\nsubnormal_scale = { value = \"literal\", source = \"ours\", confidence = \"P\" }";
    let literal = Machine::parse(&on("d1", text), "literal").unwrap();
    assert_eq!(
        literal.format(StorageFormat::Shp),
        Some(SHP.with_subnormals(Subnormals::Literal))
    );
    assert_eq!(literal.format(StorageFormat::Uhp), Some(UHP));
    assert_eq!(literal.format(StorageFormat::F16), Some(F16));
}
