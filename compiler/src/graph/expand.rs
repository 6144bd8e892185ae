//! Replaces ops whose tiling rule is a graph of other ops by that graph.
//!
//! Normalisations, softmax, attention and the like are kept whole while the graph is optimised; a
//! mapper sees the loop nests they are made of, so that it can give all of them one split.
//!
//! Before: verified. After: no op's tiling rule is `Expand`. Cost: number of nodes of the result.

use std::rc::Rc;

use dojoc_ir::access::Tiling;
use dojoc_ir::diag::Diagnostics;
use dojoc_ir::entity::SecondaryMap;
use dojoc_ir::graph::{Function, Module, ValueId};
use dojoc_ir::ops::{Op, TypeError};
use dojoc_ir::types::Type;
use foldhash::HashMap;

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
    let mut known = Known::default();
    rewrite(module, cx, &mut |e, node, cx| {
        let data = &e.func.nodes[node];
        let Some(body) = expansion(&mut known, &data.op, e.func.types(&data.args)) else {
            return Ok(None);
        };
        if !cx.spend() {
            return Ok(None);
        }
        let args = data.args.clone();
        inline(e, &mut known, &body, &args, 0).map(Some)
    })
}

/// What ops expand to, by the types of their operands; `None` for those that do not.
type Known = HashMap<(Op, Vec<Type>), Option<Rc<Function>>>;

/// What an op expands to, if it does.
fn expansion(known: &mut Known, op: &Op, args: Vec<Type>) -> Option<Rc<Function>> {
    let entry = known.entry((op.clone(), args));
    let expand = |(op, args): &(Op, Vec<Type>)| match op.tiling(args) {
        Tiling::Expand(body) => Some(Rc::new(body)),
        _ => None,
    };
    entry.or_insert_with_key(expand).clone()
}

/// Adds the nodes of a function that has no weights, states or regions.
fn inline(
    e: &mut Editor<'_>,
    known: &mut Known,
    body: &Function,
    args: &[ValueId],
    depth: usize,
) -> Result<Vec<ValueId>, TypeError> {
    if depth > MAX_DEPTH {
        return Err(TypeError::new("expansions are nested too deeply"));
    }
    let mut values: SecondaryMap<ValueId, Option<ValueId>> = SecondaryMap::new(None);
    for (input, arg) in body.inputs().iter().zip(args) {
        values.set(*input, Some(*arg));
    }
    let find = |values: &SecondaryMap<ValueId, Option<ValueId>>, v: &ValueId| {
        let missing = || TypeError::new("an expansion refers to a value outside of it");
        values[*v].ok_or_else(missing)
    };
    for node in &body.regions[body.body()].nodes {
        let node = &body.nodes[*node];
        let args: Vec<ValueId> = (node.args.iter())
            .map(|v| find(&values, v))
            .collect::<Result<_, _>>()?;
        let results = match expansion(known, &node.op, e.func.types(&args)) {
            Some(inner) => inline(e, known, &inner, &args, depth + 1)?,
            None => e.emit_all(node.op.clone(), &args)?,
        };
        for (old, new) in node.results.iter().zip(results) {
            values.set(*old, Some(new));
        }
    }
    body.results().iter().map(|v| find(&values, v)).collect()
}
