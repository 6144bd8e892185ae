//! How the values of one point differ.

use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;

use super::SLACK;

fn is_nan(value: Scalar) -> bool {
    value.to_f64().is_nan()
}

/// Where two tensors differ in more than which NaN they have.
pub fn exact_difference(before: &Tensor, after: &Tensor) -> Option<String> {
    if before == after {
        return None;
    }
    if before.ty() != after.ty() {
        return Some(format!("it was {} and is {}", before.ty(), after.ty()));
    }
    let float = before.dtype().is_float();
    let same = |x: Scalar, y: Scalar| match (x, y) {
        _ if float && is_nan(x) => is_nan(y),
        (Scalar::F32(x), Scalar::F32(y)) => x.to_bits() == y.to_bits(),
        (Scalar::F64(x), Scalar::F64(y)) => x.to_bits() == y.to_bits(),
        _ => x == y,
    };
    let mut pairs = before.scalars().zip(after.scalars()).enumerate();
    let (position, (x, y)) = pairs.find(|(_, (x, y))| !same(*x, *y))?;
    Some(format!("element {position} was {x:?} and is {y:?}"))
}

/// Where a value is outside its bound: twice the distance that it had before, and [`SLACK`] times
/// `slack`.
pub fn bounded_difference(
    expected: &Tensor,
    before: &Tensor,
    after: &Tensor,
    slack: f64,
) -> Option<String> {
    if before.shape() != after.shape() {
        return Some(format!("it was {} and is {}", before.ty(), after.ty()));
    }
    if !before.dtype().is_float() {
        return (slack == 0.0)
            .then(|| exact_difference(before, after))
            .flatten();
    }
    let same_shape = expected.shape() == after.shape();
    let expected = if same_shape { expected } else { before };
    for (position, ((e, x), y)) in expected
        .scalars()
        .zip(before.scalars())
        .zip(after.scalars())
        .enumerate()
    {
        let (e, x, y) = (e.to_f64(), x.to_f64(), y.to_f64());
        let allowed = 2.0 * (x - e).abs() + SLACK * slack;
        let same = y == e || (y.is_nan() && e.is_nan()) || y == x || (y.is_nan() && x.is_nan());
        // A bound that is no number allows nothing, so that no difference hides behind it.
        let within = (y - e).abs() <= allowed;
        if !same && !within {
            return Some(format!(
                "element {position} is {y}, {e} is expected and a difference of {allowed:e} allowed"
            ));
        }
    }
    None
}

/// The largest difference of two tensors of floats, relative to the largest magnitude of the second;
/// 0 for other types. Elements that are not finite in one of them do not count.
pub fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    if !found.dtype().is_float() || found.shape() != expected.shape() {
        return 0.0;
    }
    let (mut far, mut scale) = (0.0f64, f64::MIN_POSITIVE);
    for (x, y) in found.scalars().zip(expected.scalars()) {
        let (x, y) = (x.to_f64(), y.to_f64());
        if x.is_finite() && y.is_finite() {
            far = far.max((x - y).abs());
            scale = scale.max(y.abs());
        }
    }
    far / scale
}
