//! The actions of the grammar: they append nodes to the tree.

use crate::MAX_NESTING;
use crate::error::{self, Errors};
use crate::text;
use crate::tree::*;

/// Where the numbers of line and column stand.
pub(crate) type LineColumn = [Option<Span>; 2];

/// The tree under construction and what the driver must know beside it.
pub(crate) struct Builder {
    pub(crate) tree: Tree,
    pub(crate) errors: Errors,
    /// Depth of every expression, parallel to `tree.exprs`.
    depth: Vec<u16>,
    /// Bodies of the unit being read, in order, and how many of them the tree refers to already.
    pub(crate) bodies: Vec<u32>,
    pub(crate) bodies_used: usize,
}

impl Builder {
    pub(crate) fn new(source: &str, errors: Errors) -> Builder {
        let tree = Tree {
            source: source.to_owned(),
            ..Tree::default()
        };
        Builder {
            tree,
            errors,
            depth: Vec::new(),
            bodies: Vec::new(),
            bodies_used: 0,
        }
    }

    fn slice(&self, start: u32, end: u32) -> &str {
        &self.tree.source[start as usize..end as usize]
    }

    /// The text of a token between `start` and `end` of the source.
    pub(crate) fn word(&self, start: u32, end: u32) -> Text {
        Text {
            start,
            end,
            unescaped: false,
        }
    }

    /// The inside of the quotes of a token.
    pub(crate) fn string(&mut self, start: u32, end: u32) -> Text {
        let token = &self.tree.source[start as usize..end as usize];
        let open = token.find('"').map_or(0, |at| at + 1);
        let inside = &token[open..token.len() - 1];
        if inside.contains('\\') {
            let begin = self.tree.unescaped.len() as u32;
            text::unescape(inside, &mut self.tree.unescaped);
            Text {
                start: begin,
                end: self.tree.unescaped.len() as u32,
                unescaped: true,
            }
        } else {
            Text {
                start: start + open as u32,
                end: end - 1,
                unescaped: false,
            }
        }
    }

    /// A word, quoted string, value or symbol as a name.
    pub(crate) fn name(&mut self, start: u32, end: u32) -> Name {
        let token = self.slice(start, end);
        let sigil = u32::from(token.starts_with(['%', '@']));
        let rest = &token[sigil as usize..];
        let span = Span { start, end };
        if rest.starts_with('"') {
            return Name {
                span,
                text: self.string(start, end),
                kind: NameKind::Quoted,
            };
        }
        let kind = if rest.starts_with(|c: char| c.is_ascii_digit()) {
            // A number out of range was reported with its token.
            NameKind::Number(rest.parse().unwrap_or(u32::MAX))
        } else {
            NameKind::Bare
        };
        Name {
            span,
            text: self.word(start + sigil, end),
            kind,
        }
    }

    fn small_number(&mut self, start: u32, end: u32) -> u32 {
        let literal = self.slice(start, end);
        match text::parse_uint(literal).map(u32::try_from) {
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                let message = format!("`{}` exceeds 32 bits", text::shorten(literal));
                self.errors.push(error::NUMBER_RANGE, start..end, message);
                0
            }
            // Beyond 64 bits the token itself was reported.
            None => 0,
        }
    }

    pub(crate) fn header(&mut self, span: Span, level: Name, version: Span) {
        let version = self.small_number(version.start, version.end);
        self.tree.header = Some(Header {
            span,
            level,
            version,
        });
    }

    // Expressions.

    pub(crate) fn expr(&mut self, start: u32, end: u32, kind: ExprKind) -> ExprId {
        let tree = &self.tree;
        let deep = |id: ExprId| self.depth[id.0 as usize];
        let deepest = |list: List<ExprId>| tree[list].iter().map(|&id| deep(id)).max().unwrap_or(0);
        let in_attrs =
            |list: List<Attr>| tree[list].iter().map(|a| deep(a.value)).max().unwrap_or(0);
        let inner = match kind {
            ExprKind::List(items) => deepest(items),
            ExprKind::Call { args, .. } | ExprKind::Index { args, .. } => deepest(args),
            ExprKind::Dict(attrs) => in_attrs(attrs),
            ExprKind::Layout { ty, attrs, .. } => in_attrs(attrs).max(deep(ty)),
            ExprKind::Neg(inner) => deep(inner),
            ExprKind::Binary { lhs, rhs, .. } => deep(lhs).max(deep(rhs)),
            _ => 0,
        };
        let depth = inner.checked_add(1);
        // Reported once: everything around a node that is too deep is so marked.
        let depth = match depth {
            Some(depth) if usize::from(depth) <= MAX_NESTING + 1 => depth,
            Some(_) => {
                let message = format!("expression is nested more than {MAX_NESTING} levels deep");
                self.errors.push(error::TOO_DEEP, start..end, message);
                u16::MAX
            }
            None => u16::MAX,
        };
        self.depth.push(depth);
        self.tree.exprs.push(Expr {
            span: Span { start, end },
            kind,
        });
        ExprId(self.tree.exprs.len() as u32 - 1)
    }

    pub(crate) fn int(&mut self, start: u32, end: u32) -> ExprId {
        let value = text::parse_uint(self.slice(start, end)).unwrap_or(0);
        let kind = i64::try_from(value).map_or(ExprKind::Uint(value), ExprKind::Int);
        self.expr(start, end, kind)
    }

    pub(crate) fn float(&mut self, start: u32, end: u32) -> ExprId {
        let value = self.slice(start, end).parse().unwrap_or(f64::NAN);
        self.expr(start, end, ExprKind::Float(value))
    }

    pub(crate) fn float_bits(&mut self, start: u32, end: u32) -> ExprId {
        let digits = &self.slice(start, end)[2..];
        let width = 4 * digits.len() as u8;
        let bits = u64::from_str_radix(digits, 16).unwrap_or(0);
        self.expr(start, end, ExprKind::FloatBits { bits, width })
    }

    /// A minus sign: part of a number, an operator before everything else.
    pub(crate) fn neg(&mut self, start: u32, inner: ExprId) -> ExprId {
        let Expr { span, kind } = self.tree[inner];
        let negated = match kind {
            ExprKind::Int(value) => Some(
                value
                    .checked_neg()
                    .map_or(ExprKind::Uint(value.unsigned_abs()), ExprKind::Int),
            ),
            ExprKind::Uint(value) => match 0i64.checked_sub_unsigned(value) {
                Some(value) => Some(ExprKind::Int(value)),
                None => {
                    let message = format!("`-{value}` is less than -2^63");
                    self.errors
                        .push(error::NUMBER_RANGE, start..span.end, message);
                    None
                }
            },
            ExprKind::Float(value) => Some(ExprKind::Float(-value)),
            _ => None,
        };
        self.expr(start, span.end, negated.unwrap_or(ExprKind::Neg(inner)))
    }

    pub(crate) fn binary(&mut self, op: BinaryOp, lhs: ExprId, rhs: ExprId) -> ExprId {
        let (start, end) = (self.tree[lhs].span.start, self.tree[rhs].span.end);
        self.expr(start, end, ExprKind::Binary { op, lhs, rhs })
    }

    pub(crate) fn exprs(&mut self, items: Vec<ExprId>) -> List<ExprId> {
        append(&mut self.tree.expr_lists, items)
    }

    // Everything else.

    /// A dictionary; keys that occur twice are reported.
    pub(crate) fn dict(&mut self, attrs: Vec<Attr>) -> List<Attr> {
        let mut sorted: Vec<&Attr> = attrs.iter().collect();
        sorted.sort_by_key(|a| (&self.tree[a.key.text], a.span.start));
        for pair in sorted.windows(2) {
            let key = &self.tree[pair[1].key.text];
            if key == &self.tree[pair[0].key.text] {
                let message = format!("attribute `{}` is given twice", text::shorten(key));
                self.errors
                    .push(error::DUPLICATE_KEY, pair[1].key.span.into(), message);
            }
        }
        append(&mut self.tree.attrs, attrs)
    }

    pub(crate) fn attr(&mut self, key: Name, value: ExprId) -> Attr {
        let span = Span {
            start: key.span.start,
            end: self.tree[value].span.end,
        };
        Attr { span, key, value }
    }

    pub(crate) fn loc(
        &mut self,
        span: Span,
        name: Option<Text>,
        file: Option<Text>,
        numbers: LineColumn,
    ) -> Loc {
        let [line, column] = numbers.map(|n| n.map(|at| self.small_number(at.start, at.end)));
        Loc {
            span,
            name,
            file,
            line,
            column,
        }
    }

    pub(crate) fn locs(&mut self, locs: Vec<Loc>) -> List<Loc> {
        append(&mut self.tree.locs, locs)
    }

    pub(crate) fn params(&mut self, params: Vec<Param>) -> List<Param> {
        append(&mut self.tree.params, params)
    }

    /// The next body of the unit. Its nodes are not read yet: the list holds its index as its start
    /// until the driver replaces it.
    pub(crate) fn body<T>(&mut self) -> List<T> {
        let index = self.bodies.get(self.bodies_used).copied().unwrap_or(0);
        self.bodies_used += 1;
        List::new(index as usize, 0)
    }

    pub(crate) fn names(&mut self, names: Vec<Name>) -> List<Name> {
        append(&mut self.tree.names, names)
    }

    pub(crate) fn operands(&mut self, operands: Vec<Operand>) -> List<Operand> {
        append(&mut self.tree.operands, operands)
    }

    pub(crate) fn regions(&mut self, regions: Vec<Region>) -> List<Region> {
        append(&mut self.tree.regions, regions)
    }
}

fn append<T>(to: &mut Vec<T>, items: Vec<T>) -> List<T> {
    let list = List::new(to.len(), items.len());
    to.extend(items);
    list
}
