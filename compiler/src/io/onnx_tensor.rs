//! ONNX model and tensor files: decoding, and finding a tensor's values.

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::error::{IoError, code};
use super::raw::{RawDType, RawTensor, RawTensorSource, TensorData, byte_len, element_count};
use super::source::{ModelFiles, SourceFile, offset_in};
use crate::import::onnx::wire::{DataLocation, DataType, ModelProto, SequenceProto, TensorProto};

/// Decodes a model. Its weights stay where they are: see [`crate::import::onnx::wire`].
///
/// # Errors
/// [`code::BAD_MODEL`] when the file is empty, not a model, or has no graph.
pub fn decode_model(file: &SourceFile) -> Result<ModelProto, IoError> {
    let bad = |message: String| IoError::new(code::BAD_MODEL, message).at(&file.path);
    if file.is_empty() {
        return Err(bad("the file is empty".to_owned()));
    }
    let model = ModelProto::decode(file.bytes.clone()).map_err(|error| {
        bad(format!(
            "the file ({} bytes) is no ONNX model: {error}",
            file.len()
        ))
        .with_help("it may be truncated, or of another format")
    })?;
    if model.graph.is_none() {
        return Err(
            bad("the file decodes as an ONNX model without a graph".to_owned())
                .with_help("it is probably a tensor or a file of another format"),
        );
    }
    Ok(model)
}

/// The element type with an ONNX number.
///
/// # Errors
/// [`code::UNSUPPORTED_DTYPE`] for a type that dojoc cannot hold, [`code::UNKNOWN_DTYPE`] for a
/// number that ONNX does not define, and for its "undefined".
pub fn raw_dtype(number: i32) -> Result<RawDType, IoError> {
    let onnx = DataType::try_from(number).map_err(|_| {
        IoError::new(
            code::UNKNOWN_DTYPE,
            format!("element type {number} is not defined by ONNX"),
        )
    })?;
    Ok(match onnx {
        DataType::Bool => RawDType::Bool,
        DataType::Uint8 => RawDType::U8,
        DataType::Uint16 => RawDType::U16,
        DataType::Uint32 => RawDType::U32,
        DataType::Uint64 => RawDType::U64,
        DataType::Int8 => RawDType::I8,
        DataType::Int16 => RawDType::I16,
        DataType::Int32 => RawDType::I32,
        DataType::Int64 => RawDType::I64,
        DataType::Float16 => RawDType::F16,
        DataType::Bfloat16 => RawDType::BF16,
        DataType::Float => RawDType::F32,
        DataType::Double => RawDType::F64,
        DataType::Undefined => {
            return Err(IoError::new(
                code::UNKNOWN_DTYPE,
                "the element type is not given",
            ));
        }
        DataType::String
        | DataType::Complex64
        | DataType::Complex128
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Float8e8m0
        | DataType::Uint4
        | DataType::Int4
        | DataType::Float4e2m1
        | DataType::Uint2
        | DataType::Int2
        | DataType::Float6e2m3
        | DataType::Float6e3m2 => {
            return Err(IoError::new(
                code::UNSUPPORTED_DTYPE,
                format!("element type {} is not supported", onnx.onnx_name()),
            ));
        }
    })
}

/// Type, shape and place of the values of a tensor that was decoded from `files.model()`.
///
/// Values in `raw_data`, `float_data` and `double_data` are ranges of the model file, external ones
/// of their files; those in the other fields are decoded. An external tensor without `length` takes
/// as many bytes as its shape asks for.
///
/// # Errors
/// Of type and shape [`code::UNSUPPORTED_DTYPE`], [`code::UNKNOWN_DTYPE`], [`code::BAD_DIMS`]; of
/// the values [`code::DATA_FIELD`], [`code::DATA_SIZE`], [`code::VALUE_RANGE`]; of external files
/// [`code::EXTERNAL_KEYS`], [`code::EXTERNAL_RANGE`] and those of [`ModelFiles::external`]. Each
/// names the tensor.
pub fn tensor_raw(tensor: &TensorProto, files: &ModelFiles) -> Result<TensorData, IoError> {
    let name = if tensor.name.is_empty() {
        "(unnamed)"
    } else {
        tensor.name.as_str()
    };
    let reader = Reader {
        tensor,
        name,
        files,
    };
    let about = |error: IoError| reader.error(error.code, &error.message);

    let dtype = raw_dtype(tensor.data_type).map_err(about)?;
    let shape = reader.shape()?;
    let count = element_count(&shape).map_err(about)?;
    let len = byte_len(dtype, &shape).map_err(about)?;
    if tensor.segment.is_some() {
        return Err(reader.error(code::DATA_FIELD, "it is a segment of a larger tensor"));
    }
    let source = match DataLocation::try_from(tensor.data_location) {
        Ok(DataLocation::Default) => reader.inline(dtype, count, len)?,
        Ok(DataLocation::External) => reader.external(dtype, len)?,
        Err(_) => {
            let message = format!("data location {} is not defined", tensor.data_location);
            return Err(reader.error(code::DATA_FIELD, &message));
        }
    };
    Ok(TensorData {
        dtype,
        shape,
        source,
    })
}

/// Reads a file that holds one ONNX tensor (`input_0.pb`): its name, which may be empty, and the
/// tensor.
///
/// A serialised tensor does not say that it is one. Files that hold a sequence or an optional
/// value, whose fields share numbers with those of a tensor, are recognised and refused.
///
/// # Errors
/// [`code::BAD_TENSOR_FILE`] and those of [`SourceFile::open`] and [`tensor_raw`].
pub fn read_tensor_file(path: impl AsRef<Path>) -> Result<(String, RawTensor), IoError> {
    let files = ModelFiles::open(path)?;
    read_tensor(&files)
}

/// As [`read_tensor_file`], from a file that is open.
///
/// # Errors
/// As [`read_tensor_file`].
pub fn read_tensor(files: &ModelFiles) -> Result<(String, RawTensor), IoError> {
    let file = files.model();
    let bad = |message: &str| IoError::new(code::BAD_TENSOR_FILE, message).at(&file.path);
    if let Some(what) = sequence_kind(&file.bytes) {
        return Err(bad(&format!("the file holds {what}, not a tensor"))
            .with_help("dojoc has no sequences, maps or optional values"));
    }
    let tensor = TensorProto::decode(file.bytes.clone())
        .map_err(|error| bad(&format!("the file is no ONNX tensor: {error}")))?;
    let data = tensor_raw(&tensor, files)?;
    Ok((tensor.name, data.load()?))
}

/// What a file holds that is a sequence or an optional value rather than a tensor.
///
/// Both messages have their content in the field whose number is `elem_type` plus two. In a tensor
/// these two would be the element type and, for the types 1 to 5, the segment, or values in a field
/// that does not belong to the type, except that type 3 (INT8) does have its values in field 5.
/// Such a tensor is not taken for a list of lists, because its `dims`, unpacked as `onnx.proto` has
/// them, have another wire type than a list's name, and a scalar's value alone is no message.
fn sequence_kind(bytes: &Bytes) -> Option<&'static str> {
    let value = SequenceProto::decode(bytes.clone()).ok()?;
    match value.elem_type {
        1 if !value.tensor_values.is_empty() => Some("a sequence or optional value of tensors"),
        2 if !value.sparse_tensor_values.is_empty() => {
            Some("a sequence or optional value of sparse tensors")
        }
        3 if !value.sequence_values.is_empty() => Some("a sequence or optional value of sequences"),
        4 if !value.map_values.is_empty() => Some("a sequence or optional value of maps"),
        5 if !value.optional_values.is_empty() => {
            Some("a sequence or optional value of optional values")
        }
        _ => None,
    }
}

/// A tensor being read, with what its errors mention.
struct Reader<'a> {
    tensor: &'a TensorProto,
    name: &'a str,
    files: &'a ModelFiles,
}

impl Reader<'_> {
    fn error(&self, code: u16, message: &str) -> IoError {
        IoError::new(code, format!("tensor `{}`: {message}", self.name))
            .at(&self.files.model().path)
    }

    fn shape(&self) -> Result<Vec<u64>, IoError> {
        let dims = &self.tensor.dims;
        dims.iter()
            .map(|&dim| u64::try_from(dim))
            .collect::<Result<_, _>>()
            .map_err(|_| {
                self.error(
                    code::BAD_DIMS,
                    &format!("shape {dims:?} has a negative dimension"),
                )
            })
    }

    /// The fields that hold values, in the order of their numbers.
    fn fields(&self) -> Vec<&'static str> {
        let tensor = self.tensor;
        let chunks = |chunks: &[Bytes]| chunks.iter().any(|chunk| !chunk.is_empty());
        [
            ("float_data", chunks(&tensor.float_data)),
            ("int32_data", !tensor.int32_data.is_empty()),
            ("string_data", !tensor.string_data.is_empty()),
            ("int64_data", !tensor.int64_data.is_empty()),
            ("raw_data", !tensor.raw_data.is_empty()),
            ("double_data", chunks(&tensor.double_data)),
            ("uint64_data", !tensor.uint64_data.is_empty()),
        ]
        .into_iter()
        .filter_map(|(field, used)| used.then_some(field))
        .collect()
    }

    /// Values in the message: `count` elements, `len` bytes.
    fn inline(&self, dtype: RawDType, count: u64, len: u64) -> Result<RawTensorSource, IoError> {
        let fields = self.fields();
        let field = match fields[..] {
            [] if count == 0 => return Ok(RawTensorSource::Owned(Bytes::new())),
            [] => {
                let message = format!("it has no values, but its shape asks for {count}");
                return Err(self.error(code::DATA_SIZE, &message));
            }
            [field] => field,
            _ => {
                let message = format!("its values are in two fields: {}", fields.join(" and "));
                return Err(self.error(code::DATA_FIELD, &message));
            }
        };
        let own = typed_field(dtype);
        if field != "raw_data" && field != own {
            let message = format!(
                "its values are in `{field}`, but {dtype} values belong in `{own}` or `raw_data`"
            );
            return Err(self.error(code::DATA_FIELD, &message));
        }
        let tensor = self.tensor;
        let data = match field {
            "raw_data" => tensor.raw_data.clone(),
            "float_data" => concat(&tensor.float_data),
            "double_data" => concat(&tensor.double_data),
            "int32_data" => self.decode(&tensor.int32_data, |value| narrow_int32(dtype, value))?,
            "int64_data" => self.decode(&tensor.int64_data, |value| Some(value.to_le_bytes()))?,
            _ if dtype == RawDType::U32 => self.decode(&tensor.uint64_data, |value| {
                u32::try_from(value).ok().map(u32::to_le_bytes)
            })?,
            _ => self.decode(&tensor.uint64_data, |value| Some(value.to_le_bytes()))?,
        };
        if data.len() as u64 != len {
            let message = format!(
                "{dtype}{:?} takes {len} bytes, but `{field}` has {}",
                tensor.dims,
                data.len()
            );
            return Err(self.error(code::DATA_SIZE, &message));
        }
        Ok(match offset_in(&self.files.model().bytes, &data) {
            Some(offset) => RawTensorSource::InFile {
                file: self.files.model().clone(),
                offset,
                len,
            },
            None => RawTensorSource::Owned(data),
        })
    }

    /// Little-endian bytes of values stored in a wider field.
    fn decode<T: Copy + std::fmt::Display, B: AsRef<[u8]>>(
        &self,
        values: &[T],
        encode: impl Fn(T) -> Option<B>,
    ) -> Result<Bytes, IoError> {
        let mut bytes = Vec::new();
        for (index, &value) in values.iter().enumerate() {
            let encoded = encode(value).ok_or_else(|| {
                let message = format!("element {index}, {value}, does not fit the element type");
                self.error(code::VALUE_RANGE, &message)
            })?;
            bytes.extend_from_slice(encoded.as_ref());
        }
        Ok(bytes.into())
    }

    /// Values in another file: `len` bytes.
    fn external(&self, dtype: RawDType, len: u64) -> Result<RawTensorSource, IoError> {
        if let [field, ..] = self.fields()[..] {
            let message = format!("it refers to an external file, but has values in `{field}` too");
            return Err(self.error(code::DATA_FIELD, &message));
        }
        let location = self.key("location")?.ok_or_else(|| {
            self.error(code::EXTERNAL_KEYS, "its external data has no `location`")
        })?;
        let offset = self.number("offset")?.unwrap_or(0);
        let given = self.number("length")?;
        let file = self.files.external(self.name, location)?;
        let range = format!(
            "offset {offset}, length {} of external data file `{location}` of {} bytes",
            given.unwrap_or(len),
            file.len()
        );
        let out_of_range = |message: String| {
            self.error(code::EXTERNAL_RANGE, &message)
                .with_help(OTHER_VERSION)
        };
        if given.is_some_and(|given| given != len) {
            return Err(out_of_range(format!(
                "{dtype}{:?} takes {len} bytes, but it refers to {range}",
                self.tensor.dims
            )));
        }
        if offset.checked_add(len).is_none_or(|end| end > file.len()) {
            return Err(out_of_range(format!(
                "it refers to {range}, which is beyond its end"
            )));
        }
        Ok(RawTensorSource::InFile { file, offset, len })
    }

    /// The value of an external data key.
    fn key(&self, key: &str) -> Result<Option<&str>, IoError> {
        let mut entries = self
            .tensor
            .external_data
            .iter()
            .filter(|entry| entry.key == key);
        let first = entries.next().map(|entry| entry.value.as_str());
        if entries.next().is_some() {
            let message = format!("its external data has `{key}` twice");
            return Err(self.error(code::EXTERNAL_KEYS, &message));
        }
        Ok(first)
    }

    /// The value of an external data key that is a number.
    fn number(&self, key: &str) -> Result<Option<u64>, IoError> {
        let Some(text) = self.key(key)? else {
            return Ok(None);
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Some(number)),
            _ => {
                let message = format!("the `{key}` of its external data is `{text}`, not a number");
                Err(self.error(code::EXTERNAL_KEYS, &message))
            }
        }
    }
}

const OTHER_VERSION: &str = "the file may be truncated or belong to another version of the model";

/// The field of `TensorProto`, other than `raw_data`, for values of this type.
fn typed_field(dtype: RawDType) -> &'static str {
    match dtype {
        RawDType::F32 => "float_data",
        RawDType::F64 => "double_data",
        RawDType::I64 => "int64_data",
        RawDType::U32 | RawDType::U64 => "uint64_data",
        RawDType::Bool
        | RawDType::U8
        | RawDType::U16
        | RawDType::I8
        | RawDType::I16
        | RawDType::I32
        | RawDType::F16
        | RawDType::BF16 => "int32_data",
    }
}

/// The bytes of an `int32_data` value of this type, `None` when it does not fit. 16-bit floats are
/// stored as their bit patterns.
fn narrow_int32(dtype: RawDType, value: i32) -> Option<Vec<u8>> {
    Some(match dtype {
        RawDType::Bool => vec![u8::from(value != 0)],
        RawDType::U8 => u8::try_from(value).ok()?.to_le_bytes().to_vec(),
        RawDType::I8 => i8::try_from(value).ok()?.to_le_bytes().to_vec(),
        RawDType::I16 => i16::try_from(value).ok()?.to_le_bytes().to_vec(),
        RawDType::U16 | RawDType::F16 | RawDType::BF16 => {
            u16::try_from(value).ok()?.to_le_bytes().to_vec()
        }
        _ => value.to_le_bytes().to_vec(),
    })
}

/// The bytes of a packed field: not copied unless the writer split it.
fn concat(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [one] => one.clone(),
        _ => chunks.concat().into(),
    }
}

#[cfg(test)]
#[path = "onnx_tensor_tests.rs"]
mod tests;
