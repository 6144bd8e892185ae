//! Syntax errors and their codes.

use std::ops::Range;

/// One problem found while reading a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Stable number of the kind of problem: 10 is printed as `D0010`. Listed in [`CODES`].
    pub code: u16,
    /// Byte range of the source that the message is about; may be empty at the end of the file.
    pub span: Range<u32>,
    /// What is wrong, in one sentence without a final stop.
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
}

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "D{:04} at byte {}: {}",
            self.code, self.span.start, self.message
        )
    }
}

impl std::error::Error for SyntaxError {}

/// At most this many errors of one text are reported; a last entry with code D0014 says that
/// more were left out.
pub const MAX_ERRORS: usize = 100;

pub(crate) const UNEXPECTED_CHAR: u16 = 1;
pub(crate) const UNTERMINATED_STRING: u16 = 2;
pub(crate) const BAD_ESCAPE: u16 = 3;
pub(crate) const BAD_NUMBER: u16 = 4;
pub(crate) const NUMBER_RANGE: u16 = 5;
pub(crate) const BAD_NAME: u16 = 6;
pub(crate) const UNCLOSED: u16 = 7;
pub(crate) const STRAY_CLOSER: u16 = 8;
pub(crate) const TOO_DEEP: u16 = 9;
pub(crate) const UNEXPECTED_TOKEN: u16 = 10;
pub(crate) const INCOMPLETE: u16 = 11;
pub(crate) const BAD_HEADER: u16 = 12;
pub(crate) const DUPLICATE_KEY: u16 = 13;
pub(crate) const TOO_MANY: u16 = 14;
pub(crate) const TOO_LONG: u16 = 15;

/// Every code of this crate: number, one-line title, long explanation.
pub const CODES: &[(u16, &str, &str)] = &[
    (
        UNEXPECTED_CHAR,
        "unexpected character",
        "The text contains a character that begins no token. Outside strings and comments only \
         ASCII letters, digits and the punctuation of GRAMMAR.md are used; a name with other \
         characters is written in quotes, as in %\"größe\". Comments start with // and run to the \
         end of the line; there are no block comments.",
    ),
    (
        UNTERMINATED_STRING,
        "string without a closing quote",
        "A string or quoted name must end on the line on which it starts. Write a line break \
         inside it as \\n.",
    ),
    (
        BAD_ESCAPE,
        "unknown escape in a string",
        "The escapes are \\\" \\\\ \\n \\r \\t \\0 and \\u{X} with one to six hexadecimal digits that \
         name a Unicode scalar value.",
    ),
    (
        BAD_NUMBER,
        "malformed number",
        "Numbers are decimal integers (42), hexadecimal integers (0x2a), decimal floats (1.5, \
         2e-3), inf, nan, and exact bit patterns of floats (0f followed by 2, 4, 8 or 16 \
         hexadecimal digits). A digit is required on both sides of the decimal point.",
    ),
    (
        NUMBER_RANGE,
        "number out of range",
        "Integers lie between -2^63 and 2^64-1, decimal floats must not exceed the largest finite \
         64-bit float, and value numbers such as %12, line numbers and the version fit 32 bits. \
         Numbers never wrap around.",
    ),
    (
        BAD_NAME,
        "malformed name",
        "A value is % and a name, a number or a quoted name; a symbol is @ and a name or a quoted \
         name. A bare name starts with a letter or underscore and goes on with letters, digits, \
         _ and $, in parts joined by single dots. Everything else is quoted: %\"conv/1:0\". A \
         number has no leading zeros: %7, not %007.",
    ),
    (
        UNCLOSED,
        "bracket is never closed",
        "A (, [ or { has no partner, or the bracket that follows closes an outer one first. The \
         message points at the opening bracket.",
    ),
    (
        STRAY_CLOSER,
        "closing bracket without an opening one",
        "A ), ] or } closes nothing that is open at this place.",
    ),
    (
        TOO_DEEP,
        "nested too deeply",
        "Brackets may be nested 1,000 levels deep, and so may the operators of one expression. \
         Deeper input is not read any further.",
    ),
    (
        UNEXPECTED_TOKEN,
        "unexpected token",
        "At this place of a statement or declaration something else must stand; the message names \
         what was found and what would fit. Reading goes on with the next statement.",
    ),
    (
        INCOMPLETE,
        "statement or declaration ends too early",
        "A statement or declaration stops before it is complete. The message names what is missing \
         and what follows instead.",
    ),
    (
        BAD_HEADER,
        "missing or malformed header",
        "A file starts with its level and the version of that level's text form, as in: dojo graph 1",
    ),
    (
        DUPLICATE_KEY,
        "attribute given twice",
        "The keys of one attribute dictionary must differ.",
    ),
    (
        TOO_MANY,
        "too many errors",
        "The text has more errors than are reported at once. Correct the first ones and try again.",
    ),
    (
        TOO_LONG,
        "text too long",
        "A text may be at most 4 GiB - 1 bytes long. Large constants belong in a file beside it, \
         which the text refers to.",
    ),
];

/// Collects the errors of one stage, at most one more than are reported.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<SyntaxError>);

impl Errors {
    pub(crate) fn push(&mut self, code: u16, span: Range<u32>, message: impl Into<String>) {
        self.push_help(code, span, message, None);
    }

    pub(crate) fn push_help(
        &mut self,
        code: u16,
        span: Range<u32>,
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        if !self.is_full() {
            let help = help.map(str::to_owned);
            self.0.push(SyntaxError {
                code,
                span,
                message: message.into(),
                help,
            });
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() > MAX_ERRORS
    }

    /// Orders the errors by place and cuts the list at [`MAX_ERRORS`], adding the final note.
    pub(crate) fn finish(mut self, others: Errors) -> Vec<SyntaxError> {
        self.0.extend(others.0);
        let mut all = self.0;
        all.sort_by_key(|e| (e.span.start, e.span.end, e.code));
        if all.len() > MAX_ERRORS {
            all.truncate(MAX_ERRORS);
            let span = all.last().map_or(0..0, |e| e.span.clone());
            all.push(SyntaxError {
                code: TOO_MANY,
                span,
                message: format!("only the first {MAX_ERRORS} errors are shown"),
                help: None,
            });
        }
        all
    }
}
