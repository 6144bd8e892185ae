//! `dojoc check`.

use std::path::{Path, PathBuf};

use dojoc::Error;

use super::args::{ModelArgs, is_dash, read_model};
use super::asm::{read_program, target};
use super::console::Failure;
use super::{Context, Outcome, console, model};

/// Arguments of `dojoc check`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// ONNX models, text forms or executables (.djx), or -.
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// The machine of programs, if it is not built in: its name or a file.
    #[arg(long, value_name = "NAME|FILE")]
    machine: Option<String>,
    #[command(flatten)]
    model_args: ModelArgs,
}

/// Exit codes from the gravest on.
const GRAVEST: [u8; 6] = [130, 70, 1, 4, 3, 5];

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let options = args.model_args.options();
    let mut failed = vec![];
    for path in &args.models {
        let name = path.display();
        if is_program(path) {
            if let Some(code) = check_program(path, args, context)? {
                failed.push(code);
            }
            continue;
        }
        match read_model(path, &args.model_args, &options, &[]) {
            Ok(module) => {
                context.console.warnings(module.warnings());
                let mut text = format!("{name}: ok\n");
                for function in module.functions() {
                    let graph = module.graph();
                    let nodes = graph
                        .function(&function.name)
                        .map(|f| graph.functions[f].nodes.len());
                    text += &format!("  {}: {} nodes\n", function.name, nodes.unwrap_or(0));
                    for (word, ports) in
                        [("input", &function.inputs), ("output", &function.outputs)]
                    {
                        for port in ports {
                            text += &format!("    {word} {} : {}\n", port.name, port.ty);
                        }
                    }
                }
                console::print(&text)?;
            }
            Err(error) => failed.push(report(path, &error, context)?),
        }
    }
    match GRAVEST.into_iter().find(|code| failed.contains(code)) {
        Some(code) => Err(Failure::Reported(code)),
        None => Ok(()),
    }
}

/// Reports the problems of a file; the exit code they ask for.
fn report(path: &Path, error: &Error, context: &Context) -> Result<u8, Failure> {
    context.console.error(error);
    let count = error.diagnostics().len();
    let plural = if count == 1 { "" } else { "s" };
    console::print(&format!("{}: {count} problem{plural}\n", path.display()))?;
    Ok(error.exit_code())
}

/// Whether a file is a program. Standard input is a model, and a file that cannot be read is for
/// the reader of models to report.
fn is_program(path: &Path) -> bool {
    !is_dash(path) && model::is_program(path).is_ok_and(|is| is)
}

/// Verifies a program; the exit code if it has problems.
fn check_program(path: &Path, args: &Args, context: &Context) -> Result<Option<u8>, Failure> {
    let verified = read_program(path).and_then(|executable| {
        let target = target(&executable, args.machine.as_deref())?;
        executable.verify_until(&target, &context.cancel)?;
        let program = executable.program();
        let mut text = format!("{}: ok\n", path.display());
        for entry in program.entries.values() {
            text += &format!("  {}: {} steps\n", entry.name, entry.steps.len());
            let signature = executable.signature(Some(&entry.name), &[])?;
            for (word, ports) in [("input", &signature.inputs), ("output", &signature.outputs)] {
                for port in ports {
                    text += &format!("    {word} {} : {}\n", port.name, port.ty);
                }
            }
        }
        Ok(text)
    });
    match verified {
        Ok(text) => console::print(&text).map(|()| None),
        Err(error) => report(path, &error, context).map(Some),
    }
}
