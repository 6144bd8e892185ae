//! Element-wise arithmetic on views.

use super::check::{Arg, Kind, strided};
use super::{Cost, InstrDef, InstrInfo, Role, function_struct, functions, instr_struct};
use crate::attr::{AttrError, AttrSpec, Attrs, Number};
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::DType;

/// Result and first operand of an instruction of two operands, the second of which, unless it is a
/// number, must be like the first.
fn result_and_first(
    value: Option<Number>,
    operands: &[ViewType],
) -> Result<(Arg<'_>, Arg<'_>), String> {
    let (y, a) = if value.is_some() {
        let [y, a] = strided(["y", "a"], operands)?;
        (y, a)
    } else {
        let [y, a, b] = strided(["y", "a", "b"], operands)?;
        b.like(a)?;
        (y, a)
    };
    y.written()?;
    Ok((y, a))
}

functions! {
    /// Functions of one element.
    MapFunction {
        /// -x.
        Neg "neg",
        /// |x|.
        Abs "abs",
        /// max(x, 0).
        Relu "relu",
        /// e^x.
        Exp "exp",
        /// Natural logarithm.
        Log "log",
        /// Hyperbolic tangent.
        Tanh "tanh",
        /// 1 / (1 + e^-x).
        Sigmoid "sigmoid",
        /// x / (1 + e^-x).
        Silu "silu",
        /// Error function.
        Erf "erf",
        /// x/2 * (1 + erf(x / sqrt 2)).
        Gelu "gelu",
        /// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
        GeluTanh "gelu_tanh",
        /// 1 / sqrt(x).
        Rsqrt "rsqrt",
        /// Square root.
        Sqrt "sqrt",
        /// 1 / x.
        Recip "recip",
        /// Sine of x in radians.
        Sin "sin",
        /// Cosine of x in radians.
        Cos "cos",
        /// The largest integer that is not above x.
        Floor "floor",
        /// The smallest integer that is not below x.
        Ceil "ceil",
        /// The nearest integer, ties to even.
        Round "round",
        /// Not x, for bool; all bits flipped, for integers.
        Not "not",
    }
}

impl MapFunction {
    /// What it takes.
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Neg | Self::Abs => &[Kind::Float, Kind::Int],
            Self::Not => &[Kind::Bool, Kind::Int],
            _ => &[Kind::Float],
        }
    }
}

function_struct! {
    /// `exp y, x` and the like: y = f(x) for every element. y and x have the same extents and element
    /// type: f32, bf16 or f16; `neg` and `abs` also integers (wrapping), `not` bool and integers only.
    /// bf16 and f16 are computed in f32 and rounded once. Errors are those of the runtime's `kernels`.
    Map(MapFunction) {}
}

impl InstrDef for Map {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &MapFunction| InstrInfo {
            mnemonic: function.name(),
            family: "vector",
            doc: function.doc(),
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        };
        MapFunction::ALL.iter().map(info).collect()
    }

    fn mnemonic(&self) -> &'static str {
        self.function.name()
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        let function = MapFunction::from_name(mnemonic);
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
        x.of_kind(self.function.kinds())?;
        y.written()?;
        y.like(x)
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

functions! {
    /// Functions of two elements.
    ZipFunction {
        /// a + b.
        Add "add",
        /// a - b.
        Sub "sub",
        /// a * b.
        Mul "mul",
        /// a / b; for integers towards zero, and 0 for a divisor of 0.
        Div "div",
        /// The remainder of `div` for integers, with the sign of a; 0 for a divisor of 0.
        Rem "rem",
        /// The smaller; NaN if either is NaN; of two zeros the negative one.
        Min "min",
        /// The larger; NaN if either is NaN; of two zeros the positive one.
        Max "max",
        /// a to the power of b, for floats.
        Pow "pow",
        /// Both, for bool; bit by bit, for integers.
        And "and",
        /// Either, for bool; bit by bit, for integers.
        Or "or",
        /// One of both, for bool; bit by bit, for integers.
        Xor "xor",
        /// a shifted left by b bits, for integers; 0 for b outside the width.
        Shl "shl",
        /// a shifted right by b bits, for integers, with the sign of a; by the width (0, or -1 for negative a) for b outside it.
        Shr "shr",
    }
}

impl ZipFunction {
    /// What it takes.
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Min | Self::Max => {
                &[Kind::Float, Kind::Int]
            }
            Self::Pow => &[Kind::Float],
            Self::Rem | Self::Shl | Self::Shr => &[Kind::Int],
            Self::And | Self::Or | Self::Xor => &[Kind::Bool, Kind::Int],
        }
    }
}

function_struct! {
    /// `add y, a, b` and the like: y = f(a, b) for every element, or y = f(a, value). All have the
    /// same extents (repeat elements by strides of zero) and element type: f32, bf16, f16 or any
    /// integer (wrapping) for `add`, `sub`, `mul`, `div`, `min`, `max`; a float for `pow`; an integer
    /// for `rem`, `shl`, `shr`; bool or an integer for `and`, `or`, `xor`.
    Zip(ZipFunction) {
        /// The second operand, if it is a number; then there is no operand b.
        value: Option<Number>,
    }
}

impl InstrDef for Zip {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &ZipFunction| InstrInfo {
            mnemonic: function.name(),
            family: "vector",
            doc: function.doc(),
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        };
        ZipFunction::ALL.iter().map(info).collect()
    }

    fn mnemonic(&self) -> &'static str {
        self.function.name()
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        let function = ZipFunction::from_name(mnemonic);
        Self::parse_fields(function, attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        let mut roles = vec![Role::write("y"), Role::read("a")];
        if self.value.is_none() {
            roles.push(Role::read("b"));
        }
        roles
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let (y, a) = result_and_first(self.value, operands)?;
        a.of_kind(self.function.kinds())?;
        if let Some(value) = self.value {
            a.holds("value", value)?;
        }
        y.like(a)
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

instr_struct! {
    /// `fma y, a, b, c`: y = a * b + c for every element, rounded once in f32 and, for bf16 and f16,
    /// once more to the type. Same extents and element type: f32, bf16 or f16.
    MulAdd {}
}

impl InstrDef for MulAdd {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "fma",
            family: "vector",
            doc: "y = a * b + c",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "fma"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        vec![
            Role::write("y"),
            Role::read("a"),
            Role::read("b"),
            Role::read("c"),
        ]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, a, b, c] = strided(["y", "a", "b", "c"], operands)?;
        a.of_kind(&[Kind::Float])?;
        y.written()?;
        y.like(a)?;
        b.like(a)?;
        c.like(a)
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

instr_struct! {
    /// `clamp y, x`: y = min(max(x, low), high). f32, bf16, f16 and integers.
    Clamp {
        /// The lower limit.
        low: Number,
        /// The upper limit.
        high: Number,
    }
}

impl InstrDef for Clamp {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "clamp",
            family: "vector",
            doc: "y = min(max(x, low), high)",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "clamp"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
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
        x.holds("low", self.low)?;
        x.holds("high", self.high)?;
        y.written()?;
        y.like(x)
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

functions! {
    /// Comparisons; with a NaN operand only `ne` holds.
    CompareFunction {
        /// a = b.
        Eq "eq",
        /// a is not b.
        Ne "ne",
        /// a < b.
        Lt "lt",
        /// a <= b.
        Le "le",
        /// a > b.
        Gt "gt",
        /// a >= b.
        Ge "ge",
    }
}

function_struct! {
    /// `lt y, a, b` and the like: y = 1 where it holds, else 0. y is bool; a and b have its extents
    /// and one element type: f32, bf16, f16, an integer, or bool.
    Compare(CompareFunction) {
        /// The second operand, if it is a number; then there is no operand b.
        value: Option<Number>,
    }
}

impl InstrDef for Compare {
    fn infos() -> Vec<InstrInfo> {
        let info = |function: &CompareFunction| InstrInfo {
            mnemonic: function.name(),
            family: "vector",
            doc: function.doc(),
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        };
        CompareFunction::ALL.iter().map(info).collect()
    }

    fn mnemonic(&self) -> &'static str {
        self.function.name()
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        let function = CompareFunction::from_name(mnemonic);
        Self::parse_fields(function, attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        let mut roles = vec![Role::write("y"), Role::read("a")];
        if self.value.is_none() {
            roles.push(Role::read("b"));
        }
        roles
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let (y, a) = result_and_first(self.value, operands)?;
        a.of_kind(&[Kind::Float, Kind::Int, Kind::Bool])?;
        if let Some(value) = self.value {
            a.holds("value", value)?;
        }
        y.of_kind(&[Kind::Bool])?;
        y.shaped_as(a)
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

instr_struct! {
    /// `select y, mask, a, b`: y = a where the bool mask holds, else b. Any element type; bits are
    /// kept.
    Select {}
}

impl InstrDef for Select {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "select",
            family: "vector",
            doc: "y = mask ? a : b",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "select"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        vec![
            Role::write("y"),
            Role::read("mask"),
            Role::read("a"),
            Role::read("b"),
        ]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, mask, a, b] = strided(["y", "mask", "a", "b"], operands)?;
        mask.of_kind(&[Kind::Bool])?;
        y.written()?;
        y.like(a)?;
        b.like(a)?;
        mask.shaped_as(a)
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

instr_struct! {
    /// `fill y`: y = value everywhere. Any element type of fixed meaning.
    Fill {
        /// The number.
        value: Number,
    }
}

impl InstrDef for Fill {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "fill",
            family: "vector",
            doc: "y = value",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "fill"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y] = strided(["y"], operands)?;
        y.holds("value", self.value)?;
        y.written()
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}

instr_struct! {
    /// `iota y`: y = start + step * (index along `axis`), wrapping; `start` is a scalar of the
    /// address generators. Integers and f32.
    Iota {
        /// The dimension of y that counts.
        axis: usize,
        /// From one element to the next.
        step: i64,
    }
}

impl InstrDef for Iota {
    fn infos() -> Vec<InstrInfo> {
        vec![InstrInfo {
            mnemonic: "iota",
            family: "vector",
            doc: "y = start + step * index",
            stands_for: "",
            confidence: Confidence::Proposed,
            cost: "",
        }]
    }

    fn mnemonic(&self) -> &'static str {
        "iota"
    }

    fn schema() -> Vec<AttrSpec> {
        Self::field_schema()
    }

    fn parse(_mnemonic: &str, attrs: &Attrs) -> Result<Self, AttrError> {
        Self::parse_fields(attrs)
    }

    fn attrs(&self) -> Attrs {
        self.to_attrs()
    }

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y")]
    }

    fn scalars(&self) -> Vec<&'static str> {
        vec!["start"]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y] = strided(["y"], operands)?;
        if !y.ty.dtype.is_int() {
            y.of_type(&[DType::F32])?;
        }
        if self.axis >= y.rank() {
            let (axis, rank) = (self.axis, y.rank());
            return Err(format!(
                "counts along axis {axis} of `y`, which has {rank} dimensions"
            ));
        }
        y.written()
    }

    fn cost(&self, _operands: &[ViewType], _machine: &Machine) -> Cost {
        Cost::default()
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        Vec::new()
    }
}
