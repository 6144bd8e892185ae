//! Building a program: regions, families, segments and locations, equal ones once.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use dojoc_ir::diag::Loc;
use dojoc_ir::machine::{CoreAddress, Machine};
use dojoc_ir::program::{
    Affine, BufferId, CoreBox, Family, FamilyId, IndexExpr, LocId, MachineRef, Program, Region,
    RegionId, Route, RouteRule, Segment, SegmentId, Span, Step, Var,
};
use foldhash::{HashMap, HashMapExt as _};

use super::Unsupported;
use super::compute::{PhaseCode, PhaseKey};
use super::exchange::ExchangeKey;
use super::fit::Tables;

/// Counts of a segment's parts: what segments that may be equal have in common.
type Signature = [usize; 5];

/// Code with the regions and rows of its calls, without the addresses of its buffers: what all phases
/// and exchanges of one form share.
#[derive(Debug)]
pub(super) struct Template {
    segment: SegmentId,
    on: RegionId,
    /// The parameter row before the addresses.
    row: Vec<IndexExpr>,
    /// Whose address each buffer has.
    slots: Vec<Slot>,
}

/// Where a buffer of a template lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    /// At the address of the n-th value of the phase or exchange.
    Value(usize),
    /// So many bytes behind the start of the scratch memory.
    Scratch(u64),
}

/// A program that grows. Logical cores have places, as in a
/// [schedule](dojoc_ir::mesh::Schedule::places).
pub struct ProgramBuilder {
    /// The program so far, without its tables; whoever builds may add tensors and entries.
    pub program: Program,
    /// The tables, and formulas for numbers of cores.
    pub tables: Tables,
    /// Calls so far, for an entry.
    pub steps: Vec<Step>,
    places: Vec<CoreAddress>,
    route: RouteRule,
    regions: BTreeMap<(usize, usize), RegionId>,
    families: HashMap<Family, FamilyId>,
    /// Segments without their names and locations.
    segments: HashMap<Signature, Vec<(Segment, SegmentId)>>,
    segment_names: BTreeSet<Arc<str>>,
    locs: HashMap<Loc, LocId>,
    /// The calls of exchanges by what they are made from.
    pub(super) exchanges: HashMap<ExchangeKey, Rc<[Template]>>,
    /// The code of phases by what it is made from.
    pub(super) phases: HashMap<PhaseKey, Rc<PhaseCode>>,
}

impl ProgramBuilder {
    /// An empty program for a machine, on which logical core `n` is at `places[n]` and messages
    /// travel by `route`.
    pub fn new(
        name: impl Into<Arc<str>>,
        machine: &Machine,
        places: Vec<CoreAddress>,
        route: RouteRule,
    ) -> Self {
        let machine = MachineRef {
            name: machine.name.as_str().into(),
            fingerprint: machine.fingerprint(),
        };
        Self {
            program: Program {
                name: name.into(),
                machine,
                ..Program::default()
            },
            tables: Tables::new(),
            steps: vec![],
            places,
            route,
            regions: BTreeMap::new(),
            families: HashMap::new(),
            segments: HashMap::new(),
            segment_names: BTreeSet::new(),
            locs: HashMap::new(),
            exchanges: HashMap::new(),
            phases: HashMap::new(),
        }
    }

    /// Places of the logical cores.
    pub fn places(&self) -> &[CoreAddress] {
        &self.places
    }

    /// The region of `count` logical cores from `first` on, in their order.
    ///
    /// # Errors
    /// There are not so many places.
    pub fn region(&mut self, first: usize, count: usize) -> Result<RegionId, Unsupported> {
        if let Some(region) = self.regions.get(&(first, count)) {
            return Ok(*region);
        }
        let end = first.checked_add(count);
        let cores = end
            .and_then(|end| self.places.get(first..end))
            .ok_or_else(|| {
                let places = self.places.len();
                Unsupported::new(format!(
                    "cores {first} to {first} + {count} are used, but there are {places}"
                ))
            })?;
        let name = match first {
            0 => format!("cores{count}").into(),
            _ => format!("cores{count}_from{first}").into(),
        };
        let boxes = boxes(cores);
        let region = self.program.regions.push(Region { name, boxes });
        self.regions.insert((first, count), region);
        Ok(region)
    }

    /// The family of channels of so many ports between the cores of one region, with the receiver
    /// and its port as [`Family::peer`] and [`Family::peer_port`] have them.
    pub fn family(
        &mut self,
        region: RegionId,
        ports: u32,
        peer: IndexExpr,
        peer_port: IndexExpr,
        loc: Option<LocId>,
    ) -> FamilyId {
        let family = Family {
            name: "".into(),
            from: region,
            to: region,
            ports,
            peer,
            peer_port,
            branches: 1,
            route: Route {
                rule: self.route,
                overrides: vec![],
            },
            loc: None,
        };
        if let Some(known) = self.families.get(&family) {
            return *known;
        }
        let name = format!("f{}", self.program.families.len()).into();
        let named = Family {
            name,
            loc,
            ..family.clone()
        };
        let id = self.program.families.push(named);
        self.families.insert(family, id);
        id
    }

    /// The id of a location.
    pub fn loc(&mut self, loc: &Loc) -> LocId {
        if let Some(known) = self.locs.get(loc) {
            return *known;
        }
        let id = self.program.locs.push(loc.clone());
        self.locs.insert(loc.clone(), id);
        id
    }

    /// The segment, or one that is equal but for its name and locations. A name that is taken gets a
    /// number.
    pub fn intern_segment(&mut self, segment: Segment) -> SegmentId {
        let plain = without_names(&segment);
        let code = plain.streams.iter().map(|stream| stream.code.len()).sum();
        let signature: Signature = [
            plain.params.len(),
            plain.buffers.len(),
            plain.views.len(),
            plain.tokens.len(),
            code,
        ];
        let alike = self.segments.entry(signature).or_default();
        if let Some((_, id)) = alike.iter().find(|(other, _)| *other == plain) {
            return *id;
        }
        let mut name = segment.name.clone();
        let mut number = 1;
        while !self.segment_names.insert(name.clone()) {
            name = format!("{}_{number}", segment.name).into();
            number += 1;
        }
        let id = self.program.segments.push(Segment { name, ..segment });
        alike.push((plain, id));
        id
    }

    /// Code that calls share, on a region, with the parameter row that it has so far and the places
    /// of its buffers. The addresses become parameters, so that segments that differ in nothing else
    /// are one.
    pub(super) fn template(
        &mut self,
        mut segment: Segment,
        on: RegionId,
        row: Vec<IndexExpr>,
        slot: impl Fn(BufferId) -> Slot,
    ) -> Template {
        let slots = segment.buffers.ids().map(slot).collect();
        lift_addresses(&mut segment);
        let segment = self.intern_segment(segment);
        Template {
            segment,
            on,
            row,
            slots,
        }
    }

    /// Adds a call where the values lie at these addresses, the scratch memory at `scratch`.
    ///
    /// # Errors
    /// An address beyond 63 bits.
    pub(super) fn call(
        &mut self,
        template: &Template,
        values: &[u64],
        scratch: u64,
        loc: Option<LocId>,
    ) -> Result<(), Unsupported> {
        let mut row = template.row.clone();
        for slot in &template.slots {
            let address = match slot {
                Slot::Value(n) => values.get(*n).copied(),
                Slot::Scratch(at) => scratch.checked_add(*at),
            };
            let address = address.and_then(|address| i64::try_from(address).ok());
            row.push(IndexExpr::constant(
                address.ok_or_else(Unsupported::overflow)?,
            ));
        }
        let (segment, on) = (template.segment, template.on);
        self.steps.push(Step::Call {
            segment,
            on,
            row,
            loc,
        });
        Ok(())
    }

    /// The program. Tensors and entries have the names of the user's model; what has a name of ours
    /// gives way to them.
    pub fn finish(self) -> Program {
        let mut program = Program {
            tables: self.tables.into_tables(),
            ..self.program
        };
        let tensors = program.tensors.values().map(|t| t.name.clone());
        let entries = program.entries.values().map(|e| e.name.clone());
        let taken: BTreeSet<Arc<str>> = tensors.chain(entries).collect();
        let regions = program.regions.iter_mut().map(|(_, x)| &mut x.name);
        let tables = program.tables.iter_mut().map(|(_, x)| &mut x.name);
        let families = program.families.iter_mut().map(|(_, x)| &mut x.name);
        let segments = program.segments.iter_mut().map(|(_, x)| &mut x.name);
        let ours = regions.chain(tables).chain(families).chain(segments);
        let mut ours: Vec<&mut Arc<str>> = ours.collect();
        let all: BTreeSet<Arc<str>> = ours.iter().map(|name| (**name).clone()).collect();
        let is_free = |name: &str, new: &BTreeSet<Arc<str>>| {
            !taken.contains(name) && !all.contains(name) && !new.contains(name)
        };
        let mut new = BTreeSet::new();
        for name in ours.iter_mut().filter(|name| taken.contains(**name)) {
            let mut other = format!("{name}.code");
            while !is_free(&other, &new) {
                other.push('_');
            }
            **name = other.into();
            new.insert((**name).clone());
        }
        program.number();
        program
    }
}

/// The segment without its name and locations.
fn without_names(segment: &Segment) -> Segment {
    let mut plain = segment.clone();
    plain.name = "".into();
    plain.loc = None;
    for (_, buffer) in plain.buffers.iter_mut() {
        buffer.loc = None;
    }
    for inst in plain.streams.iter_mut().flat_map(|stream| &mut stream.code) {
        inst.loc = None;
    }
    plain
}

/// Makes the addresses of buffers parameters, in the order of the buffers.
fn lift_addresses(segment: &mut Segment) {
    for (_, buffer) in segment.buffers.iter_mut() {
        // More parameters than there may be are reported by the verifier.
        let param = u16::try_from(segment.params.len()).unwrap_or(u16::MAX);
        let mut name: Arc<str> = format!("at_{}", buffer.name).into();
        while segment.params.contains(&name) {
            name = format!("{name}_").into();
        }
        segment.params.push(name);
        buffer.at = Affine::var(Var::Param(param));
    }
}

/// Boxes that have these cores in their order: columns at one distance are a run, equal runs of
/// rows at one distance a box, equal boxes of chips at one distance one box.
fn boxes(cores: &[CoreAddress]) -> Vec<CoreBox> {
    let single = |core: &CoreAddress| CoreBox {
        chips: Span::one(core.chip),
        rows: Span::one(core.row),
        columns: Span::one(core.column),
    };
    let boxes = cores.iter().map(single).collect();
    let boxes = joined(boxes, |b| (b.chips, b.rows), |b| &mut b.columns);
    let boxes = joined(boxes, |b| (b.chips, b.columns), |b| &mut b.rows);
    joined(boxes, |b| (b.rows, b.columns), |b| &mut b.chips)
}

/// Joins neighbours in a list that agree in two spans and continue each other in the third one.
fn joined(
    boxes: Vec<CoreBox>,
    fixed: impl Fn(&CoreBox) -> (Span, Span),
    span: impl Fn(&mut CoreBox) -> &mut Span,
) -> Vec<CoreBox> {
    let mut list: Vec<CoreBox> = vec![];
    for mut next in boxes {
        let start = *span(&mut next);
        if let Some(last) = list.last_mut()
            && fixed(last) == fixed(&next)
            && start.count == 1
        {
            let run = span(last);
            let end = i64::from(run.start) + (i64::from(run.count) - 1) * i64::from(run.step);
            let step = i64::from(start.start) - end;
            if let Ok(step) = i32::try_from(step)
                && step != 0
                && (run.count == 1 || run.step == step)
            {
                run.step = step;
                run.count += 1;
                continue;
            }
        }
        list.push(next);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use dojoc_ir::entity::PrimaryMap;
    use dojoc_ir::program::{Buffer, BufferRole, Packing};
    use dojoc_ir::types::DType;

    fn core(row: u32, column: u32) -> CoreAddress {
        CoreAddress {
            chip: 0,
            row,
            column,
        }
    }

    fn builder(places: Vec<CoreAddress>) -> ProgramBuilder {
        let text = Machine::builtin("mesh4x4").unwrap();
        let machine = Machine::parse(text, "mesh4x4").unwrap();
        ProgramBuilder::new("p", &machine, places, RouteRule::Xy)
    }

    #[test]
    fn regions_keep_the_order_of_places() {
        let rows: Vec<CoreAddress> = (0..16).map(|i| core(i / 4, i % 4)).collect();
        let snake = |i: u32| {
            core(
                i / 4,
                if (i / 4).is_multiple_of(2) {
                    i % 4
                } else {
                    3 - i % 4
                },
            )
        };
        let snake: Vec<CoreAddress> = (0..16).map(snake).collect();
        let columns: Vec<CoreAddress> = (0..16).map(|i| core(i % 4, i / 4)).collect();
        let holes: Vec<CoreAddress> = rows.iter().filter(|c| c.row != c.column).copied().collect();
        for (places, count) in [(rows, 1), (snake, 4), (columns, 4), (holes, 6)] {
            let n = places.len();
            let mut cx = builder(places.clone());
            for (first, len) in [(0, n), (0, 5), (3, 6)] {
                let id = cx.region(first, len).unwrap();
                assert_eq!(cx.region(first, len).unwrap(), id);
                let cores: Vec<CoreAddress> = cx.program.regions[id].cores().collect();
                assert_eq!(cores, places[first..first + len]);
            }
            let whole = cx.region(0, n).unwrap();
            assert!(cx.program.regions[whole].boxes.len() <= count, "{places:?}");
            assert!(cx.region(1, n).is_err());
        }
    }

    #[test]
    fn segments_that_differ_in_addresses_are_shared() {
        let mut cx = builder((0..4).map(|i| core(0, i)).collect());
        let segment = |name: &str, extent: u64| {
            let mut buffers = PrimaryMap::new();
            buffers.push(Buffer {
                name: "x".into(),
                at: Affine::constant(0),
                dtype: DType::F32,
                shape: vec![extent],
                packing: Packing::Strided,
                role: BufferRole::In,
                loc: None,
            });
            Segment {
                name: name.into(),
                buffers,
                ..Segment::default()
            }
        };
        let region = cx.region(0, 4).unwrap();
        for (name, extent, at) in [("a", 3, 64), ("b", 3, 128), ("a", 4, 192)] {
            let template = cx.template(segment(name, extent), region, vec![], |_| Slot::Value(1));
            cx.call(&template, &[0, at], 0, None).unwrap();
        }
        let slot = |_| Slot::Scratch(5);
        let template = cx.template(segment("c", 3), region, vec![], slot);
        cx.call(&template, &[], 256, None).unwrap();
        assert!(cx.call(&template, &[], u64::MAX, None).is_err());
        let names: Vec<&str> = cx.program.segments.values().map(|s| &*s.name).collect();
        assert_eq!(names, ["a", "a_1"]);
        let row = |step: &Step| match step {
            Step::Call { row, .. } => row[0].as_constant(),
            _ => None,
        };
        let rows: Vec<Option<i64>> = cx.steps.iter().map(row).collect();
        assert_eq!(rows, [Some(64), Some(128), Some(192), Some(261)]);
    }
}
