//! A network of digits, compiled for one D1 chip and run inside another program on a drawing.

use std::error::Error;
use std::io::Write;

use dojoc::{CompileOptions, Compiler, Module, Tensor, TensorView};

const DRAWING: &str = "
. . . # # . . .
. . # # # . . .
. # # # # . . .
. . . # # . . .
. . . # # . . .
. . . # # . . .
. . . # # . . .
. . # # # # . .
";

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).ok_or("usage: embed MODEL.onnx")?;
    let options = CompileOptions::default().dim("N", 1);
    let module = Module::from_path(model, &options)?;
    let compiled = Compiler::new(&options).compile(&module)?;
    let mut session = compiled.session()?;

    let marks = DRAWING.chars().filter(|c| !c.is_whitespace());
    let pixels: Vec<f32> = marks.map(|c| f32::from(u8::from(c == '#'))).collect();
    let image = Tensor::from_vec(&[1, 1, 8, 8], pixels);
    let run = session.run(&[("input", TensorView::from(&image))])?;
    let scores = run.outputs.get("output").ok_or("no output")?.to_f64s();
    let digit = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let digit = digit.ok_or("no scores")?;
    writeln!(std::io::stdout(), "{DRAWING}is a {digit}")?;
    Ok(())
}
