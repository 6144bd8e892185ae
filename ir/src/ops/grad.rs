//! What gradient rules have in common.

use super::{Reduce, ReduceKind, Select, TypeError};
use crate::graph::{FunctionBuilder, ValueId};
use crate::scalar::{BinaryFn, UnaryFn};
use crate::types::{DType, Shape};

/// Sums `grad` over the dims along which an operand of `shape` was broadcast, so that it gets that
/// shape: the transpose of broadcasting.
pub(crate) fn unbroadcast(
    b: &mut FunctionBuilder,
    grad: ValueId,
    shape: &Shape,
) -> Result<ValueId, TypeError> {
    let from = b.ty(grad).shape.clone();
    if from == *shape {
        return Ok(grad);
    }
    let leading = from.rank() - shape.rank();
    let stretched =
        |axis: &usize| *axis < leading || (shape[*axis - leading].is(1) && !from[*axis].is(1));
    let axes: Vec<usize> = (0..from.rank()).filter(stretched).collect();
    // One sum, so that 16-bit floats are rounded once; dropping dims of extent 1 is exact.
    let drop_all = axes.len() == leading;
    let sum = Reduce {
        kind: ReduceKind::Sum,
        axes,
        keep: !drop_all,
    };
    let summed = b.op(sum, &[grad])?;
    if drop_all || leading == 0 {
        return Ok(summed);
    }
    let drop = Reduce {
        kind: ReduceKind::Sum,
        axes: (0..leading).collect(),
        keep: false,
    };
    b.op(drop, &[summed])
}

/// Builds formulas over values of one element type.
pub(crate) struct Formula<'b> {
    b: &'b mut FunctionBuilder,
    dtype: DType,
}

impl<'b> Formula<'b> {
    /// Formulas over values of `dtype`.
    pub(crate) fn new(b: &'b mut FunctionBuilder, dtype: DType) -> Self {
        Self { b, dtype }
    }

    /// A constant, which broadcasts.
    pub(crate) fn number(&mut self, value: f64) -> ValueId {
        self.b.scalar(self.dtype, value)
    }

    /// A function of one value.
    pub(crate) fn unary(&mut self, f: UnaryFn, x: ValueId) -> Result<ValueId, TypeError> {
        self.b.op(f, &[x])
    }

    /// A function of two values.
    pub(crate) fn binary(
        &mut self,
        f: BinaryFn,
        x: ValueId,
        y: ValueId,
    ) -> Result<ValueId, TypeError> {
        self.b.op(f, &[x, y])
    }

    /// `x * y`.
    pub(crate) fn mul(&mut self, x: ValueId, y: ValueId) -> Result<ValueId, TypeError> {
        self.binary(BinaryFn::Mul, x, y)
    }

    /// `x / y`.
    pub(crate) fn div(&mut self, x: ValueId, y: ValueId) -> Result<ValueId, TypeError> {
        self.binary(BinaryFn::Div, x, y)
    }

    /// `-x`.
    pub(crate) fn neg(&mut self, x: ValueId) -> Result<ValueId, TypeError> {
        self.unary(UnaryFn::Neg, x)
    }

    /// `x * value`.
    pub(crate) fn times(&mut self, x: ValueId, value: f64) -> Result<ValueId, TypeError> {
        let number = self.number(value);
        self.mul(x, number)
    }

    /// `x + value`.
    pub(crate) fn plus(&mut self, x: ValueId, value: f64) -> Result<ValueId, TypeError> {
        let number = self.number(value);
        self.binary(BinaryFn::Add, x, number)
    }

    /// `1 - x`.
    pub(crate) fn one_minus(&mut self, x: ValueId) -> Result<ValueId, TypeError> {
        let one = self.number(1.0);
        self.binary(BinaryFn::Sub, one, x)
    }

    /// `a` where `f(x, y)` holds, else `b`.
    pub(crate) fn select(
        &mut self,
        (f, x, y): (BinaryFn, ValueId, ValueId),
        a: ValueId,
        b: ValueId,
    ) -> Result<ValueId, TypeError> {
        let cond = self.binary(f, x, y)?;
        self.b.op(Select {}, &[cond, a, b])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::run_function;
    use crate::tensor::Tensor;
    use crate::types::Type;

    #[test]
    fn unbroadcast_sums_the_copies() {
        for (shape, expected) in [
            (&[2, 1][..], &[10.0, 18.0][..]),
            (&[1, 1], &[28.0]),
            (&[1, 2, 2], &[4.0, 6.0, 8.0, 10.0]),
            (&[2], &[12.0, 16.0]),
            (&[], &[28.0]),
            (&[2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        ] {
            let mut b = FunctionBuilder::new("unbroadcast");
            let grad = b.param(Type::of(DType::F64, &[2, 2, 2]), None);
            let sum = unbroadcast(&mut b, grad, &Shape::of(shape)).unwrap();
            let func = b.finish_unnamed(&[sum]);
            let grad = Tensor::from_vec(&[2, 2, 2], (0..8).map(f64::from).collect());
            let found = run_function(&func, &[grad]).unwrap().remove(0);
            assert_eq!(found.shape(), shape);
            assert_eq!(found.to_f64s(), expected);
        }
    }
}
