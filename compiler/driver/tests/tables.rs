//! The commands about dojoc itself, usage, streams.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::Read as _;

use support::{ADD, Lab, command};

#[test]
fn wrong_usage_ends_with_2() {
    let lab = Lab::new();
    for args in [
        &[][..],
        &["nope"],
        &["eval"],
        &["compile", "x.dojo"],
        &["compile", "x.dojo", "--emit", "nope"],
        &["eval", "x.dojo", "--dim", "n"],
        &["eval", "x.dojo", "--repeat", "0"],
        &["eval", "x.dojo", "--rtol", "1"],
        &["fmt"],
        &["ops", "add", "--onnx"],
    ] {
        let ran = lab.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains("--help"), "{args:?}: {}", ran.err);
    }
    assert!(lab.run(&["--help"]).ok().contains("Exit codes"));
}

#[test]
fn fmt_checks_and_changes() {
    let lab = Lab::new();
    let ugly = ADD.replace("  weight", "weight  ");
    lab.write("ugly.dojo", &ugly);
    lab.write(
        "good.dojo",
        lab.run_with(&["fmt", "-"], ADD.as_bytes()).ok(),
    );
    let err = lab
        .run(&["fmt", "--check", "good.dojo", "ugly.dojo"])
        .fails(1);
    insta::assert_snapshot!(err, @"
    error[D0957]: ugly.dojo: not in canonical form, first at line 4
      help: dojoc fmt ugly.dojo
    ");
    assert_eq!(lab.read("ugly.dojo"), ugly);
    lab.run(&["fmt", "ugly.dojo", "good.dojo"]).ok();
    assert_eq!(lab.read("ugly.dojo"), lab.read("good.dojo"));
    lab.run(&["fmt", "--check", "good.dojo", "ugly.dojo"]).ok();
    lab.write("broken.dojo", "dojo graph 1 module @m {");
    let ran = lab.run(&["fmt", "broken.dojo", "none.dojo"]);
    assert!(
        ran.err.contains("broken.dojo:1:") && ran.err.contains("none.dojo"),
        "{}",
        ran.err
    );
    assert_eq!(ran.code, 1);
    assert_eq!(lab.read("broken.dojo"), "dojo graph 1 module @m {");
}

#[test]
fn ops_are_documented() {
    let lab = Lab::new();
    insta::assert_snapshot!(lab.run(&["ops", "softmax"]).ok(), @r"
    softmax

    Shares along one dim: `out[i] = exp(x[i] - m) / sum over j of exp(x[j] - m)`, where m is the
    largest x. 16-bit floats are computed in f32. Where all are -inf the result is NaN.

    Attributes
      axis  a small non-negative integer. The dim whose shares add up to 1.

    Tiling: expand
    Gradient: yes
    ");
    let all = lab.run(&["ops", "--format", "json"]).ok();
    for line in all.lines() {
        let op: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(!op["doc"].as_str().unwrap().is_empty(), "{op}");
    }
    assert_eq!(all.lines().count(), lab.run(&["ops"]).ok().lines().count());
    let err = lab.run(&["ops", "sofmax"]).fails(1);
    assert!(err.contains("did you mean `softmax`?"), "{err}");
}

#[test]
fn the_table_of_onnx_operators_is_current() {
    let lab = Lab::new();
    let made = lab.run(&["ops", "--onnx", "--format", "md"]).ok();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/onnx-ops.md");
    if std::env::var_os("DOJOC_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).unwrap();
        std::fs::write(path, &made).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(made == checked_in, "run this test with DOJOC_BLESS=1");
}

#[test]
fn codes_passes_and_machines_are_explained() {
    let lab = Lab::new();
    for code in ["D0314", "d0314", "314"] {
        assert!(
            lab.run(&["explain", code])
                .ok()
                .starts_with("D0314: A dimension")
        );
    }
    let err = lab.run(&["explain", "D9999"]).fails(1);
    assert!(err.contains("no code `D9999`"), "{err}");
    assert!(lab.run(&["explain"]).ok().lines().count() > 80);
    assert!(lab.run(&["passes"]).ok().contains("fold-constants"));
    assert!(lab.run(&["passes", "--pipeline"]).ok().lines().count() > 5);
    assert!(lab.run(&["machine"]).ok().contains("exapod"));
    assert!(lab.run(&["machine", "d1"]).ok().starts_with("machine d1\n"));
    let err = lab.run(&["machine", "d2"]).fails(1);
    assert!(err.contains("did you mean `d1`?"), "{err}");
    lab.write("m.toml", "base = \"d1\"\n[noc]\nlink = 3\n");
    let err = lab.run(&["machine", "./m.toml"]).fails(1);
    assert!(err.contains("./m.toml:3"), "{err}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(lab.run(&["completions", shell]).ok().contains("dojoc"));
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let lab = Lab::new();
    let mut child = command(&lab.path("."), &["explain"]).spawn().unwrap();
    let mut first = [0; 1];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn colours_are_for_those_who_want_them() {
    let lab = Lab::new();
    let coloured = lab.run(&["eval", "none", "--color", "always"]).fails(1);
    assert!(coloured.contains('\u{1b}'));
    assert!(!lab.run(&["eval", "none"]).fails(1).contains('\u{1b}'));
}
