//! One segment: a list of actions, dealt to streams.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dojoc_ir::program::Packing;
use dojoc_ir::types::DType;

use super::memory::{Array, Counter, list, window};
use super::{Generator, Options, SLOTS};
use crate::rng::Rng;

/// Names of the streams.
const STREAMS: [&str; 4] = ["matrix", "vector", "comm0", "comm1"];

/// Where a channel's ends stand among the bytes that actions touch: far behind all memory.
const CHANNELS: u64 = 1 << 40;
/// And where the DRAM of the cores does, which has one end like a channel.
const DRAM: u64 = 1 << 41;

/// What an action is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A tile product.
    Product,
    /// Any other instruction.
    Compute,
    /// A step of an exchange.
    Transfer,
}

/// Bytes that an action touches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub range: (u64, u64),
    pub write: bool,
}

/// Statements of a stream, and the tokens that are signalled behind them.
#[derive(Clone, Debug, Default)]
struct Item {
    lines: String,
    signals: Vec<usize>,
}

/// The body of a stream or loop that is being filled, for all streams.
#[derive(Clone, Debug, Default)]
struct Block {
    items: [Vec<Item>; STREAMS.len()],
    /// Access, stream, position in the stream.
    accesses: Vec<(Access, usize, usize)>,
    /// How many items of another stream this one has waited for.
    waited: [[usize; STREAMS.len()]; STREAMS.len()],
}

/// An operand: its name, and the definition of the view, if it is one.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub name: String,
    pub definition: String,
    pub array: usize,
}

impl Operand {
    /// The same operand in a later place, where its view has been defined.
    pub fn again(self) -> Self {
        Self {
            definition: String::new(),
            ..self
        }
    }
}

/// A segment under construction.
pub(super) struct SegmentText<'g, 'o> {
    pub generator: &'g mut Generator<'o>,
    pub arrays: Vec<Array>,
    pub loops: Vec<Counter>,
    /// Declarations of buffers.
    buffers: String,
    params: Vec<String>,
    row: Vec<String>,
    /// Slots that may become outputs of the segment: array, slot.
    fresh: Vec<(usize, usize)>,
    streams: usize,
    block: Block,
    tokens: BTreeSet<(usize, usize)>,
    /// First free byte of scratch memory.
    scratch: u64,
    /// Arrays that the next instruction uses.
    pinned: Vec<usize>,
    /// Streams of channel ends.
    ends: BTreeMap<u64, usize>,
    /// Whether a register has been added.
    pub has_register: bool,
}

impl<'g, 'o> SegmentText<'g, 'o> {
    /// Without actions, with buffers for slots.
    pub fn new(generator: &'g mut Generator<'o>) -> Self {
        let streams = generator.rng.within(1, generator.options.streams as u64) as usize;
        let mut segment = Self {
            generator,
            arrays: Vec::new(),
            loops: Vec::new(),
            buffers: String::new(),
            params: Vec::new(),
            row: Vec::new(),
            fresh: Vec::new(),
            streams,
            block: Block::default(),
            tokens: BTreeSet::new(),
            scratch: 64,
            pinned: Vec::new(),
            ends: BTreeMap::new(),
            has_register: false,
        };
        for slot in 0..segment.generator.slots.len() {
            if segment.generator.slots[slot].defined && !segment.rng().one_in(4) {
                segment.use_slot(slot);
            }
        }
        for _ in 0..segment.rng().within(1, 2) {
            let (dtype, shape) = (segment.generator.dtype(), segment.generator.shape());
            let slot = segment.generator.new_slot(dtype, &shape);
            segment.use_slot(slot);
        }
        segment
    }

    pub fn rng(&mut self) -> &mut Rng {
        &mut self.generator.rng
    }

    pub fn options(&self) -> &'o Options {
        self.generator.options
    }

    pub fn has_matrix(&self) -> bool {
        self.options().products
    }

    /// A parameter whose value in the row is an index expression.
    pub fn param(&mut self, value: String) -> String {
        let name = self.generator.name("p");
        self.params.push(name.clone());
        self.row.push(value);
        name
    }

    /// A buffer for a slot.
    fn use_slot(&mut self, slot: usize) {
        let at = self.generator.slots[slot].clone();
        let writable = at.writable && (!at.defined || !self.rng().one_in(3));
        let role = match (at.defined, writable) {
            // What is only read is kept as well, unless nothing can happen to it.
            (true, _) if at.writable => "inout",
            (true, _) => "in",
            (false, _) => "out",
        };
        let address = if at.spread > 0 || self.rng().one_in(2) {
            format!("%{}", self.param(at.address()))
        } else {
            at.at.to_string()
        };
        let array = Array {
            name: at.name.clone(),
            dtype: at.dtype,
            shape: at.shape.clone(),
            packing: Packing::Strided,
            range: (at.at, at.at + at.bytes() + 2 * at.spread),
            defined: at.defined,
            writable,
            locked: false,
            dead: false,
        };
        let _ = writeln!(
            self.buffers,
            "%{} = buffer {{at = {address}, role = \"{role}\"}} : {}{}",
            at.name,
            at.dtype,
            list(&at.shape)
        );
        if !at.defined {
            self.fresh.push((self.arrays.len(), slot));
        }
        self.arrays.push(array);
    }

    /// A new scratch buffer, which holds nothing yet.
    pub fn scratch(&mut self, dtype: DType, shape: &[u64], packing: Packing) -> usize {
        let bytes = shape.iter().product::<u64>() * dtype.bytes();
        // Now and then the bytes of an earlier buffer, which is then no more; not inside of a loop,
        // where the earlier one would be used again.
        let reuse = self.options().reuse && self.loops.is_empty() && self.rng().one_in(3);
        let usable: Vec<usize> = (0..self.arrays.len())
            .filter(|i| {
                let array = &self.arrays[*i];
                let scratch = array.range.0 < SLOTS && !self.pinned.contains(i);
                scratch && array.readable() && array.range.1 - array.range.0 >= bytes
            })
            .collect();
        let at = if reuse && !usable.is_empty() {
            let old = self.rng().pick(&usable);
            self.arrays[old].dead = true;
            self.arrays[old].range.0
        } else {
            let at = self.scratch;
            self.scratch = (at + bytes).next_multiple_of(64);
            at
        };
        let name = self.generator.name("b");
        let packed = match packing {
            Packing::Strided => "",
            Packing::Packed8x4 => ", packing = \"packed8x4\"",
            Packing::Packed4x8 => ", packing = \"packed4x8\"",
        };
        let _ = writeln!(
            self.buffers,
            "%{name} = buffer {{at = {at}{packed}}} : {dtype}{}",
            list(shape)
        );
        self.arrays.push(Array {
            name,
            dtype,
            shape: shape.to_vec(),
            packing,
            range: (at, at + bytes),
            defined: false,
            writable: true,
            locked: false,
            dead: false,
        });
        self.arrays.len() - 1
    }

    /// A view of an array, if one of these extents fits.
    fn view(&mut self, array: usize, shape: &[u64], written: bool) -> Option<Operand> {
        let Array {
            name: of,
            dtype,
            shape: whole,
            packing,
            ..
        } = self.arrays[array].clone();
        if packing != Packing::Strided {
            return None;
        }
        if whole == shape && self.rng().one_in(2) {
            return Some(self.whole(array));
        }
        let strided = self.options().strided;
        let (capacity, loops) = (self.arrays[array].bytes(), self.loops.clone());
        let found = window(
            self.rng(),
            (dtype, shape),
            capacity,
            (strided, written),
            &loops,
        )?;
        let name = self.generator.name("v");
        Some(Operand {
            definition: found.text(&name, &of, dtype, shape),
            name,
            array,
        })
    }

    /// Keeps the bytes of an operand until the next instruction has been added.
    pub fn pin(&mut self, operand: &Operand) {
        self.pinned.push(operand.array);
    }

    /// No operand has been chosen yet.
    pub fn unpin(&mut self) {
        self.pinned.clear();
    }

    /// Whether an operand that is read, in a view with a place for every element, may be written.
    pub fn may_write(&self, operand: &Operand) -> bool {
        let array = &self.arrays[operand.array];
        array.writable && (operand.definition.is_empty() || !operand.definition.contains("strides"))
    }

    /// A buffer as it is.
    pub fn whole(&self, array: usize) -> Operand {
        Operand {
            name: self.arrays[array].name.clone(),
            definition: String::new(),
            array,
        }
    }

    /// Something to read, made if there is nothing.
    pub fn read(&mut self, dtype: DType, shape: &[u64]) -> Operand {
        let operand = self.find(dtype, shape);
        self.pin(&operand);
        operand
    }

    fn find(&mut self, dtype: DType, shape: &[u64]) -> Operand {
        let fits: Vec<usize> = (0..self.arrays.len())
            .filter(|i| self.arrays[*i].readable() && self.arrays[*i].dtype == dtype)
            .collect();
        for _ in 0..2 {
            if fits.is_empty() {
                break;
            }
            let array = self.rng().pick(&fits);
            if let Some(operand) = self.view(array, shape, false) {
                return operand;
            }
        }
        let array = self.scratch(dtype, shape, Packing::Strided);
        let y = self.whole(array);
        if dtype == DType::Bool || self.rng().one_in(2) && dtype.is_float() && dtype != DType::F32 {
            let value = if dtype == DType::Bool { "1" } else { "1.5" };
            self.act(Kind::Compute, &[&y], 1, |o| {
                format!("fill {} {{value = {value}}}\n", o[0])
            });
        } else if !shape.is_empty() && (dtype.is_int() || dtype == DType::F32) {
            let (axis, step) = (self.rng().below(shape.len()), self.rng().within(1, 5));
            let start = self.param("mod(3 * i, 7)".into());
            self.act(Kind::Compute, &[&y], 1, |o| {
                format!(
                    "iota {} {{axis = {axis}, step = {step}, start = %{start}}}\n",
                    o[0]
                )
            });
        } else {
            self.act(Kind::Compute, &[&y], 1, |o| {
                let value = if dtype.is_int() { "3" } else { "2.5" };
                format!("fill {} {{value = {value}}}\n", o[0])
            });
        }
        y
    }

    /// Something to write, which shares no bytes with `avoid`.
    pub fn target(&mut self, dtype: DType, shape: &[u64], avoid: &[&Operand]) -> Operand {
        let overlap = self.options().overlap;
        let fits: Vec<usize> = (0..self.arrays.len())
            .filter(|i| {
                let array = &self.arrays[*i];
                let shares = avoid.iter().any(|operand| operand.array == *i);
                array.writable && array.readable() && array.dtype == dtype && (overlap || !shares)
            })
            .collect();
        if !fits.is_empty() && !self.rng().one_in(3) {
            let array = self.rng().pick(&fits);
            if let Some(operand) = self.view(array, shape, true) {
                return operand;
            }
        }
        let fresh = self.fresh.iter().map(|(array, _)| *array).find(|array| {
            let array = &self.arrays[*array];
            !array.defined && !array.locked && array.dtype == dtype && array.shape == shape
        });
        let array = match fresh {
            Some(array) => array,
            None => self.scratch(dtype, shape, Packing::Strided),
        };
        self.whole(array)
    }

    /// Adds an action: `written` of the operands, the first ones, are written. What it writes as a
    /// whole is defined then.
    pub fn act(
        &mut self,
        kind: Kind,
        operands: &[&Operand],
        written: usize,
        text: impl FnOnce(&[String]) -> String,
    ) {
        let names: Vec<String> = operands.iter().map(|o| format!("%{}", o.name)).collect();
        let mut lines: String = operands.iter().map(|o| o.definition.as_str()).collect();
        lines.push_str(&text(&names));
        let accesses: Vec<Access> = operands
            .iter()
            .enumerate()
            .map(|(i, operand)| Access {
                range: self.arrays[operand.array].range,
                write: i < written,
            })
            .collect();
        for operand in &operands[..written] {
            self.arrays[operand.array].defined = true;
        }
        self.deal(kind, lines, accesses);
    }

    /// Adds statements that use the DRAM of the cores, and the bytes of an operand: all of these stay in
    /// order.
    pub fn in_dram(&mut self, lines: String, (operand, write): (&Operand, bool)) {
        let range = self.arrays[operand.array].range;
        let order = Access {
            range: (DRAM, DRAM + 1),
            write: true,
        };
        self.deal(Kind::Transfer, lines, vec![Access { range, write }, order]);
    }

    /// The stream of an action.
    fn stream(&mut self, kind: Kind) -> usize {
        let streams = self.streams;
        match kind {
            Kind::Product => 0,
            Kind::Compute => self.rng().below(streams.min(3)),
            Kind::Transfer if streams > 2 => 2 + self.rng().below(streams - 2),
            Kind::Transfer => self.rng().below(streams),
        }
    }

    /// Gives an action to a stream, behind all that it conflicts with.
    fn deal(&mut self, kind: Kind, lines: String, accesses: Vec<Access>) {
        let mut stream = self.stream(kind);
        // An end of a channel belongs to one stream.
        if let Some(end) = accesses.iter().find(|access| access.range.0 >= CHANNELS) {
            stream = *self.ends.entry(end.range.0).or_insert(stream);
        }
        let mut needed = [0; STREAMS.len()];
        for (earlier, other, at) in &self.block.accesses {
            let conflict = accesses.iter().any(|new| {
                let apart = new.range.1 <= earlier.range.0 || earlier.range.1 <= new.range.0;
                !apart && (new.write || earlier.write)
            });
            if conflict && *other != stream {
                needed[*other] = needed[*other].max(at + 1);
            }
        }
        let mut waits = String::new();
        for (other, needed) in needed.into_iter().enumerate() {
            if needed > self.block.waited[stream][other] {
                self.block.waited[stream][other] = needed;
                self.block.items[other][needed - 1].signals.push(stream);
                self.tokens.insert((other, stream));
                let _ = writeln!(waits, "wait %t_{other}_{stream}");
            }
        }
        let at = self.block.items[stream].len();
        self.block.items[stream].push(Item {
            lines: waits + &lines,
            signals: Vec::new(),
        });
        let accesses = accesses.into_iter().map(|access| (access, stream, at));
        self.block.accesses.extend(accesses);
    }

    /// All of these streams wait for each other.
    fn barrier(&mut self, streams: &[usize]) {
        for &stream in streams {
            let mut signals = String::new();
            let mut waits = String::new();
            for &other in streams {
                if other != stream {
                    self.tokens.insert((stream, other));
                    let _ = writeln!(signals, "signal %t_{stream}_{other}");
                    let _ = writeln!(waits, "wait %t_{other}_{stream}");
                }
            }
            self.block.items[stream].push(Item {
                lines: signals + &waits,
                signals: Vec::new(),
            });
        }
        self.block.accesses.clear();
        for &stream in streams {
            for &other in streams {
                self.block.waited[stream][other] = self.block.items[other].len();
            }
        }
    }

    /// Adds about so many actions.
    pub fn fill(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let used =
                if self.options().loops && self.loops.len() < 2 && left > 2 && self.rng().one_in(5)
                {
                    let inner = self.rng().within(1, left as u64 - 1) as usize;
                    self.repeat(inner);
                    inner
                } else if !self.generator.families.is_empty() && self.rng().one_in(4) {
                    self.exchange();
                    2
                } else {
                    self.compute();
                    1
                };
            left = left.saturating_sub(used);
        }
    }

    /// A loop with about so many actions.
    fn repeat(&mut self, actions: usize) {
        let all: Vec<usize> = (0..self.streams).collect();
        self.barrier(&all);
        let (counter, count) = (self.generator.name("i"), self.rng().within(1, 4));
        let text = if self.rng().one_in(3) {
            format!("%{}", self.param(count.to_string()))
        } else {
            count.to_string()
        };
        self.loops.push(Counter {
            name: counter.clone(),
            count,
        });
        let outer = std::mem::take(&mut self.block);
        self.fill(actions);
        let used: Vec<usize> = all
            .iter()
            .copied()
            .filter(|stream| !self.block.items[*stream].is_empty())
            .collect();
        self.barrier(&used);
        self.loops.pop();
        let inner = std::mem::replace(&mut self.block, outer);
        for stream in used {
            let body = body_text(&inner.items[stream], stream);
            self.block.items[stream].push(Item {
                lines: format!("for {{count = {text}}} (\n{{ ^(%{counter} : index)\n{body}}}\n)\n"),
                signals: Vec::new(),
            });
        }
        self.barrier(&all);
    }

    /// Sends and receives over one of the families.
    fn exchange(&mut self) {
        let families: Vec<usize> = (0..self.generator.families.len())
            .filter(|family| self.generator.families[*family].ports > 0)
            .collect();
        if families.is_empty() {
            return self.compute();
        }
        self.unpin();
        let family = self.rng().pick(&families);
        let rounds = self.rng().within(1, 2);
        let mut sent = Vec::new();
        for _ in 0..rounds {
            let (dtype, shape) = (self.generator.dtype(), self.generator.shape());
            let ports = self.generator.families[family].ports;
            let port = self.rng().below(ports);
            let payload = self.read(dtype, &shape);
            let slot = self.scratch(dtype, &shape, Packing::Strided);
            sent.push((port, payload, slot, dtype, shape));
        }
        let name = self.generator.families[family].name.clone();
        let end = |incoming: bool, port: usize| {
            let at = CHANNELS + ((family * 64 + port) * 2 + usize::from(incoming)) as u64;
            Access {
                range: (at, at + 1),
                write: true,
            }
        };
        for (port, _, slot, ..) in &sent {
            self.arrays[*slot].locked = true;
            let (range, of) = (self.arrays[*slot].range, self.arrays[*slot].name.clone());
            let access = Access { range, write: true };
            let line = format!("post @{name}, %{of} {{port = {port}}}\n");
            self.deal(Kind::Transfer, line, vec![access, end(true, *port)]);
        }
        if self.rng().one_in(2) {
            self.compute();
        }
        for (port, payload, _, dtype, shape) in &sent {
            // The payload may have been overwritten or its bytes reused in between.
            let payload = if self.arrays[payload.array].readable() {
                payload.clone()
            } else {
                self.read(*dtype, shape)
            };
            let range = self.arrays[payload.array].range;
            let access = Access {
                range,
                write: false,
            };
            let line = format!(
                "{}send @{name}, %{} {{port = {port}}}\n",
                payload.definition, payload.name
            );
            self.deal(Kind::Transfer, line, vec![access, end(false, *port)]);
        }
        if self.rng().one_in(2) {
            self.compute();
        }
        for (port, _, slot, ..) in &sent {
            let (range, of) = (self.arrays[*slot].range, self.arrays[*slot].name.clone());
            let access = Access { range, write: true };
            let line = format!("recv @{name}, %{of} {{port = {port}}}\n");
            self.deal(Kind::Transfer, line, vec![access, end(true, *port)]);
            self.arrays[*slot].locked = false;
            self.arrays[*slot].defined = true;
        }
    }

    /// The segment in the text, and the parameter row of its call.
    pub fn finish(mut self, name: &str) -> (String, Vec<String>) {
        for (array, slot) in self.fresh.clone() {
            if !self.arrays[array].defined {
                let (dtype, shape) = (self.arrays[array].dtype, self.arrays[array].shape.clone());
                let x = self.read(dtype, &shape);
                let y = self.whole(array);
                self.act(Kind::Compute, &[&y, &x], 1, |o| {
                    format!("copy {}, {}\n", o[0], o[1])
                });
            }
            self.generator.slots[slot].defined = true;
        }
        let params: Vec<String> = self
            .params
            .iter()
            .map(|p| format!("%{p} : index"))
            .collect();
        let mut text = format!(
            "segment @{name}({}) {{\n{}",
            params.join(", "),
            self.buffers
        );
        for (from, to) in &self.tokens {
            let _ = writeln!(text, "%t_{from}_{to} = token");
        }
        for (stream, items) in self.block.items.iter().enumerate() {
            if !items.is_empty() {
                let body = body_text(items, stream);
                let _ = write!(text, "{} ({{ ^()\n{body}}})\n", STREAMS[stream]);
            }
        }
        text.push_str("}\n");
        (text, self.row)
    }
}

/// The statements of a stream.
fn body_text(items: &[Item], stream: usize) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(&item.lines);
        for to in &item.signals {
            let _ = writeln!(text, "signal %t_{stream}_{to}");
        }
    }
    text
}
