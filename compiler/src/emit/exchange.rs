use super::Unsupported;
use super::program::ProgramBuilder;
use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::mesh::{Exchange, Storage};
use dojoc_ir::program::LocId;
use dojoc_ir::tiled::{Grid, GridId, Layout};
use dojoc_ir::types::DType;
pub fn scratch_bytes(
    _g: &PrimaryMap<GridId, Grid>,
    _e: &Exchange,
    _to: (&Layout, &Storage),
    _w: u64,
) -> Result<u64, Unsupported> {
    Ok(0)
}
pub fn emit_exchange(
    _cx: &mut ProgramBuilder,
    _g: &PrimaryMap<GridId, Grid>,
    _e: &Exchange,
    _from: (&Layout, &Storage),
    _to: (&Layout, &Storage),
    _d: DType,
    _s: u64,
    _l: Option<LocId>,
) -> Result<(), Unsupported> {
    Ok(())
}
