//! What every level of the IR has in common.

use std::fmt::{self, Debug, Display, Formatter};

use crate::diag::Diagnostics;

/// A level of the IR: it prints, parses back and verifies.
pub trait Level: Display + Sized {
    /// The level's name in the header of its text form.
    const NAME: &'static str;

    /// Parses the text form.
    ///
    /// # Errors
    /// All syntax errors, or if there are none, all errors of meaning, each with its place.
    fn parse(text: &str) -> Result<Self, Diagnostics>;

    /// Checks every rule of the level.
    ///
    /// # Errors
    /// All violations, each with its place.
    fn verify(&self) -> Result<(), Diagnostics>;
}

/// A broken rule of a level, whose parts `E` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation<E> {
    /// What breaks it.
    pub entity: E,
    /// Code of the diagnostic.
    pub code: u16,
    /// What is wrong.
    pub message: String,
}

impl<E: Debug> Display for Violation<E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.entity, self.message)
    }
}
