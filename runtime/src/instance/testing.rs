//! What tests of programs share.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dojoc_ir::codes::NO_DATA;
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::machine::Machine;
use dojoc_ir::program::Program;
use dojoc_ir::program::parse::parse;
use dojoc_ir::program::recipe::Sources;

/// The machine of the tests: 4 x 4 cores.
pub fn machine() -> Machine {
    Machine::parse(Machine::builtin("mesh4x4").unwrap(), "mesh4x4").unwrap()
}

/// A program with these declarations.
pub fn program(declarations: &str) -> Arc<Program> {
    program_with("", declarations)
}

/// A program with these declarations and further attributes, such as `, dims = {n = 8}`.
pub fn program_with(attributes: &str, declarations: &str) -> Arc<Program> {
    let text = format!(
        "dojo program 1\nprogram @test {{machine = \"mesh4x4\"{attributes}}} {{\n{declarations}\n}}\n"
    );
    match parse(&text) {
        Ok((program, _)) => Arc::new(program),
        Err(found) => panic!("{found}\n{text}"),
    }
}

/// Files in memory.
#[derive(Debug, Default)]
pub struct Files(pub BTreeMap<&'static str, Bytes>);

impl Sources for Files {
    fn read(&self, file: &str, offset: u64, length: u64) -> Result<Bytes, Diagnostic> {
        let missing = || Diagnostic::input(NO_DATA, format!("{file} has no such bytes"));
        let data = self.0.get(file).ok_or_else(missing)?;
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= data.len() as u64);
        end.map(|end| data.slice(offset as usize..end as usize))
            .ok_or_else(missing)
    }
}
