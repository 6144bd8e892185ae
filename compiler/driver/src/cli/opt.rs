//! `dojoc opt`.

use std::path::PathBuf;

use dojoc::Compiler;

use super::args::{ModelArgs, PassArgs, read_model};
use super::{Context, Outcome, console};

/// Arguments of `dojoc opt`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A text form, an ONNX model, or -.
    model: PathBuf,
    /// Passes to run, in this order; `dojoc passes` lists them.
    #[arg(long, value_name = "P[,P]", value_delimiter = ',', required = true)]
    pass: Vec<String>,
    /// Where to write the result.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    pass_args: PassArgs,
    #[command(flatten)]
    model_args: ModelArgs,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let options = args.pass_args.apply(args.model_args.options());
    let options = options.cancel(context.cancel.clone());
    let module = read_model(&args.model, &args.model_args, &options, &[])?;
    context.console.warnings(module.warnings());
    let names: Vec<&str> = args.pass.iter().map(String::as_str).collect();
    let compiled = Compiler::new(&options).run_passes(&module, &names)?;
    context.console.compiled(&compiled);
    console::write(&args.output, &compiled.module.print())
}
