//! Arithmetic on extents that are known at run time only.
//!
//! Models compute shapes: `Concat(Slice(Shape(x)), [-1])`. Where an extent is a symbol the values
//! are expressions over symbols ([`Symbolic`]), and the operators that such computations are made
//! of are followed here. What comes out constant again is a constant. Any other operator gets the
//! values as data, computed by nodes.

use std::sync::Arc;

use dojoc_ir::dim::Poly;
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::node::NodeCx;
use super::problems::NodeResult;
use super::value::{Operand, Symbolic, limited, limited_mul, onnx_dtype};

/// Longest vector that is followed.
const MAX_LEN: usize = 256;

/// Results of a node: integers, or truth values.
enum Outcome {
    Ints(Vec<Symbolic>),
    Truth { scalar: bool, values: Vec<bool> },
}

/// Gives the results of a node that computes with extents; `false` if it is none that is followed.
pub(super) fn evaluate(cx: &mut NodeCx<'_, '_>) -> NodeResult<bool> {
    let symbolic = |o: &Option<Operand>| matches!(o, Some(Operand::Symbolic(_)));
    if !cx.inputs.iter().any(symbolic) {
        return Ok(false);
    }
    let Some(outcome) = follow(cx) else {
        return Ok(false);
    };
    match outcome {
        Outcome::Ints(results) => {
            for (index, result) in results.into_iter().enumerate() {
                let constant = result.values.iter().all(|p| p.as_constant().is_some());
                let operand = Operand::Symbolic(Arc::new(result));
                if constant {
                    let value = cx.imp.materialize(&operand)?;
                    cx.output(index, value);
                } else {
                    cx.output(index, operand);
                }
            }
        }
        Outcome::Truth { scalar, values } => {
            let shape = if scalar {
                vec![]
            } else {
                vec![values.len() as u64]
            };
            let values = values.into_iter().map(Scalar::Bool);
            let value = cx.constant(Tensor::from_scalars(DType::Bool, &shape, values));
            cx.output(0, value);
        }
    }
    Ok(true)
}

/// An operand as expressions, if it is a short vector or scalar of integers.
fn vector(cx: &NodeCx<'_, '_>, index: usize) -> Option<Symbolic> {
    if let Some(Operand::Symbolic(symbolic)) = cx.operand(index) {
        return Some((**symbolic).clone());
    }
    let ty = cx.input_type(index)?;
    if ty.rank() > 1 || !ty.dtype.is_int() {
        return None;
    }
    let values = cx.shape_values(index)?;
    (values.len() <= MAX_LEN).then_some(Symbolic {
        dtype: ty.dtype,
        scalar: ty.rank() == 0,
        values,
    })
}

fn follow(cx: &mut NodeCx<'_, '_>) -> Option<Outcome> {
    let ints = |result: Symbolic| Some(Outcome::Ints(vec![result]));
    match cx.node.op_type.as_str() {
        "Identity" => ints(vector(cx, 0)?),
        "Cast" => {
            let to = cx.int_opt("to").ok()??;
            let dtype = onnx_dtype(i32::try_from(to).ok()?).ok()?;
            let x = vector(cx, 0)?;
            // Extents that do not fit 32 bits are refused elsewhere; other types may wrap.
            let wide = matches!(dtype, DType::I32 | DType::I64 | DType::U64);
            wide.then_some(())
                .and_then(|()| ints(Symbolic { dtype, ..x }))
        }
        "Squeeze" => {
            let x = vector(cx, 0)?;
            (x.values.len() == 1).then_some(())?;
            ints(Symbolic { scalar: true, ..x })
        }
        "Unsqueeze" => {
            let x = vector(cx, 0)?;
            let axes = match cx.ints("axes").ok()? {
                Some(axes) => axes,
                None => cx.const_ints(1)?,
            };
            (x.scalar && matches!(axes[..], [0 | -1])).then_some(())?;
            ints(Symbolic { scalar: false, ..x })
        }
        "Reshape" => {
            let x = vector(cx, 0)?;
            let scalar = match cx.const_ints(1)?[..] {
                [] => true,
                [_] => false,
                _ => return None,
            };
            ints(Symbolic { scalar, ..x })
        }
        "Gather" => gather(cx),
        "Concat" => {
            let parts = (0..cx.input_count())
                .map(|n| vector(cx, n))
                .collect::<Option<Vec<_>>>()?;
            let dtype = parts.first()?.dtype;
            let fits = parts.iter().all(|p| !p.scalar && p.dtype == dtype);
            let values: Vec<Poly> = parts.into_iter().flat_map(|p| p.values).collect();
            (fits && values.len() <= MAX_LEN).then_some(())?;
            ints(Symbolic {
                dtype,
                scalar: false,
                values,
            })
        }
        "Slice" => slice(cx),
        "Split" => split(cx),
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Min" | "Max" => arithmetic(cx),
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => compare(cx),
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" => reduce(cx),
        "Where" => choose(cx),
        _ => None,
    }
}

fn gather(cx: &mut NodeCx<'_, '_>) -> Option<Outcome> {
    let x = vector(cx, 0)?;
    matches!(cx.int("axis", 0), Ok(0 | -1)).then_some(())?;
    let (indices, ty) = (cx.const_ints(1)?, cx.input_type(1)?);
    (!x.scalar && indices.len() <= MAX_LEN).then_some(())?;
    let count = x.values.len() as i64;
    let pick = |index: &i64| {
        let index = if *index < 0 {
            index.checked_add(count)?
        } else {
            *index
        };
        x.values.get(usize::try_from(index).ok()?).cloned()
    };
    let values = indices.iter().map(pick).collect::<Option<_>>()?;
    Some(Outcome::Ints(vec![Symbolic {
        dtype: x.dtype,
        scalar: ty.rank() == 0,
        values,
    }]))
}

fn slice(cx: &mut NodeCx<'_, '_>) -> Option<Outcome> {
    let x = vector(cx, 0)?;
    let one = |list: Option<Vec<i64>>, default| match list.as_deref() {
        None => Some(default),
        Some([one]) => Some(*one),
        Some(_) => None,
    };
    let (start, end, axis, step) = if cx.version < 10 {
        let (start, end) = (cx.ints("starts").ok()??, cx.ints("ends").ok()??);
        let axis = one(cx.ints("axes").ok()?, 0)?;
        (one(Some(start), 0)?, one(Some(end), 0)?, axis, 1)
    } else {
        let axis = if cx.has(3) {
            one(Some(cx.const_ints(3)?), 0)?
        } else {
            0
        };
        let step = if cx.has(4) {
            one(Some(cx.const_ints(4)?), 1)?
        } else {
            1
        };
        (
            one(Some(cx.const_ints(1)?), 0)?,
            one(Some(cx.const_ints(2)?), 0)?,
            axis,
            step,
        )
    };
    (!x.scalar && matches!(axis, 0 | -1)).then_some(())?;
    let range = super::ops::slice_range(start, end, step, x.values.len() as u64)?;
    let values = (0..range.1)
        .map(|n| {
            x.values
                .get(usize::try_from(range.0 + n as i64 * step).ok()?)
                .cloned()
        })
        .collect::<Option<_>>()?;
    Some(Outcome::Ints(vec![Symbolic { values, ..x }]))
}

fn split(cx: &mut NodeCx<'_, '_>) -> Option<Outcome> {
    let x = vector(cx, 0)?;
    let count = cx.output_count();
    let sizes = match cx.ints("split").ok()? {
        Some(sizes) => sizes,
        None if cx.has(1) => cx.const_ints(1)?,
        None if count > 0 => {
            let each = x.values.len().div_ceil(count) as i64;
            (0..count as i64)
                .map(|n| (x.values.len() as i64 - n * each).clamp(0, each))
                .collect()
        }
        None => return None,
    };
    matches!(cx.int("axis", 0), Ok(0 | -1)).then_some(())?;
    cx.ignore_attrs(&["num_outputs"]);
    let mut rest = &x.values[..];
    let mut parts = vec![];
    for size in sizes {
        let size = usize::try_from(size).ok()?;
        let part = rest.get(..size)?;
        rest = &rest[size..];
        parts.push(Symbolic {
            dtype: x.dtype,
            scalar: false,
            values: part.to_vec(),
        });
    }
    (rest.is_empty() && parts.len() == count).then_some(Outcome::Ints(parts))
}

/// Operands of the same length, scalars and single elements repeated.
fn broadcast(operands: &[Symbolic]) -> Option<(bool, Vec<Vec<Poly>>)> {
    let longest = operands.iter().map(|o| o.values.len()).max()?;
    // A vector without elements stays one.
    let length = if operands.iter().any(|o| o.values.is_empty()) {
        0
    } else {
        longest
    };
    let scalar = operands.iter().all(|o| o.scalar);
    let stretched = operands.iter().map(|o| match o.values.len() {
        1 => Some(vec![o.values[0].clone(); length]),
        n if n == length => Some(o.values.clone()),
        _ => None,
    });
    Some((scalar, stretched.collect::<Option<_>>()?))
}

fn arithmetic(cx: &mut NodeCx<'_, '_>) -> Option<Outcome> {
    let operands = (0..cx.input_count())
        .map(|n| vector(cx, n))
        .collect::<Option<Vec<_>>>()?;
    let dtype = operands.first()?.dtype;
    operands.iter().all(|o| o.dtype == dtype).then_some(())?;
    let op = cx.node.op_type.as_str();
    if op == "Mod" {
        matches!(cx.flag("fmod", false), Ok(false)).then_some(())?;
    }
    let (scalar, columns) = broadcast(&operands)?;
    let mut columns = columns.into_iter();
    let mut values = columns.next()?;
    for column in columns {
        values = values
            .iter()
            .zip(&column)
            .map(|(a, b)| combine(op, a, b))
            .collect::<Option<_>>()?;
    }
    Some(Outcome::Ints(vec![Symbolic {
        dtype,
        scalar,
        values,
    }]))
}

fn combine(op: &str, a: &Poly, b: &Poly) -> Option<Poly> {
    limited(match op {
        "Add" => a.add(b),
        "Sub" => limited(b.mul(&Poly::constant(-1))).and_then(|b| a.add(&b)),
        "Mul" => limited_mul(a, b),
        // Integer division truncates, which is rounding down where nothing is negative.
        "Div" if a.bounds().0 >= 0 && b.bounds().0 >= 0 => a.floor_div(b),
        "Mod" if b.bounds().0 >= 0 => {
            let quotient = limited(a.floor_div(b))?;
            a.sub(&limited_mul(&quotient, b)?)
        }
        "Min" => Some(a.smaller(b)),
        "Max" => Some(a.larger(b)),
        _ => None,
    })
}

/// Whether `a` relates to `b` in this way, if that is the same for all extents.
fn relation(op: &str, a: &Poly, b: &Poly) -> Option<bool> {
    let (low, high) = a.sub(b)?.bounds();
    match op {
        "Equal" if low == 0 && high == 0 => Some(true),
        "Equal" if low > 0 || high < 0 => Some(false),
        "Less" if high < 0 => Some(true),
        "Less" if low >= 0 => Some(false),
        "LessOrEqual" if high <= 0 => Some(true),
        "LessOrEqual" if low > 0 => Some(false),
        "Greater" => relation("LessOrEqual", a, b).map(|truth| !truth),
        "GreaterOrEqual" => relation("Less", a, b).map(|truth| !truth),
        _ => None,
    }
}

fn compare(cx: &mut NodeCx<'_, '_>) -> Option<Outcome> {
    let (scalar, columns) = broadcast(&[vector(cx, 0)?, vector(cx, 1)?])?;
    let op = cx.node.op_type.as_str();
    let pairs = columns[0].iter().zip(&columns[1]);
    let values = pairs
        .map(|(a, b)| relation(op, a, b))
        .collect::<Option<_>>()?;
    Some(Outcome::Truth { scalar, values })
}

fn reduce(cx: &mut NodeCx<'_, '_>) -> Option<Outcome> {
    let x = vector(cx, 0)?;
    let axes = match cx.ints("axes").ok()? {
        Some(axes) => Some(axes),
        None if cx.has(1) => Some(cx.const_ints(1)?),
        None => None,
    };
    let over = axes.is_none_or(|axes| matches!(axes[..], [0 | -1]));
    let keep = cx.flag("keepdims", true).ok()?;
    cx.ignore_attrs(&["noop_with_empty_axes"]);
    (over && !x.scalar).then_some(())?;
    let op = match cx.node.op_type.as_str() {
        "ReduceProd" => "Mul",
        "ReduceSum" => "Add",
        "ReduceMax" => "Max",
        _ => "Min",
    };
    let mut values = x.values.iter();
    let first = values.next()?.clone();
    let total = values.try_fold(first, |total, value| combine(op, &total, value))?;
    Some(Outcome::Ints(vec![Symbolic {
        dtype: x.dtype,
        scalar: !keep,
        values: vec![total],
    }]))
}

fn choose(cx: &mut NodeCx<'_, '_>) -> Option<Outcome> {
    let cond = Symbolic {
        dtype: DType::Bool,
        scalar: cx.input_type(0)?.rank() == 0,
        values: cx.const_ints(0)?.into_iter().map(Poly::constant).collect(),
    };
    let (a, b) = (vector(cx, 1)?, vector(cx, 2)?);
    let dtype = a.dtype;
    let (scalar, columns) = broadcast(&[cond, a, b])?;
    let pick = |n: usize| {
        let truth = columns[0][n].as_constant() != Some(0);
        columns[if truth { 1 } else { 2 }][n].clone()
    };
    let values = (0..columns[0].len()).map(pick).collect();
    Some(Outcome::Ints(vec![Symbolic {
        dtype,
        scalar,
        values,
    }]))
}
