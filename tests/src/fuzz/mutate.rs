//! Damage: of serialised values field by field, of bytes, and of text by lines and words.

use dojoc_ir::formats::random_bits;

use super::value::Value;

/// A reproducible source of choices.
pub struct Random {
    seed: u64,
    draws: u64,
}

impl Random {
    /// The choices of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, draws: 0 }
    }

    /// A number below `bound`, or zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.draws += 1;
        random_bits(self.seed, 0, 0, self.draws) as usize % bound.max(1)
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).copied()
    }
}

/// Numbers at which things go wrong.
const NUMBERS: [i128; 22] = [
    0,
    1,
    -1,
    2,
    3,
    4,
    7,
    8,
    -4,
    63,
    64,
    255,
    256,
    4096,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    i64::MAX as i128,
    i64::MIN as i128,
    u64::MAX as i128,
];

const WORDS: [&str; 8] = ["", "?", "i", "a b", "\"", "\u{0}", "caf\u{e9}", "../w.bin"];

/// Changes one field of a tree: a number, a name, the length of a list, a variant, or a part that is
/// replaced by another one of its type.
pub fn change_field(tree: &mut Value, random: &mut Random) {
    let count = tree.count();
    let donor = tree.get(random.below(count)).cloned();
    // Any part of the same type will do; a few tries find one.
    let at = random.below(count);
    let alike = (0..40).find_map(|_| {
        let here = tree.get(at)?;
        let other = tree.get(random.below(count))?;
        (here.fits(other) && here != other).then(|| other.clone())
    });
    let Some(here) = tree.get_mut(at) else {
        return;
    };
    if let Some(alike) = alike
        && random.below(3) == 0
    {
        *here = alike;
        return;
    }
    match here {
        Value::Unit => {}
        Value::Bool(b) => *b = !*b,
        Value::Int(_, _, x) => {
            *x = match random.below(5) {
                0 => x.wrapping_add(1),
                1 => x.wrapping_sub(1),
                2 => x.wrapping_mul(2),
                3 => random.below(20) as i128,
                _ => random.pick(&NUMBERS).unwrap_or(0),
            }
        }
        Value::Float(x) => {
            *x = random
                .pick(&[0.0, -1.0, f64::NAN, f64::INFINITY, 1e300])
                .unwrap_or(*x)
        }
        Value::Str(s) => match random.below(3) {
            0 => s.push('x'),
            1 => *s = random.pick(&WORDS).unwrap_or("").into(),
            _ => s.truncate(0),
        },
        Value::Bytes(bytes) => change_bytes(bytes, random),
        Value::Option(item) => {
            *item = match item {
                Some(_) => None,
                None => donor.map(Box::new),
            }
        }
        Value::List(items) => change_list(items, random),
        Value::Record(_, fields) => {
            let (a, b) = (random.below(fields.len()), random.below(fields.len()));
            if !fields.is_empty() {
                fields.swap(a, b);
            }
        }
        Value::Variant(_, index, fields) => match random.below(4) {
            0 => fields.truncate(0),
            1 => *index = index.saturating_sub(1),
            2 => *index = random.below(20) as u32,
            _ => *index += 1,
        },
    }
}

fn change_list(items: &mut Vec<Value>, random: &mut Random) {
    let (a, b) = (random.below(items.len()), random.below(items.len()));
    match (items.get(a).cloned(), random.below(4)) {
        (None, _) => items.push(Value::Int(64, true, 1)),
        (Some(_), 0) => {
            items.remove(a);
        }
        (Some(item), 1) => items.insert(b, item),
        (Some(_), 2) => items.swap(a, b),
        (Some(_), _) => items.truncate(a),
    }
}

/// Changes a few bytes: flips, overwrites, removes, repeats.
pub fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let Some(byte) = bytes.get_mut(at) else {
            bytes.push(random.below(256) as u8);
            continue;
        };
        match random.below(6) {
            0 | 1 => *byte ^= 1 << random.below(8),
            2 => *byte = random.below(256) as u8,
            3 => *byte = 0xff,
            4 => {
                bytes.remove(at);
            }
            _ => {
                let end = bytes.len().min(at + 1 + random.below(16));
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
        }
    }
}

const TOKENS: [&str; 24] = [
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "=",
    "+",
    "-",
    "*",
    "%x",
    "@x",
    "0",
    "-1",
    "64",
    "9223372036854775807",
    "99999999999999999999",
    "f32",
    "bf16[4]",
    "i",
    "\"s\"",
    "segment",
];

/// Cuts a text into words, numbers, signs and white space, so that joining gives it back.
fn tokens(text: &str) -> Vec<&str> {
    let class = |c: char| {
        if c.is_alphanumeric() || matches!(c, '_' | '%' | '@' | '.') {
            0
        } else if c.is_whitespace() {
            1
        } else {
            2
        }
    };
    let mut found = vec![];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest
            .char_indices()
            .find(|(at, c)| *at > 0 && (class(*c) != class(first) || class(first) == 2))
            .map_or(rest.len(), |(at, _)| at);
        let (token, behind) = rest.split_at(end);
        found.push(token);
        rest = behind;
    }
    found
}

fn change_pieces<'a>(pieces: &mut Vec<&'a str>, foreign: &[&'a str], random: &mut Random) {
    let (a, b) = (random.below(pieces.len()), random.below(pieces.len()));
    let Some(piece) = pieces.get(a).copied() else {
        return;
    };
    match random.below(6) {
        0 => {
            pieces.remove(a);
        }
        1 => pieces.insert(b, piece),
        2 => pieces.swap(a, b),
        3 | 4 => pieces[b] = piece,
        _ => pieces[a] = random.pick(foreign).unwrap_or(""),
    }
}

/// Changes a text: some bytes, a word or a line.
pub fn change_text(text: &str, random: &mut Random) -> Vec<u8> {
    match random.below(6) {
        0 => {
            let mut bytes = text.as_bytes().to_vec();
            change_bytes(&mut bytes, random);
            bytes
        }
        1 => {
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            change_pieces(&mut lines, &["}\n", ")\n", "  wait %t\n"], random);
            lines.concat().into()
        }
        _ => change_words(tokens(text), random).concat().into(),
    }
}

/// Replaces words, mostly by words of the same kind.
fn change_words<'a>(mut words: Vec<&'a str>, random: &mut Random) -> Vec<&'a str> {
    let kind = |word: &str| match word.chars().next() {
        Some(c @ ('%' | '@')) => c,
        Some(c) if c.is_ascii_digit() => '0',
        Some(c) if c.is_alphabetic() => 'a',
        Some(c) if c.is_whitespace() => ' ',
        _ => '(',
    };
    for _ in 0..=random.below(2) {
        let at = random.below(words.len());
        let Some(word) = words.get(at).copied() else {
            continue;
        };
        let alike = |other: &&str| kind(other) == kind(word);
        let alike: Vec<&str> = words.iter().copied().filter(alike).collect();
        match random.below(5) {
            0 => change_pieces(&mut words, &TOKENS, random),
            1 => words[at] = random.pick(&TOKENS).unwrap_or(""),
            _ => words[at] = random.pick(&alike).unwrap_or(""),
        }
    }
    words
}
