//! What nodes cost, for the choice among equal forms.

use dojoc_ir::access::{Access, Combine, DimKind, Expr, Monoid, Tiling};
use dojoc_ir::graph::Module;
use dojoc_ir::machine::{Machine, Precision};
use dojoc_ir::ops::Op;
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::types::{DType, Type};

/// A form that a region may take.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Sum of the costs of its nodes and weights, in cycles.
    pub cycles: f64,
    /// The region as a model of one function. Values from outside that are at hand when compiling are
    /// weights without bytes, the others are its parameters.
    pub model: Module,
}

/// Prices of nodes. Sums of them decide among the forms of a region, so a price must not depend on
/// what else is chosen.
pub trait NodeCost {
    /// Cycles of a node without regions, for operands and results of known extents.
    fn node(&self, op: &Op, args: &[Type], results: &[Type]) -> f64;

    /// Cycles that keeping a weight on the machine is worth.
    fn weight(&self, ty: &Type) -> f64;

    /// Which of up to four new forms of a region to take, or the last candidate, which is the region
    /// as it is. They are ordered by their cost, so 0 is the one that the sum of prices prefers.
    fn arbitrate(&self, _candidates: &[Candidate]) -> usize {
        0
    }
}

/// Number of points of the loops of a node; `None` if it has no meaning or does not fit 64 bits.
pub(super) fn points(op: &Op, args: &[Type]) -> Option<u64> {
    match op.tiling(args) {
        Tiling::Loop(access) => extents(&access)?
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(*d)),
        Tiling::Expand(func) => {
            let mut nodes = func.nodes.values();
            nodes.try_fold(0u64, |n, node| {
                n.checked_add(points(&node.op, &func.types(&node.args))?)
            })
        }
        Tiling::View(_) => Some(0),
        Tiling::Kernel(_) => {
            let sizes = args.iter().map(|ty| ty.shape.max_elements());
            sizes.sum::<Option<u64>>()
        }
        Tiling::Control => None,
    }
}

fn extents(access: &Access) -> Option<Vec<u64>> {
    access.dims.iter().map(|d| d.extent.as_const()).collect()
}

/// Time bounds of the cores of one chip: the slower of arithmetic and local memory, arithmetic being
/// rounded up to blocks of the matrix unit or vectors of the SIMD unit, and no more cores at work
/// than there are blocks; and the way to the operands.
#[derive(Clone, Copy, Debug)]
pub struct Roofline<'m> {
    machine: &'m Machine,
}

/// SIMD operations that stand for one function without an instruction of its own.
const POLYNOMIAL: f64 = 8.0;

impl<'m> Roofline<'m> {
    /// The prices on one chip of a machine.
    pub fn new(machine: &'m Machine) -> Self {
        Self { machine }
    }

    fn cores(&self) -> f64 {
        f64::from(self.machine.noc.enabled.value)
    }

    /// Cycles until the first operand is there: half way across the chip, and a load.
    fn start(&self) -> f64 {
        let noc = &self.machine.noc;
        let hops = (noc.rows.value + noc.columns.value) / 2;
        f64::from(noc.hop.value * hops + self.machine.sram.latency.value)
    }

    /// Cycles of moving bytes from and to local memory.
    fn traffic(&self, args: &[Type], results: &[Type]) -> f64 {
        let bytes = |types: &[Type]| -> f64 {
            types
                .iter()
                .map(|ty| ty.max_bytes().unwrap_or(u64::MAX) as f64)
                .sum()
        };
        let read = bytes(args) / self.machine.sram_read_bytes_per_cycle() as f64;
        let written = bytes(results) / self.machine.sram_write_bytes_per_cycle() as f64;
        read.max(written) / self.cores()
    }

    /// Cycles of the arithmetic of a node.
    fn arithmetic(&self, op: &Op, args: &[Type]) -> f64 {
        match op.tiling(args) {
            Tiling::Loop(access) => self.nest(&access, args).unwrap_or(f64::INFINITY),
            Tiling::Expand(func) => {
                let nodes = func.nodes.values();
                nodes
                    .map(|n| self.arithmetic(&n.op, &func.types(&n.args)))
                    .sum()
            }
            Tiling::View(_) => 0.0,
            Tiling::Kernel(_) | Tiling::Control => {
                let elements = args.iter().filter_map(|ty| ty.shape.max_elements());
                let dtype = args.first().map_or(DType::F32, |ty| ty.dtype);
                self.vectors(elements.sum::<u64>() as f64, POLYNOMIAL, dtype)
            }
        }
    }

    fn nest(&self, access: &Access, args: &[Type]) -> Option<f64> {
        let extents = extents(access)?;
        let dtype = args.first().map_or(DType::F32, |ty| ty.dtype);
        if let Some(product) = Product::of(access, &extents) {
            return Some(self.product(&product, dtype));
        }
        let points: f64 = extents.iter().map(|d| *d as f64).product();
        let combine = match access.combine {
            Combine::Assign => 0.0,
            Combine::Reduce(..) | Combine::Scan { .. } => 1.0,
        };
        let operations: f64 = access.body.iter().map(work).sum();
        Some(self.vectors(points, operations + combine, dtype))
    }

    /// Cycles of this many operations on each of `points` elements.
    fn vectors(&self, points: f64, operations: f64, dtype: DType) -> f64 {
        let simd = &self.machine.simd;
        let lanes = match dtype {
            DType::Bf16 => simd.bf16_lanes.value,
            DType::F16 => simd.f16_lanes.value,
            DType::I32 | DType::U32 => simd.i32_lanes.value,
            _ => simd.f32_lanes.value,
        };
        let vectors = (points / f64::from(lanes)).ceil();
        vectors * operations / f64::from(simd.pipes.value) / vectors.clamp(1.0, self.cores())
    }

    fn product(&self, product: &Product, dtype: DType) -> f64 {
        let matrix = &self.machine.matrix;
        let blocks = |n: f64, size: u32| (n / f64::from(size)).ceil();
        let rows = blocks(product.m, matrix.rows.value);
        let columns = blocks(product.n, matrix.columns.value);
        let steps = blocks(product.k, matrix.depth.value);
        let precision = match dtype {
            DType::Bf16 => Precision::Bf16,
            DType::F16 => Precision::F16,
            DType::Cfp8E4M3 | DType::Cfp8E5M2 => Precision::Cfp8,
            _ => Precision::F32,
        };
        let independent = product.batch * rows * columns;
        let rate = self.machine.core_flops_per_cycle(precision).max(1.0);
        let flops = independent * steps * (2 * self.machine.macs_per_step()) as f64;
        flops / rate / independent.clamp(1.0, self.cores())
    }
}

impl NodeCost for Roofline<'_> {
    fn node(&self, op: &Op, args: &[Type], results: &[Type]) -> f64 {
        if matches!(op.tiling(args), Tiling::View(_)) || args.is_empty() {
            return 0.0;
        }
        self.start() + self.arithmetic(op, args).max(self.traffic(args, results))
    }

    /// The time in which its bytes cross the four edges of the chip.
    fn weight(&self, ty: &Type) -> f64 {
        let machine = self.machine;
        let edges = 4.0 * machine.chip.edge.value / machine.core.clock.value;
        ty.max_bytes().unwrap_or(u64::MAX) as f64 / edges
    }
}

/// SIMD operations of a scalar expression.
fn work(expr: &Expr) -> f64 {
    use dojoc_ir::scalar::UnaryFn as F;
    match expr {
        Expr::Operand(_) | Expr::Const(..) | Expr::Index(..) => 0.0,
        Expr::Unary(F::Abs | F::Neg | F::Not | F::Floor | F::Ceil | F::Round | F::Trunc, _, x) => {
            1.0 + work(x)
        }
        Expr::Unary(_, _, x) => POLYNOMIAL + work(x),
        Expr::Binary(f, _, both) => {
            let own = match f {
                BinaryFn::Pow | BinaryFn::Div | BinaryFn::Rem | BinaryFn::Mod => POLYNOMIAL,
                _ => 1.0,
            };
            own + both.iter().map(work).sum::<f64>()
        }
        Expr::Select(all) => 1.0 + all.iter().map(work).sum::<f64>(),
        Expr::Convert(_, x) => work(x),
        Expr::RandomBits(_, all) => 4.0 * POLYNOMIAL + all.iter().map(work).sum::<f64>(),
        Expr::FirstOf(all) => all.iter().map(work).sum(),
    }
}

/// The extents of a sum of products of two operands.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Product {
    /// Of loops that both operands have.
    batch: f64,
    /// Of loops of the first operand.
    m: f64,
    /// Of loops of the second.
    n: f64,
    /// Of loops that are summed over.
    k: f64,
}

impl Product {
    fn of(access: &Access, extents: &[u64]) -> Option<Self> {
        let sum = matches!(access.combine, Combine::Reduce(Monoid::Sum, _));
        let [Expr::Binary(BinaryFn::Mul, ..)] = &access.body[..] else {
            return None;
        };
        let [left, right] = &access.operands[..] else {
            return None;
        };
        let reads = |read: &dojoc_ir::access::Read, dim: usize| {
            let mut terms = read.index.iter().flat_map(|a| &a.terms);
            terms.any(|(d, c)| *d == dim && *c != 0)
        };
        let mut product = Self {
            batch: 1.0,
            m: 1.0,
            n: 1.0,
            k: 1.0,
        };
        for (dim, (data, extent)) in access.dims.iter().zip(extents).enumerate() {
            let extent = *extent as f64;
            match (data.kind, reads(left, dim), reads(right, dim)) {
                (DimKind::Reduction, ..) => product.k *= extent,
                (_, true, false) => product.m *= extent,
                (_, false, true) => product.n *= extent,
                _ => product.batch *= extent,
            }
        }
        sum.then_some(product)
    }
}
