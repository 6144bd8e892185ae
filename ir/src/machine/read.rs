//! From TOML text to figures: layers of inheritance, lookup, complaints.
//!
//! A file may name a built-in machine as its `base`, which may have a base in turn. A figure is
//! taken whole from the first layer that states it. Only the file's own problems carry spans; the
//! built-in files have none, which a test makes sure of.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{self, MachineError};
use super::figure::{Confidence, Fault, Figure, FigureSpec, ReadDatum};
use super::schema::Section;

type Value<'t> = Spanned<DeValue<'t>>;

/// Keys of the top level that are not sections of figures.
const TOP_LEVEL: [&str; 4] = ["base", "summary", "sources", "defects"];
const FIGURE_KEYS: [&str; 5] = ["value", "unit", "source", "confidence", "note"];

/// Sites without a core that a file lists, by chip: (row, column).
pub(super) type DefectLists = BTreeMap<u32, BTreeSet<(u32, u32)>>;

/// All layers of a file, nearest first, and the problems found so far.
pub(super) struct Reader<'t> {
    layers: Vec<DeTable<'t>>,
    /// Titles by key, of all layers.
    pub sources: BTreeMap<String, String>,
    /// Where the file itself states a figure, by `section.key`.
    pub spans: BTreeMap<String, Range<usize>>,
    pub errors: Vec<MachineError>,
}

/// A reader of one section.
pub(super) struct SectionReader<'r, 't> {
    key: &'static str,
    reader: &'r mut Reader<'t>,
}

impl<'t> Reader<'t> {
    /// Parses `text` and the bases it names. Errors only if `text` is no TOML at all.
    pub fn new(text: &'t str) -> Result<Self, Vec<MachineError>> {
        let (table, faults) = DeTable::parse_recoverable(text);
        if !faults.is_empty() {
            return Err(faults
                .iter()
                .map(|fault| MachineError {
                    code: error::SYNTAX,
                    span: fault.span(),
                    message: format!("not TOML: {}", fault.message()),
                })
                .collect());
        }
        let mut reader = Self {
            layers: vec![table.into_inner()],
            sources: BTreeMap::new(),
            spans: BTreeMap::new(),
            errors: Vec::new(),
        };
        reader.add_bases();
        reader.read_sources();
        Ok(reader)
    }

    pub fn report(&mut self, code: u16, span: Option<Range<usize>>, message: String) {
        self.errors.push(MachineError {
            code,
            span,
            message,
        });
    }

    fn span_in(layer: usize, value: &Value<'_>) -> Option<Range<usize>> {
        (layer == 0).then(|| value.span())
    }

    fn add_bases(&mut self) {
        let names = super::BUILTIN
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ");
        // No chain of distinct built-in machines is longer than their list.
        while self.layers.len() <= super::BUILTIN.len() {
            let layer = self.layers.len() - 1;
            let Some(base) = self.layers[layer].get("base") else {
                return;
            };
            let span = Self::span_in(layer, base);
            let Some(name) = base.get_ref().as_str() else {
                let message = format!("`base` must be the name of a built-in machine: {names}");
                return self.report(error::WRONG_TYPE, span, message);
            };
            let parsed = super::Machine::builtin(name).map(DeTable::parse);
            let Some(Ok(table)) = parsed else {
                let message = format!("there is no built-in machine `{name}`; there are: {names}");
                return self.report(error::UNKNOWN_BASE, span, message);
            };
            self.layers.push(table.into_inner());
        }
        self.report(error::UNKNOWN_BASE, None, "the bases form a cycle".into());
    }

    fn read_sources(&mut self) {
        let mut errors = Vec::new();
        for (layer, table) in self.layers.iter().enumerate() {
            let Some(sources) = table.get("sources") else {
                continue;
            };
            let Some(sources) = sources.get_ref().as_table() else {
                let message = "[sources] must be a table of titles by key".to_owned();
                errors.push((Self::span_in(layer, sources), message));
                continue;
            };
            for (key, title) in sources {
                let Some(text) = title.get_ref().as_str() else {
                    let message = format!("the title of source `{}` must be text", key.get_ref());
                    errors.push((Self::span_in(layer, title), message));
                    continue;
                };
                self.sources
                    .entry(key.get_ref().to_string())
                    .or_insert_with(|| text.to_owned());
            }
        }
        for (span, message) in errors {
            self.report(error::WRONG_TYPE, span, message);
        }
    }

    /// The file's own one-line summary; not inherited, since a base's would be about another
    /// machine.
    pub fn summary(&mut self) -> String {
        let Some(summary) = self.layers[0].get("summary") else {
            return String::new();
        };
        let (text, span) = (
            summary.get_ref().as_str().map(str::to_owned),
            summary.span(),
        );
        text.unwrap_or_else(|| {
            self.report(
                error::WRONG_TYPE,
                Some(span),
                "`summary` must be text".into(),
            );
            String::new()
        })
    }

    /// Reads a section that every machine has.
    pub fn required<S: Section>(&mut self) -> Option<S> {
        self.check_keys::<S>();
        if !self.has_section(S::KEY) {
            let message = format!("section [{}] is missing", S::KEY);
            self.report(error::MISSING, None, message);
            return None;
        }
        S::read(&mut SectionReader {
            key: S::KEY,
            reader: self,
        })
    }

    /// Reads a section that a machine may lack.
    pub fn optional<S: Section>(&mut self) -> Option<S> {
        self.check_keys::<S>();
        if !self.has_section(S::KEY) {
            return None;
        }
        S::read(&mut SectionReader {
            key: S::KEY,
            reader: self,
        })
    }

    fn has_section(&self, key: &str) -> bool {
        self.layers.iter().any(|layer| layer.contains_key(key))
    }

    /// Complains about keys of the file's own section that `S` does not have.
    fn check_keys<S: Section>(&mut self) {
        let known: Vec<&str> = S::FIGURES.iter().map(|spec| spec.key).collect();
        let mut errors = Vec::new();
        if let Some(section) = self.layers[0].get(S::KEY) {
            match section.get_ref().as_table() {
                None => errors.push((
                    error::WRONG_TYPE,
                    section.span(),
                    format!("[{}] must be a table of figures", S::KEY),
                )),
                Some(table) => errors.extend(unknown_keys(table, &known, &format!("[{}]", S::KEY))),
            }
        }
        for (code, span, message) in errors {
            self.report(code, Some(span), message);
        }
    }

    /// Complains about top-level keys that no machine description has.
    pub fn check_top_level(&mut self, sections: &[&str]) {
        let known = [&TOP_LEVEL, sections].concat();
        for (code, span, message) in unknown_keys(&self.layers[0], &known, "a machine file") {
            self.report(code, Some(span), message);
        }
    }

    /// The explicit defect lists: `[[defects]]` tables with `chip` and `dead`. A layer's lists
    /// replace those of its bases as a whole.
    pub fn defects(&mut self) -> (DefectLists, BTreeMap<u32, Range<usize>>) {
        let (mut lists, mut spans) = (DefectLists::new(), BTreeMap::new());
        let mut errors = Vec::new();
        let stated = self
            .layers
            .iter()
            .enumerate()
            .find_map(|(i, l)| Some((i, l.get("defects")?)));
        let Some((layer, defects)) = stated else {
            return (lists, spans);
        };
        let tables = defects.get_ref().as_array();
        if tables.is_none() {
            let message = "defects must be [[defects]] tables with `chip` and `dead`";
            errors.push((error::WRONG_TYPE, defects.span(), message.to_owned()));
        }
        for entry in tables.into_iter().flat_map(|array| array.iter()) {
            let Some(table) = entry.get_ref().as_table() else {
                let message = "a defect list must be a table with `chip` and `dead`".to_owned();
                errors.push((error::WRONG_TYPE, entry.span(), message));
                continue;
            };
            errors.extend(unknown_keys(table, &["chip", "dead"], "[[defects]]"));
            let chip = table.get("chip").and_then(|v| small_integer(v.get_ref()));
            let sites = table.get("dead").and_then(|v| sites(v.get_ref()));
            let (Some(chip), Some(sites)) = (chip, sites) else {
                let message = "a defect list needs `chip = N` and `dead = [[row, column], ..]`";
                errors.push((error::WRONG_TYPE, entry.span(), message.to_owned()));
                continue;
            };
            let count = sites.len();
            let sites = sites.into_iter().collect::<BTreeSet<_>>();
            if sites.len() < count {
                let message = format!("chip {chip}: a dead site is listed twice");
                errors.push((error::BAD_DEFECT, entry.span(), message));
            }
            if lists.insert(chip, sites).is_some() {
                let message = format!("chip {chip} has two defect lists");
                errors.push((error::BAD_DEFECT, entry.span(), message));
            }
            if layer == 0 {
                spans.insert(chip, entry.span());
            }
        }
        for (code, span, message) in errors {
            self.report(code, (layer == 0).then_some(span), message);
        }
        (lists, spans)
    }
}

impl SectionReader<'_, '_> {
    /// Reads one figure; `None`, with the reasons reported, if it is missing or bad.
    pub fn figure<T: ReadDatum>(&mut self, spec: &FigureSpec) -> Option<Figure<T>> {
        let name = format!("{}.{}", self.key, spec.key);
        let found = self
            .reader
            .layers
            .iter()
            .enumerate()
            .find_map(|(i, layer)| {
                Some((i, layer.get(self.key)?.get_ref().as_table()?.get(spec.key)?))
            });
        let Some((layer, stated)) = found else {
            let message = format!("figure `{name}` is missing ({})", spec.doc.trim());
            self.reader.report(error::MISSING, None, message);
            return None;
        };
        let mut problems = Vec::new();
        let figure = read_figure(stated, spec, &name, &self.reader.sources, &mut problems);
        let span = stated.span();
        for (code, span, message) in problems {
            self.reader
                .report(code, (layer == 0).then_some(span), message);
        }
        if layer == 0 {
            self.reader.spans.insert(name, span);
        }
        figure
    }
}

type Problem = (u16, Range<usize>, String);

fn read_figure<T: ReadDatum>(
    stated: &Value<'_>,
    spec: &FigureSpec,
    name: &str,
    sources: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Option<Figure<T>> {
    let before = problems.len();
    let Some(table) = stated.get_ref().as_table() else {
        let message = format!(
            "`{name}` must be a figure: {{ value = .., unit = \"{}\", source = \"..\", confidence = \"..\" }}",
            spec.unit
        );
        problems.push((error::WRONG_TYPE, stated.span(), message));
        return None;
    };
    problems.extend(unknown_keys(
        table,
        &FIGURE_KEYS,
        &format!("figure `{name}`"),
    ));

    let mut field = |key: &str, needed: bool| {
        let value = table.get(key);
        if value.is_none() && needed {
            let message = format!("figure `{name}` has no `{key}`");
            problems.push((error::MISSING, stated.span(), message));
        }
        value
    };
    let value = field("value", true);
    let unit = field("unit", !spec.unit.is_empty());
    let source = field("source", true);
    let confidence = field("confidence", true);
    let note = field("note", false);

    let value = value.and_then(|value| {
        T::read(value.get_ref(), spec)
            .map_err(|fault| {
                let (code, message) = match fault {
                    Fault::Type(what) => (error::WRONG_TYPE, format!("`{name}` must be {what}")),
                    Fault::Range(what) => (error::OUT_OF_RANGE, format!("`{name}`: {what}")),
                    Fault::Choice(what) => (error::UNKNOWN_CHOICE, format!("`{name}`: {what}")),
                };
                problems.push((code, value.span(), message));
            })
            .ok()
    });
    if let Some(unit) = unit.filter(|unit| unit.get_ref().as_str() != Some(spec.unit)) {
        let message = match spec.unit {
            "" => format!("`{name}` has no unit"),
            right => format!("`{name}` must be stated in `{right}`"),
        };
        problems.push((error::WRONG_UNIT, unit.span(), message));
    }
    let source_keys = source.map_or(Vec::new(), |value| {
        source_keys(value, name, sources, problems)
    });
    let confidence = confidence.and_then(|value| {
        let tag = value.get_ref().as_str().and_then(Confidence::from_tag);
        if tag.is_none() {
            let message = format!("the confidence of `{name}` must be T, T2, M, I or P");
            problems.push((error::UNKNOWN_CONFIDENCE, value.span(), message));
        }
        tag
    });
    let note = note.and_then(|value| {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            let message = format!("the note of `{name}` must be text");
            problems.push((error::WRONG_TYPE, value.span(), message));
        }
        text
    });
    if problems.len() > before {
        return None;
    }
    Some(Figure {
        value: value?,
        sources: source_keys,
        confidence: confidence?,
        note,
    })
}

/// One key, or a list of them; all must be known.
fn source_keys(
    value: &Value<'_>,
    name: &str,
    sources: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let items: Vec<&Value<'_>> = match value.get_ref() {
        DeValue::Array(array) if !array.is_empty() => array.iter().collect(),
        _ => vec![value],
    };
    let mut keys = Vec::new();
    for item in items {
        match item.get_ref().as_str() {
            None => {
                let message =
                    format!("the source of `{name}` must be a key of [sources], or several");
                problems.push((error::WRONG_TYPE, item.span(), message));
            }
            Some(key) if !sources.contains_key(key) => {
                let known: Vec<&str> = sources.keys().map(String::as_str).collect();
                let message = format!(
                    "source `{key}` of `{name}` is not in [sources], which has: {}",
                    known.join(", ")
                );
                problems.push((error::UNKNOWN_SOURCE, item.span(), message));
            }
            Some(key) => keys.push(key.to_owned()),
        }
    }
    keys
}

fn unknown_keys(table: &DeTable<'_>, known: &[&str], place: &str) -> Vec<Problem> {
    table
        .keys()
        .filter(|key| !known.contains(&key.get_ref().as_ref()))
        .map(|key| {
            let message = format!(
                "{place} has no key `{}`; it has: {}",
                key.get_ref(),
                known.join(", ")
            );
            (error::UNKNOWN_KEY, key.span(), message)
        })
        .collect()
}

fn small_integer(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn sites(value: &DeValue<'_>) -> Option<Vec<(u32, u32)>> {
    value
        .as_array()?
        .iter()
        .map(|site| {
            let site = site.get_ref().as_array().filter(|pair| pair.len() == 2)?;
            Some((
                small_integer(site.first()?.get_ref())?,
                small_integer(site.get(1)?.get_ref())?,
            ))
        })
        .collect()
}
