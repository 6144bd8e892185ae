//! Statements that cores carry out different numbers of times, at different places: as few loops as
//! possible, with parameters for what differs.

use std::collections::BTreeMap;

use dojoc_ir::program::{Affine, IndexExpr, LocId, Unit, Var};

use super::super::Unsupported;
use super::super::builder::SegmentBuilder;
use super::super::fit::{Tables, fit_some};

/// One execution of a statement on one core.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    /// Index of the core in the region.
    pub(super) core: usize,
    /// Its number among those of the core.
    pub(super) port: i64,
    /// First byte of each operand.
    pub(super) offsets: Vec<i64>,
    /// Extents of the operands.
    pub(super) extents: Vec<u64>,
}

/// Executions of a statement with consecutive ports and equal extents, one run on each core.
pub(super) struct Loop {
    /// By core, zero where there is none.
    counts: Vec<i64>,
    /// The first item of each core.
    first: Vec<Option<Item>>,
    /// From one iteration to the next, of each offset.
    steps: Vec<i64>,
}

/// Loops that carry out all items, where offsets advance by the steps that are most common.
pub(super) fn loops(mut items: Vec<Item>, cores: usize) -> Vec<Loop> {
    items.sort();
    let operands = items.first().map_or(0, |item| item.offsets.len());
    let follows = |a: &Item, b: &Item| {
        let next = (a.core, a.port + 1, &a.extents) == (b.core, b.port, &b.extents);
        let steps = a.offsets.iter().zip(&b.offsets).map(|(a, b)| b - a);
        next.then(|| steps.collect::<Vec<i64>>())
    };
    let mut votes: BTreeMap<Vec<i64>, usize> = BTreeMap::new();
    for pair in items.windows(2) {
        if let Some(steps) = follows(&pair[0], &pair[1]) {
            *votes.entry(steps).or_default() += 1;
        }
    }
    let steps = votes.into_iter().max_by_key(|(_, count)| *count);
    let steps = steps.map_or(vec![0; operands], |(steps, _)| steps);
    let mut loops: Vec<Loop> = vec![];
    for of_core in items.chunk_by(|a, b| a.core == b.core) {
        let runs = of_core.chunk_by(|a, b| follows(a, b).as_ref() == Some(&steps));
        for (number, run) in runs.enumerate() {
            if loops.len() == number {
                loops.push(Loop {
                    counts: vec![0; cores],
                    first: vec![None; cores],
                    steps: steps.clone(),
                });
            }
            loops[number].counts[run[0].core] = run.len() as i64;
            loops[number].first[run[0].core] = Some(run[0].clone());
        }
    }
    loops
}

/// The parameter row of a call, with the names of its entries.
pub(super) struct Rows<'t> {
    pub(super) row: Vec<IndexExpr>,
    pub(super) names: Vec<String>,
    tables: &'t mut Tables,
}

/// A [`Loop`] over parameters.
pub(super) struct Counted {
    count: Affine,
    first: Body,
    steps: Vec<i64>,
}

/// What a statement in a loop is about: expressions over parameters and the loop's counter.
#[derive(Clone)]
pub(super) struct Body {
    /// Port.
    pub(super) port: Affine,
    /// First byte of each operand.
    pub(super) offsets: Vec<Affine>,
    /// Extents.
    pub(super) extents: Vec<Affine>,
}

impl<'t> Rows<'t> {
    pub(super) fn new(tables: &'t mut Tables) -> Self {
        Self {
            row: vec![],
            names: vec![],
            tables,
        }
    }

    /// Numbers by core as an expression: a constant if they are all equal, else a new parameter.
    fn value(&mut self, name: &str, values: &[Option<i64>]) -> Result<Affine, Unsupported> {
        let mut known = values.iter().flatten();
        let first = known.next().copied().unwrap_or(0);
        if known.all(|value| *value == first) {
            return Ok(Affine::constant(first));
        }
        let many = |_| Unsupported::new("an exchange has more than 65,536 parameters");
        let param = u16::try_from(self.row.len()).map_err(many)?;
        self.names.push(format!("{name}{param}"));
        self.row.push(fit_some(values, self.tables));
        Ok(Affine::var(Var::Param(param)))
    }

    /// The loop with parameters for what differs between cores.
    pub(super) fn counted(&mut self, it: Loop) -> Result<Counted, Unsupported> {
        let counts: Vec<Option<i64>> = it.counts.iter().map(|count| Some(*count)).collect();
        let count = self.value("n", &counts)?;
        let of = |get: &dyn Fn(&Item) -> i64| -> Vec<Option<i64>> {
            it.first.iter().map(|item| item.as_ref().map(get)).collect()
        };
        let port = self.value("port", &of(&|item| item.port))?;
        let some = it.first.iter().flatten().next();
        let (operands, rank) = some.map_or((0, 0), |item| (item.offsets.len(), item.extents.len()));
        let offsets = (0..operands).map(|k| self.value("at", &of(&|item| item.offsets[k])));
        let offsets = offsets.collect::<Result<Vec<_>, _>>()?;
        let extents = (0..rank).map(|d| self.value("size", &of(&|item| item.extents[d] as i64)));
        let extents = extents.collect::<Result<Vec<_>, _>>()?;
        let first = Body {
            port,
            offsets,
            extents,
        };
        Ok(Counted {
            count,
            first,
            steps: it.steps,
        })
    }
}

impl Counted {
    /// Adds the loop to a segment, or its body alone where every core runs it once. `stmt` adds the
    /// body.
    pub(super) fn push(
        &self,
        builder: &mut SegmentBuilder,
        unit: Unit,
        loc: Option<LocId>,
        stmt: impl Fn(&mut SegmentBuilder, &Body),
    ) -> Result<(), Unsupported> {
        if self.count.as_constant() == Some(1) {
            stmt(builder, &self.first);
            return Ok(());
        }
        builder.repeat(unit, self.count.clone(), loc, |builder, counter| {
            let body = self
                .at(&Affine::var(counter))
                .ok_or_else(Unsupported::overflow)?;
            stmt(builder, &body);
            Ok(())
        })
    }

    fn at(&self, counter: &Affine) -> Option<Body> {
        let offsets = self.first.offsets.iter().zip(&self.steps);
        let offsets = offsets.map(|(start, step)| start.add(&counter.scale(*step)?));
        Some(Body {
            port: self.first.port.add(counter)?,
            offsets: offsets.collect::<Option<_>>()?,
            extents: self.first.extents.clone(),
        })
    }
}
