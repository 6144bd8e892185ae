//! What the compiler emits for blocks of ops on one core, compared with the ops' reference.

use std::collections::BTreeMap;

use dojoc_ir::access::{Access, DimKind};
use dojoc_ir::ops::{Conv, Dot, Op, Reduce, ReduceKind, ReduceWindow, Sample};
use dojoc_ir::types::{DType, Type};
use dojoc_tests::identities;
use dojoc_tests::kernels::{
    Case, Failure, Range, Rule, cases, close, expected_block, fills_boxes, run_block, run_kernel,
    whole,
};

/// All ops without inner structure in the samples of all ops, each once.
fn all_cases() -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    let only = std::env::var("DOJOC_KERNEL").unwrap_or_default();
    for (seed, sample) in Op::samples().iter().enumerate() {
        // What the reference refuses and what has regions is not for one core.
        let found = cases(sample, seed as u64).unwrap_or_default();
        all.extend(found.into_iter().filter(|case| case.label.contains(&only)));
    }
    all
}

fn run_whole(case: &Case, machine: &dojoc_ir::machine::Machine) -> Result<(), Failure> {
    let found = match &case.rule {
        Rule::Loop(access) => {
            let block = whole(access).map_err(Failure::Broken)?;
            run_block(access, &case.args, &block, machine)?
        }
        Rule::Kernel(function) => {
            let results: Vec<_> = case.expected.iter().map(|tensor| tensor.ty()).collect();
            run_kernel(*function, &case.args, &results, machine)?
        }
    };
    close(&found, &case.expected, &case.expected, case.tolerance).map_err(Failure::Broken)
}

#[test]
fn whole_ops_on_one_core_agree_with_their_reference() {
    let machine = identities::machine("mesh4x4").unwrap();
    let mut unsupported: BTreeMap<String, usize> = BTreeMap::new();
    let (mut broken, mut right) = (Vec::new(), 0);
    for case in all_cases() {
        match run_whole(&case, &machine) {
            Ok(()) => right += 1,
            Err(Failure::Unsupported(reason)) => {
                let op = case.label.split(' ').next().unwrap_or_default();
                *unsupported.entry(format!("{op}: {reason}")).or_default() += 1;
            }
            Err(Failure::Broken(message)) => broken.push(format!("{}: {message}", case.label)),
        }
    }
    assert!(
        broken.is_empty(),
        "{} of {}:\n{}",
        broken.len(),
        right,
        broken.join("\n\n")
    );
    let list = unsupported
        .iter()
        .map(|(reason, count)| format!("{count} x {reason}\n"));
    let list = format!("{right} right\n\n{}", list.collect::<String>());
    if std::env::var("DOJOC_KERNEL").is_err() {
        insta::assert_snapshot!("unsupported", list);
    }
}

/// Ops of the extents that blocks of networks have.
fn larger() -> Vec<Sample> {
    let conv = |dtype, x: &[u64], w: &[u64], stride: u64, groups| {
        let op = Conv {
            stride: vec![stride; 2],
            pad: vec![(1, 1); 2],
            dilation: vec![1; 2],
            groups,
            out: None,
        };
        Sample::new(op, &[Type::of(dtype, x), Type::of(dtype, w)])
    };
    let dot = |dtype, a: &[u64], b: &[u64], batch: &[(usize, usize)], contract| {
        let op = Dot {
            batch: batch.to_vec(),
            contract: vec![contract],
            out: None,
        };
        Sample::new(op, &[Type::of(dtype, a), Type::of(dtype, b)])
    };
    let pool = |kind, stride: u64| {
        let op = ReduceWindow {
            kind,
            window: vec![3; 2],
            stride: vec![stride; 2],
            dilation: vec![1; 2],
            pad: vec![(1, 1); 2],
        };
        Sample::new(op, &[Type::of(DType::Bf16, &[2, 4, 15, 15])])
    };
    let reduce = |dtype, shape: &[u64], axis| {
        let op = Reduce {
            kind: ReduceKind::Sum,
            axes: vec![axis],
            keep: false,
        };
        Sample::new(op, &[Type::of(dtype, shape)])
    };
    let mut samples = vec![pool(ReduceKind::Max, 1), pool(ReduceKind::Max, 2)];
    samples.extend([pool(ReduceKind::Sum, 1), pool(ReduceKind::Sum, 2)]);
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        for stride in [1, 2] {
            samples.push(conv(dtype, &[1, 16, 14, 14], &[24, 16, 3, 3], stride, 1));
            samples.push(conv(dtype, &[2, 12, 9, 9], &[12, 1, 3, 3], stride, 12));
            samples.push(conv(dtype, &[2, 12, 9, 9], &[18, 6, 3, 3], stride, 2));
        }
        samples.push(dot(
            dtype,
            &[2, 3, 33, 16],
            &[2, 3, 16, 21],
            &[(0, 0), (1, 1)],
            (3, 2),
        ));
        samples.push(dot(
            dtype,
            &[2, 33, 3, 16],
            &[2, 21, 3, 16],
            &[(0, 0), (2, 2)],
            (3, 3),
        ));
        samples.push(dot(dtype, &[61, 130], &[130, 47], &[], (1, 0)));
        samples.push(dot(dtype, &[61, 130], &[47, 130], &[], (1, 1)));
        samples.push(dot(dtype, &[130, 61], &[130, 47], &[], (0, 0)));
        samples.push(dot(dtype, &[1, 130], &[300, 130], &[], (1, 1)));
        samples.push(reduce(dtype, &[40, 66], 0));
        samples.push(reduce(dtype, &[40, 66], 1));
    }
    samples.push(dot(DType::I32, &[20, 30], &[30, 10], &[], (1, 0)));
    samples
}

#[test]
fn larger_blocks_agree_with_their_reference() {
    let machine = identities::machine("mesh4x4").unwrap();
    let mut broken = Vec::new();
    for (seed, sample) in larger().iter().enumerate() {
        for case in cases(sample, seed as u64).unwrap() {
            if let Err(failure) = run_whole(&case, &machine) {
                broken.push(format!("{}: {failure:?}", case.label));
            }
            let Rule::Loop(access) = &case.rule else {
                continue;
            };
            for block in splits(access).unwrap() {
                if !fills_boxes(access, &block) {
                    continue;
                }
                let expected = expected_block(access, &case.expected, &block).unwrap();
                let found = run_block(access, &case.args, &block, &machine);
                let outcome = found.and_then(|found| {
                    close(&found, &expected, &case.expected, case.tolerance)
                        .map_err(Failure::Broken)
                });
                if let Err(failure) = outcome {
                    broken.push(format!("{}, {block:?}: {failure:?}", case.label));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

/// Blocks that split one parallel loop in three, or all in two, unevenly.
fn splits(access: &Access) -> Result<Vec<Vec<Range>>, String> {
    let all = whole(access)?;
    let parallel: Vec<usize> = (0..all.len())
        .filter(|dim| access.dims[*dim].kind == DimKind::Parallel && all[*dim].count > 1)
        .collect();
    let pieces = |range: Range, parts: u64| {
        let max = range.count.div_ceil(parts);
        let starts = (0..parts).map(move |part| (part * max).min(range.count));
        let pieces = starts.map(move |start| {
            let count = max.min(range.count - start);
            Range { start, count, max }
        });
        pieces
            .filter(|piece| piece.count > 0)
            .collect::<Vec<Range>>()
    };
    let mut blocks = Vec::new();
    for dim in &parallel {
        for piece in pieces(all[*dim], 3) {
            let mut block = all.clone();
            block[*dim] = piece;
            blocks.push(block);
        }
    }
    let mut corners = vec![all.clone()];
    for dim in &parallel {
        let of_dim = pieces(all[*dim], 2);
        corners = corners
            .iter()
            .flat_map(|block| {
                of_dim.iter().map(|piece| {
                    let mut block = block.clone();
                    block[*dim] = *piece;
                    block
                })
            })
            .collect();
    }
    // The first and the last are those that differ most.
    let last = corners.len().saturating_sub(1);
    corners.dedup();
    blocks.extend([corners[0].clone(), corners[last].clone()]);
    blocks.dedup();
    Ok(blocks)
}

#[test]
fn blocks_of_ops_make_up_the_whole() {
    let machine = identities::machine("mesh4x4").unwrap();
    let (mut broken, mut right) = (Vec::new(), 0);
    let mut seen = BTreeMap::<String, usize>::new();
    for case in all_cases() {
        let Rule::Loop(access) = &case.rule else {
            continue;
        };
        // A few of each op are enough.
        let op = case.label.split(' ').next().unwrap_or_default().to_string();
        let times = seen.entry(op).or_default();
        *times += 1;
        let few = access.dims.iter().all(|dim| dim.kind == DimKind::Parallel);
        if few && *times > 4 {
            continue;
        }
        for block in splits(access).unwrap() {
            if !fills_boxes(access, &block) {
                continue;
            }
            let expected = expected_block(access, &case.expected, &block);
            let found = run_block(access, &case.args, &block, &machine);
            let outcome = match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    close(&found, &expected, &case.expected, case.tolerance)
                        .map_err(Failure::Broken)
                }
                (Err(failure), _) | (_, Err(failure)) => Err(failure),
            };
            match outcome {
                Ok(()) => right += 1,
                Err(Failure::Unsupported(_)) => {}
                Err(Failure::Broken(message)) => {
                    broken.push(format!("{}, {block:?}: {message}", case.label));
                }
            }
        }
    }
    assert!(
        broken.is_empty(),
        "{} of {}:\n{}",
        broken.len(),
        right,
        broken.join("\n\n")
    );
    assert!(
        right > 500 || std::env::var("DOJOC_KERNEL").is_ok(),
        "{right} blocks"
    );
}
