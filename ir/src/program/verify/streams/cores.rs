//! Classes of cores for which an entry does the same.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

use super::summaries::{Resolved, Summaries};
use crate::machine::CoreAddress;
use crate::program::{
    Coordinate, Home, IndexEnv, IndexExpr, IndexNode, Program, RegionId, Shard, TensorId,
};

/// The cores of the regions that were asked for, numbered.
#[derive(Default)]
pub(super) struct Cores {
    /// By number.
    pub(super) addresses: Vec<CoreAddress>,
    numbers: HashMap<CoreAddress, u32>,
    regions: BTreeMap<RegionId, Vec<u32>>,
}

impl Cores {
    /// Numbers of the cores of a region, in its order.
    fn region(&mut self, program: &Program, region: RegionId) -> &[u32] {
        let Self {
            addresses,
            numbers,
            regions,
        } = self;
        regions.entry(region).or_insert_with(|| {
            let cores = program.regions[region].cores();
            cores
                .map(|core| {
                    *numbers.entry(core).or_insert_with(|| {
                        addresses.push(core);
                        addresses.len() as u32 - 1
                    })
                })
                .collect()
        })
    }
}

/// A partition of cores, refined step by step.
pub(super) struct Partition<'p> {
    program: &'p Program,
    dims: &'p [i64],
    class: Vec<u32>,
    classes: u32,
    /// Refinements that are done, by parts of expressions, and those by shards, by what of them depends on
    /// the core.
    done: BTreeSet<(RegionId, Vec<IndexExpr>)>,
    shards: HashSet<(RegionId, Vec<&'p IndexExpr>)>,
    /// Calls by which the partition is refined already.
    resolved: BTreeSet<u32>,
}

/// A class by one of its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class {
    /// The first member.
    pub(super) core: CoreAddress,
    /// How many there are.
    pub(super) members: u64,
}

impl<'p> Partition<'p> {
    /// All cores in one class.
    pub(super) fn new(program: &'p Program, dims: &'p [i64]) -> Self {
        Self {
            program,
            dims,
            class: Vec::new(),
            classes: 1,
            done: BTreeSet::new(),
            shards: HashSet::new(),
            resolved: BTreeSet::new(),
        }
    }

    /// Parts cores of a region from all others, and from those of the region for which one of the
    /// expressions has another value in any repetition. Returns how many evaluations that took.
    pub(super) fn refine<'e>(
        &mut self,
        cores: &mut Cores,
        on: RegionId,
        exprs: impl Iterator<Item = &'e IndexExpr>,
    ) -> u64 {
        let mut parts = Vec::new();
        for expr in exprs {
            core_parts(expr, &mut parts);
        }
        parts.sort();
        parts.dedup();
        if !self.done.insert((on, parts.clone())) {
            return 1;
        }
        let (program, dims) = (self.program, self.dims);
        self.split(cores, on, |index, core| {
            let env = IndexEnv::of_core(index, core, &[], dims);
            let values = parts.iter().map(|part| part.eval(&env, &program.tables));
            values.collect::<Vec<_>>()
        });
        self.program.regions[on].len() * (parts.len() as u64 + 1)
    }

    /// The same by the effects of a call and where it has its bytes.
    pub(super) fn refine_by_call(
        &mut self,
        cores: &mut Cores,
        on: RegionId,
        call: &Resolved,
        summaries: &Summaries<'_>,
    ) -> u64 {
        if !self.resolved.insert(call.table) {
            return 1;
        }
        self.split(cores, on, |index, _| {
            let found = summaries.on_core(call, index);
            found.map(|(number, there)| (summaries.effect(number), there))
        });
        self.program.regions[on].len()
    }

    /// Parts cores of a region from all others, and from those with another value.
    fn split<V: Eq + Hash>(
        &mut self,
        cores: &mut Cores,
        on: RegionId,
        value: impl Fn(u64, CoreAddress) -> V,
    ) {
        let numbers = cores.region(self.program, on).to_vec();
        self.class.resize(cores.addresses.len(), 0);
        let mut known: HashMap<(u32, V), u32> = HashMap::new();
        for (number, index) in numbers.into_iter().zip(0..) {
            let value = value(index, cores.addresses[number as usize]);
            let class = &mut self.class[number as usize];
            let classes = &mut self.classes;
            *class = *known.entry((*class, value)).or_insert_with(|| {
                *classes += 1;
                *classes - 1
            });
        }
    }

    /// The same for the place and size of a shard.
    pub(super) fn refine_by_shard(&mut self, cores: &mut Cores, shard: &'p Shard) -> u64 {
        match &shard.home {
            Home::Sram { on, at } => {
                let exprs = shard.slice.iter().map(|(_, size)| size).chain([at]);
                let exprs = exprs.filter(|expr| expr.depends_on_core());
                let exprs: Vec<&IndexExpr> = exprs.collect();
                match self.shards.insert((*on, exprs.clone())) {
                    true => self.refine(cores, *on, exprs.into_iter()),
                    false => 1,
                }
            }
            Home::Dram { .. } => 0,
        }
    }

    /// The classes, in order of their first members.
    pub(super) fn classes(mut self, cores: &Cores) -> Vec<Class> {
        self.class.resize(cores.addresses.len(), 0);
        let mut places: Vec<Option<u32>> = vec![None; self.classes as usize];
        let mut list: Vec<Class> = Vec::new();
        for (core, class) in cores.addresses.iter().zip(&self.class) {
            match places[*class as usize] {
                Some(place) => list[place as usize].members += 1,
                None => {
                    places[*class as usize] = Some(list.len() as u32);
                    list.push(Class {
                        core: *core,
                        members: 1,
                    });
                }
            }
        }
        list
    }
}

/// The operands of a node.
fn operands(node: IndexNode) -> [Option<u32>; 2] {
    match node {
        IndexNode::Const(_) | IndexNode::Coordinate(_) => [None, None],
        IndexNode::Add(a, b)
        | IndexNode::Sub(a, b)
        | IndexNode::Mul(a, b)
        | IndexNode::Div(a, b)
        | IndexNode::Mod(a, b)
        | IndexNode::Min(a, b)
        | IndexNode::Max(a, b) => [Some(a), Some(b)],
        IndexNode::Table(_, a) => [Some(a), None],
    }
}

/// Appends the largest parts of an expression that depend on the core but on no repeat: cores
/// for which they are equal have the same value in every repetition.
fn core_parts(expr: &IndexExpr, parts: &mut Vec<IndexExpr>) {
    let count = expr.nodes.len();
    let (mut core, mut repeat) = (vec![false; count], vec![false; count]);
    for (at, node) in expr.nodes.iter().enumerate() {
        if let IndexNode::Coordinate(coordinate) = node {
            repeat[at] = matches!(coordinate, Coordinate::Repeat(_));
            core[at] = !repeat[at] && !matches!(coordinate, Coordinate::Dim(_));
        }
        for operand in operands(*node).into_iter().flatten() {
            core[at] |= core[operand as usize];
            repeat[at] |= repeat[operand as usize];
        }
    }
    // Operands precede their users, so one walk from the root down visits every wanted node once.
    let mut wanted = vec![false; count];
    wanted[count - 1] = true;
    for at in (0..count).rev().filter(|at| core[*at]) {
        if !wanted[at] {
            continue;
        }
        if repeat[at] {
            for operand in operands(expr.nodes[at]).into_iter().flatten() {
                wanted[operand as usize] = true;
            }
        } else {
            parts.push(part(expr, at));
        }
    }
}

/// The value of a node as an expression of its own.
fn part(expr: &IndexExpr, root: usize) -> IndexExpr {
    let mut wanted = vec![false; root + 1];
    wanted[root] = true;
    for at in (0..=root).rev() {
        for operand in operands(expr.nodes[at]).into_iter().flatten() {
            wanted[operand as usize] |= wanted[at];
        }
    }
    let mut places = vec![0; root + 1];
    let mut nodes = Vec::new();
    for at in (0..=root).filter(|at| wanted[*at]) {
        let place = |x: u32| places[x as usize];
        let node = match expr.nodes[at] {
            node @ (IndexNode::Const(_) | IndexNode::Coordinate(_)) => node,
            IndexNode::Add(a, b) => IndexNode::Add(place(a), place(b)),
            IndexNode::Sub(a, b) => IndexNode::Sub(place(a), place(b)),
            IndexNode::Mul(a, b) => IndexNode::Mul(place(a), place(b)),
            IndexNode::Div(a, b) => IndexNode::Div(place(a), place(b)),
            IndexNode::Mod(a, b) => IndexNode::Mod(place(a), place(b)),
            IndexNode::Min(a, b) => IndexNode::Min(place(a), place(b)),
            IndexNode::Max(a, b) => IndexNode::Max(place(a), place(b)),
            IndexNode::Table(table, a) => IndexNode::Table(table, place(a)),
        };
        places[at] = nodes.len() as u32;
        nodes.push(node);
    }
    IndexExpr { nodes }
}

/// The shards of a tensor that lie in SRAM, with region and address.
pub(super) fn sram_shards(
    program: &Program,
    tensor: TensorId,
) -> impl Iterator<Item = (&Shard, RegionId, &IndexExpr)> {
    let shards = program.tensors[tensor].shards.iter();
    shards.filter_map(|shard| match &shard.home {
        Home::Sram { on, at } => Some((shard, *on, at)),
        Home::Dram { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_leave_repeats_out() {
        let i = IndexExpr::coordinate(Coordinate::Index);
        let row = IndexExpr::coordinate(Coordinate::Row);
        let repeat = IndexExpr::coordinate(Coordinate::Repeat(0));
        let double = IndexExpr::binary(IndexNode::Mul, &i, &IndexExpr::constant(2));
        let product = IndexExpr::binary(IndexNode::Mul, &double, &repeat);
        let sum = IndexExpr::binary(IndexNode::Add, &product, &row);
        let sum = IndexExpr::binary(IndexNode::Max, &repeat, &sum);
        let mut parts = Vec::new();
        core_parts(&sum, &mut parts);
        assert_eq!(parts.len(), 2);
        let env = IndexEnv {
            index: 21,
            row: 5,
            ..IndexEnv::default()
        };
        let values: Vec<_> = parts
            .iter()
            .map(|part| part.eval(&env, &Default::default()))
            .collect();
        assert_eq!(values, [Some(5), Some(42)]);
        parts.clear();
        core_parts(&repeat, &mut parts);
        assert!(parts.is_empty());
    }
}
