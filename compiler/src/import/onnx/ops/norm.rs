//! Softmax and batch normalisation.

use dojoc_ir::attr::F64;
use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{ArgKind, ArgReduce, BatchNorm, LogSoftmax, Op, Softmax};
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};

pub(super) const OPS: &[OpEntry] = &[
    onnx("Softmax", &[(1, softmax)]),
    onnx("LogSoftmax", &[(1, log_softmax)]),
    onnx("Hardmax", &[(1, hardmax)]),
    onnx("BatchNormalization", &[(1, batch_norm)]),
    onnx("Dropout", &[(1, dropout)]),
];

/// Applies `f` along the dim of the attribute `axis`. Before operator set 13 it was all dims from
/// `axis` on, as one.
fn along(
    cx: &mut NodeCx<'_, '_>,
    f: impl FnOnce(&mut NodeCx<'_, '_>, ValueId, usize) -> NodeResult<ValueId>,
) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let axis = cx.int("axis", if cx.version < 13 { 1 } else { -1 })?;
    let x = cx.input(0)?;
    let dims = cx.dims(x);
    let y = if cx.version >= 13 {
        let axis = cx.axis(axis, dims.len())?;
        f(cx, x, axis)?
    } else {
        let axis = match axis {
            axis if axis == dims.len() as i64 => dims.len(),
            axis => cx.axis(axis, dims.len())?,
        };
        if axis + 1 == dims.len() {
            f(cx, x, axis)?
        } else {
            let product = |dims: &[Dim]| {
                let product = dims.iter().try_fold(Dim::Const(1), |n, d| n.mul(d));
                product.ok_or_else(bad_extent)
            };
            let flat = vec![product(&dims[..axis])?, product(&dims[axis..])?];
            let rows = cx.reshape(x, flat)?;
            let y = f(cx, rows, 1)?;
            cx.reshape(y, dims)?
        }
    };
    cx.output(0, y);
    Ok(())
}

fn softmax(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    along(cx, |cx, x, axis| cx.op(Op::from(Softmax { axis }), &[x]))
}

fn log_softmax(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    along(cx, |cx, x, axis| cx.op(Op::from(LogSoftmax { axis }), &[x]))
}

/// 1 at the first largest element, else 0.
fn hardmax(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    along(cx, |cx, x, axis| {
        let op = ArgReduce {
            kind: ArgKind::Max,
            axis,
            keep: true,
            last: false,
        };
        let top = cx.op(op, &[x])?;
        let shape = cx.dims(x);
        let position = cx.iota(DType::I64, shape, axis)?;
        let hit = cx.binary(BinaryFn::Eq, position, top)?;
        cx.convert(hit, cx.dtype(x))
    })
}

fn batch_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(5, 5)?;
    // The momentum and what it updates are of use in training only.
    cx.ignore_attrs(&["momentum", "consumed_inputs"]);
    let epsilon = F64(cx.float("epsilon", 1e-5)?);
    let training = if cx.version < 7 {
        !cx.flag("is_test", false)? && cx.output_count() > 1
    } else if cx.version < 14 {
        cx.output_count() > 1
    } else {
        cx.flag("training_mode", false)?
    };
    if !cx.flag("spatial", true)? {
        return Err(NodeError::unsupported("`spatial` of 0").help("statistics per channel"));
    }
    if training {
        return training_batch_norm(cx, epsilon);
    }
    let args = cx.all_inputs()?;
    let x = args[0];
    if cx.rank(x) < 2 {
        return Err(NodeError::invalid(format!("the operand is {}", cx.ty(x))));
    }
    let y = cx.op(BatchNorm { axis: 1, epsilon }, &args)?;
    cx.output(0, y);
    Ok(())
}

/// Statistics of the batch itself, and the running ones moved towards them.
fn training_batch_norm(cx: &mut NodeCx<'_, '_>, epsilon: F64) -> NodeResult {
    let momentum = cx.float("momentum", 0.9)?;
    if cx.version < 14 {
        return Err(
            NodeError::unsupported("training statistics before operator set 14")
                .help("`training_mode` of operator set 14 or later"),
        );
    }
    let args = cx.all_inputs()?;
    let (x, scale, bias, old_mean, old_var) = (args[0], args[1], args[2], args[3], args[4]);
    let rank = cx.rank(x);
    if rank < 2 {
        return Err(NodeError::invalid(format!("the operand is {}", cx.ty(x))));
    }
    let axes: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
    // Sums of 16-bit floats are kept wide until the statistics are complete.
    let wide = match cx.dtype(x) {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let x_wide = cx.convert(x, wide)?;
    let mean = cx.mean(x_wide, &axes, true)?;
    let distance = cx.binary(BinaryFn::Sub, x_wide, mean)?;
    let square = cx.binary(BinaryFn::Mul, distance, distance)?;
    let var = cx.mean(square, &axes, false)?;
    let mean = cx.squeeze(mean, &axes)?;
    let statistics = if cx.dtype(x) == wide {
        wide
    } else {
        cx.dtype(old_mean)
    };
    let (mean, var) = (cx.convert(mean, statistics)?, cx.convert(var, statistics)?);
    let y = cx.op(BatchNorm { axis: 1, epsilon }, &[x, scale, bias, mean, var])?;
    cx.output(0, y);
    for (index, (old, new)) in [(old_mean, mean), (old_var, var)].into_iter().enumerate() {
        let new = cx.convert(new, cx.dtype(old))?;
        let kept = cx.with_scalar(BinaryFn::Mul, old, momentum)?;
        let added = cx.with_scalar(BinaryFn::Mul, new, 1.0 - momentum)?;
        let moved = cx.binary(BinaryFn::Add, kept, added)?;
        cx.output(index + 1, moved);
    }
    Ok(())
}

/// In inference nothing is dropped.
fn dropout(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 3)?;
    cx.ignore_attrs(&["ratio", "seed", "is_test", "consumed_inputs"]);
    let x = cx.input(0)?;
    let training = match cx.version {
        ..12 => false,
        _ if !cx.has(2) => false,
        _ => {
            let training = cx.require_const(2, "the training mode")?;
            training.scalars().any(Scalar::to_bool)
        }
    };
    let ratio = match cx.version {
        12.. if training && cx.has(1) => cx.require_const(1, "the ratio")?.to_f64s(),
        _ => vec![0.5],
    };
    if training && ratio != [0.0] {
        return Err(NodeError::unsupported("dropping elements in training")
            .help("inference, where `training_mode` is false"));
    }
    cx.output(0, x);
    if cx.wanted(1) {
        // The mask was a float before operator set 10.
        let dtype = if cx.version < 10 {
            cx.dtype(x)
        } else {
            DType::Bool
        };
        let shape = cx.dims(x);
        let mask = cx.full(dtype, shape, Scalar::one(dtype))?;
        cx.output(1, mask);
    }
    Ok(())
}
