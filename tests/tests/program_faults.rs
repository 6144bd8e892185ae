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
use dojoc_ir::program::recipe::NoSources;
use dojoc_ir::program::{Program, TensorKind, parse, verify};
use dojoc_ir::tensor::Tensor;
use dojoc_runtime::instance::{Instance, LoadOptions};
use dojoc_runtime::options::RunOptions;

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
fn machine(name: &str, text: &str) -> Machine {
    let dead = text.lines().find_map(|line| line.strip_prefix("// dead: "));
    let dead = dead.map(|core| format!("[[defects]]\nchip = 0\ndead = [{core}]\n"));
    let source = format!("base = \"{name}\"\n{}", dead.unwrap_or_default());
    Machine::parse(&source, name).expect("the machine is sound")
}

/// Who refuses a program, and in which words: the first of parser, verifier, executor and sanitizer.
fn refused(text: &str) -> Option<(&'static str, Diagnostics)> {
    let (program, map) = match parse::parse(text) {
        Ok(parsed) => parsed,
        Err(errors) => return Some(("parser", errors)),
    };
    let machine = machine(&program.machine.name, text);
    let violations = verify::verify(&program, &machine);
    if !violations.is_empty() {
        let errors = violations.into_iter();
        let errors = errors.map(|violation| violation.into_diagnostic(&program, Some(&map)));
        return Some(("verifier", Diagnostics(errors.collect())));
    }
    let program = Arc::new(program);
    let mut outputs = Vec::new();
    for (who, sanitize) in [("executor", false), ("sanitizer", true)] {
        match run(&program, &machine, sanitize) {
            Ok(result) => outputs.push(result),
            Err(errors) => return Some((who, errors)),
        }
    }
    assert_eq!(outputs[0], outputs[1], "executor and sanitizer disagree");
    None
}

/// Runs `main` on rising numbers; the bytes of all outputs.
fn run(
    program: &Arc<Program>,
    machine: &Machine,
    sanitize: bool,
) -> Result<Vec<Vec<u8>>, Diagnostics> {
    let options = LoadOptions {
        sanitize,
        ..LoadOptions::default()
    };
    let mut instance = Instance::load(program.clone(), machine, &NoSources, options)?;
    let inputs: Vec<(Arc<str>, Tensor)> = program
        .tensors
        .values()
        .filter(|tensor| tensor.kind == TensorKind::Input)
        .map(|tensor| {
            let shape = tensor.shape.iter().map(|extent| extent.constant as u64);
            let shape: Vec<u64> = shape.collect();
            let values = (0..shape.iter().product()).map(|i: u64| i as f32).collect();
            (tensor.name.clone(), Tensor::from_vec(&shape, values))
        })
        .collect();
    let options = RunOptions {
        threads: 1,
        sanitize,
        ..RunOptions::default()
    };
    let result = instance.run("main", &inputs, &options)?;
    let outputs = result.outputs.iter();
    Ok(outputs.map(|(_, tensor)| tensor.bytes().to_vec()).collect())
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
    assert!(wrong.is_empty(), "{wrong}");
    insta::assert_snapshot!(report);
}
