//! Renumbers a module in the order of its text form.

use foldhash::{HashSet, HashSetExt as _};

use super::{Function, FunctionBuilder, Module, RegionId, Value, ValueDef, ValueId};
use crate::entity::{EntityId as _, SecondaryMap};

impl Module {
    /// Renumbers values, nodes and regions in the order of the text form, and drops what is not
    /// reachable from a body: the form in which equal modules compare equal.
    pub fn compacted(&self) -> Self {
        self.clone().compact()
    }

    /// As [`compacted`](Self::compacted), of a module that is not needed any more: nothing is copied of a
    /// function that has the form already.
    #[must_use]
    pub fn compact(mut self) -> Self {
        let others = self.functions.iter().filter(|(_, f)| !is_compact(f));
        let others: Vec<_> = others.map(|(id, f)| (id, compact(&self, f))).collect();
        for (id, func) in others {
            self.functions[id] = func;
        }
        self
    }
}

/// Follows a function as [`compact`] does, to see whether it would number anything anew.
struct Numbering<'f> {
    func: &'f Function,
    values: usize,
    nodes: usize,
    regions: usize,
    sources: HashSet<ValueDef>,
}

fn is_compact(func: &Function) -> bool {
    let mut numbering = Numbering {
        func,
        values: 0,
        nodes: 0,
        regions: 1,
        sources: HashSet::new(),
    };
    func.body().index() == 0
        && numbering.region(func.body())
        && numbering.values == func.values.len()
        && numbering.nodes == func.nodes.len()
        && numbering.regions == func.regions.len()
}

impl Numbering<'_> {
    /// Whether a value has the next number.
    fn defined(&mut self, value: ValueId) -> bool {
        self.values += 1;
        value.index() + 1 == self.values
    }

    /// Whether a value that is used has a number by now, or is a source that gets the next.
    fn used(&mut self, value: ValueId) -> bool {
        let Value { def, name, .. } = &self.func.values[value];
        if value.index() < self.values {
            return true;
        }
        matches!(def, ValueDef::Weight(_) | ValueDef::State(_))
            && name.is_none()
            && self.sources.insert(*def)
            && self.defined(value)
    }

    fn region(&mut self, region: RegionId) -> bool {
        let func = self.func;
        let region = &func.regions[region];
        region.params.iter().all(|v| self.defined(*v))
            && region.nodes.iter().all(|id| {
                let node = &func.nodes[*id];
                node.args.iter().all(|v| self.used(*v))
                    && node.regions.iter().all(|inner| {
                        self.regions += 1;
                        inner.index() + 1 == self.regions && self.region(*inner)
                    })
                    && {
                        self.nodes += 1;
                        id.index() + 1 == self.nodes
                    }
                    && node.results.iter().all(|v| self.defined(*v))
            })
            && region.results.iter().all(|v| self.used(*v))
    }
}

fn compact(module: &Module, func: &Function) -> Function {
    let mut b = FunctionBuilder::new(func.name.clone());
    let mut map = SecondaryMap::new(None);
    copy_region(module, func, func.body(), &mut b, &mut map);
    let results: Vec<ValueId> = func
        .results()
        .iter()
        .map(|v| import(module, func, *v, &mut b, &map))
        .collect();
    b.finish(&results, func.outputs.clone())
}

fn import(
    module: &Module,
    func: &Function,
    value: ValueId,
    b: &mut FunctionBuilder,
    map: &SecondaryMap<ValueId, Option<ValueId>>,
) -> ValueId {
    match func.values[value].def {
        ValueDef::Weight(weight) => b.weight(module, weight),
        ValueDef::State(state) => b.state(module, state),
        _ => map[value].unwrap_or(ValueId::from_index(0)),
    }
}

fn copy_region(
    module: &Module,
    func: &Function,
    region: RegionId,
    b: &mut FunctionBuilder,
    map: &mut SecondaryMap<ValueId, Option<ValueId>>,
) {
    for param in &func.regions[region].params {
        let Value { ty, name, .. } = &func.values[*param];
        map.set(*param, Some(b.param(ty.clone(), name.clone())));
    }
    for id in &func.regions[region].nodes {
        let node = &func.nodes[*id];
        let args: Vec<ValueId> = node
            .args
            .iter()
            .map(|v| import(module, func, *v, b, map))
            .collect();
        let mut regions = vec![];
        for inner in &node.regions {
            let new = b.open_region();
            copy_region(module, func, *inner, b, map);
            let results = func.regions[*inner].results.clone();
            let results: Vec<ValueId> = results
                .iter()
                .map(|v| import(module, func, *v, b, map))
                .collect();
            b.close_region(&results);
            regions.push(new);
        }
        b.set_loc(node.loc.clone());
        let results = b.push_node(node.op.clone(), &args, &regions, func.types(&node.results));
        for (old, new) in node.results.iter().zip(results) {
            if let Some(name) = &func.values[*old].name {
                b.set_name(new, name.clone());
            }
            map.set(*old, Some(new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::parse;

    const TEXT: &str = r#"dojo graph 1
module @m {
  weight @w : f32[2] = hex("0000803f00000040")
  weight @v : f32[2] = hex("0000803f00000040")

  func @main(%p : bool[], %x : f32[2]) -> (%y : f32[2], %z : f32[2]) {
    %a = mul %x, @w : f32[2]
    %b = add %x, @v : f32[2]
    %c = if %p, %a (
      { ^(%s : f32[2])
        %d = add %s, %s : f32[2]
        yield %d
      },
      { ^(%t : f32[2])
        %e = mul %t, %t : f32[2]
        yield %e
      }
    ) : f32[2]
    %z = mul %b, @v : f32[2]
    return %c, %z
  }
}
"#;

    #[test]
    fn what_is_compact_is_left_as_it_is() {
        let (module, _) = parse(TEXT).unwrap();
        let id = module.functions.ids().next().unwrap();
        let whole = &module.functions[id];
        assert!(is_compact(whole));
        assert_eq!(compact(&module, whole), *whole);
        let check = |what: &str, change: &dyn Fn(&mut Function)| {
            let mut func = whole.clone();
            change(&mut func);
            assert!(!is_compact(&func), "{what}");
            let mut changed = module.clone();
            changed.functions[id] = func.clone();
            let compacted = changed.compacted();
            assert_ne!(compacted.functions[id], func, "{what}");
            assert!(is_compact(&compacted.functions[id]), "{what}");
            assert_eq!(compacted.to_string(), changed.to_string(), "{what}");
        };
        let body = whole.body();
        check("other order of nodes", &|f| {
            f.regions[body].nodes.swap(0, 1)
        });
        check("a node that is gone", &|f| {
            f.regions[body].nodes.remove(3);
            f.regions[body].results[1] = f.regions[body].results[0];
        });
        check("a value that nothing defines", &|f| {
            let value = f.values[ValueId::from_index(0)].clone();
            f.values.push(value);
        });
        check("regions in another order", &|f| {
            let owner = f.regions[body].nodes[2];
            f.nodes[owner].regions.swap(0, 1);
        });
    }
}
