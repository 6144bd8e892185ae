//! Saturation proposes forms of a model; the program that is kept is the fastest of theirs.

use dojoc::{CompileOptions, Compiler, Module, Plan, Source, Target};
use dojoc_ir::graph;
use dojoc_tests::layers::transformer;
use dojoc_tests::random_graph::{Options, random_module};

/// Predicted cycles of a model's program, with saturation and without; `None` if there is none.
fn cycles(model: &graph::Module) -> Option<[u64; 2]> {
    let target = Target::named("mesh4x4").unwrap_or_else(|e| panic!("{e}"));
    let options = CompileOptions::default();
    let of = |options: CompileOptions| {
        let source = Source::Bytes("model.dojo", model.to_string().into());
        let module = Module::read(source, &options, &[]).ok()?;
        let program = Compiler::new(&options).target(&target).compile(&module);
        Some(program.ok()?.predicted.cycles)
    };
    Some([of(options.clone())?, of(options.skip_pass("saturate"))?])
}

#[test]
fn saturation_makes_no_program_slower() {
    let random = (0..60).map(|seed| {
        let options = Options {
            states: false,
            symbols: false,
            regions: false,
            random_bits: false,
            ..Options::default()
        };
        random_module(seed, &options).compacted()
    });
    let layers = transformer(1, 64).unwrap_or_else(|e| panic!("{e}"));
    let (mut compared, mut faster) = (0, 0);
    for (n, model) in random.chain([layers]).enumerate() {
        let Some([with, without]) = cycles(&model) else {
            continue;
        };
        assert!(
            with <= without,
            "model {n}: {with} cycles, {without} without"
        );
        compared += 1;
        faster += usize::from(with < without);
    }
    assert!(
        compared > 30 && faster > 3,
        "{compared} compared, {faster} faster"
    );
}

/// Also where the search has merged loops in ways that follow from the layout of an operand.
#[test]
fn a_plan_that_was_printed_is_taken_back() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits/model.onnx");
    let options = CompileOptions::default().dim("N", 8);
    let module = Module::from_path(path, &options).unwrap_or_else(|e| panic!("{e}"));
    let plan = |options: &CompileOptions| {
        let compiled = Compiler::new(options).compile(&module);
        compiled.unwrap_or_else(|e| panic!("{e}")).plan.to_toml()
    };
    let text = plan(&options);
    assert!(text.contains("d2*d3"), "{text}");
    let back = Plan::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan(&options.plan(back)), text);
}
