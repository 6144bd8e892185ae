//! Contraction of two tensors.

use super::{
    EvalCx, EvalError, OpDef, Sample, Tolerance, TypeError, arity, check_axes,
};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Monoid, Read, Tiling, Write};
use crate::graph::RegionType;
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

/// The dims of an operand by role.
struct Roles {
    free: Vec<usize>,
}

impl Dot {
    /// The matrix product of the last two dims, the dims before being batched: `[.., m, k]` by
    /// `[.., k, n]`.
    pub fn matmul(rank: usize) -> Self {
        let batch = (0..rank.saturating_sub(2)).map(|d| (d, d)).collect();
        Self { batch, contract: vec![(rank - 1, rank - 2)], out: None }
    }

    fn roles(&self, rank: usize, left: bool) -> Roles {
        let pick = |pair: &(usize, usize)| if left { pair.0 } else { pair.1 };
        let used: Vec<usize> = self.batch.iter().chain(&self.contract).map(pick).collect();
        Roles { free: (0..rank).filter(|d| !used.contains(d)).collect() }
    }

    fn result(&self, lhs: &Type, rhs: &Type) -> Type {
        let batch = self.batch.iter().map(|(l, _)| &lhs.shape[*l]);
        let m = self.roles(lhs.rank(), true).free.into_iter().map(|d| &lhs.shape[d]);
        let n = self.roles(rhs.rank(), false).free.into_iter().map(|d| &rhs.shape[d]);
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
        if let Some(out) = self.out
            && out != lhs.dtype
            && out != accumulator(lhs.dtype)
        {
            type_error!("the result of {} can not be {out}", lhs.dtype);
        }
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
        let dtype = accumulator(lhs.dtype());
        let sum = match dtype {
            DType::F32 => self.contract_floats::<f32>(lhs, rhs, |a, b, c| a * b + c),
            DType::F64 => self.contract_floats::<f64>(lhs, rhs, |a, b, c| a * b + c),
            _ => self.contract_ints(lhs, rhs),
        };
        Ok(vec![sum.convert(ty.dtype)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (lhs, rhs) = (&args[0], &args[1]);
        let (m, n) = (self.roles(lhs.rank(), true).free, self.roles(rhs.rank(), false).free);
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

    fn tolerance(&self) -> Tolerance {
        Tolerance::Roundings(4.0)
    }

    fn samples() -> Vec<Sample> {
        let f = |shape: &[u64]| Type::of(DType::F32, shape);
        let with = |dtype, out| {
            let args = [Type::of(dtype, &[3, 5]), Type::of(dtype, &[5, 2])];
            Sample::new(Dot { out, ..Dot::matmul(2) }, &args)
        };
        vec![
            Sample::new(Dot::matmul(2), &[f(&[3, 5]), f(&[5, 2])]),
            Sample::new(Dot::matmul(4), &[f(&[2, 3, 4, 5]), f(&[2, 3, 5, 2])]),
            Sample::new(
                Dot { batch: vec![(2, 0)], contract: vec![(0, 3), (3, 1)], out: None },
                &[f(&[3, 2, 4, 5]), f(&[4, 5, 2, 3])],
            ),
            Sample::new(Dot { batch: vec![], contract: vec![], out: None }, &[f(&[2]), f(&[3])]),
            Sample::new(Dot { batch: vec![], contract: vec![(0, 0)], out: None }, &[f(&[4]), f(&[4])]),
            Sample::new(Dot::matmul(2), &[f(&[3, 0]), f(&[0, 2])]),
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
                index.iter().zip(&dims).map(|(i, d)| (i * strides[*d]) as usize).sum()
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

    fn contract_floats<T: crate::tensor::Element + Default>(
        &self,
        lhs: &Tensor,
        rhs: &Tensor,
        multiply_add: impl Fn(T, T, T) -> T,
    ) -> Tensor {
        let ty = self.result(&lhs.ty(), &rhs.ty());
        let shape = ty.shape.as_const().unwrap_or_default();
        let (lhs, rhs) = (lhs.convert(T::DTYPE), rhs.convert(T::DTYPE));
        let [left_base, rows, left_k] = self.offsets(&lhs, true);
        let [right_base, columns, right_k] = self.offsets(&rhs, false);
        let (a, b) = (lhs.stored::<T>(), rhs.stored::<T>());
        let mut out = vec![T::default(); shape.iter().product::<u64>() as usize];
        if columns.is_empty() {
            return Tensor::from_vec(&shape, out);
        }
        let mut row_results = out.chunks_exact_mut(columns.len());
        let mut row_of_b = vec![T::default(); columns.len()];
        for (a_base, b_base) in left_base.iter().zip(&right_base) {
            // Row by row of the result, adding one rank-1 term after the other, so that every
            // element is summed in the order of k.
            for row in &rows {
                let Some(result) = row_results.next() else { break };
                for (ka, kb) in left_k.iter().zip(&right_k) {
                    let x = a[a_base + row + ka];
                    for (slot, column) in row_of_b.iter_mut().zip(&columns) {
                        *slot = b[b_base + kb + column];
                    }
                    for (sum, y) in result.iter_mut().zip(&row_of_b) {
                        *sum = multiply_add(x, *y, *sum);
                    }
                }
            }
        }
        Tensor::from_vec(&shape, out)
    }

    fn contract_ints(&self, lhs: &Tensor, rhs: &Tensor) -> Tensor {
        let ty = self.result(&lhs.ty(), &rhs.ty());
        let shape = ty.shape.as_const().unwrap_or_default();
        let [left_base, rows, left_k] = self.offsets(lhs, true);
        let [right_base, columns, right_k] = self.offsets(rhs, false);
        let mut values = vec![];
        for (a_base, b_base) in left_base.iter().zip(&right_base) {
            for row in &rows {
                for column in &columns {
                    let sum = left_k.iter().zip(&right_k).fold(0i128, |sum, (ka, kb)| {
                        let a = lhs.get(a_base + row + ka).to_int();
                        let b = rhs.get(b_base + column + kb).to_int();
                        sum.wrapping_add(a.wrapping_mul(b))
                    });
                    values.push(crate::scalar::Scalar::Int(sum).wrap(lhs.dtype()));
                }
            }
        }
        Tensor::from_scalars(lhs.dtype(), &shape, values)
    }
}
