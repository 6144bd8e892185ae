//! Replaces ops whose tiling rule is a graph of other ops by that graph.
//!
//! Normalisations, softmax, attention and the like are kept whole while the graph is optimised; a
//! mapper sees the loop nests they are made of, so that it can give all of them one split.
//!
//! Before: verified. After: no op's tiling rule is `Expand`. Cost: number of nodes of the result.

use std::collections::BTreeMap;

use dojoc_ir::access::Tiling;
use dojoc_ir::diag::Diagnostics;
use dojoc_ir::graph::{Function, Module, ValueId};
use dojoc_ir::ops::TypeError;

use super::edit::{Editor, rewrite};
use crate::pass::{Effect, Pass, PassCx};

/// Expands ops into what they are made of.
pub const PASS: Pass<Module> = Pass {
    name: "expand",
    doc: "Replaces ops that are tiled through an expansion by it.",
    effect: Effect::Bounded,
    run,
};

/// Expansions inside expansions, at most: rules only go from composites to simpler ops.
const MAX_DEPTH: usize = 16;

fn run(module: Module, cx: &mut PassCx<'_>) -> Result<Module, Diagnostics> {
    rewrite(module, cx, &mut |e, node, cx| {
        let data = &e.func.nodes[node];
        let types = e.func.types(&data.args);
        let Tiling::Expand(body) = data.op.tiling(&types) else {
            return Ok(None);
        };
        if !cx.spend() {
            return Ok(None);
        }
        let args = data.args.clone();
        inline(e, &body, &args, 0).map(Some)
    })
}

/// Adds the nodes of a function that has no weights, states or regions.
fn inline(
    e: &mut Editor<'_>,
    body: &Function,
    args: &[ValueId],
    depth: usize,
) -> Result<Vec<ValueId>, TypeError> {
    if depth > MAX_DEPTH {
        return Err(TypeError::new("expansions are nested too deeply"));
    }
    let mut values: BTreeMap<ValueId, ValueId> = body
        .inputs()
        .iter()
        .copied()
        .zip(args.iter().copied())
        .collect();
    let find = |values: &BTreeMap<ValueId, ValueId>, v: &ValueId| {
        let missing = || TypeError::new("an expansion refers to a value outside of it");
        values.get(v).copied().ok_or_else(missing)
    };
    for node in &body.regions[body.body()].nodes {
        let node = &body.nodes[*node];
        let args: Vec<ValueId> = (node.args.iter())
            .map(|v| find(&values, v))
            .collect::<Result<_, _>>()?;
        let results = match node.op.tiling(&e.func.types(&args)) {
            Tiling::Expand(inner) => inline(e, &inner, &args, depth + 1)?,
            _ => e.emit_all(node.op.clone(), &args)?,
        };
        values.extend(node.results.iter().copied().zip(results));
    }
    body.results().iter().map(|v| find(&values, v)).collect()
}
