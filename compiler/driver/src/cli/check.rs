//! `dojoc check`.

use std::path::PathBuf;

use super::args::{ModelArgs, read_model};
use super::console::Failure;
use super::{Context, Outcome, console};

/// Arguments of `dojoc check`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// ONNX models or text forms, or -.
    #[arg(required = true)]
    models: Vec<PathBuf>,
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
            Err(error) => {
                context.console.error(&error);
                let count = error.diagnostics().len();
                let plural = if count == 1 { "" } else { "s" };
                console::print(&format!("{name}: {count} problem{plural}\n"))?;
                failed.push(error.exit_code());
            }
        }
    }
    match GRAVEST.into_iter().find(|code| failed.contains(code)) {
        Some(code) => Err(Failure::Reported(code)),
        None => Ok(()),
    }
}
