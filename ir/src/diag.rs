//! Diagnostics: what is wrong, whose fault it is, where, and what would help.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A stable error code, printed as `D` and four digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "D{:04}", self.0)
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// The user's input is wrong.
    Input,
    /// The input may be right, but we cannot handle it.
    Unsupported,
    /// A limit is exceeded.
    Limit,
    /// We are wrong.
    Bug,
}

/// Where an error is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Bytes of the text that was parsed.
    Span(Range<usize>),
    /// A node of the user's model.
    Node(Arc<Loc>),
}

/// Where an op comes from: survives every later level, so that a message about one core still
/// names the layer of the user's model.
#[derive(
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Loc {
    /// Name of the node, or of its first output where it has none.
    pub name: Arc<str>,
    /// File it comes from; empty if unknown.
    pub file: Arc<str>,
    /// Position in the file: the node's index, or a line; 0 if unknown.
    pub line: u32,
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.file.is_empty() {
            write!(f, " ({}:{})", self.file, self.line)?;
        }
        Ok(())
    }
}

/// One error or warning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// Stable code; `dojoc explain` prints its long form.
    pub code: Code,
    /// Whose fault it is.
    pub kind: Kind,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// Further facts, a line each.
    pub notes: Vec<String>,
    /// What would help.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without place and help.
    pub fn new(code: u16, kind: Kind, message: impl Into<String>) -> Self {
        Self {
            code: Code(code),
            kind,
            message: message.into(),
            place: None,
            notes: vec![],
            help: None,
        }
    }

    /// An error in the user's input.
    pub fn input(code: u16, message: impl Into<String>) -> Self {
        Self::new(code, Kind::Input, message)
    }

    /// The same with a place.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same with a place in the parsed text.
    pub fn at_span(self, span: Range<usize>) -> Self {
        self.at(Place::Span(span))
    }

    /// The same with a further fact.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match &self.place {
            Some(Place::Node(loc)) => write!(f, "\n  at {loc}")?,
            Some(Place::Span(span)) => write!(f, "\n  at bytes {}..{}", span.start, span.end)?,
            None => {}
        }
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// All problems of one input.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds a diagnostic.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// `value` if there is no diagnostic.
    ///
    /// # Errors
    /// The diagnostics, if there are any.
    pub fn ok<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            write!(f, "{}{diagnostic}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A code with its title and long form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeInfo {
    /// The code's number.
    pub code: u16,
    /// One line.
    pub title: &'static str,
    /// What it means, how it comes about, and what to do.
    pub explanation: &'static str,
}
