//! Arithmetic on slices of elements, for reference semantics that run over whole networks.
//!
//! The functions compute what [`crate::scalar`] computes, element by element and in the order in
//! which the slices lie; multiplication and addition are rounded separately.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use super::dot::accumulator;
use crate::tensor::{Element, Tensor};
use crate::types::DType;

/// An element type in which sums, products and extremes are computed.
pub(crate) trait Arithmetic: Element {
    /// The identity of addition.
    const ZERO: Self;
    /// The identity of multiplication.
    const ONE: Self;
    /// The identity of the maximum.
    const LEAST: Self;
    /// The identity of the minimum.
    const GREATEST: Self;
    /// The sum, wrapping for integers.
    fn plus(self, other: Self) -> Self;
    /// The product, wrapping for integers.
    fn times(self, other: Self) -> Self;
    /// The larger; NaN if either is.
    fn larger(self, other: Self) -> Self;
    /// The smaller; NaN if either is.
    fn smaller(self, other: Self) -> Self;
    /// Whether this is not a number.
    fn undefined(self) -> bool;
}

macro_rules! arithmetic_ints {
    ($($ty:ty),+) => {$(
        impl Arithmetic for $ty {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LEAST: Self = <$ty>::MIN;
            const GREATEST: Self = <$ty>::MAX;
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn larger(self, other: Self) -> Self {
                self.max(other)
            }
            fn smaller(self, other: Self) -> Self {
                self.min(other)
            }
            fn undefined(self) -> bool {
                false
            }
        }
    )+};
}
arithmetic_ints!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! arithmetic_floats {
    ($($ty:ty),+) => {$(
        impl Arithmetic for $ty {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LEAST: Self = <$ty>::NEG_INFINITY;
            const GREATEST: Self = <$ty>::INFINITY;
            fn plus(self, other: Self) -> Self {
                self + other
            }
            fn times(self, other: Self) -> Self {
                self * other
            }
            fn larger(self, other: Self) -> Self {
                if self.is_nan() || other.is_nan() { <$ty>::NAN } else { self.max(other) }
            }
            fn smaller(self, other: Self) -> Self {
                if self.is_nan() || other.is_nan() { <$ty>::NAN } else { self.min(other) }
            }
            fn undefined(self) -> bool {
                self.is_nan()
            }
        }
    )+};
}
arithmetic_floats!(f32, f64);

/// Runs `$body` with `$T` bound to the type in which elements of `$dtype` are summed. For `bool`
/// that is `u8`, of which only the extremes have a meaning.
macro_rules! with_arithmetic {
    ($dtype:expr, $T:ident => $body:expr) => {{
        use $crate::types::DType;
        macro_rules! run {
            ($ty:ty) => {{
                type $T = $ty;
                $body
            }};
        }
        match $dtype {
            DType::F16 | DType::Bf16 | DType::F32 => run!(f32),
            DType::F64 => run!(f64),
            DType::I8 => run!(i8),
            DType::I16 => run!(i16),
            DType::I32 => run!(i32),
            DType::I64 => run!(i64),
            DType::U16 => run!(u16),
            DType::U32 => run!(u32),
            DType::U64 => run!(u64),
            // Shape rules refuse formats whose meaning depends on a bias.
            DType::U8
            | DType::Bool
            | DType::Cfp8E4M3
            | DType::Cfp8E5M2
            | DType::Shp
            | DType::Uhp => run!(u8),
        }
    }};
}
pub(crate) use with_arithmetic;

/// The tensor with elements in the type in which they are summed, and truth values as 0 and 1.
pub(crate) fn widened(tensor: &Tensor) -> Tensor {
    match tensor.dtype() {
        DType::Bf16 => Tensor::from_vec(tensor.shape(), tensor.stored::<bf16>().to_f32_vec()),
        DType::F16 => Tensor::from_vec(tensor.shape(), tensor.stored::<f16>().to_f32_vec()),
        DType::Bool => tensor.convert(DType::U8),
        dtype => tensor.convert(accumulator(dtype)),
    }
}

/// A result as an element type: the way back from [`widened`].
pub(crate) fn narrowed(tensor: &Tensor, dtype: DType) -> Tensor {
    let shape = tensor.shape();
    match (tensor.dtype(), dtype) {
        (DType::F32, DType::Bf16) => {
            let data = tensor
                .stored::<f32>()
                .iter()
                .map(|x| bf16::from_f32(*x))
                .collect();
            Tensor::from_vec::<bf16>(shape, data)
        }
        (DType::F32, DType::F16) => {
            let data = tensor
                .stored::<f32>()
                .iter()
                .map(|x| f16::from_f32(*x))
                .collect();
            Tensor::from_vec::<f16>(shape, data)
        }
        _ => tensor.convert(dtype),
    }
}

/// `sums[i] += factor * x[i * step]`.
pub(crate) fn add_scaled_gather<T: Arithmetic>(sums: &mut [T], x: &[T], step: usize, factor: T) {
    if step == 1 {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = sum.plus(x.times(factor));
        }
    } else {
        for (sum, x) in sums.iter_mut().zip(x.iter().step_by(step)) {
            *sum = sum.plus(x.times(factor));
        }
    }
}

/// `sums[i * step] += factor * x[i]`.
pub(crate) fn add_scaled_scatter<T: Arithmetic>(sums: &mut [T], x: &[T], step: usize, factor: T) {
    if step == 1 {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = sum.plus(x.times(factor));
        }
    } else {
        for (sum, x) in sums.iter_mut().step_by(step).zip(x) {
            *sum = sum.plus(x.times(factor));
        }
    }
}
