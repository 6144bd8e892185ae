//! Tokens between the streams of a core.

use super::cost::front_end;
use super::{Cost, InstrInfo};
use crate::machine::{Confidence, Machine};

const SEMAPHORE: &str = "An instruction on a semaphore in the core's own SRAM, by which its threads meet: \
                         semaphores and barriers are reported to be instructions of Tesla's core.";

const PRICE: &str = "Latency: an operation on a semaphore of the same core.";

/// Documentation of the family.
pub const INFOS: [InstrInfo; 2] = [
    InstrInfo {
        mnemonic: "signal",
        family: "sync",
        doc: "Adds one to a token.",
        rules: "`signal %token`: what this stream did before happens before what follows the matching \
                `wait`. One stream of a call signals a token, and as often as another waits for it.",
        stands_for: SEMAPHORE,
        confidence: Confidence::StatedSecondHand,
        cost: PRICE,
    },
    InstrInfo {
        mnemonic: "wait",
        family: "sync",
        doc: "Waits until a token is not zero and takes one.",
        rules: "`wait %token`: the n-th wait of a call returns after its n-th `signal`. One stream of a \
                call waits for a token.",
        stands_for: SEMAPHORE,
        confidence: Confidence::StatedSecondHand,
        cost: PRICE,
    },
];

/// The price of `signal` and of `wait`, without waiting.
pub fn token_cost(machine: &Machine) -> Cost {
    Cost {
        latency: f64::from(machine.sync.local_operation.value),
        ..front_end(machine)
    }
}
