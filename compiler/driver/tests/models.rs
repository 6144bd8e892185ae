//! The commands that read models: eval, compile, check, opt.

mod support;

use dojoc::Tensor;
use dojoc::tensor::{from_raw, to_raw};
use dojoc_compiler::io::npz::{read_npz, write_npz};
use support::{ADD, Lab, onnx, tensor};

#[expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its folder has failed"
)]
fn npz(lab: &Lab, name: &str, arrays: &[(&str, Tensor)]) {
    let raw = arrays
        .iter()
        .map(|(n, t)| ((*n).to_owned(), to_raw(n, t).unwrap()));
    write_npz(lab.path(name), &raw.collect::<Vec<_>>()).unwrap();
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("add.dojo", ADD);
    let x = Tensor::from_vec(&[3, 2], vec![0f32, 0.0, 100.0, 0.0, 0.0, 50.0]);
    let ref_ = Tensor::from_vec(&[3, 2], vec![10f32, 20.0, 110.0, 20.0, 10.0, 70.0]);
    let labels = Tensor::from_vec(&[3], vec![1i64, 0, 0]);
    npz(
        &lab,
        "data.npz",
        &[("x", x), ("y", ref_), ("labels", labels)],
    );
    lab
}

#[test]
fn eval_runs_batches_and_counts_right_labels() {
    let lab = lab();
    let out = lab.run(&[
        "eval",
        "add.dojo",
        "-i",
        "data.npz",
        "--accuracy",
        "data.npz:labels",
        "--compare",
        "data.npz",
    ]);
    insta::assert_snapshot!(out.ok(), @"
    y  f32[3, 2]  min 10  max 110  mean 40  [10, 20, 110, 20, 10, 70]
    accuracy 66.67 % (2 of 3)
    compare y: agrees  max |a - b| 0  max |b| 110
    ");
}

/// Rows are cut for those who say that they are samples, and who ask for values of rows.
#[test]
fn batches_are_asked_for() {
    let lab = lab();
    lab.run(&["compile", "add.dojo", "-o", "add.djx"]).ok();
    let sum = "dojo graph 1  module @sum { func @main(%x : f32[2, 2]) -> (%y : f32[]) { \
               %y = reduce %x {kind = \"sum\", axes = [0, 1], keep = false} : f32[] return %y } }";
    lab.write("sum.dojo", sum);
    for command in [
        ["eval", "add.dojo"],
        ["run", "add.dojo"],
        ["run", "add.djx"],
    ] {
        let run = |more: &[&str]| lab.run(&[&command, &["-i", "data.npz:x"], more].concat());
        let refused = run(&[]).fails(1);
        assert_eq!(
            refused,
            "error[D0723]: input `x` is f32[2, 2], f32[3, 2] was given\n  \
             help: --batched runs rows that do not depend on each other batch by batch\n"
        );
        let cut = run(&["--batched"]).ok();
        assert!(cut.contains("[10, 20, 110, 20, 10, 70]"), "{cut}");
        let counted = run(&["--accuracy", "data.npz:labels"]).ok();
        assert!(counted.contains("(2 of 3)"), "{counted}");
    }
    for command in ["eval", "run"] {
        let mixed = lab.run(&[command, "sum.dojo", "-i", "data.npz:x", "--batched"]);
        insta::allow_duplicates! {
            insta::assert_snapshot!(mixed.fails(1), @"error[D0955]: no output is made of the 2 rows of a batch");
        }
    }
}

#[test]
fn eval_writes_outputs_and_probes() {
    let lab = lab();
    lab.run(&[
        "eval",
        "add.dojo",
        "-i",
        "x=data.npz:x",
        "--batched",
        "--probe",
        "b",
        "-o",
        "out.npz",
    ])
    .ok();
    let arrays = read_npz(lab.path("out.npz")).unwrap();
    let names: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["y", "b"]);
    assert_eq!(
        from_raw(&arrays[1].1).to_f64s(),
        [10.0, 20.0, 10.0, 20.0, 10.0, 20.0]
    );
    lab.run(&["eval", "add.dojo", "--random", "1", "-o", "folder"])
        .ok();
    assert!(lab.path("folder/y.npy").is_file());
    let twice = || lab.run(&["eval", "add.dojo", "--random", "7"]).ok();
    assert_eq!(twice(), twice());
}

#[test]
fn eval_says_what_differs() {
    let lab = lab();
    let x = Tensor::from_vec(&[2, 2], vec![0f32; 4]);
    npz(&lab, "wrong.npz", &[("y", x)]);
    let ran = lab.run(&[
        "eval",
        "add.dojo",
        "-i",
        "data.npz:x",
        "--batched",
        "--compare",
        "wrong.npz",
    ]);
    assert_eq!(ran.code, 5);
    insta::assert_snapshot!(ran.err, @"
    error[D0954]: output `y`: is f32[3, 2], the reference is f32[2, 2]
      note: allowed is 1e-7 + 1e-3 * |reference|
    ");
}

#[test]
fn eval_of_states_goes_from_run_to_run() {
    let lab = Lab::new();
    lab.write(
        "count.dojo",
        "dojo graph 1 module @m { state @s : i64[] = zeros func @main() -> (%n : i64[] aliases @s) {
           %one = full {dtype = i64, shape = [], value = 1} : i64[]
           %n = add @s, %one : i64[]
           return %n } }",
    );
    let ran = lab.run(&[
        "eval",
        "count.dojo",
        "--repeat",
        "3",
        "--state-out",
        "s.npz",
    ]);
    let out = ran.ok();
    assert!(out.contains("[3]"), "{out}");
    let again = lab.run(&["eval", "count.dojo", "--state-in", "s.npz"]).ok();
    assert!(again.contains("[4]"), "{again}");
}

#[test]
fn eval_names_what_is_wrong_with_inputs() {
    let lab = lab();
    insta::assert_snapshot!(lab.run(&["eval", "add.dojo"]).fails(1), @"
    error[D0952]: inputs are missing
      note: no value for `x` : f32[2, 2]
      help: give them (--input x=FILE) or try --random 1
    ");
    insta::assert_snapshot!(lab.run(&["eval", "add.dojo", "-i", "xx=data.npz:x", "--random", "1"]).fails(1), @"
    error[D0952]: `main` has no input `xx`
      help: the inputs are `x` : f32[2, 2]; --input INPUT=FILE.npz:ARRAY takes one array
    ");
    insta::assert_snapshot!(lab.run(&["eval", "add.dojo", "-i", "data.npz:z"]).fails(1), @"
    error[D0953]: data.npz: there is no array `z`
      help: there are: x, y, labels
    ");
    insta::assert_snapshot!(lab.run(&["eval", "add.dojo", "--random", "1", "--probe", "bb"]).fails(1), @"
    error[D0959]: function `main` computes no value `bb`
      help: did you mean `b`?
    ");
    insta::assert_snapshot!(lab.run(&["eval", "none.dojo"]).fails(1), @"error[D0500]: none.dojo: cannot read the file: No such file or directory (os error 2)");
    insta::assert_snapshot!(lab.run(&["eval", "data.npz"]).fails(1), @"
    error[D0950]: data.npz is a zip archive (a PyTorch checkpoint, `.pt2` or `.npz`?), not a model
      help: a model is an ONNX file or a text that begins with `dojo graph 1`
    ");
}

#[test]
fn dimensions_follow_the_data() {
    let lab = Lab::new();
    lab.write("m.onnx", onnx(&["Neg"], &["N", "2"]));
    lab.write("x.pb", tensor("x", &[1, 2], &[1.0, -2.0]));
    insta::assert_snapshot!(lab.run(&["eval", "m.onnx", "-i", "x.pb"]).ok(), @"y0  f32[1, 2]  min -1  max 2  mean 0.5  [-1, 2]");
    let err = lab.run(&["eval", "m.onnx", "--random", "1"]).fails(1);
    assert!(err.contains("D0314") && err.contains("--dim N="), "{err}");
    let one = "1 dimension of the inputs has no extent";
    assert!(err.contains(one), "{err}");
    let ran = lab.run(&["eval", "m.onnx", "--random", "1", "--dim", "N=3"]);
    assert!(ran.ok().starts_with("y0  f32[3, 2]"));
}

#[test]
fn check_reports_all_problems_of_all_models() {
    let lab = lab();
    lab.write(
        "bad.onnx",
        onnx(&["NoSuchOp", "Relu", "StringSplit"], &["2"]),
    );
    let ran = lab.run(&["check", "add.dojo", "bad.onnx"]);
    assert_eq!(ran.code, 4);
    insta::assert_snapshot!(ran.out, @"
    add.dojo: ok
      main: 2 nodes
        input x : f32[2, 2]
        output y : f32[2, 2]
    bad.onnx: 2 problems
    ");
    assert!(ran.err.contains("operator NoSuchOp") && ran.err.contains("operator StringSplit"));
    // Names of nodes are in the messages.
    assert!(
        ran.err.contains("node0") && ran.err.contains("node2"),
        "{}",
        ran.err
    );
}

#[test]
fn compile_prints_what_eval_reads() {
    let lab = lab();
    let text = lab.run(&["compile", "add.dojo", "--emit", "graph"]).ok();
    let from_stdin = lab
        .run_with(
            &["eval", "-", "-i", "data.npz", "--batched"],
            text.as_bytes(),
        )
        .ok();
    assert_eq!(
        from_stdin,
        lab.run(&["eval", "add.dojo", "-i", "data.npz", "--batched"])
            .ok()
    );
    let same = lab
        .run_with(&["compile", "-", "--emit", "import"], ADD.as_bytes())
        .ok();
    assert_eq!(
        lab.run_with(&["compile", "-", "--emit", "import"], same.as_bytes())
            .ok(),
        same
    );
}

/// The same numbers from the interpreter, the model on the chip, and the executable made of it.
#[test]
fn models_are_compiled_and_run() {
    let lab = Lab::new();
    lab.write("add.dojo", ADD);
    let wanted = lab.run(&["eval", "add.dojo", "--random", "1"]).ok();
    let run = lab
        .run(&["run", "add.dojo", "--random", "1", "--sanitize"])
        .ok();
    assert!(run.starts_with(&wanted), "{run}\n{wanted}");
    assert!(run.contains("predicted cycles"), "{run}");
    for level in ["tiled", "mesh", "program"] {
        let text = lab.run(&["compile", "add.dojo", "--emit", level]).ok();
        assert!(text.starts_with(&format!("dojo {level} 1")), "{text}");
    }
    let plan = lab.run(&["compile", "add.dojo", "--emit", "plan"]).ok();
    lab.write("plan.toml", &plan);
    let with = |plan: &str| lab.run(&["compile", "add.dojo", "--emit", "plan", "--plan", plan]);
    assert_eq!(with("plan.toml").ok(), plan);
    lab.write(
        "wrong.toml",
        "[[node]]\nname = \"nobody\"\nsplit = { m = 4 }\n",
    );
    assert!(with("wrong.toml").fails(1).contains("D0432"));
    let summary = lab.run(&[
        "compile",
        "add.dojo",
        "-o",
        "add.djx",
        "--message-format",
        "json",
    ]);
    let summary: serde_json::Value = serde_json::from_str(summary.err.trim()).unwrap();
    for key in [
        "predicted_cycles",
        "cores",
        "segments",
        "sram_high_water",
        "bytes_moved",
        "messages",
        "djx_bytes",
        "instructions",
        "seconds",
    ] {
        assert!(summary.get(key).is_some(), "{key} in {summary}");
    }
    let again = lab.run(&["run", "add.djx", "--random", "1"]).ok();
    assert!(run.starts_with(&again), "{again}");
}

/// What there are no instructions for is refused by name, and runs on the interpreter.
#[test]
fn compile_refuses_what_it_cannot_emit() {
    let lab = Lab::new();
    lab.write(
        "up.dojo",
        "dojo graph 1 module @m { func @main(%x : f32[1, 1, 3], %w : f32[1, 1, 3]) -> (%y : f32[1, 1, 7]) {
           %y = conv_transpose %x, %w {stride = [2], pad = [[0, 0]], dilation = [1], groups = 1, size = [7]} : f32[1, 1, 7]
           return %y } }",
    );
    insta::assert_snapshot!(lab.run(&["run", "up.dojo", "--random", "1"]).fails(4), @"
    unsupported[D0430]: the machine has no instructions for `conv_transpose`: elements that lie between those of an operand
      help: `dojoc eval` runs the model on the reference interpreter
    ");
    lab.run(&["eval", "up.dojo", "--random", "1"]).ok();
}

#[test]
fn compile_writes_whole_files_or_none() {
    let lab = lab();
    lab.write("broken.dojo", ADD.replace("add %x, %b", "add %x"));
    lab.write("out.dojo", "old");
    let before = lab.names();
    for args in [
        &[
            "compile",
            "broken.dojo",
            "--emit",
            "graph",
            "-o",
            "out.dojo",
        ][..],
        &[
            "compile",
            "broken.dojo",
            "--emit",
            "graph",
            "-o",
            "new.dojo",
        ],
        &[
            "compile",
            "add.dojo",
            "--emit",
            "graph",
            "-o",
            "no/folder.dojo",
        ],
        &[
            "compile",
            "add.dojo",
            "--emit",
            "graph",
            "-o",
            "out.dojo",
            "--dump-after",
            "nope",
        ],
    ] {
        lab.run(args).fails(1);
    }
    assert_eq!(
        (lab.names(), lab.read("out.dojo")),
        (before, "old".to_owned())
    );
    let args = [
        "compile",
        "add.dojo",
        "--emit",
        "graph",
        "-o",
        "out.dojo",
        "--dump-after",
        "all",
        "--dump-dir",
        "d",
    ];
    lab.run(&args).ok();
    assert!(lab.read("out.dojo").starts_with("dojo graph 1"));
    assert!(lab.read("d/01-dead-code.dojo").starts_with("dojo graph 1"));
}

#[test]
fn precision_and_fuel_reach_the_passes() {
    let lab = Lab::new();
    lab.write(
        "dot.dojo",
        "dojo graph 1 module @m { func @main(%a : f32[2, 2], %b : f32[2, 2]) -> (%y : f32[2, 2]) {
           %y = add %a, %b : f32[2, 2]
           %z = sub %a, %b : f32[2, 2]
           return %y } }",
    );
    let nodes = |args: &[&str]| {
        let all = [&["compile", "dot.dojo", "--emit", "graph"], args].concat();
        lab.run(&all).ok().matches(" = ").count()
    };
    // A module line of a text has no sign of its own.
    assert_eq!((nodes(&[]), nodes(&["--fuel", "0"])), (1, 2));
    assert_eq!(nodes(&["--precision", "bf16"]), 1);
}

#[test]
fn runs_are_measured() {
    let lab = lab();
    let args = ["run", "add.dojo", "-i", "data.npz:x", "--batched"];
    let run = |more: &[&str]| lab.run(&[&args, more].concat());
    let json = |ran: support::Ran| -> serde_json::Value {
        serde_json::from_str(ran.ok().lines().next().unwrap()).unwrap()
    };
    let timed = json(run(&[
        "--time",
        "--repeat",
        "2",
        "--threads",
        "1",
        "--format",
        "json",
    ]));
    let seconds = |key: &str| timed["stats"][key].as_f64().unwrap();
    assert!(seconds("compute_seconds") > 0.0);
    assert!(seconds("compute_seconds") < seconds("seconds"));
    let plain = json(run(&["--format", "json"]));
    assert!(plain["stats"].get("seconds").is_none());
    let text = run(&["--time", "--threads", "1"]).ok();
    assert!(text.contains(" s on 1 thread, "), "{text}");
    assert!(!run(&[]).ok().contains(" computing"));
}

#[test]
fn passes_can_be_left_out() {
    let lab = Lab::new();
    lab.write(
        "sum.dojo",
        "dojo graph 1 module @m { func @main(%x : f32[4]) -> (%y : f32[4]) {
           %dead = neg %x : f32[4]
           %y = add %x, %x : f32[4]
           return %y
         } }",
    );
    let compile =
        |more: &[&str]| lab.run(&[&["compile", "sum.dojo", "--emit", "graph"], more].concat());
    assert!(!compile(&[]).ok().contains("neg"));
    assert!(compile(&["--skip-pass", "dead-code"]).ok().contains("neg"));
    let wrong = compile(&["--skip-pass", "dead-cod"]);
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.err.contains("did you mean `dead-code`?"),
        "{}",
        wrong.err
    );
}

#[test]
fn a_machine_of_several_chips_is_planned_for() {
    let lab = lab();
    let compile = |more: &[&str]| {
        lab.run(
            &[
                &["compile", "gemm.dojo", "--machine", "tile", "-o", "-"],
                more,
            ]
            .concat(),
        )
    };
    lab.write(
        "gemm.dojo",
        "dojo graph 1 module @m { func @main(%a : f32[2048, 64], %b : f32[64, 2048]) -> (%c : f32[2048, 2048]) {
           %c = dot %a, %b {batch = [], contract = [[1, 0]]} : f32[2048, 2048]
           return %c
         } }",
    );
    assert!(compile(&["--emit", "tiled"]).ok().contains("= chip("));
    assert!(compile(&["--emit", "plan"]).ok().contains("chip = "));
    let none = compile(&["--emit", "program"]);
    assert_eq!(none.code, 4);
    assert!(none.err.contains("D0435"), "{}", none.err);
    let one = compile(&["--emit", "tiled", "--chips", "1"]).ok();
    assert!(!one.contains("= chip("), "{one}");
}

#[test]
fn opt_runs_single_passes() {
    let lab = lab();
    let text = lab
        .run(&["opt", "--pass", "dead-code,fold-constants", "add.dojo"])
        .ok();
    assert!(!text.contains("broadcast"), "{text}");
    let err = lab.run(&["opt", "--pass", "deadcode", "add.dojo"]).fails(1);
    insta::assert_snapshot!(err, @"
    error[D0959]: there is no pass `deadcode`
      help: did you mean `dead-code`?
    ");
}

#[test]
fn mistakes_in_text_are_shown_in_their_line() {
    let lab = Lab::new();
    lab.write("bad.dojo", ADD.replace("add %x, %b", "ad %x, %c"));
    insta::assert_snapshot!(lab.run(&["check", "bad.dojo"]).err, @r"
    error[D0101]: there is no op `ad`
      ┌─ bad.dojo:8:10
      │
    8 │     %y = ad %x, %c : f32[2, 2]
      │          ^^
      │
      = help: did you mean `add`?
    error[D0103]: `%c` is not defined here
      ┌─ bad.dojo:8:17
      │
    8 │     %y = ad %x, %c : f32[2, 2]
      │                 ^^
    ");
    let ran = lab.run(&["check", "bad.dojo", "--message-format", "json"]);
    let codes: Vec<String> = ran
        .err
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["schema_version"], 1);
            assert_eq!(value["place"]["line"], 8);
            assert!(value["rendered"].as_str().unwrap().contains("bad.dojo:8"));
            value["code"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(!codes.is_empty());
    assert_eq!(ran.code, 1);
}

#[test]
fn weights_of_a_text_lie_beside_it() {
    let lab = Lab::new();
    let text = "dojo graph 1 module @m {
        weight @a : f32[1] = external(\"w.bin\", 0, 4)
        weight @b : f32[1] = external(\"w.bin\", 4, 4)
        func @main() -> (%y : f32[1]) { %y = add @a, @b : f32[1] return %y } }";
    lab.write("m.dojo", text);
    let err = lab.run(&["eval", "m.dojo"]).fails(1);
    assert!(err.contains("2 weights are in `w.bin`"), "{err}");
    assert_eq!(
        err.matches("error").count(),
        1 + err.matches("os error").count(),
        "{err}"
    );
    lab.write("w.bin", [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
    assert!(lab.run(&["eval", "m.dojo"]).ok().contains("[3]"));
    std::fs::create_dir(lab.path("else")).unwrap();
    let args = ["compile", "m.dojo", "--emit", "import", "-o", "else/m.dojo"];
    let ran = lab.run(&args);
    assert!(
        ran.err.contains("must be beside else/m.dojo"),
        "{}",
        ran.err
    );
    lab.write("w.bin", [0; 4]);
    assert!(lab.run(&["eval", "m.dojo"]).fails(1).contains("D0513"));
}

#[test]
fn weights_come_from_other_files() {
    let lab = lab();
    let text = "dojo graph 1  module @m { weight @w : f32[2] = dense([1.0, 2.0]) \
                func @main(%x : f32[3, 2]) -> (%y : f32[3, 2]) { %y = mul %x, @w : f32[3, 2] \
                return %y } }";
    lab.write("scale.dojo", text);
    npz(
        &lab,
        "w.npz",
        &[("w", Tensor::from_vec(&[2], vec![3f32, 4.0]))],
    );
    let out = lab.run(&[
        "eval",
        "scale.dojo",
        "-i",
        "data.npz:x",
        "--weights",
        "w.npz",
    ]);
    // Of x = [[0, 0], [100, 0], [0, 50]] and w = [3, 4].
    assert!(out.ok().contains("[0, 0, 300, 0, 0, 200]"));
    npz(
        &lab,
        "bad.npz",
        &[
            ("w", Tensor::from_vec(&[1], vec![3f32])),
            ("v", Tensor::from_vec(&[1], vec![3f32])),
        ],
    );
    let out = lab.run(&[
        "eval",
        "scale.dojo",
        "-i",
        "data.npz:x",
        "--weights",
        "bad.npz",
    ]);
    let message = out.fails(1);
    assert!(
        message.contains("D0962]: bad.npz: weight `w` is f32[2], not f32[1]"),
        "{message}"
    );
    assert!(message.contains("the model has no weight `v`"), "{message}");
}
