//! Imports the nodes of a graph or function body, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use dojoc_ir::diag::{Kind, Loc};

use super::builder::{FunctionKey, Importer};
use super::node::NodeCx;
use super::problems::{NodeError, NodeResult};
use super::scope::Opsets;
use super::value::{Operand, Slot};
use super::wire::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto,
};
use super::{codes, symbolic, table};

/// How deeply graphs and functions may be nested.
const MAX_DEPTH: usize = 32;

/// The name under which the standard operator set is found.
pub(super) fn domain_name(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

impl<'m> Importer<'m> {
    /// Defines a name in the innermost graph.
    pub(super) fn define(&mut self, name: &'m str, slot: Slot<'m>) {
        if !self.scope.define(name, slot) {
            let error = NodeError::new(
                codes::DUPLICATE_VALUE,
                Kind::Input,
                format!("value `{name}` is defined twice"),
            );
            let loc = self.loc.clone();
            self.problems.add(error, loc.as_ref());
        }
    }

    /// Defines the constants of a graph. Nothing is read until a node uses them.
    pub(super) fn define_initializers(
        &mut self,
        tensors: &'m [TensorProto],
        sparse: &'m [SparseTensorProto],
    ) {
        for tensor in tensors {
            self.define(&tensor.name, Slot::Initializer(tensor));
        }
        for values in sparse.iter().filter_map(|s| s.values.as_ref()) {
            let error = NodeError::new(
                codes::UNSUPPORTED_KIND,
                Kind::Unsupported,
                format!("constant `{}` is a sparse tensor", values.name),
            )
            .help("store it as a dense tensor")
            .complete();
            self.define(&values.name, Slot::Refused(Arc::new(error)));
        }
    }

    /// What a name stands for; constants become weights when they are asked for.
    pub(super) fn lookup(&mut self, name: &'m str) -> NodeResult<Option<Operand>> {
        let error = match self.scope.get(name) {
            None | Some(Slot::Absent) => return Ok(None),
            Some(Slot::Poisoned) => return Err(NodeError::Poisoned),
            Some(Slot::Operand(operand)) => return Ok(Some(operand.clone())),
            Some(Slot::Refused(error)) => (**error).clone(),
            Some(Slot::Initializer(tensor)) => {
                let tensor = *tensor;
                let scoped = self.scoped(&tensor.name);
                match self.tensor_weight(tensor, &scoped) {
                    Ok(value) => {
                        let operand = Operand::Value(value);
                        self.scope.replace(name, Slot::Operand(operand.clone()));
                        return Ok(Some(operand));
                    }
                    Err(error) => error,
                }
            }
        };
        // Said once; what depends on it is silent.
        self.scope.replace(name, Slot::Poisoned);
        let loc = self.loc.clone();
        self.problems.add(error, loc.as_ref());
        Err(NodeError::Poisoned)
    }

    /// A name of the innermost graph as a name of the function.
    pub(super) fn scoped(&self, name: &str) -> String {
        format!("{}{name}", self.scope.top().prefix)
    }

    /// The attribute itself, or the one of the call that it refers to.
    pub(super) fn resolve_attribute(
        &self,
        attribute: &'m AttributeProto,
    ) -> Option<&'m AttributeProto> {
        if attribute.ref_attr_name.is_empty() {
            return Some(attribute);
        }
        let attributes = &self.scope.top().attributes;
        attributes.get(attribute.ref_attr_name.as_str()).copied()
    }

    /// Imports nodes in order. Problems are collected; the results of nodes that fail are poisoned.
    pub(super) fn nodes(&mut self, nodes: &'m [NodeProto]) {
        let around = self.loc.clone();
        for (index, node) in nodes.iter().enumerate() {
            let named = if node.name.is_empty() {
                node.output.iter().find(|o| !o.is_empty())
            } else {
                Some(&node.name)
            };
            let own = named.map_or_else(|| format!("{}_{index}", node.op_type), String::clone);
            let file: Arc<str> = match &around {
                Some(loc) => loc.file.clone(),
                None => self.files.model().name.clone(),
            };
            // The index of the outermost node finds a nested one as well.
            let line = around
                .as_ref()
                .map_or(u32::try_from(index).unwrap_or(0), |loc| loc.line);
            let loc = Arc::new(Loc {
                name: self.scoped(&own).into(),
                file,
                line,
            });
            self.set_loc(Some(loc.clone()));
            let outcome = self.node(node, nodes, index);
            self.set_loc(Some(loc.clone()));
            let mut results = match outcome {
                Ok(results) => results,
                Err(error) => {
                    self.problems.add(error.about(&node.op_type), Some(&loc));
                    vec![]
                }
            }
            .into_iter();
            for name in &node.output {
                let result = results.next().flatten();
                if name.is_empty() {
                    continue;
                }
                let slot = match result {
                    Some(operand) => {
                        if let Operand::Value(value) = operand {
                            let scoped = self.scoped(name);
                            self.name_value(value, &scoped);
                        }
                        Slot::Operand(operand)
                    }
                    None => Slot::Poisoned,
                };
                self.define(name, slot);
            }
        }
        self.set_loc(around);
    }

    /// The error for a name that nothing has defined so far.
    fn undefined(&self, name: &str, nodes: &[NodeProto], index: usize) -> NodeError {
        // The search is linear, and a damaged file may have any number of such names.
        let searched = if self.problems.are_many() {
            0
        } else {
            nodes.len()
        };
        let later = nodes.iter().take(searched).skip(index);
        let message = match later
            .into_iter()
            .find(|n| n.output.iter().any(|o| o == name))
        {
            Some(node) => format!(
                "value `{name}` is used before node \"{}\" defines it",
                if node.name.is_empty() {
                    name
                } else {
                    &node.name
                }
            ),
            None => format!("value `{name}` is not defined"),
        };
        NodeError::new(codes::UNDEFINED_VALUE, Kind::Input, message)
    }

    fn node(
        &mut self,
        node: &'m NodeProto,
        nodes: &[NodeProto],
        index: usize,
    ) -> NodeResult<Vec<Option<Operand>>> {
        if self.budget == 0 || !self.has_room() {
            let message = "the model has too many nodes once its functions are expanded";
            let error = NodeError::new(codes::TOO_MANY_NODES, Kind::Limit, message);
            return Err(error.complete());
        }
        self.budget -= 1;
        let mut inputs = vec![];
        let mut failed = false;
        for name in &node.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            match self.lookup(name) {
                Ok(Some(operand)) => inputs.push(Some(operand)),
                Ok(None) if matches!(self.scope.get(name), Some(Slot::Absent)) => {
                    inputs.push(None);
                }
                Ok(None) => {
                    let error = self.undefined(name, nodes, index).about(&node.op_type);
                    let loc = self.loc.clone();
                    self.problems.add(error, loc.as_ref());
                    failed = true;
                }
                Err(NodeError::Poisoned) => failed = true,
                Err(error) => return Err(error),
            }
        }
        let domain = domain_name(&node.domain);
        let key = (domain, node.op_type.as_str(), node.overload.as_str());
        if let Some(function) = self.functions.get(&key).copied() {
            if failed {
                return Err(NodeError::Poisoned);
            }
            return self.call(key, function, node, inputs);
        }
        // What is not supported is reported also where an operand failed.
        let Some(version) = self.scope.top().opsets.get(domain).copied() else {
            return Err(table::no_opset(&node.op_type, domain));
        };
        let handler = table::find(domain, &node.op_type, version)?;
        if failed {
            return Err(NodeError::Poisoned);
        }
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let mut cx = NodeCx {
            imp: self,
            node,
            version,
            inputs,
            outputs: vec![None; node.output.len()],
            read: vec![false; node.attribute.len()],
        };
        if domain.is_empty() && symbolic::evaluate(&mut cx)? {
            return Ok(cx.outputs);
        }
        handler(&mut cx)?;
        if let Some(attribute) = cx.unread_attribute() {
            let message = format!("attribute `{}` is not supported", attribute.name);
            let error = NodeError::new(codes::UNSUPPORTED_ATTRIBUTE, Kind::Unsupported, message);
            return Err(error);
        }
        if let Some(missing) =
            (0..node.output.len()).find(|n| cx.wanted(*n) && cx.outputs[*n].is_none())
        {
            return Err(NodeError::unsupported(format!(
                "result {missing} is not supported"
            )));
        }
        Ok(cx.outputs)
    }

    /// Imports a function's body in place of a call.
    fn call(
        &mut self,
        key: FunctionKey<'m>,
        function: &'m FunctionProto,
        node: &'m NodeProto,
        inputs: Vec<Option<Operand>>,
    ) -> NodeResult<Vec<Option<Operand>>> {
        if self.calls.contains(&key) {
            let message = format!("function `{}` calls itself", function.name);
            return Err(NodeError::new(codes::RECURSION, Kind::Input, message).complete());
        }
        self.check_depth()?;
        if inputs.len() > function.input.len() || node.output.len() > function.output.len() {
            let message = format!(
                "the call has {} operands and {} results, the function {} and {}",
                inputs.len(),
                node.output.len(),
                function.input.len(),
                function.output.len()
            );
            return Err(NodeError::new(codes::BAD_FUNCTION, Kind::Input, message));
        }
        let mut attributes: BTreeMap<&'m str, &'m AttributeProto> = BTreeMap::new();
        for attribute in &function.attribute_proto {
            attributes.insert(&attribute.name, attribute);
        }
        for attribute in &node.attribute {
            let declared = attributes.contains_key(attribute.name.as_str())
                || function.attribute.contains(&attribute.name);
            if !declared {
                let message = format!("the function has no attribute `{}`", attribute.name);
                return Err(NodeError::new(codes::BAD_ATTRIBUTE, Kind::Input, message));
            }
            if let Some(resolved) = self.resolve_attribute(attribute) {
                attributes.insert(&attribute.name, resolved);
            }
        }
        let opsets = opsets(&function.opset_import)?;
        let prefix: Arc<str> = match &self.loc {
            Some(loc) => format!("{}/", loc.name).into(),
            None => "".into(),
        };
        self.scope.enter_function(opsets, attributes, prefix);
        self.calls.push(key);
        let mut inputs = inputs.into_iter();
        for name in &function.input {
            // An operand that is omitted stays undefined, and may be passed on as such.
            let slot = inputs.next().flatten().map(Slot::Operand);
            self.define(name, slot.unwrap_or(Slot::Absent));
        }
        self.nodes(&function.node);
        let outputs = self.outputs(function.output.iter().take(node.output.len()));
        self.calls.pop();
        self.scope.leave();
        Ok(outputs)
    }

    /// The values of a body's outputs; `None` for those that failed.
    pub(super) fn outputs(
        &mut self,
        names: impl Iterator<Item = &'m String>,
    ) -> Vec<Option<Operand>> {
        let mut outputs = vec![];
        for name in names {
            let operand = match self.lookup(name) {
                Ok(Some(operand)) => Some(operand),
                Ok(None) => {
                    let message = format!("output `{name}` is not defined");
                    let error = NodeError::new(codes::UNDEFINED_VALUE, Kind::Input, message);
                    let loc = self.loc.clone();
                    self.problems.add(error, loc.as_ref());
                    None
                }
                Err(_) => None,
            };
            outputs.push(operand);
        }
        outputs
    }

    pub(super) fn check_depth(&self) -> NodeResult {
        if self.scope.depth() > MAX_DEPTH {
            let message = format!("graphs and functions are nested more than {MAX_DEPTH} deep");
            return Err(NodeError::new(codes::TOO_MANY_NODES, Kind::Limit, message).complete());
        }
        Ok(())
    }

    /// Imports a graph's constants and nodes into the innermost frame.
    pub(super) fn graph_body(&mut self, graph: &'m GraphProto) {
        self.define_initializers(&graph.initializer, &graph.sparse_initializer);
        self.nodes(&graph.node);
    }
}

/// Versions of operator sets by domain.
pub(super) fn opsets(imports: &[OperatorSetIdProto]) -> NodeResult<Opsets> {
    let mut opsets = Opsets::new();
    for import in imports {
        let domain = domain_name(&import.domain);
        let old = opsets.insert(domain.to_owned(), import.version);
        if old.is_some_and(|old| old != import.version) {
            let message = format!("operator set `{domain}` is imported in two versions");
            return Err(NodeError::new(codes::BAD_OPSET, Kind::Input, message).complete());
        }
    }
    Ok(opsets)
}
