//! Which values of a model its program still has.

use std::collections::BTreeSet;
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::graph::{self, near};
use dojoc_ir::program::{Program, TensorKind};
use dojoc_ir::tiled::ValueDef;
use dojoc_runtime::codes::UNKNOWN_TENSOR;

use crate::compiler::CompiledProgram;
use crate::error::Result;
use crate::module::Module;

/// Near names that a message gives at most.
const MOST_NEAR: usize = 5;

impl CompiledProgram {
    /// Checks that what these names stand for in the model, its values and ops, can be read while the
    /// program runs. Other names are not looked at.
    ///
    /// # Errors
    /// Those whose values passes have removed, with the closest ones that are left.
    pub fn check_probes(&self, module: &Module, names: &[Arc<str>]) -> Result<()> {
        let named = named(module.graph());
        let mut left = left(self.executable.program());
        let missing = names.iter().filter(|name| !left.contains(&***name));
        let missing: Vec<&Arc<str>> = missing.collect();
        // What could be read as well.
        let values = self
            .tiled
            .functions
            .values()
            .flat_map(|f| f.values.values());
        let made = values.filter(|value| matches!(value.def, ValueDef::Stmt(_)));
        left.extend(made.filter_map(|value| value.name.as_deref()));
        let found = (missing.iter()).filter_map(|name| lost(&named, &left, name));
        Ok(Diagnostics(found.collect()).ok(())?)
    }
}

/// Checks that a model has values or ops of these names.
///
/// # Errors
/// Those that it does not have.
pub(crate) fn check_known(module: &Module, names: &BTreeSet<Arc<str>>) -> Result<()> {
    let named = named(module.graph());
    let all = || named.iter().flatten().copied();
    let unknown = names.iter().filter(|name| all().all(|n| *n != ***name));
    let found = unknown.map(|name| {
        let message = format!("the model has no value or op `{name}`");
        let diagnostic = Diagnostic::input(UNKNOWN_TENSOR, message);
        match near(name, all(), MOST_NEAR).as_slice() {
            [] => diagnostic.help("`dojoc compile --emit import` shows all names"),
            names => diagnostic.help(format!("did you mean {}?", list(names, " or "))),
        }
    });
    Ok(Diagnostics(found.collect()).ok(())?)
}

/// The names of each input and node of the function that is compiled, in order: those of its values,
/// and that of the op of the user's model.
fn named(module: &graph::Module) -> Vec<Vec<&str>> {
    let func = module.main().or_else(|| module.functions.ids().next());
    let Some(func) = func.map(|id| &module.functions[id]) else {
        return vec![];
    };
    let name = |value: &graph::ValueId| func.values[*value].name.as_deref();
    let inputs = func.inputs().iter().map(|v| name(v).into_iter().collect());
    let nodes = func.regions[func.body()].nodes.iter().map(|node| {
        let node = &func.nodes[*node];
        let op = node.loc.as_ref().map(|loc| &*loc.name);
        node.results.iter().filter_map(name).chain(op).collect()
    });
    inputs.chain(nodes).collect()
}

/// The names under which a program has values.
fn left(program: &Program) -> BTreeSet<&str> {
    let values = program.tensors.values().filter(|decl| match decl.kind {
        TensorKind::Probe | TensorKind::Input | TensorKind::Output => true,
        TensorKind::Weight(_) | TensorKind::State(_) => false,
    });
    let names = values.flat_map(|decl| {
        let op = decl.loc.and_then(|loc| program.locs.get(loc));
        [Some(&*decl.name), op.map(|loc| &*loc.name)]
    });
    names.flatten().collect()
}

/// The error for a value of the model that is not left; `None` if the model has none of that name.
fn lost(named: &[Vec<&str>], left: &BTreeSet<&str>, name: &str) -> Option<Diagnostic> {
    let at = named.iter().position(|names| names.contains(&name))?;
    let is_left = |name: &&str| left.contains(name);
    let mut before = named[..at].iter().rev().flatten().copied();
    let mut after = named[at..].iter().flatten().copied();
    let closest = before.find(is_left).into_iter().chain(after.find(is_left));
    let message = format!(
        "the program has no value `{name}`: passes merged it with another one, folded it into \
         weights or computed it in another form"
    );
    let found = Diagnostic::input(UNKNOWN_TENSOR, message)
        .note(format!("`dojoc eval --probe {name}` computes it"));
    Some(match Vec::from_iter(closest).as_slice() {
        [] => found,
        names => found.help(format!("the closest that are left: {}", list(names, ", "))),
    })
}

fn list(names: &[&str], between: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(between)
}
