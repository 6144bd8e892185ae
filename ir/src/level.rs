//! What every level of the IR has in common.

use std::fmt::Display;

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
