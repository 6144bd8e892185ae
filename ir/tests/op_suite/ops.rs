//! The op suite: for every sample of every op, the two descriptions of the op (its `eval` and its
//! tiling rule) agree, its text form reads back, its shape rule tells the truth, and its gradient
//! is the one that finite differences show.

use std::collections::BTreeSet;

use crate::common::{assert_close, describe, fill, instantiate};
use dojoc_ir::access::{Kernel, Tiling, View, interpret};
use dojoc_ir::graph::{FunctionBuilder, eval::run_function};
use dojoc_ir::ops::{EvalCx, EvalError, GradCx, NoGrad, Op, Sample};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::{Tensor, indices, ravel, unravel};
use dojoc_ir::types::{DType, Type};
use rand::SeedableRng as _;
use rand_pcg::Pcg64;

fn samples() -> Vec<(String, Sample)> {
    Op::samples()
        .into_iter()
        .map(|s| (describe(&s), s))
        .collect()
}

fn rng(label: &str) -> Pcg64 {
    let seed = label
        .bytes()
        .fold(7u64, |h, b| h.wrapping_mul(0x0100_0000_01b3) ^ u64::from(b));
    Pcg64::seed_from_u64(seed)
}

fn eval_plain(op: &Op, args: &[Tensor]) -> Vec<Tensor> {
    let mut no_regions = |_: usize, _: &[Tensor]| Err(EvalError::value("there are no regions"));
    op.eval(args, &mut EvalCx::new(&mut no_regions))
        .expect("samples evaluate")
}

#[test]
fn every_mnemonic_has_a_sample_documentation_and_one_owner() {
    let sampled: BTreeSet<&str> = Op::samples().iter().map(|s| s.op.name()).collect();
    let names: Vec<&str> = Op::names().collect();
    let unique: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(unique.len(), names.len(), "a mnemonic is registered twice");
    for name in names {
        assert!(sampled.contains(name), "op `{name}` has no sample");
        let doc = Op::doc(name).expect("registered");
        assert!(doc.len() > 20, "op `{name}` has no documentation");
        for attr in Op::schema(name).expect("registered") {
            assert!(
                attr.doc.len() > 5,
                "attribute `{}` of `{name}` is undocumented",
                attr.name
            );
        }
    }
}

#[test]
fn parse_inverts_print() {
    for (label, sample) in samples() {
        let parsed = Op::parse(sample.op.name(), &sample.op.attrs());
        assert_eq!(parsed, Some(Ok(sample.op)), "{label}");
    }
}

#[test]
fn results_have_the_types_that_infer_says() {
    for (label, sample) in samples() {
        let args = fill(&sample, &mut rng(&label));
        let func = instantiate(&sample).unwrap_or_else(|e| panic!("{label}: {e}"));
        let results = run_function(&func, &args).unwrap_or_else(|e| panic!("{label}: {e}"));
        let expected = func.types(func.results());
        let found: Vec<Type> = results.iter().map(Tensor::ty).collect();
        // Data-dependent extents are symbols: only the bound can be compared.
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected.dtype, found.dtype, "{label}");
            assert_eq!(expected.rank(), found.rank(), "{label}");
            for (e, f) in expected.dims().iter().zip(found.dims()) {
                let fits = e == f || (e.as_const().is_none() && f.max_extent() <= e.max_extent());
                assert!(fits, "{label}: expected {expected}, found {found}");
            }
        }
        assert_eq!(expected.len(), found.len(), "{label}");
    }
}

#[test]
fn the_tiling_rule_computes_what_eval_computes() {
    for (label, sample) in samples() {
        let args = fill(&sample, &mut rng(&label));
        let types: Vec<Type> = sample.args.iter().map(|a| a.ty.clone()).collect();
        let tolerance = sample.op.tolerance();
        match sample.op.tiling(&types) {
            Tiling::Loop(access) => {
                let found = interpret(&access, &args).unwrap_or_else(|e| panic!("{label}: {e}"));
                assert_close(&label, &found, &eval_plain(&sample.op, &args), tolerance);
            }
            Tiling::Expand(func) => {
                assert_eq!(
                    func.types(func.inputs()),
                    types,
                    "{label}: inputs of the expansion"
                );
                let found = run_function(&func, &args).unwrap_or_else(|e| panic!("{label}: {e}"));
                assert_close(&label, &found, &eval_plain(&sample.op, &args), tolerance);
            }
            Tiling::View(view) => {
                let expected = eval_plain(&sample.op, &args);
                let found = interpret_view(&label, &view, &args[0], expected[0].shape());
                assert_close(&label, &[found], &expected, tolerance);
            }
            Tiling::Kernel(kernel) => check_kernel(&label, &sample, &kernel, &args),
            Tiling::Control => assert!(!sample.regions.is_empty(), "{label}: no regions"),
        }
    }
}

/// Moves every element by the factors of its groups.
fn interpret_view(label: &str, view: &View, input: &Tensor, output: &[u64]) -> Tensor {
    let mut position = vec![None; output.iter().product::<u64>() as usize];
    let covers =
        |ranges: Vec<std::ops::Range<usize>>, rank: usize| ranges.into_iter().flatten().eq(0..rank);
    assert!(
        covers(
            view.groups.iter().map(|g| g.input.clone()).collect(),
            input.rank()
        ),
        "{label}"
    );
    assert!(
        covers(
            view.groups.iter().map(|g| g.output.clone()).collect(),
            output.len()
        ),
        "{label}"
    );
    for (linear, index) in indices(input.shape()).enumerate() {
        let mut target = vec![0; output.len()];
        for group in &view.groups {
            let (from, to) = (
                &input.shape()[group.input.clone()],
                &output[group.output.clone()],
            );
            let inner = ravel(&index[group.input.clone()], from);
            if let Some(factors) = &group.factors {
                let factors: Vec<u64> = factors
                    .iter()
                    .map(|f| f.as_const().expect("constant"))
                    .collect();
                for side in [from, to] {
                    assert!(
                        refines(&factors, side),
                        "{label}: {factors:?} do not refine {side:?}"
                    );
                }
                assert_eq!(ravel(&unravel(inner, &factors), &factors), inner, "{label}");
            }
            target[group.output.clone()].copy_from_slice(&unravel(inner, to));
        }
        position[ravel(&target, output) as usize] = Some(linear);
    }
    assert!(
        position.iter().all(Option::is_some),
        "{label}: an element is not reached"
    );
    input.select(output, position, Scalar::Int(0))
}

/// Whether every extent is a product of consecutive factors that together are all factors.
fn refines(factors: &[u64], extents: &[u64]) -> bool {
    let mut rest = factors.iter().peekable();
    for extent in extents {
        let mut product = 1;
        while product < *extent {
            let Some(factor) = rest.next() else {
                return false;
            };
            product *= factor;
        }
        if product != *extent {
            return false;
        }
    }
    rest.all(|f| *f == 1)
}

/// Splits every splittable dim in two, evaluates the parts, and puts them side by side.
fn check_kernel(label: &str, sample: &Sample, kernel: &Kernel, args: &[Tensor]) {
    let whole = eval_plain(&sample.op, args);
    for index in &kernel.index_operands {
        assert!(*index < args.len(), "{label}: index operand {index}");
    }
    for split in &kernel.dims {
        assert_eq!(
            split.operands.len(),
            args.len(),
            "{label}: split {}",
            split.name
        );
        assert_eq!(
            split.results.len(),
            whole.len(),
            "{label}: split {}",
            split.name
        );
        let extents: BTreeSet<u64> = split
            .operands
            .iter()
            .zip(args)
            .filter_map(|(axis, arg)| axis.map(|axis| arg.shape()[axis]))
            .collect();
        assert_eq!(
            extents.len(),
            1,
            "{label}: split {} has extents {extents:?}",
            split.name
        );
        let extent = extents.first().copied().expect("one extent");
        if extent < 2 {
            continue;
        }
        let cut = extent / 2;
        let mut parts = vec![];
        for range in [0..cut, cut..extent] {
            let part: Vec<Tensor> = split
                .operands
                .iter()
                .zip(args)
                .map(|(axis, arg)| match axis {
                    Some(axis) => slice(arg, *axis, range.clone()),
                    None => arg.clone(),
                })
                .collect();
            let types: Vec<Type> = part.iter().map(Tensor::ty).collect();
            let op = resize_attrs(&sample.op, &types, &whole, split, range.end - range.start);
            parts.push(eval_plain(&op, &part));
        }
        for (number, whole) in whole.iter().enumerate() {
            let axis = split.results[number];
            let joined = join(&parts[0][number], &parts[1][number], axis);
            let context = format!("{label}: split {}", split.name);
            assert_close(
                &context,
                &[joined],
                std::slice::from_ref(whole),
                sample.op.tolerance(),
            );
        }
    }
}

/// An op whose attributes state the extent of the split dim of its result states the part's.
fn resize_attrs(
    op: &Op,
    part: &[Type],
    whole: &[Tensor],
    split: &dojoc_ir::access::SplitDim,
    extent: u64,
) -> Op {
    let consistent = |types: &[Type]| {
        types
            .iter()
            .zip(whole)
            .zip(&split.results)
            .all(|((ty, whole), axis)| {
                ty.dims().iter().enumerate().all(|(d, e)| {
                    e.as_const().is_none()
                        || e.is(if d == *axis { extent } else { whole.shape()[d] })
                })
            })
    };
    match op.infer(part, &[]) {
        Ok(types) if consistent(&types) => op.clone(),
        other => panic!(
            "{}: a part of `{}` is typed {other:?}",
            op.name(),
            split.name
        ),
    }
}

fn slice(tensor: &Tensor, axis: usize, range: std::ops::Range<u64>) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    shape[axis] = range.end - range.start;
    let positions: Vec<Option<usize>> = indices(&shape)
        .map(|mut index| {
            index[axis] += range.start;
            Some(ravel(&index, tensor.shape()) as usize)
        })
        .collect();
    tensor.select(&shape, positions, Scalar::Int(0))
}

fn join(a: &Tensor, b: &Tensor, axis: usize) -> Tensor {
    let mut shape = a.shape().to_vec();
    let cut = shape[axis];
    shape[axis] += b.shape()[axis];
    let values: Vec<Scalar> = indices(&shape)
        .map(|mut index| {
            if index[axis] < cut {
                return a.get(ravel(&index, a.shape()) as usize);
            }
            index[axis] -= cut;
            b.get(ravel(&index, b.shape()) as usize)
        })
        .collect();
    Tensor::from_scalars(a.dtype(), &shape, values)
}

/// The sample with `f64` in place of `f32`, if the op allows it.
fn in_f64(sample: &Sample) -> Option<Sample> {
    let mut sample = sample.clone();
    for arg in &mut sample.args {
        match arg.ty.dtype {
            DType::F32 => arg.ty = arg.ty.with_dtype(DType::F64),
            dtype if dtype.is_float() => return None,
            _ => {}
        }
        if let dojoc_ir::ops::Fill::Given(value) = &mut arg.fill
            && value.dtype() == DType::F32
        {
            *value = value.convert(DType::F64);
        }
    }
    let func = instantiate(&sample).ok()?;
    let results = func.types(func.results());
    let any_float = sample.args.iter().any(|a| a.ty.dtype == DType::F64);
    (any_float && results.iter().any(|ty| ty.dtype == DType::F64)).then_some(sample)
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (mut with_rule, mut checked) = (BTreeSet::new(), BTreeSet::new());
    for (label, sample) in samples() {
        let Some(sample) = in_f64(&sample) else {
            continue;
        };
        let name = sample.op.name();
        match check_gradient(&label, &sample) {
            Ok(false) => {}
            Ok(true) if sample.check_grad => {
                with_rule.insert(name);
                checked.insert(name);
            }
            Ok(true) => {
                with_rule.insert(name);
            }
            Err(message) => panic!("{label}: {message}"),
        }
    }
    let unchecked: Vec<&&str> = with_rule.difference(&checked).collect();
    assert!(
        unchecked.is_empty(),
        "ops with a gradient that no sample checks: {unchecked:?}"
    );
    assert!(
        checked.len() >= MIN_DIFFERENTIABLE,
        "only {} ops: {checked:?}",
        checked.len()
    );
}

/// Ops that must at least have a checked gradient.
const MIN_DIFFERENTIABLE: usize = 35;

/// Compares the gradient of `sum of results * weights` with central differences. `Ok(false)` if
/// the op has no rule.
fn check_gradient(label: &str, sample: &Sample) -> Result<bool, String> {
    const STEP: f64 = 1e-5;
    let mut rng = rng(label);
    let args = fill(sample, &mut rng);
    let mut b = FunctionBuilder::new("loss");
    let inputs: Vec<_> = sample
        .args
        .iter()
        .map(|a| b.param(a.ty.clone(), None))
        .collect();
    let regions: Result<Vec<_>, _> = sample.regions.iter().map(|build| build(&mut b)).collect();
    let regions = regions.map_err(|e| e.to_string())?;
    let results = b
        .node_with_regions(sample.op.clone(), &inputs, &regions)
        .map_err(|e| e.to_string())?;
    let mut cotangents = vec![];
    let mut weights = vec![];
    for result in &results {
        let ty = b.ty(*result).clone();
        cotangents.push(b.param(ty.clone(), None));
        weights.push(crate::common::random(&ty, -1.0, 1.0, &mut rng));
    }
    let op = sample.op.clone();
    let mut cx = GradCx {
        b: &mut b,
        args: &inputs,
        results: &results,
        cotangents: &cotangents,
    };
    let grads = match op.grad(&mut cx) {
        Err(NoGrad::NoRule) => return Ok(false),
        Err(NoGrad::Type(error)) => return Err(format!("the rule builds a wrong graph: {error}")),
        Ok(grads) => grads,
    };
    if grads.len() != inputs.len() {
        return Err(format!(
            "{} gradients for {} operands",
            grads.len(),
            inputs.len()
        ));
    }
    let outputs: Vec<_> = results
        .iter()
        .copied()
        .chain(grads.iter().flatten().copied())
        .collect();
    let func = b.finish_unnamed(&outputs);
    let run = |args: &[Tensor]| {
        let all: Vec<Tensor> = args.iter().chain(&weights).cloned().collect();
        run_function(&func, &all).map_err(|e| e.to_string())
    };
    let loss = |args: &[Tensor]| -> Result<f64, String> {
        let outputs = run(args)?;
        Ok(outputs
            .iter()
            .zip(&weights)
            .filter(|(o, _)| o.dtype() == DType::F64)
            .fold(0.0, |sum, (output, weight)| {
                sum + output
                    .to_f64s()
                    .iter()
                    .zip(weight.to_f64s())
                    .map(|(o, w)| o * w)
                    .sum::<f64>()
            }))
    };
    let computed = run(&args)?.split_off(results.len());
    let mut computed = computed.into_iter();
    for (number, grad) in grads.iter().enumerate() {
        let grad = match grad {
            Some(_) => computed.next(),
            None => None,
        };
        if args[number].dtype() != DType::F64 || !sample.check_grad {
            continue;
        }
        if let Some(grad) = &grad
            && grad.ty() != args[number].ty()
        {
            return Err(format!("operand {number}: the gradient is {}", grad.ty()));
        }
        for element in 0..args[number].len() {
            let moved = |by: f64| {
                let mut values = args[number].to_f64s();
                values[element] += by;
                let mut args = args.clone();
                args[number] = Tensor::from_vec(args[number].shape(), values);
                loss(&args)
            };
            let expected = (moved(STEP)? - moved(-STEP)?) / (2.0 * STEP);
            let found = grad.as_ref().map_or(0.0, |g| g.get(element).to_f64());
            if (expected - found).abs() > 1e-6 * (1.0 + expected.abs()) {
                return Err(format!(
                    "operand {number}, element {element}: {found} should be {expected}"
                ));
            }
        }
    }
    Ok(true)
}
