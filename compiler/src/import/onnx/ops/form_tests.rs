//! Corner cases of normalisation, quantisation, resampling, indexing and layout operators.

use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::options::DimBinding;
use super::super::testing::*;
use super::super::wire::AttributeProto;

fn run(opset: i64, op: &str, operands: &[&Tensor], attributes: Vec<AttributeProto>) -> Vec<f64> {
    run_node(opset, op, operands, &[], attributes).to_f64s()
}

/// The same with all operands but the first as constants of the model.
fn run_const(
    opset: i64,
    op: &str,
    operands: &[&Tensor],
    attributes: Vec<AttributeProto>,
) -> Tensor {
    let constants: Vec<usize> = (1..operands.len()).collect();
    run_node(opset, op, operands, &constants, attributes)
}

fn f32_vec(values: &[f32]) -> Tensor {
    f32s(&[values.len() as u64], values)
}

/// A model of one node whose only input has these dims.
fn model_of(opset: i64, op: &str, dims: &[&str], others: &[&Tensor]) -> TestModel {
    let mut model = TestModel::new(opset).input("x", DType::F32, dims);
    let names: Vec<String> = (0..others.len()).map(|n| format!("c{n}")).collect();
    for (name, tensor) in names.iter().zip(others) {
        model = model.init(name, tensor);
    }
    let mut inputs = vec!["x"];
    inputs.extend(names.iter().map(String::as_str));
    model.node(op, &inputs, &["y"], vec![]).output("y")
}

fn with_attr(mut model: TestModel, attribute: AttributeProto) -> TestModel {
    model.graph().node[0].attribute.push(attribute);
    model
}

#[test]
fn scales_of_group_norm_were_per_group() {
    let x = f32s(&[1, 4, 2], &[0.0, 2.0, 0.0, 2.0, 0.0, 2.0, 0.0, 2.0]);
    let groups = || vec![attr("num_groups", 2i64), attr("epsilon", 0.0f32)];
    let (scale, bias) = (f32_vec(&[1.0, 10.0]), f32_vec(&[0.0, 100.0]));
    let old = run(18, "GroupNormalization", &[&x, &scale, &bias], groups());
    let scale = f32_vec(&[1.0, 1.0, 10.0, 10.0]);
    let bias = f32_vec(&[0.0, 0.0, 100.0, 100.0]);
    let new = run(21, "GroupNormalization", &[&x, &scale, &bias], groups());
    assert_eq!(new, [-1.0, 1.0, -1.0, 1.0, 90.0, 110.0, 90.0, 110.0]);
    assert_eq!(old, new);
}

#[test]
fn statistics_of_16_bit_floats_do_not_overflow() {
    let x = f32_vec(&[600.0, -600.0]).convert(DType::F16);
    let scale = f32_vec(&[1.0, 1.0]).convert(DType::F16);
    let model = TestModel::new(17)
        .input("x", DType::F16, &["2"])
        .init("s", &scale)
        .node(
            "LayerNormalization",
            &["x", "s"],
            &["y", "mean", "inverse"],
            vec![],
        )
        .output("y")
        .output("inverse");
    let results = model.run(&[x]);
    assert_eq!(results[0].to_f64s(), [1.0, -1.0]);
    assert_eq!(results[1].dtype(), DType::F32);
    assert!((results[1].to_f64s()[0] * 600.0 - 1.0).abs() < 1e-6);
}

#[test]
fn a_norm_of_zero_divides_nothing() {
    let x = f32s(&[2, 2], &[0.0, 0.0, 3.0, -4.0]);
    assert_eq!(
        run(22, "LpNormalization", &[&x], vec![]),
        [0.0, 0.0, 0.6f32.into(), (-0.8f32).into()]
    );
}

#[test]
fn activations_stay_finite() {
    let x = f32_vec(&[-1000.0, 1000.0]);
    assert_eq!(run(22, "Softplus", &[&x], vec![]), [0.0, 1000.0]);
    assert_eq!(run(22, "Mish", &[&x], vec![]), [0.0, 1000.0]);
    assert_eq!(run(22, "Elu", &[&x], vec![]), [-1.0, 1000.0]);
    assert_eq!(
        run(12, "Celu", &[&x], vec![attr("alpha", 2.0f32)]),
        [-2.0, 1000.0]
    );
}

#[test]
fn integers_shrink_by_the_exact_threshold() {
    let x = Tensor::from_vec(&[4], vec![-2i32, -1, 1, 2]);
    let attributes = vec![attr("lambd", 1.5f32), attr("bias", 1.0f32)];
    assert_eq!(run(9, "Shrink", &[&x], attributes), [-1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn infinities_of_one_sign() {
    let x = f32_vec(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0]);
    let flags = |negative: i64, positive: i64| {
        vec![
            attr("detect_negative", negative),
            attr("detect_positive", positive),
        ]
    };
    assert_eq!(run(20, "IsInf", &[&x], flags(1, 0)), [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(run(20, "IsInf", &[&x], flags(0, 1)), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(run(20, "IsInf", &[&x], flags(0, 0)), [0.0; 4]);
}

#[test]
fn quantisation_rounds_to_even_and_saturates() {
    let x = f32_vec(&[0.5, 1.5, -0.5, 1e9, -1e9, f32::NAN]);
    let scale = f32s(&[], &[1.0]);
    let zero_point = Tensor::from_vec(&[], vec![3u8]);
    let y = run(13, "QuantizeLinear", &[&x, &scale, &zero_point], vec![]);
    assert_eq!(y, [3.0, 5.0, 3.0, 255.0, 0.0, 0.0]);
    // 60000 is no 16-bit float, and the sum is exact all the same.
    let zero_point = Tensor::from_vec(&[], vec![60001u16]);
    let (x, scale) = (x.convert(DType::F16), scale.convert(DType::F16));
    let y = run(21, "QuantizeLinear", &[&x, &scale, &zero_point], vec![]);
    assert_eq!(y[..3], [60001.0, 60003.0, 60001.0]);
}

#[test]
fn scales_per_block_end_with_a_shorter_block() {
    let x = Tensor::from_vec(&[1, 5], vec![1i8, 1, 1, 1, 1]);
    let scale = f32s(&[1, 3], &[1.0, 2.0, 3.0]);
    let attributes = vec![attr("axis", 1i64), attr("block_size", 2i64)];
    let y = run(21, "DequantizeLinear", &[&x, &scale], attributes);
    assert_eq!(y, [1.0, 1.0, 2.0, 2.0, 3.0]);
}

#[test]
fn types_of_few_bits_are_refused_by_code() {
    let model = model_of(21, "QuantizeLinear", &["2"], &[&f32s(&[], &[1.0])]);
    // 22 is INT4.
    let errors = with_attr(model, attr("output_dtype", 22i64)).errors();
    assert!(
        errors.contains("D0514") || errors.contains("D0404"),
        "{errors}"
    );
}

#[test]
fn data_of_zeros_have_a_scale() {
    let x = f32_vec(&[0.0, 0.0]);
    let model = model_of(11, "DynamicQuantizeLinear", &["2"], &[]);
    assert_eq!(model.run(&[x])[0].to_f64s(), [0.0, 0.0]);
}

#[test]
fn scaled_extents_are_products_of_32_bit_floats() {
    let x = f32s(&[1, 1, 5], &[0.0, 1.0, 2.0, 3.0, 4.0]);
    let (roi, scales) = (f32s(&[0], &[]), f32_vec(&[1.0, 1.0, 1.4]));
    let attributes = vec![
        attr("coordinate_transformation_mode", "asymmetric"),
        attr("nearest_mode", "floor"),
    ];
    let y = run_const(19, "Resize", &[&x, &roi, &scales], attributes);
    assert_eq!(y.to_f64s(), [0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_half_way_position_has_two_nearest_neighbours() {
    let x = f32s(&[4], &[0.0, 1.0, 2.0, 3.0]);
    let (roi, scales) = (f32s(&[0], &[]), f32_vec(&[0.5]));
    for (mode, expected) in [
        ("round_prefer_floor", [0.0, 2.0]),
        ("round_prefer_ceil", [1.0, 3.0]),
        ("floor", [0.0, 2.0]),
        ("ceil", [1.0, 3.0]),
    ] {
        let y = run_const(
            19,
            "Resize",
            &[&x, &roi, &scales],
            vec![attr("nearest_mode", mode)],
        );
        assert_eq!(y.to_f64s(), expected, "{mode}");
    }
}

#[test]
fn integers_are_interpolated_and_rounded() {
    let x = Tensor::from_vec(&[2], vec![0u8, 255]);
    let (roi, scales) = (f32s(&[0], &[]), f32_vec(&[2.0]));
    let attributes = || vec![attr("mode", "linear")];
    let y = run_const(19, "Resize", &[&x, &roi, &scales], attributes());
    assert_eq!(y.to_f64s(), [0.0, 64.0, 191.0, 255.0]);
    assert_eq!(y.dtype(), DType::U8);
}

#[test]
fn only_resized_dims_need_fixed_extents() {
    let others = [&f32s(&[0], &[]), &f32_vec(&[1.0, 2.0])];
    let mut model = model_of(19, "Resize", &["N", "2"], &others);
    model.options.dims.insert("N".into(), DimBinding::AtMost(4));
    let y = model.run(&[f32s(&[1, 2], &[1.0, 2.0])]);
    assert_eq!(y[0].to_f64s(), [1.0, 1.0, 2.0, 2.0]);
    let mut model = model_of(19, "Resize", &["2", "N"], &others);
    model.options.dims.insert("N".into(), DimBinding::AtMost(4));
    assert!(model.errors().contains("symbolic"));
}

#[test]
fn pads_longer_than_the_dim_are_reflected_again() {
    let x = f32_vec(&[0.0, 1.0, 2.0]);
    let y = |mode, pads: &[i64]| {
        run_const(21, "Pad", &[&x, &i64s(pads)], vec![attr("mode", mode)]).to_f64s()
    };
    assert_eq!(
        y("reflect", &[5, 0]),
        [1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0]
    );
    assert_eq!(y("wrap", &[1, 4]), [2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0]);
    assert_eq!(y("edge", &[2, -1]), [0.0, 0.0, 0.0, 1.0]);
    assert_eq!(y("constant", &[-1, 1]), [1.0, 2.0, 0.0]);
}

#[test]
fn symbolic_dims_are_continued() {
    for (mode, expected) in [
        ("reflect", [2.0, 1.0, 0.0, 1.0, 2.0, 1.0]),
        ("wrap", [1.0, 2.0, 0.0, 1.0, 2.0, 0.0]),
        ("edge", [0.0, 0.0, 0.0, 1.0, 2.0, 2.0]),
    ] {
        let model = model_of(21, "Pad", &["N"], &[&i64s(&[2, 1])]);
        let mut model = with_attr(model, attr("mode", mode));
        model.options.dims.insert("N".into(), DimBinding::AtMost(8));
        let y = model.run(&[f32_vec(&[0.0, 1.0, 2.0])]);
        assert_eq!(y[0].to_f64s(), expected, "{mode}");
    }
}

#[test]
fn indices_of_one_hot_wrap_once() {
    let x = i64s(&[-1, 0, 3, -4]);
    let (depth, values) = (i64_scalar(3), f32_vec(&[5.0, 7.0]));
    let y = run_const(11, "OneHot", &[&x, &depth, &values], vec![]);
    let expected = [5.0, 5.0, 7.0, 7.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0];
    assert_eq!(y.to_f64s(), expected);
}

#[test]
fn the_diagonal_may_be_computed_at_run_time() {
    let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(
        run(14, "Trilu", &[&x, &i64_scalar(1)], vec![]),
        [0.0, 2.0, 3.0, 0.0, 0.0, 6.0]
    );
    let lower = run(
        14,
        "Trilu",
        &[&x, &i64_scalar(-1)],
        vec![attr("upper", 0i64)],
    );
    assert_eq!(lower, [0.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
}

#[test]
fn a_known_condition_gives_a_known_extent() {
    let cond = Tensor::from_scalars(
        DType::Bool,
        &[3],
        [true, false, true].into_iter().map(Scalar::Bool),
    );
    let imported = model_of(11, "Compress", &["3"], &[&cond]).import().unwrap();
    let main = imported.module.main().unwrap();
    assert!(imported.module.dims.is_empty());
    let y = run_module(&imported, &[f32_vec(&[1.0, 2.0, 3.0])]);
    assert_eq!(y[0].to_f64s(), [1.0, 3.0]);
    assert_eq!(imported.module.functions[main].outputs.len(), 1);
}

#[test]
fn the_number_of_elements_bounds_data_dependent_results() {
    let model = model_of(13, "NonZero", &["2", "3"], &[]);
    let imported = model.import().unwrap();
    assert_eq!(
        imported.module.dims.values().copied().collect::<Vec<_>>(),
        [6]
    );
    let y = run_module(&imported, &[f32s(&[2, 3], &[0.0, 1.0, 0.0, 0.0, 2.0, 3.0])]);
    assert_eq!(y[0].to_f64s(), [0.0, 1.0, 1.0, 1.0, 1.0, 2.0]);
}

#[test]
fn a_circular_cache_begins_again() {
    let cache = f32s(&[1, 3, 1], &[1.0, 2.0, 3.0]);
    let update = f32s(&[1, 2, 1], &[8.0, 9.0]);
    let circular = vec![attr("mode", "circular")];
    let y = run(
        24,
        "TensorScatter",
        &[&cache, &update, &i64s(&[2])],
        circular,
    );
    assert_eq!(y, [9.0, 2.0, 8.0]);
}

#[test]
fn positions_that_are_no_numbers_stay_inside() {
    let x = f32s(&[1, 1, 1, 2], &[1.0, 2.0]);
    let grid = f32s(&[1, 1, 2, 2], &[f32::NAN, 0.0, 1e30, 0.0]);
    for mode in ["zeros", "border", "reflection"] {
        let attributes = vec![attr("mode", "nearest"), attr("padding_mode", mode)];
        let y = run(22, "GridSample", &[&x, &grid], attributes);
        assert!(
            y.iter().all(|v| [0.0, 1.0, 2.0].contains(v)),
            "{mode}: {y:?}"
        );
    }
}

#[test]
fn determinants_of_exchanged_and_dependent_rows() {
    let x = f32s(&[2, 2, 2], &[0.0, 2.0, 3.0, 5.0, 1.0, 2.0, 2.0, 4.0]);
    assert_eq!(run(22, "Det", &[&x], vec![]), [-6.0, 0.0]);
}

#[test]
fn malformed_nodes_are_errors() {
    let vector = f32_vec(&[1.0]);
    let one = i64s(&[1]);
    let cases: [(&str, &[&str], &[&Tensor]); 11] = [
        ("GridSample", &["2"], &[&vector]),
        ("AffineGrid", &["2"], &[&one]),
        ("DeformConv", &["2"], &[&vector, &vector]),
        ("Det", &["2"], &[]),
        ("Trilu", &["2"], &[]),
        ("Col2Im", &["2"], &[&one, &one]),
        ("STFT", &["2"], &[&one]),
        ("DFT", &[], &[]),
        ("TensorScatter", &["2"], &[&vector]),
        ("InstanceNormalization", &["2"], &[&vector, &vector]),
        ("Pad", &["2"], &[&i64s(&[i64::MIN, 0])]),
    ];
    for (op, dims, others) in cases {
        assert!(
            model_of(24, op, dims, others).errors().starts_with("D03"),
            "{op}"
        );
    }
    let x = f32s(&[1], &[1.0]).convert(DType::U8);
    let scales = f32_vec(&[1.0, 1.0]);
    let mut model = TestModel::new(21).input("x", DType::U8, &["1"]);
    for (name, tensor) in [("one", &f32s(&[], &[1.0])), ("zero", &x), ("many", &scales)] {
        model = model.init(name, tensor);
    }
    let inputs = ["x", "one", "zero", "x", "many", "zero", "one", "zero"];
    let model = model
        .node("QLinearConv", &inputs, &["y"], vec![])
        .output("y");
    assert!(model.errors().starts_with("D0310"));
}
