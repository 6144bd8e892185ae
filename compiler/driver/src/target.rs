//! The machine to compile for.

use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::graph::closest;
use dojoc_ir::machine::{BUILTIN, Machine};

use crate::codes;
use crate::error::{Error, Result, SourceText};

/// A machine description. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Target {
    machine: Arc<Machine>,
}

impl Target {
    /// The names of the built-in machines, smallest first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// A built-in machine.
    ///
    /// # Errors
    /// When there is none of this name; the message lists those there are.
    pub fn named(name: &str) -> Result<Self> {
        let Some(text) = Machine::builtin(name) else {
            let message = format!("there is no machine `{name}`");
            let names: Vec<_> = Self::names().collect();
            let help = match closest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`? there are: {}", names.join(", ")),
                None => format!("there are: {}", names.join(", ")),
            };
            return Err(Diagnostic::input(codes::UNKNOWN_WORD, message)
                .help(help)
                .into());
        };
        Self::from_toml(text, name)
    }

    /// A machine from a description. `name` is what reports call it.
    ///
    /// # Errors
    /// All problems of the text, with their places.
    pub fn from_toml(text: &str, name: &str) -> Result<Self> {
        match Machine::parse(text, name) {
            Ok(machine) => Ok(Self {
                machine: Arc::new(machine),
            }),
            Err(errors) => {
                let diagnostics = errors.into_iter().map(|error| {
                    let diagnostic = Diagnostic::input(error.code, error.message);
                    match error.span {
                        Some(span) => diagnostic.at_span(span),
                        None => diagnostic,
                    }
                });
                let source = SourceText {
                    name: name.to_owned(),
                    text: text.to_owned(),
                };
                let diagnostics = Diagnostics(diagnostics.collect());
                Err(Error::new(diagnostics, Some(Arc::new(source))))
            }
        }
    }

    /// The description.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// A hash of everything that the description says. Two machines that differ in a figure differ
    /// in it; names and notes do not count.
    pub fn fingerprint(&self) -> u128 {
        self.machine.fingerprint()
    }
}
