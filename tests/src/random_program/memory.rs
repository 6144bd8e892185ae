//! Arrays of a program and of a segment, and random views of them.

use dojoc_ir::program::{Packing, ViewType};
use dojoc_ir::types::DType;

use crate::rng::Rng;

/// An array that outlives a call, one on every core.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<u64>,
    /// Address on the core with the lowest.
    pub at: u64,
    /// What is added to the address on the core with index i, `i mod 3` times.
    pub spread: u64,
    /// Whether it holds anything.
    pub defined: bool,
    /// Whether calls may write it.
    pub writable: bool,
    /// Kind and attributes of the tensor it is from the start on, if it is one.
    pub tensor: Option<String>,
}

impl Slot {
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bytes()
    }

    /// The address as an index expression.
    pub fn address(&self) -> String {
        match self.spread {
            0 => self.at.to_string(),
            spread => format!("{} + {spread} * mod(i, 3)", self.at),
        }
    }
}

/// A buffer of a segment.
#[derive(Clone, Debug)]
pub(super) struct Array {
    pub name: String,
    pub dtype: DType,
    /// Extents of the buffer.
    pub shape: Vec<u64>,
    pub packing: Packing,
    /// The bytes it may occupy, on whatever core.
    pub range: (u64, u64),
    /// Whether all of it has been written.
    pub defined: bool,
    pub writable: bool,
    /// Whether it belongs to the network at the moment.
    pub locked: bool,
    /// Whether another buffer has taken its bytes.
    pub dead: bool,
}

impl Array {
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }

    pub fn readable(&self) -> bool {
        self.defined && !self.locked && !self.dead
    }
}

/// `[a, b, c]`.
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    format!("[{}]", items.join(", "))
}

/// A loop around a view.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    pub name: String,
    pub count: u64,
}

/// Where a view lies in its buffer.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// First byte.
    pub offset: u64,
    /// What is added per iteration of the loops, by counter.
    pub steps: Vec<(String, u64)>,
    pub strides: Vec<i64>,
    /// Whether it is dense, so that strides need not be written.
    pub dense: bool,
}

impl Window {
    /// The view in the text.
    pub fn text(&self, name: &str, of: &str, dtype: DType, shape: &[u64]) -> String {
        let mut offset = self.offset.to_string();
        for (counter, step) in &self.steps {
            offset.push_str(&format!(" + {step} * %{counter}"));
        }
        let strides = if self.dense {
            String::new()
        } else {
            format!(", strides = {}", list(&self.strides))
        };
        format!(
            "%{name} = view %{of} {{offset = {offset}{strides}}} : {dtype}{}\n",
            list(shape)
        )
    }
}

/// A random window of these extents in so many bytes, if one fits; with a place of its own for
/// every element if it is written.
pub(super) fn window(
    rng: &mut Rng,
    (dtype, shape): (DType, &[u64]),
    capacity: u64,
    (strided, written): (bool, bool),
    loops: &[Counter],
) -> Option<Window> {
    let dense = ViewType::dense(dtype, shape, Packing::Strided)?;
    for attempt in 0..4 {
        let mut view = dense.clone();
        if strided && attempt < 3 && !rng.one_in(3) {
            restride(rng, &mut view, written);
        }
        let (low, high) = view.extent()?;
        let Some(slack) = capacity.checked_sub((high - low) as u64) else {
            continue;
        };
        let size = dtype.bytes();
        let offset = size * rng.below((slack / size + 1) as usize) as u64;
        let mut slack = slack - offset;
        let mut steps = Vec::new();
        for counter in loops {
            let most = slack / (counter.count - 1).max(1) / size;
            if counter.count > 1 && most > 0 && rng.one_in(2) {
                let step = size * rng.within(1, most);
                slack -= step * (counter.count - 1);
                steps.push((counter.name.clone(), step));
            }
        }
        return Some(Window {
            offset: offset + low.unsigned_abs(),
            steps,
            dense: view.strides == dense.strides,
            strides: view.strides,
        });
    }
    None
}

/// Other strides: dimensions in another order, with gaps, reversed, or repeated.
fn restride(rng: &mut Rng, view: &mut ViewType, written: bool) {
    let size = view.dtype.bytes() as i64;
    let rank = view.shape.len();
    let mut order: Vec<usize> = (0..rank).rev().collect();
    if rng.one_in(2) {
        for i in (1..rank).rev() {
            order.swap(i, rng.below(i + 1));
        }
    }
    let mut step = size;
    for d in order {
        let gap = if rng.one_in(3) {
            rng.below(3) as i64 * size
        } else {
            0
        };
        let stride = step + gap;
        step = stride * view.shape[d] as i64;
        view.strides[d] = match rng.below(8) {
            0 if !written => 0,
            1 if !written => size,
            2 => -stride,
            _ => stride,
        };
    }
}
