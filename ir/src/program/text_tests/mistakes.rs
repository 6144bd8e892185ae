//! Malformed texts.

use std::fmt::Write as _;

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use super::super::parse;
use super::DEMO;
use crate::diag::Place;

/// What is wrong with a text: code, marked text, message, help.
fn report(text: &str) -> String {
    let mut out = String::new();
    let errors = parse(text).err().unwrap_or_default();
    for error in &errors.0 {
        let marked = match &error.place {
            Some(Place::Span(span)) => &text[span.clone()],
            _ => "?",
        };
        let marked = marked.split('\n').next().unwrap_or_default();
        let _ = writeln!(out, "{} `{marked}`: {}", error.code, error.message);
        if let Some(help) = &error.help {
            let _ = writeln!(out, "  help: {help}");
        }
    }
    out
}

/// A program with a declaration.
fn with_declaration(declaration: &str) -> String {
    format!(
        "dojo program 1 program @m {{machine = \"mesh4x4\", dims = {{n = 4}}}} {{\n\
         cores @all = [box(0, [0, 4], [0, 4])]\n\
         table @next = [1, 0]\n\
         channel @right {{from = @all, to = @all, peer = i}}\n\
         dram @cache {{dip = 0, bytes = 64}}\n\
         segment @role(%p : index) {{ }}\n\
         {declaration}\n}}"
    )
}

/// A program with a statement in a stream.
fn with_statement(statement: &str) -> String {
    with_declaration(&format!(
        "segment @s(%first : index) {{\n%a = buffer {{at = 0}} : f32[4]\n%t = token\nvector ({{ ^()\n\
         {statement}\n}})\n}}"
    ))
}

#[test]
fn malformed_declarations() {
    let declarations = [
        "core @x = [box(0, 0, 0)]",
        "thing @x = [box(0, 0, 0)]",
        "cores @x {a = 1}",
        "cores @x = [box(0, 0), 3, crate(0, 0, 0), box([1], -1, [0, 4294967296])]",
        "cores @all = []",
        "cores @x = [] loc(\"nowhere\")",
        "table @x = [1, 2.5, i]",
        "channel @x {from = @all, too = @all}",
        "channel @x {from = @al, to = @next, peer = i, ports = -1, route = \"zigzag\"}",
        "channel @x {from = @all, to = @all, peer = j + at(@all, i) + mod(i) + 1.5}",
        "channel @x {from = @all, to = @all, peer = i <= 3, overrides = [[1, 2], [0, 0, [[1, 2]]]]}",
        "channel @x {from = @all, to = @all, peer = %l}",
        "dram @x {bytes = \"many\"}",
        "input @x : f33[4] = []",
        "input @x : f32 = []",
        "input @x : f32[m] = []",
        "input @x : f32[4]",
        "input @x = []",
        "input @x : f32[4] = [] {data = 1}",
        "input @x : f32[n*n] = []",
        "output @x : f32[4] = [{on = @all, dram = @cache, at = 0, slice = []}]",
        "output @x : f32[4] = [{at = 0, slice = []}, {on = @all}, 3]",
        "output @x : f32[4] = [{on = @all, at = 0, slice = [[0, i]]}]",
        "output @x : f32[4] = [{on = @all, at = 0, slice = [[0], 4], packing = \"loose\"}]",
        "weight @x : f32[4] = []",
        "weight @x : f32[4] = [] {data = files(\"x\")}",
        "weight @x : f32[4] = [] {data = file(\"x\", -1, f32[n])}",
        "weight @x : f32[4] = [] {data = slice(3, [0], [4])}",
        "weight @x : f32[4] = [] {data = inline(f32[1], \"00x0\")}",
        "weight @x : f32[4] = [] {data = convert(splat(f32[4], true), f99)}",
        "state @x : f32[4] = [] {init = ones}",
        "segment @x(%a : f32) { }",
        "segment @x(%a : index, %a : index) -> (%r : index) { }",
        "segment @x() { add %a, %b }",
        "segment @x() { %a = bufer {at = 0} : f32[4] vector ({ ^() fill %a {value = 1.0} }) }",
        "segment @x() { %a = buffer {att = 0} : f32[4] buffer {at = 0} : f32[4] %b = token {k = 1} }",
        "segment @x() { %a = buffer {at = %b, role = \"lost\"} : f32[n] }",
        "segment @x() { vector ({ ^() }) vector ({ ^() }) comm0 matrix ({ ^(%i : index) }) }",
        "entry @x(%a : index) {inputs = [@all]} { }",
        "entry @x() {inputs = [], outputs = []} { cal @role }",
        "entry @x() {inputs = [], outputs = []} { call @rol {on = @all, row = [1]} call @role {on = 3, row = 1} }",
        "entry @x() {inputs = [], outputs = []} { call @role {on = @all, row = [%l, p, q]} probe @role }",
        "entry @x() {inputs = [], outputs = []} { repeat {count = i} ({ ^() }) repeat {count = 1} }",
        "entry @x() {inputs = [], outputs = []} { repeat {count = 1} ({ ^(%l : index) repeat {count = 1} ({ ^(%l : index) }) }) }",
    ];
    let mut out = String::new();
    for declaration in declarations {
        let _ = writeln!(
            out,
            "{declaration}\n{}",
            report(&with_declaration(declaration))
        );
    }
    insta::assert_snapshot!(out);
}

#[test]
fn malformed_statements() {
    let statements = [
        "ad %a, %a, %a",
        "zzz %a",
        "%b = buffer {at = 0} : f32[4]",
        "add %a, %a",
        "add %a, %b, %t",
        "%c = add %a, %a : f32[4]",
        "add %a, @next, %a",
        "add %a, %a, %a {valu = 1.0}",
        "fill %a",
        "fill %a {value = \"one\"}",
        "mm %a, %a, %a {transpose_c = true}",
        "mm %a, %a, %a {stochastic = 7, index = 1}",
        "send %a, @right",
        "send @rigt, %a",
        "send @cache, %a {prt = 1}",
        "send @right, %t",
        "signal %a",
        "wait %tt",
        "%v = view %a {offset = %first*%first} : f32[4]",
        "%v = view %a {offset = 1/2} : f32[4]",
        "%v = view %a {offset = %i} : f32[4]",
        "%v = view %a : f32[%first]",
        "%v = view %a {offset = 9223372036854775807 + 1} : f32[4]",
        "%v = view %t : f32[4]",
        "view %a : f32[4]",
        "%v = view %a",
        "%a = view %a : f32[4]",
        "%v = view %a : f32[4] %v = view %a : f32[4]",
        "for {count = 2} ({ ^(%i : index) %v = view %a : f32[4] }) fill %v {value = 1.0}",
        "for {count = 2} ({ ^(%i : index) for {count = 2} ({ ^(%i : index) }) })",
        "for {count = 2} ({ ^(%first : index) })",
        "for {count = 2} ({ ^() })",
        "for {steps = 2} ({ ^(%i : index) }) for {count = 2}",
        "%n = count %a {via = @cache}",
        "count %a {max = 1}",
        "%n = count %a {max = 1} %m = count %a {max = %n}",
        "dram.load @cache, %a",
        "dram.load %a, @cache {offset = 4, stride = 1}",
        "dram.begin @right",
        "fill %a {value = 1.0} loc(\"a\") loc(\"b\")",
    ];
    let mut out = String::new();
    for statement in statements {
        let _ = writeln!(out, "{statement}\n{}", report(&with_statement(statement)));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn malformed_files() {
    let texts = [
        "dojo graph 1 program @m {machine = \"d1\"} { }",
        "dojo program 2 program @m {machine = \"d1\"} { }",
        "dojo program 1",
        "dojo program 1 module @m { }",
        "dojo program 1 program @a {machine = \"d1\"} { } program @b {machine = \"d1\"} { }",
        "dojo program 1 program @m",
        "dojo program 1 program @m { }",
        "dojo program 1 program @m {machine = d1, fingerprint = \"12\", dims = [n], of = 1} { }",
        "dojo program 1 program @m {machine = \"d1\", dims = {n = -1}} { } loc(\"x\")",
        "dojo program 1 program @m {",
    ];
    let mut out = String::new();
    for text in texts {
        let _ = writeln!(out, "{text}\n{}", report(text));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn loops_and_expressions_have_limits() {
    let nested = |word: &str, depth: usize, leaf: &str| {
        let mut text = String::new();
        for at in 0..depth {
            let _ = write!(text, "{word} {{count = 2}} ({{ ^(%i{at} : index) ");
        }
        text + leaf + &"})".repeat(depth)
    };
    assert_eq!(report(&with_statement(&nested("for", 8, ""))), "");
    let found = report(&with_statement(&nested("for", 9, "")));
    assert_eq!(found, "D0107 `for`: loops are nested at most 8 deep\n");
    let entry = |body: String| {
        with_declaration(&format!(
            "entry @e() {{inputs = [], outputs = []}} {{ {body} }}"
        ))
    };
    let call = "call @role {on = @all, row = [%i7]}";
    assert_eq!(report(&entry(nested("repeat", 8, call))), "");
    let found = report(&entry(nested("repeat", 300, "")));
    assert_eq!(found, "D0107 `repeat`: repeats are nested at most 8 deep\n");
    let channel = |peer: &str| {
        with_declaration(&format!(
            "channel @x {{from = @all, to = @all, peer = {peer}}}"
        ))
    };
    assert_eq!(report(&channel(&["i"; 128].join(" + "))), "");
    let long = report(&channel(&["i"; 129].join(" + ")));
    assert!(
        long.contains("an index expression has at most 256 parts"),
        "{long}"
    );
    let deep = report(&channel(&format!(
        "{}i{}",
        "min(1, ".repeat(900),
        ")".repeat(900)
    )));
    assert!(
        deep.contains("the expression is nested too deeply"),
        "{deep}"
    );
    let recipe = format!(
        "{}splat(f32[1], 0){}",
        "reshape(".repeat(900),
        ", [1])".repeat(900)
    );
    let deep = report(&with_declaration(&format!(
        "weight @x : f32[1] = [] {{data = {recipe}}}"
    )));
    assert!(deep.contains("the recipe is nested too deeply"), "{deep}");
    let affine = format!(
        "fill %a {{value = 1.0}} for {{count = {}1{}}} ({{ ^(%i : index) }})",
        "2*(".repeat(400),
        ")".repeat(400)
    );
    let deep = report(&with_statement(&affine));
    assert!(
        deep.contains("the expression is nested too deeply"),
        "{deep}"
    );
}

/// Texts with damage are programs or have errors, and programs read back.
#[test]
fn no_text_panics() {
    let mut rng = Pcg64Mcg::seed_from_u64(0x7e97);
    let words: Vec<&str> = DEMO.split_whitespace().collect();
    let mut programs = 0;
    for _ in 0..600 {
        let mut text: Vec<char> = DEMO.chars().collect();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..text.len());
            let end = (at + rng.random_range(0..12)).min(text.len());
            match rng.random_range(0..4) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..end, words[rng.random_range(0..words.len())].chars())),
                2 => text[at] = char::from(rng.random_range(32..127u8)),
                _ => {
                    let copy = text[at..end].to_vec();
                    let to = rng.random_range(0..=text.len());
                    text.splice(to..to, copy);
                }
            }
        }
        let text: String = text.into_iter().collect();
        match parse(&text) {
            Ok((program, _)) => {
                super::assert_reads_back(&program);
                programs += 1;
            }
            Err(errors) => {
                assert!(!errors.0.is_empty());
                for error in &errors.0 {
                    let Some(Place::Span(span)) = &error.place else {
                        panic!("{error}")
                    };
                    assert!(text.get(span.clone()).is_some(), "{error}");
                }
            }
        }
    }
    assert!(programs > 20, "only {programs} of the texts were programs");
}
