//! What one operator means, in the versions and forms that differ.

use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::options::DimBinding;
use super::super::testing::*;
use super::slice_range;

fn count_up(shape: &[u64]) -> Tensor {
    let count = shape.iter().product::<u64>();
    f32s(shape, &(0..count).map(|n| n as f32).collect::<Vec<_>>())
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64s()
}

#[test]
fn slices_clamp_like_python() {
    let take = |start, end, step, extent| {
        let (first, size) = slice_range(start, end, step, extent).unwrap();
        (0..size as i64)
            .map(|n| first + n * step)
            .collect::<Vec<_>>()
    };
    assert_eq!(take(1, 3, 1, 5), [1, 2]);
    assert_eq!(take(-3, i64::MAX, 1, 5), [2, 3, 4]);
    assert_eq!(take(-1, i64::MIN, -1, 3), [2, 1, 0]);
    assert_eq!(take(10, 0, -2, 6), [5, 3, 1]);
    assert_eq!(take(20, 30, 1, 5), [0i64; 0]);
    assert_eq!(take(0, 5, 2, 5), [0, 2, 4]);
    assert_eq!(take(0, i64::MIN, -1, 0), [0i64; 0]);
    assert_eq!(slice_range(0, 1, 0, 5), None);
}

#[test]
fn softmax_of_old_operator_sets_is_over_all_dims_behind() {
    let x = f32s(&[1, 2, 2], &[0.0; 4]);
    let new = run_node(13, "Softmax", &[&x], &[], vec![attr("axis", 1i64)]);
    assert_eq!(values(&new), [0.5; 4]);
    let old = run_node(11, "Softmax", &[&x], &[], vec![]);
    assert_eq!((values(&old), old.shape()), (vec![0.25; 4], &[1, 2, 2][..]));
}

#[test]
fn reshape_copies_and_infers() {
    let x = count_up(&[2, 3, 4]);
    let shape = |target: &[i64], attributes| {
        let y = run_node(14, "Reshape", &[&x, &i64s(target)], &[1], attributes);
        y.shape().to_vec()
    };
    assert_eq!(shape(&[0, -1], vec![]), [2, 12]);
    assert_eq!(shape(&[4, 0, -1], vec![]), [4, 3, 2]);
    let empty = f32s(&[0, 3], &[]);
    let target = i64s(&[3, 0]);
    let y = run_node(
        14,
        "Reshape",
        &[&empty, &target],
        &[1],
        vec![attr("allowzero", 1i64)],
    );
    assert_eq!(y.shape(), [3, 0]);
}

#[test]
fn reshape_infers_symbolic_extents() {
    let mut model = TestModel::new(17)
        .input("x", DType::F32, &["n", "m", "4"])
        .init("s", &i64s(&[-1, 2, 2]))
        .node("Reshape", &["x", "s"], &["y"], vec![])
        .output("y");
    for name in ["n", "m"] {
        model
            .options
            .dims
            .insert(name.into(), DimBinding::AtMost(6));
    }
    let results = model.run(&[count_up(&[2, 3, 4])]);
    assert_eq!(results[0].shape(), [6, 2, 2]);
}

#[test]
fn slices_of_symbolic_dims() {
    let slice = |start: i64, end: i64, step: i64, n: u64| {
        let mut model = TestModel::new(17)
            .input("x", DType::F32, &["n"])
            .init("s", &i64s(&[start]))
            .init("e", &i64s(&[end]))
            .init("a", &i64s(&[0]))
            .init("t", &i64s(&[step]))
            .node("Slice", &["x", "s", "e", "a", "t"], &["y"], vec![])
            .output("y");
        model.options.dims.insert("n".into(), DimBinding::AtMost(9));
        values(&model.run(&[count_up(&[n])])[0])
    };
    assert_eq!(slice(1, -1, 1, 5), [1., 2., 3.]);
    assert_eq!(slice(-2, i64::MAX, 1, 5), [3., 4.]);
    assert_eq!(slice(0, 3, 2, 5), [0., 2.]);
    assert_eq!(slice(0, 3, 2, 1), [0.]);
    assert_eq!(slice(-1, i64::MIN, -1, 3), [2., 1., 0.]);
}

#[test]
fn slices_at_places_known_at_run_time() {
    let bound = |name: &str| {
        TestModel::new(17)
            .input("x", DType::F32, &["5"])
            .input("s", DType::I64, &["1"])
            .input("e", DType::I64, &["1"])
            .init("two", &i64s(&[2]))
            .node("Add", &["s", "two"], &["behind"], vec![])
            .node("Slice", &["x", "s", name], &["y"], vec![])
            .output("y")
    };
    let x = count_up(&[5]);
    let part = |model: &TestModel, start: i64, end: i64| {
        values(&model.run(&[x.clone(), i64s(&[start]), i64s(&[end])])[0])
    };
    // Two apart whatever the start: the extent is known.
    let pair = bound("behind");
    let imported = pair.import().unwrap();
    assert!(imported.module.dims.is_empty());
    assert_eq!(part(&pair, 3, 0), [3., 4.]);
    let any = bound("e");
    let imported = any.import().unwrap();
    assert_eq!(imported.module.dims.get("y"), Some(&5));
    assert_eq!(part(&any, 1, 4), [1., 2., 3.]);
    assert_eq!(part(&any, -2, 9), [3., 4.]);
    assert_eq!(part(&any, 3, 1), [0f64; 0]);
}

#[test]
fn broadcasting_of_old_operator_sets_follows_the_axis() {
    let (x, y) = (count_up(&[2, 3, 2]), f32s(&[3], &[10.0, 20.0, 30.0]));
    let attributes = vec![attr("broadcast", 1i64), attr("axis", 1i64)];
    let sum = run_node(6, "Add", &[&x, &y], &[], attributes);
    assert_eq!(values(&sum)[..6], [10., 11., 22., 23., 34., 35.]);
}

#[test]
fn matrix_products_of_all_ranks() {
    let product = |a: &[u64], b: &[u64]| {
        let y = run_node(13, "MatMul", &[&count_up(a), &count_up(b)], &[], vec![]);
        (y.shape().to_vec(), values(&y))
    };
    assert_eq!(product(&[2], &[2]), (vec![], vec![1.]));
    assert_eq!(product(&[2, 2], &[2]), (vec![2], vec![1., 3.]));
    assert_eq!(product(&[2], &[2, 2]), (vec![2], vec![2., 3.]));
    assert_eq!(product(&[2], &[2, 2, 1]), (vec![2, 1], vec![1., 3.]));
    assert_eq!(product(&[2, 1, 2], &[2, 1]), (vec![2, 1, 1], vec![1., 3.]));
    assert_eq!(
        product(&[2, 1, 1, 2], &[3, 2, 1]),
        (vec![2, 3, 1, 1], vec![1., 3., 5., 3., 13., 23.])
    );
}

#[test]
fn gemm_transposes_and_scales() {
    let (a, b) = (count_up(&[2, 1]), count_up(&[3, 2]));
    let c = f32s(&[3], &[1.0, 2.0, 3.0]);
    let attributes = vec![
        attr("transA", 1i64),
        attr("transB", 1i64),
        attr("alpha", 2f32),
        attr("beta", 10f32),
    ];
    let y = run_node(13, "Gemm", &[&a, &b, &c], &[1, 2], attributes);
    assert_eq!((y.shape(), values(&y)), (&[1, 3][..], vec![12., 26., 40.]));
}

#[test]
fn padding_of_convolutions() {
    let (x, w) = (count_up(&[1, 1, 4]), f32s(&[1, 1, 2], &[1.0, 10.0]));
    let conv = |pad: &str, stride: i64| {
        let attributes = vec![attr("auto_pad", pad), attr("strides", &[stride][..])];
        values(&run_node(11, "Conv", &[&x, &w], &[1], attributes))
    };
    assert_eq!(conv("VALID", 1), [10., 21., 32.]);
    assert_eq!(conv("SAME_UPPER", 1), [10., 21., 32., 3.]);
    assert_eq!(conv("SAME_LOWER", 1), [0., 10., 21., 32.]);
    assert_eq!(conv("SAME_UPPER", 3), [10., 3.]);
    let bias = f32s(&[1], &[100.0]);
    let y = run_node(
        11,
        "Conv",
        &[&x, &w, &bias],
        &[1, 2],
        vec![attr("pads", &[1i64, 0][..])],
    );
    assert_eq!(values(&y), [100., 110., 121., 132.]);
}

#[test]
fn extents_of_transposed_convolutions() {
    let (x, w) = (f32s(&[1, 1, 2], &[1.0, 2.0]), f32s(&[1, 1, 3], &[1.0; 3]));
    let run = |attributes: Vec<_>| {
        let stride = attr("strides", &[2i64][..]);
        let attributes = attributes.into_iter().chain([stride]).collect();
        values(&run_node(11, "ConvTranspose", &[&x, &w], &[1], attributes))
    };
    assert_eq!(run(vec![]), [1., 1., 3., 2., 2.]);
    assert_eq!(run(vec![attr("pads", &[1i64, 1][..])]), [1., 3., 2.]);
    let extra = attr("output_padding", &[1i64][..]);
    assert_eq!(run(vec![extra]), [1., 1., 3., 2., 2., 0.]);
    assert_eq!(
        run(vec![attr("output_shape", &[4i64][..])]),
        [1., 3., 2., 2.]
    );
    assert_eq!(run(vec![attr("auto_pad", "SAME_UPPER")]), [1., 1., 3., 2.]);
}

#[test]
fn pools_round_up_and_count_padding() {
    let x = count_up(&[1, 1, 4]);
    let pool = |op: &str, attributes: Vec<_>| {
        let kernel = attr("kernel_shape", &[3i64][..]);
        let stride = attr("strides", &[2i64][..]);
        let attributes = attributes.into_iter().chain([kernel, stride]).collect();
        values(&run_node(19, op, &[&x], &[], attributes))
    };
    let up = || attr("ceil_mode", 1i64);
    let pads = || attr("pads", &[1i64, 1][..]);
    assert_eq!(pool("MaxPool", vec![]), [2.]);
    assert_eq!(pool("MaxPool", vec![up()]), [2., 3.]);
    assert_eq!(pool("AveragePool", vec![up()]), [1., 2.5]);
    assert_eq!(pool("AveragePool", vec![pads()]), [0.5, 2.]);
    let include = attr("count_include_pad", 1i64);
    let ends = pool("AveragePool", vec![pads(), include]);
    assert!(
        (ends[0] - 1.0 / 3.0).abs() < 1e-6 && ends[1] == 2.0,
        "{ends:?}"
    );
}

#[test]
fn indices_of_pools_count_from_the_start_of_the_tensor() {
    let x = f32s(&[1, 2, 2, 2], &[0., 3., 1., 2., 4., 5., 7., 6.]);
    let indices = |order: i64| {
        let attributes = vec![
            attr("kernel_shape", &[2i64, 2][..]),
            attr("storage_order", order),
        ];
        let results = TestModel::new(12)
            .input("x", DType::F32, &["1", "2", "2", "2"])
            .node("MaxPool", &["x"], &["y", "i"], attributes)
            .output("i")
            .run(std::slice::from_ref(&x));
        results[0].to_i64s()
    };
    assert_eq!(indices(0), [1, 6]);
    assert_eq!(indices(1), [2, 5]);
}

#[test]
fn reductions_take_axes_from_where_they_are() {
    let x = count_up(&[2, 3]);
    let keep = || attr("keepdims", 0i64);
    let old = run_node(
        11,
        "ReduceSum",
        &[&x],
        &[],
        vec![attr("axes", &[-1i64][..]), keep()],
    );
    let new = run_node(13, "ReduceSum", &[&x, &i64s(&[1])], &[1], vec![keep()]);
    assert_eq!((values(&old), values(&new)), (vec![3., 12.], vec![3., 12.]));
    let all = run_node(18, "ReduceMean", &[&x], &[], vec![keep()]);
    assert_eq!((all.rank(), values(&all)), (0, vec![2.5]));
    let none = attr("noop_with_empty_axes", 1i64);
    let same = run_node(18, "ReduceSumSquare", &[&x], &[], vec![none]);
    assert_eq!(values(&same), [0., 1., 4., 9., 16., 25.]);
    let low = f32s(&[2], &[f32::NEG_INFINITY; 2]);
    let log = run_node(18, "ReduceLogSumExp", &[&low], &[], vec![]);
    assert_eq!(values(&log), [f64::NEG_INFINITY]);
}

#[test]
fn batch_norm_in_training_moves_its_statistics() {
    let x = f32s(&[2, 1, 2], &[1., 3., 5., 7.]);
    let one = f32s(&[1], &[1.0]);
    let zero = f32s(&[1], &[0.0]);
    let mut model = TestModel::new(15).input("x", DType::F32, &["2", "1", "2"]);
    for (name, value) in [("s", &one), ("b", &zero), ("m", &zero), ("v", &one)] {
        model = model.init(name, value);
    }
    let attributes = vec![
        attr("training_mode", 1i64),
        attr("momentum", 0.5f32),
        attr("epsilon", 0f32),
    ];
    let results = model
        .node(
            "BatchNormalization",
            &["x", "s", "b", "m", "v"],
            &["y", "mean", "var"],
            attributes,
        )
        .output("y")
        .output("mean")
        .output("var")
        .run(&[x]);
    let root = 5f64.sqrt();
    for (found, wanted) in values(&results[0]).iter().zip([-3., -1., 1., 3.]) {
        assert!((found - wanted / root).abs() < 1e-6);
    }
    assert_eq!(
        (values(&results[1]), values(&results[2])),
        (vec![2.0], vec![3.0])
    );
}

#[test]
fn splits_are_even_but_for_the_last() {
    let x = count_up(&[7]);
    let results = TestModel::new(18)
        .input("x", DType::F32, &["7"])
        .node(
            "Split",
            &["x"],
            &["a", "b", "c"],
            vec![attr("num_outputs", 3i64)],
        )
        .output("a")
        .output("c")
        .run(&[x]);
    assert_eq!(values(&results[0]), [0., 1., 2.]);
    assert_eq!(values(&results[1]), [6.]);
}

#[test]
fn attribute_values_out_of_range_are_errors() {
    let conv = |attributes| {
        TestModel::new(17)
            .input("x", DType::F32, &["1", "1", "4"])
            .init("w", &f32s(&[1, 1, 2], &[1.0; 2]))
            .node("Conv", &["x", "w"], &["y"], attributes)
            .output("y")
            .errors()
    };
    for attributes in [
        vec![attr("strides", &[0i64][..])],
        vec![attr("strides", &[i64::MAX][..])],
        vec![attr("dilations", &[-1i64][..])],
        vec![attr("pads", &[i64::MIN, 0][..])],
        vec![attr("pads", &[1i64][..])],
        vec![attr("group", 0i64)],
        vec![attr("group", 3i64)],
        vec![attr("kernel_shape", &[3i64][..])],
        vec![attr("auto_pad", "SOME")],
        vec![attr("dilations", &[1i64 << 30][..])],
    ] {
        let error = conv(attributes);
        assert!(error.starts_with("D0310: Conv: "), "{error}");
    }
    let error = conv(vec![attr("group", "two")]);
    assert!(
        error.starts_with("D0313: Conv: attribute `group` is of type String"),
        "{error}"
    );
}
