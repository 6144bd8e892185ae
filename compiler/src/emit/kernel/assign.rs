//! Values as vector instructions, and loop nests without a combination.

use std::collections::BTreeMap;

use dojoc_ir::access::{Access, Expr, Write};
use dojoc_ir::attr::{Flag, Number};
use dojoc_ir::program::Unit;
use dojoc_ir::program::instr::convert::Convert;
use dojoc_ir::program::instr::data::Copy;
use dojoc_ir::program::instr::vector::{
    Compare, CompareFunction, Fill, Iota, Map, MulAdd, Select, Zip, ZipFunction,
};
use dojoc_ir::types::Class;

use super::nest::{Axis, Cx, Place, axes, scaled, sum, window};
use super::values::{Id, Node, Value, Values, is_immediate};
use super::{BlockDim, Local};
use crate::emit::Unsupported;

/// A set of loops of a block.
pub(super) type Dims = Vec<usize>;

/// Emits a loop nest whose values go straight to the results.
pub(super) fn emit(
    cx: &mut Cx<'_>,
    access: &Access,
    operands: &[Local],
    results: &[Local],
) -> Result<(), Unsupported> {
    for (write, local) in access.results.iter().zip(results) {
        let result = result_place(cx, write, local)?;
        match &access.body[write.component] {
            Expr::FirstOf(options) => {
                // The first that reads something is written last.
                for option in options.iter().rev() {
                    where_valid(cx, access, option, operands, write, &result)?;
                }
            }
            body => {
                let places = operand_places(cx, access, operands)?;
                one(cx, body, &places, write, &result)?;
            }
        }
    }
    Ok(())
}

fn one(
    cx: &mut Cx<'_>,
    body: &Expr,
    places: &[Place],
    write: &Write,
    result: &Place,
) -> Result<(), Unsupported> {
    let mut values = Values::new(places.iter().map(|place| place.dtype));
    let root = values.of(body)?;
    let root = values.convert(write.dtype, root)?;
    Evaluation::new(cx, &values, places).into_place(root, result)
}

/// Emits an expression for the part of the block at which its operands are in range.
fn where_valid(
    cx: &mut Cx<'_>,
    access: &Access,
    option: &Expr,
    operands: &[Local],
    write: &Write,
    result: &Place,
) -> Result<(), Unsupported> {
    let mut used = Vec::new();
    operands_of(option, &mut used);
    let mut valid = used
        .iter()
        .filter_map(|operand| operands[*operand].valid.as_ref());
    let (Some(part), rest) = (valid.next(), valid.next()) else {
        let places = places_where(cx, access, operands)?;
        return one(cx, option, &places, write, result);
    };
    if rest.is_some() {
        let message = "an expression of several operands that may be out of range";
        return Err(Unsupported::new(message));
    }
    if part.len() != cx.block.len() {
        return Err(Unsupported::new(
            "a valid range without an entry for each loop",
        ));
    }
    let block = cx.block.iter().zip(part).map(|(dim, (start, count))| {
        let start = sum(&dim.start, start)?;
        let (count, max) = (count.clone(), dim.max);
        Ok(BlockDim { start, count, max })
    });
    let block = block.collect::<Result<Vec<BlockDim>, Unsupported>>()?;
    let moved = |place: &Place| -> Result<Place, Unsupported> {
        let mut place = place.clone();
        for ((start, _), step) in part.iter().zip(&place.steps) {
            place.offset = sum(&place.offset, &scaled(start, *step)?)?;
        }
        Ok(place)
    };
    let whole = places_where(cx, access, operands)?;
    let mut places = Vec::new();
    for (operand, place) in whole.iter().enumerate() {
        places.push(match &operands[operand].valid {
            Some(_) if used.contains(&operand) => {
                Place::of(&access.operands[operand].index, &operands[operand], &block)?
            }
            _ => moved(place)?,
        });
    }
    let result = moved(result)?;
    let mut cx = Cx {
        seg: cx.seg,
        block: &block,
        loc: cx.loc,
    };
    one(&mut cx, option, &places, write, &result)
}

fn operands_of(expr: &Expr, used: &mut Vec<usize>) {
    match expr {
        Expr::Operand(operand) => used.push(*operand),
        Expr::Const(..) | Expr::Index(..) => {}
        Expr::Unary(_, _, x) | Expr::Convert(_, x) => operands_of(x, used),
        Expr::Binary(_, _, args) => args.iter().for_each(|x| operands_of(x, used)),
        Expr::Select(args) | Expr::RandomBits(_, args) => {
            args.iter().for_each(|x| operands_of(x, used));
        }
        Expr::FirstOf(options) => options.iter().for_each(|x| operands_of(x, used)),
    }
}

/// The places of all operands, which must be in range everywhere.
pub(super) fn operand_places(
    cx: &Cx<'_>,
    access: &Access,
    operands: &[Local],
) -> Result<Vec<Place>, Unsupported> {
    if operands.iter().any(|local| local.valid.is_some()) {
        let message = "an operand that is out of range for a part of the block";
        return Err(Unsupported::new(message));
    }
    places_where(cx, access, operands)
}

/// The places of all operands; those of operands with a valid part are of use for that part only.
fn places_where(
    cx: &Cx<'_>,
    access: &Access,
    operands: &[Local],
) -> Result<Vec<Place>, Unsupported> {
    let reads = access.operands.iter().zip(operands);
    reads
        .map(|(read, local)| Place::of(&read.index, local, cx.block))
        .collect()
}

/// The place of a result.
pub(super) fn result_place(
    cx: &Cx<'_>,
    write: &Write,
    local: &Local,
) -> Result<Place, Unsupported> {
    if write.index.iter().any(|map| map.div != 1) {
        return Err(Unsupported::new("a result whose elements lie apart"));
    }
    if local.dtype != write.dtype {
        let message = format!("a result of {} in a buffer of {}", write.dtype, local.dtype);
        return Err(Unsupported::new(message));
    }
    Place::of(&write.index, local, cx.block)
}

/// The instructions that compute values.
pub(super) struct Evaluation<'a, 'b> {
    cx: &'a mut Cx<'b>,
    values: &'a Values,
    sources: &'a [Place],
    done: BTreeMap<Id, Place>,
}

impl<'a, 'b> Evaluation<'a, 'b> {
    /// Of values whose sources lie at these places.
    pub fn new(cx: &'a mut Cx<'b>, values: &'a Values, sources: &'a [Place]) -> Self {
        let done = BTreeMap::new();
        Self {
            cx,
            values,
            sources,
            done,
        }
    }

    /// Computes a value for every point of the block, into a place.
    pub fn into_place(self, root: Id, result: &Place) -> Result<(), Unsupported> {
        let dims = self.cx.all_dims();
        self.over(root, result, &dims)
    }

    /// Computes a value for every point of some loops, into a place.
    pub fn over(mut self, root: Id, result: &Place, dims: &[usize]) -> Result<(), Unsupported> {
        self.prepare(root)?;
        self.compute(root, result, dims)
    }

    /// Where a value lies: its source, or scratch memory that it is computed into.
    pub fn place(mut self, root: Id) -> Result<Place, Unsupported> {
        self.prepare(root)?;
        self.operand(root)
    }

    /// Computes all that a value is made of.
    fn prepare(&mut self, root: Id) -> Result<(), Unsupported> {
        let mut needed = vec![false; root + 1];
        needed[root] = true;
        for id in (0..=root).rev() {
            if needed[id] {
                for arg in self.values.nodes[id].node.args() {
                    needed[arg] = true;
                }
            }
        }
        for (id, needed) in needed.into_iter().enumerate().take(root) {
            let leaf = self.values.nodes[id].node.args().is_empty();
            if needed && !leaf {
                self.operand(id)?;
            }
        }
        Ok(())
    }

    /// The loops that a value depends on.
    fn dims(&self, id: Id) -> Dims {
        let mut depends = vec![false; self.cx.block.len()];
        let mut open = vec![id];
        let mut seen = vec![false; id + 1];
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id], true) {
                continue;
            }
            match self.values.nodes[id].node {
                Node::Source(source) => {
                    for (dim, depends) in depends.iter_mut().enumerate() {
                        *depends |= self.sources[source].varies(dim);
                    }
                }
                Node::Index(dim) => depends[dim] = true,
                node => open.extend(node.args()),
            }
        }
        (0..depends.len()).filter(|dim| depends[*dim]).collect()
    }

    /// Where a value lies that an instruction reads.
    fn operand(&mut self, id: Id) -> Result<Place, Unsupported> {
        let Value { node, dtype } = self.values.nodes[id];
        if let Node::Source(source) = node {
            return Ok(self.sources[source].clone());
        }
        if let Some(place) = self.done.get(&id) {
            return Ok(place.clone());
        }
        let dims = self.dims(id);
        let place = self.cx.scratch("t", dtype, &dims)?;
        self.compute(id, &place, &dims)?;
        self.done.insert(id, place.clone());
        Ok(place)
    }

    fn immediate(&self, id: Id) -> Option<Number> {
        match self.values.nodes[id] {
            Value {
                node: Node::Const(number),
                dtype,
            } if is_immediate(number, dtype) => Some(number),
            _ => None,
        }
    }

    /// Computes a value over some loops.
    fn compute(&mut self, id: Id, to: &Place, dims: &[usize]) -> Result<(), Unsupported> {
        match self.values.nodes[id].node {
            Node::Source(source) => {
                let from = self.sources[source].clone();
                self.cx.pointwise(Copy {}, &[to, &from], dims)
            }
            Node::Const(value) => {
                let dtype = self.values.dtype(id);
                if dtype.class() == Class::Configurable {
                    return Err(Unsupported::new(format!("a number of {dtype}")));
                }
                self.cx.pointwise(Fill { value }, &[to], dims)
            }
            Node::Index(dim) => self.index(id, dim, to, dims),
            Node::Start(dim) => counting(self.cx, to, dim, &[Axis::one(1)]),
            Node::Map(function, x) => {
                let x = self.operand(x)?;
                self.cx.pointwise(Map { function }, &[to, &x], dims)
            }
            Node::Zip(function, a, b) => self.zip(function, a, b, to, dims),
            Node::MulAdd([a, b, c]) => {
                let (a, b, c) = (self.operand(a)?, self.operand(b)?, self.operand(c)?);
                self.cx.pointwise(MulAdd {}, &[to, &a, &b, &c], dims)
            }
            Node::Compare(function, a, b) => self.compare(function, a, b, to, dims),
            Node::Select([mask, a, b]) => {
                let (mask, a, b) = (self.operand(mask)?, self.operand(a)?, self.operand(b)?);
                self.cx.pointwise(Select {}, &[to, &mask, &a, &b], dims)
            }
            Node::Convert(x) => {
                let x = self.operand(x)?;
                convert(self.cx, to, &x, dims)
            }
        }
    }

    fn zip(
        &mut self,
        function: ZipFunction,
        a: Id,
        b: Id,
        to: &Place,
        dims: &[usize],
    ) -> Result<(), Unsupported> {
        let commutes = !matches!(
            function,
            ZipFunction::Sub
                | ZipFunction::Div
                | ZipFunction::Rem
                | ZipFunction::Pow
                | ZipFunction::Shl
                | ZipFunction::Shr
        );
        let (a, b) = match self.immediate(a) {
            Some(_) if commutes => (b, a),
            _ => (a, b),
        };
        let x = self.operand(a)?;
        if let Some(number) = self.immediate(b) {
            let value = Some(number);
            return self.cx.pointwise(Zip { function, value }, &[to, &x], dims);
        }
        let y = self.operand(b)?;
        self.cx.pointwise(
            Zip {
                function,
                value: None,
            },
            &[to, &x, &y],
            dims,
        )
    }

    fn compare(
        &mut self,
        function: CompareFunction,
        a: Id,
        b: Id,
        to: &Place,
        dims: &[usize],
    ) -> Result<(), Unsupported> {
        let x = self.operand(a)?;
        if let Some(number) = self.immediate(b) {
            let value = Some(number);
            return self
                .cx
                .pointwise(Compare { function, value }, &[to, &x], dims);
        }
        let y = self.operand(b)?;
        self.cx.pointwise(
            Compare {
                function,
                value: None,
            },
            &[to, &x, &y],
            dims,
        )
    }

    fn index(&mut self, id: Id, dim: usize, to: &Place, dims: &[usize]) -> Result<(), Unsupported> {
        let one = |dim: &usize| self.cx.block[*dim].count.as_constant() == Some(1);
        if dims.iter().any(|other| *other != dim && !one(other)) {
            let row = self.operand(id)?;
            return self.cx.pointwise(Copy {}, &[to, &row], dims);
        }
        iota(self.cx, to, dim)
    }
}

/// Writes the indices of a loop.
fn iota(cx: &mut Cx<'_>, to: &Place, dim: usize) -> Result<(), Unsupported> {
    let mut row = axes(cx.block, &[dim], &[to]);
    if row.is_empty() {
        row.push(Axis::one(1));
    }
    counting(cx, to, dim, &row)
}

/// Writes the indices of a loop along an axis.
fn counting(cx: &mut Cx<'_>, to: &Place, dim: usize, row: &[Axis]) -> Result<(), Unsupported> {
    let windows = [window(to, &to.offset, row, 0)];
    let start = cx.block[dim].start.clone();
    let (iota, loc) = (Iota { axis: 0, step: 1 }, cx.loc);
    cx.seg
        .compute(Unit::Vector, iota, &windows, vec![start], loc);
    Ok(())
}

/// The instruction that converts between types of fixed meaning.
pub(super) fn conversion() -> Convert {
    Convert {
        bias: Flag(false),
        stochastic: None,
    }
}

/// Writes values in another element type, or copies them.
pub(super) fn convert(
    cx: &mut Cx<'_>,
    to: &Place,
    from: &Place,
    dims: &[usize],
) -> Result<(), Unsupported> {
    if to.dtype == from.dtype {
        return cx.pointwise(Copy {}, &[to, from], dims);
    }
    cx.pointwise(conversion(), &[to, from], dims)
}

/// Writes a number everywhere.
pub(super) fn fill(
    cx: &mut Cx<'_>,
    to: &Place,
    value: Number,
    dims: &[usize],
) -> Result<(), Unsupported> {
    cx.pointwise(Fill { value }, &[to], dims)
}
