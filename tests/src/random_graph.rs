//! Random modules that verify and run, for tests of properties.

use dojoc_ir::diag::Loc;
use dojoc_ir::dim::{Bindings, Dim};
use dojoc_ir::graph::{
    Function, FunctionBuilder, Module, Output, State, StateInit, ValueId, Weight,
};
use dojoc_ir::ops::{
    ArgKind, ArgReduce, BatchNorm, Broadcast, Concat, Conv, Convert, Dot, Fill, If, Op, Pad,
    RandomBits, Reduce, ReduceKind, Reshape, Sample, Scan, Select, Slice, Softmax, Transpose,
    TypeError,
};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{Class, DType, Shape, Type};

use crate::rng::Rng;

/// What random modules look like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes of the body, about.
    pub nodes: usize,
    /// Whether there is control flow.
    pub regions: bool,
    /// Whether there is a state.
    pub states: bool,
    /// Whether an output updates the state, where there is one.
    pub updates: bool,
    /// Whether an extent is a symbol.
    pub symbols: bool,
    /// Whether there are random bits.
    pub random_bits: bool,
    /// Whether inputs of odd and larger extents are there, of no elements, and of more types.
    pub extents: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 24,
            regions: true,
            states: true,
            updates: true,
            symbols: true,
            random_bits: true,
            extents: false,
        }
    }
}

/// Extents of symbols in [`random_inputs`].
const SYMBOL_EXTENT: u64 = 3;

/// A tensor of random values, its symbols being `SYMBOL_EXTENT`.
pub fn random_tensor(rng: &mut Rng, ty: &Type, fill: &Fill) -> Tensor {
    if let Fill::Given(tensor) = fill {
        return tensor.clone();
    }
    let bindings = Bindings::from([("n".into(), SYMBOL_EXTENT)]);
    let shape = ty.shape.eval(&bindings).unwrap_or_default();
    let count = shape.iter().product::<u64>();
    let values = (0..count).map(|index| match fill {
        Fill::Uniform(low, high) => {
            let value = low + (high - low) * (rng.unit() + 1.0) / 2.0;
            match ty.dtype.class() {
                Class::Float | Class::Configurable => Scalar::from_f64(value, ty.dtype),
                _ => Scalar::Int(value.round() as i128).convert(ty.dtype),
            }
        }
        _ => Scalar::Int((index * 7 % count.max(1)).into()).convert(ty.dtype),
    });
    let values: Vec<Scalar> = values.collect();
    Tensor::from_scalars(ty.dtype, &shape, values)
}

fn usual(ty: &Type) -> Fill {
    match ty.dtype.class() {
        Class::Float | Class::Configurable => Fill::Uniform(-2.0, 2.0),
        Class::Bool => Fill::Uniform(0.0, 1.0),
        Class::Int { .. } => Fill::Uniform(0.0, 3.0),
    }
}

/// Random inputs of a function of a random module.
pub fn random_inputs(func: &Function, seed: u64) -> Vec<Tensor> {
    let mut rng = Rng::new(seed);
    let types = func.inputs().iter().map(|v| func.ty(*v).clone());
    types
        .map(|ty| random_tensor(&mut rng, &ty, &usual(&ty)))
        .collect()
}

struct Generator {
    rng: Rng,
    options: Options,
    module: Module,
    b: FunctionBuilder,
    samples: Vec<Sample>,
    names: usize,
}

/// A random module with one function, `main`. The same seed gives the same module.
pub fn random_module(seed: u64, options: &Options) -> Module {
    let mut g = Generator {
        rng: Rng::new(seed),
        options: options.clone(),
        module: Module {
            name: format!("random {seed}").into(),
            ..Module::default()
        },
        b: FunctionBuilder::new("main"),
        samples: Op::samples(),
        names: 0,
    };
    let mut pool = g.sources();
    for _ in 0..options.nodes {
        let results = g.node(&pool, 0);
        for value in results {
            if g.rng.one_in(2) {
                g.names += 1;
                let name = format!("v{}", g.names);
                g.b.set_name(value, name);
            }
            pool.push(value);
        }
    }
    g.finish(&pool)
}

impl Generator {
    fn sources(&mut self) -> Vec<ValueId> {
        let mut pool = vec![];
        for (name, dtype, shape) in [
            ("x", DType::F32, &[2, 3][..]),
            ("image", DType::F32, &[1, 2, 4, 3]),
            ("half", DType::Bf16, &[2, 3]),
            ("count", DType::I32, &[3]),
            ("mask", DType::Bool, &[2, 1]),
        ] {
            pool.push(self.b.param(Type::of(dtype, shape), Some(name.into())));
        }
        if self.options.extents {
            self.odd_sources(&mut pool);
        }
        if self.options.symbols {
            self.module.dims.insert("n".into(), 4);
            let shape = Shape::new([Dim::symbol("n", 4), Dim::Const(3)]);
            pool.push(
                self.b
                    .param(Type::new(DType::F32, shape), Some("batch".into())),
            );
        }
        if self.options.states {
            let ty = Type::of(DType::F32, &[2, 3]);
            let state = State {
                name: "memory".into(),
                ty,
                init: StateInit::Zeros,
            };
            let state = self.module.states.push(state);
            pool.push(self.b.state(&self.module, state));
        }
        pool
    }

    /// Inputs that a grid of cores does not divide, that broadcast, and that have no elements.
    fn odd_sources(&mut self, pool: &mut Vec<ValueId>) {
        let (rows, columns) = (self.rng.within(5, 45), self.rng.within(1, 21));
        let empty = [&[0, 3][..], &[2, 0], &[0]];
        let empty = self.rng.pick(&empty);
        let dtype = self
            .rng
            .pick(&[DType::F16, DType::I64, DType::U8, DType::Bf16]);
        for (name, dtype, shape) in [
            ("wide", DType::F32, &[rows, columns][..]),
            ("column", DType::F32, &[rows, 1]),
            ("row", DType::F32, &[columns]),
            ("other", dtype, &[columns, 7]),
            ("empty", DType::F32, empty),
        ] {
            // Not all at once, or none would meet the others.
            if self.rng.one_in(2) {
                let ty = Type::of(dtype, shape);
                pool.push(self.b.param(ty, Some(name.into())));
            }
        }
    }

    /// A weight of random or special values.
    fn weight(&mut self, ty: &Type, fill: &Fill) -> ValueId {
        let tensor = if matches!(fill, Fill::Uniform(..)) && self.rng.one_in(4) {
            let value = self.rng.pick(&[0.0, -0.0, 1.0, -1.0, 0.5]);
            let shape = ty.shape.as_const().unwrap_or_default();
            Tensor::splat(ty.dtype, &shape, Scalar::from_f64(value, ty.dtype))
        } else {
            random_tensor(&mut self.rng, ty, fill)
        };
        let name = format!("w{}", self.module.weights.len());
        let weight = self.module.weights.push(Weight::inline(name, tensor));
        self.b.weight(&self.module, weight)
    }

    /// Elements that are all equal.
    fn full(&mut self, ty: &Type, value: Scalar) -> ValueId {
        match ty.dtype.class() {
            Class::Configurable => self.weight(ty, &Fill::Uniform(1.0, 1.0)),
            _ => self.b.full(ty.dtype, &ty.shape, value),
        }
    }

    /// A constant that broadcasts to any value.
    fn constant(&mut self, dtype: DType) -> ValueId {
        let value = self.rng.pick(&[0.0, -0.0, 1.0, -1.0, 2.0]);
        let shape = if self.rng.one_in(2) {
            Shape::scalar()
        } else {
            Shape::of(&[1])
        };
        if self.rng.one_in(3) {
            return self.weight(&Type::new(dtype, shape), &Fill::Uniform(-1.0, 1.0));
        }
        self.full(&Type::new(dtype, shape), Scalar::from_f64(value, dtype))
    }

    /// Adds a node, if one of a few attempts fits; often nodes repeat what is there.
    fn node(&mut self, pool: &[ValueId], depth: usize) -> Vec<ValueId> {
        if self.rng.one_in(3) {
            let loc = Loc {
                name: format!("layer{}", self.rng.below(9)).into(),
                ..Loc::default()
            };
            self.b.set_loc(Some(loc.into()));
        }
        for _ in 0..20 {
            let before = self.rng.draws();
            if let Ok(results) = self.attempt(pool, depth) {
                return results;
            }
            debug_assert!(self.rng.draws() > before);
        }
        vec![]
    }

    fn attempt(&mut self, pool: &[ValueId], depth: usize) -> Result<Vec<ValueId>, TypeError> {
        // Chains are more interesting than a heap of small trees.
        let recent = &pool[pool.len().saturating_sub(5)..];
        let near = self.rng.one_in(2);
        let x = self.rng.pick(if near { recent } else { pool });
        let ty = self.b.ty(x).clone();
        let rank = ty.rank();
        let axis = self.rng.below(rank);
        if rank == 0 && !self.rng.one_in(4) {
            return Err(TypeError::new("scalars have few forms"));
        }
        match self.rng.below(24) {
            0 | 1 => {
                let f = self.rng.pick(UnaryFn::ALL);
                self.b.node(f, &[x])
            }
            2..=4 => {
                let f = self.rng.pick(BinaryFn::ALL);
                let other = match self.rng.below(3) {
                    0 => self.rng.pick(pool),
                    _ => self.constant(ty.dtype),
                };
                let args = if self.rng.one_in(2) {
                    [x, other]
                } else {
                    [other, x]
                };
                self.b.node(f, &args)
            }
            5 => {
                let (a, c) = (self.rng.pick(pool), self.rng.pick(pool));
                self.b.node(Select {}, &[a, x, c])
            }
            6 => {
                let to =
                    self.rng
                        .pick(&[DType::F32, DType::Bf16, DType::F64, DType::I32, DType::Bool]);
                self.b.node(
                    Convert {
                        to,
                        saturate: self.rng.one_in(2),
                    },
                    &[x],
                )
            }
            7 => {
                let perm = match self.rng.one_in(4) {
                    true => (0..rank).collect(),
                    false => (0..rank).map(|d| (d + 1) % rank).collect(),
                };
                self.b.node(Transpose { perm }, &[x])
            }
            8 => {
                let elements = ty.shape.elements().ok_or(TypeError::new("too many"))?;
                let shape = match self.rng.below(3) {
                    0 => ty.dims().to_vec(),
                    1 => vec![elements],
                    _ => vec![Dim::Const(1), elements],
                };
                self.b.node(Reshape { shape }, &[x])
            }
            9 => {
                let mut shape = ty.dims().to_vec();
                if self.rng.one_in(2) {
                    shape.insert(0, Dim::Const(2));
                }
                self.b.node(Broadcast { shape }, &[x])
            }
            10 if rank > 0 => {
                let size = match self.rng.one_in(3) {
                    true => ty.shape[axis].clone(),
                    false => Dim::Const(1),
                };
                self.b
                    .node(Slice::along(&ty, axis, Dim::Const(0), size), &[x])
            }
            11 => {
                let pads: Vec<(i64, i64)> = (0..rank)
                    .map(|_| self.rng.pick(&[(0, 0), (0, 0), (1, 0)]))
                    .collect();
                let value = self.full(&Type::scalar(ty.dtype), Scalar::zero(ty.dtype));
                self.b.node(Pad::around(&pads), &[x, value])
            }
            12 if rank > 0 => {
                let args = if self.rng.one_in(3) {
                    vec![x]
                } else {
                    vec![x, x]
                };
                self.b.node(Concat { axis }, &args)
            }
            13 if rank > 0 => {
                let kind = self
                    .rng
                    .pick(&[ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min]);
                self.b.node(
                    Reduce {
                        kind,
                        axes: vec![axis],
                        keep: self.rng.one_in(2),
                    },
                    &[x],
                )
            }
            14 if rank > 0 => self.b.node(
                ArgReduce {
                    kind: ArgKind::Max,
                    axis,
                    keep: true,
                    last: false,
                },
                &[x],
            ),
            15 => self.b.node(Softmax { axis }, &[x]),
            16 if rank > 0 => {
                let k = ty
                    .dims()
                    .last()
                    .and_then(Dim::as_const)
                    .ok_or(TypeError::new("no dim"))?;
                let w = self.weight(&Type::of(ty.dtype, &[k, 2]), &Fill::Uniform(-1.0, 1.0));
                let dot = Dot {
                    batch: vec![],
                    contract: vec![(rank - 1, 0)],
                    out: None,
                };
                let y = self.b.op(dot, &[x, w])?;
                self.normalised(y)
            }
            17 => {
                let channels = ty.dims().get(1).and_then(Dim::as_const);
                let (Some(channels), 3..) = (channels, rank) else {
                    return Err(TypeError::new("no image"));
                };
                let spatial = rank - 2;
                let mut shape = vec![3, channels];
                shape.resize(rank, 2);
                let w = self.weight(&Type::of(ty.dtype, &shape), &Fill::Uniform(-1.0, 1.0));
                let conv = Conv {
                    stride: vec![1; spatial],
                    pad: vec![(1, 0); spatial],
                    dilation: vec![1; spatial],
                    groups: 1,
                    out: None,
                };
                let y = self.b.op(conv, &[x, w])?;
                self.normalised(y)
            }
            18 => self.normalised(x),
            19 => Ok(vec![self.constant(ty.dtype)]),
            20 if self.options.random_bits => {
                let seed = self.b.full(DType::U64, &Shape::scalar(), Scalar::Int(7));
                let shape = ty.dims().to_vec();
                self.b.node(
                    RandomBits {
                        shape,
                        site: self.rng.below(3) as u64,
                    },
                    &[seed, seed],
                )
            }
            21 | 22 if self.options.regions && depth < 2 => self.control(pool, depth),
            _ => self.sample(pool),
        }
    }

    /// A batch normalisation of a value, perhaps behind an addition per channel.
    fn normalised(&mut self, x: ValueId) -> Result<Vec<ValueId>, TypeError> {
        let ty = self.b.ty(x).clone();
        let channels = ty.dims().get(1).and_then(Dim::as_const);
        let channels = channels.ok_or(TypeError::new("no channels"))?;
        let mut x = x;
        if self.rng.one_in(2) {
            let mut shape = vec![1; ty.rank() - 1];
            shape[0] = channels;
            let bias = self.weight(&Type::of(ty.dtype, &shape), &Fill::Uniform(-1.0, 1.0));
            x = self.b.op(BinaryFn::Add, &[x, bias])?;
        }
        let mut args = vec![x];
        for (low, high) in [(0.5, 2.0), (-1.0, 1.0), (-1.0, 1.0)] {
            args.push(self.weight(&Type::of(ty.dtype, &[channels]), &Fill::Uniform(low, high)));
        }
        let variance = Fill::Given(random_tensor(
            &mut self.rng,
            &Type::of(ty.dtype, &[channels]),
            &Fill::Uniform(0.5, 2.0),
        ));
        args.push(self.weight(&Type::of(ty.dtype, &[channels]), &variance));
        let norm = BatchNorm {
            axis: 1,
            epsilon: dojoc_ir::attr::F64(1e-3),
        };
        self.b.node(norm, &args)
    }

    /// Some nodes on the parameters of an open region, and one of its values of a type.
    fn region(&mut self, params: &[ValueId], depth: usize, result: &Type) -> ValueId {
        let mut pool = params.to_vec();
        for _ in 0..4 {
            let results = self.node(&pool, depth + 1);
            pool.extend(results);
        }
        let fits = pool.iter().rev().find(|v| self.b.ty(**v) == result);
        match fits {
            Some(value) => *value,
            None => self.full(result, Scalar::zero(result.dtype)),
        }
    }

    fn control(&mut self, pool: &[ValueId], depth: usize) -> Result<Vec<ValueId>, TypeError> {
        let captures = [self.rng.pick(pool), self.rng.pick(pool)];
        let types = captures.map(|v| self.b.ty(v).clone());
        if self.rng.one_in(2) {
            let mut regions = vec![];
            for _ in 0..2 {
                let region = self.b.open_region();
                let params = types.clone().map(|ty| self.b.param(ty, None));
                let result = self.region(&params, depth, &types[0]);
                self.b.close_region(&[result]);
                regions.push(region);
            }
            let condition = self
                .b
                .full(DType::Bool, &Shape::scalar(), Scalar::Bool(true));
            let mut args = vec![condition];
            args.extend(captures);
            return self.b.node_with_regions(If {}, &args, &regions);
        }
        let Some((length, row)) = types[1].dims().split_first() else {
            return Err(TypeError::new("no rows"));
        };
        let row = Type::new(types[1].dtype, Shape::new(row.iter().cloned()));
        let region = self.b.open_region();
        let params = [types[0].clone(), row.clone()].map(|ty| self.b.param(ty, None));
        let carried = self.region(&params, depth, &types[0]);
        let stacked = self.region(&params, depth, &row);
        self.b.close_region(&[carried, stacked]);
        let scan = Scan {
            carried: 1,
            sequences: 1,
            length: length.clone(),
        };
        self.b.node_with_regions(scan, &captures, &[region])
    }

    /// An op of the op suite, on values of the graph where they have its types and on weights.
    fn sample(&mut self, pool: &[ValueId]) -> Result<Vec<ValueId>, TypeError> {
        let sample = self.samples[self.rng.below(self.samples.len())].clone();
        let fixed = |ty: &Type| ty.shape.as_const().is_some();
        if !sample.regions.is_empty() || !sample.args.iter().all(|a| fixed(&a.ty)) {
            return Err(TypeError::new(
                "the sample is not of one op on plain tensors",
            ));
        }
        let mut symbols = vec![];
        sample.op.attrs().for_each_dim(&mut |dim| {
            if let Dim::Expr(poly) = dim {
                poly.for_each_symbol(&mut |name, max| symbols.push((name.clone(), max)));
            }
        });
        if symbols
            .iter()
            .any(|(name, _)| self.module.dims.contains_key(name))
        {
            return Err(TypeError::new("the symbol has a value already"));
        }
        self.module.dims.extend(symbols);
        let mut args = vec![];
        for arg in &sample.args {
            let usual = matches!(arg.fill, Fill::Uniform(low, _) if low == -2.0);
            let fits = pool.iter().rev().find(|v| *self.b.ty(**v) == arg.ty);
            args.push(match fits {
                Some(value) if usual => *value,
                _ => {
                    let tensor = random_tensor(&mut self.rng, &arg.ty, &arg.fill);
                    self.weight(&arg.ty, &Fill::Given(tensor))
                }
            });
        }
        self.b.node(sample.op, &args)
    }

    fn finish(mut self, pool: &[ValueId]) -> Module {
        let mut values: Vec<(ValueId, Output)> = vec![];
        let mut chosen: Vec<ValueId> = pool.iter().rev().take(4).copied().collect();
        for _ in 0..4 {
            chosen.push(self.rng.pick(pool));
        }
        for value in chosen {
            let name = format!("out{}", values.len()).into();
            values.push((
                value,
                Output {
                    name,
                    aliases: None,
                },
            ));
        }
        if let Some((id, state)) = self.module.states.iter().next() {
            let fits = pool.iter().rev().find(|v| *self.b.ty(**v) == state.ty);
            if let Some(value) = fits.filter(|_| self.options.updates) {
                let name = "memory".into();
                values.push((
                    *value,
                    Output {
                        name,
                        aliases: Some(id),
                    },
                ));
            }
        }
        let (results, outputs): (Vec<ValueId>, Vec<Output>) = values.into_iter().unzip();
        self.module.functions.push(self.b.finish(&results, outputs));
        self.module
    }
}
