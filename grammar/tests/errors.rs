//! What is reported, where, and that one error hides no other.

mod support;

use dojoc_grammar::{CODES, MAX_ERRORS, MAX_NESTING, parse};
use support::{EVERYTHING, codes, line};

/// Codes of the errors in the statements of a function, whose first line is line 1.
fn in_func(stmts: &str) -> Vec<(usize, u16)> {
    codes(&format!("dojo x 1 func @f() {{ {stmts}\n}}"))
}

#[test]
fn every_error_of_a_file_is_reported() {
    let source = "dojo graph 1
module @m {
  weight @a f32[2]
  weight @b : f32[2] = dense([1, 2)
  weight @c : i64[] = dense(99999999999999999999)
  weight @d : i64[] {k = 1, k = 2}
  weight @007 : i64[]
  func @f(%x : f32[2] -> (%y : f32[2]) {
    %1 = add %x,
    %2 = add %x %y
    %3 = ok %2
    %4 = mul %x, %y {k : 3}
    %5 = if %x ({ %7 = foo yield %7 })
    %8 = if %x ({ ^() %7 = foo , } , { ^() yield } { })
    %9 = foo \"unterminated
    %10 = foo {a = \"bad \\q\"} ~~~
  }
  weight
  module @k {
    func @g() { a , }
  }
}
}
";
    let expected = [
        (3, 10),
        (4, 7),
        (5, 5),
        (6, 13),
        (7, 6),
        (8, 7),
        (9, 11),
        (10, 10),
        (12, 10),
        (13, 10),
        (14, 10),
        (14, 10),
        (15, 2),
        (16, 3),
        (16, 1),
        (18, 11),
        (20, 10),
        (23, 8),
    ];
    let found = codes(source);
    for code in expected {
        assert!(found.contains(&code), "{code:?} is not in {found:?}");
    }
    assert!(
        !found.iter().any(|(line, _)| matches!(line, 11 | 21 | 22)),
        "{found:?}"
    );
    let errors = parse(source).errors;
    assert!(errors.is_sorted_by_key(|e| e.span.start));
}

#[test]
fn messages_say_what_was_found_and_expected() {
    let cases = [
        (
            "%1 = add %x %y",
            "expected `loc`, `,`, `:`, `(` or `{`, found `%y`",
        ),
        (
            "%1 = add %x,\n%2 = b",
            "this statement is incomplete: expected a value `%name` or a symbol `@name`, found `%2`",
        ),
        ("a {k 1}", "expected `=`, found `1`"),
        ("a {k = }", "expected a value, found `}`"),
        (
            "a {k = [1 2]}",
            "expected an operator, `,` or `]`, found `2`",
        ),
        ("a {k = 1,}", "expected an attribute name, found `}`"),
        ("a : [2]", "expected a word, found `[`"),
        ("a : f32[2", "`[` is never closed"),
        ("a loc(3)", "expected a string, found `3`"),
        ("a ({ yield })", "expected `^`, found `yield`"),
        ("%1", "expected a word or a result `%name =`, found `%1`"),
        ("a %x )", "`)` closes nothing"),
        (
            "a {k = 99999999999999999999}",
            "`99999999999999999999` exceeds 64 bits",
        ),
        (
            "a {k = -9223372036854775809}",
            "`-9223372036854775809` is less than -2^63",
        ),
        ("a /* b", "block comments do not exist"),
        ("a %1x", "`%1x` is not a name"),
        ("a ;", "unexpected character `;`"),
    ];
    for (source, message) in cases {
        let errors = parse(&format!("dojo x 1 func @f() {{ {source}\n}}")).errors;
        assert_eq!(
            errors.first().map(|e| &*e.message),
            Some(message),
            "{source}: {errors:?}"
        );
    }
}

#[test]
fn headers() {
    for source in ["", "// only a comment", "weight @w", "func @f() {}"] {
        assert_eq!(codes(source), [(1, 12)], "{source}");
    }
    for source in [
        "dojo",
        "dojo graph",
        "dojo graph x",
        "dojo 1",
        "dojo graph 1.5 weight @w",
        "dojo graph 1 2",
    ] {
        assert_eq!(codes(source), [(1, 12)], "{source}");
    }
    assert_eq!(codes("dojo graph 4294967296"), [(1, 5)]);
    assert_eq!(codes("dojo graph 1\ndojo graph 1"), [(2, 10)]);
}

#[test]
fn literals() {
    assert_eq!(
        in_func("a {b = 0f123, c = 1., d = 12x, e = 0x, f = 1.5.2}"),
        [(1, 4); 5]
    );
    assert_eq!(
        in_func("a %4294967296 b {k = 1e400} c loc(\"f\":4294967296)"),
        [(1, 5); 3]
    );
    assert_eq!(in_func("a %01 b @1 c % d"), [(1, 6); 3]);
    assert_eq!(
        in_func("a {k = \"\\x\\u{d800}\\u{}\\u{1234567}\"}"),
        [(1, 3); 4]
    );
    assert_eq!(in_func("a %\"x\nb @\"y\nc \"z"), [(1, 2), (2, 2), (3, 2)]);
    assert_eq!(in_func("a é{}ü´ §"), [(1, 1); 3]);
    assert_eq!(
        in_func("a {\"k\" = 1, k = 2, j = {k = 3, \"\\u{6b}\" = 4}}"),
        [(1, 13); 2]
    );
}

#[test]
fn brackets() {
    assert_eq!(in_func("a {k = [1, (2]}\nb ,"), [(1, 7), (2, 10)]);
    assert_eq!(
        codes("dojo x 1\nm @a {\nm @b {\nw @c ,"),
        [(2, 7), (3, 7), (4, 10)]
    );
    assert_eq!(
        codes("dojo x 1 ] } )\nw @a ,"),
        [(1, 8), (1, 8), (1, 8), (2, 10)]
    );
    let source =
        "dojo x 1\nm @a {\n func @f(%x : t -> (%y : t) {\n  a %x ,\n }\n func @g() { b , }\n}";
    assert_eq!(codes(source), [(3, 7), (4, 11), (6, 10)]);
}

#[test]
fn at_most_a_hundred_errors_and_a_note() {
    for line in [
        "a {k k}\n",
        "a ;\n",
        "a )\n",
        "a {k = 99999999999999999999}\n",
    ] {
        let errors = parse(&format!("dojo x 1 func @f() {{\n{}}}", line.repeat(5000))).errors;
        assert_eq!(errors.len(), MAX_ERRORS + 1);
        assert_eq!(errors.last().unwrap().code, 14);
        assert!(errors[..MAX_ERRORS].iter().all(|e| e.code != 14));
    }
}

#[test]
fn nesting_is_limited() {
    let func = |stmt: &str| format!("dojo x 1\nfunc @f() {{\n{stmt}\n}}");
    // The function's own braces and those of the attributes are two levels.
    let lists = |n: usize| func(&format!("a {{k = {}{}}}", "[".repeat(n), "]".repeat(n)));
    assert_eq!(codes(&lists(MAX_NESTING - 2)), []);
    assert_eq!(codes(&lists(MAX_NESTING - 1)), [(3, 9)]);
    assert_eq!(codes(&lists(100_000)), [(3, 9)]);
    let regions = |n: usize| func(&format!("{}b{}", "a ({ ^() ".repeat(n), "})".repeat(n)));
    assert_eq!(codes(&regions(499)), []);
    assert_eq!(codes(&regions(500)), [(3, 9)]);
    assert_eq!(codes(&regions(50_000)), [(3, 9)]);
    let modules = |n: usize| format!("dojo x 1\n\n{}{}", "m @m {".repeat(n), "}".repeat(n));
    assert_eq!(codes(&modules(MAX_NESTING)), []);
    assert_eq!(codes(&modules(100_000)), [(3, 9)]);
    for opener in ["[", "(", "{", "{^(", "f(", "x["] {
        assert!(
            parse(&opener.repeat(100_000))
                .errors
                .iter()
                .any(|e| e.code == 9),
            "{opener}"
        );
    }
    // Operators nest without brackets.
    let sums = |n: usize| func(&format!("a {{k = 1{}}}", "+1".repeat(n)));
    assert_eq!(codes(&sums(MAX_NESTING)), []);
    assert_eq!(codes(&sums(MAX_NESTING + 1)), [(3, 9)]);
    assert_eq!(codes(&sums(100_000)), [(3, 9)]);
    assert_eq!(
        codes(&func(&format!("a {{k = {}n}}", "-".repeat(100_000)))),
        [(3, 9)]
    );
}

#[test]
fn codes_are_listed_once_and_in_order() {
    let codes: Vec<u16> = CODES.iter().map(|c| c.0).collect();
    assert_eq!(codes, (1..=CODES.len() as u16).collect::<Vec<_>>());
    assert!(
        CODES
            .iter()
            .all(|(_, title, long)| !title.is_empty() && long.ends_with(['.', '1']))
    );
}

#[test]
fn errors_stay_inside_the_text() {
    // Cutting a file anywhere gives errors with spans that can be shown.
    for end in (0..EVERYTHING.len()).filter(|&i| EVERYTHING.is_char_boundary(i)) {
        let source = &EVERYTHING[..end];
        for error in parse(source).errors {
            assert!(
                source
                    .get(error.span.start as usize..error.span.end as usize)
                    .is_some()
            );
            assert!(line(source, &error) >= 1);
        }
    }
}
