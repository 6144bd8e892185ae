//! A loaded program: weights and states in memory, ready to run.

mod buffers;
mod inputs;
mod names;
mod probes;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dojoc_ir::codes::{CANCELLED, WRONG_INPUTS};
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::machine::{CoreAddress, Machine};
use dojoc_ir::program::recipe::{self, Recipe, Sources};
use dojoc_ir::program::verify;
use dojoc_ir::program::{EntryId, Program, StateInit, TensorDecl, TensorId, TensorKind};
use dojoc_ir::tensor::Tensor;

use crate::codes::{UNKNOWN_ENTRY, UNKNOWN_TENSOR};
use crate::exec::Executor;
use crate::host::{Engine, Home, Keep, ProbeSink, collect, place, place_with, walk};
use crate::options::{RunOptions, Stats};
use crate::sanitize::Sanitizer;
use probes::Probes;

/// Options of loading.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Verify the program. Without it only its structure is checked, and rules that it breaks show
    /// when the sanitizer runs it; the fast executor reports what it notices.
    pub verify: bool,
    /// Place weights and states for the sanitizer, which [`RunOptions::sanitize`] selects for a run.
    /// Only where they are placed first differs; both can run what is loaded.
    pub sanitize: bool,
    /// Limit of the bytes that are allocated for weights and states, and while a recipe is
    /// evaluated.
    pub max_bytes: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            verify: true,
            sanitize: false,
            max_bytes: u64::MAX,
        }
    }
}

/// Values of a probe.
#[derive(Clone, PartialEq, Debug)]
pub struct ProbeValues {
    /// Name of the declared probe; else the name that was asked for, followed by `:SEGMENT.BUFFER`
    /// if it stands for several buffers.
    pub name: Arc<str>,
    /// The core whose buffer it is; `None` for a declared probe, input or output, whose parts on all
    /// cores are put together.
    pub core: Option<CoreAddress>,
    /// The values: of a declared probe in the order in which the schedule reaches it, of a buffer
    /// one for each call of its segment on the core, see [`RunOptions::probes`].
    pub values: Vec<Tensor>,
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// Outputs by name, in the order of the entry.
    pub outputs: Vec<(Arc<str>, Tensor)>,
    /// Values of what was asked for by [`RunOptions::probes`]: declared probes, inputs and outputs in
    /// the order of the options, then buffers in that order, by core.
    pub probes: Vec<ProbeValues>,
    /// What was done.
    pub stats: Stats,
    /// How long the cores ran on this host, without the way of inputs and outputs between tensors
    /// and cores. Differs from run to run.
    pub elapsed: Duration,
}

/// A loaded program.
///
/// States live from one run to the next. A run that fails or is cancelled leaves them as they were
/// before it.
pub struct Instance {
    program: Arc<Program>,
    machine: Machine,
    engine: Box<dyn Engine>,
    sanitized: bool,
    max_bytes: u64,
    /// Largest values of the run parameters: extents of weights and states are those of these.
    largest: Vec<i64>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("program", &self.program.name)
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// Verifies a program and places its weights and first states. Recipes read the user's files
    /// through `sources`.
    ///
    /// # Errors
    /// All violations of the verifier; else the first weight or state that cannot be made.
    pub fn load(
        program: Arc<Program>,
        machine: &Machine,
        sources: &dyn Sources,
        options: LoadOptions,
    ) -> Result<Self, Diagnostics> {
        let violations = match options.verify {
            true => verify::verify(&program, machine),
            false => verify::structure(&program),
        };
        let found = violations
            .into_iter()
            .map(|v| v.into_diagnostic(&program, None));
        Diagnostics(found.collect()).ok(())?;
        let largest = inputs::largest_dims(&program);
        let mut instance = Self {
            engine: engine(&program, machine, options.sanitize, options.max_bytes)?,
            sanitized: options.sanitize,
            machine: machine.clone(),
            max_bytes: options.max_bytes,
            program,
            largest,
        };
        instance.place_all(sources)?;
        Ok(instance)
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Places weights and first states.
    fn place_all(&mut self, sources: &dyn Sources) -> Result<(), Diagnostic> {
        let program = self.program.clone();
        for decl in program.tensors.values() {
            match &decl.kind {
                TensorKind::Weight(recipe) => {
                    self.place_recipe(decl, recipe, sources, Keep::Weight)?;
                }
                TensorKind::State(StateInit::Recipe(recipe)) => {
                    self.place_recipe(decl, recipe, sources, Keep::State)?;
                }
                TensorKind::State(StateInit::Zeros) => self.place_zeros(decl)?,
                TensorKind::Input | TensorKind::Output | TensorKind::Probe => {}
            }
        }
        Ok(())
    }

    fn place_recipe(
        &mut self,
        decl: &TensorDecl,
        of: &Recipe,
        sources: &dyn Sources,
        keep: Keep,
    ) -> Result<(), Diagnostic> {
        let limit = self.max_bytes;
        let mut make = |starts: &[u64], sizes: &[u64]| {
            let tensor = recipe::eval_slice(of, starts, sizes, sources, limit)
                .map_err(|d| d.note(format!("for @{}", decl.name)))?;
            if tensor.dtype() != decl.dtype {
                return Err(inputs::wrong_recipe(decl, tensor.dtype()));
            }
            Ok(tensor.bytes().clone())
        };
        let engine = self.engine.as_mut();
        place_with(decl, &self.program, &self.largest, engine, keep, &mut make)
    }

    fn place_zeros(&mut self, decl: &TensorDecl) -> Result<(), Diagnostic> {
        let mut make = |_: &[u64], sizes: &[u64]| {
            let bytes = sizes.iter().product::<u64>() * decl.dtype.bytes();
            Ok(bytes::Bytes::from(vec![0; bytes as usize]))
        };
        let engine = self.engine.as_mut();
        place_with(
            decl,
            &self.program,
            &self.largest,
            engine,
            Keep::State,
            &mut make,
        )
    }

    /// Runs an entry with its inputs by name.
    ///
    /// # Errors
    /// Unknown names, inputs that do not fit, and whatever ends the run early. States are then as
    /// they were before.
    pub fn run(
        &mut self,
        entry: &str,
        inputs: &[(Arc<str>, Tensor)],
        options: &RunOptions,
    ) -> Result<RunResult, Diagnostics> {
        let program = self.program.clone();
        let id = self.entry(entry)?;
        let dims = inputs::run_dims(&program, &options.dims)?;
        let given = inputs::bind(&program, id, inputs)?;
        let probes = Probes::new(&program, id, &options.probes, &dims)?;
        self.choose_engine(options.sanitize)?;
        self.engine.begin(options);
        let result = self.run_begun(id, &given, &dims, options, probes);
        self.engine.end(result.is_ok());
        result
    }

    fn run_begun(
        &mut self,
        entry: EntryId,
        inputs: &[(TensorId, &Tensor)],
        dims: &[i64],
        options: &RunOptions,
        probes: Option<Probes<'_>>,
    ) -> Result<RunResult, Diagnostics> {
        let program = &*self.program;
        for (id, tensor) in inputs {
            let decl = &program.tensors[*id];
            place(tensor, decl, program, dims, self.engine.as_mut(), Keep::Run)?;
        }
        let sink = probes.as_ref().map(|probes| probes as &dyn ProbeSink);
        let start = Instant::now();
        let stats = self.engine.run(entry, dims, options, sink)?;
        let elapsed = start.elapsed();
        if let Some(cancel) = &options.cancel
            && cancel.load(std::sync::atomic::Ordering::Relaxed)
        {
            return Err(Diagnostic::input(CANCELLED, "the run was cancelled").into());
        }
        let mut outputs = Vec::new();
        for id in &program.entries[entry].outputs {
            let decl = &program.tensors[*id];
            let tensor = collect(decl, program, dims, &*self.engine)?;
            outputs.push((decl.name.clone(), tensor));
        }
        // Copies of a state agree after every run.
        for decl in program.tensors.values() {
            if matches!(decl.kind, TensorKind::State(_)) {
                collect(decl, program, &self.largest, &*self.engine)?;
            }
        }
        let probes = match probes {
            Some(probes) => {
                let ids = program.entries[entry].outputs.iter();
                let values = outputs.iter().map(|(_, value)| value);
                let given = inputs.iter().copied();
                let ports: BTreeMap<TensorId, &Tensor> =
                    ids.copied().zip(values).chain(given).collect();
                probes.finish(|id| ports.get(&id).copied().cloned())?
            }
            None => Vec::new(),
        };
        Ok(RunResult {
            outputs,
            probes,
            stats,
            elapsed,
        })
    }

    fn entry(&self, name: &str) -> Result<EntryId, Diagnostic> {
        self.program.entry(name).ok_or_else(|| {
            let names: Vec<&str> = self.program.entries.values().map(|e| &*e.name).collect();
            let message = format!("the program has no entry @{name}");
            let found = Diagnostic::input(UNKNOWN_ENTRY, message);
            found.note(format!("it has {}", inputs::list(&names)))
        })
    }

    /// Makes the engine that a run asks for the one that holds weights and states.
    fn choose_engine(&mut self, sanitize: bool) -> Result<(), Diagnostics> {
        if self.sanitized == sanitize {
            return Ok(());
        }
        let mut other = engine(&self.program, &self.machine, sanitize, self.max_bytes)?;
        for decl in self.program.tensors.values() {
            let keep = match decl.kind {
                TensorKind::Weight(_) => Keep::Weight,
                TensorKind::State(_) => Keep::State,
                _ => continue,
            };
            self.copy_tensor(decl, other.as_mut(), keep)?;
        }
        self.engine = other;
        self.sanitized = sanitize;
        Ok(())
    }

    /// Copies all pieces of a tensor into another engine.
    fn copy_tensor(
        &self,
        decl: &TensorDecl,
        to: &mut dyn Engine,
        keep: Keep,
    ) -> Result<(), Diagnostic> {
        let shape = crate::host::shape_of(decl, &self.largest)?;
        walk(&self.program, decl, &shape, &self.largest, |piece| {
            let mut data = vec![0; piece.bytes()];
            let (at, layout) = (piece.at, &piece.layout);
            match piece.home {
                Home::Sram(core) => {
                    self.engine.read(core, at, layout, &mut data)?;
                    to.write(core, at, layout, &data.into(), keep)
                }
                Home::Dram { dram, instance, .. } => {
                    self.engine
                        .read_dram(dram, instance, at, layout, &mut data)?;
                    to.write_dram(dram, instance, at, layout, &data.into(), keep)
                }
            }
        })
    }

    fn state_decl(&self, name: &str) -> Option<&TensorDecl> {
        let decl = &self.program.tensors[self.program.tensor(name)?];
        matches!(decl.kind, TensorKind::State(_)).then_some(decl)
    }

    /// The value of a state; `None` if there is no such state.
    ///
    /// # Errors
    /// What [`collect`] returns.
    pub fn state(&self, name: &str) -> Result<Option<Tensor>, Diagnostic> {
        let Some(decl) = self.state_decl(name) else {
            return Ok(None);
        };
        collect(decl, &self.program, &self.largest, &*self.engine).map(Some)
    }

    /// All states by name, in the order of the program.
    ///
    /// # Errors
    /// What [`collect`] returns.
    pub fn states(&self) -> Result<Vec<(Arc<str>, Tensor)>, Diagnostic> {
        let decls = self.program.tensors.values();
        decls
            .filter(|decl| matches!(decl.kind, TensorKind::State(_)))
            .map(|decl| {
                let tensor = collect(decl, &self.program, &self.largest, &*self.engine)?;
                Ok((decl.name.clone(), tensor))
            })
            .collect()
    }

    /// Sets a state on all cores that hold it.
    ///
    /// # Errors
    /// [`UNKNOWN_TENSOR`], and a tensor of another type than declared.
    pub fn set_state(&mut self, name: &str, value: &Tensor) -> Result<(), Diagnostic> {
        let program = self.program.clone();
        let id = program.tensor(name);
        let decl = id.map(|id| &program.tensors[id]);
        match decl {
            Some(decl) if matches!(decl.kind, TensorKind::State(_)) => {
                let engine = self.engine.as_mut();
                place(value, decl, &program, &self.largest, engine, Keep::State)
            }
            _ => {
                let message = format!("the program has no state @{name}");
                Err(Diagnostic::input(UNKNOWN_TENSOR, message))
            }
        }
    }
}

/// An engine without weights and states.
fn engine(
    program: &Arc<Program>,
    machine: &Machine,
    sanitize: bool,
    max_bytes: u64,
) -> Result<Box<dyn Engine>, Diagnostics> {
    if sanitize {
        let sanitizer = Sanitizer::new(program.clone(), machine, max_bytes);
        return Ok(Box::new(sanitizer));
    }
    let executor = Executor::new(program.clone(), machine, max_bytes)?;
    Ok(Box::new(executor))
}

/// What inputs an entry has, for messages.
fn expected(program: &Program, entry: EntryId) -> String {
    let names: Vec<&str> = program.entries[entry]
        .inputs
        .iter()
        .map(|id| &*program.tensors[*id].name)
        .collect();
    inputs::list(&names)
}

/// An error about the inputs of a run.
fn wrong_inputs(message: String) -> Diagnostic {
    Diagnostic::input(WRONG_INPUTS, message)
}
