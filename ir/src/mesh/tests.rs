//! Modules by hand: printed and read back, verified, run.

use std::sync::Arc;

use super::*;
use crate::codes;
use crate::machine::Machine;
use crate::tensor::Tensor;

const GATHER: &str = r#"dojo mesh 1

module @gather {machine = "mesh4x4"} {
  grid @g {first = 0, axes = {r = core(2), c = core(2)}}
  weight @w : f32[6] = dense(2.0)

  func @main(%x : f32[10, 6] @ on{grid = @g, dims = [split(10, [r, c]), 6]}) -> (%y : f32[10, 6] @ on{grid = @g}) {
    %w = weight @w : f32[6] @ on{grid = @g}
    %0 = reshard %x {kind = all_gather} : f32[10, 6] @ on{grid = @g, dims = [split(10, [r]), 6], name = "x"}
    group @g (
      { ^()
        %1 = mul %0, %w {tile = {loops = [1, 1], split = [loop(0, [r])]}} : f32[10, 6] @ on{grid = @g, dims = [split(10, [r]), 6]}
        yield
      }
    )
    %y = reshard %1 {kind = all_gather} : f32[10, 6] @ on{grid = @g}
    return %y
  }

  schedule @main() {route = yx, bytes = 520} {
    place {core = 0, at = [0, 0, 0], last = 1, to = [0, 0, 1]}
    place {core = 2, at = [0, 1, 1], last = 3, to = [0, 1, 0]}
    value %x {address = 320, bytes = 72, strides = [24, 4], live = [0, 1]}
    value %w {address = 448, bytes = 24, strides = [4], live = [0, 4]}
    value %0 {address = 0, bytes = 120, strides = [24, 4], live = [0, 2], fill = 0.0}
    value %1 {address = 320, bytes = 120, strides = [24, 4], live = [1, 3]}
    value %y {address = 0, bytes = 240, strides = [24, 4], live = [2, 4]}
    exchange %0 {stmt = 0, stages = [{flows = 4, bytes = 240, copied = 240, sends = 1, receives = 1}]}
    exchange %y {stmt = 2, view = [10, 6]}
    stage {flows = [send(0, 0, [0, 0], [5, 6]), send(0, 2, [0, 0], [5, 6]), send(1, 1, [0, 0], [5, 6]), send(2, 0, [5, 0], [5, 6]), send(2, 2, [5, 0], [5, 6]), send(3, 3, [5, 0], [5, 6])]}
    stage {flows = [forward(0, 1, [5, 0], [5, 6]), forward(2, 3, [0, 0], [5, 6])]}
    scratch {stmt = 2, address = 512, bytes = 8}
  }
}
"#;

fn module(text: &str) -> (Module, SourceMap) {
    parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn text_reads_back() {
    let (module, map) = module(GATHER);
    assert_eq!(module.to_string(), GATHER);
    let formatted = dojoc_grammar::format(GATHER).unwrap();
    assert_eq!(parse(&formatted).unwrap().0, module);
    let func = module.tiled.functions.ids().next().unwrap();
    let schedule = &module.schedules[func];
    let sites: Vec<(u32, u32)> = schedule.places.iter().map(|p| (p.row, p.column)).collect();
    assert_eq!(sites, [(0, 0), (0, 1), (1, 1), (1, 0)]);
    assert_eq!(schedule.route, RouteRule::Yx);
    assert_eq!(schedule.exchanges[0].1.stages[0].len(), 8);
    assert_eq!(schedule.exchanges[1].1.stages[1].len(), 2);
    assert!(schedule.exchanges[1].1.stages[1][0].forwarded);
    let places = map.keys().filter(|e| matches!(e, Entity::Place(..)));
    assert_eq!(places.count(), 2);
    for (entity, span) in &map {
        let word = match entity {
            Entity::Tiled(_) => continue,
            Entity::Schedule(_) => "@main",
            Entity::Place(..) => "place",
            Entity::Storage(..) => "value",
            Entity::Exchange(..) => "exchange",
            Entity::Scratch(..) => "scratch",
        };
        assert!(GATHER[span.clone()].starts_with(word), "{entity:?}");
    }
}

#[test]
fn mistakes_of_the_text_are_found() {
    let cases: &[(&str, &str, u16, &str)] = &[
        (
            "dojo mesh 1",
            "dojo mesh 2",
            codes::BAD_LEVEL,
            "dojo mesh 1",
        ),
        (
            "schedule @main()",
            "schedule @min()",
            codes::UNKNOWN_NAME,
            "@min",
        ),
        (
            "schedule @main() {route = yx",
            "schedule @main() {route = zx",
            codes::BAD_DECLARATION,
            "`xy` or `yx`",
        ),
        ("bytes = 520", "bytes = 521", codes::BAD_STORAGE, "take 520"),
        (
            "core = 2,",
            "core = 3,",
            codes::BAD_DECLARATION,
            "next core is 2",
        ),
        (
            "last = 1, to = [0, 0, 1]",
            "last = 2, to = [0, 0, 1]",
            codes::BAD_DECLARATION,
            "neighbours",
        ),
        (
            "last = 1, to = [0, 0, 1]",
            "last = 1, to = [0, 1, 1]",
            codes::BAD_DECLARATION,
            "neighbours",
        ),
        (
            "last = 1, to = [0, 0, 1]",
            "to = [0, 0, 1]",
            codes::BAD_DECLARATION,
            "belong together",
        ),
        ("value %1 {", "value %3 {", codes::UNKNOWN_NAME, "%3"),
        (
            "value %1 {",
            "value %0 {",
            codes::DUPLICATE_NAME,
            "two places",
        ),
        (
            "live = [1, 3]",
            "live = [1]",
            codes::BAD_DECLARATION,
            "[first, end]",
        ),
        (
            ", strides = [24, 4], live = [1, 3]",
            ", live = [1, 3]",
            codes::BAD_ATTRIBUTE,
            "`strides`",
        ),
        (
            "fill = 0.0",
            "fill = \"x\"",
            codes::BAD_DECLARATION,
            "number",
        ),
        ("fill = 0.0", "full = 0.0", codes::BAD_ATTRIBUTE, "`full`"),
        (
            "flows = 4, bytes",
            "flows = 5, bytes",
            codes::BAD_EXCHANGE,
            "`flows` is 4",
        ),
        (
            "receives = 1}]",
            "receives = 1}, {}]",
            codes::BAD_EXCHANGE,
            "1 stages, not 2",
        ),
        (
            "exchange %0 {stmt = 0",
            "exchange %0 {stmt = 1",
            codes::BAD_EXCHANGE,
            "not the reshard",
        ),
        (
            "exchange %0 {stmt = 0",
            "exchange {stmt = 1",
            codes::BAD_EXCHANGE,
            "not a reshard",
        ),
        (
            "view = [10, 6]",
            "stages = []",
            codes::BAD_STRUCTURE,
            "behind an `exchange`",
        ),
        (
            "forward(0, 1,",
            "move(0, 1,",
            codes::BAD_DECLARATION,
            "forward",
        ),
        ("scratch {", "scrap {", codes::BAD_STRUCTURE, "`scrap`"),
    ];
    for (from, to, code, message) in cases {
        assert_eq!(GATHER.matches(from).count(), 1, "{from}");
        let errors = parse(&GATHER.replacen(from, to, 1)).unwrap_err();
        let found = errors.0.iter().find(|d| d.code.0 == *code);
        let found = found.unwrap_or_else(|| panic!("{to}: {errors}"));
        assert!(found.message.contains(message), "{to}: {found}");
        assert!(found.place.is_some(), "{to}: {found}");
    }
    let end = GATHER.find("\n  schedule").unwrap();
    let errors = parse(&format!("{}}}\n", &GATHER[..end])).unwrap_err();
    assert!(errors.to_string().contains("has no schedule"), "{errors}");
}

#[test]
fn rules_of_malformed_layouts_are_refused() {
    for (from, to) in [
        (
            "split(10, [r]), 6], name",
            "split(10, [r], {unit = 0}), 6], name",
        ),
        (
            "split(10, [r]), 6], name",
            "split(10, [r], {stride = 0}), 6], name",
        ),
        ("split(10, [r]), 6], name", "split(10, [r, r]), 6], name"),
        ("r = core(2)", "r = core(0)"),
        ("r = core(2)", "r = core(18446744073709551615)"),
        (
            "split(10, [r]), 6], name",
            "split(18446744073709551615, [r]), 6], name",
        ),
    ] {
        assert!(GATHER.contains(from), "{from}");
        let text = GATHER
            .replacen(from, to, 1)
            .replace("{kind = all_gather} ", "");
        let errors = parse(&text).unwrap_err();
        let found = errors.0.iter().any(|d| d.code.0 == codes::BAD_EXCHANGE);
        assert!(found, "{to}: {errors}");
    }
}

fn machine() -> Machine {
    Machine::parse(Machine::builtin("mesh4x4").unwrap(), "mesh4x4").unwrap()
}

/// What the verifier says, each with its code and the word of the text that it points at.
fn violations(text: &str) -> Vec<(u16, String, String)> {
    let (module, map) = module(text);
    let found = verify_on(&module, &machine()).into_iter().map(|violation| {
        let (code, message) = (violation.code, violation.message.clone());
        let diagnostic = violation.into_diagnostic(&module, &map);
        let Some(crate::diag::Place::Span(span)) = diagnostic.place else {
            panic!("{diagnostic} has no place");
        };
        let word = text[span].split(' ').next().unwrap_or_default();
        (code, message, word.to_owned())
    });
    found.collect()
}

#[test]
fn a_sound_module_verifies() {
    assert_eq!(violations(GATHER), []);
    // Neighbours in memory and in time are no faults.
    for (from, to) in [
        (
            "{core = 2, at = [0, 1, 1], last = 3, to = [0, 1, 0]}",
            "{core = 2, at = [0, 3, 3], last = 3, to = [0, 3, 2]}",
        ),
        (
            "value %w {address = 448, bytes = 24,",
            "value %w {address = 448, bytes = 64,",
        ),
        (
            "value %x {address = 320, bytes = 72, strides = [24, 4]",
            "value %x {address = 320, bytes = 84, strides = [28, 4]",
        ),
        (
            "value %y {address = 0, bytes = 240",
            "value %y {address = 0, bytes = 320",
        ),
        (
            "scratch {stmt = 2, address = 512",
            "scratch {stmt = 1, address = 512",
        ),
        (
            "send(0, 0, [0, 0], [5, 6])",
            "send(0, 0, [0, 0], [2, 6]), send(0, 0, [2, 0], [3, 6])",
        ),
    ] {
        assert_eq!(GATHER.matches(from).count(), 1, "{from}");
        assert_eq!(
            violations(&GATHER.replacen(from, to, 1).replace(", bytes = 520", "")),
            [],
            "{to}"
        );
    }
}

/// A change of the sound module, and the code, words and place of what the verifier says to it.
type Fault = (&'static str, &'static str, u16, &'static str, &'static str);

const FAULTS: &[Fault] = &[
    (
        "place {core = 2, at = [0, 1, 1], last = 3, to = [0, 1, 0]}",
        "place {core = 2, at = [0, 0, 1]} place {core = 3, at = [0, 1, 0]}",
        codes::BAD_PLACE,
        "cores 1 and 2 are both at (0, 0, 1)",
        "place",
    ),
    (
        "{core = 2, at = [0, 1, 1], last = 3, to = [0, 1, 0]}",
        "{core = 2, at = [0, 4, 1], last = 3, to = [0, 4, 0]}",
        codes::BAD_PLACE,
        "core 3 is at (0, 4, 0), where mesh4x4 has no live core",
        "place",
    ),
    (
        "place {core = 2, at = [0, 1, 1], last = 3, to = [0, 1, 0]}",
        "place {core = 2, at = [0, 1, 1]}",
        codes::BAD_PLACE,
        "of which 3 have places",
        "@main",
    ),
    (
        "value %1 {address = 320,",
        "value %1 {address = 328,",
        codes::BAD_STORAGE,
        "no multiple of 64",
        "value",
    ),
    (
        "value %1 {address = 320, bytes = 120,",
        "value %1 {address = 320, bytes = 119,",
        codes::BAD_STORAGE,
        "bytes 0 to 120 of its 119",
        "value",
    ),
    (
        "strides = [24, 4], live = [1, 3]",
        "strides = [20, 4], live = [1, 3]",
        codes::BAD_STORAGE,
        "the same bytes",
        "value",
    ),
    (
        "strides = [24, 4], live = [1, 3]",
        "strides = [4], live = [1, 3]",
        codes::BAD_STORAGE,
        "1 strides for 2 dims",
        "value",
    ),
    (
        "strides = [24, 4], live = [1, 3]",
        "strides = [24, -4], live = [1, 3]",
        codes::BAD_STORAGE,
        "bytes -20 to",
        "value",
    ),
    (
        "value %w {address = 448, bytes = 24, strides = [4], live = [0, 4]}\n",
        "\n",
        codes::BAD_STORAGE,
        "`w`: it lies nowhere",
        "value",
    ),
    (
        "value %w {address = 448,",
        "value %w {address = 1310720,",
        codes::BEYOND_SRAM,
        "ends at byte 1310744",
        "value",
    ),
    (
        "scratch {stmt = 2, address = 512, bytes = 8",
        "scratch {stmt = 2, address = 512, bytes = 18446744073709551615",
        codes::BEYOND_SRAM,
        "scratch memory of statement 2",
        "scratch",
    ),
    (
        "value %w {address = 448,",
        "value %w {address = 384,",
        codes::SHARED_BYTES,
        "bytes 320..440) and `w` (bytes 384..408) overlap on core 0",
        "value",
    ),
    (
        "value %0 {address = 0,",
        "value %0 {address = 256,",
        codes::SHARED_BYTES,
        "at statement 0 `x`",
        "value",
    ),
    (
        "scratch {stmt = 2, address = 512",
        "scratch {stmt = 2, address = 192",
        codes::SHARED_BYTES,
        "scratch memory of statement 2",
        "scratch",
    ),
    (
        "strides = [24, 4], live = [0, 1]",
        "strides = [24, 4], live = [1, 1]",
        codes::DEAD_VALUE,
        "`x`: it is needed in statements 0..1",
        "value",
    ),
    (
        "strides = [4], live = [0, 4]",
        "strides = [4], live = [0, 2]",
        codes::DEAD_VALUE,
        "`w`: it is needed in statements 0..4",
        "value",
    ),
    (
        "strides = [24, 4], live = [1, 3]",
        "strides = [24, 4], live = [1, 2]",
        codes::DEAD_VALUE,
        "needed in statements 1..3",
        "value",
    ),
    (
        "strides = [24, 4], live = [2, 4]",
        "strides = [24, 4], live = [2, 3]",
        codes::DEAD_VALUE,
        "`y`: it is needed in statements 2..4",
        "value",
    ),
    (
        "strides = [24, 4], live = [2, 4]",
        "strides = [24, 4], live = [2, 5]",
        codes::DEAD_VALUE,
        "the body ends at 4",
        "value",
    ),
    (
        "strides = [24, 4], live = [2, 4]",
        "strides = [24, 4], live = [2, 4], alias = %w",
        codes::BAD_ALIAS,
        "by the views its own",
        "value",
    ),
    (
        "exchange %0 {stmt = 0, stages = [{flows = 4, bytes = 240, copied = 240, sends = 1, receives = 1}]}",
        "",
        codes::BAD_EXCHANGE,
        "nothing brings `x` in statement 0",
        "@main",
    ),
    (
        "exchange %0 {stmt = 0,",
        "exchange %0 {stmt = 0} exchange %0 {stmt = 0,",
        codes::BAD_EXCHANGE,
        "has an exchange already",
        "exchange",
    ),
    (
        "exchange %y {stmt = 2, view = [10, 6]}",
        "exchange {stmt = 1, view = [10, 6]}",
        codes::BAD_EXCHANGE,
        "statement 1 is not a reshard",
        "exchange",
    ),
    (
        "view = [10, 6]",
        "view = [10, 5]",
        codes::BAD_EXCHANGE,
        "does not refine",
        "exchange",
    ),
    (
        "send(2, 2, [5, 0], [5, 6])",
        "send(2, 2, [5, 0], [5, 7])",
        codes::BAD_FLOW,
        "does not lie in the tensor",
        "exchange",
    ),
    (
        "send(2, 2, [5, 0], [5, 6])",
        "send(2, 2, [5, 0], [0, 6])",
        codes::BAD_FLOW,
        "does not lie in the tensor",
        "exchange",
    ),
    (
        "send(0, 2, [0, 0], [5, 6])",
        "send(3, 2, [0, 0], [5, 6])",
        codes::BAD_FLOW,
        "core 3 at (0, 1, 0) to core 2 at (0, 1, 1): the box at [0, 0] of [5, 6] is not what the sender has",
        "exchange",
    ),
    (
        "send(0, 2, [0, 0], [5, 6])",
        "send(0, 4, [0, 0], [5, 6])",
        codes::BAD_FLOW,
        "not what the receiver needs",
        "exchange",
    ),
    (
        "send(0, 2, [0, 0], [5, 6])",
        "forward(0, 2, [0, 0], [5, 6])",
        codes::BAD_FLOW,
        "not what the sender has",
        "exchange",
    ),
    (
        "forward(0, 1, [5, 0], [5, 6])",
        "forward(0, 1, [5, 0], [4, 6])",
        codes::NOT_DELIVERED,
        "core 1 at (0, 0, 1) gets 54 of the 60 elements",
        "exchange",
    ),
    (
        "forward(0, 1, [5, 0], [5, 6])",
        "forward(0, 1, [0, 0], [5, 6])",
        codes::NOT_DELIVERED,
        "core 1 at (0, 0, 1) gets the element [0, 0] twice",
        "exchange",
    ),
    (
        "scratch {stmt = 2,",
        "scratch {stmt = 3,",
        codes::BAD_SCRATCH,
        "there is no statement 3",
        "scratch",
    ),
    (
        "scratch {stmt = 2, address = 512,",
        "scratch {stmt = 2, address = 520,",
        codes::BAD_SCRATCH,
        "no multiple",
        "scratch",
    ),
    (
        "scratch {stmt = 2, address = 512, bytes = 8}",
        "scratch {stmt = 2, address = 512, bytes = 8} scratch {stmt = 2, address = 576, bytes = 8}",
        codes::BAD_SCRATCH,
        "already",
        "scratch",
    ),
];

#[test]
fn every_fault_is_found() {
    for (from, to, code, message, word) in FAULTS {
        assert_eq!(GATHER.matches(from).count(), 1, "{from}");
        let to = to.replace("} ", "}\n    ");
        let text = GATHER.replacen(from, &to, 1).replace(", bytes = 520", "");
        // What lies nowhere has no place in the text.
        if to == "\n" {
            let (module, _) = module(&text);
            let found = verify_on(&module, &machine());
            let found = found
                .iter()
                .find(|v| v.code == *code && v.message.contains(message));
            assert!(found.is_some(), "{message}");
            continue;
        }
        let found = violations(&text);
        let one = |(c, m, w): &(u16, String, String)| c == code && m.contains(message) && w == word;
        assert!(found.iter().any(one), "{to}: {found:?}");
        assert!(found.iter().all(|(c, ..)| c == code), "{to}: {found:?}");
    }
    let found: std::collections::BTreeSet<u16> = FAULTS.iter().map(|fault| fault.2).collect();
    let all = crate::codes::CODES
        .iter()
        .map(|c| c.code)
        .filter(|c| (276..290).contains(c));
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        all.collect::<Vec<_>>()
    );
}

#[test]
fn a_core_has_few_peers() {
    let text = GATHER.replace("mesh4x4", "d1").replace(", bytes = 520", "");
    let (mut wide, _) = module(&text);
    let func = wide.tiled.functions.ids().next().unwrap();
    let stage = &mut Arc::make_mut(&mut wide.schedules[func].exchanges[1].1).stages[0];
    let flow = stage[1].clone();
    stage.extend((4..69).map(|to| Flow { to, ..flow.clone() }));
    let found = verify(&wide);
    assert!(
        found.iter().any(|v| v
            .message
            .contains("core 0 at (0, 0, 0) has more than 64 peers")),
        "{found:?}"
    );
}

#[test]
fn a_view_has_the_bytes_of_its_value() {
    let text = GATHER
        .replace("%y = reshard %1 {kind = all_gather} : f32[10, 6] @ on{grid = @g}\n", "%2 = view %1 : f32[60] @ on{grid = @g, dims = [split(60, [r], {unit = 6})]}\n    %y = reshard %2 {kind = all_gather} : f32[60] @ on{grid = @g}\n")
        .replace("-> (%y : f32[10, 6]", "-> (%y : f32[60]")
        .replace("value %y {address = 0, bytes = 240, strides = [24, 4], live = [2, 4]}", "value %2 {address = 320, bytes = 120, strides = [4], live = [1, 4], alias = %1}\n    value %y {address = 0, bytes = 240, strides = [4], live = [3, 5]}")
        .replace("strides = [24, 4], live = [1, 3]", "strides = [24, 4], live = [1, 4]")
        .replace("strides = [4], live = [0, 4]", "strides = [4], live = [0, 5]")
        .replace("stmt = 2", "stmt = 3")
        .replace("view = [10, 6]", "view = [60]")
        .replace("[0, 0], [5, 6])", "[0], [30])")
        .replace("[5, 0], [5, 6])", "[30], [30])")
        .replace(", bytes = 520", "");
    assert_eq!(violations(&text), []);
    for (from, to, code, message) in [
        (
            "%2 {address = 320",
            "%2 {address = 512",
            codes::BAD_ALIAS,
            "are not those of",
        ),
        (
            "bytes = 120, strides = [4], live = [1, 4]",
            "bytes = 128, strides = [4], live = [1, 4]",
            codes::BAD_ALIAS,
            "are not those of",
        ),
        (
            "live = [1, 4], alias = %1",
            "live = [1, 4]",
            codes::BAD_ALIAS,
            "its bytes are its own",
        ),
        (
            "live = [1, 4], alias = %1",
            "live = [1, 4], alias = %0",
            codes::BAD_ALIAS,
            "its bytes are those of `x`",
        ),
        (
            "strides = [24, 4], live = [1, 4]",
            "strides = [24, 4], live = [1, 3]",
            codes::DEAD_VALUE,
            "needed in statements 1..4",
        ),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        let found = violations(&text.replacen(from, to, 1));
        assert!(
            found
                .iter()
                .any(|(c, m, _)| *c == code && m.contains(message)),
            "{to}: {found:?}"
        );
    }
}

/// What a change of the sound module gives, for the inputs and outputs of that.
fn run(text: &str) -> Result<Vec<f64>, u16> {
    let (module, _) = module(text);
    let func = module.tiled.functions.ids().next().unwrap();
    let x: Vec<f32> = (0..60).map(|n| (n as f32 * 0.73).sin()).collect();
    let x = Tensor::from_vec(&[10, 6], x);
    let mut states = tiled::eval::initial_states(&module.tiled).unwrap();
    let options = tiled::eval::Options::default();
    let found = eval::run(&module, func, &[x], &mut states, options);
    found
        .map(|outputs| outputs[0].to_f64s())
        .map_err(|e| e.code.0)
}

#[test]
fn values_go_through_memory() {
    let wanted: Vec<f64> = (0..60)
        .map(|n| f64::from((n as f32 * 0.73).sin() * 2.0))
        .collect();
    assert_eq!(run(GATHER).as_ref(), Ok(&wanted));
    // What is sound in another way gives the same.
    for (from, to) in [
        (
            "strides = [24, 4], live = [1, 3]",
            "strides = [4, 20], live = [1, 3]",
        ),
        ("send(0, 0, [0, 0], [5, 6])", "send(1, 0, [0, 0], [5, 6])"),
        ("value %w {address = 448,", "value %w {address = 576,"),
    ] {
        assert_eq!(GATHER.matches(from).count(), 1, "{from}");
        let text = GATHER.replacen(from, to, 1).replace(", bytes = 520", "");
        assert_eq!(run(&text).as_ref(), Ok(&wanted), "{to}");
        assert_eq!(violations(&text), [], "{to}");
    }
    // What is not gives other numbers or none.
    for (from, to, error) in [
        ("value %0 {address = 0,", "value %0 {address = 256,", None),
        (
            "strides = [24, 4], live = [1, 3]",
            "strides = [20, 4], live = [1, 3]",
            None,
        ),
        (
            "strides = [24, 4], live = [1, 3]",
            "strides = [24, 4], live = [1, 2]",
            None,
        ),
        (
            "strides = [4], live = [0, 4]",
            "strides = [4], live = [0, 1]",
            None,
        ),
        (
            "strides = [24, 4], live = [2, 4]",
            "strides = [24, 4], live = [2, 3]",
            None,
        ),
        (
            "strides = [24, 4], live = [2, 4]",
            "strides = [24, 4], live = [3, 4]",
            None,
        ),
        (
            "scratch {stmt = 2, address = 512",
            "scratch {stmt = 2, address = 192",
            None,
        ),
        (
            "scratch {stmt = 2, address = 512",
            "scratch {stmt = 2, address = 384",
            None,
        ),
        (
            "forward(0, 1, [5, 0], [5, 6])",
            "forward(0, 1, [5, 0], [4, 6])",
            Some(codes::REPLICAS_DIFFER),
        ),
        (
            "send(2, 0, [5, 0], [5, 6]), ",
            "",
            Some(codes::REPLICAS_DIFFER),
        ),
        (
            "send(2, 0, [5, 0], [5, 6])",
            "send(1, 0, [5, 0], [5, 6])",
            Some(codes::BAD_FLOW),
        ),
        (
            "send(2, 0, [5, 0], [5, 6])",
            "send(2, 0, [5, 0], [6, 6])",
            Some(codes::BAD_FLOW),
        ),
        (
            "send(2, 0, [5, 0], [5, 6])",
            "send(2, 4, [5, 0], [5, 6])",
            Some(codes::BAD_STORAGE),
        ),
        (
            "forward(0, 1, [5, 0], [5, 6])",
            "send(0, 1, [5, 0], [5, 6])",
            Some(codes::BAD_FLOW),
        ),
        (
            "value %y {address = 0, bytes = 240, strides = [24, 4]",
            "value %y {address = 0, bytes = 240, strides = [64, 4]",
            Some(codes::BEYOND_SRAM),
        ),
    ] {
        assert_eq!(GATHER.matches(from).count(), 1, "{from}");
        let text = GATHER.replacen(from, to, 1).replace(", bytes = 520", "");
        match (run(&text), error) {
            (Ok(found), None) => assert_ne!(found, wanted, "{to}"),
            (Err(found), Some(code)) => assert_eq!(found, code, "{to}"),
            (found, _) => panic!("{to}: {found:?}"),
        }
        assert_ne!(violations(&text), [], "{to}");
    }
}
