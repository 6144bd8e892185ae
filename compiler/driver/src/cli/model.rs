//! Models on their way to a program: what `compile` and `run` share.

use std::path::{Path, PathBuf};

use dojoc::{CompileOptions, CompiledProgram, Compiler, Dump, Module, Plan, Result, Target};
use dojoc_compiler::io::{ModelFiles, SourceFile};
use dojoc_ir::diag::Diagnostics;
use serde_json::{Value, json};

use super::console::Console;
use super::machine;

/// Options about the mapping of a model.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct MapArgs {
    /// Splits of named nodes, as `dojoc compile --emit plan` prints them.
    #[arg(long, value_name = "F.toml")]
    pub plan: Option<PathBuf>,
    /// Plan for so many chips of the machine at most; by default for all. What is planned for one
    /// chip can be run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub chips: Option<u64>,
}

impl MapArgs {
    /// Adds the options to those of the facade.
    pub fn apply(&self, mut options: CompileOptions) -> Result<CompileOptions> {
        if let Some(chips) = self.chips {
            options = options.chips(chips);
        }
        let Some(path) = &self.plan else {
            return Ok(options);
        };
        let files = ModelFiles::open(path)?;
        let text = String::from_utf8_lossy(&files.model().bytes).into_owned();
        let plan = Plan::parse(&text).map_err(|found: Diagnostics| dojoc::Error::from(found))?;
        Ok(options.plan(plan))
    }
}

/// The machine to compile for.
pub fn target(machine: Option<&str>) -> Result<Target> {
    machine::load(machine.unwrap_or("d1"))
}

/// Compiles a model, with what passes did on the console.
pub fn compile(
    module: &Module,
    options: &CompileOptions,
    target: &Target,
    console: &Console,
    dump: Option<&mut Dump<'_>>,
) -> Result<CompiledProgram> {
    let compiler = Compiler::new(options).target(target);
    let mut forward = dump.map(|dump| move |pass: &str, text: &str| dump(pass, text));
    let compiled = match &mut forward {
        Some(forward) => compiler.compile_with(module, Some(forward))?,
        None => compiler.compile(module)?,
    };
    console.warnings(&compiled.warnings.0);
    console.agreements(&compiled.agreements);
    for (stage, seconds) in &compiled.seconds {
        console.detail(&format!("{stage}: {seconds:.3} s"));
    }
    Ok(compiled)
}

/// The summary of a compilation as an object.
pub fn summary(compiled: &CompiledProgram) -> Value {
    let predicted = &compiled.predicted;
    let seconds: serde_json::Map<String, Value> = (compiled.seconds.iter())
        .map(|(stage, s)| ((*stage).to_owned(), json!(s)))
        .collect();
    json!({
        "predicted_cycles": predicted.cycles,
        "cores": predicted.cores,
        "segments": predicted.segments,
        "sram_high_water": predicted.sram_high_water,
        "bytes_moved": predicted.bytes_moved,
        "messages": predicted.messages,
        "djx_bytes": compiled.executable.encode().len(),
        "instructions": predicted.instructions,
        "seconds": seconds,
    })
}

/// The summary for people: cores, cycles, and where they go.
pub fn describe(compiled: &CompiledProgram) -> String {
    let predicted = &compiled.predicted;
    let machine = compiled.target.machine();
    let micro = machine.seconds(predicted.cycles) * 1e6;
    let share = |part: u64| 100.0 * part as f64 / predicted.cycles.max(1) as f64;
    let mut text = format!(
        "{} cores of {}, {} predicted cycles ({micro:.1} us): {:.0} % compute, {:.0} % communication\n\
         {} instructions, {} messages of {} bytes, {} segments, {} bytes of SRAM on the fullest core\n",
        predicted.cores,
        machine.name,
        predicted.cycles,
        share(predicted.compute),
        share(predicted.communication),
        predicted.instructions,
        predicted.messages,
        predicted.bytes_moved,
        predicted.segments,
        predicted.sram_high_water,
    );
    let mut ops = predicted.by_op.clone();
    ops.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (op, cycles) in ops.iter().take(5) {
        text.push_str(&format!(
            "  {cycles:>10} cycles  {:>4.1} %  {op}\n",
            share(*cycles)
        ));
    }
    text
}

/// Whether a file is a program, by its contents; or was meant to be one, by its name.
pub fn is_program(path: &Path) -> Result<bool> {
    let file = SourceFile::open(path)?;
    Ok(path.extension().is_some_and(|e| e == "djx") || dojoc::program::is_program(&file.bytes))
}
