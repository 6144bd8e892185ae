//! Tile products.

use std::sync::Arc;

use bytemuck::Pod;
use dojoc_ir::formats::Bias;
use dojoc_ir::program::instr::matrix::{Activation as Function, MatMul, ResidualPlace};
use dojoc_ir::program::{MAX_VIEW_RANK, Packing, ViewType};
use dojoc_ir::types::DType;
use half::bf16;

use super::walk::{
    self, Axes, Axis, Nest, axes, bytes_in, bytes_of, dense, dense_axes, typed, typed_mut,
    with_dense,
};
use super::{
    Bytes, Cx, Fault, PanelCache, PanelKey, Panels, Scratch, Source, Target, convert, scalar,
};
use crate::kernels::{
    self, Activation, Aligned, Cfp8Decoder, Draw, Epilogue, Kernels, Lhs, Matmul, Matrix, Output,
    Residual, ResidualValues, Rhs, Rounding, packed_len_bf16, packed_len_f32,
};

/// An element type of tile products.
trait Tile: Pod + Default {
    fn product(
        k: &dyn Kernels,
        product: &Matmul<'_, Self>,
        output: Output<'_>,
        scratch: &mut kernels::Scratch,
    );
    fn packed_len(k: usize, n: usize) -> usize;
    fn pack(kernels: &dyn Kernels, b: Rhs<'_, Self>, extents: (usize, usize), to: &mut [Self]);
    fn panels(panels: Aligned<Self>) -> Panels;
    fn of_panels(panels: &Panels) -> Option<&[Self]>;
    fn scratch_panels(panels: &mut (Aligned<f32>, Aligned<bf16>)) -> &mut Aligned<Self>;
    /// Decodes cfp8, exactly.
    fn decode(k: &dyn Kernels, decoder: Cfp8Decoder, from: &[u8], to: &mut [Self]);
}

macro_rules! tile {
    ($ty:ty, $product:ident $len:ident $pack:ident $variant:ident $field:tt, $decode:expr) => {
        impl Tile for $ty {
            fn product(
                k: &dyn Kernels,
                product: &Matmul<'_, Self>,
                output: Output<'_>,
                scratch: &mut kernels::Scratch,
            ) {
                k.$product(product, output, scratch);
            }

            fn packed_len(k: usize, n: usize) -> usize {
                $len(k, n)
            }

            fn pack(
                kernels: &dyn Kernels,
                b: Rhs<'_, Self>,
                (k, n): (usize, usize),
                to: &mut [Self],
            ) {
                kernels.$pack(b, k, n, to);
            }

            fn panels(panels: Aligned<Self>) -> Panels {
                Panels::$variant(panels)
            }

            fn of_panels(panels: &Panels) -> Option<&[Self]> {
                match panels {
                    Panels::$variant(panels) => Some(panels),
                    _ => None,
                }
            }

            fn scratch_panels(panels: &mut (Aligned<f32>, Aligned<bf16>)) -> &mut Aligned<Self> {
                &mut panels.$field
            }

            fn decode(k: &dyn Kernels, decoder: Cfp8Decoder, from: &[u8], to: &mut [Self]) {
                let decode: fn(&dyn Kernels, Cfp8Decoder, &[u8], &mut [Self]) = $decode;
                decode(k, decoder, from, to);
            }
        }
    };
}

tile!(f32, matmul_f32 packed_len_f32 pack_b_f32 F32 0, |_, _, _, _| {});
tile!(bf16, matmul_bf16 packed_len_bf16 pack_b_bf16 Bf16 1, |k, decoder, from, to| {
    k.cfp8_to_bf16(decoder, from, to);
});

/// The sources by name.
struct Operands<'a> {
    a: &'a Source<'a>,
    b: &'a Source<'a>,
    sums: Option<&'a Source<'a>>,
    bias: Option<&'a Source<'a>>,
    residual: Option<&'a Source<'a>>,
    /// Exponent biases of A and B.
    exponents: Option<(Bias, Bias)>,
}

impl<'a> Operands<'a> {
    fn of(instr: &MatMul, sources: &'a [Source<'a>]) -> Result<Self, Fault> {
        let mut rest = sources.iter();
        let mut next = || rest.next().ok_or_else(Fault::operands);
        let (a, b) = (next()?, next()?);
        let mut optional = |there: bool| there.then(&mut next).transpose();
        let sums = optional(*instr.sums)?;
        let bias = optional(*instr.bias)?;
        let residual = optional(instr.residual.is_some())?;
        let exponents = match (optional(*instr.cfp8)?, optional(*instr.cfp8)?) {
            (Some(a), Some(b)) => Some((convert::bias(a)?, convert::bias(b)?)),
            _ => None,
        };
        Ok(Self {
            a,
            b,
            sums,
            bias,
            residual,
            exponents,
        })
    }
}

/// Extents of a product.
#[derive(Clone, Copy)]
struct Extents<'a> {
    /// Dimensions of m.
    m: &'a [u64],
    n: usize,
    k: usize,
}

/// An operand that is read by rows of m: where it is, and how the dimensions of m advance.
struct Placed<'a> {
    bytes: &'a [u8],
    /// Its first element.
    at: i64,
    m: Axes,
}

/// A as the kernels take it.
struct Left<'a> {
    rows: Placed<'a>,
    /// The distance of stored rows in elements if they are columns of A.
    transposed: Option<usize>,
}

/// C = A B with its epilogue.
pub(super) fn matmul(
    instr: &MatMul,
    c: &mut Target<'_>,
    sources: &[Source<'_>],
    scalars: &[i64],
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let operands = Operands::of(instr, sources)?;
    match operands.a.layout.view.dtype {
        DType::F32 => typed_matmul::<f32>(instr, c, &operands, scalars, cx),
        _ => typed_matmul::<bf16>(instr, c, &operands, scalars, cx),
    }
}

fn typed_matmul<E: Tile>(
    instr: &MatMul,
    c: &mut Target<'_>,
    operands: &Operands<'_>,
    scalars: &[i64],
    cx: &mut Cx<'_>,
) -> Result<(), Fault> {
    let product = instr
        .product(&operands.a.layout.view, &operands.b.layout.view)
        .map_err(Fault::new)?;
    let extents = Extents {
        m: product.m,
        n: product.n as usize,
        k: product.k as usize,
    };
    if c.layout.elements == 0 {
        return Ok(());
    }
    let Scratch {
        kernels: kernel_scratch,
        panels,
        copies: [a_copy, b_copy, c_copy, sums_copy, residual_copy, bias_copy],
        codes,
        ..
    } = cx.scratch;
    let k = cx.kernels;
    let in_place = &*c.bytes;
    let reader = Reader { k, in_place };
    let left = reader.left::<E>(instr, operands, extents, (a_copy, &mut *codes))?;
    let sums = reader.optional(operands.sums, sums_copy)?;
    let residual = reader.optional(operands.residual, residual_copy)?;
    let bias = match operands.bias {
        Some(bias) => Some(typed::<f32>(dense(bias, in_place, bias_copy)?)?),
        None => None,
    };
    let (c_direct, c_axes) = row_axes(&c.layout.view)?;
    let axes_of = |placed: &Option<Placed<'_>>| placed.as_ref().map_or_else(Axes::default, |p| p.m);
    let nest = Nest::new(
        extents.m,
        [&left.rows.m, &c_axes, &axes_of(&sums), &axes_of(&residual)],
    );
    let right = Right {
        instr,
        operands,
        extents,
        reader,
    };
    let cached;
    let rhs: Rhs<'_, E> = match (operands.b.panels, operands.b.bytes) {
        (Some(cache), Bytes::Slice(_)) => {
            cached = right.cached::<E>(cache, (b_copy, &mut *codes))?;
            let panels = E::of_panels(&cached);
            Rhs::Packed(panels.ok_or_else(|| Fault::new("kept panels are of another type"))?)
        }
        _ => {
            let b = right.plain::<E>((b_copy, &mut *codes))?;
            if nest.is_row() {
                b
            } else {
                let panels = E::scratch_panels(panels).of_len(E::packed_len(extents.k, extents.n));
                E::pack(k, b, (extents.k, extents.n), panels);
                Rhs::Packed(panels)
            }
        }
    };
    let call = Call {
        instr,
        extents,
        left,
        rhs,
        sums,
        residual: operands.residual.map(|r| r.layout.view.dtype).zip(residual),
        bias,
        draw: instr.stochastic.map(|site| Draw {
            seed: cx.seed,
            step: cx.step,
            site,
            index: scalar(scalars, 0) as u64,
        }),
        row: scalar(scalars, 1) as u64,
    };
    if c_direct {
        let at = -c.layout.low;
        return call.run(k, &nest, (c.layout.view.dtype, c.bytes, at), kernel_scratch);
    }
    let keep = *instr.accumulate && !*instr.sums;
    let dtype = c.layout.view.dtype;
    with_dense(c, c_copy, keep, |bytes| {
        call.run(k, &nest, (dtype, bytes, 0), kernel_scratch)
    })
}

/// How the dimensions of m advance in an operand `[m.., n]`, and whether kernels can use it where it
/// is: otherwise the axes are those of a dense copy.
fn row_axes(view: &ViewType) -> Result<(bool, Axes), Fault> {
    let size = view.dtype.bytes();
    let found = axes(view)?;
    let (last, outer) = view.shape.split_last().ok_or_else(Fault::operands)?;
    let columns = *last <= 1 || found[outer.len()] == Axis::plain(size as i64);
    let rows = found[..outer.len()].iter().all(|axis| axis.stride >= 0);
    if view.packing == Packing::Strided && columns && rows {
        Ok((true, found))
    } else {
        Ok((false, dense_axes(&view.shape, size)))
    }
}

/// The stride of dimensions that are evenly spaced, counted together.
fn even(shape: &[u64], axes: &[Axis]) -> Option<i64> {
    let nest = Nest::new(shape, [axes]);
    let (_, [axis]) = nest.row();
    (nest.is_row() && axis.block == 1 && axis.stride >= 0).then_some(axis.stride)
}

/// Memory for elements, and for codes that become elements.
type Memory<'m, 'c> = (&'m mut Vec<u64>, &'c mut Vec<u64>);

/// Finds operands, or copies them.
#[derive(Clone, Copy)]
struct Reader<'a> {
    k: &'static dyn Kernels,
    /// The bytes of C.
    in_place: &'a [u8],
}

impl Reader<'_> {
    /// A copy of a source, dense in the order of `shape` and `axes`, decoded if it is cfp8.
    fn copy<'m, E: Tile>(
        self,
        source: &Source<'_>,
        bias: Option<Bias>,
        (shape, axes): (&[u64], &Axes),
        (memory, codes): Memory<'m, '_>,
    ) -> Result<&'m [E], Fault> {
        let layout = source.layout;
        let size = layout.size();
        let from = (bytes_in(source, self.in_place), -layout.low);
        let nest = Nest::new(shape, [&dense_axes(shape, size as u64), axes]);
        let to = bytes_of(memory, layout.elements * size_of::<E>());
        match (bias, convert::cfp8(layout.view.dtype)) {
            (Some(bias), Some(format)) => {
                let codes = bytes_of(codes, layout.elements);
                walk::copy(size as u64, &nest, (codes, 0), from)?;
                E::decode(
                    self.k,
                    Cfp8Decoder::new(format, bias),
                    codes,
                    typed_mut(to)?,
                );
            }
            _ => walk::copy(size as u64, &nest, (to, 0), from)?,
        }
        typed(to)
    }

    /// A where it is, if its rows or columns lie side by side, else a copy.
    fn left<'m, E: Tile>(
        self,
        instr: &MatMul,
        operands: &Operands<'m>,
        extents: Extents<'_>,
        memory: Memory<'m, '_>,
    ) -> Result<Left<'m>, Fault> {
        let source = operands.a;
        let view = &source.layout.view;
        if extents.k == 0 {
            let rows = Placed {
                bytes: &[],
                at: 0,
                m: Axes::default(),
            };
            return Ok(Left {
                rows,
                transposed: None,
            });
        }
        let (rank, split) = (view.shape.len(), extents.m.len());
        let mut axes = axes(view)?;
        let mut shape = [1; MAX_VIEW_RANK];
        shape[..rank].copy_from_slice(&view.shape);
        if *instr.transpose_a {
            axes[..rank].rotate_left(rank - split);
            shape[..rank].rotate_left(rank - split);
        }
        let shape = &shape[..rank];
        let size = size_of::<E>() as i64;
        let (m, k) = (&axes[..split], &axes[split..rank]);
        let k_stride = even(&shape[split..], k);
        let m_even = m.iter().all(|axis| axis.block == 1 && axis.stride >= 0);
        let m_dense = m.iter().zip(shape).rfind(|(_, extent)| **extent > 1);
        let m_dense = m_dense.is_none_or(|(axis, _)| *axis == Axis::plain(size));
        let transposed = match (source.bytes, operands.exponents, k_stride) {
            (Bytes::Slice(_), None, Some(stride)) if stride == size || extents.k == 1 => {
                m_even.then_some(None)
            }
            (Bytes::Slice(_), None, Some(stride)) => {
                (m_even && m_dense).then_some(Some((stride / size) as usize))
            }
            _ => None,
        };
        if let (Some(transposed), Bytes::Slice(bytes)) = (transposed, source.bytes) {
            let rows = Placed {
                bytes,
                at: -source.layout.low,
                m: axes,
            };
            return Ok(Left { rows, transposed });
        }
        let bias = operands.exponents.map(|(a, _)| a);
        let copy = self.copy::<E>(source, bias, (shape, &axes), memory)?;
        let rows = Placed {
            bytes: bytemuck::cast_slice(copy),
            at: 0,
            m: dense_axes(shape, size as u64),
        };
        Ok(Left {
            rows,
            transposed: None,
        })
    }

    /// An operand `[m.., n]` where it is, if that will do, else a copy.
    fn optional<'m>(
        self,
        source: Option<&'m Source<'m>>,
        memory: &'m mut Vec<u64>,
    ) -> Result<Option<Placed<'m>>, Fault> {
        let Some(source) = source else {
            return Ok(None);
        };
        let (direct, m) = row_axes(&source.layout.view)?;
        Ok(Some(match source.bytes {
            Bytes::Slice(bytes) if direct => Placed {
                bytes,
                at: -source.layout.low,
                m,
            },
            _ => Placed {
                bytes: dense(source, self.in_place, memory)?,
                at: 0,
                m: dense_axes(&source.layout.view.shape, source.layout.size() as u64),
            },
        }))
    }
}

/// B and what is needed to pack it.
struct Right<'a, 'r> {
    instr: &'a MatMul,
    operands: &'a Operands<'a>,
    extents: Extents<'a>,
    reader: Reader<'r>,
}

impl<'a> Right<'a, '_> {
    /// B where it is, if its rows or columns lie side by side, else a copy.
    fn plain<'m, E: Tile>(&self, memory: Memory<'m, '_>) -> Result<Rhs<'m, E>, Fault>
    where
        'a: 'm,
    {
        let source = self.operands.b;
        let view = &source.layout.view;
        if self.extents.k == 0 {
            return Ok(Rhs::Rows(Matrix {
                data: &[],
                stride: 0,
            }));
        }
        let rank = view.shape.len();
        let mut axes = axes(view)?;
        let mut shape = [1; MAX_VIEW_RANK];
        shape[..rank].copy_from_slice(&view.shape);
        if *self.instr.transpose_b {
            axes[..rank].rotate_left(1);
            shape[..rank].rotate_left(1);
        }
        let shape = &shape[..rank];
        let size = size_of::<E>() as i64;
        let n_axis = axes[rank - 1];
        let n_even = n_axis.block == 1 && n_axis.stride >= 0;
        if let (Bytes::Slice(bytes), None, Some(k_stride), true) = (
            source.bytes,
            self.operands.exponents,
            even(&shape[..rank - 1], &axes[..rank - 1]),
            n_even,
        ) {
            let data = &typed::<E>(bytes)?[(-source.layout.low / size) as usize..];
            if n_axis.stride == size || self.extents.n == 1 {
                let stride = (k_stride / size) as usize;
                return Ok(Rhs::Rows(Matrix { data, stride }));
            }
            if k_stride == size || self.extents.k == 1 {
                let stride = (n_axis.stride / size) as usize;
                return Ok(Rhs::Columns(Matrix { data, stride }));
            }
        }
        let bias = self.operands.exponents.map(|(_, b)| b);
        let data = self
            .reader
            .copy::<E>(source, bias, (shape, &axes), memory)?;
        Ok(Rhs::Rows(Matrix {
            data,
            stride: self.extents.n,
        }))
    }

    /// The panels of B, made unless they are kept.
    fn cached<E: Tile>(
        &self,
        cache: &dyn PanelCache,
        (memory, codes): Memory<'_, '_>,
    ) -> Result<Arc<Panels>, Fault> {
        let key = PanelKey {
            view: self.operands.b.layout.view.clone(),
            transposed: *self.instr.transpose_b,
            bias: self.operands.exponents.map(|(_, b)| b.get()),
        };
        let mut fault = None;
        let panels = cache.get(&key, &mut || {
            let (k, n) = (self.extents.k, self.extents.n);
            let mut panels = Aligned::<E>::new(E::packed_len(k, n));
            match self.plain::<E>((&mut *memory, &mut *codes)) {
                Ok(b) => E::pack(self.reader.k, b, (k, n), &mut panels),
                Err(found) => fault = Some(found),
            }
            E::panels(panels)
        });
        fault.map_or(Ok(panels), Err)
    }
}

/// A product with everything found.
struct Call<'a, E> {
    instr: &'a MatMul,
    extents: Extents<'a>,
    left: Left<'a>,
    rhs: Rhs<'a, E>,
    sums: Option<Placed<'a>>,
    /// With its element type.
    residual: Option<(DType, Placed<'a>)>,
    bias: Option<&'a [f32]>,
    /// Of element (0, 0).
    draw: Option<Draw>,
    /// Elements of the logical tensor from row to row.
    row: u64,
}

impl<E: Tile> Call<'_, E> {
    /// Calls the kernel for every set of rows that are evenly spaced in all operands.
    fn run(
        &self,
        k: &dyn Kernels,
        nest: &Nest<4>,
        (dtype, c, c_at): (DType, &mut [u8], i64),
        scratch: &mut kernels::Scratch,
    ) -> Result<(), Fault> {
        let (m, [a_axis, c_axis, sums_axis, residual_axis]) = nest.row();
        let size = size_of::<E>() as i64;
        let (a, transposed) = (typed::<E>(self.left.rows.bytes)?, self.left.transposed);
        let mut first_row = 0u64;
        nest.for_each_row(|at| {
            let product = Matmul {
                m,
                n: self.extents.n,
                k: self.extents.k,
                a: Lhs {
                    data: &a[((self.left.rows.at + at[0]) / size) as usize..],
                    stride: transposed.unwrap_or((a_axis.stride / size) as usize),
                    transposed: transposed.is_some(),
                },
                b: self.rhs,
                epilogue: Epilogue {
                    bias: self.bias,
                    activation: activation(self.instr.activation),
                    residual: self.residual_of(at[3], *residual_axis)?,
                },
            };
            let (at_c, c_size) = (c_at + at[1], dtype.bytes() as i64);
            let (start, stride) = ((at_c / c_size) as usize, (c_axis.stride / c_size) as usize);
            let output = if dtype == DType::F32 {
                Output::F32 {
                    data: &mut typed_mut(c)?[start..],
                    stride,
                    accumulate: *self.instr.accumulate,
                }
            } else {
                let earlier = match &self.sums {
                    Some(sums) => Some(matrix(sums, at[2], *sums_axis)?),
                    None => None,
                };
                Output::Bf16 {
                    data: &mut typed_mut(c)?[start..],
                    stride,
                    earlier,
                    rounding: self.draw.map_or(Rounding::NearestEven, |draw| {
                        Rounding::Stochastic {
                            draw: draw.advanced(first_row.wrapping_mul(self.row)),
                            row: self.row,
                        }
                    }),
                }
            };
            E::product(k, &product, output, scratch);
            first_row += m as u64;
            Ok(())
        })
    }

    fn residual_of(&self, at: i64, axis: Axis) -> Result<Option<Residual<'_>>, Fault> {
        let Some((dtype, placed)) = &self.residual else {
            return Ok(None);
        };
        Ok(Some(Residual {
            values: match dtype {
                DType::F32 => ResidualValues::F32(matrix(placed, at, axis)?),
                _ => ResidualValues::Bf16(matrix(placed, at, axis)?),
            },
            before_activation: self.instr.residual == Some(ResidualPlace::Before),
        }))
    }
}

/// The rows of an operand `[m.., n]` from a position on.
fn matrix<'a, T: Pod>(placed: &Placed<'a>, at: i64, axis: Axis) -> Result<Matrix<'a, T>, Fault> {
    let size = size_of::<T>() as i64;
    Ok(Matrix {
        data: &typed(placed.bytes)?[((placed.at + at) / size) as usize..],
        stride: (axis.stride / size) as usize,
    })
}

fn activation(function: Option<Function>) -> Activation {
    match function {
        None => Activation::None,
        Some(Function::Relu) => Activation::Relu,
        Some(Function::Gelu) => Activation::Gelu,
        Some(Function::GeluTanh) => Activation::GeluTanh,
        Some(Function::Silu) => Activation::Silu,
        Some(Function::Tanh) => Activation::Tanh,
        Some(Function::Sigmoid) => Activation::Sigmoid,
    }
}
