use dojoc_ir::attr::Number;
use dojoc_ir::machine::Machine;
use dojoc_ir::program::instr::vector::{Fill, Zip, ZipFunction};
use dojoc_ir::program::verify::verify;
use dojoc_ir::program::{CoreBox, Entry, IndexExpr, MachineRef, Program, Region, Span, Step};

use super::*;

fn fill(value: i64) -> Fill {
    Fill {
        value: Number::Int(value.into()),
    }
}

fn add(value: i64) -> Zip {
    Zip {
        function: ZipFunction::Add,
        value: Some(Number::Int(value.into())),
    }
}

fn part(buffer: BufferId, first: i64, count: i64) -> Window {
    Window {
        buffer,
        offset: Affine::constant(4 * first),
        dtype: DType::F32,
        shape: vec![Affine::constant(count)],
        strides: vec![4],
        packing: Packing::Strided,
    }
}

/// What the verifier has against a program that calls the segment on one core with this row.
fn violations(segment: Segment, row: &[i64]) -> Vec<String> {
    let machine = Machine::parse(Machine::builtin("mesh4x4").unwrap(), "mesh4x4").unwrap();
    let mut program = Program {
        name: "test".into(),
        ..Program::default()
    };
    program.machine = MachineRef {
        name: "mesh4x4".into(),
        fingerprint: 0,
    };
    let point = Span::one(0);
    let boxes = vec![CoreBox {
        chips: point,
        rows: point,
        columns: point,
    }];
    let on = program.regions.push(Region {
        name: "one".into(),
        boxes,
    });
    let segment = program.segments.push(segment);
    let row = row
        .iter()
        .map(|value| IndexExpr::constant(*value))
        .collect();
    let steps = vec![Step::Call {
        segment,
        on,
        row,
        loc: None,
    }];
    program.entries.push(Entry {
        name: "main".into(),
        steps,
        ..Entry::default()
    });
    verify(&program, &machine)
        .iter()
        .map(|violation| violation.message.clone())
        .collect()
}

#[test]
fn streams_keep_the_order_of_emission() {
    let mut seg = SegmentBuilder::new("s", None);
    let x = seg.scratch("x", DType::F32, &[8]);
    let whole = part(x, 0, 8);
    for unit in [
        Unit::Vector,
        Unit::Matrix,
        Unit::Comm0,
        Unit::Vector,
        Unit::Matrix,
    ] {
        match unit {
            Unit::Vector => seg.compute(unit, fill(1), std::slice::from_ref(&whole), vec![], None),
            _ => seg.compute(unit, add(1), &[whole.clone(), whole.clone()], vec![], None),
        }
    }
    let tokens = seg.tokens.len();
    assert_eq!(
        tokens, 3,
        "one for each pair of units, used twice where it is met twice"
    );
    assert_eq!(violations(seg.finish().unwrap(), &[]), [""; 0]);
}

#[test]
fn without_tokens_there_is_a_race() {
    let mut seg = SegmentBuilder::new("s", None);
    let x = seg.scratch("x", DType::F32, &[8]);
    seg.independent(|seg| {
        for unit in [Unit::Vector, Unit::Matrix] {
            seg.compute(unit, fill(1), &[part(x, 0, 8)], vec![], None);
        }
    });
    let found = violations(seg.finish().unwrap(), &[]);
    assert!(!found.is_empty(), "two streams write the same bytes");
}

#[test]
fn an_independent_scope_is_ordered_as_a_whole() {
    let mut seg = SegmentBuilder::new("s", None);
    let x = seg.scratch("x", DType::F32, &[8]);
    seg.compute(Unit::Vector, fill(1), &[part(x, 0, 8)], vec![], None);
    seg.independent(|seg| {
        for (unit, first) in [(Unit::Vector, 0), (Unit::Comm0, 2), (Unit::Matrix, 4)] {
            let operands = [part(x, first, 2), part(x, first, 2)];
            seg.compute(unit, add(1), &operands, vec![], None);
        }
        seg.compute(
            Unit::Comm0,
            add(1),
            &[part(x, 6, 2), part(x, 6, 2)],
            vec![],
            None,
        );
    });
    seg.compute(
        Unit::Comm1,
        add(1),
        &[part(x, 0, 8), part(x, 0, 8)],
        vec![],
        None,
    );
    let lives = seg.scratch_lives();
    assert_eq!((lives[0].first, lives[0].last), (0, 5));
    let segment = seg.finish().unwrap();
    let vector = segment
        .streams
        .iter()
        .find(|stream| stream.unit == Unit::Vector)
        .unwrap();
    let names: Vec<&str> = vector
        .code
        .iter()
        .map(|inst| inst.stmt.mnemonic())
        .collect();
    // The others wait for what came before the scope only.
    assert_eq!(names, ["fill", "signal", "signal", "view", "add", "signal"]);
    assert_eq!(violations(segment, &[]), [""; 0]);
}

#[test]
fn views_are_defined_once_in_the_body_that_uses_them() {
    let mut seg = SegmentBuilder::new("s", None);
    let x = seg.scratch("x", DType::F32, &[8]);
    let rows = seg.param("rows");
    assert_eq!(seg.param("rows"), rows);
    let of_loop = |counter: Var| Window {
        offset: Affine::var(counter).scale(8).unwrap(),
        ..part(x, 0, 2)
    };
    seg.compute(Unit::Vector, fill(0), &[part(x, 0, 8)], vec![], None);
    for _ in 0..2 {
        seg.repeat(Unit::Vector, Affine::var(rows), None, |seg, counter| {
            let operands = [of_loop(counter), of_loop(counter)];
            seg.compute(Unit::Vector, add(1), &operands, vec![], None);
            seg.compute(Unit::Vector, add(2), &operands, vec![], None);
        });
    }
    seg.repeat(Unit::Vector, Affine::constant(3), None, |_, _| ());
    let segment = seg.finish().unwrap();
    assert_eq!(segment.views.len(), 2, "one per loop");
    assert_eq!(
        segment.streams[0].code.len(),
        1 + 2 * (1 + 3),
        "the empty loop is left out"
    );
    assert_eq!(violations(segment.clone(), &[4]), [""; 0]);
    assert!(
        !violations(segment, &[5]).is_empty(),
        "the fifth row is out of bounds"
    );
}

#[test]
fn what_a_loop_uses_lives_in_all_of_it() {
    let mut seg = SegmentBuilder::new("s", None);
    let [x, y, z] = ["x", "x", "x"].map(|name| seg.scratch(name, DType::F32, &[2]));
    assert_eq!(&*seg.buffers()[z].name, "x_2");
    let whole = |buffer| part(buffer, 0, 2);
    seg.compute(Unit::Vector, fill(0), &[whole(x)], vec![], None);
    seg.repeat(Unit::Vector, Affine::constant(2), None, |seg, _| {
        seg.compute(Unit::Vector, add(1), &[whole(y), whole(x)], vec![], None);
        seg.compute(Unit::Vector, add(1), &[whole(x), whole(y)], vec![], None);
    });
    seg.compute(Unit::Vector, add(1), &[whole(z), whole(x)], vec![], None);
    let lives = seg.scratch_lives();
    let spans: Vec<_> = lives
        .iter()
        .map(|life| (life.first, life.last, life.bytes))
        .collect();
    assert_eq!(spans, [(0, 3, 8), (1, 2, 8), (3, 3, 8)]);
    assert_eq!(seg.scratch_peak(), 16);
}

#[test]
fn mistakes_show_at_the_end() {
    let mut seg = SegmentBuilder::new("s", None);
    let x = seg.scratch("x", DType::F32, &[2]);
    seg.repeat(Unit::Vector, Affine::constant(2), None, |seg, _| {
        seg.compute(Unit::Matrix, fill(1), &[part(x, 0, 2)], vec![], None);
    });
    let message = seg.finish().unwrap_err().to_string();
    assert_eq!(message, "the unit changes inside of a loop");
}
