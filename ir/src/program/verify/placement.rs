//! Shards of tensors: inside the tensor and the memory, complete, and apart from each other.

use std::collections::BTreeSet;
use std::rc::Rc;

use foldhash::{HashMap, HashSet};

use super::super::{
    Coordinate, DramId, Home, IndexEnv, IndexExpr, IndexNode, Place, RegionId, Shard, StateInit,
    TensorDecl, TensorId, TensorKind, Var, ViewType,
};
use super::balance::dim_values;
use super::channels::Positions;
use super::cover::{Fault, Part, cover};
use super::{Context, Violation, core_name};
use crate::codes;
use crate::machine::CoreAddress;
use crate::types::DType;

pub(super) fn check(cx: &mut Context<'_>) {
    let program = cx.program;
    let (mut spans, mut known) = (Vec::new(), Known::default());
    for (id, tensor) in program.tensors.iter() {
        recipe(cx, id, tensor);
        let dims = dim_values(cx, Place::Tensor(id), &dims_of(tensor));
        for dims in dims {
            if !placed(cx, (id, tensor), &dims, &mut known, &mut spans) {
                break;
            }
        }
    }
    if !cx.has(codes::BAD_PLACEMENT) {
        apart(cx, &mut spans);
    }
}

fn bad(id: TensorId, message: String) -> Violation {
    Violation::new(codes::BAD_PLACEMENT, Place::Tensor(id), message)
}

/// The value of a recipe is what the tensor holds.
fn recipe(cx: &mut Context<'_>, id: TensorId, tensor: &TensorDecl) {
    let (TensorKind::Weight(recipe) | TensorKind::State(StateInit::Recipe(recipe))) = &tensor.kind
    else {
        return;
    };
    let shape: Option<Vec<u64>> = tensor
        .shape
        .iter()
        .map(|extent| u64::try_from(extent.as_constant()?).ok())
        .collect();
    let message = match (recipe.infer(), shape) {
        (Err(why), _) => format!("the recipe is malformed: {why}"),
        (Ok((dtype, found)), Some(shape)) => {
            if dtype == tensor.dtype && found == shape {
                return;
            }
            format!(
                "the recipe makes {} {found:?}, the tensor is {} {shape:?}",
                dtype.name(),
                tensor.dtype.name()
            )
        }
        (Ok(_), None) => "the tensor has a negative extent".into(),
    };
    cx.report(Violation::new(
        codes::BAD_RECIPE,
        Place::Tensor(id),
        message,
    ));
}

fn exprs(shard: &Shard) -> impl Iterator<Item = &IndexExpr> {
    let at = match &shard.home {
        Home::Sram { at, .. } | Home::Dram { at, .. } => at,
    };
    let slices = shard
        .slice
        .iter()
        .flat_map(|(start, extent)| [start, extent]);
    slices.chain([at])
}

fn dims_of(tensor: &TensorDecl) -> BTreeSet<u16> {
    let shape = tensor.shape.iter().flat_map(|extent| &extent.terms);
    let shape = shape.filter_map(|(var, _)| match var {
        Var::Dim(dim) => Some(*dim),
        _ => None,
    });
    let nodes = tensor.shards.iter().flat_map(exprs).flat_map(|e| &e.nodes);
    let shards = nodes.filter_map(|node| match node {
        IndexNode::Coordinate(Coordinate::Dim(dim)) => Some(*dim),
        _ => None,
    });
    shape.chain(shards).collect()
}

/// A memory that shards lie in: SRAM of the cores of a region, or instances of a DRAM region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Space {
    Sram(RegionId),
    Dram(DramId),
}

/// The bytes of a shard over all cores.
struct Span {
    tensor: TensorId,
    shard: usize,
    space: Space,
    dims: Vec<i64>,
    low: i64,
    high: i64,
    /// Whether it is the same interval everywhere.
    fixed: bool,
}

fn cores<'p>(
    cx: &Context<'p>,
    shard: &Shard,
) -> (Space, Box<dyn Iterator<Item = CoreAddress> + 'p>) {
    let program = cx.program;
    let host = CoreAddress {
        chip: 0,
        row: 0,
        column: 0,
    };
    match &shard.home {
        Home::Sram { on, .. } => (Space::Sram(*on), Box::new(program.regions[*on].cores())),
        Home::Dram { dram, .. } => match program.dram[*dram].owners {
            Some(owners) => (
                Space::Dram(*dram),
                Box::new(program.regions[owners].cores()),
            ),
            None => (Space::Dram(*dram), Box::new(std::iter::once(host))),
        },
    }
}

/// The address of a shard, and the bytes and the name of the memory in which it lies.
fn memory<'s>(cx: &Context<'_>, shard: &'s Shard) -> (&'s IndexExpr, u64, &'static str) {
    match &shard.home {
        Home::Sram { at, .. } => (at, cx.machine.core_sram_bytes(), "SRAM"),
        Home::Dram { dram, at } => (at, cx.program.dram[*dram].bytes, "DRAM instance"),
    }
}

/// The box and the bytes of a shard on a core.
type Piece = (Vec<(i64, i64)>, (i64, i64));

fn piece(
    cx: &Context<'_>,
    tensor: &TensorDecl,
    shard: &Shard,
    shape: &[i64],
    env: &IndexEnv<'_>,
) -> Result<Piece, (u16, String)> {
    let tables = &cx.program.tables;
    let wrong = |message: String| (codes::BAD_PLACEMENT, message);
    let mut part = Vec::with_capacity(shape.len());
    for (d, (start, extent)) in shard.slice.iter().enumerate() {
        let value = start.eval(env, tables).zip(extent.eval(env, tables));
        let Some((start, extent)) = value else {
            return Err(wrong(format!("the slice of dimension {d} has no value")));
        };
        let end = start.checked_add(extent);
        if start < 0 || extent < 0 || end.is_none_or(|end| end > shape[d]) {
            return Err(wrong(format!(
                "holds {extent} elements from {start} on of dimension {d}, which has {}",
                shape[d]
            )));
        }
        part.push((start, start + extent));
    }
    if part.iter().any(|(start, end)| start == end) {
        return Ok((part, (0, 0)));
    }
    let (at, limit, memory) = memory(cx, shard);
    let Some(at) = at.eval(env, tables) else {
        return Err(wrong("the address has no value".into()));
    };
    let size = tensor.dtype.bytes() as i64;
    let strides = &shard.strides;
    if at % size != 0 || strides.iter().any(|stride| stride % size != 0) {
        let message = format!(
            "lies at {at} with strides {strides:?}, which are not all multiples of its element \
             size, {size}"
        );
        return Err((codes::MISALIGNED, message));
    }
    let layout = ViewType {
        dtype: tensor.dtype,
        shape: part
            .iter()
            .map(|(start, end)| (end - start) as u64)
            .collect(),
        strides: shard.strides.clone(),
        packing: shard.packing,
    };
    let range = layout
        .extent()
        .and_then(|(low, high)| at.checked_add(low).zip(at.checked_add(high)));
    match range {
        Some((low, high)) if low >= 0 && high.unsigned_abs() <= limit => {
            if layout.distinct_places() {
                Ok((part, (low, high)))
            } else {
                Err(wrong("has elements that share bytes".into()))
            }
        }
        _ => {
            let (low, high) = range.unwrap_or((i64::MIN, i64::MAX));
            let message = format!("lies at bytes {low} to {high} of {limit} bytes of {memory}");
            Err((codes::SRAM_EXCEEDED, message))
        }
    }
}

/// The pieces of a shard, and the bytes of all cores.
#[derive(Clone)]
struct Pieces {
    parts: Rc<Vec<Part>>,
    /// `i64::MAX` and `i64::MIN` if there are none.
    bytes: (i64, i64),
    /// Whether they are the same interval everywhere.
    fixed: bool,
}

/// Shards of a tensor with constant addresses left out: equal layers differ in them alone.
#[derive(PartialEq, Eq, Hash)]
struct Form {
    dtype: DType,
    shape: Vec<i64>,
    /// Values of run parameters.
    dims: Vec<i64>,
    shards: Vec<Shard>,
    /// Whether they must be apart.
    disjoint: bool,
}

/// What was found sound.
#[derive(Default)]
struct Known {
    /// The pieces of a shard, with its address.
    pieces: HashMap<Form, (i64, Pieces)>,
    /// Shards that make up a tensor.
    covers: HashSet<Form>,
}

/// The same shard at address 0, and its address if that is a constant.
fn at_zero(shard: &Shard) -> (Shard, Option<i64>) {
    let mut zero = shard.clone();
    let (Home::Sram { at, .. } | Home::Dram { at, .. }) = &mut zero.home;
    let address = at.as_constant();
    if address.is_some() {
        *at = IndexExpr::constant(0);
    }
    (zero, address)
}

/// The pieces of a shard; `None` if something is wrong, which is reported.
fn pieces(
    cx: &mut Context<'_>,
    known: &mut Known,
    (id, number): (TensorId, usize),
    shape: &[i64],
    dims: &[i64],
) -> Option<Pieces> {
    let program = cx.program;
    let tensor = &program.tensors[id];
    let shard = &tensor.shards[number];
    // Copies of the same box add nothing to an incomplete tensor, but must be apart in an output.
    let replicas = matches!(tensor.kind, TensorKind::Output);
    let (zero, address) = at_zero(shard);
    let (_, limit, _) = memory(cx, shard);
    let key = Form {
        dtype: tensor.dtype,
        shape: shape.to_vec(),
        dims: dims.to_vec(),
        shards: vec![zero],
        disjoint: replicas,
    };
    if let (Some((before, pieces)), Some(address)) = (known.pieces.get(&key), address)
        && let Some(moved) = address.checked_sub(*before)
        && moved % tensor.dtype.bytes() as i64 == 0
    {
        let (low, high) = pieces.bytes;
        if low >= high {
            return Some(pieces.clone());
        }
        let bytes = low.checked_add(moved).zip(high.checked_add(moved));
        if let Some((low, high)) = bytes
            && low >= 0
            && high.unsigned_abs() <= limit
        {
            let bytes = (low, high);
            return Some(Pieces {
                bytes,
                ..pieces.clone()
            });
        }
    }
    let varies = exprs(shard).any(IndexExpr::depends_on_core);
    let (mut parts, mut bytes, mut fixed) = (Vec::new(), (i64::MAX, i64::MIN), true);
    for (index, core) in cores(cx, shard).1.enumerate() {
        if index > 0 && !varies && !replicas {
            break;
        }
        if !cx.spend(1, Place::Tensor(id)) {
            return None;
        }
        let env = IndexEnv::of_core(index as u64, core, &[], dims);
        match piece(cx, tensor, shard, shape, &env) {
            Ok((part, (low, high))) => {
                if low < high {
                    fixed &= index == 0 || (low, high) == bytes;
                    bytes = (bytes.0.min(low), bytes.1.max(high));
                }
                parts.push(part);
            }
            Err((code, why)) => {
                let on = core_name(core);
                let mut message = format!("shard {number} on core {on} {why}");
                for (dim, (name, _)) in program.dims.iter().enumerate() {
                    if dims[dim] > 1 {
                        message.push_str(&format!(", for {name} = {}", dims[dim]));
                    }
                }
                cx.report(Violation::new(code, Place::Tensor(id), message));
                return None;
            }
        }
    }
    let found = Pieces {
        parts: Rc::new(parts),
        bytes,
        fixed,
    };
    if let Some(address) = address {
        known.pieces.insert(key, (address, found.clone()));
    }
    Some(found)
}

/// Shards lie in tensor and memory, and make up the whole. False if something is wrong.
fn placed(
    cx: &mut Context<'_>,
    (id, tensor): (TensorId, &TensorDecl),
    dims: &[i64],
    known: &mut Known,
    spans: &mut Vec<Span>,
) -> bool {
    let Some(shape) = shape_at(tensor, dims) else {
        cx.report(bad(
            id,
            "has a negative extent, or one beyond 64 bits".into(),
        ));
        return false;
    };
    let disjoint = matches!(tensor.kind, TensorKind::Output);
    let zeros = tensor.shards.iter().map(|shard| at_zero(shard).0);
    let form = Form {
        dtype: tensor.dtype,
        shape: shape.clone(),
        dims: dims.to_vec(),
        shards: zeros.collect(),
        disjoint,
    };
    let partial = matches!(tensor.kind, TensorKind::Input | TensorKind::Weight(_));
    let complete = !partial && !known.covers.contains(&form);
    // A probe is a name for what lies there anyway.
    let apart = !matches!(tensor.kind, TensorKind::Probe);
    let mut parts: Vec<Part> = Vec::new();
    for (number, shard) in tensor.shards.iter().enumerate() {
        let Some(found) = pieces(cx, known, (id, number), &shape, dims) else {
            return false;
        };
        let (low, high) = found.bytes;
        if apart && low < high {
            spans.push(Span {
                tensor: id,
                shard: number,
                space: cores(cx, shard).0,
                dims: dims.to_vec(),
                low,
                high,
                fixed: found.fixed,
            });
        }
        if complete {
            parts.extend(found.parts.iter().cloned());
        }
    }
    if !complete {
        return true;
    }
    match cover(&shape, parts, disjoint) {
        Ok(()) => {
            known.covers.insert(form);
            true
        }
        Err(Fault::Gap(at)) => {
            cx.report(bad(id, format!("no shard holds element {at:?}")));
            false
        }
        Err(Fault::Overlap(at)) => {
            let message = format!("two shards hold element {at:?}");
            let help = "an output is disjoint: let one of the cores hold it, the others nothing";
            cx.report(bad(id, message).help(help));
            false
        }
        Err(Fault::TooMany) => {
            let message = "the shards are too irregular to tell whether they make up the tensor";
            let help = "cut the tensor along whole rows of shards";
            let violation = Violation::new(codes::UNDECIDED, Place::Tensor(id), message);
            cx.report(violation.help(help));
            false
        }
    }
}

fn shape_at(tensor: &TensorDecl, dims: &[i64]) -> Option<Vec<i64>> {
    let env = super::super::Env {
        dims,
        ..super::super::Env::default()
    };
    let extent = |extent: &super::super::Affine| extent.eval(&env).filter(|extent| *extent >= 0);
    tensor.shape.iter().map(extent).collect()
}

/// Whether two tensors must not share bytes.
fn must_differ(cx: &Context<'_>, a: TensorId, b: TensorId) -> bool {
    use TensorKind::{Input, Output, State, Weight};
    let tensors = &cx.program.tensors;
    let together = |inputs: bool| {
        cx.program.entries.values().any(|entry| {
            let list = if inputs {
                &entry.inputs
            } else {
                &entry.outputs
            };
            list.contains(&a) && list.contains(&b)
        })
    };
    match (&tensors[a].kind, &tensors[b].kind) {
        (Weight(_) | State(_), Weight(_) | State(_) | Input) => true,
        (Input, Weight(_) | State(_)) => true,
        (Weight(_), Output) | (Output, Weight(_)) => true,
        (Input, Input) => a == b || together(true),
        (Output, Output) => a == b || together(false),
        _ => false,
    }
}

/// Tensors that hold values at the same time have bytes of their own.
fn apart(cx: &mut Context<'_>, spans: &mut [Span]) {
    spans.sort_by_key(|span| (span.low, span.high, span.tensor, span.shard));
    let mut positions = Positions::new();
    let mut open: Vec<usize> = Vec::new();
    let mut reported = BTreeSet::new();
    for at in 0..spans.len() {
        open.retain(|other| spans[*other].high > spans[at].low);
        if !cx.spend(1 + open.len() as u64, Place::Program) {
            return;
        }
        for other in &open {
            let (a, b) = (&spans[*other], &spans[at]);
            let same_shard = a.tensor == b.tensor && a.shard == b.shard;
            // Other values of run parameters are other runs.
            let same_run = a.dims == b.dims
                || a.dims.iter().all(|d| *d == 1)
                || b.dims.iter().all(|d| *d == 1);
            if same_shard || !same_run || !must_differ(cx, a.tensor, b.tensor) {
                continue;
            }
            let pair = (a.tensor.min(b.tensor), a.tensor.max(b.tensor));
            if reported.contains(&pair) {
                continue;
            }
            if let Some((core, (low, high))) = collision(cx, &mut positions, a, b) {
                let message = format!(
                    "shares bytes {low} to {high} with @{} on core {}",
                    cx.program.tensors[pair.0].name,
                    core_name(core)
                );
                reported.insert(pair);
                cx.report(bad(pair.1, message));
            }
        }
        open.push(at);
    }
}

/// A core on which two shards overlap, and the bytes.
fn collision(
    cx: &mut Context<'_>,
    positions: &mut Positions,
    a: &Span,
    b: &Span,
) -> Option<(CoreAddress, (i64, i64))> {
    let program = cx.program;
    let meet = |a: (i64, i64), b: (i64, i64)| {
        let both = (a.0.max(b.0), a.1.min(b.1));
        (both.0 < both.1).then_some(both)
    };
    let other: std::rc::Rc<Vec<u32>> = match (a.space, b.space) {
        (Space::Sram(x), Space::Sram(y)) => positions.of(cx, x, y),
        (Space::Dram(x), Space::Dram(y)) if x == y => {
            let owners = program.dram[x].owners;
            let count = owners.map_or(1, |owners| program.regions[owners].len());
            (0..count as u32).collect::<Vec<_>>().into()
        }
        _ => return None,
    };
    let shard = |span: &Span| &program.tensors[span.tensor].shards[span.shard];
    let (_, list) = cores(cx, shard(a));
    for (index, core) in list.enumerate() {
        if other[index] == u32::MAX {
            continue;
        }
        if a.fixed && b.fixed {
            return meet((a.low, a.high), (b.low, b.high)).map(|both| (core, both));
        }
        if !cx.spend(2, Place::Tensor(a.tensor)) {
            return None;
        }
        let range = |span: &Span, index: u64| {
            let env = IndexEnv::of_core(index, core, &[], &span.dims);
            let tensor = &program.tensors[span.tensor];
            let shape = shape_at(tensor, &span.dims)?;
            piece(cx, tensor, shard(span), &shape, &env)
                .ok()
                .map(|(_, range)| range)
        };
        let both = range(a, index as u64).zip(range(b, other[index].into()));
        if let Some(both) = both.and_then(|(x, y)| meet(x, y)) {
            return Some((core, both));
        }
    }
    None
}
