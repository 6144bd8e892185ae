//! Memory behind the interface processors: DRAM regions.

use super::cost::front_end;
use super::network::{data_beats, request};
use super::{Cost, InstrInfo};
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;

const EPOCHS: &str = "Semaphores over the network, in a protocol of ours: Tesla's machine has no coherent \
                      memory, and how its programs share DRAM is not public.";

const DMA: &str = "A block transfer between SRAM and the memory of an interface processor: any core can \
                   push to and pull from any SRAM or DRAM of the system.";

const REQUEST: &str = "One request into the network. Latency: a semaphore operation.";

/// Documentation of the family.
pub const INFOS: [InstrInfo; 6] = [
    InstrInfo {
        mnemonic: "dram.begin",
        family: "memory",
        doc: "The owner opens its instance of a region for writing.",
        rules: "`dram.begin @region`: waits until all readers have released the last epoch of the \
                instance (the initial content counts as none); the owner may write then.",
        stands_for: EPOCHS,
        confidence: Confidence::Proposed,
        cost: "From the network: one request per reader. Latency: a semaphore operation.",
    },
    InstrInfo {
        mnemonic: "dram.commit",
        family: "memory",
        doc: "The owner publishes what it wrote.",
        rules: "`dram.commit @region`: what the owner wrote since `dram.begin` is the next epoch of its \
                instance.",
        stands_for: EPOCHS,
        confidence: Confidence::Proposed,
        cost: "Into the network: one request per reader. Latency: the round trip to the memory, after \
               which all writes are known to be there.",
    },
    InstrInfo {
        mnemonic: "dram.acquire",
        family: "memory",
        doc: "A reader waits for the next epoch of an instance.",
        rules: "`dram.acquire @region {owner = i}`: waits until the next epoch of the owner's instance, \
                counted from 1 for each reader, is published.",
        stands_for: EPOCHS,
        confidence: Confidence::Proposed,
        cost: "From the network: one request. Latency: a semaphore operation.",
    },
    InstrInfo {
        mnemonic: "dram.release",
        family: "memory",
        doc: "A reader gives an epoch back.",
        rules: "`dram.release @region {owner = i}`: the reader does not read this epoch any more.",
        stands_for: EPOCHS,
        confidence: Confidence::Proposed,
        cost: REQUEST,
    },
    InstrInfo {
        mnemonic: "dram.load",
        family: "memory",
        doc: "Copies from DRAM to SRAM.",
        rules: "`dram.load view, @region {owner = i, offset = bytes, strides = [..]}`: element (i0, i1, ..) \
                of the view comes from byte offset + sum of ik * strides[k] of the owner's instance; \
                without strides it lies there densely. Allowed between acquire and release, to the \
                owner, and to all for a region without owners.",
        stands_for: DMA,
        confidence: Confidence::StatedSecondHand,
        cost: "Into the network: one request per packet. From the network: the beats of each piece of \
               neighbouring bytes in DRAM. Latency: the round trip to the memory; its bandwidth and \
               that of the links is shared and counted where all cores are known.",
    },
    InstrInfo {
        mnemonic: "dram.store",
        family: "memory",
        doc: "Copies from SRAM to the core's own instance.",
        rules: "`dram.store @region, view {offset = bytes, strides = [..]}`: element (i0, i1, ..) of the \
                view goes to byte offset + sum of ik * strides[k] of the own instance, densely without \
                strides. Allowed between begin and commit.",
        stands_for: DMA,
        confidence: Confidence::StatedSecondHand,
        cost: "Into the network: the beats of each piece of neighbouring bytes in DRAM, and one request per \
               packet. Latency: a read of SRAM; the next commit waits for the writes.",
    },
];

/// Beats and packets that carry a view whose elements lie at these strides in DRAM.
fn traffic(view: &ViewType, strides: &[i64], machine: &Machine) -> (f64, f64) {
    let mut run = view.dtype.bytes();
    let mut count = 1u64;
    for (extent, stride) in view.shape.iter().zip(strides).rev() {
        if *extent == 1 {
            continue;
        }
        if count == 1 && stride.unsigned_abs() == run {
            run = run.saturating_mul(*extent);
        } else {
            count = count.saturating_mul(*extent);
        }
    }
    if view.shape.contains(&0) {
        return (0.0, 0.0);
    }
    let beats = data_beats(run, machine);
    let packets = beats.div_ceil(machine.noc.data_packet.value.into());
    (count as f64 * beats as f64, count as f64 * packets as f64)
}

/// Cycles to the memory and back; zero without interface processors.
fn round_trip(machine: &Machine) -> f64 {
    let time = machine
        .dip
        .as_ref()
        .map_or(0.0, |dip| dip.read_round_trip.value);
    machine.cycles(time) as f64
}

/// The price of `dram.load` of a view whose elements lie at `strides` (bytes) in DRAM.
pub fn load_cost(view: &ViewType, strides: &[i64], machine: &Machine) -> Cost {
    let (beats, packets) = traffic(view, strides, machine);
    Cost {
        inject: packets * f64::from(machine.noc.request_packet.value),
        eject: beats,
        latency: round_trip(machine),
        ..front_end(machine)
    }
}

/// The price of `dram.store` of a view whose elements go to `strides` (bytes) in DRAM.
pub fn store_cost(view: &ViewType, strides: &[i64], machine: &Machine) -> Cost {
    let (beats, packets) = traffic(view, strides, machine);
    Cost {
        inject: beats + packets * f64::from(machine.noc.request_packet.value),
        latency: f64::from(machine.sram.latency.value),
        ..front_end(machine)
    }
}

/// The price of `dram.begin` with so many readers, without waiting.
pub fn begin_cost(readers: u32, machine: &Machine) -> Cost {
    Cost {
        eject: f64::from(readers) * request(machine),
        latency: f64::from(machine.sync.local_operation.value),
        ..front_end(machine)
    }
}

/// The price of `dram.commit` with so many readers.
pub fn commit_cost(readers: u32, machine: &Machine) -> Cost {
    Cost {
        inject: f64::from(readers) * request(machine),
        latency: round_trip(machine),
        ..front_end(machine)
    }
}

/// The price of `dram.acquire`, without waiting.
pub fn acquire_cost(machine: &Machine) -> Cost {
    Cost {
        eject: request(machine),
        latency: f64::from(machine.sync.local_operation.value),
        ..front_end(machine)
    }
}

/// The price of `dram.release`.
pub fn release_cost(machine: &Machine) -> Cost {
    Cost {
        inject: request(machine),
        latency: f64::from(machine.sync.local_operation.value),
        ..front_end(machine)
    }
}
