//! The TILED function of a choice.

use std::sync::Arc;

use dojoc_ir::attr::Number;
use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind, Loc, Place};
use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::graph::{self, ValueDef as GraphDef};
use dojoc_ir::tiled::{
    Body, BodyId, Function, GridId, Group, Layout, Reshard, Split, Step, StepRule, Stmt, Value,
    ValueDef, ValueId, result_layout,
};
use foldhash::{HashMap, HashMapExt as _};

use super::choose::Choice;
use super::grids::Grids;
use super::problem::{NodeKind, Problem, Rules};
use super::{NOT_TILED, TileOptions, traffic};
use crate::emit::kernel;

struct Builder<'p> {
    problem: &'p Problem<'p>,
    choice: &'p Choice,
    grids: &'p Grids,
    gather_above: Option<u64>,
    out: Function,
    /// The value in the layout in which it is made.
    made: HashMap<graph::ValueId, ValueId>,
    /// All values of a value, by layout.
    known: HashMap<(graph::ValueId, Layout), ValueId>,
    /// The same with a border that holds a number.
    bordered: HashMap<(graph::ValueId, Layout, Option<Number>), ValueId>,
    /// Nodes without operands that are made where they are used, by result.
    sources: HashMap<graph::ValueId, usize>,
    /// Views by their results.
    views: HashMap<graph::ValueId, graph::ValueId>,
    loc: Option<Arc<Loc>>,
}

fn body() -> BodyId {
    use dojoc_ir::entity::EntityId as _;
    BodyId::from_index(0)
}

/// The TILED function of a choice.
///
/// # Errors
/// A node that cannot be split as it was chosen: what lies outside of an operand has no number, say.
pub(super) fn build(
    problem: &Problem<'_>,
    choice: &Choice,
    grids: &mut Grids,
    options: &TileOptions,
) -> Result<Function, Diagnostics> {
    let mut bodies = PrimaryMap::new();
    bodies.push(Body::default());
    let one = grids.one();
    let mut builder = Builder {
        problem,
        choice,
        grids,
        gather_above: options.gather_above,
        out: Function {
            name: problem.function.name.clone(),
            values: PrimaryMap::new(),
            bodies,
            outputs: problem.function.outputs.clone(),
        },
        made: HashMap::new(),
        known: HashMap::new(),
        bordered: HashMap::new(),
        sources: HashMap::new(),
        views: HashMap::new(),
        loc: None,
    };
    builder.inputs(one);
    for (number, node) in problem.nodes.iter().enumerate() {
        let data = &problem.function.nodes[node.id];
        builder.loc = data.loc.clone();
        match &node.kind {
            NodeKind::View => {
                builder.views.insert(data.results[0], data.args[0]);
                builder.view(data.args[0], data.results[0]);
            }
            NodeKind::Step(_) if problem.is_small_source(number) => {
                for result in &data.results {
                    builder.sources.insert(*result, number);
                }
            }
            NodeKind::Step(rules) => builder.step(number, rules).map_err(|cause| {
                let message = format!("`{}` cannot be split as chosen: {cause}", data.op.name());
                let diagnostic = Diagnostic::new(NOT_TILED, Kind::Unsupported, message);
                Diagnostics::from(match &data.loc {
                    Some(loc) => diagnostic.at(Place::Node(loc.clone())),
                    None => diagnostic,
                })
            })?,
        }
    }
    builder.outputs(one);
    Ok(builder.out)
}

impl Builder<'_> {
    fn stmts(&mut self) -> &mut Vec<Stmt> {
        &mut self.out.bodies[body()].stmts
    }

    fn value(&mut self, of: graph::ValueId, layout: Layout, def: ValueDef) -> ValueId {
        let value = &self.problem.function.values[of];
        let id = self.out.values.push(Value {
            ty: value.ty.clone(),
            layout: layout.clone(),
            def,
            name: value.name.clone(),
        });
        self.known.insert((of, layout), id);
        id
    }

    fn inputs(&mut self, one: GridId) {
        for (position, input) in self.problem.function.inputs().iter().enumerate() {
            // What nobody uses lies on one core.
            let layout = self.choice.layouts.get(input).cloned();
            let layout =
                layout.unwrap_or_else(|| Layout::replicated(one, &self.problem.shape(*input)));
            let layout = self.one_box(*input, layout);
            let id = self.value(*input, layout, ValueDef::Param(body(), position as u32));
            self.made.insert(*input, id);
            self.out.bodies[body()].params.push(id);
        }
    }

    /// A reshape keeps its bytes.
    fn view(&mut self, input: graph::ValueId, output: graph::ValueId) {
        if let Some(made) = self.made.get(&input).copied() {
            let layout = self.out.values[made].layout.clone();
            let id = self.value(output, layout, ValueDef::Stmt(body()));
            self.made.insert(output, id);
            let loc = self.loc.clone();
            self.stmts().push(Stmt::View {
                input: made,
                output: id,
                loc,
            });
        }
    }

    /// A value in the layout that a step needs.
    fn get(
        &mut self,
        value: graph::ValueId,
        need: &Layout,
        fill: Option<Number>,
    ) -> Result<ValueId, String> {
        if traffic::pads(need, &self.grids[need.grid]) {
            let key = (value, need.clone(), fill);
            if let Some(id) = self.bordered.get(&key) {
                return Ok(*id);
            }
            let have = self.base(value, need)?;
            let id = self.reshard(value, have, need.clone());
            self.bordered.insert(key, id);
            return Ok(id);
        }
        if let Some(id) = self.known.get(&(value, need.clone())) {
            return Ok(*id);
        }
        let have = self.base(value, need)?;
        let layout = self.out.values[have].layout.clone();
        if layout == *need {
            return Ok(have);
        }
        if let Some(viewed) = layout.with_view(&need.view)
            && traffic::covers(&viewed, need, self.grids)
        {
            if layout.view == need.view {
                return Ok(have);
            }
            if let Some(id) = self.known.get(&(value, viewed.clone())) {
                return Ok(*id);
            }
            let id = self.value(value, viewed, ValueDef::Stmt(body()));
            let loc = self.loc.clone();
            self.stmts().push(Stmt::View {
                input: have,
                output: id,
                loc,
            });
            return Ok(id);
        }
        let id = self.reshard(value, have, need.clone());
        self.known.insert((value, need.clone()), id);
        Ok(id)
    }

    fn reshard(&mut self, value: graph::ValueId, input: ValueId, layout: Layout) -> ValueId {
        let data = &self.problem.function.values[value];
        let output = self.out.values.push(Value {
            ty: data.ty.clone(),
            layout,
            def: ValueDef::Stmt(body()),
            name: data.name.clone(),
        });
        let loc = self.loc.clone();
        self.stmts()
            .push(Stmt::Reshard(Reshard { input, output, loc }));
        output
    }

    /// A value to start from: where it was made, or made for this need.
    fn base(&mut self, value: graph::ValueId, need: &Layout) -> Result<ValueId, String> {
        if let Some(id) = self.made.get(&value) {
            return Ok(*id);
        }
        if let GraphDef::Weight(weight) = self.problem.function.values[value].def {
            let (layout, width) = (traffic::unpadded(need), self.problem.width(value));
            let layout = traffic::at_rest(layout, width, self.gather_above, self.grids);
            return Ok(match self.known.get(&(value, layout.clone())) {
                Some(id) => *id,
                None => self.value(value, layout, ValueDef::Weight(weight)),
            });
        }
        if let GraphDef::State(state) = self.problem.function.values[value].def {
            let layout = traffic::unpadded(need);
            let id = self.value(value, layout, ValueDef::State(state));
            self.made.insert(value, id);
            return Ok(id);
        }
        if let Some(input) = self.views.get(&value).copied() {
            // A view of something that is made where it is used.
            let whole = Layout::replicated(need.grid, &self.problem.shape(input));
            let need_input = need.with_view(&self.problem.shape(input)).unwrap_or(whole);
            let from = self.get(input, &traffic::unpadded(&need_input), None)?;
            let layout = self.out.values[from].layout.clone();
            if let Some(id) = self.known.get(&(value, layout.clone())) {
                return Ok(*id);
            }
            let id = self.value(value, layout, ValueDef::Stmt(body()));
            let function = self.problem.function;
            let loc = match function.values[value].def {
                GraphDef::Result(node, _) => function.nodes[node].loc.clone(),
                _ => None,
            };
            self.stmts().push(Stmt::View {
                input: from,
                output: id,
                loc,
            });
            return Ok(id);
        }
        let number = *self
            .sources
            .get(&value)
            .ok_or("a value is used before it is made")?;
        self.source(value, number, need.grid)
    }

    /// Makes a small value on every core of a grid.
    fn source(
        &mut self,
        value: graph::ValueId,
        number: usize,
        grid: GridId,
    ) -> Result<ValueId, String> {
        let node = &self.problem.nodes[number];
        let NodeKind::Step(rules) = &node.kind else {
            return Err("a view has no operands".into());
        };
        let data = &self.problem.function.nodes[node.id];
        let mut wanted = None;
        let mut results = vec![];
        for (n, result) in data.results.iter().enumerate() {
            let layout = result_layout(&rules.widest.rule, grid, &[], n)?;
            let id = match self.known.get(&(*result, layout.clone())) {
                Some(id) => return Ok(*id),
                None => self.value(*result, layout, ValueDef::Stmt(body())),
            };
            if *result == value {
                wanted = Some(id);
            }
            results.push(id);
        }
        self.push_step(
            grid,
            Step {
                op: rules.op.clone(),
                args: vec![],
                results,
                loops: rules.widest.loops.clone(),
                split: vec![],
                temporal: vec![],
                loc: data.loc.clone(),
            },
        );
        wanted.ok_or_else(|| "a node does not make its result".into())
    }

    fn push_step(&mut self, grid: GridId, step: Step) {
        if let Some(Stmt::Group(group)) = self.stmts().last_mut()
            && group.grid == grid
        {
            group.steps.push(step);
            return;
        }
        self.stmts().push(Stmt::Group(Group {
            grid,
            steps: vec![step],
        }));
    }

    fn step(&mut self, number: usize, rules: &Rules) -> Result<(), String> {
        let data = &self.problem.function.nodes[self.problem.nodes[number].id];
        let candidate = self.choice.nodes[number]
            .as_ref()
            .ok_or("no split was chosen")?;
        let mut args = vec![];
        for (n, (value, need)) in data.args.iter().zip(&candidate.needs).enumerate() {
            let fill = match &candidate.rule.rule.rule {
                StepRule::Loop(access) => {
                    kernel::fill_value(access, n).map_err(|e| e.to_string())?
                }
                StepRule::Kernel(_) => None,
            };
            args.push(self.get(*value, need, fill)?);
        }
        let mut results = vec![];
        for (n, result) in data.results.iter().enumerate() {
            let layout = result_layout(&candidate.rule.rule, candidate.grid, &candidate.split, n)?;
            let id = self.value(*result, layout, ValueDef::Stmt(body()));
            self.made.insert(*result, id);
            results.push(id);
        }
        self.push_step(
            candidate.grid,
            Step {
                op: rules.op.clone(),
                args,
                results,
                loops: candidate.rule.loops.clone(),
                split: candidate.split.clone(),
                temporal: vec![],
                loc: data.loc.clone(),
            },
        );
        Ok(())
    }

    /// Outputs keep their layouts; what no core makes is made on one core.
    fn outputs(&mut self, one: GridId) {
        let mut taken = vec![];
        for result in self.problem.function.results() {
            let id = match self.made.get(result) {
                Some(id) => Some(*id),
                None => {
                    let need = Layout::replicated(one, &self.problem.shape(*result));
                    self.get(*result, &need, None).ok()
                }
            };
            if let Some(id) = id {
                let id = self.own_bytes(*result, id, &mut taken);
                self.out.bodies[body()].results.push(id);
            }
        }
    }

    /// The value, or a copy of it if its bytes are those of an input, a weight, a state or another
    /// output.
    fn own_bytes(
        &mut self,
        of: graph::ValueId,
        value: ValueId,
        taken: &mut Vec<ValueId>,
    ) -> ValueId {
        let mut root = value;
        for stmt in self.out.bodies[body()].stmts.iter().rev() {
            if let Stmt::View { input, output, .. } = stmt
                && *output == root
            {
                root = *input;
            }
        }
        let made = matches!(self.out.values[root].def, ValueDef::Stmt(_));
        let mut layout = self.out.values[value].layout.clone();
        // The host reads every element once, so halos stay behind.
        let mut plain = true;
        for (split, extent) in layout.splits.iter_mut().zip(&layout.view) {
            if !split.is_plain(*extent) {
                *split = Split::over(split.axes.clone(), *extent, 1);
                plain = false;
            }
        }
        let wanted = self.one_box(of, layout.clone());
        if made && plain && wanted == layout && !taken.contains(&root) {
            taken.push(root);
            return value;
        }
        self.reshard(of, value, wanted)
    }

    /// The layout, if every core has one box of the tensor under its own shape, as the host sees
    /// it; else one that splits the largest dim over all cores of the grid.
    fn one_box(&self, of: graph::ValueId, layout: Layout) -> Layout {
        let shape = self.problem.shape(of);
        if layout.with_view(&shape).is_some() {
            return layout;
        }
        let mut whole = Layout::replicated(layout.grid, &shape);
        if let Some(t) = (0..shape.len()).max_by_key(|t| shape[*t]) {
            let axes = (0..self.grids[layout.grid].axes.len()).collect();
            whole.splits[t] = Split::over(axes, shape[t], 1);
        }
        whole
    }
}
