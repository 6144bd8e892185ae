use super::*;
use crate::machine::BUILTIN;
use crate::program::Packing;
use crate::program::instr::sample::{dense, packed};
use crate::types::DType;

fn machine(name: &str) -> Machine {
    Machine::parse(Machine::builtin(name).unwrap(), name).unwrap()
}

/// Whether an operand's extent along a dimension is not tied to another operand.
fn free(instr: &Instr, operand: usize, dim: usize, types: &[ViewType]) -> bool {
    match instr {
        Instr::Fill(_) | Instr::Iota(_) => true,
        Instr::Reduce(reduce) => operand == 1 && dim + reduce.dims >= types[1].shape.len(),
        Instr::ArgReduce(_) => operand == 1 && dim + 1 == types[1].shape.len(),
        Instr::TopK(_) => operand == 2 && dim + 1 == types[2].shape.len(),
        Instr::Gather(_) => operand == 1 && dim == 0,
        Instr::Scatter(_) => operand == 0 && dim == 0,
        _ => false,
    }
}

#[test]
fn samples_are_accepted_and_cover_every_mnemonic() {
    let samples = Instr::samples();
    for (instr, types) in &samples {
        assert_eq!(instr.check(types), Ok(()), "{instr:?} {types:?}");
    }
    for info in Instr::infos() {
        assert!(
            samples.iter().any(|(i, _)| i.mnemonic() == info.mnemonic),
            "{}",
            info.mnemonic
        );
    }
}

#[test]
fn attributes_round_trip() {
    for (instr, _) in Instr::samples() {
        let parsed = Instr::parse(instr.mnemonic(), &instr.attrs());
        assert_eq!(parsed, Some(Ok(instr)));
    }
}

#[test]
fn a_wrong_number_of_operands_is_refused() {
    for (instr, mut types) in Instr::samples() {
        types.push(types[0].clone());
        let message = instr.check(&types).unwrap_err();
        assert!(message.starts_with("has "), "{instr:?}: {message}");
        types.truncate(types.len() - 2);
        assert!(instr.check(&types).is_err(), "{instr:?}");
    }
}

#[test]
fn extents_that_are_off_by_one_are_refused() {
    for (instr, types) in Instr::samples() {
        for operand in 0..types.len() {
            for dim in 0..types[operand].shape.len() {
                let mut broken = types.clone();
                broken[operand].shape[dim] += 1;
                let old = &types[operand];
                if old.packing == Packing::Strided {
                    broken[operand] = dense(old.dtype, &broken[operand].shape);
                }
                let outcome = instr.check(&broken);
                let free = free(&instr, operand, dim, &types);
                assert_eq!(
                    outcome.is_ok(),
                    free,
                    "{instr:?} {operand} {dim}: {outcome:?}"
                );
            }
            let mut broken = types.clone();
            let mut shape = broken[operand].shape.clone();
            shape.insert(0, 2);
            broken[operand] = dense(broken[operand].dtype, &shape);
            let single = matches!(instr, Instr::Fill(_) | Instr::Iota(_));
            assert_eq!(instr.check(&broken).is_ok(), single, "{instr:?} {operand}");
        }
    }
}

#[test]
fn written_views_that_overlap_are_refused() {
    for (instr, types) in Instr::samples() {
        for (operand, role) in instr.roles().iter().enumerate() {
            let Some(dim) = types[operand].shape.iter().position(|d| *d > 8) else {
                continue;
            };
            let mut broken = types.clone();
            broken[operand].strides[dim] = 0;
            let outcome = instr.check(&broken);
            if role.access == Access::Read {
                assert_eq!(outcome, Ok(()), "{instr:?}");
            } else {
                let message = outcome.unwrap_err();
                let expected = format!("writes `{}`, whose elements are not all apart", role.name);
                assert!(message.starts_with(&expected), "{instr:?}: {message}");
            }
        }
    }
}

#[test]
fn packed_views_are_for_products_and_copies() {
    for (instr, types) in Instr::samples() {
        for operand in 0..types.len() {
            if types[operand].shape.len() < 2 {
                continue;
            }
            let mut changed = types.clone();
            let old = &types[operand];
            changed[operand] = packed(old.dtype, &old.shape, Packing::Packed4x8);
            let outcome = instr.check(&changed);
            let allowed = matches!(instr, Instr::MatMul(_) | Instr::Copy(_));
            assert_eq!(outcome.is_ok(), allowed, "{instr:?}: {outcome:?}");
        }
    }
}

#[test]
fn views_of_impossible_form_are_refused() {
    let (copy, types) = Instr::samples()
        .into_iter()
        .find(|(i, _)| i.mnemonic() == "copy")
        .unwrap();
    let with = |view: ViewType| copy.check(&[types[0].clone(), view]).unwrap_err();
    let mut view = types[1].clone();
    view.strides.pop();
    assert_eq!(
        with(view),
        "needs one stride for each of the 2 dimensions of `x`, found 1"
    );
    let deep = dense(DType::F32, &[1; 6]);
    assert_eq!(with(deep), "takes `x` with at most 5 dimensions, found 6");
    let line = packed(DType::F32, &[8], Packing::Packed8x4);
    assert_eq!(
        with(line),
        "needs at least 2 dimensions in `x`, which is packed8x4, found 1"
    );
}

/// What element types an instruction takes for the operands that have the type of its last one.
#[test]
fn element_types() {
    let mut lines = Vec::new();
    let mut seen = Vec::new();
    for (instr, types) in Instr::samples() {
        // One line for what shares a line of attributes and roles.
        let key = (instr.mnemonic(), instr.roles().len());
        if seen.contains(&key) || matches!(instr, Instr::Convert(_) | Instr::MatMul(_)) {
            continue;
        }
        seen.push(key);
        let position = match instr {
            Instr::Gather(_) => 1,
            Instr::Scatter(_) => 0,
            _ => types.len() - 1,
        };
        let from = types[position].dtype;
        let mut taken = Vec::new();
        for (dtype, name) in DType::ALL {
            // Results of comparisons and masks of selections stay bool.
            let mask = match instr {
                Instr::Compare(_) => 0,
                Instr::Select(_) => 1,
                _ => usize::MAX,
            };
            let change = |(n, view): (usize, &ViewType)| match n != mask && view.dtype == from {
                true => dense(dtype, &view.shape),
                false => view.clone(),
            };
            // Attributes that are numbers fit bool too.
            let mut instr = instr.clone();
            if let Instr::Clamp(clamp) = &mut instr {
                clamp.high = crate::attr::Number::Int(1);
            }
            let changed: Vec<ViewType> = types.iter().enumerate().map(change).collect();
            if instr.check(&changed).is_ok() {
                taken.push(name);
            }
        }
        lines.push(format!("{} ({}): {}", key.0, key.1, taken.join(" ")));
    }
    insta::assert_snapshot!(lines.join("\n"), @"
    neg (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    abs (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    relu (2): f16 bf16 f32
    exp (2): f16 bf16 f32
    log (2): f16 bf16 f32
    tanh (2): f16 bf16 f32
    sigmoid (2): f16 bf16 f32
    silu (2): f16 bf16 f32
    erf (2): f16 bf16 f32
    gelu (2): f16 bf16 f32
    gelu_tanh (2): f16 bf16 f32
    rsqrt (2): f16 bf16 f32
    sqrt (2): f16 bf16 f32
    recip (2): f16 bf16 f32
    sin (2): f16 bf16 f32
    cos (2): f16 bf16 f32
    floor (2): f16 bf16 f32
    ceil (2): f16 bf16 f32
    round (2): f16 bf16 f32
    not (2): bool u8 u16 u32 u64 i8 i16 i32 i64
    add (3): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    add (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    sub (3): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    sub (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    mul (3): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    mul (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    div (3): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    div (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    rem (3): u8 u16 u32 u64 i8 i16 i32 i64
    rem (2): u8 u16 u32 u64 i8 i16 i32 i64
    min (3): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    min (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    max (3): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    max (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    pow (3): f16 bf16 f32
    pow (2): f16 bf16 f32
    and (3): bool u8 u16 u32 u64 i8 i16 i32 i64
    and (2): bool u8 u16 u32 u64 i8 i16 i32 i64
    or (3): bool u8 u16 u32 u64 i8 i16 i32 i64
    or (2): bool u8 u16 u32 u64 i8 i16 i32 i64
    xor (3): bool u8 u16 u32 u64 i8 i16 i32 i64
    xor (2): bool u8 u16 u32 u64 i8 i16 i32 i64
    shl (3): u8 u16 u32 u64 i8 i16 i32 i64
    shl (2): u8 u16 u32 u64 i8 i16 i32 i64
    shr (3): u8 u16 u32 u64 i8 i16 i32 i64
    shr (2): u8 u16 u32 u64 i8 i16 i32 i64
    fma (4): f16 bf16 f32
    clamp (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    eq (3): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    eq (2): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    ne (3): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    ne (2): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    lt (3): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    lt (2): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    le (3): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    le (2): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    gt (3): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    gt (2): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    ge (3): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    ge (2): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    select (4): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64 cfp8_143 cfp8_152 shp uhp
    fill (1): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64
    iota (1): u8 u16 u32 u64 i8 i16 i32 i64 f32
    reduce.sum (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    reduce.prod (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    reduce.min (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    reduce.max (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    reduce.and (2): bool
    reduce.or (2): bool
    argmax (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    argmin (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    scan.sum (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    scan.prod (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    scan.max (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    scan.min (2): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    copy (2): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64 cfp8_143 cfp8_152 shp uhp
    pad (2): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64
    gather (3): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64
    scatter (3): bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64 cfp8_143 cfp8_152 shp uhp
    sort (3): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    topk (3): u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32
    ");
}

#[test]
fn conversions_take_a_bias_where_there_is_one() {
    let convert = |y, x, bias: bool, stochastic| {
        let instr = convert::Convert {
            bias: crate::attr::Flag(bias),
            stochastic,
        };
        let mut types = vec![dense(y, &[4]), dense(x, &[4])];
        if bias {
            types.push(dense(DType::U8, &[1]));
        }
        instr.check(&types)
    };
    assert_eq!(convert(DType::Shp, DType::F32, true, None), Ok(()));
    assert_eq!(convert(DType::F32, DType::Uhp, false, None), Ok(()));
    let refused = [
        convert(DType::Shp, DType::F32, false, None),
        convert(DType::Uhp, DType::F32, true, None),
        convert(DType::Bf16, DType::F32, true, None),
        convert(DType::Shp, DType::Cfp8E4M3, true, None),
        convert(DType::Shp, DType::F64, true, None),
        convert(DType::I32, DType::Uhp, false, None),
        convert(DType::F32, DType::Shp, true, Some(1)),
        convert(DType::Bf16, DType::F64, false, Some(1)),
    ];
    let messages: Vec<String> = refused.into_iter().map(Result::unwrap_err).collect();
    insta::assert_snapshot!(messages.join("\n"), @"
    needs an operand `bias` to convert from or to shp
    has an operand `bias`, but neither f32 nor uhp has a configurable bias
    has an operand `bias`, but neither f32 nor bf16 has a configurable bias
    does not take `x` of element type cfp8_143, but of: f32, bf16
    does not take `x` of element type f64, but of: f32, bf16
    does not take `y` of element type i32, but of: f32, bf16
    does not take `y` of element type f32, but of: bf16, f16, cfp8_143, cfp8_152, shp, uhp
    does not take `x` of element type f64, but of: f32
    ");
}

#[test]
fn products_are_refused_for_their_own_reasons() {
    let (plain, types) = Instr::samples().into_iter().next().unwrap();
    let Instr::MatMul(plain) = plain else {
        panic!()
    };
    let with = |product: matrix::MatMul, c: DType, a: (DType, &[u64]), b: (DType, &[u64])| {
        let types = [dense(c, &types[0].shape), dense(a.0, a.1), dense(b.0, b.1)];
        product.check(&types).unwrap_err()
    };
    let flag = crate::attr::Flag(true);
    let accumulate = matrix::MatMul {
        accumulate: flag,
        ..plain.clone()
    };
    let sums = matrix::MatMul {
        sums: flag,
        ..plain.clone()
    };
    let all = matrix::MatMul {
        split: Some(2),
        ..plain.clone()
    };
    let stochastic = matrix::MatMul {
        stochastic: Some(1),
        ..plain.clone()
    };
    let (bf16, f32) = (DType::Bf16, DType::F32);
    let (a, b): (&[u64], &[u64]) = (&[24, 40], &[40, 32]);
    let messages = [
        with(accumulate, bf16, (bf16, a), (bf16, b)),
        with(sums, bf16, (bf16, a), (bf16, b)),
        with(all, f32, (bf16, a), (bf16, b)),
        with(stochastic, f32, (bf16, a), (bf16, b)),
        with(plain.clone(), f32, (bf16, a), (f32, b)),
        with(plain.clone(), DType::F16, (bf16, a), (bf16, b)),
        with(
            plain.clone(),
            f32,
            (DType::Cfp8E4M3, a),
            (DType::Cfp8E4M3, b),
        ),
        with(plain.clone(), f32, (bf16, a), (bf16, &[41, 32])),
        with(plain.clone(), f32, (bf16, a), (bf16, &[32])),
        with(plain, f32, (bf16, &[23, 40]), (bf16, b)),
    ];
    insta::assert_snapshot!(messages.join("\n"), @"
    accumulates onto a bf16 `c` and so needs `sums`, an operand in f32
    has an operand `sums` without `accumulate`
    needs a dimension of k in `a` beside 2 of m, found 2 dimensions
    rounds stochastically, which an f32 `c` does not need: it takes bf16
    needs `b` of the element type of `a`, bf16, found f32
    does not take `c` of element type f16, but of: f32, bf16
    does not take `a` of element type cfp8_143, but of: bf16, f32
    needs as many steps of k in `b` as in `a`, 40 (extents [40]), found 41 (extents [41])
    needs dimensions of k and one of n in `b`, found 1 dimensions
    needs `c` of extents [23, 32], m of `a` and n of `b`, found [24, 32]
    ");
}

#[test]
fn every_statement_is_documented() {
    let infos = infos();
    for info in &infos {
        for text in [
            info.mnemonic,
            info.family,
            info.doc,
            info.rules,
            info.stands_for,
            info.cost,
        ] {
            assert!(!text.trim().is_empty(), "{info:?}");
            assert!(!text.contains("  ") && !text.contains('\n'), "{info:?}");
        }
        for text in [info.doc, info.rules, info.stands_for, info.cost] {
            assert!(text.ends_with('.'), "{info:?}");
        }
    }
    let mut names: Vec<&str> = infos.iter().map(|info| info.mnemonic).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

fn parts(cost: &Cost) -> [f64; 9] {
    [
        cost.issue,
        cost.matrix,
        cost.simd,
        cost.scalar,
        cost.load,
        cost.store,
        cost.inject,
        cost.eject,
        cost.latency,
    ]
}

#[test]
fn costs_are_finite_on_every_machine() {
    for (name, _) in BUILTIN {
        let machine = machine(name);
        for (instr, mut types) in Instr::samples() {
            let cost = instr.cost(&types, &machine);
            assert!(
                parts(&cost)
                    .iter()
                    .all(|part| part.is_finite() && *part >= 0.0),
                "{cost:?}"
            );
            assert!(cost.issue > 0.0 && cost.store > 0.0, "{instr:?}: {cost:?}");
            assert!((cost.matrix > 0.0) <= instr.needs_matrix(), "{instr:?}");
            // Without elements there is nothing to do.
            for ty in &mut types {
                ty.shape.fill(0);
            }
            let empty = instr.cost(&types, &machine);
            assert!(
                parts(&empty).iter().all(|part| part.is_finite()),
                "{instr:?}"
            );
            assert!(empty.alone(&machine) <= cost.alone(&machine), "{instr:?}");
            assert_eq!((empty.store, empty.matrix), (0.0, 0.0), "{instr:?}");
        }
    }
}

/// Dense operands of `mm` with m, k, n, packed as the matrix unit reads them or not.
fn product(dtype: DType, x: [u64; 3], blocks: bool) -> Cost {
    let [m, k, n] = x;
    let cfp8 = dtype == DType::Cfp8E4M3;
    let instr = matrix::MatMul {
        cfp8: crate::attr::Flag(cfp8),
        ..matrix::MatMul::samples().swap_remove(0).0
    };
    let (of_a, of_b) = if blocks {
        (Packing::Packed8x4, Packing::Packed4x8)
    } else {
        (Packing::Strided, Packing::Strided)
    };
    let mut types = vec![
        dense(DType::F32, &[m, n]),
        packed(dtype, &[m, k], of_a),
        packed(dtype, &[k, n], of_b),
    ];
    if cfp8 {
        types.extend([dense(DType::U8, &[1]), dense(DType::U8, &[1])]);
    }
    assert_eq!(instr.check(&types), Ok(()));
    instr.cost(&types, &machine("d1"))
}

#[test]
fn products_are_priced_by_steps_of_the_matrix_unit() {
    let cost = product(DType::Bf16, [64, 64, 64], true);
    // 8 x 8 x 16 steps; 16 macro tiles that end with 8 cycles of latency and 4 registers to read.
    assert_eq!(cost.matrix, 1024.0 + 16.0 * 12.0);
    // Each block of A and B, 128 of 64 bytes each, once for each of 4 columns or rows of tiles.
    assert_eq!(cost.load, (128.0 + 128.0) * 4.0 / 2.0);
    // 64 blocks of 4 registers leave the accumulators, and are stored.
    assert_eq!((cost.simd, cost.store), (256.0, 256.0));
    // Extents are rounded up to steps.
    assert_eq!(product(DType::Bf16, [57, 61, 57], true).matrix, cost.matrix);
    // 8-bit operands are half the bytes at the same rate.
    let narrow = product(DType::Cfp8E4M3, [64, 64, 64], true);
    assert_eq!((narrow.matrix, narrow.load), (cost.matrix, cost.load / 2.0));
    // Rows of 4 or 8 elements of a block that is not packed are gathered, 8 and 4 pieces a block.
    let strided = product(DType::Bf16, [64, 64, 64], false);
    assert_eq!(strided.load, (128.0 * 8.0 + 128.0 * 4.0) * 4.0);
    assert_eq!(strided.matrix, cost.matrix);
    // f32 runs in 16 lanes of the SIMD unit.
    let wide = product(DType::F32, [64, 64, 64], false);
    assert_eq!((wide.matrix, wide.simd), (0.0, 64.0 * 64.0 * 4.0));
    assert!(wide.load < wide.simd);
}

#[test]
fn products_cost_more_as_they_grow() {
    let machine = machine("d1");
    for dtype in [DType::Bf16, DType::F32, DType::Cfp8E4M3] {
        for axis in 0..3 {
            let mut last = 0.0;
            for extent in 0..70 {
                let mut x = [20, 36, 28];
                x[axis] = extent;
                let alone = product(dtype, x, true).alone(&machine);
                assert!(alone >= last, "{dtype} {x:?}: {alone} after {last}");
                last = alone;
            }
        }
    }
}

#[test]
fn vector_instructions_cost_more_as_they_grow() {
    let machine = machine("d1");
    let scaled = |view: &ViewType, dim: usize, extent: u64| {
        let mut shape = view.shape.clone();
        if let Some(old) = shape.get_mut(dim) {
            *old = extent;
        }
        dense(view.dtype, &shape)
    };
    let mut checked = 0;
    for (instr, types) in Instr::samples() {
        // Where all operands have the same extents they grow together.
        if types.iter().any(|ty| ty.shape != types[0].shape) {
            continue;
        }
        for dim in 0..types[0].shape.len() {
            let mut last = 0.0;
            for extent in 0..80 {
                let types: Vec<ViewType> = types.iter().map(|ty| scaled(ty, dim, extent)).collect();
                let alone = instr.cost(&types, &machine).alone(&machine);
                assert!(
                    alone >= last,
                    "{instr:?} {:?}: {alone} after {last}",
                    types[0].shape
                );
                last = alone;
            }
        }
        checked += 1;
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn the_way_of_elements_decides_the_price() {
    let machine = machine("d1");
    let add = |dtype, y: &ViewType, x: &ViewType| {
        let instr = vector::Zip {
            function: vector::ZipFunction::Add,
            value: Some(crate::attr::Number::Int(1)),
        };
        assert_eq!(y.dtype, dtype);
        instr.cost(&[y.clone(), x.clone()], &machine)
    };
    let bf16 = dense(DType::Bf16, &[64, 64]);
    let cost = add(DType::Bf16, &bf16, &bf16);
    // 128 vectors of 32 lanes; two load ports, one for stores, two address units for all three.
    assert_eq!(
        (cost.simd, cost.load, cost.store, cost.issue),
        (128.0, 64.0, 128.0, 128.0)
    );
    let f32 = dense(DType::F32, &[64, 64]);
    assert_eq!(add(DType::F32, &f32, &f32).simd, 256.0);
    // Elements apart from each other are gathered, one piece for each, and fill vectors.
    let columns = sample::columns(DType::Bf16, 64, 64);
    let gathered = add(DType::Bf16, &bf16, &columns);
    assert_eq!((gathered.load, gathered.simd), (4096.0, 128.0));
    // Stores have no such engine.
    let scattered = add(DType::Bf16, &columns, &bf16);
    assert_eq!((scattered.load, scattered.store), (64.0, 4096.0));
    // Short rows leave lanes idle.
    let mut rows = dense(DType::Bf16, &[64, 20]);
    rows.strides[0] = 128;
    assert_eq!(add(DType::Bf16, &rows, &rows).simd, 64.0);
    // A row that repeats is loaded again for every row of the result.
    let mut row = bf16.clone();
    row.strides[0] = 0;
    assert_eq!(add(DType::Bf16, &bf16, &row).load, cost.load);
    // Rows in the same bank share a port; the others use both.
    let mut apart = dense(DType::Bf16, &[64, 32]);
    apart.strides[0] = 512;
    assert_eq!(
        add(DType::Bf16, &dense(DType::Bf16, &[64, 32]), &apart).load,
        64.0
    );
    apart.strides[0] = 192;
    assert_eq!(
        add(DType::Bf16, &dense(DType::Bf16, &[64, 32]), &apart).load,
        32.0
    );
    // 64-bit integers have no lanes.
    let wide = dense(DType::I64, &[64, 64]);
    let scalar = add(DType::I64, &wide, &wide);
    assert_eq!(
        (scalar.simd, scalar.scalar, scalar.load),
        (0.0, 2048.0, 4096.0)
    );
}

#[test]
fn packing_and_shuffling_are_priced() {
    let machine = machine("d1");
    let copy = |y: Packing, x: Packing| {
        let view = |packing| packed(DType::Bf16, &[64, 64], packing);
        data::Copy {}.cost(&[view(y), view(x)], &machine)
    };
    let (plain, blocks) = (Packing::Strided, Packing::Packed8x4);
    assert_eq!(
        (copy(plain, plain).load, copy(plain, plain).store),
        (64.0, 128.0)
    );
    assert_eq!(copy(blocks, blocks).store, 128.0);
    // Rows of blocks are 8 bytes long.
    assert_eq!(
        (copy(blocks, plain).load, copy(blocks, plain).store),
        (64.0, 128.0)
    );
    assert!(copy(plain, blocks).load > 64.0);
}

#[test]
fn messages_cost_beats_and_requests() {
    let machine = machine("d1");
    let send = network::send_cost(1000, 1, &machine);
    assert_eq!((send.inject, send.eject), (17.0, 1.0));
    assert_eq!(network::receive_cost(1000, &machine).eject, 17.0);
    assert_eq!(network::post_cost(&machine).inject, 1.0);
    assert_eq!(network::send_cost(0, 1, &machine).inject, 1.0);
    let relay = network::relay_cost(64, 3, &machine);
    assert_eq!((relay.inject, relay.eject), (2.0, 5.0));
    assert!(relay.latency > send.latency);
    for bytes in [0, 1, 64, 65, u64::MAX] {
        let costs = [
            network::send_cost(bytes, 2, &machine),
            network::receive_cost(bytes, &machine),
            network::relay_cost(bytes, 2, &machine),
        ];
        assert!(
            costs
                .iter()
                .flat_map(parts)
                .all(|p| p.is_finite() && p >= 0.0)
        );
    }
}

#[test]
fn memory_and_control_are_priced() {
    let machine = machine("tray");
    let view = dense(DType::F32, &[4, 1024]);
    let rows = memory::load_cost(&view, &[8192, 4], &machine);
    assert_eq!(
        (rows.inject, rows.eject, rows.latency),
        (16.0, 256.0, 2000.0)
    );
    let whole = memory::store_cost(&view, &view.strides, &machine);
    assert_eq!((whole.inject, whole.eject), (256.0 + 16.0, 0.0));
    let apart = memory::load_cost(&view, &[4, 16], &machine);
    assert_eq!(apart.eject, 4096.0);
    assert_eq!(
        memory::load_cost(&dense(DType::F32, &[0, 9]), &[36, 4], &machine).eject,
        0.0
    );
    assert_eq!(memory::commit_cost(3, &machine).inject, 3.0);
    assert_eq!(memory::begin_cost(3, &machine).eject, 3.0);
    assert_eq!(memory::acquire_cost(&machine).eject, 1.0);
    assert_eq!(memory::release_cost(&machine).inject, 1.0);
    assert_eq!(sync::token_cost(&machine).latency, 4.0);
    assert_eq!(control::count_cost(8, &machine).load, 1.0);
    assert_eq!(control::iteration_cost(&machine).issue, 0.125);
}

#[test]
fn figures_come_from_the_machine() {
    let text = "base = \"d1\"\n\
        [sources]\nx = \"a test\"\n\
        [simd]\nf32_lanes = { value = 8, unit = \"lanes\", source = \"x\", confidence = \"P\" }\n\
        [matrix]\noperands = { value = [\"bf16\", \"cfp8\", \"f32\"], source = \"x\", confidence = \"P\" }\n";
    let other = Machine::parse(text, "other").unwrap();
    let x = dense(DType::F32, &[64, 64]);
    let exp = vector::Map {
        function: vector::MapFunction::Exp,
    };
    let on = |machine: &Machine| exp.cost(&[x.clone(), x.clone()], machine).simd;
    assert_eq!(2.0 * on(&machine("d1")), on(&other));
    let (plain, _) = matrix::MatMul::samples().swap_remove(0);
    let types = [x.clone(), x.clone(), x];
    assert_eq!(plain.cost(&types, &machine("d1")).matrix, 0.0);
    assert!(plain.cost(&types, &other).matrix > 1024.0);
}
