//! What the test files share: a rendering of trees without spans, and small helpers.
#![expect(dead_code, reason = "each test file uses some of these")]

use dojoc_grammar::{
    Attr, Body, Decl, ExprId, ExprKind, List, Loc, Name, NameKind, Param, Sigil, Stmt, SyntaxError,
    Tree, parse,
};

/// One construct of everything.
pub const EVERYTHING: &str = include_str!("everything.dojo");

/// Parses a text that must be right.
pub fn tree(source: &str) -> Tree {
    let parsed = parse(source);
    assert_eq!(parsed.errors, [], "in {source}");
    parsed.tree
}

/// The tree of statements in an otherwise empty function.
pub fn stmts(source: &str) -> (Tree, List<Stmt>) {
    let tree = tree(&format!("dojo x 1 func @f() {{ {source} }}"));
    let Body::Func(func) = tree.items()[0].body else {
        panic!("not a function")
    };
    (tree, func.stmts)
}

/// Renders the expression of `weight @w = ...`.
pub fn expr(source: &str) -> String {
    let tree = tree(&format!("dojo x 1 weight @w = {source}"));
    render_expr(&tree, tree.items()[0].init.expect("an initialiser"))
}

/// Codes with the lines on which they stand, counted from 1.
pub fn codes(source: &str) -> Vec<(usize, u16)> {
    let errors = parse(source).errors;
    errors.iter().map(|e| (line(source, e), e.code)).collect()
}

pub fn line(source: &str, error: &SyntaxError) -> usize {
    source[..error.span.start as usize].matches('\n').count() + 1
}

/// A tree as text, without spans and without the spelling of names and numbers.
pub fn render(tree: &Tree) -> String {
    let mut out = String::new();
    let header = tree.header().expect("a header");
    out.push_str(&format!(
        "{} {}\n",
        &tree[header.level.text], header.version
    ));
    for decl in tree.items() {
        render_decl(tree, decl, &mut out);
    }
    out
}

fn render_decl(tree: &Tree, decl: &Decl, out: &mut String) {
    out.push_str(&format!(
        "decl {} {}",
        name(tree, decl.keyword),
        name(tree, decl.symbol)
    ));
    for part in [decl.ty, decl.init].iter().flatten() {
        out.push_str(&format!(" | {}", render_expr(tree, *part)));
    }
    out.push_str(&format!(
        "{}{}\n",
        attrs(tree, decl.attrs),
        locs(tree, decl.locs)
    ));
    match decl.body {
        Body::None => {}
        Body::Decls(decls) => {
            tree[decls]
                .iter()
                .for_each(|decl| render_decl(tree, decl, out));
            out.push_str("end\n");
        }
        Body::Func(func) => {
            out.push_str(&format!(
                "{} -> {}\n",
                params(tree, func.params),
                params(tree, func.results)
            ));
            render_stmts(tree, func.stmts, out);
        }
    }
}

fn render_stmts(tree: &Tree, list: List<Stmt>, out: &mut String) {
    for stmt in &tree[list] {
        let results: Vec<String> = tree[stmt.results].iter().map(|n| name(tree, *n)).collect();
        let operands: Vec<String> = tree[stmt.operands]
            .iter()
            .map(|o| {
                format!(
                    "{}{}",
                    if o.sigil == Sigil::Value { '%' } else { '@' },
                    name(tree, o.name)
                )
            })
            .collect();
        let types: Vec<String> = tree[stmt.types]
            .iter()
            .map(|t| render_expr(tree, *t))
            .collect();
        out.push_str(&format!(
            "{results:?} = {} {operands:?}{} : {types:?}{}\n",
            name(tree, stmt.op),
            attrs(tree, stmt.attrs),
            locs(tree, stmt.locs)
        ));
        for region in &tree[stmt.regions] {
            out.push_str(&format!("region {}\n", params(tree, region.params)));
            render_stmts(tree, region.stmts, out);
        }
    }
    out.push_str("end\n");
}

fn name(tree: &Tree, name: Name) -> String {
    match name.kind {
        NameKind::Bare => tree[name.text].to_owned(),
        NameKind::Quoted => format!("{:?}", &tree[name.text]),
        NameKind::Number(number) => format!("#{number}"),
    }
}

fn params(tree: &Tree, list: List<Param>) -> String {
    let one = |p: &Param| {
        let aliases = p
            .aliases
            .map(|a| format!(" aliases {}", name(tree, a)))
            .unwrap_or_default();
        let ty = render_expr(tree, p.ty);
        format!(
            "{} : {ty}{aliases}{}{}",
            name(tree, p.name),
            attrs(tree, p.attrs),
            locs(tree, p.locs)
        )
    };
    format!(
        "({})",
        tree[list].iter().map(one).collect::<Vec<_>>().join(", ")
    )
}

fn attrs(tree: &Tree, list: List<Attr>) -> String {
    let one = |a: &Attr| format!("{} = {}", name(tree, a.key), render_expr(tree, a.value));
    format!(
        " {{{}}}",
        tree[list].iter().map(one).collect::<Vec<_>>().join(", ")
    )
}

fn locs(tree: &Tree, list: List<Loc>) -> String {
    let one = |l: &Loc| {
        let (name, file) = (l.name.map(|t| &tree[t]), l.file.map(|t| &tree[t]));
        format!(" loc({name:?}, {file:?}, {:?}, {:?})", l.line, l.column)
    };
    tree[list].iter().map(one).collect()
}

pub fn render_expr(tree: &Tree, id: ExprId) -> String {
    let list = |l| {
        let items: &[ExprId] = &tree[l];
        items
            .iter()
            .map(|e| render_expr(tree, *e))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match tree[id].kind {
        ExprKind::Int(v) => v.to_string(),
        ExprKind::Uint(v) => format!("{v}u"),
        ExprKind::Float(v) => format!("{v:?}"),
        ExprKind::FloatBits { bits, width } => format!("bits{width}:{bits:x}"),
        ExprKind::Str(t) => format!("{:?}", &tree[t]),
        ExprKind::Bool(b) => b.to_string(),
        ExprKind::Ident(t) => tree[t].to_owned(),
        ExprKind::Value(n) => format!("%{}", name(tree, n)),
        ExprKind::Symbol(n) => format!("@{}", name(tree, n)),
        ExprKind::List(l) => format!("[{}]", list(l)),
        ExprKind::Dict(l) => attrs(tree, l).trim_start().to_owned(),
        ExprKind::Call { name, args } => format!("{}({})", &tree[name], list(args)),
        ExprKind::Index { name, args } => format!("{}[{}]", &tree[name], list(args)),
        ExprKind::Layout { ty, name, attrs: a } => {
            format!(
                "{} @ {}{}",
                render_expr(tree, ty),
                &tree[name],
                attrs(tree, a)
            )
        }
        ExprKind::Neg(e) => format!("neg({})", render_expr(tree, e)),
        ExprKind::Binary { op, lhs, rhs } => {
            format!(
                "({} {op:?} {})",
                render_expr(tree, lhs),
                render_expr(tree, rhs)
            )
        }
    }
}
