//! Tokens: characters to token kinds with byte spans, and the check of every literal.

use logos::Logos;

use crate::error::{self, Errors};
use crate::text;

/// Kind of a token. Its text is found through its span; nothing is copied.
#[derive(Logos, Debug, Clone, Copy, PartialEq, Eq)]
#[logos(skip r"[ \t\r\n\u{FEFF}]+")]
pub(crate) enum Tok {
    #[regex(r"//[^\n]*", allow_greedy = true)]
    Comment,
    #[regex(r#""([^"\\\n]|\\[^\n])*""#)]
    Str,
    #[regex(r#"[%@]?"([^"\\\n]|\\[^\n])*\\?"#)]
    UnterminatedStr,
    #[regex(r"[0-9]+", priority = 10)]
    #[regex(r"0x[0-9a-fA-F]+", priority = 10)]
    Int,
    #[regex(r"[0-9]+\.[0-9]+([eE][+-]?[0-9]+)?", priority = 10)]
    #[regex(r"[0-9]+[eE][+-]?[0-9]+", priority = 10)]
    Float,
    #[token("inf")]
    #[token("nan")]
    NonFinite,
    #[regex(r"0f[0-9a-fA-F]+", priority = 10)]
    FloatBits,
    #[regex(r"[0-9][0-9A-Za-z_$.]*", priority = 1)]
    BadNumber,
    #[regex(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z0-9_$]+)*", priority = 2)]
    Ident,
    #[regex(r"%[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z0-9_$]+)*")]
    #[regex(r"%(0|[1-9][0-9]*)", priority = 10)]
    #[regex(r#"%"([^"\\\n]|\\[^\n])*""#)]
    Value,
    #[regex(r"@[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z0-9_$]+)*")]
    #[regex(r#"@"([^"\\\n]|\\[^\n])*""#)]
    Symbol,
    #[regex(r"[%@][0-9][A-Za-z0-9_$.]*", priority = 1)]
    #[token("%")]
    BadName,
    #[token("dojo")]
    Dojo,
    #[token("loc")]
    Loc,
    #[token("aliases")]
    Aliases,
    #[token("true")]
    True,
    #[token("false")]
    False,
    #[token(",")]
    Comma,
    #[token(":")]
    Colon,
    #[token("=")]
    Eq,
    #[token("(")]
    LParen,
    #[token(")")]
    RParen,
    #[token("[")]
    LBracket,
    #[token("]")]
    RBracket,
    #[token("{")]
    LBrace,
    #[token("}")]
    RBrace,
    #[token("^")]
    Caret,
    #[token("@")]
    At,
    #[token("->")]
    Arrow,
    #[token("<=")]
    Le,
    #[token("+")]
    Plus,
    #[token("-")]
    Minus,
    #[token("*")]
    Star,
    #[token("/")]
    Slash,
    /// A value name that a following `=` defines; told apart from uses by [`mark_definitions`].
    Def,
    /// Stands for all statements or declarations between two braces, which are read on their own.
    Body,
    /// A token that an earlier stage has already complained about.
    Bad,
    /// First token of a unit that is read as the header.
    StartHeader,
    /// First token of a unit that is read as a declaration.
    StartDecl,
    /// First token of a unit that is read as a statement.
    StartStmt,
}

/// A token and the byte range it covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Token {
    pub(crate) fn range(self) -> std::ops::Range<u32> {
        self.start..self.end
    }

    pub(crate) fn text(self, source: &str) -> &str {
        &source[self.start as usize..self.end as usize]
    }
}

/// What the lexer found: the tokens that matter to the grammar, and the comments beside them.
pub(crate) struct Lexed {
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Token>,
}

/// Splits `source` (at most `u32::MAX` bytes) into tokens and reports every malformed one.
pub(crate) fn lex(source: &str, errors: &mut Errors) -> Lexed {
    let mut lexed = Lexed {
        tokens: Vec::with_capacity(source.len() / 4),
        comments: Vec::new(),
    };
    let mut lexer = Tok::lexer(source);
    while let Some(result) = lexer.next() {
        let span = lexer.span();
        let mut token = Token {
            tok: result.unwrap_or(Tok::Bad),
            start: span.start as u32,
            end: span.end as u32,
        };
        match token.tok {
            Tok::Comment => {
                lexed.comments.push(token);
                continue;
            }
            Tok::Bad => {
                // A run of wrong characters is one mistake.
                if let Some(last) = lexed.tokens.last_mut()
                    && last.tok == Tok::Bad
                    && last.end == token.start
                {
                    last.end = token.end;
                    continue;
                }
                let found = token.text(source).escape_debug();
                errors.push(
                    error::UNEXPECTED_CHAR,
                    token.range(),
                    format!("unexpected character `{found}`"),
                );
            }
            _ => check(source, &mut token, errors),
        }
        lexed.tokens.push(token);
    }
    mark_definitions(source, &mut lexed.tokens);
    lexed
}

/// Reports what is wrong inside one token. A token whose kind is not in doubt keeps it, so that the
/// statement around it is still read.
fn check(source: &str, token: &mut Token, errors: &mut Errors) {
    let (range, content) = (token.range(), token.text(source));
    match token.tok {
        Tok::Slash if source[token.end as usize..].starts_with('*') => {
            errors.push_help(
                error::UNEXPECTED_CHAR,
                range,
                "block comments do not exist",
                Some("start each line of the comment with `//`"),
            );
            token.tok = Tok::Bad;
        }
        Tok::UnterminatedStr => {
            errors.push(
                error::UNTERMINATED_STRING,
                range,
                "this quote is not closed on its line",
            );
            token.tok = Tok::Bad;
        }
        Tok::BadNumber => {
            let message = format!("`{content}` is not a number");
            errors.push(error::BAD_NUMBER, range, message);
            token.tok = Tok::Bad;
        }
        Tok::BadName => {
            let message = match content {
                "%" => "`%` must be followed by a name".to_owned(),
                _ => format!("`{content}` is not a name"),
            };
            let help =
                "a name that is not letters, digits, `_`, `$` and inner dots is quoted: `%\"1a\"`";
            errors.push_help(error::BAD_NAME, range, message, Some(help));
            token.tok = Tok::Bad;
        }
        Tok::Int if text::parse_uint(content).is_none() => {
            let message = format!("`{}` exceeds 64 bits", text::shorten(content));
            errors.push(error::NUMBER_RANGE, range, message);
        }
        Tok::Float if content.parse().is_ok_and(f64::is_infinite) => {
            let message = format!("`{}` exceeds the largest float", text::shorten(content));
            errors.push_help(
                error::NUMBER_RANGE,
                range,
                message,
                Some("write `inf` for infinity"),
            );
        }
        Tok::FloatBits if !matches!(content.len() - 2, 2 | 4 | 8 | 16) => {
            errors.push(
                error::BAD_NUMBER,
                range,
                "float bits have 2, 4, 8 or 16 hexadecimal digits",
            );
            token.tok = Tok::Bad;
        }
        Tok::Value
            if content.as_bytes()[1].is_ascii_digit() && content[1..].parse::<u32>().is_err() =>
        {
            let message = format!("value number `{}` exceeds 32 bits", text::shorten(content));
            errors.push(error::NUMBER_RANGE, range, message);
        }
        Tok::Str | Tok::Value | Tok::Symbol => {
            for (at, len) in text::bad_escapes(content) {
                let start = token.start + at as u32;
                let escape = &content[at..at + len];
                errors.push_help(
                    error::BAD_ESCAPE,
                    start..start + len as u32,
                    format!("unknown escape `{escape}`"),
                    Some("the escapes are \\\" \\\\ \\n \\r \\t \\0 \\u{X}"),
                );
            }
        }
        _ => {}
    }
}

/// Turns the values of every comma list that runs into `=` into [`Tok::Def`], which is what makes
/// statements without terminators LR(1). After an op name on the same line a list of several
/// values is taken for its operands, so that a comma too many at a line's end is found there.
fn mark_definitions(source: &str, tokens: &mut [Token]) {
    let mut first = 0;
    for i in 0..tokens.len() {
        match tokens[i].tok {
            Tok::Value if i == 0 || tokens[i - 1].tok != Tok::Comma || i < 2 => first = i,
            Tok::Value if !matches!(tokens[i - 2].tok, Tok::Value | Tok::Def) => first = i,
            Tok::Eq if i > 0 && tokens[i - 1].tok == Tok::Value => {
                let after_name = first > 0 && tokens[first - 1].tok == Tok::Ident;
                if after_name && first + 1 < i {
                    let gap = tokens[first - 1].end as usize..tokens[first].start as usize;
                    if !source[gap].contains('\n') {
                        first = i - 1;
                    }
                } else if first > 0 && tokens[first - 1].tok == Tok::Comma {
                    // The list began with a symbol, `add @w, %x, %y = ...`: only the last is new.
                    first = i - 1;
                }
                for token in &mut tokens[first..i] {
                    if token.tok == Tok::Value {
                        token.tok = Tok::Def;
                    }
                }
            }
            _ => {}
        }
    }
}
