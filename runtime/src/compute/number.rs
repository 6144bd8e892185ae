//! Element types of arithmetic, and numbers of attributes as elements of them.

use bytemuck::Pod;
use dojoc_ir::attr::Number;
use dojoc_ir::types::DType;
use half::{bf16, f16};

use super::walk::bytes_of;
use crate::kernels::{self, Binary, Compare, IntBinary, Kernels, Operand, Reduce, Unary, finish};

/// Elements that kernels convert at a time on their way through f32.
const CHUNK: usize = 256;

/// A floating-point type that is computed with in f32.
pub(super) trait Float: Pod {
    /// a = op(a, b) by a kernel, if there is one for the type.
    fn binary_in_place(k: &dyn Kernels, op: Binary, a: &mut [Self], b: Operand<'_, Self>) -> bool;
    fn widen(self) -> f32;
    /// Rounded to nearest even.
    fn narrow(x: f32) -> Self;
    /// Converts a slice exactly, subnormal f32 values as zero.
    fn widen_all(k: &dyn Kernels, x: &[Self], y: &mut [f32]);
    /// Rounds a slice to nearest even.
    fn narrow_all(k: &dyn Kernels, x: &[f32], y: &mut [Self]);
    fn unary(k: &dyn Kernels, op: Unary, x: &[Self], y: &mut [Self]);
    fn binary(k: &dyn Kernels, op: Binary, a: &[Self], b: Operand<'_, Self>, y: &mut [Self]);
    fn fused(k: &dyn Kernels, a: &[Self], b: &[Self], c: &[Self], y: &mut [Self]);
    fn limit(k: &dyn Kernels, low: Self, high: Self, x: &[Self], y: &mut [Self]);
    fn compare(k: &dyn Kernels, op: Compare, a: &[Self], b: Operand<'_, Self>, y: &mut [u8]);
    /// `wide` is memory for a copy.
    fn reduce(k: &dyn Kernels, op: Reduce, x: &[Self], wide: &mut Vec<u64>) -> f32;

    /// A number of an attribute.
    fn of(number: Number) -> Self {
        Self::narrow(match number {
            Number::Int(i) if size_of::<Self>() == 4 => i as f32,
            Number::Int(i) => i as f64 as f32,
            Number::Float(x) if size_of::<Self>() == 4 => x.0 as f32,
            Number::Float(x) => to_odd(x.0),
        })
    }
}

/// An f64 rounded to f32 so that rounding the result to 16 bits is as rounding the f64: a result
/// that is not exact has an odd last bit.
pub(super) fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || x.is_nan() || near.to_bits() & 1 == 1 {
        return near;
    }
    // The value lies between `near` and one of its neighbours, which are odd.
    let away = (f64::from(near).abs() < x.abs()) as u32;
    f32::from_bits(near.to_bits().wrapping_sub(1).wrapping_add(2 * away))
}

macro_rules! by_kernels {
    ($ty:ty, $unary:ident $binary:ident $in_place:ident $mul_add:ident $clamp:ident $compare:ident $reduce:ident) => {
        fn unary(k: &dyn Kernels, op: Unary, x: &[Self], y: &mut [Self]) {
            k.$unary(op, x, y);
        }

        fn binary(k: &dyn Kernels, op: Binary, a: &[Self], b: Operand<'_, Self>, y: &mut [Self]) {
            k.$binary(op, a, b, y);
        }

        fn binary_in_place(
            k: &dyn Kernels,
            op: Binary,
            a: &mut [Self],
            b: Operand<'_, Self>,
        ) -> bool {
            k.$in_place(op, a, b);
            true
        }

        fn fused(k: &dyn Kernels, a: &[Self], b: &[Self], c: &[Self], y: &mut [Self]) {
            k.$mul_add(a, b, c, y);
        }

        fn limit(k: &dyn Kernels, low: Self, high: Self, x: &[Self], y: &mut [Self]) {
            k.$clamp(low.widen(), high.widen(), x, y);
        }

        fn compare(k: &dyn Kernels, op: Compare, a: &[Self], b: Operand<'_, Self>, y: &mut [u8]) {
            k.$compare(op, a, b, y);
        }

        fn reduce(k: &dyn Kernels, op: Reduce, x: &[Self], _wide: &mut Vec<u64>) -> f32 {
            k.$reduce(op, x)
        }
    };
}

impl Float for f32 {
    fn widen(self) -> f32 {
        self
    }

    fn narrow(x: f32) -> Self {
        x
    }

    fn widen_all(k: &dyn Kernels, x: &[Self], y: &mut [f32]) {
        Self::narrow_all(k, x, y);
    }

    fn narrow_all(_k: &dyn Kernels, x: &[f32], y: &mut [Self]) {
        for (x, y) in x.iter().zip(y) {
            *y = finish(*x);
        }
    }

    by_kernels!(f32, unary_f32 binary_f32 binary_in_place_f32 mul_add_f32 clamp_f32 compare_f32 reduce_f32);
}

impl Float for bf16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn narrow(x: f32) -> Self {
        if x.is_nan() {
            bf16::from_bits(0x7FC0)
        } else {
            bf16::from_f32(x)
        }
    }

    fn widen_all(k: &dyn Kernels, x: &[Self], y: &mut [f32]) {
        k.bf16_to_f32(x, y);
    }

    fn narrow_all(k: &dyn Kernels, x: &[f32], y: &mut [Self]) {
        k.f32_to_bf16(x, y);
    }

    by_kernels!(bf16, unary_bf16 binary_bf16 binary_in_place_bf16 mul_add_bf16 clamp_bf16 compare_bf16 reduce_bf16);
}

/// Runs `$body` on parts of equal lengths, with the f16 operands as f32 in buffers.
macro_rules! in_f32 {
    ($k:ident, $y:ident, [$($x:ident),+], |$wide:ident| $body:expr) => {
        for (i, y) in $y.chunks_mut(CHUNK).enumerate() {
            let (start, n) = (i * CHUNK, y.len());
            $(
                let mut buffer = [0f32; CHUNK];
                $k.f16_to_f32(&$x[start..start + n], &mut buffer[..n]);
                let $x = &buffer[..n];
            )+
            let mut buffer = [0f32; CHUNK];
            let $wide = &mut buffer[..n];
            $body;
            $k.f32_to_f16($wide, y);
        }
    };
}

impl Float for f16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn narrow(x: f32) -> Self {
        if x.is_nan() {
            f16::from_bits(0x7E00)
        } else {
            f16::from_f32(x)
        }
    }

    fn widen_all(k: &dyn Kernels, x: &[Self], y: &mut [f32]) {
        k.f16_to_f32(x, y);
    }

    fn narrow_all(k: &dyn Kernels, x: &[f32], y: &mut [Self]) {
        k.f32_to_f16(x, y);
    }

    fn unary(k: &dyn Kernels, op: Unary, x: &[Self], y: &mut [Self]) {
        in_f32!(k, y, [x], |wide| k.unary_f32(op, x, wide));
    }

    fn binary(k: &dyn Kernels, op: Binary, a: &[Self], b: Operand<'_, Self>, y: &mut [Self]) {
        match b {
            Operand::Slice(b) => in_f32!(k, y, [a, b], |wide| k.binary_f32(
                op,
                a,
                Operand::Slice(b),
                wide
            )),
            Operand::Scalar(b) => {
                let b = Operand::Scalar(b.widen());
                in_f32!(k, y, [a], |wide| k.binary_f32(op, a, b, wide));
            }
        }
    }

    fn binary_in_place(
        _k: &dyn Kernels,
        _op: Binary,
        _a: &mut [Self],
        _b: Operand<'_, Self>,
    ) -> bool {
        false
    }

    fn fused(k: &dyn Kernels, a: &[Self], b: &[Self], c: &[Self], y: &mut [Self]) {
        in_f32!(k, y, [a, b, c], |wide| k.mul_add_f32(a, b, c, wide));
    }

    fn limit(k: &dyn Kernels, low: Self, high: Self, x: &[Self], y: &mut [Self]) {
        let (low, high) = (low.widen(), high.widen());
        in_f32!(k, y, [x], |wide| k.clamp_f32(low, high, x, wide));
    }

    fn compare(k: &dyn Kernels, op: Compare, a: &[Self], b: Operand<'_, Self>, y: &mut [u8]) {
        let (mut wide_a, mut wide_b) = ([0f32; CHUNK], [0f32; CHUNK]);
        for (i, y) in y.chunks_mut(CHUNK).enumerate() {
            let (start, n) = (i * CHUNK, y.len());
            let wide_a = &mut wide_a[..n];
            k.f16_to_f32(&a[start..start + n], wide_a);
            let b = match b {
                Operand::Slice(b) => {
                    k.f16_to_f32(&b[start..start + n], &mut wide_b[..n]);
                    Operand::Slice(&wide_b[..n])
                }
                Operand::Scalar(b) => Operand::Scalar(b.widen()),
            };
            k.compare_f32(op, wide_a, b, y);
        }
    }

    fn reduce(k: &dyn Kernels, op: Reduce, x: &[Self], wide: &mut Vec<u64>) -> f32 {
        let wide = bytemuck::cast_slice_mut(bytes_of(wide, 4 * x.len()));
        k.f16_to_f32(x, wide);
        k.reduce_f32(op, wide)
    }
}

/// An integer type.
pub(super) trait Int: Pod + Ord {
    const ZERO: Self;
    const ONE: Self;
    const LEAST: Self;
    const GREATEST: Self;
    fn of_i128(value: i128) -> Self;
    fn to_i128(self) -> i128;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    fn rem(self, b: Self) -> Self;
    fn and(self, b: Self) -> Self;
    fn or(self, b: Self) -> Self;
    fn xor(self, b: Self) -> Self;
    fn shl(self, b: Self) -> Self;
    fn shr(self, b: Self) -> Self;
    fn neg(self) -> Self;
    fn magnitude(self) -> Self;
    fn not(self) -> Self;
    /// By a kernel, if there is one for the type.
    fn binary(
        _k: &dyn Kernels,
        _op: IntBinary,
        _a: &[Self],
        _b: Operand<'_, Self>,
        _y: &mut [Self],
    ) -> bool {
        false
    }

    /// By a kernel, if there is one for the type.
    fn compare(
        _k: &dyn Kernels,
        _op: Compare,
        _a: &[Self],
        _b: Operand<'_, Self>,
        _y: &mut [u8],
    ) -> bool {
        false
    }

    /// A number of an attribute, wrapping.
    fn of(number: Number) -> Self {
        match number {
            Number::Int(i) => Self::of_i128(i),
            Number::Float(x) => Self::of_i128(x.0 as i128),
        }
    }
}

macro_rules! int {
    ($ty:ty, |$x:ident| $abs:expr $(, $binary:ident $compare:ident)?) => {
        impl Int for $ty {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LEAST: Self = <$ty>::MIN;
            const GREATEST: Self = <$ty>::MAX;

            fn of_i128(value: i128) -> Self {
                value as Self
            }

            fn to_i128(self) -> i128 {
                self.into()
            }

            fn add(self, b: Self) -> Self {
                self.wrapping_add(b)
            }

            fn sub(self, b: Self) -> Self {
                self.wrapping_sub(b)
            }

            fn mul(self, b: Self) -> Self {
                self.wrapping_mul(b)
            }

            fn div(self, b: Self) -> Self {
                if b == 0 { 0 } else { self.wrapping_div(b) }
            }

            fn rem(self, b: Self) -> Self {
                if b == 0 { 0 } else { self.wrapping_rem(b) }
            }

            fn and(self, b: Self) -> Self {
                self & b
            }

            fn or(self, b: Self) -> Self {
                self | b
            }

            fn xor(self, b: Self) -> Self {
                self ^ b
            }

            fn shl(self, b: Self) -> Self {
                u32::try_from(b).ok().and_then(|b| self.checked_shl(b)).unwrap_or(0)
            }

            fn shr(self, b: Self) -> Self {
                let by = u32::try_from(b).ok().filter(|b| *b < Self::BITS);
                // Twice, as no single shift empties the type.
                by.map_or(self >> (Self::BITS - 1) >> 1, |b| self >> b)
            }

            fn neg(self) -> Self {
                self.wrapping_neg()
            }

            fn magnitude(self) -> Self {
                let $x = self;
                $abs
            }

            fn not(self) -> Self {
                !self
            }

            $(
                fn binary(
                    k: &dyn Kernels,
                    op: IntBinary,
                    a: &[Self],
                    b: Operand<'_, Self>,
                    y: &mut [Self],
                ) -> bool {
                    k.$binary(op, a, b, y);
                    true
                }

                fn compare(
                    k: &dyn Kernels,
                    op: Compare,
                    a: &[Self],
                    b: Operand<'_, Self>,
                    y: &mut [u8],
                ) -> bool {
                    k.$compare(op, a, b, y);
                    true
                }
            )?
        }
    };
}

int!(u8, |x| x);
int!(u16, |x| x);
int!(u32, |x| x);
int!(u64, |x| x);
int!(i8, |x| x.wrapping_abs());
int!(i16, |x| x.wrapping_abs());
int!(i32, |x| x.wrapping_abs(), binary_i32 compare_i32);
int!(i64, |x| x.wrapping_abs(), binary_i64 compare_i64);

/// Runs `$float` with `$t` as the float type of an element type, or `$int` as the integer type, `$bool`
/// for bool, or `$other` for all else.
macro_rules! by_dtype {
    ($dtype:expr, float $t:ident => $float:expr, int $i:ident => $int:expr, $(bool => $bool:expr,)? _ => $other:expr $(,)?) => {{
        macro_rules! arm {
            (float $ty:ty) => {{
                type $t = $ty;
                $float
            }};
            (int $ty:ty) => {{
                type $i = $ty;
                $int
            }};
        }
        match $dtype {
            dojoc_ir::types::DType::F32 => arm!(float f32),
            dojoc_ir::types::DType::Bf16 => arm!(float half::bf16),
            dojoc_ir::types::DType::F16 => arm!(float half::f16),
            dojoc_ir::types::DType::U8 => arm!(int u8),
            dojoc_ir::types::DType::U16 => arm!(int u16),
            dojoc_ir::types::DType::U32 => arm!(int u32),
            dojoc_ir::types::DType::U64 => arm!(int u64),
            dojoc_ir::types::DType::I8 => arm!(int i8),
            dojoc_ir::types::DType::I16 => arm!(int i16),
            dojoc_ir::types::DType::I32 => arm!(int i32),
            dojoc_ir::types::DType::I64 => arm!(int i64),
            $(dojoc_ir::types::DType::Bool => $bool,)?
            _ => $other,
        }
    }};
}
pub(super) use by_dtype;

/// The bytes of a number as an element, of which as many count as the element has; NaN is
/// canonical. Of types whose values depend on an exponent bias the number is the code.
pub(super) fn element(number: Number, dtype: DType) -> [u8; 8] {
    let mut bytes = [0; 8];
    let mut put = |from: &[u8]| bytes[..from.len()].copy_from_slice(from);
    by_dtype!(dtype,
        float T => put(bytemuck::bytes_of(&canonical(T::of(number)))),
        int T => put(bytemuck::bytes_of(&T::of(number))),
        _ => match (dtype, number) {
            (DType::Bool, Number::Int(i)) => put(&[(i != 0).into()]),
            (DType::Bool, Number::Float(x)) => put(&[(x.0 != 0.0).into()]),
            (DType::F64, Number::Int(i)) => put(&(i as f64).to_ne_bytes()),
            (DType::F64, Number::Float(x)) if x.0.is_nan() => put(&f64::NAN.to_ne_bytes()),
            (DType::F64, Number::Float(x)) => put(&x.0.to_ne_bytes()),
            (_, number) => put(&u16::of(number).to_ne_bytes()[..dtype.bytes() as usize]),
        },
    );
    bytes
}

/// NaN as the kernels have it.
fn canonical<T: Float>(x: T) -> T {
    if x.widen().is_nan() {
        T::narrow(f32::from_bits(kernels::CANONICAL_NAN))
    } else {
        x
    }
}
