//! The sanitizer: a second executor, independent of the fast one, simple and slow.
//!
//! It is the reference for what a program means. Every core has its bytes in one array, messages
//! are copied, statements are carried out one at a time in any order that the rules allow (a random
//! one with [`RunOptions::shuffle`]), and arithmetic is that of the scalar kernels.
//!
//! Beside every byte stands what is known about it: whether it has a meaning, which statement of
//! the current call wrote and read it through which buffer, with the clocks of the streams, and
//! whether the network or the host owns it. So these are found when they happen, with both places:
//! reads of bytes without meaning, buffers that overlap while both are in use, accesses of two
//! streams that no token orders, uses of posted slots, messages that do not fit their slots,
//! tokens and slots left over at the end of a call, DRAM accesses outside an epoch, views outside
//! their buffers, and deadlock.
//!
//! It needs nothing but a program of sound structure, and can therefore show what an unverified
//! program does wrong.

mod channel;
mod deadlock;
mod dram;
mod launch;
mod memory;
mod operand;
mod report;
mod shadow;
mod step;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dojoc_ir::codes::{BAD_DRAM, SRAM_EXCEEDED};
use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind};
use dojoc_ir::machine::{CoreAddress, Machine};
use dojoc_ir::program::{DramId, EntryId, Program};

use crate::codes::MEMORY_LIMIT;
use crate::compute::Layout;
use crate::host::{Engine, Keep, Memory as HostMemory, ProbeSink, ReadMemory};
use crate::options::{RunOptions, Stats};
use memory::Memory;

/// The memories of a machine.
#[derive(Clone, Debug, Default)]
struct Image {
    cores: BTreeMap<CoreAddress, Memory>,
    dram: BTreeMap<(DramId, u64), Memory>,
    allocated: u64,
}

/// A place in one of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Where {
    Sram(CoreAddress),
    Dram(DramId, u64),
}

impl Image {
    fn get(&self, place: Where) -> Option<&Memory> {
        match place {
            Where::Sram(core) => self.cores.get(&core),
            Where::Dram(dram, instance) => self.dram.get(&(dram, instance)),
        }
    }

    /// The memory at a place, with at least `end` bytes.
    fn grown(&mut self, place: Where, end: u64, limit: u64) -> Result<&mut Memory, Diagnostic> {
        let memory = match place {
            Where::Sram(core) => self.cores.entry(core).or_default(),
            Where::Dram(dram, instance) => self.dram.entry((dram, instance)).or_default(),
        };
        let more = end.saturating_sub(memory.allocated());
        charge(&mut self.allocated, more, limit)?;
        memory.grow(end);
        Ok(memory)
    }

    /// Counts further bytes that are held.
    fn charge(&mut self, bytes: u64, limit: u64) -> Result<(), Diagnostic> {
        charge(&mut self.allocated, bytes, limit)
    }
}

fn charge(allocated: &mut u64, bytes: u64, limit: u64) -> Result<(), Diagnostic> {
    *allocated = allocated.saturating_add(bytes);
    if *allocated <= limit {
        return Ok(());
    }
    let message = format!("the program's memory exceeds the limit of {limit} bytes");
    Err(Diagnostic::new(MEMORY_LIMIT, Kind::Limit, message))
}

/// The executor. See the [module](self).
#[derive(Debug)]
pub struct Sanitizer {
    program: Arc<Program>,
    sram_bytes: u64,
    max_bytes: u64,
    /// Weights and states between runs.
    kept: Image,
    /// Everything during a run.
    run: Option<Image>,
}

impl Sanitizer {
    /// For a program of sound structure (see `ir`'s `verify::structure`). At most `max_bytes` of the
    /// program's memory are allocated outside of runs.
    pub fn new(program: Arc<Program>, machine: &Machine, max_bytes: u64) -> Self {
        Self {
            program,
            sram_bytes: machine.core_sram_bytes(),
            max_bytes,
            kept: Image::default(),
            run: None,
        }
    }

    fn image(&self) -> &Image {
        self.run.as_ref().unwrap_or(&self.kept)
    }

    /// Checks that a view lies in the memory of a place.
    fn check(&self, place: Where, at: u64, layout: &Layout) -> Result<(), Diagnostic> {
        let low = at.checked_add_signed(layout.low);
        let end = low.and_then(|low| low.checked_add(layout.span as u64));
        let (limit, code, name) = match place {
            Where::Sram(core) => (self.sram_bytes, SRAM_EXCEEDED, crate::host::core_name(core)),
            Where::Dram(dram, instance) => {
                let bytes = self.program.dram.get(dram).map_or(0, |d| d.bytes);
                (bytes, BAD_DRAM, format!("instance {instance}"))
            }
        };
        if end.is_some_and(|end| end <= limit) {
            return Ok(());
        }
        let message = format!(
            "the host's {} bytes at {at} do not fit the {limit} bytes of {name}",
            layout.span
        );
        Err(Diagnostic::input(code, message))
    }

    fn host_read(
        &self,
        place: Where,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic> {
        self.check(place, at, layout)?;
        read_defined(&self.program, self.image(), place, at, layout, out)
    }

    fn host_write(
        &mut self,
        place: Where,
        at: u64,
        layout: &Layout,
        data: &Bytes,
        keep: Keep,
    ) -> Result<(), Diagnostic> {
        self.check(place, at, layout)?;
        let end = Memory::needed(at, layout);
        let limit = self.max_bytes;
        let image = self.run.as_mut().unwrap_or(&mut self.kept);
        let memory = image.grown(place, end, limit)?;
        memory.host_write(at, layout, data, keep);
        Ok(())
    }
}

/// Reads a view of which all bytes must have a meaning.
fn read_defined(
    program: &Program,
    image: &Image,
    place: Where,
    at: u64,
    layout: &Layout,
    out: &mut [u8],
) -> Result<(), Diagnostic> {
    let nothing = Memory::default();
    let memory = image.get(place).unwrap_or(&nothing);
    if let Some(found) = memory.undefined(at, layout) {
        return Err(report::host_reads(program, place, found));
    }
    if memory.allocated() < Memory::needed(at, layout) {
        // Without elements nothing need be there.
        return Ok(());
    }
    out.copy_from_slice(&memory.dense(at, layout));
    Ok(())
}

impl ReadMemory for Sanitizer {
    fn read(
        &self,
        core: CoreAddress,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic> {
        self.host_read(Where::Sram(core), at, layout, out)
    }

    fn read_dram(
        &self,
        dram: DramId,
        instance: u64,
        at: u64,
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<(), Diagnostic> {
        self.host_read(Where::Dram(dram, instance), at, layout, out)
    }
}

impl HostMemory for Sanitizer {
    fn write(
        &mut self,
        core: CoreAddress,
        at: u64,
        layout: &Layout,
        data: &Bytes,
        keep: Keep,
    ) -> Result<(), Diagnostic> {
        self.host_write(Where::Sram(core), at, layout, data, keep)
    }

    fn write_dram(
        &mut self,
        dram: DramId,
        instance: u64,
        at: u64,
        layout: &Layout,
        data: &Bytes,
        keep: Keep,
    ) -> Result<(), Diagnostic> {
        self.host_write(Where::Dram(dram, instance), at, layout, data, keep)
    }
}

impl Engine for Sanitizer {
    fn begin(&mut self, options: &RunOptions) {
        self.max_bytes = options.max_bytes;
        self.run = Some(self.kept.clone());
    }

    fn run(
        &mut self,
        entry: EntryId,
        dims: &[i64],
        options: &RunOptions,
        probes: Option<&dyn ProbeSink>,
    ) -> Result<Stats, Diagnostics> {
        let mut image = self.run.take().unwrap_or_else(|| self.kept.clone());
        let program = self.program.clone();
        let result = launch::run(
            &program,
            self.sram_bytes,
            &mut image,
            entry,
            dims,
            options,
            probes,
        );
        self.run = Some(image);
        result.map_err(Diagnostics::from)
    }

    fn end(&mut self, keep: bool) {
        let Some(run) = self.run.take() else { return };
        if !keep {
            return;
        }
        for (core, memory) in &mut self.kept.cores {
            if let Some(run) = run.cores.get(core) {
                memory.keep_states(run);
            }
        }
        for (instance, memory) in &mut self.kept.dram {
            if let Some(run) = run.dram.get(instance) {
                memory.keep_states(run);
            }
        }
    }
}
