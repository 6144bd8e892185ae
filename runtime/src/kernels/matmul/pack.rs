//! Panels of B, and rows of a transposed A.

use half::bf16;

use super::{Lhs, Matrix, PANEL, Rhs};
use crate::kernels::blocks::{self, Block};
use crate::kernels::elementwise::Element;
use crate::kernels::float::flush;

/// Elements of the f32 panels of a `k x n` matrix.
pub const fn packed_len_f32(k: usize, n: usize) -> usize {
    n.next_multiple_of(PANEL) * k
}

/// Elements of the bf16 panels of a `k x n` matrix.
pub const fn packed_len_bf16(k: usize, n: usize) -> usize {
    n.next_multiple_of(PANEL) * k.next_multiple_of(2)
}

/// Calls `put(step, column in panel, value)` for all elements of a panel.
#[inline(always)]
fn visit_panel<E: Copy>(
    b: Rhs<'_, E>,
    k: usize,
    (first_column, width): (usize, usize),
    mut put: impl FnMut(usize, usize, E),
) {
    match b {
        Rhs::Rows(Matrix { data, stride }) => {
            for p in 0..k {
                let row = &data[p * stride + first_column..][..width];
                for (j, x) in row.iter().enumerate() {
                    put(p, j, *x);
                }
            }
        }
        Rhs::Columns(Matrix { data, stride }) => {
            for j in 0..width {
                let column = &data[(first_column + j) * stride..][..k];
                for (p, x) in column.iter().enumerate() {
                    put(p, j, *x);
                }
            }
        }
        Rhs::Packed(_) => unreachable!("checked by the callers"),
    }
}

#[inline(always)]
pub(in crate::kernels) fn pack_b_f32(b: Rhs<'_, f32>, k: usize, n: usize, panels: &mut [f32]) {
    let len = packed_len_f32(k, n);
    if let Rhs::Packed(from) = b {
        panels[..len].copy_from_slice(&from[..len]);
        return;
    }
    if k == 0 {
        return;
    }
    let panels = panels[..len].chunks_exact_mut(PANEL * k);
    for (first_column, panel) in (0..n).step_by(PANEL).zip(panels) {
        let width = PANEL.min(n - first_column);
        if width < PANEL {
            panel.fill(0.0);
        }
        visit_panel(b, k, (first_column, width), |p, j, x| {
            panel[p * PANEL + j] = flush(x);
        });
    }
}

#[inline(always)]
pub(in crate::kernels) fn pack_b_bf16(b: Rhs<'_, bf16>, k: usize, n: usize, panels: &mut [bf16]) {
    let len = packed_len_bf16(k, n);
    if let Rhs::Packed(from) = b {
        panels[..len].copy_from_slice(&from[..len]);
        return;
    }
    if k == 0 {
        return;
    }
    let panels = panels[..len].chunks_exact_mut(PANEL * k.next_multiple_of(2));
    for (first_column, panel) in (0..n).step_by(PANEL).zip(panels) {
        let width = PANEL.min(n - first_column);
        if width < PANEL || k % 2 == 1 {
            panel.fill(bf16::ZERO);
        }
        visit_panel(b, k, (first_column, width), |p, j, x| {
            panel[p / 2 * 2 * PANEL + 2 * j + p % 2] = x;
        });
    }
}

/// Writes the `k x n` matrix of f32 panels in rows at a distance of `stride`.
///
/// # Panics
/// If a slice is too short.
pub fn unpack_b_f32(panels: &[f32], k: usize, n: usize, to: &mut [f32], stride: usize) {
    for p in 0..k {
        for first_column in (0..n).step_by(PANEL) {
            let width = PANEL.min(n - first_column);
            let from = &panels[first_column * k + p * PANEL..][..width];
            to[p * stride + first_column..][..width].copy_from_slice(from);
        }
    }
}

/// Writes the `k x n` matrix of bf16 panels in rows at a distance of `stride`.
///
/// # Panics
/// If a slice is too short.
pub fn unpack_b_bf16(panels: &[bf16], k: usize, n: usize, to: &mut [bf16], stride: usize) {
    let steps = k.next_multiple_of(2);
    for p in 0..k {
        for first_column in (0..n).step_by(PANEL) {
            let width = PANEL.min(n - first_column);
            let pairs = &panels[first_column * steps + p / 2 * 2 * PANEL..][..2 * width];
            let to = &mut to[p * stride + first_column..][..width];
            for (to, pair) in to.iter_mut().zip(pairs.chunks_exact(2)) {
                *to = pair[p % 2];
            }
        }
    }
}

/// Copies A into dense rows, subnormals as zero.
#[inline(always)]
pub(super) fn rows_of_a<E: Element>(a: Lhs<'_, E>, m: usize, k: usize, to: &mut [E]) {
    let target = Block::dense(m, k);
    let (rows, cols, stride) = if a.transposed {
        (k, m, a.stride)
    } else {
        (m, k, a.stride)
    };
    let source = Block { rows, cols, stride };
    if a.transposed {
        blocks::transpose(a.data, source, to, target);
    } else {
        blocks::copy(a.data, source, to, target);
    }
    for x in to {
        *x = E::write(x.read());
    }
}
