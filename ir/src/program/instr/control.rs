//! Loops and registers.

use super::InstrInfo;
use crate::machine::Confidence;

/// Documentation of the family.
pub const INFOS: [InstrInfo; 2] = [
    InstrInfo {
        mnemonic: "for",
        family: "control",
        doc: "`for {count = n} ({ ^(%i : index) ... })`: runs the body n times, the counter going from 0 to n - 1.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "count",
        family: "control",
        doc: "`%n = count view {max = m, via = @family}`: reads an integer into a uniform register.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
];
