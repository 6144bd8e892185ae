//! The order in which logical cores take live sites.

use dojoc_ir::machine::{CoreAddress, Machine};

/// The live cores of a chip row by row, every other row backwards, so that neighbours in the order
/// are neighbours on the chip but for dead sites. `None` where there is no such chip.
pub fn snake(machine: &Machine, chip: u32) -> Option<Vec<CoreAddress>> {
    let mut cores = machine.live_cores(chip)?;
    // Stable: rows stay in order.
    cores.sort_by_key(|core| {
        let column = i64::from(core.column);
        (core.row, if core.row % 2 == 0 { column } else { -column })
    });
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_near() {
        let machine = Machine::parse(Machine::builtin("d1").unwrap(), "d1").unwrap();
        let cores = snake(&machine, 0).unwrap();
        assert_eq!(cores.len(), 354);
        let hops =
            |w: &[CoreAddress]| w[0].row.abs_diff(w[1].row) + w[0].column.abs_diff(w[1].column);
        assert!(cores.windows(2).all(|w| hops(w) <= 3));
        assert!(cores.windows(2).filter(|w| hops(w) == 1).count() > 340);
    }
}
