//! The words for what was found.

use super::super::{Violation, describe};
use super::finding::Problem;
use super::order::At;
use crate::program::{BufferId, FamilyId, Place, Program, SegmentId, TokenId};

/// The names of a segment's parts.
pub(super) struct Names<'p> {
    pub(super) program: &'p Program,
    pub(super) segment: SegmentId,
}

impl Names<'_> {
    /// The place of a statement.
    pub(super) fn place(&self, at: At) -> Place {
        Place::Inst(self.segment, at.stream.into(), at.inst)
    }

    /// A statement as another message names it.
    pub(super) fn stmt(&self, at: At) -> String {
        describe(self.program, self.place(at)).unwrap_or_default()
    }

    /// A buffer.
    pub(super) fn buffer(&self, buffer: BufferId) -> &str {
        &self.program.segments[self.segment].buffers[buffer].name
    }

    fn token(&self, token: TokenId) -> &str {
        &self.program.segments[self.segment].tokens[token]
    }

    fn family(&self, family: FamilyId) -> &str {
        &self.program.families[family].name
    }

    /// The message of a problem of this segment.
    pub(super) fn violation(&self, at: At, other: Option<At>, problem: &Problem) -> Violation {
        let there = other.map_or_else(String::new, |other| self.stmt(other));
        let (message, help) = self.words(&there, problem);
        let violation = Violation::new(problem.code(), self.place(at), message);
        match help {
            "" => violation,
            help => violation.help(help),
        }
    }

    fn words(&self, there: &str, problem: &Problem) -> (String, &'static str) {
        let verb = |writes: bool| if writes { "writes" } else { "reads" };
        match problem {
            Problem::Race {
                bytes: (low, high),
                other_writes,
                writes,
            } => (
                format!(
                    "{} bytes {low}..{high} of SRAM, which {there} {}, in no order",
                    verb(*writes),
                    verb(*other_writes)
                ),
                "signal a token behind one of them and wait for it before the other",
            ),
            Problem::Reused {
                bytes: (low, high),
                buffer,
                owner,
            } => (
                format!(
                    "reads bytes {low}..{high} of SRAM through %{}, but {there} wrote %{} there",
                    self.buffer(*buffer),
                    self.buffer(*owner)
                ),
                "give the buffers other addresses, or read this one before the other is written",
            ),
            Problem::Uninitialised {
                bytes: (low, high),
                buffer,
            } => (
                format!(
                    "reads bytes {low}..{high} of SRAM through %{}, which nothing wrote in this call",
                    self.buffer(*buffer)
                ),
                "write them first; content of before the call needs the role `in` or `inout`",
            ),
            Problem::Owned {
                bytes: (low, high),
                buffer,
            } => (
                format!(
                    "uses bytes {low}..{high} of SRAM (%{}), which {there} gave to the network",
                    self.buffer(*buffer)
                ),
                "use them behind the `recv` of the slot",
            ),
            Problem::EndRace { family, port } => (
                format!(
                    "uses port {port} of @{}, as {there} does, in no order",
                    self.family(*family)
                ),
                "signal a token behind one of them and wait for it before the other, or use one \
                 stream for each end of a channel",
            ),
            Problem::NoSlot { family, port } => (
                format!(
                    "waits for ever: no slot is posted on port {port} of @{}",
                    self.family(*family)
                ),
                "`post` the slot before",
            ),
            Problem::OtherSlot { family, port } => (
                format!(
                    "names another view than the oldest slot of port {port} of @{}: {there}",
                    self.family(*family)
                ),
                "receive slots in the order in which they were posted",
            ),
            Problem::NotReceived {
                family,
                port,
                count,
            } => (
                format!(
                    "slots of port {port} of @{} are not received by the end of the call: {count}, \
                     of which this is the first",
                    self.family(*family)
                ),
                "receive every slot in the call that posts it",
            ),
            Problem::TokenShared { token, signals } => {
                let verb = if *signals { "signals" } else { "waits for" };
                let word = if *signals { "signals" } else { "waits for it" };
                (
                    format!(
                        "{verb} %{}, but another stream {word} too: {there}",
                        self.token(*token)
                    ),
                    "a token has one signalling and one waiting stream; declare another one",
                )
            }
            Problem::Blocked {
                token,
                signals,
                others,
            } => (self.blocked(*token, *signals, others), ""),
            Problem::TokenLeft {
                token,
                signals,
                waits,
            } => (
                format!(
                    "%{} is signalled {signals} times in a call, but waited for {waits} times",
                    self.token(*token)
                ),
                "",
            ),
            Problem::TooManyRuns => (
                "a view consists of too many separate intervals of bytes to follow".into(),
                "use a layout with longer contiguous rows",
            ),
            Problem::Budget => (
                "the streams run for too many steps to be followed".into(),
                "use shorter loops over larger views, or smaller run parameters and registers",
            ),
            Problem::TooManyValues { max } => (
                format!("a register of up to {max} has too many values to be followed"),
                "lower `max`",
            ),
        }
    }

    fn blocked(&self, token: TokenId, signals: u64, others: &[At]) -> String {
        let others: Vec<String> = others.iter().map(|at| self.stmt(*at)).collect();
        let token = self.token(token);
        if others.is_empty() {
            format!("waits for ever: %{token} is signalled {signals} times in all")
        } else {
            format!(
                "waits for ever: %{token} is signalled {signals} times until {} waits for ever too",
                others.join(" and ")
            )
        }
    }
}
