//! Runs ONNX-style cases with the `dojoc` beside this program and compares what became of each with
//! the lists in `tests/conformance/`: `conformance DIR...`. The list of a folder has its name; an
//! `index.json` in the folder gives the cases' categories. `DOJOC_BLESS=1` writes the lists.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

fn main() -> ExitCode {
    let dirs: Vec<String> = std::env::args().skip(1).collect();
    if dirs.is_empty() {
        eprint("usage: conformance DIR...");
        return ExitCode::from(2);
    }
    let mut code = ExitCode::SUCCESS;
    for dir in dirs {
        match run(Path::new(&dir)) {
            Ok(true) => {}
            Ok(false) => code = ExitCode::FAILURE,
            Err(error) => {
                eprint(&format!("conformance: {dir}: {error}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

#[expect(clippy::print_stderr, reason = "this is a command")]
fn eprint(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "this is a command")]
fn print(text: &str) {
    println!("{text}");
}

/// What became of a case: its status and, unless it passed, its code.
type Results = BTreeMap<String, String>;

fn run(dir: &Path) -> Result<bool, Box<dyn Error>> {
    let results = run_cases(dir)?;
    let name = dir
        .canonicalize()?
        .file_name()
        .map(|n| n.to_string_lossy().into_owned());
    let list = format!("conformance/{}.txt", name.unwrap_or_default());
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join(list);
    let text: String = results
        .iter()
        .map(|(case, result)| format!("{case} {result}\n"))
        .collect();
    if std::env::var_os("DOJOC_BLESS").is_some() {
        fs::write(&list, &text)?;
    }
    let expected = fs::read_to_string(&list).unwrap_or_default();
    let mut same = true;
    let expected: Results = expected
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(case, result)| (case.to_owned(), result.to_owned()))
        .collect();
    for (case, result) in &results {
        match expected.get(case) {
            Some(before) if before == result => {}
            Some(before) => {
                same = false;
                print(&format!("{case}: {result}, the list says {before}"));
            }
            None => {
                same = false;
                print(&format!("{case}: {result}, not in the list"));
            }
        }
    }
    for case in expected.keys().filter(|case| !results.contains_key(*case)) {
        same = false;
        print(&format!("{case}: in the list, but did not run"));
    }
    summarise(dir, &results)?;
    if !same {
        print(
            "the results differ from the list in tests/conformance; DOJOC_BLESS=1 writes it anew",
        );
    }
    Ok(same)
}

fn run_cases(dir: &Path) -> Result<Results, Box<dyn Error>> {
    let dojoc = std::env::current_exe()?.with_file_name("dojoc");
    let mut command = Command::new(&dojoc);
    command
        .args(["test", "--level", "graph", "--format", "json"])
        .arg(dir);
    let output = command
        .output()
        .map_err(|e| format!("{}: {e}", dojoc.display()))?;
    let mut results = Results::new();
    let folder = dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let prefix = format!("{}/", folder.unwrap_or_default());
    for line in String::from_utf8(output.stdout)?.lines() {
        let Ok(object) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let case = text("case");
        if case.is_empty() {
            continue;
        }
        let case = case.strip_prefix(&prefix).unwrap_or(case);
        let result = format!("{} {}", text("status"), text("code"));
        results.insert(case.to_owned(), result.trim().to_owned());
    }
    if results.is_empty() {
        return Err(format!("no case ran: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(results)
}

fn summarise(dir: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    let index: PathBuf = dir.join("index.json");
    let index: BTreeMap<String, Value> = match fs::read_to_string(index) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => BTreeMap::new(),
    };
    let mut by_category = BTreeMap::<String, [usize; 3]>::new();
    for (case, result) in results {
        let entry = index.get(case);
        let category = entry.and_then(|e| e.get("cat")).and_then(Value::as_str);
        let category = category.unwrap_or("cases");
        let low_bit = entry
            .and_then(|e| e.get("low_bit"))
            .and_then(Value::as_bool)
            == Some(true);
        let name = if low_bit {
            format!("{category}, low-bit")
        } else {
            category.to_owned()
        };
        let column = match result.split(' ').next() {
            Some("passed") => 0,
            Some("failed") => 1,
            _ => 2,
        };
        by_category.entry(name).or_default()[column] += 1;
    }
    let mut totals = [0; 3];
    for (category, counts) in &by_category {
        let all: usize = counts.iter().sum();
        let share = 100.0 * counts[0] as f64 / all as f64;
        let [passed, failed, unsupported] = counts;
        print(&format!(
            "{category}: {passed} of {all} passed ({share:.1} %), {failed} failed, \
             {unsupported} unsupported"
        ));
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
    }
    let [passed, failed, unsupported] = totals;
    print(&format!(
        "{passed} passed, {failed} failed, {unsupported} unsupported"
    ));
    Ok(())
}
