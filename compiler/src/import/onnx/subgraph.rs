//! Graphs inside nodes. A graph of the model sees the names around it; a region of the IR sees
//! only its parameters, weights and states. So values of outside that a graph uses become operands
//! of the node and parameters of its regions; constants are referred to directly.

use std::collections::BTreeSet;
use std::sync::Arc;

use dojoc_ir::diag::Kind;
use dojoc_ir::graph::{RegionId, ValueDef, ValueId};
use dojoc_ir::ops::Op;
use dojoc_ir::types::Type;

use super::codes;
use super::node::NodeCx;
use super::problems::{NodeError, NodeResult};
use super::value::{Operand, Slot};
use super::wire::GraphProto;

/// What the graphs of a node use of the values around it.
pub(super) struct Captures<'m> {
    /// Operands of the node, and parameters of each of its regions.
    pub(super) values: Vec<ValueId>,
    names: Vec<(&'m str, Captured)>,
}

enum Captured {
    /// The parameter at this position among the captures.
    Param(usize),
    /// A value that is visible inside as it is.
    Operand(Operand),
    /// A constant that a node makes: made again inside.
    Node(Op),
    Poisoned,
}

/// What stands for an input of a graph.
pub(super) enum GraphArg {
    /// A parameter of the region.
    Param(Type),
    /// A value that is visible inside as it is.
    Known(Operand),
}

/// The names that a graph takes from around it, in order of first use.
fn free_names<'m>(graph: &'m GraphProto, free: &mut Vec<&'m str>) {
    let mut defined: BTreeSet<&str> = BTreeSet::new();
    let mut seen: BTreeSet<&str> = free.iter().copied().collect();
    defined.extend(graph.input.iter().map(|i| i.name.as_str()));
    defined.extend(graph.initializer.iter().map(|t| t.name.as_str()));
    let mut take = |name: &'m str, defined: &BTreeSet<&str>| {
        if !name.is_empty() && !defined.contains(name) && seen.insert(name) {
            free.push(name);
        }
    };
    for node in &graph.node {
        for name in &node.input {
            take(name, &defined);
        }
        for attribute in &node.attribute {
            for inner in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
                let mut names = vec![];
                free_names(inner, &mut names);
                names.into_iter().for_each(|name| take(name, &defined));
            }
        }
        defined.extend(node.output.iter().map(String::as_str));
    }
    for output in &graph.output {
        take(&output.name, &defined);
    }
}

impl<'m> NodeCx<'_, 'm> {
    fn prefix(&self) -> Arc<str> {
        match &self.imp.loc {
            Some(loc) => format!("{}/", loc.name).into(),
            None => "".into(),
        }
    }

    /// What graphs use of the values around the node.
    pub(super) fn captures(&mut self, graphs: &[&'m GraphProto]) -> Captures<'m> {
        let mut free = vec![];
        for graph in graphs {
            free_names(graph, &mut free);
        }
        let mut captures = Captures {
            values: vec![],
            names: vec![],
        };
        for name in free {
            // A name that is not defined is reported where it is used.
            let captured = match self.imp.lookup(name) {
                Ok(None) => continue,
                Ok(Some(operand)) => self.capture(operand, &mut captures.values),
                Err(_) => Captured::Poisoned,
            };
            captures.names.push((name, captured));
        }
        captures
    }

    fn capture(&self, operand: Operand, values: &mut Vec<ValueId>) -> Captured {
        let Operand::Value(value) = operand else {
            return Captured::Operand(operand);
        };
        let func = self.imp.b.func();
        match func.values[value].def {
            ValueDef::Weight(_) | ValueDef::State(_) => return Captured::Operand(operand),
            ValueDef::Result(node, _) => {
                let node = &func.nodes[node];
                if matches!(node.op, Op::Full(_)) {
                    return Captured::Node(node.op.clone());
                }
            }
            ValueDef::Param(..) => {}
        }
        let position = values.iter().position(|v| *v == value);
        Captured::Param(position.unwrap_or_else(|| {
            values.push(value);
            values.len() - 1
        }))
    }

    fn check_graph(&self, graph: &GraphProto, inputs: usize) -> NodeResult {
        self.imp.check_depth()?;
        if graph.input.len() == inputs {
            return Ok(());
        }
        let found = graph.input.len();
        let message = format!("the graph has {found} inputs, expected {inputs}");
        Err(NodeError::new(codes::BAD_GRAPH, Kind::Input, message))
    }

    /// Imports a graph as a region. Its parameters are those of `args`, then the captures; its
    /// results are what `finish` makes of the graph's outputs.
    pub(super) fn region(
        &mut self,
        graph: &'m GraphProto,
        args: Vec<GraphArg>,
        captures: &Captures<'m>,
        finish: impl FnOnce(&mut Self, Vec<ValueId>) -> NodeResult<Vec<ValueId>>,
    ) -> NodeResult<RegionId> {
        self.check_graph(graph, args.len())?;
        let types: Vec<Type> = captures.values.iter().map(|v| self.ty(*v)).collect();
        let prefix = self.prefix();
        let region = self.imp.b.open_region();
        self.imp.scope.enter_graph(false, prefix);
        let mut slots = vec![];
        for (arg, input) in args.into_iter().zip(&graph.input) {
            slots.push(match arg {
                GraphArg::Param(ty) => {
                    let scoped = self.imp.scoped(&input.name);
                    let name = self.imp.unique_name(&scoped);
                    Operand::Value(self.imp.b.param(ty, Some(name)))
                }
                GraphArg::Known(operand) => operand,
            });
        }
        let params: Vec<ValueId> = types
            .into_iter()
            .map(|ty| self.imp.b.param(ty, None))
            .collect();
        let outcome = self.region_body(graph, slots, captures, &params, finish);
        self.imp.scope.leave();
        let loc = self.imp.loc.clone();
        self.imp.b.set_loc(loc);
        // Also after an error, so that what follows goes to the region around.
        self.imp
            .b
            .close_region(outcome.as_deref().unwrap_or_default());
        outcome.map(|_| region)
    }

    fn region_body(
        &mut self,
        graph: &'m GraphProto,
        slots: Vec<Operand>,
        captures: &Captures<'m>,
        params: &[ValueId],
        finish: impl FnOnce(&mut Self, Vec<ValueId>) -> NodeResult<Vec<ValueId>>,
    ) -> NodeResult<Vec<ValueId>> {
        for (slot, input) in slots.into_iter().zip(&graph.input) {
            self.imp.define(&input.name, Slot::Operand(slot));
        }
        for (name, captured) in &captures.names {
            let slot = match captured {
                Captured::Param(position) => Slot::Operand(Operand::Value(params[*position])),
                Captured::Operand(operand) => Slot::Operand(operand.clone()),
                Captured::Node(op) => Slot::Operand(Operand::Value(self.op(op.clone(), &[])?)),
                Captured::Poisoned => Slot::Poisoned,
            };
            // A graph's own name hides the one around it.
            if self.imp.scope.get(name).is_none() {
                self.imp.define(name, slot);
            }
        }
        self.imp.graph_body(graph);
        let results = self.graph_results(graph)?;
        finish(self, results)
    }

    /// The values of a graph's outputs.
    fn graph_results(&mut self, graph: &'m GraphProto) -> NodeResult<Vec<ValueId>> {
        let operands = self.imp.outputs(graph.output.iter().map(|o| &o.name));
        let mut values = vec![];
        for operand in operands {
            let operand = operand.ok_or(NodeError::Poisoned)?;
            values.push(self.imp.materialize(&operand)?);
        }
        Ok(values)
    }

    /// Imports a graph in place of the node, its inputs being `args`.
    pub(super) fn inline(
        &mut self,
        graph: &'m GraphProto,
        args: Vec<Operand>,
    ) -> NodeResult<Vec<Operand>> {
        self.check_graph(graph, args.len())?;
        let prefix = self.prefix();
        self.imp.scope.enter_graph(true, prefix);
        for (arg, input) in args.into_iter().zip(&graph.input) {
            self.imp.define(&input.name, Slot::Operand(arg));
        }
        self.imp.graph_body(graph);
        let operands = self.imp.outputs(graph.output.iter().map(|o| &o.name));
        self.imp.scope.leave();
        operands
            .into_iter()
            .map(|operand| operand.ok_or(NodeError::Poisoned))
            .collect()
    }
}
