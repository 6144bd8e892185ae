//! Runs every file below `filetests`; see `dojoc_tests::filetest`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use dojoc_compiler::pipeline;
use dojoc_tests::filetest;
use libtest_mimic::{Arguments, Failed, Trial};

fn name_of(path: &Path) -> String {
    let relative = path.strip_prefix(filetest::root()).unwrap_or(path);
    relative.with_extension("").display().to_string()
}

/// Outputs without an input are removed by blessing, and are failures otherwise.
fn orphans() -> Result<(), Failed> {
    let mut orphans = vec![];
    for snap in filetest::files("snap")? {
        if snap.with_extension("dojo").exists() {
            continue;
        }
        if filetest::blessing() {
            fs::remove_file(&snap)?;
        } else {
            orphans.push(name_of(&snap));
        }
    }
    match orphans.is_empty() {
        true => Ok(()),
        false => Err(format!("outputs without an input: {}", orphans.join(", ")).into()),
    }
}

/// A folder is named after its command or pass.
fn folders() -> Result<(), Failed> {
    for path in filetest::files("dojo")? {
        let name = name_of(&path);
        let folder = name.split('/').next().unwrap_or_default();
        let text = fs::read_to_string(&path)?;
        let first = text.lines().next().unwrap_or_default();
        let fits = match folder {
            "parse" | "verify" => first == format!("// {folder}"),
            "lower" => first.starts_with("// lower --machine "),
            "pipeline" => first.starts_with("// opt --pass all"),
            pass => pipeline::find(pass).is_some() && first.contains(&format!("--pass {pass}")),
        };
        if !fits {
            return Err(format!("{name} has the command `{first}`").into());
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("no_orphans", orphans),
        Trial::test("folders_fit_commands", folders),
    ];
    match filetest::files("dojo") {
        Ok(files) => trials.extend(files.into_iter().map(|path| {
            Trial::test(name_of(&path), move || {
                filetest::check(&path).map_err(Failed::from)
            })
        })),
        Err(error) => trials.push(Trial::test("files", move || Err(error.into()))),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
