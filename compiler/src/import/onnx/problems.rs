//! Collects all problems of a model and reports them grouped by cause.

use std::collections::BTreeMap;
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Loc, Place};
use dojoc_ir::ops::TypeError;

use super::codes;
use crate::io::IoError;

/// Why a node could not be imported.
#[derive(Clone, Debug)]
pub enum NodeError {
    /// An operand failed before and has been reported: nothing is said about this node.
    Poisoned,
    /// A problem of this node.
    Problem(Box<Problem>),
}

/// One cause of failure. Nodes with an equal cause are reported together, so that the message does
/// not name the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable code, one of [`codes::CODES`] or of [`crate::io::CODES`].
    pub code: u16,
    /// Whose fault it is.
    pub kind: Kind,
    /// What is wrong, without the name of the node.
    pub message: String,
    /// What would help, or the closest supported form.
    pub help: Option<String>,
    /// Whether the message names the operator by itself.
    pub complete: bool,
}

/// What a handler gives.
pub type NodeResult<T = ()> = Result<T, NodeError>;

impl NodeError {
    /// A problem of a code and kind.
    pub fn new(code: u16, kind: Kind, message: impl Into<String>) -> Self {
        NodeError::Problem(Box::new(Problem {
            code,
            kind,
            message: message.into(),
            help: None,
            complete: false,
        }))
    }

    /// The model contradicts itself or the specification of the operator.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(codes::BAD_NODE, Kind::Input, message)
    }

    /// The operator is not supported in this form; say what is with [`help`](Self::help).
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(codes::UNSUPPORTED_FORM, Kind::Unsupported, message)
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        if let NodeError::Problem(problem) = &mut self {
            problem.help = Some(help.into());
        }
        self
    }

    /// The same, where the message names the operator by itself.
    pub(super) fn complete(mut self) -> Self {
        if let NodeError::Problem(problem) = &mut self {
            problem.complete = true;
        }
        self
    }

    /// The same about an operator, whose name comes before the message.
    pub(super) fn about(mut self, op: &str) -> Self {
        if let NodeError::Problem(problem) = &mut self
            && !problem.complete
        {
            problem.message = format!("{op}: {}", problem.message);
            problem.complete = true;
        }
        self
    }
}

impl From<TypeError> for NodeError {
    fn from(error: TypeError) -> Self {
        Self::invalid(error.0)
    }
}

impl From<IoError> for NodeError {
    fn from(error: IoError) -> Self {
        let kind = match error.code {
            crate::io::code::UNSUPPORTED_DTYPE => Kind::Unsupported,
            _ => Kind::Input,
        };
        let place = match &error.path {
            Some(path) => format!("{}: ", path.display()),
            None => String::new(),
        };
        let made = Self::new(error.code, kind, format!("{place}{}", error.message)).complete();
        match error.help {
            Some(help) => made.help(help),
            None => made,
        }
    }
}

/// How many places a diagnostic names.
const SHOWN: usize = 3;

struct Group {
    problem: Problem,
    count: usize,
    places: Vec<Arc<Loc>>,
}

/// All problems of a model so far.
#[derive(Default)]
pub(super) struct Problems {
    groups: Vec<Group>,
    by_cause: BTreeMap<(u16, String), usize>,
    single: Vec<Diagnostic>,
}

impl Problems {
    /// Adds the problem of a node. A poisoned node adds nothing.
    pub(super) fn add(&mut self, error: NodeError, place: Option<&Arc<Loc>>) {
        let NodeError::Problem(problem) = error else {
            return;
        };
        let key = (problem.code, problem.message.clone());
        let index = *self.by_cause.entry(key).or_insert_with(|| {
            self.groups.push(Group {
                problem: *problem,
                count: 0,
                places: vec![],
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[index];
        group.count += 1;
        if group.places.len() < SHOWN {
            group.places.extend(place.cloned());
        }
    }

    /// Adds a diagnostic that is not about a node.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.single.push(diagnostic);
    }

    /// Whether there are so many causes that more detail helps nobody.
    pub(super) fn are_many(&self) -> bool {
        self.groups.len() > 256
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.single.is_empty()
    }

    /// One diagnostic per cause: those of the model as a whole, then those of nodes in order of
    /// their first occurrence.
    pub(super) fn into_diagnostics(self) -> Diagnostics {
        let mut diagnostics = Diagnostics(self.single);
        for group in self.groups {
            let Problem {
                code,
                kind,
                mut message,
                help,
                ..
            } = group.problem;
            if group.count > 1 {
                let names: Vec<String> = group
                    .places
                    .iter()
                    .map(|loc| format!("\"{}\"", loc.name))
                    .collect();
                let more = if group.count > names.len() {
                    ", ..."
                } else {
                    ""
                };
                message = format!(
                    "{message}: {} nodes, {}{more}",
                    group.count,
                    names.join(", ")
                );
            }
            let mut diagnostic = Diagnostic::new(code, kind, message);
            if let Some(place) = group.places.into_iter().next() {
                diagnostic = diagnostic.at(Place::Node(place));
            }
            if let Some(help) = help {
                diagnostic = diagnostic.help(help);
            }
            diagnostics.push(diagnostic);
        }
        diagnostics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loc(name: &str) -> Arc<Loc> {
        Arc::new(Loc {
            name: name.into(),
            file: "m.onnx".into(),
            line: 1,
        })
    }

    #[test]
    fn equal_causes_are_one_diagnostic() {
        let mut problems = Problems::default();
        for name in ["a", "b", "c", "d"] {
            problems.add(NodeError::unsupported("no"), Some(&loc(name)));
        }
        problems.add(NodeError::invalid("bad").help("do"), Some(&loc("e")));
        problems.add(NodeError::Poisoned, Some(&loc("f")));
        let text = problems.into_diagnostics().to_string();
        let expected = "D0403: no: 4 nodes, \"a\", \"b\", \"c\", ...\n  at a (m.onnx:1)\n\
                        D0310: bad\n  at e (m.onnx:1)\n  help: do";
        assert_eq!(text, expected);
    }
}
