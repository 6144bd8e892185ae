//! Tensors as files hold them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::error::{IoError, code};
use super::source::SourceFile;

/// Element types that dojoc can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RawDType {
    /// One byte; zero is false, anything else true.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Two's complement, 8 bits.
    I8,
    /// Two's complement, 16 bits.
    I16,
    /// Two's complement, 32 bits.
    I32,
    /// Two's complement, 64 bits.
    I64,
    /// IEEE binary16.
    F16,
    /// The upper half of an IEEE binary32.
    BF16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl RawDType {
    /// All types, in the order of declaration.
    pub const ALL: [Self; 13] = [
        Self::Bool,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::F64,
    ];

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Name as in the IR text: `f32`, `i8`, `bool`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }
}

impl From<RawDType> for DType {
    fn from(raw: RawDType) -> Self {
        match raw {
            RawDType::Bool => DType::Bool,
            RawDType::U8 => DType::U8,
            RawDType::U16 => DType::U16,
            RawDType::U32 => DType::U32,
            RawDType::U64 => DType::U64,
            RawDType::I8 => DType::I8,
            RawDType::I16 => DType::I16,
            RawDType::I32 => DType::I32,
            RawDType::I64 => DType::I64,
            RawDType::F16 => DType::F16,
            RawDType::BF16 => DType::Bf16,
            RawDType::F32 => DType::F32,
            RawDType::F64 => DType::F64,
        }
    }
}

impl fmt::Display for RawDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor with its values: little-endian, row-major, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTensor {
    /// Element type.
    pub dtype: RawDType,
    /// Extents; none for a scalar.
    pub shape: Vec<u64>,
    /// Values: `dtype.size()` times the product of `shape` bytes.
    pub data: Bytes,
}

impl RawTensor {
    /// A tensor of these values.
    ///
    /// # Errors
    /// [`code::BAD_DIMS`] or [`code::DATA_SIZE`] when `data` is not of the size that the others
    /// ask for.
    pub fn new(dtype: RawDType, shape: Vec<u64>, data: Bytes) -> Result<Self, IoError> {
        let expected = byte_len(dtype, &shape)?;
        if data.len() as u64 != expected {
            return Err(IoError::new(
                code::DATA_SIZE,
                format!(
                    "{dtype}{shape:?} takes {expected} bytes, got {}",
                    data.len()
                ),
            ));
        }
        Ok(Self { dtype, shape, data })
    }

    /// The tensor as the IR has it, on the same bytes.
    ///
    /// # Errors
    /// [`code::BAD_DIMS`] when the tensor is too large to address.
    pub fn to_tensor(&self) -> Result<Tensor, IoError> {
        Tensor::from_bytes(self.dtype.into(), &self.shape, self.data.clone())
            .map_err(|error| IoError::new(code::BAD_DIMS, error.to_string()))
    }
}

/// Where a tensor's values are.
#[derive(Clone, Debug)]
pub enum RawTensorSource {
    /// In a file, exactly as [`RawTensor::data`] has them.
    InFile {
        /// The file.
        file: Arc<SourceFile>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// In memory, because the file has another encoding.
    Owned(Bytes),
}

/// A tensor whose values may not have been read yet.
#[derive(Clone, Debug)]
pub struct TensorData {
    /// Element type.
    pub dtype: RawDType,
    /// Extents; none for a scalar.
    pub shape: Vec<u64>,
    /// Where the values are: a range of the right size.
    pub source: RawTensorSource,
}

impl TensorData {
    /// The tensor with its values. Copies nothing: for values in a file the data is a slice of
    /// the memory map.
    ///
    /// # Errors
    /// [`code::DATA_SIZE`] when the source is not of the size of the tensor, which values made in
    /// this module never are.
    pub fn load(&self) -> Result<RawTensor, IoError> {
        let data = match &self.source {
            RawTensorSource::InFile { file, offset, len } => file.slice(*offset, *len)?,
            RawTensorSource::Owned(data) => data.clone(),
        };
        RawTensor::new(self.dtype, self.shape.clone(), data)
    }
}

/// The number of elements of a shape; one for a scalar.
///
/// # Errors
/// [`code::BAD_DIMS`] when it does not fit in 64 bits. A shape with a zero has no elements,
/// whatever its other extents.
pub fn element_count(shape: &[u64]) -> Result<u64, IoError> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1u64, |count, &extent| count.checked_mul(extent))
        .ok_or_else(|| {
            IoError::new(
                code::BAD_DIMS,
                format!("shape {shape:?} has more elements than fit in 64 bits"),
            )
        })
}

/// The number of bytes of a tensor.
pub(super) fn byte_len(dtype: RawDType, shape: &[u64]) -> Result<u64, IoError> {
    element_count(shape)?
        .checked_mul(dtype.size() as u64)
        .ok_or_else(|| {
            IoError::new(
                code::BAD_DIMS,
                format!("{dtype}{shape:?} has more bytes than fit in 64 bits"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_counts() {
        assert_eq!(element_count(&[]).unwrap(), 1);
        assert_eq!(element_count(&[2, 3]).unwrap(), 6);
        assert_eq!(element_count(&[1 << 40, 1 << 40, 0]).unwrap(), 0);
        assert_eq!(
            element_count(&[1 << 40, 1 << 40]).unwrap_err().code,
            code::BAD_DIMS
        );
        assert_eq!(
            byte_len(RawDType::F64, &[1 << 62]).unwrap_err().code,
            code::BAD_DIMS
        );
    }

    #[test]
    fn tensors_check_their_size() {
        let data = Bytes::from_static(&[0; 6]);
        assert!(RawTensor::new(RawDType::I16, vec![3], data.clone()).is_ok());
        assert_eq!(
            RawTensor::new(RawDType::I16, vec![4], data)
                .unwrap_err()
                .code,
            code::DATA_SIZE
        );
    }
}
