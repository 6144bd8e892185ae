//! Data that the training of a network has not seen, and how well the network does on it.

use std::error::Error;
use std::fmt;
use std::path::Path;

use dojoc_compiler::io::npz::read_npz;
use dojoc_ir::tensor::Tensor;
use serde_json::Value;

/// Held-out data of a network: `heldout.npz` beside the model.
pub struct HeldOut {
    /// The input: array `x`.
    pub input: Tensor,
    wanted: Wanted,
    /// What the network is known to reach: `metric` of `info.json`, if there is one.
    pub expected: Option<Score>,
}

enum Wanted {
    /// Class of every row: array `labels`.
    Labels(Vec<i64>),
    /// An image, its values between 0 and 1: array `hi`.
    Image(Vec<f64>),
}

/// How well a network does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Rows whose greatest score is that of their class, of all rows; in percent.
    Accuracy(f64),
    /// Peak signal-to-noise ratio in dB.
    Psnr(f64),
}

impl Score {
    /// How far it is from another of its kind, in points or dB; infinite for another kind.
    pub fn distance(self, other: Self) -> f64 {
        match (self, other) {
            (Self::Accuracy(a), Self::Accuracy(b)) | (Self::Psnr(a), Self::Psnr(b)) => {
                (a - b).abs()
            }
            _ => f64::INFINITY,
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accuracy(percent) => write!(f, "accuracy {percent:.2} %"),
            Self::Psnr(db) => write!(f, "PSNR {db:.2} dB"),
        }
    }
}

impl HeldOut {
    /// The data beside a model, if there is any.
    ///
    /// # Errors
    /// Files that cannot be read, and data of no known kind.
    pub fn read(case: &Path) -> Result<Option<Self>, Box<dyn Error>> {
        let path = case.join("heldout.npz");
        if !path.exists() {
            return Ok(None);
        }
        let arrays = read_npz(path)?;
        let get = |name: &str| -> Result<Option<Tensor>, Box<dyn Error>> {
            let found = arrays.iter().find(|(n, _)| n.as_str() == name);
            Ok(found.map(|(_, raw)| raw.to_tensor()).transpose()?)
        };
        let input = get("x")?.ok_or("no `x` in heldout.npz")?;
        let wanted = match (get("labels")?, get("hi")?) {
            (Some(labels), _) => Wanted::Labels(labels.to_i64s()),
            (None, Some(image)) => Wanted::Image(image.to_f64s()),
            (None, None) => return Err("neither `labels` nor `hi` in heldout.npz".into()),
        };
        let info = case.join("info.json");
        let expected = match info.exists() {
            true => {
                let info: Value = serde_json::from_str(&std::fs::read_to_string(info)?)?;
                let number = |key: &str| info.get("metric")?.get(key)?.as_f64();
                let top1 = number("top1").map(|share| Score::Accuracy(100.0 * share));
                let found = top1.or_else(|| number("psnr_db").map(Score::Psnr));
                Some(found.ok_or("info.json has no known metric")?)
            }
            false => None,
        };
        Ok(Some(Self {
            input,
            wanted,
            expected,
        }))
    }

    /// Number of rows of the input.
    pub fn rows(&self) -> u64 {
        self.input.shape().first().copied().unwrap_or(0)
    }

    /// The score of an output of the network on the input.
    ///
    /// # Errors
    /// An output that does not go with the data.
    pub fn score(&self, output: &Tensor) -> Result<Score, String> {
        let found = output.to_f64s();
        let wrong = || {
            format!(
                "an output of {} values does not go with the data",
                found.len()
            )
        };
        match &self.wanted {
            Wanted::Labels(labels) => {
                let classes = found.len().checked_div(labels.len()).unwrap_or(0);
                if classes == 0 || classes * labels.len() != found.len() {
                    return Err(wrong());
                }
                let rows = found.chunks(classes).zip(labels);
                let hits = rows.filter(|(scores, label)| {
                    let best = (0..classes).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
                    best == usize::try_from(**label).ok()
                });
                let share = hits.count() as f64 / labels.len() as f64;
                Ok(Score::Accuracy(100.0 * share))
            }
            Wanted::Image(image) => {
                if found.len() != image.len() || image.is_empty() {
                    return Err(wrong());
                }
                let squares = found.iter().zip(image).map(|(f, r)| (f - r).powi(2));
                let mean = squares.sum::<f64>() / image.len() as f64;
                Ok(Score::Psnr(-10.0 * mean.log10()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores() {
        let labels = |labels: &[i64]| HeldOut {
            input: Tensor::from_vec(&[2, 1], vec![0f32; 2]),
            wanted: Wanted::Labels(labels.to_vec()),
            expected: None,
        };
        let output = Tensor::from_vec(&[2, 3], vec![0f32, 1.0, 0.5, 3.0, 2.0, 1.0]);
        let score = |held: &HeldOut| held.score(&output);
        assert_eq!(score(&labels(&[1, 0])), Ok(Score::Accuracy(100.0)));
        assert_eq!(score(&labels(&[1, 2])), Ok(Score::Accuracy(50.0)));
        assert!(score(&labels(&[1, 2, 3, 4])).is_err());
        let image = HeldOut {
            wanted: Wanted::Image(vec![0.0, 1.0, 0.5, 3.0, 2.0, 0.0]),
            ..labels(&[])
        };
        let Ok(Score::Psnr(db)) = score(&image) else {
            panic!("an image has a PSNR");
        };
        assert!((db - 10.0 * 6f64.log10()).abs() < 1e-12, "{db}");
        assert_eq!(Score::Psnr(3.0).distance(Score::Psnr(2.5)), 0.5);
        assert_eq!(
            Score::Psnr(3.0).distance(Score::Accuracy(3.0)),
            f64::INFINITY
        );
    }

    #[test]
    fn the_example_has_held_out_data() {
        let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits");
        let held = HeldOut::read(&digits).expect("it can be read");
        let held = held.expect("it is there");
        assert_eq!((held.rows(), held.expected), (360, None));
        assert!(
            HeldOut::read(Path::new("."))
                .expect("there is none")
                .is_none()
        );
    }
}
