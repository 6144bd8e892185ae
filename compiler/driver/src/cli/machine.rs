//! `dojoc machine`.

use dojoc::{Result, Target};
use dojoc_compiler::io::IoError;

use super::args::{is_dash, read_stdin};
use super::{Outcome, console};

/// Arguments of `dojoc machine`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// mesh4x4, d1, tile, tray, exapod, a machine file (.toml), or -; without it, the built-in
    /// machines are listed.
    #[arg(value_name = "NAME|FILE")]
    machine: Option<String>,
}

/// The machine of a name, or of a file if it looks like a path.
pub fn load(name: &str) -> Result<Target> {
    let path = std::path::Path::new(name);
    let text = if is_dash(path) {
        String::from_utf8_lossy(&read_stdin()?).into_owned()
    } else if name.ends_with(".toml") || name.contains(['/', '\\']) {
        let bytes = std::fs::read(path).map_err(|error| IoError::reading(path, &error))?;
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        return Target::named(name);
    };
    Target::from_toml(&text, name)
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    if let Some(name) = &args.machine {
        return console::print(&load(name)?.machine().describe());
    }
    let mut text = String::new();
    for name in Target::names() {
        let target = Target::named(name)?;
        text += &format!("{name:<8}  {}\n", target.machine().summary);
    }
    console::print(&text)
}
