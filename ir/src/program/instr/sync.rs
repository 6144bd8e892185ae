//! Tokens between the streams of a core.

use super::InstrInfo;
use crate::machine::Confidence;

/// Documentation of the family.
pub const INFOS: [InstrInfo; 2] = [
    InstrInfo {
        mnemonic: "signal",
        family: "sync",
        doc: "`signal %token`: adds one to the token. What this stream did before happens before what follows the matching wait.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "wait",
        family: "sync",
        doc: "`wait %token`: waits until the token is not zero and takes one.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
];
