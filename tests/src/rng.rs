//! A reproducible source of choices.

use dojoc_ir::formats::random_bits;

/// Random choices that a seed determines.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    draws: u64,
}

impl Rng {
    /// The source of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, draws: 0 }
    }

    /// How many choices have been made.
    pub fn draws(&self) -> u64 {
        self.draws
    }

    /// A number below `count`; 0 if that is 0.
    pub fn below(&mut self, count: usize) -> usize {
        self.draws += 1;
        random_bits(self.seed, 0, 0, self.draws) as usize % count.max(1)
    }

    /// A number from `low` to `high`, inclusive.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high - low + 1) as usize) as u64
    }

    /// True once in so many draws.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of the items.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// A number between -1 and 1.
    pub fn unit(&mut self) -> f64 {
        self.below(1 << 20) as f64 / (1 << 19) as f64 - 1.0
    }
}
