//! `dojoc passes`.

use dojoc_compiler::pass::Effect;
use dojoc_compiler::pipeline;

use super::{Outcome, console};

/// Arguments of `dojoc passes`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The order in which `dojoc compile` runs them, with reasons.
    #[arg(long)]
    pipeline: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let passes = pipeline::passes();
    let width = passes.iter().map(|p| p.name.len()).max().unwrap_or(0);
    let lines: Vec<String> = match args.pipeline {
        true => pipeline::GRAPH
            .iter()
            .map(|step| format!("{:<width$}  {}\n", step.pass.name, step.reason))
            .collect(),
        false => passes
            .iter()
            .map(|pass| {
                let effect = match pass.effect {
                    Effect::Exact => "exact",
                    Effect::Bounded => "bounded",
                };
                format!("{:<width$}  {effect:<7}  {}\n", pass.name, pass.doc)
            })
            .collect(),
    };
    console::print(&lines.concat())
}
