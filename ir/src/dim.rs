//! Extents of tensor dimensions: constants, bounded symbols and integer expressions over them.
//!
//! An expression is kept as a canonical polynomial with integer coefficients over *atoms* (symbols,
//! floor divisions, maxima and minima), so that equal extents written in different ways compare
//! equal: `n + n` is `2*n`. A symbol `n<=MAX` stands for any extent from 0 to `MAX`; plans and
//! memory are made for `MAX`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::types::DType;

/// Products of sums grow exponentially with the text that writes them; those of more terms than
/// this are refused like an overflow.
const MAX_TERMS: usize = 4096;

/// Values of symbols at run time: name to extent.
pub type Bindings = BTreeMap<Arc<str>, u64>;

/// A symbol as the text form writes it: bare where that reads back, else `sym("name")`.
pub(crate) fn format_symbol(name: &str) -> String {
    let reserved = ["true", "false", "inf", "nan"].contains(&name);
    if reserved || dojoc_grammar::name_needs_quotes(name) || DType::parse(name).is_some() {
        return format!("sym({})", dojoc_grammar::quote(name));
    }
    name.to_owned()
}

/// The extent of one dimension.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dim {
    /// A known extent.
    Const(u64),
    /// An extent that is known at run time only, with an upper bound.
    Expr(Arc<Poly>),
}

/// A polynomial with integer coefficients over [`Atom`]s. The constant term has no atom.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Poly {
    /// Monomial (sorted atoms, repeated for powers) to non-zero coefficient.
    terms: BTreeMap<Vec<Atom>, i64>,
}

/// An indivisible part of a [`Poly`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Atom {
    /// A named symbol, from 0 to `max`.
    Symbol {
        /// The name, as in the user's model.
        name: Arc<str>,
        /// The largest extent.
        max: u64,
    },
    /// Division rounded towards minus infinity.
    FloorDiv(Poly, Poly),
    /// The larger of two.
    Max(Poly, Poly),
    /// The smaller of two.
    Min(Poly, Poly),
}

impl Poly {
    /// A constant.
    pub fn constant(value: i64) -> Self {
        let mut terms = BTreeMap::new();
        if value != 0 {
            terms.insert(Vec::new(), value);
        }
        Self { terms }
    }

    fn atom(atom: Atom) -> Self {
        Self {
            terms: BTreeMap::from([(vec![atom], 1)]),
        }
    }

    /// A symbol from 0 to `max`.
    pub fn symbol(name: &str, max: u64) -> Self {
        Self::atom(Atom::Symbol {
            name: name.into(),
            max,
        })
    }

    /// The value, if it does not depend on a symbol.
    pub fn as_constant(&self) -> Option<i64> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&Vec::new()).copied(),
            _ => None,
        }
    }

    /// The symbol's name and bound, if this is a symbol and nothing else.
    pub fn as_symbol(&self) -> Option<(&Arc<str>, u64)> {
        let (atoms, coefficient) = self.terms.first_key_value()?;
        match (self.terms.len(), coefficient, atoms.as_slice()) {
            (1, 1, [Atom::Symbol { name, max }]) => Some((name, *max)),
            _ => None,
        }
    }

    /// Sum; `None` on overflow of 64 bits, as for all operations here.
    pub fn add(&self, other: &Self) -> Option<Self> {
        let mut terms = self.terms.clone();
        for (atoms, coefficient) in &other.terms {
            let sum = terms
                .get(atoms)
                .copied()
                .unwrap_or(0)
                .checked_add(*coefficient)?;
            if sum == 0 {
                terms.remove(atoms);
            } else {
                terms.insert(atoms.clone(), sum);
            }
        }
        Some(Self { terms })
    }

    /// Difference.
    pub fn sub(&self, other: &Self) -> Option<Self> {
        self.add(&other.mul(&Self::constant(-1))?)
    }

    /// Product; `None` also where it has more than `MAX_TERMS` terms.
    pub fn mul(&self, other: &Self) -> Option<Self> {
        if self.terms.len().saturating_mul(other.terms.len()) > MAX_TERMS {
            return None;
        }
        let mut terms = BTreeMap::<Vec<Atom>, i64>::new();
        for (a, ca) in &self.terms {
            for (b, cb) in &other.terms {
                let mut atoms = a.clone();
                atoms.extend(b.iter().cloned());
                atoms.sort();
                let sum = terms.entry(atoms).or_default();
                *sum = sum.checked_add(ca.checked_mul(*cb)?)?;
            }
        }
        terms.retain(|_, coefficient| *coefficient != 0);
        Some(Self { terms })
    }

    /// Quotient rounded towards minus infinity; `None` for a divisor of zero.
    pub fn floor_div(&self, other: &Self) -> Option<Self> {
        match (self.as_constant(), other.as_constant()) {
            (_, Some(0)) => None,
            (_, Some(1)) => Some(self.clone()),
            (Some(a), Some(b)) => {
                let (quotient, rest) = (a.checked_div(b)?, a % b);
                Some(Self::constant(
                    quotient - i64::from(rest != 0 && (rest < 0) != (b < 0)),
                ))
            }
            _ => Some(
                self.exact_div(other)
                    .unwrap_or_else(|| Self::atom(Atom::FloorDiv(self.clone(), other.clone()))),
            ),
        }
    }

    /// The quotient, if one monomial divides every term.
    fn exact_div(&self, other: &Self) -> Option<Self> {
        let (divisor, by) = other.terms.first_key_value()?;
        if other.terms.len() != 1 {
            return None;
        }
        let mut terms = BTreeMap::new();
        for (atoms, coefficient) in &self.terms {
            let mut rest = atoms.clone();
            for atom in divisor {
                rest.remove(rest.iter().position(|a| a == atom)?);
            }
            if coefficient.checked_rem(*by)? != 0 {
                return None;
            }
            terms.insert(rest, coefficient.checked_div(*by)?);
        }
        Some(Self { terms })
    }

    /// The larger of two.
    pub fn larger(&self, other: &Self) -> Self {
        match self.sub(other).and_then(|d| d.as_constant()) {
            Some(d) if d >= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = if self < other {
                    (self, other)
                } else {
                    (other, self)
                };
                Self::atom(Atom::Max(a.clone(), b.clone()))
            }
        }
    }

    /// The smaller of two.
    pub fn smaller(&self, other: &Self) -> Self {
        match self.sub(other).and_then(|d| d.as_constant()) {
            Some(d) if d <= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = if self < other {
                    (self, other)
                } else {
                    (other, self)
                };
                Self::atom(Atom::Min(a.clone(), b.clone()))
            }
        }
    }

    /// The value under `bindings`; `None` if a symbol is unbound, on overflow, or on division by
    /// zero.
    pub fn eval(&self, bindings: &Bindings) -> Option<i64> {
        let mut sum = 0i64;
        for (atoms, coefficient) in &self.terms {
            let mut product = *coefficient;
            for atom in atoms {
                let value = match atom {
                    Atom::Symbol { name, .. } => i64::try_from(*bindings.get(name)?).ok()?,
                    Atom::FloorDiv(a, b) => {
                        let quotient = Self::constant(a.eval(bindings)?)
                            .floor_div(&Self::constant(b.eval(bindings)?))?;
                        quotient.as_constant()?
                    }
                    Atom::Max(a, b) => a.eval(bindings)?.max(b.eval(bindings)?),
                    Atom::Min(a, b) => a.eval(bindings)?.min(b.eval(bindings)?),
                };
                product = product.checked_mul(value)?;
            }
            sum = sum.checked_add(product)?;
        }
        Some(sum)
    }

    /// Conservative bounds (inclusive) for every value of the symbols, saturating at 64 bits.
    pub fn bounds(&self) -> (i64, i64) {
        let clamp = |x: i128| x.clamp(i64::MIN.into(), i64::MAX.into());
        let (mut low, mut high) = (0i128, 0i128);
        for (atoms, coefficient) in &self.terms {
            let (mut lo, mut hi) = (i128::from(*coefficient), i128::from(*coefficient));
            for atom in atoms {
                let (a, b) = atom.bounds();
                let corners = [lo * a, lo * b, hi * a, hi * b];
                lo = clamp(corners.into_iter().min().unwrap_or(0));
                hi = clamp(corners.into_iter().max().unwrap_or(0));
            }
            low = clamp(low + lo);
            high = clamp(high + hi);
        }
        (low as i64, high as i64)
    }

    /// Calls `visit` with the name and bound of every symbol.
    pub fn for_each_symbol(&self, visit: &mut dyn FnMut(&Arc<str>, u64)) {
        for atom in self.terms.keys().flatten() {
            match atom {
                Atom::Symbol { name, max } => visit(name, *max),
                Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => {
                    a.for_each_symbol(visit);
                    b.for_each_symbol(visit);
                }
            }
        }
    }
}

impl Atom {
    fn bounds(&self) -> (i128, i128) {
        let wide = |p: &Poly| {
            let (lo, hi) = p.bounds();
            (i128::from(lo), i128::from(hi))
        };
        match self {
            Atom::Symbol { max, .. } => (0, i128::from(*max)),
            Atom::FloorDiv(a, b) => {
                let ((al, ah), (bl, bh)) = (wide(a), wide(b));
                if bl <= 0 && bh <= 0 {
                    return (i128::from(i64::MIN), i128::from(i64::MAX));
                }
                // A divisor that may be zero has no quotient there, so 1 is its least value.
                let (bl, bh) = (bl.max(1), bh.max(1));
                let corners = [al / bl, al / bh, ah / bl, ah / bh];
                (
                    corners.iter().min().copied().unwrap_or(0) - i128::from(al < 0),
                    corners.into_iter().max().unwrap_or(0),
                )
            }
            Atom::Max(a, b) => (wide(a).0.max(wide(b).0), wide(a).1.max(wide(b).1)),
            Atom::Min(a, b) => (wide(a).0.min(wide(b).0), wide(a).1.min(wide(b).1)),
        }
    }
}

impl Dim {
    /// A symbol from 0 to `max`.
    pub fn symbol(name: &str, max: u64) -> Self {
        Dim::Expr(Arc::new(Poly::symbol(name, max)))
    }

    /// The extent of a polynomial; constants are folded. `None` if it is a negative constant.
    pub fn from_poly(poly: Poly) -> Option<Self> {
        match poly.as_constant() {
            Some(value) => u64::try_from(value).ok().map(Dim::Const),
            None => Some(Dim::Expr(Arc::new(poly))),
        }
    }

    /// This extent as a polynomial; `None` above `i64::MAX`.
    pub fn to_poly(&self) -> Option<Poly> {
        match self {
            Dim::Const(value) => i64::try_from(*value).ok().map(Poly::constant),
            Dim::Expr(poly) => Some((**poly).clone()),
        }
    }

    /// The extent, if it is a constant.
    pub fn as_const(&self) -> Option<u64> {
        match self {
            Dim::Const(value) => Some(*value),
            Dim::Expr(_) => None,
        }
    }

    /// Whether this is the constant `value`.
    pub fn is(&self, value: u64) -> bool {
        self.as_const() == Some(value)
    }

    /// The largest extent this can have.
    pub fn max_extent(&self) -> u64 {
        match self {
            Dim::Const(value) => *value,
            Dim::Expr(poly) => u64::try_from(poly.bounds().1).unwrap_or(0),
        }
    }

    /// The extent under `bindings`; `None` if a symbol is unbound or the result is negative.
    pub fn eval(&self, bindings: &Bindings) -> Option<u64> {
        match self {
            Dim::Const(value) => Some(*value),
            Dim::Expr(poly) => poly
                .eval(bindings)
                .and_then(|value| u64::try_from(value).ok()),
        }
    }

    fn combine(&self, other: &Self, f: impl Fn(&Poly, &Poly) -> Option<Poly>) -> Option<Self> {
        Self::from_poly(f(&self.to_poly()?, &other.to_poly()?)?)
    }

    /// Sum; `None` on overflow, as for all operations here.
    pub fn add(&self, other: &Self) -> Option<Self> {
        self.combine(other, Poly::add)
    }

    /// Difference; `None` if it is a negative constant.
    pub fn sub(&self, other: &Self) -> Option<Self> {
        self.combine(other, Poly::sub)
    }

    /// Product.
    pub fn mul(&self, other: &Self) -> Option<Self> {
        self.combine(other, Poly::mul)
    }

    /// Quotient rounded down.
    pub fn floor_div(&self, other: &Self) -> Option<Self> {
        self.combine(other, Poly::floor_div)
    }

    /// `self + offset`; `None` if the result is a negative constant or overflows.
    pub fn offset(&self, offset: i64) -> Option<Self> {
        Self::from_poly(self.to_poly()?.add(&Poly::constant(offset))?)
    }
}

impl From<u64> for Dim {
    fn from(value: u64) -> Self {
        Dim::Const(value)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Const(value) => write!(f, "{value}"),
            Dim::Expr(poly) => match poly.as_symbol() {
                Some((name, max)) => write!(f, "{}<={max}", format_symbol(name)),
                None => write!(f, "{poly}"),
            },
        }
    }
}

impl fmt::Display for Poly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return write!(f, "0");
        }
        // Terms with symbols first, the constant last, as people write them.
        let ordered = self.terms.iter().rev();
        for (position, (atoms, coefficient)) in ordered.enumerate() {
            match (position, *coefficient < 0) {
                (0, true) => write!(f, "-")?,
                (0, false) => {}
                (_, true) => write!(f, " - ")?,
                (_, false) => write!(f, " + ")?,
            }
            let magnitude = coefficient.unsigned_abs();
            if atoms.is_empty() {
                write!(f, "{magnitude}")?;
                continue;
            }
            if magnitude != 1 {
                write!(f, "{magnitude}*")?;
            }
            for (index, atom) in atoms.iter().enumerate() {
                if index > 0 {
                    write!(f, "*")?;
                }
                match atom {
                    Atom::Symbol { name, .. } => f.write_str(&format_symbol(name))?,
                    Atom::FloorDiv(a, b) => write!(f, "floor_div({a}, {b})")?,
                    Atom::Max(a, b) => write!(f, "max({a}, {b})")?,
                    Atom::Min(a, b) => write!(f, "min({a}, {b})")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n() -> Poly {
        Poly::symbol("n", 100)
    }

    #[test]
    fn equal_extents_compare_equal() {
        let twice = n().add(&n()).unwrap();
        assert_eq!(twice, n().mul(&Poly::constant(2)).unwrap());
        assert_eq!(twice.floor_div(&Poly::constant(2)).unwrap(), n());
        assert_eq!(twice.floor_div(&n()).unwrap(), Poly::constant(2));
        assert_eq!(n().sub(&n()).unwrap(), Poly::constant(0));
        assert_eq!(
            n().larger(&n().add(&Poly::constant(1)).unwrap())
                .to_string(),
            "n + 1"
        );
    }

    #[test]
    fn bounds_hold_for_every_value() {
        let half = n()
            .add(&Poly::constant(3))
            .unwrap()
            .floor_div(&Poly::constant(2))
            .unwrap();
        let odd = Poly::constant(7).sub(&half.mul(&n()).unwrap()).unwrap();
        for value in 0..=100u64 {
            let bindings = Bindings::from([("n".into(), value)]);
            for poly in [&half, &odd] {
                let (low, high) = poly.bounds();
                let value = poly.eval(&bindings).unwrap();
                assert!(
                    low <= value && value <= high,
                    "{poly}: {low} <= {value} <= {high}"
                );
            }
        }
    }

    #[test]
    fn division_rounds_down() {
        let c = Poly::constant;
        for (a, b, q) in [
            (7, 2, 3),
            (-7, 2, -4),
            (7, -2, -4),
            (-7, -2, 3),
            (6, -2, -3),
        ] {
            assert_eq!(c(a).floor_div(&c(b)).unwrap(), c(q), "{a} / {b}");
        }
        assert_eq!(n().floor_div(&c(0)), None);
    }

    #[test]
    fn overflow_is_none() {
        let big = Poly::constant(i64::MAX);
        assert_eq!(big.add(&Poly::constant(1)), None);
        assert_eq!(big.mul(&n()).and_then(|p| p.mul(&big)), None);
        assert_eq!(Dim::Const(3).sub(&Dim::Const(4)), None);
    }
}
