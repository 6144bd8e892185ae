//! Filling and running samples.

use dojoc_ir::graph::{Function, FunctionBuilder};
use dojoc_ir::ops::{Fill, Sample, Tolerance, TypeError};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::Type;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_pcg::Pcg64;

/// A readable name of a sample.
pub fn describe(sample: &Sample) -> String {
    let attrs: Vec<String> = sample
        .op
        .attrs()
        .0
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    let types: Vec<String> = sample.args.iter().map(|a| a.ty.to_string()).collect();
    format!(
        "{} {{{}}} ({})",
        sample.op.name(),
        attrs.join(", "),
        types.join(", ")
    )
}

/// A tensor of random values between the bounds.
pub fn random(ty: &Type, low: f64, high: f64, rng: &mut Pcg64) -> Tensor {
    let shape = ty.shape.as_const().expect("samples have constant extents");
    let count = shape.iter().product::<u64>();
    let values: Vec<Scalar> = (0..count)
        .map(|_| match ty.dtype.is_float() {
            true => Scalar::from_f64(rng.random_range(low..=high), ty.dtype),
            false => Scalar::Int(rng.random_range(low as i64..=high as i64).into()),
        })
        .map(|s| s.convert(ty.dtype))
        .collect();
    Tensor::from_scalars(ty.dtype, &shape, values)
}

/// Values for the operands of a sample.
pub fn fill(sample: &Sample, rng: &mut Pcg64) -> Vec<Tensor> {
    sample
        .args
        .iter()
        .map(|arg| match &arg.fill {
            Fill::Uniform(low, high) => random(&arg.ty, *low, *high, rng),
            Fill::Distinct => {
                let shape = arg
                    .ty
                    .shape
                    .as_const()
                    .expect("samples have constant extents");
                let count = shape.iter().product::<u64>();
                let spread = if arg.ty.dtype.is_float() { 0.5 } else { 1.0 };
                let mut values: Vec<f64> = (0..count)
                    .map(|n| (n as f64 - (count / 3) as f64) * spread)
                    .collect();
                values.shuffle(rng);
                let cast = values.into_iter().map(|v| match arg.ty.dtype.is_float() {
                    true => Scalar::from_f64(v, arg.ty.dtype),
                    false => Scalar::Int(v as i128).convert(arg.ty.dtype),
                });
                Tensor::from_scalars(arg.ty.dtype, &shape, cast)
            }
            Fill::Given(tensor) => tensor.clone(),
        })
        .collect()
}

/// A function that is the sample's op and nothing else.
pub fn instantiate(sample: &Sample) -> Result<Function, TypeError> {
    let mut b = FunctionBuilder::new("sample");
    let inputs: Vec<_> = sample
        .args
        .iter()
        .map(|a| b.param(a.ty.clone(), None))
        .collect();
    let regions = sample
        .regions
        .iter()
        .map(|build| build(&mut b))
        .collect::<Result<Vec<_>, _>>()?;
    let results = b.node_with_regions(sample.op.clone(), &inputs, &regions)?;
    Ok(b.finish_unnamed(&results))
}

/// Compares results element by element.
///
/// # Panics
/// When a difference exceeds the tolerance, relative to the largest magnitude expected.
pub fn assert_close(label: &str, found: &[Tensor], expected: &[Tensor], tolerance: Tolerance) {
    assert_eq!(found.len(), expected.len(), "{label}: number of results");
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.ty(), expected.ty(), "{label}: result {number}");
        let finite = |s: Scalar| {
            if s.to_f64().is_finite() {
                s.to_f64().abs()
            } else {
                0.0
            }
        };
        let scale = expected.scalars().map(finite).fold(0.0, f64::max);
        let allowed = tolerance.relative(expected.dtype()) * scale;
        for (position, (f, e)) in found.scalars().zip(expected.scalars()).enumerate() {
            let (x, y) = (f.to_f64(), e.to_f64());
            let same = f == e || (x.is_nan() && y.is_nan()) || (x - y).abs() <= allowed;
            let exact_type = !matches!(expected.dtype(), d if d.is_float());
            assert!(
                if exact_type { f == e } else { same },
                "{label}: result {number}, element {position}: {f:?} should be {e:?} \
                 (allowed {allowed:e})\n found {found:?}\n expected {expected:?}"
            );
        }
    }
}
