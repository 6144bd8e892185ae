//! Weights from another file than the model's.

use std::path::Path;
use std::sync::Arc;

use dojoc_compiler::io::{RawTensor, RawTensorSource, npz, safetensors};
use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::graph::WeightSource;
use dojoc_ir::tensor::Tensor;

use crate::codes;
use crate::error::{Error, Result};
use crate::module::Module;

/// A weight's new place and bytes.
type Replacement = (String, WeightSource, Tensor);

impl Module {
    /// The same model with other values for the weights that a file has, by name: `.safetensors`,
    /// of which nothing is copied, or `.npz`. Weights that are not in the file stay as they are.
    ///
    /// # Errors
    /// A file of another kind, names that are not weights of the model, types that differ: all of
    /// them together.
    pub fn with_weights(&self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut graph = self.graph().clone();
        let mut errors = Diagnostics::default();
        let mut error = |message: String| {
            let message = format!("{}: {message}", path.display());
            errors.push(Diagnostic::input(codes::BAD_WEIGHTS, message));
        };
        for (name, source, tensor) in read(path)? {
            let Some(weight) = graph.weight(&name) else {
                error(format!("the model has no weight `{name}`"));
                continue;
            };
            let (_, weight) = match graph.weights.iter_mut().find(|(id, _)| *id == weight) {
                Some(found) => found,
                None => continue,
            };
            if weight.ty != tensor.ty() {
                error(format!(
                    "weight `{name}` is {}, not {}",
                    weight.ty,
                    tensor.ty()
                ));
                continue;
            }
            weight.source = source;
            weight.data = Some(tensor);
        }
        errors.ok(())?;
        Ok(self.with_graph(graph))
    }
}

fn read(path: &Path) -> Result<Vec<Replacement>> {
    let inline = |name: &str, raw: &RawTensor| -> Result<Replacement> {
        Ok((name.to_owned(), WeightSource::Inline, raw.to_tensor()?))
    };
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz") => npz::read_npz(path)?
            .iter()
            .map(|(n, raw)| inline(n, raw))
            .collect(),
        Some("safetensors") => {
            let file = safetensors::open_safetensors(path)?;
            if let Some((_, error)) = file.unsupported.into_iter().next() {
                return Err(error.into());
            }
            let place: Arc<str> = path.to_string_lossy().into();
            let entries = file.tensors.iter().map(|(name, data)| {
                let raw = data.load()?;
                match data.source {
                    RawTensorSource::InFile {
                        offset,
                        len: length,
                        ..
                    } => {
                        let source = WeightSource::External {
                            file: place.clone(),
                            offset,
                            length,
                        };
                        Ok((name.clone(), source, raw.to_tensor()?))
                    }
                    RawTensorSource::Owned(_) => inline(name, &raw),
                }
            });
            entries.collect()
        }
        _ => {
            let message = format!("{}: not known to hold weights", path.display());
            let help = "weights come from .safetensors or .npz files";
            let diagnostic = Diagnostic::input(codes::UNKNOWN_KIND, message).help(help);
            Err(Error::from(Diagnostics::from(diagnostic)))
        }
    }
}
