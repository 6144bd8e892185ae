//! Whole tensors into the memory of a program and out of it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::program::{Program, TensorDecl, TensorKind};
use dojoc_ir::tensor::{Tensor, unravel};
use dojoc_ir::types::DType;

use super::layout::{box_rows, slice_box};
use super::walk::{Home, Piece, located, malformed, shape_of, walk};
use super::{Keep, Memory, ReadMemory};
use crate::codes::{BAD_TENSOR, REPLICAS_DIFFER};

/// Bytes of boxes that are kept for further cores, at most.
const CACHED_BYTES: usize = 64 << 20;

/// Makes the dense bytes of a box: takes its first indices and extents.
pub type MakeBox<'a> = dyn FnMut(&[u64], &[u64]) -> Result<Bytes, Diagnostic> + 'a;

/// Writes a tensor to all its shards.
///
/// # Errors
/// A tensor of another type than declared ([`BAD_TENSOR`]), a malformed shard, and what `memory`
/// returns.
pub fn place(
    tensor: &Tensor,
    decl: &TensorDecl,
    program: &Program,
    dims: &[i64],
    memory: &mut dyn Memory,
    keep: Keep,
) -> Result<(), Diagnostic> {
    let shape = shape_of(decl, dims).map_err(|d| located(program, decl, d))?;
    if tensor.dtype() != decl.dtype || tensor.shape() != shape {
        let message = format!(
            "@{} is {}{shape:?}, found {}{:?}",
            decl.name,
            decl.dtype,
            tensor.dtype(),
            tensor.shape()
        );
        let mut found = Diagnostic::input(BAD_TENSOR, message);
        if decl.dtype == DType::Bf16 && tensor.shape() == shape {
            found = found.help(
                "an .npy file or an array of an .npz archive is bf16 if it is of uint16 and its name ends in \
                 `.bf16`; .safetensors and ONNX tensors have the type",
            );
        }
        return Err(located(program, decl, found));
    }
    let size = decl.dtype.bytes() as usize;
    let mut cut = |start: &[u64], extents: &[u64]| {
        Ok(slice_box(tensor.bytes(), &shape, start, extents, size))
    };
    place_with(decl, program, dims, memory, keep, &mut cut)
}

/// Writes a tensor to all its shards, box by box. `make` is asked once for cores with equal boxes, as far as they fit a
/// bounded cache.
///
/// # Errors
/// A malformed shard, and what `make` and `memory` return.
pub fn place_with(
    decl: &TensorDecl,
    program: &Program,
    dims: &[i64],
    memory: &mut dyn Memory,
    keep: Keep,
    make: &mut MakeBox<'_>,
) -> Result<(), Diagnostic> {
    let shape = shape_of(decl, dims).map_err(|d| located(program, decl, d))?;
    let mut cache: HashMap<(Arc<[u64]>, Vec<u64>), Bytes> = HashMap::new();
    let mut cached = 0;
    walk(program, decl, &shape, dims, |piece| {
        let key = (piece.start.clone(), piece.layout.view.shape.clone());
        let data = match cache.get(&key) {
            Some(data) => data.clone(),
            None => {
                let data = make(&piece.start, &piece.layout.view.shape)?;
                if cached + data.len() > CACHED_BYTES {
                    cache.clear();
                    cached = 0;
                }
                cached += data.len();
                cache.insert(key, data.clone());
                data
            }
        };
        write(memory, piece, &data, keep)
    })
}

fn write(
    memory: &mut dyn Memory,
    piece: &Piece,
    data: &Bytes,
    keep: Keep,
) -> Result<(), Diagnostic> {
    match piece.home {
        Home::Sram(core) => memory.write(core, piece.at, &piece.layout, data, keep),
        Home::Dram { dram, instance, .. } => {
            memory.write_dram(dram, instance, piece.at, &piece.layout, data, keep)
        }
    }
}

/// Reads a piece of a tensor; `out` becomes dense.
///
/// # Errors
/// What `memory` returns.
pub fn read_piece(
    memory: &dyn ReadMemory,
    piece: &Piece,
    out: &mut Vec<u8>,
) -> Result<(), Diagnostic> {
    out.clear();
    out.resize(piece.bytes(), 0);
    match piece.home {
        Home::Sram(core) => memory.read(core, piece.at, &piece.layout, out),
        Home::Dram { dram, instance, .. } => {
            memory.read_dram(dram, instance, piece.at, &piece.layout, out)
        }
    }
}

/// A tensor that grows from boxes.
#[derive(Debug)]
pub struct Assembly {
    shape: Vec<u64>,
    size: usize,
    data: Vec<u8>,
    /// A bit for each element that is there.
    there: Vec<u64>,
}

impl Assembly {
    /// Nothing of a tensor with these extents.
    pub fn new(decl: &TensorDecl, shape: Vec<u64>) -> Self {
        let elements = shape.iter().product::<u64>() as usize;
        let size = decl.dtype.bytes() as usize;
        Self {
            shape,
            size,
            data: vec![0; elements * size],
            there: vec![0; elements.div_ceil(64)],
        }
    }

    /// Adds the dense bytes of a box.
    ///
    /// # Errors
    /// [`REPLICAS_DIFFER`] where an element is there with other bits.
    pub fn add(
        &mut self,
        program: &Program,
        decl: &TensorDecl,
        piece: &Piece,
        dense: &[u8],
    ) -> Result<(), Diagnostic> {
        let (size, data, there) = (self.size, &mut self.data, &mut self.there);
        let mut differs = None;
        let extents = &piece.layout.view.shape;
        box_rows(&self.shape, &piece.start, extents, size, |to, from, row| {
            for (i, element) in dense[from..from + row].chunks_exact(size).enumerate() {
                let place = to / size + i;
                let slot = &mut data[place * size..][..size];
                let (word, bit) = (place / 64, 1u64 << (place % 64));
                if there[word] & bit == 0 {
                    there[word] |= bit;
                    slot.copy_from_slice(element);
                } else if slot != element && differs.is_none() {
                    differs = Some(place as u64);
                }
            }
        });
        match differs {
            None => Ok(()),
            Some(element) => Err(self.differs(program, decl, element, piece)),
        }
    }

    /// The error of two copies with different bits.
    fn differs(
        &self,
        program: &Program,
        decl: &TensorDecl,
        element: u64,
        piece: &Piece,
    ) -> Diagnostic {
        let what = match decl.kind {
            TensorKind::State(_) => "state",
            TensorKind::Output => "output",
            _ => "probe",
        };
        let index = unravel(element, &self.shape);
        let message = format!(
            "@{}: element {index:?} of the {what} has other bits in {} than in another copy of it",
            decl.name, piece.home
        );
        let found = Diagnostic::input(REPLICAS_DIFFER, message);
        located(program, decl, found)
    }

    /// The tensor, if all its elements are there.
    ///
    /// # Errors
    /// The first element that is not.
    pub fn finish(self, program: &Program, decl: &TensorDecl) -> Result<Tensor, Diagnostic> {
        let elements = (self.data.len() / self.size) as u64;
        let missing = (0..elements).find(|e| self.there[(e / 64) as usize] >> (e % 64) & 1 == 0);
        let found = match missing {
            Some(element) => {
                let index = unravel(element, &self.shape);
                Err(malformed(decl, &format!("lies nowhere at {index:?}")))
            }
            None => Tensor::from_bytes(decl.dtype, &self.shape, Bytes::from(self.data))
                .map_err(|e| malformed(decl, &format!("cannot be read: {e}"))),
        };
        found.map_err(|d| located(program, decl, d))
    }
}

/// Reads a tensor from its shards.
///
/// # Errors
/// A malformed shard; elements that no shard holds; copies of an element with different bits
/// ([`REPLICAS_DIFFER`]), with the memory that held the first one; and what `memory` returns.
pub fn collect(
    decl: &TensorDecl,
    program: &Program,
    dims: &[i64],
    memory: &dyn ReadMemory,
) -> Result<Tensor, Diagnostic> {
    let shape = shape_of(decl, dims).map_err(|d| located(program, decl, d))?;
    let mut assembly = Assembly::new(decl, shape.clone());
    let mut dense = Vec::new();
    walk(program, decl, &shape, dims, |piece| {
        read_piece(memory, piece, &mut dense)
            .map_err(|d| d.note(format!("while @{} is read", decl.name)))?;
        assembly.add(program, decl, piece, &dense)
    })?;
    assembly.finish(program, decl)
}
