//! The errors of this module and their codes.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// Stable code, one of [`CODES`]; shown as `D0501`.
    pub code: u16,
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    /// What is wrong: names the tensor and gives the figures that disagree.
    pub message: String,
    /// What would help.
    pub help: Option<String>,
}

impl IoError {
    /// An error without a file or help.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            path: None,
            message: message.into(),
            help: None,
        }
    }

    /// The same error about a file.
    #[must_use]
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.path = Some(path.as_ref().to_path_buf());
        self
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The error for a failed read: its code follows the kind of failure.
    pub fn reading(path: impl AsRef<Path>, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => code::NOT_FOUND,
            io::ErrorKind::PermissionDenied => code::PERMISSION,
            _ => code::READ,
        };
        Self::new(code, format!("cannot read the file: {error}")).at(path)
    }

    /// The error for a failed write.
    pub fn writing(path: impl AsRef<Path>, error: &io::Error) -> Self {
        Self::new(code::WRITE, format!("cannot write the file: {error}")).at(path)
    }
}

impl std::fmt::Display for IoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "D{:04}: ", self.code)?;
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for IoError {}

macro_rules! codes {
    ($($name:ident = $number:literal, $title:literal, $long:literal;)*) => {
        /// The codes of [`IoError`], by name.
        pub mod code {
            $(#[doc = $title] pub const $name: u16 = $number;)*
        }

        /// All codes of [`IoError`]: number, title, explanation.
        pub const CODES: &[(u16, &str, &str)] = &[$(($number, $title, $long)),*];
    };
}

codes! {
    NOT_FOUND = 500, "file not found",
        "There is no file at this path. Paths on the command line are relative to the current \
         folder; a model's external data files are looked up beside the model.";
    NOT_A_FILE = 501, "not a regular file",
        "The path names a folder or a device. Input files are memory-mapped, so they must be \
         regular files.";
    PERMISSION = 502, "no permission to read",
        "The operating system refused to open the file for reading.";
    READ = 503, "read failed",
        "The operating system reported an error while the file was opened or mapped.";
    WRITE = 505, "write failed",
        "The output could not be written: the disk may be full, or the folder not writable. \
         Outputs are written to a temporary file in the same folder and renamed when complete, \
         so an older file at this path is as it was.";
    WRITE_TARGET = 506, "output path cannot be written",
        "The output path is a folder, its folder does not exist, or the file there is \
         read-only.";
    BAD_MODEL = 510, "not an ONNX model",
        "The file does not decode as an ONNX ModelProto with a graph: it is empty, truncated, \
         damaged, or of another format.";
    BAD_TENSOR_FILE = 511, "not an ONNX tensor",
        "The file does not decode as an ONNX TensorProto: it is truncated, damaged, or of another \
         format. Files of sequences and optional values are of this kind: dojoc has no such \
         values.";
    BAD_DIMS = 512, "impossible tensor shape",
        "A dimension is negative, or the number of elements does not fit in 64 bits.";
    DATA_SIZE = 513, "tensor data does not match its shape",
        "The tensor's shape and element type ask for another amount of data than it has.";
    UNSUPPORTED_DTYPE = 514, "element type not supported",
        "The tensor has an element type that dojoc cannot hold: strings, complex numbers, and \
         the types of 2, 4 and 6 bits and the 8-bit floats of ONNX.";
    UNKNOWN_DTYPE = 515, "unknown element type",
        "The tensor's element type is missing or is a number that ONNX 1.23 does not define.";
    DATA_FIELD = 516, "tensor data in the wrong field",
        "An ONNX tensor keeps its values in `raw_data`, in the one typed field that belongs to \
         its element type, or in an external file. This one uses another field, or two at once, \
         or is a segment of a larger tensor.";
    VALUE_RANGE = 517, "value out of range",
        "Short integers and 16-bit floats are stored in wider fields. A value there does not fit \
         the tensor's element type.";
    EXTERNAL_KEYS = 520, "malformed external data entry",
        "External data is described by `location`, `offset` and `length`; the location must be \
         given, and the numbers must be plain decimal digits, each key once.";
    EXTERNAL_PATH = 521, "external data path not allowed",
        "An external data location must be a relative path without `..`: a model may refer only \
         to files in its own folder and below.";
    EXTERNAL_ESCAPE = 522, "external data leaves the model's folder",
        "The external data file is reached through a symbolic link that leads out of the model's \
         folder. Put the file itself, or a copy, beside the model.";
    EXTERNAL_RANGE = 523, "external data out of the file",
        "The range that the tensor refers to does not lie inside the external data file, or its \
         length is not that of the tensor. The file may be truncated or belong to another \
         version of the model.";
    EXTERNAL_NO_FOLDER = 524, "external data of a model without a folder",
        "The model was read from a stream or from memory, so there is no folder in which to look \
         for its external data files. Pass the model by path.";
    NPY_FORMAT = 530, "not a .npy array",
        "The header of the NumPy array is damaged or not that of a plain array, or the data is \
         shorter or longer than the header says.";
    NPY_DTYPE = 531, "NumPy type not supported",
        "Arrays of bool, integers of 8 to 64 bits and floats of 16, 32 and 64 bits can be read. \
         NumPy has no bfloat16: store the bits as uint16 under a name that ends in `.bf16`.";
    NPZ_FORMAT = 532, "not a .npz archive",
        "The archive is damaged, has a member that is no array, or the same name twice, or uses a \
         compression method other than none and deflate.";
    TENSOR_NAME = 533, "tensor names cannot be stored",
        "Two tensors to be written have the same name, or a uint16 tensor has a name that ends in \
         `.bf16`, which means a bfloat16 tensor.";
    SAFETENSORS_FORMAT = 540, "not a .safetensors file",
        "The header is damaged, or the ranges in it do not cover the file exactly.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_range_ascending_and_explained() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (number, title, long) in CODES {
            assert!((500..550).contains(number), "{number}");
            assert!(!title.is_empty() && long.len() > title.len(), "{number}");
        }
    }

    #[test]
    fn display_has_code_path_and_message() {
        let error = IoError::new(code::READ, "cannot read").at("a/b.onnx");
        assert_eq!(error.to_string(), "D0503: a/b.onnx: cannot read");
    }
}
