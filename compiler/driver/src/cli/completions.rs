//! `dojoc completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Outcome, console};

/// Arguments of `dojoc completions`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Shell to complete for.
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "dojoc", &mut script);
    console::print_bytes(&script)
}
