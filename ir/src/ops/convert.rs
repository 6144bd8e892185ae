//! Conversions between element types.

use super::{EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError, arity};
use crate::access::{
    Access, Combine, Expr, Kernel, KernelFn, LoopDim, Read, SplitDim, Tiling, Write,
};
use crate::attr::{F64, Number};
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::{BinaryFn, Scalar};
use crate::tensor::Tensor;
use crate::types::{Class, DType, Type};

op_struct! {
    /// Each element converted to another element type: `convert {to = i8, saturate = true} %x`.
    ///
    /// To bool: whether it is not zero (NaN is not zero). Between floats and from integers to
    /// floats: rounded to the nearest, ties to even, beyond the largest to infinity. From floats to
    /// integers: truncated towards zero, NaN becomes 0. Integers beyond the range of the result
    /// wrap, or with `saturate` become the end of the range they are beyond; infinities are beyond
    /// both, and wrap to an unspecified but fixed value.
    Convert {
        /// Element type of the result.
        to: DType,
        /// Whether values beyond the range of an integer result become its least or greatest value
        /// instead of wrapping. Without meaning for other results.
        saturate: bool,
    }
}

op_struct! {
    /// The bits of each element read as another element type of the same size:
    /// `bit_cast {to = u32} %x : u32[4]`. Bool has no bits of its own and is excluded.
    BitCast {
        /// Element type of the result.
        to: DType,
    }
}

impl Convert {
    /// What is computed of one element of type `from`.
    fn body(&self, from: DType) -> Expr {
        let converted = Expr::Convert(self.to, Box::new(Expr::Operand(0)));
        let (Some((low, high)), true) = (self.to.int_range(), self.saturate) else {
            return converted;
        };
        // Where the comparison `f` with `bound` holds, the end of the range.
        let end = |f, bound, wide, value, otherwise| {
            let x = Expr::Convert(wide, Box::new(Expr::Operand(0)));
            Expr::Select(Box::new([
                Expr::binary(f, wide, x, Expr::Const(bound, wide)),
                Expr::Const(Number::Int(value), self.to),
                otherwise,
            ]))
        };
        match from.int_range() {
            Some((least, greatest)) => {
                let mut body = converted;
                if greatest > high {
                    body = end(BinaryFn::Gt, Number::Int(high), from, high, body);
                }
                if least < low {
                    body = end(BinaryFn::Lt, Number::Int(low), from, low, body);
                }
                body
            }
            None if from.is_float() => {
                // The greatest integer plus one and the least are powers of two: exact in f64.
                let [above, least] = [high + 1, low].map(|i| Number::Float(F64(i as f64)));
                let body = end(BinaryFn::Ge, above, DType::F64, high, converted);
                end(BinaryFn::Le, least, DType::F64, low, body)
            }
            None => converted,
        }
    }
}

impl OpDef for Convert {
    const NAMES: &'static [&'static str] = &["convert"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        for dtype in [x.dtype, self.to] {
            if dtype.class() == Class::Configurable {
                type_error!(
                    "{dtype} has values only together with an exponent bias: use encode and decode"
                );
            }
        }
        Ok(vec![x.with_dtype(self.to)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        Ok(vec![match self.to.int_range() {
            Some((low, high)) if self.saturate => {
                let clamped = x
                    .scalars()
                    .map(|s| Scalar::Int(s.to_int().clamp(low, high)));
                Tensor::from_scalars(self.to, x.shape(), clamped)
            }
            _ => x.convert(self.to),
        }])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let x = &args[0];
        let dims = x.dims().iter().enumerate();
        Tiling::Loop(Access {
            dims: dims
                .map(|(n, d)| LoopDim::parallel(format!("d{n}"), d.clone()))
                .collect(),
            operands: vec![Read::broadcast(&x.shape, x.rank())],
            body: vec![self.body(x.dtype)],
            combine: Combine::Assign,
            results: vec![Write::identity(&x.with_dtype(self.to))],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let from = cx.b.ty(cx.args[0]).dtype;
        if !(from.is_float() && self.to.is_float()) {
            return Ok(vec![None]);
        }
        let back = Convert {
            to: from,
            saturate: false,
        };
        Ok(vec![Some(cx.b.op(back, &[cx.cotangents[0]])?)])
    }

    fn samples() -> Vec<Sample> {
        let fixed = DType::ALL.map(|(dtype, _)| dtype);
        let fixed = fixed
            .into_iter()
            .filter(|d| d.class() != Class::Configurable);
        let mut samples = vec![];
        for (from, to) in fixed
            .clone()
            .flat_map(|from| fixed.clone().map(move |to| (from, to)))
        {
            let ty = Type::of(from, &[2, 3]);
            samples.push(Sample::new(
                Convert {
                    to,
                    saturate: false,
                },
                std::slice::from_ref(&ty),
            ));
            if to.is_int() && from != DType::Bool {
                samples
                    .push(Sample::new(Convert { to, saturate: true }, &[ty]).given(0, edges(from)));
            }
        }
        let halves = Tensor::from_vec(&[4], vec![0.5f32, 1.5, -0.5, -1.5]);
        samples.extend([
            Sample::new(
                Convert {
                    to: DType::F64,
                    saturate: false,
                },
                &[Type::of(DType::F32, &[])],
            ),
            Sample::new(
                Convert {
                    to: DType::I8,
                    saturate: true,
                },
                &[Type::of(DType::F32, &[3, 0])],
            ),
            Sample::new(
                Convert {
                    to: DType::I64,
                    saturate: false,
                },
                &[Type::of(DType::F32, &[4])],
            )
            .given(0, halves),
            Sample::new(
                Convert {
                    to: DType::U8,
                    saturate: false,
                },
                &[Type::of(DType::F32, &[2, 3])],
            )
            .given(0, edges(DType::F32)),
        ]);
        samples
    }
}

/// Values of `dtype` at which saturation differs from wrapping.
fn edges(dtype: DType) -> Tensor {
    let shape = [2, 3];
    match dtype.int_range() {
        Some((low, high)) => {
            let values = [low, low + 1, 0, 1, high - 1, high].map(Scalar::Int);
            Tensor::from_scalars(dtype, &shape, values)
        }
        None => {
            let values = [
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                1e30,
                -300.7,
                9.5e18,
            ];
            Tensor::from_scalars(dtype, &shape, values.map(|v| Scalar::from_f64(v, dtype)))
        }
    }
}

impl OpDef for BitCast {
    const NAMES: &'static [&'static str] = &["bit_cast"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        if [x.dtype, self.to].contains(&DType::Bool) {
            type_error!("bool has no bits of its own: compare or convert instead");
        }
        if x.dtype.bytes() != self.to.bytes() {
            type_error!(
                "elements of {} have {} bytes, those of {} have {}",
                x.dtype,
                x.dtype.bytes(),
                self.to,
                self.to.bytes()
            );
        }
        Ok(vec![x.with_dtype(self.to)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        match Tensor::from_bytes(self.to, x.shape(), x.bytes().clone()) {
            Ok(result) => Ok(vec![result]),
            Err(error) => Err(EvalError::value(error.to_string())),
        }
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        Tiling::Kernel(Kernel {
            function: KernelFn::BitCast,
            dims: split_each_dim(&args[0], &[true]),
            index_operands: vec![],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        Ok(vec![None; cx.args.len()])
    }

    fn samples() -> Vec<Sample> {
        let cast = |to, from, shape: &[u64]| Sample::new(BitCast { to }, &[Type::of(from, shape)]);
        vec![
            cast(DType::U32, DType::F32, &[2, 3]),
            cast(DType::F32, DType::I32, &[4]),
            cast(DType::I64, DType::F64, &[]).no_grad(),
            cast(DType::F64, DType::U64, &[1]),
            cast(DType::U16, DType::Bf16, &[2, 1, 2]),
            cast(DType::F16, DType::Bf16, &[3]),
            cast(DType::Shp, DType::U16, &[3]),
            cast(DType::U8, DType::Cfp8E5M2, &[0, 2]),
        ]
    }
}

/// The dims of `x` as splits of a computation that is independent per element, for operands that
/// have the shape of `x` (`true`) or stay whole.
pub(crate) fn split_each_dim(x: &Type, split: &[bool]) -> Vec<SplitDim> {
    let along = |axis| SplitDim {
        name: format!("d{axis}"),
        operands: split.iter().map(|split| split.then_some(axis)).collect(),
        results: vec![axis],
    };
    (0..x.rank()).map(along).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn run(op: impl Into<Op>, x: &Tensor) -> Tensor {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
        let results = op
            .into()
            .eval(std::slice::from_ref(x), &mut EvalCx::new(&mut none));
        results.unwrap().remove(0)
    }

    #[test]
    fn saturation_clamps_and_its_absence_wraps() {
        let x = Tensor::from_vec(
            &[6],
            vec![300f32, -1.9, f32::NAN, f32::INFINITY, -1e30, 255.9],
        );
        let u8s = |saturate| {
            run(
                Convert {
                    to: DType::U8,
                    saturate,
                },
                &x,
            )
            .to_i64s()
        };
        assert_eq!(u8s(true), [255, 0, 0, 255, 0, 255]);
        assert_eq!(u8s(false)[..3], [44, 255, 0]);
        let wide = Tensor::from_vec(&[3], vec![u64::MAX, 1 << 40, 5]);
        let i32s = |saturate| {
            run(
                Convert {
                    to: DType::I32,
                    saturate,
                },
                &wide,
            )
            .to_i64s()
        };
        assert_eq!(i32s(true), [i32::MAX.into(), i32::MAX.into(), 5]);
        assert_eq!(i32s(false), [-1, 0, 5]);
    }

    #[test]
    fn bits_stay() {
        let x = Tensor::from_vec(&[2], vec![1f32, -0.0]);
        let bits = run(BitCast { to: DType::U32 }, &x);
        assert_eq!(bits.to_i64s(), [0x3F80_0000, 0x8000_0000]);
        assert_eq!(run(BitCast { to: DType::F32 }, &bits), x);
        let refused = |to, from| {
            let op = Op::from(BitCast { to });
            op.infer(&[Type::of(from, &[1])], &[]).unwrap_err().0
        };
        assert!(refused(DType::F64, DType::F32).contains("4 bytes"));
        assert!(refused(DType::Bool, DType::U8).contains("bool"));
    }
}
