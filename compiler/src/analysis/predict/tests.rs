use super::*;
use dojoc_ir::program::parse;

fn machine() -> Machine {
    Machine::parse(Machine::builtin("mesh4x4").unwrap(), "mesh4x4").unwrap()
}

/// Predicts `main` of a program whose body is `body`.
fn prediction(body: &str) -> Prediction {
    let text = format!(
        r#"dojo program 1
        program @p {{machine = "mesh4x4"}} {{
          cores @all = [box(0, [0, 4], [0, 4])]
          cores @north = [box(0, [0, 2], [0, 4])]
          cores @south = [box(0, [2, 2], [0, 4])]
          channel @ring {{from = @all, to = @all, peer = mod(i + 1, 16)}}
          {body}
        }}"#
    );
    let (program, _) = parse(&text).unwrap();
    let entry = program.entry("main").unwrap();
    predict(&program, entry, &[], &machine()).unwrap()
}

/// A segment that adds vectors of `n` elements, with statements around the addition.
fn adding(name: &str, before: &str, after: &str) -> String {
    format!(
        r#"segment @{name}(%n : index) {{
             %x = buffer {{at = 0, role = "inout"}} : f32[512]
             vector ({{ ^()
               %v = view %x {{strides = [4]}} : f32[%n]
               {before} add %v, %v, %v {after}
             }})
           }}"#
    )
}

fn main_of(steps: &str) -> String {
    format!("entry @main() {{inputs = [], outputs = []}} {{ {steps} }}")
}

#[test]
fn calls_add_up_and_the_slowest_core_counts() {
    let add = adding("add", "", "");
    let of = |steps: &str| prediction(&format!("{add} {}", main_of(steps)));
    let long = of("call @add {on = @all, row = [512]}");
    let short = of("call @add {on = @all, row = [32]}");
    assert!(short.cycles < long.cycles);
    assert_eq!((long.cores, long.instructions, long.segments), (16, 16, 1));
    assert_eq!((long.messages, long.communication), (0, 0));
    assert_eq!((long.compute, long.sram_high_water), (long.cycles, 2048));
    let uneven = of("call @add {on = @all, row = [32*(i + 1)]}");
    assert_eq!(uneven.cycles, long.cycles);
    let twice = of("call @add {on = @all, row = [512]} call @add {on = @all, row = [512]}");
    assert_eq!(twice.cycles, 2 * long.cycles);
    assert_eq!(twice.by_step.len(), 2);
    // Cores of different regions do not wait for each other.
    let beside = of("call @add {on = @north, row = [512]} call @add {on = @south, row = [32]}");
    assert_eq!(beside.cycles, long.cycles);
    assert_eq!(beside.by_step[1].cycles, 0);
    assert_eq!(beside.by_step[0].segment, "add".into());
}

#[test]
fn repeats_and_loops_count_as_often_as_they_run() {
    let add = adding("add", "", "");
    let of = |steps: &str| prediction(&format!("{add} {}", main_of(steps)));
    let once = of("call @add {on = @all, row = [512]}");
    let many = of("repeat {count = 100} ({ ^(%r : index) call @add {on = @all, row = [512]} })");
    assert_eq!((many.cycles, many.instructions), (100 * once.cycles, 1600));
    let looped = adding("add", "for {count = 10} ({ ^(%k : index)", "})");
    let looped = prediction(&format!(
        "{looped} {}",
        main_of("call @add {on = @all, row = [512]}")
    ));
    let ten = 10 * once.cycles;
    assert!((ten..ten + 20).contains(&looped.cycles), "{looped:?}");
    assert_eq!(looped.instructions, 160);
    // Bodies that depend on the counter are followed one by one: half of the elements on average.
    let growing = r#"segment @add() {
         %x = buffer {at = 0, role = "inout"} : f32[512]
         vector ({ ^()
           for {count = 8} ({ ^(%k : index)
             %v = view %x {strides = [4]} : f32[64*%k]
             add %v, %v, %v
           })
         })
       }"#;
    let growing = prediction(&format!(
        "{growing} {}",
        main_of("call @add {on = @all, row = []}")
    ));
    assert!(growing.cycles > 2 * once.cycles && growing.cycles < 8 * once.cycles);
}

#[test]
fn streams_run_side_by_side_unless_tokens_order_them() {
    let segment = |signal: &str, wait: &str, token: &str| {
        let text = format!(
            r#"segment @both() {{
                 %x = buffer {{at = 0, role = "inout"}} : f32[64]
                 %y = buffer {{at = 4096, role = "inout"}} : f32[8, 8]
                 %z = buffer {{at = 8192, role = "out"}} : f32[8, 8]
                 {token}
                 matrix ({{ ^() {wait} copy %z, %y }})
                 vector ({{ ^() tanh %x, %x {signal} }})
               }}
               {}"#,
            main_of("call @both {on = @all, row = []}")
        );
        prediction(&text)
    };
    let free = segment("", "", "");
    let ordered = segment("signal %t", "wait %t", "%t = token");
    let one = |unit: &str, code: &str| {
        prediction(&format!(
            r#"segment @one() {{
                 %x = buffer {{at = 0, role = "inout"}} : f32[64]
                 %y = buffer {{at = 4096, role = "inout"}} : f32[8, 8]
                 %z = buffer {{at = 8192, role = "out"}} : f32[8, 8]
                 {unit} ({{ ^() {code} }})
               }}
               {}"#,
            main_of("call @one {on = @all, row = []}")
        ))
        .cycles
    };
    let (copy, tanh) = (one("matrix", "copy %z, %y"), one("vector", "tanh %x, %x"));
    assert!(free.cycles >= copy.max(tanh) && free.cycles < copy + tanh);
    assert!(ordered.cycles >= copy + tanh - 1);
}

#[test]
fn messages_bring_cores_together() {
    let ring = r#"segment @shift() {
         %x = buffer {at = 0, role = "in"} : f32[256]
         %y = buffer {at = 1024, role = "out"} : f32[256]
         comm0 ({ ^() post @ring, %y send @ring, %x recv @ring, %y })
       }"#;
    let add = adding("add", "", "");
    let of = |steps: &str| prediction(&format!("{add} {ring} {}", main_of(steps)));
    let shift = of("call @shift {on = @all, row = []}");
    assert_eq!((shift.messages, shift.bytes_moved), (16, 16 * 1024));
    assert_eq!((shift.instructions, shift.compute), (48, 0));
    assert_eq!(shift.communication, shift.cycles);
    // At least the beats of a message, and the way of the last core to the first: 3 rows, 3 columns.
    let machine = machine();
    let beats = 1024 / u64::from(machine.noc.beat.value);
    let way = 2 * 6 * u64::from(machine.noc.hop.value);
    assert!(shift.cycles >= beats + way, "{}", shift.cycles);
    let late = of("call @add {on = @south, row = [512]} call @shift {on = @all, row = []}");
    let alone = of("call @add {on = @south, row = [512]}");
    assert!(late.cycles.abs_diff(alone.cycles + shift.cycles) <= 1);
    let parts = late.compute + late.communication;
    assert_eq!(parts, late.cycles);
}

#[test]
fn ops_of_the_model_share_the_cycles() {
    let text = r#"segment @two() {
         %x = buffer {at = 0, role = "inout"} : f32[512]
         %y = buffer {at = 2048, role = "inout"} : f32[64]
         vector ({ ^()
           add %x, %x, %x loc("big", "m.onnx":1)
           add %y, %y, %y loc("small", "m.onnx":2)
         })
       }"#;
    let found = prediction(&format!(
        "{text} {}",
        main_of(r#"call @two {on = @all, row = []} call @two {on = @all, row = []}"#)
    ));
    let names: Vec<&str> = found.by_op.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["big", "small"]);
    let sum: u64 = found.by_op.iter().map(|(_, cycles)| cycles).sum();
    assert!(sum.abs_diff(found.cycles) <= 2, "{found:?}");
}

#[test]
fn hostile_loops_end() {
    let endless = r#"segment @two() {
         %x = buffer {at = 0, role = "inout"} : f32[512]
         %t = token
         vector ({ ^() for {count = 1000000000000} ({ ^(%k : index) signal %t }) })
         matrix ({ ^() for {count = 1000000000000} ({ ^(%k : index) wait %t }) })
       }"#;
    let found = prediction(&format!(
        "{endless} {}",
        main_of(
            "repeat {count = 1000000000000} ({ ^(%r : index) call @two {on = @all, row = []} })"
        )
    ));
    assert!(found.cycles > 1_000_000_000_000);
}
