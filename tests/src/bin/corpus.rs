//! Checks on real networks that need more than one run: `corpus DIR...`. Every model below the
//! folders is imported, optimised, printed and read back; trained models (those with `heldout.npz`
//! and a metric in `info.json`) must reproduce their metric.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use dojoc_compiler::import::onnx::{GivenShape, ImportOptions, import_file};
use dojoc_compiler::pass::{Run, RunOptions};
use dojoc_compiler::pipeline;
use dojoc_ir::graph::eval::{Options, initial_states, run};
use dojoc_ir::graph::{Module, parse};
use dojoc_ir::level::Level as _;
use dojoc_tests::held_out::{HeldOut, Score};

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
    let data = HeldOut::read(case)?;
    let mut options = ImportOptions::default();
    if let Some(data) = &data {
        options.bind_from_inputs.push(GivenShape {
            name: None,
            shape: data.input.shape().to_vec(),
        });
    }
    let module = import_file(case.join("model.onnx"), &options)?.module;
    module.verify()?;
    round_trip(&module)?;
    let optimised = optimise(&module)?;
    round_trip(&optimised)?;
    let report = format!("{} nodes, text reads back", count(&module));
    let report = format!("{report}, {} nodes after the pipeline", count(&optimised));
    let Some(data) = data else {
        return Ok(report);
    };
    let before = check_metric(&module, &data)?;
    let after = check_metric(&optimised, &data)?;
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

fn check_metric(module: &Module, data: &HeldOut) -> Result<Score, Box<dyn Error>> {
    let main = module.main().ok_or("no function")?;
    let mut states = initial_states(module)?;
    let inputs = [data.input.clone()];
    let results = run(module, main, &inputs, &mut states, Options::default())?;
    let found = data.score(results.first().ok_or("no output")?)?;
    let Some(expected) = data.expected else {
        return Ok(found);
    };
    // One image may fall either way where int8 rounding decides.
    let allowed = match found {
        Score::Accuracy(_) => 150.0 / data.rows() as f64,
        Score::Psnr(_) => 0.05,
    };
    match found.distance(expected) <= allowed {
        true => Ok(found),
        false => Err(format!("{found}, expected {expected}").into()),
    }
}
