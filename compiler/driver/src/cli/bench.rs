//! `dojoc bench`.

use clap::ValueEnum;
use dojoc::bench::{self, Measurement, Options};
use serde_json::{Map, Value, json};

use super::{Context, Outcome, console};

/// Arguments of `dojoc bench`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Only measurements whose name contains this: kernel, dispatch, channels, program...
    filter: Option<String>,
    /// Worker threads; several numbers are measured one after the other.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
    /// Runs of a program of which the best counts.
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Smaller programs, for a first look.
    #[arg(long)]
    quick: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// One object per measurement.
    Json,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let options = Options {
        threads: args.threads.iter().map(|n| (*n).max(1)).collect(),
        filter: args.filter.clone(),
        runs: args.runs,
        quick: args.quick,
    };
    let mut outcome = Ok(());
    let mut print = |measurement: Measurement| {
        let line = match args.format {
            Format::Human => human(&measurement),
            Format::Json => format!("{}\n", object(&measurement)),
        };
        if outcome.is_ok() {
            outcome = console::print(&line);
        }
    };
    bench::run(&options, Some(context.cancel.clone()), &mut print)?;
    outcome
}

fn human(m: &Measurement) -> String {
    let mut line = format!(
        "{:<52} {:>2} thr {:>10.3} ms",
        m.name,
        m.threads,
        m.seconds * 1e3
    );
    if let Some(rate) = m.gflops {
        line += &format!("  {rate:7.1} GFLOP/s");
    }
    if let (Some(rate), Some(peak)) = (m.gflops, m.host_peak_gflops) {
        line += &format!(
            " = {:.0} % of the host kernel's {peak:.1}",
            100.0 * rate / peak
        );
    }
    if let Some(ns) = m.ns_per_instr {
        line += &format!("  {ns:7.1} ns/instruction");
    }
    if let Some(megabytes) = m.megabytes {
        line += &format!("  {megabytes:7.1} MB");
    }
    line + "\n"
}

fn object(m: &Measurement) -> Value {
    let figures = [
        ("seconds", Some(m.seconds)),
        ("gflops", m.gflops),
        ("host_peak_gflops", m.host_peak_gflops),
        ("ns_per_instr", m.ns_per_instr),
        ("megabytes", m.megabytes),
    ];
    let mut object = Map::new();
    object.insert("name".into(), json!(m.name));
    object.insert("threads".into(), json!(m.threads));
    for (key, figure) in figures {
        // Every object has every key.
        object.insert(key.into(), json!(figure));
    }
    Value::Object(object)
}
