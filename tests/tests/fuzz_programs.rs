//! Damaged executables and assembly texts end in a coded error or in a program that keeps every rule.

use std::fs;
use std::path::{Path, PathBuf};

use dojoc_ir::program::container::{self, Identity};
use dojoc_ir::program::{Program, parse};
use dojoc_tests::fuzz::mutate::{Random, change_bytes, change_field, change_text};
use dojoc_tests::fuzz::value::Value;
use dojoc_tests::fuzz::{self, Outcome};

fn texts_in(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let walk = walkdir::WalkDir::new(folder).sort_by_file_name();
    let files = walk.into_iter().flatten().map(|entry| entry.into_path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "dojo"))
        .map(|path| {
            (
                path.clone(),
                fs::read_to_string(path).expect("texts are UTF-8"),
            )
        })
        .collect()
}

/// Small programs that use every statement, and the examples.
fn seeds() -> Vec<(PathBuf, String)> {
    let mut seeds = texts_in("programs");
    assert!(seeds.len() >= 3);
    seeds.extend(texts_in("../examples/programs"));
    seeds
}

fn program(path: &Path, text: &str) -> Program {
    match parse::parse(text) {
        Ok((program, _)) => program,
        Err(errors) => panic!("{}: {errors}", path.display()),
    }
}

#[test]
fn seeds_are_sound() {
    for (path, text) in seeds() {
        let outcome = fuzz::asm::check(text.as_bytes());
        let program = program(&path, &text);
        let found = dojoc_ir::program::verify::verify(&program, fuzz::machine_of(&program));
        let found: Vec<_> = found
            .into_iter()
            .map(|v| v.into_diagnostic(&program, None).to_string())
            .collect();
        assert_eq!(
            outcome,
            Outcome::Sound,
            "{}: {}",
            path.display(),
            found.join("\n")
        );
        assert_eq!(
            fuzz::djx::check(&container::encode(&program)),
            Outcome::Sound
        );
    }
}

#[test]
fn trees_are_written_as_the_values_are() {
    for (path, text) in seeds() {
        let program = program(&path, &text);
        let tree = Value::of(&program).expect("the tree has all types of the data model");
        let expected = postcard::to_stdvec(&program).expect("programs can be written");
        assert_eq!(
            postcard::to_stdvec(&tree).expect("trees can be written"),
            expected
        );
    }
}

/// How often each outcome came about.
#[derive(Default, Debug)]
struct Counts {
    refused: u32,
    broken: u32,
    sound: u32,
}

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Refused => self.refused += 1,
            Outcome::Broken => self.broken += 1,
            Outcome::Sound => self.sound += 1,
        }
    }
}

/// Checks an input; on a panic the seed of the damage is in the message.
fn checked(seed: u64, path: &Path, check: fn(&[u8]) -> Outcome, input: &[u8]) -> Outcome {
    std::panic::catch_unwind(|| check(input))
        .unwrap_or_else(|_| panic!("damage {seed} of {}", path.display()))
}

#[test]
fn damaged_executables_end_in_an_error_or_a_sound_program() {
    let seeds = seeds();
    let (mut fields, mut bytes) = (Counts::default(), Counts::default());
    for seed in 0..5000u64 {
        let random = &mut Random::new(seed);
        let (path, text) = &seeds[random.below(seeds.len())];
        let program = program(path, text);
        let mut identity = Identity::of(&program);
        let written = |value: &Value| postcard::to_stdvec(value).expect("trees can be written");
        if seed % 2 == 0 {
            let mut tree = Value::of(&program).expect("the tree has all types");
            for _ in 0..=random.below(2) {
                change_field(&mut tree, random);
            }
            let section = written(&tree);
            // What can still be read gets the identity that belongs to it.
            if let Ok(changed) = postcard::from_bytes(&section) {
                identity = Identity::of(&changed);
            }
            let identity = Value::of(&identity).expect("the tree has all types");
            let file = container::seal(&[written(&identity), section]);
            fields.add(checked(seed, path, fuzz::djx::check, &file));
        } else {
            let identity = Value::of(&identity).expect("the tree has all types");
            let tree = Value::of(&program).expect("the tree has all types");
            let mut sections = [written(&identity), written(&tree)];
            change_bytes(&mut sections[usize::from(random.below(8) > 0)], random);
            bytes.add(checked(
                seed,
                path,
                fuzz::djx::check,
                &container::seal(&sections),
            ));
        }
    }
    assert!(
        fields.refused > 300 && fields.broken > 300 && fields.sound > 100,
        "{fields:?}"
    );
    assert!(
        bytes.refused > 1000 && bytes.broken + bytes.sound > 50,
        "{bytes:?}"
    );
}

#[test]
fn damaged_texts_end_in_an_error_or_a_sound_program() {
    let seeds = seeds();
    let mut counts = Counts::default();
    for seed in 0..2000u64 {
        let random = &mut Random::new(1 << 40 | seed);
        let (path, text) = &seeds[random.below(seeds.len())];
        let mut damaged = change_text(text, random);
        if random.below(4) == 0
            && let Ok(text) = std::str::from_utf8(&damaged)
        {
            damaged = change_text(text, random);
        }
        counts.add(checked(seed, path, fuzz::asm::check, &damaged));
    }
    assert!(
        counts.refused > 500 && counts.broken + counts.sound > 200,
        "{counts:?}"
    );
}
