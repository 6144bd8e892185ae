//! Memory-mapped input files, and a model's external data files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use memmap2::Mmap;

use super::error::{IoError, code};

/// An input file, mapped whole.
#[derive(Clone)]
pub struct SourceFile {
    /// The path it was opened by; for bytes from elsewhere, their name.
    pub path: PathBuf,
    /// Name for messages and references: the file's name, or for external data its path relative
    /// to the model's folder, with `/` between components.
    pub name: Arc<str>,
    /// The contents. Slices of it keep the map alive.
    pub bytes: Bytes,
}

impl SourceFile {
    /// Opens and maps a file. The contents are read when they are looked at.
    ///
    /// The file must not be changed while the map is in use: values read from it would change, and
    /// a truncated file ends the process when a page that is gone is read. Tools that replace
    /// files by renaming, as this one does, are safe.
    ///
    /// # Errors
    /// [`code::NOT_FOUND`], [`code::NOT_A_FILE`], [`code::PERMISSION`], [`code::READ`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, IoError> {
        let path = path.as_ref();
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        Self::open_named(path, Arc::from(name.as_ref()))
    }

    fn open_named(path: &Path, name: Arc<str>) -> Result<Self, IoError> {
        let regular = |metadata: fs::Metadata| {
            if metadata.is_file() {
                return Ok(metadata.len());
            }
            let what = if metadata.is_dir() {
                "a folder"
            } else {
                "not a regular file"
            };
            Err(IoError::new(
                code::NOT_A_FILE,
                format!("cannot read the file: it is {what}"),
            )
            .at(path))
        };
        // Asked before opening, because opening a named pipe waits for its other end.
        let reading = |error: std::io::Error| IoError::reading(path, &error);
        regular(fs::metadata(path).map_err(reading)?)?;
        let file = File::open(path).map_err(reading)?;
        let len = regular(file.metadata().map_err(reading)?)?;
        let bytes = if len == 0 {
            Bytes::new()
        } else {
            map(&file).map_err(reading)?
        };
        Ok(Self {
            path: path.to_path_buf(),
            name,
            bytes,
        })
    }

    /// Contents that are already in memory, such as those of standard input.
    pub fn from_bytes(name: &str, bytes: impl Into<Bytes>) -> Self {
        Self {
            path: PathBuf::from(name),
            name: Arc::from(name),
            bytes: bytes.into(),
        }
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there are no contents.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A range of the contents, not copied.
    ///
    /// # Errors
    /// [`code::DATA_SIZE`] when the range is not inside the file.
    pub fn slice(&self, offset: u64, len: u64) -> Result<Bytes, IoError> {
        let range = offset
            .checked_add(len)
            .filter(|&end| end <= self.len())
            .and_then(|end| Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?));
        match range {
            Some(range) => Ok(self.bytes.slice(range)),
            None => Err(IoError::new(
                code::DATA_SIZE,
                format!(
                    "{len} bytes at offset {offset} are not inside the {} bytes",
                    self.len()
                ),
            )
            .at(&self.path)),
        }
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SourceFile({}, {} bytes)",
            self.path.display(),
            self.bytes.len()
        )
    }
}

#[expect(
    unsafe_code,
    reason = "mapping a file is unsafe in every library that offers it"
)]
fn map(file: &File) -> std::io::Result<Bytes> {
    // SAFETY: the map is read-only and private to this process' view; nothing here writes to
    // files in place. Another process that changes the file while it is mapped changes the bytes
    // under us, or ends the process by a signal where it truncates it: that is stated in the
    // documentation of `SourceFile::open`. No code relies on the bytes for memory safety: all
    // lengths and offsets taken from them are checked against the length of the map, which is
    // fixed here.
    let map = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}

/// The offset of `part` in `file`, if it is a slice of it (and not a copy, nor empty).
pub fn offset_in(file: &Bytes, part: &Bytes) -> Option<u64> {
    if part.is_empty() {
        return None;
    }
    let (start, first) = (file.as_ptr().addr(), part.as_ptr().addr());
    let offset = first.checked_sub(start)?;
    let end = offset.checked_add(part.len())?;
    (end <= file.len()).then_some(offset as u64)
}

/// A model's file and the external data files that it refers to, each mapped once.
#[derive(Debug)]
pub struct ModelFiles {
    model: Arc<SourceFile>,
    /// Canonical, so that canonical paths of files below it start with it.
    folder: Option<PathBuf>,
    external: Mutex<BTreeMap<PathBuf, Arc<SourceFile>>>,
}

impl ModelFiles {
    /// Opens a model file. External data is looked up in its folder.
    ///
    /// # Errors
    /// As [`SourceFile::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, IoError> {
        let path = path.as_ref();
        let model = SourceFile::open(path)?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = fs::canonicalize(parent).map_err(|error| IoError::reading(parent, &error))?;
        Ok(Self {
            folder: Some(folder),
            ..Self::in_memory(model)
        })
    }

    /// A model without a folder, hence without external data.
    pub fn in_memory(model: SourceFile) -> Self {
        Self {
            model: Arc::new(model),
            folder: None,
            external: Mutex::default(),
        }
    }

    /// The model file.
    pub fn model(&self) -> &Arc<SourceFile> {
        &self.model
    }

    /// The file at `location`, relative to the model's folder, for the tensor named `tensor`.
    ///
    /// # Errors
    /// [`code::EXTERNAL_NO_FOLDER`], [`code::EXTERNAL_PATH`] for an absolute path or one with
    /// `..`, [`code::EXTERNAL_ESCAPE`] for one that leaves the folder by a symbolic link, and those
    /// of [`SourceFile::open`].
    pub fn external(&self, tensor: &str, location: &str) -> Result<Arc<SourceFile>, IoError> {
        let about = |code, why: &str| {
            IoError::new(
                code,
                format!("tensor `{tensor}`: external data file `{location}` {why}"),
            )
            .at(&self.model.path)
        };
        let Some(folder) = &self.folder else {
            return Err(about(
                code::EXTERNAL_NO_FOLDER,
                "cannot be found, because the model was not read from a path",
            )
            .with_help("pass the model by path"));
        };
        let components = relative_components(location)
            .map_err(|why| about(code::EXTERNAL_PATH, why).with_help(STAY_INSIDE))?;
        let joined: PathBuf = std::iter::once(folder.as_path())
            .chain(components.iter().map(Path::new))
            .collect();
        let canonical = fs::canonicalize(&joined).map_err(|error| IoError {
            // Without the tensor's name, so that all tensors of the file have one cause.
            message: format!("cannot open external data file `{location}`: {error}"),
            help: Some(
                "put it where the model expects it, or export the model with its weights inside"
                    .to_owned(),
            ),
            ..IoError::reading(&joined, &error)
        })?;
        if !canonical.starts_with(folder) {
            return Err(about(
                code::EXTERNAL_ESCAPE,
                "is a symbolic link that leads out of the model's folder",
            )
            .with_help("put the file itself, or a copy, beside the model"));
        }
        // Held while opening, so that two threads do not map the same file.
        let mut files = self.external.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(&canonical) {
            return Ok(Arc::clone(file));
        }
        let name = Arc::from(components.join("/"));
        let file = SourceFile::open_named(&canonical, name).map_err(|error| IoError {
            message: format!("tensor `{tensor}`: {}", error.message),
            ..error
        })?;
        let file = Arc::new(file);
        files.insert(canonical, Arc::clone(&file));
        Ok(file)
    }
}

const STAY_INSIDE: &str = "the location must be relative to the model's folder and stay inside it";

/// The components of a relative path, or why it is not one that stays inside its folder.
fn relative_components(location: &str) -> Result<Vec<&str>, &'static str> {
    if location.contains('\0') {
        return Err("is no file name");
    }
    let mut components = Vec::new();
    for component in Path::new(location).components() {
        match component {
            Component::Normal(name) => components.push(name.to_str().ok_or("is no file name")?),
            Component::CurDir => {}
            Component::ParentDir => return Err("has a `..` in its path"),
            Component::RootDir | Component::Prefix(_) => return Err("is an absolute path"),
        }
    }
    if components.is_empty() {
        return Err("is no file name");
    }
    Ok(components)
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
