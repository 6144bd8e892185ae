//! `dojoc fmt`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dojoc::{Diagnostic, Diagnostics, Error, Result, SourceText, codes};
use dojoc_compiler::io::IoError;
use dojoc_compiler::io::atomic::write_bytes_atomic;

use super::args::{is_dash, read_stdin};
use super::console::Failure;
use super::{Context, Outcome, console};

/// Arguments of `dojoc fmt`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Text forms of any level, changed in place; - is standard input to standard output.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Change nothing; name the files that would change, and end with exit code 1 if there are any.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let mut failed = false;
    for path in &args.files {
        if let Err(failure) = format(path, args.check) {
            let Failure::Error(error) = failure else {
                return Err(failure);
            };
            context.console.error(&error);
            failed = true;
        }
    }
    match failed {
        true => Err(Failure::Reported(1)),
        false => Ok(()),
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = match is_dash(path) {
        true => read_stdin()?,
        false => std::fs::read(path).map_err(|error| IoError::reading(path, &error))?,
    };
    String::from_utf8(bytes).map_err(|_| {
        let message = format!("{}: the file is not UTF-8 text", path.display());
        Diagnostic::input(codes::UNKNOWN_KIND, message).into()
    })
}

fn format(path: &Path, check: bool) -> Outcome {
    let text = read(path)?;
    let name = match is_dash(path) {
        true => "<stdin>".to_owned(),
        false => path.display().to_string(),
    };
    let formatted = dojoc_grammar::format(&text).map_err(|errors| {
        let diagnostics = errors.into_iter().map(|e| {
            let span = e.span.start as usize..e.span.end as usize;
            let diagnostic = Diagnostic::input(e.code, e.message).at_span(span);
            match e.help {
                Some(help) => diagnostic.help(help),
                None => diagnostic,
            }
        });
        let diagnostics = Diagnostics(diagnostics.collect());
        let source = SourceText {
            name: name.clone(),
            text: text.clone(),
        };
        Error::new(diagnostics, Some(Arc::new(source)))
    })?;
    if check {
        if formatted == text {
            return Ok(());
        }
        let same = text
            .lines()
            .zip(formatted.lines())
            .take_while(|(a, b)| a == b)
            .count();
        let message = format!("{name}: not in canonical form, first at line {}", same + 1);
        let diagnostic = Diagnostic::input(codes::NOT_FORMATTED, message);
        return Err(diagnostic.help(format!("dojoc fmt {name}")).into());
    }
    if is_dash(path) {
        return console::print(&formatted);
    }
    if formatted != text {
        write_bytes_atomic(path, formatted.as_bytes())?;
    }
    Ok(())
}
