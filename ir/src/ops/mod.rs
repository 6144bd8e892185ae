//! The ops of the GRAPH level.
//!
//! An op is defined in ONE file: documentation with the math, attributes, shape rule, reference
//! semantics (obvious and slow), tiling rule as data, gradient, declared tolerance and samples. One
//! line in the list at the end of this file registers it; names, parser, printer and documentation
//! come from that list, and the op suite tests every op in it.

use std::fmt;

use crate::access::Tiling;
use crate::attr::{AttrError, AttrSpec, Attrs, OpFields};
use crate::dim::{Bindings, Dim};
use crate::graph::{FunctionBuilder, RegionId, RegionType, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Why an op cannot have these operands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypeError(pub String);

impl TypeError {
    /// A type error.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TypeError {}

/// Returns a [`TypeError`] made of a format string.
macro_rules! type_error {
    ($($arg:tt)*) => { return Err($crate::ops::TypeError::new(format!($($arg)*))) };
}

/// Why an op could not be evaluated: the values, not the types, are at fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EvalError {
    /// Code of the diagnostic.
    pub code: u16,
    /// What is wrong.
    pub message: String,
}

impl EvalError {
    /// An operand has a value that the op cannot take (an index out of range, say).
    pub fn value(message: impl Into<String>) -> Self {
        Self {
            code: crate::codes::BAD_VALUE,
            message: message.into(),
        }
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EvalError {}

/// Executes a region of the node being evaluated: (which region, its arguments).
pub type CallRegion<'a> = dyn FnMut(usize, &[Tensor]) -> Result<Vec<Tensor>, EvalError> + 'a;

/// What an op's `eval` may use besides its operands.
pub struct EvalCx<'a> {
    call: &'a mut CallRegion<'a>,
    regions: Vec<RegionType>,
}

impl<'a> EvalCx<'a> {
    /// A context in which `call` executes the regions of the node.
    pub fn new(call: &'a mut CallRegion<'a>) -> Self {
        Self {
            call,
            regions: vec![],
        }
    }

    /// The same with the types of the node's regions, bound as far as symbols have values.
    pub fn with_regions(mut self, regions: Vec<RegionType>) -> Self {
        self.regions = regions;
        self
    }

    /// The types of the node's regions; a symbol that only a run of the region gives a value is
    /// still there.
    pub fn regions(&self) -> &[RegionType] {
        &self.regions
    }

    /// Executes a region of the node.
    ///
    /// # Errors
    /// What went wrong inside.
    pub fn call(&mut self, region: usize, args: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
        (self.call)(region, args)
    }
}

/// What a gradient rule gets. It builds nodes with `b` and returns, for each operand, the gradient
/// of the loss with respect to it, or `None` where the operand has no influence or is not a float.
pub struct GradCx<'a> {
    /// Where nodes are added.
    pub b: &'a mut FunctionBuilder,
    /// The operands.
    pub args: &'a [ValueId],
    /// The results.
    pub results: &'a [ValueId],
    /// The gradient of the loss with respect to each result, of the same type as the result.
    pub cotangents: &'a [ValueId],
}

/// A gradient rule's outcome: one entry per operand.
pub type Grads = Vec<Option<ValueId>>;

/// Why there is no gradient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoGrad {
    /// The op has no gradient rule.
    NoRule,
    /// The rule could not type its graph: a defect of the rule.
    Type(TypeError),
}

impl From<TypeError> for NoGrad {
    fn from(error: TypeError) -> Self {
        NoGrad::Type(error)
    }
}

/// The largest difference between two evaluations of an op, relative to the largest magnitude of
/// the result, in units of the rounding of its element type (of `f32` for anything narrower that
/// accumulates in `f32`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Tolerance {
    /// Bit for bit.
    Exact,
    /// This many roundings.
    Roundings(f64),
}

impl Tolerance {
    /// The allowed `max |a - b| / max |b|` for results of `dtype`.
    pub fn relative(self, dtype: DType) -> f64 {
        let epsilon = match dtype {
            DType::F64 => f64::EPSILON,
            DType::F32 => f64::from(f32::EPSILON),
            DType::F16 => half::f16::EPSILON.to_f64(),
            DType::Bf16 => half::bf16::EPSILON.to_f64(),
            _ => return 0.0,
        };
        match self {
            Tolerance::Exact => 0.0,
            Tolerance::Roundings(n) => n * epsilon,
        }
    }
}

/// Everything about one op, or one family of ops. See [`OpFields`] for its text form.
pub trait OpDef: OpFields + Clone + Ord + std::hash::Hash + fmt::Debug + Into<Op> {
    /// Mnemonics, in text and in rewrite patterns: one, or those of a family.
    const NAMES: &'static [&'static str];

    /// The mnemonic.
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }

    /// Shape rule: result types from operand types; the verifier calls it again.
    ///
    /// # Errors
    /// What the op has against the operands.
    fn infer(&self, args: &[Type], regions: &[RegionType]) -> Result<Vec<Type>, TypeError>;

    /// Reference semantics on operands of constant extents that [`infer`](Self::infer) accepted.
    ///
    /// # Errors
    /// Values that the op cannot take.
    fn eval(&self, args: &[Tensor], cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError>;

    /// How the op can be split, for operands that [`infer`](Self::infer) accepted.
    fn tiling(&self, args: &[Type]) -> Tiling;

    /// Builds the gradient with respect to the operands.
    ///
    /// # Errors
    /// [`NoGrad::NoRule`] where the op has none.
    fn grad(&self, _cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        Err(NoGrad::NoRule)
    }

    /// How far two evaluations (by `eval`, by the tiling rule, by a kernel) may be apart.
    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact
    }

    /// Instances that the op suite iterates.
    fn samples() -> Vec<Sample>;
}

/// Builds a region for a sample and returns it.
pub type BuildRegion = fn(&mut FunctionBuilder) -> Result<RegionId, TypeError>;

/// An op with operand types, for the op suite.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The op.
    pub op: Op,
    /// Its operands.
    pub args: Vec<SampleArg>,
    /// Its regions.
    pub regions: Vec<BuildRegion>,
    /// Whether the suite checks the gradient here. Samples at which the function has a kink or a
    /// jump that random values hit say no.
    pub check_grad: bool,
}

/// One operand of a [`Sample`].
#[derive(Clone, Debug)]
pub struct SampleArg {
    /// Type.
    pub ty: Type,
    /// Values.
    pub fill: Fill,
}

/// Values of a sample's operand.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Uniform between the bounds, inclusive; rounded for integers.
    Uniform(f64, f64),
    /// All different, at a distance that finite differences do not bridge.
    Distinct,
    /// These.
    Given(Tensor),
}

impl Sample {
    /// A sample with operands of the given types: floats between -2 and 2, signed integers between
    /// -5 and 5, unsigned between 0 and 9.
    pub fn new(op: impl Into<Op>, args: &[Type]) -> Self {
        let args = args
            .iter()
            .map(|ty| {
                let fill = match ty.dtype.int_range() {
                    Some((0, _)) => Fill::Uniform(0.0, 9.0),
                    Some(_) => Fill::Uniform(-5.0, 5.0),
                    None if ty.dtype == DType::Bool => Fill::Uniform(0.0, 1.0),
                    None => Fill::Uniform(-2.0, 2.0),
                };
                SampleArg {
                    ty: ty.clone(),
                    fill,
                }
            })
            .collect();
        Self {
            op: op.into(),
            args,
            regions: vec![],
            check_grad: true,
        }
    }

    /// The same with the values of one operand between the bounds, inclusive.
    pub fn range(mut self, arg: usize, low: f64, high: f64) -> Self {
        self.args[arg].fill = Fill::Uniform(low, high);
        self
    }

    /// The same with all values of one operand different.
    pub fn distinct(mut self, arg: usize) -> Self {
        self.args[arg].fill = Fill::Distinct;
        self
    }

    /// The same with the given values of one operand.
    pub fn given(mut self, arg: usize, value: Tensor) -> Self {
        self.args[arg].fill = Fill::Given(value);
        self
    }

    /// The same with a region.
    pub fn region(mut self, build: BuildRegion) -> Self {
        self.regions.push(build);
        self
    }

    /// The same without a check of the gradient.
    pub fn no_grad(mut self) -> Self {
        self.check_grad = false;
        self
    }
}

/// The operands as an array, if their number is right.
pub(crate) fn arity<const N: usize>(args: &[Type]) -> Result<&[Type; N], TypeError> {
    match args.try_into() {
        Ok(array) => Ok(array),
        Err(_) => type_error!("expected {N} operands, found {}", args.len()),
    }
}

/// Checks that `axis` is a dim of `ty`.
pub(crate) fn check_axis(axis: usize, ty: &Type) -> Result<(), TypeError> {
    if axis >= ty.rank() {
        type_error!("axis {axis} is out of range for {ty}");
    }
    Ok(())
}

/// Checks that `axes` are distinct dims of `ty`.
pub(crate) fn check_axes(axes: &[usize], ty: &Type) -> Result<(), TypeError> {
    for (position, axis) in axes.iter().enumerate() {
        check_axis(*axis, ty)?;
        if axes[..position].contains(axis) {
            type_error!("axis {axis} is given twice");
        }
    }
    Ok(())
}

macro_rules! ops {
    ($($module:ident :: { $($op:ident),+ $(,)? }),+ $(,)?) => {
        $(mod $module; pub use $module::*;)+

        /// An op with its attributes.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Op { $($(#[doc = concat!("See [`", stringify!($op), "`](struct@", stringify!($op), ").")] $op($op),)+)+ }

        $($(impl From<$op> for Op {
            fn from(op: $op) -> Self {
                Op::$op(op)
            }
        })+)+

        impl Op {
            /// All mnemonics, in the order of the list.
            pub fn names() -> impl Iterator<Item = &'static str> {
                [$($(<$op as OpDef>::NAMES,)+)+].into_iter().flatten().copied()
            }

            /// The op of a mnemonic and attributes; `None` for an unknown mnemonic.
            pub fn parse(name: &str, attrs: &Attrs) -> Option<Result<Self, AttrError>> {
                $($(if <$op as OpDef>::NAMES.contains(&name) {
                    return Some(<$op as OpFields>::parse_fields(name, attrs).map(Op::$op));
                })+)+
                None
            }

            /// The documentation of a mnemonic.
            pub fn doc(name: &str) -> Option<String> {
                $($(if <$op as OpDef>::NAMES.contains(&name) {
                    return Some(<$op as OpFields>::doc(name));
                })+)+
                None
            }

            /// The attributes of a mnemonic.
            pub fn schema(name: &str) -> Option<Vec<AttrSpec>> {
                $($(if <$op as OpDef>::NAMES.contains(&name) {
                    return Some(<$op as OpFields>::schema());
                })+)+
                None
            }

            /// The samples of all ops.
            pub fn samples() -> Vec<Sample> {
                [$($(<$op as OpDef>::samples(),)+)+].into_iter().flatten().collect()
            }

            /// The mnemonic.
            pub fn name(&self) -> &'static str {
                match self { $($(Op::$op(op) => OpDef::name(op),)+)+ }
            }

            /// The attributes in order of declaration.
            pub fn attrs(&self) -> Attrs {
                match self { $($(Op::$op(op) => op.to_attrs(),)+)+ }
            }

            /// Calls `visit` with every extent among the attributes that is not a constant.
            pub fn for_each_dim(&self, visit: &mut dyn FnMut(&Dim)) {
                match self { $($(Op::$op(op) => op.for_each_dim(visit),)+)+ }
            }

            /// See [`OpDef::infer`].
            ///
            /// # Errors
            /// What the op has against the operands.
            pub fn infer(&self, args: &[Type], regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
                match self { $($(Op::$op(op) => op.infer(args, regions),)+)+ }
            }

            /// See [`OpDef::eval`].
            ///
            /// # Errors
            /// Values that the op cannot take.
            pub fn eval(&self, args: &[Tensor], cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
                match self { $($(Op::$op(op) => op.eval(args, cx),)+)+ }
            }

            /// See [`OpDef::tiling`].
            pub fn tiling(&self, args: &[Type]) -> Tiling {
                match self { $($(Op::$op(op) => op.tiling(args),)+)+ }
            }

            /// See [`OpDef::grad`].
            ///
            /// # Errors
            /// [`NoGrad::NoRule`] where the op has no gradient.
            pub fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
                match self { $($(Op::$op(op) => op.grad(cx),)+)+ }
            }

            /// See [`OpDef::tolerance`].
            pub fn tolerance(&self) -> Tolerance {
                match self { $($(Op::$op(op) => op.tolerance(),)+)+ }
            }
        }
    };
}

impl Op {
    /// The op with symbols in its attributes replaced by their values. An extent that is an unbound
    /// symbol stays: such an op gives the symbol its value. `None` if an expression has no value.
    pub fn bind(&self, bindings: &Bindings) -> Option<Self> {
        let mut symbolic = false;
        self.for_each_dim(&mut |_| symbolic = true);
        if !symbolic {
            return Some(self.clone());
        }
        Op::parse(self.name(), &self.attrs().bind(bindings)?)?.ok()
    }
}

mod compose;
mod grad;
// What ops share.
pub(crate) mod arith;
mod conv_parts;
mod movement;
pub(crate) use movement::strided;
pub(crate) mod products;
pub(crate) use dot::accumulator;
mod window;

// The list of ops.
ops! {
    elementwise::{Unary, Binary},
    source::{Full, Iota},
    select::{Select},
    convert::{Convert, BitCast},
    reduce::{Reduce, ArgReduce},
    cumulative::{Cumulative},
    random::{RandomBits},
    encode::{Encode, Decode},
    dot::{Dot},
    control::{If, Loop, Scan},
    reshape::{Reshape},
    transpose::{Transpose},
    broadcast::{Broadcast},
    slice::{Slice},
    pad::{Pad},
    concat::{Concat},
    conv::{Conv},
    conv_transpose::{ConvTranspose},
    conv_weight_grad::{ConvWeightGrad},
    reduce_window::{ReduceWindow},
    arg_max_window::{ArgMaxWindow},
    avg_pool::{AvgPool},
    softmax::{Softmax, LogSoftmax},
    gelu::{Gelu},
    norm::{LayerNorm, RmsNorm},
    group_norm::{GroupNorm},
    batch_norm::{BatchNorm},
    attention::{Attention},
    gather::{Gather, GatherElements, GatherNd},
    scatter::{ScatterElements, ScatterNd},
    topk::{TopK},
    dynamic::{NonZero, Compress, Unique},
    nms::{NonMaxSuppression},
}
