//! Reductions, scans, positions of extrema.

use dojoc_ir::program::instr::reduce::{
    ArgFunction, ArgReduce, Reduce, ReduceFunction, Scan, ScanFunction,
};
use dojoc_ir::types::DType;

use super::number::{Float, Int, by_dtype};
use super::walk::{bytes_of, dense, typed, typed_mut, with_dense};
use super::{Cx, Fault, Scratch, Source, Target};
use crate::kernels::{self, Binary, Operand, finish, flush};

/// The kernels of a reduction and of its function of two values.
fn float_reduce(function: ReduceFunction) -> Option<(kernels::Reduce, Binary)> {
    Some(match function {
        ReduceFunction::Sum => (kernels::Reduce::Sum, Binary::Add),
        ReduceFunction::Prod => (kernels::Reduce::Prod, Binary::Mul),
        ReduceFunction::Min => (kernels::Reduce::Min, Binary::Min),
        ReduceFunction::Max => (kernels::Reduce::Max, Binary::Max),
        ReduceFunction::And | ReduceFunction::Or => return None,
    })
}

/// An identity and a function of two values.
type Monoid<T> = (T, fn(T, T) -> T);

/// That of an integer reduction.
fn int_reduce<T: Int>(function: ReduceFunction) -> Option<Monoid<T>> {
    Some(match function {
        ReduceFunction::Sum => (T::ZERO, T::add),
        ReduceFunction::Prod => (T::ONE, T::mul),
        ReduceFunction::Min => (T::GREATEST, T::min),
        ReduceFunction::Max => (T::LEAST, T::max),
        ReduceFunction::And | ReduceFunction::Or => return None,
    })
}

/// That of a reduction of bool.
fn bool_reduce(function: ReduceFunction) -> Option<Monoid<u8>> {
    Some(match function {
        ReduceFunction::And => (1, |a, b| u8::from(a != 0 && b != 0)),
        ReduceFunction::Or => (0, |a, b| u8::from(a != 0 || b != 0)),
        _ => return None,
    })
}

/// y = reduction of x over its innermost dimensions.
pub(super) fn reduce(
    instr: &Reduce,
    y: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let dtype = x.layout.view.dtype;
    let undefined = || Fault::undefined(instr.function.name(), dtype);
    let shape = &x.layout.view.shape;
    let inner = shape[shape.len().saturating_sub(instr.dims)..].iter();
    let inner = inner.product::<u64>() as usize;
    by_dtype!(dtype,
        float T => match y.layout.view.dtype {
            DType::F32 => reduce_floats::<T, f32>(instr, inner, y, x, cx),
            _ => reduce_floats::<T, T>(instr, inner, y, x, cx),
        },
        int T => {
            let (identity, f) = int_reduce::<T>(instr.function).ok_or_else(undefined)?;
            fold::<T>(*instr.accumulate, inner, (identity, f), (y, x), cx.scratch)
        },
        bool => {
            let function = bool_reduce(instr.function).ok_or_else(undefined)?;
            fold::<u8>(*instr.accumulate, inner, function, (y, x), cx.scratch)
        },
        _ => Err(undefined()),
    )
}

fn reduce_floats<X: Float, Y: Float>(
    instr: &Reduce,
    inner: usize,
    y: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let k = cx.kernels;
    let (op, pair) = float_reduce(instr.function)
        .ok_or_else(|| Fault::undefined(instr.function.name(), x.layout.view.dtype))?;
    let Scratch {
        copies: [x_copy, y_copy, wide, results, ..],
        rows,
        ..
    } = cx.scratch;
    let x: &[X] = typed(dense(x, y.bytes, x_copy)?)?;
    let results: &mut [f32] = typed_mut(bytes_of(results, 4 * y.layout.elements))?;
    for (i, result) in results.iter_mut().enumerate() {
        *result = X::reduce(k, op, &x[i * inner..][..inner], wide);
    }
    with_dense(y, y_copy, *instr.accumulate, |y| {
        let y: &mut [Y] = typed_mut(y)?;
        if *instr.accumulate {
            let earlier: &mut [f32] = typed_mut(bytes_of(wide, 4 * y.len()))?;
            Y::widen_all(k, y, earlier);
            let sums: &mut [f32] = typed_mut(bytes_of(rows, 4 * y.len()))?;
            k.binary_f32(pair, earlier, Operand::Slice(results), sums);
            Y::narrow_all(k, sums, y);
        } else {
            Y::narrow_all(k, results, y);
        }
        Ok(())
    })
}

/// A reduction whose order does not matter.
fn fold<T: Int>(
    accumulate: bool,
    inner: usize,
    (identity, f): Monoid<T>,
    (y, x): (&mut Target<'_>, &Source<'_>),
    scratch: &mut Scratch,
) -> Result<(), Fault> {
    let [x_copy, y_copy, ..] = &mut scratch.copies;
    let x: &[T] = typed(dense(x, y.bytes, x_copy)?)?;
    with_dense(y, y_copy, accumulate, |y| {
        for (i, y) in typed_mut::<T>(y)?.iter_mut().enumerate() {
            let x = &x[i * inner..][..inner];
            let result = x.iter().fold(identity, |result, x| f(result, *x));
            *y = if accumulate { f(*y, result) } else { result };
        }
        Ok(())
    })
}

/// y = position of the extremum along the last dimension.
pub(super) fn arg_reduce(
    instr: &ArgReduce,
    y: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let dtype = x.layout.view.dtype;
    let n = x.layout.view.shape.last().copied().unwrap_or(1) as usize;
    if n == 0 {
        return Err(Fault::new("there is no extremum of nothing"));
    }
    let [x_copy, y_copy, ..] = &mut cx.scratch.copies;
    let x = dense(x, y.bytes, x_copy)?;
    let largest = instr.function == ArgFunction::ArgMax;
    let last = *instr.last;
    by_dtype!(dtype,
        float T => {
            let x = typed::<T>(x)?;
            put_positions(y, y_copy, |i| float_extremum(&x[i * n..][..n], largest, last))
        },
        int T => {
            let x = typed::<T>(x)?;
            put_positions(y, y_copy, |i| extremum(
                x[i * n..][..n].iter().copied(),
                |x, best| if largest { x > best } else { x < best },
                last,
            ))
        },
        _ => Err(Fault::undefined(instr.function.name(), dtype)),
    )
}

fn float_extremum<T: Float>(x: &[T], largest: bool, last: bool) -> usize {
    if let Some(nan) = x.iter().position(|x| x.widen().is_nan()) {
        return nan;
    }
    extremum(
        x.iter().map(|x| flush(x.widen())),
        |x, best| if largest { x > best } else { x < best },
        last,
    )
}

fn extremum<T: PartialEq + Copy>(
    x: impl Iterator<Item = T>,
    better: impl Fn(T, T) -> bool,
    last: bool,
) -> usize {
    let mut found: Option<(usize, T)> = None;
    for (i, x) in x.enumerate() {
        if found.is_none_or(|(_, best)| better(x, best) || last && x == best) {
            found = Some((i, x));
        }
    }
    found.map_or(0, |(i, _)| i)
}

/// Writes `position(i)` to element i of y, i32 or i64.
fn put_positions(
    y: &mut Target<'_>,
    copy: &mut Vec<u64>,
    position: impl Fn(usize) -> usize,
) -> Result<(), Fault> {
    let dtype = y.layout.view.dtype;
    with_dense(y, copy, false, |y| {
        match dtype {
            DType::I32 => {
                for (i, y) in typed_mut::<i32>(y)?.iter_mut().enumerate() {
                    *y = position(i) as i32;
                }
            }
            DType::I64 => {
                for (i, y) in typed_mut::<i64>(y)?.iter_mut().enumerate() {
                    *y = position(i) as i64;
                }
            }
            other => return Err(Fault::undefined("a position", other)),
        }
        Ok(())
    })
}

/// y = running reduction of x along the last dimension.
pub(super) fn scan(
    instr: &Scan,
    y: &mut Target<'_>,
    x: &Source<'_>,
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let dtype = x.layout.view.dtype;
    let n = x.layout.view.shape.last().copied().unwrap_or(1) as usize;
    let [x_copy, y_copy, ..] = &mut cx.scratch.copies;
    let x = dense(x, y.bytes, x_copy)?;
    with_dense(y, y_copy, false, |y| {
        by_dtype!(dtype,
            float T => {
                let (identity, f): Monoid<f32> = match instr.function {
                    ScanFunction::Sum => (0.0, |a, b| a + b),
                    ScanFunction::Prod => (1.0, |a, b| a * b),
                    ScanFunction::Max => (f32::NEG_INFINITY, kernels::max),
                    ScanFunction::Min => (f32::INFINITY, kernels::min),
                };
                let f = |carry, x: T| finish(f(carry, flush(x.widen())));
                scan_rows(instr, n, (typed::<T>(x)?, typed_mut(y)?), identity, f, T::narrow);
                Ok(())
            },
            int T => {
                let (identity, f): Monoid<T> = match instr.function {
                    ScanFunction::Sum => (T::ZERO, T::add),
                    ScanFunction::Prod => (T::ONE, T::mul),
                    ScanFunction::Max => (T::LEAST, T::max),
                    ScanFunction::Min => (T::GREATEST, T::min),
                };
                scan_rows(instr, n, (typed::<T>(x)?, typed_mut(y)?), identity, f, |x| x);
                Ok(())
            },
            _ => Err(Fault::undefined(instr.function.name(), dtype)),
        )
    })
}

fn scan_rows<T: Copy, C: Copy>(
    instr: &Scan,
    n: usize,
    (x, y): (&[T], &mut [T]),
    identity: C,
    f: impl Fn(C, T) -> C,
    store: impl Fn(C) -> T,
) {
    if n == 0 {
        return;
    }
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let mut carry = identity;
        for i in 0..n {
            let i = if *instr.reverse { n - 1 - i } else { i };
            let next = f(carry, x[i]);
            y[i] = store(if *instr.exclusive { carry } else { next });
            carry = next;
        }
    }
}
