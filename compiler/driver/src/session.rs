//! A loaded program as frameworks run it: inputs by name, outputs by name.

use std::sync::Arc;

use dojoc_ir::tensor::Tensor;
use dojoc_runtime::instance::{Instance, LoadOptions};
use dojoc_runtime::options::{RunOptions, Stats};

use crate::compiler::CompiledProgram;
use crate::error::Result;
use crate::evaluator::{NamedTensors, Run};
use crate::module::Signature;
use crate::tensor::TensorView;

/// An entry of a loaded program with its weights and states in place, ready for any number of runs.
///
/// [`CompiledProgram::session`] makes one. States live from one run to the next; probes are
/// [`Instance`]'s, which [`Executable::load`](crate::program::Executable::load) gives.
#[derive(Debug)]
pub struct Session {
    instance: Instance,
    signature: Signature,
    options: RunOptions,
    stats: Stats,
}

impl CompiledProgram {
    /// Loads the program for running its entry `main`, or else the first, on all threads of the host.
    ///
    /// # Errors
    /// When the program has no entry, or weights cannot be read.
    pub fn session(&self) -> Result<Session> {
        Ok(Session {
            instance: self.executable.load(&self.target, LoadOptions::default())?,
            signature: self.executable.signature(None, &[])?,
            options: RunOptions::default(),
            stats: Stats::default(),
        })
    }
}

impl Session {
    /// The same with other options of its runs: threads, kernels, limits, a flag that cancels.
    #[must_use]
    pub fn options(mut self, options: RunOptions) -> Self {
        self.options = options;
        self
    }

    /// Names and types of inputs and outputs.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Runs the program on inputs by name.
    ///
    /// # Errors
    /// Inputs that are missing, unknown, given twice or of the wrong type; limits; cancellation.
    /// States are then as they were before.
    pub fn run(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Run> {
        let inputs: Vec<(Arc<str>, Tensor)> = (inputs.iter())
            .map(|(name, view)| (Arc::from(*name), view.to_tensor()))
            .collect();
        let found = self
            .instance
            .run(&self.signature.name, &inputs, &self.options)?;
        self.stats = found.stats;
        Ok(Run {
            outputs: NamedTensors(found.outputs),
            probes: NamedTensors::default(),
        })
    }

    /// What the last run did.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
