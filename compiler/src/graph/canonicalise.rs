//! Brings nodes into the one form in which other passes expect them, and removes those that do
//! nothing.
//!
//! The rules are in [`crate::rewrite`]: a node becomes an operand or a simpler node with the same
//! value, bit for bit.
//!
//! Before: verified. After: no rule applies to any node. What is no longer used is left to
//! `dead-code`. Cost: number of nodes; every rule looks at a node and those next to it, and operands
//! are in their final form before the nodes that use them.

use dojoc_ir::diag::Diagnostics;
use dojoc_ir::graph::Module;

use super::edit::rewrite;
use crate::pass::{Effect, Pass, PassCx};
use crate::rewrite::identities::{Rewrite, simplify};

/// Removes identities and orders operands.
pub const PASS: Pass<Module> = Pass {
    name: "canonicalise",
    doc: "Removes nodes that do nothing, merges chains, moves constants to the right.",
    effect: Effect::Exact,
    run,
};

fn run(module: Module, cx: &mut PassCx<'_>) -> Result<Module, Diagnostics> {
    rewrite(module, cx, &mut |e, node, cx| {
        loop {
            let data = &e.func.nodes[node];
            let [result] = data.results[..] else {
                return Ok(None);
            };
            let found = simplify(e, &data.op, &data.args, e.func.ty(result));
            let Some(found) = found.filter(|_| cx.spend()) else {
                return Ok(None);
            };
            match found {
                Rewrite::Value(value) => return Ok(Some(vec![value])),
                Rewrite::Node(op, args) => {
                    let data = &mut e.func.nodes[node];
                    data.op = op;
                    data.args = args;
                }
            }
        }
    })
}
