//! Comparison of tensors with a reference.

use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

/// When two floating-point tensors agree. Integers and truth values must always be equal.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Criterion {
    /// Every element: `|a - b| <= atol + rtol * |b|`, b being the reference.
    AllClose {
        /// Relative to the reference's element.
        rtol: f64,
        /// Absolute.
        atol: f64,
    },
    /// The whole: `max |a - b| <= tol * max |b|`.
    Relative(f64),
}

impl Default for Criterion {
    /// What ONNX's own backend tests ask for.
    fn default() -> Self {
        Criterion::AllClose {
            rtol: 1e-3,
            atol: 1e-7,
        }
    }
}

/// How a tensor compares with its reference.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Largest absolute difference between finite elements; 0 where there are none.
    pub max_abs: f64,
    /// Largest magnitude of the reference's finite elements.
    pub scale: f64,
    /// What is wrong, if the tensors do not agree.
    pub mismatch: Option<String>,
}

impl Comparison {
    /// Whether the tensors agree.
    pub fn agrees(&self) -> bool {
        self.mismatch.is_none()
    }

    fn refused(message: String) -> Self {
        Self {
            max_abs: 0.0,
            scale: 0.0,
            mismatch: Some(message),
        }
    }
}

/// Compares a tensor with a reference. Types and shapes must be equal; infinities and NaN must
/// stand in the same places.
pub fn compare(found: &Tensor, reference: &Tensor, criterion: Criterion) -> Comparison {
    if found.dtype() != reference.dtype() || found.shape() != reference.shape() {
        let message = format!("is {}, the reference is {}", found.ty(), reference.ty());
        return Comparison::refused(message);
    }
    if !found.dtype().is_float() {
        return compare_exactly(found, reference);
    }
    let (a, b) = (found.to_f64s(), reference.to_f64s());
    let special = |x: f64, y: f64| !x.is_finite() || !y.is_finite();
    let same_special = |x: f64, y: f64| x == y || (x.is_nan() && y.is_nan());
    let mut max_abs = 0f64;
    let mut scale = 0f64;
    let mut outside = Outside::default();
    for (index, (x, y)) in a.iter().copied().zip(b.iter().copied()).enumerate() {
        if y.is_finite() {
            scale = scale.max(y.abs());
        }
        if special(x, y) {
            if !same_special(x, y) {
                outside.add(index, x, y);
            }
            continue;
        }
        let difference = (x - y).abs();
        max_abs = max_abs.max(difference);
        if let Criterion::AllClose { rtol, atol } = criterion
            && difference > atol + rtol * y.abs()
        {
            outside.add(index, x, y);
        }
    }
    let mut mismatch = outside.describe(found);
    if let Criterion::Relative(tol) = criterion
        && mismatch.is_none()
        && max_abs > tol * scale
    {
        let relative = max_abs / scale;
        mismatch = Some(format!(
            "differs by {relative:.3e} of its largest magnitude, {tol:.3e} is allowed"
        ));
    }
    Comparison {
        max_abs,
        scale,
        mismatch,
    }
}

fn compare_exactly(found: &Tensor, reference: &Tensor) -> Comparison {
    // Truth values may have any byte but zero for true.
    if found.dtype() != DType::Bool && found.bytes() == reference.bytes() {
        return Comparison {
            max_abs: 0.0,
            scale: 0.0,
            mismatch: None,
        };
    }
    let mut max_abs = 0f64;
    let mut scale = 0f64;
    let mut outside = Outside::default();
    for (index, (x, y)) in found.scalars().zip(reference.scalars()).enumerate() {
        scale = scale.max(y.to_f64().abs());
        if x != y {
            max_abs = max_abs.max((x.to_int() as f64 - y.to_int() as f64).abs());
            outside.add(index, x.to_f64(), y.to_f64());
        }
    }
    Comparison {
        max_abs,
        scale,
        mismatch: outside.describe(found),
    }
}

/// Elements that do not agree.
#[derive(Default)]
struct Outside {
    count: usize,
    first: Option<(usize, f64, f64)>,
}

impl Outside {
    fn add(&mut self, index: usize, found: f64, reference: f64) {
        self.count += 1;
        self.first.get_or_insert((index, found, reference));
    }

    fn describe(&self, tensor: &Tensor) -> Option<String> {
        let (index, found, reference) = self.first?;
        let place = dojoc_ir::tensor::unravel(index as u64, tensor.shape());
        // The shortest decimals that mean the same element.
        let show = |x: f64| match tensor.dtype() {
            DType::F16 | DType::Bf16 | DType::F32 => (x as f32).to_string(),
            _ => x.to_string(),
        };
        Some(format!(
            "{} of {} elements differ, first at {place:?}: {}, the reference has {}",
            self.count,
            tensor.len(),
            show(found),
            show(reference)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Tensor {
        Tensor::from_vec(&[values.len() as u64], values.to_vec())
    }

    #[test]
    fn tolerance_is_relative_to_the_reference() {
        let close = Criterion::AllClose {
            rtol: 0.1,
            atol: 0.0,
        };
        assert!(compare(&f32s(&[1.0]), &f32s(&[1.05]), close).agrees());
        let wrong = compare(&f32s(&[1.0, 2.0, 3.0]), &f32s(&[1.0, 4.0, 9.0]), close);
        assert_eq!(
            wrong.mismatch.as_deref(),
            Some("2 of 3 elements differ, first at [1]: 2, the reference has 4")
        );
        assert_eq!((wrong.max_abs, wrong.scale), (6.0, 9.0));
        let whole = Criterion::Relative(0.5);
        assert!(compare(&f32s(&[0.0, 8.0]), &f32s(&[4.0, 8.0]), whole).agrees());
        assert!(!compare(&f32s(&[0.0, 8.0]), &f32s(&[5.0, 8.0]), whole).agrees());
    }

    #[test]
    fn specials_stand_in_the_same_places() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for criterion in [Criterion::default(), Criterion::Relative(1.0)] {
            let same = |a: &[f32], b: &[f32]| compare(&f32s(a), &f32s(b), criterion).agrees();
            assert!(same(&[nan, inf, -inf], &[nan, inf, -inf]));
            assert!(!same(&[inf], &[-inf]));
            assert!(!same(&[nan], &[0.0]));
            assert!(!same(&[1e30], &[inf]));
        }
    }

    #[test]
    fn integers_and_bools_are_exact() {
        let ints = |x: i64| Tensor::from_vec(&[1], vec![x]);
        assert!(compare(&ints(1 << 60), &ints(1 << 60), Criterion::default()).agrees());
        assert!(!compare(&ints((1 << 60) + 1), &ints(1 << 60), Criterion::default()).agrees());
        let bools = |x: u8| Tensor::from_stored(DType::Bool, &[1], vec![x]);
        assert!(compare(&bools(1), &bools(255), Criterion::default()).agrees());
        assert!(!compare(&bools(1), &bools(0), Criterion::default()).agrees());
        assert!(!compare(&ints(1), &bools(1), Criterion::default()).agrees());
    }
}
