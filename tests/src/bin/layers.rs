//! What of a compilation grows with the layers: `layers [WIDTH]` compiles dense nets of 10 and 50 equal
//! layers and transformers of 4 and 24, of 256 or so many features, for one D1 chip, and prints segments
//! and the best seconds of five by stage.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use dojoc::{CompileOptions, Compiler, Module, Source, Target};
use dojoc_ir::graph;
use dojoc_tests::layers::{dense, transformer};

/// As in the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A model of so many layers of such a width.
type Make = fn(usize, u64) -> Result<graph::Module, String>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let width = match std::env::args().nth(1) {
        Some(width) => width.parse()?,
        None => 256,
    };
    let models: [(&str, Make, [usize; 2]); 2] = [
        ("dense", dense, [10, 50]),
        ("transformer", transformer, [4, 24]),
    ];
    for (name, make, counts) in models {
        let mut times = vec![];
        for count in counts {
            let (segments, seconds, stages) = measure(&make(count, width)?)?;
            write!(
                out,
                "{name}, {count} layers: {segments} segments, {seconds:.3} s:"
            )?;
            for (stage, seconds) in stages {
                write!(out, " {stage} {seconds:.3}")?;
            }
            writeln!(out)?;
            times.push(seconds);
        }
        writeln!(out, "{name}: {:.2} times as long", times[1] / times[0])?;
    }
    Ok(())
}

/// Segments, seconds, and seconds by stage.
type Measured = (usize, f64, Vec<(&'static str, f64)>);

fn measure(model: &graph::Module) -> Result<Measured, Box<dyn Error>> {
    let options = CompileOptions::default();
    let source = Source::Bytes("layers.dojo", model.to_string().into());
    let module = Module::read(source, &options, &[])?;
    let target = Target::named("d1")?;
    let mut best = (0, f64::INFINITY, vec![]);
    for _ in 0..5 {
        let start = Instant::now();
        let program = Compiler::new(&options).target(&target).compile(&module)?;
        let seconds = start.elapsed().as_secs_f64();
        if seconds < best.1 {
            let segments = program.executable.program().segments.len();
            best = (segments, seconds, program.seconds);
        }
    }
    Ok(best)
}
