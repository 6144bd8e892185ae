//! The tiers of x86-64 and their detection.

mod avx2;
mod avx512;

pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;

use std::arch::x86_64::{__cpuid, CpuidResult};

use super::tier::Kernels;

/// Adds what this host can run, the slowest first.
pub(super) fn add_available(found: &mut Vec<&'static dyn Kernels>) {
    found.extend(avx2::detect());
    found.extend(avx512::detect(is_intel()));
}

/// Whether Intel made the processor.
fn is_intel() -> bool {
    let CpuidResult { ebx, ecx, edx, .. } = __cpuid(0);
    let name = [ebx, edx, ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"GenuineIntel"
}

/// The AVX-512 kernels as they would be on other hosts, for tests.
#[cfg(test)]
pub(super) fn avx512_variants() -> Vec<&'static dyn Kernels> {
    avx512::variants()
}
