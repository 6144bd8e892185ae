//! Equal layers share their code.

use dojoc::{CompileOptions, CompiledProgram, Compiler, Module, Source, Target};
use dojoc_ir::graph;
use dojoc_tests::layers::{dense, transformer};

fn compiled(model: Result<graph::Module, String>) -> CompiledProgram {
    let model = model.unwrap_or_else(|e| panic!("{e}"));
    let options = CompileOptions::default();
    let text = model.to_string();
    let source = Source::Bytes("layers.dojo", text.into());
    let module = Module::read(source, &options, &[]).unwrap_or_else(|e| panic!("{e}"));
    let target = Target::named("d1").unwrap_or_else(|e| panic!("{e}"));
    let program = Compiler::new(&options).target(&target).compile(&module);
    program.unwrap_or_else(|e| panic!("{e}"))
}

fn segments(program: &CompiledProgram) -> usize {
    program.executable.program().segments.len()
}

#[test]
fn fifty_equal_layers_have_at_most_eight_segments() {
    let program = compiled(dense(50, 32));
    assert!(segments(&program) <= 8, "{}", segments(&program));
}

/// The first and the last layer have other neighbours, hence other exchanges.
#[test]
fn more_layers_of_a_transformer_are_no_more_code() {
    let [few, many] = [4, 12].map(|count| segments(&compiled(transformer(count, 64))));
    assert!(
        many <= few + 8,
        "{few} segments for 4 layers, {many} for 12"
    );
}
