//! `.safetensors` files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};

use super::atomic::write_atomic;
use super::error::{IoError, code};
use super::raw::{RawDType, RawTensor, RawTensorSource, TensorData};
use super::source::SourceFile;

/// What a `.safetensors` file holds.
#[derive(Clone, Debug, Default)]
pub struct SafetensorsFile {
    /// Tensors in the file's order, each a range of the file.
    pub tensors: Vec<(String, TensorData)>,
    /// Tensors of types that dojoc cannot hold, each with its [`code::UNSUPPORTED_DTYPE`] error:
    /// whoever asks for one of them can say why it is not there.
    pub unsupported: BTreeMap<String, IoError>,
}

/// Opens a file and reads its header; the values are not touched.
///
/// # Errors
/// [`code::SAFETENSORS_FORMAT`] and those of [`SourceFile::open`].
pub fn open_safetensors(path: impl AsRef<Path>) -> Result<SafetensorsFile, IoError> {
    parse(&Arc::new(SourceFile::open(path)?))
}

fn parse(file: &Arc<SourceFile>) -> Result<SafetensorsFile, IoError> {
    let bad = |error: SafeTensorError| {
        IoError::new(code::SAFETENSORS_FORMAT, error.to_string()).at(&file.path)
    };
    let (header_len, metadata) = SafeTensors::read_metadata(&file.bytes).map_err(bad)?;
    // The values start after the header's length, eight bytes, and the header.
    let start = header_len as u64 + 8;
    let mut contents = SafetensorsFile::default();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let Some(dtype) = raw_dtype(info.dtype) else {
            let message = format!(
                "tensor `{name}`: element type {} is not supported",
                info.dtype
            );
            let error = IoError::new(code::UNSUPPORTED_DTYPE, message).at(&file.path);
            contents.unsupported.insert(name, error);
            continue;
        };
        let (first, last) = info.data_offsets;
        let source = RawTensorSource::InFile {
            file: Arc::clone(file),
            offset: start + first as u64,
            len: (last - first) as u64,
        };
        let shape = info.shape.iter().map(|&extent| extent as u64).collect();
        contents.tensors.push((
            name,
            TensorData {
                dtype,
                shape,
                source,
            },
        ));
    }
    Ok(contents)
}

/// Writes a file, whole or not at all. Tensors are stored by descending size of element, then by
/// name, as the format's own library does; the same tensors give the same bytes.
///
/// # Errors
/// [`code::TENSOR_NAME`] when two names are equal or one is `__metadata__`, which the format
/// reserves, and those of [`write_atomic`].
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[(String, RawTensor)],
) -> Result<(), IoError> {
    let path = path.as_ref();
    let mut names = BTreeSet::new();
    for (name, _) in tensors {
        if name == "__metadata__" || !names.insert(name) {
            let why = if name == "__metadata__" {
                "is reserved"
            } else {
                "is used twice"
            };
            let message = format!("the tensor name `{name}` {why}");
            return Err(IoError::new(code::TENSOR_NAME, message).at(path));
        }
    }
    let mut sorted: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name, tensor))
        .collect();
    sorted.sort_by_key(|(name, tensor)| (std::cmp::Reverse(file_dtype(tensor.dtype)), *name));

    let unsupported = |error: &dyn std::fmt::Display| {
        IoError::new(code::WRITE, format!("cannot write the file: {error}")).at(path)
    };
    let mut end = 0;
    let mut infos = Vec::with_capacity(sorted.len());
    for (name, tensor) in &sorted {
        let shape: Result<Vec<usize>, _> = tensor
            .shape
            .iter()
            .map(|&extent| usize::try_from(extent))
            .collect();
        let start = end;
        end += tensor.data.len();
        let info = TensorInfo {
            dtype: file_dtype(tensor.dtype),
            shape: shape.map_err(|error| unsupported(&error))?,
            data_offsets: (start, end),
        };
        infos.push(((*name).clone(), info));
    }
    let metadata = Metadata::new(None, infos).map_err(|error| unsupported(&error))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| unsupported(&error))?;
    // Padded with spaces, so that the values are aligned in a memory map.
    header.resize(header.len().next_multiple_of(8), b' ');

    write_atomic(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        sorted
            .iter()
            .try_for_each(|(_, tensor)| file.write_all(&tensor.data))
    })
}

fn raw_dtype(dtype: Dtype) -> Option<RawDType> {
    RawDType::ALL
        .into_iter()
        .find(|&raw| file_dtype(raw) == dtype)
}

fn file_dtype(dtype: RawDType) -> Dtype {
    match dtype {
        RawDType::Bool => Dtype::BOOL,
        RawDType::U8 => Dtype::U8,
        RawDType::U16 => Dtype::U16,
        RawDType::U32 => Dtype::U32,
        RawDType::U64 => Dtype::U64,
        RawDType::I8 => Dtype::I8,
        RawDType::I16 => Dtype::I16,
        RawDType::I32 => Dtype::I32,
        RawDType::I64 => Dtype::I64,
        RawDType::F16 => Dtype::F16,
        RawDType::BF16 => Dtype::BF16,
        RawDType::F32 => Dtype::F32,
        RawDType::F64 => Dtype::F64,
    }
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
