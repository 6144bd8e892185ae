//! What a run is given: run parameters and inputs.

use std::sync::Arc;

use dojoc_ir::codes::BAD_RECIPE;
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::program::{EntryId, Program, TensorDecl, TensorId};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::{expected, wrong_inputs};
use crate::codes::BAD_DIM;

/// Names as a list for messages.
pub fn list(names: &[&str]) -> String {
    match names {
        [] => "none".into(),
        names => names
            .iter()
            .map(|name| format!("@{name}"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The largest values of the run parameters.
pub fn largest_dims(program: &Program) -> Vec<i64> {
    let dims = program.dims.iter();
    dims.map(|(_, max)| i64::try_from(*max).unwrap_or(i64::MAX))
        .collect()
}

/// The values of the run parameters in order of declaration; those that are not given have their
/// largest one.
pub fn run_dims(program: &Program, given: &[(Arc<str>, u64)]) -> Result<Vec<i64>, Diagnostics> {
    let mut dims = largest_dims(program);
    let mut found = Diagnostics::default();
    for (name, value) in given {
        let position = program.dims.iter().position(|(dim, _)| dim == name);
        let Some(position) = position else {
            let names: Vec<&str> = program.dims.iter().map(|(name, _)| &**name).collect();
            let message = format!("the program has no run parameter {name}");
            let help = match names.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has {}", names.join(", ")),
            };
            found.push(Diagnostic::input(BAD_DIM, message).note(help));
            continue;
        };
        let max = program.dims[position].1;
        match i64::try_from(*value) {
            Ok(value) if value >= 1 && value as u64 <= max => dims[position] = value,
            _ => {
                let message = format!("{name} is {value}, outside 1 to {max}");
                found.push(Diagnostic::input(BAD_DIM, message));
            }
        }
    }
    found.ok(dims)
}

/// The tensors of an entry's inputs.
///
/// # Errors
/// Inputs that are missing, given twice or unknown, all of them.
pub fn bind<'t>(
    program: &Program,
    entry: EntryId,
    given: &'t [(Arc<str>, Tensor)],
) -> Result<Vec<(TensorId, &'t Tensor)>, Diagnostics> {
    let mut found = Diagnostics::default();
    let inputs = &program.entries[entry].inputs;
    let mut bound = Vec::new();
    for id in inputs {
        let name = &program.tensors[*id].name;
        let mut named = given.iter().filter(|(given, _)| given == name);
        match (named.next(), named.next()) {
            (Some((_, tensor)), None) => bound.push((*id, tensor)),
            (Some(_), Some(_)) => {
                found.push(wrong_inputs(format!("input @{name} is given twice")));
            }
            (None, _) => found.push(wrong_inputs(format!("input @{name} is missing"))),
        }
    }
    for (name, _) in given {
        if !inputs.iter().any(|id| program.tensors[*id].name == *name) {
            let entry_name = &program.entries[entry].name;
            let message = format!("entry @{entry_name} has no input @{name}");
            let note = format!("its inputs: {}", expected(program, entry));
            found.push(wrong_inputs(message).note(note));
        }
    }
    found.ok(bound)
}

/// A recipe of another element type than its tensor.
pub fn wrong_recipe(decl: &TensorDecl, found: DType) -> Diagnostic {
    let message = format!("@{} is {}, its recipe gives {found}", decl.name, decl.dtype);
    Diagnostic::input(BAD_RECIPE, message)
}
