//! A broken program for each rule, with what the user is told, and sound ones.

use std::sync::atomic::AtomicBool;

use super::super::instr::Ref;
use super::super::{
    Affine, CoreBox, IndexNode, Inst, Program, Region, RegionId, Span, Stmt, TokenId, Var, ViewId,
    parse,
};
use super::{structure, verify, verify_until};
use crate::entity::EntityId;
use crate::machine::{CoreAddress, Machine};

fn machine(name: &str) -> Machine {
    Machine::parse(Machine::builtin(name).unwrap(), name).unwrap()
}

/// What the verifier says about a program on a machine, as the user sees it.
fn on(name: &str, body: &str) -> String {
    let head = format!("machine = \"{name}\", dims = {{batch = 9}}");
    let text = format!("dojo program 1\nprogram @p {{{head}}} {{\n{body}\n}}\n");
    let (program, _) = parse(&text).map_err(|e| e.to_string()).unwrap();
    let found: Vec<String> = verify(&program, &machine(name))
        .into_iter()
        .map(|violation| violation.into_diagnostic(&program, None).to_string())
        .collect();
    found.join("\n")
}

fn same(found: &str, expected: &str) {
    assert_eq!(found, expected, "\n<<<\n{found}\n>>>");
}

/// Six equal layers, each with a weight of its own.
fn layers(from: &str, to: &str) -> String {
    let layer = |n: u32| {
        let weight = 256 + 64 * n;
        format!("    call @layer {{on = @one, row = [0, {weight}, 64]}}\n    probe @p{n}\n")
    };
    let probe =
        |n: u32| format!("  probe @p{n} : f32[16] = [{{on = @one, at = 0, slice = [[0, 16]]}}]\n");
    let steps: String = (0..6).map(layer).collect();
    let probes: String = (0..6).map(probe).collect();
    let body = format!(
        r#"
  cores @one = [box(0, 0, 0)]
  input @x : f32[16] = [{{on = @one, at = 0, slice = [[0, 16]]}}]
  output @y : f32[16] = [{{on = @one, at = 0, slice = [[0, 16]]}}]
  weight @w : f32[96] = [{{on = @one, at = 256, slice = [[0, 96]]}}] {{data = splat(f32[96], 1.0)}}
{probes}  segment @layer(%x : index, %w : index, %t : index) {{
    %x0 = buffer {{at = %x, role = "inout"}} : f32[16]
    %w0 = buffer {{at = %w, role = "in"}} : f32[16]
    %t0 = buffer {{at = %t}} : f32[16]
    vector ({{ ^()
      mul %t0, %x0, %w0
      copy %x0, %t0
    }})
  }}
  entry @main() {{inputs = [@x], outputs = [@y]}} {{
{steps}  }}"#
    );
    assert_eq!(body.matches(from).count(), 1, "{from}");
    on("mesh4x4", &body.replace(from, to))
}

/// Tests of programs with a mistake: name, program, and what the user is told.
macro_rules! refused {
    ($($name:ident: $program:ident($($part:expr),+) => $told:expr;)+) => {$(
        #[test]
        fn $name() {
            same(&$program($($part),+), $told);
        }
    )+};
}

const RING: &str = r#"
  cores @ring = [box(0, [0, 4], [0, 4])]
  channel @right {from = @ring, to = @ring, peer = mod(i + 1, 16)}
  input @x : f32[16, 64] = [{on = @ring, at = 0, slice = [[i, 1], [0, 64]]}]
  output @y : f32[16, 64] = [{on = @ring, at = 1024, slice = [[i, 1], [0, 64]]}]
  segment @shift() {
    %x = buffer {at = 0, role = "in"} : f32[64]
    %y = buffer {at = 1024, role = "out"} : f32[64]
    comm0 ({ ^()
      post @right, %y
      send @right, %x
      recv @right, %y
    })
  }
  entry @main() {inputs = [@x], outputs = [@y]} {
    call @shift {on = @ring, row = []}
  }
"#;

const DRAM: &str = r#"
  cores @o = [box(0, 0, 0)]
  cores @r = [box(0, 0, [1, 2])]
  dram @d {owners = @o, dip = 0, bytes = 256, readers = 2}
  segment @owner() {
    %x = buffer {at = 0} : f32[64]
    comm0 ({ ^()
      fill %x {value = 1.0}
      for {count = 3} ({ ^(%i : index)
        dram.begin @d
        dram.store @d, %x
        dram.commit @d
      })
    })
  }
  segment @reader() {
    %x = buffer {at = 0} : f32[64]
    comm0 ({ ^()
      for {count = 3} ({ ^(%i : index)
        dram.acquire @d {owner = 0}
        dram.load %x, @d {owner = 0}
        dram.release @d {owner = 0}
      })
    })
  }
  entry @main() {inputs = [], outputs = []} {
    call @owner {on = @o, row = []}
    call @reader {on = @r, row = []}
  }
"#;

/// The ring with a part replaced.
fn ring(from: &str, to: &str) -> String {
    assert!(RING.contains(from));
    on("mesh4x4", &RING.replace(from, to))
}

/// The program with a DRAM region, with a part replaced.
fn dram(from: &str, to: &str) -> String {
    assert!(DRAM.contains(from));
    on("tray", &DRAM.replace(from, to))
}

/// A program on a small mesh.
fn mesh(body: &str) -> String {
    on("mesh4x4", body)
}

#[test]
fn programs_without_a_mistake() {
    assert_eq!(ring("i + 1", "i + 1"), "");
    assert_eq!(dram("readers", "readers"), "");
}

refused! {
    a_region_outside_the_machine: ring("box(0, [0, 4], [0, 4])", "box(0, [0, 2], [2, 3])") =>
        "D0221: cores @ring: box 0: columns reach 4, the machine has 0 to 3";
    a_core_twice: ring("box(0, [0, 4], [0, 4])]", "box(0, [0, 4], [0, 3]), box(0, 2, [1, 2])]") =>
        "D0221: cores @ring: core (chip 0, row 2, column 1) occurs twice";
    a_misaligned_buffer: ring("%y = buffer {at = 1024", "%y = buffer {at = 1032") =>
        "D0224: segment @shift, buffer %y: starts at address 1032, which is not a multiple of 64, on core (chip 0, row 0, column 0)
D0232: tensor @y: bytes 1024..1032 of SRAM, which hold a part of @y, are not defined at the end of entry @main on core (chip 0, row 0, column 0)
  note: nothing has written them";
    a_buffer_beyond_sram: ring("%x = buffer {at = 0", "%x = buffer {at = 1310656") =>
        "D0225: segment @shift, buffer %x: its 256 bytes at address 1310656 exceed the SRAM of 1310720 bytes by 192, on core (chip 0, row 0, column 0)
D0232: segment @shift, comm0 stream, `send @right, %x`: reads bytes 1310656..1310912 of SRAM through %x, which are not defined when step 0 of entry @main starts on core (chip 0, row 0, column 0)
  note: nothing has written them";
    a_peer_that_does_not_exist: ring("peer = mod(i + 1, 16)", "peer = i + 1") =>
        "D0226: channel @right: port 0 of core (chip 0, row 3, column 3) leads to core 16 of @ring, which has 16
  help: a negative peer means that there is no channel";
    two_channels_to_one_port: ring("peer = mod(i + 1, 16)", "peer = i / 2") =>
        "D0226: channel @right: two channels lead to port 0 of core (chip 0, row 0, column 0), one of them from port 0 of core (chip 0, row 0, column 1)";
    branches_without_multicast: ring(
        "peer = mod(i + 1, 16)",
        "peer = mod(i + 1 + k, 16), branches = 2"
    ) =>
        "D0226: channel @right: has several branches, but this machine's routers do not multicast
  help: relay: each receiver sends on to the next";
    a_port_without_a_channel: ring(
        "peer = mod(i + 1, 16)",
        "peer = min(i + 1, 16) - 16 * (i / 15) - i / 15"
    ) =>
        "D0226: entry @main, step 0: core (chip 0, row 0, column 0) runs segment @shift, which receives from @right at port 0, but has no incoming channel there";
    more_sent_than_received: ring(
        "send @right, %x",
        "for {count = 2} ({ ^(%i : index) send @right, %x })"
    ) =>
        "D0227: channel @right: in entry @main, from port 0 of core (chip 0, row 0, column 0) to core (chip 0, row 0, column 1), 2 messages are sent, 1 are received
  note: segment @shift sends on core (chip 0, row 0, column 0) or others
  note: segment @shift receives on core (chip 0, row 0, column 1) or others
  note: 16 channels of the family are like this";
    other_sizes_sent_than_received: ring(
        "send @right, %x",
        "%v = view %x {offset = 128} : f32[32]
      send @right, %v"
    ) =>
        "D0227: channel @right: in entry @main, from port 0 of core (chip 0, row 0, column 0) to core (chip 0, row 0, column 1), 1 messages with 128 bytes are sent, with 256 bytes received
  note: segment @shift sends on core (chip 0, row 0, column 0) or others
  note: segment @shift receives on core (chip 0, row 0, column 1) or others
  note: 16 channels of the family are like this";
    a_view_outside_its_buffer: ring(
        "send @right, %x",
        "for {count = 2} ({ ^(%i : index)
 %v = view %x {offset = 128*%i + 4} : f32[32] })
      send @right, %x"
    ) =>
        "D0223: segment @shift, comm0 stream, `%v = view %x {offset = 4 + 128*%i} : f32[32]`: view %v reaches bytes 4 to 260 of buffer %x, which has 256: 4 too many, on core (chip 0, row 0, column 0)";
    a_misaligned_view: ring(
        "send @right, %x",
        "%v = view %x {offset = 2} : f32[32]
      send @right, %x"
    ) =>
        "D0224: segment @shift, comm0 stream, `%v = view %x {offset = 2} : f32[32]`: view %v starts at bytes that are not multiples of its element size, 4, on core (chip 0, row 0, column 0)";
    a_misaligned_stride: ring(
        "send @right, %x",
        "%v = view %x {strides = [6]} : f32[32]
      send @right, %x"
    ) =>
        "D0224: segment @shift, comm0 stream, `%v = view %x {strides = [6]} : f32[32]`: view %v has a stride of 6 bytes, which is no multiple of 4 bytes
  note: on core (chip 0, row 0, column 0)";
    operands_that_do_not_fit: ring(
        "send @right, %x",
        "%v = view %x : f32[32]
 %w = view %x : f32[16]
      add %v, %v, %w
      send @right, %x"
    ) =>
        "D0222: segment @shift, comm0 stream, `add %v, %v, %w`: `add` needs `b` of the extents of `a`, [32], found [16]
  note: on core (chip 0, row 0, column 0)";
    a_slot_that_is_not_dense: ring(
        "post @right, %y
",
        "post @right, %y
 %v = view %y {strides = [8]} : f32[32]
      post @right, %v
"
    ) =>
        "D0222: segment @shift, comm0 stream, `post @right, %v`: `post` needs a slot whose elements lie side by side in row-major order
  note: on core (chip 0, row 0, column 0)
D0227: segment @shift, comm0 stream, `post @right, %v`: slots of port 0 of @right are not received by the end of the call: 1, of which this is the first
  note: on core (chip 0, row 0, column 0), batch = 9
  help: receive every slot in the call that posts it
D0240: segment @shift, comm0 stream, `post @right, %v`: uses bytes 1024..1028 of SRAM (%y), which segment @shift, comm0 stream, `post @right, %y` gave to the network
  note: on core (chip 0, row 0, column 0), batch = 9
  help: use them behind the `recv` of the slot";
    a_route_to_nowhere: ring(
        "peer = mod(i + 1, 16)",
        "peer = mod(i + 1, 16), overrides = [[0, 0, [[0, 0, 0], [0, 1, 0], [0, 1, 1]]]]"
    ) =>
        "D0238: channel @right: the route of port 0 of sender 0 does not end at its receiver (chip 0, row 0, column 1)";
    a_route_that_jumps: ring(
        "peer = mod(i + 1, 16)",
        "peer = mod(i + 1, 16), overrides = [[0, 0, [[0, 0, 0], [0, 1, 1], [0, 0, 1]]]]"
    ) =>
        "D0238: channel @right: the route of port 0 of sender 0 goes from (chip 0, row 0, column 0) to (chip 0, row 1, column 1), which are not neighbours on one mesh";
    inputs_that_are_outputs: ring("inputs = [@x]", "inputs = [@y]") =>
        "D0235: entry @main: @y is listed as input, but is an output
D0232: segment @shift, comm0 stream, `send @right, %x`: reads bytes 0..256 of SRAM through %x, which are not defined when step 0 of entry @main starts on core (chip 0, row 0, column 0)
  note: nothing has written them";
    a_gap_in_an_output: ring(
        "at = 1024, slice = [[i, 1], [0, 64]]",
        "at = 1024, slice = [[i, 1], [0, 63]]"
    ) =>
        "D0234: tensor @y: no shard holds element [0, 63]";
    an_overlap_in_an_output: ring(
        "at = 1024, slice = [[i, 1], [0, 64]]",
        "at = 1024, slice = [[i / 2, 1], [0, 64]]"
    ) =>
        "D0234: tensor @y: two shards hold element [0, 0]
  help: an output is disjoint: let one of the cores hold it, the others nothing";
    a_slice_outside_its_tensor: ring(
        "at = 1024, slice = [[i, 1], [0, 64]]",
        "at = 1024, slice = [[i + 1, 1], [0, 64]]"
    ) =>
        "D0234: tensor @y: shard 0 on core (chip 0, row 3, column 3) holds 1 elements from 16 on of dimension 0, which has 16";
    a_shard_beyond_sram: ring(
        "at = 1024, slice = [[i, 1], [0, 64]]",
        "at = 1310592, slice = [[i, 1], [0, 64]]"
    ) =>
        "D0225: tensor @y: shard 0 on core (chip 0, row 0, column 0) lies at bytes 1310592 to 1310848 of 1310720 bytes of SRAM
D0232: tensor @y: bytes 1310592..1310848 of SRAM, which hold a part of @y, are not defined at the end of entry @main on core (chip 0, row 0, column 0)
  note: nothing has written them";
    weights_that_share_bytes: ring(
        "  segment @shift",
        "  weight @w : f32[4] = [{on = @ring, at = 64, slice = [[0, 4]]}] {data = splat(f32[4], 1.0)}
  weight @v : f32[4] = [{on = @ring, at = 64 + 64 * (i / 9), slice = [[0, 4]]}] {data = splat(f32[4], 1.0)}
  segment @shift"
    ) =>
        "D0234: tensor @w: shares bytes 64 to 80 with @x on core (chip 0, row 0, column 0)
D0234: tensor @v: shares bytes 64 to 80 with @x on core (chip 0, row 0, column 0)
D0234: tensor @v: shares bytes 64 to 80 with @w on core (chip 0, row 0, column 0)";
    a_recipe_of_another_type: ring(
        "  segment @shift",
        "  weight @w : f32[4] = [{on = @ring, at = 2048, slice = [[0, 4]]}] {data = splat(f32[5], 1.0)}
  segment @shift"
    ) =>
        "D0237: tensor @w: the recipe makes f32 [5], the tensor is f32 [4]";
    equal_layers: layers("@p5 : f32[16]", "@p5 : f32[16]") => "";
    a_layer_with_a_weight_that_is_nowhere: layers("[0, 576, 64]", "[0, 640, 64]") =>
        "D0232: segment @layer, vector stream, `mul %t0, %x0, %w0`: reads bytes 640..704 of SRAM through %w0, which are not defined when step 10 of entry @main starts on core (chip 0, row 0, column 0)
  note: nothing has written them";
    a_layer_that_reads_what_is_gone: layers("[0, 448, 64]", "[0, 64, 128]") =>
        "D0232: segment @layer, vector stream, `mul %t0, %x0, %w0`: reads bytes 64..128 of SRAM through %w0, which are not defined when step 6 of entry @main starts on core (chip 0, row 0, column 0)
  note: the last write there is segment @layer, vector stream, `mul %t0, %x0, %w0`, called by step 4 of entry @main, through a buffer that is not kept
  help: give that buffer the role `out` or `inout`, or another address";
    a_layer_that_writes_a_weight: layers("[0, 512, 64]", "[0, 512, 384]") =>
        "D0231: segment @layer, vector stream, `mul %t0, %x0, %w0`: writes bytes 384..448 of SRAM, which hold the weight @w on core (chip 0, row 0, column 0)
  help: weights are never written; use another address";
    a_layer_whose_input_is_elsewhere: layers("[0, 512, 64]", "[128, 512, 64]") =>
        "D0232: segment @layer, vector stream, `mul %t0, %x0, %w0`: reads bytes 128..192 of SRAM through %x0, which are not defined when step 8 of entry @main starts on core (chip 0, row 0, column 0)
  note: nothing has written them";
    a_layer_with_a_probe_of_nothing: layers(
        "@p4 : f32[16] = [{on = @one, at = 0,",
        "@p4 : f32[16] = [{on = @one, at = 64,"
    ) =>
        "D0232: entry @main, step 9: bytes 64..128 of SRAM, which hold a part of @p4, are not defined here on core (chip 0, row 0, column 0)
  note: the last write there is segment @layer, vector stream, `mul %t0, %x0, %w0`, called by step 8 of entry @main, through a buffer that is not kept
  help: give that buffer the role `out` or `inout`, or another address";
    a_register_that_may_differ: mesh(
        r#"
  cores @ring = [box(0, [0, 4], [0, 4])]
  channel @right {from = @ring, to = @ring, peer = mod(i + 1, 16)}
  input @x : i32[16] = [{on = @ring, at = 0, slice = [[i, 1]]}]
  segment @s() {
    %x = buffer {at = 0, role = "in"} : i32[1]
    %y = buffer {at = 1024} : i32[1]
    comm0 ({ ^()
      %n = count %x {max = 3}
      for {count = %n} ({ ^(%i : index)
        post @right, %y
        send @right, %x
        recv @right, %y
      })
    })
  }
  entry @main() {inputs = [@x], outputs = []} { call @s {on = @ring, row = []} }
"#
    ) =>
        "D0229: segment @s, comm0 stream, `post @right, %y`: `post` stands in a loop whose count depends on register %n, which may differ between cores
  note: on core (chip 0, row 0, column 0)
  help: deliver the value to all members by a channel and name its family in `via`
D0229: segment @s, comm0 stream, `send @right, %x`: `send` stands in a loop whose count depends on register %n, which may differ between cores
  note: on core (chip 0, row 0, column 0)
  help: deliver the value to all members by a channel and name its family in `via`
D0229: segment @s, comm0 stream, `recv @right, %y`: `recv` stands in a loop whose count depends on register %n, which may differ between cores
  note: on core (chip 0, row 0, column 0)
  help: deliver the value to all members by a channel and name its family in `via`";
    a_register_from_other_bytes: mesh(
        r#"
  cores @a = [box(0, 0, 0)]
  cores @b = [box(0, 0, 1)]
  channel @count {from = @a, to = @b, peer = i}
  channel @data {from = @a, to = @b, peer = i}
  input @x : i32[1] = [{on = @a, at = 0, slice = [[0, 1]]}]
  segment @sender() {
    %x = buffer {at = 0, role = "in"} : i32[1]
    comm0 ({ ^()
      send @count, %x
      %n = count %x {max = 3, via = @count}
      for {count = %n} ({ ^(%i : index) send @data, %x })
    })
  }
  segment @receiver() {
    %c = buffer {at = 0} : i32[1]
    %y = buffer {at = 1024} : i32[1]
    comm0 ({ ^()
      post @count, %c
      recv @count, %c
      fill %c {value = 2}
      %n = count %c {max = 3, via = @count}
      for {count = %n} ({ ^(%i : index) post @data, %y recv @data, %y })
    })
  }
  entry @main() {inputs = [@x], outputs = []} {
    call @sender {on = @a, row = []}
    call @receiver {on = @b, row = []}
  }
"#
    ) =>
        "D0229: segment @receiver, comm0 stream, `%n = count %c {max = 3, via = @count}`: register %n is not proved to hold what @count delivered: `fill` (statement 2 of the stream) writes these bytes
  note: on core (chip 0, row 0, column 1)
  help: receive the value into a slot of its own and read it from there, in one stream";
    a_loop_that_only_one_end_counts: mesh(
        r#"
  cores @a = [box(0, 0, 0)]
  cores @b = [box(0, 0, 1)]
  channel @count {from = @a, to = @b, peer = i}
  channel @data {from = @a, to = @b, peer = i}
  input @x : i32[1] = [{on = @a, at = 0, slice = [[0, 1]]}]
  segment @sender() {
    %x = buffer {at = 0, role = "in"} : i32[1]
    comm0 ({ ^()
      send @count, %x
      %n = count %x {max = 3, via = @count}
      for {count = %n} ({ ^(%i : index) send @data, %x })
    })
  }
  segment @receiver() {
    %c = buffer {at = 0} : i32[1]
    %y = buffer {at = 1024} : i32[1]
    comm0 ({ ^()
      post @count, %c
      recv @count, %c
      for {count = 3} ({ ^(%i : index) post @data, %y recv @data, %y })
    })
  }
  entry @main() {inputs = [@x], outputs = []} {
    call @sender {on = @a, row = []}
    call @receiver {on = @b, row = []}
  }
"#
    ) =>
        "D0227: channel @data: in entry @main, from port 0 of core (chip 0, row 0, column 0) to core (chip 0, row 0, column 1), 1 messages are sent, 3 are received
  note: segment @sender sends on core (chip 0, row 0, column 0) or others
  note: segment @receiver receives on core (chip 0, row 0, column 1) or others
D0229: segment @sender, comm0 stream, `send @data, %x`: messages of @data are sent in loops counted by @count, but nowhere received in such loops
  note: on core (chip 0, row 0, column 0)";
    a_product_on_the_vector_stream: mesh(
        "
  cores @a = [box(0, 0, 0)]
  segment @s() {
    %a = buffer {at = 0} : f32[8, 8]
    %c = buffer {at = 1024} : f32[8, 8]
    vector ({ ^() fill %a {value = 1.0} mm %c, %a, %a })
  }
  entry @main() {inputs = [], outputs = []} { call @s {on = @a, row = []} }
"
    ) =>
        "D0241: segment @s, vector stream, `mm %c, %a, %a`: `mm` needs the matrix unit, the vector stream does not drive it
  note: on core (chip 0, row 0, column 0)";
    dram_without_processors: mesh(
        "
  cores @a = [box(0, 0, 0)]
  dram @d {owners = @a, dip = 0, bytes = 64}
"
    ) =>
        "D0236: dram @d: the machine has no interface processors";
    a_row_without_a_value: mesh(
        "
  cores @a = [box(0, 0, [0, 4])]
  segment @s(%p : index) { %a = buffer {at = 64*%p} : f32[8] vector ({ ^() fill %a {value = 1.0} }) }
  entry @main() {inputs = [], outputs = []} { call @s {on = @a, row = [8 / (2 - i)]} }
"
    ) =>
        "D0235: entry @main, step 0: parameter %p has no value on core (chip 0, row 0, column 2): a divisor is not positive, a table has no such entry, or 64 bits overflow";
    one_row_of_many_beyond_sram: mesh(
        "
  cores @a = [box(0, [0, 4], [0, 4])]
  segment @s(%p : index) { %a = buffer {at = 87424*%p} : f32[8] vector ({ ^() fill %a {value = 1.0} }) }
  entry @main() {inputs = [], outputs = []} { call @s {on = @a, row = [i]} }
"
    ) =>
        "D0225: segment @s, buffer %a: its 32 bytes at address 1311360 exceed the SRAM of 1310720 bytes by 672, on core (chip 0, row 3, column 3)";
    extents_of_a_run_parameter: mesh(
        "
  cores @a = [box(0, 0, 0)]
  segment @s() {
    %a = buffer {at = 0} : f32[8, 16]
    vector ({ ^()
      %v = view %a {strides = [64, 4]} : f32[batch, 16]
      fill %v {value = 1.0}
    })
  }
  entry @main() {inputs = [], outputs = []} { call @s {on = @a, row = []} }
"
    ) =>
        "D0223: segment @s, vector stream, `%v = view %a {strides = [64, 4]} : f32[batch, 16]`: view %v reaches bytes 0 to 576 of buffer %a, which has 512: 64 too many, on core (chip 0, row 0, column 0)";
    dram_too_few_readers: dram("readers = 2", "readers = 3") =>
        "D0236: dram @d: in entry @main, 2 cores read the instance of (chip 0, row 0, column 0), but `readers` is 3";
    dram_too_few_epochs: dram(
        "for {count = 3} ({ ^(%i : index)
        dram.acquire",
        "for {count = 2} ({ ^(%i : index)
        dram.acquire"
    ) =>
        "D0236: dram @d: in entry @main, core (chip 0, row 0, column 1) reads 2 epochs of the instance of (chip 0, row 0, column 0), which commits 3";
    dram_out_of_bounds: dram(
        "dram.load %x, @d {owner = 0}",
        "dram.load %x, @d {owner = 0, offset = 4}"
    ) =>
        "D0236: segment @reader, comm0 stream, `dram.load %x, @d {offset = 4}`: reaches bytes 4 to 260 of an instance of @d, which has 256, on core (chip 0, row 0, column 1)";
    dram_no_such_owner: dram("dram.load %x, @d {owner = 0}", "dram.load %x, @d {owner = 1}") =>
        "D0236: segment @reader, comm0 stream, `dram.load %x, @d {owner = 1}`: the owner is not always one of the 1 owners, on core (chip 0, row 0, column 1)";
    dram_load_without_acquire: dram(
        "dram.acquire @d {owner = 0}
        dram.load %x, @d {owner = 0}
        dram.release @d {owner = 0}",
        "dram.load %x, @d {owner = 0}"
    ) =>
        "D0236: dram @d: core (chip 0, row 0, column 1) runs segment @reader and loads from another core's instance without `dram.acquire`";
    dram_store_after_commit: dram(
        "dram.store @d, %x
        dram.commit @d",
        "dram.commit @d
        dram.store @d, %x"
    ) =>
        "D0236: segment @owner, comm0 stream, `dram.store @d, %x`: stores to @d outside of `dram.begin` and `dram.commit` of its stream
  note: on core (chip 0, row 0, column 0)";
    dram_epoch_left_open: dram(
        "        dram.commit @d
",
        ""
    ) =>
        "D0236: segment @owner, comm0 stream, `for {count = 3} (...)`: opens or closes an epoch of a dram region in its body
  note: on core (chip 0, row 0, column 0)";
    dram_writer_that_is_no_owner: dram("call @owner {on = @o", "call @owner {on = @r") =>
        "D0236: dram @d: core (chip 0, row 0, column 1) runs segment @owner and writes to it, but is not an owner";
    dram_no_such_processor: dram("dip = 0", "dip = 1000000") =>
        "D0236: dram @d: the instance of (chip 0, row 0, column 0) is at interface processor 1000000, the machine has 20";
}

/// What `structure` says about the ring after a change of its data.
fn damaged(change: impl FnOnce(&mut Program)) -> Vec<String> {
    let text = format!("dojo program 1\nprogram @p {{machine = \"mesh4x4\"}} {{{RING}}}\n");
    let (mut program, _) = parse(&text).unwrap();
    change(&mut program);
    let found = structure(&program);
    assert_eq!(found, verify(&program, &machine("mesh4x4")));
    found.into_iter().map(|v| v.message).collect()
}

fn code(program: &mut Program) -> &mut Vec<Inst> {
    let segment = program.segments.ids().next().unwrap();
    &mut program.segments[segment].streams[0].code
}

#[test]
fn tables_that_contradict_each_other() {
    let found = damaged(|program| {
        code(program)[1].stmt = Stmt::Loop {
            name: "i".into(),
            count: Affine::constant(2),
            len: u32::MAX,
        };
    });
    let reaches = "the body reaches behind the end of what encloses it";
    assert_eq!(found, [reaches]);
    let found = damaged(|program| {
        code(program)[1].stmt = Stmt::Signal(TokenId::from_index(7));
    });
    assert_eq!(found, ["the token is not declared"]);
    let found = damaged(|program| {
        if let Stmt::Send { port, from, .. } = &mut code(program)[1].stmt {
            *port = Affine::var(Var::Loop(0));
            *from = Ref::View(ViewId::from_index(0));
        }
    });
    let expected = [
        "the port has a variable that does not exist here",
        "an operand is not declared",
    ];
    assert_eq!(found, expected);
    let found = damaged(|program| {
        let family = program.families.ids().next().unwrap();
        program.families[family].to = RegionId::from_index(9);
        program.families[family]
            .peer
            .nodes
            .push(IndexNode::Const(1));
        program.dims.push(("row".into(), 0));
    });
    assert_eq!(found, ["run parameter row has the largest value 0"]);
    let found = damaged(|program| {
        let family = program.families.ids().next().unwrap();
        program.families[family].to = RegionId::from_index(9);
        program.families[family]
            .peer
            .nodes
            .push(IndexNode::Const(1));
    });
    let expected = [
        "refers to cores that are not declared",
        "the peer is not a tree in postorder",
    ];
    assert_eq!(found, expected);
}

/// All live cores of a machine, a box for each run of a row.
fn everything(machine: &Machine) -> Region {
    let mut boxes = Vec::new();
    for chip in 0..machine.chips() as u32 {
        let live = machine.live_cores(chip).unwrap();
        let next = |a: &CoreAddress, b: &CoreAddress| a.row == b.row && a.column + 1 == b.column;
        for run in live.chunk_by(next) {
            boxes.push(CoreBox {
                chips: Span::one(chip),
                rows: Span::one(run[0].row),
                columns: Span::of(run[0].column, run.len() as u32),
            });
        }
    }
    Region {
        name: "all".into(),
        boxes,
    }
}

#[test]
fn a_million_cores_are_a_region() {
    let machine = machine("exapod");
    let mut program = Program::default();
    program.machine.name = "exapod".into();
    let region = everything(&machine);
    assert_eq!(region.len(), 1_062_000);
    let id = program.regions.push(region);
    assert_eq!(verify(&program, &machine), []);
    // The last box over a hole.
    let last = program.regions[id].boxes.pop().unwrap();
    let chip = last.chips.start;
    let (row, column) = *machine.dead_sites(chip).unwrap().first().unwrap();
    program.regions[id].boxes.push(CoreBox {
        chips: last.chips,
        rows: Span::one(row),
        columns: Span::one(column),
    });
    let found: Vec<String> = verify(&program, &machine)
        .into_iter()
        .map(|v| v.message)
        .collect();
    let site = format!("(chip {chip}, row {row}, column {column})");
    assert_eq!(found, [format!("there is no live core at {site}")]);
}

#[test]
fn too_many_values_of_run_parameters() {
    let text = |most: u64| {
        let head = format!("machine = \"mesh4x4\", dims = {{n = {most}}}");
        let body = "cores @one = [box(0, 0, 0)]
            input @x : f32[n] = [{on = @one, at = 0, slice = [[0, n]], strides = [4]}]
            entry @main() {inputs = [@x], outputs = []} {}";
        format!("dojo program 1\nprogram @p {{{head}}} {{\n{body}\n}}\n")
    };
    let found = |text: &str| {
        let (program, _) = parse(text).map_err(|e| e.to_string()).unwrap();
        let found = verify(&program, &machine("mesh4x4")).into_iter();
        let found = found.map(|violation| violation.into_diagnostic(&program, None).to_string());
        found.collect::<Vec<_>>().join("\n")
    };
    same(&found(&text(1024)), "");
    let expected = r#"D0233: tensor @x: there are 1025 values of run parameters to check
  help: lower the maxima of run parameters that counts, sizes, offsets or shards use"#;
    same(&found(&text(1025)), expected);
}

#[test]
fn a_verification_that_is_cancelled() {
    // Its proof takes all steps that are allowed, which is seconds.
    let long = r#"
  cores @one = [box(0, [0, 1], [0, 1])]
  output @y : f32[8] = [{on = @one, at = 0, slice = [[0, 8]]}]
  segment @long() {
    %y = buffer {at = 0, role = "out"} : f32[8]
    vector ({ ^()
      for {count = 10000000} ({ ^(%i : index)
        for {count = 10000000} ({ ^(%j : index)
          fill %y {value = 1.0}
        })
      })
    })
  }
  entry @main() {inputs = [], outputs = [@y]} {
    call @long {on = @one, row = []}
  }
"#;
    let text = format!("dojo program 1\nprogram @p {{machine = \"d1\"}} {{\n{long}\n}}\n");
    let (program, _) = parse(&text).unwrap();
    let found = verify_until(&program, &machine("d1"), &AtomicBool::new(true));
    let codes: Vec<u16> = found.iter().map(|violation| violation.code).collect();
    assert_eq!(codes, [crate::codes::CANCELLED]);
}
