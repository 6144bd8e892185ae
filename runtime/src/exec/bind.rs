//! Compute instructions: from operands in SRAM to slices.

use std::sync::Arc;

use dojoc_ir::program::ViewType;

use super::block::{Block, PanelsAt};
use super::decode::{Compute, MAX_OPERANDS};
use super::fault::{Fault, unverified};
use super::sram::{Sram, is_alone};
use super::stream::Place;
use super::worker::{Kit, Worker};
use crate::compute::{self, Bytes, Cx, Layout, PanelCache, Source, Target};

/// The operand of a tile product that is kept in panels.
const PANELS_OF: usize = 2;

/// Where the bytes of a source are.
#[derive(Clone, Copy, Debug)]
enum Bound<'a> {
    /// No bytes.
    Empty,
    /// In a block, from this position on.
    Block(&'a Block, u32),
    /// In the block of the target, at this position.
    Beside(u32),
    /// They are those of the target.
    InPlace,
}

/// The block that a target is written to.
#[derive(Debug)]
struct Taken {
    block: Arc<Block>,
    /// Position of the target's lowest byte.
    at: u32,
    /// The slab it was taken from; a new slab is made of a fresh block.
    slab: Option<usize>,
}

impl<'a> Worker<'a> {
    /// Carries out a compute instruction.
    pub(super) fn compute(
        &mut self,
        core: u32,
        compute: &'a Compute,
        frame: &[i64],
        buffers: &[(u32, u32)],
    ) -> Result<(), Fault> {
        let mut places: [Option<Place<'a>>; MAX_OPERANDS] = [const { None }; MAX_OPERANDS];
        let count = compute.operands.len();
        for (place, operand) in places.iter_mut().zip(&compute.operands) {
            *place = Some(self.place(operand, frame, buffers)?);
        }
        let mut scalars = [0i64; 4];
        let scalars = match scalars.get_mut(..compute.scalars.len()) {
            Some(scalars) => scalars,
            None => return Err(unverified("an instruction has too many scalars")),
        };
        for (to, scalar) in scalars.iter_mut().zip(&compute.scalars) {
            *to = scalar.eval(frame)?;
        }
        let places = &places[..count];
        if compute.dynamic {
            let types: Vec<ViewType> = places
                .iter()
                .flatten()
                .map(|place| place.layout.view.clone())
                .collect();
            compute
                .instr
                .check(&types)
                .map_err(|what| unverified(&what))?;
        }
        if compute.matmul {
            let views = places.iter().flatten().map(|place| &place.layout.view);
            self.stats.flops += compute.instr.flops(views);
        }
        let sram = &mut self.cores[(core - self.first) as usize].sram;
        let options = self.shared.options;
        let mut run = Run {
            compute,
            places,
            scalars,
            options,
            kit: self.kit,
        };
        match run.bind(sram) {
            Some(result) => result,
            None => run.with_copies(sram),
        }
        .map_err(|fault| Fault::data(fault.message))
    }
}

/// An instruction with its operands.
struct Run<'r, 'a> {
    compute: &'a Compute,
    places: &'r [Option<Place<'a>>],
    scalars: &'r [i64],
    options: &'a crate::options::RunOptions,
    kit: &'r mut Kit,
}

impl<'a> Run<'_, 'a> {
    fn place(&self, operand: usize) -> Option<&Place<'a>> {
        self.places.get(operand)?.as_ref()
    }

    fn slab_of(&mut self, sram: &mut Sram, operand: usize) -> Option<usize> {
        let place = self.places.get(operand)?.as_ref()?;
        if place.len == 0 {
            return Some(0);
        }
        let interval = (place.start, place.len);
        Some(sram.place(interval, place.home, &mut self.kit.pool))
    }

    /// Runs the instruction on the bytes where they lie; `None` if they lie so that it cannot.
    fn bind(&mut self, sram: &mut Sram) -> Option<Result<(), compute::Fault>> {
        if self.compute.targets != 1 {
            return None;
        }
        // Making a slab may move or split others, so that all are looked up again behind it.
        for source in 1..self.places.len() {
            let place = self.place(source)?;
            if place.len > 0 && sram.find(place.start, place.len).is_err() {
                self.slab_of(sram, source)?;
            }
        }
        let taken = self.take_target(sram)?;
        let (target, mut taken) = (self.places[0].as_ref()?, taken);
        let mut bound = [Bound::Empty; MAX_OPERANDS];
        let mut whole = true;
        for (bound, place) in bound.iter_mut().zip(self.places).skip(1) {
            let Some(place) = place else { continue };
            if place.len == 0 {
                continue;
            }
            let Ok(slab) = sram.find(place.start, place.len) else {
                whole = false;
                continue;
            };
            let slab_state = sram.slab(slab);
            *bound = match &slab_state.block {
                Some(block) => Bound::Block(block, slab_state.position(place.start)),
                None if (place.start, place.len) == (target.start, target.len)
                    && (std::ptr::eq(&*place.layout, &*target.layout)
                        || *place.layout == *target.layout) =>
                {
                    Bound::InPlace
                }
                None => {
                    let behind = place.start >= target.start + target.len;
                    whole &= behind || place.start + place.len <= target.start;
                    Bound::Beside(slab_state.position(place.start))
                }
            };
        }
        let result = whole.then(|| self.execute(&bound, target, &mut taken));
        match taken.slab {
            Some(slab) => sram.slab_mut(slab).block = Some(taken.block),
            None if whole && target.len > 0 => {
                let piece = super::sram::Piece {
                    block: taken.block,
                    at: taken.at,
                    len: target.len,
                };
                sram.replace(target.start, piece, &mut self.kit.pool);
            }
            None => self.kit.pool.give(taken.block),
        }
        result
    }

    /// The block that the target is written to: its own, unless others share it and the instruction
    /// overwrites all of it.
    fn take_target(&mut self, sram: &mut Sram) -> Option<Taken> {
        let target = self.places[0].as_ref()?;
        let pool = &mut self.kit.pool;
        let size = target.layout.view.dtype.bytes() as usize;
        let overwrites =
            self.compute.overwrites[0] && target.layout.elements * size == target.len as usize;
        if overwrites {
            let exact = match sram.find(target.start, target.len) {
                Ok(slab) if sram.slab(slab).len == target.len => Some(slab),
                Ok(_) if target.len > 0 => None,
                _ => {
                    let (block, at) = Sram::fresh(target.start, target.len, pool);
                    let slab = None;
                    let inside_home = (target.start, target.len) == target.home;
                    if inside_home || target.len == 0 {
                        return Some(Taken { block, at, slab });
                    }
                    pool.give(block);
                    None
                }
            };
            if let Some(slab) = exact {
                let state = sram.slab_mut(slab);
                if !state.block.as_ref().is_some_and(is_alone) {
                    let (block, at) = Sram::fresh(target.start, target.len, pool);
                    return Some(Taken {
                        block,
                        at,
                        slab: None,
                    });
                }
                return Some(Taken {
                    at: state.at,
                    block: state.block.take()?,
                    slab: Some(slab),
                });
            }
        }
        if target.len == 0 {
            let (block, at) = Sram::fresh(target.start, 0, pool);
            return Some(Taken {
                block,
                at,
                slab: None,
            });
        }
        let slab = sram.place((target.start, target.len), target.home, pool);
        sram.own(slab, pool);
        let state = sram.slab_mut(slab);
        Some(Taken {
            at: state.position(target.start),
            block: state.block.take()?,
            slab: Some(slab),
        })
    }

    fn execute(
        &mut self,
        bound: &[Bound<'_>; MAX_OPERANDS],
        target: &Place<'a>,
        taken: &mut Taken,
    ) -> Result<(), compute::Fault> {
        let whole = Arc::get_mut(&mut taken.block).map_or(&mut [][..], Block::bytes_mut);
        let (before, rest) = whole.split_at_mut(taken.at as usize);
        let (bytes, behind) = rest.split_at_mut(target.len as usize);
        let end = taken.at + target.len;
        let panels = match bound[PANELS_OF] {
            Bound::Block(block, at) if self.compute.matmul => Some(PanelsAt {
                block,
                at,
                account: &self.kit.pool.account,
            }),
            _ => None,
        };
        let none = Source {
            layout: &target.layout,
            bytes: Bytes::InPlace,
            panels: None,
        };
        let mut sources = [none; MAX_OPERANDS];
        let count = self.places.len() - 1;
        for (i, source) in sources[..count].iter_mut().enumerate() {
            let operand = i + 1;
            let Some(place) = self.places.get(operand).and_then(Option::as_ref) else {
                continue;
            };
            let len = place.len as usize;
            source.layout = &place.layout;
            source.bytes = match bound[operand] {
                Bound::Empty => Bytes::Slice(&[]),
                Bound::InPlace => Bytes::InPlace,
                Bound::Block(block, at) => Bytes::Slice(&block.bytes()[at as usize..][..len]),
                Bound::Beside(at) if at < taken.at => Bytes::Slice(&before[at as usize..][..len]),
                Bound::Beside(at) => Bytes::Slice(&behind[(at - end) as usize..][..len]),
            };
            if operand == PANELS_OF {
                source.panels = panels.as_ref().map(|panels| panels as &dyn PanelCache);
            }
        }
        let mut targets = [Target {
            layout: &target.layout,
            bytes,
        }];
        let mut cx = Cx {
            kernels: self.options.kernels,
            scratch: &mut self.kit.scratch,
            seed: self.options.seed,
            step: self.options.step,
        };
        let (instr, sources) = (&self.compute.instr, &sources[..count]);
        let result = compute::execute(instr, &mut targets, sources, self.scalars, &mut cx);
        if panels.is_some() {
            self.kit.pool.over = self.kit.pool.account.exceeded();
        }
        result
    }

    /// Runs the instruction on copies of all operands.
    fn with_copies(&mut self, sram: &mut Sram) -> Result<(), compute::Fault> {
        let mut copies = std::mem::take(&mut self.kit.copies);
        for (place, copy) in self.places.iter().flatten().zip(&mut copies) {
            let len = place.len as usize;
            copy.resize(len.div_ceil(8), 0);
            let from = sram.read(place.start, place.len, &mut self.kit.bytes);
            bytemuck::cast_slice_mut::<_, u8>(copy)[..len].copy_from_slice(from);
        }
        let (written, read) = copies.split_at_mut(self.compute.targets);
        let (targets, sources) = self.places.split_at(self.compute.targets);
        let slice =
            |place: &Place<'_>, copy| &bytemuck::cast_slice::<u64, u8>(copy)[..place.len as usize];
        let sources: Vec<Source<'_>> = sources
            .iter()
            .flatten()
            .zip(read.iter())
            .map(|(place, copy)| Source {
                layout: &place.layout,
                bytes: Bytes::Slice(slice(place, copy)),
                panels: None,
            })
            .collect();
        let mut views: Vec<Target<'_>> = targets
            .iter()
            .flatten()
            .zip(written.iter_mut())
            .map(|(place, copy)| Target {
                layout: &place.layout as &Layout,
                bytes: &mut bytemuck::cast_slice_mut(copy)[..place.len as usize],
            })
            .collect();
        let mut cx = Cx {
            kernels: self.options.kernels,
            scratch: &mut self.kit.scratch,
            seed: self.options.seed,
            step: self.options.step,
        };
        let instr = &self.compute.instr;
        let result = compute::execute(instr, &mut views, &sources, self.scalars, &mut cx);
        for (place, copy) in targets.iter().flatten().zip(written.iter()) {
            if place.len > 0 {
                let interval = (place.start, place.len);
                let to = sram.write(interval, place.home, &mut self.kit.pool);
                to.copy_from_slice(slice(place, copy));
            }
        }
        self.kit.copies = copies;
        result
    }
}
