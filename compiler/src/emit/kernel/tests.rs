use dojoc_ir::access::Tiling;
use dojoc_ir::machine::Machine;
use dojoc_ir::ops::{Conv, Dot, Op, Reduce, ReduceKind, ReduceWindow};
use dojoc_ir::program::instr::Cost;
use dojoc_ir::program::{Env, Segment, Stmt, Unit};

use super::*;

/// The nest of an op as one block with dense operands in memory.
fn whole(op: impl Into<Op>, types: &[Type]) -> Segment {
    limited(op, types, 128 << 10)
}

/// The same with a limit for operands that are rearranged.
fn limited(op: impl Into<Op>, types: &[Type], limit: u64) -> Segment {
    let Tiling::Loop(access) = op.into().tiling(types) else {
        panic!("the op is a loop nest");
    };
    let zero = || Affine::constant(0);
    let block = access.dims.iter().map(|dim| {
        let max = dim.extent.as_const().unwrap();
        BlockDim {
            start: zero(),
            count: Affine::constant(max as i64),
            max,
        }
    });
    let block: Vec<BlockDim> = block.collect();
    let mut seg = SegmentBuilder::new("s", None);
    seg.limit_rearranged(limit);
    let mut local = |dtype: DType, index: &[access::Affine]| {
        let extents = index.iter().map(|map| {
            let reach = |(dim, c): &(usize, i64)| c.unsigned_abs() * (block[*dim].max - 1);
            1 + map.terms.iter().map(reach).sum::<u64>()
        });
        let extents: Vec<u64> = extents.collect();
        let strides = dense_strides(dtype, &extents, Packing::Strided).unwrap();
        let elements = extents.iter().product();
        let buffer = seg.buffer("x", dtype, &[elements], BufferRole::InOut, None);
        Local {
            buffer,
            dtype,
            offset: zero(),
            strides,
            valid: None,
        }
    };
    let reads = access.operands.iter().zip(types);
    let operands: Vec<Local> = reads
        .map(|(read, ty)| local(ty.dtype, &read.index))
        .collect();
    let writes = access.results.iter();
    let results: Vec<Local> = writes
        .map(|write| local(write.dtype, &write.index))
        .collect();
    emit(&access, &block, &operands, &results, &mut seg, None).unwrap();
    seg.finish().unwrap()
}

/// The statements of a stream in short: `for 3 {fma}`.
fn short(segment: &Segment, unit: Unit) -> String {
    let stream = segment.streams.iter().find(|stream| stream.unit == unit);
    let code = stream.map_or(&[][..], |stream| &stream.code);
    let mut words = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    for (at, inst) in code.iter().enumerate() {
        while ends.last() == Some(&at) {
            ends.pop();
            words.push("}".to_string());
        }
        match &inst.stmt {
            Stmt::View(_) | Stmt::Signal(_) | Stmt::Wait(_) => {}
            Stmt::Loop { count, len, .. } => {
                words.push(format!("for {} {{", count.as_constant().unwrap()));
                ends.push(at + 1 + *len as usize);
            }
            stmt => words.push(stmt.mnemonic().to_string()),
        }
    }
    words.extend(ends.iter().map(|_| "}".to_string()));
    words.join(" ")
}

/// Cycles of all instructions of a unit one after the other.
fn cycles(segment: &Segment, unit: Unit, machine: &Machine) -> f64 {
    let stream = segment.streams.iter().find(|stream| stream.unit == unit);
    let code = stream.map_or(&[][..], |stream| &stream.code);
    let mut total = 0.0;
    let mut open: Vec<(usize, f64)> = Vec::new();
    for (at, inst) in code.iter().enumerate() {
        open.retain(|(end, _)| *end > at);
        let times: f64 = open.iter().map(|(_, times)| times).product();
        match &inst.stmt {
            Stmt::Loop { count, len, .. } => {
                open.push((at + 1 + *len as usize, count.as_constant().unwrap() as f64));
            }
            Stmt::Compute {
                instr, operands, ..
            } => {
                let loops = vec![0; open.len()];
                let env = Env {
                    loops: &loops,
                    ..Env::default()
                };
                let types = operands
                    .iter()
                    .map(|x| segment.resolve(*x, &env).unwrap().1);
                let cost: Cost = instr.cost(&types.collect::<Vec<_>>(), machine);
                total += times * cost.alone(machine);
            }
            _ => {}
        }
    }
    total
}

fn d1() -> Machine {
    Machine::parse(Machine::builtin("d1").unwrap(), "d1").unwrap()
}

fn conv(stride: u64, pad: i64, groups: u64) -> Conv {
    Conv {
        stride: vec![stride; 2],
        pad: vec![(pad, pad); 2],
        dilation: vec![1; 2],
        groups,
        out: None,
    }
}

fn bf16(shape: &[u64]) -> Type {
    Type::of(DType::Bf16, shape)
}

fn pool(stride: u64) -> ReduceWindow {
    ReduceWindow {
        kind: ReduceKind::Max,
        window: vec![3; 2],
        stride: vec![stride; 2],
        dilation: vec![1; 2],
        pad: vec![(1, 1); 2],
    }
}

#[test]
fn a_convolution_is_one_product() {
    for stride in [1, 2] {
        let types = [bf16(&[1, 64, 14, 14]), bf16(&[32, 64, 3, 3])];
        let segment = whole(conv(stride, 1, 1), &types);
        // The weights are put into blocks first.
        assert_eq!(short(&segment, Unit::Matrix), "copy mm");
        assert_eq!(short(&segment, Unit::Vector), "");
        let small = limited(conv(stride, 1, 1), &types, 1 << 10);
        assert_eq!(short(&small, Unit::Matrix), "mm");
    }
}

#[test]
fn batches_and_what_views_have_no_room_for_are_loops() {
    let types = [bf16(&[4, 8, 16, 16]), bf16(&[16, 8, 3, 3])];
    let segment = whole(conv(1, 1, 1), &types);
    assert_eq!(short(&segment, Unit::Matrix), "for 4 { copy mm }");
    let dot = Dot {
        batch: vec![(0, 0), (1, 1)],
        contract: vec![(3, 2)],
        out: None,
    };
    let types = [bf16(&[2, 3, 32, 16]), bf16(&[2, 3, 16, 64])];
    assert_eq!(
        short(&whole(dot, &types), Unit::Matrix),
        "for 6 { copy mm }"
    );
}

#[test]
fn a_convolution_by_channels_is_vector_code_in_f32() {
    let types = [bf16(&[1, 32, 14, 14]), bf16(&[32, 1, 3, 3])];
    let segment = whole(conv(1, 1, 32), &types);
    let vector = short(&segment, Unit::Vector);
    assert_eq!(
        vector,
        "convert convert fill for 3 { for 3 { fma } } convert"
    );
}

#[test]
fn windows_are_combined_along_lanes() {
    // Windows that lie next to each other; those of a stride of 2 do not.
    let pooled = short(&whole(pool(1), &[bf16(&[1, 8, 28, 28])]), Unit::Vector);
    assert_eq!(pooled, "fill for 3 { for 3 { max } }");
    let pooled = short(&whole(pool(2), &[bf16(&[1, 8, 28, 28])]), Unit::Vector);
    assert_eq!(pooled, "reduce.max");
    let columns = Reduce {
        kind: ReduceKind::Sum,
        axes: vec![0],
        keep: false,
    };
    let columns = short(&whole(columns, &[bf16(&[16, 256])]), Unit::Vector);
    assert_eq!(columns, "fill for 16 { convert add } convert");
    let rows = Reduce {
        kind: ReduceKind::Sum,
        axes: vec![1],
        keep: false,
    };
    assert_eq!(
        short(&whole(rows, &[bf16(&[16, 256])]), Unit::Vector),
        "reduce.sum"
    );
}

#[test]
fn the_matrix_unit_is_busy_most_of_the_time() {
    let machine = d1();
    let busy = |segment: &Segment, [m, n, k]: [u64; 3]| {
        let steps = (m * n * k) as f64 / 256.0;
        steps / cycles(segment, Unit::Matrix, &machine)
    };
    let dot = |a: &[u64], b: &[u64], contract| {
        whole(
            Dot {
                batch: vec![],
                contract: vec![contract],
                out: None,
            },
            &[bf16(a), bf16(b)],
        )
    };
    let extents = [128, 64, 512];
    for (segment, least) in [
        (dot(&[128, 512], &[512, 64], (1, 0)), 0.8),
        (dot(&[128, 512], &[64, 512], (1, 1)), 0.8),
        (dot(&[512, 128], &[512, 64], (0, 0)), 0.6),
    ] {
        let found = busy(&segment, extents);
        assert!(found > least, "{found}");
    }
    let types = [bf16(&[1, 64, 14, 14]), bf16(&[32, 64, 3, 3])];
    let found = busy(&whole(conv(1, 1, 1), &types), [196, 32, 576]);
    assert!(found > 0.6, "{found}");
}

#[test]
fn products_of_f32_keep_the_lanes_filled() {
    let machine = d1();
    let f32 = |shape: &[u64]| Type::of(DType::F32, shape);
    let busy = |segment: &Segment, [m, n, k]: [u64; 3]| {
        (m * n * k) as f64 / 16.0 / cycles(segment, Unit::Matrix, &machine)
    };
    let dot = |a: &[u64], b: &[u64], contract| {
        whole(
            Dot {
                batch: vec![],
                contract: vec![contract],
                out: None,
            },
            &[f32(a), f32(b)],
        )
    };
    let extents = [128, 64, 512];
    for segment in [
        dot(&[128, 512], &[512, 64], (1, 0)),
        dot(&[128, 512], &[64, 512], (1, 1)),
        dot(&[512, 128], &[512, 64], (0, 0)),
        dot(&[512, 128], &[64, 512], (0, 1)),
    ] {
        let found = busy(&segment, extents);
        assert!(found > 0.85, "{found}");
    }
    for stride in [1, 2] {
        let types = [f32(&[1, 64, 14, 14]), f32(&[32, 64, 3, 3])];
        let segment = whole(conv(stride, 1, 1), &types);
        assert_eq!(short(&segment, Unit::Matrix), "copy mm");
        let found = busy(&segment, [196 / stride / stride, 32, 576]);
        assert!(found > 0.7, "{found}");
    }
}
