//! Random instructions.

use dojoc_ir::attr::{F64, Flag, Number};
use dojoc_ir::program::instr::{Access, convert, data, matrix, reduce, sort, vector};

use super::*;

/// What the elements of an operand are.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// Anything.
    Any,
    /// Floats of moderate size, any codes.
    Ordinary,
    /// Positions among so many, negative ones too.
    Index(u64),
    /// The same, and a few that are out of range.
    WildIndex(u64),
    /// An exponent bias.
    Bias,
}

/// What an operand is to be.
#[derive(Clone, Debug)]
pub struct Operand {
    pub dtype: DType,
    pub shape: Vec<u64>,
    pub content: Content,
    /// Whether it must not be packed.
    pub strided: bool,
}

impl Operand {
    fn new(dtype: DType, shape: &[u64]) -> Self {
        Self {
            dtype,
            shape: shape.to_vec(),
            content: Content::Any,
            strided: false,
        }
    }

    fn with(self, content: Content) -> Self {
        Self { content, ..self }
    }

    fn strided(self) -> Self {
        Self {
            strided: true,
            ..self
        }
    }
}

/// An instruction with its operands.
#[derive(Clone, Debug)]
pub struct Case {
    pub instr: Instr,
    pub targets: usize,
    pub operands: Vec<Operand>,
    pub scalars: Vec<i64>,
}

fn case(instr: impl Into<Instr>, operands: Vec<Operand>) -> Case {
    let instr = instr.into();
    let roles = instr.roles();
    let targets = roles.iter().filter(|r| r.access != Access::Read).count();
    let scalars = instr.scalars().iter().map(|_| 12345).collect();
    Case {
        instr,
        targets,
        operands,
        scalars,
    }
}

fn pick<T: Copy>(rng: &mut impl Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

fn extent(rng: &mut impl Rng) -> u64 {
    match rng.random_range(0..20) {
        0 => 0,
        1..4 => 1,
        4..14 => rng.random_range(2..6),
        14..19 => rng.random_range(6..20),
        _ => rng.random_range(20..70),
    }
}

fn shape(rng: &mut impl Rng, least: usize, most: usize) -> Vec<u64> {
    let rank = rng.random_range(least..=most);
    if rank == 1 && rng.random_range(0..4) == 0 {
        // Longer than the parts in which rows are computed.
        return vec![rng.random_range(500..1200)];
    }
    let mut shape: Vec<u64> = (0..rank).map(|_| extent(rng)).collect();
    while shape.iter().product::<u64>() > 3000 {
        for extent in &mut shape {
            *extent = (*extent).min(6);
        }
        if let Some(first) = shape.iter_mut().max() {
            *first -= 1;
        }
    }
    shape
}

const FLOATS: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];
const INTS: [DType; 8] = [
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
];

fn numeric(rng: &mut impl Rng) -> DType {
    if rng.random_range(0..2) == 0 {
        pick(rng, &FLOATS)
    } else {
        pick(rng, &INTS)
    }
}

fn any_type(rng: &mut impl Rng) -> DType {
    DType::ALL[rng.random_range(0..DType::ALL.len())].0
}

fn number(rng: &mut impl Rng, dtype: DType) -> Number {
    match dtype.int_range() {
        Some((low, high)) => Number::Int(match rng.random_range(0..4) {
            0 => low,
            1 => high,
            _ => rng.random_range(0..7),
        }),
        None if dtype == DType::Bool => Number::Int(rng.random_range(0..2)),
        None if rng.random_range(0..4) == 0 => Number::Int(rng.random_range(-9..9)),
        None => Number::Float(F64(match rng.random_range(0..5) {
            0 => f64::from_bits(rng.random()),
            1 => f64::from(reference::any_f32(rng)),
            _ => rng.random_range(-8.0..8.0),
        })),
    }
}

pub fn map(rng: &mut Pcg64) -> Case {
    use vector::MapFunction::{Abs, Neg, Not};
    let function = pick(rng, vector::MapFunction::ALL);
    let dtype = match function {
        Neg | Abs => numeric(rng),
        Not if rng.random_range(0..4) == 0 => DType::Bool,
        Not => pick(rng, &INTS),
        _ => pick(rng, &FLOATS),
    };
    let operand = Operand::new(dtype, &shape(rng, 0, 5));
    case(vector::Map { function }, vec![operand.clone(), operand])
}

pub fn zip(rng: &mut Pcg64) -> Case {
    use vector::ZipFunction::{And, Or, Pow, Rem, Shl, Shr, Xor};
    let function = pick(rng, vector::ZipFunction::ALL);
    let dtype = match function {
        Pow => pick(rng, &FLOATS),
        Rem | Shl | Shr => pick(rng, &INTS),
        And | Or | Xor if rng.random_range(0..4) == 0 => DType::Bool,
        And | Or | Xor => pick(rng, &INTS),
        _ => numeric(rng),
    };
    let operand = Operand::new(dtype, &shape(rng, 0, 5));
    let value = (rng.random_range(0..3) == 0).then(|| number(rng, dtype));
    let count = if value.is_some() { 2 } else { 3 };
    case(vector::Zip { function, value }, vec![operand; count])
}

pub fn element_wise(rng: &mut Pcg64) -> Case {
    let shape = shape(rng, 0, 5);
    match rng.random_range(0..6) {
        0 => {
            let operand = Operand::new(pick(rng, &FLOATS), &shape);
            case(vector::MulAdd {}, vec![operand; 4])
        }
        1 => {
            let dtype = numeric(rng);
            let (low, high) = (number(rng, dtype), number(rng, dtype));
            let operand = Operand::new(dtype, &shape);
            case(vector::Clamp { low, high }, vec![operand; 2])
        }
        2 => {
            let function = pick(rng, vector::CompareFunction::ALL);
            let dtype = match rng.random_range(0..5) {
                0 => DType::Bool,
                _ => numeric(rng),
            };
            let value = (rng.random_range(0..3) == 0).then(|| number(rng, dtype));
            let mut operands = vec![Operand::new(DType::Bool, &shape)];
            let count = if value.is_some() { 1 } else { 2 };
            operands.extend(vec![Operand::new(dtype, &shape); count]);
            case(vector::Compare { function, value }, operands)
        }
        3 => {
            let operand = Operand::new(any_type(rng), &shape);
            let mask = Operand::new(DType::Bool, &shape);
            let operands = vec![operand.clone(), mask, operand.clone(), operand];
            case(vector::Select {}, operands)
        }
        4 => {
            let fixed = [DType::Bool, DType::F64];
            let dtype = match rng.random_range(0..3) {
                0 => pick(rng, &fixed),
                _ => numeric(rng),
            };
            let value = number(rng, dtype);
            case(vector::Fill { value }, vec![Operand::new(dtype, &shape)])
        }
        _ => {
            let shape = if shape.is_empty() { vec![3] } else { shape };
            let axis = rng.random_range(0..shape.len());
            let dtype = match rng.random_range(0..3) {
                0 => DType::F32,
                _ => pick(rng, &INTS),
            };
            let step = pick(rng, &[1, -3, 1 << 40, i64::MAX]);
            let mut case = case(
                vector::Iota { axis, step },
                vec![Operand::new(dtype, &shape)],
            );
            case.scalars = vec![pick(rng, &[0, 5, -70_000, i64::MAX])];
            case
        }
    }
}

pub fn reduce(rng: &mut Pcg64) -> Case {
    let mut shape = shape(rng, 1, 5);
    match rng.random_range(0..3) {
        0 => {
            let dims = rng.random_range(1..=shape.len());
            let function = pick(rng, reduce::ReduceFunction::ALL);
            let dtype = match function {
                reduce::ReduceFunction::And | reduce::ReduceFunction::Or => DType::Bool,
                _ => numeric(rng),
            };
            let to = match dtype {
                DType::Bf16 | DType::F16 => pick(rng, &[dtype, DType::F32]),
                _ => dtype,
            };
            let accumulate = Flag(rng.random_range(0..2) == 0);
            let y = Operand::new(to, &shape[..shape.len() - dims]);
            let instr = reduce::Reduce {
                function,
                dims,
                accumulate,
            };
            case(instr, vec![y, Operand::new(dtype, &shape)])
        }
        1 => {
            if let Some(last) = shape.last_mut() {
                *last = (*last).max(1);
            }
            let instr = reduce::ArgReduce {
                function: pick(rng, reduce::ArgFunction::ALL),
                last: Flag(rng.random_range(0..2) == 0),
            };
            let to = pick(rng, &[DType::I32, DType::I64]);
            let y = Operand::new(to, &shape[..shape.len() - 1]);
            case(instr, vec![y, Operand::new(numeric(rng), &shape)])
        }
        _ => {
            let instr = reduce::Scan {
                function: pick(rng, reduce::ScanFunction::ALL),
                exclusive: Flag(rng.random_range(0..2) == 0),
                reverse: Flag(rng.random_range(0..2) == 0),
            };
            let operand = Operand::new(numeric(rng), &shape);
            case(instr, vec![operand; 2])
        }
    }
}

pub fn convert(rng: &mut Pcg64) -> Case {
    let shape = shape(rng, 0, 5);
    let codes = [DType::Cfp8E4M3, DType::Cfp8E5M2, DType::Shp, DType::Uhp];
    let fixed: Vec<DType> = DType::ALL[..13].iter().map(|(dtype, _)| *dtype).collect();
    let wide = [DType::F32, DType::Bf16];
    let mut stochastic = None;
    let (from, to) = match rng.random_range(0..8) {
        0 => (pick(rng, &codes), pick(rng, &wide)),
        1 => (pick(rng, &wide), pick(rng, &codes)),
        2 => {
            stochastic = Some(rng.random_range(0..5));
            let to = [DType::Bf16, DType::F16]
                .into_iter()
                .chain(codes)
                .collect::<Vec<_>>();
            (DType::F32, pick(rng, &to))
        }
        _ => (pick(rng, &fixed), pick(rng, &fixed)),
    };
    let bias = codes[..3].contains(&from) || codes[..3].contains(&to);
    let mut operands = vec![Operand::new(to, &shape), Operand::new(from, &shape)];
    if bias {
        let shape = vec![1; rng.random_range(0..3)];
        operands.push(Operand::new(DType::U8, &shape).with(Content::Bias));
    }
    let instr = convert::Convert {
        bias: Flag(bias),
        stochastic,
    };
    case(instr, operands)
}

pub fn data(rng: &mut Pcg64) -> Case {
    let dtype = any_type(rng);
    match rng.random_range(0..4) {
        0 => {
            let operand = Operand::new(dtype, &shape(rng, 0, 5));
            case(data::Copy {}, vec![operand; 2])
        }
        1 => {
            let inner = shape(rng, 0, 5);
            let mut border = || -> Vec<u64> {
                let most = pick(rng, &[1, 4]);
                inner.iter().map(|_| rng.random_range(0..most)).collect()
            };
            let (low, high) = (border(), border());
            let outer: Vec<u64> = (0..inner.len())
                .map(|d| inner[d] + low[d] + high[d])
                .collect();
            let configurable = DType::ALL[13..].iter().any(|(d, _)| *d == dtype);
            let value = (!configurable && rng.random_range(0..2) == 0).then(|| number(rng, dtype));
            let operands = vec![Operand::new(dtype, &outer), Operand::new(dtype, &inner)];
            case(data::Pad { low, high, value }, operands)
        }
        2 => {
            let (x, indices, y) = indexed(rng);
            let index_type = pick(rng, &[DType::I32, DType::I64]);
            let dtype = numeric(rng);
            let fill = (rng.random_range(0..2) == 0).then(|| number(rng, dtype));
            let content = index_content(rng, x[0], fill.is_some());
            let operands = vec![
                Operand::new(dtype, &y),
                Operand::new(dtype, &x),
                Operand::new(index_type, &indices).with(content),
            ];
            case(data::Gather { fill }, operands)
        }
        _ => {
            let (y, indices, updates) = indexed(rng);
            let index_type = pick(rng, &[DType::I32, DType::I64]);
            let add = rng.random_range(0..2) == 0;
            let dtype = if add { numeric(rng) } else { dtype };
            let skip = rng.random_range(0..2) == 0;
            let content = index_content(rng, y[0], skip);
            let operands = vec![
                Operand::new(dtype, &y),
                Operand::new(dtype, &updates),
                Operand::new(index_type, &indices).with(content),
            ];
            let instr = data::Scatter {
                add: Flag(add),
                skip: Flag(skip),
            };
            case(instr, operands)
        }
    }
}

/// Extents of what is indexed, of the indices, and of what they select.
fn indexed(rng: &mut impl Rng) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
    let n = rng.random_range(1..12);
    let indices = shape(rng, 0, 2);
    let inner: Vec<u64> = (0..rng.random_range(0..3)).map(|_| extent(rng)).collect();
    let x = [&[n], &inner[..]].concat();
    let y = [&indices[..], &inner[..]].concat();
    (x, indices, y)
}

fn index_content(rng: &mut impl Rng, n: u64, may_miss: bool) -> Content {
    // Now and then one is out of range where that is a fault.
    if may_miss || rng.random_range(0..8) == 0 {
        Content::WildIndex(n)
    } else {
        Content::Index(n)
    }
}

pub fn sort(rng: &mut Pcg64) -> Case {
    let shape = shape(rng, 1, 5);
    let dtype = numeric(rng);
    let index_type = pick(rng, &[DType::I32, DType::I64]);
    let x = Operand::new(dtype, &shape);
    if rng.random_range(0..2) == 0 {
        let descending = Flag(rng.random_range(0..2) == 0);
        let indices = Operand::new(index_type, &shape);
        return case(sort::Sort { descending }, vec![x.clone(), indices, x]);
    }
    let mut kept = shape.clone();
    if let Some(last) = kept.last_mut() {
        *last = rng.random_range(0..=*last);
    }
    let smallest = Flag(rng.random_range(0..2) == 0);
    let operands = vec![
        Operand::new(dtype, &kept),
        Operand::new(index_type, &kept),
        x,
    ];
    case(sort::TopK { smallest }, operands)
}

/// Extents of about the given product in so many dimensions.
fn split(rng: &mut impl Rng, dims: usize, most: u64) -> Vec<u64> {
    (0..dims)
        .map(|_| match rng.random_range(0..10) {
            0 => 1,
            _ => rng.random_range(1..=if dims == 1 { most } else { 5 }),
        })
        .collect()
}

pub fn matmul(rng: &mut Pcg64) -> Case {
    let (m_dims, k_dims) = pick(
        rng,
        &[
            (1, 1),
            (1, 1),
            (1, 2),
            (2, 1),
            (2, 2),
            (3, 2),
            (1, 4),
            (4, 1),
            (0, 2),
        ],
    );
    let (mut m, mut k) = (split(rng, m_dims, 20), split(rng, k_dims, 40));
    let mut n = rng.random_range(1..50);
    match rng.random_range(0..30) {
        0 => n = 0,
        1 => k[0] = 0,
        2 if !m.is_empty() => m[0] = 0,
        _ => {}
    }
    let steps: u64 = k.iter().product();
    // B may divide k in another way.
    let b_k = match (rng.random_range(0..3), steps.is_multiple_of(2)) {
        (0, true) => vec![2, steps / 2],
        (1, _) => vec![steps],
        _ => k.clone(),
    };
    let cfp8 = rng.random_range(0..5) == 0;
    let (a_type, b_type) = if cfp8 {
        let formats = [DType::Cfp8E4M3, DType::Cfp8E5M2];
        (pick(rng, &formats), pick(rng, &formats))
    } else {
        let dtype = pick(rng, &[DType::Bf16, DType::F32]);
        (dtype, dtype)
    };
    let c_type = pick(rng, &[DType::Bf16, DType::F32]);
    let accumulate = rng.random_range(0..2) == 0;
    let sums = accumulate && c_type == DType::Bf16;
    let flag = |rng: &mut Pcg64| Flag(rng.random_range(0..2) == 0);
    let activations = [
        None,
        Some(matrix::Activation::Relu),
        Some(matrix::Activation::Gelu),
        Some(matrix::Activation::GeluTanh),
        Some(matrix::Activation::Silu),
        Some(matrix::Activation::Tanh),
        Some(matrix::Activation::Sigmoid),
    ];
    let residuals = [
        None,
        Some(matrix::ResidualPlace::Before),
        Some(matrix::ResidualPlace::After),
    ];
    let stochastic = c_type == DType::Bf16 && rng.random_range(0..3) == 0;
    let instr = matrix::MatMul {
        transpose_a: flag(rng),
        transpose_b: flag(rng),
        split: (m_dims != 1 || rng.random_range(0..2) == 0).then_some(m_dims),
        accumulate: Flag(accumulate),
        bias: flag(rng),
        activation: pick(rng, &activations),
        residual: pick(rng, &residuals),
        sums: Flag(sums),
        cfp8: Flag(cfp8),
        stochastic: stochastic.then_some(3),
    };
    let ordinary = |dtype, shape: &[u64]| Operand::new(dtype, shape).with(Content::Ordinary);
    let a_shape = if *instr.transpose_a {
        [&k[..], &m].concat()
    } else {
        [&m[..], &k].concat()
    };
    let b_shape = if *instr.transpose_b {
        [&[n], &b_k[..]].concat()
    } else {
        [&b_k[..], &[n]].concat()
    };
    let c_shape = [&m[..], &[n]].concat();
    let mut operands = vec![
        ordinary(c_type, &c_shape),
        ordinary(a_type, &a_shape),
        ordinary(b_type, &b_shape),
    ];
    if sums {
        operands.push(ordinary(DType::F32, &c_shape));
    }
    if *instr.bias {
        operands.push(ordinary(DType::F32, &[n]).strided());
    }
    if instr.residual.is_some() {
        let dtype = pick(rng, &[DType::Bf16, DType::F32]);
        operands.push(ordinary(dtype, &c_shape));
    }
    if cfp8 {
        let bias = Operand::new(DType::U8, &[1]).with(Content::Bias).strided();
        operands.extend([bias.clone(), bias]);
    }
    let mut case = case(instr, operands);
    if stochastic {
        case.scalars = vec![rng.random_range(0..1000), n as i64 + rng.random_range(0..9)];
    }
    case
}
/// A sample that comes with an instruction.
pub fn sample(rng: &mut Pcg64, instr: Instr, views: &[ViewType]) -> Case {
    let roles = instr.roles();
    let content = |name: &str| match (&instr, name) {
        (Instr::MatMul(_), "bias_a" | "bias_b") | (Instr::Convert(_), "bias") => Content::Bias,
        (Instr::MatMul(_), _) => Content::Ordinary,
        (Instr::Gather(_), "indices") => Content::Index(views[1].shape[0]),
        (Instr::Scatter(_), "indices") => Content::Index(views[0].shape[0]),
        _ => Content::Any,
    };
    let operand = |(role, view): (&dojoc_ir::program::instr::Role, &ViewType)| Operand {
        strided: view.packing == Packing::Strided,
        ..Operand::new(view.dtype, &view.shape).with(content(role.name))
    };
    let operands = roles.iter().zip(views).map(operand).collect();
    let mut case = case(instr.clone(), operands);
    for scalar in &mut case.scalars {
        *scalar = rng.random_range(0..100);
    }
    case
}
