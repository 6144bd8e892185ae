//! Values that a validation runs on.

use dojoc_ir::dim::{Bindings, Dim};
use dojoc_ir::formats::random_bits;
use dojoc_ir::graph::Function;
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::Class;

/// Symbols are at most this long in random inputs.
const SYMBOL_EXTENT: u64 = 3;

/// Random inputs of a function: floats between -1 and 1, integers between 0 and 3, symbols of
/// extent 3 or their bound.
pub fn random_inputs(func: &Function, seed: u64) -> Vec<Tensor> {
    let mut bindings = Bindings::new();
    for value in func.inputs() {
        for dim in func.ty(*value).dims() {
            if let Dim::Expr(poly) = dim {
                poly.for_each_symbol(&mut |name, max| {
                    bindings.insert(name.clone(), max.min(SYMBOL_EXTENT));
                });
            }
        }
    }
    let inputs = func.inputs().iter().enumerate();
    inputs
        .map(|(position, value)| {
            let ty = func.ty(*value);
            let shape = ty.shape.eval(&bindings).unwrap_or_default();
            let count = shape.iter().product::<u64>();
            let values = (0..count).map(|index| {
                let bits = random_bits(seed, 0, position as u64, index);
                match ty.dtype.class() {
                    Class::Float => {
                        Scalar::from_f64(f64::from(bits) / 2f64.powi(31) - 1.0, ty.dtype)
                    }
                    Class::Configurable => Scalar::F32(1.0),
                    _ => Scalar::Int((bits >> 30).into()).convert(ty.dtype),
                }
            });
            Tensor::from_scalars(ty.dtype, &shape, values)
        })
        .collect()
}
