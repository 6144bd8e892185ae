//! Scalar expressions as a graph of values that one instruction each can compute.

use std::collections::BTreeMap;

use dojoc_ir::access::{Access, Combine, Expr, Monoid, Outside, extreme};
use dojoc_ir::attr::{F64, Number, number_fits};
use dojoc_ir::program::instr::vector::{CompareFunction, MapFunction, ZipFunction};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::{Class, DType};

use crate::emit::Unsupported;

/// The position of a value in [`Values`].
pub(super) type Id = usize;

/// How a value comes about.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Node {
    /// It is in memory: the position in [`Values::sources`].
    Source(usize),
    /// A number.
    Const(Number),
    /// The index of a loop.
    Index(usize),
    /// The index of the block's first iteration of a loop.
    Start(usize),
    /// A function of a value.
    Map(MapFunction, Id),
    /// A function of two values.
    Zip(ZipFunction, Id, Id),
    /// A product and a sum, rounded once.
    MulAdd([Id; 3]),
    /// A comparison.
    Compare(CompareFunction, Id, Id),
    /// The second where the first is true, else the third.
    Select([Id; 3]),
    /// A conversion.
    Convert(Id),
}

impl Node {
    /// The values it is made of.
    pub fn args(self) -> Vec<Id> {
        match self {
            Node::Source(_) | Node::Const(_) | Node::Index(_) | Node::Start(_) => vec![],
            Node::Map(_, x) | Node::Convert(x) => vec![x],
            Node::Zip(_, a, b) | Node::Compare(_, a, b) => vec![a, b],
            Node::MulAdd(args) | Node::Select(args) => args.to_vec(),
        }
    }
}

/// A value: one element for each point of the loops it depends on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Value {
    pub node: Node,
    pub dtype: DType,
}

/// What is in memory.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Source {
    pub dtype: DType,
}

/// Values, each behind those it is made of, none of them twice.
#[derive(Clone, Default, Debug)]
pub(super) struct Values {
    pub nodes: Vec<Value>,
    pub sources: Vec<Source>,
    /// Values that stand for the indices of loops.
    pub indices: BTreeMap<usize, Id>,
}

/// Whether instructions compute with floats of this type.
pub(super) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::Bf16 | DType::F16)
}

/// A number of f32 or another float type.
pub(super) fn float(value: f64) -> Number {
    Number::Float(F64(value))
}

impl Values {
    /// No values yet, of operands of these types.
    pub fn new(dtypes: impl IntoIterator<Item = DType>) -> Self {
        let sources = dtypes.into_iter().map(|dtype| Source { dtype }).collect();
        Self {
            sources,
            ..Self::default()
        }
    }

    pub fn dtype(&self, id: Id) -> DType {
        self.nodes[id].dtype
    }

    fn value(&mut self, node: Node, dtype: DType) -> Id {
        let value = Value { node, dtype };
        let known = self.nodes.iter().position(|other| *other == value);
        known.unwrap_or_else(|| {
            self.nodes.push(value);
            self.nodes.len() - 1
        })
    }

    /// What is in memory.
    pub fn source(&mut self, source: usize) -> Id {
        let dtype = self.sources[source].dtype;
        self.value(Node::Source(source), dtype)
    }

    /// A number as an element of a type.
    pub fn constant(&mut self, number: Number, dtype: DType) -> Id {
        let rounded = match dtype.class() {
            Class::Configurable => number,
            _ => number.to_scalar(dtype).into(),
        };
        self.value(Node::Const(rounded), dtype)
    }

    /// The index of the block's first iteration of a loop.
    pub fn start(&mut self, dim: usize) -> Id {
        self.value(Node::Start(dim), DType::I64)
    }

    pub fn map(&mut self, f: MapFunction, x: Id) -> Result<Id, Unsupported> {
        let dtype = self.dtype(x);
        let fits = match f {
            MapFunction::Neg | MapFunction::Abs => is_float(dtype) || dtype.is_int(),
            MapFunction::Not => dtype == DType::Bool || dtype.is_int(),
            _ => is_float(dtype),
        };
        computes(fits, f.name(), dtype)?;
        Ok(self.value(Node::Map(f, x), dtype))
    }

    pub fn zip(&mut self, f: ZipFunction, a: Id, b: Id) -> Result<Id, Unsupported> {
        let dtype = self.dtype(a);
        let fits = match f {
            ZipFunction::Pow => is_float(dtype),
            ZipFunction::Rem | ZipFunction::Shl | ZipFunction::Shr => dtype.is_int(),
            ZipFunction::And | ZipFunction::Or | ZipFunction::Xor => {
                dtype == DType::Bool || dtype.is_int()
            }
            _ => is_float(dtype) || dtype.is_int(),
        };
        computes(fits && self.dtype(b) == dtype, f.name(), dtype)?;
        Ok(self.value(Node::Zip(f, a, b), dtype))
    }

    pub fn mul_add(&mut self, args: [Id; 3]) -> Result<Id, Unsupported> {
        let dtype = self.dtype(args[0]);
        computes(is_float(dtype), "fma", dtype)?;
        Ok(self.value(Node::MulAdd(args), dtype))
    }

    pub fn compare(&mut self, f: CompareFunction, a: Id, b: Id) -> Result<Id, Unsupported> {
        let (a, b) = match (self.narrowed(a), self.narrowed(b)) {
            (Some(a), Some(b)) => (a, b),
            _ => (a, b),
        };
        let dtype = self.dtype(a);
        let fits = is_float(dtype) || dtype.is_int() || dtype == DType::Bool;
        computes(fits && self.dtype(b) == dtype, f.name(), dtype)?;
        Ok(self.value(Node::Compare(f, a, b), DType::Bool))
    }

    /// The f32 value that equals a value of f64, if that is known to exist.
    fn narrowed(&mut self, id: Id) -> Option<Id> {
        let Value { node, dtype } = self.nodes[id];
        if dtype != DType::F64 {
            return None;
        }
        match node {
            Node::Convert(x) if is_float(self.dtype(x)) => self.convert(DType::F32, x).ok(),
            Node::Const(number) => {
                let wide = number.to_scalar(DType::F64);
                let same = wide.convert(DType::F32).to_f64() == wide.to_f64();
                same.then(|| self.constant(number, DType::F32))
            }
            _ => None,
        }
    }

    pub fn select(&mut self, mask: Id, a: Id, b: Id) -> Result<Id, Unsupported> {
        let dtype = self.dtype(a);
        computes(
            self.dtype(mask) == DType::Bool && self.dtype(b) == dtype,
            "select",
            dtype,
        )?;
        Ok(self.value(Node::Select([mask, a, b]), dtype))
    }

    pub fn convert(&mut self, to: DType, x: Id) -> Result<Id, Unsupported> {
        let Value { node, dtype: from } = self.nodes[x];
        if from == to {
            return Ok(x);
        }
        for dtype in [from, to] {
            computes(dtype.class() != Class::Configurable, "convert", dtype)?;
        }
        if let Node::Const(number) = node {
            let converted: Scalar = number.to_scalar(from).convert(to);
            return Ok(self.constant(converted.into(), to));
        }
        Ok(self.value(Node::Convert(x), to))
    }

    /// The index of a loop as an element of a type.
    fn index(&mut self, dim: usize, dtype: DType) -> Result<Id, Unsupported> {
        if let Some(id) = self.indices.get(&dim) {
            return self.convert(dtype, *id);
        }
        if dtype.is_int() {
            return Ok(self.value(Node::Index(dim), dtype));
        }
        let id = self.value(Node::Index(dim), DType::I64);
        self.convert(dtype, id)
    }

    /// The value of an expression.
    pub fn of(&mut self, expr: &Expr) -> Result<Id, Unsupported> {
        match expr {
            Expr::Operand(operand) => Ok(self.source(*operand)),
            Expr::Const(number, dtype) => Ok(self.constant(*number, *dtype)),
            Expr::Index(dim, dtype) => self.index(*dim, *dtype),
            Expr::Unary(f, _, x) => {
                let x = self.of(x)?;
                self.unary(*f, x)
            }
            Expr::Binary(f, _, args) => {
                let (a, b) = (self.of(&args[0])?, self.of(&args[1])?);
                self.binary(*f, a, b)
            }
            Expr::Select(args) => {
                let mask = self.of(&args[0])?;
                let (a, b) = (self.of(&args[1])?, self.of(&args[2])?);
                self.select(mask, a, b)
            }
            Expr::Convert(dtype, x) => {
                let x = self.of(x)?;
                self.convert(*dtype, x)
            }
            Expr::RandomBits(..) => Err(Unsupported::new("random bits")),
            Expr::FirstOf(_) => Err(Unsupported::new(
                "a choice of operands inside of an expression",
            )),
        }
    }

    fn unary(&mut self, f: UnaryFn, x: Id) -> Result<Id, Unsupported> {
        let direct = match f {
            UnaryFn::Abs => MapFunction::Abs,
            UnaryFn::Neg => MapFunction::Neg,
            UnaryFn::Floor => MapFunction::Floor,
            UnaryFn::Ceil => MapFunction::Ceil,
            UnaryFn::Round => MapFunction::Round,
            UnaryFn::Exp => MapFunction::Exp,
            UnaryFn::Log => MapFunction::Log,
            UnaryFn::Sqrt => MapFunction::Sqrt,
            UnaryFn::Rsqrt => MapFunction::Rsqrt,
            UnaryFn::Recip => MapFunction::Recip,
            UnaryFn::Sin => MapFunction::Sin,
            UnaryFn::Cos => MapFunction::Cos,
            UnaryFn::Tanh => MapFunction::Tanh,
            UnaryFn::Erf => MapFunction::Erf,
            UnaryFn::Sigmoid => MapFunction::Sigmoid,
            UnaryFn::Not => MapFunction::Not,
            other => return self.unary_sequence(other, x),
        };
        self.map(direct, x)
    }

    fn binary(&mut self, f: BinaryFn, a: Id, b: Id) -> Result<Id, Unsupported> {
        let compare = match f {
            BinaryFn::Eq => Some(CompareFunction::Eq),
            BinaryFn::Ne => Some(CompareFunction::Ne),
            BinaryFn::Lt => Some(CompareFunction::Lt),
            BinaryFn::Le => Some(CompareFunction::Le),
            BinaryFn::Gt => Some(CompareFunction::Gt),
            BinaryFn::Ge => Some(CompareFunction::Ge),
            _ => None,
        };
        if let Some(compare) = compare {
            return self.compare(compare, a, b);
        }
        let dtype = self.dtype(a);
        let direct = match f {
            BinaryFn::Add => ZipFunction::Add,
            BinaryFn::Sub => ZipFunction::Sub,
            BinaryFn::Mul => ZipFunction::Mul,
            BinaryFn::Div => ZipFunction::Div,
            BinaryFn::Max => ZipFunction::Max,
            BinaryFn::Min => ZipFunction::Min,
            BinaryFn::And => ZipFunction::And,
            BinaryFn::Or => ZipFunction::Or,
            BinaryFn::Xor => ZipFunction::Xor,
            BinaryFn::Shl => ZipFunction::Shl,
            BinaryFn::Shr => ZipFunction::Shr,
            BinaryFn::Pow if dtype.is_float() => ZipFunction::Pow,
            BinaryFn::Rem if dtype.is_int() => ZipFunction::Rem,
            other => return self.binary_sequence(other, a, b),
        };
        self.zip(direct, a, b)
    }
}

fn computes(fits: bool, name: &str, dtype: DType) -> Result<(), Unsupported> {
    match fits {
        true => Ok(()),
        false => Err(Unsupported::new(format!("`{name}` of {dtype}"))),
    }
}

/// Whether a number can stand in an instruction in the place of an operand of this type.
pub(super) fn is_immediate(number: Number, dtype: DType) -> bool {
    number_fits(number, dtype)
}

/// See [`super::fill_value`].
pub(super) fn fill_value(access: &Access, operand: usize) -> Result<Option<Number>, Unsupported> {
    match access.operands[operand].outside {
        Outside::Never => return Ok(None),
        Outside::Fill(value) => return Ok(Some(value)),
        Outside::Nothing => {}
    }
    let refused = |what: &str| Err(Unsupported::new(what));
    match &access.combine {
        Combine::Assign => {
            let divided = access.operands[operand]
                .index
                .iter()
                .any(|map| map.div != 1);
            let choice = |expr: &Expr| matches!(expr, Expr::FirstOf(_));
            if !access.body.iter().all(choice) {
                return refused("elements that are computed of nothing");
            }
            match divided {
                true => refused("elements that lie between those of an operand"),
                false => Ok(None),
            }
        }
        Combine::Reduce(monoid, dtype) => {
            let [body] = access.body.as_slice() else {
                return refused("positions of extrema among elements that are outside");
            };
            let factor = match monoid {
                Monoid::Sum => is_factor(body, operand),
                _ => is_plain(body, operand),
            };
            if !factor {
                return refused("a reduction of a function of elements that are outside");
            }
            Ok(Some(match monoid {
                Monoid::Sum => Number::Int(0),
                Monoid::Prod => Number::Int(1),
                Monoid::Max | Monoid::Min => extreme(*dtype, matches!(monoid, Monoid::Min)).into(),
                Monoid::ArgMax { .. } | Monoid::ArgMin { .. } => {
                    return refused("positions of extrema among elements that are outside");
                }
            }))
        }
        Combine::Scan { .. } => refused("a running combination of elements that are outside"),
    }
}

/// Whether an expression is an operand, perhaps converted.
fn is_plain(expr: &Expr, operand: usize) -> bool {
    match expr {
        Expr::Operand(other) => *other == operand,
        Expr::Convert(_, x) => is_plain(x, operand),
        _ => false,
    }
}

/// Whether an expression is zero where an operand is.
fn is_factor(expr: &Expr, operand: usize) -> bool {
    match expr {
        Expr::Binary(BinaryFn::Mul, _, args) => {
            args.iter().any(|factor| is_factor(factor, operand))
        }
        Expr::Convert(_, x) => is_factor(x, operand),
        other => is_plain(other, operand),
    }
}
