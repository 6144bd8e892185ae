//! Messages on standard error, data on standard output.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use clap::{ArgAction, ValueEnum};
use dojoc::render::{self, Severity};
use dojoc::{Agreement, Compiled, Diagnostic, Error, SourceText};
use dojoc_compiler::io::atomic::write_bytes_atomic;

use serde_json::json;

use super::args::is_dash;

/// Options of all commands.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct GlobalArgs {
    /// Form of messages on standard error.
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub message_format: Format,
    /// When messages have colours.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Errors only: no warnings, notes and progress.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more.
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

/// Form of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One object per line.
    Json,
}

/// When messages have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// Not reported yet.
    Error(Error),
    /// Reported; only the exit code is left.
    Reported(u8),
    /// Whoever read our output has seen enough.
    Closed,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Error(error.into())
    }
}

/// The failure of a write to standard output.
pub fn output_failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::Closed;
    }
    dojoc_compiler::io::IoError::writing("standard output", &error).into()
}

/// Writes data to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(output_failed)
}

/// Writes text to a file, whole or not at all, or to standard output.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if is_dash(path) {
        return print(text);
    }
    Ok(write_bytes_atomic(path, text.as_bytes())?)
}

/// Where messages go, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    format: Format,
    color: bool,
    /// Whether only errors are wanted.
    pub quiet: bool,
    /// How much more is wanted.
    pub verbose: u8,
}

impl Console {
    /// The console that the options ask for.
    pub fn new(args: &GlobalArgs) -> Self {
        let auto = || std::env::var_os("NO_COLOR").is_none() && io::stderr().is_terminal();
        Self {
            format: args.message_format,
            color: match args.color {
                Color::Auto => auto(),
                Color::Always => true,
                Color::Never => false,
            },
            quiet: args.quiet,
            verbose: args.verbose,
        }
    }

    /// Whether a progress bar can be shown.
    pub fn has_progress(&self) -> bool {
        !self.quiet && self.format == Format::Human && io::stderr().is_terminal()
    }

    /// Whether messages are objects.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A line on standard error. That it cannot be written is no reason to stop.
    fn write(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Reports a diagnostic.
    pub fn diagnostic(
        &self,
        diagnostic: &Diagnostic,
        severity: Severity,
        source: Option<&SourceText>,
    ) {
        let text = match self.format {
            Format::Human => render::human(diagnostic, severity, source, self.color),
            Format::Json => render::json(diagnostic, severity, source) + "\n",
        };
        self.write(&text);
    }

    /// Reports an error with all its diagnostics.
    pub fn error(&self, error: &Error) {
        let source = error.problems().source.as_deref();
        for diagnostic in error.diagnostics() {
            self.diagnostic(diagnostic, Severity::Error, source);
        }
    }

    /// Writes the IR that a defect left behind to a file that can be reported.
    pub fn save_dump(&self, error: &Error) {
        let Some(dump) = &error.problems().dump else {
            return;
        };
        let file = tempfile::Builder::new()
            .prefix("dojoc-")
            .suffix(&format!("-{}", dump.name))
            .tempfile();
        let saved = file.and_then(|mut file| {
            file.write_all(dump.text.as_bytes())?;
            Ok(file.keep()?.1)
        });
        match saved {
            Ok(path) => self.note(&format!("the IR is in {}", path.display())),
            Err(error) => self.note(&format!("the IR could not be written: {error}")),
        }
    }

    /// Reports warnings.
    pub fn warnings(&self, warnings: &[Diagnostic]) {
        if !self.quiet {
            for warning in warnings {
                self.diagnostic(warning, Severity::Warning, None);
            }
        }
    }

    /// Reports the warnings of passes, and what they did to those who asked for more.
    pub fn compiled(&self, compiled: &Compiled) {
        self.warnings(&compiled.warnings.0);
        self.agreements(&compiled.agreements);
        for stats in &compiled.passes {
            let (pass, changes) = (stats.pass, stats.changes);
            let seconds = stats.time.as_secs_f64();
            self.detail(&format!("pass {pass}: {changes} changes, {seconds:.3} s"));
        }
        let changes: u64 = compiled.passes.iter().map(|s| s.changes).sum();
        self.detail(&format!("all passes: {changes} changes"));
    }

    /// Reports what a validation has found: a line or an object per level.
    pub fn agreements(&self, agreements: &[Agreement]) {
        for agreement in agreements {
            let Agreement {
                level,
                points,
                worst,
                value,
            } = agreement;
            if self.is_json() {
                self.object(&json!({
                    "validated": level,
                    "points": points,
                    "worst": worst,
                    "value": value,
                }));
            } else if !self.quiet {
                let far = match value {
                    Some(value) => format!("at most {worst:.1e} from f64, at {value}"),
                    None => "all equal to f64".to_owned(),
                };
                self.write(&format!(
                    "validated {level}: {points} values agree, {far}\n"
                ));
            }
        }
    }

    /// Reports a summary as an object.
    pub fn object(&self, object: &serde_json::Value) {
        self.write(&format!("{object}\n"));
    }

    /// A remark for people; programs and the quiet do not get it.
    pub fn note(&self, text: &str) {
        if !self.quiet && self.format == Format::Human {
            self.write(&format!("note: {text}\n"));
        }
    }

    /// A remark for those who asked for more.
    pub fn detail(&self, text: &str) {
        if self.verbose > 0 && self.format == Format::Human {
            self.write(&format!("{text}\n"));
        }
    }
}
