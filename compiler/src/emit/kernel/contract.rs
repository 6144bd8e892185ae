//! Sums of products of two operands.
//!
//! Loops of the nest have one of four roles in a tile product of A and B: m (in A and the result), n
//! (in B and the result), k (summed) and batch (in all three). Loops that find no place in the
//! instruction are loops around it.

mod fetch;
mod plan;

use dojoc_ir::access::{self, Access, Combine, DimKind, Expr, Monoid};
use dojoc_ir::attr::{Flag, Number};
use dojoc_ir::program::instr::data::Copy;
use dojoc_ir::program::instr::matrix::MatMul;
use dojoc_ir::program::instr::vector::{MulAdd, Zip, ZipFunction};
use dojoc_ir::program::{Affine, MAX_VIEW_RANK, Packing, Unit, dense_strides};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::types::DType;

use super::assign::{convert, fill, operand_places, result_place};
use super::nest::{
    Axis, Cx, Place, axes, merged, product, scaled, signed, size, spill, sum, window,
};
use super::values::is_float;
use super::{BlockDim, Local};
use crate::emit::Unsupported;
use crate::emit::builder::Window;
use plan::Plan;

/// A sum of products: two operands and constant factors.
struct Product {
    operands: [usize; 2],
    factors: Vec<Number>,
    dtype: DType,
}

/// Loops by what they are in the nest.
struct Loops {
    kept: Vec<usize>,
    summed: Vec<usize>,
}

/// Emits a sum of products; false if the nest is something else, or better done in another way.
pub(super) fn emit(
    cx: &mut Cx<'_>,
    access: &Access,
    operands: &[Local],
    results: &[Local],
) -> Result<bool, Unsupported> {
    let Some(found) = recognised(access, operands) else {
        return Ok(false);
    };
    let result = result_place(cx, &access.results[0], &results[0])?;
    let places = operand_places(cx, access, operands)?;
    let [a, b] = found.operands.map(|operand| places[operand].clone());
    let loops = loops(access);
    if let Some(dim) = loops.kept.iter().find(|dim| !has_place(cx, &result, **dim)) {
        let name = &access.dims[*dim].name;
        return Err(Unsupported::new(format!(
            "a result without the parallel loop `{name}`"
        )));
    }
    let float = is_float(found.dtype);
    let narrow = [&a, &b].iter().all(|place| place.dtype == DType::Bf16);
    let plan = match float {
        true => Plan::best(
            cx.block,
            &loops.kept,
            &loops.summed,
            [&a, &b, &result],
            (narrow, cx.seg.rearranged()),
        ),
        false => None,
    };
    let work = Work::of(cx.block, &loops);
    let by_reduction = work.by_reduction();
    let by_vectors = work.by_vectors(cx.block, &loops, [&a, &b, &result]);
    let by_products = plan.as_ref().map_or(f64::INFINITY, |plan| plan.cost);
    if by_reduction < by_vectors.min(by_products) {
        return Ok(false);
    }
    let mut wide = [a, b];
    let tiles = by_products <= by_vectors;
    if float && !(tiles && narrow) {
        for (place, operand) in wide.iter_mut().zip(found.operands) {
            if place.dtype != DType::F32 {
                let index = &access.operands[operand].index;
                let local = widened(cx, index, &operands[operand])?;
                *place = Place::of(index, &local, cx.block)?;
            }
        }
    }
    let [a, b] = &wide;
    match plan {
        Some(_) if tiles => tile_products(cx, [a, b], &result, &loops, &found)?,
        _ => vector_sums(cx, [a, b], &result, &loops, &found)?,
    }
    Ok(true)
}

/// Whether a result has an element for each iteration of a loop.
fn has_place(cx: &Cx<'_>, result: &Place, dim: usize) -> bool {
    result.varies(dim) || cx.block[dim].max <= 1
}

fn recognised(access: &Access, operands: &[Local]) -> Option<Product> {
    let Combine::Reduce(Monoid::Sum, dtype) = access.combine else {
        return None;
    };
    let ([body], [_]) = (access.body.as_slice(), access.results.as_slice()) else {
        return None;
    };
    let (mut found, mut factors) = (Vec::new(), Vec::new());
    collect(body, dtype, operands, &mut found, &mut factors)?;
    let operands = found.try_into().ok()?;
    let computed = dtype == DType::F32 || dtype.is_int();
    computed.then_some(Product {
        operands,
        factors,
        dtype,
    })
}

/// The factors of a product of the type that sums are made in.
fn collect(
    expr: &Expr,
    dtype: DType,
    operands: &[Local],
    found: &mut Vec<usize>,
    factors: &mut Vec<Number>,
) -> Option<()> {
    match expr {
        Expr::Binary(BinaryFn::Mul, of, args) if *of == dtype => args
            .iter()
            .try_for_each(|arg| collect(arg, dtype, operands, found, factors)),
        Expr::Const(number, of) if *of == dtype => {
            factors.push(*number);
            Some(())
        }
        Expr::Operand(operand) if operands[*operand].dtype == dtype => {
            found.push(*operand);
            Some(())
        }
        // Exact.
        Expr::Convert(to, x) if *to == dtype => match &**x {
            Expr::Operand(operand)
                if operands[*operand].dtype == dtype
                    || (dtype == DType::F32 && is_float(operands[*operand].dtype)) =>
            {
                found.push(*operand);
                Some(())
            }
            _ => None,
        },
        _ => None,
    }
}

fn loops(access: &Access) -> Loops {
    let of = |kind: DimKind| {
        let dims = access.dims.iter().enumerate();
        let dims = dims.filter(move |(_, dim)| dim.kind == kind);
        dims.map(|(at, _)| at).collect()
    };
    Loops {
        kept: of(DimKind::Parallel),
        summed: of(DimKind::Reduction),
    }
}

/// Numbers of elements, for a choice between ways to compute.
struct Work {
    kept: f64,
    summed: f64,
}

impl Work {
    fn of(block: &[BlockDim], loops: &Loops) -> Self {
        let count = |dims: &[usize]| dims.iter().map(|dim| block[*dim].max as f64).product();
        Self {
            kept: count(&loops.kept),
            summed: count(&loops.summed),
        }
    }

    /// Cycles of a multiply-add over the result for each term of the sum, 16 lanes wide. Operands
    /// whose elements lie apart where those of the result are neighbours are gathered.
    fn by_vectors(&self, block: &[BlockDim], loops: &Loops, places: [&Place; 3]) -> f64 {
        let kept = axes(block, &loops.kept, &places);
        let inner = kept.iter().filter(|axis| axis.steps[2] != 0);
        let inner = inner.min_by_key(|axis| axis.steps[2].unsigned_abs());
        let gathered = |which: usize| {
            let apart = |axis: &Axis| ![0, size(places[which].dtype)].contains(&axis.steps[which]);
            inner.is_some_and(apart)
        };
        let reads = [0, 1].into_iter().filter(|which| gathered(*which)).count() as f64;
        // Three operands are read over two ports, and rows end inside of vectors.
        let along = 1.7 * (self.kept / 16.0).ceil();
        self.summed * (20.0 + along.max(reads * self.kept))
    }

    /// Cycles of all products in memory and a reduction; only where they take little memory.
    fn by_reduction(&self) -> f64 {
        let products = self.kept * self.summed;
        if products > 4096.0 {
            return f64::INFINITY;
        }
        40.0 + products / 16.0 * 2.0 + self.kept * 5.0
    }
}

/// Copies the box of an operand to scratch memory, in f32.
fn widened(cx: &mut Cx<'_>, index: &[access::Affine], local: &Local) -> Result<Local, Unsupported> {
    let mut extents = Vec::new();
    for map in index {
        let (mut count, mut max) = (Affine::constant(1), 1u64);
        for (dim, coefficient) in &map.terms {
            let reach = coefficient.unsigned_abs();
            let steps = sum(&cx.block[*dim].count, &Affine::constant(-1))?;
            count = sum(&count, &scaled(&steps, signed(reach)?)?)?;
            let most = cx.block[*dim].max.saturating_sub(1).saturating_mul(reach);
            max = max.saturating_add(most);
        }
        extents.push((count, max));
    }
    let mut strides = vec![0; extents.len()];
    let mut step = size(DType::F32);
    for (stride, (_, max)) in strides.iter_mut().zip(&extents).rev() {
        *stride = step;
        step = product(step, signed(*max)?)?;
    }
    let elements = extents.iter().map(|(_, max)| *max).product::<u64>();
    let buffer = cx.seg.scratch("wide", DType::F32, &[elements]);
    let wide = Local {
        buffer,
        dtype: DType::F32,
        offset: Affine::constant(0),
        strides,
        valid: None,
    };
    // A nest over the box instead of the block.
    let start = Affine::constant(0);
    let boxed = extents.into_iter().map(|(count, max)| BlockDim {
        start: start.clone(),
        count,
        max,
    });
    let boxed: Vec<BlockDim> = boxed.collect();
    let place = |local: &Local| Place {
        buffer: local.buffer,
        dtype: local.dtype,
        offset: local.offset.clone(),
        steps: local.strides.clone(),
    };
    let mut inner = Cx {
        seg: cx.seg,
        block: &boxed,
        loc: cx.loc,
    };
    let dims = inner.all_dims();
    convert(&mut inner, &place(&wide), &place(local), &dims)?;
    Ok(wide)
}

/// Where sums are made: the result itself, or scratch memory if that is of another type or the sums
/// are to be scaled.
fn sums(
    cx: &mut Cx<'_>,
    result: &Place,
    loops: &Loops,
    found: &Product,
    direct: bool,
) -> Result<Place, Unsupported> {
    if direct && found.factors.is_empty() {
        return Ok(result.clone());
    }
    cx.scratch("sums", found.dtype, &loops.kept)
}

/// Scales sums and rounds them to the type of the result.
fn finish(
    cx: &mut Cx<'_>,
    sums: &Place,
    result: &Place,
    loops: &Loops,
    found: &Product,
) -> Result<(), Unsupported> {
    if sums == result {
        return Ok(());
    }
    for factor in &found.factors {
        let scale = Zip {
            function: ZipFunction::Mul,
            value: Some(*factor),
        };
        cx.pointwise(scale, &[sums, sums], &loops.kept)?;
    }
    convert(cx, result, sums, &loops.kept)
}

fn tile_products(
    cx: &mut Cx<'_>,
    operands: [&Place; 2],
    result: &Place,
    loops: &Loops,
    found: &Product,
) -> Result<(), Unsupported> {
    let [a, b] = operands;
    let narrow = a.dtype == DType::Bf16;
    let limit = cx.seg.rearranged();
    let best = |cx: &Cx<'_>, c: &Place| {
        let plan = Plan::best(
            cx.block,
            &loops.kept,
            &loops.summed,
            [a, b, c],
            (narrow, limit),
        );
        plan.ok_or_else(|| Unsupported::new("a product of too many loops"))
    };
    let mut plan = best(cx, result)?;
    let rounds = result.dtype == DType::F32 || (result.dtype == DType::Bf16 && !plan.sums);
    let c = sums(cx, result, loops, found, rounds)?;
    if &c != result {
        plan = best(cx, &c)?;
    }
    if plan.sums {
        fill(cx, &c, Number::Int(0), &loops.kept)?;
    }
    let [a, b] = match plan.swapped {
        false => operands,
        true => [operands[1], operands[0]],
    };
    let places = [a, b, &c];
    let offsets = places.iter().map(|place| place.offset.clone()).collect();
    let instr = MatMul {
        transpose_a: Flag(plan.transpose_a),
        transpose_b: Flag(plan.transpose_b),
        split: (plan.m.len() != 1).then_some(plan.m.len()),
        accumulate: Flag(plan.sums),
        bias: Flag(false),
        activation: None,
        residual: None,
        sums: Flag(false),
        cfp8: Flag(false),
        stochastic: None,
    };
    let n = std::slice::from_ref(&plan.n);
    let parts = |transposed: bool, first: &[Axis], second: &[Axis]| match transposed {
        false => [first, second].concat(),
        true => [second, first].concat(),
    };
    let of_a = parts(plan.transpose_a, &plan.m, &plan.k_of_a);
    let of_b = parts(plan.transpose_b, &plan.k_of_b, n);
    let of_c = [&plan.m, n].concat();
    let pack = |cx: &mut Cx<'_>, wanted: bool, place: &Place, axes: &[Axis], packing: Packing| {
        wanted
            .then(|| packed(cx, place.dtype, axes, packing))
            .transpose()
    };
    // A block of A has 8 rows and 4 steps of the sum, one of B 4 steps and 8 columns.
    let (tall, flat) = (Packing::Packed8x4, Packing::Packed4x8);
    let packing = |transposed: bool, usual, other| if transposed { other } else { usual };
    let packing = match narrow {
        true => [
            packing(plan.transpose_a, tall, flat),
            packing(plan.transpose_b, flat, tall),
        ],
        false => [Packing::Strided; 2],
    };
    let packed_a = pack(cx, plan.pack_a, a, &of_a, packing[0])?;
    let packed_b = pack(cx, plan.pack_b, b, &of_b, packing[1])?;
    cx.nest(Unit::Matrix, &plan.loops, offsets, &mut |cx, offsets| {
        let loc = cx.loc;
        let mut read = |from: Window, packed: &Option<Window>| match packed {
            None => from,
            Some(to) => {
                let operands = [to.clone(), from];
                cx.seg
                    .compute(Unit::Matrix, Copy {}, &operands, Vec::new(), loc);
                to.clone()
            }
        };
        let from_a = read(window(a, &offsets[0], &of_a, 0), &packed_a);
        let from_b = read(window(b, &offsets[1], &of_b, 1), &packed_b);
        let operands = [window(&c, &offsets[2], &of_c, 2), from_a, from_b];
        cx.seg
            .compute(Unit::Matrix, instr.clone(), &operands, Vec::new(), loc);
        Ok(())
    })?;
    finish(cx, &c, result, loops, found)
}

/// A window of a new scratch buffer in which an operand lies in blocks.
fn packed(
    cx: &mut Cx<'_>,
    dtype: DType,
    axes: &[Axis],
    packing: Packing,
) -> Result<Window, Unsupported> {
    let most: Vec<u64> = axes.iter().map(|axis| axis.max).collect();
    let strides = dense_strides(dtype, &most, packing).ok_or_else(Unsupported::overflow)?;
    let buffer = cx.seg.scratch("packed", dtype, &most);
    cx.seg.set_packing(buffer, packing);
    let shape = axes.iter().map(|axis| axis.count.clone()).collect();
    let offset = Affine::constant(0);
    Ok(Window {
        buffer,
        offset,
        dtype,
        shape,
        strides,
        packing,
    })
}

/// A multiply-add over the whole result for each term of the sums.
fn vector_sums(
    cx: &mut Cx<'_>,
    operands: [&Place; 2],
    result: &Place,
    loops: &Loops,
    found: &Product,
) -> Result<(), Unsupported> {
    let [a, b] = operands;
    let y = sums(cx, result, loops, found, result.dtype == found.dtype)?;
    let terms = merged(axes(cx.block, &loops.summed, &[&y, a, b]));
    let times = Zip {
        function: ZipFunction::Mul,
        value: None,
    };
    if terms.is_empty() {
        cx.pointwise(times, &[&y, a, b], &loops.kept)?;
        return finish(cx, &y, result, loops, found);
    }
    fill(cx, &y, Number::Int(0), &loops.kept)?;
    let float = is_float(found.dtype);
    let term = match float {
        true => None,
        false => Some(cx.scratch("term", found.dtype, &loops.kept)?),
    };
    let mut places = vec![&y, a, b];
    places.extend(&term);
    let mut kept = axes(cx.block, &loops.kept, &places);
    kept.sort_by_key(|axis| std::cmp::Reverse(axis.steps[0].unsigned_abs()));
    let mut kept = merged(kept);
    let mut around = spill(&mut kept, MAX_VIEW_RANK);
    if kept.is_empty() {
        kept.push(Axis::one(places.len()));
    }
    for mut axis in terms {
        axis.steps.resize(places.len(), 0);
        around.push(axis);
    }
    let offsets = places.iter().map(|place| place.offset.clone()).collect();
    cx.nest(Unit::Vector, &around, offsets, &mut |cx, offsets| {
        let windows = places.iter().zip(offsets).enumerate();
        let windows = windows.map(|(which, (place, offset))| window(place, offset, &kept, which));
        let windows: Vec<Window> = windows.collect();
        let loc = cx.loc;
        let [y, a, b, ..] = [0, 1, 2].map(|which| windows[which].clone());
        match windows.get(3) {
            None => {
                let operands = [y.clone(), a, b, y];
                cx.seg
                    .compute(Unit::Vector, MulAdd {}, &operands, Vec::new(), loc);
            }
            Some(term) => {
                let operands = [term.clone(), a, b];
                cx.seg
                    .compute(Unit::Vector, times.clone(), &operands, Vec::new(), loc);
                let add = Zip {
                    function: ZipFunction::Add,
                    value: None,
                };
                let operands = [y.clone(), y, term.clone()];
                cx.seg
                    .compute(Unit::Vector, add, &operands, Vec::new(), loc);
            }
        }
        Ok(())
    })?;
    finish(cx, &y, result, loops, found)
}
