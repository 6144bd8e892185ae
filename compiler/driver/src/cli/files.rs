//! Tensors from and to files, as the command line names them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dojoc::tensor::{from_raw, to_raw};
use dojoc::{Diagnostic, Kind, NamedTensors, Result, Tensor, codes};
use dojoc_compiler::io::{IoError, npy, npz, onnx_tensor, safetensors};
use dojoc_ir::types::DType;

use super::Context;

/// `[NAME=]FILE[:KEY]`: a file of tensors, for an input or output, or one array of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Input or output.
    pub name: Option<String>,
    /// File or folder.
    pub path: PathBuf,
    /// Array of an archive.
    pub key: Option<String>,
}

impl std::str::FromStr for TensorSpec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, rest) = match text.split_once('=') {
            // A path that has the sign itself comes behind an empty name: `=a=b.npy`.
            Some(("", rest)) => (None, rest),
            Some((name, rest)) => (Some(name.to_owned()), rest),
            None => (None, text),
        };
        let split = [".npz:", ".safetensors:"].iter().find_map(|mark| {
            let at = rest.find(mark)? + mark.len();
            Some((&rest[..at - 1], &rest[at..]))
        });
        let (path, key) = match split {
            Some((path, key)) => (path, Some(key.to_owned())),
            None => (rest, None),
        };
        if path.is_empty() || key.as_deref() == Some("") {
            return Err("expected [NAME=]FILE[:KEY]".to_owned());
        }
        Ok(Self {
            name,
            path: PathBuf::from(path),
            key,
        })
    }
}

/// A tensor from a file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The name that the command line gives it.
    pub name: Option<String>,
    /// The name that the file gives it.
    pub hint: Option<String>,
    /// Whether it is one of all arrays of an archive, some of which may be for other purposes.
    pub bulk: bool,
    /// Values.
    pub tensor: Tensor,
}

/// All tensors of a file, with their names where the format has names.
fn read_all(path: &Path) -> Result<Vec<(Option<String>, Tensor)>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    match extension {
        "npz" => Ok(npz::read_npz(path)?
            .iter()
            .map(|(name, raw)| (Some(name.clone()), from_raw(raw)))
            .collect()),
        "npy" => Ok(vec![(None, from_raw(&npy::read_npy(path)?))]),
        "pb" => {
            let (name, raw) = onnx_tensor::read_tensor_file(path)?;
            Ok(vec![(Some(name).filter(|n| !n.is_empty()), from_raw(&raw))])
        }
        "safetensors" => {
            let file = safetensors::open_safetensors(path)?;
            let tensors = file.tensors.iter().map(|(name, data)| {
                let raw = data.load()?;
                Ok((Some(name.to_string()), from_raw(&raw)))
            });
            tensors.collect()
        }
        _ => {
            // A missing file is the better message.
            if let Err(error) = std::fs::metadata(path) {
                return Err(IoError::reading(path, &error).into());
            }
            let message = format!("{}: not known to hold tensors", path.display());
            let help = "files end in .npy, .npz, .pb (an ONNX TensorProto) or .safetensors";
            Err(Diagnostic::input(codes::UNKNOWN_KIND, message)
                .help(help)
                .into())
        }
    }
}

impl TensorSpec {
    /// The tensors it names: one, or all of an archive or folder where it leaves open which.
    pub fn load(&self, prefix: &str) -> Result<Vec<Loaded>> {
        if self.path.is_dir() {
            return self.load_folder(prefix);
        }
        let all = read_all(&self.path)?;
        let unknown = |key: &str| {
            let names: Vec<&str> = all.iter().filter_map(|(n, _)| n.as_deref()).collect();
            let message = format!("{}: there is no array `{key}`", self.path.display());
            Diagnostic::input(codes::UNKNOWN_ARRAY, message)
                .help(format!("there are: {}", names.join(", ")))
        };
        let find = |key: &str| all.iter().find(|(n, _)| n.as_deref() == Some(key)).cloned();
        let (hint, tensor) = match (&self.key, &self.name) {
            (Some(key), _) => find(key).ok_or_else(|| unknown(key))?,
            (None, _) if all.len() == 1 => all[0].clone(),
            (None, Some(name)) => find(name).ok_or_else(|| unknown(name))?,
            (None, None) => {
                let all = all.into_iter().map(|(hint, tensor)| Loaded {
                    name: None,
                    hint,
                    bulk: true,
                    tensor,
                });
                return Ok(all.collect());
            }
        };
        Ok(vec![Loaded {
            name: self.name.clone(),
            hint,
            bulk: false,
            tensor,
        }])
    }

    /// `input_0.pb`, `input_1.pb`, ... of a folder, or all `.npy` files.
    fn load_folder(&self, prefix: &str) -> Result<Vec<Loaded>> {
        let loaded = |hint, bulk, tensor| Loaded {
            name: None,
            hint,
            bulk,
            tensor,
        };
        let mut all = vec![];
        for index in 0.. {
            let path = self.path.join(format!("{prefix}_{index}.pb"));
            if !path.exists() {
                break;
            }
            for (hint, tensor) in read_all(&path)? {
                all.push(loaded(hint, false, tensor));
            }
        }
        if all.is_empty() {
            let reading = |error: &std::io::Error| IoError::reading(&self.path, error);
            let mut paths = vec![];
            for entry in std::fs::read_dir(&self.path).map_err(|e| reading(&e))? {
                let path = entry.map_err(|e| reading(&e))?.path();
                if path.extension().is_some_and(|e| e == "npy") {
                    paths.push(path);
                }
            }
            paths.sort();
            for path in paths {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let name = name
                    .strip_suffix(npy::BF16_SUFFIX)
                    .unwrap_or(&name)
                    .to_owned();
                let tensor = from_raw(&npy::read_npy(&path)?);
                all.push(loaded(Some(name), true, tensor));
            }
        }
        if all.is_empty() {
            let message = format!(
                "{}: the folder has neither {prefix}_0.pb nor .npy files",
                self.path.display()
            );
            return Err(Diagnostic::input(codes::UNKNOWN_ARRAY, message).into());
        }
        Ok(all)
    }
}

/// The states of a file by name, with a warning for each of `states` that is not among them.
pub fn read_states(
    path: &Path,
    states: &[Arc<str>],
    context: &Context,
) -> Result<Vec<(String, Tensor)>> {
    let spec = TensorSpec {
        name: None,
        path: path.to_path_buf(),
        key: None,
    };
    let mut found = vec![];
    for state in spec.load("state")? {
        let Some(name) = state.hint else {
            let message = format!("{}: an array without the name of a state", path.display());
            return Err(Diagnostic::input(codes::BAD_STATE, message)
                .help("--state-in takes an .npz archive with one array per state")
                .into());
        };
        found.push((name, state.tensor));
    }
    let missing = states
        .iter()
        .filter(|s| !found.iter().any(|(n, _)| *n == ***s));
    let warnings = missing.map(|state| {
        let path = path.display();
        let message = format!("{path} has no state `{state}`, which keeps its first value");
        Diagnostic::input(codes::BAD_STATE, message)
    });
    context.console.warnings(&warnings.collect::<Vec<_>>());
    Ok(found)
}

/// Letters of a name that are safe in a file's name, others as `_`.
pub fn file_name(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = name
        .chars()
        .map(|c| if safe(c) { c } else { '_' })
        .collect();
    match name.as_str() {
        "" | "." | ".." => "_".to_owned(),
        _ => name,
    }
}

/// Writes tensors: to an archive where the path ends in .npz or .safetensors, else each to a file
/// `NAME.npy` of a folder.
pub fn write_tensors(path: &Path, tensors: &NamedTensors) -> Result<()> {
    let raw = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.to_owned(), to_raw(name, tensor)?)))
        .collect::<Result<Vec<_>>>()?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz") => npz::write_npz(path, &raw)?,
        Some("safetensors") => safetensors::write_safetensors(path, &raw)?,
        Some("npy") if raw.len() == 1 => npy::write_npy(path, &raw[0].1)?,
        Some("npy") => {
            let message = format!("{} values do not fit one .npy file", raw.len());
            let diagnostic = Diagnostic::new(codes::UNSUPPORTED_STORAGE, Kind::Input, message);
            return Err(diagnostic.help("give a folder or an .npz file").into());
        }
        _ => {
            std::fs::create_dir_all(path).map_err(|e| IoError::writing(path, &e))?;
            for (name, tensor) in &raw {
                let suffix = match from_raw(tensor).dtype() {
                    DType::Bf16 => npy::BF16_SUFFIX,
                    _ => "",
                };
                let file = path.join(format!("{}{suffix}.npy", file_name(name)));
                npy::write_npy(&file, tensor)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let of = |text: &str| {
            let s: TensorSpec = text.parse().unwrap();
            (s.name, s.path.to_string_lossy().into_owned(), s.key)
        };
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(of("x=a.npz:k"), (some("x"), "a.npz".into(), some("k")));
        assert_eq!(of("a.npy"), (None, "a.npy".into(), None));
        assert_eq!(of("=a=b.npy"), (None, "a=b.npy".into(), None));
        assert_eq!(of("c:d/a.npz"), (None, "c:d/a.npz".into(), None));
        for bad in ["x=", "", "a.npz:"] {
            assert!(bad.parse::<TensorSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_become_file_names() {
        assert_eq!(file_name("a/b:0"), "a_b_0");
        assert_eq!(file_name(".."), "_");
    }
}
