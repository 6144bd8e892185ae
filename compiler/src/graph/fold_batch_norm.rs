//! Removes batch normalisations with constant statistics.
//!
//! Notation: `batch_norm(x) = x * factor[c] + shift[c]` with `factor = scale / sqrt(variance +
//! epsilon)` and `shift = bias - mean * factor`, computed in f64.
//!
//! Where x is made by a contraction with constant weights (`conv`, `conv_transpose`, `dot`) and used
//! nowhere else, the factor goes into the weights and an addition of the shift remains; a constant
//! added per channel in between goes into the shift. Elsewhere a multiplication and an addition
//! remain. New weights are inline and of the old ones' type: `fold_batch_norm_bytes` bounds each.
//!
//! Before: verified. After: batch normalisations have statistics that are not constant, or divide by
//! zero. What is no longer used is left to `dead-code`. Cost: one product per element of a weight.

use dojoc_ir::diag::Diagnostics;
use dojoc_ir::graph::Module;

use super::edit::rewrite;
use crate::pass::{Effect, Pass, PassCx};
use crate::rewrite::batch_norm;

/// Folds batch normalisations into weights.
pub const PASS: Pass<Module> = Pass {
    name: "fold-batch-norm",
    doc: "Folds batch normalisations with constant statistics into the weights before them.",
    effect: Effect::Bounded,
    run,
};

fn run(module: Module, cx: &mut PassCx<'_>) -> Result<Module, Diagnostics> {
    let limit = cx.options.fold_batch_norm_bytes;
    rewrite(module, cx, &mut |e, node, cx| {
        let Some(norm) = batch_norm::affine(e, node) else {
            return Ok(None);
        };
        if !cx.spend() {
            return Ok(None);
        }
        let value = match batch_norm::producer(e, &norm, limit) {
            Some(producer) => batch_norm::fold(e, node, &norm, producer)?,
            None => batch_norm::expand(e, node, &norm)?,
        };
        Ok(Some(vec![value]))
    })
}
