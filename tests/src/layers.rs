//! Models of many equal layers, to see what of a compiler grows with them.

use std::fmt::Write as _;

use dojoc_ir::graph::Module;
use dojoc_ir::level::Level as _;

use crate::rng::Rng;

/// Parts of a model's text.
struct Text {
    weights: String,
    nodes: String,
    rng: Rng,
}

impl Text {
    fn new() -> Self {
        Self {
            weights: String::new(),
            nodes: String::new(),
            rng: Rng::new(1),
        }
    }

    /// A weight of small random numbers; its operand.
    fn weight(&mut self, name: &str, shape: &[u64]) -> String {
        let count = shape.iter().product::<u64>();
        let hex = (0..count).fold(String::new(), |mut hex, _| {
            let value = self.rng.within(1, 100) as f32 / 1000.0 - 0.05;
            for byte in value.to_le_bytes() {
                let _ = write!(hex, "{byte:02x}");
            }
            hex
        });
        let _ = writeln!(
            self.weights,
            "  weight @{name} : f32{shape:?} = hex(\"{hex}\")"
        );
        format!("@{name}")
    }

    fn node(&mut self, result: &str, op: &str, shape: &[u64]) -> String {
        let _ = writeln!(self.nodes, "    %{result} = {op} : f32{shape:?}");
        format!("%{result}")
    }

    fn module(self, shape: &[u64], result: &str) -> Result<Module, String> {
        let Self { weights, nodes, .. } = self;
        let text = format!(
            "dojo graph 1\n\nmodule @layers {{\n{weights}\n  func @main(%x : f32{shape:?}) -> (%out : \
             f32{shape:?}) {{\n{nodes}    return {result}\n  }}\n}}\n"
        );
        Module::parse(&text).map_err(|e| e.to_string())
    }
}

/// `count` dense layers of `width` features with bias and activation.
///
/// # Errors
/// None, unless the text form has changed.
pub fn dense(count: usize, width: u64) -> Result<Module, String> {
    let (mut text, shape) = (Text::new(), [64, width]);
    let mut x = String::from("%x");
    for n in 0..count {
        let (w, b) = (
            text.weight(&format!("w{n}"), &[width, width]),
            text.weight(&format!("b{n}"), &[width]),
        );
        let op = format!("dot {x}, {w} {{batch = [], contract = [[1, 0]]}}");
        let product = text.node(&format!("d{n}"), &op, &shape);
        let sum = text.node(&format!("a{n}"), &format!("add {product}, {b}"), &shape);
        x = text.node(
            &format!("g{n}"),
            &format!("gelu {sum} {{approximate = \"erf\"}}"),
            &shape,
        );
    }
    text.module(&shape, &x)
}

/// `count` layers of a transformer of `width` features and 8 heads on 64 tokens.
///
/// # Errors
/// None, unless the text form has changed.
pub fn transformer(count: usize, width: u64) -> Result<Module, String> {
    let mut text = Text::new();
    let (shape, heads) = ([1, 64, width], [1, 64, 8, width / 8]);
    let mut x = String::from("%x");
    for n in 0..count {
        let attended = attention(&mut text, n, &x, &shape, &heads);
        let normal = norm(&mut text, &format!("m{n}"), &attended, &shape);
        let up = linear(
            &mut text,
            &format!("u{n}"),
            &normal,
            &[1, 64, width],
            4 * width,
        );
        let op = format!("gelu {up} {{approximate = \"tanh\"}}");
        let active = text.node(&format!("ge{n}"), &op, &[1, 64, 4 * width]);
        let down = linear(
            &mut text,
            &format!("dn{n}"),
            &active,
            &[1, 64, 4 * width],
            width,
        );
        x = text.node(&format!("y{n}"), &format!("add {down}, {attended}"), &shape);
    }
    text.module(&shape, &x)
}

/// A layer norm with gain and bias.
fn norm(text: &mut Text, name: &str, x: &str, shape: &[u64]) -> String {
    let gain = text.weight(&format!("{name}_gain"), &shape[2..]);
    let bias = text.weight(&format!("{name}_bias"), &shape[2..]);
    let op = format!("layer_norm {x}, {gain}, {bias} {{axes = [2], epsilon = 1e-5}}");
    text.node(name, &op, shape)
}

/// A product with a matrix, and a bias.
fn linear(text: &mut Text, name: &str, x: &str, shape: &[u64], width: u64) -> String {
    let weight = text.weight(&format!("{name}_w"), &[shape[2], width]);
    let bias = text.weight(&format!("{name}_b"), &[width]);
    let to = [shape[0], shape[1], width];
    let op = format!("dot {x}, {weight} {{batch = [], contract = [[2, 0]]}}");
    let product = text.node(&format!("{name}_p"), &op, &to);
    text.node(name, &format!("add {product}, {bias}"), &to)
}

/// Attention with its norm before and the sum behind it.
fn attention(text: &mut Text, n: usize, x: &str, shape: &[u64], heads: &[u64]) -> String {
    let normal = norm(text, &format!("n{n}"), x, shape);
    let [q, k, v] = ["q", "k", "v"].map(|which| {
        let value = linear(text, &format!("{which}{n}"), &normal, shape, shape[2]);
        let op = format!("reshape {value} {{shape = {heads:?}}}");
        text.node(&format!("{which}h{n}"), &op, heads)
    });
    let scores = [1, heads[2], heads[1], heads[1]];
    let op = format!("dot {q}, {k} {{batch = [[0, 0], [2, 2]], contract = [[3, 3]]}}");
    let products = text.node(&format!("s{n}"), &op, &scores);
    let op = format!("softmax {products} {{axis = 3}}");
    let shares = text.node(&format!("sm{n}"), &op, &scores);
    let op = format!("dot {shares}, {v} {{batch = [[0, 0], [1, 2]], contract = [[3, 1]]}}");
    let mixed = text.node(&format!("o{n}"), &op, &[1, heads[2], heads[1], heads[3]]);
    let op = format!("transpose {mixed} {{perm = [0, 2, 1, 3]}}");
    let turned = text.node(&format!("t{n}"), &op, heads);
    let op = format!("reshape {turned} {{shape = {shape:?}}}");
    let joined = text.node(&format!("j{n}"), &op, shape);
    let out = linear(text, &format!("p{n}"), &joined, shape, shape[2]);
    text.node(&format!("r{n}"), &format!("add {out}, {x}"), shape)
}
