//! THE list of passes, in the order in which they run, each line with its reason.

use dojoc_ir::graph::Module;

use crate::graph::{
    canonicalise, common_subexpressions, dead_code, expand, fold_batch_norm, fold_constants,
    precision, saturate,
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
    dead_code: "contractions that were replaced should not be converted",
    saturate: "needs batch norms gone and shapes folded; before precision, so that rules fold weights in f32",
    fold_constants: "what rules have left of constants",
    dead_code: "forms that rules have replaced",
    precision: "after all that computes on weights; its conversions of constants are folded next",
    fold_constants: "converted weights, and constants that canonicalising uncovered",
    canonicalise: "conversions to and fro cancel; sums with folded constants are ordered",
    common_subexpressions: "what became equal only in its final form",
    dead_code: "what the passes before left behind",
};

/// The passes between GRAPH and tiling.
#[rustfmt::skip]
pub const LOWER: &[PipelineStep] = steps! {
    expand: "the mapper works on loop nests, views and kernels",
    fold_constants: "expansions of constants",
    canonicalise: "conversions and constants that expansions brought",
    common_subexpressions: "expansions of neighbours share their parts",
    dead_code: "the ops that were expanded",
};

/// What a [`Stage`] makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    /// The TILED level.
    Tiled,
    /// The MESH level.
    Mesh,
    /// The PROGRAM level.
    Program,
}

/// A step from level to level below GRAPH, see [`lower`](crate::lower).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage {
    /// Name.
    pub name: &'static str,
    /// What it makes.
    pub made: Made,
}

/// The steps after all passes, in their order. Flows are found while places are chosen, so `place` and
/// `route` end together.
#[rustfmt::skip]
pub const STAGES: &[Stage] = &[
    Stage { name: "tile", made: Made::Tiled },
    Stage { name: "place", made: Made::Mesh },
    Stage { name: "route", made: Made::Mesh },
    Stage { name: "emit", made: Made::Program },
];

/// Every pass once, in the order of the alphabet.
pub fn passes() -> &'static [&'static Pass<Module>] {
    &[
        &canonicalise::PASS,
        &common_subexpressions::PASS,
        &dead_code::PASS,
        &expand::PASS,
        &fold_batch_norm::PASS,
        &fold_constants::PASS,
        &precision::PASS,
        &saturate::PASS,
    ]
}

/// The pass of a name.
pub fn find(name: &str) -> Option<&'static Pass<Module>> {
    passes().iter().copied().find(|p| p.name == name)
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
        assert!(passes().is_sorted_by_key(|pass| pass.name));
        assert!(find("no-such-pass").is_none());
    }

    #[test]
    fn the_pipeline_has_every_pass() {
        let mut used: Vec<&str> = GRAPH
            .iter()
            .chain(LOWER)
            .map(|step| step.pass.name)
            .collect();
        used.sort_unstable();
        used.dedup();
        assert!(used.into_iter().eq(passes().iter().map(|pass| pass.name)));
    }
}
