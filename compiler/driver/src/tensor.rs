//! Tensors in and out.

use bytes::Bytes;
use dojoc_compiler::io::{RawDType, RawTensor};
use dojoc_ir::diag::{Diagnostic, Kind};
use dojoc_ir::tensor::{SizeMismatch, Tensor};
use dojoc_ir::types::{DType, Type};

use crate::codes;
use crate::error::Result;

/// A tensor of the caller: element type, extents, and bytes (row-major, little-endian) that stay
/// where they are.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    dtype: DType,
    shape: &'a [u64],
    data: Data<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    Slice(&'a [u8]),
    Tensor(&'a Tensor),
}

impl<'a> TensorView<'a> {
    /// A view of bytes.
    ///
    /// # Errors
    /// When their number is not that of the type.
    pub fn new(
        dtype: DType,
        shape: &'a [u64],
        data: &'a [u8],
    ) -> std::result::Result<Self, SizeMismatch> {
        let expected = Type::of(dtype, shape).max_bytes();
        let found = data.len() as u64;
        if expected != Some(found) {
            return Err(SizeMismatch { expected, found });
        }
        let data = Data::Slice(data);
        Ok(Self { dtype, shape, data })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents.
    pub fn shape(&self) -> &'a [u64] {
        self.shape
    }

    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        match self.data {
            Data::Slice(bytes) => bytes,
            Data::Tensor(tensor) => tensor.bytes(),
        }
    }

    /// A tensor that outlives the view. Copies the bytes, unless the view is of a [`Tensor`].
    pub fn to_tensor(&self) -> Tensor {
        match self.data {
            Data::Tensor(tensor) => tensor.clone(),
            Data::Slice(bytes) => {
                let bytes = Bytes::copy_from_slice(bytes);
                Tensor::from_bytes(self.dtype, self.shape, bytes)
                    .expect("the size was checked when the view was made")
            }
        }
    }
}

impl<'a> From<&'a Tensor> for TensorView<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self {
            dtype: tensor.dtype(),
            shape: tensor.shape(),
            data: Data::Tensor(tensor),
        }
    }
}

/// The types that files hold, with their counterparts.
const STORED: [(RawDType, DType); 13] = [
    (RawDType::Bool, DType::Bool),
    (RawDType::U8, DType::U8),
    (RawDType::U16, DType::U16),
    (RawDType::U32, DType::U32),
    (RawDType::U64, DType::U64),
    (RawDType::I8, DType::I8),
    (RawDType::I16, DType::I16),
    (RawDType::I32, DType::I32),
    (RawDType::I64, DType::I64),
    (RawDType::F16, DType::F16),
    (RawDType::BF16, DType::Bf16),
    (RawDType::F32, DType::F32),
    (RawDType::F64, DType::F64),
];

/// A tensor as read from a file, its bytes shared.
pub fn from_raw(raw: &RawTensor) -> Tensor {
    let found = STORED.iter().find(|(stored, _)| *stored == raw.dtype);
    let dtype = found.map_or(DType::U8, |(_, dtype)| *dtype);
    Tensor::from_bytes(dtype, &raw.shape, raw.data.clone())
        .expect("a tensor from a file has the size of its type")
}

/// A tensor as written to a file, its bytes shared.
///
/// # Errors
/// When files of the kinds that dojoc writes do not hold the type.
pub fn to_raw(name: &str, tensor: &Tensor) -> Result<RawTensor> {
    let found = STORED.iter().find(|(_, dtype)| *dtype == tensor.dtype());
    let Some((dtype, _)) = found else {
        let message = format!("`{name}` is {}, which no file holds", tensor.ty());
        let diagnostic = Diagnostic::new(codes::UNSUPPORTED_STORAGE, Kind::Unsupported, message);
        return Err(diagnostic
            .help("convert it to f32 in the model; bool, integers and f16 to f64 are stored")
            .into());
    };
    Ok(RawTensor::new(
        *dtype,
        tensor.shape().to_vec(),
        tensor.bytes().clone(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_type_has_one_counterpart() {
        for raw in RawDType::ALL {
            let tensor = RawTensor::new(raw, vec![1], Bytes::from(vec![0; raw.size()])).unwrap();
            let tensor = from_raw(&tensor);
            assert_eq!(tensor.dtype().name(), raw.name());
            assert_eq!(to_raw("x", &tensor).unwrap().dtype, raw);
        }
    }

    #[test]
    fn views_are_checked_and_share() {
        let bytes = 1.5f32.to_le_bytes();
        assert!(TensorView::new(DType::F32, &[2], &bytes).is_err());
        let view = TensorView::new(DType::F32, &[1], &bytes).unwrap();
        let tensor = view.to_tensor();
        assert_eq!(tensor.to_f64s(), [1.5]);
        let again = TensorView::from(&tensor).to_tensor();
        assert_eq!(again.bytes().as_ptr(), tensor.bytes().as_ptr());
    }

    #[test]
    fn configurable_formats_are_refused_by_code() {
        let tensor = Tensor::from_stored(DType::Uhp, &[1], vec![0u16]);
        assert_eq!(to_raw("x", &tensor).unwrap_err().exit_code(), 4);
    }
}
