//! Views: strided and packed windows of SRAM.

use serde::{Deserialize, Serialize};

use super::Affine;
use crate::types::DType;

/// The most dimensions a view may have.
pub const MAX_VIEW_RANK: usize = 5;

/// How elements of the two innermost dimensions lie.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Packing {
    /// By the strides.
    #[default]
    Strided,
    /// In blocks of 8 rows by 4 columns, row-major inside: what the matrix unit reads of A in one
    /// step. Extents are rounded up to whole blocks.
    Packed8x4,
    /// In blocks of 4 rows by 8 columns, row-major inside: what it reads of B.
    Packed4x8,
}

impl Packing {
    /// All of them with their names in text.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Strided, "strided"),
        (Self::Packed8x4, "packed8x4"),
        (Self::Packed4x8, "packed4x8"),
    ];

    /// Rows and columns of a block; (1, 1) without packing.
    pub fn block(self) -> (u64, u64) {
        match self {
            Self::Strided => (1, 1),
            Self::Packed8x4 => (8, 4),
            Self::Packed4x8 => (4, 8),
        }
    }
}

/// Type, extents and layout of a view whose extents are known.
///
/// Without packing, element `(i0, i1, ..)` is at `sum of ik * strides[k]` bytes from the view's
/// first byte. With packing, the last two strides are distances between *blocks*: with blocks of R
/// rows and C columns, `(.., r, c)` is at `(r / R) * strides[n-2] + (c / C) * strides[n-1] +
/// ((r % R) * C + c % C) * bytes of an element`, plus the outer dimensions as before.
///
/// A stride of zero repeats an element (broadcasting); views that are written have distinct
/// places for all elements.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ViewType {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; at most [`MAX_VIEW_RANK`].
    pub shape: Vec<u64>,
    /// Strides in bytes, as many as extents.
    pub strides: Vec<i64>,
    /// Packing of the two innermost dimensions.
    pub packing: Packing,
}

impl ViewType {
    /// A dense view: row-major, or dense blocks in row-major order; `None` on overflow.
    pub fn dense(dtype: DType, shape: &[u64], packing: Packing) -> Option<Self> {
        let strides = dense_strides(dtype, shape, packing)?;
        Some(Self {
            dtype,
            shape: shape.to_vec(),
            strides,
            packing,
        })
    }

    /// Number of elements, saturating.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// Bytes of the elements alone, saturating: what a message of this view carries.
    pub fn bytes(&self) -> u64 {
        self.elements().saturating_mul(self.dtype.bytes())
    }

    /// The first byte and the one behind the last that the view touches, relative to its offset;
    /// `(0, 0)` without elements, `None` on overflow. A packed view touches whole blocks.
    pub fn extent(&self) -> Option<(i64, i64)> {
        if self.shape.contains(&0) {
            return Some((0, 0));
        }
        let (rows, columns) = self.packing.block();
        let rank = self.shape.len();
        let (mut low, mut high) = (0i64, 0i64);
        for (d, (extent, stride)) in self.shape.iter().zip(&self.strides).enumerate() {
            let per_block = match rank - d {
                1 => columns,
                2 => rows,
                _ => 1,
            };
            let last = i64::try_from(extent.div_ceil(per_block) - 1).ok()?;
            let reach = last.checked_mul(*stride)?;
            low = low.checked_add(reach.min(0))?;
            high = high.checked_add(reach.max(0))?;
        }
        let unit = i64::try_from(rows * columns * self.dtype.bytes()).ok()?;
        Some((low, high.checked_add(unit)?))
    }

    /// Whether the view is without packing and its elements lie side by side in row-major order.
    pub fn is_dense(&self) -> bool {
        self.packing == Packing::Strided
            && dense_strides(self.dtype, &self.shape, self.packing).is_some_and(|dense| {
                self.shape
                    .iter()
                    .zip(self.strides.iter().zip(&dense))
                    .all(|(extent, (a, b))| *extent <= 1 || a == b)
            })
    }

    /// Whether elements lie apart from each other, as they must in a view that is written.
    ///
    /// Decided by nesting: every dimension must step over what the dimensions of smaller strides
    /// span together. Layouts that are free of overlap but interleave their dimensions in another
    /// way count as overlapping.
    pub fn distinct_places(&self) -> bool {
        if self.shape.contains(&0) {
            return true;
        }
        let (rows, columns) = self.packing.block();
        let rank = self.shape.len();
        let steps = self.shape.iter().zip(&self.strides).enumerate();
        let mut steps: Vec<(u64, u64)> = steps
            .map(|(d, (extent, stride))| match rank - d {
                1 => (stride.unsigned_abs(), extent.div_ceil(columns)),
                2 => (stride.unsigned_abs(), extent.div_ceil(rows)),
                _ => (stride.unsigned_abs(), *extent),
            })
            .filter(|(_, extent)| *extent > 1)
            .collect();
        steps.sort_unstable();
        let mut span = rows * columns * self.dtype.bytes();
        for (stride, extent) in steps {
            if stride < span {
                return false;
            }
            span = span.saturating_add(stride.saturating_mul(extent - 1));
        }
        true
    }

    /// The byte, relative to the view's offset, at which an element lies. `index` is within the
    /// extents.
    pub fn position(&self, index: &[u64]) -> i64 {
        let (rows, columns) = self.packing.block();
        let rank = self.shape.len();
        let mut at = 0i64;
        let mut inside = 0u64;
        for (d, (i, stride)) in index.iter().zip(&self.strides).enumerate() {
            let i = match rank - d {
                1 => {
                    inside += i % columns;
                    i / columns
                }
                2 => {
                    inside += (i % rows) * columns;
                    i / rows
                }
                _ => *i,
            };
            at += i as i64 * stride;
        }
        at + (inside * self.dtype.bytes()) as i64
    }
}

/// Strides in bytes of a dense layout, see [`ViewType::dense`].
pub fn dense_strides(dtype: DType, shape: &[u64], packing: Packing) -> Option<Vec<i64>> {
    let (rows, columns) = packing.block();
    let rank = shape.len();
    let mut strides = vec![0i64; rank];
    let mut step = i64::try_from(rows * columns * dtype.bytes()).ok()?;
    for d in (0..rank).rev() {
        strides[d] = step;
        let per_block = match rank - d {
            1 => columns,
            2 => rows,
            _ => 1,
        };
        let blocks = i64::try_from(shape[d].div_ceil(per_block)).ok()?;
        step = step.checked_mul(blocks.max(1))?;
    }
    Some(strides)
}

/// A named interval of a core's SRAM. Its bytes belong to nobody else between its first write and
/// its last read.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// Its name, unique among buffers and views of the segment.
    pub name: std::sync::Arc<str>,
    /// Address of the first byte; depends on parameters only.
    pub at: Affine,
    /// Element type.
    pub dtype: DType,
    /// Largest extents.
    pub shape: Vec<u64>,
    /// Layout of the whole: dense in this packing.
    pub packing: Packing,
    /// How its content relates to other calls.
    pub role: BufferRole,
    /// Where it comes from.
    pub loc: Option<super::LocId>,
}

impl Buffer {
    /// The view of the whole buffer; `None` on overflow.
    pub fn view_type(&self) -> Option<ViewType> {
        ViewType::dense(self.dtype, &self.shape, self.packing)
    }

    /// Bytes of SRAM, saturating.
    pub fn bytes(&self) -> u64 {
        self.view_type()
            .and_then(|view| view.extent())
            .and_then(|(_, high)| u64::try_from(high).ok())
            .unwrap_or(u64::MAX)
    }
}

/// How the content of a buffer relates to other calls of a core's schedule and to tensors.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum BufferRole {
    /// Undefined at the start of a call, gone at its end.
    #[default]
    Scratch,
    /// Holds at the start what an earlier call (or the host, for an input) left at these bytes. What
    /// the call does not write stays for later calls; what it writes is gone at the end.
    In,
    /// Undefined at the start, kept at the end.
    Out,
    /// Both.
    InOut,
}

impl BufferRole {
    /// All of them with their names in text.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Scratch, "scratch"),
        (Self::In, "in"),
        (Self::Out, "out"),
        (Self::InOut, "inout"),
    ];

    /// Whether content is there at the start of a call.
    pub fn live_in(self) -> bool {
        matches!(self, Self::In | Self::InOut)
    }

    /// Whether content is kept at the end of a call.
    pub fn live_out(self) -> bool {
        matches!(self, Self::Out | Self::InOut)
    }
}

/// A window of a buffer, which instructions have as operand.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct View {
    /// Its name, unique among buffers and views of the segment.
    pub name: std::sync::Arc<str>,
    /// The buffer.
    pub buffer: super::BufferId,
    /// First byte, from the start of the buffer.
    pub offset: Affine,
    /// Element type, which may differ from that of the buffer.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<Affine>,
    /// Strides in bytes, see [`ViewType`].
    pub strides: Vec<i64>,
    /// Packing, see [`ViewType`].
    pub packing: Packing,
}

impl View {
    /// The view with its extents evaluated; `None` where they overflow or are negative.
    pub fn view_type(&self, env: &super::Env<'_>) -> Option<ViewType> {
        let extent = |e: &Affine| u64::try_from(e.eval(env)?).ok();
        Some(ViewType {
            dtype: self.dtype,
            shape: self.shape.iter().map(extent).collect::<Option<_>>()?,
            strides: self.strides.clone(),
            packing: self.packing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_positions_fill_blocks() {
        let view = ViewType::dense(DType::Bf16, &[10, 6], Packing::Packed8x4).unwrap();
        assert_eq!(view.strides, [128, 64]);
        assert_eq!(view.extent(), Some((0, 256)));
        assert_eq!(view.position(&[0, 3]), 6);
        assert_eq!(view.position(&[1, 0]), 8);
        assert_eq!(view.position(&[0, 4]), 64);
        assert_eq!(view.position(&[8, 5]), 128 + 64 + 2);
        assert!(!view.is_dense());
    }

    #[test]
    fn places_are_distinct_where_dimensions_nest() {
        let view = |shape: &[u64], strides: &[i64], packing| ViewType {
            dtype: DType::F32,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            packing,
        };
        let strided = |shape: &[u64], strides: &[i64]| {
            view(shape, strides, Packing::Strided).distinct_places()
        };
        assert!(strided(&[], &[]));
        assert!(strided(&[4, 8], &[32, 4]));
        assert!(strided(&[8, 4], &[4, -32]));
        assert!(strided(&[4, 1, 8], &[-40, 0, 4]));
        assert!(strided(&[0, 8], &[0, 0]));
        assert!(!strided(&[4, 8], &[0, 4]));
        assert!(!strided(&[4, 8], &[28, 4]));
        assert!(!strided(&[4, 8], &[4, 4]));
        assert!(!strided(&[2], &[2]));
        // Overflow counts as a span that nothing can step over.
        assert!(!strided(&[u64::MAX, 2], &[i64::MAX, i64::MIN]));
        let packed = |strides| view(&[10, 6], strides, Packing::Packed8x4).distinct_places();
        assert!(packed(&[256, 128]) && packed(&[-512, 256]));
        assert!(!packed(&[128, 128]) && !packed(&[256, 64]));
    }

    #[test]
    fn every_layout_called_distinct_is() {
        let strides = [-12, -8, -4, 0, 4, 8, 12, 16, 24];
        for a in strides {
            for b in strides {
                for c in strides {
                    let view = ViewType {
                        dtype: DType::F32,
                        shape: vec![2, 3, 2],
                        strides: vec![a, b, c],
                        packing: Packing::Strided,
                    };
                    let mut places = std::collections::BTreeSet::new();
                    for i in 0..12 {
                        places.insert(view.position(&[i / 6, i / 2 % 3, i % 2]));
                    }
                    assert!(places.len() == 12 || !view.distinct_places(), "{view:?}");
                }
            }
        }
    }

    #[test]
    fn extents_of_strided_views() {
        let view = ViewType {
            dtype: DType::F32,
            shape: vec![3, 1, 4],
            strides: vec![-64, 9, 4],
            packing: Packing::Strided,
        };
        assert_eq!(view.extent(), Some((-128, 16)));
        assert!(!view.is_dense());
        let dense = ViewType::dense(DType::F32, &[3, 1, 4], Packing::Strided).unwrap();
        assert!(dense.is_dense());
        assert_eq!(dense.extent(), Some((0, 48)));
        let empty = ViewType::dense(DType::F32, &[3, 0], Packing::Strided).unwrap();
        assert_eq!((empty.extent(), empty.bytes()), (Some((0, 0)), 0));
    }
}
