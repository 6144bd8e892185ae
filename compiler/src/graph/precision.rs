//! Inserts the conversions that the chosen precision asks for.
//!
//! Notation: a *contraction* is an op whose tiling rule sums products of two operands, or whose
//! expansion contains one that takes operands as they are (attention). The rule is read, not the
//! name.
//!
//! With `keep` nothing changes. With `bf16` the f32 operands that a contraction multiplies become
//! bf16; products are summed in f32, and where the op can give f32 it does, else its result is
//! converted back. All else stays: statistics, sums of softmax, losses, states, integers, f64, f16,
//! and the nodes that `keep_precision` names by their source or result. Nothing is converted without
//! a `convert` that says so.
//!
//! Before: verified. After: no contraction but those named multiplies f32. Pairs of conversions that
//! cancel are left to `canonicalise`, those of weights to `fold-constants`. Cost: number of nodes.

use std::collections::BTreeMap;

use dojoc_ir::access::{Combine, Expr, Monoid, Tiling};
use dojoc_ir::attr::Attr;
use dojoc_ir::diag::Diagnostics;
use dojoc_ir::graph::{Function, Module, NodeId, RegionId, ValueDef, ValueId};
use dojoc_ir::ops::{Convert, Op};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::types::{DType, Type};

use super::edit::{Editor, rewrite};
use crate::pass::{Effect, Pass, PassCx, PassOptions, Precision};

/// Inserts conversions.
pub const PASS: Pass<Module> = Pass {
    name: "precision",
    doc: "Inserts the conversions that `--precision` asks for.",
    effect: Effect::Bounded,
    run,
};

fn run(module: Module, cx: &mut PassCx<'_>) -> Result<Module, Diagnostics> {
    let options = cx.options;
    match options.precision {
        Precision::Keep => return Ok(module),
        Precision::Bf16 => {}
    }
    // Each value is converted once in its region.
    let mut narrow: BTreeMap<(RegionId, ValueId), ValueId> = BTreeMap::new();
    let mut function = None;
    rewrite(module, cx, &mut |e, node, cx| {
        if function.as_ref() != Some(&e.func.name) {
            function = Some(e.func.name.clone());
            narrow.clear();
        }
        if keeps(&e.func, node, options) {
            return Ok(None);
        }
        let data = e.func.nodes[node].clone();
        let types = e.func.types(&data.args);
        let chosen: Vec<usize> = multiplied(&data.op, &types)
            .into_iter()
            .filter(|n| types[*n].dtype == DType::F32)
            .collect();
        let [result] = data.results[..] else {
            return Ok(None);
        };
        let mut narrow_types = types;
        for n in &chosen {
            narrow_types[*n] = narrow_types[*n].with_dtype(DType::Bf16);
        }
        let wanted = e.func.ty(result).clone();
        let Some(op) = (!chosen.is_empty())
            .then(|| accepting(&data.op, &narrow_types, &wanted))
            .flatten()
        else {
            return Ok(None);
        };
        if !cx.spend() {
            return Ok(None);
        }
        let mut args = data.args;
        for n in chosen {
            args[n] = convert_once(e, &mut narrow, args[n])?;
        }
        let value = e.emit(op, &args)?;
        if *e.func.ty(value) == wanted {
            return Ok(Some(vec![value]));
        }
        let back = Convert {
            to: wanted.dtype,
            saturate: false,
        };
        Ok(Some(vec![e.emit(back, &[value])?]))
    })
}

/// Whether the user wants the node to stay as it is.
fn keeps(func: &Function, node: NodeId, options: &PassOptions) -> bool {
    let data = &func.nodes[node];
    let results = data
        .results
        .iter()
        .filter_map(|v| func.values[*v].name.as_ref());
    let source = data.loc.iter().map(|loc| &loc.name);
    results
        .chain(source)
        .any(|name| options.keep_precision.contains(name))
}

/// The op, giving f32 if it can, if it takes these operands.
fn accepting(op: &Op, args: &[Type], wanted: &Type) -> Option<Op> {
    let mut attrs = op.attrs();
    attrs.0.retain(|(name, _)| &**name != "out");
    attrs.push("out", Attr::DType(wanted.dtype));
    let wide = Op::parse(op.name(), &attrs).and_then(Result::ok);
    let fits = |op: &Op| match op.infer(args, &[]).as_deref() {
        Ok([ty]) => ty.shape == wanted.shape,
        _ => false,
    };
    wide.into_iter().chain([op.clone()]).find(fits)
}

fn convert_once(
    e: &mut Editor<'_>,
    narrow: &mut BTreeMap<(RegionId, ValueId), ValueId>,
    value: ValueId,
) -> Result<ValueId, dojoc_ir::ops::TypeError> {
    let key = (e.region(), value);
    if let Some(known) = narrow.get(&key) {
        return Ok(*known);
    }
    let converted = e.emit(
        Convert {
            to: DType::Bf16,
            saturate: false,
        },
        &[value],
    )?;
    narrow.insert(key, converted);
    Ok(converted)
}

/// The operands that an op multiplies pairwise and sums up.
pub(crate) fn multiplied(op: &Op, args: &[Type]) -> Vec<usize> {
    fn operand(expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Operand(n) => Some(*n),
            Expr::Convert(_, x) => operand(x),
            _ => None,
        }
    }
    let mut found = match op.tiling(args) {
        Tiling::Loop(access) => match (&access.combine, &access.body[..]) {
            (Combine::Reduce(Monoid::Sum, _), [Expr::Binary(BinaryFn::Mul, _, both)]) => {
                match [operand(&both[0]), operand(&both[1])] {
                    [Some(a), Some(b)] => vec![a, b],
                    _ => vec![],
                }
            }
            _ => vec![],
        },
        Tiling::Expand(func) => {
            let inner = func.nodes.values().flat_map(|node| {
                let taken = multiplied(&node.op, &func.types(&node.args));
                taken.into_iter().map(|n| node.args[n])
            });
            inner.filter_map(|value| origin(&func, value)).collect()
        }
        _ => vec![],
    };
    found.sort_unstable();
    found.dedup();
    found
}

/// The input whose elements a value has, moved or converted at most.
fn origin(func: &Function, mut value: ValueId) -> Option<usize> {
    loop {
        match func.values[value].def {
            ValueDef::Param(region, position) if region == func.body() => {
                return Some(position as usize);
            }
            ValueDef::Result(node, 0) => {
                let node = &func.nodes[node];
                let [arg] = node.args[..] else { return None };
                let moves = match node.op.tiling(&func.types(&node.args)) {
                    Tiling::View(_) => true,
                    Tiling::Loop(access) => matches!(
                        (&access.combine, &access.body[..]),
                        (Combine::Assign, [Expr::Operand(0)] | [Expr::Convert(..)])
                    ),
                    _ => false,
                };
                if !moves {
                    return None;
                }
                value = arg;
            }
            _ => return None,
        }
    }
}
