//! Passes over a model.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dojoc_compiler::analysis::predict::{Prediction, predict};
use dojoc_compiler::graph::saturate;
use dojoc_compiler::lower::{LowerOptions, Lowered, Probes, ProgramOptions, lower, lower_to_tiled};
use dojoc_compiler::pass::{
    self, Agreement, DumpAfter, Extraction, Failure, Pass, PassOptions, RunOptions, Validation,
    Validator,
};
use dojoc_compiler::pipeline::{self, Made, PipelineStep};
use dojoc_compiler::tile::{Plan, TileOptions};
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::graph;
use dojoc_ir::graph::closest;
use dojoc_ir::program::Program;
use dojoc_ir::{mesh, tiled};
use rayon::prelude::*;

use crate::codes;
use crate::error::{Error, Result};
use crate::module::Module;
use crate::options::CompileOptions;
use crate::probes::check_known;
use crate::program::Executable;
use crate::target::Target;
use crate::validate::check_program;

/// Runs passes with the same options on any number of models.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    options: CompileOptions,
    target: Option<Target>,
}

/// What one pass did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassStats {
    /// Name of the pass.
    pub pass: &'static str,
    /// Number of changes it made; the sum over all passes is what fuel limits.
    pub changes: u64,
    /// How long it took, without verification.
    pub time: Duration,
}

/// The result of passes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Compiled {
    /// The model after the passes.
    pub module: Module,
    /// What every pass did, in order.
    pub passes: Vec<PassStats>,
    /// What the user should know.
    pub warnings: Diagnostics,
    /// How far the levels are from an evaluation in f64, if the options ask for validation.
    pub agreements: Vec<Agreement>,
}

/// A model at all levels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CompiledProgram {
    /// The program.
    pub executable: Executable,
    /// The machine it is for.
    pub target: Target,
    /// The model after all passes of the GRAPH level.
    pub graph: Module,
    /// The model at the TILED level.
    pub tiled: tiled::Module,
    /// The model at the MESH level.
    pub mesh: mesh::Module,
    /// The splits that were chosen.
    pub plan: Plan,
    /// What the program is expected to take on the machine.
    pub predicted: Prediction,
    /// What every pass did, in order.
    pub passes: Vec<PassStats>,
    /// What the user should know.
    pub warnings: Diagnostics,
    /// How far the levels are from an evaluation in f64, if the options ask for validation.
    pub agreements: Vec<Agreement>,
    /// Seconds by stage, of all forms of the model together that were made to choose one.
    pub seconds: Vec<(&'static str, f64)>,
}

/// A model at the TILED level.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CompiledTiled {
    /// The model.
    pub tiled: tiled::Module,
    /// The splits that were chosen.
    pub plan: Plan,
    /// What the user should know.
    pub warnings: Diagnostics,
}

/// How passes are run.
#[derive(Clone, Copy)]
struct Look {
    /// Whether values are compared, if the options ask for it.
    validate: bool,
    extraction: Extraction,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            validate: true,
            extraction: Extraction::default(),
        }
    }
}

/// A model with its program, in one of the forms that saturation can give it.
struct Form {
    extraction: Extraction,
    compiled: Compiled,
    lowered: Lowered,
    /// If there are several forms.
    predicted: Option<Prediction>,
    /// Of tiling, placing, emission and prediction.
    seconds: [f64; 4],
}

/// Takes the name of a pass and the text of the model after it.
pub type Dump<'a> = dyn FnMut(&str, &str) + 'a;

impl Compiler {
    /// A compiler with these options, for any machine.
    pub fn new(options: &CompileOptions) -> Self {
        Self {
            options: options.clone(),
            target: None,
        }
    }

    /// The same for a machine.
    #[must_use]
    pub fn target(mut self, target: &Target) -> Self {
        self.target = Some(target.clone());
        self
    }

    /// Runs all passes of the GRAPH level.
    ///
    /// # Errors
    /// Passes that report an error, break a rule of the IR, or (if the options ask for validation)
    /// change values; cancellation.
    pub fn compile_graph(&self, module: &Module) -> Result<Compiled> {
        self.compile_graph_with(module, None)
    }

    /// As [`compile_graph`](Self::compile_graph), giving `dump` the text after the passes that
    /// [`CompileOptions::dump_after`] names.
    ///
    /// # Errors
    /// As [`compile_graph`](Self::compile_graph), and when no pass of the level has the name.
    pub fn compile_graph_with<'a>(
        &'a self,
        module: &Module,
        dump: Option<&'a mut Dump<'a>>,
    ) -> Result<Compiled> {
        let passes = self.kept(pipeline::GRAPH.iter())?;
        self.check_dump(passes.iter().map(|pass| pass.name))?;
        let (mut compiled, validator) = self.run(module, &passes, Look::default(), dump)?;
        compiled.agreements = validator.map_or(vec![], |v| v.agreements);
        Ok(compiled)
    }

    /// Refuses to dump after what does not run.
    fn check_dump(&self, names: impl Iterator<Item = &'static str>) -> Result<()> {
        let DumpAfter::Pass(asked) = &self.options.dump_after else {
            return Ok(());
        };
        let names: BTreeSet<&str> = names.collect();
        if names.contains(&**asked) {
            return Ok(());
        }
        let message = format!("no pass or stage `{asked}` runs");
        let names = Vec::from_iter(names).join(", ");
        Err(Diagnostic::input(codes::UNKNOWN_WORD, message)
            .help(format!("there are: {names}, and `all`"))
            .into())
    }

    /// Takes a model through all levels to a program for the machine of [`target`](Self::target), or
    /// else for one D1 chip.
    ///
    /// # Errors
    /// Those of [`compile_graph`](Self::compile_graph); ops that cannot be compiled; a model that does
    /// not fit; and rules of a level that what we made breaks, as our fault.
    pub fn compile(&self, module: &Module) -> Result<CompiledProgram> {
        self.compile_with(module, None)
    }

    /// As [`compile`](Self::compile), giving `dump` the text after the passes that
    /// [`CompileOptions::dump_after`] names; after [stages](pipeline::STAGES) below GRAPH it is that of
    /// their level.
    ///
    /// # Errors
    /// As [`compile`](Self::compile), and when no pass or stage has the name.
    pub fn compile_with<'a>(
        &'a self,
        module: &Module,
        dump: Option<&'a mut Dump<'a>>,
    ) -> Result<CompiledProgram> {
        let target = self.machine()?;
        let asked = match &self.options.probes {
            Probes::Named(names) => names.clone(),
            Probes::All | Probes::None => BTreeSet::new(),
        };
        check_known(module, &asked)?;
        let passes = self.kept(pipeline::GRAPH.iter().chain(pipeline::LOWER))?;
        let stages = pipeline::STAGES.iter().map(|stage| stage.name);
        self.check_dump(passes.iter().map(|pass| pass.name).chain(stages))?;
        let (form, mut seconds) = self.best(module, &passes, &target)?;
        let Form {
            extraction,
            mut compiled,
            lowered,
            predicted,
            ..
        } = form;
        let mut dump = dump.filter(|_| self.options.dump_after != DumpAfter::None);
        let mut validator = None;
        // The form that was chosen is made once more where somebody wants to look at its passes.
        if dump.is_some() || self.options.validate.is_some() {
            let look = Look {
                validate: true,
                extraction,
            };
            (compiled, validator) = match &mut dump {
                Some(dump) => self.run(module, &passes, look, Some(&mut **dump))?,
                None => self.run(module, &passes, look, None)?,
            };
        }
        if let Some(dump) = dump {
            self.dump_stages(&lowered, dump);
        }
        let weights = lowered.tiled.weights.values().cloned().collect();
        let executable = Executable::compiled(lowered.program, weights);
        // What is predicted of a program that does not verify is nobody's concern.
        let verify = || match &self.options.cancel {
            _ if !self.options.verify => Ok(()),
            Some(cancel) => executable.verify_until(&target, cancel),
            None => executable.verify(&target),
        };
        let ((verified, verify), predicted) = rayon::join(
            || timed(verify),
            || {
                predicted.map_or_else(
                    || timed(|| prediction(executable.program(), &target)),
                    |p| (Ok(p), 0.0),
                )
            },
        );
        verified?;
        let (predicted, predict) = predicted;
        let predicted = predicted?;
        for (stage, time) in &mut seconds {
            if *stage == "predict" {
                *time += predict;
            }
        }
        seconds.push(("verify", verify));
        if let Some(validator) = &mut validator {
            validator.check_tiled(&lowered.tiled)?;
            validator.check_mesh(&lowered.mesh)?;
            check_program(validator, &lowered.mesh, &target, &self.options)?;
        }
        let compiled = CompiledProgram {
            executable,
            target,
            graph: compiled.module,
            tiled: lowered.tiled,
            mesh: lowered.mesh,
            plan: lowered.plan,
            predicted,
            passes: compiled.passes,
            warnings: compiled.warnings,
            agreements: validator.map_or(vec![], |v| v.agreements),
            seconds,
        };
        compiled.check_probes(module, &Vec::from_iter(asked))?;
        Ok(compiled)
    }

    /// Takes a model to the TILED level, also on a machine of several chips, for which there is no
    /// emission.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn compile_tiled<'a>(
        &'a self,
        module: &Module,
        dump: Option<&'a mut Dump<'a>>,
    ) -> Result<CompiledTiled> {
        let target = self.machine()?;
        let passes = self.kept(pipeline::GRAPH.iter().chain(pipeline::LOWER))?;
        self.check_dump(passes.iter().map(|pass| pass.name))?;
        let (compiled, mut validator) = self.run(module, &passes, Look::default(), dump)?;
        let options = self.lower_options();
        let tiled = lower_to_tiled(compiled.module.graph(), target.machine(), &options)?;
        if self.options.verify {
            let violations = tiled::verify_on(&tiled.module, target.machine()).into_iter();
            let found = violations.map(|v| v.into_diagnostic(&tiled.module, &Default::default()));
            Diagnostics(found.collect()).ok(())?;
        }
        if let Some(validator) = &mut validator {
            validator.check_tiled(&tiled.module)?;
        }
        Ok(CompiledTiled {
            tiled: tiled.module,
            plan: tiled.plan,
            warnings: compiled.warnings,
        })
    }

    /// The form of a model whose program is predicted to be the fastest, among those that saturation
    /// chooses by the search of the mapper, by bounds of single ops, and not at all. Forms without a
    /// program do not count, unless all are so. Also the seconds that all of them took, by stage.
    fn best(
        &self,
        module: &Module,
        passes: &[&'static Pass<graph::Module>],
        target: &Target,
    ) -> Result<(Form, Vec<(&'static str, f64)>)> {
        let start = Instant::now();
        let models = self.models(module, passes)?;
        let mut seconds = vec![("graph", start.elapsed().as_secs_f64())];
        let several = models.len() > 1;
        let models = models.into_par_iter();
        let mut forms: Vec<Result<Form>> = models
            .map(|(extraction, compiled)| self.lowered(compiled, extraction, target, several))
            .collect();
        for (n, stage) in ["tile", "place", "emit", "predict"].into_iter().enumerate() {
            seconds.push((
                stage,
                forms.iter().flatten().map(|form| form.seconds[n]).sum(),
            ));
        }
        let cycles = |form: &Result<Form>| {
            let predicted = form.as_ref().ok().and_then(|form| form.predicted.as_ref());
            predicted.map_or(u64::MAX, |predicted| predicted.cycles)
        };
        // The first of those that are equally fast, or the first error.
        let best = (0..forms.len())
            .min_by_key(|n| cycles(&forms[*n]))
            .unwrap_or(0);
        Ok((forms.swap_remove(best)?, seconds))
    }

    /// The different forms of a model after all passes.
    fn models(
        &self,
        module: &Module,
        passes: &[&'static Pass<graph::Module>],
    ) -> Result<Vec<(Extraction, Compiled)>> {
        let look = |extraction| Look {
            validate: false,
            extraction,
        };
        let run = |module: &Module, passes, extraction| {
            let (compiled, _) = self.run(module, passes, look(extraction), None)?;
            Ok::<_, Error>(compiled)
        };
        let at = passes.iter().position(|p| p.name == saturate::PASS.name);
        // Fuel counts changes one by one, to find the one that is wrong.
        let (Some(at), None) = (at, self.options.fuel) else {
            let compiled = run(module, passes, Extraction::Planned)?;
            return Ok(vec![(Extraction::Planned, compiled)]);
        };
        let before = run(module, &passes[..at], Extraction::Planned)?;
        let mut forms: Vec<(Extraction, Compiled)> = vec![];
        let choices = [Extraction::Planned, Extraction::Bounds, Extraction::Keep];
        let chosen: Vec<(Extraction, Result<Compiled>)> = choices
            .into_par_iter()
            .map(|choice| (choice, run(&before.module, &passes[at..=at], choice)))
            .collect();
        for (extraction, form) in chosen {
            let form = form?;
            if forms.iter().all(|(_, f)| functions(f) != functions(&form)) {
                forms.push((extraction, form));
            }
        }
        let finished = forms.into_par_iter().map(|(extraction, form)| {
            let after = run(&form.module, &passes[at + 1..], extraction)?;
            let warnings = [&before, &form, &after].map(|c| c.warnings.0.clone());
            let compiled = Compiled {
                passes: [&before.passes[..], &form.passes, &after.passes].concat(),
                warnings: Diagnostics(warnings.concat()),
                ..after
            };
            Ok((extraction, compiled))
        });
        // The error of the first that has one, whichever came first.
        finished.collect::<Vec<_>>().into_iter().collect()
    }

    /// The program of a form, with what it takes if it is to be compared.
    fn lowered(
        &self,
        compiled: Compiled,
        extraction: Extraction,
        target: &Target,
        compared: bool,
    ) -> Result<Form> {
        let machine = target.machine();
        let lowered = lower(compiled.module.graph(), machine, &self.lower_options())?;
        let [tile, place, emit] = lowered.seconds;
        let (predicted, predict) = match compared {
            true => timed(|| prediction(&lowered.program, target).map(Some)),
            false => (Ok(None), 0.0),
        };
        let predicted = predicted?;
        Ok(Form {
            extraction,
            compiled,
            lowered,
            predicted,
            seconds: [tile, place, emit, predict],
        })
    }

    fn machine(&self) -> Result<Target> {
        match &self.target {
            Some(target) => Ok(target.clone()),
            None => Target::named("d1"),
        }
    }

    /// The passes of these steps, without those that are left out.
    fn kept<'s>(
        &self,
        steps: impl Iterator<Item = &'s PipelineStep>,
    ) -> Result<Vec<&'static Pass<graph::Module>>> {
        for name in &self.options.skipped {
            find(name)?;
        }
        let passes = steps.map(|step| step.pass);
        Ok(passes
            .filter(|pass| !self.options.skipped.contains(pass.name))
            .collect())
    }

    fn lower_options(&self) -> LowerOptions {
        LowerOptions {
            tile: TileOptions {
                plan: self.options.plan.clone(),
                chips: self.options.chips,
                ..TileOptions::default()
            },
            program: ProgramOptions {
                probes: self.options.probes.clone(),
            },
        }
    }

    /// Runs the named passes in this order.
    ///
    /// # Errors
    /// Unknown names; otherwise as [`compile_graph`](Self::compile_graph).
    pub fn run_passes(&self, module: &Module, names: &[&str]) -> Result<Compiled> {
        let passes = names.iter().map(|name| find(name));
        let passes = passes.collect::<Result<Vec<_>>>()?;
        let (mut compiled, validator) = self.run(module, &passes, Look::default(), None)?;
        compiled.agreements = validator.map_or(vec![], |v| v.agreements);
        Ok(compiled)
    }

    fn dump_stages(&self, lowered: &Lowered, dump: &mut Dump<'_>) {
        let mut last = None;
        for stage in pipeline::STAGES {
            let wanted = match &self.options.dump_after {
                DumpAfter::None => false,
                // Stages that end together leave one text.
                DumpAfter::All => last.replace(stage.made) != Some(stage.made),
                DumpAfter::Pass(name) => name == stage.name,
            };
            if wanted {
                let text = match stage.made {
                    Made::Tiled => lowered.tiled.to_string(),
                    Made::Mesh => lowered.mesh.to_string(),
                    Made::Program => lowered.program.to_string(),
                };
                dump(stage.name, &text);
            }
        }
    }

    fn run<'a>(
        &'a self,
        module: &Module,
        passes: &[&'static Pass<graph::Module>],
        look: Look,
        dump: Option<&'a mut Dump<'a>>,
    ) -> Result<(Compiled, Option<Validator>)> {
        let options = &self.options;
        let mut run = pass::Run::new(RunOptions {
            verify: options.verify,
            dump_after: options.dump_after.clone(),
            dump,
            fuel: options.fuel,
            cancel: options.cancel.as_deref(),
            machine: self.target.as_ref().map(Target::machine),
            passes: PassOptions {
                precision: options.precision,
                keep_precision: options.keep_precision.clone(),
                fold_bytes: options.fold_limit,
                extraction: look.extraction,
                ..PassOptions::default()
            },
            validate: options
                .validate
                .filter(|_| look.validate)
                .map(|seed| Validation {
                    seed,
                    cancel: options.cancel.clone(),
                    ..Validation::default()
                }),
        });
        let graph = run
            .graph(passes.iter().copied(), module.graph().clone())
            .map_err(|f| broken(*f))?;
        let passes = run.stats.iter().map(|stats| PassStats {
            pass: stats.pass,
            changes: stats.changes,
            time: stats.time,
        });
        let compiled = Compiled {
            module: module.with_graph(graph),
            passes: passes.collect(),
            warnings: run.warnings,
            agreements: vec![],
        };
        Ok((compiled, run.validator))
    }
}

/// What the first entry of a program is expected to take.
fn prediction(program: &Program, target: &Target) -> Result<Prediction> {
    match program.entries.ids().next() {
        Some(entry) => Ok(predict(program, entry, &[], target.machine())?),
        None => Ok(Prediction::default()),
    }
}

/// What a function gives, and the seconds that it took.
fn timed<T>(run: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    (run(), start.elapsed().as_secs_f64())
}

/// What makes forms of a model different.
fn functions(compiled: &Compiled) -> &PrimaryMap<graph::FuncId, graph::Function> {
    &compiled.module.graph().functions
}

fn broken(failure: Failure) -> Error {
    let error = Error::from(failure.diagnostics);
    match failure.dump {
        Some(dump) => error.with_dump(failure.pass, dump),
        None => error,
    }
}

fn find(name: &str) -> Result<&'static Pass<graph::Module>> {
    pipeline::find(name).ok_or_else(|| {
        let message = format!("there is no pass `{name}`");
        let diagnostic = Diagnostic::input(codes::UNKNOWN_WORD, message);
        let passes = pipeline::passes();
        match closest(name, passes.iter().map(|p| p.name)) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None => diagnostic.help("`dojoc passes` lists all"),
        }
        .into()
    })
}
