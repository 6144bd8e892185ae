//! Inputs, weights, states and outputs: which bytes of which cores hold which part of a tensor.

use std::ops::Range;
use std::sync::Arc;

use dojoc_ir::diag::Loc;
use dojoc_ir::graph::{StateInit as GraphInit, Weight, WeightSource};
use dojoc_ir::mesh::Storage;
use dojoc_ir::program::{
    Affine, Home, Packing, Recipe, RecipeNode, RegionId, Shard, StateInit, TensorDecl, TensorId,
    TensorKind,
};
use dojoc_ir::tiled::{Grid, Layout};
use dojoc_ir::types::{DType, Type};

use super::Unsupported;
use super::fit::fit;
use super::program::ProgramBuilder;

/// Boxes of a tensor of one shard, one for each core of a region (empty where a core has none), and
/// the addresses of their first elements.
struct Parts {
    boxes: Vec<Vec<Range<u64>>>,
    at: Vec<i64>,
}

/// The shards of a value: where a tensor's parts lie on the cores of a grid.
///
/// `once` leaves out all but one of the cores that hold the same elements.
///
/// # Errors
/// Layouts under views that have no common refinement with the shape.
pub fn shards(
    cx: &mut ProgramBuilder,
    grid: &Grid,
    shape: &[u64],
    layout: &Layout,
    storage: &Storage,
    once: bool,
) -> Result<Vec<Shard>, Unsupported> {
    let cores = usize::try_from(grid.size()).map_err(|_| Unsupported::overflow())?;
    let region = cx.region(
        usize::try_from(grid.first).map_err(|_| Unsupported::overflow())?,
        cores,
    )?;
    let seen = Dims::of(shape, &layout.view)?;
    let strides = seen.strides(&storage.strides);
    let replicated = layout.replicated_axes(grid);
    let mut of_cores: Vec<Vec<(Vec<Range<u64>>, i64)>> = vec![];
    for core in 0..grid.size() {
        let at = grid.coordinates(core);
        let repeats = once && replicated.iter().any(|axis| at[*axis] != 0);
        let window = layout.window(grid, &at);
        let block = layout.block(grid, &at);
        if repeats || block.iter().any(Range::is_empty) {
            of_cores.push(vec![]);
            continue;
        }
        let boxes = seen.boxes(&block).into_iter().map(|part| {
            let address = seen.address(&part, &window, &storage.strides);
            (part, storage.address as i64 + address)
        });
        of_cores.push(boxes.collect());
    }
    let most = of_cores.iter().map(Vec::len).max().unwrap_or(0);
    let mut shards = vec![];
    for n in 0..most {
        let empty = || (shape.iter().map(|_| 0..0).collect(), storage.address as i64);
        let (boxes, at) = of_cores
            .iter()
            .map(|parts| parts.get(n).cloned().unwrap_or_else(empty))
            .unzip();
        shards.push(shard(cx, region, &Parts { boxes, at }, &strides));
    }
    // A tensor without elements still has a home.
    if shards.is_empty() {
        let boxes = (0..cores)
            .map(|_| shape.iter().map(|_| 0..0).collect())
            .collect();
        let at = vec![storage.address as i64; cores];
        shards.push(shard(cx, region, &Parts { boxes, at }, &strides));
    }
    Ok(shards)
}

fn shard(cx: &mut ProgramBuilder, on: RegionId, parts: &Parts, strides: &[i64]) -> Shard {
    let rank = strides.len();
    let slice = (0..rank)
        .map(|t| {
            let starts: Vec<i64> = parts.boxes.iter().map(|b| b[t].start as i64).collect();
            let sizes: Vec<i64> = parts
                .boxes
                .iter()
                .map(|b| (b[t].end - b[t].start) as i64)
                .collect();
            (fit(&starts, &mut cx.tables), fit(&sizes, &mut cx.tables))
        })
        .collect();
    Shard {
        home: Home::Sram {
            on,
            at: fit(&parts.at, &mut cx.tables),
        },
        slice,
        strides: strides.to_vec(),
        packing: Packing::Strided,
    }
}

/// How a shape's dims make up those of a view: each dim of the view is a run of dims of the shape,
/// of which it is the product.
struct Dims {
    runs: Vec<Range<usize>>,
    shape: Vec<u64>,
}

impl Dims {
    fn of(shape: &[u64], view: &[u64]) -> Result<Self, Unsupported> {
        let mut runs = vec![];
        let mut at = 0;
        for (n, extent) in view.iter().enumerate() {
            let start = at;
            let mut product = 1u64;
            while at < shape.len() && (product != *extent || at == start || shape[at] == 1) {
                product = product.saturating_mul(shape[at]);
                at += 1;
            }
            if n + 1 == view.len() {
                at = shape.len();
                product = shape[start..].iter().product();
            }
            if product != *extent {
                let message =
                    format!("a tensor of extents {shape:?} that lies in memory as {view:?}");
                return Err(Unsupported::new(message));
            }
            runs.push(start..at);
        }
        if view.is_empty() && shape.iter().any(|e| *e != 1) {
            return Err(Unsupported::new("a tensor that lies in memory as a scalar"));
        }
        Ok(Self {
            runs,
            shape: shape.to_vec(),
        })
    }

    /// Strides of the shape's dims.
    fn strides(&self, of_view: &[i64]) -> Vec<i64> {
        let mut strides = vec![0; self.shape.len()];
        for (run, stride) in self.runs.iter().zip(of_view) {
            let mut step = *stride;
            for t in run.clone().rev() {
                strides[t] = step;
                step = step.saturating_mul(self.shape[t] as i64);
            }
        }
        strides
    }

    /// The boxes of the shape that a box of the view consists of.
    fn boxes(&self, block: &[Range<u64>]) -> Vec<Vec<Range<u64>>> {
        let mut boxes: Vec<Vec<Range<u64>>> = vec![vec![0..1; self.shape.len()]];
        for (run, range) in self.runs.iter().zip(block) {
            let parts = cut(range, &self.shape[run.clone()]);
            boxes = (boxes.iter())
                .flat_map(|known| {
                    parts.iter().map(|part| {
                        let mut all = known.clone();
                        all[run.clone()].clone_from_slice(part);
                        all
                    })
                })
                .collect();
        }
        boxes
    }

    /// Bytes from the first element of a window to the first of a box.
    fn address(&self, part: &[Range<u64>], window: &[Range<i64>], of_view: &[i64]) -> i64 {
        let mut address = 0;
        for ((run, window), stride) in self.runs.iter().zip(window).zip(of_view) {
            let index = run
                .clone()
                .fold(0, |index, t| index * self.shape[t] + part[t].start);
            address += (index as i64 - window.start) * stride;
        }
        address
    }
}

/// The boxes over `dims` whose elements are a range of their row-major numbers.
pub(crate) fn cut(range: &Range<u64>, dims: &[u64]) -> Vec<Vec<Range<u64>>> {
    let Some((first, rest)) = dims.split_first() else {
        return vec![vec![]];
    };
    let inner: u64 = rest.iter().product();
    let whole = |range: Range<u64>| {
        let mut part = vec![range];
        part.extend(rest.iter().map(|e| 0..*e));
        part
    };
    if inner == 0 || range.is_empty() {
        return vec![];
    }
    if range.start == 0 && range.end == first * inner {
        return vec![whole(0..*first)];
    }
    let (low, high) = (range.start / inner, range.end / inner);
    let (head, tail) = (range.start % inner, range.end % inner);
    let inside = |at: u64, range: Range<u64>| {
        cut(&range, rest)
            .into_iter()
            .map(move |part| [vec![at..at + 1], part].concat())
    };
    if low == high {
        return inside(low, head..tail).collect();
    }
    let mut parts = vec![];
    let mut start = low;
    if head > 0 {
        parts.extend(inside(low, head..inner));
        start += 1;
    }
    if start < high {
        parts.push(whole(start..high));
    }
    if tail > 0 {
        parts.extend(inside(high, 0..tail));
    }
    parts
}

/// Declares a tensor.
pub fn declare(
    cx: &mut ProgramBuilder,
    name: Arc<str>,
    kind: TensorKind,
    dtype: DType,
    shape: &[u64],
    shards: Vec<Shard>,
    loc: Option<&Loc>,
) -> TensorId {
    let loc = loc.map(|loc| cx.loc(loc));
    cx.program.tensors.push(TensorDecl {
        name,
        kind,
        dtype,
        shape: shape.iter().map(|e| Affine::constant(*e as i64)).collect(),
        shards,
        loc,
    })
}

/// How the loader makes a weight under the extents of a view.
///
/// # Errors
/// A weight whose bytes are not at hand.
pub fn recipe(weight: &Weight, view: &[u64]) -> Result<Recipe, Unsupported> {
    let shape = constant(&weight.ty)?;
    let node = match (&weight.source, &weight.data) {
        (WeightSource::External { file, offset, .. }, _) => RecipeNode::File {
            file: file.clone(),
            offset: *offset,
            dtype: weight.ty.dtype,
            shape: view.to_vec(),
        },
        (WeightSource::Inline, Some(data)) => RecipeNode::Inline {
            dtype: weight.ty.dtype,
            shape: view.to_vec(),
            data: bytes::Bytes::copy_from_slice(data.bytes()),
        },
        (WeightSource::Inline, None) => {
            let message = format!("the weight `{}`, whose bytes are not at hand", weight.name);
            return Err(Unsupported::new(message));
        }
    };
    if shape.iter().product::<u64>() != view.iter().product::<u64>() {
        return Err(Unsupported::new(
            "a weight under extents of another number of elements",
        ));
    }
    Ok(Recipe { nodes: vec![node] })
}

/// The first value of a state.
///
/// # Errors
/// Those of [`recipe`].
pub fn state_init(
    init: &GraphInit,
    weight: impl Fn() -> Option<Weight>,
) -> Result<StateInit, Unsupported> {
    match init {
        GraphInit::Zeros => Ok(StateInit::Zeros),
        GraphInit::Weight(_) => {
            let weight =
                weight().ok_or_else(|| Unsupported::new("a state without its first value"))?;
            let shape = constant(&weight.ty)?;
            Ok(StateInit::Recipe(recipe(&weight, &shape)?))
        }
    }
}

fn constant(ty: &Type) -> Result<Vec<u64>, Unsupported> {
    ty.shape
        .as_const()
        .ok_or_else(|| Unsupported::new(format!("{ty}, whose extents are not constant")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_into_boxes() {
        for dims in [&[4u64, 3, 5][..], &[7], &[1, 6], &[2, 1, 3]] {
            let total: u64 = dims.iter().product();
            for start in 0..total {
                for end in start..=total {
                    let mut seen = vec![];
                    for part in cut(&(start..end), dims) {
                        let sizes: Vec<u64> = part.iter().map(|r| r.end - r.start).collect();
                        for inside in dojoc_ir::tensor::indices(&sizes) {
                            let index = (part.iter().zip(&inside).zip(dims))
                                .fold(0, |n, ((r, i), d)| n * d + r.start + i);
                            seen.push(index);
                        }
                    }
                    assert_eq!(seen, (start..end).collect::<Vec<_>>());
                }
            }
        }
    }
}
