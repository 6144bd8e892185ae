//! Planted faults, each with what the sanitizer says about it; programs without faults beside them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dojoc_ir::codes::{
    BAD_CHANNEL, BAD_DRAM, BAD_OPERANDS, CANCELLED, CHANNEL_BALANCE, MISALIGNED, OUT_OF_BOUNDS,
    SLOT_OWNED, SLOT_REUSED, SRAM_EXCEEDED, STREAM_RACE, TOKEN_BALANCE, UNINITIALISED, WRONG_UNIT,
};
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::program::recipe::NoSources;
use dojoc_ir::tensor::Tensor;

use crate::codes::{COUNT_RANGE, DATA_FAULT, DEADLOCK, MEMORY_LIMIT, STEP_LIMIT};
use crate::instance::testing::{machine, program};
use crate::instance::{Instance, LoadOptions, RunResult};
use crate::options::RunOptions;

/// Cores and channels that all programs here share: four cores in a row, a ring among them, and
/// the first one alone.
const COMMON: &str = r#"
  cores @one = [box(0, 0, 0)]
  cores @four = [box(0, 0, [0, 4])]
  channel @right {from = @four, to = @four, peer = mod(i + 1, 4)}
  channel @left {from = @four, to = @four, peer = mod(i + 3, 4)}
"#;

fn options() -> RunOptions {
    RunOptions {
        sanitize: true,
        max_steps: 100_000,
        ..RunOptions::default()
    }
}

fn run_with(text: &str, options: &RunOptions) -> Result<RunResult, Diagnostic> {
    let load = LoadOptions {
        verify: false,
        sanitize: true,
        ..LoadOptions::default()
    };
    let program = program(&format!("{COMMON}{text}"));
    let mut instance = Instance::load(program, &machine(), &NoSources, load).unwrap();
    let input = Tensor::from_vec(&[16], (0..16).map(|i| i as f32).collect());
    let inputs: Vec<(Arc<str>, Tensor)> = match text.contains("input @x") {
        true => vec![("x".into(), input)],
        false => Vec::new(),
    };
    let result = instance.run("main", &inputs, options);
    result.map_err(|mut found| found.0.remove(0))
}

/// The error of a run, which is the same under every order of statements tried.
#[track_caller]
fn refused(text: &str, code: u16, parts: &[&str]) -> Diagnostic {
    let found = run_with(text, &options()).unwrap_err();
    let shown = found.to_string();
    assert_eq!(found.code.0, code, "{shown}");
    for part in parts {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    for shuffle in 0..8 {
        let options = RunOptions {
            shuffle: Some(shuffle),
            ..options()
        };
        let again = run_with(text, &options).unwrap_err();
        assert_eq!(again.code.0, code, "{shown}\nversus\n{again}");
    }
    found
}

#[track_caller]
fn accepted(text: &str) -> RunResult {
    let result = run_with(text, &options()).unwrap();
    for shuffle in 0..8 {
        let options = RunOptions {
            shuffle: Some(shuffle),
            ..options()
        };
        let again = run_with(text, &options).unwrap();
        assert_eq!(again.outputs, result.outputs);
        assert_eq!(again.stats, result.stats);
    }
    result
}

/// A segment on core 0 whose vector stream has this body.
fn vector(buffers: &str, body: &str) -> String {
    format!(
        "segment @s() {{ {buffers} vector ({{ ^() {body} }}) }}
         entry @main() {{inputs = [], outputs = []}} {{ call @s {{on = @one, row = []}} }}"
    )
}

const CORE_0: &str = "core (chip 0, row 0, column 0), segment @s, vector stream";

#[test]
fn bytes_that_were_never_written() {
    let a = "%a = buffer {at = 0} : f32[16] %b = buffer {at = 64} : f32[16]";
    let text = vector(
        a,
        "%v = view %b {offset = 32} : f32[8] fill %v {value = 1.0} exp %a, %b",
    );
    let byte = "byte 64 of the SRAM";
    refused(
        &text,
        UNINITIALISED,
        &[CORE_0, "`exp", "%b", byte, "never written"],
    );
    accepted(&vector(a, "fill %b {value = 1.0} exp %a, %b"));
}

#[test]
fn content_of_another_call() {
    let calls = "call @w {on = @one, row = []} call @r {on = @one, row = []}";
    let text = |first: &str, second: &str| {
        format!(
            "segment @w() {{ %a = buffer {{at = 0, role = \"{first}\"}} : f32[16]
               vector ({{ ^() fill %a {{value = 1.0}} }}) }}
             segment @r() {{ %b = buffer {{at = 0, role = \"{second}\"}} : f32[16]
               vector ({{ ^() exp %b, %b }}) }}
             entry @main() {{inputs = [], outputs = []}} {{ {calls} }}"
        )
    };
    let gone = refused(
        &text("scratch", "inout"),
        UNINITIALISED,
        &["@r", "%a", "earlier call"],
    );
    assert!(gone.help.is_some());
    refused(
        &text("out", "scratch"),
        UNINITIALISED,
        &["was not written in this call"],
    );
    accepted(&text("out", "inout"));
}

#[test]
fn overlapping_buffers() {
    let text = |at: u64| {
        let buffers =
            format!("%a = buffer {{at = 0}} : f32[32] %b = buffer {{at = {at}}} : f32[16]");
        vector(
            &buffers,
            "fill %a {value = 1.0} fill %b {value = 2.0} exp %a, %a",
        )
    };
    let found = refused(
        &text(64),
        SLOT_REUSED,
        &[CORE_0, "`exp", "buffer %b", "`fill", "written by"],
    );
    assert_eq!(found.notes.len(), 1);
    accepted(&text(128));
}

/// Two streams on one core, a token between them or not.
fn two_streams(ordered: bool) -> String {
    let (signal, wait) = match ordered {
        true => ("signal %t", "wait %t"),
        false => ("", ""),
    };
    let token = if ordered { "%t = token" } else { "" };
    format!(
        "segment @s() {{
           %a = buffer {{at = 0, role = \"out\"}} : f32[16]
           %b = buffer {{at = 64, role = \"out\"}} : f32[16]
           {token}
           matrix ({{ ^() fill %a {{value = 1.0}} {signal} fill %b {{value = 1.0}} }})
           vector ({{ ^() {wait} fill %a {{value = 3.0}} }})
         }}
         output @y : f32[16] = [{{on = @one, at = 0, slice = [[0, 16]]}}]
         entry @main() {{inputs = [], outputs = [@y]}} {{ call @s {{on = @one, row = []}} }}"
    )
}

#[test]
fn accesses_of_two_streams() {
    let parts = [
        "no token orders",
        "matrix stream",
        "vector stream",
        "`fill",
        "written by",
    ];
    refused(&two_streams(false), STREAM_RACE, &parts);
    let result = accepted(&two_streams(true));
    assert_eq!(result.outputs[0].1.to_f64s(), [3.0; 16]);
}

/// The matrix stream sends what the vector stream overwrites.
#[test]
fn a_send_from_a_buffer_that_is_overwritten() {
    let text = |signal: &str, wait: &str, token: &str| {
        format!(
            "segment @s() {{
               %a = buffer {{at = 0}} : f32[16] %slot = buffer {{at = 64, role = \"out\"}} : f32[16]
               %ready = token {token}
               vector ({{ ^() fill %a {{value = 1.0}} signal %ready {wait} fill %a {{value = 2.0}} }})
               comm0 ({{ ^() wait %ready post @right, %slot send @right, %a {signal} recv @right, %slot }})
             }}
             output @y : f32[4, 16] = [{{on = @four, at = 64, slice = [[i, 1], [0, 16]]}}]
             entry @main() {{inputs = [], outputs = [@y]}} {{ call @s {{on = @four, row = []}} }}"
        )
    };
    refused(
        &text("", "", ""),
        STREAM_RACE,
        &["`send", "`fill", "vector stream", "comm0 stream"],
    );
    let result = accepted(&text("signal %sent", "wait %sent", "%sent = token"));
    assert_eq!(result.outputs[0].1.to_f64s(), [1.0; 64]);
    assert_eq!(
        (result.stats.messages, result.stats.message_bytes),
        (4, 256)
    );
}

/// All four cores exchange with their neighbours; `body` is the vector stream.
fn ring(body: &str) -> String {
    format!(
        "segment @s() {{
           %a = buffer {{at = 0}} : f32[16] %slot = buffer {{at = 64}} : f32[16]
           %big = buffer {{at = 128}} : f32[32]
           vector ({{ ^() fill %a {{value = 1.0}} {body} }})
         }}
         entry @main() {{inputs = [], outputs = []}} {{ call @s {{on = @four, row = []}} }}"
    )
}

#[test]
fn slots_belong_to_the_network() {
    let used = ring("post @right, %slot exp %slot, %a send @right, %a recv @right, %slot");
    refused(
        &used,
        SLOT_OWNED,
        &["`exp", "%slot", "`post", "posted by", "column 0"],
    );
    let read = ring("post @right, %slot send @right, %a exp %a, %slot recv @right, %slot");
    refused(&read, SLOT_OWNED, &["`exp", "posted by"]);
    let twice = ring("post @right, %slot post @right, %slot");
    refused(&twice, SLOT_OWNED, &["`post"]);
    accepted(&ring(
        "post @right, %slot send @right, %a recv @right, %slot exp %slot, %slot",
    ));
}

#[test]
fn messages_that_do_not_fit() {
    let large = ring("post @right, %big send @right, %a recv @right, %big");
    refused(
        &large,
        CHANNEL_BALANCE,
        &["`send", "64 bytes", "slot of 128", "posted by", "`post"],
    );
    let body = "%low = view %big : f32[16] %high = view %big {offset = 64} : f32[16]
        post @right, %low post @right, %high send @right, %a send @right, %a";
    let other = ring(&format!("{body} recv @right, %high recv @right, %low"));
    refused(
        &other,
        CHANNEL_BALANCE,
        &["`recv", "not the oldest slot", "`post"],
    );
    accepted(&ring(&format!(
        "{body} recv @right, %low recv @right, %high"
    )));
    let kept = ring("post @right, %slot send @right, %a");
    refused(
        &kept,
        CHANNEL_BALANCE,
        &["`post", "before the slot is received"],
    );
    let none = ring("send @right, %a {port = 1}");
    refused(&none, BAD_CHANNEL, &["`send", "no channel of @right"]);
    let gaps = ring("%v = view %big {strides = [8]} : f32[16] post @right, %v");
    refused(&gaps, BAD_OPERANDS, &["`post", "not dense"]);
}

#[test]
fn tokens_left_over() {
    let text = |more: &str| {
        format!(
            "segment @s() {{ %a = buffer {{at = 0}} : f32[16] %t = token
               vector ({{ ^() fill %a {{value = 1.0}} signal %t {more} }})
               comm0 ({{ ^() wait %t }}) }}
             entry @main() {{inputs = [], outputs = []}} {{ call @s {{on = @one, row = []}} }}"
        )
    };
    refused(
        &text("signal %t"),
        TOKEN_BALANCE,
        &[CORE_0, "`signal", "1 signals of %t", "`wait"],
    );
    accepted(&text(""));
}

#[test]
fn deadlocks_show_who_waits() {
    let cycle = ring("recv @right, %slot send @right, %a");
    let found = refused(&cycle, DEADLOCK, &["waits for itself", "4 streams"]);
    assert_eq!(found.notes.len(), 5, "{found}");
    for column in 0..4 {
        let name = format!("column {column})");
        assert!(
            found
                .notes
                .iter()
                .any(|n| n.contains(&name) && n.contains("`recv")),
            "{found}"
        );
    }
    // Everyone sends before anyone has posted a slot.
    let slots = ring("send @right, %a post @right, %slot recv @right, %slot");
    refused(
        &slots,
        DEADLOCK,
        &["`send", "waits for a slot at the receiver"],
    );
    let token = "segment @s() { %t = token vector ({ ^() wait %t }) }
        entry @main() {inputs = [], outputs = []} { call @s {on = @one, row = []} }";
    refused(
        token,
        DEADLOCK,
        &["`wait", "waits for a signal", "no stream of core"],
    );
    let ended = "segment @s() { %slot = buffer {at = 0} : f32[16]
          vector ({ ^() post @right, %slot recv @right, %slot }) }
        entry @main() {inputs = [], outputs = []} { call @s {on = @one, row = []} }";
    refused(ended, DEADLOCK, &["`recv", "column 3) does not run"]);
}

#[test]
fn views_outside_their_buffers() {
    let a = "%a = buffer {at = 0} : f32[16]";
    let view = |v: &str| vector(a, &format!("%v = view %a {v} fill %v {{value = 0.0}}"));
    refused(
        &view("{offset = 32} : f32[9]"),
        OUT_OF_BOUNDS,
        &[CORE_0, "%v", "64 bytes of buffer %a"],
    );
    refused(&view("{offset = -4} : f32[1]"), OUT_OF_BOUNDS, &["%v"]);
    refused(
        &view("{offset = 2} : f32[1]"),
        MISALIGNED,
        &["%v", "4 bytes"],
    );
    refused(&view("{strides = [6]} : f32[2]"), MISALIGNED, &["%v"]);
    accepted(&view("{offset = 32} : f32[8]"));
    let looped = "for {count = 4} ({ ^(%i : index)
        %v = view %a {offset = 32*%i} : f32[8] fill %v {value = 0.0} })";
    refused(&vector(a, looped), OUT_OF_BOUNDS, &["`fill"]);
    let far = "%a = buffer {at = 64*100000} : f32[16]";
    refused(
        &vector(far, "fill %a {value = 0.0}"),
        SRAM_EXCEEDED,
        &["buffer %a", "`fill"],
    );
    let odd = "%a = buffer {at = 8} : f32[16]";
    refused(
        &vector(odd, "fill %a {value = 0.0}"),
        MISALIGNED,
        &["buffer %a"],
    );
}

#[test]
fn instructions_that_cannot_be_carried_out() {
    let buffers = "%a = buffer {at = 0} : f32[16] %b = buffer {at = 64} : f32[8]
        %x = buffer {at = 128} : f32[4, 4] %n = buffer {at = 256} : i32[1]";
    let with = |body: &str| vector(buffers, body);
    refused(
        &with("fill %b {value = 1.0} exp %a, %b"),
        BAD_OPERANDS,
        &["`exp"],
    );
    refused(
        &with("fill %x {value = 1.0} mm %x, %x, %x"),
        WRONG_UNIT,
        &["`mm"],
    );
    let gather = "fill %x {value = 1.0} fill %n {value = 9}
        %row = view %a : f32[1, 4] gather %row, %x, %n";
    refused(&with(gather), DATA_FAULT, &[CORE_0, "`gather"]);
    let count = |max: u64| {
        format!(
            "fill %n {{value = 3}} %k = count %n {{max = {max}}} fill %a {{value = 0.0}}
             for {{count = %k}} ({{ ^(%i : index) add %a, %a {{value = 1.0}} }})"
        )
    };
    refused(
        &with(&count(2)),
        COUNT_RANGE,
        &["count %n", "%n is 3, outside 0 to 2"],
    );
    let result = accepted(&with(&count(3)));
    assert_eq!(result.stats.instructions, 6);
}

#[test]
fn weights_do_not_change() {
    let weight = "weight @w : f32[16] = [{on = @one, at = 0, slice = [[0, 16]]}] \
        {data = splat(f32[16], 2.0)}";
    let a = "%a = buffer {at = 0, role = \"in\"} : f32[16] %b = buffer {at = 64} : f32[16]";
    let text = |body: &str| format!("{weight} {}", vector(a, body));
    refused(
        &text("neg %a, %a"),
        SLOT_REUSED,
        &["`neg", "holds a weight"],
    );
    accepted(&text("neg %b, %a"));
}

#[test]
fn states_are_kept() {
    let text = |role: &str| {
        let a = format!("%a = buffer {{at = 0, role = \"{role}\"}} : f32[16]");
        let state =
            "state @held : f32[16] = [{on = @one, at = 0, slice = [[0, 16]]}] {init = zeros}";
        format!("{state} {}", vector(&a, "fill %a {value = 1.0}"))
    };
    refused(
        &text("scratch"),
        SLOT_REUSED,
        &["`fill", "holds a state", "%a"],
    );
    accepted(&text("out"));
}

/// Content that a call was given stays until something writes it.
#[test]
fn content_that_nobody_overwrites_stays() {
    let text = "input @x : f32[16] = [{on = @one, at = 0, slice = [[0, 16]]}]
        output @y : f32[16] = [{on = @one, at = 0, slice = [[0, 16]]}]
        segment @s() { %a = buffer {at = 0, role = \"in\"} : f32[16] %b = buffer {at = 64} : f32[16]
          vector ({ ^() exp %b, %a }) }
        entry @main() {inputs = [@x], outputs = [@y]} {
          repeat {count = 3} ({ ^(%l : index) call @s {on = @one, row = []} }) }";
    assert_eq!(accepted(text).outputs[0].1.to_f64s()[15], 15.0);
}

/// Both communication streams send on one channel.
#[test]
fn streams_that_share_a_channel() {
    let text = |token: &str, signal: &str, wait: &str| {
        format!(
            "segment @s() {{
               %a = buffer {{at = 0, role = \"in\"}} : f32[16]
               %u = buffer {{at = 64}} : f32[16] %v = buffer {{at = 128}} : f32[16] {token}
               comm0 ({{ ^() send @right, %a {signal} }})
               comm1 ({{ ^() {wait} send @right, %a }})
               vector ({{ ^() post @right, %u post @right, %v recv @right, %u recv @right, %v }})
             }}
             input @x : f32[16] = [{{on = @four, at = 0, slice = [[0, 16]]}}]
             entry @main() {{inputs = [@x], outputs = []}} {{ call @s {{on = @four, row = []}} }}"
        )
    };
    refused(
        &text("", "", ""),
        STREAM_RACE,
        &["`send", "comm0 stream", "comm1 stream"],
    );
    accepted(&text("%t = token", "signal %t", "wait %t"));
}

/// Core 0 writes an instance twice, core 1 reads it; each statement can be left out.
fn dram(left_out: &str) -> String {
    let keep = |statement: &str| match statement.starts_with(left_out) && !left_out.is_empty() {
        true => String::new(),
        false => statement.to_owned(),
    };
    let owner = [
        "fill %a {value = 1.0}",
        "dram.begin @m",
        "dram.store @m, %a",
        "dram.commit @m",
    ];
    let reader = [
        "dram.acquire @m {owner = 0}",
        "dram.load %a, @m {owner = 0}",
        "dram.release @m {owner = 0}",
    ];
    let owner: Vec<String> = owner.iter().map(|s| keep(s)).collect();
    let reader: Vec<String> = reader.iter().map(|s| keep(s)).collect();
    format!(
        "cores @second = [box(0, 0, 1)]
         dram @m {{owners = @one, dip = 0, bytes = 64, readers = 1}}
         segment @w() {{ %a = buffer {{at = 0}} : f32[16]
           vector ({{ ^() for {{count = 2}} ({{ ^(%i : index) {} }}) }}) }}
         segment @r() {{ %a = buffer {{at = 0, role = \"out\"}} : f32[16]
           vector ({{ ^() for {{count = 2}} ({{ ^(%i : index) {} }}) }}) }}
         output @y : f32[16] = [{{on = @second, at = 0, slice = [[0, 16]]}}]
         entry @main() {{inputs = [], outputs = [@y]}} {{
           call @w {{on = @one, row = []}} call @r {{on = @second, row = []}} }}",
        owner.join(" "),
        reader.join(" "),
    )
}

#[test]
fn dram_epochs() {
    let result = accepted(&dram(""));
    assert_eq!(result.outputs[0].1.to_f64s(), [1.0; 16]);
    assert_eq!(result.stats.dram_bytes, 4 * 64);
    refused(
        &dram("dram.begin"),
        BAD_DRAM,
        &["`dram.store", "outside `dram.begin`"],
    );
    refused(
        &dram("dram.acquire"),
        BAD_DRAM,
        &["`dram.load", "column 1", "not acquired"],
    );
    let open = refused(&dram("dram.commit"), BAD_DRAM, &["already", "`dram.begin"]);
    assert_eq!(open.notes.len(), 1);
    refused(
        &dram("dram.store"),
        UNINITIALISED,
        &["`dram.load", "instance 0 of @m"],
    );
    let far = dram("").replace("dram.store @m, %a", "dram.store @m, %a {offset = 4}");
    refused(&far, BAD_DRAM, &["`dram.store", "64 bytes of @m"]);
    let stranger = dram("").replace("call @w {on = @one", "call @w {on = @four");
    refused(&stranger, BAD_DRAM, &["does not own"]);
    let waiting = dram("").replace("readers = 1", "readers = 2");
    refused(&waiting, DEADLOCK, &["`dram.begin", "readers to release"]);
}

#[test]
fn outputs_that_nobody_wrote() {
    let text = "output @y : f32[16] = [{on = @one, at = 0, slice = [[0, 16]]}]
        segment @s() { %a = buffer {at = 0} : f32[16] vector ({ ^() fill %a {value = 1.0} }) }
        entry @main() {inputs = [], outputs = [@y]} { call @s {on = @one, row = []} }";
    refused(
        text,
        UNINITIALISED,
        &["the host reads byte 0", "@y", "%a", "role"],
    );
}

#[test]
fn limits_and_cancelling() {
    let text = vector(
        "%a = buffer {at = 0} : f32[16]",
        "for {count = 1000000} ({ ^(%i : index) fill %a {value = 1.0} })",
    );
    let limited = RunOptions {
        max_steps: 1000,
        ..options()
    };
    assert_eq!(run_with(&text, &limited).unwrap_err().code.0, STEP_LIMIT);
    let limited = RunOptions {
        max_bytes: 32,
        ..options()
    };
    assert_eq!(run_with(&text, &limited).unwrap_err().code.0, MEMORY_LIMIT);
    let cancelled = RunOptions {
        cancel: Some(Arc::new(AtomicBool::new(true))),
        ..options()
    };
    assert_eq!(run_with(&text, &cancelled).unwrap_err().code.0, CANCELLED);
}

#[test]
fn messages_name_the_users_node() {
    let text = vector(
        "%a = buffer {at = 0} : f32[16]",
        "exp %a, %a loc(\"layer1/exp\", \"model.onnx\":7)",
    );
    let found = refused(&text, UNINITIALISED, &["layer1/exp (model.onnx:7)"]);
    assert!(matches!(found.place, Some(dojoc_ir::diag::Place::Node(_))));
}

/// A relayed broadcast: core 0 sends, the others pass it on.
#[test]
fn relays() {
    let text = "input @x : f32[16] = [{on = @one, at = 0, slice = [[0, 16]]}]
        cores @middle = [box(0, 0, [1, 2])]
        cores @last = [box(0, 0, 3)]
        segment @first() { %a = buffer {at = 0, role = \"inout\"} : f32[16]
          comm0 ({ ^() send @right, %a }) }
        segment @pass() { %a = buffer {at = 0, role = \"out\"} : f32[16]
          comm0 ({ ^() post @right, %a relay @right, %a, @right }) }
        segment @end() { %a = buffer {at = 0, role = \"out\"} : f32[16]
          comm0 ({ ^() post @right, %a recv @right, %a }) }
        output @y : f32[4, 16] = [{on = @four, at = 0, slice = [[i, 1], [0, 16]]}]
        entry @main() {inputs = [@x], outputs = [@y]} {
          call @first {on = @one, row = []}
          call @pass {on = @middle, row = []}
          call @end {on = @last, row = []} }";
    let result = accepted(text);
    let expected: Vec<f64> = (0..64).map(|i| f64::from(i % 16)).collect();
    assert_eq!(result.outputs[0].1.to_f64s(), expected);
    assert_eq!(result.stats.messages, 3);
}
