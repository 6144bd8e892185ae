//! Probes: declared ones, and buffers by their name or by that of an op.

use std::sync::Arc;

use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::Program;
use dojoc_ir::tensor::Tensor;

use super::{both, floats, named};
use crate::codes::{MEMORY_LIMIT, UNKNOWN_TENSOR};
use crate::instance::testing::program;
use crate::instance::{ProbeValues, RunResult};
use crate::options::RunOptions;

#[test]
fn probes_show_every_iteration() {
    let text = r#"
      cores @two = [box(0, 0, [0, 2])]
      input @x : f32[2, 4] = [{on = @two, at = 0, slice = [[i, 1], [0, 4]]}]
      probe @mid : f32[2, 4] = [{on = @two, at = 0, slice = [[i, 1], [0, 4]]}]
      output @y : f32[2, 4] = [{on = @two, at = 0, slice = [[i, 1], [0, 4]]}]
      segment @step(%by : index) {
        %x = buffer {at = 0, role = "inout"} : f32[4]
        %by = buffer {at = 64} : f32[4]
        vector ({ ^()
          iota %by {axis = 0, step = 0, start = %by}
          add %x, %x, %by
        })
      }
      entry @main() {inputs = [@x], outputs = [@y]} {
        repeat {count = 3} ({ ^(%l : index)
          call @step {on = @two, row = [%l + i]}
          probe @mid
        })
      }
    "#;
    let text = text
        .replace("%by : index", "%n : index")
        .replace("start = %by", "start = %n");
    for (mut instance, options) in both(&program(&text)) {
        let options = RunOptions {
            probes: vec!["mid".into()],
            ..options
        };
        let x = [named("x", floats(&[2, 4], [0.0; 8]))];
        let result = instance.run("main", &x, &options).unwrap();
        let rows = |a: f32, b: f32| floats(&[2, 4], [a, a, a, a, b, b, b, b]);
        let expected = vec![rows(0.0, 1.0), rows(1.0, 3.0), rows(3.0, 6.0)];
        let expected = ProbeValues {
            name: "mid".into(),
            core: None,
            values: expected,
        };
        assert_eq!(result.probes, [expected]);
        assert_eq!(result.outputs[0].1, rows(3.0, 6.0));
    }
}

/// Four cores in a ring, twice: h = -(x + 1) in rows, x = (x of the neighbour before) + h. The bytes
/// of h are used again in the same call.
const RING: &str = r#"
  cores @four = [box(0, [0, 2], [0, 2])]
  channel @next {from = @four, to = @four, peer = mod(i + 1, 4)}
  input @x : f32[4, 8] = [{on = @four, at = 0, slice = [[i, 1], [0, 8]]}]
  probe @sum : f32[4, 8] = [{on = @four, at = 0, slice = [[i, 1], [0, 8]]}] loc("Sum_1")
  output @y : f32[4, 8] = [{on = @four, at = 0, slice = [[i, 1], [0, 8]]}]
  segment @layer(%n : index) {
    %x = buffer {at = 0, role = "inout"} : f32[8]
    %h = buffer {at = 64} : f32[2, 4] loc("Hidden")
    %reused = buffer {at = 64} : f32[8]
    %got = buffer {at = 128} : f32[8]
    %packed = buffer {at = 192, packing = "packed4x8"} : f32[3, 8]
    %partly = buffer {at = 512} : f32[4]
    %there = token
    vector ({ ^()
      for {count = 2} ({ ^(%i : index)
        %row = view %h {offset = 16*%i, strides = [4]} : f32[4]
        %part = view %x {offset = 16*%i, strides = [4]} : f32[4]
        add %row, %part {value = 1.0} loc("Add_1", "m.onnx":1)
      })
      %flat = view %h {strides = [4]} : f32[8]
      mul %flat, %flat {value = -1.0} loc("Neg_1")
      wait %there
      add %x, %got, %flat loc("Sum")
      %rows = view %x {strides = [0, 4]} : f32[3, 8]
      copy %packed, %rows loc("Tail")
      fill %reused {value = 99.0} loc("Tail")
      for {count = %n} ({ ^(%i : index)
        %one = view %partly {offset = 4 + 4*%i, strides = [4]} : f32[1]
        iota %one {axis = 0, step = 1, start = 5*%n} loc("Some")
      })
    })
    comm0 ({ ^()
      post @next, %got
      send @next, %x loc("Send_1")
      recv @next, %got loc("Recv_1")
      signal %there
    })
  }
  segment @alone() {
    %z = buffer {at = 0, role = "out"} : f32[1]
    vector ({ ^() fill %z {value = 1.0} loc("Alone_1") })
  }
  entry @main() {inputs = [@x], outputs = [@y]} {
    repeat {count = 2} ({ ^(%l : index)
      call @layer {on = @four, row = [%l]}
    })
  }
  entry @other() {inputs = [], outputs = []} {
    call @alone {on = @four, row = []}
  }
"#;

fn ring() -> Arc<Program> {
    program(RING)
}

fn input() -> [(Arc<str>, Tensor); 1] {
    [named("x", floats(&[4, 8], (0..32).map(|i| i as f32)))]
}

fn probing(names: &[&str], options: RunOptions) -> RunOptions {
    RunOptions {
        probes: names.iter().map(|name| Arc::from(*name)).collect(),
        ..options
    }
}

/// x of each core before the calls and after the last.
fn states() -> [[[f32; 8]; 4]; 3] {
    let mut states = [[[0.0; 8]; 4]; 3];
    states[0] = std::array::from_fn(|core| std::array::from_fn(|i| (8 * core + i) as f32));
    for l in 0..2 {
        let x = states[l];
        states[l + 1] = std::array::from_fn(|core| {
            std::array::from_fn(|i| x[(core + 3) % 4][i] - (x[core][i] + 1.0))
        });
    }
    states
}

/// The values of a buffer on the four cores, two on each.
fn expected(
    name: &str,
    shape: &[u64],
    value: impl Fn(usize, usize) -> Vec<f32>,
) -> Vec<ProbeValues> {
    let of = |core: usize| ProbeValues {
        name: name.into(),
        core: Some(CoreAddress {
            chip: 0,
            row: core as u32 / 2,
            column: core as u32 % 2,
        }),
        values: (0..2).map(|l| floats(shape, value(l, core))).collect(),
    };
    (0..4).map(of).collect()
}

/// A run with each executor, and with numbers of threads and random schedules.
fn runs(program: &Arc<Program>, entry: &str, names: &[&str]) -> Vec<RunResult> {
    let mut results = Vec::new();
    for (mut instance, options) in both(program) {
        for (threads, shuffle) in [(1, None), (2, None), (4, None), (2, Some(7))] {
            let options = RunOptions {
                threads,
                shuffle,
                ..probing(names, options.clone())
            };
            results.push(instance.run(entry, &input(), &options).unwrap());
        }
    }
    results
}

#[test]
fn buffers_by_the_names_of_ops() {
    let x = states();
    let hidden = |sign: f32| {
        move |l: usize, core: usize| -> Vec<f32> {
            x[l][core].iter().map(|x| sign * (x + 1.0)).collect()
        }
    };
    let after = |l: usize, core: usize| x[l + 1][core].to_vec();
    let tail = |l: usize, core: usize| after(l, core).repeat(3);
    let mut values = expected("Add_1", &[2, 4], hidden(1.0));
    values.extend(expected("Neg_1", &[2, 4], hidden(-1.0)));
    values.extend(expected("Hidden", &[2, 4], hidden(-1.0)));
    values.extend(expected("layer.h", &[2, 4], hidden(-1.0)));
    values.extend(expected("Recv_1", &[8], |l, core| {
        x[l][(core + 3) % 4].to_vec()
    }));
    values.extend(expected("Sum", &[8], after));
    values.extend(expected("layer.x", &[8], after));
    values.extend(expected("Tail:layer.reused", &[8], |_, _| vec![99.0; 8]));
    values.extend(expected("Tail:layer.packed", &[3, 8], tail));
    let names = [
        "Add_1", "Neg_1", "Hidden", "layer.h", "Recv_1", "Sum", "layer.x", "Tail",
    ];
    for result in runs(&ring(), "main", &names) {
        assert_eq!(result.probes, values);
    }
}

/// A call that does not write what an op writes has no value of it.
#[test]
fn calls_that_write_nothing_have_no_value() {
    let mut values = expected("Some", &[4], |_, _| vec![0.0, 5.0, 0.0, 0.0]);
    values.iter_mut().for_each(|of| of.values.truncate(1));
    for result in runs(&ring(), "main", &["Some"]) {
        assert_eq!(result.probes, values);
    }
}

/// What brings the operands of an op, and temporaries, are not its results.
#[test]
fn results_without_staging() {
    let text = RING
        .replace("probe @sum : f32[4, 8] = [{on = @four, at = 0, slice = [[i, 1], [0, 8]]}] loc(\"Sum_1\")\n", "")
        .replace(
            "segment @alone() {",
            r#"segment @bring() {
    %to = buffer {at = 256} : f32[8] loc("Neg_1")
    %from = buffer {at = 0, role = "in"} : f32[8]
    vector ({ ^() copy %to, %from loc("Sum") })
  }
  segment @alone() {"#,
        )
        .replace("mul %flat, %flat {value = -1.0} loc(\"Neg_1\")", "mul %flat, %flat {value = -1.0} loc(\"Sum\")")
        .replace(
            "call @layer {on = @four, row = [%l]}",
            "call @bring {on = @four, row = []} call @layer {on = @four, row = [%l]}",
        );
    let x = states();
    let after = |l: usize, core: usize| x[l + 1][core].to_vec();
    let mut values = expected("Sum", &[8], after);
    // Only moved: it is what there is. A buffer by its own name is always meant.
    let before = |l: usize, core: usize| x[l][core].to_vec();
    values.extend(expected("Neg_1", &[8], before));
    values.extend(expected("bring.to", &[8], before));
    for result in runs(&program(&text), "main", &["Sum", "Neg_1", "bring.to"]) {
        assert_eq!(result.probes, values);
    }
}

/// Inputs and outputs are values too; an output by its own name is among the outputs.
#[test]
fn inputs_and_outputs_by_name() {
    let text = RING.replace(
        "output @y : f32[4, 8] = [{on = @four, at = 0, slice = [[i, 1], [0, 8]]}]",
        "output @y : f32[4, 8] = [{on = @four, at = 0, slice = [[i, 1], [0, 8]]}] loc(\"Last_1\")",
    );
    for result in runs(&program(&text), "main", &["x", "y", "Last_1"]) {
        let named = |name: &str, value: &Tensor| ProbeValues {
            name: name.into(),
            core: None,
            values: vec![value.clone()],
        };
        let expected = [
            named("x", &input()[0].1),
            named("Last_1", &result.outputs[0].1),
        ];
        assert_eq!(result.probes, expected);
    }
}

/// A declared probe says how the parts of an op's value are put together.
#[test]
fn declared_probes_by_the_names_of_ops() {
    let text = RING.replace(
        "call @layer {on = @four, row = [%l]}",
        "call @layer {on = @four, row = [%l]} probe @sum",
    );
    let program = program(&text);
    let x = states();
    let values = ProbeValues {
        name: "sum".into(),
        core: None,
        values: vec![
            floats(&[4, 8], x[1].into_iter().flatten()),
            floats(&[4, 8], x[2].into_iter().flatten()),
        ],
    };
    for result in runs(&program, "main", &["Sum_1"]) {
        assert_eq!(result.probes, std::slice::from_ref(&values));
    }
}

#[test]
fn names_that_stand_for_nothing() {
    let names = [
        ("main", "Add_2"),
        ("main", "layer"),
        ("main", "Send_1"),
        ("main", "nothing at all like it"),
        ("main", "Alone_1"),
        ("other", "layer.x"),
    ];
    let [fast, sanitized] = both(&ring()).map(|(mut instance, options)| {
        names.map(|(entry, name)| {
            let given = &input()[..usize::from(entry == "main")];
            let found = instance.run(entry, given, &probing(&[name], options.clone()));
            let found = found.unwrap_err();
            assert_eq!(found.0[0].code.0, UNKNOWN_TENSOR);
            found.to_string()
        })
    });
    assert_eq!(fast, sanitized);
    insta::assert_snapshot!(fast.join("\n"), @r"
    D0722: the program has no value, source name or buffer `Add_2`
      note: it has @x, @sum, @y
      note: `dojoc dis` shows source names and buffers, which are SEGMENT.BUFFER here
      help: did you mean `Add_1`?
    D0722: the program has no value, source name or buffer `layer`
      note: it has @x, @sum, @y
      note: `dojoc dis` shows source names and buffers, which are SEGMENT.BUFFER here
      help: did you mean `layer.h` or `layer.x` or `layer.got` or `layer.packed` or `layer.partly`?
    D0722: nothing of `Send_1` is written to SRAM
      note: it has @x, @sum, @y
      note: `dojoc dis` shows source names and buffers, which are SEGMENT.BUFFER here
    D0722: the program has no value, source name or buffer `nothing at all like it`
      note: it has @x, @sum, @y
      note: `dojoc dis` shows source names and buffers, which are SEGMENT.BUFFER here
    D0722: entry @main does not run the code that computes `Alone_1`
    D0722: entry @other does not run the code that computes `layer.x`
    ");
}

/// The values count against the limit of memory, and are gone after the run.
#[test]
fn values_of_probes_take_memory() {
    let program = ring();
    let run = |sanitize: usize, names: &[&str], limits: &[u64]| {
        let (mut instance, options) = both(&program).into_iter().nth(sanitize).unwrap();
        let mut run = |max_bytes: &u64| {
            let options = RunOptions {
                max_bytes: *max_bytes,
                threads: 1,
                ..probing(names, options.clone())
            };
            let result = instance.run("main", &input(), &options);
            result.map(|result| result.stats.allocated_bytes)
        };
        limits.iter().map(&mut run).last().unwrap()
    };
    // Two calls on each of four cores.
    let names = ["layer.h", "layer.x"];
    let held = 2 * 4 * 2 * 32;
    for sanitize in [0, 1] {
        let bare = run(sanitize, &[], &[u64::MAX]).unwrap();
        let needed = run(sanitize, &names, &[u64::MAX]).unwrap();
        assert!(bare < needed && needed <= bare + held, "{bare} {needed}");
        assert_eq!(run(sanitize, &names, &[needed]), Ok(needed));
        assert_eq!(run(sanitize, &names, &[needed - 1, needed]), Ok(needed));
        let found = run(sanitize, &names, &[needed - 1]).unwrap_err();
        assert_eq!(found.0[0].code.0, MEMORY_LIMIT);
    }
}
