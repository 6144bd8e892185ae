//! Plans over two chips.

use dojoc::{
    CompileOptions, Compiler, Evaluator, Module, Plan, Result, Target, Tensor, TensorView,
};
use dojoc_ir::tiled::eval::{Options, initial_states, run};

const GEMM: &str = r#"
    dojo graph 1
    module @gemm {
      func @main(%a : f32[256, 192], %b : f32[192, 320]) -> (%c : f32[256, 320]) {
        %c = dot %a, %b {batch = [], contract = [[1, 0]]} : f32[256, 320]
        return %c
      }
    }"#;

const MACHINE: &str = r#"
base = "mesh4x4"
summary = "two 4 x 4 chips of D1 cores"

[sources]
invented = "invented for tests, models no chip"

[tile]
rows = { value = 2, unit = "chips", source = "invented", confidence = "P" }
columns = { value = 1, unit = "chips", source = "invented", confidence = "P" }
chip_edge = { value = 512.0, unit = "GB/s", source = "invented", confidence = "P" }
crossing = { value = 20, unit = "cycles", source = "invented", confidence = "P" }
power = { value = 50.0, unit = "W", source = "invented", confidence = "P" }
"#;

fn compiler(options: &CompileOptions) -> Compiler {
    let target = Target::from_toml(MACHINE, "two_chips").expect("a machine");
    Compiler::new(options).target(&target)
}

fn gemm() -> (Module, [Tensor; 2]) {
    let values = |n: usize| (0..n).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0);
    let a = Tensor::from_vec(&[256, 192], values(256 * 192).collect());
    let b = Tensor::from_vec(&[192, 320], values(192 * 320).collect());
    let module = Module::parse(GEMM, "gemm.dojo").expect("a model");
    (module, [a, b])
}

fn expected(module: &Module, [a, b]: &[Tensor; 2]) -> Vec<f64> {
    let inputs = [("a", TensorView::from(a)), ("b", TensorView::from(b))];
    let run = Evaluator::new(module, None).and_then(|mut e| e.run(&inputs));
    run.expect("it is evaluated").outputs.0[0].1.to_f64s()
}

fn near(found: &[f64], reference: &[f64]) {
    assert_eq!(found.len(), reference.len());
    for (a, b) in found.iter().zip(reference) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} and {b}");
    }
}

fn code<T>(result: Result<T>) -> u16 {
    let error = result.err().expect("it is refused");
    error.diagnostics()[0].code.0
}

#[test]
fn a_product_is_split_over_both_chips() {
    let (module, inputs) = gemm();
    let options = CompileOptions::default();
    let found = compiler(&options).compile_tiled(&module, None).unwrap();
    insta::assert_snapshot!(found.tiled.to_string());
    insta::assert_snapshot!(found.plan.to_toml());
    let parsed = dojoc_ir::tiled::parse(&found.tiled.to_string()).unwrap().0;
    assert_eq!(parsed.to_string(), found.tiled.to_string());
    // The two chips compute what one interpreter computes.
    let mut states = initial_states(&found.tiled).unwrap();
    let (id, _) = found.tiled.functions.iter().next().unwrap();
    let outputs = run(&found.tiled, id, &inputs, &mut states, Options::default()).unwrap();
    near(&outputs[0].to_f64s(), &expected(&module, &inputs));
}

#[test]
fn there_is_no_program_for_several_chips_yet() {
    let (module, inputs) = gemm();
    let options = CompileOptions::default();
    assert_eq!(code(compiler(&options).compile(&module)), 435);
    // For one of them there is.
    let one = compiler(&options.chips(1)).compile(&module).unwrap();
    let mut session = one.session().unwrap();
    let [a, b] = &inputs;
    let run = session.run(&[("a", a.into()), ("b", b.into())]).unwrap();
    near(&run.outputs.0[0].1.to_f64s(), &expected(&module, &inputs));
}

#[test]
fn plans_name_levels() {
    let (module, _) = gemm();
    let plan = |split: &str| {
        Plan::parse(&format!("[[node]]\nname = \"c\"\nsplit = {{ {split} }}\n"))
            .map_err(dojoc::Error::from)
    };
    let compile = |split: &str| {
        let options = CompileOptions::default().plan(plan(split)?);
        compiler(&options).compile_tiled(&module, None)
    };
    let split = r#""m0" = 4, "n0" = { chip = 2, core = 3 }"#;
    let found = compile(split).unwrap();
    assert!(
        found.plan.to_toml().contains(split),
        "{}",
        found.plan.to_toml()
    );
    let text = found.tiled.to_string();
    assert!(text.contains("grid @c2_g4x3 "), "{text}");
    assert!(
        text.contains("dims = [split(256, [a]), split(320, [chip, b])]"),
        "{text}"
    );
    for wrong in [
        r#""m0" = { chip = 3 }"#,
        r#""m0" = { chip = 2 }, "n0" = { chip = 2 }"#,
        r#""m0" = { tile = 2 }"#,
        r#""m0" = { chip = 0 }"#,
        r#""m0" = { rack = 2 }"#,
        r#""m0" = { chip = 2, core = 17 }"#,
    ] {
        assert_eq!(code(compile(wrong)), 432, "{wrong}");
    }
}
