//! Reductions over dims: sum, product, maximum, minimum and the position of an extreme.

use super::dot::accumulator;
use super::{Broadcast, Convert, Cumulative, Reshape, Select};
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError};
use super::{arity, check_axes, check_axis, strided_positions};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Monoid, Read, Tiling, Write};
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::scalar::{BinaryFn, Scalar};
use crate::tensor::{Tensor, indices, ravel, strides};
use crate::types::{Class, DType, Shape, Type};
use crate::{attr_enum, op_struct};

attr_enum! {
    /// How the elements of a reduction are combined.
    ReduceKind {
        /// Their sum; 0 of nothing.
        Sum "sum",
        /// Their product; 1 of nothing.
        Prod "prod",
        /// The largest, NaN if any is; of nothing the least value (false for bool).
        Max "max",
        /// The smallest, NaN if any is; of nothing the greatest value (true for bool).
        Min "min",
    }
}

attr_enum! {
    /// Which element an arg-reduction looks for.
    ArgKind {
        /// The largest.
        Max "max",
        /// The smallest.
        Min "min",
    }
}

op_struct! {
    /// Combines the elements along some dims: `reduce {kind = "sum", axes = [1], keep = false} %x`,
    /// `out[m] = sum over k of x[m, k]`.
    ///
    /// The elements are combined in row-major order, beginning with the identity. 16-bit floats are
    /// accumulated in f32 and rounded at the end; integers wrap. For bool, max is "any" and min is
    /// "all"; there is no sum or product.
    Reduce {
        /// How elements are combined.
        kind: ReduceKind,
        /// The dims that are reduced; with none, the elements stay as they are.
        axes: Vec<usize>,
        /// Whether reduced dims stay in the result with extent 1.
        keep: bool,
    }
}

op_struct! {
    /// The position along a dim of its largest or smallest element, as i64:
    /// `arg_reduce {kind = "max", axis = 1, keep = false, last = false} %x : i64[4]`.
    ///
    /// Among equals the first or the last counts. The first NaN counts as larger and as smaller
    /// than everything. Along an empty dim there is no position.
    ArgReduce {
        /// Which element is looked for.
        kind: ArgKind,
        /// The dim that is searched.
        axis: usize,
        /// Whether that dim stays in the result with extent 1.
        keep: bool,
        /// Whether the last of equals counts.
        last: bool,
    }
}

impl ReduceKind {
    /// The combination in tiling rules.
    pub fn monoid(self) -> Monoid {
        match self {
            ReduceKind::Sum => Monoid::Sum,
            ReduceKind::Prod => Monoid::Prod,
            ReduceKind::Max => Monoid::Max,
            ReduceKind::Min => Monoid::Min,
        }
    }

    /// The function that combines two elements of `dtype`.
    pub fn function(self, dtype: DType) -> BinaryFn {
        match self {
            ReduceKind::Sum => BinaryFn::Add,
            ReduceKind::Prod => BinaryFn::Mul,
            ReduceKind::Max if dtype == DType::Bool => BinaryFn::Or,
            ReduceKind::Min if dtype == DType::Bool => BinaryFn::And,
            ReduceKind::Max => BinaryFn::Max,
            ReduceKind::Min => BinaryFn::Min,
        }
    }

    /// What combines to itself with everything.
    pub fn identity(self, dtype: DType) -> Scalar {
        self.monoid().identity(dtype)[0]
    }

    /// Checks that elements of `dtype` can be combined.
    pub(crate) fn check(self, dtype: DType) -> Result<(), TypeError> {
        let extreme = matches!(self, ReduceKind::Max | ReduceKind::Min);
        match dtype.class() {
            Class::Int { .. } | Class::Float => Ok(()),
            Class::Bool if extreme => Ok(()),
            _ if extreme => type_error!("expected bool, integers or floats, found {dtype}"),
            _ => type_error!("expected integers or floats, found {dtype}"),
        }
    }
}

/// The shape that is left when `axes` are reduced.
pub(crate) fn reduced_shape(shape: &Shape, axes: &[usize], keep: bool) -> Shape {
    let dims = shape.dims().iter().enumerate().filter_map(|(axis, d)| {
        match (axes.contains(&axis), keep) {
            (false, _) => Some(d.clone()),
            (true, true) => Some(Dim::Const(1)),
            (true, false) => None,
        }
    });
    Shape::new(dims)
}

/// The loops of a reduction (kept dims first, then reduced ones in order), the read of the operand
/// and the index of the result.
fn loops(x: &Type, axes: &[usize], keep: bool) -> (Vec<LoopDim>, Read, Vec<Affine>) {
    let (mut dims, mut write) = (vec![], vec![]);
    let mut read = vec![Affine::constant(0); x.rank()];
    for (axis, extent) in x.dims().iter().enumerate() {
        if !axes.contains(&axis) {
            read[axis] = Affine::dim(dims.len());
            write.push(Affine::dim(dims.len()));
            dims.push(LoopDim::parallel(format!("d{axis}"), extent.clone()));
        } else if keep {
            write.push(Affine::constant(0));
        }
    }
    for (axis, extent) in x
        .dims()
        .iter()
        .enumerate()
        .filter(|(axis, _)| axes.contains(axis))
    {
        read[axis] = Affine::dim(dims.len());
        dims.push(LoopDim::reduction(format!("r{axis}"), extent.clone()));
    }
    (dims, Read::inside(read), write)
}

impl Reduce {
    fn result(&self, x: &Type) -> Type {
        Type::new(x.dtype, reduced_shape(&x.shape, &self.axes, self.keep))
    }

    /// A value of the result's shape with the reduced dims of `x` in place, with extent 1.
    fn kept(
        &self,
        b: &mut FunctionBuilder,
        value: ValueId,
        x: &Type,
    ) -> Result<ValueId, TypeError> {
        if self.keep || self.axes.is_empty() {
            return Ok(value);
        }
        let shape = reduced_shape(&x.shape, &self.axes, true).dims().to_vec();
        b.op(Reshape { shape }, &[value])
    }

    /// The gradient of a product, dim by dim: times what comes before each element and what comes
    /// after it. Dividing the product by the element would fail at zero.
    fn product_grad(
        &self,
        b: &mut FunctionBuilder,
        x: ValueId,
        g: ValueId,
    ) -> Result<ValueId, TypeError> {
        let mut partial = vec![x];
        for axis in &self.axes {
            let step = Reduce {
                kind: ReduceKind::Prod,
                axes: vec![*axis],
                keep: true,
            };
            partial.push(b.op(step, &[partial[partial.len() - 1]])?);
        }
        let mut grad = g;
        for (axis, factors) in self.axes.iter().zip(&partial).rev() {
            for reverse in [false, true] {
                let kind = ReduceKind::Prod;
                let others = Cumulative {
                    kind,
                    axis: *axis,
                    exclusive: true,
                    reverse,
                };
                let others = b.op(others, &[*factors])?;
                grad = b.op(BinaryFn::Mul, &[others, grad])?;
            }
        }
        Ok(grad)
    }
}

impl OpDef for Reduce {
    const NAMES: &'static [&'static str] = &["reduce"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        self.kind.check(x.dtype)?;
        check_axes(&self.axes, x)?;
        Ok(vec![self.result(x)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let dtype = accumulator(x.dtype());
        let f = self.kind.function(dtype);
        let kept = reduced_shape(&x.ty().shape, &self.axes, true)
            .as_const()
            .unwrap_or_default();
        let mut steps = strides(&kept);
        self.axes.iter().for_each(|axis| steps[*axis] = 0);
        let mut results = vec![self.kind.identity(dtype); kept.iter().product::<u64>() as usize];
        for (position, value) in strided_positions(x.shape(), &steps)
            .into_iter()
            .zip(x.scalars())
        {
            let slot = &mut results[position];
            *slot = f.apply(*slot, value.convert(dtype), dtype);
        }
        let shape = self.result(&x.ty()).shape.as_const().unwrap_or_default();
        let results = results.into_iter().map(|value| value.convert(x.dtype()));
        Ok(vec![Tensor::from_scalars(x.dtype(), &shape, results)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let x = &args[0];
        let acc = accumulator(x.dtype);
        let (dims, read, index) = loops(x, &self.axes, self.keep);
        Tiling::Loop(Access {
            dims,
            operands: vec![read],
            body: vec![Expr::Convert(acc, Box::new(Expr::Operand(0)))],
            combine: Combine::Reduce(self.kind.monoid(), acc),
            results: vec![Write {
                index,
                ..Write::identity(&self.result(x))
            }],
        })
    }

    /// Of a sum: the gradient of the result for every element. Of a product: times the product of
    /// the other elements, which is right even where some are zero. Of a maximum or minimum: ties
    /// share it equally; if it is NaN, no element has an influence.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let x = cx.args[0];
        let ty = cx.b.ty(x).clone();
        if !ty.dtype.is_float() {
            return Ok(vec![None]);
        }
        let g = self.kept(cx.b, cx.cotangents[0], &ty)?;
        Ok(vec![Some(match self.kind {
            ReduceKind::Sum => cx.b.op(
                Broadcast {
                    shape: ty.dims().to_vec(),
                },
                &[g],
            )?,
            ReduceKind::Prod => self.product_grad(cx.b, x, g)?,
            ReduceKind::Max | ReduceKind::Min => {
                let extreme = self.kept(cx.b, cx.results[0], &ty)?;
                let hit = cx.b.op(BinaryFn::Eq, &[x, extreme])?;
                let one = cx.b.op(
                    Convert {
                        to: ty.dtype,
                        saturate: false,
                    },
                    &[hit],
                )?;
                let axes = self.axes.clone();
                let sum = Reduce {
                    kind: ReduceKind::Sum,
                    axes,
                    keep: true,
                };
                let count = cx.b.op(sum, &[one])?;
                let share = cx.b.op(BinaryFn::Div, &[g, count])?;
                let zero = cx.b.scalar(ty.dtype, 0.0);
                cx.b.op(Select {}, &[hit, share, zero])?
            }
        })])
    }

    fn tolerance(&self) -> Tolerance {
        match self.kind {
            ReduceKind::Sum | ReduceKind::Prod => Tolerance::Roundings(4.0),
            ReduceKind::Max | ReduceKind::Min => Tolerance::Exact,
        }
    }

    fn samples() -> Vec<Sample> {
        let reduce = |kind, dtype, shape: &[u64], axes: &[usize], keep| {
            let op = Reduce {
                kind,
                axes: axes.to_vec(),
                keep,
            };
            let sample = Sample::new(op, &[Type::of(dtype, shape)]);
            match kind {
                ReduceKind::Max | ReduceKind::Min if dtype.is_float() => sample.distinct(0),
                _ => sample,
            }
        };
        let mut samples = vec![];
        for kind in [
            ReduceKind::Sum,
            ReduceKind::Prod,
            ReduceKind::Max,
            ReduceKind::Min,
        ] {
            for dtype in [
                DType::F32,
                DType::F64,
                DType::Bf16,
                DType::F16,
                DType::I8,
                DType::U64,
            ] {
                samples.push(reduce(kind, dtype, &[2, 3, 4], &[1], false));
            }
            for (shape, axes, keep) in [
                (&[2, 3, 4][..], &[2, 0][..], true),
                (&[2, 3, 4], &[0, 1, 2], false),
                (&[2, 1, 3], &[1], false),
                (&[2, 3], &[], false),
                (&[], &[], true),
                (&[0, 3], &[0], false),
                (&[0, 3], &[1], true),
            ] {
                samples.push(reduce(kind, DType::F32, shape, axes, keep));
            }
            let nan = Tensor::from_vec(&[2, 2], vec![1.0, f32::NAN, f32::NEG_INFINITY, 3.0]);
            let sample = reduce(kind, DType::F32, &[2, 2], &[1], false);
            samples.push(sample.given(0, nan).no_grad());
        }
        for kind in [ReduceKind::Max, ReduceKind::Min] {
            samples.push(reduce(kind, DType::Bool, &[4, 2], &[1], false));
            samples.push(reduce(kind, DType::Bool, &[2, 0], &[1], false));
        }
        // A zero makes the product's gradient vanish everywhere but at the zero.
        let zeros = Tensor::from_vec(&[2, 3], vec![0.0f32, 2.0, 3.0, 0.0, 0.0, 1.0]);
        samples.push(reduce(ReduceKind::Prod, DType::F32, &[2, 3], &[1], false).given(0, zeros));
        samples
    }
}

impl ArgReduce {
    fn result(&self, x: &Type) -> Type {
        Type::new(DType::I64, reduced_shape(&x.shape, &[self.axis], self.keep))
    }
}

impl OpDef for ArgReduce {
    const NAMES: &'static [&'static str] = &["arg_reduce"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        if !(x.dtype.is_int() || x.dtype.is_float()) {
            type_error!("expected integers or floats, found {}", x.dtype);
        }
        check_axis(self.axis, x)?;
        if x.shape[self.axis].is(0) {
            type_error!(
                "axis {} of {x} is empty: there is no element to point at",
                self.axis
            );
        }
        Ok(vec![self.result(x)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let mut kept = x.shape().to_vec();
        kept[self.axis] = 1;
        let better = match self.kind {
            ArgKind::Max => BinaryFn::Gt,
            ArgKind::Min => BinaryFn::Lt,
        };
        let positions = indices(&kept).map(|mut index| {
            let mut best: Option<(Scalar, u64)> = None;
            for position in 0..x.shape()[self.axis] {
                index[self.axis] = position;
                let value = x.get(ravel(&index, x.shape()) as usize);
                let replaces = best.is_none_or(|(best, _)| {
                    !is_nan(best)
                        && (is_nan(value)
                            || better.apply(value, best, x.dtype()).to_bool()
                            || (self.last && value == best))
                });
                if replaces {
                    best = Some((value, position));
                }
            }
            Scalar::Int(best.map_or(0, |(_, position)| position.into()))
        });
        let shape = self.result(&x.ty()).shape.as_const().unwrap_or_default();
        Ok(vec![Tensor::from_scalars(DType::I64, &shape, positions)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let x = &args[0];
        let last = self.last;
        let monoid = match self.kind {
            ArgKind::Max => Monoid::ArgMax { last },
            ArgKind::Min => Monoid::ArgMin { last },
        };
        let (dims, read, index) = loops(x, &[self.axis], self.keep);
        let position = Expr::Index(dims.len() - 1, DType::I64);
        Tiling::Loop(Access {
            dims,
            operands: vec![read],
            body: vec![Expr::Operand(0), position],
            combine: Combine::Reduce(monoid, x.dtype),
            results: vec![Write {
                index,
                component: 1,
                ..Write::identity(&self.result(x))
            }],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        Ok(vec![None; cx.args.len()])
    }

    fn samples() -> Vec<Sample> {
        let mut samples = vec![];
        for (kind, last) in [ArgKind::Max, ArgKind::Min]
            .into_iter()
            .flat_map(|k| [(k, false), (k, true)])
        {
            let arg = |dtype, shape: &[u64], axis, keep| {
                Sample::new(
                    ArgReduce {
                        kind,
                        axis,
                        keep,
                        last,
                    },
                    &[Type::of(dtype, shape)],
                )
            };
            let inf = f32::INFINITY;
            let ties = vec![2., 1., 2., 1., -inf, -inf, -inf, -inf, inf, 0., inf, inf];
            let nans = vec![1., f32::NAN, 5., f32::NAN, -inf, f32::NAN, f32::NAN, 0.];
            samples.extend([
                arg(DType::F32, &[2, 3, 4], 1, false),
                arg(DType::Bf16, &[2, 5], 1, true),
                arg(DType::F16, &[3, 2], 0, false),
                arg(DType::F64, &[4], 0, false),
                arg(DType::I8, &[3, 7], 1, false),
                arg(DType::U64, &[6, 2], 0, true).range(0, 0.0, 2.0),
                arg(DType::F32, &[3, 1], 1, false),
                arg(DType::F32, &[0, 3], 1, false),
                arg(DType::F32, &[3, 4], 1, false).given(0, Tensor::from_vec(&[3, 4], ties)),
                arg(DType::F32, &[2, 4], 1, true).given(0, Tensor::from_vec(&[2, 4], nans)),
            ]);
        }
        samples
    }
}

fn is_nan(value: Scalar) -> bool {
    value.to_f64().is_nan()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn run(op: impl Into<Op>, x: &Tensor) -> Vec<f64> {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
        let results = op
            .into()
            .eval(std::slice::from_ref(x), &mut EvalCx::new(&mut none));
        results.unwrap()[0].to_f64s()
    }

    fn reduce(kind: ReduceKind, axes: &[usize]) -> Reduce {
        Reduce {
            kind,
            axes: axes.to_vec(),
            keep: false,
        }
    }

    #[test]
    fn every_kind_combines_the_right_elements() {
        let x = Tensor::from_vec(&[2, 3], vec![1f32, 2., 3., 4., 5., -6.]);
        assert_eq!(run(reduce(ReduceKind::Sum, &[0]), &x), [5., 7., -3.]);
        assert_eq!(run(reduce(ReduceKind::Prod, &[1]), &x), [6., -120.]);
        assert_eq!(run(reduce(ReduceKind::Max, &[1]), &x), [3., 5.]);
        assert_eq!(run(reduce(ReduceKind::Min, &[1, 0]), &x), [-6.]);
    }

    #[test]
    fn nothing_gives_the_identity_and_nan_wins() {
        let empty = Tensor::from_vec::<i8>(&[0], vec![]);
        let kinds = [
            ReduceKind::Sum,
            ReduceKind::Prod,
            ReduceKind::Max,
            ReduceKind::Min,
        ];
        let identities = kinds.map(|kind| run(reduce(kind, &[0]), &empty)[0]);
        assert_eq!(identities, [0., 1., -128., 127.]);
        let nan = Tensor::from_vec(&[3], vec![1f32, f32::NAN, f32::INFINITY]);
        for kind in kinds {
            assert!(run(reduce(kind, &[0]), &nan)[0].is_nan());
        }
    }

    #[test]
    fn narrow_floats_are_summed_in_f32() {
        let x = Tensor::splat(DType::Bf16, &[1000], Scalar::F32(1.0));
        assert_eq!(run(reduce(ReduceKind::Sum, &[0]), &x), [1000.0]);
    }

    #[test]
    fn positions_of_equals_and_of_nan() {
        let arg = |kind, last| ArgReduce {
            kind,
            axis: 0,
            keep: false,
            last,
        };
        let x = Tensor::from_vec(&[5], vec![1f32, 3., 0., 3., 0.]);
        assert_eq!(run(arg(ArgKind::Max, false), &x), [1.]);
        assert_eq!(run(arg(ArgKind::Max, true), &x), [3.]);
        assert_eq!(run(arg(ArgKind::Min, false), &x), [2.]);
        assert_eq!(run(arg(ArgKind::Min, true), &x), [4.]);
        let x = Tensor::from_vec(&[4], vec![1f32, f32::NAN, 3., f32::NAN]);
        for (kind, last) in [(ArgKind::Max, false), (ArgKind::Min, true)] {
            assert_eq!(run(arg(kind, last), &x), [1.]);
        }
    }

    #[test]
    fn operands_that_make_no_sense_are_refused() {
        let refused = |op: Op, ty: Type| op.infer(&[ty], &[]).unwrap_err().0;
        let sum = |axes: &[usize]| Op::from(reduce(ReduceKind::Sum, axes));
        let f = |shape: &[u64]| Type::of(DType::F32, shape);
        assert!(refused(sum(&[2]), f(&[2, 3])).contains("out of range"));
        assert!(refused(sum(&[1, 1]), f(&[2, 3])).contains("twice"));
        assert!(refused(sum(&[0]), Type::of(DType::Bool, &[2])).contains("found bool"));
        let arg = ArgReduce {
            kind: ArgKind::Max,
            axis: 0,
            keep: true,
            last: false,
        };
        assert!(refused(arg.into(), f(&[0, 3])).contains("empty"));
    }
}
