//! Corners of the operators on sequences, of losses, einsum and optimizers.

use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::options::DimBinding;
use super::super::testing::*;
use super::super::wire::AttributeProto;

/// A model of one node with the operands as inputs, `None` being left out; all results.
fn run_all(
    opset: (&str, i64),
    op: &str,
    operands: &[Option<&Tensor>],
    results: &[&str],
    attributes: Vec<AttributeProto>,
) -> Vec<Tensor> {
    let (domain, version) = opset;
    let mut model = match domain {
        "" => TestModel::new(version),
        _ => TestModel::new(21).domain(domain, version),
    };
    let mut names = vec![];
    let mut inputs = vec![];
    for (index, operand) in operands.iter().enumerate() {
        let name = operand.map_or(String::new(), |_| format!("x{index}"));
        if let Some(tensor) = operand {
            let dims: Vec<String> = tensor.shape().iter().map(u64::to_string).collect();
            let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
            model = model.input(&name, tensor.dtype(), &dims);
            inputs.push((*tensor).clone());
        }
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    model = model.node(op, &names, results, attributes);
    for result in results.iter().filter(|name| !name.is_empty()) {
        model = model.output(result);
    }
    model.run(&inputs)
}

fn zeros(shape: &[u64]) -> Tensor {
    f32s(shape, &vec![0.0; shape.iter().product::<u64>() as usize])
}

fn strings(name: &str, values: &[&str]) -> AttributeProto {
    attr(name, values)
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &[f64]) {
    let values = found.to_f64s();
    assert_eq!(values.len(), expected.len(), "{values:?}");
    for (a, b) in values.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{values:?}, expected {expected:?}");
    }
}

/// A network that sums: two sequences, the second of which ends after one element.
fn sums(direction: &str, attributes: Vec<AttributeProto>) -> Vec<Tensor> {
    let count = if direction == "bidirectional" { 2 } else { 1 };
    let x = f32s(&[3, 2, 1], &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
    let ones = f32s(&[count, 1, 1], &vec![1.0; count as usize]);
    let lengths = Tensor::from_vec(&[2], vec![3i32, 1]);
    let mut all = vec![attr("hidden_size", 1i64), attr("direction", direction)];
    all.extend(attributes);
    let operands = [Some(&x), Some(&ones), Some(&ones), None, Some(&lengths)];
    run_all(("", 22), "RNN", &operands, &["y", "h"], all)
}

#[test]
fn sequences_that_end_early_keep_their_state() {
    let affine = |count| strings("activations", &vec!["Affine"; count]);
    let forward = sums("forward", vec![affine(1)]);
    assert_close(&forward[0], &[1.0, 10.0, 3.0, 0.0, 6.0, 0.0]);
    assert_close(&forward[1], &[6.0, 10.0]);
    let both = sums("bidirectional", vec![affine(2)]);
    assert_eq!(both[0].shape(), [3, 2, 2, 1]);
    let expected = [1.0, 10.0, 6.0, 10.0, 3.0, 0.0, 5.0, 0.0, 6.0, 0.0, 3.0, 0.0];
    assert_close(&both[0], &expected);
    assert_close(&both[1], &[6.0, 10.0, 6.0, 10.0]);
}

#[test]
fn activations_take_parameters_in_order() {
    let attributes = vec![
        strings("activations", &["relu", "Affine"]),
        attr("activation_alpha", [2.0f32].as_slice()),
        attr("activation_beta", [1.0f32].as_slice()),
        attr("clip", 5.0f32),
    ];
    let both = sums("bidirectional", attributes);
    // Backwards: 2 * 3 + 1, 2 * min(2 + 7, 5) + 1, 2 * min(1 + 11, 5) + 1.
    let expected = [
        1.0, 5.0, 11.0, 11.0, 3.0, 0.0, 11.0, 0.0, 5.0, 0.0, 7.0, 0.0,
    ];
    assert_close(&both[0], &expected);
    let errors = TestModel::new(22)
        .input("x", DType::F32, &["3", "2", "1"])
        .init("w", &zeros(&[1, 1, 1]))
        .node(
            "RNN",
            &["x", "w", "w"],
            &["y"],
            vec![strings("activations", &["ScaledTanh"])],
        )
        .output("y")
        .errors();
    assert!(
        errors.contains("`activation_alpha` has too few"),
        "{errors}"
    );
}

#[test]
fn the_batch_may_come_first() {
    let x = f32s(&[2, 3, 1], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
    let one = f32s(&[1, 1, 1], &[1.0]);
    let start = f32s(&[2, 1, 1], &[0.5, 5.0]);
    let attributes = vec![strings("activations", &["Affine"]), attr("layout", 1i64)];
    let operands = [Some(&x), Some(&one), Some(&one), None, None, Some(&start)];
    let results = run_all(("", 22), "RNN", &operands, &["y", "h"], attributes);
    assert_eq!(results[0].shape(), [2, 3, 1, 1]);
    assert_close(&results[0], &[1.5, 3.5, 6.5, 15.0, 35.0, 65.0]);
    assert_eq!(results[1].shape(), [2, 1, 1]);
    assert_close(&results[1], &[6.5, 65.0]);
}

#[test]
fn gru_resets_before_or_behind_the_contraction() {
    let x = zeros(&[1, 1, 1]);
    let w = zeros(&[1, 3, 1]);
    let r = f32s(&[1, 3, 1], &[0.0, 0.0, 1.0]);
    let b = f32s(&[1, 6], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let h = f32s(&[1, 1, 1], &[2.0]);
    let operands = [Some(&x), Some(&w), Some(&r), Some(&b), None, Some(&h)];
    for (linear, expected) in [(0i64, 2.0), (1, 1.75)] {
        let attributes = vec![
            strings("activations", &["Sigmoid", "Affine"]),
            attr("linear_before_reset", linear),
        ];
        let results = run_all(("", 22), "GRU", &operands, &["", "h"], attributes);
        assert_close(&results[0], &[expected]);
    }
}

#[test]
fn lstm_clips_gates_but_not_the_cell() {
    let x = zeros(&[1, 1, 1]);
    let weights = zeros(&[1, 4, 1]);
    // The input gate is wide open, unless clipped.
    let b = f32s(&[1, 8], &[50.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let c = f32s(&[1, 1, 1], &[5.0]);
    let operands = [
        Some(&x),
        Some(&weights),
        Some(&weights),
        Some(&b),
        None,
        None,
        Some(&c),
    ];
    let run = |attribute| {
        let activations = strings("activations", &["Sigmoid", "Affine", "Affine"]);
        run_all(
            ("", 22),
            "LSTM",
            &operands,
            &["", "h", "c"],
            vec![activations, attribute],
        )
    };
    let clipped = run(attr("clip", 0.5f32));
    assert_close(&clipped[0], &[1.25]);
    assert_close(&clipped[1], &[2.5]);
    // What the input gate leaves for the memory is nothing.
    let coupled = run(attr("input_forget", 1i64));
    assert_close(&coupled[1], &[0.0]);
}

/// An attention whose queries see all keys equally: each result is the mean of the values seen.
fn means(operands: &[Option<&Tensor>], rows: u64, attributes: Vec<AttributeProto>) -> Tensor {
    let q = zeros(&[1, 1, rows, 1]);
    let k = zeros(&[1, 1, 3, 1]);
    let v = f32s(&[1, 1, 3, 1], &[1.0, 2.0, 6.0]);
    let mut all = vec![Some(&q), Some(&k), Some(&v)];
    all.extend_from_slice(operands);
    run_all(("", 25), "Attention", &all, &["y"], attributes).remove(0)
}

#[test]
fn causal_attention_counts_from_the_first_new_key() {
    let causal = || vec![attr("is_causal", 1i64)];
    assert_close(&means(&[], 2, causal()), &[1.0, 1.5]);
    let (past_k, past_v) = (zeros(&[1, 1, 1, 1]), f32s(&[1, 1, 1, 1], &[9.0]));
    let past = [None, Some(&past_k), Some(&past_v)];
    assert_close(&means(&past, 2, causal()), &[5.0, 4.0]);
    // Three queries end where the keys end: what the whole op does by itself.
    assert_close(&means(&past, 3, causal()), &[5.0, 4.0, 4.5]);
    let lengths = i64s(&[2]);
    let valid = [None, None, None, Some(&lengths)];
    assert_close(&means(&valid, 1, causal()), &[1.5]);
    assert_close(&means(&valid, 3, causal()), &[0.0, 1.0, 1.5]);
    assert_close(&means(&valid, 3, vec![]), &[1.5, 1.5, 1.5]);
}

#[test]
fn windows_and_short_masks_hide_keys() {
    let window = |left: i64, right: i64| {
        vec![
            attr("left_window_size", left),
            attr("right_window_size", right),
        ]
    };
    assert_close(&means(&[], 3, window(0, 0)), &[1.0, 2.0, 6.0]);
    assert_close(&means(&[], 3, window(1, -1)), &[3.0, 3.0, 4.0]);
    assert_close(&means(&[], 3, window(-1, i64::MAX)), &[3.0, 3.0, 3.0]);
    let short = zeros(&[1, 2]);
    assert_close(&means(&[Some(&short)], 1, vec![]), &[1.5]);
    let none = Tensor::from_vec(&[2], vec![0u8, 0]).convert(DType::Bool);
    assert_close(&means(&[Some(&none)], 1, vec![]), &[0.0]);
}

#[test]
fn attention_is_one_op_unless_its_scores_are_asked_for() {
    let model = |results: &[&str]| {
        let mut model = TestModel::new(24)
            .input("q", DType::F32, &["b", "4", "s", "8"])
            .input("k", DType::F32, &["b", "2", "t", "8"])
            .node(
                "Attention",
                &["q", "k", "k"],
                results,
                vec![attr("is_causal", 1i64)],
            );
        for result in results.iter().filter(|name| !name.is_empty()) {
            model = model.output(result);
        }
        for dim in ["b", "s", "t"] {
            model.options.dims.insert(dim.into(), DimBinding::AtMost(6));
        }
        op_counts(&model.import().unwrap())
    };
    let whole = model(&["y"]);
    assert_eq!(whole.get("attention"), Some(&1));
    assert_eq!(whole.get("softmax"), None);
    let spelled = model(&["y", "", "", "scores"]);
    assert_eq!(spelled.get("attention"), None);
    assert_eq!(spelled.get("softmax"), Some(&1));
}

#[test]
fn linear_attention_needs_what_its_rule_reads() {
    let x = zeros(&[1, 2, 4]);
    let model = |rule: &str| {
        TestModel::new(27)
            .input("x", DType::F32, &["1", "2", "4"])
            .node(
                "LinearAttention",
                &["x", "x", "x"],
                &["y", "s"],
                vec![
                    attr("q_num_heads", 2i64),
                    attr("kv_num_heads", 2i64),
                    attr("update_rule", rule),
                ],
            )
            .output("y")
            .output("s")
    };
    let errors = model("gated").errors();
    assert!(
        errors.contains("the update rule `gated` needs decay"),
        "{errors}"
    );
    let results = model("linear").run(&[x]);
    assert_eq!(results[1].shape(), [1, 2, 2, 2]);
}

#[test]
fn short_sequences_leave_some_of_the_past_in_the_state() {
    let x = f32s(&[1, 1, 1], &[4.0]);
    let weight = f32s(&[1, 1, 4], &[1000.0, 100.0, 10.0, 1.0]);
    let past = f32s(&[1, 1, 3], &[1.0, 2.0, 3.0]);
    let operands = [Some(&x), Some(&weight), None, Some(&past)];
    let results = run_all(
        ("", 27),
        "CausalConvWithState",
        &operands,
        &["y", "s"],
        vec![],
    );
    assert_close(&results[0], &[1234.0]);
    assert_close(&results[1], &[2.0, 3.0, 4.0]);
}

fn einsum(equation: &str, operands: &[&Tensor]) -> Tensor {
    run_node(
        12,
        "Einsum",
        operands,
        &[],
        vec![attr("equation", equation)],
    )
}

#[test]
fn einsum_names_results_in_order_of_the_alphabet() {
    let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let y = einsum("ba", &[&x]);
    assert_eq!(y.shape(), [3, 2]);
    assert_close(&y, &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let y = einsum("ij, kj", &[&x, &x]);
    assert_close(&y, &[14.0, 32.0, 32.0, 77.0]);
}

#[test]
fn einsum_repeats_takes_diagonals_and_sums() {
    let x = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let row = f32s(&[1, 2], &[10.0, 100.0]);
    assert_close(&einsum("ii", &[&x]), &[5.0]);
    assert_close(&einsum("ii->i", &[&x]), &[1.0, 4.0]);
    // Dims of extent 1 are repeated, also where they are summed.
    assert_close(&einsum("...j,...j->...", &[&x, &row]), &[210.0, 430.0]);
    assert_close(&einsum("ij,ij->j", &[&x, &row]), &[40.0, 600.0]);
    assert_close(
        &einsum("ij,k->ik", &[&x, &f32s(&[2], &[1.0, 2.0])]),
        &[3.0, 6.0, 7.0, 14.0],
    );
    assert_close(
        &einsum("ij,jk,kl->il", &[&x, &x, &x]),
        &[37.0, 54.0, 81.0, 118.0],
    );
}

#[test]
fn malformed_equations_are_refused() {
    for (equation, message) in [
        ("ij->ik", "names a dim twice or a new one"),
        ("ij->ii", "names a dim twice or a new one"),
        ("i->i", "does not name the dims"),
        ("ij,ij", "is of 2 operands, there are 1"),
        ("i.->i", "`.` in the equation"),
    ] {
        let errors = TestModel::new(12)
            .input("x", DType::F32, &["2", "2"])
            .node("Einsum", &["x"], &["y"], vec![attr("equation", equation)])
            .output("y")
            .errors();
        assert!(errors.contains(message), "{equation}: {errors}");
    }
}

#[test]
fn ignored_targets_do_not_count() {
    let nan = f32::NAN;
    let x = f32s(&[3, 2], &[-1.0, -2.0, nan, nan, -3.0, -5.0]);
    let target = Tensor::from_vec(&[3], vec![1i32, -9, 0]);
    let weight = f32s(&[2], &[3.0, 1.0]);
    let loss = |operands: &[&Tensor], reduction| {
        let attributes = vec![attr("ignore_index", -9i64), attr("reduction", reduction)];
        run_node(22, "NegativeLogLikelihoodLoss", operands, &[], attributes)
    };
    assert_close(&loss(&[&x, &target], "none"), &[2.0, 0.0, 3.0]);
    assert_close(&loss(&[&x, &target], "mean"), &[2.5]);
    assert_close(&loss(&[&x, &target, &weight], "sum"), &[11.0]);
    assert_close(&loss(&[&x, &target, &weight], "mean"), &[2.75]);
}

const TRAINING: (&str, i64) = ("ai.onnx.preview.training", 1);

#[test]
fn the_first_update_is_special() {
    let scalar = |value| f32s(&[], &[value]);
    let (rate, x) = (scalar(0.1), f32s(&[1], &[1.0]));
    let (gradient, memory) = (f32s(&[1], &[2.0]), f32s(&[1], &[4.0]));
    for (count, expected) in [(0i64, 4.0), (1, 3.0)] {
        let count = i64_scalar(count);
        let operands = [&rate, &count, &x, &gradient, &memory].map(Some);
        let attributes = vec![
            attr("alpha", 0.5f32),
            attr("beta", 0.5f32),
            attr("norm_coefficient", 0.0f32),
            attr("mode", "standard"),
        ];
        let op = "ai.onnx.preview.training::Momentum";
        let results = run_all(TRAINING, op, &operands, &["x", "v"], attributes);
        assert_close(&results[0], &[1.0 - 0.1 * expected]);
        assert_close(&results[1], &[expected]);
    }
    // Mean 0.5 * 4 + 0.5 * 2, square 0.75 * 4 + 0.25 * 4; corrected by sqrt(0.25) / 0.5 from the
    // first update on.
    for (count, factor) in [(0i64, 1.0), (1, 1.0), (2, (1.0f64 - 0.5625).sqrt() / 0.75)] {
        let count = i64_scalar(count);
        let operands = [&rate, &count, &x, &gradient, &memory, &memory].map(Some);
        let attributes = vec![
            attr("alpha", 0.5f32),
            attr("beta", 0.75f32),
            attr("epsilon", 0.5f32),
            attr("norm_coefficient_post", 0.25f32),
        ];
        let op = "ai.onnx.preview.training::Adam";
        let results = run_all(TRAINING, op, &operands, &["x", "v", "h"], attributes);
        assert_close(&results[0], &[0.75 * (1.0 - 0.1 * factor * 3.0 / 2.5)]);
        assert_close(&results[1], &[3.0]);
        assert_close(&results[2], &[4.0]);
    }
}
