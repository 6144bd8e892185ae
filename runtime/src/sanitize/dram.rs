//! DRAM regions: instances and their epochs.

use std::collections::{BTreeMap, HashMap};

use dojoc_ir::codes::BAD_DRAM;
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{DramId, Packing, Program, ViewType};

use super::Where;
use super::channel::Here;
use super::launch::{Progress, Run, Wait};
use super::memory::{Access, Memory};
use super::operand::Operand;
use super::report::{conflict, fault, note};
use super::shadow::Mark;
use crate::compute::Layout;

/// Who has an instance open.
type Opened = (CoreAddress, Mark);

/// An instance during a run.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The region.
    pub dram: DramId,
    /// Index of the owner.
    pub index: u64,
    /// Who may write.
    pub owner: Option<CoreAddress>,
    /// Epochs published.
    published: u64,
    /// Releases of the last one.
    released: u32,
    /// The `dram.begin` since which it is written.
    writing: Option<Opened>,
    /// Epochs that each core has acquired, and the `dram.acquire` that it has not released.
    readers: BTreeMap<CoreAddress, (u64, Option<Mark>)>,
}

/// The instances of a run, made when they are first used.
#[derive(Debug, Default)]
pub struct Instances {
    positions: HashMap<(DramId, u64), usize>,
    /// All of them.
    pub all: Vec<Instance>,
}

impl Instances {
    /// Checks that no instance is left open.
    ///
    /// # Errors
    /// The first that is.
    pub fn check_ended(&self, program: &Program) -> Result<(), Diagnostic> {
        for instance in &self.all {
            if let Some((core, begin)) = &instance.writing {
                let what = "the run ends before `dram.commit`";
                return Err(fault(program, *core, begin, BAD_DRAM, what));
            }
            for (core, (_, open)) in &instance.readers {
                if let Some(acquire) = open {
                    let what = "the run ends before `dram.release`";
                    return Err(fault(program, *core, acquire, BAD_DRAM, what));
                }
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    fn bad_dram(&self, here: &Here, what: &str) -> Diagnostic {
        fault(self.program, here.core, &here.mark, BAD_DRAM, what)
    }

    /// The position of an instance.
    pub fn instance(
        &mut self,
        here: &Here,
        dram: DramId,
        owner: Option<i64>,
    ) -> Result<usize, Diagnostic> {
        let region = &self.program.dram[dram];
        let (index, owner) = match region.owners {
            None => (0, None),
            Some(owners) => {
                let index = owner.and_then(|o| u64::try_from(o).ok());
                let core = index.and_then(|i| self.program.regions[owners].get(i));
                match index.zip(core) {
                    Some((index, core)) => (index, Some(core)),
                    None => {
                        let what = format!("@{} has no such owner", region.name);
                        return Err(self.bad_dram(here, &what));
                    }
                }
            }
        };
        let instances = &mut self.instances;
        let next = instances.all.len();
        let position = *instances.positions.entry((dram, index)).or_insert(next);
        if position == next {
            instances.all.push(Instance {
                dram,
                index,
                owner,
                published: 0,
                released: 0,
                writing: None,
                readers: BTreeMap::new(),
            });
        }
        Ok(position)
    }

    /// The instance that this core owns.
    pub fn own_instance(&mut self, here: &Here, dram: DramId) -> Result<usize, Diagnostic> {
        let region = &self.program.dram[dram];
        let owners = region.owners.map(|owners| &self.program.regions[owners]);
        match owners.and_then(|owners| owners.position(here.core)) {
            Some(index) => self.instance(here, dram, Some(index as i64)),
            None => {
                let what = format!("the core does not own an instance of @{}", region.name);
                Err(self.bad_dram(here, &what))
            }
        }
    }

    /// `dram.begin`
    pub fn begin(&mut self, here: &Here, dram: DramId) -> Result<Progress, Diagnostic> {
        let at = self.own_instance(here, dram)?;
        let readers = self.program.dram[dram].readers;
        let instance = &mut self.instances.all[at];
        if let Some((core, begin)) = instance.writing {
            let found = self.bad_dram(here, "the instance is being written already");
            return Err(found.note(note(self.program, core, &begin, "since")));
        }
        if instance.published > 0 && instance.released < readers {
            return Ok(Progress::Waits(Wait::Readers(at)));
        }
        instance.writing = Some((here.core, here.mark));
        Ok(Progress::Done)
    }

    /// `dram.commit`
    pub fn commit(&mut self, here: &Here, dram: DramId) -> Result<Progress, Diagnostic> {
        let at = self.own_instance(here, dram)?;
        let instance = &mut self.instances.all[at];
        if instance.writing.take().is_none() {
            return Err(self.bad_dram(here, "no `dram.begin` precedes"));
        }
        instance.published += 1;
        instance.released = 0;
        self.wake(Wait::Epoch(at));
        Ok(Progress::Done)
    }

    /// `dram.acquire`
    pub fn acquire(
        &mut self,
        here: &Here,
        dram: DramId,
        owner: Option<i64>,
    ) -> Result<Progress, Diagnostic> {
        let at = self.instance(here, dram, owner)?;
        let instance = &mut self.instances.all[at];
        let published = instance.published;
        let (epoch, open) = instance.readers.entry(here.core).or_default();
        if let Some(acquire) = *open {
            let found = self.bad_dram(here, "the core has acquired the instance already");
            return Err(found.note(note(self.program, here.core, &acquire, "by")));
        }
        if published <= *epoch {
            return Ok(Progress::Waits(Wait::Epoch(at)));
        }
        *epoch += 1;
        *open = Some(here.mark);
        Ok(Progress::Done)
    }

    /// `dram.release`
    pub fn release(
        &mut self,
        here: &Here,
        dram: DramId,
        owner: Option<i64>,
    ) -> Result<Progress, Diagnostic> {
        let at = self.instance(here, dram, owner)?;
        let readers = self.program.dram[dram].readers;
        let instance = &mut self.instances.all[at];
        let open = instance.readers.get_mut(&here.core);
        if open.and_then(|(_, open)| open.take()).is_none() {
            return Err(self.bad_dram(here, "no `dram.acquire` of this core precedes"));
        }
        instance.released += 1;
        if instance.released > readers {
            let what = format!("more releases of an epoch than the {readers} readers declared");
            return Err(self.bad_dram(here, &what));
        }
        if instance.released == readers {
            self.wake(Wait::Readers(at));
        }
        Ok(Progress::Done)
    }

    /// The layout of a view in DRAM, within the instance.
    fn dram_layout(
        &self,
        here: &Here,
        dram: DramId,
        offset: Option<i64>,
        strides: &[i64],
        operand: &Operand,
    ) -> Result<(u64, Layout), Diagnostic> {
        let view = &operand.layout.view;
        let region = &self.program.dram[dram];
        let layout = (strides.len() == view.shape.len())
            .then(|| {
                Layout::new(ViewType {
                    dtype: view.dtype,
                    shape: view.shape.clone(),
                    strides: strides.to_vec(),
                    packing: Packing::Strided,
                })
            })
            .flatten();
        let at = offset.and_then(|offset| u64::try_from(offset).ok());
        if let Some((at, layout)) = at.zip(layout) {
            let low = at.checked_add_signed(layout.low);
            let end = low.and_then(|low| low.checked_add(layout.span as u64));
            if end.is_some_and(|end| end <= region.bytes) {
                return Ok((at, layout));
            }
        }
        let what = format!(
            "a view of extents {:?} at {offset:?} with strides {strides:?} reaches outside the {} \
             bytes of @{}",
            view.shape, region.bytes, region.name
        );
        Err(self.bad_dram(here, &what))
    }

    /// `dram.load`
    pub fn load(
        &mut self,
        here: &Here,
        at: usize,
        (offset, strides): (Option<i64>, &[i64]),
        to: &Operand,
        access: &Access,
    ) -> Result<Progress, Diagnostic> {
        let instance = &self.instances.all[at];
        let (dram, index) = (instance.dram, instance.index);
        let own = instance.owner == Some(here.core);
        let reader = instance.readers.get(&here.core);
        let held = reader.is_some_and(|(_, open)| open.is_some());
        if !own && !held && instance.owner.is_some() {
            let what = "loads from an instance that the core has not acquired";
            return Err(self.bad_dram(here, what));
        }
        let (from, layout) = self.dram_layout(here, dram, offset, strides, to)?;
        let place = Where::Dram(dram, index);
        let end = Memory::needed(from, &layout);
        let memory = self.image.grown(place, end, self.max_bytes)?;
        let found = match own {
            // Streams of the owner are ordered by tokens.
            true => memory.read(from, &layout, access),
            // Others by epochs.
            false => memory.undefined(from, &layout).map_or(Ok(()), Err),
        };
        let data = memory.dense(from, &layout);
        found
            .map_err(|found| conflict(self.program, here.core, &here.mark, "DRAM", place, found))?;
        self.check_write(here, to, access)?;
        self.sram(here.core, to)?
            .set_dense(to.at, &to.layout, &data);
        self.stats.dram_bytes += data.len() as u64;
        Ok(Progress::Done)
    }

    /// `dram.store`
    pub fn store(
        &mut self,
        here: &Here,
        at: usize,
        (offset, strides): (Option<i64>, &[i64]),
        from: &Operand,
        access: &Access,
    ) -> Result<Progress, Diagnostic> {
        let instance = &self.instances.all[at];
        let (dram, index) = (instance.dram, instance.index);
        if instance.writing.is_none() {
            return Err(self.bad_dram(here, "stores outside `dram.begin` and `dram.commit`"));
        }
        let (to, layout) = self.dram_layout(here, dram, offset, strides, from)?;
        self.check_read(here, from, access)?;
        let data = self.sram(here.core, from)?.dense(from.at, &from.layout);
        let place = Where::Dram(dram, index);
        let end = Memory::needed(to, &layout);
        let memory = self.image.grown(place, end, self.max_bytes)?;
        let found = memory.write(to, &layout, access);
        memory.set_dense(to, &layout, &data);
        found
            .map_err(|found| conflict(self.program, here.core, &here.mark, "DRAM", place, found))?;
        self.stats.dram_bytes += data.len() as u64;
        Ok(Progress::Done)
    }
}
