//! Where the bytes of an exchange lie at both of its ends, and which messages go together in one
//! call.

use std::collections::BTreeMap;

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::mesh::{Exchange, Flow, Storage};
use dojoc_ir::program::{MAX_VIEW_RANK, Packing};
use dojoc_ir::tiled::{Grid, GridId, Layout};

use super::super::Unsupported;
use crate::route::storage_dims;

/// Channels of a core in one call, in each direction.
const MAX_PORTS: usize = 64;
/// Alignment of staged messages, in bytes: a beat.
const ALIGNMENT: u64 = 64;
/// Boxes of one exchange after cutting.
const MAX_MOVES: usize = 1 << 20;

/// A value at one side of an exchange.
#[derive(Debug)]
pub(in crate::emit) struct End {
    /// Extents of the exchange's view.
    extents: Vec<u64>,
    /// Distance in bytes between neighbours in each dim of the exchange's view.
    pub(in crate::emit) strides: Vec<i64>,
    /// Elements of a dim from one place to the next one at which the distance does not hold.
    rows: Vec<u64>,
    /// Dims of the layout behind each dim of the exchange's view, with their distances, and the
    /// elements of the latter that are one step.
    steps: Vec<Vec<(u64, u64, i64)>>,
    /// By core: the byte at which the tensor's first element would be, from the start of the buffer.
    origins: BTreeMap<u32, i64>,
}

impl End {
    /// For a layout and its storage.
    pub(in crate::emit) fn new(
        grids: &PrimaryMap<GridId, Grid>,
        view: &[u64],
        layout: &Layout,
        storage: &Storage,
    ) -> Result<Self, Unsupported> {
        if layout.packing != Packing::Strided {
            return Err(Unsupported::new(
                "values in blocks of the matrix unit are not exchanged",
            ));
        }
        let unfit = || Unsupported::new("the exchange is not of this layout");
        let grid = grids.get(layout.grid).ok_or_else(unfit)?;
        if storage.strides.len() != layout.view.len() {
            return Err(unfit());
        }
        let mut end = Self {
            extents: view.to_vec(),
            strides: vec![0; view.len()],
            rows: view.to_vec(),
            steps: vec![vec![]; view.len()],
            origins: BTreeMap::new(),
        };
        for (dims, run) in storage_dims(&layout.view, view).ok_or_else(unfit)? {
            // Dims of the layout from the inside: what a step is in elements, and its distance.
            let mut step = 1;
            for d in dims.iter().rev() {
                let extent = layout.view[*d];
                end.add(run.clone(), (step, extent, storage.strides[*d]))?;
                step *= extent;
            }
        }
        for index in 0..grid.size() {
            let window = layout.window(grid, &grid.coordinates(index));
            let mut starts = window.iter().zip(&storage.strides);
            let origin = starts.try_fold(0i64, |sum, (range, stride)| {
                sum.checked_sub(range.start.checked_mul(*stride)?)
            });
            let core = u32::try_from(grid.first + index).ok();
            let (core, origin) = core.zip(origin).ok_or_else(Unsupported::overflow)?;
            end.origins.insert(core, origin);
        }
        Ok(end)
    }

    /// Adds a dim of the layout, which is several dims of the exchange, or one of several that are
    /// one dim of it.
    fn add(
        &mut self,
        run: std::ops::Range<usize>,
        (step, extent, stride): (u64, u64, i64),
    ) -> Result<(), Unsupported> {
        if run.len() > 1 {
            let mut distance = stride;
            for j in run.rev() {
                self.strides[j] = distance;
                self.steps[j].push((1, self.extents[j], distance));
                distance = scaled(distance, self.extents[j])?;
            }
            return Ok(());
        }
        let j = run.start;
        match self.steps[j].last() {
            None => self.strides[j] = stride,
            // The first dim that does not lie as one with those inside of it ends a row.
            Some(_) if self.rows[j] != self.extents[j] => {}
            Some((_, inner, distance)) if scaled(*distance, *inner)? == stride => {}
            Some(_) => self.rows[j] = step,
        }
        self.steps[j].push((step, extent, stride));
        Ok(())
    }

    /// The first byte of a box on a core, from the start of the buffer.
    pub(in crate::emit) fn offset(&self, core: u32, start: &[u64]) -> Option<i64> {
        let mut at = *self.origins.get(&core)?;
        for (x, steps) in start.iter().zip(&self.steps) {
            for (step, extent, stride) in steps {
                let index = i64::try_from(x / step % extent).ok()?;
                at = at.checked_add(index.checked_mul(*stride)?)?;
            }
        }
        Some(at)
    }

    /// Whether a box lies side by side, row-major, where elements have so many bytes.
    fn is_dense(&self, size: &[u64], bytes: u64) -> bool {
        let mut expected = bytes as i64;
        size.iter()
            .zip(&self.strides)
            .rev()
            .all(|(extent, stride)| {
                let fits = *extent == 1 || *stride == expected;
                expected = expected.saturating_mul(*extent as i64);
                fits
            })
    }
}

fn scaled(distance: i64, extent: u64) -> Result<i64, Unsupported> {
    let extent = i64::try_from(extent).ok();
    extent
        .and_then(|e| distance.checked_mul(e))
        .ok_or_else(Unsupported::overflow)
}

/// A box that moves.
#[derive(Debug)]
pub(super) struct Move {
    /// Sender and receiver; the same for a copy.
    pub(super) from: u32,
    pub(super) to: u32,
    /// Whether it is taken from the new value.
    pub(super) forwarded: bool,
    /// Extents.
    pub(super) size: Vec<u64>,
    /// First byte in the sender's and in the receiver's buffer.
    pub(super) source: i64,
    pub(super) target: i64,
    /// Ports of sender and receiver.
    pub(super) ports: (usize, usize),
    /// First byte in the staging buffer, if it cannot arrive at its place.
    pub(super) staged: Option<i64>,
}

/// What one call does.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Copies inside of cores.
    pub(super) copies: Vec<Move>,
    /// Messages.
    pub(super) messages: Vec<Move>,
    /// Bytes of staging on the core that needs most.
    pub(super) staging: u64,
}

/// The calls of an exchange.
pub(super) fn rounds(
    exchange: &Exchange,
    from: &End,
    to: &End,
    bytes: u64,
) -> Result<Vec<Round>, Unsupported> {
    let mut rounds = vec![];
    for stage in &exchange.stages {
        let mut moves = vec![];
        for flow in stage {
            for flow in cut(flow, from, to)? {
                let sender = if flow.forwarded { to } else { from };
                for flow in of_few_dims(flow, &[&sender.strides, &to.strides])? {
                    moves.push(movement(&flow, sender, to)?);
                }
            }
            if moves.len() > MAX_MOVES {
                return Err(too_many());
            }
        }
        let (copies, messages) = moves.into_iter().partition(|m: &Move| m.from == m.to);
        let mut of_stage = split(messages);
        if of_stage.is_empty() {
            of_stage.push(Round::default());
        }
        of_stage[0].copies = copies;
        for round in &mut of_stage {
            round.number_ports();
            round.stage(to, bytes);
        }
        rounds.extend(of_stage);
    }
    Ok(rounds)
}

fn too_many() -> Unsupported {
    Unsupported::new(format!(
        "an exchange of more than {MAX_MOVES} pieces that lie side by side"
    ))
}

/// A flow, cut where one of the two ends has no constant distance between neighbours.
fn cut(flow: &Flow, from: &End, to: &End) -> Result<Vec<Flow>, Unsupported> {
    let mut flows = vec![flow.clone()];
    for j in 0..flow.start.len() {
        for row in [from.rows[j], to.rows[j]] {
            let (start, end) = (flow.start[j], flow.start[j] + flow.size[j]);
            let rows = (end.div_ceil(row) - start / row) as usize;
            if rows.saturating_mul(flows.len()) > MAX_MOVES {
                return Err(too_many());
            }
            if rows == 1 {
                continue;
            }
            let pieces = |flow: &Flow| {
                let (mut at, end) = (flow.start[j], flow.start[j] + flow.size[j]);
                let mut list = vec![];
                while at < end {
                    let next = ((at / row + 1) * row).min(end);
                    let mut piece = flow.clone();
                    (piece.start[j], piece.size[j]) = (at, next - at);
                    list.push(piece);
                    at = next;
                }
                list
            };
            flows = flows.iter().flat_map(pieces).collect();
        }
    }
    Ok(flows)
}

/// A flow, cut so that its box is a view in memory of these strides.
fn of_few_dims(flow: Flow, strides: &[&[i64]]) -> Result<Vec<Flow>, Unsupported> {
    let mut flows = vec![flow];
    loop {
        // All of them have the same extents.
        let dims = joined_dims(std::iter::once(&*flows[0].size), strides);
        if dims.len() <= MAX_VIEW_RANK {
            return Ok(flows);
        }
        let d = dims[0][0];
        let extent = flows[0].size[d];
        if extent.saturating_mul(flows.len() as u64) > MAX_MOVES as u64 {
            return Err(too_many());
        }
        let rows = |flow: &Flow| {
            let row = |at: u64| {
                let mut row = flow.clone();
                (row.start[d], row.size[d]) = (flow.start[d] + at, 1);
                row
            };
            (0..extent).map(row).collect::<Vec<_>>()
        };
        flows = flows.iter().flat_map(rows).collect();
    }
}

/// Dims that are one dim of a view, for boxes of all these extents: dims of extent 1 are dropped,
/// neighbours joined that lie side by side under all of `strides`.
pub(super) fn joined_dims<'a>(
    boxes: impl Iterator<Item = &'a [u64]> + Clone,
    strides: &[&[i64]],
) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![];
    let rank = boxes.clone().next().map_or(0, <[u64]>::len);
    for d in (0..rank).filter(|d| boxes.clone().any(|size| size[*d] != 1)) {
        let joins = |group: &&mut Vec<usize>| {
            let last = group[group.len() - 1];
            boxes.clone().all(|size| {
                let extent = size[d] as i64;
                group.iter().all(|d| size[*d] == 1)
                    || strides
                        .iter()
                        .all(|s| s[d].checked_mul(extent) == Some(s[last]))
            })
        };
        match groups.last_mut().filter(joins) {
            Some(group) => group.push(d),
            None => groups.push(vec![d]),
        }
    }
    groups
}

fn movement(flow: &Flow, sender: &End, to: &End) -> Result<Move, Unsupported> {
    let source = sender.offset(flow.from, &flow.start);
    let target = to.offset(flow.to, &flow.start);
    let (source, target) = source.zip(target).ok_or_else(Unsupported::overflow)?;
    Ok(Move {
        from: flow.from,
        to: flow.to,
        forwarded: flow.forwarded,
        size: flow.size.clone(),
        source,
        target,
        ports: (0, 0),
        staged: None,
    })
}

/// Messages in as many rounds as ports allow, each as early as possible.
fn split(messages: Vec<Move>) -> Vec<Round> {
    let mut rounds: Vec<Round> = vec![];
    // Messages of each core, sent and received, by round.
    let mut counts: BTreeMap<(u32, bool), Vec<usize>> = BTreeMap::new();
    for message in messages {
        let ends = [(message.from, false), (message.to, true)];
        let used = |counts: &BTreeMap<(u32, bool), Vec<usize>>, round: usize| {
            let of = |end| counts.get(end).and_then(|list| list.get(round)).copied();
            ends.iter()
                .map(|end| of(end).unwrap_or(0))
                .max()
                .unwrap_or(0)
        };
        let mut round = 0;
        while used(&counts, round) >= MAX_PORTS {
            round += 1;
        }
        for end in ends {
            let list = counts.entry(end).or_default();
            list.resize(list.len().max(round + 1), 0);
            list[round] += 1;
        }
        if rounds.len() <= round {
            rounds.resize_with(round + 1, Round::default);
        }
        rounds[round].messages.push(message);
    }
    rounds
}

impl Round {
    /// Numbers the messages of each core: those sent from the next core on, so that not all send to
    /// the same one at first, those received by sender.
    fn number_ports(&mut self) {
        let cores = self
            .messages
            .iter()
            .map(|m| m.from.max(m.to) + 1)
            .max()
            .unwrap_or(0);
        let ahead = |m: &Move| {
            if m.to > m.from {
                m.to - m.from
            } else {
                cores + m.to - m.from
            }
        };
        let number =
            |list: &mut Vec<&mut Move>, core: fn(&Move) -> u32, set: fn(&mut Move, usize)| {
                for run in list.chunk_by_mut(|a, b| core(a) == core(b)) {
                    for (port, message) in run.iter_mut().enumerate() {
                        set(message, port);
                    }
                }
            };
        let mut list: Vec<&mut Move> = self.messages.iter_mut().collect();
        list.sort_by_key(|m| (m.from, ahead(m)));
        number(&mut list, |m| m.from, |m, port| m.ports.0 = port);
        list.sort_by_key(|m| (m.to, m.from));
        number(&mut list, |m| m.to, |m, port| m.ports.1 = port);
    }

    /// Gives messages that do not arrive side by side places in the staging buffer.
    fn stage(&mut self, to: &End, bytes: u64) {
        let mut used: BTreeMap<u32, u64> = BTreeMap::new();
        let mut list: Vec<&mut Move> = self.messages.iter_mut().collect();
        list.sort_by_key(|m| (m.to, m.ports.1));
        for message in list {
            if to.is_dense(&message.size, bytes) {
                continue;
            }
            let at = used.entry(message.to).or_default();
            message.staged = Some(*at as i64);
            let size = message.size.iter().product::<u64>() * bytes;
            *at += size.next_multiple_of(ALIGNMENT);
        }
        self.staging = used.into_values().max().unwrap_or(0);
    }
}
