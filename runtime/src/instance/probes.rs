//! Values of probes, collected core by core while a program runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use dojoc_ir::diag::Diagnostic;
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::instr::Ref;
use dojoc_ir::program::{EntryId, Env, Program, SegmentId, TensorId, TensorKind};
use dojoc_ir::tensor::Tensor;

use super::ProbeValues;
use super::buffers::Watched;
use super::names::{Named, resolve};
use crate::codes::UNKNOWN_TENSOR;
use crate::host::{
    Assembly, Home, Piece, ProbeSink, ReadMemory, Statement, read_piece, shape_of, walk,
};

/// A piece of a probe that a core captured.
#[derive(Debug)]
struct Captured {
    piece: Piece,
    bytes: Vec<u8>,
}

/// A declared probe that was asked for.
#[derive(Debug)]
struct Declared {
    tensor: TensorId,
    shape: Vec<u64>,
    /// What each core holds.
    pieces: BTreeMap<CoreAddress, Vec<Piece>>,
    /// Captures of each core, in the order in which it reached the probe.
    captured: Mutex<BTreeMap<CoreAddress, Vec<Vec<Captured>>>>,
}

/// A tensor that was asked for.
#[derive(Debug)]
enum Wanted {
    Probe(Declared),
    /// An input or output, under the name that it was asked for.
    Port(TensorId, Arc<str>),
}

/// The probes of a run.
#[derive(Debug)]
pub struct Probes<'a> {
    program: &'a Program,
    declared: Vec<Wanted>,
    buffers: Vec<Watched>,
    /// Buffers of each segment.
    segments: HashMap<SegmentId, Vec<usize>>,
    /// What statements write of buffers.
    writes: HashMap<Statement, Vec<(usize, Ref)>>,
}

impl<'a> Probes<'a> {
    /// For probes by name; `None` without any.
    ///
    /// # Errors
    /// Names of nothing in the entry, and malformed shards.
    pub fn new(
        program: &'a Program,
        entry: EntryId,
        names: &[Arc<str>],
        dims: &[i64],
    ) -> Result<Option<Self>, Diagnostic> {
        if names.is_empty() {
            return Ok(None);
        }
        let mut probes = Self {
            program,
            declared: Vec::new(),
            buffers: Vec::new(),
            segments: HashMap::new(),
            writes: HashMap::new(),
        };
        for name in names {
            match resolve(program, entry, name)? {
                Named::Tensors(found) => {
                    for id in found {
                        let decl = &program.tensors[id];
                        match decl.kind {
                            TensorKind::Probe => {
                                let declared = Declared::new(program, id, dims)?;
                                probes.declared.push(Wanted::Probe(declared));
                            }
                            // It is there under this name anyway.
                            TensorKind::Output if decl.name == *name => {}
                            _ => probes.declared.push(Wanted::Port(id, name.clone())),
                        }
                    }
                }
                Named::Buffers(found) => {
                    let several = found.len() > 1;
                    for selection in found {
                        let segment = &program.segments[selection.segment];
                        let buffer = &segment.buffers[selection.buffer];
                        let name = match several {
                            true => format!("{name}:{}.{}", segment.name, buffer.name).into(),
                            false => name.clone(),
                        };
                        probes.watch(Watched::new(program, name, selection)?);
                    }
                }
            }
        }
        Ok(Some(probes))
    }

    fn watch(&mut self, buffer: Watched) {
        let index = self.buffers.len();
        let of = &buffer.of;
        self.segments.entry(of.segment).or_default().push(index);
        for (stream, at, operand) in &of.writes {
            let statement = Statement {
                segment: of.segment,
                stream: *stream,
                at: *at,
            };
            let writes = self.writes.entry(statement).or_default();
            writes.push((index, *operand));
        }
        self.buffers.push(buffer);
    }

    /// The buffers of a segment.
    fn of(&self, segment: SegmentId) -> impl Iterator<Item = &Watched> {
        let found = self.segments.get(&segment).into_iter().flatten();
        found.map(|index| &self.buffers[*index])
    }

    /// The values: tensors in the order in which they were asked for, then buffers, each by core.
    /// `port` gives inputs and outputs.
    ///
    /// # Errors
    /// Cores that hold the same element of a declared probe with different bits, and elements that
    /// no core holds.
    pub fn finish(
        self,
        port: impl Fn(TensorId) -> Option<Tensor>,
    ) -> Result<Vec<ProbeValues>, Diagnostic> {
        let mut values = Vec::new();
        for wanted in self.declared {
            values.push(match wanted {
                Wanted::Probe(probe) => probe.finish(self.program)?,
                Wanted::Port(id, name) => ProbeValues {
                    name,
                    core: None,
                    values: port(id).into_iter().collect(),
                },
            });
        }
        for buffer in self.buffers {
            values.extend(buffer.finish(self.program)?);
        }
        Ok(values)
    }
}

impl ProbeSink for Probes<'_> {
    fn capture(
        &self,
        probe: TensorId,
        core: CoreAddress,
        memory: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic> {
        let mut held = 0;
        for wanted in &self.declared {
            if let Wanted::Probe(wanted) = wanted
                && wanted.tensor == probe
            {
                held += wanted.capture(core, memory)?;
            }
        }
        Ok(held)
    }

    fn follows(&self, segment: SegmentId) -> bool {
        self.segments.contains_key(&segment)
    }

    fn begin_call(
        &self,
        segment: SegmentId,
        core: CoreAddress,
        env: &Env<'_>,
        memory: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic> {
        let mut held = 0;
        for buffer in self.of(segment) {
            held += buffer.begin(self.program, core, env, memory)?;
        }
        Ok(held)
    }

    fn done(
        &self,
        statement: Statement,
        core: CoreAddress,
        env: &Env<'_>,
        memory: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic> {
        let mut held = 0;
        for (buffer, operand) in self.writes.get(&statement).into_iter().flatten() {
            let buffer = &self.buffers[*buffer];
            held += buffer.wrote(self.program, core, *operand, env, memory)?;
        }
        Ok(held)
    }

    fn end_call(&self, segment: SegmentId, core: CoreAddress) {
        self.of(segment).for_each(|buffer| buffer.end(core));
    }
}

impl Declared {
    fn new(program: &Program, tensor: TensorId, dims: &[i64]) -> Result<Self, Diagnostic> {
        let decl = &program.tensors[tensor];
        let shape = shape_of(decl, dims)?;
        let mut pieces: BTreeMap<CoreAddress, Vec<Piece>> = BTreeMap::new();
        walk(program, decl, &shape, dims, |piece| {
            let core = match piece.home {
                Home::Sram(core) => Some(core),
                Home::Dram { owner, .. } => owner,
            };
            let Some(core) = core else {
                let message = format!("probe @{} lies in DRAM that no core owns", decl.name);
                return Err(Diagnostic::input(UNKNOWN_TENSOR, message));
            };
            pieces.entry(core).or_default().push(piece.clone());
            Ok(())
        })?;
        Ok(Self {
            tensor,
            shape,
            pieces,
            captured: Mutex::default(),
        })
    }

    /// Reads what a core holds. Gives the bytes of that.
    fn capture(&self, core: CoreAddress, memory: &dyn ReadMemory) -> Result<u64, Diagnostic> {
        let Some(pieces) = self.pieces.get(&core) else {
            return Ok(0);
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
        let held = captured.iter().map(|c| c.bytes.len() as u64).sum();
        let mut all = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(core).or_default().push(captured);
        Ok(held)
    }

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
        Ok(ProbeValues {
            name: decl.name.clone(),
            core: None,
            values,
        })
    }
}
