//! Ops without operands.

use super::{EvalCx, EvalError, Grads, GradCx, NoGrad, OpDef, Sample, TypeError, arity};
use crate::access::{Access, Combine, Expr, LoopDim, Tiling, Write};
use crate::attr::{Number, number_fits};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::tensor::Tensor;
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

impl OpDef for Full {
    const NAMES: &'static [&'static str] = &["full"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [] = arity(args)?;
        if !number_fits(self.value, self.dtype) {
            type_error!("{:?} is not a value of {}", self.value, self.dtype);
        }
        Ok(vec![Type::new(self.dtype, Shape::new(self.shape.iter().cloned()))])
    }

    fn eval(&self, _args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let Some(shape) = self.shape.iter().map(Dim::as_const).collect::<Option<Vec<u64>>>() else {
            return Err(EvalError::value("the shape is symbolic"));
        };
        Ok(vec![Tensor::splat(self.dtype, &shape, self.value.to_scalar(self.dtype))])
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        let ty = Type::new(self.dtype, Shape::new(self.shape.iter().cloned()));
        let dims = ty.dims().iter().enumerate();
        Tiling::Loop(Access {
            dims: dims.map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone())).collect(),
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
            value: crate::scalar::Scalar::from_f64(value, dtype).into(),
        };
        vec![
            Sample::new(full(DType::F32, &[2, 3], 1.5), &[]),
            Sample::new(full(DType::U64, &[], 7.0), &[]),
            Sample::new(full(DType::Bool, &[4, 0], 1.0), &[]),
            Sample::new(full(DType::F32, &[2], f64::NEG_INFINITY), &[]),
        ]
    }
}
