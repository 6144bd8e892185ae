//! First pass over the tokens: brackets, nesting, and where each statement and declaration begins.
//!
//! The text is cut into *units*, one per statement or declaration, and the LR parser reads one unit
//! at a time; what stands between the braces of a body is a single token to the unit around it.
//! So an error ends with its unit, the LR stack never grows with the nesting of regions, and the
//! cost stays linear. (LALRPOP's own recovery tries every state of the stack for every token it
//! drops, which a hostile file makes quadratic.)
//!
//! The cut needs no grammar: inside brackets units never begin, and outside them a statement or
//! declaration begins exactly where a word follows a finished operand or clause, or at a
//! [`Tok::Def`].

use crate::MAX_NESTING;
use crate::error::{self, Errors};
use crate::token::{Tok, Token};

/// Token range of one statement or declaration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) first: u32,
    pub(crate) end: u32,
}

/// The inside of a pair of braces (of the file for the first one).
#[derive(Debug)]
pub(crate) struct BodyRange {
    /// Token range between the braces, for a region behind its parameters.
    pub(crate) first: u32,
    pub(crate) end: u32,
    /// Index of the first body that does not lie in this one.
    pub(crate) next: u32,
    /// Statements, else declarations.
    pub(crate) stmts: bool,
    pub(crate) units: Vec<Unit>,
}

/// All bodies in the order of their first tokens.
pub(crate) struct Outline {
    pub(crate) bodies: Vec<BodyRange>,
}

/// What an open bracket is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The file or the braces of a body, with its index.
    Body(usize),
    /// `{ ^` whose parameters have not ended yet.
    RegionHead,
    /// Anything else.
    Plain,
}

struct Frame {
    open: usize,
    closer: Tok,
    kind: Kind,
}

struct Scan<'a> {
    tokens: &'a mut [Token],
    bodies: Vec<BodyRange>,
    stack: Vec<Frame>,
    /// Where the stack has bodies.
    body_frames: Vec<usize>,
    /// Open frames by closer, so that a stray closer is found without searching the stack.
    open: [usize; 3],
    /// The last `(` that turned out to be unclosed.
    lost_paren: Option<usize>,
}

/// Finds the outline. Brackets that do not match become [`Tok::Bad`] after they are reported.
/// `None` when the nesting is too deep, which is reported too.
pub(crate) fn outline(tokens: &mut [Token], errors: &mut Errors) -> Option<Outline> {
    let mut scan = Scan {
        tokens,
        bodies: Vec::new(),
        stack: Vec::new(),
        body_frames: Vec::new(),
        open: [0; 3],
        lost_paren: None,
    };
    scan.open_body(0, 0, false);
    for i in 0..scan.tokens.len() {
        let tok = scan.tokens[i].tok;
        let closes = matches!(tok, Tok::RParen | Tok::RBracket | Tok::RBrace);
        if !closes {
            scan.start_unit(i);
        }
        match tok {
            Tok::LParen => scan.push(i, Tok::RParen, Kind::Plain),
            Tok::LBracket => scan.push(i, Tok::RBracket, Kind::Plain),
            Tok::LBrace => scan.open_brace(i, errors),
            _ if closes => scan.close(i, errors),
            _ => {}
        }
        if scan.stack.len() > MAX_NESTING {
            let message = format!("brackets are nested more than {MAX_NESTING} levels deep");
            errors.push(error::TOO_DEEP, scan.tokens[i].range(), message);
            return None;
        }
    }
    while !scan.stack.is_empty() {
        scan.unclosed(scan.tokens.len(), errors);
    }
    scan.end_body(0, scan.tokens.len());
    Some(Outline {
        bodies: scan.bodies,
    })
}

fn slot(closer: Tok) -> usize {
    match closer {
        Tok::RParen => 0,
        Tok::RBracket => 1,
        _ => 2,
    }
}

impl Scan<'_> {
    fn tok(&self, i: usize) -> Option<Tok> {
        self.tokens.get(i).map(|t| t.tok)
    }

    fn push(&mut self, open: usize, closer: Tok, kind: Kind) {
        self.open[slot(closer)] += 1;
        if let Kind::Body(_) = kind {
            self.body_frames.push(self.stack.len());
        }
        self.stack.push(Frame { open, closer, kind });
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.stack.pop()?;
        self.open[slot(frame.closer)] -= 1;
        if let Kind::Body(_) = frame.kind {
            self.body_frames.pop();
        }
        Some(frame)
    }

    /// Adds a body that starts at token `first`; token `open` is its brace.
    fn open_body(&mut self, open: usize, first: usize, stmts: bool) -> Kind {
        debug_assert!(first >= open);
        let first = first as u32;
        self.bodies.push(BodyRange {
            first,
            end: first,
            next: 0,
            stmts,
            units: Vec::new(),
        });
        Kind::Body(self.bodies.len() - 1)
    }

    fn end_body(&mut self, body: usize, end: usize) {
        let next = self.bodies.len() as u32;
        let body = &mut self.bodies[body];
        body.end = end as u32;
        body.next = next;
        if let Some(unit) = body.units.last_mut() {
            unit.end = end as u32;
        }
    }

    /// The body whose units are being cut, if the scan is not inside other brackets.
    fn body_here(&self) -> Option<usize> {
        match self.stack.last().map_or(Kind::Body(0), |frame| frame.kind) {
            Kind::Body(body) => Some(body),
            _ => None,
        }
    }

    fn start_unit(&mut self, i: usize) {
        let Some(body) = self.body_here() else { return };
        let starts = match self.tokens[i].tok {
            Tok::Dojo => true,
            Tok::Def => {
                !(i >= 2
                    && self.tok(i - 1) == Some(Tok::Comma)
                    && self.tok(i - 2) == Some(Tok::Def))
            }
            // The words of a header belong together even when the version is no number.
            Tok::Ident if i >= 2 && self.tokens[i - 2].tok == Tok::Dojo => false,
            Tok::Ident => {
                // A declaration goes on with a symbol. A word with something else behind it is
                // a slip inside a declaration, such as a type without its colon.
                let next = self.tok(i + 1);
                let alone = matches!(next, Some(Tok::Ident | Tok::RBrace | Tok::Bad) | None);
                let fits = self.bodies[body].stmts || alone || next == Some(Tok::Symbol);
                i > 0 && fits && ends_clause(self.tokens[i - 1].tok)
            }
            _ => false,
        };
        let units = &mut self.bodies[body].units;
        if starts || units.is_empty() {
            let i = i as u32;
            if let Some(last) = units.last_mut() {
                last.end = i;
            }
            units.push(Unit { first: i, end: i });
        }
    }

    /// Tells bodies, regions and dictionaries apart.
    fn open_brace(&mut self, i: usize, errors: &mut Errors) {
        let (second, third) = (self.tok(i + 1), self.tok(i + 2));
        if second == Some(Tok::Caret) {
            return self.push(i, Tok::RBrace, Kind::RegionHead);
        }
        // Dictionaries never begin like this, so brackets that are open here were forgotten,
        // unless this is a region without its `^(...)`.
        let surely_body = second == Some(Tok::Def)
            || second == Some(Tok::Ident) && matches!(third, Some(Tok::Value | Tok::Symbol));
        let around = self
            .stack
            .iter()
            .rposition(|f| matches!(f.kind, Kind::Body(_)));
        let in_decls = match around.map_or(Kind::Body(0), |at| self.stack[at].kind) {
            Kind::Body(body) => !self.bodies[body].stmts,
            _ => false,
        };
        if surely_body && in_decls {
            while self.stack.len() > around.map_or(0, |at| at + 1) {
                self.unclosed(i, errors);
            }
        }
        let kind = match self.body_here() {
            Some(body) if !self.bodies[body].stmts => {
                let first = self.bodies[body]
                    .units
                    .last()
                    .map_or(i, |unit| unit.first as usize);
                let stmts = self.tok(first + 2) == Some(Tok::LParen)
                    || self.lost_paren == Some(first + 2)
                    || surely_body && third != Some(Tok::Symbol);
                let attrs = match third {
                    Some(Tok::Eq) => second != Some(Tok::Def),
                    Some(Tok::Colon | Tok::Comma) => !stmts,
                    _ => false,
                };
                if attrs || second == Some(Tok::RBrace) {
                    Kind::Plain
                } else {
                    self.open_body(i, i + 1, stmts)
                }
            }
            _ => Kind::Plain,
        };
        self.push(i, Tok::RBrace, kind);
    }

    fn close(&mut self, i: usize, errors: &mut Errors) {
        let closer = self.tokens[i].tok;
        if self.open[slot(closer)] == 0 {
            let text = bracket(closer);
            let message = format!("`{text}` closes nothing");
            errors.push(error::STRAY_CLOSER, self.tokens[i].range(), message);
            self.tokens[i].tok = Tok::Bad;
            return self.start_unit(i);
        }
        while self
            .stack
            .last()
            .is_some_and(|frame| frame.closer != closer)
        {
            self.unclosed(i, errors);
        }
        let Some(frame) = self.pop() else { return };
        if let Kind::Body(body) = frame.kind {
            self.end_body(body, i);
        }
        // The `)` of a region's parameters: its statements begin.
        if closer == Tok::RParen
            && self
                .stack
                .last()
                .is_some_and(|f| f.kind == Kind::RegionHead && f.open + 2 == frame.open)
        {
            let kind = self.open_body(i, i + 1, true);
            self.body_frames.push(self.stack.len() - 1);
            if let Some(region) = self.stack.last_mut() {
                region.kind = kind;
            }
        }
    }

    /// Gives up the innermost bracket before token `i`.
    fn unclosed(&mut self, i: usize, errors: &mut Errors) {
        let Some(frame) = self.pop() else { return };
        if let Kind::Body(body) = frame.kind {
            self.end_body(body, i);
        }
        if frame.closer == Tok::RParen {
            self.lost_paren = Some(frame.open);
        }
        let message = format!("`{}` is never closed", opener(frame.closer));
        let help = match self.tokens.get(i) {
            Some(next) => format!(
                "`{}` is missing before this `{}`",
                bracket(frame.closer),
                bracket(next.tok)
            ),
            None => format!(
                "`{}` is missing before the end of the file",
                bracket(frame.closer)
            ),
        };
        let token = &mut self.tokens[frame.open];
        errors.push_help(error::UNCLOSED, token.range(), message, Some(&help));
        token.tok = Tok::Bad;
    }
}

/// Whether an operand, a name or a clause may end with this token, so that a word after it begins
/// something new.
fn ends_clause(tok: Tok) -> bool {
    use Tok::*;
    matches!(
        tok,
        Ident
            | Value
            | Symbol
            | Str
            | Int
            | Float
            | NonFinite
            | FloatBits
            | True
            | False
            | RParen
            | RBracket
            | RBrace
            | Bad
    )
}

fn bracket(tok: Tok) -> &'static str {
    match tok {
        Tok::RParen => ")",
        Tok::RBracket => "]",
        Tok::RBrace => "}",
        _ => "{",
    }
}

fn opener(closer: Tok) -> &'static str {
    match closer {
        Tok::RParen => "(",
        Tok::RBracket => "[",
        _ => "{",
    }
}
