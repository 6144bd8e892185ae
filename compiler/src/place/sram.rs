//! Addresses by lifetime.

use std::ops::Range;

/// Bytes at which buffers begin.
pub const ALIGN: u64 = dojoc_ir::mesh::ALIGNMENT;

/// Something that needs bytes for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Bytes.
    pub bytes: u64,
    /// When, in steps of a schedule; at least one.
    pub live: Range<usize>,
}

/// Orders in which items are given addresses.
#[derive(Clone, Copy)]
enum Order {
    /// Largest first.
    Bytes,
    /// What is always there, then the largest first: no hole is left in what never moves.
    Always,
    /// By bytes times life: what blocks most goes first.
    Area,
}

/// Addresses of items, none of which share a byte at the same time, and the high-water mark.
///
/// Each lies at the lowest address that is free during its life, in an order by decreasing size (first fit
/// decreasing). If that takes more than `most` bytes, other orders are tried; the first that does not, or
/// else the one that takes least, is taken. Deterministic.
pub fn allocate(items: &[Item], most: u64) -> (Vec<u64>, u64) {
    let mut best = first_fit(items, Order::Bytes);
    for order in [Order::Always, Order::Area] {
        if best.1 > most {
            let other = first_fit(items, order);
            if other.1 < best.1 {
                best = other;
            }
        }
    }
    best
}

fn first_fit(items: &[Item], by: Order) -> (Vec<u64>, u64) {
    let first = items.iter().map(|i| i.live.start).min().unwrap_or(0);
    let last = items.iter().map(|i| i.live.end).max().unwrap_or(0);
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|i| {
        let item = &items[*i];
        let long = item.live.end - item.live.start.min(item.live.end);
        let before = match by {
            Order::Bytes => 0,
            Order::Always => u128::from(item.live == (first..last)),
            Order::Area => u128::from(item.bytes) * long as u128,
        };
        (std::cmp::Reverse((before, item.bytes, long)), *i)
    });
    let mut addresses = vec![0; items.len()];
    let mut taken = Taken::new(items);
    let mut high = 0;
    for i in order {
        let item = &items[i];
        if item.bytes == 0 {
            continue;
        }
        let mut at = 0u64;
        for (start, end) in taken.during(&item.live) {
            if at + item.bytes <= start {
                break;
            }
            at = at.max(end);
        }
        addresses[i] = at;
        high = high.max(at + item.bytes);
        let end = (at + item.bytes).next_multiple_of(ALIGN);
        taken.insert((at, end), &item.live);
    }
    (addresses, high)
}

/// Bytes that are taken, with the first byte at which something else may begin.
type Bytes = (u64, u64);

/// Bytes that are taken for a while: a segment tree over the periods between which something begins or
/// ends.
struct Taken {
    /// When periods begin, and when the last one ends.
    times: Vec<usize>,
    /// The root at 1, the halves of node `n` at `2 * n` and behind it.
    nodes: Vec<Node>,
}

/// A stretch of periods.
#[derive(Clone, Default)]
struct Node {
    /// What is taken all the time, but not all the time of the node above.
    always: Vec<Bytes>,
    /// What is taken at any time.
    ever: Vec<Bytes>,
}

impl Taken {
    fn new(items: &[Item]) -> Self {
        let mut times: Vec<usize> = (items.iter())
            .flat_map(|item| [item.live.start, item.live.end])
            .collect();
        times.sort_unstable();
        times.dedup();
        let nodes = vec![Node::default(); 4 * times.len()];
        Self { times, nodes }
    }

    /// The periods of a life that begins and ends with some of them, and all periods.
    fn periods(&self, live: &Range<usize>) -> (Range<usize>, Range<usize>) {
        let at = |time: usize| self.times.partition_point(|t| *t < time);
        (at(live.start)..at(live.end), 0..self.times.len() - 1)
    }

    fn insert(&mut self, bytes: Bytes, live: &Range<usize>) {
        let (live, all) = self.periods(live);
        let mut open = vec![(1, all)];
        while let Some((number, span)) = open.pop() {
            let node = &mut self.nodes[number];
            add(&mut node.ever, bytes);
            match contains(&live, &span) {
                true => add(&mut node.always, bytes),
                false => open.extend(halves(number, &span, &live)),
            }
        }
    }

    /// What is taken at some time of a life, ascending.
    fn during(&self, live: &Range<usize>) -> Vec<Bytes> {
        let (live, all) = self.periods(live);
        let mut found = vec![];
        let mut open = vec![(1, all)];
        while let Some((number, span)) = open.pop() {
            let node = &self.nodes[number];
            match contains(&live, &span) {
                true => found.extend(&node.ever),
                false => {
                    found.extend(&node.always);
                    open.extend(halves(number, &span, &live));
                }
            }
        }
        found.sort_unstable();
        found
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// The halves of a node that have periods of a life.
fn halves(
    number: usize,
    span: &Range<usize>,
    live: &Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let middle = span.start + span.len() / 2;
    let halves = [
        (2 * number, span.start..middle),
        (2 * number + 1, middle..span.end),
    ];
    let live = live.clone();
    (halves.into_iter()).filter(move |(_, half)| half.start < live.end && live.start < half.end)
}

/// Adds bytes to a list of pieces, ascending, of which those that meet or touch become one.
fn add(list: &mut Vec<Bytes>, (mut start, mut end): Bytes) {
    let first = list.partition_point(|(_, e)| *e < start);
    let met = list[first..].partition_point(|(s, _)| *s <= end);
    for (s, e) in &list[first..first + met] {
        (start, end) = (start.min(*s), end.max(*e));
    }
    list.splice(first..first + met, [(start, end)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_live_together_lie_apart() {
        let mut seed = 1u64;
        let mut next = |n: u64| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..50 {
            let scale = 1 + next(60) as usize;
            let items: Vec<Item> = (0..40)
                .map(|_| {
                    let start = next(30) as usize;
                    let end = start + 1 + next(8) as usize;
                    let live = start * scale..end * scale - next(scale as u64) as usize;
                    // Some are always there.
                    let always = next(4) == 0;
                    Item {
                        bytes: next(1000),
                        live: if always { 0..40 * scale } else { live },
                    }
                })
                .collect();
            let (_, high) = allocate(&items, u64::MAX);
            let (addresses, least) = allocate(&items, 0);
            assert!(least <= high);
            for order in [Order::Bytes, Order::Always, Order::Area] {
                assert!(first_fit(&items, order).1 >= least);
            }
            let high = least;
            for (i, a) in items.iter().enumerate() {
                assert!(
                    addresses[i].is_multiple_of(ALIGN)
                        && addresses[i] + a.bytes <= high.max(addresses[i])
                );
                for (j, b) in items.iter().enumerate().skip(i + 1) {
                    let together = a.live.start < b.live.end && b.live.start < a.live.end;
                    let apart = addresses[i] + a.bytes <= addresses[j]
                        || addresses[j] + b.bytes <= addresses[i];
                    assert!(!together || apart || a.bytes == 0 || b.bytes == 0);
                }
            }
            // No more than all of them side by side.
            assert!(high <= items.iter().map(|i| i.bytes.next_multiple_of(ALIGN)).sum());
        }
    }

    #[test]
    fn other_orders_are_tried_before_giving_up() {
        let item = |bytes, live| Item { bytes, live };
        // Behind the largest, what is always there leaves a hole that is too small for the last.
        let items = [
            item(256, 0..3),
            item(320, 0..1),
            item(256, 2..3),
            item(192, 2..3),
        ];
        assert_eq!(allocate(&items, 768), (vec![320, 0, 0, 576], 768));
        assert_eq!(allocate(&items, 767), (vec![0, 256, 256, 512], 704));
    }
}
