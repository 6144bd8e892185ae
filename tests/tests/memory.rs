//! Models on machines with less memory: what fits by other splits runs and is right, what does not
//! says why.

use std::path::Path;

use dojoc::program::RunOptions;
use dojoc::{
    CompileOptions, CompiledProgram, Compiler, Evaluator, Module, Precision, Result, Target,
    TensorView,
};
use dojoc_ir::tiled::{Stmt, ValueDef};

/// A machine like a built-in one whose cores have `bytes` of memory.
fn machine(base: &str, bytes: u64) -> Target {
    let text = format!(
        "base = \"{base}\"\nsummary = \"cores with less memory\"\n\
         [sources]\ninvented = \"invented for tests, models no chip\"\n\
         [sram]\nsize = {{ value = {bytes}, unit = \"B\", source = \"invented\", confidence = \"P\" }}\n"
    );
    Target::from_toml(&text, "small").expect("a machine")
}

fn digits(batch: u64) -> (Module, CompileOptions) {
    let options = CompileOptions::default().dim("N", batch);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/model.onnx");
    (Module::from_path(path, &options).expect("a model"), options)
}

fn fullest(compiled: &CompiledProgram) -> u64 {
    let schedules = compiled.mesh.schedules.values();
    let ends = schedules.flat_map(|s| s.storage.values().map(|s| s.address + s.bytes));
    ends.max().expect("something is stored")
}

/// Number of weights that are split between their uses.
fn gathers(compiled: &CompiledProgram) -> usize {
    let function = compiled
        .tiled
        .functions
        .values()
        .next()
        .expect("a function");
    let stmts = &function.bodies[function.body()].stmts;
    let gathers = |stmt: &&Stmt| {
        matches!(stmt, Stmt::Reshard(reshard)
            if matches!(function.values[reshard.input].def, ValueDef::Weight(_)))
    };
    stmts.iter().filter(gathers).count()
}

fn refused(result: Result<CompiledProgram>) -> String {
    let error = result.expect_err("it does not fit");
    assert_eq!(error.exit_code(), 3);
    let lines = error.diagnostics().iter().map(ToString::to_string);
    lines.collect::<Vec<_>>().join("\n")
}

/// The program gives what the reference interpreter gives, under the sanitizer.
fn agrees(module: &Module, compiled: &CompiledProgram) {
    let signature = module.signature(None).expect("a function");
    let inputs = signature.random_inputs(7);
    let views: Vec<(&str, TensorView<'_>)> = (inputs.iter())
        .map(|(name, tensor)| (name, tensor.into()))
        .collect();
    let options = RunOptions {
        sanitize: true,
        ..RunOptions::default()
    };
    let mut session = compiled.session().expect("it loads").options(options);
    let run = session.run(&views).expect("it runs");
    let expected = Evaluator::new(module, None).and_then(|mut e| e.run(&views));
    let expected = expected.expect("it is evaluated");
    for (name, reference) in expected.outputs.iter() {
        let found = run.outputs.get(name).expect("an output").to_f64s();
        let reference = reference.to_f64s();
        let scale = reference.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        for (a, b) in found.iter().zip(&reference) {
            assert!((a - b).abs() <= 1e-5 * scale, "{name}: {a} and {b}");
        }
    }
}

#[test]
fn weights_are_gathered_just_in_time_where_memory_is_short() {
    let (module, options) = digits(360);
    let compile = |target: &Target| Compiler::new(&options).target(target).compile(&module);
    let ample = compile(&Target::named("d1").unwrap()).unwrap();
    assert_eq!(gathers(&ample), 0);
    let size = 81920;
    assert!(fullest(&ample) > size);
    let short = compile(&machine("d1", size)).unwrap();
    assert!(gathers(&short) > 0);
    assert!(fullest(&short) <= size);
    agrees(&module, &short);
}

/// From much memory to too little: everything that is accepted fits and is right.
#[test]
fn whatever_fits_is_right() {
    let (module, options) = digits(8);
    let (mut fitted, mut gathered) = (0, 0);
    let sizes = [8192, 24576, 32768, 49152, 65536, 98304, 131072];
    for size in sizes {
        let target = machine("mesh4x4", size);
        match Compiler::new(&options).target(&target).compile(&module) {
            Ok(compiled) => {
                fitted += 1;
                gathered += usize::from(gathers(&compiled) > 0);
                assert!(fullest(&compiled) <= size);
                agrees(&module, &compiled);
            }
            Err(error) => assert_eq!(error.diagnostics()[0].code.0, 433, "{error}"),
        }
    }
    assert!((2..sizes.len()).contains(&fitted), "{fitted} sizes fit");
    assert!(
        (1..fitted).contains(&gathered),
        "{gathered} of {fitted} gather"
    );
}

#[test]
fn what_does_not_fit_says_which_tensors_and_what_helps() {
    let (module, options) = digits(360);
    let target = machine("d1", 16384);
    let compiler = Compiler::new(&options).target(&target);
    insta::assert_snapshot!(refused(compiler.compile(&module)));
    // In bf16 the advice to use bf16 is gone.
    let narrow = options.precision(Precision::Bf16);
    let compiler = Compiler::new(&narrow).target(&target);
    let text = refused(compiler.compile(&module));
    assert!(!text.contains("--precision"), "{text}");
    assert!(text.contains("a batch smaller than 360"), "{text}");
}

#[test]
fn weights_of_more_bytes_than_a_chip_has_say_so() {
    let text = r#"
        dojo graph 1
        module @m {
          weight @w : f32[4096, 4096] = external("w.bin", 0, 67108864)
          func @main(%x : f32[1, 4096]) -> (%y : f32[1, 4096]) {
            %y = dot %x, @w {batch = [], contract = [[1, 0]]} : f32[1, 4096] loc("fc", "m.onnx":3)
            return %y
          }
        }"#;
    let module = Module::parse(text, "m.dojo").unwrap();
    let target = Target::named("mesh4x4").unwrap();
    assert!(target.machine().sram_bytes() < 4 * 4096 * 4096);
    let result = Compiler::new(&CompileOptions::default())
        .target(&target)
        .compile(&module);
    insta::assert_snapshot!(refused(result));
}
