//! Cases that random ones do not reach.

use dojoc_ir::attr::Flag;
use dojoc_ir::program::instr::{convert, data, matrix, vector};

use super::*;

fn dense(dtype: DType, shape: &[u64]) -> ViewType {
    ViewType::dense(dtype, shape, Packing::Strided).unwrap()
}

/// Executes on targets and sources with given bits.
fn execute_on(
    instr: impl Into<Instr>,
    targets: &mut [Placed],
    sources: &[Placed],
) -> Result<(), Fault> {
    let case = Case {
        instr: instr.into(),
        targets: targets.len(),
        operands: Vec::new(),
        scalars: Vec::new(),
    };
    let memory = Memory {
        targets: targets.to_vec(),
        sources: sources.to_vec(),
        in_place: vec![false; sources.len()],
    };
    let found = run(
        &case,
        &memory,
        available().pop().unwrap(),
        &mut Scratch::default(),
        None,
    )?;
    targets.clone_from_slice(&found);
    Ok(())
}

fn of_bits(view: ViewType, bits: &[u64]) -> Placed {
    let mut placed = Placed::new(view);
    for (i, bits) in bits.iter().enumerate() {
        placed.set(i as u64, *bits);
    }
    placed
}

#[test]
fn an_index_out_of_range_is_named() {
    let x = of_bits(dense(DType::U8, &[3]), &[7, 8, 9]);
    let indices = of_bits(dense(DType::I32, &[2]), &[1, u64::from((-4i32) as u32)]);
    let mut y = [Placed::new(dense(DType::U8, &[2]))];
    let fault = execute_on(data::Gather { fill: None }, &mut y, &[x, indices]);
    assert_eq!(
        fault.unwrap_err().message,
        "index -4, element 1 of the indices, is out of the range of 3 rows"
    );
}

#[test]
fn an_exponent_bias_has_six_bits() {
    let x = of_bits(dense(DType::F32, &[1]), &[0]);
    let bias = of_bits(dense(DType::U8, &[1]), &[64]);
    let mut y = [Placed::new(dense(DType::Shp, &[1]))];
    let instr = convert::Convert {
        bias: Flag(true),
        stochastic: None,
    };
    let fault = execute_on(instr, &mut y, &[x, bias]).unwrap_err();
    assert_eq!(fault.message, "the exponent bias 64 is larger than 63");
}

#[test]
fn strides_that_split_elements_are_refused() {
    let mut view = dense(DType::F32, &[3]);
    view.strides[0] = 6;
    let mut y = [Placed::new(view)];
    let instr = vector::Fill {
        value: dojoc_ir::attr::Number::Int(1),
    };
    let fault = execute_on(instr, &mut y, &[]).unwrap_err();
    assert!(
        fault.message.contains("not a multiple"),
        "{}",
        fault.message
    );
}

#[test]
fn powers_have_the_values_of_real_powers() {
    let mut worst = 0f64;
    let mut rng = Pcg64::seed_from_u64(5);
    for _ in 0..2000 {
        let (a, b): (f32, f32) = (rng.random_range(0.01..20.0), rng.random_range(-6.0..6.0));
        let operands = [a, b].map(|x| of_bits(dense(DType::F32, &[1]), &[x.to_bits().into()]));
        let mut y = [Placed::new(dense(DType::F32, &[1]))];
        let instr = vector::Zip {
            function: vector::ZipFunction::Pow,
            value: None,
        };
        execute_on(instr, &mut y, &operands).unwrap();
        let found = f64::from(f32::from_bits(y[0].get(0) as u32));
        let exact = f64::from(a).powf(b.into());
        worst = worst.max((found - exact).abs() / exact);
    }
    assert!(worst < 1e-7, "{worst:e}");
}

/// A convolution of 3 x 3 over rows of 8 pixels with 4 channels is one product over a view of five
/// dimensions, and three products over overlapping rows.
#[test]
fn a_convolution_is_a_product_of_views() {
    let mut rng = Pcg64::seed_from_u64(6);
    let image = place(&mut rng, dense(DType::Bf16, &[6, 8, 4]), Content::Ordinary);
    let filter = place(&mut rng, dense(DType::Bf16, &[3, 12, 5]), Content::Ordinary);
    let window = |shape: &[u64], strides: &[i64], bytes: usize| {
        let mut view = dense(DType::Bf16, shape);
        view.strides = strides.to_vec();
        let mut placed = Placed::new(view);
        let span = placed.layout.span;
        placed
            .bytes_mut()
            .copy_from_slice(&image.bytes()[bytes..bytes + span]);
        placed
    };
    let product = |accumulate| matrix::MatMul {
        transpose_a: Flag(false),
        transpose_b: Flag(false),
        split: Some(2),
        accumulate: Flag(accumulate),
        bias: Flag(false),
        activation: None,
        residual: None,
        sums: Flag(false),
        cfp8: Flag(false),
        stochastic: None,
    };
    // Rows of 8 * 4 elements of 2 bytes.
    let all = window(&[4, 6, 3, 12], &[64, 8, 64, 2], 0);
    let mut whole = [Placed::new(dense(DType::F32, &[4, 6, 5]))];
    execute_on(product(false), &mut whole, &[all, filter.clone()]).unwrap();
    let mut parts = [Placed::new(dense(DType::F32, &[4, 6, 5]))];
    for row in 0..3 {
        let a = window(&[4, 6, 12], &[64, 8, 2], 64 * row);
        let mut b = Placed::new(dense(DType::Bf16, &[12, 5]));
        b.bytes_mut()
            .copy_from_slice(&filter.bytes()[120 * row..][..120]);
        execute_on(product(row > 0), &mut parts, &[a, b]).unwrap();
    }
    assert_eq!(whole[0].logical(), parts[0].logical());
    for (y, x, o) in [(0, 0, 0), (3, 5, 4), (2, 1, 3)] {
        let mut sum = 0.0;
        for (i, j, c) in
            (0..3).flat_map(|i| (0..3).flat_map(move |j| (0..4).map(move |c| (i, j, c))))
        {
            let pixel = image.get(((y + i) * 8 + x + j) * 4 + c);
            let weight = filter.get((i * 12 + j * 4 + c) * 5 + o);
            let value = |bits: u64| f64::from(f32::from_bits((bits as u32) << 16));
            sum += value(pixel) * value(weight);
        }
        let found = f64::from(f32::from_bits(whole[0].get((y * 6 + x) * 5 + o) as u32));
        assert!(
            (found - sum).abs() < 1e-4 * (1.0 + sum.abs()),
            "{found} {sum}"
        );
    }
}
