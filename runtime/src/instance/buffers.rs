//! Buffers that a run was asked for, copied while instructions write them.
//!
//! A buffer shares its bytes with others of the same call, which are in use before or after it. So
//! its content is not read at the end of a call: a copy of it grows with every write through it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::instr::Ref;
use dojoc_ir::program::{Env, Program};
use dojoc_ir::tensor::Tensor;

use super::ProbeValues;
use super::names::Selection;
use crate::codes::UNVERIFIED;
use crate::compute::Layout;
use crate::host::{ReadMemory, core_name, gather, scatter};

/// What a core wrote to a buffer.
#[derive(Debug, Default)]
struct Copies {
    /// The bytes of the buffer in the current call.
    current: Option<Vec<u8>>,
    /// Whether they are a value.
    written: bool,
    /// Those of a call that had no value, to be used again.
    spare: Option<Vec<u8>>,
    /// Values of calls that have ended.
    ended: Vec<Vec<u8>>,
}

impl Copies {
    /// The bytes of the current call, zeros at first, and how many of them are new.
    fn current(&mut self, len: usize) -> (&mut [u8], u64) {
        let mut more = 0;
        let spare = &mut self.spare;
        let current = self.current.get_or_insert_with(|| match spare.take() {
            Some(mut bytes) => {
                bytes.fill(0);
                bytes
            }
            None => {
                more = len as u64;
                vec![0; len]
            }
        });
        (current, more)
    }

    fn end(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        match std::mem::take(&mut self.written) {
            true => self.ended.push(current),
            false => self.spare = Some(current),
        }
    }
}

/// A buffer that was asked for.
#[derive(Debug)]
pub struct Watched {
    name: Arc<str>,
    /// The buffer and the statements that count.
    pub of: Selection,
    layout: Layout,
    live_in: bool,
    copies: Mutex<BTreeMap<CoreAddress, Copies>>,
}

impl Watched {
    /// For a buffer that `name` was given for.
    ///
    /// # Errors
    /// A buffer that is too large.
    pub fn new(program: &Program, name: Arc<str>, of: Selection) -> Result<Self, Diagnostic> {
        let buffer = &program.segments[of.segment].buffers[of.buffer];
        let layout = buffer.view_type().and_then(Layout::new);
        Ok(Self {
            layout: layout.ok_or_else(|| outside(program, &of))?,
            live_in: buffer.role.live_in(),
            name,
            of,
            copies: Mutex::default(),
        })
    }

    fn with<T>(&self, core: CoreAddress, f: impl FnOnce(&mut Copies) -> T) -> T {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        f(copies.entry(core).or_default())
    }

    /// A call begins: a buffer that holds content from before it has that first. Gives the bytes
    /// that are newly held.
    ///
    /// # Errors
    /// Addresses that cannot be computed, and what `memory` returns.
    pub fn begin(
        &self,
        program: &Program,
        core: CoreAddress,
        env: &Env<'_>,
        memory: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic> {
        if !self.live_in {
            return Ok(0);
        }
        let whole = Ref::Buffer(self.of.buffer);
        let written = self.of.whole;
        self.copy(program, core, whole, env, memory, written)
    }

    /// A statement has written an operand. Gives the bytes that are newly held.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn wrote(
        &self,
        program: &Program,
        core: CoreAddress,
        operand: Ref,
        env: &Env<'_>,
        memory: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic> {
        self.copy(program, core, operand, env, memory, true)
    }

    fn copy(
        &self,
        program: &Program,
        core: CoreAddress,
        operand: Ref,
        env: &Env<'_>,
        memory: &dyn ReadMemory,
        written: bool,
    ) -> Result<u64, Diagnostic> {
        let outside = || outside(program, &self.of).note(format!("on {}", core_name(core)));
        let segment = &program.segments[self.of.segment];
        let start = segment.buffers[self.of.buffer].at.eval(env);
        let (at, view) = segment.resolve(operand, env).ok_or_else(outside)?;
        let layout = Layout::new(view).ok_or_else(outside)?;
        let first = start.and_then(|start| at.checked_sub(start)?.checked_add(layout.low));
        let first = first.and_then(|first| usize::try_from(first).ok());
        let end = first.and_then(|first| first.checked_add(layout.span));
        let (Some(first), Some(end), Ok(at)) = (first, end, u64::try_from(at)) else {
            return Err(outside());
        };
        if end > self.layout.span {
            return Err(outside());
        }
        let mut dense = vec![0; layout.elements * layout.size()];
        memory.read(core, at, &layout, &mut dense)?;
        Ok(self.with(core, |copies| {
            let (bytes, more) = copies.current(self.layout.span);
            scatter(&layout, &dense, &mut bytes[first..end]);
            copies.written |= written;
            more
        }))
    }

    /// A call has ended.
    pub fn end(&self, core: CoreAddress) {
        self.with(core, Copies::end);
    }

    /// The values of each core that has any, in the order of the cores.
    pub fn finish(self, program: &Program) -> Result<Vec<ProbeValues>, Diagnostic> {
        let copies = self
            .copies
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let view = &self.layout.view;
        let tensor = |bytes: Vec<u8>| {
            let mut dense = vec![0; self.layout.elements * self.layout.size()];
            gather(&self.layout, &bytes, &mut dense);
            Tensor::from_bytes(view.dtype, &view.shape, Bytes::from(dense))
                .map_err(|found| outside(program, &self.of).note(found.to_string()))
        };
        let with_values = copies.into_iter().filter(|(_, of)| !of.ended.is_empty());
        let values = with_values.map(|(core, copies)| {
            Ok(ProbeValues {
                name: self.name.clone(),
                core: Some(core),
                values: copies
                    .ended
                    .into_iter()
                    .map(tensor)
                    .collect::<Result<_, Diagnostic>>()?,
            })
        });
        values.collect()
    }
}

/// An error of programs that the verifier refuses.
fn outside(program: &Program, of: &Selection) -> Diagnostic {
    let segment = &program.segments[of.segment];
    let buffer = &segment.buffers[of.buffer].name;
    let message = format!(
        "a view of buffer %{buffer} of segment @{} leaves it",
        segment.name
    );
    Diagnostic::input(UNVERIFIED, message)
}
