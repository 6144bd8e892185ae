//! A function as the mapper sees it: nodes that are loop nests, kernels or views.

use std::ops::Range;
use std::sync::Arc;

use dojoc_ir::access::Tiling;
use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Loc, Place};
use dojoc_ir::entity::EntityId as _;
use dojoc_ir::graph::{self, Function, NodeId, ValueDef, ValueId};
use dojoc_ir::ops::Op;
use dojoc_ir::tiled::{Coalesced, coalesced, widest_loops};
use dojoc_ir::types::Type;
use foldhash::HashMap;

use super::{NOT_CONSTANT, NOT_TILED};

/// A function with the rules of its nodes.
#[derive(Debug)]
pub(super) struct Problem<'f> {
    /// The function.
    pub function: &'f Function,
    /// Its nodes in order.
    pub nodes: Vec<Node>,
    /// Number of the last node that uses a value (of those that compute; `usize::MAX` for outputs).
    pub last_use: Vec<usize>,
    /// By value: how often nodes and results use it.
    pub uses: Vec<u32>,
    /// By value: whether it can be had in any layout at the place where it is used: a weight, or a small
    /// value without operands, or another shape of one.
    pub free: Vec<bool>,
}

/// Values of nodes without operands up to this size are made where they are used, in bytes.
const SMALL: u64 = 4096;

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    /// In the function.
    pub id: NodeId,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    /// The same elements under another shape.
    View,
    /// A loop nest or kernel.
    Step(Arc<Rules>),
}

/// The rule of a node with its loops merged as far as possible, and other ways as they are asked for.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Equal nodes have equal numbers.
    pub id: u32,
    /// What is computed.
    pub op: Op,
    /// Types of the operands.
    pub args: Vec<Type>,
    /// Types of the results.
    pub results: Vec<Type>,
    /// Loops merged as far as possible.
    pub widest: Arc<Rule>,
    /// Single loops.
    pub finest: Arc<Rule>,
}

/// A rule with merged loops.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Which loops are merged.
    pub loops: Vec<Range<usize>>,
    /// The rule.
    pub rule: Coalesced,
}

impl Rules {
    fn of(id: u32, op: &Op, args: &[Type], results: &[Type]) -> Result<Self, String> {
        let widest = widest_loops(op, args, results)?;
        let count = widest.last().map_or(0, |r| r.end);
        let finest: Vec<Range<usize>> = (0..count).map(|d| d..d + 1).collect();
        let make = |loops: Vec<Range<usize>>| {
            let rule = coalesced(op, args, results, &loops)?;
            Ok::<_, String>(Arc::new(Rule { loops, rule }))
        };
        Ok(Self {
            id,
            op: op.clone(),
            args: args.to_vec(),
            results: results.to_vec(),
            finest: make(finest)?,
            widest: make(widest)?,
        })
    }

    /// The rule with those loops merged that names as `d2*d3` join, and no others.
    pub fn named<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<Rule> {
        if self.finest.loops.is_empty() {
            return None;
        }
        let single = self.finest.rule.names();
        let mut merged: Vec<Range<usize>> = vec![];
        for name in names {
            let parts: Vec<&str> = name.split('*').collect();
            let first = single.iter().position(|n| n == &parts[0])?;
            let range = first..first + parts.len();
            if single.get(range.clone())? != parts {
                return None;
            }
            merged.push(range);
        }
        let alone = (0..single.len()).filter(|d| merged.iter().all(|m| !m.contains(d)));
        let mut loops: Vec<Range<usize>> = alone.map(|d| d..d + 1).collect();
        loops.extend(merged);
        loops.sort_by_key(|l| l.start);
        if loops.windows(2).any(|pair| pair[0].end > pair[1].start) {
            return None;
        }
        let rule = coalesced(&self.op, &self.args, &self.results, &loops).ok()?;
        Some(Rule { loops, rule })
    }

    /// The rule with loops merged where an operand is seen under a view of fewer dims: loops that
    /// walk dims of one view dim become one, if all operands and results allow it.
    pub fn adapted(&self, operand: usize, view: &[u64]) -> Option<Rule> {
        use dojoc_ir::tiled::StepRule;
        let StepRule::Loop(access) = &self.finest.rule.rule else {
            return None;
        };
        let shape = &self.finest.rule.operands[operand];
        // Which view dim each dim of the operand is a part of.
        let mut part = vec![];
        let mut dims = view.iter().filter(|e| **e != 1);
        let (mut at, mut rest) = (0usize, *dims.next()?);
        for extent in shape {
            if *extent == 0 || rest % extent != 0 {
                return None;
            }
            part.push(at);
            rest /= extent;
            if rest == 1 {
                at += 1;
                rest = dims.next().copied().unwrap_or(1);
            }
        }
        let index = &access.operands[operand].index;
        let of_loop = |d: usize| {
            let walks = |t: &usize| index[*t].terms.first().is_some_and(|(l, _)| *l == d);
            (0..index.len()).find(walks).map(|t| part[t])
        };
        let mut loops: Vec<Range<usize>> = vec![];
        for d in 0..access.dims.len() {
            let same = loops.last().is_some_and(|last| {
                let one = |l: usize| access.dims[l].extent.is(1);
                let before = last.clone().rev().find(|l| !one(*l));
                one(d) || before.is_none_or(|l| of_loop(l).is_some() && of_loop(l) == of_loop(d))
            });
            if same && let Some(last) = loops.last_mut() {
                last.end = d + 1;
            } else {
                loops.push(d..d + 1);
            }
        }
        let rule = coalesced(&self.op, &self.args, &self.results, &loops).ok()?;
        Some(Rule { loops, rule })
    }
}

/// What nodes are that were looked at, by their ops and the types of their operands: the rules of equal
/// nodes are read once.
pub(super) type Known = HashMap<(Op, Vec<Type>), NodeKind>;

impl NodeKind {
    /// What a node is, or why it cannot be tiled.
    fn of(node: &graph::Node, function: &Function, known: &mut Known) -> Result<Self, String> {
        let key = (node.op.clone(), function.types(&node.args));
        if let Some(kind) = known.get(&key) {
            return Ok(kind.clone());
        }
        let args = &key.1;
        let kind = match node.op.tiling(args) {
            Tiling::View(_) => Self::View,
            _ if args.iter().any(|ty| ty.shape.as_const().is_none()) => {
                return Err("its operands have extents that are not constants".into());
            }
            _ => {
                let results = function.types(&node.results);
                let id = known.len() as u32;
                Self::Step(Arc::new(Rules::of(id, &node.op, args, &results)?))
            }
        };
        known.insert(key, kind.clone());
        Ok(kind)
    }
}

fn at(loc: Option<&Arc<Loc>>, diagnostic: Diagnostic) -> Diagnostic {
    match loc {
        Some(loc) => diagnostic.at(Place::Node(loc.clone())),
        None => diagnostic,
    }
}

impl<'f> Problem<'f> {
    /// Reads the rules of all nodes of a function.
    ///
    /// # Errors
    /// Nodes that cannot be tiled, all together.
    pub fn of(function: &'f Function, known: &mut Known) -> Result<Self, Diagnostics> {
        let mut problems = Diagnostics::default();
        let mut nodes = vec![];
        for value in function.inputs() {
            let ty = function.ty(*value);
            if ty.shape.as_const().is_none() {
                let message = format!(
                    "the input `{}` has extents that are not constants: {ty}",
                    function.values[*value].name.as_deref().unwrap_or("?")
                );
                let help = "bind its dims: `--dim NAME=N`";
                problems.push(Diagnostic::input(NOT_CONSTANT, message).help(help));
            }
        }
        for id in &function.regions[function.body()].nodes {
            let node = &function.nodes[*id];
            match NodeKind::of(node, function, known) {
                Ok(kind) => nodes.push(Node { id: *id, kind }),
                Err(cause) => {
                    let message = format!(
                        "`{}` cannot be compiled for the machine: {cause}",
                        node.op.name()
                    );
                    let diagnostic = Diagnostic::new(NOT_TILED, Kind::Unsupported, message)
                        .help("`dojoc eval` runs the model on the reference interpreter");
                    problems.push(at(node.loc.as_ref(), diagnostic));
                }
            }
        }
        let mut last_use = vec![0; function.values.len()];
        let mut uses = vec![0; function.values.len()];
        for (number, node) in nodes.iter().enumerate() {
            for arg in &function.nodes[node.id].args {
                last_use[arg.index()] = number;
                uses[arg.index()] += 1;
            }
        }
        for value in function.results() {
            last_use[value.index()] = usize::MAX;
            uses[value.index()] += 1;
        }
        let mut problem = Self {
            function,
            nodes,
            last_use,
            uses,
            free: vec![],
        };
        if problems.0.is_empty() {
            problem.free = problem.free_values();
        }
        problems.ok(problem)
    }

    fn free_values(&self) -> Vec<bool> {
        let values = self.function.values.ids();
        let mut free: Vec<bool> = values.map(|v| self.is_weight(v)).collect();
        for (number, node) in self.nodes.iter().enumerate() {
            let data = &self.function.nodes[node.id];
            let is_free = match node.kind {
                NodeKind::View => free[data.args[0].index()],
                NodeKind::Step(_) => self.is_small_source(number),
            };
            for result in &data.results {
                free[result.index()] = is_free;
            }
        }
        free
    }

    /// Whether a node makes small values from nothing.
    pub fn is_small_source(&self, number: usize) -> bool {
        let node = &self.function.nodes[self.nodes[number].id];
        node.args.is_empty()
            && node.results.iter().all(|v| {
                let elements: u64 = self.shape(*v).iter().product();
                elements.saturating_mul(self.width(*v)) <= SMALL
            })
    }

    /// Whether a value's bytes are written by the loader, in whatever layout is asked for.
    pub fn is_weight(&self, value: ValueId) -> bool {
        matches!(self.function.values[value].def, ValueDef::Weight(_))
    }

    /// Extents of a value.
    pub fn shape(&self, value: ValueId) -> Vec<u64> {
        self.function.ty(value).shape.as_const().unwrap_or_default()
    }

    /// Bytes of an element of a value.
    pub fn width(&self, value: ValueId) -> u64 {
        self.function.ty(value).dtype.bytes()
    }
}
