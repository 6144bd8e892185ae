use dojoc_ir::types::DType;

use super::testing::*;

#[test]
fn a_small_model_runs() {
    let model = TestModel::new(17)
        .input("x", DType::F32, &["2"])
        .init("w", &f32s(&[2], &[10.0, 20.0]))
        .node("Add", &["x", "w"], &["s"], vec![])
        .node("Relu", &["s"], &["y"], vec![])
        .output("y");
    let results = model.run(&[f32s(&[2], &[1.0, -30.0])]);
    assert_eq!(results, [f32s(&[2], &[11.0, 0.0])]);
}
