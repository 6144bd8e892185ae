//! What happens to a block of sums before it is stored.

use half::bf16;

use super::{Epilogue, Output, PANEL, Residual, ResidualValues, Rounding, Staging};
use crate::kernels::convert;
use crate::kernels::elementwise::{self, Element};
use crate::kernels::float::finish;

/// A row of a whole panel has a length that the compiler knows, which makes it straight code.
#[inline(always)]
fn add_row<E: Element>(row: &mut [f32], values: &[E]) {
    if let (Ok(row), Ok(values)) = (
        <&mut [f32; PANEL]>::try_from(&mut *row),
        <&[E; PANEL]>::try_from(values),
    ) {
        for (x, v) in row.iter_mut().zip(values) {
            *x = finish(*x + v.read());
        }
        return;
    }
    for (x, v) in row.iter_mut().zip(values) {
        *x = finish(*x + v.read());
    }
}

#[inline(always)]
fn add_residual(row: &mut [f32], residual: &Residual<'_>, i: usize, first_column: usize) {
    let width = row.len();
    match residual.values {
        ResidualValues::F32(r) => {
            add_row(row, &r.data[i * r.stride + first_column..][..width]);
        }
        ResidualValues::Bf16(r) => {
            add_row(row, &r.data[i * r.stride + first_column..][..width]);
        }
    }
}

/// Applies the epilogue to `count` rows of `width` finished sums, in rows of [`PANEL`], and stores
/// them.
#[inline(always)]
pub(super) fn finish_block(
    epilogue: &Epilogue<'_>,
    output: &mut Output<'_>,
    staging: &mut Staging,
    (top, count): (usize, usize),
    (first_column, width): (usize, usize),
) {
    for (i, row) in staging.chunks_mut(PANEL).take(count).enumerate() {
        let row = &mut row[..width];
        if let Some(bias) = epilogue.bias {
            add_row(row, &bias[first_column..][..width]);
        }
        if let Some(residual) = &epilogue.residual
            && residual.before_activation
        {
            add_residual(row, residual, top + i, first_column);
        }
    }
    if let Some(op) = epilogue.activation.unary() {
        // All columns, since the kernel is then one loop; those beyond the width are not stored.
        elementwise::unary_in_place(op, &mut staging[..count * PANEL]);
    }
    for (i, row) in staging.chunks_mut(PANEL).take(count).enumerate() {
        let row = &mut row[..width];
        let i = top + i;
        if let Some(residual) = &epilogue.residual
            && !residual.before_activation
        {
            add_residual(row, residual, i, first_column);
        }
        match output {
            Output::F32 { data, stride, .. } => {
                data[i * *stride + first_column..][..width].copy_from_slice(row);
            }
            Output::Bf16 {
                data,
                stride,
                rounding,
                ..
            } => {
                let to = &mut data[i * *stride + first_column..][..width];
                match *rounding {
                    Rounding::NearestEven => {
                        if let (Ok(row), Ok(to)) = (
                            <&[f32; PANEL]>::try_from(&*row),
                            <&mut [bf16; PANEL]>::try_from(&mut *to),
                        ) {
                            convert::f32_to_bf16(row, to);
                        } else {
                            convert::f32_to_bf16(row, to);
                        }
                    }
                    Rounding::Stochastic {
                        draw,
                        row: distance,
                    } => {
                        let offset = (i as u64).wrapping_mul(distance) + first_column as u64;
                        convert::f32_to_bf16_stochastic(draw.advanced(offset), row, to);
                    }
                }
            }
        }
    }
}
