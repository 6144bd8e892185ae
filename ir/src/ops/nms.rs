//! Selection of boxes that do not overlap.

use super::dynamic::{check_extent, settle_extent};
use super::movement::compare;
use super::{EvalCx, EvalError, OpDef, Sample, TypeError, arity};
use crate::access::{Kernel, KernelFn, Tiling};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::{DType, Shape, Type};

op_struct! {
    /// Boxes of high score that do not overlap: operands (boxes: f32 [batch, boxes, 4], scores:
    /// f32 [batch, classes, boxes], most per class: i64[], overlap threshold: f32[], score
    /// threshold: f32[]), result i64 [extent, 3] of rows (batch, class, box).
    ///
    /// For every batch and class, in order, the boxes with a score above the score threshold are
    /// visited by descending score (of equals the lower index first); a box is selected unless the
    /// intersection with a selected one is more than the overlap threshold times their union, until
    /// `most per class` are selected. A NaN score is not above the threshold, and boxes without area
    /// do not overlap anything.
    NonMaxSuppression {
        /// A box is (x of the centre, y of the centre, width, height); otherwise two opposite
        /// corners (y, x, y, x) in any order.
        center_point: bool,
        /// The number of selected boxes: a symbol, or a constant that the data must meet.
        extent: Dim,
    }
}

/// Intervals along both axes.
#[derive(Clone, Copy)]
struct Area {
    low: [f32; 2],
    high: [f32; 2],
}

impl Area {
    fn size(&self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Whether the intersection is more than `threshold` of the union.
    fn overlaps(&self, other: &Area, threshold: f32) -> bool {
        if !(self.size() > 0.0 && other.size() > 0.0) {
            return false;
        }
        let side = |axis: usize| {
            let (low, high) = (
                self.low[axis].max(other.low[axis]),
                self.high[axis].min(other.high[axis]),
            );
            (high - low).max(0.0)
        };
        let shared = side(0) * side(1);
        let union = self.size() + other.size() - shared;
        union > 0.0 && shared / union > threshold
    }
}

impl NonMaxSuppression {
    fn area(&self, corners: &[f32]) -> Area {
        if self.center_point {
            let interval = |center: f32, size: f32| (center - size / 2.0, center + size / 2.0);
            let (x, y) = (
                interval(corners[0], corners[2]),
                interval(corners[1], corners[3]),
            );
            return Area {
                low: [y.0, x.0],
                high: [y.1, x.1],
            };
        }
        Area {
            low: [corners[0].min(corners[2]), corners[1].min(corners[3])],
            high: [corners[0].max(corners[2]), corners[1].max(corners[3])],
        }
    }
}

impl OpDef for NonMaxSuppression {
    const NAMES: &'static [&'static str] = &["non_max_suppression"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [boxes, scores, most, overlap, score] = arity(args)?;
        check_extent(&self.extent)?;
        let pairs = boxes.rank() == 3
            && scores.rank() == 3
            && boxes.shape[0] == scores.shape[0]
            && boxes.shape[1] == scores.shape[2]
            && boxes.shape[2].is(4);
        if !pairs || boxes.dtype != DType::F32 || scores.dtype != DType::F32 {
            type_error!(
                "expected boxes f32[b, n, 4] and scores f32[b, c, n], found {boxes} and {scores}"
            );
        }
        let threshold = Type::scalar(DType::F32);
        if *most != Type::scalar(DType::I64) || *overlap != threshold || *score != threshold {
            type_error!("expected i64[], f32[], f32[], found {most}, {overlap}, {score}");
        }
        let shape = Shape::new([self.extent.clone(), Dim::Const(3)]);
        Ok(vec![Type::new(DType::I64, shape)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (boxes, scores) = (args[0].stored::<f32>(), args[1].stored::<f32>());
        let (batches, classes, count) = match args[1].shape() {
            [batches, classes, count] => (*batches, *classes, *count as usize),
            other => return Err(EvalError::value(format!("scores of shape {other:?}"))),
        };
        let most = usize::try_from(args[2].get(0).to_int().max(0)).unwrap_or(usize::MAX);
        let [overlap, least] = [3, 4].map(|n| args[n].get(0).to_f64() as f32);
        let mut rows = vec![];
        for batch in 0..batches {
            let first = batch as usize * count;
            let areas: Vec<Area> = boxes[first * 4..(first + count) * 4]
                .chunks_exact(4)
                .map(|corners| self.area(corners))
                .collect();
            for class in 0..classes {
                let start = (batch * classes + class) as usize * count;
                let scores = &scores[start..start + count];
                let mut order: Vec<usize> = (0..count).filter(|i| scores[*i] > least).collect();
                order.sort_by(|a, b| compare(Scalar::F32(scores[*b]), Scalar::F32(scores[*a])));
                let mut selected: Vec<usize> = vec![];
                for candidate in order {
                    if selected.len() >= most {
                        break;
                    }
                    let area = &areas[candidate];
                    if !selected.iter().any(|s| area.overlaps(&areas[*s], overlap)) {
                        selected.push(candidate);
                        rows.extend([batch as i64, class as i64, candidate as i64]);
                    }
                }
            }
        }
        settle_extent(&self.extent, rows.len() / 3)?;
        Ok(vec![Tensor::from_vec(&[rows.len() as u64 / 3, 3], rows)])
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        Tiling::Kernel(Kernel {
            function: KernelFn::Other,
            dims: vec![],
            index_operands: vec![0, 1],
        })
    }

    fn samples() -> Vec<Sample> {
        let sample = |center_point, [batch, classes, boxes]: [u64; 3], most: i64, score: f32| {
            let extent = Dim::symbol("selected", batch * classes * boxes);
            let op = NonMaxSuppression {
                center_point,
                extent,
            };
            let types = [
                Type::of(DType::F32, &[batch, boxes, 4]),
                Type::of(DType::F32, &[batch, classes, boxes]),
                Type::scalar(DType::I64),
                Type::scalar(DType::F32),
                Type::scalar(DType::F32),
            ];
            Sample::new(op, &types)
                .range(0, 0.0, 1.0)
                .given(2, Tensor::from_vec(&[], vec![most]))
                .given(3, Tensor::from_vec(&[], vec![0.25f32]))
                .given(4, Tensor::from_vec(&[], vec![score]))
        };
        vec![
            sample(false, [2, 2, 6], 3, 0.0),
            sample(true, [1, 1, 8], i64::MAX, f32::NEG_INFINITY),
            sample(false, [1, 2, 5], 0, 0.0),
            sample(false, [1, 2, 0], 5, 0.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        op: &NonMaxSuppression,
        boxes: &[f32],
        scores: &[f32],
        most: i64,
    ) -> Result<Vec<i64>, EvalError> {
        let count = scores.len() as u64;
        let args = [
            Tensor::from_vec(&[1, count, 4], boxes.to_vec()),
            Tensor::from_vec(&[1, 1, count], scores.to_vec()),
            Tensor::from_vec(&[], vec![most]),
            Tensor::from_vec(&[], vec![0.5f32]),
            Tensor::from_vec(&[], vec![0.1f32]),
        ];
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
        let results = op.eval(&args, &mut EvalCx::new(&mut none))?;
        Ok(results[0].to_i64s())
    }

    #[test]
    fn overlapping_boxes_of_lower_score_are_left_out() {
        let mut op = NonMaxSuppression {
            center_point: false,
            extent: Dim::symbol("n", 5),
        };
        // The second lies on the first (its corners the other way round), the third apart, the
        // fourth scores too low, the fifth not at all.
        let boxes = [
            [0.0, 0.0, 1.0, 1.0],
            [1.0, 1.1, 0.0, 0.1],
            [0.0, 5.0, 1.0, 6.0],
            [9.0, 9.0, 10.0, 10.0],
            [7.0, 7.0, 8.0, 8.0],
        ];
        let scores = [0.8, 0.9, 0.8, 0.1, f32::NAN];
        assert_eq!(
            run(&op, boxes.as_flattened(), &scores, 9),
            Ok(vec![0, 0, 1, 0, 0, 2])
        );
        assert_eq!(
            run(&op, boxes.as_flattened(), &scores, 1),
            Ok(vec![0, 0, 1])
        );
        assert_eq!(run(&op, boxes.as_flattened(), &scores, -1), Ok(vec![]));
        op.extent = Dim::symbol("n", 1);
        assert!(run(&op, boxes.as_flattened(), &scores, 9).is_err());
    }

    #[test]
    fn boxes_may_be_given_by_their_centre() {
        let op = NonMaxSuppression {
            center_point: true,
            extent: Dim::symbol("n", 3),
        };
        let boxes = [
            [0.5, 0.5, 1.0, 1.0],
            [0.6, 0.5, 1.0, 1.0],
            [0.5, 0.5, 0.0, 1.0],
        ];
        // The last has no area and overlaps nothing.
        assert_eq!(
            run(&op, boxes.as_flattened(), &[0.9, 0.8, 0.7], 9),
            Ok(vec![0, 0, 0, 0, 0, 2])
        );
    }
}
