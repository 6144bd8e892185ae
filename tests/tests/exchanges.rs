//! Exchanges between layouts, compiled and run: every core ends with its block of the new layout, bit
//! for bit, whatever the schedule.

use std::sync::Arc;

use bytes::Bytes;
use dojoc_compiler::emit::exchange::{Side, Transfer, emit_exchange};
use dojoc_compiler::emit::program::ProgramBuilder;
use dojoc_compiler::emit::shards::shards;
use dojoc_compiler::route::exchange;
use dojoc_ir::attr::Number;
use dojoc_ir::codes::NO_DATA;
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::entity::{EntityId, PrimaryMap};
use dojoc_ir::machine::Machine;
use dojoc_ir::mesh::Storage;
use dojoc_ir::program::recipe::Sources;
use dojoc_ir::program::{
    Affine, Coordinate, Entry, Home, IndexExpr, Packing, Program, RouteRule, Shard, StateInit,
    TensorDecl, TensorKind, dense_strides,
};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::tiled::{Axis, AxisLevel, Grid, GridId, Layout, Split};
use dojoc_ir::types::DType;
use dojoc_runtime::instance::{Instance, LoadOptions};
use dojoc_runtime::options::RunOptions;
use dojoc_tests::rng::Rng;

struct NoFiles;

impl Sources for NoFiles {
    fn read(&self, file: &str, _: u64, _: u64) -> Result<Bytes, Diagnostic> {
        Err(Diagnostic::input(
            NO_DATA,
            format!("there is no file `{file}`"),
        ))
    }
}

type Grids = PrimaryMap<GridId, Grid>;

fn grid(first: u64, sizes: &[u64]) -> Grid {
    let axis = |size: &u64| Axis {
        name: "a".into(),
        size: *size,
        level: AxisLevel::Core,
    };
    Grid {
        name: "g".into(),
        first,
        axes: sizes.iter().map(axis).collect(),
    }
}

fn machine(name: &str) -> Machine {
    let text = Machine::builtin(name).expect("a machine of the project");
    Machine::parse(text, name).expect("machines of the project are sound")
}

/// An exchange with its memory.
struct Case<'a> {
    machine: &'a Machine,
    grids: &'a Grids,
    from: Layout,
    to: Layout,
    dtype: DType,
    fill: Option<Number>,
}

impl Case<'_> {
    fn storage(&self, layout: &Layout, address: u64) -> Storage {
        let window = layout.largest_window(&self.grids[layout.grid]);
        Storage {
            address,
            bytes: window.iter().product::<u64>() * self.dtype.bytes(),
            strides: dense_strides(self.dtype, &window, Packing::Strided).expect("small windows"),
            live: 0..1,
            alias: None,
            fill: self.fill,
        }
    }

    /// The program, where the new value's shards and kind are given.
    fn program(
        &self,
        y: impl FnOnce(&mut ProgramBuilder, &Storage) -> (Vec<u64>, Vec<Shard>, TensorKind),
    ) -> Program {
        let old = self.storage(&self.from, 0);
        let new = self.storage(&self.to, old.bytes.next_multiple_of(64));
        let scratch = (new.address + new.bytes).next_multiple_of(64);
        let places = self.machine.live_cores(0).expect("a chip");
        let mut cx = ProgramBuilder::new("exchange", self.machine, places, RouteRule::Xy);
        let flows = exchange(self.grids, &self.from, &self.to).expect("an exchange");
        let from = Side {
            layout: &self.from,
            storage: &old,
        };
        let to = Side {
            layout: &self.to,
            storage: &new,
        };
        let transfer = Transfer {
            grids: self.grids,
            exchange: &flows,
            from,
            to,
            dtype: self.dtype,
        };
        let planned = transfer.planned().expect("a plan");
        assert!(scratch + planned.scratch_bytes() <= self.machine.core_sram_bytes());
        emit_exchange(&mut cx, &transfer, Some(&planned), scratch, None)
            .expect("exchanges of these layouts are emitted");
        let x =
            shards(&mut cx, self.grids, &self.from, &old, &self.from.view, true).expect("shards");
        let x = (self.from.view.clone(), x, TensorKind::Input);
        let y = y(&mut cx, &new);
        let tensors = [("x", x), ("y", y)].map(|(name, (shape, shards, kind))| {
            let is_output = kind == TensorKind::Output;
            let id = cx.program.tensors.push(TensorDecl {
                name: name.into(),
                kind,
                dtype: self.dtype,
                shape: shape.iter().map(|e| Affine::constant(*e as i64)).collect(),
                shards,
                loc: None,
            });
            (id, is_output)
        });
        cx.program.entries.push(Entry {
            name: "main".into(),
            inputs: vec![tensors[0].0],
            outputs: tensors
                .iter()
                .filter(|(_, is)| *is)
                .map(|(id, _)| *id)
                .collect(),
            steps: std::mem::take(&mut cx.steps),
        });
        cx.finish()
    }

    fn input(&self, seed: u64) -> Tensor {
        let mut rng = Rng::new(seed);
        let size = self.from.view.iter().product::<u64>() * self.dtype.bytes();
        let data: Vec<u8> = (0..size).map(|_| rng.within(1, 255) as u8).collect();
        Tensor::from_bytes(self.dtype, &self.from.view, data.into()).expect("as many bytes")
    }

    fn load(&self, program: Program) -> Instance {
        let options = LoadOptions::default();
        let loaded = Instance::load(Arc::new(program), self.machine, &NoFiles, options);
        loaded.unwrap_or_else(|e| panic!("{:?}\n{:?}\n{e}", self.from, self.to))
    }

    /// Runs it on several schedules and with the sanitizer. The new value is a state, of which all
    /// copies must agree.
    fn check(&self) {
        let program = self.program(|cx, new| {
            let shards =
                shards(cx, self.grids, &self.to, new, &self.to.view, true).expect("shards");
            (
                self.to.view.clone(),
                shards,
                TensorKind::State(StateInit::Zeros),
            )
        });
        let mut instance = self.load(program);
        for run in 0..4 {
            let x = self.input(run);
            let options = RunOptions {
                shuffle: (run > 0).then_some(run),
                sanitize: run == 3,
                ..RunOptions::default()
            };
            let result = instance.run("main", &[("x".into(), x.clone())], &options);
            result.unwrap_or_else(|e| panic!("{:?}\n{:?}\n{e}", self.from, self.to));
            let y = instance.state("y");
            let y = y.expect("copies agree").expect("a state");
            assert!(y.bytes() == x.bytes(), "{:?}\n{:?}", self.from, self.to);
        }
    }
}

/// The same elements with neighbours merged at random.
fn view(rng: &mut Rng, extents: &[u64]) -> Vec<u64> {
    let mut view = vec![extents[0]];
    for extent in &extents[1..] {
        match view.last_mut() {
            Some(last) if rng.one_in(3) => *last *= extent,
            _ => view.push(*extent),
        }
    }
    view
}

fn layout(rng: &mut Rng, grids: &Grids, id: GridId, view: &[u64], halo: bool) -> Layout {
    let mut layout = Layout::replicated(id, view);
    let mut axes = vec![vec![]; view.len() + 1];
    for axis in 0..grids[id].axes.len() {
        axes[rng.below(view.len() + 1)].push(axis);
    }
    for (d, extent) in view.iter().enumerate() {
        let mut split = Split::over(axes[d].clone(), *extent, rng.within(1, 3));
        if halo {
            (split.low, split.high) = (rng.below(3) as i64, rng.below(3) as i64);
        }
        layout.splits[d] = split;
    }
    layout
}

fn random_exchanges(machine: &Machine, shapes: &[&[u64]], rounds: usize, seed: u64) {
    let mut rng = Rng::new(seed);
    for round in 0..rounds {
        let mut grids = Grids::new();
        for _ in 0..2 {
            grids.push(grid(0, shapes[rng.below(shapes.len())]));
        }
        let extents: Vec<u64> = (0..rng.within(1, 4)).map(|_| rng.within(1, 9)).collect();
        let (a, b) = (view(&mut rng, &extents), view(&mut rng, &extents));
        let other = GridId::from_index(usize::from(rng.one_in(3)));
        let from = layout(&mut rng, &grids, GridId::from_index(0), &a, round % 5 == 1);
        let to = layout(&mut rng, &grids, other, &b, round % 3 == 0);
        let dtype = rng.pick(&[DType::F32, DType::Bf16, DType::U8]);
        let fill = rng.one_in(2).then_some(Number::Int(1));
        Case {
            machine,
            grids: &grids,
            from,
            to,
            dtype,
            fill,
        }
        .check();
    }
}

#[test]
fn on_a_small_mesh() {
    let shapes: [&[u64]; 5] = [&[4, 4], &[2, 3, 2], &[16], &[3, 5], &[1]];
    random_exchanges(&machine("mesh4x4"), &shapes, 100, 5);
}

#[test]
fn on_a_chip() {
    let shapes: [&[u64]; 4] = [&[18, 19], &[6, 59], &[354], &[70]];
    random_exchanges(&machine("d1"), &shapes, 6, 6);
}

#[test]
fn all_gathers_and_all_to_alls_of_a_chip() {
    let machine = machine("d1");
    let mut grids = Grids::new();
    let id = grids.push(grid(0, &[18, 19]));
    let view = [342, 38];
    let of = |rows: &[usize], columns: &[usize]| {
        let mut layout = Layout::replicated(id, &view);
        layout.splits[0] = Split::over(rows.to_vec(), view[0], 1);
        layout.splits[1] = Split::over(columns.to_vec(), view[1], 1);
        layout
    };
    let whole = of(&[], &[]);
    let rows = of(&[0, 1], &[]);
    for (from, to) in [
        (rows.clone(), whole.clone()),
        (rows.clone(), of(&[], &[1])),
        (of(&[0], &[1]), of(&[1], &[0])),
        (whole, rows),
    ] {
        let (machine, grids) = (&machine, &grids);
        Case {
            machine,
            grids,
            from,
            to,
            dtype: DType::Bf16,
            fill: None,
        }
        .check();
    }
}

#[test]
fn borders_are_filled() {
    let machine = machine("mesh4x4");
    let mut grids = Grids::new();
    let id = grids.push(grid(0, &[4]));
    let mut from = Layout::replicated(id, &[16]);
    from.splits[0] = Split::over(vec![0], 16, 1);
    let mut to = from.clone();
    (to.splits[0].low, to.splits[0].high) = (2, 1);
    let fill = Some(Number::Int(77));
    let case = Case {
        machine: &machine,
        grids: &grids,
        from,
        to,
        dtype: DType::U8,
        fill,
    };
    // The windows themselves, side by side.
    let program = case.program(|cx, new| {
        let number = IndexExpr::constant;
        let on = cx.region(0, 4).unwrap();
        let home = Home::Sram {
            on,
            at: number(new.address as i64),
        };
        let core = (IndexExpr::coordinate(Coordinate::Index), number(1));
        let slice = vec![core, (number(0), number(7))];
        let shard = Shard {
            home,
            slice,
            strides: vec![64, 1],
            packing: Packing::Strided,
        };
        (vec![4, 7], vec![shard], TensorKind::Output)
    });
    let x = case.input(1);
    let options = RunOptions {
        sanitize: true,
        ..RunOptions::default()
    };
    let result = case
        .load(program)
        .run("main", &[("x".into(), x.clone())], &options);
    let found = result.unwrap().outputs[0].1.bytes().to_vec();
    let at = |i: i64| {
        usize::try_from(i)
            .ok()
            .and_then(|i| x.bytes().get(i).copied())
    };
    let windows = (0..4).flat_map(|core| 4 * core - 2..4 * core + 5);
    let expected: Vec<u8> = windows.map(|i| at(i).unwrap_or(77)).collect();
    assert_eq!(found, expected);
}
