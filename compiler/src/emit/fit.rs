//! Formulas for numbers that differ from core to core.

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::program::{Coordinate, IndexExpr, IndexNode, Table, TableId};
use foldhash::HashMap;

/// Nested sums that are looked for.
const MAX_DEPTH: usize = 4;
/// Numbers of a table that are as bad as one more node of a formula.
const NUMBERS_PER_NODE: usize = 4;

/// The tables of a program, equal ones once, and the formulas found so far.
#[derive(Default)]
pub struct Tables {
    tables: PrimaryMap<TableId, Table>,
    known: HashMap<Vec<i64>, TableId>,
    fits: HashMap<(Vec<i64>, IndexExpr), IndexExpr>,
}

impl Tables {
    /// No tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table of these numbers, a new one if there is none.
    pub fn add(&mut self, values: &[i64]) -> TableId {
        if let Some(table) = self.known.get(values) {
            return *table;
        }
        let name = format!("t{}", self.tables.len()).into();
        let values = values.to_vec();
        let table = self.tables.push(Table {
            name,
            values: values.clone(),
        });
        self.known.insert(values, table);
        table
    }

    /// All tables so far.
    pub fn all(&self) -> &PrimaryMap<TableId, Table> {
        &self.tables
    }

    /// All tables, for [`Program::tables`](dojoc_ir::program::Program::tables).
    pub fn into_tables(self) -> PrimaryMap<TableId, Table> {
        self.tables
    }
}

/// An expression over a core's index `i` in its region with value `values[i]` for each `i` up to
/// their number: a short formula if one of the known forms fits (constants, linear functions, also
/// clamped from above or below, and sums of such or of small tables over quotients and remainders of
/// `i`), else a table of all values.
///
/// The same values give the same expression.
pub fn fit(values: &[i64], tables: &mut Tables) -> IndexExpr {
    fit_at(values, &IndexExpr::coordinate(Coordinate::Index), tables)
}

/// As [`fit`], where another expression, which is never negative, stands for `i`.
pub fn fit_at(values: &[i64], i: &IndexExpr, tables: &mut Tables) -> IndexExpr {
    let key = (values.to_vec(), i.clone());
    if let Some(known) = tables.fits.get(&key) {
        return known.clone();
    }
    let expr = build(&search(values, 0), i, tables);
    tables.fits.insert(key, expr.clone());
    expr
}

/// As [`fit`], where only some values matter.
pub fn fit_some(values: &[Option<i64>], tables: &mut Tables) -> IndexExpr {
    fit_some_at(values, &IndexExpr::coordinate(Coordinate::Index), tables)
}

/// As [`fit_at`], where only some values matter.
pub fn fit_some_at(values: &[Option<i64>], i: &IndexExpr, tables: &mut Tables) -> IndexExpr {
    let known = || {
        values
            .iter()
            .enumerate()
            .filter_map(|(i, v)| Some((i, (*v)?)))
    };
    let Some((first, value)) = known().next() else {
        return IndexExpr::constant(0);
    };
    if let Some(linear) = line_through(known()) {
        let all: Option<Vec<i64>> = (0..values.len()).map(|i| at(linear, i)).collect();
        if let Some(all) = all {
            return fit_at(&all, i, tables);
        }
    }
    let mut last = value;
    let mut filled = vec![value; first];
    filled.extend(values[first..].iter().map(|v| {
        last = v.unwrap_or(last);
        last
    }));
    fit_at(&filled, i, tables)
}

/// `(a, b)` if all values are `a + b*i`.
fn line_through(mut points: impl Iterator<Item = (usize, i64)>) -> Option<(i64, i64)> {
    let (i0, v0) = points.next()?;
    let Some((i1, v1)) = points.next() else {
        return Some((v0, 0));
    };
    let run = (i1 - i0) as i64;
    let rise = v1.checked_sub(v0)?;
    if rise % run != 0 {
        return None;
    }
    let b = rise / run;
    let a = v0.checked_sub(b.checked_mul(i0 as i64)?)?;
    points
        .all(|(i, v)| at((a, b), i) == Some(v))
        .then_some((a, b))
}

fn at((a, b): (i64, i64), i: usize) -> Option<i64> {
    b.checked_mul(i64::try_from(i).ok()?)?.checked_add(a)
}

/// A function of one number, `x`.
enum Form {
    /// `a + b*x`.
    Linear(i64, i64),
    /// `min(a + b*x, bound)`.
    AtMost((i64, i64), i64),
    /// `max(a + b*x, bound)`.
    AtLeast((i64, i64), i64),
    /// The function of `x / s`.
    Quotient(usize, Box<Form>),
    /// The sum of a function of `x / s` and one of `x mod s`.
    Both(usize, Box<Form>, Box<Form>),
    /// An entry of a table.
    Table(Vec<i64>),
}

/// The shortest form that has these values.
fn search(values: &[i64], depth: usize) -> Form {
    if let Some(form) = clamped(values) {
        return form;
    }
    if let Some(step) = step(values) {
        let sampled: Vec<i64> = values.iter().step_by(step).copied().collect();
        return Form::Quotient(step, Box::new(search(&sampled, depth)));
    }
    let mut best = Form::Table(values.to_vec());
    if depth == MAX_DEPTH {
        return best;
    }
    for (s, major, minor) in splits(values) {
        let (major, minor) = (search(&major, depth + 1), search(&minor, depth + 1));
        let form = Form::Both(s, Box::new(major), Box::new(minor));
        if form.cost(1) < best.cost(1) {
            best = form;
        }
    }
    best
}

/// A divisor of the index, and the functions of quotient and remainder.
type Halves = (usize, Vec<i64>, Vec<i64>);

/// Splits of the index that are worth a try, as the divisor and the functions of quotient and
/// remainder: the least period, the longest linear stretch, the shortest one whose starts are
/// linear, and the shortest one of all.
fn splits(values: &[i64]) -> Vec<Halves> {
    let mut found: [Option<Halves>; 4] = Default::default();
    for s in 2..=values.len() / 2 {
        let Some((major, minor)) = halves(values, s) else {
            continue;
        };
        let is_period = major.iter().all(|v| *v == 0);
        let fits = [
            is_period && found[0].is_none(),
            clamped(&minor).is_some(),
            found[2].is_none() && clamped(&major).is_some(),
            found[3].is_none(),
        ];
        for (place, fits) in found.iter_mut().zip(fits) {
            if fits {
                *place = Some((s, major.clone(), minor.clone()));
            }
        }
    }
    let mut splits: Vec<_> = found.into_iter().flatten().collect();
    splits.sort();
    splits.dedup();
    splits
}

/// A linear function, clamped or not.
fn clamped(values: &[i64]) -> Option<Form> {
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return Some(Form::Linear(0, 0));
    };
    let points = || values.iter().copied().enumerate();
    if let Some((a, b)) = line_through(points()) {
        return Some(Form::Linear(a, b));
    }
    // The linear part is at one end, the constant part at the other one.
    let (low, high) = (values.iter().min()?, values.iter().max()?);
    let ends = [
        line_through(points().take(2)),
        line_through(points().skip(values.len() - 2)),
    ];
    for line in ends.into_iter().flatten() {
        let is = |clamp: fn(i64, i64) -> i64, bound: i64| {
            points().all(|(i, v)| at(line, i).is_some_and(|x| clamp(x, bound) == v))
        };
        if (first == high || last == high) && is(i64::min, *high) {
            return Some(Form::AtMost(line, *high));
        }
        if (first == low || last == low) && is(i64::max, *low) {
            return Some(Form::AtLeast(line, *low));
        }
    }
    None
}

/// The largest number of neighbours that always have one value, if it is more than one.
fn step(values: &[i64]) -> Option<usize> {
    let changes = values
        .windows(2)
        .zip(1..)
        .filter(|(pair, _)| pair[0] != pair[1]);
    let step = changes.fold(0, |step, (_, at)| gcd(step, at));
    (step > 1).then_some(step)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Functions of quotient and remainder by `s` whose sum the values are.
fn halves(values: &[i64], s: usize) -> Option<(Vec<i64>, Vec<i64>)> {
    let first = values[0];
    for (i, value) in values.iter().enumerate().skip(s) {
        let major = values[i - i % s].checked_sub(first)?;
        if values[i % s].checked_add(major)? != *value {
            return None;
        }
    }
    let major = values.iter().step_by(s).map(|v| v.checked_sub(first));
    Some((major.collect::<Option<_>>()?, values[..s].to_vec()))
}

impl Form {
    /// Nodes of the expression where `x` has so many, and what its tables count.
    fn cost(&self, x: usize) -> usize {
        match self {
            Self::Linear(_, 0) => 1,
            Self::Linear(a, b) => x + 2 * usize::from(*a != 0) + 2 * usize::from(*b != 1),
            Self::AtMost((a, b), _) | Self::AtLeast((a, b), _) => Self::Linear(*a, *b).cost(x) + 2,
            Self::Quotient(_, inner) => inner.cost(x + 2),
            Self::Both(_, major, minor) => {
                let major = if major.is_zero() {
                    0
                } else {
                    major.cost(x + 2) + 1
                };
                major + minor.cost(x + 2)
            }
            Self::Table(values) => x + 1 + values.len().div_ceil(NUMBERS_PER_NODE),
        }
    }

    fn is_zero(&self) -> bool {
        matches!(self, Self::Linear(0, 0))
    }
}

fn build(form: &Form, x: &IndexExpr, tables: &mut Tables) -> IndexExpr {
    let number = |value| IndexExpr::constant(value);
    let over = |make, s: usize| IndexExpr::binary(make, x, &number(s as i64));
    match form {
        Form::Linear(a, 0) => number(*a),
        Form::Linear(a, b) => {
            let product = match b {
                1 => x.clone(),
                _ => IndexExpr::binary(IndexNode::Mul, x, &number(*b)),
            };
            match a {
                0 => product,
                _ => IndexExpr::binary(IndexNode::Add, &product, &number(*a)),
            }
        }
        Form::AtMost((a, b), bound) => {
            let line = build(&Form::Linear(*a, *b), x, tables);
            IndexExpr::binary(IndexNode::Min, &line, &number(*bound))
        }
        Form::AtLeast((a, b), bound) => {
            let line = build(&Form::Linear(*a, *b), x, tables);
            IndexExpr::binary(IndexNode::Max, &line, &number(*bound))
        }
        Form::Quotient(s, inner) => build(inner, &over(IndexNode::Div, *s), tables),
        Form::Both(s, major, minor) => {
            let low = build(minor, &over(IndexNode::Mod, *s), tables);
            if major.is_zero() {
                return low;
            }
            let high = build(major, &over(IndexNode::Div, *s), tables);
            IndexExpr::binary(IndexNode::Add, &high, &low)
        }
        Form::Table(values) => IndexExpr::table(tables.add(values), x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dojoc_ir::program::IndexEnv;

    /// The expression, checked, and the number of table entries it looks into.
    fn fitted(values: &[i64]) -> (IndexExpr, usize) {
        let mut tables = Tables::new();
        let expr = fit(values, &mut tables);
        assert!(expr.is_well_formed(tables.all()));
        for (i, value) in values.iter().enumerate() {
            let env = IndexEnv {
                index: i as i64,
                ..IndexEnv::default()
            };
            assert_eq!(
                expr.eval(&env, tables.all()),
                Some(*value),
                "at {i} of {values:?}"
            );
        }
        let numbers = tables.all().values().map(|t| t.values.len()).sum();
        (expr, numbers)
    }

    fn all(n: i64, f: impl Fn(i64) -> i64) -> Vec<i64> {
        (0..n).map(f).collect()
    }

    #[test]
    fn known_forms_need_no_table() {
        let cases: Vec<(Vec<i64>, usize)> = vec![
            (vec![], 1),
            (vec![7], 1),
            (all(354, |_| -3), 1),
            (all(354, |i| i), 1),
            (all(354, |i| 64 * i - 5), 5),
            (all(354, |i| i / 18 * 256), 5),
            (all(354, |i| i % 18), 3),
            (all(354, |i| 3 + 4 * (i / 6 % 5)), 9),
            (all(354, |i| 1000 * (i / 18) + 8 * (i % 18)), 11),
            (
                all(354, |i| 7 * (i / 60) + 1000 * (i / 6 % 10) + 8 * (i % 6)),
                21,
            ),
            (all(20, |i| (40 - 3 * i).clamp(0, 40).min(7)), 20),
            (all(20, |i| (100 - 8 * i).min(12)), 7),
            (all(20, |i| (100 - 8 * i).max(0)), 7),
            (all(60, |i| (100 - 8 * (i % 20)).max(0) + 5), 11),
        ];
        for (values, nodes) in cases {
            let (expr, numbers) = fitted(&values);
            assert!(
                expr.nodes.len() <= nodes,
                "{} nodes for {values:?}",
                expr.nodes.len()
            );
            assert!(numbers == 0 || values.len() == 20, "{values:?}");
        }
    }

    #[test]
    fn uneven_blocks_need_small_tables() {
        let values = all(354, |i| (i / 59 * 100 / 6) * 640 + (i % 59) * 1000 / 59);
        assert_eq!(fitted(&values).1, 6 + 59);
        let values = all(354, |i| (i % 59) * 1000 / 59);
        assert_eq!(fitted(&values).1, 59);
    }

    #[test]
    fn any_values_fit() {
        let mut state = 1u64;
        for n in [1, 2, 3, 10, 354] {
            for range in [2, 3, 1000] {
                let values = all(n, |_| 0);
                let values = values.into_iter().map(|_| {
                    state = state
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    (state >> 33) as i64 % range
                });
                fitted(&values.collect::<Vec<_>>());
            }
        }
        fitted(&[i64::MIN, i64::MAX, 0, i64::MIN, i64::MAX]);
        fitted(&[i64::MAX, i64::MIN]);
    }

    #[test]
    fn equal_tables_are_one() {
        let mut tables = Tables::new();
        let odd = [5, 1, 4, 1, 9];
        let first = fit(&odd, &mut tables);
        assert_eq!(fit(&odd, &mut tables), first);
        assert_eq!(tables.add(&odd), tables.add(&odd));
        assert_eq!(tables.all().len(), 1);
    }

    #[test]
    fn values_that_do_not_matter_are_free() {
        let mut tables = Tables::new();
        let some = [None, Some(8), None, None, Some(20), None];
        let expr = fit_some(&some, &mut tables);
        assert_eq!(expr, fit(&[4, 8, 12, 16, 20, 24], &mut tables));
        let expr = fit_some(&[None, Some(3), None, Some(1), Some(9)], &mut tables);
        assert_eq!(expr, fit(&[3, 3, 3, 1, 9], &mut tables));
        assert_eq!(fit_some(&[None; 3], &mut tables), IndexExpr::constant(0));
    }
}
