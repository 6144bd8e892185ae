use dojoc_ir::access::Tiling;
use dojoc_ir::machine::Machine;
use dojoc_ir::ops::{Conv, Dot, Op, Reduce, ReduceKind, ReduceWindow};
use dojoc_ir::program::{Segment, Stmt, Unit};

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

/// Cycles of the nest of an op as one block.
fn cycles(op: impl Into<Op>, types: &[Type]) -> f64 {
    let Tiling::Loop(access) = op.into().tiling(types) else {
        panic!("the op is a loop nest");
    };
    let extents = access.dims.iter().map(|dim| dim.extent.as_const().unwrap());
    let extents: Vec<u64> = extents.collect();
    let dtypes: Vec<DType> = types.iter().map(|ty| ty.dtype).collect();
    estimate(&access, &extents, &dtypes, &d1()).unwrap().cycles
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
    let batched = Dot {
        batch: vec![(0, 0), (1, 1)],
        contract: vec![(3, 2)],
        out: None,
    };
    let types = [bf16(&[2, 3, 32, 16]), bf16(&[2, 3, 16, 64])];
    assert_eq!(
        short(&whole(batched, &types), Unit::Matrix),
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

/// The product of two matrices along these dims.
fn dot(along: (usize, usize)) -> Dot {
    Dot {
        batch: vec![],
        contract: vec![along],
        out: None,
    }
}

#[test]
fn the_matrix_unit_is_busy_most_of_the_time() {
    let steps = |[m, n, k]: [u64; 3]| (m * n * k) as f64 / 256.0;
    for (a, b, along, least) in [
        ([128, 512], [512, 64], (1, 0), 0.8),
        ([128, 512], [64, 512], (1, 1), 0.8),
        ([512, 128], [512, 64], (0, 0), 0.6),
    ] {
        let busy = steps([128, 64, 512]) / cycles(dot(along), &[bf16(&a), bf16(&b)]);
        assert!(busy > least && busy < 1.0, "{busy}");
    }
    let types = [bf16(&[1, 64, 14, 14]), bf16(&[32, 64, 3, 3])];
    let busy = steps([196, 32, 576]) / cycles(conv(1, 1, 1), &types);
    assert!(busy > 0.6 && busy < 1.0, "{busy}");
}

#[test]
fn products_of_f32_keep_the_lanes_filled() {
    let f32 = |shape: &[u64]| Type::of(DType::F32, shape);
    let ideal = |[m, n, k]: [u64; 3]| (m * n * k) as f64 / 16.0;
    for (a, b, along) in [
        ([128, 512], [512, 64], (1, 0)),
        ([128, 512], [64, 512], (1, 1)),
        ([512, 128], [512, 64], (0, 0)),
        ([512, 128], [64, 512], (0, 1)),
    ] {
        let busy = ideal([128, 64, 512]) / cycles(dot(along), &[f32(&a), f32(&b)]);
        assert!(busy > 0.85 && busy < 1.0, "{busy}");
    }
    for stride in [1, 2] {
        let types = [f32(&[1, 64, 14, 14]), f32(&[32, 64, 3, 3])];
        let segment = whole(conv(stride, 1, 1), &types);
        assert_eq!(short(&segment, Unit::Matrix), "copy mm");
        let busy = ideal([196 / stride / stride, 32, 576]) / cycles(conv(stride, 1, 1), &types);
        assert!(busy > 0.7 && busy < 1.0, "{busy}");
    }
}

#[test]
fn estimates_count_iterations_and_scratch_memory() {
    let by_channels = |channels| {
        let types = [bf16(&[1, channels, 14, 14]), bf16(&[channels, 1, 3, 3])];
        cycles(conv(1, 1, channels), &types)
    };
    let (small, large) = (by_channels(32), by_channels(64));
    assert!(
        large > 1.8 * small && large < 2.2 * small,
        "{small} {large}"
    );
    let Tiling::Loop(access) =
        Op::from(conv(1, 1, 32)).tiling(&[bf16(&[1, 32, 14, 14]), bf16(&[32, 1, 3, 3])])
    else {
        panic!("a convolution is a loop nest");
    };
    let extents: Vec<u64> = access
        .dims
        .iter()
        .map(|dim| dim.extent.as_const().unwrap())
        .collect();
    let found = estimate(&access, &extents, &[DType::Bf16; 2], &d1()).unwrap();
    // Image with its border, weights and sums in f32, all alive during the sums.
    assert_eq!(found.scratch, 4 * (32 * 16 * 16 + 32 * 9 + 32 * 14 * 14));
}
