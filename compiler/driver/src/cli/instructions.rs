//! `dojoc ops --level program`: the instruction set.

use dojoc::{Diagnostic, codes};
use dojoc_ir::graph::closest;
use dojoc_ir::program::ViewType;
use dojoc_ir::program::instr::{self, Access, Instr, InstrInfo};
use serde_json::json;

use super::explain::wrap;
use super::ops::Format;
use super::{Outcome, console};

/// Letters in a line of text.
const WIDTH: usize = 100;

/// An operand of some instances of an instruction.
struct Operand {
    name: &'static str,
    access: &'static str,
    optional: bool,
}

/// What is known about one instruction.
struct Entry {
    info: InstrInfo,
    operands: Vec<Operand>,
    scalars: Vec<(&'static str, bool)>,
}

impl Entry {
    fn new(info: InstrInfo, samples: &[(Instr, Vec<ViewType>)]) -> Self {
        let samples = samples.iter().map(|(instr, _)| instr);
        let samples: Vec<&Instr> = samples.filter(|i| i.mnemonic() == info.mnemonic).collect();
        let mut operands: Vec<Operand> = Vec::new();
        let mut scalars: Vec<(&'static str, bool)> = Vec::new();
        for sample in &samples {
            for role in sample.roles() {
                if operands.iter().any(|operand| operand.name == role.name) {
                    continue;
                }
                let has = |i: &&Instr| i.roles().iter().any(|r| r.name == role.name);
                let accesses = samples.iter().flat_map(|i| i.roles());
                operands.push(Operand {
                    name: role.name,
                    access: access(accesses.filter(|r| r.name == role.name).map(|r| r.access)),
                    optional: !samples.iter().all(has),
                });
            }
            for name in sample.scalars() {
                if scalars.iter().all(|(known, _)| *known != name) {
                    let optional = !samples.iter().all(|i| i.scalars().contains(&name));
                    scalars.push((name, optional));
                }
            }
        }
        Self {
            info,
            operands,
            scalars,
        }
    }

    fn object(&self) -> serde_json::Value {
        let info = &self.info;
        let operands = self.operands.iter();
        let operands =
            operands.map(|o| json!({"name": o.name, "access": o.access, "optional": o.optional}));
        let scalars = self.scalars.iter();
        let scalars = scalars.map(|(name, optional)| json!({"name": name, "optional": optional}));
        let schema = Instr::schema(info.mnemonic).unwrap_or_default();
        let attributes = schema
            .iter()
            .map(|a| json!({"name": a.name, "kind": a.kind, "doc": a.doc}));
        json!({
            "name": info.mnemonic,
            "family": info.family,
            "doc": info.doc,
            "rules": info.rules,
            "operands": operands.collect::<Vec<_>>(),
            "scalars": scalars.collect::<Vec<_>>(),
            "attributes": attributes.collect::<Vec<_>>(),
            "stands_for": info.stands_for,
            "confidence": info.confidence.tag(),
            "cost": info.cost,
        })
    }

    /// All about it, for people.
    fn document(&self, format: Format) -> String {
        let info = &self.info;
        let heading = if format == Format::Md { "## " } else { "" };
        let mut text = format!("{heading}{}\n\n{}\n", info.mnemonic, info.doc);
        text += &format!("\n{}\n", wrap(info.rules, WIDTH));
        let operands = self.operands.iter().map(|operand| {
            let optional = if operand.optional { ", optional" } else { "" };
            (operand.name, format!("{}{optional}", operand.access))
        });
        text += &table("Operands", &operands.collect::<Vec<_>>());
        let scalars = self.scalars.iter().map(|(name, optional)| {
            let optional = if *optional { ", optional" } else { "" };
            (
                *name,
                format!("an expression of the address generators{optional}"),
            )
        });
        text += &table("Scalars", &scalars.collect::<Vec<_>>());
        let schema = Instr::schema(info.mnemonic).unwrap_or_default();
        let attributes = schema
            .iter()
            .map(|a| (a.name, format!("{}. {}", a.kind, a.doc)));
        text += &table("Attributes", &attributes.collect::<Vec<_>>());
        let stands_for = format!("Stands for: {}", info.stands_for);
        let confidence = format!(
            "Confidence: {}, {}",
            info.confidence.tag(),
            info.confidence.meaning()
        );
        let cost = format!("Cost: {}", info.cost);
        for paragraph in [stands_for, confidence, cost] {
            text += &format!("\n{}\n", wrap(&paragraph, WIDTH));
        }
        text
    }
}

/// Names with what they are, under a title; nothing without any.
fn table(title: &str, rows: &[(&str, String)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let indent = format!("\n{:1$}", "", width + 4);
    let lines = rows.iter().map(|(name, text)| {
        let text = wrap(text, WIDTH - width - 4).replace('\n', &indent);
        format!("  {name:<width$}  {text}\n")
    });
    format!("\n{title}\n{}", lines.collect::<String>())
}

/// What is done with an operand, over all instances.
fn access(all: impl Iterator<Item = Access>) -> &'static str {
    let all: Vec<Access> = all.collect();
    let some = |access| all.contains(&access);
    match (some(Access::Write), some(Access::Update)) {
        (true, true) => "written or updated",
        (true, false) => "written",
        (false, true) => "updated",
        (false, false) if some(Access::Scatter) => "written in part",
        (false, false) => "read",
    }
}

/// Whether there is an instruction of this name.
pub fn has(name: &str) -> bool {
    instr::infos().iter().any(|info| info.mnemonic == name)
}

/// Shows one instruction, or lists all.
pub fn run(name: Option<&str>, format: Format) -> Outcome {
    let infos = instr::infos();
    let samples = Instr::samples();
    let Some(name) = name else {
        let entries = infos.into_iter().map(|info| Entry::new(info, &samples));
        return console::print(&list(&entries.collect::<Vec<_>>(), format));
    };
    let Some(info) = infos.iter().find(|info| info.mnemonic == name) else {
        let message = format!("there is no instruction `{name}`");
        let diagnostic = Diagnostic::input(codes::UNKNOWN_WORD, message);
        return Err(match closest(name, infos.iter().map(|i| i.mnemonic)) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None => diagnostic.help("`dojoc ops --level program` lists all"),
        }
        .into());
    };
    let entry = Entry::new(*info, &samples);
    console::print(&match format {
        Format::Json => entry.object().to_string() + "\n",
        _ => entry.document(format),
    })
}

fn list(entries: &[Entry], format: Format) -> String {
    match format {
        Format::Json => entries
            .iter()
            .map(|e| e.object().to_string() + "\n")
            .collect(),
        Format::Md => {
            let head = "| instruction | family | what it does | stands for |\n|---|---|---|---|\n";
            let rows = entries.iter().map(|Entry { info, .. }| {
                let doc = info.doc.replace('|', "\\|");
                let stands_for = info.stands_for.replace('|', "\\|");
                format!(
                    "| {} | {} | {doc} | {stands_for} ({}) |\n",
                    info.mnemonic,
                    info.family,
                    info.confidence.tag()
                )
            });
            head.to_owned() + &rows.collect::<String>()
        }
        Format::Human => {
            let names = entries.iter().map(|e| e.info.mnemonic.len());
            let width = names.max().unwrap_or(0);
            let lines = entries
                .iter()
                .map(|e| format!("{:<width$}  {}\n", e.info.mnemonic, e.info.doc));
            lines.collect()
        }
    }
}
