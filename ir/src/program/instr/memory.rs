//! Memory behind the interface processors: DRAM regions.

use super::InstrInfo;
use crate::machine::Confidence;

/// Documentation of the family.
pub const INFOS: [InstrInfo; 6] = [
    InstrInfo {
        mnemonic: "dram.begin",
        family: "memory",
        doc: "`dram.begin @region`: the owner waits until all readers have released the last epoch of its instance (the initial content counts as none), and may write then.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "dram.commit",
        family: "memory",
        doc: "`dram.commit @region`: the owner publishes what it wrote as the next epoch.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "dram.acquire",
        family: "memory",
        doc: "`dram.acquire @region {owner = i}`: a reader waits until the next epoch of the instance, counted from 1 for each reader, is published.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "dram.release",
        family: "memory",
        doc: "`dram.release @region {owner = i}`: the reader gives the epoch back.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "dram.load",
        family: "memory",
        doc: "`dram.load view, @region {owner = i, offset = bytes, strides = [..]}`: copies from DRAM to SRAM. Allowed between acquire and release, to the owner, and to all for a region without owners.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
    InstrInfo {
        mnemonic: "dram.store",
        family: "memory",
        doc: "`dram.store @region, view {offset = bytes, strides = [..]}`: copies from SRAM to the own instance, between begin and commit.",
        stands_for: "",
        confidence: Confidence::Proposed,
        cost: "",
    },
];
