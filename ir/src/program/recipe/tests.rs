use std::cell::Cell;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::attr::F64;
use crate::dim::Dim;
use crate::ops::{self, EvalCx, OpDef};
use crate::scalar::BinaryFn;
use crate::tensor::Tensor;

/// A file of numbers, which counts the bytes that are read.
struct Counting {
    data: Bytes,
    read: Cell<u64>,
}

impl Counting {
    fn new(length: u64) -> Self {
        // Bytes of exponents stay small, so that no float is a NaN and products are finite.
        let byte = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as u8 & 0x3f;
        Self {
            data: (0..length).map(byte).collect(),
            read: Cell::new(0),
        }
    }
}

impl Sources for Counting {
    fn read(&self, file: &str, offset: u64, length: u64) -> Result<Bytes, Diagnostic> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.data.len() as u64);
        let Some(end) = end else {
            return Err(Diagnostic::input(
                codes::NO_DATA,
                format!("`{file}` is too short"),
            ));
        };
        self.read.set(self.read.get() + length);
        Ok(self.data.slice(offset as usize..end as usize))
    }
}

fn op(op: impl OpDef, args: &[Tensor]) -> Tensor {
    let mut call = |_: usize, _: &[Tensor]| -> Result<Vec<Tensor>, ops::EvalError> { Ok(vec![]) };
    let types: Vec<_> = args.iter().map(Tensor::ty).collect();
    op.infer(&types, &[]).unwrap();
    op.eval(args, &mut EvalCx::new(&mut call))
        .unwrap()
        .remove(0)
}

fn constants(dims: &[u64]) -> Vec<Dim> {
    dims.iter().map(|d| Dim::Const(*d)).collect()
}

/// The whole value, node by node with the ops of GRAPH.
fn reference(recipe: &Recipe, file: &Bytes) -> Tensor {
    let mut values: Vec<Tensor> = vec![];
    for node in &recipe.nodes {
        let args: Vec<Tensor> = node
            .operands()
            .iter()
            .map(|o| values[*o as usize].clone())
            .collect();
        let leaf = |dtype: DType, shape: &[u64], data: Bytes| {
            let value = Tensor::from_bytes(dtype, shape, data).unwrap();
            // Every element as its value, so that truth values are 0 or 1.
            Tensor::from_scalars(dtype, shape, value.scalars())
        };
        values.push(match node {
            RecipeNode::File {
                offset,
                dtype,
                shape,
                ..
            } => {
                let length = shape.iter().product::<u64>() * dtype.bytes();
                let data = file.slice(*offset as usize..(*offset + length) as usize);
                leaf(*dtype, shape, data)
            }
            RecipeNode::Inline { dtype, shape, data } => leaf(*dtype, shape, data.clone()),
            RecipeNode::Splat {
                dtype,
                shape,
                value,
            } => op(
                ops::Full {
                    dtype: *dtype,
                    shape: constants(shape),
                    value: *value,
                },
                &[],
            ),
            RecipeNode::Slice { starts, sizes, .. } => {
                let step = vec![1; sizes.len()];
                op(
                    ops::Slice {
                        start: constants(starts),
                        size: constants(sizes),
                        step,
                    },
                    &args,
                )
            }
            RecipeNode::Permute { order, .. } => op(
                ops::Transpose {
                    perm: order.iter().map(|d| *d as usize).collect(),
                },
                &args,
            ),
            RecipeNode::Reshape { shape, .. } => op(
                ops::Reshape {
                    shape: constants(shape),
                },
                &args,
            ),
            RecipeNode::Concat { axis, .. } => op(
                ops::Concat {
                    axis: *axis as usize,
                },
                &args,
            ),
            RecipeNode::Pad {
                low, high, value, ..
            } => {
                let pads = low.iter().zip(high).map(|(l, h)| (*l as i64, *h as i64));
                let fill = Tensor::scalar(args[0].dtype(), value.to_scalar(args[0].dtype()));
                op(
                    ops::Pad::around(&pads.collect::<Vec<_>>()),
                    &[args[0].clone(), fill],
                )
            }
            RecipeNode::Scale { axis, .. } => {
                let mut dims = vec![1; args[0].rank()];
                dims[*axis as usize] = args[1].len() as u64;
                let shape = constants(args[0].shape());
                let by = op(ops::Broadcast { shape }, &[args[1].reshape(&dims)]);
                op(ops::Binary(BinaryFn::Mul), &[args[0].clone(), by])
            }
            RecipeNode::Convert { to, .. } => op(
                ops::Convert {
                    to: *to,
                    saturate: false,
                },
                &args,
            ),
        });
    }
    values.pop().unwrap()
}

struct Grower {
    rng: Pcg64Mcg,
    recipe: Recipe,
}

const TYPES: [DType; 6] = [
    DType::F32,
    DType::Bf16,
    DType::F64,
    DType::I32,
    DType::U8,
    DType::Bool,
];

impl Grower {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.random_range(0..bound)
    }

    fn push(&mut self, node: RecipeNode) -> u32 {
        self.recipe.nodes.push(node);
        self.recipe.nodes.len() as u32 - 1
    }

    fn number(&mut self, dtype: DType) -> Number {
        if dtype.is_float() {
            Number::Float(F64(self.below(64) as f64 / 8.0 - 4.0))
        } else {
            Number::Int(self.below(2).into())
        }
    }

    fn leaf(&mut self, dtype: DType, shape: &[u64]) -> u32 {
        let shape = shape.to_vec();
        let length = infer::bytes(dtype, &shape);
        let node = match self.below(6) {
            0 => RecipeNode::Splat {
                dtype,
                value: self.number(dtype),
                shape,
            },
            1 => {
                let data = (0..length).map(|_| self.below(64) as u8).collect();
                RecipeNode::Inline { dtype, shape, data }
            }
            _ => RecipeNode::File {
                file: "w".into(),
                offset: self.below(50),
                dtype,
                shape,
            },
        };
        self.push(node)
    }

    /// Other extents with the same product.
    fn regroup(&mut self, shape: &[u64]) -> Vec<u64> {
        let mut factors: Vec<u64> = vec![];
        for extent in shape {
            let mut rest = *extent;
            while let Some(factor) = (2..=rest).find(|f| rest.is_multiple_of(*f)) {
                factors.push(factor);
                rest /= factor;
            }
        }
        let mut to = vec![1];
        for factor in factors {
            match self.below(3) {
                0 => to.push(factor),
                _ => *to.last_mut().unwrap() *= factor,
            }
        }
        if self.below(4) == 0 {
            to.reverse();
        }
        to
    }

    /// Puts one more node on a value.
    fn wrap(&mut self, of: u32, dtype: DType, shape: Vec<u64>) -> (u32, DType, Vec<u64>) {
        let rank = shape.len();
        let mut result = (dtype, shape.clone());
        let choice = self.below(8);
        let node = match choice {
            0 | 1 => {
                let starts: Vec<u64> = shape.iter().map(|d| self.below(*d)).collect();
                let sizes = shape
                    .iter()
                    .zip(&starts)
                    .map(|(d, s)| 1 + self.below(d - s));
                let sizes: Vec<u64> = sizes.collect();
                result.1 = sizes.clone();
                RecipeNode::Slice { of, starts, sizes }
            }
            2 => {
                let mut order: Vec<u32> = (0..rank as u32).collect();
                for d in (1..rank).rev() {
                    order.swap(d, self.below(d as u64 + 1) as usize);
                }
                result.1 = order.iter().map(|d| shape[*d as usize]).collect();
                RecipeNode::Permute { of, order }
            }
            3 => {
                let shape = self.regroup(&shape);
                result.1 = shape.clone();
                RecipeNode::Reshape { of, shape }
            }
            4 if rank > 0 => {
                let axis = self.below(rank as u64) as usize;
                let mut parts = vec![of];
                for _ in 0..self.below(3) {
                    let mut other = shape.clone();
                    other[axis] = 1 + self.below(3);
                    parts.push(self.leaf(dtype, &other));
                    result.1[axis] += other[axis];
                }
                RecipeNode::Concat {
                    of: parts,
                    axis: axis as u32,
                }
            }
            5 => {
                let low: Vec<u64> = shape.iter().map(|_| self.below(3)).collect();
                let high: Vec<u64> = shape.iter().map(|_| self.below(3)).collect();
                for (d, extent) in result.1.iter_mut().enumerate() {
                    *extent += low[d] + high[d];
                }
                RecipeNode::Pad {
                    of,
                    low,
                    high,
                    value: self.number(dtype),
                }
            }
            6 if rank > 0 && dtype.is_float() => {
                let axis = self.below(rank as u64) as usize;
                let by = self.leaf(dtype, &[shape[axis]]);
                RecipeNode::Scale {
                    of,
                    by,
                    axis: axis as u32,
                }
            }
            _ => {
                result.0 = TYPES[self.below(6) as usize];
                RecipeNode::Convert { of, to: result.0 }
            }
        };
        (self.push(node), result.0, result.1)
    }
}

fn random(seed: u64) -> Grower {
    let mut grower = Grower {
        rng: Pcg64Mcg::seed_from_u64(seed),
        recipe: Recipe::default(),
    };
    let rank = grower.below(4);
    let shape: Vec<u64> = (0..rank).map(|_| 1 + grower.below(7)).collect();
    let dtype = TYPES[grower.below(6) as usize];
    let mut value = (grower.leaf(dtype, &shape), dtype, shape);
    for _ in 0..grower.below(7) {
        value = grower.wrap(value.0, value.1, value.2);
        if value.2.iter().product::<u64>() > 4000 {
            break;
        }
    }
    assert_eq!(grower.recipe.infer(), Ok((value.1, value.2)));
    grower
}

#[test]
fn boxes_are_those_of_the_whole_value() {
    let file = Counting::new(1 << 16);
    let (mut boxes, mut frugal) = (0, 0);
    for seed in 0..600 {
        let mut grower = random(seed);
        let recipe = grower.recipe.clone();
        let whole = reference(&recipe, &file.data);
        for _ in 0..6 {
            let starts: Vec<u64> = whole.shape().iter().map(|d| grower.below(d + 1)).collect();
            let sizes = whole.shape().iter().zip(&starts);
            let sizes: Vec<u64> = sizes.map(|(d, s)| grower.below(d - s + 1)).collect();
            file.read.set(0);
            let found = eval_slice(&recipe, &starts, &sizes, &file, 1 << 24).unwrap();
            let slice = ops::Slice {
                start: constants(&starts),
                size: constants(&sizes),
                step: vec![1; sizes.len()],
            };
            let expected = op(slice, std::slice::from_ref(&whole));
            assert_eq!(
                found, expected,
                "seed {seed}: {starts:?} {sizes:?} of {recipe:#?}"
            );
            boxes += 1;
            let exact = |node: &RecipeNode| {
                !matches!(node, RecipeNode::Reshape { .. } | RecipeNode::Scale { .. })
            };
            if recipe.nodes.iter().all(exact) {
                // No element is wider than eight bytes.
                let most = sizes.iter().product::<u64>() * 8;
                assert!(
                    file.read.get() <= most,
                    "seed {seed}: {} bytes",
                    file.read.get()
                );
                frugal += 1;
            }
        }
    }
    assert!(boxes == 3600 && frugal > 1000, "{frugal}");
}

fn file(shape: &[u64]) -> RecipeNode {
    RecipeNode::File {
        file: "w".into(),
        offset: 3,
        dtype: DType::F32,
        shape: shape.to_vec(),
    }
}

#[test]
fn only_what_is_needed_is_read() {
    let source = Counting::new(1 << 12);
    let read = |nodes: Vec<RecipeNode>, starts: &[u64], sizes: &[u64]| {
        source.read.set(0);
        eval_slice(&Recipe { nodes }, starts, sizes, &source, 1 << 20).unwrap();
        source.read.get() / 4
    };
    let turned = vec![
        file(&[8, 6]),
        RecipeNode::Permute {
            of: 0,
            order: vec![1, 0],
        },
    ];
    assert_eq!(read(turned, &[2, 3], &[2, 4]), 8);
    // Heads are split off: rows 3 and 4 of all columns, nothing else.
    let heads = || {
        vec![
            file(&[8, 12, 5]),
            RecipeNode::Reshape {
                of: 0,
                shape: vec![8, 3, 4, 5],
            },
        ]
    };
    assert_eq!(read(heads(), &[3, 0, 0, 0], &[2, 3, 4, 1]), 24);
    assert_eq!(read(heads(), &[3, 1, 1, 2], &[2, 1, 2, 2]), 8);
    // Joined dimensions: positions 5 to 9 lie in rows 1 and 2 of four columns.
    let joined = vec![
        file(&[3, 4]),
        RecipeNode::Reshape {
            of: 0,
            shape: vec![12],
        },
    ];
    assert_eq!(read(joined, &[5], &[5]), 8);
    let padded = RecipeNode::Pad {
        of: 0,
        low: vec![2, 0],
        high: vec![0, 3],
        value: Number::Int(0),
    };
    assert_eq!(
        read(vec![file(&[4, 4]), padded.clone()], &[0, 0], &[3, 7]),
        4
    );
    assert_eq!(read(vec![file(&[4, 4]), padded], &[0, 0], &[2, 7]), 0);
}

fn refused(nodes: Vec<RecipeNode>) -> String {
    Recipe { nodes }.infer().unwrap_err()
}

#[test]
fn malformed_recipes_are_refused() {
    let splat = |dtype, shape: &[u64]| RecipeNode::Splat {
        dtype,
        shape: shape.to_vec(),
        value: Number::Int(1),
    };
    let f32s = |shape: &[u64]| splat(DType::F32, shape);
    assert_eq!(refused(vec![]), "the recipe is empty");
    let convert = |of| RecipeNode::Convert {
        of,
        to: DType::Bf16,
    };
    for (nodes, says) in [
        (vec![convert(0)], "postorder"),
        (vec![f32s(&[2]), f32s(&[2])], "step 0 is not used"),
        (vec![f32s(&[2]), convert(0), convert(0)], "postorder"),
        (vec![f32s(&[2]), f32s(&[2]), convert(0)], "postorder"),
        (
            vec![
                f32s(&[2]),
                RecipeNode::Concat {
                    of: vec![0, 0],
                    axis: 0,
                },
            ],
            "postorder",
        ),
        (
            vec![RecipeNode::Concat {
                of: vec![],
                axis: 0,
            }],
            "no operands",
        ),
        (
            vec![
                f32s(&[2]),
                RecipeNode::Concat {
                    of: vec![0],
                    axis: 1,
                },
            ],
            "dimension 1",
        ),
        (vec![f32s(&[1 << 32, 1 << 32])], "too large"),
        (vec![f32s(&[0, 1 << 40, 1 << 40])], "too large"),
        (vec![f32s(&[1; 17])], "rank 17"),
        (
            vec![
                f32s(&[6]),
                RecipeNode::Reshape {
                    of: 0,
                    shape: vec![4],
                },
            ],
            "[4] of [6]",
        ),
        (
            vec![
                f32s(&[6]),
                RecipeNode::Permute {
                    of: 0,
                    order: vec![1],
                },
            ],
            "no permutation",
        ),
        (
            vec![
                f32s(&[2, 2]),
                RecipeNode::Permute {
                    of: 0,
                    order: vec![0, 0],
                },
            ],
            "no permutation",
        ),
        (
            vec![
                f32s(&[6]),
                RecipeNode::Slice {
                    of: 0,
                    starts: vec![u64::MAX],
                    sizes: vec![2],
                },
            ],
            "takes 2 elements",
        ),
        (
            vec![
                f32s(&[6]),
                RecipeNode::Slice {
                    of: 0,
                    starts: vec![],
                    sizes: vec![2],
                },
            ],
            "0 starts",
        ),
        (
            vec![
                f32s(&[6]),
                RecipeNode::Pad {
                    of: 0,
                    low: vec![u64::MAX],
                    high: vec![1],
                    value: Number::Int(0),
                },
            ],
            "beyond 64 bits",
        ),
        (
            vec![
                f32s(&[6]),
                f32s(&[5]),
                RecipeNode::Scale {
                    of: 0,
                    by: 1,
                    axis: 0,
                },
            ],
            "scales",
        ),
        (
            vec![
                splat(DType::I8, &[1]),
                splat(DType::I8, &[1]),
                RecipeNode::Scale {
                    of: 0,
                    by: 1,
                    axis: 0,
                },
            ],
            "no float",
        ),
        (
            vec![splat(DType::Cfp8E4M3, &[1]), convert(0)],
            "exponent bias",
        ),
        (
            vec![RecipeNode::Splat {
                dtype: DType::U8,
                shape: vec![],
                value: Number::Int(256),
            }],
            "not a u8",
        ),
        (
            vec![RecipeNode::Inline {
                dtype: DType::F32,
                shape: vec![2],
                data: Bytes::from_static(&[0; 7]),
            }],
            "7 bytes",
        ),
        (
            vec![RecipeNode::File {
                file: "w".into(),
                offset: u64::MAX,
                dtype: DType::U8,
                shape: vec![1],
            }],
            "begins at byte",
        ),
    ] {
        let why = refused(nodes);
        assert!(why.contains(says), "{why:?} does not say {says:?}");
    }
}

#[test]
fn memory_is_bounded_before_anything_is_read() {
    let huge = RecipeNode::Splat {
        dtype: DType::U8,
        shape: vec![1 << 30, 1 << 30],
        value: Number::Int(1),
    };
    let skewed = RecipeNode::Reshape {
        of: 0,
        shape: vec![1 << 29, 1 << 31],
    };
    let recipe = Recipe {
        nodes: vec![huge, skewed],
    };
    let column = |rows| eval_slice(&recipe, &[0, 5], &[rows, 1], &NoSources, 1 << 20);
    assert_eq!(column(1).unwrap().len(), 1);
    let error = column(1 << 10).unwrap_err();
    assert_eq!(error.code.0, codes::OUT_OF_MEMORY);
    // A box outside is refused, and so is a file that does not have the bytes.
    let outside = eval_slice(&recipe, &[0, u64::MAX], &[1, 2], &NoSources, 1 << 20).unwrap_err();
    assert_eq!(outside.code.0, codes::BAD_RECIPE);
    let short = Recipe {
        nodes: vec![file(&[100])],
    };
    let error = eval_slice(&short, &[98], &[2], &Counting::new(400), 1 << 20).unwrap_err();
    assert_eq!(error.code.0, codes::NO_DATA);
}

#[test]
fn recipes_are_wide_but_not_deep() {
    let chain = |steps: u32| {
        let mut nodes = vec![file(&[2])];
        nodes.extend((0..steps).map(|of| RecipeNode::Reshape { of, shape: vec![2] }));
        Recipe { nodes }
    };
    let most = MAX_RECIPE_DEPTH as u32 - 1;
    let source = Counting::new(64);
    let value = eval_slice(&chain(most), &[1], &[1], &source, 64).unwrap();
    assert_eq!(value.len(), 1);
    assert!(
        chain(most + 1)
            .infer()
            .unwrap_err()
            .contains("deeper than 256")
    );
    let mut nodes = vec![file(&[2]); 50_000];
    nodes.push(RecipeNode::Concat {
        of: (0..50_000).collect(),
        axis: 0,
    });
    let wide = Recipe { nodes };
    source.read.set(0);
    let value = eval_slice(&wide, &[70_001], &[3], &source, 64).unwrap();
    assert_eq!((value.len(), source.read.get()), (3, 12));
}
