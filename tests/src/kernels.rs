//! Blocks of ops on one core: cut out of the tensors on the host, computed by the instructions that
//! the compiler emits for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dojoc_compiler::emit::builder::SegmentBuilder;
use dojoc_compiler::emit::kernel::{self, BlockDim, Local, LocalTensor};
use dojoc_ir::access::{self, Access, KernelFn, Outside, Tiling};
use dojoc_ir::graph::{Function, ValueDef, ValueId};
use dojoc_ir::machine::Machine;
use dojoc_ir::ops::{EvalCx, EvalError, Op, Sample, Tolerance};
use dojoc_ir::program::recipe::NoSources;
use dojoc_ir::program::{
    Affine, BufferId, BufferRole, CoreBox, Entry, Home, IndexExpr, MachineRef, Packing, Program,
    Region, Shard, Span, Step, TensorDecl, TensorKind, dense_strides,
};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::{Tensor, indices, ravel};
use dojoc_ir::types::{DType, Type};
use dojoc_runtime::instance::{Instance, LoadOptions};
use dojoc_runtime::options::RunOptions;

use crate::random_graph::random_tensor;
use crate::rng::Rng;

/// What a core is to compute.
#[derive(Clone, Debug)]
pub enum Rule {
    /// A loop nest.
    Loop(Access),
    /// Something else.
    Kernel(KernelFn),
}

/// An op without inner structure, with operands and results.
#[derive(Clone, Debug)]
pub struct Case {
    /// For messages.
    pub label: String,
    /// How it is tiled.
    pub rule: Rule,
    /// Operands.
    pub args: Vec<Tensor>,
    /// What the op's reference gives.
    pub expected: Vec<Tensor>,
    /// How far results may be from that.
    pub tolerance: Tolerance,
}

/// Why a block has no result.
#[derive(Clone, Debug)]
pub enum Failure {
    /// There are no instructions for it.
    Unsupported(String),
    /// The program is wrong, or its run.
    Broken(String),
}

fn broken(message: impl std::fmt::Display) -> Failure {
    Failure::Broken(message.to_string())
}

/// The ops without inner structure that a sample consists of, with random operands. Ops that only
/// rename elements or contain regions are left out.
///
/// # Errors
/// What goes wrong in the reference.
pub fn cases(sample: &Sample, seed: u64) -> Result<Vec<Case>, String> {
    let mut rng = Rng::new(seed);
    let args = sample.args.iter();
    let args = args.map(|arg| ordinary(&random_tensor(&mut rng, &arg.ty, &arg.fill)));
    let args: Vec<Tensor> = args.collect();
    let mut found = Vec::new();
    collect(&sample.op, &args, &mut found)?;
    Ok(found)
}

/// The tensor with zeros in the place of subnormal numbers, which instructions take for zeros, and
/// without numbers whose squares overflow in the reference.
fn ordinary(tensor: &Tensor) -> Tensor {
    if !tensor.dtype().is_float() {
        return tensor.clone();
    }
    let dtype = tensor.dtype();
    let values = tensor.scalars().map(|value| match value.to_f64() {
        x if x.abs() < f64::from(f32::MIN_POSITIVE) => Scalar::from_f64(0.0f64.copysign(x), dtype),
        x if x.is_finite() => Scalar::from_f64(x.clamp(-1e18, 1e18), dtype),
        _ => value,
    });
    Tensor::from_scalars(dtype, tensor.shape(), values.collect::<Vec<Scalar>>())
}

fn collect(op: &Op, args: &[Tensor], found: &mut Vec<Case>) -> Result<Vec<Tensor>, String> {
    let types: Vec<Type> = args.iter().map(Tensor::ty).collect();
    let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("a region"));
    let expected = op.eval(args, &mut EvalCx::new(&mut none));
    let rule = match op.tiling(&types) {
        Tiling::Loop(access) => Rule::Loop(access),
        Tiling::Kernel(kernel) => Rule::Kernel(kernel.function),
        Tiling::Expand(function) => {
            inside(&function, args, found)?;
            return expected.map_err(|e| e.message);
        }
        Tiling::View(_) => return expected.map_err(|e| e.message),
        Tiling::Control => return Err("control flow".into()),
    };
    let expected = expected.map_err(|e| e.message)?;
    let attrs = op.attrs().0;
    let attrs: Vec<String> = attrs
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    let types: Vec<String> = types.iter().map(Type::to_string).collect();
    found.push(Case {
        label: format!(
            "{} {{{}}} ({})",
            op.name(),
            attrs.join(", "),
            types.join(", ")
        ),
        rule,
        args: args.to_vec(),
        expected: expected.clone(),
        tolerance: op.tolerance(),
    });
    Ok(expected)
}

/// The nodes of an expansion.
fn inside(function: &Function, args: &[Tensor], found: &mut Vec<Case>) -> Result<(), String> {
    let mut values: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    for (value, arg) in function.inputs().iter().zip(args) {
        values.insert(*value, arg.clone());
    }
    for node in &function.regions[function.body()].nodes {
        let node = &function.nodes[*node];
        let args = node.args.iter().map(|value| {
            let value_def = function.values[*value].def;
            values.get(value).cloned().ok_or_else(|| match value_def {
                ValueDef::Param(..) => "an unknown operand".to_string(),
                _ => "an operand from outside".to_string(),
            })
        });
        let args = args.collect::<Result<Vec<Tensor>, String>>()?;
        if !node.regions.is_empty() {
            return Err("control flow".into());
        }
        let results = collect(&node.op, &args, found)?;
        values.extend(node.results.iter().copied().zip(results));
    }
    Ok(())
}

/// The part of a loop that a block has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First iteration.
    pub start: u64,
    /// Number of iterations.
    pub count: u64,
    /// Largest number of iterations of the blocks that share the code.
    pub max: u64,
}

/// All loops of a nest in one block.
///
/// # Errors
/// If a loop has no constant extent.
pub fn whole(access: &Access) -> Result<Vec<Range>, String> {
    let range = |dim: &access::LoopDim| {
        let count = dim.extent.as_const().ok_or("a loop of unknown extent")?;
        Ok(Range {
            start: 0,
            count,
            max: count,
        })
    };
    access.dims.iter().map(range).collect()
}

/// A box of a tensor: per dim the first index (of the numerator), extent and largest extent.
type Box = Vec<(i64, u64, u64)>;

fn box_of(map: &[access::Affine], block: &[Range]) -> Result<Box, Failure> {
    let of_dim = |map: &access::Affine| {
        let offset = map
            .offset
            .as_constant()
            .ok_or_else(|| broken("a symbolic offset"))?;
        let (mut low, mut count, mut max) = (offset, 1, 1);
        for (dim, coefficient) in &map.terms {
            let Range {
                start,
                count: n,
                max: most,
            } = block[*dim];
            let first = if *coefficient >= 0 {
                start
            } else {
                (start + n).saturating_sub(1)
            };
            low += coefficient * first as i64;
            let reach = coefficient.unsigned_abs();
            max += reach * most.saturating_sub(1);
            count = match (n, count) {
                (0, _) | (_, 0) => 0,
                _ => count + reach * (n - 1),
            };
        }
        Ok((low, count, max))
    };
    map.iter().map(of_dim).collect()
}

/// Cuts a box out of a tensor, in coordinates of the numerators of the index maps.
fn cut(tensor: &Tensor, at: &Box, map: &[access::Affine], fill: Option<Scalar>) -> Tensor {
    let shape: Vec<u64> = at.iter().map(|(_, count, _)| *count).collect();
    let fill = fill.unwrap_or(match tensor.dtype() {
        dtype if dtype.is_float() => Scalar::from_f64(f64::NAN, dtype),
        dtype => Scalar::Int(1).convert(dtype),
    });
    let places = indices(&shape).map(|index| {
        let mut place = Vec::new();
        for (((i, (low, ..)), extent), map) in index.iter().zip(at).zip(tensor.shape()).zip(map) {
            let numerator = low + *i as i64;
            let div = map.div as i64;
            let index = u64::try_from(numerator.div_euclid(div)).ok();
            let index = index.filter(|i| numerator.rem_euclid(div) == 0 && i < extent)?;
            place.push(index);
        }
        Some(ravel(&place, tensor.shape()) as usize)
    });
    tensor.select(&shape, places.collect::<Vec<_>>(), fill)
}

/// The part of a block at which an operand is in range.
fn valid(map: &[access::Affine], shape: &[u64], block: &[Range]) -> Result<Vec<Range>, Failure> {
    let mut part = block.to_vec();
    for (map, extent) in map.iter().zip(shape) {
        let offset = map
            .offset
            .as_constant()
            .ok_or_else(|| broken("a symbolic offset"))?;
        let inside = |index: i64| (0..*extent as i64).contains(&index);
        match map.terms.as_slice() {
            [] if inside(offset) => {}
            [] => part.iter_mut().for_each(|range| range.count = 0),
            [(dim, coefficient)] => {
                let range = &mut part[*dim];
                let all = range.start..range.start + range.count;
                let fits = all.filter(|d| inside(coefficient * *d as i64 + offset));
                let fits: Vec<u64> = fits.collect();
                range.count = fits.len() as u64;
                range.start = fits.first().copied().unwrap_or(range.start);
            }
            _ => return Err(Failure::Unsupported("a range in two loops".into())),
        }
    }
    Ok(part)
}

/// A program on one core.
struct OneCore {
    seg: SegmentBuilder,
    program: Program,
    row: Vec<i64>,
    inputs: Vec<(Arc<str>, Tensor)>,
    /// Tensors by their buffers.
    tensors: Vec<(BufferId, TensorDecl)>,
}

impl OneCore {
    fn new() -> Self {
        let machine = MachineRef {
            name: "mesh4x4".into(),
            fingerprint: 0,
        };
        let mut program = Program {
            name: "block".into(),
            machine,
            ..Program::default()
        };
        let one = Span::one(0);
        let boxes = vec![CoreBox {
            chips: one,
            rows: one,
            columns: one,
        }];
        program.regions.push(Region {
            name: "one".into(),
            boxes,
        });
        Self {
            seg: SegmentBuilder::new("block", None),
            program,
            row: Vec::new(),
            inputs: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// A number, as a parameter if it may differ between blocks.
    fn number(&mut self, value: u64, varies: bool) -> Affine {
        if !varies {
            return Affine::constant(value as i64);
        }
        let param = self.seg.param(&format!("p{}", self.row.len()));
        self.row.push(value as i64);
        Affine::var(param)
    }

    /// A buffer with a tensor in it that has the extents of the box and lies as the largest would.
    fn tensor(
        &mut self,
        dtype: DType,
        at: &[(u64, u64)],
        value: Option<Tensor>,
    ) -> Result<Local, Failure> {
        let largest: Vec<u64> = at.iter().map(|(_, max)| *max).collect();
        let strides = dense_strides(dtype, &largest, Packing::Strided);
        let strides = strides.ok_or_else(|| broken("a box is too large"))?;
        let elements = largest.iter().product::<u64>().max(1);
        let (kind, role) = match value {
            Some(_) => (TensorKind::Input, BufferRole::In),
            None => (TensorKind::Output, BufferRole::Out),
        };
        let name: Arc<str> = format!("x{}", self.tensors.len()).into();
        let buffer = self.seg.buffer(&name, dtype, &[elements], role, None);
        let slice = at
            .iter()
            .map(|(count, _)| (IndexExpr::constant(0), IndexExpr::constant(*count as i64)));
        let home = Home::Sram {
            on: dojoc_ir::entity::EntityId::from_index(0),
            at: IndexExpr::constant(0),
        };
        let shard = Shard {
            home,
            slice: slice.collect(),
            strides: strides.clone(),
            packing: Packing::Strided,
        };
        let decl = TensorDecl {
            name: name.clone(),
            kind,
            dtype,
            shape: at
                .iter()
                .map(|(count, _)| Affine::constant(*count as i64))
                .collect(),
            shards: vec![shard],
            loc: None,
        };
        self.tensors.push((buffer, decl));
        self.inputs.extend(value.map(|value| (name, value)));
        Ok(Local {
            buffer,
            dtype,
            offset: Affine::constant(0),
            strides,
            valid: None,
        })
    }

    /// Gives addresses: tensors one after the other, scratch buffers where no other is alive.
    fn place(&mut self) {
        let align = |at: u64| at.next_multiple_of(64);
        let mut end = 0;
        for (buffer, decl) in &mut self.tensors {
            self.seg.set_address(*buffer, end);
            if let [
                Shard {
                    home: Home::Sram { at, .. },
                    ..
                },
            ] = decl.shards.as_mut_slice()
            {
                *at = IndexExpr::constant(end as i64);
            }
            end = align(end + self.seg.buffers()[*buffer].bytes());
        }
        let mut placed: Vec<(u64, u64, usize, usize)> = Vec::new();
        for life in self.seg.scratch_lives() {
            let mut at = end;
            let clash = |at: u64| {
                placed.iter().copied().find(|(start, stop, first, last)| {
                    *start < at + life.bytes
                        && at < *stop
                        && *first <= life.last
                        && life.first <= *last
                })
            };
            while let Some((_, stop, ..)) = clash(at) {
                at = align(stop);
            }
            placed.push((at, at + life.bytes, life.first, life.last));
            self.seg.set_address(life.buffer, at);
        }
    }

    /// Verifies and runs; results of the sanitizer are the same.
    fn run(mut self, machine: &Machine) -> Result<Vec<Tensor>, Failure> {
        self.place();
        let segment = self.seg.finish().map_err(broken)?;
        let mut program = self.program;
        let on = dojoc_ir::entity::EntityId::from_index(0);
        let segment = program.segments.push(segment);
        let row = self
            .row
            .iter()
            .map(|value| IndexExpr::constant(*value))
            .collect();
        let mut entry = Entry {
            name: "main".into(),
            steps: vec![Step::Call {
                segment,
                on,
                row,
                loc: None,
            }],
            ..Entry::default()
        };
        for (_, decl) in self.tensors {
            let input = matches!(decl.kind, TensorKind::Input);
            let id = program.tensors.push(decl);
            match input {
                true => entry.inputs.push(id),
                false => entry.outputs.push(id),
            }
        }
        program.entries.push(entry);
        let text = program.to_string();
        let failed = |e: &dyn std::fmt::Display| broken(format!("{e}\n{text}"));
        let program = Arc::new(program);
        let load = Instance::load(program, machine, &NoSources, LoadOptions::default());
        let mut instance = load.map_err(|e| failed(&e))?;
        let mut run = |sanitize| {
            let options = RunOptions {
                threads: 1,
                sanitize,
                ..RunOptions::default()
            };
            let run = instance
                .run("main", &self.inputs, &options)
                .map_err(|e| failed(&e))?;
            Ok(run
                .outputs
                .into_iter()
                .map(|(_, tensor)| tensor)
                .collect::<Vec<Tensor>>())
        };
        let (fast, checked) = (run(false)?, run(true)?);
        for (a, b) in fast.iter().zip(&checked) {
            if a.bytes() != b.bytes() {
                return Err(failed(&"the sanitizer has other results"));
            }
        }
        Ok(fast)
    }
}

/// Computes a block of a loop nest. Extents of blocks that are not always the largest are parameters.
///
/// # Errors
/// See [`Failure`].
pub fn run_block(
    access: &Access,
    args: &[Tensor],
    block: &[Range],
    machine: &Machine,
) -> Result<Vec<Tensor>, Failure> {
    let unsupported = |e: dojoc_compiler::emit::Unsupported| Failure::Unsupported(e.0);
    let dtypes: Vec<DType> = args.iter().map(Tensor::dtype).collect();
    kernel::supports(access, &dtypes).map_err(unsupported)?;
    let mut core = OneCore::new();
    let mut dims = Vec::new();
    for Range { start, count, max } in block {
        let varies = *start > 0 || count < max;
        let (start, count) = (core.number(*start, varies), core.number(*count, varies));
        dims.push(BlockDim {
            start,
            count,
            max: *max,
        });
    }
    let mut operands = Vec::new();
    for (number, (read, arg)) in access.operands.iter().zip(args).enumerate() {
        let fill = kernel::fill_value(access, number).map_err(unsupported)?;
        let partial = read.outside != Outside::Never && fill.is_none();
        let part = match partial {
            true => valid(&read.index, arg.shape(), block)?,
            false => block.to_vec(),
        };
        let at = box_of(&read.index, &part)?;
        let value = cut(
            arg,
            &at,
            &read.index,
            fill.map(|fill| fill.to_scalar(arg.dtype())),
        );
        let extents: Vec<(u64, u64)> = at.iter().map(|(_, count, max)| (*count, *max)).collect();
        let mut local = core.tensor(arg.dtype(), &extents, Some(value))?;
        if partial {
            let mut ranges = Vec::new();
            for (part, all) in part.iter().zip(block) {
                let varies = all.count < all.max || all.start > 0;
                let start = core.number(part.start - all.start, varies);
                ranges.push((start, core.number(part.count, varies)));
            }
            local.valid = Some(ranges);
        }
        operands.push(local);
    }
    let mut results = Vec::new();
    for write in &access.results {
        let at = box_of(&write.index, block)?;
        let extents: Vec<(u64, u64)> = at.iter().map(|(_, count, max)| (*count, *max)).collect();
        results.push(core.tensor(write.dtype, &extents, None)?);
    }
    kernel::emit(access, &dims, &operands, &results, &mut core.seg, None).map_err(unsupported)?;
    core.run(machine)
}

/// The part of a result that a block gives.
///
/// # Errors
/// If the block is not a box of it.
pub fn expected_block(
    access: &Access,
    expected: &[Tensor],
    block: &[Range],
) -> Result<Vec<Tensor>, Failure> {
    let part = |(write, tensor): (&access::Write, &Tensor)| {
        Ok(cut(
            tensor,
            &box_of(&write.index, block)?,
            &write.index,
            None,
        ))
    };
    access.results.iter().zip(expected).map(part).collect()
}

/// Computes a kernel on whole tensors.
///
/// # Errors
/// See [`Failure`].
pub fn run_kernel(
    function: KernelFn,
    args: &[Tensor],
    results: &[Type],
    machine: &Machine,
) -> Result<Vec<Tensor>, Failure> {
    let unsupported = |e: dojoc_compiler::emit::Unsupported| Failure::Unsupported(e.0);
    let types: Vec<Type> = args.iter().map(Tensor::ty).collect();
    kernel::supports_kernel(function, &types, results).map_err(unsupported)?;
    let mut core = OneCore::new();
    let mut local = |ty: &Type, value: Option<Tensor>| {
        let extents = ty
            .shape
            .as_const()
            .ok_or_else(|| broken("a symbolic shape"))?;
        let extents: Vec<(u64, u64)> = extents.iter().map(|extent| (*extent, *extent)).collect();
        let local = core.tensor(ty.dtype, &extents, value)?;
        let shape = extents
            .iter()
            .map(|(n, max)| (Affine::constant(*n as i64), *max))
            .collect();
        Ok(LocalTensor { local, shape })
    };
    let operands = args.iter().map(|arg| local(&arg.ty(), Some(arg.clone())));
    let operands = operands.collect::<Result<Vec<LocalTensor>, Failure>>()?;
    let results = results.iter().map(|ty| local(ty, None));
    let results = results.collect::<Result<Vec<LocalTensor>, Failure>>()?;
    kernel::emit_kernel(function, &operands, &results, &mut core.seg, None).map_err(unsupported)?;
    core.run(machine)
}

/// Whether a block of a nest has every element of the boxes of its results: loops that share a dim
/// of a result may leave gaps.
pub fn fills_boxes(access: &Access, block: &[Range]) -> bool {
    let count = |dims: &mut dyn Iterator<Item = u64>| dims.product::<u64>();
    access.results.iter().all(|write| {
        let Ok(at) = box_of(&write.index, block) else {
            return false;
        };
        let dims = write.index.iter().flat_map(|map| &map.terms);
        let points = count(&mut dims.map(|(dim, _)| block[*dim].count));
        points == count(&mut at.iter().map(|(_, count, _)| *count))
    })
}

/// Whether results are as close as a tolerance allows, or a few roundings of what instructions
/// compute with. Differences are relative to the largest magnitudes of `whole`, of which results may
/// be a part.
///
/// # Errors
/// Where they are not.
pub fn close(
    found: &[Tensor],
    expected: &[Tensor],
    whole: &[Tensor],
    tolerance: Tolerance,
) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!(
            "{} results instead of {}",
            found.len(),
            expected.len()
        ));
    }
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        if found.ty() != expected.ty() {
            return Err(format!(
                "result {number} is {}, not {}",
                found.ty(),
                expected.ty()
            ));
        }
        let size = |s: Scalar| {
            Some(s.to_f64().abs())
                .filter(|x| x.is_finite())
                .unwrap_or(0.0)
        };
        let scale = whole[number].scalars().map(size).fold(0.0, f64::max);
        let few = Tolerance::Roundings(16.0).relative(DType::F32);
        let one = Tolerance::Roundings(1.0).relative(expected.dtype());
        let relative = tolerance.relative(expected.dtype()).max(few).max(one);
        // What is smaller is zero for instructions.
        let allowed = relative * scale + f64::from(f32::MIN_POSITIVE);
        for (position, (f, e)) in found.scalars().zip(expected.scalars()).enumerate() {
            let (x, y) = (f.to_f64(), e.to_f64());
            let near = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= allowed;
            let same = if expected.dtype().is_float() {
                near
            } else {
                f == e
            };
            if !same {
                return Err(format!(
                    "result {number}, element {position}: {f:?} should be {e:?} (allowed \
                     {allowed:e})\n found {found:?}\n expected {expected:?}"
                ));
            }
        }
    }
    Ok(())
}
