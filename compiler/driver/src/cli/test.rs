//! `dojoc test`.

mod case;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::ValueEnum;
use dojoc::{Code, Diagnostic, Kind, codes};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::prelude::*;
use serde_json::json;

use case::{Case, Report, Status};

use super::console::{Console, Failure};
use super::{Context, Outcome, console};

/// Arguments of `dojoc test`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "A case is a folder with model.onnx and test_data_set_N/input_K.pb, \
                        output_K.pb. Floats agree if |a - b| <= atol + rtol * |b|; where info.json \
                        has `tol`, if max |a - b| <= tol * max |b|. Exit code 5 if a case fails; \
                        unsupported cases do not count as failures."
)]
pub struct Args {
    /// Folders that are searched for cases.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Level at which the cases run.
    #[arg(long, value_enum, default_value_t = Level::Graph)]
    level: Level,
    /// Allowed difference, relative to each element.
    #[arg(long, default_value_t = 1e-3)]
    rtol: f64,
    /// Allowed difference, absolute.
    #[arg(long, default_value_t = 1e-7)]
    atol: f64,
    /// Form of the results on standard output.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Number of threads; by default that of the machine.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Level at which cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// The model as imported.
    Import,
    /// After all passes of the GRAPH level.
    Graph,
    #[value(hide = true)]
    Tiled,
    #[value(hide = true)]
    Mesh,
    #[value(hide = true)]
    Program,
}

/// Form of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Failures, counts of what is unsupported, and a total; with -v every case.
    Human,
    /// One object per case.
    Json,
}

/// Models with more bytes than this run one at a time.
const BIG: u64 = 100 << 20;

/// Ops nest, and so does their evaluation.
const STACK: usize = 64 << 20;

/// Prints results in the order of the cases as they become known.
struct Printer<'a> {
    format: Format,
    console: &'a Console,
    progress: &'a ProgressBar,
    next: usize,
    waiting: BTreeMap<usize, Report>,
    done: Vec<Report>,
    failure: Option<Failure>,
}

impl Printer<'_> {
    fn add(&mut self, index: usize, report: Report) {
        self.progress.inc(1);
        self.waiting.insert(index, report);
        while let Some(report) = self.waiting.remove(&self.next) {
            self.next += 1;
            let text = self.line(&report);
            if !text.is_empty() && self.failure.is_none() {
                let written = self.progress.suspend(|| console::print(&text));
                self.failure = written.err();
            }
            self.done.push(report);
        }
    }

    fn line(&self, report: &Report) -> String {
        let code = report.code.map(|c| c.to_string());
        if self.format == Format::Json {
            let object = json!({
                "case": report.case,
                "status": report.status.name(),
                "code": code,
                "max_abs_err": report.max_abs_err.filter(|e| e.is_finite()),
                "seconds": report.seconds,
                "message": report.message,
            });
            return format!("{object}\n");
        }
        let shown = report.status == Status::Failed || self.console.verbose > 0;
        if !shown {
            return String::new();
        }
        let message = report.message.as_deref().unwrap_or_default();
        let message = match code {
            Some(code) => format!("  {code}: {message}"),
            None if message.is_empty() => String::new(),
            None => format!("  ({message})"),
        };
        format!("{:<11}  {}{message}\n", report.status.name(), report.case)
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let console = &context.console;
    if !matches!(args.level, Level::Import | Level::Graph) {
        let message = "only the levels `import` and `graph` exist yet";
        let diagnostic = Diagnostic::new(codes::UNSUPPORTED_OUTPUT, Kind::Unsupported, message);
        return Err(diagnostic.help("use `--level graph`").into());
    }
    let mut cases = case::find(&args.dirs)?;
    if let Some(filter) = &args.filter {
        cases.retain(|case| case.name.contains(filter.as_str()));
    }
    if cases.is_empty() {
        let message = "there is no case in these folders";
        let help = "a case is a folder with a file `model.onnx`";
        return Err(Diagnostic::input(codes::BAD_CASE, message)
            .help(help)
            .into());
    }
    let progress = progress(console.has_progress(), cases.len() as u64);
    let printer = Mutex::new(Printer {
        format: args.format,
        console,
        progress: &progress,
        next: 0,
        waiting: BTreeMap::new(),
        done: vec![],
        failure: None,
    });
    run_all(args, context, &cases, &printer)?;
    progress.finish_and_clear();
    let printer = printer
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(failure) = printer.failure {
        return Err(failure);
    }
    if context.cancel.load(Ordering::Relaxed) {
        return Err(
            Diagnostic::input(dojoc_ir::codes::CANCELLED, "the tests were interrupted").into(),
        );
    }
    finish(&printer.done, args.format)
}

fn progress(visible: bool, cases: u64) -> ProgressBar {
    if !visible {
        return ProgressBar::hidden();
    }
    let target = ProgressDrawTarget::stderr_with_hz(8);
    let bar = ProgressBar::with_draw_target(Some(cases), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len}, {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// Runs the cases, the big ones one after the other beside all others.
fn run_all(
    args: &Args,
    context: &Context,
    cases: &[Case],
    printer: &Mutex<Printer<'_>>,
) -> Outcome {
    let pool = rayon::ThreadPoolBuilder::new()
        .stack_size(STACK)
        .num_threads(args.jobs.unwrap_or(0))
        .build();
    let pool = pool.map_err(|error| {
        let message = format!("cannot start threads: {error}");
        dojoc::Error::from(Diagnostic::new(codes::BAD_OPTION, Kind::Limit, message))
    })?;
    let options = case::Options {
        level: args.level,
        rtol: args.rtol,
        atol: args.atol,
        cancel: context.cancel.clone(),
    };
    let one = |(index, case): (usize, &Case)| {
        if context.cancel.load(Ordering::Relaxed) {
            return;
        }
        let report = case.run(&options);
        // A case that was stopped has not failed.
        if report.code == Some(Code(dojoc_ir::codes::CANCELLED)) {
            return;
        }
        let printer = printer.lock();
        printer
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .add(index, report);
    };
    let (big, small): (Vec<_>, Vec<_>) = cases.iter().enumerate().partition(|(_, c)| c.bytes > BIG);
    pool.install(|| {
        rayon::join(
            || big.into_iter().for_each(one),
            // One at a time, so that results come in about the order in which they are printed.
            || small.into_par_iter().with_max_len(1).for_each(one),
        )
    });
    Ok(())
}

fn finish(reports: &[Report], format: Format) -> Outcome {
    let count = |status| reports.iter().filter(|r| r.status == status).count();
    let (passed, failed) = (count(Status::Passed), count(Status::Failed));
    let unsupported = count(Status::Unsupported);
    let total = format!("{passed} passed, {failed} failed, {unsupported} unsupported\n");
    if format == Format::Human {
        let mut causes = BTreeMap::<(String, &str), usize>::new();
        for report in reports.iter().filter(|r| r.status == Status::Unsupported) {
            let code = report.code.map_or_else(String::new, |c| c.to_string());
            let message = report.message.as_deref().unwrap_or_default();
            *causes.entry((code, message)).or_default() += 1;
        }
        let lines = causes.iter().map(|((code, message), count)| {
            format!("unsupported  {count:>4} x {code}: {message}\n")
        });
        console::print(&(lines.collect::<String>() + &total))?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Reported(5)),
    }
}
