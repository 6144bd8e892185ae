//! Values at many points at a time, and the expressions of rules over them.

use std::borrow::Cow;

use super::Expr;
use crate::formats::random_bits;
use crate::ops::arith::widened;
use crate::scalar::{BinaryFn, Scalar};
use crate::tensor::Tensor;
use crate::types::DType;

/// Stands for a position outside of a tensor.
pub(super) const OUTSIDE: usize = usize::MAX;

/// Scalars of one type. Floats of at most 32 bits, of which nets are made, lie side by side.
#[derive(Clone, Debug)]
pub(super) enum Column {
    F32(Vec<f32>),
    Any(Vec<Scalar>),
}

impl Column {
    fn new(values: impl Iterator<Item = Scalar>) -> Self {
        let mut values = values.peekable();
        if let Some(Scalar::F32(_)) = values.peek() {
            let narrow = |value: Scalar| match value {
                Scalar::F32(x) => x,
                other => other.to_f64() as f32,
            };
            return Column::F32(values.map(narrow).collect());
        }
        Column::Any(values.collect())
    }

    /// The same value at all points.
    pub fn splat(value: Scalar, count: usize) -> Self {
        match value {
            Scalar::F32(x) => Column::F32(vec![x; count]),
            other => Column::Any(vec![other; count]),
        }
    }

    /// The value at a point.
    pub fn get(&self, point: usize) -> Scalar {
        match self {
            Column::F32(values) => Scalar::F32(values[point]),
            Column::Any(values) => values[point],
        }
    }

    /// Sets the value at a point; a value of another kind makes the column one of any kind.
    pub fn set(&mut self, point: usize, value: Scalar) {
        match (&mut *self, value) {
            (Column::F32(values), Scalar::F32(x)) => values[point] = x,
            (Column::Any(values), value) => values[point] = value,
            (Column::F32(values), value) => {
                let mut any: Vec<Scalar> = values.iter().map(|x| Scalar::F32(*x)).collect();
                any[point] = value;
                *self = Column::Any(any);
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Column::F32(values) => values.len(),
            Column::Any(values) => values.len(),
        }
    }

    fn scalars(&self) -> impl Iterator<Item = Scalar> + '_ {
        (0..self.len()).map(|point| self.get(point))
    }

    /// The tensor of these elements, converted to `dtype`.
    pub fn into_tensor(self, dtype: DType, shape: &[u64]) -> Tensor {
        match self {
            Column::F32(values) if dtype == DType::F32 => Tensor::from_vec(shape, values),
            other => Tensor::from_scalars(dtype, shape, other.scalars().map(|s| s.convert(dtype))),
        }
    }
}

/// The values of an expression at many points, some of which may have none.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// The values; at a point that has none, anything of the type.
    pub column: Column,
    /// Which points have a value; absent if all have.
    pub present: Option<Vec<bool>>,
}

impl Values {
    fn all(column: Column) -> Self {
        Self {
            column,
            present: None,
        }
    }

    /// Whether a point has a value.
    pub fn has(&self, point: usize) -> bool {
        self.present.as_ref().is_none_or(|p| p[point])
    }
}

/// The elements of an operand in the form in which they are computed.
pub(super) enum Source<'a> {
    F32(Cow<'a, [f32]>),
    Any(&'a Tensor),
}

impl<'a> Source<'a> {
    pub fn new(tensor: &'a Tensor) -> Self {
        match tensor.dtype() {
            DType::F32 => Source::F32(tensor.stored()),
            DType::Bf16 | DType::F16 => {
                Source::F32(Cow::Owned(widened(tensor).stored().into_owned()))
            }
            _ => Source::Any(tensor),
        }
    }

    /// The elements at positions; outside of the tensor `fill`, or no value.
    pub fn read(&self, positions: &[usize], fill: Option<Scalar>, zero: Scalar) -> Values {
        let outside = fill.unwrap_or(zero);
        let column = match (self, outside) {
            (Source::F32(values), Scalar::F32(outside)) => {
                let at = |p: &usize| if *p == OUTSIDE { outside } else { values[*p] };
                Column::F32(positions.iter().map(at).collect())
            }
            (Source::F32(values), _) => {
                let at = |p: &usize| {
                    if *p == OUTSIDE {
                        outside
                    } else {
                        Scalar::F32(values[*p])
                    }
                };
                Column::new(positions.iter().map(at))
            }
            (Source::Any(tensor), _) => {
                let at = |p: &usize| {
                    if *p == OUTSIDE {
                        outside
                    } else {
                        tensor.get(*p)
                    }
                };
                Column::Any(positions.iter().map(at).collect())
            }
        };
        let present = (fill.is_none() && positions.contains(&OUTSIDE))
            .then(|| positions.iter().map(|p| *p != OUTSIDE).collect());
        Values { column, present }
    }
}

/// What an expression sees: the values read and the loop indices at some points.
pub(super) struct Points {
    pub count: usize,
    /// Of every operand.
    pub reads: Vec<Values>,
    /// Of every loop that an expression asks for, empty for others.
    pub indices: Vec<Vec<u64>>,
}

/// Points that have a value in both.
fn both(a: &Values, b: &Values) -> Option<Vec<bool>> {
    match (&a.present, &b.present) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (Some(a), Some(b)) => Some(a.iter().zip(b).map(|(a, b)| *a && *b).collect()),
    }
}

impl Expr {
    /// The values at all points: what [`Expr::eval`] gives at each.
    pub(super) fn columns(&self, points: &Points) -> Values {
        match self {
            Expr::Operand(index) => points.reads[*index].clone(),
            Expr::Const(number, dtype) => {
                Values::all(Column::splat(number.to_scalar(*dtype), points.count))
            }
            Expr::Index(dim, dtype) => {
                let indices = points.indices[*dim].iter();
                let at = |i: &u64| Scalar::Int((*i).into()).convert(*dtype);
                Values::all(Column::new(indices.map(at)))
            }
            Expr::Unary(f, dtype, x) => {
                let x = x.columns(points);
                x.map(|s| f.apply(s, *dtype))
            }
            Expr::Convert(dtype, x) => {
                let x = x.columns(points);
                match x.column {
                    Column::F32(_) if *dtype == DType::F32 => x,
                    _ => x.map(|s| s.convert(*dtype)),
                }
            }
            Expr::Binary(f, dtype, args) => {
                let [a, b] = [args[0].columns(points), args[1].columns(points)];
                Values {
                    present: both(&a, &b),
                    column: binary(*f, *dtype, &a.column, &b.column),
                }
            }
            Expr::Select(args) => {
                let [truth, yes, no] = [0, 1, 2].map(|n| args[n].columns(points));
                choose(points.count, &[&yes, &no], |point| {
                    truth
                        .has(point)
                        .then(|| usize::from(!truth.column.get(point).to_bool()))
                })
            }
            Expr::RandomBits(site, args) => {
                let [seed, step, index] = [0, 1, 2].map(|n| args[n].columns(points));
                let word = |v: &Values, point: usize| v.column.get(point).to_int() as u64;
                let bits =
                    |p: usize| random_bits(word(&seed, p), word(&step, p), *site, word(&index, p));
                let present = (0..points.count)
                    .map(|p| seed.has(p) && step.has(p) && index.has(p))
                    .collect();
                Values {
                    column: Column::new((0..points.count).map(|p| Scalar::Int(bits(p).into()))),
                    present: Some(present),
                }
            }
            Expr::FirstOf(options) => {
                let mut found: Vec<Values> = vec![];
                for option in options {
                    found.push(option.columns(points));
                    if found.last().is_some_and(|v| v.present.is_none()) {
                        break;
                    }
                }
                let refs: Vec<&Values> = found.iter().collect();
                choose(points.count, &refs, |point| {
                    found.iter().position(|v| v.has(point))
                })
            }
        }
    }
}

impl Values {
    fn map(self, f: impl Fn(Scalar) -> Scalar) -> Self {
        Self {
            column: Column::new(self.column.scalars().map(f)),
            present: self.present,
        }
    }
}

/// At every point the value of the option that `which` names.
fn choose(count: usize, options: &[&Values], which: impl Fn(usize) -> Option<usize>) -> Values {
    let chosen: Vec<Option<usize>> = (0..count)
        .map(|point| which(point).filter(|n| options[*n].has(point)))
        .collect();
    let present = chosen
        .iter()
        .any(Option::is_none)
        .then(|| chosen.iter().map(Option::is_some).collect());
    let value = |(point, n): (usize, &Option<usize>)| match options.get(n.unwrap_or(0)) {
        Some(option) => option.column.get(point),
        None => Scalar::Bool(false),
    };
    Values {
        column: Column::new(chosen.iter().enumerate().map(value)),
        present,
    }
}

fn binary(f: BinaryFn, dtype: DType, a: &Column, b: &Column) -> Column {
    if let (Column::F32(a), Column::F32(b), DType::F32) = (a, b, dtype) {
        let both = a.iter().zip(b);
        match f {
            BinaryFn::Add => return Column::F32(both.map(|(a, b)| a + b).collect()),
            BinaryFn::Sub => return Column::F32(both.map(|(a, b)| a - b).collect()),
            BinaryFn::Mul => return Column::F32(both.map(|(a, b)| a * b).collect()),
            BinaryFn::Div => return Column::F32(both.map(|(a, b)| a / b).collect()),
            _ => {}
        }
    }
    Column::new(
        a.scalars()
            .zip(b.scalars())
            .map(|(a, b)| f.apply(a, b, dtype)),
    )
}
