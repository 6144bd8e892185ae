//! Random programs that verify and run, for tests of properties.
//!
//! A program is made as text. All cores of the region `@all` run the same calls, in each of which
//! they carry out the same list of *actions*: instructions, or the steps of an exchange over a
//! channel family. Carried out one after the other, the actions of a call cannot deadlock: a core
//! posts its slots before it waits for anything in the same exchange, and an exchange of one core
//! is the same exchange of all others. The actions are then dealt to the streams; tokens order what
//! touches the same bytes or the same channel. They only ever point from an earlier action to a
//! later one, so the list remains a valid order.
//!
//! Values that are not the same on all cores come from inputs, of which each core holds a row.

mod actions;
mod dram;
mod memory;
mod product;
mod segment;

use std::fmt::Write as _;

use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use crate::rng::Rng;
use memory::Slot;
use segment::SegmentText;

/// What random programs look like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the machine.
    pub machine: &'static str,
    /// Most rows and columns of the region.
    pub cores: (u32, u32),
    /// Most calls of a schedule.
    pub calls: usize,
    /// Most actions of a call, about.
    pub actions: usize,
    /// Most streams of a segment, 1 to 4.
    pub streams: usize,
    /// Element types of operands that may be of several.
    pub dtypes: Vec<DType>,
    /// Whether there are loops and repeated calls.
    pub loops: bool,
    /// Whether cores exchange messages.
    pub channels: bool,
    /// Whether messages are relayed along all cores.
    pub relays: bool,
    /// Whether operands are strided, broadcast and reversed.
    pub strided: bool,
    /// Whether operands of an instruction may share bytes.
    pub overlap: bool,
    /// Whether there are states, which change from run to run.
    pub states: bool,
    /// Whether buffers of a call may follow each other at the same address.
    pub reuse: bool,
    /// Whether addresses differ from core to core.
    pub rows: bool,
    /// Whether there are tile products.
    pub products: bool,
    /// Whether there are loops counted by registers.
    pub registers: bool,
    /// Whether there is DRAM, which not every machine has.
    pub dram: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            machine: "mesh4x4",
            cores: (3, 4),
            calls: 4,
            actions: 10,
            streams: 4,
            dtypes: vec![
                DType::F32,
                DType::Bf16,
                DType::F16,
                DType::I32,
                DType::I64,
                DType::U8,
                DType::I16,
            ],
            loops: true,
            channels: true,
            relays: true,
            strided: true,
            overlap: true,
            states: true,
            reuse: true,
            rows: true,
            products: true,
            registers: true,
            dram: false,
        }
    }
}

/// A program with what it is to be run on.
#[derive(Clone, Debug)]
pub struct RandomProgram {
    /// The program.
    pub text: String,
    /// Inputs of each run, by name.
    pub runs: Vec<Vec<(String, Tensor)>>,
}

/// Where the arrays that outlive a call lie: from here on, scratch memory before it.
const SLOTS: u64 = 0x2_0000;

/// A program under construction.
struct Generator<'o> {
    rng: Rng,
    options: &'o Options,
    rows: u32,
    columns: u32,
    slots: Vec<Slot>,
    /// First free byte behind the slots.
    end: u64,
    families: Vec<Family>,
    segments: String,
    steps: String,
    names: usize,
}

/// A channel family among all cores.
#[derive(Clone, Debug)]
struct Family {
    name: String,
    ports: usize,
    /// Its declaration.
    text: String,
}

/// The program of a seed.
pub fn random_program(seed: u64, options: &Options) -> RandomProgram {
    let mut rng = Rng::new(seed);
    let rows = rng.within(1, u64::from(options.cores.0)) as u32;
    let columns = rng.within(1, u64::from(options.cores.1)) as u32;
    let mut generator = Generator {
        rng,
        options,
        rows,
        columns,
        slots: Vec::new(),
        end: SLOTS,
        families: Vec::new(),
        segments: String::new(),
        steps: String::new(),
        names: 0,
    };
    generator.declare_families();
    generator.declare_tensors();
    let calls = generator.rng.within(1, options.calls as u64);
    for _ in 0..calls {
        generator.call();
    }
    generator.finish(seed)
}

impl Generator<'_> {
    fn cores(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.columns)
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn declare_families(&mut self) {
        let n = self.cores();
        if n < 2 || !self.options.channels {
            return;
        }
        for _ in 0..self.rng.within(1, 3) {
            let name = self.name("ring");
            let (peer, ports) = match self.rng.below(4) {
                0 if n.is_multiple_of(2) => ("i + 1 - 2 * mod(i, 2)".to_owned(), 1),
                1 => (format!("{} - i", n - 1), 1),
                2 if n > 3 => (format!("mod(i + 1 + p, {n})"), 2),
                _ => (format!("mod(i + {}, {n})", self.rng.within(1, n - 1)), 1),
            };
            let peer_port = if ports > 1 {
                ", peer_port = p, ports = 2"
            } else {
                ""
            };
            let route = if self.rng.one_in(3) {
                ", route = \"yx\""
            } else {
                ""
            };
            let text = format!(
                "channel @{name} {{from = @all, to = @all, peer = {peer}{peer_port}{route}}}"
            );
            self.families.push(Family { name, ports, text });
        }
    }

    /// A slot for an array on every core.
    fn new_slot(&mut self, dtype: DType, shape: &[u64]) -> usize {
        let elements: u64 = shape.iter().product();
        let bytes = elements * dtype.bytes();
        let spread = if self.options.rows && self.rng.one_in(3) {
            64 * self.rng.within(1, 3)
        } else {
            0
        };
        let name = self.name("x");
        self.slots.push(Slot {
            name,
            dtype,
            shape: shape.to_vec(),
            at: self.end,
            spread,
            defined: false,
            writable: true,
            tensor: None,
        });
        // Addresses are multiples of what a machine may demand of them.
        self.end += (bytes + 2 * spread).next_multiple_of(64) + 64 * self.rng.within(0, 2);
        self.slots.len() - 1
    }

    fn shape(&mut self) -> Vec<u64> {
        match self.rng.below(4) {
            0 => vec![self.rng.within(1, 70)],
            1 | 2 => vec![self.rng.within(1, 9), self.rng.within(1, 12)],
            _ => vec![
                self.rng.within(1, 4),
                self.rng.within(1, 5),
                self.rng.within(1, 6),
            ],
        }
    }

    /// Inputs, weights and states.
    fn declare_tensors(&mut self) {
        for _ in 0..self.rng.within(1, 3) {
            let dtype = self.dtype();
            let shape = self.shape();
            let slot = self.new_slot(dtype, &shape);
            let slot = &mut self.slots[slot];
            slot.tensor = Some("input".into());
            slot.defined = true;
        }
        if self.rng.one_in(2) {
            let shape = self.shape();
            let slot = self.new_slot(DType::F32, &shape);
            let (slot, value) = (&mut self.slots[slot], self.rng.unit());
            let shape = memory::list(&slot.shape);
            slot.tensor = Some(format!("weight {{data = splat(f32{shape}, {value:?})}}"));
            slot.defined = true;
            slot.writable = false;
        }
        if self.options.states && self.rng.one_in(2) {
            let dtype = self.dtype();
            let shape = self.shape();
            let slot = self.new_slot(dtype, &shape);
            self.slots[slot].tensor = Some("state {init = zeros}".into());
            self.slots[slot].defined = true;
        }
    }

    fn dtype(&mut self) -> DType {
        self.rng.pick(&self.options.dtypes)
    }

    fn call(&mut self) {
        if self.options.relays && self.cores() > 2 && self.rng.one_in(4) {
            self.relay();
            return;
        }
        let name = self.name("step");
        let mut segment = SegmentText::new(self);
        let most = segment.options().actions as u64;
        let count = segment.rng().within(2, most);
        segment.fill(count as usize);
        let (text, row) = segment.finish(&name);
        self.segments.push_str(&text);
        let call = format!("call @{name} {{on = @all, row = [{}]}}\n", row.join(", "));
        if self.options.loops && self.rng.one_in(4) {
            let (counter, count) = (self.name("r"), self.rng.within(1, 3));
            let _ = write!(
                self.steps,
                "repeat {{count = {count}}} ({{ ^(%{counter} : index)\n{call}}})\n"
            );
        } else {
            self.steps.push_str(&call);
        }
    }

    /// A message from the first core through all others: three segments, each core runs one.
    fn relay(&mut self) {
        let (n, chain) = (self.cores(), self.name("chain"));
        let text = format!(
            "channel @{chain} {{from = @all, to = @all, peer = i + 1 - {} * (i / {})}}",
            n + 1,
            n - 1
        );
        self.families.push(Family {
            name: chain.clone(),
            ports: 0,
            text,
        });
        let candidates: Vec<usize> = (0..self.slots.len())
            .filter(|i| self.slots[*i].defined && self.slots[*i].spread == 0)
            .collect();
        if candidates.is_empty() {
            return;
        }
        let from = self.rng.pick(&candidates);
        let (dtype, shape) = (self.slots[from].dtype, self.slots[from].shape.clone());
        let to = self.new_slot(dtype, &shape);
        self.slots[to].spread = 0;
        self.slots[to].defined = true;
        let declare = |slot: &Slot, role: &str| {
            let shape = memory::list(&slot.shape);
            format!(
                "%{} = buffer {{at = {}, role = \"{role}\"}} : {}{shape}\n",
                slot.name, slot.at, slot.dtype
            )
        };
        let (x, y) = (&self.slots[from], &self.slots[to]);
        let role = if x.writable { "inout" } else { "in" };
        let (source, target) = (declare(x, role), declare(y, "out"));
        let (x, y) = (x.name.clone(), y.name.clone());
        let streams = ["comm0", "comm1", "vector"];
        let stream = self.rng.pick(&streams);
        let _ = write!(
            self.segments,
            "segment @{chain}_head() {{\n{source}{target}{stream} ({{ ^()\ncopy %{y}, %{x}\nsend @{chain}, %{x}\n}})\n}}\n\
             segment @{chain}_middle() {{\n{target}{stream} ({{ ^()\npost @{chain}, %{y}\nrelay @{chain}, %{y}, @{chain}\n}})\n}}\n\
             segment @{chain}_tail() {{\n{target}{stream} ({{ ^()\npost @{chain}, %{y}\nrecv @{chain}, %{y}\n}})\n}}\n",
        );
        let mut calls = [
            format!("call @{chain}_head {{on = @first, row = []}}\n"),
            format!("call @{chain}_middle {{on = @middle, row = []}}\n"),
            format!("call @{chain}_tail {{on = @last, row = []}}\n"),
        ];
        let turn = self.rng.below(3);
        calls.rotate_left(turn);
        self.steps.extend(calls);
    }

    /// Boxes of all cores but the first and the last.
    fn middle(&self) -> String {
        let (rows, columns) = (self.rows, self.columns);
        let mut boxes = Vec::new();
        let mut add = |row: u32, from: u32, to: u32| {
            if to > from {
                boxes.push(format!("box(0, {row}, [{from}, {}])", to - from));
            }
        };
        for row in 0..rows {
            let first = u32::from(row == 0);
            let last = columns - u32::from(row == rows - 1);
            add(row, first, last);
        }
        boxes.join(", ")
    }

    /// The declaration of a slot as a tensor.
    fn tensor(&self, slot: &Slot, kind: &str, name: &str, tail: &str) -> String {
        let own = !kind.starts_with("weight");
        let extents = slot.shape.iter().map(u64::to_string);
        let boxes = slot.shape.iter().map(|d| format!("[0, {d}]"));
        let (shape, slices): (Vec<String>, Vec<String>) = if own {
            (
                std::iter::once(self.cores().to_string())
                    .chain(extents)
                    .collect(),
                std::iter::once("[i, 1]".to_owned()).chain(boxes).collect(),
            )
        } else {
            (extents.collect(), boxes.collect())
        };
        format!(
            "{kind} @{name} : {}[{}] = [{{on = @all, at = {}, slice = [{}]}}]{tail}\n",
            slot.dtype,
            shape.join(", "),
            slot.address(),
            slices.join(", ")
        )
    }

    fn finish(mut self, seed: u64) -> RandomProgram {
        let (rows, columns) = (self.rows, self.columns);
        let mut text = format!(
            "dojo program 1\n\nprogram @random_{seed} {{machine = \"{}\"}} {{\n\
             cores @all = [box(0, [0, {rows}], [0, {columns}])]\n",
            self.options.machine
        );
        if self.cores() > 2 && self.segments.contains("_head()") {
            let middle = self.middle();
            let _ = write!(
                text,
                "cores @first = [box(0, 0, 0)]\ncores @middle = [{middle}]\n\
                 cores @last = [box(0, {}, {})]\n",
                rows - 1,
                columns - 1
            );
        }
        for family in &self.families {
            let _ = writeln!(text, "{}", family.text);
        }
        if self.segments.contains("dram.") {
            text += &self.dram();
        }
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let mut keep = |slot: &Slot| slot.defined && !self.rng.one_in(5);
        let outgoing: Vec<bool> = self.slots.iter().map(&mut keep).collect();
        for (slot, outgoing) in self.slots.iter().zip(outgoing) {
            let name = &slot.name;
            match slot.tensor.as_deref() {
                Some(tensor) => {
                    let (kind, tail) = tensor.split_once(' ').unwrap_or((tensor, ""));
                    let tail = if tail.is_empty() {
                        String::new()
                    } else {
                        format!(" {tail}")
                    };
                    text.push_str(&self.tensor(slot, kind, name, &tail));
                    if kind == "input" {
                        inputs.push(name.clone());
                    }
                }
                None if !outgoing => continue,
                None => {}
            }
            if outgoing && slot.tensor.as_deref().is_none_or(|t| t == "input") {
                let name = format!("{name}_out");
                text.push_str(&self.tensor(slot, "output", &name, ""));
                outputs.push(format!("@{name}"));
            }
        }
        text.push_str(&self.segments);
        let names: Vec<String> = inputs.iter().map(|name| format!("@{name}")).collect();
        let _ = write!(
            text,
            "entry @main() {{inputs = [{}], outputs = [{}]}} {{\n{}}}\n}}\n",
            names.join(", "),
            outputs.join(", "),
            self.steps
        );
        let has_state = text.contains("\nstate ");
        let runs = (0..if has_state { 3 } else { 1 })
            .map(|_| self.inputs())
            .collect();
        RandomProgram { text, runs }
    }

    /// Values of all inputs.
    fn inputs(&mut self) -> Vec<(String, Tensor)> {
        let n = self.cores();
        let inputs: Vec<(String, DType, Vec<u64>)> = self
            .slots
            .iter()
            .filter(|slot| slot.tensor.as_deref() == Some("input"))
            .map(|slot| {
                let shape = std::iter::once(n).chain(slot.shape.iter().copied());
                (slot.name.clone(), slot.dtype, shape.collect())
            })
            .collect();
        let mut tensors = Vec::new();
        for (name, dtype, shape) in inputs {
            let count = shape.iter().product::<u64>();
            let values: Vec<Scalar> = (0..count)
                .map(|_| Scalar::F64(4.0 * self.rng.unit()).convert(dtype))
                .collect();
            tensors.push((name, Tensor::from_scalars(dtype, &shape, values)));
        }
        tensors
    }
}
