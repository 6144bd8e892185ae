//! Tiling rules: what an op computes, as data.
//!
//! Tiling, costing, halo and traffic computation read these rules and never the op's name. The op
//! suite interprets every rule and compares with the op's `eval`, so that lowering may trust them.

use crate::attr::Number;
use crate::dim::{Dim, Poly};
use crate::formats::random_bits;
use crate::graph::Function;
use crate::scalar::{BinaryFn, Scalar, UnaryFn};
use crate::tensor::{Tensor, indices, ravel};
use crate::types::{DType, Shape};

pub mod block;
mod column;
mod contract;
mod points;

/// How an op can be split.
#[derive(Clone, Debug)]
pub enum Tiling {
    /// One loop nest over affine accesses.
    Loop(Access),
    /// A small graph of other ops. Its inputs are the operands, its outputs the results.
    Expand(Function),
    /// The same elements in the same row-major order under other extents.
    View(View),
    /// A computation that is not affine, split only along the named dims.
    Kernel(Kernel),
    /// Structured control flow: tiled by tiling the regions.
    Control,
}

/// A loop nest: at every point of `dims` the operands are read through their maps, the `body` is
/// computed, and its values are combined into the results.
///
/// A point at which an operand lies outside and reads nothing (see [`Outside`]) contributes
/// nothing, unless the body has an alternative ([`Expr::FirstOf`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// The loops, outermost first. Reductions combine in this order.
    pub dims: Vec<LoopDim>,
    /// Where each operand is read.
    pub operands: Vec<Read>,
    /// One scalar per component of the combination.
    pub body: Vec<Expr>,
    /// How values meet at one element of a result.
    pub combine: Combine,
    /// Where each result is written.
    pub results: Vec<Write>,
}

/// One loop of an [`Access`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoopDim {
    /// Name for people and plans: `m`, `k`, `oh`...
    pub name: String,
    /// Number of iterations.
    pub extent: Dim,
    /// What the iterations have to do with one another.
    pub kind: DimKind,
}

/// What the iterations of a loop have to do with one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimKind {
    /// Independent.
    Parallel,
    /// Combined by the monoid, in any grouping.
    Reduction,
    /// In order, with a carried state.
    Sequential,
}

/// `(sum of coefficient * dim + offset) / div`, defined where the division is exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// (position in [`Access::dims`], coefficient), each dim at most once.
    pub terms: Vec<(usize, i64)>,
    /// Constant part; symbolic where an extent of an operand is.
    pub offset: Poly,
    /// Divisor, at least 1.
    pub div: u64,
}

/// How an operand is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// One index per dimension of the operand.
    pub index: Vec<Affine>,
    /// What is read where the index is not a whole number or out of range.
    pub outside: Outside,
}

/// What a read outside the operand gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outside {
    /// There is no such read.
    Never,
    /// Nothing: the point does not contribute.
    Nothing,
    /// This value.
    Fill(Number),
}

/// How a result is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Which component of the combination this is.
    pub component: usize,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
    /// One index per dimension of the result; points outside write nothing. For
    /// [`Combine::Assign`] the map is injective; otherwise it may accumulate.
    pub index: Vec<Affine>,
}

/// A scalar expression over the values read at one point.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// The value read from an operand.
    Operand(usize),
    /// A constant.
    Const(Number, DType),
    /// The index of a loop, as an element of a type.
    Index(usize, DType),
    /// A function of one value of the given element type.
    Unary(UnaryFn, DType, Box<Expr>),
    /// A function of two values of the given element type.
    Binary(BinaryFn, DType, Box<[Expr; 2]>),
    /// The second value where the first is true, else the third.
    Select(Box<[Expr; 3]>),
    /// Conversion to another element type, see [`Scalar::convert`].
    Convert(DType, Box<Expr>),
    /// The random bits (u32) of a site for the given seed, step and index of an element, see
    /// [`random_bits`].
    RandomBits(u64, Box<[Expr; 3]>),
    /// The first of these that reads something.
    FirstOf(Vec<Expr>),
}

/// How the values that reach one element of a result are combined.
#[derive(Clone, Debug, PartialEq)]
pub enum Combine {
    /// One value reaches each element.
    Assign,
    /// A monoid over the reduction dims, computed in the given element type.
    Reduce(Monoid, DType),
    /// A running combination along the sequential dim: each element gets the combination of all
    /// values up to and including its own, or before its own.
    Scan {
        /// How values combine.
        monoid: Monoid,
        /// Element type of the running value.
        dtype: DType,
        /// Whether the element's own value is left out.
        exclusive: bool,
    },
}

/// An associative combination with an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Monoid {
    /// Sum; identity 0.
    Sum,
    /// Product; identity 1.
    Prod,
    /// Maximum; identity is the least value.
    Max,
    /// Minimum; identity is the greatest value.
    Min,
    /// Pairs (value, index): the greatest value and its index; among equals the first index, or
    /// the last. The first NaN wins over every number.
    ArgMax {
        /// Whether the last of equals wins.
        last: bool,
    },
    /// Pairs (value, index): as [`Monoid::ArgMax`] for the least value.
    ArgMin {
        /// Whether the last of equals wins.
        last: bool,
    },
}

/// Least (`false`) or greatest (`true`) value of a type: the identities of maximum and minimum.
pub fn extreme(dtype: DType, greatest: bool) -> Scalar {
    match dtype.int_range() {
        Some((low, high)) => Scalar::Int(if greatest { high } else { low }),
        None if dtype == DType::Bool => Scalar::Bool(greatest),
        None => Scalar::from_f64(
            if greatest {
                f64::INFINITY
            } else {
                f64::NEG_INFINITY
            },
            dtype,
        ),
    }
}

impl Monoid {
    /// Number of scalars in one value.
    pub fn arity(self) -> usize {
        match self {
            Monoid::ArgMax { .. } | Monoid::ArgMin { .. } => 2,
            _ => 1,
        }
    }

    /// The value that changes nothing, and that is left where nothing is combined. For pairs of
    /// value and index that is the least (greatest) value at index 0; it is no operand of
    /// [`combine`](Self::combine), in which its index would win against an equal value.
    pub fn identity(self, dtype: DType) -> Vec<Scalar> {
        match self {
            Monoid::Sum => vec![Scalar::zero(dtype)],
            Monoid::Prod => vec![Scalar::one(dtype)],
            Monoid::Max => vec![extreme(dtype, false)],
            Monoid::Min => vec![extreme(dtype, true)],
            Monoid::ArgMax { .. } => vec![extreme(dtype, false), Scalar::Int(0)],
            Monoid::ArgMin { .. } => vec![extreme(dtype, true), Scalar::Int(0)],
        }
    }

    /// Combines two values of `dtype`, the left one first in order.
    pub fn combine(self, dtype: DType, left: &[Scalar], right: &[Scalar]) -> Vec<Scalar> {
        let one = |f: BinaryFn| vec![f.apply(left[0], right[0], dtype)];
        match self {
            Monoid::Sum => one(BinaryFn::Add),
            Monoid::Prod => one(BinaryFn::Mul),
            Monoid::Max if dtype == DType::Bool => one(BinaryFn::Or),
            Monoid::Min if dtype == DType::Bool => one(BinaryFn::And),
            Monoid::Max => one(BinaryFn::Max),
            Monoid::Min => one(BinaryFn::Min),
            Monoid::ArgMax { last } | Monoid::ArgMin { last } => {
                let better = if matches!(self, Monoid::ArgMax { .. }) {
                    BinaryFn::Gt
                } else {
                    BinaryFn::Lt
                };
                let is_nan = |s: Scalar| s.to_f64().is_nan();
                let take_right = !is_nan(left[0])
                    && (is_nan(right[0])
                        || better.apply(right[0], left[0], dtype).to_bool()
                        || (last && right[0] == left[0]));
                if take_right {
                    right.to_vec()
                } else {
                    left.to_vec()
                }
            }
        }
    }
}

/// A reshape as factors: groups of consecutive dims that hold the same elements on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The groups, in order; together they cover all dims of both sides.
    pub groups: Vec<ViewGroup>,
}

/// Consecutive dims of the operand and of the result of a [`View`] with equal numbers of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewGroup {
    /// Dims of the operand.
    pub input: std::ops::Range<usize>,
    /// Dims of the result.
    pub output: std::ops::Range<usize>,
    /// Extents, outermost first, such that every dim of both sides is a product of consecutive
    /// ones: the common refinement. `None` if there is none (`[6, 4]` to `[8, 3]`): such a group
    /// is a reshard.
    pub factors: Option<Vec<Dim>>,
}

/// The splittable dims of a computation that is not affine.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// What is computed.
    pub function: KernelFn,
    /// Dims along which parts are independent: computing each part of a split and putting the
    /// results side by side is computing the whole.
    pub dims: Vec<SplitDim>,
    /// Operands whose *values* decide what is read or written elsewhere.
    pub index_operands: Vec<usize>,
}

/// What a [`Kernel`] computes, for those that emit its instructions. Operands and dims are those of
/// the op; with a part of a split it computes that part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFn {
    /// Operands (x, indices): slices of x chosen along a dim. The dims of the indices replace it.
    Gather {
        /// The dim of x.
        axis: usize,
    },
    /// Operands (x, indices) of one rank: an element of x for each index, which stands for the
    /// position along a dim.
    GatherElements {
        /// The dim.
        axis: usize,
    },
    /// Operands (x, indices [m.., k]): a slice of x for each tuple of k indices. The first dims go
    /// along in both.
    GatherNd {
        /// How many dims go along.
        batch: usize,
    },
    /// Operands (x, indices, updates): x with single elements combined in, in row-major order, each
    /// at its index along a dim.
    ScatterElements {
        /// The dim.
        axis: usize,
        /// How an update is combined with what is there; `None` if it replaces it.
        combine: Option<BinaryFn>,
    },
    /// Operands (x, indices [m.., k], updates): x with a slice for each tuple combined in, in
    /// row-major order.
    ScatterNd {
        /// How an update is combined with what is there; `None` if it replaces it.
        combine: Option<BinaryFn>,
    },
    /// The greatest or least elements along a dim, in order, and their positions.
    TopK {
        /// The dim.
        axis: usize,
        /// The greatest, not the least.
        largest: bool,
    },
    /// The bits of each element as another type of the same size.
    BitCast,
    /// Operands (x, bias): the codes of a configurable format, rounded to nearest.
    Encode,
    /// Operands (codes, bias): the values of codes of a configurable format.
    Decode,
    /// Something else, which only the op's reference computes.
    Other,
}

/// One splittable dim of a [`Kernel`].
#[derive(Clone, Debug, PartialEq)]
pub struct SplitDim {
    /// Name for people and plans.
    pub name: String,
    /// For each operand the dim that is split along with it, `None` if the operand stays whole.
    pub operands: Vec<Option<usize>>,
    /// For each result the dim that is split.
    pub results: Vec<usize>,
}

impl Affine {
    /// The index of a loop.
    pub fn dim(dim: usize) -> Self {
        Self {
            terms: vec![(dim, 1)],
            offset: Poly::default(),
            div: 1,
        }
    }

    /// A constant index.
    pub fn constant(value: i64) -> Self {
        Self {
            terms: vec![],
            offset: Poly::constant(value),
            div: 1,
        }
    }

    /// `sum of coefficient * dim + offset`.
    pub fn new(terms: &[(usize, i64)], offset: i64) -> Self {
        Self {
            terms: terms.to_vec(),
            offset: Poly::constant(offset),
            div: 1,
        }
    }

    /// The same divided by `div`.
    pub fn divided(mut self, div: u64) -> Self {
        self.div = div;
        self
    }

    /// The index at a point; `None` where the division leaves a rest or the offset is symbolic.
    pub fn at(&self, point: &[u64]) -> Option<i64> {
        let mut sum = i128::from(self.offset.as_constant()?);
        for (dim, coefficient) in &self.terms {
            sum += i128::from(*coefficient) * i128::from(point[*dim]);
        }
        let div = i128::from(self.div);
        if sum.rem_euclid(div) != 0 {
            return None;
        }
        i64::try_from(sum / div).ok()
    }
}

/// Evaluates index maps at a point; `None` if one is not a whole number or out of range.
fn locate(index: &[Affine], point: &[u64], shape: &[u64]) -> Option<usize> {
    let mut position = vec![0; shape.len()];
    for ((affine, extent), slot) in index.iter().zip(shape).zip(&mut position) {
        let at = u64::try_from(affine.at(point)?).ok()?;
        if at >= *extent {
            return None;
        }
        *slot = at;
    }
    Some(ravel(&position, shape) as usize)
}

impl Expr {
    /// A function of one value.
    pub fn unary(f: UnaryFn, dtype: DType, x: Expr) -> Self {
        Expr::Unary(f, dtype, Box::new(x))
    }

    /// A function of two values.
    pub fn binary(f: BinaryFn, dtype: DType, a: Expr, b: Expr) -> Self {
        Expr::Binary(f, dtype, Box::new([a, b]))
    }

    fn eval(&self, reads: &[Option<Scalar>], point: &[u64]) -> Option<Scalar> {
        Some(match self {
            Expr::Operand(index) => reads[*index]?,
            Expr::Const(number, dtype) => number.to_scalar(*dtype),
            Expr::Index(dim, dtype) => Scalar::Int(point[*dim].into()).convert(*dtype),
            Expr::Unary(f, dtype, x) => f.apply(x.eval(reads, point)?, *dtype),
            Expr::Binary(f, dtype, args) => f.apply(
                args[0].eval(reads, point)?,
                args[1].eval(reads, point)?,
                *dtype,
            ),
            Expr::Select(args) => {
                let truth = args[0].eval(reads, point)?.to_bool();
                args[if truth { 1 } else { 2 }].eval(reads, point)?
            }
            Expr::Convert(dtype, x) => x.eval(reads, point)?.convert(*dtype),
            Expr::RandomBits(site, args) => {
                let [seed, step, index] = &**args;
                let word = |e: &Expr| Some(e.eval(reads, point)?.to_int() as u64);
                Scalar::Int(random_bits(word(seed)?, word(step)?, *site, word(index)?).into())
            }
            Expr::FirstOf(options) => options.iter().find_map(|e| e.eval(reads, point))?,
        })
    }
}

/// Executes a loop nest point by point: the meaning of an [`Access`].
///
/// # Errors
/// What is wrong with the rule or does not fit the operands. An element that no point reaches is
/// an error for [`Combine::Assign`] and the identity otherwise.
pub fn interpret(access: &Access, args: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let extents: Vec<u64> = access
        .dims
        .iter()
        .map(|d| {
            d.extent
                .as_const()
                .ok_or_else(|| format!("loop `{}` has no constant extent", d.name))
        })
        .collect::<Result<_, _>>()?;
    if access.operands.len() != args.len() {
        return Err(format!(
            "{} maps for {} operands",
            access.operands.len(),
            args.len()
        ));
    }
    let shapes: Vec<Vec<u64>> = access
        .results
        .iter()
        .map(|w| {
            w.shape
                .as_const()
                .ok_or_else(|| format!("result shape {} is symbolic", w.shape))
        })
        .collect::<Result<_, _>>()?;
    let mut cells: Vec<Vec<Option<Vec<Scalar>>>> = shapes
        .iter()
        .map(|s| vec![None; s.iter().product::<u64>() as usize])
        .collect();
    // The carried state of a scan, one per point of the other dims.
    let mut carried = std::collections::BTreeMap::<Vec<u64>, Vec<Scalar>>::new();
    for point in indices(&extents) {
        let mut reads = Vec::with_capacity(args.len());
        for (number, (read, arg)) in access.operands.iter().zip(args).enumerate() {
            let value = match (locate(&read.index, &point, arg.shape()), read.outside) {
                (Some(position), _) => Some(arg.get(position)),
                (None, Outside::Fill(fill)) => Some(fill.to_scalar(arg.dtype())),
                (None, Outside::Nothing) => None,
                (None, Outside::Never) => {
                    return Err(format!("operand {number} is read outside at {point:?}"));
                }
            };
            reads.push(value);
        }
        let Some(values) = access
            .body
            .iter()
            .map(|e| e.eval(&reads, &point))
            .collect::<Option<Vec<Scalar>>>()
        else {
            continue;
        };
        let written = match &access.combine {
            Combine::Assign | Combine::Reduce(..) => values,
            Combine::Scan {
                monoid,
                dtype,
                exclusive,
            } => {
                let key: Vec<u64> = access
                    .dims
                    .iter()
                    .zip(&point)
                    .filter(|(d, _)| d.kind != DimKind::Sequential)
                    .map(|(_, p)| *p)
                    .collect();
                let before = carried
                    .get(&key)
                    .cloned()
                    .unwrap_or_else(|| monoid.identity(*dtype));
                let after = monoid.combine(*dtype, &before, &values);
                carried.insert(key, after.clone());
                if *exclusive { before } else { after }
            }
        };
        for ((write, shape), cells) in access.results.iter().zip(&shapes).zip(&mut cells) {
            let Some(position) = locate(&write.index, &point, shape) else {
                continue;
            };
            let cell = &mut cells[position];
            *cell = Some(match (&access.combine, cell.take()) {
                // The identity of pairs has an index, which must not win against an equal value.
                (Combine::Reduce(monoid, _), None) if monoid.arity() == 2 => written.clone(),
                (Combine::Reduce(monoid, dtype), old) => {
                    let old = old.unwrap_or_else(|| monoid.identity(*dtype));
                    monoid.combine(*dtype, &old, &written)
                }
                (_, None) => written.clone(),
                (_, Some(_)) => return Err(format!("two points write the element {position}")),
            });
        }
    }
    let empty = match &access.combine {
        Combine::Reduce(monoid, dtype) => Some(monoid.identity(*dtype)),
        _ => None,
    };
    access
        .results
        .iter()
        .zip(&shapes)
        .zip(cells)
        .map(|((write, shape), cells)| {
            let values = cells
                .into_iter()
                .map(|cell| {
                    let values = cell
                        .or_else(|| empty.clone())
                        .ok_or("an element is not written")?;
                    Ok(values[write.component].convert(write.dtype))
                })
                .collect::<Result<Vec<Scalar>, String>>()?;
            Ok(Tensor::from_scalars(write.dtype, shape, values))
        })
        .collect()
}

impl LoopDim {
    /// A loop of independent iterations.
    pub fn parallel(name: impl Into<String>, extent: Dim) -> Self {
        Self {
            name: name.into(),
            extent,
            kind: DimKind::Parallel,
        }
    }

    /// A loop that is reduced.
    pub fn reduction(name: impl Into<String>, extent: Dim) -> Self {
        Self {
            name: name.into(),
            extent,
            kind: DimKind::Reduction,
        }
    }

    /// A loop with a carried state.
    pub fn sequential(name: impl Into<String>, extent: Dim) -> Self {
        Self {
            name: name.into(),
            extent,
            kind: DimKind::Sequential,
        }
    }
}

impl Read {
    /// A read that is always in range.
    pub fn inside(index: Vec<Affine>) -> Self {
        Self {
            index,
            outside: Outside::Never,
        }
    }

    /// The read of an operand that broadcasts against loops `0..rank` of the result: aligned at the
    /// last dim, extents of 1 stay at index 0.
    pub fn broadcast(operand: &Shape, rank: usize) -> Self {
        let skip = rank - operand.rank();
        Self::inside(
            operand
                .dims()
                .iter()
                .enumerate()
                .map(|(axis, d)| {
                    if d.is(1) {
                        Affine::constant(0)
                    } else {
                        Affine::dim(axis + skip)
                    }
                })
                .collect(),
        )
    }
}

impl Write {
    /// The write of a result whose dims are the loops, one by one.
    pub fn identity(ty: &crate::types::Type) -> Self {
        Self {
            component: 0,
            dtype: ty.dtype,
            shape: ty.shape.clone(),
            index: (0..ty.rank()).map(Affine::dim).collect(),
        }
    }
}
