//! Which loops of a nest a tile product takes, in which roles.

use dojoc_ir::program::MAX_VIEW_RANK;
use dojoc_ir::types::DType;

use super::super::BlockDim;
use super::super::nest::{Axis, Place, axes, merged, size};
use super::fetch::{self, BLOCK, Side, count};

/// Lanes of the SIMD unit, which multiplies f32.
const LANES: f64 = 16.0;
/// Cycles that an instruction takes beside its work, about: start, latency, results.
const START: f64 = 60.0;

/// How a nest is made of tile products. All axes have the steps of A, B and C.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Plan {
    /// A is the second operand of the nest.
    pub swapped: bool,
    /// Loops around the instruction, outermost first.
    pub loops: Vec<Axis>,
    /// Some of the loops are summed over: C accumulates.
    pub sums: bool,
    pub m: Vec<Axis>,
    /// What is summed over, as A has it.
    pub k_of_a: Vec<Axis>,
    /// The same in the same order, as B has it.
    pub k_of_b: Vec<Axis>,
    pub n: Axis,
    pub transpose_a: bool,
    pub transpose_b: bool,
    /// A is rearranged in scratch memory first, into blocks if the matrix unit takes it.
    pub pack_a: bool,
    /// B is.
    pub pack_b: bool,
    /// Cycles, about; for a choice between plans.
    pub cost: f64,
}

/// Loops by their roles, with the steps of A, B and C.
struct Roles {
    batch: Vec<Axis>,
    m: Vec<Axis>,
    n: Vec<Axis>,
    k: Vec<Axis>,
    dtypes: [DType; 2],
    narrow: bool,
    swapped: bool,
    limit: f64,
}

impl Plan {
    /// The plan of least cost for the places of both operands and the result; `narrow` if the
    /// matrix unit takes the operands (bf16), `limit` the bytes of the
    /// largest operand that may be rearranged.
    pub fn best(
        block: &[BlockDim],
        kept: &[usize],
        summed: &[usize],
        [a, b, c]: [&Place; 3],
        (narrow, limit): (bool, u64),
    ) -> Option<Self> {
        let plans = [[a, b, c], [b, a, c]].into_iter().zip([false, true]);
        let plans = plans.flat_map(|(places, swapped)| {
            let roles = Roles {
                narrow,
                swapped,
                limit: limit as f64,
                ..Roles::of(block, kept, summed, places)
            };
            (0..=roles.k.len())
                .filter_map(|outside| roles.plan(outside))
                .collect::<Vec<Plan>>()
        });
        plans.min_by(|x, y| x.cost.total_cmp(&y.cost))
    }
}

impl Roles {
    fn of(block: &[BlockDim], kept: &[usize], summed: &[usize], places: [&Place; 3]) -> Self {
        let mut roles = Self {
            batch: Vec::new(),
            m: Vec::new(),
            n: Vec::new(),
            k: axes(block, summed, &places),
            dtypes: [places[0].dtype, places[1].dtype],
            narrow: false,
            swapped: false,
            limit: 0.0,
        };
        for axis in axes(block, kept, &places) {
            match (axis.steps[0] != 0, axis.steps[1] != 0) {
                (true, true) => roles.batch.push(axis),
                (false, true) => roles.n.push(axis),
                _ => roles.m.push(axis),
            }
        }
        roles
    }

    /// A plan with so many of the summed loops, those of fewest iterations, around the instruction.
    fn plan(&self, outside: usize) -> Option<Plan> {
        let mut k = self.k.clone();
        let mut summed = Vec::new();
        for _ in 0..outside {
            let least = (0..k.len()).min_by_key(|at| k[*at].max)?;
            summed.push(k.remove(least));
        }
        let (k_of_a, k_of_b) = self.k_axes(k);
        let mut m = best_order(&self.m, |axes| merged(axes).len(), merged);
        let mut n = best_order(&self.n, |axes| merged(axes).len(), merged);
        if k_of_a.len() > MAX_VIEW_RANK || k_of_b.len() >= MAX_VIEW_RANK {
            return None;
        }
        let room = (MAX_VIEW_RANK - k_of_a.len()).min(MAX_VIEW_RANK - 1);
        let mut loops = merged(self.batch.clone());
        loops.extend(super::spill(&mut m, room));
        loops.extend(super::spill(&mut n, 1));
        let n = n.pop().unwrap_or_else(|| Axis::one(3));
        let sums = !summed.is_empty();
        loops.extend(summed);
        let (rows, columns) = (count(&m), n.max as f64);
        // Clearing the sums before and rounding them behind.
        let extra = match sums {
            true => 100.0 + rows * columns * count(&loops) / LANES,
            false => 0.0,
        };
        let mut plan = Plan {
            swapped: self.swapped,
            cost: 0.0,
            sums,
            transpose_a: false,
            transpose_b: false,
            pack_a: false,
            pack_b: false,
            loops,
            m,
            k_of_a,
            k_of_b,
            n,
        };
        let work = match self.narrow {
            true => self.on_matrix_unit(&mut plan),
            false => self.on_simd_unit(&mut plan),
        };
        plan.cost = count(&plan.loops) * (START + work) + extra;
        Some(plan)
    }

    /// Decides how the matrix unit reads the operands; returns the cycles of one product.
    fn on_matrix_unit(&self, plan: &mut Plan) -> f64 {
        let side = |which: usize, free: &[Axis], summed: &[Axis]| Side {
            free: free.iter().filter(|axis| !axis.is_one()).cloned().collect(),
            summed: summed.to_vec(),
            which,
            dtype: self.dtypes[which],
            packs_outer: which == 0,
            limit: self.limit,
        };
        let a = side(0, &plan.m, &plan.k_of_a);
        let b = side(1, std::slice::from_ref(&plan.n), &plan.k_of_b);
        let (of_a, of_b, cycles) = fetch::best(&a, &b);
        plan.transpose_a = of_a.free_inside && !plan.m.is_empty();
        plan.transpose_b = !of_b.free_inside;
        plan.pack_a = of_a.packed;
        plan.pack_b = of_b.packed;
        cycles
    }

    /// Decides how the SIMD unit reads the operands; returns the cycles of one product. It takes
    /// vectors along n, and each element of A once.
    fn on_simd_unit(&self, plan: &mut Plan) -> f64 {
        let (rows, columns) = (count(&plan.m), plan.n.max as f64);
        let depth = count(&plan.k_of_a);
        let beside = |axis: Option<&Axis>, which: usize| {
            axis.is_some_and(|axis| axis.steps[which] == size(self.dtypes[which]))
        };
        let work = rows * depth * (columns / LANES).ceil();
        plan.transpose_a = !beside(plan.k_of_a.last(), 0) && beside(plan.m.last(), 0);
        if beside(Some(&plan.n), 1) || plan.n.is_one() {
            return work;
        }
        // Columns of B that lie apart are gathered for every few rows, or once.
        let elements = depth * columns;
        plan.pack_b = elements * self.dtypes[1].bytes() as f64 <= self.limit;
        if plan.pack_b {
            return work + elements * 1.5;
        }
        plan.transpose_b = beside(plan.k_of_b.last(), 1);
        work.max((rows / BLOCK.0).ceil() * elements)
    }

    /// The summed axes in the order in which they are fewest, as A and as B have them.
    fn k_axes(&self, k: Vec<Axis>) -> (Vec<Axis>, Vec<Axis>) {
        let only = |which: usize| {
            move |axes: Vec<Axis>| {
                let alone = axes.into_iter().map(|mut axis| {
                    for (other, step) in axis.steps.iter_mut().enumerate() {
                        *step = if other == which { *step } else { 0 };
                    }
                    axis
                });
                let mut merged = merged(alone.collect());
                if merged.is_empty() {
                    merged.push(Axis::one(3));
                }
                merged
            }
        };
        let (of_a, of_b) = (only(0), only(1));
        let price = |axes: Vec<Axis>| {
            let (a, b) = (of_a(axes.clone()), of_b(axes));
            let apart = |axes: &[Axis], which: usize| {
                usize::from(
                    axes.last()
                        .is_none_or(|axis| axis.steps[which] != size(self.dtypes[which])),
                )
            };
            let too_many = usize::from(b.len() >= MAX_VIEW_RANK);
            100 * (too_many + a.len()) + 10 * b.len() + apart(&a, 0) + apart(&b, 1)
        };
        best_order(&k, price, |axes| (of_a(axes.clone()), of_b(axes)))
    }
}

/// The axes in the order of the lowest price, made into something.
fn best_order<T>(
    axes: &[Axis],
    price: impl Fn(Vec<Axis>) -> usize,
    make: impl Fn(Vec<Axis>) -> T,
) -> T {
    let best = orders(axes.len()).into_iter().map(|order| {
        let ordered: Vec<Axis> = order.iter().map(|at| axes[*at].clone()).collect();
        (price(ordered.clone()), ordered)
    });
    let best = best.min_by_key(|(price, _)| *price);
    make(best.map_or_else(|| axes.to_vec(), |(_, axes)| axes))
}

/// All orders of so many things, the given one first; of more than five, only that.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let given: Vec<usize> = (0..count).collect();
    if count > 5 {
        return vec![given];
    }
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        all = all
            .into_iter()
            .flat_map(|start: Vec<usize>| {
                let rest = (0..count)
                    .filter(|at| !start.contains(at))
                    .collect::<Vec<_>>();
                rest.into_iter()
                    .map(move |next| [start.as_slice(), &[next]].concat())
            })
            .collect();
    }
    all
}
