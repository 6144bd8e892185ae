//! Modules by hand: printed and read back, verified, run.

use super::eval::{Options, initial_states, run};
use super::*;
use crate::codes;
use crate::diag::Diagnostics;
use crate::entity::EntityId as _;
use crate::level::Level as _;
use crate::ops::{Conv, Dot, EvalCx, EvalError, OpDef};
use crate::tensor::Tensor;
use crate::types::DType;

const GEMM: &str = r#"dojo tiled 1

module @gemm {machine = "small_2x1"} {
  grid @g {first = 0, axes = {chip = chip(2), r = core(2), c = core(2)}}
  weight @w : f32[6, 9] = external("w.bin", 0, 216)

  func @main(%x : f32[10, 6] @ on{grid = @g, dims = [split(10, [chip, r, c]), 6]}) -> (%y : f32[10, 9] @ on{grid = @g}) {
    %0 = weight @w : f32[6, 9] @ on{grid = @g, dims = [6, split(9, [c], {unit = 4})]}
    %1 = reshard %x {kind = all_gather} : f32[10, 6] @ on{grid = @g, dims = [split(10, [chip, r]), 6], name = "x"}
    group @g (
      { ^()
        %2 = dot %1, %0 {batch = [], contract = [[1, 0]], tile = {loops = [1, 1, 1], split = [loop(0, [chip, r]), loop(1, [c], 4)]}} : f32[10, 9] @ on{grid = @g, dims = [split(10, [chip, r]), split(9, [c], {unit = 4})]} loc("MatMul_1", "net.onnx":3)
        %3 = neg %2 {tile = {loops = [1, 1], split = [loop(0, [chip, r]), loop(1, [c], 4)]}} : f32[10, 9] @ on{grid = @g, dims = [split(10, [chip, r]), split(9, [c], {unit = 4})]}
        yield
      }
    )
    %y = reshard %3 {kind = all_gather} : f32[10, 9] @ on{grid = @g}
    return %y
  }
}
"#;

/// Values whose sum depends on the order of its terms.
fn rough(shape: &[u64]) -> Tensor {
    let count = shape.iter().product::<u64>();
    let values = (0..count).map(|n| (n as f32 * 0.7391).sin() * (n as f32 * 1.37).cos().exp());
    Tensor::from_vec(shape, values.collect::<Vec<f32>>())
}

fn module(text: &str) -> Module {
    let (module, map) = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let violations = verify(&module);
    let messages: Vec<String> = violations
        .into_iter()
        .map(|v| v.into_diagnostic(&module, &map).to_string())
        .collect();
    assert!(messages.is_empty(), "{}", messages.join("\n"));
    assert_eq!(module.to_string(), text, "printed as it was written");
    module
}

fn outputs(module: &mut Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let mut states = initial_states(module).map_err(|e| e.to_string())?;
    let main = FuncId::from_index(0);
    run(module, main, inputs, &mut states, Options::default()).map_err(|e| e.to_string())
}

fn eval(op: &impl OpDef, args: &[Tensor]) -> Tensor {
    let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
    op.eval(args, &mut EvalCx::new(&mut none))
        .unwrap()
        .remove(0)
}

#[test]
fn a_product_over_two_chips() {
    let mut m = module(GEMM);
    let w = rough(&[6, 9]);
    m.weights[graph::WeightId::from_index(0)].data = Some(w.clone());
    let x = rough(&[10, 6]);
    let found = outputs(&mut m, std::slice::from_ref(&x)).unwrap();
    let product = eval(&Dot::matmul(2), &[x, w]);
    let expected: Vec<f64> = product.to_f64s().into_iter().map(|v| -v).collect();
    assert_eq!(found[0].to_f64s(), expected);
}

#[test]
fn a_convolution_with_halo() {
    let text = r#"dojo tiled 1

module @conv {machine = "d1"} {
  grid @g {first = 0, axes = {o = core(2), p = core(3)}}

  func @main(%x : f32[1, 2, 10] @ on{grid = @g, dims = [2, split(10, [p])]}, %w : f32[3, 2, 3] @ on{grid = @g, dims = [split(3, [o]), 2, 3]}) -> (%y : f32[1, 3, 5] @ on{grid = @g, dims = [split(3, [o]), split(5, [p])]}) {
    %0 = reshard %x {kind = halo} : f32[1, 2, 10] @ on{grid = @g, dims = [2, split(10, [p], {of = 5, stride = 2, low = 1, high = 1})], name = "x"}
    group @g (
      { ^()
        %y = conv %0, %w {stride = [2], pad = [[1, 1]], dilation = [1], groups = 1, tile = {loops = [2, 1, 1, 1, 1], split = [loop(1, [o]), loop(2, [p])]}} : f32[1, 3, 5] @ on{grid = @g, dims = [split(3, [o]), split(5, [p])]}
        yield
      }
    )
    return %y
  }
}
"#;
    let mut m = module(text);
    let (x, w) = (rough(&[1, 2, 10]), rough(&[3, 2, 3]));
    let found = outputs(&mut m, &[x.clone(), w.clone()]).unwrap();
    let conv = Conv {
        stride: vec![2],
        pad: vec![(1, 1)],
        dilation: vec![1],
        groups: 1,
        out: None,
    };
    assert_eq!(found[0], eval(&conv, &[x, w]));
    // Without the halo the cores lack what they read.
    let wrong = text.replace(", low = 1, high = 1", "");
    let codes = codes_of(&wrong);
    assert_eq!(codes, [codes::OPERAND_LAYOUT]);
}

fn codes_of(text: &str) -> Vec<u16> {
    match parse(text) {
        Err(Diagnostics(errors)) => errors.iter().map(|e| e.code.0).collect(),
        Ok((module, _)) => verify(&module).iter().map(|v| v.code).collect(),
    }
}

const PENDING: &str = r#"dojo tiled 1

module @pending {machine = "d1"} {
  grid @g {first = 4, axes = {r = core(2), k = core(3)}}

  func @main(%x : f32[5, 7] @ on{grid = @g, dims = [split(5, [r]), split(7, [k])]}, %w : f32[7, 4] @ on{grid = @g, dims = [split(7, [k]), 4]}) -> (%y : f32[5, 4] @ on{grid = @g, dims = [split(5, [r]), split(4, [k])]}, %z : f32[5, 4] @ on{grid = @g}) {
    group @g (
      { ^()
        %0 = dot %x, %w {batch = [], contract = [[1, 0]], tile = {loops = [1, 1, 1], split = [loop(0, [r]), loop(2, [k])]}} : f32[5, 4] @ on{grid = @g, dims = [split(5, [r]), 4], pending = {k = sum}}
        yield
      }
    )
    %y = reshard %0 {kind = reduce_scatter} : f32[5, 4] @ on{grid = @g, dims = [split(5, [r]), split(4, [k])]}
    %z = reshard %0 {kind = all_reduce} : f32[5, 4] @ on{grid = @g}
    return %y, %z
  }
}
"#;

#[test]
fn contributions_are_combined_in_order() {
    let mut m = module(PENDING);
    let (x, w) = (rough(&[5, 7]), rough(&[7, 4]));
    let found = outputs(&mut m, &[x.clone(), w.clone()]).unwrap();
    assert_eq!(found[0], found[1]);
    // Blocks of 2, 2 and 3 of k.
    let (x, w) = (x.stored::<f32>().to_vec(), w.stored::<f32>().to_vec());
    let mut expected = vec![];
    for row in 0..5 {
        for column in 0..4 {
            let part = |ks: std::ops::Range<usize>| {
                ks.fold(0f32, |s, k| s + x[row * 7 + k] * w[k * 4 + column])
            };
            expected.push(part(0..2) + part(2..4) + part(4..7));
        }
    }
    assert_eq!(found[0], Tensor::from_vec(&[5, 4], expected));
}

#[test]
fn a_linearised_group_in_uneven_blocks() {
    let text = r#"dojo tiled 1

module @flat {machine = "d1"} {
  grid @g {first = 0, axes = {i = core(5)}}

  func @main(%x : f32[3, 4, 7] @ on{grid = @g, dims = [split(84, [i], {unit = 8})]}, %b : f32[3, 4, 7] @ on{grid = @g}) -> (%y : f32[84] @ on{grid = @g, dims = [split(84, [i], {unit = 8})]}) {
    group @g (
      { ^()
        %0 = add %x, %b {tile = {loops = [3], split = [loop(0, [i], 8)]}} : f32[3, 4, 7] @ on{grid = @g, dims = [split(84, [i], {unit = 8})]}
        yield
      }
    )
    %y = view %0 : f32[84] @ on{grid = @g, dims = [split(84, [i], {unit = 8})]}
    return %y
  }
}
"#;
    let mut m = module(text);
    let grid = &m.grids[GridId::from_index(0)];
    let layout = &m.functions[FuncId::from_index(0)].values[ValueId::from_index(0)].layout;
    let blocks: Vec<_> = (0..5)
        .map(|c| layout.block(grid, &[c])[0].clone())
        .collect();
    assert_eq!(blocks, [0..16, 16..32, 32..48, 48..64, 64..84]);
    let (x, b) = (rough(&[3, 4, 7]), rough(&[3, 4, 7]));
    let found = outputs(&mut m, &[x.clone(), b]).unwrap();
    let expected: Vec<f32> = x.stored::<f32>().iter().map(|v| v + v).collect();
    assert_eq!(found[0], Tensor::from_vec(&[84], expected));
}

const LOOP: &str = r#"dojo tiled 1

module @loop {machine = "d1"} {
  grid @g {first = 0, axes = {r = core(3)}}
  weight @w : f32[4, 4] = dense(0.25)
  state @s : f32[4] = zeros

  func @main(%x : f32[6, 4] @ on{grid = @g, dims = [split(6, [r]), 4]}) -> (%y : f32[6, 4] @ on{grid = @g, dims = [split(6, [r]), 4]}, %s : f32[4] @ on{grid = @g} aliases @s) {
    %w = weight @w : f32[4, 4] @ on{grid = @g}
    %0 = state @s : f32[4] @ on{grid = @g}
    %1 = repeat %x {count = 3} (
      { ^(%c : f32[6, 4] @ on{grid = @g, dims = [split(6, [r]), 4]})
        group @g (
          { ^()
            %2 = dot %c, %w {batch = [], contract = [[1, 0]], tile = {loops = [1, 1, 1], split = [loop(0, [r])]}} : f32[6, 4] @ on{grid = @g, dims = [split(6, [r]), 4]}
            yield
          }
        )
        yield %2
      }
    ) : f32[6, 4] @ on{grid = @g, dims = [split(6, [r]), 4]} loc("Loop_1")
    group @g (
      { ^()
        %3 = add %0, %0 {tile = {loops = [1]}} : f32[4] @ on{grid = @g}
        %4 = full {dtype = f32, shape = [4], value = 1, tile = {loops = [1]}} : f32[4] @ on{grid = @g}
        %5 = add %3, %4 {tile = {loops = [1]}} : f32[4] @ on{grid = @g}
        yield
      }
    )
    return %1, %5
  }
}
"#;

#[test]
fn a_loop_carries_values_and_states_live_on() {
    let m = module(LOOP);
    let mut states = initial_states(&m).unwrap();
    let x = Tensor::splat(DType::F32, &[6, 4], crate::scalar::Scalar::F32(3.0));
    for expected in [1.0, 3.0, 7.0] {
        let main = FuncId::from_index(0);
        let found = run(
            &m,
            main,
            std::slice::from_ref(&x),
            &mut states,
            Options::default(),
        )
        .unwrap();
        assert_eq!(found[0], x, "the product with an averaging matrix");
        assert_eq!(found[1].to_f64s(), [expected; 4]);
    }
}

const RING: &str = r#"dojo tiled 1

module @ring {machine = "d1"} {
  grid @g {first = 0, axes = {r = core(3)}}

  func @main(%x : f32[6, 7] @ on{grid = @g, dims = [split(6, [r]), 7]}, %w : f32[7, 5] @ on{grid = @g, dims = [split(7, [r]), 5]}) -> (%y : f32[6, 5] @ on{grid = @g, dims = [split(6, [r]), 5]}) {
    group @g (
      { ^()
        %y = dot %x, %w {batch = [], contract = [[1, 0]], tile = {loops = [1, 1, 1], split = [loop(0, [r])], temporal = [cut(2, 3, 1, r)]}} : f32[6, 5] @ on{grid = @g, dims = [split(6, [r]), 5]}
        yield
      }
    )
    return %y
  }
}
"#;

#[test]
fn an_operand_shifts_around_a_ring() {
    // The axis of the ring splits the rows as well.
    assert_eq!(codes_of(RING), [codes::BAD_TEMPORAL]);
    let grid = "{q = core(2), r = core(3)}";
    let text = RING
        .replace("{r = core(3)}", grid)
        .replace("split(6, [r])", "split(6, [q])")
        .replace("loop(0, [r])", "loop(0, [q])");
    // The result of a core starts with another part than that of its neighbour, so replicas differ.
    let mut m = module(&text);
    let (x, w) = (rough(&[6, 7]), rough(&[7, 5]));
    let found = outputs(&mut m, &[x.clone(), w.clone()]);
    assert!(
        found.unwrap_err().contains("D0273"),
        "three summands in three orders"
    );
    let ones = [x, w].map(|t| {
        let ints = t
            .stored::<f32>()
            .iter()
            .map(|v| (v * 4.0).round())
            .collect();
        Tensor::from_vec::<f32>(t.shape(), ints)
    });
    let found = outputs(&mut m, &ones).unwrap();
    assert_eq!(found[0], eval(&Dot::matmul(2), &ones));
}

#[test]
fn kernels_run_on_shards() {
    let text = r#"dojo tiled 1

module @kernel {machine = "d1"} {
  grid @g {first = 0, axes = {r = core(4)}}

  func @main(%x : f32[6, 5] @ on{grid = @g, dims = [split(6, [r]), 5]}) -> (%v : f32[6, 2] @ on{grid = @g, dims = [split(6, [r]), 2]}, %i : i64[6, 2] @ on{grid = @g, dims = [split(6, [r]), 2]}) {
    group @g (
      { ^()
        %v, %i = top_k %x {axis = 1, k = 2, largest = true, tile = {split = [loop(0, [r])]}} : f32[6, 2] @ on{grid = @g, dims = [split(6, [r]), 2]}, i64[6, 2] @ on{grid = @g, dims = [split(6, [r]), 2]}
        yield
      }
    )
    return %v, %i
  }
}
"#;
    let mut m = module(text);
    let x = rough(&[6, 5]);
    let found = outputs(&mut m, std::slice::from_ref(&x)).unwrap();
    let step = match &m.functions[FuncId::from_index(0)].bodies[BodyId::from_index(0)].stmts[0] {
        Stmt::Group(group) => group.steps[0].clone(),
        other => panic!("{other:?}"),
    };
    let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
    let expected = step.op.eval(&[x], &mut EvalCx::new(&mut none)).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn values_are_observed_and_runs_cancelled() {
    let m = module(PENDING);
    let mut states = initial_states(&m).unwrap();
    let inputs = [rough(&[5, 7]), rough(&[7, 4])];
    let mut seen = vec![];
    let mut observe = |value: ValueId, tensor: &Tensor| seen.push((value, tensor.clone()));
    let options = Options {
        observe: Some(&mut observe),
        cancel: None,
    };
    let main = FuncId::from_index(0);
    let found = run(&m, main, &inputs, &mut states, options).unwrap();
    assert_eq!(seen.len(), 5);
    assert_eq!(seen[0].1, inputs[0]);
    assert_eq!(seen[2].1, found[0], "contributions are observed combined");
    let stop = std::sync::atomic::AtomicBool::new(true);
    let options = Options {
        observe: None,
        cancel: Some(&stop),
    };
    let error = run(&m, main, &inputs, &mut states, options).unwrap_err();
    assert_eq!(error.code.0, codes::CANCELLED);
    let error = run(&m, main, &inputs[1..], &mut states, Options::default()).unwrap_err();
    assert_eq!(error.code.0, codes::WRONG_INPUTS);
    let swapped = [inputs[1].clone(), inputs[0].clone()];
    let error = run(&m, main, &swapped, &mut states, Options::default()).unwrap_err();
    assert_eq!(error.code.0, codes::WRONG_INPUTS);
}

/// A change of a module's text and what the parser or verifier says to it.
fn check_changes(text: &str, changes: &[(&str, &str, &[u16])]) {
    module(text);
    for (from, to, expected) in changes {
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        assert_eq!(codes_of(&changed), *expected, "{from} -> {to}");
    }
}

#[test]
fn what_is_wrong_with_the_text_is_said() {
    check_changes(
        LOOP,
        &[
            ("dojo tiled 1", "dojo tiled 2", &[codes::BAD_LEVEL]),
            ("dojo tiled 1", "dojo graph 1", &[codes::BAD_LEVEL]),
            ("module @loop", "modul @loop", &[codes::BAD_DECLARATION]),
            ("machine = \"d1\"", "machine = 1", &[codes::BAD_DECLARATION]),
            ("r = core(3)", "r = socket(3)", &[codes::BAD_DECLARATION]),
            (
                "f32[6, 4] @ on{grid = @g, dims = [split(6, [r]), 4]}) ->",
                "f32[6, 4]) ->",
                &[codes::BAD_TYPE],
            ),
            (
                "on{grid = @g, dims = [split(6, [r]), 4]}) ->",
                "on{dims = [6, 4]}) ->",
                &[codes::BAD_DECLARATION],
            ),
            (
                "split(6, [r]), 4]}) ->",
                "split(6, [z]), 4]}) ->",
                &[codes::UNKNOWN_NAME],
            ),
            (
                "split(6, [r]), 4]}) ->",
                "split(6, [r], {x = 1}), 4]}) ->",
                &[codes::BAD_DECLARATION],
            ),
            (
                "weight @w : f32[4, 4] @",
                "weight @v : f32[4, 4] @",
                &[codes::UNKNOWN_NAME],
            ),
            ("dot %c, %w", "dot %c, %x", &[codes::UNKNOWN_NAME]),
            ("= dot", "= dott", &[codes::UNKNOWN_OP]),
            ("{count = 3}", "{}", &[codes::BAD_ATTRIBUTE]),
            ("{count = 3}", "{count = -3}", &[codes::BAD_DECLARATION]),
            ("repeat %x", "loop %x", &[codes::BAD_STRUCTURE]),
            (
                "yield %2",
                "return %2",
                &[codes::BAD_STRUCTURE, codes::BAD_STRUCTURE],
            ),
            ("loop(0, [r])", "loop(0)", &[codes::BAD_DECLARATION]),
            ("aliases @s", "aliases @w", &[codes::UNKNOWN_NAME]),
            ("return %1, %5", "return %1", &[codes::OUTPUT_MISMATCH]),
            ("return %1, %5", "return %5, %5", &[codes::OUTPUT_MISMATCH]),
        ],
    );
    let wrong_kind = PENDING.replace("kind = all_reduce", "kind = halo");
    assert_eq!(codes_of(&wrong_kind), [codes::BAD_RESHARD]);
}

#[test]
fn broken_rules_have_codes() {
    check_changes(
        LOOP,
        &[
            ("r = core(3)", "r = core(0)", &[codes::BAD_GRID]),
            (
                "r = core(3)",
                "r = core(3), c = chip(2)",
                &[codes::BAD_GRID],
            ),
            (
                "r = core(3)",
                "r = core(3), c = core(99999999)",
                &[codes::BAD_GRID],
            ),
            (
                "on{grid = @g, dims = [split(6, [r]), 4]}) ->",
                "on{grid = @g, dims = [split(6, [r]), 5]}) ->",
                &[codes::BAD_LAYOUT],
            ),
            (
                "on{grid = @g, dims = [split(6, [r]), 4]}) ->",
                "on{grid = @g, dims = [split(6, [r]), split(4, [r])]}) ->",
                &[codes::BAD_LAYOUT],
            ),
            (
                "on{grid = @g, dims = [split(6, [r]), 4]}) ->",
                "on{grid = @g, dims = [split(6, [r], {unit = 0}), 4]}) ->",
                &[codes::BAD_LAYOUT],
            ),
            (
                "%w = weight @w : f32[4, 4] @ on{grid = @g}",
                "%w = weight @w : f32[4, 4] @ on{grid = @g, pending = {r = sum}}",
                &[codes::BAD_PENDING],
            ),
            (
                "%w = weight @w : f32[4, 4]",
                "%w = weight @w : f32[2, 8]",
                &[codes::TYPE_MISMATCH],
            ),
            ("loops = [1, 1, 1]", "loops = [2, 1]", &[codes::BAD_STEP]),
            ("loop(0, [r])", "loop(3, [r])", &[codes::BAD_STEP]),
            ("loop(0, [r])", "loop(0, [])", &[codes::BAD_STEP]),
            ("loop(0, [r])", "loop(0, [r], 0)", &[codes::BAD_STEP]),
            (
                "loop(0, [r])",
                "loop(0, [r]), loop(1, [r])",
                &[codes::BAD_STEP],
            ),
            // Rows in units of 4: other blocks than the operand and the result have.
            (
                "loop(0, [r])",
                "loop(0, [r], 4)",
                &[codes::OPERAND_LAYOUT, codes::RESULT_LAYOUT],
            ),
            (
                "split = [loop(0, [r])]",
                "temporal = [cut(2, 0)]",
                &[codes::BAD_TEMPORAL],
            ),
            (
                "contract = [[1, 0]]",
                "contract = [[0, 0]]",
                &[codes::TYPE_RULE],
            ),
            (
                "f32[4, 4] = dense(0.25)",
                "f32[4, 4] = external(\"f\", 0, 3)",
                &[codes::WEIGHT_MISMATCH],
            ),
            (
                "{ ^(%c : f32[6, 4] @ on{grid = @g, dims = [split(6, [r]), 4]})",
                "{ ^(%c : f32[6, 4] @ on{grid = @g})",
                &[codes::BAD_REPEAT],
            ),
            ("yield %2", "yield", &[codes::BAD_REPEAT]),
            ("yield %2", "yield %w", &[codes::BAD_REPEAT]),
            (
                "%4 = full {dtype = f32, shape = [4]",
                "%4 = full {dtype = f32, shape = [5]",
                &[codes::TYPE_MISMATCH],
            ),
        ],
    );
    check_changes(
        PENDING,
        &[
            (
                "pending = {k = sum}",
                "pending = {k = max}",
                &[codes::RESULT_LAYOUT],
            ),
            (
                "pending = {k = sum}",
                "pending = {k = arg_max}",
                &[codes::BAD_PENDING],
            ),
            (
                "{kind = all_reduce} : f32[5, 4]",
                ": bf16[5, 4]",
                &[codes::OUTPUT_MISMATCH],
            ),
            (
                "%z = reshard %0 {kind = all_reduce}",
                "%z = view %0",
                &[codes::BAD_VIEW],
            ),
        ],
    );
}

#[test]
fn what_is_pending_is_not_used() {
    let on = "on{grid = @g, dims = [split(5, [r]), 4]";
    let text = PENDING.replace(
        "        yield\n",
        &format!(
            "        %1 = neg %0 {{tile = {{loops = [1, 1], split = [loop(0, [r])]}}}} : f32[5, 4] @ {on}}}\n        yield\n"
        ),
    );
    assert_eq!(codes_of(&text), [codes::BAD_PENDING]);
    let text = PENDING.replace("return %y, %z", "return %y, %0").replace(
        "%z : f32[5, 4] @ on{grid = @g}",
        &format!("%z : f32[5, 4] @ {on}, pending = {{k = sum}}}}"),
    );
    assert_eq!(codes_of(&text), [codes::BAD_PENDING]);
}

#[test]
fn elements_that_are_left_out_are_missed() {
    let text = r#"dojo tiled 1

module @holes {machine = "d1"} {
  grid @g {first = 0, axes = {r = core(2)}}

  func @main(%x : f32[8] @ on{grid = @g}) -> (%y : f32[8] @ on{grid = @g, dims = [split(8, [r])]}) {
    %0 = reshard %x {kind = all_to_all} : f32[8] @ on{grid = @g, dims = [split(8, [r], {of = 2, stride = 6, high = 1})], name = "x"}
    %y = reshard %0 {kind = halo} : f32[8] @ on{grid = @g, dims = [split(8, [r])]}
    return %y
  }
}
"#;
    assert_eq!(codes_of(text), [codes::BAD_RESHARD]);
    let (mut m, _) = parse(text).unwrap();
    let error = outputs(&mut m, &[rough(&[8])]).unwrap_err();
    assert!(error.contains("D0274"), "{error}");
    let output = text.replace("%y = reshard %0 {kind = halo}", "%z = reshard %x").replace("return %y", "return %0").replace(
        "%y : f32[8] @ on{grid = @g, dims = [split(8, [r])]}) {",
        "%y : f32[8] @ on{grid = @g, dims = [split(8, [r], {of = 2, stride = 6, high = 1})]}) {",
    );
    assert_eq!(codes_of(&output), [codes::NOT_HELD]);
}

#[test]
fn corrupt_tables_are_found() {
    let good = module(LOOP);
    let corrupt = |change: &dyn Fn(&mut Function)| {
        let mut m = good.clone();
        change(&mut m.functions[FuncId::from_index(0)]);
        // Printing never fails.
        assert!(!m.to_string().is_empty());
        let codes: Vec<u16> = verify(&m).iter().map(|v| v.code).collect();
        assert!(m.verify().is_err());
        codes
    };
    let body = BodyId::from_index(0);
    let beyond = ValueId::from_index(99);
    assert!(corrupt(&|f| f.bodies[body].results[0] = beyond).contains(&codes::CORRUPT));
    assert!(corrupt(&|f| f.bodies[body].params[0] = beyond).contains(&codes::CORRUPT));
    assert!(
        corrupt(&|f| f.values[ValueId::from_index(0)].layout.grid = GridId::from_index(7))
            .contains(&codes::CORRUPT)
    );
    assert!(
        corrupt(&|f| f.values[ValueId::from_index(0)].def = ValueDef::Stmt(body))
            .contains(&codes::CORRUPT)
    );
    assert!(corrupt(&|f| f.bodies = PrimaryMap::new()).contains(&codes::CORRUPT));
    assert!(
        corrupt(&|f| f.values[ValueId::from_index(0)].layout.splits[0].axes = vec![9])
            .contains(&codes::BAD_LAYOUT)
    );
    let repeat_self = corrupt(&|f| {
        for stmt in &mut f.bodies[body].stmts {
            if let Stmt::Repeat(repeat) = stmt {
                repeat.body = body;
            }
        }
    });
    assert_eq!(repeat_self, [codes::BAD_REPEAT]);
    let mut reversed = module(PENDING);
    let function = &mut reversed.functions[FuncId::from_index(0)];
    function.bodies[body].stmts.reverse();
    let codes: Vec<u16> = verify(&reversed).iter().map(|v| v.code).collect();
    assert_eq!(codes, [codes::DOMINANCE, codes::DOMINANCE]);
    let message = reversed.verify().unwrap_err().to_string();
    assert!(message.contains("note: %"), "{message}");
}

#[test]
fn grids_fit_the_machine() {
    let machine = crate::machine::Machine::parse(
        crate::machine::Machine::builtin("mesh4x4").unwrap(),
        "mesh4x4",
    )
    .unwrap();
    let codes = |axes: &str| -> Vec<u16> {
        let text = LOOP.replace("r = core(3)", axes);
        let (m, _) = parse(&text).unwrap();
        verify_on(&m, &machine).iter().map(|v| v.code).collect()
    };
    assert!(codes("r = core(3)").is_empty());
    assert_eq!(codes("r = core(3), c = core(6)"), [codes::BAD_GRID]);
    assert_eq!(codes("t = chip(2), r = core(3)"), [codes::BAD_GRID]);
}

#[test]
fn replicas_are_compared() {
    use super::spread::{Fault, Whole};
    let m = module(LOOP);
    let grid = &m.grids[GridId::from_index(0)];
    let layout = Layout::replicated(GridId::from_index(0), &[4]);
    let block = |last: f32| Tensor::from_vec(&[4], vec![1f32, 2.0, 3.0, last]);
    let same = vec![block(4.0), block(4.0), block(4.0)];
    let whole = Whole::assemble(DType::F32, &layout, grid, &same, 0..3).ok();
    assert_eq!(whole.unwrap().tensor(&[4]).unwrap(), block(4.0));
    let other = vec![block(4.0), block(4.0), block(5.0)];
    let fault = Whole::assemble(DType::F32, &layout, grid, &other, 0..3).err();
    assert!(matches!(fault, Some(Fault::Differ(m)) if m.contains("element [3]")));
}
