//! If, Loop and Scan.

use dojoc_ir::diag::Kind;
use dojoc_ir::dim::{Dim, Poly};
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{If, Loop, Scan};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Shape, Type};

use super::super::build::bad_extent;
use super::super::codes;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::subgraph::{Captures, GraphArg};
use super::super::table::{OpEntry, onnx};
use super::super::value::Operand;
use super::super::wire::GraphProto;

pub(super) const OPS: &[OpEntry] = &[
    onnx("If", &[(1, if_)]),
    onnx("Loop", &[(1, loop_)]),
    onnx("Scan", &[(8, scan_batched), (9, scan)]),
];

/// The largest batch for which a Scan of operator set 8 is written out per element.
const MAX_SCAN_BATCH: u64 = 32;

fn bad_graph(message: String) -> NodeError {
    NodeError::new(codes::BAD_GRAPH, Kind::Input, message)
}

/// A single element as a scalar.
fn scalar(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
    cx.reshape_to(x, &[])
}

fn if_(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let branches = [cx.graph("then_branch")?, cx.graph("else_branch")?];
    let cond = cx.input(0)?;
    let cond = scalar(cx, cond)?;
    if let Some(tensor) = cx.const_of(cond) {
        let taken = if tensor.get(0).to_bool() { 0 } else { 1 };
        for (index, operand) in cx.inline(branches[taken], vec![])?.into_iter().enumerate() {
            cx.output(index, operand);
        }
        return Ok(());
    }
    let captures = cx.captures(&branches);
    let mut regions = vec![];
    for branch in branches {
        // Both are imported, so that the problems of both are reported.
        regions.push(cx.region(branch, vec![], &captures, |_, results| Ok(results)));
    }
    let regions = regions.into_iter().collect::<NodeResult<Vec<_>>>()?;
    let types: Vec<Vec<Type>> = regions
        .iter()
        .map(|r| cx.imp.b.func().region_type(*r).results)
        .collect();
    if types[0].len() != types[1].len() || types[0].len() != cx.output_count() {
        let counts = (types[0].len(), types[1].len(), cx.output_count());
        return Err(bad_graph(format!(
            "the branches have {} and {} outputs, the node has {}",
            counts.0, counts.1, counts.2
        )));
    }
    if let Some((a, b)) = types[0].iter().zip(&types[1]).find(|(a, b)| a != b) {
        return Err(
            NodeError::unsupported(format!("the branches give a value as {a} and as {b}"))
                .help("both branches must give values of the same types and shapes"),
        );
    }
    let mut args = vec![cond];
    args.extend(&captures.values);
    let results = cx.imp.emit(If {}, &args, &regions)?;
    outputs(cx, results);
    Ok(())
}

fn outputs(cx: &mut NodeCx<'_, '_>, results: Vec<ValueId>) {
    for (index, value) in results.into_iter().enumerate() {
        cx.output(index, value);
    }
}

/// Checks that the values carried around keep their types.
fn check_carried(cx: &NodeCx<'_, '_>, before: &[Type], after: &[ValueId]) -> NodeResult {
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        let after = cx.ty(*after);
        if *before != after {
            let message =
                format!("carried value {index} is {before} before an iteration and {after} after");
            return Err(NodeError::unsupported(message)
                .help("values that are carried around must keep their type and shape"));
        }
    }
    Ok(())
}

fn loop_(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let body = cx.graph("body")?;
    let carried = cx.input_count().max(2) - 2;
    let start = (2..2 + carried)
        .map(|n| cx.input(n))
        .collect::<NodeResult<Vec<_>>>()?;
    let trips_known = match cx.shape_values(0).as_deref() {
        // Exporters write the largest integer where there is no limit.
        Some([trips]) if trips.bounds().1 < i64::MAX => Some(trips.clone()),
        _ => None,
    };
    let truth = Tensor::scalar(DType::Bool, Scalar::Bool(true));
    let cond = match cx.optional(1)? {
        Some(cond) => scalar(cx, cond)?,
        None => cx.constant(truth.clone()),
    };
    let trips = match cx.optional(0)? {
        Some(trips) => {
            let trips = scalar(cx, trips)?;
            cx.convert(trips, DType::I64)?
        }
        None => cx.constant(Tensor::from_vec(&[], vec![i64::MAX])),
    };
    let types: Vec<Type> = start.iter().map(|v| cx.ty(*v)).collect();
    let captures = cx.captures(&[body]);
    let mut args = vec![GraphArg::Param(Type::scalar(DType::I64))];
    // In an iteration the condition has been true.
    let inside = cx.constant(truth);
    args.push(GraphArg::Known(Operand::Value(inside)));
    args.extend(types.iter().cloned().map(GraphArg::Param));
    let mut endless = cx.const_of(cond).is_some_and(|t| t.get(0).to_bool());
    let mut rows = 0;
    let region = cx.region(body, args, &captures, |cx, mut results| {
        if results.len() != cx.output_count() + 1 || results.len() <= carried {
            let (found, wanted) = (results.len(), cx.output_count() + 1);
            return Err(bad_graph(format!(
                "the graph has {found} outputs, expected {wanted}"
            )));
        }
        results[0] = scalar(cx, results[0])?;
        endless &= cx.const_of(results[0]).is_some_and(|t| t.get(0).to_bool());
        check_carried(cx, &types, &results[1..])?;
        rows = results.len() - 1 - carried;
        Ok(results)
    })?;
    let extent = match trips_known {
        // The extent says nothing where nothing is stacked.
        _ if rows == 0 => Dim::Const(0),
        Some(trips) if endless => {
            Dim::from_poly(trips.larger(&Poly::constant(0))).ok_or_else(bad_extent)?
        }
        most => {
            let most = most.and_then(|trips| u64::try_from(trips.bounds().1.max(0)).ok());
            cx.data_extent(carried, most)?
        }
    };
    let mut args = vec![trips, cond];
    args.extend(&start);
    args.extend(&captures.values);
    let op = Loop { carried, extent };
    let results = cx.imp.emit(op, &args, &[region])?;
    outputs(cx, results);
    Ok(())
}

/// The attributes of a Scan.
struct ScanForm {
    /// Number of carried values.
    carried: usize,
    /// Number of sequences.
    sequences: usize,
    /// Scanned dim of every sequence, not normalised.
    input_axes: Vec<i64>,
    /// Whether each sequence is scanned from its end.
    input_reversed: Vec<bool>,
    /// Dim of every stacked result, not normalised.
    output_axes: Vec<i64>,
    /// Whether each result is stacked from its end.
    output_reversed: Vec<bool>,
}

fn list(values: Option<Vec<i64>>, count: usize, what: &str) -> NodeResult<Vec<i64>> {
    let values = values.unwrap_or_else(|| vec![0; count]);
    if values.len() != count {
        let found = values.len();
        return Err(NodeError::invalid(format!(
            "`{what}` has {found} entries, expected {count}"
        )));
    }
    Ok(values)
}

fn flags(values: &[i64]) -> Vec<bool> {
    values.iter().map(|v| *v != 0).collect()
}

fn scan_counts(cx: &mut NodeCx<'_, '_>, inputs: usize) -> NodeResult<(usize, usize, usize)> {
    let sequences = usize::try_from(cx.int_required("num_scan_inputs")?).unwrap_or(usize::MAX);
    let carried = inputs
        .checked_sub(sequences)
        .filter(|_| sequences > 0)
        .ok_or_else(|| NodeError::invalid("`num_scan_inputs` does not fit the operands"))?;
    let rows = cx
        .output_count()
        .checked_sub(carried)
        .ok_or_else(|| NodeError::invalid("there are fewer results than carried values"))?;
    Ok((carried, sequences, rows))
}

fn scan(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let (carried, sequences, rows) = scan_counts(cx, cx.input_count())?;
    let ints = |cx: &mut NodeCx<'_, '_>, name: &str, count| {
        let values = cx.ints(name)?;
        list(values, count, name)
    };
    let form = ScanForm {
        carried,
        sequences,
        input_axes: ints(cx, "scan_input_axes", sequences)?,
        input_reversed: flags(&ints(cx, "scan_input_directions", sequences)?),
        output_axes: ints(cx, "scan_output_axes", rows)?,
        output_reversed: flags(&ints(cx, "scan_output_directions", rows)?),
    };
    let body = cx.graph("body")?;
    let captures = cx.captures(&[body]);
    let inputs = cx.all_inputs()?;
    let results = scan_once(cx, body, &captures, &form, &inputs)?;
    outputs(cx, results);
    Ok(())
}

/// One dim moved to another place, the others staying in order.
fn move_dim(cx: &mut NodeCx<'_, '_>, x: ValueId, from: usize, to: usize) -> NodeResult<ValueId> {
    let mut perm: Vec<usize> = (0..cx.rank(x)).collect();
    let dim = perm.remove(from);
    perm.insert(to, dim);
    cx.transpose(x, &perm)
}

fn scan_once<'m>(
    cx: &mut NodeCx<'_, 'm>,
    body: &'m GraphProto,
    captures: &Captures<'m>,
    form: &ScanForm,
    inputs: &[ValueId],
) -> NodeResult<Vec<ValueId>> {
    let (start, sequences) = inputs.split_at(form.carried);
    let mut args = start.to_vec();
    let types: Vec<Type> = start.iter().map(|v| cx.ty(*v)).collect();
    let mut params: Vec<GraphArg> = types.iter().cloned().map(GraphArg::Param).collect();
    let mut length = None;
    for (index, x) in sequences.iter().enumerate() {
        let axis = cx.axis(form.input_axes[index], cx.rank(*x))?;
        let mut x = move_dim(cx, *x, axis, 0)?;
        if form.input_reversed[index] {
            x = cx.reverse(x, 0)?;
        }
        let ty = cx.ty(x);
        length.get_or_insert_with(|| ty.shape[0].clone());
        let slice = Shape::new(ty.dims()[1..].iter().cloned());
        params.push(GraphArg::Param(Type::new(ty.dtype, slice)));
        args.push(x);
    }
    let carried = form.carried;
    let rows = form.output_axes.len();
    let region = cx.region(body, params, captures, |cx, results| {
        if results.len() != carried + rows {
            let (found, wanted) = (results.len(), carried + rows);
            return Err(bad_graph(format!(
                "the graph has {found} outputs, expected {wanted}"
            )));
        }
        check_carried(cx, &types, &results)?;
        Ok(results)
    })?;
    args.extend(&captures.values);
    let op = Scan {
        carried,
        sequences: form.sequences,
        length: length.unwrap_or(Dim::Const(0)),
    };
    let mut results = cx.imp.emit(op, &args, &[region])?;
    for (index, y) in results.iter_mut().skip(carried).enumerate() {
        if form.output_reversed[index] {
            *y = cx.reverse(*y, 0)?;
        }
        let axis = cx.axis(form.output_axes[index], cx.rank(*y))?;
        *y = move_dim(cx, *y, 0, axis)?;
    }
    Ok(results)
}

/// Operator set 8: every operand has a leading batch dim, whose elements are scanned one by one.
fn scan_batched(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    if cx.has(0) {
        return Err(NodeError::unsupported("`sequence_lens`").help("leave the operand out"));
    }
    let inputs = (1..cx.input_count())
        .map(|n| cx.input(n))
        .collect::<NodeResult<Vec<_>>>()?;
    let (carried, sequences, rows) = scan_counts(cx, inputs.len())?;
    let directions = cx.ints("directions")?;
    let form = ScanForm {
        carried,
        sequences,
        input_axes: vec![0; sequences],
        input_reversed: flags(&list(directions, sequences, "directions")?),
        output_axes: vec![0; rows],
        output_reversed: vec![false; rows],
    };
    let body = cx.graph("body")?;
    let captures = cx.captures(&[body]);
    let batch = inputs.first().and_then(|x| cx.dims(*x).first()?.as_const());
    let Some(batch) = batch.filter(|b| (1..=MAX_SCAN_BATCH).contains(b)) else {
        return Err(NodeError::unsupported("a symbolic or large batch")
            .help("Scan of operator set 9 has no batch dim"));
    };
    let mut columns: Vec<Vec<ValueId>> = vec![vec![]; carried + rows];
    for element in 0..batch {
        let mut slices = vec![];
        for x in &inputs {
            let slice = cx.slice(*x, 0, element, 1)?;
            slices.push(cx.squeeze(slice, &[0])?);
        }
        let results = scan_once(cx, body, &captures, &form, &slices)?;
        for (column, y) in columns.iter_mut().zip(results) {
            column.push(cx.unsqueeze(y, &[0])?);
        }
    }
    for (index, column) in columns.into_iter().enumerate() {
        let y = cx.concat(&column, 0)?;
        cx.output(index, y);
    }
    Ok(())
}
