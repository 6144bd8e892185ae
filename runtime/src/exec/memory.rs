//! Host access to memory.

use dojoc_ir::diag::Diagnostic;
use dojoc_ir::program::DramId;

use super::dram::Dram;
use super::fault::unverified;
use super::sram::Sram;
use crate::compute::Layout;
use crate::host::gather;

/// The interval of SRAM that a layout covers from its first element on.
///
/// # Errors
/// Where it leaves the SRAM.
pub(super) fn sram_interval(
    bytes: u32,
    at: u64,
    layout: &Layout,
) -> Result<(u32, u32), Diagnostic> {
    let start = i64::try_from(at)
        .ok()
        .and_then(|at| at.checked_add(layout.low));
    let start = start.and_then(|start| u64::try_from(start).ok());
    let end = start.and_then(|start| start.checked_add(layout.span as u64));
    match (start, end) {
        (Some(start), Some(end)) if end <= u64::from(bytes) => {
            Ok((start as u32, layout.span as u32))
        }
        _ => Err(unverified("a tensor leaves the SRAM").diagnostic()),
    }
}

/// First byte of a layout in an instance of a DRAM region.
pub(super) fn dram_start(at: u64, layout: &Layout) -> Result<u64, Diagnostic> {
    let start = i64::try_from(at)
        .ok()
        .and_then(|at| at.checked_add(layout.low));
    let start = start.and_then(|start| u64::try_from(start).ok());
    start.ok_or_else(|| unverified("a tensor leaves its DRAM region").diagnostic())
}

pub(super) fn read_sram(
    sram: &Sram,
    bytes: u32,
    at: u64,
    layout: &Layout,
    out: &mut [u8],
) -> Result<(), Diagnostic> {
    let (start, len) = sram_interval(bytes, at, layout)?;
    let mut spare = Vec::new();
    gather(layout, sram.read(start, len, &mut spare), out);
    Ok(())
}

pub(super) fn read_dram(
    dram: &Dram,
    (region, instance): (DramId, u64),
    at: u64,
    layout: &Layout,
    out: &mut [u8],
) -> Result<(), Diagnostic> {
    let start = dram_start(at, layout)?;
    let interval = (start, layout.span as u64);
    let bank = dram.bank(region, instance, interval);
    let bank = bank.map_err(|fault| fault.diagnostic())?;
    let mut image = vec![0; layout.span];
    bank.read(start, &mut image);
    gather(layout, &image, out);
    Ok(())
}
