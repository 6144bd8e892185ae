//! Elements around and between elements.

use super::{
    EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Reduce, ReduceKind, Sample, Select, Slice,
    TypeError, arity,
};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Outside, Read, Tiling, Write};
use crate::dim::{Dim, Poly};
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::{Element, Tensor};
use crate::types::{DType, Shape, Type};
use crate::with_element;

op_struct! {
    /// Puts copies of a scalar around and between the elements: per dim, `low` before the first,
    /// `interior` between any two neighbours, `high` after the last. Negative `low` and `high`
    /// remove what is there, after `interior` has been put in.
    ///
    /// Operands (x, value); `out[low + i * (interior + 1)] = x[i]`. The extent of a dim is
    /// `low + d + (d - 1) * interior + high` (without the middle terms for d = 0) and must not be
    /// negative; for a symbolic extent that is checked when the symbols have values.
    Pad {
        /// Elements before the first, per dim.
        low: Vec<i64>,
        /// Elements after the last, per dim.
        high: Vec<i64>,
        /// Elements between neighbours, per dim.
        interior: Vec<u64>,
    }
}

impl Pad {
    /// Padding around, with nothing between elements.
    pub fn around(pads: &[(i64, i64)]) -> Self {
        Self {
            low: pads.iter().map(|p| p.0).collect(),
            high: pads.iter().map(|p| p.1).collect(),
            interior: vec![0; pads.len()],
        }
    }

    fn extent(&self, axis: usize, extent: &Dim) -> Option<Dim> {
        let extent = extent.to_poly()?;
        let gaps = extent
            .sub(&Poly::constant(1))?
            .larger(&Poly::constant(0))
            .mul(&Poly::constant(i64::try_from(self.interior[axis]).ok()?))?;
        let around = self.low[axis].checked_add(self.high[axis])?;
        let padded = extent.add(&gaps)?.add(&Poly::constant(around))?;
        if padded.bounds().1 < 0 {
            return None;
        }
        Dim::from_poly(padded)
    }

    fn result(&self, x: &Type) -> Result<Type, TypeError> {
        let mut dims = vec![];
        for (axis, extent) in x.dims().iter().enumerate() {
            match self.extent(axis, extent) {
                Some(dim) => dims.push(dim),
                None => type_error!("dim {axis} of {x} padded is negative or beyond 64 bits"),
            }
        }
        Ok(Type::new(x.dtype, Shape::new(dims)))
    }
}

impl OpDef for Pad {
    const NAMES: &'static [&'static str] = &["pad"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, value] = arity(args)?;
        let counts = [self.low.len(), self.high.len(), self.interior.len()];
        if counts != [x.rank(); 3] {
            type_error!("low, high and interior have {counts:?} entries for {x}");
        }
        if *value != Type::scalar(x.dtype) {
            type_error!("expected a scalar {}, found {value}", x.dtype);
        }
        if self.interior.iter().any(|k| *k >= i64::MAX as u64) {
            type_error!("the interior padding does not fit 63 bits");
        }
        Ok(vec![self.result(x)?])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, fill) = (&args[0], args[1].get(0));
        let result = self.result(&x.ty()).map_err(|e| EvalError::value(e.0))?;
        let shape = result.shape.as_const().unwrap_or_default();
        // For every dim and index of the result the index of x, if there is one.
        let source: Vec<Vec<Option<u64>>> = shape
            .iter()
            .enumerate()
            .map(|(axis, extent)| {
                let distance = i128::from(self.interior[axis]) + 1;
                let at = |i: u64| {
                    let from = i128::from(i) - i128::from(self.low[axis]);
                    let index = u64::try_from(from / distance).ok()?;
                    (from >= 0 && from % distance == 0 && index < x.shape()[axis]).then_some(index)
                };
                (0..*extent).map(at).collect()
            })
            .collect();
        Ok(vec![with_element!(x.dtype(), T => {
            let mut data: Vec<T> = Vec::with_capacity(shape.iter().product::<u64>() as usize);
            if !shape.contains(&0) {
                let fill = <T as Element>::store(fill);
                lay_out(&x.stored::<T>(), x.shape(), &source, fill, &mut data);
            }
            Tensor::from_stored(x.dtype(), &shape, data)
        })])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        // The shape rule has accepted the operands, so the fallback is never used.
        let result = self.result(&args[0]).unwrap_or_else(|_| args[0].clone());
        let dims = result.dims().iter().enumerate();
        let index = (0..result.rank()).map(|axis| {
            Affine {
                offset: Poly::default()
                    .sub(&Poly::constant(self.low[axis]))
                    .unwrap_or_default(),
                ..Affine::dim(axis)
            }
            .divided(self.interior[axis] + 1)
        });
        let x = Read {
            index: index.collect(),
            outside: Outside::Nothing,
        };
        Tiling::Loop(Access {
            dims: dims
                .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()))
                .collect(),
            operands: vec![x, Read::inside(vec![])],
            body: vec![Expr::FirstOf(vec![Expr::Operand(0), Expr::Operand(1)])],
            combine: Combine::Assign,
            results: vec![Write::identity(&result)],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (x, grad) = (cx.b.ty(cx.args[0]).clone(), cx.cotangents[0]);
        let rank = x.rank();
        // Padding by the opposite puts back zeros for what was removed; then every element of x is
        // at a multiple of the distance.
        let opposite = |pads: &[i64]| -> Option<Vec<i64>> {
            pads.iter().map(|pad| pad.checked_neg()).collect()
        };
        let (Some(low), Some(high)) = (opposite(&self.low), opposite(&self.high)) else {
            return Err(TypeError::new("the padding does not fit 64 bits").into());
        };
        let back = Pad {
            low,
            high,
            interior: vec![0; rank],
        };
        let zero = cx.b.scalar(x.dtype, 0.0);
        let spread = cx.b.op(back, &[grad, zero])?;
        let slice = Slice {
            start: vec![Dim::Const(0); rank],
            size: x.dims().to_vec(),
            step: self.interior.iter().map(|k| *k as i64 + 1).collect(),
        };
        let of_x = cx.b.op(slice, &[spread])?;
        let inside = cx.b.full(DType::Bool, &x.shape, Scalar::Bool(false));
        let outside = cx.b.full(DType::Bool, &Shape::scalar(), Scalar::Bool(true));
        let padded = cx.b.op(self.clone(), &[inside, outside])?;
        let kept = cx.b.op(Select {}, &[padded, grad, zero])?;
        let sum = Reduce {
            kind: ReduceKind::Sum,
            axes: (0..rank).collect(),
            keep: false,
        };
        Ok(vec![Some(of_x), Some(cx.b.op(sum, &[kept])?)])
    }

    fn samples() -> Vec<Sample> {
        let sample = |dtype, shape: &[u64], pads: &[(i64, i64, u64)]| {
            let pad = Pad {
                low: pads.iter().map(|p| p.0).collect(),
                high: pads.iter().map(|p| p.1).collect(),
                interior: pads.iter().map(|p| p.2).collect(),
            };
            Sample::new(pad, &[Type::of(dtype, shape), Type::scalar(dtype)])
        };
        vec![
            sample(DType::F32, &[2, 3], &[(1, 2, 0), (0, 1, 0)]),
            sample(DType::F32, &[3, 2], &[(1, 0, 2), (0, 0, 1)]),
            sample(DType::F32, &[5, 4], &[(-1, 2, 0), (1, -3, 0)]),
            sample(DType::F32, &[4], &[(-2, -2, 2)]),
            sample(DType::Bf16, &[2, 1], &[(0, 0, 3), (2, 2, 5)]),
            sample(DType::I64, &[0, 2], &[(1, 2, 4), (0, 0, 0)]),
            sample(DType::Bool, &[3], &[(-3, 0, 0)]),
            sample(DType::F32, &[0], &[(2, 0, 1)]),
            sample(DType::F32, &[], &[]),
        ]
    }
}

/// Appends the padded form of `from`, a tensor of the given extents: `source` maps, dim by dim,
/// indices of the result to indices of it.
fn lay_out<T: Element>(
    from: &[T],
    extents: &[u64],
    source: &[Vec<Option<u64>>],
    fill: T,
    data: &mut Vec<T>,
) {
    let (Some((map, inner_source)), Some((_, inner))) =
        (source.split_first(), extents.split_first())
    else {
        data.push(from[0]);
        return;
    };
    let length = inner.iter().product::<u64>() as usize;
    let padded_length: usize = inner_source.iter().map(Vec::len).product();
    for index in map {
        match index {
            Some(index) => {
                let slice = &from[*index as usize * length..][..length];
                lay_out(slice, inner, inner_source, fill, data);
            }
            None => data.resize(data.len() + padded_length, fill),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_computed_and_never_negative() {
        let infer = |extent: Dim, low, high, interior| {
            let (low, high, interior) = (vec![low], vec![high], vec![interior]);
            let x = Type::new(DType::F32, Shape::new([extent]));
            let value = Type::scalar(DType::F32);
            let result = Pad {
                low,
                high,
                interior,
            }
            .infer(&[x, value], &[]);
            result.map(|types| types[0].shape[0].clone())
        };
        assert_eq!(infer(Dim::Const(3), 1, 1, 2), Ok(Dim::Const(9)));
        assert!(infer(Dim::Const(3), -2, -2, 0).is_err());
        assert!(infer(Dim::Const(3), i64::MAX, i64::MAX, 0).is_err());
        assert!(infer(Dim::Const(3), 0, 0, u64::MAX).is_err());
        let n = Dim::symbol("n", 8);
        assert_eq!(infer(n.clone(), 1, 2, 0), Ok(n.offset(3).unwrap()));
        assert!(infer(n.clone(), -9, 0, 0).is_err(), "n is at most 8");
        assert!(infer(n, 0, 0, 1).is_ok_and(|d| d.max_extent() == 15));
    }
}
