//! Measurements of the runtime on this host: kernels alone, dispatch, channels, whole programs.
//!
//! Rates are the best of several runs, as hosts are shared. Times of programs are those of their cores,
//! without the way of inputs and outputs between tensors and cores. Compare figures of one run only.

mod kernels;
pub mod programs;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dojoc_ir::diag::{Diagnostic, Kind};
use dojoc_ir::graph::near;
use dojoc_ir::machine::Machine;
use dojoc_ir::program::Program;
use dojoc_ir::program::recipe::NoSources;
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;
use dojoc_runtime::instance::{Instance, LoadOptions};
use dojoc_runtime::kernels::{Kernels, detect};
use dojoc_runtime::options::{RunOptions, Stats};

use crate::codes;
use crate::error::{Error, Result};
use programs::MeshGemm;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numbers of threads, each measured for itself.
    pub threads: Vec<usize>,
    /// Only measurements whose name contains this.
    pub filter: Option<String>,
    /// Runs of which the best counts.
    pub runs: usize,
    /// Smaller programs, for a first look.
    pub quick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: vec![1],
            filter: None,
            runs: 5,
            quick: false,
        }
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// What was measured: group, case and sizes.
    pub name: String,
    /// Worker threads.
    pub threads: usize,
    /// Seconds of the best run.
    pub seconds: f64,
    /// Floating-point operations of tile products per second, in units of 1e9.
    pub gflops: Option<f64>,
    /// What the tile kernel reaches alone with as many threads, in this run of the command.
    pub host_peak_gflops: Option<f64>,
    /// Nanoseconds of a thread per executed statement: `seconds * threads / statements`.
    pub ns_per_instr: Option<f64>,
    /// Growth of the resident memory of the process over loading and running, in 1e6 bytes.
    pub megabytes: Option<f64>,
}

const DTYPES: [DType; 2] = [DType::Bf16, DType::F32];

const DISPATCH: &str = "dispatch/add 16 f32, one core";
const PING_PONG: &str = "channels/ping-pong 1 KiB";
const RING: &str = "program/vector ring 256 f32, 10240 cores";
const IDLE: &str = "program/idle, 1062000 cores";

fn kernel(dtype: DType, (m, n, k): kernels::Tile) -> String {
    format!("kernel/{dtype} {m}x{n}x{k}")
}

impl Options {
    fn mesh_gemm(&self, dtype: DType) -> (MeshGemm, String) {
        let block = if self.quick { 64 } else { 128 };
        let gemm = MeshGemm {
            side: 16,
            m: block,
            n: block,
            k: block,
            dtype,
        };
        let size = 16 * block;
        let name = format!("program/mesh_gemm/{dtype} {size}x{size}x{size}, 256 cores");
        (gemm, name)
    }

    /// Names of all measurements.
    fn names(&self) -> Vec<String> {
        let of = |dtype| {
            let kernels = kernels::TILES.iter().map(move |tile| kernel(dtype, *tile));
            kernels.chain([self.mesh_gemm(dtype).1])
        };
        let others = [DISPATCH, PING_PONG, RING, IDLE].map(str::to_owned);
        DTYPES.into_iter().flat_map(of).chain(others).collect()
    }

    fn wants(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|f| name.contains(f.as_str()))
    }

    /// The error for a filter that leaves nothing to measure.
    fn check(&self) -> Result<()> {
        let names = self.names();
        let Some(filter) = self
            .filter
            .as_ref()
            .filter(|_| !names.iter().any(|n| self.wants(n)))
        else {
            return Ok(());
        };
        let groups = ["kernel", "dispatch", "channels", "program", "mesh_gemm"];
        let known = groups.into_iter().chain(names.iter().map(|name| &**name));
        let near = near(filter, known, 3);
        let help = match near.is_empty() {
            true => format!("there are: {}", groups.join(", ")),
            false => format!("did you mean `{}`?", near.join("`, `")),
        };
        let message = format!("no measurement has `{filter}` in its name");
        Err(Error::one(
            Diagnostic::input(codes::UNKNOWN_WORD, message).help(help),
        ))
    }
}

/// Measures, calling `report` with every figure as it is there. `cancel` stops a run.
///
/// # Errors
/// When cancelled, or no name contains the filter; or a program that cannot be loaded or run, a defect of ours.
pub fn run(
    options: &Options,
    cancel: Option<Arc<AtomicBool>>,
    report: &mut dyn FnMut(Measurement),
) -> Result<()> {
    options.check()?;
    let kernels = detect();
    for &threads in &options.threads {
        let mut bench = Bench {
            options,
            kernels,
            threads,
            cancel: cancel.clone(),
            report,
        };
        for dtype in DTYPES {
            let (gemm, name) = options.mesh_gemm(dtype);
            let gemm_wanted = options.wants(&name);
            let mut tiles = kernels::TILES.iter();
            if !gemm_wanted && !tiles.any(|tile| options.wants(&kernel(dtype, *tile))) {
                continue;
            }
            let peak = bench.kernels(dtype);
            if gemm_wanted {
                bench.mesh_gemm(name, &gemm, peak)?;
            }
        }
        bench.statements(DISPATCH, "mesh4x4", |machine| {
            programs::dispatch(machine, 20_000)
        })?;
        bench.statements(PING_PONG, "mesh4x4", |machine| {
            programs::ping_pong(machine, 256, 20_000)
        })?;
        let rounds = if options.quick { 4 } else { 16 };
        bench.statements(RING, "tray", |machine| {
            programs::vector_ring(machine, 10_240, 256, rounds)
        })?;
        bench.statements(IDLE, "exapod", programs::idle)?;
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    kernels: &'static dyn Kernels,
    threads: usize,
    cancel: Option<Arc<AtomicBool>>,
    report: &'a mut dyn FnMut(Measurement),
}

impl Bench<'_> {
    /// Rates of the tile kernel; the best of them.
    fn kernels(&mut self, dtype: DType) -> f64 {
        let mut peak = 0f64;
        for (m, n, k) in kernels::TILES {
            let rate = kernels::tile_rate(self.kernels, dtype, (m, n, k), self.threads);
            peak = peak.max(rate);
            let name = kernel(dtype, (m, n, k));
            if self.options.wants(&name) {
                (self.report)(Measurement {
                    name,
                    threads: self.threads,
                    seconds: (2 * m * n * k) as f64 / (rate * 1e9),
                    gflops: Some(rate),
                    host_peak_gflops: None,
                    ns_per_instr: None,
                    megabytes: None,
                });
            }
        }
        peak
    }

    /// A product of square matrices on 16 x 16 cores.
    fn mesh_gemm(&mut self, name: String, gemm: &MeshGemm, peak: f64) -> Result<()> {
        let size = f64::from(16 * gemm.m);
        let loaded = load("d1", |machine| gemm.program(machine))?;
        let (seconds, stats, _) = self.best(&loaded)?;
        let flop = 2.0 * size * size * size;
        let ns_per_instr = Self::per_statement(seconds, &stats);
        (self.report)(Measurement {
            name,
            threads: self.threads,
            seconds,
            gflops: Some(flop / seconds / 1e9),
            host_peak_gflops: Some(peak),
            ns_per_instr,
            megabytes: None,
        });
        Ok(())
    }

    /// A program of which the time per statement is of interest.
    fn statements(
        &mut self,
        name: &str,
        machine: &str,
        text: impl Fn(&Machine) -> Option<String>,
    ) -> Result<()> {
        if !self.options.wants(name) {
            return Ok(());
        }
        let loaded = load(machine, text)?;
        let (seconds, stats, megabytes) = self.best(&loaded)?;
        let ns_per_instr = Self::per_statement(seconds, &stats);
        (self.report)(Measurement {
            name: name.into(),
            threads: self.threads,
            seconds,
            gflops: None,
            host_peak_gflops: None,
            ns_per_instr,
            megabytes,
        });
        Ok(())
    }

    fn per_statement(seconds: f64, stats: &Stats) -> Option<f64> {
        let nanoseconds = seconds * 1e9 * stats.threads as f64;
        (stats.instructions > 0).then(|| nanoseconds / stats.instructions as f64)
    }

    /// Loads once and runs several times: seconds of the best run, its statistics, and by how many
    /// megabytes the process grew.
    fn best(&self, loaded: &Loaded) -> Result<(f64, Stats, Option<f64>)> {
        let before = resident_bytes();
        let mut instance = Instance::load(
            loaded.program.clone(),
            &loaded.machine,
            &NoSources,
            LoadOptions::default(),
        )
        .map_err(|problems| Error::new(problems, None))?;
        let run_options = RunOptions {
            threads: self.threads,
            cancel: self.cancel.clone(),
            ..RunOptions::default()
        };
        let mut best: Option<(f64, Stats)> = None;
        for _ in 0..self.options.runs.max(1) {
            let result = instance
                .run("main", &loaded.inputs, &run_options)
                .map_err(|problems| Error::new(problems, None))?;
            let seconds = result.elapsed.as_secs_f64();
            if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
                best = Some((seconds, result.stats));
            }
        }
        let grown = resident_bytes()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before) as f64 / 1e6);
        let (seconds, stats) = best.unwrap_or_default();
        Ok((seconds, stats, grown))
    }
}

/// A program with inputs, ready to be loaded.
struct Loaded {
    program: Arc<Program>,
    machine: Machine,
    inputs: Vec<(Arc<str>, Tensor)>,
}

fn load(machine: &str, text: impl Fn(&Machine) -> Option<String>) -> Result<Loaded> {
    let defect = |message: String| Error::one(Diagnostic::new(codes::INTERNAL, Kind::Bug, message));
    let description = Machine::builtin(machine).unwrap_or_default();
    let machine = Machine::parse(description, machine)
        .map_err(|_| defect(format!("there is no machine `{machine}`")))?;
    let text = text(&machine).ok_or_else(|| {
        defect(format!(
            "`{}` lacks the cores to measure with",
            machine.name
        ))
    })?;
    let (program, _) =
        dojoc_ir::program::parse::parse(&text).map_err(|problems| Error::new(problems, None))?;
    let inputs = program.entry("main").map(|id| &program.entries[id].inputs);
    let inputs = inputs.into_iter().flatten().map(|id| {
        let decl = &program.tensors[*id];
        let shape: Vec<u64> = decl
            .shape
            .iter()
            .map(|e| e.constant.unsigned_abs())
            .collect();
        (decl.name.clone(), ramp(decl.dtype, &shape))
    });
    Ok(Loaded {
        inputs: inputs.collect(),
        program: Arc::new(program),
        machine,
    })
}

/// Values between -1 and 1.
fn ramp(dtype: DType, shape: &[u64]) -> Tensor {
    let count: u64 = shape.iter().product();
    let values = (0..count).map(|i| Scalar::from_f64((i % 97) as f64 / 48.0 - 1.0, dtype));
    Tensor::from_scalars(dtype, shape, values)
}

/// Resident memory of this process in bytes, where the system tells.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
