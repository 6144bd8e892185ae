//! How a reshape maps dims to dims: the common refinement of two shapes.

use crate::access::{View, ViewGroup};
use crate::dim::Dim;

impl View {
    /// The groups of a reshape from `input` to `output`, each as short as possible, with their
    /// common refinements.
    ///
    /// A dim of extent 1 has no factor; where it has no partner it is a group of its own with
    /// nothing on the other side. Extents that are not provably equal are grouped to the end; such
    /// a group has factors only if one of its sides is a single dim, which the other one factors.
    /// A shape without elements is one group without factors, unless nothing changes.
    pub fn of(input: &[Dim], output: &[Dim]) -> Self {
        let mut groups = vec![];
        let empty = input.iter().chain(output).any(|d| d.is(0));
        if empty && input != output {
            groups.push(ViewGroup {
                input: 0..input.len(),
                output: 0..output.len(),
                factors: None,
            });
            return Self { groups };
        }
        let (mut i, mut o) = (0, 0);
        while i < input.len() || o < output.len() {
            let ones = |dims: &[Dim], at: usize| usize::from(dims.get(at).is_some_and(|d| d.is(1)));
            let (one_in, one_out) = (ones(input, i), ones(output, o));
            let (end_in, end_out, factors) = if one_in + one_out > 0 {
                (i + one_in, o + one_out, Some(vec![]))
            } else {
                match shortest_match(&input[i..], &output[o..]) {
                    Some((a, b)) => {
                        let factors = refine(&input[i..i + a], &output[o..o + b]);
                        (i + a, o + b, factors)
                    }
                    None => {
                        let factors = split_of_one(&input[i..], &output[o..]);
                        (input.len(), output.len(), factors)
                    }
                }
            };
            groups.push(ViewGroup {
                input: i..end_in,
                output: o..end_out,
                factors,
            });
            (i, o) = (end_in, end_out);
        }
        Self { groups }
    }
}

/// The least numbers of leading dims with equal products.
fn shortest_match(a: &[Dim], b: &[Dim]) -> Option<(usize, usize)> {
    let products = |dims: &[Dim]| -> Vec<Option<Dim>> {
        let mut product = Some(Dim::Const(1));
        let step = |d: &Dim| {
            product = product.take().and_then(|p| p.mul(d));
            product.clone()
        };
        dims.iter().map(step).collect()
    };
    let (of_a, of_b) = (products(a), products(b));
    let pairs = (2..=a.len() + b.len()).flat_map(|total| {
        (1..total)
            .filter(move |x| *x <= a.len() && total - x <= b.len())
            .map(move |x| (x, total - x))
    });
    pairs
        .into_iter()
        .find(|(x, y)| of_a[x - 1].is_some() && of_a[x - 1] == of_b[y - 1])
}

/// `a / b` if it is exact for all values of the symbols.
fn exact_quotient(a: &Dim, b: &Dim) -> Option<Dim> {
    let quotient = a.floor_div(b)?;
    (quotient.mul(b)? == *a).then_some(quotient)
}

/// Factors of which all dims of both sides are products of consecutive ones.
fn refine(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let (mut a, mut b) = (a.iter().cloned(), b.iter().cloned());
    let (mut left, mut right) = (Dim::Const(1), Dim::Const(1));
    let mut factors = vec![];
    loop {
        while left.is(1) {
            match a.next() {
                Some(dim) => left = dim,
                None => break,
            }
        }
        while right.is(1) {
            match b.next() {
                Some(dim) => right = dim,
                None => break,
            }
        }
        if left.is(1) && right.is(1) {
            return Some(factors);
        }
        let factor = if left == right {
            let factor = left;
            (left, right) = (Dim::Const(1), Dim::Const(1));
            factor
        } else if let Some(rest) = exact_quotient(&left, &right) {
            left = rest;
            std::mem::replace(&mut right, Dim::Const(1))
        } else {
            right = exact_quotient(&right, &left)?;
            std::mem::replace(&mut left, Dim::Const(1))
        };
        if factor.is(1) {
            return None;
        }
        factors.push(factor);
    }
}

/// The factors of a group of one dim on one side, whose extent is the product of the other side's.
fn split_of_one(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let side = match (a.len(), b.len()) {
        (1, _) => b,
        (_, 1) => a,
        _ => return None,
    };
    Some(side.iter().filter(|d| !d.is(1)).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(extents: &[u64]) -> Vec<Dim> {
        extents.iter().map(|&d| Dim::Const(d)).collect()
    }

    /// Groups as (input dims, output dims, factors).
    fn groups(input: &[Dim], output: &[Dim]) -> Vec<(usize, usize, Option<Vec<Dim>>)> {
        let groups = View::of(input, output).groups;
        let short = |g: ViewGroup| (g.input.len(), g.output.len(), g.factors);
        groups.into_iter().map(short).collect()
    }

    #[test]
    fn constant_shapes_refine() {
        let of = |a: &[u64], b: &[u64]| groups(&dims(a), &dims(b));
        assert_eq!(of(&[6, 4], &[8, 3]), [(2, 2, None)]);
        assert_eq!(
            of(&[2, 3, 4], &[6, 4]),
            [(2, 1, Some(dims(&[2, 3]))), (1, 1, Some(dims(&[4])))]
        );
        assert_eq!(of(&[4, 6], &[2, 12]), [(2, 2, Some(dims(&[2, 2, 6])))]);
        assert_eq!(
            of(&[1, 5, 1], &[5]),
            [
                (1, 0, Some(vec![])),
                (1, 1, Some(dims(&[5]))),
                (1, 0, Some(vec![]))
            ]
        );
        assert_eq!(
            of(&[2, 1, 3], &[6]),
            [(3, 1, Some(dims(&[2, 3])))],
            "a 1 inside a group belongs to it"
        );
        assert_eq!(of(&[], &[1]), [(0, 1, Some(vec![]))]);
        assert_eq!(of(&[], &[]), []);
        assert_eq!(of(&[0, 3], &[5, 0]), [(2, 2, None)]);
    }

    #[test]
    fn symbolic_shapes_refine_where_provable() {
        let n = Dim::symbol("n", 64);
        let c = Dim::Const;
        let twice = n.mul(&c(2)).unwrap();
        assert_eq!(
            groups(&[n.clone(), c(12)], &[n.clone(), c(3), c(4)]),
            [
                (1, 1, Some(vec![n.clone()])),
                (1, 2, Some(vec![c(3), c(4)]))
            ]
        );
        assert_eq!(
            groups(&[n.clone(), c(6)], &[twice.clone(), c(3)]),
            [(2, 2, Some(vec![n.clone(), c(2), c(3)]))]
        );
        assert_eq!(
            groups(&[c(2), n.clone()], &[n.clone(), c(2)]),
            [(2, 2, None)]
        );
        let quarter = n.floor_div(&c(4)).unwrap();
        assert_eq!(
            groups(std::slice::from_ref(&n), &[quarter.clone(), c(4)]),
            [(1, 2, Some(vec![quarter, c(4)]))]
        );
    }

    #[test]
    fn products_that_overflow_do_not_match() {
        let big = dims(&[1 << 40, 1 << 40]);
        assert_eq!(groups(&big, &dims(&[1 << 41, 1 << 39]))[0].2, None);
    }
}
