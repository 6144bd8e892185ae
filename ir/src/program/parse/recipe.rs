//! Recipes.

use bytes::Bytes;
use dojoc_grammar::{ExprId, ExprKind};

use super::Context;
use super::expr::MAX_DEPTH;
use crate::attr::{F64, Number};
use crate::codes;
use crate::program::{Recipe, RecipeNode};
use crate::types::DType;

/// Forms of nodes, for messages.
const FORMS: [(&str, &str); 10] = [
    ("file", "file(\"path\", offset, type)"),
    ("inline", "inline(type, \"hexadecimal bytes\")"),
    ("splat", "splat(type, number)"),
    ("slice", "slice(recipe, [starts], [sizes])"),
    ("permute", "permute(recipe, [order])"),
    ("reshape", "reshape(recipe, [extents])"),
    ("concat", "concat(axis, recipe, ..)"),
    ("pad", "pad(recipe, [low], [high], number)"),
    ("scale", "scale(recipe, factors, axis)"),
    ("convert", "convert(recipe, type)"),
];

impl Context<'_> {
    /// A recipe.
    pub(super) fn recipe(&self, id: ExprId) -> Option<Recipe> {
        let mut nodes = vec![];
        self.recipe_node(id, &mut nodes, 0)?;
        Some(Recipe { nodes })
    }

    /// Appends the nodes of an expression and returns the position of the last.
    fn recipe_node(&self, id: ExprId, nodes: &mut Vec<RecipeNode>, depth: usize) -> Option<u32> {
        let span = self.tree[id].span;
        if depth > MAX_DEPTH {
            return self.error(
                codes::BAD_DECLARATION,
                span,
                "the recipe is nested too deeply",
            );
        }
        let ExprKind::Call { name, args } = self.tree[id].kind else {
            let message = "expected a recipe, such as `file(\"w.bin\", 0, f32[2, 3])`";
            return self.error(codes::BAD_DECLARATION, span, message);
        };
        let (name, args) = (&self.tree[name], &self.tree[args]);
        let node = match (name, args) {
            ("file" | "inline" | "splat" | "permute" | "reshape" | "convert", [..])
            | ("slice" | "pad", [..]) => self.unary(id, name, args, nodes, depth)?,
            ("concat", [axis, of @ ..]) => {
                let of = of.iter().map(|of| self.recipe_node(*of, nodes, depth + 1));
                let of = of.collect::<Option<_>>()?;
                RecipeNode::Concat {
                    of,
                    axis: self.small(*axis)?,
                }
            }
            ("scale", [of, by, axis]) => RecipeNode::Scale {
                of: self.recipe_node(*of, nodes, depth + 1)?,
                by: self.recipe_node(*by, nodes, depth + 1)?,
                axis: self.small(*axis)?,
            },
            _ => return self.recipe_form(id, name),
        };
        nodes.push(node);
        Some(nodes.len() as u32 - 1)
    }

    /// Reports that a node has another form.
    fn recipe_form<T>(&self, id: ExprId, name: &str) -> Option<T> {
        let message = match FORMS.iter().find(|(word, _)| *word == name) {
            Some((_, form)) => format!("expected `{form}`"),
            None => {
                let words: Vec<&str> = FORMS.iter().map(|(word, _)| *word).collect();
                format!(
                    "there is no recipe `{name}`: there are {}",
                    words.join(", ")
                )
            }
        };
        self.error(codes::BAD_DECLARATION, self.tree[id].span, message)
    }

    /// A node with at most one operand.
    fn unary(
        &self,
        id: ExprId,
        name: &str,
        args: &[ExprId],
        nodes: &mut Vec<RecipeNode>,
        depth: usize,
    ) -> Option<RecipeNode> {
        Some(match (name, args) {
            ("file", [file, offset, ty]) => {
                let (file, offset) = (self.string(*file)?.into(), self.uint(*offset)?);
                let (dtype, shape) = self.constant_type(*ty)?;
                RecipeNode::File {
                    file,
                    offset,
                    dtype,
                    shape,
                }
            }
            ("inline", [ty, digits]) => {
                let (dtype, shape) = self.constant_type(*ty)?;
                RecipeNode::Inline {
                    dtype,
                    shape,
                    data: self.hex(*digits)?,
                }
            }
            ("splat", [ty, value]) => {
                let (dtype, shape) = self.constant_type(*ty)?;
                RecipeNode::Splat {
                    dtype,
                    shape,
                    value: self.number(*value)?,
                }
            }
            (_, [of, rest @ ..]) => {
                let of = self.recipe_node(*of, nodes, depth + 1)?;
                match (name, rest) {
                    ("slice", [starts, sizes]) => {
                        let (starts, sizes) = (self.uints(*starts)?, self.uints(*sizes)?);
                        RecipeNode::Slice { of, starts, sizes }
                    }
                    ("permute", [order]) => RecipeNode::Permute {
                        of,
                        order: self.smalls(*order)?,
                    },
                    ("reshape", [shape]) => RecipeNode::Reshape {
                        of,
                        shape: self.uints(*shape)?,
                    },
                    ("pad", [low, high, value]) => {
                        let (low, high) = (self.uints(*low)?, self.uints(*high)?);
                        RecipeNode::Pad {
                            of,
                            low,
                            high,
                            value: self.number(*value)?,
                        }
                    }
                    ("convert", [to]) => RecipeNode::Convert {
                        of,
                        to: self.dtype(*to)?,
                    },
                    _ => return self.recipe_form(id, name),
                }
            }
            _ => return self.recipe_form(id, name),
        })
    }

    fn dtype(&self, id: ExprId) -> Option<DType> {
        let found = match self.tree[id].kind {
            ExprKind::Ident(word) => DType::parse(&self.tree[word]),
            _ => None,
        };
        if found.is_none() {
            return self.error(
                codes::BAD_TYPE,
                self.tree[id].span,
                "expected an element type",
            );
        }
        found
    }

    fn number(&self, id: ExprId) -> Option<Number> {
        match self.tree[id].kind {
            ExprKind::Int(value) => Some(Number::Int(value.into())),
            ExprKind::Uint(value) => Some(Number::Int(value.into())),
            ExprKind::Float(value) => Some(Number::Float(F64(value))),
            ExprKind::FloatBits { bits, width: 64 } => {
                Some(Number::Float(F64(f64::from_bits(bits))))
            }
            _ => self.error(
                codes::BAD_DECLARATION,
                self.tree[id].span,
                "expected a number",
            ),
        }
    }

    fn hex(&self, id: ExprId) -> Option<Bytes> {
        let text = self.string(id)?.as_bytes();
        let digit = |byte: u8| (byte as char).to_digit(16).map(|d| d as u8);
        let bytes = text.chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        match bytes.collect::<Option<Vec<u8>>>() {
            Some(bytes) => Some(bytes.into()),
            None => {
                let message = "expected an even number of hexadecimal digits";
                self.error(codes::BAD_DECLARATION, self.tree[id].span, message)
            }
        }
    }
}
