//! Checks on real networks that need more than one run: `corpus DIR...`. Every model below the
//! folders is imported, optimised, printed and read back; trained models (those with `heldout.npz`
//! and a metric in `info.json`) must reproduce their metric.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use dojoc_compiler::import::onnx::{GivenShape, ImportOptions, import_file};
use dojoc_compiler::io::npz::read_npz;
use dojoc_compiler::pass::{Run, RunOptions};
use dojoc_compiler::pipeline;
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
    let (heldout, info) = (case.join("heldout.npz"), case.join("info.json"));
    let data = if heldout.exists() {
        read_npz(heldout)?
    } else {
        vec![]
    };
    let get = |name: &str| -> Result<Tensor, Box<dyn Error>> {
        let found = data.iter().find(|(n, _)| n.as_str() == name);
        Ok(found
            .ok_or_else(|| format!("no `{name}` in heldout.npz"))?
            .1
            .to_tensor()?)
    };
    let mut options = ImportOptions::default();
    if let Ok(x) = get("x") {
        options.bind_from_inputs.push(GivenShape {
            name: None,
            shape: x.shape().to_vec(),
        });
    }
    let module = import_file(case.join("model.onnx"), &options)?.module;
    module.verify()?;
    round_trip(&module)?;
    let optimised = optimise(&module)?;
    round_trip(&optimised)?;
    let report = format!("{} nodes, text reads back", count(&module));
    let report = format!("{report}, {} nodes after the pipeline", count(&optimised));
    if data.is_empty() || !info.exists() {
        return Ok(report);
    }
    let info: Value = serde_json::from_str(&fs::read_to_string(info)?)?;
    let metric = info.get("metric").ok_or("info.json has no metric")?;
    let before = check_metric(&module, metric, &get)?;
    let after = check_metric(&optimised, metric, &get)?;
    Ok(format!("{report}, {before}, {after} after the pipeline"))
}

fn optimise(module: &Module) -> Result<Module, Box<dyn Error>> {
    let passes = pipeline::GRAPH.iter().map(|step| step.pass);
    Ok(Run::new(RunOptions::default()).graph(passes, module.clone())?)
}

fn count(module: &Module) -> usize {
    module.functions.values().map(|f| f.walk().len()).sum()
}

fn round_trip(module: &Module) -> Result<(), Box<dyn Error>> {
    let text = module.to_string();
    let (again, _) = parse(&text)?;
    if again != module.compacted() || again.to_string() != text {
        return Err("the text form does not read back".into());
    }
    Ok(())
}

type Get<'a> = dyn Fn(&str) -> Result<Tensor, Box<dyn Error>> + 'a;

fn check_metric(module: &Module, metric: &Value, get: &Get<'_>) -> Result<String, Box<dyn Error>> {
    let main = module.main().ok_or("no function")?;
    let mut states = initial_states(module)?;
    let results = run(module, main, &[get("x")?], &mut states, Options::default())?;
    let found = results.first().ok_or("no output")?.to_f64s();
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
