//! Where the parts of a tensor that the host sees lie.

use std::ops::Range;

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::mesh::Storage;
use dojoc_ir::program::{Home, MAX_VIEW_RANK, Packing, Shard};
use dojoc_ir::tiled::{Grid, GridId, Layout};

use super::Unsupported;
use super::exchange::plan::End;
use super::fit::fit;
use super::program::ProgramBuilder;
use crate::route::{Part, parts_of, refine};

/// Boxes of a block that runs over several dims of the tensor.
const MAX_BOXES: usize = 64;

/// The shards of a tensor of this shape that a layout distributes: one, or several where the layout
/// splits merged dims, so that a block is several boxes. Cores that hold the same block all have it,
/// or only the first of them where `replicas` is false.
///
/// # Errors
/// A packed layout, one that cuts dims of the tensor into factors, blocks of too many boxes, and
/// addresses beyond 64 bits.
pub fn shards(
    cx: &mut ProgramBuilder,
    grids: &PrimaryMap<GridId, Grid>,
    layout: &Layout,
    storage: &Storage,
    shape: &[u64],
    replicas: bool,
) -> Result<Vec<Shard>, Unsupported> {
    if shape.len() > MAX_VIEW_RANK {
        let rank = shape.len();
        let message = format!("a tensor of the host of {rank} dims, more than {MAX_VIEW_RANK}");
        return Err(Unsupported::new(message));
    }
    let dims: Vec<usize> = (0..shape.len()).filter(|d| shape[*d] != 1).collect();
    let extents: Vec<u64> = dims.iter().map(|d| shape[*d]).collect();
    if refine(&layout.view, shape).as_ref() != Some(&extents) {
        return Err(Unsupported::new(
            "a tensor of the host is cut into factors of its dims",
        ));
    }
    let end = End::new(grids, &extents, layout, storage)?;
    let grid = &grids[layout.grid];
    let unused = layout.replicated_axes(grid);
    let mut of_cores: Vec<Vec<Part>> = vec![];
    // A scalar has no dim along which a core could hold nothing.
    let holders = match shape.is_empty() && !replicas {
        true => 1,
        false => grid.size(),
    };
    for index in 0..holders {
        let coordinates = grid.coordinates(index);
        let is_first = unused.iter().all(|axis| coordinates[*axis] == 0);
        let block = match replicas || is_first {
            true => layout.block(grid, &coordinates),
            false => vec![Range::default(); layout.view.len().max(1)],
        };
        let parts = parts_of(&block, &layout.view, &extents, MAX_BOXES);
        of_cores.push(parts.ok_or_else(|| {
            Unsupported::new(format!(
                "a block of a tensor of the host is more than {MAX_BOXES} boxes"
            ))
        })?);
    }
    let first = usize::try_from(grid.first).map_err(|_| Unsupported::overflow())?;
    let on = cx.region(first, of_cores.len())?;
    let count = of_cores.iter().map(Vec::len).max().unwrap_or(0);
    let shard = |number: usize| {
        let part = |core: usize| of_cores[core].get(number);
        let cores = 0..of_cores.len();
        let of = |get: &dyn Fn(&Part) -> Option<i64>| -> Vec<Option<i64>> {
            cores.clone().map(|core| part(core).and_then(get)).collect()
        };
        let mut slice = vec![];
        let mut strides = vec![];
        for d in 0..shape.len() {
            let at = dims.iter().position(|dim| *dim == d);
            let start = of(&|part| at.map_or(Some(0), |at| i64::try_from(part.start[at]).ok()));
            let size = of(&|part| at.map_or(Some(1), |at| i64::try_from(part.size[at]).ok()));
            let size: Vec<i64> = size.into_iter().map(|size| size.unwrap_or(0)).collect();
            // A core without elements has its empty box at the beginning.
            let start: Vec<i64> = start.into_iter().map(|start| start.unwrap_or(0)).collect();
            slice.push((fit(&start, &mut cx.tables), fit(&size, &mut cx.tables)));
            strides.push(at.map_or(64, |at| end.strides[at]));
        }
        let address = |core: usize| {
            let offset = end.offset((first + core) as u32, &part(core)?.start)?;
            i64::try_from(storage.address).ok()?.checked_add(offset)
        };
        let base = i64::try_from(storage.address).unwrap_or(0);
        let addresses: Vec<i64> = cores
            .clone()
            .map(|core| address(core).unwrap_or(base))
            .collect();
        let at = fit(&addresses, &mut cx.tables);
        Shard {
            home: Home::Sram { on, at },
            slice,
            strides,
            packing: Packing::Strided,
        }
    };
    Ok((0..count).map(shard).collect())
}
