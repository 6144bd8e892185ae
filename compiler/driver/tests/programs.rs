//! The commands about programs: asm, dis, run, check.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use dojoc::Tensor;
use dojoc::tensor::{from_raw, to_raw};
use dojoc_compiler::io::npy::{read_npy, write_npy};
use dojoc_compiler::io::npz::{read_npz, write_npz};
use support::{Lab, command};

/// Adds `x * w` to a state that four cores hold in parts, and shows the product as a probe.
const SCALE: &str = r#"dojo program 1

program @scale {machine = "mesh4x4", dims = {n = 8}} {
  cores @four = [box(0, 0, [0, 4])]
  input @x : f32[4, n] = [{on = @four, at = 0, slice = [[i, 1], [0, n]], strides = [32, 4]}]
  weight @w : f32[4, 8] = [{on = @four, at = 64, slice = [[i, 1], [0, 8]]}] {data = file("w.bin", 0, f32[4, 8])}
  state @sum : f32[4, 8] = [{on = @four, at = 128, slice = [[i, 1], [0, 8]]}] {init = zeros}
  probe @product : f32[4, n] = [{on = @four, at = 192, slice = [[i, 1], [0, n]], strides = [32, 4]}]
  output @y : f32[4, n] = [{on = @four, at = 256, slice = [[i, 1], [0, n]], strides = [32, 4]}]

  segment @scale() {
    %x = buffer {at = 0, role = "in"} : f32[8]
    %w = buffer {at = 64, role = "in"} : f32[8]
    %sum = buffer {at = 128, role = "inout"} : f32[8]
    %product = buffer {at = 192, role = "out"} : f32[8]
    %y = buffer {at = 256, role = "out"} : f32[8]
    vector (
      { ^()
        %xn = view %x {strides = [4]} : f32[n]
        %wn = view %w {strides = [4]} : f32[n]
        %sn = view %sum {strides = [4]} : f32[n]
        %pn = view %product {strides = [4]} : f32[n]
        %yn = view %y {strides = [4]} : f32[n]
        mul %pn, %xn, %wn
        add %sn, %sn, %pn
        copy %yn, %sn
      }
    )
  }

  entry @main() {inputs = [@x], outputs = [@y]} {
    call @scale {on = @four, row = []}
    probe @product
  }
}
"#;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("scale.dojo", SCALE);
    let w: Vec<u8> = (0..32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    lab.write("w.bin", w);
    npy(&lab, "x.npy", &ones(8));
    lab
}

fn ones(n: u64) -> Tensor {
    Tensor::from_vec(&[4, n], vec![1f32; 4 * n as usize])
}

#[expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its folder has failed"
)]
fn npy(lab: &Lab, name: &str, tensor: &Tensor) {
    write_npy(lab.path(name), &to_raw("x", tensor).unwrap()).unwrap();
}

/// The numbers from 0 to 31 times a factor.
fn counted(factor: f32) -> Tensor {
    Tensor::from_vec(&[4, 8], (0..32).map(|i| i as f32 * factor).collect())
}

#[test]
fn a_program_is_assembled_shown_and_run() {
    let lab = lab();
    assert_eq!(lab.run(&["asm", "scale.dojo"]).ok(), "");
    assert_eq!(lab.names(), ["scale.djx", "scale.dojo", "w.bin", "x.npy"]);
    assert_eq!(lab.run(&["dis", "scale.djx"]).ok(), SCALE);
    lab.run(&["dis", "scale.djx", "-o", "again.dojo"]).ok();
    assert_eq!(lab.read("again.dojo"), SCALE);
    let out = lab.run(&[
        "run",
        "scale.djx",
        "-i",
        "x.npy",
        "--probe",
        "product",
        "-o",
        "out",
    ]);
    insta::assert_snapshot!(out.ok(), @r"
    y        f32[4, 8]  min 0  max 31  mean 15.5
    product  f32[4, 8]  min 0  max 31  mean 15.5
    ");
    let y = from_raw(&read_npy(lab.path("out/y.npy")).unwrap());
    assert_eq!(y, counted(1.0));
    let text = lab.run(&["run", "scale.dojo", "-i", "x=x.npy", "--sanitize"]);
    insta::assert_snapshot!(text.ok(), @"y  f32[4, 8]  min 0  max 31  mean 15.5");
    lab.run(&[
        "asm",
        "scale.dojo",
        "-o",
        "named.djx",
        "--machine",
        "mesh4x4",
    ])
    .ok();
    let bytes = |name: &str| std::fs::read(lab.path(name)).unwrap();
    assert_eq!(bytes("named.djx"), bytes("scale.djx"));
}

#[test]
fn states_go_from_run_to_run_and_through_files() {
    let lab = lab();
    let run = |more: &[&str]| {
        let args = [&["run", "scale.dojo", "-i", "x.npy", "-o", "y.npz"], more].concat();
        lab.run(&args).ok();
        let y = read_npz(lab.path("y.npz")).unwrap();
        from_raw(&y.first().unwrap().1)
    };
    assert_eq!(
        run(&["--repeat", "3", "--state-out", "s.npz"]),
        counted(3.0)
    );
    let state = read_npz(lab.path("s.npz")).unwrap();
    let (name, state) = state.first().unwrap();
    assert_eq!((name.as_str(), from_raw(state)), ("sum", counted(3.0)));
    assert_eq!(
        run(&["--state-in", "s.npz", "--threads", "1"]),
        counted(4.0)
    );
    assert_eq!(
        run(&["--state-in", "s.npz", "--kernels", "scalar"]),
        counted(4.0)
    );
    let raw = [("other".to_owned(), to_raw("other", &ones(8)).unwrap())];
    write_npz(lab.path("t.npz"), &raw).unwrap();
    let err = lab.run(&["run", "scale.dojo", "-i", "x.npy", "--state-in", "t.npz"]);
    assert!(err.fails(1).contains("no state `other`"));
}

#[test]
fn a_file_of_states_says_what_they_are() {
    let lab = lab();
    let run = |file: &str| lab.run(&["run", "scale.dojo", "-i", "x.npy", "--state-in", file]);
    insta::assert_snapshot!(run("x.npy").fails(1), @"
    error[D0961]: x.npy: an array without the name of a state
      help: --state-in takes an .npz archive with one array per state
    ");
    write_npz(lab.path("none.npz"), &[]).unwrap();
    let ran = run("none.npz");
    insta::assert_snapshot!(ran.err, @"warning[D0961]: none.npz has no state `sum`, which keeps its first value");
    assert_eq!(ran.code, 0);
}

/// What a program has no use for is refused, not ignored.
#[test]
fn options_of_the_compiler_are_not_for_programs() {
    let lab = lab();
    lab.run(&["asm", "scale.dojo"]).ok();
    for more in [
        &["--weights", "w.npz"][..],
        &["--precision", "bf16"],
        &["--keep-precision", "x"],
        &["--chips", "1"],
        &["--plan", "p.toml"],
        &["--validate"],
        &["--skip-pass", "saturate"],
        &["--fuel", "3"],
        &["--dump-after", "all"],
        &["--bound", "x=3"],
        &["--shape", "x=4x8"],
        &["--dim", "n<=4"],
    ] {
        for program in ["scale.djx", "scale.dojo"] {
            let args = ["run", program, "-i", "x.npy"];
            let err = lab.run(&[&args, more].concat()).fails(1);
            let message = format!("D0960]: {}", more[0]);
            assert!(err.contains(&message), "{err}");
        }
    }
    let both = ["run", "scale.djx", "--chips", "1", "--weights", "w.npz"];
    insta::assert_snapshot!(lab.run(&both).fails(1), @"
    error[D0960]: --weights is for a model that is compiled; scale.djx is a program
      help: give it to `dojoc compile`, and the model, and run what that writes
    error[D0960]: --chips is for a model that is compiled; scale.djx is a program
      help: give it to `dojoc compile`, and the model, and run what that writes
    ");
}

/// `run`, `check` and `dis` say the same of a file that is called .djx.
#[test]
fn damaged_executables_are_called_so() {
    let lab = lab();
    lab.run(&["asm", "scale.dojo"]).ok();
    let good = std::fs::read(lab.path("scale.djx")).unwrap();
    let mut flipped = good.clone();
    flipped[1] ^= 1;
    let text = [&good[..4], &good[5..]].concat();
    let elf = b"\x7fELF\x02\x01\x01".to_vec();
    for bytes in [flipped, text, elf, vec![]] {
        lab.write("bad.djx", bytes);
        let dis = lab.run(&["dis", "bad.djx"]).fails(1);
        assert_eq!(lab.run(&["run", "bad.djx"]).fails(1), dis);
        assert_eq!(lab.run(&["check", "bad.djx"]).err, dis);
        assert!(!dis.contains("model"), "{dis}");
    }
}

#[test]
fn an_executable_is_not_assembled() {
    let lab = lab();
    lab.run(&["asm", "scale.dojo"]).ok();
    insta::assert_snapshot!(lab.run(&["asm", "scale.djx"]).fails(1), @"
    error[D0950]: scale.djx is an executable already
      help: `dojoc dis` shows it as assembly, `dojoc check` checks it
    ");
    lab.write("text.djx", SCALE);
    insta::assert_snapshot!(lab.run(&["asm", "text.djx"]).fails(1), @"
    error[D0960]: text.djx would be overwritten
      help: say by --output where the executable is to go
    ");
    assert_eq!(lab.read("text.djx"), SCALE);
}

#[test]
fn run_parameters_random_inputs_and_references() {
    let lab = lab();
    let out = lab.run(&[
        "run",
        "scale.dojo",
        "--random",
        "1",
        "--dim",
        "n=2",
        "-o",
        "y.npz",
    ]);
    assert!(out.ok().starts_with("y  f32[4, 2]"));
    let args = [
        "run",
        "scale.dojo",
        "--random",
        "1",
        "--dim",
        "n=2",
        "--compare",
    ];
    let same = lab.run(&[&args[..], &["y.npz"]].concat()).ok();
    assert!(same.contains("compare y: agrees"), "{same}");
    npy(&lab, "other.npy", &ones(2));
    let differs = lab.run(&[&args[..], &["other.npy"]].concat());
    assert_eq!(differs.code, 5, "{}", differs.err);
    assert!(differs.err.contains("D0954"), "{}", differs.err);
    let err = lab
        .run(&["run", "scale.dojo", "--random", "1", "--dim", "n=9"])
        .fails(1);
    assert!(
        err.contains("D0721") && err.contains("outside 1 to 8"),
        "{err}"
    );
    for rows in [3u64, 5] {
        let x = Tensor::from_vec(&[rows, 8], vec![1f32; 8 * rows as usize]);
        npy(&lab, "rows.npy", &x);
        for more in [&[] as &[&str], &["--sanitize"]] {
            let args = ["run", "scale.dojo", "-i", "rows.npy"];
            let err = lab.run(&[&args, more].concat()).fails(1);
            assert!(err.contains("D0723"), "{err}");
        }
    }
    let unknown = ["run", "scale.dojo", "-i", "q=x.npy"];
    insta::assert_snapshot!(lab.run(&unknown).fails(1), @"
    error[D0952]: `main` has no input `q`
      help: the inputs are `x` : f32[4, 8]; --input INPUT=FILE.npz:ARRAY takes one array
    ");
    let err = lab.run(&["run", "scale.dojo"]).fails(1);
    assert!(err.contains("no value for `x` : f32[4, 8]"), "{err}");
    let err = lab
        .run(&["run", "scale.dojo", "--random", "1", "--entry", "mian"])
        .fails(1);
    assert!(err.contains("did you mean `main`?"), "{err}");
    let err = lab
        .run(&["run", "scale.dojo", "--random", "1", "--probe", "z"])
        .fails(1);
    assert!(err.contains("D0722"), "{err}");
}

/// Values that the program does not declare as probes: by the name of an op, and of a buffer.
#[test]
fn probes_of_buffers_on_each_core() {
    let lab = lab();
    let twice = SCALE
        .replace("mul %pn, %xn, %wn", "mul %pn, %xn, %wn loc(\"Mul/1\")")
        .replace(
            "call @scale {on = @four, row = []}",
            "repeat {count = 2} ({ ^(%l : index) call @scale {on = @four, row = []} })",
        );
    lab.write("twice.dojo", twice);
    let row = |file: &str| from_raw(&read_npy(lab.path(file)).unwrap()).to_f64s();
    let row_of = |core: usize, factor: usize| -> Vec<f64> {
        let row = 8 * core..8 * core + 8;
        row.map(|i| (factor * i) as f64).collect()
    };
    for (folder, more) in [("fast", &[] as &[&str]), ("slow", &["--sanitize"])] {
        let args = ["run", "twice.dojo", "-i", "x.npy", "-o", folder];
        let probes = ["--probe", "Mul/1", "--probe", "scale.sum"];
        let out = lab.run(&[&args[..], &probes, more].concat()).ok();
        assert!(
            out.contains("Mul/1@0-0-0.0      f32[8]  min 0  max 7"),
            "{out}"
        );
        for core in 0..4 {
            for call in 0..2 {
                let product = format!("{folder}/Mul_1_0-0-{core}.{call}.npy");
                assert_eq!(row(&product), row_of(core, 1));
                let sum = format!("{folder}/scale.sum_0-0-{core}.{call}.npy");
                assert_eq!(row(&sum), row_of(core, call + 1));
            }
        }
    }
    let once = ["run", "scale.dojo", "-i", "x.npy", "--probe", "scale.y"];
    insta::assert_snapshot!(lab.run(&once).ok(), @r"
    y              f32[4, 8]  min 0  max 31  mean 15.5
    scale.y@0-0-0  f32[8]  min 0  max 7  mean 3.5  [0, 1, 2, 3, 4, 5, 6, 7]
    scale.y@0-0-1  f32[8]  min 8  max 15  mean 11.5  [8, 9, 10, 11, 12, 13, 14, 15]
    scale.y@0-0-2  f32[8]  min 16  max 23  mean 19.5  [16, 17, 18, 19, 20, 21, 22, 23]
    scale.y@0-0-3  f32[8]  min 24  max 31  mean 27.5  [24, 25, 26, 27, 28, 29, 30, 31]
    ");
    let wrong = ["run", "twice.dojo", "-i", "x.npy", "--probe", "Mul/2"];
    let err = lab.run(&wrong).fails(1);
    assert!(err.contains("D0722"), "{err}");
    assert!(err.contains("did you mean `Mul/1`?"), "{err}");
    let small = ["run", "scale.dojo", "-i", "x.npy", "--max-bytes", "64"];
    lab.run(&[&small[..], &["--probe", "scale.y"]].concat())
        .fails(3);
}

#[test]
fn the_summary_is_an_object_too() {
    let lab = lab();
    let out = lab
        .run(&["run", "scale.dojo", "-i", "x.npy", "--format", "json"])
        .ok();
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["entry"], "main");
    assert_eq!(object["outputs"][0]["name"], "y");
    assert_eq!(object["outputs"][0]["max"], 31.0);
    assert_eq!(object["stats"]["instructions"], 12);
    assert_eq!(object["stats"]["calls"], 4);
}

/// What goes wrong in a statement is shown in its line.
#[test]
fn faults_of_runs_have_places_in_the_text() {
    let lab = Lab::new();
    let text = r#"dojo program 1

program @count {machine = "mesh4x4"} {
  cores @one = [box(0, 1, 2)]
  input @k : i32[1] = [{on = @one, at = 0, slice = [[0, 1]]}]
  output @y : f32[4] = [{on = @one, at = 64, slice = [[0, 4]]}]

  segment @count() {
    %k = buffer {at = 0, role = "in"} : i32[1]
    %y = buffer {at = 64, role = "out"} : f32[4]
    vector (
      { ^()
        fill %y {value = 0.0}
        %n = count %k {max = 4}
        for {count = %n} ({ ^(%i : index)
          add %y, %y {value = 1.0}
        })
      }
    )
  }

  entry @main() {inputs = [@k], outputs = [@y]} {
    call @count {on = @one, row = []}
  }
}
"#;
    lab.write("count.dojo", text);
    npy(&lab, "k.npy", &Tensor::from_vec(&[1], vec![9i32]));
    let run = ["run", "count.dojo", "-i", "k.npy"];
    let careful = lab.run(&[&run[..], &["--sanitize"]].concat()).fails(1);
    assert!(careful.contains("count.dojo:14:9"), "{careful}");
    insta::assert_snapshot!(lab.run(&run).fails(1), @"
    error[D0703]: core (chip 0, row 1, column 2), `%n = count %k {max = 4}` in the vector stream of @count: it read 9, which is not between 0 and 4
       ┌─ count.dojo:14:9
       │
    14 │         %n = count %k {max = 4}
       │         ^^^^^^^^^^^^^^^^^^^^^^^
    ");
}

/// All cores wait for a message before they send one.
#[test]
fn a_deadlock_has_a_place_in_the_text() {
    let lab = Lab::new();
    let text = r#"dojo program 1

program @shift {machine = "mesh4x4"} {
  cores @ring = [box(0, 0, [0, 2])]
  channel @next {from = @ring, to = @ring, peer = mod(i + 1, 2)}
  input @x : f32[2, 8] = [{on = @ring, at = 0, slice = [[i, 1], [0, 8]]}]
  output @y : f32[2, 8] = [{on = @ring, at = 64, slice = [[i, 1], [0, 8]]}]

  segment @shift() {
    %x = buffer {at = 0, role = "in"} : f32[8]
    %y = buffer {at = 64, role = "out"} : f32[8]
    comm0 ({ ^()
      post @next, %y
      recv @next, %y
      send @next, %x
    })
  }

  entry @main() {inputs = [@x], outputs = [@y]} {
    call @shift {on = @ring, row = []}
  }
}
"#;
    lab.write("shift.dojo", text);
    for more in [&["--threads", "2"][..], &["--sanitize"]] {
        let run = ["run", "shift.dojo", "--random", "1"];
        let err = lab.run(&[&run[..], more].concat()).fails(1);
        assert!(err.contains("D0700"), "{err}");
        assert!(err.contains("shift.dojo:14:7"), "{err}");
        assert!(err.contains("core (chip 0, row 0, column 1)"), "{err}");
    }
}

/// Arrays have no bf16; what is given for it says how it is done.
#[test]
fn values_in_bf16_are_asked_for() {
    let lab = lab();
    lab.write("half.dojo", SCALE.replace("f32", "bf16"));
    let run = [
        "run",
        "half.dojo",
        "-i",
        "x.npy",
        "--no-verify",
        "--sanitize",
    ];
    insta::assert_snapshot!(lab.run(&run).fails(1), @"
    error[D0723]: @x is bf16[4, 8], found f32[4, 8]
      help: an .npy file or an array of an .npz archive is bf16 if it is of uint16 and its name ends in `.bf16`; .safetensors and ONNX tensors have the type
    ");
}

#[test]
fn files_stay_beside_the_program() {
    let lab = lab();
    lab.write("sub/scale.dojo", SCALE);
    let err = lab.run(&["run", "sub/scale.dojo", "-i", "x.npy"]).fails(1);
    assert!(err.contains("w.bin") && err.contains("for @w"), "{err}");
    lab.write("sub/out.dojo", SCALE.replace("w.bin", "../w.bin"));
    let err = lab.run(&["run", "sub/out.dojo", "-i", "x.npy"]).fails(1);
    assert!(err.contains("`..`"), "{err}");
    lab.write("w.bin", [0u8; 16]);
    let err = lab.run(&["run", "scale.dojo", "-i", "x.npy"]).fails(1);
    assert!(err.contains("16 bytes"), "{err}");
    let err = lab
        .run_with(&["run", "-", "-i", "x.npy"], SCALE.as_bytes())
        .fails(1);
    assert!(err.contains("not read from a path"), "{err}");
}

#[test]
fn wrong_programs_are_refused_with_their_places() {
    let lab = lab();
    lab.write(
        "far.dojo",
        SCALE.replace("at = 256, role", "at = 6400000, role"),
    );
    for args in [
        &["asm", "far.dojo"][..],
        &["run", "far.dojo", "-i", "x.npy"],
    ] {
        let err = lab.run(args).fails(1);
        assert!(err.contains("D0225") && err.contains("far.dojo:"), "{err}");
    }
    let found = lab.run(&[
        "run",
        "far.dojo",
        "-i",
        "x.npy",
        "--sanitize",
        "--no-verify",
    ]);
    assert!(
        found.fails(1).contains("buffer %y"),
        "the sanitizer sees it too"
    );
    lab.write("bad.dojo", SCALE.replace("mul %pn", "mull %pn"));
    let err = lab.run(&["asm", "bad.dojo"]).fails(1);
    assert!(err.contains("bad.dojo:24"), "{err}");
    let err = lab.run(&["run", "scale.dojo", "--no-verify"]).fails(1);
    assert!(err.contains("--sanitize"), "{err}");
    let err = lab.run(&["asm", "scale.dojo", "--machine", "d1"]).fails(1);
    assert!(err.contains("D0239"), "{err}");
}

#[test]
fn check_verifies_programs_and_executables() {
    let lab = lab();
    lab.run(&["asm", "scale.dojo"]).ok();
    let out = lab.run(&["check", "scale.djx", "scale.dojo"]).ok();
    insta::assert_snapshot!(out, @r"
    scale.djx: ok
      main: 2 steps
        input x : f32[4, 8]
        output y : f32[4, 8]
    scale.dojo: ok
      main: 2 steps
        input x : f32[4, 8]
        output y : f32[4, 8]
    ");
    let mut bytes = std::fs::read(lab.path("scale.djx")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    lab.write("damaged.djx", &bytes);
    bytes.truncate(100);
    lab.write("short.djx", &bytes);
    for file in ["damaged.djx", "short.djx"] {
        let ran = lab.run(&["check", file]);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (1, &*format!("{file}: 1 problem\n"))
        );
        assert!(ran.err.contains("D0262"), "{}", ran.err);
        assert_eq!(lab.run(&["run", file]).fails(1), ran.err);
    }
    let err = lab.run(&["eval", "scale.djx"]).fails(1);
    assert!(err.contains("dojoc run"), "{err}");
    let err = lab.run(&["run", "x.npy"]).fails(1);
    assert!(err.contains("D0950"), "{err}");
}

#[cfg(unix)]
#[test]
fn a_run_can_be_interrupted_and_limited() {
    let lab = lab();
    let forever = SCALE
        .replace("        mul %pn, %xn, %wn\n", "        for {count = 3000} (\n          { ^(%k : index)\n            mul %pn, %xn, %wn\n          }\n        )\n")
        .replace("    call @scale {on = @four, row = []}\n", "    repeat {count = 100000000} ({ ^(%l : index) call @scale {on = @four, row = []} })\n");
    lab.write("forever.dojo", &forever);
    for sanitize in [&[][..], &["--sanitize"]] {
        let args = [&["run", "forever.dojo", "-i", "x.npy"], sanitize].concat();
        let limited = lab.run(&[&args[..], &["--max-steps", "10000"]].concat());
        assert!(limited.fails(3).contains("D0701"));
        let child = command(lab.path("").as_path(), &args).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let killed = std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
    }
}
