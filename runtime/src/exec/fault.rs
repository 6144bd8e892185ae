//! What ends a stream early.

use dojoc_ir::diag::{Diagnostic, Kind};

use crate::codes;

/// Why an instruction could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub code: u16,
    pub kind: Kind,
    pub message: String,
    pub notes: Vec<String>,
}

impl Fault {
    /// Data that an instruction cannot compute with.
    pub(super) fn data(message: impl Into<String>) -> Self {
        Self {
            code: codes::DATA_FAULT,
            kind: Kind::Input,
            message: message.into(),
            notes: Vec::new(),
        }
    }

    pub(super) fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            kind: Kind::Input,
            message: message.into(),
            notes: Vec::new(),
        }
    }

    pub(super) fn diagnostic(&self) -> Diagnostic {
        let mut diagnostic = Diagnostic::new(self.code, self.kind, self.message.clone());
        diagnostic.notes.clone_from(&self.notes);
        diagnostic
    }
}

impl From<Diagnostic> for Fault {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            code: diagnostic.code.0,
            kind: diagnostic.kind,
            message: diagnostic.message,
            notes: diagnostic.notes,
        }
    }
}

/// What the verifier refuses.
#[cold]
pub(super) fn unverified(message: &str) -> Fault {
    Fault::new(codes::UNVERIFIED, message)
}
