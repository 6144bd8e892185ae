//! Addresses by lifetime.

use std::ops::Range;

/// Bytes at which buffers begin.
pub const ALIGN: u64 = dojoc_ir::mesh::ALIGNMENT;

/// Something that needs bytes for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Bytes.
    pub bytes: u64,
    /// When, in steps of a schedule.
    pub live: Range<usize>,
}

/// Bytes that are taken for a while.
struct Placed {
    start: u64,
    /// The first byte at which something else may begin.
    end: u64,
    live: Range<usize>,
}

/// Addresses of items, none of which share a byte at the same time, and the high-water mark.
///
/// Largest first, each at the lowest address that is free during its life (first fit by decreasing
/// size). Deterministic.
pub fn allocate(items: &[Item]) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|i| {
        let item = &items[*i];
        let long = item.live.end - item.live.start.min(item.live.end);
        (std::cmp::Reverse(item.bytes), std::cmp::Reverse(long), *i)
    });
    let mut addresses = vec![0; items.len()];
    let first = items.iter().map(|i| i.live.start).min().unwrap_or(0);
    let last = items.iter().map(|i| i.live.end).max().unwrap_or(0);
    // Placed items by address.
    let mut placed: Vec<Placed> = vec![];
    let mut high = 0;
    for i in order {
        let item = &items[i];
        if item.bytes == 0 {
            continue;
        }
        let mut at = 0u64;
        for other in &placed {
            let overlaps = other.live.start < item.live.end && item.live.start < other.live.end;
            if !overlaps {
                continue;
            }
            if at + item.bytes <= other.start {
                break;
            }
            at = at.max(other.end);
        }
        addresses[i] = at;
        high = high.max(at + item.bytes);
        let here = Placed {
            start: at,
            end: (at + item.bytes).next_multiple_of(ALIGN),
            live: item.live.clone(),
        };
        let position = placed.partition_point(|p| p.start <= at);
        // What is always there is one piece with its neighbour: nothing ever lies between.
        let always = |p: &Placed| p.live == (first..last);
        match position.checked_sub(1).map(|before| &mut placed[before]) {
            Some(before) if always(before) && always(&here) && before.end == at => {
                before.end = here.end;
            }
            _ => placed.insert(position, here),
        }
    }
    (addresses, high)
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
            let items: Vec<Item> = (0..40)
                .map(|_| {
                    let start = next(30) as usize;
                    Item {
                        bytes: next(1000),
                        live: start..start + 1 + next(8) as usize,
                    }
                })
                .collect();
            let (addresses, high) = allocate(&items);
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
}
