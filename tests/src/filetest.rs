//! Filetests: a text, a command in its first line, and the output beside it.
//!
//! `tests/filetests/<folder>/<name>.dojo` starts with a comment that is a command, one of
//!
//! - `// parse`: the text printed again, or what is wrong with it;
//! - `// verify`: `ok`, or the broken rules; what is mapped or a program is verified for the built-in
//!   machine of the name it gives;
//! - `// lower --machine M --emit tiled|mesh`: a GRAPH on a built-in machine, as the text of a level;
//! - `// opt --pass P [--pass Q]... [--fuel N] [--precision bf16] [--keep-precision NAME]...
//!   [--fold-bytes N]`: the text after the passes. Values are validated on the way.
//!
//! The output must be that of `<name>.snap`; `DOJOC_BLESS=1` writes it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use dojoc_compiler::lower::{LowerOptions, lower};
use dojoc_compiler::pass::{Precision, Run, RunOptions, Validation};
use dojoc_compiler::pipeline;
use dojoc_ir::diag::{Diagnostic, Diagnostics, Place};
use dojoc_ir::graph::{Module, parse, verify};
use dojoc_ir::level::Level as _;
use dojoc_ir::machine::Machine;
use dojoc_ir::program::{self, Program};
use dojoc_ir::{codes, mesh, tiled};
use walkdir::WalkDir;

/// Where the filetests are.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests")
}

/// All files below the root with an extension, in order.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(extension: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![];
    for entry in WalkDir::new(root()).sort_by_file_name() {
        let path = entry.map_err(|e| e.to_string())?.into_path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether outputs are written instead of compared.
pub fn blessing() -> bool {
    std::env::var("DOJOC_BLESS").is_ok_and(|value| value == "1")
}

/// Runs one file and compares, or writes, its output.
///
/// # Errors
/// What differs, or what is wrong with the file.
pub fn check(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let found = output(&text)?;
    let snap = path.with_extension("snap");
    let expected = fs::read_to_string(&snap).unwrap_or_default();
    if found == expected {
        return Ok(());
    }
    if blessing() {
        return fs::write(&snap, &found).map_err(|e| e.to_string());
    }
    Err(format!(
        "{} differs; DOJOC_BLESS=1 accepts what is found\n{}",
        snap.display(),
        difference(&expected, &found)
    ))
}

/// The lines from the first to the last that differ.
fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same = |pairs: usize, at: &dyn Fn(usize) -> bool| (0..pairs).take_while(|i| at(*i)).count();
    let shortest = old.len().min(new.len());
    let first = same(shortest, &|i| old[i] == new[i]);
    let last = same(shortest - first, &|i| {
        old[old.len() - 1 - i] == new[new.len() - 1 - i]
    });
    let mut text = format!("from line {}\n", first + 1);
    let parts = [
        ('-', &old[first..old.len() - last]),
        ('+', &new[first..new.len() - last]),
    ];
    for (sign, lines) in parts {
        for line in lines {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{sign} {line}");
        }
    }
    text
}

/// The output of the command in the first line of a text.
///
/// # Errors
/// When there is no such command.
pub fn output(text: &str) -> Result<String, String> {
    let first = text.lines().next().unwrap_or_default();
    let command = first
        .strip_prefix("// ")
        .ok_or("the first line is not a `// command`")?;
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.split_first() {
        Some((&"parse", [])) => {
            let printed = match level(text) {
                Program::NAME => program::parse(text).map(|(program, _)| program.to_string()),
                tiled::Module::NAME => tiled::parse(text).map(|(module, _)| module.to_string()),
                mesh::Module::NAME => mesh::parse(text).map(|(module, _)| module.to_string()),
                _ => parse(text).map(|(module, _)| module.to_string()),
            };
            Ok(printed.unwrap_or_else(|errors| render(text, &errors)))
        }
        Some((&"verify", [])) => {
            let result = match level(text) {
                Program::NAME => verified_program(text).map(drop),
                mesh::Module::NAME => verified_mesh(text),
                _ => verified(text).map(drop),
            };
            let ok = result.map(|()| "ok\n".to_owned());
            Ok(ok.unwrap_or_else(|errors| render(text, &errors)))
        }
        Some((&"opt", arguments)) => optimise(text, arguments),
        Some((&"lower", &["--machine", machine, "--emit", level])) => lowered(text, machine, level),
        _ => Err(format!("there is no command `{command}`")),
    }
}

/// The level that the header names, empty without one.
fn level(text: &str) -> &str {
    let header = text.lines().find_map(|line| line.strip_prefix("dojo "));
    let word = header.and_then(|rest| rest.split_whitespace().next());
    word.unwrap_or_default()
}

fn verified_program(text: &str) -> Result<Program, Diagnostics> {
    let (program, map) = program::parse(text)?;
    let machine = program.builtin_machine()?;
    let violations = program::verify::verify(&program, &machine).into_iter();
    let diagnostics = violations.map(|v| v.into_diagnostic(&program, Some(&map)));
    Diagnostics(diagnostics.collect()).ok(program)
}

fn verified_mesh(text: &str) -> Result<(), Diagnostics> {
    let (module, map) = mesh::parse(text)?;
    let machine = builtin(&module.tiled.machine).map_err(|message| {
        Diagnostics::from(Diagnostic::input(codes::MACHINE_MISMATCH, message))
    })?;
    mesh::diagnostics(&module, mesh::verify_on(&module, &machine), &map)
}

fn builtin(name: &str) -> Result<Machine, String> {
    let text = Machine::builtin(name).ok_or_else(|| format!("there is no machine `{name}`"))?;
    Machine::parse(text, name).map_err(|errors| format!("{errors:?}"))
}

/// A graph as the text of a level below.
fn lowered(text: &str, machine: &str, level: &str) -> Result<String, String> {
    let module = match verified(text) {
        Ok(module) => module,
        Err(errors) => return Err(render(text, &errors)),
    };
    let passes: Vec<_> = pipeline::LOWER.iter().map(|step| step.pass).collect();
    let module = Run::new(RunOptions::default()).graph(passes, module);
    let module = module.map_err(|failure| failure.to_string())?;
    let found = lower(&module, &builtin(machine)?, &LowerOptions::default());
    match (found, level) {
        (Ok(lowered), "tiled") => Ok(lowered.tiled.to_string()),
        (Ok(lowered), "mesh") => Ok(lowered.mesh.to_string()),
        (Ok(_), level) => Err(format!("there is no level `{level}` below GRAPH")),
        (Err(errors), _) => Ok(render(text, &errors)),
    }
}

fn verified(text: &str) -> Result<Module, Diagnostics> {
    let (module, map) = parse(text)?;
    let violations = verify(&module);
    let diagnostics = violations
        .into_iter()
        .map(|v| v.into_diagnostic(&module, &map));
    Diagnostics(diagnostics.collect()).ok(module)
}

fn optimise(text: &str, arguments: &[&str]) -> Result<String, String> {
    let mut options = RunOptions {
        validate: Some(Validation::default()),
        ..RunOptions::default()
    };
    let mut passes = vec![];
    for pair in arguments.chunks(2) {
        let [flag, value] = pair else {
            return Err(format!("`{}` needs a value", pair[0]));
        };
        let number = || {
            value
                .parse()
                .map_err(|_| format!("`{value}` is not a number"))
        };
        match (*flag, *value) {
            ("--pass", "all") => passes.extend(pipeline::GRAPH.iter().map(|step| step.pass)),
            ("--pass", name) => {
                passes.push(pipeline::find(name).ok_or(format!("there is no pass `{name}`"))?);
            }
            ("--fuel", _) => options.fuel = Some(number()?),
            ("--fold-bytes", _) => options.passes.fold_bytes = number()?,
            ("--precision", "bf16") => options.passes.precision = Precision::Bf16,
            ("--keep-precision", name) => {
                options.passes.keep_precision.insert(name.into());
            }
            _ => return Err(format!("there is no option `{flag} {value}`")),
        }
    }
    let module = match verified(text) {
        Ok(module) => module,
        Err(errors) => return Err(render(text, &errors)),
    };
    let mut run = Run::new(options);
    let module = run
        .graph(passes, module)
        .map_err(|failure| failure.to_string())?;
    let mut output = module.to_string();
    let (again, _) = parse(&output).map_err(|e| format!("the output does not parse: {e}"))?;
    if again != module {
        return Err("the output reads back as something else".into());
    }
    for warning in &run.warnings.0 {
        let _ = writeln!(output, "warning: {warning}");
    }
    Ok(output)
}

/// Diagnostics with line and column, and the line that they are about.
fn render(text: &str, diagnostics: &Diagnostics) -> String {
    let mut output = String::new();
    for Diagnostic {
        code,
        message,
        place,
        notes,
        help,
        ..
    } in &diagnostics.0
    {
        let _ = match place {
            Some(Place::Span(span)) => {
                let before = &text[..span.start.min(text.len())];
                let line = before.matches('\n').count();
                let start = before.rfind('\n').map_or(0, |at| at + 1);
                let column = before[start..].chars().count() + 1;
                let source = text.lines().nth(line).unwrap_or_default();
                writeln!(output, "{}:{column}: {code} {message}\n{source}", line + 1)
            }
            Some(Place::Node(loc)) => writeln!(output, "{loc}: {code} {message}"),
            None => writeln!(output, "{code} {message}"),
        };
        for note in notes {
            let _ = writeln!(output, "  note: {note}");
        }
        if let Some(help) = help {
            let _ = writeln!(output, "  help: {help}");
        }
    }
    output
}
