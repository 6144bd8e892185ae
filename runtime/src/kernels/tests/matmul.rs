//! Tile products against three plain loops in the specified order.

use dojoc_ir::formats::{random_bits, stochastic_bf16};

use super::*;

/// One bf16 step. Where the result is small, scaled operands show how an unbounded exponent rounds.
fn model_step(a: f32, b: f32, c: f32) -> f32 {
    let (a, b, c) = (flushed(a), flushed(b), flushed(c));
    let result = a.mul_add(b, c);
    if result.abs() > f32::MIN_POSITIVE || result.is_nan() {
        return result;
    }
    // The scale goes to the smaller factor: the product is small, so that one does not overflow.
    let scale = 2f32.powi(100);
    let scaled = if a.abs() < b.abs() {
        (a * scale).mul_add(b, c * scale)
    } else {
        a.mul_add(b * scale, c * scale)
    };
    if scaled.abs() < f32::MIN_POSITIVE * scale {
        0f32.copysign(result)
    } else {
        result
    }
}

fn model_bf16(k: usize, start: f32, a: impl Fn(usize) -> bf16, b: impl Fn(usize) -> bf16) -> f32 {
    let mut c = start;
    for p in (0..k).step_by(2) {
        let (a1, b1) = if p + 1 < k {
            (a(p + 1).to_f32(), b(p + 1).to_f32())
        } else {
            (0.0, 0.0)
        };
        c = model_step(a1, b1, c);
        c = model_step(a(p).to_f32(), b(p).to_f32(), c);
    }
    finished(c)
}

fn model_f32(k: usize, start: f32, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> f32 {
    let mut c = flushed(start);
    for p in 0..k {
        c = flushed(a(p)).mul_add(flushed(b(p)), c);
    }
    finished(c)
}

/// How values are drawn; each provokes something else.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    /// Nothing special.
    Ordinary,
    /// NaN, infinities, subnormals, all exponents.
    Any,
    /// Products near the least normal value.
    Tiny,
    /// Ordinary ones and a few subnormals.
    Sprinkled,
    /// Products that cancel to little more or little less than the least normal value.
    Cancelling,
    /// Products that cancel an earlier C, to the same.
    CancellingEarlier,
    /// Large values of A, subnormal and other small ones of B.
    Lopsided,
}

const ALL_VALUES: [Values; 7] = [
    Values::Ordinary,
    Values::Any,
    Values::Tiny,
    Values::Sprinkled,
    Values::Cancelling,
    Values::CancellingEarlier,
    Values::Lopsided,
];

/// What a value is drawn for.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    A,
    B,
    C,
}

/// How values are drawn in one trial. Exponents are the same for a whole operand where they matter.
struct Source {
    values: Values,
    exponent: i32,
}

impl Source {
    fn new(values: Values, trial: usize) -> Self {
        let around = trial as i32 % 6;
        let exponent = match values {
            // Differences of products are 2^-14 of them.
            Values::Cancelling => -126 + 14 - 3 + around,
            // Differences from C are 2^-23 of it.
            Values::CancellingEarlier => -126 + 23 - 3 + around,
            _ => 0,
        };
        Self { values, exponent }
    }

    fn draw(&self, rng: &mut impl Rng, place: Place) -> f32 {
        let sign = if rng.random() { 1.0 } else { -1.0 };
        let power = |e: i32| sign * 2f32.powi(e);
        let half = self.exponent / 2;
        match (self.values, place) {
            (Values::Any, _) => any_f32(rng),
            (Values::Tiny, Place::C) => rng.random_range(-40i32..40) as f32 * 2f32.powi(-129),
            (Values::Tiny, _) => {
                // Few significant bits, so that sums cancel and reach ties.
                let mantissa = rng.random_range(-9i32..10) as f32;
                mantissa * 2f32.powi(rng.random_range(-67..-58))
            }
            (Values::Sprinkled, _) if rng.random_range(0..9) == 0 => {
                f32::from_bits(rng.random::<u32>() & 0x807F_FFFF)
            }
            (Values::Ordinary | Values::Sprinkled, _) => ordinary(rng),
            (Values::Cancelling, Place::C) => 0.0,
            (Values::Cancelling, place) => {
                let fraction = if rng.random() { 1.0 / 128.0 } else { 0.0 };
                let exponent = if place == Place::A {
                    half
                } else {
                    self.exponent - half
                };
                power(exponent) * (1.0 + fraction)
            }
            (Values::CancellingEarlier, Place::A) => power(half),
            (Values::CancellingEarlier, Place::B) => power(self.exponent - half),
            (Values::CancellingEarlier, Place::C) => power(self.exponent) * (1.0 + f32::EPSILON),
            (Values::Lopsided, Place::A) => power(rng.random_range(16..120)),
            (Values::Lopsided, Place::B) => power(rng.random_range(-133..-110)),
            (Values::Lopsided, Place::C) => power(rng.random_range(-100..0)),
        }
    }
}

fn shapes(rng: &mut impl Rng) -> Vec<(usize, usize, usize)> {
    let mut shapes = vec![
        (1, 1, 1),
        (12, 32, 64),
        (13, 48, 32),
        (7, 32, 128),
        (25, 33, 5),
        (3, 16, 2),
        (5, 17, 0),
        (0, 4, 4),
        (4, 0, 4),
        (64, 70, 31),
    ];
    for size in 1..=70 {
        shapes.push((size, rng.random_range(1..70), rng.random_range(0..20)));
        shapes.push((rng.random_range(1..15), size, rng.random_range(0..20)));
        shapes.push((rng.random_range(1..9), rng.random_range(1..40), size));
    }
    shapes
}

/// Operands in the layouts of a trial, with slices that do not start aligned.
struct Operands<E> {
    a: Vec<E>,
    b: Vec<E>,
    a_stride: usize,
    b_stride: usize,
    offset: usize,
    a_transposed: bool,
    b_transposed: bool,
}

impl<E: Copy> Operands<E> {
    fn new(
        (m, n, k): (usize, usize, usize),
        trial: usize,
        mut draw: impl FnMut(Place) -> E,
    ) -> Self {
        let (a_transposed, b_transposed) = (trial % 3 == 1, trial % 4 == 1);
        let (a_rows, a_cols) = if a_transposed { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if b_transposed { (n, k) } else { (k, n) };
        let (a_stride, b_stride) = (a_cols + trial % 3, b_cols + trial % 2);
        let offset = trial % 5;
        Self {
            a: (0..a_rows * a_stride + offset)
                .map(|_| draw(Place::A))
                .collect(),
            b: (0..b_rows * b_stride + offset)
                .map(|_| draw(Place::B))
                .collect(),
            a_stride,
            b_stride,
            offset,
            a_transposed,
            b_transposed,
        }
    }

    fn lhs(&self) -> Lhs<'_, E> {
        Lhs {
            data: &self.a[self.offset..],
            stride: self.a_stride,
            transposed: self.a_transposed,
        }
    }

    fn rhs(&self) -> Rhs<'_, E> {
        let view = Matrix {
            data: &self.b[self.offset..],
            stride: self.b_stride,
        };
        if self.b_transposed {
            Rhs::Columns(view)
        } else {
            Rhs::Rows(view)
        }
    }

    fn a(&self, i: usize, p: usize) -> E {
        let (row, col) = if self.a_transposed { (p, i) } else { (i, p) };
        self.a[self.offset + row * self.a_stride + col]
    }

    fn b(&self, p: usize, j: usize) -> E {
        let (row, col) = if self.b_transposed { (j, p) } else { (p, j) };
        self.b[self.offset + row * self.b_stride + col]
    }
}

/// An element of a product, from its start, a row of A and a column of B, of so many elements.
type Model<E> = fn(usize, f32, &dyn Fn(usize) -> E, &dyn Fn(usize) -> E) -> f32;

/// The products of an element type.
struct Products<E> {
    narrow: fn(f32) -> E,
    model: Model<E>,
    pack: fn(&dyn Kernels, Rhs<'_, E>, usize, usize) -> Vec<E>,
    run: fn(&dyn Kernels, &Matmul<'_, E>, Output<'_>),
}

impl<E: Copy> Products<E> {
    /// Compares all kernels, on plain and packed operands, with the model.
    fn check(
        &self,
        (m, n, k): (usize, usize, usize),
        values: Values,
        trial: usize,
        rng: &mut impl Rng,
    ) {
        let source = Source::new(values, trial);
        let operands = Operands::new((m, n, k), trial, |place| {
            (self.narrow)(source.draw(rng, place))
        });
        let accumulate = trial % 7 > 2;
        let stride = n + trial % 3;
        let start: Vec<f32> = (0..m * stride)
            .map(|_| source.draw(rng, Place::C))
            .collect();
        let mut expected = start.clone();
        for i in 0..m {
            for j in 0..n {
                let c = &mut expected[i * stride + j];
                let start = if accumulate { *c } else { 0.0 };
                *c = (self.model)(k, start, &|p| operands.a(i, p), &|p| operands.b(p, j));
            }
        }
        for kernels in [&others()[..], &[reference()]].concat() {
            let panels = (self.pack)(kernels, operands.rhs(), k, n);
            for b in [operands.rhs(), Rhs::Packed(&panels)] {
                let product = Matmul {
                    m,
                    n,
                    k,
                    a: operands.lhs(),
                    b,
                    epilogue: Epilogue::default(),
                };
                let mut c = start.clone();
                let output = Output::F32 {
                    data: &mut c,
                    stride,
                    accumulate,
                };
                (self.run)(kernels, &product, output);
                assert_eq!(
                    bits(&c),
                    bits(&expected),
                    "{kernels:?} {m}x{n}x{k} {values:?} {trial}"
                );
            }
        }
    }
}

#[test]
fn f32_products_follow_the_stated_order() {
    let products = Products::<f32> {
        narrow: |x| x,
        model: |k, start, a, b| model_f32(k, start, a, b),
        pack: |kernels, b, k, n| {
            let mut panels = vec![f32::NAN; packed_len_f32(k, n)];
            kernels.pack_b_f32(b, k, n, &mut panels);
            panels
        },
        run: |kernels, product, c| kernels.matmul_f32(product, c, &mut Scratch::default()),
    };
    let mut rng = rng(10);
    for (trial, shape) in shapes(&mut rng).into_iter().enumerate() {
        products.check(shape, ALL_VALUES[trial % 7], trial, &mut rng);
    }
}

#[test]
fn bf16_products_follow_the_stated_order() {
    let products = Products::<bf16> {
        narrow: |x| bf16::from_bits((x.to_bits() >> 16) as u16),
        model: |k, start, a, b| model_bf16(k, start, a, b),
        pack: |kernels, b, k, n| {
            let mut panels = vec![bf16::NAN; packed_len_bf16(k, n)];
            kernels.pack_b_bf16(b, k, n, &mut panels);
            panels
        },
        run: |kernels, product, c| kernels.matmul_bf16(product, c, &mut Scratch::default()),
    };
    let mut rng = rng(11);
    let mut shapes = shapes(&mut rng);
    shapes.push((36, 64, 64));
    shapes.push((32, 128, 768));
    for (trial, shape) in shapes.into_iter().enumerate() {
        for values in ALL_VALUES {
            products.check(shape, values, trial, &mut rng);
        }
    }
}

/// Rounding from just below the least normal value, which separates "round, then flush" from
/// flushing by the value that an unbounded exponent would give; and fused from separate rounding.
#[test]
fn the_bf16_step_is_fused_and_flushes_by_the_unbounded_exponent() {
    let two = |e: i32| 2f32.powi(e);
    // (a, b, c, result)
    let cases = [
        (-two(-75), two(-75), two(-126), 0.0),
        (two(-75), two(-75), -two(-126), -0.0),
        (-two(-76), two(-75), two(-126), two(-126)),
        (two(-75), two(-75), two(-126), two(-126)),
        (two(64), two(64), -two(127), two(127)),
        (two(64), two(64), 0.0, f32::INFINITY),
        (
            two(-64),
            two(-66),
            1.5 * two(-126),
            1.5 * two(-126) + two(-130),
        ),
        (two(-127), two(100), 0.0, 0.0),
        (1.0, 1.0, two(-127), 1.0),
        (0.0, 1.0, -two(-127), 0.0),
    ];
    for (a, b, c, expected) in cases {
        for kernels in [&others()[..], &[reference()]].concat() {
            let (a, b) = ([bf16::from_f32(a); 1], [bf16::from_f32(b); 1]);
            let product = Matmul {
                m: 1,
                n: 1,
                k: 1,
                a: Lhs {
                    data: &a,
                    stride: 1,
                    transposed: false,
                },
                b: Rhs::Rows(Matrix {
                    data: &b,
                    stride: 1,
                }),
                epilogue: Epilogue::default(),
            };
            let mut sum = [c];
            let output = Output::F32 {
                data: &mut sum,
                stride: 1,
                accumulate: true,
            };
            kernels.matmul_bf16(&product, output, &mut Scratch::default());
            assert_eq!(
                sum[0].to_bits(),
                expected.to_bits(),
                "{kernels:?} {a:?} * {b:?} + {c:e} = {:e}",
                sum[0]
            );
        }
    }
}

#[test]
fn epilogues_are_the_vector_kernels_in_order() {
    let mut rng = rng(12);
    for trial in 0..84 {
        let (m, n, k) = (
            rng.random_range(1..30),
            rng.random_range(1..70),
            rng.random_range(1..9),
        );
        let values = if trial % 3 == 0 {
            Values::Any
        } else {
            Values::Ordinary
        };
        let source = Source::new(values, trial);
        let mut draw = |place| source.draw(&mut rng, place);
        let operands = Operands::new((m, n, k), 0, |place| bf16::from_f32(draw(place)));
        let bias: Vec<f32> = (0..n).map(|_| draw(Place::C)).collect();
        let residual: Vec<f32> = (0..m * n).map(|_| draw(Place::C)).collect();
        let residual16: Vec<bf16> = residual.iter().map(|x| bf16::from_f32(*x)).collect();
        let earlier: Vec<f32> = (0..m * (n + 1)).map(|_| draw(Place::C)).collect();
        let activation = Activation::ALL[trial % 7];
        let epilogue = Epilogue {
            bias: (trial % 2 == 0).then_some(&bias[..]),
            activation,
            residual: (trial % 5 != 0).then_some(Residual {
                values: if trial % 5 == 1 {
                    ResidualValues::Bf16(Matrix {
                        data: &residual16,
                        stride: n,
                    })
                } else {
                    ResidualValues::F32(Matrix {
                        data: &residual,
                        stride: n,
                    })
                },
                before_activation: trial % 5 < 3,
            }),
        };
        let draw = Draw {
            seed: 1,
            step: 2,
            site: 3,
            index: 50,
        };
        let rounding = if trial % 4 < 2 {
            Rounding::NearestEven
        } else {
            Rounding::Stochastic { draw, row: 1000 }
        };
        let product = Matmul {
            m,
            n,
            k,
            a: operands.lhs(),
            b: operands.rhs(),
            epilogue,
        };
        let earlier = (trial % 3 != 1).then_some(Matrix {
            data: &earlier[..],
            stride: n + 1,
        });

        let k0 = reference();
        let mut sums = vec![0.0; m * n];
        for i in 0..m {
            if let Some(earlier) = earlier {
                sums[i * n..][..n].copy_from_slice(&earlier.data[i * (n + 1)..][..n]);
            }
        }
        let plain = Matmul {
            epilogue: Epilogue::default(),
            ..product
        };
        let output = Output::F32 {
            data: &mut sums,
            stride: n,
            accumulate: true,
        };
        k0.matmul_bf16(&plain, output, &mut Scratch::default());
        let add_residual = |sums: &mut [f32], before: bool| {
            if let Some(r) = epilogue.residual
                && r.before_activation == before
            {
                let wide: Vec<f32> = match r.values {
                    ResidualValues::F32(r) => r.data.to_vec(),
                    ResidualValues::Bf16(r) => r.data.iter().map(|x| x.to_f32()).collect(),
                };
                k0.binary_in_place_f32(Binary::Add, sums, Operand::Slice(&wide));
            }
        };
        if let Some(bias) = epilogue.bias {
            for row in sums.chunks_mut(n) {
                k0.binary_in_place_f32(Binary::Add, row, Operand::Slice(bias));
            }
        }
        add_residual(&mut sums, true);
        if let Some(op) = activation.unary() {
            k0.unary_in_place_f32(op, &mut sums);
        }
        add_residual(&mut sums, false);
        let rounded: Vec<u16> = (0..m * n)
            .map(|at| {
                let index = 50 + (at / n * 1000 + at % n) as u64;
                match rounding {
                    Rounding::Stochastic { .. } if !sums[at].is_nan() => {
                        stochastic_bf16(sums[at], random_bits(1, 2, 3, index)).to_bits()
                    }
                    _ => bf16::from_f32(sums[at]).to_bits(),
                }
            })
            .collect();

        for kernels in [&others()[..], &[reference()]].concat() {
            let mut c = vec![bf16::ZERO; m * n];
            let output = Output::Bf16 {
                data: &mut c,
                stride: n,
                earlier,
                rounding,
            };
            kernels.matmul_bf16(&product, output, &mut Scratch::default());
            assert_eq!(bits16(&c), rounded, "{kernels:?} {trial}");
            if earlier.is_none() {
                let mut c = vec![f32::NAN; m * n];
                let output = Output::F32 {
                    data: &mut c,
                    stride: n,
                    accumulate: false,
                };
                kernels.matmul_bf16(&product, output, &mut Scratch::default());
                assert_eq!(bits(&c), bits(&sums), "{kernels:?} {trial}");
            }
        }
    }
}

#[test]
fn panels_unpack_to_what_was_packed() {
    let mut rng = rng(13);
    for (k, n) in [(1, 1), (2, 32), (5, 33), (7, 64), (64, 70), (0, 5), (4, 0)] {
        let b = any_slice(&mut rng, k * n);
        let b16 = any_bf16_slice(&mut rng, k * n);
        let expected: Vec<f32> = b.iter().map(|x| flushed(*x)).collect();
        let stride = n + 1;
        for kernels in available() {
            let mut panels = vec![f32::NAN; packed_len_f32(k, n)];
            kernels.pack_b_f32(
                Rhs::Rows(Matrix {
                    data: &b,
                    stride: n,
                }),
                k,
                n,
                &mut panels,
            );
            let mut back = vec![0.0; k * stride];
            unpack_b_f32(&panels, k, n, &mut back, stride);
            let mut panels = vec![bf16::NAN; packed_len_bf16(k, n)];
            kernels.pack_b_bf16(
                Rhs::Rows(Matrix {
                    data: &b16,
                    stride: n,
                }),
                k,
                n,
                &mut panels,
            );
            let mut back16 = vec![bf16::ZERO; k * stride];
            unpack_b_bf16(&panels, k, n, &mut back16, stride);
            let pairs = panels.chunks(64);
            if n % 32 == 1 && k % 2 == 1 {
                assert!(
                    pairs.last().unwrap()[1..].iter().all(|x| x.to_bits() == 0),
                    "zero filled"
                );
            }
            for p in 0..k {
                let (row, row16) = (&back[p * stride..][..n], &back16[p * stride..][..n]);
                assert_eq!(bits(row), bits(&expected[p * n..][..n]), "{kernels:?}");
                assert_eq!(bits16(row16), bits16(&b16[p * n..][..n]), "{kernels:?}");
            }
        }
    }
}

#[test]
fn aligned_memory_is_aligned_and_keeps_its_content() {
    for len in [0, 1, 31, 1000] {
        let mut memory = Aligned::<f32>::new(len);
        assert_eq!(bits(&memory), vec![0; len]);
        memory
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = i as f32);
        let mut copy = memory.clone();
        assert_eq!(bits(&copy), bits(&memory));
        assert_eq!(copy.of_len(len + 5).len(), len + 5);
        for memory in [memory, copy] {
            assert_eq!(memory.as_ptr().addr() % 64, 0);
        }
    }
}
