//! Programs from anywhere: whatever is in a file or a text, the end is a coded error or a program
//! that keeps every rule, says the same in all its forms and runs.
//!
//! [`djx::check`] and [`asm::check`] take any bytes and panic where this does not hold; they are the
//! bodies of the fuzz targets in `tests/fuzz`, and the tests feed them seeded damage ([`mutate`]).

pub mod asm;
pub mod djx;
pub mod mutate;
mod run;
pub mod value;

use std::sync::OnceLock;

use dojoc_ir::codes;
use dojoc_ir::diag::{Diagnostic, Kind};
use dojoc_ir::machine::Machine;
use dojoc_ir::program::verify::verify;
use dojoc_ir::program::{Program, parse};

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

fn checked(program: &Program) -> Outcome {
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
