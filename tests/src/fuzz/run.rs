//! Runs of sound programs with small limits.

use std::sync::Arc;

use bytes::Bytes;
use dojoc_ir::codes as ir_codes;
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::machine::Machine;
use dojoc_ir::program::{Affine, Env, Program, Sources, TensorDecl};
use dojoc_ir::tensor::Tensor;
use dojoc_runtime::instance::{Instance, LoadOptions, RunResult};
use dojoc_runtime::options::RunOptions;

/// Limit of the bytes that a run allocates.
const MAX_BYTES: u64 = 1 << 26;
/// Limit of the statements of a run.
const MAX_STEPS: u64 = 100_000;
/// Programs with larger inputs are not run.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Files of zeros, as long as they need to be up to a limit.
struct Zeros;

impl Sources for Zeros {
    fn read(&self, file: &str, offset: u64, length: u64) -> Result<Bytes, Diagnostic> {
        if offset.saturating_add(length) > MAX_BYTES {
            let message = format!("`{file}` is too short");
            return Err(Diagnostic::input(ir_codes::NO_DATA, message));
        }
        Ok(vec![0; length as usize].into())
    }
}

/// A tensor of small positive numbers, whatever its element type.
fn input(decl: &TensorDecl, dims: &[i64]) -> Option<Tensor> {
    let env = Env {
        dims,
        ..Env::default()
    };
    let extent = |e: &Affine| u64::try_from(e.eval(&env)?).ok();
    let shape: Vec<u64> = decl.shape.iter().map(extent).collect::<Option<_>>()?;
    let bytes = shape
        .iter()
        .try_fold(decl.dtype.bytes(), |n, d| n.checked_mul(*d))?;
    if bytes > MAX_INPUT_BYTES {
        return None;
    }
    let data: Vec<u8> = (0..bytes).map(|at| (at % 61) as u8).collect();
    Tensor::from_bytes(decl.dtype, &shape, data.into()).ok()
}

fn inputs(program: &Program, entry: &str) -> Option<Vec<(Arc<str>, Tensor)>> {
    let dims: Vec<i64> = program.dims.iter().map(|(_, most)| *most as i64).collect();
    let entry = &program.entries[program.entry(entry)?];
    let all = entry.inputs.iter().map(|id| {
        let decl = &program.tensors[*id];
        Some((decl.name.clone(), input(decl, &dims)?))
    });
    all.collect()
}

/// Loads a program that keeps all rules and runs each of its entries, once with the fast executor and
/// once with the sanitizer.
///
/// # Errors
/// All messages of both.
///
/// # Panics
/// When both give results and these differ.
pub fn run(program: &Program, machine: &Machine) -> Result<(), Diagnostics> {
    let program = Arc::new(program.clone());
    let load = || {
        let options = LoadOptions {
            max_bytes: MAX_BYTES,
            ..LoadOptions::default()
        };
        Instance::load(program.clone(), machine, &Zeros, options)
    };
    let (mut fast, mut careful) = (load()?, load()?);
    let mut errors = Diagnostics::default();
    for entry in program.entries.values() {
        let Some(inputs) = inputs(&program, &entry.name) else {
            continue;
        };
        let mut options = RunOptions {
            threads: 1,
            max_bytes: MAX_BYTES,
            max_steps: MAX_STEPS,
            ..RunOptions::default()
        };
        let result = fast.run(&entry.name, &inputs, &options);
        options.sanitize = true;
        let expected = careful.run(&entry.name, &inputs, &options);
        match (result, expected) {
            (Ok(result), Ok(expected)) => assert!(same(&result, &expected), "results differ"),
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => errors.0.extend(error.0),
            (Err(error), Err(other)) => errors.0.extend(error.0.into_iter().chain(other.0)),
        }
    }
    errors.ok(())
}

fn same(a: &RunResult, b: &RunResult) -> bool {
    a.outputs == b.outputs
}
