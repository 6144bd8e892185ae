//! Conversions between element types.

use bytemuck::Pod;
use dojoc_ir::formats::{Bias, F16, MiniFloat, SHP, UHP};
use dojoc_ir::program::instr::convert::Convert;
use dojoc_ir::types::{Class, DType};

use super::elementwise::{each, each_in_order};
use super::number::{Float, Int, by_dtype, to_odd};
use super::walk::{typed, typed_mut};
use super::{Bytes, Cx, Fault, Source, Target, data, scalar};
use crate::kernels::{
    Cfp8, Cfp8Decoder, Draw, Kernels, decode_minifloat, encode_cfp8, encode_minifloat, finish,
};

/// Elements that go through f32 at a time.
const CHUNK: usize = 256;

const NO_SPLAT: usize = usize::MAX;

/// An exponent bias from its operand.
pub(super) fn bias(source: &Source<'_>) -> Result<Bias, Fault> {
    let Bytes::Slice(&[value, ..]) = source.bytes else {
        return Err(Fault::operands());
    };
    Bias::new(value)
        .ok_or_else(|| Fault::new(format!("the exponent bias {value} is larger than 63")))
}

/// y = x in the element type of y.
pub(super) fn convert(
    instr: &Convert,
    y: &mut Target<'_>,
    sources: &[Source<'_>],
    scalars: &[i64],
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let (x, bias) = match sources {
        [x] => (x, Bias::ZERO),
        [x, exponent] => (x, bias(exponent)?),
        _ => return Err(Fault::operands()),
    };
    let (from, to) = (x.layout.view.dtype, y.layout.view.dtype);
    if let Some(site) = instr.stochastic {
        let draw = Draw {
            seed: cx.seed,
            step: cx.step,
            site,
            index: scalar(scalars, 0) as u64,
        };
        return stochastic(draw, bias, y, x, cx);
    }
    if from == to && !from.is_float() {
        return data::copy(y, x);
    }
    let k = cx.kernels;
    macro_rules! kernel {
        ($name:ident) => {
            each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
                k.$name(x.slice()?, typed_mut(y)?);
                Ok(())
            })
        };
    }
    match (from, to) {
        (DType::F32, DType::Bf16) => kernel!(f32_to_bf16),
        (DType::Bf16, DType::F32) => kernel!(bf16_to_f32),
        (DType::F32, DType::F16) => kernel!(f32_to_f16),
        (DType::F16, DType::F32) => kernel!(f16_to_f32),
        (DType::I32, DType::F32) => kernel!(i32_to_f32),
        (DType::F32, DType::I32) => kernel!(f32_to_i32),
        (DType::I8, DType::I32) => kernel!(i8_to_i32),
        (DType::F64, _) => each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
            from_f64(to, x.slice()?, y)
        }),
        (DType::Bool, _) => each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
            from_ints(to, x.slice::<u8>()?, |x| u8::from(x != 0), y)
        }),
        _ => by_dtype!(from,
            float T => each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
                through_f32(x.slice::<T>()?, y, to, |x, wide| T::widen_all(k, x, wide), |wide, y| {
                    from_f32(k, to, bias, wide, y)
                })
            }),
            int T => each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
                from_ints(to, x.slice::<T>()?, |x| x, y)
            }),
            _ => each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
                from_codes(k, (from, to), bias, x.slice()?, y)
            }),
        ),
    }
}

/// Runs `widen`, then `narrow`, on parts of equal lengths.
fn through_f32<T>(
    x: &[T],
    y: &mut [u8],
    to: DType,
    widen: impl Fn(&[T], &mut [f32]),
    narrow: impl Fn(&[f32], &mut [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut wide = [0.0; CHUNK];
    for (x, y) in x
        .chunks(CHUNK)
        .zip(y.chunks_mut(CHUNK * to.bytes() as usize))
    {
        let wide = &mut wide[..x.len()];
        widen(x, wide);
        narrow(wide, y)?;
    }
    Ok(())
}

fn apply<A: Copy, B>(x: &[A], y: &mut [B], f: impl Fn(A) -> B) {
    for (x, y) in x.iter().zip(y) {
        *y = f(*x);
    }
}

/// From f32 without subnormals, with canonical NaN.
fn from_f32(k: &dyn Kernels, to: DType, bias: Bias, x: &[f32], y: &mut [u8]) -> Result<(), Fault> {
    by_dtype!(to,
        float T => T::narrow_all(k, x, typed_mut(y)?),
        int T => apply(x, typed_mut(y)?, |x| T::of_i128(x as i128)),
        _ => match to {
            DType::Bool => apply(x, y, |x| u8::from(x != 0.0)),
            DType::F64 => apply(x, typed_mut(y)?, wide),
            _ => encode(to, bias, None, x, y)?,
        },
    );
    Ok(())
}

/// The same value; NaN is that of the host's constant, whose bits are fixed.
fn wide(x: f32) -> f64 {
    if x.is_nan() { f64::NAN } else { x.into() }
}

fn from_f64(to: DType, x: &[f64], y: &mut [u8]) -> Result<(), Fault> {
    by_dtype!(to,
        float T => apply(x, typed_mut(y)?, |x| {
            let x = if to == DType::F32 { x as f32 } else { to_odd(x) };
            let rounded = T::narrow(x).widen();
            T::narrow(finish(rounded))
        }),
        int T => apply(x, typed_mut(y)?, |x| T::of_i128(x as i128)),
        _ => match to {
            DType::Bool => apply(x, y, |x| u8::from(x != 0.0)),
            DType::F64 => apply(x, typed_mut(y)?, |x| if x.is_nan() { f64::NAN } else { x }),
            _ => return Err(Fault::undefined("convert", to)),
        },
    );
    Ok(())
}

fn from_ints<X: Pod, T: Int>(
    to: DType,
    x: &[X],
    read: impl Fn(X) -> T,
    y: &mut [u8],
) -> Result<(), Fault> {
    by_dtype!(to,
        float Y => apply(x, typed_mut(y)?, |x| {
            let value = read(x).to_i128();
            Y::narrow(if to == DType::F32 { value as f32 } else { value as f64 as f32 })
        }),
        int Y => apply(x, typed_mut(y)?, |x| Y::of_i128(read(x).to_i128())),
        _ => match to {
            DType::Bool => apply(x, y, |x| u8::from(read(x) != T::ZERO)),
            DType::F64 => apply(x, typed_mut(y)?, |x| read(x).to_i128() as f64),
            _ => return Err(Fault::undefined("convert", to)),
        },
    );
    Ok(())
}

/// The format of a 16-bit code.
fn wide_format(dtype: DType) -> Result<&'static MiniFloat, Fault> {
    match dtype {
        DType::Shp => Ok(&SHP),
        DType::Uhp => Ok(&UHP),
        other => Err(Fault::undefined("convert", other)),
    }
}

/// The format of an 8-bit code.
pub(super) fn cfp8(dtype: DType) -> Option<Cfp8> {
    match dtype {
        DType::Cfp8E4M3 => Some(Cfp8::E4M3),
        DType::Cfp8E5M2 => Some(Cfp8::E5M2),
        _ => None,
    }
}

fn from_codes(
    k: &dyn Kernels,
    (from, to): (DType, DType),
    bias: Bias,
    x: &[u8],
    y: &mut [u8],
) -> Result<(), Fault> {
    let narrow = |wide: &[f32], y: &mut [u8]| from_f32(k, to, bias, wide, y);
    let Some(format) = cfp8(from) else {
        let format = wide_format(from)?;
        let widen = |x: &[u16], wide: &mut [f32]| decode_minifloat(format, bias, x, wide);
        return through_f32(typed::<u16>(x)?, y, to, widen, narrow);
    };
    let decoder = Cfp8Decoder::new(format, bias);
    if to == DType::Bf16 {
        k.cfp8_to_bf16(decoder, x, typed_mut(y)?);
        return Ok(());
    }
    let widen = |x: &[u8], wide: &mut [f32]| {
        let mut half = [half::bf16::ZERO; CHUNK];
        let half = &mut half[..x.len()];
        k.cfp8_to_bf16(decoder, x, half);
        k.bf16_to_f32(half, wide);
    };
    through_f32(x, y, to, widen, narrow)
}

fn encode(to: DType, bias: Bias, draw: Option<Draw>, x: &[f32], y: &mut [u8]) -> Result<(), Fault> {
    match cfp8(to) {
        Some(format) => encode_cfp8(format, bias, draw, x, y),
        None => encode_minifloat(wide_format(to)?, bias, draw, x, typed_mut(y)?),
    }
    Ok(())
}

/// From f32 with random bits.
fn stochastic(
    draw: Draw,
    bias: Bias,
    y: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let (k, to) = (cx.kernels, y.layout.view.dtype);
    let mut draw = draw;
    each_in_order(y, [x], cx.scratch, |y, [x]| {
        let x = x.slice()?;
        match to {
            DType::Bf16 => k.f32_to_bf16_stochastic(draw, x, typed_mut(y)?),
            DType::F16 => encode_minifloat(&F16, Bias::ZERO, Some(draw), x, typed_mut(y)?),
            _ if to.class() == Class::Configurable => encode(to, bias, Some(draw), x, y)?,
            _ => return Err(Fault::undefined("stochastic rounding", to)),
        }
        draw = draw.advanced(x.len() as u64);
        Ok(())
    })
}
