//! What a run gave: shown, written, compared with references.

use std::sync::Arc;

use dojoc::{Criterion, Diagnostic, NamedTensors, Result, Tensor, codes, compare};

use super::files::{TensorSpec, write_tensors};
use super::summary::{describe, number};
use super::{Outcome, batch, console};

/// Options about references.
#[derive(clap::Args, Clone, Debug)]
pub struct CompareArgs {
    /// Compare an output with a reference; exit code 5 if it differs.
    #[arg(long, value_name = "[OUTPUT=]FILE[:KEY]")]
    pub compare: Vec<TensorSpec>,
    /// Allowed difference, relative to each element of the reference.
    #[arg(long, default_value_t = 1e-3, requires = "compare")]
    pub rtol: f64,
    /// Allowed difference, absolute.
    #[arg(long, default_value_t = 1e-7, requires = "compare")]
    pub atol: f64,
}

/// What a run gave.
pub struct Report {
    /// Outputs.
    pub outputs: NamedTensors,
    /// Inner values that were asked for.
    pub probes: NamedTensors,
    /// Outputs of batches that could not be put together.
    pub odd: Vec<Arc<str>>,
}

impl Report {
    /// A line per tensor on standard output.
    pub fn print_summary(&self) -> Outcome {
        let all = || self.outputs.iter().chain(self.probes.iter());
        let width = all()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for (name, tensor) in all() {
            text += &format!("{name:<width$}  {}\n", describe(tensor));
        }
        for name in &self.odd {
            text += &format!("{name:<width$}  has no rows, a value per batch\n");
        }
        console::print(&text)
    }

    /// Writes outputs and probes.
    pub fn write(&self, path: &std::path::Path) -> Result<()> {
        if let Some(name) = self.odd.first() {
            return Err(batch::not_joined(name));
        }
        let mut tensors = self.outputs.0.clone();
        for (name, tensor) in &self.probes.0 {
            if !tensors.iter().any(|(n, _)| n == name) {
                tensors.push((name.clone(), tensor.clone()));
            }
        }
        write_tensors(path, &NamedTensors(tensors))
    }

    /// The output that a reference or labels are for.
    pub fn output(&self, name: Option<&str>, hint: Option<&str>) -> Result<(&str, &Tensor)> {
        let all = || self.outputs.iter().chain(self.probes.iter());
        let find = |name: &str| all().find(|(n, _)| *n == name);
        if let Some(name) = name {
            return find(name).ok_or_else(|| {
                if self.odd.iter().any(|n| &**n == name) {
                    return batch::not_joined(name);
                }
                let names: Vec<&str> = all().map(|(n, _)| n).collect();
                let message = format!("the function has no output `{name}`");
                let diagnostic = Diagnostic::input(codes::UNKNOWN_WORD, message);
                diagnostic
                    .help(format!("there are: {}", names.join(", ")))
                    .into()
            });
        }
        if let Some(found) = hint.and_then(find) {
            return Ok(found);
        }
        let mut outputs = self.outputs.iter();
        match (outputs.next(), outputs.next()) {
            (Some(only), None) if self.odd.is_empty() => Ok(only),
            _ => {
                let message = "the function has several outputs: say which one is meant";
                let names: Vec<&str> = all().map(|(n, _)| n).collect();
                let diagnostic = Diagnostic::input(codes::UNKNOWN_WORD, message);
                Err(diagnostic
                    .help(format!(
                        "OUTPUT=FILE, OUTPUT being one of {}",
                        names.join(", ")
                    ))
                    .into())
            }
        }
    }

    /// Compares outputs with references, and says how they compare if `say`.
    pub fn compare(&self, args: &CompareArgs, say: bool) -> Outcome {
        let criterion = Criterion::AllClose {
            rtol: args.rtol,
            atol: args.atol,
        };
        let mut differ = vec![];
        let mut compared = 0;
        for spec in &args.compare {
            let references = spec.load("output")?;
            let mut position = 0;
            for reference in references {
                let named = spec.name.as_deref();
                let hint = reference.hint.as_deref();
                if reference.bulk && hint.is_none_or(|h| self.outputs.get(h).is_none()) {
                    continue;
                }
                let by_position = self.outputs.iter().nth(position);
                position += 1;
                let (name, output) = match (named, spec.path.is_dir(), by_position) {
                    (None, true, Some(output)) if !reference.bulk => output,
                    _ => self.output(named, hint)?,
                };
                compared += 1;
                let result = compare(output, &reference.tensor, criterion);
                let (max_abs, scale) = (number(result.max_abs), number(result.scale));
                let verdict = if result.agrees() { "agrees" } else { "DIFFERS" };
                if say {
                    console::print(&format!(
                        "compare {name}: {verdict}  max |a - b| {max_abs}  max |b| {scale}\n"
                    ))?;
                }
                if let Some(why) = result.mismatch {
                    let message = format!("output `{name}`: {why}");
                    let diagnostic = Diagnostic::input(codes::VALUES_DIFFER, message);
                    let note =
                        format!("allowed is {:e} + {:e} * |reference|", args.atol, args.rtol);
                    differ.push(diagnostic.note(note));
                }
            }
        }
        if !args.compare.is_empty() && compared == 0 {
            let message = "no array of the reference has the name of an output";
            return Err(Diagnostic::input(codes::UNKNOWN_ARRAY, message).into());
        }
        match differ.is_empty() {
            true => Ok(()),
            false => Err(dojoc::Diagnostics(differ).into()),
        }
    }
}
