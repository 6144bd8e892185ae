//! Activation functions of the recurrent operators.

use dojoc_ir::graph::ValueId;
use dojoc_ir::scalar::{BinaryFn, UnaryFn};

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};

/// A function with its parameters.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Activation {
    Relu,
    Tanh,
    Sigmoid,
    Softsign,
    Softplus,
    Affine { alpha: f64, beta: f64 },
    LeakyRelu { alpha: f64 },
    ThresholdedRelu { alpha: f64 },
    ScaledTanh { alpha: f64, beta: f64 },
    HardSigmoid { alpha: f64, beta: f64 },
    Elu { alpha: f64 },
}

/// The parameters of an operator's activations, each taken by the functions that have it.
pub(super) struct Parameters {
    alpha: std::vec::IntoIter<f64>,
    beta: std::vec::IntoIter<f64>,
}

impl Parameters {
    pub(super) fn read(cx: &mut NodeCx<'_, '_>) -> NodeResult<Self> {
        let alpha = cx.floats("activation_alpha")?.unwrap_or_default();
        let beta = cx.floats("activation_beta")?.unwrap_or_default();
        Ok(Self {
            alpha: alpha.into_iter(),
            beta: beta.into_iter(),
        })
    }

    fn alpha(&mut self, default: Option<f64>) -> NodeResult<f64> {
        let missing = || NodeError::invalid("`activation_alpha` has too few entries");
        self.alpha.next().or(default).ok_or_else(missing)
    }

    fn beta(&mut self, default: Option<f64>) -> NodeResult<f64> {
        let missing = || NodeError::invalid("`activation_beta` has too few entries");
        self.beta.next().or(default).ok_or_else(missing)
    }
}

impl Activation {
    /// The function of a name, in any case, with the next parameters of the operator or the
    /// defaults of the operator of the same name.
    pub(super) fn parse(name: &str, parameters: &mut Parameters) -> NodeResult<Self> {
        let p = parameters;
        Ok(match name.to_ascii_lowercase().as_str() {
            "relu" => Self::Relu,
            "tanh" => Self::Tanh,
            "sigmoid" => Self::Sigmoid,
            "softsign" => Self::Softsign,
            "softplus" => Self::Softplus,
            "affine" => Self::Affine {
                alpha: p.alpha(Some(1.0))?,
                beta: p.beta(Some(0.0))?,
            },
            "leakyrelu" => Self::LeakyRelu {
                alpha: p.alpha(Some(f64::from(0.01f32)))?,
            },
            "thresholdedrelu" => Self::ThresholdedRelu {
                alpha: p.alpha(Some(1.0))?,
            },
            "scaledtanh" => Self::ScaledTanh {
                alpha: p.alpha(None)?,
                beta: p.beta(None)?,
            },
            "hardsigmoid" => Self::HardSigmoid {
                alpha: p.alpha(Some(f64::from(0.2f32)))?,
                beta: p.beta(Some(0.5))?,
            },
            "elu" => Self::Elu {
                alpha: p.alpha(Some(1.0))?,
            },
            _ => {
                return Err(NodeError::invalid(format!(
                    "no activation is called `{name}`"
                )));
            }
        })
    }

    /// The function of every element.
    pub(super) fn apply(self, cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
        match self {
            Self::Relu => cx.with_scalar(BinaryFn::Max, x, 0.0),
            Self::Tanh => cx.unary(UnaryFn::Tanh, x),
            Self::Sigmoid => cx.unary(UnaryFn::Sigmoid, x),
            Self::Softsign => {
                let size = cx.unary(UnaryFn::Abs, x)?;
                let divisor = cx.with_scalar(BinaryFn::Add, size, 1.0)?;
                cx.binary(BinaryFn::Div, x, divisor)
            }
            Self::Softplus => {
                // max(x, 0) + log1p(exp(-|x|)) does not overflow.
                let size = cx.unary(UnaryFn::Abs, x)?;
                let negative = cx.unary(UnaryFn::Neg, size)?;
                let exp = cx.unary(UnaryFn::Exp, negative)?;
                let rest = cx.unary(UnaryFn::Log1p, exp)?;
                let ramp = cx.with_scalar(BinaryFn::Max, x, 0.0)?;
                cx.binary(BinaryFn::Add, ramp, rest)
            }
            Self::Affine { alpha, beta } => line(cx, x, alpha, beta),
            Self::LeakyRelu { alpha } => {
                let scaled = cx.with_scalar(BinaryFn::Mul, x, alpha)?;
                where_not_negative(cx, x, scaled)
            }
            Self::ThresholdedRelu { alpha } => {
                let passes = cx.with_scalar(BinaryFn::Ge, x, alpha)?;
                let zero = cx.scalar(cx.dtype(x), 0.0)?;
                cx.select(passes, x, zero)
            }
            Self::ScaledTanh { alpha, beta } => {
                let inner = cx.with_scalar(BinaryFn::Mul, x, beta)?;
                let tanh = cx.unary(UnaryFn::Tanh, inner)?;
                cx.with_scalar(BinaryFn::Mul, tanh, alpha)
            }
            Self::HardSigmoid { alpha, beta } => {
                let y = line(cx, x, alpha, beta)?;
                let y = cx.with_scalar(BinaryFn::Max, y, 0.0)?;
                cx.with_scalar(BinaryFn::Min, y, 1.0)
            }
            Self::Elu { alpha } => {
                let below = cx.unary(UnaryFn::Expm1, x)?;
                let below = cx.with_scalar(BinaryFn::Mul, below, alpha)?;
                where_not_negative(cx, x, below)
            }
        }
    }
}

fn line(cx: &mut NodeCx<'_, '_>, x: ValueId, slope: f64, offset: f64) -> NodeResult<ValueId> {
    let y = cx.with_scalar(BinaryFn::Mul, x, slope)?;
    cx.with_scalar(BinaryFn::Add, y, offset)
}

/// `x >= 0 ? x : otherwise`.
fn where_not_negative(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    otherwise: ValueId,
) -> NodeResult<ValueId> {
    let keep = cx.with_scalar(BinaryFn::Ge, x, 0.0)?;
    cx.select(keep, x, otherwise)
}
