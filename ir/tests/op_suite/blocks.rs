//! Blocks of loop nests: computed whole, split and put together, they are what the rule says.

use std::ops::Range;

use crate::common::{describe, fill};
use dojoc_ir::access::block::{self, Block, Bounds, clip, evaluate, operand_box, volume};
use dojoc_ir::access::{Access, Combine, DimKind, Tiling, interpret};
use dojoc_ir::ops::Op;
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::{Tensor, indices, ravel};
use dojoc_ir::types::{DType, Type};
use rand::SeedableRng as _;
use rand_pcg::Pcg64;

/// All samples whose rule is a loop nest, with operands.
fn nests() -> Vec<(String, Access, Vec<Tensor>)> {
    let mut nests = vec![];
    for (number, sample) in Op::samples().into_iter().enumerate() {
        let types: Vec<Type> = sample.args.iter().map(|a| a.ty.clone()).collect();
        if let Tiling::Loop(access) = sample.op.tiling(&types) {
            let args = fill(&sample, &mut Pcg64::seed_from_u64(number as u64));
            nests.push((describe(&sample), access, args));
        }
    }
    assert!(nests.len() > 100);
    nests
}

fn whole(access: &Access) -> Vec<Range<u64>> {
    let extent = |d: &dojoc_ir::access::LoopDim| {
        0..d.extent.as_const().expect("samples have constant extents")
    };
    access.dims.iter().map(extent).collect()
}

/// Evaluates on blocks that hold what is read and nothing else.
fn compute(access: &Access, ranges: &[Range<u64>], args: &[Tensor]) -> Result<Vec<Block>, String> {
    let blocks = args.iter().enumerate().map(|(n, arg)| {
        let bounds = clip(
            &operand_box(access, n, ranges).expect("offsets are constant"),
            arg.shape(),
        );
        Block::whole(arg.clone())
            .part(&bounds)
            .expect("the box is clipped")
    });
    let blocks: Vec<Block> = blocks.collect();
    let shapes: Vec<Vec<u64>> = args.iter().map(|a| a.shape().to_vec()).collect();
    evaluate(access, ranges, &blocks, &shapes)
}

/// The two or three parts of a loop, of different lengths.
fn parts(range: &Range<u64>) -> Vec<Range<u64>> {
    let middle = range.start + (range.end - range.start) / 3 + 1;
    let last = middle + (range.end - middle.min(range.end)) / 2;
    [range.start..middle, middle..last, last..range.end]
        .into_iter()
        .filter(|r| !r.is_empty() && r.end <= range.end)
        .collect()
}

fn bounds_of(tensor: &Tensor) -> Bounds {
    tensor.shape().iter().map(|e| 0..*e as i64).collect()
}

/// The result from parts that hold its elements.
fn together(expected: &Tensor, parts: &[Block]) -> Tensor {
    Block::gather(expected.dtype(), &bounds_of(expected), parts)
        .expect("parts fit into memory")
        .data
}

#[test]
fn the_whole_is_what_the_rule_says() {
    for (label, access, args) in nests() {
        let expected = interpret(&access, &args).unwrap();
        let found =
            compute(&access, &whole(&access), &args).unwrap_or_else(|e| panic!("{label}: {e}"));
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.bounds(), bounds_of(expected), "{label}");
            assert_eq!(&found.data, expected, "{label}");
        }
    }
}

#[test]
fn parts_of_parallel_loops_put_together_are_the_whole() {
    let mut split = 0;
    for (label, access, args) in nests() {
        let expected = interpret(&access, &args).unwrap();
        for (dim, info) in access.dims.iter().enumerate() {
            let mut ranges = whole(&access);
            let pieces = parts(&ranges[dim]);
            if info.kind != DimKind::Parallel || pieces.len() < 2 {
                continue;
            }
            let mut found: Vec<Vec<Block>> = vec![vec![]; expected.len()];
            for piece in pieces {
                ranges[dim] = piece;
                let blocks = compute(&access, &ranges, &args)
                    .unwrap_or_else(|e| panic!("{label}, {ranges:?}: {e}"));
                for (all, block) in found.iter_mut().zip(blocks) {
                    all.push(block);
                }
            }
            // A group of channels is not a box: its parts leave elements to other parts.
            let size = |blocks: &[Block]| blocks.iter().map(|b| volume(&b.bounds())).sum::<u128>();
            for (found, expected) in found.iter().zip(&expected) {
                if size(found) == expected.len() as u128 {
                    assert_eq!(&together(expected, found), expected, "{label}, loop {dim}");
                    split += 1;
                }
            }
        }
    }
    assert!(split > 300, "{split}");
}

#[test]
fn all_parallel_loops_may_be_split_at_once() {
    for (label, access, args) in nests() {
        let expected = interpret(&access, &args).unwrap();
        let ranges = whole(&access);
        let pieces: Vec<Vec<Range<u64>>> = ranges
            .iter()
            .zip(&access.dims)
            .map(|(range, info)| match info.kind {
                DimKind::Parallel if !range.is_empty() => parts(range),
                _ => vec![range.clone()],
            })
            .collect();
        let counts: Vec<u64> = pieces.iter().map(|p| p.len() as u64).collect();
        let mut found: Vec<Vec<Block>> = vec![vec![]; expected.len()];
        for choice in indices(&counts) {
            let chosen = choice.iter().zip(&pieces);
            let ranges: Vec<_> = chosen.map(|(n, p)| p[*n as usize].clone()).collect();
            let blocks =
                compute(&access, &ranges, &args).unwrap_or_else(|e| panic!("{label}: {e}"));
            for (all, block) in found.iter_mut().zip(blocks) {
                all.push(block);
            }
        }
        for (found, expected) in found.iter().zip(&expected) {
            let size = found.iter().map(|b| volume(&b.bounds())).sum::<u128>();
            if size == expected.len() as u128 {
                assert_eq!(&together(expected, found), expected, "{label}");
            }
        }
    }
}

#[test]
fn parts_of_reductions_combine_to_the_whole() {
    let mut split = 0;
    for (label, access, args) in nests() {
        let Combine::Reduce(monoid, dtype) = &access.combine else {
            continue;
        };
        let expected = interpret(&access, &args).unwrap();
        for (dim, info) in access.dims.iter().enumerate() {
            let mut ranges = whole(&access);
            if info.kind != DimKind::Reduction || monoid.arity() != access.results.len() {
                continue;
            }
            let mut found: Option<Vec<Tensor>> = None;
            for piece in parts(&ranges[dim]) {
                ranges[dim] = piece;
                let part: Vec<Tensor> = compute(&access, &ranges, &args)
                    .unwrap_or_else(|e| panic!("{label}, {ranges:?}: {e}"))
                    .into_iter()
                    .map(|b| b.data)
                    .collect();
                found = Some(match found {
                    None => part,
                    Some(left) => combined(&left, &part, |a, b| monoid.combine(*dtype, a, b)),
                });
                split += 1;
            }
            for (found, expected) in found.iter().flatten().zip(&expected) {
                let scale = expected
                    .to_f64s()
                    .into_iter()
                    .fold(1.0, |m, x| x.abs().max(m));
                let step = match expected.dtype() {
                    DType::Bf16 => 1.0 / 64.0,
                    DType::F16 => 1.0 / 512.0,
                    d if d.is_float() => 1e-5,
                    _ => 0.0,
                };
                for (f, e) in found.to_f64s().into_iter().zip(expected.to_f64s()) {
                    let same = f == e || (f.is_nan() && e.is_nan());
                    assert!(
                        same || (f - e).abs() <= step * scale,
                        "{label}: {f} for {e}"
                    );
                }
            }
        }
    }
    assert!(split > 100, "{split}");
}

fn combined(
    left: &[Tensor],
    right: &[Tensor],
    combine: impl Fn(&[Scalar], &[Scalar]) -> Vec<Scalar>,
) -> Vec<Tensor> {
    let at = |tensors: &[Tensor], n: usize| tensors.iter().map(|t| t.get(n)).collect::<Vec<_>>();
    let rows: Vec<Vec<Scalar>> = (0..left[0].len())
        .map(|n| combine(&at(left, n), &at(right, n)))
        .collect();
    left.iter()
        .enumerate()
        .map(|(component, t)| {
            let values = rows.iter().map(|row| row[component].convert(t.dtype()));
            Tensor::from_scalars(t.dtype(), t.shape(), values)
        })
        .collect()
}

#[test]
fn sums_with_infinities_do_not_meet_the_padding() {
    let (_, access, mut args) = nests()
        .into_iter()
        .find(|(label, ..)| {
            label.starts_with("conv {stride = [1, 1], pad = [[1, 1], [1, 1]]")
                || label.starts_with("conv ")
        })
        .unwrap();
    args[1] = Tensor::splat(DType::F32, args[1].shape(), Scalar::F32(f32::INFINITY));
    args[0] = Tensor::splat(DType::F32, args[0].shape(), Scalar::F32(1.0));
    let expected = interpret(&access, &args).unwrap();
    assert!(expected[0].to_f64s().iter().all(|x| *x == f64::INFINITY));
    let found = compute(&access, &whole(&access), &args).unwrap();
    assert_eq!(found[0].data, expected[0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_, access, args) = nests()
        .into_iter()
        .find(|(label, ..)| label.starts_with("dot "))
        .unwrap();
    let ranges = whole(&access);
    let shapes: Vec<Vec<u64>> = args.iter().map(|a| a.shape().to_vec()).collect();
    let blocks: Vec<Block> = args.iter().cloned().map(Block::whole).collect();
    assert!(evaluate(&access, &ranges, &blocks, &shapes).is_ok());
    assert!(
        evaluate(&access, &ranges[1..], &blocks, &shapes).is_err(),
        "a loop less"
    );
    assert!(
        evaluate(&access, &ranges, &blocks[1..], &shapes).is_err(),
        "an operand less"
    );
    let mut beyond = ranges.clone();
    beyond[0].end += 1;
    assert!(
        evaluate(&access, &beyond, &blocks, &shapes).is_err(),
        "an iteration more"
    );
    let mut less = blocks.clone();
    less[0] = less[0].part(&[0..3, 1..5]).unwrap();
    let error = evaluate(&access, &ranges, &less, &shapes).unwrap_err();
    assert_eq!(
        error,
        "operand 0 is read at [0..3, 0..5], the block holds [0..3, 1..5]"
    );
    assert!(less[0].part(&[0..3, 0..2]).is_err());
}

#[test]
fn boxes_are_copied_where_they_meet() {
    let tensor = Tensor::from_vec(&[3, 4], (0..12).collect::<Vec<i32>>());
    let block = Block::whole(tensor);
    let right = block.part(&[1..3, 2..4]).unwrap();
    assert_eq!(right.data.to_i64s(), [6, 7, 10, 11]);
    let shifted = Block::gather(DType::I32, &[2..4, 1..4], [&block, &right]).unwrap();
    assert_eq!(shifted.data.to_i64s(), [9, 10, 11, 0, 0, 0]);
    assert_eq!(
        shifted.data.get(ravel(&[0, 2], &[2, 3]) as usize),
        Scalar::Int(11)
    );
    assert_eq!(block::intersect(&[0..2, 0..4], &[2..3, 0..4]), None);
    assert_eq!(block::intersect(&[], &[]), Some(vec![]));
}
