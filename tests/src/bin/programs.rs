//! Networks on the chip: `programs [--precision bf16] DIR...` compiles every `model.onnx` below the
//! folders for one D1 chip, runs it on the stored inputs and compares with the stored outputs within
//! `tol` of `info.json`, and with bf16 within the bound of `rounding_bound` besides. Where there is
//! held-out data (`heldout.npz`), the score on it must be within 0.5 points (or dB) of what it is known
//! to be, or else of that of the reference interpreter. One line each: distance and what is allowed,
//! seconds, instructions, nanoseconds per instruction, score.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use dojoc::program::{LoadOptions, RunOptions, RunResult};
use dojoc::{
    CompileOptions, CompiledProgram, Compiler, Evaluator, Module, NamedTensor, Precision, Source,
    Target,
};
use dojoc_compiler::graph::precision::rounding_bound;
use dojoc_compiler::io::onnx_tensor::read_tensor_file;
use dojoc_ir::tensor::Tensor;
use dojoc_tests::held_out::{HeldOut, Score};
use serde_json::Value;

/// As in the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Points or dB that a score may differ by.
const SCORE: f64 = 0.5;

#[expect(clippy::print_stdout, reason = "this is a command")]
fn print(text: &str) {
    println!("{text}");
}

fn main() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let mut options = CompileOptions::default();
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "--precision").is_some() {
        options = match args.next().as_deref() {
            Some("keep") => options,
            Some("bf16") => options.precision(Precision::Bf16),
            _ => {
                print("--precision is keep or bf16");
                return ExitCode::FAILURE;
            }
        };
    }
    for dir in args {
        let walk = walkdir::WalkDir::new(&dir)
            .sort_by_file_name()
            .into_iter()
            .flatten();
        for entry in walk.filter(|e| e.file_name() == "model.onnx") {
            let case = Case {
                folder: entry.path().parent().unwrap_or(Path::new("")).to_path_buf(),
                options: options.clone(),
            };
            let folder = case.folder.display();
            match case.check() {
                Ok(reports) => {
                    passed += 1;
                    print(&format!("{folder}: {}", reports.join("; ")));
                }
                Err(error) => {
                    failed += 1;
                    print(&format!("{folder}: FAILED: {error}"));
                }
            }
        }
    }
    print(&format!("programs: {passed} passed, {failed} failed"));
    if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The largest difference relative to the largest magnitude of the reference.
fn distance(found: &Tensor, reference: &Tensor) -> f64 {
    let (found, reference) = (found.to_f64s(), reference.to_f64s());
    let scale = reference
        .iter()
        .fold(f64::MIN_POSITIVE, |m: f64, x| m.max(x.abs()));
    let differ = |(a, b): (&f64, &f64)| {
        if a.is_nan() {
            f64::INFINITY
        } else {
            (a - b).abs()
        }
    };
    found.iter().zip(&reference).map(differ).fold(0.0, f64::max) / scale
}

/// A folder with a network.
struct Case {
    folder: PathBuf,
    options: CompileOptions,
}

/// A network that was compiled for some inputs and run on them.
struct Ran {
    module: Module,
    compiled: CompiledProgram,
    result: RunResult,
    /// Of compilation and of the run.
    seconds: [f64; 2],
}

impl Case {
    fn check(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let mut reports = vec![];
        let outputs = self.stored("output")?;
        if !outputs.is_empty() {
            reports.push(self.check_stored(&outputs)?);
        }
        if let Some(data) = HeldOut::read(&self.folder)? {
            reports.push(self.check_held_out(&data)?.to_string());
        }
        match reports.is_empty() {
            true => Err("there are neither stored outputs nor held-out data".into()),
            false => Ok(reports),
        }
    }

    fn stored(&self, kind: &str) -> Result<Vec<Tensor>, Box<dyn Error>> {
        let folder = self.folder.join("test_data_set_0");
        let mut tensors = vec![];
        loop {
            let path = folder.join(format!("{kind}_{}.pb", tensors.len()));
            if !path.exists() {
                return Ok(tensors);
            }
            tensors.push(read_tensor_file(&path)?.1.to_tensor()?);
        }
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Ran, Box<dyn Error>> {
        let given: Vec<NamedTensor> = (inputs.iter())
            .map(|tensor| NamedTensor {
                name: None,
                tensor: tensor.clone(),
            })
            .collect();
        let path = self.folder.join("model.onnx");
        let module = Module::read(Source::Path(&path), &self.options, &given)?;
        let start = Instant::now();
        let compiled = Compiler::new(&self.options)
            .target(&Target::named("d1")?)
            .compile(&module)?;
        let compile = start.elapsed().as_secs_f64();
        let mut instance = compiled
            .executable
            .load(&compiled.target, LoadOptions::default())?;
        let signature = compiled.executable.signature(None, &[])?;
        let named: Vec<_> = (signature.inputs.iter().zip(inputs))
            .map(|(port, tensor)| (port.name.clone(), tensor.clone()))
            .collect();
        let options = RunOptions {
            threads: 2,
            ..RunOptions::default()
        };
        let start = Instant::now();
        let result = instance.run(&signature.name, &named, &options)?;
        Ok(Ran {
            module,
            compiled,
            result,
            seconds: [compile, start.elapsed().as_secs_f64()],
        })
    }

    fn check_stored(&self, references: &[Tensor]) -> Result<String, Box<dyn Error>> {
        let info: Value =
            serde_json::from_str(&fs::read_to_string(self.folder.join("info.json"))?)?;
        let tol = info.get("tol").and_then(Value::as_f64).unwrap_or(1e-4);
        let ran = self.run(&self.stored("input")?)?;
        let graph = ran.compiled.graph.graph();
        let main = graph.main().ok_or("no function")?;
        let bounds = rounding_bound(&graph.functions[main]);
        let (mut worst, mut allowed) = (0.0f64, tol);
        let outputs = ran.result.outputs.iter().zip(references).zip(bounds);
        for (((name, found), reference), bound) in outputs {
            let (far, limit) = (distance(found, reference), tol + bound);
            if far > limit {
                return Err(format!(
                    "output `{name}` is {far:.1e} from the reference, allowed {limit:.1e}"
                )
                .into());
            }
            if far >= worst {
                (worst, allowed) = (far, limit);
            }
        }
        let [compile, seconds] = ran.seconds;
        let instructions = ran.result.stats.instructions;
        let per = 1e9 * seconds / instructions.max(1) as f64;
        Ok(format!(
            "{worst:.1e} of {allowed:.1e} allowed, compiled in {compile:.1} s, ran in {seconds:.2} s, \
             {instructions} instructions, {per:.0} ns each"
        ))
    }

    fn check_held_out(&self, data: &HeldOut) -> Result<Score, Box<dyn Error>> {
        let ran = self.run(std::slice::from_ref(&data.input))?;
        let expected = match data.expected {
            Some(expected) => expected,
            None => {
                let mut evaluator = Evaluator::new(&ran.module, None)?;
                let run = evaluator.run_in_order(std::slice::from_ref(&data.input))?;
                let output = run.outputs.0.first().ok_or("no output")?;
                data.score(&output.1)?
            }
        };
        let output = ran.result.outputs.first().ok_or("no output")?;
        let score = data.score(&output.1)?;
        match score.distance(expected) <= SCORE {
            true => Ok(score),
            false => Err(format!("{score}, expected {expected}").into()),
        }
    }
}
