//! Models taken through all levels: GRAPH, TILED and PROGRAM give the same values.

use dojoc::program::{LoadOptions, RunOptions};
use dojoc::{CompileOptions, CompiledProgram, Compiler, Error, Evaluator, Module, Target};
use dojoc_ir::graph;
use dojoc_ir::level::Level as _;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::tiled;
use dojoc_tests::random_graph::{Options, random_inputs, random_module};

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

fn tiled_outputs(compiled: &CompiledProgram, inputs: &[Tensor]) -> Vec<Tensor> {
    let module = &compiled.tiled;
    module.verify().unwrap_or_else(|e| panic!("{e}\n{module}"));
    let text = module.to_string();
    let back = tiled::Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(back.to_string(), text);
    let mut states = tiled::eval::initial_states(module).unwrap_or_else(|e| panic!("{e:?}"));
    let func = module.functions.ids().next();
    let func = func.unwrap_or_else(|| panic!("no function"));
    tiled::eval::run(
        module,
        func,
        inputs,
        &mut states,
        tiled::eval::Options::default(),
    )
    .unwrap_or_else(|e| panic!("{e:?}\n{text}"))
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

/// How a graph fared.
enum Fared {
    Agreed,
    Unsupported,
    /// The reference interpreter does not run it on these values.
    NoValues,
}

fn check(seed: u64, machine: &str) -> Result<Fared, String> {
    let options = Options {
        regions: false,
        states: false,
        symbols: false,
        ..Options::default()
    };
    let graph = random_module(seed, &options).compacted();
    check_graph(&graph, seed, machine)
}

fn check_graph(graph: &graph::Module, seed: u64, machine: &str) -> Result<Fared, String> {
    let Some(main) = graph.main() else {
        return Ok(Fared::NoValues);
    };
    let inputs = random_inputs(&graph.functions[main], seed);
    let module = Module::from(graph.clone());
    let target = Target::named(machine).map_err(|e| e.to_string())?;
    let compiler = Compiler::new(&CompileOptions::default()).target(&target);
    let compiled = match compiler.compile(&module) {
        Ok(compiled) => compiled,
        Err(Error::Unsupported(_)) => return Ok(Fared::Unsupported),
        Err(error) => return Err(format!("{error}\n{graph}")),
    };
    let evaluate = |module: &Module| {
        let mut evaluator = Evaluator::new(module, None).ok()?;
        let run = evaluator.run_in_order(&inputs).ok()?;
        Some(
            run.outputs
                .0
                .into_iter()
                .map(|(_, t)| t)
                .collect::<Vec<_>>(),
        )
    };
    let Some(wanted) = evaluate(&compiled.graph) else {
        return Ok(Fared::NoValues);
    };
    let tiled = tiled_outputs(&compiled, &inputs);
    let sanitize = seed.is_multiple_of(4);
    let program =
        program_outputs(&compiled, &inputs, 2, sanitize).map_err(|e| format!("run: {e}"))?;
    let one = program_outputs(&compiled, &inputs, 1, false).map_err(|e| format!("run: {e}"))?;
    for (n, reference) in wanted.iter().enumerate() {
        if distance(&one[n], &program[n]) != 0.0 {
            return Err(format!("output {n} depends on threads"));
        }
        for (level, found) in [("TILED", &tiled[n]), ("PROGRAM", &program[n])] {
            let far = distance(reference, found);
            if far > 1e-4 {
                let text = &compiled.graph.print();
                return Err(format!(
                    "output {n} at {level} is {far:e} from GRAPH\n{text}"
                ));
            }
        }
    }
    Ok(Fared::Agreed)
}

#[test]
fn random_graphs_agree_at_all_levels() {
    let (mut agreed, mut unsupported) = (0, 0);
    let mut failures = vec![];
    for seed in 0..seeds() {
        let machine = if seed.is_multiple_of(3) {
            "d1"
        } else {
            "mesh4x4"
        };
        let fared = std::panic::catch_unwind(|| check(seed, machine));
        match fared.unwrap_or_else(|_| Err("panicked".into())) {
            Ok(Fared::Agreed) => agreed += 1,
            Ok(Fared::Unsupported) => unsupported += 1,
            Ok(Fared::NoValues) => {}
            Err(cause) => failures.push(format!("seed {seed} on {machine}: {cause}")),
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(
        agreed * 2 > unsupported,
        "{agreed} agreed, {unsupported} are unsupported"
    );
}
