//! `dojoc eval`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dojoc::{Diagnostic, Error, Evaluator, Module, NamedTensor, Result, Run, Tensor, codes};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{ModelArgs, read_model};
use super::files::{Loaded, TensorSpec, read_states, write_tensors};
use super::report::{CompareArgs, Report};
use super::{Context, Outcome, batch, console, inputs};

/// Arguments of `dojoc eval`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Tensor files: .npy, .npz, .pb (ONNX TensorProto), .safetensors, or a folder \
                        of input_0.pb, input_1.pb...; FILE.npz:KEY is one array of an archive.\n\
                        With --accuracy, data with more rows than the model's fixed batch is run batch by \
                        batch, so that\n  dojoc eval digits.onnx -i heldout.npz:x --accuracy heldout.npz:labels\n\
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
    #[command(flatten)]
    compare: CompareArgs,
    /// Share of rows whose arg-max (over the last dimension) of an output is the label; with --batched.
    #[arg(long, value_name = "[OUTPUT=]FILE[:KEY]")]
    accuracy: Option<TensorSpec>,
    /// Run data of another number of rows (first extent) batch by batch, the last one filled up with its
    /// last row. For rows that do not depend on each other.
    #[arg(long)]
    batched: bool,
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
        let states = evaluator.states();
        let states: Vec<_> = states.0.into_iter().map(|(name, _)| name).collect();
        for (name, state) in read_states(path, &states, context)? {
            evaluator.set_state(&name, (&state).into())?;
        }
    }
    let signature = module.signature(args.entry.as_deref())?;
    let mut inputs = inputs::assign(&signature, loaded)?;
    let random = |seed| evaluator.random_inputs(seed);
    inputs::fill_missing(args.random, random, &signature, &mut inputs)?;

    let progress = progress(console.has_progress());
    let asked = args.batched || args.accuracy.is_some();
    let plan = batch::plan(&signature, &inputs, asked)?;
    let mut result = (Run::default(), vec![]);
    for _ in 0..args.repeat {
        let start = Instant::now();
        result = match &plan {
            Some(plan) => {
                let one = |batch: &[(std::sync::Arc<str>, Tensor)]| {
                    let views: Vec<_> = batch.iter().map(|(n, t)| (&**n, t.into())).collect();
                    evaluator.run(&views)
                };
                batch::run(one, &inputs, plan, &progress)?
            }
            None => {
                let views: Vec<_> = inputs.iter().map(|(n, t)| (&**n, t.into())).collect();
                (evaluator.run(&views)?, vec![])
            }
        };
        console.detail(&format!("run: {:.3} s", start.elapsed().as_secs_f64()));
    }
    progress.finish_and_clear();
    let (run, odd) = result;
    let report = Report {
        outputs: run.outputs,
        probes: run.probes,
        odd,
    };
    report.print_summary()?;
    if let Some(path) = &args.output {
        report.write(path)?;
    }
    if let Some(path) = &args.state_out {
        write_tensors(path, &evaluator.states())?;
    }
    if let Some(spec) = &args.accuracy {
        accuracy(&report, spec)?;
    }
    report.compare(&args.compare, true)
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

/// A bar that counts batches.
pub fn progress(visible: bool) -> ProgressBar {
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

/// Shows the share of rows whose label is right.
pub fn accuracy(report: &Report, spec: &TensorSpec) -> Outcome {
    let all = spec.load("output")?;
    let [labels] = &all[..] else {
        let names: Vec<&str> = all.iter().filter_map(|l| l.hint.as_deref()).collect();
        let message = format!("{}: say which array has the labels", spec.path.display());
        let diagnostic = Diagnostic::input(codes::UNKNOWN_ARRAY, message);
        let help = format!("FILE.npz:KEY, KEY being one of {}", names.join(", "));
        return Err(diagnostic.help(help).into());
    };
    let (name, output) = report.output(spec.name.as_deref(), None)?;
    let (right, count) = count_right(name, output, &labels.tensor)?;
    let percent = 100.0 * right as f64 / count as f64;
    console::print(&format!("accuracy {percent:.2} % ({right} of {count})\n"))
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
