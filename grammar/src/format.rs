//! The canonical layout: one statement or declaration a line, two spaces per body, long lines
//! wrapped, comments kept.
//!
//! The printer walks the tokens of a text without errors, so every name, number and string comes
//! out as it was written. The outline says where units and bodies begin; everything else follows
//! from pairs of neighbouring tokens. Output depends only on the tokens, on the comments and on
//! whether a comment shares a line with what precedes it, all of which the output keeps: hence
//! formatting twice changes nothing.

use crate::SyntaxError;
use crate::outline::Outline;
use crate::parse::parse_tokens;
use crate::token::{Lexed, Tok, Token};

/// Lines longer than this many characters are wrapped where a comma or clause allows it.
pub const WIDTH: usize = 100;

/// The canonical text of a file. Comments stay, between declarations and statements at most one
/// blank line stays, names and literals are kept as written. Formatting the result changes nothing.
///
/// # Errors
/// The syntax errors of `source`; a text with errors is not formatted.
pub fn format(source: &str) -> Result<String, Vec<SyntaxError>> {
    match parse_tokens(source) {
        (parsed, Some((lexed, outline))) if parsed.errors.is_empty() => {
            Ok(Formatter::new(source, &lexed, &outline).run())
        }
        (parsed, _) => Err(parsed.errors),
    }
}

/// What the outline says about a token.
#[derive(Clone, Copy, Default)]
struct Mark {
    starts_unit: bool,
    /// That unit is a declaration.
    declares: bool,
    opens_body: bool,
    /// Closes a body; with whether that body has units.
    closes_body: Option<bool>,
}

/// An open bracket of the line being built or of a statement around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Plain,
    Loc,
    Regions,
    Body,
}

/// A piece of a logical line.
struct Item<'s> {
    piece: Piece<'s>,
    /// How many brackets of the line are open around it.
    level: usize,
}

enum Piece<'s> {
    Text(&'s str),
    Space,
    /// A space or a line break; `size` is how far the text runs that must fit if it stays a space.
    Break {
        size: usize,
    },
    /// A comment, after which the line must break; `own` if it does not share a line.
    Comment {
        text: &'s str,
        own: bool,
    },
}

struct Formatter<'s> {
    source: &'s str,
    tokens: &'s [Token],
    comments: &'s [Token],
    marks: Vec<Mark>,
    brackets: Vec<Bracket>,
    line: Vec<Item<'s>>,
    /// Indentation of `line`, in steps.
    line_indent: usize,
    /// Whether `line` belongs to a declaration.
    in_decl: bool,
    /// Brackets that are open in `line`.
    level: usize,
    indent: usize,
    /// Nothing was printed yet in the innermost body, so no blank line may come.
    block_start: bool,
    out: String,
}

impl<'s> Formatter<'s> {
    fn new(source: &'s str, lexed: &'s Lexed, outline: &Outline) -> Self {
        let mut marks = vec![Mark::default(); lexed.tokens.len()];
        for (index, body) in outline.bodies.iter().enumerate() {
            for unit in &body.units {
                marks[unit.first as usize].starts_unit = true;
                marks[unit.first as usize].declares = !body.stmts;
            }
            if index > 0 {
                marks[body.first as usize - 1].opens_body = true;
                marks[body.end as usize].closes_body = Some(!body.units.is_empty());
            }
        }
        Formatter {
            source,
            tokens: &lexed.tokens,
            comments: &lexed.comments,
            marks,
            brackets: Vec::new(),
            line: Vec::new(),
            line_indent: 0,
            in_decl: false,
            level: 0,
            indent: 0,
            block_start: true,
            out: String::with_capacity(source.len()),
        }
    }

    fn run(mut self) -> String {
        let mut comments = self.comments.iter().peekable();
        let mut last_end = 0;
        for (i, token) in self.tokens.iter().enumerate() {
            let mark = self.marks[i];
            let closes_regions =
                token.tok == Tok::RParen && self.brackets.last() == Some(&Bracket::Regions);
            let opens_region =
                token.tok == Tok::LBrace && self.brackets.last() == Some(&Bracket::Regions);
            let comment_first = comments.peek().is_some_and(|c| c.start < token.start);
            let new_line = mark.starts_unit
                || opens_region
                || closes_regions
                || mark
                    .closes_body
                    .is_some_and(|has_units| has_units || comment_first);
            while let Some(comment) = comments.next_if(|c| c.start < token.start) {
                self.comment(*comment, last_end, i > 0, new_line);
                last_end = comment.end;
            }
            if new_line {
                self.end_line();
                if mark.starts_unit {
                    self.in_decl = mark.declares;
                    self.blank_line(last_end, token.start);
                }
            }
            if mark.closes_body.is_some() || closes_regions {
                self.indent -= 1;
            }
            self.token(i);
            last_end = token.end;
        }
        for comment in comments {
            self.comment(*comment, last_end, !self.tokens.is_empty(), true);
            last_end = comment.end;
        }
        self.end_line();
        self.out
    }

    fn newlines(&self, from: u32, to: u32) -> usize {
        self.source[from as usize..to as usize]
            .bytes()
            .filter(|&b| b == b'\n')
            .count()
    }

    /// Keeps one blank line where the source has some, except at the start of a body.
    fn blank_line(&mut self, from: u32, to: u32) {
        if !self.block_start && self.newlines(from, to) > 1 {
            self.out.push('\n');
        }
        self.block_start = false;
    }

    fn comment(&mut self, comment: Token, last_end: u32, after_token: bool, line_ends: bool) {
        let own = !after_token || self.newlines(last_end, comment.start) > 0;
        if own && line_ends {
            self.end_line();
            self.blank_line(last_end, comment.start);
        }
        let text = comment.text(self.source).trim_end();
        self.push(Piece::Comment { text, own });
        if own && line_ends {
            self.end_line();
        }
    }

    fn token(&mut self, i: usize) {
        let token = self.tokens[i];
        let regions = self.is_regions(i);
        if !self.line.is_empty() && i > 0 {
            self.gap(i, regions);
        }
        if matches!(token.tok, Tok::RParen | Tok::RBracket | Tok::RBrace) {
            let bracket = self.brackets.pop();
            if matches!(bracket, Some(Bracket::Plain | Bracket::Loc)) {
                self.level = self.level.saturating_sub(1);
            }
        }
        let text = token.text(self.source);
        self.push(Piece::Text(text));
        let opened = match token.tok {
            Tok::LParen if regions => Bracket::Regions,
            Tok::LParen if i > 0 && self.tokens[i - 1].tok == Tok::Loc => Bracket::Loc,
            // A region's brace counts as that of its body, which begins behind the parameters.
            Tok::LBrace if self.marks[i].opens_body || self.next_is(i, Tok::Caret) => Bracket::Body,
            Tok::LParen | Tok::LBracket | Tok::LBrace => Bracket::Plain,
            _ => {
                if self.marks[i].opens_body {
                    self.indent += 1;
                    self.block_start = true;
                }
                return;
            }
        };
        self.brackets.push(opened);
        match opened {
            Bracket::Plain | Bracket::Loc => self.level += 1,
            Bracket::Body if !self.marks[i].opens_body => {}
            Bracket::Body | Bracket::Regions => {
                self.indent += 1;
                self.block_start = true;
            }
        }
    }

    fn push(&mut self, piece: Piece<'s>) {
        if self.line.is_empty() {
            self.line_indent = self.indent;
        }
        self.line.push(Item {
            piece,
            level: self.level,
        });
    }

    fn next_is(&self, i: usize, tok: Tok) -> bool {
        self.tokens.get(i + 1).is_some_and(|t| t.tok == tok)
    }

    /// Whether token `i` opens the regions of a statement.
    fn is_regions(&self, i: usize) -> bool {
        self.tokens[i].tok == Tok::LParen
            && self.next_is(i, Tok::LBrace)
            && self.next_is(i + 1, Tok::Caret)
    }

    /// Adds what stands between token `i` and the one before it.
    fn gap(&mut self, i: usize, regions: bool) {
        use Tok::*;
        let (before, after) = (self.tokens[i - 1].tok, self.tokens[i].tok);
        let operator = |tok| matches!(tok, Plus | Minus | Star | Slash | Le);
        let closes_body = self.marks[i].closes_body.is_some();
        let in_loc = self.brackets.last() == Some(&Bracket::Loc);
        let layout = i > 1 && self.tokens[i - 2].tok == At;
        let breaks = match (before, after) {
            (_, RBrace) if closes_body => false,
            (LBrace, Caret) => false,
            (_, Comma | RParen | RBracket | RBrace) => return,
            (LParen | LBracket | LBrace | Caret, _) => return,
            (Comma, _) => true,
            (Colon, _) | (_, Colon) if in_loc => return,
            // The type of a declaration stays with its symbol, a long initialiser wraps inside.
            (_, Colon) => self.level == 0 && !self.in_decl,
            (Eq | Colon | Arrow, _) | (_, Eq) => false,
            (_, Arrow | Loc) => true,
            (_, LParen) if regions => false,
            (Ident | Symbol | Loc, LParen) | (Ident, LBracket) => return,
            (Ident, LBrace) if layout => return,
            (_, LBrace) => !self.marks[i].opens_body,
            (a, b) if operator(a) || operator(b) => return,
            _ => false,
        };
        let piece = if breaks {
            Piece::Break { size: 0 }
        } else {
            Piece::Space
        };
        self.push(piece);
    }

    /// Lays the collected line out and prints it.
    fn end_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        measure(&mut self.line);
        let base = 2 * self.line_indent;
        let mut column = 0;
        let mut fresh = true;
        let mut commented = false;
        for item in self.line.drain(..) {
            let wrapped = base + 4 + 2 * item.level;
            let start_line = |out: &mut String, fresh: bool| {
                let indent = if fresh { base } else { wrapped };
                if !fresh {
                    out.push('\n');
                }
                out.extend(std::iter::repeat_n(' ', indent));
                indent
            };
            match item.piece {
                Piece::Text(text) => {
                    if fresh || commented {
                        column = start_line(&mut self.out, fresh);
                    }
                    (fresh, commented) = (false, false);
                    self.out.push_str(text);
                    column += text.chars().count();
                }
                Piece::Comment { text, own } => {
                    if fresh || own || commented {
                        column = start_line(&mut self.out, fresh);
                    } else {
                        self.out.push(' ');
                    }
                    (fresh, commented) = (false, true);
                    self.out.push_str(text);
                }
                Piece::Space | Piece::Break { .. } if commented => {}
                Piece::Break { size } if column + size > WIDTH => {
                    column = start_line(&mut self.out, false);
                }
                Piece::Space | Piece::Break { .. } => {
                    self.out.push(' ');
                    column += 1;
                }
            }
        }
        self.out.push('\n');
    }
}

/// Finds for every possible break how much text must fit behind it: all up to the next break that
/// is not inside a bracket opened since, or up to a comment.
fn measure(line: &mut [Item<'_>]) {
    let mut pending: Vec<(usize, usize)> = Vec::new();
    let mut position = 0;
    for i in 0..=line.len() {
        let ends = match line.get(i) {
            Some(Item {
                piece: Piece::Break { .. },
                level,
            }) => *level,
            Some(Item {
                piece: Piece::Comment { .. },
                ..
            })
            | None => 0,
            Some(Item { piece, .. }) => {
                position += match piece {
                    Piece::Text(text) => text.chars().count(),
                    _ => 1,
                };
                continue;
            }
        };
        while let Some(&(at, start)) = pending.last()
            && line[at].level >= ends
        {
            line[at].piece = Piece::Break {
                size: position - start,
            };
            pending.pop();
        }
        if let Some(Item {
            piece: Piece::Break { .. },
            ..
        }) = line.get(i)
        {
            pending.push((i, position));
            position += 1;
        }
    }
}
