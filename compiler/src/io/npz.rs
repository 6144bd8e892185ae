//! NumPy's `.npz` archives: named arrays, see [`super::npy`] for the types.

use std::collections::BTreeSet;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use bytes::Bytes;
use zip::read::ZipFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::atomic::write_atomic;
use super::error::{IoError, code};
use super::npy::{array_name, parse_npy, write_array};
use super::raw::RawTensor;
use super::source::SourceFile;

/// The most that deflate can expand a byte to (zlib's documentation gives 1032).
const DEFLATE_RATIO: u64 = 1032;

/// Reads all arrays of an archive, in the archive's order.
///
/// # Errors
/// [`code::NPZ_FORMAT`] and those of [`super::npy::read_npy`].
pub fn read_npz(path: impl AsRef<Path>) -> Result<Vec<(String, RawTensor)>, IoError> {
    let path = path.as_ref();
    let file = SourceFile::open(path)?;
    parse_npz(&file.bytes).map_err(|error| error.at(path))
}

fn parse_npz(bytes: &Bytes) -> Result<Vec<(String, RawTensor)>, IoError> {
    let bad = |why: String| IoError::new(code::NPZ_FORMAT, why);
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|error| bad(format!("it is no zip archive: {error}")))?;
    let mut names = BTreeSet::new();
    let mut tensors = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let member = archive
            .by_index(index)
            .map_err(|error| bad(format!("member {index} cannot be read: {error}")))?;
        let file_name = member
            .name()
            .map_err(|error| {
                bad(format!(
                    "the name of member {index} cannot be read: {error}"
                ))
            })?
            .into_owned();
        let name = npyz::npz::array_name_from_file_name(&file_name)
            .ok_or_else(|| bad(format!("member `{file_name}` is no array")))?
            .to_owned();
        let contents = member_bytes(member, bytes)
            .map_err(|why| bad(format!("member `{file_name}` cannot be read: {why}")))?;
        let (name, tensor) = parse_npy(&name, &contents)?;
        if !names.insert(name.clone()) {
            return Err(bad(format!("array `{name}` occurs twice")));
        }
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

/// A member's contents, expanded. Its stated size is believed as far as its method allows.
fn member_bytes<R: Read>(mut member: ZipFile<'_, R>, archive: &Bytes) -> Result<Bytes, String> {
    let size = member.size();
    let most = match member.compression() {
        CompressionMethod::Stored => archive.len() as u64,
        CompressionMethod::Deflated => member
            .compressed_size()
            .min(archive.len() as u64)
            .saturating_mul(DEFLATE_RATIO),
        other => return Err(format!("compression method {other:?} is not supported")),
    };
    if size > most {
        return Err(format!(
            "it cannot expand to the {size} bytes that are stated"
        ));
    }
    let mut contents = Vec::new();
    let capacity = usize::try_from(size).map_err(|error| error.to_string())?;
    contents
        .try_reserve_exact(capacity)
        .map_err(|error| error.to_string())?;
    // One byte more than stated, so that a longer member is noticed.
    let read = (&mut member)
        .take(size.saturating_add(1))
        .read_to_end(&mut contents);
    read.map_err(|error| error.to_string())?;
    if contents.len() as u64 != size {
        return Err(format!("it does not have the {size} bytes that are stated"));
    }
    Ok(contents.into())
}

/// Writes an archive, uncompressed as `numpy.savez` does, whole or not at all. The same tensors
/// give the same bytes.
///
/// # Errors
/// [`code::TENSOR_NAME`] when two names are equal or one does not go with its tensor's type, and
/// those of [`write_atomic`].
pub fn write_npz(path: impl AsRef<Path>, tensors: &[(String, RawTensor)]) -> Result<(), IoError> {
    let path = path.as_ref();
    let mut seen = BTreeSet::new();
    let mut members = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let member = array_name(name, tensor.dtype).map_err(|error| error.at(path))?;
        // Read back, `x.bf16` of type bfloat16 and `x` of any other would have the same name.
        if name.contains('\0') || !seen.insert(name) {
            let why = if name.contains('\0') {
                "has a zero byte"
            } else {
                "is used twice"
            };
            let message = format!("the tensor name `{}` {why}", name.escape_debug());
            return Err(IoError::new(code::TENSOR_NAME, message).at(path));
        }
        members.push((npyz::npz::file_name_from_array_name(&member), tensor));
    }
    write_atomic(path, |file| {
        let mut archive = ZipWriter::new_stream(file);
        for (member, tensor) in members {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .last_modified_time(DateTime::default())
                .unix_permissions(0o644)
                .large_file(tensor.data.len() >= 1 << 31);
            archive.start_file(member, options)?;
            write_array(&mut archive, tensor)?;
        }
        archive.finish()?.flush()
    })
}

#[cfg(test)]
#[path = "npz_tests.rs"]
mod tests;
