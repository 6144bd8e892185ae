//! The canonical layout.

mod support;

use dojoc_grammar::{WIDTH, format, parse};
use support::{EVERYTHING, render, tree};

/// Formats, and checks that formatting again changes nothing and that the meaning stayed.
fn fmt(source: &str) -> String {
    let once = format(source).expect("a text without errors");
    assert_eq!(format(&once).as_deref(), Ok(&*once));
    assert_eq!(render(&tree(&once)), render(&tree(source)));
    once
}

fn comments(source: &str) -> Vec<&str> {
    source
        .lines()
        .filter_map(|l| l.find("//").map(|at| l[at..].trim_end()))
        .collect()
}

#[test]
fn everything_in_canonical_layout() {
    let text = fmt(EVERYTHING);
    assert_eq!(comments(&text), comments(EVERYTHING));
    let expected = r#"// first
dojo graph 1 // head

// about
module @resnet18 {producer = "x", "odd key" = 1, loc = [inf, -nan, 0f7fc00001]} { // open
  // w
  weight @fc.w : f32[1000, 512] = external("weights.bin", 1024, 2048000)
  weight @eps : f32[] = dense(1e-5)

  weight @"onnx::w/1" : i64[2] = dense([1, -2, 1000000, 1000000, 1000000, 1000000, 1000000, 1000000,
"#;
    assert_eq!(&text[..expected.len()], expected);
    for piece in [
        "    %1, %2 = split %1 : f32[1000, 1000, 1000], f32[1000, 1000, 1000], f32[1000, 1000, 1000],\n        f32[1000, 1000, 1000]\n",
        "      { ^(%a : f32[2], %b : i64[])\n        %q = add %a, %b : f32[2]\n        yield %q\n      }, // regions\n      // two\n",
        "      { ^() }\n      // end\n    ) : f32[1, 3], i64[2] loc(\"node name\", \"file.onnx\":12)\n    // own\n",
        "    return %4, %5\n\n    // last\n  }\n  func @e() {}\n",
        "}\n// eof\n",
    ] {
        assert!(text.contains(piece), "{piece}\nis not in\n{text}");
    }
    assert!(
        text.lines()
            .all(|l| l.chars().count() <= WIDTH && l.trim_end() == l),
        "{text}"
    );
}

#[test]
fn one_line_becomes_many() {
    let text =
        fmt("dojo graph 1 func@f(%x:f32[2])->(%y:f32[2]){%y=relu %x{a=[1,2]}:f32[2]nop return %y}");
    assert_eq!(
        text,
        "dojo graph 1
func @f(%x : f32[2]) -> (%y : f32[2]) {
  %y = relu %x {a = [1, 2]} : f32[2]
  nop
  return %y
}
"
    );
}

#[test]
fn comments_between_any_two_tokens_stay() {
    let plain = "dojo g 1 m @m {k = -1} { w @w : f32[n<=2] @ l{} = f(1) {} loc(\"a\":1) func @f(%x : t aliases @w) -> (%y : t) { %1, %2 = a %x, @w {k = [1, {}]} ({ ^(%p : t) b }, { ^() }) : t, u c } module @e {} }";
    let tokens: Vec<&str> = plain.split(' ').collect();
    for trailing in [true, false] {
        for at in 0..=tokens.len() {
            let comment = if trailing {
                " // c 1\n"
            } else {
                "\n// c 1\n  // c 2\n"
            };
            let source = format!(
                "{}{comment}{}",
                tokens[..at].join(" "),
                tokens[at..].join(" ")
            );
            let text = fmt(&source);
            let expected: &[&str] = if trailing {
                &["// c 1"]
            } else {
                &["// c 1", "// c 2"]
            };
            assert_eq!(comments(&text), expected, "{source}\n{text}");
            if at > 0 {
                let own = text.lines().any(|l| l.trim_start().starts_with("// c 1"));
                assert_eq!(own, !trailing, "{source}\n{text}");
            }
        }
    }
}

#[test]
fn blank_lines_collapse() {
    let text =
        fmt("\n\ndojo g 1\n\n\n\nm @m {\n\n\n  w @a\n\n\n  // c\n\n\n  w @b\n  w @c\n\n\n}\n\n\n");
    assert_eq!(
        text,
        "dojo g 1\n\nm @m {\n  w @a\n\n  // c\n\n  w @b\n  w @c\n}\n"
    );
}

#[test]
fn spelling_is_kept() {
    let body = "w @\"plain\" = [0x0F, 1.50, 1E5, \"\\u{41}\\t\"] {\"key\" = 0f7FC00001}";
    assert_eq!(
        fmt(&format!("dojo g 1\n{body}")),
        format!("dojo g 1\n{body}\n")
    );
}

#[test]
fn texts_with_errors_are_not_formatted() {
    let source = "dojo g 1 w @a ,\n w @b ;";
    assert_eq!(format(source).unwrap_err(), parse(source).errors);
}

#[test]
fn long_and_deep_texts_wrap() {
    let list = vec!["123456789"; 5000].join(",");
    let text = fmt(&format!("dojo g 1 w @a = dense([{list}])"));
    assert!(text.lines().all(|l| l.chars().count() <= WIDTH));
    assert!(text.lines().skip(2).all(|l| l.starts_with("        1")));
    fmt(&format!(
        "dojo g 1 w @a = {}1{}",
        "[1, ".repeat(900),
        "]".repeat(900)
    ));
    fmt(&format!(
        "dojo g 1 f @f() {{ {}b{} }}",
        "a ({ ^() ".repeat(400),
        "})".repeat(400)
    ));
}
