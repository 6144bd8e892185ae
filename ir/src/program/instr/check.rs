//! What the checks of operands have in common.
//!
//! Messages are ends of sentences that begin with the instruction, and name the operand.

use crate::attr::{Number, number_fits};
use crate::program::{MAX_VIEW_RANK, Packing, ViewType};
use crate::types::{Class, DType};

/// Outcome of a check.
pub(super) type Checked = Result<(), String>;

/// Element types that can be computed with. f64 is not among the floats: it can be moved and
/// converted only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// f32, bf16, f16.
    Float,
    /// Integers of any width.
    Int,
    /// Truth values.
    Bool,
}

impl Kind {
    /// Whether an element type is of the kind.
    pub fn has(self, dtype: DType) -> bool {
        match self {
            Self::Float => matches!(dtype, DType::F32 | DType::Bf16 | DType::F16),
            Self::Int => dtype.is_int(),
            Self::Bool => dtype == DType::Bool,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Float => "f32, bf16, f16",
            Self::Int => "integers",
            Self::Bool => "bool",
        }
    }
}

/// An operand with its name.
#[derive(Clone, Copy)]
pub(super) struct Arg<'a> {
    pub name: &'static str,
    pub ty: &'a ViewType,
}

/// The operands by name, none of them packed.
pub(super) fn strided<'a, const N: usize>(
    names: [&'static str; N],
    operands: &'a [ViewType],
) -> Result<[Arg<'a>; N], String> {
    let args = any_layout(names, operands)?;
    for arg in args {
        arg.strided()?;
    }
    Ok(args)
}

/// The operands by name.
pub(super) fn any_layout<'a, const N: usize>(
    names: [&'static str; N],
    operands: &'a [ViewType],
) -> Result<[Arg<'a>; N], String> {
    let types: &[ViewType; N] = operands
        .try_into()
        .map_err(|_| format!("has {N} operands, found {}", operands.len()))?;
    let args = std::array::from_fn(|i| Arg {
        name: names[i],
        ty: &types[i],
    });
    for arg in &args {
        arg.sound()?;
    }
    Ok(args)
}

impl<'a> Arg<'a> {
    /// Itself, if it has as many strides as extents and a rank that views can have.
    pub fn sound(self) -> Result<Self, String> {
        let Self { name, ty } = self;
        let rank = ty.shape.len();
        if rank > MAX_VIEW_RANK {
            return Err(format!(
                "takes `{name}` with at most {MAX_VIEW_RANK} dimensions, found {rank}"
            ));
        }
        if ty.strides.len() != rank {
            let found = ty.strides.len();
            return Err(format!(
                "needs one stride for each of the {rank} dimensions of `{name}`, found {found}"
            ));
        }
        if ty.packing != Packing::Strided && rank < 2 {
            return Err(format!(
                "needs at least 2 dimensions in `{name}`, which is {}, found {rank}",
                packing_name(ty.packing)
            ));
        }
        Ok(self)
    }

    /// Not packed.
    pub fn strided(self) -> Checked {
        if self.ty.packing == Packing::Strided {
            return Ok(());
        }
        Err(format!(
            "takes `{}` strided, found {} (only `mm` and `copy` take packed views)",
            self.name,
            packing_name(self.ty.packing)
        ))
    }

    /// Every element has a place of its own, as it must where the operand is written.
    pub fn written(self) -> Checked {
        if self.ty.distinct_places() {
            return Ok(());
        }
        Err(format!(
            "writes `{}`, whose elements are not all apart: extents {:?}, strides {:?} bytes",
            self.name, self.ty.shape, self.ty.strides
        ))
    }

    /// The extents.
    pub fn shape(self) -> &'a [u64] {
        &self.ty.shape
    }

    /// The number of dimensions.
    pub fn rank(self) -> usize {
        self.ty.shape.len()
    }

    /// Of one of these kinds.
    pub fn of_kind(self, kinds: &[Kind]) -> Checked {
        if kinds.iter().any(|kind| kind.has(self.ty.dtype)) {
            return Ok(());
        }
        let names: Vec<&str> = kinds.iter().map(|kind| kind.text()).collect();
        Err(self.wrong_type(&names.join(", ")))
    }

    /// Of one of these element types.
    pub fn of_type(self, dtypes: &[DType]) -> Checked {
        if dtypes.contains(&self.ty.dtype) {
            return Ok(());
        }
        let names: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
        Err(self.wrong_type(&names.join(", ")))
    }

    fn wrong_type(self, allowed: &str) -> String {
        format!(
            "does not take `{}` of element type {}, but of: {allowed}",
            self.name, self.ty.dtype
        )
    }

    /// Of the same element type.
    pub fn typed_as(self, other: Self) -> Checked {
        if self.ty.dtype == other.ty.dtype {
            return Ok(());
        }
        Err(format!(
            "needs `{}` of the element type of `{}`, {}, found {}",
            self.name, other.name, other.ty.dtype, self.ty.dtype
        ))
    }

    /// Of the same extents.
    pub fn shaped_as(self, other: Self) -> Checked {
        if self.ty.shape == other.ty.shape {
            return Ok(());
        }
        Err(format!(
            "needs `{}` of the extents of `{}`, {:?}, found {:?}",
            self.name, other.name, other.ty.shape, self.ty.shape
        ))
    }

    /// Of the same element type and extents.
    pub fn like(self, other: Self) -> Checked {
        self.typed_as(other)?;
        self.shaped_as(other)
    }

    /// Of these extents; `why` says where they come from.
    pub fn shaped(self, expected: impl IntoIterator<Item = u64> + Clone, why: &str) -> Checked {
        if expected
            .clone()
            .into_iter()
            .eq(self.ty.shape.iter().copied())
        {
            return Ok(());
        }
        let expected: Vec<u64> = expected.into_iter().collect();
        Err(format!(
            "needs `{}` of extents {expected:?}, {why}, found {:?}",
            self.name, self.ty.shape
        ))
    }

    /// At least this many dimensions.
    pub fn rank_at_least(self, least: usize) -> Checked {
        if self.rank() >= least {
            return Ok(());
        }
        Err(format!(
            "needs `{}` with at least {least} dimension{}, found {}",
            self.name,
            if least == 1 { "" } else { "s" },
            self.rank()
        ))
    }

    /// One element, such as an exponent bias.
    pub fn one_element(self) -> Checked {
        if self.ty.elements() == 1 {
            return Ok(());
        }
        Err(format!(
            "needs `{}` of one element, found extents {:?}",
            self.name, self.ty.shape
        ))
    }

    /// Positions below `extent`: i32 or i64, wide enough.
    pub fn positions(self, extent: u64) -> Checked {
        self.of_type(&[DType::I32, DType::I64])?;
        let greatest = self.ty.dtype.int_range().map_or(0, |(_, high)| high);
        if i128::from(extent) <= greatest + 1 {
            return Ok(());
        }
        Err(format!(
            "needs `{}` of element type i64 for positions below {extent}",
            self.name
        ))
    }

    /// Whether an attribute is a number of this operand's element type.
    pub fn holds(self, attribute: &str, value: Number) -> Checked {
        let dtype = self.ty.dtype;
        if number_fits(value, dtype) {
            return Ok(());
        }
        if dtype.class() == Class::Configurable {
            return Err(format!(
                "cannot write the number `{attribute}` to `{}`, whose element type {dtype} has values \
                 only together with an exponent bias",
                self.name
            ));
        }
        Err(format!(
            "has `{attribute}` {value}, which is no {dtype}, the element type of `{}`",
            self.name
        ))
    }
}

/// The extents but the last, and the last.
pub(super) fn last_dimension(arg: Arg<'_>) -> Result<(&[u64], u64), String> {
    arg.rank_at_least(1)?;
    let (last, outer) = arg.shape().split_last().unwrap_or((&0, &[]));
    Ok((outer, *last))
}

fn packing_name(packing: Packing) -> &'static str {
    Packing::ALL
        .iter()
        .find(|(p, _)| *p == packing)
        .map_or("", |(_, name)| name)
}
