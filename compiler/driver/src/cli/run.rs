//! `dojoc run`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use dojoc::program::{
    CoreAddress, Executable, Instance, LoadOptions, RunOptions, RunResult, Stats, kernels,
};
use dojoc::{
    CompiledProgram, Diagnostic, Diagnostics, NamedTensor, NamedTensors, Probes, Result, Run,
    Signature, Target, Tensor, codes,
};
use dojoc_ir::program::TensorKind;
use serde_json::{Value, json};

use super::args::{ModelArgs, PassArgs, PrecisionArg, is_dash, read_model};
use super::asm::{read_program, target};
use super::dumps::DumpArgs;
use super::eval::{accuracy, progress};
use super::files::{Loaded, TensorSpec, read_states, write_tensors};
use super::model::{self, MapArgs};
use super::report::{CompareArgs, Report};
use super::{Context, Outcome, batch, console, inputs};

/// Arguments of `dojoc run`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Tensor files: .npy, .npz, .pb (ONNX TensorProto), .safetensors, or a folder \
                        of input_0.pb, input_1.pb...; FILE.npz:KEY is one array of an archive.\n\
                        A --probe of a model or of what was compiled from one is the tensor of that name, or the results \
                        of that op. In assembly, one that the program does not declare shows buffers as calls leave them, \
                        core by core: NAME@CHIP-ROW-COLUMN, or NAME:SEGMENT.BUFFER@... where NAME stands for several buffers. \
                        Elements that a call neither found nor wrote are 0.\n\
                        Results do not depend on --threads and --kernels."
)]
pub struct Args {
    /// A model (ONNX or text form), which is compiled first; or an executable (.djx) or assembly, or -.
    program: PathBuf,
    /// Values of an input; without NAME by the array's name or else by position.
    #[arg(short, long, value_name = "[NAME=]FILE[:KEY]")]
    input: Vec<TensorSpec>,
    /// Random values for inputs that are not given: floats in [-1, 1), integers 0 or 1.
    #[arg(long, value_name = "SEED")]
    random: Option<u64>,
    /// Entry to run; by default `main` or else the first.
    #[arg(long, value_name = "ENTRY")]
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
    /// Also show (and write) a value inside: a value or an op of the model, a declared probe, or a
    /// buffer SEGMENT.BUFFER. The n-th of several values is called NAME.n.
    #[arg(long, value_name = "NAME")]
    probe: Vec<Arc<str>>,
    #[command(flatten)]
    compare: CompareArgs,
    /// Run this many times; states go from one run to the next.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Share of rows whose arg-max (over the last dimension) of an output is the label; with --batched.
    #[arg(long, value_name = "[OUTPUT=]FILE[:KEY]")]
    accuracy: Option<TensorSpec>,
    /// Run data of another number of rows (first extent) batch by batch, the last one filled up with its
    /// last row. For rows that do not depend on each other.
    #[arg(long)]
    batched: bool,
    /// Worker threads; 0 means as many as the host can run at once. More than cores of the program or far
    /// more than the host has would be idle and are not started.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Measure the fastest run on this host: seconds, time an instruction, share of computing. A look
    /// at the clock before and after every instruction slows runs a little.
    #[arg(long)]
    time: bool,
    /// Instructions of the host to compute with; by default the best it has.
    #[arg(long, value_enum)]
    kernels: Option<KernelsArg>,
    /// Seed of random bits: dropout and stochastic rounding.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Check every access to memory while running; slow.
    #[arg(long)]
    sanitize: bool,
    /// The machine: that to compile a model for (by default one D1 chip), or that of a program, if it
    /// is not built in.
    #[arg(long, value_name = "NAME|FILE")]
    machine: Option<String>,
    #[command(flatten)]
    map_args: MapArgs,
    #[command(flatten)]
    dump_args: DumpArgs,
    #[command(flatten)]
    pass_args: PassArgs,
    #[command(flatten)]
    model_args: ModelArgs,
    /// Stop after this many statements of all cores together.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    max_steps: u64,
    /// Stop where the program's memory takes more bytes of the host.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    max_bytes: u64,
    /// Form of the summary on standard output.
    #[arg(long, value_enum, default_value_t = Form::Human)]
    format: Form,
}

/// Instructions of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KernelsArg {
    /// Any host.
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512.
    Avx512,
}

/// Form of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A line per tensor.
    Human,
    /// One object.
    Json,
}

/// What is run: a program, and where it comes from.
struct Subject {
    executable: Executable,
    target: Target,
    compiled: Option<CompiledProgram>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let mut loaded = vec![];
    for spec in &args.input {
        loaded.extend(spec.load("input")?);
    }
    let subject = subject(args, &loaded, context)?;
    let executable = &subject.executable;
    let mut options = options(args, subject.compiled.is_none(), context)?;
    options.spans = executable.spans().cloned();
    let signature = executable.signature(args.entry.as_deref(), &options.dims)?;
    let mut given = inputs::assign(&signature, loaded)?;
    let random = |seed| signature.random_inputs(seed);
    inputs::fill_missing(args.random, random, &signature, &mut given)?;
    let load = LoadOptions {
        sanitize: args.sanitize,
        max_bytes: args.max_bytes,
        ..LoadOptions::default()
    };
    let mut instance = executable.load(&subject.target, load)?;
    if let Some(path) = &args.state_in {
        load_states(&mut instance, executable, path, context)?;
    }
    let mut stats = Stats::default();
    let mut time = Time::default();
    let asked = args.batched || args.accuracy.is_some();
    let report = match batch::plan(&signature, &given, asked)? {
        Some(plan) => {
            let progress = progress(context.console.has_progress());
            let mut one = |batch: &[(Arc<str>, Tensor)]| -> Result<Run> {
                let (result, took) = repeat(
                    args,
                    context,
                    (executable, &mut instance),
                    &signature,
                    batch,
                    &options,
                )?;
                stats = result.stats;
                time = took;
                let report = report(result);
                let mut run = Run::default();
                run.outputs = report.outputs;
                run.probes = report.probes;
                Ok(run)
            };
            let (run, odd) = batch::run(&mut one, &given, &plan, &progress)?;
            progress.finish_and_clear();
            Report {
                outputs: run.outputs,
                probes: run.probes,
                odd,
            }
        }
        None => {
            let (result, took) = repeat(
                args,
                context,
                (executable, &mut instance),
                &signature,
                &given,
                &options,
            )?;
            stats = result.stats;
            time = took;
            report(result)
        }
    };
    let time = args.time.then_some(&time);
    match args.format {
        Form::Human => {
            report.print_summary()?;
            if let Some(time) = time {
                console::print(&time.describe(&stats))?;
            }
        }
        Form::Json => {
            let summary = summary(&signature, &report, &stats, time);
            console::print(&format!("{summary}\n"))?;
        }
    }
    if let Some(path) = &args.output {
        report.write(path)?;
    }
    if let Some(path) = &args.state_out {
        write_tensors(path, &NamedTensors(instance.states()?))?;
    }
    if let Some(spec) = &args.accuracy {
        accuracy(&report, spec)?;
    }
    if let Some(compiled) = &subject.compiled {
        if context.console.is_json() {
            console::print(&format!("{}\n", model::summary(compiled)))?;
        } else if args.format == Form::Human {
            console::print(&model::describe(compiled))?;
        }
    }
    report.compare(&args.compare, args.format == Form::Human)
}

/// Reads a program, or compiles a model.
fn subject(args: &Args, loaded: &[Loaded], context: &Context) -> Result<Subject> {
    if is_dash(&args.program) || model::is_program(&args.program)? {
        refuse_options_of_models(args)?;
        let executable = read_program(&args.program)?;
        let target = target(&executable, args.machine.as_deref())?;
        let no_verify = args.pass_args.no_verify;
        if no_verify && !args.sanitize {
            let message = "a program is not run unverified";
            return Err(Diagnostic::input(codes::BAD_OPTION, message)
                .help("with --sanitize, which checks every access, it is")
                .into());
        }
        if !no_verify {
            executable.verify_until(&target, &context.cancel)?;
        }
        return Ok(Subject {
            executable,
            target,
            compiled: None,
        });
    }
    let target = model::target(args.machine.as_deref())?;
    let mut options = args.pass_args.apply(args.model_args.options());
    options = args.map_args.apply(options)?.cancel(context.cancel.clone());
    options = args.dump_args.apply(options);
    if args.probe.is_empty() {
        options = options.probes(Probes::None);
    }
    let given: Vec<NamedTensor> = (loaded.iter())
        .map(|l| NamedTensor {
            name: l.name.clone().or_else(|| l.hint.clone()),
            tensor: l.tensor.clone(),
        })
        .collect();
    let module = read_model(&args.program, &args.model_args, &options, &given)?;
    context.console.warnings(module.warnings());
    let mut dumps = args.dump_args.dumps();
    let mut dump = |pass: &str, text: &str| dumps.add(pass, text);
    let compiled = model::compile(
        &module,
        &options,
        &target,
        &context.console,
        Some(&mut dump),
    );
    dumps.finish()?;
    let compiled = compiled?;
    compiled.check_probes(&module, &args.probe)?;
    Ok(Subject {
        executable: compiled.executable.clone(),
        target,
        compiled: Some(compiled),
    })
}

/// What is said to the compiler would be said in vain where there is a program already.
fn refuse_options_of_models(args: &Args) -> Result<()> {
    let (model, map, pass) = (&args.model_args, &args.map_args, &args.pass_args);
    let bounds = model.dim.iter().any(|dim| dim.exact().is_none());
    let options = [
        ("--dim NAME<=N", bounds),
        ("--bound", !model.bound.is_empty()),
        ("--shape", !model.shape.is_empty()),
        ("--weights", !model.weights.is_empty()),
        ("--plan", map.plan.is_some()),
        ("--chips", map.chips.is_some()),
        ("--precision", pass.precision != PrecisionArg::Keep),
        ("--keep-precision", !pass.keep_precision.is_empty()),
        ("--fuel", pass.fuel.is_some()),
        ("--skip-pass", !pass.skip_pass.is_empty()),
        ("--validate", pass.validate),
        ("--dump-after", args.dump_args.dump_after.is_some()),
    ];
    let given = options.iter().filter(|(_, given)| *given);
    let found = given.map(|(option, _)| {
        let name = args.program.display();
        let message = format!("{option} is for a model that is compiled; {name} is a program");
        Diagnostic::input(codes::BAD_OPTION, message)
            .help("give it to `dojoc compile`, and the model, and run what that writes")
    });
    Ok(Diagnostics(found.collect()).ok(())?)
}

/// The options of a run. The extents of a model that was compiled are no run parameters any more.
fn options(args: &Args, is_program: bool, context: &Context) -> Result<RunOptions> {
    let kernels = match args.kernels {
        None => kernels::detect(),
        Some(chosen) => {
            let value = chosen.to_possible_value();
            let name = value.as_ref().map_or("", |v| v.get_name());
            let missing = || {
                let message = format!("this host has not the instructions of `{name}`");
                let names: Vec<_> = kernels::available().iter().map(|k| k.name()).collect();
                Diagnostic::input(codes::BAD_OPTION, message)
                    .help(format!("it has: {}", names.join(", ")))
            };
            kernels::by_name(name).ok_or_else(missing)?
        }
    };
    let dims = args.model_args.dim.iter().filter(|_| is_program);
    let dims = dims.filter_map(|dim| dim.exact());
    Ok(RunOptions {
        threads: args.threads,
        kernels,
        seed: args.seed,
        dims: dims.map(|(name, value)| (name.into(), value)).collect(),
        max_bytes: args.max_bytes,
        max_steps: args.max_steps,
        cancel: Some(context.cancel.clone()),
        probes: args.probe.clone(),
        time_compute: args.time,
        sanitize: args.sanitize,
        ..RunOptions::default()
    })
}

fn load_states(
    instance: &mut Instance,
    executable: &Executable,
    path: &Path,
    context: &Context,
) -> Result<()> {
    let tensors = executable.program().tensors.values();
    let states = tensors.filter(|decl| matches!(decl.kind, TensorKind::State(_)));
    let states: Vec<Arc<str>> = states.map(|decl| decl.name.clone()).collect();
    for (name, state) in read_states(path, &states, context)? {
        if executable.program().tensor(&name).is_none() {
            let message = format!("{}: the program has no state `{name}`", path.display());
            return Err(Diagnostic::input(codes::BAD_STATE, message).into());
        }
        instance.set_state(&name, &state)?;
    }
    Ok(())
}

/// Runs the entry as often as was asked for.
fn repeat(
    args: &Args,
    context: &Context,
    (executable, instance): (&Executable, &mut Instance),
    signature: &Signature,
    given: &[(Arc<str>, Tensor)],
    options: &RunOptions,
) -> Result<(RunResult, Time)> {
    let mut options = options.clone();
    let mut time = Time::default();
    let mut run = |step: u32| -> Result<RunResult> {
        options.step = u64::from(step);
        let start = Instant::now();
        let result = instance
            .run(&signature.name, given, &options)
            .map_err(|found| executable.error(found))?;
        let seconds = start.elapsed().as_secs_f64();
        context.console.detail(&format!("run: {seconds:.3} s"));
        if step == 0 || seconds < time.seconds {
            time.seconds = seconds;
            time.computing = result.stats.compute_nanos as f64 / 1e9;
            time.threads = result.stats.threads;
        }
        Ok(result)
    };
    let mut result = run(0)?;
    for step in 1..args.repeat {
        result = run(step)?;
    }
    Ok((result, time))
}

/// What the fastest run took.
#[derive(Clone, Copy, Debug, Default)]
struct Time {
    /// From inputs to outputs.
    seconds: f64,
    /// Seconds that all threads together spent in instructions that compute.
    computing: f64,
    threads: usize,
}

impl Time {
    fn describe(&self, stats: &Stats) -> String {
        let each = 1e9 * self.seconds / stats.instructions.max(1) as f64;
        let share = 100.0 * self.computing / (self.seconds * self.threads as f64);
        format!(
            "ran in {:.4} s on {} thread{}, {each:.0} ns an instruction, {share:.0} % of the time computing\n",
            self.seconds,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
        )
    }
}

/// Outputs and probes under their names.
fn report(result: RunResult) -> Report {
    let mut probes = Vec::new();
    for mut probe in result.probes {
        let name = match probe.core {
            None => probe.name,
            Some(CoreAddress { chip, row, column }) => {
                format!("{}@{chip}-{row}-{column}", probe.name).into()
            }
        };
        match (probe.values.len(), probe.values.pop()) {
            (1, Some(only)) => probes.push((name, only)),
            (_, last) => {
                let values = probe.values.into_iter().chain(last).enumerate();
                probes.extend(values.map(|(n, value)| (format!("{name}.{n}").into(), value)));
            }
        }
    }
    Report {
        outputs: NamedTensors(result.outputs),
        probes: NamedTensors(probes),
        odd: Vec::new(),
    }
}

/// The summary as an object.
fn summary(signature: &Signature, report: &Report, stats: &Stats, time: Option<&Time>) -> Value {
    let tensors = |tensors: &NamedTensors| -> Vec<Value> {
        let tensors = tensors.iter();
        tensors
            .map(|(name, tensor)| super::summary::object(name, tensor))
            .collect()
    };
    let mut summary = json!({
        "entry": &*signature.name,
        "outputs": tensors(&report.outputs),
        "probes": tensors(&report.probes),
        "stats": {
            "instructions": stats.instructions,
            "calls": stats.calls,
            "messages": stats.messages,
            "message_bytes": stats.message_bytes,
            "flops": stats.flops,
            "dram_bytes": stats.dram_bytes,
            "allocated_bytes": stats.allocated_bytes,
        },
    });
    if let Some(time) = time {
        summary["stats"]["seconds"] = json!(time.seconds);
        summary["stats"]["compute_seconds"] = json!(time.computing);
    }
    summary
}
