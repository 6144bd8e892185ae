//! Ops without operands.

use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError};
use super::{arity, check_axis};
use crate::access::{Access, Combine, Expr, LoopDim, Tiling, Write};
use crate::attr::{Number, number_fits};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, indices};
use crate::types::{DType, Shape, Type};

op_struct! {
    /// A tensor whose elements are all `value`: `full {dtype = f32, shape = [2, 3], value = 0.0}`.
    Full {
        /// Element type.
        dtype: DType,
        /// Extents.
        shape: Vec<Dim>,
        /// The value of every element; it must be one of the element type.
        value: Number,
    }
}

op_struct! {
    /// Counts along a dim: `out[.., i, ..] = i`, as in `iota {dtype = i64, shape = [2, 3], axis = 1}`.
    /// Integers wrap, floats round to the nearest.
    Iota {
        /// Element type: integer or float.
        dtype: DType,
        /// Extents.
        shape: Vec<Dim>,
        /// The dim along which the value grows.
        axis: usize,
    }
}

impl OpDef for Full {
    const NAMES: &'static [&'static str] = &["full"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [] = arity(args)?;
        if !number_fits(self.value, self.dtype) {
            type_error!("{} is not a value of {}", self.value, self.dtype);
        }
        Ok(vec![Type::new(
            self.dtype,
            Shape::new(self.shape.iter().cloned()),
        )])
    }

    fn eval(&self, _args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let Some(shape) = self
            .shape
            .iter()
            .map(Dim::as_const)
            .collect::<Option<Vec<u64>>>()
        else {
            return Err(EvalError::value("the shape is symbolic"));
        };
        Ok(vec![Tensor::splat(
            self.dtype,
            &shape,
            self.value.to_scalar(self.dtype),
        )])
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        let ty = Type::new(self.dtype, Shape::new(self.shape.iter().cloned()));
        let dims = ty.dims().iter().enumerate();
        Tiling::Loop(Access {
            dims: dims
                .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()))
                .collect(),
            operands: vec![],
            body: vec![Expr::Const(self.value, self.dtype)],
            combine: Combine::Assign,
            results: vec![Write::identity(&ty)],
        })
    }

    fn grad(&self, _cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        Ok(vec![])
    }

    fn samples() -> Vec<Sample> {
        let full = |dtype, shape: &[u64], value: f64| Full {
            dtype,
            shape: shape.iter().map(|&d| Dim::Const(d)).collect(),
            value: Scalar::from_f64(value, dtype).into(),
        };
        vec![
            Sample::new(full(DType::F32, &[2, 3], 1.5), &[]),
            Sample::new(full(DType::U64, &[], 7.0), &[]),
            Sample::new(full(DType::Bool, &[4, 0], 1.0), &[]),
            Sample::new(full(DType::F32, &[2], f64::NEG_INFINITY), &[]),
        ]
    }
}

impl Iota {
    fn result(&self) -> Type {
        Type::new(self.dtype, Shape::new(self.shape.iter().cloned()))
    }
}

impl OpDef for Iota {
    const NAMES: &'static [&'static str] = &["iota"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [] = arity(args)?;
        if !(self.dtype.is_int() || self.dtype.is_float()) {
            type_error!("expected an integer or float type, found {}", self.dtype);
        }
        check_axis(self.axis, &self.result())?;
        Ok(vec![self.result()])
    }

    fn eval(&self, _args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let Some(shape) = self.result().shape.as_const() else {
            return Err(EvalError::value("the shape is symbolic"));
        };
        let values = indices(&shape).map(|index| Scalar::Int(index[self.axis].into()));
        let values = values.map(|value| value.convert(self.dtype));
        Ok(vec![Tensor::from_scalars(self.dtype, &shape, values)])
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        let ty = self.result();
        let dims = ty.dims().iter().enumerate();
        Tiling::Loop(Access {
            dims: dims
                .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()))
                .collect(),
            operands: vec![],
            body: vec![Expr::Index(self.axis, self.dtype)],
            combine: Combine::Assign,
            results: vec![Write::identity(&ty)],
        })
    }

    fn grad(&self, _cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        Ok(vec![])
    }

    fn samples() -> Vec<Sample> {
        let iota = |dtype, shape: &[u64], axis| {
            let shape = shape.iter().map(|&d| Dim::Const(d)).collect();
            Sample::new(Iota { dtype, shape, axis }, &[])
        };
        vec![
            iota(DType::I64, &[2, 3], 1),
            iota(DType::F32, &[4, 1, 2], 0),
            iota(DType::F64, &[1], 0),
            iota(DType::Bf16, &[300], 0),
            iota(DType::F16, &[2, 3], 0),
            iota(DType::U8, &[260], 0),
            iota(DType::I32, &[2, 0], 1),
        ]
    }
}
