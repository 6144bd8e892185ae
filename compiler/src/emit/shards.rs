//! Where the parts of a tensor that the host sees lie.

use std::ops::Range;

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::mesh::Storage;
use dojoc_ir::program::{Home, Packing, Shard};
use dojoc_ir::tiled::{Grid, GridId, Layout};

use super::Unsupported;
use super::exchange::plan::End;
use super::fit::fit;
use super::program::ProgramBuilder;
use crate::route::{Part, parts_of, refine};

/// Boxes of a block that runs over several dims of the tensor.
const MAX_BOXES: usize = 64;
/// Alignment of values, in bytes.
const ALIGNMENT: i64 = 64;

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
    for index in 0..grid.size() {
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
    let base = i64::try_from(storage.address).map_err(|_| Unsupported::overflow())?;
    let mut list = vec![];
    for number in 0..count {
        // Cores with fewer boxes have an empty one at the start of everything.
        let parts: Vec<Option<&Part>> = of_cores.iter().map(|parts| parts.get(number)).collect();
        let mut slice = vec![];
        let mut strides = vec![];
        for d in 0..shape.len() {
            let at = dims.iter().position(|dim| *dim == d);
            let of = |get: fn(&Part) -> &[u64], unit: u64| {
                let value = |part: &Option<&Part>| match (part, at) {
                    (Some(part), Some(at)) => i64::try_from(get(part)[at]),
                    (Some(_), None) => i64::try_from(unit),
                    (None, _) => Ok(0),
                };
                let values = parts.iter().map(value).collect::<Result<Vec<i64>, _>>();
                values.map_err(|_| Unsupported::overflow())
            };
            let (start, size) = (of(|part| &part.start, 0)?, of(|part| &part.size, 1)?);
            slice.push((fit(&start, &mut cx.tables), fit(&size, &mut cx.tables)));
            // A dim of one element needs no distance; this one suits all element types.
            strides.push(at.map_or(ALIGNMENT, |at| end.strides[at]));
        }
        let address = |(core, part): (usize, &Option<&Part>)| match part {
            Some(part) => end
                .offset((first + core) as u32, &part.start)?
                .checked_add(base),
            None => Some(base),
        };
        let addresses: Option<Vec<i64>> = parts.iter().enumerate().map(address).collect();
        let addresses = addresses.ok_or_else(Unsupported::overflow)?;
        list.push(Shard {
            home: Home::Sram {
                on,
                at: fit(&addresses, &mut cx.tables),
            },
            slice,
            strides,
            packing: Packing::Strided,
        });
    }
    Ok(list)
}
