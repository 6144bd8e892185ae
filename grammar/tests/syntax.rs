//! Every construct, and where the nodes say they are.

mod support;

use dojoc_grammar::{ExprKind, NameKind, Span, parse};
use support::{EVERYTHING, expr, render, render_expr, stmts, tree};

#[test]
fn a_file_of_everything() {
    let tree = tree(EVERYTHING);
    let text = render(&tree);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "graph 1",
            r#"decl module resnet18 {producer = "x", "odd key" = 1, loc = [inf, NaN, bits32:7fc00001]}"#,
            r#"decl weight fc.w | f32[1000, 512] | external("weights.bin", 1024, 2048000) {}"#,
        ]
    );
    let expected = [
        r#"decl state k | f32[2, 4] @ tiled {a = 1} | zeros {} loc(Some("a"), None, None, None) loc(Some("b"), Some("c"), Some(1), Some(2)) loc(None, Some("c"), Some(4), None)"#,
        r#"(x : f32[(n Le 128), 3] {}, "in put" : i64[] {hint = 3} loc(Some("i"), None, None, None)) -> (y : f32[(n Le 128), 3] aliases k {}, out : bool[] {})"#,
        r##"["#4", "#5"] = name ["%x", "@w", "%#1"] {strides = [1, 2], f = 1.5, dt = f32[2, max(n, 3)], s = "st\"r\n", ok = true, no = false, shape = dims[n, ((2 Mul n) Add 1), ((n Add 1) Div 2)], d = {a = -inf, "q q" = 16, loc = neg(n), v = %"x y", s = @"t"}} : ["f32[1, 3]", "i64[2]"] loc(Some("node name"), Some("file.onnx"), Some(12), None)"##,
        "region (a : f32[2] {}, b : i64[] {})",
        r#"["q"] = add ["%a", "%b"] {} : ["f32[2]"]"#,
        r##"["#6"] = ns.foo.bar ["%#4", "%#5"] {} : []"##,
        "[] = barrier [] {} : []",
    ];
    for line in expected {
        assert!(lines.contains(&line), "{line}\nis not in\n{text}");
    }
    assert_eq!(lines.iter().filter(|l| l.starts_with("region")).count(), 6);
}

#[test]
fn expressions() {
    let cases = [
        ("1+2*n", "(1 Add (2 Mul n))"),
        ("a-b-c", "((a Sub b) Sub c)"),
        ("(n+1)/2", "((n Add 1) Div 2)"),
        ("n+1<=2*m", "((n Add 1) Le (2 Mul m))"),
        ("--n", "neg(neg(n))"),
        ("2*-3", "(2 Mul -3)"),
        ("n-1", "(n Sub 1)"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551615", "18446744073709551615u"),
        ("0xffffffffffffffff", "18446744073709551615u"),
        ("-1e-5", "-1e-5"),
        ("2E3", "2000.0"),
        ("-inf", "-inf"),
        ("0f3c00", "bits16:3c00"),
        ("\"\\u{1F600}\\\\\\0\"", "\"😀\\\\\\0\""),
        ("[]", "[]"),
        ("{}", "{}"),
        ("f()", "f()"),
        ("ceil_div(n, 2)", "ceil_div(n, 2)"),
        ("f32[]", "f32[]"),
        (
            "[f32 @ l{}, a.b[1] @ m{k = [1]}]",
            "[f32 @ l {}, a.b[1] @ m {k = [1]}]",
        ),
        (
            "{dojo = 1, aliases = 2, true = 3, nan = 4}",
            "{dojo = 1, aliases = 2, true = 3, nan = 4}",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(expr(source), expected);
    }
}

#[test]
fn names() {
    let (tree, list) = stmts("%12, %x.0.y, %\"12\", %\"a\\tb\" = op.sub @\"s/1\"");
    let stmt = tree[list][0];
    let names: Vec<_> = tree[stmt.results]
        .iter()
        .map(|n| (&tree[n.text], n.kind))
        .collect();
    let expected = [
        ("12", NameKind::Number(12)),
        ("x.0.y", NameKind::Bare),
        ("12", NameKind::Quoted),
        ("a\tb", NameKind::Quoted),
    ];
    assert_eq!(names, expected);
    assert_eq!(&tree[stmt.op.text], "op.sub");
    assert_eq!(&tree[tree[stmt.operands][0].name.text], "s/1");
}

#[test]
fn statements_need_no_separators() {
    let ops = |source| {
        let (tree, list) = stmts(source);
        let one = |s: &dojoc_grammar::Stmt| {
            format!(
                "{}={}/{}",
                s.results.len(),
                &tree[s.op.text],
                s.operands.len()
            )
        };
        tree[list].iter().map(one).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ops("a b c"), "0=a/0 0=b/0 0=c/0");
    assert_eq!(
        ops("a %1 b @x c {k = 1} d : t e loc(\"l\") f"),
        "0=a/1 0=b/1 0=c/0 0=d/0 0=e/0 0=f/0"
    );
    assert_eq!(ops("nop %1 = a %1 %2, %3 = b"), "0=nop/0 1=a/1 2=b/0");
    assert_eq!(ops("nop\n%2, %3 = b %2, %3 c"), "0=nop/0 2=b/2 0=c/0");
    assert_eq!(
        ops("a : t[1] %2, %3 = b : t, u %4 = c"),
        "0=a/0 2=b/0 1=c/0"
    );
    assert_eq!(ops("a ({ ^() b c }) d"), "0=a/0 0=d/0");
}

#[test]
fn types_come_apart() {
    let tree = tree("dojo x 1 w @a : f32 w @b : f32[] w @c : f32[2, n] @ tiled{k = 1} = 3");
    let types: Vec<_> = tree
        .items()
        .iter()
        .map(|d| tree.ty(d.ty.unwrap()).unwrap())
        .collect();
    assert_eq!(
        (types[0].name, types[0].args, types[0].layout.is_some()),
        ("f32", None, false)
    );
    assert_eq!(types[1].args.map(<[_]>::len), Some(0));
    assert_eq!(types[2].args.map(<[_]>::len), Some(2));
    let (layout, attrs) = types[2].layout.unwrap();
    assert_eq!((layout, attrs.len()), ("tiled", 1));
    assert!(tree.ty(tree.items()[2].init.unwrap()).is_none());
}

#[test]
fn spans_cover_the_text_of_their_nodes() {
    let source = "dojo graph 1\nfunc @\"é\"(%x : f32[2]) -> (%y : f32[2] aliases @k) {\n  %y = op %x, @w {k = -2 + n} ({ ^(%p : t) yield %p }) : f32[2] loc(\"l\")\n}";
    let tree = tree(source);
    let text = |span: Span| &source[span.start as usize..span.end as usize];
    assert_eq!(text(tree.header().unwrap().span), "dojo graph 1");
    let decl = tree.items()[0];
    assert_eq!(text(decl.span), &source[13..]);
    assert_eq!(text(decl.keyword.span), "func");
    assert_eq!(text(decl.symbol.span), "@\"é\"");
    let dojoc_grammar::Body::Func(func) = decl.body else {
        panic!("not a function")
    };
    assert_eq!(text(tree[func.params][0].span), "%x : f32[2]");
    assert_eq!(text(tree[func.results][0].span), "%y : f32[2] aliases @k");
    assert_eq!(text(tree[func.results][0].aliases.unwrap().span), "@k");
    let stmt = tree[func.stmts][0];
    assert_eq!(text(stmt.span), source.lines().nth(2).unwrap().trim());
    assert_eq!(text(tree[stmt.results][0].span), "%y");
    assert_eq!(text(tree[stmt.operands][1].name.span), "@w");
    let attr = tree[stmt.attrs][0];
    assert_eq!(text(attr.span), "k = -2 + n");
    let ExprKind::Binary { lhs, rhs, .. } = tree[attr.value].kind else {
        panic!("not a sum")
    };
    assert_eq!((text(tree[lhs].span), text(tree[rhs].span)), ("-2", "n"));
    assert_eq!(text(tree[stmt.regions][0].span), "{ ^(%p : t) yield %p }");
    assert_eq!(text(tree[tree[stmt.types][0]].span), "f32[2]");
    assert_eq!(text(tree[stmt.locs][0].span), "loc(\"l\")");
    assert_eq!(render_expr(&tree, attr.value), "(-2 Add n)");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_white() {
    assert_eq!(parse("\u{FEFF}dojo graph 1\r\n// c\r\nw @a\r\n").errors, []);
}
