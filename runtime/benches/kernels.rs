//! Speed of the kernels: tile products in GFLOP/s (criterion's "elements" are FLOP), vector
//! kernels in elements per second, beside what the registers alone allow.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dojoc_runtime::kernels::{
    Activation, Aligned, Binary, Cfp8, Cfp8Decoder, Draw, Epilogue, Kernels, Lhs, Matmul, Matrix,
    Operand, Output, Reduce, Rhs, Rounding, Scratch, Unary, available, detect, packed_len_bf16,
    packed_len_f32,
};
use half::{bf16, f16};

/// Tiles (m, n, k) of hot operands.
const TILES: [(usize, usize, usize); 9] = [
    (8, 16, 64),
    (16, 32, 64),
    (32, 32, 64),
    (32, 32, 256),
    (64, 64, 64),
    (128, 128, 128),
    (64, 256, 512),
    (49, 512, 512),
    (128, 768, 768),
];

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 97) as f32 / 48.0 - 1.0).collect()
}

fn narrow(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|x| bf16::from_f32(*x)).collect()
}

/// What the fused multiply-add and bf16 dot units do when nothing is loaded or stored.
#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::x86_64::*;

    pub const STEPS: u64 = 1000;
    /// Enough to hide the latency, few enough to stay in registers.
    const SUMS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub fn f32(x: f32) -> f32 {
        let (a, b) = (_mm512_set1_ps(x), _mm512_set1_ps(x * 0.5));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        let mut total = sums[0];
        for sum in &sums[1..] {
            total = _mm512_add_ps(total, *sum);
        }
        _mm512_reduce_add_ps(total)
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn bf16(x: f32) -> f32 {
        let a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(x), _mm512_set1_ps(x));
        let b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(x * 0.5), _mm512_set1_ps(x));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        let mut total = sums[0];
        for sum in &sums[1..] {
            total = _mm512_add_ps(total, *sum);
        }
        _mm512_reduce_add_ps(total)
    }

    /// FLOP of one call per operation of `flop` FLOP.
    pub const fn flop(flop: u64) -> u64 {
        STEPS * SUMS as u64 * flop
    }
}

fn peaks(c: &mut Criterion) {
    #[cfg(target_arch = "x86_64")]
    {
        let mut group = c.benchmark_group("peak");
        if is_x86_feature_detected!("avx512f") {
            group.throughput(Throughput::Elements(peak::flop(32)));
            // SAFETY: the feature has been detected.
            group.bench_function("f32", |b| b.iter(|| unsafe { peak::f32(black_box(0.5)) }));
        }
        if is_x86_feature_detected!("avx512bf16") {
            group.throughput(Throughput::Elements(peak::flop(64)));
            // SAFETY: the feature has been detected.
            group.bench_function("bf16", |b| b.iter(|| unsafe { peak::bf16(black_box(0.5)) }));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = c;
}

fn tiles(c: &mut Criterion) {
    for k in available() {
        let mut group = c.benchmark_group(format!("tile/{}", k.name()));
        for (m, n, depth) in TILES {
            if k.name() == "scalar" && m * n * depth > 64 * 64 * 64 {
                continue;
            }
            group.throughput(Throughput::Elements(2 * (m * n * depth) as u64));
            let id = |kind: &str| BenchmarkId::new(kind, format!("{m}x{n}x{depth}"));
            let (a, b) = (values(m * depth), values(depth * n));
            let mut out = vec![0.0; m * n];
            let mut scratch = Scratch::default();
            let mut panels = Aligned::new(packed_len_f32(depth, n));
            let rows = Rhs::Rows(Matrix {
                data: &b,
                stride: n,
            });
            k.pack_b_f32(rows, depth, n, &mut panels);
            let product = Matmul {
                m,
                n,
                k: depth,
                a: Lhs {
                    data: &a,
                    stride: depth,
                    transposed: false,
                },
                b: Rhs::Packed(&panels),
                epilogue: Epilogue::default(),
            };
            group.bench_function(id("f32"), |bench| {
                bench.iter(|| {
                    let data = &mut out;
                    let output = Output::F32 {
                        data,
                        stride: n,
                        accumulate: false,
                    };
                    k.matmul_f32(black_box(&product), output, &mut scratch);
                });
            });
            let (a, b) = (narrow(&a), narrow(&b));
            let mut panels = Aligned::new(packed_len_bf16(depth, n));
            let rows = Rhs::Rows(Matrix {
                data: &b,
                stride: n,
            });
            k.pack_b_bf16(rows, depth, n, &mut panels);
            let bias = values(n);
            let mut narrow_out = vec![bf16::ZERO; m * n];
            for (kind, accumulate, b, epilogue) in [
                ("bf16", false, Rhs::Packed(&panels), false),
                ("bf16-accumulate", true, Rhs::Packed(&panels), false),
                ("bf16-unpacked", false, rows, false),
                ("bf16-gelu-bf16", false, Rhs::Packed(&panels), true),
            ] {
                let product = Matmul {
                    m,
                    n,
                    k: depth,
                    a: Lhs {
                        data: &a,
                        stride: depth,
                        transposed: false,
                    },
                    b,
                    epilogue: Epilogue {
                        bias: epilogue.then_some(&bias[..]),
                        activation: if epilogue {
                            Activation::Gelu
                        } else {
                            Activation::None
                        },
                        residual: None,
                    },
                };
                group.bench_function(id(kind), |bench| {
                    bench.iter(|| {
                        let output = if epilogue {
                            Output::Bf16 {
                                data: &mut narrow_out,
                                stride: n,
                                earlier: None,
                                rounding: Rounding::NearestEven,
                            }
                        } else {
                            Output::F32 {
                                data: &mut out,
                                stride: n,
                                accumulate,
                            }
                        };
                        k.matmul_bf16(black_box(&product), output, &mut scratch);
                    });
                });
            }
        }
        group.finish();
    }
}

/// Elements of a vector: all operands fit the L1 cache.
const LEN: usize = 2048;

fn vectors(c: &mut Criterion) {
    for k in available() {
        vectors_of(c, k);
    }
}

fn vectors_of(c: &mut Criterion, k: &dyn Kernels) {
    let mut group = c.benchmark_group(format!("vector/{}", k.name()));
    group.throughput(Throughput::Elements(LEN as u64));
    let (x, mut y) = (values(LEN), vec![0.0; LEN]);
    let (x16, mut y16) = (narrow(&x), vec![bf16::ZERO; LEN]);
    for op in Unary::ALL {
        group.bench_function(BenchmarkId::new(op.name(), "f32"), |b| {
            b.iter(|| k.unary_f32(black_box(*op), &x, &mut y));
        });
        group.bench_function(BenchmarkId::new(op.name(), "bf16"), |b| {
            b.iter(|| k.unary_bf16(black_box(*op), &x16, &mut y16));
        });
    }
    for op in Binary::ALL {
        group.bench_function(BenchmarkId::new(op.name(), "f32"), |b| {
            b.iter(|| k.binary_f32(black_box(*op), &x, Operand::Slice(&x), &mut y));
        });
        group.bench_function(BenchmarkId::new(op.name(), "bf16"), |b| {
            b.iter(|| k.binary_bf16(black_box(*op), &x16, Operand::Slice(&x16), &mut y16));
        });
    }
    for op in Reduce::ALL {
        group.bench_function(
            BenchmarkId::new(format!("reduce-{}", op.name()), "f32"),
            |b| {
                b.iter(|| k.reduce_f32(black_box(*op), &x));
            },
        );
        group.bench_function(
            BenchmarkId::new(format!("reduce-{}", op.name()), "bf16"),
            |b| {
                b.iter(|| k.reduce_bf16(black_box(*op), &x16));
            },
        );
    }
    group.bench_function("f32-to-bf16", |b| {
        b.iter(|| k.f32_to_bf16(black_box(&x), &mut y16))
    });
    let draw = Draw {
        seed: 1,
        step: 2,
        site: 3,
        index: 0,
    };
    group.bench_function("f32-to-bf16-stochastic", |b| {
        b.iter(|| k.f32_to_bf16_stochastic(draw, black_box(&x), &mut y16));
    });
    group.bench_function("bf16-to-f32", |b| {
        b.iter(|| k.bf16_to_f32(black_box(&x16), &mut y))
    });
    let mut halves = vec![f16::ZERO; LEN];
    group.bench_function("f32-to-f16", |b| {
        b.iter(|| k.f32_to_f16(black_box(&x), &mut halves))
    });
    let codes: Vec<u8> = (0..LEN).map(|i| i as u8).collect();
    let decoder = Cfp8Decoder::new(Cfp8::E4M3, dojoc_ir::formats::Bias::ZERO);
    group.bench_function("cfp8-to-bf16", |b| {
        b.iter(|| k.cfp8_to_bf16(decoder, black_box(&codes), &mut y16));
    });
    group.finish();
}

/// Kernels as they come from detection: what a call costs beside the arithmetic.
fn dispatch(c: &mut Criterion) {
    let (x, mut y) = (values(16), vec![0.0; 16]);
    let k = detect();
    c.bench_function("dispatch/relu-of-16", |b| {
        b.iter(|| k.unary_f32(black_box(Unary::Relu), &x, &mut y));
    });
}

criterion_group!(benches, peaks, tiles, vectors, dispatch);
criterion_main!(benches);
