//! Builds functions: every node is typed as it is added.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Function, Module, Node, NodeId, Output, Region, RegionId, RegionType, StateId, Value, ValueDef,
    ValueId, WeightId,
};
use crate::attr::Number;
use crate::diag::Loc;
use crate::entity::EntityId as _;
use crate::ops::{Full, Op, TypeError};
use crate::scalar::Scalar;
use crate::types::{DType, Shape, Type};

/// Builds one [`Function`], region by region.
///
/// Nodes go to the region that is open: the body at first, another between
/// [`open_region`](Self::open_region) and [`close_region`](Self::close_region).
#[derive(Debug)]
pub struct FunctionBuilder {
    func: Function,
    open: Vec<RegionId>,
    loc: Option<Arc<Loc>>,
    /// The values of weights and states.
    sources: BTreeMap<ValueDef, ValueId>,
}

impl FunctionBuilder {
    /// Starts a function.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self::resume(Function::new(name))
    }

    /// Continues a function: new nodes are added at the end of its body.
    pub fn resume(func: Function) -> Self {
        let body = func.body();
        let is_source = |def| matches!(def, ValueDef::Weight(_) | ValueDef::State(_));
        let sources = func.values.iter().filter(|(_, v)| is_source(v.def));
        let sources = sources.map(|(id, v)| (v.def, id)).collect();
        Self {
            func,
            open: vec![body],
            loc: None,
            sources,
        }
    }

    /// The function so far.
    pub fn func(&self) -> &Function {
        &self.func
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        self.func.ty(value)
    }

    /// Sets the location of the nodes that follow.
    pub fn set_loc(&mut self, loc: Option<Arc<Loc>>) {
        self.loc = loc;
    }

    /// Names a value.
    pub fn set_name(&mut self, value: ValueId, name: impl Into<Arc<str>>) {
        self.func.values[value].name = Some(name.into());
    }

    fn region(&mut self) -> &mut Region {
        let id = self.open.last().copied().unwrap_or(RegionId::from_index(0));
        &mut self.func.regions[id]
    }

    /// Adds a parameter to the open region: an input of the function if that is the body.
    pub fn param(&mut self, ty: Type, name: Option<Arc<str>>) -> ValueId {
        let id = self.func.values.next_id();
        let region = self.open.last().copied().unwrap_or(RegionId::from_index(0));
        let position = self.func.regions[region].params.len() as u32;
        self.region().params.push(id);
        self.func.values.push(Value {
            ty,
            def: ValueDef::Param(region, position),
            name,
        })
    }

    /// The value of a weight; one per function, however often it is asked for.
    pub fn weight(&mut self, module: &Module, weight: WeightId) -> ValueId {
        self.source(ValueDef::Weight(weight), &module.weights[weight].ty)
    }

    /// The value of a state before the run; one per function, however often it is asked for.
    pub fn state(&mut self, module: &Module, state: StateId) -> ValueId {
        self.source(ValueDef::State(state), &module.states[state].ty)
    }

    fn source(&mut self, def: ValueDef, ty: &Type) -> ValueId {
        let values = &mut self.func.values;
        *self.sources.entry(def).or_insert_with(|| {
            values.push(Value {
                ty: ty.clone(),
                def,
                name: None,
            })
        })
    }

    /// Adds a node and returns its results.
    ///
    /// # Errors
    /// What the op's shape rule has against the operands.
    pub fn node(&mut self, op: impl Into<Op>, args: &[ValueId]) -> Result<Vec<ValueId>, TypeError> {
        self.node_with_regions(op, args, &[])
    }

    /// Adds a node with one result and returns it.
    ///
    /// # Errors
    /// What the op's shape rule has against the operands.
    pub fn op(&mut self, op: impl Into<Op>, args: &[ValueId]) -> Result<ValueId, TypeError> {
        let results = self.node(op, args)?;
        results
            .first()
            .copied()
            .ok_or_else(|| TypeError::new("the op has no result"))
    }

    /// Adds a node that owns regions (closed before) and returns its results.
    ///
    /// # Errors
    /// What the op's shape rule has against the operands or regions.
    pub fn node_with_regions(
        &mut self,
        op: impl Into<Op>,
        args: &[ValueId],
        regions: &[RegionId],
    ) -> Result<Vec<ValueId>, TypeError> {
        let op = op.into();
        let region_types: Vec<RegionType> =
            regions.iter().map(|r| self.func.region_type(*r)).collect();
        let types = op.infer(&self.func.types(args), &region_types)?;
        Ok(self.push_node(op, args, regions, types))
    }

    /// Adds a node whose result types are known, without asking the op's shape rule: for parsers,
    /// whose verifier compares afterwards.
    pub fn push_node(
        &mut self,
        op: Op,
        args: &[ValueId],
        regions: &[RegionId],
        types: Vec<Type>,
    ) -> Vec<ValueId> {
        let id: NodeId = self.func.nodes.next_id();
        let results: Vec<ValueId> = types
            .into_iter()
            .enumerate()
            .map(|(n, ty)| {
                let def = ValueDef::Result(id, n as u32);
                self.func.values.push(Value {
                    ty,
                    def,
                    name: None,
                })
            })
            .collect();
        self.func.nodes.push(Node {
            op,
            args: args.to_vec(),
            results: results.clone(),
            regions: regions.to_vec(),
            loc: self.loc.clone(),
        });
        self.region().nodes.push(id);
        results
    }

    /// Opens a new region; the nodes that follow go there.
    pub fn open_region(&mut self) -> RegionId {
        let id = self.func.regions.push(Region::default());
        self.open.push(id);
        id
    }

    /// Closes the open region with its results.
    pub fn close_region(&mut self, results: &[ValueId]) {
        self.region().results = results.to_vec();
        // The body stays open: it is closed by `finish`.
        if self.open.len() > 1 {
            self.open.pop();
        }
    }

    /// A tensor whose elements are all `value`.
    pub fn full(&mut self, dtype: DType, shape: &Shape, value: Scalar) -> ValueId {
        let op = Full {
            dtype,
            shape: shape.dims().to_vec(),
            value: Number::from(value.convert(dtype)),
        };
        let ty = Type::new(dtype, shape.clone());
        self.push_node(op.into(), &[], &[], vec![ty])[0]
    }

    /// A scalar constant.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> ValueId {
        self.full(dtype, &Shape::scalar(), Scalar::from_f64(value, dtype))
    }

    /// Ends the function.
    pub fn finish(mut self, results: &[ValueId], outputs: Vec<Output>) -> Function {
        let body = self.func.body();
        self.func.regions[body].results = results.to_vec();
        self.func.outputs = outputs;
        self.func
    }

    /// Ends a function whose outputs need no names of their own: they are numbered.
    pub fn finish_unnamed(self, results: &[ValueId]) -> Function {
        let outputs = (0..results.len())
            .map(|n| Output {
                name: n.to_string().into(),
                aliases: None,
            })
            .collect();
        self.finish(results, outputs)
    }
}
