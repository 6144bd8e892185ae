//! Integer vector kernels.

use super::ops::{Compare, IntBinary, Operand};

/// What the kernels need of an integer type.
pub(super) trait Int: Copy + Ord {
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
}

macro_rules! int {
    ($($ty:ty)*) => {$(
        impl Int for $ty {
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self.wrapping_add(b)
            }

            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self.wrapping_sub(b)
            }

            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                self.wrapping_mul(b)
            }
        }
    )*};
}
int!(i32 i64);

#[inline(always)]
fn zip<T: Int, R>(a: &[T], b: Operand<'_, T>, y: &mut [R], f: impl Fn(T, T) -> R) {
    assert_eq!(a.len(), y.len(), "operand and result differ in length");
    match b {
        Operand::Slice(b) => {
            assert_eq!(b.len(), y.len(), "operand and result differ in length");
            for ((a, b), y) in a.iter().zip(b).zip(y) {
                *y = f(*a, *b);
            }
        }
        Operand::Scalar(b) => {
            for (a, y) in a.iter().zip(y) {
                *y = f(*a, b);
            }
        }
    }
}

#[inline(always)]
pub(super) fn binary<T: Int>(op: IntBinary, a: &[T], b: Operand<'_, T>, y: &mut [T]) {
    match op {
        IntBinary::Add => zip(a, b, y, T::add),
        IntBinary::Sub => zip(a, b, y, T::sub),
        IntBinary::Mul => zip(a, b, y, T::mul),
        IntBinary::Min => zip(a, b, y, |a, b| if b < a { b } else { a }),
        IntBinary::Max => zip(a, b, y, |a, b| if b > a { b } else { a }),
    }
}

#[inline(always)]
pub(super) fn compare<T: Int>(op: Compare, a: &[T], b: Operand<'_, T>, y: &mut [u8]) {
    match op {
        Compare::Eq => zip(a, b, y, |a, b| u8::from(a == b)),
        Compare::Ne => zip(a, b, y, |a, b| u8::from(a != b)),
        Compare::Lt => zip(a, b, y, |a, b| u8::from(a < b)),
        Compare::Le => zip(a, b, y, |a, b| u8::from(a <= b)),
        Compare::Gt => zip(a, b, y, |a, b| u8::from(a > b)),
        Compare::Ge => zip(a, b, y, |a, b| u8::from(a >= b)),
    }
}
