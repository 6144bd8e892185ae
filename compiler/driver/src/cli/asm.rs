//! `dojoc asm` and `dojoc dis`.

use std::path::{Path, PathBuf};

use dojoc::program::Executable;
use dojoc::{Diagnostic, Error, Result, codes};

use super::args::{is_dash, read_stdin};
use super::{Context, Outcome, console, machine};

/// Arguments of `dojoc asm`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The file is written whole or not at all. Weights stay in the files that the \
                        program's recipes name, which must be beside the .djx to run it."
)]
pub struct AsmArgs {
    /// Assembly, or -.
    program: PathBuf,
    /// Where to write the executable; by default beside the input, with the extension .djx.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The machine, if it is not built in: its name or a file.
    #[arg(long, value_name = "NAME|FILE")]
    machine: Option<String>,
    /// Write the executable even if it breaks rules of the level.
    #[arg(long)]
    no_verify: bool,
}

/// Arguments of `dojoc dis`.
#[derive(clap::Args, Debug)]
pub struct DisArgs {
    /// An executable (.djx) or assembly, or -.
    program: PathBuf,
    /// Where to write the assembly.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

/// Reads a program from a path or standard input.
pub fn read_program(path: &Path) -> Result<Executable> {
    match is_dash(path) {
        true => Executable::from_bytes(read_stdin()?.into(), "<stdin>"),
        false => Executable::open(path),
    }
}

/// The machine of an option, or that of the program.
pub fn target(executable: &Executable, machine: Option<&str>) -> Result<dojoc::Target> {
    match machine {
        Some(name) => machine::load(name),
        None => executable.target(),
    }
}

/// Runs `dojoc asm`.
pub fn asm(args: &AsmArgs, context: &Context) -> Outcome {
    let executable = read_program(&args.program)?;
    if !executable.is_assembly() {
        let message = format!("{} is an executable already", args.program.display());
        return Err(Error::from(
            Diagnostic::input(codes::UNKNOWN_KIND, message)
                .help("`dojoc dis` shows it as assembly, `dojoc check` checks it"),
        )
        .into());
    }
    if !args.no_verify {
        let target = target(&executable, args.machine.as_deref())?;
        executable.verify_until(&target, &context.cancel)?;
    }
    let beside = || match is_dash(&args.program) {
        true => PathBuf::from("-"),
        false => args.program.with_extension("djx"),
    };
    let output = args.output.clone().unwrap_or_else(beside);
    if output == args.program && !is_dash(&output) {
        let message = format!("{} would be overwritten", output.display());
        return Err(Error::from(
            Diagnostic::input(codes::BAD_OPTION, message)
                .help("say by --output where the executable is to go"),
        )
        .into());
    }
    match is_dash(&output) {
        true => console::print_bytes(&executable.encode()),
        false => Ok(executable.write(&output)?),
    }
}

/// Runs `dojoc dis`.
pub fn dis(args: &DisArgs) -> Outcome {
    console::write(&args.output, &read_program(&args.program)?.disassemble())
}
