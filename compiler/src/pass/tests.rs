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
