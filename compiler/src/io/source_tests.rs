use super::*;

fn model_in(folder: &Path) -> ModelFiles {
    let path = folder.join("model.onnx");
    fs::write(&path, b"model").unwrap();
    ModelFiles::open(path).unwrap()
}

#[test]
fn files_open_or_say_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    fs::write(&path, b"abc").unwrap();
    let file = SourceFile::open(&path).unwrap();
    assert_eq!(
        (&*file.name, &file.bytes[..], file.len()),
        ("a.bin", &b"abc"[..], 3)
    );
    assert_eq!(file.slice(1, 2).unwrap(), "bc");
    for (offset, len) in [(2, 2), (4, 0), (u64::MAX, 2)] {
        assert_eq!(file.slice(offset, len).unwrap_err().code, code::DATA_SIZE);
    }

    fs::write(&path, b"").unwrap();
    assert!(SourceFile::open(&path).unwrap().is_empty());
    let failure = |path: &Path| SourceFile::open(path).unwrap_err();
    assert_eq!(failure(folder.path()).code, code::NOT_A_FILE);
    assert_eq!(failure(&folder.path().join("none")).code, code::NOT_FOUND);
    assert_eq!(failure(&path.join("below")).code, code::READ);
    #[cfg(unix)]
    assert_eq!(failure(Path::new("/dev/null")).code, code::NOT_A_FILE);
    assert_eq!(
        IoError::reading("x", &std::io::ErrorKind::PermissionDenied.into()).code,
        code::PERMISSION
    );
}

#[test]
fn external_files_are_mapped_once() {
    let folder = tempfile::tempdir().unwrap();
    let files = model_in(folder.path());
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/w.bin"), b"weights").unwrap();
    let first = files.external("w", "sub/w.bin").unwrap();
    let again = files.external("v", "./sub//w.bin").unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(
        (&*first.name, &first.bytes[..]),
        ("sub/w.bin", &b"weights"[..])
    );
}

#[test]
fn external_paths_stay_in_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(outer.path().join("secret"), b"secret").unwrap();
    fs::create_dir(folder.join("sub")).unwrap();
    let files = model_in(&folder);
    let absolute = outer.path().join("secret");
    for location in [
        "../secret",
        "sub/../../secret",
        "sub/../model.onnx",
        "",
        ".",
        "a\0b",
    ]
    .into_iter()
    .chain(absolute.to_str())
    {
        let error = files.external("w", location).unwrap_err();
        assert_eq!(error.code, code::EXTERNAL_PATH, "{location}: {error}");
        assert!(
            error.message.contains("`w`") && error.message.contains(location),
            "{error}"
        );
        assert!(error.help.is_some());
    }
    assert_eq!(
        files.external("w", "none").unwrap_err().code,
        code::NOT_FOUND
    );
    assert_eq!(
        files.external("w", "sub").unwrap_err().code,
        code::NOT_A_FILE
    );
    let memory = ModelFiles::in_memory(SourceFile::from_bytes("<stdin>", &b"model"[..]));
    assert_eq!(
        memory.external("w", "w.bin").unwrap_err().code,
        code::EXTERNAL_NO_FOLDER
    );
}

#[cfg(unix)]
#[test]
fn links_may_not_lead_out_of_the_folder() {
    use std::os::unix::fs::symlink;
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    // A folder whose name starts with that of the model's is still another folder.
    fs::create_dir(outer.path().join("model2")).unwrap();
    fs::write(outer.path().join("model2/secret"), b"secret").unwrap();
    fs::write(folder.join("inside"), b"inside").unwrap();
    symlink(outer.path().join("model2/secret"), folder.join("file_link")).unwrap();
    symlink(outer.path().join("model2"), folder.join("folder_link")).unwrap();
    symlink("inside", folder.join("fine")).unwrap();
    let files = model_in(&folder);
    for location in ["file_link", "folder_link/secret"] {
        let error = files.external("w", location).unwrap_err();
        assert_eq!(error.code, code::EXTERNAL_ESCAPE, "{error}");
    }
    assert_eq!(files.external("w", "fine").unwrap().bytes, "inside");

    // The model's own folder may be reached through a link.
    symlink(&folder, outer.path().join("alias")).unwrap();
    let files = ModelFiles::open(outer.path().join("alias/model.onnx")).unwrap();
    assert_eq!(files.external("w", "inside").unwrap().bytes, "inside");
}
