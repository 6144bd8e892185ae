//! Errors of the facade: diagnostics sorted by whose fault they are.

use std::sync::Arc;

use dojoc_compiler::io::{IoError, code as io_code};
use dojoc_ir::codes as ir_codes;
use dojoc_ir::diag::{Code, Diagnostic, Diagnostics, Kind};

use crate::codes;

/// The result of the facade's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A text that diagnostics have places in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Name of the file.
    pub name: String,
    /// Contents.
    pub text: String,
}

/// Diagnostics with the text that they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problems {
    /// All problems of one input, in its order.
    pub diagnostics: Diagnostics,
    /// The text that places refer to, if the input was one.
    pub source: Option<Arc<SourceText>>,
    /// The IR that a defect left behind.
    pub dump: Option<Arc<SourceText>>,
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.diagnostics.fmt(f)
    }
}

/// Why something was not done. The variants say whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user's input is wrong.
    #[error("{0}")]
    Input(Problems),
    /// The input may be right, but dojoc cannot handle it.
    #[error("{0}")]
    Unsupported(Problems),
    /// A limit is exceeded.
    #[error("{0}")]
    Limit(Problems),
    /// Values differ from a reference.
    #[error("{0}")]
    Mismatch(Problems),
    /// Stopped from outside.
    #[error("{0}")]
    Cancelled(Problems),
    /// dojoc has a defect.
    #[error("{0}")]
    Bug(Problems),
}

impl Error {
    /// The error for some problems, by the gravest of their kinds.
    pub fn new(diagnostics: Diagnostics, source: Option<Arc<SourceText>>) -> Self {
        let any = |test: &dyn Fn(&Diagnostic) -> bool| diagnostics.0.iter().any(test);
        let wrap = if any(&|d| d.kind == Kind::Bug) {
            Error::Bug
        } else if any(&|d| d.code.0 == ir_codes::CANCELLED) {
            Error::Cancelled
        } else if any(&|d| d.kind == Kind::Input && d.code.0 != codes::VALUES_DIFFER) {
            Error::Input
        } else if any(&|d| d.kind == Kind::Unsupported) {
            Error::Unsupported
        } else if any(&|d| d.kind == Kind::Limit) {
            Error::Limit
        } else {
            Error::Mismatch
        };
        wrap(Problems {
            diagnostics,
            source,
            dump: None,
        })
    }

    /// The same with the IR that pass `pass` left behind.
    pub(crate) fn with_dump(mut self, pass: &str, text: String) -> Self {
        let dump = SourceText {
            name: format!("{pass}.dojo"),
            text,
        };
        match &mut self {
            Error::Input(p)
            | Error::Unsupported(p)
            | Error::Limit(p)
            | Error::Mismatch(p)
            | Error::Cancelled(p)
            | Error::Bug(p) => p.dump = Some(Arc::new(dump)),
        }
        self
    }

    /// The error for one problem without a text.
    pub fn one(diagnostic: Diagnostic) -> Self {
        Self::new(diagnostic.into(), None)
    }

    /// An error in the user's input.
    pub(crate) fn input(code: u16, message: impl Into<String>) -> Self {
        Self::one(Diagnostic::input(code, message))
    }

    /// The diagnostics with the text that they are about.
    pub fn problems(&self) -> &Problems {
        match self {
            Error::Input(p)
            | Error::Unsupported(p)
            | Error::Limit(p)
            | Error::Mismatch(p)
            | Error::Cancelled(p)
            | Error::Bug(p) => p,
        }
    }

    /// All problems, in order of the input.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.problems().diagnostics.0
    }

    /// The code of the first problem of the gravest kind.
    pub fn code(&self) -> Code {
        let kind = match self {
            Error::Input(_) | Error::Mismatch(_) | Error::Cancelled(_) => Kind::Input,
            Error::Unsupported(_) => Kind::Unsupported,
            Error::Limit(_) => Kind::Limit,
            Error::Bug(_) => Kind::Bug,
        };
        let mut all = self.diagnostics().iter();
        let first = all.clone().next();
        let gravest = all.find(|d| d.kind == kind).or(first);
        gravest.map_or(Code(codes::INTERNAL), |d| d.code)
    }

    /// What the command line ends with: 1 input, 3 limit, 4 unsupported, 5 values differ, 70 our
    /// defect, 130 stopped.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Input(_) => 1,
            Error::Limit(_) => 3,
            Error::Unsupported(_) => 4,
            Error::Mismatch(_) => 5,
            Error::Bug(_) => 70,
            Error::Cancelled(_) => 130,
        }
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::new(diagnostics, None)
    }
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::one(diagnostic)
    }
}

impl From<Box<Diagnostic>> for Error {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self::one(*diagnostic)
    }
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        Self::one(io_diagnostic(&error))
    }
}

/// A failed read or write as a diagnostic.
pub(crate) fn io_diagnostic(error: &IoError) -> Diagnostic {
    let kind = match error.code {
        io_code::UNSUPPORTED_DTYPE | io_code::NPY_DTYPE => Kind::Unsupported,
        _ => Kind::Input,
    };
    let message = match &error.path {
        Some(path) => format!("{}: {}", path.display(), error.message),
        None => error.message.clone(),
    };
    let diagnostic = Diagnostic::new(error.code, kind, message);
    match &error.help {
        Some(help) => diagnostic.help(help.clone()),
        None => diagnostic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_kind_decides() {
        let of = |kinds: &[Kind]| {
            let all = kinds.iter().map(|k| Diagnostic::new(*k as u16, *k, ""));
            Error::from(Diagnostics(all.collect()))
        };
        use Kind::{Bug, Input, Limit, Unsupported};
        assert_eq!(of(&[Unsupported, Limit]).exit_code(), 4);
        assert_eq!(of(&[Unsupported, Input]).exit_code(), 1);
        assert_eq!(of(&[Input, Bug]).exit_code(), 70);
        assert_eq!(of(&[Input, Bug]).code(), Code(Bug as u16));
        assert_eq!(of(&[Limit]).exit_code(), 3);
        let differ = Error::input(codes::VALUES_DIFFER, "");
        assert_eq!(differ.exit_code(), 5);
        let cancelled = Error::input(ir_codes::CANCELLED, "");
        assert_eq!(cancelled.exit_code(), 130);
    }
}
