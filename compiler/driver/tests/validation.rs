//! `--validate` and `--dump-after` at all levels.

mod support;

use serde_json::Value;
use support::{ADD, Lab, onnx, tensor};

/// A trained classifier of digits.
const DIGITS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/digits/model.onnx"
);

#[test]
fn all_levels_of_a_network_are_compared() {
    let lab = Lab::new();
    let ran = lab.run(&[
        "run",
        DIGITS,
        "--dim",
        "N=3",
        "--random",
        "1",
        "--validate",
        "--machine",
        "mesh4x4",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 5, "{}", ran.err);
    for (line, level) in lines
        .iter()
        .zip(["import", "GRAPH", "TILED", "MESH", "PROGRAM"])
    {
        let start = format!("validated {level}: ");
        assert!(line.starts_with(&start), "{line}");
        assert!(line.contains("values agree"), "{line}");
    }
    assert!(ran.out.starts_with("output  f32[3, 10]"), "{}", ran.out);
}

#[test]
fn onnx_models_are_validated_by_the_names_of_their_values() {
    let lab = Lab::new();
    lab.write("m.onnx", onnx(&["Exp", "Neg"], &["N", "2"]));
    lab.write(
        "x.pb",
        tensor("x", &[3, 2], &[1.0, -2.0, 0.5, 0.0, 3.0, -4.0]),
    );
    let ran = lab.run(&["run", "m.onnx", "-i", "x.pb", "--validate"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let line = ran.err.lines().find(|l| l.starts_with("validated PROGRAM"));
    let line = line.unwrap_or_default();
    assert!(
        line.contains("2 values agree") && line.ends_with("output `y0`"),
        "{line}"
    );
    let quiet = lab.run(&["run", "m.onnx", "-i", "x.pb", "--validate", "--quiet"]);
    assert!(quiet.ok().starts_with("y0  f32[3, 2]"));
}

#[test]
fn programs_get_objects() {
    let lab = Lab::new();
    let validated = |precision: &str| -> Vec<Value> {
        let ran = lab.run(&[
            "run",
            DIGITS,
            "--dim",
            "N=2",
            "--random",
            "1",
            "--validate",
            "--validate-seed",
            "7",
            "--precision",
            precision,
            "--message-format",
            "json",
        ]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let objects = ran.err.lines().map(|l| serde_json::from_str(l).unwrap());
        objects.collect()
    };
    let worst = |objects: &[Value]| -> Vec<f64> {
        let levels: Vec<&str> = objects
            .iter()
            .map(|o| o["validated"].as_str().unwrap())
            .collect();
        assert_eq!(levels, ["import", "GRAPH", "TILED", "MESH", "PROGRAM"]);
        // Every convolution, activation and pooling, and the output.
        assert!(objects.iter().all(|o| o["points"].as_u64().unwrap() >= 10));
        let worst = objects.iter().map(|o| o["worst"].as_f64().unwrap());
        worst.collect()
    };
    let keep = worst(&validated("keep"));
    assert!(keep.iter().all(|far| *far < 1e-5), "{keep:?}");
    // What is measured is real: contractions in bf16 are further from f64.
    let bf16 = worst(&validated("bf16"));
    assert!(bf16[0] < 1e-5, "{bf16:?}");
    assert!(
        bf16[1..].iter().all(|far| *far > 1e-4 && *far < 0.1),
        "{bf16:?}"
    );
}

#[test]
fn every_pass_and_stage_can_be_dumped() {
    let lab = Lab::new();
    lab.write("add.dojo", ADD);
    for (stage, first) in [
        ("expand", "dojo graph 1"),
        ("tile", "dojo tiled 1"),
        ("place", ""),
        ("route", ""),
        ("emit", "dojo program 1"),
    ] {
        for command in [&["compile", "-o", "a.djx"][..], &["run", "--random", "1"]] {
            let args = ["add.dojo", "--dump-after", stage, "--dump-dir", stage];
            let ran = lab.run(&[command, &args].concat());
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{stage}");
            let text = lab.read(&format!("{stage}/01-{stage}.dojo"));
            assert!(text.starts_with(first) && text.len() > 100, "{text}");
        }
    }
    let emitted = lab.run(&["compile", "add.dojo", "--emit", "program"]).ok();
    assert_eq!(lab.read("emit/01-emit.dojo"), emitted);
    let all = ["compile", "add.dojo", "-o", "a.djx", "--dump-after", "all"];
    assert_eq!(lab.run(&all).code, 0);
    let names = std::fs::read_dir(lab.path("dojoc-dump")).unwrap();
    let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    let last: Vec<&str> = names.iter().rev().take(4).map(|n| &n[3..]).collect();
    assert_eq!(
        last,
        ["emit.dojo", "place.dojo", "tile.dojo", "dead-code.dojo"]
    );
}

#[test]
fn names_of_passes_and_stages_are_checked_before_work() {
    let lab = Lab::new();
    lab.write("add.dojo", ADD);
    let err = lab
        .run(&["compile", "add.dojo", "--dump-after", "tiles"])
        .fails(1);
    insta::assert_snapshot!(err, @"
    error[D0959]: no pass or stage `tiles` runs
      help: there are: canonicalise, common-subexpressions, dead-code, emit, expand, fold-batch-norm, fold-constants, place, precision, route, saturate, tile, and `all`
    ");
    let args = ["compile", "add.dojo", "--emit", "graph", "--dump-after"];
    let err = lab.run(&[&args[..], &["tile"]].concat()).fails(1);
    insta::assert_snapshot!(err, @"
    error[D0959]: no pass or stage `tile` runs
      help: there are: canonicalise, common-subexpressions, dead-code, fold-batch-norm, fold-constants, precision, saturate, and `all`
    ");
    assert_eq!(lab.names(), ["add.dojo"]);
}

/// Names of a model may be those that emission gives to its own parts.
#[test]
fn names_of_a_model_are_its_own() {
    let lab = Lab::new();
    let text = r#"dojo graph 1
        module @m {
          weight @cores4 : f32[2] = dense([10.0, 20.0])
          func @main(%main : f32[2, 2]) -> (%add : f32[2, 2]) {
            %f0 = neg %main : f32[2, 2]
            %add = add %f0, @cores4 : f32[2, 2]
            return %add
          }
        }"#;
    lab.write("names.dojo", text);
    let args = ["run", "names.dojo", "--random", "1", "--probe", "f0"];
    let out = lab.run(&args).ok();
    assert!(out.starts_with("add  f32[2, 2]"), "{out}");
    let err = lab.run(&["run", "names.dojo", "--random", "1", "--validate"]);
    assert_eq!(err.code, 0, "{}", err.err);
    assert!(err.err.contains("validated PROGRAM"), "{}", err.err);
}
