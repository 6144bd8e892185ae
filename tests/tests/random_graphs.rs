//! Properties that hold for every graph, on random ones.

use dojoc_compiler::pass::{Effect, Pass, PassOptions, Precision, Run, RunOptions, Validation};
use dojoc_compiler::pipeline;
use dojoc_ir::graph::{Module, eval, parse};
use dojoc_ir::level::Level as _;
use dojoc_ir::scalar::Scalar;
use dojoc_ir::tensor::Tensor;
use dojoc_tests::random_graph::{Options, random_inputs, random_module};

const SEEDS: u64 = 150;

fn evaluate(module: &Module, seed: u64) -> Result<Vec<Tensor>, String> {
    let main = module.main().ok_or("there is no function")?;
    let inputs = random_inputs(&module.functions[main], seed);
    let mut states = eval::initial_states(module).map_err(|e| e.to_string())?;
    let options = eval::Options::default();
    eval::run(module, main, &inputs, &mut states, options).map_err(|e| e.to_string())
}

fn bits(value: Scalar) -> (bool, i128) {
    match value {
        Scalar::F32(x) if x.is_nan() => (true, 0),
        Scalar::F64(x) if x.is_nan() => (true, 0),
        Scalar::F32(x) => (false, x.to_bits().into()),
        Scalar::F64(x) => (false, x.to_bits().into()),
        other => (false, other.to_int()),
    }
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    a.ty() == b.ty() && a.scalars().map(bits).eq(b.scalars().map(bits))
}

fn options(fuel: Option<u64>) -> RunOptions<'static> {
    RunOptions {
        fuel,
        passes: PassOptions {
            precision: Precision::Bf16,
            ..PassOptions::default()
        },
        ..RunOptions::default()
    }
}

fn run(passes: &[&Pass<Module>], module: &Module, options: RunOptions<'_>) -> (Module, u64) {
    let mut run = Run::new(options);
    let result = run.graph(passes.iter().copied(), module.clone());
    let result =
        result.unwrap_or_else(|e| panic!("{e}\n{module}\n{}", e.dump.as_deref().unwrap_or("")));
    (result, run.changes())
}

fn check(seed: u64) -> usize {
    let module = random_module(seed, &Options::default()).compacted();
    let text = module.to_string();
    module
        .verify()
        .unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
    let (again, _) = parse(&text).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
    assert_eq!(again, module, "seed {seed}\n{text}");

    // Some values are refused when they are known: an empty selection has no greatest element.
    let Ok(expected) = evaluate(&module, seed) else {
        return 0;
    };
    let mut changed = 0;
    for pass in pipeline::passes() {
        let (result, changes) = run(&[pass], &module, options(None));
        changed += usize::from(changes > 0);
        let printed = result.to_string();
        if changes == 0 {
            assert_eq!(printed, text, "seed {seed}: {} counts no change", pass.name);
            continue;
        }
        if pass.effect == Effect::Exact {
            let found =
                evaluate(&result, seed).unwrap_or_else(|e| panic!("{e}\n{text}\n{printed}"));
            for (position, (a, b)) in expected.iter().zip(&found).enumerate() {
                let name = pass.name;
                assert!(
                    same(a, b),
                    "seed {seed}: {name} changed output {position}\n{a:?}\n{b:?}\n{text}\n{printed}"
                );
            }
        }
        let (idle, none) = run(&[pass], &module, options(Some(0)));
        assert_eq!(
            (idle.to_string(), none),
            (text.clone(), 0),
            "seed {seed}: {}",
            pass.name
        );
        // Any number of changes is a correct module: fuel may end anywhere.
        let (_, some) = run(&[pass], &module, options(Some(changes / 2)));
        assert_eq!(some, changes / 2, "seed {seed}: {}", pass.name);
    }

    let all: Vec<&Pass<Module>> = pipeline::GRAPH.iter().map(|step| step.pass).collect();
    let validated = RunOptions {
        validate: Some(Validation {
            seed,
            ..Validation::default()
        }),
        ..options(None)
    };
    let (first, _) = run(&all, &module, validated);
    let (second, _) = run(&all, &module, options(None));
    assert_eq!(first.to_string(), second.to_string(), "seed {seed}\n{text}");
    evaluate(&first, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}\n{first}"));
    changed
}

#[test]
fn passes_keep_the_values_of_random_graphs() {
    let threads: Vec<_> = (0..2)
        .map(|half| std::thread::spawn(move || (half..SEEDS).step_by(2).map(check).sum::<usize>()))
        .collect();
    let changed: usize = threads
        .into_iter()
        .map(|t| t.join().expect("a seed failed"))
        .sum();
    assert!(
        changed > 3 * SEEDS as usize,
        "passes changed only {changed} graphs"
    );
}

#[test]
fn a_seed_gives_one_graph() {
    let options = Options::default();
    assert_eq!(
        random_module(3, &options).to_string(),
        random_module(3, &options).to_string()
    );
    assert_ne!(
        random_module(3, &options).to_string(),
        random_module(4, &options).to_string()
    );
}
