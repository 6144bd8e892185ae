//! Declarations that several levels share: weights, states and ops with their attributes.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use dojoc_grammar as g;
use dojoc_grammar::{Body, ExprId, ExprKind, Tree};

use super::parse::SourceMap;
use super::text::Exprs;
use super::verify::Entity;
use super::{State, StateId, StateInit, ValueDef, Weight, WeightId, WeightSource};
use crate::codes;
use crate::diag::{Diagnostic, Diagnostics};
use crate::entity::PrimaryMap;
use crate::ops::Op;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::{Class, Type};

/// Constants of more bytes than this are not written as `dense(value)`: a short text must not take
/// all memory.
const MAX_DENSE: u64 = 1 << 30;

/// Weights and states as they are read, and what is wrong with the text.
pub(crate) struct Declarations<'t> {
    pub tree: &'t Tree,
    pub exprs: Exprs<'t>,
    pub weights: PrimaryMap<WeightId, Weight>,
    pub states: PrimaryMap<StateId, State>,
    /// Weights and states by name.
    pub symbols: BTreeMap<&'t str, ValueDef>,
    /// Where they stand.
    pub map: SourceMap,
    errors: Diagnostics,
}

impl<'t> Declarations<'t> {
    pub fn new(tree: &'t Tree) -> Self {
        Self {
            tree,
            exprs: Exprs::new(tree),
            weights: PrimaryMap::new(),
            states: PrimaryMap::new(),
            symbols: BTreeMap::new(),
            map: SourceMap::new(),
            errors: Diagnostics::default(),
        }
    }

    pub fn error(&mut self, code: u16, span: g::Span, message: impl Into<String>) {
        self.errors
            .push(Diagnostic::input(code, message).at_span(range(span)));
    }

    /// Number of errors so far.
    pub fn error_count(&self) -> usize {
        self.errors.0.len() + self.exprs.error_count()
    }

    /// All errors, in order of the text.
    pub fn into_errors(self) -> Diagnostics {
        let mut errors = self.errors;
        errors.0.extend(self.exprs.into_errors().0);
        errors.0.sort_by_key(|d| match &d.place {
            Some(crate::diag::Place::Span(span)) => span.start,
            _ => usize::MAX,
        });
        errors
    }

    /// Reads a weight or state; `expected` names all declarations of the level.
    pub fn declaration(&mut self, decl: &g::Decl, expected: &str) {
        let name = &self.tree[decl.symbol.text];
        let keyword = &self.tree[decl.keyword.text];
        let (Some(ty), Some(init), Body::None) = (decl.ty, decl.init, decl.body) else {
            let message = format!("expected `{keyword} @name : type = value`");
            return self.error(codes::BAD_DECLARATION, decl.span, message);
        };
        let Some(ty) = self.exprs.ty(ty) else { return };
        if self.symbols.contains_key(name) {
            let message = format!("`@{name}` is defined twice");
            return self.error(codes::DUPLICATE_NAME, decl.symbol.span, message);
        }
        let def = match keyword {
            "weight" => self.weight(decl, name, ty, init),
            "state" => self.state(decl, name, ty, init),
            _ => {
                let message = format!("expected {expected}, found `{keyword}`");
                return self.error(codes::BAD_DECLARATION, decl.keyword.span, message);
            }
        };
        if let Some(def) = def {
            self.symbols.insert(name, def);
        }
    }

    fn weight(&mut self, decl: &g::Decl, name: &str, ty: Type, init: ExprId) -> Option<ValueDef> {
        let span = self.tree[init].span;
        let ExprKind::Call { name: form, args } = self.tree[init].kind else {
            let message = "expected `external(...)`, `dense(...)` or `hex(...)`";
            self.error(codes::BAD_DECLARATION, span, message);
            return None;
        };
        let (form, args) = (&self.tree[form], &self.tree[args]);
        let kinds: Vec<ExprKind> = args.iter().map(|a| self.tree[*a].kind).collect();
        let (source, data) = match (form, kinds.as_slice()) {
            (
                "external",
                [
                    ExprKind::Str(file),
                    ExprKind::Int(offset),
                    ExprKind::Int(length),
                ],
            ) if *offset >= 0 && *length >= 0 => {
                let (offset, length) = (*offset as u64, *length as u64);
                (
                    WeightSource::External {
                        file: self.tree[*file].into(),
                        offset,
                        length,
                    },
                    None,
                )
            }
            ("dense", [_]) => (WeightSource::Inline, Some(self.dense(&ty, args[0])?)),
            ("hex", [ExprKind::Str(text)]) => {
                let tensor = hex_tensor(&ty, &self.tree[*text]);
                if let Err(message) = &tensor {
                    self.error(codes::WEIGHT_MISMATCH, span, message.clone());
                }
                (WeightSource::Inline, Some(tensor.ok()?))
            }
            _ => {
                let message = "expected `external(\"file\", offset, length)`, `dense(...)` or \
                               `hex(\"...\")`";
                self.error(codes::BAD_DECLARATION, span, message);
                return None;
            }
        };
        let id = self.weights.push(Weight {
            name: name.into(),
            ty,
            source,
            data,
        });
        self.map.insert(Entity::Weight(id), range(decl.span));
        Some(ValueDef::Weight(id))
    }

    fn dense(&mut self, ty: &Type, value: ExprId) -> Option<Tensor> {
        let span = self.tree[value].span;
        let Some(shape) = ty.shape.as_const() else {
            self.error(
                codes::WEIGHT_MISMATCH,
                span,
                format!("a constant can not be {ty}"),
            );
            return None;
        };
        let count = ty
            .max_bytes()
            .filter(|bytes| *bytes <= MAX_DENSE && ty.addressable())
            .and(ty.shape.max_elements());
        let Some(count) = count.filter(|_| ty.dtype.class() != Class::Configurable) else {
            self.error(
                codes::WEIGHT_MISMATCH,
                span,
                format!("{ty} can not be written out"),
            );
            return None;
        };
        let items: Vec<ExprId> = match self.tree[value].kind {
            ExprKind::List(items) => self.tree[items].to_vec(),
            _ => vec![value],
        };
        let splat = !matches!(self.tree[value].kind, ExprKind::List(_));
        let values: Option<Vec<Scalar>> = items
            .iter()
            .map(|item| self.exprs.scalar(*item, ty.dtype))
            .collect();
        let values = values?;
        if splat {
            return Some(Tensor::splat(ty.dtype, &shape, values[0]));
        }
        if values.len() as u64 != count {
            let message = format!("{ty} has {count} elements, found {}", values.len());
            self.error(codes::WEIGHT_MISMATCH, span, message);
            return None;
        }
        Some(Tensor::from_scalars(ty.dtype, &shape, values))
    }

    fn state(&mut self, decl: &g::Decl, name: &str, ty: Type, init: ExprId) -> Option<ValueDef> {
        let span = self.tree[init].span;
        let init = match self.tree[init].kind {
            ExprKind::Ident(word) if &self.tree[word] == "zeros" => StateInit::Zeros,
            ExprKind::Symbol(weight) => match self.symbols.get(&self.tree[weight.text]) {
                Some(ValueDef::Weight(weight)) => StateInit::Weight(*weight),
                _ => {
                    let message = format!("there is no weight `@{}`", &self.tree[weight.text]);
                    self.error(codes::UNKNOWN_NAME, span, message);
                    return None;
                }
            },
            _ => {
                self.error(
                    codes::BAD_DECLARATION,
                    span,
                    "expected `zeros` or `@weight`",
                );
                return None;
            }
        };
        let id = self.states.push(State {
            name: name.into(),
            ty,
            init,
        });
        self.map.insert(Entity::State(id), range(decl.span));
        Some(ValueDef::State(id))
    }

    /// The op of a name and attributes; `None` after reporting what is wrong.
    pub fn op(&mut self, word: &g::Name, attrs: &[g::Attr]) -> Option<Op> {
        let name = &self.tree[word.text];
        let values = self.exprs.attrs(attrs)?;
        match Op::parse(name, &values) {
            Some(Ok(op)) => Some(op),
            Some(Err(error)) => {
                let culprit = attrs
                    .iter()
                    .find(|a| self.tree[a.key.text] == *error.attr)
                    .map_or(word.span, |a| a.span);
                self.error(
                    codes::BAD_ATTRIBUTE,
                    culprit,
                    format!("{name}: {}", error.message),
                );
                None
            }
            None => {
                let near = closest(name, Op::names());
                let mut diagnostic =
                    Diagnostic::input(codes::UNKNOWN_OP, format!("there is no op `{name}`"))
                        .at_span(range(word.span));
                if let Some(near) = near {
                    diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
                }
                self.errors.push(diagnostic);
                None
            }
        }
    }
}

pub(crate) fn range(span: g::Span) -> Range<usize> {
    span.start as usize..span.end as usize
}

/// Edit distance of the first 64 letters of a name from another one.
fn distance(name: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in name.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The known name with the smallest edit distance, if it is close.
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = name.chars().count() / 3 + 1;
    known
        .map(|k| (distance(name, k), k))
        .filter(|(d, _)| *d <= allowed)
        .min()
        .map(|(_, k)| k)
}

/// The known names that are close to a name or contain it, the closest first; at most `most`.
pub fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let allowed = name.chars().count() / 3 + 1;
    let mut found: Vec<(usize, &str)> = known
        .map(|k| (distance(name, k), k))
        .filter(|(d, k)| *d <= allowed || !name.is_empty() && k.contains(name))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(most).map(|(_, k)| k).collect()
}

fn hex_tensor(ty: &Type, text: &str) -> Result<Tensor, String> {
    let shape = ty
        .shape
        .as_const()
        .ok_or_else(|| format!("a constant can not be {ty}"))?;
    let digit = |byte: u8| (byte as char).to_digit(16).map(|d| d as u8);
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    let bytes = bytes.ok_or("expected an even number of hexadecimal digits")?;
    Tensor::from_bytes(ty.dtype, &shape, Bytes::from(bytes)).map_err(|e| format!("{ty}: {e}"))
}
