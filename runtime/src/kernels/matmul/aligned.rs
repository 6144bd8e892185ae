//! Memory for panels.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector: a load that crosses lines takes twice the
/// time, which costs f32 products up to a fifth of their speed.
const LINE: usize = 64;

/// A vector whose elements start at a multiple of 64 bytes. Panels of B may be anywhere, but are
/// read faster from here.
#[derive(Debug, Default)]
pub struct Aligned<E> {
    memory: Vec<E>,
    start: usize,
    len: usize,
}

impl<E: Copy + Default> Aligned<E> {
    /// `len` default elements (zeros).
    pub fn new(len: usize) -> Self {
        let mut new = Self {
            memory: vec![],
            start: 0,
            len: 0,
        };
        new.of_len(len);
        new
    }

    /// Makes it `len` elements long, of any value, and gives them.
    pub fn of_len(&mut self, len: usize) -> &mut [E] {
        let spare = LINE / size_of::<E>().clamp(1, LINE);
        if self.memory.len() < len + spare {
            self.memory.resize(len + spare, E::default());
            // An offset that cannot be computed costs speed only.
            self.start = self.memory.as_ptr().align_offset(LINE).min(spare);
        }
        self.len = len;
        self
    }
}

impl<E: Copy + Default> Clone for Aligned<E> {
    /// Another allocation has its own offset.
    fn clone(&self) -> Self {
        let mut new = Self::new(self.len);
        new.copy_from_slice(self);
        new
    }
}

impl<E> Deref for Aligned<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.memory[self.start..][..self.len]
    }
}

impl<E> DerefMut for Aligned<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.memory[self.start..][..self.len]
    }
}
