//! What can be wrong with a machine file, and its codes.

use std::ops::Range;

/// One problem of a machine file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineError {
    /// A stable code, one of [`MachineError::CODES`]; printed as `D0600`.
    pub code: u16,
    /// Byte range in the text; `None` where the problem is something that is not there.
    pub span: Option<Range<usize>>,
    /// What is wrong, and what would be right.
    pub message: String,
}

pub(super) const SYNTAX: u16 = 600;
pub(super) const UNKNOWN_KEY: u16 = 601;
pub(super) const MISSING: u16 = 602;
pub(super) const WRONG_TYPE: u16 = 603;
pub(super) const OUT_OF_RANGE: u16 = 604;
pub(super) const WRONG_UNIT: u16 = 605;
pub(super) const UNKNOWN_SOURCE: u16 = 606;
pub(super) const UNKNOWN_CONFIDENCE: u16 = 607;
pub(super) const INCONSISTENT: u16 = 608;
pub(super) const UNKNOWN_BASE: u16 = 609;
pub(super) const BAD_DEFECT: u16 = 610;
pub(super) const UNKNOWN_CHOICE: u16 = 611;

impl MachineError {
    /// Every code with its long form, in ascending order.
    pub const CODES: &'static [(u16, &'static str)] = &[
        (SYNTAX, "The machine file is not TOML."),
        (
            UNKNOWN_KEY,
            "A section or key is not part of a machine description. Misspelt figures would \
             otherwise silently keep the value of the base.",
        ),
        (
            MISSING,
            "A section, a figure, or a figure's value, unit, source or confidence is missing, here \
             and in all bases. Every figure is written as \
             `key = { value = .., unit = \"..\", source = \"..\", confidence = \"..\" }`.",
        ),
        (WRONG_TYPE, "A value has another type than the figure."),
        (
            OUT_OF_RANGE,
            "A value lies outside its figure's range. The ranges exclude zero where it would make \
             no machine, negative and non-finite numbers, and sizes that overflow totals.",
        ),
        (
            WRONG_UNIT,
            "A figure is stated in another unit than the one its definition fixes. Units are not \
             converted, so that a figure reads the same everywhere.",
        ),
        (
            UNKNOWN_SOURCE,
            "A figure names a source that [sources] does not list.",
        ),
        (
            UNKNOWN_CONFIDENCE,
            "A confidence tag is none of T, T2, M, I, P.",
        ),
        (INCONSISTENT, "Figures contradict each other."),
        (
            UNKNOWN_BASE,
            "The base is no built-in machine. Bases are not files.",
        ),
        (
            BAD_DEFECT,
            "A list of defects names a chip or site that does not exist, names one twice, or leaves \
             a chip without a core.",
        ),
        (
            UNKNOWN_CHOICE,
            "A value is none of the names that the figure can have.",
        ),
    ];
}

impl std::fmt::Display for MachineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "D{:04}: {}", self.code, self.message)
    }
}

impl std::error::Error for MachineError {}
