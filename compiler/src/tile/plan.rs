//! Decisions of the mapper as a text that people read, edit and give back.
//!
//! ```toml
//! [[node]]
//! name = "node_conv2d"        # name of the node (or of its result) in the model
//! split = { oc = 8, oh = 28 } # loops by name, and over how many cores
//! ```
//!
//! On a machine of several chips a loop may also be split over chips and tiles:
//! `split = { m = { chip = 2, core = 16 }, n = 22 }`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use dojoc_ir::diag::{Diagnostic, Diagnostics};
use dojoc_ir::machine::Machine;
use dojoc_ir::tiled::{AxisLevel, LoopSplit};

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

/// Loops by name, in order, and over how much of each level they are split, higher levels first.
type Split = Vec<(String, Vec<(AxisLevel, u64)>)>;

fn level_name(level: AxisLevel) -> &'static str {
    let found = AxisLevel::ALL.iter().find(|(l, _)| *l == level);
    found.map_or("", |(_, name)| *name)
}

/// The parts of a loop: a number if all are cores.
fn parts_text(parts: &[(AxisLevel, u64)]) -> String {
    if let [(AxisLevel::Core, count)] = parts {
        return count.to_string();
    }
    let parts: Vec<String> = (parts.iter())
        .map(|(level, count)| format!("{} = {count}", level_name(*level)))
        .collect();
    format!("{{ {} }}", parts.join(", "))
}

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
                .map(|(dim, parts)| format!("{} = {}", quoted(dim), parts_text(parts)))
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
        if self.is_empty() {
            return Ok(());
        }
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
                    let mut parts: Vec<(AxisLevel, u64)> = vec![];
                    for axis in s.axes.iter().map(|a| &grids[candidate.grid].axes[*a]) {
                        match parts.last_mut() {
                            Some((level, count)) if *level == axis.level => *count *= axis.size,
                            _ => parts.push((axis.level, axis.size)),
                        }
                    }
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
        let rule_of =
            |rules: &Rules| match [&rules.widest, &rules.finest].into_iter().find(|r| fits(r)) {
                Some(rule) => Some(rule.clone()),
                None => rules
                    .named(split.iter().map(|(dim, _)| &**dim))
                    .map(Arc::new),
            };
        let Some(rule) = rule_of(rules) else {
            // A name of a source may stand for several nodes of an expansion.
            let own = names(problem, number).first() == Some(&name);
            let of_others = (0..problem.nodes.len()).any(|other| {
                other != number
                    && names(problem, other).contains(&name)
                    && matches!(&problem.nodes[other].kind, NodeKind::Step(r)
                        if rule_of(r).is_some())
            });
            if of_others && !own {
                return Ok(None);
            }
            let loops = [rules.widest.rule.names(), rules.finest.rule.names()]
                .concat()
                .join(", ");
            return Err(bad(format!("`{name}` has no such loops; it has {loops}")).into());
        };
        let mut axes: Vec<(AxisLevel, usize, u64)> = vec![];
        for (dim, parts) in split {
            let position = rule.rule.names().iter().position(|n| n == dim).unwrap_or(0);
            if !rule.rule.is_splittable(position) {
                return Err(bad(format!("the loop `{dim}` of `{name}` cannot be split")).into());
            }
            axes.extend(parts.iter().map(|(level, size)| (*level, position, *size)));
        }
        for (level, _) in AxisLevel::ALL {
            let sizes = axes.iter().filter(|a| a.0 == level).map(|a| a.2);
            let count = sizes.fold(1u64, u64::saturating_mul);
            if count == 0 || count > grids.most(level) {
                let (word, most) = (level_name(level), grids.most(level));
                let message = format!("`{name}` is split over {count} {word}s of {most}");
                return Err(bad(message).into());
            }
        }
        axes.retain(|(_, _, size)| *size > 1);
        // A stable order: loops as they are named, within a level.
        axes.sort_by_key(|(level, ..)| *level);
        let sizes: Vec<(AxisLevel, u64)> = axes.iter().map(|a| (a.0, a.2)).collect();
        let grid = grids.of(&sizes);
        let mut splits: Vec<LoopSplit> = vec![];
        for (axis, (_, dim, _)) in axes.iter().enumerate() {
            match splits.iter_mut().find(|s| s.dim == *dim) {
                Some(split) => split.axes.push(axis),
                None => splits.push(LoopSplit {
                    dim: *dim,
                    axes: vec![axis],
                    unit: 1,
                }),
            }
        }
        Ok(Some(Candidate::new(
            rules, &rule, grid, splits, grids, machine,
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
    let count = |dim: &str, parts: &toml::Value| {
        let count = parts.as_integer().and_then(|p| u64::try_from(p).ok());
        count.ok_or_else(|| format!("the parts of `{dim}` of `{name}` are not a number"))
    };
    let parts = split.iter().map(|(dim, parts)| {
        let Some(levels) = parts.as_table() else {
            return Ok((dim.clone(), vec![(AxisLevel::Core, count(dim, parts)?)]));
        };
        if let Some(key) = (levels.keys()).find(|k| AxisLevel::ALL.iter().all(|(_, n)| n != k)) {
            return Err(format!(
                "`{dim}` of `{name}` is split over `{key}`, not tile, chip or core"
            ));
        }
        let mut found = vec![];
        for (level, word) in AxisLevel::ALL {
            if let Some(parts) = levels.get(word) {
                found.push((level, count(dim, parts)?));
            }
        }
        Ok((dim.clone(), found))
    });
    Ok((name.to_owned(), parts.collect::<Result<_, String>>()?))
}
