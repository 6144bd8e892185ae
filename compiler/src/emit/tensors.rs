//! Inputs, weights, states and outputs: declarations and recipes.

use std::sync::Arc;

use dojoc_ir::diag::Loc;
use dojoc_ir::graph::{StateInit as GraphInit, Weight, WeightSource};
use dojoc_ir::program::{
    Affine, Recipe, RecipeNode, Shard, StateInit, TensorDecl, TensorId, TensorKind,
};
use dojoc_ir::types::{DType, Type};

use super::Unsupported;
use super::program::ProgramBuilder;

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
            data: data.bytes().clone(),
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
