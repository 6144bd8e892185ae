//! Values inside of models, by name, in the executables that are made of them.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use dojoc_compiler::io::npz::read_npz;
use support::Lab;

use dojoc::tensor::from_raw;

/// The example in a folder of its own.
fn digits() -> Lab {
    let lab = Lab::new();
    lab.write(
        "model.onnx",
        include_bytes!("../../../examples/digits/model.onnx"),
    );
    lab
}

/// Values and ops of the example; the last op gives the output.
const NAMES: [(&str, &str); 10] = [
    ("/0/Conv", "/0/Conv_output_0"),
    ("/2/Relu", "/2/Relu_output_0"),
    ("/3/Conv", "/3/Conv_output_0"),
    ("/5/Relu", "/5/Relu_output_0"),
    ("/6/MaxPool", "/6/MaxPool_output_0"),
    ("/7/Conv", "/7/Conv_output_0"),
    ("/9/Relu", "/9/Relu_output_0"),
    ("/10/GlobalAveragePool", "/10/GlobalAveragePool_output_0"),
    ("/11/Flatten", "/11/Flatten_output_0"),
    ("/13/Gemm", "output"),
];

#[test]
fn executables_have_every_named_value() {
    let lab = digits();
    lab.run(&["compile", "model.onnx", "--dim", "N=2"]).ok();
    let by_value = NAMES.iter().flat_map(|(_, value)| ["--probe", value]);
    let by_op = NAMES.iter().flat_map(|(op, _)| ["--probe", op]);
    let (by_value, by_op) = (Vec::from_iter(by_value), Vec::from_iter(by_op));
    let random = ["--random", "3"];
    let eval = ["eval", "model.onnx", "--dim", "N=2", "-o", "eval.npz"];
    lab.run(&[&eval[..], &random, &by_value].concat()).ok();
    let run = ["run", "model.djx", "-o"];
    lab.run(&[&run[..], &["values.npz"], &random, &by_value].concat())
        .ok();
    let ops = [
        &run[..],
        &["ops.npz"],
        &random,
        &by_op,
        &["--probe", "input"],
    ]
    .concat();
    lab.run(&ops).ok();
    lab.run(&[&ops[..], &["--sanitize"]].concat()).ok();
    let read = |file: &str, name: &str| {
        let arrays = read_npz(lab.path(file)).unwrap();
        let found = arrays.iter().find(|(key, _)| key == name);
        from_raw(&found.unwrap_or_else(|| panic!("{file} has no {name}")).1)
    };
    for (op, value) in NAMES {
        let expected = read("eval.npz", value);
        // The result of an op has the name of the value; that of the last is the output itself.
        let from_op = if value == "output" { op } else { value };
        for found in [read("values.npz", value), read("ops.npz", from_op)] {
            assert_eq!(found.ty(), expected.ty());
            let pairs = found.to_f64s().into_iter().zip(expected.to_f64s());
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-4, "{value} is off by {worst}");
        }
    }
    assert_eq!(read("ops.npz", "input").shape(), [2, 1, 8, 8]);
}

/// Being readable costs bytes of the file, and nothing of the machine.
#[test]
fn probes_that_nobody_reads_cost_nothing() {
    let lab = digits();
    let compile = |probes: &[&str]| {
        let args = ["--message-format", "json", "compile", "model.onnx"];
        let run = lab.run(&[&args[..], &["--dim", "N=2"], probes].concat());
        let line = run.err.lines().last().unwrap_or_default();
        let summary: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(run.code, 0);
        summary
    };
    let (all, none) = (compile(&[]), compile(&["--probes", "none"]));
    let same = [
        "predicted_cycles",
        "instructions",
        "segments",
        "sram_high_water",
        "messages",
    ];
    for key in same {
        assert_eq!(all[key], none[key], "{key}");
    }
    let bytes = [&none, &all].map(|summary| summary["djx_bytes"].as_u64().unwrap());
    assert!(
        bytes[0] < bytes[1] && bytes[1] < bytes[0] * 21 / 20,
        "{bytes:?}"
    );
    // Without declarations, an op is what the cores have of it, without what brings its operands.
    let probe = |name: &str| {
        lab.run(&["run", "model.djx", "--random", "1", "--probe", name])
            .ok()
    };
    let pieces = probe("/3/Conv");
    assert!(pieces.contains("@0-0-0"));
    assert!(!pieces.contains("exchange"));
    compile(&["--probes", "/3/Conv", "--probes", "/2/Relu_output_0"]);
    assert_eq!(probe("/3/Conv").lines().count(), 2);
    assert_eq!(probe("/2/Relu").lines().count(), 2);
    let err = lab
        .run(&["run", "model.djx", "--random", "1", "--probe", "/0/Conv"])
        .fails(1);
    assert!(err.contains("D0722"), "{err}");
}

#[test]
fn values_that_are_gone_have_neighbours() {
    let lab = Lab::new();
    lab.write(
        "gone.dojo",
        r#"dojo graph 1
        module @m {
          func @main(%x : f32[4, 4]) -> (%y : f32[4, 4]) {
            %first = exp %x : f32[4, 4] loc("Exp_1")
            %back = transpose %first {perm = [1, 0]} : f32[4, 4] loc("Transpose_1")
            %forth = transpose %back {perm = [1, 0]} : f32[4, 4] loc("Transpose_2")
            %last = tanh %forth : f32[4, 4] loc("Tanh_1")
            %y = add %last, %first : f32[4, 4] loc("Add_1")
            return %y
          }
        }"#,
    );
    let model = |probe: &str| lab.run(&["run", "gone.dojo", "--random", "1", "--probe", probe]);
    insta::assert_snapshot!(model("back").fails(1), @r"
    error[D0722]: the program has no value `back`: passes merged it with another one, folded it into weights or computed it in another form
      note: `dojoc eval --probe back` computes it
      help: the closest that are left: `first`, `last`
    ");
    insta::assert_snapshot!(model("Transpose_1").fails(1), @r"
    error[D0722]: the program has no value `Transpose_1`: passes merged it with another one, folded it into weights or computed it in another form
      note: `dojoc eval --probe Transpose_1` computes it
      help: the closest that are left: `first`, `last`
    ");
    insta::assert_snapshot!(model("lats").fails(1), @r"
    error[D0722]: the program has no value, source name or buffer `lats`
      note: it has @x, @first, @last, @y
      note: values that were merged with others or computed in another form are not in a program
      help: did you mean `last`?
    ");
    let compile = |probe: &str| lab.run(&["compile", "gone.dojo", "--probes", probe]);
    insta::assert_snapshot!(compile("back").fails(1), @r"
    error[D0722]: the program has no value `back`: passes merged it with another one, folded it into weights or computed it in another form
      note: `dojoc eval --probe back` computes it
      help: the closest that are left: `first`, `last`
    ");
    insta::assert_snapshot!(compile("lats").fails(1), @r"
    error[D0722]: the model has no value or op `lats`
      help: did you mean `last`?
    ");
    compile("all").ok();
    let run = |probe: &str| lab.run(&["run", "gone.djx", "--random", "1", "--probe", probe]);
    insta::assert_snapshot!(run("back").fails(1), @r"
    error[D0722]: the program has no value, source name or buffer `back`
      note: it has @x, @first, @last, @y
      note: values that were merged with others or computed in another form are not in a program
    ");
    insta::assert_snapshot!(run("frist").fails(1), @r"
    error[D0722]: the program has no value, source name or buffer `frist`
      note: it has @x, @first, @last, @y
      note: values that were merged with others or computed in another form are not in a program
      help: did you mean `first`?
    ");
    insta::assert_snapshot!(run("Exp_1").ok(), @r"
    y      f32[4, 4]  min 0.849678  max 3.31528  mean 1.57913
    first  f32[4, 4]  min 0.437832  max 2.33389  mean 0.9326
    ");
}
