//! Index expressions, affine expressions and recipes as text.

use std::fmt::Write as _;

use dojoc_grammar::{quote, quote_name};

use super::format_symbol;
use crate::program::{
    Affine, Coordinate, IndexExpr, IndexNode, MAX_INDEX_NODES, Program, Recipe, RecipeNode,
    RegionId, Segment, Var,
};
use crate::types::DType;

/// Words of index expressions, which a run parameter's name does not hide.
pub(in crate::program) const COORDINATES: [(Coordinate, &str); 6] = [
    (Coordinate::Index, "i"),
    (Coordinate::Chip, "chip"),
    (Coordinate::Row, "row"),
    (Coordinate::Column, "column"),
    (Coordinate::Port, "p"),
    (Coordinate::Branch, "k"),
];

/// Text of more bytes than this is not made of one expression: without shared nodes, none that
/// can be read back comes near it.
const MAX_TEXT: usize = 1 << 28;

/// `@name`, or `@?`.
pub(super) fn symbol(name: Option<&str>) -> String {
    name.map_or("@?".into(), |name| format!("@{}", quote_name(name)))
}

/// The symbol of a core set.
pub(super) fn region_name(program: &Program, id: RegionId) -> String {
    symbol(program.regions.get(id).map(|region| &*region.name))
}

/// `[1, 2]`
pub(super) fn ints<T: ToString>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(T::to_string).collect();
    format!("[{}]", values.join(", "))
}

/// A type whose extents are numbers.
pub(super) fn constant_type(dtype: DType, shape: &[u64]) -> String {
    format!("{dtype}{}", ints(shape))
}

/// A run parameter.
fn dim_name(program: &Program, dim: u16) -> String {
    let Some((name, _)) = program.dims.get(usize::from(dim)) else {
        return "?".into();
    };
    if COORDINATES.iter().any(|(_, word)| **word == **name) {
        return format!("sym({})", quote(name));
    }
    format_symbol(name)
}

/// An index expression; `repeats` are the names of the counters around it.
pub(super) fn index(program: &Program, expr: &IndexExpr, repeats: &[&str]) -> String {
    if expr.nodes.len() > MAX_INDEX_NODES {
        return "?".into();
    }
    // Text and precedence of every node: 0 sums, 1 products, 2 all else.
    let mut texts: Vec<(String, u8)> = vec![];
    for node in &expr.nodes {
        let get = |at: u32| {
            texts
                .get(at as usize)
                .map_or(("?", 2), |(t, p)| (t.as_str(), *p))
        };
        let infix = |sign: &str, precedence: u8, a: u32, b: u32| {
            let (a, pa) = get(a);
            let (b, pb) = get(b);
            let a = if pa < precedence {
                format!("({a})")
            } else {
                a.into()
            };
            let b = if pb <= precedence {
                format!("({b})")
            } else {
                b.into()
            };
            (format!("{a}{sign}{b}"), precedence)
        };
        let call = |name: &str, a: u32, b: u32| (format!("{name}({}, {})", get(a).0, get(b).0), 2);
        let text = match *node {
            IndexNode::Const(value) => (value.to_string(), 2),
            IndexNode::Coordinate(Coordinate::Repeat(depth)) => {
                let name = repeats.get(usize::from(depth));
                (
                    name.map_or("%?".into(), |name| format!("%{}", quote_name(name))),
                    2,
                )
            }
            IndexNode::Coordinate(Coordinate::Dim(dim)) => (dim_name(program, dim), 2),
            IndexNode::Coordinate(coordinate) => (super::word(&COORDINATES, &coordinate).into(), 2),
            IndexNode::Add(a, b) => infix(" + ", 0, a, b),
            IndexNode::Sub(a, b) => infix(" - ", 0, a, b),
            IndexNode::Mul(a, b) => infix("*", 1, a, b),
            IndexNode::Div(a, b) => infix("/", 1, a, b),
            IndexNode::Mod(a, b) => call("mod", a, b),
            IndexNode::Min(a, b) => call("min", a, b),
            IndexNode::Max(a, b) => call("max", a, b),
            IndexNode::Table(table, a) => {
                let name = symbol(program.tables.get(table).map(|t| &*t.name));
                (format!("at({name}, {})", get(a).0), 2)
            }
        };
        let text = if text.0.len() > MAX_TEXT / MAX_INDEX_NODES {
            ("?".into(), 2)
        } else {
            text
        };
        texts.push(text);
    }
    texts.pop().map_or("?".into(), |(text, _)| text)
}

/// An affine expression; `loops` are the names of the counters around it.
pub(super) fn affine(
    program: &Program,
    segment: Option<&Segment>,
    loops: &[&str],
    expr: &Affine,
) -> String {
    let value = |name: Option<&str>| name.map_or("%?".into(), |n| format!("%{}", quote_name(n)));
    let name = |var: Var| match var {
        Var::Param(at) => value(
            segment
                .and_then(|s| s.params.get(usize::from(at)))
                .map(|name| &**name),
        ),
        Var::Dim(at) => dim_name(program, at),
        Var::Loop(at) => value(loops.get(usize::from(at)).copied()),
        Var::Register(at) => value(
            segment
                .and_then(|s| s.registers.get(usize::from(at)))
                .map(|name| &**name),
        ),
    };
    let mut text = String::new();
    if expr.constant != 0 || expr.terms.is_empty() {
        text += &expr.constant.to_string();
    }
    for (var, coefficient) in &expr.terms {
        let first = text.is_empty();
        // Without its sign, except for the one number that has no positive.
        let (sign, size) = match coefficient.checked_abs() {
            Some(size) if *coefficient < 0 => (if first { "-" } else { " - " }, size),
            _ => (if first { "" } else { " + " }, *coefficient),
        };
        text += sign;
        if size != 1 {
            // Writing to a string does not fail.
            let _ = write!(text, "{size}*");
        }
        text += &name(*var);
    }
    text
}

/// A recipe.
pub(super) fn recipe(recipe: &Recipe) -> String {
    let mut texts: Vec<String> = vec![];
    for node in &recipe.nodes {
        let text = recipe_node(node, &mut texts);
        texts.push(if text.len() > MAX_TEXT {
            "?".into()
        } else {
            text
        });
    }
    texts.pop().unwrap_or("?".into())
}

/// The text of one node. Each text is used once and taken, so that the whole is linear in size.
fn recipe_node(node: &RecipeNode, texts: &mut [String]) -> String {
    let mut take = |at: u32| match texts.get_mut(at as usize).map(std::mem::take) {
        Some(text) if !text.is_empty() => text,
        _ => "?".into(),
    };
    match node {
        RecipeNode::File {
            file,
            offset,
            dtype,
            shape,
        } => {
            format!(
                "file({}, {offset}, {})",
                quote(file),
                constant_type(*dtype, shape)
            )
        }
        RecipeNode::Inline { dtype, shape, data } => {
            let mut hex = String::with_capacity(2 * data.len());
            for byte in data {
                let _ = write!(hex, "{byte:02x}");
            }
            format!("inline({}, \"{hex}\")", constant_type(*dtype, shape))
        }
        RecipeNode::Splat {
            dtype,
            shape,
            value,
        } => {
            format!("splat({}, {value})", constant_type(*dtype, shape))
        }
        RecipeNode::Slice { of, starts, sizes } => {
            format!("slice({}, {}, {})", take(*of), ints(starts), ints(sizes))
        }
        RecipeNode::Permute { of, order } => format!("permute({}, {})", take(*of), ints(order)),
        RecipeNode::Reshape { of, shape } => format!("reshape({}, {})", take(*of), ints(shape)),
        RecipeNode::Concat { of, axis } => {
            let of: Vec<String> = of.iter().map(|of| format!(", {}", take(*of))).collect();
            format!("concat({axis}{})", of.concat())
        }
        RecipeNode::Pad {
            of,
            low,
            high,
            value,
        } => {
            format!("pad({}, {}, {}, {value})", take(*of), ints(low), ints(high))
        }
        RecipeNode::Scale { of, by, axis } => {
            format!("scale({}, {}, {axis})", take(*of), take(*by))
        }
        RecipeNode::Convert { of, to } => format!("convert({}, {to})", take(*of)),
    }
}
