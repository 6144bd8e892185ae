use dojoc_ir::attr::Number;
use dojoc_ir::entity::{EntityId, PrimaryMap};
use dojoc_ir::machine::{CoreAddress, Machine};
use dojoc_ir::mesh::Storage;
use dojoc_ir::program::verify::verify;
use dojoc_ir::program::{
    Affine, Entry, Program, RouteRule, StateInit, Step, TensorDecl, TensorKind, dense_strides,
};
use dojoc_ir::tiled::{Grid, GridId, Layout};
use dojoc_ir::types::DType;

use super::super::shards::shards;
use super::*;
use crate::route::exchange;
use crate::route::tests::{Random, grids, layout};

fn machine(name: &str) -> (Machine, Vec<CoreAddress>) {
    let machine = Machine::parse(Machine::builtin(name).unwrap(), name).unwrap();
    let places = machine.live_cores(0).unwrap();
    (machine, places)
}

fn storage(
    grids: &PrimaryMap<GridId, Grid>,
    layout: &Layout,
    dtype: DType,
    address: u64,
) -> Storage {
    let window = layout.largest_window(&grids[layout.grid]);
    Storage {
        address,
        bytes: window.iter().product::<u64>() * dtype.bytes(),
        strides: dense_strides(dtype, &window, Packing::Strided).unwrap(),
        live: 0..1,
        alias: None,
        fill: None,
    }
}

/// A program that brings its input from one layout to the other one. The result is a state, as all
/// copies of it must agree.
fn program(
    (machine, places): &(Machine, Vec<CoreAddress>),
    grids: &PrimaryMap<GridId, Grid>,
    from: &Layout,
    to: &Layout,
    dtype: DType,
    fill: Option<Number>,
) -> Program {
    let old = storage(grids, from, dtype, 64);
    let address = (64 + old.bytes).next_multiple_of(64);
    let new = Storage {
        fill,
        ..storage(grids, to, dtype, address)
    };
    let scratch = (address + new.bytes).next_multiple_of(64);
    let mut cx = ProgramBuilder::new("exchange", machine, places.clone(), RouteRule::Xy);
    let (a, b) = (
        Side {
            layout: from,
            storage: &old,
        },
        Side {
            layout: to,
            storage: &new,
        },
    );
    let flows = exchange(grids, from, to).unwrap();
    let transfer = Transfer {
        grids,
        exchange: &flows,
        from: a,
        to: b,
        dtype,
    };
    emit_exchange(&mut cx, &transfer, None, scratch, None).unwrap();
    let tensor = |cx: &mut ProgramBuilder, name: &str, kind, layout: &Layout, storage| {
        let shards = shards(cx, grids, layout, storage, &layout.view, true).unwrap();
        let shape = layout
            .view
            .iter()
            .map(|e| Affine::constant(*e as i64))
            .collect();
        cx.program.tensors.push(TensorDecl {
            name: name.into(),
            kind,
            dtype,
            shape,
            shards,
            loc: None,
        })
    };
    let x = tensor(&mut cx, "x", TensorKind::Input, from, &old);
    tensor(&mut cx, "y", TensorKind::State(StateInit::Zeros), to, &new);
    let steps = std::mem::take(&mut cx.steps);
    cx.program.entries.push(Entry {
        name: "main".into(),
        inputs: vec![x],
        outputs: vec![],
        steps,
    });
    cx.finish()
}

fn verified(
    on: &(Machine, Vec<CoreAddress>),
    grids: &PrimaryMap<GridId, Grid>,
    from: &Layout,
    to: &Layout,
    dtype: DType,
) -> Program {
    let program = program(on, grids, from, to, dtype, Some(Number::Int(1)));
    let found = verify(&program, &on.0);
    let found: Vec<String> = found
        .into_iter()
        .map(|v| v.into_diagnostic(&program, None).to_string())
        .collect();
    assert!(
        found.is_empty(),
        "{from:?}\n{to:?}\n{}",
        found[..found.len().min(5)].join("\n")
    );
    program
}

fn instructions(program: &Program) -> usize {
    let streams = program.segments.values().flat_map(|s| &s.streams);
    streams.map(|stream| stream.code.len()).sum()
}

#[test]
fn random_exchanges_verify() {
    let small = machine("mesh4x4");
    let large = machine("d1");
    let shapes: [&[u64]; 5] = [&[4, 4], &[2, 3, 2], &[16], &[3, 5], &[1]];
    let wide: [&[u64]; 3] = [&[18, 19], &[6, 59], &[70]];
    let dtypes = [DType::F32, DType::Bf16, DType::U8];
    let mut random = Random(11);
    for round in 0..60 {
        let extents: Vec<u64> = (0..1 + random.below(4))
            .map(|_| 1 + random.below(7))
            .collect();
        let (a, b) = (random.view(&extents), random.view(&extents));
        let (on, shapes) = if round % 10 == 9 {
            (&large, &wide[..])
        } else {
            (&small, &shapes[..])
        };
        let first = shapes[random.below(shapes.len() as u64) as usize];
        let second = shapes[random.below(shapes.len() as u64) as usize];
        let grids = grids(&[(0, first), (0, second)]);
        let id = usize::from(round % 4 == 1);
        let from = random.layout(0, &grids[GridId::from_index(0)], &a, false);
        let to = random.layout(id, &grids[GridId::from_index(id)], &b, round % 3 == 0);
        verified(on, &grids, &from, &to, dtypes[round % 3]);
    }
}

#[test]
fn an_all_gather_of_a_chip_is_a_few_loops() {
    let on = machine("d1");
    let grids = grids(&[(0, &[6, 59])]);
    let from = layout(0, &[708, 64], &[&[0, 1], &[]]);
    let to = layout(0, &[708, 64], &[&[], &[]]);
    let program = verified(&on, &grids, &from, &to, DType::Bf16);
    // A core has 353 pieces to get.
    assert!(instructions(&program) < 100, "{}", instructions(&program));
}

#[test]
fn equal_exchanges_share_their_segments() {
    let (machine, places) = machine("mesh4x4");
    let grids = grids(&[(0, &[4, 4])]);
    let from = layout(0, &[32, 16], &[&[0], &[1]]);
    let to = layout(0, &[32, 16], &[&[0], &[]]);
    let flows = exchange(&grids, &from, &to).unwrap();
    let mut cx = ProgramBuilder::new("p", &machine, places, RouteRule::Xy);
    for address in [0, 4096] {
        let old = storage(&grids, &from, DType::F32, address);
        let new = storage(&grids, &to, DType::F32, address + 1024);
        let (a, b) = (
            Side {
                layout: &from,
                storage: &old,
            },
            Side {
                layout: &to,
                storage: &new,
            },
        );
        let transfer = Transfer {
            grids: &grids,
            exchange: &flows,
            from: a,
            to: b,
            dtype: DType::F32,
        };
        let planned = transfer.planned().unwrap();
        // Columns of four numbers do not arrive side by side: three blocks of 8 x 4.
        assert_eq!(planned.scratch_bytes(), 3 * 8 * 4 * 4);
        emit_exchange(&mut cx, &transfer, Some(&planned), address + 2048, None).unwrap();
    }
    let program = &cx.program;
    assert_eq!(
        (
            program.segments.len(),
            program.families.len(),
            program.regions.len()
        ),
        (1, 1, 1)
    );
    assert!(matches!(
        &cx.steps[..],
        [Step::Call { .. }, Step::Call { .. }]
    ));
    assert_ne!(cx.steps[0], cx.steps[1]);
}

#[test]
fn packed_values_are_refused() {
    let grids = grids(&[(0, &[4])]);
    let from = layout(0, &[16, 16], &[&[0], &[]]);
    let mut to = layout(0, &[16, 16], &[&[], &[0]]);
    let flows = exchange(&grids, &from, &to).unwrap();
    to.packing = Packing::Packed4x8;
    let old = storage(&grids, &from, DType::F32, 0);
    let new = storage(&grids, &to, DType::F32, 1024);
    let (a, b) = (
        Side {
            layout: &from,
            storage: &old,
        },
        Side {
            layout: &to,
            storage: &new,
        },
    );
    let transfer = Transfer {
        grids: &grids,
        exchange: &flows,
        from: a,
        to: b,
        dtype: DType::F32,
    };
    let error = transfer.planned().unwrap_err();
    assert!(error.0.contains("blocks of the matrix unit"), "{error}");
}
