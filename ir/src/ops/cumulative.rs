//! Running sums, products, maxima and minima.

use super::dot::accumulator;
use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, TypeError};
use super::{ReduceKind, arity, check_axis};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Read, Tiling, Write};
use crate::dim::Poly;
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, indices, ravel};
use crate::types::{DType, Type};

op_struct! {
    /// Combines along a dim all elements up to each: `out[i] = sum over j <= i of x[j]`, as in
    /// `cumulative {kind = "sum", axis = 0, exclusive = false, reverse = false} %x`.
    ///
    /// The elements are combined one after the other, beginning with the identity of the kind.
    /// 16-bit floats are accumulated in f32 and each result is rounded; integers wrap. For bool,
    /// max is "any" and min is "all".
    Cumulative {
        /// How elements are combined; identities as for `reduce`.
        kind: ReduceKind,
        /// The dim along which they are.
        axis: usize,
        /// Whether each result leaves out its own element, so that the first is the identity.
        exclusive: bool,
        /// Whether it goes from the last element to the first.
        reverse: bool,
    }
}

/// The kinds of [`Cumulative`]: those of [`Reduce`](super::Reduce).
pub type CumulativeKind = ReduceKind;

impl OpDef for Cumulative {
    const NAMES: &'static [&'static str] = &["cumulative"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        self.kind.check(x.dtype)?;
        check_axis(self.axis, x)?;
        if x.shape[self.axis].to_poly().is_none() {
            type_error!("axis {} of {x} is longer than 63 bits count", self.axis);
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let dtype = accumulator(x.dtype());
        let f = self.kind.function(dtype);
        let extent = x.shape()[self.axis];
        let mut lines = x.shape().to_vec();
        lines[self.axis] = 1;
        let mut results = vec![Scalar::zero(dtype); x.len()];
        // A dim of extent 0 leaves no element anywhere, though the lines are counted.
        for mut index in indices(&lines) {
            let mut running = self.kind.identity(dtype);
            for step in 0..extent {
                index[self.axis] = if self.reverse {
                    extent - 1 - step
                } else {
                    step
                };
                let position = ravel(&index, x.shape()) as usize;
                let next = f.apply(running, x.get(position).convert(dtype), dtype);
                results[position] = if self.exclusive { running } else { next };
                running = next;
            }
        }
        let results = results.into_iter().map(|value| value.convert(x.dtype()));
        Ok(vec![Tensor::from_scalars(x.dtype(), x.shape(), results)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let x = &args[0];
        let acc = accumulator(x.dtype);
        let mut index: Vec<Affine> = (0..x.rank()).map(Affine::dim).collect();
        if self.reverse {
            let last = x.shape[self.axis].to_poly().unwrap_or_default();
            let last = last.sub(&Poly::constant(1)).unwrap_or_default();
            index[self.axis] = Affine {
                terms: vec![(self.axis, -1)],
                offset: last,
                div: 1,
            };
        }
        let dims = x.dims().iter().enumerate().map(|(axis, extent)| {
            let name = format!("d{axis}");
            if axis == self.axis {
                LoopDim::sequential(name, extent.clone())
            } else {
                LoopDim::parallel(name, extent.clone())
            }
        });
        Tiling::Loop(Access {
            dims: dims.collect(),
            operands: vec![Read::inside(index.clone())],
            body: vec![Expr::Convert(acc, Box::new(Expr::Operand(0)))],
            combine: Combine::Scan {
                monoid: self.kind.monoid(),
                dtype: acc,
                exclusive: self.exclusive,
            },
            results: vec![Write {
                index,
                ..Write::identity(x)
            }],
        })
    }

    /// Of a sum only: element j reaches the results i >= j, so its gradient is the sum of theirs.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        if !cx.b.ty(cx.args[0]).dtype.is_float() {
            return Ok(vec![None]);
        }
        if self.kind != ReduceKind::Sum {
            return Err(NoGrad::NoRule);
        }
        let back = Cumulative {
            reverse: !self.reverse,
            ..self.clone()
        };
        Ok(vec![Some(cx.b.op(back, &[cx.cotangents[0]])?)])
    }

    fn tolerance(&self) -> Tolerance {
        match self.kind {
            ReduceKind::Sum | ReduceKind::Prod => Tolerance::Roundings(4.0),
            ReduceKind::Max | ReduceKind::Min => Tolerance::Exact,
        }
    }

    fn samples() -> Vec<Sample> {
        let mut samples = vec![];
        for kind in [
            ReduceKind::Sum,
            ReduceKind::Prod,
            ReduceKind::Max,
            ReduceKind::Min,
        ] {
            let run = |dtype, shape: &[u64], axis, exclusive, reverse| {
                let op = Cumulative {
                    kind,
                    axis,
                    exclusive,
                    reverse,
                };
                Sample::new(op, &[Type::of(dtype, shape)])
            };
            for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)]
            {
                samples.push(run(DType::F32, &[2, 4, 3], 1, exclusive, reverse));
                samples.push(run(DType::I8, &[5], 0, exclusive, reverse));
            }
            for dtype in [DType::F64, DType::Bf16, DType::F16, DType::U32] {
                samples.push(run(dtype, &[3, 4], 1, false, false));
            }
            let nan = Tensor::from_vec(&[4], vec![1.0, f32::NAN, f32::INFINITY, 2.0]);
            samples.extend([
                run(DType::F32, &[2, 1], 1, true, false),
                run(DType::F32, &[2, 0], 1, false, true),
                run(DType::F32, &[0, 3], 1, false, false),
                run(DType::F32, &[4], 0, false, false)
                    .given(0, nan)
                    .no_grad(),
            ]);
            if matches!(kind, ReduceKind::Max | ReduceKind::Min) {
                samples.push(run(DType::Bool, &[6], 0, false, false));
            }
        }
        samples
    }
}
