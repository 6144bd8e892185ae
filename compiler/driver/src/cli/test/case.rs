//! One test case: found, run, compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use dojoc::tensor::from_raw;
use dojoc::{
    Code, CompileOptions, Compiler, Criterion, Diagnostic, Error, Evaluator, Kind, Module,
    NamedTensor, Result, Source, Tensor, codes, compare,
};
use dojoc_compiler::import::onnx;
use dojoc_compiler::io::onnx_tensor::read_tensor_file;
use dojoc_compiler::io::{IoError, code as io_code};
use walkdir::WalkDir;

use super::Level;
use crate::cli::panic::catch;

/// A folder with a model and data.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name in reports: the path from the folder that was searched, with that folder's name.
    pub name: String,
    path: PathBuf,
    /// Size of the model's files.
    pub bytes: u64,
}

/// How cases are run.
pub struct Options {
    /// At which level.
    pub level: Level,
    /// Allowed relative difference.
    pub rtol: f64,
    /// Allowed absolute difference.
    pub atol: f64,
    /// Set when the user interrupts.
    pub cancel: Arc<AtomicBool>,
}

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All outputs agree.
    Passed,
    /// An output differs, or something went wrong.
    Failed,
    /// The model is refused by code.
    Unsupported,
}

impl Status {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Passed => "passed",
            Status::Failed => "failed",
            Status::Unsupported => "unsupported",
        }
    }
}

/// The result of a case.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name of the case.
    pub case: String,
    /// What became of it.
    pub status: Status,
    /// Code of the first problem.
    pub code: Option<Code>,
    /// Largest absolute difference of all outputs, if they were compared.
    pub max_abs_err: Option<f64>,
    /// How long it took.
    pub seconds: f64,
    /// The first problem, or a remark about a case that passed.
    pub message: Option<String>,
}

/// All cases below the folders, by name.
///
/// # Errors
/// Folders that cannot be read.
pub fn find(dirs: &[PathBuf]) -> Result<Vec<Case>> {
    let mut cases = vec![];
    for dir in dirs {
        if !dir.is_dir() {
            return Err(match std::fs::metadata(dir) {
                Err(error) => IoError::reading(dir, &error),
                Ok(_) => IoError::new(io_code::READ, "it is not a folder").at(dir),
            }
            .into());
        }
        // `.` and `..` have no name of their own.
        let base = dir.file_name().map(PathBuf::from).unwrap_or_default();
        for entry in WalkDir::new(dir).follow_links(true).sort_by_file_name() {
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(dir).to_path_buf();
                let message = format!("cannot read the folder: {error}");
                IoError::new(io_code::READ, message).at(path)
            })?;
            if entry.file_name() != "model.onnx" {
                continue;
            }
            let Some(path) = entry.path().parent() else {
                continue;
            };
            let name = base.join(path.strip_prefix(dir).unwrap_or(path));
            let name = match name.as_os_str().is_empty() {
                true => ".".to_owned(),
                false => name
                    .to_string_lossy()
                    .trim_end_matches('/')
                    .replace('\\', "/"),
            };
            cases.push(Case {
                name,
                bytes: size(path),
                path: path.to_path_buf(),
            });
        }
    }
    cases.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    cases.dedup_by(|a, b| a.path == b.path);
    Ok(cases)
}

/// Total size of the files of a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter_map(|e| std::fs::metadata(e.path()).ok());
    files.filter(|m| m.is_file()).map(|m| m.len()).sum()
}

/// What is wrong with a case.
struct Problem {
    status: Status,
    code: Code,
    message: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let all = error.diagnostics();
        let unsupported = all.iter().find(|d| d.kind == Kind::Unsupported);
        let is_bug = matches!(error, Error::Bug(_));
        match unsupported.filter(|_| !is_bug) {
            Some(diagnostic) => Self::of(Status::Unsupported, diagnostic),
            None => {
                let code = error.code();
                let first = all.iter().find(|d| d.code == code).or(all.first());
                Self {
                    status: Status::Failed,
                    code,
                    message: first.map_or_else(String::new, describe),
                }
            }
        }
    }
}

impl Problem {
    fn of(status: Status, diagnostic: &Diagnostic) -> Self {
        Self {
            status,
            code: diagnostic.code,
            message: diagnostic.message.clone(),
        }
    }

    fn failed(code: u16, message: impl Into<String>) -> Self {
        Self {
            status: Status::Failed,
            code: Code(code),
            message: message.into(),
        }
    }
}

/// The message with the node it is about.
fn describe(diagnostic: &Diagnostic) -> String {
    match &diagnostic.place {
        Some(dojoc::Place::Node(loc)) => format!("{} (at {})", diagnostic.message, loc.name),
        _ => diagnostic.message.clone(),
    }
}

/// The outputs of a data set, and what they should be.
struct Evaluated {
    outputs: Vec<(String, Tensor)>,
    references: Vec<Tensor>,
}

/// What the comparison of a case gave.
#[derive(Default)]
struct Compared {
    max_abs: f64,
    specialized: Vec<String>,
    /// Whether 16-bit floats were computed in f32, as the references were.
    in_f32: bool,
}

impl Case {
    /// Runs the case. A panic is caught and is a failure.
    pub fn run(&self, options: &Options) -> Report {
        let start = Instant::now();
        let outcome = match catch(|| self.compare(options)) {
            Ok(outcome) => outcome,
            Err(message) => Err((Problem::failed(codes::INTERNAL, message), None)),
        };
        let (status, code, max_abs_err, message) = match outcome {
            Ok(compared) => {
                let constant = compared.specialized;
                let mut notes = vec![];
                if !constant.is_empty() {
                    notes.push(format!(
                        "values of {} taken as constants",
                        constant.join(", ")
                    ));
                }
                if compared.in_f32 {
                    notes.push("computed in f32, as the reference was".to_owned());
                }
                let message = (!notes.is_empty()).then(|| notes.join("; "));
                (Status::Passed, None, Some(compared.max_abs), message)
            }
            Err((problem, max_abs)) => (
                problem.status,
                Some(problem.code),
                max_abs,
                Some(problem.message),
            ),
        };
        Report {
            case: self.name.clone(),
            status,
            code,
            max_abs_err,
            seconds: start.elapsed().as_secs_f64(),
            message,
        }
    }

    /// Runs all data sets.
    ///
    /// # Errors
    /// The first problem, with the largest difference where outputs were compared.
    fn compare(&self, options: &Options) -> std::result::Result<Compared, (Problem, Option<f64>)> {
        let alone = |problem: Problem| (problem, None);
        let sets = self.data_sets();
        if sets.is_empty() {
            let message = "the case has no folder `test_data_set_0`";
            return Err(alone(Problem::failed(codes::BAD_CASE, message)));
        }
        let criterion = self.criterion(options).map_err(alone)?;
        let mut compared = Compared::default();
        for set in sets {
            let evaluated = self.evaluate(&set, options, &mut compared).map_err(alone)?;
            let mut wrong = None;
            for ((name, output), reference) in evaluated.outputs.iter().zip(&evaluated.references) {
                let result = compare(output, reference, criterion);
                compared.max_abs = compared.max_abs.max(result.max_abs);
                if let Some(why) = result.mismatch {
                    let message = format!("output {name}: {why}");
                    wrong.get_or_insert(Problem::failed(codes::VALUES_DIFFER, message));
                }
            }
            if let Some(problem) = wrong {
                return Err((problem, Some(compared.max_abs)));
            }
        }
        Ok(compared)
    }

    fn criterion(&self, options: &Options) -> std::result::Result<Criterion, Problem> {
        let close = Criterion::AllClose {
            rtol: options.rtol,
            atol: options.atol,
        };
        let Ok(text) = std::fs::read(self.path.join("info.json")) else {
            return Ok(close);
        };
        let info: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|e| Problem::failed(codes::BAD_CASE, format!("info.json: {e}")))?;
        Ok(match info.get("tol").and_then(serde_json::Value::as_f64) {
            Some(tol) => Criterion::Relative(tol),
            None => close,
        })
    }

    /// The folders `test_data_set_N`, by number.
    fn data_sets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten();
        let sets: BTreeMap<u64, PathBuf> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let number = name
                    .to_str()?
                    .strip_prefix("test_data_set_")?
                    .parse()
                    .ok()?;
                entry.path().is_dir().then(|| (number, entry.path()))
            })
            .collect();
        sets.into_values().collect()
    }

    /// The outputs of one data set, and what they should be.
    fn evaluate(
        &self,
        set: &Path,
        options: &Options,
        compared: &mut Compared,
    ) -> std::result::Result<Evaluated, Problem> {
        let compile = CompileOptions::default().cancel(options.cancel.clone());
        let model = self.path.join("model.onnx");
        let read = |inputs: &[NamedTensor]| Module::read(Source::Path(&model), &compile, inputs);
        let inputs = match tensors(set, "input") {
            Ok(inputs) => inputs,
            Err(problem) => {
                // What the model needs is a better reason than what a file cannot hold.
                return Err(match read(&[]).map_err(Problem::from) {
                    Err(better) if better.status == Status::Unsupported => better,
                    _ => problem,
                });
            }
        };
        let module = read(&inputs).map_err(|error| {
            let without_shapes = error.code().0 == onnx::codes::UNBOUND_DIM;
            match inputs.is_empty() && without_shapes {
                true => {
                    let message = "there is no input_0.pb, but the model has inputs";
                    Problem::failed(codes::BAD_CASE, message)
                }
                false => Problem::from(error),
            }
        })?;
        compared.specialized = module.specialized().to_vec();
        let references = tensors(set, "output")?;
        let module = match options.level {
            Level::Import => module,
            _ => Compiler::new(&compile).compile_graph(&module)?.module,
        };
        // References in wider floats than the model has were computed without its roundings.
        let wider =
            module
                .signature(None)?
                .outputs
                .iter()
                .zip(&references)
                .any(|(output, given)| {
                    let (has, given) = (output.ty.dtype, given.tensor.dtype());
                    has.is_float() && given.is_float() && has.bytes() < given.bytes()
                });
        let module = match wider {
            true => module.in_f32().unwrap_or(module),
            false => module,
        };
        compared.in_f32 = wider;
        if !reads_back(&module) {
            let message = "the text form of the module does not read back as the same module";
            return Err(Problem::failed(codes::INTERNAL, message));
        }
        let signature = module.signature(None)?;
        if signature.inputs.len() != inputs.len() {
            let message = format!(
                "{} inputs are given, the model has {}",
                inputs.len(),
                signature.inputs.len()
            );
            return Err(Problem::failed(codes::BAD_CASE, message));
        }
        if signature.outputs.len() != references.len() {
            let message = format!(
                "{} outputs are given, the model has {}",
                references.len(),
                signature.outputs.len()
            );
            return Err(Problem::failed(codes::BAD_CASE, message));
        }
        let by_name = |name: &str| inputs.iter().find(|i| i.name.as_deref() == Some(name));
        let all_named = signature.inputs.iter().all(|p| by_name(&p.name).is_some());
        let ordered: Vec<Tensor> = match all_named {
            true => signature
                .inputs
                .iter()
                .filter_map(|p| by_name(&p.name))
                .collect::<Vec<_>>(),
            false => inputs.iter().collect(),
        }
        .into_iter()
        .map(|input| input.tensor.clone())
        .zip(&signature.inputs)
        .map(|(tensor, input)| match compared.in_f32 {
            true if tensor.dtype().is_float() => tensor.convert(input.ty.dtype),
            _ => tensor,
        })
        .collect();
        let mut evaluator = Evaluator::new(&module, None)?.cancel(options.cancel.clone());
        let run = evaluator.run_in_order(&ordered)?;
        let outputs = run
            .outputs
            .iter()
            .map(|(name, t)| (name.to_owned(), t.clone()));
        let references = references.into_iter().map(|r| r.tensor);
        Ok(Evaluated {
            outputs: outputs.collect(),
            references: references.collect(),
        })
    }
}

/// Whether the text form of a module reads back as the same module: every case also tests that.
fn reads_back(module: &Module) -> bool {
    let text = module.print();
    let again = dojoc_ir::graph::parse(&text);
    again.is_ok_and(|(again, _)| again == module.graph().compacted() && again.to_string() == text)
}

/// The tensors `input_K.pb` or `output_K.pb` of a data set, by K.
fn tensors(set: &Path, prefix: &str) -> std::result::Result<Vec<NamedTensor>, Problem> {
    let entries = std::fs::read_dir(set).into_iter().flatten().flatten();
    let paths: BTreeMap<usize, PathBuf> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?.strip_prefix(prefix)?.strip_prefix('_')?;
            Some((name.strip_suffix(".pb")?.parse().ok()?, entry.path()))
        })
        .collect();
    if paths.keys().copied().ne(0..paths.len()) {
        let message = format!("{prefix}s are left out");
        return Err(Problem {
            status: Status::Unsupported,
            ..Problem::failed(codes::UNSUPPORTED_CASE, message)
        });
    }
    let read = |path: &PathBuf| {
        let (name, raw) = read_tensor_file(path).map_err(Error::from)?;
        Ok(NamedTensor {
            name: Some(name).filter(|n| !n.is_empty()),
            tensor: from_raw(&raw),
        })
    };
    paths.values().map(read).collect()
}
