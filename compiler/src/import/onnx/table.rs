//! The operators that can be imported: domain and name to handlers by version.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use dojoc_ir::diag::Kind;

use super::codes;
use super::node::NodeCx;
use super::ops;
use super::problems::{NodeError, NodeResult};

/// Imports one node.
pub type Handler = fn(&mut NodeCx<'_, '_>) -> NodeResult;

/// An operator with its handlers.
#[derive(Clone, Copy)]
pub struct OpEntry {
    /// Domain; empty for `ai.onnx`.
    pub domain: &'static str,
    /// Name.
    pub name: &'static str,
    /// Handlers with the version of the operator set from which on each applies, ascending.
    pub versions: &'static [(i64, Handler)],
}

/// An operator of `ai.onnx`.
pub const fn onnx(name: &'static str, versions: &'static [(i64, Handler)]) -> OpEntry {
    OpEntry {
        domain: "",
        name,
        versions,
    }
}

/// An operator of another domain.
pub const fn other(
    domain: &'static str,
    name: &'static str,
    versions: &'static [(i64, Handler)],
) -> OpEntry {
    OpEntry {
        domain,
        name,
        versions,
    }
}

type Table = BTreeMap<(&'static str, &'static str), &'static [(i64, Handler)]>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let entries = ops::ALL.iter().copied().flatten();
        entries
            .map(|entry| ((entry.domain, entry.name), entry.versions))
            .collect()
    })
}

/// All operators that can be imported: domain (empty for `ai.onnx`), name, and the versions from
/// which on they differ.
pub fn supported() -> impl Iterator<Item = (&'static str, &'static str, Vec<i64>)> {
    table().iter().map(|((domain, name), versions)| {
        (
            *domain,
            *name,
            versions.iter().map(|(since, _)| *since).collect(),
        )
    })
}

fn describe(name: &str, domain: &str, version: i64) -> String {
    if domain.is_empty() {
        format!("operator {name} (opset {version})")
    } else {
        format!("operator {domain}.{name} (version {version})")
    }
}

/// The handler of an operator: that of the highest version not above `version`.
pub(super) fn find(domain: &str, name: &str, version: i64) -> NodeResult<Handler> {
    let unsupported = |code, what: String| NodeError::new(code, Kind::Unsupported, what).complete();
    let Some(versions) = table().get(&(domain, name)) else {
        let message = format!("{} is not supported", describe(name, domain, version));
        let error = unsupported(codes::BAD_OP, message);
        return Err(match closest(domain, name) {
            Some(help) => error.help(help),
            None => error,
        });
    };
    let found = versions.iter().rev().find(|(since, _)| *since <= version);
    found.map(|(_, handler)| *handler).ok_or_else(|| {
        let first = versions.first().map_or(0, |(since, _)| *since);
        let message = format!("{} is not supported", describe(name, domain, version));
        unsupported(codes::BAD_VERSION, message)
            .help(format!("it is supported from version {first} on"))
    })
}

/// The error for a node whose operator set the model does not import.
pub(super) fn no_opset(name: &str, domain: &str) -> NodeError {
    let message =
        format!("operator {name} is of domain `{domain}`, of which the model imports no version");
    NodeError::new(codes::BAD_OPSET, Kind::Input, message).complete()
}

/// The supported operator whose name is most like `name`.
fn closest(domain: &str, name: &str) -> Option<String> {
    if let Some((other, _)) = table().keys().find(|(d, n)| *n == name && *d != domain) {
        let other = if other.is_empty() { "ai.onnx" } else { other };
        return Some(format!("domain `{other}` has an operator of this name"));
    }
    let names = table().keys().filter(|(d, _)| *d == domain);
    let (distance, best) = names.map(|(_, n)| (edits(name, n), *n)).min()?;
    // Many operators have names that differ in a letter or two; what is meant is a misspelling.
    let close = distance == 0 || (distance == 1 && name.len() > 5);
    close.then(|| format!("the closest supported operator is {best}"))
}

/// Number of single-letter changes between two names, regardless of case.
fn edits(a: &str, b: &str) -> usize {
    // Names in a hostile file may be long; such a name is like no operator.
    if a.len() > 64 {
        return usize::MAX;
    }
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_unique_and_versions_ascend() {
        let count: usize = ops::ALL.iter().map(|list| list.len()).sum();
        assert_eq!(table().len(), count);
        for ((_, name), versions) in table() {
            assert!(!versions.is_empty(), "{name}");
            assert!(versions.windows(2).all(|w| w[0].0 < w[1].0), "{name}");
        }
    }

    #[test]
    fn similar_names_are_found() {
        assert_eq!(edits("Matmul", "MatMul"), 0);
        assert_eq!(edits("Ad", "Add"), 1);
        let NodeError::Problem(problem) = find("", "Identiti", 13).unwrap_err() else {
            panic!("expected a problem");
        };
        assert_eq!(
            problem.help.as_deref(),
            Some("the closest supported operator is Identity")
        );
    }
}
