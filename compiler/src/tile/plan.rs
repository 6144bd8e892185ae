//! Decisions of the mapper as a text that people read, edit and give back.
//!
//! ```toml
//! [[node]]
//! name = "node_conv2d"        # name of the node (or of its result) in the model
//! split = { oc = 8, oh = 28 } # loops by name, and over how many cores
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::machine::Machine;
use dojoc_ir::tiled::LoopSplit;

use super::BAD_PLAN;
use super::candidates::Candidate;
use super::choose::Choice;
use super::grids::Grids;
use super::problem::{NodeKind, Problem, Rule, Rules};

/// Splits of named nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    nodes: BTreeMap<String, Split>,
    order: Vec<String>,
}

/// Loops by name, in order, and over how many cores they are split.
type Split = Vec<(String, u64)>;

fn bad(message: impl Into<String>) -> Diagnostic {
    Diagnostic::input(BAD_PLAN, message)
}

/// Names by which people know a node: those of its results, then that of its source.
fn names(problem: &Problem<'_>, number: usize) -> Vec<String> {
    let data = &problem.function.nodes[problem.nodes[number].id];
    let results = data
        .results
        .iter()
        .filter_map(|v| problem.function.values[*v].name.as_ref());
    let source = data.loc.iter().map(|loc| &loc.name);
    results.chain(source).map(|name| name.to_string()).collect()
}

impl Plan {
    /// Reads a plan file.
    ///
    /// # Errors
    /// All that is wrong with its form.
    pub fn parse(text: &str) -> Result<Self, Diagnostics> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let diagnostic = bad(format!("the plan is not TOML: {}", error.message()));
            Diagnostics::from(match error.span() {
                Some(span) => diagnostic.at_span(span),
                None => diagnostic,
            })
        })?;
        let mut plan = Self::default();
        let mut problems = Diagnostics::default();
        for key in table.keys().filter(|k| *k != "node") {
            problems.push(bad(format!("a plan has `[[node]]` entries, not `{key}`")));
        }
        let nodes = table.get("node").and_then(|n| n.as_array());
        for node in nodes.into_iter().flatten() {
            match entry(node) {
                Ok((name, split)) => {
                    plan.order.push(name.clone());
                    if plan.nodes.insert(name.clone(), split).is_some() {
                        problems.push(bad(format!("the node `{name}` is planned twice")));
                    }
                }
                Err(message) => problems.push(bad(message)),
            }
        }
        problems.ok(plan)
    }

    /// The text form.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let quoted = |name: &str| toml::Value::from(name).to_string();
        for name in &self.order {
            let split: Vec<String> = (self.nodes[name].iter())
                .map(|(dim, parts)| format!("{} = {parts}", quoted(dim)))
                .collect();
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "[[node]]\nname = {}\nsplit = {{ {} }}\n",
                quoted(name),
                split.join(", ")
            );
        }
        text
    }

    /// Whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Looks for entries that no node of a function has.
    pub(super) fn check(&self, problem: &Problem<'_>) -> Result<(), Diagnostics> {
        let mut problems = Diagnostics::default();
        let known: Vec<String> = (0..problem.nodes.len())
            .flat_map(|number| names(problem, number))
            .collect();
        for name in &self.order {
            if !known.contains(name) {
                let known = known.iter().map(String::as_str);
                let diagnostic = bad(format!("the model has no node `{name}`"));
                problems.push(match dojoc_ir::graph::closest(name, known) {
                    Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                    None => diagnostic,
                });
            }
        }
        problems.ok(())
    }

    /// Adds the decisions of a choice.
    pub(super) fn add(&mut self, problem: &Problem<'_>, choice: &Choice, grids: &Grids) {
        for (number, candidate) in choice.nodes.iter().enumerate() {
            let Some(candidate) = candidate else { continue };
            let Some(name) = names(problem, number)
                .into_iter()
                .find(|n| !self.nodes.contains_key(n))
            else {
                continue;
            };
            let dims = candidate.rule.rule.names();
            let split = (candidate.split.iter())
                .map(|s| {
                    let parts = s
                        .axes
                        .iter()
                        .map(|a| grids[candidate.grid].axes[*a].size)
                        .product();
                    (dims[s.dim].to_owned(), parts)
                })
                .collect();
            self.order.push(name.clone());
            self.nodes.insert(name, split);
        }
    }

    /// The candidate that is pinned for a node.
    pub(super) fn pinned(
        &self,
        problem: &Problem<'_>,
        number: usize,
        rules: &Rules,
        grids: &mut Grids,
        machine: &Machine,
    ) -> Result<Option<Candidate>, Diagnostics> {
        if self.nodes.is_empty() {
            return Ok(None);
        }
        let found = names(problem, number)
            .into_iter()
            .find_map(|n| Some((self.nodes.get(&n)?, n)));
        let Some((split, name)) = found else {
            return Ok(None);
        };
        let fits = |rule: &Arc<Rule>| {
            split
                .iter()
                .all(|(dim, _)| rule.rule.names().contains(&&**dim))
        };
        let Some(rule) = [&rules.widest, &rules.finest].into_iter().find(|r| fits(r)) else {
            // A name of a source may stand for several nodes of an expansion.
            let own = names(problem, number).first() == Some(&name);
            let of_others = (0..problem.nodes.len()).any(|other| {
                other != number
                    && names(problem, other).contains(&name)
                    && matches!(&problem.nodes[other].kind, NodeKind::Step(r)
                        if fits(&r.widest) || fits(&r.finest))
            });
            if of_others && !own {
                return Ok(None);
            }
            let loops = [rules.widest.rule.names(), rules.finest.rule.names()]
                .concat()
                .join(", ");
            return Err(bad(format!("`{name}` has no such loops; it has {loops}")).into());
        };
        let sizes: Vec<u64> = split.iter().map(|(_, parts)| *parts).collect();
        let cores = sizes
            .iter()
            .try_fold(1u64, |n, s| n.checked_mul(*s))
            .unwrap_or(u64::MAX);
        if sizes.contains(&0) || cores > grids.cores() {
            let message = format!("`{name}` is split over {cores} cores of {}", grids.cores());
            return Err(bad(message).into());
        }
        let grid = grids.of(&sizes);
        let mut axis = 0;
        let mut splits = vec![];
        for (dim, parts) in split {
            let position = rule.rule.names().iter().position(|n| n == dim).unwrap_or(0);
            if !rule.rule.is_splittable(position) {
                return Err(bad(format!("the loop `{dim}` of `{name}` cannot be split")).into());
            }
            if *parts > 1 {
                splits.push(LoopSplit {
                    dim: position,
                    axes: vec![axis],
                    unit: 1,
                });
                axis += 1;
            }
        }
        Ok(Some(Candidate::new(
            rules, rule, grid, splits, grids, machine,
        )))
    }
}

fn entry(node: &toml::Value) -> Result<(String, Split), String> {
    let node = node.as_table().ok_or("`node` is a list of tables")?;
    if let Some(key) = node.keys().find(|k| *k != "name" && *k != "split") {
        return Err(format!("a node has `name` and `split`, not `{key}`"));
    }
    let name = node
        .get("name")
        .and_then(|n| n.as_str())
        .ok_or("a node needs a `name`")?;
    let split = node.get("split").and_then(|s| s.as_table());
    let split =
        split.ok_or_else(|| format!("`{name}` needs a `split`: loops and numbers of parts"))?;
    let parts = split.iter().map(|(dim, parts)| {
        let parts = parts.as_integer().and_then(|p| u64::try_from(p).ok());
        let parts =
            parts.ok_or_else(|| format!("the parts of `{dim}` of `{name}` are not a number"))?;
        Ok((dim.clone(), parts))
    });
    Ok((name.to_owned(), parts.collect::<Result<_, String>>()?))
}
