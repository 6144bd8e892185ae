//! Concrete tensors: an element type, constant extents and shared row-major bytes.
//!
//! The bytes are a [`bytes::Bytes`]: owned by the tensor or a slice of a memory-mapped file, so
//! that cloning a tensor, or making one of a weight, copies nothing. Elements are little-endian.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use half::{bf16, f16};

use crate::scalar::Scalar;
use crate::types::{DType, Shape, Type};

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian in memory");

/// A Rust type that stores one element.
pub trait Element: bytemuck::Pod + Send + Sync + PartialOrd + fmt::Debug {
    /// The element type it stores; `bool` and the configurable formats are stored as codes.
    const DTYPE: DType;
    /// The stored element as a scalar.
    fn load(self) -> Scalar;
    /// A scalar as stored element: floats are rounded, integers wrap.
    fn store(value: Scalar) -> Self;
}

macro_rules! elements {
    ($($ty:ty, $dtype:ident, $x:ident => $load:expr, $s:ident => $store:expr;)+) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            fn load(self) -> Scalar {
                let $x = self;
                $load
            }
            fn store($s: Scalar) -> Self {
                $store
            }
        }
    )+};
}
elements! {
    u8, U8, x => Scalar::Int(x.into()), s => s.to_int() as u8;
    u16, U16, x => Scalar::Int(x.into()), s => s.to_int() as u16;
    u32, U32, x => Scalar::Int(x.into()), s => s.to_int() as u32;
    u64, U64, x => Scalar::Int(x.into()), s => s.to_int() as u64;
    i8, I8, x => Scalar::Int(x.into()), s => s.to_int() as i8;
    i16, I16, x => Scalar::Int(x.into()), s => s.to_int() as i16;
    i32, I32, x => Scalar::Int(x.into()), s => s.to_int() as i32;
    i64, I64, x => Scalar::Int(x.into()), s => s.to_int() as i64;
    f16, F16, x => Scalar::F32(x.to_f32()), s => match s {
        Scalar::F32(x) => f16::from_f32(x),
        other => f16::from_f64(other.to_f64()),
    };
    bf16, Bf16, x => Scalar::F32(x.to_f32()), s => match s {
        Scalar::F32(x) => bf16::from_f32(x),
        other => bf16::from_f64(other.to_f64()),
    };
    f32, F32, x => Scalar::F32(x), s => match s {
        Scalar::F32(x) => x,
        Scalar::Int(i) => i as f32,
        other => other.to_f64() as f32,
    };
    f64, F64, x => Scalar::F64(x), s => s.to_f64();
}

/// Runs `$body` with `$T` bound to the Rust type that stores elements of `$dtype`: `u8` for `bool`
/// and the 8-bit formats, `u16` for the 16-bit formats.
#[macro_export]
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::types::DType::Bool
            | $crate::types::DType::U8
            | $crate::types::DType::Cfp8E4M3
            | $crate::types::DType::Cfp8E5M2 => {
                type $T = u8;
                $body
            }
            $crate::types::DType::U16 | $crate::types::DType::Shp | $crate::types::DType::Uhp => {
                type $T = u16;
                $body
            }
            $crate::types::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::types::DType::U64 => {
                type $T = u64;
                $body
            }
            $crate::types::DType::I8 => {
                type $T = i8;
                $body
            }
            $crate::types::DType::I16 => {
                type $T = i16;
                $body
            }
            $crate::types::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::types::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::types::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::types::DType::Bf16 => {
                type $T = half::bf16;
                $body
            }
            $crate::types::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::types::DType::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}

struct Owner<T>(Vec<T>);

impl<T: bytemuck::Pod> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A concrete tensor. Cheap to clone: clones share their bytes.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<u64>,
    data: Bytes,
}

/// Why bytes do not make a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeMismatch {
    /// Bytes that the type needs; `None` if it is not addressable.
    pub expected: Option<u64>,
    /// Bytes that were given.
    pub found: u64,
}

impl fmt::Display for SizeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expected {
            Some(expected) => write!(f, "expected {expected} bytes, found {}", self.found),
            None => write!(f, "the tensor is too large to address"),
        }
    }
}

impl std::error::Error for SizeMismatch {}

impl Tensor {
    /// A tensor on existing bytes (row-major, little-endian), shared and not copied. Bool bytes
    /// other than 0 and 1 count as true.
    ///
    /// # Errors
    /// When the length of `data` is not that of the type.
    pub fn from_bytes(dtype: DType, shape: &[u64], data: Bytes) -> Result<Self, SizeMismatch> {
        let ty = Type::of(dtype, shape);
        let expected = ty.max_bytes().filter(|_| ty.addressable());
        if expected != Some(data.len() as u64) {
            return Err(SizeMismatch {
                expected,
                found: data.len() as u64,
            });
        }
        Ok(Self {
            dtype,
            shape: shape.to_vec(),
            data,
        })
    }

    /// A tensor that takes over a vector of elements.
    ///
    /// # Panics
    /// When the number of elements is not that of the shape.
    pub fn from_vec<T: Element>(shape: &[u64], data: Vec<T>) -> Self {
        Self::from_stored(T::DTYPE, shape, data)
    }

    /// As [`from_vec`](Self::from_vec) for types that are stored as codes (`bool`, `cfp8_143`...).
    ///
    /// # Panics
    /// When the number of elements is not that of the shape, or their size not that of `dtype`.
    pub fn from_stored<T: Element>(dtype: DType, shape: &[u64], data: Vec<T>) -> Self {
        assert_eq!(
            size_of::<T>() as u64,
            dtype.bytes(),
            "{dtype} is stored in other elements"
        );
        assert_eq!(
            shape.iter().product::<u64>(),
            data.len() as u64,
            "elements of a {dtype} tensor of shape {shape:?}"
        );
        Self {
            dtype,
            shape: shape.to_vec(),
            data: Bytes::from_owner(Owner(data)),
        }
    }

    /// A tensor of computed elements.
    ///
    /// # Panics
    /// When the number of elements is not that of the shape.
    pub fn from_scalars(
        dtype: DType,
        shape: &[u64],
        values: impl IntoIterator<Item = Scalar>,
    ) -> Self {
        with_element!(dtype, T => {
            let data: Vec<T> = values.into_iter().map(<T as Element>::store).collect();
            Self::from_stored(dtype, shape, data)
        })
    }

    /// A tensor whose elements are all `value`.
    pub fn splat(dtype: DType, shape: &[u64], value: Scalar) -> Self {
        let count = shape.iter().product::<u64>() as usize;
        with_element!(dtype, T => {
            Self::from_stored(dtype, shape, vec![<T as Element>::store(value); count])
        })
    }

    /// A tensor without dimensions.
    pub fn scalar(dtype: DType, value: Scalar) -> Self {
        Self::splat(dtype, &[], value)
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Element type and extents.
    pub fn ty(&self) -> Type {
        Type::new(self.dtype, Shape::of(&self.shape))
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.bytes() as usize
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The bytes, row-major and little-endian.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The elements as stored. Borrowed where the bytes are aligned, as they always are unless
    /// they lie at an odd place of a mapped file.
    ///
    /// # Panics
    /// When `T` has not the size of an element.
    pub fn stored<T: Element>(&self) -> Cow<'_, [T]> {
        assert_eq!(
            size_of::<T>() as u64,
            self.dtype.bytes(),
            "{} is stored otherwise",
            self.dtype
        );
        match bytemuck::try_cast_slice(&self.data) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => {
                let size = size_of::<T>();
                Cow::Owned(
                    self.data
                        .chunks_exact(size)
                        .map(bytemuck::pod_read_unaligned)
                        .collect(),
                )
            }
        }
    }

    /// The element at a row-major position.
    ///
    /// # Panics
    /// When `index` is out of range.
    pub fn get(&self, index: usize) -> Scalar {
        if self.dtype == DType::Bool {
            return Scalar::Bool(self.data[index] != 0);
        }
        with_element!(self.dtype, T => {
            let size = size_of::<T>();
            let bytes = &self.data[index * size..(index + 1) * size];
            bytemuck::pod_read_unaligned::<T>(bytes).load()
        })
    }

    /// All elements in row-major order.
    pub fn scalars(&self) -> impl ExactSizeIterator<Item = Scalar> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// All elements in row-major order as `f64`.
    pub fn to_f64s(&self) -> Vec<f64> {
        self.scalars().map(Scalar::to_f64).collect()
    }

    /// All elements in row-major order as `i64`, clamped to its range; floats are truncated.
    pub fn to_i64s(&self) -> Vec<i64> {
        let clamp = |x: i128| x.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        self.scalars().map(|s| clamp(s.to_int())).collect()
    }

    /// The same elements with other extents.
    ///
    /// # Panics
    /// When the number of elements differs.
    pub fn reshape(&self, shape: &[u64]) -> Self {
        assert_eq!(
            shape.iter().product::<u64>(),
            self.len() as u64,
            "reshape to {shape:?}"
        );
        Self {
            dtype: self.dtype,
            shape: shape.to_vec(),
            data: self.data.clone(),
        }
    }

    /// The elements converted to another type as [`Scalar::convert`] does it.
    pub fn convert(&self, dtype: DType) -> Self {
        if dtype == self.dtype {
            return self.clone();
        }
        Self::from_scalars(dtype, &self.shape, self.scalars().map(|s| s.convert(dtype)))
    }

    /// The elements at the given row-major positions, as a tensor of `shape`; `None` gives `fill`.
    ///
    /// # Panics
    /// When a position is out of range or the count is not that of the shape.
    pub fn select(
        &self,
        shape: &[u64],
        positions: impl IntoIterator<Item = Option<usize>>,
        fill: Scalar,
    ) -> Self {
        with_element!(self.dtype, T => {
            let source = self.stored::<T>();
            let fill = <T as Element>::store(fill);
            let data: Vec<T> =
                positions.into_iter().map(|p| p.map_or(fill, |p| source[p])).collect();
            Self::from_stored(self.dtype, shape, data)
        })
    }
}

/// Equal types and equal bytes: `NaN` equals itself, and zeros of different sign differ.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.data == other.data
    }
}

impl Eq for Tensor {}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        write!(f, "{} [", self.ty())?;
        for (index, value) in self.scalars().take(SHOWN).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match value {
                Scalar::Bool(b) => write!(f, "{comma}{b}")?,
                Scalar::Int(i) => write!(f, "{comma}{i}")?,
                Scalar::F32(x) => write!(f, "{comma}{x}")?,
                Scalar::F64(x) => write!(f, "{comma}{x}")?,
            }
        }
        write!(f, "{}]", if self.len() > SHOWN { ", ..." } else { "" })
    }
}

/// Row-major strides in elements of a tensor of the given extents.
pub fn strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// All index tuples of the given extents in row-major order. A scalar has one empty tuple.
pub fn indices(shape: &[u64]) -> impl Iterator<Item = Vec<u64>> + use<> {
    let shape = shape.to_vec();
    let count = shape.iter().product::<u64>();
    (0..count).map(move |linear| unravel(linear, &shape))
}

/// The index tuple of a row-major position.
pub fn unravel(mut linear: u64, shape: &[u64]) -> Vec<u64> {
    let mut index = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        index[axis] = linear % shape[axis];
        linear /= shape[axis];
    }
    index
}

/// The row-major position of an index tuple.
pub fn ravel(index: &[u64], shape: &[u64]) -> u64 {
    index
        .iter()
        .zip(shape)
        .fold(0, |linear, (i, extent)| linear * extent + i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shared_and_checked() {
        let t = Tensor::from_vec(&[2, 3], vec![0f32, 1., 2., 3., 4., 5.]);
        let again = Tensor::from_bytes(DType::F32, &[3, 2], t.bytes().clone()).unwrap();
        assert_eq!(t.bytes().as_ptr(), again.bytes().as_ptr());
        let wrong = Tensor::from_bytes(DType::F64, &[3, 2], t.bytes().clone()).unwrap_err();
        assert_eq!(
            wrong,
            SizeMismatch {
                expected: Some(48),
                found: 24
            }
        );
    }

    #[test]
    fn unaligned_bytes_are_read_correctly() {
        let mut bytes = vec![0u8];
        bytes.extend(1.5f32.to_le_bytes());
        bytes.extend((-2f32).to_le_bytes());
        let t = Tensor::from_bytes(DType::F32, &[2], Bytes::from(bytes).slice(1..)).unwrap();
        assert_eq!(t.stored::<f32>().as_ref(), [1.5, -2.0]);
        assert_eq!(t.get(1), Scalar::F32(-2.0));
    }

    #[test]
    fn ravel_inverts_unravel() {
        let shape = [2, 3, 4];
        for (linear, index) in indices(&shape).enumerate() {
            assert_eq!(ravel(&index, &shape), linear as u64);
        }
        assert_eq!(indices(&[]).count(), 1);
        assert_eq!(indices(&[3, 0]).count(), 0);
        assert_eq!(strides(&shape), [12, 4, 1]);
    }
}
