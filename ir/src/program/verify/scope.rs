//! Which values the variables of a segment can have at a place of a stream.

use std::collections::BTreeSet;

use super::super::{Affine, Env, Program, Segment, Var};
use super::Row;

/// An enclosing loop. Its counter is at least `low`, less than `count`, at most `high`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Enclosing {
    count: Affine,
    low: i64,
    high: Option<i64>,
}

/// The values that variables can have at a place of a stream, for one parameter row or a hull of
/// several.
///
/// Parameters, run parameters and registers have ranges. A loop counter lies between 0 and the
/// loop's count, which may depend on outer counters, so that triangular nests are exact. That a loop
/// body runs at all restricts the variables of the count: inside `for {count = %p}`, `%p` is at
/// least 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    params: Vec<(i64, i64)>,
    dims: Vec<(i64, i64)>,
    registers: Vec<(i64, i64)>,
    loops: Vec<Enclosing>,
    dead: bool,
}

impl Scope {
    /// At the start of a stream, for one row of the projection on `params`. Other parameters are 0, so
    /// only expressions over the projection may be asked for.
    pub fn of_row(program: &Program, segment: &Segment, params: &[u16], row: &Row) -> Self {
        let mut ranges = vec![(0, 0); segment.params.len()];
        for (param, value) in params.iter().zip(&row.params) {
            ranges[usize::from(*param)] = (*value, *value);
        }
        let mut scope = Self::of_ranges(program, segment, ranges);
        for (dim, value) in &row.dims {
            scope.dims[usize::from(*dim)] = (*value, *value);
        }
        scope
    }

    /// At the start of a stream, for all rows within inclusive ranges of the parameters.
    pub fn of_ranges(program: &Program, segment: &Segment, params: Vec<(i64, i64)>) -> Self {
        let max = |max: u64| i64::try_from(max).unwrap_or(i64::MAX);
        Self {
            params,
            dims: program.dims.iter().map(|(_, m)| (1, max(*m))).collect(),
            registers: vec![(0, 0); segment.registers.len()],
            loops: Vec::new(),
            dead: false,
        }
    }

    /// The scope inside a loop.
    pub fn enter(&self, count: &Affine) -> Self {
        let mut inner = self.clone();
        inner.require_positive(count);
        inner.loops.push(Enclosing {
            count: count.clone(),
            low: 0,
            high: None,
        });
        inner
    }

    /// A register gets a value from 0 to `max`.
    pub fn set_register(&mut self, register: u16, max: u64) {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        if let Some(range) = self.registers.get_mut(usize::from(register)) {
            *range = (0, max);
        }
    }

    /// Whether no execution reaches this place.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Number of enclosing loops.
    pub fn depth(&self) -> usize {
        self.loops.len()
    }

    /// Restricts the scope to where an expression is at least 1.
    pub fn require_positive(&mut self, expr: &Affine) {
        if expr.terms.is_empty() {
            self.dead |= expr.constant < 1;
            return;
        }
        match self.extreme(expr, true) {
            Some(high) if high < 1 => {
                self.dead = true;
                return;
            }
            _ => {}
        }
        for (var, coefficient) in &expr.terms {
            let rest = Affine {
                constant: expr.constant,
                terms: expr
                    .terms
                    .iter()
                    .filter(|(other, _)| other != var)
                    .copied()
                    .collect(),
            };
            // coefficient * var >= 1 - rest, where the rest is at its largest.
            let Some(need) = self.extreme(&rest, true).and_then(|m| 1i64.checked_sub(m)) else {
                continue;
            };
            if *coefficient > 0 {
                self.raise(*var, div_ceil(need, *coefficient));
            } else if let Some(bound) = need.checked_neg().zip(coefficient.checked_neg()) {
                self.lower(*var, bound.0.div_euclid(bound.1));
            }
        }
    }

    fn raise(&mut self, var: Var, least: i64) {
        if let Var::Loop(depth) = var {
            if let Some(outer) = self.loops.get_mut(usize::from(depth)) {
                outer.low = outer.low.max(least);
            }
        } else if let Some(range) = self.range_mut(var) {
            range.0 = range.0.max(least);
            self.dead |= self.range(var).is_some_and(|(low, high)| low > high);
        }
    }

    fn lower(&mut self, var: Var, most: i64) {
        if let Var::Loop(depth) = var {
            if let Some(outer) = self.loops.get_mut(usize::from(depth)) {
                outer.high = Some(outer.high.map_or(most, |high| high.min(most)));
            }
        } else if let Some(range) = self.range_mut(var) {
            range.1 = range.1.min(most);
            self.dead |= self.range(var).is_some_and(|(low, high)| low > high);
        }
    }

    fn range_mut(&mut self, var: Var) -> Option<&mut (i64, i64)> {
        match var {
            Var::Param(i) => self.params.get_mut(usize::from(i)),
            Var::Dim(i) => self.dims.get_mut(usize::from(i)),
            Var::Register(i) => self.registers.get_mut(usize::from(i)),
            Var::Loop(_) => None,
        }
    }

    /// The inclusive range of a variable; `None` if there is no such variable, or on overflow.
    pub fn range(&self, var: Var) -> Option<(i64, i64)> {
        match var {
            Var::Param(i) => self.params.get(usize::from(i)).copied(),
            Var::Dim(i) => self.dims.get(usize::from(i)).copied(),
            Var::Register(i) => self.registers.get(usize::from(i)).copied(),
            Var::Loop(_) => self.bounds(&Affine::var(var)),
        }
    }

    /// The least and greatest value of an expression over all executions of this place. Exact where
    /// every enclosing loop runs at least once for all values of outer variables, else possibly too
    /// wide. `None` on overflow of 64 bits and for unknown variables.
    pub fn bounds(&self, expr: &Affine) -> Option<(i64, i64)> {
        if expr.terms.is_empty() {
            return Some((expr.constant, expr.constant));
        }
        Some((self.extreme(expr, false)?, self.extreme(expr, true)?))
    }

    fn extreme(&self, expr: &Affine, greatest: bool) -> Option<i64> {
        self.eliminate(expr, greatest, self.loops.len())
    }

    /// The extreme of an expression without counters from `depth` on.
    fn eliminate(&self, expr: &Affine, greatest: bool, depth: usize) -> Option<i64> {
        let innermost = expr
            .terms
            .iter()
            .rev()
            .find_map(|(var, coefficient)| match var {
                Var::Loop(d) if usize::from(*d) < depth => Some((usize::from(*d), *coefficient)),
                _ => None,
            });
        let Some((d, coefficient)) = innermost else {
            let plain = |var| match var {
                Var::Loop(_) => None,
                _ => self.range(var),
            };
            let (low, high) = expr.bounds(plain)?;
            return Some(if greatest { high } else { low });
        };
        let enclosing = self.loops.get(d)?;
        let rest = Affine {
            constant: expr.constant,
            terms: expr
                .terms
                .iter()
                .filter(|(var, _)| *var != Var::Loop(d as u8))
                .copied()
                .collect(),
        };
        let with = |value: &Affine| {
            let expr = rest.add(&value.scale(coefficient)?)?;
            self.eliminate(&expr, greatest, d)
        };
        if (coefficient > 0) != greatest {
            return with(&Affine::constant(enclosing.low));
        }
        let last = with(&enclosing.count.add(&Affine::constant(-1))?)?;
        Some(match enclosing.high {
            None => last,
            // Both limits hold, so the tighter one counts.
            Some(high) => {
                let capped = with(&Affine::constant(high))?;
                if greatest {
                    last.min(capped)
                } else {
                    last.max(capped)
                }
            }
        })
    }
}

/// Values of all variables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    params: Vec<i64>,
    dims: Vec<i64>,
    loops: Vec<i64>,
    registers: Vec<i64>,
}

impl Point {
    /// As an environment of expressions.
    pub fn env(&self) -> Env<'_> {
        Env {
            params: &self.params,
            dims: &self.dims,
            loops: &self.loops,
            registers: &self.registers,
        }
    }

    fn set(&mut self, var: Var, value: i64) {
        match var {
            Var::Param(i) => self.params[usize::from(i)] = value,
            Var::Dim(i) => self.dims[usize::from(i)] = value,
            Var::Loop(i) => self.loops[usize::from(i)] = value,
            Var::Register(i) => self.registers[usize::from(i)] = value,
        }
    }
}

impl Scope {
    /// Executions of this place in which the given variables (and those that loop counts depend on)
    /// have their least or greatest values: all combinations if there are at most `most` of them,
    /// else those in which one variable or all variables are at the other end.
    pub fn corners(&self, used: &BTreeSet<Var>, most: usize) -> Vec<Point> {
        let mut used = used.clone();
        for (depth, enclosing) in self.loops.iter().enumerate().rev() {
            if used.contains(&Var::Loop(depth as u8)) {
                used.extend(enclosing.count.terms.iter().map(|(var, _)| *var));
            }
        }
        // In this order variables come before the counters of loops that depend on them.
        let (loops, others): (Vec<Var>, Vec<Var>) = used
            .into_iter()
            .partition(|var| matches!(var, Var::Loop(_)));
        let order: Vec<Var> = others.into_iter().chain(loops).collect();
        let n = order.len();
        let choices: Vec<Vec<bool>> = if n <= most {
            (0..1u32 << n)
                .map(|bits| (0..n).map(|at| bits >> at & 1 == 1).collect())
                .collect()
        } else {
            let single = |one: usize| (0..n).map(|at| at == one).collect();
            let mut choices: Vec<Vec<bool>> = (0..n).map(single).collect();
            choices.extend([vec![false; n], vec![true; n]]);
            choices
        };
        let mut points = Vec::new();
        for choice in choices {
            if let Some(point) = self.corner(&order, &choice)
                && !points.contains(&point)
            {
                points.push(point);
            }
        }
        points
    }

    fn corner(&self, order: &[Var], choice: &[bool]) -> Option<Point> {
        let low = |ranges: &[(i64, i64)]| ranges.iter().map(|(low, _)| *low).collect();
        let mut point = Point {
            params: low(&self.params),
            dims: low(&self.dims),
            loops: self.loops.iter().map(|enclosing| enclosing.low).collect(),
            registers: low(&self.registers),
        };
        for (var, greatest) in order.iter().zip(choice) {
            let value = match var {
                Var::Loop(depth) => {
                    let enclosing = self.loops.get(usize::from(*depth))?;
                    let last = enclosing.count.eval(&point.env())?.checked_sub(1)?;
                    let last = enclosing.high.map_or(last, |high| last.min(high));
                    if last < enclosing.low {
                        return None;
                    }
                    if *greatest { last } else { enclosing.low }
                }
                _ => {
                    let (low, high) = self.range(*var)?;
                    if *greatest { high } else { low }
                }
            };
            point.set(*var, value);
        }
        Some(point)
    }
}

fn div_ceil(a: i64, b: i64) -> i64 {
    let quotient = a.div_euclid(b);
    if a.rem_euclid(b) == 0 {
        quotient
    } else {
        quotient + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(params: &[(i64, i64)]) -> Scope {
        let program = Program {
            dims: vec![("batch".into(), 8)],
            ..Program::default()
        };
        let segment = Segment {
            registers: vec!["n".into()],
            ..Segment::default()
        };
        Scope::of_ranges(&program, &segment, params.to_vec())
    }

    fn sum(terms: &[(Var, i64)], constant: i64) -> Affine {
        Affine {
            constant,
            terms: terms.to_vec(),
        }
    }

    #[test]
    fn triangles_are_exact() {
        // for i < 5 { for j < i + 1 }: 10 i - 10 j is between 0 and 40.
        let scope = scope(&[])
            .enter(&Affine::constant(5))
            .enter(&sum(&[(Var::Loop(0), 1)], 1));
        let e = sum(&[(Var::Loop(0), 10), (Var::Loop(1), -10)], 0);
        assert_eq!(scope.bounds(&e), Some((0, 40)));
        assert_eq!(scope.range(Var::Loop(1)), Some((0, 4)));
    }

    #[test]
    fn counts_restrict_their_variables() {
        // for i < 5 { for j < i }: inside, i is at least 1.
        let triangle = scope(&[])
            .enter(&Affine::constant(5))
            .enter(&Affine::var(Var::Loop(0)));
        assert_eq!(triangle.range(Var::Loop(0)), Some((1, 4)));
        // for i < p, where p is 0 or 1: inside, p is 1.
        let guarded = scope(&[(0, 1)]).enter(&Affine::var(Var::Param(0)));
        assert_eq!(guarded.range(Var::Param(0)), Some((1, 1)));
        // for i < 3 - p: inside, p is at most 2.
        let guarded = scope(&[(0, 9)]).enter(&sum(&[(Var::Param(0), -1)], 3));
        assert_eq!(guarded.range(Var::Param(0)), Some((0, 2)));
        // for i < 8 { for j < 3 - 2 i }: inside, i is at most 1.
        let capped = scope(&[])
            .enter(&Affine::constant(8))
            .enter(&sum(&[(Var::Loop(0), -2)], 3));
        assert_eq!(capped.range(Var::Loop(0)), Some((0, 1)));
        assert!(
            scope(&[(-3, 0)])
                .enter(&Affine::var(Var::Param(0)))
                .is_dead()
        );
        assert!(!capped.is_dead());
    }

    #[test]
    fn run_parameters_and_registers_have_ranges() {
        let mut scope = scope(&[]);
        scope.set_register(0, 6);
        let e = sum(&[(Var::Dim(0), -1), (Var::Register(0), 2)], 0);
        assert_eq!(scope.bounds(&e), Some((-8, 11)));
        assert_eq!(scope.bounds(&Affine::var(Var::Param(0))), None);
        assert_eq!(scope.bounds(&sum(&[(Var::Register(0), i64::MAX)], 0)), None);
    }
}
