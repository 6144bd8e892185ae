//! Which values are known when compiling.

use dojoc_ir::access::{Expr, Tiling};
use dojoc_ir::graph::{Function, Module, ValueDef, ValueId};
use dojoc_ir::ops::{EvalCx, EvalError};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;

/// Weights of more elements than this are not looked through for one repeated value.
const SPLAT_LIMIT: usize = 64;

/// Whether a value is a weight, or the result of an op without operands.
pub(crate) fn is_constant(func: &Function, value: ValueId) -> bool {
    match func.values[value].def {
        ValueDef::Weight(_) => true,
        ValueDef::Result(node, _) => {
            let node = &func.nodes[node];
            node.args.is_empty() && node.regions.is_empty()
        }
        _ => false,
    }
}

/// The tensor of a constant, if its bytes are at hand, its extents are known and it is at most
/// `limit` bytes large.
pub(crate) fn as_constant(
    module: &Module,
    func: &Function,
    value: ValueId,
    limit: u64,
) -> Option<Tensor> {
    let ty = func.ty(value);
    ty.shape.as_const()?;
    if !is_constant(func, value) || ty.max_bytes()? > limit {
        return None;
    }
    match func.values[value].def {
        ValueDef::Weight(weight) => module.weights[weight].data.clone(),
        ValueDef::Result(node, position) => {
            let mut no_regions = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
            let results = func.nodes[node]
                .op
                .eval(&[], &mut EvalCx::new(&mut no_regions));
            results.ok()?.into_iter().nth(position as usize)
        }
        _ => None,
    }
}

/// The one value that all elements of a constant have, whatever its extents.
pub(crate) fn splat(module: &Module, func: &Function, value: ValueId) -> Option<Scalar> {
    let data = match func.values[value].def {
        ValueDef::Weight(weight) => {
            let data = module.weights[weight].data.as_ref()?;
            (data.len() <= SPLAT_LIMIT).then_some(data)?
        }
        ValueDef::Result(node, _) if is_constant(func, value) => {
            let Tiling::Loop(access) = func.nodes[node].op.tiling(&[]) else {
                return None;
            };
            return match &access.body[..] {
                [Expr::Const(number, dtype)] => Some(number.to_scalar(*dtype)),
                _ => None,
            };
        }
        _ => return None,
    };
    repeated(data)
}

/// The value of all elements of a tensor, if they have one.
pub(crate) fn repeated(data: &Tensor) -> Option<Scalar> {
    if data.is_empty() {
        return None;
    }
    let size = data.dtype().bytes() as usize;
    let (first, rest) = data.bytes().split_at(size);
    rest.chunks(size)
        .all(|chunk| chunk == first)
        .then(|| data.get(0))
}
