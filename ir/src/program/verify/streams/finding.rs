//! What an abstract run found.

use std::collections::BTreeMap;

use super::order::At;
use super::relocate::Relocation;
use crate::codes;
use crate::program::{BufferId, FamilyId, TokenId};

/// A broken rule within one call.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Problem {
    /// Two accesses in no order, one of them a write.
    Race {
        /// Bytes of SRAM.
        bytes: (i64, i64),
        /// Whether the earlier of them in the abstract run writes.
        other_writes: bool,
        /// Whether this one writes.
        writes: bool,
    },
    /// Content of another buffer is read.
    Reused {
        /// Bytes of SRAM.
        bytes: (i64, i64),
        /// The buffer that is read.
        buffer: BufferId,
        /// The buffer that was written.
        owner: BufferId,
    },
    /// Nothing was written here.
    Uninitialised {
        /// Bytes of SRAM.
        bytes: (i64, i64),
        /// The buffer that is read.
        buffer: BufferId,
    },
    /// The bytes belong to the network.
    Owned {
        /// Bytes of SRAM.
        bytes: (i64, i64),
        /// The buffer that is accessed.
        buffer: BufferId,
    },
    /// Two operations at one end of a channel in no order.
    EndRace {
        /// The family.
        family: FamilyId,
        /// The port.
        port: i64,
    },
    /// A `recv` that no `post` precedes.
    NoSlot {
        /// The family.
        family: FamilyId,
        /// The port.
        port: i64,
    },
    /// A `recv` of another view than the oldest slot.
    OtherSlot {
        /// The family.
        family: FamilyId,
        /// The port.
        port: i64,
    },
    /// A slot is left at the end.
    NotReceived {
        /// The family.
        family: FamilyId,
        /// The port.
        port: i64,
        /// How many slots of this port.
        count: usize,
    },
    /// Several streams signal a token, or several wait for it.
    TokenShared {
        /// The token.
        token: TokenId,
        /// Whether it is about signals.
        signals: bool,
    },
    /// A `wait` that ends never.
    Blocked {
        /// The token.
        token: TokenId,
        /// Signals in all.
        signals: u64,
        /// What each of the other streams waits for.
        others: Vec<At>,
    },
    /// Signals are left at the end.
    TokenLeft {
        /// The token.
        token: TokenId,
        /// Signals in all.
        signals: u64,
        /// Waits in all.
        waits: u64,
    },
    /// A view of too many intervals.
    TooManyRuns,
    /// The budget is used up.
    Budget,
    /// A register has too many values.
    TooManyValues {
        /// Its greatest value.
        max: u64,
    },
}

impl Problem {
    /// The problem where the call has the bytes of a summary.
    pub(super) fn moved(&self, by: &Relocation) -> Self {
        let mut moved = self.clone();
        match &mut moved {
            Self::Race { bytes, .. }
            | Self::Reused { bytes, .. }
            | Self::Uninitialised { bytes, .. }
            | Self::Owned { bytes, .. } => *bytes = by.actual(*bytes),
            _ => {}
        }
        moved
    }

    /// The code of the message.
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Race { .. } | Self::EndRace { .. } => codes::STREAM_RACE,
            Self::Reused { .. } => codes::SLOT_REUSED,
            Self::Uninitialised { .. } => codes::UNINITIALISED,
            Self::Owned { .. } => codes::SLOT_OWNED,
            Self::NoSlot { .. } | Self::OtherSlot { .. } | Self::NotReceived { .. } => {
                codes::CHANNEL_BALANCE
            }
            Self::TokenShared { .. } | Self::Blocked { .. } | Self::TokenLeft { .. } => {
                codes::TOKEN_BALANCE
            }
            Self::TooManyRuns | Self::Budget | Self::TooManyValues { .. } => codes::UNDECIDED,
        }
    }
}

/// What was found, once for each rule and pair of statements.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Findings {
    /// By code, statement, and the other statement if there is one.
    pub(super) all: BTreeMap<(u16, At, Option<At>), Problem>,
}

impl Findings {
    /// Adds a problem unless the same rule is known to be broken by these statements.
    pub(super) fn add(&mut self, at: At, other: Option<At>, problem: Problem) {
        self.all
            .entry((problem.code(), at, other))
            .or_insert(problem);
    }
}
