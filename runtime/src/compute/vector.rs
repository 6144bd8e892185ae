//! Element-wise arithmetic.

use std::cmp::Ordering;

use bytemuck::Pod;
use dojoc_ir::attr::Number;
use dojoc_ir::program::instr::vector::{
    Clamp, Compare, CompareFunction, Fill, Iota, Map, MapFunction, Zip, ZipFunction,
};
use dojoc_ir::types::DType;

use super::elementwise::{Chunk, each, each_in_order};
use super::number::{Float, Int, by_dtype, element};
use super::walk::{by_size, typed, typed_mut};
use super::{Bytes, Cx, Fault, Source, Target};
use crate::kernels::{self, Binary, IntBinary, Kernels, Operand, Unary, finish, flush};

/// No source may be one element for all.
const NO_SPLAT: usize = usize::MAX;

fn unary_kernel(function: MapFunction) -> Option<Unary> {
    Some(match function {
        MapFunction::Neg => Unary::Neg,
        MapFunction::Abs => Unary::Abs,
        MapFunction::Relu => Unary::Relu,
        MapFunction::Exp => Unary::Exp,
        MapFunction::Log => Unary::Log,
        MapFunction::Tanh => Unary::Tanh,
        MapFunction::Sigmoid => Unary::Sigmoid,
        MapFunction::Silu => Unary::Silu,
        MapFunction::Erf => Unary::Erf,
        MapFunction::Gelu => Unary::Gelu,
        MapFunction::GeluTanh => Unary::GeluTanh,
        MapFunction::Rsqrt => Unary::Rsqrt,
        MapFunction::Sqrt => Unary::Sqrt,
        MapFunction::Recip => Unary::Recip,
        MapFunction::Sin => Unary::Sin,
        MapFunction::Cos => Unary::Cos,
        MapFunction::Floor => Unary::Floor,
        MapFunction::Ceil => Unary::Ceil,
        MapFunction::Round => Unary::Round,
        MapFunction::Not => return None,
    })
}

/// y = f(x).
pub(super) fn map(
    instr: &Map,
    y: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let (dtype, k) = (y.layout.view.dtype, cx.kernels);
    let undefined = || Fault::undefined(instr.function.name(), dtype);
    if dtype == DType::Bool && instr.function == MapFunction::Not {
        return each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
            apply(x.slice()?, y, |x: u8| u8::from(x == 0));
            Ok(())
        });
    }
    by_dtype!(dtype,
        float T => {
            let op = unary_kernel(instr.function).ok_or_else(undefined)?;
            each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
                T::unary(k, op, x.slice()?, typed_mut(y)?);
                Ok(())
            })
        },
        int T => {
            let f: fn(T) -> T = match instr.function {
                MapFunction::Neg => T::neg,
                MapFunction::Abs => T::magnitude,
                MapFunction::Not => T::not,
                _ => return Err(undefined()),
            };
            each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
                apply(x.slice()?, typed_mut(y)?, f);
                Ok(())
            })
        },
        _ => Err(undefined()),
    )
}

fn apply<A: Copy, B>(x: &[A], y: &mut [B], f: impl Fn(A) -> B) {
    for (x, y) in x.iter().zip(y) {
        *y = f(*x);
    }
}

fn combine<A: Copy, B>(a: &[A], b: Operand<'_, A>, y: &mut [B], f: impl Fn(A, A) -> B) {
    match b {
        Operand::Slice(b) => {
            for ((a, b), y) in a.iter().zip(b).zip(y) {
                *y = f(*a, *b);
            }
        }
        Operand::Scalar(b) => apply(a, y, |a| f(a, b)),
    }
}

/// y = f(a, b).
pub(super) fn zip(
    instr: &Zip,
    y: &mut Target<'_>,
    sources: &[Source<'_>],
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let (dtype, k) = (y.layout.view.dtype, cx.kernels);
    let undefined = || Fault::undefined(instr.function.name(), dtype);
    by_dtype!(dtype,
        float T => {
            let f = FloatZip::of(instr.function).ok_or_else(undefined)?;
            if f.in_place::<T>(k, instr.value, y, sources)? {
                return Ok(());
            }
            zip_with::<T>(instr.value.map(<T as Float>::of), y, sources, cx, |a, b, y| f.run(k, a, b, y))
        },
        int T => {
            let f = int_function::<T>(instr.function).ok_or_else(undefined)?;
            let kernel = int_kernel(instr.function);
            zip_with::<T>(instr.value.map(<T as Int>::of), y, sources, cx, |a, b, y| {
                if !kernel.is_some_and(|op| T::binary(k, op, a, b, y)) {
                    combine(a, b, y, f);
                }
            })
        },
        _ => {
            let f: fn(bool, bool) -> bool = match (dtype, instr.function) {
                (DType::Bool, ZipFunction::And) => |a, b| a & b,
                (DType::Bool, ZipFunction::Or) => |a, b| a | b,
                (DType::Bool, ZipFunction::Xor) => |a, b| a ^ b,
                _ => return Err(undefined()),
            };
            zip_with::<u8>(instr.value.map(<u8 as Int>::of), y, sources, cx, |a, b, y| {
                combine(a, b, y, |a, b| u8::from(f(a != 0, b != 0)));
            })
        },
    )
}

/// Runs `f` on parts of the one or two sources.
fn zip_with<T: Pod>(
    value: Option<T>,
    y: &mut Target<'_>,
    sources: &[Source<'_>],
    cx: &mut Cx<'_>,
    f: impl Fn(&[T], Operand<'_, T>, &mut [T]),
) -> Result<(), Fault> {
    match (value, sources) {
        (Some(value), [a]) => each(y, [a], NO_SPLAT, cx.scratch, |y, [a]| {
            f(a.slice()?, Operand::Scalar(value), typed_mut(y)?);
            Ok(())
        }),
        (None, [a, b]) => each(y, [a, b], 1, cx.scratch, |y, [a, b]| {
            f(a.slice()?, b.operand()?, typed_mut(y)?);
            Ok(())
        }),
        _ => Err(Fault::operands()),
    }
}

/// A function of two floats.
#[derive(Clone, Copy)]
enum FloatZip {
    Kernel(Binary),
    Pow,
}

impl FloatZip {
    fn of(function: ZipFunction) -> Option<Self> {
        Some(Self::Kernel(match function {
            ZipFunction::Add => Binary::Add,
            ZipFunction::Sub => Binary::Sub,
            ZipFunction::Mul => Binary::Mul,
            ZipFunction::Div => Binary::Div,
            ZipFunction::Min => Binary::Min,
            ZipFunction::Max => Binary::Max,
            ZipFunction::Pow => return Some(Self::Pow),
            _ => return None,
        }))
    }

    fn run<T: Float>(self, k: &dyn Kernels, a: &[T], b: Operand<'_, T>, y: &mut [T]) {
        match self {
            Self::Kernel(op) => T::binary(k, op, a, b, y),
            Self::Pow => combine(a, b, y, |a, b| {
                let power = libm::powf(flush(a.widen()), flush(b.widen()));
                T::narrow(finish(power))
            }),
        }
    }

    /// Carries out `a = f(a, b)` on dense operands, if that is what it is.
    fn in_place<T: Float>(
        self,
        k: &dyn Kernels,
        value: Option<Number>,
        y: &mut Target<'_>,
        sources: &[Source<'_>],
    ) -> Result<bool, Fault> {
        let Self::Kernel(op) = self else {
            return Ok(false);
        };
        if !y.layout.dense || !matches!(sources[0].bytes, Bytes::InPlace) {
            return Ok(false);
        }
        let b = match (value, sources) {
            (Some(value), _) => Operand::Scalar(T::of(value)),
            (None, [_, b]) => match b.bytes {
                Bytes::Slice(bytes) if b.layout.dense => Operand::Slice(typed(bytes)?),
                _ => return Ok(false),
            },
            _ => return Ok(false),
        };
        Ok(T::binary_in_place(k, op, typed_mut(y.bytes)?, b))
    }
}

fn int_kernel(function: ZipFunction) -> Option<IntBinary> {
    Some(match function {
        ZipFunction::Add => IntBinary::Add,
        ZipFunction::Sub => IntBinary::Sub,
        ZipFunction::Mul => IntBinary::Mul,
        ZipFunction::Min => IntBinary::Min,
        ZipFunction::Max => IntBinary::Max,
        _ => return None,
    })
}

fn int_function<T: Int>(function: ZipFunction) -> Option<fn(T, T) -> T> {
    Some(match function {
        ZipFunction::Add => T::add,
        ZipFunction::Sub => T::sub,
        ZipFunction::Mul => T::mul,
        ZipFunction::Div => T::div,
        ZipFunction::Rem => T::rem,
        ZipFunction::Min => T::min,
        ZipFunction::Max => T::max,
        ZipFunction::And => T::and,
        ZipFunction::Or => T::or,
        ZipFunction::Xor => T::xor,
        ZipFunction::Shl => T::shl,
        ZipFunction::Shr => T::shr,
        ZipFunction::Pow => return None,
    })
}

/// y = a * b + c.
pub(super) fn mul_add(
    y: &mut Target<'_>,
    [a, b, c]: [&Source<'_>; 3],
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let (dtype, k) = (y.layout.view.dtype, cx.kernels);
    by_dtype!(dtype,
        float T => each(y, [a, b, c], NO_SPLAT, cx.scratch, |y, [a, b, c]| {
            T::fused(k, a.slice()?, b.slice()?, c.slice()?, typed_mut(y)?);
            Ok(())
        }),
        int T => Err(Fault::undefined("fma", element_type::<T>(dtype))),
        _ => Err(Fault::undefined("fma", dtype)),
    )
}

/// Lets an arm that does not need its type name it.
fn element_type<T>(dtype: DType) -> DType {
    debug_assert_eq!(size_of::<T>() as u64, dtype.bytes());
    dtype
}

/// y = min(max(x, low), high).
pub(super) fn clamp(
    instr: &Clamp,
    y: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let (dtype, k) = (y.layout.view.dtype, cx.kernels);
    by_dtype!(dtype,
        float T => {
            let (low, high) = (<T as Float>::of(instr.low), <T as Float>::of(instr.high));
            each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
                T::limit(k, low, high, x.slice()?, typed_mut(y)?);
                Ok(())
            })
        },
        int T => {
            let (low, high) = (<T as Int>::of(instr.low), <T as Int>::of(instr.high));
            each(y, [x], NO_SPLAT, cx.scratch, |y, [x]| {
                apply(x.slice()?, typed_mut(y)?, |x: T| x.max(low).min(high));
                Ok(())
            })
        },
        _ => Err(Fault::undefined("clamp", dtype)),
    )
}

fn comparison(function: CompareFunction) -> kernels::Compare {
    match function {
        CompareFunction::Eq => kernels::Compare::Eq,
        CompareFunction::Ne => kernels::Compare::Ne,
        CompareFunction::Lt => kernels::Compare::Lt,
        CompareFunction::Le => kernels::Compare::Le,
        CompareFunction::Gt => kernels::Compare::Gt,
        CompareFunction::Ge => kernels::Compare::Ge,
    }
}

fn compare_ints<T: Int>(op: kernels::Compare, a: &[T], b: Operand<'_, T>, y: &mut [u8]) {
    match op {
        kernels::Compare::Eq => combine(a, b, y, |a, b| u8::from(a == b)),
        kernels::Compare::Ne => combine(a, b, y, |a, b| u8::from(a != b)),
        kernels::Compare::Lt => combine(a, b, y, |a, b| u8::from(a < b)),
        kernels::Compare::Le => combine(a, b, y, |a, b| u8::from(a <= b)),
        kernels::Compare::Gt => combine(a, b, y, |a, b| u8::from(a > b)),
        kernels::Compare::Ge => combine(a, b, y, |a, b| u8::from(a >= b)),
    }
}

fn holds(op: kernels::Compare, order: Ordering) -> bool {
    match op {
        kernels::Compare::Eq => order.is_eq(),
        kernels::Compare::Ne => order.is_ne(),
        kernels::Compare::Lt => order.is_lt(),
        kernels::Compare::Le => order.is_le(),
        kernels::Compare::Gt => order.is_gt(),
        kernels::Compare::Ge => order.is_ge(),
    }
}

/// y = 1 where it holds, else 0.
pub(super) fn compare(
    instr: &Compare,
    y: &mut Target<'_>,
    sources: &[Source<'_>],
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let Some(a) = sources.first() else {
        return Err(Fault::operands());
    };
    let (dtype, k, op) = (a.layout.view.dtype, cx.kernels, comparison(instr.function));
    by_dtype!(dtype,
        float T => compare_with::<T>(instr.value.map(<T as Float>::of), y, sources, cx, |a, b, y| {
            T::compare(k, op, a, b, y);
        }),
        int T => compare_with::<T>(instr.value.map(<T as Int>::of), y, sources, cx, |a, b, y| {
            if !T::compare(k, op, a, b, y) {
                compare_ints(op, a, b, y);
            }
        }),
        bool => {
            // Truth is any byte but 0.
            let value = instr.value.map(|value| element(value, dtype)[0]);
            compare_with::<u8>(value, y, sources, cx, |a, b, y| {
                combine(a, b, y, |a, b| u8::from(holds(op, (a != 0).cmp(&(b != 0)))));
            })
        },
        _ => Err(Fault::undefined(instr.function.name(), dtype)),
    )
}

fn compare_with<T: Pod>(
    value: Option<T>,
    y: &mut Target<'_>,
    sources: &[Source<'_>],
    cx: &mut Cx<'_>,
    f: impl Fn(&[T], Operand<'_, T>, &mut [u8]),
) -> Result<(), Fault> {
    match (value, sources) {
        (Some(value), [a]) => each(y, [a], NO_SPLAT, cx.scratch, |y, [a]| {
            f(a.slice()?, Operand::Scalar(value), y);
            Ok(())
        }),
        (None, [a, b]) => each(y, [a, b], 1, cx.scratch, |y, [a, b]| {
            f(a.slice()?, b.operand()?, y);
            Ok(())
        }),
        _ => Err(Fault::operands()),
    }
}

/// y = mask ? a : b.
pub(super) fn select(
    y: &mut Target<'_>,
    operands: [&Source<'_>; 3],
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let (size, k) = (y.layout.size(), cx.kernels);
    let body = |y: &mut [u8], [mask, a, b]: [Chunk<'_>; 3]| {
        let mask = mask.slice()?;
        match size {
            2 => k.select_bf16(mask, a.slice()?, b.slice()?, typed_mut(y)?),
            4 => k.select_i32(mask, a.slice()?, b.slice()?, typed_mut(y)?),
            8 => k.select_i64(mask, a.slice()?, b.slice()?, typed_mut(y)?),
            _ => {
                let (a, b) = (a.slice::<u8>()?, b.slice::<u8>()?);
                for (((mask, a), b), y) in mask.iter().zip(a).zip(b).zip(y) {
                    *y = if *mask != 0 { *a } else { *b };
                }
            }
        }
        Ok(())
    };
    each(y, operands, NO_SPLAT, cx.scratch, body)
}

/// y = value everywhere.
pub(super) fn fill(instr: &Fill, y: &mut Target<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
    fill_with(element(instr.value, y.layout.view.dtype), y, cx)
}

/// All elements become the first bytes of `value`.
pub(super) fn fill_with(value: [u8; 8], y: &mut Target<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
    let size = y.layout.size();
    by_size!(size as u64, T => {
        let value: T = bytemuck::pod_read_unaligned(&value[..size]);
        each(y, [], NO_SPLAT, cx.scratch, |y, []| {
            typed_mut::<T>(y)?.fill(value);
            Ok(())
        })
    })
}

/// y = start + step * index.
pub(super) fn iota(
    instr: &Iota,
    y: &mut Target<'_>,
    start: i64,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let dtype = y.layout.view.dtype;
    let shape = &y.layout.view.shape;
    let extent = shape.get(instr.axis).copied().unwrap_or(1).max(1);
    let inner: u64 = shape.iter().skip(instr.axis + 1).product();
    let inner = inner.max(1);
    let number = |i: u64| start.wrapping_add(instr.step.wrapping_mul((i / inner % extent) as i64));
    let mut done = 0u64;
    let mut count = |n: usize| {
        let first = done;
        done += n as u64;
        first
    };
    by_dtype!(dtype,
        float T => if dtype == DType::F32 {
            each_in_order(y, [], cx.scratch, |y, []| {
                let y = typed_mut::<T>(y)?;
                for (i, y) in (count(y.len())..).zip(y) {
                    *y = T::narrow(number(i) as f32);
                }
                Ok(())
            })
        } else {
            Err(Fault::undefined("iota", dtype))
        },
        int T => each_in_order(y, [], cx.scratch, |y, []| {
            let y = typed_mut::<T>(y)?;
            for (i, y) in (count(y.len())..).zip(y) {
                *y = T::of_i128(number(i).into());
            }
            Ok(())
        }),
        _ => Err(Fault::undefined("iota", dtype)),
    )
}
