//! `dojoc test`.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use support::{Lab, onnx, tensor};

/// A case `y0 = op(x)` whose reference is `expected`.
fn case(lab: &Lab, name: &str, op: &str, expected: &[f32]) {
    let n = expected.len() as i64;
    lab.write(&format!("{name}/model.onnx"), onnx(&[op], &["N"]));
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    lab.write(
        &format!("{name}/test_data_set_0/input_0.pb"),
        tensor("x", &[n], &x),
    );
    lab.write(
        &format!("{name}/test_data_set_0/output_0.pb"),
        tensor("y0", &[n], expected),
    );
}

fn lab() -> Lab {
    let lab = Lab::new();
    case(&lab, "all/good", "Neg", &[0.0, -1.0]);
    case(&lab, "all/close", "Neg", &[0.0, -1.01]);
    case(&lab, "all/nan", "Neg", &[f32::NAN, -1.0]);
    case(&lab, "all/strange", "NoSuchOp", &[0.0]);
    case(&lab, "all/deep/er", "Neg", &[0.0, -1.0, -2.0]);
    lab
}

#[test]
fn counts_and_failures() {
    let lab = lab();
    let ran = lab.run(&["test", "all"]);
    assert_eq!((ran.code, ran.err.as_str()), (5, ""));
    insta::assert_snapshot!(ran.out, @r"
    failed       all/close  D0954: output y0: 1 of 2 elements differ, first at [1]: -1, the reference has -1.01
    failed       all/nan  D0954: output y0: 1 of 2 elements differ, first at [0]: -0, the reference has NaN
    unsupported     1 x D0400: operator NoSuchOp (opset 18) is not supported
    2 passed, 2 failed, 1 unsupported
    ");
    let good = lab.run(&["test", "all/good", "all/deep", "--level", "import"]);
    assert_eq!(good.ok(), "2 passed, 0 failed, 0 unsupported\n");
    let one = lab.run(&["test", "all", "--filter", "close", "--rtol", "0.1"]);
    assert_eq!(one.ok(), "1 passed, 0 failed, 0 unsupported\n");
    // Unsupported cases are no failures.
    assert_eq!(lab.run(&["test", "all/strange"]).code, 0);
}

#[test]
fn json_is_sorted_and_the_same_for_any_number_of_jobs() {
    let lab = lab();
    let run = |jobs: &str| {
        let ran = lab.run(&["test", "all", "--format", "json", "--jobs", jobs]);
        assert_eq!(ran.code, 5);
        let objects = ran.out.lines().map(|line| {
            let mut object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(object["seconds"].as_f64().unwrap() >= 0.0);
            object["seconds"] = 0.into();
            object.to_string()
        });
        objects.collect::<Vec<_>>().join("\n")
    };
    let one = run("1");
    assert_eq!(one, run("4"));
    insta::assert_snapshot!(one, @r#"
    {"case":"all/close","code":"D0954","max_abs_err":0.009999990463256836,"message":"output y0: 1 of 2 elements differ, first at [1]: -1, the reference has -1.01","seconds":0,"status":"failed"}
    {"case":"all/deep/er","code":null,"max_abs_err":0.0,"message":null,"seconds":0,"status":"passed"}
    {"case":"all/good","code":null,"max_abs_err":0.0,"message":null,"seconds":0,"status":"passed"}
    {"case":"all/nan","code":"D0954","max_abs_err":0.0,"message":"output y0: 1 of 2 elements differ, first at [0]: -0, the reference has NaN","seconds":0,"status":"failed"}
    {"case":"all/strange","code":"D0400","max_abs_err":null,"message":"operator NoSuchOp (opset 18) is not supported","seconds":0,"status":"unsupported"}
    "#);
}

#[test]
fn a_tolerance_of_the_case_takes_the_place_of_the_flags() {
    let lab = lab();
    lab.write("all/close/info.json", r#"{"tol": 0.02}"#);
    let ran = lab.run(&["test", "all/close", "--rtol", "0"]);
    assert_eq!(ran.ok(), "1 passed, 0 failed, 0 unsupported\n");
    lab.write("all/close/info.json", r#"{"tol": 0.001}"#);
    assert_eq!(lab.run(&["test", "all/close", "--rtol", "1"]).code, 5);
}

#[test]
fn every_data_set_counts() {
    let lab = lab();
    lab.write(
        "all/good/test_data_set_1/input_0.pb",
        tensor("x", &[3], &[1.0, 2.0, 3.0]),
    );
    lab.write(
        "all/good/test_data_set_1/output_0.pb",
        tensor("y0", &[3], &[-1.0, -2.0, 3.0]),
    );
    let ran = lab.run(&["test", "all/good"]);
    assert_eq!(ran.code, 5);
    assert!(
        ran.out.contains("1 of 3 elements differ, first at [2]"),
        "{}",
        ran.out
    );
}

#[test]
fn malformed_cases_fail_by_code() {
    let lab = lab();
    lab.write("odd/none/model.onnx", onnx(&["Neg"], &["N"]));
    case(&lab, "odd/damaged", "Neg", &[0.0]);
    lab.write("odd/damaged/model.onnx", b"\x08\x07\xff\xff\xff\xff");
    case(&lab, "odd/few", "Neg", &[0.0]);
    std::fs::remove_file(lab.path("odd/few/test_data_set_0/input_0.pb")).unwrap();
    let ran = lab.run(&["test", "odd"]);
    assert_eq!(ran.code, 5);
    insta::assert_snapshot!(ran.out, @r"
    failed       odd/damaged  D0510: odd/damaged/model.onnx: the file (6 bytes) is no ONNX model: failed to decode Protobuf message: invalid varint
    failed       odd/few  D0958: there is no input_0.pb, but the model has inputs
    failed       odd/none  D0958: the case has no folder `test_data_set_0`
    0 passed, 3 failed, 0 unsupported
    ");
    let err = lab.run(&["test", "nowhere"]).fails(1);
    assert!(err.contains("nowhere"), "{err}");
    std::fs::create_dir(lab.path("empty")).unwrap();
    assert!(lab.run(&["test", "empty"]).fails(1).contains("D0958"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_run_with_130() {
    let lab = Lab::new();
    lab.write(
        "forever.dojo",
        "dojo graph 1 module @m { state @s : i64[] = zeros func @main() -> (%n : i64[] aliases @s) {
           %one = full {dtype = i64, shape = [], value = 1} : i64[]
           %n = add @s, %one : i64[]
           return %n } }",
    );
    let args = ["eval", "forever.dojo", "--repeat", "4000000000", "-v"];
    let mut child = support::command(&lab.path("."), &args)
        .spawn()
        .expect("it starts");
    let mut first = [0];
    let err = child.stderr.as_mut().expect("it is piped");
    std::io::Read::read_exact(err, &mut first).expect("it says something about its first run");
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.is_ok_and(|status| status.success()));
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("D0304"));
}
