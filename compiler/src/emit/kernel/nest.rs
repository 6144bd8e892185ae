//! Strided places of values over the loops of a block, and nests of instructions over them.

use dojoc_ir::access;
use dojoc_ir::program::instr::Instr;
use dojoc_ir::program::{Affine, BufferId, LocId, MAX_VIEW_RANK, Packing, Unit};
use dojoc_ir::types::DType;

use super::{BlockDim, Local};
use crate::emit::Unsupported;
use crate::emit::builder::{SegmentBuilder, Window};

/// Where the value of each point of a block lies: at `offset` plus, per loop, counter times step.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Place {
    pub buffer: BufferId,
    pub dtype: DType,
    /// Byte of the block's first point, from the start of the buffer.
    pub offset: Affine,
    /// Bytes from one iteration of a loop to the next, for each loop of the block.
    pub steps: Vec<i64>,
}

/// A loop, or several that act as one, with the steps of some places.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Axis {
    pub count: Affine,
    pub max: u64,
    pub steps: Vec<i64>,
}

/// What emission of a block shares.
pub(super) struct Cx<'a> {
    pub seg: &'a mut SegmentBuilder,
    pub block: &'a [BlockDim],
    pub loc: Option<LocId>,
}

pub(super) fn sum(a: &Affine, b: &Affine) -> Result<Affine, Unsupported> {
    a.add(b).ok_or_else(Unsupported::overflow)
}

pub(super) fn scaled(a: &Affine, by: i64) -> Result<Affine, Unsupported> {
    a.scale(by).ok_or_else(Unsupported::overflow)
}

pub(super) fn product(a: i64, b: i64) -> Result<i64, Unsupported> {
    a.checked_mul(b).ok_or_else(Unsupported::overflow)
}

pub(super) fn signed(value: u64) -> Result<i64, Unsupported> {
    i64::try_from(value).map_err(|_| Unsupported::overflow())
}

pub(super) fn size(dtype: DType) -> i64 {
    dtype.bytes() as i64
}

impl Place {
    /// Where the index maps of an operand or result lead in its local box.
    pub fn of(
        index: &[access::Affine],
        local: &Local,
        block: &[BlockDim],
    ) -> Result<Self, Unsupported> {
        let mut place = Self {
            buffer: local.buffer,
            dtype: local.dtype,
            offset: local.offset.clone(),
            steps: vec![0; block.len()],
        };
        if index.len() != local.strides.len() {
            let (maps, strides) = (index.len(), local.strides.len());
            let message = format!("{maps} index maps for {strides} strides of an operand");
            return Err(Unsupported::new(message));
        }
        for (map, stride) in index.iter().zip(&local.strides) {
            for (dim, coefficient) in &map.terms {
                let step = product(*stride, *coefficient)?;
                place.steps[*dim] = place.steps[*dim]
                    .checked_add(step)
                    .ok_or_else(Unsupported::overflow)?;
                if *coefficient < 0 && block[*dim].count.as_constant() != Some(0) {
                    // The last iteration is at element 0 of the box.
                    let last = sum(&block[*dim].count, &Affine::constant(-1))?;
                    let back =
                        scaled(&last, step.checked_neg().ok_or_else(Unsupported::overflow)?)?;
                    place.offset = sum(&place.offset, &back)?;
                }
            }
        }
        Ok(place)
    }

    /// Whether the value differs between iterations of a loop.
    pub fn varies(&self, dim: usize) -> bool {
        self.steps[dim] != 0
    }
}

impl Axis {
    /// Whether there is always exactly one iteration.
    pub fn is_one(&self) -> bool {
        self.count.as_constant() == Some(1)
    }

    /// An axis of one iteration.
    pub fn one(places: usize) -> Self {
        Self {
            count: Affine::constant(1),
            max: 1,
            steps: vec![0; places],
        }
    }
}

/// The axes of some loops of a block, without those of one iteration.
pub(super) fn axes(block: &[BlockDim], dims: &[usize], places: &[&Place]) -> Vec<Axis> {
    dims.iter()
        .map(|dim| Axis {
            count: block[*dim].count.clone(),
            max: block[*dim].max,
            steps: places.iter().map(|place| place.steps[*dim]).collect(),
        })
        .filter(|axis| !axis.is_one())
        .collect()
}

/// Makes one axis of neighbours that all places step through as through one.
pub(super) fn merged(axes: Vec<Axis>) -> Vec<Axis> {
    let mut merged: Vec<Axis> = Vec::with_capacity(axes.len());
    for axis in axes {
        if let Some(outer) = merged.last_mut()
            && let Some(joined) = join(outer, &axis)
        {
            *outer = joined;
            continue;
        }
        merged.push(axis);
    }
    merged
}

fn join(outer: &Axis, inner: &Axis) -> Option<Axis> {
    let count = inner.count.as_constant()?;
    let mut steps = outer.steps.iter().zip(&inner.steps);
    let fits = steps.all(|(outer, inner)| inner.checked_mul(count) == Some(*outer));
    fits.then_some(Axis {
        count: outer.count.scale(count)?,
        max: outer.max.checked_mul(inner.max)?,
        steps: inner.steps.clone(),
    })
}

/// Takes the axes of fewest iterations away until `room` are left; returns what was taken.
pub(super) fn spill(axes: &mut Vec<Axis>, room: usize) -> Vec<Axis> {
    let mut taken = Vec::new();
    while axes.len() > room {
        let least = (0..axes.len()).min_by_key(|at| axes[*at].max).unwrap_or(0);
        taken.push(axes.remove(least));
    }
    taken
}

/// A window of a place over axes; `which` of their steps is the place's.
pub(super) fn window(place: &Place, offset: &Affine, axes: &[Axis], which: usize) -> Window {
    Window {
        buffer: place.buffer,
        offset: offset.clone(),
        dtype: place.dtype,
        shape: axes.iter().map(|axis| axis.count.clone()).collect(),
        strides: axes.iter().map(|axis| axis.steps[which]).collect(),
        packing: Packing::Strided,
    }
}

/// Emits what is inside of loops, for the offsets of places there.
pub(super) type Body<'f> = dyn FnMut(&mut Cx<'_>, &[Affine]) -> Result<(), Unsupported> + 'f;

impl Cx<'_> {
    /// Emits loops over axes, and in the innermost what `body` emits with the offsets of the places.
    pub fn nest(
        &mut self,
        unit: Unit,
        loops: &[Axis],
        offsets: Vec<Affine>,
        body: &mut Body<'_>,
    ) -> Result<(), Unsupported> {
        let Some((outer, inner)) = loops.split_first() else {
            return body(self, &offsets);
        };
        let (block, loc) = (self.block, self.loc);
        self.seg
            .repeat(unit, outer.count.clone(), loc, |seg, counter| {
                let mut cx = Cx { seg, block, loc };
                let moved = offsets.iter().zip(&outer.steps);
                let moved =
                    moved.map(|(offset, step)| sum(offset, &scaled(&Affine::var(counter), *step)?));
                let moved = moved.collect::<Result<Vec<Affine>, Unsupported>>()?;
                cx.nest(unit, inner, moved, body)
            })
    }

    /// Emits an instruction whose operands all have the extents of the loops `dims`, the first of
    /// them being written.
    pub fn pointwise(
        &mut self,
        instr: impl Into<Instr>,
        places: &[&Place],
        dims: &[usize],
    ) -> Result<(), Unsupported> {
        let mut all = axes(self.block, dims, places);
        // In the order in which the result lies.
        all.sort_by_key(|axis| std::cmp::Reverse(axis.steps[0].unsigned_abs()));
        self.over(instr.into(), places, merged(all))
    }

    /// Emits an instruction whose operands all have these axes, with loops for those beyond the
    /// rank of views.
    pub fn over(
        &mut self,
        instr: Instr,
        places: &[&Place],
        mut axes: Vec<Axis>,
    ) -> Result<(), Unsupported> {
        let loops = spill(&mut axes, MAX_VIEW_RANK);
        if axes.is_empty() {
            axes.push(Axis::one(places.len()));
        }
        let offsets = places.iter().map(|place| place.offset.clone()).collect();
        self.nest(Unit::Vector, &loops, offsets, &mut |cx, offsets| {
            let windows = places.iter().zip(offsets).enumerate();
            let windows =
                windows.map(|(which, (place, offset))| window(place, offset, &axes, which));
            let windows: Vec<Window> = windows.collect();
            let loc = cx.loc;
            cx.seg
                .compute(Unit::Vector, instr.clone(), &windows, Vec::new(), loc);
            Ok(())
        })
    }

    /// A new scratch buffer that holds a value for each point of some loops, densely for the largest
    /// block.
    pub fn scratch(
        &mut self,
        name: &str,
        dtype: DType,
        dims: &[usize],
    ) -> Result<Place, Unsupported> {
        let mut steps = vec![0; self.block.len()];
        let mut step = size(dtype);
        let mut shape = Vec::new();
        for dim in dims.iter().rev() {
            let max = self.block[*dim].max;
            if max != 1 {
                steps[*dim] = step;
            }
            step = product(step, signed(max.max(1))?)?;
            shape.push(max);
        }
        let elements = shape.iter().product::<u64>().max(1);
        let buffer = self.seg.scratch(name, dtype, &[elements]);
        let offset = Affine::constant(0);
        Ok(Place {
            buffer,
            dtype,
            offset,
            steps,
        })
    }

    /// All loops of the block.
    pub fn all_dims(&self) -> Vec<usize> {
        (0..self.block.len()).collect()
    }
}
