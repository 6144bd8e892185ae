//! The text form: every construct reads back, and every mistake is reported where it is.

mod mistakes;
mod random;

use super::instr::Ref;
use super::{
    Affine, Buffer, BufferId, BufferRole, Inst, Instr, Packing, Place, Program, Segment, Stmt,
    Stream, Unit, View, inst_line, parse,
};
use crate::entity::EntityId as _;

/// Every construct, in the layout of the printer.
const DEMO: &str = include_str!("demo.dojo");

fn read(text: &str) -> Program {
    parse(text)
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
        .0
}

/// Prints, reads and compares.
fn assert_reads_back(program: &Program) {
    let text = program.to_string();
    let again = read(&text);
    assert_eq!(again, *program, "{text}");
    assert_eq!(again.to_string(), text);
}

#[test]
fn every_construct_prints_as_it_was_read() {
    let program = read(DEMO);
    assert_eq!(program.to_string(), DEMO);
    assert_reads_back(&program);
    assert_eq!(program.dims.len(), 3);
    assert_eq!(program.machine.fingerprint, 0xbeef);
    assert_reads_back(&Program::default());
}

#[test]
fn the_formatter_changes_line_breaks_only() {
    let formatted = dojoc_grammar::format(DEMO).unwrap();
    assert_eq!(read(&formatted), read(DEMO));
    let short = "dojo program 1\n\nprogram @m {machine = \"mesh4x4\"} {\n  cores @a = [box(0, 0, 1)]\n\n  \
                 segment @s(%n : index) {\n    %b = buffer {at = 0} : f32[4]\n    vector (\n      { ^()\n        \
                 for {count = 2*%n} (\n          { ^(%i : index)\n            fill %b {value = 1.0}\n          \
                 }\n        )\n      }\n    )\n  }\n}\n";
    assert_eq!(read(short).to_string(), short);
    assert_eq!(dojoc_grammar::format(short).unwrap(), short);
}

#[test]
fn declarations_may_stand_in_any_order() {
    let program = read(
        "dojo program 1 program @m {machine = \"mesh4x4\"} {
           entry @main() {inputs = [], outputs = []} { call @s {on = @one, row = []} }
           segment @s() { comm0 ({ ^() send @c, %b }) %b = buffer {at = 0} : f32[4] matrix ({ ^() }) }
           channel @c {from = @one, to = @one, peer = at(@t, i)}
           table @t = [0]
           cores @one = [box(0, 0, 0)]
         }",
    );
    let segment = &program.segments.values().as_slice()[0];
    let units: Vec<Unit> = segment.streams.iter().map(|s| s.unit).collect();
    assert_eq!(units, [Unit::Matrix, Unit::Comm0]);
    assert_reads_back(&program);
}

#[test]
fn omitted_values_are_defaults() {
    let program = read(
        "dojo program 1 program @m {machine = \"mesh4x4\"} {
           cores @one = [box(0, 0, 0)]
           channel @c {from = @one, to = @one, peer = -i}
           dram @d {dip = 0, bytes = 64}
           segment @s(%n : index) {
             %b = buffer {at = 0, packing = \"packed8x4\"} : bf16[16, 8]
             comm0 ({ ^()
               %v = view %b {packing = \"packed8x4\"} : bf16[8, 8]
               send @c, %v
               dram.load %v, @d
               %w = view %b {offset = -2*(%n - 3) + %n*2, strides = [2]} : bf16[%n]
             })
           }
         }",
    );
    let segment = &program.segments.values().as_slice()[0];
    let [v, w] = segment.views.values().as_slice() else {
        panic!("two views")
    };
    assert_eq!(
        (v.strides.as_slice(), v.packing),
        ([128, 64].as_slice(), Packing::Packed8x4)
    );
    assert_eq!(w.offset, Affine::constant(6));
    let code = &segment.streams[0].code;
    assert!(matches!(&code[1].stmt, Stmt::Send { port, .. } if *port == Affine::default()));
    assert!(matches!(&code[2].stmt, Stmt::DramLoad { strides, .. } if *strides == [16, 2]));
    assert_eq!(program.families.values().as_slice()[0].peer.nodes.len(), 3);
    assert_reads_back(&program);
}

#[test]
fn statements_print_in_one_line_with_the_names_around_them() {
    let (program, map) = parse(DEMO).unwrap();
    let segment = super::SegmentId::from_index(1);
    let line = |stream, index| inst_line(&program, segment, stream, index);
    assert_eq!(line(1, 0), "for {count = 4} (...)");
    assert_eq!(
        line(1, 3),
        "%part = view %a {offset = 4*%i + 4*%j, strides = [-4, 0]} : f32[%first, 2 + batch]"
    );
    assert_eq!(line(1, 4), "add %v, %v, %v");
    assert_eq!(
        line(2, 6),
        "relay @tree, %a, @right {port = 1 + %q, to_port = sym(\"k\")}"
    );
    assert_eq!(line(2, 7), "wait %t");
    assert_eq!((line(9, 0), line(1, 99)), ("?".into(), "?".into()));
    assert_eq!(&DEMO[map[&Place::Inst(segment, 2, 6)].clone()], line(2, 6));
    assert_eq!(&DEMO[map[&Place::Inst(segment, 1, 0)].clone()], "for");
    let buffer = Place::Buffer(segment, BufferId::from_index(2));
    assert_eq!(
        &DEMO[map[&buffer].clone()],
        "%c = buffer {at = 64 - %\"4\", role = \"inout\"} : i32[1]"
    );
    let probe = Place::Step(super::EntryId::from_index(0), 4);
    assert_eq!(&DEMO[map[&probe].clone()], "probe @mid");
}

/// A segment with one instruction and an operand for each type.
fn sample_program(samples: &[(Instr, Vec<super::ViewType>)]) -> Program {
    let mut segment = Segment {
        name: "samples".into(),
        ..Segment::default()
    };
    segment.params = vec!["n".into()];
    segment.buffers.push(Buffer {
        name: "all".into(),
        at: Affine::constant(0),
        dtype: crate::types::DType::U8,
        shape: vec![1 << 16],
        packing: Packing::Strided,
        role: BufferRole::InOut,
        loc: None,
    });
    let mut code = vec![];
    for (instr, types) in samples {
        let mut operands = vec![];
        for ty in types {
            let id = segment.views.push(View {
                name: format!("v{}", segment.views.len()).into(),
                buffer: BufferId::from_index(0),
                offset: Affine::constant(64 * operands.len() as i64),
                dtype: ty.dtype,
                shape: ty
                    .shape
                    .iter()
                    .map(|d| Affine::constant(*d as i64))
                    .collect(),
                strides: ty.strides.clone(),
                packing: ty.packing,
            });
            code.push(Inst {
                stmt: Stmt::View(id),
                loc: None,
            });
            operands.push(Ref::View(id));
        }
        let names = instr.scalars();
        let scalars = names.iter().enumerate();
        let scalars = scalars.map(|(at, _)| Affine {
            constant: at as i64 - 1,
            terms: vec![(super::Var::Param(0), 3)],
        });
        let scalars = scalars.collect();
        let stmt = Stmt::Compute {
            instr: instr.clone(),
            operands,
            scalars,
        };
        code.push(Inst { stmt, loc: None });
    }
    segment.streams.push(Stream {
        unit: Unit::Matrix,
        code,
    });
    let mut program = Program {
        name: "samples".into(),
        ..Program::default()
    };
    program.segments.push(segment);
    program
}

#[test]
fn samples_of_all_instructions_read_back() {
    let samples = Instr::samples();
    for sample in &samples {
        assert_eq!(sample.0.roles().len(), sample.1.len(), "{sample:?}");
    }
    assert_reads_back(&sample_program(&samples));
}

#[test]
fn what_does_not_exist_prints_as_a_question_mark() {
    let mut program = read(DEMO);
    let loc = Some(super::LocId::from_index(99));
    let segment = super::SegmentId::from_index(1);
    let code = &mut program.segments[segment].streams[0].code;
    let stmts = [
        Stmt::View(super::ViewId::from_index(99)),
        Stmt::Signal(super::TokenId::from_index(99)),
        Stmt::Loop {
            name: "i".into(),
            count: Affine::var(super::Var::Loop(3)),
            len: u32::MAX,
        },
        Stmt::DramBegin(super::DramId::from_index(99)),
        Stmt::Send {
            family: super::FamilyId::from_index(99),
            port: Affine::var(super::Var::Dim(99)),
            from: Ref::Buffer(BufferId::from_index(99)),
        },
    ];
    code.extend(stmts.map(|stmt| Inst { stmt, loc }));
    let peer = super::IndexExpr {
        nodes: vec![super::IndexNode::Add(7, 8); 40],
    };
    program.families[super::FamilyId::from_index(0)].peer = peer;
    let recipe = super::Recipe { nodes: vec![] };
    program.tensors[super::TensorId::from_index(3)].kind = super::TensorKind::Weight(recipe);
    let text = program.to_string();
    for part in [
        "%? = view ? loc(?)",
        "signal %?",
        "count = %?",
        "dram.begin @?",
        "send @?, %? {port = ?}",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(parse(&text).is_err());
}

#[test]
fn shared_nodes_do_not_explode() {
    let mut program = read(DEMO);
    let mut nodes = vec![super::IndexNode::Const(1)];
    nodes.extend((0..200).map(|at| super::IndexNode::Add(at, at)));
    program.families[super::FamilyId::from_index(0)].peer = super::IndexExpr { nodes };
    assert!(program.to_string().len() < 1 << 24);
}
