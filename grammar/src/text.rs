//! Names, quotes, escapes and number literals.

/// Whether `name` can only be written in quotes after `%` or `@`, or as an attribute key.
///
/// A bare name is `[A-Za-z_][A-Za-z0-9_$]*` with further parts `.[A-Za-z0-9_$]+`: `fc.w`, `a.0.b`.
/// A name of digits needs quotes, because `%12` is the value *number* 12.
pub fn name_needs_quotes(name: &str) -> bool {
    let bare = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$'))
    };
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    !starts_well || !name.split('.').all(bare)
}

/// `text` as a string literal with quotes; control characters, quotes and backslashes are escaped.
/// Reading it back gives `text`.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}') => {
                out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `name` as it is written after a sigil or as a key: bare where possible, else quoted.
pub fn quote_name(name: &str) -> std::borrow::Cow<'_, str> {
    if name_needs_quotes(name) {
        quote(name).into()
    } else {
        name.into()
    }
}

/// One piece of a string literal's inside.
enum Piece<'a> {
    Plain(&'a str),
    Char(char),
    /// Byte offset and length of an escape that does not exist.
    Bad(usize, usize),
}

/// Splits the inside of a literal at its backslashes.
fn pieces(inside: &str, mut each: impl FnMut(Piece<'_>)) {
    let mut at = 0;
    while let Some(found) = inside[at..].find('\\') {
        each(Piece::Plain(&inside[at..at + found]));
        let start = at + found;
        let rest = &inside[start + 1..];
        let simple = match rest.chars().next() {
            Some('"') => Some('"'),
            Some('\\') => Some('\\'),
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('0') => Some('\0'),
            _ => None,
        };
        let (piece, len) = match (
            simple,
            rest.strip_prefix("u{").and_then(|r| r.split_once('}')),
        ) {
            (Some(c), _) => (Piece::Char(c), 2),
            (None, Some((digits, _))) if (1..=6).contains(&digits.len()) => {
                let len = digits.len() + 4;
                // `from_str_radix` would take a sign, which is no digit.
                let code = u32::from_str_radix(digits, 16)
                    .ok()
                    .filter(|_| !digits.starts_with('+'));
                (
                    code.and_then(char::from_u32)
                        .map_or(Piece::Bad(start, len), Piece::Char),
                    len,
                )
            }
            _ => {
                let len = 1 + rest.chars().next().map_or(0, char::len_utf8);
                (Piece::Bad(start, len), len)
            }
        };
        each(piece);
        at = start + len;
    }
    each(Piece::Plain(&inside[at..]));
}

/// The part of a token between its quotes and the offset where it starts; `None` without quotes.
fn inside(token: &str) -> Option<(usize, &str)> {
    let open = token.find('"')?;
    Some((open + 1, token.get(open + 1..token.len() - 1)?))
}

/// Offset in `token` and length of every escape that does not exist.
pub(crate) fn bad_escapes(token: &str) -> Vec<(usize, usize)> {
    let mut bad = Vec::new();
    if let Some((offset, inside)) = inside(token)
        && inside.contains('\\')
    {
        pieces(inside, |piece| {
            if let Piece::Bad(at, len) = piece {
                bad.push((offset + at, len));
            }
        });
    }
    bad
}

/// Appends what the inside of a literal stands for; wrong escapes are left out.
pub(crate) fn unescape(inside: &str, out: &mut String) {
    pieces(inside, |piece| match piece {
        Piece::Plain(text) => out.push_str(text),
        Piece::Char(c) => out.push(c),
        Piece::Bad(..) => {}
    });
}

/// The value of a decimal or `0x` literal, `None` when it exceeds 64 bits.
pub(crate) fn parse_uint(literal: &str) -> Option<u64> {
    match literal.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => literal.parse().ok(),
    }
}

/// At most the first 40 characters, so that a message never repeats a huge token.
pub(crate) fn shorten(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}...", &text[..at]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names() {
        for name in ["a", "_", "fc.w", "layer1.0.conv", "a$b", "inf", "loc"] {
            assert!(!name_needs_quotes(name), "{name}");
        }
        for name in [
            "", "1", "a.", ".a", "a..b", "a-b", "a/b", "größe", "$a", "a b",
        ] {
            assert!(name_needs_quotes(name), "{name}");
        }
    }

    #[test]
    fn quoting_is_undone_by_unescaping() {
        for text in [
            "",
            "plain",
            "a\"b\\c",
            "\n\t\r\0\u{7}",
            "ü\u{2028}\u{1F600}",
            "\\u{41}",
        ] {
            let quoted = quote(text);
            let mut back = String::new();
            unescape(&quoted[1..quoted.len() - 1], &mut back);
            assert_eq!(back, text);
            assert!(bad_escapes(&quoted).is_empty());
        }
    }

    #[test]
    fn wrong_escapes_are_located() {
        assert_eq!(
            bad_escapes(r#"%"a\qb\u{110000}\u{+1}\u{""#),
            [(3, 2), (6, 10), (16, 6), (22, 2)]
        );
    }
}
