//! Damaged texts: no panic, no endless work, and what still parses still formats.

mod support;

use std::time::{Duration, Instant};

use dojoc_grammar::{format, parse};
use support::{EVERYTHING, render};

/// Marsaglia's xorshift generator, for damage that is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

fn survive(source: &str) {
    let parsed = parse(source);
    for error in &parsed.errors {
        assert!(
            source
                .get(error.span.start as usize..error.span.end as usize)
                .is_some()
        );
        assert!((1..=15).contains(&error.code));
    }
    match format(source) {
        Ok(text) => {
            assert_eq!(parsed.errors, []);
            assert_eq!(format(&text).as_deref(), Ok(&*text), "of {source}");
            assert_eq!(
                render(&parse(&text).tree),
                render(&parsed.tree),
                "of {source}"
            );
        }
        Err(errors) => assert_eq!(errors, parsed.errors),
    }
}

#[test]
fn damaged_bytes() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..1500 {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[]()%@=,:^\"\\/-\n \xC3"[random.below(19)]),
                _ => {
                    let end = (at + random.below(40)).min(bytes.len());
                    drop(bytes.drain(at..end));
                }
            }
        }
        survive(&String::from_utf8_lossy(&bytes));
    }
}

/// Pieces that lex on their own, spaced or not.
const PIECES: &[&str] = &[
    "dojo", "loc", "aliases", "true", "inf", "a", "b.c", "%x", "%1", "%\"q\"", "@s", "@\"t\"", "@",
    "1", "-", "2.5", "0x1f", "0f3c00", "\"s\"", "\"s", ",", ",", ":", "=", "=", "(", ")", "[", "]",
    "{", "}", "{", "}", "^", "({ ^() ", "})", "->", "<=", "+", "*", "/", "// c\n", "\n", "\n\n",
    ";", "ü",
];

#[test]
fn damaged_tokens() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let words: Vec<&str> = EVERYTHING
        .split_inclusive([' ', '\n', ',', '(', '{', '['])
        .collect();
    for _ in 0..1500 {
        let mut words = words.clone();
        for _ in 0..1 + random.below(6) {
            let (a, b) = (random.below(words.len()), random.below(words.len()));
            match random.below(4) {
                0 => words.swap(a, b),
                1 => drop(words.remove(a)),
                2 => words.insert(a, words[b]),
                _ => words.insert(a, PIECES[random.below(PIECES.len())]),
            }
        }
        survive(&words.concat());
    }
}

#[test]
fn token_soup() {
    let mut random = Random(0xD1B5_4A32_D192_ED03);
    for round in 0..6000 {
        let mut source = String::from(if round % 2 == 0 {
            "dojo g 1 f @f() { "
        } else {
            "dojo g 1 "
        });
        for _ in 0..random.below(24) {
            source.push_str(PIECES[random.below(PIECES.len())]);
            source.push_str(["", " "][random.below(2)]);
        }
        if round % 2 == 0 {
            source.push('}');
        }
        survive(&source);
    }
}

/// A hundred thousand of everything that could be slow. Linear work takes well below a second even
/// in a debug build on a busy machine; quadratic work would take minutes.
#[test]
fn cost_is_linear() {
    let n = 100_000;
    let func = |stmts: String| format!("dojo g 1 func @f() {{\n{stmts}\n}}");
    let deep = |inner: &str| {
        func(format!(
            "{}{}{}",
            "a ({ ^() ".repeat(400),
            inner.repeat(n),
            "})".repeat(400)
        ))
    };
    let cases = [
        func("%1 = add %2, %3 {k = 1} : f32[2, 3] loc(\"n\")\n".repeat(n)),
        func(format!("a {{k = [{}1]}}", "1, ".repeat(n))),
        func(format!("a {}", "%x, ".repeat(n))),
        func(format!("{} = a", "%x, ".repeat(n))),
        func("a // c\n".repeat(n)),
        func("a ({ ^() b })\n".repeat(n)),
        func("a ({ ^() b\n".repeat(400) + &"( { c @d ".repeat(90) + &"{}".repeat(n)),
        deep(", "),
        deep("b %x "),
        deep("{ c @d } "),
        "dojo g 1 ".to_owned() + &"m @m {}".repeat(n),
        "dojo g 1 ".to_owned() + &"m @m { ( }".repeat(n),
        "dojo g 1 m @m {".to_owned()
            + &(0..n).map(|i| format!("k{i} = 1,")).collect::<String>()
            + "z = 1}",
        "]".repeat(n),
        "\"".repeat(n),
        "%\"a\n".repeat(n),
        "\\".repeat(n),
        "- ".repeat(n),
    ];
    for source in cases {
        let start = Instant::now();
        let _ = format(&source);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}",
            &source[..60]
        );
    }
}
