//! Which tensor is for which input.

use std::collections::BTreeSet;
use std::sync::Arc;

use dojoc::{Diagnostic, Error, NamedTensors, Result, Signature, Tensor, codes};

use super::files::Loaded;

/// Which tensor is for which input: by the given name, else by the file's, else by position.
pub fn assign(signature: &Signature, loaded: Vec<Loaded>) -> Result<Vec<(Arc<str>, Tensor)>> {
    let known = |name: &str| {
        signature
            .inputs
            .iter()
            .find(|p| &*p.name == name)
            .map(|p| p.name.clone())
    };
    let mut inputs: Vec<(Arc<str>, Tensor)> = vec![];
    let mut by_position = vec![];
    let bulk = loaded.iter().filter(|l| l.bulk);
    let names: Vec<String> = bulk.filter_map(|l| l.hint.clone()).collect();
    for loaded in loaded {
        let hinted = loaded.hint.as_deref().and_then(known);
        match (loaded.name, hinted) {
            (Some(name), _) if known(&name).is_none() => {
                let message = format!("`{}` has no input `{name}`", signature.name);
                return Err(bad_inputs(message, signature));
            }
            (Some(name), _) => inputs.push((name.into(), loaded.tensor)),
            (None, Some(name)) => inputs.push((name, loaded.tensor)),
            // Other arrays of an archive may be labels or references.
            (None, None) if loaded.bulk => {}
            (None, None) => by_position.push(loaded.tensor),
        }
    }
    let taken: BTreeSet<Arc<str>> = inputs.iter().map(|(name, _)| name.clone()).collect();
    let mut free = signature.inputs.iter().filter(|p| !taken.contains(&p.name));
    for tensor in by_position {
        let Some(port) = free.next() else {
            let message = format!(
                "more tensors than inputs: one of {} is left over",
                tensor.ty()
            );
            return Err(bad_inputs(message, signature));
        };
        inputs.push((port.name.clone(), tensor));
    }
    if !names.is_empty() && inputs.is_empty() {
        let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
        let message = format!(
            "no array has the name of an input: there are {}",
            names.join(", ")
        );
        return Err(bad_inputs(message, signature));
    }
    Ok(inputs)
}

fn bad_inputs(message: String, signature: &Signature) -> Error {
    let inputs = signature.inputs.iter();
    let inputs: Vec<String> = inputs.map(|p| format!("`{}` : {}", p.name, p.ty)).collect();
    let diagnostic = Diagnostic::input(codes::BAD_INPUTS, message);
    let inputs = inputs.join(", ");
    diagnostic
        .help(format!(
            "the inputs are {inputs}; --input INPUT=FILE.npz:ARRAY takes one array"
        ))
        .into()
}

/// Random values, if there is a seed for them, for inputs that have none.
pub fn fill_missing(
    seed: Option<u64>,
    random: impl Fn(u64) -> NamedTensors,
    signature: &Signature,
    inputs: &mut Vec<(Arc<str>, Tensor)>,
) -> Result<()> {
    let missing: Vec<&Arc<str>> = signature
        .inputs
        .iter()
        .map(|p| &p.name)
        .filter(|name| !inputs.iter().any(|(n, _)| n == *name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(seed) = seed else {
        let mut diagnostic = Diagnostic::input(codes::BAD_INPUTS, "inputs are missing");
        for port in signature
            .inputs
            .iter()
            .filter(|p| missing.contains(&&p.name))
        {
            diagnostic = diagnostic.note(format!("no value for `{}` : {}", port.name, port.ty));
        }
        let help = format!("give them (--input {}=FILE) or try --random 1", missing[0]);
        return Err(diagnostic.help(help).into());
    };
    let random = random(seed);
    let missing: BTreeSet<Arc<str>> = missing.into_iter().cloned().collect();
    inputs.extend(
        random
            .0
            .into_iter()
            .filter(|(name, _)| missing.contains(name)),
    );
    Ok(())
}
