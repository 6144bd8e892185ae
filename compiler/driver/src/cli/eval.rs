//! `dojoc eval`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dojoc::{
    Criterion, Diagnostic, Error, Evaluator, Module, NamedTensor, NamedTensors, Result, Run,
    Signature, Tensor, codes, compare,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{ModelArgs, read_model};
use super::files::{Loaded, TensorSpec, write_tensors};
use super::summary::{describe, number};
use super::{Context, Outcome, batch, console};

/// Arguments of `dojoc eval`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Tensor files: .npy, .npz, .pb (ONNX TensorProto), .safetensors, or a folder \
                        of input_0.pb, input_1.pb...; FILE.npz:KEY is one array of an archive.\n\
                        Data with more rows than the model's fixed batch is run batch by batch, so \
                        that\n  dojoc eval digits.onnx -i heldout.npz:x --accuracy heldout.npz:labels\n\
                        evaluates a classifier on all held-out images."
)]
pub struct Args {
    /// An ONNX model, a text form, or -.
    model: PathBuf,
    /// Values of an input; without NAME by the array's name or else by position.
    #[arg(short, long, value_name = "[NAME=]FILE[:KEY]")]
    input: Vec<TensorSpec>,
    /// Random values for inputs that are not given: floats in [-1, 1), integers 0 or 1.
    #[arg(long, value_name = "SEED")]
    random: Option<u64>,
    /// Function to run.
    #[arg(long, value_name = "FUNCTION")]
    entry: Option<String>,
    /// States before the run.
    #[arg(long, value_name = "F.npz")]
    state_in: Option<PathBuf>,
    /// Where to write the states after the run.
    #[arg(long, value_name = "F.npz")]
    state_out: Option<PathBuf>,
    /// Where to write outputs and probes: an .npz or .safetensors file, or a folder for .npy files.
    #[arg(short, long, value_name = "F.npz|DIR")]
    output: Option<PathBuf>,
    /// Also show (and write) an inner value, by its name or that of the node that computes it.
    #[arg(long, value_name = "NAME")]
    probe: Vec<String>,
    /// Compare an output with a reference; exit code 5 if it differs.
    #[arg(long, value_name = "[OUTPUT=]FILE[:KEY]")]
    compare: Vec<TensorSpec>,
    /// Allowed difference, relative to each element of the reference.
    #[arg(long, default_value_t = 1e-3, requires = "compare")]
    rtol: f64,
    /// Allowed difference, absolute.
    #[arg(long, default_value_t = 1e-7, requires = "compare")]
    atol: f64,
    /// Share of rows whose arg-max (over the last dimension) of an output is the label.
    #[arg(long, value_name = "[OUTPUT=]FILE[:KEY]")]
    accuracy: Option<TensorSpec>,
    /// Run this many times; states go from one run to the next.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    #[command(flatten)]
    model_args: ModelArgs,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let console = &context.console;
    let mut loaded = vec![];
    for spec in &args.input {
        loaded.extend(spec.load("input")?);
    }
    let module = read(args, &loaded)?;
    console.warnings(module.warnings());
    if !module.specialized().is_empty() {
        let names = module.specialized().join("`, `");
        console.note(&format!(
            "shapes depend on the values of `{names}`, taken as constants"
        ));
    }
    let mut evaluator =
        Evaluator::new(&module, args.entry.as_deref())?.cancel(context.cancel.clone());
    for name in &args.probe {
        evaluator.probe(name)?;
    }
    if let Some(path) = &args.state_in {
        load_states(&mut evaluator, path)?;
    }
    let signature = module.signature(args.entry.as_deref())?;
    let mut inputs = assign(&signature, loaded)?;
    fill_missing(args, &evaluator, &signature, &mut inputs)?;

    let progress = progress(console.has_progress());
    let plan = batch::plan(&signature, &inputs)?;
    let mut result = (Run::default(), vec![]);
    for _ in 0..args.repeat {
        let start = Instant::now();
        result = match &plan {
            Some(plan) => batch::run(&mut evaluator, &inputs, plan, &progress)?,
            None => {
                let views: Vec<_> = inputs.iter().map(|(n, t)| (&**n, t.into())).collect();
                (evaluator.run(&views)?, vec![])
            }
        };
        console.detail(&format!("run: {:.3} s", start.elapsed().as_secs_f64()));
    }
    progress.finish_and_clear();
    let (run, odd) = result;
    let report = Report { run, odd };
    report.print_summary()?;
    if let Some(path) = &args.output {
        report.write(path)?;
    }
    if let Some(path) = &args.state_out {
        write_tensors(path, &evaluator.states())?;
    }
    if let Some(spec) = &args.accuracy {
        report.accuracy(spec)?;
    }
    report.compare(args)
}

fn read(args: &Args, loaded: &[Loaded]) -> Result<Module> {
    let given: Vec<NamedTensor> = loaded
        .iter()
        .map(|l| NamedTensor {
            name: l.name.clone().or_else(|| l.hint.clone()),
            tensor: l.tensor.clone(),
        })
        .collect();
    read_model(
        &args.model,
        &args.model_args,
        &args.model_args.options(),
        &given,
    )
}

fn progress(visible: bool) -> ProgressBar {
    if !visible {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} batch {pos} of {len}, {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

fn load_states(evaluator: &mut Evaluator, path: &std::path::Path) -> Result<()> {
    let spec = TensorSpec {
        name: None,
        path: path.to_path_buf(),
        key: None,
    };
    for state in spec.load("state")? {
        let name = state.hint.unwrap_or_default();
        evaluator.set_state(&name, (&state.tensor).into())?;
    }
    Ok(())
}

/// Which tensor is for which input: by the given name, else by the file's, else by position.
fn assign(signature: &Signature, loaded: Vec<Loaded>) -> Result<Vec<(Arc<str>, Tensor)>> {
    let known = |name: &str| {
        signature
            .inputs
            .iter()
            .find(|p| &*p.name == name)
            .map(|p| p.name.clone())
    };
    let mut inputs: Vec<(Arc<str>, Tensor)> = vec![];
    let mut by_position = vec![];
    let bulk = loaded.iter().filter(|l| l.bulk);
    let names: Vec<String> = bulk.filter_map(|l| l.hint.clone()).collect();
    for loaded in loaded {
        let hinted = loaded.hint.as_deref().and_then(known);
        match (loaded.name, hinted) {
            // An unknown name is reported by the run, with those there are.
            (Some(name), _) => inputs.push((name.into(), loaded.tensor)),
            (None, Some(name)) => inputs.push((name, loaded.tensor)),
            // Other arrays of an archive may be labels or references.
            (None, None) if loaded.bulk => {}
            (None, None) => by_position.push(loaded.tensor),
        }
    }
    let taken: BTreeSet<Arc<str>> = inputs.iter().map(|(name, _)| name.clone()).collect();
    let mut free = signature.inputs.iter().filter(|p| !taken.contains(&p.name));
    for tensor in by_position {
        let Some(port) = free.next() else {
            let message = format!(
                "more tensors than inputs: one of {} is left over",
                tensor.ty()
            );
            return Err(bad_inputs(message, signature));
        };
        inputs.push((port.name.clone(), tensor));
    }
    if !names.is_empty() && inputs.is_empty() {
        let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
        let message = format!(
            "no array has the name of an input: there are {}",
            names.join(", ")
        );
        return Err(bad_inputs(message, signature));
    }
    Ok(inputs)
}

fn bad_inputs(message: String, signature: &Signature) -> Error {
    let inputs = signature.inputs.iter();
    let inputs: Vec<String> = inputs.map(|p| format!("`{}` : {}", p.name, p.ty)).collect();
    let diagnostic = Diagnostic::input(codes::BAD_INPUTS, message);
    let inputs = inputs.join(", ");
    diagnostic
        .help(format!(
            "the inputs are {inputs}; --input INPUT=FILE.npz:ARRAY takes one array"
        ))
        .into()
}

fn fill_missing(
    args: &Args,
    evaluator: &Evaluator,
    signature: &Signature,
    inputs: &mut Vec<(Arc<str>, Tensor)>,
) -> Result<()> {
    let missing: Vec<&Arc<str>> = signature
        .inputs
        .iter()
        .map(|p| &p.name)
        .filter(|name| !inputs.iter().any(|(n, _)| n == *name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(seed) = args.random else {
        let mut diagnostic = Diagnostic::input(codes::BAD_INPUTS, "inputs are missing");
        for port in signature
            .inputs
            .iter()
            .filter(|p| missing.contains(&&p.name))
        {
            diagnostic = diagnostic.note(format!("no value for `{}` : {}", port.name, port.ty));
        }
        let help = format!("give them (--input {}=FILE) or try --random 1", missing[0]);
        return Err(diagnostic.help(help).into());
    };
    let random = evaluator.random_inputs(seed);
    let missing: BTreeSet<Arc<str>> = missing.into_iter().cloned().collect();
    inputs.extend(
        random
            .0
            .into_iter()
            .filter(|(name, _)| missing.contains(name)),
    );
    Ok(())
}

struct Report {
    run: Run,
    /// Outputs of batches that could not be put together.
    odd: Vec<Arc<str>>,
}

impl Report {
    fn print_summary(&self) -> Outcome {
        let all = || self.run.outputs.iter().chain(self.run.probes.iter());
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

    fn write(&self, path: &std::path::Path) -> Result<()> {
        if let Some(name) = self.odd.first() {
            return Err(batch::not_joined(name));
        }
        let mut tensors = self.run.outputs.0.clone();
        for (name, tensor) in &self.run.probes.0 {
            if !tensors.iter().any(|(n, _)| n == name) {
                tensors.push((name.clone(), tensor.clone()));
            }
        }
        write_tensors(path, &NamedTensors(tensors))
    }

    /// The output that a reference or labels are for.
    fn output(&self, name: Option<&str>, hint: Option<&str>) -> Result<(&str, &Tensor)> {
        let all = || self.run.outputs.iter().chain(self.run.probes.iter());
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
        let mut outputs = self.run.outputs.iter();
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

    fn accuracy(&self, spec: &TensorSpec) -> Outcome {
        let all = spec.load("output")?;
        let [labels] = &all[..] else {
            let names: Vec<&str> = all.iter().filter_map(|l| l.hint.as_deref()).collect();
            let message = format!("{}: say which array has the labels", spec.path.display());
            let diagnostic = Diagnostic::input(codes::UNKNOWN_ARRAY, message);
            let help = format!("FILE.npz:KEY, KEY being one of {}", names.join(", "));
            return Err(diagnostic.help(help).into());
        };
        let (name, output) = self.output(spec.name.as_deref(), None)?;
        let (right, count) = count_right(name, output, &labels.tensor)?;
        let percent = 100.0 * right as f64 / count as f64;
        console::print(&format!("accuracy {percent:.2} % ({right} of {count})\n"))
    }

    fn compare(&self, args: &Args) -> Outcome {
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
                if reference.bulk && hint.is_none_or(|h| self.run.outputs.get(h).is_none()) {
                    continue;
                }
                let by_position = self.run.outputs.iter().nth(position);
                position += 1;
                let (name, output) = match (named, spec.path.is_dir(), by_position) {
                    (None, true, Some(output)) if !reference.bulk => output,
                    _ => self.output(named, hint)?,
                };
                compared += 1;
                let result = compare(output, &reference.tensor, criterion);
                let (max_abs, scale) = (number(result.max_abs), number(result.scale));
                let verdict = if result.agrees() { "agrees" } else { "DIFFERS" };
                console::print(&format!(
                    "compare {name}: {verdict}  max |a - b| {max_abs}  max |b| {scale}\n"
                ))?;
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

/// The number of rows whose label is right, and the number of rows. An integer output of as many
/// elements as there are labels counts as the classes themselves.
fn count_right(name: &str, output: &Tensor, labels: &Tensor) -> Result<(usize, usize)> {
    let refused = |why: String| {
        let message = format!(
            "the labels are {}, output `{name}` is {}: {why}",
            labels.ty(),
            output.ty()
        );
        Error::from(Diagnostic::input(codes::BAD_LABELS, message))
    };
    if !labels.dtype().is_int() {
        return Err(refused("labels are integers".to_owned()));
    }
    let labels = labels.to_i64s();
    let classes = match output.dtype().is_int() {
        true => 1,
        false => output.shape().last().copied().unwrap_or(0) as usize,
    };
    if labels.is_empty() || classes == 0 || labels.len() * classes != output.len() {
        return Err(refused("there must be one label per row".to_owned()));
    }
    let found: Vec<i64> = match output.dtype().is_int() {
        true => output.to_i64s(),
        false => output.to_f64s().chunks(classes).map(arg_max).collect(),
    };
    let right = found.iter().zip(&labels).filter(|(a, b)| a == b).count();
    Ok((right, labels.len()))
}

/// The first position of the largest value; NaN is never the largest. -1 if there is none.
fn arg_max(row: &[f64]) -> i64 {
    let mut best: Option<(usize, f64)> = None;
    for (index, value) in row.iter().enumerate() {
        if !value.is_nan() && best.is_none_or(|(_, largest)| *value > largest) {
            best = Some((index, *value));
        }
    }
    best.map_or(-1, |(index, _)| index as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_labels_are_counted() {
        let scores = vec![0.1f32, 0.9, 0.8, 0.2, f32::NAN, -1.0, f32::NAN, f32::NAN];
        let scores = Tensor::from_vec(&[4, 2], scores);
        let labels = Tensor::from_vec(&[4], vec![1i64, 1, 1, 0]);
        assert_eq!(count_right("y", &scores, &labels).unwrap(), (2, 4));
        let classes = Tensor::from_vec(&[4], vec![1i64, 1, 1, 2]);
        assert_eq!(count_right("y", &classes, &labels).unwrap(), (3, 4));
        let few = Tensor::from_vec(&[3], vec![1i64, 1, 1]);
        assert!(count_right("y", &scores, &few).is_err());
    }
}
