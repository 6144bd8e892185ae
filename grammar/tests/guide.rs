//! The examples of GRAMMAR.md do what it says.

use dojoc_grammar::{CODES, format, parse};

/// Fence info, first line and text of every fenced block.
fn blocks() -> Vec<(&'static str, usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize, String)> = None;
    for (number, line) in include_str!("../GRAMMAR.md").lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info, number + 1, String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((.., text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

#[test]
fn examples_are_canonical() {
    let mut count = 0;
    for (_, line, text) in blocks().iter().filter(|b| b.0 == "dojo") {
        assert_eq!(format(text).as_deref(), Ok(&**text), "GRAMMAR.md:{line}");
        count += 1;
    }
    assert!(count >= 8);
}

#[test]
fn mistakes_give_the_codes_named() {
    let mut shown = Vec::new();
    for (info, line, text) in blocks() {
        let Some(code) = info.strip_prefix("dojo,error D") else {
            continue;
        };
        let code: u16 = code.parse().expect("a code of digits");
        let errors = parse(&text).errors;
        assert!(
            !errors.is_empty() && errors.iter().all(|e| e.code == code),
            "GRAMMAR.md:{line}: {errors:?}"
        );
        shown.push(code);
    }
    // Depth, the number of errors and the size of a file need no example.
    for (code, title, _) in CODES.iter().filter(|c| ![9, 14, 15].contains(&c.0)) {
        assert!(shown.contains(code), "no example of D{code:04}, {title}");
    }
}
