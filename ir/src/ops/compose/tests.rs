use super::*;
use crate::attr::F64;
use crate::graph::eval::run_function;
use crate::ops::{
    Attention, BatchNorm, EvalCx, EvalError, Gelu, GeluKind, GroupNorm, LayerNorm, LogSoftmax, Op,
    RmsNorm, Softmax,
};

const F32: DType = DType::F32;

fn eval(op: &Op, args: &[Tensor]) -> Tensor {
    let mut no_regions = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
    let results = op.eval(args, &mut EvalCx::new(&mut no_regions));
    results.expect("the operands are good").remove(0)
}

fn tensor(shape: &[u64], values: &[f32]) -> Tensor {
    Tensor::from_vec(shape, values.to_vec())
}

/// Values that differ, between -1 and 1.
fn wave(shape: &[u64]) -> Tensor {
    let count = shape.iter().product::<u64>();
    let values: Vec<f32> = (0..count).map(|n| (n as f32 * 1.7).sin()).collect();
    Tensor::from_vec(shape, values)
}

fn assert_near(found: &Tensor, expected: &[f64], tolerance: f64) {
    let found = found.to_f64s();
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= tolerance,
            "{found:?} should be {expected:?}"
        );
    }
}

/// Runs the expansion for symbolic types on concrete operands and compares with the evaluation.
fn check_symbolic(op: impl Into<Op>, types: &[Type], args: &[Tensor]) {
    let op = op.into();
    let result = op.infer(types, &[]).expect("the types are good");
    let Tiling::Expand(func) = op.tiling(types) else {
        panic!("{} does not expand", op.name());
    };
    assert_eq!(func.types(func.results()), result, "{}", op.name());
    let found = run_function(&func, args)
        .expect("the expansion runs")
        .remove(0);
    let expected = eval(&op, args);
    assert_eq!(found.ty(), expected.ty(), "{}", op.name());
    assert_near(&found, &expected.to_f64s(), 1e-5);
}

#[test]
fn expansions_count_symbolic_extents_at_run_time() {
    let dim = |name: &str| Dim::symbol(name, 16);
    let ty = |dims: &[&Dim]| Type::new(F32, Shape::new(dims.iter().map(|d| (*d).clone())));
    let (n, m, two) = (dim("n"), dim("m"), Dim::Const(2));
    for (rows, columns) in [(1, 1), (3, 5), (4, 0)] {
        let op = LayerNorm {
            axes: vec![0, 1],
            epsilon: F64(1e-3),
        };
        let x = wave(&[rows, columns]);
        let scale = wave(&[columns]);
        let types = [ty(&[&n, &m]), ty(&[&m]), ty(&[&m])];
        check_symbolic(op, &types, &[x, scale.clone(), scale]);

        let op = GroupNorm {
            groups: 2,
            epsilon: F64(1e-3),
        };
        let types = [ty(&[&n, &two, &m]), ty(&[&two]), ty(&[&two])];
        let scale = wave(&[2]);
        check_symbolic(
            op,
            &types,
            &[wave(&[rows, 2, columns]), scale.clone(), scale],
        );

        let op = Attention {
            scale: F64(0.7),
            causal: true,
            softcap: F64(0.0),
        };
        let types = [
            [&two, &two, &n, &two],
            [&two, &two, &m, &two],
            [&two, &two, &m, &n],
        ];
        let shapes = [[2, 2, rows, 2], [2, 2, columns, 2], [2, 2, columns, rows]];
        let types = types.map(|dims| ty(&dims));
        check_symbolic(op, &types, &shapes.map(|shape| wave(&shape)));
    }
}

#[test]
fn softmax_has_the_shares_that_add_up() {
    let x = tensor(&[2, 2], &[0.0, 3f32.ln(), 500.0, 500.0]);
    let shares = eval(&Softmax { axis: 1 }.into(), std::slice::from_ref(&x));
    assert_near(&shares, &[0.25, 0.75, 0.5, 0.5], 1e-7);
    let down = eval(&Softmax { axis: 0 }.into(), std::slice::from_ref(&x));
    assert_near(&down, &[0.0, 0.0, 1.0, 1.0], 1e-7);
    let log = eval(&LogSoftmax { axis: 1 }.into(), &[x]);
    let (quarter, half) = (-4f64.ln(), -2f64.ln());
    assert_near(&log, &[quarter, 0.75f64.ln(), half, half], 1e-6);
}

#[test]
fn gelu_has_its_known_values() {
    let x = tensor(&[3], &[-1.0, 0.0, 1.0]);
    for (approximate, at_one) in [
        (GeluKind::Erf, 0.841_344_746),
        (GeluKind::Tanh, 0.841_191_990),
    ] {
        let found = eval(&Gelu { approximate }.into(), std::slice::from_ref(&x));
        assert_near(&found, &[at_one - 1.0, 0.0, at_one], 1e-7);
    }
}

#[test]
fn norms_have_their_known_values() {
    let ones = tensor(&[2], &[1.0, 1.0]);
    let bias = tensor(&[2], &[0.0, 10.0]);
    let x = tensor(&[1, 2, 2], &[1.0, 3.0, 5.0, 9.0]);
    let epsilon = F64(0.0);
    let layer = LayerNorm {
        axes: vec![2],
        epsilon,
    };
    let args = [x.clone(), ones.clone(), bias.clone()];
    assert_near(&eval(&layer.into(), &args), &[-1.0, 11.0, -1.0, 11.0], 1e-6);
    let group = GroupNorm { groups: 2, epsilon };
    assert_near(&eval(&group.into(), &args), &[-1.0, 1.0, 9.0, 11.0], 1e-6);
    let rms = RmsNorm {
        axes: vec![1],
        epsilon,
    };
    let root = [13f64.sqrt(), 45f64.sqrt()];
    let expected = [1.0 / root[0], 3.0 / root[1], 5.0 / root[0], 9.0 / root[1]];
    assert_near(
        &eval(&rms.into(), &[x.clone(), ones.clone()]),
        &expected,
        1e-6,
    );
    let batch = BatchNorm {
        axis: 1,
        epsilon: F64(3.0),
    };
    let args = [x, ones.clone(), bias, tensor(&[2], &[1.0, 5.0]), ones];
    assert_near(&eval(&batch.into(), &args), &[0.0, 1.0, 10.0, 12.0], 1e-6);
}

/// 300^2 is beyond the range of f16: squares and sums have to be computed in f32.
#[test]
fn statistics_of_16_bit_floats_are_wider() {
    let op = RmsNorm {
        axes: vec![0],
        epsilon: F64(0.0),
    };
    let args = [tensor(&[4], &[300.0; 4]), tensor(&[], &[1.0])].map(|t| t.convert(DType::F16));
    let types = args.each_ref().map(Tensor::ty);
    assert_near(&eval(&op.clone().into(), &args), &[1.0; 4], 0.0);
    let Tiling::Expand(func) = Op::from(op).tiling(&types) else {
        panic!("rms_norm does not expand");
    };
    let found = run_function(&func, &args)
        .expect("the expansion runs")
        .remove(0);
    assert_near(&found, &[1.0; 4], 0.0);
}

#[test]
fn attention_sees_what_masks_leave() {
    let attend = |causal, args: &[Tensor]| {
        let op = Attention {
            scale: F64(1.0),
            causal,
            softcap: F64(0.0),
        };
        eval(&op.into(), args)
    };
    // All scores are 0, so that a query gets the mean of the values it sees.
    let q = tensor(&[1, 2, 2, 1], &[0.0; 4]);
    let k = tensor(&[1, 1, 3, 1], &[1.0; 3]);
    let v = tensor(&[1, 1, 3, 1], &[3.0, 6.0, 12.0]);
    let args = [q, k, v];
    assert_near(&attend(false, &args), &[7.0; 4], 1e-6);
    assert_near(&attend(true, &args), &[4.5, 7.0, 4.5, 7.0], 1e-6);
    let hidden = f32::NEG_INFINITY;
    let mask = tensor(&[2, 3], &[hidden, hidden, hidden, 0.0, hidden, 0.0]);
    let [q, k, v] = args;
    let masked = attend(false, &[q, k, v, mask]);
    assert_near(&masked, &[0.0, 7.5, 0.0, 7.5], 1e-6);
}

#[test]
fn operands_that_do_not_go_together_are_refused() {
    let f = |shape: &[u64]| Type::of(F32, shape);
    let refused = |op: Op, args: &[Type]| assert!(op.infer(args, &[]).is_err(), "{op:?} {args:?}");
    refused(Softmax { axis: 2 }.into(), &[f(&[2, 3])]);
    refused(Softmax { axis: 0 }.into(), &[Type::of(DType::I32, &[2])]);
    let layer = |epsilon| {
        let axes = vec![1];
        Op::from(LayerNorm {
            axes,
            epsilon: F64(epsilon),
        })
    };
    refused(layer(-1.0), &[f(&[2, 3]), f(&[3]), f(&[3])]);
    refused(layer(f64::NAN), &[f(&[2, 3]), f(&[3]), f(&[3])]);
    refused(layer(0.0), &[f(&[2, 3]), f(&[2]), f(&[3])]);
    refused(layer(0.0), &[f(&[2, 1]), f(&[3]), f(&[1])]);
    refused(
        layer(0.0),
        &[f(&[2, 3]), Type::of(DType::F64, &[3]), f(&[3])],
    );
    for groups in [0, 4] {
        let epsilon = F64(0.0);
        let args = [f(&[2, 6, 3]), f(&[6]), f(&[6])];
        refused(GroupNorm { groups, epsilon }.into(), &args);
    }
    let batch = BatchNorm {
        axis: 1,
        epsilon: F64(0.0),
    };
    refused(
        batch.into(),
        &[f(&[2, 3]), f(&[3]), f(&[3]), f(&[1]), f(&[3])],
    );
    let attention = |softcap| {
        Op::from(Attention {
            scale: F64(1.0),
            causal: false,
            softcap: F64(softcap),
        })
    };
    let [q, k] = [f(&[2, 4, 3, 8]), f(&[2, 2, 5, 8])];
    let good = [q.clone(), k.clone(), f(&[2, 2, 5, 7])];
    assert_eq!(attention(0.0).infer(&good, &[]), Ok(vec![f(&[2, 4, 3, 7])]));
    refused(attention(-1.0), &good);
    refused(attention(0.0), &[f(&[2, 3, 3, 8]), k.clone(), k.clone()]);
    refused(attention(0.0), &[q.clone(), k.clone(), f(&[2, 2, 4, 8])]);
    refused(
        attention(0.0),
        &[q.clone(), f(&[2, 0, 5, 8]), f(&[2, 0, 5, 8])],
    );
    refused(attention(0.0), &[q, k.clone(), k, f(&[2, 5])]);
}
