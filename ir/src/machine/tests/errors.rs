//! One wrong file per complaint: its code, the passage it marks, its words.

use super::super::*;
use super::{d1_with, figure, on};

fn errors(text: &str) -> Vec<MachineError> {
    Machine::parse(text, "test").expect_err("the text is wrong")
}

/// The single error of `text`: its code, the passage its span marks (empty without a span), and its
/// message.
fn error(text: &str) -> (u16, String, String) {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let e = &errors[0];
    let passage = e
        .span
        .clone()
        .map_or(String::new(), |span| text[span].to_owned());
    (e.code, passage, e.message.clone())
}

#[test]
fn malformed_text() {
    let found = errors("core = [\n[[[\nx = = 1\n");
    assert!(
        found.iter().all(|e| e.code == 600 && e.span.is_some()),
        "{found:?}"
    );
    assert_eq!(errors("")[0].code, 602);
    let sections = [
        "core", "matrix", "simd", "sram", "gather", "sync", "noc", "harvest", "chip", "formats",
    ];
    let missing: Vec<String> = errors("").into_iter().map(|e| e.message).collect();
    assert_eq!(
        missing,
        sections.map(|s| format!("section [{s}] is missing"))
    );
}

#[test]
fn single_mistakes_in_figures() {
    // Passage of d1.toml, its replacement, the code, the passage that the span marks, and a part of
    // the message.
    let hop =
        "hop = { value = 1, unit = \"cycles\", source = [\"NT\", \"SA\"], confidence = \"T2\" }";
    let cases = [
        (hop, "", 602, "", "figure `noc.hop` is missing"),
        (hop, "hop = 1", 603, "1", "must be a figure"),
        (
            hop,
            "hop = { value = 1, unit = \"cycles\", confidence = \"T2\" }",
            602,
            "{",
            "no `source`",
        ),
        (
            hop,
            "hop = { value = 1, unit = \"cycles\", source = \"SA\" }",
            602,
            "{",
            "no `confidence`",
        ),
        (
            hop,
            "hop = { value = 1, source = \"SA\", confidence = \"T2\" }",
            602,
            "{",
            "no `unit`",
        ),
        (
            hop,
            "hop = { unit = \"cycles\", source = \"SA\", confidence = \"T2\" }",
            602,
            "{",
            "no `value`",
        ),
        (
            "hop = { value = 1,",
            "hop = { value = 1, note = 3,",
            603,
            "3",
            "note",
        ),
        (
            "hop = { value = 1,",
            "hop = { value = 1.5,",
            603,
            "1.5",
            "a whole number",
        ),
        (
            "hop = { value = 1,",
            "hop = { value = \"1\",",
            603,
            "\"1\"",
            "a whole number",
        ),
        (
            "hop = { value = 1,",
            "hop = { value = 0,",
            604,
            "0",
            "range 1 to 10000 cycles",
        ),
        (
            "hop = { value = 1,",
            "hop = { value = -1,",
            604,
            "-1",
            "-1 is outside",
        ),
        (
            "hop = { value = 1,",
            "hop = { value = 99999999999999999999999999999999999999999,",
            604,
            "9",
            "outside",
        ),
        (
            "clock = { value = 2.0,",
            "clock = { value = nan,",
            604,
            "nan",
            "nan is outside",
        ),
        (
            "clock = { value = 2.0,",
            "clock = { value = inf,",
            604,
            "inf",
            "outside",
        ),
        (
            "clock = { value = 2.0,",
            "clock = { value = -2.0,",
            604,
            "-2.0",
            "outside",
        ),
        (
            "clock = { value = 2.0,",
            "clock = { value = 0,",
            604,
            "0",
            "outside",
        ),
        (
            "clock = { value = 2.0,",
            "clock = { value = 1e999,",
            604,
            "1e999",
            "outside",
        ),
        (
            "clock = { value = 2.0,",
            "clock = { value = true,",
            603,
            "true",
            "a number",
        ),
        (
            "clock = { value = 2.0, unit = \"GHz\"",
            "clock = { value = 2.0, unit = \"MHz\"",
            605,
            "\"MHz\"",
            "in `GHz`",
        ),
        (
            "bias_max = { value = 63,",
            "bias_max = { value = 63, unit = \"x\",",
            605,
            "\"x\"",
            "no unit",
        ),
        (
            "bias_max = { value = 63,",
            "bias_max = { value = 64,",
            604,
            "64",
            "0 to 63",
        ),
        (
            "fetch = { value = 32, unit = \"B/cycle\", source = \"UA\"",
            "fetch = { value = 32, unit = \"B/cycle\", source = \"UB\"",
            606,
            "\"UB\"",
            "UA",
        ),
        (
            "fetch = { value = 32, unit = \"B/cycle\", source = \"UA\"",
            "fetch = { value = 32, unit = \"B/cycle\", source = [\"UA\", \"UB\"]",
            606,
            "\"UB\"",
            "UA",
        ),
        (
            "fetch = { value = 32, unit = \"B/cycle\", source = \"UA\"",
            "fetch = { value = 32, unit = \"B/cycle\", source = []",
            603,
            "[]",
            "source",
        ),
        (
            "fetch = { value = 32, unit = \"B/cycle\", source = \"UA\", confidence = \"T\"",
            "fetch = { value = 32, unit = \"B/cycle\", source = \"UA\", confidence = \"T9\"",
            607,
            "\"T9\"",
            "T, T2, M, I or P",
        ),
        (
            "multicast = { value = \"none\"",
            "multicast = { value = \"some\"",
            611,
            "\"some\"",
            "none, tree",
        ),
        (
            "granules = { value = [8, 16]",
            "granules = { value = [8, 0]",
            604,
            "[8, 0]",
            "outside",
        ),
        (
            "granules = { value = [8, 16]",
            "granules = { value = [8, 8]",
            604,
            "[8, 8]",
            "twice",
        ),
        (
            "granules = { value = [8, 16]",
            "granules = { value = []",
            603,
            "[]",
            "at least one",
        ),
        (
            "icache_coherent = { value = false",
            "icache_coherent = { value = 0",
            603,
            "0",
            "true or false",
        ),
    ];
    for (from, to, code, at, part) in cases {
        let (found, passage, message) = error(&d1_with(from, to));
        assert_eq!(found, code, "{to}: {message}");
        assert!(
            passage.starts_with(at) && passage.is_empty() == at.is_empty(),
            "{to}: {passage}"
        );
        assert!(message.contains(part), "{to}: {message}");
    }
}

#[test]
fn contradictions_between_figures() {
    let cases = [
        ("noc", figure("enabled", "361", "sites"), "18 x 20"),
        (
            "core",
            figure("compute_threads", "3", "threads"),
            "do not fit 4 threads",
        ),
        ("core", figure("decode_threads", "5", "threads"), "decode"),
        (
            "core",
            figure("integer_alus", "3", "units"),
            "5 scalar units",
        ),
        ("matrix", figure("units", "2", "units"), "3 SIMD and matrix"),
        (
            "simd",
            figure("f32_lanes", "17", "lanes"),
            "register of 64 B",
        ),
        (
            "sram",
            figure("size", "4194304", "B"),
            "more than 21 address bits",
        ),
        (
            "sram",
            figure("size", "1310721", "B"),
            "not whole rows of 512 B",
        ),
        (
            "noc",
            figure("request_packet", "17", "beats"),
            "longest packet",
        ),
        (
            "tile",
            figure("rows", "32", "chips") + &figure("columns", "32", "chips"),
            "addressed",
        ),
        (
            "dip",
            "sides = { value = [\"north\"], source = \"ours\", confidence = \"P\" }\n".into(),
            "another tray",
        ),
    ];
    for (section, figures, part) in cases {
        let huge = if part == "addressed" {
            "[tray]\n".to_owned()
                + &figure("rows", "32", "tiles")
                + &figure("columns", "32", "tiles")
        } else {
            String::new()
        };
        let text = on("exapod", &format!("[{section}]\n{figures}{huge}"));
        let (code, at, message) = error(&text);
        assert_eq!(code, 608, "{message}");
        assert!(at.starts_with("{ value"), "{at}");
        assert!(message.contains(part), "{message}");
    }
    let tray = "[tray]\n".to_owned()
        + &figure("rows", "1", "tiles")
        + &figure("columns", "1", "tiles")
        + &figure("hosts", "1", "servers")
        + &figure("power", "1", "W");
    let (code, _, message) = error(&on("d1", &tray));
    assert_eq!((code, message.as_str()), (602, "[tray] needs [tile]"));
}

#[test]
fn unknown_keys_are_errors_with_the_known_ones() {
    let (code, at, message) = error(&on("d1", "[nok]\n"));
    assert_eq!((code, at.as_str()), (601, "nok"));
    assert!(message.contains("noc"));
    let (code, at, message) = error(&on(
        "d1",
        &format!("[noc]\n{}", figure("lnik", "1", "B/cycle")),
    ));
    assert_eq!((code, at.as_str()), (601, "lnik"));
    assert!(message.contains("link"));
    let (code, at, _) = error(&d1_with(
        "hop = { value = 1,",
        "hop = { value = 1, vaule = 2,",
    ));
    assert_eq!((code, at.as_str()), (601, "vaule"));
    let (code, at, _) = error(&on("d1", "[[defects]]\nchip = 0\ndead = []\nwhy = 1\n"));
    assert_eq!((code, at.as_str()), (601, "why"));
}

#[test]
fn bad_bases_summaries_sources_and_defects() {
    let cases = [
        ("base = \"d2\"\n", 609, "mesh4x4"),
        ("base = 1\n", 603, "built-in"),
        ("base = \"d1\"\nsummary = 1\n", 603, "summary"),
        ("base = \"d1\"\nsources = 1\n", 603, "[sources]"),
        ("base = \"d1\"\nsources = { a = 1 }\n", 603, "`a`"),
        ("base = \"d1\"\nnoc = 1\n", 603, "[noc]"),
        ("base = \"d1\"\ndefects = 1\n", 603, "[[defects]]"),
        ("base = \"d1\"\ndefects = [1]\n", 603, "a table"),
        (
            "base = \"d1\"\ndefects = [{ chip = -1, dead = [] }]\n",
            603,
            "chip = N",
        ),
        (
            "base = \"d1\"\ndefects = [{ chip = 0, dead = [[1, 2, 3]] }]\n",
            603,
            "[row, column]",
        ),
        (
            "base = \"d1\"\ndefects = [{ chip = 1, dead = [] }]\n",
            610,
            "no chip 1",
        ),
        (
            "base = \"d1\"\ndefects = [{ chip = 0, dead = [[18, 0]] }]\n",
            610,
            "(18, 0)",
        ),
        (
            "base = \"d1\"\ndefects = [{ chip = 0, dead = [[1, 1], [1, 1]] }]\n",
            610,
            "twice",
        ),
        (
            "base = \"d1\"\ndefects = [{ chip = 0, dead = [] }, { chip = 0, dead = [] }]\n",
            610,
            "two",
        ),
    ];
    for (text, code, part) in cases {
        let found = errors(text);
        let hit = found
            .iter()
            .find(|e| e.code == code && e.message.contains(part));
        assert!(hit.is_some_and(|e| e.span.is_some()), "{text}: {found:?}");
    }
    let all: Vec<String> = (0..16).map(|i| format!("[{}, {}]", i / 4, i % 4)).collect();
    let text = on(
        "mesh4x4",
        &format!("[[defects]]\nchip = 0\ndead = [{}]\n", all.join(", ")),
    );
    let (code, _, message) = error(&text);
    assert_eq!(
        (code, message.as_str()),
        (610, "chip 0 would have no core left")
    );
}

#[test]
fn all_problems_are_reported_together_in_order() {
    let text = on(
        "d1",
        &format!(
            "[core]\n{}{}[noc]\n{}nope = 1\n",
            figure("threads", "0", "threads"),
            figure("decode", "8", "instr"),
            figure("hop", "\"x\"", "cycles"),
        ),
    );
    let found: Vec<u16> = errors(&text).iter().map(|e| e.code).collect();
    assert_eq!(found, [604, 605, 603, 601]);
    let shown = errors(&text)[0].to_string();
    assert!(
        shown.starts_with("D0604: `core.threads`: 0 is outside"),
        "{shown}"
    );
}

#[test]
fn codes_are_listed_once_and_in_order() {
    let codes: Vec<u16> = MachineError::CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, (600..=611).collect::<Vec<_>>());
}

#[test]
fn hostile_text_is_an_error_and_not_a_panic() {
    let deep = "a = ".to_owned() + &"[".repeat(100_000);
    assert!(Machine::parse(&deep, "deep").is_err());
    let d1 = Machine::builtin("d1").unwrap();
    // Every prefix that cuts a line short, and every line dropped.
    for (i, _) in d1.match_indices('=').step_by(7) {
        assert!(Machine::parse(&d1[..i], "cut").is_err());
    }
    for skipped in 0..d1.lines().count() {
        let text: Vec<&str> = d1
            .lines()
            .enumerate()
            .filter(|(i, _)| *i != skipped)
            .map(|(_, l)| l)
            .collect();
        let _ = Machine::parse(&text.join("\n"), "skipped");
    }
}
