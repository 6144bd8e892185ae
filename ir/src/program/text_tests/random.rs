//! Random programs, built as data without regard to the verifier.

use std::sync::Arc;

use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use super::super::instr::Ref;
use super::super::*;
use crate::attr::{F64, Number};
use crate::diag::Loc;
use crate::entity::EntityId;
use crate::machine::CoreAddress;

const WORDS: [&str; 12] = [
    "a",
    "i",
    "f32",
    "p",
    "true",
    "x.1.y",
    "1st",
    "two words",
    "é\"\\\n",
    "",
    "inf",
    "loc",
];

struct Maker {
    rng: Pcg64Mcg,
    program: Program,
    names: u32,
}

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n.max(1))
    }

    fn chance(&mut self) -> bool {
        self.below(3) == 0
    }

    fn word(&mut self) -> &'static str {
        WORDS.choose(&mut self.rng).copied().unwrap_or("a")
    }

    /// A name that no other has.
    fn name(&mut self) -> Arc<str> {
        self.names += 1;
        format!("{}{}", self.word(), self.names).into()
    }

    fn small(&mut self) -> u32 {
        match self.below(4) {
            0 => self.rng.random(),
            _ => self.rng.random_range(0..4),
        }
    }

    fn int(&mut self) -> i64 {
        match self.below(8) {
            0 => self.rng.random(),
            1 => *[i64::MIN, i64::MAX, -1].choose(&mut self.rng).unwrap_or(&0),
            _ => self.rng.random_range(-4..100),
        }
    }

    fn uints(&mut self, n: usize) -> Vec<u64> {
        (0..n)
            .map(|_| {
                if self.below(9) == 0 {
                    self.rng.random()
                } else {
                    self.rng.random_range(0..9)
                }
            })
            .collect()
    }

    fn ints(&mut self, n: usize) -> Vec<i64> {
        (0..n).map(|_| self.int()).collect()
    }

    fn id<T: EntityId>(&mut self, count: usize) -> T {
        T::from_index(self.below(count))
    }

    /// A location, usually of those that are there already; they are in the order of their use.
    fn loc(&mut self) -> Option<LocId> {
        if self.chance() {
            return None;
        }
        let (name, file): (Arc<str>, Arc<str>) = (self.word().into(), self.word().into());
        let loc = Loc {
            name,
            file,
            line: self.small(),
        };
        let found = self
            .program
            .locs
            .iter()
            .find(|(_, known)| **known == loc)
            .map(|(id, _)| id);
        Some(found.unwrap_or_else(|| self.program.locs.push(loc)))
    }

    fn dtype(&mut self) -> DType {
        DType::ALL
            .choose(&mut self.rng)
            .map_or(DType::F32, |(dtype, _)| *dtype)
    }

    fn index(&mut self, repeats: usize, size: usize) -> IndexExpr {
        if size == 0 || self.chance() {
            let dims = self.program.dims.len();
            return match self.below(4) {
                0 => IndexExpr::constant(self.int()),
                1 if repeats > 0 => {
                    IndexExpr::coordinate(Coordinate::Repeat(self.below(repeats) as u8))
                }
                2 if dims > 0 => IndexExpr::coordinate(Coordinate::Dim(self.below(dims) as u16)),
                _ => {
                    let all = [
                        Coordinate::Index,
                        Coordinate::Chip,
                        Coordinate::Row,
                        Coordinate::Column,
                        Coordinate::Port,
                        Coordinate::Branch,
                    ];
                    IndexExpr::coordinate(*all.choose(&mut self.rng).unwrap_or(&Coordinate::Index))
                }
            };
        }
        let a = self.index(repeats, size - 1);
        if self.below(6) == 0 && !self.program.tables.is_empty() {
            let table = self.id(self.program.tables.len());
            return IndexExpr::table(table, &a);
        }
        let make = [
            IndexNode::Add,
            IndexNode::Sub,
            IndexNode::Mul,
            IndexNode::Div,
            IndexNode::Mod,
            IndexNode::Min,
            IndexNode::Max,
        ];
        let make = make[self.below(make.len())];
        let b = self.index(repeats, size - 1);
        IndexExpr::binary(make, &a, &b)
    }

    fn affine(&mut self, variables: &[Var]) -> Affine {
        let mut sum = Affine::constant(self.int());
        for _ in 0..self.below(4) {
            let Some(var) = variables.choose(&mut self.rng) else {
                break;
            };
            let term = Affine {
                constant: 0,
                terms: vec![(*var, self.int())],
            };
            if term.terms[0].1 != 0 {
                sum = sum.add(&term).unwrap_or(sum);
            }
        }
        sum
    }

    fn number(&mut self) -> Number {
        match self.below(3) {
            0 => Number::Int(self.int().into()),
            1 => Number::Float(F64(f64::from_bits(self.rng.random()))),
            _ => Number::Float(F64(*[0.0, -0.0, 1.0, 1e-7, f64::INFINITY]
                .choose(&mut self.rng)
                .unwrap_or(&0.5))),
        }
    }

    fn recipe(&mut self, nodes: &mut Vec<RecipeNode>, depth: usize) -> u32 {
        let (dtype, rank) = (self.dtype(), self.below(4));
        let kind = if depth == 0 {
            self.below(3)
        } else {
            self.below(10)
        };
        let node = match kind {
            0 => RecipeNode::File {
                file: self.word().into(),
                offset: self.rng.random(),
                dtype,
                shape: self.uints(rank),
            },
            1 => {
                let data: Vec<u8> = (0..self.below(9)).map(|_| self.rng.random()).collect();
                RecipeNode::Inline {
                    dtype,
                    shape: self.uints(rank),
                    data: data.into(),
                }
            }
            2 => RecipeNode::Splat {
                dtype,
                shape: self.uints(rank),
                value: self.number(),
            },
            3 => RecipeNode::Concat {
                of: (0..self.below(4))
                    .map(|_| self.recipe(nodes, depth - 1))
                    .collect(),
                axis: self.small(),
            },
            4 => RecipeNode::Scale {
                of: self.recipe(nodes, depth - 1),
                by: self.recipe(nodes, depth - 1),
                axis: self.small(),
            },
            kind => {
                let of = self.recipe(nodes, depth - 1);
                match kind {
                    5 => RecipeNode::Slice {
                        of,
                        starts: self.uints(rank),
                        sizes: self.uints(rank),
                    },
                    6 => RecipeNode::Permute {
                        of,
                        order: (0..rank).map(|_| self.small()).collect(),
                    },
                    7 => RecipeNode::Reshape {
                        of,
                        shape: self.uints(rank),
                    },
                    8 => {
                        let (low, high) = (self.uints(rank), self.uints(rank));
                        RecipeNode::Pad {
                            of,
                            low,
                            high,
                            value: self.number(),
                        }
                    }
                    _ => RecipeNode::Convert { of, to: dtype },
                }
            }
        };
        nodes.push(node);
        nodes.len() as u32 - 1
    }

    fn tree(&mut self) -> Recipe {
        let mut nodes = vec![];
        self.recipe(&mut nodes, 3);
        Recipe { nodes }
    }

    fn packing(&mut self) -> Packing {
        Packing::ALL
            .choose(&mut self.rng)
            .map_or(Packing::Strided, |(packing, _)| *packing)
    }

    /// Strides that are dense where they can be, or arbitrary.
    fn strides(
        &mut self,
        dtype: DType,
        shape: Option<Vec<u64>>,
        rank: usize,
        packing: Packing,
    ) -> Vec<i64> {
        let dense = shape.and_then(|shape| dense_strides(dtype, &shape, packing));
        match dense {
            Some(dense) if !self.chance() => dense,
            _ => self.ints(rank),
        }
    }

    fn declarations(&mut self) {
        let name = self.name();
        self.program.name = name;
        self.program.machine = MachineRef {
            name: self.word().into(),
            fingerprint: self.rng.random(),
        };
        for _ in 0..self.below(4) {
            let dim = (self.name(), self.rng.random());
            self.program.dims.push(dim);
        }
        for _ in 0..1 + self.below(3) {
            let span = |m: &mut Self| Span {
                start: m.small(),
                count: m.small(),
                step: m.small() as i32,
            };
            let boxes = (0..self.below(3)).map(|_| CoreBox {
                chips: span(self),
                rows: span(self),
                columns: Span::one(3),
            });
            let boxes = boxes.collect();
            let name = self.name();
            self.program.regions.push(Region { name, boxes });
        }
        for _ in 0..self.below(3) {
            let (name, n) = (self.name(), self.below(5));
            let values = self.ints(n);
            self.program.tables.push(Table { name, values });
        }
        for _ in 0..1 + self.below(2) {
            let overrides = (0..self.below(3)).map(|_| RouteOverride {
                sender: self.rng.random(),
                port: self.small(),
                sites: (0..self.below(3))
                    .map(|_| CoreAddress {
                        chip: self.small(),
                        row: self.small(),
                        column: self.small(),
                    })
                    .collect(),
            });
            let overrides = overrides.collect();
            let rule = if self.chance() {
                RouteRule::Yx
            } else {
                RouteRule::Xy
            };
            let regions = self.program.regions.len();
            let family = Family {
                name: self.name(),
                from: self.id(regions),
                to: self.id(regions),
                ports: self.small(),
                peer: self.index(0, 4),
                peer_port: self.index(0, 1),
                branches: self.small(),
                route: Route { rule, overrides },
                loc: self.loc(),
            };
            self.program.families.push(family);
        }
        for _ in 0..1 + self.below(2) {
            let region = DramRegion {
                name: self.name(),
                owners: if self.chance() {
                    Some(self.id(self.program.regions.len()))
                } else {
                    None
                },
                dip: self.index(0, 2),
                bytes: self.rng.random(),
                readers: self.small(),
            };
            self.program.dram.push(region);
        }
        for _ in 0..1 + self.below(4) {
            let tensor = self.tensor();
            self.program.tensors.push(tensor);
        }
    }

    fn tensor(&mut self) -> TensorDecl {
        let kind = match self.below(6) {
            0 => TensorKind::Input,
            1 => TensorKind::Output,
            2 => TensorKind::Weight(self.tree()),
            3 => TensorKind::State(StateInit::Zeros),
            4 => TensorKind::State(StateInit::Recipe(self.tree())),
            _ => TensorKind::Probe,
        };
        let (dtype, rank) = (self.dtype(), self.below(4));
        let dims: Vec<Var> = (0..self.program.dims.len())
            .map(|d| Var::Dim(d as u16))
            .collect();
        let shards = (0..self.below(3)).map(|_| {
            let at = self.index(0, 2);
            let home = match self.chance() {
                true => Home::Dram {
                    dram: self.id(self.program.dram.len()),
                    at,
                },
                false => Home::Sram {
                    on: self.id(self.program.regions.len()),
                    at,
                },
            };
            let size = self.below(2);
            let slice: Vec<_> = (0..rank)
                .map(|_| (self.index(0, 1), self.index(0, size)))
                .collect();
            let shape = slice
                .iter()
                .map(|(_, e)| u64::try_from(e.as_constant()?).ok())
                .collect();
            let packing = self.packing();
            let strides = self.strides(dtype, shape, rank, packing);
            Shard {
                home,
                slice,
                strides,
                packing,
            }
        });
        let shards = shards.collect();
        let shape = (0..rank).map(|_| self.affine(&dims)).collect();
        TensorDecl {
            name: self.name(),
            kind,
            dtype,
            shape,
            shards,
            loc: self.loc(),
        }
    }

    fn segment(&mut self) {
        let mut segment = Segment {
            name: self.name(),
            ..Segment::default()
        };
        // Locations are numbered in the order in which the reader sees them.
        segment.loc = self.loc();
        segment.params = (0..self.below(3)).map(|_| self.name()).collect();
        let mut variables: Vec<Var> = (0..segment.params.len())
            .map(|p| Var::Param(p as u16))
            .collect();
        variables.extend((0..self.program.dims.len()).map(|d| Var::Dim(d as u16)));
        for _ in 0..1 + self.below(3) {
            let rank = self.below(4);
            let role = BufferRole::ALL
                .choose(&mut self.rng)
                .map_or(BufferRole::In, |(role, _)| *role);
            let buffer = Buffer {
                name: self.name(),
                at: self.affine(&variables),
                dtype: self.dtype(),
                shape: self.uints(rank),
                packing: self.packing(),
                role,
                loc: self.loc(),
            };
            segment.buffers.push(buffer);
        }
        for _ in 0..1 + self.below(2) {
            let name = self.name();
            segment.tokens.push(name);
        }
        for (unit, _) in Unit::ALL {
            if self.chance() {
                continue;
            }
            let mut code = vec![];
            self.body(&mut segment, &mut vec![], &variables, 0, &mut code);
            segment.streams.push(Stream { unit, code });
        }
        self.program.segments.push(segment);
    }

    fn body(
        &mut self,
        segment: &mut Segment,
        views: &mut Vec<ViewId>,
        variables: &[Var],
        depth: u8,
        code: &mut Vec<Inst>,
    ) {
        let mut variables = variables.to_vec();
        let visible = views.len();
        for _ in 0..self.below(7) {
            let loc = self.loc();
            if depth < 3 && self.below(4) == 0 {
                let at = code.len();
                let (name, count) = (self.name(), self.affine(&variables));
                code.push(Inst {
                    stmt: Stmt::Loop {
                        name: name.clone(),
                        count: count.clone(),
                        len: 0,
                    },
                    loc,
                });
                let mut inner = variables.clone();
                inner.push(Var::Loop(depth));
                self.body(segment, views, &inner, depth + 1, code);
                let len = (code.len() - at - 1) as u32;
                code[at].stmt = Stmt::Loop { name, count, len };
                continue;
            }
            let stmt = self.stmt(segment, views, &mut variables);
            code.push(Inst { stmt, loc });
        }
        views.truncate(visible);
    }

    fn stmt(
        &mut self,
        segment: &mut Segment,
        views: &mut Vec<ViewId>,
        variables: &mut Vec<Var>,
    ) -> Stmt {
        let operand = |m: &mut Self, views: &[ViewId]| match views.choose(&mut m.rng) {
            Some(view) if !m.chance() => Ref::View(*view),
            _ => Ref::Buffer(m.id(segment.buffers.len())),
        };
        let of = operand(self, views);
        let (families, drams) = (self.program.families.len(), self.program.dram.len());
        let number = if self.chance() {
            Affine::default()
        } else {
            self.affine(variables)
        };
        let family = self.id(families);
        let dram = self.id(drams);
        match self.below(13) {
            0 => Stmt::Post {
                family,
                port: number,
                slot: of,
            },
            1 => Stmt::Send {
                family,
                port: number,
                from: of,
            },
            2 => Stmt::Receive {
                family,
                port: number,
                slot: of,
            },
            3 => Stmt::Relay {
                family,
                port: number,
                slot: of,
                to: self.id(families),
                to_port: self.affine(variables),
            },
            4 => Stmt::Signal(self.id(segment.tokens.len())),
            5 => Stmt::Wait(self.id(segment.tokens.len())),
            6 => Stmt::DramBegin(dram),
            7 => Stmt::DramAcquire {
                dram,
                owner: number,
            },
            8 => Stmt::DramLoad {
                dram,
                owner: number,
                offset: self.affine(variables),
                strides: self.ints(2),
                to: of,
            },
            9 => Stmt::DramStore {
                dram,
                offset: number,
                strides: self.ints(1),
                from: of,
            },
            10 => {
                let register = segment.registers.len() as u16;
                let name = self.name();
                segment.registers.push(name);
                variables.push(Var::Register(register));
                let via = if self.chance() { Some(family) } else { None };
                Stmt::Count {
                    register,
                    from: of,
                    max: self.rng.random(),
                    via,
                }
            }
            11 => {
                let samples = Instr::samples();
                let Some((instr, _)) = samples.choose(&mut self.rng) else {
                    return Stmt::DramCommit(dram);
                };
                let operands = instr.roles().iter().map(|_| operand(self, views)).collect();
                let scalars = instr
                    .scalars()
                    .iter()
                    .map(|_| self.affine(variables))
                    .collect();
                Stmt::Compute {
                    instr: instr.clone(),
                    operands,
                    scalars,
                }
            }
            _ => {
                let (dtype, rank, packing) = (self.dtype(), self.below(4), self.packing());
                let shape: Vec<Affine> = (0..rank)
                    .map(|_| match self.chance() {
                        true => self.affine(variables),
                        false => Affine::constant(self.rng.random_range(0..9)),
                    })
                    .collect();
                let extents = shape
                    .iter()
                    .map(|e| u64::try_from(e.as_constant()?).ok())
                    .collect();
                let view = View {
                    name: self.name(),
                    buffer: self.id(segment.buffers.len()),
                    offset: number,
                    dtype,
                    strides: self.strides(dtype, extents, rank, packing),
                    shape,
                    packing,
                };
                let id = segment.views.push(view);
                views.push(id);
                Stmt::View(id)
            }
        }
    }

    fn entry(&mut self) {
        let tensors = self.program.tensors.len();
        let mut entry = Entry {
            name: self.name(),
            ..Entry::default()
        };
        entry.inputs = (0..self.below(3)).map(|_| self.id(tensors)).collect();
        entry.outputs = (0..self.below(3)).map(|_| self.id(tensors)).collect();
        self.steps(&mut entry.steps, 0);
        self.program.entries.push(entry);
    }

    fn steps(&mut self, steps: &mut Vec<Step>, depth: usize) {
        for _ in 0..self.below(4) {
            match self.below(3) {
                0 => steps.push(Step::Probe(self.id(self.program.tensors.len()))),
                1 if depth < 3 => {
                    let at = steps.len();
                    let (name, count) = (self.name(), self.rng.random());
                    steps.push(Step::Probe(TensorId::from_index(0)));
                    self.steps(steps, depth + 1);
                    steps[at] = Step::Repeat {
                        name,
                        count,
                        len: (steps.len() - at - 1) as u32,
                    };
                }
                _ => {
                    let call = Step::Call {
                        segment: self.id(self.program.segments.len()),
                        on: self.id(self.program.regions.len()),
                        row: (0..self.below(3)).map(|_| self.index(depth, 2)).collect(),
                        loc: self.loc(),
                    };
                    steps.push(call);
                }
            }
        }
    }
}

fn random_program(seed: u64) -> Program {
    let mut maker = Maker {
        rng: Pcg64Mcg::seed_from_u64(seed),
        program: Program::default(),
        names: 0,
    };
    maker.declarations();
    for _ in 0..1 + maker.below(3) {
        maker.segment();
    }
    for _ in 0..maker.below(3) {
        maker.entry();
    }
    maker.program
}

#[test]
fn random_programs_read_back() {
    for seed in 0..300 {
        super::assert_reads_back(&random_program(seed));
    }
}
