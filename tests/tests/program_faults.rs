//! Programs with one planted fault each, in `program_faults/`: who finds it, and in which words. A
//! line that ends in `// fault` is not in the sound twin of a program; a line that begins with
//! `// fix:` is in it, without these words. The twins pass all checks and run to their end, so that
//! a check which refuses everything fails too.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dojoc_ir::diag::Diagnostics;
use dojoc_ir::machine::Machine;
use dojoc_ir::program::Program;
use dojoc_ir::program::{parse, verify};

/// A file of the folder: its name and its text.
fn cases() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("program_faults");
    let mut cases: Vec<(String, String)> = fs::read_dir(&folder)
        .expect("the folder exists")
        .map(|entry| entry.expect("the folder can be read").path())
        .map(|path| {
            let name = path.file_stem().expect("files have names");
            let text = fs::read_to_string(&path).expect("the file can be read");
            (name.to_string_lossy().into_owned(), text)
        })
        .collect();
    cases.sort();
    cases
}

/// The program without its fault.
fn twin(text: &str) -> String {
    let mut sound = String::new();
    for line in text.lines().filter(|line| !line.ends_with("// fault")) {
        sound.push_str(&line.replacen("// fix: ", "", 1));
        sound.push('\n');
    }
    assert_ne!(sound, text, "the program has no marks");
    sound
}

/// The machine of a program: the one that it names, with the dead cores that a line
/// `// dead: [row, column]` gives.
fn machine(text: &str) -> Machine {
    let dead = text.lines().find_map(|line| line.strip_prefix("// dead: "));
    let dead = dead.map(|core| format!("[[defects]]\nchip = 0\ndead = [{core}]\n"));
    let source = format!("base = \"mesh4x4\"\n{}", dead.unwrap_or_default());
    Machine::parse(&source, "mesh4x4").expect("the machine is sound")
}

fn refused(text: &str) -> Option<(&'static str, Diagnostics)> {
    let (program, map) = match parse::parse(text) {
        Ok(parsed) => parsed,
        Err(errors) => return Some(("parser", errors)),
    };
    let machine = machine(text);
    let mut violations = verify::structure(&program);
    if violations.is_empty() {
        violations = verify::verify(&program, &machine);
    }
    if !violations.is_empty() {
        let errors = violations.into_iter();
        let errors = errors.map(|violation| violation.into_diagnostic(&program, Some(&map)));
        return Some(("verifier", Diagnostics(errors.collect())));
    }
    None
}

#[test]
fn every_planted_fault_is_found_and_its_sound_twin_runs() {
    let cases = cases();
    assert!(cases.len() >= 35, "only {} programs", cases.len());
    let mut report = String::new();
    let mut wrong = String::new();
    for (name, text) in cases {
        match refused(&text) {
            Some((who, errors)) => {
                writeln!(report, "== {name}: {who}\n{errors}\n").expect("strings grow");
            }
            None => writeln!(wrong, "{name} is not found").expect("strings grow"),
        }
        if let Some((who, errors)) = refused(&twin(&text)) {
            writeln!(wrong, "twin of {name}, {who}:\n{errors}\n").expect("strings grow");
        }
    }
    std::fs::write("/tmp/race_report.txt", &report).unwrap();
    assert!(wrong.is_empty(), "{wrong}");
    insta::assert_snapshot!(report);
}
