//! NumPy's `.npy` files.
//!
//! Arrays of bool, integers of 8 to 64 bits and floats of 16, 32 and 64 bits are read in either byte
//! order and in C or Fortran order, and written little-endian in C order.
//!
//! NumPy has no bfloat16. By convention an array of `uint16` whose name ends in `.bf16` holds bit
//! patterns of bfloat16: `w.bf16` in an archive, `w.bf16.npy` as a file of its own. The suffix is no
//! part of the tensor's name. On an array of another type it means nothing.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar, TypeStr, WriterBuilder};

use super::atomic::write_atomic;
use super::error::{IoError, code};
use super::raw::{RawDType, RawTensor, byte_len};
use super::source::SourceFile;

/// What the name of a bfloat16 array ends in.
pub const BF16_SUFFIX: &str = ".bf16";

/// Reads a `.npy` file. The values are not copied when they are little-endian in C order.
///
/// # Errors
/// [`code::NPY_FORMAT`], [`code::NPY_DTYPE`] and those of [`SourceFile::open`].
pub fn read_npy(path: impl AsRef<Path>) -> Result<RawTensor, IoError> {
    let path = path.as_ref();
    let file = SourceFile::open(path)?;
    let (_, tensor) = parse_npy(&stem(path), &file.bytes).map_err(|error| error.at(path))?;
    Ok(tensor)
}

/// Writes a `.npy` file, whole or not at all. A bfloat16 tensor is written as `uint16`: give the
/// file a name ending in `.bf16.npy` for it to be read back as bfloat16.
///
/// # Errors
/// [`code::TENSOR_NAME`] when the file's name would make a reader take the tensor's type for
/// another, and those of [`write_atomic`].
pub fn write_npy(path: impl AsRef<Path>, tensor: &RawTensor) -> Result<(), IoError> {
    let path = path.as_ref();
    let marked = stem(path).ends_with(BF16_SUFFIX);
    let wrong = match tensor.dtype {
        RawDType::BF16 if !marked => "a bfloat16 tensor is stored under a name ending in .bf16.npy",
        RawDType::U16 if marked => "a name ending in .bf16.npy means a bfloat16 tensor",
        _ => return write_atomic(path, |file| write_array(file, tensor)),
    };
    Err(IoError::new(code::TENSOR_NAME, wrong).at(path))
}

/// A file's name without its `.npy`.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".npy").unwrap_or(&name).to_owned()
}

/// The name under which a tensor is stored as an array.
pub(super) fn array_name(name: &str, dtype: RawDType) -> Result<String, IoError> {
    match dtype {
        RawDType::BF16 => Ok(format!("{name}{BF16_SUFFIX}")),
        RawDType::U16 if name.ends_with(BF16_SUFFIX) => Err(IoError::new(
            code::TENSOR_NAME,
            format!("tensor `{name}` is uint16, but its name means a bfloat16 tensor"),
        )),
        _ => Ok(name.to_owned()),
    }
}

/// Writes header and values.
pub(super) fn write_array(mut file: &mut dyn Write, tensor: &RawTensor) -> io::Result<()> {
    let type_str: TypeStr = type_string(tensor.dtype)
        .parse()
        .map_err(|error: npyz::ParseTypeStrError| io::Error::other(error.to_string()))?;
    npyz::WriteOptions::new_header_only()
        .dtype(DType::new_scalar(type_str))
        .shape(&tensor.shape)
        .writer(&mut file)
        .write_header_only()?;
    file.write_all(&tensor.data)
}

fn type_string(dtype: RawDType) -> &'static str {
    match dtype {
        RawDType::Bool => "|b1",
        RawDType::U8 => "|u1",
        RawDType::U16 | RawDType::BF16 => "<u2",
        RawDType::U32 => "<u4",
        RawDType::U64 => "<u8",
        RawDType::I8 => "|i1",
        RawDType::I16 => "<i2",
        RawDType::I32 => "<i4",
        RawDType::I64 => "<i8",
        RawDType::F16 => "<f2",
        RawDType::F32 => "<f4",
        RawDType::F64 => "<f8",
    }
}

/// The tensor in a `.npy` file's bytes, and its name without a bfloat16 suffix.
pub(super) fn parse_npy(name: &str, bytes: &Bytes) -> Result<(String, RawTensor), IoError> {
    let about = |code, why: &str| IoError::new(code, format!("array `{name}`: {why}"));
    check_header(bytes).map_err(|why| about(code::NPY_FORMAT, why))?;
    let mut rest: &[u8] = bytes;
    let header = NpyHeader::from_reader(&mut rest)
        .map_err(|error| about(code::NPY_FORMAT, &error.to_string()))?;
    let start = bytes.len() - rest.len();

    let (mut dtype, big_endian) = match header.dtype() {
        DType::Plain(ref plain) => element_type(plain).ok_or_else(|| {
            let why = format!("type {plain} is not supported");
            about(code::NPY_DTYPE, &why).with_help(
                "bool, integers of 8 to 64 bits and floats of 16 to 64 bits are; store bfloat16 \
                 as uint16 under a name that ends in `.bf16`",
            )
        })?,
        _ => {
            return Err(about(
                code::NPY_DTYPE,
                "structured arrays are not supported",
            ));
        }
    };
    let mut name = name;
    if dtype == RawDType::U16
        && let Some(plain) = name.strip_suffix(BF16_SUFFIX)
    {
        (name, dtype) = (plain, RawDType::BF16);
    }

    let shape = header.shape().to_vec();
    let expected =
        byte_len(dtype, &shape).map_err(|error| about(code::NPY_FORMAT, &error.message))?;
    let mut data = bytes.slice(start..);
    if data.len() as u64 != expected {
        let why = format!(
            "{dtype}{shape:?} takes {expected} bytes, but there are {}",
            data.len()
        );
        return Err(about(code::NPY_FORMAT, &why));
    }
    if big_endian {
        data = swap_bytes(&data, dtype.size());
    }
    if header.order() == Order::Fortran {
        data = fortran_to_c(&data, &shape, dtype.size());
    }
    Ok((name.to_owned(), RawTensor::new(dtype, shape, data)?))
}

/// Refuses headers that the parser is not safe with: it recurses over brackets, and multiplies the
/// extents without checking.
fn check_header(bytes: &[u8]) -> Result<(), &'static str> {
    const NOT_NPY: &str = "it does not start as a .npy file does";
    const TRUNCATED: &str = "the file ends inside its header";
    const COMPLEX: &str = "the header is not that of a plain array";
    let Some((b"\x93NUMPY", [major, _minor, rest @ ..])) = bytes.split_at_checked(6) else {
        return Err(NOT_NPY);
    };
    let (len, rest) = match (major, rest) {
        (1, [a, b, rest @ ..]) => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        (2 | 3, [a, b, c, d, rest @ ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        (1..=3, _) => return Err(TRUNCATED),
        _ => return Err("its format version is unknown"),
    };
    // NumPy itself refuses headers of more than 10,000 bytes unless told to trust the file.
    if len > 10_000 {
        return Err("the header is longer than 10,000 bytes");
    }
    let header = rest.get(..len).ok_or(TRUNCATED)?;
    let count = |wanted: &[u8]| header.iter().filter(|byte| wanted.contains(byte)).count();
    if count(b"{") > 1 || count(b"([") > 2 || count(b"+\\") > 0 {
        return Err(COMPLEX);
    }
    // Every run of digits is a factor: no product of some of them can overflow if this one does not.
    let mut product = 1u64;
    for run in header.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_') {
        let digits = run
            .iter()
            .position(u8::is_ascii_digit)
            .map_or(&[][..], |at| &run[at..]);
        if digits.is_empty() {
            continue;
        }
        // Digits before letters would be numbers in another notation, such as 0x10 or 1_000.
        let text = std::str::from_utf8(digits).map_err(|_| COMPLEX)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(COMPLEX);
        }
        product = text
            .parse::<u64>()
            .ok()
            .and_then(|number| product.checked_mul(number.max(1)))
            .ok_or("the array has more bytes than fit in 64 bits")?;
    }
    Ok(())
}

/// The type, and whether its values are big-endian.
fn element_type(plain: &TypeStr) -> Option<(RawDType, bool)> {
    let dtype = match (plain.type_char(), plain.size_field()) {
        (TypeChar::Bool, 1) => RawDType::Bool,
        (TypeChar::Uint, 1) => RawDType::U8,
        (TypeChar::Uint, 2) => RawDType::U16,
        (TypeChar::Uint, 4) => RawDType::U32,
        (TypeChar::Uint, 8) => RawDType::U64,
        (TypeChar::Int, 1) => RawDType::I8,
        (TypeChar::Int, 2) => RawDType::I16,
        (TypeChar::Int, 4) => RawDType::I32,
        (TypeChar::Int, 8) => RawDType::I64,
        (TypeChar::Float, 2) => RawDType::F16,
        (TypeChar::Float, 4) => RawDType::F32,
        (TypeChar::Float, 8) => RawDType::F64,
        _ => return None,
    };
    Some((dtype, plain.endianness() == Endianness::Big))
}

fn swap_bytes(data: &[u8], size: usize) -> Bytes {
    let mut swapped = data.to_vec();
    for element in swapped.chunks_exact_mut(size) {
        element.reverse();
    }
    swapped.into()
}

/// Elements whose first index moves fastest, in the order in which the last does.
fn fortran_to_c(data: &[u8], shape: &[u64], size: usize) -> Bytes {
    let mut reordered = Vec::with_capacity(data.len());
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = size as u64;
    for extent in shape {
        strides.push(stride);
        stride = stride.saturating_mul(*extent);
    }
    let mut index = vec![0u64; shape.len()];
    while reordered.len() < data.len() {
        let at: u64 = index
            .iter()
            .zip(&strides)
            .map(|(index, stride)| index * stride)
            .sum();
        reordered.extend_from_slice(&data[at as usize..at as usize + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    reordered.into()
}

#[cfg(test)]
#[path = "npy_tests.rs"]
pub(crate) mod tests;
