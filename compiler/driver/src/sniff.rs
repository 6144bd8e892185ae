//! What a file is, by its contents.

use std::path::Path;

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// An ONNX model, or at least not recognisably anything else that is binary.
    Onnx,
    /// The text form of a level.
    Text,
    /// Something else, described with its article.
    Other(&'static str),
}

/// Beginnings of files that people pass by mistake.
const MAGIC: &[(&[u8], &str)] = &[
    (
        b"PK\x03\x04",
        "a zip archive (a PyTorch checkpoint, `.pt2` or `.npz`?)",
    ),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89DJX", "an executable of dojoc (see `dojoc run`)"),
    (b"\x89HDF\r\n", "an HDF5 file (a Keras model?)"),
    (b"\x80\x02", "a Python pickle (a PyTorch checkpoint?)"),
    (b"\x80\x04", "a Python pickle"),
    (b"GGUF", "a GGUF model"),
    (b"ML\xefR", "MLIR bytecode (StableHLO?)"),
    (b"\x7fELF", "an executable"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer (run `git lfs pull`)",
    ),
];

/// Looks into a file.
pub(crate) fn sniff(path: &Path, bytes: &[u8]) -> FileKind {
    if bytes.is_empty() {
        return FileKind::Other("empty");
    }
    for (magic, what) in MAGIC {
        if bytes.starts_with(magic) {
            return FileKind::Other(what);
        }
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return FileKind::Other("a TFLite model");
    }
    // The header of a safetensors file: a length and a JSON object.
    if bytes.len() > 9 && bytes[8] == b'{' && bytes[5..8] == [0; 3] {
        return FileKind::Other("a safetensors file, which has weights but no graph");
    }
    let head = &bytes[..bytes.len().min(4096)];
    let is_text = head
        .iter()
        .all(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t' | b'\r' | b'\n') || *b >= 0x80);
    let extension = path.extension().and_then(|e| e.to_str());
    if !is_text {
        return FileKind::Onnx;
    }
    let start = String::from_utf8_lossy(head);
    let start = start.trim_start_matches('\u{feff}').trim_start();
    if extension == Some("dojo") || start.starts_with("dojo ") || start.starts_with("//") {
        return FileKind::Text;
    }
    if start.starts_with("module") && start.contains("stablehlo.") {
        return FileKind::Other("StableHLO text, which cannot be imported yet");
    }
    if start.starts_with("module") || start.starts_with("func") {
        return FileKind::Other("a text without the header `dojo graph 1`");
    }
    if start.starts_with('{') || start.starts_with('[') {
        return FileKind::Other("JSON");
    }
    if start.starts_with('<') {
        return FileKind::Other("HTML or XML");
    }
    FileKind::Other("some text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let of = |name: &str, bytes: &[u8]| sniff(Path::new(name), bytes);
        assert_eq!(of("m", b"\x08\x07\x12\x04test"), FileKind::Onnx);
        assert_eq!(of("m", b"dojo graph 1"), FileKind::Text);
        assert_eq!(of("m", b"// a comment\ndojo graph 1"), FileKind::Text);
        assert_eq!(of("m.dojo", b"modul @x"), FileKind::Text);
        let other = |bytes: &[u8], what: &str| match of("m.onnx", bytes) {
            FileKind::Other(found) => assert!(found.contains(what), "{found}"),
            kind => panic!("{kind:?}"),
        };
        other(b"", "empty");
        other(b"PK\x03\x04...", "zip");
        other(b"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors");
        other(b"{\"a\": 1}", "JSON");
        other(b"module { stablehlo.add }", "StableHLO");
        other(b"hello", "some text");
    }
}
