//! Computes when compiling what depends on constants alone.
//!
//! Notation: a value is *constant* if it is a weight whose bytes are at hand, or the result of an op
//! without operands and of known extents.
//!
//! A node with operands that are all constant is evaluated with its own `eval`. A result whose
//! elements are all equal becomes `full`, any other an inline weight under the result's name. A
//! reshape of a weight in a file becomes a weight at the same place, whatever its size. Random
//! bits are not folded: what is random stays the business of the run. Nodes with regions stay, and
//! so do nodes whose evaluation fails: the run reports it. The options bound the size of a result,
//! of the operands of one node, and of all results.
//!
//! Before: verified. After: no node within the bounds has constant operands only. Weights no longer
//! used are left to `dead-code`. Cost: evaluation of what is folded.

use dojoc_ir::access::{Access, Expr, Tiling};
use dojoc_ir::diag::Diagnostics;
use dojoc_ir::graph::{Module, NodeId, ValueDef, ValueId, WeightSource};
use dojoc_ir::ops::{EvalCx, EvalError, Op};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{Class, Type};

use super::constant::{as_constant, is_constant, repeated};
use super::edit::{Editor, rewrite};
use crate::pass::{Effect, Pass, PassCx, PassOptions};

/// Evaluates nodes of constants.
pub const PASS: Pass<Module> = Pass {
    name: "fold-constants",
    doc: "Evaluates nodes whose operands are all constant, within a limit of size.",
    effect: Effect::Exact,
    run,
};

fn run(module: Module, cx: &mut PassCx<'_>) -> Result<Module, Diagnostics> {
    let options = cx.options;
    let mut left = options.fold_total_bytes;
    rewrite(module, cx, &mut |e, node, cx| {
        if let Some(value) = view(e, node, cx) {
            return Ok(Some(vec![value]));
        }
        let Some(results) = evaluate(e, node, options, left) else {
            return Ok(None);
        };
        if !cx.spend() {
            return Ok(None);
        }
        let old = e.func.nodes[node].results.clone();
        let mut new = vec![];
        for (value, tensor) in old.into_iter().zip(results) {
            left = left.saturating_sub(tensor.bytes().len() as u64);
            new.push(materialise(e, value, tensor)?);
        }
        Ok(Some(new))
    })
}

/// The weight that a reshape of a weight in a file is: the same place under other extents.
fn view(e: &mut Editor<'_>, node: NodeId, cx: &mut PassCx<'_>) -> Option<ValueId> {
    let data = &e.func.nodes[node];
    let ([arg], [result]) = (&data.args[..], &data.results[..]) else {
        return None;
    };
    let (arg, result) = (*arg, *result);
    let (from, to) = (e.func.ty(arg).clone(), e.func.ty(result).clone());
    let ValueDef::Weight(weight) = e.func.values[arg].def else {
        return None;
    };
    let in_file = e.module.weights[weight].source != WeightSource::Inline;
    if !in_file || !matches!(data.op.tiling(&[from]), Tiling::View(_)) || !cx.spend() {
        return None;
    }
    let name = e.name_for(result);
    e.add_view(&name, arg, &to)
}

/// The results of a node, if it can be folded.
fn evaluate(e: &Editor<'_>, node: NodeId, options: &PassOptions, left: u64) -> Option<Vec<Tensor>> {
    let data = &e.func.nodes[node];
    if data.args.is_empty() || !data.regions.is_empty() {
        return None;
    }
    if !data.args.iter().all(|v| is_constant(&e.func, *v)) {
        return None;
    }
    let mut operand_bytes = 0u64;
    for arg in &data.args {
        operand_bytes = operand_bytes.checked_add(e.func.ty(*arg).max_bytes()?)?;
    }
    let mut result_bytes = 0u64;
    for result in &data.results {
        let ty = e.func.ty(*result);
        ty.shape.as_const()?;
        result_bytes = result_bytes.checked_add(ty.max_bytes()?)?;
    }
    if operand_bytes > options.fold_operand_bytes
        || result_bytes > options.fold_bytes.min(left)
        || draws_random_bits(&data.op, &e.func.types(&data.args))
    {
        return None;
    }
    let args: Option<Vec<Tensor>> = data
        .args
        .iter()
        .map(|v| as_constant(e.module, &e.func, *v, options.fold_operand_bytes))
        .collect();
    let mut no_regions = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
    let results = data
        .op
        .eval(&args?, &mut EvalCx::new(&mut no_regions))
        .ok()?;
    let types = data.results.iter().map(|v| e.func.ty(*v).clone());
    results.iter().map(Tensor::ty).eq(types).then_some(results)
}

/// Whether the tiling rule of an op draws random bits.
pub(crate) fn draws_random_bits(op: &Op, args: &[Type]) -> bool {
    fn draws(expr: &Expr) -> bool {
        match expr {
            Expr::RandomBits(..) => true,
            Expr::Operand(_) | Expr::Const(..) | Expr::Index(..) => false,
            Expr::Unary(_, _, x) | Expr::Convert(_, x) => draws(x),
            Expr::Binary(_, _, both) => both.iter().any(draws),
            Expr::Select(all) => all.iter().any(draws),
            Expr::FirstOf(all) => all.iter().any(draws),
        }
    }
    match op.tiling(args) {
        Tiling::Loop(Access { body, .. }) => body.iter().any(draws),
        Tiling::Expand(func) => func.nodes.values().any(|n| {
            let args = func.types(&n.args);
            draws_random_bits(&n.op, &args)
        }),
        _ => false,
    }
}

/// A constant in place of a value.
fn materialise(
    e: &mut Editor<'_>,
    value: ValueId,
    tensor: Tensor,
) -> Result<ValueId, dojoc_ir::ops::TypeError> {
    let exact = tensor.dtype().class() != Class::Configurable;
    if let Some(scalar) = repeated(&tensor).filter(|_| exact) {
        let same = Tensor::splat(tensor.dtype(), tensor.shape(), scalar) == tensor;
        if same {
            return e.emit_full(tensor.ty(), scalar);
        }
    }
    let name = e.name_for(value);
    Ok(e.add_weight(&name, tensor))
}
