//! Runs data with more rows than the model's batch, batch by batch, for those who ask for it: that rows do not
//! depend on each other cannot be seen in shapes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dojoc::{Error, NamedTensors, Port, Result, Run, Signature, Tensor, Type, codes};
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::dim::Dim;
use dojoc_runtime::codes::BAD_TENSOR;
use indicatif::ProgressBar;

/// How data is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Rows of the data.
    pub rows: u64,
    /// Rows of a batch.
    pub batch: u64,
    /// The inputs that are cut; the others are the same for every batch.
    inputs: BTreeSet<Arc<str>>,
}

/// Rows of a batch, if data of `shape` has to be cut for an input of type `declared`: where only the
/// first extents differ, or the data has more rows than a bounded extent allows.
fn batch_of(declared: &Type, shape: &[u64]) -> Option<u64> {
    let ([first, tail @ ..], [rows, rest @ ..]) = (declared.dims(), shape) else {
        return None;
    };
    let tail: Option<Vec<u64>> = tail.iter().map(|dim| dim.as_const()).collect();
    let fits = match first.as_const() {
        Some(batch) => batch == *rows,
        None => *rows <= first.max_extent(),
    };
    let batch = first.max_extent();
    (!fits && batch > 0 && tail.as_deref() == Some(rest)).then_some(batch)
}

/// How the inputs have to be cut; `None` if they fit as they are (or not at all).
///
/// # Errors
/// When they would have to be cut but that was not `asked` for, or in different ways, or when no output
/// has rows.
pub fn plan(
    signature: &Signature,
    inputs: &[(Arc<str>, Tensor)],
    asked: bool,
) -> Result<Option<Batches>> {
    let mut plan: Option<Batches> = None;
    for (name, tensor) in inputs {
        let Some(port) = signature.inputs.iter().find(|p| p.name == *name) else {
            continue;
        };
        let Some(batch) = batch_of(&port.ty, tensor.shape()) else {
            continue;
        };
        if !asked {
            let message = format!("input `{name}` is {}, {} was given", port.ty, tensor.ty());
            let help = "--batched runs rows that do not depend on each other batch by batch";
            return Err(Diagnostic::input(BAD_TENSOR, message).help(help).into());
        }
        let rows = tensor.shape()[0];
        let plan = plan.get_or_insert_with(|| Batches {
            rows,
            batch,
            inputs: BTreeSet::new(),
        });
        if (plan.rows, plan.batch) != (rows, batch) {
            let message = format!(
                "input `{name}` has {rows} rows for batches of {batch}, another has {} for {}",
                plan.rows, plan.batch
            );
            return Err(Diagnostic::input(codes::BAD_BATCH, message).into());
        }
        plan.inputs.insert(name.clone());
    }
    let Some(plan) = plan else {
        return Ok(None);
    };
    let has_rows = |p: &Port| p.ty.dims().first().map(Dim::max_extent) == Some(plan.batch);
    let wrong = match plan.rows {
        0 => "the data has no rows".to_owned(),
        _ if signature.outputs.iter().any(has_rows) => return Ok(Some(plan)),
        _ => format!("no output is made of the {} rows of a batch", plan.batch),
    };
    Err(Diagnostic::input(codes::BAD_BATCH, wrong).into())
}

/// Rows `start..start + batch` of a tensor; behind its end the last row again.
fn rows(tensor: &Tensor, start: u64, plan: &Batches) -> Tensor {
    let row = tensor.bytes().len() / plan.rows as usize;
    let begin = start as usize * row;
    let end = tensor.bytes().len().min(begin + plan.batch as usize * row);
    let mut bytes = tensor.bytes().slice(begin..end);
    let missing = plan.batch as usize * row - bytes.len();
    if missing > 0 {
        let last = tensor.bytes().slice(tensor.bytes().len() - row..);
        let padded = bytes.iter().chain(last.iter().cycle().take(missing));
        bytes = padded.copied().collect::<Vec<u8>>().into();
    }
    let mut shape = tensor.shape().to_vec();
    shape[0] = plan.batch;
    Tensor::from_bytes(tensor.dtype(), &shape, bytes).expect("a whole number of rows")
}

/// Pieces of outputs that are put together again.
#[derive(Default)]
struct Joined {
    names: Vec<Arc<str>>,
    pieces: BTreeMap<Arc<str>, Vec<Tensor>>,
}

impl Joined {
    fn add(&mut self, tensors: NamedTensors) {
        for (name, tensor) in tensors.0 {
            if !self.pieces.contains_key(&name) {
                self.names.push(name.clone());
            }
            self.pieces.entry(name).or_default().push(tensor);
        }
    }

    /// The whole tensors, and the names of those that are not made of rows.
    fn finish(self, plan: &Batches) -> (NamedTensors, Vec<Arc<str>>) {
        let mut whole = vec![];
        let mut odd = vec![];
        for name in self.names {
            let pieces = &self.pieces[&name];
            match join(pieces, plan) {
                Some(tensor) => whole.push((name, tensor)),
                None => odd.push(name),
            }
        }
        (NamedTensors(whole), odd)
    }
}

fn join(pieces: &[Tensor], plan: &Batches) -> Option<Tensor> {
    let first = pieces.first()?;
    let same = |t: &Tensor| t.shape() == first.shape() && t.dtype() == first.dtype();
    if first.shape().first() != Some(&plan.batch) || !pieces.iter().all(same) {
        return None;
    }
    let row = first.bytes().len() / plan.batch as usize;
    let mut bytes = BytesMut::with_capacity(row * plan.rows as usize);
    for piece in pieces {
        bytes.extend_from_slice(piece.bytes());
    }
    bytes.truncate(row * plan.rows as usize);
    let mut shape = first.shape().to_vec();
    shape[0] = plan.rows;
    Tensor::from_bytes(first.dtype(), &shape, Bytes::from(bytes)).ok()
}

/// Runs all batches by `one`, one after the other, so that states go from one to the next. Returns the
/// outputs of all rows, and the names of those that could not be put together.
///
/// # Errors
/// Those of a run.
pub fn run(
    mut one: impl FnMut(&[(Arc<str>, Tensor)]) -> Result<Run>,
    inputs: &[(Arc<str>, Tensor)],
    plan: &Batches,
    progress: &ProgressBar,
) -> Result<(Run, Vec<Arc<str>>)> {
    let (mut outputs, mut probes) = (Joined::default(), Joined::default());
    progress.set_length(plan.rows.div_ceil(plan.batch));
    let mut start = 0;
    while start < plan.rows {
        let batch: Vec<(Arc<str>, Tensor)> = inputs
            .iter()
            .map(|(name, tensor)| match plan.inputs.contains(name) {
                true => (name.clone(), rows(tensor, start, plan)),
                false => (name.clone(), tensor.clone()),
            })
            .collect();
        let run = one(&batch)?;
        outputs.add(run.outputs);
        probes.add(run.probes);
        start += plan.batch;
        progress.inc(1);
    }
    let (outputs, mut odd) = outputs.finish(plan);
    let (probes, more) = probes.finish(plan);
    odd.extend(more);
    let mut whole = Run::default();
    whole.outputs = outputs;
    whole.probes = probes;
    Ok((whole, odd))
}

/// The error for an output that is asked for but has no rows.
pub fn not_joined(name: &str) -> Error {
    let message = format!("output `{name}` is not made of the rows of the batch");
    Diagnostic::input(codes::BAD_BATCH, message)
        .help("give data of exactly the model's batch")
        .into()
}

#[cfg(test)]
mod tests {
    use dojoc::{DType, Shape};

    use super::*;

    #[test]
    fn rows_are_cut_padded_and_joined() {
        let plan = &Batches {
            rows: 3,
            batch: 2,
            inputs: BTreeSet::new(),
        };
        let data = Tensor::from_vec(&[3, 2], vec![1i32, 2, 3, 4, 5, 6]);
        let first = rows(&data, 0, plan);
        let last = rows(&data, 2, plan);
        assert_eq!(first.to_i64s(), [1, 2, 3, 4]);
        assert_eq!(last.to_i64s(), [5, 6, 5, 6]);
        assert_eq!(join(&[first.clone(), last], plan), Some(data));
        let scalar = Tensor::from_vec(&[], vec![1i32]);
        assert_eq!(join(&[scalar], plan), None);
    }

    #[test]
    fn data_is_cut_where_it_does_not_fit() {
        let fixed = Type::of(DType::F32, &[2, 3]);
        let n = Dim::symbol("n", 4);
        let bounded = Type::new(DType::F32, Shape::new([n, Dim::Const(3)]));
        assert_eq!(batch_of(&fixed, &[2, 3]), None);
        assert_eq!(batch_of(&fixed, &[1, 3]), Some(2));
        assert_eq!(batch_of(&fixed, &[9, 3]), Some(2));
        assert_eq!(batch_of(&fixed, &[9, 4]), None);
        assert_eq!(batch_of(&bounded, &[3, 3]), None);
        assert_eq!(batch_of(&bounded, &[5, 3]), Some(4));
    }
}
