//! Conversions from and to number formats whose exponent bias is a run-time value.

use super::convert::split_each_dim;
use super::{Convert, EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, TypeError, arity};
use crate::access::{Kernel, KernelFn, Tiling};
use crate::attr::{Attr, AttrField};
use crate::formats::{self, Bias, BiasRule, MiniFloat, Rounding};
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

op_struct! {
    /// Rounds each element of x to a narrow format:
    /// `encode {to = cfp8_143, rounding = "nearest-even"} %x, %bias : cfp8_143[4]`.
    ///
    /// x is f32, f16 or bf16 (f64 would be rounded twice). The bias is i32[], from 0 to 63; formats
    /// of fixed bias ignore it. Stochastic rounding has a third operand, u32 of the shape of x: the
    /// bits that decide (see `random_bits`). A value between two neighbours v < w of the format
    /// becomes the nearest, ties to the even code; or stochastically w with probability
    /// `(x - v) / (w - v)`. The Tesla formats but uhp have no infinity and no NaN: what is too
    /// large becomes the largest magnitude, NaN the largest value. uhp has no sign: what is
    /// negative becomes 0.
    Encode {
        /// Element type of the result: cfp8_143, cfp8_152, shp, uhp, bf16 or f16.
        to: DType,
        /// How values between two neighbours are rounded.
        rounding: Rounding,
    }
}

op_struct! {
    /// The values of codes: `decode {to = f32} %codes, %bias : f32[4]`.
    ///
    /// The codes are cfp8_143, cfp8_152, shp, uhp, bf16 or f16; the bias is i32[], from 0 to 63, and
    /// ignored by formats of fixed bias. Every value is exact in f32; a narrower result is rounded
    /// to the nearest.
    Decode {
        /// Element type of the result: a float.
        to: DType,
    }
}

impl AttrField for Rounding {
    fn kind() -> String {
        let names = Rounding::ALL.map(|rounding| format!("\"{rounding}\""));
        format!("one of {}", names.join(", "))
    }
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Str(self.name().into()))
    }
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Str(name)) => Rounding::from_name(name)
                .ok_or_else(|| format!("expected {}, found `{name}`", Self::kind())),
            Some(other) => Err(format!("expected {}, found `{other}`", Self::kind())),
            None => Err(format!(
                "expected {}, but the attribute is missing",
                Self::kind()
            )),
        }
    }
}

/// The format in which elements of `dtype` are encoded, for types of at most 16 bits.
fn format_of(dtype: DType) -> Option<MiniFloat> {
    Some(match dtype {
        DType::Cfp8E4M3 => formats::CFP8_143,
        DType::Cfp8E5M2 => formats::CFP8_152,
        DType::Shp => formats::SHP,
        DType::Uhp => formats::UHP,
        DType::Bf16 => formats::BF16,
        DType::F16 => formats::F16,
        _ => return None,
    })
}

fn check_format(dtype: DType) -> Result<(), TypeError> {
    match format_of(dtype) {
        Some(_) => Ok(()),
        None => {
            type_error!("expected cfp8_143, cfp8_152, shp, uhp, bf16 or f16, found {dtype}")
        }
    }
}

fn check_bias(bias: &Type) -> Result<(), TypeError> {
    if *bias != Type::scalar(DType::I32) {
        type_error!("the exponent bias must be i32[], found {bias}");
    }
    Ok(())
}

fn read_bias(format: &MiniFloat, bias: &Tensor) -> Result<Bias, EvalError> {
    if matches!(format.bias_rule(), BiasRule::Fixed(_)) {
        return Ok(Bias::ZERO);
    }
    let value = bias.get(0).to_int();
    let bias = u8::try_from(value).ok().and_then(Bias::new);
    bias.ok_or_else(|| {
        EvalError::value(format!(
            "the exponent bias is {value}, it must be from 0 to {}",
            Bias::MAX
        ))
    })
}

fn format_for_eval(dtype: DType) -> Result<MiniFloat, EvalError> {
    format_of(dtype).ok_or_else(|| EvalError::value(format!("{dtype} is not an encoded format")))
}

impl OpDef for Encode {
    const NAMES: &'static [&'static str] = &["encode"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let (x, bias) = match self.rounding {
            Rounding::NearestEven => {
                let [x, bias] = arity(args)?;
                (x, bias)
            }
            Rounding::Stochastic => {
                let [x, bias, noise] = arity(args)?;
                if *noise != x.with_dtype(DType::U32) {
                    type_error!(
                        "the noise must be {}, found {noise}",
                        x.with_dtype(DType::U32)
                    );
                }
                (x, bias)
            }
        };
        check_format(self.to)?;
        check_bias(bias)?;
        if !matches!(x.dtype, DType::F32 | DType::F16 | DType::Bf16) {
            type_error!("expected f32, f16 or bf16 to encode, found {}", x.dtype);
        }
        Ok(vec![x.with_dtype(self.to)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = args[0].convert(DType::F32);
        let format = format_for_eval(self.to)?;
        let bias = read_bias(&format, &args[1])?;
        let values = x.stored::<f32>();
        let codes = values.iter().enumerate().map(|(i, x)| {
            let noise = args.get(2).map(|noise| noise.get(i).to_int() as u32);
            format.encode(*x, bias, noise)
        });
        let codes = codes.collect::<Vec<u16>>();
        Ok(vec![if self.to.bytes() == 1 {
            let codes = codes.into_iter().map(|code| code as u8).collect();
            Tensor::from_stored::<u8>(self.to, x.shape(), codes)
        } else {
            Tensor::from_stored(self.to, x.shape(), codes)
        }])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let split = [true, false, true];
        let dims = split_each_dim(&args[0], &split[..args.len()]);
        Tiling::Kernel(Kernel {
            function: match self.rounding {
                Rounding::NearestEven => KernelFn::Encode,
                Rounding::Stochastic => KernelFn::Other,
            },
            dims,
            index_operands: vec![],
        })
    }

    /// Rounding to bf16 or f16 counts as the identity; codes have no gradient.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        if !self.to.is_float() {
            return Err(NoGrad::NoRule);
        }
        let back = Convert {
            to: cx.b.ty(cx.args[0]).dtype,
            saturate: false,
        };
        let mut grads = vec![None; cx.args.len()];
        grads[0] = Some(cx.b.op(back, &[cx.cotangents[0]])?);
        Ok(grads)
    }

    fn samples() -> Vec<Sample> {
        let mut samples = vec![];
        let sample = |to, rounding, from, shape: &[u64], bias| {
            let mut args = vec![Type::of(from, shape), Type::scalar(DType::I32)];
            if rounding == Rounding::Stochastic {
                args.push(Type::of(DType::U32, shape));
            }
            let sample = Sample::new(Encode { to, rounding }, &args).given(1, bias_tensor(bias));
            match rounding {
                Rounding::NearestEven => sample,
                Rounding::Stochastic => sample.range(2, 0.0, f64::from(u32::MAX)),
            }
        };
        for to in ENCODED {
            for rounding in Rounding::ALL {
                samples.push(sample(to, rounding, DType::F32, &[4, 3], 7));
                samples.push(sample(to, rounding, DType::Bf16, &[5], 15));
            }
            let edges = vec![
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                -0.0,
                1e30,
                -1e30,
                1e-30,
            ];
            let edges = Tensor::from_vec(&[7], edges);
            samples.push(sample(to, Rounding::NearestEven, DType::F32, &[7], 63).given(0, edges));
        }
        samples.push(sample(
            DType::Cfp8E5M2,
            Rounding::NearestEven,
            DType::F16,
            &[2],
            0,
        ));
        samples.push(sample(
            DType::Shp,
            Rounding::Stochastic,
            DType::F32,
            &[],
            31,
        ));
        samples.push(sample(
            DType::Cfp8E4M3,
            Rounding::Stochastic,
            DType::F32,
            &[3, 0],
            31,
        ));
        samples
    }
}

impl OpDef for Decode {
    const NAMES: &'static [&'static str] = &["decode"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [codes, bias] = arity(args)?;
        check_format(codes.dtype)?;
        check_bias(bias)?;
        if !self.to.is_float() {
            type_error!("codes decode to floats, not to {}", self.to);
        }
        Ok(vec![codes.with_dtype(self.to)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let codes = &args[0];
        let format = format_for_eval(codes.dtype())?;
        let bias = read_bias(&format, &args[1])?;
        let bits: Vec<u16> = if codes.dtype().bytes() == 1 {
            codes
                .stored::<u8>()
                .iter()
                .map(|code| u16::from(*code))
                .collect()
        } else {
            codes.stored::<u16>().to_vec()
        };
        let values = bits
            .into_iter()
            .map(|bits| Scalar::F32(format.decode(bits, bias)));
        let values = values.map(|value| value.convert(self.to));
        Ok(vec![Tensor::from_scalars(self.to, codes.shape(), values)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let dims = split_each_dim(&args[0], &[true, false]);
        Tiling::Kernel(Kernel {
            function: KernelFn::Decode,
            dims,
            index_operands: vec![],
        })
    }

    /// From bf16 and f16 it is a conversion; codes have no gradient.
    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let from = cx.b.ty(cx.args[0]).dtype;
        if !from.is_float() {
            return Err(NoGrad::NoRule);
        }
        let back = Convert {
            to: from,
            saturate: false,
        };
        Ok(vec![Some(cx.b.op(back, &[cx.cotangents[0]])?), None])
    }

    fn samples() -> Vec<Sample> {
        let decode = |from: DType, to, shape: &[u64], bias| {
            let args = [Type::of(from, shape), Type::scalar(DType::I32)];
            let sample = Sample::new(Decode { to }, &args).given(1, bias_tensor(bias));
            match from.is_float() {
                true => sample,
                false => sample.range(0, 0.0, 2f64.powi(8 * from.bytes() as i32) - 1.0),
            }
        };
        let mut samples = vec![];
        for from in ENCODED {
            for to in [DType::F32, DType::Bf16, DType::F16, DType::F64] {
                samples.push(decode(from, to, &[3, 4], 20));
            }
        }
        samples.push(decode(DType::Cfp8E4M3, DType::F32, &[], 0));
        samples.push(decode(DType::Shp, DType::F32, &[0, 2], 63));
        samples
    }
}

/// The types that can be encoded to.
const ENCODED: [DType; 6] = [
    DType::Cfp8E4M3,
    DType::Cfp8E5M2,
    DType::Shp,
    DType::Uhp,
    DType::Bf16,
    DType::F16,
];

fn bias_tensor(bias: i128) -> Tensor {
    Tensor::scalar(DType::I32, Scalar::Int(bias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn run(op: impl Into<Op>, args: &[Tensor]) -> Result<Tensor, EvalError> {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
        let mut results = op.into().eval(args, &mut EvalCx::new(&mut none))?;
        Ok(results.remove(0))
    }

    #[test]
    fn decoding_inverts_encoding_of_values_that_the_format_has() {
        let x = Tensor::from_vec(&[4], vec![0.0f32, 1.0, 0.75, 2.5]);
        for to in ENCODED {
            for rounding in Rounding::ALL {
                let bias = bias_tensor(7);
                let mut args = vec![x.clone(), bias.clone()];
                if rounding == Rounding::Stochastic {
                    args.push(Tensor::splat(
                        DType::U32,
                        &[4],
                        Scalar::Int(u32::MAX.into()),
                    ));
                }
                let codes = run(Encode { to, rounding }, &args).unwrap();
                assert_eq!(codes.dtype(), to);
                let back = run(Decode { to: DType::F32 }, &[codes, bias]).unwrap();
                assert_eq!(back, x, "{to} {rounding}");
            }
        }
    }

    #[test]
    fn noise_decides_between_the_neighbours() {
        let bias = bias_tensor(7);
        // 1.03125 lies a quarter of the way from 1 to the next cfp8_143, 1.125.
        let x = Tensor::splat(DType::F32, &[4], Scalar::F32(1.03125));
        let noise = Tensor::from_vec(&[4], vec![0u32, 3 << 30, (3 << 30) - 1, u32::MAX]);
        let op = Encode {
            to: DType::Cfp8E4M3,
            rounding: Rounding::Stochastic,
        };
        let codes = run(op, &[x, bias.clone(), noise]).unwrap();
        let values = run(Decode { to: DType::F64 }, &[codes, bias]).unwrap();
        assert_eq!(values.to_f64s(), [1.0, 1.125, 1.0, 1.125]);
    }

    #[test]
    fn a_bias_out_of_range_is_an_error_unless_it_is_ignored() {
        let x = Tensor::from_vec(&[1], vec![1.0f32]);
        for bias in [-1, 64] {
            let encode = |to| {
                let op = Encode {
                    to,
                    rounding: Rounding::NearestEven,
                };
                run(op, &[x.clone(), bias_tensor(bias)])
            };
            assert!(
                encode(DType::Shp)
                    .unwrap_err()
                    .message
                    .contains("from 0 to 63")
            );
            assert!(encode(DType::Uhp).is_ok());
        }
    }
}
