use super::super::parse;
use super::verify;
use crate::machine::Machine;

fn machine(name: &str) -> Machine {
    Machine::parse(Machine::builtin(name).unwrap(), name).unwrap()
}

/// What the verifier says about a program on a machine, as the user sees it.
fn on(name: &str, body: &str) -> String {
    let text = format!("dojo program 1\nprogram @p {{machine = \"{name}\"}} {{\n{body}\n}}\n");
    let (program, _) = parse(&text).map_err(|e| e.to_string()).unwrap();
    let found: Vec<String> = verify(&program, &machine(name))
        .into_iter()
        .map(|violation| violation.into_diagnostic(&program, None).to_string())
        .collect();
    found.join("\n")
}

fn mesh(body: &str) -> String {
    on("mesh4x4", body)
}

const RING: &str = r#"
  cores @ring = [box(0, [0, 4], [0, 4])]
  channel @right {from = @ring, to = @ring, peer = mod(i + 1, 16)}
  input @x : f32[16, 64] = [{on = @ring, at = 0, slice = [[i, 1], [0, 64]]}]
  output @y : f32[16, 64] = [{on = @ring, at = 1024, slice = [[i, 1], [0, 64]]}]
  segment @shift() {
    %x = buffer {at = 0, role = "in"} : f32[64]
    %y = buffer {at = 1024, role = "out"} : f32[64]
    comm0 ({ ^()
      post @right, %y
      send @right, %x
      recv @right, %y
    })
  }
  entry @main() {inputs = [@x], outputs = [@y]} {
    call @shift {on = @ring, row = []}
  }
"#;

#[test]
fn a_ring_is_sound() {
    assert_eq!(mesh(RING), "");
}
