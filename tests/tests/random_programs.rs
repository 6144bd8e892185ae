//! Properties that hold for every program, on random ones.
//!
//! `DOJOC_RANDOM_PROGRAMS=5000` runs so many seeds instead of a few, and
//! `DOJOC_RANDOM_PROGRAMS=1200..1300` those of a range.

use std::sync::Arc;

use dojoc_ir::program::parse;
use dojoc_ir::program::recipe::NoSources;
use dojoc_tests::identities::{self, Named, Ways};
use dojoc_tests::random_program::{Options, RandomProgram, random_program};

/// Seeds of a short run.
const SEEDS: u64 = 120;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("DOJOC_RANDOM_PROGRAMS") else {
        return 0..SEEDS;
    };
    let number = |text: &str| text.parse().expect("a number of seeds, or a range");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}

/// Options that bring different parts to the fore.
fn options(seed: u64) -> Options {
    let all = Options::default();
    match seed % 6 {
        0 => Options {
            cores: (1, 1),
            actions: 30,
            ..all
        },
        1 => Options {
            streams: 1,
            machine: "d1",
            ..all
        },
        2 => Options {
            cores: (4, 4),
            actions: 5,
            calls: 8,
            ..all
        },
        3 => Options {
            overlap: false,
            reuse: false,
            ..all
        },
        4 => Options {
            machine: "tile",
            dram: true,
            ..all
        },
        _ => all,
    }
}

/// Statements that are in some of the programs.
const STATEMENTS: [&str; 9] = [
    "recv ",
    "relay ",
    "dram.begin ",
    "dram.load ",
    " = count ",
    "cfp8 = true",
    "sums = true",
    "split = 2",
    "row = ",
];

fn check(program: &RandomProgram, options: &Options) -> Result<(), String> {
    let (parsed, _) = parse::parse(&program.text).map_err(|e| format!("parsing: {e:?}"))?;
    let machine = identities::machine(options.machine)?;
    identities::verifies(&parsed, &machine)?;
    identities::round_trips(&parsed)?;
    let runs: Vec<Named> = program
        .runs
        .iter()
        .map(|inputs| {
            let inputs = inputs.iter();
            inputs
                .map(|(name, x)| (name.as_str().into(), x.clone()))
                .collect()
        })
        .collect();
    let parsed = Arc::new(parsed);
    identities::results_agree(
        &parsed,
        &machine,
        &NoSources,
        ("main", &runs),
        Ways::default(),
    )
}

#[test]
fn results_depend_on_nothing_but_inputs() {
    let mut failures = Vec::new();
    let mut missing = STATEMENTS.to_vec();
    for seed in seeds() {
        let options = options(seed);
        let program = random_program(seed, &options);
        missing.retain(|statement| !program.text.contains(statement));
        if let Err(message) = check(&program, &options) {
            // The texts of the first few are enough to begin with.
            let text = if failures.len() < 3 {
                &*program.text
            } else {
                ""
            };
            failures.push(format!("seed {seed}: {message}\n{text}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(missing.is_empty(), "no program has {missing:?}");
}

/// The tokens of random programs are there for a reason, and so the verifier misses them.
#[test]
fn programs_without_their_tokens_are_refused() {
    let options = Options {
        machine: "mesh4x4",
        ..Options::default()
    };
    let machine = identities::machine(options.machine).unwrap();
    let (mut with, mut refused) = (0, 0);
    for seed in 0..40 {
        let text = random_program(seed, &options).text;
        if !text.contains("wait ") {
            continue;
        }
        with += 1;
        let lines = text.lines();
        let kept = lines.filter(|line| !line.starts_with("wait ") && !line.starts_with("signal "));
        let without = kept.collect::<Vec<_>>().join("\n");
        let (program, _) = parse::parse(&without).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        refused += usize::from(identities::verifies(&program, &machine).is_err());
    }
    assert!(with > 20);
    // What is left has streams that share nothing.
    assert!(refused * 4 > with * 3, "{refused} of {with}");
}
