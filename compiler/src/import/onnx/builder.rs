//! The importer's state, and how values and constants are made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dojoc_ir::diag::{Kind, Loc};
use dojoc_ir::dim::{Dim, Poly};
use dojoc_ir::entity::EntityId as _;
use dojoc_ir::graph::{
    FunctionBuilder, Module, RegionId, RegionType, ValueDef, ValueId, Weight, WeightId,
    WeightSource,
};
use dojoc_ir::ops::{EvalCx, EvalError, Full, Op};
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, MAX_RANK, Shape, Type};

use super::codes;
use super::options::ImportOptions;
use super::problems::{NodeError, NodeResult, Problems};
use super::scope::Scope;
use super::value::{MAX_POLY, Operand, Symbolic, poly_size};
use super::wire::{FunctionProto, TensorProto};
use crate::io::onnx_tensor::tensor_raw;
use crate::io::{ModelFiles, RawTensorSource};

/// Domain, name and overload of a function.
pub(super) type FunctionKey<'m> = (&'m str, &'m str, &'m str);

/// Float constants of a file that have more elements than this are not computed with at import, so
/// that the module keeps referring to the file for what is a parameter.
const FOLDED_PARAMETER: usize = 16;

/// Everything that is known while a model is imported.
pub(super) struct Importer<'m> {
    pub(super) files: &'m ModelFiles,
    pub(super) options: &'m ImportOptions,
    pub(super) problems: Problems,
    pub(super) warnings: Problems,
    pub(super) module: Module,
    pub(super) b: FunctionBuilder,
    pub(super) scope: Scope<'m>,
    pub(super) functions: BTreeMap<FunctionKey<'m>, &'m FunctionProto>,
    /// Functions whose bodies are being imported, outermost first.
    pub(super) calls: Vec<FunctionKey<'m>>,
    /// Nodes that may still be imported.
    pub(super) budget: usize,
    /// Values of inputs that the caller knows.
    pub(super) known: BTreeMap<ValueId, Tensor>,
    weight_values: BTreeMap<WeightId, ValueId>,
    /// Names of values in the function, with the next number to try behind each.
    value_names: BTreeMap<Arc<str>, u64>,
    /// Constants that have only the name of the node that made them.
    unnamed: BTreeSet<WeightId>,
    pub(super) loc: Option<Arc<Loc>>,
}

impl<'m> Importer<'m> {
    pub(super) fn new(
        files: &'m ModelFiles,
        options: &'m ImportOptions,
        scope: Scope<'m>,
        budget: usize,
    ) -> Self {
        Self {
            files,
            options,
            problems: Problems::default(),
            warnings: Problems::default(),
            module: Module::default(),
            b: FunctionBuilder::new("main"),
            scope,
            functions: BTreeMap::new(),
            calls: vec![],
            budget,
            known: BTreeMap::new(),
            weight_values: BTreeMap::new(),
            value_names: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            loc: None,
        }
    }

    pub(super) fn set_loc(&mut self, loc: Option<Arc<Loc>>) {
        self.b.set_loc(loc.clone());
        self.loc = loc;
    }

    /// Names a value unless it has a name. A constant that was made here, and not read from the
    /// model, is renamed.
    pub(super) fn name_value(&mut self, value: ValueId, name: &str) {
        let data = &self.b.func().values[value];
        if let ValueDef::Weight(weight) = data.def {
            if let Some(rename) = self.unnamed.remove(&weight).then_some(weight) {
                self.module.weights[rename].name = name.into();
            }
            return;
        }
        if data.name.is_some() {
            return;
        }
        let unique = self.unique_name(name);
        self.b.set_name(value, unique);
    }

    /// A name for a value that no other value has: the given one, or that with a number.
    pub(super) fn unique_name(&mut self, name: &str) -> Arc<str> {
        let mut candidate: Arc<str> = name.into();
        while self.value_names.contains_key(&candidate) {
            let number = self.value_names.entry(name.into()).or_insert(1);
            candidate = format!("{name}.{number}").into();
            *number += 1;
        }
        self.value_names.insert(candidate.clone(), 1);
        candidate
    }

    /// The value of a weight.
    pub(super) fn weight_value(&mut self, weight: WeightId) -> ValueId {
        if let Some(value) = self.weight_values.get(&weight) {
            return *value;
        }
        let value = self.b.weight(&self.module, weight);
        self.weight_values.insert(weight, value);
        value
    }

    /// The weight of a constant of the model.
    pub(super) fn tensor_weight(&mut self, proto: &TensorProto, name: &str) -> NodeResult<ValueId> {
        let tensor = tensor_raw(proto, self.files)?;
        let dtype = DType::from(tensor.dtype);
        check_size(&Type::of(dtype, &tensor.shape))?;
        let source = match &tensor.source {
            RawTensorSource::InFile { file, offset, len } => WeightSource::External {
                file: file.name.clone(),
                offset: *offset,
                length: *len,
            },
            RawTensorSource::Owned(_) => WeightSource::Inline,
        };
        let data = Tensor::from_bytes(dtype, &tensor.shape, tensor.load()?.data)
            .map_err(|error| NodeError::invalid(error.to_string()))?;
        let weight = Weight {
            name: name.into(),
            ty: data.ty(),
            source,
            data: Some(data),
        };
        let weight = self.module.weights.push(weight);
        Ok(self.weight_value(weight))
    }

    /// A constant that the module holds. Its weight gets its final name when all is built.
    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = match &self.loc {
            Some(loc) => loc.name.clone(),
            None => "const".into(),
        };
        let weight = self.module.weights.push(Weight::inline(name, tensor));
        self.unnamed.insert(weight);
        self.weight_value(weight)
    }

    /// The value of a constant.
    pub(super) fn const_of(&self, value: ValueId) -> Option<Tensor> {
        if let Some(tensor) = self.known.get(&value) {
            return Some(tensor.clone());
        }
        let func = self.b.func();
        match func.values[value].def {
            ValueDef::Weight(weight) => self.module.weights[weight].data.clone(),
            ValueDef::Result(node, _) => match &func.nodes[node].op {
                Op::Full(full) => {
                    let ty = &func.values[value].ty;
                    let shape = ty.shape.as_const()?;
                    let small = ty.max_bytes()? <= self.options.fold_limit;
                    let value = full.value.to_scalar(full.dtype);
                    small.then(|| Tensor::splat(full.dtype, &shape, value))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a constant that may be computed with at import.
    fn foldable(&self, value: ValueId) -> Option<Tensor> {
        let ValueDef::Weight(weight) = self.b.func().values[value].def else {
            return self.const_of(value);
        };
        let weight = &self.module.weights[weight];
        let tensor = weight.data.as_ref()?;
        let parameter = weight.source != WeightSource::Inline && tensor.dtype().is_float();
        if tensor.bytes().len() as u64 > self.options.fold_limit
            || (parameter && tensor.len() > FOLDED_PARAMETER)
        {
            return None;
        }
        Some(tensor.clone())
    }

    /// Adds a node and returns its results; computes them instead where all operands are small
    /// constants.
    pub(super) fn emit(
        &mut self,
        op: impl Into<Op>,
        args: &[ValueId],
        regions: &[RegionId],
    ) -> NodeResult<Vec<ValueId>> {
        let op = op.into();
        let func = self.b.func();
        let region_types: Vec<RegionType> = regions.iter().map(|r| func.region_type(*r)).collect();
        let types = op.infer(&func.types(args), &region_types)?;
        types.iter().try_for_each(check_size)?;
        if regions.is_empty()
            && let Some(results) = self.fold(&op, args, &types)
        {
            return Ok(results.into_iter().map(|t| self.constant(t)).collect());
        }
        Ok(self.b.push_node(op, args, regions, types))
    }

    fn fold(&self, op: &Op, args: &[ValueId], types: &[Type]) -> Option<Vec<Tensor>> {
        // Equal elements need no place in memory.
        if matches!(op, Op::Full(_)) {
            return None;
        }
        let limit = self.options.fold_limit;
        let small = |ty: &Type| {
            ty.shape.as_const().is_some() && ty.max_bytes().is_some_and(|bytes| bytes <= limit)
        };
        if !types.iter().all(small) {
            return None;
        }
        let mut symbolic = false;
        op.for_each_dim(&mut |_| symbolic = true);
        if symbolic {
            return None;
        }
        let tensors: Vec<Tensor> = args
            .iter()
            .map(|v| self.foldable(*v))
            .collect::<Option<_>>()?;
        let mut no_region =
            |_: usize, _: &[Tensor]| Err(EvalError::value("the op has no region here"));
        // A value that the op cannot take is an error of the run, if it ever comes to it.
        let results = op.eval(&tensors, &mut EvalCx::new(&mut no_region)).ok()?;
        let fits =
            results.len() == types.len() && results.iter().zip(types).all(|(t, ty)| t.ty() == *ty);
        fits.then_some(results)
    }

    /// A tensor whose elements are all equal.
    pub(super) fn full(
        &mut self,
        dtype: DType,
        shape: &Shape,
        value: Scalar,
    ) -> NodeResult<ValueId> {
        let op = Full {
            dtype,
            shape: shape.dims().to_vec(),
            value: value.convert(dtype).into(),
        };
        self.emit(op, &[], &[])?
            .first()
            .copied()
            .ok_or_else(|| NodeError::invalid("no result"))
    }

    /// The value of an operand; integers made of extents are computed by nodes.
    pub(super) fn materialize(&mut self, operand: &Operand) -> NodeResult<ValueId> {
        let symbolic = match operand {
            Operand::Value(value) => return Ok(*value),
            Operand::Symbolic(symbolic) => symbolic.clone(),
        };
        let Symbolic {
            dtype,
            scalar,
            values,
        } = &*symbolic;
        if let Some(constants) = values
            .iter()
            .map(Poly::as_constant)
            .collect::<Option<Vec<_>>>()
        {
            let shape = if *scalar {
                vec![]
            } else {
                vec![constants.len() as u64]
            };
            let scalars = constants
                .into_iter()
                .map(|c| Scalar::Int(c.into()).wrap(*dtype));
            return Ok(self.constant(Tensor::from_scalars(*dtype, &shape, scalars)));
        }
        let mut parts = vec![];
        for poly in values {
            parts.push(self.extent_value(poly, *dtype, *scalar)?);
        }
        match parts[..] {
            [one] => Ok(one),
            _ => self.concat_vectors(&parts),
        }
    }

    /// An extent as data: the sum of that many ones. Shape `[]` if `scalar`, else `[1]`.
    fn extent_value(&mut self, poly: &Poly, dtype: DType, scalar: bool) -> NodeResult<ValueId> {
        let too_complex = || NodeError::unsupported(format!("the extent `{poly}` as data"));
        let shape = if scalar {
            Shape::scalar()
        } else {
            Shape::of(&[1])
        };
        // Extents are not negative; what may be is shifted first.
        let shift = poly
            .bounds()
            .0
            .min(0)
            .checked_neg()
            .ok_or_else(too_complex)?;
        let dim = poly
            .add(&Poly::constant(shift))
            .and_then(Dim::from_poly)
            .ok_or_else(too_complex)?;
        let count = self.count_ones(dim, dtype, scalar)?;
        if shift == 0 {
            return Ok(count);
        }
        let shift = self.full(dtype, &shape, Scalar::Int(shift.into()))?;
        self.one(BinaryFn::Sub, &[count, shift])
    }

    /// Adds a node with one result.
    pub(super) fn one(&mut self, op: impl Into<Op>, args: &[ValueId]) -> NodeResult<ValueId> {
        let results = self.emit(op, args, &[])?;
        match results[..] {
            [one] => Ok(one),
            _ => Err(NodeError::invalid("the op has not one result")),
        }
    }

    /// A symbol for a data-dependent extent of at most `max`, unused so far.
    pub(super) fn fresh_symbol(&mut self, name: &str, max: u64) -> Dim {
        let mut candidate: Arc<str> = name.into();
        let mut number = 1;
        while self.module.dims.contains_key(&candidate) {
            candidate = format!("{name}.{number}").into();
            number += 1;
        }
        self.module.dims.insert(candidate.clone(), max);
        Dim::symbol(&candidate, max)
    }

    /// The largest number of values that the function may still get.
    pub(super) fn has_room(&self) -> bool {
        self.b.func().values.next_id().index() < u32::MAX as usize / 2
    }
}

/// Refuses types that cannot be addressed.
pub(super) fn check_size(ty: &Type) -> NodeResult {
    let limit = |message: String| Err(NodeError::new(codes::TOO_LARGE, Kind::Limit, message));
    if ty.rank() > MAX_RANK {
        return limit(format!("a tensor of rank {} exceeds {MAX_RANK}", ty.rank()));
    }
    // The product of the extents is formed in many places; it must not explode.
    let mut size = 1usize;
    for dim in ty.dims() {
        if let Dim::Expr(poly) = dim {
            size = size.saturating_mul(poly_size(poly));
        }
    }
    if size > MAX_POLY * MAX_POLY {
        return limit("the extents of a tensor are too long expressions".into());
    }
    if ty.addressable() {
        Ok(())
    } else {
        limit(format!("a tensor {ty} is too large to address"))
    }
}
