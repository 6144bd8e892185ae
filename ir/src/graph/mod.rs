//! GRAPH: whole tensors in SSA form, one op is one node.
//!
//! A [`Module`] holds functions, weights (constants, kept out of line) and states (values that live
//! between runs). A [`Function`] is an arena of values, nodes and regions; region 0 is its body.
//! Regions of control-flow ops see nothing of what surrounds them but weights and states: all else
//! comes in as an operand and a parameter.

mod builder;
mod compact;
pub(crate) mod declare;
pub mod eval;
mod parse;
pub(crate) mod print;
pub(crate) mod text;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use builder::FunctionBuilder;
pub use declare::{closest, near};
pub use parse::{SourceMap, parse};
pub use verify::{Entity, Violation, verify};

use crate::diag::Loc;
use crate::entity;
use crate::entity::{EntityId as _, PrimaryMap};
use crate::ops::Op;
use crate::tensor::Tensor;
use crate::types::Type;

/// Version of the text form; a reader of one version accepts those before it.
pub const TEXT_VERSION: u32 = 1;

entity! {
    /// A function of a module.
    FuncId "func",
    /// A weight of a module.
    WeightId "weight",
    /// A state of a module.
    StateId "state",
    /// A value of a function.
    ValueId "%",
    /// A node of a function.
    NodeId "node",
    /// A region of a function.
    RegionId "region",
}

/// A model: functions over one set of weights and states.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Module {
    /// Name, as in the user's model.
    pub name: Arc<str>,
    /// Bounded symbols that occur in types: name to largest extent.
    pub dims: BTreeMap<Arc<str>, u64>,
    /// Constants.
    pub weights: PrimaryMap<WeightId, Weight>,
    /// Values that live between runs.
    pub states: PrimaryMap<StateId, State>,
    /// Functions.
    pub functions: PrimaryMap<FuncId, Function>,
}

/// A constant tensor.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Name, as in the user's model; unique among weights and states.
    pub name: Arc<str>,
    /// Type; extents are constants.
    pub ty: Type,
    /// Where the bytes are, which is what identifies the weight.
    pub source: WeightSource,
    /// The bytes, if they are at hand: a slice of a mapped file for external weights.
    pub data: Option<Tensor>,
}

/// Where the bytes of a [`Weight`] are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightSource {
    /// In a file, little-endian and row-major.
    External {
        /// Path of the file, relative to the model.
        file: Arc<str>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// In the module itself.
    Inline,
}

/// Two weights are equal if their names, types and sources are; for inline ones also the bytes.
impl PartialEq for Weight {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.ty == other.ty
            && self.source == other.source
            && (self.source != WeightSource::Inline || self.data == other.data)
    }
}

/// A value that lives between runs and is shared by the functions.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Name; unique among weights and states.
    pub name: Arc<str>,
    /// Type; extents are constants.
    pub ty: Type,
    /// Value before the first run.
    pub init: StateInit,
}

/// The value of a [`State`] before the first run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateInit {
    /// All zero.
    Zeros,
    /// The value of a weight of the same type.
    Weight(WeightId),
}

/// A function: inputs to outputs, reading weights and states, updating states.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Name; unique in the module.
    pub name: Arc<str>,
    /// All values, of all regions.
    pub values: PrimaryMap<ValueId, Value>,
    /// All nodes, of all regions.
    pub nodes: PrimaryMap<NodeId, Node>,
    /// All regions. Region 0 is the body: its parameters are the inputs, its results the outputs.
    pub regions: PrimaryMap<RegionId, Region>,
    /// Name and aliased state of every output, in the order of the body's results.
    pub outputs: Vec<Output>,
}

/// One output of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name, as in the user's model.
    pub name: Arc<str>,
    /// The state that this output updates in place.
    pub aliases: Option<StateId>,
}

/// A value: defined once, used anywhere after.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Type.
    pub ty: Type,
    /// Where it is defined.
    pub def: ValueDef,
    /// Name, as in the user's model; unique in the function.
    pub name: Option<Arc<str>>,
}

/// Where a value is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueDef {
    /// A parameter of a region: of the body, an input of the function.
    Param(RegionId, u32),
    /// A result of a node.
    Result(NodeId, u32),
    /// A weight of the module.
    Weight(WeightId),
    /// A state of the module, as it was before the run.
    State(StateId),
}

/// An op with its operands and results.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Operands.
    pub args: Vec<ValueId>,
    /// Results.
    pub results: Vec<ValueId>,
    /// Regions of control-flow ops.
    pub regions: Vec<RegionId>,
    /// Where it comes from.
    pub loc: Option<Arc<Loc>>,
}

/// A list of nodes with parameters and results.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Region {
    /// Parameters.
    pub params: Vec<ValueId>,
    /// Nodes, each after those whose results it uses.
    pub nodes: Vec<NodeId>,
    /// Results.
    pub results: Vec<ValueId>,
}

/// Types of the parameters and results of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionType {
    /// Types of the parameters.
    pub params: Vec<Type>,
    /// Types of the results.
    pub results: Vec<Type>,
}

impl Module {
    /// The function of a name.
    pub fn function(&self, name: &str) -> Option<FuncId> {
        self.functions
            .iter()
            .find(|(_, f)| &*f.name == name)
            .map(|(id, _)| id)
    }

    /// The function that runs by default: `main`, or else the first.
    pub fn main(&self) -> Option<FuncId> {
        self.function("main")
            .or_else(|| self.functions.ids().next())
    }

    /// The weight of a name.
    pub fn weight(&self, name: &str) -> Option<WeightId> {
        self.weights
            .iter()
            .find(|(_, w)| &*w.name == name)
            .map(|(id, _)| id)
    }

    /// The state of a name.
    pub fn state(&self, name: &str) -> Option<StateId> {
        self.states
            .iter()
            .find(|(_, s)| &*s.name == name)
            .map(|(id, _)| id)
    }
}

impl Weight {
    /// A constant that the module itself holds.
    pub fn inline(name: impl Into<Arc<str>>, tensor: Tensor) -> Self {
        Self {
            name: name.into(),
            ty: tensor.ty(),
            source: WeightSource::Inline,
            data: Some(tensor),
        }
    }
}

impl Function {
    /// An empty function.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let mut regions = PrimaryMap::new();
        regions.push(Region::default());
        Self {
            name: name.into(),
            values: PrimaryMap::new(),
            nodes: PrimaryMap::new(),
            regions,
            outputs: vec![],
        }
    }

    /// The body.
    pub fn body(&self) -> RegionId {
        RegionId::from_index(0)
    }

    /// The inputs.
    pub fn inputs(&self) -> &[ValueId] {
        &self.regions[self.body()].params
    }

    /// The values of the outputs.
    pub fn results(&self) -> &[ValueId] {
        &self.regions[self.body()].results
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.values[value].ty
    }

    /// The types of values.
    pub fn types(&self, values: &[ValueId]) -> Vec<Type> {
        values.iter().map(|v| self.ty(*v).clone()).collect()
    }

    /// The types of a region's parameters and results.
    pub fn region_type(&self, region: RegionId) -> RegionType {
        let region = &self.regions[region];
        RegionType {
            params: self.types(&region.params),
            results: self.types(&region.results),
        }
    }

    /// The types of the regions of a node.
    pub fn region_types(&self, node: NodeId) -> Vec<RegionType> {
        self.nodes[node]
            .regions
            .iter()
            .map(|r| self.region_type(*r))
            .collect()
    }

    /// All nodes in order of execution, those of regions right after the node that owns them.
    pub fn walk(&self) -> Vec<NodeId> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut stack: Vec<NodeId> = self.regions[self.body()]
            .nodes
            .iter()
            .rev()
            .copied()
            .collect();
        while let Some(node) = stack.pop() {
            order.push(node);
            for region in self.nodes[node].regions.iter().rev() {
                stack.extend(self.regions[*region].nodes.iter().rev());
            }
        }
        order
    }

    /// The name of an input: that of the value, or its position where it has none.
    pub fn input_name(&self, position: usize) -> Arc<str> {
        let value = self.inputs()[position];
        self.values[value]
            .name
            .clone()
            .unwrap_or_else(|| position.to_string().into())
    }
}
