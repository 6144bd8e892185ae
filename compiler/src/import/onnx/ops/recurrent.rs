//! RNN, GRU and LSTM.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::Dot;
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::activation::{Activation, Parameters};
use super::scan::{Recurrence, Step, scan};

pub(super) const OPS: &[OpEntry] = &[
    onnx("RNN", &[(1, |cx| recurrent(cx, Cell::Rnn))]),
    onnx("GRU", &[(1, |cx| recurrent(cx, Cell::Gru))]),
    onnx("LSTM", &[(1, |cx| recurrent(cx, Cell::Lstm))]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Rnn,
    /// Gates: update, reset, hidden.
    Gru,
    /// Gates: input, output, forget, cell.
    Lstm,
}

impl Cell {
    fn gates(self) -> u64 {
        match self {
            Self::Rnn => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    /// The activations of one direction.
    fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru => &["Sigmoid", "Tanh"],
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }

    /// Number of values carried from step to step.
    fn states(self) -> usize {
        if self == Self::Lstm { 2 } else { 1 }
    }
}

/// The attributes.
struct Form {
    cell: Cell,
    /// Whether each direction goes from the end.
    reversed: Vec<bool>,
    /// Activations per direction.
    activations: Vec<Vec<Activation>>,
    /// Bound of what goes into the activations of gates.
    clip: Option<f64>,
    /// GRU: whether the hidden gate is reset behind its contraction.
    linear_before_reset: bool,
    /// LSTM: whether the forget gate is what the input gate leaves.
    input_forget: bool,
    /// Whether the batch is the first dim of operands and results.
    batch_first: bool,
    hidden: u64,
}

impl Form {
    fn read(cx: &mut NodeCx<'_, '_>, cell: Cell) -> NodeResult<Self> {
        cx.ignore_attrs(&["output_sequence"]);
        let direction = cx.string("direction", "forward")?;
        let reversed = match direction.as_str() {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            _ => return Err(NodeError::invalid(format!("`direction` is `{direction}`"))),
        };
        let mut parameters = Parameters::read(cx)?;
        let per_direction = cell.activations().len();
        let names = cx.strings("activations")?.unwrap_or_else(|| {
            let names = cell.activations().repeat(reversed.len());
            names.into_iter().map(str::to_owned).collect()
        });
        if names.len() != per_direction * reversed.len() {
            let (found, wanted) = (names.len(), per_direction * reversed.len());
            let message = format!("`activations` has {found} entries, expected {wanted}");
            return Err(NodeError::invalid(message));
        }
        let mut activations = vec![];
        for names in names.chunks(per_direction) {
            let parsed = names
                .iter()
                .map(|name| Activation::parse(name, &mut parameters));
            activations.push(parsed.collect::<NodeResult<Vec<_>>>()?);
        }
        let clip = cx.float_opt("clip")?;
        if clip.is_some_and(|clip| clip.is_nan() || clip < 0.0) {
            return Err(NodeError::invalid("`clip` is negative"));
        }
        let linear_before_reset = cell == Cell::Gru && cx.flag("linear_before_reset", false)?;
        let input_forget = cell == Cell::Lstm && cx.flag("input_forget", false)?;
        let weights = cx.required_type(2)?;
        let Some(hidden) = weights.dims().last().and_then(Dim::as_const) else {
            return Err(NodeError::unsupported("a symbolic hidden size"));
        };
        if let Some(declared) = cx.int_opt("hidden_size")?
            && u64::try_from(declared).ok() != Some(hidden)
        {
            let message = format!("`hidden_size` is {declared}, the weights are for {hidden}");
            return Err(NodeError::invalid(message));
        }
        Ok(Self {
            cell,
            reversed,
            activations,
            clip,
            linear_before_reset,
            input_forget,
            batch_first: cx.flag("layout", false)?,
            hidden,
        })
    }
}

/// One direction: `weights` are `[gates * hidden, inputs]`, and so on without the dim of
/// directions.
struct Direction<'a> {
    form: &'a Form,
    activations: &'a [Activation],
}

fn recurrent(cx: &mut NodeCx<'_, '_>, cell: Cell) -> NodeResult {
    cx.expect_inputs(3, if cell == Cell::Lstm { 8 } else { 6 })?;
    let form = Form::read(cx, cell)?;
    let mut x = cx.input(0)?;
    if cx.rank(x) != 3 {
        return Err(NodeError::invalid("the sequences have not three dims"));
    }
    if form.batch_first {
        x = cx.swap_dims(x, 0, 1)?;
    }
    let directions = Dim::Const(form.reversed.len() as u64);
    let rows = Dim::Const(cell.gates() * form.hidden);
    for index in [1, 2] {
        let ty = cx.required_type(index)?;
        let fits = matches!(ty.dims(), [d, r, _] if *d == directions && *r == rows);
        if !fits {
            let message = format!("weights of {ty} do not fit {directions} directions of {rows}");
            return Err(NodeError::invalid(message));
        }
    }
    let mut stacked = vec![];
    let mut finals = vec![vec![]; cell.states()];
    for index in 0..form.reversed.len() {
        let (rows, states) = direction(cx, &form, x, index)?;
        stacked.push(cx.unsqueeze(rows, &[1])?);
        for (list, state) in finals.iter_mut().zip(states) {
            list.push(cx.unsqueeze(state, &[0])?);
        }
    }
    // [S, directions, B, H], or [B, S, directions, H].
    let mut y = cx.concat(&stacked, 1)?;
    if form.batch_first {
        y = cx.transpose(y, &[2, 0, 1, 3])?;
    }
    cx.output(0, y);
    for (index, list) in finals.iter().enumerate() {
        let mut state = cx.concat(list, 0)?;
        if form.batch_first {
            state = cx.swap_dims(state, 0, 1)?;
        }
        cx.output(index + 1, state);
    }
    Ok(())
}

/// The part of an operand for one direction, without the dim of directions.
fn part(cx: &mut NodeCx<'_, '_>, x: ValueId, index: usize) -> NodeResult<ValueId> {
    let x = cx.slice(x, 0, index as u64, 1)?;
    cx.squeeze(x, &[0])
}

fn optional_part(
    cx: &mut NodeCx<'_, '_>,
    operand: usize,
    index: usize,
) -> NodeResult<Option<ValueId>> {
    match cx.optional(operand)? {
        Some(x) => part(cx, x, index).map(Some),
        None => Ok(None),
    }
}

/// One gate, or several that follow each other, of the last dim.
fn gates(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    hidden: u64,
    first: u64,
    count: u64,
) -> NodeResult<ValueId> {
    cx.slice(x, cx.rank(x) - 1, first * hidden, count * hidden)
}

/// Contracts the last dims of both.
fn project(cx: &mut NodeCx<'_, '_>, x: ValueId, weights: ValueId) -> NodeResult<ValueId> {
    let dot = Dot {
        batch: vec![],
        contract: vec![(cx.rank(x) - 1, 1)],
        out: None,
    };
    cx.op(dot, &[x, weights])
}

/// The results of all steps `[S, B, H]` and the final states.
fn direction(
    cx: &mut NodeCx<'_, '_>,
    form: &Form,
    x: ValueId,
    index: usize,
) -> NodeResult<(ValueId, Vec<ValueId>)> {
    let hidden = form.hidden;
    let (w, r) = (cx.input(1)?, cx.input(2)?);
    let (w, r) = (part(cx, w, index)?, part(cx, r, index)?);
    // What the inputs contribute is computed for all steps at once.
    let mut inputs = project(cx, x, w)?;
    let mut constants = vec![r];
    if form.cell == Cell::Gru {
        constants = vec![
            cx.slice(r, 0, 0, 2 * hidden)?,
            cx.slice(r, 0, 2 * hidden, hidden)?,
        ];
    }
    if let Some(bias) = optional_part(cx, 3, index)? {
        let all = form.cell.gates();
        let of_input = gates(cx, bias, hidden, 0, all)?;
        inputs = cx.binary(BinaryFn::Add, inputs, of_input)?;
        let mut of_state = gates(cx, bias, hidden, all, all)?;
        if form.linear_before_reset {
            constants.push(gates(cx, of_state, hidden, 2, 1)?);
            let before = gates(cx, of_state, hidden, 0, 2)?;
            let dtype = cx.dtype(bias);
            let none = cx.full(dtype, vec![Dim::Const(hidden)], Scalar::zero(dtype))?;
            of_state = cx.concat(&[before, none], 0)?;
        }
        inputs = cx.binary(BinaryFn::Add, inputs, of_state)?;
    }
    if form.cell == Cell::Lstm
        && let Some(peepholes) = optional_part(cx, 7, index)?
    {
        constants.push(peepholes);
    }
    let dims = cx.dims(x);
    let mut start = vec![];
    for operand in [5, 6].into_iter().take(form.cell.states()) {
        start.push(initial(cx, form, operand, index, &dims[1])?);
    }
    let reversed = form.reversed[index];
    let mut sequences = vec![inputs];
    sequences.extend(live(cx, &dims)?);
    for sequence in &mut sequences {
        if reversed {
            *sequence = cx.reverse(*sequence, 0)?;
        }
    }
    let recurrence = Recurrence {
        start: &start,
        sequences: &sequences,
        constants: &constants,
        length: dims[0].clone(),
    };
    let cell = Direction {
        form,
        activations: &form.activations[index],
    };
    let mut results = scan(cx, &recurrence, |cx, step| cell.step(cx, step))?;
    let Some(mut rows) = results.pop() else {
        return Err(NodeError::invalid("no result"));
    };
    if reversed {
        rows = cx.reverse(rows, 0)?;
    }
    Ok((rows, results))
}

/// The state before the first step, `[B, H]`.
fn initial(
    cx: &mut NodeCx<'_, '_>,
    form: &Form,
    operand: usize,
    index: usize,
    batch: &Dim,
) -> NodeResult<ValueId> {
    match cx.optional(operand)? {
        Some(mut state) => {
            if form.batch_first {
                state = cx.swap_dims(state, 0, 1)?;
            }
            part(cx, state, index)
        }
        None => {
            let dtype = cx.required_type(0)?.dtype;
            let shape = vec![batch.clone(), Dim::Const(form.hidden)];
            cx.full(dtype, shape, Scalar::zero(dtype))
        }
    }
}

/// Which sequences have an element at each step, `[S, B, 1]`; nothing if all have all.
fn live(cx: &mut NodeCx<'_, '_>, dims: &[Dim]) -> NodeResult<Option<ValueId>> {
    let Some(lengths) = cx.optional(4)? else {
        return Ok(None);
    };
    let full = cx.const_of(lengths).is_some_and(|lengths| {
        dims[0].as_const().is_some_and(|steps| {
            lengths
                .to_i64s()
                .iter()
                .all(|n| u64::try_from(*n).is_ok_and(|n| n >= steps))
        })
    });
    if full {
        return Ok(None);
    }
    let lengths = cx.convert(lengths, DType::I64)?;
    let lengths = cx.unsqueeze(lengths, &[0, 2])?;
    let one = Dim::Const(1);
    let step = cx.iota(DType::I64, vec![dims[0].clone(), one.clone(), one], 0)?;
    cx.binary(BinaryFn::Lt, step, lengths).map(Some)
}

impl Direction<'_> {
    fn activate(&self, cx: &mut NodeCx<'_, '_>, which: usize, x: ValueId) -> NodeResult<ValueId> {
        let mut x = x;
        if let Some(clip) = self.form.clip {
            x = cx.with_scalar(BinaryFn::Max, x, -clip)?;
            x = cx.with_scalar(BinaryFn::Min, x, clip)?;
        }
        self.activations[which].apply(cx, x)
    }

    fn gate(&self, cx: &mut NodeCx<'_, '_>, x: ValueId, index: u64) -> NodeResult<ValueId> {
        gates(cx, x, self.form.hidden, index, 1)
    }

    /// The states after a step, then its result.
    fn step(&self, cx: &mut NodeCx<'_, '_>, step: &Step) -> NodeResult<Vec<ValueId>> {
        let mut states = match self.form.cell {
            Cell::Rnn => vec![self.rnn(cx, step)?],
            Cell::Gru => vec![self.gru(cx, step)?],
            Cell::Lstm => self.lstm(cx, step)?.to_vec(),
        };
        let mut result = states[0];
        if let Some(live) = step.slices.get(1).copied() {
            // A sequence that has ended keeps its state and gives 0.
            for (state, before) in states.iter_mut().zip(&step.carried) {
                *state = cx.select(live, *state, *before)?;
            }
            let none = cx.scalar(cx.dtype(result), 0.0)?;
            result = cx.select(live, result, none)?;
        }
        states.push(result);
        Ok(states)
    }

    fn rnn(&self, cx: &mut NodeCx<'_, '_>, step: &Step) -> NodeResult<ValueId> {
        let memory = project(cx, step.carried[0], step.constants[0])?;
        let sum = cx.binary(BinaryFn::Add, step.slices[0], memory)?;
        self.activate(cx, 0, sum)
    }

    fn gru(&self, cx: &mut NodeCx<'_, '_>, step: &Step) -> NodeResult<ValueId> {
        let (h, x) = (step.carried[0], step.slices[0]);
        let (of_gates, of_hidden) = (step.constants[0], step.constants[1]);
        let memory = project(cx, h, of_gates)?;
        let mut open = vec![];
        for index in [0, 1] {
            let (a, b) = (self.gate(cx, x, index)?, self.gate(cx, memory, index)?);
            let sum = cx.binary(BinaryFn::Add, a, b)?;
            open.push(self.activate(cx, 0, sum)?);
        }
        let (update, reset) = (open[0], open[1]);
        let memory = if self.form.linear_before_reset {
            let mut memory = project(cx, h, of_hidden)?;
            if let Some(bias) = step.constants.get(2) {
                memory = cx.binary(BinaryFn::Add, memory, *bias)?;
            }
            cx.binary(BinaryFn::Mul, reset, memory)?
        } else {
            let kept = cx.binary(BinaryFn::Mul, reset, h)?;
            project(cx, kept, of_hidden)?
        };
        let of_input = self.gate(cx, x, 2)?;
        let sum = cx.binary(BinaryFn::Add, of_input, memory)?;
        let news = self.activate(cx, 1, sum)?;
        let share = rest(cx, update)?;
        let news = cx.binary(BinaryFn::Mul, share, news)?;
        let kept = cx.binary(BinaryFn::Mul, update, h)?;
        cx.binary(BinaryFn::Add, news, kept)
    }

    /// The hidden and the cell state.
    fn lstm(&self, cx: &mut NodeCx<'_, '_>, step: &Step) -> NodeResult<[ValueId; 2]> {
        let (h, c) = (step.carried[0], step.carried[1]);
        let memory = project(cx, h, step.constants[0])?;
        let sum = cx.binary(BinaryFn::Add, step.slices[0], memory)?;
        let peepholes = step.constants.get(1).copied();
        // A gate with what it sees of the cell through its peephole.
        let gate = |cx: &mut NodeCx<'_, '_>, index: u64, peephole: u64, cell: ValueId| {
            let mut x = self.gate(cx, sum, index)?;
            if let Some(peepholes) = peepholes {
                let weight = self.gate(cx, peepholes, peephole)?;
                let seen = cx.binary(BinaryFn::Mul, weight, cell)?;
                x = cx.binary(BinaryFn::Add, x, seen)?;
            }
            self.activate(cx, 0, x)
        };
        let input = gate(cx, 0, 0, c)?;
        let forget = match self.form.input_forget {
            true => rest(cx, input)?,
            false => gate(cx, 2, 2, c)?,
        };
        let news = self.gate(cx, sum, 3)?;
        let news = self.activate(cx, 1, news)?;
        let kept = cx.binary(BinaryFn::Mul, forget, c)?;
        let taken = cx.binary(BinaryFn::Mul, input, news)?;
        let cell = cx.binary(BinaryFn::Add, kept, taken)?;
        let output = gate(cx, 1, 1, cell)?;
        // Runtimes clip gates only, so that a cell may hold more than the bound.
        let shown = self.activations[2].apply(cx, cell)?;
        let hidden = cx.binary(BinaryFn::Mul, output, shown)?;
        Ok([hidden, cell])
    }
}

/// `1 - x`.
fn rest(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
    let one = cx.scalar(cx.dtype(x), 1.0)?;
    cx.binary(BinaryFn::Sub, one, x)
}
