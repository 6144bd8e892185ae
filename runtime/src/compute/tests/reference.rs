//! The instructions once more: element by element on dense tensors, as their documentation has it.

use dojoc_ir::attr::Number;
use dojoc_ir::formats::{BF16, Bias, CFP8_143, CFP8_152, F16, MiniFloat, SHP, UHP, random_bits};
use dojoc_ir::program::instr::matrix::{Activation, MatMul, ResidualPlace};
use dojoc_ir::program::instr::{convert, data, reduce, vector};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::Class;
use rand::{Rng, RngExt};

use super::{Logical, multi_index};
use crate::compute::Instr;
use crate::kernels::{Unary, by_name};
use dojoc_ir::types::DType;

const SEED: u64 = 11;
const STEP: u64 = 7;

/// A float of one of several kinds: any bits, special, of moderate size, tiny.
pub fn any_f32(rng: &mut impl Rng) -> f32 {
    const SPECIAL: [u32; 10] = [
        0,
        0x8000_0000,
        0x7F80_0000,
        0xFF80_0000,
        0x7FC0_0001,
        0xFF80_0001,
        1,
        0x807F_FFFF,
        0x0080_0000,
        0x3F80_0000,
    ];
    let bits: u32 = rng.random();
    match rng.random_range(0..8) {
        0 => f32::from_bits(bits),
        1 => f32::from_bits(SPECIAL[bits as usize % SPECIAL.len()]),
        2 => f32::from_bits(bits & 0x807F_FFFF | (bits >> 3 & 3) << 23),
        // So that there are equals.
        3 => (bits % 4) as f32 - 1.0,
        _ => rng.random_range(-8.0..8.0),
    }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

fn finish(x: f32) -> f32 {
    if x.is_nan() {
        f32::from_bits(0x7FC0_0000)
    } else {
        flush(x)
    }
}

/// A float operand.
fn float(dtype: DType, bits: u64) -> f32 {
    finish(match dtype {
        DType::F32 => f32::from_bits(bits as u32),
        DType::Bf16 => BF16.decode(bits as u16, Bias::ZERO),
        _ => F16.decode(bits as u16, Bias::ZERO),
    })
}

/// A float result.
fn of_float(dtype: DType, x: f32) -> u64 {
    let x = finish(x);
    match dtype {
        DType::F32 => x.to_bits().into(),
        DType::Bf16 => BF16.encode(x, Bias::ZERO, None).into(),
        _ => F16.encode(x, Bias::ZERO, None).into(),
    }
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::Bf16 | DType::F16)
}

/// An integer or truth value.
fn int(dtype: DType, bits: u64) -> Scalar {
    if dtype == DType::Bool {
        return Scalar::Bool(bits != 0);
    }
    Scalar::Int(bits.into()).wrap(dtype)
}

fn of_int(dtype: DType, x: Scalar) -> u64 {
    (x.to_int() as u64) & (u64::MAX >> (64 - 8 * dtype.bytes()))
}

/// A number of an attribute.
fn number(dtype: DType, number: Number) -> u64 {
    match (number, dtype) {
        (Number::Int(i), DType::F64) => (i as f64).to_bits(),
        (Number::Float(x), DType::F64) if x.0.is_nan() => f64::NAN.to_bits(),
        (Number::Float(x), DType::F64) => x.0.to_bits(),
        (Number::Float(x), DType::F32) if x.0.is_nan() => 0x7FC0_0000,
        (Number::Float(x), DType::F32) => (x.0 as f32).to_bits().into(),
        (Number::Int(i), DType::F32) => (i as f32).to_bits().into(),
        (Number::Float(x), DType::Bf16 | DType::F16) => nearest(dtype, x.0).into(),
        (Number::Int(i), DType::Bf16 | DType::F16) => nearest(dtype, i as f64).into(),
        (number, dtype) => of_int(dtype, number.to_scalar(dtype)),
    }
}

/// The 16-bit code nearest to an f64, found among the neighbours of a first guess.
fn nearest(dtype: DType, x: f64) -> u16 {
    let format = if dtype == DType::Bf16 { &BF16 } else { &F16 };
    let guess = format.encode(x as f32, Bias::ZERO, None);
    if x.is_nan() {
        return if dtype == DType::Bf16 { 0x7FC0 } else { 0x7E00 };
    }
    let value = |code: u16| -> f64 {
        let exponent = if dtype == DType::Bf16 { 0x7F80 } else { 0x7C00 };
        if code & 0x7FFF == exponent {
            // Where the next value would be.
            let step: f64 = if dtype == DType::Bf16 {
                2f64.powi(128)
            } else {
                65536.0
            };
            return if code >> 15 == 1 { -step } else { step };
        }
        format.decode(code, Bias::ZERO).into()
    };
    let top: u16 = if dtype == DType::Bf16 { 0x7F80 } else { 0x7C00 };
    let mut best = guess;
    for code in [guess.wrapping_sub(1), guess.wrapping_add(1)] {
        if code & 0x7FFF > top || code >> 15 != guess >> 15 {
            continue;
        }
        let (new, old) = ((value(code) - x).abs(), (value(best) - x).abs());
        if new < old || new == old && code & 1 == 0 {
            best = code;
        }
    }
    best
}

fn unary(op: Unary, x: f32) -> f32 {
    let mut y = [0.0];
    by_name("scalar").unwrap().unary_f32(op, &[x], &mut y);
    y[0]
}

fn map(function: vector::MapFunction, dtype: DType, x: u64) -> u64 {
    use vector::MapFunction as F;
    if !is_float(dtype) {
        let f = match function {
            F::Neg => UnaryFn::Neg,
            F::Abs => UnaryFn::Abs,
            _ => UnaryFn::Not,
        };
        return of_int(dtype, f.apply(int(dtype, x), dtype));
    }
    let x = float(dtype, x);
    let y = match function {
        F::Neg => -x,
        F::Abs => x.abs(),
        F::Relu if x.is_nan() => x,
        F::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        F::Sqrt => x.sqrt(),
        F::Recip => 1.0 / x,
        F::Floor => x.floor(),
        F::Ceil => x.ceil(),
        F::Round => x.round_ties_even(),
        other => {
            let name = other.name();
            let op = Unary::ALL.iter().find(|op| op.name() == name).unwrap();
            unary(*op, x)
        }
    };
    of_float(dtype, y)
}

fn zip_float(function: vector::ZipFunction, a: f32, b: f32) -> f32 {
    use vector::ZipFunction as F;
    let least = |a: f32, b: f32| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else if a.total_cmp(&b).is_lt() {
            a
        } else {
            b
        }
    };
    match function {
        F::Add => a + b,
        F::Sub => a - b,
        F::Mul => a * b,
        F::Div => a / b,
        F::Min => least(a, b),
        F::Max => -least(-a, -b),
        F::Pow => libm::powf(a, b),
        _ => unreachable!(),
    }
}

fn zip(function: vector::ZipFunction, dtype: DType, a: u64, b: u64) -> u64 {
    if is_float(dtype) {
        let y = zip_float(function, float(dtype, a), float(dtype, b));
        return of_float(dtype, y);
    }
    let f = BinaryFn::parse(function.name()).unwrap();
    of_int(dtype, f.apply(int(dtype, a), int(dtype, b), dtype))
}

fn scalar(dtype: DType, bits: u64) -> Scalar {
    if is_float(dtype) {
        Scalar::F32(float(dtype, bits))
    } else {
        int(dtype, bits)
    }
}

fn format(dtype: DType) -> &'static MiniFloat {
    match dtype {
        DType::Cfp8E4M3 => &CFP8_143,
        DType::Cfp8E5M2 => &CFP8_152,
        DType::Shp => &SHP,
        DType::Uhp => &UHP,
        DType::Bf16 => &BF16,
        _ => &F16,
    }
}

fn converted(
    instr: &convert::Convert,
    from: DType,
    to: DType,
    x: u64,
    bias: Bias,
    i: u64,
    first: i64,
) -> u64 {
    let configurable = |dtype: DType| dtype.class() == Class::Configurable;
    if let Some(site) = instr.stochastic {
        let noise = random_bits(SEED, STEP, site, (first as u64).wrapping_add(i));
        return format(to).encode(float(from, x), bias, Some(noise)).into();
    }
    if configurable(from) && from == to {
        return x;
    }
    if configurable(from) {
        return of_float(to, finish(format(from).decode(x as u16, bias)));
    }
    if configurable(to) {
        return format(to).encode(float(from, x), bias, None).into();
    }
    let value = match from {
        DType::F64 => Scalar::F64(f64::from_bits(x)),
        _ => scalar(from, x),
    };
    match to {
        DType::Bool => value.to_bool().into(),
        DType::F64 => match value.to_f64() {
            x if x.is_nan() => f64::NAN.to_bits(),
            x => x.to_bits(),
        },
        _ if is_float(to) => match (value, to) {
            (Scalar::F64(x), DType::Bf16) => of_float(to, float(to, nearest(to, x).into())),
            (Scalar::F64(x), DType::F16) => nearest(to, x).into(),
            (Scalar::Int(i), DType::F32) => of_float(to, i as f32),
            (value, _) => of_float(to, value.to_f64() as f32),
        },
        _ => of_int(to, value.convert(to)),
    }
}

fn position(dtype: DType, at: usize) -> u64 {
    of_int(dtype, Scalar::Int(at as i128))
}

/// `x` in rows along its last `dims` dimensions.
fn rows(x: &Logical, dims: usize) -> Vec<&[u64]> {
    let kept = x.shape.len() - dims;
    let outer: u64 = x.shape[..kept].iter().product();
    let inner: u64 = x.shape[kept..].iter().product();
    (0..outer)
        .map(|i| &x.bits[(i * inner) as usize..][..inner as usize])
        .collect()
}

fn reduce_row(function: reduce::ReduceFunction, dtype: DType, x: &[u64]) -> (f32, u64) {
    use reduce::ReduceFunction as F;
    if is_float(dtype) {
        let (identity, f) = match function {
            F::Sum => (0.0, vector::ZipFunction::Add),
            F::Prod => (1.0, vector::ZipFunction::Mul),
            F::Min => (f32::INFINITY, vector::ZipFunction::Min),
            _ => (f32::NEG_INFINITY, vector::ZipFunction::Max),
        };
        let mut lanes = [identity; 32];
        for (i, x) in x.iter().enumerate() {
            lanes[i % 32] = zip_float(f, lanes[i % 32], float(dtype, *x));
        }
        for h in [16, 8, 4, 2, 1] {
            for l in 0..h {
                lanes[l] = zip_float(f, lanes[l], lanes[l + h]);
            }
        }
        return (finish(lanes[0]), 0);
    }
    let (low, high) = dtype.int_range().unwrap_or((0, 1));
    let (identity, f) = match function {
        F::Sum => (0, BinaryFn::Add),
        F::Prod => (1, BinaryFn::Mul),
        F::Min => (high, BinaryFn::Min),
        F::Max => (low, BinaryFn::Max),
        F::And => (1, BinaryFn::And),
        F::Or => (0, BinaryFn::Or),
    };
    let identity = Scalar::Int(identity).convert(dtype);
    let result = x
        .iter()
        .fold(identity, |r, x| f.apply(r, int(dtype, *x), dtype));
    (0.0, of_int(dtype, result))
}

fn pair_of(function: reduce::ReduceFunction) -> vector::ZipFunction {
    use reduce::ReduceFunction as F;
    match function {
        F::Sum => vector::ZipFunction::Add,
        F::Prod => vector::ZipFunction::Mul,
        F::Min => vector::ZipFunction::Min,
        F::Max => vector::ZipFunction::Max,
        F::And => vector::ZipFunction::And,
        F::Or => vector::ZipFunction::Or,
    }
}

fn reduced(instr: &reduce::Reduce, old: u64, to: DType, from: DType, x: &[u64]) -> u64 {
    let (wide, bits) = reduce_row(instr.function, from, x);
    let pair = pair_of(instr.function);
    match (is_float(from), *instr.accumulate) {
        (true, true) => of_float(to, zip_float(pair, float(to, old), wide)),
        (true, false) => of_float(to, wide),
        (false, true) => zip(pair, to, old, bits),
        (false, false) => bits,
    }
}

/// Whether a is before b in ascending order: NaN last, zeros equal.
fn before(dtype: DType, a: u64, b: u64) -> bool {
    if is_float(dtype) {
        let (a, b) = (float(dtype, a), float(dtype, b));
        a < b || !a.is_nan() && b.is_nan()
    } else {
        int(dtype, a).to_int() < int(dtype, b).to_int()
    }
}

fn arg_row(instr: &reduce::ArgReduce, dtype: DType, x: &[u64]) -> usize {
    if is_float(dtype)
        && let Some(nan) = x.iter().position(|x| float(dtype, *x).is_nan())
    {
        return nan;
    }
    let largest = instr.function == reduce::ArgFunction::ArgMax;
    let mut best = 0;
    for i in 1..x.len() {
        let (better, worse) = if largest {
            (before(dtype, x[best], x[i]), before(dtype, x[i], x[best]))
        } else {
            (before(dtype, x[i], x[best]), before(dtype, x[best], x[i]))
        };
        if better || *instr.last && !worse {
            best = i;
        }
    }
    best
}

fn scan_row(instr: &reduce::Scan, dtype: DType, x: &[u64]) -> Vec<u64> {
    use reduce::{ReduceFunction, ScanFunction as F};
    let (function, pair) = match instr.function {
        F::Sum => (ReduceFunction::Sum, vector::ZipFunction::Add),
        F::Prod => (ReduceFunction::Prod, vector::ZipFunction::Mul),
        F::Max => (ReduceFunction::Max, vector::ZipFunction::Max),
        F::Min => (ReduceFunction::Min, vector::ZipFunction::Min),
    };
    let (mut wide, mut bits) = reduce_row(function, dtype, &[]);
    let mut y = vec![0; x.len()];
    for step in 0..x.len() {
        let i = if *instr.reverse {
            x.len() - 1 - step
        } else {
            step
        };
        let earlier = if is_float(dtype) {
            of_float(dtype, wide)
        } else {
            bits
        };
        if is_float(dtype) {
            wide = finish(zip_float(pair, wide, float(dtype, x[i])));
        } else {
            bits = zip(pair, dtype, bits, x[i]);
        }
        let next = if is_float(dtype) {
            of_float(dtype, wide)
        } else {
            bits
        };
        y[i] = if *instr.exclusive { earlier } else { next };
    }
    y
}

fn sorted_row(descending: bool, dtype: DType, x: &[u64], kept: usize) -> Vec<(u64, usize)> {
    // Insertion keeps the order of equals.
    let mut sorted: Vec<(u64, usize)> = Vec::new();
    for (i, x) in x.iter().enumerate() {
        let after = sorted.iter().position(|(y, _)| {
            if descending {
                before(dtype, *y, *x)
            } else {
                before(dtype, *x, *y)
            }
        });
        sorted.insert(after.unwrap_or(sorted.len()), (*x, i));
    }
    sorted.truncate(kept);
    sorted
}

/// Row of an index among `n`, if it is in range.
fn row_of(indices: &Logical, i: usize, n: u64) -> Option<usize> {
    let index = int(indices.dtype, indices.bits[i]).to_int();
    let row = if index < 0 {
        index + i128::from(n)
    } else {
        index
    };
    (0..i128::from(n)).contains(&row).then_some(row as usize)
}

fn gather(instr: &data::Gather, y: &mut Logical, x: &Logical, indices: &Logical) -> Option<()> {
    let inner = x.shape[1..].iter().product::<u64>() as usize;
    for i in 0..indices.bits.len() {
        let to = &mut y.bits[i * inner..][..inner];
        match (row_of(indices, i, x.shape[0]), instr.fill) {
            (Some(row), _) => to.copy_from_slice(&x.bits[row * inner..][..inner]),
            (None, Some(fill)) => to.fill(number(x.dtype, fill)),
            (None, None) => return None,
        }
    }
    Some(())
}

fn scatter(
    instr: &data::Scatter,
    y: &mut Logical,
    updates: &Logical,
    indices: &Logical,
) -> Option<()> {
    let inner = y.shape[1..].iter().product::<u64>() as usize;
    for i in 0..indices.bits.len() {
        let Some(row) = row_of(indices, i, y.shape[0]) else {
            if *instr.skip {
                continue;
            }
            return None;
        };
        for j in 0..inner {
            let (to, from) = (&mut y.bits[row * inner + j], updates.bits[i * inner + j]);
            *to = if *instr.add {
                zip(vector::ZipFunction::Add, y.dtype, *to, from)
            } else {
                from
            };
        }
    }
    Some(())
}

fn pad(instr: &data::Pad, y: &mut Logical, x: &Logical) {
    let fill = instr.value.map_or(0, |value| number(y.dtype, value));
    for i in 0..y.bits.len() {
        let index = multi_index(i as u64, &y.shape);
        let mut from = 0;
        let mut inside = true;
        for ((index, low), extent) in index.iter().zip(&instr.low).zip(&x.shape) {
            let at = index.wrapping_sub(*low);
            inside &= at < *extent;
            from = from * extent + at.min(*extent);
        }
        y.bits[i] = if inside { x.bits[from as usize] } else { fill };
    }
}

/// An operand of a tile product as a matrix of `rows` rows.
fn operand_matrix(x: &Logical, bias: Option<Bias>, rows: usize, transposed: bool) -> Vec<Vec<f32>> {
    let columns = x.bits.len().checked_div(rows).unwrap_or(0);
    let value = |bits: u64| match bias {
        Some(bias) => format(x.dtype).decode(bits as u16, bias),
        None => float(x.dtype, bits),
    };
    let at = |i: usize, j: usize| {
        if transposed {
            j * rows + i
        } else {
            i * columns + j
        }
    };
    (0..rows)
        .map(|i| (0..columns).map(|j| value(x.bits[at(i, j)])).collect())
        .collect()
}

/// A step of a bf16 product; operands are chosen so that nothing is subnormal but zero.
fn dot(a: f32, b: f32, c: f32) -> f32 {
    let result = a.mul_add(b, c);
    assert!(!result.is_subnormal(), "the cases avoid this");
    result
}

fn matmul(instr: &MatMul, c: &mut Logical, sources: &[Logical], scalars: &[i64]) {
    let mut rest = sources.iter();
    let mut next = |there: bool| if there { rest.next() } else { None };
    let (a, b) = (next(true).unwrap(), next(true).unwrap());
    let sums = next(*instr.sums);
    let bias = next(*instr.bias);
    let residual = next(instr.residual.is_some());
    let exponent = |x: Option<&Logical>| x.and_then(|x| Bias::new(x.bits[0] as u8));
    let (bias_a, bias_b) = (exponent(next(*instr.cfp8)), exponent(next(*instr.cfp8)));
    let n = *c.shape.last().unwrap() as usize;
    let m = c.shape[..c.shape.len() - 1].iter().product::<u64>() as usize;
    let a = operand_matrix(a, bias_a, m, *instr.transpose_a);
    // Rows of B transposed are its columns.
    let f32_steps = sources[0].dtype == DType::F32;
    let b = operand_matrix(b, bias_b, n, !*instr.transpose_b);
    for i in 0..m {
        for j in 0..n {
            let at = i * n + j;
            let mut sum = match (*instr.accumulate, sums) {
                (true, Some(sums)) => float(DType::F32, sums.bits[at]),
                (true, None) => float(DType::F32, c.bits[at]),
                _ => 0.0,
            };
            let (a, b) = (&a[i], &b[j]);
            let k = a.len();
            if f32_steps {
                for p in 0..k {
                    sum = a[p].mul_add(b[p], sum);
                }
            } else {
                for p in (0..k).step_by(2) {
                    if p + 1 < k {
                        sum = dot(a[p + 1], b[p + 1], sum);
                    } else {
                        sum = dot(0.0, 0.0, sum);
                    }
                    sum = dot(a[p], b[p], sum);
                }
            }
            sum = finish(sum);
            if let Some(bias) = bias {
                sum = finish(sum + float(DType::F32, bias.bits[j]));
            }
            let residual = residual.map(|r| float(r.dtype, r.bits[at]));
            if let (Some(r), Some(ResidualPlace::Before)) = (residual, instr.residual) {
                sum = finish(sum + r);
            }
            sum = match instr.activation {
                None => sum,
                Some(Activation::Relu) => unary(Unary::Relu, sum),
                Some(Activation::Gelu) => unary(Unary::Gelu, sum),
                Some(Activation::GeluTanh) => unary(Unary::GeluTanh, sum),
                Some(Activation::Silu) => unary(Unary::Silu, sum),
                Some(Activation::Tanh) => unary(Unary::Tanh, sum),
                Some(Activation::Sigmoid) => unary(Unary::Sigmoid, sum),
            };
            if let (Some(r), Some(ResidualPlace::After)) = (residual, instr.residual) {
                sum = finish(sum + r);
            }
            c.bits[at] = match instr.stochastic {
                Some(site) => {
                    let index = scalars[0] as u64 + i as u64 * scalars[1] as u64 + j as u64;
                    let noise = random_bits(SEED, STEP, site, index);
                    BF16.encode(sum, Bias::ZERO, Some(noise)).into()
                }
                None => of_float(c.dtype, sum),
            };
        }
    }
}

/// What the targets hold afterwards; `None` where data is refused.
pub fn execute(
    instr: &Instr,
    targets: &[Logical],
    sources: &[Logical],
    scalars: &[i64],
) -> Option<Vec<Logical>> {
    let mut results = targets.to_vec();
    let y = &mut results[0];
    let dtype = y.dtype;
    let second = |value: Option<Number>, i: usize| match value {
        Some(value) => number(sources[0].dtype, value),
        None => sources[1].bits[i],
    };
    let each = |y: &mut Logical, f: &dyn Fn(usize) -> u64| {
        y.bits = (0..y.bits.len()).map(f).collect();
    };
    match instr {
        Instr::MatMul(instr) => matmul(instr, y, sources, scalars),
        Instr::Map(instr) => each(y, &|i| map(instr.function, dtype, sources[0].bits[i])),
        Instr::Zip(instr) => each(y, &|i| {
            zip(
                instr.function,
                dtype,
                sources[0].bits[i],
                second(instr.value, i),
            )
        }),
        Instr::MulAdd(_) => each(y, &|i| {
            let [a, b, c] = [0, 1, 2].map(|s| float(dtype, sources[s].bits[i]));
            of_float(dtype, a.mul_add(b, c))
        }),
        Instr::Clamp(instr) => each(y, &|i| {
            let low = number(dtype, instr.low);
            let high = number(dtype, instr.high);
            let x = zip(vector::ZipFunction::Max, dtype, sources[0].bits[i], low);
            zip(vector::ZipFunction::Min, dtype, x, high)
        }),
        Instr::Compare(instr) => each(y, &|i| {
            let dtype = sources[0].dtype;
            let (a, b) = (sources[0].bits[i], second(instr.value, i));
            let f = BinaryFn::parse(instr.function.name()).unwrap();
            let truth = f.apply(scalar(dtype, a), scalar(dtype, b), dtype);
            truth.to_bool().into()
        }),
        Instr::Select(_) => each(y, &|i| {
            let chosen = if sources[0].bits[i] != 0 { 1 } else { 2 };
            sources[chosen].bits[i]
        }),
        Instr::Fill(instr) => each(y, &|_| number(dtype, instr.value)),
        Instr::Iota(instr) => {
            let shape = y.shape.clone();
            each(y, &|i| {
                let index = multi_index(i as u64, &shape)[instr.axis] as i64;
                let value = scalars[0].wrapping_add(instr.step.wrapping_mul(index));
                if dtype == DType::F32 {
                    (value as f32).to_bits().into()
                } else {
                    of_int(dtype, Scalar::Int(value.into()))
                }
            });
        }
        Instr::Reduce(instr) => {
            let rows = rows(&sources[0], instr.dims);
            let old = y.bits.clone();
            each(y, &|i| {
                reduced(instr, old[i], dtype, sources[0].dtype, rows[i])
            });
        }
        Instr::ArgReduce(instr) => {
            let rows = rows(&sources[0], 1);
            each(y, &|i| {
                position(dtype, arg_row(instr, sources[0].dtype, rows[i]))
            });
        }
        Instr::Scan(instr) => {
            let rows = rows(&sources[0], 1);
            y.bits = rows
                .iter()
                .flat_map(|x| scan_row(instr, dtype, x))
                .collect();
        }
        Instr::Convert(instr) => {
            let bias = sources
                .get(1)
                .map_or(Some(Bias::ZERO), |b| Bias::new(b.bits[0] as u8))?;
            let first = scalars.first().copied().unwrap_or(0);
            each(y, &|i| {
                let x = sources[0].bits[i];
                converted(instr, sources[0].dtype, dtype, x, bias, i as u64, first)
            });
        }
        Instr::Copy(_) => y.bits.clone_from(&sources[0].bits),
        Instr::Pad(instr) => pad(instr, y, &sources[0]),
        Instr::Gather(instr) => gather(instr, y, &sources[0], &sources[1])?,
        Instr::Scatter(instr) => scatter(instr, y, &sources[0], &sources[1])?,
        Instr::Sort(_) | Instr::TopK(_) => {
            let descending = match instr {
                Instr::Sort(instr) => *instr.descending,
                Instr::TopK(instr) => !*instr.smallest,
                _ => unreachable!(),
            };
            let kept = *y.shape.last().unwrap() as usize;
            let sorted: Vec<(u64, usize)> = rows(&sources[0], 1)
                .into_iter()
                .flat_map(|x| sorted_row(descending, dtype, x, kept))
                .collect();
            y.bits = sorted.iter().map(|(x, _)| *x).collect();
            let to = results[1].dtype;
            results[1].bits = sorted.iter().map(|(_, i)| position(to, *i)).collect();
        }
    }
    Some(results)
}
