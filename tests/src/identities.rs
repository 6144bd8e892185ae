//! What holds for every program, however it is run.

use std::sync::Arc;

use dojoc_ir::machine::Machine;
use dojoc_ir::program::recipe::Sources;
use dojoc_ir::program::{Program, container, parse, verify};
use dojoc_ir::tensor::Tensor;
use dojoc_runtime::instance::{Instance, LoadOptions};
use dojoc_runtime::kernels;
use dojoc_runtime::options::RunOptions;

/// Tensors by name.
pub type Named = Vec<(Arc<str>, Tensor)>;

/// Bytes of tensors by name.
type Bits = Vec<(Arc<str>, Vec<u8>)>;

/// How a program is run to compare results.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// Shuffled schedules.
    pub schedules: u64,
    /// Whether the sanitizer runs it too.
    pub sanitize: bool,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            schedules: 50,
            sanitize: true,
        }
    }
}

/// A built-in machine.
///
/// # Errors
/// If there is none of that name.
pub fn machine(name: &str) -> Result<Machine, String> {
    let text = Machine::builtin(name).ok_or_else(|| format!("there is no machine {name}"))?;
    Machine::parse(text, name).map_err(|e| format!("{e:?}"))
}

/// Checks that text and container give the same program again.
///
/// # Errors
/// Which does not.
pub fn round_trips(program: &Program) -> Result<(), String> {
    let (again, _) = parse::parse(&program.to_string())
        .map_err(|e| format!("the printed program is not accepted: {e:?}"))?;
    if again != *program {
        return Err("the text gives another program".into());
    }
    let again = container::decode(&container::encode(program))
        .map_err(|e| format!("the container is not accepted: {e:?}"))?;
    if again != *program {
        return Err("the container gives another program".into());
    }
    Ok(())
}

/// Checks that the verifier accepts a program.
///
/// # Errors
/// What it says.
pub fn verifies(program: &Program, machine: &Machine) -> Result<(), String> {
    let violations = verify::verify(program, machine);
    let lines: Vec<String> = violations
        .into_iter()
        .map(|violation| format!("{:?}", violation.into_diagnostic(program, None)))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(lines.join("\n"))
}

/// The bits of what a sequence of runs of an entry gives: outputs of all runs and the states in the
/// end.
fn results(
    program: &Arc<Program>,
    machine: &Machine,
    sources: &dyn Sources,
    (entry, runs): (&str, &[Named]),
    options: &RunOptions,
) -> Result<Bits, String> {
    let load = LoadOptions {
        verify: false,
        sanitize: options.sanitize,
        ..LoadOptions::default()
    };
    let mut instance = Instance::load(program.clone(), machine, sources, load)
        .map_err(|e| format!("loading: {e:?}"))?;
    let mut found: Named = Vec::new();
    for (step, inputs) in runs.iter().enumerate() {
        let options = RunOptions {
            step: step as u64,
            ..options.clone()
        };
        let run = instance.run(entry, inputs, &options);
        found.extend(run.map_err(|e| format!("{e:?}"))?.outputs);
    }
    found.extend(instance.states().map_err(|e| format!("{e:?}"))?);
    let bytes = |(name, tensor): (Arc<str>, Tensor)| (name, tensor.bytes().to_vec());
    Ok(found.into_iter().map(bytes).collect())
}

/// Checks that results do not depend on threads, schedule, kernels and executor.
///
/// # Errors
/// Which way of running gives what else.
pub fn results_agree(
    program: &Arc<Program>,
    machine: &Machine,
    sources: &dyn Sources,
    (entry, runs): (&str, &[Named]),
    ways: Ways,
) -> Result<(), String> {
    let base = RunOptions {
        threads: 1,
        seed: 5,
        ..RunOptions::default()
    };
    let mut others = Vec::new();
    for threads in [2, 4] {
        others.push((
            format!("{threads} threads"),
            RunOptions {
                threads,
                ..base.clone()
            },
        ));
    }
    for kernels in kernels::available() {
        let name = format!("{} kernels", kernels.name());
        others.push((
            name,
            RunOptions {
                kernels,
                ..base.clone()
            },
        ));
    }
    if ways.sanitize {
        let sanitize = true;
        others.push((
            "the sanitizer".into(),
            RunOptions {
                sanitize,
                ..base.clone()
            },
        ));
    }
    for schedule in 0..ways.schedules {
        let options = RunOptions {
            shuffle: Some(schedule),
            threads: 1 + (schedule % 2) as usize,
            ..base.clone()
        };
        others.push((format!("schedule {schedule}"), options));
    }
    let run = |options: &RunOptions| results(program, machine, sources, (entry, runs), options);
    let expected = run(&base).map_err(|e| format!("one thread: {e}"))?;
    for (name, options) in others {
        let found = run(&options).map_err(|e| format!("{name}: {e}"))?;
        if let Some(difference) = difference(&expected, &found) {
            return Err(format!("{name}: {difference}"));
        }
    }
    Ok(())
}

/// The first tensor that differs.
fn difference(a: &[(Arc<str>, Vec<u8>)], b: &[(Arc<str>, Vec<u8>)]) -> Option<String> {
    if a.len() != b.len() {
        return Some(format!("{} tensors, expected {}", b.len(), a.len()));
    }
    a.iter().zip(b).find_map(|((name, a), (other, b))| {
        let at = a.iter().zip(b).position(|(a, b)| a != b);
        match at {
            _ if name != other => Some(format!("@{other} in the place of @{name}")),
            Some(at) => Some(format!("@{name} differs from byte {at} on")),
            None if a.len() != b.len() => Some(format!(
                "@{name} has {} bytes, expected {}",
                b.len(),
                a.len()
            )),
            None => None,
        }
    })
}
