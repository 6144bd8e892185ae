//! What equality saturation does to models: nodes, distinct regions, time, and cycles by the prices of
//! the target before and after: `cargo run -p dojoc-compiler --example saturation -- MODEL.onnx...`
//!
//! With `--validate` first, the values of every model are compared before and after the pass, which
//! takes as long as evaluating it.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use dojoc_compiler::graph::saturate;
use dojoc_compiler::import::onnx::{ImportOptions, import_file};
use dojoc_compiler::pass::{PassCx, PassOptions, Run, RunOptions, Validation};
use dojoc_compiler::pipeline::{GRAPH, PipelineStep};
use dojoc_compiler::rewrite::RegionStats;
use dojoc_ir::graph::Module;

fn nodes(module: &Module) -> usize {
    module.functions.values().map(|f| f.walk().len()).sum()
}

fn measure(path: &str, validate: bool, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let imported = import_file(Path::new(path), &ImportOptions::default());
    let mut module = imported.map_err(|e| e.to_string())?.module;
    let mut run = Run::new(RunOptions::default());
    let own = |step: &&PipelineStep| step.pass.name == saturate::PASS.name;
    let before = GRAPH.iter().take_while(|step| !own(step));
    module = run.graph(before.map(|step| step.pass), module)?;
    let count = nodes(&module);
    let options = PassOptions::default();
    let start = Instant::now();
    let survey = saturate::survey(&module, &PassCx::new(&options));
    let time = start.elapsed();
    let survey: Vec<(RegionStats, usize)> = survey.map_err(|e| e.to_string())?;
    if validate {
        let options = RunOptions {
            validate: Some(Validation::default()),
            ..RunOptions::default()
        };
        Run::new(options).graph([&saturate::PASS], module.clone())?;
    }
    let after = GRAPH.iter().skip_while(|step| !own(step));
    module = run.graph(after.map(|step| step.pass), module)?;
    let cycles = |of: fn(&RegionStats) -> f64| -> f64 {
        survey.iter().map(|(s, n)| of(s) * *n as f64).sum()
    };
    writeln!(
        out,
        "{:>6} {:>6} {:>4}/{:<4} {:>6} {:>7} {:>5} {:>10.0} {:>10.0}  {path}",
        count,
        nodes(&module),
        survey.len(),
        survey.iter().map(|(_, n)| n).sum::<usize>(),
        survey.iter().map(|(s, _)| s.enodes).max().unwrap_or(0),
        survey.iter().map(|(s, _)| s.applied).sum::<usize>(),
        time.as_millis(),
        cycles(|s| s.before),
        cycles(|s| s.after),
    )?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:>6} {:>6} {:>4}/{:<4} {:>6} {:>7} {:>5} {:>10} {:>10}  model",
        "nodes", "after", "uniq", "regs", "enodes", "applied", "ms", "cycles", "after"
    )?;
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    let validate = paths.first().is_some_and(|flag| flag == "--validate");
    paths.drain(..usize::from(validate));
    for path in paths {
        measure(&path, validate, &mut out)?;
    }
    Ok(())
}
