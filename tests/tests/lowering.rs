//! Models taken through all levels: GRAPH, TILED, MESH and PROGRAM give the same values. A random
//! graph that fails is reduced before it is printed. `DOJOC_RANDOM_MODELS=5000` asks for more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use dojoc::program::{Executable, LoadOptions, RunOptions};
use dojoc::{
    CompileOptions, CompiledProgram, Compiler, Error, Evaluator, Module, NamedTensor, Source,
    Target,
};
use dojoc_compiler::io::npz::read_npz;
use dojoc_ir::dim::Dim;
use dojoc_ir::level::Level as _;
use dojoc_ir::ops::{Op, Unary};
use dojoc_ir::scalar::UnaryFn;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::{graph, mesh, tiled};
use dojoc_tests::random_graph::{Options, random_inputs, random_module};
use dojoc_tests::reduce::reduce;

/// Random graphs of one run; `DOJOC_RANDOM_MODELS` asks for more.
fn seeds() -> u64 {
    let asked = std::env::var("DOJOC_RANDOM_MODELS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(200)
}

/// The largest difference relative to the largest magnitude; infinite where one is not a number and
/// the other is.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.ty(), b.ty());
    let (a, b) = (a.to_f64s(), b.to_f64s());
    let finite = a.iter().filter(|x| x.is_finite());
    let scale = finite.fold(1e-30, |m: f64, x| m.max(x.abs()));
    let differ = |(x, y): (&f64, &f64)| match (x.is_finite(), y.is_finite()) {
        (true, true) => (x - y).abs() / scale,
        _ if x.is_nan() == y.is_nan() && (x.is_nan() || x == y) => 0.0,
        _ => f64::INFINITY,
    };
    a.iter().zip(&b).map(differ).fold(0.0, f64::max)
}

/// How a graph failed.
struct Failure {
    /// At what; reductions keep to it.
    at: &'static str,
    text: String,
}

impl Failure {
    fn new(at: &'static str, text: impl std::fmt::Display) -> Self {
        let text = text.to_string();
        Self { at, text }
    }
}

fn tiled_outputs(module: &tiled::Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
    let text = module.to_string();
    let with = |at, e: &dyn std::fmt::Display| Failure::new(at, format!("{e}\n{text}"));
    module.verify().map_err(|e| with("TILED verifies", &e))?;
    let back = tiled::Module::parse(&text).map_err(|e| with("TILED reads back", &e))?;
    if back.to_string() != text {
        return Err(with("TILED reads back", &"another text"));
    }
    let mut states = tiled::eval::initial_states(module).map_err(|e| with("TILED runs", &e))?;
    let func = module.functions.ids().next();
    let func = func.ok_or_else(|| with("TILED runs", &"no function"))?;
    let options = tiled::eval::Options::default();
    tiled::eval::run(module, func, inputs, &mut states, options).map_err(|e| with("TILED runs", &e))
}

fn mesh_outputs(module: &mesh::Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
    let text = module.to_string();
    let with = |at, e: &dyn std::fmt::Display| Failure::new(at, format!("{e}\n{text}"));
    let back = mesh::Module::parse(&text).map_err(|e| with("MESH reads back", &e))?;
    // Numbers of values follow the text, so what was read is the same again.
    if back.to_string() != text || mesh::Module::parse(&text) != Ok(back) {
        return Err(with("MESH reads back", &"another text"));
    }
    let tiled = &module.tiled;
    let mut states = tiled::eval::initial_states(tiled).map_err(|e| with("MESH runs", &e))?;
    let func = tiled.functions.ids().next();
    let func = func.ok_or_else(|| with("MESH runs", &"no function"))?;
    let options = tiled::eval::Options::default();
    mesh::eval::run(module, func, inputs, &mut states, options).map_err(|e| with("MESH runs", &e))
}

fn program_outputs(
    compiled: &CompiledProgram,
    inputs: &[Tensor],
    threads: usize,
    sanitize: bool,
) -> Result<Vec<Tensor>, Error> {
    let load = LoadOptions {
        sanitize,
        ..LoadOptions::default()
    };
    let mut instance = compiled.executable.load(&compiled.target, load)?;
    let signature = compiled.executable.signature(None, &[])?;
    let named: Vec<_> = (signature.inputs.iter().zip(inputs))
        .map(|(port, tensor)| (port.name.clone(), tensor.clone()))
        .collect();
    let options = RunOptions {
        threads,
        sanitize,
        ..RunOptions::default()
    };
    let run = instance.run(&signature.name, &named, &options)?;
    Ok(run.outputs.into_iter().map(|(_, tensor)| tensor).collect())
}

/// The file of a program that was written as text and read again.
fn reassembled(executable: &Executable) -> Vec<u8> {
    let text = executable.disassemble();
    let again = Executable::assemble(&text, "again.dojo");
    again.unwrap_or_else(|e| panic!("{e}\n{text}")).encode()
}

/// How a graph fared.
#[derive(Debug, PartialEq)]
enum Fared {
    Agreed,
    /// Why.
    Unsupported(String),
    /// The reference interpreter does not run it on these values.
    NoValues,
}

/// A random graph: every third has a state, half of them larger extents, and a few what the compiler
/// refuses: control flow and random bits.
fn random_graph(seed: u64) -> graph::Module {
    let options = Options {
        regions: seed % 16 == 1,
        random_bits: seed % 16 == 3,
        states: seed % 3 == 1,
        updates: false,
        symbols: false,
        extents: seed.is_multiple_of(2),
        ..Options::default()
    };
    random_module(seed, &options).compacted()
}

fn machine(seed: u64) -> &'static str {
    match seed.is_multiple_of(3) {
        true => "d1",
        false => "mesh4x4",
    }
}

/// Takes a graph through all levels. `fault` may spoil the TILED module before it is run.
fn check(
    graph: &graph::Module,
    seed: u64,
    fault: &dyn Fn(&mut tiled::Module),
) -> Result<Fared, Failure> {
    let Some(main) = graph.main() else {
        return Ok(Fared::NoValues);
    };
    let inputs = random_inputs(&graph.functions[main], seed);
    let module = Module::from(graph.clone());
    let target = Target::named(machine(seed)).map_err(|e| Failure::new("the machine", e))?;
    let compiler = Compiler::new(&CompileOptions::default()).target(&target);
    let compile = || match compiler.compile(&module) {
        Err(Error::Unsupported(why)) => Ok(Err(why)),
        other => other.map(Ok).map_err(|e| Failure::new("compilation", e)),
    };
    let compiled = match compile()? {
        Ok(compiled) => compiled,
        Err(why) => return Ok(Fared::Unsupported(why.to_string())),
    };
    let twice = compile()?.map(|again| again.executable.encode());
    if twice.ok() != Some(compiled.executable.encode()) {
        return Err(Failure::new("compiling twice", "the bytes differ"));
    }
    if reassembled(&compiled.executable) != compiled.executable.encode() {
        return Err(Failure::new("text and binary", "the bytes differ"));
    }
    let evaluate = |module: &Module| {
        let run = Evaluator::new(module, None).ok()?.run_in_order(&inputs);
        let outputs = run.ok()?.outputs.0.into_iter();
        Some(outputs.map(|(_, t)| t).collect::<Vec<_>>())
    };
    let Some(wanted) = evaluate(&compiled.graph) else {
        return Ok(Fared::NoValues);
    };
    let mut module = compiled.tiled.clone();
    fault(&mut module);
    let tiled = tiled_outputs(&module, &inputs)?;
    let mesh = mesh_outputs(&compiled.mesh, &inputs)?;
    let program = |threads, sanitize| {
        let outputs = program_outputs(&compiled, &inputs, threads, sanitize);
        outputs.map_err(|e| Failure::new("PROGRAM runs", e))
    };
    let one = program(1, false)?;
    for other in [program(2, seed.is_multiple_of(4))?, program(4, false)?] {
        if other != one {
            return Err(Failure::new("threads", "the bits depend on threads"));
        }
    }
    for (n, reference) in wanted.iter().enumerate() {
        let levels = [
            ("TILED", &tiled[n]),
            ("MESH", &mesh[n]),
            ("PROGRAM", &one[n]),
        ];
        for (level, found) in levels {
            let far = distance(reference, found);
            if far > 1e-4 {
                let text = format!("output {n} at {level} is {far:e} from GRAPH");
                return Err(Failure::new(level, text));
            }
        }
        if distance(&tiled[n], &mesh[n]) != 0.0 {
            return Err(Failure::new("MESH", "steps give other bits than at TILED"));
        }
    }
    Ok(Fared::Agreed)
}

/// As [`check`]; a failure is described with the smallest graph that still fails in the same way.
fn examine(
    graph: &graph::Module,
    seed: u64,
    fault: &dyn Fn(&mut tiled::Module),
) -> Result<Fared, String> {
    let check = |graph: &graph::Module| {
        let checked = catch_unwind(AssertUnwindSafe(|| check(graph, seed, fault)));
        checked.unwrap_or_else(|_| Err(Failure::new("all levels", "panicked")))
    };
    check(graph).map_err(|failure| {
        let same = |graph: &graph::Module| matches!(check(graph), Err(f) if f.at == failure.at);
        let small = reduce(graph, &mut { same });
        let text = check(&small).err().map_or(failure.text, |f| f.text);
        let (at, machine) = (failure.at, machine(seed));
        format!("seed {seed} on {machine}, at {at}: {text}\nreduced to\n{small}")
    })
}

/// What is special about a graph.
fn features(graph: &graph::Module) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut note = |name, is: bool| {
        if is {
            found.insert(name);
        }
    };
    for func in graph.functions.values() {
        note("a state", !graph.states.is_empty());
        for node in func.walk() {
            let node = &func.nodes[node];
            note("control flow", !node.regions.is_empty());
            let shapes = node.args.iter().map(|v| &func.ty(*v).shape);
            let shapes: BTreeSet<Vec<u64>> = shapes.filter_map(|s| s.as_const()).collect();
            let one_result = node.results.len() == 1;
            note("operands that broadcast", one_result && shapes.len() > 1);
        }
        for value in func.values.values() {
            let dims: Vec<u64> = value.ty.dims().iter().filter_map(Dim::as_const).collect();
            note("an extent of 1", dims.contains(&1));
            note("no elements", dims.contains(&0));
            note("a scalar", dims.is_empty());
            let uneven = |e: &u64| *e > 16 && !e.is_multiple_of(4);
            note("an extent that no grid divides", dims.iter().any(uneven));
            note(value.ty.dtype.name(), true);
        }
    }
    found
}

#[test]
fn random_graphs_agree_at_all_levels() {
    let mut agreed = 0;
    let mut unsupported: Vec<String> = vec![];
    let mut failures = vec![];
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..seeds() {
        let graph = random_graph(seed);
        match examine(&graph, seed, &|_| {}) {
            Ok(Fared::Agreed) => {
                agreed += 1;
                for feature in features(&graph) {
                    *seen.entry(feature).or_default() += 1;
                }
            }
            Ok(Fared::Unsupported(why)) => unsupported.push(why),
            Ok(Fared::NoValues) => {}
            Err(cause) => failures.push(cause),
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(
        agreed > unsupported.len(),
        "{agreed} agreed, {} are unsupported:\n{}",
        unsupported.len(),
        unsupported.join("\n")
    );
    for feature in [
        "a scalar",
        "a state",
        "an extent of 1",
        "an extent that no grid divides",
        "no elements",
        "operands that broadcast",
        "bf16",
        "bool",
        "f16",
        "f32",
        "i32",
        "i64",
        "u8",
    ] {
        let count = seen.get(feature).copied().unwrap_or(0);
        assert!(count >= 5, "{feature} in {count} of {agreed}: {seen:?}");
    }
}

/// A compiler with a fault is found out, and the graph that shows it is small.
#[test]
fn a_graph_that_fails_is_reduced() {
    let fault = |module: &mut tiled::Module| {
        for (_, function) in module.functions.iter_mut() {
            for (_, body) in function.bodies.iter_mut() {
                for stmt in &mut body.stmts {
                    let tiled::Stmt::Group(group) = stmt else {
                        continue;
                    };
                    for step in group.steps.iter_mut().filter(|s| s.op.name() == "sin") {
                        step.op = Op::from(Unary(UnaryFn::Cos));
                    }
                }
            }
        }
    };
    let found = (0..200).find_map(|seed| {
        let graph = random_graph(seed);
        let cause = examine(&graph, seed, &fault).err()?;
        // The compiler itself is right.
        assert_eq!(examine(&graph, seed, &|_| {}), Ok(Fared::Agreed));
        Some((graph, cause))
    });
    let (graph, cause) = found.unwrap_or_else(|| panic!("the fault was not found"));
    assert!(graph.to_string().lines().count() > 20, "{graph}");
    assert!(cause.contains("at TILED: output 0 at TILED is"), "{cause}");
    let nodes = cause.lines().filter(|line| line.contains(" = "));
    assert_eq!(nodes.count(), 1, "{cause}");
    assert!(cause.contains(" = sin %"), "{cause}");
}

/// The example, on real images: the same bytes whenever it is compiled, the same bits for any number of
/// threads.
#[test]
fn the_example_is_the_same_every_time() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits");
    let arrays = read_npz(folder.join("heldout.npz")).expect("it can be read");
    let images = arrays.iter().find(|(name, _)| name == "x");
    let images = images.expect("there are images").1.to_tensor();
    let images = images.expect("they are floats");
    let options = CompileOptions::default();
    let given = [NamedTensor {
        name: None,
        tensor: images.clone(),
    }];
    let path = folder.join("model.onnx");
    let compile = || {
        let module = Module::read(Source::Path(&path), &options, &given).expect("it imports");
        let compiled = Compiler::new(&options).compile(&module);
        compiled.expect("it compiles")
    };
    let (first, second) = (compile(), compile());
    assert_eq!(first.executable.encode(), second.executable.encode());
    assert_eq!(first.executable.encode(), reassembled(&first.executable));
    let run = |threads| {
        let inputs = std::slice::from_ref(&images);
        program_outputs(&first, inputs, threads, false).expect("it runs")
    };
    let one = run(1);
    assert_eq!(one[0].shape(), [360, 10]);
    assert!(run(2) == one && run(4) == one, "the bits depend on threads");
}
