//! Ops with mutated attributes and operands: whatever the text of a module can say is accepted or
//! refused, and never brings the process down.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::common::{describe, random};
use dojoc_ir::attr::{Attr, Attrs, F64};
use dojoc_ir::dim::Dim;
use dojoc_ir::graph::FunctionBuilder;
use dojoc_ir::graph::eval::run_function;
use dojoc_ir::ops::{Fill, Op, Sample};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Shape, Type};
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;

/// Mutants of the committed run; `DOJOC_HOSTILE` names another number.
const MUTANTS: u64 = 30_000;

/// Largest number of elements of operands and results that are executed.
const MAX_ELEMENTS: u64 = 2048;

const INTS: &[i128] = &[
    0,
    1,
    -1,
    2,
    3,
    5,
    -2,
    -7,
    16,
    17,
    1 << 20,
    i32::MAX as i128,
    i32::MIN as i128,
    u32::MAX as i128,
    1 << 32,
    1 << 61,
    1 << 62,
    (1 << 62) - 1,
    i64::MAX as i128 - 1,
    i64::MAX as i128,
    i64::MIN as i128,
    i64::MIN as i128 + 1,
    1 << 63,
    u64::MAX as i128,
    -(u64::MAX as i128),
    1 << 64,
    i128::MAX,
    i128::MIN,
];

const EXTENTS: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    1 << 31,
    1 << 32,
    1 << 61,
    1 << 62,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

fn dtype(rng: &mut Pcg64) -> DType {
    DType::ALL.choose(rng).expect("there are types").0
}

fn symbolic(rng: &mut Pcg64) -> Dim {
    let max = *[0, 1, 8, 1 << 32, i64::MAX as u64, u64::MAX]
        .choose(rng)
        .expect("there are bounds");
    let dim = Dim::symbol("n", max);
    match rng.random_range(0..4) {
        0 => dim.mul(&dim).unwrap_or(dim),
        1 => dim.offset(-3).unwrap_or(dim),
        2 => dim.floor_div(&Dim::symbol("m", 4)).unwrap_or(dim),
        _ => dim,
    }
}

fn leaf(rng: &mut Pcg64) -> Attr {
    match rng.random_range(0..12) {
        0 => Attr::Bool(rng.random()),
        1 => Attr::Float(F64(*[0.0, -0.0, 0.5, 1e300, f64::NAN, f64::INFINITY]
            .choose(rng)
            .expect("there are floats"))),
        2 => Attr::Str("x".into()),
        3 => Attr::DType(dtype(rng)),
        4 => Attr::Dim(symbolic(rng)),
        5 => Attr::List(vec![]),
        _ => Attr::Int(*INTS.choose(rng).expect("there are integers")),
    }
}

fn mutate(attr: &mut Attr, rng: &mut Pcg64) {
    match attr {
        Attr::List(items) if rng.random_range(0..8) > 0 => match rng.random_range(0..7) {
            0 => {
                items.pop();
            }
            1 => items.clear(),
            2 => {
                let item = items.first().cloned().unwrap_or_else(|| leaf(rng));
                items.push(item);
            }
            3 => items.extend((0..rng.random_range(1..20)).map(|_| Attr::Int(1))),
            _ => {
                if let Some(position) = (0..items.len()).collect::<Vec<_>>().choose(rng) {
                    mutate(&mut items[*position], rng);
                }
            }
        },
        Attr::Bool(b) if rng.random() => *b = !*b,
        Attr::Int(i) if rng.random_range(0..3) == 0 => {
            *i = i.saturating_add(rng.random_range(-2..=2))
        }
        Attr::DType(d) if rng.random_range(0..3) > 0 => *d = dtype(rng),
        other => *other = leaf(rng),
    }
}

fn mutate_type(ty: &mut Type, rng: &mut Pcg64) {
    let mut dims = ty.dims().to_vec();
    match rng.random_range(0..8) {
        0 => ty.dtype = dtype(rng),
        1 => dims.clear(),
        2 => {
            dims.pop();
        }
        3 => dims.insert(0, Dim::Const(1)),
        4 => {
            let count = rng.random_range(1..18);
            dims.extend((0..count).map(|_| Dim::Const(1)));
        }
        _ => {
            if let Some(position) = (0..dims.len()).collect::<Vec<_>>().choose(rng) {
                dims[*position] = match rng.random_range(0..6) {
                    0 => symbolic(rng),
                    _ => Dim::Const(*EXTENTS.choose(rng).expect("there are extents")),
                };
            }
        }
    }
    ty.shape = Shape::new(dims);
}

/// The sample with some attributes and operands changed; `None` if they make no op.
fn mutant(sample: &Sample, rng: &mut Pcg64) -> Option<Sample> {
    let mut sample = sample.clone();
    let mut attrs = sample.op.attrs();
    for _ in 0..rng.random_range(1..4) {
        let change_type = attrs.0.is_empty() || rng.random_range(0..5) < 2;
        if change_type && !sample.args.is_empty() {
            match rng.random_range(0..20) {
                0 => {
                    sample.args.pop();
                }
                1 => {
                    let arg = sample.args[0].clone();
                    sample.args.push(arg);
                }
                2 => sample.args.clear(),
                3 => {
                    let position = rng.random_range(0..sample.args.len());
                    sample.args[position] = sample.args[0].clone();
                }
                _ => {
                    let position = rng.random_range(0..sample.args.len());
                    mutate_type(&mut sample.args[position].ty, rng);
                }
            }
        } else if !attrs.0.is_empty() {
            let position = rng.random_range(0..attrs.0.len());
            match rng.random_range(0..12) {
                0 => {
                    attrs.0.remove(position);
                }
                _ => mutate(&mut attrs.0[position].1, rng),
            }
        }
    }
    sample.op = parse(sample.op.name(), &attrs)?;
    Some(sample)
}

fn parse(name: &str, attrs: &Attrs) -> Option<Op> {
    Op::parse(name, attrs).expect("the mnemonic exists").ok()
}

fn values(sample: &Sample, rng: &mut Pcg64) -> Vec<Tensor> {
    let wild = sample.regions.is_empty() && rng.random_range(0..3) == 0;
    let tensor = |arg: &dojoc_ir::ops::SampleArg| match &arg.fill {
        Fill::Given(tensor) if tensor.ty() == arg.ty => tensor.clone(),
        Fill::Uniform(low, high) if !wild => random(&arg.ty, *low, *high, rng),
        _ if !wild => random(&arg.ty, 0.0, 5.0, rng),
        _ => {
            let shape = arg.ty.shape.as_const().expect("extents are constants");
            let count = shape.iter().product::<u64>();
            let scalars: Vec<Scalar> = (0..count)
                .map(|_| match arg.ty.dtype.is_float() {
                    true => Scalar::F64(
                        *[0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN, 1e-310]
                            .choose(rng)
                            .expect("there are floats"),
                    ),
                    false => Scalar::Int(*INTS.choose(rng).expect("there are integers")),
                })
                .map(|s| s.convert(arg.ty.dtype))
                .collect();
            Tensor::from_scalars(arg.ty.dtype, &shape, scalars)
        }
    };
    sample.args.iter().map(tensor).collect()
}

/// Types the sample, and executes it where it is well-typed and small.
fn exercise(sample: &Sample, rng: &mut Pcg64) -> bool {
    let mut b = FunctionBuilder::new("hostile");
    let inputs: Vec<_> = sample
        .args
        .iter()
        .map(|a| b.param(a.ty.clone(), None))
        .collect();
    let mut regions = vec![];
    for build in &sample.regions {
        regions.push(build(&mut b).expect("the sample's region is well-typed"));
    }
    let Ok(results) = b.node_with_regions(sample.op.clone(), &inputs, &regions) else {
        return false;
    };
    let func = b.finish_unnamed(&results);
    let args = func.types(func.inputs());
    let all: Vec<Type> = func.values.values().map(|v| v.ty.clone()).collect();
    if !all.iter().all(Type::addressable) {
        return false;
    }
    let _ = sample.op.tiling(&args);
    let small = |ty: &Type| {
        ty.shape.as_const().is_some() && ty.shape.max_elements().is_some_and(|n| n <= MAX_ELEMENTS)
    };
    let plain = |ty: &Type| ty.dtype.class() != dojoc_ir::types::Class::Configurable;
    if !all.iter().all(small) || !args.iter().all(plain) {
        return false;
    }
    let _ = run_function(&func, &values(sample, rng));
    true
}

#[test]
fn mutants_are_accepted_or_refused() {
    let mutants = std::env::var("DOJOC_HOSTILE").map_or(MUTANTS, |n| n.parse().expect("a number"));
    let seed = std::env::var("DOJOC_HOSTILE_SEED").map_or(1, |n| n.parse().expect("a number"));
    let mut rng = Pcg64::seed_from_u64(seed);
    let samples = Op::samples();
    let mut executed = 0;
    for _ in 0..mutants {
        let Some(sample) = samples.choose(&mut rng).and_then(|s| mutant(s, &mut rng)) else {
            continue;
        };
        let run = catch_unwind(AssertUnwindSafe(|| exercise(&sample, &mut rng)));
        match run {
            Ok(ran) => executed += u64::from(ran),
            Err(_) => panic!("{} brings the process down", describe(&sample)),
        }
    }
    assert!(
        executed > mutants / 10,
        "only {executed} of {mutants} mutants were executed"
    );
}
