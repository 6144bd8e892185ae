//! The text form of a module.
//!
//! Values with a name print under it (`%x`, `%"onnx::Conv_12"`), others are numbered per function
//! in the order of the text. Printing never fails, not even on IR that breaks its rules: what does
//! not exist prints as `?`.

use std::fmt::{self, Write as _};

use dojoc_grammar::{quote, quote_name};

use super::{
    Function, Module, NodeId, RegionId, State, StateInit, Value, ValueDef, ValueId, Weight,
    WeightId, WeightSource,
};
use crate::attr::{Attr, F64};
use crate::diag::Loc;
use crate::entity::{PrimaryMap, SecondaryMap};
use crate::scalar::Scalar;
use crate::tensor::Tensor;

/// Inline tensors of at most this many elements print as numbers, larger ones as hexadecimal bytes.
const DENSE_LIMIT: usize = 64;

/// Regions nested deeper than this print as `...`; the verifier refuses them.
const MAX_DEPTH: usize = 64;

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "dojo graph {}\n", super::TEXT_VERSION)?;
        write!(f, "module @{}", quote_name(&self.name))?;
        if !self.dims.is_empty() {
            let dims: Vec<String> = self
                .dims
                .iter()
                .map(|(n, max)| format!("{} = {max}", quote_name(n)))
                .collect();
            write!(f, " {{dims = {{{}}}}}", dims.join(", "))?;
        }
        writeln!(f, " {{")?;
        for weight in self.weights.values() {
            writeln!(f, "  {}", DisplayWeight(weight))?;
        }
        for state in self.states.values() {
            writeln!(f, "  {}", DisplayState(&self.weights, state))?;
        }
        for (position, func) in self.functions.values().enumerate() {
            if position > 0 || !self.weights.is_empty() || !self.states.is_empty() {
                writeln!(f)?;
            }
            Printer::new(self, func).function(f)?;
        }
        writeln!(f, "}}")
    }
}

/// Prints one node as its first line in the text form, for messages.
pub(super) fn node_line(module: &Module, func: &Function, node: NodeId) -> String {
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = Printer::new(module, func).statement(&mut line, node, 0, true);
    line.trim().to_owned()
}

/// Prints the declaration of a weight.
pub(crate) struct DisplayWeight<'a>(pub &'a Weight);

impl fmt::Display for DisplayWeight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Weight {
            name,
            ty,
            source,
            data,
        } = self.0;
        write!(f, "weight @{} : {ty} = ", quote_name(name))?;
        match (source, data) {
            (
                WeightSource::External {
                    file,
                    offset,
                    length,
                },
                _,
            ) => {
                write!(f, "external({}, {offset}, {length})", quote(file))
            }
            (WeightSource::Inline, Some(tensor)) => f.write_str(&format_tensor(tensor)),
            (WeightSource::Inline, None) => write!(f, "?"),
        }
    }
}

/// Prints the declaration of a state of a module with these weights.
pub(crate) struct DisplayState<'a>(pub &'a PrimaryMap<WeightId, Weight>, pub &'a State);

impl fmt::Display for DisplayState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { name, ty, init } = self.1;
        write!(f, "state @{} : {ty} = ", quote_name(name))?;
        match init {
            StateInit::Zeros => write!(f, "zeros"),
            StateInit::Weight(weight) => match self.0.get(*weight) {
                Some(weight) => write!(f, "@{}", quote_name(&weight.name)),
                None => write!(f, "?"),
            },
        }
    }
}

/// The constant `dense(...)` or `hex("...")` of a tensor.
fn format_tensor(tensor: &Tensor) -> String {
    let exact = tensor.scalars().all(|s| !s.to_f64().is_nan())
        && tensor.dtype().class() != crate::types::Class::Configurable;
    let size = tensor.dtype().bytes() as usize;
    let splat = tensor.len() > 1 && {
        let (first, rest) = tensor.bytes().split_at(size);
        rest.chunks(size).all(|chunk| chunk == first)
    };
    if exact && splat {
        return format!("dense({})", format_scalar(tensor.get(0)));
    }
    if exact && tensor.len() <= DENSE_LIMIT {
        let items: Vec<String> = tensor.scalars().map(format_scalar).collect();
        return match tensor.rank() {
            0 => format!("dense({})", items.join(", ")),
            _ => format!("dense([{}])", items.join(", ")),
        };
    }
    let mut text = String::with_capacity(2 * tensor.bytes().len());
    for byte in tensor.bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    format!("hex(\"{text}\")")
}

fn format_scalar(value: Scalar) -> String {
    match value {
        Scalar::Bool(b) => b.to_string(),
        Scalar::Int(i) => i.to_string(),
        // The shortest decimal of the f32 itself, not of the f64 it widens to.
        Scalar::F32(x) if x.is_finite() && (x == 0.0 || (1e-4..1e16).contains(&x.abs())) => {
            let text = x.to_string();
            if text.contains('.') {
                text
            } else {
                text + ".0"
            }
        }
        Scalar::F32(x) if x.is_finite() => format!("{x:e}"),
        other => Attr::Float(F64(other.to_f64())).to_string(),
    }
}

struct Printer<'a> {
    module: &'a Module,
    func: &'a Function,
    /// Number of every value that has no name, in order of the text.
    numbers: SecondaryMap<ValueId, Option<u32>>,
}

impl<'a> Printer<'a> {
    fn new(module: &'a Module, func: &'a Function) -> Self {
        let mut printer = Self {
            module,
            func,
            numbers: SecondaryMap::new(None),
        };
        let mut next = 0;
        printer.number(func.body(), &mut next, 0);
        printer
    }

    fn number(&mut self, region: RegionId, next: &mut u32, depth: usize) {
        let func = self.func;
        let (Some(region), true) = (func.regions.get(region), depth <= MAX_DEPTH) else {
            return;
        };
        for value in &region.params {
            self.number_value(*value, next);
        }
        for node in &region.nodes {
            let Some(node) = func.nodes.get(*node) else {
                continue;
            };
            for value in &node.results {
                self.number_value(*value, next);
            }
            for region in &node.regions {
                self.number(*region, next, depth + 1);
            }
        }
    }

    fn number_value(&mut self, value: ValueId, next: &mut u32) {
        if self
            .func
            .values
            .get(value)
            .is_some_and(|v| v.name.is_none())
        {
            self.numbers.set(value, Some(*next));
            *next += 1;
        }
    }

    fn value(&self, id: ValueId) -> String {
        let Some(Value { def, name, .. }) = self.func.values.get(id) else {
            return "%?".into();
        };
        match def {
            ValueDef::Weight(weight) => match self.module.weights.get(*weight) {
                Some(weight) => format!("@{}", quote_name(&weight.name)),
                None => "@?".into(),
            },
            ValueDef::State(state) => match self.module.states.get(*state) {
                Some(state) => format!("@{}", quote_name(&state.name)),
                None => "@?".into(),
            },
            _ => match (name, self.numbers[id]) {
                (Some(name), _) => format!("%{}", quote_name(name)),
                (None, Some(number)) => format!("%{number}"),
                (None, None) => "%?".into(),
            },
        }
    }

    fn values(&self, values: &[ValueId]) -> String {
        values
            .iter()
            .map(|v| self.value(*v))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn ty(&self, value: ValueId) -> String {
        self.func
            .values
            .get(value)
            .map_or("?".into(), |v| v.ty.to_string())
    }

    fn params(&self, values: &[ValueId]) -> String {
        let list = values
            .iter()
            .map(|v| format!("{} : {}", self.value(*v), self.ty(*v)));
        list.collect::<Vec<_>>().join(", ")
    }

    fn function(&self, f: &mut impl fmt::Write) -> fmt::Result {
        let func = self.func;
        write!(
            f,
            "  func @{}({}) -> (",
            quote_name(&func.name),
            self.params(func.inputs())
        )?;
        for (position, output) in func.outputs.iter().enumerate() {
            let ty = func
                .results()
                .get(position)
                .map_or("?".into(), |v| self.ty(*v));
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}%{} : {ty}", quote_name(&output.name))?;
            if let Some(state) = output.aliases {
                let name = self.module.states.get(state).map_or("?", |s| &s.name);
                write!(f, " aliases @{}", quote_name(name))?;
            }
        }
        writeln!(f, ") {{")?;
        for node in &func.regions[func.body()].nodes {
            self.statement(f, *node, 2, false)?;
        }
        writeln!(f, "    return{}", self.operands(func.results()))?;
        writeln!(f, "  }}")
    }

    fn operands(&self, values: &[ValueId]) -> String {
        if values.is_empty() {
            String::new()
        } else {
            format!(" {}", self.values(values))
        }
    }

    fn statement(
        &self,
        f: &mut impl fmt::Write,
        id: NodeId,
        depth: usize,
        one_line: bool,
    ) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let Some(node) = self.func.nodes.get(id) else {
            return writeln!(f, "{indent}?");
        };
        write!(f, "{indent}")?;
        if !node.results.is_empty() {
            write!(f, "{} = ", self.values(&node.results))?;
        }
        write!(f, "{}{}", node.op.name(), self.operands(&node.args))?;
        let attrs = node.op.attrs();
        if !attrs.0.is_empty() {
            let list: Vec<String> = attrs
                .0
                .iter()
                .map(|(name, value)| format!("{name} = {value}"))
                .collect();
            write!(f, " {{{}}}", list.join(", "))?;
        }
        if !node.regions.is_empty() && (one_line || depth > MAX_DEPTH) {
            write!(f, " (...)")?;
        } else if !node.regions.is_empty() {
            writeln!(f, " (")?;
            for (position, region) in node.regions.iter().enumerate() {
                self.region(f, *region, depth + 1)?;
                writeln!(
                    f,
                    "{}",
                    if position + 1 < node.regions.len() {
                        ","
                    } else {
                        ""
                    }
                )?;
            }
            write!(f, "{indent})")?;
        }
        if !node.results.is_empty() {
            let types: Vec<String> = node.results.iter().map(|v| self.ty(*v)).collect();
            write!(f, " : {}", types.join(", "))?;
        }
        if let Some(loc) = &node.loc {
            write!(f, " {}", format_loc(loc))?;
        }
        writeln!(f)
    }

    fn region(&self, f: &mut impl fmt::Write, region: RegionId, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let Some(region) = self.func.regions.get(region) else {
            return write!(f, "{indent}?");
        };
        writeln!(f, "{indent}{{ ^({})", self.params(&region.params))?;
        for node in &region.nodes {
            self.statement(f, *node, depth + 1, false)?;
        }
        writeln!(f, "{indent}  yield{}", self.operands(&region.results))?;
        write!(f, "{indent}}}")
    }
}

/// A source location.
pub(crate) fn format_loc(loc: &Loc) -> String {
    if loc.file.is_empty() {
        return format!("loc({})", quote(&loc.name));
    }
    format!(
        "loc({}, {}:{})",
        quote(&loc.name),
        quote(&loc.file),
        loc.line
    )
}
