//! Rules that replace a node by an operand or by a simpler node of the same value.
//!
//! All of them hold bit for bit, for every operand: NaN, infinities, zeros of either sign, integers
//! that wrap. So `x + 0.0` stays (it turns -0.0 into 0.0) and `x + -0.0` goes. A rule looks at one
//! node and what produces its operands, and changes nothing itself.

use dojoc_ir::access::extreme;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Binary, Broadcast, Convert, Op, Pad, Slice, Transpose, Unary};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::{Class, DType, Type};

use super::full;
use crate::graph::{Editor, is_constant, splat};

/// What a node with one result becomes.
pub(crate) enum Rewrite {
    /// This value.
    Value(ValueId),
    /// This node.
    Node(Op, Vec<ValueId>),
}

/// A node with one result, and what rules may ask about it.
struct Site<'a, 'm> {
    editor: &'a Editor<'m>,
    op: &'a Op,
    args: &'a [ValueId],
    ty: &'a Type,
}

type Rule = fn(&Site<'_, '_>) -> Option<Rewrite>;

/// All rules; the first that fits is taken.
const RULES: &[Rule] = &[
    neutral_operand,
    absorbing_operand,
    constant_right,
    unary_of_unary,
    reshape,
    transpose,
    broadcast,
    moved_constant,
    whole_slice,
    empty_pad,
    concat_of_one,
    convert,
    bit_cast,
    select,
];

/// What the first rule that fits makes of a node with one result of type `ty`.
pub(crate) fn simplify(
    editor: &Editor<'_>,
    op: &Op,
    args: &[ValueId],
    ty: &Type,
) -> Option<Rewrite> {
    let site = Site {
        editor,
        op,
        args,
        ty,
    };
    RULES.iter().find_map(|rule| rule(&site))
}

impl Site<'_, '_> {
    fn type_of(&self, value: ValueId) -> &Type {
        self.editor.func.ty(value)
    }

    /// The value, if it has the type of the result.
    fn same_type(&self, value: ValueId) -> Option<Rewrite> {
        (self.type_of(value) == self.ty).then_some(Rewrite::Value(value))
    }

    fn splat(&self, value: ValueId) -> Option<Scalar> {
        splat(self.editor.module, &self.editor.func, value)
    }

    fn constant(&self, value: ValueId) -> bool {
        is_constant(&self.editor.func, value)
    }

    fn full(&self, value: Scalar) -> Rewrite {
        Rewrite::Node(full(self.ty, value), vec![])
    }
}

fn is_float(value: Scalar, bits: f64) -> bool {
    matches!(value, Scalar::F32(_) | Scalar::F64(_)) && value.to_f64().to_bits() == bits.to_bits()
}

/// Whether `f` with this operand on the right, or else on the left, gives the other operand.
fn neutral(f: BinaryFn, value: Scalar, right: bool, dtype: DType) -> bool {
    let int = |number: i128| value == Scalar::Int(number);
    let ones = match dtype.int_range() {
        Some((low, high)) => int(if low < 0 { -1 } else { high }),
        None => value == Scalar::Bool(true),
    };
    match f {
        BinaryFn::Add => int(0) || is_float(value, -0.0),
        BinaryFn::Sub => right && (int(0) || is_float(value, 0.0)),
        BinaryFn::Mul => int(1) || is_float(value, 1.0),
        BinaryFn::Div => right && (int(1) || is_float(value, 1.0)),
        BinaryFn::Pow => right && int(1),
        BinaryFn::Max => value == extreme(dtype, false),
        BinaryFn::Min => value == extreme(dtype, true),
        BinaryFn::And => ones,
        BinaryFn::Or | BinaryFn::Xor => int(0) || value == Scalar::Bool(false),
        BinaryFn::Shl | BinaryFn::Shr => right && int(0),
        BinaryFn::Eq => value == Scalar::Bool(true),
        BinaryFn::Ne => value == Scalar::Bool(false),
        _ => false,
    }
}

/// `x + -0.0`, `x * 1`, `x and true` and so on become `x`, where x is not broadcast.
fn neutral_operand(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Binary(Binary(f)), &[a, b]) = (site.op, site.args) else {
        return None;
    };
    let dtype = site.type_of(a).dtype;
    [(a, b, true), (b, a, false)]
        .into_iter()
        .find_map(|(x, c, right)| {
            let value = site.splat(c)?;
            neutral(*f, value, right, dtype)
                .then(|| site.same_type(x))
                .flatten()
        })
}

/// Integers times zero, `x and false`, `x or true` become the constant.
fn absorbing_operand(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Binary(Binary(f)), &[a, b]) = (site.op, site.args) else {
        return None;
    };
    [a, b].into_iter().find_map(|c| {
        let value = site.splat(c)?;
        let absorbs = match f {
            BinaryFn::Mul | BinaryFn::And => {
                value == Scalar::Int(0) || value == Scalar::Bool(false)
            }
            BinaryFn::Or => neutral(BinaryFn::And, value, true, site.ty.dtype),
            _ => false,
        };
        absorbs.then(|| site.full(value))
    })
}

/// Constants stand on the right of what commutes, and of comparisons, which turn around.
fn constant_right(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Binary(Binary(f)), &[a, b]) = (site.op, site.args) else {
        return None;
    };
    let swapped = match f {
        BinaryFn::Lt => BinaryFn::Gt,
        BinaryFn::Gt => BinaryFn::Lt,
        BinaryFn::Le => BinaryFn::Ge,
        BinaryFn::Ge => BinaryFn::Le,
        BinaryFn::Add
        | BinaryFn::Mul
        | BinaryFn::Max
        | BinaryFn::Min
        | BinaryFn::And
        | BinaryFn::Or
        | BinaryFn::Xor
        | BinaryFn::Eq
        | BinaryFn::Ne => *f,
        _ => return None,
    };
    let turn = site.constant(a) && !site.constant(b);
    turn.then(|| Rewrite::Node(Binary(swapped).into(), vec![b, a]))
}

/// Two negations cancel; an absolute value needs no negation; what is rounded is not rounded again.
fn unary_of_unary(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Unary(Unary(outer)), &[x]) = (site.op, site.args) else {
        return None;
    };
    let (Op::Unary(Unary(inner)), &[y]) = site.editor.op_of(x)? else {
        return None;
    };
    match (outer, inner) {
        (UnaryFn::Neg, UnaryFn::Neg) | (UnaryFn::Not, UnaryFn::Not) => Some(Rewrite::Value(y)),
        (UnaryFn::Abs, UnaryFn::Neg) => Some(Rewrite::Node(site.op.clone(), vec![y])),
        (
            UnaryFn::Abs
            | UnaryFn::Sign
            | UnaryFn::Floor
            | UnaryFn::Ceil
            | UnaryFn::Round
            | UnaryFn::Trunc,
            _,
        ) if outer == inner => Some(Rewrite::Value(x)),
        _ => None,
    }
}

/// A reshape to the same extents goes, and one of another reshape does without that, if the number
/// of elements in between is known to be right.
fn reshape(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Reshape(_), &[x]) = (site.op, site.args) else {
        return None;
    };
    if let Some(same) = site.same_type(x) {
        return Some(same);
    }
    let (Op::Reshape(_), &[y]) = site.editor.op_of(x)? else {
        return None;
    };
    let known = site.type_of(x).shape.elements()? == site.type_of(y).shape.elements()?;
    known.then(|| Rewrite::Node(site.op.clone(), vec![y]))
}

/// A transposition that moves nothing goes, two become one.
fn transpose(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Transpose(outer), &[x]) = (site.op, site.args) else {
        return None;
    };
    if outer.perm.is_sorted() {
        return Some(Rewrite::Value(x));
    }
    let (Op::Transpose(inner), &[y]) = site.editor.op_of(x)? else {
        return None;
    };
    let perm = outer.perm.iter().map(|d| inner.perm[*d]).collect();
    Some(Rewrite::Node(Transpose { perm }.into(), vec![y]))
}

/// A broadcast to the same extents goes, two become one.
fn broadcast(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Broadcast(_), &[x]) = (site.op, site.args) else {
        return None;
    };
    if let Some(same) = site.same_type(x) {
        return Some(same);
    }
    match site.editor.op_of(x)? {
        (Op::Broadcast(_), &[y]) => Some(Rewrite::Node(site.op.clone(), vec![y])),
        _ => None,
    }
}

/// Moving the elements of a tensor that are all equal gives another such tensor. What checks
/// symbolic extents when it runs stays, and so do weights, which keep their place in their file.
fn moved_constant(site: &Site<'_, '_>) -> Option<Rewrite> {
    let &[x] = site.args else { return None };
    let fixed = |ty: &Type| ty.shape.as_const().is_some();
    let extents = fixed(site.ty) && fixed(site.type_of(x));
    let moves = match site.op {
        Op::Transpose(_) | Op::Broadcast(_) => true,
        Op::Reshape(_) => extents,
        Op::Slice(slice) => extents && slice.start.iter().all(|s| s.as_const().is_some()),
        _ => false,
    };
    let (_, []) = site.editor.op_of(x)? else {
        return None;
    };
    site.splat(x)
        .filter(|_| moves)
        .map(|value| site.full(value))
}

/// A slice of everything goes.
fn whole_slice(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Slice(Slice { start, step, .. }), &[x]) = (site.op, site.args) else {
        return None;
    };
    let whole = start.iter().all(|s| s.is(0)) && step.iter().all(|s| *s == 1);
    whole.then(|| site.same_type(x)).flatten()
}

/// Padding by nothing goes.
fn empty_pad(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (
        Op::Pad(Pad {
            low,
            high,
            interior,
        }),
        &[x, _],
    ) = (site.op, site.args)
    else {
        return None;
    };
    let nothing = low.iter().chain(high).all(|n| *n == 0) && interior.iter().all(|n| *n == 0);
    nothing.then(|| site.same_type(x)).flatten()
}

/// One tensor beside nothing is that tensor.
fn concat_of_one(site: &Site<'_, '_>) -> Option<Rewrite> {
    match (site.op, site.args) {
        (Op::Concat(_), &[x]) => Some(Rewrite::Value(x)),
        _ => None,
    }
}

/// Whether every value of `from` is one of `to`.
fn contains(to: DType, from: DType) -> bool {
    let digits = match to {
        DType::Bf16 => 8,
        DType::F16 => 11,
        DType::F32 => 24,
        _ => 53,
    };
    match (from.class(), to.class()) {
        (Class::Configurable, _) | (_, Class::Configurable) => false,
        (Class::Bool, _) => true,
        (Class::Float, Class::Float) => {
            from == to || to == DType::F64 || (to == DType::F32 && from != DType::F64)
        }
        (Class::Int { .. }, Class::Int { .. }) => match (from.int_range(), to.int_range()) {
            (Some((low, high)), Some((least, greatest))) => least <= low && high <= greatest,
            _ => false,
        },
        // Of a signed type the sign takes a bit, and the least value is a power of two.
        (Class::Int { signed }, Class::Float) => from.bytes() * 8 - u64::from(signed) <= digits,
        _ => false,
    }
}

/// A conversion to the same type goes, and so does one before it that lost nothing.
fn convert(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Convert(_), &[x]) = (site.op, site.args) else {
        return None;
    };
    if let Some(same) = site.same_type(x) {
        return Some(same);
    }
    let (Op::Convert(Convert { to, .. }), &[y]) = site.editor.op_of(x)? else {
        return None;
    };
    contains(*to, site.type_of(y).dtype).then(|| Rewrite::Node(site.op.clone(), vec![y]))
}

/// Bits read as the same type stay, and need not be read as something else in between.
fn bit_cast(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::BitCast(_), &[x]) = (site.op, site.args) else {
        return None;
    };
    if let Some(same) = site.same_type(x) {
        return Some(same);
    }
    match site.editor.op_of(x)? {
        (Op::BitCast(_), &[y]) => Some(Rewrite::Node(site.op.clone(), vec![y])),
        _ => None,
    }
}

/// A choice that is known, or between equals, is no choice; a negated condition swaps.
fn select(site: &Site<'_, '_>) -> Option<Rewrite> {
    let (Op::Select(_), &[cond, a, b]) = (site.op, site.args) else {
        return None;
    };
    let chosen = match site.splat(cond) {
        Some(value) => Some(if value.to_bool() { a } else { b }),
        None => (a == b).then_some(a),
    };
    if let Some(chosen) = chosen {
        let shape = site.ty.dims().to_vec();
        let broadcast = || Rewrite::Node(Broadcast { shape }.into(), vec![chosen]);
        return Some(site.same_type(chosen).unwrap_or_else(broadcast));
    }
    match site.editor.op_of(cond)? {
        (Op::Unary(Unary(UnaryFn::Not)), &[c]) => {
            Some(Rewrite::Node(site.op.clone(), vec![c, b, a]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars(dtype: DType) -> Vec<Scalar> {
        let inf = f64::INFINITY;
        match dtype.int_range() {
            Some((low, high)) => {
                let values = [low, low + 1, -1, 0, 1, 77, high];
                values.map(|i| Scalar::Int(i).wrap(dtype)).to_vec()
            }
            None if dtype == DType::Bool => vec![Scalar::Bool(false), Scalar::Bool(true)],
            None => [f64::NAN, inf, -inf, 0.0, -0.0, 1e-40, -1.5, 1.0, 3e38]
                .map(|x| Scalar::from_f64(x, dtype))
                .to_vec(),
        }
    }

    fn bits(value: Scalar) -> i128 {
        match value {
            Scalar::Bool(_) | Scalar::Int(_) => value.to_int(),
            _ if value.to_f64().is_nan() => -1,
            _ => value.to_f64().to_bits().into(),
        }
    }

    fn fixed() -> impl Iterator<Item = DType> {
        let all = DType::ALL.into_iter().map(|(dtype, _)| dtype);
        all.filter(|dtype| dtype.class() != Class::Configurable)
    }

    /// Tries every function with every special constant on every special operand.
    #[test]
    fn neutral_operands_are_neutral() {
        let mut found = 0;
        for dtype in fixed() {
            let same = |f: &&BinaryFn| f.domain().result(dtype) == Some(dtype);
            for f in BinaryFn::ALL.iter().filter(same) {
                for (c, right) in scalars(dtype)
                    .into_iter()
                    .flat_map(|c| [(c, false), (c, true)])
                {
                    if !neutral(*f, c, right, dtype) {
                        continue;
                    }
                    found += 1;
                    for x in scalars(dtype) {
                        let (a, b) = if right { (x, c) } else { (c, x) };
                        let result = f.apply(a, b, dtype);
                        assert_eq!(bits(result), bits(x), "{dtype} {} {a:?} {b:?}", f.name());
                    }
                }
            }
        }
        assert!(found > 100, "only {found} neutral operands");
    }

    #[test]
    fn what_looks_neutral_and_is_not_stays() {
        let (zero, minus) = (Scalar::F32(0.0), Scalar::F32(-0.0));
        assert!(!neutral(BinaryFn::Add, zero, true, DType::F32));
        assert!(neutral(BinaryFn::Add, minus, true, DType::F32));
        assert!(neutral(BinaryFn::Sub, zero, true, DType::F32));
        assert!(!neutral(BinaryFn::Sub, minus, true, DType::F32));
        assert!(!neutral(BinaryFn::Sub, Scalar::Int(0), false, DType::I32));
        assert!(!neutral(BinaryFn::Div, Scalar::Int(1), false, DType::I32));
        assert!(!neutral(
            BinaryFn::Max,
            Scalar::F32(f32::MIN),
            true,
            DType::F32
        ));
    }

    #[test]
    fn conversions_that_lose_nothing_lose_nothing() {
        for (from, to) in fixed().flat_map(|from| fixed().map(move |to| (from, to))) {
            for x in scalars(from).into_iter().filter(|_| contains(to, from)) {
                assert_eq!(
                    bits(x.convert(to).convert(from)),
                    bits(x),
                    "{from} {to} {x:?}"
                );
            }
        }
        assert!(!contains(DType::F16, DType::Bf16) && !contains(DType::Bf16, DType::F16));
        assert!(!contains(DType::F32, DType::I32) && contains(DType::F64, DType::I32));
        assert!(!contains(DType::F16, DType::U16) && contains(DType::F32, DType::U16));
        assert!(!contains(DType::Bf16, DType::I16) && contains(DType::Bf16, DType::I8));
        assert!(!contains(DType::Bool, DType::U8) && contains(DType::F16, DType::Bool));
    }
}
