//! Reductions, scans, positions of extrema.

use super::check::{Kind, last_dimension, strided};
use super::{Access, Cost, InstrDef, InstrInfo, Role, function_struct, functions};
use crate::attr::{AttrError, AttrSpec, Attrs, Flag};
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::DType;

functions! {
    /// Reductions.
    ReduceFunction {
        /// The sum; 0 of nothing.
        Sum "reduce.sum",
        /// The product; 1 of nothing.
        Prod "reduce.prod",
        /// The smallest, as `min`; the largest number (Inf) of nothing.
        Min "reduce.min",
        /// The largest, as `max`; the smallest number (-Inf) of nothing.
        Max "reduce.max",
        /// All, for bool; 1 of nothing.
        And "reduce.and",
        /// Any, for bool; 0 of nothing.
        Or "reduce.or",
    }
}

function_struct! {
    /// `reduce.sum y, x` and the like: y `[outer..]` is the reduction of x `[outer.., inner..]` over its
    /// last `dims` dimensions, at least one, counted row-major. x is f32, bf16, f16, an integer
    /// (wrapping) or, for `and` and `or`, bool; y has the same type, or is f32 where x is bf16 or f16. Computed in f32 for
    /// 16-bit floats and rounded once. The order of combination is that of the runtime's `kernels`:
    /// 32 lanes, then a tree. With `accumulate`, y is combined with the result: `f(y, result)`.
    Reduce(ReduceFunction) {
        /// How many of the innermost dimensions are reduced.
        dims: usize,
        /// Combine with what y holds.
        accumulate: Flag,
    }
}

impl InstrDef for Reduce {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &ReduceFunction| InstrInfo {
            mnemonic: function.name(),
            family: "reduce",
            doc: function.doc(),
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        };
        ReduceFunction::ALL.iter().map(info).collect()
    }

    fn mnemonic(&self) -> &'static str {
        self.function.name()
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        let function = ReduceFunction::from_name(mnemonic);
        Self::parse_fields(function, attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        let access = if *self.accumulate {
            Access::Update
        } else {
            Access::Write
        };
        vec![Role { name: "y", access }, Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = strided(["y", "x"], operands)?;
        let kept = x.rank().checked_sub(self.dims).filter(|_| self.dims > 0);
        let Some(kept) = kept else {
            let (dims, rank) = (self.dims, x.rank());
            return Err(format!(
                "reduces {dims} dimensions of `x`, which has {rank}"
            ));
        };
        x.of_kind(match self.function {
            ReduceFunction::And | ReduceFunction::Or => &[Kind::Bool],
            _ => &[Kind::Float, Kind::Int],
        })?;
        let widened = y.ty.dtype == DType::F32 && matches!(x.ty.dtype, DType::Bf16 | DType::F16);
        if !widened {
            y.typed_as(x)?;
        }
        y.shaped(
            x.shape()[..kept].iter().copied(),
            "those of `x` that are kept",
        )?;
        y.written()
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

functions! {
    /// Positions of extrema.
    ArgFunction {
        /// Position of the largest; the first NaN if there is one.
        ArgMax "argmax",
        /// Position of the smallest; the first NaN if there is one.
        ArgMin "argmin",
    }
}

function_struct! {
    /// `argmax y, x`: y `[outer..]`, i32 or i64, is the position of the extremum of x `[outer.., n]` along
    /// its last dimension, n > 0; the first of several equal ones, or the last. f32,
    /// bf16, f16 and integers.
    ArgReduce(ArgFunction) {
        /// Take the last of several equal ones.
        last: Flag,
    }
}

impl InstrDef for ArgReduce {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &ArgFunction| InstrInfo {
            mnemonic: function.name(),
            family: "reduce",
            doc: function.doc(),
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        };
        ArgFunction::ALL.iter().map(info).collect()
    }

    fn mnemonic(&self) -> &'static str {
        self.function.name()
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        let function = ArgFunction::from_name(mnemonic);
        Self::parse_fields(function, attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = strided(["y", "x"], operands)?;
        let (y_shape, n) = last_dimension(x)?;
        x.of_kind(&[Kind::Float, Kind::Int])?;
        if n == 0 {
            return Err("needs at least one element along the last dimension of `x`".into());
        }
        y.positions(n)?;
        y.shaped(y_shape.iter().copied(), "those of `x` but the last")?;
        y.written()
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

functions! {
    /// Running reductions.
    ScanFunction {
        /// Running sum.
        Sum "scan.sum",
        /// Running product.
        Prod "scan.prod",
        /// Running maximum, as `max`.
        Max "scan.max",
        /// Running minimum, as `min`.
        Min "scan.min",
    }
}

function_struct! {
    /// `scan.sum y, x`: y[.., i] combines x[.., 0..=i] in ascending order. Same extents and type,
    /// f32, bf16, f16 and integers; 16-bit floats are carried in f32 and rounded for each element.
    Scan(ScanFunction) {
        /// Leave out element i itself, starting from the identity.
        exclusive: Flag,
        /// From the last element to the first.
        reverse: Flag,
    }
}

impl InstrDef for Scan {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &ScanFunction| InstrInfo {
            mnemonic: function.name(),
            family: "reduce",
            doc: function.doc(),
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        };
        ScanFunction::ALL.iter().map(info).collect()
    }

    fn mnemonic(&self) -> &'static str {
        self.function.name()
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        let function = ScanFunction::from_name(mnemonic);
        Self::parse_fields(function, attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = strided(["y", "x"], operands)?;
        x.of_kind(&[Kind::Float, Kind::Int])?;
        x.rank_at_least(1)?;
        y.like(x)?;
        y.written()
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}
