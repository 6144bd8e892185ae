//! Checks on real networks that need more than one run: `corpus DIR...`. Every model below the
//! folders is imported, optimised, printed and read back; trained models (those with `heldout.npz`
//! and a metric in `info.json`) must reproduce their metric.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use dojoc_compiler::import::onnx::{ImportOptions, import_file};
use dojoc_compiler::io::npz::read_npz;
use dojoc_ir::graph::eval::{Options, initial_states, run};
use dojoc_ir::graph::{Module, parse};
use dojoc_ir::level::Level as _;
use dojoc_ir::tensor::Tensor;
use serde_json::Value;

#[expect(clippy::print_stdout, reason = "this is a command")]
fn print(text: &str) {
    println!("{text}");
}

fn main() -> ExitCode {
    let mut failed = 0;
    let mut passed = 0;
    for dir in std::env::args().skip(1) {
        let walk = walkdir::WalkDir::new(&dir).sort_by_file_name();
        for entry in walk
            .into_iter()
            .flatten()
            .filter(|e| e.file_name() == "model.onnx")
        {
            let start = Instant::now();
            let case = entry.path().parent().unwrap_or(Path::new(""));
            match check(case) {
                Ok(report) => {
                    passed += 1;
                    let seconds = start.elapsed().as_secs_f64();
                    print(&format!("{}: {report}, {seconds:.1} s", case.display()));
                }
                Err(error) => {
                    failed += 1;
                    print(&format!("{}: FAILED: {error}", case.display()));
                }
            }
        }
    }
    print(&format!("corpus: {passed} passed, {failed} failed"));
    if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn check(case: &Path) -> Result<String, Box<dyn Error>> {
    let module = import_file(case.join("model.onnx"), &ImportOptions::default())?.module;
    module.verify()?;
    round_trip(&module)?;
    let heldout = case.join("heldout.npz");
    let info: PathBuf = case.join("info.json");
    let report = "text reads back".to_owned();
    if !heldout.exists() || !info.exists() {
        return Ok(report);
    }
    let info: Value = serde_json::from_str(&fs::read_to_string(info)?)?;
    let metric = info.get("metric").ok_or("info.json has no metric")?;
    Ok(format!(
        "{report}, {}",
        check_metric(&module, &heldout, metric)?
    ))
}

fn round_trip(module: &Module) -> Result<(), Box<dyn Error>> {
    let text = module.to_string();
    let (again, _) = parse(&text)?;
    if again != module.compacted() || again.to_string() != text {
        return Err("the text form does not read back".into());
    }
    Ok(())
}

/// Runs a model on all its held-out data, in batches of the size it was exported with.
fn outputs(module: &Module, data: &Tensor) -> Result<Vec<f64>, Box<dyn Error>> {
    let main = module.main().ok_or("no function")?;
    let func = &module.functions[main];
    let shape = func
        .ty(func.inputs()[0])
        .shape
        .as_const()
        .ok_or("symbolic input")?;
    let (batch, total) = (shape[0] as usize, data.shape()[0] as usize);
    let row = data.bytes().len() / total;
    let mut values = vec![];
    for start in (0..total).step_by(batch) {
        // The last batch is filled up with the last row.
        let rows = (start..start + batch).map(|r| r.min(total - 1));
        let bytes: Vec<u8> = rows
            .flat_map(|r| data.bytes()[r * row..(r + 1) * row].to_vec())
            .collect();
        let input = Tensor::from_bytes(data.dtype(), &shape, bytes.into())?;
        let mut states = initial_states(module)?;
        let results = run(module, main, &[input], &mut states, Options::default())?;
        let output = results.first().ok_or("no output")?;
        let kept = (total - start).min(batch) * output.len() / batch;
        values.extend(output.to_f64s().into_iter().take(kept));
    }
    Ok(values)
}

fn check_metric(module: &Module, heldout: &Path, metric: &Value) -> Result<String, Box<dyn Error>> {
    let data = read_npz(heldout)?;
    let get = |name: &str| -> Result<Tensor, Box<dyn Error>> {
        let found = data.iter().find(|(n, _)| n.as_str() == name);
        Ok(found
            .ok_or_else(|| format!("no `{name}` in heldout.npz"))?
            .1
            .to_tensor()?)
    };
    let found = outputs(module, &get("x")?)?;
    if let Some(expected) = metric.get("top1").and_then(Value::as_f64) {
        let labels = get("labels")?.to_i64s();
        let classes = found.len() / labels.len();
        let hits = found
            .chunks(classes)
            .zip(&labels)
            .filter(|(scores, label)| {
                let best = (0..classes).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
                best == usize::try_from(**label).ok()
            })
            .count();
        let accuracy = hits as f64 / labels.len() as f64;
        let report = format!(
            "accuracy {:.2} % ({hits} of {})",
            100.0 * accuracy,
            labels.len()
        );
        // One image may fall either way where int8 rounding decides.
        let allowed = 1.5 / labels.len() as f64;
        return match (accuracy - expected).abs() <= allowed {
            true => Ok(report),
            false => Err(format!("{report}, expected {:.2} %", 100.0 * expected).into()),
        };
    }
    let expected = metric
        .get("psnr_db")
        .and_then(Value::as_f64)
        .ok_or("unknown metric")?;
    let reference = get("hi")?.to_f64s();
    let error = found
        .iter()
        .zip(&reference)
        .map(|(f, r)| (f - r).powi(2))
        .sum::<f64>();
    let psnr = -10.0 * (error / reference.len() as f64).log10();
    let report = format!("PSNR {psnr:.2} dB");
    match (psnr - expected).abs() < 0.05 {
        true => Ok(report),
        false => Err(format!("{report}, expected {expected:.2} dB").into()),
    }
}
