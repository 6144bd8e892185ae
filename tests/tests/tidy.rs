//! Rules about the sources that the compiler does not check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dojoc_compiler::pipeline;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .into()
}

const FOLDERS: [&str; 6] = ["compiler", "ir", "runtime", "tests", "examples", "grammar"];

/// All files of the project's folders with one of the endings, as (path relative to the root,
/// text).
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = vec![];
    for folder in FOLDERS {
        let walk = walkdir::WalkDir::new(root.join(folder)).sort_by_file_name();
        for entry in walk
            .into_iter()
            .filter_entry(|e| e.file_name() != "target")
            .flatten()
        {
            let name = entry.path().to_string_lossy();
            if entry.file_type().is_file() && endings.iter().any(|e| name.ends_with(e)) {
                let text = fs::read_to_string(entry.path()).expect("sources are UTF-8");
                let path = entry.path().strip_prefix(&root).expect("below the root");
                found.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    for entry in fs::read_dir(&root)
        .expect("the root can be listed")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if endings.iter().any(|e| name.ends_with(e)) {
            found.push((name, fs::read_to_string(entry.path()).expect("UTF-8")));
        }
    }
    assert!(!found.is_empty(), "no file ends in {endings:?}");
    found
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn the_top_level_has_the_fixed_folders_only() {
    let mut problems = vec![];
    for entry in fs::read_dir(root())
        .expect("the root can be listed")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_dir && !name.starts_with('.') && name != "target" && !FOLDERS.contains(&&*name) {
            problems.push(format!("{name}/ does not belong at the top level"));
        }
    }
    assert_none(problems);
}

#[test]
fn sources_are_at_most_800_lines() {
    let long = files(&[".rs", ".lalrpop"])
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 800);
    assert_none(
        long.map(|(path, lines)| format!("{path}: {lines} lines"))
            .collect(),
    );
}

/// Dependencies that a crate names in its manifest, without those for tests only.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).expect("the manifest exists");
    let mut section = String::new();
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.trim().to_owned();
        } else if section == "[dependencies]"
            && let Some((name, _)) = line.split_once(['.', '=', ' '])
        {
            names.insert(name.trim().to_owned());
        }
    }
    assert!(!names.is_empty(), "{manifest} names no dependencies");
    names
}

#[test]
fn crates_depend_downwards_only() {
    let banned: [(&str, &[&str]); 4] = [
        (
            "grammar/Cargo.toml",
            &["dojoc-ir", "dojoc-compiler", "dojoc-runtime", "dojoc"],
        ),
        (
            "ir/Cargo.toml",
            &[
                "dojoc-compiler",
                "dojoc-runtime",
                "dojoc",
                "egg",
                "petgraph",
                "clap",
                "logos",
                "lalrpop",
                "memmap2",
            ],
        ),
        (
            "compiler/Cargo.toml",
            &["dojoc-runtime", "dojoc", "clap", "logos", "lalrpop"],
        ),
        (
            "compiler/driver/Cargo.toml",
            &["egg", "petgraph", "logos", "lalrpop", "prost"],
        ),
    ];
    let mut problems = vec![];
    for (manifest, banned) in banned {
        let found = dependencies(manifest);
        problems.extend(
            banned
                .iter()
                .filter(|b| found.contains(**b))
                .map(|b| format!("{manifest} depends on {b}")),
        );
    }
    assert_none(problems);
}

/// Lines of code (not of comments) that contain one of the patterns.
fn lines_with<'a>(path: &str, text: &'a str, patterns: &[&str]) -> Vec<(String, &'a str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .filter(|(_, line)| patterns.iter().any(|p| line.contains(p)))
        .map(|(number, line)| (format!("{path}:{}", number + 1), line))
        .collect()
}

#[test]
fn the_ir_does_no_input_or_output() {
    let patterns = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::io",
        "println!",
    ];
    let sources = files(&[".rs"]);
    let found = sources
        .iter()
        .filter(|(path, _)| path.starts_with("ir/src/"))
        .flat_map(|(path, text)| lines_with(path, text, &patterns));
    assert_none(
        found
            .map(|(place, line)| format!("{place}: {}", line.trim()))
            .collect(),
    );
}

#[test]
fn egg_and_petgraph_stay_in_their_folders() {
    let homes: [(&str, &[&str]); 2] = [
        ("egg::", &["compiler/src/rewrite/"]),
        (
            "petgraph::",
            &["compiler/src/analysis/", "compiler/src/route/"],
        ),
    ];
    let mut problems = vec![];
    for (path, text) in files(&[".rs"]) {
        if path.ends_with("tests/tidy.rs") {
            continue;
        }
        for (library, allowed) in homes {
            if !allowed.iter().any(|home| path.starts_with(home)) {
                let found = lines_with(&path, &text, &[library]);
                problems.extend(
                    found
                        .into_iter()
                        .map(|(place, _)| format!("{place}: {library}")),
                );
            }
        }
    }
    assert_none(problems);
}

#[test]
fn ops_are_matched_only_where_rules_about_ops_live() {
    let allowed = ["compiler/src/import/", "compiler/src/rewrite/"];
    let mut problems = vec![];
    for (path, text) in files(&[".rs"]) {
        let checked = path.starts_with("compiler/src/") || path.starts_with("runtime/src/");
        if !checked || allowed.iter().any(|home| path.starts_with(home)) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (place, line) in lines_with(&path, code, &["Op::"]) {
            let names_an_op = line
                .split("Op::")
                .skip(1)
                .any(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
            if names_an_op && !line.contains("BinaryOp::") {
                problems.push(format!("{place}: {}", line.trim()));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn every_pass_has_a_filetest() {
    let folder = root().join("tests/filetests");
    let passes = pipeline::passes();
    let missing = passes.iter().map(|pass| pass.name).filter(|name| {
        let files = fs::read_dir(folder.join(name))
            .into_iter()
            .flatten()
            .flatten();
        !files
            .into_iter()
            .any(|f| f.path().extension().is_some_and(|e| e == "dojo"))
    });
    assert_none(
        missing
            .map(|name| format!("pass `{name}` has no filetest"))
            .collect(),
    );
}

#[test]
fn nothing_is_left_unfinished() {
    let word = |parts: [&str; 2]| parts.concat();
    let patterns = [
        word(["todo", "!("]),
        word(["unimplemented", "!("]),
        word(["#[ign", "ore"]),
        word(["#[should", "_panic"]),
        word(["FIX", "ME"]),
        word(["TO", "DO"]),
    ];
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let sources = files(&[".rs", ".lalrpop", ".md", ".toml"]);
    let found = sources.iter().flat_map(|(path, text)| {
        text.lines()
            .enumerate()
            .filter(|(_, line)| patterns.iter().any(|p| line.contains(p)))
            .map(move |(number, line)| format!("{path}:{}: {}", number + 1, line.trim()))
    });
    assert_none(found.collect());
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = vec![];
    for (path, text) in files(&[".md"]) {
        let folder = root()
            .join(&path)
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            let external = target.contains("://") || file.is_empty() || target.contains(' ');
            if !external && !folder.join(file).exists() {
                problems.push(format!("{path}: `{target}` does not exist"));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn no_path_of_one_machine_is_in_the_sources() {
    let prefixes = ["work", "root", "home", "Users"].map(|p| format!("/{p}/"));
    let mut problems = vec![];
    for (path, text) in files(&[".rs", ".md", ".toml", ".lalrpop", ".dojo", ".snap", ".txt"]) {
        for (number, line) in text.lines().enumerate() {
            if prefixes.iter().any(|p| line.contains(p.as_str())) {
                problems.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(problems);
}
