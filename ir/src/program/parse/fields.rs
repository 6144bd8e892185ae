//! Attributes of declarations, and values of one kind.

use dojoc_grammar as g;
use dojoc_grammar::{ExprId, ExprKind};

use super::{Context, Symbol};
use crate::codes;
use crate::graph::closest;
use crate::program::{DramId, FamilyId, RegionId};

/// The attributes of one declaration or statement.
pub(super) struct Fields<'c, 't> {
    cx: &'c Context<'t>,
    /// With an article, for messages.
    owner: &'c str,
    /// Where messages about what is missing point.
    span: g::Span,
    attrs: &'t [g::Attr],
}

impl<'c, 't> Fields<'c, 't> {
    /// Refuses all that are not `known`.
    pub fn new(
        cx: &'c Context<'t>,
        owner: &'c str,
        span: g::Span,
        attrs: g::List<g::Attr>,
        known: &[&str],
    ) -> Self {
        let attrs = &cx.tree[attrs];
        for attr in attrs {
            let key = cx.text(&attr.key);
            if known.contains(&key) {
                continue;
            }
            let help = closest(key, known.iter().copied());
            let help = help.map(|near| format!("did you mean `{near}`?"));
            let has = match known {
                [] => "it has none".to_owned(),
                _ => format!("it has {}", known.join(", ")),
            };
            let message = format!("{owner} has no attribute `{key}`: {has}");
            cx.error_help::<()>(codes::BAD_ATTRIBUTE, attr.span, message, help);
        }
        Self {
            cx,
            owner,
            span,
            attrs,
        }
    }

    pub fn get(&self, key: &str) -> Option<ExprId> {
        let attr = self
            .attrs
            .iter()
            .find(|attr| self.cx.text(&attr.key) == key);
        attr.map(|attr| attr.value)
    }

    pub fn required(&self, key: &str) -> Option<ExprId> {
        let found = self.get(key);
        if found.is_none() {
            let message = format!("{} needs the attribute `{key}`", self.owner);
            self.cx
                .error::<()>(codes::BAD_ATTRIBUTE, self.span, message);
        }
        found
    }
}

/// `read` of all items, so that the mistakes of each are reported; `None` if one has a mistake.
pub(super) fn all<'i, I, T>(items: &'i [I], read: impl Fn(&'i I) -> Option<T>) -> Option<Vec<T>> {
    let results: Vec<Option<T>> = items.iter().map(read).collect();
    results.into_iter().collect()
}

impl<'t> Context<'t> {
    fn expected<T>(&self, id: ExprId, what: &str) -> Option<T> {
        self.error(
            codes::BAD_ATTRIBUTE,
            self.tree[id].span,
            format!("expected {what}"),
        )
    }

    pub(super) fn uint(&self, id: ExprId) -> Option<u64> {
        match self.tree[id].kind {
            ExprKind::Int(value) if value >= 0 => Some(value as u64),
            ExprKind::Uint(value) => Some(value),
            _ => self.expected(id, "a number that is not negative"),
        }
    }

    /// A number of 32 bits.
    pub(super) fn small(&self, id: ExprId) -> Option<u32> {
        match u32::try_from(self.uint(id)?) {
            Ok(value) => Some(value),
            Err(_) => self.expected(id, "a number of 32 bits"),
        }
    }

    pub(super) fn int(&self, id: ExprId) -> Option<i64> {
        match self.tree[id].kind {
            ExprKind::Int(value) => Some(value),
            _ => self.expected(id, "a number of 64 bits"),
        }
    }

    pub(super) fn string(&self, id: ExprId) -> Option<&'t str> {
        match self.tree[id].kind {
            ExprKind::Str(text) => Some(&self.tree[text]),
            _ => self.expected(id, "a string"),
        }
    }

    pub(super) fn list(&self, id: ExprId) -> Option<&'t [ExprId]> {
        match self.tree[id].kind {
            ExprKind::List(items) => Some(&self.tree[items]),
            _ => self.expected(id, "a list"),
        }
    }

    pub(super) fn ints(&self, id: ExprId) -> Option<Vec<i64>> {
        all(self.list(id)?, |item| self.int(*item))
    }

    pub(super) fn uints(&self, id: ExprId) -> Option<Vec<u64>> {
        all(self.list(id)?, |item| self.uint(*item))
    }

    pub(super) fn smalls(&self, id: ExprId) -> Option<Vec<u32>> {
        all(self.list(id)?, |item| self.small(*item))
    }

    /// One of the words of a list like [`RouteRule::ALL`](crate::program::RouteRule::ALL).
    pub(super) fn one_of<T: Copy>(&self, id: ExprId, all: &[(T, &str)]) -> Option<T> {
        if let ExprKind::Str(text) = self.tree[id].kind
            && let Some((value, _)) = all.iter().find(|(_, word)| *word == &self.tree[text])
        {
            return Some(*value);
        }
        let words: Vec<String> = all.iter().map(|(_, word)| format!("\"{word}\"")).collect();
        self.expected(id, &format!("one of {}", words.join(", ")))
    }

    fn reference<T>(
        &self,
        id: ExprId,
        kind: &str,
        pick: impl Fn(Symbol) -> Option<T>,
    ) -> Option<T> {
        match self.tree[id].kind {
            ExprKind::Symbol(name) => self.symbol(&name, kind, pick),
            _ => self.expected(id, &format!("the name of {kind}, `@name`")),
        }
    }

    pub(super) fn region(&self, id: ExprId) -> Option<RegionId> {
        self.reference(id, "a set of cores", |symbol| match symbol {
            Symbol::Region(id) => Some(id),
            _ => None,
        })
    }

    pub(super) fn family_of(&self, id: ExprId) -> Option<FamilyId> {
        self.reference(id, "a channel", |symbol| match symbol {
            Symbol::Family(id) => Some(id),
            _ => None,
        })
    }

    pub(super) fn dram_of(&self, id: ExprId) -> Option<DramId> {
        self.reference(id, "a DRAM region", |symbol| match symbol {
            Symbol::Dram(id) => Some(id),
            _ => None,
        })
    }

    pub(super) fn tensors_of(&self, id: ExprId) -> Option<Vec<crate::program::TensorId>> {
        let tensor = |id: &ExprId| {
            self.reference(*id, "a tensor", |symbol| match symbol {
                Symbol::Tensor(id) => Some(id),
                _ => None,
            })
        };
        all(self.list(id)?, tensor)
    }
}
