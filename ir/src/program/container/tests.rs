use super::*;
use crate::diag::Loc;
use crate::program::instr::{Ref, vector};
use crate::program::{
    Buffer, BufferRole, CoreBox, Entry, Home, IndexExpr, Inst, Instr, Packing, Recipe, RecipeNode,
    Region, Segment, Shard, Span, StateInit, Step, Stmt, Stream, TensorDecl, TensorKind, Unit, Var,
};

fn tensor(name: &str, kind: TensorKind, region: super::super::RegionId) -> TensorDecl {
    TensorDecl {
        name: name.into(),
        kind,
        dtype: DType::F32,
        shape: vec![Affine::constant(16)],
        shards: vec![Shard {
            home: Home::Sram {
                on: region,
                at: IndexExpr::constant(0),
            },
            slice: vec![(IndexExpr::constant(0), IndexExpr::constant(16))],
            strides: vec![4],
            packing: Packing::Strided,
        }],
        loc: None,
    }
}

fn sample() -> Program {
    let mut program = Program {
        name: "negate".into(),
        dims: vec![("n".into(), 300)],
        ..Program::default()
    };
    program.machine.name = "mesh4x4".into();
    let region = program.regions.push(Region {
        name: "all".into(),
        boxes: vec![CoreBox {
            chips: Span::one(0),
            rows: Span::of(0, 2),
            columns: Span {
                start: 3,
                count: 2,
                step: -1,
            },
        }],
    });
    let loc = program.locs.push(Loc {
        name: "node".into(),
        file: "model.onnx".into(),
        line: 200,
    });
    let input = program.tensors.push(tensor("x", TensorKind::Input, region));
    let output = program
        .tensors
        .push(tensor("y", TensorKind::Output, region));
    let nan = crate::attr::F64(f64::from_bits(0x7ff8_0000_dead_beef));
    let recipe = Recipe {
        nodes: vec![RecipeNode::Splat {
            dtype: DType::F32,
            shape: vec![16],
            value: crate::attr::Number::Float(nan),
        }],
    };
    let state = TensorKind::State(StateInit::Recipe(recipe));
    program.tensors.push(tensor("s", state, region));
    let mut segment = Segment {
        name: "negate_all".into(),
        params: vec!["p".into()],
        ..Segment::default()
    };
    let mut buffer = |name: &str, at: i64, role| {
        segment.buffers.push(Buffer {
            name: name.into(),
            at: Affine::var(Var::Param(0))
                .add(&Affine::constant(at))
                .unwrap(),
            dtype: DType::F32,
            shape: vec![16],
            packing: Packing::Strided,
            role,
            loc: None,
        })
    };
    let x = Ref::Buffer(buffer("x", 0, BufferRole::In));
    let y = Ref::Buffer(buffer("y", 64, BufferRole::Out));
    let negate = vector::Map {
        function: vector::MapFunction::Neg,
    };
    segment.streams.push(Stream {
        unit: Unit::Vector,
        code: vec![Inst {
            stmt: Stmt::Compute {
                instr: Instr::from(negate),
                operands: vec![y, x],
                scalars: vec![],
            },
            loc: Some(loc),
        }],
    });
    let segment = program.segments.push(segment);
    program.entries.push(Entry {
        name: "main".into(),
        inputs: vec![input],
        outputs: vec![output],
        steps: vec![Step::Call {
            segment,
            on: region,
            row: vec![IndexExpr::constant(0)],
            loc: None,
        }],
    });
    program
}

fn code(result: Result<Program, Diagnostics>) -> u16 {
    let errors = result.unwrap_err().0;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].code.0
}

fn sections(program: &Program) -> [Vec<u8>; 2] {
    [to_bytes(&Identity::of(program)), to_bytes(program)]
}

#[test]
fn programs_survive_the_round_trip() {
    for program in [sample(), Program::default()] {
        let file = encode(&program);
        assert_eq!(decode(&file).unwrap(), program);
        assert_eq!(encode(&decode(&file).unwrap()), file);
    }
}

#[test]
fn the_identity_needs_only_the_beginning() {
    let file = encode(&sample());
    let whole = identity(&file).unwrap();
    assert_eq!(&*whole.name, "negate");
    assert_eq!(&*whole.entries[0].inputs[0].name, "x");
    assert_eq!(whole.entries[0].outputs[0].shape, [Affine::constant(16)]);
    let shortest = (0..file.len())
        .find(|end| identity(&file[..*end]).is_ok())
        .unwrap();
    assert!(shortest < file.len() / 2, "{shortest} of {}", file.len());
    assert_eq!(identity(&file[..shortest]).unwrap(), whole);
    assert_eq!(code(decode(&file[..shortest])), codes::DJX_DAMAGED);
}

#[test]
fn every_truncation_and_every_flipped_bit_is_found() {
    let file = encode(&sample());
    assert_eq!(code(decode(&[])), codes::NOT_A_DJX);
    for end in 1..file.len() {
        assert_eq!(
            code(decode(&file[..end])),
            codes::DJX_DAMAGED,
            "{end} bytes"
        );
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        let expected = match at {
            0..8 => codes::NOT_A_DJX,
            8..12 => codes::DJX_VERSION,
            _ => codes::DJX_DAMAGED,
        };
        assert_eq!(code(decode(&damaged)), expected, "byte {at}");
    }
    let longer = [&file[..], b"x"].concat();
    assert_eq!(code(decode(&longer)), codes::DJX_DAMAGED);
    assert_eq!(code(decode(b"dojo program 1\n")), codes::NOT_A_DJX);
}

/// Replaces bytes of the header and makes its checksum right again.
fn with_header(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = encode(&sample());
    file[at..at + bytes.len()].copy_from_slice(bytes);
    let hash = blake3::hash(&file[..HEADER - HASH]);
    file[HEADER - HASH..HEADER].copy_from_slice(hash.as_bytes());
    file
}

#[test]
fn forged_headers_are_refused() {
    for (at, bytes, expected) in [
        (TABLE, &[9][..], codes::DJX_MALFORMED),
        (TABLE + 4, &[1], codes::DJX_MALFORMED),
        (TABLE + 8, &[0; 8], codes::DJX_MALFORMED),
        (TABLE + 16, &[0xff; 8], codes::DJX_MALFORMED),
        (TABLE + ROW + 16, &[0xff; 8], codes::DJX_MALFORMED),
        (TABLE + ROW + 16, &[0xff; 7], codes::DJX_DAMAGED),
        (TABLE + ROW + 24, &[0; HASH], codes::DJX_DAMAGED),
        (12, &[0xff; 4], codes::DJX_DAMAGED),
    ] {
        assert_eq!(code(decode(&with_header(at, bytes))), expected, "{at}");
    }
    let mut none = MAGIC.to_vec();
    none.extend(FORMAT_VERSION.to_le_bytes());
    none.extend([0; 4]);
    none.extend(blake3::hash(&none).as_bytes());
    assert_eq!(code(decode(&none)), codes::DJX_MALFORMED);
}

#[test]
fn sections_are_read_in_one_way_only() {
    let [id, program] = sections(&sample());
    let malformed = |id: &[u8], program: &[u8]| code(decode(&seal(&[id.into(), program.into()])));
    let longer = [&program[..], &[0]].concat();
    assert_eq!(malformed(&id, &longer), codes::DJX_MALFORMED);
    assert_eq!(
        malformed(&id, &program[..program.len() - 1]),
        codes::DJX_MALFORMED
    );
    assert_eq!(malformed(&id, b""), codes::DJX_MALFORMED);
    // The name of another program, of the same length.
    let mut other = id.clone();
    other[1] ^= 1;
    assert_eq!(malformed(&other, &program), codes::DJX_MALFORMED);
    // The length of the name in two bytes where one is enough.
    assert_eq!(program[0], 6);
    let padded = [&[0x86, 0][..], &program[1..]].concat();
    assert_eq!(malformed(&id, &padded), codes::DJX_MALFORMED);
}

#[test]
fn lengths_that_nothing_follows_take_no_memory() {
    let [id, program] = sections(&sample());
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for at in 0..program.len() {
        let bytes = [&program[..at], &huge, &program[at + 1..]].concat();
        match decode(&seal(&[id.clone(), bytes])) {
            Ok(_) => {}
            Err(errors) => assert!(!errors.0.is_empty()),
        }
    }
}
