//! Output files that appear whole or not at all.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::{IoError, code};

/// Writes a file by calling `write` with a temporary file in the same folder, and renames that to
/// `path` when all is written and on disk. Whatever fails, an older file at `path` is as it was,
/// and no part of the new one is left.
///
/// A new file gets the permissions that any new file gets; one that replaces another gets those of
/// the other. A symbolic link stays, and the file it leads to is replaced. Devices and pipes
/// (`/dev/null`, `/dev/stdout`) are written directly, since they cannot be replaced.
///
/// # Errors
/// [`code::WRITE_TARGET`] when `path` is a folder, read-only or in a folder that does not exist;
/// [`code::WRITE`] when writing fails, by `write` or otherwise.
pub fn write_atomic(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), IoError> {
    let path = path.as_ref();
    let failed = |error: io::Error| IoError::writing(path, &error);
    let target = resolve_link(path).map_err(failed)?;
    let refused = |why: String| {
        IoError::new(code::WRITE_TARGET, format!("cannot write the file: {why}")).at(path)
    };

    let existing = match fs::metadata(&target) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refused(error.to_string())),
    };
    if let Some(metadata) = &existing {
        if metadata.is_dir() {
            return Err(refused("it is a folder".to_owned()));
        }
        if !metadata.is_file() {
            let device = fs::OpenOptions::new()
                .write(true)
                .open(&target)
                .map_err(failed)?;
            return write_buffered(&device, write).map_err(failed);
        }
        if metadata.permissions().readonly() {
            return Err(refused("it is read-only".to_owned()));
        }
    }
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(refused(format!(
            "there is no folder `{}`",
            folder.display()
        )));
    }

    let temporary = temporary_in(folder, existing.as_ref()).map_err(failed)?;
    write_buffered(temporary.as_file(), write).map_err(failed)?;
    temporary.as_file().sync_data().map_err(failed)?;
    temporary
        .persist(&target)
        .map_err(|error| failed(error.error))?;
    Ok(())
}

/// Writes `bytes` as [`write_atomic`] does.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_bytes_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), IoError> {
    write_atomic(path, |file| file.write_all(bytes))
}

fn write_buffered(
    file: &File,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffered = BufWriter::with_capacity(1 << 16, file);
    write(&mut buffered)?;
    buffered.flush()
}

/// The path itself, or where the symbolic link there leads.
fn resolve_link(path: &Path) -> io::Result<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => fs::canonicalize(path),
        _ => Ok(path.to_path_buf()),
    }
}

/// A temporary file with the permissions of `like`, or those of a new file.
fn temporary_in(folder: &Path, like: Option<&Metadata>) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".dojoc-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The process' mask applies to this, as it does to any new file.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(folder)?;
    if let Some(metadata) = like {
        temporary
            .as_file()
            .set_permissions(metadata.permissions())?;
    }
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        write_bytes_atomic(&path, b"one").unwrap();
        write_bytes_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["out.bin"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        write_bytes_atomic(&path, b"old").unwrap();
        let error = write_atomic(&path, |file| {
            file.write_all(&[1; 1 << 17])?;
            Err(io::Error::other("no more"))
        })
        .unwrap_err();
        assert_eq!(error.code, code::WRITE);
        assert!(error.message.contains("no more"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out.bin"]);
    }

    #[test]
    fn bad_targets_are_coded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write_bytes_atomic(&file, b"x").unwrap();
        let bad = [
            folder.path().to_path_buf(),
            folder.path().join("none/out"),
            file.join("out"),
        ];
        for path in bad {
            let error = write_bytes_atomic(&path, b"y").unwrap_err();
            assert_eq!(error.code, code::WRITE_TARGET, "{error}");
            assert_eq!(error.path.as_deref(), Some(path.as_path()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn permissions_links_and_devices() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

        write_bytes_atomic(&path, b"1").unwrap();
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").unwrap();
        assert_eq!(mode(&path), mode(&plain));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        write_bytes_atomic(&link, b"2").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            (mode(&path), fs::read(&path).unwrap()),
            (0o640, b"2".to_vec())
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        assert_eq!(
            write_bytes_atomic(&path, b"3").unwrap_err().code,
            code::WRITE_TARGET
        );

        write_bytes_atomic("/dev/null", b"4").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
