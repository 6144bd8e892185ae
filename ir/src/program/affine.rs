//! Linear expressions of the address generators.

use serde::{Deserialize, Serialize};

/// A variable of a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Var {
    /// An entry of the parameter row.
    Param(u16),
    /// A run parameter, by its position in [`Program::dims`](super::Program::dims).
    Dim(u16),
    /// The counter of the enclosing loop at this depth; 0 is the outermost.
    Loop(u8),
    /// A uniform register.
    Register(u16),
}

/// `constant + sum of coefficient * variable`, in 64 bits. Units are those of where it stands:
/// bytes for addresses, elements for extents, iterations for counts.
///
/// Terms are sorted by variable, and no coefficient is zero, so that equal expressions compare
/// equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Affine {
    /// What does not depend on a variable.
    pub constant: i64,
    /// Variables with their coefficients.
    pub terms: Vec<(Var, i64)>,
}

/// Values of the variables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Env<'a> {
    /// The parameter row.
    pub params: &'a [i64],
    /// Run parameters.
    pub dims: &'a [i64],
    /// Loop counters, outermost first.
    pub loops: &'a [i64],
    /// Uniform registers.
    pub registers: &'a [i64],
}

impl Env<'_> {
    /// The value of a variable; `None` if there is no such variable.
    pub fn get(&self, var: Var) -> Option<i64> {
        let (list, index) = match var {
            Var::Param(i) => (self.params, usize::from(i)),
            Var::Dim(i) => (self.dims, usize::from(i)),
            Var::Loop(i) => (self.loops, usize::from(i)),
            Var::Register(i) => (self.registers, usize::from(i)),
        };
        list.get(index).copied()
    }
}

impl Affine {
    /// A constant.
    pub fn constant(value: i64) -> Self {
        Self {
            constant: value,
            terms: Vec::new(),
        }
    }

    /// A variable.
    pub fn var(var: Var) -> Self {
        Self {
            constant: 0,
            terms: vec![(var, 1)],
        }
    }

    /// The value if there is no variable in it.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// Sum; `None` on overflow of 64 bits, as for all operations here.
    pub fn add(&self, other: &Self) -> Option<Self> {
        let mut terms = Vec::with_capacity(self.terms.len() + other.terms.len());
        let (mut a, mut b) = (self.terms.iter().peekable(), other.terms.iter().peekable());
        loop {
            let (var, coefficient) = match (a.peek(), b.peek()) {
                (Some((va, ca)), Some((vb, cb))) if va == vb => {
                    let sum = ca.checked_add(*cb)?;
                    let var = *va;
                    a.next();
                    b.next();
                    (var, sum)
                }
                (Some((va, ca)), Some((vb, _))) if va < vb => {
                    let term = (*va, *ca);
                    a.next();
                    term
                }
                (_, Some(term)) => {
                    let term = **term;
                    b.next();
                    term
                }
                (Some(term), None) => {
                    let term = **term;
                    a.next();
                    term
                }
                (None, None) => break,
            };
            if coefficient != 0 {
                terms.push((var, coefficient));
            }
        }
        Some(Self {
            constant: self.constant.checked_add(other.constant)?,
            terms,
        })
    }

    /// Product with a constant.
    pub fn scale(&self, factor: i64) -> Option<Self> {
        if factor == 0 {
            return Some(Self::default());
        }
        Some(Self {
            constant: self.constant.checked_mul(factor)?,
            terms: self
                .terms
                .iter()
                .map(|(var, c)| Some((*var, c.checked_mul(factor)?)))
                .collect::<Option<_>>()?,
        })
    }

    /// The value; `None` on overflow or for a variable that `env` lacks.
    pub fn eval(&self, env: &Env<'_>) -> Option<i64> {
        let mut sum = self.constant;
        for (var, coefficient) in &self.terms {
            sum = sum.checked_add(coefficient.checked_mul(env.get(*var)?)?)?;
        }
        Some(sum)
    }

    /// The least and greatest value where each variable lies in the inclusive range that `range`
    /// gives; exact, as each variable occurs once. `None` on overflow or for an unknown variable.
    pub fn bounds(&self, range: impl Fn(Var) -> Option<(i64, i64)>) -> Option<(i64, i64)> {
        let (mut low, mut high) = (self.constant, self.constant);
        for (var, coefficient) in &self.terms {
            let (a, b) = range(*var)?;
            let (a, b) = (a.checked_mul(*coefficient)?, b.checked_mul(*coefficient)?);
            low = low.checked_add(a.min(b))?;
            high = high.checked_add(a.max(b))?;
        }
        Some((low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_canonical() {
        let i = Affine::var(Var::Loop(0));
        let p = Affine::var(Var::Param(1));
        let sum = i.scale(4).unwrap().add(&p).unwrap();
        assert_eq!(sum.terms, vec![(Var::Param(1), 1), (Var::Loop(0), 4)]);
        let back = sum.add(&p.scale(-1).unwrap()).unwrap();
        assert_eq!(back, i.scale(4).unwrap());
        assert_eq!(back.add(&i.scale(-4).unwrap()).unwrap(), Affine::default());
        let env = Env {
            params: &[0, 7],
            loops: &[3],
            ..Env::default()
        };
        assert_eq!(sum.eval(&env), Some(19));
        assert_eq!(sum.bounds(|_| Some((-1, 2))), Some((-5, 10)));
        assert_eq!(Affine::constant(i64::MAX).add(&Affine::constant(1)), None);
    }
}
