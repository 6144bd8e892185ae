//! The example reads its drawing.

use std::path::Path;
use std::process::Command;

#[test]
fn the_drawing_is_a_one() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../digits/model.onnx");
    let output = Command::new(env!("CARGO_BIN_EXE_embed"))
        .arg(model)
        .output()
        .expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(text.ends_with("is a 1\n"), "{text}");
}

#[test]
fn a_missing_model_is_an_error_with_a_code() {
    let output = Command::new(env!("CARGO_BIN_EXE_embed"))
        .arg("no_such_model.onnx")
        .output()
        .expect("the example starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("no_such_model.onnx"), "{errors}");
}

#[test]
fn the_program_is_short() {
    let source = include_str!("../src/main.rs");
    assert!(source.lines().count() < 40);
}
