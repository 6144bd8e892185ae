//! Loops and registers.

use super::cost::front_end;
use super::{Cost, InstrInfo};
use crate::machine::{Confidence, Machine};

/// Documentation of the family.
pub const INFOS: [InstrInfo; 2] = [
    InstrInfo {
        mnemonic: "for",
        family: "control",
        doc: "Runs its body so many times.",
        rules: "`for {count = n} ({ ^(%i : index) ... })`: the counter goes from 0 to n - 1; nothing happens \
                for a count of zero or less.",
        stands_for: "A loop of the front end, which retires branches by itself; counters and addresses are \
                     kept by the integer side, which runs far ahead of the vector side.",
        confidence: Confidence::StatedSecondHand,
        cost: "One instruction of the front end per iteration.",
    },
    InstrInfo {
        mnemonic: "count",
        family: "control",
        doc: "Reads an integer from SRAM into a uniform register.",
        rules: "`%n = count view {max = m, via = @family}`: the view is one i32 or i64. A value that is \
                negative or above `max` ends the run with an error. With `via`, the value is the one that \
                the channel family delivered (or sent from here), so that all members of the group have \
                the same; channel operations may depend on no other.",
        stands_for: "A scalar load. That the value is the same on all cores of a group is a rule of this \
                     instruction set, not of the hardware.",
        confidence: Confidence::Inferred,
        cost: "One scalar access. Latency: a read of SRAM.",
    },
];

/// The price of one iteration of `for`, without its body.
pub fn iteration_cost(machine: &Machine) -> Cost {
    front_end(machine)
}

/// The price of `count` of a register of so many bytes.
pub fn count_cost(bytes: u64, machine: &Machine) -> Cost {
    let access = bytes.div_ceil(machine.sram.scalar_read.value.into()) as f64;
    Cost {
        issue: (access / f64::from(machine.core.address_units.value))
            .max(1.0 / f64::from(machine.core.decode.value)),
        load: access,
        latency: f64::from(machine.sram.latency.value),
        ..Cost::default()
    }
}
