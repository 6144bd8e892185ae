//! Drives the stages: tokens, outline, one LR parse per unit, and the lists that tie them together.

use lalrpop_util::ParseError;

use crate::builder::Builder;
use crate::error::{self, Errors, SyntaxError};
use crate::generated::UnitParser;
use crate::outline::{Outline, Unit, outline};
use crate::text;
use crate::token::{Lexed, Tok, Token, lex};
use crate::tree::{Body, List, Tree};

/// What [`parse`] returns.
#[derive(Debug)]
pub struct Parsed {
    /// The tree; complete when there are no errors, otherwise what could be read.
    pub tree: Tree,
    /// All errors, in the order of their places.
    pub errors: Vec<SyntaxError>,
}

/// Reads a whole file. Never fails outright: all errors are in the result, at most
/// [`MAX_ERRORS`](crate::MAX_ERRORS) and a note.
pub fn parse(source: &str) -> Parsed {
    let (parsed, _) = parse_tokens(source);
    parsed
}

/// As [`parse`], with what the formatter needs beside the tree.
pub(crate) fn parse_tokens(source: &str) -> (Parsed, Option<(Lexed, Outline)>) {
    let mut errors = Errors::default();
    if !check_length(source.len(), &mut errors) {
        let errors = errors.finish(Errors::default());
        return (
            Parsed {
                tree: Tree::default(),
                errors,
            },
            None,
        );
    }
    let mut lexed = lex(source, &mut errors);
    let mut bracket_errors = Errors::default();
    let outline = outline(&mut lexed.tokens, &mut bracket_errors);
    let mut builder = Builder::new(source, bracket_errors);
    if let Some(outline) = &outline {
        read_units(&mut builder, &lexed.tokens, outline);
    }
    let parsed = Parsed {
        tree: builder.tree,
        errors: errors.finish(builder.errors),
    };
    (parsed, outline.map(|outline| (lexed, outline)))
}

fn check_length(len: usize, errors: &mut Errors) -> bool {
    let fits = u32::try_from(len).is_ok();
    if !fits {
        errors.push(
            error::TOO_LONG,
            0..0,
            format!("a text of {len} bytes is too long"),
        );
    }
    fits
}

/// Reads every unit of every body, then replaces the indices of bodies by lists of nodes.
fn read_units(b: &mut Builder, tokens: &[Token], outline: &Outline) {
    let parser = UnitParser::new();
    let mut input = Vec::new();
    let mut lists = Vec::with_capacity(outline.bodies.len());
    for (index, body) in outline.bodies.iter().enumerate() {
        let pool = |tree: &Tree| {
            if body.stmts {
                tree.stmts.len()
            } else {
                tree.decls.len()
            }
        };
        let start = pool(&b.tree);
        let mut units = &body.units[..];
        if index == 0 {
            units = read_header(b, &parser, tokens, outline, units);
        }
        for &unit in units {
            let start = if body.stmts {
                Tok::StartStmt
            } else {
                Tok::StartDecl
            };
            read_unit(b, &parser, tokens, outline, unit, start, &mut input);
        }
        lists.push((start, pool(&b.tree) - start));
    }
    // Body 0 is the file, so index 0 in a node means braces with nothing between them.
    let list = |index: u32| {
        if index == 0 {
            (0, 0)
        } else {
            lists[index as usize]
        }
    };
    for region in &mut b.tree.regions {
        let (start, len) = list(region.stmts.start());
        region.stmts = List::new(start, len);
    }
    for decl in &mut b.tree.decls {
        match &mut decl.body {
            Body::None => {}
            Body::Decls(decls) => {
                let (start, len) = list(decls.start());
                *decls = List::new(start, len);
            }
            Body::Func(func) => {
                let (start, len) = list(func.stmts.start());
                func.stmts = List::new(start, len);
            }
        }
    }
    let (start, len) = lists.first().copied().unwrap_or_default();
    b.tree.items = List::new(start, len);
}

/// Reads the header and returns the units after it.
fn read_header<'u>(
    b: &mut Builder,
    parser: &UnitParser,
    tokens: &[Token],
    outline: &Outline,
    units: &'u [Unit],
) -> &'u [Unit] {
    let first = units
        .first()
        .and_then(|unit| Some((*unit, tokens.get(unit.first as usize)?)));
    let help = "a file starts with its level and version: `dojo graph 1`";
    match first {
        Some((unit, token)) if token.tok == Tok::Dojo => {
            read_unit(
                b,
                parser,
                tokens,
                outline,
                unit,
                Tok::StartHeader,
                &mut Vec::new(),
            );
            &units[1..]
        }
        _ => {
            let span = first.map_or(0..0, |(_, token)| token.range());
            let message = "the file does not start with a header";
            b.errors
                .push_help(error::BAD_HEADER, span, message, Some(help));
            units
        }
    }
}

/// Reads one unit with the start symbol that `start` selects.
fn read_unit(
    b: &mut Builder,
    parser: &UnitParser,
    tokens: &[Token],
    outline: &Outline,
    unit: Unit,
    start: Tok,
    input: &mut Vec<(u32, Tok, u32)>,
) {
    if b.errors.is_full() {
        return;
    }
    input.clear();
    b.bodies.clear();
    b.bodies_used = 0;
    let at = tokens[unit.first as usize].start;
    input.push((at, start, at));
    // The bodies around the unit start no later than it does, those inside it start later.
    let mut body = 1 + outline.bodies[1..].partition_point(|body| body.first <= unit.first);
    let mut i = unit.first;
    loop {
        if let Some(next) = outline.bodies.get(body)
            && next.first == i
        {
            let at = tokens[i as usize - 1].end;
            input.push((at, Tok::Body, at));
            b.bodies.push(body as u32);
            i = next.end;
            body = next.next as usize;
        }
        if i >= unit.end {
            break;
        }
        let token = tokens[i as usize];
        if token.tok == Tok::Bad {
            // Reported already; guessing what stands around it would only add noise.
            return;
        }
        input.push((token.start, token.tok, token.end));
        i += 1;
    }
    let result = parser.parse(b, input.iter().copied());
    if let Err(error) = result {
        let (found, expected) = match error {
            ParseError::UnrecognizedToken { token, expected } => (Some(token), expected),
            ParseError::UnrecognizedEof { expected, .. } => (None, expected),
            ParseError::InvalidToken { location } => {
                (Some((location, Tok::Bad, location)), Vec::new())
            }
            ParseError::ExtraToken { token } => (Some(token), Vec::new()),
            ParseError::User { error } => match error {},
        };
        let next = tokens.get(unit.end as usize).copied();
        report(b, start, input, found, next, &expected);
    }
}

/// Turns an error of the LR parser into a message in the user's words.
fn report(
    b: &mut Builder,
    start: Tok,
    input: &[(u32, Tok, u32)],
    found: Option<(u32, Tok, u32)>,
    next: Option<Token>,
    expected: &[String],
) {
    let what = match start {
        Tok::StartHeader => "header",
        Tok::StartDecl => "declaration",
        _ => "statement",
    };
    let wanted = describe_expected(expected);
    let quoted = |from: u32, to: u32| {
        format!(
            "`{}`",
            text::shorten(&b.tree.source[from as usize..to as usize])
        )
    };
    let (code, span, message) = match found {
        Some((from, Tok::Body, _)) => {
            let message = format!("expected {wanted}, found the braces of a body");
            (error::UNEXPECTED_TOKEN, from..from, message)
        }
        Some((from, _, to)) => {
            let message = format!("expected {wanted}, found {}", quoted(from, to));
            (error::UNEXPECTED_TOKEN, from..to, message)
        }
        None => {
            let end = input.last().map_or(0, |last| last.2);
            let after = match next {
                Some(next) => format!("found {}", quoted(next.start, next.end)),
                None => "found the end of the file".to_owned(),
            };
            let message = format!("this {what} is incomplete: expected {wanted}, {after}");
            // The last token is shown, for nothing of the unit stands behind it.
            let from = input.last().map_or(end, |last| last.0);
            (error::INCOMPLETE, from..end, message)
        }
    };
    let code = if start == Tok::StartHeader {
        error::BAD_HEADER
    } else {
        code
    };
    let help = match (start, found.map(|f| f.1)) {
        (Tok::StartHeader, _) => Some("a file starts with its level and version: `dojo graph 1`"),
        (_, Some(Tok::RParen | Tok::RBracket | Tok::RBrace))
            if input
                .iter()
                .zip(input.iter().skip(1))
                .any(|(a, z)| a.1 == Tok::Comma && Some(*z) == found) =>
        {
            Some("no comma stands after the last entry")
        }
        (Tok::StartStmt, _) if expected.iter().any(|e| e == "\"^\"") => {
            Some("a region starts with its parameters: `{ ^(%x : f32[2]) ... }` or `{ ^() ... }`")
        }
        _ => None,
    };
    b.errors.push_help(code, span, message, help);
}

/// Words for a set of tokens of the grammar.
fn describe_expected(expected: &[String]) -> String {
    let has = |name: &str| expected.iter().any(|e| e.trim_matches('"') == name);
    let mut words: Vec<&str> = Vec::new();
    let mut covered: &[&str] = &[];
    if has("INT") && has("STRING") && has("[") {
        words.push("a value");
        covered = &[
            "INT",
            "FLOAT",
            "NON_FINITE",
            "FLOAT_BITS",
            "STRING",
            "IDENT",
            "VALUE",
            "SYMBOL",
            "true",
            "false",
            "[",
            "{",
            "(",
            "-",
        ];
    } else if has("STRING") && has("aliases") {
        words.push("an attribute name");
        covered = &[
            "STRING",
            "IDENT",
            "dojo",
            "loc",
            "aliases",
            "true",
            "false",
            "NON_FINITE",
        ];
    }
    let operators = ["<=", "+", "-", "*", "/"];
    let infix = has("*") && has("/");
    if infix {
        words.push("an operator");
    }
    for name in expected.iter().map(|e| e.trim_matches('"')) {
        if covered.contains(&name) || infix && operators.contains(&name) {
            continue;
        }
        let word = match name {
            "STRING" => "a string",
            "INT" => "an integer",
            "IDENT" => "a word",
            "VALUE" => "a value `%name`",
            "DEF" => "a result `%name =`",
            "SYMBOL" => "a symbol `@name`",
            "BODY" => "statements",
            "header:" | "decl:" | "stmt:" => continue,
            "dojo" => "`dojo`",
            "loc" => "`loc`",
            "aliases" => "`aliases`",
            "," => "`,`",
            ":" => "`:`",
            "=" => "`=`",
            "(" => "`(`",
            ")" => "`)`",
            "[" => "`[`",
            "]" => "`]`",
            "{" => "`{`",
            "}" => "`}`",
            "^" => "`^`",
            "@" => "`@`",
            "->" => "`->`",
            "<=" => "`<=`",
            _ => "something else",
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    match words.split_last() {
        None => "the next statement or declaration".to_owned(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_limited() {
        let mut errors = Errors::default();
        assert!(check_length(u32::MAX as usize, &mut errors));
        assert!(!check_length(u32::MAX as usize + 1, &mut errors));
        let errors = errors.finish(Errors::default());
        assert_eq!(
            errors.iter().map(|e| e.code).collect::<Vec<_>>(),
            [error::TOO_LONG]
        );
    }
}
