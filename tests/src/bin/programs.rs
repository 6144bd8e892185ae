//! Networks on the chip: `programs DIR...` compiles every `model.onnx` below the folders for one D1
//! chip, runs it on the stored inputs and compares with the stored outputs within `tol` of
//! `info.json`. One line each: distance, seconds, instructions, nanoseconds per instruction.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use dojoc::program::{LoadOptions, RunOptions};
use dojoc::{CompileOptions, Compiler, Module, Target};
use dojoc_compiler::io::onnx_tensor::read_tensor_file;
use dojoc_ir::tensor::Tensor;
use serde_json::Value;

#[expect(clippy::print_stdout, reason = "this is a command")]
fn print(text: &str) {
    println!("{text}");
}

fn main() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for dir in std::env::args().skip(1) {
        let walk = walkdir::WalkDir::new(&dir)
            .sort_by_file_name()
            .into_iter()
            .flatten();
        for entry in walk.filter(|e| e.file_name() == "model.onnx") {
            let case = entry.path().parent().unwrap_or(Path::new(""));
            match check(case) {
                Ok(report) => {
                    passed += 1;
                    print(&format!("{}: {report}", case.display()));
                }
                Err(error) => {
                    failed += 1;
                    print(&format!("{}: FAILED: {error}", case.display()));
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

fn stored(case: &Path, kind: &str) -> Result<Vec<Tensor>, Box<dyn Error>> {
    let folder = case.join("test_data_set_0");
    let mut tensors = vec![];
    loop {
        let path = folder.join(format!("{kind}_{}.pb", tensors.len()));
        if !path.exists() {
            return Ok(tensors);
        }
        tensors.push(read_tensor_file(&path)?.1.to_tensor()?);
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

fn check(case: &Path) -> Result<String, Box<dyn Error>> {
    let info: Value = serde_json::from_str(&fs::read_to_string(case.join("info.json"))?)?;
    let tol = info.get("tol").and_then(Value::as_f64).unwrap_or(1e-4);
    let (inputs, outputs) = (stored(case, "input")?, stored(case, "output")?);
    let given: Vec<dojoc::NamedTensor> = (inputs.iter())
        .map(|tensor| dojoc::NamedTensor {
            name: None,
            tensor: tensor.clone(),
        })
        .collect();
    let options = CompileOptions::default();
    let path = case.join("model.onnx");
    let module = Module::read(dojoc::Source::Path(&path), &options, &given)?;
    let start = Instant::now();
    let compiled = Compiler::new(&options)
        .target(&Target::named("d1")?)
        .compile(&module)?;
    let compile = start.elapsed().as_secs_f64();
    let mut instance = compiled
        .executable
        .load(&compiled.target, LoadOptions::default())?;
    let signature = compiled.executable.signature(None, &[])?;
    let named: Vec<_> = (signature.inputs.iter().zip(&inputs))
        .map(|(port, tensor)| (port.name.clone(), tensor.clone()))
        .collect();
    let options = RunOptions {
        threads: 2,
        ..RunOptions::default()
    };
    let start = Instant::now();
    let run = instance.run(&signature.name, &named, &options)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut worst = 0.0f64;
    for ((name, found), reference) in run.outputs.iter().zip(&outputs) {
        let far = distance(found, reference);
        if far > tol {
            return Err(format!(
                "output `{name}` is {far:.1e} from the reference, allowed {tol:.0e}"
            )
            .into());
        }
        worst = worst.max(far);
    }
    let per = 1e9 * seconds / run.stats.instructions.max(1) as f64;
    Ok(format!(
        "{worst:.1e}, compiled in {compile:.1} s, ran in {seconds:.2} s, {} instructions, {per:.0} ns each",
        run.stats.instructions
    ))
}
