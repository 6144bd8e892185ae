//! Conversions between f32 and the narrow formats against a model of its own.
//!
//! The model is written from the published descriptions: Tesla's *Guide to Tesla's Configurable
//! Floating Point Formats & Arithmetic* (2021) for cfp8, shp and uhp, IEEE 754 for binary16, and
//! for bfloat16 that it is the upper half of a binary32. It knows the widths of fields and the
//! value of each code, in f64, which holds them exactly. Rounding is a search in the table of all
//! values. Where the descriptions leave something open (ties, NaN operands, what stochastic rounding
//! does with its random bits), the model has what the documentation of `dojoc_ir::formats` states.
//! It shares no code with the conversions; random bits are an operand to both.
//!
//! All codes are checked under all biases, and so are all points half-way between two values and
//! their neighbours. Then ten million drawn values for each format and rounding, spread over all
//! biases.

use dojoc_ir::formats::{BF16, Bias, CFP8_143, CFP8_152, F16, MiniFloat, SHP, UHP, random_bits};
use dojoc_runtime::kernels::{
    Cfp8, Cfp8Decoder, Draw, available, decode_minifloat, encode_cfp8, encode_minifloat,
};
use half::{bf16, f16};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Drawn values for each format and rounding.
const VALUES: usize = 10_000_000;

/// What lies above the largest finite value.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Top {
    /// Nothing: the top exponent is an ordinary one, all that is larger becomes the largest, and NaN
    /// the largest positive value.
    Largest,
    /// Infinity and NaN have codes; finite operands beyond the range become the largest value.
    Clamped,
    /// As in IEEE 754.
    Infinity,
}

/// A published format.
#[derive(Clone, Copy, Debug)]
struct Format {
    name: &'static str,
    signed: bool,
    exponent: u32,
    mantissa: u32,
    /// `None` for a configurable bias.
    bias: Option<u8>,
    top: Top,
    /// Codes with exponent field zero stand for zero.
    flushes: bool,
    /// The definition in the IR, which is checked as well as the kernels.
    definition: MiniFloat,
}

const TESLA: Format = Format {
    name: "cfp8_143",
    signed: true,
    exponent: 4,
    mantissa: 3,
    bias: None,
    top: Top::Largest,
    flushes: false,
    definition: CFP8_143,
};

const FORMATS: [Format; 6] = [
    TESLA,
    Format {
        name: "cfp8_152",
        exponent: 5,
        mantissa: 2,
        definition: CFP8_152,
        ..TESLA
    },
    Format {
        name: "shp",
        exponent: 5,
        mantissa: 10,
        definition: SHP,
        ..TESLA
    },
    Format {
        name: "uhp",
        signed: false,
        exponent: 6,
        mantissa: 10,
        bias: Some(31),
        top: Top::Clamped,
        flushes: true,
        definition: UHP,
    },
    Format {
        name: "bf16",
        exponent: 8,
        mantissa: 7,
        bias: Some(127),
        top: Top::Infinity,
        definition: BF16,
        ..TESLA
    },
    Format {
        name: "f16",
        exponent: 5,
        mantissa: 10,
        bias: Some(15),
        top: Top::Infinity,
        definition: F16,
        ..TESLA
    },
];

/// What a code stands for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Meaning {
    Number(f64),
    Infinity { negative: bool },
    Nan,
}

impl Format {
    fn biases(&self) -> Vec<Bias> {
        match self.bias {
            None => (0..64).filter_map(Bias::new).collect(),
            Some(_) => vec![Bias::ZERO],
        }
    }

    fn codes(&self) -> u32 {
        1 << (u32::from(self.signed) + self.exponent + self.mantissa)
    }

    /// Published: `(-1)^S 2^(E - bias) (1 + M / 2^m)`, and `(-1)^S 2^(1 - bias) M / 2^m` for E = 0.
    fn meaning(&self, code: u32, bias: Bias) -> Meaning {
        let steps = 1u32 << self.mantissa;
        let (m, rest) = (code % steps, code / steps);
        let (e, s) = (rest % (1 << self.exponent), rest >> self.exponent);
        let bias = i32::from(self.bias.unwrap_or(bias.get()));
        let fraction = f64::from(m) / f64::from(steps);
        let top = e == (1 << self.exponent) - 1 && self.top != Top::Largest;
        let magnitude = match e {
            _ if top && m == 0 => return Meaning::Infinity { negative: s == 1 },
            _ if top => return Meaning::Nan,
            0 if self.flushes => 0.0,
            0 => fraction * 2f64.powi(1 - bias),
            _ => (1.0 + fraction) * 2f64.powi(e as i32 - bias),
        };
        Meaning::Number(if s == 1 { -magnitude } else { magnitude })
    }
}

/// Where x lies between two values, in whole units of 2^-32.
fn part(low: f64, x: f64, high: f64) -> f64 {
    ((x - low) / (high - low) * 2f64.powi(32)).floor()
}

/// A format under one bias, with its values in a table.
struct Model {
    format: Format,
    /// Values of the codes from zero to the largest finite one, and, where too large operands become
    /// infinite, the power of two in the place of infinity. Codes that are flushed have the values
    /// that they would have otherwise: rounding comes first.
    values: Vec<f64>,
    /// The code of the largest finite value.
    largest: u32,
}

impl Model {
    fn new(format: Format, bias: Bias) -> Self {
        let gradual = Format {
            flushes: false,
            ..format
        };
        let mut values: Vec<f64> = (0..format.codes())
            .map_while(|code| match gradual.meaning(code, bias) {
                // The sign bit is the highest: negative codes follow the positive ones.
                Meaning::Number(x) if !x.is_sign_negative() => Some(x),
                _ => None,
            })
            .collect();
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]));
        let largest = values.len() as u32 - 1;
        if format.top == Top::Infinity {
            let (last, before) = (values[values.len() - 1], values[values.len() - 2]);
            values.push(last + (last - before));
        }
        Self {
            format,
            values,
            largest,
        }
    }

    /// The code of a finite magnitude: to nearest even without `noise`; with it, up where the
    /// fraction of the way to the next value, in units of 2^-32, and the noise make a whole.
    fn magnitude(&self, x: f64, noise: Option<u32>) -> u32 {
        let above = self.values.partition_point(|v| *v <= x);
        let below = above as u32 - 1;
        let Some(high) = self.values.get(above) else {
            return below;
        };
        let low = self.values[above - 1];
        let up = match noise {
            None => {
                let (down, up) = (x - low, high - x);
                up < down || (up == down && below % 2 == 1)
            }
            Some(noise) => part(low, x, *high) + f64::from(noise) >= 2f64.powi(32),
        };
        below + u32::from(up)
    }

    /// The last random bits that round a finite operand down and the first that round it up, where
    /// there are such.
    fn turning_point(&self, x: f32) -> Option<[u32; 2]> {
        let x = f64::from(x.abs());
        let above = self.values.partition_point(|v| *v <= x);
        let (low, high) = (
            self.values.get(above.checked_sub(1)?)?,
            self.values.get(above)?,
        );
        let up = 2f64.powi(32) - part(*low, x, *high);
        (up < 2f64.powi(32)).then_some([up as u32 - 1, up as u32])
    }

    /// The code of an operand; `None` for any NaN.
    fn encode(&self, x: f32, noise: Option<u32>) -> Option<u32> {
        let format = &self.format;
        if x.is_nan() {
            return (format.top == Top::Largest).then_some(self.largest);
        }
        let negative = x.is_sign_negative();
        if negative && !format.signed {
            return Some(0);
        }
        let code = if x.is_infinite() {
            self.largest + u32::from(format.top != Top::Largest)
        } else {
            self.magnitude(f64::from(x.abs()), noise)
        };
        let flushed = format.flushes && code < 1 << format.mantissa;
        let code = if flushed { 0 } else { code };
        Some(if negative {
            code + format.codes() / 2
        } else {
            code
        })
    }

    /// Whether `code` is what the operand must become.
    fn accepts(&self, code: u32, x: f32, noise: Option<u32>, bias: Bias) -> bool {
        match self.encode(x, noise) {
            Some(expected) => code == expected,
            None => self.format.meaning(code, bias) == Meaning::Nan,
        }
    }
}

/// The kernels treat subnormal f32 as zeros of their signs.
fn as_kernels_read(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

fn cfp8(format: &Format) -> Option<Cfp8> {
    match format.name {
        "cfp8_143" => Some(Cfp8::E4M3),
        "cfp8_152" => Some(Cfp8::E5M2),
        _ => None,
    }
}

/// The codes that kernels give, once for each implementation: name and codes.
fn kernels(
    format: &Format,
    bias: Bias,
    draw: Option<Draw>,
    x: &[f32],
) -> Vec<(&'static str, Vec<u32>)> {
    let mut found = Vec::new();
    match (format.name, draw) {
        ("bf16", _) => {
            for k in available() {
                let mut y = vec![bf16::ZERO; x.len()];
                match draw {
                    None => k.f32_to_bf16(x, &mut y),
                    Some(draw) => k.f32_to_bf16_stochastic(draw, x, &mut y),
                }
                found.push((k.name(), y.iter().map(|y| y.to_bits().into()).collect()));
            }
        }
        ("f16", None) => {
            for k in available() {
                let mut y = vec![f16::ZERO; x.len()];
                k.f32_to_f16(x, &mut y);
                found.push((k.name(), y.iter().map(|y| y.to_bits().into()).collect()));
            }
        }
        _ => match cfp8(format) {
            Some(cfp8) => {
                let mut y = vec![0; x.len()];
                encode_cfp8(cfp8, bias, draw, x, &mut y);
                found.push(("all", y.iter().map(|y| (*y).into()).collect()));
            }
            None => {
                let mut y = vec![0; x.len()];
                encode_minifloat(&format.definition, bias, draw, x, &mut y);
                found.push(("all", y.iter().map(|y| (*y).into()).collect()));
            }
        },
    }
    found
}

/// Checks kernels and definition on operands.
fn check(model: &Model, bias: Bias, draw: Option<Draw>, x: &[f32]) {
    let format = &model.format;
    let noise = |i: usize| {
        draw.map(|d| random_bits(d.seed, d.step, d.site, d.index.wrapping_add(i as u64)))
    };
    let noises: Vec<Option<u32>> = (0..x.len()).map(noise).collect();
    for (kernel, codes) in kernels(format, bias, draw, x) {
        let wrong = (0..x.len())
            .find(|&i| !model.accepts(codes[i], as_kernels_read(x[i]), noises[i], bias));
        let shown = wrong.map(|i| (x[i], x[i].to_bits(), noises[i], codes[i]));
        assert_eq!(shown, None, "{} bias {bias}, {kernel}", format.name);
    }
    let defined = |i: usize| u32::from(format.definition.encode(x[i], bias, noises[i]));
    let wrong = (0..x.len()).find(|&i| !model.accepts(defined(i), x[i], noises[i], bias));
    let shown = wrong.map(|i| (x[i], x[i].to_bits(), noises[i], defined(i)));
    assert_eq!(shown, None, "{} bias {bias}, definition", format.name);
}

/// An operand: any bits, any exponent near the format's range, a point half-way between two values or
/// beside it, a value or beside it, a special one.
fn operand(model: &Model, rng: &mut impl Rng) -> f32 {
    let last = model.values.len() - 1;
    let magnitude = match rng.random_range(0..8) {
        0 | 1 => return f32::from_bits(rng.random()),
        2 | 3 => {
            let lowest = model.values[1].log2() as i32 - 4;
            let highest = model.values[last].log2() as i32 + 2;
            let field = rng.random_range(lowest..=highest).clamp(-126, 127) + 127;
            f32::from_bits((field as u32) << 23 | rng.random::<u32>() >> 9)
        }
        4 | 5 => {
            let i = rng.random_range(0..last);
            beside(((model.values[i] + model.values[i + 1]) / 2.0) as f32, rng)
        }
        6 => beside(model.values[rng.random_range(0..last)] as f32, rng),
        _ => {
            let top = model.values[model.largest as usize] as f32;
            let least = model.values[1] as f32;
            let special = [
                0.0,
                f32::INFINITY,
                f32::NAN,
                f32::from_bits(0x7F80_0001),
                f32::MAX,
                f32::MIN_POSITIVE,
                f32::from_bits(1),
                f32::from_bits(0x007F_FFFF),
                top,
                top.next_up(),
                top.next_down(),
                2.0 * top,
                least,
                least / 2.0,
                (least / 2.0).next_up(),
                least / 1024.0,
            ];
            special[rng.random_range(0..special.len())]
        }
    };
    if rng.random() { magnitude } else { -magnitude }
}

/// The value or one of its neighbours.
fn beside(x: f32, rng: &mut impl Rng) -> f32 {
    match rng.random_range(0..4) {
        0 => x.next_up(),
        1 => x.next_down(),
        _ => x,
    }
}

/// Checks the definition with the random bits at which the outcome changes, for a part of operands.
fn check_turning_points(model: &Model, bias: Bias, x: &[f32]) {
    let format = &model.format;
    for x in x.iter().step_by(4).filter(|x| x.is_finite()) {
        for noise in model.turning_point(*x).into_iter().flatten() {
            let code = u32::from(format.definition.encode(*x, bias, Some(noise)));
            let right = model.accepts(code, *x, Some(noise), bias);
            assert!(right, "{} bias {bias}: {x:e} with {noise:#x}", format.name);
        }
    }
}

/// Checks drawn operands over all biases.
fn check_drawn(format: Format, stochastic: bool) {
    let biases = format.biases();
    let count = VALUES.div_ceil(biases.len());
    let mut rng = Pcg64Mcg::seed_from_u64(u64::from(format.codes()) + u64::from(stochastic));
    for bias in biases {
        let model = Model::new(format, bias);
        let mut left = count;
        while left > 0 {
            let n = left.min(4096);
            let x: Vec<f32> = (0..n).map(|_| operand(&model, &mut rng)).collect();
            let draw = Draw {
                seed: rng.random(),
                step: rng.random(),
                site: rng.random(),
                index: rng.random(),
            };
            check(&model, bias, stochastic.then_some(draw), &x);
            if stochastic {
                check_turning_points(&model, bias, &x);
            }
            left -= n;
        }
    }
}

#[test]
fn published_ranges() {
    let range = |format: usize, bias: u8| {
        let values = Model::new(FORMATS[format], Bias::new(bias).unwrap()).values;
        let first_normal = 1 << FORMATS[format].mantissa;
        (values[first_normal], values[values.len() - 1])
    };
    // The ranges that Tesla's guide gives for cfp8.
    assert_eq!(range(0, 0), (2.0, 1.875 * 2f64.powi(15)));
    assert_eq!(range(0, 63), (2f64.powi(-62), 1.875 * 2f64.powi(-48)));
    assert_eq!(range(1, 0), (2.0, 1.75 * 2f64.powi(31)));
    assert_eq!(range(1, 31), (2f64.powi(-30), 1.75));
    assert_eq!(range(1, 63), (2f64.powi(-62), 1.75 * 2f64.powi(-32)));
    // The largest binary16 is 65504; the next power of two takes the place of infinity.
    assert_eq!(range(5, 0), (2f64.powi(-14), 65536.0));
}

/// All ways to widen codes, by name.
fn widened(format: &Format, bias: Bias, codes: &[u16]) -> Vec<(&'static str, Vec<f32>)> {
    let mut wide = vec![0.0; codes.len()];
    decode_minifloat(&format.definition, bias, codes, &mut wide);
    let mut found = vec![("all", wide.clone())];
    for k in available() {
        match (format.name, cfp8(format)) {
            ("bf16", _) => {
                let x: Vec<bf16> = codes.iter().map(|c| bf16::from_bits(*c)).collect();
                k.bf16_to_f32(&x, &mut wide);
            }
            ("f16", _) => {
                let x: Vec<f16> = codes.iter().map(|c| f16::from_bits(*c)).collect();
                k.f16_to_f32(&x, &mut wide);
            }
            (_, Some(cfp8)) => {
                let x: Vec<u8> = codes.iter().map(|c| *c as u8).collect();
                let mut half = vec![bf16::ZERO; x.len()];
                k.cfp8_to_bf16(Cfp8Decoder::new(cfp8, bias), &x, &mut half);
                k.bf16_to_f32(&half, &mut wide);
            }
            _ => continue,
        }
        found.push((k.name(), wide.clone()));
    }
    found
}

#[test]
fn every_code_has_its_published_value() {
    for format in FORMATS {
        let codes: Vec<u16> = (0..format.codes()).map(|code| code as u16).collect();
        for bias in format.biases() {
            let meanings: Vec<Meaning> = codes
                .iter()
                .map(|code| format.meaning((*code).into(), bias))
                .collect();
            for (kernel, values) in widened(&format, bias, &codes) {
                let right = |i: usize| match meanings[i] {
                    Meaning::Nan => values[i].to_bits() == 0x7FC0_0000,
                    Meaning::Infinity { negative: false } => values[i] == f32::INFINITY,
                    Meaning::Infinity { negative: true } => values[i] == f32::NEG_INFINITY,
                    Meaning::Number(v) => {
                        values[i].to_bits() == as_kernels_read(v as f32).to_bits()
                    }
                };
                let wrong = (0..codes.len()).find(|i| !right(*i));
                let shown = wrong.map(|i| (codes[i], values[i]));
                assert_eq!(shown, None, "{} bias {bias}, {kernel}", format.name);
            }
            for (code, meaning) in codes.iter().zip(meanings) {
                let x = format.definition.decode(*code, bias);
                let right = match meaning {
                    Meaning::Nan => x.is_nan(),
                    Meaning::Infinity { negative: false } => x == f32::INFINITY,
                    Meaning::Infinity { negative: true } => x == f32::NEG_INFINITY,
                    Meaning::Number(v) => f64::from(x).to_bits() == v.to_bits(),
                };
                assert!(
                    right,
                    "{} bias {bias}, definition: {code:#x} {x:e}",
                    format.name
                );
            }
        }
    }
}

#[test]
fn values_and_the_points_between_them_round_as_published() {
    for format in FORMATS {
        for bias in format.biases() {
            let model = Model::new(format, bias);
            let mut x = Vec::new();
            for pair in model.values.windows(2) {
                let middle = (pair[0] + pair[1]) / 2.0;
                assert_eq!(f64::from(middle as f32), middle, "a point that f32 holds");
                for at in [pair[0] as f32, middle as f32] {
                    x.extend([at, at.next_up(), at.next_down()]);
                }
            }
            x.extend_from_within(..);
            let half = x.len() / 2;
            x[half..].iter_mut().for_each(|x| *x = -*x);
            check(&model, bias, None, &x);
        }
    }
}

macro_rules! drawn {
    ($($name:ident: $format:expr, $stochastic:expr;)+) => {
        $(
            #[test]
            fn $name() {
                check_drawn(FORMATS[$format], $stochastic);
            }
        )+
    };
}

drawn! {
    cfp8_143_to_nearest: 0, false;
    cfp8_143_stochastically: 0, true;
    cfp8_152_to_nearest: 1, false;
    cfp8_152_stochastically: 1, true;
    shp_to_nearest: 2, false;
    shp_stochastically: 2, true;
    uhp_to_nearest: 3, false;
    uhp_stochastically: 3, true;
    bf16_to_nearest: 4, false;
    bf16_stochastically: 4, true;
    f16_to_nearest: 5, false;
    f16_stochastically: 5, true;
}
