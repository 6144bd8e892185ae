//! What convolution shares with its gradients: extents, index maps, the shape of the rule.

use super::EvalError;
use super::TypeError;
use super::dot::accumulator;
use super::window::{Segment, Windows};
use crate::access::{Access, Affine, Combine, Expr, LoopDim, Monoid, Outside, Read, Tiling, Write};
use crate::dim::Dim;
use crate::scalar::BinaryFn;
use crate::types::{Class, DType, Shape, Type};

/// The operand and result extents of a convolution, whichever of them is sought.
pub(crate) struct Parts<'a> {
    pub windows: Windows<'a>,
    pub groups: u64,
    pub batch: Dim,
    /// Channels of x per group.
    pub c: Dim,
    /// Channels of y per group.
    pub o: Dim,
    pub input: Vec<Dim>,
    pub kernel: Vec<u64>,
    pub output: Vec<Dim>,
}

/// The loops of a convolution, as positions in a nest.
pub(crate) struct Loops {
    pub n: usize,
    pub g: usize,
    pub c: usize,
    pub o: usize,
    pub kernel: Vec<usize>,
}

/// A loop nest being built.
#[derive(Default)]
pub(crate) struct Nest(pub Vec<LoopDim>);

impl Nest {
    pub fn push(&mut self, dim: LoopDim) -> usize {
        self.0.push(dim);
        self.0.len() - 1
    }

    pub fn push_all(
        &mut self,
        name: &str,
        extents: impl IntoIterator<Item = Dim>,
        kind: fn(String, Dim) -> LoopDim,
    ) -> Vec<usize> {
        let extents = extents.into_iter().enumerate();
        extents
            .map(|(d, extent)| self.push(kind(format!("{name}{d}"), extent)))
            .collect()
    }
}

/// Checks the element types of a product of two operands.
fn check_operands(a: &Type, b: &Type) -> Result<(), TypeError> {
    if a.dtype != b.dtype {
        type_error!("operands have different element types: {a} and {b}");
    }
    if !matches!(a.dtype.class(), Class::Int { .. } | Class::Float) {
        type_error!("expected integers or floats, found {}", a.dtype);
    }
    if a.rank() < 2 || a.rank() != b.rank() {
        type_error!("expected two operands of one rank of at least 2, found {a} and {b}");
    }
    Ok(())
}

/// The channels of one group.
fn per_group(channels: &Dim, groups: u64) -> Result<Dim, TypeError> {
    match channels.as_const() {
        Some(count) if groups > 0 && count % groups == 0 => Ok(Dim::Const(count / groups)),
        None if groups == 1 => Ok(channels.clone()),
        _ => type_error!("{channels} channels can not be split into {groups} groups"),
    }
}

/// The kernel extents at the end of a weight's type.
fn kernel_extents(w: &Type) -> Result<Vec<u64>, TypeError> {
    let extents: Option<Vec<u64>> = w.dims()[2..].iter().map(Dim::as_const).collect();
    match extents {
        Some(extents) if !extents.contains(&0) => Ok(extents),
        _ => type_error!("the kernel extents of {w} are not constants of at least 1"),
    }
}

impl<'a> Parts<'a> {
    /// The parts of `Conv`: the number of windows is computed.
    pub fn forward(
        windows: Windows<'a>,
        groups: u64,
        x: &Type,
        w: &Type,
    ) -> Result<Self, TypeError> {
        check_operands(x, w)?;
        windows.check(x.rank() - 2)?;
        let kernel = kernel_extents(w)?;
        let (c, o) = (
            per_group(&x.shape[1], groups)?,
            per_group(&w.shape[0], groups)?,
        );
        if c != w.shape[1] {
            type_error!("kernels {w} do not match {c} channels per group of {x}");
        }
        let input = x.dims()[2..].to_vec();
        let output = windows.extents(&input, &kernel)?;
        Ok(Self {
            windows,
            groups,
            batch: x.shape[0].clone(),
            c,
            o,
            input,
            kernel,
            output,
        })
    }

    /// The parts of `ConvTranspose`: the image's extents are given.
    pub fn transposed(
        windows: Windows<'a>,
        groups: u64,
        dy: &Type,
        w: &Type,
        size: &[Dim],
    ) -> Result<Self, TypeError> {
        check_operands(dy, w)?;
        windows.check(dy.rank() - 2)?;
        if size.len() != dy.rank() - 2 {
            type_error!(
                "`size` has {} entries for {} spatial dims",
                size.len(),
                dy.rank() - 2
            );
        }
        let kernel = kernel_extents(w)?;
        let o = per_group(&dy.shape[1], groups)?;
        if dy.shape[1] != w.shape[0] {
            type_error!("kernels {w} do not match the channels of {dy}");
        }
        Ok(Self {
            windows,
            groups,
            batch: dy.shape[0].clone(),
            c: w.shape[1].clone(),
            o,
            input: size.to_vec(),
            kernel,
            output: dy.dims()[2..].to_vec(),
        })
    }

    /// The parts of `ConvWeightGrad`: the kernel's extents are given.
    pub fn weight_grad(
        windows: Windows<'a>,
        groups: u64,
        x: &Type,
        dy: &Type,
        kernel: &[u64],
    ) -> Result<Self, TypeError> {
        check_operands(x, dy)?;
        windows.check(x.rank() - 2)?;
        if kernel.len() != x.rank() - 2 || kernel.contains(&0) {
            type_error!("`kernel` is {kernel:?} for {} spatial dims", x.rank() - 2);
        }
        if x.shape[0] != dy.shape[0] {
            type_error!("operands have different batches: {x} and {dy}");
        }
        Ok(Self {
            windows,
            groups,
            batch: x.shape[0].clone(),
            c: per_group(&x.shape[1], groups)?,
            o: per_group(&dy.shape[1], groups)?,
            input: x.dims()[2..].to_vec(),
            kernel: kernel.to_vec(),
            output: dy.dims()[2..].to_vec(),
        })
    }

    fn channels(&self, per_group: &Dim) -> Result<Dim, TypeError> {
        match per_group.mul(&Dim::Const(self.groups)) {
            Some(channels) => Ok(channels),
            None => type_error!(
                "{per_group} channels by {} groups are too many",
                self.groups
            ),
        }
    }

    /// The type of x.
    pub fn x_type(&self, dtype: DType) -> Result<Type, TypeError> {
        let head = [self.batch.clone(), self.channels(&self.c)?];
        Ok(Type::new(
            dtype,
            Shape::new(head.into_iter().chain(self.input.iter().cloned())),
        ))
    }

    /// The type of y.
    pub fn y_type(&self, dtype: DType) -> Result<Type, TypeError> {
        let head = [self.batch.clone(), self.channels(&self.o)?];
        Ok(Type::new(
            dtype,
            Shape::new(head.into_iter().chain(self.output.iter().cloned())),
        ))
    }

    /// The type of w.
    pub fn w_type(&self, dtype: DType) -> Result<Type, TypeError> {
        let head = [self.channels(&self.o)?, self.c.clone()];
        let kernel = self.kernel.iter().map(|k| Dim::Const(*k));
        Ok(Type::new(dtype, Shape::new(head.into_iter().chain(kernel))))
    }

    /// The channel `within` the group of the loop `g`, of `per_group` channels each.
    fn channel(&self, per_group: &Dim, g: usize, within: usize) -> Affine {
        match per_group.as_const().map(i64::try_from) {
            Some(Ok(count)) if self.groups > 1 => Affine::new(&[(g, count), (within, 1)], 0),
            _ => Affine::dim(within),
        }
    }

    /// The index of x, with the given spatial part.
    pub fn x_index(&self, at: &Loops, spatial: Vec<Affine>) -> Vec<Affine> {
        let head = [Affine::dim(at.n), self.channel(&self.c, at.g, at.c)];
        head.into_iter().chain(spatial).collect()
    }

    /// The index of y, with the given spatial part.
    pub fn y_index(&self, at: &Loops, spatial: Vec<Affine>) -> Vec<Affine> {
        let head = [Affine::dim(at.n), self.channel(&self.o, at.g, at.o)];
        head.into_iter().chain(spatial).collect()
    }

    /// The index of w.
    pub fn w_index(&self, at: &Loops) -> Vec<Affine> {
        let head = [self.channel(&self.o, at.g, at.o), Affine::dim(at.c)];
        head.into_iter()
            .chain(at.kernel.iter().map(|k| Affine::dim(*k)))
            .collect()
    }

    /// The spatial part of x's index where the windows of the loops `output` meet it.
    pub fn met(&self, at: &Loops, output: &[usize]) -> Vec<Affine> {
        (0..output.len())
            .map(|d| self.windows.input_index(d, output[d], at.kernel[d]))
            .collect()
    }
}

/// The rule of a sum of products of two operands.
pub(crate) fn sum_of_products(nest: Nest, reads: [Read; 2], dtype: DType, write: Write) -> Tiling {
    let acc = accumulator(dtype);
    let operand = |n| Expr::Convert(acc, Box::new(Expr::Operand(n)));
    Tiling::Loop(Access {
        dims: nest.0,
        operands: reads.into(),
        body: vec![Expr::binary(BinaryFn::Mul, acc, operand(0), operand(1))],
        combine: Combine::Reduce(Monoid::Sum, acc),
        results: vec![write],
    })
}

/// A read of which some points lie outside and then contribute nothing.
pub(crate) fn read_within(index: Vec<Affine>) -> Read {
    Read {
        index,
        outside: Outside::Nothing,
    }
}

/// The extents of a convolution of concrete tensors.
pub(crate) struct Counts {
    pub batch: usize,
    pub groups: usize,
    pub c: usize,
    pub o: usize,
    /// Elements of one channel of x.
    pub input: usize,
    /// Elements of one channel of y.
    pub output: usize,
    /// Distance of neighbouring elements of a [`Segment`] in x.
    pub step: usize,
    /// Where each kernel position meets the input.
    pub taps: Vec<Vec<Segment>>,
}

impl Parts<'_> {
    /// The extents, all of which are constants when an op is evaluated.
    pub fn counts(&self) -> Result<Counts, EvalError> {
        let constant = |dim: &Dim| {
            dim.as_const()
                .ok_or_else(|| EvalError::value(format!("extent {dim} is symbolic")))
        };
        let input: Vec<u64> = self.input.iter().map(constant).collect::<Result<_, _>>()?;
        let output: Vec<u64> = self.output.iter().map(constant).collect::<Result<_, _>>()?;
        Ok(Counts {
            batch: constant(&self.batch)? as usize,
            groups: self.groups as usize,
            c: constant(&self.c)? as usize,
            o: constant(&self.o)? as usize,
            input: input.iter().product::<u64>() as usize,
            output: output.iter().product::<u64>() as usize,
            step: self.windows.step(),
            taps: self.windows.taps(&input, &self.kernel, &output),
        })
    }
}

/// The error of an evaluation whose operands the shape rule would refuse.
pub(crate) fn refused(error: TypeError) -> EvalError {
    EvalError::value(error.0)
}
