//! Which core sends which piece to which other one, and when.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::parts::{Part, merged};
use crate::mesh::{Flow, MAX_PEERS};

/// Cores to which a core sends the same elements by itself.
const MAX_FAN_OUT: usize = 16;
/// Elements below which a piece is not cut so that several cores pass it on.
const MIN_ELEMENTS: u64 = 64;
/// Elements that a message takes as long as, beside its own: what balances senders.
const MESSAGE: u64 = 64;

/// Elements, and the cores that have them, ascending.
pub struct Piece {
    /// The elements.
    pub part: Part,
    /// Who has them, at least one.
    pub holders: Rc<[u32]>,
}

/// Cores that need the same elements.
pub struct Group {
    /// The cores, ascending.
    pub members: Vec<u32>,
    /// What they need, in disjoint pieces.
    pub pieces: Vec<Piece>,
}

/// Boxes by sender, receiver, and whether they are forwarded.
type Moves = BTreeMap<(u32, u32, bool), Vec<Part>>;

/// Moves in the order in which they depend on each other.
#[derive(Default)]
struct Router {
    local: Moves,
    /// From a core that has a piece, to the core it is for or one that passes it on.
    entry: Moves,
    /// From there to the row.
    row: Moves,
    /// From each of the row along its column.
    column: Moves,
    /// What each core sends so far, in elements.
    loads: BTreeMap<u32, u64>,
}

/// The stages that bring every piece of every group to all its members. Flows of a stage are sorted.
pub fn stages(groups: Vec<Group>) -> Vec<Vec<Flow>> {
    let mut router = Router::default();
    for group in groups {
        router.add(group);
    }
    let forwards = !router.entry.is_empty() || !router.row.is_empty();
    // All that the column gets has arrived at its senders, if there was a stage before.
    let column = router.column.into_iter();
    let column = column
        .map(|((from, to, _), parts)| ((from, to, forwards), parts))
        .collect();
    let mut stages: Vec<Vec<Flow>> = vec![];
    for moves in [router.entry, router.row, column] {
        if !moves.is_empty() {
            stages.extend(with_few_peers(flows(moves)));
        }
    }
    if !router.local.is_empty() {
        let local = flows(router.local);
        match stages.first_mut() {
            Some(first) => first.extend(local),
            None => stages.push(local),
        }
    }
    for stage in &mut stages {
        stage.sort();
    }
    stages
}

impl Router {
    fn add(&mut self, group: Group) {
        let Group {
            members,
            mut pieces,
        } = group;
        for piece in &pieces {
            for core in both(&members, &piece.holders) {
                add(&mut self.local, (core, core, false), &piece.part);
            }
        }
        pieces.retain(|piece| both(&members, &piece.holders).count() < members.len());
        let fan_out = |piece: &Piece| {
            let needers = members.len() - both(&members, &piece.holders).count();
            needers.div_ceil(piece.holders.len())
        };
        let most = pieces.iter().map(fan_out).max().unwrap_or(0);
        if most > MAX_FAN_OUT || (pieces.len() > MAX_PEERS && members.len() > 1) {
            self.spread(&members, pieces);
        } else {
            for piece in &pieces {
                for to in members.iter().filter(|core| !piece.is_at(**core)) {
                    let from = self.choose(piece, *to);
                    add(&mut self.entry, (from, *to, false), &piece.part);
                }
            }
        }
    }

    /// The holder that sends a piece to a core: the one with the least to do, near ones first.
    fn choose(&mut self, piece: &Piece, to: u32) -> u32 {
        let load = |core: u32| self.loads.get(&core).copied().unwrap_or(0);
        let best = piece
            .holders
            .iter()
            .min_by_key(|h| (load(**h), h.abs_diff(to), **h));
        let from = best.copied().unwrap_or(to);
        *self.loads.entry(from).or_default() += piece.part.elements() + MESSAGE;
        from
    }

    /// Brings pieces to all members in three steps: to one of them, to its row, along the columns.
    fn spread(&mut self, members: &[u32], pieces: Vec<Piece>) {
        let rows = Rows::new(members);
        // Few pieces would keep few of the members busy.
        let is_few = pieces.len() < rows.count;
        let is_foreign = |piece: &Piece| is_few || both(members, &piece.holders).next().is_none();
        let (foreign, own): (Vec<Piece>, Vec<Piece>) = pieces.into_iter().partition(is_foreign);
        for piece in &own {
            let holds = |row: usize| rows.of(row).iter().any(|core| piece.is_at(*core));
            let sources = (0..rows.count).filter(|row| holds(*row)).collect();
            self.pass_on(&rows, piece, None, sources);
        }
        let mut foreign = cut(foreign, members.len());
        foreign.sort_by(|a, b| a.part.cmp(&b.part));
        for (at, piece) in foreign.iter().enumerate() {
            let entry = at * members.len() / foreign.len();
            if !piece.is_at(members[entry]) {
                let from = self.choose(piece, members[entry]);
                add(&mut self.entry, (from, members[entry], false), &piece.part);
            }
            self.pass_on(&rows, piece, Some(members[entry]), vec![rows.row_of(entry)]);
        }
    }

    /// From those in the rows `sources` that have a piece, or from the core where it has entered, to
    /// all members that do not have it.
    fn pass_on(&mut self, rows: &Rows<'_>, piece: &Piece, entry: Option<u32>, sources: Vec<usize>) {
        for row in &sources {
            let row = rows.of(*row);
            let senders: Vec<u32> = match entry {
                Some(core) => vec![core],
                None => row
                    .iter()
                    .copied()
                    .filter(|core| piece.is_at(*core))
                    .collect(),
            };
            for (at, to) in row.iter().enumerate() {
                let from = senders[at * senders.len() / row.len()];
                if *to != from && !piece.is_at(*to) {
                    let key = (from, *to, !piece.is_at(from));
                    add(&mut self.row, key, &piece.part);
                }
            }
        }
        for row in (0..rows.count).filter(|row| !sources.contains(row)) {
            let senders = rows.of(sources[row * sources.len() / rows.count]);
            for (at, to) in rows.of(row).iter().enumerate() {
                if !piece.is_at(*to) {
                    let from = senders[at % senders.len()];
                    add(&mut self.column, (from, *to, false), &piece.part);
                }
            }
        }
    }
}

impl Piece {
    fn is_at(&self, core: u32) -> bool {
        self.holders.binary_search(&core).is_ok()
    }
}

/// Members in rows, as many as columns or nearly so; one row for a few.
struct Rows<'m> {
    members: &'m [u32],
    count: usize,
}

impl<'m> Rows<'m> {
    fn new(members: &'m [u32]) -> Self {
        let count = match members.len() {
            n if n <= MAX_FAN_OUT => 1,
            n => n.isqrt(),
        };
        Self { members, count }
    }

    fn start(&self, row: usize) -> usize {
        row * self.members.len() / self.count
    }

    fn of(&self, row: usize) -> &'m [u32] {
        &self.members[self.start(row)..self.start(row + 1)]
    }

    fn row_of(&self, member: usize) -> usize {
        (0..self.count)
            .rev()
            .find(|row| self.start(*row) <= member)
            .unwrap_or(0)
    }
}

/// Pieces cut so that there is one for each of the members, if they are large enough, and not more
/// than a core can have peers.
fn cut(pieces: Vec<Piece>, members: usize) -> Vec<Piece> {
    let wanted = members.min(MAX_PEERS) as u64;
    let elements: u64 = pieces.iter().map(|piece| piece.part.elements()).sum();
    let wanted = wanted.min(elements / MIN_ELEMENTS);
    if pieces.len() as u64 >= wanted {
        return pieces;
    }
    let of = |piece: &Piece| {
        let share = u128::from(piece.part.elements()) * u128::from(wanted);
        let count = share.div_ceil(u128::from(elements.max(1))) as u64;
        let holders = piece.holders.clone();
        let parts = piece.part.pieces(count).into_iter();
        parts
            .map(move |part| Piece {
                part,
                holders: holders.clone(),
            })
            .collect::<Vec<_>>()
    };
    pieces.iter().flat_map(of).collect()
}

/// What two ascending lists have in common.
fn both<'a>(a: &'a [u32], b: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    short
        .iter()
        .copied()
        .filter(|core| long.binary_search(core).is_ok())
}

fn add(moves: &mut Moves, key: (u32, u32, bool), part: &Part) {
    moves.entry(key).or_default().push(part.clone());
}

fn flows(moves: Moves) -> Vec<Flow> {
    let flow = |((from, to, forwarded), parts): ((u32, u32, bool), Vec<Part>)| {
        let parts = merged(parts).into_iter();
        parts.map(move |Part { start, size }| Flow {
            from,
            to,
            start,
            size,
            forwarded,
        })
    };
    moves.into_iter().flat_map(flow).collect()
}

/// Cuts a stage so that no core has more than [`MAX_PEERS`] peers. Pairs at small distances in the
/// order of cores come first, so that all cores are busy in each part.
fn with_few_peers(flows: Vec<Flow>) -> Vec<Vec<Flow>> {
    let cores = flows
        .iter()
        .map(|f| f.from.max(f.to) as usize + 1)
        .max()
        .unwrap_or(0);
    let distance = |f: &Flow| {
        let apart = f.from.abs_diff(f.to) as usize;
        apart.min(cores - apart)
    };
    let mut flows = flows;
    flows.sort_by_cached_key(|f| (distance(f), f.from, f.to));
    let mut stages: Vec<(Peers, Vec<Flow>)> = vec![];
    // Flows of a pair are neighbours.
    for pair in flows.chunk_by(|a, b| (a.from, a.to) == (b.from, b.to)) {
        let (from, to) = (pair[0].from as usize, pair[0].to as usize);
        let stage = stages
            .iter_mut()
            .find_map(|(peers, list)| peers.join(from, to).then_some(list));
        match stage {
            Some(list) => list.extend_from_slice(pair),
            None => {
                let mut peers = Peers::new(cores);
                peers.join(from, to);
                stages.push((peers, pair.to_vec()));
            }
        }
    }
    stages.into_iter().map(|(_, list)| list).collect()
}

/// Peers of each core.
struct Peers {
    words: usize,
    bits: Vec<u64>,
    counts: Vec<usize>,
}

impl Peers {
    fn new(cores: usize) -> Self {
        let words = cores.div_ceil(64);
        Self {
            words,
            bits: vec![0; cores * words],
            counts: vec![0; cores],
        }
    }

    fn has(&self, core: usize, peer: usize) -> bool {
        self.bits[core * self.words + peer / 64] >> (peer % 64) & 1 == 1
    }

    /// Makes two cores peers, unless one of them would have too many.
    fn join(&mut self, a: usize, b: usize) -> bool {
        if self.has(a, b) {
            return true;
        }
        if self.counts[a] >= MAX_PEERS || self.counts[b] >= MAX_PEERS {
            return false;
        }
        for (core, peer) in [(a, b), (b, a)] {
            self.bits[core * self.words + peer / 64] |= 1 << (peer % 64);
            self.counts[core] += 1;
        }
        true
    }
}
