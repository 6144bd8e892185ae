//! Transfers between cores: channels.
//!
//! On the network a message is its data in packets, and a request that tells the receiver that the
//! slot is filled. A `post` is a request to the sender that there is a slot. So every message costs
//! two request packets beside its data, one each way.

use super::cost::front_end;
use super::{Cost, InstrInfo};
use crate::machine::{Confidence, Machine};

/// Documentation of the family.
pub const INFOS: [InstrInfo; 4] = [
    InstrInfo {
        mnemonic: "post",
        family: "network",
        doc: "Gives a slot to an incoming channel. Does not wait.",
        rules: "`post @family, slot {port = p}`: the view, which is dense, becomes the next slot of the \
                incoming channel of port p (0 if not given). Until the matching `recv` its bytes \
                belong to the network.",
        stands_for: "An operation on a semaphore of the sending core, which counts the free slots of the \
                     channel. Semaphores as instructions over the network are reported of Tesla's core; \
                     this protocol is ours.",
        confidence: Confidence::StatedSecondHand,
        cost: "One request into the network for each sender: the beats of an operation on another core's \
               semaphore.",
    },
    InstrInfo {
        mnemonic: "send",
        family: "network",
        doc: "Sends a view over a channel, waiting for a slot.",
        rules: "`send @family, view {port = p}`: waits until the receiver (all receivers of a multicast) \
                has posted a slot that no earlier message has taken, then sends the elements of the \
                view, row-major and dense. The slot has as many bytes. When it is done the view may be \
                overwritten.",
        stands_for: "A network transfer instruction from local to remote memory, run by the list parser of \
                     the front end on a thread of its own, and a semaphore operation at the receiver.",
        confidence: Confidence::StatedSecondHand,
        cost: "Into the network: ceil(bytes/beat) beats of data and one request. From the network: one \
               request per receiver, for its slot. Latency: a semaphore operation and a read of SRAM; \
               hops come on top. Back-end slots of the front end's list parser, one list per packet.",
    },
    InstrInfo {
        mnemonic: "recv",
        family: "network",
        doc: "Waits until the oldest slot of an incoming channel is filled, and takes it back.",
        rules: "`recv @family, slot {port = p}`: the slot is the view that was posted; its message is in it \
                afterwards and its bytes belong to the core again.",
        stands_for: "Waiting for a semaphore in SRAM that the network stop counts up, while data are \
                     written through its own port.",
        confidence: Confidence::StatedSecondHand,
        cost: "From the network: ceil(bytes/beat) beats of data and one request. Latency: an operation on \
               a local semaphore.",
    },
    InstrInfo {
        mnemonic: "relay",
        family: "network",
        doc: "Receives a message and sends it on.",
        rules: "`relay @family, slot, @to {port = p, to_port = q}`: `recv` of the slot, then `send` of the \
                slot over port q of the other family, as one transfer sequence.",
        stands_for: "A transfer sequence that a communication thread runs: Tesla's list of instructions has \
                     broadcast and link traversal. Multicast in the routers is not described, so that \
                     cores relay.",
        confidence: Confidence::Proposed,
        cost: "That of `recv` and that of `send`.",
    },
];

/// Beats of 64 bytes (as the machine has it) that `bytes` of data take.
pub fn data_beats(bytes: u64, machine: &Machine) -> u64 {
    bytes.div_ceil(machine.noc.beat.value.into())
}

/// Beats of an operation on another core's semaphore.
pub(super) fn request(machine: &Machine) -> f64 {
    f64::from(machine.sync.remote_operation.value) * f64::from(machine.noc.request_packet.value)
}

/// Issue slots of a transfer, in cycles of the front end: the instruction, and what its packets
/// take in the back end.
fn transfer(beats: u64, machine: &Machine) -> Cost {
    let core = &machine.core;
    let packets = beats.div_ceil(machine.noc.data_packet.value.into()) as f64;
    let slots = f64::from(core.list_parse_slots.value) / f64::from(core.scalar_issue.value);
    let mut cost = front_end(machine);
    cost.issue += packets * slots;
    cost
}

/// The price of `post` for a channel with one sender.
pub fn post_cost(machine: &Machine) -> Cost {
    Cost {
        inject: request(machine),
        ..front_end(machine)
    }
}

/// The price of `send` of a view of so many bytes to so many receivers at once (one, unless the
/// machine multicasts), without waiting and without the way.
pub fn send_cost(bytes: u64, receivers: u32, machine: &Machine) -> Cost {
    let beats = data_beats(bytes, machine);
    Cost {
        inject: beats as f64 + request(machine),
        eject: f64::from(receivers) * request(machine),
        latency: f64::from(machine.sync.local_operation.value)
            + f64::from(machine.sram.latency.value),
        ..transfer(beats, machine)
    }
}

/// The price of `recv` of a slot of so many bytes, without waiting.
pub fn receive_cost(bytes: u64, machine: &Machine) -> Cost {
    Cost {
        eject: data_beats(bytes, machine) as f64 + request(machine),
        latency: f64::from(machine.sync.local_operation.value),
        ..front_end(machine)
    }
}

/// The price of `relay` of a slot of so many bytes, without waiting and without the way.
pub fn relay_cost(bytes: u64, receivers: u32, machine: &Machine) -> Cost {
    let (taken, given) = (
        receive_cost(bytes, machine),
        send_cost(bytes, receivers, machine),
    );
    Cost {
        // One instruction, not two.
        issue: given.issue,
        inject: given.inject,
        eject: taken.eject + given.eject,
        latency: taken.latency + given.latency,
        ..Cost::default()
    }
}
