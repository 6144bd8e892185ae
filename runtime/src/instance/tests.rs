//! Loading, running, states, weights, inputs, outputs, run parameters and probes.

mod probes;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use dojoc_ir::codes::{BAD_PLACEMENT, CANCELLED, NO_DATA, WRONG_INPUTS};
use dojoc_ir::diag::Diagnostics;
use dojoc_ir::program::Program;
use dojoc_ir::program::recipe::{NoSources, Sources};
use dojoc_ir::tensor::Tensor;

use super::testing::{Files, machine, program, program_with};
use super::{Instance, LoadOptions, RunResult};
use crate::codes::{
    BAD_DIM, BAD_TENSOR, DATA_FAULT, REPLICAS_DIFFER, UNKNOWN_ENTRY, UNKNOWN_TENSOR,
};
use crate::options::RunOptions;

fn load_from(program: &Arc<Program>, sources: &dyn Sources, sanitize: bool) -> Instance {
    let options = LoadOptions {
        verify: false,
        sanitize,
        ..LoadOptions::default()
    };
    Instance::load(program.clone(), &machine(), sources, options).unwrap()
}

/// The program loaded for both executors.
fn both(program: &Arc<Program>) -> [(Instance, RunOptions); 2] {
    [false, true].map(|sanitize| {
        let options = RunOptions {
            sanitize,
            ..RunOptions::default()
        };
        (load_from(program, &NoSources, sanitize), options)
    })
}

fn named(name: &str, tensor: Tensor) -> (Arc<str>, Tensor) {
    (name.into(), tensor)
}

fn floats(shape: &[u64], values: impl IntoIterator<Item = f32>) -> Tensor {
    Tensor::from_vec(shape, values.into_iter().collect())
}

#[track_caller]
fn code(result: Result<RunResult, Diagnostics>) -> u16 {
    result.unwrap_err().0[0].code.0
}

/// Adds x to a state that two cores hold, and gives the sum. The second core holds row 1 of the
/// index, which `bad` indices are out of range of.
const COUNTER: &str = r#"
  cores @two = [box(0, 0, [0, 2])]
  cores @first = [box(0, 0, 0)]
  input @x : f32[16] = [{on = @two, at = 0, slice = [[0, 16]]}]
  input @at : i32[1] = [{on = @two, at = 192, slice = [[0, 1]]}]
  state @sum : f32[16] = [{on = @two, at = 64, slice = [[0, 16]]}] {init = zeros}
  output @y : f32[16] = [{on = @first, at = 128, slice = [[0, 16]]}]
  segment @add() {
    %x = buffer {at = 0, role = "in"} : f32[16]
    %at = buffer {at = 192, role = "in"} : i32[1]
    %sum = buffer {at = 64, role = "inout"} : f32[16]
    %y = buffer {at = 128, role = "out"} : f32[16]
    %one = buffer {at = 256} : f32[1]
    vector ({ ^()
      add %sum, %sum, %x
      copy %y, %sum
      gather %one, %y, %at
    })
  }
  entry @main() {inputs = [@x, @at], outputs = [@y]} { call @add {on = @two, row = []} }
"#;

fn counter_inputs(x: f32, at: i32) -> Vec<(Arc<str>, Tensor)> {
    vec![
        named("x", floats(&[16], [x; 16])),
        named("at", Tensor::from_vec(&[1], vec![at])),
    ]
}

#[test]
fn states_live_from_run_to_run() {
    for (mut instance, options) in both(&program(COUNTER)) {
        for (run, expected) in [(1.0, 1.0), (2.5, 3.5), (-1.0, 2.5)] {
            let result = instance
                .run("main", &counter_inputs(run, 0), &options)
                .unwrap();
            assert_eq!(result.outputs, [named("y", floats(&[16], [expected; 16]))]);
            assert_eq!(result.stats.calls, 2);
            assert_eq!(result.stats.instructions, 6);
        }
        let state = instance.state("sum").unwrap().unwrap();
        assert_eq!(state, floats(&[16], [2.5; 16]));
        assert_eq!(instance.state("x"), Ok(None));
        instance
            .set_state("sum", &floats(&[16], [10.0; 16]))
            .unwrap();
        let result = instance
            .run("main", &counter_inputs(1.0, 0), &options)
            .unwrap();
        assert_eq!(result.outputs[0].1, floats(&[16], [11.0; 16]));
        assert_eq!(
            instance.states().unwrap(),
            [named("sum", floats(&[16], [11.0; 16]))]
        );
        let wrong = instance
            .set_state("sum", &floats(&[4], [0.0; 4]))
            .unwrap_err();
        assert_eq!(wrong.code.0, BAD_TENSOR);
        let unknown = instance
            .set_state("y", &floats(&[16], [0.0; 16]))
            .unwrap_err();
        assert_eq!(unknown.code.0, UNKNOWN_TENSOR);
    }
}

#[test]
fn failed_and_cancelled_runs_leave_states_alone() {
    for (mut instance, options) in both(&program(COUNTER)) {
        instance
            .run("main", &counter_inputs(1.0, 0), &options)
            .unwrap();
        // The state is updated before the index is found to be out of range.
        let failed = instance.run("main", &counter_inputs(5.0, 99), &options);
        assert_eq!(code(failed), DATA_FAULT);
        let sum = || floats(&[16], [1.0; 16]);
        assert_eq!(instance.state("sum").unwrap().unwrap(), sum());
        let cancelled = RunOptions {
            cancel: Some(Arc::new(AtomicBool::new(true))),
            ..options.clone()
        };
        let stopped = instance.run("main", &counter_inputs(5.0, 0), &cancelled);
        assert_eq!(code(stopped), CANCELLED);
        assert_eq!(instance.state("sum").unwrap().unwrap(), sum());
        let result = instance
            .run("main", &counter_inputs(1.0, 0), &options)
            .unwrap();
        assert_eq!(result.outputs[0].1, floats(&[16], [2.0; 16]));
    }
}

#[test]
fn a_run_may_change_to_the_sanitizer_and_back() {
    let (mut instance, fast) = both(&program(COUNTER)).into_iter().next().unwrap();
    for (sanitize, expected) in [(false, 1.0), (true, 2.0), (false, 3.0), (true, 4.0)] {
        let options = RunOptions {
            sanitize,
            ..fast.clone()
        };
        let result = instance
            .run("main", &counter_inputs(1.0, 0), &options)
            .unwrap();
        assert_eq!(result.outputs[0].1, floats(&[16], [expected; 16]));
    }
}

#[test]
fn copies_of_a_state_agree() {
    // Each core adds its own number.
    let text = COUNTER
        .replace("segment @add()", "segment @add(%me : index)")
        .replace(
            "copy %y, %sum",
            "copy %y, %sum iota %sum {axis = 0, step = 0, start = %me}",
        )
        .replace("row = []", "row = [i]");
    for (mut instance, options) in both(&program(&text)) {
        let found = instance
            .run("main", &counter_inputs(1.0, 0), &options)
            .unwrap_err();
        let shown = found.to_string();
        assert_eq!(found.0[0].code.0, REPLICAS_DIFFER);
        assert!(
            shown.contains("@sum") && shown.contains("column 1"),
            "{shown}"
        );
        let state = instance.state("sum").unwrap().unwrap();
        assert_eq!(state, floats(&[16], [0.0; 16]), "the run counts as failed");
    }
}

#[test]
fn wrong_inputs_are_named() {
    for (mut instance, options) in both(&program(COUNTER)) {
        assert_eq!(code(instance.run("other", &[], &options)), UNKNOWN_ENTRY);
        let found = instance.run("main", &[], &options).unwrap_err();
        let codes: Vec<u16> = found.0.iter().map(|d| d.code.0).collect();
        assert_eq!(codes, [WRONG_INPUTS; 2]);
        assert!(found.0[1].message.contains("@at"));
        let mut inputs = counter_inputs(1.0, 0);
        inputs.push(named("z", floats(&[1], [0.0])));
        let found = instance.run("main", &inputs, &options).unwrap_err();
        assert!(found.0[0].message.contains("@z") && found.0[0].notes[0].contains("@x, @at"));
        inputs.pop();
        inputs[0].1 = floats(&[15], [0.0; 15]);
        let found = instance.run("main", &inputs, &options).unwrap_err();
        assert_eq!(found.0[0].code.0, BAD_TENSOR);
        assert!(
            found.0[0].message.contains("@x is f32[16], found f32[15]"),
            "{found}"
        );
        inputs[0].1 = Tensor::from_vec(&[16], vec![0i32; 16]);
        assert_eq!(code(instance.run("main", &inputs, &options)), BAD_TENSOR);
        let dims = RunOptions {
            dims: vec![("n".into(), 1)],
            ..options.clone()
        };
        assert_eq!(
            code(instance.run("main", &counter_inputs(1.0, 0), &dims)),
            BAD_DIM
        );
        let probes = RunOptions {
            probes: vec!["no such value".into()],
            ..options.clone()
        };
        assert_eq!(
            code(instance.run("main", &counter_inputs(1.0, 0), &probes)),
            UNKNOWN_TENSOR
        );
    }
}

/// A 10 x 6 matrix over four cores, three rows each and the rest, doubled, packed for the matrix unit
/// on the way in and by columns on the way out.
#[test]
fn packed_and_uneven_shards() {
    let text = r#"
      cores @four = [box(0, 1, [0, 4])]
      input @x : bf16[10, 6] = [{on = @four, at = 256, slice = [[3*i, min(3, 10 - 3*i)], [0, 6]],
                                 packing = "packed4x8", strides = [64, 64]}]
      output @y : bf16[10, 6] = [{on = @four, at = 512, slice = [[3*i, min(3, 10 - 3*i)], [0, 6]],
                                  strides = [2, 8]}]
      segment @double(%rows : index) {
        %x = buffer {at = 256, role = "in", packing = "packed4x8"} : bf16[4, 8]
        %y = buffer {at = 512, role = "out"} : bf16[6, 4]
        %z = buffer {at = 576} : bf16[3, 6]
        vector ({ ^()
          %from = view %x {packing = "packed4x8", strides = [64, 64]} : bf16[%rows, 6]
          %rows_of_z = view %z {strides = [12, 2]} : bf16[%rows, 6]
          %to = view %y {strides = [2, 8]} : bf16[%rows, 6]
          copy %rows_of_z, %from
          add %to, %rows_of_z, %rows_of_z
        })
      }
      entry @main() {inputs = [@x], outputs = [@y]} {
        call @double {on = @four, row = [min(3, 10 - 3*i)]}
      }
    "#;
    let x: Vec<half::bf16> = (0..60).map(|i| half::bf16::from_f32(i as f32)).collect();
    let expected: Vec<f64> = (0..60).map(|i| f64::from(2 * i)).collect();
    for (mut instance, options) in both(&program(text)) {
        let x = Tensor::from_vec(&[10, 6], x.clone());
        let result = instance.run("main", &[named("x", x)], &options).unwrap();
        assert_eq!(result.outputs[0].1.to_f64s(), expected);
    }
}

#[test]
fn run_parameters_bind_extents() {
    let text = r#"
      cores @two = [box(0, 0, [0, 2])]
      input @x : f32[2, n] = [{on = @two, at = 0, slice = [[i, 1], [0, n]], strides = [32, 4]}]
      output @y : f32[2, n] = [{on = @two, at = 64, slice = [[i, 1], [0, n]], strides = [32, 4]}]
      segment @neg() {
        %x = buffer {at = 0, role = "in"} : f32[8]
        %y = buffer {at = 64, role = "out"} : f32[8]
        vector ({ ^()
          %from = view %x {strides = [4]} : f32[n]
          %to = view %y {strides = [4]} : f32[n]
          neg %to, %from
        })
      }
      entry @main() {inputs = [@x], outputs = [@y]} { call @neg {on = @two, row = []} }
    "#;
    for (mut instance, options) in both(&program_with(", dims = {n = 8}", text)) {
        for n in [1u64, 3, 8] {
            let options = RunOptions {
                dims: vec![("n".into(), n)],
                ..options.clone()
            };
            let x = floats(&[2, n], (0..2 * n).map(|i| i as f32));
            let result = instance.run("main", &[named("x", x)], &options).unwrap();
            assert_eq!(
                result.outputs[0].1,
                floats(&[2, n], (0..2 * n).map(|i| -(i as f32)))
            );
        }
        let largest = floats(&[2, 8], [1.0; 16]);
        let x = [named("x", largest)];
        assert_eq!(
            instance.run("main", &x, &options).unwrap().outputs[0]
                .1
                .shape(),
            [2, 8]
        );
        for n in [0, 9, u64::MAX] {
            let options = RunOptions {
                dims: vec![("n".into(), n)],
                ..options.clone()
            };
            assert_eq!(code(instance.run("main", &x, &options)), BAD_DIM);
        }
    }
}

/// Every core has a quarter of a matrix from a file, transposed, in SRAM, and the same bias.
#[test]
fn weights_come_from_files() {
    let text = r#"
      cores @four = [box(0, 2, [0, 4])]
      weight @w : f32[8, 4] = [{on = @four, at = 0, slice = [[2*i, 2], [0, 4]]}]
        {data = permute(file("w.bin", 16, f32[4, 8]), [1, 0])}
      weight @b : f32[4] = [{on = @four, at = 64, slice = [[0, 4]]}] {data = splat(f32[4], 0.5)}
      state @s : f32[4, 4] = [{on = @four, at = 192, slice = [[i, 1], [0, 4]]}]
        {init = slice(file("w.bin", 16, f32[4, 8]), [0, 4], [4, 4])}
      output @y : f32[8, 4] = [{on = @four, at = 128, slice = [[2*i, 2], [0, 4]]}]
      segment @add() {
        %w = buffer {at = 0, role = "in"} : f32[2, 4]
        %b = buffer {at = 64, role = "in"} : f32[4]
        %y = buffer {at = 128, role = "out"} : f32[2, 4]
        vector ({ ^()
          %twice = view %b {strides = [0, 4]} : f32[2, 4]
          add %y, %w, %twice
        })
      }
      entry @main() {inputs = [], outputs = [@y]} { call @add {on = @four, row = []} }
    "#;
    let program = program(text);
    let mut bytes = vec![0xAA; 16];
    bytes.extend((0..32).flat_map(|i| (i as f32).to_le_bytes()));
    let mut files = Files::default();
    files.0.insert("w.bin", Bytes::from(bytes));
    for sanitize in [false, true] {
        let mut instance = load_from(&program, &files, sanitize);
        let options = RunOptions {
            sanitize,
            ..RunOptions::default()
        };
        for _ in 0..2 {
            let result = instance.run("main", &[], &options).unwrap();
            let expected = (0..32).map(|i| (i % 4 * 8 + i / 4) as f32 + 0.5);
            assert_eq!(result.outputs[0].1, floats(&[8, 4], expected));
        }
        let state = instance.state("s").unwrap().unwrap();
        let expected = (0..16).map(|i| (i / 4 * 8 + 4 + i % 4) as f32);
        assert_eq!(state, floats(&[4, 4], expected));
        let load = LoadOptions {
            verify: false,
            sanitize,
            ..LoadOptions::default()
        };
        let missing = Instance::load(program.clone(), &machine(), &NoSources, load);
        assert_eq!(missing.unwrap_err().0[0].code.0, NO_DATA);
    }
}

/// What an owner writes to DRAM lives on as a state.
#[test]
fn states_in_dram() {
    let text = r#"
      cores @two = [box(0, 0, [0, 2])]
      dram @cache {owners = @two, dip = 0, bytes = 256}
      state @s : f32[2, 4] = [{dram = @cache, at = 64, slice = [[i, 1], [0, 4]]}] {init = zeros}
      output @y : f32[2, 4] = [{on = @two, at = 0, slice = [[i, 1], [0, 4]]}]
      segment @step(%me : index) {
        %a = buffer {at = 0, role = "out"} : f32[4]
        vector ({ ^()
          dram.begin @cache
          dram.load %a, @cache {owner = %me, offset = 64}
          add %a, %a {value = 1.0}
          dram.store @cache, %a {offset = 64}
          dram.commit @cache
        })
      }
      entry @main() {inputs = [], outputs = [@y]} { call @step {on = @two, row = [i]} }
    "#;
    for (mut instance, options) in both(&program(text)) {
        for expected in [1.0, 2.0, 3.0] {
            let result = instance.run("main", &[], &options).unwrap();
            assert_eq!(result.outputs[0].1, floats(&[2, 4], [expected; 8]));
            assert_eq!(result.stats.dram_bytes, 64);
        }
        assert_eq!(
            instance.state("s").unwrap().unwrap(),
            floats(&[2, 4], [3.0; 8])
        );
    }
}

#[test]
fn shards_that_do_not_cover_an_output() {
    let text = COUNTER.replace(
        "output @y : f32[16] = [{on = @first, at = 128, slice = [[0, 16]]}]",
        "output @y : f32[16] = [{on = @first, at = 128, slice = [[0, 15]]}]",
    );
    for (mut instance, options) in both(&program(&text)) {
        let found = instance
            .run("main", &counter_inputs(1.0, 0), &options)
            .unwrap_err();
        assert_eq!(found.0[0].code.0, BAD_PLACEMENT);
        assert!(
            found.0[0].message.contains("@y lies nowhere at [15]"),
            "{found}"
        );
    }
}
