//! Names of the vector operations.

/// The second operand of a vector operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand<'a, T> {
    /// One value per element; the slice is as long as the first operand.
    Slice(&'a [T]),
    /// The same value for all elements.
    Scalar(T),
}

macro_rules! named {
    ($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $variant:ident $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum { $($(#[$doc])* $variant,)+ }

        impl $enum {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in text.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

named! {
    /// Functions of one float. The module's page states their errors.
    Unary {
        /// -x.
        Neg "neg",
        /// |x|.
        Abs "abs",
        /// max(x, 0): of two zeros the positive one.
        Relu "relu",
        /// e^x.
        Exp "exp",
        /// Natural logarithm; NaN below zero, -Inf at zeros of either sign.
        Log "log",
        /// Hyperbolic tangent.
        Tanh "tanh",
        /// 1 / (1 + e^-x).
        Sigmoid "sigmoid",
        /// x / (1 + e^-x); NaN at -Inf.
        Silu "silu",
        /// Error function.
        Erf "erf",
        /// x/2 * (1 + erf(x / sqrt 2)); NaN at -Inf.
        Gelu "gelu",
        /// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))); NaN at -Inf.
        GeluTanh "gelu_tanh",
        /// 1 / sqrt(x), two roundings.
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
    }
}

named! {
    /// Functions of two floats.
    Binary {
        /// a + b.
        Add "add",
        /// a - b.
        Sub "sub",
        /// a * b.
        Mul "mul",
        /// a / b.
        Div "div",
        /// The smaller; NaN if either is NaN; of two zeros the negative one.
        Min "min",
        /// The larger; NaN if either is NaN; of two zeros the positive one.
        Max "max",
    }
}

named! {
    /// Functions of two integers, wrapping at their width.
    IntBinary {
        /// a + b.
        Add "add",
        /// a - b.
        Sub "sub",
        /// a * b.
        Mul "mul",
        /// The smaller.
        Min "min",
        /// The larger.
        Max "max",
    }
}

named! {
    /// Comparisons. With a NaN operand only `Ne` holds.
    Compare {
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

named! {
    /// Reductions to one value.
    Reduce {
        /// The sum; zero (+0) of nothing.
        Sum "sum",
        /// The product; one of nothing.
        Prod "prod",
        /// The smallest, by the rules of [`Binary::Min`]; Inf of nothing.
        Min "min",
        /// The largest, by the rules of [`Binary::Max`]; -Inf of nothing.
        Max "max",
    }
}
