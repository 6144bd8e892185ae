//! Programs: assembling, reading, verifying, running.
//!
//! ```
//! use dojoc::program::{Executable, LoadOptions, RunOptions};
//! use dojoc::Tensor;
//!
//! let text = r#"
//!     dojo program 1
//!     program @double {machine = "mesh4x4"} {
//!       cores @all = [box(0, [0, 4], [0, 4])]
//!       input @x : f32[16, 8] = [{on = @all, at = 0, slice = [[i, 1], [0, 8]]}]
//!       output @y : f32[16, 8] = [{on = @all, at = 64, slice = [[i, 1], [0, 8]]}]
//!       segment @double() {
//!         %x = buffer {at = 0, role = "in"} : f32[8]
//!         %y = buffer {at = 64, role = "out"} : f32[8]
//!         vector ({ ^() add %y, %x, %x })
//!       }
//!       entry @main() {inputs = [@x], outputs = [@y]} {
//!         call @double {on = @all, row = []}
//!       }
//!     }"#;
//! let executable = Executable::assemble(text, "double.dojo")?;
//! let target = executable.target()?;
//! executable.verify(&target)?;
//! let mut instance = executable.load(&target, LoadOptions::default())?;
//! let x = Tensor::from_vec(&[16, 8], (0..128).map(|i| i as f32).collect());
//! let run = instance.run("main", &[("x".into(), x)], &RunOptions::default())?;
//! assert_eq!(run.outputs[0].1.to_f64s()[127], 254.0);
//! # Ok::<(), dojoc::Error>(())
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use dojoc_compiler::io::atomic::write_bytes_atomic;
use dojoc_compiler::io::{ModelFiles, SourceFile};
use dojoc_ir::codes as ir_codes;
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::graph::{Weight, WeightSource, closest};
pub use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::container::{self, MAGIC};
use dojoc_ir::program::{
    Affine, Env, Program, SourceMap, Sources, TensorId, parse, verify::verify_until,
};
use dojoc_ir::types::Type;
pub use dojoc_runtime::exec::Executor;
pub use dojoc_runtime::instance::{Instance, LoadOptions, ProbeValues, RunResult};
pub use dojoc_runtime::kernels::{self, Kernels};
pub use dojoc_runtime::options::{RunOptions, Stats};

use crate::codes;
use crate::error::{Error, Result, SourceText, io_diagnostic};
use crate::module::{Port, Signature};
use crate::target::Target;

/// A program with the files that its recipes refer to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Executable {
    program: Arc<Program>,
    text: Option<(Arc<SourceText>, Arc<SourceMap>)>,
    origin: Origin,
}

/// Where recipes find the bytes of weights.
#[derive(Clone, Debug)]
enum Origin {
    /// In files beside the program.
    Files(Arc<ModelFiles>),
    /// In the model that was compiled.
    Model(Arc<Vec<Weight>>),
}

/// Whether a file is a program, by its contents: a `.djx` file, or assembly.
pub fn is_program(bytes: &[u8]) -> bool {
    if bytes.starts_with(&MAGIC) {
        return true;
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1 << 16)]);
    let head = head.trim_start_matches('\u{feff}');
    let code = head
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    let mut words = code.flat_map(str::split_whitespace);
    words.next() == Some("dojo") && words.next() == Some("program")
}

impl Executable {
    /// Reads assembly. `name` is what messages call it. Recipes find no files.
    ///
    /// # Errors
    /// All problems of the text, with their places.
    pub fn assemble(text: &str, name: &str) -> Result<Self> {
        let file = SourceFile::from_bytes(name, Bytes::copy_from_slice(text.as_bytes()));
        Self::read(&Arc::new(ModelFiles::in_memory(file)))
    }

    /// Reads a `.djx` file or assembly from bytes. Recipes find no files.
    ///
    /// # Errors
    /// Coded problems of a damaged or foreign file, or all problems of the text.
    pub fn from_bytes(bytes: Bytes, name: &str) -> Result<Self> {
        let file = SourceFile::from_bytes(name, bytes);
        Self::read(&Arc::new(ModelFiles::in_memory(file)))
    }

    /// Reads a `.djx` file or assembly, whichever it is. Recipes find files beside it.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes), and when the file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(&Arc::new(ModelFiles::open(path)?))
    }

    fn read(files: &Arc<ModelFiles>) -> Result<Self> {
        let file = files.model();
        if file.bytes.starts_with(&MAGIC) {
            return Ok(Self {
                program: Arc::new(container::decode(&file.bytes)?),
                text: None,
                origin: Origin::Files(files.clone()),
            });
        }
        let text = match std::str::from_utf8(&file.bytes) {
            Ok(text) if !text.contains('\0') => text,
            _ => {
                let message = format!("{}: neither a .djx file nor assembly", file.name);
                return Err(Diagnostic::input(ir_codes::NOT_A_DJX, message).into());
            }
        };
        let source = SourceText {
            name: file.path.display().to_string(),
            text: text.to_owned(),
        };
        match parse(text) {
            Ok((program, spans)) => Ok(Self {
                program: Arc::new(program),
                text: Some((Arc::new(source), Arc::new(spans))),
                origin: Origin::Files(files.clone()),
            }),
            Err(found) => Err(Error::new(found, Some(Arc::new(source)))),
        }
    }

    /// A program that was compiled from a model with these weights.
    pub(crate) fn compiled(program: Program, weights: Vec<Weight>) -> Self {
        Self {
            program: Arc::new(program),
            text: None,
            origin: Origin::Model(Arc::new(weights)),
        }
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Whether it was read as text.
    pub fn is_assembly(&self) -> bool {
        self.text.is_some()
    }

    /// The built-in machine that the program is made for.
    ///
    /// # Errors
    /// When it is not built in.
    pub fn target(&self) -> Result<Target> {
        Target::named(&self.program.machine.name)
    }

    /// Checks every rule of the level.
    ///
    /// # Errors
    /// All violations, with their places in the text or the user's model.
    pub fn verify(&self, target: &Target) -> Result<()> {
        self.verify_until(target, &AtomicBool::new(false))
    }

    /// As [`verify`](Self::verify); once `cancel` is set it gives up.
    ///
    /// # Errors
    /// As [`verify`](Self::verify); that it was cancelled.
    pub fn verify_until(&self, target: &Target, cancel: &AtomicBool) -> Result<()> {
        let spans = self.spans().map(|spans| &**spans);
        let violations = verify_until(&self.program, target.machine(), cancel);
        let found = violations
            .into_iter()
            .map(|v| v.into_diagnostic(&self.program, spans));
        Diagnostics(found.collect())
            .ok(())
            .map_err(|found| self.error(found))
    }

    /// Where its statements are in the text, if it was read as text; for [`RunOptions::spans`].
    pub fn spans(&self) -> Option<&Arc<SourceMap>> {
        self.text.as_ref().map(|(_, spans)| spans)
    }

    /// The error of a run, with the text that its places are in.
    pub fn error(&self, found: Diagnostics) -> Error {
        Error::new(found, self.text.as_ref().map(|(source, _)| source.clone()))
    }

    /// The program as assembly.
    pub fn disassemble(&self) -> String {
        self.program.to_string()
    }

    /// The program as the bytes of a `.djx` file.
    pub fn encode(&self) -> Vec<u8> {
        container::encode(&self.program)
    }

    /// Writes a `.djx` file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(write_bytes_atomic(path, &self.encode())?)
    }

    /// What an entry takes and gives under run parameters; by default the entry `main` or else the
    /// first. Parameters that are not given have their largest value.
    ///
    /// # Errors
    /// When there is no such entry, or its tensors are malformed.
    pub fn signature(&self, entry: Option<&str>, dims: &[(Arc<str>, u64)]) -> Result<Signature> {
        let program = &self.program;
        let names = || program.entries.values().map(|entry| &*entry.name);
        let found = match entry {
            Some(name) => program.entries.values().find(|entry| &*entry.name == name),
            None => {
                let main = program.entries.values().find(|e| &*e.name == "main");
                main.or_else(|| program.entries.values().next())
            }
        };
        let Some(found) = found else {
            let name = entry.unwrap_or("main");
            let message = format!("the program has no entry `{name}`");
            let diagnostic = Diagnostic::input(codes::NO_FUNCTION, message);
            let help = match closest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
            };
            return Err(diagnostic.help(help).into());
        };
        let values: Vec<i64> = program
            .dims
            .iter()
            .map(|(name, max)| {
                let given = dims.iter().rev().find(|(given, _)| given == name);
                let value = given.map_or(*max, |(_, value)| *value);
                i64::try_from(value).unwrap_or(i64::MAX)
            })
            .collect();
        let ports = |ids: &[TensorId]| -> Result<Vec<Port>, Diagnostic> {
            ids.iter().map(|id| self.port(*id, &values)).collect()
        };
        Ok(Signature {
            name: found.name.clone(),
            inputs: ports(&found.inputs)?,
            outputs: ports(&found.outputs)?,
        })
    }

    fn port(&self, id: TensorId, dims: &[i64]) -> Result<Port, Diagnostic> {
        let env = Env {
            dims,
            ..Env::default()
        };
        let decl = self.program.tensors.get(id).ok_or_else(|| {
            Diagnostic::input(
                ir_codes::PROGRAM_MALFORMED,
                "an entry has an unknown tensor",
            )
        })?;
        let extent = |e: &Affine| u64::try_from(e.eval(&env)?).ok();
        let shape: Option<Vec<u64>> = decl.shape.iter().map(extent).collect();
        match shape.map(|shape| Type::of(decl.dtype, &shape)) {
            Some(ty) if ty.addressable() => Ok(Port {
                name: decl.name.clone(),
                ty,
            }),
            _ => {
                let message = format!("@{} has extents that are negative or too large", decl.name);
                Err(Diagnostic::input(ir_codes::BAD_PLACEMENT, message))
            }
        }
    }

    /// Places weights and first states for running; weights come from the files beside the program.
    /// Only the structure of the program is checked: [`verify`](Self::verify) it before, unless the
    /// sanitizer is to find what is wrong.
    ///
    /// # Errors
    /// Tables that contradict each other, and files that are missing or too short.
    pub fn load(&self, target: &Target, options: LoadOptions) -> Result<Instance> {
        let options = LoadOptions {
            verify: false,
            ..options
        };
        Ok(Instance::load(
            self.program.clone(),
            target.machine(),
            &self.origin,
            options,
        )?)
    }
}

/// Files are memory-mapped; their paths stay inside the program's folder.
impl Sources for Origin {
    fn read(&self, file: &str, offset: u64, length: u64) -> Result<Bytes, Diagnostic> {
        match self {
            Self::Files(files) => files
                .external("weights", file)
                .and_then(|file| file.slice(offset, length))
                .map_err(|error| io_diagnostic(&error)),
            Self::Model(weights) => {
                let bytes = weights.iter().find_map(|weight| {
                    let WeightSource::External {
                        file: of,
                        offset: start,
                        ..
                    } = &weight.source
                    else {
                        return None;
                    };
                    let start = usize::try_from(offset.checked_sub(*start)?).ok()?;
                    let end = start.checked_add(usize::try_from(length).ok()?)?;
                    let bytes = weight.data.as_ref().filter(|_| **of == *file)?.bytes();
                    (end <= bytes.len()).then(|| bytes.slice(start..end))
                });
                bytes.ok_or_else(|| {
                    let message = format!("the bytes of a weight in `{file}` are not at hand");
                    Diagnostic::input(ir_codes::NO_DATA, message)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_by_their_contents() {
        assert!(is_program(b"\x89DJX\r\n\x1a\nrest"));
        assert!(is_program(b"// a comment\n\n  dojo program 1"));
        assert!(is_program(b"\xef\xbb\xbfdojo // header\nprogram 1"));
        for other in [
            &b"dojo graph 1"[..],
            b"// dojo program 1\ndojo graph 1",
            b"",
            b"\x08\x07",
        ] {
            assert!(!is_program(other), "{other:?}");
        }
    }
}
