//! The distinct parameter rows with which segments are called.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

use super::super::{
    Coordinate, EntryId, IndexEnv, IndexExpr, IndexNode, Place, Program, RegionId, SegmentId, Step,
};
use super::{Violation, core_name};
use crate::codes;
use crate::machine::CoreAddress;

/// Evaluations of row entries that one projection may take.
const MAX_EVALUATIONS: u64 = 4 << 20;

/// A call of a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Call<'p> {
    /// The entry.
    pub entry: EntryId,
    /// Its step.
    pub step: u32,
    /// The segment.
    pub segment: SegmentId,
    /// The cores.
    pub on: RegionId,
    /// The parameter row.
    pub row: &'p [IndexExpr],
    /// Index of the first of its enclosing repeats in [`RowClasses`]' list, and their number.
    repeats: (u32, u32),
}

/// A distinct row with one of the cores that have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Values of the parameters of the projection, in its order.
    pub params: Box<[i64]>,
    /// The call, by its position in [`RowClasses::calls`].
    pub call: u32,
    /// Index of a core in the region of the call.
    pub index: u64,
    /// Counters of enclosing repeats, outermost first; 0 where the row does not depend on them.
    pub repeats: Box<[i64]>,
    /// Run parameters that the row depends on, with their values: the row exists for these only.
    pub dims: Box<[(u16, i64)]>,
}

/// The distinct rows of all segments, computed when asked for, projected on the parameters that
/// matter. A program must have passed [`structure`](super::structure).
pub struct RowClasses<'p> {
    program: &'p Program,
    calls: Vec<Call<'p>>,
    repeats: Vec<u64>,
    /// Of calls with equal rows the first.
    of_segment: BTreeMap<SegmentId, Vec<u32>>,
    cache: Cache,
    parts: HashMap<Part<'p>, Rc<Vec<Row>>>,
    ranges: HashMap<(SegmentId, u16), Option<(i64, i64)>>,
    errors: Vec<Violation>,
    reported: BTreeSet<(EntryId, u32, Option<usize>)>,
}

/// Values of parameters with the run parameters they hold for.
type Values = (Box<[i64]>, Box<[(u16, i64)]>);

/// Rows by segment and parameters; `None` where they are too many.
type Cache = BTreeMap<(SegmentId, Vec<u16>), Option<Rc<Vec<Row>>>>;

/// What the distinct values of columns depend on: the cores, the counts of repeats, and the columns.
/// Calls of equal layers share them.
type Part<'p> = (RegionId, Vec<u64>, Vec<&'p IndexExpr>);

/// What the columns of a projection depend on.
#[derive(Default)]
struct Uses {
    core: bool,
    repeats: BTreeSet<u8>,
    dims: BTreeSet<u16>,
}

impl Uses {
    fn add(&mut self, expr: &IndexExpr) {
        for node in &expr.nodes {
            match node {
                IndexNode::Coordinate(Coordinate::Repeat(depth)) => {
                    self.repeats.insert(*depth);
                }
                IndexNode::Coordinate(Coordinate::Dim(dim)) => {
                    self.dims.insert(*dim);
                }
                IndexNode::Coordinate(_) => self.core = true,
                _ => {}
            }
        }
    }
}

/// Values in mixed radix: steps `digits` to the next combination, false behind the last.
pub(super) fn advance(digits: &mut [i64], limits: &[(i64, i64)]) -> bool {
    for (digit, (low, high)) in digits.iter_mut().zip(limits).rev() {
        if *digit < *high {
            *digit += 1;
            return true;
        }
        *digit = *low;
    }
    false
}

impl<'p> RowClasses<'p> {
    /// Lists the calls; computes nothing yet.
    pub fn new(program: &'p Program) -> Self {
        let mut all = Self {
            program,
            calls: Vec::new(),
            repeats: Vec::new(),
            of_segment: BTreeMap::new(),
            cache: BTreeMap::new(),
            parts: HashMap::new(),
            ranges: HashMap::new(),
            errors: Vec::new(),
            reported: BTreeSet::new(),
        };
        // A call with the same expressions on the same cores has no other rows.
        let mut known = HashSet::new();
        for (entry, declared) in program.entries.iter() {
            // Enclosing repeats with the position behind their bodies.
            let mut open: Vec<(usize, u64)> = Vec::new();
            for (at, step) in declared.steps.iter().enumerate() {
                while open.last().is_some_and(|(end, _)| *end <= at) {
                    open.pop();
                }
                match step {
                    Step::Repeat { count, len, .. } => open.push((at + 1 + *len as usize, *count)),
                    Step::Call {
                        segment, on, row, ..
                    } => {
                        let first = all.repeats.len() as u32;
                        all.repeats.extend(open.iter().map(|(_, count)| *count));
                        let counts: Vec<u64> = open.iter().map(|(_, count)| *count).collect();
                        if known.insert((*segment, *on, counts, row.as_slice())) {
                            let list = all.of_segment.entry(*segment).or_default();
                            list.push(all.calls.len() as u32);
                        }
                        all.calls.push(Call {
                            entry,
                            step: at as u32,
                            segment: *segment,
                            on: *on,
                            row,
                            repeats: (first, open.len() as u32),
                        });
                    }
                    Step::Probe(_) => {}
                }
            }
        }
        all
    }

    /// All calls of all entries, in order.
    pub fn calls(&self) -> &[Call<'p>] {
        &self.calls
    }

    /// Counts of the repeats around a call, outermost first.
    pub fn repeats(&self, call: &Call<'p>) -> &[u64] {
        let first = call.repeats.0 as usize;
        &self.repeats[first..first + call.repeats.1 as usize]
    }

    /// The distinct values of the given parameters (ascending) over all calls of a segment, in order
    /// of first occurrence. `None` if they are too many to enumerate, which is reported; a row that
    /// cannot be evaluated is left out, and reported.
    pub fn project(&mut self, segment: SegmentId, params: &[u16]) -> Option<Rc<Vec<Row>>> {
        let key = (segment, params.to_vec());
        if let Some(known) = self.cache.get(&key) {
            return known.clone();
        }
        let calls = self.of_segment.get(&segment).cloned().unwrap_or_default();
        let mut rows = Some(Vec::new());
        let mut seen = HashSet::new();
        let mut done = HashSet::new();
        for call in calls {
            let of = self.calls[call as usize];
            let exprs: Vec<_> = params.iter().map(|p| &of.row[usize::from(*p)]).collect();
            if !done.insert((of.on, self.repeats(&of).to_vec(), exprs)) {
                continue;
            }
            if let Some(list) = &mut rows
                && self.project_call(call, params, list, &mut seen).is_none()
            {
                rows = None;
            }
        }
        let rows = rows.map(Rc::new);
        self.cache.insert(key, rows.clone());
        rows
    }

    /// The least and greatest value of a parameter; `None` if it is unknown or there is no row. What
    /// has no value is reported as by [`project`](Self::project).
    pub fn range(&mut self, segment: SegmentId, param: u16) -> Option<(i64, i64)> {
        if let Some(known) = self.ranges.get(&(segment, param)) {
            return *known;
        }
        let range = self.hull(segment, usize::from(param));
        self.ranges.insert((segment, param), range);
        range
    }

    fn hull(&mut self, segment: SegmentId, column: usize) -> Option<(i64, i64)> {
        let calls = self.of_segment.get(&segment).cloned().unwrap_or_default();
        let mut done = HashSet::new();
        let mut hull: Option<(i64, i64)> = None;
        let mut known = true;
        for at in calls {
            let call = self.calls[at as usize];
            let (counts, expr) = (self.repeats(&call), &call.row[column]);
            if counts.contains(&0) || self.program.regions[call.on].is_empty() {
                continue;
            }
            if let Some(value) = expr.as_constant() {
                hull = Some(hull.map_or((value, value), |(l, h)| (l.min(value), h.max(value))));
                continue;
            }
            let counts = counts.to_vec();
            if !done.insert((call.on, counts.clone(), expr)) {
                continue;
            }
            let mut uses = Uses::default();
            uses.add(expr);
            let region = &self.program.regions[call.on];
            if uses.repeats.is_empty() && uses.dims.is_empty() && region.len() <= MAX_EVALUATIONS {
                let count = if uses.core { region.len() } else { 1 };
                for (core, index) in region.cores().zip(0..count) {
                    let env = IndexEnv::of_core(index, core, &[], &[]);
                    match expr.eval(&env, &self.program.tables) {
                        Some(v) => hull = Some(hull.map_or((v, v), |(l, h)| (l.min(v), h.max(v)))),
                        None => self.no_value(&call, column, core),
                    }
                }
                continue;
            }
            let Some(part) = self.distinct(at, &counts, &[column], &uses) else {
                known = false;
                continue;
            };
            for value in part.iter().map(|row| row.params[0]) {
                let (low, high) = hull.unwrap_or((value, value));
                hull = Some((low.min(value), high.max(value)));
            }
        }
        hull.filter(|_| known)
    }

    /// What went wrong since this was called last.
    pub fn take_errors(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.errors)
    }

    /// An example of who has a row: "on core (chip 0, row 3, column 2)", with repeats and run
    /// parameters where they matter.
    pub fn example(&self, row: &Row) -> String {
        let call = &self.calls[row.call as usize];
        let region = &self.program.regions[call.on];
        let mut text = match region.get(row.index) {
            Some(core) => format!("on core {}", core_name(core)),
            None => "on no core".into(),
        };
        if row.repeats.iter().any(|counter| *counter != 0) {
            let counters: Vec<_> = row.repeats.iter().map(i64::to_string).collect();
            text.push_str(&format!(", in repetition {}", counters.join(".")));
        }
        for (dim, value) in &row.dims {
            if let Some((name, _)) = self.program.dims.get(usize::from(*dim)) {
                text.push_str(&format!(", for {name} = {value}"));
            }
        }
        text
    }

    fn project_call(
        &mut self,
        at: u32,
        params: &[u16],
        rows: &mut Vec<Row>,
        seen: &mut HashSet<Values>,
    ) -> Option<()> {
        let call = self.calls[at as usize];
        let counts = self.repeats(&call).to_vec();
        if counts.contains(&0) || self.program.regions[call.on].is_empty() {
            return Some(());
        }
        // Positions among the parameters.
        let (mut per_core, mut shared) = (Vec::new(), Vec::new());
        let (mut core_uses, mut shared_uses) = (Uses::default(), Uses::default());
        for (position, param) in params.iter().enumerate() {
            let expr = &call.row[usize::from(*param)];
            if expr.depends_on_core() {
                core_uses.add(expr);
                per_core.push(position);
            } else {
                shared_uses.add(expr);
                shared.push(position);
            }
        }
        // Columns that depend on nothing in common combine freely; else they are taken together.
        let separate = core_uses.repeats.is_disjoint(&shared_uses.repeats)
            && core_uses.dims.is_disjoint(&shared_uses.dims);
        let parts: Vec<(Vec<usize>, Uses)> = if separate {
            vec![(per_core, core_uses), (shared, shared_uses)]
        } else {
            core_uses.repeats.extend(shared_uses.repeats);
            core_uses.dims.extend(shared_uses.dims);
            per_core.extend(shared);
            vec![(per_core, core_uses)]
        };
        let mut product = vec![Row {
            params: vec![0; params.len()].into(),
            call: at,
            index: 0,
            repeats: vec![0; counts.len()].into(),
            dims: Box::default(),
        }];
        for (positions, uses) in parts {
            if positions.is_empty() {
                continue;
            }
            let columns: Vec<usize> = (positions.iter())
                .map(|position| usize::from(params[*position]))
                .collect();
            let part = self.part(at, &counts, &columns, &uses)?;
            if part.len() as u64 * product.len() as u64 > MAX_EVALUATIONS {
                self.too_many(&call);
                return None;
            }
            product = combine(&product, &part, &positions, &uses);
        }
        for row in product {
            if seen.insert((row.params.clone(), row.dims.clone())) {
                rows.push(row);
            }
        }
        Some(())
    }

    /// Distinct values of some columns of one call, or of another one with the same expressions.
    fn part(
        &mut self,
        at: u32,
        counts: &[u64],
        columns: &[usize],
        uses: &Uses,
    ) -> Option<Rc<Vec<Row>>> {
        let call = self.calls[at as usize];
        let exprs = columns.iter().map(|at| &call.row[*at]).collect();
        let key: Part<'p> = (call.on, counts.to_vec(), exprs);
        if let Some(known) = self.parts.get(&key) {
            return Some(known.clone());
        }
        let part = Rc::new(self.distinct(at, counts, columns, uses)?);
        self.parts.insert(key, part.clone());
        Some(part)
    }

    /// Distinct values of some columns of one call.
    fn distinct(
        &mut self,
        at: u32,
        counts: &[u64],
        columns: &[usize],
        uses: &Uses,
    ) -> Option<Vec<Row>> {
        let call = self.calls[at as usize];
        let program = self.program;
        let region = &program.regions[call.on];
        let cores = if uses.core { region.len() } else { 1 };
        let mut limits: Vec<(i64, i64)> = Vec::new();
        for (depth, count) in counts.iter().enumerate() {
            let used = uses.repeats.contains(&(depth as u8));
            limits.push((
                0,
                if used {
                    i64::try_from(count - 1).ok()?
                } else {
                    0
                },
            ));
        }
        for (dim, (_, max)) in program.dims.iter().enumerate() {
            let used = uses.dims.contains(&(dim as u16));
            limits.push((1, if used { i64::try_from(*max).ok()? } else { 1 }));
        }
        let combinations = limits.iter().fold(cores, |n, (low, high)| {
            n.saturating_mul((high - low).unsigned_abs() + 1)
        });
        if combinations.saturating_mul(columns.len() as u64) > MAX_EVALUATIONS {
            self.too_many(&call);
            return None;
        }
        let mut rows = Vec::new();
        let mut seen: HashSet<Box<[i64]>> = HashSet::new();
        let mut digits: Vec<i64> = limits.iter().map(|(low, _)| *low).collect();
        loop {
            let (repeats, dims) = digits.split_at(counts.len());
            let dims_used: Box<[(u16, i64)]> = uses
                .dims
                .iter()
                .map(|dim| (*dim, dims[usize::from(*dim)]))
                .collect();
            for (index, core) in region.cores().take(cores as usize).enumerate() {
                let env = IndexEnv::of_core(index as u64, core, repeats, dims);
                let mut key = Vec::with_capacity(columns.len() + dims_used.len());
                for column in columns {
                    match call.row[*column].eval(&env, &program.tables) {
                        Some(value) => key.push(value),
                        None => {
                            self.no_value(&call, *column, core);
                            break;
                        }
                    }
                }
                if key.len() < columns.len() {
                    continue;
                }
                let values = key.clone();
                key.extend(dims_used.iter().map(|(_, value)| *value));
                if seen.insert(key.into()) {
                    rows.push(Row {
                        params: values.into(),
                        call: at,
                        index: index as u64,
                        repeats: repeats.into(),
                        dims: dims_used.clone(),
                    });
                }
            }
            if !advance(&mut digits, &limits) {
                return Some(rows);
            }
        }
    }

    fn too_many(&mut self, call: &Call<'p>) {
        if self.reported.insert((call.entry, call.step, None)) {
            self.errors.push(
                Violation::new(
                    codes::UNDECIDED,
                    Place::Step(call.entry, call.step),
                    format!(
                        "the rows of segment @{} have more than {MAX_EVALUATIONS} values to check",
                        self.program.segments[call.segment].name
                    ),
                )
                .help(
                    "split parameters so that none depends on core, repetition and run parameters \
                     at the same time",
                ),
            );
        }
    }

    fn no_value(&mut self, call: &Call<'p>, column: usize, core: CoreAddress) {
        if self.reported.insert((call.entry, call.step, Some(column))) {
            let segment = &self.program.segments[call.segment];
            let name = segment.params.get(column).map_or("?", |name| &**name);
            self.errors.push(Violation::new(
                codes::BAD_SCHEDULE,
                Place::Step(call.entry, call.step),
                format!(
                    "parameter %{name} has no value on core {}: a divisor is not positive, a table \
                     has no such entry, or 64 bits overflow",
                    core_name(core)
                ),
            ));
        }
    }
}

/// All combinations of rows with the values of further parameters at these positions.
fn combine(product: &[Row], part: &[Row], positions: &[usize], uses: &Uses) -> Vec<Row> {
    let mut all = Vec::with_capacity(product.len() * part.len());
    for row in product {
        for values in part {
            let mut row = row.clone();
            for (position, value) in positions.iter().zip(&values.params) {
                row.params[*position] = *value;
            }
            if uses.core {
                row.index = values.index;
            }
            for depth in &uses.repeats {
                let depth = usize::from(*depth);
                row.repeats[depth] = values.repeats[depth];
            }
            if !values.dims.is_empty() {
                let mut dims = row.dims.into_vec();
                dims.extend(values.dims.iter().copied());
                dims.sort_unstable();
                row.dims = dims.into();
            }
            all.push(row);
        }
    }
    all
}
