//! Programs as a level of the IR.

use super::verify::verify;
use super::{Program, parse};
use crate::codes;
use crate::diag::{Diagnostic, Diagnostics};
use crate::level::Level;
use crate::machine::{BUILTIN, Machine};

impl Program {
    /// The built-in machine that the program names.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn builtin_machine(&self) -> Result<Machine, Diagnostics> {
        let name = &*self.machine.name;
        let Some(text) = Machine::builtin(name) else {
            let message = format!("there is no built-in machine `{name}`");
            let names: Vec<&str> = BUILTIN.iter().map(|(name, _)| *name).collect();
            let help = format!("there are {}; describe others in a file", names.join(", "));
            return Err(Diagnostic::input(codes::MACHINE_MISMATCH, message)
                .help(help)
                .into());
        };
        Machine::parse(text, name).map_err(|errors| {
            let errors = errors
                .iter()
                .map(|e| Diagnostic::input(e.code, e.message.clone()));
            Diagnostics(errors.collect())
        })
    }
}

impl Level for Program {
    const NAME: &'static str = "program";

    fn parse(text: &str) -> Result<Self, Diagnostics> {
        parse(text).map(|(program, _)| program)
    }

    /// Checks the program for the built-in machine that it names.
    fn verify(&self) -> Result<(), Diagnostics> {
        let machine = self.builtin_machine()?;
        let violations = verify(self, &machine).into_iter();
        Diagnostics(violations.map(|v| v.into_diagnostic(self, None)).collect()).ok(())
    }
}
