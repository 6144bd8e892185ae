//! Diagnostics as text for people and as JSON for programs.

use std::fmt::Write as _;

use codespan_reporting::diagnostic::{Diagnostic as Report, Label, Severity as ReportSeverity};
use codespan_reporting::files::SimpleFile;
use codespan_reporting::term;
use codespan_reporting::term::termcolor::{Ansi, NoColor};
use dojoc_ir::codes as ir_codes;
use dojoc_ir::diag::{Diagnostic, Kind, Place};
use serde_json::json;

use crate::error::SourceText;

/// Version of the JSON form of diagnostics; grows when a field changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// How grave a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// Nothing was produced.
    Error,
    /// The result stands.
    Warning,
}

impl Severity {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// The word for a kind of diagnostics in JSON.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Input => "input",
        Kind::Unsupported => "unsupported",
        Kind::Limit => "limit",
        Kind::Bug => "bug",
    }
}

/// What a message begins with: `error[D0310]`, or which kind of error it is where that is not the
/// input's fault.
fn heading(diagnostic: &Diagnostic, severity: Severity) -> String {
    format!("{}[{}]", word(diagnostic, severity), diagnostic.code)
}

fn word(diagnostic: &Diagnostic, severity: Severity) -> &'static str {
    match (severity, diagnostic.kind) {
        (Severity::Warning, _) => "warning",
        (Severity::Error, Kind::Input) => "error",
        (Severity::Error, Kind::Unsupported) => "unsupported",
        (Severity::Error, Kind::Limit) => "does not fit",
        (Severity::Error, Kind::Bug) => "defect of dojoc",
    }
}

/// A diagnostic as text that ends with a line break. With a span and its text, the lines are
/// shown; with a node, its name and file.
pub fn human(
    diagnostic: &Diagnostic,
    severity: Severity,
    source: Option<&SourceText>,
    color: bool,
) -> String {
    match (&diagnostic.place, source) {
        (Some(Place::Span(span)), Some(source)) => {
            if let Some(text) = in_text(diagnostic, severity, source, span, color) {
                return text;
            }
            plain(diagnostic, severity, color)
        }
        _ => plain(diagnostic, severity, color),
    }
}

/// Writes the diagnostic with the lines of its span; `None` if the span is not in the text.
fn in_text(
    diagnostic: &Diagnostic,
    severity: Severity,
    source: &SourceText,
    span: &std::ops::Range<usize>,
    color: bool,
) -> Option<String> {
    let len = source.text.len();
    // A span must lie on characters, or no line can be shown.
    let start = (0..=span.start.min(len))
        .rev()
        .find(|at| source.text.is_char_boundary(*at))?;
    let end = (span.end.clamp(start, len)..=len).find(|at| source.text.is_char_boundary(*at))?;
    let word = word(diagnostic, severity);
    let (severity, its_word) = match severity {
        Severity::Warning => (ReportSeverity::Warning, "warning"),
        Severity::Error => (ReportSeverity::Error, "error"),
    };
    let mut notes: Vec<String> = diagnostic
        .notes
        .iter()
        .map(|n| format!("note: {n}"))
        .collect();
    notes.extend(diagnostic.help.iter().map(|h| format!("help: {h}")));
    let report = Report::new(severity)
        .with_code(diagnostic.code.to_string())
        .with_message(&diagnostic.message)
        .with_labels(vec![Label::primary((), start..end)])
        .with_notes(notes);
    let file = SimpleFile::new(&source.name, &source.text);
    let config = term::Config::default();
    let mut out = vec![];
    match color {
        true => term::emit_to_write_style(&mut Ansi::new(&mut out), &config, &file, &report),
        false => term::emit_to_write_style(&mut NoColor::new(&mut out), &config, &file, &report),
    }
    .ok()?;
    let text = String::from_utf8(out).ok()?;
    // The message begins with the word, behind a colour, and has the same as without a text.
    Some(text.trim_end().replacen(its_word, word, 1) + "\n")
}

fn plain(diagnostic: &Diagnostic, severity: Severity, color: bool) -> String {
    let mut out = String::new();
    let heading = heading(diagnostic, severity);
    let (on, bold, off) = match (color, severity) {
        (false, _) => ("", "", ""),
        (true, Severity::Error) => ("\x1b[1;31m", "\x1b[1m", "\x1b[0m"),
        (true, Severity::Warning) => ("\x1b[1;33m", "\x1b[1m", "\x1b[0m"),
    };
    let message = &diagnostic.message;
    // Writing to a string does not fail.
    let _ = writeln!(out, "{on}{heading}{off}{bold}: {message}{off}");
    match &diagnostic.place {
        Some(Place::Node(loc)) => {
            let _ = write!(out, "  at node \"{}\"", loc.name);
            let _ = match &*loc.file {
                "" => Ok(()),
                file if file.ends_with(".onnx") => write!(out, " ({file}, node {})", loc.line),
                file => write!(out, " ({file}:{})", loc.line),
            };
            out.push('\n');
        }
        Some(Place::Span(span)) => {
            let _ = writeln!(out, "  at byte {}", span.start);
        }
        None => {}
    }
    for note in &diagnostic.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "  help: {help}");
    }
    out
}

/// A diagnostic as one line of JSON without a line break: an object with `schema_version`,
/// `severity`, `code`, `kind` (`input`, `unsupported`, `limit` or `bug`), `message`, `place`,
/// `notes`, `help` and `rendered`, the text for people. A place is null, or has `type` `span` with
/// `file`, `start`, `end` (bytes), `line` and `column` (from 1), or `type` `node` with `file`,
/// `node` and `index`.
pub fn json(diagnostic: &Diagnostic, severity: Severity, source: Option<&SourceText>) -> String {
    let place = diagnostic.place.as_ref().map(|place| match place {
        Place::Node(loc) => json!({
            "type": "node",
            "file": &*loc.file,
            "node": &*loc.name,
            "index": loc.line,
        }),
        Place::Span(span) => {
            let before = source.and_then(|s| s.text.get(..span.start));
            let line = before.map(|text| text.matches('\n').count() + 1);
            let column = before.map(|text| {
                let start = text.rfind('\n').map_or(0, |at| at + 1);
                text[start..].chars().count() + 1
            });
            json!({
                "type": "span",
                "file": source.map(|s| &s.name),
                "start": span.start,
                "end": span.end,
                "line": line,
                "column": column,
            })
        }
    });
    json!({
        "schema_version": SCHEMA_VERSION,
        "severity": severity.name(),
        "code": diagnostic.code.to_string(),
        "kind": if diagnostic.code.0 == ir_codes::CANCELLED { "cancelled" } else { kind_name(diagnostic.kind) },
        "message": diagnostic.message,
        "place": place,
        "notes": diagnostic.notes,
        "help": diagnostic.help,
        "rendered": human(diagnostic, severity, source, false),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dojoc_ir::diag::Loc;

    use super::*;

    #[test]
    fn spans_show_their_line() {
        let source = SourceText {
            name: "a.dojo".into(),
            text: "dojo graph 1\nmodule @é { weigh @w }\n".into(),
        };
        let at = source.text.find("weigh").unwrap();
        let diagnostic = Diagnostic::input(10, "no such word")
            .at_span(at..at + 5)
            .help("write `weight`");
        insta::assert_snapshot!(human(&diagnostic, Severity::Error, Some(&source), false), @r#"
        error[D0010]: no such word
          ┌─ a.dojo:2:13
          │
        2 │ module @é { weigh @w }
          │             ^^^^^
          │
          = help: write `weight`
        "#);
        let value: serde_json::Value =
            serde_json::from_str(&json(&diagnostic, Severity::Error, Some(&source))).unwrap();
        assert_eq!(value["place"]["line"], 2);
        assert_eq!(value["place"]["column"], 13);
    }

    #[test]
    fn a_kind_has_one_word_with_and_without_text() {
        let source = SourceText {
            name: "error.dojo".into(),
            text: "error".into(),
        };
        for kind in [Kind::Input, Kind::Unsupported, Kind::Limit, Kind::Bug] {
            let diagnostic = Diagnostic::new(233, kind, "an error").at_span(0..1);
            for (color, severity) in [
                (false, Severity::Error),
                (true, Severity::Error),
                (false, Severity::Warning),
            ] {
                let head = heading(&diagnostic, severity);
                let text = human(&diagnostic, severity, Some(&source), color);
                let first = text.lines().next().unwrap_or("");
                assert!(first.contains(&head), "{first}");
                assert!(first.contains(": an error"), "{first}");
                let alone = human(&diagnostic, severity, None, color);
                assert!(alone.contains(&head), "{alone}");
            }
        }
    }

    #[test]
    fn spans_outside_the_text_do_no_harm() {
        let source = SourceText {
            name: "a".into(),
            text: "é".into(),
        };
        for span in [0..1, 1..1, 1..9, 7..9] {
            let diagnostic = Diagnostic::input(10, "bad").at_span(span);
            let text = human(&diagnostic, Severity::Error, Some(&source), true);
            assert!(text.contains("bad"));
            json(&diagnostic, Severity::Error, Some(&source));
        }
    }

    #[test]
    fn nodes_are_named() {
        let loc = Loc {
            name: "conv1".into(),
            file: "m.onnx".into(),
            line: 3,
        };
        let diagnostic = Diagnostic::new(403, Kind::Unsupported, "Conv: no")
            .at(Place::Node(Arc::new(loc)))
            .note("x")
            .help("y");
        insta::assert_snapshot!(human(&diagnostic, Severity::Error, None, false), @r#"
        unsupported[D0403]: Conv: no
          at node "conv1" (m.onnx, node 3)
          note: x
          help: y
        "#);
        insta::assert_snapshot!(json(&diagnostic, Severity::Warning, None), @r#"{"code":"D0403","help":"y","kind":"unsupported","message":"Conv: no","notes":["x"],"place":{"file":"m.onnx","index":3,"node":"conv1","type":"node"},"rendered":"warning[D0403]: Conv: no\n  at node \"conv1\" (m.onnx, node 3)\n  note: x\n  help: y\n","schema_version":1,"severity":"warning"}"#);
    }
}
