//! What the host's kernels reach by themselves, on operands that stay in its caches.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use dojoc_ir::types::DType;
use dojoc_runtime::kernels::{
    Aligned, Epilogue, Kernels, Lhs, Matmul, Matrix, Output, Rhs, Scratch, packed_len_bf16,
    packed_len_f32,
};
use half::bf16;

/// Rows, columns and depth of a tile product.
pub type Tile = (usize, usize, usize);

/// Tile products whose best rate is called the host's peak.
pub const TILES: [Tile; 4] = [(32, 32, 64), (64, 64, 64), (128, 128, 128), (64, 256, 512)];

/// How long each rate is measured.
const DURATION: Duration = Duration::from_millis(250);

/// GFLOP/s of hot tile products with packed B, on `threads` threads together. f32 for
/// [`DType::F32`], else bf16.
pub fn tile_rate(kernels: &'static dyn Kernels, dtype: DType, tile: Tile, threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let run = || {
        let mut product: Box<dyn FnMut()> = match dtype {
            DType::F32 => product_f32(kernels, tile),
            _ => product_bf16(kernels, tile),
        };
        product();
        barrier.wait();
        let start = Instant::now();
        let mut products = 0u32;
        while start.elapsed() < DURATION {
            for _ in 0..16 {
                product();
            }
            products += 16;
        }
        f64::from(products) / start.elapsed().as_secs_f64()
    };
    let rate: f64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        workers.into_iter().filter_map(|w| w.join().ok()).sum()
    });
    let (m, n, k) = tile;
    rate * (2 * m * n * k) as f64 / 1e9
}

fn value(i: usize) -> f32 {
    (i % 97) as f32 / 48.0 - 1.0
}

fn product_f32(kernels: &'static dyn Kernels, (m, n, k): Tile) -> Box<dyn FnMut()> {
    let mut panels = Aligned::new(packed_len_f32(k, n));
    let rows: Vec<f32> = (0..k * n).map(value).collect();
    kernels.pack_b_f32(dense(&rows, n), k, n, &mut panels);
    let run = move |product: &Matmul<'_, f32>, c: Output<'_>, scratch: &mut Scratch| {
        kernels.matmul_f32(product, c, scratch);
    };
    hot((m, n, k), value, panels, run)
}

fn product_bf16(kernels: &'static dyn Kernels, (m, n, k): Tile) -> Box<dyn FnMut()> {
    let narrow = |i| bf16::from_f32(value(i));
    let mut panels = Aligned::new(packed_len_bf16(k, n));
    let rows: Vec<bf16> = (0..k * n).map(narrow).collect();
    kernels.pack_b_bf16(dense(&rows, n), k, n, &mut panels);
    let run = move |product: &Matmul<'_, bf16>, c: Output<'_>, scratch: &mut Scratch| {
        kernels.matmul_bf16(product, c, scratch);
    };
    hot((m, n, k), narrow, panels, run)
}

fn dense<E>(data: &[E], stride: usize) -> Rhs<'_, E> {
    Rhs::Rows(Matrix { data, stride })
}

/// A product that can be run again and again on the same operands.
fn hot<E: Copy + Default + 'static>(
    (m, n, k): Tile,
    value: impl Fn(usize) -> E,
    panels: Aligned<E>,
    run: impl Fn(&Matmul<'_, E>, Output<'_>, &mut Scratch) + 'static,
) -> Box<dyn FnMut()> {
    let a: Vec<E> = (0..m * k).map(value).collect();
    let (mut c, mut scratch) = (vec![0f32; m * n], Scratch::default());
    Box::new(move || {
        let product = Matmul {
            m,
            n,
            k,
            a: Lhs {
                data: &a,
                stride: k,
                transposed: false,
            },
            b: Rhs::Packed(&panels),
            epilogue: Epilogue::default(),
        };
        let output = Output::F32 {
            data: &mut c,
            stride: n,
            accumulate: false,
        };
        run(&product, output, &mut scratch);
    })
}
