//! Which sites have a live core.

use std::collections::BTreeSet;

use super::{CoreAddress, Machine};
use crate::formats::random_bits;

impl Machine {
    /// Sites of `chip` without a live core, as (row, column); `None` where there is no such chip.
    ///
    /// The list of the machine file where it has one for the chip. Else a mask drawn from
    /// `harvest.seed`: a sample without replacement of `rows * columns - enabled` sites by R. Floyd's
    /// algorithm (J. Bentley, "Programming pearls: a sample of brilliance", CACM 30(9), 1987), whose
    /// i-th draw is `random_bits(seed, 0, chip, i)` scaled to the range by multiplication. Real maps
    /// are not public, so the mask says nothing about where defects are (confidence P).
    pub fn dead_sites(&self, chip: u32) -> Option<BTreeSet<(u32, u32)>> {
        if u64::from(chip) >= self.chips() {
            return None;
        }
        if let Some(listed) = self.explicit_defects.get(&chip) {
            return Some(listed.clone());
        }
        let sites = self.sites_per_chip();
        let columns = u64::from(self.noc.columns.value);
        let mut dead = BTreeSet::new();
        for (draw, last) in (u64::from(self.noc.enabled.value)..sites).enumerate() {
            let bits = random_bits(self.harvest.seed.value, 0, chip.into(), draw as u64);
            let pick = (u64::from(bits) * (last + 1)) >> 32;
            let site = |i: u64| ((i / columns) as u32, (i % columns) as u32);
            if !dead.insert(site(pick)) {
                dead.insert(site(last));
            }
        }
        Some(dead)
    }

    /// The live cores of `chip` in row-major order; `None` where there is no such chip.
    pub fn live_cores(&self, chip: u32) -> Option<Vec<CoreAddress>> {
        let dead = self.dead_sites(chip)?;
        let (rows, columns) = (self.noc.rows.value, self.noc.columns.value);
        let all = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        Some(
            all.filter(|site| !dead.contains(site))
                .map(|(row, column)| CoreAddress { chip, row, column })
                .collect(),
        )
    }

    /// Whether there is a live core at `address`; false outside the machine. Draws the chip's mask
    /// each time: for many questions about one chip, ask [`Machine::dead_sites`] once.
    pub fn is_live(&self, address: CoreAddress) -> bool {
        address.row < self.noc.rows.value
            && address.column < self.noc.columns.value
            && self
                .dead_sites(address.chip)
                .is_some_and(|dead| !dead.contains(&(address.row, address.column)))
    }
}
