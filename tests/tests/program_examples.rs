//! The assembly of examples/programs computes what its graph says, whatever the schedule, the
//! number of threads and the instruction set of the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dojoc_ir::codes::NO_DATA;
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::graph::{self, Module, eval};
use dojoc_ir::ops::Tolerance;
use dojoc_ir::program::recipe::Sources;
use dojoc_ir::program::{Program, parse};
use dojoc_ir::tensor::Tensor;
use dojoc_runtime::instance::{Instance, LoadOptions};
use dojoc_runtime::kernels;
use dojoc_runtime::options::RunOptions;
use dojoc_tests::random_graph::random_inputs;

/// Schedules that are tried.
const SHUFFLES: u64 = 50;

/// What an example computes.
struct Example {
    /// Name of the file.
    name: &'static str,
    /// The same computation; inputs and outputs in the order of the entry `main`.
    graph: &'static str,
}

const EXAMPLES: [Example; 8] = [
    Example {
        name: "vector_add",
        graph: "func @main(%x : f32[256], %y : f32[256]) -> (%z : f32[256]) {
            %1 = add %x, %y : f32[256]
            return %1
        }",
    },
    Example {
        name: "ring_all_reduce",
        graph: "func @main(%x : f32[16, 16, 16]) -> (%y : f32[16, 16, 16]) {
            %1 = reduce %x {kind = \"sum\", axes = [0], keep = true} : f32[1, 16, 16]
            %2 = broadcast %1 {shape = [16, 16, 16]} : f32[16, 16, 16]
            return %2
        }",
    },
    Example {
        name: "mesh_gemm",
        graph: "func @main(%a : bf16[128, 128], %b : bf16[128, 128]) -> (%c : f32[128, 128]) {
            %1 = dot %a, %b {batch = [], contract = [[1, 0]], out = f32} : f32[128, 128]
            return %1
        }",
    },
    Example {
        name: "conv_strided",
        graph: "func @main(%x : bf16[4, 8, 8, 16], %w : bf16[144, 32], %b : f32[32])
                -> (%y : bf16[4, 8, 8, 32]) {
            %1 = transpose %x {perm = [0, 3, 1, 2]} : bf16[4, 16, 8, 8]
            %2 = reshape %w {shape = [3, 3, 16, 32]} : bf16[3, 3, 16, 32]
            %3 = transpose %2 {perm = [3, 2, 0, 1]} : bf16[32, 16, 3, 3]
            %4 = conv %1, %3 {stride = [1, 1], pad = [[1, 1], [1, 1]], dilation = [1, 1],
                groups = 1, out = f32} : f32[4, 32, 8, 8]
            %5 = transpose %4 {perm = [0, 2, 3, 1]} : f32[4, 8, 8, 32]
            %6 = broadcast %b {shape = [4, 8, 8, 32]} : f32[4, 8, 8, 32]
            %7 = add %5, %6 : f32[4, 8, 8, 32]
            %zero = full {dtype = f32, shape = [4, 8, 8, 32], value = 0.0} : f32[4, 8, 8, 32]
            %8 = max %7, %zero : f32[4, 8, 8, 32]
            %9 = convert %8 {to = bf16, saturate = false} : bf16[4, 8, 8, 32]
            return %9
        }",
    },
    Example {
        name: "ktree_all_reduce",
        graph: "func @main(%x : f32[16, 64]) -> (%y : f32[16, 64]) {
            %1 = reduce %x {kind = \"sum\", axes = [0], keep = true} : f32[1, 64]
            %2 = broadcast %1 {shape = [16, 64]} : f32[16, 64]
            return %2
        }",
    },
    Example {
        name: "relayed_broadcast",
        graph: "func @main(%x : f32[4, 256]) -> (%y : f32[16, 4, 256]) {
            %1 = broadcast %x {shape = [16, 4, 256]} : f32[16, 4, 256]
            return %1
        }",
    },
    Example {
        name: "softmax_beside_matmul",
        graph: "func @main(%q : bf16[8, 16, 32], %k : bf16[32, 64]) -> (%y : f32[8, 16, 64]) {
            %1 = dot %q, %k {batch = [], contract = [[2, 0]], out = f32} : f32[8, 16, 64]
            %2 = softmax %1 {axis = 2} : f32[8, 16, 64]
            return %2
        }",
    },
    Example {
        name: "counter_state",
        graph: "state @runs : i32[1] = zeros
        state @total : f32[64] = zeros
        func @main(%x : f32[64])
                -> (%mean : f32[64], %r : i32[1] aliases @runs, %t : f32[64] aliases @total) {
            %one = full {dtype = i32, shape = [1], value = 1} : i32[1]
            %1 = add @runs, %one : i32[1]
            %2 = add @total, %x : f32[64]
            %3 = convert %1 {to = f32, saturate = false} : f32[1]
            %4 = broadcast %3 {shape = [64]} : f32[64]
            %5 = div %2, %4 : f32[64]
            return %5, %1, %2
        }",
    },
];

/// Examples read no files.
struct NoFiles;

impl Sources for NoFiles {
    fn read(&self, file: &str, _offset: u64, _length: u64) -> Result<Bytes, Diagnostic> {
        Err(Diagnostic::input(NO_DATA, format!("there is no {file}")))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/programs")
}

fn text(name: &str) -> String {
    let path = folder().join(name).with_extension("dojo");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn program(name: &str) -> Program {
    match parse::parse(&text(name)) {
        Ok((program, _)) => program,
        Err(errors) => panic!("{name}: {errors}"),
    }
}

fn load(name: &str) -> Instance {
    let program = program(name);
    let machine = program.builtin_machine().expect("examples are sound");
    let loaded = Instance::load(
        Arc::new(program),
        &machine,
        &NoFiles,
        LoadOptions::default(),
    );
    loaded.unwrap_or_else(|errors| panic!("{name}: {errors}"))
}

fn module(example: &Example) -> Module {
    let text = format!(
        "dojo graph 1 module @{} {{ {} }}",
        example.name, example.graph
    );
    let (module, _) = graph::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", example.name));
    assert_eq!(graph::verify(&module), [], "{}", example.name);
    module
}

/// Outputs and states of three runs on different inputs.
type Runs = Vec<(Vec<Tensor>, Vec<Tensor>)>;

const RUNS: u64 = 3;

fn expected(module: &Module) -> Runs {
    let main = module.main().expect("examples are sound");
    let func = &module.functions[main];
    let mut states = eval::initial_states(module).expect("examples are sound");
    let run = |seed| {
        let inputs = random_inputs(func, seed);
        let options = eval::Options::default();
        let results =
            eval::run(module, main, &inputs, &mut states, options).expect("examples are sound");
        let named = results.into_iter().zip(&func.outputs);
        let outputs = named
            .filter(|(_, output)| output.aliases.is_none())
            .map(|(tensor, _)| tensor);
        (outputs.collect(), states.values().cloned().collect())
    };
    (0..RUNS).map(run).collect()
}

/// The same of the loaded program, from its first states on.
fn found(instance: &mut Instance, module: &Module, options: &RunOptions) -> Runs {
    let func = &module.functions[module.main().expect("examples are sound")];
    let program = instance.program().clone();
    let entry = program
        .entries
        .values()
        .as_slice()
        .first()
        .expect("examples are sound");
    let states: BTreeMap<Arc<str>, Tensor> = module
        .states
        .values()
        .map(|s| s.name.clone())
        .zip(
            eval::initial_states(module)
                .expect("examples are sound")
                .values()
                .cloned(),
        )
        .collect();
    for (name, value) in &states {
        instance.set_state(name, value).expect("examples are sound");
    }
    let run = |seed| {
        let names = entry
            .inputs
            .iter()
            .map(|id| program.tensors[*id].name.clone());
        let inputs: Vec<_> = names.zip(random_inputs(func, seed)).collect();
        let result = instance.run(&entry.name, &inputs, options);
        let result = result.unwrap_or_else(|errors| panic!("{}: {errors}", program.name));
        let outputs = result.outputs.into_iter().map(|(_, tensor)| tensor);
        let state = |name: &Arc<str>| {
            instance
                .state(name)
                .expect("examples are sound")
                .expect("examples are sound")
        };
        let states = module.states.values().map(|s| state(&s.name));
        (outputs.collect(), states.collect())
    };
    (0..RUNS).map(run).collect()
}

/// The tolerances of a graph's ops together.
fn tolerance(module: &Module) -> Tolerance {
    let nodes = module
        .functions
        .values()
        .flat_map(|func| func.nodes.values());
    let roundings = nodes.map(|node| match node.op.tolerance() {
        Tolerance::Exact => 0.0,
        Tolerance::Roundings(n) => n,
    });
    Tolerance::Roundings(roundings.sum())
}

fn assert_close(label: &str, found: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    assert_eq!(found.ty(), expected.ty(), "{label}");
    let values = |tensor: &Tensor| tensor.scalars().map(|s| s.to_f64()).collect::<Vec<f64>>();
    let (found, wanted) = (values(found), values(expected));
    let scale = wanted.iter().fold(0.0f64, |scale, x| scale.max(x.abs()));
    assert!(
        scale > 0.0 && scale.is_finite(),
        "{label}: nothing is computed"
    );
    let allowed = tolerance.relative(expected.dtype()) * scale;
    for (at, (x, y)) in found.iter().zip(&wanted).enumerate() {
        assert!(
            (x - y).abs() <= allowed,
            "{label}, element {at}: {x}, expected {y}"
        );
    }
}

fn check(example: &Example) {
    let module = module(example);
    let tolerance = tolerance(&module);
    let mut instance = load(example.name);
    let one = RunOptions {
        threads: 1,
        kernels: kernels::by_name("scalar").expect("examples are sound"),
        ..RunOptions::default()
    };
    let first = found(&mut instance, &module, &one);
    for (run, (found, expected)) in first.iter().zip(expected(&module)).enumerate() {
        let label = format!("{}, run {run}", example.name);
        let pairs = |(a, b): (&Vec<Tensor>, &Vec<Tensor>)| {
            assert_eq!(a.len(), b.len(), "{label}");
            for (a, b) in a.iter().zip(b) {
                assert_close(&label, a, b, tolerance);
            }
        };
        pairs((&found.0, &expected.0));
        pairs((&found.1, &expected.1));
    }
    for kernels in kernels::available() {
        for threads in [1, 2, 4] {
            let options = RunOptions {
                threads,
                kernels,
                ..RunOptions::default()
            };
            let label = format!("{}, {}, {threads} threads", example.name, kernels.name());
            assert_eq!(found(&mut instance, &module, &options), first, "{label}");
        }
    }
    for seed in 0..SHUFFLES {
        let options = RunOptions {
            threads: 1 + seed as usize % 4,
            shuffle: Some(seed),
            ..RunOptions::default()
        };
        let label = format!("{}, schedule {seed}", example.name);
        assert_eq!(found(&mut instance, &module, &options), first, "{label}");
    }
    let sanitized = RunOptions {
        sanitize: true,
        ..RunOptions::default()
    };
    let label = format!("{}, sanitized", example.name);
    assert_eq!(found(&mut instance, &module, &sanitized), first, "{label}");
}

macro_rules! examples {
    ($($name:ident)+) => {$(
        #[test]
        fn $name() {
            let example = EXAMPLES.iter().find(|e| e.name == stringify!($name));
            check(example.unwrap());
        }
    )+};
}
examples! {
    vector_add ring_all_reduce mesh_gemm conv_strided ktree_all_reduce relayed_broadcast
    softmax_beside_matmul counter_state
}

#[test]
fn every_example_is_checked_and_reads_back() {
    let mut names = vec![];
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "dojo") {
            names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    names.sort();
    let mut checked: Vec<&str> = EXAMPLES.iter().map(|e| e.name).collect();
    checked.sort_unstable();
    assert_eq!(names, checked);
    for name in names {
        let text = text(&name);
        let formatted = dojoc_grammar::format(&text).unwrap();
        let (from_formatted, _) = parse::parse(&formatted).unwrap();
        let program = program(&name);
        assert_eq!(from_formatted, program, "{name}");
        let (again, _) = parse::parse(&program.to_string()).unwrap();
        assert_eq!(again, program, "{name}");
        assert_eq!(*program.name, *name);
    }
}
