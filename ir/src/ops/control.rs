//! Structured control flow: regions that run depending on values.

use super::{EvalCx, EvalError, OpDef, Sample, TypeError};
use crate::access::Tiling;
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, RegionId, RegionType};
use crate::op_struct;
use crate::scalar::{BinaryFn, Scalar};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, Type};
use crate::with_element;

#[cfg(test)]
mod tests;

op_struct! {
    /// Runs one of two regions: `results = cond ? then(captures) : else(captures)`.
    ///
    /// Operands `(cond: bool[], captures..)`; regions `[then, else]`, both with the captures as
    /// parameters and with results of the same types, which are the results.
    If {}
}

op_struct! {
    /// Runs a region again and again: `while cond && i < trips { (cond, carried, row_i) =
    /// body(i, carried, captures); i += 1 }`.
    ///
    /// Operands `(trips: i64[], cond: bool[], carried.., captures..)`; the region has parameters
    /// `(i: i64[], carried.., captures..)` and results `(cond: bool[], carried.., rows..)`. Results:
    /// the last carried values, then for each row value all of its rows along a new leading dim.
    /// Carried values keep their type; a negative number of trips is none.
    ///
    /// Without stacked rows `extent` says nothing. Rows of different shapes are an error. An extent
    /// of a row that only the region knows is 0 when there was no trip: such a tensor is empty
    /// whatever the extent, and 0 is the one value that every bound allows.
    Loop {
        /// Number of carried values.
        carried: usize,
        /// Leading extent of the stacked rows: a constant that the number of trips has to meet, or
        /// a symbol that the loop defines and whose bound the trips may not exceed.
        extent: Dim,
    }
}

op_struct! {
    /// Runs a region for every row of the sequences, in order: `(carried, row_i) =
    /// body(carried, sequences[i], captures)`.
    ///
    /// Operands `(carried.., sequences.., captures..)`; every sequence has the leading extent
    /// `length`, which its parameter lacks. The region has parameters `(carried.., slices..,
    /// captures..)` and results `(carried.., rows..)`. Results: the last carried values, then the
    /// rows stacked along a new leading dim of extent `length`. Carried values keep their type;
    /// extents of rows of an empty sequence are as for `loop`.
    Scan {
        /// Number of carried values.
        carried: usize,
        /// Number of sequences.
        sequences: usize,
        /// Leading extent of the sequences: the number of iterations.
        length: Dim,
    }
}

fn list(types: &[Type]) -> String {
    let names: Vec<String> = types.iter().map(Type::to_string).collect();
    format!("({})", names.join(", "))
}

fn regions<const N: usize>(regions: &[RegionType]) -> Result<&[RegionType; N], TypeError> {
    match regions.try_into() {
        Ok(array) => Ok(array),
        Err(_) => type_error!("expected {N} regions, found {}", regions.len()),
    }
}

fn check_params(region: &RegionType, expected: &[Type]) -> Result<(), TypeError> {
    if region.params != expected {
        let (found, expected) = (list(&region.params), list(expected));
        type_error!("the parameters of the region are {found}, expected {expected}");
    }
    Ok(())
}

/// The types after `expected` among the results of a region that has to start with `expected`.
fn check_results<'a>(region: &'a RegionType, expected: &[Type]) -> Result<&'a [Type], TypeError> {
    match region.results.strip_prefix(expected) {
        Some(rest) => Ok(rest),
        None => {
            let (found, expected) = (list(&region.results), list(expected));
            type_error!("the results of the region are {found}, expected them to start {expected}")
        }
    }
}

fn stacked_type(row: &Type, extent: &Dim) -> Type {
    let dims = std::iter::once(extent).chain(row.dims()).cloned();
    Type::new(row.dtype, Shape::new(dims))
}

/// Puts the rows of the iterations below one another. `row` is their type as the region declares
/// it, which is all that is known of them if there are none.
fn stack(rows: &[Tensor], row: &Type) -> Result<Tensor, EvalError> {
    let Some(first) = rows.first() else {
        let declared = row.dims().iter().map(|d| d.as_const().unwrap_or(0));
        let shape: Vec<u64> = std::iter::once(0).chain(declared).collect();
        return Ok(Tensor::splat(row.dtype, &shape, Scalar::zero(row.dtype)));
    };
    if let Some(other) = rows.iter().find(|r| r.ty() != first.ty()) {
        let (a, b) = (first.ty(), other.ty());
        return Err(EvalError::value(format!(
            "iterations give rows of types {a} and {b}"
        )));
    }
    let shape: Vec<u64> = std::iter::once(rows.len() as u64)
        .chain(first.shape().iter().copied())
        .collect();
    Ok(with_element!(first.dtype(), T => {
        let mut data: Vec<T> = Vec::with_capacity(first.len() * rows.len());
        for row in rows {
            data.extend_from_slice(&row.stored::<T>());
        }
        Tensor::from_stored(first.dtype(), &shape, data)
    }))
}

/// Row `index` of the leading dim, sharing the bytes.
fn row(sequence: &Tensor, index: u64) -> Tensor {
    let shape = &sequence.shape()[1..];
    let size = (shape.iter().product::<u64>() * sequence.dtype().bytes()) as usize;
    let start = index as usize * size;
    let bytes = sequence.bytes().slice(start..start + size);
    Tensor::from_bytes(sequence.dtype(), shape, bytes).expect("a row has the size of its type")
}

/// The results that the iterations have given so far.
struct Iterations {
    carried: Vec<Tensor>,
    rows: Vec<Vec<Tensor>>,
    row_types: Vec<Type>,
}

impl Iterations {
    /// `skip` results of the region come before the carried values.
    fn start(carried: &[Tensor], skip: usize, cx: &EvalCx<'_>) -> Self {
        let results = cx.regions().first().map_or(&[][..], |r| &r.results);
        let row_types = results.get(skip + carried.len()..).unwrap_or(&[]).to_vec();
        Self {
            carried: carried.to_vec(),
            rows: vec![vec![]; row_types.len()],
            row_types,
        }
    }

    /// Takes the carried values and rows that an iteration gives.
    fn take(&mut self, results: &[Tensor]) {
        let (carried, rows) = results.split_at(self.carried.len());
        self.carried = carried.to_vec();
        for (all, row) in self.rows.iter_mut().zip(rows) {
            all.push(row.clone());
        }
    }

    fn finish(self) -> Result<Vec<Tensor>, EvalError> {
        let mut results = self.carried;
        for (rows, ty) in self.rows.iter().zip(&self.row_types) {
            results.push(stack(rows, ty)?);
        }
        Ok(results)
    }
}

impl OpDef for If {
    const NAMES: &'static [&'static str] = &["if"];

    fn infer(&self, args: &[Type], region_types: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [then, otherwise] = regions(region_types)?;
        let Some((cond, captures)) = args.split_first() else {
            type_error!("expected a condition");
        };
        if *cond != Type::scalar(DType::Bool) {
            type_error!("expected the condition to be bool[], found {cond}");
        }
        check_params(then, captures)?;
        check_params(otherwise, captures)?;
        if then.results != otherwise.results {
            let (a, b) = (list(&then.results), list(&otherwise.results));
            type_error!("the regions have different results: {a} and {b}");
        }
        Ok(then.results.clone())
    }

    fn eval(&self, args: &[Tensor], cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let region = if args[0].get(0).to_bool() { 0 } else { 1 };
        cx.call(region, &args[1..])
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        Tiling::Control
    }

    fn samples() -> Vec<Sample> {
        fn product(b: &mut FunctionBuilder) -> Result<RegionId, TypeError> {
            pair(b, BinaryFn::Mul)
        }
        fn difference(b: &mut FunctionBuilder) -> Result<RegionId, TypeError> {
            pair(b, BinaryFn::Sub)
        }
        fn pair(b: &mut FunctionBuilder, f: BinaryFn) -> Result<RegionId, TypeError> {
            let region = b.open_region();
            let x = b.param(Type::of(DType::F32, &[2, 3]), None);
            let y = b.param(Type::of(DType::F32, &[3]), None);
            let z = b.op(f, &[x, y])?;
            b.close_region(&[z, y]);
            Ok(region)
        }
        fn nothing(b: &mut FunctionBuilder) -> Result<RegionId, TypeError> {
            let region = b.open_region();
            b.close_region(&[]);
            Ok(region)
        }
        let args = [
            Type::scalar(DType::Bool),
            Type::of(DType::F32, &[2, 3]),
            Type::of(DType::F32, &[3]),
        ];
        let sample = |truth: bool| {
            Sample::new(If {}, &args)
                .given(0, Tensor::scalar(DType::Bool, Scalar::Bool(truth)))
                .region(product)
                .region(difference)
        };
        vec![
            sample(true),
            sample(false),
            Sample::new(If {}, &args[..1])
                .region(nothing)
                .region(nothing),
        ]
    }
}

impl OpDef for Loop {
    const NAMES: &'static [&'static str] = &["loop"];

    fn infer(&self, args: &[Type], region_types: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [body] = regions(region_types)?;
        let Some((([trips, cond], rest), carried)) = args
            .split_first_chunk()
            .and_then(|(head, rest)| Some(((head, rest), rest.get(..self.carried)?)))
        else {
            let wanted = self.carried + 2;
            type_error!("expected at least {wanted} operands, found {}", args.len());
        };
        let counter = Type::scalar(DType::I64);
        let truth = Type::scalar(DType::Bool);
        if *trips != counter || *cond != truth {
            type_error!(
                "expected the trips to be i64[] and the condition bool[], found {trips}, {cond}"
            );
        }
        let params: Vec<Type> = std::iter::once(&counter).chain(rest).cloned().collect();
        check_params(body, &params)?;
        let results: Vec<Type> = std::iter::once(&truth).chain(carried).cloned().collect();
        let rows = check_results(body, &results)?;
        let stacked = rows.iter().map(|ty| stacked_type(ty, &self.extent));
        Ok(carried.iter().cloned().chain(stacked).collect())
    }

    fn eval(&self, args: &[Tensor], cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let trips = args[0].get(0).to_int();
        let mut cond = args[1].get(0).to_bool();
        let (carried, captures) = args[2..].split_at(self.carried);
        let mut iterations = Iterations::start(carried, 1, cx);
        let stacks = !iterations.row_types.is_empty();
        let limit = i128::from(self.extent.max_extent());
        let mut index = 0;
        while cond && index < trips {
            if stacks && index == limit {
                let extent = &self.extent;
                let message = format!("the loop makes more trips than its extent {extent} allows");
                return Err(EvalError::value(message));
            }
            let mut inputs = vec![Tensor::scalar(DType::I64, Scalar::Int(index))];
            inputs.extend_from_slice(&iterations.carried);
            inputs.extend_from_slice(captures);
            let results = cx.call(0, &inputs)?;
            cond = results[0].get(0).to_bool();
            iterations.take(&results[1..]);
            index += 1;
        }
        if stacks && self.extent.as_const().is_some() && index != limit {
            let message = format!("the loop made {index} trips, its extent is {limit}");
            return Err(EvalError::value(message));
        }
        iterations.finish()
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        Tiling::Control
    }

    fn samples() -> Vec<Sample> {
        /// `(i, x, w) -> (i < 3, x * w, rows x and i)`.
        fn powers(b: &mut FunctionBuilder) -> Result<RegionId, TypeError> {
            let region = b.open_region();
            let i = b.param(Type::scalar(DType::I64), None);
            let x = b.param(Type::of(DType::F32, &[3]), None);
            let w = b.param(Type::of(DType::F32, &[3]), None);
            let last = b.scalar(DType::I64, 3.0);
            let cond = b.op(BinaryFn::Lt, &[i, last])?;
            let next = b.op(BinaryFn::Mul, &[x, w])?;
            b.close_region(&[cond, next, x, i]);
            Ok(region)
        }
        /// Euclid's algorithm, by the condition alone.
        fn euclid(b: &mut FunctionBuilder) -> Result<RegionId, TypeError> {
            let region = b.open_region();
            b.param(Type::scalar(DType::I64), None);
            let x = b.param(Type::scalar(DType::I64), None);
            let y = b.param(Type::scalar(DType::I64), None);
            let rest = b.op(BinaryFn::Mod, &[x, y])?;
            let zero = b.scalar(DType::I64, 0.0);
            let cond = b.op(BinaryFn::Ne, &[rest, zero])?;
            b.close_region(&[cond, y, rest]);
            Ok(region)
        }
        let int = |value: i64| Tensor::from_vec(&[], vec![value]);
        let truth = |value| Tensor::scalar(DType::Bool, Scalar::Bool(value));
        let (counter, cond) = (Type::scalar(DType::I64), Type::scalar(DType::Bool));
        let vector = Type::of(DType::F32, &[3]);
        let args = [counter.clone(), cond.clone(), vector.clone(), vector];
        let sample = |trips: i64, start: bool, extent: Dim| {
            Sample::new(Loop { carried: 1, extent }, &args)
                .given(0, int(trips))
                .given(1, truth(start))
                .region(powers)
        };
        let euclid_args = [counter.clone(), cond, counter.clone(), counter];
        vec![
            sample(2, true, Dim::Const(2)),
            sample(3, true, Dim::symbol("t", 3)),
            sample(i64::MAX, true, Dim::symbol("t", 8)),
            sample(0, true, Dim::symbol("t", 8)),
            sample(-1, true, Dim::Const(0)),
            sample(5, false, Dim::symbol("t", 5)),
            Sample::new(
                Loop {
                    carried: 2,
                    extent: Dim::Const(0),
                },
                &euclid_args,
            )
            .given(0, int(i64::MAX))
            .given(1, truth(true))
            .given(2, int(84))
            .given(3, int(36))
            .region(euclid),
        ]
    }
}

impl OpDef for Scan {
    const NAMES: &'static [&'static str] = &["scan"];

    fn infer(&self, args: &[Type], region_types: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [body] = regions(region_types)?;
        let wanted = self.carried.saturating_add(self.sequences);
        if args.len() < wanted {
            type_error!("expected at least {wanted} operands, found {}", args.len());
        }
        let (carried, rest) = args.split_at(self.carried);
        let (sequences, captures) = rest.split_at(self.sequences);
        let mut params = carried.to_vec();
        for sequence in sequences {
            match sequence.dims().split_first() {
                Some((extent, dims)) if *extent == self.length => {
                    params.push(Type::new(sequence.dtype, Shape::new(dims.iter().cloned())));
                }
                _ => type_error!(
                    "expected a sequence of length {}, found {sequence}",
                    self.length
                ),
            }
        }
        params.extend_from_slice(captures);
        check_params(body, &params)?;
        let rows = check_results(body, carried)?;
        let stacked = rows.iter().map(|ty| stacked_type(ty, &self.length));
        Ok(carried.iter().cloned().chain(stacked).collect())
    }

    fn eval(&self, args: &[Tensor], cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let Some(length) = self.length.as_const() else {
            return Err(EvalError::value("the length is symbolic"));
        };
        let (carried, rest) = args.split_at(self.carried);
        let (sequences, captures) = rest.split_at(self.sequences);
        let mut iterations = Iterations::start(carried, 0, cx);
        for index in 0..length {
            let mut inputs = iterations.carried.clone();
            inputs.extend(sequences.iter().map(|s| row(s, index)));
            inputs.extend_from_slice(captures);
            let results = cx.call(0, &inputs)?;
            iterations.take(&results);
        }
        iterations.finish()
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        Tiling::Control
    }

    fn samples() -> Vec<Sample> {
        /// `(h, x, w) -> (h * w + x, h)`: a linear recurrence.
        fn recurrence(b: &mut FunctionBuilder) -> Result<RegionId, TypeError> {
            let region = b.open_region();
            let h = b.param(Type::of(DType::F32, &[2]), None);
            let x = b.param(Type::of(DType::F32, &[2]), None);
            let w = b.param(Type::scalar(DType::F32), None);
            let decayed = b.op(BinaryFn::Mul, &[h, w])?;
            let next = b.op(BinaryFn::Add, &[decayed, x])?;
            b.close_region(&[next, h]);
            Ok(region)
        }
        /// `(x, y) -> (x + y)`: no state.
        fn sum(b: &mut FunctionBuilder) -> Result<RegionId, TypeError> {
            let region = b.open_region();
            let x = b.param(Type::scalar(DType::I32), None);
            let y = b.param(Type::of(DType::I32, &[2]), None);
            let z = b.op(BinaryFn::Add, &[x, y])?;
            b.close_region(&[z]);
            Ok(region)
        }
        let recur = |length: u64| {
            let args = [
                Type::of(DType::F32, &[2]),
                Type::of(DType::F32, &[length, 2]),
                Type::scalar(DType::F32),
            ];
            let op = Scan {
                carried: 1,
                sequences: 1,
                length: Dim::Const(length),
            };
            Sample::new(op, &args).region(recurrence)
        };
        let pair = [Type::of(DType::I32, &[3]), Type::of(DType::I32, &[3, 2])];
        let map = Scan {
            carried: 0,
            sequences: 2,
            length: Dim::Const(3),
        };
        vec![
            recur(4),
            recur(1),
            recur(0),
            Sample::new(map, &pair).region(sum),
        ]
    }
}
