//! Contraction of two tensors.

use super::arith::{Arithmetic, narrowed, widened, with_arithmetic};
use super::products::{Side, sums_of_products};
use super::{
    Convert, EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Tolerance, Transpose,
    TypeError, arity, check_axes,
};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Monoid, Read, Tiling, Write};
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::BinaryFn;
use crate::tensor::{Tensor, indices, strides};
use crate::types::{Class, DType, Shape, Type};

op_struct! {
    /// Contracts two tensors: `out[b, m, n] = sum over k of lhs[b, m, k] * rhs[b, k, n]`, where b
    /// are the pairs of batch dims, k the pairs of contracted dims, m and n the dims of the left
    /// and right operand that are in neither, each in order.
    ///
    /// Products of 16-bit floats are exact and summed in f32, others are computed in the element
    /// type; the sum runs over k in row-major order of the pairs as they are listed.
    Dot {
        /// Pairs (left dim, right dim) that are batched.
        batch: Vec<(usize, usize)>,
        /// Pairs (left dim, right dim) that are summed over.
        contract: Vec<(usize, usize)>,
        /// Element type of the result, that of the operands if absent; 16-bit floats may give f32.
        out: Option<DType>,
    }
}

/// The element type in which products of `dtype` are summed.
pub(crate) fn accumulator(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::Bf16 => DType::F32,
        other => other,
    }
}

/// The value as another float type.
pub(crate) fn convert(
    b: &mut FunctionBuilder,
    x: ValueId,
    to: DType,
) -> Result<ValueId, TypeError> {
    if b.ty(x).dtype == to {
        return Ok(x);
    }
    b.op(
        Convert {
            to,
            saturate: false,
        },
        &[x],
    )
}

/// The value with its dim i as dim `order[i]`.
fn reorder(b: &mut FunctionBuilder, x: ValueId, order: Vec<usize>) -> Result<ValueId, TypeError> {
    if order.is_sorted() {
        return Ok(x);
    }
    b.op(Transpose { perm: order }.inverse(), &[x])
}

/// The element type of a contraction's result: that of the operands, or the one it is summed in.
pub(crate) fn result_dtype(out: Option<DType>, dtype: DType) -> Result<DType, TypeError> {
    match out {
        Some(out) if out != dtype && out != accumulator(dtype) => {
            type_error!("the result of {dtype} can not be {out}")
        }
        out => Ok(out.unwrap_or(dtype)),
    }
}

/// The dims of an operand by role.
struct Roles {
    free: Vec<usize>,
}

impl Dot {
    /// The matrix product of the last two dims, the dims before being batched: `[.., m, k]` by
    /// `[.., k, n]`.
    pub fn matmul(rank: usize) -> Self {
        let batch = (0..rank.saturating_sub(2)).map(|d| (d, d)).collect();
        Self {
            batch,
            contract: vec![(rank - 1, rank - 2)],
            out: None,
        }
    }

    fn roles(&self, rank: usize, left: bool) -> Roles {
        let pick = |pair: &(usize, usize)| if left { pair.0 } else { pair.1 };
        let used: Vec<usize> = self.batch.iter().chain(&self.contract).map(pick).collect();
        Roles {
            free: (0..rank).filter(|d| !used.contains(d)).collect(),
        }
    }

    fn result(&self, lhs: &Type, rhs: &Type) -> Type {
        let batch = self.batch.iter().map(|(l, _)| &lhs.shape[*l]);
        let m = self
            .roles(lhs.rank(), true)
            .free
            .into_iter()
            .map(|d| &lhs.shape[d]);
        let n = self
            .roles(rhs.rank(), false)
            .free
            .into_iter()
            .map(|d| &rhs.shape[d]);
        let shape = Shape::new(batch.chain(m).chain(n).cloned());
        Type::new(self.out.unwrap_or(lhs.dtype), shape)
    }
}

impl OpDef for Dot {
    const NAMES: &'static [&'static str] = &["dot"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [lhs, rhs] = arity(args)?;
        if lhs.dtype != rhs.dtype {
            type_error!("operands have different element types: {lhs} and {rhs}");
        }
        if !matches!(lhs.dtype.class(), Class::Int { .. } | Class::Float) {
            type_error!("expected integers or floats, found {}", lhs.dtype);
        }
        result_dtype(self.out, lhs.dtype)?;
        let pairs = || self.batch.iter().chain(&self.contract);
        check_axes(&pairs().map(|p| p.0).collect::<Vec<_>>(), lhs)?;
        check_axes(&pairs().map(|p| p.1).collect::<Vec<_>>(), rhs)?;
        for (l, r) in pairs() {
            if lhs.shape[*l] != rhs.shape[*r] {
                type_error!("dim {l} of {lhs} does not match dim {r} of {rhs}");
            }
        }
        Ok(vec![self.result(lhs, rhs)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (lhs, rhs) = (&args[0], &args[1]);
        let ty = self.result(&lhs.ty(), &rhs.ty());
        let shape = ty.shape.as_const().unwrap_or_default();
        let sum = with_arithmetic!(lhs.dtype(), T => {
            Tensor::from_vec(&shape, self.multiply::<T>(&widened(lhs), &widened(rhs)))
        });
        Ok(vec![narrowed(&sum, ty.dtype)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (lhs, rhs) = (&args[0], &args[1]);
        let (m, n) = (
            self.roles(lhs.rank(), true).free,
            self.roles(rhs.rank(), false).free,
        );
        let mut dims = vec![];
        let mut left = vec![Affine::constant(0); lhs.rank()];
        let mut right = vec![Affine::constant(0); rhs.rank()];
        for (i, (l, r)) in self.batch.iter().enumerate() {
            left[*l] = Affine::dim(dims.len());
            right[*r] = Affine::dim(dims.len());
            dims.push(LoopDim::parallel(format!("b{i}"), lhs.shape[*l].clone()));
        }
        for (i, d) in m.into_iter().enumerate() {
            left[d] = Affine::dim(dims.len());
            dims.push(LoopDim::parallel(format!("m{i}"), lhs.shape[d].clone()));
        }
        for (i, d) in n.into_iter().enumerate() {
            right[d] = Affine::dim(dims.len());
            dims.push(LoopDim::parallel(format!("n{i}"), rhs.shape[d].clone()));
        }
        for (i, (l, r)) in self.contract.iter().enumerate() {
            left[*l] = Affine::dim(dims.len());
            right[*r] = Affine::dim(dims.len());
            dims.push(LoopDim::reduction(format!("k{i}"), lhs.shape[*l].clone()));
        }
        let acc = accumulator(lhs.dtype);
        let operand = |n| Expr::Convert(acc, Box::new(Expr::Operand(n)));
        Tiling::Loop(Access {
            dims,
            operands: vec![Read::inside(left), Read::inside(right)],
            body: vec![Expr::binary(BinaryFn::Mul, acc, operand(0), operand(1))],
            combine: Combine::Reduce(Monoid::Sum, acc),
            results: vec![Write::identity(&self.result(lhs, rhs))],
        })
    }

    /// For each operand, contracts the cotangent with the other operand along that one's free dims.
    /// That gives the batch dims, the operand's free dims and then its contracted dims in the order
    /// in which the other operand has them.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (lhs, rhs, dy) = (cx.args[0], cx.args[1], cx.cotangents[0]);
        let (lhs_rank, rhs_rank) = (cx.b.ty(lhs).rank(), cx.b.ty(rhs).rank());
        let (m, n) = (
            self.roles(lhs_rank, true).free,
            self.roles(rhs_rank, false).free,
        );
        // A result that was not rounded to the operands' type has a cotangent that is not either.
        let (dtype, wide) = (cx.b.ty(lhs).dtype, cx.b.ty(dy).dtype);
        let (wide_lhs, wide_rhs) = (convert(cx.b, lhs, wide)?, convert(cx.b, rhs, wide)?);
        let (first_m, first_n) = (self.batch.len(), self.batch.len() + m.len());
        let mut contracted = self.contract.clone();

        let to_lhs = Dot {
            batch: self
                .batch
                .iter()
                .enumerate()
                .map(|(i, p)| (i, p.1))
                .collect(),
            contract: n
                .iter()
                .enumerate()
                .map(|(j, d)| (first_n + j, *d))
                .collect(),
            out: None,
        };
        contracted.sort_by_key(|p| p.1);
        let (batch, k) = (
            self.batch.iter().map(|p| p.0),
            contracted.iter().map(|p| p.0),
        );
        let order = batch.chain(m.iter().copied()).chain(k).collect();
        let dx = cx.b.op(to_lhs, &[dy, wide_rhs])?;
        let dx = reorder(cx.b, dx, order)?;
        let lhs_grad = convert(cx.b, dx, dtype)?;

        let to_rhs = Dot {
            batch: self
                .batch
                .iter()
                .enumerate()
                .map(|(i, p)| (p.0, i))
                .collect(),
            contract: m
                .iter()
                .enumerate()
                .map(|(j, d)| (*d, first_m + j))
                .collect(),
            out: None,
        };
        contracted.sort_by_key(|p| p.0);
        let (batch, k) = (
            self.batch.iter().map(|p| p.1),
            contracted.iter().map(|p| p.1),
        );
        let order = batch.chain(k).chain(n).collect();
        let dx = cx.b.op(to_rhs, &[wide_lhs, dy])?;
        let dx = reorder(cx.b, dx, order)?;
        Ok(vec![Some(lhs_grad), Some(convert(cx.b, dx, dtype)?)])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let f = |shape: &[u64]| Type::of(DType::F32, shape);
        let with = |dtype, out| {
            let args = [Type::of(dtype, &[3, 5]), Type::of(dtype, &[5, 2])];
            Sample::new(
                Dot {
                    out,
                    ..Dot::matmul(2)
                },
                &args,
            )
        };
        vec![
            Sample::new(Dot::matmul(2), &[f(&[3, 5]), f(&[5, 2])]),
            Sample::new(Dot::matmul(4), &[f(&[2, 3, 4, 5]), f(&[2, 3, 5, 2])]),
            Sample::new(
                Dot {
                    batch: vec![(2, 0)],
                    contract: vec![(0, 3), (3, 1)],
                    out: None,
                },
                &[f(&[3, 2, 4, 5]), f(&[4, 5, 2, 3])],
            ),
            Sample::new(
                Dot {
                    batch: vec![],
                    contract: vec![],
                    out: None,
                },
                &[f(&[2]), f(&[3])],
            ),
            Sample::new(
                Dot {
                    batch: vec![],
                    contract: vec![(0, 0)],
                    out: None,
                },
                &[f(&[4]), f(&[4])],
            ),
            Sample::new(Dot::matmul(2), &[f(&[3, 0]), f(&[0, 2])]),
            Sample::new(Dot::matmul(3), &[f(&[0, 3, 2]), f(&[0, 2, 4])]),
            // More rows and columns than eval computes together.
            Sample::new(Dot::matmul(2), &[f(&[9, 3]), f(&[3, 17])]),
            // Contracted in another order than either operand has the dims.
            Sample::new(
                Dot {
                    batch: vec![(1, 4), (3, 0)],
                    contract: vec![(4, 1), (0, 3)],
                    out: None,
                },
                &[f(&[2, 3, 1, 2, 4]), f(&[2, 4, 5, 2, 3])],
            ),
            with(DType::Bf16, None),
            with(DType::Bf16, Some(DType::F32)),
            with(DType::F16, None),
            with(DType::F64, None),
            with(DType::I32, None),
            with(DType::U8, None),
        ]
    }
}

impl Dot {
    /// Positions of the operands' elements: for every batch index the base, for every free index
    /// the offset, for every contracted index the offset.
    fn offsets(&self, tensor: &Tensor, left: bool) -> [Vec<usize>; 3] {
        let strides = strides(tensor.shape());
        let offsets = |dims: Vec<usize>| {
            let extents: Vec<u64> = dims.iter().map(|d| tensor.shape()[*d]).collect();
            let at = |index: Vec<u64>| {
                index
                    .iter()
                    .zip(&dims)
                    .map(|(i, d)| (i * strides[*d]) as usize)
                    .sum()
            };
            indices(&extents).map(at).collect()
        };
        let pick = |pair: &(usize, usize)| if left { pair.0 } else { pair.1 };
        [
            offsets(self.batch.iter().map(pick).collect()),
            offsets(self.roles(tensor.rank(), left).free),
            offsets(self.contract.iter().map(pick).collect()),
        ]
    }

    /// The result, every element summed in the order of k.
    fn multiply<T: Arithmetic>(&self, lhs: &Tensor, rhs: &Tensor) -> Vec<T> {
        let [left_base, rows, left_k] = self.offsets(lhs, true);
        let [right_base, columns, right_k] = self.offsets(rhs, false);
        let (a, b) = (lhs.stored::<T>(), rhs.stored::<T>());
        let area = rows.len() * columns.len();
        let mut out = vec![T::ZERO; left_base.len() * area];
        if out.is_empty() {
            return out;
        }
        let bases = left_base.iter().zip(&right_base);
        for (out, (a_base, b_base)) in out.chunks_exact_mut(area).zip(bases) {
            let left = Side {
                elements: &a[*a_base..],
                free: &rows,
                contracted: &left_k,
            };
            let right = Side {
                elements: &b[*b_base..],
                free: &columns,
                contracted: &right_k,
            };
            sums_of_products(&left, &right, |row, column, sums| {
                let first = row * columns.len() + column;
                out[first..first + sums.len()].copy_from_slice(sums);
            });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::interpret;

    #[test]
    fn the_order_of_summation_is_that_of_the_rule() {
        let mut compared = 0;
        for sample in Dot::samples() {
            let types: Vec<Type> = sample.args.iter().map(|a| a.ty.clone()).collect();
            if types[0].dtype != DType::F32 {
                continue;
            }
            let rough = |ty: &Type| {
                let shape = ty.shape.as_const().unwrap();
                let values = (0..shape.iter().product::<u64>())
                    .map(|n| (n as f32 * 0.7391).sin() * (n as f32 * 1.37).cos().exp());
                Tensor::from_vec(&shape, values.collect::<Vec<f32>>())
            };
            let args: Vec<Tensor> = types.iter().map(rough).collect();
            let Tiling::Loop(access) = sample.op.tiling(&types) else {
                panic!("not a loop")
            };
            let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
            let found = sample.op.eval(&args, &mut EvalCx::new(&mut none)).unwrap();
            assert_eq!(
                Ok(&found),
                interpret(&access, &args).as_ref(),
                "{:?}",
                sample.op
            );
            compared += found[0].len();
        }
        assert!(compared > 250, "{compared}");
    }
}
