use super::*;
use crate::graph::eval::run_function;
use crate::graph::{Function, ValueId};

const F32: DType = DType::F32;

fn int(value: i64) -> Tensor {
    Tensor::from_vec(&[], vec![value])
}

fn truth(value: bool) -> Tensor {
    Tensor::scalar(DType::Bool, Scalar::Bool(value))
}

/// `loop` around `if` around `scan`: every even iteration replaces x by its running sums, every
/// odd one doubles it; the rows are the values before.
fn nested(extent: Dim) -> Function {
    let vector = Type::of(F32, &[3]);
    let build = |b: &mut FunctionBuilder| -> Result<Vec<ValueId>, TypeError> {
        let trips = b.param(Type::scalar(DType::I64), None);
        let cond = b.param(Type::scalar(DType::Bool), None);
        let x = b.param(vector.clone(), None);

        let body = b.open_region();
        let i = b.param(Type::scalar(DType::I64), None);
        let x_i = b.param(vector.clone(), None);
        let two = b.scalar(DType::I64, 2.0);
        let zero = b.scalar(DType::I64, 0.0);
        let rest = b.op(BinaryFn::Mod, &[i, two])?;
        let even = b.op(BinaryFn::Eq, &[rest, zero])?;

        let then = b.open_region();
        let x_then = b.param(vector.clone(), None);
        let start = b.scalar(F32, 0.0);
        let step = b.open_region();
        let sum = b.param(Type::scalar(F32), None);
        let element = b.param(Type::scalar(F32), None);
        let next = b.op(BinaryFn::Add, &[sum, element])?;
        b.close_region(&[next, next]);
        let scan = Scan {
            carried: 1,
            sequences: 1,
            length: Dim::Const(3),
        };
        let sums = b.node_with_regions(scan, &[start, x_then], &[step])?;
        b.close_region(&sums[1..]);

        let otherwise = b.open_region();
        let x_else = b.param(vector.clone(), None);
        let double = b.op(BinaryFn::Add, &[x_else, x_else])?;
        b.close_region(&[double]);

        let chosen = b.node_with_regions(If {}, &[even, x_i], &[then, otherwise])?;
        let always = b.full(DType::Bool, &Shape::scalar(), Scalar::Bool(true));
        b.close_region(&[always, chosen[0], x_i]);
        b.node_with_regions(Loop { carried: 1, extent }, &[trips, cond, x], &[body])
    };
    let mut b = FunctionBuilder::new("nested");
    let results = build(&mut b).expect("the graph is typed");
    b.finish_unnamed(&results)
}

#[test]
fn nested_regions_run_in_order() {
    let x = Tensor::from_vec(&[3], vec![1f32, 2.0, 3.0]);
    let func = nested(Dim::symbol("t", 4));
    let results = run_function(&func, &[int(3), truth(true), x.clone()]).unwrap();
    assert_eq!(results[0], Tensor::from_vec(&[3], vec![2f32, 8.0, 20.0]));
    let rows = vec![1f32, 2.0, 3.0, 1.0, 3.0, 6.0, 2.0, 6.0, 12.0];
    assert_eq!(results[1], Tensor::from_vec(&[3, 3], rows));

    let none = run_function(&func, &[int(3), truth(false), x.clone()]).unwrap();
    assert_eq!(none, [x, Tensor::from_vec(&[0, 3], Vec::<f32>::new())]);
}

#[test]
fn trips_have_to_fit_the_extent() {
    let x = Tensor::from_vec(&[3], vec![1f32, 2.0, 3.0]);
    let run = |extent, trips| {
        run_function(&nested(extent), &[int(trips), truth(true), x.clone()]).map_err(|d| d.code.0)
    };
    assert_eq!(run(Dim::symbol("t", 4), 5), Err(crate::codes::BAD_VALUE));
    assert_eq!(
        run(Dim::symbol("t", 4), i64::MAX),
        Err(crate::codes::BAD_VALUE)
    );
    assert_eq!(run(Dim::Const(4), 3), Err(crate::codes::BAD_VALUE));
    assert_eq!(
        run(Dim::Const(4), 4).map(|r| r[1].shape().to_vec()),
        Ok(vec![4, 3])
    );
}

#[test]
fn symbols_of_the_operands_hold_in_regions() {
    let n = Dim::symbol("n", 8);
    let rows = Type::new(F32, Shape::new([n.clone(), Dim::Const(2)]));
    let column = Type::new(F32, Shape::new([n.clone()]));
    let mut b = FunctionBuilder::new("outer");
    let x = b.param(rows, None);
    let y = b.param(column.clone(), None);
    let body = b.open_region();
    let _slice = b.param(Type::of(F32, &[2]), None);
    let y_in = b.param(column, None);
    let ones = b.full(F32, &Shape::new([n.clone()]), Scalar::one(F32));
    let sum = b.op(BinaryFn::Add, &[ones, y_in]).unwrap();
    b.close_region(&[sum]);
    let scan = Scan {
        carried: 0,
        sequences: 1,
        length: n.clone(),
    };
    let results = b.node_with_regions(scan, &[x, y], &[body]).unwrap();
    assert_eq!(
        b.ty(results[0]),
        &Type::new(F32, Shape::new([n.clone(), n]))
    );
    let func = b.finish_unnamed(&results);
    for extent in [0u64, 3] {
        let splat = |shape: &[u64]| Tensor::splat(F32, shape, Scalar::one(F32));
        let results = run_function(&func, &[splat(&[extent, 2]), splat(&[extent])]).unwrap();
        assert_eq!(
            results,
            [Tensor::splat(F32, &[extent, extent], Scalar::F32(2.0))]
        );
    }
}

#[test]
fn regions_of_other_types_are_refused() {
    let (truth, counter) = (Type::scalar(DType::Bool), Type::scalar(DType::I64));
    let (a, b) = (Type::of(F32, &[2]), Type::of(F32, &[3]));
    let region = |params: &[&Type], results: &[&Type]| RegionType {
        params: params.iter().copied().cloned().collect(),
        results: results.iter().copied().cloned().collect(),
    };
    let branch = region(&[&a], &[&a]);
    let args = [truth.clone(), a.clone()];
    assert!(
        If {}
            .infer(&args, &[branch.clone(), branch.clone()])
            .is_ok()
    );
    assert!(If {}.infer(&args, std::slice::from_ref(&branch)).is_err());
    assert!(
        If {}
            .infer(&args, &[branch.clone(), region(&[&a], &[&b])])
            .is_err()
    );
    assert!(
        If {}
            .infer(&args, &[branch.clone(), region(&[&b], &[&a])])
            .is_err()
    );
    assert!(
        If {}
            .infer(&[a.clone(), a.clone()], &[branch.clone(), branch])
            .is_err()
    );

    let repeat = Loop {
        carried: 1,
        extent: Dim::Const(4),
    };
    let args = [counter.clone(), truth.clone(), a.clone()];
    let infer = |region| repeat.infer(&args, &[region]);
    let stacked = Type::of(F32, &[4, 3]);
    let good = region(&[&counter, &a], &[&truth, &a, &b]);
    assert_eq!(infer(good), Ok(vec![a.clone(), stacked]));
    assert!(
        infer(region(&[&counter, &a], &[&truth, &b])).is_err(),
        "the carried type changes"
    );
    assert!(
        infer(region(&[&counter, &a], &[&a])).is_err(),
        "there is no condition"
    );
    assert!(
        infer(region(&[&a], &[&truth, &a])).is_err(),
        "there is no counter"
    );
    assert!(
        repeat
            .infer(&args[..2], &[region(&[&counter], &[&truth])])
            .is_err()
    );

    let scan = Scan {
        carried: 0,
        sequences: 1,
        length: Dim::Const(4),
    };
    let slices = region(&[&a], &[&b]);
    assert!(
        scan.infer(&[Type::of(F32, &[4, 2])], std::slice::from_ref(&slices))
            .is_ok()
    );
    assert!(
        scan.infer(&[Type::of(F32, &[5, 2])], std::slice::from_ref(&slices))
            .is_err()
    );
    assert!(scan.infer(&[Type::scalar(F32)], &[slices]).is_err());
}

#[test]
fn rows_of_different_shapes_are_refused() {
    let rows = [
        Tensor::from_vec(&[1], vec![1f32]),
        Tensor::from_vec(&[2], vec![1f32, 2.0]),
    ];
    let ty = Type::new(F32, Shape::new([Dim::symbol("m", 2)]));
    assert!(stack(&rows, &ty).is_err());
    assert_eq!(stack(&[], &ty).map(|t| t.shape().to_vec()), Ok(vec![0, 0]));
    assert_eq!(
        stack(&rows[..1], &ty).map(|t| t.shape().to_vec()),
        Ok(vec![1, 1])
    );
}
