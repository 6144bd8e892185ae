//! `dojoc ops`.

use clap::ValueEnum;
use dojoc::{Diagnostic, codes};
use dojoc_compiler::import::onnx;
use dojoc_ir::access::Tiling;
use dojoc_ir::graph::{FunctionBuilder, ValueId, closest};
use dojoc_ir::ops::{GradCx, NoGrad, Op, Sample, TypeError};
use dojoc_ir::types::Type;
use serde_json::json;

use super::{Outcome, console, instructions};

/// Arguments of `dojoc ops`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Op or instruction to document, in full.
    name: Option<String>,
    /// The level it is of; without a name, all of this level are listed.
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// List the ONNX operators that can be imported instead.
    #[arg(long, conflicts_with_all = ["name", "level"])]
    onnx: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

/// Level of what is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Ops on tensors (default).
    Graph,
    /// Instructions of a core.
    Program,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One object per line.
    Json,
    /// A page in Markdown.
    Md,
}

/// What is known about one op.
struct Entry {
    name: &'static str,
    doc: String,
    tiling: String,
    gradient: &'static str,
}

impl Entry {
    fn new(name: &'static str, samples: &[Sample]) -> Self {
        let samples: Vec<&Sample> = samples.iter().filter(|s| s.op.name() == name).collect();
        let mut kinds: Vec<&str> = samples.iter().map(|s| tiling_kind(s)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let gradient = ["yes", "zero", "no"];
        let best = samples.iter().map(|s| gradient_kind(s)).min().unwrap_or(2);
        Self {
            name,
            doc: Op::doc(name).unwrap_or_default(),
            tiling: kinds.join(", "),
            gradient: gradient[best],
        }
    }

    /// The first sentence of the documentation.
    fn summary(&self) -> String {
        let line = self.doc.replace('\n', " ");
        let end = line.find(". ").unwrap_or(line.len());
        line[..end].trim_end_matches('.').to_owned()
    }
}

fn tiling_kind(sample: &Sample) -> &'static str {
    let types: Vec<Type> = sample.args.iter().map(|a| a.ty.clone()).collect();
    match sample.op.tiling(&types) {
        Tiling::Loop(_) => "loop",
        Tiling::Expand(_) => "expand",
        Tiling::View(_) => "view",
        Tiling::Kernel(_) => "kernel",
        Tiling::Control => "control",
    }
}

/// 0 if the gradient rule gives a gradient, 1 if it says that there is no influence, 2 if there is
/// no rule.
fn gradient_kind(sample: &Sample) -> usize {
    let mut b = FunctionBuilder::new("gradient");
    let args: Vec<ValueId> = sample
        .args
        .iter()
        .map(|a| b.param(a.ty.clone(), None))
        .collect();
    let node = |b: &mut FunctionBuilder| -> Result<Vec<ValueId>, TypeError> {
        let regions = sample.regions.iter().map(|build| build(b));
        let regions = regions.collect::<Result<Vec<_>, _>>()?;
        b.node_with_regions(sample.op.clone(), &args, &regions)
    };
    let Ok(results) = node(&mut b) else { return 2 };
    let types: Vec<Type> = results.iter().map(|r| b.ty(*r).clone()).collect();
    let cotangents: Vec<ValueId> = types.into_iter().map(|ty| b.param(ty, None)).collect();
    let mut cx = GradCx {
        b: &mut b,
        args: &args,
        results: &results,
        cotangents: &cotangents,
    };
    match sample.op.grad(&mut cx) {
        Ok(gradients) if gradients.iter().any(Option::is_some) => 0,
        Ok(_) => 1,
        Err(NoGrad::NoRule | NoGrad::Type(_)) => 2,
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    if args.onnx {
        return console::print(&onnx_table(args.format));
    }
    let is_op = |name: &str| Op::names().any(|op| op == name);
    let of_program = match (args.level, args.name.as_deref()) {
        (Some(level), _) => level == Level::Program,
        // A name that only an instruction has is one.
        (None, name) => name.is_some_and(|name| !is_op(name) && instructions::has(name)),
    };
    if of_program {
        return instructions::run(args.name.as_deref(), args.format);
    }
    let samples = Op::samples();
    if let Some(name) = &args.name {
        let Some(name) = Op::names().find(|n| n == name) else {
            let message = format!("there is no op `{name}`");
            let diagnostic = Diagnostic::input(codes::UNKNOWN_WORD, message);
            return Err(match closest(name, Op::names()) {
                Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                None => diagnostic.help("`dojoc ops` lists all"),
            }
            .into());
        };
        return console::print(&document(&Entry::new(name, &samples), args.format));
    }
    let entries: Vec<Entry> = Op::names().map(|name| Entry::new(name, &samples)).collect();
    let text = match args.format {
        Format::Json => entries.iter().map(|e| object(e) + "\n").collect(),
        Format::Md => {
            let mut text =
                "| op | what it computes | tiling | gradient |\n|---|---|---|---|\n".to_owned();
            for e in &entries {
                let summary = e.summary().replace('|', "\\|");
                text += &format!(
                    "| {} | {summary} | {} | {} |\n",
                    e.name, e.tiling, e.gradient
                );
            }
            text
        }
        Format::Human => {
            let width = entries.iter().map(|e| e.name.len()).max().unwrap_or(0);
            let lines = entries
                .iter()
                .map(|e| format!("{:<width$}  {}\n", e.name, e.summary()));
            lines.collect()
        }
    };
    console::print(&text)
}

fn object(entry: &Entry) -> String {
    let schema = Op::schema(entry.name).unwrap_or_default();
    let attributes = schema
        .iter()
        .map(|a| json!({"name": a.name, "kind": a.kind, "doc": a.doc}));
    json!({
        "name": entry.name,
        "doc": entry.doc,
        "attributes": attributes.collect::<Vec<_>>(),
        "tiling": entry.tiling,
        "gradient": entry.gradient,
    })
    .to_string()
}

fn document(entry: &Entry, format: Format) -> String {
    if format == Format::Json {
        return object(entry) + "\n";
    }
    let schema = Op::schema(entry.name).unwrap_or_default();
    let mut text = match format {
        Format::Md => format!("## {}\n\n{}\n", entry.name, entry.doc),
        _ => format!("{}\n\n{}\n", entry.name, entry.doc),
    };
    if !schema.is_empty() {
        text += "\nAttributes\n";
        let width = schema.iter().map(|a| a.name.len()).max().unwrap_or(0);
        for attribute in &schema {
            let (name, kind, doc) = (attribute.name, &attribute.kind, attribute.doc);
            text += &format!("  {name:<width$}  {kind}. {doc}\n");
        }
    }
    text + &format!("\nTiling: {}\nGradient: {}\n", entry.tiling, entry.gradient)
}

/// The operators that the importer knows.
fn onnx_table(format: Format) -> String {
    let mut text = String::new();
    if format == Format::Md {
        text += "# ONNX operators\n\n\
                 Made by `dojoc ops --onnx --format md`; do not edit. The versions are those of the \
                 operator\nset from which on an operator is imported in its own way; the newest set \
                 is ";
        text += &format!(
            "{}.\n\n| operator | domain | versions |\n|---|---|---|\n",
            onnx::NEWEST_OPSET
        );
    }
    let entries: Vec<_> = onnx::supported().collect();
    let width = entries
        .iter()
        .map(|(_, name, _)| name.len())
        .max()
        .unwrap_or(0);
    for (domain, name, versions) in entries {
        let domain = if domain.is_empty() { "ai.onnx" } else { domain };
        let listed: Vec<String> = versions.iter().map(i64::to_string).collect();
        let listed = listed.join(", ");
        text += &match format {
            Format::Json => {
                json!({"operator": name, "domain": domain, "versions": versions}).to_string() + "\n"
            }
            Format::Md => format!("| {name} | {domain} | {listed} |\n"),
            Format::Human => format!("{name:<width$}  {domain:<13}  since {listed}\n"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_has_a_summary_and_a_tiling() {
        let samples = Op::samples();
        for name in Op::names() {
            let entry = Entry::new(name, &samples);
            assert!(
                !entry.summary().is_empty() && !entry.tiling.is_empty(),
                "{name}"
            );
        }
        let of = |name| Entry::new(name, &samples);
        assert_eq!(
            (of("softmax").tiling.as_str(), of("softmax").gradient),
            ("expand", "yes")
        );
        assert_eq!(
            (of("reshape").tiling.as_str(), of("if").tiling.as_str()),
            ("view", "control")
        );
    }
}
