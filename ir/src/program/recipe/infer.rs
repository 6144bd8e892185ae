//! Types of recipes.

use super::{MAX_RECIPE_DEPTH, Recipe, RecipeNode};
use crate::attr::{Number, number_fits};
use crate::types::{Class, DType, MAX_RANK, Type};

/// Element type and extents.
pub(super) type NodeType = (DType, Vec<u64>);

impl Recipe {
    /// Element type and extents of the value. Nothing overflows, and memory is bounded by the size
    /// of the recipe.
    ///
    /// # Errors
    /// The first node that is not in postorder or whose operands do not fit, as a sentence.
    pub fn infer(&self) -> Result<(DType, Vec<u64>), String> {
        self.types()?
            .pop()
            .ok_or_else(|| "the recipe is empty".into())
    }

    /// Whether the nodes are a tree in postorder, not deeper than [`MAX_RECIPE_DEPTH`].
    ///
    /// # Errors
    /// The first node that is not in its place, as a sentence.
    pub fn check_tree(&self) -> Result<(), String> {
        let mut depths: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut waiting: Vec<u32> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let operands = node.operands();
            let rest = waiting.len().checked_sub(operands.len());
            let Some(rest) = rest.filter(|rest| waiting[*rest..] == operands[..]) else {
                return Err(format!(
                    "{} does not take the values directly before it: recipes are trees in postorder",
                    step(at, node)
                ));
            };
            waiting.truncate(rest);
            waiting.push(u32::try_from(at).map_err(|_| "the recipe is too long".to_owned())?);
            let deepest = operands.iter().map(|o| depths[*o as usize]).max();
            depths.push(deepest.map_or(1, |depth| depth + 1));
            if depths[at] > MAX_RECIPE_DEPTH {
                return Err(format!(
                    "{} is nested deeper than {MAX_RECIPE_DEPTH} steps",
                    step(at, node)
                ));
            }
        }
        match waiting[..] {
            [] => Err("the recipe is empty".into()),
            [_] => Ok(()),
            [unused, ..] => Err(format!("the value of step {unused} is not used")),
        }
    }

    /// Types of all nodes, of which there is at least one; each is addressable.
    pub(super) fn types(&self) -> Result<Vec<NodeType>, String> {
        self.check_tree()?;
        let mut types: Vec<NodeType> = Vec::with_capacity(self.nodes.len());
        for (at, node) in self.nodes.iter().enumerate() {
            let operands = node.operands();
            let of: Vec<&NodeType> = operands.iter().map(|o| &types[*o as usize]).collect();
            let wrong = |why: String| format!("{} {why}", step(at, node));
            let ty = infer(node, &of).map_err(wrong)?;
            check_size(&ty).map_err(wrong)?;
            types.push(ty);
        }
        Ok(types)
    }
}

fn step(at: usize, node: &RecipeNode) -> String {
    format!("step {at}, `{}`,", node.mnemonic())
}

fn check_size((dtype, shape): &NodeType) -> Result<(), String> {
    if shape.len() > MAX_RANK || !Type::of(*dtype, shape).addressable() {
        let rank = shape.len();
        return Err(format!(
            "makes a tensor of rank {rank} that is too large to address"
        ));
    }
    Ok(())
}

/// Bytes of an addressable type.
pub(super) fn bytes(dtype: DType, shape: &[u64]) -> u64 {
    shape.iter().product::<u64>() * dtype.bytes()
}

/// A splat or padding value: a number of the type's kind, or a code of a configurable format.
fn check_number(value: Number, dtype: DType) -> Result<(), String> {
    let code = match value {
        Number::Int(i) => {
            dtype.class() == Class::Configurable && (0..1 << (8 * dtype.bytes())).contains(&i)
        }
        Number::Float(_) => false,
    };
    if code || number_fits(value, dtype) {
        Ok(())
    } else {
        Err(format!("has the number {value}, which is not a {dtype}"))
    }
}

fn same_rank(what: &str, found: usize, shape: &[u64]) -> Result<(), String> {
    if found == shape.len() {
        Ok(())
    } else {
        Err(format!("has {found} {what} for a rank of {}", shape.len()))
    }
}

fn infer(node: &RecipeNode, operands: &[&NodeType]) -> Result<NodeType, String> {
    // Leaves come first; every other node has at least one operand, `concat` by its own check.
    match (node, operands) {
        (
            RecipeNode::File {
                offset,
                dtype,
                shape,
                ..
            },
            _,
        ) => {
            let ty = (*dtype, shape.clone());
            check_size(&ty)?;
            match offset.checked_add(bytes(*dtype, shape)) {
                Some(_) => Ok(ty),
                None => Err(format!("begins at byte {offset} of its file")),
            }
        }
        (RecipeNode::Inline { dtype, shape, data }, _) => {
            let ty = (*dtype, shape.clone());
            check_size(&ty)?;
            let (found, expected) = (data.len(), bytes(*dtype, shape));
            if found as u64 != expected {
                return Err(format!("has {found} bytes where its type has {expected}"));
            }
            Ok(ty)
        }
        (
            RecipeNode::Splat {
                dtype,
                shape,
                value,
            },
            _,
        ) => {
            check_number(*value, *dtype)?;
            Ok((*dtype, shape.clone()))
        }
        (RecipeNode::Slice { starts, sizes, .. }, [(dtype, shape), ..]) => {
            same_rank("starts", starts.len(), shape)?;
            same_rank("sizes", sizes.len(), shape)?;
            for (d, extent) in shape.iter().enumerate() {
                let (start, size) = (starts[d], sizes[d]);
                if start.checked_add(size).is_none_or(|end| end > *extent) {
                    return Err(format!(
                        "takes {size} elements from {start} on of the {extent} of dimension {d}"
                    ));
                }
            }
            Ok((*dtype, sizes.clone()))
        }
        (RecipeNode::Permute { order, .. }, [(dtype, shape), ..]) => {
            same_rank("dimensions", order.len(), shape)?;
            let mut seen = vec![false; shape.len()];
            for d in order {
                match seen.get_mut(*d as usize) {
                    Some(seen) if !*seen => *seen = true,
                    _ => return Err(format!("has an order that is no permutation: {order:?}")),
                }
            }
            let permuted = order.iter().map(|d| shape[*d as usize]).collect();
            Ok((*dtype, permuted))
        }
        (RecipeNode::Reshape { shape: to, .. }, [(dtype, shape), ..]) => {
            let ty = (*dtype, to.clone());
            check_size(&ty)?;
            if bytes(*dtype, to) != bytes(*dtype, shape) {
                return Err(format!("makes {to:?} of {shape:?}"));
            }
            Ok(ty)
        }
        (RecipeNode::Concat { axis, .. }, [first, ..]) => concat(*axis as usize, first, operands),
        (
            RecipeNode::Pad {
                low, high, value, ..
            },
            [(dtype, shape), ..],
        ) => {
            same_rank("low margins", low.len(), shape)?;
            same_rank("high margins", high.len(), shape)?;
            check_number(*value, *dtype)?;
            let extents = shape.iter().zip(low.iter().zip(high));
            let padded =
                extents.map(|(extent, (low, high))| low.checked_add(*high)?.checked_add(*extent));
            match padded.collect() {
                Some(padded) => Ok((*dtype, padded)),
                None => Err("makes an extent beyond 64 bits".into()),
            }
        }
        (RecipeNode::Scale { axis, .. }, [of, by]) => {
            let (dtype, shape) = of;
            let extent = shape.get(*axis as usize);
            if !dtype.is_float() {
                return Err(format!("scales {dtype}, which is no float"));
            }
            if by.0 != *dtype || extent.is_none_or(|extent| by.1 != [*extent]) {
                return Err(format!(
                    "scales dimension {axis} of {dtype}{shape:?} by {}{:?}",
                    by.0, by.1
                ));
            }
            Ok((*dtype, shape.clone()))
        }
        (RecipeNode::Convert { to, .. }, [(dtype, shape), ..]) => {
            for configurable in [dtype, to] {
                if configurable.class() == Class::Configurable {
                    return Err(format!(
                        "converts {configurable}, which has values only together with an exponent bias"
                    ));
                }
            }
            Ok((*to, shape.clone()))
        }
        _ => Err("has no operands".into()),
    }
}

fn concat(axis: usize, first: &NodeType, operands: &[&NodeType]) -> Result<NodeType, String> {
    let (dtype, mut shape) = first.clone();
    if axis >= shape.len() {
        return Err(format!("joins dimension {axis} of {dtype}{shape:?}"));
    }
    let mut extent = 0u64;
    for (other, other_shape) in operands {
        let fits = other_shape.len() == shape.len()
            && (0..shape.len()).all(|d| d == axis || other_shape[d] == shape[d]);
        if *other != dtype || !fits {
            return Err(format!(
                "joins {dtype}{shape:?} and {other}{other_shape:?} along dimension {axis}"
            ));
        }
        extent = extent
            .checked_add(other_shape[axis])
            .ok_or("makes an extent beyond 64 bits")?;
    }
    shape[axis] = extent;
    Ok((dtype, shape))
}
