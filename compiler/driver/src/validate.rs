//! Validation of the PROGRAM level: the emitted code is executed, and probes show what it computes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dojoc_compiler::lower::{Probes, ProgramOptions, mesh_to_program};
use dojoc_compiler::pass::{Checker, Validator};
use dojoc_ir::mesh;
use dojoc_ir::program::Step;
use dojoc_ir::tensor::Tensor;

use crate::error::{Error, Result};
use crate::options::CompileOptions;
use crate::program::{Executable, LoadOptions, RunOptions};
use crate::target::Target;

/// Executes a placed model and compares every value that has a name. The program is emitted once
/// more, with probes of them: its calls and addresses are the same, but values that end in the segment
/// that makes them can be read after it.
///
/// # Errors
/// The first value outside its bound; a program that does not run.
pub fn check_program(
    validator: &mut Validator,
    module: &mesh::Module,
    target: &Target,
    options: &CompileOptions,
) -> Result<()> {
    let mut probes = validator.names();
    // These are compared as outputs, and their names are taken.
    for function in module.tiled.functions.values() {
        for output in &function.outputs {
            probes.remove(&output.name);
        }
    }
    let options_of_probes = ProgramOptions {
        probes: Probes::Named(probes.clone()),
    };
    let program = mesh_to_program(module, target.machine(), &options_of_probes)?;
    let weights = module.tiled.weights.values().cloned().collect();
    let executable = Executable::compiled(program, weights);
    if options.verify {
        executable.verify(target)?;
    }
    let mut run = |entry: &str, inputs: &[Tensor], checker: &mut Checker<'_>| {
        let declared = declared(&executable, &probes);
        execute(
            &executable,
            target,
            options,
            &declared,
            (entry, inputs),
            checker,
        )
        .map_err(|error: Error| error.problems().diagnostics.clone())
    };
    Ok(validator.check_level("PROGRAM", "emit", &mut run)?)
}

/// The probes of a program in the order of its schedule, with the names of their values. Where another
/// tensor has the name already, emission has added `@` and a number.
fn declared(executable: &Executable, names: &BTreeSet<Arc<str>>) -> Vec<(Arc<str>, Arc<str>)> {
    let program = executable.program();
    let steps = program.entries.values().flat_map(|entry| &entry.steps);
    let probes = steps.filter_map(|step| match step {
        Step::Probe(tensor) => Some(program.tensors[*tensor].name.clone()),
        _ => None,
    });
    let named = probes.filter_map(|declared| {
        let shorter = declared.rsplit_once('@').map(|(name, _)| name);
        let name = names.get(&declared).or_else(|| names.get(shorter?))?;
        Some((declared, name.clone()))
    });
    named.collect()
}

fn execute(
    executable: &Executable,
    target: &Target,
    options: &CompileOptions,
    probes: &[(Arc<str>, Arc<str>)],
    (entry, inputs): (&str, &[Tensor]),
    checker: &mut Checker<'_>,
) -> Result<()> {
    let signature = executable.signature(Some(entry), &[])?;
    let names = signature.inputs.iter().map(|port| port.name.clone());
    let given: Vec<(Arc<str>, Tensor)> = names.zip(inputs.iter().cloned()).collect();
    let run_options = RunOptions {
        cancel: options.cancel.clone(),
        probes: probes
            .iter()
            .map(|(declared, _)| declared.clone())
            .collect(),
        ..RunOptions::default()
    };
    let mut instance = executable.load(target, LoadOptions::default())?;
    let result = instance.run(entry, &given, &run_options)?;
    let of: BTreeMap<&Arc<str>, &Arc<str>> = probes.iter().map(|(d, n)| (d, n)).collect();
    for probe in &result.probes {
        for value in &probe.values {
            if let Some(name) = of.get(&probe.name) {
                checker.named(name, value);
            }
        }
    }
    for (position, (_, value)) in result.outputs.iter().enumerate() {
        checker.output(position, value);
    }
    Ok(())
}
