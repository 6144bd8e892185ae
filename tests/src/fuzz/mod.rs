//! Programs from anywhere: whatever is in a file or a text, the end is a coded error or a program
//! that keeps every rule, says the same in all its forms and runs.
//!
//! [`djx`] and [`asm`] take any bytes and panic where this does not hold; they are the bodies of the
//! fuzz targets in `tests/fuzz`, and the tests feed them seeded damage ([`mutate`]).

pub mod mutate;
mod run;
pub mod value;

use std::sync::OnceLock;

use dojoc_ir::codes;
use dojoc_ir::diag::{Diagnostic, Kind};
use dojoc_ir::machine::Machine;
use dojoc_ir::program::verify::{structure, verify};
use dojoc_ir::program::{Program, container, parse};

/// What became of an input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// It cannot be read.
    Refused,
    /// It is a program that breaks a rule.
    Broken,
    /// It is a program that keeps all rules.
    Sound,
}

/// The built-in machine that a program names, or one that it then does not fit.
///
/// # Panics
/// When a built-in description is wrong.
pub fn machine_of(program: &Program) -> &'static Machine {
    static MACHINES: OnceLock<[Machine; 2]> = OnceLock::new();
    let machines = MACHINES.get_or_init(|| {
        ["mesh4x4", "tile"].map(|name| {
            let text = Machine::builtin(name).expect("the machine is built in");
            Machine::parse(text, name).expect("the description is right")
        })
    });
    let named = machines.iter().find(|m| m.name == *program.machine.name);
    named.unwrap_or(&machines[0])
}

/// Reads and checks an executable.
///
/// # Panics
/// When a message has no code or calls itself a defect of dojoc, or when a sound program changes by
/// being written and read.
pub fn djx(file: &[u8]) -> Outcome {
    let identity = container::identity(file).map_err(|errors| coded(&errors.0));
    let program = match container::decode(file) {
        Ok(program) => program,
        Err(errors) => {
            coded(&errors.0);
            return Outcome::Refused;
        }
    };
    // Files differ in who wrote them, and in nothing else.
    let ours = container::Identity::of(&program);
    if identity.is_ok_and(|identity| identity == ours) {
        let again = container::encode(&program);
        assert!(again == file, "another file says the same");
    }
    check(&program)
}

/// Reads and checks an assembly text.
///
/// # Panics
/// As [`djx`].
pub fn asm(text: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(text) else {
        return Outcome::Refused;
    };
    let (program, places) = match parse::parse(text) {
        Ok(parsed) => parsed,
        Err(errors) => {
            coded(&errors.0);
            return Outcome::Refused;
        }
    };
    for span in places.values() {
        assert!(
            text.get(span.clone()).is_some(),
            "{span:?} is not in the text"
        );
    }
    same_in_text(&program);
    let outcome = check(&program);
    if structure(&program).is_empty() {
        let file = container::encode(&program);
        assert_eq!(container::decode(&file).as_ref(), Ok(&program));
    }
    outcome
}

fn check(program: &Program) -> Outcome {
    let violations = verify(program, machine_of(program));
    if violations.is_empty() {
        same_in_text(program);
        if let Err(errors) = run::run(program, machine_of(program)) {
            coded(&errors.0);
        }
        return Outcome::Sound;
    }
    let all = violations.into_iter();
    let all: Vec<_> = all.map(|v| v.into_diagnostic(program, None)).collect();
    coded(&all);
    Outcome::Broken
}

fn same_in_text(program: &Program) {
    let text = program.to_string();
    match parse::parse(&text) {
        Ok((again, _)) => assert!(again == *program, "the text says something else:\n{text}"),
        Err(errors) => panic!("the text cannot be read:\n{text}\n{errors}"),
    }
}

/// Every message has a code that is explained, and none is our fault.
fn coded(diagnostics: &[Diagnostic]) {
    assert!(!diagnostics.is_empty(), "an error without a message");
    for diagnostic in diagnostics {
        let code = diagnostic.code.0;
        let mut explained = codes::CODES.iter().chain(dojoc_runtime::codes::CODES);
        let known = code < 100 || explained.any(|info| info.code == code);
        assert!(known && diagnostic.kind != Kind::Bug, "{diagnostic}");
    }
}
