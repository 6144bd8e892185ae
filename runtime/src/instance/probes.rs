//! Values of probes, collected core by core while a program runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dojoc_ir::diag::Diagnostic;
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{Program, TensorId, TensorKind};

use super::ProbeValues;
use super::inputs::list;
use crate::codes::UNKNOWN_TENSOR;
use crate::host::{Assembly, Home, Piece, ProbeSink, ReadMemory, read_piece, shape_of, walk};

/// A piece of a probe that a core captured.
#[derive(Debug)]
struct Captured {
    piece: Piece,
    bytes: Vec<u8>,
}

/// A probe that was asked for.
#[derive(Debug)]
struct Probe {
    tensor: TensorId,
    shape: Vec<u64>,
    /// What each core holds.
    pieces: BTreeMap<CoreAddress, Vec<Piece>>,
    /// Captures of each core, in the order in which it reached the probe.
    captured: Mutex<BTreeMap<CoreAddress, Vec<Vec<Captured>>>>,
}

/// The probes of a run.
#[derive(Debug)]
pub struct Probes(Vec<Probe>);

impl Probes {
    /// For probes by name; `None` without any.
    ///
    /// # Errors
    /// Names of no probe, and malformed shards.
    pub fn new(
        program: &Program,
        names: &[Arc<str>],
        dims: &[i64],
    ) -> Result<Option<Self>, Diagnostic> {
        let mut probes = Vec::new();
        for name in names {
            let id = program.tensor(name);
            let id = id.filter(|id| program.tensors[*id].kind == TensorKind::Probe);
            let Some(id) = id else {
                let all = program.tensors.values();
                let all = all.filter(|decl| decl.kind == TensorKind::Probe);
                let all: Vec<&str> = all.map(|decl| &*decl.name).collect();
                let message = format!("the program has no probe @{name}");
                let found = Diagnostic::input(UNKNOWN_TENSOR, message);
                return Err(found.note(format!("it has {}", list(&all))));
            };
            let decl = &program.tensors[id];
            let shape = shape_of(decl, dims)?;
            let mut pieces: BTreeMap<CoreAddress, Vec<Piece>> = BTreeMap::new();
            walk(program, decl, &shape, dims, |piece| {
                let core = match piece.home {
                    Home::Sram(core) => Some(core),
                    Home::Dram { owner, .. } => owner,
                };
                let Some(core) = core else {
                    let message = format!("probe @{name} lies in DRAM that no core owns");
                    return Err(Diagnostic::input(UNKNOWN_TENSOR, message));
                };
                pieces.entry(core).or_default().push(piece.clone());
                Ok(())
            })?;
            probes.push(Probe {
                tensor: id,
                shape,
                pieces,
                captured: Mutex::default(),
            });
        }
        Ok((!probes.is_empty()).then_some(Self(probes)))
    }

    /// The values.
    ///
    /// # Errors
    /// Cores that hold the same element with different bits, and elements that no core holds.
    pub fn finish(self, program: &Program) -> Result<Vec<ProbeValues>, Diagnostic> {
        self.0
            .into_iter()
            .map(|probe| probe.finish(program))
            .collect()
    }
}

impl ProbeSink for Probes {
    fn capture(
        &self,
        probe: TensorId,
        core: CoreAddress,
        memory: &dyn ReadMemory,
    ) -> Result<(), Diagnostic> {
        for wanted in self.0.iter().filter(|wanted| wanted.tensor == probe) {
            let Some(pieces) = wanted.pieces.get(&core) else {
                continue;
            };
            let mut captured = Vec::new();
            for piece in pieces {
                let mut bytes = Vec::new();
                read_piece(memory, piece, &mut bytes)?;
                captured.push(Captured {
                    piece: piece.clone(),
                    bytes,
                });
            }
            let mut all = wanted
                .captured
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.entry(core).or_default().push(captured);
        }
        Ok(())
    }
}

impl Probe {
    fn finish(self, program: &Program) -> Result<ProbeValues, Diagnostic> {
        let decl = &program.tensors[self.tensor];
        let captured = self
            .captured
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let count = captured.values().map(Vec::len).max().unwrap_or(0);
        let mut values = Vec::new();
        for occurrence in 0..count {
            let mut assembly = Assembly::new(decl, self.shape.clone());
            for cores in captured.values() {
                for Captured { piece, bytes } in cores.get(occurrence).into_iter().flatten() {
                    assembly.add(program, decl, piece, bytes)?;
                }
            }
            values.push(assembly.finish(program, decl)?);
        }
        Ok((decl.name.clone(), values))
    }
}
