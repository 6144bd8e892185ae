//! THE list of passes, in the order in which they run, each line with its reason.

use dojoc_ir::graph::Module;

use crate::graph::{
    canonicalise, common_subexpressions, dead_code, fold_batch_norm, fold_constants, precision,
};
use crate::pass::Pass;

/// A pass at its place in the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct PipelineStep {
    /// The pass.
    pub pass: &'static Pass<Module>,
    /// Why it runs at this place.
    pub reason: &'static str,
}

macro_rules! steps {
    ($($module:ident: $reason:literal,)+) => {
        &[$(PipelineStep { pass: &$module::PASS, reason: $reason },)+]
    };
}

/// The passes of the GRAPH level.
#[rustfmt::skip]
pub const GRAPH: &[PipelineStep] = steps! {
    dead_code: "imported models carry branches that nobody reads; later passes should not see them",
    fold_constants: "shapes, masks and transposed weights become constants that later rules recognise",
    canonicalise: "one form of each node, before equal ones are sought",
    common_subexpressions: "a contraction that is used once more after merging may not take a normalisation",
    fold_batch_norm: "needs constant statistics; before precision, so that weights are scaled in f32",
    precision: "after all that computes on weights; its conversions of constants are folded next",
    fold_constants: "converted weights, and constants that canonicalising uncovered",
    canonicalise: "conversions to and fro cancel; sums with folded constants are ordered",
    common_subexpressions: "what became equal only in its final form",
    dead_code: "what the passes before left behind",
};

/// Every pass once, in the order of first use.
pub fn passes() -> Vec<&'static Pass<Module>> {
    let mut passes: Vec<&'static Pass<Module>> = vec![];
    for step in GRAPH {
        if passes.iter().all(|p| p.name != step.pass.name) {
            passes.push(step.pass);
        }
    }
    passes
}

/// The pass of a name.
pub fn find(name: &str) -> Option<&'static Pass<Module>> {
    passes().into_iter().find(|p| p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_words() {
        for pass in passes() {
            let word = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(pass.name.chars().all(word), "{}", pass.name);
            assert!(pass.doc.ends_with('.'), "{}", pass.name);
            assert!(find(pass.name).is_some_and(|found| found.name == pass.name));
        }
        assert!(find("no-such-pass").is_none());
    }
}
