//! `dojoc compile`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use dojoc::{CompileOptions, Compiler, Module, Probes};
use dojoc_ir::graph::WeightSource;

use super::args::{ModelArgs, PassArgs, is_dash, read_model};
use super::dumps::{DumpArgs, Dumps};
use super::model::{self, MapArgs};
use super::{Context, Outcome, console};

/// Arguments of `dojoc compile`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// An ONNX model, a text form, or -.
    model: PathBuf,
    /// What to write; by default an executable.
    #[arg(long, value_enum, default_value_t = Emit::Djx)]
    emit: Emit,
    /// Where to write it; by default to standard output, an executable beside the model.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The machine to compile for: a built-in one or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "d1")]
    machine: String,
    /// Named values of the model that `dojoc run --probe` can show: all, none, or those of these names
    /// and of ops of these names. They take bytes of the executable, and no time of the machine.
    #[arg(long, value_name = "all|none|NAME", default_value = "all")]
    probes: Vec<Arc<str>>,
    #[command(flatten)]
    map_args: MapArgs,
    #[command(flatten)]
    dump_args: DumpArgs,
    #[command(flatten)]
    pass_args: PassArgs,
    #[command(flatten)]
    model_args: ModelArgs,
}

/// What `dojoc compile` can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// Text form of the GRAPH level, as imported.
    Import,
    /// Text form of the GRAPH level, after all its passes.
    Graph,
    /// Text form of the TILED level: splits, layouts, reshards.
    Tiled,
    /// Text form of the MESH level: places, addresses, exchanges.
    Mesh,
    /// Assembly.
    Program,
    /// The splits that were chosen, as a plan file.
    Plan,
    /// An executable (.djx).
    Djx,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let options = args.pass_args.apply(args.model_args.options());
    let options = args.map_args.apply(options)?;
    let options = options.cancel(context.cancel.clone());
    let options = args.dump_args.apply(options).probes(probes(&args.probes));
    let module = read_model(&args.model, &args.model_args, &options, &[])?;
    context.console.warnings(module.warnings());
    if args.emit == Emit::Import {
        note_weights(args, &module, context);
        return console::write(args.to(), &module.print());
    }
    let mut dumps = args.dump_args.dumps();
    if args.emit != Emit::Graph {
        return lower(args, &module, &options, dumps, context);
    }
    let compiler = Compiler::new(&options);
    let mut dump = |pass: &str, text: &str| dumps.add(pass, text);
    let compiled = compiler.compile_graph_with(&module, Some(&mut dump));
    dumps.finish()?;
    let compiled = compiled?;
    context.console.compiled(&compiled);
    note_weights(args, &compiled.module, context);
    console::write(args.to(), &compiled.module.print())
}

/// What `--probes` says.
fn probes(names: &[Arc<str>]) -> Probes {
    match names {
        [name] if &**name == "all" => Probes::All,
        [name] if &**name == "none" => Probes::None,
        names => Probes::Named(names.iter().cloned().collect()),
    }
}

impl Args {
    fn to(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new("-"))
    }
}

/// Compiles below GRAPH and writes what was asked for.
fn lower(
    args: &Args,
    module: &Module,
    options: &CompileOptions,
    mut dumps: Dumps,
    context: &Context,
) -> Outcome {
    let target = model::target(Some(&args.machine))?;
    let mut dump = |pass: &str, text: &str| dumps.add(pass, text);
    let several = target.machine().chips() > 1 && args.map_args.chips != Some(1);
    if several && matches!(args.emit, Emit::Tiled | Emit::Plan) {
        let compiler = Compiler::new(options).target(&target);
        let compiled = compiler.compile_tiled(module, Some(&mut dump));
        dumps.finish()?;
        let compiled = compiled?;
        context.console.warnings(&compiled.warnings.0);
        note_weights(args, module, context);
        return console::write(
            args.to(),
            &match args.emit {
                Emit::Tiled => compiled.tiled.to_string(),
                _ => compiled.plan.to_toml(),
            },
        );
    }
    let compiled = model::compile(module, options, &target, &context.console, Some(&mut dump));
    dumps.finish()?;
    let compiled = compiled?;
    note_weights(args, module, context);
    match args.emit {
        Emit::Tiled => console::write(args.to(), &compiled.tiled.to_string())?,
        Emit::Mesh => console::write(args.to(), &compiled.mesh.to_string())?,
        Emit::Program => console::write(args.to(), &compiled.executable.disassemble())?,
        Emit::Plan => console::write(args.to(), &compiled.plan.to_toml())?,
        Emit::Djx | Emit::Import | Emit::Graph => {
            let beside = || args.model.with_extension("djx");
            let output = args.output.clone().unwrap_or_else(beside);
            match is_dash(&output) {
                true => console::print_bytes(&compiled.executable.encode())?,
                false => compiled.executable.write(&output)?,
            }
        }
    }
    if context.console.is_json() {
        context.console.object(&model::summary(&compiled));
    } else if args.emit == Emit::Djx && !is_dash(args.output.as_deref().unwrap_or(&args.model)) {
        console::print(&model::describe(&compiled))?;
    }
    Ok(())
}

/// Weights stay in the model's files, which are looked up beside the text.
fn note_weights(args: &Args, module: &Module, context: &Context) {
    let folder = |path: &Path| {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        std::fs::canonicalize(parent.unwrap_or(Path::new("."))).ok()
    };
    if is_dash(args.to()) || folder(args.to()) == folder(&args.model) {
        return;
    }
    let weights = module.graph().weights.values();
    let files: BTreeSet<&str> = weights
        .filter_map(|weight| match &weight.source {
            WeightSource::External { file, .. } => Some(&**file),
            WeightSource::Inline => None,
        })
        .collect();
    if !files.is_empty() {
        let files = Vec::from_iter(files).join("`, `");
        let output = args.to().display();
        let text = format!("weights stay in `{files}`, which must be beside {output} to run it");
        context.console.note(&text);
    }
}
