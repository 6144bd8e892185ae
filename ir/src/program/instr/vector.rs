//! Element-wise arithmetic on views.

mod compare;

use super::check::{Arg, Kind, strided};
use super::cost::{self, DIVISION, INTEGER_DIVISION, SCALAR_DIVISION};
use super::sample::{columns, dense, dtypes};
use super::{
    Cost, InstrDef, InstrInfo, Role, function_struct, function_text, functions, instr_struct,
    instr_text,
};
use crate::attr::Number;
use crate::machine::{Confidence, Machine};
use crate::program::ViewType;
use crate::types::{Class, DType};

pub use compare::{Compare, CompareFunction, Select};

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

/// What the SIMD unit is known for.
const SIMD: &str = "Instructions of the SIMD unit, 64 bytes wide, in a loop over the view; Tesla states \
                    the unit and its width, not its instructions.";

/// How a function of one or a few instructions is priced.
const PRICE: &str = "SIMD: one operation (two for clamp and comparisons) per vector of the type's lanes, a \
                     vector ending where neighbouring bytes end; scalar side, element by element, for \
                     types without lanes. Loads and stores: one access per vector, or granules of the \
                     gather engine where elements read lie apart.";

/// How a function of many instructions is priced.
const SEQUENCE: &str = "SIMD: the operations of the sequence per vector of f32 lanes (16-bit floats are \
                        widened and rounded); a division or root counts as 8. Loads and stores as for \
                        other vector instructions.";

impl MapFunction {
    /// SIMD operations on a vector, in the sequences that define the functions' errors.
    pub(super) fn operations(self) -> f64 {
        match self {
            Self::Neg | Self::Abs | Self::Relu | Self::Not => 1.0,
            Self::Floor | Self::Ceil | Self::Round => 1.0,
            // Two clamps, reduction by the logarithm of two, a polynomial, two scales.
            Self::Exp => 24.0,
            Self::Log => 23.0,
            Self::Tanh => 21.0 + DIVISION,
            Self::Sigmoid => 26.0 + DIVISION,
            Self::Silu => 26.0 + DIVISION,
            Self::Erf => 41.0,
            Self::Gelu => 44.0,
            Self::GeluTanh => 27.0 + DIVISION,
            Self::Rsqrt => 2.0 * DIVISION,
            Self::Sqrt | Self::Recip => DIVISION,
            Self::Sin | Self::Cos => 22.0,
        }
    }

    /// Whether it is a sequence of instructions rather than one.
    fn is_sequence(self) -> bool {
        self.operations() > 1.0
    }

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
            rules: Self::RULES,
            stands_for: if function.is_sequence() {
                "A sequence of instructions of the SIMD unit, 64 bytes wide; nothing is public about \
                 instructions for such functions, and none are assumed."
            } else {
                SIMD
            },
            confidence: if function.is_sequence() {
                Confidence::Proposed
            } else {
                Confidence::Inferred
            },
            cost: if function.is_sequence() {
                SEQUENCE
            } else {
                PRICE
            },
        };
        MapFunction::ALL.iter().map(info).collect()
    }

    function_text!(MapFunction);

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y"), Role::read("x")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y, x] = strided(["y", "x"], operands)?;
        x.of_kind(self.function.kinds())?;
        y.written()?;
        y.like(x)
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x] = operands else {
            return Cost::default();
        };
        if self.function == MapFunction::Not {
            return cost::moving(machine, 1.0, y, &[x]);
        }
        let operations = self.function.operations();
        // What takes a single instruction works in the type itself.
        let (operations, dtype) = if operations > 1.0 {
            cost::in_f32(operations, 1, x.dtype)
        } else {
            (operations, x.dtype)
        };
        cost::elementwise(machine, dtype, operations, y, &[x])
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for &function in MapFunction::ALL {
            for dtype in dtypes(function.kinds()) {
                samples.push((Self { function }, vec![dense(dtype, &[3, 20]); 2]));
            }
        }
        let function = MapFunction::Exp;
        samples.push((
            Self { function },
            vec![dense(DType::F32, &[4, 5]), columns(DType::F32, 4, 5)],
        ));
        samples
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
    /// Operations on a vector, or on an element on the scalar side.
    fn operations(self, dtype: DType, scalar: bool) -> f64 {
        let float = dtype.is_float();
        match self {
            Self::Div if float => DIVISION,
            Self::Div | Self::Rem if scalar => SCALAR_DIVISION,
            Self::Div | Self::Rem => INTEGER_DIVISION,
            // The exponential of a product with a logarithm.
            Self::Pow => MapFunction::Exp.operations() + MapFunction::Log.operations() + 1.0,
            // The shift, and its limits.
            Self::Shl | Self::Shr => 3.0,
            Self::Add
            | Self::Sub
            | Self::Mul
            | Self::Min
            | Self::Max
            | Self::And
            | Self::Or
            | Self::Xor => 1.0,
        }
    }

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
            rules: Self::RULES,
            stands_for: SIMD,
            confidence: Confidence::Inferred,
            cost: match function {
                ZipFunction::Pow | ZipFunction::Div => SEQUENCE,
                _ => PRICE,
            },
        };
        ZipFunction::ALL.iter().map(info).collect()
    }

    function_text!(ZipFunction);

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

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, reads @ ..] = operands else {
            return Cost::default();
        };
        let reads: Vec<&ViewType> = reads.iter().collect();
        let scalar = cost::lanes(y.dtype, machine).is_none();
        let bits = matches!(
            self.function,
            ZipFunction::And | ZipFunction::Or | ZipFunction::Xor
        );
        if bits {
            return cost::moving(machine, 1.0, y, &reads);
        }
        let operations = self.function.operations(y.dtype, scalar);
        let (operations, dtype) = if operations > 1.0 {
            cost::in_f32(operations, reads.len(), y.dtype)
        } else {
            (operations, y.dtype)
        };
        cost::elementwise(machine, dtype, operations, y, &reads)
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let mut samples = Vec::new();
        for &function in ZipFunction::ALL {
            for dtype in dtypes(function.kinds()) {
                let same = dense(dtype, &[2, 33]);
                let one = Some(Number::Int(1));
                samples.push((
                    Self {
                        function,
                        value: None,
                    },
                    vec![same.clone(); 3],
                ));
                samples.push((
                    Self {
                        function,
                        value: one,
                    },
                    vec![same; 2],
                ));
            }
        }
        // A row that repeats.
        let mut row = dense(DType::Bf16, &[4, 16]);
        row.strides[0] = 0;
        let matrix = dense(DType::Bf16, &[4, 16]);
        let function = ZipFunction::Add;
        samples.push((
            Self {
                function,
                value: None,
            },
            vec![matrix.clone(), matrix, row],
        ));
        samples
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
            doc: "y = a b + c, rounded once.",
            rules: Self::RULES,
            stands_for: "Fused multiply-add of the SIMD unit. Tesla's 64 GFLOPS per core in f32 are 16 \
                         such lanes; 32 lanes of bf16 follow from the width.",
            confidence: Confidence::Inferred,
            cost: PRICE,
        }]
    }

    instr_text!("fma");

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

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, a, b, c] = operands else {
            return Cost::default();
        };
        cost::elementwise(machine, y.dtype, 1.0, y, &[a, b, c])
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let floats = dtypes(&[Kind::Float]);
        floats
            .map(|dtype| (Self {}, vec![dense(dtype, &[7, 9]); 4]))
            .collect()
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
            doc: "y = min(max(x, low), high).",
            rules: Self::RULES,
            stands_for: SIMD,
            confidence: Confidence::Inferred,
            cost: PRICE,
        }]
    }

    instr_text!("clamp");

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

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y, x] = operands else {
            return Cost::default();
        };
        cost::elementwise(machine, x.dtype, 2.0, y, &[x])
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let all = dtypes(&[Kind::Float, Kind::Int]);
        let clamp = Self {
            low: Number::Int(0),
            high: Number::Int(100),
        };
        all.map(|dtype| (clamp.clone(), vec![dense(dtype, &[40, 2]); 2]))
            .collect()
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
            doc: "y = value everywhere.",
            rules: Self::RULES,
            stands_for: "Stores of a vector register in a loop over the view.",
            confidence: Confidence::Inferred,
            cost: "Stores: one access per vector.",
        }]
    }

    instr_text!("fill");

    fn roles(&self) -> Vec<Role> {
        vec![Role::write("y")]
    }

    fn check(&self, operands: &[ViewType]) -> Result<(), String> {
        let [y] = strided(["y"], operands)?;
        y.holds("value", self.value)?;
        y.written()
    }

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y] = operands else {
            return Cost::default();
        };
        cost::moving(machine, 0.0, y, &[])
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let fixed = DType::ALL.iter().map(|(dtype, _)| *dtype);
        let fixed = fixed.filter(|dtype| dtype.class() != Class::Configurable);
        let value = Number::Int(1);
        fixed
            .map(|dtype| (Self { value }, vec![dense(dtype, &[3, 8, 2])]))
            .collect()
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
            doc: "y = start + step i, i being the index along one dimension.",
            rules: Self::RULES,
            stands_for: "Additions in the SIMD unit, started from the integer side, which makes addresses.",
            confidence: Confidence::Inferred,
            cost: PRICE,
        }]
    }

    instr_text!("iota");

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

    fn cost(&self, operands: &[ViewType], machine: &Machine) -> Cost {
        let [y] = operands else {
            return Cost::default();
        };
        cost::elementwise(machine, y.dtype, 1.0, y, &[])
    }

    fn samples() -> Vec<(Self, Vec<ViewType>)> {
        let counted = dtypes(&[Kind::Int]).chain([DType::F32]);
        let iota = Self { axis: 1, step: -2 };
        counted
            .map(|dtype| (iota.clone(), vec![dense(dtype, &[2, 4, 8])]))
            .collect()
    }
}
