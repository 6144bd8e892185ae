//! The command line: a thin layer over the facade, one file per command.

mod args;
mod asm;
mod batch;
mod bench;
mod check;
mod compile;
mod completions;
mod console;
mod dumps;
mod eval;
mod explain;
mod files;
mod fmt;
mod inputs;
mod instructions;
mod machine;
mod model;
mod ops;
mod opt;
mod panic;
mod passes;
mod report;
mod run;
mod summary;
mod test;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};

use console::{Console, Failure, GlobalArgs};

/// Compiles neural nets for Dojo-like meshes.
#[derive(Parser)]
#[command(
    name = "dojoc",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit codes: 0 ok, 1 wrong input, 2 wrong usage, 3 a limit is exceeded, \
                        4 unsupported, 5 values differ, 70 a defect of dojoc, 130 interrupted.\n\
                        A file name of - is standard input or output."
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a model with the reference interpreter: outputs, accuracy, comparison.
    Eval(eval::Args),
    /// Compile a model and write the result.
    Compile(compile::Args),
    /// Run a program: an executable or assembly.
    Run(Box<run::Args>),
    /// Assemble a program into an executable (.djx).
    Asm(asm::AsmArgs),
    /// Show an executable as assembly.
    Dis(asm::DisArgs),
    /// Report all problems of models and programs at once.
    Check(check::Args),
    /// Run test cases: model.onnx beside test_data_set_N/{input,output}_K.pb.
    Test(test::Args),
    /// Run single passes: text in, text out.
    Opt(opt::Args),
    /// List the passes.
    Passes(passes::Args),
    /// Put text forms into canonical form.
    Fmt(fmt::Args),
    /// List the ops, or document one.
    Ops(ops::Args),
    /// Describe a machine.
    Machine(machine::Args),
    /// Measure the runtime on this host: kernels, dispatch, channels, whole programs.
    Bench(bench::Args),
    /// Explain an error code.
    Explain(explain::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// What a command may use besides its arguments.
pub struct Context {
    /// Where messages go.
    pub console: Console,
    /// Set when the user interrupts.
    pub cancel: Arc<AtomicBool>,
}

/// The outcome of a command: done, or why not.
pub type Outcome = Result<(), Failure>;

/// Deep models make deep recursions.
const STACK: usize = 256 << 20;

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new(&cli.global);
    panic::install(console);
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    let handled = ctrlc::set_handler(move || {
        // Whoever presses twice does not want to wait for an orderly end.
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    if handled.is_err() {
        console.note("interrupts end the process at once");
    }
    let context = Context { console, cancel };
    let thread = std::thread::Builder::new().stack_size(STACK);
    let outcome = match thread.spawn(move || dispatch(cli.command, &context)) {
        Ok(thread) => thread.join(),
        Err(error) => {
            console.note(&format!("cannot start a thread: {error}"));
            return ExitCode::from(70);
        }
    };
    match outcome {
        Ok(Ok(())) | Ok(Err(Failure::Closed)) => ExitCode::SUCCESS,
        Ok(Err(Failure::Reported(code))) => ExitCode::from(code),
        Ok(Err(Failure::Error(error))) => {
            console.error(&error);
            console.save_dump(&error);
            ExitCode::from(error.exit_code())
        }
        // The hook has reported the panic.
        Err(_) => ExitCode::from(70),
    }
}

fn dispatch(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Eval(args) => eval::run(&args, context),
        Command::Compile(args) => compile::run(&args, context),
        Command::Run(args) => run::run(&args, context),
        Command::Asm(args) => asm::asm(&args, context),
        Command::Dis(args) => asm::dis(&args),
        Command::Check(args) => check::run(&args, context),
        Command::Test(args) => test::run(&args, context),
        Command::Opt(args) => opt::run(&args, context),
        Command::Passes(args) => passes::run(&args),
        Command::Fmt(args) => fmt::run(&args, context),
        Command::Ops(args) => ops::run(&args),
        Command::Machine(args) => machine::run(&args),
        Command::Bench(args) => bench::run(&args, context),
        Command::Explain(args) => explain::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}
