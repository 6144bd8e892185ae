//! Transfers between cores: channels.

use super::InstrInfo;
use crate::machine::Confidence;

/// Documentation of the family.
pub const INFOS: [InstrInfo; 4] = [
    InstrInfo {
        mnemonic: "post",
        family: "network",
        doc: "`post @family, slot {port = p}`: gives the view, which is dense, to the incoming channel of the port as its next slot. Does not wait.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "send",
        family: "network",
        doc: "`send @family, view {port = p}`: waits until the receiver (all receivers of a multicast) has posted a slot that no earlier message has taken, then sends the elements of the view, row-major and dense. When it is done the view may be overwritten.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "recv",
        family: "network",
        doc: "`recv @family, slot {port = p}`: waits until the oldest slot of the incoming channel, which is this view, is filled, and takes it back.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "relay",
        family: "network",
        doc: "`relay @family, slot, @to {port = p, to_port = q}`: `recv`, then `send` of the slot, as one transfer sequence.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
];
