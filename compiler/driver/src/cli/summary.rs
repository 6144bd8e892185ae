//! One line about a tensor.

use dojoc::{DType, Tensor};
use serde_json::{Value, json};

/// Tensors of at most this many elements are shown whole.
const SHOWN: usize = 8;

/// A number with six significant digits.
pub fn number(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return format!("{x}");
    }
    let magnitude = x.abs().log10().floor() as i32;
    if !(-5..9).contains(&magnitude) {
        return format!("{x:.5e}");
    }
    let decimals = usize::try_from(5 - magnitude).unwrap_or(0);
    let text = format!("{x:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Type, range and mean, and the values themselves where they are few.
pub fn describe(tensor: &Tensor) -> String {
    let ty = tensor.ty();
    if tensor.is_empty() {
        return format!("{ty}  empty");
    }
    let values = tensor.to_f64s();
    if tensor.dtype() == DType::Bool {
        let count = values.iter().filter(|v| **v != 0.0).count();
        return format!("{ty}  {count} of {} true", values.len());
    }
    let numbers: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    let mut text = match numbers.is_empty() {
        true => ty.to_string(),
        false => {
            let min = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let max = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
            let [min, max, mean] = [min, max, mean].map(number);
            format!("{ty}  min {min}  max {max}  mean {mean}")
        }
    };
    let nans = values.len() - numbers.len();
    if nans > 0 {
        text += &format!("  {nans} NaN");
    }
    if values.len() <= SHOWN {
        let values: Vec<String> = values.into_iter().map(number).collect();
        text += &format!("  [{}]", values.join(", "));
    }
    text
}

/// Name, type and range as an object; numbers that JSON does not have are null.
pub fn object(name: &str, tensor: &Tensor) -> Value {
    let values = tensor.to_f64s();
    let numbers = || values.iter().copied().filter(|v| !v.is_nan());
    let count = numbers().count();
    let (min, max) = (numbers().reduce(f64::min), numbers().reduce(f64::max));
    let mean = (count > 0).then(|| numbers().sum::<f64>() / count as f64);
    json!({
        "name": name,
        "dtype": tensor.dtype().name(),
        "shape": tensor.shape(),
        "min": min,
        "max": max,
        "mean": mean,
        "nan": values.len() - count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let of =
            |values: &[f32]| describe(&Tensor::from_vec(&[values.len() as u64], values.to_vec()));
        assert_eq!(
            of(&[1.0, 2.5]),
            "f32[2]  min 1  max 2.5  mean 1.75  [1, 2.5]"
        );
        assert_eq!(of(&[f32::NAN]), "f32[1]  1 NaN  [NaN]");
        assert_eq!(of(&[]), "f32[0]  empty");
        let flags = Tensor::from_stored(DType::Bool, &[3], vec![1u8, 0, 2]);
        assert_eq!(describe(&flags), "bool[3]  2 of 3 true");
    }

    #[test]
    fn numbers() {
        for (x, text) in [
            (0.0, "0"),
            (1.0 / 3.0, "0.333333"),
            (-1234567.0, "-1234567"),
            (1e20, "1.00000e20"),
            (123.456789, "123.457"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(number(x), text);
        }
    }
}
