//! What a rule is, and the one way in which rules are applied.
//!
//! A rule has patterns over mnemonics, side conditions as named predicates, and a function that
//! builds its right side over a scratch graph. The right side is typed node by node; a rule applies
//! only if the result has the type of what was matched. That is necessary and far from enough (equal
//! extents hide wrong axes), so a rule also has a generator of instances, without which it is no
//! rule: the harness evaluates both sides on them, and takes away each side condition in turn, upon
//! which it must find a difference.

use std::sync::LazyLock;

use dojoc_ir::attr::{Attr, AttrField};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::Type;
use egg::{Id, Pattern, Searcher, Subst};

use super::facts::{Data, Facts, Graph, facts};
use super::generate::Gen;
use super::node::Node;
use super::rules;
use super::scratch::{Scratch, Term};

/// What a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// Movement of elements, and what commutes with it.
    Structure,
    /// Contractions.
    Matmul,
    /// Convolutions.
    Conv,
    /// Normalisations, softmax and activations.
    Norm,
}

/// What a rule does to floating-point values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fp {
    /// Nothing: every value stays, bit for bit.
    Exact,
    /// Both sides are equal in real numbers, and round differently.
    Reassoc,
}

/// A named predicate over a match.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// What it says.
    pub name: &'static str,
    /// Whether it holds; `None` is no.
    pub holds: fn(&Match<'_>) -> Option<bool>,
}

/// A rule. Every part is mandatory, the generator included.
#[derive(Clone, Copy, Debug)]
pub struct RuleSpec {
    /// Name.
    pub name: &'static str,
    /// What it is about.
    pub family: Family,
    /// What it does to floats.
    pub fp: Fp,
    /// What it says, in one line.
    pub doc: &'static str,
    /// Left sides. `{unary}` and `{binary}` stand for every mnemonic of those families.
    pub patterns: &'static [&'static str],
    /// What must hold for both sides to be equal.
    pub conditions: &'static [Condition],
    /// What must hold for the rule to be of use; both sides are equal without.
    pub guards: &'static [Condition],
    /// Builds the right side; `None` if there is none.
    pub build: fn(&Match<'_>, &mut Scratch) -> Option<Term>,
    /// Builds an instance of the left side, with extents, attributes and broadcasts at random, also
    /// such that do not meet the conditions.
    pub generate: fn(&mut Gen) -> Option<Term>,
}

/// One place where a pattern of a rule matches.
pub struct Match<'a> {
    graph: &'a Graph,
    subst: &'a Subst,
    class: Id,
    family: Option<&'static str>,
}

impl Match<'_> {
    fn class_of(&self, var: &str) -> Option<Id> {
        self.subst.get(var.parse().ok()?).copied()
    }

    fn facts(&self, var: &str) -> Option<&Facts> {
        facts(self.graph, self.class_of(var)?)
    }

    /// The type of a variable.
    pub fn ty(&self, var: &str) -> Option<&Type> {
        Some(&self.facts(var)?.ty)
    }

    /// The extents of a variable.
    pub fn dims(&self, var: &str) -> Option<Vec<u64>> {
        self.ty(var)?.shape.as_const()
    }

    /// The type of what was matched.
    pub fn result(&self) -> Option<&Type> {
        Some(&facts(self.graph, self.class)?.ty)
    }

    /// The value of an attribute that a variable is bound to.
    pub fn attr<T: AttrField>(&self, var: &str) -> Option<T> {
        let Data::Attr(id) = self.graph[self.class_of(var)?].data else {
            return None;
        };
        T::from_attr(self.graph.analysis.attrs.get(id)).ok()
    }

    /// An attribute that is a list of numbers.
    pub fn numbers(&self, var: &str) -> Option<Vec<i64>> {
        self.attr::<Vec<i64>>(var)
    }

    /// An attribute as it is.
    pub fn raw(&self, var: &str) -> Option<Attr> {
        let Data::Attr(id) = self.graph[self.class_of(var)?].data else {
            return None;
        };
        self.graph.analysis.attrs.get(id).cloned()
    }

    /// Whether a variable can be computed when compiling.
    pub fn weight(&self, var: &str) -> bool {
        self.facts(var).is_some_and(|f| f.weight)
    }

    /// The value of all elements of a variable.
    pub fn splat(&self, var: &str) -> Option<Scalar> {
        self.facts(var)?.splat
    }

    /// Whether no element of a variable is below zero.
    pub fn non_negative(&self, var: &str) -> bool {
        self.facts(var).is_some_and(|f| f.non_negative)
    }

    /// The function that `{unary}` stands for.
    pub fn unary(&self) -> Option<UnaryFn> {
        UnaryFn::parse(self.family?)
    }

    /// The function that `{binary}` stands for.
    pub fn binary(&self) -> Option<BinaryFn> {
        BinaryFn::parse(self.family?)
    }

    /// A variable as operand of the right side.
    pub fn var(&self, var: &str, scratch: &mut Scratch) -> Option<Term> {
        let class = self.graph.find(self.class_of(var)?);
        let known = facts(self.graph, class)?.clone();
        Some(scratch.leaf(class.into(), known))
    }
}

/// A rule with its patterns read.
pub(super) struct Rule {
    pub spec: RuleSpec,
    patterns: Vec<(Option<&'static str>, Pattern<Node>)>,
}

impl Rule {
    /// Reads the patterns of a rule.
    ///
    /// # Errors
    /// The pattern that is none, with the reason.
    pub fn new(spec: RuleSpec) -> Result<Self, String> {
        let mut patterns = vec![];
        for text in spec.patterns {
            for (family, text) in expand(text) {
                let pattern = text.parse();
                let pattern = pattern.map_err(|e| format!("{}: `{text}`: {e}", spec.name))?;
                patterns.push((family, pattern));
            }
        }
        Ok(Self { spec, patterns })
    }

    /// All matches: (pattern, class, bindings).
    pub fn search(&self, graph: &Graph) -> Vec<Found> {
        let mut found = vec![];
        for (n, (_, pattern)) in self.patterns.iter().enumerate() {
            for at in pattern.search(graph) {
                let class = at.eclass;
                let substs = at.substs.into_iter();
                found.extend(substs.map(|subst| Found {
                    pattern: n,
                    class,
                    subst,
                }));
            }
        }
        found
    }

    /// The right side at a match, and what it equals, if the rule applies: all conditions hold but
    /// `dropped`, guards hold if asked for, and the types agree.
    pub fn right_side(
        &self,
        graph: &Graph,
        found: &Found,
        dropped: Option<usize>,
        guarded: bool,
    ) -> Option<(Scratch, Term)> {
        let at = Match {
            graph,
            subst: &found.subst,
            class: found.class,
            family: self.patterns[found.pattern].0,
        };
        let result = facts(graph, found.class)?;
        // Other roundings of 16-bit results are not within the roundings that ops declare.
        if self.spec.fp != Fp::Exact && result.ty.dtype.is_float() && result.ty.dtype.bytes() < 4 {
            return None;
        }
        let conditions = self.spec.conditions.iter().enumerate();
        let conditions = conditions.filter(|(n, _)| Some(*n) != dropped);
        let guards = self.spec.guards.iter().filter(|_| guarded);
        let mut all = conditions.map(|(_, c)| c).chain(guards);
        if !all.all(|c| (c.holds)(&at) == Some(true)) {
            return None;
        }
        let mut scratch = Scratch::new(graph.analysis.offline);
        let root = (self.spec.build)(&at, &mut scratch)?;
        (scratch.ty(root) == &result.ty).then_some((scratch, root))
    }
}

/// A match, as the search finds it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pattern: usize,
    pub class: Id,
    subst: Subst,
}

/// The patterns that a text with `{unary}` or `{binary}` stands for.
fn expand(text: &str) -> Vec<(Option<&'static str>, String)> {
    let families = [("{unary}", UnaryFn::NAMES), ("{binary}", BinaryFn::NAMES)];
    for (hole, names) in families {
        if text.contains(hole) {
            let with = |name: &&'static str| (Some(*name), text.replace(hole, name));
            return names.iter().map(with).collect();
        }
    }
    vec![(None, text.to_owned())]
}

/// How far an e-graph may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of nodes.
    pub nodes: usize,
    /// Number of rounds in which every rule is tried everywhere.
    pub rounds: usize,
}

/// What became of an e-graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// Rounds.
    pub rounds: usize,
    /// Rules applied.
    pub applied: usize,
    /// Whether nothing was left to be done.
    pub saturated: bool,
}

/// The rules, read once.
pub(super) static RULES: LazyLock<Result<Vec<Rule>, String>> =
    LazyLock::new(|| rules::all().into_iter().map(Rule::new).collect());

/// Applies rules everywhere until nothing new is found or a limit is reached. Counts alone decide
/// where it stops, so the result is a function of the e-graph.
pub(super) fn saturate(graph: &mut Graph, rules: &[Rule], limits: Limits) -> Growth {
    let mut growth = Growth::default();
    graph.rebuild();
    while growth.rounds < limits.rounds && graph.total_size() < limits.nodes {
        growth.rounds += 1;
        let found: Vec<(&Rule, Found)> = rules
            .iter()
            .flat_map(|rule| rule.search(graph).into_iter().map(move |f| (rule, f)))
            .collect();
        let mut changed = false;
        for (rule, found) in found {
            if graph.total_size() >= limits.nodes {
                break;
            }
            let Some((scratch, root)) = rule.right_side(graph, &found, None, true) else {
                continue;
            };
            graph.analysis.matched = Some(found.class);
            let new = scratch.insert(root, graph);
            graph.analysis.matched = None;
            let Some(new) = new else {
                continue;
            };
            if graph.union(found.class, new) {
                growth.applied += 1;
                changed = true;
            }
        }
        graph.rebuild();
        if !changed {
            growth.saturated = true;
            break;
        }
    }
    growth
}
