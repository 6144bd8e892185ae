//! Instructions on random operands in random layouts, against a reference that knows no layouts.

mod cases;
mod reference;
mod special;

use dojoc_ir::program::{Packing, ViewType};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::*;
use crate::kernels::available;
use cases::{Case, Content};

/// A tensor as the reference sees it: the bits of all elements, row-major.
#[derive(Clone, Debug, PartialEq)]
struct Logical {
    dtype: DType,
    shape: Vec<u64>,
    bits: Vec<u64>,
}

/// An operand in memory.
#[derive(Clone, Debug)]
struct Placed {
    layout: Layout,
    memory: Vec<u64>,
}

fn multi_index(mut i: u64, shape: &[u64]) -> Vec<u64> {
    let mut index = vec![0; shape.len()];
    for (at, extent) in index.iter_mut().zip(shape).rev() {
        *at = i % extent;
        i /= extent;
    }
    index
}

impl Placed {
    fn new(view: ViewType) -> Self {
        let layout = Layout::new(view).unwrap();
        let memory = vec![0; layout.span.div_ceil(8)];
        Self { layout, memory }
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.memory)[..self.layout.span]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[..self.layout.span]
    }

    /// Where element i is in the bytes.
    fn place(&self, i: u64) -> std::ops::Range<usize> {
        let view = &self.layout.view;
        let at = view.position(&multi_index(i, &view.shape)) - self.layout.low;
        at as usize..at as usize + self.layout.size()
    }

    fn get(&self, i: u64) -> u64 {
        let mut bits = [0; 8];
        let place = self.place(i);
        bits[..place.len()].copy_from_slice(&self.bytes()[place]);
        u64::from_le_bytes(bits)
    }

    fn set(&mut self, i: u64, bits: u64) {
        let place = self.place(i);
        let bytes = &bits.to_le_bytes()[..place.len()];
        self.bytes_mut()[place].copy_from_slice(bytes);
    }

    fn logical(&self) -> Logical {
        let view = &self.layout.view;
        Logical {
            dtype: view.dtype,
            shape: view.shape.clone(),
            bits: (0..view.elements()).map(|i| self.get(i)).collect(),
        }
    }
}

/// A random layout; with a place of its own for every element if it is written.
fn random_view(
    rng: &mut impl Rng,
    dtype: DType,
    shape: &[u64],
    written: bool,
    may_pack: bool,
) -> ViewType {
    let packing = match rng.random_range(0..4) {
        0 if may_pack && shape.len() >= 2 => Packing::Packed8x4,
        1 if may_pack && shape.len() >= 2 => Packing::Packed4x8,
        _ => Packing::Strided,
    };
    let mut view = ViewType::dense(dtype, shape, packing).unwrap();
    if rng.random_range(0..3) == 0 {
        return view;
    }
    let size = dtype.bytes() as i64;
    let (rows, columns) = packing.block();
    let rank = shape.len();
    let mut order: Vec<usize> = (0..rank).rev().collect();
    if rng.random_range(0..2) == 0 {
        for i in (1..rank).rev() {
            order.swap(i, rng.random_range(0..=i));
        }
    }
    let mut step = (rows * columns) as i64 * size;
    for d in order {
        let per_block = match rank - d {
            1 => columns,
            2 => rows,
            _ => 1,
        };
        let gap = if rng.random_range(0..3) == 0 {
            rng.random_range(0..4) * size
        } else {
            0
        };
        let stride = step + gap;
        let sign = if rng.random_range(0..5) == 0 { -1 } else { 1 };
        step = stride * shape[d].div_ceil(per_block).max(1) as i64;
        view.strides[d] = match rng.random_range(0..8) {
            0 if !written => 0,
            1 if !written => size * rng.random_range(0..3),
            _ => stride * sign,
        };
    }
    view
}

fn random_bits(rng: &mut impl Rng, dtype: DType, content: Content) -> u64 {
    let any: u64 = rng.random();
    match content {
        Content::Index(n) => {
            let index = rng.random_range(-(n as i64)..n as i64) as u64;
            index & (u64::MAX >> (64 - 8 * dtype.bytes()))
        }
        Content::WildIndex(n) => {
            let index = rng.random_range(-(n as i64) - 2..n as i64 + 2) as u64;
            index & (u64::MAX >> (64 - 8 * dtype.bytes()))
        }
        Content::Bias => any % 64,
        Content::Ordinary => {
            let x: f32 = rng.random_range(-4.0..4.0);
            match dtype {
                DType::Bf16 => x.to_bits() as u64 >> 16,
                DType::F32 => x.to_bits().into(),
                _ => any & 0xFF,
            }
        }
        Content::Any => match dtype {
            DType::Bool => any & 1,
            DType::F32 => reference::any_f32(rng).to_bits().into(),
            DType::Bf16 => u64::from(reference::any_f32(rng).to_bits() >> 16),
            DType::F64 if any.is_multiple_of(2) => {
                f64::from(reference::any_f32(rng)).to_bits() ^ (any >> 40)
            }
            // Small ones, so that there are equals.
            _ if dtype.is_int() && any.is_multiple_of(3) => (any >> 8) % 5,
            _ => any & (u64::MAX >> (64 - 8 * dtype.bytes())),
        },
    }
}

fn place(rng: &mut impl Rng, view: ViewType, content: Content) -> Placed {
    let mut placed = Placed::new(view);
    for word in &mut placed.memory {
        *word = rng.random();
    }
    for i in 0..placed.layout.view.elements() {
        let bits = random_bits(rng, placed.layout.view.dtype, content);
        placed.set(i, bits);
    }
    placed
}

#[derive(Debug, Default)]
struct Cache(std::sync::Mutex<Vec<(PanelKey, Arc<Panels>)>>);

impl PanelCache for Cache {
    fn get(&self, key: &PanelKey, pack: &mut dyn FnMut() -> Panels) -> Arc<Panels> {
        let mut kept = self.0.lock().unwrap();
        if let Some((_, panels)) = kept.iter().find(|(k, _)| k == key) {
            return panels.clone();
        }
        let panels = Arc::new(pack());
        kept.push((key.clone(), panels.clone()));
        panels
    }
}

/// Operands in memory and which sources are the first target.
struct Memory {
    targets: Vec<Placed>,
    sources: Vec<Placed>,
    in_place: Vec<bool>,
}

fn memory(rng: &mut impl Rng, case: &Case) -> Memory {
    let may_pack = matches!(case.instr, Instr::MatMul(_) | Instr::Copy(_));
    let mut memory = Memory {
        targets: Vec::new(),
        sources: Vec::new(),
        in_place: Vec::new(),
    };
    for (i, operand) in case.operands.iter().enumerate() {
        let written = i < case.targets;
        let packs = may_pack && !operand.strided;
        let view = random_view(rng, operand.dtype, &operand.shape, written, packs);
        if written {
            memory.targets.push(place(rng, view, operand.content));
            continue;
        }
        let first = &memory.targets[0].layout.view;
        let fits = first.dtype == view.dtype && first.shape == view.shape;
        let content_fits = matches!(operand.content, Content::Any | Content::Ordinary);
        let in_place = fits
            && content_fits
            && (packs || first.packing == Packing::Strided)
            && rng.random_range(0..3) == 0;
        memory.in_place.push(in_place);
        memory.sources.push(if in_place {
            memory.targets[0].clone()
        } else {
            place(rng, view, operand.content)
        });
    }
    memory
}

/// Runs an instruction and gives the targets.
fn run(
    case: &Case,
    memory: &Memory,
    kernels: &'static dyn Kernels,
    scratch: &mut Scratch,
    cache: Option<&Cache>,
) -> Result<Vec<Placed>, Fault> {
    let mut results = memory.targets.clone();
    let mut targets: Vec<Target<'_>> = results
        .iter_mut()
        .map(|placed| {
            let span = placed.layout.span;
            Target {
                layout: &placed.layout,
                bytes: &mut bytemuck::cast_slice_mut(&mut placed.memory)[..span],
            }
        })
        .collect();
    let sources: Vec<Source<'_>> = memory
        .sources
        .iter()
        .zip(&memory.in_place)
        .enumerate()
        .map(|(i, (placed, in_place))| Source {
            layout: &placed.layout,
            bytes: if *in_place {
                Bytes::InPlace
            } else {
                Bytes::Slice(placed.bytes())
            },
            panels: cache
                .filter(|_| i == 1 && !in_place)
                .map(|cache| cache as &dyn PanelCache),
        })
        .collect();
    let mut cx = Cx {
        kernels,
        scratch,
        seed: 11,
        step: 7,
    };
    execute(&case.instr, &mut targets, &sources, &case.scalars, &mut cx)?;
    Ok(results)
}

/// The bytes of targets that no element occupies.
fn gaps(placed: &Placed) -> Vec<u8> {
    let mut bytes = placed.bytes().to_vec();
    for i in 0..placed.layout.view.elements() {
        bytes[placed.place(i)].fill(0);
    }
    bytes
}

/// Packed views have room beside their elements, which may be anything.
fn gaps_are_kept(before: &Placed, after: &Placed) -> bool {
    gaps(before) == gaps(after)
}

fn check(rng: &mut impl Rng, case: &Case, scratch: &mut Scratch) {
    let memory = memory(rng, case);
    let views: Vec<ViewType> = memory
        .targets
        .iter()
        .chain(&memory.sources)
        .map(|placed| placed.layout.view.clone())
        .collect();
    assert_eq!(case.instr.check(&views), Ok(()), "{case:?}");
    let logical =
        |placed: &[Placed]| -> Vec<Logical> { placed.iter().map(Placed::logical).collect() };
    let expected = reference::execute(
        &case.instr,
        &logical(&memory.targets),
        &logical(&memory.sources),
        &case.scalars,
    );
    let cache = Cache::default();
    let uses_panels = matches!(case.instr, Instr::MatMul(_));
    for kernels in available() {
        for cache in [None, uses_panels.then_some(&cache)] {
            let found = run(case, &memory, kernels, scratch, cache);
            let found = match (found, &expected) {
                (Ok(found), Some(_)) => found,
                (Err(_), None) => continue,
                (found, expected) => panic!(
                    "{} of {views:?}: {:?}, expected {}",
                    case.instr.mnemonic(),
                    found.err(),
                    if expected.is_some() {
                        "a result"
                    } else {
                        "a fault"
                    }
                ),
            };
            let found_bits = logical(&found);
            assert_eq!(
                Some(&found_bits),
                expected.as_ref(),
                "{:?} of {views:?} with {kernels:?}, in place {:?}, sources {:?}",
                case.instr,
                memory.in_place,
                logical(&memory.sources),
            );
            for (before, after) in memory.targets.iter().zip(&found) {
                assert!(
                    gaps_are_kept(before, after),
                    "{case:?}: bytes beside elements"
                );
            }
        }
    }
}

/// Cases of one family.
fn check_many(seed: u64, count: usize, mut make: impl FnMut(&mut Pcg64) -> Case) {
    let mut scratch = Scratch::default();
    for i in 0..count {
        let mut rng = Pcg64::seed_from_u64(seed * 1_000_003 + i as u64);
        let case = make(&mut rng);
        check(&mut rng, &case, &mut scratch);
    }
}

#[test]
fn maps() {
    check_many(1, 800, cases::map);
}

#[test]
fn zips() {
    check_many(2, 1200, cases::zip);
}

#[test]
fn other_element_wise_instructions() {
    check_many(3, 1000, cases::element_wise);
}

#[test]
fn reductions() {
    check_many(4, 800, cases::reduce);
}

#[test]
fn conversions() {
    check_many(5, 1200, cases::convert);
}

#[test]
fn movements() {
    check_many(6, 1200, cases::data);
}

#[test]
fn sorts() {
    check_many(7, 500, cases::sort);
}

#[test]
fn products() {
    check_many(8, 700, cases::matmul);
}
/// The samples that come with the instructions.
#[test]
fn samples() {
    let samples = Instr::samples();
    assert!(samples.len() > 20);
    let mut scratch = Scratch::default();
    for (i, (instr, views)) in samples.into_iter().enumerate() {
        let mut rng = Pcg64::seed_from_u64(900 + i as u64);
        let case = cases::sample(&mut rng, instr, &views);
        check(&mut rng, &case, &mut scratch);
    }
}
