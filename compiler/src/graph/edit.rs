//! Edits of a module in place, shared by passes that replace nodes.
//!
//! [`rewrite`] walks every region in order and offers each node to a rule. Operands are up to date
//! when the rule sees them. What is replaced stays in the tables, unreachable and without names.

use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Loc};
use dojoc_ir::entity::SecondaryMap;
use dojoc_ir::graph::{
    Function, Module, Node, NodeId, RegionId, Value, ValueDef, ValueId, Weight, WeightId,
    WeightSource,
};
use dojoc_ir::ops::{Op, TypeError};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::Type;
use foldhash::{HashMap, HashMapExt as _};

use crate::pass::{PASS_FAILED, PassCx};
use crate::rewrite::full;

/// One function of a module being edited.
pub(crate) struct Editor<'m> {
    /// The rest of the module; the function being edited is not in it.
    pub module: &'m mut Module,
    /// The function.
    pub func: Function,
    /// What replaces a value.
    forward: SecondaryMap<ValueId, Option<ValueId>>,
    /// The values of weights and states.
    sources: HashMap<ValueDef, ValueId>,
    /// How often every value was used before the edits.
    uses: SecondaryMap<ValueId, usize>,
    /// Nodes of the region being walked, so far.
    out: Vec<NodeId>,
    /// The region being walked.
    region: RegionId,
    /// Source of the nodes that are added.
    loc: Option<Arc<Loc>>,
}

/// What becomes of a node: `Some` replaces its results and drops it.
pub(crate) type Outcome = Result<Option<Vec<ValueId>>, TypeError>;

/// Offers every node of a module to `rule`, in order, regions before the node that owns them.
///
/// # Errors
/// Nodes that the rule builds and cannot type, as our fault; cancellation.
pub(crate) fn rewrite(
    mut module: Module,
    cx: &mut PassCx<'_>,
    rule: &mut dyn FnMut(&mut Editor<'_>, NodeId, &mut PassCx<'_>) -> Outcome,
) -> Result<Module, Diagnostics> {
    for id in module.functions.ids() {
        let func = std::mem::replace(&mut module.functions[id], Function::new(""));
        let mut editor = Editor::new(&mut module, func);
        let body = editor.func.body();
        let result = editor.walk(body, cx, rule);
        module.functions[id] = editor.func;
        result?;
    }
    Ok(module)
}

impl<'m> Editor<'m> {
    fn new(module: &'m mut Module, func: Function) -> Self {
        let mut sources = HashMap::new();
        for (id, value) in func.values.iter() {
            if matches!(value.def, ValueDef::Weight(_) | ValueDef::State(_)) {
                sources.entry(value.def).or_insert(id);
            }
        }
        let region = func.body();
        let uses = uses(&func);
        Self {
            module,
            func,
            uses,
            forward: SecondaryMap::new(None),
            sources,
            out: vec![],
            region,
            loc: None,
        }
    }

    fn walk(
        &mut self,
        region: RegionId,
        cx: &mut PassCx<'_>,
        rule: &mut dyn FnMut(&mut Editor<'_>, NodeId, &mut PassCx<'_>) -> Outcome,
    ) -> Result<(), Diagnostics> {
        let nodes = std::mem::take(&mut self.func.regions[region].nodes);
        let outer = std::mem::take(&mut self.out);
        let outer_region = std::mem::replace(&mut self.region, region);
        for node in nodes {
            cx.check_cancelled()?;
            let mut args = std::mem::take(&mut self.func.nodes[node].args);
            args.iter_mut().for_each(|arg| *arg = self.resolve(*arg));
            self.func.nodes[node].args = args;
            for inner in self.func.nodes[node].regions.clone() {
                self.walk(inner, cx, rule)?;
            }
            self.loc = self.func.nodes[node].loc.clone();
            let outcome = rule(self, node, cx).and_then(|outcome| match outcome {
                None => {
                    self.out.push(node);
                    Ok(())
                }
                Some(values) => self.replace(node, &values),
            });
            outcome.map_err(|error| {
                let name = self.func.nodes[node].op.name();
                let message = format!("at {name}: {error}");
                let diagnostic = Diagnostic::new(PASS_FAILED, Kind::Bug, message);
                Diagnostics::from(match &self.func.nodes[node].loc {
                    Some(loc) => diagnostic.at(dojoc_ir::diag::Place::Node(loc.clone())),
                    None => diagnostic,
                })
            })?;
        }
        let mut results = std::mem::take(&mut self.func.regions[region].results);
        results.iter_mut().for_each(|v| *v = self.resolve(*v));
        let data = &mut self.func.regions[region];
        data.results = results;
        data.nodes = std::mem::replace(&mut self.out, outer);
        self.region = outer_region;
        Ok(())
    }

    /// What has replaced a value so far, or the value itself.
    pub fn resolve(&self, mut value: ValueId) -> ValueId {
        while let Some(next) = self.forward[value] {
            value = next;
        }
        value
    }

    /// Replaces the results of a node. Names go over to values without one.
    fn replace(&mut self, node: NodeId, values: &[ValueId]) -> Result<(), TypeError> {
        let results = self.func.nodes[node].results.clone();
        if results.len() != values.len() {
            return Err(TypeError::new("the number of results differs"));
        }
        for (old, new) in results.into_iter().zip(values) {
            let (expected, found) = (self.func.ty(old), self.func.ty(*new));
            if expected != found {
                let message = format!("a result of {expected} would become one of {found}");
                return Err(TypeError::new(message));
            }
            let name = self.func.values[old].name.take();
            let target = &mut self.func.values[*new];
            if matches!(target.def, ValueDef::Result(..)) && target.name.is_none() {
                target.name = name;
            }
            self.forward.set(old, Some(*new));
        }
        Ok(())
    }

    /// The region being walked.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// How often a value was used before the edits, as operand or as result of a region; 0 for
    /// values that are new.
    pub fn uses(&self, value: ValueId) -> usize {
        self.uses[value]
    }

    /// The node and position of which a value is the result.
    pub fn producer(&self, value: ValueId) -> Option<(NodeId, usize)> {
        match self.func.values[value].def {
            ValueDef::Result(node, position) => Some((node, position as usize)),
            _ => None,
        }
    }

    /// The op of which a value is the one result, with its operands.
    pub fn op_of(&self, value: ValueId) -> Option<(&Op, &[ValueId])> {
        let (node, _) = self.producer(value)?;
        let node = &self.func.nodes[node];
        (node.results.len() == 1).then_some((&node.op, &node.args[..]))
    }

    /// Makes the nodes that are added next come from the same source as `node`.
    pub fn at(&mut self, node: NodeId) {
        self.loc = self.func.nodes[node].loc.clone();
    }

    /// Adds a node with one result before the one that the rule was offered.
    ///
    /// # Errors
    /// What the op has against the operands.
    pub fn emit(&mut self, op: impl Into<Op>, args: &[ValueId]) -> Result<ValueId, TypeError> {
        match self.emit_all(op, args)?[..] {
            [value] => Ok(value),
            _ => Err(TypeError::new("expected an op with one result")),
        }
    }

    /// Adds a node before the one that the rule was offered.
    ///
    /// # Errors
    /// What the op has against the operands.
    pub fn emit_all(
        &mut self,
        op: impl Into<Op>,
        args: &[ValueId],
    ) -> Result<Vec<ValueId>, TypeError> {
        let op = op.into();
        let types = op.infer(&self.func.types(args), &[])?;
        let node = self.func.nodes.next_id();
        let results: Vec<ValueId> = (types.into_iter().zip(0..))
            .map(|(ty, position)| {
                self.func.values.push(Value {
                    ty,
                    def: ValueDef::Result(node, position),
                    name: None,
                })
            })
            .collect();
        self.func.nodes.push(Node {
            op,
            args: args.to_vec(),
            results: results.clone(),
            regions: vec![],
            loc: self.loc.clone(),
        });
        self.out.push(node);
        Ok(results)
    }

    /// Adds a constant whose elements are all equal.
    ///
    /// # Errors
    /// When the value is not one of the type.
    pub fn emit_full(&mut self, ty: Type, value: Scalar) -> Result<ValueId, TypeError> {
        self.emit(full(&ty, value), &[])
    }

    /// The value of a weight.
    pub fn weight(&mut self, weight: WeightId) -> ValueId {
        let ty = self.module.weights[weight].ty.clone();
        self.source(ValueDef::Weight(weight), ty)
    }

    fn source(&mut self, def: ValueDef, ty: Type) -> ValueId {
        let func = &mut self.func;
        *self.sources.entry(def).or_insert_with(|| {
            func.values.push(Value {
                ty,
                def,
                name: None,
            })
        })
    }

    /// Adds an inline weight, under a name like `name` that nothing else has.
    pub fn add_weight(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.push_weight(name, Weight::inline("", tensor))
    }

    /// Adds the weight of a value under other extents, which is the same place in the same file.
    /// `None` if the value is not a weight in a file.
    pub fn add_view(&mut self, name: &str, value: ValueId, ty: &Type) -> Option<ValueId> {
        let ValueDef::Weight(weight) = self.func.values[value].def else {
            return None;
        };
        let Weight { source, data, .. } = &self.module.weights[weight];
        let shape = ty.shape.as_const()?;
        if *source == WeightSource::Inline {
            return None;
        }
        let view = Weight {
            name: "".into(),
            ty: ty.clone(),
            source: source.clone(),
            data: data.as_ref().map(|data| data.reshape(&shape)),
        };
        Some(self.push_weight(name, view))
    }

    fn push_weight(&mut self, name: &str, weight: Weight) -> ValueId {
        let taken =
            |name: &str| self.module.weight(name).is_some() || self.module.state(name).is_some();
        let mut unique = name.to_owned();
        let mut count = 1;
        while taken(&unique) {
            count += 1;
            unique = format!("{name}.{count}");
        }
        let name = unique.into();
        let weight = self.module.weights.push(Weight { name, ..weight });
        self.weight(weight)
    }

    /// A name for what a value becomes: its own, or that of its source, or that of its function.
    pub fn name_for(&self, value: ValueId) -> String {
        if let Some(name) = &self.func.values[value].name {
            return name.to_string();
        }
        let loc = self
            .producer(value)
            .and_then(|(node, _)| self.func.nodes[node].loc.clone());
        match loc {
            Some(loc) if !loc.name.is_empty() => loc.name.to_string(),
            _ => format!("{}.constant", self.func.name),
        }
    }
}

fn uses(func: &Function) -> SecondaryMap<ValueId, usize> {
    let mut uses = SecondaryMap::new(0);
    for node in func.walk() {
        for arg in &func.nodes[node].args {
            *uses.get_mut(*arg) += 1;
        }
        for region in &func.nodes[node].regions {
            for value in &func.regions[*region].results {
                *uses.get_mut(*value) += 1;
            }
        }
    }
    for value in func.results() {
        *uses.get_mut(*value) += 1;
    }
    uses
}

/// Lets go of the names of everything in a region that is no longer reachable.
pub(crate) fn forget_names(func: &mut Function, nodes: &[NodeId]) {
    let mut stack = nodes.to_vec();
    while let Some(node) = stack.pop() {
        for value in func.nodes[node].results.clone() {
            func.values[value].name = None;
        }
        for region in func.nodes[node].regions.clone() {
            for value in func.regions[region].params.clone() {
                func.values[value].name = None;
            }
            stack.extend(&func.regions[region].nodes);
        }
    }
}
