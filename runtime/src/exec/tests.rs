//! Programs on the executor, against values computed by hand.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

use dojoc_ir::program::parse::parse;
use dojoc_ir::program::{Env, SegmentId, TensorId, TensorKind};
use dojoc_ir::tensor::Tensor;

use super::*;
use crate::host::{Statement, collect, place};

fn machine() -> Machine {
    Machine::parse(Machine::builtin("mesh4x4").unwrap(), "mesh4x4").unwrap()
}

fn program(declarations: &str) -> Arc<Program> {
    let text =
        format!("dojo program 1\nprogram @test {{machine = \"mesh4x4\"}} {{\n{declarations}\n}}\n");
    match parse(&text) {
        Ok((program, _)) => Arc::new(program),
        Err(found) => panic!("{found}\n{text}"),
    }
}

fn options(threads: usize, shuffle: Option<u64>) -> RunOptions {
    RunOptions {
        threads,
        shuffle,
        ..RunOptions::default()
    }
}

struct Test {
    program: Arc<Program>,
    executor: Executor,
}

impl Test {
    fn new(declarations: &str) -> Self {
        let program = program(declarations);
        let mut executor = Executor::new(program.clone(), &machine(), u64::MAX).unwrap();
        for decl in program.tensors.values() {
            if matches!(decl.kind, TensorKind::State(_)) {
                let shape = crate::host::shape_of(decl, &[]).unwrap();
                let zeros = vec![0f32; shape.iter().product::<u64>() as usize];
                let zeros = Tensor::from_vec(&shape, zeros);
                place(&zeros, decl, &program, &[], &mut executor, Keep::State).unwrap();
            }
        }
        Self { program, executor }
    }

    /// Outputs and statistics of entry 0.
    fn run(
        &mut self,
        inputs: &[Tensor],
        options: &RunOptions,
    ) -> Result<(Vec<Tensor>, Stats), Diagnostics> {
        let (id, entry) = self.program.entries.iter().next().unwrap();
        let engine: &mut dyn Engine = &mut self.executor;
        engine.begin(options);
        for (input, tensor) in entry.inputs.iter().zip(inputs) {
            let decl = &self.program.tensors[*input];
            place(tensor, decl, &self.program, &[], engine, Keep::Run)?;
        }
        let result = engine.run(id, &[], options, None);
        let outputs = |engine: &dyn Engine| {
            let read = |output| collect(&self.program.tensors[output], &self.program, &[], engine);
            entry.outputs.iter().map(|output| read(*output)).collect()
        };
        let result = result.and_then(|stats| {
            let outputs: Result<_, Diagnostic> = outputs(engine);
            Ok((outputs?, stats))
        });
        engine.end(result.is_ok());
        result
    }

    fn state(&self, name: &str) -> Vec<f32> {
        let decl = &self.program.tensors[self.program.tensor(name).unwrap()];
        let value = collect(decl, &self.program, &[], &self.executor).unwrap();
        value.stored().to_vec()
    }
}

fn f32s(shape: &[u64], values: impl FnMut(usize) -> f32) -> Tensor {
    let count = shape.iter().product::<u64>() as usize;
    Tensor::from_vec(shape, (0..count).map(values).collect())
}

/// The same result for numbers of threads and random schedules.
fn check_all_schedules(declarations: &str, inputs: &[Tensor], expected: &[Tensor]) {
    let mut stats = None;
    let seeds = (0..50).map(Some);
    let schedules = [(1, None), (2, None), (4, None)].into_iter();
    // Ports stay open from one run to the next with as many threads: every number comes twice.
    let threads = |seed: u64| 1 + seed as usize / 2 % 3;
    let schedules = schedules.chain(seeds.map(|seed| (threads(seed.unwrap_or(0)), seed)));
    let mut test = Test::new(declarations);
    for (threads, shuffle) in schedules {
        let (outputs, mut found) = test.run(inputs, &options(threads, shuffle)).unwrap();
        assert_eq!(
            outputs, expected,
            "{threads} threads, shuffled by {shuffle:?}"
        );
        found.allocated_bytes = 0;
        found.threads = 0;
        assert_eq!(*stats.get_or_insert(found), found);
    }
}

/// The code and text of the error of a run.
fn failure(declarations: &str, options: &RunOptions) -> (u16, String) {
    let error = Test::new(declarations).run(&[], options).unwrap_err();
    (error.0[0].code.0, error.to_string())
}

const ADD: &str = r#"
  cores @one = [box(0, 1, 2)]
  input @x : f32[256] = [{on = @one, at = 0, slice = [[0, 256]]}]
  input @y : f32[256] = [{on = @one, at = 1024, slice = [[0, 256]]}]
  output @z : f32[256] = [{on = @one, at = 2048, slice = [[0, 256]]}]
  segment @add() {
    %x = buffer {at = 0, role = "in"} : f32[256]
    %y = buffer {at = 1024, role = "in"} : f32[256]
    %z = buffer {at = 2048, role = "out"} : f32[256]
    vector ({ ^() add %z, %x, %y
                  add %z, %z, %z })
  }
  entry @main() {inputs = [@x, @y], outputs = [@z]} { call @add {on = @one, row = []} }
"#;

#[test]
fn one_core_adds() {
    let (x, y) = (f32s(&[256], |i| i as f32), f32s(&[256], |i| 0.5 * i as f32));
    let z = f32s(&[256], |i| 3.0 * i as f32);
    let (outputs, stats) = Test::new(ADD).run(&[x, y], &options(1, None)).unwrap();
    assert_eq!(outputs, [z]);
    assert_eq!((stats.instructions, stats.calls, stats.messages), (2, 1, 0));
}

/// Every core adds up what went once around the ring.
const RING: &str = r#"
  cores @ring = [box(0, [0, 4], [0, 4])]
  channel @right {from = @ring, to = @ring, peer = mod(i + 1, 16)}
  input @x : f32[16, 256] = [{on = @ring, at = 0, slice = [[i, 1], [0, 256]]}]
  output @sum : f32[16, 256] = [{on = @ring, at = 1024, slice = [[i, 1], [0, 256]]}]
  segment @begin() {
    %x = buffer {at = 0, role = "inout"} : f32[256]
    %sum = buffer {at = 1024, role = "out"} : f32[256]
    vector ({ ^() copy %sum, %x })
  }
  segment @step() {
    %x = buffer {at = 0, role = "inout"} : f32[256]
    %sum = buffer {at = 1024, role = "inout"} : f32[256]
    %next = buffer {at = 2048} : f32[256]
    %here = token
    vector ({ ^() wait %here
                  add %sum, %sum, %next
                  copy %x, %next })
    comm0 ({ ^() post @right, %next
                 send @right, %x
                 recv @right, %next
                 signal %here })
  }
  entry @main() {inputs = [@x], outputs = [@sum]} {
    call @begin {on = @ring, row = []}
    repeat {count = 15} ({ ^(%l : index) call @step {on = @ring, row = []} })
  }
"#;

#[test]
fn ring_is_the_same_for_all_schedules() {
    let x = f32s(&[16, 256], |i| ((i / 256) * 1000 + i % 256) as f32);
    let sum = f32s(&[16, 256], |i| (120 * 1000 + 16 * (i % 256)) as f32);
    check_all_schedules(RING, &[x], &[sum]);
}

/// Panics at the first statement of a core.
struct Panics(CoreAddress);

impl ProbeSink for Panics {
    fn capture(&self, _: TensorId, _: CoreAddress, _: &dyn ReadMemory) -> Result<u64, Diagnostic> {
        Ok(0)
    }

    fn follows(&self, _: SegmentId) -> bool {
        true
    }

    fn begin_call(
        &self,
        _: SegmentId,
        _: CoreAddress,
        _: &Env<'_>,
        _: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic> {
        Ok(0)
    }

    fn done(
        &self,
        _: Statement,
        core: CoreAddress,
        _: &Env<'_>,
        _: &dyn ReadMemory,
    ) -> Result<u64, Diagnostic> {
        assert_ne!(core, self.0, "a defect");
        Ok(0)
    }

    fn end_call(&self, _: SegmentId, _: CoreAddress) {}
}

/// The other cores of the ring wait for one whose worker unwinds.
#[test]
fn a_panic_ends_the_run() {
    let x = f32s(&[16, 256], |i| i as f32);
    for (threads, row) in [(1, 0), (2, 0), (2, 3), (4, 1), (16, 2)] {
        let mut test = Test::new(RING);
        let (id, entry) = test.program.entries.iter().next().unwrap();
        let decl = &test.program.tensors[entry.inputs[0]];
        let options = options(threads, None);
        test.executor.begin(&options);
        let executor = &mut test.executor;
        place(&x, decl, &test.program, &[], executor, Keep::Run).unwrap();
        let sink = Panics(CoreAddress {
            chip: 0,
            row,
            column: 2,
        });
        let run = AssertUnwindSafe(|| executor.run(id, &[], &options, Some(&sink)));
        let panic = catch_unwind(run).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("a defect"), "{message}");
    }
}

/// One core sends to another in a loop with counters in offsets, two slots, and changes the buffer
/// behind every send; the receiver changes what it received.
const ALIASES: &str = r#"
  cores @a = [box(0, 0, 0)]
  cores @b = [box(0, 3, 3)]
  channel @c {from = @a, to = @b, peer = i}
  input @x : f32[64] = [{on = @a, at = 64, slice = [[0, 64]]}]
  output @kept : f32[64] = [{on = @a, at = 64, slice = [[0, 64]]}]
  output @got : f32[4, 64] = [{on = @b, at = 0, slice = [[0, 4], [0, 64]]}]
  output @doubled : f32[4, 64] = [{on = @b, at = 0x2000, slice = [[0, 4], [0, 64]]}]
  segment @send() {
    %x = buffer {at = 64, role = "inout"} : f32[64]
    comm0 ({ ^() for {count = 4} ({ ^(%i : index)
      send @c, %x
      add %x, %x {value = 1.0}
    }) })
  }
  segment @take() {
    %got = buffer {at = 0, role = "out"} : f32[4, 64]
    %doubled = buffer {at = 0x2000, role = "out"} : f32[4, 64]
    %slots = buffer {at = 0x1000} : f32[2, 64]
    comm0 ({ ^()
      for {count = 2} ({ ^(%i : index)
        %slot = view %slots {offset = 256*%i} : f32[64]
        post @c, %slot
      })
      for {count = 2} ({ ^(%i : index)
        for {count = 2} ({ ^(%j : index)
          %s = view %slots {offset = 256*%j} : f32[64]
          %g = view %got {offset = 512*%i + 256*%j} : f32[64]
          %d = view %doubled {offset = 512*%i + 256*%j} : f32[64]
          recv @c, %s
          copy %g, %s
          add %s, %s, %s
          copy %d, %s
          for {count = 1 - %i} ({ ^(%again : index) post @c, %s })
        })
      })
    })
  }
  entry @main() {inputs = [@x], outputs = [@kept, @got, @doubled]} {
    call @send {on = @a, row = []}
    call @take {on = @b, row = []}
  }
"#;

#[test]
fn messages_are_copies() {
    let x = f32s(&[64], |i| i as f32);
    let kept = f32s(&[64], |i| i as f32 + 4.0);
    let got = f32s(&[4, 64], |i| (i % 64 + i / 64) as f32);
    let doubled = f32s(&[4, 64], |i| 2.0 * (i % 64 + i / 64) as f32);
    check_all_schedules(ALIASES, &[x], &[kept, got, doubled]);
}

/// Buffers of other shapes over the same bytes, in one call and from call to call.
const OVERLAPS: &str = r#"
  cores @one = [box(0, 0, 0)]
  input @x : f32[8, 8] = [{on = @one, at = 128, slice = [[0, 8], [0, 8]]}]
  output @y : f32[8, 8] = [{on = @one, at = 128, slice = [[0, 8], [0, 8]]}]
  output @corner : f32[2, 2] = [{on = @one, at = 1024, slice = [[0, 2], [0, 2]], strides = [32, 8]}]
  segment @middle() {
    %rows = buffer {at = 192, role = "inout"} : f32[2, 8]
    vector ({ ^() add %rows, %rows {value = 100.0} })
  }
  segment @columns(%at : index) {
    %x = buffer {at = 128 + 4*%at, role = "inout"} : f32[8, 8]
    %scratch = buffer {at = 512} : f32[64]
    %half = buffer {at = 640} : f32[32]
    %out = buffer {at = 1000, role = "out"} : f32[20]
    vector ({ ^()
      %left = view %x {strides = [32, 4]} : f32[7, 4]
      %right = view %x {offset = 16, strides = [32, 4]} : f32[7, 4]
      %upper = view %x : f32[4, 8]
      %shifted = view %x {offset = 32} : f32[4, 8]
      %corner = view %out {offset = 24, strides = [32, 8]} : f32[2, 2]
      %from = view %x {strides = [32, 4]} : f32[2, 2]
      %flat = view %x : f32[64]
      %again = view %half {strides = [0, 4]} : f32[2, 32]
      %pairs = view %x : f32[2, 32]
      copy %left, %right
      copy %shifted, %upper
      copy %scratch, %flat
      fill %half {value = 0.5}
      add %pairs, %pairs, %again
      copy %corner, %from
    })
  }
  entry @main() {inputs = [@x], outputs = [@y, @corner]} {
    call @middle {on = @one, row = []}
    call @columns {on = @one, row = [i]}
  }
"#;

#[test]
fn overlapping_buffers_and_views() {
    let x = f32s(&[8, 8], |i| i as f32);
    let mut m: Vec<f32> = x.stored().to_vec();
    m[16..32].iter_mut().for_each(|x| *x += 100.0);
    for row in 0..7 {
        let right = m[row * 8 + 4..][..4].to_vec();
        m[row * 8..][..4].copy_from_slice(&right);
    }
    let upper = m[..32].to_vec();
    m[8..40].copy_from_slice(&upper);
    m.iter_mut().for_each(|x| *x += 0.5);
    let corner = Tensor::from_vec(&[2, 2], vec![m[0], m[1], m[8], m[9]]);
    let y = Tensor::from_vec(&[8, 8], m);
    check_all_schedules(OVERLAPS, &[x], &[y, corner]);
}

/// Product of 4 x 4 blocks: A goes around the rows, B around the columns.
const MESH: &str = r#"
  cores @mesh = [box(0, [0, 4], [0, 4])]
  channel @left {from = @mesh, to = @mesh, peer = 4*row + mod(column + 3, 4)}
  channel @up {from = @mesh, to = @mesh, peer = 4*mod(row + 3, 4) + column}
  input @a : f32[32, 32] = [{on = @mesh, at = 0, slice = [[8*row, 8], [8*mod(row + column, 4), 8]]}]
  input @b : f32[32, 32] = [{on = @mesh, at = 256, slice = [[8*mod(row + column, 4), 8], [8*column, 8]]}]
  output @c : f32[32, 32] = [{on = @mesh, at = 512, slice = [[8*row, 8], [8*column, 8]]}]
  segment @gemm() {
    %a = buffer {at = 0, role = "in"} : f32[8, 8]
    %b = buffer {at = 256, role = "in"} : f32[8, 8]
    %c = buffer {at = 512, role = "out"} : f32[8, 8]
    %a2 = buffer {at = 768} : f32[8, 8]
    %b2 = buffer {at = 1024} : f32[8, 8]
    %full = token
    %free = token
    matrix ({ ^()
      fill %c {value = 0.0}
      for {count = 4} ({ ^(%k : index)
        mm %c, %a, %b {accumulate = true}
        signal %free
        wait %full
        copy %a, %a2
        copy %b, %b2
        signal %free
      })
    })
    comm0 ({ ^()
      for {count = 4} ({ ^(%k : index)
        post @left, %a2
        post @up, %b2
        wait %free
        send @left, %a
        send @up, %b
        recv @left, %a2
        recv @up, %b2
        signal %full
        wait %free
      })
    })
  }
  entry @main() {inputs = [@a, @b], outputs = [@c]} { call @gemm {on = @mesh, row = []} }
"#;

#[test]
fn mesh_product() {
    let value = |i: usize, by: usize| ((i * by) % 13) as f32 - 6.0;
    let a = f32s(&[32, 32], |i| value(i, 7));
    let b = f32s(&[32, 32], |i| value(i, 5));
    let c = f32s(&[32, 32], |at| {
        let (i, j) = (at / 32, at % 32);
        (0..32)
            .map(|k| value(i * 32 + k, 7) * value(k * 32 + j, 5))
            .sum()
    });
    check_all_schedules(MESH, &[a, b], &[c]);
}

/// A line of cores relays what the first has; a number in it says how often.
const LINE: &str = r#"
  cores @line = [box(0, 0, [0, 4])]
  cores @head = [box(0, 0, 0)]
  cores @middle = [box(0, 0, [1, 2])]
  cores @tail = [box(0, 0, 3)]
  channel @on {from = @line, to = @line, peer = i + 1 - 8*(i/3)}
  input @x : f32[16] = [{on = @head, at = 64, slice = [[0, 16]]}]
  input @n : i32[1] = [{on = @head, at = 0, slice = [[0, 1]]}]
  output @y : f32[16] = [{on = @tail, at = 128, slice = [[0, 16]]}]
  segment @send() {
    %n = buffer {at = 0, role = "in"} : i32[1]
    %x = buffer {at = 64, role = "in"} : f32[16]
    comm0 ({ ^()
      send @on, %n
      %count = count %n {max = 8, via = @on}
      for {count = %count} ({ ^(%i : index) send @on, %x })
    })
  }
  segment @relay() {
    %n = buffer {at = 0} : i32[1]
    %x = buffer {at = 64} : f32[16]
    comm0 ({ ^()
      post @on, %n
      relay @on, %n, @on
      %count = count %n {max = 8, via = @on}
      for {count = %count} ({ ^(%i : index)
        post @on, %x
        relay @on, %x, @on
      })
    })
  }
  segment @take() {
    %n = buffer {at = 0} : i32[1]
    %x = buffer {at = 64} : f32[16]
    %sum = buffer {at = 128, role = "out"} : f32[16]
    comm0 ({ ^()
      fill %sum {value = 0.0}
      post @on, %n
      recv @on, %n
      %count = count %n {max = 8, via = @on}
      for {count = %count} ({ ^(%i : index)
        post @on, %x
        recv @on, %x
        add %sum, %sum, %x
      })
    })
  }
  entry @main() {inputs = [@x, @n], outputs = [@y]} {
    call @send {on = @head, row = []}
    call @relay {on = @middle, row = []}
    call @take {on = @tail, row = []}
  }
"#;

#[test]
fn counts_travel_along_a_line() {
    let x = f32s(&[16], |i| i as f32);
    let n = Tensor::from_vec(&[1], vec![5i32]);
    let y = f32s(&[16], |i| 5.0 * i as f32);
    check_all_schedules(LINE, &[x.clone(), n], &[y]);
    let many = Tensor::from_vec(&[1], vec![9i32]);
    let error = Test::new(LINE)
        .run(&[x, many], &options(1, None))
        .unwrap_err();
    assert_eq!(error.0[0].code.0, codes::COUNT_RANGE);
    let text = error.to_string();
    assert!(
        text.contains("core (chip 0, row 0, column 0), `%count = count %n"),
        "{text}"
    );
    assert!(text.contains("it read 9"), "{text}");
}

/// A multicast, and a state that is updated in place.
const STATE: &str = r#"
  cores @root = [box(0, 0, 0)]
  cores @row = [box(0, 1, [0, 4])]
  channel @all {from = @root, to = @row, peer = k, branches = 4}
  input @x : f32[8] = [{on = @root, at = 0, slice = [[0, 8]]}]
  state @s : f32[4, 8] = [{on = @row, at = 256, slice = [[i, 1], [0, 8]]}] {init = zeros}
  segment @send() {
    %x = buffer {at = 0, role = "in"} : f32[8]
    comm0 ({ ^() send @all, %x })
  }
  segment @take(%i : index) {
    %never = token
    %x = buffer {at = 0} : f32[8]
    %s = buffer {at = 256, role = "inout"} : f32[8]
    %after = buffer {at = 512, role = "out"} : f32[8]
    comm0 ({ ^()
      post @all, %x
      recv @all, %x
      add %s, %s, %x
      for {count = %i - 2} ({ ^(%k : index) wait %never })
    })
  }
  entry @main() {inputs = [@x], outputs = []} {
    call @send {on = @root, row = []}
    call @take {on = @row, row = [0]}
  }
  entry @stuck() {inputs = [@x], outputs = []} {
    call @send {on = @root, row = []}
    call @take {on = @row, row = [i]}
  }
"#;

#[test]
fn states_live_on_and_are_brought_back() {
    let mut test = Test::new(STATE);
    let x = f32s(&[8], |i| i as f32);
    for run in 1..=3 {
        test.run(std::slice::from_ref(&x), &options(2, None))
            .unwrap();
        let expected: Vec<f32> = (0..32).map(|i| (run * (i % 8)) as f32).collect();
        assert_eq!(test.state("s"), expected);
    }
    let before = test.state("s");
    // Three of four cores end and have updated the state.
    let engine: &mut dyn Engine = &mut test.executor;
    engine.begin(&options(1, None));
    let input = &test.program.tensors[test.program.tensor("x").unwrap()];
    place(&x, input, &test.program, &[], engine, Keep::Run).unwrap();
    let stuck = test.program.entry("stuck").unwrap();
    let error = engine.run(stuck, &[], &options(1, None), None).unwrap_err();
    assert_eq!(error.0[0].code.0, codes::DEADLOCK);
    engine.end(false);
    assert_eq!(test.state("s"), before);
    test.run(&[x], &options(1, Some(3))).unwrap();
    assert_eq!(test.state("s")[7], 28.0);
}

/// Every core waits for its neighbour before it sends.
#[test]
fn deadlock_names_the_cycle() {
    let declarations = r#"
      cores @ring = [box(0, 0, [0, 3])]
      channel @right {from = @ring, to = @ring, peer = mod(i + 1, 3)}
      segment @wrong() {
        %x = buffer {at = 0} : f32[4]
        %y = buffer {at = 64} : f32[4]
        %ready = token
        vector ({ ^() wait %ready
                      add %y, %x, %x })
        comm0 ({ ^() fill %y {value = 1.0}
                     post @right, %x
                     recv @right, %x
                     signal %ready
                     send @right, %y })
      }
      entry @main() {inputs = [], outputs = []} { call @wrong {on = @ring, row = []} }
    "#;
    for threads in [1, 2] {
        let (code, text) = failure(declarations, &options(threads, None));
        assert_eq!(code, codes::DEADLOCK);
        insta::assert_snapshot!("deadlock", text);
    }
}

/// The owner waits for a release, the reader for a message of the owner.
#[test]
fn deadlock_through_dram_names_the_cycle() {
    let declarations = r#"
      cores @bystander = [box(0, 3, 3)]
      cores @owner = [box(0, 0, 0)]
      cores @reader = [box(0, 1, 2)]
      dram @cache {owners = @owner, dip = 0, bytes = 4096, readers = 1}
      channel @go {from = @owner, to = @reader, peer = 0}
      segment @write() {
        %x = buffer {at = 0} : f32[16]
        comm0 ({ ^() for {count = 2} ({ ^(%i : index)
          fill %x {value = 1.0}
          dram.begin @cache
          dram.store @cache, %x {offset = 0, strides = [4]}
          dram.commit @cache
        })
        send @go, %x })
      }
      segment @read() {
        %x = buffer {at = 0} : f32[16]
        comm0 ({ ^() post @go, %x
                     dram.acquire @cache {owner = 0}
                     recv @go, %x
                     dram.release @cache {owner = 0} })
      }
      entry @main() {inputs = [], outputs = []} {
        call @read {on = @reader, row = []}
        call @write {on = @owner, row = []}
      }
    "#;
    for threads in [1, 2] {
        let (code, text) = failure(declarations, &options(threads, None));
        assert_eq!(code, codes::DEADLOCK);
        insta::allow_duplicates! {
            insta::assert_snapshot!(text, @"
            D0700: 2 cores cannot go on: 2 of them wait for each other in a cycle
              note: core (chip 0, row 0, column 0): `dram.begin @cache` in the comm0 stream of @write waits for the readers of the last epoch to release it
              note: core (chip 0, row 1, column 2): `recv @go, %x` in the comm0 stream of @read waits for a message from core (chip 0, row 0, column 0) through @go port 0
            ");
        }
    }
}

#[test]
fn limits_and_cancelling_end_a_run() {
    let endless = r#"
      cores @one = [box(0, 0, 0)]
      segment @loop() {
        %x = buffer {at = 0} : f32[4]
        vector ({ ^() for {count = 1000000000000} ({ ^(%i : index) fill %x {value = 1.0} }) })
      }
      entry @main() {inputs = [], outputs = []} { call @loop {on = @one, row = []} }
    "#;
    let limited = RunOptions {
        max_steps: 100_000,
        ..options(1, None)
    };
    let (code, text) = failure(endless, &limited);
    assert_eq!(code, codes::STEP_LIMIT, "{text}");
    let cancelled = RunOptions {
        cancel: Some(Arc::new(AtomicBool::new(true))),
        ..options(2, None)
    };
    assert_eq!(failure(endless, &cancelled).0, dojoc_ir::codes::CANCELLED);
    let empty = endless.replace("fill %x {value = 1.0}", "");
    assert_eq!(failure(&empty, &limited).0, codes::STEP_LIMIT);
    let large = r#"
      cores @all = [box(0, [0, 4], [0, 4])]
      segment @fill() {
        %x = buffer {at = 0, role = "out"} : f32[65536]
        vector ({ ^() fill %x {value = 1.0} })
      }
      entry @main() {inputs = [], outputs = []} { call @fill {on = @all, row = []} }
    "#;
    let limited = RunOptions {
        max_bytes: 1 << 20,
        ..options(2, None)
    };
    assert_eq!(failure(large, &limited).0, codes::MEMORY_LIMIT);
    // The limit is of what is alive, not of what was ever alive.
    let mut test = Test::new(&large.replace("role = \"out\"", "role = \"scratch\""));
    let (_, stats) = test
        .run(
            &[],
            &RunOptions {
                threads: 1,
                ..limited
            },
        )
        .unwrap();
    assert_eq!(stats.allocated_bytes, 1 << 18);
}

/// The right operand of a product is kept in the form of the kernels too, until it is written.
#[test]
fn packed_operands_are_counted() {
    // Of 16 KiB; a panel has 32 columns.
    let declarations = r#"
      cores @all = [box(0, [0, 4], [0, 4])]
      segment @product() {
        %a = buffer {at = 0} : f32[1, 4096]
        %b = buffer {at = 0x10000} : f32[4096, 1]
        %c = buffer {at = 0x20000} : f32[1, 1]
        matrix ({ ^() for {count = 10} ({ ^(%i : index)
          fill %a {value = 1.0}
          fill %b {value = 1.0}
          mm %c, %a, %b
        }) })
      }
      entry @main() {inputs = [], outputs = []} { call @product {on = @all, row = []} }
    "#;
    let panel = 32 * 4096 * 4;
    let (_, stats) = Test::new(declarations).run(&[], &options(1, None)).unwrap();
    let allocated = stats.allocated_bytes;
    // A core that ends gives its scratch memory to the next.
    assert!((panel..2 * panel).contains(&allocated), "{allocated}");
    let keeps = declarations.replace("%b = buffer {at", "%b = buffer {role = \"out\", at");
    let (_, stats) = Test::new(&keeps).run(&[], &options(2, None)).unwrap();
    let allocated = stats.allocated_bytes;
    assert!((16 * panel..18 * panel).contains(&allocated), "{allocated}");
    let limited = RunOptions {
        max_bytes: 4 * panel,
        ..options(2, None)
    };
    assert_eq!(failure(&keeps, &limited).0, codes::MEMORY_LIMIT);
}

/// The owner publishes a block in three epochs, two readers add them up.
const EPOCHS: &str = r#"
  cores @owner = [box(0, 0, 0)]
  cores @readers = [box(0, 1, [1, 2])]
  dram @cache {owners = @owner, dip = 0, bytes = 1000000, readers = 2}
  input @x : f32[16] = [{on = @owner, at = 0, slice = [[0, 16]]}]
  output @sum : f32[2, 16] = [{on = @readers, at = 64, slice = [[i, 1], [0, 16]]}]
  segment @write() {
    %x = buffer {at = 0, role = "inout"} : f32[16]
    comm0 ({ ^() for {count = 3} ({ ^(%i : index)
      dram.begin @cache
      dram.store @cache, %x {offset = 65520, strides = [8]}
      dram.commit @cache
      add %x, %x {value = 1.0}
    }) })
  }
  segment @read() {
    %sum = buffer {at = 64, role = "out"} : f32[16]
    %part = buffer {at = 128} : f32[16]
    comm0 ({ ^()
      fill %sum {value = 0.0}
      for {count = 3} ({ ^(%i : index)
        dram.acquire @cache {owner = 0}
        dram.load %part, @cache {owner = 0, offset = 65520, strides = [8]}
        dram.release @cache {owner = 0}
        add %sum, %sum, %part
      })
    })
  }
  entry @main() {inputs = [@x], outputs = [@sum]} {
    call @read {on = @readers, row = []}
    call @write {on = @owner, row = []}
  }
"#;

#[test]
fn epochs_of_dram() {
    let x = f32s(&[16], |i| i as f32);
    let sum = f32s(&[2, 16], |i| 3.0 * (i % 16) as f32 + 3.0);
    check_all_schedules(EPOCHS, &[x], &[sum]);
}

#[test]
fn sizes_of_messages_are_checked() {
    let declarations = r#"
      cores @two = [box(0, 0, [0, 2])]
      cores @a = [box(0, 0, 0)]
      cores @b = [box(0, 0, 1)]
      channel @c {from = @a, to = @b, peer = 0}
      segment @send() {
        %x = buffer {at = 0} : f32[4]
        comm0 ({ ^() fill %x {value = 1.0}
                     send @c, %x })
      }
      segment @take() {
        %x = buffer {at = 0} : f32[5]
        comm0 ({ ^() post @c, %x
                     recv @c, %x })
      }
      entry @main() {inputs = [], outputs = []} {
        call @send {on = @a, row = []}
        call @take {on = @b, row = []}
      }
    "#;
    let (code, text) = failure(declarations, &options(1, None));
    assert_eq!(code, codes::MESSAGE_SIZE);
    assert!(
        text.contains("core (chip 0, row 0, column 1), `recv @c, %x`"),
        "{text}"
    );
    assert!(
        text.contains("a slot of 20 bytes, but the message has 16"),
        "{text}"
    );
}
