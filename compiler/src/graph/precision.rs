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
//! [`rounding_bound`] says how far outputs may move.

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

/// Largest relative error of one rounding to bf16, to nearest with 8 bits of significand.
const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// How many times the root of the number of roundings a sum of them may reach.
const CONFIDENCE: f64 = 4.0;

/// How far each output of a function may be, relative to its largest magnitude, from the same function
/// without bf16: `4 * sqrt(n) / 256`, where `n` is the largest number of operands of contractions in
/// bf16 on a path from an input, 0 without any.
///
/// A contraction multiplies operands that were rounded, `a * (1 + d) * b * (1 + e)` with `d` and `e` at
/// most `u = 1/256`, in f32, where the product is exact; its sum of `k` products in f32 adds at most
/// `k / 2^24`, as it does with `keep`, and is left to the tolerance of that. So what a path from an input
/// contributes is wrong by a factor of `n` such roundings. Taken as independent and of mean zero
/// (Higham and Mary, A new approach to probabilistic rounding error analysis, 2019), their sum exceeds
/// `c * sqrt(n) * u` with a probability of at most `2 * exp(-c^2 / 2)`; `c` is 4, and as roundings are
/// spread over the interval rather than at its ends, real probabilities are far smaller. Contributions
/// may cancel, hence the bound relative to the largest magnitude. It is a measure of what rounding does
/// and no proof: a model may amplify what its first layers have lost.
pub fn rounding_bound(func: &Function) -> Vec<f64> {
    let mut roundings: BTreeMap<ValueId, usize> = BTreeMap::new();
    for node in &func.regions[func.body()].nodes {
        let data = &func.nodes[*node];
        let before = data.args.iter().filter_map(|arg| roundings.get(arg)).max();
        let count = before.copied().unwrap_or(0) + rounded_operands(func, *node);
        roundings.extend(data.results.iter().map(|result| (*result, count)));
    }
    let count = |value: &ValueId| roundings.get(value).copied().unwrap_or(0);
    let bound = |n: usize| CONFIDENCE * (n as f64).sqrt() * BF16_ROUNDING;
    func.results().iter().map(count).map(bound).collect()
}

/// The operands in bf16 that a node multiplies pairwise and sums up, with those of its regions.
fn rounded_operands(func: &Function, node: NodeId) -> usize {
    let data = &func.nodes[node];
    let types = func.types(&data.args);
    let own = multiplied(&data.op, &types).into_iter();
    let own = own.filter(|n| types[*n].dtype == DType::Bf16).count();
    let regions = data.regions.iter().flat_map(|r| &func.regions[*r].nodes);
    own + regions.map(|n| rounded_operands(func, *n)).sum::<usize>()
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

#[cfg(test)]
mod tests {
    use dojoc_ir::level::Level as _;

    use super::*;
    use crate::pass::{Run, RunOptions};

    #[test]
    fn bounds_grow_with_the_contractions_on_a_path() {
        let text = "dojo graph 1
            module @m {
              func @main(%x : f32[4, 4], %w : f32[4, 4]) -> (%y : f32[4, 4], %z : f32[4, 4]) {
                %a = dot %x, %w {batch = [], contract = [[1, 0]]} : f32[4, 4]
                %b = dot %w, %x {batch = [], contract = [[1, 0]]} : f32[4, 4]
                %c = add %a, %b : f32[4, 4]
                %y = dot %c, %w {batch = [], contract = [[1, 0]]} : f32[4, 4]
                %z = neg %x : f32[4, 4]
                return %y, %z
              }
            }";
        let module = Module::parse(text).expect("the text is right");
        let bounds = |precision| {
            let options = RunOptions {
                passes: PassOptions {
                    precision,
                    ..PassOptions::default()
                },
                ..RunOptions::default()
            };
            let module = Run::new(options).graph([&PASS], module.clone());
            let module = module.expect("the pass runs");
            let main = module.main().expect("there is one");
            rounding_bound(&module.functions[main])
        };
        assert_eq!(bounds(Precision::Keep), [0.0, 0.0]);
        // Two contractions of two operands on the longest path.
        assert_eq!(bounds(Precision::Bf16), [4.0 * 2.0 / 256.0, 0.0]);
    }
}
