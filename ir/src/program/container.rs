//! The binary form of a program: a `.djx` file.
//!
//! All numbers are little-endian. Offsets count bytes from the start of the file.
//!
//! ```text
//!  0   8  magic: 89 44 4a 58 0d 0a 1a 0a ("DJX" with bytes that a text-mode copy would change)
//!  8   4  format version
//! 12   4  number of sections
//! 16  56  per section: id (4), zero (4), offset (8), length (8), BLAKE3 hash of its bytes (32)
//!     32  BLAKE3 hash of everything before
//!         the sections, in the order of the table, side by side, up to the end of the file
//! ```
//!
//! There are two sections: 1 is the [`Identity`], 2 the [`Program`], both as postcard writes them
//! (<https://postcard.jamesmunns.com>: fields in order of declaration, integers of more than 8 bits
//! as LEB128 with zigzag for signed ones, lists and strings behind their length, enums behind the
//! position of their variant). So the order of fields and variants of the data model is part of the
//! format: a change of it is a new [`FORMAT_VERSION`].
//!
//! There is one file for each program and version of dojoc: reading accepts nothing else, so `encode`
//! of what `decode` gives is the same file again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::verify::structure;
use super::{Affine, MachineRef, Program, TensorId};
use crate::codes;
use crate::diag::{Diagnostic, Diagnostics};
use crate::types::DType;

/// Version of the format. It changes with the data model.
pub const FORMAT_VERSION: u32 = 1;

/// The first bytes of every `.djx` file.
pub const MAGIC: [u8; 8] = *b"\x89DJX\r\n\x1a\n";

const HASH: usize = blake3::OUT_LEN;
const TABLE: usize = 16;
const ROW: usize = 24 + HASH;

/// Ids of the sections, in order.
const SECTIONS: [u32; 2] = [1, 2];
const HEADER: usize = TABLE + SECTIONS.len() * ROW + HASH;

/// What a program is and what it takes, readable without decoding the rest of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the program.
    pub name: Arc<str>,
    /// The machine it is made for.
    pub machine: MachineRef,
    /// Version of the dojoc that wrote the file.
    pub producer: Arc<str>,
    /// Run parameters: name and largest value.
    pub dims: Vec<(Arc<str>, u64)>,
    /// What can be run.
    pub entries: Vec<Signature>,
}

/// An entry point as the user sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature {
    /// Its name.
    pub name: Arc<str>,
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
}

/// An input or output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: DType,
    /// Extents, which may depend on run parameters.
    pub shape: Vec<Affine>,
}

impl Identity {
    /// The identity of a program that this dojoc writes. Tensors that do not exist are left out.
    pub fn of(program: &Program) -> Self {
        let port = |id: &TensorId| {
            let tensor = program.tensors.get(*id)?;
            Some(Port {
                name: tensor.name.clone(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
            })
        };
        let entries = program.entries.values().map(|entry| Signature {
            name: entry.name.clone(),
            inputs: entry.inputs.iter().filter_map(port).collect(),
            outputs: entry.outputs.iter().filter_map(port).collect(),
        });
        Self {
            name: program.name.clone(),
            machine: program.machine.clone(),
            producer: env!("CARGO_PKG_VERSION").into(),
            dims: program.dims.clone(),
            entries: entries.collect(),
        }
    }
}

/// The file of a program. The same program gives the same bytes.
pub fn encode(program: &Program) -> Vec<u8> {
    seal(&[to_bytes(&Identity::of(program)), to_bytes(program)])
}

/// A file of the given identity and program sections, with the checksums they have. For tests: what
/// is in the sections is not looked at.
pub fn seal(sections: &[Vec<u8>; 2]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend(FORMAT_VERSION.to_le_bytes());
    file.extend((SECTIONS.len() as u32).to_le_bytes());
    let mut offset = HEADER as u64;
    for (id, section) in SECTIONS.iter().zip(sections) {
        file.extend(id.to_le_bytes());
        file.extend([0; 4]);
        file.extend(offset.to_le_bytes());
        file.extend((section.len() as u64).to_le_bytes());
        file.extend(blake3::hash(section).as_bytes());
        offset += section.len() as u64;
    }
    let hash = blake3::hash(&file);
    file.extend(hash.as_bytes());
    for section in sections {
        file.extend(section);
    }
    file
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("lists of the data model know their length")
}

/// The program of a file, with sound ids, but not verified.
///
/// Memory is bounded by a multiple of the file's length: a list is not allocated before its elements
/// have been read, beyond one MiB. Nothing recurses.
///
/// # Errors
/// [`codes::NOT_A_DJX`], [`codes::DJX_VERSION`], [`codes::DJX_DAMAGED`], [`codes::DJX_MALFORMED`],
/// and what [`structure`] finds.
pub fn decode(file: &[u8]) -> Result<Program, Diagnostics> {
    let header = Header::read(file)?;
    if file.len() as u64 > header.end {
        let more = file.len() as u64 - header.end;
        return Err(damaged(format!("{more} bytes follow the end of the executable")).into());
    }
    let identity: Identity = from_section("identity", header.section(file, 0)?)?;
    let program: Program = from_section("program", header.section(file, 1)?)?;
    if (Identity {
        producer: identity.producer.clone(),
        ..Identity::of(&program)
    }) != identity
    {
        return Err(malformed("the identity is not that of the program").into());
    }
    let violations = structure(&program).into_iter();
    let found = violations.map(|violation| violation.into_diagnostic(&program, None));
    Diagnostics(found.collect()).ok(program)
}

/// What a file says about itself; its beginning, up to the end of the first section, is enough.
///
/// # Errors
/// As for [`decode`], as far as the file is read.
pub fn identity(file: &[u8]) -> Result<Identity, Diagnostics> {
    Ok(from_section(
        "identity",
        Header::read(file)?.section(file, 0)?,
    )?)
}

fn damaged(message: impl Into<String>) -> Diagnostic {
    Diagnostic::input(codes::DJX_DAMAGED, message)
        .help("copy the file again, or compile or assemble it again")
}

fn malformed(message: impl Into<String>) -> Diagnostic {
    Diagnostic::input(codes::DJX_MALFORMED, message)
}

/// Where the sections lie.
struct Header {
    rows: [Row; SECTIONS.len()],
    end: u64,
}

#[derive(Clone, Copy)]
struct Row {
    start: u64,
    end: u64,
    hash: [u8; HASH],
}

impl Header {
    fn read(file: &[u8]) -> Result<Self, Diagnostic> {
        let start = &file[..file.len().min(MAGIC.len())];
        if file.is_empty() || !MAGIC.starts_with(start) {
            let message = "the file does not begin as a .djx file does";
            return Err(Diagnostic::input(codes::NOT_A_DJX, message));
        }
        let version = number(file, 8, 4).ok_or_else(truncated)?;
        if version != u64::from(FORMAT_VERSION) {
            let message = format!(
                "the executable has format {version}; this dojoc reads format {FORMAT_VERSION}"
            );
            return Err(Diagnostic::input(codes::DJX_VERSION, message)
                .help("compile or assemble the program again"));
        }
        let count = number(file, 12, 4).ok_or_else(truncated)?;
        let rows_end = TABLE as u64 + count * ROW as u64;
        let hash_at = usize::try_from(rows_end).map_err(|_| truncated())?;
        let hash = hash(file, hash_at).ok_or_else(truncated)?;
        if blake3::hash(&file[..hash_at]) != hash {
            return Err(damaged(
                "the checksum of the header differs from its content",
            ));
        }
        if count != SECTIONS.len() as u64 {
            return Err(malformed(format!("the executable has {count} sections")));
        }
        let mut end = HEADER as u64;
        let mut rows = [Row {
            start: 0,
            end: 0,
            hash,
        }; SECTIONS.len()];
        for (at, (row, id)) in rows.iter_mut().zip(SECTIONS).enumerate() {
            *row = Row::read(file, TABLE + at * ROW, id, end)
                .ok_or_else(|| malformed(format!("entry {at} of the section table is wrong")))?;
            end = row.end;
        }
        Ok(Self { rows, end })
    }

    /// The bytes of a section, whose checksum is right.
    fn section<'a>(&self, file: &'a [u8], at: usize) -> Result<&'a [u8], Diagnostic> {
        let row = &self.rows[at];
        let range = usize::try_from(row.start)
            .ok()
            .zip(usize::try_from(row.end).ok());
        let bytes = range.and_then(|(start, end)| file.get(start..end));
        let bytes = bytes.ok_or_else(truncated)?;
        if blake3::hash(bytes) != row.hash {
            let message = format!(
                "the checksum of section {} differs from its content",
                SECTIONS[at]
            );
            return Err(damaged(message));
        }
        Ok(bytes)
    }
}

impl Row {
    /// The row of a section that must have this id and begin at `start`.
    fn read(file: &[u8], at: usize, id: u32, start: u64) -> Option<Self> {
        let expected = (u64::from(id), start);
        let end = start.checked_add(number(file, at + 16, 8)?)?;
        let hash = hash(file, at + 24)?;
        ((number(file, at, 8)?, number(file, at + 8, 8)?) == expected).then_some(Self {
            start,
            end,
            hash,
        })
    }
}

fn truncated() -> Diagnostic {
    damaged("the executable ends too early")
}

/// A little-endian number of up to 8 bytes.
fn number(file: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..bytes].copy_from_slice(file.get(at..at + bytes)?);
    Some(u64::from_le_bytes(number))
}

fn hash(file: &[u8], at: usize) -> Option<[u8; HASH]> {
    file.get(at..at.checked_add(HASH)?)?.try_into().ok()
}

/// A value that is all of a section, in the one way in which it is written.
fn from_section<T: Serialize + for<'de> Deserialize<'de>>(
    name: &str,
    section: &[u8],
) -> Result<T, Diagnostic> {
    let wrong = |why: String| malformed(format!("the {name} section is malformed: {why}"));
    let (value, rest) =
        postcard::take_from_bytes::<T>(section).map_err(|error| wrong(error.to_string()))?;
    if !rest.is_empty() {
        return Err(wrong(format!("{} bytes are left over", rest.len())));
    }
    // Numbers can be written longer than needed; what we would write shows it.
    if postcard::to_stdvec(&value).ok().as_deref() != Some(section) {
        return Err(wrong("it is not written as dojoc writes it".into()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
