//! Programs to measure with, as assembly text.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use dojoc_ir::machine::Machine;
use dojoc_ir::types::DType;

/// Runs of consecutive live columns, chip by chip and row by row: the first `columns` live cores of
/// a row, of the first `rows` rows that have so many. Positions in the region are then
/// `(chip * rows + row) * columns + column` of the logical grid, whatever sites are dead.
///
/// `None` where a chip has too few such rows.
pub fn compacted(machine: &Machine, chips: u32, rows: u32, columns: u32) -> Option<String> {
    let mut boxes = Vec::new();
    for chip in 0..chips {
        let dead = machine.dead_sites(chip)?;
        let mut found = 0;
        for row in 0..machine.noc.rows.value {
            let spans = live_spans(&dead, row, machine.noc.columns.value, columns);
            if found < rows && spans.iter().map(|(_, count)| count).sum::<u32>() == columns {
                found += 1;
                boxes.extend(
                    spans
                        .iter()
                        .map(|(start, count)| format!("box({chip}, {row}, [{start}, {count}])")),
                );
            }
        }
        if found < rows {
            return None;
        }
    }
    Some(format!("[{}]", boxes.join(", ")))
}

/// The first `count` live cores of the machine, chip by chip in row-major order; `None` if it has
/// fewer.
pub fn first_live(machine: &Machine, count: u64) -> Option<String> {
    let mut left = count;
    let mut boxes = Vec::new();
    for chip in 0..u32::try_from(machine.chips()).ok()? {
        if left == 0 {
            break;
        }
        let dead = machine.dead_sites(chip)?;
        for row in 0..machine.noc.rows.value {
            let wanted = u32::try_from(left).unwrap_or(u32::MAX);
            for (start, length) in live_spans(&dead, row, machine.noc.columns.value, wanted) {
                left -= u64::from(length);
                boxes.push(format!("box({chip}, {row}, [{start}, {length}])"));
            }
        }
    }
    (left == 0).then(|| format!("[{}]", boxes.join(", ")))
}

/// Runs of live sites of a row as (first column, length), `wanted` sites at most.
fn live_spans(dead: &BTreeSet<(u32, u32)>, row: u32, columns: u32, wanted: u32) -> Vec<(u32, u32)> {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    let live = (0..columns).filter(|column| !dead.contains(&(row, *column)));
    for column in live.take(wanted as usize) {
        match spans.last_mut() {
            Some((start, length)) if *start + *length == column => *length += 1,
            _ => spans.push((column, 1)),
        }
    }
    spans
}

/// A matrix product on a square grid of cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshGemm {
    /// Cores along each side of the grid; even.
    pub side: u32,
    /// Rows of a block of C and of A.
    pub m: u32,
    /// Columns of a block of C and of B.
    pub n: u32,
    /// Columns of a block of A, rows of a block of B.
    pub k: u32,
    /// Element type of A and B, bf16 or f32; C is f32.
    pub dtype: DType,
}

impl MeshGemm {
    /// MeshGEMM (C. He et al., "WaferLLM", 2025): Cannon's algorithm where the rings of rows and
    /// columns are folded onto lines, evens out and odds back, so that neighbours on a ring are at
    /// most two hops apart. Blocks of A move along rows, blocks of B along columns, while the matrix
    /// unit works on the ones that are there. `None` where the machine has no such grid on its first
    /// chip.
    pub fn program(&self, machine: &Machine) -> Option<String> {
        let Self {
            side,
            m,
            n,
            k,
            dtype,
        } = *self;
        let grid = compacted(machine, 1, side, side)?;
        let fold = |t: u32| {
            if 2 * t < side {
                2 * t
            } else {
                2 * (side - t) - 1
            }
        };
        let line: Vec<String> = (0..side).map(|t| fold(t).to_string()).collect();
        let mut ring = vec![String::new(); side as usize];
        for t in 0..side {
            ring[fold(t) as usize] = t.to_string();
        }
        let bytes = dtype.bytes();
        let align = |x: u64| x.next_multiple_of(64);
        let (a, b, c) = (
            align(u64::from(m) * u64::from(k) * bytes),
            align(u64::from(k) * u64::from(n) * bytes),
            u64::from(m) * u64::from(n) * 4,
        );
        let a0 = align(c);
        let (a1, b0) = (a0 + a, a0 + 2 * a);
        let b1 = b0 + b;
        let (rows, columns, depth) = (side * m, side * n, side * k);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            r#"dojo program 1

program @mesh_gemm {{machine = "{machine}"}} {{
  cores @grid = {grid}
  // Where on its line the t-th core of a ring stands, and the inverse.
  table @line = [{line}]
  table @ring = [{ring}]
  // To the previous core of the ring, so that blocks come from the next one.
  channel @left {{from = @grid, to = @grid, peer = {side}*(i / {side}) + at(@line, mod(at(@ring, mod(i, {side})) - 1, {side}))}}
  channel @up {{from = @grid, to = @grid, peer = {side}*at(@line, mod(at(@ring, i / {side}) - 1, {side})) + mod(i, {side})}}
  // Core (x, y) of the rings starts with block (x, x + y) of A and block (x + y, y) of B.
  input @a : {dtype}[{rows}, {depth}] = [{{on = @grid, at = {a0}, slice = [[{m}*at(@ring, i / {side}), {m}], [{k}*mod(at(@ring, i / {side}) + at(@ring, mod(i, {side})), {side}), {k}]]}}]
  input @b : {dtype}[{depth}, {columns}] = [{{on = @grid, at = {b0}, slice = [[{k}*mod(at(@ring, i / {side}) + at(@ring, mod(i, {side})), {side}), {k}], [{n}*at(@ring, mod(i, {side})), {n}]]}}]
  output @c : f32[{rows}, {columns}] = [{{on = @grid, at = 0, slice = [[{m}*at(@ring, i / {side}), {m}], [{n}*at(@ring, mod(i, {side})), {n}]]}}]

  segment @gemm() {{
    %c = buffer {{at = 0, role = "out"}} : f32[{m}, {n}]
    %a0 = buffer {{at = {a0}, role = "in"}} : {dtype}[{m}, {k}]
    %a1 = buffer {{at = {a1}}} : {dtype}[{m}, {k}]
    %b0 = buffer {{at = {b0}, role = "in"}} : {dtype}[{k}, {n}]
    %b1 = buffer {{at = {b1}}} : {dtype}[{k}, {n}]
    %a0_free = token
    %a1_free = token
    %a0_full = token
    %a1_full = token
    %b0_free = token
    %b1_free = token
    %b0_full = token
    %b1_full = token
    matrix (
      {{ ^()
        mm %c, %a0, %b0
        for {{count = {pairs}}} (
          {{ ^(%i : index)
            signal %a0_free
            signal %b0_free
            wait %a1_full
            wait %b1_full
            mm %c, %a1, %b1 {{accumulate = true}}
            signal %a1_free
            signal %b1_free
            wait %a0_full
            wait %b0_full
            mm %c, %a0, %b0 {{accumulate = true}}
          }}
        )
        wait %a1_full
        wait %b1_full
        mm %c, %a1, %b1 {{accumulate = true}}
      }}
    )
"#,
            machine = machine.name,
            line = line.join(", "),
            ring = ring.join(", "),
            pairs = side / 2 - 1,
        );
        for (stream, channel, x) in [("comm0", "left", "a"), ("comm1", "up", "b")] {
            let _ = write!(
                text,
                r#"    {stream} (
      {{ ^()
        post @{channel}, %{x}1
        send @{channel}, %{x}0
        recv @{channel}, %{x}1
        signal %{x}1_full
        for {{count = {pairs}}} (
          {{ ^(%i : index)
            wait %{x}0_free
            post @{channel}, %{x}0
            send @{channel}, %{x}1
            recv @{channel}, %{x}0
            signal %{x}0_full
            wait %{x}1_free
            post @{channel}, %{x}1
            send @{channel}, %{x}0
            recv @{channel}, %{x}1
            signal %{x}1_full
          }}
        )
      }}
    )
"#,
                pairs = side / 2 - 1,
            );
        }
        text.push_str(
            "  }\n\n  entry @main() {inputs = [@a, @b], outputs = [@c]} {\n    call @gemm {on = \
             @grid, row = []}\n  }\n}\n",
        );
        Some(text)
    }
}

/// Vector work and messages on many cores: in each of `rounds` rounds a core computes on
/// `elements` elements four times and passes as many on to the next core of a ring. 7 statements a round.
pub fn vector_ring(machine: &Machine, cores: u64, elements: u32, rounds: u32) -> Option<String> {
    let region = first_live(machine, cores)?;
    let bytes = u64::from(elements) * 4;
    let (step, total) = (bytes.next_multiple_of(64), u64::from(elements) * cores);
    Some(format!(
        r#"dojo program 1

program @vector_ring {{machine = "{machine}"}} {{
  cores @ring = {region}
  channel @next {{from = @ring, to = @ring, peer = mod(i + 1, {cores})}}
  input @x : f32[{total}] = [{{on = @ring, at = 0, slice = [[{elements}*i, {elements}]]}}]
  output @y : f32[{total}] = [{{on = @ring, at = {step}, slice = [[{elements}*i, {elements}]]}}]

  segment @work() {{
    %x = buffer {{at = 0, role = "in"}} : f32[{elements}]
    %y = buffer {{at = {step}, role = "out"}} : f32[{elements}]
    %in = buffer {{at = {in_at}}} : f32[{elements}]
    vector (
      {{ ^()
        add %y, %x, %x
        for {{count = {rounds}}} (
          {{ ^(%r : index)
            post @next, %in
            send @next, %y
            add %y, %y, %x
            mul %y, %y, %x
            recv @next, %in
            add %y, %y, %in
            sub %y, %y, %x
          }}
        )
      }}
    )
  }}

  entry @main() {{inputs = [@x], outputs = [@y]}} {{
    call @work {{on = @ring, row = []}}
  }}
}}
"#,
        machine = machine.name,
        in_at = 2 * step,
    ))
}

/// A single core that adds buffers of a few elements in place, `rounds` times 8 instructions: what is
/// left is dispatch.
pub fn dispatch(machine: &Machine, rounds: u32) -> Option<String> {
    let region = first_live(machine, 1)?;
    let adds = "            add %x, %x, %y\n".repeat(8);
    Some(format!(
        r#"dojo program 1

program @dispatch {{machine = "{machine}"}} {{
  cores @one = {region}
  output @y : f32[16] = [{{on = @one, at = 0, slice = [[0, 16]]}}]

  segment @work() {{
    %x = buffer {{at = 0, role = "out"}} : f32[16]
    %y = buffer {{at = 64}} : f32[16]
    vector (
      {{ ^()
        fill %x {{value = 0.0}}
        fill %y {{value = 1.0}}
        for {{count = {rounds}}} (
          {{ ^(%r : index)
{adds}          }}
        )
      }}
    )
  }}

  entry @main() {{inputs = [], outputs = [@y]}} {{
    call @work {{on = @one, row = []}}
  }}
}}
"#,
        machine = machine.name,
    ))
}

/// Two cores that send `elements` f32 forth and back, `rounds` times.
pub fn ping_pong(machine: &Machine, elements: u32, rounds: u32) -> Option<String> {
    let region = first_live(machine, 2)?;
    let step = (u64::from(elements) * 4).next_multiple_of(64);
    Some(format!(
        r#"dojo program 1

program @ping_pong {{machine = "{machine}"}} {{
  cores @both = {region}
  channel @other {{from = @both, to = @both, peer = 1 - i}}
  output @y : f32[2, {elements}] = [{{on = @both, at = 0, slice = [[i, 1], [0, {elements}]]}}]

  segment @work() {{
    %x = buffer {{at = 0, role = "out"}} : f32[{elements}]
    %in = buffer {{at = {step}}} : f32[{elements}]
    comm0 (
      {{ ^()
        fill %x {{value = 1.0}}
        for {{count = {rounds}}} (
          {{ ^(%r : index)
            post @other, %in
            send @other, %x
            recv @other, %in
          }}
        )
      }}
    )
  }}

  entry @main() {{inputs = [], outputs = [@y]}} {{
    call @work {{on = @both, row = []}}
  }}
}}
"#,
        machine = machine.name,
    ))
}

/// Every core of the machine calls one segment that does nothing.
pub fn idle(machine: &Machine) -> Option<String> {
    let region = first_live(machine, machine.cores())?;
    Some(format!(
        r#"dojo program 1

program @idle {{machine = "{machine}"}} {{
  cores @all = {region}

  segment @nothing() {{
    %x = buffer {{at = 0}} : f32[16]
    vector (
      {{ ^()
        for {{count = 0}} (
          {{ ^(%r : index)
            fill %x {{value = 0.0}}
          }}
        )
      }}
    )
  }}

  entry @main() {{inputs = [], outputs = []}} {{
    call @nothing {{on = @all, row = []}}
  }}
}}
"#,
        machine = machine.name,
    ))
}
