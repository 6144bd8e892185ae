//! The ONNX importer: a model file to a GRAPH module.
//!
//! - The file and its external data are memory-mapped; constants become weights that refer to the
//!   map. Nothing is read of a weight unless its values decide a shape.
//! - Every node goes to the handler of its operator (`table.rs`, `ops/`). Where all operands are
//!   small constants the nodes that a handler builds are evaluated instead, so that shape
//!   arithmetic disappears; arithmetic on symbolic extents is followed as expressions
//!   (`symbolic.rs`).
//! - Functions of the model are expanded where they are called; graphs of If, Loop and Scan become
//!   isolated regions (`subgraph.rs`).
//! - All problems are collected and reported together, grouped by cause, with the codes of
//!   [`codes`]. A node whose operand failed is skipped silently.
//! - At the end everything that no output depends on is dropped (`sweep.rs`).

mod attrs;
mod build;
mod builder;
pub mod codes;
mod inputs;
mod node;
mod nodes;
mod ops;
mod options;
mod problems;
mod scope;
mod subgraph;
mod sweep;
mod symbolic;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod value;
pub mod wire;

use std::path::Path;

use bytes::Bytes;
use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind};
use dojoc_ir::graph::{Module, Output};

use crate::io::onnx_tensor::decode_model;
use crate::io::{IoError, ModelFiles, SourceFile};
use builder::Importer;
use nodes::{domain_name, opsets};
pub use options::{DimBinding, GivenShape, ImportOptions};
use problems::{NodeError, Problems};
use scope::Scope;
pub use table::supported;
use wire::{GraphProto, ModelProto};

/// The newest version of the `ai.onnx` operator set that the importer knows.
pub const NEWEST_OPSET: i64 = 28;

/// Operator sets before this one are imported with a warning.
const MODERN_OPSET: i64 = 13;

/// How many nodes a model may have when its functions are expanded.
const MAX_NODES: usize = 1 << 20;

/// An imported model.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model: one function, `main`.
    pub module: Module,
    /// What the user should know, but does not stop the import.
    pub warnings: Diagnostics,
}

/// Imports the model at a path.
///
/// # Errors
/// All problems of the model, grouped by cause.
pub fn import_file(
    path: impl AsRef<Path>,
    options: &ImportOptions,
) -> Result<Imported, Diagnostics> {
    let files = ModelFiles::open(path).map_err(|error| io_diagnostic(&error))?;
    import(&files, options)
}

/// Imports a model that is in memory, which cannot have external data.
///
/// # Errors
/// All problems of the model, grouped by cause.
pub fn import_bytes(
    name: &str,
    bytes: impl Into<Bytes>,
    options: &ImportOptions,
) -> Result<Imported, Diagnostics> {
    let files = ModelFiles::in_memory(SourceFile::from_bytes(name, bytes));
    import(&files, options)
}

/// Imports a model whose file is open.
///
/// # Errors
/// All problems of the model, grouped by cause.
pub fn import(files: &ModelFiles, options: &ImportOptions) -> Result<Imported, Diagnostics> {
    let model = decode_model(files.model()).map_err(|error| io_diagnostic(&error))?;
    let mut warnings = Problems::default();
    let scope = match opsets(&model.opset_import) {
        Ok(opsets) => Scope::new(opsets),
        Err(error) => return Err(single(error)),
    };
    check_opset(&scope, &mut warnings).map_err(single)?;
    if !model.training_info.is_empty() {
        warnings.push(Diagnostic::input(
            codes::TRAINING_INFO,
            "the training information of the model is ignored",
        ));
    }
    // The decoder checks that there is a graph.
    let Some(graph) = &model.graph else {
        return Err(single(NodeError::invalid("the model has no graph")));
    };
    let mut imp = Importer::new(files, options, scope, MAX_NODES);
    imp.warnings = warnings;
    imp.module.name = if graph.name.is_empty() {
        files.model().name.clone()
    } else {
        graph.name.as_str().into()
    };
    add_functions(&mut imp, &model);
    main_graph(&mut imp, graph);
    let Importer {
        problems,
        warnings,
        module,
        ..
    } = imp;
    problems.into_diagnostics().ok(Imported {
        module,
        warnings: warnings.into_diagnostics(),
    })
}

fn single(error: NodeError) -> Diagnostics {
    let mut problems = Problems::default();
    problems.add(error, None);
    problems.into_diagnostics()
}

fn io_diagnostic(error: &IoError) -> Diagnostics {
    single(NodeError::from(error.clone()))
}

fn check_opset(scope: &Scope<'_>, warnings: &mut Problems) -> Result<(), NodeError> {
    let Some(version) = scope.top().opsets.get("").copied() else {
        return Ok(());
    };
    if version > NEWEST_OPSET {
        let message = format!("operator set {version} is newer than {NEWEST_OPSET}");
        let error = NodeError::new(codes::BAD_VERSION, Kind::Unsupported, message);
        return Err(error.help(format!("export the model for operator set {NEWEST_OPSET}")));
    }
    if version < MODERN_OPSET {
        let message = format!("the model uses operator set {version}");
        let help = format!("`onnx.version_converter` upgrades it to {MODERN_OPSET} or later");
        warnings.push(Diagnostic::input(codes::OLD_OPSET, message).help(help));
    }
    Ok(())
}

fn add_functions<'m>(imp: &mut Importer<'m>, model: &'m ModelProto) {
    for function in &model.functions {
        let key = (
            domain_name(&function.domain),
            function.name.as_str(),
            function.overload.as_str(),
        );
        if imp.functions.insert(key, function).is_some() {
            let message = format!("function `{}` is defined twice", function.name);
            let error = NodeError::new(codes::BAD_FUNCTION, Kind::Input, message);
            imp.problems.add(error, None);
        }
    }
}

fn main_graph<'m>(imp: &mut Importer<'m>, graph: &'m GraphProto) {
    imp.define_initializers(&graph.initializer, &graph.sparse_initializer);
    imp.define_inputs(graph);
    imp.nodes(&graph.node);
    let operands = imp.outputs(graph.output.iter().map(|o| &o.name));
    let mut values = vec![];
    for (operand, declared) in operands.iter().zip(&graph.output) {
        let Some(operand) = operand else { continue };
        match imp.materialize(operand) {
            Ok(value) => {
                imp.check_declared(value, declared);
                values.push(value);
            }
            Err(error) => imp.problems.add(error.about(&declared.name), None),
        }
    }
    imp.check_option_names(graph);
    if !imp.problems.is_empty() {
        return;
    }
    let outputs = graph
        .output
        .iter()
        .map(|o| Output {
            name: o.name.as_str().into(),
            aliases: None,
        })
        .collect();
    let b = std::mem::replace(&mut imp.b, dojoc_ir::graph::FunctionBuilder::new("main"));
    let func = b.finish(&values, outputs);
    let func = sweep::sweep(&mut imp.module, &func);
    imp.module.functions.push(func);
}
