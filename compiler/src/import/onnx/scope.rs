//! Names of the model and what they stand for, in nested graphs and functions.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::value::Slot;
use super::wire::AttributeProto;

/// Versions of operator sets by domain (`ai.onnx` is the empty name).
pub(super) type Opsets = BTreeMap<String, i64>;

/// The names of one graph or function body.
pub(super) struct Frame<'m> {
    pub(super) names: BTreeMap<&'m str, Slot<'m>>,
    /// Whether names that are not here are looked up in the frame below.
    pub(super) open: bool,
    /// Attributes of the call, in a function's body and the graphs inside it.
    pub(super) attributes: Rc<BTreeMap<&'m str, &'m AttributeProto>>,
    pub(super) opsets: Rc<Opsets>,
    /// Comes before the names of values and nodes.
    pub(super) prefix: Arc<str>,
}

/// The frames from the main graph inwards.
pub(super) struct Scope<'m> {
    frames: Vec<Frame<'m>>,
}

impl<'m> Scope<'m> {
    pub(super) fn new(opsets: Opsets) -> Self {
        let frame = Frame {
            names: BTreeMap::new(),
            open: false,
            attributes: Rc::default(),
            opsets: Rc::new(opsets),
            prefix: "".into(),
        };
        Self {
            frames: vec![frame],
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn top(&self) -> &Frame<'m> {
        // The main graph's frame is never taken off.
        &self.frames[self.frames.len() - 1]
    }

    pub(super) fn top_mut(&mut self) -> &mut Frame<'m> {
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    /// Enters a graph inside a node: `open` if it sees the names around it.
    pub(super) fn enter_graph(&mut self, open: bool, prefix: Arc<str>) {
        let top = self.top();
        let frame = Frame {
            names: BTreeMap::new(),
            open,
            attributes: top.attributes.clone(),
            opsets: top.opsets.clone(),
            prefix,
        };
        self.frames.push(frame);
    }

    /// Enters a function's body.
    pub(super) fn enter_function(
        &mut self,
        opsets: Opsets,
        attributes: BTreeMap<&'m str, &'m AttributeProto>,
        prefix: Arc<str>,
    ) {
        self.frames.push(Frame {
            names: BTreeMap::new(),
            open: false,
            attributes: Rc::new(attributes),
            opsets: Rc::new(opsets),
            prefix,
        });
    }

    pub(super) fn leave(&mut self) {
        if self.frames.len() > 1 {
            self.frames.pop();
        }
    }

    /// What a name stands for.
    pub(super) fn get(&self, name: &str) -> Option<&Slot<'m>> {
        for frame in self.frames.iter().rev() {
            if let Some(slot) = frame.names.get(name) {
                return Some(slot);
            }
            if !frame.open {
                return None;
            }
        }
        None
    }

    /// Replaces what a name stands for, in the frame that defines it.
    pub(super) fn replace(&mut self, name: &str, slot: Slot<'m>) {
        for frame in self.frames.iter_mut().rev() {
            if let Some(old) = frame.names.get_mut(name) {
                *old = slot;
                return;
            }
            if !frame.open {
                return;
            }
        }
    }

    /// Defines a name in the innermost frame; tells whether it was new there.
    pub(super) fn define(&mut self, name: &'m str, slot: Slot<'m>) -> bool {
        let names = &mut self.top_mut().names;
        match names.entry(name) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(slot);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }
}
