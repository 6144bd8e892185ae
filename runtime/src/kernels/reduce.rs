//! Reductions in the order that the module's page states.

use super::elementwise::Element;
use super::float::{finish, from_order_key, order_key};
use super::ops::Reduce;

const LANES: usize = 32;

/// Combines `value(element)` of all elements by lanes and tree.
#[inline(always)]
fn tree<E: Copy, T: Copy>(
    x: &[E],
    identity: T,
    value: impl Fn(E) -> T,
    combine: impl Fn(T, T) -> T,
) -> T {
    let mut lanes = [identity; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, value(*x));
        }
    }
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = combine(*lane, value(*x));
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (l, h) in low.iter_mut().zip(high) {
            *l = combine(*l, *h);
        }
        width /= 2;
    }
    lanes[0]
}

/// The extreme by integer order, and separately whether there was a NaN: what is NaN has no place
/// in the order.
#[inline(always)]
fn extreme<E: Element>(x: &[E], identity: f32, combine: impl Fn(i32, i32) -> i32) -> f32 {
    let key = tree(x, order_key(identity), |x| order_key(x.read()), combine);
    let nan = x.iter().fold(false, |nan, x| nan | x.read().is_nan());
    if nan { f32::NAN } else { from_order_key(key) }
}

#[inline(always)]
pub(super) fn reduce<E: Element>(op: Reduce, x: &[E]) -> f32 {
    finish(match op {
        Reduce::Sum => tree(x, 0.0, E::read, |a, b| a + b),
        Reduce::Prod => tree(x, 1.0, E::read, |a, b| a * b),
        Reduce::Min => extreme(x, f32::INFINITY, |a, b| if b < a { b } else { a }),
        Reduce::Max => extreme(x, f32::NEG_INFINITY, |a, b| if b > a { b } else { a }),
    })
}
