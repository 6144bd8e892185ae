//! Instances of left sides of rules: extents, attributes and broadcasts at random.

use dojoc_ir::formats::random_bits;
use dojoc_ir::ops::Op;
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::{DType, Type};

use super::facts::{Facts, Offline};
use super::full;
use super::scratch::{Scratch, Term};

/// How extents are drawn; each hides other mistakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extents {
    /// 1, or primes that differ within an instance: a wrong axis does not fit.
    Primes,
    /// All the same: every wrong axis fits.
    Equal,
    /// 2 or 4, and now and then 1: some fit, and products too.
    Pairs,
}

impl Extents {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Primes, Self::Equal, Self::Pairs];
}

/// Builds one instance. Everything drawn is a function of the seed.
#[derive(Debug)]
pub struct Gen {
    scratch: Scratch,
    seed: u64,
    drawn: u64,
    extents: Extents,
    primes: Vec<u64>,
    leaves: usize,
    reuse: bool,
    /// Element type of the operands.
    pub dtype: DType,
}

impl Gen {
    /// A generator of one instance.
    pub fn new(seed: u64, dtype: DType, extents: Extents) -> Self {
        let offline = Offline {
            bytes: u64::MAX,
            points: u64::MAX,
        };
        Self {
            scratch: Scratch::new(offline),
            seed,
            drawn: 0,
            extents,
            primes: vec![2, 3, 5, 7],
            leaves: 0,
            reuse: false,
            dtype,
        }
    }

    /// The graph so far.
    pub fn finish(self) -> Scratch {
        self.scratch
    }

    /// A number below `n`, which must not be zero.
    pub fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        random_bits(self.seed, 0, 0, self.drawn) as usize % n
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let n = self.below(from.len());
        from[n]
    }

    /// An extent.
    pub fn dim(&mut self) -> u64 {
        if self.extents != Extents::Equal && self.once_in(6) {
            return 1;
        }
        match self.extents {
            Extents::Equal => 3,
            Extents::Pairs => self.pick(&[2, 2, 4]),
            Extents::Primes => {
                if self.primes.is_empty() {
                    return self.pick(&[1, 2, 3]);
                }
                let n = self.below(self.primes.len());
                self.primes.remove(n)
            }
        }
    }

    /// This many extents.
    pub fn dims(&mut self, rank: usize) -> Vec<u64> {
        (0..rank).map(|_| self.dim()).collect()
    }

    /// Between `low` and `high` extents.
    pub fn shape(&mut self, low: usize, high: usize) -> Vec<u64> {
        let rank = low + self.below(high - low + 1);
        self.dims(rank)
    }

    /// From now on operands may be values that there are already.
    pub fn reuse(&mut self) {
        self.reuse = true;
        self.primes = vec![2, 3, 5];
    }

    /// An operand.
    pub fn leaf(&mut self, dims: &[u64]) -> Term {
        if self.reuse && !self.once_in(3) {
            let ty = Type::of(self.dtype, dims);
            let all = (0..self.scratch.items.len()).map(Term);
            let fits: Vec<Term> = all.filter(|t| self.scratch.ty(*t) == &ty).collect();
            if !fits.is_empty() {
                return self.pick(&fits);
            }
        }
        let facts = Facts {
            ty: Type::of(self.dtype, dims),
            weight: true,
            splat: None,
            non_negative: false,
        };
        self.leaves += 1;
        self.scratch.leaf(self.leaves - 1, facts)
    }

    /// A constant with all elements equal.
    pub fn constant(&mut self, dims: &[u64], value: f64) -> Option<Term> {
        let ty = Type::of(self.dtype, dims);
        let value = Scalar::from_f64(value, self.dtype);
        self.scratch.op(full(&ty, value), &[])
    }

    /// An order of dims.
    pub fn perm(&mut self, rank: usize) -> Vec<usize> {
        let mut perm: Vec<usize> = (0..rank).collect();
        for n in (1..rank).rev() {
            let other = self.below(n + 1);
            perm.swap(n, other);
        }
        perm
    }

    /// Some of the dims, in any order, at least one if there is one.
    pub fn axes(&mut self, rank: usize) -> Vec<usize> {
        let mut axes = self.perm(rank);
        axes.truncate(1 + self.below(rank.max(1)));
        axes
    }

    /// Extents that broadcast to `dims`.
    pub fn broadcast(&mut self, dims: &[u64]) -> Vec<u64> {
        let skip = self.below(dims.len() + 1);
        let keep = |g: &mut Self, d: &u64| if g.once_in(3) { 1 } else { *d };
        match self.below(4) {
            0 => dims.to_vec(),
            1 => dims.iter().map(|_| 1).collect(),
            _ => dims[skip..].iter().map(|d| keep(self, d)).collect(),
        }
    }

    /// Extents of which only those of `axis` may differ from 1, for a value of these extents; leading
    /// ones are left out at random. Once in a while other extents that broadcast.
    pub fn along(&mut self, dims: &[u64], axis: usize) -> Vec<u64> {
        if self.once_in(4) {
            return self.broadcast(dims);
        }
        let skip = self.below(axis + 1);
        let at = |n: usize| if n == axis { dims[n] } else { 1 };
        (skip..dims.len()).map(at).collect()
    }

    /// Other extents with as many elements: neighbours are merged, and extents of one go and come.
    pub fn regroup(&mut self, dims: &[u64]) -> Vec<u64> {
        let mut out: Vec<u64> = vec![];
        for d in dims {
            match (self.below(4), out.last_mut()) {
                (0, Some(last)) => *last *= d,
                (1, _) => out.extend([1, *d]),
                (2, _) if d % 2 == 0 => out.extend([2, d / 2]),
                (_, _) if *d == 1 && self.once_in(2) => {}
                _ => out.push(*d),
            }
        }
        let elements: u64 = dims.iter().product();
        let sorted = |mut dims: Vec<u64>| {
            dims.sort_unstable();
            dims
        };
        if self.once_in(3) && sorted(out.clone()) != sorted(dims.to_vec()) {
            out.reverse();
        }
        if out.len() > 4 {
            return vec![elements];
        }
        out
    }

    /// A function of one value.
    pub fn any_unary(&mut self) -> UnaryFn {
        self.pick(UnaryFn::ALL)
    }

    /// A function of two values.
    pub fn any_binary(&mut self) -> BinaryFn {
        self.pick(BinaryFn::ALL)
    }

    /// The extents of a value.
    pub fn dims_of(&self, term: Term) -> Vec<u64> {
        self.scratch.dims(term)
    }

    /// Adds a node with one result; `None` if the op refuses the operands.
    pub fn op(&mut self, op: impl Into<Op>, args: &[Term]) -> Option<Term> {
        self.scratch.op(op, args)
    }

    /// Adds a function of one value.
    pub fn unary(&mut self, f: UnaryFn, x: Term) -> Option<Term> {
        self.scratch.unary(f, x)
    }

    /// Adds a function of two values, its operands in either order if `swap` says so.
    pub fn binary(&mut self, f: BinaryFn, a: Term, b: Term) -> Option<Term> {
        self.scratch.binary(f, a, b)
    }

    /// Adds a commutative function with its operands in either order.
    pub fn either(&mut self, f: BinaryFn, a: Term, b: Term) -> Option<Term> {
        if self.once_in(2) {
            self.scratch.binary(f, a, b)
        } else {
            self.scratch.binary(f, b, a)
        }
    }

    /// Adds a value under other extents, even if they are the same.
    pub fn reshape(&mut self, x: Term, shape: &[u64]) -> Option<Term> {
        let shape = shape.iter().map(|d| (*d).into()).collect();
        self.scratch.op(dojoc_ir::ops::Reshape { shape }, &[x])
    }

    /// Adds a value with its dims in another order, even if it is the same.
    pub fn transpose(&mut self, x: Term, perm: Vec<usize>) -> Option<Term> {
        self.scratch.op(dojoc_ir::ops::Transpose { perm }, &[x])
    }
}
