//! dojoc as a library: what frameworks embed, and what the `dojoc` command is a thin layer over.
//!
//! A [`Module`] is read from an ONNX file or from text; a [`Compiler`] makes a program of it, which
//! a [`Session`] runs; an [`Evaluator`] runs the model as the ops' definitions say. Nothing here
//! panics on wrong input: every failure is an [`Error`] with diagnostics, each with a stable code.
//! Programs by themselves are in [`program`]. There is no global state, and all types but sessions
//! can be shared between threads.
//!
//! ```
//! use dojoc::{CompileOptions, Compiler, Evaluator, Module, Tensor, TensorView};
//!
//! let text = r#"
//!     dojo graph 1
//!     module @m {
//!       weight @w : f32[2] = dense([10.0, 20.0])
//!       func @main(%x : f32[2]) -> (%y : f32[2]) {
//!         %y = add %x, @w : f32[2]
//!         return %y
//!       }
//!     }"#;
//! let module = Module::parse(text, "sum.dojo")?; // or Module::from_path("model.onnx", &options)
//! let x = Tensor::from_vec(&[2], vec![1f32, 2.0]);
//! let inputs = [("x", TensorView::from(&x))];
//!
//! // On the cores of one D1 chip.
//! let compiled = Compiler::new(&CompileOptions::default()).compile(&module)?;
//! let run = compiled.session()?.run(&inputs)?;
//! assert_eq!(run.outputs.get("y").unwrap().to_f64s(), [11.0, 22.0]);
//!
//! // On the reference interpreter.
//! let expected = Evaluator::new(&module, None)?.run(&inputs)?;
//! assert_eq!(run.outputs, expected.outputs);
//!
//! let error = Module::parse("dojo graph 1 module @m { weigh @w }", "m.dojo").unwrap_err();
//! assert_eq!(error.exit_code(), 1);
//! for diagnostic in error.diagnostics() {
//!     eprint!("{}", dojoc::render::human(diagnostic, dojoc::render::Severity::Error, None, false));
//! }
//! # Ok::<(), dojoc::Error>(())
//! ```

pub mod bench;
pub mod codes;
mod compare;
mod compiler;
mod error;
mod evaluator;
mod module;
mod options;
mod probes;
pub mod program;
pub mod render;
mod session;
mod sniff;
mod target;
pub mod tensor;
mod validate;
mod weights;

pub use compare::{Comparison, Criterion, compare};
pub use compiler::{Compiled, CompiledProgram, CompiledTiled, Compiler, Dump, PassStats};
pub use dojoc_compiler::analysis::predict::Prediction;
pub use dojoc_compiler::lower::Probes;
pub use dojoc_compiler::pass::{Agreement, DumpAfter, Precision};
pub use dojoc_compiler::tile::Plan;
pub use dojoc_ir::diag::{Code, CodeInfo, Diagnostic, Diagnostics, Kind, Loc, Place};
pub use dojoc_ir::tensor::Tensor;
pub use dojoc_ir::types::{DType, Shape, Type};
pub use error::{Error, Problems, Result, SourceText};
pub use evaluator::{Evaluator, NamedTensors, Run};
pub use module::{Module, NamedTensor, Port, Signature, Source};
pub use options::CompileOptions;
pub use session::Session;
pub use target::Target;
pub use tensor::TensorView;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<(Module, Evaluator, Error, Target, Compiler)>();
        shared::<(CompileOptions, Run, TensorView<'_>)>();
    }
}
