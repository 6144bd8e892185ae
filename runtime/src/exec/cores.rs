//! Which cores there are, and what each of them runs.

use std::collections::HashMap;
use std::sync::OnceLock;

use dojoc_ir::entity::EntityId;
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{Entry, Home, Program, RegionId, Step};

use super::fault::{Fault, unverified};

/// More sites than any machine has.
const MAX_SITES: u64 = 1 << 26;

/// The cores of all regions of a program, numbered in order of chip, row, column.
#[derive(Debug)]
pub(super) struct CoreMap {
    first: CoreAddress,
    rows: u32,
    columns: u32,
    /// The number of the core of each site of the box around all regions.
    numbers: Vec<u32>,
    addresses: Vec<CoreAddress>,
    /// By region, for those of many boxes: the index of each core.
    indices: Vec<OnceLock<Vec<u32>>>,
}

const NONE: u32 = u32::MAX;

/// Regions of more boxes than this get a table.
const FEW_BOXES: usize = 4;

impl CoreMap {
    pub(super) fn new(program: &Program) -> Result<Self, Fault> {
        let large = || unverified("the regions have more cores than any machine");
        let total = program
            .regions
            .values()
            .fold(0u64, |sum, region| sum.saturating_add(region.len()));
        if total > MAX_SITES {
            return Err(large());
        }
        let cores = || program.regions.values().flat_map(|region| region.cores());
        let zero = CoreAddress {
            chip: 0,
            row: 0,
            column: 0,
        };
        let (mut low, mut high) = (cores().next().unwrap_or(zero), zero);
        for core in cores() {
            low.chip = low.chip.min(core.chip);
            low.row = low.row.min(core.row);
            low.column = low.column.min(core.column);
            high.chip = high.chip.max(core.chip);
            high.row = high.row.max(core.row);
            high.column = high.column.max(core.column);
        }
        let extent = |low: u32, high: u32| u64::from(high) - u64::from(low) + 1;
        let (rows, columns) = (extent(low.row, high.row), extent(low.column, high.column));
        let sites = extent(low.chip, high.chip)
            .saturating_mul(rows)
            .saturating_mul(columns);
        if sites > MAX_SITES {
            return Err(large());
        }
        let mut map = Self {
            first: low,
            rows: rows as u32,
            columns: columns as u32,
            numbers: vec![NONE; sites as usize],
            addresses: Vec::new(),
            indices: program.regions.ids().map(|_| OnceLock::new()).collect(),
        };
        for core in cores() {
            if let Some(site) = map.site(core) {
                map.numbers[site] = 0;
            }
        }
        let count = map.numbers.iter().filter(|number| **number == 0).count();
        map.addresses.reserve_exact(count);
        for site in 0..map.numbers.len() {
            if map.numbers[site] == 0 {
                map.numbers[site] = map.addresses.len() as u32;
                map.addresses.push(map.address_of_site(site as u32));
            }
        }
        Ok(map)
    }

    fn site(&self, core: CoreAddress) -> Option<usize> {
        let chip = u64::from(core.chip.checked_sub(self.first.chip)?);
        let row = core.row.checked_sub(self.first.row)?;
        let column = core.column.checked_sub(self.first.column)?;
        if row >= self.rows || column >= self.columns {
            return None;
        }
        let row = chip * u64::from(self.rows) + u64::from(row);
        let site = row * u64::from(self.columns) + u64::from(column);
        usize::try_from(site)
            .ok()
            .filter(|site| *site < self.numbers.len())
    }

    fn address_of_site(&self, site: u32) -> CoreAddress {
        CoreAddress {
            chip: self.first.chip + site / self.columns / self.rows,
            row: self.first.row + site / self.columns % self.rows,
            column: self.first.column + site % self.columns,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The number of a core.
    pub(super) fn number(&self, core: CoreAddress) -> Option<u32> {
        let number = self.numbers[self.site(core)?];
        (number != NONE).then_some(number)
    }

    pub(super) fn address(&self, number: u32) -> CoreAddress {
        self.addresses[number as usize]
    }

    /// The index of a core in a region.
    pub(super) fn index(&self, program: &Program, region: RegionId, number: u32) -> Option<u64> {
        let cores = program.regions.get(region)?;
        if cores.boxes.len() <= FEW_BOXES {
            return cores.position(self.address(number));
        }
        let table = self.indices[region.index()].get_or_init(|| {
            let mut table = vec![NONE; self.len()];
            for (index, core) in cores.cores().enumerate() {
                if let Some(number) = self.number(core)
                    && let entry = &mut table[number as usize]
                    && *entry == NONE
                {
                    *entry = index as u32;
                }
            }
            table
        });
        let index = table[number as usize];
        (index != NONE).then_some(u64::from(index))
    }
}

/// A step of the schedule of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoleStep {
    /// The call at this step of the entry.
    Call(u32),
    /// The steps up to `end`, so many times.
    Repeat { count: u64, end: u32 },
    /// The probe at this step of the entry.
    Probe(u32),
}

/// What the cores of an entry run: cores that belong to the same regions have one *role*, and a
/// role has the steps that concern it.
#[derive(Debug)]
pub(super) struct Roles {
    /// By core.
    pub of: Vec<u32>,
    pub steps: Vec<Vec<RoleStep>>,
}

/// The regions that a step concerns.
fn regions_of(program: &Program, step: &Step, out: &mut Vec<RegionId>) {
    out.clear();
    match step {
        Step::Call { on, .. } => out.push(*on),
        Step::Repeat { .. } => {}
        Step::Probe(tensor) => {
            let shards = program.tensors.get(*tensor).into_iter();
            for shard in shards.flat_map(|tensor| &tensor.shards) {
                match &shard.home {
                    Home::Sram { on, .. } => out.push(*on),
                    Home::Dram { dram, .. } => {
                        out.extend(program.dram.get(*dram).and_then(|dram| dram.owners));
                    }
                }
            }
        }
    }
}

impl Roles {
    pub(super) fn new(program: &Program, map: &CoreMap, entry: &Entry) -> Result<Self, Fault> {
        let mut all: Vec<RegionId> = Vec::new();
        let mut regions = Vec::new();
        for step in &entry.steps {
            regions_of(program, step, &mut regions);
            all.extend(&regions);
        }
        all.sort_unstable();
        all.dedup();
        // A role is refined by every region: role and region give the next role.
        let mut of = vec![0u32; map.len()];
        let mut members: Vec<Vec<RegionId>> = vec![Vec::new()];
        for region in all {
            let cores = program.regions.get(region);
            let cores = cores.ok_or_else(|| unverified("a step names no region"))?;
            let mut refined: HashMap<u32, u32> = HashMap::new();
            for number in cores.cores().filter_map(|core| map.number(core)) {
                let role = &mut of[number as usize];
                if members[*role as usize].last() == Some(&region) {
                    continue;
                }
                *role = *refined.entry(*role).or_insert_with(|| {
                    let mut regions = members[*role as usize].clone();
                    regions.push(region);
                    members.push(regions);
                    members.len() as u32 - 1
                });
            }
        }
        let steps = members
            .iter()
            .map(|regions| steps_of(program, entry, regions));
        Ok(Self {
            steps: steps.collect::<Result<_, _>>()?,
            of,
        })
    }
}

/// The steps that concern cores of these regions, which are ascending.
fn steps_of(
    program: &Program,
    entry: &Entry,
    regions: &[RegionId],
) -> Result<Vec<RoleStep>, Fault> {
    let mut steps: Vec<RoleStep> = Vec::new();
    // Of every open repeat, where it is and the step behind its body.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut concerned = Vec::new();
    for at in 0..=entry.steps.len() {
        while let Some((start, behind)) = open.last().copied()
            && behind <= at
        {
            open.pop();
            let end_at = steps.len();
            match &mut steps[start] {
                RoleStep::Repeat { count, end } if end_at > start + 1 && *count > 0 => {
                    *end = end_at as u32;
                }
                _ => steps.truncate(start),
            }
        }
        let Some(step) = entry.steps.get(at) else {
            break;
        };
        if let Step::Repeat { count, len, .. } = step {
            let behind = at + 1 + *len as usize;
            if behind > open.last().map_or(entry.steps.len(), |(_, behind)| *behind) {
                return Err(unverified("repeats are not well nested"));
            }
            open.push((steps.len(), behind));
            steps.push(RoleStep::Repeat {
                count: *count,
                end: 0,
            });
            continue;
        }
        regions_of(program, step, &mut concerned);
        if concerned
            .iter()
            .any(|region| regions.binary_search(region).is_ok())
        {
            steps.push(match step {
                Step::Probe(_) => RoleStep::Probe(at as u32),
                _ => RoleStep::Call(at as u32),
            });
        }
    }
    Ok(steps)
}
