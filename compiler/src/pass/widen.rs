//! Evaluation in wider floats than a model asks for.

use dojoc_ir::attr::{Attr, Attrs};
use dojoc_ir::graph::{Module, WeightSource};
use dojoc_ir::level::Level as _;
use dojoc_ir::ops::Op;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Type};

/// `dtype`, or `to` if it is a float that is narrower.
fn wide(dtype: DType, to: DType) -> DType {
    if dtype.is_float() && dtype.bytes() < to.bytes() {
        to
    } else {
        dtype
    }
}

/// The tensor with its floats at least as wide as `to`.
pub(super) fn widened(tensor: &Tensor, to: DType) -> Tensor {
    tensor.convert(wide(tensor.dtype(), to))
}

fn wide_attr(attr: Attr, to: DType) -> Attr {
    match attr {
        Attr::DType(dtype) => Attr::DType(wide(dtype, to)),
        Attr::List(items) => Attr::List(items.into_iter().map(|a| wide_attr(a, to)).collect()),
        other => other,
    }
}

/// The module with every float type narrower than `to` replaced by `to`: with f64, what it means
/// without rounding. The values of weights stay what they are. `None` where an op depends on the
/// width of its types (`bit_cast`, say), or bytes of weights are not at hand.
pub fn widen(module: &Module, to: DType) -> Option<Module> {
    let mut module = module.clone();
    let wide_ty = |ty: &Type| ty.with_dtype(wide(ty.dtype, to));
    for (_, weight) in module.weights.iter_mut() {
        if wide(weight.ty.dtype, to) != weight.ty.dtype {
            let data = widened(weight.data.as_ref()?, to);
            weight.ty = data.ty();
            weight.data = Some(data);
            weight.source = WeightSource::Inline;
        }
    }
    for (_, state) in module.states.iter_mut() {
        state.ty = wide_ty(&state.ty);
    }
    for (_, func) in module.functions.iter_mut() {
        for (_, value) in func.values.iter_mut() {
            value.ty = wide_ty(&value.ty);
        }
        for (_, node) in func.nodes.iter_mut() {
            let attrs = node.op.attrs().0.into_iter();
            let attrs = attrs.map(|(name, attr)| (name, wide_attr(attr, to)));
            node.op = Op::parse(node.op.name(), &Attrs(attrs.collect()))?.ok()?;
        }
    }
    module.verify().ok()?;
    Some(module)
}
