use dojoc_ir::entity::EntityId as _;
use dojoc_ir::graph::NodeId;
use dojoc_ir::ops::Op;
use dojoc_ir::ops::Unary;
use dojoc_ir::scalar::UnaryFn;

use super::*;

const TEXT: &str = "dojo graph 1
module @m {
  func @main(%x : f32[4]) -> (%y : f32[4]) {
    %a = neg %x : f32[4]
    %y = abs %a : f32[4]
    return %y
  }
}";

fn module() -> Module {
    Module::parse(TEXT).expect("the text is right")
}

fn first_node(module: &mut Module) -> &mut dojoc_ir::graph::Node {
    let func = module.main().expect("there is one");
    &mut module.functions[func].nodes[NodeId::from_index(0)]
}

/// Replaces the first op by another of the same type.
fn replace_first(mut module: Module, f: UnaryFn, cx: &mut PassCx<'_>) -> Module {
    if cx.spend() {
        first_node(&mut module).op = Op::from(Unary(f));
    }
    module
}

const HARMLESS: Pass<Module> = Pass {
    name: "harmless",
    doc: "Changes nothing.",
    effect: Effect::Exact,
    run: |module, _| Ok(module),
};
const BREAKS: Pass<Module> = Pass {
    name: "breaks",
    doc: "Leaves a result of the wrong type.",
    effect: Effect::Exact,
    run: |module, cx| Ok(replace_first(module, UnaryFn::IsNan, cx)),
};
const DISTORTS: Pass<Module> = Pass {
    name: "distorts",
    doc: "Computes something else.",
    effect: Effect::Bounded,
    run: |module, cx| Ok(replace_first(module, UnaryFn::Exp, cx)),
};

#[test]
fn broken_ir_names_the_pass() {
    let mut run = Run::new(RunOptions::default());
    let failure = run.graph([&HARMLESS, &BREAKS], module()).unwrap_err();
    assert_eq!(failure.pass, "breaks");
    let first = &failure.diagnostics.0[0];
    assert_eq!((first.code.0, first.kind), (BROKEN_IR, Kind::Bug));
    assert!(
        first
            .message
            .starts_with("after pass `breaks`: D0201: is_nan gives bool[4]")
    );
    assert!(failure.dump.is_some_and(|d| d.contains("is_nan %x")));
    assert_eq!(run.stats.len(), 2);
}

#[test]
fn verification_can_be_left_out() {
    let options = RunOptions {
        verify: false,
        ..RunOptions::default()
    };
    assert!(Run::new(options).graph([&BREAKS], module()).is_ok());
}

#[test]
fn validation_names_the_first_pass_outside_its_bound() {
    let options = RunOptions {
        validate: Some(Validation::default()),
        ..RunOptions::default()
    };
    let mut run = Run::new(options);
    let failure = run
        .graph([&HARMLESS, &DISTORTS, &HARMLESS], module())
        .unwrap_err();
    assert_eq!(failure.pass, "distorts");
    let first = &failure.diagnostics.0[0];
    assert_eq!(first.code.0, VALUES_DIFFER);
    assert!(first.message.contains("`distorts`"), "{first}");
    assert!(failure.dump.is_some());
}

fn validated() -> (Module, Validator) {
    let options = RunOptions {
        validate: Some(Validation::default()),
        ..RunOptions::default()
    };
    let mut run = Run::new(options);
    let module = run.graph([&HARMLESS], module()).expect("nothing changes");
    (module, run.validator.expect("it was asked for"))
}

#[test]
fn validation_names_the_first_value_of_a_level_outside_its_bound() {
    let (module, mut validator) = validated();
    let machine = Machine::parse(
        Machine::builtin("mesh4x4").expect("it is built in"),
        "mesh4x4",
    );
    let machine = machine.expect("the file is right");
    let tiled = crate::tile::tile(&module, &machine, &Default::default());
    let tiled = tiled.expect("two loops").module;
    validator.check_tiled(&tiled).expect("the levels agree");
    let levels: Vec<_> = validator
        .agreements
        .iter()
        .map(|a| (a.level, a.points))
        .collect();
    // %a, %y and the output; %x is what the values are computed from.
    assert_eq!(levels, [("import", 4), ("GRAPH", 4), ("TILED", 4)]);

    let mut wrong = tiled.clone();
    let (_, function) = wrong.functions.iter_mut().next().expect("there is one");
    let body = function.body();
    let steps = function.bodies[body]
        .stmts
        .iter_mut()
        .find_map(|stmt| match stmt {
            dojoc_ir::tiled::Stmt::Group(group) => Some(&mut group.steps),
            _ => None,
        });
    steps.expect("a group")[0].op = Op::from(Unary(UnaryFn::Exp));
    let found = validator.check_tiled(&wrong).expect_err("exp is not neg");
    assert_eq!((found.code.0, found.kind), (VALUES_DIFFER, Kind::Bug));
    let start =
        "after `tile` value `%a` of function `main` is outside its bound at TILED: element 0";
    assert!(found.message.starts_with(start), "{found}");
}

#[test]
fn validation_wants_all_outputs_of_a_level() {
    let (_, mut validator) = validated();
    let found = validator.check_level("PROGRAM", "emit", &mut |_, _, _| Ok(()));
    let found = found.expect_err("nothing was shown");
    assert!(found.message.contains("no output `y`"), "{found}");
    let stops = Diagnostic::input(CANCELLED, "stopped");
    let found = validator.check_level("PROGRAM", "emit", &mut |_, _, _| Err(stops.clone().into()));
    assert_eq!(found.expect_err("it was stopped").code.0, CANCELLED);
}

#[test]
fn fuel_is_shared_by_all_passes() {
    let options = RunOptions {
        fuel: Some(1),
        ..RunOptions::default()
    };
    let mut run = Run::new(options);
    let result = run
        .graph([&DISTORTS, &BREAKS], module())
        .expect("no fuel to break anything");
    assert!(result.to_string().contains("exp %x"));
    assert_eq!(
        run.stats.iter().map(|s| s.changes).collect::<Vec<_>>(),
        [1, 0]
    );
}

#[test]
fn dumps_are_the_exact_text() {
    let mut dumps = vec![];
    let mut sink = |pass: &str, text: &str| dumps.push((pass.to_owned(), text.to_owned()));
    let options = RunOptions {
        dump_after: DumpAfter::Pass("distorts".into()),
        dump: Some(&mut sink),
        ..RunOptions::default()
    };
    let result = Run::new(options)
        .graph([&HARMLESS, &DISTORTS], module())
        .expect("verifies");
    assert_eq!(dumps, [("distorts".to_owned(), result.to_string())]);
}

#[test]
fn cancelling_is_an_error() {
    let flag = AtomicBool::new(true);
    let options = RunOptions {
        cancel: Some(&flag),
        ..RunOptions::default()
    };
    let failure = Run::new(options).graph([&HARMLESS], module()).unwrap_err();
    assert_eq!(failure.diagnostics.0[0].code.0, CANCELLED);
}

#[test]
fn codes_ascend() {
    assert!(CODES.is_sorted_by_key(|c| c.code));
}
