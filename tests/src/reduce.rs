//! Makes a graph that fails smaller, so that people can see why.

use std::collections::{BTreeMap, BTreeSet};

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::{
    Function, FunctionBuilder, Module, NodeId, Output, RegionId, State, StateId, StateInit,
    ValueDef, ValueId, WeightId,
};
use dojoc_ir::level::Level as _;
use dojoc_ir::types::{Shape, Type};

/// A change that makes a graph smaller.
#[derive(Clone, Copy, Debug)]
enum Edit {
    /// Only this value is an output.
    Keep(ValueId),
    /// One output less.
    Drop(usize),
    /// The results of a node become inputs.
    Cut(NodeId),
    /// An operand takes the place of a node's result.
    Bypass(NodeId, usize),
    /// A weight becomes an input.
    Feed(WeightId),
    /// A state becomes an input, and its update an ordinary output.
    Release(StateId),
    /// Extents of inputs that are the first number become the second.
    Shrink(u64, u64),
}

/// How large a graph is: edits must make it smaller.
fn size(module: &Module) -> (usize, usize, usize, u64) {
    let functions = || module.functions.values();
    let extents = |f: &Function| -> u64 {
        let inputs = f.inputs().iter().flat_map(|v| f.ty(*v).dims());
        inputs.map(Dim::max_extent).sum()
    };
    (
        functions().map(|f| f.walk().len()).sum(),
        functions().map(|f| f.outputs.len()).sum(),
        module.weights.len() + module.states.len(),
        functions().map(extents).sum(),
    )
}

/// The smallest graph to be found that still fails: no single edit makes it smaller without hiding
/// the failure. `module` must have one function and fail. Inputs of the result are not those of the
/// module, so `fails` makes values for them.
pub fn reduce(module: &Module, fails: &mut dyn FnMut(&Module) -> bool) -> Module {
    let mut best = module.compacted();
    loop {
        let mut smaller = false;
        for edits in [outputs, nodes, weights, extents] {
            // What an edit numbers is of the graph that it was made for.
            while let Some(next) = edits(&best)
                .into_iter()
                .filter_map(|edit| apply(&best, edit))
                .find(|next| size(next) < size(&best) && fails(next))
            {
                best = next;
                smaller = true;
            }
        }
        if !smaller {
            return best;
        }
    }
}

fn main_of(module: &Module) -> Option<&Function> {
    module.functions.values().next()
}

fn body_nodes(module: &Module) -> Vec<NodeId> {
    main_of(module).map_or(vec![], |f| f.regions[f.body()].nodes.clone())
}

fn outputs(module: &Module) -> Vec<Edit> {
    let Some(func) = main_of(module) else {
        return vec![];
    };
    let nodes = body_nodes(module).into_iter();
    let keep = nodes.flat_map(|node| func.nodes[node].results.iter().map(|v| Edit::Keep(*v)));
    let drop = (0..func.outputs.len()).map(Edit::Drop);
    keep.chain(drop).collect()
}

fn nodes(module: &Module) -> Vec<Edit> {
    let Some(func) = main_of(module) else {
        return vec![];
    };
    let nodes = body_nodes(module).into_iter().rev();
    let edits = nodes.flat_map(|node| {
        let args = 0..func.nodes[node].args.len();
        std::iter::once(Edit::Cut(node)).chain(args.map(move |arg| Edit::Bypass(node, arg)))
    });
    edits.collect()
}

fn weights(module: &Module) -> Vec<Edit> {
    let states = module.states.ids().map(Edit::Release);
    module.weights.ids().map(Edit::Feed).chain(states).collect()
}

fn extents(module: &Module) -> Vec<Edit> {
    let inputs = main_of(module).into_iter();
    let dims = inputs.flat_map(|f| f.inputs().iter().flat_map(|v| f.ty(*v).dims()));
    let extents: BTreeSet<u64> = dims.filter_map(Dim::as_const).collect();
    let smaller = |e: u64| [1, e / 2, e.saturating_sub(1)].map(|to| Edit::Shrink(e, to));
    extents.into_iter().rev().flat_map(smaller).collect()
}

/// The graph after an edit, if it is one.
fn apply(module: &Module, edit: Edit) -> Option<Module> {
    let func = main_of(module)?;
    let mut rebuild = Rebuild {
        module,
        func,
        edit,
        b: FunctionBuilder::new(func.name.clone()),
        out: Module {
            name: module.name.clone(),
            dims: module.dims.clone(),
            ..Module::default()
        },
        map: BTreeMap::new(),
        fed: BTreeMap::new(),
        states: BTreeMap::new(),
        released: None,
    };
    let outputs: Vec<(ValueId, Output)> = match edit {
        Edit::Keep(value) => vec![(
            value,
            Output {
                name: "out".into(),
                aliases: None,
            },
        )],
        _ => {
            let all = func.results().iter().copied().zip(func.outputs.clone());
            let all = all.enumerate();
            all.filter(|(n, _)| !matches!(edit, Edit::Drop(dropped) if dropped == *n))
                .map(|(_, output)| output)
                .collect()
        }
    };
    if outputs.is_empty() {
        return None;
    }
    let values: Vec<ValueId> = outputs.iter().map(|(v, _)| rebuild.resolve(*v)).collect();
    let live = rebuild.live(&values);
    for input in func.inputs() {
        if live.contains(input) {
            rebuild.param(*input);
        }
    }
    for node in &func.regions[func.body()].nodes {
        let used = func.nodes[*node].results.iter().any(|v| live.contains(v));
        match edit {
            _ if !used => {}
            Edit::Cut(cut) if cut == *node => {
                for result in &func.nodes[*node].results {
                    if live.contains(result) {
                        rebuild.param(*result);
                    }
                }
            }
            _ => rebuild.node(*node)?,
        }
    }
    let results: Option<Vec<ValueId>> = values.iter().map(|v| rebuild.value(*v)).collect();
    // Positions of states may have changed; an update is kept for as long as the state is there.
    let updates = |(_, output): (ValueId, Output)| Output {
        aliases: output
            .aliases
            .and_then(|state| rebuild.states.get(&state).copied()),
        ..output
    };
    let outputs: Vec<Output> = outputs.into_iter().map(updates).collect();
    let Rebuild { b, mut out, .. } = rebuild;
    out.functions.push(b.finish(&results?, outputs));
    let out = out.compacted();
    out.verify().ok()?;
    Some(out)
}

struct Rebuild<'m> {
    module: &'m Module,
    func: &'m Function,
    edit: Edit,
    b: FunctionBuilder,
    out: Module,
    map: BTreeMap<ValueId, ValueId>,
    /// Weights so far, as values.
    fed: BTreeMap<WeightId, ValueId>,
    /// States so far.
    states: BTreeMap<StateId, StateId>,
    /// The input that takes the place of a state.
    released: Option<ValueId>,
}

impl Rebuild<'_> {
    /// The value that takes the place of another.
    fn resolve(&self, value: ValueId) -> ValueId {
        match (self.edit, self.func.values[value].def) {
            (Edit::Bypass(node, arg), ValueDef::Result(of, 0)) if of == node => {
                self.func.nodes[node].args[arg]
            }
            _ => value,
        }
    }

    /// The values of the body that others need.
    fn live(&self, values: &[ValueId]) -> BTreeSet<ValueId> {
        let mut live = BTreeSet::new();
        let mut todo = values.to_vec();
        while let Some(value) = todo.pop() {
            if !live.insert(value) {
                continue;
            }
            if let ValueDef::Result(node, _) = self.func.values[value].def
                && !matches!(self.edit, Edit::Cut(cut) if cut == node)
            {
                let args = self.func.nodes[node].args.iter();
                todo.extend(args.map(|arg| self.resolve(*arg)));
            }
        }
        live
    }

    /// The type of an input.
    fn ty(&self, value: ValueId) -> Type {
        let ty = self.func.ty(value);
        let Edit::Shrink(from, to) = self.edit else {
            return ty.clone();
        };
        let dims = ty.dims().iter().map(|dim| match dim.as_const() {
            Some(extent) if extent == from => Dim::Const(to),
            _ => dim.clone(),
        });
        Type::new(ty.dtype, Shape::new(dims))
    }

    fn param(&mut self, value: ValueId) {
        let name = self.func.values[value].name.clone();
        let param = self.b.param(self.ty(value), name);
        self.map.insert(value, param);
    }

    fn value(&mut self, value: ValueId) -> Option<ValueId> {
        match self.func.values[value].def {
            ValueDef::Weight(weight) => Some(self.weight(weight, value)),
            ValueDef::State(state) => Some(self.state(state, value)),
            ValueDef::Param(..) | ValueDef::Result(..) => self.map.get(&value).copied(),
        }
    }

    fn weight(&mut self, weight: WeightId, value: ValueId) -> ValueId {
        if let Some(known) = self.fed.get(&weight) {
            return *known;
        }
        let made = match self.edit {
            Edit::Feed(fed) if fed == weight => {
                let name = self.module.weights[weight].name.clone();
                self.b.param(self.func.ty(value).clone(), Some(name))
            }
            _ => {
                let id = self.out.weights.push(self.module.weights[weight].clone());
                self.b.weight(&self.out, id)
            }
        };
        self.fed.insert(weight, made);
        made
    }

    fn state(&mut self, state: StateId, value: ValueId) -> ValueId {
        if matches!(self.edit, Edit::Release(released) if released == state) {
            if let Some(known) = self.released {
                return known;
            }
            let name = self.module.states[state].name.clone();
            let made = self.b.param(self.func.ty(value).clone(), Some(name));
            self.released = Some(made);
            return made;
        }
        let (module, out) = (self.module, &mut self.out);
        let id = self.states.entry(state).or_insert_with(|| {
            let data = &module.states[state];
            let init = match data.init {
                StateInit::Weight(weight) => {
                    StateInit::Weight(out.weights.push(module.weights[weight].clone()))
                }
                StateInit::Zeros => StateInit::Zeros,
            };
            out.states.push(State {
                init,
                ..data.clone()
            })
        });
        self.b.state(&self.out, *id)
    }

    fn node(&mut self, id: NodeId) -> Option<()> {
        let func = self.func;
        let node = &func.nodes[id];
        let args = node.args.iter().map(|arg| self.resolve(*arg));
        let args: Vec<ValueId> = args.collect();
        let args: Option<Vec<ValueId>> = args.into_iter().map(|arg| self.value(arg)).collect();
        let regions: Option<Vec<RegionId>> = node.regions.iter().map(|r| self.region(*r)).collect();
        self.b.set_loc(node.loc.clone());
        let made = self.b.node_with_regions(node.op.clone(), &args?, &regions?);
        for (old, new) in node.results.iter().zip(made.ok()?) {
            if let Some(name) = &func.values[*old].name {
                self.b.set_name(new, name.clone());
            }
            self.map.insert(*old, new);
        }
        Some(())
    }

    fn region(&mut self, id: RegionId) -> Option<RegionId> {
        let func = self.func;
        let region = &func.regions[id];
        let opened = self.b.open_region();
        for param in &region.params {
            self.param(*param);
        }
        for node in &region.nodes {
            self.node(*node)?;
        }
        let results: Option<Vec<ValueId>> = region.results.iter().map(|v| self.value(*v)).collect();
        self.b.close_region(&results?);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use dojoc_ir::graph::eval;
    use dojoc_ir::ops::Op;
    use dojoc_ir::scalar::UnaryFn;

    use super::*;
    use crate::random_graph::{Options, random_inputs, random_module};

    /// Whether a compiler that takes `sigmoid` for `tanh` would be found out.
    fn fails(module: &Module) -> bool {
        let mut wrong = module.clone();
        for (_, func) in wrong.functions.iter_mut() {
            for (_, node) in func.nodes.iter_mut() {
                if node.op.name() == "sigmoid" {
                    node.op = Op::from(dojoc_ir::ops::Unary(UnaryFn::Tanh));
                }
            }
        }
        let run = |module: &Module| {
            let main = module.main()?;
            let inputs = random_inputs(&module.functions[main], 1);
            let mut states = eval::initial_states(module).ok()?;
            eval::run(module, main, &inputs, &mut states, eval::Options::default()).ok()
        };
        run(module) != run(&wrong)
    }

    #[test]
    fn one_wrong_op_is_what_remains() {
        let options = Options {
            regions: false,
            ..Options::default()
        };
        let failing = (0..200).map(|seed| random_module(seed, &options));
        let failing: Vec<Module> = failing.filter(fails).take(5).collect();
        assert_eq!(failing.len(), 5, "graphs with a sigmoid that matters");
        for module in failing {
            let small = reduce(&module, &mut fails);
            assert!(fails(&small), "{small}");
            let (nodes, outputs, weights, extents) = size(&small);
            assert_eq!((nodes, outputs, weights), (1, 1, 0), "{module}\n{small}");
            assert!(extents <= 4, "{small}");
            assert!(small.to_string().contains("sigmoid"), "{small}");
        }
    }

    /// A failure inside of a region needs the node around it.
    #[test]
    fn regions_are_kept_whole() {
        let module = Module::parse(
            "dojo graph 1
            module @m {
              func @main(%x : f32[6, 2], %y : f32[2]) -> (%a : f32[2], %b : f32[6, 2]) {
                %n = neg %x : f32[6, 2]
                %a, %b = scan %y, %n {carried = 1, sequences = 1, length = 6} (
                  { ^(%c : f32[2], %row : f32[2])
                    %s = sigmoid %c : f32[2]
                    %t = add %s, %row : f32[2]
                    yield %s, %t
                  }
                ) : f32[2], f32[6, 2]
                return %a, %b
              }
            }",
        );
        let module = module.unwrap_or_else(|e| panic!("{e}"));
        let small = reduce(&module, &mut fails);
        assert!(fails(&small), "{small}");
        let text = small.to_string();
        assert!(text.contains("scan") && !text.contains("neg"), "{text}");
        assert_eq!(size(&small).1, 1, "{text}");
    }
}
